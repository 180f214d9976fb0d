/* SPDX-License-Identifier: Apache-2.0 */
/* The model inside a byte-level BPE tokenizer: a vocabulary, ranked merges, and what they make of one word. It is found by binary
 * search in sorted arrays throughout: no hash that a prepared file could make slow, no order that could differ from run to run.
 *
 * A token has two forms: its text as it stands in files, where every byte is a printable character (a space is U+0120), and the
 * bytes that it stands for. */
#ifndef ATTN_IO_BPE_H
#define ATTN_IO_BPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"

#define BPE_NONE UINT32_MAX

/* The printable character for a byte, and back; -1 for a character that stands for no byte. */
uint32_t bpe_byte_char(unsigned char byte);
int bpe_char_byte(uint32_t c);

/* Writes the printable form of n bytes, at most 2 n bytes long, and returns its length. */
size_t bpe_spell(const char *bytes, size_t n, char *out);

typedef struct bpe_token {
    const char *text; /* NUL-terminated, `text_length` bytes without it; NULL: no token has this id */
    const char *bytes;
    uint32_t text_length, n_bytes;
    bool in_model; /* false: only an added token, which merges know nothing of */
} bpe_token;

typedef struct bpe_merge {
    uint32_t left, right; /* ids */
    uint32_t rank;        /* the lowest is merged first */
    uint32_t made;        /* id of the two together */
} bpe_merge;

typedef struct bpe {
    bpe_token *tokens; /* by id */
    size_t n_ids;      /* the largest id + 1 */
    uint32_t *by_text; /* ids in the order of their texts */
    size_t n_tokens;
    bpe_merge *merges; /* sorted by left, then right */
    size_t n_merges;
    size_t *first_merge; /* merges of left id i: [first_merge[i], first_merge[i + 1]) */
    uint32_t byte_id[256];
    uint32_t unknown; /* for a byte that the vocabulary lacks; BPE_NONE: the byte is dropped */
    bool fuse_unknown;
    bool whole_words; /* a word that is a token is that token, whatever the merges say ("ignore_merges") */
    char *pool;
} bpe;

typedef struct bpe_entry {
    const char *text;
    size_t length;
    uint32_t id;
    bool in_model;
} bpe_entry;

/* Fills in the vocabulary. Ids have to be different and below n_ids, texts different and free of NUL: IO_BAD_MODEL says which are
 * not, in a message that begins with `name`. */
int bpe_set_vocabulary(bpe *model, const bpe_entry *entries, size_t n, size_t n_ids, const char *name, io_error *error);

/* Takes a copy of merges[0, n), in any order; of two for the same pair the higher rank counts. */
int bpe_set_merges(bpe *model, const bpe_merge *merges, size_t n, io_error *error);

void bpe_free(bpe *model);

/* The id of a text, or BPE_NONE. */
uint32_t bpe_find(const bpe *model, const char *text, size_t length);

typedef struct bpe_symbol {
    uint32_t id;
    uint32_t start, end;     /* bytes of the word */
    uint32_t previous, next; /* positions, or BPE_NONE; meaningless once a word is finished */
} bpe_symbol;

typedef struct bpe_candidate {
    uint32_t rank, at, made;
} bpe_candidate;

/* Room to work in; zero it once, bpe_scratch_free it. */
typedef struct bpe_scratch {
    bpe_symbol *symbols; /* the result of bpe_encode_word */
    bpe_candidate *heap;
    char *spelled;
    size_t symbol_capacity, heap_capacity, spelled_capacity;
} bpe_scratch;

/* The tokens of one word of n < BPE_NONE / 4 bytes: scratch->symbols[0, *n_symbols). O(n log n). */
int bpe_encode_word(const bpe *model, const char *word, size_t n, bpe_scratch *scratch, size_t *n_symbols, io_error *error);

void bpe_scratch_free(bpe_scratch *scratch);

#endif
