/* SPDX-License-Identifier: Apache-2.0 */
/* The definition of softmax, log-softmax, softmin and logsumexp, one row at a time, and of their gradients. */
#ifndef ATTN_REF_SOFTMAX_H
#define ATTN_REF_SOFTMAX_H

#include "element.h"

/* A row of scores: z_i = scale * x_i + bias_i, negated for softmin. An entry is masked where the mask is false or z_i = -inf. */
typedef struct ref_scores {
    int64_t n;
    ref_vector x;
    ref_vector bias; /* data NULL: none */
    ref_vector mask; /* data NULL: none; false hides an entry, whatever its x is */
    double scale;
    int32_t op; /* ATTN_SOFTMAX, ATTN_LOG_SOFTMAX, ATTN_SOFTMIN */
} ref_scores;

/* z_i, -inf where the entry is masked. */
double ref_score(const ref_scores *s, int64_t i);

/* y_i = exp(z_i - lse), or z_i - lse for ATTN_LOG_SOFTMAX; 0 or -inf where masked. y may be x. */
void ref_softmax(const ref_scores *s, ref_vector y);
/* log(sum exp z_i): -inf when everything is masked, +inf with a +inf, NaN with a NaN among the live scores. */
double ref_logsumexp(const ref_scores *s);

/* dx from y and dy. An entry whose y says that it had no weight (0, or -inf for ATTN_LOG_SOFTMAX) counts nothing and gets 0.
 * dx may be dy. */
void ref_softmax_backward(int32_t op, double scale, int64_t n, ref_vector y, ref_vector dy, ref_vector dx);
/* dx_i = dy * scale * exp(z_i - lse). */
void ref_logsumexp_backward(const ref_scores *s, double dy, ref_vector dx);

#endif
