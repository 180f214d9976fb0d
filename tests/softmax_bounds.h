/* SPDX-License-Identifier: Apache-2.0 */
/* The published error bounds of the softmax family, against an oracle in long double that shares nothing with the library. */
#ifndef ATTN_TESTS_SOFTMAX_BOUNDS_H
#define ATTN_TESTS_SOFTMAX_BOUNDS_H

#include <attn/attn.h>

#include <math.h>
#include <stdbool.h>

/* docs/ACCURACY.md publishes it. */
#define SOFTMAX_C 8

/* Half a unit in the last place at 1, and the smallest normal number. */
static inline double unit_of(int32_t dtype) { return dtype == ATTN_F32 ? 0x1p-24 : 0x1p-53; }
static inline double smallest_of(int32_t dtype) { return dtype == ATTN_F32 ? 0x1p-126 : 0x1p-1022; }

/* A row whose live scores are finite, or which has none. */
typedef struct row_truth {
    long double max, sum; /* of the scores; of exp(z - max) */
} row_truth;

static inline row_truth truth_of(const long double *z, int64_t n) {
    row_truth t = { .max = -INFINITY, .sum = 0 };
    for (int64_t i = 0; i < n; i++)
        if (z[i] > t.max) t.max = z[i];
    for (int64_t i = 0; i < n && t.max > -INFINITY; i++) t.sum += expl(z[i] - t.max);
    return t;
}
static inline long double weight(row_truth t, long double z) { return z == -INFINITY ? 0 : expl(z - t.max) / t.sum; }
static inline long double log_weight(row_truth t, long double z) { return z == -INFINITY ? -INFINITY : z - t.max - logl(t.sum); }

/* |err| <= p u (c + |z - max|), below the normal range the smallest normal number; logarithms u (c + |z - max| + |y|). */
static inline void assert_within_bound(bool logarithmic, int32_t dtype, row_truth t, long double z, double y) {
    double u = unit_of(dtype), limit = dtype == ATTN_F32 ? 0x1.fffffep127 : 0x1.fffffffffffffp1023;
    if (z == -INFINITY) {
        assert_true(y == (logarithmic ? -INFINITY : 0));
        return;
    }
    double distance = (double)(t.max - z);
    if (logarithmic) {
        long double exact = log_weight(t, z);
        if (exact < -limit) { /* no number of this type */
            assert_true(y == -INFINITY);
            return;
        }
        double error = (double)fabsl(y - exact);
        if (!(error <= u * (SOFTMAX_C + distance + fabs((double)exact))))
            fail_msg("log-softmax %.17g, exactly %.20Lg, at distance %g: off by %g units", y, exact, distance,
                     error / (u * (1 + distance + fabs((double)exact))));
    } else {
        long double exact = weight(t, z);
        double error = (double)fabsl(y - exact), bound = (double)exact * u * (SOFTMAX_C + distance);
        if (!(error <= bound || error <= smallest_of(dtype)))
            fail_msg("softmax %.17g, exactly %.20Lg, at distance %g: off by %g units", y, exact, distance,
                     error / ((double)exact * u));
    }
}

static inline void assert_lse_within_bound(int32_t dtype, row_truth t, double y) {
    long double exact = t.max + logl(t.sum);
    double error = (double)fabsl(y - exact), bound = unit_of(dtype) * (SOFTMAX_C + fabs((double)exact));
    if (!(error <= bound)) fail_msg("logsumexp %.17g, exactly %.20Lg", y, exact);
}

#endif
