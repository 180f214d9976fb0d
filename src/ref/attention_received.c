/* SPDX-License-Identifier: Apache-2.0 */
/* What keys receive: a row of numbers times the weights,
 *
 *     received_j = sum_i by_i p_ij        or, with gradients dp_ij = keep_ij dout_i . v_j, sum_i by_i p_ij dp_ij
 *
 * A query that counts 0 is skipped, whatever its weights are; a key that it does not see counts 0. */
#include "attention.h"

/* d(loss)/d(p_ij): o_i = sum_j keep_ij p_ij v_j. */
static double weight_gradient(const ref_attention *a, const ref_attention_received *r, int64_t i, int64_t j, double keep) {
    double sum = 0;
    for (int64_t c = 0; c < a->v_dim; c++) sum += ref_at(r->dout, i, c) * ref_at(a->v, j, c);
    return keep * sum;
}

static void receive_row(const ref_attention *a, const ref_attention_received *r, int64_t i, double by, ref_rows *row,
                        double *sums) {
    ref_attention_scores(a, i, row);
    ref_weigh(&a->weighting, a->kv_len, row->live, row->s, row->p);
    for (int64_t j = 0; j < a->kv_len; j++) {
        if (!row->live[j]) continue;
        double x = row->p[j];
        if (r->dout.data) x *= weight_gradient(a, r, i, j, row->keep[j]);
        if (r->positive && x < 0) x = 0; /* NaN stays */
        sums[j] += by * x;
    }
}

void ref_attention_receive(const ref_attention *a, const ref_attention_received *r, ref_rows *row, double *sums) {
    for (int64_t j = 0; j < a->kv_len; j++) sums[j] = 0;
    for (int64_t i = 0; i < a->q_len; i++) {
        double by = r->by.data ? ref_get(r->by, i) : 1;
        if (by != 0) receive_row(a, r, i, by, row, sums);
    }
    for (int64_t j = 0; j < a->kv_len; j++) ref_put(r->received, j, sums[j]);
}
