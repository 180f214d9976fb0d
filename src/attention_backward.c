/* SPDX-License-Identifier: Apache-2.0 */
/* attn_attention_backward, and the backward's own: check, then let the blocked kernels answer, or the reference where they do not
 * reach. The second order is a backward along directions, through the same blocks. */
#include "attention_blocks.h"
#include "attention_call.h"
#include "attention_reference.h"

static attn_need need(const attn_attention_call *c) {
    return attn_blocks_cover_backward(&c->plan, &c->grads) ? attn_blocks_backward_need(&c->plan, &c->grads)
                                                           : attn_reference_backward_need(&c->plan, &c->grads);
}

static void run(const attn_attention_call *c, attn_session *session) {
    if (attn_blocks_cover_backward(&c->plan, &c->grads))
        attn_blocks_backward(&c->plan, &c->grads, session);
    else
        attn_reference_backward(&c->plan, &c->grads, session);
}

static const attn_attention_kind backward = { need, run };

size_t attn_attention_backward_workspace(const attn_attention_args *a, const attn_attention_grads *g, int32_t n_threads) {
    attn_attention_call call = { 0 };
    if (attn_attention_plan_backward(&call.plan, &call.grads, a, g, ATTN_PLAN_QUESTION) != ATTN_OK) return 0;
    return attn_attention_call_bytes(&backward, &call, n_threads);
}

attn_status attn_attention_backward(const attn_attention_args *a, const attn_attention_grads *g, const attn_exec *exec) {
    attn_attention_call call = { 0 };
    attn_status s = attn_attention_plan_backward(&call.plan, &call.grads, a, g, ATTN_PLAN_CALL);
    return s ? s : attn_attention_call_run(&backward, &call, exec);
}

size_t attn_attention_double_backward_workspace(const attn_attention_args *a, const attn_attention_double_grads *g,
                                                int32_t n_threads) {
    attn_attention_call call = { 0 };
    if (attn_attention_plan_double_backward(&call.plan, &call.grads, &call.tangents, a, g, ATTN_PLAN_QUESTION) != ATTN_OK)
        return 0;
    return attn_attention_call_bytes(&backward, &call, n_threads);
}

attn_status attn_attention_double_backward(const attn_attention_args *a, const attn_attention_double_grads *g,
                                           const attn_exec *exec) {
    attn_attention_call call = { 0 };
    attn_status s = attn_attention_plan_double_backward(&call.plan, &call.grads, &call.tangents, a, g, ATTN_PLAN_CALL);
    return s ? s : attn_attention_call_run(&backward, &call, exec);
}
