/* SPDX-License-Identifier: Apache-2.0 */
/* Activations and their derivatives: the definition. */
#include "ops.h"

#include <attn/ops.h>
#include <math.h>

static const double sqrt_half = 0.70710678118654752440;        /* sqrt(1/2) */
static const double inverse_sqrt_tau = 0.39894228040143267794; /* 1 / sqrt(2 pi) */
static const double sqrt_two_over_pi = 0.79788456080286535588;
static const double gelu_cubic = 0.044715; /* Hendrycks and Gimpel 2016 */

/* Neither end overflows: the exponential is of a number that is never positive. */
static double sigmoid(double x) {
    double e = exp(-fabs(x));
    return x >= 0 ? 1 / (1 + e) : e / (1 + e);
}

/* Phi(x), the normal distribution function; by erfc, so that it keeps its digits far below zero. */
static double normal_cdf(double x) { return 0.5 * erfc(-x * sqrt_half); }

double ref_activation(int32_t activation, double x) {
    switch (activation) {
    case ATTN_RELU: return x < 0 ? 0 : x;
    case ATTN_GELU: return x == -INFINITY ? 0 : x * normal_cdf(x);
    case ATTN_GELU_TANH:
        /* x (1 + tanh(u)) / 2 is x sigmoid(2u), which does not cancel far below zero. */
        return x == -INFINITY ? 0 : x * sigmoid(2 * sqrt_two_over_pi * (x + gelu_cubic * x * x * x));
    case ATTN_SILU: return x == -INFINITY ? 0 : x * sigmoid(x);
    case ATTN_SIGMOID: return sigmoid(x);
    case ATTN_TANH: return tanh(x);
    default: return x;
    }
}

/* 1 - sigmoid(x) is sigmoid(-x), which does not cancel. */
static double sigmoid_slope(double x) { return sigmoid(x) * sigmoid(-x); }

static double gelu_tanh_slope(double x) {
    double u = sqrt_two_over_pi * (x + gelu_cubic * x * x * x), du = sqrt_two_over_pi * (1 + 3 * gelu_cubic * x * x);
    double slope = sigmoid_slope(2 * u);
    if (slope == 0) return x > 0; /* saturated: what slope multiplies may be infinite */
    return sigmoid(2 * u) + x * 2 * du * slope;
}

double ref_activation_slope(int32_t activation, double x) {
    switch (activation) {
    case ATTN_RELU: return x > 0 ? 1 : x <= 0 ? 0 : x; /* a NaN shows */
    case ATTN_GELU: return isinf(x) ? x > 0 : normal_cdf(x) + x * inverse_sqrt_tau * exp(-0.5 * x * x);
    case ATTN_GELU_TANH: return gelu_tanh_slope(x);
    case ATTN_SILU: return isinf(x) ? x > 0 : sigmoid(x) + x * sigmoid_slope(x);
    case ATTN_SIGMOID: return sigmoid_slope(x);
    case ATTN_TANH: return 4 * sigmoid_slope(2 * x);
    default: return 1;
    }
}
