/* SPDX-License-Identifier: Apache-2.0 */
/* Attention over some keys and attention over others are attention over all of them:
 *
 *     m = max_i lse_i    w_i = exp(lse_i - m)    out = sum_i w_i out_i / sum_i w_i    lse = m + log sum_i w_i
 *
 * A part whose lse is -inf saw no key: it is skipped, never multiplied by 0. */
#include "merge.h"

#include <math.h>
#include <stdbool.h>

double ref_merge_max(int64_t n, ref_part_at at, const void *context) {
    double max = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        double lse = at(context, i).lse;
        if (isnan(lse)) return lse;
        if (lse > max) max = lse;
    }
    return max;
}

static ref_merged merged(int64_t n, ref_part_at at, const void *context) {
    ref_merged row = { .max = ref_merge_max(n, at, context) };
    for (int64_t i = 0; row.max != -INFINITY && i < n; i++) row.sum += exp(at(context, i).lse - row.max);
    return row;
}

/* Infinite scores have an infinite lse, and no shares. */
double ref_merge_lse(ref_merged row) { return isinf(row.max) ? row.max : row.max + log(row.sum); }

static double share(ref_merged row, double lse) { return exp(lse - row.max) / row.sum; }

void ref_merge_row(int64_t n, int64_t v_dim, ref_part_at at, const void *context, ref_vector out, ref_vector lse) {
    ref_merged row = merged(n, at, context);
    for (int64_t c = 0; c < v_dim; c++) {
        double sum = 0;
        for (int64_t i = 0; i < n; i++) {
            ref_part part = at(context, i);
            if (part.lse != -INFINITY) sum += share(row, part.lse) * ref_get(part.out, c);
        }
        ref_put(out, c, sum);
    }
    if (lse.data) ref_put(lse, 0, ref_merge_lse(row));
}

/* ---- backward: dout_i = p_i dout, dlse_i = p_i (dout . (out_i - out) + dlse), with p_i the share of part i --------------- */

static double inner(int64_t n, ref_vector x, ref_vector y) {
    double sum = 0;
    for (int64_t c = 0; c < n; c++) sum += ref_get(x, c) * ref_get(y, c);
    return sum;
}

void ref_merge_row_backward(int64_t n, int64_t v_dim, ref_part_at at, const void *context, ref_vector dout, double dlse) {
    ref_merged row = merged(n, at, context);
    double mean = 0; /* dout . out */
    for (int64_t i = 0; i < n; i++) {
        ref_part part = at(context, i);
        if (part.lse != -INFINITY) mean += share(row, part.lse) * inner(v_dim, dout, part.out);
    }
    for (int64_t i = 0; i < n; i++) {
        ref_part part = at(context, i);
        bool counts = part.lse != -INFINITY;
        double p = counts ? share(row, part.lse) : 0;
        if (part.dlse.data) ref_put(part.dlse, 0, counts ? p * (inner(v_dim, dout, part.out) - mean + dlse) : 0);
        for (int64_t c = 0; part.dout.data && c < v_dim; c++) ref_put(part.dout, c, counts ? p * ref_get(dout, c) : 0);
    }
}
