/* SPDX-License-Identifier: Apache-2.0 */
/* What attention computes: shapes, scales, scores, weightings, dtypes, and how exactly. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "attention_bounds.h"

/* ---- worked cases ------------------------------------------------------------------------------------------- */

/* One query of 1 over keys of the given values: the scores are the values themselves. */
static attn_attention_args scores_by_hand(int32_t dtype, int64_t n, const double *scores) {
    attn_attention_args a = { .q = tensor4(dtype, 1, 1, 1, 1),
                              .k = tensor4(dtype, 1, 1, n, 1),
                              .v = tensor4(dtype, 1, 1, n, 1),
                              .out = tensor4(dtype, 1, 1, 1, 1),
                              .scale = 1 };
    fill(a.q, 1);
    for (int64_t j = 0; j < n; j++) {
        put(a.k, j, scores[j]);
        put(a.v, j, (double)(j + 1));
    }
    a.see.weights = tensor4(accumulator(dtype), 1, 1, 1, n);
    return a;
}

static void softmax_of_1_2_3_is_the_textbook_s(void **state) {
    (void)state;
    static const double p[] = { 0.09003057317038046, 0.24472847105479767, 0.6652409557748219 };
    attn_attention_args a = scores_by_hand(ATTN_F64, 3, (double[]){ 1, 2, 3 });
    a.see.lse = tensor3(ATTN_F64, 1, 1, 1);
    attend(&a);
    for (int j = 0; j < 3; j++) assert_close(get(a.see.weights, j), p[j], 2e-16);
    assert_close(get(a.out, 0), p[0] + 2 * p[1] + 3 * p[2], 1e-15);
    assert_close(exp(get(a.see.lse, 0)), 30.192874850577365, 1e-13);
}

static void normalised_sum_over_1_to_5_gives_fifteenths(void **state) {
    (void)state;
    attn_attention_args a = scores_by_hand(ATTN_F64, 5, (double[]){ 1, 2, 3, 4, 5 });
    a.weighting = ATTN_WEIGHT_NORMALIZED_SUM;
    a.scale = 1.1; /* a weight of 1.1 on every input cancels */
    attend(&a);
    for (int j = 0; j < 5; j++) assert_close(get(a.see.weights, j), (j + 1) / 15.0, 1e-16);
    assert_close(get(a.out, 0), 55 / 15.0, 1e-15);
}

static void softmax_over_one_key_is_1(void **state) {
    (void)state;
    attn_attention_args a = scores_by_hand(ATTN_F32, 1, (double[]){ 0.731 });
    attend(&a);
    assert_true(get(a.see.weights, 0) == 1);
    assert_true(get(a.out, 0) == 1);
}

/* A tutorial's program: a linear layer from 1 to 1 with weight 1.1 scores the inputs 1 .. 5, their sigmoids weigh the inputs, and
 * the same numbers are printed once more as "softmax output". They are not: softmax over the five keys sums to 1, and over an axis
 * of length 1 every weight is 1. */
static void a_linear_layer_s_sigmoid_weights_are_not_its_softmax(void **state) {
    (void)state;
    static const double sigmoids[] = { 0.750260105595, 0.900249510880, 0.964428810727, 0.987871565016, 0.995929862284 };
    static const double softmax[] = { 0.008224178803644, 0.024706798536768, 0.074223324724646, 0.222979190322126,
                                      0.669866507612817 };
    attn_attention_args a = scores_by_hand(ATTN_F64, 5, (double[]){ 1, 2, 3, 4, 5 });
    a.scale = 1.1;
    a.weighting = ATTN_WEIGHT_SIGMOID;
    attend(&a);
    for (int j = 0; j < 5; j++) assert_close(get(a.see.weights, j), sigmoids[j], 1e-12);
    assert_close(get(a.out, 0), 14.375181131021261, 1e-11);
    a.weighting = ATTN_WEIGHT_SOFTMAX;
    attend(&a);
    for (int j = 0; j < 5; j++) assert_close(get(a.see.weights, j), softmax[j], 1e-12);
    attn_tensor column = tensor2(ATTN_F64, 5, 1), ones = tensor2(ATTN_F64, 5, 1);
    for (int j = 0; j < 5; j++) put(column, j, sigmoids[j]);
    assert_int_equal(attn_softmax(&(attn_softmax_args){ .x = column, .y = ones }, NULL), ATTN_OK);
    assert_all("softmax over one", ones, 1);
}

/* ---- shapes --------------------------------------------------------------------------------------------------- */

static void query_head_h_reads_key_head_and_value_head_of_its_group(void **state) {
    (void)state;
    attn_attention_args a = problem((problem_shape){ 2, 12, 4, 3, 9, 14, 8, 5 }, ATTN_F32, 1);
    attend(&a);
    for (int64_t h = 0; h < 12; h++) {
        attn_attention_args one = a;
        one.q.data = attn_at(&a.q, h * a.q.stride[1]);
        one.k.data = attn_at(&a.k, h / 3 * a.k.stride[1]);
        one.v.data = attn_at(&a.v, h / 4 * a.v.stride[1]);
        one.q.shape[1] = one.k.shape[1] = one.v.shape[1] = 1;
        one.out = tensor4(ATTN_F32, 2, 1, 9, 5);
        attend(&one);
        attn_tensor mine = a.out;
        mine.data = attn_at(&a.out, h * a.out.stride[1]);
        mine.shape[1] = 1;
        assert_same_bits("head", one.out, mine);
    }
}

static void assert_size_is_exact(problem_shape z, int32_t score) {
    uint64_t seed = (uint64_t)(z.dim * 1000 + z.v_dim);
    attn_attention_args a = problem(z, ATTN_F32, seed);
    a.score = score;
    if (score == ATTN_ADDITIVE) {
        a.score_weight = tensor1(ATTN_F32, z.dim);
        fill_normal(a.score_weight, &seed);
    }
    attn_attention_args exact = in_f64(a);
    attend(&a);
    attend_by_reference(&exact);
    assert_within_published_bounds(&a, &exact);
    assert_rms_within("out", a.out, exact.out, rms_bound_f32);
    free_blocks(NULL);
}

static void every_head_size_from_1_to_257_is_within_the_published_bounds(void **state) {
    (void)state;
    static const int64_t sizes[] = { 1,  2,  3,  4,  5,  7,  8,  9,   15,  16,  17,  24,  31,  32,
                                     33, 40, 63, 64, 65, 80, 96, 127, 128, 129, 160, 192, 256, 257 };
    int n = sizeof sizes / sizeof *sizes;
    for (int i = 0; i < n; i++) {
        assert_size_is_exact((problem_shape){ 1, 2, 1, 2, 21, 37, sizes[i], sizes[n - 1 - i] }, ATTN_DOT);
        assert_size_is_exact((problem_shape){ 1, 1, 1, 1, 5, 19, sizes[i], sizes[i] }, ATTN_ADDITIVE);
    }
}

static void every_length_around_a_block_is_within_the_published_bounds(void **state) {
    (void)state;
    static const int64_t lengths[] = { 1, 2, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129, 255, 257 };
    int n = sizeof lengths / sizeof *lengths;
    for (int i = 0; i < n; i++) {
        assert_size_is_exact((problem_shape){ 1, 1, 1, 1, lengths[i], lengths[n - 1 - i], 16, 8 }, ATTN_DOT);
        assert_size_is_exact((problem_shape){ 1, 1, 1, 1, lengths[i], lengths[i], 8, 16 }, ATTN_DOT);
    }
}

static void without_keys_every_row_is_masked_and_without_rows_nothing_is_written(void **state) {
    (void)state;
    attn_attention_args a = problem((problem_shape){ 2, 2, 2, 2, 3, 0, 4, 5 }, ATTN_F32, 3);
    a.see = see_all(&a, 2);
    attend(&a);
    assert_all("out", a.out, 0);
    assert_all("lse", a.see.lse, -INFINITY);
    assert_all("entropy", a.see.entropy, 0);
    assert_all("top_index", a.see.top_index, -1);
    assert_all("top_weight", a.see.top_weight, 0);

    attn_attention_args no_rows = problem((problem_shape){ 2, 2, 2, 2, 0, 3, 4, 5 }, ATTN_F32, 3);
    attn_attention_args no_batch = problem((problem_shape){ 0, 2, 2, 2, 3, 3, 4, 5 }, ATTN_F32, 3);
    attn_attention_args no_heads = problem((problem_shape){ 2, 0, 0, 0, 3, 3, 4, 5 }, ATTN_F32, 3);
    no_rows.out.data = no_rows.q.data = no_batch.q.data = no_batch.out.data = NULL;
    attend(&no_rows);
    attend(&no_batch);
    attend(&no_heads);
    /* many rows that do not exist take no time */
    attn_attention_args many = no_rows;
    many.q.shape[0] = many.k.shape[0] = many.v.shape[0] = many.out.shape[0] = (int64_t)1 << 40;
    many.k.shape[2] = many.v.shape[2] = 0;
    attend(&many);
}

static void received_over_no_rows_is_zero(void **state) {
    (void)state;
    attn_attention_args a = problem((problem_shape){ 1, 2, 2, 2, 0, 3, 4, 5 }, ATTN_F32, 3);
    a.see.received = tensor3(ATTN_F32, 1, 2, 3);
    attend(&a);
    assert_all("received", a.see.received, 0);
}

/* ---- score ---------------------------------------------------------------------------------------------------- */

static void scale_defaults_to_one_over_root_dim_for_dot_and_to_1_for_additive(void **state) {
    (void)state;
    for (int32_t score = ATTN_DOT; score <= ATTN_ADDITIVE; score++) {
        attn_attention_args a = problem((problem_shape){ 1, 1, 1, 1, 4, 6, 16, 3 }, ATTN_F32, 4), b = a;
        a.score = b.score = score;
        if (score == ATTN_ADDITIVE) {
            a.score_weight = tensor1(ATTN_F32, 16);
            fill(a.score_weight, 0.25);
            b.score_weight = a.score_weight;
        }
        b.scale = score == ATTN_DOT ? 0.25 : 1;
        b.out = tensor4(ATTN_F32, 1, 1, 4, 3);
        attend(&a);
        attend(&b);
        assert_same_bits("out", a.out, b.out);
    }
}

static void an_explicit_scale_of_zero_gives_every_key_the_same_weight(void **state) {
    (void)state;
    attn_attention_args a = problem((problem_shape){ 1, 1, 1, 1, 3, 8, 4, 1 }, ATTN_F64, 5);
    a.flags = ATTN_SCALE_SET;
    a.see.weights = tensor4(ATTN_F64, 1, 1, 3, 8);
    attend(&a);
    assert_all("weights", a.see.weights, 0.125);
}

static void additive_score_is_w_times_tanh_of_the_sum(void **state) {
    (void)state;
    attn_attention_args a = problem((problem_shape){ 2, 3, 3, 3, 4, 5, 6, 2 }, ATTN_F64, 6);
    uint64_t seed = 60;
    a.score = ATTN_ADDITIVE;
    a.score_weight = tensor2(ATTN_F64, 3, 6); /* one w per head */
    fill_normal(a.score_weight, &seed);
    a.see.scores = tensor4(ATTN_F64, 2, 3, 4, 5);
    attend(&a);
    for (int64_t n = 0; n < 2 * 3 * 4 * 5; n++) {
        int64_t b = n / 60, h = n / 20 % 3, i = n / 5 % 4, j = n % 5;
        double s = 0;
        for (int64_t d = 0; d < 6; d++) s += get(a.score_weight, h * 6 + d) * tanh(get4(a.q, b, h, i, d) + get4(a.k, b, h, j, d));
        assert_close(get(a.see.scores, n), s, 1e-14);
    }
}

static void cosine_score_is_the_dot_of_q_and_k_with_length_1(void **state) {
    (void)state;
    static const double sizes[] = { 1, 1e-30, 1e30, 1e-300, 1e300, 5e-324 };
    for (int i = 0; i < 6; i++)
        for (int32_t dtype = ATTN_F32; dtype <= ATTN_F64; dtype += ATTN_F64 - ATTN_F32) {
            if (dtype == ATTN_F32 && i > 2) continue;
            attn_attention_args a = problem((problem_shape){ 2, 2, 2, 1, 5, 7, 3, 2 }, dtype, 61);
            attn_attention_args scaled = a;
            a.score = scaled.score = ATTN_COSINE;
            a.see.scores = tensor4(dtype, 2, 2, 5, 7);
            if (i < 5) { /* however long the vectors are: their squares may be too large or too small for their dtype */
                scaled.q = dense_copy(a.q, dtype);
                scaled.k = dense_copy(a.k, dtype);
                for (int64_t n = 0; n < attn_count(&a.q); n++) put(scaled.q, n, get(a.q, n) * sizes[i]);
                for (int64_t n = 0; n < attn_count(&a.k); n++) put(scaled.k, n, get(a.k, n) / sizes[i]);
            } else { /* (n, 0, 0) and the smallest number */
                for (int64_t n = 0; n < attn_count(&a.q); n++) put(a.q, n, n % 3 == 0 ? sizes[i] : 0);
                scaled.q = a.q;
            }
            scaled.see.scores = tensor4(dtype, 2, 2, 5, 7);
            attend(&a);
            attend(&scaled);
            for (int64_t n = 0; n < 2 * 2 * 5 * 7; n++) {
                double dot = 0, q = 0, k = 0;
                for (int64_t d = 0; d < 3; d++) {
                    double x = i < 5 ? get(a.q, n / 7 * 3 + d) : d == 0, y = get4(a.k, n / 70, n / 35 % 2, n % 7, d);
                    dot += x * y, q += x * x, k += y * y;
                }
                assert_close(get(a.see.scores, n), dot / sqrt(q * k), dtype == ATTN_F64 ? 1e-15 : 4e-7);
                assert_close(get(scaled.see.scores, n), dot / sqrt(q * k), dtype == ATTN_F64 ? 1e-15 : 4e-7);
            }
        }
}

/* And it has no gradient. */
static void a_zero_vector_has_a_cosine_of_0_with_everything(void **state) {
    (void)state;
    static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_BF16 };
    for (int t = 0; t < 3; t++) {
        attn_attention_args a = problem((problem_shape){ 1, 1, 1, 1, 20, 30, 8, 3 }, dtypes[t], 62);
        a.score = ATTN_COSINE;
        a.see.scores = tensor4(accumulator(dtypes[t]), 1, 1, 20, 30);
        for (int64_t d = 0; d < 8; d++) put4(a.q, 0, 0, 3, d, 0), put4(a.k, 0, 0, 4, d, 0);
        attn_attention_grads g = { .dout = dense_copy(a.v, dtypes[t]),
                                   .dq = tensor_of(dtypes[t], 4, a.q.shape),
                                   .dk = tensor_of(dtypes[t], 4, a.k.shape) };
        g.dout.shape[2] = 20;
        attend(&a);
        attend_backward(&a, &g);
        for (int64_t j = 0; j < 30; j++) assert_true(get4(a.see.scores, 0, 0, 3, j) == 0);
        for (int64_t i = 0; i < 20; i++) assert_true(get4(a.see.scores, 0, 0, i, 4) == 0);
        for (int64_t d = 0; d < 8; d++) assert_true(get4(g.dq, 0, 0, 3, d) == 0 && get4(g.dk, 0, 0, 4, d) == 0);
        for (int64_t d = 0; d < 8; d++) assert_true(get4(g.dq, 0, 0, 2, d) != 0 && get4(g.dk, 0, 0, 3, d) != 0);
        free_blocks(NULL);
    }
}

static void nan_or_infinity_in_a_vector_shows_in_its_cosines(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        attn_attention_args a = problem((problem_shape){ 1, 1, 1, 1, 20, 30, 8, 3 }, i % 2 ? ATTN_F64 : ATTN_F32, 63);
        a.score = ATTN_COSINE;
        a.see.scores = tensor4(a.q.dtype, 1, 1, 20, 30);
        put4(a.q, 0, 0, 3, 5, i < 2 ? NAN : INFINITY);
        put4(a.k, 0, 0, 7, 2, i < 2 ? NAN : -INFINITY);
        attend(&a);
        for (int64_t n = 0; n < 600; n++) assert_true(isnan(get(a.see.scores, n)) == (n / 30 == 3 || n % 30 == 7));
    }
}

static void softcap_bias_and_alibi_come_in_this_order(void **state) {
    (void)state;
    attn_attention_args a = problem((problem_shape){ 1, 1, 1, 1, 3, 3, 4, 2 }, ATTN_F64, 7);
    double c = 0.7, slope = 0.3;
    uint64_t seed = 70;
    a.softcap = c;
    a.bias = tensor2(ATTN_F64, 3, 3);
    fill_normal(a.bias, &seed);
    a.alibi = values1(ATTN_F64, 1, &slope);
    a.see.scores = tensor4(ATTN_F64, 1, 1, 3, 3);
    attend(&a);
    for (int64_t i = 0; i < 3; i++)
        for (int64_t j = 0; j < 3; j++) {
            double dot = 0;
            for (int64_t d = 0; d < 4; d++) dot += get4(a.q, 0, 0, i, d) * get4(a.k, 0, 0, j, d);
            double expected = c * tanh(dot / 2 / c) + get(a.bias, i * 3 + j) - slope * (double)llabs(i - j);
            assert_close(get4(a.see.scores, 0, 0, i, j), expected, 1e-15);
        }
}

/* ---- weighting -------------------------------------------------------------------------------------------------- */

static void sigmoid_weights_are_elementwise_and_not_normalised(void **state) {
    (void)state;
    static const double s[] = { -800, -1, 0, 2, 800 };
    attn_attention_args a = scores_by_hand(ATTN_F64, 5, s);
    a.weighting = ATTN_WEIGHT_SIGMOID;
    attend(&a);
    for (int j = 0; j < 5; j++) assert_close(get(a.see.weights, j), 1 / (1 + exp(-s[j])), 1e-16);
}

static void relu2_weights_are_squares_of_what_is_positive(void **state) {
    (void)state;
    static const double s[] = { -800, -1, 0, 2, 1e3, -INFINITY, INFINITY };
    for (int32_t dtype = ATTN_F32; dtype <= ATTN_F16; dtype++) {
        attn_attention_args a = scores_by_hand(dtype, 7, s);
        a.weighting = ATTN_WEIGHT_RELU2;
        attend(&a);
        for (int j = 0; j < 7; j++) assert_true(get(a.see.weights, j) == (s[j] > 0 ? s[j] * s[j] : 0));
        put(a.k, 6, NAN);
        attend(&a);
        assert_true(isnan(get(a.see.weights, 6)) && isnan(get(a.out, 0)));
        put(a.k, 6, 3);
        attend(&a);
        if (dtype == ATTN_F16) /* beyond its largest number */
            assert_true(get(a.out, 0) == INFINITY);
        else
            assert_close(get(a.out, 0), 4 * 4 + 1e6 * 5 + 9 * 7, dtype == ATTN_BF16 ? 2e4 : 1);
    }
}

static void a_normalised_sum_of_zero_gives_a_row_of_zeros(void **state) {
    (void)state;
    attn_attention_args a = scores_by_hand(ATTN_F64, 4, (double[]){ 1, -1, 2, -2 });
    a.weighting = ATTN_WEIGHT_NORMALIZED_SUM;
    attend(&a);
    assert_all("weights", a.see.weights, 0);
    assert_all("out", a.out, 0);
}

static void a_score_of_plus_infinity_gives_nan_under_softmax_and_its_lse_is_infinite(void **state) {
    (void)state;
    for (int32_t dtype = ATTN_F32; dtype <= ATTN_F64; dtype += ATTN_F64 - ATTN_F32) {
        attn_attention_args a = scores_by_hand(dtype, 3, (double[]){ 1, INFINITY, 2 });
        a.see.lse = tensor3(dtype, 1, 1, 1);
        attend(&a);
        assert_all("out", a.out, NAN);
        assert_all("weights", a.see.weights, NAN);
        assert_all("lse", a.see.lse, INFINITY);
    }
}

static void a_score_of_plus_infinity_is_1_under_sigmoid_and_nan_under_the_normalised_sum(void **state) {
    (void)state;
    attn_attention_args a = scores_by_hand(ATTN_F32, 3, (double[]){ 0, INFINITY, 0 });
    a.weighting = ATTN_WEIGHT_SIGMOID;
    attend(&a);
    assert_true(get(a.see.weights, 1) == 1);
    assert_true(get(a.out, 0) == 0.5 + 2 + 1.5);
    a.weighting = ATTN_WEIGHT_NORMALIZED_SUM;
    attend(&a);
    assert_all("out", a.out, NAN);
}

static void live_scores_of_minus_infinity_alone_share_nothing_out(void **state) {
    (void)state;
    attn_attention_args a = scores_by_hand(ATTN_F32, 3, (double[]){ -INFINITY, -INFINITY, -INFINITY });
    a.see.lse = tensor3(ATTN_F32, 1, 1, 1);
    attend(&a);
    assert_all("weights", a.see.weights, 0);
    assert_all("out", a.out, 0);
    assert_all("lse", a.see.lse, -INFINITY);
}

static void a_live_key_of_weight_zero_follows_ieee(void **state) {
    (void)state;
    attn_attention_args a = scores_by_hand(ATTN_F32, 2, (double[]){ 0, -1e30 });
    put(a.v, 1, INFINITY); /* 0 * inf */
    attend(&a);
    assert_true(get(a.see.weights, 1) == 0);
    assert_all("out", a.out, NAN);
}

/* ---- dtypes and accuracy ------------------------------------------------------------------------------------------ */

static void sixteen_bit_inputs_are_rounded_once_at_the_end(void **state) {
    (void)state;
    static const int32_t dtypes[] = { ATTN_BF16, ATTN_F16 };
    static const double half_ulp[] = { 0x1p-8, 0x1p-11 };
    for (int t = 0; t < 2; t++) {
        attn_attention_args a = problem((problem_shape){ 1, 2, 1, 1, 7, 11, 16, 9 }, dtypes[t], 8);
        attn_attention_args exact = in_f64(a), wide = a;
        wide.out = tensor4(ATTN_F32, 1, 2, 7, 9);
        attend(&a);
        attend(&wide);
        attend_by_reference(&exact);
        for (int64_t n = 0; n < attn_count(&exact.out); n++)
            assert_close(get(a.out, n), get(exact.out, n), fabs(get(exact.out, n)) * half_ulp[t] * 1.001);
        assert_rms_within("f32 out", wide.out, exact.out, rms_bound_f32);
    }
}

static void f64_accumulates_in_f64_and_may_be_kept_in_f32(void **state) {
    (void)state;
    attn_attention_args a = problem((problem_shape){ 2, 2, 2, 1, 33, 65, 24, 17 }, ATTN_F64, 9), narrow = a;
    attn_attention_args exact = in_f64(a);
    narrow.out = tensor4(ATTN_F32, 2, 2, 33, 17);
    attend(&a);
    attend(&narrow);
    attend_by_reference(&exact);
    assert_rms_within("out", a.out, exact.out, rms_bound_f64);
    for (int64_t n = 0; n < attn_count(&a.out); n++) assert_true(get(narrow.out, n) == (double)(float)get(a.out, n));
}

static void f32_attention_on_normal_inputs_is_within_2e_6_relative_rms(void **state) {
    (void)state;
    static const problem_shape shapes[] = { { 1, 2, 1, 1, 192, 256, 64, 64 },
                                            { 1, 1, 1, 1, 100, 700, 128, 128 },
                                            { 3, 4, 2, 4, 20, 40, 32, 16 },
                                            { 1, 2, 2, 2, 1, 1000, 64, 64 } };
    for (int i = 0; i < 4; i++)
        for (int32_t causal = 0; causal < 2; causal++) {
            attn_attention_args a = problem(shapes[i], ATTN_F32, 10 + (uint64_t)i);
            a.causal = causal;
            attn_attention_args exact = in_f64(a);
            attend(&a);
            attend_by_reference(&exact);
            assert_rms_within("out", a.out, exact.out, rms_bound_f32);
            free_blocks(NULL);
        }
}

static void huge_scores_stay_within_the_published_function_of_their_size(void **state) {
    (void)state;
    static const double factors[] = { 1e-30, 1e-3, 10, 100, 1000 };
    for (int i = 0; i < 5; i++) {
        attn_attention_args a = problem((problem_shape){ 1, 2, 2, 2, 18, 70, 24, 8 }, ATTN_F32, 20 + (uint64_t)i);
        for (int64_t n = 0; n < attn_count(&a.q); n++) put(a.q, n, get(a.q, n) * factors[i]);
        a.see = see_all(&a, 3);
        attn_attention_args exact = in_f64(a);
        exact.see = see_all(&exact, 3);
        attend(&a);
        attend_by_reference(&exact);
        assert_within_published_bounds(&a, &exact);
    }
}

static void random_problems_agree_with_the_reference_within_the_published_bounds(void **state) {
    (void)state;
    uint64_t seed = 2026;
    for (int i = 0; i < 90; i++) {
        attn_attention_args a = random_problem(&seed, i % 3 == 2 ? ATTN_F64 : ATTN_F32);
        attn_attention_args exact = in_f64(a);
        exact.see = see_all(&exact, a.see.top_index.shape[3]);
        a.see.scores_stage = exact.see.scores_stage = ATTN_STAGE_WEIGHTED;
        attend(&a);
        attend_by_reference(&exact);
        assert_within_published_bounds(&a, &exact);
        free_blocks(NULL);
    }
}

static void normalised_sums_of_one_sign_are_within_the_rms_bound(void **state) {
    (void)state;
    for (int32_t dtype = ATTN_F32; dtype <= ATTN_F64; dtype += ATTN_F64 - ATTN_F32) {
        attn_attention_args a = problem((problem_shape){ 1, 2, 1, 2, 30, 150, 24, 20 }, dtype, 40);
        a.weighting = ATTN_WEIGHT_NORMALIZED_SUM;
        a.causal = ATTN_CAUSAL;
        for (int64_t n = 0; n < attn_count(&a.q); n++) put(a.q, n, fabs(get(a.q, n)));
        for (int64_t n = 0; n < attn_count(&a.k); n++) put(a.k, n, fabs(get(a.k, n)));
        attn_attention_args exact = in_f64(a);
        attend(&a);
        attend_by_reference(&exact);
        assert_rms_within("out", a.out, exact.out, rms_bound(dtype));
    }
}

static void permuting_keys_with_their_values_changes_nothing_beyond_rounding(void **state) {
    (void)state;
    attn_attention_args a = problem((problem_shape){ 1, 2, 2, 2, 20, 75, 16, 8 }, ATTN_F32, 30), b = a;
    b.k = tensor4(ATTN_F32, 1, 2, 75, 16);
    b.v = tensor4(ATTN_F32, 1, 2, 75, 8);
    b.out = tensor4(ATTN_F32, 1, 2, 20, 8);
    for (int64_t h = 0; h < 2; h++)
        for (int64_t j = 0; j < 75; j++) {
            int64_t to = j * 31 % 75;
            for (int64_t d = 0; d < 16; d++) put4(b.k, 0, h, to, d, get4(a.k, 0, h, j, d));
            for (int64_t c = 0; c < 8; c++) put4(b.v, 0, h, to, c, get4(a.v, 0, h, j, c));
        }
    attend(&a);
    attend(&b);
    assert_rms_within("out", b.out, a.out, 2 * rms_bound_f32);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(softmax_of_1_2_3_is_the_textbook_s, free_blocks),
        cmocka_unit_test_teardown(normalised_sum_over_1_to_5_gives_fifteenths, free_blocks),
        cmocka_unit_test_teardown(softmax_over_one_key_is_1, free_blocks),
        cmocka_unit_test_teardown(a_linear_layer_s_sigmoid_weights_are_not_its_softmax, free_blocks),
        cmocka_unit_test_teardown(query_head_h_reads_key_head_and_value_head_of_its_group, free_blocks),
        cmocka_unit_test_teardown(every_head_size_from_1_to_257_is_within_the_published_bounds, free_blocks),
        cmocka_unit_test_teardown(every_length_around_a_block_is_within_the_published_bounds, free_blocks),
        cmocka_unit_test_teardown(without_keys_every_row_is_masked_and_without_rows_nothing_is_written, free_blocks),
        cmocka_unit_test_teardown(received_over_no_rows_is_zero, free_blocks),
        cmocka_unit_test_teardown(scale_defaults_to_one_over_root_dim_for_dot_and_to_1_for_additive, free_blocks),
        cmocka_unit_test_teardown(an_explicit_scale_of_zero_gives_every_key_the_same_weight, free_blocks),
        cmocka_unit_test_teardown(additive_score_is_w_times_tanh_of_the_sum, free_blocks),
        cmocka_unit_test_teardown(cosine_score_is_the_dot_of_q_and_k_with_length_1, free_blocks),
        cmocka_unit_test_teardown(a_zero_vector_has_a_cosine_of_0_with_everything, free_blocks),
        cmocka_unit_test_teardown(nan_or_infinity_in_a_vector_shows_in_its_cosines, free_blocks),
        cmocka_unit_test_teardown(softcap_bias_and_alibi_come_in_this_order, free_blocks),
        cmocka_unit_test_teardown(sigmoid_weights_are_elementwise_and_not_normalised, free_blocks),
        cmocka_unit_test_teardown(relu2_weights_are_squares_of_what_is_positive, free_blocks),
        cmocka_unit_test_teardown(a_normalised_sum_of_zero_gives_a_row_of_zeros, free_blocks),
        cmocka_unit_test_teardown(a_score_of_plus_infinity_gives_nan_under_softmax_and_its_lse_is_infinite, free_blocks),
        cmocka_unit_test_teardown(a_score_of_plus_infinity_is_1_under_sigmoid_and_nan_under_the_normalised_sum, free_blocks),
        cmocka_unit_test_teardown(live_scores_of_minus_infinity_alone_share_nothing_out, free_blocks),
        cmocka_unit_test_teardown(a_live_key_of_weight_zero_follows_ieee, free_blocks),
        cmocka_unit_test_teardown(sixteen_bit_inputs_are_rounded_once_at_the_end, free_blocks),
        cmocka_unit_test_teardown(f64_accumulates_in_f64_and_may_be_kept_in_f32, free_blocks),
        cmocka_unit_test_teardown(f32_attention_on_normal_inputs_is_within_2e_6_relative_rms, free_blocks),
        cmocka_unit_test_teardown(huge_scores_stay_within_the_published_function_of_their_size, free_blocks),
        cmocka_unit_test_teardown(random_problems_agree_with_the_reference_within_the_published_bounds, free_blocks),
        cmocka_unit_test_teardown(normalised_sums_of_one_sign_are_within_the_rms_bound, free_blocks),
        cmocka_unit_test_teardown(permuting_keys_with_their_values_changes_nothing_beyond_rounding, free_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
