/* SPDX-License-Identifier: Apache-2.0 */
/* Forward mode through attention, as calculus has it: every input moves along its direction, and out and lse move with it.
 *
 *     ds_ij = scale (dq_i . k_j + q_i . dk_j), through the softcap, + dbias_ij
 *     dp_ij = p_ij (ds_ij - sum_k p_ik ds_ik)                    dlse_i = sum_k p_ik ds_ik
 *     do_i  = sum_j dp_ij v_j + p_ij dv_j                        dp and p after dropout
 *
 * A masked key takes part in nothing, and so does what is said of its movement. */
#include "attention.h"

void ref_attention_raw_tangents(const ref_attention *a, const ref_attention_tangents *t, int64_t i, ref_rows *row) {
    for (int64_t j = 0; j < a->kv_len; j++) {
        row->r[j] = 0;
        if (!row->live[j]) continue;
        for (int64_t d = 0; t->dq.data && d < a->dim; d++) row->r[j] += ref_at(t->dq, i, d) * ref_at(a->k, j, d);
        for (int64_t d = 0; t->dk.data && d < a->dim; d++) row->r[j] += row->q[d] * ref_at(t->dk, j, d);
        row->r[j] *= a->scale;
    }
}

/* capped = c tanh(raw / c): d capped / d raw = 1 - (capped / c)^2 */
double ref_attention_cap_slope(const ref_attention *a, const ref_rows *row, int64_t j) {
    double t = a->softcap > 0 ? row->capped[j] / a->softcap : 0;
    return (1 - t) * (1 + t);
}

void ref_attention_jvp(const ref_attention *a, const ref_attention_tangents *t, ref_rows *row) {
    for (int64_t i = 0; i < a->q_len; i++) {
        double mean = 0;
        ref_attention_scores(a, i, row);
        ref_weigh(&a->weighting, a->kv_len, row->live, row->s, row->p);
        ref_attention_raw_tangents(a, t, i, row);
        for (int64_t c = 0; c < a->v_dim; c++) row->sum[c] = 0;
        for (int64_t j = 0; j < a->kv_len; j++) {
            if (!row->live[j]) continue;
            row->ds[j] = row->r[j] * ref_attention_cap_slope(a, row, j);
            if (t->dbias.data) row->ds[j] += ref_at(t->dbias, i, j);
            mean += row->p[j] * row->ds[j];
        }
        for (int64_t j = 0; j < a->kv_len; j++) {
            if (!row->live[j]) continue;
            double p = row->p[j] * row->keep[j], dp = p * (row->ds[j] - mean);
            for (int64_t c = 0; c < a->v_dim; c++) row->sum[c] += dp * ref_at(a->v, j, c);
            for (int64_t c = 0; t->dv.data && c < a->v_dim; c++) row->sum[c] += p * ref_at(t->dv, j, c);
        }
        for (int64_t c = 0; t->dout.data && c < a->v_dim; c++) ref_set(t->dout, i, c, row->sum[c]);
        if (t->dlse.data) ref_put(t->dlse, i, mean);
    }
}
