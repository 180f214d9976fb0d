/* SPDX-License-Identifier: Apache-2.0 */
/* What a blocked sweep carries along in forward mode: tangents of scores beside the scores, and what they do to out and lse.
 *
 * dq_i . k_j + q_i . dk_j is one product: a row of queries [dq_i q_i] with a row of keys [k_j dk_j], of which a half is left out
 * where its direction is absent. */
#ifndef ATTN_ATTENTION_TANGENT_H
#define ATTN_ATTENTION_TANGENT_H

#include "attention_tile.h"

/* How many halves there are: columns are so many times dim. */
int64_t attn_tangent_halves(const attn_attention_plan_tangents *t);
/* [dq q] of a block, [columns][q_block]. */
void attn_tangent_panel(const attn_head *head, const attn_attention_plan_tangents *t, const attn_query_block *x, void *panel);
/* [k dk] of keys j0 .. j1 - 1, [keys][columns]; `k` are the keys. */
void attn_tangent_rows(const attn_head *head, const attn_attention_plan_tangents *t, int64_t j0, int64_t j1, attn_rows k,
                       void *rows);
/* ds = scale (dq . k + q . dk), before the softcap. */
void attn_tangent_product(const attn_head *head, const attn_attention_plan_tangents *t, const void *panel, const char *rows,
                          int64_t n_keys, void *ds);

/* A unit of keys. */
typedef struct attn_tangent_unit {
    attn_key_range keys;
    char *rows;      /* [k_block][columns] */
    void *dv;        /* [k_block][v_dim], in groups of columns */
    void *ones;      /* [k_block] */
    void *ds;        /* [k_block][q_block] tangents of scores, then of weights not yet divided */
    void *bias;      /* the same, when the bias moves */
    uint64_t *spare; /* [k_block] */
    attn_finiteness values;
} attn_tangent_unit;

/* A block under way. */
typedef struct attn_tangent_block {
    void *panel; /* [columns][q_block] */
    void *o;     /* [v_dim][q_block] sum of p ds v + p dv, not yet divided */
    void *mean;  /* [q_block] sum of p ds */
} attn_tangent_block;

attn_tangent_unit attn_tangent_unit_in(const attn_attention_plan *p, const attn_attention_plan_tangents *t, attn_arena *a);
attn_tangent_block attn_tangent_block_in(const attn_attention_plan *p, const attn_attention_plan_tangents *t, attn_arena *a);

void attn_tangent_begin(const attn_head *head, const attn_attention_plan_tangents *t, attn_tangent_block *block,
                        const attn_query_block *x);
void attn_tangent_unit_at(const attn_head *head, const attn_attention_plan_tangents *t, attn_tangent_unit *unit,
                          attn_key_range keys, attn_rows k);
/* Beside the capped scores in m.s, of keys j0 ..: ds. */
void attn_tangent_scores(const attn_head *head, const attn_attention_plan_tangents *t, attn_tangent_unit *unit,
                         const attn_tangent_block *block, const attn_query_block *x, int64_t j0, int64_t n_keys);
/* When m.s holds weights, before dropout: ds becomes p ds. factor: NULL, or what earlier sums are multiplied by. */
void attn_tangent_weigh(const attn_head *head, const attn_attention_plan_tangents *t, attn_tangent_unit *unit,
                        attn_tangent_block *block, int64_t n_keys, attn_tile_kind kind, const void *factor);
/* When m.s holds weights after dropout. skip: whether hidden values have to be. */
void attn_tangent_mix(const attn_head *head, const attn_attention_plan_tangents *t, attn_tangent_unit *unit,
                      attn_tangent_block *block, const attn_query_block *x, int64_t j0, int64_t n_keys, attn_tile_kind kind,
                      bool skip);
/* Writes dout and dlse; `o` is the panel of out. */
void attn_tangent_end(const attn_head *head, const attn_attention_plan_tangents *t, attn_tangent_block *block,
                      const attn_query_block *x, const void *inverse, const void *o);

#endif
