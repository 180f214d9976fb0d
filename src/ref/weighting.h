/* SPDX-License-Identifier: Apache-2.0 */
/* How one row of scores becomes one row of weights, and how the weights' gradient becomes the scores'. */
#ifndef ATTN_REF_WEIGHTING_H
#define ATTN_REF_WEIGHTING_H

#include <stdbool.h>
#include <stdint.h>

/* What a row was divided by. softmax: sum of exp(s - max). Normalised sum: sum of s. Unused where nothing is divided. */
typedef struct ref_norm {
    double max, sum;
} ref_norm;

/* p from s over n keys. Keys that are not live get weight 0; their scores are not read. A row without a live key is all 0. */
ref_norm ref_weigh(int32_t weighting, int64_t n, const bool *live, const double *s, double *p);

/* ds = d(loss)/d(s), given dp = d(loss)/d(p) of the live keys and, for softmax, dlse = d(loss)/d(lse); 0 where not live. */
void ref_weigh_backward(int32_t weighting, int64_t n, const bool *live, ref_norm norm, const double *s, const double *p,
                        const double *dp, double dlse, double *ds);

/* softmax: log of the sum of exp(s) over the live keys; -inf when there is none. */
double ref_lse(ref_norm norm);
/* softmax: -sum p ln p in nats, 0 ln 0 being 0. */
double ref_entropy(int64_t n, const bool *live, ref_norm norm, const double *s, const double *p);

#endif
