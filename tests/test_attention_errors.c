/* SPDX-License-Identifier: Apache-2.0 */
/* Every call that attention refuses: with its status, a sentence that names the culprit, and nothing written. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "attention_cases.h"

enum { B = 2, H = 4, L = 3, S = 5, D = 6, DV = 7 };

static attn_attention_args sound(void) { return problem((problem_shape){ B, H, 2, 4, L, S, D, DV }, ATTN_F32, 1); }

static attn_attention_grads sound_grads(const attn_attention_args *a) {
    attn_attention_grads g = { .dout = tensor_of(ATTN_F32, 4, a->out.shape),
                               .dq = tensor_of(ATTN_F32, 4, a->q.shape),
                               .dk = tensor_of(ATTN_F32, 4, a->k.shape),
                               .dv = tensor_of(ATTN_F32, 4, a->v.shape) };
    fill(g.dout, 1);
    return g;
}

static void assert_says(attn_status got, attn_status expected, const char *words) {
    if (got != expected || strstr(attn_last_error(), words) == NULL)
        fail_msg("%s: \"%s\" instead of %s with \"%s\"", attn_status_name(got), attn_last_error(), attn_status_name(expected),
                 words);
}

/* The forward refuses, and `out` does not change. */
static void assert_refused(attn_attention_args a, attn_status expected, const char *words) {
    if (a.out.data) fill(a.out, 42);
    assert_says(attn_attention(&a, NULL), expected, words);
    if (a.out.data) assert_all("out", a.out, 42);
}

/* So does the backward, with the same words. */
static void assert_both_refuse(attn_attention_args a, attn_status expected, const char *words) {
    assert_refused(a, expected, words);
    attn_attention_args usual = sound();
    attn_attention_grads g = sound_grads(&usual);
    fill(g.dq, 43);
    assert_says(attn_attention_backward(&a, &g, NULL), expected, words);
    assert_all("dq", g.dq, 43);
}

static void assert_backward_refuses(const attn_attention_args *a, attn_attention_grads g, attn_status expected,
                                    const char *words) {
    if (g.dv.data) fill(g.dv, 44);
    assert_says(attn_attention_backward(a, &g, NULL), expected, words);
    if (g.dv.data) assert_all("dv", g.dv, 44);
}

/* ---- pointers, reserved words, enumerators ------------------------------------------------------------------------- */

static void null_arguments_are_refused(void **state) {
    (void)state;
    attn_attention_args a = sound();
    attn_attention_grads g = sound_grads(&a);
    assert_says(attn_attention(NULL, NULL), ATTN_BAD_ARGUMENT, "attn_attention_args is NULL");
    assert_says(attn_attention_backward(NULL, &g, NULL), ATTN_BAD_ARGUMENT, "attn_attention_args is NULL");
    assert_says(attn_attention_backward(&a, NULL, NULL), ATTN_BAD_ARGUMENT, "attn_attention_grads is NULL");
    assert_int_equal(attn_attention_workspace(NULL, 1), 0);
    assert_int_equal(attn_attention_backward_workspace(&a, NULL, 1), 0);
}

static void reserved_words_and_unknown_flags_are_refused(void **state) {
    (void)state;
    attn_attention_args a = sound();
    a.reserved[20] = 1;
    assert_both_refuse(a, ATTN_UNSUPPORTED, "reserved word of attn_attention_args");
    a = sound();
    a.see.reserved[0] = 1;
    assert_both_refuse(a, ATTN_UNSUPPORTED, "reserved word of attn_see");
    a = sound();
    attn_attention_grads g = sound_grads(&a);
    g.reserved[7] = 1;
    assert_backward_refuses(&a, g, ATTN_UNSUPPORTED, "reserved word of attn_attention_grads");
    a.flags = 8;
    assert_both_refuse(a, ATTN_UNSUPPORTED, "flags is 0x8");
    a.flags = ATTN_IGNORE_SET;
    assert_both_refuse(a, ATTN_UNSUPPORTED, "flags is 0x4");
}

static void unknown_enumerators_are_refused(void **state) {
    (void)state;
    attn_attention_args a = sound();
    a.score = 3;
    assert_both_refuse(a, ATTN_BAD_ARGUMENT, "score is 3");
    a.score = -1;
    assert_both_refuse(a, ATTN_BAD_ARGUMENT, "score is -1");
    a = sound();
    a.weighting = 8;
    assert_both_refuse(a, ATTN_BAD_ARGUMENT, "weighting is 8");
    a = sound();
    a.causal = 3;
    assert_both_refuse(a, ATTN_BAD_ARGUMENT, "causal is 3");
    a = sound();
    a.see.scores_stage = 3;
    assert_both_refuse(a, ATTN_BAD_ARGUMENT, "scores_stage is 3");
}

static void what_is_not_built_says_so(void **state) {
    (void)state;
    attn_attention_args a = sound();
    a.k = dense_copy(a.k, ATTN_BF16);
    assert_both_refuse(a, ATTN_UNSUPPORTED, "k is bf16 and q is f32: a mixture of dtypes is not built in this version");
}

/* ---- numbers --------------------------------------------------------------------------------------------------------- */

static void numbers_out_of_their_range_are_refused(void **state) {
    (void)state;
    static const double bad_caps[] = { NAN, INFINITY, -1 }, bad_dropouts[] = { NAN, -0.1, 1.5, INFINITY };
    for (int i = 0; i < 2; i++) {
        attn_attention_args a = sound();
        a.scale = i ? INFINITY : NAN;
        assert_both_refuse(a, ATTN_BAD_ARGUMENT, "scale is ");
    }
    for (int i = 0; i < 3; i++) {
        attn_attention_args a = sound();
        a.softcap = bad_caps[i];
        assert_both_refuse(a, ATTN_BAD_ARGUMENT, "softcap is ");
    }
    for (int i = 0; i < 4; i++) {
        attn_attention_args a = sound();
        a.dropout = bad_dropouts[i];
        assert_both_refuse(a, ATTN_BAD_ARGUMENT, "dropout is ");
    }
    attn_attention_args a = sound();
    a.alpha = 1.5;
    assert_both_refuse(a, ATTN_BAD_ARGUMENT, "alpha is 1.5");
    a.alpha = NAN;
    assert_both_refuse(a, ATTN_BAD_ARGUMENT, "alpha is ");
    static const double bad_alphas[] = { NAN, INFINITY, 0.99, -2 };
    a.weighting = ATTN_WEIGHT_ENTMAX;
    for (int i = 0; i < 4; i++) {
        a.alpha = bad_alphas[i];
        assert_both_refuse(a, ATTN_BAD_ARGUMENT, "it is 1 (softmax) or more, and finite");
    }
}

static void a_window_below_minus_1_or_without_its_flag_is_refused(void **state) {
    (void)state;
    attn_attention_args a = sound();
    a.flags = ATTN_WINDOW;
    a.window[0] = -2;
    assert_both_refuse(a, ATTN_BAD_ARGUMENT, "window reaches -2 keys to the left");
    a.window[0] = 0;
    a.window[1] = INT64_MIN;
    assert_both_refuse(a, ATTN_BAD_ARGUMENT, "to the right");
    a.flags = 0;
    a.window[1] = 3;
    assert_both_refuse(a, ATTN_BAD_ARGUMENT, "without the flag ATTN_WINDOW");
}

/* ---- shapes ------------------------------------------------------------------------------------------------------------ */

static void shapes_that_disagree_are_refused_by_name(void **state) {
    (void)state;
    attn_attention_args a = sound();
    a.k = tensor4(ATTN_F32, B, 2, S, D + 1);
    assert_both_refuse(a, ATTN_BAD_SHAPE, "k has head size 7, q has 6");
    a = sound();
    a.k = tensor4(ATTN_F32, B + 1, 2, S, D);
    assert_both_refuse(a, ATTN_BAD_SHAPE, "q has batch 2, k has 3");
    a = sound();
    a.v = tensor4(ATTN_F32, B, 4, S + 1, DV);
    assert_both_refuse(a, ATTN_BAD_SHAPE, "v has 6 keys, k has 5");
    a = sound();
    a.k = tensor4(ATTN_F32, B, 3, S, D);
    assert_both_refuse(a, ATTN_BAD_SHAPE, "k has 3 heads, which do not divide q's 4");
    a = sound();
    a.v = tensor4(ATTN_F32, B, 8, S, DV);
    assert_both_refuse(a, ATTN_BAD_SHAPE, "v has 8 heads, which do not divide q's 4");
    a = sound();
    a.v = tensor4(ATTN_F32, B, 0, S, DV);
    assert_both_refuse(a, ATTN_BAD_SHAPE, "v has 0 heads");
    a = sound();
    a.out = tensor4(ATTN_F32, B, H, L, DV + 1);
    assert_both_refuse(a, ATTN_BAD_SHAPE, "out has shape [2, 4, 3, 8], here it is [2, 4, 3, 7]");
    a = sound();
    a.q.rank = 3;
    assert_both_refuse(a, ATTN_BAD_SHAPE, "q has rank 3");
    a = sound();
    a.v.shape[3] = -1;
    assert_both_refuse(a, ATTN_BAD_SHAPE, "v has a negative extent");
}

static void a_head_size_of_0_is_refused(void **state) {
    (void)state;
    attn_attention_args a = sound();
    a.q = tensor4(ATTN_F32, B, H, L, 0);
    a.k = tensor4(ATTN_F32, B, 2, S, 0);
    assert_both_refuse(a, ATTN_BAD_SHAPE, "q has head size 0");
    a = sound();
    a.v = tensor4(ATTN_F32, B, 4, S, 0);
    a.out = tensor4(ATTN_F32, B, H, L, 0);
    assert_both_refuse(a, ATTN_BAD_SHAPE, "v has head size 0");
}

static void extents_that_overflow_are_refused(void **state) {
    (void)state;
    attn_attention_args a = sound();
    a.q.shape[2] = INT64_MAX / 2;
    assert_both_refuse(a, ATTN_BAD_SHAPE, "q is too large to address");
    a = sound();
    a.k.stride[2] = INT64_MAX;
    assert_both_refuse(a, ATTN_BAD_SHAPE, "k is too large to address");
    a = problem((problem_shape){ 1, 1, 1, 1, 0, 0, 2, 2 }, ATTN_F32, 1);
    a.out.data = NULL;
    a.q.shape[2] = a.out.shape[2] = ((int64_t)1 << 52) + 1;
    a.q.shape[0] = a.k.shape[0] = a.v.shape[0] = a.out.shape[0] = 0;
    assert_both_refuse(a, ATTN_BAD_SHAPE, "q has length 4503599627370497, beyond 2^52");
    a = problem((problem_shape){ 1, 1, 1, 1, 0, 0, 2, 2 }, ATTN_F32, 1);
    a.out.data = NULL;
    a.q.shape[0] = a.k.shape[0] = a.v.shape[0] = a.out.shape[0] = (int64_t)1 << 40;
    a.q.shape[1] = a.out.shape[1] = (int64_t)1 << 40;
    assert_both_refuse(a, ATTN_BAD_SHAPE, "is too large");
}

static void missing_or_misaligned_data_is_refused(void **state) {
    (void)state;
    attn_attention_args a = sound();
    a.v.data = NULL;
    assert_both_refuse(a, ATTN_BAD_ARGUMENT, "v has no data");
    a = sound();
    a.k.data = (char *)a.k.data + 2;
    assert_both_refuse(a, ATTN_BAD_ARGUMENT, "k is not aligned");
    a = sound();
    a.out = (attn_tensor){ 0 };
    assert_refused(a, ATTN_BAD_SHAPE, "out has rank 0"); /* the backward can do without */
}

static void an_output_with_stride_0_is_refused(void **state) {
    (void)state;
    attn_attention_args a = sound();
    a.out.stride[1] = 0;
    assert_says(attn_attention(&a, NULL), ATTN_BAD_ARGUMENT, "out is an output and has stride 0 along axis 1");
    a = sound();
    a.see.received = tensor3(ATTN_F32, B, H, S);
    a.see.received.stride[0] = 0;
    assert_both_refuse(a, ATTN_BAD_ARGUMENT, "see.received is an output");
    a = sound();
    attn_attention_grads g = sound_grads(&a);
    g.dk.stride[2] = 0;
    assert_backward_refuses(&a, g, ATTN_BAD_ARGUMENT, "dk is an output");
}

/* ---- dtypes ------------------------------------------------------------------------------------------------------------- */

static void dtypes_that_do_not_belong_are_refused(void **state) {
    (void)state;
    attn_attention_args a = sound();
    a.q = tensor4(ATTN_I32, B, H, L, D);
    assert_both_refuse(a, ATTN_BAD_ARGUMENT, "q is i32");
    a = sound();
    a.q.dtype = 99;
    assert_both_refuse(a, ATTN_BAD_ARGUMENT, "q has no known dtype (99)");
    a = sound();
    a.out = tensor4(ATTN_F64, B, H, L, DV);
    assert_both_refuse(a, ATTN_BAD_ARGUMENT, "out is f64: here it is f32");
    a = sound();
    a.mask = tensor2(ATTN_F32, L, S);
    assert_both_refuse(a, ATTN_BAD_ARGUMENT, "mask is f32: it is bool");
    a = sound();
    a.bias = tensor2(ATTN_F64, L, S);
    assert_both_refuse(a, ATTN_BAD_ARGUMENT, "bias is f64");
    a = sound();
    a.alibi = tensor1(ATTN_BF16, H);
    assert_both_refuse(a, ATTN_BAD_ARGUMENT, "alibi is bf16");
    a = sound();
    a.kv_lengths = tensor1(ATTN_F32, B);
    assert_both_refuse(a, ATTN_BAD_ARGUMENT, "kv_lengths is f32: it is i32 or i64");
    a = sound();
    a.offset = tensor1(ATTN_U8, B);
    assert_both_refuse(a, ATTN_BAD_ARGUMENT, "offset is u8");
    a = sound();
    a.see.lse = tensor3(ATTN_F64, B, H, L);
    assert_both_refuse(a, ATTN_BAD_ARGUMENT, "see.lse is f64: with q of f32 it is f32");
    a = sound();
    a.see.top_index = tensor4(ATTN_F32, B, H, L, 2);
    assert_both_refuse(a, ATTN_BAD_ARGUMENT, "see.top_index is f32");
    a = sound();
    attn_attention_grads g = sound_grads(&a);
    g.dq = tensor4(ATTN_F64, B, H, L, D);
    assert_backward_refuses(&a, g, ATTN_BAD_ARGUMENT, "dq is f64");
    g = sound_grads(&a);
    g.dout = tensor4(ATTN_BF16, B, H, L, DV);
    assert_backward_refuses(&a, g, ATTN_BAD_ARGUMENT, "dout is bf16");
    g = sound_grads(&a);
    g.dlse = tensor3(ATTN_F64, B, H, L);
    assert_backward_refuses(&a, g, ATTN_BAD_ARGUMENT, "dlse is f64");
}

/* ---- masks, biases, slopes, the additive weight --------------------------------------------------------------------------- */

static void masks_and_biases_that_do_not_broadcast_are_refused(void **state) {
    (void)state;
    attn_attention_args a = sound();
    a.mask = tensor2(ATTN_BOOL, L, S + 1);
    assert_both_refuse(a, ATTN_BAD_SHAPE, "mask has shape [3, 6], which does not broadcast to [2, 4, 3, 5]");
    a = sound();
    a.mask = tensor_of(ATTN_BOOL, 5, (int64_t[]){ 1, 1, 1, L, S });
    assert_both_refuse(a, ATTN_BAD_SHAPE, "mask has rank 5");
    a = sound();
    a.bias = tensor4(ATTN_F32, B, 2, L, S);
    assert_both_refuse(a, ATTN_BAD_SHAPE, "bias has shape [2, 2, 3, 5]");
}

static void slopes_and_additive_weights_of_another_shape_are_refused(void **state) {
    (void)state;
    attn_attention_args a = sound();
    a.alibi = tensor1(ATTN_F32, H - 1);
    assert_both_refuse(a, ATTN_BAD_SHAPE, "alibi has shape [3], here it is [4]");
    a = sound();
    a.alibi = tensor2(ATTN_F32, 1, H);
    assert_both_refuse(a, ATTN_BAD_SHAPE, "alibi has shape [1, 4], here it is [2, 4]");
    a = sound();
    a.score = ATTN_ADDITIVE;
    assert_both_refuse(a, ATTN_BAD_ARGUMENT, "the additive score needs score_weight");
    a.score_weight = tensor1(ATTN_F32, D + 1);
    assert_both_refuse(a, ATTN_BAD_SHAPE, "score_weight has shape [7], here it is [6]");
    a.score_weight = tensor2(ATTN_F32, 2, D);
    assert_both_refuse(a, ATTN_BAD_SHAPE, "score_weight has shape [2, 6], here it is [4, 6]");
    a.score = ATTN_DOT;
    assert_both_refuse(a, ATTN_BAD_ARGUMENT, "score_weight is given, and the score is not additive");
}

static void sinks_of_another_shape_dtype_or_weighting_are_refused(void **state) {
    (void)state;
    attn_attention_args a = sound();
    a.sinks = tensor1(ATTN_F32, H + 1);
    assert_both_refuse(a, ATTN_BAD_SHAPE, "sinks has shape [5], here it is [4]");
    a.sinks = tensor2(ATTN_F32, B, H);
    assert_both_refuse(a, ATTN_BAD_SHAPE, "sinks has rank 2");
    a.sinks = tensor1(ATTN_F64, H);
    assert_both_refuse(a, ATTN_BAD_ARGUMENT, "sinks is f64: here it is f32");
    a.sinks = tensor1(ATTN_F32, H);
    for (int32_t w = ATTN_WEIGHT_SIGMOID; w <= ATTN_WEIGHT_HARDMAX; w++) {
        a.weighting = w;
        assert_both_refuse(a, ATTN_BAD_ARGUMENT, "sinks are given, and only the softmax weighting");
    }
}

/* ---- lengths and offsets -------------------------------------------------------------------------------------------------- */

static void a_length_out_of_range_names_its_entry(void **state) {
    (void)state;
    attn_attention_args a = sound();
    a.kv_lengths = values1(ATTN_I64, B, (double[]){ 5, 6 });
    assert_both_refuse(a, ATTN_BAD_ARGUMENT, "kv_lengths[1] is 6, not a length from 0 to 5");
    a = sound();
    a.q_lengths = values1(ATTN_I32, B, (double[]){ -1, 3 });
    assert_both_refuse(a, ATTN_BAD_ARGUMENT, "q_lengths[0] is -1, not a length from 0 to 3");
    a = sound();
    a.q_lengths = values1(ATTN_I32, 3, (double[]){ 1, 1, 1 });
    assert_both_refuse(a, ATTN_BAD_SHAPE, "q_lengths has shape [3], here it is [2]");
}

static void an_offset_beside_top_left_or_of_another_shape_is_refused(void **state) {
    (void)state;
    attn_attention_args a = sound();
    a.offset = values1(ATTN_I32, 1, (double[]){ 0 });
    a.causal = ATTN_CAUSAL_TOP_LEFT;
    assert_both_refuse(a, ATTN_BAD_ARGUMENT, "an offset is given beside ATTN_CAUSAL_TOP_LEFT");
    a.causal = ATTN_CAUSAL;
    a.offset = values1(ATTN_I32, 3, (double[]){ 0, 0, 0 });
    assert_both_refuse(a, ATTN_BAD_SHAPE, "offset has shape [3]");
    a.offset = values1(ATTN_I64, 2, (double[]){ 0, 0x1p53 });
    assert_both_refuse(a, ATTN_BAD_ARGUMENT, "offset[1] is 9007199254740992, beyond 2^52");
}

/* ---- what is to be seen ------------------------------------------------------------------------------------------------------ */

static void lse_and_entropy_belong_to_weightings_that_have_them(void **state) {
    (void)state;
    for (int32_t w = ATTN_WEIGHT_SIGMOID; w <= ATTN_WEIGHT_HARDMAX; w++) {
        attn_attention_args a = sound();
        a.weighting = w;
        a.see.lse = tensor3(ATTN_F32, B, H, L);
        assert_both_refuse(a, ATTN_BAD_ARGUMENT, "see.lse is asked for");
        a.see = (attn_see){ .entropy = tensor3(ATTN_F32, B, H, L) };
        if (!has_entropy(w)) assert_both_refuse(a, ATTN_BAD_ARGUMENT, "see.entropy is asked for");
        if (has_entropy(w)) attend(&a);
        a.see = (attn_see){ 0 };
        attn_attention_grads g = sound_grads(&a);
        g.dlse = tensor3(ATTN_F32, B, H, L);
        assert_backward_refuses(&a, g, ATTN_BAD_ARGUMENT, "only the softmax weighting has a log-sum-exp");
    }
}

static void seen_tensors_of_another_shape_are_refused(void **state) {
    (void)state;
    attn_attention_args a = sound();
    a.see.lse = tensor3(ATTN_F32, B, H, L + 1);
    assert_both_refuse(a, ATTN_BAD_SHAPE, "see.lse has shape [2, 4, 4], here it is [2, 4, 3]");
    a.see = (attn_see){ .received = tensor3(ATTN_F32, B, H, L) };
    assert_both_refuse(a, ATTN_BAD_SHAPE, "see.received has shape [2, 4, 3], here it is [2, 4, 5]");
    a.see = (attn_see){ .weights = tensor4(ATTN_F32, B, H, S, L) };
    assert_both_refuse(a, ATTN_BAD_SHAPE, "see.weights has shape");
    a.see = (attn_see){ .scores = tensor4(ATTN_F32, B, 1, L, S) };
    assert_both_refuse(a, ATTN_BAD_SHAPE, "see.scores has shape");
    a.see = (attn_see){ .top_index = tensor4(ATTN_I32, B, H, L, 2), .top_weight = tensor4(ATTN_F32, B, H, L, 3) };
    assert_both_refuse(a, ATTN_BAD_SHAPE, "see.top_weight has shape [2, 4, 3, 3], here it is [2, 4, 3, 2]");
}

/* ---- gradients ------------------------------------------------------------------------------------------------------------------ */

static void gradients_of_what_is_not_given_are_refused(void **state) {
    (void)state;
    attn_attention_args a = sound();
    attn_attention_grads g = sound_grads(&a);
    g.dbias = tensor2(ATTN_F32, L, S);
    assert_backward_refuses(&a, g, ATTN_BAD_ARGUMENT, "dbias is asked for, and there is no bias");
    g = sound_grads(&a);
    g.dalibi = tensor1(ATTN_F32, H);
    assert_backward_refuses(&a, g, ATTN_BAD_ARGUMENT, "dalibi is asked for, and there is no alibi");
    g = sound_grads(&a);
    g.dsinks = tensor1(ATTN_F32, H);
    assert_backward_refuses(&a, g, ATTN_BAD_ARGUMENT, "dsinks is asked for, and there is no sink");
    g = sound_grads(&a);
    g.dalpha = tensor1(ATTN_F32, 1);
    assert_backward_refuses(&a, g, ATTN_BAD_ARGUMENT, "dalpha is asked for, and the weighting is not alpha-entmax");
    attn_attention_args e = a;
    e.weighting = ATTN_WEIGHT_ENTMAX;
    g.dalpha = tensor1(ATTN_BF16, 1);
    assert_backward_refuses(&e, g, ATTN_BAD_ARGUMENT, "dalpha is bf16: it is f32 or f64");
    g.dalpha = tensor1(ATTN_F32, 2);
    assert_backward_refuses(&e, g, ATTN_BAD_SHAPE, "dalpha has shape [2], here it is [1]");
    g = sound_grads(&a);
    g.dscore_weight = tensor1(ATTN_F32, D);
    assert_backward_refuses(&a, g, ATTN_BAD_ARGUMENT, "dscore_weight is asked for, and there is no score_weight");
    g = sound_grads(&a);
    g.dout = (attn_tensor){ 0 };
    assert_backward_refuses(&a, g, ATTN_BAD_ARGUMENT, "dout is missing");
}

static void gradients_of_another_shape_are_refused(void **state) {
    (void)state;
    attn_attention_args a = sound();
    a.bias = tensor2(ATTN_F32, L, S);
    a.score = ATTN_ADDITIVE;
    a.score_weight = tensor1(ATTN_F32, D);
    attn_attention_grads g = sound_grads(&a);
    g.dq = tensor4(ATTN_F32, B, H, L, D + 1);
    assert_backward_refuses(&a, g, ATTN_BAD_SHAPE, "dq has shape [2, 4, 3, 7], here it is [2, 4, 3, 6]");
    g = sound_grads(&a);
    g.dk = tensor4(ATTN_F32, B, H, S, D);
    assert_backward_refuses(&a, g, ATTN_BAD_SHAPE, "dk has shape [2, 4, 5, 6], here it is [2, 2, 5, 6]");
    g = sound_grads(&a);
    g.dbias = tensor2(ATTN_F32, L, 2);
    assert_backward_refuses(&a, g, ATTN_BAD_SHAPE, "dbias has shape [3, 2]");
    g = sound_grads(&a);
    g.dscore_weight = tensor1(ATTN_F32, 1);
    assert_backward_refuses(&a, g, ATTN_BAD_SHAPE, "dscore_weight has size 1, q has head size 6");
    g = sound_grads(&a);
    g.dout = tensor4(ATTN_F32, B, H, L, DV + 1);
    assert_backward_refuses(&a, g, ATTN_BAD_SHAPE, "dout has shape");
    g = sound_grads(&a);
    g.dlse = tensor3(ATTN_F32, B, H, S);
    assert_backward_refuses(&a, g, ATTN_BAD_SHAPE, "dlse has shape");
}

/* ---- execution ---------------------------------------------------------------------------------------------------------------------- */

static void a_bad_exec_is_refused(void **state) {
    (void)state;
    attn_attention_args a = sound();
    fill(a.out, 42);
    assert_says(attn_attention(&a, &(attn_exec){ .n_threads = -1 }), ATTN_BAD_ARGUMENT, "n_threads -1");
    assert_says(attn_attention(&a, &(attn_exec){ .n_threads = 2 }), ATTN_BAD_ARGUMENT, "no parallel_for");
    assert_all("out", a.out, 42);
}

static void success_leaves_the_last_error_as_it_was(void **state) {
    (void)state;
    attn_attention_args a = sound(), bad = a;
    bad.causal = 9;
    assert_int_equal(attn_attention(&bad, NULL), ATTN_BAD_ARGUMENT);
    attend(&a);
    assert_string_equal(attn_last_error(), "causal is 9: no such mask");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(null_arguments_are_refused, free_blocks),
        cmocka_unit_test_teardown(reserved_words_and_unknown_flags_are_refused, free_blocks),
        cmocka_unit_test_teardown(unknown_enumerators_are_refused, free_blocks),
        cmocka_unit_test_teardown(what_is_not_built_says_so, free_blocks),
        cmocka_unit_test_teardown(numbers_out_of_their_range_are_refused, free_blocks),
        cmocka_unit_test_teardown(a_window_below_minus_1_or_without_its_flag_is_refused, free_blocks),
        cmocka_unit_test_teardown(shapes_that_disagree_are_refused_by_name, free_blocks),
        cmocka_unit_test_teardown(a_head_size_of_0_is_refused, free_blocks),
        cmocka_unit_test_teardown(extents_that_overflow_are_refused, free_blocks),
        cmocka_unit_test_teardown(missing_or_misaligned_data_is_refused, free_blocks),
        cmocka_unit_test_teardown(an_output_with_stride_0_is_refused, free_blocks),
        cmocka_unit_test_teardown(dtypes_that_do_not_belong_are_refused, free_blocks),
        cmocka_unit_test_teardown(masks_and_biases_that_do_not_broadcast_are_refused, free_blocks),
        cmocka_unit_test_teardown(slopes_and_additive_weights_of_another_shape_are_refused, free_blocks),
        cmocka_unit_test_teardown(sinks_of_another_shape_dtype_or_weighting_are_refused, free_blocks),
        cmocka_unit_test_teardown(a_length_out_of_range_names_its_entry, free_blocks),
        cmocka_unit_test_teardown(an_offset_beside_top_left_or_of_another_shape_is_refused, free_blocks),
        cmocka_unit_test_teardown(lse_and_entropy_belong_to_weightings_that_have_them, free_blocks),
        cmocka_unit_test_teardown(seen_tensors_of_another_shape_are_refused, free_blocks),
        cmocka_unit_test_teardown(gradients_of_what_is_not_given_are_refused, free_blocks),
        cmocka_unit_test_teardown(gradients_of_another_shape_are_refused, free_blocks),
        cmocka_unit_test_teardown(a_bad_exec_is_refused, free_blocks),
        cmocka_unit_test_teardown(success_leaves_the_last_error_as_it_was, free_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
