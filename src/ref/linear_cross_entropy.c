/* SPDX-License-Identifier: Apache-2.0 */
/* Linear cross-entropy: logits are worked out where they are needed, one dot product each. */
#include "linear_cross_entropy.h"
#include "cross_entropy.h"
#include "softmax.h"

#include <math.h>

static int64_t label_at(const ref_linear_loss *l, int64_t i) {
    return l->labels.dtype == ATTN_I32 ? ((const int32_t *)l->labels.data)[i * l->labels.stride]
                                       : ((const int64_t *)l->labels.data)[i * l->labels.stride];
}

bool ref_linear_counts(const ref_linear_loss *l, int64_t i) { return l->soft.data || label_at(l, i) != l->ignore_index; }

static double logit(const ref_linear_loss *l, int64_t i, int64_t c) {
    double z = l->bias.data ? ref_get(l->bias, c) : 0;
    for (int64_t d = 0; d < l->dim; d++) z += ref_at(l->x, i, d) * ref_at(l->weight, c, d);
    return z;
}

static ref_target target_of(const ref_linear_loss *l, int64_t i, double *logits) {
    ref_target t = { .classes = l->classes, .weight = l->class_weight, .smoothing = l->smoothing, .z_loss = l->z_loss };
    t.logits = (ref_vector){ logits, 1, ATTN_F64 };
    if (l->soft.data) {
        int64_t size = l->soft.dtype == ATTN_F64 ? 8 : l->soft.dtype == ATTN_F32 ? 4 : 2;
        t.soft = (ref_vector){ (char *)l->soft.data + i * l->soft.row * size, l->soft.col, l->soft.dtype };
    } else {
        t.label = label_at(l, i);
    }
    return t;
}

void ref_linear_loss_of(const ref_linear_loss *l, int64_t i, double *logits, ref_linear_row *row) {
    *row = (ref_linear_row){ 0, 0, 0 };
    if (!ref_linear_counts(l, i)) return;
    for (int64_t c = 0; c < l->classes; c++) logits[c] = logit(l, i, c);
    ref_target t = target_of(l, i, logits);
    row->lse = ref_logsumexp(&(ref_scores){ .n = l->classes, .x = t.logits, .scale = 1, .op = ATTN_LOG_SOFTMAX });
    row->total = 2 * l->z_loss * row->lse;
    for (int64_t c = 0; c < l->classes; c++) row->total += ref_target_at(&t, c);
    row->loss = ref_cross_entropy(&t);
}

/* The gradient to logit c of row i. */
static double slope(const ref_linear_loss *l, int64_t i, int64_t c, ref_linear_row row) {
    ref_target t = target_of(l, i, NULL);
    double p = isfinite(row.lse) ? exp(logit(l, i, c) - row.lse) : NAN;
    return l->factor * (row.total * p - ref_target_at(&t, c));
}

void ref_linear_dx(const ref_linear_loss *l, int64_t i, ref_linear_row row, double *sum, ref_vector dx) {
    for (int64_t d = 0; d < l->dim; d++) sum[d] = 0;
    for (int64_t c = 0; c < l->classes; c++) {
        double dz = slope(l, i, c, row);
        for (int64_t d = 0; d < l->dim; d++) sum[d] += dz * ref_at(l->weight, c, d);
    }
    for (int64_t d = 0; d < l->dim; d++) ref_put(dx, d, sum[d]);
}

void ref_linear_dweight(const ref_linear_loss *l, int64_t c, const ref_linear_row *rows, double *sum, ref_vector dweight,
                        ref_vector dbias) {
    double dz, total = 0;
    for (int64_t d = 0; d < l->dim; d++) sum[d] = 0;
    for (int64_t i = 0; i < l->n; i++) {
        if (!ref_linear_counts(l, i)) continue;
        total += dz = slope(l, i, c, rows[i]);
        for (int64_t d = 0; d < l->dim; d++) sum[d] += dz * ref_at(l->x, i, d);
    }
    for (int64_t d = 0; dweight.data && d < l->dim; d++) ref_put(dweight, d, sum[d]);
    if (dbias.data) ref_put(dbias, c, total);
}
