/* SPDX-License-Identifier: Apache-2.0 */
/* What a call lets its caller see: log-sum-exp, entropy, received mass, top-k, whole weights, and scores at three stages. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "attention_bounds.h"

enum { B = 2, H = 3, L = 10, S = 21 };

/* A causal, biased, capped problem whose first rows are fully masked, with everything seen. */
static attn_attention_args seen(int32_t dtype, int64_t top_k) {
    attn_attention_args a = problem((problem_shape){ B, H, 3, 1, L, S, 8, 4 }, dtype, 5);
    uint64_t seed = 6;
    a.bias = tensor2(accumulator(dtype), L, S);
    fill_normal(a.bias, &seed);
    a.causal = ATTN_CAUSAL;
    a.offset = values1(ATTN_I32, B, (double[]){ -2, 9 });
    a.softcap = 2;
    a.see = see_all(&a, top_k);
    return a;
}

static void weights_are_what_out_is_mixed_with(void **state) {
    (void)state;
    attn_attention_args a = seen(ATTN_F64, 1);
    attend(&a);
    for (int64_t n = 0; n < B * H * L * 4; n++) {
        int64_t b = n / (H * L * 4), h = n / (L * 4) % H, i = n / 4 % L, c = n % 4;
        double mix = 0;
        for (int64_t j = 0; j < S; j++) mix += get4(a.see.weights, b, h, i, j) * get4(a.v, b, 0, j, c);
        assert_close(get(a.out, n), mix, 1e-14);
    }
}

static void softmax_weights_are_exp_of_scores_minus_lse_and_sum_to_1(void **state) {
    (void)state;
    attn_attention_args a = seen(ATTN_F64, 1);
    attend(&a);
    for (int64_t row = 0; row < B * H * L; row++) {
        double lse = get(a.see.lse, row), sum = 0;
        for (int64_t j = 0; j < S; j++) {
            double p = get(a.see.weights, row * S + j);
            if (lse == -INFINITY)
                assert_true(p == 0);
            else
                assert_close(p, exp(get(a.see.scores, row * S + j) - lse), 1e-14);
            sum += p;
        }
        assert_close(sum, lse == -INFINITY ? 0 : 1, 1e-14);
    }
}

static void entropy_is_minus_sum_p_ln_p_in_nats(void **state) {
    (void)state;
    attn_attention_args a = seen(ATTN_F64, 1);
    attend(&a);
    for (int64_t row = 0; row < B * H * L; row++) {
        double entropy = 0;
        for (int64_t j = 0; j < S; j++) {
            double p = get(a.see.weights, row * S + j);
            if (p > 0) entropy -= p * log(p);
        }
        assert_close(get(a.see.entropy, row), entropy, 1e-13);
    }
}

static void entropy_does_not_cancel_where_one_key_takes_all(void **state) {
    (void)state;
    for (int32_t dtype = ATTN_F32; dtype <= ATTN_F64; dtype += ATTN_F64 - ATTN_F32) {
        attn_attention_args a = problem((problem_shape){ 1, 1, 1, 1, 1, 2, 1, 1 }, dtype, 1);
        double gap = 30, p = exp(-gap);
        fill(a.q, 1);
        put(a.k, 0, gap);
        put(a.k, 1, 0);
        a.scale = 1;
        a.see = see_all(&a, 1);
        attend(&a);
        assert_close(get(a.see.entropy, 0), p * (1 + gap), p * (1 + gap) * (dtype == ATTN_F64 ? 1e-2 : 1));
        assert_true(get(a.see.entropy, 0) >= 0);
    }
}

static void uniform_weights_have_the_entropy_of_their_count(void **state) {
    (void)state;
    attn_attention_args a = problem((problem_shape){ 1, 1, 1, 1, 2, 50, 4, 1 }, ATTN_F32, 1);
    a.flags = ATTN_SCALE_SET;
    a.see = see_all(&a, 1);
    attend(&a);
    assert_close(get(a.see.entropy, 1), log(50), 1e-6);
    assert_close(get(a.see.lse, 0), log(50), 1e-6);
}

static void received_is_the_weight_each_key_got_summed_over_queries(void **state) {
    (void)state;
    for (int32_t w = ATTN_WEIGHT_SOFTMAX; w <= ATTN_WEIGHT_NORMALIZED_SUM; w++) {
        attn_attention_args a = seen(ATTN_F64, 1);
        a.weighting = w;
        a.see = see_all(&a, 1);
        attend(&a);
        for (int64_t n = 0; n < B * H * S; n++) {
            double sum = 0;
            for (int64_t i = 0; i < L; i++) sum += get(a.see.weights, (n / S * L + i) * S + n % S);
            assert_close(get(a.see.received, n), sum, 1e-12 * (1 + fabs(sum)));
        }
    }
}

static void received_mass_sums_to_the_number_of_live_rows(void **state) {
    (void)state;
    attn_attention_args a = seen(ATTN_F32, 1);
    attend(&a);
    for (int64_t head = 0; head < B * H; head++) {
        double sum = 0;
        for (int64_t j = 0; j < S; j++) sum += get(a.see.received, head * S + j);
        assert_close(sum, head < H ? L - 2 : L, 1e-4);
    }
}

static void top_k_is_chosen_on_scores_largest_first(void **state) {
    (void)state;
    enum { K = 6 };
    attn_attention_args a = seen(ATTN_F64, K);
    attend(&a);
    for (int64_t row = 0; row < B * H * L; row++) {
        double last = INFINITY;
        for (int64_t r = 0; r < K; r++) {
            int64_t j = (int64_t)get(a.see.top_index, row * K + r);
            double s = j < 0 ? -INFINITY : get(a.see.scores, row * S + j);
            int64_t above = 0, live = 0;
            for (int64_t n = 0; n < S; n++) {
                above += get(a.see.scores, row * S + n) > s;
                live += get(a.see.scores, row * S + n) > -INFINITY;
            }
            assert_true(j < 0 ? r >= live : above == r);
            assert_true(s <= last);
            last = s;
            assert_close(get(a.see.top_weight, row * K + r), j < 0 ? 0 : get(a.see.weights, row * S + j), 1e-15);
        }
    }
}

static void ties_in_the_top_k_go_to_the_lower_key(void **state) {
    (void)state;
    static const double scores[] = { 1, 3, 1, 3, 2, 3, 1, 1 }, order[] = { 1, 3, 5, 4, 0, 2, 6, 7, -1, -1 };
    for (int32_t dtype = ATTN_F32; dtype <= ATTN_F64; dtype += ATTN_F64 - ATTN_F32) {
        attn_attention_args a = problem((problem_shape){ 1, 1, 1, 1, 1, 8, 1, 1 }, dtype, 1);
        fill(a.q, 1);
        for (int64_t j = 0; j < 8; j++) put(a.k, j, scores[j]);
        a.scale = 1;
        a.see.top_index = tensor4(ATTN_I64, 1, 1, 1, 10);
        a.see.top_weight = tensor4(dtype, 1, 1, 1, 10);
        attend(&a);
        for (int64_t r = 0; r < 10; r++) assert_true(get(a.see.top_index, r) == order[r]);
        assert_true(get(a.see.top_weight, 9) == 0);
    }
}

static void top_index_and_top_weight_may_be_asked_for_alone(void **state) {
    (void)state;
    attn_attention_args a = seen(ATTN_F32, 4), b = a;
    attend(&a);
    b.see = (attn_see){ .top_weight = tensor4(ATTN_F32, B, H, L, 4) };
    attend(&b);
    assert_same_bits("top_weight", b.see.top_weight, a.see.top_weight);
    b.see = (attn_see){ .top_index = tensor4(ATTN_I64, B, H, L, 4) };
    attend(&b);
    for (int64_t n = 0; n < B * H * L * 4; n++) assert_true(get(b.see.top_index, n) == get(a.see.top_index, n));
}

static void scores_are_seen_raw_capped_or_as_they_enter_the_weighting(void **state) {
    (void)state;
    for (int32_t stage = ATTN_STAGE_WEIGHTED; stage <= ATTN_STAGE_RAW; stage++) {
        attn_attention_args a = seen(ATTN_F64, 1);
        a.see = (attn_see){ .scores = tensor4(ATTN_F64, B, H, L, S), .scores_stage = stage };
        attend(&a);
        for (int64_t n = 0; n < B * H * L * S; n++) {
            int64_t b = n / (H * L * S), h = n / (L * S) % H, i = n / S % L, j = n % S;
            double raw = 0;
            for (int64_t d = 0; d < 8; d++) raw += get4(a.q, b, h, i, d) * get4(a.k, b, h, j, d) / sqrt(8);
            double capped = 2 * tanh(raw / 2), offset = get(a.offset, b);
            double weighted = (double)j <= (double)i + offset ? capped + get(a.bias, i * S + j) : -INFINITY;
            double expected = stage == ATTN_STAGE_RAW ? raw : stage == ATTN_STAGE_CAPPED ? capped : weighted;
            assert_close(get(a.see.scores, n), expected, 1e-14);
        }
    }
}

static void what_is_seen_is_within_the_published_bounds(void **state) {
    (void)state;
    attn_attention_args a = seen(ATTN_F32, 5), exact = in_f64(a);
    exact.see = see_all(&exact, 5);
    attend(&a);
    attend_by_reference(&exact);
    assert_within_published_bounds(&a, &exact);
}

static void sixteen_bit_inputs_are_seen_in_f32(void **state) {
    (void)state;
    attn_attention_args a = seen(ATTN_F16, 5), exact = in_f64(a);
    exact.see = see_all(&exact, 5);
    attend(&a);
    attend_by_reference(&exact);
    for (int64_t n = 0; n < B * H * L; n++) {
        assert_close(get(a.see.lse, n), get(exact.see.lse, n), 1e-6 * (1 + fabs(get(exact.see.lse, n))));
        assert_close(get(a.see.entropy, n), get(exact.see.entropy, n), 1e-6);
    }
}

static void seen_tensors_may_have_any_strides(void **state) {
    (void)state;
    attn_attention_args a = seen(ATTN_F32, 4), b = a;
    b.see.weights = strided_copy(a.see.weights);
    b.see.scores = strided_copy(a.see.scores);
    b.see.top_index = strided_copy(a.see.top_index);
    b.see.top_weight = strided_copy(a.see.top_weight);
    b.see.lse = tensor3(ATTN_F32, L, H, B); /* [b, h, q] kept as [q, h, b] */
    b.see.lse.shape[0] = B, b.see.lse.shape[2] = L;
    b.see.lse.stride[0] = 1, b.see.lse.stride[2] = H * B, b.see.lse.stride[1] = B;
    attend(&a);
    attend(&b);
    assert_same_bits("weights", b.see.weights, a.see.weights);
    assert_same_bits("scores", b.see.scores, a.see.scores);
    assert_same_bits("top_index", b.see.top_index, a.see.top_index);
    assert_same_bits("top_weight", b.see.top_weight, a.see.top_weight);
    assert_same_bits("lse", b.see.lse, a.see.lse);
}

static void asking_to_see_changes_no_bit_of_out(void **state) {
    (void)state;
    static const problem_shape shapes[] = { { 2, 3, 3, 1, 10, 21, 8, 4 },
                                            { 1, 2, 1, 1, 70, 140, 64, 64 },
                                            { 1, 2, 2, 2, 1, 300, 32, 32 } };
    for (int i = 0; i < 3; i++)
        for (int32_t dtype = ATTN_F32; dtype <= ATTN_F64; dtype += ATTN_F64 - ATTN_F32) {
            attn_attention_args a = problem(shapes[i], dtype, 3), b = a;
            a.causal = b.causal = ATTN_CAUSAL;
            b.see = see_all(&b, 3);
            b.out = tensor_of(dtype, 4, a.out.shape);
            attend(&a);
            attend(&b);
            assert_same_bits("out", b.out, a.out);
            attn_see all = b.see;
            b.see = (attn_see){ .received = tensor3(accumulator(dtype), shapes[i].b, shapes[i].h, shapes[i].kv_len) };
            attend(&b);
            assert_same_bits("out", b.out, a.out);
            assert_same_bits("received", b.see.received, all.received);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(weights_are_what_out_is_mixed_with, free_blocks),
        cmocka_unit_test_teardown(softmax_weights_are_exp_of_scores_minus_lse_and_sum_to_1, free_blocks),
        cmocka_unit_test_teardown(entropy_is_minus_sum_p_ln_p_in_nats, free_blocks),
        cmocka_unit_test_teardown(entropy_does_not_cancel_where_one_key_takes_all, free_blocks),
        cmocka_unit_test_teardown(uniform_weights_have_the_entropy_of_their_count, free_blocks),
        cmocka_unit_test_teardown(received_is_the_weight_each_key_got_summed_over_queries, free_blocks),
        cmocka_unit_test_teardown(received_mass_sums_to_the_number_of_live_rows, free_blocks),
        cmocka_unit_test_teardown(top_k_is_chosen_on_scores_largest_first, free_blocks),
        cmocka_unit_test_teardown(ties_in_the_top_k_go_to_the_lower_key, free_blocks),
        cmocka_unit_test_teardown(top_index_and_top_weight_may_be_asked_for_alone, free_blocks),
        cmocka_unit_test_teardown(scores_are_seen_raw_capped_or_as_they_enter_the_weighting, free_blocks),
        cmocka_unit_test_teardown(what_is_seen_is_within_the_published_bounds, free_blocks),
        cmocka_unit_test_teardown(sixteen_bit_inputs_are_seen_in_f32, free_blocks),
        cmocka_unit_test_teardown(seen_tensors_may_have_any_strides, free_blocks),
        cmocka_unit_test_teardown(asking_to_see_changes_no_bit_of_out, free_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
