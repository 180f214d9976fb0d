/* SPDX-License-Identifier: Apache-2.0 */
/* Checks an attention call to the last option before anything is written, and fills in the plan. Every refusal is a sentence
 * that names the tensor or field, what it holds and what it should hold. */
#include "attention_check.h"
#include "exec.h"
#include "status.h"

#include <inttypes.h>
#include <math.h>

/* Positions beyond would not be exact in a double, and sums of them could overflow. */
static const int64_t furthest = (int64_t)1 << 52;

/* ---- options --------------------------------------------------------------------------------------------- */

static attn_status check_score_and_weighting(const attn_attention_args *a) {
    if (a->score < ATTN_DOT || a->score > ATTN_COSINE)
        return attn_fail(ATTN_BAD_ARGUMENT, "score is %d: no such score", (int)a->score);
    if (a->weighting < ATTN_WEIGHT_SOFTMAX || a->weighting > ATTN_WEIGHT_HARDMAX)
        return attn_fail(ATTN_BAD_ARGUMENT, "weighting is %d: no such weighting", (int)a->weighting);
    if (a->causal < ATTN_NOT_CAUSAL || a->causal > ATTN_CAUSAL_TOP_LEFT)
        return attn_fail(ATTN_BAD_ARGUMENT, "causal is %d: no such mask", (int)a->causal);
    return ATTN_OK;
}

static attn_status check_numbers(const attn_attention_args *a) {
    if (!isfinite(a->scale)) return attn_fail(ATTN_BAD_ARGUMENT, "scale is %g, not a finite number", a->scale);
    if (!isfinite(a->softcap) || a->softcap < 0)
        return attn_fail(ATTN_BAD_ARGUMENT, "softcap is %g: it is a finite number above 0, or 0 for none", a->softcap);
    if (a->weighting == ATTN_WEIGHT_ENTMAX && a->alpha != 0 && !(isfinite(a->alpha) && a->alpha >= 1))
        return attn_fail(ATTN_BAD_ARGUMENT, "alpha is %g: it is 1 (softmax) or more, and finite", a->alpha);
    if (a->weighting != ATTN_WEIGHT_ENTMAX && a->alpha != 0)
        return attn_fail(ATTN_BAD_ARGUMENT, "alpha is %g: it belongs to the weighting alpha-entmax alone", a->alpha);
    if (!(a->dropout >= 0 && a->dropout <= 1))
        return attn_fail(ATTN_BAD_ARGUMENT, "dropout is %g, not a probability from 0 to 1", a->dropout);
    return ATTN_OK;
}

static attn_status check_options(const attn_attention_args *a) {
    attn_status s;
    if (a->flags & ~(uint32_t)(ATTN_SCALE_SET | ATTN_WINDOW))
        return attn_fail(ATTN_UNSUPPORTED, "flags is 0x%x: attention knows ATTN_SCALE_SET and ATTN_WINDOW", (unsigned)a->flags);
    if ((s = attn_check_reserved("attn_attention_args", a->reserved, sizeof a->reserved / sizeof *a->reserved)) ||
        (s = attn_check_reserved("attn_see", a->see.reserved, sizeof a->see.reserved / sizeof *a->see.reserved)) ||
        (s = check_score_and_weighting(a)))
        return s;
    return check_numbers(a);
}

static attn_status plan_window(attn_attention_plan *p, const attn_attention_args *a) {
    static const char *const side[] = { "left", "right" };
    bool windowed = a->flags & ATTN_WINDOW;
    for (int i = 0; i < 2; i++) {
        if (!windowed && a->window[i] != 0) return attn_fail(ATTN_BAD_ARGUMENT, "window is given without the flag ATTN_WINDOW");
        if (windowed && a->window[i] < -1)
            return attn_fail(ATTN_BAD_ARGUMENT, "window reaches %" PRId64 " keys to the %s: it is 0 or more, or -1 for unbounded",
                             a->window[i], side[i]);
    }
    p->left = windowed && a->window[0] < 4 * furthest ? a->window[0] : -1;
    p->right = windowed && a->window[1] < 4 * furthest ? a->window[1] : -1;
    if (a->causal != ATTN_NOT_CAUSAL) p->right = 0;
    return ATTN_OK;
}

/* ---- dtypes ---------------------------------------------------------------------------------------------- */

/* The one place that says which dtypes q, k and v have. */
static attn_status check_input_dtypes(const attn_attention_args *a) {
    const attn_tensor *inputs[] = { &a->q, &a->k, &a->v };
    for (int i = 0; i < 3; i++) {
        if (!attn_dtype_is_float(inputs[i]->dtype))
            return attn_fail(ATTN_BAD_ARGUMENT, "%c is %s: it is f32, f64, bf16 or f16", "qkv"[i],
                             attn_dtype_name(inputs[i]->dtype));
        if (inputs[i]->dtype != a->q.dtype)
            return attn_fail(ATTN_UNSUPPORTED, "%c is %s and q is %s: a mixture of dtypes is not built in this version", "qkv"[i],
                             attn_dtype_name(inputs[i]->dtype), attn_dtype_name(a->q.dtype));
    }
    return ATTN_OK;
}

/* ---- shapes ---------------------------------------------------------------------------------------------- */

static attn_status check_extents(const attn_attention_plan *p) {
    int64_t n_heads;
    if (p->k.shape[0] != p->batch || p->v.shape[0] != p->batch)
        return attn_fail(ATTN_BAD_SHAPE, "q has batch %" PRId64 ", k has %" PRId64 " and v has %" PRId64, p->batch, p->k.shape[0],
                         p->v.shape[0]);
    if (p->k.shape[3] != p->dim)
        return attn_fail(ATTN_BAD_SHAPE, "k has head size %" PRId64 ", q has %" PRId64, p->k.shape[3], p->dim);
    if (p->v.shape[2] != p->kv_len)
        return attn_fail(ATTN_BAD_SHAPE, "v has %" PRId64 " keys, k has %" PRId64, p->v.shape[2], p->kv_len);
    if (p->dim < 1 || p->v_dim < 1)
        return attn_fail(ATTN_BAD_SHAPE, "%s has head size 0: it is at least 1", p->dim < 1 ? "q" : "v");
    if (p->q_len > furthest || p->kv_len > furthest)
        return attn_fail(ATTN_BAD_SHAPE, "%s has length %" PRId64 ", beyond 2^52", p->q_len > furthest ? "q" : "k",
                         p->q_len > furthest ? p->q_len : p->kv_len);
    if (__builtin_mul_overflow(p->batch, p->heads, &n_heads))
        return attn_fail(ATTN_BAD_SHAPE, "batch %" PRId64 " times %" PRId64 " heads is too large", p->batch, p->heads);
    return ATTN_OK;
}

/* Query heads per key or value head. */
static attn_status plan_group(const char *name, int64_t heads, int64_t own, int64_t *group) {
    *group = own ? heads / own : 1;
    if (own ? heads % own != 0 : heads != 0)
        return attn_fail(ATTN_BAD_SHAPE, "%s has %" PRId64 " heads, which do not divide q's %" PRId64, name, own, heads);
    return ATTN_OK;
}

/* 1 / sqrt(dim), the same whatever the caller's rounding. The volatiles keep the computation between entering and leaving. */
static double one_over_root(int64_t dim) {
    unsigned caller = attn_fp_enter();
    volatile double size = (double)dim, scale = 1 / sqrt(size);
    attn_fp_leave(caller);
    return scale;
}

/* The same for the survivors' factor. */
static attn_dropout_rule dropout_rule(const attn_attention_args *a) {
    unsigned caller = attn_fp_enter();
    volatile double p = a->dropout;
    volatile attn_dropout_rule rule = attn_dropout_rule_of(p, a->seed, a->dropout_offset);
    attn_fp_leave(caller);
    return rule;
}

static double alpha_of(const attn_attention_args *a) {
    switch (a->weighting) {
    case ATTN_WEIGHT_SPARSEMAX: return 2;
    case ATTN_WEIGHT_ENTMAX15: return 1.5;
    case ATTN_WEIGHT_ENTMAX: return a->alpha == 0 ? 1.5 : a->alpha;
    default: return 0;
    }
}

static attn_status plan_inputs(attn_attention_plan *p, const attn_attention_args *a) {
    attn_status s;
    if ((s = attn_check_tensor("q", &a->q, 4, 4)) || (s = attn_check_tensor("k", &a->k, 4, 4)) ||
        (s = attn_check_tensor("v", &a->v, 4, 4)) || (s = check_input_dtypes(a)))
        return s;
    p->q = a->q;
    p->k = a->k;
    p->v = a->v;
    p->batch = p->entries = a->q.shape[0];
    p->heads = a->q.shape[1];
    p->k_heads = a->k.shape[1];
    p->v_heads = a->v.shape[1];
    p->q_len = a->q.shape[2];
    p->kv_len = a->k.shape[2];
    p->dim = a->q.shape[3];
    p->v_dim = a->v.shape[3];
    if ((s = check_extents(p)) || (s = plan_group("k", p->heads, p->k_heads, &p->k_group)) ||
        (s = plan_group("v", p->heads, p->v_heads, &p->v_group)))
        return s;
    p->scale = a->scale;
    if (a->scale == 0 && !(a->flags & ATTN_SCALE_SET)) p->scale = a->score == ATTN_DOT ? one_over_root(p->dim) : 1;
    return ATTN_OK;
}

static attn_status plan_out(attn_attention_plan *p, const attn_tensor *out) {
    attn_status s;
    if ((s = attn_check_output("out", out, 4, 4)) || (s = check_dtype_or_f32("out", out, p->q.dtype)) ||
        (s = check_shape("out", out, 4, (const int64_t[]){ p->batch, p->heads, p->q_len, p->v_dim })))
        return s;
    p->out = *out;
    return ATTN_OK;
}

static attn_status plan_mask_and_bias(attn_attention_plan *p, const attn_attention_args *a) {
    attn_status s;
    const int64_t scores[] = { p->batch, p->heads, p->q_len, p->kv_len };
    if (attn_present(&a->mask)) {
        if ((s = attn_check_tensor("mask", &a->mask, 0, 4))) return s;
        if (a->mask.dtype != ATTN_BOOL)
            return attn_fail(ATTN_BAD_ARGUMENT,
                             "mask is %s: it is bool, true where a query may attend (floats to add are a bias)",
                             attn_dtype_name(a->mask.dtype));
        if ((s = attn_broadcast("mask", &a->mask, 4, scores, &p->mask))) return s;
    }
    if (attn_present(&a->bias)) {
        if ((s = attn_check_tensor("bias", &a->bias, 0, 4)) || (s = check_dtype_or_f32("bias", &a->bias, p->q.dtype)) ||
            (s = attn_broadcast("bias", &a->bias, 4, scores, &p->bias)))
            return s;
    }
    return ATTN_OK;
}

static attn_status plan_block_mask(attn_attention_plan *p, const attn_attention_args *a) {
    enum { DEFAULT_BLOCK = 128 };
    attn_status s;
    if (!attn_present(&a->block_mask)) {
        if (a->block_size == 0) return ATTN_OK;
        return attn_fail(ATTN_BAD_ARGUMENT, "block_size is given without a block_mask");
    }
    if (a->block_size < 0)
        return attn_fail(ATTN_BAD_ARGUMENT, "block_size is %" PRId64 ": it is 1 or more, or 0 for %d", a->block_size,
                         DEFAULT_BLOCK);
    int64_t n = a->block_size ? a->block_size : DEFAULT_BLOCK;
    const int64_t blocks[] = { p->batch, p->heads, p->q_len / n + (p->q_len % n != 0), p->kv_len / n + (p->kv_len % n != 0) };
    if ((s = attn_check_tensor("block_mask", &a->block_mask, 0, 4))) return s;
    if (a->block_mask.dtype != ATTN_BOOL)
        return attn_fail(ATTN_BAD_ARGUMENT, "block_mask is %s: it is bool, true where the queries of a block may attend",
                         attn_dtype_name(a->block_mask.dtype));
    p->block_size = n;
    return attn_broadcast("block_mask", &a->block_mask, 4, blocks, &p->block_mask);
}

/* `t` of shape [columns] or [rows, columns], seen as the latter. */
static attn_status plan_rows(const char *name, const attn_tensor *t, const int64_t shape[2], int32_t input_dtype,
                             attn_tensor *view) {
    attn_status s;
    if ((s = attn_check_tensor(name, t, 1, 2)) || (s = check_dtype_or_f32(name, t, input_dtype)) ||
        (s = check_shape(name, t, t->rank, shape + (2 - t->rank))))
        return s;
    return attn_broadcast(name, t, 2, shape, view);
}

static attn_status plan_alibi_and_score_weight(attn_attention_plan *p, const attn_attention_args *a) {
    attn_status s;
    if (attn_present(&a->alibi) &&
        (s = plan_rows("alibi", &a->alibi, (const int64_t[]){ p->entries, p->heads }, p->q.dtype, &p->alibi)))
        return s;
    if (a->score != ATTN_ADDITIVE) {
        if (!attn_present(&a->score_weight)) return ATTN_OK;
        return attn_fail(ATTN_BAD_ARGUMENT, "score_weight is given, and the score is not additive");
    }
    if (!attn_present(&a->score_weight))
        return attn_fail(ATTN_BAD_ARGUMENT, "the additive score needs score_weight, [dim] or [heads, dim]");
    return plan_rows("score_weight", &a->score_weight, (const int64_t[]){ p->heads, p->dim }, p->q.dtype, &p->score_weight);
}

static attn_status plan_sinks(attn_attention_plan *p, const attn_attention_args *a) {
    attn_status s;
    if (!attn_present(&a->sinks)) return ATTN_OK;
    if (a->weighting != ATTN_WEIGHT_SOFTMAX)
        return attn_fail(ATTN_BAD_ARGUMENT, "sinks are given, and only the softmax weighting has a denominator for them");
    if ((s = attn_check_tensor("sinks", &a->sinks, 1, 1)) || (s = check_dtype_or_f32("sinks", &a->sinks, p->q.dtype)) ||
        (s = check_shape("sinks", &a->sinks, 1, &p->heads)))
        return s;
    p->sinks = a->sinks;
    return ATTN_OK;
}

/* ---- lengths and offsets --------------------------------------------------------------------------------- */

static attn_status plan_lengths(const char *name, const attn_tensor *t, int64_t batch, int64_t longest, attn_plan_purpose purpose,
                                attn_tensor *view) {
    attn_status s;
    if (!attn_present(t)) return ATTN_OK;
    if ((s = attn_check_tensor(name, t, 1, 1)) || (s = check_integer(name, t)) || (s = check_shape(name, t, 1, &batch))) return s;
    for (int64_t b = 0; purpose == ATTN_PLAN_CALL && b < batch; b++) {
        int64_t length = attn_int_at(t, b * t->stride[0]);
        if (length < 0 || length > longest)
            return attn_fail(ATTN_BAD_ARGUMENT, "%s[%" PRId64 "] is %" PRId64 ", not a length from 0 to %" PRId64, name, b,
                             length, longest);
    }
    *view = *t;
    return ATTN_OK;
}

/* Where the sequences of a packed batch begin: entries + 1 numbers, from 0 to `total`, none below the one before. */
static attn_status check_starts(const char *name, const attn_tensor *t, int64_t total, attn_plan_purpose purpose) {
    attn_status s;
    if ((s = attn_check_tensor(name, t, 1, 1)) || (s = check_integer(name, t))) return s;
    if (t->shape[0] < 1)
        return attn_fail(ATTN_BAD_SHAPE, "%s is empty: it has one number for each sequence, and one for the end", name);
    int64_t n = t->shape[0], before = 0;
    for (int64_t b = 0; purpose == ATTN_PLAN_CALL && b < n; b++) {
        int64_t start = attn_int_at(t, b * t->stride[0]);
        if (b == 0 ? start != 0 : start < before)
            return attn_fail(ATTN_BAD_ARGUMENT, "%s[%" PRId64 "] is %" PRId64 ": %s", name, b, start,
                             b == 0 ? "the first is 0" : "it is below the one before");
        before = start;
    }
    if (purpose == ATTN_PLAN_CALL && before != total)
        return attn_fail(ATTN_BAD_ARGUMENT, "%s[%" PRId64 "] is %" PRId64 ": the last is the total, here %" PRId64, name, n - 1,
                         before, total);
    return ATTN_OK;
}

/* What has no meaning, or is not built, where sequences stand one behind the other. */
static attn_status check_packed(const attn_attention_args *a) {
    const attn_tensor *const lengths[] = { &a->q_lengths, &a->kv_lengths };
    const attn_tensor *const maps[] = { &a->mask, &a->block_mask, &a->bias, &a->see.weights, &a->see.scores, &a->see.pooled };
    static const char *const names[] = { "mask", "block_mask", "bias", "see.weights", "see.scores", "see.pooled" };
    for (int i = 0; i < 2; i++)
        if (attn_present(lengths[i]))
            return attn_fail(ATTN_BAD_ARGUMENT, "%c_lengths is given beside q_starts, which say how long sequences are", "qk"[i]);
    for (size_t i = 0; i < sizeof maps / sizeof *maps; i++)
        if (attn_present(maps[i]))
            return attn_fail(ATTN_UNSUPPORTED,
                             "%s is given beside q_starts: of packed batches, maps over rows and keys are not built", names[i]);
    if (a->q.shape[0] != 1)
        return attn_fail(ATTN_BAD_SHAPE,
                         "q has batch %" PRId64 " and q_starts is given: a packed batch has shape [1, heads, total, dim]",
                         a->q.shape[0]);
    return ATTN_OK;
}

static attn_status plan_starts(attn_attention_plan *p, const attn_attention_args *a, attn_plan_purpose purpose) {
    attn_status s;
    bool q = attn_present(&a->q_starts), kv = attn_present(&a->kv_starts);
    const attn_tensor *kv_starts = kv ? &a->kv_starts : &a->q_starts;
    if (!q && kv) return attn_fail(ATTN_BAD_ARGUMENT, "kv_starts is given without q_starts");
    if (!q) return ATTN_OK;
    if ((s = check_packed(a)) || (s = check_starts("q_starts", &a->q_starts, p->q_len, purpose))) return s;
    if (!kv && p->kv_len != p->q_len)
        return attn_fail(ATTN_BAD_SHAPE,
                         "q has %" PRId64 " rows and k %" PRId64 " keys in all: kv_starts is needed beside q_starts", p->q_len,
                         p->kv_len);
    if (kv && (s = check_starts("kv_starts", kv_starts, p->kv_len, purpose))) return s;
    if (kv_starts->shape[0] != a->q_starts.shape[0])
        return attn_fail(ATTN_BAD_SHAPE, "kv_starts has %" PRId64 " numbers, q_starts %" PRId64, kv_starts->shape[0],
                         a->q_starts.shape[0]);
    p->q_starts = a->q_starts;
    p->kv_starts = *kv_starts;
    p->starts_known = purpose == ATTN_PLAN_CALL;
    p->entries = a->q_starts.shape[0] - 1;
    return ATTN_OK;
}

static attn_status plan_offset(attn_attention_plan *p, const attn_attention_args *a, attn_plan_purpose purpose) {
    attn_status s;
    p->top_left = a->causal == ATTN_CAUSAL_TOP_LEFT;
    if (!attn_present(&a->offset)) return ATTN_OK;
    if (p->top_left) return attn_fail(ATTN_BAD_ARGUMENT, "an offset is given beside ATTN_CAUSAL_TOP_LEFT, which means offset 0");
    if ((s = attn_check_tensor("offset", &a->offset, 0, 1)) || (s = check_integer("offset", &a->offset)) ||
        (s = attn_broadcast("offset", &a->offset, 1, &p->entries, &p->offset)))
        return s;
    for (int64_t b = 0; purpose == ATTN_PLAN_CALL && b < p->entries; b++) {
        int64_t offset = attn_int_at(&p->offset, b * p->offset.stride[0]);
        if (offset < -furthest || offset > furthest)
            return attn_fail(ATTN_BAD_ARGUMENT, "offset[%" PRId64 "] is %" PRId64 ", beyond 2^52", b, offset);
    }
    return ATTN_OK;
}

/* ---- the whole call -------------------------------------------------------------------------------------- */

/* In a question, data that is not there yet is stood in for by an address that passes the checks and is never read. */
void attn_plan_stand_in(attn_tensor *t) {
    static _Alignas(64) char nothing[64];
    if (t->rank > 0 && t->data == NULL) t->data = nothing;
}

attn_attention_args attn_plan_stood_in(const attn_attention_args *a) {
    attn_attention_args with = *a;
    attn_tensor *all[] = { &with.q,
                           &with.k,
                           &with.v,
                           &with.out,
                           &with.score_weight,
                           &with.offset,
                           &with.mask,
                           &with.bias,
                           &with.block_mask,
                           &with.alibi,
                           &with.q_lengths,
                           &with.kv_lengths,
                           &with.q_starts,
                           &with.kv_starts,
                           &with.sinks,
                           &with.see.lse,
                           &with.see.entropy,
                           &with.see.received,
                           &with.see.weights,
                           &with.see.scores,
                           &with.see.top_index,
                           &with.see.top_weight,
                           &with.see.pooled };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) attn_plan_stand_in(all[i]);
    return with;
}

attn_status attn_plan_call(attn_attention_plan *p, const attn_attention_args *a, bool needs_out, attn_plan_purpose purpose) {
    attn_status s;
    *p = (attn_attention_plan){ .score = a->score, .weighting = a->weighting, .softcap = a->softcap };
    if ((s = check_options(a)) || (s = plan_window(p, a)) || (s = plan_inputs(p, a)) || (s = plan_starts(p, a, purpose)))
        return s;
    p->dropout = dropout_rule(a);
    p->alpha = alpha_of(a);
    if ((needs_out || attn_present(&a->out)) && (s = plan_out(p, &a->out))) return s;
    if ((s = plan_mask_and_bias(p, a)) || (s = plan_block_mask(p, a)) || (s = plan_alibi_and_score_weight(p, a)) ||
        (s = plan_sinks(p, a)) || (s = plan_lengths("q_lengths", &a->q_lengths, p->batch, p->q_len, purpose, &p->q_lengths)) ||
        (s = plan_lengths("kv_lengths", &a->kv_lengths, p->batch, p->kv_len, purpose, &p->kv_lengths)) ||
        (s = plan_offset(p, a, purpose)))
        return s;
    return attn_plan_see(p, &a->see, purpose);
}

attn_status attn_attention_plan_forward(attn_attention_plan *plan, const attn_attention_args *a, attn_plan_purpose purpose) {
    if (a == NULL) return attn_fail(ATTN_BAD_ARGUMENT, "attn_attention_args is NULL");
    attn_attention_args with = purpose == ATTN_PLAN_QUESTION ? attn_plan_stood_in(a) : *a;
    return attn_plan_call(plan, &with, true, purpose);
}

/* ---- heads as rows --------------------------------------------------------------------------------------- */

/* [batch, heads, 1, ...] as [batch, heads / group, group, ...]; an absent tensor stays absent. */
static void split_heads(attn_tensor *t, int64_t group) {
    if (!t->rank) return;
    t->shape[1] /= group;
    t->shape[2] = group;
    t->stride[2] = t->stride[1];
    t->stride[1] *= group;
}

attn_attention_plan attn_plan_heads_as_rows(const attn_attention_plan *plan) {
    attn_attention_plan p = *plan;
    const int64_t group = p.k_group;
    /* what belongs to a head, or is summed over its rows, and maps */
    bool by_head = p.alibi.rank || (p.block_mask.rank && p.block_mask.stride[1] != 0) || p.dropout.on || p.score_weight.rank ||
                   p.received.rank || p.weights.rank || p.scores.rank || p.pooled.rank;
    if (p.q_len != 1 || group <= 1 || group != p.v_group || by_head) return p;
    attn_tensor *const all[] = { &p.q, &p.out, &p.mask, &p.bias, &p.lse, &p.entropy, &p.top_index, &p.top_weight };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) split_heads(all[i], group);
    p.block_mask.stride[2] = 0;
    p.heads = p.k_heads;
    p.k_group = p.v_group = 1;
    p.q_len = p.heads_in_rows = group;
    return p;
}
