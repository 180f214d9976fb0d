/* SPDX-License-Identifier: Apache-2.0 */
/* GPT-2's regular expression by hand: one look at the character where a word begins decides which alternative it is. See
 * pretokenize.h. */
#include "pretokenize.h"

#include <string.h>

#include "unicode.h"

/* The end of the contraction at `at`, or `at`: only these seven, only in small letters, and before any other alternative. */
static size_t contraction_end(const char *text, size_t length, size_t at) {
    if (text[at] != '\'' || at + 1 == length) return at;
    if (strchr("stmd", text[at + 1]) && text[at + 1]) return at + 2;
    if (at + 2 == length) return at;
    const char *two = text + at + 1;
    return memcmp(two, "re", 2) == 0 || memcmp(two, "ve", 2) == 0 || memcmp(two, "ll", 2) == 0 ? at + 3 : at;
}

/* The end of the run of characters of one kind that begins at `at`. */
static size_t run_end(const char *text, size_t length, size_t at, unicode_kind kind) {
    size_t used;
    while (at < length && unicode_kind_of(unicode_decode(text + at, length - at, &used)) == kind) at += used;
    return at;
}

/* White space that a word follows leaves its last character to that word or, when it is no plain space, to a word of its own. */
static size_t space_end(const char *text, size_t length, size_t at) {
    size_t end = at, last = at, used;
    while (end < length && unicode_kind_of(unicode_decode(text + end, length - end, &used)) == UNICODE_SPACE) {
        last = end;
        end += used;
    }
    return end == length || last == at ? end : last;
}

size_t pretokenize_next(const char *text, size_t length, size_t at) {
    size_t end = contraction_end(text, length, at);
    if (end > at) return end;
    size_t used;
    unicode_kind kind = unicode_kind_of(unicode_decode(text + at, length - at, &used));
    if (kind != UNICODE_SPACE) return run_end(text, length, at + used, kind);
    if (text[at] == ' ' && at + 1 < length) {
        size_t next = at + 1;
        kind = unicode_kind_of(unicode_decode(text + next, length - next, &used));
        if (kind != UNICODE_SPACE) return run_end(text, length, next + used, kind);
    }
    return space_end(text, length, at);
}
