/* SPDX-License-Identifier: Apache-2.0 */
/* The distance of words in edits. See nearest.h. */
#include "nearest.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { LONGEST_WORD = 32 };

static char plain(char c) {
    if (c == '_') return '-';
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* Insertions, deletions, replacements and swaps of neighbours that turn a into b; words longer than LONGEST_WORD are never near. */
static size_t distance(const char *a, const char *b) {
    size_t n = strlen(a), m = strlen(b);
    if (n > LONGEST_WORD || m > LONGEST_WORD) return SIZE_MAX;
    size_t d[LONGEST_WORD + 1][LONGEST_WORD + 1];
    for (size_t i = 0; i <= n; i++) {
        for (size_t j = 0; j <= m; j++) {
            if (i == 0 || j == 0) {
                d[i][j] = i + j;
                continue;
            }
            char p = plain(a[i - 1]), q = plain(b[j - 1]);
            size_t best = d[i - 1][j - 1] + (p != q);
            if (d[i - 1][j] + 1 < best) best = d[i - 1][j] + 1;
            if (d[i][j - 1] + 1 < best) best = d[i][j - 1] + 1;
            bool swapped = i > 1 && j > 1 && p == plain(b[j - 2]) && plain(a[i - 2]) == q;
            if (swapped && d[i - 2][j - 2] + 1 < best) best = d[i - 2][j - 2] + 1;
            d[i][j] = best;
        }
    }
    return d[n][m];
}

const char *nearest(const char *word, const char *const *names, size_t n) {
    const char *found = NULL;
    size_t closest = strlen(word) / 3 + 2; /* of a short word one letter may be wrong, of a long one more */
    for (size_t i = 0; i < n; i++) {
        size_t d = distance(word, names[i]);
        if (d < closest) {
            closest = d;
            found = names[i];
        }
    }
    return found;
}
