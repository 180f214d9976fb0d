/* SPDX-License-Identifier: Apache-2.0 */
/* Matrix products and sums over rows: the definition. */
#include "ops.h"

static double dot(const ref_product *p, int64_t i, int64_t j) {
    double sum = 0;
    for (int64_t t = 0; t < p->k; t++) sum += ref_at(p->a, i, t) * ref_at(p->b, t, j);
    return sum;
}

void ref_matmul(const ref_product *p) {
    for (int64_t i = 0; i < p->m; i++) {
        for (int64_t j = 0; j < p->n; j++) {
            double y = dot(p, i, j);
            if (p->bias.data) y += ref_get(p->bias, j);
            if (p->before.data) ref_set(p->before, i, j, y);
            y = ref_activation(p->activation, y);
            if (p->residual.data) y += ref_at(p->residual, i, j);
            if (p->accumulate) y += ref_at(p->c, i, j);
            ref_set(p->c, i, j, y);
        }
    }
}

void ref_sum_rows(int64_t m, int64_t n, ref_matrix x, ref_vector y, bool accumulate) {
    for (int64_t j = 0; j < n; j++) {
        double sum = accumulate ? ref_get(y, j) : 0;
        for (int64_t i = 0; i < m; i++) sum += ref_at(x, i, j);
        ref_put(y, j, sum);
    }
}
