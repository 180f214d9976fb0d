/* SPDX-License-Identifier: Apache-2.0 */
/* The tokenizer as a filter, so that Python can compare it with `tokenizers`. Texts come on stdin, each as its length in bytes, a
 * newline and the bytes; one line of JSON goes out for each.
 *
 *     tokenizer_driver train FILE VOCAB_SIZE MIN_FREQUENCY FORM LOWERCASE PREFIX_SPACE    (FORM 0 NFC, 1 NFKC, 2 as it is)
 *     tokenizer_driver encode FILE MAX_LENGTH     {"ids", "start", "end", "word", "decoded", "plain", "truncated"}: decoded is
 *                                                 the text in hex, plain the same without special tokens
 *     tokenizer_driver copy FILE OUT              loads and saves
 *     tokenizer_driver config FILE OUT LENGTH     tokenizer_config.json */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer.h"

static int fail(const io_error *error) {
    fprintf(stderr, "%s\n", error->message);
    return error->code;
}

/* The next text, or NULL at the end. */
static char *read_text(size_t *length) {
    if (scanf("%zu", length) != 1 || getchar() != '\n') return NULL;
    char *text = malloc(*length + 1);
    if (!text || fread(text, 1, *length, stdin) != *length) exit(IO_NO_ROOM);
    text[*length] = 0;
    return text;
}

static int train(char **arguments) {
    size_t n = 0, capacity = 0, length;
    char **texts = NULL;
    size_t *lengths = NULL;
    for (char *text; (text = read_text(&length)); n++) {
        if (n == capacity) {
            capacity = capacity ? 2 * capacity : 1024;
            texts = realloc(texts, capacity * sizeof *texts);
            lengths = realloc(lengths, capacity * sizeof *lengths);
            if (!texts || !lengths) exit(IO_NO_ROOM);
        }
        texts[n] = text;
        lengths[n] = length;
    }
    tokenizer_train_options options = { .vocab_size = strtoull(arguments[1], NULL, 10),
                                        .min_frequency = strtoull(arguments[2], NULL, 10),
                                        .form = (tokenizer_form)atoi(arguments[3]),
                                        .lowercase = atoi(arguments[4]) != 0,
                                        .add_prefix_space = atoi(arguments[5]) != 0 };
    io_error error;
    tokenizer *t;
    if (tokenizer_train(&t, (const char *const *)texts, lengths, n, &options, &error)) return fail(&error);
    int failed = tokenizer_save(t, arguments[0], &error);
    tokenizer_free(t);
    for (size_t i = 0; i < n; i++) free(texts[i]);
    free(texts);
    free(lengths);
    return failed ? fail(&error) : 0;
}

static void print_row(const char *name, const uint32_t *values, size_t n) {
    printf("\"%s\": [", name);
    for (size_t i = 0; i < n; i++) printf("%s%" PRId32, i ? ", " : "", (int32_t)values[i]);
    printf("], ");
}

static int print_decoded(const tokenizer *t, const encoding *e, const char *name, bool skip_special, io_error *error) {
    char *text;
    size_t length;
    int failed = tokenizer_decode(t, e->ids, e->n, skip_special, &text, &length, error);
    if (failed) return failed;
    printf("\"%s\": \"", name);
    for (size_t i = 0; i < length; i++) printf("%02x", (unsigned)(unsigned char)text[i]);
    printf("\", ");
    free(text);
    return IO_OK;
}

static int encode(char **arguments) {
    io_error error;
    tokenizer *t;
    if (tokenizer_load(&t, arguments[0], &error)) return fail(&error);
    size_t max_length = strtoull(arguments[1], NULL, 10), length;
    encoding e = { 0 };
    int failed = 0;
    for (char *text; !failed && (text = read_text(&length)); free(text)) {
        failed = tokenizer_encode(t, text, length, max_length, &e, &error);
        if (failed) continue;
        putchar('{');
        print_row("ids", (const uint32_t *)e.ids, e.n);
        print_row("start", e.start, e.n);
        print_row("end", e.end, e.n);
        print_row("word", (const uint32_t *)e.word, e.n);
        failed = print_decoded(t, &e, "decoded", false, &error) || print_decoded(t, &e, "plain", true, &error);
        printf("\"truncated\": %s}\n", e.truncated ? "true" : "false");
    }
    encoding_free(&e);
    tokenizer_free(t);
    return failed ? fail(&error) : 0;
}

static int copy(char **arguments, bool config) {
    io_error error;
    tokenizer *t;
    if (tokenizer_load(&t, arguments[0], &error)) return fail(&error);
    int failed = config ? tokenizer_save_config(t, arguments[1], strtoull(arguments[2], NULL, 10), &error)
                        : tokenizer_save(t, arguments[1], &error);
    tokenizer_free(t);
    return failed ? fail(&error) : 0;
}

int main(int argc, char **argv) {
    if (argc == 8 && !strcmp(argv[1], "train")) return train(argv + 2);
    if (argc == 4 && !strcmp(argv[1], "encode")) return encode(argv + 2);
    if (argc == 4 && !strcmp(argv[1], "copy")) return copy(argv + 2, false);
    if (argc == 5 && !strcmp(argv[1], "config")) return copy(argv + 2, true);
    fprintf(stderr, "usage: see the head of tokenizer_driver.c\n");
    return IO_BAD_USAGE;
}
