/* SPDX-License-Identifier: Apache-2.0 */
/* Gradients of inputs that repeat, summed in a fixed order: bias, ALiBi slopes, sinks, the additive score's weight. */
#ifndef ATTN_ATTENTION_SUMS_H
#define ATTN_ATTENTION_SUMS_H

#include "attention_gradient.h"

/* What each block of queries contributes, before it is added up. */
typedef struct attn_sums {
    double *slope;  /* [batch, heads, blocks] */
    double *sink;   /* [batch, heads] */
    void *weight;   /* [batch, heads, blocks, dim] */
    int64_t blocks; /* of a head */
} attn_sums;

attn_sums attn_sums_in(const attn_attention_plan *p, const attn_attention_plan_grads *g, attn_arena *shared);
/* Bytes per worker. */
size_t attn_sums_need(const attn_attention_plan *p);
/* Writes dbias, dalibi, dsinks and dscore_weight, those that are asked for. */
void attn_sums_compute(const attn_backward *c, const attn_sums *sums, attn_session *session);

#endif
