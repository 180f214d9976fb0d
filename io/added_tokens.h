/* SPDX-License-Identifier: Apache-2.0 */
/* Added tokens: texts such as [SEP] that are one token wherever they stand, found before anything is cut into words. */
#ifndef ATTN_IO_ADDED_TOKENS_H
#define ATTN_IO_ADDED_TOKENS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Longest text of an added token, in bytes: what bounds the time of the search for them. */
#define ADDED_LONGEST 256

typedef struct added_token {
    uint32_t id;
    bool strip_left, strip_right; /* takes the white space beside it along */
    bool normalized;              /* looked for in the normalised text, itself normalised; otherwise in the text as it is */
    bool special;                 /* left out when decoding for people */
    char *pattern;                /* what is looked for */
    size_t length;
} added_token;

/* The tokens that are looked for together, sorted by pattern. */
typedef struct added_set {
    const added_token **sorted;
    size_t n;
    size_t first[257]; /* patterns that begin with byte b: [first[b], first[b + 1]) */
} added_set;

/* Fills in the set of the tokens whose `normalized` is the one given; false when there is no memory. *twice is a pattern that
 * several have, or NULL. */
bool added_set_make(added_set *set, const added_token *tokens, size_t n, bool normalized, const added_token **twice);
void added_set_free(added_set *set);

/* A stretch of text: an added token, or what lies between them. */
typedef struct added_piece {
    const added_token *token; /* or NULL */
    size_t start, end;
} added_piece;

/* Goes through a text piece by piece: start with {set, text, length}, call until it says false. Of several tokens at one place
 * the longest is taken. */
typedef struct added_walk {
    const added_set *set;
    const char *text;
    size_t length;
    size_t done, searched; /* handed out so far; searched so far */
    added_piece waiting;   /* a token whose text before it was handed out first */
    bool has_waiting;
} added_walk;

bool added_next(added_walk *walk, added_piece *piece);

#endif
