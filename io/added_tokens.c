/* SPDX-License-Identifier: Apache-2.0 */
/* The search for added tokens: patterns sorted, and narrowed byte by byte as the text is read. See added_tokens.h. */
#include "added_tokens.h"

#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "unicode.h"

static int compare(const void *a, const void *b) {
    const added_token *x = *(const added_token *const *)a, *y = *(const added_token *const *)b;
    int order = memcmp(x->pattern, y->pattern, x->length < y->length ? x->length : y->length);
    return order ? order : (x->length > y->length) - (x->length < y->length);
}

bool added_set_make(added_set *set, const added_token *tokens, size_t n, bool normalized, const added_token **twice) {
    *twice = NULL;
    set->sorted = array_new(n, sizeof *set->sorted);
    if (!set->sorted) return false;
    set->n = 0;
    for (size_t i = 0; i < n; i++)
        if (tokens[i].normalized == normalized) set->sorted[set->n++] = &tokens[i];
    qsort(set->sorted, set->n, sizeof *set->sorted, compare);
    memset(set->first, 0, sizeof set->first);
    for (size_t i = 0; i < set->n; i++) {
        if (i > 0 && compare(&set->sorted[i - 1], &set->sorted[i]) == 0) *twice = set->sorted[i];
        set->first[(unsigned char)set->sorted[i]->pattern[0] + 1]++;
    }
    for (size_t b = 0; b < 256; b++) set->first[b + 1] += set->first[b];
    return true;
}

void added_set_free(added_set *set) {
    free(set->sorted);
    set->sorted = NULL;
    set->n = 0;
}

/* The first pattern in [low, high) whose byte at `depth` is at least `byte`; all share what comes before and are longer than
 * depth. */
static size_t lower_bound(const added_set *set, size_t low, size_t high, size_t depth, unsigned byte) {
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if ((unsigned char)set->sorted[middle]->pattern[depth] < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The longest token that begins at `at`, or NULL. */
static const added_token *match(const added_set *set, const char *text, size_t length, size_t at) {
    const added_token *best = NULL;
    unsigned byte = (unsigned char)text[at];
    size_t low = set->first[byte], high = set->first[byte + 1];
    for (size_t depth = 1; low < high; depth++) {
        if (set->sorted[low]->length == depth) best = set->sorted[low++];
        if (depth == length - at) break;
        byte = (unsigned char)text[at + depth];
        low = lower_bound(set, low, high, depth, byte);
        high = lower_bound(set, low, high, depth, byte + 1);
    }
    return best;
}

static size_t space_after(const char *text, size_t length, size_t at) {
    size_t used;
    while (at < length && unicode_kind_of(unicode_decode(text + at, length - at, &used)) == UNICODE_SPACE) at += used;
    return at;
}

/* Where the white space that ends at `at` begins, not before `floor`. */
static size_t space_before(const char *text, size_t floor, size_t at) {
    while (at > floor) {
        size_t start = at - 1, used;
        while (start > floor && at - start < UNICODE_MAX_LENGTH && ((unsigned char)text[start] & 0xC0) == 0x80) start--;
        uint32_t c = unicode_decode(text + start, at - start, &used);
        if (used != at - start || unicode_kind_of(c) != UNICODE_SPACE) break;
        at = start;
    }
    return at;
}

bool added_next(added_walk *walk, added_piece *piece) {
    if (walk->has_waiting) {
        walk->has_waiting = false;
        *piece = walk->waiting;
        return true;
    }
    const added_token *token = NULL;
    size_t at = walk->searched;
    if (walk->set->n > 0) {
        while (at < walk->length && !(token = match(walk->set, walk->text, walk->length, at))) at++;
    }
    if (!token) {
        if (walk->done == walk->length) return false;
        *piece = (added_piece){ NULL, walk->done, walk->length };
        walk->done = walk->searched = walk->length;
        return true;
    }
    size_t end = walk->searched = at + token->length, before = walk->done;
    if (token->strip_right) end = space_after(walk->text, walk->length, end);
    if (token->strip_left) at = space_before(walk->text, before < at ? before : at, at);
    walk->done = end;
    if (at < before) at = before; /* white space that the token before has taken along */
    if (end < at) end = at;
    *piece = (added_piece){ token, at, end };
    if (before < at) {
        walk->waiting = *piece;
        walk->has_waiting = true;
        *piece = (added_piece){ NULL, before, at };
    }
    return true;
}
