/* SPDX-License-Identifier: Apache-2.0 */
/* AdamW: the same steps as torch.optim.AdamW, within the published bound of the reference, any strides and threads. docs/ACCURACY.md
 * publishes for one step, with u the rounding of the type: m and v within 4 u of the sizes of their terms, param within
 * u (2 |param| + 12 |step|). */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/tensors.h"
#include "tests/ops_cases.h"

static void torch_makes_the_same_steps(void **state) {
    (void)state;
    for (int32_t dtype = ATTN_F32; dtype <= ATTN_F64; dtype += ATTN_F64 - ATTN_F32) {
        attn_adamw_args a = { .param = dense_copy(torch_gave("adamw.start", 13), dtype),
                              .m = tensor1(dtype, 13),
                              .v = tensor1(dtype, 13),
                              .lr = 0.05,
                              .beta1 = 0.8,
                              .beta2 = 0.95,
                              .epsilon = 1e-6,
                              .weight_decay = 0.1,
                              .grad_scale = 0.5 };
        fill(a.m, 0);
        fill(a.v, 0);
        for (a.step = 1; a.step <= 5; a.step++) {
            char name[64];
            snprintf(name, sizeof name, "adamw.gradient%d", (int)a.step);
            a.gradient = dense_copy(torch_gave(name, 13), dtype);
            assert_ok(attn_adamw(&a, NULL));
            snprintf(name, sizeof name, "adamw.param%d", (int)a.step);
            attn_tensor expected = torch_gave(name, 13);
            for (int i = 0; i < 13; i++)
                assert_within("param", i, get(a.param, i), get(expected, i), dtype == ATTN_F64 ? 1e-15 : 2e-6);
        }
    }
}

static attn_tensor any_tensor(int32_t dtype, const int64_t shape[3], int round, uint64_t *seed) {
    static const int orders[3][3] = { { 0, 1, 2 }, { 2, 0, 1 }, { 1, 2, 0 } };
    attn_tensor t = tensor_in_order(dtype, 3, shape, orders[round % 3], round % 2);
    fill_normal(t, 1, seed);
    return t;
}

/* A call in the middle of a training, on tensors of any layout. */
static attn_adamw_args random_call(int32_t dtype, int round, uint64_t *seed) {
    int64_t shape[] = { 2, between(seed, 1, 5), any_length(seed) };
    attn_adamw_args a = { .param = any_tensor(dtype, shape, round, seed),
                          .m = any_tensor(dtype, shape, round / 2, seed),
                          .v = any_tensor(dtype, shape, round / 3, seed),
                          .gradient = any_tensor(dtype, shape, round / 4, seed),
                          .lr = 0.01,
                          .weight_decay = round % 2 ? 0.1 : 0,
                          .step = 1 + round * round };
    for (int64_t i = 0; i < attn_count(&a.v); i++) put(a.v, i, get(a.v, i) * get(a.v, i));
    return a;
}

static void a_step_is_within_the_bound_of_its_definition(void **state) {
    (void)state;
    uint64_t seed = 1;
    for (int round = 0; round < 24; round++) {
        int32_t dtype = round % 3 ? ATTN_F32 : ATTN_F64;
        attn_adamw_args a = random_call(dtype, round, &seed);
        attn_tensor param = dense_copy(a.param, ATTN_F64), m = dense_copy(a.m, ATTN_F64), v = dense_copy(a.v, ATTN_F64);
        assert_ok(attn_adamw(&a, NULL));
        double u = rounding(dtype), t = (double)a.step;
        for (int64_t i = 0; i < attn_count(&param); i++) {
            double g = get(a.gradient, i), first = 0.9 * get(m, i) + (1 - 0.9) * g,
                   second = 0.999 * get(v, i) + (1 - 0.999) * g * g;
            double size = 0.01 * (fabs(0.9 * get(m, i)) + fabs((1 - 0.9) * g)) / (1 - pow(0.9, t)) /
                          (sqrt(second / (1 - pow(0.999, t))) + 1e-8);
            double step = 0.01 * first / (1 - pow(0.9, t)) / (sqrt(second / (1 - pow(0.999, t))) + 1e-8);
            double expected = get(param, i) * (1 - 0.01 * a.weight_decay) - step;
            assert_within("m", i, get(a.m, i), first, 4 * u * (fabs(0.9 * get(m, i)) + fabs((1 - 0.9) * g)));
            assert_within("v", i, get(a.v, i), second, 4 * u * second);
            assert_within("param", i, get(a.param, i), expected, u * (2 * fabs(get(param, i)) + 12 * size));
        }
        free_blocks(NULL);
    }
}

static void bits_do_not_depend_on_threads_or_strides(void **state) {
    (void)state;
    uint64_t seed = 2;
    for (int i = 0; i < N_THREAD_COUNTS; i++) {
        int64_t shape[] = { 3, 50, 129 };
        attn_adamw_args a = { .param = any_tensor(ATTN_F32, shape, 1, &seed),
                              .m = any_tensor(ATTN_F32, shape, 2, &seed),
                              .v = any_tensor(ATTN_F32, shape, 0, &seed),
                              .gradient = any_tensor(ATTN_F32, shape, 1, &seed),
                              .lr = 0.1,
                              .step = 3 };
        for (int64_t n = 0; n < attn_count(&a.v); n++) put(a.v, n, fabs(get(a.v, n)));
        attn_adamw_args dense = a;
        dense.param = dense_copy(a.param, ATTN_F32);
        dense.m = dense_copy(a.m, ATTN_F32);
        dense.v = dense_copy(a.v, ATTN_F32);
        dense.gradient = dense_copy(a.gradient, ATTN_F32);
        attn_exec exec = { 0 };
        assert_ok(attn_pool_open(&exec, thread_counts[i]));
        assert_ok(attn_adamw(&a, NULL));
        assert_ok(attn_adamw(&dense, &exec));
        attn_pool_close(&exec);
        assert_same(dense.param, a.param);
        assert_same(dense.m, a.m);
        assert_same(dense.v, a.v);
        free_blocks(NULL);
    }
}

static void defaults_are_the_documented_ones(void **state) {
    (void)state;
    attn_adamw_args a = { .param = tensor1(ATTN_F64, 1),
                          .m = tensor1(ATTN_F64, 1),
                          .v = tensor1(ATTN_F64, 1),
                          .gradient = tensor1(ATTN_F64, 1),
                          .lr = 0.5,
                          .step = 1 };
    put(a.param, 0, 1);
    put(a.m, 0, 0);
    put(a.v, 0, 0);
    put(a.gradient, 0, -2);
    assert_ok(attn_adamw(&a, NULL));
    /* The first step moves by lr against the sign. */
    assert_within("param", 0, get(a.param, 0), 1.5, 1e-8);
    assert_within("m", 0, get(a.m, 0), -0.2, 1e-16);
    assert_within("v", 0, get(a.v, 0), 0.004, 1e-17);
}

static void wrong_arguments_are_refused_and_nothing_changes(void **state) {
    (void)state;
    attn_adamw_args right = { .param = tensor1(ATTN_F32, 3),
                              .m = tensor1(ATTN_F32, 3),
                              .v = tensor1(ATTN_F32, 3),
                              .gradient = tensor1(ATTN_F32, 3),
                              .lr = 0.1,
                              .step = 1 },
                    a;
#define WITH(change) (a = right, (void)(change), &a)
    assert_refused(attn_adamw(WITH(a.step = 0), NULL), ATTN_BAD_ARGUMENT, "step is 0");
    assert_refused(attn_adamw(WITH(a.lr = NAN), NULL), ATTN_BAD_ARGUMENT, "lr");
    assert_refused(attn_adamw(WITH(a.beta1 = 1), NULL), ATTN_BAD_ARGUMENT, "beta1");
    assert_refused(attn_adamw(WITH(a.beta2 = -0.5), NULL), ATTN_BAD_ARGUMENT, "beta2");
    assert_refused(attn_adamw(WITH(a.epsilon = -1), NULL), ATTN_BAD_ARGUMENT, "epsilon");
    assert_refused(attn_adamw(WITH(a.weight_decay = INFINITY), NULL), ATTN_BAD_ARGUMENT, "weight_decay");
    assert_refused(attn_adamw(WITH(a.m.shape[0] = 2), NULL), ATTN_BAD_SHAPE, "m has shape");
    assert_refused(attn_adamw(WITH(a.gradient.dtype = ATTN_BF16), NULL), ATTN_UNSUPPORTED, "gradient");
    assert_refused(attn_adamw(WITH(a.param.dtype = ATTN_F16), NULL), ATTN_UNSUPPORTED, "param is f16");
    assert_refused(attn_adamw(WITH(a.v.stride[0] = 0), NULL), ATTN_BAD_ARGUMENT, "v is an output");
    assert_refused(attn_adamw(WITH(a.reserved[0] = 1), NULL), ATTN_UNSUPPORTED, "reserved");
#undef WITH
    assert_untouched(right.param);
}

#define TEST(name) cmocka_unit_test_teardown(name, free_blocks)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(torch_makes_the_same_steps),
        TEST(a_step_is_within_the_bound_of_its_definition),
        TEST(bits_do_not_depend_on_threads_or_strides),
        TEST(defaults_are_the_documented_ones),
        TEST(wrong_arguments_are_refused_and_nothing_changes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
