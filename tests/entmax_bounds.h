/* SPDX-License-Identifier: Apache-2.0 */
/* The published error bounds of sparsemax and entmax, against an oracle in long double that shares nothing with the library: scores
 * sorted, the support tried size by size (sparsemax, entmax-1.5), or the largest weight halved down to (any other alpha). */
#ifndef ATTN_TESTS_ENTMAX_BOUNDS_H
#define ATTN_TESTS_ENTMAX_BOUNDS_H

#include "tests/softmax_bounds.h"

#include <stdlib.h>

/* docs/ACCURACY.md publishes it. */
#define ENTMAX_C 8

static inline int falling(const void *a, const void *b) {
    long double x = *(const long double *)a, y = *(const long double *)b;
    return (x < y) - (x > y);
}

/* tau of the definitions p = (z - tau)+ and p = (z/2 - tau)+^2; `sorted` is scratch. */
static inline long double sorted_threshold(bool quadratic, const long double *z, int64_t n, long double *sorted) {
    long double gain = quadratic ? 0.5L : 1, sum = 0, tau = 0;
    for (int64_t i = 0; i < n; i++) sorted[i] = z[i] * gain;
    qsort(sorted, (size_t)n, sizeof *sorted, falling);
    for (int64_t k = 1; k <= n && sorted[k - 1] > -INFINITY; k++) {
        sum += sorted[k - 1];
        long double mean = sum / (long double)k, spread = 0, candidate = mean - 1 / (long double)k;
        if (quadratic) {
            for (int64_t i = 0; i < k; i++) spread += (sorted[i] - mean) * (sorted[i] - mean);
            if (spread > 1) break;
            candidate = mean - sqrtl((1 - spread) / (long double)k);
        }
        if (candidate > sorted[k - 1]) break;
        tau = candidate;
    }
    return tau;
}

/* p for the largest weight e^log_w, d being the distance to the largest score. */
static inline long double weight_below(long double a, long double d, long double log_w) {
    if (a * d >= 1) return 0;
    long double y = d == 0 ? 0 : -a * d * expl(-a * log_w);
    return y > -1 ? expl(log_w + log1pl(y) / a) : 0;
}

/* Weights of n scores; softmax where alpha is 1. */
static inline void entmax_truth(double alpha, const long double *z, int64_t n, long double *p) {
    row_truth t = truth_of(z, n);
    long double a = (long double)alpha - 1, low = -logl((long double)n), high = 0, tau = 0;
    if (alpha == 1 || t.max == -INFINITY) {
        for (int64_t i = 0; i < n; i++) p[i] = weight(t, z[i]);
        return;
    }
    long double *shifted = malloc((size_t)n * 2 * sizeof *shifted);
    for (int64_t i = 0; i < n; i++) shifted[i] = z[i] - t.max;
    if (alpha == 1.5 || alpha == 2) tau = sorted_threshold(alpha == 1.5, shifted, n, shifted + n);
    for (int round = 0; round < 70 && alpha != 1.5 && alpha != 2; round++) {
        long double middle = (low + high) / 2, sum = 0;
        for (int64_t i = 0; i < n; i++) sum += weight_below(a, -shifted[i], middle);
        if (sum > 1)
            high = middle;
        else
            low = middle;
    }
    for (int64_t i = 0; i < n; i++) {
        long double excess = shifted[i] * a - tau;
        if (alpha == 2)
            p[i] = excess > 0 ? excess : 0;
        else if (alpha == 1.5)
            p[i] = excess > 0 ? excess * excess : 0;
        else
            p[i] = weight_below(a, -shifted[i], (low + high) / 2);
    }
    free(shifted);
}

/* With a = alpha - 1, |y^a - p^a| / a in units of u (1 + max - z): how far the scores would have to be changed to give y. For alpha 1
 * that is |log y - log p|; beyond alpha 2, where weights rise from 0 as steeply as a root, in units four times as large. 0 below
 * the normal range. */
static inline double entmax_units(double alpha, int32_t dtype, long double distance, long double p, double y) {
    long double a = (long double)alpha - 1, error;
    if (fabsl(y - p) <= smallest_of(dtype)) return 0;
    if (y == 0 || p == 0)
        error = alpha == 1 ? INFINITY : powl(y + p, a) / a;
    else
        error = alpha == 1 ? fabsl(logl(y / p)) : powl(p, a) * fabsl(expm1l(a * logl(y / p))) / a;
    return (double)(error / (unit_of(dtype) * (1 + distance) * (a > 1 ? 4 : 1)));
}

#endif
