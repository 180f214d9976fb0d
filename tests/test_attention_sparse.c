/* SPDX-License-Identifier: Apache-2.0 */
/* Weightings that leave most keys out: sparsemax, entmax, hardmax. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "attention_bounds.h"

static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_BF16 };
static const int32_t sparse[] = { ATTN_WEIGHT_SPARSEMAX, ATTN_WEIGHT_ENTMAX15, ATTN_WEIGHT_ENTMAX, ATTN_WEIGHT_HARDMAX };
enum { B = 2, H = 2, L = 37, S = 170 };

static attn_attention_args usual(int32_t dtype, int32_t weighting) {
    attn_attention_args a = problem((problem_shape){ B, H, 1, H, L, S, 8, 5 }, dtype, 1);
    a.weighting = weighting;
    a.see = see_all(&a, 3);
    return a;
}

/* One row with these scores over values 1, 2, ... */
static attn_attention_args row_of(int32_t dtype, int32_t weighting, int64_t n, const double *scores) {
    attn_attention_args a = problem((problem_shape){ 1, 1, 1, 1, 1, n, 1, 1 }, dtype, 2);
    a.weighting = weighting;
    a.scale = 1;
    fill(a.q, 1);
    for (int64_t j = 0; j < n; j++) put(a.k, j, scores[j]), put(a.v, j, (double)(j + 1));
    a.see = see_all(&a, n);
    return a;
}

static void sparsemax_shares_what_is_above_its_threshold(void **state) {
    (void)state;
    for (int t = 0; t < 3; t++) {
        attn_attention_args a = row_of(dtypes[t], ATTN_WEIGHT_SPARSEMAX, 4, (double[]){ 1, 0.5, -1, 0.25 });
        attend(&a); /* tau = (1 + 0.5 + 0.25 - 1) / 3 = 0.25 */
        static const double p[] = { 0.75, 0.25, 0, 0 };
        for (int j = 0; j < 4; j++) assert_true(get(a.see.weights, j) == p[j]);
        assert_close(get(a.see.entropy, 0), -0.75 * log(0.75) - 0.25 * log(0.25), 1e-7);
        assert_close(get(a.out, 0), 0.75 + 0.5, 0.01);
    }
}

static void entmax_is_sparsemax_at_2_and_softmax_at_1(void **state) {
    (void)state;
    static const double alphas[] = { 2, 1.5, 0, 1 };
    static const int32_t same[] = { ATTN_WEIGHT_SPARSEMAX, ATTN_WEIGHT_ENTMAX15, ATTN_WEIGHT_ENTMAX15, ATTN_WEIGHT_SOFTMAX };
    for (int i = 0; i < 8; i++) {
        attn_attention_args a = usual(dtypes[i / 4], ATTN_WEIGHT_ENTMAX), b = usual(dtypes[i / 4], same[i % 4]);
        a.alpha = alphas[i % 4];
        attend(&a);
        attend(&b);
        assert_all_close("weights", a.see.weights, b.see.weights, i < 4 ? 1e-6 : 1e-14);
        assert_all_close("entropy", a.see.entropy, b.see.entropy, i < 4 ? 1e-5 : 1e-12);
        free_blocks(NULL);
    }
}

static void hardmax_is_1_for_the_first_largest_score(void **state) {
    (void)state;
    for (int t = 0; t < 3; t++) {
        attn_attention_args a = row_of(dtypes[t], ATTN_WEIGHT_HARDMAX, 5, (double[]){ 1, 3, -2, 3, 0 });
        attend(&a);
        for (int j = 0; j < 5; j++) assert_true(get(a.see.weights, j) == (j == 1));
        assert_true(get(a.out, 0) == 2 && get(a.see.entropy, 0) == 0);
        put(a.k, 4, INFINITY);
        attend(&a);
        assert_true(get(a.out, 0) == 5);
        fill(a.bias = tensor1(dtypes[t], 5), 0);
        put(a.bias, 4, -INFINITY); /* masked now */
        attend(&a);
        assert_true(get(a.out, 0) == 2);
    }
}

static void a_live_nan_or_infinity_shows_in_the_rows_that_see_it(void **state) {
    (void)state;
    for (int n = 0; n < 24; n++) {
        int32_t weighting = sparse[n / 2 % 4];
        bool picked = n % 2 && weighting == ATTN_WEIGHT_HARDMAX;
        attn_attention_args a = usual(dtypes[n / 8], weighting);
        a.causal = ATTN_CAUSAL;
        fill(a.bias = tensor1(dtypes[n / 8], S), 0);
        put(a.bias, S - 4, n % 2 ? INFINITY : NAN); /* the last four rows see it */
        attend(&a);
        for (int64_t row = 0; row < B * H * L; row++) {
            bool sees = row % L >= L - 4;
            assert_true(isnan(get(a.out, row * 5)) == (sees && !picked));
            assert_true(isnan(get(a.see.weights, row * S)) == (sees && !picked));
            if (sees && picked) assert_true(get(a.see.weights, row * S + S - 4) == 1);
        }
        free_blocks(NULL);
    }
}

static void masked_keys_leave_no_trace_and_masked_rows_are_0(void **state) {
    (void)state;
    for (int n = 0; n < 12; n++) {
        int32_t dtype = dtypes[n / 4];
        attn_attention_args a = usual(dtype, sparse[n % 4]), b = a;
        uint64_t seed = 4;
        fill(a.mask = tensor2(ATTN_BOOL, L, S), 1);
        for (int64_t j = 0; j < S; j++) put(a.mask, 5 * S + j, 0);
        for (int64_t i = 0; i < L; i++) put(a.mask, i * S + 9, 0);
        b = a;
        b.k = dense_copy(a.k, dtype), b.v = dense_copy(a.v, dtype);
        b.out = tensor_of(dtype, 4, a.out.shape);
        b.see = see_all(&b, 3);
        for (int64_t x = 0; x < attn_count(&b.k); x++)
            if (x / 8 % S == 9) put(b.k, x, NAN);
        for (int64_t x = 0; x < attn_count(&b.v); x++)
            if (x / 5 % S == 9) put(b.v, x, INFINITY);
        attn_attention_grads g = { .dout = tensor_of(dtype, 4, a.out.shape), .dq = tensor_of(dtype, 4, a.q.shape) }, h = g;
        g.dk = tensor_of(dtype, 4, a.k.shape), h.dk = tensor_of(dtype, 4, a.k.shape), h.dq = tensor_of(dtype, 4, a.q.shape);
        fill_normal(g.dout, &seed);
        attend(&a), attend(&b);
        assert_same_bits("out", a.out, b.out);
        assert_same_bits("weights", a.see.weights, b.see.weights);
        for (int64_t c = 0; c < 5; c++) assert_true(get4(a.out, 1, 1, 5, c) == 0 && get3(a.see.entropy, 1, 1, 5) == 0);
        attend_backward(&a, &g), attend_backward(&b, &h);
        assert_same_bits("dq", g.dq, h.dq);
        assert_same_bits("dk", g.dk, h.dk);
        if (sparse[n % 4] == ATTN_WEIGHT_HARDMAX) assert_all("dq", g.dq, 0), assert_all("dk", g.dk, 0);
        free_blocks(NULL);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(sparsemax_shares_what_is_above_its_threshold, free_blocks),
        cmocka_unit_test_teardown(entmax_is_sparsemax_at_2_and_softmax_at_1, free_blocks),
        cmocka_unit_test_teardown(hardmax_is_1_for_the_first_largest_score, free_blocks),
        cmocka_unit_test_teardown(a_live_nan_or_infinity_shows_in_the_rows_that_see_it, free_blocks),
        cmocka_unit_test_teardown(masked_keys_leave_no_trace_and_masked_rows_are_0, free_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
