/* SPDX-License-Identifier: Apache-2.0 */
/* x / |x| and its gradient (g - u (u . g)) / |x|, u = x / |x|. */
#include "attention_unit.h"

#include <math.h>
#include <stdbool.h>

static double element(const void *x, int64_t i, size_t size) {
    return size == sizeof(float) ? (double)((const float *)x)[i] : ((const double *)x)[i];
}

static void put(void *x, int64_t i, size_t size, double y) {
    if (size == sizeof(float))
        ((float *)x)[i] = (float)y;
    else
        ((double *)x)[i] = y;
}

/* 1 / |x| = power * rest. Two factors: neither leaves the range where their product does. */
typedef struct inverse_length {
    double power, rest;
} inverse_length;

/* Terms that are added side by side. */
enum { SUMS = 4 };

static double total(const double *sum) { return (sum[0] + sum[1]) + (sum[2] + sum[3]); }

/* The squares of floats are within the range of double. */
static double square_of_floats(const float *x, int64_t n, int64_t step) {
    double sum[SUMS] = { 0 };
    int64_t d = 0;
    for (; d + SUMS <= n; d += SUMS)
        for (int i = 0; i < SUMS; i++) sum[i] += (double)x[(d + i) * step] * (double)x[(d + i) * step];
    for (int i = 0; d + i < n; i++) sum[i] += (double)x[(d + i) * step] * (double)x[(d + i) * step];
    return total(sum);
}

/* Those of doubles need not be: the largest gives a power of two that takes them there. */
static double square_of_doubles(const double *x, int64_t n, int64_t step, double *half, double *other) {
    double sum[SUMS] = { 0 }, largest = 0;
    int exponent;
    for (int64_t d = 0; d < n; d++) largest = fabs(x[d * step]) > largest ? fabs(x[d * step]) : largest;
    if (isinf(largest)) return largest;
    frexp(largest, &exponent);
    *half = ldexp(1, -(exponent / 2));
    *other = ldexp(1, -(exponent - exponent / 2));
    for (int64_t d = 0; d < n; d++) {
        double y = x[d * step] * *half * *other;
        sum[d % SUMS] += y * y;
    }
    return total(sum);
}

static inverse_length inverse_length_of(const void *x, int64_t n, int64_t step, size_t size) {
    double half = 1, other = 1, square;
    square = size == sizeof(float) ? square_of_floats(x, n, step) : square_of_doubles(x, n, step, &half, &other);
    if (square == 0) return (inverse_length){ 0, 0 };
    if (isinf(square)) return (inverse_length){ NAN, NAN };
    return (inverse_length){ half, other / sqrt(square) }; /* NaN when an element is */
}

void attn_unit_vector(void *x, int64_t n, int64_t step, size_t size) {
    inverse_length by = inverse_length_of(x, n, step, size);
    float *f = x;
    if (size == sizeof(float) && step == 1)
        for (int64_t d = 0; d < n; d++)
            f[d] = (float)((double)f[d] * by.rest); /* of floats the power is 1, 0 or NaN like the rest */
    else
        for (int64_t d = 0; d < n; d++) put(x, d * step, size, element(x, d * step, size) * by.power * by.rest);
}

void attn_unit_gradient(const void *x, int64_t x_step, void *g, int64_t g_step, int64_t n, size_t size) {
    bool any = false;
    double along = 0;
    for (int64_t d = 0; d < n; d++) any |= element(g, d * g_step, size) != 0;
    if (!any) return;
    inverse_length by = inverse_length_of(x, n, x_step, size);
    for (int64_t d = 0; d < n; d++) along += element(x, d * x_step, size) * by.power * by.rest * element(g, d * g_step, size);
    for (int64_t d = 0; d < n; d++) {
        double unit = element(x, d * x_step, size) * by.power * by.rest;
        put(g, d * g_step, size, (element(g, d * g_step, size) - unit * along) * by.power * by.rest);
    }
}
