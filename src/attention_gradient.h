/* SPDX-License-Identifier: Apache-2.0 */
/* What the sweeps of the blocked backward share: what is known of every row, and tiles of the scores' gradient. */
#ifndef ATTN_ATTENTION_GRADIENT_H
#define ATTN_ATTENTION_GRADIENT_H

#include "attention_see.h"
#include "attention_tangent.h"
#include "attention_tile.h"

/* Of every row [batch, heads, q_len]: normalisers, and delta = sum of p dp over its keys, less d(lse). In the second order also
 * the mean tangent of its scores, which is that of its lse, and eta = dout . ddout. */
typedef struct attn_row_deltas {
    attn_row_norms norms;
    char *delta, *mean, *eta;
    void *out, *ddout; /* [batch, heads, q_len, v_dim] when the forward is computed again; in the second order */
} attn_row_deltas;

typedef struct attn_backward {
    const attn_attention_plan *p;
    const attn_attention_plan_grads *g;
    attn_row_deltas rows;
} attn_backward;

attn_row_deltas attn_row_deltas_in(const attn_attention_plan *p, const attn_attention_plan_grads *g, attn_arena *shared);
size_t attn_row_deltas_need(const attn_attention_plan *p, const attn_attention_plan_grads *g);
/* Fills them in, computing the forward again where out or lse is missing. In the second order writes g->along's dout and dlse. */
void attn_row_deltas_compute(attn_backward *c, attn_session *session);

/* A block of queries on the way back. */
typedef struct attn_gradient_block {
    attn_query_block x;
    void *dout;                  /* panel [v_dim][q_block] */
    void *max, *inverse, *delta; /* [q_block] */
    void *along, *mean, *eta;    /* in the second order: [ddq q] as attn_tangent_panel has it; [q_block] */
} attn_gradient_block;

/* along: NULL, but in the second order. */
attn_gradient_block attn_gradient_block_in(const attn_attention_plan *p, const attn_attention_plan_tangents *along,
                                           attn_arena *a);
void attn_gradient_block_at(const attn_backward *c, const attn_head *head, attn_gradient_block *block, int64_t i0);

/* Where a tile is computed; the live bits are the head's. */
typedef struct attn_gradient_tile {
    void *p, *ds; /* [k_block][q_block] weights after dropout; gradient of the scores as they entered the weighting */
    void *capped; /* [k_block][q_block] scores after softcap, when there is one */
    /* In the second order p is the gradient of dp, ds that of the scores before softcap, and: */
    void *slope, *r; /* [k_block][q_block] the backward's own gradient of these scores; their tangents */
} attn_gradient_tile;

attn_gradient_tile attn_gradient_tile_in(const attn_attention_plan *p, attn_arena *a);
/* Weights and score gradients of the block and keys j0 .. j1 - 1; 0 where a key is hidden. An empty tile is not computed. */
attn_tile_kind attn_gradient_tile_at(attn_head *head, const attn_gradient_block *block, attn_gradient_tile t, int64_t j0,
                                     int64_t j1, attn_rows k, attn_rows v);
/* The same in the second order. rows: [k ddk] of these keys, as attn_tangent_rows has them; ddv: absent where there is none. */
attn_tile_kind attn_second_tile_at(attn_head *head, const attn_attention_plan_tangents *along, const attn_gradient_block *block,
                                   attn_gradient_tile t, int64_t j0, int64_t j1, attn_rows k, attn_rows v, const void *rows,
                                   attn_rows ddv);
/* From ds to the gradient of scale * score. */
void attn_gradient_uncap(const attn_head *head, attn_gradient_tile t, int64_t n_keys);

/* x * by, elementwise; +0 for -0, so that a share of zeros more or less does not show. */
void attn_scale_elements(void *x, int64_t n, size_t size, double by);

#endif
