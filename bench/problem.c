/* SPDX-License-Identifier: Apache-2.0 */
/* The text of a problem, taken apart. See problem.h. */
#include "problem.h"

#include <string.h>

#include <attn/attn.h>

static const struct {
    const char *name;
    int32_t dtype;
} dtypes[] = { { "f32", ATTN_F32 }, { "f64", ATTN_F64 }, { "bf16", ATTN_BF16 }, { "f16", ATTN_F16 } };

/* A positive number of at most nine digits; *end is what stands behind it. 0: there is none. */
static int64_t read_number(const char *at, const char **end) {
    int64_t n = 0;
    int digits = 0;
    for (; *at >= '0' && *at <= '9' && digits < 9; at++, digits++) n = 10 * n + (*at - '0');
    *end = at;
    return n;
}

static int read_sizes(bench_problem *p, const char *at, io_error *error) {
    while (*at) {
        char letter = *at;
        if (letter < 'a' || letter > 'z')
            return io_fail(error, IO_BAD_USAGE, "%s: sizes are letters and numbers, as in b1h8q128; '%s' is not", p->text, at);
        int64_t n = read_number(at + 1, &at);
        if (n == 0)
            return io_fail(error, IO_BAD_USAGE, "%s: size %c needs a number of 1 to 999999999 behind it", p->text, letter);
        p->size[letter - 'a'] = n;
    }
    return IO_OK;
}

int bench_problem_read(bench_problem *p, const char *text, io_error *error) {
    *p = (bench_problem){ .text = text, .dtype = ATTN_F32 };
    if (strlen(text) >= sizeof p->copy)
        return io_fail(error, IO_BAD_USAGE, "%.40s...: a problem has less than 200 letters", text);
    strcpy(p->copy, text);
    char *colon = strchr(p->copy, ':'), *rest = colon ? strchr(colon, ',') : NULL;
    if (!colon)
        return io_fail(error, IO_BAD_USAGE, "%s: a problem is written KIND:SIZES[,WORDS], as softmax:r4096c128,f32", text);
    *colon = 0;
    p->kind = p->copy;
    while (rest) {
        char *word = rest + 1;
        *rest = 0;
        rest = strchr(word, ',');
        if (p->n_words == BENCH_MOST_WORDS) return io_fail(error, IO_BAD_USAGE, "%s: too many words", text);
        p->word[p->n_words++] = word;
    }
    if (rest) *rest = 0;
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (bench_problem_has(p, dtypes[i].name)) p->dtype = dtypes[i].dtype;
    return read_sizes(p, colon + 1, error);
}

bool bench_problem_has(bench_problem *p, const char *word) {
    for (int i = 0; i < p->n_words; i++)
        if (p->word[i] && strcmp(p->word[i], word) == 0) return p->word[i] = NULL, true;
    return false;
}

int64_t bench_problem_number(bench_problem *p, const char *word) {
    size_t length = strlen(word);
    for (int i = 0; i < p->n_words; i++) {
        const char *end;
        if (!p->word[i] || strncmp(p->word[i], word, length) != 0) continue;
        int64_t n = read_number(p->word[i] + length, &end);
        if (n > 0 && !*end) return p->word[i] = NULL, n;
    }
    return 0;
}

int bench_problem_sizes(const bench_problem *p, const char *letters, int64_t *sizes, io_error *error) {
    for (int i = 0; i < 26; i++)
        if (p->size[i] && !strchr(letters, 'a' + i))
            return io_fail(error, IO_BAD_USAGE, "%s: %s has no size %c; its sizes are %s", p->text, p->kind, 'a' + i, letters);
    for (size_t i = 0; letters[i]; i++) sizes[i] = p->size[letters[i] - 'a'] ? p->size[letters[i] - 'a'] : 1;
    return IO_OK;
}

int bench_problem_done(const bench_problem *p, io_error *error) {
    for (int i = 0; i < p->n_words; i++)
        if (p->word[i])
            return io_fail(error, IO_BAD_USAGE, "%s: %s does not know the word '%s'; 'attn bench --help' lists them", p->text,
                           p->kind, p->word[i]);
    return IO_OK;
}
