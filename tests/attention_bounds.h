/* SPDX-License-Identifier: Apache-2.0 */
/* The error bounds that docs/ACCURACY.md publishes for attention, as the tests hold them: against the exact result for the same
 * inputs, with u = 2^-24 for f32 (2^-53 for f64), and per row
 *
 *     A = the largest |scale| sum_d |q_d k_jd| + |bias| + |slope * distance| over its live keys j
 *         (additive: |scale| sum_d |w_d| in place of the sum; cosine: of q and k with length 1), or |sink| where that is larger
 *     e = u ((2 dim + 16) A + kv_len + 32)
 *
 *     weights  e            out      e max_j |v_jc| (sigmoid: e sum_j |v_jc|); with dropout times 1 / (1 - p)
 *     relu^2   weights e (1 + A)^2, out e (1 + A)^2 sum_j |v_jc|
 *     sparsemax, entmax, hardmax: entropy kv_len e (1 - ln e)
 *     lse      e + u |lse|  entropy  e (2 + 2 A)       received  q_len e (its largest over rows) */
#ifndef ATTENTION_BOUNDS_H
#define ATTENTION_BOUNDS_H

#include "attention_cases.h"

/* On standard normal q, k and v, for the whole output. */
static const double rms_bound_f32 = 2e-6, rms_bound_f64 = 1e-14;
/* The same for dq, dk, dv and the summed gradients. */
static const double gradient_rms_bound_f32 = 5e-6, gradient_rms_bound_f64 = 5e-14;

static inline double rms_bound(int32_t dtype) { return dtype == ATTN_F64 ? rms_bound_f64 : rms_bound_f32; }
static inline double gradient_rms_bound(int32_t dtype) {
    return dtype == ATTN_F64 ? gradient_rms_bound_f64 : gradient_rms_bound_f32;
}
static inline double unit_of(int32_t dtype) { return dtype == ATTN_F64 ? 0x1p-53 : 0x1p-24; }

static inline bool plan_sees(const attn_attention_plan *p, int64_t b, int64_t h, int64_t i, int64_t j) {
    attn_sight sight = attn_plan_sight(p, b);
    attn_key_range keys = attn_row_keys(&sight, i);
    if (j < keys.begin || j >= keys.end) return false;
    if (p->mask.rank && get4(p->mask, b, h, i, j) == 0) return false;
    return !p->bias.rank || get4(p->bias, b, h, i, j) != -INFINITY;
}

/* |q . k| of row i and key j, magnitudes added up; cosine: of both with length 1. */
static inline double product_magnitude(const attn_attention_plan *p, int64_t b, int64_t h, int64_t i, int64_t j) {
    double sum = 0, q_square = 0, k_square = 0;
    for (int64_t d = 0; d < p->dim; d++) {
        double q = get4(p->q, b, h, i, d), k = get4(p->k, b, h / p->k_group, j, d);
        sum += fabs(q * k);
        q_square += q * q;
        k_square += k * k;
    }
    return p->score == ATTN_COSINE && sum > 0 ? sum / sqrt(q_square) / sqrt(k_square) : sum;
}

/* The largest sum of magnitudes that makes up a live score of this row. */
static inline double row_magnitude(const attn_attention_plan *p, int64_t b, int64_t h, int64_t i) {
    attn_sight sight = attn_plan_sight(p, b);
    double largest = 0;
    for (int64_t j = 0; j < p->kv_len; j++) {
        if (!plan_sees(p, b, h, i, j)) continue;
        double sum = p->score == ATTN_ADDITIVE ? 0 : product_magnitude(p, b, h, i, j);
        for (int64_t d = 0; p->score == ATTN_ADDITIVE && d < p->dim; d++)
            sum += fabs(ref_load(p->score_weight.data, p->score_weight.dtype,
                                 h * p->score_weight.stride[0] + d * p->score_weight.stride[1]));
        sum *= fabs(p->scale);
        if (p->bias.rank) sum += fabs(get4(p->bias, b, h, i, j));
        if (p->alibi.rank)
            sum += fabs(ref_load(p->alibi.data, p->alibi.dtype, b * p->alibi.stride[0] + h * p->alibi.stride[1]) *
                        (double)attn_distance(&sight, i, j));
        if (sum > largest) largest = sum;
    }
    double sink = p->sinks.rank ? fabs(attn_plan_sink(p, h)) : 0;
    return isfinite(sink) && sink > largest ? sink : largest;
}

typedef struct row_bound {
    double magnitude, e;
} row_bound;

/* Bounds on a row's weights and on what it mixes. */
static inline double weight_bound(const attn_attention_plan *p, row_bound bound) {
    return p->weighting == ATTN_WEIGHT_RELU2 ? bound.e * (1 + bound.magnitude) * (1 + bound.magnitude) : bound.e;
}

static inline row_bound bound_of_row(const attn_attention_plan *p, int64_t b, int64_t h, int64_t i) {
    double magnitude = row_magnitude(p, b, h, i);
    double e = unit_of(p->q.dtype) * ((2 * (double)p->dim + 16) * magnitude + (double)p->kv_len + 32);
    return (row_bound){ .magnitude = magnitude, .e = e };
}

static inline void assert_within(const char *what, attn_tensor x, int64_t at, double exact, double bound) {
    double got = get(x, at);
    if (got == exact || (isnan(got) && isnan(exact))) return;
    if (!(fabs(got - exact) <= bound))
        fail_msg("%s[%lld]: %.9g instead of %.9g, error %.3g, bound %.3g", what, (long long)at, got, exact, fabs(got - exact),
                 bound);
}

/* One row's results in `a` against the exact ones in `exact`. Tensors that `exact` lacks are not compared. */
static inline void assert_row_within_bounds(const attn_attention_args *a, const attn_attention_args *exact,
                                            const attn_attention_plan *p, int64_t b, int64_t h, int64_t i, row_bound bound) {
    int64_t row = (b * p->heads + h) * p->q_len + i;
    double u = unit_of(p->q.dtype), weights = weight_bound(p, bound);
    for (int64_t c = 0; c < p->v_dim; c++) {
        double largest = 0, sum = 0;
        for (int64_t j = 0; j < p->kv_len; j++) {
            if (!plan_sees(p, b, h, i, j)) continue;
            double v = fabs(get4(p->v, b, h / p->v_group, j, c));
            sum += v;
            if (v > largest) largest = v;
        }
        double size = attn_plan_is_elementwise(p) ? sum : largest;
        if (p->dropout.on) size *= p->dropout.scale;
        assert_within("out", a->out, row * p->v_dim + c, get(exact->out, row * p->v_dim + c), weights * size);
    }
    for (int64_t j = 0; exact->see.weights.rank && j < p->kv_len; j++)
        assert_within("weights", a->see.weights, row * p->kv_len + j, get(exact->see.weights, row * p->kv_len + j), weights);
    for (int64_t j = 0; exact->see.scores.rank && j < p->kv_len; j++)
        assert_within("scores", a->see.scores, row * p->kv_len + j, get(exact->see.scores, row * p->kv_len + j), bound.e);
    if (exact->see.lse.rank) {
        double lse = get(exact->see.lse, row);
        assert_within("lse", a->see.lse, row, lse, bound.e + u * fabs(lse));
    }
    if (exact->see.entropy.rank) {
        double smooth = bound.e * (2 + 2 * bound.magnitude), steep = (double)p->kv_len * bound.e * (1 - log(bound.e));
        assert_within("entropy", a->see.entropy, row, get(exact->see.entropy, row),
                      p->weighting == ATTN_WEIGHT_SOFTMAX ? smooth : steep);
    }
    int64_t top_k = exact->see.top_index.rank ? exact->see.top_index.shape[3] : 0;
    for (int64_t r = 0; r < top_k; r++) {
        int64_t chosen = (int64_t)get(a->see.top_index, row * top_k + r);
        int64_t best = (int64_t)get(exact->see.top_index, row * top_k + r);
        assert_within("top_weight", a->see.top_weight, row * top_k + r, get(exact->see.top_weight, row * top_k + r), weights);
        if (chosen == best) continue;
        assert_true(chosen >= 0 && best >= 0); /* another key may only stand here if its score is as good as the same */
        assert_close(get(exact->see.scores, row * p->kv_len + chosen), get(exact->see.scores, row * p->kv_len + best),
                     2 * bound.e);
    }
}

/* Every row of a computed call against the reference's answer in f64, within the published bounds. */
static inline void assert_within_published_bounds(const attn_attention_args *a, const attn_attention_args *exact) {
    attn_attention_plan p;
    assert_int_equal(attn_attention_plan_forward(&p, a, ATTN_PLAN_CALL), ATTN_OK);
    for (int64_t b = 0; b < p.batch; b++)
        for (int64_t h = 0; h < p.heads; h++) {
            double worst = 0;
            for (int64_t i = 0; i < p.q_len; i++) {
                row_bound bound = bound_of_row(&p, b, h, i);
                if (weight_bound(&p, bound) > worst) worst = weight_bound(&p, bound);
                assert_row_within_bounds(a, exact, &p, b, h, i, bound);
            }
            for (int64_t j = 0; exact->see.received.rank && j < p.kv_len; j++) {
                int64_t n = (b * p.heads + h) * p.kv_len + j;
                assert_within("received", a->see.received, n, get(exact->see.received, n), (double)p.q_len * worst);
            }
        }
}

#endif
