/* SPDX-License-Identifier: Apache-2.0 */
/* The definition of the cross-entropy of one row of logits, and of its gradient. */
#ifndef ATTN_REF_CROSS_ENTROPY_H
#define ATTN_REF_CROSS_ENTROPY_H

#include "element.h"

/* The target t_c of a row, class weights and smoothing included, and the row's loss
 *     -sum_c t_c log p_c + z_loss * lse^2,    p = softmax(logits), lse = logsumexp(logits).
 * Hard:  t_c = (1 - e) w_label [c = label] + (e / C) w_c.     Soft:  t_c = w_c ((1 - e) target_c + e / C). */
typedef struct ref_target {
    int64_t classes;
    ref_vector logits;
    int64_t label;     /* hard labels */
    ref_vector soft;   /* data NULL: `label` is meant */
    ref_vector weight; /* data NULL: ones */
    double smoothing, z_loss;
} ref_target;

/* t_c; reads no logits. */
double ref_target_at(const ref_target *t, int64_t c);
double ref_cross_entropy(const ref_target *t);
/* dlogits_c = factor * ((sum_k t_k) p_c - t_c + 2 z_loss lse p_c). dlogits may be logits. */
void ref_cross_entropy_backward(const ref_target *t, double factor, ref_vector dlogits);

#endif
