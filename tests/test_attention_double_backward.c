/* SPDX-License-Identifier: Apache-2.0 */
/* The backward's own backward: against central differences of the backward in float64, the symmetry of second derivatives, the
 * kernels within the published bound of the reference, and the rules for masks, groups, bits, memory and refusals. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "attention_directions.h"

static void pull(const attn_attention_args *a, const attn_attention_double_grads *g) {
    if (attn_attention_double_backward(a, g, NULL) != ATTN_OK) fail_msg("attn_attention_double_backward: %s", attn_last_error());
}

static void pull_by_reference(const attn_attention_args *a, const attn_attention_double_grads *g) {
    attn_attention_plan plan;
    attn_attention_plan_grads grads;
    attn_attention_plan_tangents along;
    attn_session session;
    assert_int_equal(attn_attention_plan_double_backward(&plan, &grads, &along, a, g, ATTN_PLAN_CALL), ATTN_OK);
    assert_int_equal(attn_session_open(&session, NULL, attn_reference_backward_need(&plan, &grads)), ATTN_OK);
    attn_reference_backward(&plan, &grads, &session);
    attn_session_close(&session);
}

enum { RESULTS = 5 };
static const char *const result_names[RESULTS] = { "dq", "dk", "dv", "ddout", "ddlse" };
static attn_tensor *result(attn_attention_double_grads *g, int i) {
    return (attn_tensor *[]){ &g->dq, &g->dk, &g->dv, &g->ddout, &g->ddlse }[i];
}

static attn_attention_double_grads fresh_results(const attn_attention_args *a, attn_attention_double_grads g) {
    int32_t dtype = a->q.dtype;
    g.dq = tensor_of(dtype, 4, a->q.shape);
    g.dk = tensor_of(dtype, 4, a->k.shape);
    g.dv = tensor_of(dtype, 4, a->v.shape);
    g.ddout = tensor_of(dtype, 4, a->out.shape);
    g.ddlse = tensor3(accumulator(dtype), a->q.shape[0], a->q.shape[1], a->q.shape[2]);
    return g;
}

/* Bits of `which`: ddq, ddk, ddv, dlse. */
static attn_attention_double_grads grads_of(const attn_attention_args *a, int which, uint64_t *seed) {
    attn_attention_double_grads g = { .dout = normal_like(a->out, seed) };
    if (which & 1) g.ddq = normal_like(a->q, seed);
    if (which & 2) g.ddk = normal_like(a->k, seed);
    if (which & 4) g.ddv = normal_like(a->v, seed);
    if (which & 8) {
        g.dlse = tensor3(accumulator(a->q.dtype), a->q.shape[0], a->q.shape[1], a->q.shape[2]);
        fill_normal(g.dlse, seed);
    }
    return fresh_results(a, g);
}

/* ---- what it is ------------------------------------------------------------------------------------------------ */

/* ddq . dq + ddk . dk + ddv . dv of the backward. */
static double loss_of(attn_attention_args a, const attn_attention_double_grads *g, attn_attention_grads into) {
    a.out = a.see.lse = (attn_tensor){ 0 };
    into.dout = g->dout;
    into.dlse = g->dlse;
    attend_backward(&a, &into);
    return inner(g->ddq, into.dq) + inner(g->ddk, into.dk) + inner(g->ddv, into.dv);
}

static void assert_is_the_gradient(const char *what, attn_tensor gradient, attn_tensor input, const attn_attention_args *a,
                                   const attn_attention_double_grads *g) {
    const double h = 1e-5;
    attn_attention_grads into = { .dq = tensor_of(ATTN_F64, 4, a->q.shape),
                                  .dk = tensor_of(ATTN_F64, 4, a->k.shape),
                                  .dv = tensor_of(ATTN_F64, 4, a->v.shape) };
    for (int64_t n = 0; input.rank && n < attn_count(&input); n++) {
        double x = get(input, n);
        put(input, n, x + h);
        double above = loss_of(*a, g, into);
        put(input, n, x - h);
        double below = loss_of(*a, g, into), slope = (above - below) / (2 * h);
        put(input, n, x);
        if (!(fabs(get(gradient, n) - slope) <= 5e-8 * (1 + fabs(slope))))
            fail_msg("%s[%lld] is %.12g, the slope is %.12g", what, (long long)n, get(gradient, n), slope);
    }
}

static void assert_gradients_are_slopes(int option, int which, bool by_reference) {
    uint64_t seed = 21;
    attn_attention_args a = small_smooth_problem(option, 5);
    attn_attention_double_grads g = grads_of(&a, which, &seed);
    (by_reference ? pull_by_reference : pull)(&a, &g);
    assert_is_the_gradient("dq", g.dq, a.q, &a, &g);
    assert_is_the_gradient("dk", g.dk, a.k, &a, &g);
    assert_is_the_gradient("dv", g.dv, a.v, &a, &g);
    assert_is_the_gradient("ddout", g.ddout, g.dout, &a, &g);
    assert_is_the_gradient("ddlse", g.ddlse, g.dlse, &a, &g);
    free_blocks(NULL);
}

static void gradients_are_central_differences_of_the_backward(void **state) {
    (void)state;
    for (int option = 0; option < SMALL_OPTIONS; option++)
        for (int by_reference = 0; by_reference < 2; by_reference++) assert_gradients_are_slopes(option, 15, by_reference);
}

static void gradients_of_each_part_are_central_differences(void **state) {
    (void)state;
    for (int which = 1; which < 15; which++) assert_gradients_are_slopes(which % 2 ? 10 : 3, which, which % 3 == 0);
}

/* With H the second derivatives of sum dout out + dlse lse: <s, H t> = <t, H s>. */
static void second_derivatives_are_symmetric(void **state) {
    (void)state;
    uint64_t seed = 22;
    for (int trial = 0; trial < 40; trial++) {
        attn_attention_args a = smooth_problem(&seed, ATTN_F64);
        attn_attention_double_grads s = grads_of(&a, 15, &seed), t = fresh_results(&a, s);
        t.ddq = normal_like(a.q, &seed);
        t.ddk = normal_like(a.k, &seed);
        t.ddv = normal_like(a.v, &seed);
        pull(&a, &s);
        pull(&a, &t);
        double st = inner(s.ddq, t.dq) + inner(s.ddk, t.dk) + inner(s.ddv, t.dv);
        double ts = inner(t.ddq, s.dq) + inner(t.ddk, s.dk) + inner(t.ddv, s.dv);
        double size = sqrt(inner(s.ddq, s.ddq) * inner(t.dq, t.dq)) + sqrt(inner(s.ddk, s.ddk) * inner(t.dk, t.dk));
        if (!(fabs(st - ts) <= 1e-11 * (1 + size))) fail_msg("trial %d: %.15g and %.15g", trial, st, ts);
        free_blocks(NULL);
    }
}

static void ddout_and_ddlse_are_the_tangents_of_out_and_lse(void **state) {
    (void)state;
    uint64_t seed = 23;
    for (int trial = 0; trial < 20; trial++) {
        attn_attention_args a = smooth_problem(&seed, trial % 2 ? ATTN_F64 : ATTN_F32);
        attn_attention_double_grads g = grads_of(&a, 7, &seed);
        attn_attention_tangents t = {
            .dq = g.ddq, .dk = g.ddk, .dv = g.ddv, .dout = normal_like(a.out, &seed), .dlse = a.see.lse
        };
        a.see.lse = (attn_tensor){ 0 };
        pull(&a, &g);
        assert_int_equal(attn_attention_jvp(&a, &t, NULL), ATTN_OK);
        assert_same_bits("ddout", g.ddout, t.dout);
        assert_same_bits("ddlse", g.ddlse, t.dlse);
        free_blocks(NULL);
    }
}

static void an_absent_gradient_is_one_of_zeros(void **state) {
    (void)state;
    uint64_t seed = 24;
    for (int which = 0; which < 8; which++) {
        attn_attention_args a = small_smooth_problem(7, 6);
        attn_attention_double_grads g = grads_of(&a, which, &seed), zeros = fresh_results(&a, g);
        attn_tensor *given[] = { &zeros.ddq, &zeros.ddk, &zeros.ddv };
        const attn_tensor *inputs[] = { &a.q, &a.k, &a.v };
        for (int i = 0; i < 3; i++)
            if (!(which & 1 << i)) fill(*given[i] = tensor_of(ATTN_F64, 4, inputs[i]->shape), 0);
        pull(&a, &g);
        pull(&a, &zeros);
        for (int i = 0; i < RESULTS; i++) {
            assert_all_close(result_names[i], *result(&g, i), *result(&zeros, i), 1e-13);
            if (which == 0) assert_all(result_names[i], *result(&g, i), 0);
        }
    }
}

static void what_is_asked_for_changes_no_bit(void **state) {
    (void)state;
    static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_BF16 };
    uint64_t seed = 25;
    for (int d = 0; d < 3; d++) {
        attn_attention_args a = smooth_problem(&seed, dtypes[d]);
        attn_attention_double_grads g = grads_of(&a, 15, &seed);
        pull(&a, &g);
        for (int i = 0; i < RESULTS; i++) {
            attn_attention_double_grads one = fresh_results(&a, g);
            for (int other = 0; other < RESULTS; other++)
                if (other != i) *result(&one, other) = (attn_tensor){ 0 };
            pull(&a, &one);
            assert_same_bits(result_names[i], *result(&one, i), *result(&g, i));
        }
    }
}

/* ---- accuracy -------------------------------------------------------------------------------------------------- */

static attn_attention_double_grads grads_in_f64(const attn_attention_args *a, attn_attention_double_grads g) {
    attn_tensor *inputs[] = { &g.dout, &g.dlse, &g.ddq, &g.ddk, &g.ddv };
    for (int i = 0; i < 5; i++) *inputs[i] = in_f64_copy(*inputs[i]);
    return fresh_results(a, g);
}

static void normal_problems_are_within_the_published_bound(void **state) {
    (void)state;
    static const problem_shape shapes[] = { { 1, 2, 1, 2, 60, 300, 32, 20 }, { 2, 2, 2, 1, 33, 70, 17, 9 },
                                            { 1, 1, 1, 1, 5, 900, 32, 32 },  { 1, 4, 2, 1, 40, 300, 8, 12 },
                                            { 1, 1, 1, 1, 12, 2300, 6, 5 }, /* more than one wave of chunks */
                                            { 1, 2, 1, 2, 300, 60, 8, 9 } };
    for (int i = 0; i < 6; i++) {
        attn_attention_args wide = problem(shapes[i], ATTN_F64, 26), a = wide;
        attn_tensor *inputs[] = { &wide.q, &wide.k, &wide.v };
        uint64_t seed = 26;
        if (i < 2) wide.causal = ATTN_CAUSAL;
        if (i == 1) wide.softcap = 3;
        if (i == 3) wide.dropout = 0.2;
        for (int n = 0; n < 3; n++) *inputs[n] = dense_copy(dense_copy(*inputs[n], ATTN_F32), ATTN_F64);
        attn_attention_double_grads exact = grads_of(&wide, 15, &seed);
        attn_tensor *given[] = { &exact.dout, &exact.dlse, &exact.ddq, &exact.ddk, &exact.ddv };
        for (int n = 0; n < 5; n++) *given[n] = dense_copy(dense_copy(*given[n], ATTN_F32), ATTN_F64);
        pull_by_reference(&wide, &exact);
        for (int32_t d = 0; d < 2; d++) {
            int32_t dtype = d ? ATTN_F64 : ATTN_F32;
            a = wide;
            a.q = dense_copy(wide.q, dtype), a.k = dense_copy(wide.k, dtype), a.v = dense_copy(wide.v, dtype);
            a.out = tensor_of(dtype, 4, wide.out.shape);
            attn_attention_double_grads g = { .dout = dense_copy(exact.dout, dtype),
                                              .dlse = dense_copy(exact.dlse, dtype),
                                              .ddq = dense_copy(exact.ddq, dtype),
                                              .ddk = dense_copy(exact.ddk, dtype),
                                              .ddv = dense_copy(exact.ddv, dtype) };
            g = fresh_results(&a, g);
            pull(&a, &g);
            for (int r = 0; r < RESULTS; r++)
                assert_rms_within(result_names[r], *result(&g, r), *result(&exact, r), gradient_rms_bound(dtype));
        }
        free_blocks(NULL);
    }
}

/* Any options, any scale: held against the size of what is added up, which may cancel. */
static void kernels_agree_with_the_reference_on_random_problems(void **state) {
    (void)state;
    uint64_t seed = 27;
    for (int trial = 0; trial < 60; trial++) {
        int32_t dtype = trial % 2 ? ATTN_F64 : ATTN_F32;
        attn_attention_args a = smooth_problem(&seed, dtype), b = in_f64(a);
        attn_attention_double_grads g = grads_of(&a, 15, &seed), exact = grads_in_f64(&b, g);
        a.see.lse = (attn_tensor){ 0 };
        pull(&a, &g);
        pull_by_reference(&b, &exact);
        for (int r = 0; r < RESULTS; r++) {
            double size = 1;
            for (int64_t n = 0; n < attn_count(result(&exact, r)); n++) size = fmax(size, fabs(get(*result(&exact, r), n)));
            assert_all_close(result_names[r], *result(&g, r), *result(&exact, r), 4096 * unit_of(dtype) * size);
        }
        free_blocks(NULL);
    }
}

static void sixteen_bit_gradients_are_rounded_once(void **state) {
    (void)state;
    static const int32_t dtypes[] = { ATTN_BF16, ATTN_F16 };
    uint64_t seed = 28;
    for (int d = 0; d < 2; d++) {
        attn_attention_args a = problem((problem_shape){ 1, 2, 1, 2, 7, 20, 8, 8 }, dtypes[d], 28), b = in_f64(a);
        attn_attention_double_grads g = grads_of(&a, 15, &seed), exact = grads_in_f64(&b, g);
        pull(&a, &g);
        pull_by_reference(&b, &exact);
        for (int r = 0; r < 4; r++)
            for (int64_t n = 0; n < attn_count(result(&g, r)); n++) {
                double x = get(*result(&exact, r), n);
                assert_close(get(*result(&g, r), n), x, (d ? 0x1p-11 : 0x1p-8) * fabs(x) + 0x1p-24);
            }
    }
}

/* ---- masks ----------------------------------------------------------------------------------------------------- */

/* Whatever masked keys and padded rows hold: the bits are those of zeros, and their own gradients are 0. */
static void masked_keys_and_padding_leak_nothing(void **state) {
    (void)state;
    static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_F16 };
    static const double bad[] = { NAN, INFINITY, 0 };
    for (int d = 0; d < 3; d++) {
        attn_attention_double_grads results[3];
        for (int i = 0; i < 3; i++) {
            const int64_t q_len = 40, kv_len = 150;
            uint64_t seed = 29;
            attn_attention_args a = problem((problem_shape){ 1, 2, 1, 1, q_len, kv_len, 9, 7 }, dtypes[d], 29);
            a.q_lengths = values1(ATTN_I32, 1, (double[]){ 37 });
            a.kv_lengths = values1(ATTN_I64, 1, (double[]){ 141 });
            a.causal = ATTN_CAUSAL;
            a.bias = tensor1(dtypes[d], kv_len);
            a.mask = tensor2(ATTN_BOOL, q_len, kv_len);
            fill_normal(a.bias, &seed);
            put(a.bias, 30, -INFINITY);
            fill_coin(a.mask, &seed, 0.9);
            for (int64_t j = 0; j < kv_len; j++) put(a.mask, 3 * kv_len + j, 0);
            for (int64_t n = 0; n < q_len; n++) put(a.mask, n * kv_len + 20, 0);
            attn_attention_double_grads g = grads_of(&a, 7, &seed);
            for (int64_t c = 0; c < 9; c++) {
                for (int64_t j = 0; j < 3; j++) {
                    int64_t key = (int64_t[]){ 20, 30, 145 }[j];
                    put4(a.k, 0, 0, key, c, bad[i]);
                    put4(g.ddk, 0, 0, key, c, bad[i]);
                    if (c < 7) put4(a.v, 0, 0, key, c, bad[i]);
                    if (c < 7) put4(g.ddv, 0, 0, key, c, bad[i]);
                }
                for (int64_t row = 3; row < 40; row += 35) { /* one that sees no key, one of padding */
                    put4(a.q, 0, 1, row, c, bad[i]);
                    put4(g.ddq, 0, 1, row, c, bad[i]);
                    if (c < 7) put4(g.dout, 0, 1, row, c, bad[i]);
                }
            }
            pull(&a, &g);
            for (int64_t c = 0; c < 7; c++) {
                assert_true(get4(g.dk, 0, 0, 20, c) == 0 && get4(g.dk, 0, 0, 30, c) == 0 && get4(g.dk, 0, 0, 145, c) == 0);
                assert_true(get4(g.dv, 0, 0, 20, c) == 0 && get4(g.dv, 0, 0, 30, c) == 0 && get4(g.dv, 0, 0, 145, c) == 0);
                assert_true(get4(g.dq, 0, 1, 3, c) == 0 && get4(g.dq, 0, 1, 38, c) == 0 && get4(g.ddout, 0, 1, 3, c) == 0);
            }
            results[i] = g;
        }
        for (int r = 0; r < RESULTS; r++) {
            for (int i = 0; i < 2; i++) assert_same_bits(result_names[r], *result(&results[i], r), *result(&results[2], r));
            for (int64_t n = 0; n < attn_count(result(&results[2], r)); n++)
                assert_true(isfinite(get(*result(&results[2], r), n)));
        }
    }
}

static void a_live_nan_shows(void **state) {
    (void)state;
    uint64_t seed = 30;
    attn_attention_args a = problem((problem_shape){ 1, 1, 1, 1, 30, 30, 4, 4 }, ATTN_F32, 30);
    attn_attention_double_grads g = grads_of(&a, 7, &seed);
    a.causal = ATTN_CAUSAL;
    put4(g.ddk, 0, 0, 12, 1, NAN);
    pull(&a, &g);
    for (int64_t i = 0; i < 30; i++) assert_true(isnan(get4(g.dq, 0, 0, i, 0)) == (i >= 12));
}

static void no_keys_and_no_rows_are_answered(void **state) {
    (void)state;
    uint64_t seed = 31;
    attn_attention_args a = problem((problem_shape){ 1, 2, 1, 2, 3, 0, 4, 5 }, ATTN_F32, 31);
    attn_attention_double_grads g = grads_of(&a, 15, &seed);
    pull(&a, &g);
    assert_all("dq", g.dq, 0);
    assert_all("ddout", g.ddout, 0);
    assert_all("ddlse", g.ddlse, 0);
    a = problem((problem_shape){ 1, 2, 1, 2, 0, 3, 4, 5 }, ATTN_F64, 31);
    g = grads_of(&a, 15, &seed);
    pull(&a, &g);
    assert_all("dk", g.dk, 0);
    assert_all("dv", g.dv, 0);
}

/* ---- bits, memory, errors ------------------------------------------------------------------------------------------ */

static void threads_and_strides_change_no_bit(void **state) {
    (void)state;
    uint64_t seed = 32;
    attn_exec pool = { 0 };
    assert_int_equal(attn_pool_open(&pool, 3), ATTN_OK);
    for (int trial = 0; trial < 16; trial++) {
        attn_attention_args a = smooth_problem(&seed, trial % 2 ? ATTN_F64 : ATTN_F32), b = a;
        attn_attention_double_grads g = grads_of(&a, 1 + trial % 15, &seed), u = fresh_results(&a, g);
        pull(&a, &g);
        if (attn_attention_double_backward(&a, &u, &pool) != ATTN_OK) fail_msg("%s", attn_last_error());
        for (int r = 0; r < RESULTS; r++) assert_same_bits(result_names[r], *result(&u, r), *result(&g, r));
        b.q = strided_copy(a.q), b.k = strided_copy(a.k), b.v = strided_copy(a.v);
        u = fresh_results(&a, g);
        attn_tensor *all[] = { &u.dout, &u.ddq, &u.ddk, &u.ddv, &u.dq, &u.dk, &u.dv, &u.ddout };
        for (int i = 0; i < 8; i++)
            if (all[i]->rank) *all[i] = strided_copy(*all[i]);
        pull(&b, &u);
        for (int r = 0; r < RESULTS; r++) assert_same_bits(result_names[r], *result(&u, r), *result(&g, r));
        free_blocks(NULL);
    }
    attn_pool_close(&pool);
}

static void a_batch_entry_has_the_bits_it_has_alone(void **state) {
    (void)state;
    uint64_t seed = 33;
    attn_attention_args a = problem((problem_shape){ 3, 2, 1, 2, 33, 80, 9, 10 }, ATTN_F32, 33), b;
    attn_attention_double_grads g = grads_of(&a, 15, &seed), u;
    a.causal = ATTN_CAUSAL;
    pull(&a, &g);
    b = a, u = g;
    attn_tensor *all[] = { &b.q, &b.k, &b.v, &b.out, &u.dout, &u.dlse, &u.ddq, &u.ddk, &u.ddv };
    for (int i = 0; i < 9; i++) {
        all[i]->data = attn_at(all[i], all[i]->stride[0]);
        all[i]->shape[0] = 1;
    }
    u = fresh_results(&b, u);
    pull(&b, &u);
    for (int r = 0; r < RESULTS; r++) {
        attn_tensor *whole = result(&g, r);
        whole->data = attn_at(whole, whole->stride[0]);
        assert_same_bits(result_names[r], *result(&u, r), *whole);
    }
}

static void lent_memory_is_enough_and_a_byte_less_is_refused(void **state) {
    (void)state;
    static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_BF16 };
    uint64_t seed = 34;
    for (int d = 0; d < 3; d++) {
        attn_attention_args a = problem((problem_shape){ 1, 2, 1, 2, 20, 50, 9, 10 }, dtypes[d], 34), bare = a;
        attn_attention_double_grads g = grads_of(&a, 15, &seed), question = g;
        attn_tensor *all[] = { &bare.q,       &bare.k,       &bare.v,       &bare.out,    &question.dout, &question.dlse,
                               &question.ddq, &question.ddk, &question.ddv, &question.dq, &question.dk,   &question.ddout };
        for (int i = 0; i < 12; i++) all[i]->data = NULL;
        size_t bytes = attn_attention_double_backward_workspace(&bare, &question, 1);
        assert_true(bytes > 0 && bytes == attn_attention_double_backward_workspace(&a, &g, 1));
        char *memory = poisoned(bytes + 64);
        attn_exec exec = { .workspace = memory + 1, .workspace_size = bytes - 1 };
        fill(g.dq, 42);
        assert_int_equal(attn_attention_double_backward(&a, &g, &exec), ATTN_SMALL_WORKSPACE);
        assert_all("dq", g.dq, 42);
        exec.workspace_size = bytes;
        assert_int_equal(attn_attention_double_backward(&a, &g, &exec), ATTN_OK);
        for (size_t i = bytes + 1; i < bytes + 64; i++) assert_int_equal((unsigned char)memory[i], 0xff);
    }
}

static void memory_does_not_grow_with_the_scores(void **state) {
    (void)state;
    const int64_t n = 1 << 20;
    attn_tensor t = attn_bhsd(ATTN_F32, NULL, 1, 1, n, 64);
    attn_attention_args a = { .q = t, .k = t, .v = t };
    attn_attention_double_grads g = { t, { 0 }, t, t, t, t, t, t, t, { 0 }, { 0 } };
    size_t bytes = attn_attention_double_backward_workspace(&a, &g, 1);
    assert_true(bytes > 0 && bytes < (size_t)n * 64 * 4 * 8);
}

static void a_head_size_beyond_all_memory_is_counted_without_overflow(void **state) {
    (void)state;
    const int64_t dim = INT64_MAX / 8;
    attn_tensor q = attn_bhsd(ATTN_F32, NULL, 1, 1, 0, dim), v = attn_bhsd(ATTN_F32, NULL, 1, 1, 0, 4);
    attn_attention_args a = { .q = q, .k = q, .v = v };
    attn_attention_double_grads g = { .dout = v, .ddq = q, .ddk = q, .ddv = v, .dq = q, .dk = q, .dv = v };
    assert_true(attn_attention_double_backward_workspace(&a, &g, 1) == SIZE_MAX);
    assert_int_equal(attn_attention_double_backward(&a, &g, NULL), ATTN_NO_MEMORY);
}

static void bad_gradients_are_refused_before_anything_is_written(void **state) {
    (void)state;
    uint64_t seed = 35;
    attn_attention_args a = problem((problem_shape){ 1, 2, 1, 2, 3, 4, 5, 6 }, ATTN_F32, 35), b = a;
    attn_attention_double_grads g = grads_of(&a, 15, &seed), u = g;
    for (int r = 0; r < RESULTS; r++) fill(*result(&g, r), 42);
#define REFUSED(status, words)                                                                                                   \
    assert_int_equal(attn_attention_double_backward(&b, &u, NULL), status);                                                      \
    if (!strstr(attn_last_error(), words)) fail_msg("message \"%s\" lacks \"%s\"", attn_last_error(), words);                    \
    assert_int_equal(attn_attention_double_backward_workspace(&b, &u, 1), 0);                                                    \
    b = a, u = g
    b.score = ATTN_COSINE;
    REFUSED(ATTN_UNSUPPORTED, "dot score");
    b.weighting = ATTN_WEIGHT_SIGMOID;
    u.dlse = (attn_tensor){ 0 };
    REFUSED(ATTN_UNSUPPORTED, "softmax");
    u.reserved[7] = 1;
    REFUSED(ATTN_UNSUPPORTED, "attn_attention_double_grads");
    u.dout = (attn_tensor){ 0 };
    REFUSED(ATTN_BAD_ARGUMENT, "dout is missing");
    u.ddk = g.ddq;
    REFUSED(ATTN_BAD_SHAPE, "ddk has shape [1, 2, 3, 5], here it is [1, 1, 4, 5]");
    u.ddv.dtype = ATTN_F64;
    REFUSED(ATTN_BAD_ARGUMENT, "ddv is f64: here it is f32");
    u.ddout.stride[2] = 0;
    REFUSED(ATTN_BAD_ARGUMENT, "ddout");
    u.ddlse.dtype = ATTN_F64;
    REFUSED(ATTN_BAD_ARGUMENT, "ddlse is f64");
    u.dq = g.dk;
    REFUSED(ATTN_BAD_SHAPE, "dq has shape");
    assert_int_equal(attn_attention_double_backward(&a, NULL, NULL), ATTN_BAD_ARGUMENT);
    assert_int_equal(attn_attention_double_backward(NULL, &g, NULL), ATTN_BAD_ARGUMENT);
    for (int r = 0; r < RESULTS; r++) assert_all(result_names[r], *result(&g, r), 42);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(gradients_are_central_differences_of_the_backward, free_blocks),
        cmocka_unit_test_teardown(gradients_of_each_part_are_central_differences, free_blocks),
        cmocka_unit_test_teardown(second_derivatives_are_symmetric, free_blocks),
        cmocka_unit_test_teardown(ddout_and_ddlse_are_the_tangents_of_out_and_lse, free_blocks),
        cmocka_unit_test_teardown(an_absent_gradient_is_one_of_zeros, free_blocks),
        cmocka_unit_test_teardown(what_is_asked_for_changes_no_bit, free_blocks),
        cmocka_unit_test_teardown(normal_problems_are_within_the_published_bound, free_blocks),
        cmocka_unit_test_teardown(kernels_agree_with_the_reference_on_random_problems, free_blocks),
        cmocka_unit_test_teardown(sixteen_bit_gradients_are_rounded_once, free_blocks),
        cmocka_unit_test_teardown(masked_keys_and_padding_leak_nothing, free_blocks),
        cmocka_unit_test_teardown(a_live_nan_shows, free_blocks),
        cmocka_unit_test_teardown(no_keys_and_no_rows_are_answered, free_blocks),
        cmocka_unit_test_teardown(threads_and_strides_change_no_bit, free_blocks),
        cmocka_unit_test_teardown(a_batch_entry_has_the_bits_it_has_alone, free_blocks),
        cmocka_unit_test_teardown(lent_memory_is_enough_and_a_byte_less_is_refused, free_blocks),
        cmocka_unit_test_teardown(memory_does_not_grow_with_the_scores, free_blocks),
        cmocka_unit_test_teardown(a_head_size_beyond_all_memory_is_counted_without_overflow, free_blocks),
        cmocka_unit_test_teardown(bad_gradients_are_refused_before_anything_is_written, free_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
