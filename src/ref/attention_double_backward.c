/* SPDX-License-Identifier: Apache-2.0 */
/* The backward's own backward, as calculus has it. The backward of one head, with g_ij = 1 - (capped_ij / c)^2 what the softcap
 * multiplies by and keep_ij what dropout does:
 *
 *     dp_ij = keep_ij do_i . v_j                  ds_ij = p_ij (dp_ij - delta_i), delta_i = sum_k p_ik dp_ik - dlse_i
 *     dq_i = scale sum_j g_ij ds_ij k_j           dk_j = scale sum_i g_ij ds_ij q_i          dv_j = sum_i keep_ij p_ij do_i
 *
 * A loss with gradients ddq, ddk, ddv to these is F = sum_ij ds_ij g_ij r_ij + p_ij u_ij, where
 *
 *     r_ij = scale (ddq_i . k_j + q_i . ddk_j)    u_ij = keep_ij do_i . ddv_j
 *
 * Its slopes, with m_i = sum_j p_ij g_ij r_ij:
 *
 *     dF/d(dp_ij) = p_ij (g_ij r_ij - m_i)                                      which is the gradient of do and v
 *     dF/d(p_ij)  = g_ij r_ij (dp_ij - delta_i) - m_i dp_ij + u_ij = e_ij       and of a score p_ij (e_ij - sum_k p_ik e_ik)
 *     dF/d(r_ij)  = g_ij ds_ij                                                  of q and k beside ddk and ddq
 *     dF/d(g_ij)  = ds_ij r_ij, and dg/d(raw) = -2 (capped / c) g / c           through the softcap
 *
 * A sink's weight has no dp, r or u of its own, and is in no sum. A masked key takes part in nothing. */
#include "attention.h"

/* Row i: x, the gradients of raw scores; ds becomes that of r; dp that of do . v. */
static void second_row(const ref_attention *a, const ref_attention_grads *g, int64_t i, ref_rows *row) {
    const ref_attention_tangents *t = &g->along;
    double delta = g->dlse.data ? -ref_get(g->dlse, i) : 0, m = 0, e = 0;
    ref_attention_scores(a, i, row);
    ref_weigh(&a->weighting, a->kv_len, row->live, row->s, row->p);
    ref_attention_raw_tangents(a, t, i, row);
    for (int64_t c = 0; c < a->v_dim; c++) row->dout[c] = ref_at(g->dout, i, c);
    for (int64_t j = 0; j < a->kv_len; j++) {
        row->dp[j] = row->ds[j] = row->x[j] = 0;
        if (!row->live[j]) continue;
        for (int64_t c = 0; c < a->v_dim; c++) row->dp[j] += row->dout[c] * ref_at(a->v, j, c);
        for (int64_t c = 0; t->dv.data && c < a->v_dim; c++) row->x[j] += row->dout[c] * ref_at(t->dv, j, c);
        row->dp[j] *= row->keep[j];
        row->x[j] *= row->keep[j]; /* u */
        delta += row->p[j] * row->dp[j];
        m += row->p[j] * row->r[j] * ref_attention_cap_slope(a, row, j);
    }
    for (int64_t j = 0; j < a->kv_len; j++) {
        if (!row->live[j]) continue;
        row->x[j] += row->r[j] * ref_attention_cap_slope(a, row, j) * (row->dp[j] - delta) - m * row->dp[j];
        e += row->p[j] * row->x[j];
    }
    for (int64_t j = 0; j < a->kv_len; j++) {
        if (!row->live[j]) continue;
        double slope = ref_attention_cap_slope(a, row, j), p = row->p[j], ds = p * (row->dp[j] - delta);
        double bend = a->softcap > 0 ? 2 * row->capped[j] / a->softcap / a->softcap : 0;
        row->x[j] = slope * (p * (row->x[j] - e) - bend * ds * row->r[j]);
        row->ds[j] = slope * ds;
        row->dp[j] = p * (row->r[j] * slope - m) * row->keep[j];
    }
}

/* dq_i = scale sum_j x_ij k_j + ds_ij ddk_j */
void ref_attention_second_dq(const ref_attention *a, const ref_attention_grads *g, ref_rows *row, ref_matrix dq) {
    for (int64_t i = 0; i < a->q_len; i++) {
        second_row(a, g, i, row);
        for (int64_t d = 0; d < a->dim; d++) {
            double sum = 0;
            for (int64_t j = 0; j < a->kv_len; j++) {
                if (!row->live[j]) continue;
                sum += row->x[j] * ref_at(a->k, j, d);
                if (g->along.dk.data) sum += row->ds[j] * ref_at(g->along.dk, j, d);
            }
            ref_set(dq, i, d, a->scale * sum);
        }
    }
}

/* dk_j = scale sum_i x_ij q_i + ds_ij ddq_i */
void ref_attention_second_add_dk(const ref_attention *a, const ref_attention_grads *g, ref_rows *row, double *dk) {
    for (int64_t i = 0; i < a->q_len; i++) {
        second_row(a, g, i, row);
        for (int64_t j = 0; j < a->kv_len; j++) {
            if (!row->live[j]) continue;
            for (int64_t d = 0; d < a->dim; d++) {
                dk[j * a->dim + d] += a->scale * row->x[j] * row->q[d];
                if (g->along.dq.data) dk[j * a->dim + d] += a->scale * row->ds[j] * ref_at(g->along.dq, i, d);
            }
        }
    }
}

/* dv_j = sum_i dF/d(dp_ij) keep_ij do_i */
void ref_attention_second_add_dv(const ref_attention *a, const ref_attention_grads *g, ref_rows *row, double *dv) {
    for (int64_t i = 0; i < a->q_len; i++) {
        second_row(a, g, i, row);
        for (int64_t j = 0; j < a->kv_len; j++) {
            if (!row->live[j]) continue;
            for (int64_t c = 0; c < a->v_dim; c++) dv[j * a->v_dim + c] += row->dp[j] * row->dout[c];
        }
    }
}
