/* SPDX-License-Identifier: Apache-2.0 */
/* The definition of everything in <attn/ops.h>: plain loops in double over strided elements of any dtype. */
#ifndef ATTN_REF_OPS_H
#define ATTN_REF_OPS_H

#include "element.h"

#include <stdbool.h>

/* ---- activations: one number --------------------------------------------------------------------- */

double ref_activation(int32_t activation, double x);
/* The derivative at x. */
double ref_activation_slope(int32_t activation, double x);

/* ---- matrix products ------------------------------------------------------------------------------ */

/* c [m, n] = activation(a [m, k] b [k, n] + bias) + residual, added to c when `accumulate`. */
typedef struct ref_product {
    int64_t m, n, k;
    int32_t activation;
    bool accumulate;
    ref_matrix a, b, c;
    ref_vector bias;     /* optional */
    ref_matrix residual; /* optional */
    ref_matrix before;   /* optional out: a b + bias */
} ref_product;

void ref_matmul(const ref_product *p);
/* y [n] = sum over the m rows of x, added to y when `accumulate`. */
void ref_sum_rows(int64_t m, int64_t n, ref_matrix x, ref_vector y, bool accumulate);

/* ---- norms: one row of n elements -------------------------------------------------------------------- */

/* What normalises a row: xhat = (x - mean) * rstd. RMS norm has mean 0. */
typedef struct ref_moments {
    double mean, rstd;
} ref_moments;

ref_moments ref_norm_moments(int32_t kind, int64_t n, double epsilon, ref_vector x);
/* y = xhat * weight + bias; weight and bias optional. y may be x. */
void ref_norm(int64_t n, ref_moments row, ref_vector x, ref_vector weight, ref_vector bias, ref_vector y, bool accumulate);
/* dx from dy; dx may be dy. */
void ref_norm_dx(int32_t kind, int64_t n, ref_moments row, ref_vector x, ref_vector weight, ref_vector dy, ref_vector dx,
                 bool accumulate);
/* dweight [n] += dy * xhat, dbias [n] += dy: this row's share. Either may be NULL. */
void ref_norm_dweight(int64_t n, ref_moments row, ref_vector x, ref_vector dy, double *dweight, double *dbias);

/* ---- elements ------------------------------------------------------------------------------------------ */

/* One step of AdamW, its bias corrections worked out: param *= keep; ...; param -= rate * m / (sqrt(v) * root_scale + epsilon). */
typedef struct ref_adamw {
    double keep;       /* 1 - lr * weight_decay */
    double rate;       /* lr / (1 - beta1^step) */
    double root_scale; /* 1 / sqrt(1 - beta2^step) */
    double beta1, beta2, epsilon, grad_scale;
} ref_adamw;

void ref_adamw_step(const ref_adamw *o, int64_t n, ref_vector param, ref_vector m, ref_vector v, ref_vector gradient);

#endif
