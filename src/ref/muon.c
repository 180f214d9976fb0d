/* SPDX-License-Identifier: Apache-2.0 */
/* One step of Muon (Jordan et al. 2024): the definition. */
#include "muon.h"

#include <math.h>

/* square [n, n] = x x^T, x [n, cols] */
static void square_of(int64_t n, int64_t cols, const double *x, double *square) {
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t k = 0; k < cols; k++) sum += x[i * cols + k] * x[j * cols + k];
            square[i * n + j] = sum;
        }
}

/* y = series x, y and x [n, cols] */
static void product_of(int64_t n, int64_t cols, const double *series, const double *x, double *y) {
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < cols; j++) {
            double sum = 0;
            for (int64_t k = 0; k < n; k++) sum += series[i * n + k] * x[k * cols + j];
            y[i * cols + j] = sum;
        }
}

/* The same map for every singular value, whichever side the square is taken on: a matrix needs no turning here. */
static void newton_schulz(int64_t n, int64_t cols, double *x, double *y, double *square, double *series) {
    square_of(n, cols, x, square);
    product_of(n, n, square, square, series);
    for (int64_t i = 0; i < n * n; i++) series[i] = REF_MUON_B * square[i] + REF_MUON_C * series[i];
    for (int64_t i = 0; i < n; i++) series[i * n + i] += REF_MUON_A;
    product_of(n, cols, series, x, y);
    for (int64_t i = 0; i < n * cols; i++) x[i] = y[i];
}

void ref_muon_step(const ref_muon *o, int64_t rows, int64_t cols, ref_matrix param, ref_matrix m, ref_matrix gradient,
                   double *room) {
    double *x = room, *y = x + rows * cols, *square = y + rows * cols, *series = square + rows * rows, squares = 0;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++) {
            double g = o->grad_scale * ref_at(gradient, i, j);
            double now = o->momentum * ref_at(m, i, j) + (1 - o->momentum) * g;
            ref_set(m, i, j, now);
            x[i * cols + j] = o->momentum * now + (1 - o->momentum) * g;
            squares += x[i * cols + j] * x[i * cols + j];
        }
    for (int64_t i = 0; i < rows * cols; i++) x[i] /= fmax(sqrt(squares), REF_MUON_EPSILON);
    for (int i = 0; i < REF_MUON_STEPS; i++) newton_schulz(rows, cols, x, y, square, series);
    double step = o->lr * REF_MUON_RMS * sqrt((double)(rows > cols ? rows : cols));
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++)
            ref_set(param, i, j, (1 - o->lr * o->weight_decay) * ref_at(param, i, j) - step * x[i * cols + j]);
}
