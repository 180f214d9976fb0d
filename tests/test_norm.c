/* SPDX-License-Identifier: Apache-2.0 */
/* Layer and RMS norm, forward and backward: against the reference within the published bound, gradients against differences, saved
 * moments, in place, strides, threads. docs/ACCURACY.md publishes the bounds; u is the rounding of the type, X = rstd max|x|:
 *   y        u (16 + n/8) ((X + |xhat|) |weight| + |bias|)
 *   dx       u (16 + n/8) (1 + X) rstd (|g| + (1 + |xhat|) (mean|g| + mean|g xhat|)), g = dy weight
 *   dweight  u (48 + m/32) sum |dy| (1 + X + |xhat|), dbias u (48 + m/32) sum |dy|, over m rows */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/tensors.h"
#include "tests/ops_cases.h"

#include "src/ref/ops.h"

typedef struct norm_case {
    attn_norm_args a;
    attn_norm_grads g;
    int64_t m, n; /* rows, and elements of one */
} norm_case;

/* Three axes in some order; about one in three without weight or bias, one in three without saved moments. */
static norm_case random_case(int32_t dtype, int32_t kind, int64_t m, int64_t n, int round, uint64_t *seed) {
    static const int orders[3][3] = { { 0, 1, 2 }, { 2, 0, 1 }, { 1, 0, 2 } };
    int64_t shape[] = { 2, m, n };
    int32_t saved = dtype == ATTN_F64 ? ATTN_F64 : ATTN_F32;
    norm_case c = { .a = { .kind = kind }, .m = 2 * m, .n = n };
    c.a.x = tensor_in_order(dtype, 3, shape, orders[round % 3], round % 2);
    c.a.y = tensor_in_order(dtype, 3, shape, orders[round / 2 % 3], 0);
    fill_normal(c.a.x, 2, seed);
    for (int64_t i = 0; i < attn_count(&c.a.x); i++) put(c.a.x, i, get(c.a.x, i) + 3);
    if (round % 3) c.a.weight = normal_vector(dtype, n, seed);
    if (round % 3 != 1 && kind == ATTN_LAYER_NORM) c.a.bias = normal_vector(dtype, n, seed);
    if (round % 4) c.a.rstd = any_matrix(saved, 2, m, seed);
    if (round % 4 && kind == ATTN_LAYER_NORM) c.a.mean = any_matrix(saved, 2, m, seed);
    c.g.dy = tensor_in_order(dtype, 3, shape, orders[round / 3 % 3], round % 2);
    fill_normal(c.g.dy, 1, seed);
    c.g.dx = tensor_in_order(dtype, 3, shape, orders[round % 3], round % 2);
    c.g.dweight = any_vector(dtype, n, seed);
    if (kind == ATTN_LAYER_NORM) c.g.dbias = any_vector(dtype, n, seed);
    return c;
}

static ref_vector row_of(attn_tensor t, int64_t i) {
    return (ref_vector){ attn_at(&t, attn_row_offset(&t, i)), t.stride[t.rank - 1], t.dtype };
}

/* The moments of row i, and how far the row reaches in units of its deviation. */
static ref_moments moments(const norm_case *c, int64_t i, double *reach) {
    ref_moments r = ref_norm_moments(c->a.kind, c->n, c->a.epsilon == 0 ? 1e-5 : c->a.epsilon, row_of(c->a.x, i));
    *reach = 0;
    for (int64_t j = 0; j < c->n; j++) *reach = fmax(*reach, fabs(get(c->a.x, i * c->n + j)) * r.rstd);
    return r;
}

static void check_forward(const norm_case *c) {
    assert_ok(attn_norm(&c->a, NULL));
    attn_tensor y = tensor2(ATTN_F64, c->m, c->n);
    double u = rounding(c->a.x.dtype), saved = rounding(c->a.x.dtype == ATTN_F64 ? ATTN_F64 : ATTN_F32), reach;
    for (int64_t i = 0; i < c->m; i++) {
        ref_moments r = moments(c, i, &reach);
        ref_norm(c->n, r, row_of(c->a.x, i), vector_of(c->a.weight), vector_of(c->a.bias), row_of(y, i), false);
        for (int64_t j = 0; j < c->n; j++) {
            double w = c->a.weight.rank ? fabs(get(c->a.weight, j)) : 1, b = c->a.bias.rank ? fabs(get(c->a.bias, j)) : 0;
            double xhat = fabs(get(c->a.x, i * c->n + j) - r.mean) * r.rstd;
            double bound = u * (16 + (double)c->n / 8) * ((reach + xhat) * w + b) + smallest(c->a.x.dtype);
            assert_within("y", i * c->n + j, get(c->a.y, i * c->n + j), get(y, i * c->n + j), bound);
        }
        double relative = saved * (16 + (double)c->n / 8);
        if (c->a.rstd.rank) assert_within("rstd", i, get(c->a.rstd, i), r.rstd, relative * r.rstd * (1 + reach));
        if (c->a.mean.rank) assert_within("mean", i, get(c->a.mean, i), r.mean, relative * reach / r.rstd);
    }
}

static void check_dx(const norm_case *c) {
    attn_tensor dx = tensor2(ATTN_F64, c->m, c->n);
    double u = rounding(c->a.x.dtype), reach;
    for (int64_t i = 0; i < c->m; i++) {
        ref_moments r = moments(c, i, &reach);
        ref_norm_dx(c->a.kind, c->n, r, row_of(c->a.x, i), vector_of(c->a.weight), row_of(c->g.dy, i), row_of(dx, i), false);
        double mean_g = 0, mean_gx = 0;
        for (int64_t j = 0; j < c->n; j++) {
            double g = fabs(get(c->g.dy, i * c->n + j)) * (c->a.weight.rank ? fabs(get(c->a.weight, j)) : 1);
            mean_g += g / (double)c->n;
            mean_gx += g * fabs(get(c->a.x, i * c->n + j) - r.mean) * r.rstd / (double)c->n;
        }
        for (int64_t j = 0; j < c->n; j++) {
            double g = fabs(get(c->g.dy, i * c->n + j)) * (c->a.weight.rank ? fabs(get(c->a.weight, j)) : 1);
            double xhat = fabs(get(c->a.x, i * c->n + j) - r.mean) * r.rstd;
            double size = r.rstd * (g + (1 + xhat) * (mean_g + mean_gx)),
                   bound = u * (16 + (double)c->n / 8) * (1 + reach) * size;
            assert_within("dx", i * c->n + j, get(c->g.dx, i * c->n + j), get(dx, i * c->n + j), bound + smallest(c->a.x.dtype));
        }
    }
}

static void check_sums(const norm_case *c) {
    double u = rounding(c->a.x.dtype) * (48 + (double)c->m / 32), reach;
    for (int64_t j = 0; j < c->n; j++) {
        double dweight = 0, dbias = 0, size = 0, sum = 0;
        for (int64_t i = 0; i < c->m; i++) {
            ref_moments r = moments(c, i, &reach);
            double dy = get(c->g.dy, i * c->n + j), xhat = (get(c->a.x, i * c->n + j) - r.mean) * r.rstd;
            dweight += dy * xhat;
            dbias += dy;
            size += fabs(dy) * (1 + reach + fabs(xhat));
            sum += fabs(dy);
        }
        assert_within("dweight", j, get(c->g.dweight, j), dweight, u * size);
        if (c->g.dbias.rank) assert_within("dbias", j, get(c->g.dbias, j), dbias, u * sum);
    }
}

static void rows_of_any_length_and_strides_are_within_the_bound(void **state) {
    (void)state;
    uint64_t seed = 1;
    for (int round = 0; round < 60; round++) {
        int32_t kind = round % 2 ? ATTN_RMS_NORM : ATTN_LAYER_NORM, dtype = round % 5 == 4 ? ATTN_F64 : ATTN_F32;
        norm_case c = random_case(dtype, kind, between(&seed, 1, 20), any_length(&seed), round, &seed);
        check_forward(&c);
        assert_ok(attn_norm_backward(&c.a, &c.g, NULL));
        check_dx(&c);
        check_sums(&c);
        free_blocks(NULL);
    }
}

static void long_rows_and_many_rows_are_within_the_bound(void **state) {
    (void)state;
    uint64_t seed = 2;
    for (int round = 0; round < 6; round++) {
        norm_case c = random_case(ATTN_F32, round % 2, round < 3 ? 3 : 150, round < 3 ? 1500 : 9, round, &seed);
        check_forward(&c);
        assert_ok(attn_norm_backward(&c.a, &c.g, NULL));
        check_dx(&c);
        check_sums(&c);
        free_blocks(NULL);
    }
}

static void half_types_are_rounded_once(void **state) {
    (void)state;
    uint64_t seed = 3;
    for (int round = 0; round < 8; round++) {
        norm_case c = random_case(round % 2 ? ATTN_F16 : ATTN_BF16, round % 4 < 2, 3, 17, 1, &seed);
        assert_ok(attn_norm(&c.a, NULL));
        attn_tensor y = tensor2(c.a.x.dtype, c.m, c.n);
        double reach;
        for (int64_t i = 0; i < c.m; i++)
            ref_norm(c.n, moments(&c, i, &reach), row_of(c.a.x, i), vector_of(c.a.weight), vector_of(c.a.bias), row_of(y, i),
                     false);
        for (int64_t i = 0; i < c.m * c.n; i++) assert_true(get(c.a.y, i) == get(y, i));
        assert_ok(attn_norm_backward(&c.a, &c.g, NULL));
        assert_true(isfinite(get(c.g.dx, 5)) && isfinite(get(c.g.dweight, 3)));
        free_blocks(NULL);
    }
}

static void constant_rows_give_the_bias(void **state) {
    (void)state;
    norm_case c = { .a = { .x = tensor2(ATTN_F32, 2, 33), .y = tensor2(ATTN_F32, 2, 33), .bias = tensor1(ATTN_F32, 33) } };
    fill(c.a.x, 0.1);
    fill(c.a.bias, 7);
    assert_ok(attn_norm(&c.a, NULL));
    for (int i = 0; i < 66; i++) assert_within("y", i, get(c.a.y, i), 7, 1e-4);
}

static void nan_shows_in_its_row_alone(void **state) {
    (void)state;
    uint64_t seed = 4;
    for (int64_t n = 1; n < 40; n += 6) {
        norm_case c = random_case(ATTN_F32, ATTN_LAYER_NORM, 2, n, 3, &seed);
        put(c.a.x, n + n - 1, NAN);
        assert_ok(attn_norm(&c.a, NULL));
        for (int64_t i = 0; i < 4 * n; i++) assert_true(isnan(get(c.a.y, i)) == (i / n == 1));
        free_blocks(NULL);
    }
}

/* ---- gradients ---------------------------------------------------------------------------------------------- */

static double objective(const norm_case *c) {
    double sum = 0;
    assert_ok(attn_norm(&c->a, NULL));
    for (int64_t i = 0; i < c->m * c->n; i++) sum += get(c->a.y, i) * get(c->g.dy, i);
    return sum;
}

static void gradients_are_those_of_differences(void **state) {
    (void)state;
    uint64_t seed = 5;
    for (int round = 0; round < 12; round++) {
        norm_case c = random_case(ATTN_F64, round % 2, 2, 5 + round, round, &seed);
        assert_ok(attn_norm(&c.a, NULL));
        assert_ok(attn_norm_backward(&c.a, &c.g, NULL));
        attn_tensor inputs[] = { c.a.x, c.a.weight, c.a.bias }, gradients[] = { c.g.dx, c.g.dweight, c.g.dbias };
        for (int which = 0; which < 3; which++)
            for (int64_t i = 0; inputs[which].rank && i < attn_count(&inputs[which]); i++) {
                double x = get(inputs[which], i), h = 1e-5;
                put(inputs[which], i, x + h);
                double up = objective(&c);
                put(inputs[which], i, x - h);
                double down = objective(&c);
                put(inputs[which], i, x);
                assert_within("gradient", i, get(gradients[which], i), (up - down) / (2 * h), 1e-7);
            }
        free_blocks(NULL);
    }
}

static void gradients_accumulate_and_may_stand_in_place(void **state) {
    (void)state;
    uint64_t seed = 6;
    for (int round = 0; round < 12; round++) {
        norm_case c = random_case(ATTN_F64, round % 2, 4, any_length(&seed), round, &seed);
        assert_ok(attn_norm(&c.a, NULL));
        assert_ok(attn_norm_backward(&c.a, &c.g, NULL));
        attn_tensor dx = dense_copy(c.g.dx, ATTN_F64), dweight = dense_copy(c.g.dweight, ATTN_F64);
        c.a.flags = ATTN_ACCUMULATE;
        assert_ok(attn_norm_backward(&c.a, &c.g, NULL));
        for (int64_t i = 0; i < attn_count(&dx); i++) assert_true(get(c.g.dx, i) == 2 * get(dx, i));
        for (int64_t i = 0; i < c.n; i++) assert_within("dweight", i, get(c.g.dweight, i), 2 * get(dweight, i), 0);
        c.a.flags = 0;
        c.g.dx = c.g.dy;
        assert_ok(attn_norm_backward(&c.a, &c.g, NULL));
        assert_same(dense_copy(c.g.dx, ATTN_F64), dx);
        assert_same(dense_copy(c.g.dweight, ATTN_F64), dweight);
        free_blocks(NULL);
    }
}

static void torch_gives_the_same(void **state) {
    (void)state;
    attn_tensor x = as_matrix(torch_gave("norm.x", 21), 3, 7), dy = as_matrix(torch_gave("norm.dy", 21), 3, 7);
    attn_tensor weight = torch_gave("norm.weight", 7), bias = torch_gave("norm.bias", 7);
    for (int32_t kind = ATTN_LAYER_NORM; kind <= ATTN_RMS_NORM; kind++) {
        const char *const names[2][3] = { { "norm.layer.y", "norm.layer.dx", "norm.layer.dweight" },
                                          { "norm.rms.y", "norm.rms.dx", "norm.rms.dweight" } };
        attn_norm_args a = { .kind = kind, .x = x, .y = tensor2(ATTN_F64, 3, 7), .weight = weight, .epsilon = 1e-3 };
        attn_norm_grads g = { .dy = dy, .dx = tensor2(ATTN_F64, 3, 7), .dweight = tensor1(ATTN_F64, 7) };
        if (kind == ATTN_LAYER_NORM) {
            a.bias = bias;
            g.dbias = tensor1(ATTN_F64, 7);
        }
        assert_ok(attn_norm(&a, NULL));
        assert_ok(attn_norm_backward(&a, &g, NULL));
        attn_tensor y = torch_gave(names[kind][0], 21), dx = torch_gave(names[kind][1], 21),
                    dweight = torch_gave(names[kind][2], 7);
        for (int i = 0; i < 21; i++) assert_within("y", i, get(a.y, i), get(y, i), 1e-13);
        for (int i = 0; i < 21; i++) assert_within("dx", i, get(g.dx, i), get(dx, i), 1e-13);
        for (int i = 0; i < 7; i++) assert_within("dweight", i, get(g.dweight, i), get(dweight, i), 1e-13);
        attn_tensor dbias = torch_gave("norm.layer.dbias", 7);
        for (int i = 0; kind == ATTN_LAYER_NORM && i < 7; i++) assert_within("dbias", i, get(g.dbias, i), get(dbias, i), 1e-13);
    }
}

/* ---- bits --------------------------------------------------------------------------------------------------------- */

static void bits_do_not_depend_on_threads_strides_or_given_moments(void **state) {
    (void)state;
    uint64_t seed = 7;
    for (int round = 0; round < 12; round++) {
        norm_case c = random_case(ATTN_F32, round % 2, 60, any_length(&seed), round, &seed), d = c;
        assert_ok(attn_norm(&c.a, NULL));
        assert_ok(attn_norm_backward(&c.a, &c.g, NULL));
        d.a.x = dense_copy(c.a.x, ATTN_F32);
        d.a.y = tensor_of(ATTN_F32, 3, c.a.x.shape);
        d.g = (attn_norm_grads){ .dy = dense_copy(c.g.dy, ATTN_F32),
                                 .dx = tensor_of(ATTN_F32, 3, c.a.x.shape),
                                 .dweight = tensor1(ATTN_F32, c.n) };
        if (d.a.weight.rank) d.a.weight = dense_copy(c.a.weight, ATTN_F32);
        if (d.a.bias.rank) d.a.bias = dense_copy(c.a.bias, ATTN_F32);
        for (int i = 0; i < N_THREAD_COUNTS; i++) {
            attn_exec exec = { 0 };
            assert_ok(attn_pool_open(&exec, thread_counts[i]));
            assert_ok(attn_norm(&d.a, &exec));
            if (i == 1) d.a.mean = d.a.rstd = (attn_tensor){ 0 }; /* recomputed */
            assert_ok(attn_norm_backward(&d.a, &d.g, &exec));
            attn_pool_close(&exec);
            assert_same(d.a.y, c.a.y);
            assert_same(d.g.dx, c.g.dx);
            assert_same(d.g.dweight, c.g.dweight);
        }
        free_blocks(NULL);
    }
}

static void lent_workspace_is_as_large_as_asked(void **state) {
    (void)state;
    uint64_t seed = 8;
    for (int round = 0; round < 12; round++) {
        norm_case c = random_case(ATTN_F32, ATTN_LAYER_NORM, 40, 33, round, &seed);
        size_t forward = attn_norm_workspace(&c.a, 1), backward = attn_norm_backward_workspace(&c.a, &c.g, 1);
        attn_exec exec = { .workspace = poisoned(forward), .workspace_size = forward };
        assert_ok(attn_norm(&c.a, forward ? &exec : NULL));
        exec = (attn_exec){ .workspace = poisoned(backward), .workspace_size = backward };
        assert_ok(attn_norm_backward(&c.a, &c.g, backward ? &exec : NULL));
        if (backward > 0) {
            exec.workspace_size--;
            assert_refused(attn_norm_backward(&c.a, &c.g, &exec), ATTN_SMALL_WORKSPACE, "workspace");
        }
        check_dx(&c);
        free_blocks(NULL);
    }
}

static void dense_rows_need_no_workspace(void **state) {
    (void)state;
    norm_case c = { .a = { .x = tensor2(ATTN_F32, 9, 64),
                           .y = tensor2(ATTN_F32, 9, 64),
                           .mean = tensor1(ATTN_F32, 9),
                           .rstd = tensor1(ATTN_F32, 9) } };
    c.g.dy = c.g.dx = c.a.y;
    assert_int_equal(attn_norm_workspace(&c.a, 4), 0);
    assert_int_equal(attn_norm_backward_workspace(&c.a, &c.g, 4), 0);
}

static void wrong_operands_are_refused_and_nothing_is_written(void **state) {
    (void)state;
    norm_case right = { .a = { .x = tensor2(ATTN_F32, 3, 4), .y = tensor2(ATTN_F32, 3, 4), .weight = tensor1(ATTN_F32, 4) } };
    right.g = (attn_norm_grads){ .dy = tensor2(ATTN_F32, 3, 4), .dx = tensor2(ATTN_F32, 3, 4), .dweight = tensor1(ATTN_F32, 4) };
    attn_norm_args a;
    attn_norm_grads g;
#define WITH(change) (a = right.a, (void)(change), &a)
    assert_refused(attn_norm(WITH(a.kind = 2), NULL), ATTN_BAD_ARGUMENT, "norm 2");
    assert_refused(attn_norm(WITH(a.weight.shape[0] = 3), NULL), ATTN_BAD_SHAPE, "weight");
    assert_refused(attn_norm(WITH(a.y.shape[0] = 2), NULL), ATTN_BAD_SHAPE, "y has shape");
    assert_refused(attn_norm(WITH(a.x.rank = 0), NULL), ATTN_BAD_SHAPE, "x has rank 0");
    assert_refused(attn_norm(WITH(a.epsilon = -1), NULL), ATTN_BAD_ARGUMENT, "epsilon");
    assert_refused(attn_norm(WITH(a.mean = tensor1(ATTN_F64, 3)), NULL), ATTN_UNSUPPORTED, "mean");
    assert_refused(attn_norm(WITH((a.kind = ATTN_RMS_NORM, a.bias = a.weight)), NULL), ATTN_BAD_ARGUMENT, "bias is given");
    assert_refused(attn_norm(WITH(a.reserved[3] = 1), NULL), ATTN_UNSUPPORTED, "reserved");
#undef WITH
#define WITH(change) (g = right.g, (void)(change), &g)
    assert_refused(attn_norm_backward(&right.a, WITH(g.dy.shape[1] = 3), NULL), ATTN_BAD_SHAPE, "dy");
    assert_refused(attn_norm_backward(&right.a, WITH(g.dweight.stride[0] = 0), NULL), ATTN_BAD_ARGUMENT, "dweight");
    assert_refused(attn_norm_backward(&right.a, WITH(g.reserved[0] = 1), NULL), ATTN_UNSUPPORTED, "reserved");
#undef WITH
    assert_untouched(right.a.y);
    assert_untouched(right.g.dx);
    assert_untouched(right.g.dweight);
}

#define TEST(name) cmocka_unit_test_teardown(name, free_blocks)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(rows_of_any_length_and_strides_are_within_the_bound),
        TEST(long_rows_and_many_rows_are_within_the_bound),
        TEST(half_types_are_rounded_once),
        TEST(constant_rows_give_the_bias),
        TEST(nan_shows_in_its_row_alone),
        TEST(gradients_are_those_of_differences),
        TEST(torch_gives_the_same),
        TEST(gradients_accumulate_and_may_stand_in_place),
        TEST(bits_do_not_depend_on_threads_strides_or_given_moments),
        TEST(lent_workspace_is_as_large_as_asked),
        TEST(dense_rows_need_no_workspace),
        TEST(wrong_operands_are_refused_and_nothing_is_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
