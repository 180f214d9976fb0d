/* SPDX-License-Identifier: Apache-2.0 */
/* attn softmax --op top-k and --op sample: what is chosen, along an axis of an array or of a row of numbers. */
#include <stdio.h>
#include <stdlib.h>

#include "message.h"
#include "softmax.h"

bool softmax_chooses(const softmax_settings *s) { return s->op.value == OP_TOP_K || s->op.value == OP_SAMPLE; }

static attn_top_k_softmax_args router_args(const softmax_settings *s, const attn_tensor *bias) {
    return (attn_top_k_softmax_args){ .order = s->order.value, /* in the order of ATTN_SOFTMAX_TOP_K, ... */
                                      .flags = s->scale.given ? ATTN_SCALE_SET : 0,
                                      .scale = s->scale.value,
                                      .normalize = s->normalize,
                                      .bias = *bias };
}

static attn_sample_args sample_args(const softmax_settings *s) {
    return (attn_sample_args){ .temperature = s->temperature.given ? s->temperature.value : 1,
                               .top_k = s->top_k.value,
                               .top_p = s->top_p.value,
                               .min_p = s->min_p.value,
                               .seed = s->seed.value };
}

static int route(const attn_top_k_softmax_args *args, const attn_exec *exec) {
    attn_status status = attn_top_k_softmax(args, exec);
    return status ? fail_status(status, "top-k") : IO_OK;
}

static int draw(const attn_sample_args *args, const attn_exec *exec) {
    attn_status status = attn_sample(args, exec);
    return status ? fail_status(status, "sample") : IO_OK;
}

int softmax_choose(const softmax_settings *s, const attn_tensor *x, int32_t axis, const attn_tensor *bias, outputs *out,
                   const attn_exec *exec) {
    const bool samples = s->op.value == OP_SAMPLE;
    const char *beside = samples ? s->probability : s->index;
    int64_t shape[ATTN_MAX_RANK];
    int32_t rank = 0;
    attn_tensor first, second = { 0 };
    for (int32_t i = 0; i < x->rank; i++)
        if (i != axis)
            shape[rank++] = x->shape[i];
        else if (!samples)
            shape[rank++] = s->top_k.value;
    int failed = outputs_add(out, "-o", s->out, samples ? ATTN_I32 : x->dtype, rank, shape, &first);
    if (!failed && beside)
        failed =
            outputs_add(out, samples ? "--probability" : "--index", beside, samples ? x->dtype : ATTN_I32, rank, shape, &second);
    if (failed) return failed;
    if (samples) {
        attn_sample_args args = sample_args(s);
        args.logits = attn_axis_last(*x, axis);
        args.index = first;
        args.probability = second;
        return draw(&args, exec);
    }
    attn_top_k_softmax_args args = router_args(s, bias);
    outputs unwritten = { 0 }; /* the index, where nobody asks for it */
    if (!beside) failed = outputs_add(&unwritten, "the index", NULL, ATTN_I32, rank, shape, &second);
    args.logits = attn_axis_last(*x, axis);
    args.weight = attn_axis_last(first, axis);
    args.index = attn_axis_last(second, axis);
    if (!failed) failed = route(&args, exec);
    outputs_free(&unwritten);
    return failed;
}

/* expert:weight for each, the first choice first. */
static int route_row(const softmax_settings *s, const attn_tensor *x, const attn_tensor *bias, text *out, const attn_exec *exec) {
    int64_t n = x->shape[0], k = s->top_k.value < n ? s->top_k.value : n;
    int64_t *index = calloc((size_t)k + 1, sizeof *index);
    double *weight = calloc((size_t)k + 1, sizeof *weight);
    attn_top_k_softmax_args args = router_args(s, bias);
    args.logits = *x;
    args.index = attn_dense(ATTN_I64, index, 1, &k);
    args.weight = attn_dense(ATTN_F64, weight, 1, &k);
    int failed = index && weight ? route(&args, exec) : fail(IO_NO_ROOM, "out of memory: %lld choices", (long long)k);
    for (int64_t i = 0; i < k && !failed && index[i] >= 0; i++) {
        char digits[64];
        int length = snprintf(digits, sizeof digits, "%s%lld:%.9g", i ? " " : "", (long long)index[i], weight[i]);
        text_add_bytes(out, digits, (size_t)length);
    }
    if (!failed) text_add(out, "\n");
    free(index);
    free(weight);
    return failed;
}

int softmax_choose_row(const softmax_settings *s, const attn_tensor *x, const attn_tensor *bias, size_t number, text *out,
                       const attn_exec *exec) {
    if (s->op.value == OP_TOP_K) return route_row(s, x, bias, out, exec);
    int64_t index = -1;
    double probability = 0;
    attn_sample_args args = sample_args(s);
    args.seed += number - 1; /* a draw of its own for each line */
    args.logits = *x;
    args.index = attn_dense(ATTN_I64, &index, 0, NULL);
    args.probability = attn_dense(ATTN_F64, &probability, 0, NULL);
    int failed = draw(&args, exec);
    char digits[64];
    int length = snprintf(digits, sizeof digits, "%lld %.9g\n", (long long)index, probability);
    if (!failed) text_add_bytes(out, digits, (size_t)length);
    return failed;
}
