/* SPDX-License-Identifier: Apache-2.0 */
/* The definition of a router's top-k softmax and of its gradient, one row at a time. */
#ifndef ATTN_REF_TOP_K_H
#define ATTN_REF_TOP_K_H

#include "element.h"

#include <math.h>
#include <stdbool.h>

/* A row of n logits, of which k are chosen. An entry whose logit or bias is -inf is masked: it is never chosen. */
typedef struct ref_router {
    int64_t n, k;
    int32_t order; /* ATTN_SOFTMAX_TOP_K, ... */
    bool normalize;
    double scale;
    ref_vector x;
    ref_vector bias; /* of ATTN_SIGMOID_TOP_K; data NULL: none */
} ref_router;

/* Of the live entries of a row: the largest logit (NaN if any is) and the sum of exp(x - max), where these are finite. */
typedef struct ref_router_sum {
    double max, sum;
} ref_router_sum;

/* Does score a at index i come before score b at j? The larger first, ties to the lower index, NaN before all. */
static inline bool ref_comes_before(double a, int64_t i, double b, int64_t j) {
    if (isnan(a) || isnan(b)) return isnan(a) && (!isnan(b) || i < j);
    return a > b || (a == b && i < j);
}

/* What an entry is chosen by: its logit, or sigmoid + bias; -inf where it is masked. */
double ref_router_choice(const ref_router *r, int64_t i);

/* index: the k entries that come first; -1 beyond the live ones. */
void ref_router_choose(const ref_router *r, ref_vector index);
ref_router_sum ref_router_sum_of(const ref_router *r);
/* The weights of the chosen; 0 where index is -1. `row` is read by ATTN_SOFTMAX_TOP_K alone. */
void ref_router_weigh(const ref_router *r, ref_router_sum row, ref_vector index, ref_vector weight);
/* All of the above. */
void ref_top_k_softmax(const ref_router *r, ref_vector index, ref_vector weight);

/* dx from dweight; 0 where masked. dweight is not read where index is -1. */
void ref_top_k_softmax_backward(const ref_router *r, ref_vector index, ref_vector dweight, ref_vector dx);
/* What all entries share in the gradient of ATTN_SOFTMAX_TOP_K without `normalize`: the sum of weights and their gradients. The
 * gradient of an entry that was not chosen is -p times that. */
double ref_router_dot(const ref_router *r, ref_router_sum row, ref_vector index, ref_vector dweight);
/* Writes dx of the chosen entries alone. `row` and `dot` are those of ATTN_SOFTMAX_TOP_K without `normalize`. */
void ref_router_chosen_dx(const ref_router *r, ref_router_sum row, double dot, ref_vector index, ref_vector dweight,
                          ref_vector dx);

#endif
