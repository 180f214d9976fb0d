/* SPDX-License-Identifier: Apache-2.0 */
/* The softmax family over rows of any strides, after validation: through kernels, or the reference where there are none. */
#ifndef ATTN_SOFTMAX_ROWS_H
#define ATTN_SOFTMAX_ROWS_H

#include "exec.h"
#include "rows.h"

#include "kernels/kernels.h"

/* What becomes of a row of scores z: exp(z - lse), z - lse, lse itself, dy * scale * exp(z - lse), the sum of
 * dx * scale * exp(z - lse), alpha-entmax, or the softmax of (z + noise) / temperature. */
typedef enum score_result {
    RESULT_SOFTMAX,
    RESULT_LOG_SOFTMAX,
    RESULT_LSE,
    RESULT_LSE_GRADIENT,
    RESULT_LSE_TANGENT,
    RESULT_ENTMAX,
    RESULT_GUMBEL
} score_result;

/* In `rows`: the mask and the bias may be absent; OF_ROW is the lse or its tangent (out) or its gradient (in), one element a row;
 * TANGENT is that of x, for RESULT_LSE_TANGENT. */
enum { SCORES_X, SCORES_MASK, SCORES_BIAS, SCORES_Y, SCORES_OF_ROW, SCORES_TANGENT, SCORES_TENSORS };

typedef struct score_job {
    attn_rows rows; /* RESULT_GUMBEL: numbered */
    score_result result;
    double scale;
    bool negate;  /* z = -(scale * x + bias) */
    double alpha; /* RESULT_ENTMAX: above 1 */
    double temperature;
    uint64_t seed;
    bool hard; /* RESULT_GUMBEL: 1 at the first largest */
} score_job;

/* How many dense rows of n elements make a work item: a multiple of `unit`. */
int64_t attn_rows_per_item(int64_t n, int64_t unit);

attn_status attn_run_scores(const score_job *job, const attn_exec *exec);

/* dx from y and dy: of the gradient, or of a tangent dy from y and dx. */
enum { GRADIENT_Y, GRADIENT_DY, GRADIENT_DX, GRADIENT_TENSORS };

typedef struct gradient_job {
    attn_rows rows;
    attn_slope slope; /* see softmax_kernels.dx */
    double scale;     /* negative for softmin */
    double alpha;     /* of entmax, above 1: see entmax_kernels.support_dx. 0: of softmax */
} gradient_job;

attn_status attn_run_gradients(const gradient_job *job, const attn_exec *exec);

/* d(loss)/d(alpha) of entmax, summed over rows in row-major order, so that strides do not matter either. The tensors were checked. */
attn_status attn_run_dalpha(double alpha, const attn_tensor *y, const attn_tensor *dy, double *dalpha, const attn_exec *exec);

#endif
