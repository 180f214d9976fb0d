/* SPDX-License-Identifier: Apache-2.0 */
/* A planned call of any kind, and how it is run: at once, or, where the batch is packed, sequence by sequence. */
#ifndef ATTN_ATTENTION_CALL_H
#define ATTN_ATTENTION_CALL_H

#include "attention_plan.h"
#include "exec.h"

/* The plan, and what a backward, forward mode, the second order or a received mass have beside it; absent tensors where they have
 * nothing. */
typedef struct attn_attention_call {
    attn_attention_plan plan;
    attn_attention_plan_grads grads; /* its `along` is set when the call runs */
    attn_attention_plan_tangents tangents;
    attn_attention_plan_received received;
} attn_attention_call;

/* What one kind of call does: its memory, and the work in a session that has it. Memory grows with q_len and kv_len, or not at
 * all; what answers the call (kernels or the reference) does not depend on them. */
typedef struct attn_attention_kind {
    attn_need (*need)(const attn_attention_call *call);
    void (*run)(const attn_attention_call *call, attn_session *session);
} attn_attention_kind;

/* Bytes of workspace with n_threads. */
size_t attn_attention_call_bytes(const attn_attention_kind *kind, const attn_attention_call *call, int32_t n_threads);
/* Finds the memory and does the work. */
attn_status attn_attention_call_run(const attn_attention_kind *kind, const attn_attention_call *call, const attn_exec *exec);

#endif
