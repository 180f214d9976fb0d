/* SPDX-License-Identifier: Apache-2.0 */
/* What the blocked forward and backward share: one head's view of the plan, a block of its queries, and the scores of that block
 * against a run of keys. */
#ifndef ATTN_ATTENTION_TILE_H
#define ATTN_ATTENTION_TILE_H

#include "arena.h"
#include "attention_plan.h"
#include "kernels/kernels.h"

/* Dense rows, so many elements apart. */
typedef struct attn_rows {
    const char *data;
    int64_t row;
} attn_rows;

/* A worker's memory for tiles. */
typedef struct attn_tile_memory {
    void *s;         /* [k_block][q_block] scores, then weights */
    void *bias;      /* the same, when there is a bias */
    void *keep;      /* the same, when there is dropout */
    uint64_t *live;  /* [k_block] */
    uint64_t *lanes; /* [k_block] */
    void *k;         /* [k_block][dim], for keys that do not lie densely, or not with length 1 as the cosine score has them */
    void *v;         /* [k_block][v_dim], in groups of columns */
    void *weight;    /* [dim] of the additive score */
    void *powers;    /* and what its kernels work in */
    void *wide;      /* rows of 16-bit elements, widened on their way into a panel; NULL where there are none */
} attn_tile_memory;

typedef struct attn_head {
    const attn_attention_plan *p;
    const attn_attention_kernels *kernels;
    const attn_convert_kernels *convert;
    int32_t dtype; /* that everything is computed in */
    size_t size;   /* of its elements */
    int64_t b, h;
    attn_sight sight;
    attn_block_mask blocks;
    double slope; /* of ALiBi */
    attn_tile_memory m;
} attn_head;

/* Rows i0 .. i0 + n_written - 1, of which the first n_rows are queries and the others padding. */
typedef struct attn_query_block {
    int64_t i0, n_rows, n_written;
    attn_block_keys keys;
    void *panel; /* [dim][q_block]; with the cosine score each query has length 1 */
} attn_query_block;

typedef enum attn_tile_kind { ATTN_TILE_EMPTY, ATTN_TILE_PARTLY, ATTN_TILE_FULL } attn_tile_kind;

/* What a call is computed in, F64 for f64 and F32 for everything else. 16-bit elements are widened when a panel, a group of columns or
 * a copy of rows is made of them, and results are rounded once, when they leave their panel. */
int32_t attn_computing_dtype(const attn_attention_plan *p);
size_t attn_computing_size(const attn_attention_plan *p);
/* Whether the kernels can read or write the tensor (absent: they can): its dtype is q's, or with a q of 16 bits f32. */
bool attn_kernels_take(const attn_attention_plan *p, const attn_tensor *t);

/* NULL when this machine or dtype has no attention kernels. */
const attn_attention_kernels *attn_kernels_of(const attn_attention_plan *p);

/* `values`: with room for m.v. */
attn_tile_memory attn_tile_memory_in(const attn_attention_plan *p, bool values, attn_arena *a);
/* Head (b, h), working in memory m. */
attn_head attn_head_at(const attn_attention_plan *p, int64_t b, int64_t h, attn_tile_memory m);

/* The block that begins with row i0; its queries are packed into `panel`. */
attn_query_block attn_query_block_at(const attn_head *head, int64_t i0, void *panel);
/* So few rows that kernels have a better way. */
static inline bool attn_block_is_few(const attn_head *head, const attn_query_block *x) { return x->n_rows <= head->kernels->few; }
/* Keys j0 .. j1 - 1 as dense rows: in place, or copied into the head's memory. */
attn_rows attn_keys_at(const attn_head *head, int64_t j0, int64_t j1);
/* Rows of head h of a tensor [batch, heads, length, dim]: in place without a `copy`, which they are to lie densely for. */
attn_rows attn_rows_of(const attn_head *head, const attn_tensor *t, int64_t h, int64_t j0, int64_t j1, void *copy);
/* Values, the same; `copy` is memory for them, NULL when attn_values_lie_densely. */
bool attn_values_lie_densely(const attn_attention_plan *p);
attn_rows attn_values_at(const attn_head *head, int64_t j0, int64_t j1, void *copy);
/* n_rows rows from element `at` on, `row` and `col` elements apart, into a panel [n_cols][q_block]; into groups of columns. At most
 * k_block rows, or the rows of four blocks; of a panel at most k_block columns where n_rows is more. */
void attn_pack_panel(const attn_head *head, const attn_tensor *t, int64_t at, int64_t row, int64_t col, int64_t n_rows,
                     int64_t n_cols, void *panel);
void attn_pack_groups(const attn_head *head, const attn_tensor *t, int64_t at, int64_t row, int64_t col, int64_t n_rows,
                      int64_t n_cols, void *groups);
/* A block's rows of a tensor [batch, heads, q_len, columns] as a panel, zeros in the other lanes. */
void attn_pack_rows(const attn_head *head, const attn_tensor *t, const attn_query_block *x, void *panel);
/* n elements, `step` apart, one behind the other in the dtype of computing; and back. */
void attn_load_elements(const attn_head *head, const attn_tensor *t, int64_t at, int64_t step, int64_t n, void *to);
void attn_store_elements(const attn_head *head, const void *from, int64_t n, const attn_tensor *t, int64_t at, int64_t step);
/* The same of rows, densely. */
void attn_load_rows(const attn_head *head, const attn_tensor *t, int64_t at, int64_t row, int64_t col, int64_t n_rows,
                    int64_t n_cols, void *to);
/* Values j0 .. j1 - 1 into m.v. */
void attn_pack_values(const attn_head *head, int64_t j0, int64_t j1);

/* The keys of a unit that some row of the block may see, begun at a multiple of ATTN_KEY_STEP; empty when there is none, or when a
 * mask of blocks hides all of them from all rows. */
attn_key_range attn_keys_in_unit(const attn_head *head, const attn_query_block *x, int64_t unit_begin, int64_t unit_end);

/* Scores of the block against keys j0 .. j1 - 1. First, who sees whom: m.live is filled in unless the tile is full. Then into m.s:
 * scale * score; then capped; then biased and hidden. `next`: rows of the same keys that will be read soon; data NULL: none. */
attn_tile_kind attn_tile_live(const attn_head *head, const attn_query_block *x, int64_t j0, int64_t j1);
void attn_tile_raw(const attn_head *head, const attn_query_block *x, int64_t j0, int64_t j1, attn_rows keys, attn_rows next);
void attn_tile_cap(const attn_head *head, int64_t n_keys);
attn_tile_kind attn_tile_hide(const attn_head *head, const attn_query_block *x, int64_t j0, int64_t j1, attn_tile_kind kind);
/* All four; an empty tile's scores are not computed. */
attn_tile_kind attn_tile_scores(const attn_head *head, const attn_query_block *x, int64_t j0, int64_t j1, attn_rows keys);

/* The products of a panel [v_dim][q_block] with rows of values: what the gradients of weights are, of dout. */
void attn_tile_product(const attn_head *head, const void *panel, attn_rows v, int64_t n_keys, void *dp);

/* What dropout multiplies the weights of keys j0 .. by, into m.keep; there is dropout. */
void attn_tile_keep(const attn_head *head, const attn_query_block *x, int64_t j0, int64_t n_keys);

/* Whether n_rows of values, in groups of columns, are all finite: found out when a tile asks. */
typedef enum attn_finiteness { ATTN_FINITENESS_UNKNOWN, ATTN_FINITE, ATTN_NOT_FINITE } attn_finiteness;
/* A boundary tile of n_keys multiplies hidden values by 0; if one of the n_values that are at hand may be infinite or NaN, it has to
 * skip them. */
bool attn_has_to_skip(const attn_head *head, const attn_query_block *x, int64_t n_keys, attn_tile_kind kind, attn_rows values,
                      int64_t n_values, attn_finiteness *known);

/* A block's rows of a result: a panel [v_dim][q_block], and one value per row [batch, heads, q_len]. */
void attn_write_panel(const attn_head *head, const attn_query_block *x, const attn_tensor *t, const void *panel);
void attn_write_rows(const attn_head *head, const attn_query_block *x, const attn_tensor *t, const void *values);

/* n elements of one value. */
void attn_fill(void *x, int64_t n, size_t size, double value);

#endif
