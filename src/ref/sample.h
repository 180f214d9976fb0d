/* SPDX-License-Identifier: Apache-2.0 */
/* The definition of sampling: one class drawn from a row of logits. */
#ifndef ATTN_REF_SAMPLE_H
#define ATTN_REF_SAMPLE_H

#include "element.h"

typedef struct ref_sampler {
    int64_t n;
    ref_vector x;
    double temperature; /* 0: the first largest */
    int64_t top_k;      /* 0: all */
    double top_p;       /* in (0, 1] */
    double min_p;       /* in [0, 1] */
} ref_sampler;

/* What was drawn, and how likely that was. A row without a live entry: -1, 0. One that has no softmax: -1, NaN. */
typedef struct ref_draw {
    int64_t index;
    double probability;
} ref_draw;

/* The row's random number in (0, 1): ((w1 2^32 + w0) >> 12 + 0.5) 2^-52 from the first two words of Philox-4x32-10, counter (row
 * low, row high, 0, 2), key = seed. */
double ref_sample_uniform(uint64_t seed, uint64_t row);
ref_draw ref_sample(const ref_sampler *s, double u);

#endif
