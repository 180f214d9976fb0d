/* SPDX-License-Identifier: Apache-2.0 */
/* Dropout of attention's weights: which ones, how many, and what does not change it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "attention_bounds.h"

#include "src/philox.h"

static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_BF16 };
enum { B = 2, H = 3, L = 45, S = 150 };

/* Values are the identity: out is the weights after dropout. */
static attn_attention_args dropped_weights(int32_t dtype, double p, uint64_t seed) {
    attn_attention_args a = problem((problem_shape){ B, H, 1, 1, L, S, 8, S }, dtype, 1);
    for (int64_t n = 0; n < attn_count(&a.v); n++) put(a.v, n, n / S % S == n % S);
    a.out = tensor4(accumulator(dtype), B, H, L, S);
    a.dropout = p;
    a.seed = seed;
    a.see.weights = tensor4(accumulator(dtype), B, H, L, S);
    return a;
}

/* SEMANTICS.md, word by word. */
static bool is_dropped(double p, uint64_t key, int64_t b, int64_t h, int64_t i, int64_t j) {
    attn_philox counter = { { (uint32_t)(j / 4), (uint32_t)i, (uint32_t)b, (uint32_t)h } };
    return (double)attn_philox_words(counter, key).word[j % 4] < round(p * 0x1p32);
}

static void assert_dropped(const attn_attention_args *a, uint64_t key) {
    double unit = a->q.dtype == ATTN_F64 ? 1e-15 : 3e-7;
    for (int64_t n = 0; n < B * H * L * S; n++) {
        bool dropped = is_dropped(a->dropout, key, n / S / L / H, n / S / L % H, n / S % L, n % S);
        double kept = get(a->see.weights, n) / (1 - a->dropout);
        if (dropped) assert_true(get(a->out, n) == 0);
        if (!dropped) assert_close(get(a->out, n), kept, unit * kept);
    }
}

static void the_dropped_weights_are_those_that_philox_says(void **state) {
    (void)state;
    static const double rates[] = { 1e-12, 0.1, 0.5, 0.75, 0.999 };
    static const uint64_t seeds[] = { 0, 1, 0xffffffffu, 0x123456789abcdef0u, UINT64_MAX };
    for (int t = 0; t < 3; t++)
        for (int i = 0; i < (dtypes[t] == ATTN_BF16 ? 2 : 5); i++)
            for (int32_t w = ATTN_WEIGHT_SOFTMAX; w <= ATTN_WEIGHT_SIGMOID; w++) {
                attn_attention_args a = dropped_weights(dtypes[t], rates[i], seeds[i]);
                a.weighting = w;
                attend(&a);
                assert_dropped(&a, seeds[i]);
                free_blocks(NULL);
            }
}

static void the_offset_changes_the_key(void **state) {
    (void)state;
    attn_attention_args a = dropped_weights(ATTN_F32, 0.4, 99);
    a.dropout_offset = 0x500000007u;
    attn_philox words = attn_philox_words((attn_philox){ { 7, 5, 0, 0 } }, 99);
    attend(&a);
    assert_dropped(&a, words.word[0] | (uint64_t)words.word[1] << 32);
}

static void the_share_that_is_dropped_is_p(void **state) {
    (void)state;
    static const double rates[] = { 0.05, 0.3, 0.9 };
    for (int r = 0; r < 3; r++) {
        attn_attention_args a = dropped_weights(ATTN_F32, rates[r], 3);
        attend(&a);
        double n = B * H * L * S, dropped = 0;
        for (int64_t i = 0; i < attn_count(&a.out); i++) dropped += get(a.out, i) == 0;
        assert_close(dropped / n, rates[r], 4 * sqrt(rates[r] * (1 - rates[r]) / n));
    }
}

static void dropout_of_0_is_none_and_of_1_leaves_nothing(void **state) {
    (void)state;
    for (int t = 0; t < 3; t++) {
        attn_attention_args a = problem((problem_shape){ B, H, 1, 1, L, S, 8, 4 }, dtypes[t], 2), none = a;
        a.seed = 5;
        none.out = tensor_of(dtypes[t], 4, a.out.shape);
        attend(&a);
        attend(&none);
        assert_same_bits("out", a.out, none.out);
        a.dropout = 1;
        attend(&a);
        assert_all("out", a.out, 0);
        attn_attention_args denominators = a;
        denominators.dropout = nextafter(1, 0); /* rounds to all of 2^32 */
        attend(&denominators);
        assert_all("out", denominators.out, 0);
        attn_attention_grads g = { .dout = dense_copy(none.out, dtypes[t]),
                                   .dq = tensor_of(dtypes[t], 4, a.q.shape),
                                   .dk = tensor_of(dtypes[t], 4, a.k.shape),
                                   .dv = tensor_of(dtypes[t], 4, a.v.shape) };
        attend_backward(&a, &g);
        assert_all("dq", g.dq, 0);
        assert_all("dk", g.dk, 0);
        assert_all("dv", g.dv, 0);
        free_blocks(NULL);
    }
}

static void what_is_seen_is_before_dropout(void **state) {
    (void)state;
    for (int t = 0; t < 3; t++) {
        attn_attention_args a = problem((problem_shape){ B, H, 1, 1, L, S, 8, 4 }, dtypes[t], 3), b = a;
        a.see = see_all(&a, 3);
        b.see = see_all(&b, 3);
        b.out = tensor_of(dtypes[t], 4, a.out.shape);
        b.dropout = 0.5;
        attend(&a);
        attend(&b);
        assert_same_bits("lse", a.see.lse, b.see.lse);
        assert_same_bits("entropy", a.see.entropy, b.see.entropy);
        assert_same_bits("weights", a.see.weights, b.see.weights);
        assert_same_bits("received", a.see.received, b.see.received);
        assert_same_bits("top_weight", a.see.top_weight, b.see.top_weight);
        free_blocks(NULL);
    }
}

/* Neither keys masked away in front of a window, nor padding, nor other rows move a row's draws. */
static void dropout_does_not_depend_on_what_surrounds_a_row(void **state) {
    (void)state;
    attn_attention_args a = problem((problem_shape){ B, H, 1, 1, L, S, 8, 4 }, ATTN_F32, 4), b = a, c = a;
    a.dropout = b.dropout = c.dropout = 0.5;
    a.flags = b.flags = ATTN_WINDOW;
    a.window[0] = b.window[0] = 13;
    a.window[1] = b.window[1] = 6;
    attend(&a);
    b.flags = 0;
    b.window[0] = b.window[1] = 0;
    b.mask = tensor2(ATTN_BOOL, L, S);
    for (int64_t n = 0; n < L * S; n++) put(b.mask, n, n % S - n / S >= S - L - 13 && n % S - n / S <= S - L + 6);
    b.out = tensor_of(ATTN_F32, 4, a.out.shape);
    attend(&b);
    assert_all_close("out", b.out, a.out, 1e-6);
    c.flags = ATTN_WINDOW;
    c.window[0] = 13;
    c.window[1] = 6;
    c.q.shape[2] = L - 7; /* the last rows are not there */
    c.offset = values1(ATTN_I32, 1, (double[]){ S - L });
    c.out = tensor4(ATTN_F32, B, H, L - 7, 4);
    attend(&c);
    a.out.shape[2] = L - 7;
    assert_same_bits("out", c.out, a.out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(the_dropped_weights_are_those_that_philox_says, free_blocks),
        cmocka_unit_test_teardown(the_offset_changes_the_key, free_blocks),
        cmocka_unit_test_teardown(the_share_that_is_dropped_is_p, free_blocks),
        cmocka_unit_test_teardown(dropout_of_0_is_none_and_of_1_leaves_nothing, free_blocks),
        cmocka_unit_test_teardown(what_is_seen_is_before_dropout, free_blocks),
        cmocka_unit_test_teardown(dropout_does_not_depend_on_what_surrounds_a_row, free_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
