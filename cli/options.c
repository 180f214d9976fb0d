/* SPDX-License-Identifier: Apache-2.0 */
/* Parses the words behind a verb by the verb's table of options. See options.h; the help made from the same table is in help.c. */
#include "options.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "message.h"

/* What every verb takes besides its own. More threads than this are a mistake: they would only wait for each other. */
enum { MOST_THREADS = 4096, MOST_OPTIONS = 64 };
static const option threads_option = { "threads", OPTION_INTEGER, .letter = 't', .low = 0, .high = MOST_THREADS };

/* One walk over the words. */
typedef struct walk {
    const command *command;
    int n_words, at;
    char *const *words;
    char *settings;
    int32_t *threads;
} walk;

/* ---- numbers ---------------------------------------------------------------------------------------- */

static bool starts_number(const char *word) {
    char c = *word == '-' || *word == '+' ? word[1] : *word;
    return (c >= '0' && c <= '9') || c == '.' || c == 'i' || c == 'I' || c == 'n' || c == 'N';
}

bool parse_integer(const char *word, int64_t *value) {
    char *end = NULL;
    if (!starts_number(word)) return false;
    errno = 0;
    long long parsed = strtoll(word, &end, 10);
    *value = parsed;
    return end != word && *end == '\0' && errno == 0;
}

bool parse_real(const char *word, double *value) {
    char *end = NULL;
    if (!starts_number(word)) return false;
    *value = strtod(word, &end);
    return end != word && *end == '\0';
}

static bool parse_seed(const char *word, uint64_t *value) {
    char *end = NULL;
    if (*word < '0' || *word > '9') return false;
    errno = 0;
    *value = strtoull(word, &end, 10);
    return *end == '\0' && errno == 0;
}

/* ---- one value -------------------------------------------------------------------------------------- */

static bool bounded(const option *o) { return o->low != 0 || o->high != 0; }

static bool within(const option *o, double value) { return !bounded(o) || (value >= o->low && value <= o->high); }

static int bad_value(const option *o, const char *word, const char *wanted) {
    if (bounded(o) && isinf(o->high))
        return fail(IO_BAD_USAGE, "--%s is '%s'; %s, at least %.9g, is needed", o->name, word, wanted, o->low);
    if (bounded(o))
        return fail(IO_BAD_USAGE, "--%s is '%s'; %s from %.9g to %.9g is needed", o->name, word, wanted, o->low, o->high);
    return fail(IO_BAD_USAGE, "--%s is '%s'; %s is needed", o->name, word, wanted);
}

static int set_integer(const option *o, const char *word, option_integer *field) {
    if (!parse_integer(word, &field->value) || !within(o, (double)field->value)) return bad_value(o, word, "a whole number");
    field->given = true;
    return IO_OK;
}

static int set_real(const option *o, const char *word, option_real *field) {
    if (!parse_real(word, &field->value) || !isfinite(field->value) || !within(o, field->value))
        return bad_value(o, word, "a finite number");
    field->given = true;
    return IO_OK;
}

static int set_pair(const option *o, const char *word, option_pair *field) {
    char left[32];
    bool size = o->kind == OPTION_SIZE;
    const char *comma = strchr(word, size ? 'x' : ',');
    size_t length = comma ? (size_t)(comma - word) : sizeof left;
    if (length >= sizeof left)
        return fail(IO_BAD_USAGE, "--%s is '%s'; two whole numbers like %s are needed", o->name, word, size ? "16x16" : "128,0");
    memcpy(left, word, length);
    left[length] = '\0';
    const char *side[2] = { left, comma + 1 };
    for (int i = 0; i < 2; i++)
        if (!parse_integer(side[i], &field->value[i]) || !within(o, (double)field->value[i]))
            return bad_value(o, word,
                             size ? "a pair of whole numbers like 16x16, each" : "a pair of whole numbers like 128,0, each");
    field->given = true;
    return IO_OK;
}

static int set_choice(const option *o, const char *word, option_choice *field) {
    size_t n = 0;
    for (; o->choices[n]; n++) {
        if (strcmp(word, o->choices[n]) != 0) continue;
        *field = (option_choice){ true, (int32_t)n };
        return IO_OK;
    }
    char all[256] = "";
    for (size_t i = 0; i < n; i++) {
        strncat(all, i ? ", " : "", sizeof all - strlen(all) - 1);
        strncat(all, o->choices[i], sizeof all - strlen(all) - 1);
    }
    const char *near = nearest(word, o->choices, n);
    if (near) return fail(IO_BAD_USAGE, "--%s is '%s'; did you mean %s? (one of %s)", o->name, word, near, all);
    return fail(IO_BAD_USAGE, "--%s is '%s'; it is one of %s", o->name, word, all);
}

static int set_value(const option *o, const char *word, void *field) {
    switch (o->kind) {
    case OPTION_INTEGER: return set_integer(o, word, field);
    case OPTION_REAL: return set_real(o, word, field);
    case OPTION_PAIR:
    case OPTION_SIZE: return set_pair(o, word, field);
    case OPTION_CHOICE: return set_choice(o, word, field);
    case OPTION_SEED: {
        option_seed *seed = field;
        if (!parse_seed(word, &seed->value)) return bad_value(o, word, "a whole number from 0 to 2^64-1");
        seed->given = true;
        return IO_OK;
    }
    default:
        if (!*word) return fail(IO_BAD_USAGE, "--%s is empty; a name is needed", o->name);
        *(const char **)field = word;
        return IO_OK;
    }
}

/* ---- the walk --------------------------------------------------------------------------------------- */

static bool takes_dashes(const option *o) {
    return o->kind != OPTION_HEADING && o->kind != OPTION_ARGUMENT && o->kind != OPTION_WORDS;
}

/* Whether the first `length` bytes of word are this option's name, '_' standing for '-'. */
static bool names(const option *o, const char *word, size_t length) {
    if (strlen(o->name) != length) return false;
    for (size_t i = 0; i < length; i++)
        if ((word[i] == '_' ? '-' : word[i]) != o->name[i]) return false;
    return true;
}

static int unknown_option(const walk *w, const char *word, size_t length) {
    const char *all[MOST_OPTIONS];
    size_t n = 0;
    for (const option *o = w->command->options; o->kind && n < MOST_OPTIONS - 2; o++)
        if (takes_dashes(o)) all[n++] = o->name;
    all[n++] = threads_option.name;
    all[n++] = "help";
    char name[64];
    size_t kept = length < sizeof name - 1 ? length : sizeof name - 1;
    memcpy(name, word, kept);
    name[kept] = '\0';
    const char *near = nearest(name, all, n);
    if (near)
        return fail(IO_BAD_USAGE, "attn %s has no option --%s; did you mean --%s? ('attn %s --help' lists all)", w->command->name,
                    name, near, w->command->name);
    return fail(IO_BAD_USAGE, "attn %s has no option --%s; 'attn %s --help' lists all", w->command->name, name, w->command->name);
}

/* Takes the value - behind '=' (or behind the letter), else the next word - and stores it. */
static int take_value(walk *w, const option *o, const char *attached) {
    option_integer threads = { 0 };
    void *field = o == &threads_option ? (void *)&threads : w->settings + o->field;
    if (o->kind == OPTION_FLAG) {
        if (attached) return fail(IO_BAD_USAGE, "--%s takes no value", o->name);
        *(bool *)field = true;
        return IO_OK;
    }
    if (o->bare && !attached) attached = o->choices[0];
    if (!attached) {
        if (w->at + 1 >= w->n_words) return fail(IO_BAD_USAGE, "--%s needs a value behind it", o->name);
        attached = w->words[++w->at];
    }
    int failed = set_value(o, attached, field);
    if (!failed && threads.given) *w->threads = (int32_t)threads.value;
    return failed;
}

static int take_long(walk *w, const char *word) {
    const char *equals = strchr(word, '=');
    size_t length = equals ? (size_t)(equals - word) : strlen(word);
    for (const option *o = w->command->options; o->kind; o++)
        if (takes_dashes(o) && names(o, word, length)) return take_value(w, o, equals ? equals + 1 : NULL);
    if (names(&threads_option, word, length)) return take_value(w, &threads_option, equals ? equals + 1 : NULL);
    return unknown_option(w, word, length);
}

/* -oFILE, -o FILE, -o=FILE. Letters of flags are not run together: there are too few of them to be worth a second meaning. */
static int take_short(walk *w, const char *word) {
    const char *behind = word[1] == '=' ? word + 2 : word[1] ? word + 1 : NULL;
    for (const option *o = w->command->options; o->kind; o++)
        if (takes_dashes(o) && o->letter == word[0]) return take_value(w, o, behind);
    if (word[0] == threads_option.letter) return take_value(w, &threads_option, behind);
    return fail(IO_BAD_USAGE, "attn %s has no option -%s; 'attn %s --help' lists all", w->command->name, word, w->command->name);
}

/* Fills the first argument that is still empty. */
static int take_argument(walk *w, const char *word) {
    const option *last = NULL;
    for (const option *o = w->command->options; o->kind; o++) {
        if (o->kind == OPTION_CHOICE && o->bare && w->at > 0 && strncmp(w->words[w->at - 1], "--", 2) == 0 &&
            names(o, w->words[w->at - 1] + 2, strlen(w->words[w->at - 1] + 2)))
            return fail(IO_BAD_USAGE, "unexpected '%s'; a value of --%s is written --%s=%s", word, o->name, o->name, word);
        if (o->kind == OPTION_WORDS) {
            option_words *all = (option_words *)(void *)(w->settings + o->field);
            if (all->n == OPTION_MOST_WORDS) return fail(IO_BAD_USAGE, "more than %d of %s", OPTION_MOST_WORDS, o->name);
            all->word[all->n++] = word;
            return IO_OK;
        }
        if (o->kind != OPTION_ARGUMENT) continue;
        const char **field = (const char **)(void *)(w->settings + o->field);
        if (!*field) {
            if (!*word) return fail(IO_BAD_USAGE, "%s is empty; a name is needed", o->name);
            *field = word;
            return IO_OK;
        }
        last = o;
    }
    if (last) return fail(IO_BAD_USAGE, "unexpected '%s': %s is given already", word, last->name);
    return fail(IO_BAD_USAGE, "unexpected '%s': attn %s takes options only ('attn %s --help' lists them)", word, w->command->name,
                w->command->name);
}

static int check_required(const walk *w) {
    for (const option *o = w->command->options; o->kind; o++)
        if (o->required && !*(const char *const *)(const void *)(w->settings + o->field))
            return fail(IO_BAD_USAGE, "attn %s needs %s%s %s; 'attn %s --help' shows how it is used", w->command->name,
                        o->kind == OPTION_ARGUMENT ? "" : "--", o->name, o->kind == OPTION_ARGUMENT ? "" : o->value,
                        w->command->name);
    return IO_OK;
}

int options_parse(const command *c, int n_words, char *const *words, void *settings, int32_t *threads, bool *help) {
    *help = false;
    for (int i = 0; i < n_words && strcmp(words[i], "--") != 0; i++)
        if (strcmp(words[i], "--help") == 0 || strcmp(words[i], "-h") == 0) *help = true;
    if (*help) return IO_OK;
    walk w = { c, n_words, 0, words, settings, threads };
    bool only_arguments = false;
    for (; w.at < n_words; w.at++) {
        const char *word = words[w.at];
        int failed;
        if (only_arguments || word[0] != '-' || word[1] == '\0')
            failed = take_argument(&w, word);
        else if (strcmp(word, "--") == 0)
            failed = !(only_arguments = true);
        else if (word[1] == '-')
            failed = take_long(&w, word + 2);
        else
            failed = take_short(&w, word + 1);
        if (failed) return failed;
    }
    return check_required(&w);
}
