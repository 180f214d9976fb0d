/* SPDX-License-Identifier: Apache-2.0 */
/* Muon: the same steps as torch.optim.Muon, within the published bound of the reference, any strides and threads. docs/ACCURACY.md
 * publishes for one step, with u the rounding of the type and n the shorter side: m within 4 u of the sizes of its terms, param
 * within u (2 |param| + 100 sqrt(n) 0.2 lr), 0.2 lr being the root mean square of an update. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/tensors.h"
#include "tests/failing_malloc.h"
#include "tests/ops_cases.h"

#include "src/ref/muon.h"

enum { STEP_UNITS = 100 };

static attn_muon_args random_call(int32_t dtype, int64_t rows, int64_t cols, uint64_t *seed) {
    return (attn_muon_args){ .param = normal_matrix(dtype, rows, cols, seed),
                             .m = normal_matrix(dtype, rows, cols, seed),
                             .gradient = normal_matrix(dtype, rows, cols, seed),
                             .lr = 0.02,
                             .momentum = 0.9,
                             .weight_decay = 0.1,
                             .grad_scale = 0.5 };
}

static attn_muon_args copy_of(const attn_muon_args *a) {
    attn_muon_args copy = *a;
    copy.param = dense_copy(a->param, a->param.dtype);
    copy.m = dense_copy(a->m, a->m.dtype);
    copy.gradient = dense_copy(a->gradient, a->gradient.dtype);
    return copy;
}

static void torch_steps(const char *kind, int64_t rows, int64_t cols, int32_t dtype) {
    char name[64];
    int64_t n = rows * cols;
    snprintf(name, sizeof name, "muon.%s.start", kind);
    attn_muon_args a = { .param = dense_copy(as_matrix(torch_gave(name, n), rows, cols), dtype),
                         .m = tensor2(dtype, rows, cols),
                         .lr = 0.05,
                         .momentum = 0.9,
                         .weight_decay = 0.1,
                         .grad_scale = 0.5 };
    fill(a.m, 0);
    for (int step = 1; step <= 3; step++) {
        snprintf(name, sizeof name, "muon.%s.gradient%d", kind, step);
        a.gradient = dense_copy(as_matrix(torch_gave(name, n), rows, cols), dtype);
        assert_ok(attn_muon(&a, NULL));
        snprintf(name, sizeof name, "muon.%s.param%d", kind, step);
        attn_tensor expected = torch_gave(name, n);
        for (int64_t i = 0; i < n; i++)
            assert_within("param", i, get(a.param, i), get(expected, i), dtype == ATTN_F64 ? 1e-14 : 2e-6);
    }
}

static void torch_makes_the_same_steps(void **state) {
    (void)state;
    for (int32_t dtype = ATTN_F32; dtype <= ATTN_F64; dtype += ATTN_F64 - ATTN_F32) {
        torch_steps("wide", 3, 5, dtype);
        torch_steps("tall", 6, 2, dtype);
    }
}

/* Runs the call and holds it to the reference's step on the same numbers. */
static void check(attn_muon_args a) {
    int64_t rows = a.param.shape[0], cols = a.param.shape[1], n = rows < cols ? rows : cols;
    attn_tensor param = dense_copy(a.param, ATTN_F64), m = dense_copy(a.m, ATTN_F64), before = dense_copy(m, ATTN_F64);
    ref_muon step = { .lr = a.lr, .momentum = a.momentum, .weight_decay = a.weight_decay, .grad_scale = a.grad_scale };
    double *room = poisoned((size_t)(2 * rows * (rows + cols)) * sizeof *room);
    ref_muon_step(&step, rows, cols, matrix_of(param), matrix_of(m), matrix_of(a.gradient), room);
    attn_exec lent = { .workspace_size = attn_muon_workspace(&a, 1) };
    lent.workspace = poisoned(lent.workspace_size);
    assert_ok(attn_muon(&a, &lent));
    double u = rounding(a.param.dtype), rms = 0.2 * a.lr;
    for (int64_t i = 0; i < rows * cols; i++) {
        double terms = a.momentum * fabs(get(before, i)) + (1 - a.momentum) * a.grad_scale * fabs(get(a.gradient, i));
        assert_within("m", i, get(a.m, i), get(m, i), 4 * u * terms);
        assert_within("param", i, get(a.param, i), get(param, i),
                      u * (2 * fabs(get(param, i)) + STEP_UNITS * sqrt((double)n) * rms));
    }
}

static void a_step_of_any_shape_and_strides_is_within_the_bound_of_its_definition(void **state) {
    (void)state;
    uint64_t seed = 1;
    for (int round = 0; round < 40; round++) {
        check(random_call(round % 3 ? ATTN_F32 : ATTN_F64, any_length(&seed), any_length(&seed), &seed));
        free_blocks(NULL);
    }
}

/* Whatever the sizes of the gradient's singular values, those of the step are near 1: its root mean square is AdamW's. */
static void a_step_has_the_size_of_adamws(void **state) {
    (void)state;
    uint64_t seed = 2;
    for (int round = 0; round < 6; round++) {
        static const int64_t shapes[][2] = { { 64, 64 }, { 64, 256 }, { 256, 64 }, { 1, 100 }, { 31, 33 }, { 7, 7 } };
        attn_muon_args a = random_call(ATTN_F32, shapes[round][0], shapes[round][1], &seed);
        fill(a.m, 0);
        fill(a.param, 0);
        for (int64_t i = 0; i < attn_count(&a.gradient); i++) put(a.gradient, i, get(a.gradient, i) * pow(10, 2 * round - 5));
        assert_ok(attn_muon(&a, NULL));
        double squares = 0, n = (double)attn_count(&a.param);
        for (int64_t i = 0; i < attn_count(&a.param); i++) squares += get(a.param, i) * get(a.param, i);
        double rms = sqrt(squares / n) / a.lr;
        /* A square Gaussian matrix has singular values near 0, which five steps leave below 1. */
        assert_true(rms > 0.2 * 0.6 && rms < 0.2 * 1.25);
        free_blocks(NULL);
    }
}

static void without_a_gradient_nothing_moves(void **state) {
    (void)state;
    uint64_t seed = 3;
    attn_muon_args a = random_call(ATTN_F32, 5, 9, &seed);
    fill(a.m, 0);
    fill(a.gradient, 0);
    a.weight_decay = 0;
    attn_tensor before = dense_copy(a.param, ATTN_F32);
    assert_ok(attn_muon(&a, NULL));
    assert_same(a.param, before);
}

static void a_nan_shows_in_the_whole_matrix(void **state) {
    (void)state;
    uint64_t seed = 4;
    attn_muon_args a = random_call(ATTN_F32, 5, 9, &seed);
    put(a.gradient, 7, NAN);
    assert_ok(attn_muon(&a, NULL));
    for (int64_t i = 0; i < 45; i++) assert_true(isnan(get(a.param, i)));
}

static void bits_do_not_depend_on_threads_or_strides(void **state) {
    (void)state;
    uint64_t seed = 5;
    for (int i = 0; i < N_THREAD_COUNTS; i++)
        for (int tall = 0; tall < 2; tall++) {
            attn_muon_args a = random_call(ATTN_F32, tall ? 150 : 70, tall ? 70 : 150, &seed), dense = copy_of(&a);
            attn_exec exec = { 0 };
            assert_ok(attn_pool_open(&exec, thread_counts[i]));
            assert_ok(attn_muon(&a, NULL));
            assert_ok(attn_muon(&dense, &exec));
            attn_pool_close(&exec);
            assert_same(dense.param, a.param);
            assert_same(dense.m, a.m);
            free_blocks(NULL);
        }
}

static void defaults_are_the_documented_ones(void **state) {
    (void)state;
    uint64_t seed = 6;
    attn_muon_args a = random_call(ATTN_F64, 4, 6, &seed);
    a.weight_decay = 0;
    attn_muon_args b = copy_of(&a);
    a.momentum = a.grad_scale = 0;
    b.momentum = 0.95;
    b.grad_scale = 1;
    assert_ok(attn_muon(&a, NULL));
    assert_ok(attn_muon(&b, NULL));
    assert_same(a.param, b.param);
    assert_same(a.m, b.m);
}

static void wrong_arguments_are_refused_and_nothing_changes(void **state) {
    (void)state;
    uint64_t seed = 7;
    attn_muon_args right = random_call(ATTN_F32, 3, 4, &seed), a;
    attn_tensor param = dense_copy(right.param, ATTN_F32), m = dense_copy(right.m, ATTN_F32);
#define WITH(change) (a = right, (void)(change), &a)
    assert_refused(attn_muon(WITH(a.lr = NAN), NULL), ATTN_BAD_ARGUMENT, "lr");
    assert_refused(attn_muon(WITH(a.lr = -1), NULL), ATTN_BAD_ARGUMENT, "lr is -1");
    assert_refused(attn_muon(WITH(a.momentum = 1), NULL), ATTN_BAD_ARGUMENT, "momentum is 1");
    assert_refused(attn_muon(WITH(a.weight_decay = INFINITY), NULL), ATTN_BAD_ARGUMENT, "weight_decay");
    assert_refused(attn_muon(WITH(a.grad_scale = NAN), NULL), ATTN_BAD_ARGUMENT, "grad_scale");
    assert_refused(attn_muon(WITH(a.param.rank = 1), NULL), ATTN_BAD_SHAPE, "param");
    assert_refused(attn_muon(WITH(a.param.dtype = ATTN_BF16), NULL), ATTN_UNSUPPORTED, "param is bf16");
    assert_refused(attn_muon(WITH(a.m.shape[1] = 3), NULL), ATTN_BAD_SHAPE, "m");
    assert_refused(attn_muon(WITH(a.gradient.dtype = ATTN_F64), NULL), ATTN_UNSUPPORTED, "gradient is f64");
    assert_refused(attn_muon(WITH(a.gradient.data = NULL), NULL), ATTN_BAD_ARGUMENT, "gradient");
    assert_refused(attn_muon(WITH(a.reserved[15] = 1), NULL), ATTN_UNSUPPORTED, "attn_muon_args");
#undef WITH
    assert_same(right.param, param);
    assert_same(right.m, m);
    assert_true(attn_muon_workspace(&right, 1) > 0);
    right.lr = NAN;
    assert_int_equal(attn_muon_workspace(&right, 1), 0);
}

static void an_empty_matrix_is_no_work(void **state) {
    (void)state;
    attn_muon_args a = { .param = tensor2(ATTN_F32, 0, 4), .m = tensor2(ATTN_F32, 0, 4), .gradient = tensor2(ATTN_F32, 0, 4) };
    assert_ok(attn_muon(&a, NULL));
}

static void lent_workspace_means_no_allocation(void **state) {
    (void)state;
    uint64_t seed = 8;
    attn_muon_args a = random_call(ATTN_F32, 70, 65, &seed);
    attn_exec exec = { .workspace_size = attn_muon_workspace(&a, 1) };
    exec.workspace = poisoned(exec.workspace_size);
    memory.allowed = 0;
    memory.for_ever = true;
    attn_status s = attn_muon(&a, &exec);
    memory.allowed = -1;
    assert_ok(s);
    exec.workspace_size--;
    assert_refused(attn_muon(&a, &exec), ATTN_SMALL_WORKSPACE, "workspace");
}

static void a_failing_allocation_is_a_status_and_changes_nothing(void **state) {
    (void)state;
    uint64_t seed = 9;
    attn_muon_args a = random_call(ATTN_F32, 7, 8, &seed);
    attn_tensor param = dense_copy(a.param, ATTN_F32), m = dense_copy(a.m, ATTN_F32);
    long live = memory.live;
    memory.allowed = 0;
    attn_status s = attn_muon(&a, NULL);
    memory.allowed = -1;
    assert_int_equal(s, ATTN_NO_MEMORY);
    assert_int_equal(memory.live, live);
    assert_same(a.param, param);
    assert_same(a.m, m);
}

#define TEST(name) cmocka_unit_test_teardown(name, free_blocks)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(torch_makes_the_same_steps),
        TEST(a_step_of_any_shape_and_strides_is_within_the_bound_of_its_definition),
        TEST(a_step_has_the_size_of_adamws),
        TEST(without_a_gradient_nothing_moves),
        TEST(a_nan_shows_in_the_whole_matrix),
        TEST(bits_do_not_depend_on_threads_or_strides),
        TEST(defaults_are_the_documented_ones),
        TEST(wrong_arguments_are_refused_and_nothing_changes),
        TEST(an_empty_matrix_is_no_work),
        TEST(lent_workspace_means_no_allocation),
        TEST(a_failing_allocation_is_a_status_and_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
