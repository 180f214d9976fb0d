/* SPDX-License-Identifier: Apache-2.0 */
/* Linear attention by chunks of tokens, for operands of one type that has kernels. */
#ifndef ATTN_LINEAR_ATTENTION_H
#define ATTN_LINEAR_ATTENTION_H

#include "exec.h"
#include "kernels/kernels.h"
#include "tensor.h"

#include <attn/ops.h>

/* Tokens of a chunk, counted from the first token; what the way back keeps states for. */
enum { LINEAR_CHUNK = 64 };

/* A call after validation. Tensors that are not there are zeros. */
typedef struct attn_linear_plan {
    const attn_linear_attention_args *a;
    const attn_linear_attention_grads *g; /* NULL: forward */
    int64_t batch, kv_heads, group, length, key_dim, value_dim;
    bool gated, each, delta; /* each: a decay for each element of the key */
    double scale;
} attn_linear_plan;

attn_need attn_linear_chunks_need(const attn_linear_plan *p, const attn_kernels *k);
attn_need attn_linear_chunks_backward_need(const attn_linear_plan *p, const attn_kernels *k);
/* An item is a head of keys of a batch index. */
void attn_linear_chunks_run(const attn_linear_plan *p, const attn_kernels *k, int64_t n_items, attn_session *session);
void attn_linear_chunks_backward_run(const attn_linear_plan *p, const attn_kernels *k, int64_t n_items, attn_session *session);

#endif
