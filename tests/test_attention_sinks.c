/* SPDX-License-Identifier: Apache-2.0 */
/* Sinks: one more score per head in the softmax's denominator, of no key and no value. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "attention_bounds.h"

static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_BF16 };
enum { B = 2, H = 3, L = 21, S = 150 };

static attn_attention_args with_sinks(int32_t dtype, const double sinks[H]) {
    attn_attention_args a = problem((problem_shape){ B, H, H, H, L, S, 8, 5 }, dtype, 1);
    a.sinks = values1(dtype, H, sinks);
    a.see = see_all(&a, 3);
    return a;
}

/* ---- what a sink is ---------------------------------------------------------------------------------------------- */

/* Softmax's denominator does not tell a sink from a key of that score whose value is 0. */
static void a_sink_is_a_key_of_value_0_that_is_not_there(void **state) {
    (void)state;
    static const double sinks[H] = { -1.5, 0.25, 6 };
    for (int t = 0; t < 2; t++) {
        attn_attention_args a = with_sinks(dtypes[t], sinks), one_more = a;
        one_more.sinks = (attn_tensor){ 0 };
        one_more.k = tensor4(dtypes[t], B, H, S + 1, 8);
        one_more.v = tensor4(dtypes[t], B, H, S + 1, 5);
        one_more.bias = tensor4(dtypes[t], 1, H, 1, S + 1);
        fill(one_more.k, 0), fill(one_more.v, 0), fill(one_more.bias, 0);
        for (int64_t n = 0; n < B * H * S * 8; n++) put4(one_more.k, n / 8 / S / H, n / 8 / S % H, n / 8 % S, n % 8, get(a.k, n));
        for (int64_t n = 0; n < B * H * S * 5; n++) put4(one_more.v, n / 5 / S / H, n / 5 / S % H, n / 5 % S, n % 5, get(a.v, n));
        for (int64_t h = 0; h < H; h++) put4(one_more.bias, 0, h, 0, S, sinks[h]);
        one_more.out = tensor_of(dtypes[t], 4, a.out.shape);
        one_more.see = see_all(&one_more, 3);
        attend(&a);
        attend(&one_more);
        double bound = dtypes[t] == ATTN_F64 ? 2e-14 : 1e-5;
        assert_all_close("out", a.out, one_more.out, bound);
        assert_all_close("lse", a.see.lse, one_more.see.lse, bound);
        for (int64_t b = 0; b < B; b++)
            for (int64_t h = 0; h < H; h++)
                for (int64_t i = 0; i < L; i++) {
                    double nats = 0;
                    for (int64_t j = 0; j < S; j++) {
                        double p = get4(one_more.see.weights, b, h, i, j);
                        assert_close(get4(a.see.weights, b, h, i, j), p, bound);
                        nats -= p * log(p);
                    }
                    assert_close(get3(a.see.entropy, b, h, i), nats, 10 * bound); /* the sink's share is not a key's */
                }
    }
}

static void softmax_plus_one_is_a_sink_of_zero(void **state) {
    (void)state;
    attn_attention_args a = problem((problem_shape){ 1, 1, 1, 1, 1, 3, 1, 1 }, ATTN_F64, 2);
    a.sinks = values1(ATTN_F64, 1, (double[]){ 0 });
    a.scale = 1;
    put(a.q, 0, 1);
    for (int j = 0; j < 3; j++) put(a.k, j, j + 1);
    a.see.weights = tensor4(ATTN_F64, 1, 1, 1, 3);
    a.see.lse = tensor3(ATTN_F64, 1, 1, 1);
    attend(&a);
    double total = 1 + exp(1) + exp(2) + exp(3);
    for (int j = 0; j < 3; j++) assert_close(get(a.see.weights, j), exp(j + 1) / total, 1e-15);
    assert_close(get(a.see.lse, 0), log(total), 1e-15);
}

static void sinks_are_not_scaled_capped_or_biased(void **state) {
    (void)state;
    attn_attention_args a = problem((problem_shape){ 1, 1, 1, 1, 1, 1, 1, 1 }, ATTN_F64, 2);
    a.sinks = values1(ATTN_F64, 1, (double[]){ 3 });
    a.bias = values1(ATTN_F64, 1, (double[]){ 7 });
    a.scale = 0.5;
    a.softcap = 1;
    a.see.lse = tensor3(ATTN_F64, 1, 1, 1);
    fill(a.q, 1), fill(a.k, 1);
    attend(&a);
    assert_close(get(a.see.lse, 0), log(exp(3) + exp(tanh(0.5) + 7)), 1e-14);
}

/* ---- far from the scores, infinite, NaN ---------------------------------------------------------------------------- */

static void sinks_of_every_size_are_within_the_published_bounds(void **state) {
    (void)state;
    static const double sizes[] = { -1e4, -100, -20, -7.9, 0, 7.9, 9, 20, 60, 100, 1e4 };
    for (int i = 0; i < 11; i++)
        for (int t = 0; t < 2; t++) {
            attn_attention_args a = with_sinks(dtypes[t], (double[]){ sizes[i], sizes[i] + 0.3, sizes[i] - 1 });
            attn_attention_args exact = in_f64(a);
            exact.see = see_all(&exact, 3);
            attend(&a);
            attend_by_reference(&exact);
            assert_within_published_bounds(&a, &exact);
            free_blocks(NULL);
        }
}

static void a_sink_of_minus_infinity_is_none(void **state) {
    (void)state;
    for (int t = 0; t < 3; t++) {
        attn_attention_args a = with_sinks(dtypes[t], (double[]){ -INFINITY, -INFINITY, -INFINITY }), b = a;
        b.sinks = (attn_tensor){ 0 };
        b.out = tensor_of(a.out.dtype, 4, a.out.shape);
        b.see = see_all(&b, 3);
        attend(&a);
        attend(&b);
        assert_same_bits("out", a.out, b.out);
        assert_same_bits("lse", a.see.lse, b.see.lse);
        assert_same_bits("weights", a.see.weights, b.see.weights);
    }
}

static void a_nan_sink_shows_in_its_head_and_nowhere_else(void **state) {
    (void)state;
    for (int t = 0; t < 3; t++) {
        attn_attention_args a = with_sinks(dtypes[t], (double[]){ 0, NAN, INFINITY });
        a.kv_lengths = values1(ATTN_I32, B, (double[]){ S, 0 });
        attend(&a);
        for (int64_t i = 0; i < L; i++) {
            assert_true(isfinite(get4(a.out, 0, 0, i, 0)) && isfinite(get3(a.see.lse, 0, 0, i)));
            assert_true(isnan(get4(a.out, 0, 1, i, 0)) && isnan(get3(a.see.lse, 0, 1, i)));
            for (int64_t h = 0; h < H; h++) assert_true(get4(a.out, 1, h, i, 0) == 0 && get3(a.see.entropy, 1, h, i) == 0);
            assert_true(isnan(get3(a.see.lse, 1, 1, i)) && get3(a.see.lse, 1, 2, i) == INFINITY);
        }
    }
}

static void a_score_of_plus_infinity_beside_a_sink_is_what_it_is_without(void **state) {
    (void)state;
    for (int t = 0; t < 2; t++) {
        attn_attention_args a = with_sinks(dtypes[t], (double[]){ 0, 5, 500 });
        a.bias = tensor1(dtypes[t], S);
        fill(a.bias, 0);
        put(a.bias, 77, INFINITY);
        attend(&a);
        assert_all("out", a.out, NAN);
        assert_all("lse", a.see.lse, INFINITY);
    }
}

/* ---- rows without a key ------------------------------------------------------------------------------------------------ */

static void a_fully_masked_row_with_a_sink_is_0_and_its_lse_the_sink(void **state) {
    (void)state;
    static const double sinks[H] = { -3.5, 0, 20 };
    for (int t = 0; t < 3; t++)
        for (int way = 0; way < 4; way++) {
            attn_attention_args a = with_sinks(dtypes[t], sinks);
            if (way == 0) fill(a.mask = tensor2(ATTN_BOOL, L, S), 0);
            if (way == 1) fill(a.bias = tensor1(dtypes[t], S), -INFINITY);
            if (way == 2) a.kv_lengths = values1(ATTN_I32, B, (double[]){ 0, 0 });
            if (way == 3) a.q_lengths = values1(ATTN_I32, B, (double[]){ 0, 0 });
            fill(a.k, NAN);
            fill(a.v, INFINITY);
            attend(&a);
            assert_all("out", a.out, 0);
            assert_all("weights", a.see.weights, 0);
            assert_all("entropy", a.see.entropy, 0);
            for (int64_t n = 0; n < B * H * L; n++) assert_true(get(a.see.lse, n) == sinks[n / L % H]);
            free_blocks(NULL);
        }
}

/* Whatever dout is in such rows; whether out and lse are given or not. */
static void dlse_of_fully_masked_rows_goes_to_dsinks_and_their_dout_nowhere(void **state) {
    (void)state;
    for (int t = 0; t < 2; t++)
        for (int way = 0; way < 4; way++)
            for (int given = 0; given < 2; given++) {
                int32_t dtype = dtypes[t];
                attn_attention_args a = with_sinks(dtype, (double[]){ 1, -2, 3 });
                attn_attention_grads g = { .dout = tensor_of(dtype, 4, a.out.shape),
                                           .dlse = tensor3(dtype, B, H, L),
                                           .dq = tensor_of(dtype, 4, a.q.shape),
                                           .dsinks = tensor1(dtype, H) };
                if (way == 0) fill(a.mask = tensor2(ATTN_BOOL, L, S), 0);
                if (way == 1) fill(a.bias = tensor1(dtype, S), -INFINITY);
                if (way == 2) a.kv_lengths = values1(ATTN_I32, B, (double[]){ 0, 0 });
                if (way == 3) a.q_lengths = values1(ATTN_I32, B, (double[]){ 0, 0 });
                fill(g.dout, NAN);
                for (int64_t n = 0; n < B * H * L; n++) put(g.dlse, n, (double)(n / L % H) + 0.5);
                if (given) attend(&a);
                if (!given) a.out = (attn_tensor){ 0 }, a.see = (attn_see){ 0 };
                attend_backward(&a, &g);
                assert_all("dq", g.dq, 0);
                for (int64_t h = 0; h < H; h++) assert_true(get(g.dsinks, h) == B * L * ((double)h + 0.5));
                free_blocks(NULL);
            }
}

static void dsinks_sum_over_what_is_not_there(void **state) {
    (void)state;
    attn_attention_args a = with_sinks(ATTN_F64, (double[]){ 1, -2, 3 });
    uint64_t seed = 3;
    attn_attention_grads each = { .dout = tensor_of(ATTN_F64, 4, a.out.shape), .dsinks = tensor2(ATTN_F64, B, H) }, all = each;
    attn_attention_grads heads = each;
    fill_normal(each.dout, &seed);
    all.dout = heads.dout = each.dout;
    all.dsinks = tensor1(ATTN_F64, 1);
    heads.dsinks = tensor1(ATTN_F64, H);
    attend_backward(&a, &each);
    attend_backward(&a, &all);
    attend_backward(&a, &heads);
    double total = 0;
    for (int64_t h = 0; h < H; h++) {
        assert_close(get(heads.dsinks, h), get(each.dsinks, h) + get(each.dsinks, H + h), 1e-14);
        total += get(heads.dsinks, h);
    }
    assert_close(get(all.dsinks, 0), total, 1e-14);
    a.q.shape[0] = a.k.shape[0] = a.v.shape[0] = heads.dout.shape[0] = 0; /* and over nothing */
    a.out = (attn_tensor){ 0 };
    a.see = (attn_see){ 0 };
    attend_backward(&a, &heads);
    assert_all("dsinks", heads.dsinks, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_sink_is_a_key_of_value_0_that_is_not_there, free_blocks),
        cmocka_unit_test_teardown(softmax_plus_one_is_a_sink_of_zero, free_blocks),
        cmocka_unit_test_teardown(sinks_are_not_scaled_capped_or_biased, free_blocks),
        cmocka_unit_test_teardown(sinks_of_every_size_are_within_the_published_bounds, free_blocks),
        cmocka_unit_test_teardown(a_sink_of_minus_infinity_is_none, free_blocks),
        cmocka_unit_test_teardown(a_nan_sink_shows_in_its_head_and_nowhere_else, free_blocks),
        cmocka_unit_test_teardown(a_score_of_plus_infinity_beside_a_sink_is_what_it_is_without, free_blocks),
        cmocka_unit_test_teardown(a_fully_masked_row_with_a_sink_is_0_and_its_lse_the_sink, free_blocks),
        cmocka_unit_test_teardown(dlse_of_fully_masked_rows_goes_to_dsinks_and_their_dout_nowhere, free_blocks),
        cmocka_unit_test_teardown(dsinks_sum_over_what_is_not_there, free_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
