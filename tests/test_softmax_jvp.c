/* SPDX-License-Identifier: Apache-2.0 */
/* Forward mode through the softmax family: against central differences in float64, the transpose of the backward, f32 within its
 * bound of f64, the same bits whatever the strides and threads, and what masked entries do. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/tensors.h"

static const int32_t ops[] = { ATTN_SOFTMAX,  ATTN_LOG_SOFTMAX, ATTN_SOFTMIN,       ATTN_SPARSEMAX,
                               ATTN_ENTMAX15, ATTN_ENTMAX,      ATTN_GUMBEL_SOFTMAX };
enum { OPS = sizeof ops / sizeof *ops, ROWS = 3 };

static attn_softmax_args problem(int32_t dtype, int32_t op, int64_t n, bool with, uint64_t *seed) {
    attn_softmax_args a = { .op = op, .x = tensor2(dtype, ROWS, n), .y = tensor2(dtype, ROWS, n) };
    fill_normal(a.x, 1.5, seed);
    if (op == ATTN_ENTMAX) a.alpha = 1.3;
    if (op == ATTN_GUMBEL_SOFTMAX) a.seed = 7, a.temperature = 0.8;
    if (!with) return a;
    a.scale = 0.6;
    a.mask = tensor2(ATTN_BOOL, ROWS, n);
    a.bias = tensor2(dtype, ROWS, n);
    fill_coin(a.mask, 0.7, seed);
    fill_normal(a.bias, 1, seed);
    return a;
}

static attn_softmax_tangents tangents_of(const attn_softmax_args *a, bool lse, uint64_t *seed) {
    attn_softmax_tangents t = { .dx = tensor_of(a->x.dtype, 2, a->x.shape) };
    t.dy = lse ? tensor1(a->x.dtype, ROWS) : tensor_of(a->x.dtype, 2, a->x.shape);
    fill_normal(t.dx, 1, seed);
    return t;
}

/* The same call at x + h dx. */
static attn_tensor moved(attn_softmax_args a, attn_tensor dx, double h, bool lse) {
    attn_tensor x = tensor_of(ATTN_F64, 2, a.x.shape);
    for (int64_t i = 0; i < attn_count(&x); i++) put(x, i, get(a.x, i) + h * get(dx, i));
    a.x = x;
    a.y = lse ? tensor1(ATTN_F64, ROWS) : tensor_of(ATTN_F64, 2, x.shape);
    assert_ok(lse ? attn_logsumexp(&a, NULL) : attn_softmax(&a, NULL));
    return a.y;
}

/* Entmax bends where an entry comes in: there a difference over a finite step is off by the step. */
static void assert_is_the_slope(const attn_softmax_args *a, const attn_softmax_tangents *t, bool lse) {
    const double h = 1e-6;
    attn_tensor above = moved(*a, t->dx, h, lse), below = moved(*a, t->dx, -h, lse);
    for (int64_t i = 0; i < attn_count(&t->dy); i++) {
        double slope = (get(above, i) - get(below, i)) / (2 * h), got = get(t->dy, i);
        if (isinf(get(above, i)) || isnan(slope)) slope = 0; /* masked */
        if (!(fabs(got - slope) <= 1e-7 * (1 + fabs(slope))))
            fail_msg("op %d, element %lld: %.12g, by differences %.12g", a->op, (long long)i, got, slope);
    }
}

static void tangents_are_those_of_central_differences(void **state) {
    (void)state;
    static const int64_t lengths[] = { 1, 2, 5, 16, 33, 300 };
    uint64_t seed = 1;
    for (size_t o = 0; o < OPS; o++)
        for (size_t l = 0; l < 6; l++)
            for (int with = 0; with < 2; with++) {
                attn_softmax_args a = problem(ATTN_F64, ops[o], lengths[l], with, &seed);
                attn_softmax_tangents t = tangents_of(&a, false, &seed);
                assert_ok(attn_softmax(&a, NULL));
                assert_ok(attn_softmax_jvp(&a, &t, NULL));
                assert_is_the_slope(&a, &t, false);
                free_blocks(NULL);
            }
}

static void logsumexp_tangents_are_those_of_central_differences(void **state) {
    (void)state;
    static const int64_t lengths[] = { 1, 5, 33, 300, 1100 };
    uint64_t seed = 2;
    for (int32_t op = 0; op < 3; op++)
        for (size_t l = 0; l < 5; l++)
            for (int with = 0; with < 2; with++) {
                attn_softmax_args a = problem(ATTN_F64, op, lengths[l], with, &seed);
                attn_softmax_tangents t = tangents_of(&a, true, &seed);
                if (op == ATTN_LOG_SOFTMAX) a.op = ATTN_SOFTMAX, a.scale = -0.7;
                assert_ok(attn_logsumexp_jvp(&a, &t, NULL));
                assert_is_the_slope(&a, &t, true);
                free_blocks(NULL);
            }
}

static double dot(attn_tensor x, attn_tensor y) {
    double sum = 0;
    for (int64_t i = 0; i < attn_count(&x); i++)
        if (isfinite(get(x, i)) && isfinite(get(y, i))) sum += get(x, i) * get(y, i);
    return sum;
}

/* <dy, J dx> = <J^T dy, dx> */
static void the_jvp_is_the_transpose_of_the_backward(void **state) {
    (void)state;
    uint64_t seed = 3;
    for (size_t o = 0; o < OPS; o++)
        for (int with = 0; with < 2; with++) {
            attn_softmax_args a = problem(ATTN_F64, ops[o], 77, with, &seed);
            attn_softmax_tangents t = tangents_of(&a, false, &seed);
            attn_softmax_grads g = { .dy = tensor2(ATTN_F64, ROWS, 77), .dx = tensor2(ATTN_F64, ROWS, 77) };
            fill_normal(g.dy, 1, &seed);
            assert_ok(attn_softmax(&a, NULL));
            assert_ok(attn_softmax_jvp(&a, &t, NULL));
            assert_ok(attn_softmax_backward(&a, &g, NULL));
            double forward = dot(g.dy, t.dy), backward = dot(g.dx, t.dx);
            if (!(fabs(forward - backward) <= 1e-12 * (1 + fabs(forward)))) fail_msg("op %d: %g, %g", a.op, forward, backward);
        }
    for (int with = 0; with < 2; with++) {
        attn_softmax_args a = problem(ATTN_F64, ATTN_SOFTMIN, 77, with, &seed);
        attn_softmax_tangents t = tangents_of(&a, true, &seed);
        attn_softmax_grads g = { .dy = tensor1(ATTN_F64, ROWS), .dx = tensor2(ATTN_F64, ROWS, 77) };
        fill_normal(g.dy, 1, &seed);
        assert_ok(attn_logsumexp_jvp(&a, &t, NULL));
        assert_ok(attn_logsumexp_backward(&a, &g, NULL));
        double forward = dot(g.dy, t.dy), backward = dot(g.dx, t.dx);
        assert_true(fabs(forward - backward) <= 1e-12 * (1 + fabs(forward)));
    }
}

static void a_symmetric_jvp_is_the_backward_to_the_bit(void **state) {
    (void)state;
    uint64_t seed = 4;
    for (size_t o = 0; o < OPS; o++) {
        if (ops[o] == ATTN_LOG_SOFTMAX) continue;
        attn_softmax_args a = problem(ATTN_F32, ops[o], 600, true, &seed);
        attn_softmax_tangents t = tangents_of(&a, false, &seed);
        attn_softmax_grads g = { .dy = t.dx, .dx = tensor2(ATTN_F32, ROWS, 600) };
        assert_ok(attn_softmax(&a, NULL));
        assert_ok(attn_softmax_jvp(&a, &t, NULL));
        assert_ok(attn_softmax_backward(&a, &g, NULL));
        assert_same(g.dx, t.dy);
    }
}

/* Published bounds, of log-softmax and logsumexp: 16 u scale (|dx| + sum p |dx|). */
static void f32_tangents_are_within_their_bound_of_f64(void **state) {
    (void)state;
    static const int64_t lengths[] = { 1, 15, 16, 130, 1000, 5001 };
    uint64_t seed = 5;
    for (int lse = 0; lse < 2; lse++)
        for (size_t l = 0; l < 6; l++) {
            const int64_t n = lengths[l];
            attn_softmax_args a = problem(ATTN_F32, lse ? ATTN_SOFTMAX : ATTN_LOG_SOFTMAX, n, false, &seed), b;
            attn_softmax_tangents t = tangents_of(&a, lse, &seed), exact = { .dx = dense_copy(t.dx, ATTN_F64) };
            exact.dy = lse ? tensor1(ATTN_F64, ROWS) : tensor2(ATTN_F64, ROWS, n);
            a.scale = 0.75;
            if (!lse) assert_ok(attn_softmax(&a, NULL));
            b = a;
            if (lse) /* z counts as rounded */
                for (int64_t i = 0; i < attn_count(&a.x); i++) put(a.x, i, ldexp(round(get(a.x, i) * 0x1p18), -18));
            b.x = dense_copy(a.x, ATTN_F64);
            b.y = lse ? (attn_tensor){ 0 } : dense_copy(a.y, ATTN_F64);
            assert_ok(lse ? attn_logsumexp_jvp(&a, &t, NULL) : attn_softmax_jvp(&a, &t, NULL));
            assert_ok(lse ? attn_logsumexp_jvp(&b, &exact, NULL) : attn_softmax_jvp(&b, &exact, NULL));
            attn_softmax_args p = { .x = b.x, .y = tensor2(ATTN_F64, ROWS, n), .scale = 0.75 };
            assert_ok(attn_softmax(&p, NULL));
            for (int64_t r = 0; r < ROWS; r++) {
                double sum = 0;
                for (int64_t i = r * n; i < (r + 1) * n; i++) sum += get(p.y, i) * fabs(get(t.dx, i));
                for (int64_t i = lse ? r : r * n; i < (lse ? r + 1 : (r + 1) * n); i++) {
                    double size = 0.75 * (sum + (lse ? 0 : fabs(get(t.dx, i))));
                    if (!(fabs(get(t.dy, i) - get(exact.dy, i)) <= 0x1p-24 * 16 * size + 0x1p-126))
                        fail_msg("lse %d, n %lld: %.9g, not %.9g", lse, (long long)n, get(t.dy, i), get(exact.dy, i));
                }
            }
            free_blocks(NULL);
        }
}

static void tangents_have_the_same_bits_for_any_strides_threads_and_in_place(void **state) {
    (void)state;
    static const int orders[][2] = { { 0, 1 }, { 1, 0 } };
    static const int64_t n_of[] = { 3, 100, 257, 1500 };
    static const int32_t dtypes[] = { ATTN_F32, ATTN_F64 };
    uint64_t seed = 6;
    attn_exec pool = { 0 };
    assert_ok(attn_pool_open(&pool, 3));
    for (size_t d = 0; d < 2; d++)
        for (int lse = 0; lse < 2; lse++)
            for (size_t l = 0; l < 4; l++) {
                const int64_t shape[] = { 37, n_of[l] };
                attn_softmax_args a = { .op = lse ? ATTN_SOFTMIN : ATTN_LOG_SOFTMAX, .x = tensor_of(dtypes[d], 2, shape) }, s;
                attn_softmax_tangents t = { .dx = tensor_of(dtypes[d], 2, shape) }, u;
                t.dy = lse ? tensor1(dtypes[d], 37) : tensor_of(dtypes[d], 2, shape);
                fill_normal(a.x, 2, &seed);
                fill_normal(t.dx, 1, &seed);
                a.y = tensor_of(dtypes[d], 2, shape);
                if (!lse) assert_ok(attn_softmax(&a, NULL));
                assert_ok(lse ? attn_logsumexp_jvp(&a, &t, NULL) : attn_softmax_jvp(&a, &t, NULL));
                for (int way = 0; way < 8; way++) {
                    s = a, u = t;
                    u.dx = tensor_in_order(dtypes[d], 2, shape, orders[way & 1], way >> 2);
                    s.y = tensor_in_order(dtypes[d], 2, shape, orders[way >> 1 & 1], way >> 2);
                    s.x = tensor_in_order(dtypes[d], 2, shape, orders[way >> 1 & 1], way >> 2);
                    copy_values(a.x, s.x);
                    copy_values(t.dx, u.dx);
                    if (!lse) copy_values(a.y, s.y);
                    u.dy = lse ? tensor1(dtypes[d], 37) : way & 1 ? u.dx : tensor_of(dtypes[d], 2, shape);
                    const attn_exec *exec = way & 2 ? &pool : NULL;
                    assert_ok(lse ? attn_logsumexp_jvp(&s, &u, exec) : attn_softmax_jvp(&s, &u, exec));
                    assert_same(u.dy, t.dy);
                }
                free_blocks(NULL);
            }
    attn_pool_close(&pool);
}

/* NaN in the tangent of a masked entry reaches nobody; rows without live entries move nowhere. */
static void masked_tangents_count_nothing(void **state) {
    (void)state;
    static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_BF16, ATTN_F16 };
    uint64_t seed = 7;
    for (size_t d = 0; d < 4; d++)
        for (size_t o = 0; o <= OPS; o++) {
            bool lse = o == OPS;
            attn_softmax_args a = problem(dtypes[d], lse ? ATTN_SOFTMAX : ops[o], 50, true, &seed);
            attn_softmax_tangents t = tangents_of(&a, lse, &seed);
            for (int64_t i = 50; i < 100; i++) put(a.mask, i, 0);
            for (int64_t i = 0; i < 150; i++)
                if (!get(a.mask, i)) put(t.dx, i, i % 2 ? NAN : INFINITY);
            if (!lse) assert_ok(attn_softmax(&a, NULL));
            assert_ok(lse ? attn_logsumexp_jvp(&a, &t, NULL) : attn_softmax_jvp(&a, &t, NULL));
            for (int64_t i = 0; i < attn_count(&t.dy); i++) {
                bool dead = lse ? i == 1 : !get(a.mask, i);
                assert_true(dead ? get(t.dy, i) == 0 : isfinite(get(t.dy, i)));
            }
        }
}

static void a_live_nan_shows_in_its_own_row_alone(void **state) {
    (void)state;
    attn_softmax_args a = { .x = tensor2(ATTN_F32, ROWS, 40) };
    attn_softmax_tangents t = { .dx = tensor2(ATTN_F32, ROWS, 40), .dy = tensor1(ATTN_F32, ROWS) };
    fill(a.x, 1);
    fill(t.dx, 2);
    put(a.x, 45, NAN);
    put(t.dx, 85, NAN);
    assert_ok(attn_logsumexp_jvp(&a, &t, NULL));
    assert_true(fabs(get(t.dy, 0) - 2) < 1e-6 && isnan(get(t.dy, 1)) && isnan(get(t.dy, 2)));
    put(a.x, 45, INFINITY);
    assert_ok(attn_logsumexp_jvp(&a, &t, NULL));
    assert_true(isnan(get(t.dy, 1)));
}

static void sixteen_bit_tangents_are_rounded_once(void **state) {
    (void)state;
    static const int32_t dtypes[] = { ATTN_BF16, ATTN_F16 };
    uint64_t seed = 8;
    for (size_t d = 0; d < 2; d++) {
        attn_softmax_args a = problem(dtypes[d], ATTN_LOG_SOFTMAX, 30, false, &seed), b;
        attn_softmax_tangents t = tangents_of(&a, false, &seed), exact = { .dx = dense_copy(t.dx, ATTN_F64) };
        assert_ok(attn_softmax(&a, NULL));
        b = a;
        b.x = (attn_tensor){ 0 };
        b.y = dense_copy(a.y, ATTN_F64);
        exact.dy = tensor2(ATTN_F64, ROWS, 30);
        assert_ok(attn_softmax_jvp(&a, &t, NULL));
        assert_ok(attn_softmax_jvp(&b, &exact, NULL));
        for (int64_t i = 0; i < attn_count(&t.dy); i++)
            assert_true(fabs(get(t.dy, i) - get(exact.dy, i)) <= (d ? 0x1p-11 : 0x1p-8) * fabs(get(exact.dy, i)) + 0x1p-24);
    }
}

static void bad_tangents_are_refused_before_anything_is_written(void **state) {
    (void)state;
    uint64_t seed = 9;
    attn_softmax_args a = problem(ATTN_F32, ATTN_SOFTMAX, 4, false, &seed);
    attn_softmax_tangents t = { .dx = a.x, .dy = tensor2(ATTN_F32, ROWS, 4) }, u = t;
    attn_tensor y = a.y;
    fill(a.y, 0.25);
    assert_refused(attn_softmax_jvp(&a, NULL, NULL), ATTN_BAD_ARGUMENT, "softmax has no tangents to work on");
    assert_refused(attn_softmax_jvp(NULL, &t, NULL), ATTN_BAD_ARGUMENT, "softmax has no arguments");
    u.reserved[3] = 1;
    assert_refused(attn_softmax_jvp(&a, &u, NULL), ATTN_UNSUPPORTED, "attn_softmax_tangents");
    u = t, u.dx = tensor2(ATTN_F32, ROWS, 5);
    assert_refused(attn_softmax_jvp(&a, &u, NULL), ATTN_BAD_SHAPE, "dx");
    u = t, u.dx = (attn_tensor){ 0 };
    assert_refused(attn_softmax_jvp(&a, &u, NULL), ATTN_BAD_ARGUMENT, "dx");
    u = t, u.dy.dtype = ATTN_F16;
    assert_refused(attn_softmax_jvp(&a, &u, NULL), ATTN_UNSUPPORTED, "dy");
    a.y = (attn_tensor){ 0 };
    assert_refused(attn_softmax_jvp(&a, &t, NULL), ATTN_BAD_SHAPE, "y");
    a.y = y;
    assert_refused(attn_logsumexp_jvp(&a, &t, NULL), ATTN_BAD_SHAPE, "dy");
    a.op = ATTN_ENTMAX;
    u = t, u.dy = tensor1(ATTN_F32, ROWS);
    assert_refused(attn_logsumexp_jvp(&a, &u, NULL), ATTN_BAD_ARGUMENT, "no logsumexp");
    assert_untouched(t.dy);
    assert_untouched(u.dy);
}

static void empty_tangents_are_answered(void **state) {
    (void)state;
    attn_tensor none = tensor2(ATTN_F32, 0, 5), empty = tensor2(ATTN_F32, 2, 0), dy = tensor1(ATTN_F32, 2);
    assert_ok(attn_softmax_jvp(&(attn_softmax_args){ .y = none }, &(attn_softmax_tangents){ .dx = none, .dy = none }, NULL));
    assert_ok(attn_logsumexp_jvp(&(attn_softmax_args){ .x = empty }, &(attn_softmax_tangents){ .dx = empty, .dy = dy }, NULL));
    assert_true(get(dy, 0) == 0 && get(dy, 1) == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(tangents_are_those_of_central_differences, free_blocks),
        cmocka_unit_test_teardown(logsumexp_tangents_are_those_of_central_differences, free_blocks),
        cmocka_unit_test_teardown(the_jvp_is_the_transpose_of_the_backward, free_blocks),
        cmocka_unit_test_teardown(a_symmetric_jvp_is_the_backward_to_the_bit, free_blocks),
        cmocka_unit_test_teardown(f32_tangents_are_within_their_bound_of_f64, free_blocks),
        cmocka_unit_test_teardown(tangents_have_the_same_bits_for_any_strides_threads_and_in_place, free_blocks),
        cmocka_unit_test_teardown(masked_tangents_count_nothing, free_blocks),
        cmocka_unit_test_teardown(a_live_nan_shows_in_its_own_row_alone, free_blocks),
        cmocka_unit_test_teardown(sixteen_bit_tangents_are_rounded_once, free_blocks),
        cmocka_unit_test_teardown(bad_tangents_are_refused_before_anything_is_written, free_blocks),
        cmocka_unit_test_teardown(empty_tangents_are_answered, free_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
