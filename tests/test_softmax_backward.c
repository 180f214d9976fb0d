/* SPDX-License-Identifier: Apache-2.0 */
/* Gradients of the softmax family: against central differences in float64, f32 against f64, the same bits whatever the strides, and
 * what masked entries get. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/tensors.h"

static const int32_t ops[] = { ATTN_SOFTMAX, ATTN_LOG_SOFTMAX, ATTN_SOFTMIN };
static const int64_t lengths[] = { 1, 2, 5, 16, 33, 100 };
enum { N_LENGTHS = sizeof lengths / sizeof *lengths };

static attn_softmax_args problem(int32_t dtype, int32_t op, int64_t n, bool with, uint64_t *seed) {
    attn_softmax_args a = { .op = op, .x = tensor2(dtype, 3, n), .y = tensor2(dtype, 3, n) };
    fill_normal(a.x, 1.5, seed);
    if (!with) return a;
    a.scale = 0.6;
    a.mask = tensor2(ATTN_BOOL, 3, n);
    a.bias = tensor2(dtype, 3, n);
    fill_coin(a.mask, 0.7, seed);
    fill_normal(a.bias, 1, seed);
    return a;
}

/* sum dy y over what is finite: the function whose gradient is asked for. */
static double objective(const attn_softmax_args *a, attn_tensor dy, bool lse) {
    double sum = 0;
    assert_ok(lse ? attn_logsumexp(a, NULL) : attn_softmax(a, NULL));
    for (int64_t i = 0; i < attn_count(&a->y); i++)
        if (isfinite(get(a->y, i))) sum += get(dy, i) * get(a->y, i);
    return sum;
}

static void check_against_differences(attn_softmax_args a, attn_tensor dy, attn_tensor dx, bool lse) {
    const double h = 1e-5;
    for (int64_t i = 0; i < attn_count(&a.x); i++) {
        double x = get(a.x, i);
        put(a.x, i, x + h);
        double above = objective(&a, dy, lse);
        put(a.x, i, x - h);
        double below = objective(&a, dy, lse), slope = (above - below) / (2 * h);
        put(a.x, i, x);
        if (fabs(slope - get(dx, i)) > 1e-7 * (1 + fabs(slope)))
            fail_msg("element %lld: %g, by differences %g", (long long)i, get(dx, i), slope);
    }
}

static void gradients_are_those_of_central_differences(void **state) {
    (void)state;
    uint64_t seed = 1;
    for (size_t o = 0; o < 3; o++)
        for (size_t l = 0; l < N_LENGTHS; l++)
            for (int with = 0; with < 2; with++) {
                attn_softmax_args a = problem(ATTN_F64, ops[o], lengths[l], with, &seed);
                attn_softmax_grads g = { .dy = tensor2(ATTN_F64, 3, lengths[l]), .dx = tensor2(ATTN_F64, 3, lengths[l]) };
                fill_normal(g.dy, 1, &seed);
                assert_ok(attn_softmax(&a, NULL));
                assert_ok(attn_softmax_backward(&a, &g, NULL));
                check_against_differences(a, g.dy, g.dx, false);
                free_blocks(NULL);
            }
}

static void logsumexp_gradients_are_those_of_central_differences(void **state) {
    (void)state;
    uint64_t seed = 2;
    for (size_t l = 0; l < N_LENGTHS; l++)
        for (int with = 0; with < 2; with++) {
            attn_softmax_args a = problem(ATTN_F64, ATTN_SOFTMAX, lengths[l], with, &seed);
            attn_softmax_grads g = { .dy = tensor1(ATTN_F64, 3), .dx = tensor2(ATTN_F64, 3, lengths[l]) };
            a.y = tensor1(ATTN_F64, 3);
            fill_normal(g.dy, 1, &seed);
            assert_ok(attn_logsumexp_backward(&a, &g, NULL));
            check_against_differences(a, g.dy, g.dx, true);
            free_blocks(NULL);
        }
}

/* A published bound: |err| <= 2^-24 * 16 * scale * (y |dy| + y sum |y dy|), and for log-softmax (|dy| + p sum |dy|). */
static void f32_gradients_are_within_their_bound_of_f64(void **state) {
    (void)state;
    uint64_t seed = 3;
    static const int64_t n_of[] = { 1, 15, 16, 130, 1000, 5001 };
    for (size_t o = 0; o < 3; o++)
        for (size_t l = 0; l < 6; l++) {
            const int64_t n = n_of[l];
            attn_tensor y = tensor2(ATTN_F32, 2, n), dy = tensor2(ATTN_F32, 2, n), dx = tensor2(ATTN_F32, 2, n);
            attn_tensor x = tensor2(ATTN_F32, 2, n), exact = tensor2(ATTN_F64, 2, n);
            fill_normal(x, 2, &seed);
            fill_normal(dy, 1, &seed);
            assert_ok(attn_softmax(&(attn_softmax_args){ .op = ops[o], .x = x, .y = y }, NULL));
            attn_softmax_args a = { .op = ops[o], .y = y, .scale = 0.75 }, b = a;
            b.y = dense_copy(y, ATTN_F64);
            assert_ok(attn_softmax_backward(&a, &(attn_softmax_grads){ .dy = dy, .dx = dx }, NULL));
            assert_ok(attn_softmax_backward(&b, &(attn_softmax_grads){ .dy = dense_copy(dy, ATTN_F64), .dx = exact }, NULL));
            bool logarithmic = ops[o] == ATTN_LOG_SOFTMAX;
            for (int64_t r = 0; r < 2; r++) {
                double sum = 0;
                for (int64_t i = 0; i < n; i++) sum += fabs((logarithmic ? 1 : get(y, r * n + i)) * get(dy, r * n + i));
                for (int64_t i = r * n; i < (r + 1) * n; i++) {
                    double p = logarithmic ? exp(get(y, i)) : get(y, i);
                    double size = logarithmic ? fabs(get(dy, i)) + p * sum : p * (fabs(get(dy, i)) + sum);
                    assert_true(fabs(get(dx, i) - get(exact, i)) <= 0x1p-24 * 16 * 0.75 * size + 0x1p-126);
                }
            }
            free_blocks(NULL);
        }
}

static void gradients_have_the_same_bits_for_any_strides_and_in_place(void **state) {
    (void)state;
    static const int orders[][2] = { { 0, 1 }, { 1, 0 } };
    static const int64_t n_of[] = { 3, 100, 257, 1500 };
    static const int32_t dtypes[] = { ATTN_F32, ATTN_F64 };
    uint64_t seed = 4;
    for (size_t d = 0; d < 2; d++)
        for (size_t o = 0; o < 3; o++)
            for (size_t l = 0; l < 4; l++) {
                const int64_t shape[] = { 37, n_of[l] };
                attn_softmax_args a = { .op = ops[o], .x = tensor_of(dtypes[d], 2, shape), .y = tensor_of(dtypes[d], 2, shape) },
                                  s = a;
                attn_softmax_grads g = { .dy = tensor_of(dtypes[d], 2, shape), .dx = tensor_of(dtypes[d], 2, shape) };
                fill_normal(a.x, 2, &seed);
                fill_normal(g.dy, 1, &seed);
                assert_ok(attn_softmax(&a, NULL));
                assert_ok(attn_softmax_backward(&a, &g, NULL));
                for (int way = 0; way < 16; way++) {
                    attn_softmax_grads h = { .dy = tensor_in_order(dtypes[d], 2, shape, orders[way & 1], way >> 3),
                                             .dx = tensor_in_order(dtypes[d], 2, shape, orders[way >> 1 & 1], 0) };
                    s.y = tensor_in_order(dtypes[d], 2, shape, orders[way >> 2 & 1], 0);
                    copy_values(a.y, s.y);
                    copy_values(g.dy, h.dy);
                    if (way % 5 == 0) h.dx = h.dy;
                    assert_ok(attn_softmax_backward(&s, &h, NULL));
                    assert_same(h.dx, g.dx);
                }
                free_blocks(NULL);
            }
}

/* Masked entries have y = 0 (-inf): NaN in their dy does not reach anybody, and their own gradient is 0. */
static void masked_entries_get_0_and_leak_nothing(void **state) {
    (void)state;
    uint64_t seed = 5;
    static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_BF16, ATTN_F16 };
    for (size_t d = 0; d < 4; d++)
        for (size_t o = 0; o < 3; o++) {
            attn_softmax_args a = problem(dtypes[d], ops[o], 50, true, &seed);
            attn_softmax_grads g = { .dy = tensor2(dtypes[d], 3, 50), .dx = tensor2(dtypes[d], 3, 50) };
            for (int64_t i = 50; i < 100; i++) put(a.mask, i, 0); /* a row without live entries */
            fill_normal(g.dy, 1, &seed);
            for (int64_t i = 0; i < 150; i++)
                if (!get(a.mask, i)) put(g.dy, i, i % 2 ? NAN : INFINITY);
            assert_ok(attn_softmax(&a, NULL));
            assert_ok(attn_softmax_backward(&a, &g, NULL));
            for (int64_t i = 0; i < 150; i++) assert_true(get(a.mask, i) ? isfinite(get(g.dx, i)) : get(g.dx, i) == 0);
        }
}

static void logsumexp_gives_masked_entries_0_and_spreads_dy_over_the_others(void **state) {
    (void)state;
    uint64_t seed = 6;
    for (int strided = 0; strided < 2; strided++) {
        attn_softmax_args a = problem(ATTN_F32, ATTN_SOFTMAX, 600, true, &seed);
        attn_softmax_grads g = { .dy = values1(ATTN_F32, 3, (double[]){ 2, NAN, -3 }), .dx = tensor2(ATTN_F32, 3, 600) };
        if (strided) g.dx = tensor_in_order(ATTN_F32, 2, a.x.shape, (int[]){ 1, 0 }, 0);
        for (int64_t i = 600; i < 1200; i++) put(a.mask, i, 0);
        assert_ok(attn_logsumexp_backward(&a, &g, NULL));
        for (int64_t r = 0; r < 3; r++) {
            double sum = 0;
            for (int64_t i = r * 600; i < (r + 1) * 600; i++) {
                if (!get(a.mask, i)) assert_true(get(g.dx, i) == 0);
                sum += get(g.dx, i);
            }
            assert_true(r == 1 ? sum == 0 : fabs(sum - 0.6 * get(g.dy, r)) < 1e-5);
        }
    }
}

static void a_live_nan_shows_in_its_own_rows_gradient_alone(void **state) {
    (void)state;
    for (size_t o = 0; o < 3; o++) {
        attn_tensor x = tensor2(ATTN_F32, 3, 40), y = tensor2(ATTN_F32, 3, 40), dx = tensor2(ATTN_F32, 3, 40);
        fill(x, 1);
        put(x, 45, NAN);
        assert_ok(attn_softmax(&(attn_softmax_args){ .op = ops[o], .x = x, .y = y }, NULL));
        assert_ok(attn_softmax_backward(&(attn_softmax_args){ .op = ops[o], .y = y }, &(attn_softmax_grads){ .dy = x, .dx = dx },
                                        NULL));
        for (int64_t i = 0; i < 120; i++) assert_true(isnan(get(dx, i)) == (i >= 40 && i < 80));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(gradients_are_those_of_central_differences, free_blocks),
        cmocka_unit_test_teardown(logsumexp_gradients_are_those_of_central_differences, free_blocks),
        cmocka_unit_test_teardown(f32_gradients_are_within_their_bound_of_f64, free_blocks),
        cmocka_unit_test_teardown(gradients_have_the_same_bits_for_any_strides_and_in_place, free_blocks),
        cmocka_unit_test_teardown(masked_entries_get_0_and_leak_nothing, free_blocks),
        cmocka_unit_test_teardown(logsumexp_gives_masked_entries_0_and_spreads_dy_over_the_others, free_blocks),
        cmocka_unit_test_teardown(a_live_nan_shows_in_its_own_rows_gradient_alone, free_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
