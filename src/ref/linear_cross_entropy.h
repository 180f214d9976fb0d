/* SPDX-License-Identifier: Apache-2.0 */
/* The definition of the cross-entropy of logits = x weight^T + bias and of its gradients. */
#ifndef ATTN_REF_LINEAR_CROSS_ENTROPY_H
#define ATTN_REF_LINEAR_CROSS_ENTROPY_H

#include "element.h"

#include <stdbool.h>

typedef struct ref_linear_loss {
    int64_t n, classes, dim;
    ref_matrix x, weight; /* [n, dim], [classes, dim] */
    ref_vector bias;      /* data NULL: none */
    ref_vector labels;    /* hard; a row whose label is ignore_index does not count */
    int64_t ignore_index;
    ref_matrix soft;         /* [n, classes]; data NULL: `labels` are meant */
    ref_vector class_weight; /* data NULL: ones */
    double smoothing, z_loss;
    double factor; /* of the gradients */
} ref_linear_loss;

/* A row's loss, and what its gradients need to know: its logsumexp, and what multiplies its probabilities. */
typedef struct ref_linear_row {
    double loss, lse, total;
} ref_linear_row;

bool ref_linear_counts(const ref_linear_loss *l, int64_t i);
/* Fills in row i; a row that does not count costs 0. `logits` is room for [classes]. */
void ref_linear_loss_of(const ref_linear_loss *l, int64_t i, double *logits, ref_linear_row *row);
/* dx_i = sum_c dz_ic weight_c, for a row that counts. `sum` is room for [dim]. */
void ref_linear_dx(const ref_linear_loss *l, int64_t i, ref_linear_row row, double *sum, ref_vector dx);
/* dweight_c = sum_i dz_ic x_i and dbias_c = sum_i dz_ic over the rows that count. Either may be absent. */
void ref_linear_dweight(const ref_linear_loss *l, int64_t c, const ref_linear_row *rows, double *sum, ref_vector dweight,
                        ref_vector dbias);

#endif
