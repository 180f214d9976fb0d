/* SPDX-License-Identifier: Apache-2.0 */
/* The softmax family over rows of any strides, after validation: through kernels, or the reference where there are none. */
#ifndef ATTN_SOFTMAX_ROWS_H
#define ATTN_SOFTMAX_ROWS_H

#include "exec.h"
#include "rows.h"

#include "kernels/kernels.h"

/* What becomes of a row of scores z: exp(z - lse), z - lse, lse itself, or dy * scale * exp(z - lse). */
typedef enum score_result { RESULT_SOFTMAX, RESULT_LOG_SOFTMAX, RESULT_LSE, RESULT_LSE_GRADIENT } score_result;

/* In `rows`: the mask and the bias may be absent; OF_ROW is the lse (out) or its gradient (in), one element a row. */
enum { SCORES_X, SCORES_MASK, SCORES_BIAS, SCORES_Y, SCORES_OF_ROW, SCORES_TENSORS };

typedef struct score_job {
    attn_rows rows;
    score_result result;
    double scale;
    bool negate; /* z = -(scale * x + bias) */
} score_job;

attn_status attn_run_scores(const score_job *job, const attn_exec *exec);

/* dx from y and dy; see softmax_kernels.dx. */
enum { GRADIENT_Y, GRADIENT_DY, GRADIENT_DX, GRADIENT_TENSORS };

typedef struct gradient_job {
    attn_rows rows;
    bool logarithmic;
    double scale; /* negative for softmin */
} gradient_job;

attn_status attn_run_gradients(const gradient_job *job, const attn_exec *exec);

#endif
