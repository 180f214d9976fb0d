/* SPDX-License-Identifier: Apache-2.0 */
/* Layer and RMS norm of a row, forward and backward: the definition. */
#include "ops.h"

#include <attn/ops.h>
#include <math.h>

ref_moments ref_norm_moments(int32_t kind, int64_t n, double epsilon, ref_vector x) {
    double mean = 0, square = 0;
    if (kind == ATTN_LAYER_NORM) {
        for (int64_t i = 0; i < n; i++) mean += ref_get(x, i);
        mean /= (double)n;
    }
    for (int64_t i = 0; i < n; i++) {
        double d = ref_get(x, i) - mean;
        square += d * d;
    }
    return (ref_moments){ mean, 1 / sqrt(square / (double)n + epsilon) };
}

void ref_norm(int64_t n, ref_moments row, ref_vector x, ref_vector weight, ref_vector bias, ref_vector y, bool accumulate) {
    for (int64_t i = 0; i < n; i++) {
        double v = (ref_get(x, i) - row.mean) * row.rstd;
        if (weight.data) v *= ref_get(weight, i);
        if (bias.data) v += ref_get(bias, i);
        if (accumulate) v += ref_get(y, i);
        ref_put(y, i, v);
    }
}

/* y = xhat w + b, xhat = (x - mean) rstd. With g = dy w:
 *   layer norm  dx = rstd (g - mean(g) - xhat mean(g xhat))
 *   RMS norm    dx = rstd (g           - xhat mean(g xhat)) */
void ref_norm_dx(int32_t kind, int64_t n, ref_moments row, ref_vector x, ref_vector weight, ref_vector dy, ref_vector dx,
                 bool accumulate) {
    double sum_g = 0, sum_gx = 0;
    for (int64_t i = 0; i < n; i++) {
        double g = ref_get(dy, i) * (weight.data ? ref_get(weight, i) : 1);
        sum_g += g;
        sum_gx += g * (ref_get(x, i) - row.mean) * row.rstd;
    }
    double mean_g = kind == ATTN_LAYER_NORM ? sum_g / (double)n : 0, mean_gx = sum_gx / (double)n;
    for (int64_t i = 0; i < n; i++) {
        double g = ref_get(dy, i) * (weight.data ? ref_get(weight, i) : 1);
        double v = row.rstd * (g - mean_g - (ref_get(x, i) - row.mean) * row.rstd * mean_gx);
        if (accumulate) v += ref_get(dx, i);
        ref_put(dx, i, v);
    }
}

void ref_norm_dweight(int64_t n, ref_moments row, ref_vector x, ref_vector dy, double *dweight, double *dbias) {
    for (int64_t i = 0; i < n; i++) {
        if (dweight) dweight[i] += ref_get(dy, i) * (ref_get(x, i) - row.mean) * row.rstd;
        if (dbias) dbias[i] += ref_get(dy, i);
    }
}
