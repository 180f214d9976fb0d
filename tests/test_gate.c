/* SPDX-License-Identifier: Apache-2.0 */
/* The sigmoid, additive and multiplicative gates: values, gradients, any strides, special values, refusals. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/tensors.h"

static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_BF16, ATTN_F16 };

static long double gate(int32_t kind, long double x, long double g) {
    return kind == ATTN_GATE_SIGMOID ? x / (1 + expl(-g)) : kind == ATTN_GATE_ADDITIVE ? x + g * x : x * g;
}

/* The published bound: 4 roundings of the dtype, relative; the additive gate's is relative to |x| + |g x|. */
static double bound(int32_t dtype, int32_t kind, double x, double g) {
    double unit = dtype == ATTN_F32 ? 0x1p-24 : dtype == ATTN_F64 ? 0x1p-53 : dtype == ATTN_BF16 ? 0x1p-8 : 0x1p-11;
    double size = kind == ATTN_GATE_ADDITIVE ? fabs(x) + fabs(g * x) : (double)fabsl(gate(kind, x, g));
    return 4 * unit * size + (dtype == ATTN_F16 ? 0x1p-25 : dtype == ATTN_F64 ? 0x1p-1022 : 0x1p-126);
}

static void gates_are_within_the_published_bound(void **state) {
    (void)state;
    uint64_t seed = 1;
    for (size_t d = 0; d < 4; d++)
        for (int32_t kind = ATTN_GATE_SIGMOID; kind <= ATTN_GATE_MULTIPLICATIVE; kind++)
            for (int64_t n = 1; n < 20000; n = n * 3 + 2) {
                attn_gate_args a = {
                    .kind = kind, .x = tensor1(dtypes[d], n), .g = tensor1(dtypes[d], n), .y = tensor1(dtypes[d], n)
                };
                fill_normal(a.x, 2, &seed);
                fill_normal(a.g, 20, &seed);
                assert_ok(attn_gate(&a, NULL));
                for (int64_t i = 0; i < n; i++) {
                    double x = get(a.x, i), g = get(a.g, i);
                    assert_true((double)fabsl(get(a.y, i) - gate(kind, x, g)) <= bound(dtypes[d], kind, x, g));
                }
                free_blocks(NULL);
            }
}

static void gradients_are_those_of_central_differences(void **state) {
    (void)state;
    uint64_t seed = 2;
    for (int32_t kind = ATTN_GATE_SIGMOID; kind <= ATTN_GATE_MULTIPLICATIVE; kind++) {
        const int64_t n = 41;
        attn_gate_args a = { .kind = kind, .x = tensor1(ATTN_F64, n), .g = tensor1(ATTN_F64, n) };
        attn_gate_grads d = { .dy = tensor1(ATTN_F64, n), .dx = tensor1(ATTN_F64, n), .dg = tensor1(ATTN_F64, n) };
        fill_normal(a.x, 1, &seed), fill_normal(a.g, 3, &seed), fill_normal(d.dy, 1, &seed);
        assert_ok(attn_gate_backward(&a, &d, NULL));
        for (int64_t i = 0; i < n; i++) {
            const long double h = 1e-5L, x = get(a.x, i), g = get(a.g, i), dy = get(d.dy, i);
            long double dx = dy * (gate(kind, x + h, g) - gate(kind, x - h, g)) / (2 * h);
            long double dg = dy * (gate(kind, x, g + h) - gate(kind, x, g - h)) / (2 * h);
            assert_true(fabsl(get(d.dx, i) - dx) <= 1e-9L && fabsl(get(d.dg, i) - dg) <= 1e-9L);
        }
    }
}

static void strides_place_and_threads_do_not_change_a_bit(void **state) {
    (void)state;
    static const int orders[][3] = { { 0, 1, 2 }, { 2, 1, 0 }, { 1, 2, 0 } };
    const int64_t shape[] = { 7, 50, 61 };
    uint64_t seed = 3;
    for (size_t d = 0; d < 4; d++)
        for (int32_t kind = ATTN_GATE_SIGMOID; kind <= ATTN_GATE_MULTIPLICATIVE; kind++) {
            attn_gate_args a = { .kind = kind, .x = tensor_of(dtypes[d], 3, shape), .g = tensor_of(dtypes[d], 3, shape) };
            attn_gate_grads g = { .dy = tensor_of(dtypes[d], 3, shape) };
            a.y = tensor_of(dtypes[d], 3, shape), g.dx = tensor_of(dtypes[d], 3, shape), g.dg = tensor_of(dtypes[d], 3, shape);
            fill_normal(a.x, 1, &seed), fill_normal(a.g, 3, &seed), fill_normal(g.dy, 1, &seed);
            assert_ok(attn_gate(&a, NULL));
            assert_ok(attn_gate_backward(&a, &g, NULL));
            for (int way = 0; way < 3; way++) {
                attn_exec exec = { 0 };
                attn_gate_args s = { .kind = kind, .x = tensor_in_order(dtypes[d], 3, shape, orders[way], 0), .g = a.g };
                attn_gate_grads h = { .dy = tensor_in_order(dtypes[d], 3, shape, orders[2 - way], 2) };
                h.dg = tensor_in_order(dtypes[d], 3, shape, orders[1], 1);
                h.dx = h.dy, s.y = s.x; /* in place */
                copy_values(a.x, s.x), copy_values(g.dy, h.dy);
                assert_ok(attn_pool_open(&exec, way + 1));
                assert_ok(attn_gate_backward(&s, &h, &exec));
                assert_ok(attn_gate(&s, &exec));
                attn_pool_close(&exec);
                assert_same(s.y, a.y);
                assert_same(h.dx, g.dx);
                assert_same(h.dg, g.dg);
            }
            free_blocks(NULL);
        }
}

static void infinite_gates_are_open_or_shut_and_nan_shows(void **state) {
    (void)state;
    for (size_t d = 0; d < 4; d++) {
        attn_tensor x = values1(dtypes[d], 4, (double[]){ 3, 3, 3, NAN }),
                    g = values1(dtypes[d], 4, (double[]){ INFINITY, -INFINITY, NAN, 1 });
        attn_tensor y = tensor1(dtypes[d], 4), dg = tensor1(dtypes[d], 4), one = tensor1(dtypes[d], 4);
        fill(one, 1);
        assert_ok(attn_gate(&(attn_gate_args){ .x = x, .g = g, .y = y }, NULL));
        assert_true(get(y, 0) == 3 && get(y, 1) == 0 && isnan(get(y, 2)) && isnan(get(y, 3)));
        assert_ok(attn_gate_backward(&(attn_gate_args){ .x = x, .g = g }, &(attn_gate_grads){ .dy = one, .dg = dg }, NULL));
        assert_true(get(dg, 0) == 0 && get(dg, 1) == 0 && isnan(get(dg, 2)) && isnan(get(dg, 3)));
    }
}

static void either_gradient_may_be_left_out(void **state) {
    (void)state;
    attn_tensor x = values1(ATTN_F32, 2, (double[]){ 2, 3 }), g = values1(ATTN_F32, 2, (double[]){ 5, 7 }),
                dx = tensor1(ATTN_F32, 2);
    attn_gate_args a = { .kind = ATTN_GATE_MULTIPLICATIVE, .x = x, .g = g };
    assert_ok(attn_gate_backward(&a, &(attn_gate_grads){ .dy = x, .dx = dx }, NULL));
    assert_true(get(dx, 0) == 10 && get(dx, 1) == 21);
    assert_ok(attn_gate_backward(&a, &(attn_gate_grads){ .dy = x, .dg = dx }, NULL));
    assert_true(get(dx, 0) == 4 && get(dx, 1) == 9);
    assert_ok(attn_gate_backward(&a, &(attn_gate_grads){ .dy = x }, NULL));
}

static void a_scalar_and_an_empty_tensor_are_tensors(void **state) {
    (void)state;
    attn_tensor x = values1(ATTN_F32, 1, (double[]){ 2 }), y = tensor1(ATTN_F32, 1);
    attn_tensor none = attn_dense(ATTN_F32, NULL, 2, (int64_t[]){ 3, 0 });
    x.rank = y.rank = 0;
    assert_ok(attn_gate(&(attn_gate_args){ .kind = ATTN_GATE_ADDITIVE, .x = x, .g = x, .y = y }, NULL));
    assert_true(get(y, 0) == 6);
    assert_ok(attn_gate(&(attn_gate_args){ .x = none, .g = none, .y = none }, NULL));
}

static void bad_arguments_are_refused_before_anything_is_written(void **state) {
    (void)state;
    attn_gate_args a = { .x = tensor2(ATTN_F32, 2, 3), .g = tensor2(ATTN_F32, 2, 3), .y = tensor2(ATTN_F32, 2, 3) }, b = a;
    attn_gate_grads g = { .dy = a.x, .dx = a.y }, h = g;
    fill(a.x, 1), fill(a.g, 1);
    assert_refused(attn_gate(NULL, NULL), ATTN_BAD_ARGUMENT, "no arguments");
    b.kind = 3;
    assert_refused(attn_gate(&b, NULL), ATTN_BAD_ARGUMENT, "kind is 3");
    b = a, b.flags = 1;
    assert_refused(attn_gate(&b, NULL), ATTN_BAD_ARGUMENT, "flags");
    b = a, b.reserved[0] = 1;
    assert_refused(attn_gate(&b, NULL), ATTN_UNSUPPORTED, "reserved");
    b = a, b.x.dtype = ATTN_I32;
    assert_refused(attn_gate(&b, NULL), ATTN_UNSUPPORTED, "x is i32");
    b = a, b.g.shape[1] = 2;
    assert_refused(attn_gate(&b, NULL), ATTN_BAD_SHAPE, "g has shape [2, 2]");
    b = a, b.y.stride[0] = 0;
    assert_refused(attn_gate(&b, NULL), ATTN_BAD_ARGUMENT, "stride 0");
    b = a, b.g.dtype = ATTN_BF16;
    assert_refused(attn_gate(&b, NULL), ATTN_UNSUPPORTED, "g is bf16");
    assert_refused(attn_gate_backward(&a, NULL, NULL), ATTN_BAD_ARGUMENT, "no gradients");
    h.dy.rank = 1;
    assert_refused(attn_gate_backward(&a, &h, NULL), ATTN_BAD_SHAPE, "dy");
    h = g, h.dg = tensor1(ATTN_F32, 6);
    assert_refused(attn_gate_backward(&a, &h, NULL), ATTN_BAD_SHAPE, "dg");
    assert_untouched(a.y);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(gates_are_within_the_published_bound, free_blocks),
        cmocka_unit_test_teardown(gradients_are_those_of_central_differences, free_blocks),
        cmocka_unit_test_teardown(strides_place_and_threads_do_not_change_a_bit, free_blocks),
        cmocka_unit_test_teardown(infinite_gates_are_open_or_shut_and_nan_shows, free_blocks),
        cmocka_unit_test_teardown(either_gradient_may_be_left_out, free_blocks),
        cmocka_unit_test_teardown(a_scalar_and_an_empty_tensor_are_tensors, free_blocks),
        cmocka_unit_test_teardown(bad_arguments_are_refused_before_anything_is_written, free_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
