/* SPDX-License-Identifier: Apache-2.0 */
/* Checks what an attention call is to let its caller see: the part of the plan that is about attn_see. */
#include "attention_check.h"

#include <inttypes.h>

static attn_status plan_top_k(attn_attention_plan *p, const attn_see *see) {
    attn_status s;
    bool index = attn_present(&see->top_index), weight = attn_present(&see->top_weight);
    const attn_tensor *first = index ? &see->top_index : &see->top_weight;
    if (!index && !weight) return ATTN_OK;
    if ((s = attn_check_output(index ? "see.top_index" : "see.top_weight", first, 4, 4))) return s;
    p->top_k = first->shape[3];
    const int64_t shape[] = { p->batch, p->heads, p->q_len, p->top_k };
    if (index) {
        if ((s = check_integer("see.top_index", &see->top_index)) ||
            (s = check_shape("see.top_index", &see->top_index, 4, shape)))
            return s;
        if (see->top_index.dtype == ATTN_I32 && p->kv_len > INT32_MAX)
            return attn_fail(ATTN_BAD_ARGUMENT, "see.top_index is i32, which cannot count %" PRId64 " keys", p->kv_len);
        p->top_index = see->top_index;
    }
    return plan_seen("see.top_weight", &see->top_weight, p->q.dtype, 4, shape, &p->top_weight);
}

/* Edges of blocks are products of two such numbers. */
static attn_status plan_pooled(attn_attention_plan *p, const attn_see *see) {
    const attn_tensor *t = &see->pooled;
    if (!attn_present(t)) return ATTN_OK;
    if (t->rank == 4 && (t->shape[2] > INT32_MAX || t->shape[3] > INT32_MAX))
        return attn_fail(ATTN_BAD_ARGUMENT, "see.pooled has %" PRId64 " x %" PRId64 " blocks: it is at most 2^31 - 1 either way",
                         t->shape[2], t->shape[3]);
    const int64_t shape[] = { p->batch, p->heads, t->shape[2], t->shape[3] };
    return plan_seen("see.pooled", t, p->q.dtype, 4, shape, &p->pooled);
}

/* Are a row's weights shares of 1? */
static bool shares_out(int32_t weighting) {
    return weighting != ATTN_WEIGHT_SIGMOID && weighting != ATTN_WEIGHT_NORMALIZED_SUM && weighting != ATTN_WEIGHT_RELU2;
}

/* The rows or heads whose maps are to be seen. A question has only to know how many. */
static attn_status plan_list(const char *name, const int64_t *index, int64_t n, int64_t extent, attn_plan_purpose purpose,
                             attn_index_list *list) {
    *list = (attn_index_list){ .index = index, .n = index || n ? n : extent };
    if (n < 0) return attn_fail(ATTN_BAD_ARGUMENT, "see.n_%s is %" PRId64 ": it is 0 or more", name, n);
    if (n > 0 && !index && purpose == ATTN_PLAN_CALL)
        return attn_fail(ATTN_BAD_ARGUMENT, "see.n_%s is %" PRId64 ", and see.%s is NULL", name, n, name);
    for (int64_t i = 0; purpose == ATTN_PLAN_CALL && index && i < n; i++)
        if (index[i] < 0 || index[i] >= extent)
            return attn_fail(ATTN_BAD_ARGUMENT, "see.%s[%" PRId64 "] is %" PRId64 ": it is from 0 to %" PRId64, name, i, index[i],
                             extent - 1);
    return ATTN_OK;
}

static attn_status check_no_head_twice(const attn_index_list *heads, attn_plan_purpose purpose) {
    for (int64_t i = 0; purpose == ATTN_PLAN_CALL && heads->index && i < heads->n; i++)
        for (int64_t j = 0; j < i; j++)
            if (heads->index[i] == heads->index[j])
                return attn_fail(ATTN_BAD_ARGUMENT, "see.heads[%" PRId64 "] and see.heads[%" PRId64 "] are both %" PRId64, j, i,
                                 heads->index[i]);
    return ATTN_OK;
}

attn_status attn_plan_see(attn_attention_plan *p, const attn_see *see, attn_plan_purpose purpose) {
    attn_status s;
    const int64_t rows[] = { p->batch, p->heads, p->q_len }, keys[] = { p->batch, p->heads, p->kv_len };
    if (p->weighting != ATTN_WEIGHT_SOFTMAX && attn_present(&see->lse))
        return attn_fail(ATTN_BAD_ARGUMENT, "see.lse is asked for, and only the softmax weighting has a log-sum-exp");
    if (!shares_out(p->weighting) && attn_present(&see->entropy))
        return attn_fail(ATTN_BAD_ARGUMENT,
                         "see.entropy is asked for, and is not defined for this weighting: its weights need not "
                         "be shares of 1");
    if (see->scores_stage < ATTN_STAGE_WEIGHTED || see->scores_stage > ATTN_STAGE_RAW)
        return attn_fail(ATTN_BAD_ARGUMENT, "see.scores_stage is %d: no such stage", (int)see->scores_stage);
    p->scores_stage = see->scores_stage;
    if ((s = plan_list("rows", see->rows, see->n_rows, p->q_len, purpose, &p->seen_rows)) ||
        (s = plan_list("heads", see->heads, see->n_heads, p->heads, purpose, &p->seen_heads)) ||
        (s = check_no_head_twice(&p->seen_heads, purpose)))
        return s;
    const int64_t map[] = { p->batch, p->seen_heads.n, p->seen_rows.n, p->kv_len };
    if ((s = plan_seen("see.lse", &see->lse, p->q.dtype, 3, rows, &p->lse)) ||
        (s = plan_seen("see.entropy", &see->entropy, p->q.dtype, 3, rows, &p->entropy)) ||
        (s = plan_seen("see.received", &see->received, p->q.dtype, 3, keys, &p->received)) ||
        (s = plan_seen("see.weights", &see->weights, p->q.dtype, 4, map, &p->weights)) ||
        (s = plan_seen("see.scores", &see->scores, p->q.dtype, 4, map, &p->scores)))
        return s;
    return (s = plan_pooled(p, see)) ? s : plan_top_k(p, see);
}
