/* SPDX-License-Identifier: Apache-2.0 */
/* Which keys a query may see. Causal masks, windows and lengths leave every row one range of keys, found here in closed form;
 * a mask of blocks, a boolean mask and biases of -inf then hide some keys of that range. The reference and the blocked
 * kernels both ask here. */
#ifndef ATTN_MASK_H
#define ATTN_MASK_H

#include <stdbool.h>
#include <stdint.h>

/* What rules over one batch entry. Query i stands at position i + offset, key j at j. A causal mask is a window whose right
 * side is 0: no key after the query's own position. */
typedef struct attn_sight {
    int64_t q_length, kv_length; /* rows and keys beyond are padding */
    int64_t offset;
    int64_t left, right; /* keys kept on either side of a query's position; -1: unbounded */
    bool one_position;   /* all queries stand where query 0 does */
} attn_sight;

/* Keys begin .. end - 1; none when begin == end. */
typedef struct attn_key_range {
    int64_t begin, end;
} attn_key_range;

static inline int64_t attn_position(const attn_sight *s, int64_t i) { return (s->one_position ? 0 : i) + s->offset; }

static inline attn_key_range attn_row_keys(const attn_sight *s, int64_t i) {
    int64_t position = attn_position(s, i), begin = 0, end = s->kv_length;
    if (i >= s->q_length) return (attn_key_range){ 0, 0 };
    if (s->left >= 0 && position - s->left > begin) begin = position - s->left;
    if (s->right >= 0 && position + s->right + 1 < end) end = position + s->right + 1;
    return begin < end ? (attn_key_range){ begin, end } : (attn_key_range){ 0, 0 };
}

/* For a block of rows i0 .. i1 - 1: the keys that some row sees lie in `some`, the keys that every row sees are `all`. Both
 * ends of a row's range grow with i, so the block's first and last row decide. */
typedef struct attn_block_keys {
    attn_key_range some, all;
} attn_block_keys;

static inline attn_block_keys attn_rows_keys(const attn_sight *s, int64_t i0, int64_t i1) {
    attn_block_keys none = { { 0, 0 }, { 0, 0 } };
    int64_t rows_end = i1 < s->q_length ? i1 : s->q_length, begin = 0, end = s->kv_length;
    if (i0 >= rows_end) return none;
    if (s->left >= 0 && attn_position(s, i0) - s->left > begin) begin = attn_position(s, i0) - s->left;
    if (s->right >= 0 && attn_position(s, rows_end - 1) + s->right + 1 < end) end = attn_position(s, rows_end - 1) + s->right + 1;
    if (begin >= end) return none;
    attn_key_range first = attn_row_keys(s, i0), last = attn_row_keys(s, i1 - 1);
    bool every = first.begin < first.end && last.begin < last.end && last.begin < first.end;
    return (attn_block_keys){ { begin, end }, { every ? last.begin : 0, every ? first.end : 0 } };
}

/* A mask of whole blocks of one head: query i may attend to key j where element [i / block, j / block] is true. `data` NULL: there is
 * none. */
typedef struct attn_block_mask {
    const unsigned char *data;
    int64_t block, row, col; /* rows and keys of a block; bytes from one row of blocks to the next, from one column to the next */
} attn_block_mask;

static inline bool attn_block_is_live(const attn_block_mask *m, int64_t i, int64_t j) {
    return m->data[i / m->block * m->row + j / m->block * m->col] != 0;
}

/* How far apart query i and key j stand, as ALiBi counts it. */
static inline int64_t attn_distance(const attn_sight *s, int64_t i, int64_t j) {
    int64_t apart = attn_position(s, i) - j;
    return apart < 0 ? -apart : apart;
}

/* Where block p of n begins, of a pooled map with so many rows or keys. */
static inline int64_t attn_pool_edge(int64_t p, int64_t n, int64_t extent) { return extent / n * p + extent % n * p / n; }

#endif
