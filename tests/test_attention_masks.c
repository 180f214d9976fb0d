/* SPDX-License-Identifier: Apache-2.0 */
/* Which keys a query sees - positions, causal masks, windows, masks, biases, lengths - and what comes of those it does not. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "attention_bounds.h"

enum { B = 2, H = 4, L = 9, S = 13 };

static attn_attention_args usual(int32_t dtype) { return problem((problem_shape){ B, H, 2, 4, L, S, 8, 5 }, dtype, 77); }

/* Asserts that exactly the keys for which `sees` is true have weight. */
typedef bool (*sees_key)(const attn_attention_args *a, int64_t b, int64_t h, int64_t i, int64_t j);

static void assert_sees(attn_attention_args a, sees_key sees) {
    a.out = tensor4(a.q.dtype, a.q.shape[0], a.q.shape[1], a.q.shape[2], a.v.shape[3]);
    a.see.weights = tensor4(accumulator(a.q.dtype), a.q.shape[0], a.q.shape[1], a.q.shape[2], a.k.shape[2]);
    attend(&a);
    for (int64_t b = 0; b < a.q.shape[0]; b++)
        for (int64_t h = 0; h < a.q.shape[1]; h++)
            for (int64_t i = 0; i < a.q.shape[2]; i++)
                for (int64_t j = 0; j < a.k.shape[2]; j++) {
                    double p = get4(a.see.weights, b, h, i, j);
                    bool live = sees(&a, b, h, i, j);
                    if (live ? !(p > 0) : p != 0)
                        fail_msg("query %d, key %d (entry %d, head %d): weight %g", (int)i, (int)j, (int)b, (int)h, p);
                }
}

/* ---- position ------------------------------------------------------------------------------------------------ */

static bool below_the_last_diagonal(const attn_attention_args *a, int64_t b, int64_t h, int64_t i, int64_t j) {
    (void)b, (void)h;
    return j <= i + a->k.shape[2] - a->q.shape[2];
}

static void causal_puts_the_last_query_on_the_last_key(void **state) {
    (void)state;
    attn_attention_args a = usual(ATTN_F32);
    a.causal = ATTN_CAUSAL;
    assert_sees(a, below_the_last_diagonal);
    attn_attention_args tall = problem((problem_shape){ 1, 1, 1, 1, 11, 4, 3, 2 }, ATTN_F32, 1); /* 7 rows see nothing */
    tall.causal = ATTN_CAUSAL;
    assert_sees(tall, below_the_last_diagonal);
}

static bool below_the_first_diagonal(const attn_attention_args *a, int64_t b, int64_t h, int64_t i, int64_t j) {
    (void)a, (void)b, (void)h;
    return j <= i;
}

static void causal_top_left_means_offset_0(void **state) {
    (void)state;
    attn_attention_args a = usual(ATTN_F32), b = a;
    a.causal = ATTN_CAUSAL_TOP_LEFT;
    assert_sees(a, below_the_first_diagonal);
    b.causal = ATTN_CAUSAL;
    b.offset = values1(ATTN_I32, 1, (double[]){ 0 });
    assert_sees(b, below_the_first_diagonal);
}

static bool below_its_entry_s_offset(const attn_attention_args *a, int64_t b, int64_t h, int64_t i, int64_t j) {
    (void)h;
    return j <= i + (int64_t)get(a->offset, a->offset.shape[0] == 1 ? 0 : b);
}

static void an_offset_says_where_query_0_stands_for_all_or_for_each_entry(void **state) {
    (void)state;
    static const double offsets[][2] = { { 0, 3 }, { -4, 20 }, { 100, -100 }, { 4503599627370496, -4503599627370496 } };
    for (int i = 0; i < 4; i++) {
        attn_attention_args a = usual(ATTN_F32);
        a.causal = ATTN_CAUSAL;
        a.offset = values1(i % 2 ? ATTN_I32 : ATTN_I64, 2, offsets[i]);
        if (i == 3) a.offset = values1(ATTN_I64, 2, offsets[i]);
        assert_sees(a, below_its_entry_s_offset);
        a.offset = values1(ATTN_I64, 1, offsets[i]);
        assert_sees(a, below_its_entry_s_offset);
    }
}

/* ---- window --------------------------------------------------------------------------------------------------- */

static bool in_the_window(const attn_attention_args *a, int64_t b, int64_t h, int64_t i, int64_t j) {
    (void)b, (void)h;
    int64_t position = i + (a->causal == ATTN_CAUSAL_TOP_LEFT ? 0 : a->k.shape[2] - a->q.shape[2]);
    if (a->window[0] >= 0 && j < position && position - j > a->window[0]) return false;
    if (a->window[1] >= 0 && j > position && j - position > a->window[1]) return false;
    return a->causal == ATTN_NOT_CAUSAL || j <= position;
}

static void a_window_keeps_left_and_right_of_the_position_and_composes_with_causal(void **state) {
    (void)state;
    static const int64_t windows[][2] = { { 0, 0 }, { 2, 1 },  { -1, 0 },        { 3, -1 },       { -1, -1 },
                                          { 0, 5 }, { 20, 0 }, { INT64_MAX, 1 }, { 1, INT64_MAX } };
    for (int i = 0; i < 9; i++)
        for (int32_t causal = ATTN_NOT_CAUSAL; causal <= ATTN_CAUSAL_TOP_LEFT; causal++) {
            attn_attention_args a = usual(ATTN_F32);
            a.flags = ATTN_WINDOW;
            a.window[0] = windows[i][0];
            a.window[1] = windows[i][1];
            a.causal = causal;
            assert_sees(a, in_the_window);
            free_blocks(NULL);
        }
}

static void a_window_given_as_a_mask_equals_the_window(void **state) {
    (void)state;
    attn_attention_args a = problem((problem_shape){ 1, 2, 2, 2, 90, 150, 16, 8 }, ATTN_F32, 5), b = a;
    a.flags = ATTN_WINDOW;
    a.window[0] = 17;
    a.window[1] = 3;
    b.mask = tensor2(ATTN_BOOL, 90, 150);
    b.out = tensor4(ATTN_F32, 1, 2, 90, 8);
    for (int64_t i = 0; i < 90; i++)
        for (int64_t j = 0; j < 150; j++) put(b.mask, i * 150 + j, in_the_window(&a, 0, 0, i, j));
    attend(&a);
    attend(&b);
    assert_rms_within("out", b.out, a.out, 2 * rms_bound_f32);
}

/* ---- mask, bias, ALiBi ------------------------------------------------------------------------------------------ */

static bool where_the_mask_is_true(const attn_attention_args *a, int64_t b, int64_t h, int64_t i, int64_t j) {
    attn_tensor full;
    assert_int_equal(attn_broadcast("mask", &a->mask, 4, (int64_t[]){ B, H, L, S }, &full), ATTN_OK);
    return get4(full, b, h, i, j) != 0;
}

static void a_boolean_mask_is_true_where_a_query_attends_and_broadcasts(void **state) {
    (void)state;
    static const int64_t shapes[][4] = { { 1, 1, 1, S }, { 1, 1, L, S }, { B, 1, 1, S }, { B, H, L, S },
                                         { 1, H, L, 1 }, { B, 1, L, 1 }, { 1, 1, 1, 1 } };
    uint64_t seed = 8;
    for (int i = 0; i < 7; i++)
        for (int32_t rank = 4; rank >= 1; rank--) {
            bool drops_only_ones = true;
            for (int axis = 0; axis < 4 - rank; axis++) drops_only_ones &= shapes[i][axis] == 1;
            if (!drops_only_ones) break;
            attn_attention_args a = usual(ATTN_F32);
            a.mask = tensor_of(ATTN_BOOL, rank, shapes[i] + (4 - rank));
            fill_coin(a.mask, &seed, 0.6);
            assert_sees(a, where_the_mask_is_true);
            free_blocks(NULL);
        }
    attn_attention_args a = usual(ATTN_F32);
    a.mask = tensor4(ATTN_BOOL, 1, 1, L, S); /* repeated by stride 0 at full extent */
    fill_coin(a.mask, &seed, 0.6);
    a.mask.shape[0] = B;
    a.mask.shape[1] = H;
    a.mask.stride[0] = a.mask.stride[1] = 0;
    assert_sees(a, where_the_mask_is_true);
}

static void any_nonzero_byte_of_a_mask_is_true(void **state) {
    (void)state;
    attn_attention_args a = usual(ATTN_F32);
    a.mask = tensor1(ATTN_BOOL, S);
    for (int64_t j = 0; j < S; j++) ((uint8_t *)a.mask.data)[j] = j % 3 ? (uint8_t)(1u << j % 8) : 0;
    assert_sees(a, where_the_mask_is_true);
}

static bool where_the_bias_is_finite(const attn_attention_args *a, int64_t b, int64_t h, int64_t i, int64_t j) {
    attn_tensor full;
    assert_int_equal(attn_broadcast("bias", &a->bias, 4, (int64_t[]){ B, H, L, S }, &full), ATTN_OK);
    return get4(full, b, h, i, j) != -INFINITY;
}

static void a_bias_is_added_broadcasts_and_masks_where_it_is_minus_infinity(void **state) {
    (void)state;
    static const int64_t shapes[][4] = { { 1, 1, 1, S }, { 1, H, L, S }, { B, 1, 1, S }, { B, H, L, 1 } };
    uint64_t seed = 9;
    for (int i = 0; i < 4; i++) {
        attn_attention_args a = usual(ATTN_F32);
        a.bias = tensor_of(ATTN_F32, 4, shapes[i]);
        fill_normal(a.bias, &seed);
        for (int64_t n = 0; n < attn_count(&a.bias); n += 3) put(a.bias, n, -INFINITY);
        assert_sees(a, where_the_bias_is_finite);
        attn_attention_args exact = in_f64(a);
        attend(&a);
        attend_by_reference(&exact);
        assert_within_published_bounds(&a, &exact);
    }
}

static void a_bias_of_f32_serves_16_bit_inputs(void **state) {
    (void)state;
    attn_attention_args a = usual(ATTN_BF16), exact;
    uint64_t seed = 10;
    a.out = tensor4(ATTN_F32, B, H, L, 5);
    a.bias = tensor2(ATTN_F32, L, S);
    fill_normal(a.bias, &seed);
    exact = in_f64(a);
    attend(&a);
    attend_by_reference(&exact);
    assert_rms_within("out", a.out, exact.out, rms_bound_f32);
}

static void alibi_is_a_bias_of_minus_slope_times_distance(void **state) {
    (void)state;
    for (int with_batch = 0; with_batch < 2; with_batch++) {
        attn_attention_args a = usual(ATTN_F64), b = a;
        a.alibi = with_batch ? tensor2(ATTN_F64, B, H) : tensor1(ATTN_F64, H);
        for (int64_t n = 0; n < attn_count(&a.alibi); n++) put(a.alibi, n, 0.5 / (double)(n + 1));
        b.bias = tensor4(ATTN_F64, B, H, L, S);
        b.out = tensor4(ATTN_F64, B, H, L, 5);
        a.causal = b.causal = ATTN_CAUSAL; /* ALiBi stands on the same positions */
        for (int64_t n = 0; n < B * H * L * S; n++) {
            int64_t e = n / (H * L * S), h = n / (L * S) % H, i = n / S % L, j = n % S;
            put(b.bias, n, -get(a.alibi, with_batch ? e * H + h : h) * (double)llabs(i + S - L - j));
        }
        attend(&a);
        attend(&b);
        assert_rms_within("out", a.out, b.out, rms_bound_f64);
    }
}

/* ---- lengths ------------------------------------------------------------------------------------------------------ */

static bool within_the_lengths(const attn_attention_args *a, int64_t b, int64_t h, int64_t i, int64_t j) {
    (void)h;
    int64_t l = (int64_t)get(a->q_lengths, b), s = (int64_t)get(a->kv_lengths, b);
    return i < l && j < s && (!a->causal || j <= i + (a->causal == ATTN_CAUSAL ? s - l : 0));
}

static void keys_beyond_a_length_are_masked_and_queries_beyond_see_nothing(void **state) {
    (void)state;
    static const double q_lengths[][2] = { { 9, 4 }, { 0, 9 }, { 5, 1 } }, kv_lengths[][2] = { { 13, 6 }, { 13, 0 }, { 2, 7 } };
    for (int i = 0; i < 3; i++)
        for (int32_t causal = ATTN_NOT_CAUSAL; causal <= ATTN_CAUSAL_TOP_LEFT; causal++) {
            attn_attention_args a = usual(ATTN_F32);
            a.q_lengths = values1(ATTN_I32, 2, q_lengths[i]);
            a.kv_lengths = values1(ATTN_I64, 2, kv_lengths[i]);
            a.causal = causal; /* bottom-right: each entry's last query stands on its own last key */
            assert_sees(a, within_the_lengths);
            free_blocks(NULL);
        }
}

/* ---- what is masked leaves no trace -------------------------------------------------------------------------------- */

enum { BY_MASK, BY_BIAS, BY_LENGTH, BY_CAUSAL, BY_WINDOW, WAYS };

/* Keys 7 .. 12 hidden from every row. */
static attn_attention_args hidden_tail(int way, int32_t dtype) {
    attn_attention_args a = usual(dtype);
    if (way == BY_MASK || way == BY_BIAS) {
        attn_tensor t = tensor1(way == BY_MASK ? ATTN_BOOL : dtype, S);
        for (int64_t j = 0; j < S; j++) put(t, j, way == BY_MASK ? j < 7 : j < 7 ? 0.25 : -INFINITY);
        if (way == BY_MASK) a.mask = t;
        if (way == BY_BIAS) a.bias = t;
    }
    if (way == BY_LENGTH) a.kv_lengths = values1(ATTN_I32, 2, (double[]){ 7, 7 });
    if (way == BY_CAUSAL) a.causal = ATTN_CAUSAL;
    if (way == BY_WINDOW) {
        a.flags = ATTN_WINDOW;
        a.window[0] = -1;
    }
    if (way == BY_CAUSAL || way == BY_WINDOW) a.offset = values1(ATTN_I32, 1, (double[]){ 6 - (L - 1) });
    return a;
}

static void nan_and_inf_of_masked_keys_do_not_leak(void **state) {
    (void)state;
    static const double poison[] = { NAN, INFINITY, -INFINITY };
    static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_BF16 };
    for (int n = 0; n < WAYS * 3 * 3; n++) {
        attn_attention_args a = hidden_tail(n % WAYS, dtypes[n / WAYS % 3]), b = a;
        a.see = see_all(&a, 4);
        b.see = see_all(&a, 4);
        b.k = dense_copy(a.k, a.k.dtype);
        b.v = dense_copy(a.v, a.v.dtype);
        b.out = tensor4(a.q.dtype, B, H, L, 5);
        for (int64_t r = 0; r < B * H * S; r++)
            if (r % S >= 7) {
                for (int64_t d = 0; d < 8 && r < B * 2 * S; d++) put(b.k, r * 8 + d, poison[n / WAYS / 3]);
                for (int64_t c = 0; c < 5; c++) put(b.v, r * 5 + c, poison[n / WAYS / 3]);
            }
        attend(&a);
        attend(&b);
        assert_same_bits("out", b.out, a.out);
        assert_same_bits("lse", b.see.lse, a.see.lse);
        assert_same_bits("entropy", b.see.entropy, a.see.entropy);
        assert_same_bits("received", b.see.received, a.see.received);
        assert_same_bits("weights", b.see.weights, a.see.weights);
        assert_same_bits("top_index", b.see.top_index, a.see.top_index);
        free_blocks(NULL);
    }
}

static void a_nan_bias_does_not_leak_from_where_the_mask_is_false(void **state) {
    (void)state;
    attn_attention_args a = hidden_tail(BY_MASK, ATTN_F32), b = a;
    b.out = tensor4(ATTN_F32, B, H, L, 5);
    a.bias = tensor1(ATTN_F32, S);
    b.bias = tensor1(ATTN_F32, S);
    for (int64_t j = 0; j < S; j++) {
        put(a.bias, j, 0.5);
        put(b.bias, j, j < 7 ? 0.5 : j % 2 ? NAN : INFINITY);
    }
    attend(&a);
    attend(&b);
    assert_same_bits("out", b.out, a.out);
}

/* Key 3's k and v are bad; row 2 does not see them, the others do. */
static void a_key_masked_from_one_row_only_shows_in_the_others(void **state) {
    (void)state;
    for (int32_t dtype = ATTN_F32; dtype <= ATTN_F64; dtype += ATTN_F64 - ATTN_F32) {
        attn_attention_args a = usual(dtype), clean = a;
        a.k = dense_copy(a.k, dtype);
        a.v = dense_copy(a.v, dtype);
        clean.mask = a.mask = tensor2(ATTN_BOOL, L, S);
        clean.out = tensor4(dtype, B, H, L, 5);
        fill(a.mask, 1);
        put(a.mask, 2 * S + 3, 0);
        for (int64_t d = 0; d < 8; d++) put4(a.k, 1, 1, 3, d, d ? NAN : INFINITY);
        put4(a.v, 0, 2, 3, 1, INFINITY);
        attend(&a);
        attend(&clean);
        for (int64_t n = 0; n < B * H * L * 5; n++) {
            int64_t b = n / (H * L * 5), h = n / (L * 5) % H, i = n / 5 % L, c = n % 5;
            bool bad_key = b == 1 && h / 2 == 1 && i != 2, bad_value = b == 0 && h == 2 && c == 1 && i != 2;
            if (bad_key)
                assert_true(isnan(get(a.out, n)));
            else if (bad_value)
                assert_true(get(a.out, n) == INFINITY);
            else
                assert_true(get(a.out, n) == get(clean.out, n));
        }
    }
}

static void nan_in_a_live_query_shows_in_its_row_and_nowhere_else(void **state) {
    (void)state;
    attn_attention_args a = usual(ATTN_F32), clean = a;
    a.q = dense_copy(a.q, ATTN_F32);
    clean.out = tensor4(ATTN_F32, B, H, L, 5);
    put4(a.q, 1, 2, 4, 7, NAN);
    attend(&a);
    attend(&clean);
    for (int64_t n = 0; n < B * H * L * 5; n++) {
        int64_t row = n / 5;
        if (row == (1 * H + 2) * L + 4)
            assert_true(isnan(get(a.out, n)));
        else
            assert_true(get(a.out, n) == get(clean.out, n));
    }
}

/* A NaN's other bits are anything: those of memory set to 0xff, for one. */
static void a_live_nan_shows_whatever_its_payload(void **state) {
    (void)state;
    for (int32_t dtype = ATTN_F32; dtype <= ATTN_F64; dtype += ATTN_F64 - ATTN_F32) {
        attn_attention_args a = usual(dtype);
        size_t size = attn_dtype_size(dtype);
        attn_attention_grads g = { .dout = dense_copy(a.out, dtype), .dq = tensor_of(dtype, 4, a.q.shape) };
        fill(g.dout, 1);
        a.k = dense_copy(a.k, dtype);
        memset(attn_at(&a.k, 3 * a.k.stride[2]), 0xff, size); /* entry 0, key head 0: its query heads' rows all see it */
        a.see.lse = tensor3(accumulator(dtype), B, H, L);
        attend(&a);
        attend_backward(&a, &g);
        for (int64_t i = 0; i < L; i++) {
            assert_true(isnan(get4(a.out, 0, 0, i, 0)) && isnan(get3(a.see.lse, 0, 0, i)) && isnan(get4(g.dq, 0, 0, i, 0)));
            assert_true(isfinite(get4(a.out, 1, 0, i, 0)) && isfinite(get4(g.dq, 1, 0, i, 0)));
        }
    }
}

static void a_fully_masked_row_is_0_its_lse_minus_infinity_its_entropy_0(void **state) {
    (void)state;
    static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_F16 };
    for (int t = 0; t < 3; t++)
        for (int way = 0; way < WAYS; way++) {
            attn_attention_args a = usual(dtypes[t]);
            if (way == BY_MASK) fill(a.mask = tensor4(ATTN_BOOL, B, H, L, S), 0);
            if (way == BY_BIAS) fill(a.bias = tensor1(dtypes[t], S), -INFINITY);
            if (way == BY_LENGTH) a.kv_lengths = values1(ATTN_I32, 2, (double[]){ 0, 0 });
            if (way == BY_CAUSAL) a.causal = ATTN_CAUSAL;
            if (way == BY_WINDOW) a.flags = ATTN_WINDOW;
            if (way == BY_CAUSAL || way == BY_WINDOW) a.offset = values1(ATTN_I32, 1, (double[]){ -20 });
            fill(a.v, NAN);
            for (int32_t w = ATTN_WEIGHT_SOFTMAX; w <= ATTN_WEIGHT_NORMALIZED_SUM; w++) {
                a.weighting = w;
                a.see = see_all(&a, 3);
                attend(&a);
                assert_all("out", a.out, 0);
                assert_all("received", a.see.received, 0);
                assert_all("weights", a.see.weights, 0);
                assert_all("scores", a.see.scores, -INFINITY);
                assert_all("top_index", a.see.top_index, -1);
                assert_all("top_weight", a.see.top_weight, 0);
                if (w != ATTN_WEIGHT_SOFTMAX) continue;
                assert_all("lse", a.see.lse, -INFINITY);
                assert_all("entropy", a.see.entropy, 0);
            }
            free_blocks(NULL);
        }
}

/* ---- blocks of rows ------------------------------------------------------------------------------------------------ */

static void the_keys_of_a_block_of_rows_are_those_of_its_rows(void **state) {
    (void)state;
    uint64_t seed = 12;
    for (int n = 0; n < 20000; n++) {
        attn_sight s = { between(&seed, 0, 12), between(&seed, 0, 12), between(&seed, -8, 8),
                         between(&seed, -1, 5), between(&seed, -1, 5), n % 4 == 0 };
        int64_t i0 = between(&seed, 0, 12), i1 = between(&seed, i0 + 1, 14);
        attn_block_keys keys = attn_rows_keys(&s, i0, i1);
        for (int64_t j = 0; j < 12; j++) {
            bool some = false, all = true;
            for (int64_t i = i0; i < i1; i++) {
                attn_key_range r = attn_row_keys(&s, i);
                bool live = j >= r.begin && j < r.end;
                some |= live;
                all &= live;
            }
            assert_true(!some || (j >= keys.some.begin && j < keys.some.end));
            assert_true(all == (j >= keys.all.begin && j < keys.all.end));
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(causal_puts_the_last_query_on_the_last_key, free_blocks),
        cmocka_unit_test_teardown(causal_top_left_means_offset_0, free_blocks),
        cmocka_unit_test_teardown(an_offset_says_where_query_0_stands_for_all_or_for_each_entry, free_blocks),
        cmocka_unit_test_teardown(a_window_keeps_left_and_right_of_the_position_and_composes_with_causal, free_blocks),
        cmocka_unit_test_teardown(a_window_given_as_a_mask_equals_the_window, free_blocks),
        cmocka_unit_test_teardown(a_boolean_mask_is_true_where_a_query_attends_and_broadcasts, free_blocks),
        cmocka_unit_test_teardown(any_nonzero_byte_of_a_mask_is_true, free_blocks),
        cmocka_unit_test_teardown(a_bias_is_added_broadcasts_and_masks_where_it_is_minus_infinity, free_blocks),
        cmocka_unit_test_teardown(a_bias_of_f32_serves_16_bit_inputs, free_blocks),
        cmocka_unit_test_teardown(alibi_is_a_bias_of_minus_slope_times_distance, free_blocks),
        cmocka_unit_test_teardown(keys_beyond_a_length_are_masked_and_queries_beyond_see_nothing, free_blocks),
        cmocka_unit_test_teardown(nan_and_inf_of_masked_keys_do_not_leak, free_blocks),
        cmocka_unit_test_teardown(a_nan_bias_does_not_leak_from_where_the_mask_is_false, free_blocks),
        cmocka_unit_test_teardown(a_key_masked_from_one_row_only_shows_in_the_others, free_blocks),
        cmocka_unit_test_teardown(nan_in_a_live_query_shows_in_its_row_and_nowhere_else, free_blocks),
        cmocka_unit_test_teardown(a_live_nan_shows_whatever_its_payload, free_blocks),
        cmocka_unit_test_teardown(a_fully_masked_row_is_0_its_lse_minus_infinity_its_entropy_0, free_blocks),
        cmocka_unit_test_teardown(the_keys_of_a_block_of_rows_are_those_of_its_rows, free_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
