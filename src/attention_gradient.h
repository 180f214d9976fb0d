/* SPDX-License-Identifier: Apache-2.0 */
/* What the sweeps of the blocked backward share: what is known of every row, and tiles of the scores' gradient. */
#ifndef ATTN_ATTENTION_GRADIENT_H
#define ATTN_ATTENTION_GRADIENT_H

#include "attention_see.h"
#include "attention_tile.h"

/* Of every row [batch, heads, q_len]: normalisers, and delta = sum of p dp over its keys, less d(lse). */
typedef struct attn_row_deltas {
    attn_row_norms norms;
    char *delta;
    void *out; /* [batch, heads, q_len, v_dim] when the forward is computed again */
} attn_row_deltas;

typedef struct attn_backward {
    const attn_attention_plan *p;
    const attn_attention_plan_grads *g;
    attn_row_deltas rows;
} attn_backward;

attn_row_deltas attn_row_deltas_in(const attn_attention_plan *p, attn_arena *shared);
size_t attn_row_deltas_need(const attn_attention_plan *p);
/* Fills them in, computing the forward again where out or lse is missing. */
void attn_row_deltas_compute(attn_backward *c, attn_session *session);

/* A block of queries on the way back. */
typedef struct attn_gradient_block {
    attn_query_block x;
    void *dout;                  /* panel [v_dim][q_block] */
    void *max, *inverse, *delta; /* [q_block] */
} attn_gradient_block;

attn_gradient_block attn_gradient_block_in(const attn_attention_plan *p, attn_arena *a);
void attn_gradient_block_at(const attn_backward *c, const attn_head *head, attn_gradient_block *block, int64_t i0);

/* Where a tile is computed; the live bits are the head's. */
typedef struct attn_gradient_tile {
    void *p, *ds; /* [k_block][q_block] weights after dropout; gradient of the scores as they entered the weighting */
    void *capped; /* [k_block][q_block] scores after softcap, when there is one */
} attn_gradient_tile;

attn_gradient_tile attn_gradient_tile_in(const attn_attention_plan *p, attn_arena *a);
/* Weights and score gradients of the block and keys j0 .. j1 - 1; 0 where a key is hidden. An empty tile is not computed. */
attn_tile_kind attn_gradient_tile_at(attn_head *head, const attn_gradient_block *block, attn_gradient_tile t, int64_t j0,
                                     int64_t j1, attn_rows k, attn_rows v);
/* From ds to the gradient of scale * score. */
void attn_gradient_uncap(const attn_head *head, attn_gradient_tile t, int64_t n_keys);

/* x * by, elementwise; +0 for -0, so that a share of zeros more or less does not show. */
void attn_scale_elements(void *x, int64_t n, size_t size, double by);

#endif
