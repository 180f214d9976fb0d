/* SPDX-License-Identifier: Apache-2.0 */
/* Activations, forward and backward: against the reference within the published bound, any shape and strides, in place, special
 * values, derivatives against differences. docs/ACCURACY.md publishes, with u the rounding of the type: forward |error| <= u |y|
 * (16 + 2 x^2) for the two GELU, 6 u |y| for SiLU, sigmoid and tanh; backward 16 u |dy|; ReLU exact. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/tensors.h"
#include "tests/ops_cases.h"

#include "src/ref/ops.h"

static double forward_bound(int32_t activation, double x, double y, int32_t dtype) {
    double u = rounding(dtype) * fabs(y);
    switch (activation) {
    case ATTN_GELU:
    case ATTN_GELU_TANH: return u * (16 + 2 * x * x) + smallest(dtype);
    case ATTN_SILU:
    case ATTN_SIGMOID:
    case ATTN_TANH: return 6 * u + smallest(dtype);
    default: return dtype == ATTN_F32 || dtype == ATTN_F64 ? 0 : u;
    }
}

/* Values of every magnitude, and the deliberate ones. */
static double any_value(uint64_t *seed) {
    static const double special[] = { 0, -0.0, INFINITY, -INFINITY, NAN, 1e30, -1e30, 1e-40, -1e-40, 88, -88, 104, -104, 1e-4 };
    int64_t pick = between(seed, 0, 40);
    if (pick < 14) return special[pick];
    return normal(seed) * exp(between(seed, -8, 3));
}

/* A tensor of some rank, its axes in some order. */
static attn_tensor any_tensor(int32_t dtype, int64_t last, int round, uint64_t *seed) {
    static const int orders[3][3] = { { 0, 1, 2 }, { 2, 0, 1 }, { 1, 2, 0 } };
    attn_tensor t = tensor_in_order(dtype, 3, (int64_t[]){ 2, 3, last }, orders[round % 3], round % 2);
    for (int64_t i = 0; i < attn_count(&t); i++) put(t, i, any_value(seed));
    return t;
}

static void forward_is_within_the_bound(void **state) {
    (void)state;
    static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_BF16, ATTN_F16 };
    uint64_t seed = 1;
    for (int round = 0; round < 24; round++)
        for (int32_t activation = ATTN_IDENTITY; activation <= ATTN_TANH; activation++) {
            int32_t dtype = dtypes[round % 4];
            attn_activation_args a = { .activation = activation, .x = any_tensor(dtype, any_length(&seed), round, &seed) };
            a.y = any_tensor(dtype, a.x.shape[2], round + 1, &seed);
            assert_ok(attn_activation(&a, NULL));
            for (int64_t i = 0; i < attn_count(&a.x); i++) {
                double x = get(a.x, i), y = ref_activation(activation, x);
                assert_within("y", i, get(a.y, i), y, forward_bound(activation, x, y, dtype));
            }
            free_blocks(NULL);
        }
}

static void backward_is_within_the_bound(void **state) {
    (void)state;
    uint64_t seed = 2;
    for (int round = 0; round < 24; round++)
        for (int32_t activation = ATTN_IDENTITY; activation <= ATTN_TANH; activation++) {
            int32_t dtype = round % 2 ? ATTN_F32 : ATTN_F64;
            attn_activation_args a = { .activation = activation, .x = any_tensor(dtype, any_length(&seed), round, &seed) };
            attn_activation_grads g = { .dy = any_tensor(dtype, a.x.shape[2], round + 1, &seed),
                                        .dx = any_tensor(dtype, a.x.shape[2], round + 2, &seed) };
            for (int64_t i = 0; i < attn_count(&g.dy); i++) put(g.dy, i, normal(&seed));
            assert_ok(attn_activation_backward(&a, &g, NULL));
            for (int64_t i = 0; i < attn_count(&a.x); i++) {
                double dy = get(g.dy, i), dx = dy * ref_activation_slope(activation, get(a.x, i));
                assert_within("dx", i, get(g.dx, i), dx, 16 * rounding(dtype) * fabs(dy) + smallest(dtype));
            }
            free_blocks(NULL);
        }
}

static void slopes_are_the_derivatives(void **state) {
    (void)state;
    for (int32_t activation = ATTN_IDENTITY; activation <= ATTN_TANH; activation++)
        for (double x = -6.03; x < 6; x += 0.11) {
            double h = 1e-5, slope = (ref_activation(activation, x + h) - ref_activation(activation, x - h)) / (2 * h);
            assert_within("slope", (int64_t)(x * 100), ref_activation_slope(activation, x), slope, 1e-9);
        }
}

static void the_worked_values_are_those_of_the_formulas(void **state) {
    (void)state;
    /* GELU(1) = Phi(1); its tanh approximation as published; SiLU(1) = sigmoid(1). */
    static const double expected[] = {
        1, 1, 0.84134474606854294859, 0.84119199060827, 0.73105857863000487926, 0.73105857863000487926, 0.76159415595576488812
    };
    for (int32_t activation = ATTN_IDENTITY; activation <= ATTN_TANH; activation++) {
        attn_activation_args a = { .activation = activation, .x = tensor1(ATTN_F64, 1), .y = tensor1(ATTN_F64, 1) };
        put(a.x, 0, 1);
        assert_ok(attn_activation(&a, NULL));
        assert_within("y", activation, get(a.y, 0), expected[activation], 1e-13);
    }
}

static void torch_gives_the_same(void **state) {
    (void)state;
    static const char *const names[] = { "relu", "gelu", "gelu_tanh", "silu", "sigmoid", "tanh" };
    for (int32_t activation = ATTN_RELU; activation <= ATTN_TANH; activation++) {
        char name[64];
        attn_activation_args a = { .activation = activation, .x = torch_gave("activation.x", 49), .y = tensor1(ATTN_F64, 49) };
        attn_activation_grads g = { .dy = tensor1(ATTN_F64, 49), .dx = tensor1(ATTN_F64, 49) };
        fill(g.dy, 1);
        assert_ok(attn_activation(&a, NULL));
        assert_ok(attn_activation_backward(&a, &g, NULL));
        snprintf(name, sizeof name, "activation.%s.y", names[activation - 1]);
        attn_tensor y = torch_gave(name, 49);
        snprintf(name, sizeof name, "activation.%s.dx", names[activation - 1]);
        attn_tensor dx = torch_gave(name, 49);
        for (int i = 0; i < 49; i++) {
            assert_within("y", i, get(a.y, i), get(y, i), 1e-14);
            assert_within("dx", i, get(g.dx, i), get(dx, i), 1e-14);
        }
    }
}

static void in_place_and_accumulated_give_the_same(void **state) {
    (void)state;
    uint64_t seed = 3;
    for (int round = 0; round < 12; round++)
        for (int32_t activation = ATTN_IDENTITY; activation <= ATTN_TANH; activation++) {
            int32_t dtype = round % 3 ? ATTN_F32 : ATTN_F64;
            attn_activation_args a = { .activation = activation, .x = any_tensor(dtype, any_length(&seed), round, &seed) };
            a.y = dense_copy(a.x, dtype);
            attn_tensor x = dense_copy(a.x, dtype), old = dense_copy(a.x, dtype);
            assert_ok(attn_activation(&a, NULL));
            attn_tensor y = dense_copy(a.y, dtype);
            a.y = a.x;
            assert_ok(attn_activation(&a, NULL));
            assert_same(a.x, y);
            a = (attn_activation_args){ .activation = activation, .flags = ATTN_ACCUMULATE, .x = x, .y = old };
            assert_ok(attn_activation(&a, NULL));
            for (int64_t i = 0; i < attn_count(&x); i++) {
                double sum = get(x, i) + get(y, i);
                assert_within("sum", i, get(old, i), dtype == ATTN_F32 ? (float)sum : sum, 0);
            }
            free_blocks(NULL);
        }
}

static void bits_do_not_depend_on_strides_threads_or_place(void **state) {
    (void)state;
    uint64_t seed = 4;
    for (int32_t activation = ATTN_IDENTITY; activation <= ATTN_TANH; activation++) {
        attn_activation_args a = { .activation = activation, .x = any_tensor(ATTN_F32, 7001, 1, &seed) };
        a.y = tensor_of(ATTN_F32, 3, a.x.shape);
        assert_ok(attn_activation(&a, NULL));
        attn_activation_args dense = { .activation = activation,
                                       .x = dense_copy(a.x, ATTN_F32),
                                       .y = tensor_of(ATTN_F32, 3, a.x.shape) };
        for (int i = 0; i < N_THREAD_COUNTS; i++) {
            attn_exec exec = { 0 };
            assert_ok(attn_pool_open(&exec, thread_counts[i]));
            fill(dense.y, NAN);
            assert_ok(attn_activation(&dense, &exec));
            assert_same(dense.y, a.y);
            attn_pool_close(&exec);
        }
        free_blocks(NULL);
    }
}

static void wrong_operands_are_refused_and_nothing_is_written(void **state) {
    (void)state;
    attn_activation_args right = { .activation = ATTN_RELU, .x = tensor2(ATTN_F32, 2, 3), .y = tensor2(ATTN_F32, 2, 3) }, a;
#define WITH(change) (a = right, (void)(change), &a)
    assert_refused(attn_activation(WITH(a.activation = -1), NULL), ATTN_BAD_ARGUMENT, "activation -1");
    assert_refused(attn_activation(WITH(a.y.shape[1] = 2), NULL), ATTN_BAD_SHAPE, "y has shape");
    assert_refused(attn_activation(WITH(a.y.stride[1] = 0), NULL), ATTN_BAD_ARGUMENT, "y is an output");
    assert_refused(attn_activation(WITH(a.y.dtype = ATTN_F16), NULL), ATTN_UNSUPPORTED, "y is f16");
    assert_refused(attn_activation(WITH(a.x = (attn_tensor){ 0 }), NULL), ATTN_BAD_ARGUMENT, "x has no data");
    assert_refused(attn_activation(WITH(a.x.dtype = ATTN_BOOL), NULL), ATTN_UNSUPPORTED, "x is bool");
    assert_refused(attn_activation(WITH(a.flags = 2), NULL), ATTN_BAD_ARGUMENT, "flags");
    assert_refused(attn_activation(WITH(a.reserved[0] = 1), NULL), ATTN_UNSUPPORTED, "reserved");
    attn_activation_grads g = { .dy = right.x, .dx = tensor2(ATTN_F32, 3, 2) };
    assert_refused(attn_activation_backward(&right, &g, NULL), ATTN_BAD_SHAPE, "dx has shape");
#undef WITH
    assert_untouched(right.y);
    assert_untouched(g.dx);
}

#define TEST(name) cmocka_unit_test_teardown(name, free_blocks)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(forward_is_within_the_bound),
        TEST(backward_is_within_the_bound),
        TEST(slopes_are_the_derivatives),
        TEST(the_worked_values_are_those_of_the_formulas),
        TEST(torch_gives_the_same),
        TEST(in_place_and_accumulated_give_the_same),
        TEST(bits_do_not_depend_on_strides_threads_or_place),
        TEST(wrong_operands_are_refused_and_nothing_is_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
