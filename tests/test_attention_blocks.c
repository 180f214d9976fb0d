/* SPDX-License-Identifier: Apache-2.0 */
/* The blocked attention kernels where blocks, vectors and memory end: arrays right before a page nobody may touch, lengths and head
 * sizes around every block size, many units, chunks and waves of keys, extreme values. The reference says what is right. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/tensors.h"

#include "src/attention_reference.h"

/* ---- calls --------------------------------------------------------------------------------------------------- */

typedef struct call {
    attn_attention_args a;
    attn_attention_grads g;
} call;

static attn_tensor tensor4(int32_t dtype, int64_t b, int64_t h, int64_t n, int64_t d) {
    return tensor_of(dtype, 4, (int64_t[]){ b, h, n, d });
}

/* Two heads on one key head and two value heads; every array ends where its memory does. */
static call new_call(int32_t dtype, int64_t q_len, int64_t kv_len, int64_t dim, int64_t v_dim, uint64_t seed) {
    call c = { .a = { .q = tensor4(dtype, 1, 2, q_len, dim),
                      .k = tensor4(dtype, 1, 1, kv_len, dim),
                      .v = tensor4(dtype, 1, 2, kv_len, v_dim) },
               .g = { .dout = tensor4(dtype, 1, 2, q_len, v_dim) } };
    fill_normal(c.a.q, 1, &seed);
    fill_normal(c.a.k, 1, &seed);
    fill_normal(c.a.v, 1, &seed);
    fill_normal(c.g.dout, 1, &seed);
    return c;
}

/* The same inputs and outputs of its own: of what is computed in, so that nothing is hidden by rounding to 16 bits. */
static call with_outputs(call c, bool gradients) {
    int32_t dtype = c.a.q.dtype == ATTN_F64 ? ATTN_F64 : ATTN_F32;
    int64_t q_len = c.a.q.shape[2], kv_len = c.a.k.shape[2];
    c.a.out = tensor4(dtype, 1, 2, q_len, c.a.v.shape[3]);
    if (c.a.weighting == ATTN_WEIGHT_SOFTMAX) c.a.see.lse = tensor_of(dtype, 3, (int64_t[]){ 1, 2, q_len });
    c.a.see.received = tensor_of(dtype, 3, (int64_t[]){ 1, 2, kv_len });
    if (!gradients) return c;
    c.g.dq = tensor_of(dtype, 4, c.a.q.shape);
    c.g.dk = tensor_of(dtype, 4, c.a.k.shape);
    c.g.dv = tensor_of(dtype, 4, c.a.v.shape);
    if (c.a.bias.rank) c.g.dbias = tensor_of(dtype, c.a.bias.rank, c.a.bias.shape);
    if (c.a.alibi.rank) c.g.dalibi = tensor_of(dtype, c.a.alibi.rank, c.a.alibi.shape);
    if (c.a.score_weight.rank) c.g.dscore_weight = tensor_of(dtype, c.a.score_weight.rank, c.a.score_weight.shape);
    return c;
}

static void run(const call *c, const attn_exec *exec) {
    assert_ok(attn_attention(&c->a, exec));
    if (c->g.dq.rank) assert_ok(attn_attention_backward(&c->a, &c->g, exec));
}

static void run_reference(const call *c) {
    attn_attention_plan plan;
    attn_attention_plan_grads grads;
    attn_session session;
    assert_ok(attn_attention_plan_forward(&plan, &c->a, ATTN_PLAN_CALL));
    assert_ok(attn_session_open(&session, NULL, attn_reference_need(&plan)));
    attn_reference_forward(&plan, &session);
    attn_session_close(&session);
    if (!c->g.dq.rank) return;
    assert_ok(attn_attention_plan_backward(&plan, &grads, &c->a, &c->g, ATTN_PLAN_CALL));
    assert_ok(attn_session_open(&session, NULL, attn_reference_backward_need(&plan, &grads)));
    attn_reference_backward(&plan, &grads, &session);
    attn_session_close(&session);
}

/* ---- comparisons --------------------------------------------------------------------------------------------- */

/* The error of a whole tensor, relative to its size (and to 1e-3 per element where it is smaller). */
static void assert_near(const char *what, attn_tensor x, attn_tensor exact, double bound) {
    double error = 0, size = 0;
    if (!exact.rank) return;
    for (int64_t n = 0; n < attn_count(&exact); n++) {
        double e = get(exact, n), y = get(x, n);
        if (e == y || (isnan(e) && isnan(y))) continue;
        if (!isfinite(e) || !isfinite(y)) fail_msg("%s[%lld] is %g, not %g", what, (long long)n, y, e);
        error += (y - e) * (y - e);
    }
    for (int64_t n = 0; n < attn_count(&exact); n++) size += isfinite(get(exact, n)) ? get(exact, n) * get(exact, n) + 1e-6 : 0;
    if (!(sqrt(error) <= bound * sqrt(size))) fail_msg("%s is off by %g of its size, bound %g", what, sqrt(error / size), bound);
}

static void assert_calls_near(const call *c, const call *exact) {
    double unit = c->a.q.dtype == ATTN_F64 ? 1e-8 : 1;
    assert_near("out", c->a.out, exact->a.out, 2e-6 * unit);
    assert_near("lse", c->a.see.lse, exact->a.see.lse, 2e-6 * unit);
    assert_near("received", c->a.see.received, exact->a.see.received, 2e-6 * unit);
    assert_near("dq", c->g.dq, exact->g.dq, 5e-6 * unit);
    assert_near("dk", c->g.dk, exact->g.dk, 5e-6 * unit);
    assert_near("dv", c->g.dv, exact->g.dv, 5e-6 * unit);
    assert_near("dbias", c->g.dbias, exact->g.dbias, 5e-6 * unit);
    assert_near("dalibi", c->g.dalibi, exact->g.dalibi, 5e-6 * unit);
    assert_near("dscore_weight", c->g.dscore_weight, exact->g.dscore_weight, 5e-6 * unit);
}

static void assert_right(call inputs) {
    call c = with_outputs(inputs, true), exact = with_outputs(inputs, true);
    run(&c, NULL);
    run_reference(&exact);
    assert_calls_near(&c, &exact);
}

static void assert_same_bits(attn_tensor x, attn_tensor y) {
    if (x.rank) assert_memory_equal(x.data, y.data, (size_t)attn_count(&x) * attn_dtype_size(x.dtype));
}

/* ---- where things end ---------------------------------------------------------------------------------------- */

static const int32_t both[] = { ATTN_F32, ATTN_F64 }, all[] = { ATTN_F32, ATTN_BF16, ATTN_F64, ATTN_F16 };

static void head_sizes_around_vectors_and_groups_stay_within_their_memory(void **state) {
    (void)state;
    static const int64_t sizes[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 17, 31, 33, 47, 64, 65, 257 };
    int n = sizeof sizes / sizeof *sizes;
    for (int i = 0; i < n; i++) {
        assert_right(new_call(all[i % 4], 19, 37, sizes[i], sizes[n - 1 - i], 1));
        assert_right(new_call(all[(i + 3) % 4], 3, 21, sizes[i], sizes[n - 1 - i], 2));
        free_blocks(NULL);
    }
}

static void lengths_around_blocks_and_units_stay_within_their_memory(void **state) {
    (void)state;
    static const int64_t lengths[] = { 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 65, 127, 128, 129, 191, 192, 193, 257 };
    int n = sizeof lengths / sizeof *lengths;
    for (int i = 0; i < n; i++) {
        call c = new_call(all[i % 4], lengths[i], lengths[n - 1 - i], 9, 5, 3);
        c.a.causal = i % 3 == 0 ? ATTN_CAUSAL : ATTN_NOT_CAUSAL;
        assert_right(c);
        free_blocks(NULL);
    }
}

static void many_units_chunks_and_waves_of_keys_add_up(void **state) {
    (void)state;
    for (int i = 0; i < 6; i++) {
        call c = new_call(both[i % 2], 150, i < 4 ? 3500 : 600, 5, 6, 4);
        uint64_t seed = 5;
        if (i == 1 || i == 2) c.a.causal = ATTN_CAUSAL;
        if (i == 2) {
            c.a.flags = ATTN_WINDOW;
            c.a.window[0] = 700;
            c.a.window[1] = -1;
        }
        if (i == 3) {
            c.a.alibi = values1(c.a.q.dtype, 2, (double[]){ 0.01, 0.002 });
            c.a.softcap = 3;
        }
        if (i == 4) {
            c.a.bias = tensor4(c.a.q.dtype, 1, 1, 150, 600);
            fill_normal(c.a.bias, 1, &seed);
            c.a.mask = tensor4(ATTN_BOOL, 1, 2, 1, 600);
            fill_coin(c.a.mask, 0.7, &seed);
        }
        if (i == 5) {
            c.a.score = ATTN_ADDITIVE;
            c.a.score_weight = values1(c.a.q.dtype, 5, (double[]){ 1, -0.5, 0.25, 2, 0.1 });
        }
        assert_right(c);
        free_blocks(NULL);
    }
}

static void three_threads_give_the_bits_of_one_over_many_chunks(void **state) {
    (void)state;
    attn_exec pool = { 0 };
    assert_ok(attn_pool_open(&pool, 3));
    call inputs = new_call(ATTN_F32, 300, 3500, 5, 6, 6);
    inputs.a.causal = ATTN_CAUSAL;
    call one = with_outputs(inputs, true), three = with_outputs(inputs, true);
    run(&one, NULL);
    run(&three, &pool);
    attn_pool_close(&pool);
    assert_same_bits(one.a.out, three.a.out);
    assert_same_bits(one.a.see.received, three.a.see.received);
    assert_same_bits(one.g.dq, three.g.dq);
    assert_same_bits(one.g.dk, three.g.dk);
    assert_same_bits(one.g.dv, three.g.dv);
}

/* ---- 16 bits ------------------------------------------------------------------------------------------------- */

/* Of 16 bits: each axis strided, so that rows are gathered element by element. */
static attn_tensor scattered(attn_tensor t) {
    attn_tensor s = tensor_in_order(t.dtype, 4, t.shape, (int[]){ 0, 3, 1, 2 }, 1);
    for (int64_t n = 0; n < attn_count(&t); n++) put(s, n, get(t, n));
    return s;
}

static void assert_rounded(const char *what, attn_tensor half, attn_tensor wide) {
    for (int64_t n = 0; n < attn_count(&wide); n++) {
        uint16_t bits = 0;
        ref_store(&bits, half.dtype, 0, get(wide, n));
        if (get(half, n) != ref_load(&bits, half.dtype, 0))
            fail_msg("%s[%lld] is %g, not %g rounded", what, (long long)n, get(half, n), get(wide, n));
    }
}

/* What leaves in 16 bits is what leaves in f32, rounded once; strides change no bit. */
static void sixteen_bit_results_are_those_of_f32_rounded(void **state) {
    (void)state;
    for (int i = 0; i < 8; i++) {
        int32_t dtype = i % 2 ? ATTN_BF16 : ATTN_F16;
        call inputs = new_call(dtype, 70, 300, i < 4 ? 33 : 64, 21, 9);
        if (i / 2 == 1) inputs.a.score = ATTN_COSINE;
        if (i / 2 == 2) {
            inputs.a.bias = tensor4(dtype, 1, 2, 70, 300);
            uint64_t seed = 10;
            fill_normal(inputs.a.bias, 1, &seed);
            inputs.a.causal = ATTN_CAUSAL;
        }
        if (i / 2 == 3) {
            inputs.a.score = ATTN_ADDITIVE;
            inputs.a.score_weight = tensor_of(dtype, 1, (int64_t[]){ 64 });
            uint64_t seed = 11;
            fill_normal(inputs.a.score_weight, 1, &seed);
        }
        call wide = with_outputs(inputs, true), half = with_outputs(inputs, true);
        half.a.q = scattered(half.a.q);
        half.a.k = scattered(half.a.k);
        half.a.v = scattered(half.a.v);
        half.g.dout = scattered(half.g.dout);
        half.a.out = scattered(tensor4(dtype, 1, 2, 70, 21));
        half.g.dq = tensor_of(dtype, 4, half.a.q.shape);
        half.g.dk = scattered(tensor_of(dtype, 4, half.a.k.shape));
        half.g.dv = tensor_of(dtype, 4, half.a.v.shape);
        run(&wide, NULL);
        run(&half, NULL);
        wide.a.see = (attn_see){ 0 }; /* out of 16 bits gives no delta: the forward is computed again, and so it is here */
        assert_ok(attn_attention_backward(&wide.a, &wide.g, NULL));
        assert_rounded("out", half.a.out, wide.a.out);
        assert_rounded("dq", half.g.dq, wide.g.dq);
        assert_rounded("dk", half.g.dk, wide.g.dk);
        assert_rounded("dv", half.g.dv, wide.g.dv);
        free_blocks(NULL);
    }
}

/* ---- extreme values ------------------------------------------------------------------------------------------ */

static void equal_subnormal_and_huge_values_are_as_the_reference_says(void **state) {
    (void)state;
    static const double factors[] = { 0, 1e-42, 1e-30, 1e-3, 30, 1e4, 1e15 };
    for (int i = 0; i < 7; i++) {
        call c = new_call(ATTN_F32, 40, 300, 4, 3, 7);
        for (int64_t n = 0; n < attn_count(&c.a.q); n++) put(c.a.q, n, factors[i] * (n % 4 == 0));
        for (int64_t n = 0; n < attn_count(&c.a.k); n++) put(c.a.k, n, (double)(n / 4 % 8)); /* exact scores: ties, wide gaps */
        call x = with_outputs(c, false), exact = with_outputs(c, false);
        run(&x, NULL);
        run_reference(&exact);
        assert_calls_near(&x, &exact);
        free_blocks(NULL);
    }
}

static void nan_and_infinities_show_in_the_rows_that_see_them_and_nowhere_else(void **state) {
    (void)state;
    static const double poisons[] = { NAN, INFINITY, -INFINITY };
    for (int i = 0; i < 9; i++) {
        call c = new_call(ATTN_F32, 70, 300, 4, 3, 8);
        attn_tensor *where[] = { &c.a.q, &c.a.k, &c.a.v };
        for (int64_t n = 0; n < attn_count(&c.a.q); n++) put(c.a.q, n, fabs(get(c.a.q, n)) + 0.1);
        put(*where[i / 3], attn_count(where[i / 3]) - 2 * where[i / 3]->shape[3], poisons[i % 3]);
        c.a.causal = ATTN_CAUSAL; /* the last key but one: two rows see it */
        call x = with_outputs(c, true), exact = with_outputs(c, true);
        run(&x, NULL);
        run_reference(&exact);
        for (int64_t n = 0; n < attn_count(&x.a.out); n++) assert_int_equal(isnan(get(x.a.out, n)), isnan(get(exact.a.out, n)));
        for (int64_t n = 0; n < attn_count(&x.g.dq); n++)
            if (isfinite(get(exact.g.dq, n))) assert_true(isfinite(get(x.g.dq, n)));
        for (int64_t n = 0; n < attn_count(&x.g.dk); n++)
            if (isfinite(get(exact.g.dk, n))) assert_true(isfinite(get(x.g.dk, n)));
        for (int64_t n = 0; n < attn_count(&x.g.dv); n++)
            if (isfinite(get(exact.g.dv, n))) assert_true(isfinite(get(x.g.dv, n)));
        free_blocks(NULL);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(head_sizes_around_vectors_and_groups_stay_within_their_memory, free_blocks),
        cmocka_unit_test_teardown(lengths_around_blocks_and_units_stay_within_their_memory, free_blocks),
        cmocka_unit_test_teardown(many_units_chunks_and_waves_of_keys_add_up, free_blocks),
        cmocka_unit_test_teardown(three_threads_give_the_bits_of_one_over_many_chunks, free_blocks),
        cmocka_unit_test_teardown(sixteen_bit_results_are_those_of_f32_rounded, free_blocks),
        cmocka_unit_test_teardown(equal_subnormal_and_huge_values_are_as_the_reference_says, free_blocks),
        cmocka_unit_test_teardown(nan_and_infinities_show_in_the_rows_that_see_them_and_nowhere_else, free_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
