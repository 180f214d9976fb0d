/* SPDX-License-Identifier: Apache-2.0 */
/* What a blocked forward lets the caller see beyond lse and entropy: the largest weights of each row in the pass itself, whole
 * maps and received mass in one more sweep over the scores, when every row's normaliser is known. */
#ifndef ATTN_ATTENTION_SEE_H
#define ATTN_ATTENTION_SEE_H

#include "attention_tile.h"

/* ---- finished rows' normalisers, for the second sweep ------------------------------------------------------ */

typedef struct attn_row_norms {
    char *max, *inverse; /* [batch, heads, q_len]; NULL when no second sweep wants them */
} attn_row_norms;

/* Is there one? */
bool attn_second_sweep(const attn_attention_plan *p);
attn_row_norms attn_row_norms_in(const attn_attention_plan *p, attn_arena *a);
/* One block's, into per-lane arrays; lanes that are no row of the output get 0. */
void attn_row_norms_load(const attn_row_norms *n, const attn_head *head, const attn_query_block *x, void *max, void *inverse);
void attn_row_norms_keep(const attn_row_norms *n, const attn_head *head, const attn_query_block *x, const void *max,
                         const void *inverse);

/* ---- the largest weights of each row ----------------------------------------------------------------------- */

typedef struct attn_top {
    void *score;     /* [top_k][q_block], largest first */
    int64_t *key;    /* the same; -1: none yet */
    void *threshold; /* [q_block] what a score has to exceed; NaN while there is room */
} attn_top;

attn_top attn_top_in(const attn_attention_plan *p, attn_arena *a);
void attn_top_begin(const attn_head *head, attn_top *top);
/* The tile m.s of keys j0 .. as they enter the weighting. */
void attn_top_visit(const attn_head *head, const attn_query_block *x, attn_top *top, int64_t j0, int64_t n_keys,
                    attn_tile_kind kind);
void attn_top_end(const attn_head *head, const attn_query_block *x, attn_top *top, const void *max, const void *inverse);

/* ---- weights, scores, received, pooled ----------------------------------------------------------------------------- */

/* Bytes per worker. */
size_t attn_see_need(const attn_attention_plan *p);
void attn_see_maps(const attn_attention_plan *p, const attn_row_norms *norms, attn_session *session);

#endif
