/* SPDX-License-Identifier: Apache-2.0 */
/* attn_attention: check, then let the blocked kernels answer, or the reference where they do not reach. */
#include "attention_blocks.h"
#include "attention_call.h"
#include "attention_reference.h"

static size_t most(size_t a, size_t b) { return a > b ? a : b; }

/* Heads as rows may be more blocks than the rows are; of a packed batch some sequence may have one query, however long others are. */
static attn_need need(const attn_attention_call *c) {
    if (!attn_blocks_cover(&c->plan)) return attn_reference_need(&c->plan);
    attn_attention_plan one = c->plan;
    one.q_len = 1;
    one = attn_plan_heads_as_rows(&one);
    attn_need rows = attn_blocks_need(&c->plan), heads = attn_blocks_need(&one);
    return (attn_need){ most(rows.shared, heads.shared), most(rows.per_worker, heads.per_worker) };
}

static void run(const attn_attention_call *c, attn_session *session) {
    if (attn_blocks_cover(&c->plan)) {
        attn_attention_plan plan = attn_plan_heads_as_rows(&c->plan);
        attn_blocks_forward(&plan, session);
    } else {
        attn_reference_forward(&c->plan, session);
    }
}

static const attn_attention_kind forward = { need, run };

size_t attn_attention_workspace(const attn_attention_args *a, int32_t n_threads) {
    attn_attention_call call = { 0 };
    if (attn_attention_plan_forward(&call.plan, a, ATTN_PLAN_QUESTION) != ATTN_OK) return 0;
    return attn_attention_call_bytes(&forward, &call, n_threads);
}

attn_status attn_attention(const attn_attention_args *a, const attn_exec *exec) {
    attn_attention_call call = { 0 };
    attn_status s = attn_attention_plan_forward(&call.plan, a, ATTN_PLAN_CALL);
    return s ? s : attn_attention_call_run(&forward, &call, exec);
}
