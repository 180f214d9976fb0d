/* SPDX-License-Identifier: Apache-2.0 */
/* Forward mode through attention: against central differences in float64, the transpose of the backward, the kernels within the
 * published bound of the reference, and the rules for masks, groups, bits, memory and refusals. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "attention_directions.h"

static void push(const attn_attention_args *a, const attn_attention_tangents *t) {
    if (attn_attention_jvp(a, t, NULL) != ATTN_OK) fail_msg("attn_attention_jvp: %s", attn_last_error());
}

static void push_by_reference(const attn_attention_args *a, const attn_attention_tangents *t) {
    attn_attention_plan plan;
    attn_attention_plan_tangents tangents;
    attn_session session;
    assert_int_equal(attn_attention_plan_jvp(&plan, &tangents, a, t, ATTN_PLAN_CALL), ATTN_OK);
    assert_int_equal(attn_session_open(&session, NULL, attn_reference_jvp_need(&plan)), ATTN_OK);
    attn_reference_jvp(&plan, &tangents, &session);
    attn_session_close(&session);
}

static attn_attention_tangents fresh_results(const attn_attention_args *a, attn_attention_tangents t) {
    t.dout = tensor_of(a->q.dtype, 4, a->out.shape);
    t.dlse = tensor3(accumulator(a->q.dtype), a->q.shape[0], a->q.shape[1], a->q.shape[2]);
    return t;
}

/* Bits of `which`: dq, dk, dv, dbias. */
static attn_attention_tangents tangents_of(const attn_attention_args *a, int which, uint64_t *seed) {
    attn_attention_tangents t = { 0 };
    if (which & 1) t.dq = normal_like(a->q, seed);
    if (which & 2) t.dk = normal_like(a->k, seed);
    if (which & 4) t.dv = normal_like(a->v, seed);
    if (which & 8) t.dbias = normal_like(a->bias, seed);
    return fresh_results(a, t);
}

/* ---- what it is ------------------------------------------------------------------------------------------------ */

static attn_attention_args at_step(const attn_attention_args *a, const attn_attention_tangents *t, double h) {
    attn_attention_args b = *a;
    b.q = moved(a->q, t->dq, h);
    b.k = moved(a->k, t->dk, h);
    b.v = moved(a->v, t->dv, h);
    b.bias = moved(a->bias, t->dbias, h);
    b.out = tensor_of(ATTN_F64, 4, a->out.shape);
    b.see.lse = tensor_of(ATTN_F64, 3, a->see.lse.shape);
    attend(&b);
    return b;
}

static void assert_is_the_slope(const char *what, attn_tensor tangent, attn_tensor above, attn_tensor below, double h) {
    for (int64_t n = 0; n < attn_count(&tangent); n++) {
        double slope = get(above, n) == -INFINITY ? 0 : (get(above, n) - get(below, n)) / (2 * h);
        if (!(fabs(get(tangent, n) - slope) <= 2e-8 * (1 + fabs(slope))))
            fail_msg("%s[%lld] is %.12g, the slope is %.12g", what, (long long)n, get(tangent, n), slope);
    }
}

static void tangents_are_central_differences(void **state) {
    (void)state;
    uint64_t seed = 1;
    const double h = 1e-5;
    for (int option = 0; option < SMALL_OPTIONS; option++)
        for (int which = 0; which < 16; which++)
            for (int reference = 0; reference < 2; reference++) {
                attn_attention_args a = small_smooth_problem(option, 5);
                attn_attention_tangents t = tangents_of(&a, which, &seed);
                (reference ? push_by_reference : push)(&a, &t);
                attn_attention_args above = at_step(&a, &t, h), below = at_step(&a, &t, -h);
                assert_is_the_slope("dout", t.dout, above.out, below.out, h);
                assert_is_the_slope("dlse", t.dlse, above.see.lse, below.see.lse, h);
                free_blocks(NULL);
            }
}

/* <dout, J d> + <dlse, ...> = <dq, d q> + <dk, d k> + ... of the backward. */
static void the_jvp_is_the_transpose_of_the_backward(void **state) {
    (void)state;
    uint64_t seed = 2;
    for (int trial = 0; trial < 60; trial++) {
        attn_attention_args a = smooth_problem(&seed, ATTN_F64);
        attn_attention_tangents t = tangents_of(&a, 15, &seed);
        attn_attention_grads g = { .dout = normal_like(a.out, &seed),
                                   .dlse = normal_like(a.see.lse, &seed),
                                   .dq = tensor_of(ATTN_F64, 4, a.q.shape),
                                   .dk = tensor_of(ATTN_F64, 4, a.k.shape),
                                   .dv = tensor_of(ATTN_F64, 4, a.v.shape) };
        if (a.bias.rank) g.dbias = tensor_of(ATTN_F64, a.bias.rank, a.bias.shape);
        push(&a, &t);
        attend_backward(&a, &g);
        double forward = inner(g.dout, t.dout) + inner(g.dlse, t.dlse);
        double backward = inner(g.dq, t.dq) + inner(g.dk, t.dk) + inner(g.dv, t.dv) + inner(g.dbias, t.dbias);
        double size = sqrt(inner(g.dout, g.dout) * inner(t.dout, t.dout));
        if (!(fabs(forward - backward) <= 1e-11 * (1 + size))) fail_msg("trial %d: %.15g and %.15g", trial, forward, backward);
        free_blocks(NULL);
    }
}

static void an_absent_direction_is_a_direction_of_zeros(void **state) {
    (void)state;
    uint64_t seed = 3;
    for (int which = 0; which < 16; which++) {
        attn_attention_args a = small_smooth_problem(7, 6);
        attn_attention_tangents t = tangents_of(&a, which, &seed), zeros = fresh_results(&a, t);
        attn_tensor *directions[] = { &zeros.dq, &zeros.dk, &zeros.dv, &zeros.dbias };
        const attn_tensor *inputs[] = { &a.q, &a.k, &a.v, &a.bias };
        for (int i = 0; i < 4; i++) {
            if (which & 1 << i) continue;
            *directions[i] = tensor_of(ATTN_F64, inputs[i]->rank, inputs[i]->shape);
            fill(*directions[i], 0);
        }
        push(&a, &t);
        push(&a, &zeros);
        assert_all_close("dout", t.dout, zeros.dout, 1e-14);
        assert_all_close("dlse", t.dlse, zeros.dlse, 1e-14);
        if (which == 0) assert_all("dout", t.dout, 0);
    }
}

static void out_and_lse_have_the_bits_of_the_forward(void **state) {
    (void)state;
    static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_BF16 };
    uint64_t seed = 4;
    for (int trial = 0; trial < 30; trial++) {
        attn_attention_args a = smooth_problem(&seed, dtypes[trial % 3]), b = a;
        attn_attention_tangents t = tangents_of(&a, 15, &seed);
        attend(&a);
        b.out = tensor_of(a.q.dtype, 4, a.out.shape);
        b.see.lse = tensor_of(a.see.lse.dtype, 3, a.see.lse.shape);
        push(&b, &t);
        assert_same_bits("out", b.out, a.out);
        assert_same_bits("lse", b.see.lse, a.see.lse);
        free_blocks(NULL);
    }
}

static void what_is_asked_for_changes_no_bit(void **state) {
    (void)state;
    uint64_t seed = 5;
    attn_attention_args a = smooth_problem(&seed, ATTN_F32), b = a;
    attn_attention_tangents t = tangents_of(&a, 7, &seed), u = fresh_results(&a, t), v = u;
    push(&a, &t);
    b.out = b.see.lse = (attn_tensor){ 0 };
    u.dlse = (attn_tensor){ 0 };
    v.dout = (attn_tensor){ 0 };
    push(&b, &u);
    push(&b, &v);
    assert_same_bits("dout", u.dout, t.dout);
    assert_same_bits("dlse", v.dlse, t.dlse);
}

/* ---- accuracy -------------------------------------------------------------------------------------------------- */

/* docs/ACCURACY.md: with D the largest |scale| sum_d (|dq k| + |q dk|) + |dbias| over a row's live keys and
 * e = u ((4 dim + 16) (1 + A) + kv_len + 32): dlse 4 e D; dout 4 e (D max |v| + max |dv|), with dropout 1 / (1 - p) as much. */
static void assert_row_within(const attn_attention_plan *p, const attn_attention_tangents *got,
                              const attn_attention_tangents *exact, attn_tensor dbias, int64_t b, int64_t h, int64_t i) {
    double magnitude = row_magnitude(p, b, h, i), d = 0, v = 0, dv = 0;
    double e = unit_of(p->q.dtype) * ((4 * (double)p->dim + 16) * (1 + magnitude) + (double)p->kv_len + 32);
    for (int64_t j = 0; j < p->kv_len; j++) {
        double sum = 0;
        if (!plan_sees(p, b, h, i, j)) continue;
        for (int64_t c = 0; c < p->dim; c++)
            sum += fabs(get4(exact->dq, b, h, i, c) * get4(p->k, b, h / p->k_group, j, c)) +
                   fabs(get4(p->q, b, h, i, c) * get4(exact->dk, b, h / p->k_group, j, c));
        sum *= fabs(p->scale);
        if (dbias.rank) sum += fabs(get4(dbias, b, h, i, j));
        d = fmax(d, sum);
        for (int64_t c = 0; c < p->v_dim; c++) {
            v = fmax(v, fabs(get4(p->v, b, h / p->v_group, j, c)));
            dv = fmax(dv, fabs(get4(exact->dv, b, h / p->v_group, j, c)));
        }
    }
    int64_t row = (b * p->heads + h) * p->q_len + i;
    double keep = p->dropout.on ? p->dropout.scale : 1;
    assert_within("dlse", got->dlse, row, get(exact->dlse, row), 4 * e * d);
    for (int64_t c = 0; c < p->v_dim; c++)
        assert_within("dout", got->dout, row * p->v_dim + c, get(exact->dout, row * p->v_dim + c), 4 * e * keep * (d * v + dv));
}

static void kernels_are_within_the_published_bound_of_the_reference(void **state) {
    (void)state;
    uint64_t seed = 6;
    for (int trial = 0; trial < 80; trial++) {
        attn_attention_args a = smooth_problem(&seed, trial % 2 ? ATTN_F64 : ATTN_F32), b = in_f64(a);
        attn_attention_tangents t = tangents_of(&a, 15, &seed), exact = t;
        exact.dq = in_f64_copy(t.dq);
        exact.dk = in_f64_copy(t.dk);
        exact.dv = in_f64_copy(t.dv);
        exact.dbias = in_f64_copy(t.dbias);
        exact = fresh_results(&b, exact);
        push(&a, &t);
        push_by_reference(&b, &exact);
        attn_attention_plan p;
        attn_attention_plan_tangents wide;
        assert_int_equal(attn_attention_plan_jvp(&p, &wide, &b, &exact, ATTN_PLAN_CALL), ATTN_OK);
        attn_attention_plan own;
        assert_int_equal(attn_attention_plan_forward(&own, &a, ATTN_PLAN_CALL), ATTN_OK);
        for (int64_t n = 0; n < p.batch * p.heads * p.q_len; n++)
            assert_row_within(&own, &t, &exact, wide.dbias, n / p.q_len / p.heads, n / p.q_len % p.heads, n % p.q_len);
        free_blocks(NULL);
    }
}

static void normal_problems_are_within_the_published_rms_bound(void **state) {
    (void)state;
    static const problem_shape shapes[] = { { 1, 2, 1, 2, 100, 300, 64, 40 },
                                            { 2, 2, 2, 2, 33, 70, 17, 9 },
                                            { 1, 1, 1, 1, 5, 900, 32, 32 },
                                            { 1, 1, 1, 1, 300, 60, 8, 9 } };
    for (int i = 0; i < 8; i++) {
        int32_t dtype = i % 2 ? ATTN_F64 : ATTN_F32;
        uint64_t seed = 7;
        attn_attention_args a = problem(shapes[i / 2], dtype, 7), b;
        a.causal = i / 2 == 1 ? ATTN_CAUSAL : ATTN_NOT_CAUSAL;
        b = in_f64(a);
        attn_attention_tangents t = tangents_of(&a, 7, &seed),
                                exact = { .dq = in_f64_copy(t.dq), .dk = in_f64_copy(t.dk), .dv = in_f64_copy(t.dv) };
        exact = fresh_results(&b, exact);
        push(&a, &t);
        push_by_reference(&b, &exact);
        assert_rms_within("dout", t.dout, exact.dout, gradient_rms_bound(dtype));
        assert_rms_within("dlse", t.dlse, exact.dlse, gradient_rms_bound(dtype));
        free_blocks(NULL);
    }
}

static void sixteen_bit_tangents_are_rounded_once(void **state) {
    (void)state;
    static const int32_t dtypes[] = { ATTN_BF16, ATTN_F16 };
    uint64_t seed = 8;
    for (int d = 0; d < 2; d++) {
        attn_attention_args a = problem((problem_shape){ 1, 2, 1, 2, 7, 20, 8, 8 }, dtypes[d], 8), b = in_f64(a);
        attn_attention_tangents t = tangents_of(&a, 7, &seed),
                                exact = { .dq = in_f64_copy(t.dq), .dk = in_f64_copy(t.dk), .dv = in_f64_copy(t.dv) };
        exact = fresh_results(&b, exact);
        push(&a, &t);
        push_by_reference(&b, &exact);
        for (int64_t n = 0; n < attn_count(&t.dout); n++)
            assert_close(get(t.dout, n), get(exact.dout, n), (d ? 0x1p-11 : 0x1p-8) * fabs(get(exact.dout, n)) + 0x1p-24);
    }
}

/* ---- masks ----------------------------------------------------------------------------------------------------- */

/* Whatever masked keys and padded rows hold and wherever they move: the bits are those of zeros. */
static void masked_keys_and_padding_leak_nothing(void **state) {
    (void)state;
    static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_F16 };
    static const double bad[] = { NAN, INFINITY, 0 };
    for (int d = 0; d < 3; d++) {
        attn_attention_tangents results[3];
        for (int i = 0; i < 3; i++) {
            const int64_t q_len = 40, kv_len = 150;
            uint64_t seed = 9;
            attn_attention_args a = problem((problem_shape){ 1, 2, 1, 1, q_len, kv_len, 9, 7 }, dtypes[d], 9);
            attn_attention_tangents t;
            a.q_lengths = values1(ATTN_I32, 1, (double[]){ 37 });
            a.kv_lengths = values1(ATTN_I64, 1, (double[]){ 141 });
            a.causal = ATTN_CAUSAL;
            a.bias = tensor1(dtypes[d], kv_len);
            a.mask = tensor2(ATTN_BOOL, q_len, kv_len);
            fill_normal(a.bias, &seed);
            fill_coin(a.mask, &seed, 0.9);
            for (int64_t j = 0; j < kv_len; j++) put(a.mask, 3 * kv_len + j, 0);
            for (int64_t n = 0; n < q_len; n++) put(a.mask, n * kv_len + 20, 0);
            t = tangents_of(&a, 15, &seed);
            put(a.bias, 30, -INFINITY);
            for (int64_t c = 0; c < 9; c++) {
                for (int64_t j = 0; j < 3; j++) {
                    int64_t key = (int64_t[]){ 20, 30, 145 }[j];
                    put4(a.k, 0, 0, key, c, bad[i]);
                    put4(t.dk, 0, 0, key, c, bad[i]);
                    if (c < 7) put4(a.v, 0, 0, key, c, bad[i]);
                    if (c < 7) put4(t.dv, 0, 0, key, c, bad[i]);
                    put(t.dbias, key, bad[i]);
                }
                put4(a.q, 0, 1, 38, c, bad[i]);
                put4(t.dq, 0, 1, 38, c, bad[i]);
                put4(t.dq, 0, 0, 3, c, bad[i]);
            }
            push(&a, &t);
            for (int64_t c = 0; c < 7; c++)
                assert_true(get4(t.dout, 0, 0, 3, c) == 0 && get4(t.dout, 0, 1, 38, c) == 0 && get3(t.dlse, 0, 0, 3) == 0);
            results[i] = t;
        }
        for (int i = 0; i < 2; i++) {
            assert_same_bits("dout", results[i].dout, results[2].dout);
            assert_same_bits("dlse", results[i].dlse, results[2].dlse);
        }
        for (int64_t n = 0; n < attn_count(&results[2].dout); n++) assert_true(isfinite(get(results[2].dout, n)));
    }
}

static void a_live_nan_shows_in_the_rows_that_see_it(void **state) {
    (void)state;
    uint64_t seed = 10;
    attn_attention_args a = problem((problem_shape){ 1, 1, 1, 1, 30, 30, 4, 4 }, ATTN_F32, 10);
    attn_attention_tangents t = tangents_of(&a, 7, &seed);
    a.causal = ATTN_CAUSAL;
    put4(t.dk, 0, 0, 12, 1, NAN);
    push(&a, &t);
    for (int64_t i = 0; i < 30; i++) assert_true(isnan(get4(t.dout, 0, 0, i, 0)) == (i >= 12));
}

static void no_keys_and_no_rows_are_answered(void **state) {
    (void)state;
    uint64_t seed = 11;
    attn_attention_args a = problem((problem_shape){ 1, 2, 1, 2, 3, 0, 4, 5 }, ATTN_F32, 11);
    attn_attention_tangents t = tangents_of(&a, 7, &seed);
    push(&a, &t);
    assert_all("dout", t.dout, 0);
    assert_all("dlse", t.dlse, 0);
    a = problem((problem_shape){ 1, 2, 1, 2, 0, 3, 4, 5 }, ATTN_F64, 11);
    t = tangents_of(&a, 7, &seed);
    push(&a, &t);
}

/* ---- bits, memory, errors ------------------------------------------------------------------------------------------ */

static void threads_strides_and_neighbours_change_no_bit(void **state) {
    (void)state;
    uint64_t seed = 12;
    attn_exec pool = { 0 };
    assert_int_equal(attn_pool_open(&pool, 3), ATTN_OK);
    for (int trial = 0; trial < 24; trial++) {
        attn_attention_args a = smooth_problem(&seed, trial % 2 ? ATTN_F64 : ATTN_F32), b = a;
        attn_attention_tangents t = tangents_of(&a, trial % 16, &seed), u = fresh_results(&a, t);
        push(&a, &t);
        if (attn_attention_jvp(&a, &u, &pool) != ATTN_OK) fail_msg("%s", attn_last_error());
        assert_same_bits("dout", u.dout, t.dout);
        b.q = strided_copy(a.q), b.k = strided_copy(a.k), b.v = strided_copy(a.v);
        if (t.dq.rank) u.dq = strided_copy(t.dq);
        if (t.dk.rank) u.dk = strided_copy(t.dk);
        if (t.dv.rank) u.dv = strided_copy(t.dv);
        u = fresh_results(&a, u);
        u.dout = strided_copy(u.dout);
        push(&b, &u);
        assert_same_bits("dout", u.dout, t.dout);
        assert_same_bits("dlse", u.dlse, t.dlse);
        free_blocks(NULL);
    }
    attn_pool_close(&pool);
}

static void a_batch_entry_has_the_bits_it_has_alone(void **state) {
    (void)state;
    uint64_t seed = 13;
    attn_attention_args a = problem((problem_shape){ 3, 2, 1, 2, 33, 80, 9, 10 }, ATTN_F32, 13), b;
    attn_attention_tangents t = tangents_of(&a, 7, &seed), u;
    a.causal = ATTN_CAUSAL;
    push(&a, &t);
    b = a, u = t;
    attn_tensor *all[] = { &b.q, &b.k, &b.v, &b.out, &u.dq, &u.dk, &u.dv };
    for (int i = 0; i < 7; i++) {
        all[i]->data = attn_at(all[i], all[i]->stride[0]);
        all[i]->shape[0] = 1;
    }
    u = fresh_results(&b, u);
    push(&b, &u);
    t.dout.data = attn_at(&t.dout, t.dout.stride[0]);
    t.dlse.data = attn_at(&t.dlse, t.dlse.stride[0]);
    assert_same_bits("dout", u.dout, t.dout);
    assert_same_bits("dlse", u.dlse, t.dlse);
}

static void lent_memory_is_enough_and_a_byte_less_is_refused(void **state) {
    (void)state;
    static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_BF16 };
    uint64_t seed = 14;
    for (int d = 0; d < 3; d++) {
        attn_attention_args a = problem((problem_shape){ 1, 2, 1, 2, 20, 50, 9, 10 }, dtypes[d], 14), bare = a;
        attn_attention_tangents t = tangents_of(&a, 7, &seed), question = t;
        attn_tensor *all[] = { &bare.q, &bare.k, &bare.v, &bare.out, &question.dq, &question.dk, &question.dv, &question.dout };
        for (int i = 0; i < 8; i++) all[i]->data = NULL;
        size_t bytes = attn_attention_jvp_workspace(&bare, &question, 1);
        assert_true(bytes > 0 && bytes == attn_attention_jvp_workspace(&a, &t, 1));
        char *memory = poisoned(bytes + 64);
        attn_exec exec = { .workspace = memory + 1, .workspace_size = bytes - 1 };
        fill(t.dout, 42);
        assert_int_equal(attn_attention_jvp(&a, &t, &exec), ATTN_SMALL_WORKSPACE);
        assert_all("dout", t.dout, 42);
        exec.workspace_size = bytes;
        assert_int_equal(attn_attention_jvp(&a, &t, &exec), ATTN_OK);
        for (size_t i = bytes + 1; i < bytes + 64; i++) assert_int_equal((unsigned char)memory[i], 0xff);
    }
}

static void memory_does_not_grow_with_the_scores(void **state) {
    (void)state;
    const int64_t n = 1 << 20;
    attn_attention_args a = { .q = attn_bhsd(ATTN_F32, NULL, 1, 1, n, 64),
                              .k = attn_bhsd(ATTN_F32, NULL, 1, 1, n, 64),
                              .v = attn_bhsd(ATTN_F32, NULL, 1, 1, n, 64) };
    attn_attention_tangents t = { .dq = a.q, .dk = a.k, .dv = a.v, .dout = a.q };
    size_t bytes = attn_attention_jvp_workspace(&a, &t, 1);
    assert_true(bytes > 0 && bytes < (size_t)n * 128);
}

static void a_head_size_beyond_all_memory_is_counted_without_overflow(void **state) {
    (void)state;
    const int64_t dim = INT64_MAX / 8;
    attn_tensor q = attn_bhsd(ATTN_F32, NULL, 1, 1, 0, dim), v = attn_bhsd(ATTN_F32, NULL, 1, 1, 0, 4);
    attn_attention_args a = { .q = q, .k = q, .v = v };
    attn_attention_tangents t = { .dq = q, .dk = q, .dv = v };
    assert_true(attn_attention_jvp_workspace(&a, &t, 1) == SIZE_MAX);
    assert_int_equal(attn_attention_jvp(&a, &t, NULL), ATTN_NO_MEMORY);
}

static void bad_tangents_are_refused_before_anything_is_written(void **state) {
    (void)state;
    uint64_t seed = 15;
    attn_attention_args a = problem((problem_shape){ 1, 2, 1, 2, 3, 4, 5, 6 }, ATTN_F32, 15), b = a;
    attn_attention_tangents t = tangents_of(&a, 7, &seed), u;
    fill(t.dout, 42);
    fill(a.out, 42);
#define REFUSED(status, words)                                                                                                   \
    assert_int_equal(attn_attention_jvp(&b, &u, NULL), status);                                                                  \
    if (!strstr(attn_last_error(), words)) fail_msg("message \"%s\" lacks \"%s\"", attn_last_error(), words);                    \
    assert_int_equal(attn_attention_jvp_workspace(&b, &u, 1), 0);                                                                \
    b = a, u = t
    u = t;
    b.score = ATTN_COSINE;
    REFUSED(ATTN_UNSUPPORTED, "dot score");
    b.weighting = ATTN_WEIGHT_SIGMOID;
    REFUSED(ATTN_UNSUPPORTED, "softmax");
    u.reserved[7] = 1;
    REFUSED(ATTN_UNSUPPORTED, "attn_attention_tangents");
    u.dk = t.dq;
    REFUSED(ATTN_BAD_SHAPE, "dk has shape [1, 2, 3, 5], here it is [1, 1, 4, 5]");
    u.dq.dtype = ATTN_F64;
    REFUSED(ATTN_BAD_ARGUMENT, "dq is f64: here it is f32");
    u.dout.stride[2] = 0;
    REFUSED(ATTN_BAD_ARGUMENT, "dout");
    u.dlse.dtype = ATTN_F64;
    REFUSED(ATTN_BAD_ARGUMENT, "dlse is f64");
    u.dbias = tensor1(ATTN_F32, 4);
    REFUSED(ATTN_BAD_ARGUMENT, "dbias is given, and there is no bias");
    b.bias = tensor1(ATTN_F32, 4);
    u.dbias = tensor1(ATTN_F32, 3);
    REFUSED(ATTN_BAD_SHAPE, "dbias");
    assert_int_equal(attn_attention_jvp(&a, NULL, NULL), ATTN_BAD_ARGUMENT);
    assert_int_equal(attn_attention_jvp(NULL, &t, NULL), ATTN_BAD_ARGUMENT);
    assert_all("dout", t.dout, 42);
    assert_all("out", a.out, 42);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(tangents_are_central_differences, free_blocks),
        cmocka_unit_test_teardown(the_jvp_is_the_transpose_of_the_backward, free_blocks),
        cmocka_unit_test_teardown(an_absent_direction_is_a_direction_of_zeros, free_blocks),
        cmocka_unit_test_teardown(out_and_lse_have_the_bits_of_the_forward, free_blocks),
        cmocka_unit_test_teardown(what_is_asked_for_changes_no_bit, free_blocks),
        cmocka_unit_test_teardown(kernels_are_within_the_published_bound_of_the_reference, free_blocks),
        cmocka_unit_test_teardown(normal_problems_are_within_the_published_rms_bound, free_blocks),
        cmocka_unit_test_teardown(sixteen_bit_tangents_are_rounded_once, free_blocks),
        cmocka_unit_test_teardown(masked_keys_and_padding_leak_nothing, free_blocks),
        cmocka_unit_test_teardown(a_live_nan_shows_in_the_rows_that_see_it, free_blocks),
        cmocka_unit_test_teardown(no_keys_and_no_rows_are_answered, free_blocks),
        cmocka_unit_test_teardown(threads_strides_and_neighbours_change_no_bit, free_blocks),
        cmocka_unit_test_teardown(a_batch_entry_has_the_bits_it_has_alone, free_blocks),
        cmocka_unit_test_teardown(lent_memory_is_enough_and_a_byte_less_is_refused, free_blocks),
        cmocka_unit_test_teardown(memory_does_not_grow_with_the_scores, free_blocks),
        cmocka_unit_test_teardown(a_head_size_beyond_all_memory_is_counted_without_overflow, free_blocks),
        cmocka_unit_test_teardown(bad_tangents_are_refused_before_anything_is_written, free_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
