/* SPDX-License-Identifier: Apache-2.0 */
/* Linear cross-entropy by blocks, for operands of one type that has kernels. */
#ifndef ATTN_LINEAR_CROSS_ENTROPY_H
#define ATTN_LINEAR_CROSS_ENTROPY_H

#include "exec.h"
#include "kernels/kernels.h"
#include "loss.h"

/* A call after validation. */
typedef struct attn_linear_loss {
    attn_loss loss; /* its logits have no data */
    int64_t dim;
    attn_tensor x, weight, bias;    /* bias may be absent */
    attn_tensor dx, dweight, dbias; /* each may be absent */
} attn_linear_loss;

attn_need attn_linear_blocks_need(const attn_linear_loss *p, const attn_kernels *k);
/* Writes loss and gradients. */
void attn_linear_blocks_run(const attn_linear_loss *p, const attn_kernels *k, attn_session *session);

#endif
