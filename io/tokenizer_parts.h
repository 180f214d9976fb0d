/* SPDX-License-Identifier: Apache-2.0 */
/* What a tokenizer is made of, for the files that make it (tokenizer_train.c, tokenizer_load.c), write it (tokenizer_save.c) and
 * use it (tokenizer.c). Everybody else knows tokenizer.h alone. */
#ifndef ATTN_IO_TOKENIZER_PARTS_H
#define ATTN_IO_TOKENIZER_PARTS_H

#include "added_tokens.h"
#include "bpe.h"
#include "normalize.h"
#include "tokenizer.h"

#define TOKENIZER_MAX_STEPS 16         /* normalizers in a row */
#define TOKENIZER_MAX_TEXT  (1u << 28) /* bytes: normalised, it is at most 11 times as long and still counted in 32 bits */
#define TOKENIZER_MAX_HOLES 65536u     /* ids that no token has, each of which costs a row of the embedding */
#define TOKENIZER_N_ROLES   5

typedef enum { TEMPLATE_FIRST, TEMPLATE_SECOND, TEMPLATE_TOKEN } template_kind;

typedef struct template_piece {
    template_kind kind;
    uint32_t id;   /* of a token */
    uint32_t type; /* token type: which text of a pair it belongs to */
} template_piece;

/* What stands around the text, or two texts. No pieces: the text alone. */
typedef struct template_row {
    template_piece *pieces;
    size_t n, capacity;
} template_row;

struct tokenizer {
    uint64_t serial; /* of all tokenizers of this process, so that cached words are never another's */
    normalize_step steps[TOKENIZER_MAX_STEPS];
    size_t n_steps;
    bool add_prefix_space, cut_words, trim_offsets;
    bpe model;
    added_token *added; /* by growing id */
    size_t n_added;
    added_set raw_set, normalized_set;
    bool has_template;
    template_row single, pair;
    size_t truncation; /* tokens; 0: none */
    bool truncate_left;
};

/* An empty tokenizer with a serial number, or NULL. */
tokenizer *tokenizer_new(void);

/* Once t->added is filled in and sorted by id: makes the sets. `name` begins messages. */
int tokenizer_make_sets(tokenizer *t, const char *name, io_error *error);

/* The added token with this id, or NULL. */
const added_token *tokenizer_added(const tokenizer *t, uint32_t id);

bool template_append(template_row *row, template_kind kind, uint32_t id, uint32_t type);

#endif
