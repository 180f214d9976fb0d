/* SPDX-License-Identifier: Apache-2.0 */
/* Masks of whole blocks: every result has the bits of the same mask written out for every query and key. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "attention_bounds.h"
#include "attention_directions.h"

#include <attn/attn.h>

static int64_t blocks_of(int64_t extent, int64_t size) { return (extent + size - 1) / size; }

/* A mask of blocks of this size, that broadcasts or does not. */
static attn_tensor any_block_mask(const attn_attention_args *a, int64_t size, uint64_t *seed) {
    bool entries = between(seed, 0, 1), heads = between(seed, 0, 1);
    attn_tensor t = tensor4(ATTN_BOOL, entries ? a->q.shape[0] : 1, heads ? a->q.shape[1] : 1, blocks_of(a->q.shape[2], size),
                            blocks_of(a->k.shape[2], size));
    fill_coin(t, seed, 0.2 + 0.6 * uniform(seed));
    return between(seed, 0, 1) ? t : strided_copy(t);
}

/* The same call with one boolean mask in the place of both. */
static attn_attention_args written_out(attn_attention_args a) {
    int64_t size = a.block_size ? a.block_size : 128, heads = a.q.shape[1], rows = a.q.shape[2], keys = a.k.shape[2];
    const attn_tensor coarse = a.block_mask, own = a.mask;
    a.mask = tensor4(ATTN_BOOL, a.q.shape[0], heads, rows, keys);
    for (int64_t n = 0; n < attn_count(&a.mask); n++) {
        int64_t j = n % keys, i = n / keys % rows, h = n / keys / rows % heads, b = n / keys / rows / heads;
        bool live = get4(coarse, coarse.shape[0] > 1 ? b : 0, coarse.shape[1] > 1 ? h : 0, i / size, j / size) != 0;
        if (own.rank) live &= get4(own, own.shape[0] > 1 ? b : 0, own.shape[1] > 1 ? h : 0, i, j) != 0;
        put(a.mask, n, live);
    }
    a.block_mask = (attn_tensor){ 0 };
    a.block_size = 0;
    return a;
}

/* Random options over lengths of several tiles. */
static attn_attention_args any_problem(uint64_t *seed, int32_t dtype) {
    attn_attention_args a = random_problem(seed, dtype);
    if (between(seed, 0, 1)) { /* long: blocks begin and end at tiles, within them, and across */
        int64_t h = a.q.shape[1];
        a = problem((problem_shape){ 1, h, h / 2, h, between(seed, 60, 140), between(seed, 200, 420), 5, 6 }, dtype,
                    random_word(seed));
        a.causal = (int32_t)between(seed, 0, 1);
        a.see = see_all(&a, 3);
    }
    a.block_size = between(seed, 0, 2) ? between(seed, 1, 70) : 64 * between(seed, 0, 2);
    a.block_mask = any_block_mask(&a, a.block_size ? a.block_size : 128, seed);
    return a;
}

static void assert_same_sight(const attn_see *x, const attn_see *y) {
    const attn_tensor *all[][2] = { { &x->lse, &y->lse },           { &x->entropy, &y->entropy },
                                    { &x->received, &y->received }, { &x->weights, &y->weights },
                                    { &x->scores, &y->scores },     { &x->top_index, &y->top_index },
                                    { &x->pooled, &y->pooled },     { &x->top_weight, &y->top_weight } };
    static const char *const names[] = { "lse", "entropy", "received", "weights", "scores", "top_index", "pooled", "top_weight" };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i][0]->rank) assert_same_bits(names[i], *all[i][0], *all[i][1]);
}

static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_F32, ATTN_BF16 };

static void a_block_mask_has_the_bits_of_the_mask_written_out(void **state) {
    (void)state;
    uint64_t seed = 1;
    attn_exec three = { 0 };
    assert_int_equal(attn_pool_open(&three, 3), ATTN_OK);
    for (int round = 0; round < 60; round++) {
        attn_attention_args a = any_problem(&seed, dtypes[round % 4]), full = written_out(a);
        full.out = tensor4(a.q.dtype, a.q.shape[0], a.q.shape[1], a.q.shape[2], a.v.shape[3]);
        full.see = see_all(&a, a.see.top_index.shape[3]);
        if (attn_attention(&a, round % 2 ? &three : NULL) != ATTN_OK) fail_msg("%s", attn_last_error());
        attend(&full);
        assert_same_bits("out", a.out, full.out);
        assert_same_sight(&a.see, &full.see);
        free_blocks(NULL);
    }
    attn_pool_close(&three);
}

static void gradients_have_them_too(void **state) {
    (void)state;
    uint64_t seed = 2;
    for (int round = 0; round < 40; round++) {
        attn_attention_args a = any_problem(&seed, dtypes[round % 4]);
        int64_t h = a.q.shape[1];
        a.see = (attn_see){ 0 };
        a.out = (attn_tensor){ 0 };
        attn_attention_args full = written_out(a);
        attn_attention_grads g[2];
        for (int i = 0; i < 2; i++) {
            g[i] = (attn_attention_grads){ .dq = dense_copy(a.q, a.q.dtype),
                                           .dk = dense_copy(a.k, a.q.dtype),
                                           .dv = dense_copy(a.v, a.q.dtype) };
            if (a.bias.rank) g[i].dbias = dense_copy(a.bias, a.q.dtype);
            if (a.alibi.rank) g[i].dalibi = tensor1(a.q.dtype, h);
            if (a.sinks.rank) g[i].dsinks = tensor1(a.q.dtype, h);
            if (a.score_weight.rank) g[i].dscore_weight = dense_copy(a.score_weight, a.q.dtype);
        }
        g[0].dout = g[1].dout = normal_like(tensor4(a.q.dtype, a.q.shape[0], h, a.q.shape[2], a.v.shape[3]), &seed);
        attend_backward(&a, &g[0]);
        attend_backward(&full, &g[1]);
        assert_same_bits("dq", g[0].dq, g[1].dq);
        assert_same_bits("dk", g[0].dk, g[1].dk);
        assert_same_bits("dv", g[0].dv, g[1].dv);
        if (a.bias.rank) assert_same_bits("dbias", g[0].dbias, g[1].dbias);
        if (a.alibi.rank) assert_same_bits("dalibi", g[0].dalibi, g[1].dalibi);
        if (a.sinks.rank) assert_same_bits("dsinks", g[0].dsinks, g[1].dsinks);
        if (a.score_weight.rank) assert_same_bits("dscore_weight", g[0].dscore_weight, g[1].dscore_weight);
        attn_tensor received[2];
        for (int i = 0; i < 2; i++) {
            received[i] = tensor3(accumulator(a.q.dtype), a.q.shape[0], h, a.k.shape[2]);
            attn_received_args r = { .dout = g[0].dout, .received = received[i] };
            assert_int_equal(attn_attention_received(i ? &full : &a, &r, NULL), ATTN_OK);
        }
        assert_same_bits("received", received[0], received[1]);
        free_blocks(NULL);
    }
}

static void tangents_and_second_derivatives_have_them_too(void **state) {
    (void)state;
    uint64_t seed = 3;
    for (int round = 0; round < 20; round++) {
        attn_attention_args a = any_problem(&seed, round % 2 ? ATTN_F64 : ATTN_F32);
        a.see = (attn_see){ 0 };
        a.out = a.score_weight = (attn_tensor){ 0 };
        a.score = ATTN_DOT;
        a.weighting = ATTN_WEIGHT_SOFTMAX;
        a.alpha = 0;
        attn_attention_args both[2] = { a, written_out(a) };
        attn_attention_tangents t[2];
        attn_attention_double_grads d[2];
        attn_tensor dq = normal_like(a.q, &seed), dk = normal_like(a.k, &seed);
        attn_tensor dout = normal_like(tensor4(a.q.dtype, a.q.shape[0], a.q.shape[1], a.q.shape[2], a.v.shape[3]), &seed);
        for (int i = 0; i < 2; i++) {
            t[i] = (attn_attention_tangents){ .dq = dq, .dk = dk, .dout = dense_copy(dout, a.q.dtype) };
            d[i] = (attn_attention_double_grads){
                .dout = dout, .ddq = dq, .ddk = dk, .dq = dense_copy(dq, a.q.dtype), .dk = dense_copy(dk, a.q.dtype)
            };
            assert_int_equal(attn_attention_jvp(&both[i], &t[i], NULL), ATTN_OK);
            assert_int_equal(attn_attention_double_backward(&both[i], &d[i], NULL), ATTN_OK);
        }
        assert_same_bits("dout", t[0].dout, t[1].dout);
        assert_same_bits("dq", d[0].dq, d[1].dq);
        assert_same_bits("dk", d[0].dk, d[1].dk);
        free_blocks(NULL);
    }
}

/* One query, as when a model writes: heads of a group are worked on as rows, whether they choose their blocks together or apart. */
static void a_single_query_has_them_too(void **state) {
    (void)state;
    for (int apart = 0; apart < 2; apart++) {
        uint64_t seed = 4;
        attn_attention_args a = problem((problem_shape){ 2, 24, 2, 2, 1, 300, 16, 16 }, ATTN_F32, 5);
        a.block_size = 16;
        a.block_mask = tensor4(ATTN_BOOL, 2, apart ? 24 : 1, 1, 19);
        fill_coin(a.block_mask, &seed, 0.5);
        attn_attention_args full = written_out(a);
        full.out = tensor4(ATTN_F32, 2, 24, 1, 16);
        attend(&a);
        attend(&full);
        assert_same_bits("out", a.out, full.out);
        free_blocks(NULL);
    }
}

static void nan_in_dead_blocks_leaves_no_trace(void **state) {
    (void)state;
    attn_attention_args a = problem((problem_shape){ 1, 2, 2, 2, 70, 300, 8, 8 }, ATTN_F32, 6);
    a.block_size = 32;
    a.block_mask = tensor_of(ATTN_BOOL, 2, (int64_t[]){ 3, 10 });
    fill(a.block_mask, 1);
    for (int64_t i = 0; i < 3; i++) put(a.block_mask, i * 10 + 4, 0);
    attend(&a);
    attn_tensor out = dense_copy(a.out, ATTN_F32);
    for (int64_t h = 0; h < 2; h++)
        for (int64_t j = 128; j < 160; j++)
            for (int64_t d = 0; d < 8; d++) {
                put4(a.k, 0, h, j, d, NAN);
                put4(a.v, 0, h, j, d, INFINITY);
            }
    attend(&a);
    assert_same_bits("out", a.out, out);
    for (int64_t i = 0; i < 30; i++) put(a.block_mask, i, 0);
    attend(&a);
    assert_all("out", a.out, 0);
}

/* The gradient of a sink asks which rows see a key where dout is NaN. */
static void rows_that_dead_blocks_leave_no_key_count_for_their_sink_alone(void **state) {
    (void)state;
    attn_attention_args a = problem((problem_shape){ 1, 2, 2, 2, 40, 60, 8, 8 }, ATTN_F32, 9);
    a.out = (attn_tensor){ 0 };
    a.block_size = 20;
    a.block_mask = tensor4(ATTN_BOOL, 1, 1, 2, 3);
    fill(a.block_mask, 0);
    a.sinks = values1(ATTN_F32, 2, (double[]){ 0.5, -1 });
    attn_tensor dout = tensor4(ATTN_F32, 1, 2, 40, 8);
    for (int first = 0; first < 2; first++) { /* none sees a key; then the first row of blocks sees one of three */
        if (first) put(a.block_mask, 1, 1);
        uint64_t seed = 10;
        fill_normal(dout, &seed);
        for (int64_t d = 0; d < 8; d++) put4(dout, 0, 1, 30, d, NAN);
        attn_attention_args full = written_out(a);
        attn_attention_grads g = { .dout = dout, .dsinks = tensor1(ATTN_F32, 2) },
                             of_full = { .dout = dout, .dsinks = tensor1(ATTN_F32, 2) };
        attend_backward(&a, &g);
        attend_backward(&full, &of_full);
        assert_same_bits("dsinks", g.dsinks, of_full.dsinks);
        assert_true(isfinite(get(g.dsinks, 1)));
        put4(dout, 0, 1, 3, 0, NAN); /* in a row that then sees a key */
        attend_backward(&a, &g);
        assert_true(isnan(get(g.dsinks, 1)) == (first == 1));
    }
}

static void wrong_block_masks_are_refused_by_name(void **state) {
    (void)state;
    attn_attention_args right = problem((problem_shape){ 2, 2, 2, 2, 70, 300, 8, 8 }, ATTN_F32, 7), a;
    right.block_mask = tensor4(ATTN_BOOL, 2, 2, 1, 3);
    fill(right.block_mask, 1);
    attend(&right);
    fill(right.out, NAN);
#define REFUSED(change, status, words)                                                                                           \
    a = right, (void)(change);                                                                                                   \
    assert_int_equal(attn_attention(&a, NULL), status);                                                                          \
    if (!strstr(attn_last_error(), words)) fail_msg("%s", attn_last_error())
    REFUSED(a.block_size = -1, ATTN_BAD_ARGUMENT, "block_size is -1");
    REFUSED(a.block_size = 64, ATTN_BAD_SHAPE, "block_mask");
    REFUSED(a.block_mask.shape[0] = 3, ATTN_BAD_SHAPE, "block_mask");
    REFUSED(a.block_mask.dtype = ATTN_U8, ATTN_BAD_ARGUMENT, "block_mask is u8");
    REFUSED(a.block_mask.rank = 5, ATTN_BAD_SHAPE, "block_mask");
    REFUSED((a.block_mask = (attn_tensor){ 0 }, a.block_size = 128), ATTN_BAD_ARGUMENT, "without a block_mask");
    attn_tensor starts = values1(ATTN_I64, 2, (double[]){ 0, 70 });
    a = problem((problem_shape){ 1, 2, 2, 2, 70, 70, 8, 8 }, ATTN_F32, 8);
    a.q_starts = starts;
    a.block_mask = tensor_of(ATTN_BOOL, 2, (int64_t[]){ 1, 1 });
    assert_int_equal(attn_attention(&a, NULL), ATTN_UNSUPPORTED);
    assert_non_null(strstr(attn_last_error(), "block_mask is given beside q_starts"));
    for (int64_t n = 0; n < attn_count(&right.out); n++) assert_true(isnan(get(right.out, n)));
}

#define TEST(name) cmocka_unit_test_teardown(name, free_blocks)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_block_mask_has_the_bits_of_the_mask_written_out),
        TEST(gradients_have_them_too),
        TEST(tangents_and_second_derivatives_have_them_too),
        TEST(a_single_query_has_them_too),
        TEST(nan_in_dead_blocks_leaves_no_trace),
        TEST(rows_that_dead_blocks_leave_no_key_count_for_their_sink_alone),
        TEST(wrong_block_masks_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
