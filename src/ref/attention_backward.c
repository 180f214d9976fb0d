/* SPDX-License-Identifier: Apache-2.0 */
/* The gradients of attention, as calculus gives them. Every sum over rows visits them in order and computes the row afresh, so
 * nothing but one row is ever held. A masked key takes part in nothing. */
#include "attention.h"

#include <math.h>

/* Row i up to the scores: o_i = sum_j p_ij keep_ij v_j, so dp_ij = keep_ij do_i . v_j; the weighting takes dp to ds. */
static void backward_row(const ref_attention *a, const ref_attention_grads *g, int64_t i, ref_rows *row) {
    ref_attention_scores(a, i, row);
    ref_norm norm = ref_weigh(&a->weighting, a->kv_len, row->live, row->s, row->p);
    for (int64_t c = 0; c < a->v_dim; c++) row->dout[c] = ref_at(g->dout, i, c);
    for (int64_t j = 0; j < a->kv_len; j++) {
        row->dp[j] = 0;
        if (!row->live[j]) continue;
        for (int64_t c = 0; c < a->v_dim; c++) row->dp[j] += row->dout[c] * ref_at(a->v, j, c);
        row->dp[j] *= row->keep[j];
    }
    double dlse = g->dlse.data ? ref_get(g->dlse, i) : 0;
    row->dweighting = ref_weigh_backward(&a->weighting, a->kv_len, row->live, norm, row->s, row->p, row->dp, dlse, row->ds);
}

/* raw = scale * score, so dscore = draw scale. */
static double score_gradient(const ref_attention *a, const ref_rows *row, int64_t j) {
    return row->ds[j] * ref_attention_cap_slope(a, row, j) * a->scale;
}

/* d score / d a_d of the additive score sum_d w_d tanh(a_d), a = q + k: the same for q and for k. */
static double additive_slope(const ref_attention *a, const ref_rows *row, int64_t j, int64_t d) {
    double t = tanh(row->q[d] + ref_at(a->k, j, d));
    return ref_get(a->score_weight, d) * (1 - t) * (1 + t);
}

/* score = q . k: d score / dq = k. cosine: the same with q and k of length 1, and then through q's length. */
static double slope_in_q(const ref_attention *a, const ref_rows *row, int64_t j, int64_t d) {
    if (a->score == ATTN_COSINE) return row->k[d];
    return a->score == ATTN_ADDITIVE ? additive_slope(a, row, j, d) : ref_at(a->k, j, d);
}

/* From the gradient g of a vector of length 1, u = x / |x|, to that of x: (g - u (u . g)) / |x|. A zero vector has none, and a
 * gradient of 0 stays 0 whatever x is. */
static void through_length(int64_t n, const double *unit, double length, double *g) {
    double along = 0;
    bool any = false;
    for (int64_t d = 0; d < n; d++) any |= g[d] != 0;
    if (!any) return;
    for (int64_t d = 0; d < n; d++) along += unit[d] * g[d];
    for (int64_t d = 0; d < n; d++) g[d] = length == 0 ? 0 : (g[d] - unit[d] * along) / length;
}

void ref_attention_key_gradient(const ref_attention *a, ref_rows *row, double *dk) {
    for (int64_t j = 0; j < a->kv_len; j++) {
        double length = ref_attention_unit_key(a, j, row->k);
        through_length(a->dim, row->k, length, dk + j * a->dim);
    }
}

/* score = q . k: d score / dk = q. */
static double slope_in_k(const ref_attention *a, const ref_rows *row, int64_t j, int64_t d) {
    return a->score == ATTN_ADDITIVE ? additive_slope(a, row, j, d) : row->q[d];
}

/* dq_i = sum_j dscore_ij d score / dq */
void ref_attention_dq(const ref_attention *a, const ref_attention_grads *g, ref_rows *row, ref_matrix dq) {
    for (int64_t i = 0; i < a->q_len; i++) {
        backward_row(a, g, i, row);
        for (int64_t d = 0; d < a->dim; d++) row->sum[d] = 0;
        for (int64_t j = 0; j < a->kv_len; j++) {
            if (!row->live[j]) continue;
            double dscore = score_gradient(a, row, j);
            if (a->score == ATTN_COSINE) ref_attention_unit_key(a, j, row->k);
            for (int64_t d = 0; d < a->dim; d++) row->sum[d] += dscore * slope_in_q(a, row, j, d);
        }
        if (a->score == ATTN_COSINE) through_length(a->dim, row->q, row->q_length, row->sum);
        for (int64_t d = 0; d < a->dim; d++) ref_set(dq, i, d, row->sum[d]);
    }
}

/* dk_j = sum_i dscore_ij d score / dk */
void ref_attention_add_dk(const ref_attention *a, const ref_attention_grads *g, ref_rows *row, double *dk) {
    for (int64_t i = 0; i < a->q_len; i++) {
        backward_row(a, g, i, row);
        for (int64_t j = 0; j < a->kv_len; j++) {
            if (!row->live[j]) continue;
            double dscore = score_gradient(a, row, j);
            for (int64_t d = 0; d < a->dim; d++) dk[j * a->dim + d] += dscore * slope_in_k(a, row, j, d);
        }
    }
}

/* dv_j = sum_i p_ij keep_ij do_i */
void ref_attention_add_dv(const ref_attention *a, const ref_attention_grads *g, ref_rows *row, double *dv) {
    for (int64_t i = 0; i < a->q_len; i++) {
        ref_attention_scores(a, i, row);
        ref_weigh(&a->weighting, a->kv_len, row->live, row->s, row->p);
        for (int64_t c = 0; c < a->v_dim; c++) row->dout[c] = ref_at(g->dout, i, c);
        for (int64_t j = 0; j < a->kv_len; j++) {
            if (!row->live[j]) continue;
            for (int64_t c = 0; c < a->v_dim; c++) dv[j * a->v_dim + c] += row->p[j] * row->keep[j] * row->dout[c];
        }
    }
}

/* score = sum_d w_d tanh(q_d + k_d): dw_d = sum_ij dscore_ij tanh(q_id + k_jd) */
void ref_attention_add_dscore_weight(const ref_attention *a, const ref_attention_grads *g, ref_rows *row, double *dw) {
    for (int64_t i = 0; i < a->q_len; i++) {
        backward_row(a, g, i, row);
        for (int64_t j = 0; j < a->kv_len; j++) {
            if (!row->live[j]) continue;
            double dscore = score_gradient(a, row, j);
            for (int64_t d = 0; d < a->dim; d++) dw[d] += dscore * tanh(row->q[d] + ref_at(a->k, j, d));
        }
    }
}

/* s = capped + bias - slope * distance: dslope = -sum_ij ds_ij distance_ij */
void ref_attention_add_dalibi(const ref_attention *a, const ref_attention_grads *g, ref_rows *row, double *dslope) {
    for (int64_t i = 0; i < a->q_len; i++) {
        backward_row(a, g, i, row);
        for (int64_t j = 0; j < a->kv_len; j++)
            if (row->live[j]) *dslope -= row->ds[j] * (double)attn_distance(&a->sight, i, j);
    }
}

void ref_attention_add_dsink(const ref_attention *a, const ref_attention_grads *g, ref_rows *row, double *dsink) {
    for (int64_t i = 0; i < a->q_len; i++) {
        backward_row(a, g, i, row);
        *dsink += row->dweighting.sink;
    }
}

void ref_attention_add_dalpha(const ref_attention *a, const ref_attention_grads *g, ref_rows *row, double *dalpha) {
    for (int64_t i = 0; i < a->q_len; i++) {
        backward_row(a, g, i, row);
        *dalpha += row->dweighting.alpha;
    }
}

/* s = capped + bias - slope * distance: dbias = ds */
void ref_attention_add_dbias(const ref_attention *a, const ref_attention_grads *g, int64_t i, ref_rows *row, double *dbias,
                             int64_t step) {
    backward_row(a, g, i, row);
    for (int64_t j = 0; j < a->kv_len; j++)
        if (row->live[j]) dbias[j * step] += row->ds[j];
}
