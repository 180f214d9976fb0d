/* SPDX-License-Identifier: Apache-2.0 */
/* How one row of scores becomes one row of weights, and how the weights' gradient becomes the scores'. */
#ifndef ATTN_REF_WEIGHTING_H
#define ATTN_REF_WEIGHTING_H

#include <stdbool.h>
#include <stdint.h>

/* Which weighting, and its numbers. A sink is one more score in the softmax's denominator, of no key. */
typedef struct ref_weighting {
    int32_t kind; /* ATTN_WEIGHT_SOFTMAX, ... */
    bool has_sink;
    double sink;
    double alpha; /* of sparsemax (2), entmax-1.5 and alpha-entmax */
} ref_weighting;

/* What a row was divided by. softmax: sum of exp(s - max), sink included. Normalised sum: sum of s. Unused where nothing is
 * divided. */
typedef struct ref_norm {
    double max, sum;
} ref_norm;

/* p from s over n keys. Keys that are not live get weight 0; their scores are not read. A row without a live key is all 0. */
ref_norm ref_weigh(const ref_weighting *w, int64_t n, const bool *live, const double *s, double *p);

/* d(loss)/d(sink) and d(loss)/d(alpha); 0 without them. */
typedef struct ref_weighting_gradient {
    double sink, alpha;
} ref_weighting_gradient;

/* ds = d(loss)/d(s), given dp = d(loss)/d(p) of the live keys and, for softmax, dlse = d(loss)/d(lse); 0 where not live. */
ref_weighting_gradient ref_weigh_backward(const ref_weighting *w, int64_t n, const bool *live, ref_norm norm, const double *s,
                                          const double *p, const double *dp, double dlse, double *ds);

/* softmax: log of the sum of exp(s) over the live keys and the sink; -inf when there is none. */
double ref_lse(ref_norm norm);
/* softmax, sparsemax, entmax, hardmax: -sum p ln p over the keys in nats, 0 ln 0 being 0. */
double ref_entropy(const ref_weighting *w, int64_t n, const bool *live, ref_norm norm, const double *s, const double *p);

#endif
