/* SPDX-License-Identifier: Apache-2.0 */
/* A router's top-k softmax, as a textbook has it: choose the next best k times, then weigh what was chosen. */
#include "top_k.h"
#include "gate.h"

#include <math.h>

double ref_router_choice(const ref_router *r, int64_t i) {
    double x = ref_get(r->x, i), bias = r->bias.data ? ref_get(r->bias, i) : 0;
    if (r->order != ATTN_SIGMOID_TOP_K) return x;
    return x == -INFINITY || bias == -INFINITY ? -INFINITY : ref_sigmoid(x) + bias;
}

void ref_router_choose(const ref_router *r, ref_vector index) {
    int64_t last = -1;
    for (int64_t rank = 0; rank < r->k; rank++) {
        int64_t best = -1;
        double choice = -INFINITY, before = last < 0 ? NAN : ref_router_choice(r, last);
        for (int64_t i = 0; i < r->n; i++) {
            double c = ref_router_choice(r, i);
            if (c == -INFINITY || (rank > 0 && (last < 0 || !ref_comes_before(before, last, c, i)))) continue;
            if (best < 0 || ref_comes_before(c, i, choice, best)) best = i, choice = c;
        }
        last = best;
        ref_put(index, rank, (double)best);
    }
}

ref_router_sum ref_router_sum_of(const ref_router *r) {
    ref_router_sum row = { .max = -INFINITY, .sum = 0 };
    for (int64_t i = 0; i < r->n; i++) {
        double x = ref_get(r->x, i);
        if (isnan(x) || x > row.max) row.max = x;
        if (isnan(x)) return row;
    }
    for (int64_t i = 0; i < r->n && isfinite(row.max); i++) row.sum += exp(ref_get(r->x, i) - row.max);
    return row;
}

/* The entry at a rank; -1 where there is none. */
static int64_t chosen(ref_vector index, int64_t rank) {
    if (index.dtype == ATTN_I64) return ((const int64_t *)index.data)[rank * index.stride];
    return (int64_t)ref_get(index, rank);
}

/* A chosen entry's sigmoid. A bias that is NaN chose it for no reason that is a number: that shows. */
static double gate_of(const ref_router *r, int64_t i) {
    return r->bias.data && isnan(ref_get(r->bias, i)) ? NAN : ref_sigmoid(ref_get(r->x, i));
}

static bool is_sigmoid(const ref_router *r) { return r->order == ATTN_SIGMOID_TOP_K; }
static bool is_of_row(const ref_router *r) { return r->order == ATTN_SOFTMAX_TOP_K && !r->normalize; }

/* The softmax's sum over the chosen entries, or the sum of their sigmoids. */
static ref_router_sum sum_of_chosen(const ref_router *r, ref_vector index) {
    ref_router_sum c = { .max = -INFINITY, .sum = 0 };
    for (int64_t rank = 0; rank < r->k && !is_sigmoid(r); rank++) {
        int64_t i = chosen(index, rank);
        double x = i < 0 ? -INFINITY : ref_get(r->x, i);
        if (isnan(x) || x > c.max) c.max = x;
        if (isnan(x)) return c;
    }
    for (int64_t rank = 0; rank < r->k; rank++) {
        int64_t i = chosen(index, rank);
        double x = i < 0 ? -INFINITY : ref_get(r->x, i);
        if (x != -INFINITY) c.sum += is_sigmoid(r) ? gate_of(r, i) : exp(x - c.max);
    }
    return c;
}

/* A chosen entry's share of the softmax that `sum` is of. NaN in every live entry where the largest is infinite or NaN. */
static double share(ref_router_sum sum, double x) {
    if (x == -INFINITY) return 0;
    return isfinite(sum.max) ? exp(x - sum.max) / sum.sum : NAN;
}

void ref_router_weigh(const ref_router *r, ref_router_sum row, ref_vector index, ref_vector weight) {
    ref_router_sum of = is_of_row(r) || (is_sigmoid(r) && !r->normalize) ? row : sum_of_chosen(r, index);
    for (int64_t rank = 0; rank < r->k; rank++) {
        int64_t i = chosen(index, rank);
        double w = 0;
        if (i >= 0 && is_sigmoid(r))
            w = !r->normalize ? gate_of(r, i) : of.sum == 0 ? 0 : gate_of(r, i) / of.sum;
        else if (i >= 0)
            w = share(of, ref_get(r->x, i));
        ref_put(weight, rank, i < 0 ? 0 : r->scale * w);
    }
}

void ref_top_k_softmax(const ref_router *r, ref_vector index, ref_vector weight) {
    ref_router_choose(r, index);
    ref_router_weigh(r, is_of_row(r) ? ref_router_sum_of(r) : (ref_router_sum){ 0, 0 }, index, weight);
}

/* ---- the gradient: the choice stays, so that d(weight)/d(logit) is that of the weights alone --------------------- */

/* softmax, then top-k:  w_r = scale p_r,  p over the row:   dx_i = p_i (scale dw_i - sum_r p_r scale dw_r), dw_i 0 if not chosen
 * of the chosen:        w_r = scale s_r,  s over the chosen: dx_r = s_r (scale dw_r - sum_q s_q scale dw_q), 0 if not chosen
 * sigmoid:              w_r = scale g_r,                     dx_r = scale dw_r g_r (1 - g_r)
 * sigmoid, normalised:  w_r = scale g_r / G,                 dx_r = scale / G (dw_r - sum_q g_q / G dw_q) g_r (1 - g_r) */
double ref_router_dot(const ref_router *r, ref_router_sum row, ref_vector index, ref_vector dweight) {
    double dot = 0;
    for (int64_t rank = 0; rank < r->k; rank++) {
        int64_t i = chosen(index, rank);
        double p = i < 0 ? 0 : is_sigmoid(r) ? gate_of(r, i) / row.sum : share(row, ref_get(r->x, i));
        if (p != 0) dot += p * r->scale * ref_get(dweight, rank);
    }
    return dot;
}

void ref_router_chosen_dx(const ref_router *r, ref_router_sum row, double dot, ref_vector index, ref_vector dweight,
                          ref_vector dx) {
    for (int64_t rank = 0; rank < r->k; rank++) {
        int64_t i = chosen(index, rank);
        if (i < 0) continue;
        double x = ref_get(r->x, i), dw = r->scale * ref_get(dweight, rank), d = 0;
        if (x != -INFINITY && is_sigmoid(r))
            d = (r->normalize ? (dw - dot) / row.sum : dw) * gate_of(r, i) * ref_sigmoid(-x);
        else if (x != -INFINITY)
            d = share(row, x) * (dw - dot);
        ref_put(dx, i, is_sigmoid(r) && r->normalize && row.sum == 0 ? 0 : d);
    }
}

void ref_top_k_softmax_backward(const ref_router *r, ref_vector index, ref_vector dweight, ref_vector dx) {
    ref_router_sum row = is_of_row(r) ? ref_router_sum_of(r) : sum_of_chosen(r, index);
    bool shared = !is_sigmoid(r) || (r->normalize && row.sum != 0);
    double dot = shared ? ref_router_dot(r, row, index, dweight) : 0;
    for (int64_t i = 0; i < r->n; i++) {
        double p = is_of_row(r) ? share(row, ref_get(r->x, i)) : 0;
        ref_put(dx, i, p == 0 ? 0 : -p * dot);
    }
    ref_router_chosen_dx(r, row, dot, index, dweight, dx);
}
