/* SPDX-License-Identifier: Apache-2.0 */
/* Matrix products: against the reference within the published bound, every end of a row, any strides, packed or not, the same bits
 * however the work is cut. docs/ACCURACY.md publishes the bound: with u the rounding of the type and S = sum |a||b| + |bias|,
 * |error| <= u ((k + 2) S + |residual| + |c| + 2 |result|), times 1.13, the largest slope, and plus the activation's own error where
 * there is one. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/tensors.h"
#include "tests/failing_malloc.h"
#include "tests/ops_cases.h"

#include "src/ref/ops.h"

enum { BIAS = 1, RESIDUAL = 2, BEFORE = 4, ADD = 8, IN_PLACE = 16, COMBINATIONS = 32 };

/* A call on random operands of any layout. IN_PLACE: the residual is c itself. */
static attn_matmul_args random_call(int32_t dtype, int64_t m, int64_t n, int64_t k, int what, int32_t activation,
                                    uint64_t *seed) {
    attn_matmul_args a = { .activation = activation, .flags = what & ADD ? ATTN_ACCUMULATE : 0 };
    a.a = normal_matrix(dtype, m, k, seed);
    a.b = normal_matrix(dtype, k, n, seed);
    a.c = any_matrix(dtype, m, n, seed);
    if (what & (ADD | IN_PLACE)) fill_normal(a.c, 1, seed);
    if (what & BIAS) a.bias = normal_vector(dtype, n, seed);
    if (what & RESIDUAL) a.residual = what & IN_PLACE ? a.c : normal_matrix(dtype, m, n, seed);
    if (what & BEFORE) a.before = any_matrix(dtype, m, n, seed);
    return a;
}

static ref_product product_of(const attn_matmul_args *a, attn_tensor c, attn_tensor before) {
    return (ref_product){ .m = a->a.shape[0],
                          .n = a->b.shape[1],
                          .k = a->a.shape[1],
                          .activation = a->activation,
                          .accumulate = a->flags & ATTN_ACCUMULATE,
                          .a = matrix_of(a->a),
                          .b = matrix_of(a->b),
                          .c = matrix_of(c),
                          .bias = vector_of(a->bias),
                          .residual = matrix_of(a->residual),
                          .before = matrix_of(before) };
}

/* sum |a||b| + |bias| of element (i, j). */
static double magnitude(const attn_matmul_args *a, int64_t i, int64_t j) {
    double s = a->bias.rank ? fabs(get(a->bias, j)) : 0;
    int64_t k = a->a.shape[1], n = a->b.shape[1];
    for (int64_t t = 0; t < k; t++) s += fabs(get(a->a, i * k + t) * get(a->b, t * n + j));
    return s;
}

/* Runs the call and holds it to the reference's result on the same operands. */
static void check(attn_matmul_args a) {
    int64_t m = a.a.shape[0], n = a.b.shape[1];
    double u = rounding(a.a.dtype), least = smallest(a.a.dtype);
    attn_tensor old = dense_copy(a.c, ATTN_F64), residual = a.residual.rank ? dense_copy(a.residual, ATTN_F64) : a.residual;
    attn_tensor c = dense_copy(a.c, ATTN_F64), before = a.before.rank ? tensor2(ATTN_F64, m, n) : a.before;
    ref_product p = product_of(&a, c, before);
    p.residual = matrix_of(residual);
    ref_matmul(&p);
    size_t size = attn_matmul_workspace(&a, 1);
    attn_exec lent = { .workspace = poisoned(size), .workspace_size = size }; /* ends at a guard page too */
    assert_ok(attn_matmul(&a, &lent));
    for (int64_t i = 0; i < m * n; i++) {
        double s = magnitude(&a, i / n, i % n), bound = u * ((double)(a.a.shape[1] + 2) * s) + least;
        if (a.before.rank) assert_within("before", i, get(a.before, i), get(before, i), bound);
        if (a.activation != ATTN_IDENTITY) bound = 1.13 * bound + 8 * u * (s + 1);
        double more = (a.residual.rank ? fabs(get(residual, i)) : 0) + (a.flags & ATTN_ACCUMULATE ? fabs(get(old, i)) : 0);
        assert_within("c", i, get(a.c, i), get(c, i), bound + u * (more + 2 * fabs(get(c, i))));
    }
}

static void products_of_any_shape_and_strides_are_within_the_bound(void **state) {
    (void)state;
    uint64_t seed = 1;
    for (int round = 0; round < 150; round++) {
        int32_t dtype = round % 3 == 2 ? ATTN_F64 : ATTN_F32;
        check(random_call(dtype, any_length(&seed), any_length(&seed), any_length(&seed),
                          (int)between(&seed, 0, COMBINATIONS - 1), (int32_t)between(&seed, ATTN_IDENTITY, ATTN_TANH), &seed));
        free_blocks(NULL);
    }
}

static void long_products_are_within_the_bound(void **state) {
    (void)state;
    static const int64_t shapes[][3] = { { 7, 70, 257 }, { 13, 33, 600 }, { 100, 17, 512 }, { 1, 300, 1025 }, { 90, 260, 260 } };
    uint64_t seed = 2;
    for (int i = 0; i < 5; i++)
        for (int what = 0; what < COMBINATIONS; what += 9) {
            check(random_call(i % 2 ? ATTN_F64 : ATTN_F32, shapes[i][0], shapes[i][1], shapes[i][2], what, ATTN_IDENTITY, &seed));
            free_blocks(NULL);
        }
}

static void every_combination_of_epilogues_is_right(void **state) {
    (void)state;
    uint64_t seed = 3;
    for (int what = 0; what < COMBINATIONS; what++)
        for (int32_t activation = ATTN_IDENTITY; activation <= ATTN_TANH; activation++) {
            check(random_call(what % 2 ? ATTN_F32 : ATTN_F64, 9, 37, 11, what, activation, &seed));
            free_blocks(NULL);
        }
}

static void half_types_round_the_reference_once(void **state) {
    (void)state;
    uint64_t seed = 4;
    for (int i = 0; i < 20; i++) {
        int32_t dtype = i % 2 ? ATTN_F16 : ATTN_BF16;
        attn_matmul_args a = random_call(dtype, 5, 9, 17, i & (BIAS | RESIDUAL), ATTN_GELU, &seed);
        a.c = tensor2(i % 3 ? dtype : ATTN_F32, 5, 9);
        if (a.residual.rank) a.residual = normal_matrix(ATTN_F32, 5, 9, &seed);
        attn_tensor expected = tensor2(a.c.dtype, 5, 9);
        ref_product p = product_of(&a, expected, (attn_tensor){ 0 });
        ref_matmul(&p);
        assert_ok(attn_matmul(&a, NULL));
        assert_same(a.c, expected);
    }
}

static void a_product_over_nothing_is_the_epilogue_of_zero(void **state) {
    (void)state;
    for (int32_t dtype = ATTN_F32; dtype <= ATTN_F64; dtype++) {
        attn_matmul_args a = { .a = tensor2(dtype, 3, 0), .b = tensor2(dtype, 0, 19), .c = tensor2(dtype, 3, 19) };
        a.a.data = a.b.data = NULL;
        assert_ok(attn_matmul(&a, NULL));
        for (int i = 0; i < 57; i++) assert_true(get(a.c, i) == 0);
        a.bias = tensor1(dtype, 19);
        fill(a.bias, 2);
        assert_ok(attn_matmul(&a, NULL));
        for (int i = 0; i < 57; i++) assert_true(get(a.c, i) == 2);
    }
}

static void without_rows_or_columns_nothing_is_written(void **state) {
    (void)state;
    attn_matmul_args a = { .a = tensor2(ATTN_F32, 0, 4), .b = tensor2(ATTN_F32, 4, 5), .c = tensor2(ATTN_F32, 0, 5) };
    assert_ok(attn_matmul(&a, NULL));
    a = (attn_matmul_args){ .a = tensor2(ATTN_F32, 3, 4), .b = tensor2(ATTN_F32, 4, 0), .c = tensor2(ATTN_F32, 3, 0) };
    assert_ok(attn_matmul(&a, NULL));
}

static void nan_shows_in_its_row_and_column_alone(void **state) {
    (void)state;
    uint64_t seed = 5;
    for (int64_t n = 1; n < 70; n += 4) {
        attn_matmul_args a = random_call(ATTN_F32, 8, n, 5, 0, ATTN_RELU, &seed);
        put(a.a, 3 * 5 + 2, NAN);
        put(a.b, 1 * n + n - 1, INFINITY);
        assert_ok(attn_matmul(&a, NULL));
        for (int64_t i = 0; i < 8 * n; i++) {
            if (i / n == 3)
                assert_true(isnan(get(a.c, i)));
            else if (i % n != n - 1)
                assert_true(isfinite(get(a.c, i)));
        }
        free_blocks(NULL);
    }
}

/* ---- bits -------------------------------------------------------------------------------------------------- */

/* A dense result of `a`, its other operands unchanged. */
static attn_tensor result_of(attn_matmul_args a, const attn_exec *exec) {
    attn_tensor c = dense_copy(a.c, a.c.dtype);
    a.c = c;
    assert_ok(attn_matmul(&a, exec));
    return c;
}

static void bits_do_not_depend_on_threads(void **state) {
    (void)state;
    uint64_t seed = 6;
    for (int round = 0; round < 6; round++) {
        attn_matmul_args a =
            random_call(round % 2 ? ATTN_F32 : ATTN_F64, 203, 150, round < 3 ? 64 : 530, BIAS | RESIDUAL | ADD, ATTN_GELU, &seed);
        attn_tensor alone = result_of(a, NULL);
        for (int i = 0; i < N_THREAD_COUNTS; i++) {
            attn_exec exec = { 0 };
            assert_ok(attn_pool_open(&exec, thread_counts[i]));
            assert_same(result_of(a, &exec), alone);
            attn_pool_close(&exec);
        }
        free_blocks(NULL);
    }
}

/* Row r and column s of the product, computed as a product of their own. */
static void bits_do_not_depend_on_the_neighbours(void **state) {
    (void)state;
    uint64_t seed = 7;
    for (int round = 0; round < 40; round++) {
        int64_t m = any_length(&seed), n = any_length(&seed), k = round % 4 ? any_length(&seed) : 300;
        attn_matmul_args a = random_call(round % 2 ? ATTN_F32 : ATTN_F64, m, n, k, BIAS | ADD, ATTN_TANH, &seed);
        attn_tensor whole = result_of(a, NULL);
        int64_t r = between(&seed, 0, m - 1), s = between(&seed, 0, n - 1);
        attn_matmul_args one = a;
        one.a.shape[0] = one.b.shape[1] = one.bias.shape[0] = 1;
        one.a.data = attn_at(&a.a, r * a.a.stride[0]);
        one.b.data = attn_at(&a.b, s * a.b.stride[1]);
        one.bias.data = attn_at(&a.bias, s * a.bias.stride[0]);
        one.c.shape[0] = one.c.shape[1] = 1;
        one.c.data = attn_at(&a.c, r * a.c.stride[0] + s * a.c.stride[1]);
        double alone = get(result_of(one, NULL), 0), together = get(whole, r * n + s);
        if (alone != together)
            fail_msg("m%lld n%lld k%lld: %.17g alone, %.17g together", (long long)m, (long long)n, (long long)k, alone, together);
        free_blocks(NULL);
    }
}

static void bits_do_not_depend_on_strides(void **state) {
    (void)state;
    uint64_t seed = 8;
    for (int round = 0; round < 40; round++) {
        int32_t dtype = round % 2 ? ATTN_F32 : ATTN_F64;
        attn_matmul_args a =
            random_call(dtype, any_length(&seed), any_length(&seed), any_length(&seed), BIAS | RESIDUAL, ATTN_SILU, &seed);
        attn_matmul_args dense = a;
        dense.a = dense_copy(a.a, dtype);
        dense.b = dense_copy(a.b, dtype);
        dense.bias = dense_copy(a.bias, dtype);
        dense.residual = dense_copy(a.residual, dtype);
        assert_ok(attn_matmul(&a, NULL));
        assert_same(result_of(dense, NULL), a.c);
        free_blocks(NULL);
    }
}

static void packed_gives_the_same_bits(void **state) {
    (void)state;
    uint64_t seed = 9;
    for (int round = 0; round < 60; round++) {
        attn_matmul_args a = random_call(round % 2 ? ATTN_F32 : ATTN_F64, any_length(&seed), any_length(&seed),
                                         round % 5 ? any_length(&seed) : 0, BIAS, ATTN_IDENTITY, &seed);
        attn_tensor expected = result_of(a, NULL);
        size_t size = attn_matmul_packed_size(&a.b);
        assert_true(size > 0);
        char *packed = poisoned(size + 8);
        packed += 8 * (round % 2); /* any alignment */
        assert_ok(attn_matmul_pack(&a.b, packed, size));
        a.packed = packed;
        a.b.data = NULL; /* only its shape and dtype are read */
        assert_same(result_of(a, NULL), expected);
        free_blocks(NULL);
    }
}

/* ---- gradients ------------------------------------------------------------------------------------------------ */

/* sum of c * weights, as a function of one operand. */
static double objective(attn_matmul_args a, attn_tensor weights) {
    double sum = 0;
    assert_ok(attn_matmul(&a, NULL));
    for (int64_t i = 0; i < attn_count(&a.c); i++) sum += get(a.c, i) * get(weights, i);
    return sum;
}

static void gradients_are_two_products_and_a_sum(void **state) {
    (void)state;
    uint64_t seed = 10;
    attn_matmul_args f = random_call(ATTN_F64, 5, 7, 6, BIAS, ATTN_IDENTITY, &seed);
    attn_tensor dc = normal_matrix(ATTN_F64, 5, 7, &seed), da = tensor2(ATTN_F64, 5, 6), db = tensor2(ATTN_F64, 6, 7);
    attn_tensor dbias = tensor1(ATTN_F64, 7);
    assert_ok(attn_matmul(&(attn_matmul_args){ .a = dc, .b = attn_transposed(f.b), .c = da }, NULL));
    assert_ok(attn_matmul(&(attn_matmul_args){ .a = attn_transposed(f.a), .b = dc, .c = db }, NULL));
    assert_ok(attn_sum_rows(&dc, &dbias, 0, NULL));
    attn_tensor inputs[] = { f.a, f.b, f.bias }, gradients[] = { da, db, dbias };
    for (int which = 0; which < 3; which++)
        for (int64_t i = 0; i < attn_count(&inputs[which]); i++) {
            double x = get(inputs[which], i), h = 1e-5;
            put(inputs[which], i, x + h);
            double up = objective(f, dc);
            put(inputs[which], i, x - h);
            double down = objective(f, dc);
            put(inputs[which], i, x);
            assert_within("gradient", i, get(gradients[which], i), (up - down) / (2 * h), 1e-8);
        }
}

static void a_burst_counts_its_operations(void **state) {
    (void)state;
    for (int32_t dtype = ATTN_F32; dtype <= ATTN_F64; dtype++) {
        int64_t once = attn_burst(dtype, 1);
        assert_true(once > 0);
        assert_int_equal(attn_burst(dtype, 1000), 1000 * once);
        assert_int_equal(attn_burst(dtype, 0), 0);
        assert_int_equal(attn_burst(dtype, -1), 0);
    }
}

/* ---- memory and errors ---------------------------------------------------------------------------------------- */

static void lent_workspace_means_no_allocation(void **state) {
    (void)state;
    uint64_t seed = 11;
    for (int packs = 0; packs < 2; packs++) {
        attn_matmul_args a = random_call(ATTN_F32, 70, 65, 300, packs ? BIAS | ADD : 0, ATTN_RELU, &seed);
        size_t size = attn_matmul_workspace(&a, 1);
        attn_exec exec = { .workspace = poisoned(size), .workspace_size = size };
        memory.allowed = 0;
        memory.for_ever = true;
        attn_status s = attn_matmul(&a, &exec);
        memory.allowed = -1;
        assert_ok(s);
        exec.workspace_size--;
        assert_refused(attn_matmul(&a, &exec), ATTN_SMALL_WORKSPACE, "workspace");
    }
}

static void a_failing_allocation_is_a_status_and_writes_nothing(void **state) {
    (void)state;
    uint64_t seed = 12;
    attn_matmul_args a = random_call(ATTN_F32, 7, 8, 9, 0, ATTN_IDENTITY, &seed);
    long live = memory.live;
    memory.allowed = 0;
    attn_status s = attn_matmul(&a, NULL);
    memory.allowed = -1;
    assert_int_equal(s, ATTN_NO_MEMORY);
    assert_int_equal(memory.live, live);
    assert_untouched(a.c);
}

static void wrong_operands_are_refused_and_nothing_is_written(void **state) {
    (void)state;
    uint64_t seed = 13;
    attn_matmul_args right = random_call(ATTN_F32, 3, 4, 5, BIAS | RESIDUAL | BEFORE, ATTN_IDENTITY, &seed), a;
#define WITH(change) (a = right, (void)(change), &a)
    assert_refused(attn_matmul(WITH(a.b.shape[0] = 6), NULL), ATTN_BAD_SHAPE, "b has 6 rows, a has 5 columns");
    assert_refused(attn_matmul(WITH(a.c.shape[1] = 3), NULL), ATTN_BAD_SHAPE, "c has shape");
    assert_refused(attn_matmul(WITH(a.a.rank = 3), NULL), ATTN_BAD_SHAPE, "a has rank 3");
    assert_refused(attn_matmul(WITH(a.b = attn_transposed((attn_tensor){ .rank = 3 })), NULL), ATTN_BAD_SHAPE, "b");
    assert_refused(attn_matmul(WITH(a.bias.shape[0] = 5), NULL), ATTN_BAD_SHAPE, "bias");
    assert_refused(attn_matmul(WITH(a.residual.shape[0] = 2), NULL), ATTN_BAD_SHAPE, "residual");
    assert_refused(attn_matmul(WITH(a.before.stride[0] = 0), NULL), ATTN_BAD_ARGUMENT, "before");
    assert_refused(attn_matmul(WITH(a.c.data = NULL), NULL), ATTN_BAD_ARGUMENT, "c has no data");
    assert_refused(attn_matmul(WITH(a.a.dtype = ATTN_I32), NULL), ATTN_UNSUPPORTED, "a is i32");
    assert_refused(attn_matmul(WITH(a.bias.dtype = ATTN_BF16), NULL), ATTN_UNSUPPORTED, "bias is bf16");
    assert_refused(attn_matmul(WITH(a.activation = 7), NULL), ATTN_BAD_ARGUMENT, "activation 7");
    assert_refused(attn_matmul(WITH(a.flags = 1), NULL), ATTN_BAD_ARGUMENT, "flags");
    assert_refused(attn_matmul(WITH(a.reserved[15] = 1), NULL), ATTN_UNSUPPORTED, "reserved");
    assert_refused(attn_matmul(WITH(a.a.stride[0] = INT64_MAX), NULL), ATTN_BAD_SHAPE, "too large");
    assert_refused(attn_matmul(&right, &(attn_exec){ .n_threads = 3 }), ATTN_BAD_ARGUMENT, "parallel_for");
#undef WITH
    assert_untouched(right.c);
    assert_untouched(right.before);
}

static void wrong_packing_is_refused(void **state) {
    (void)state;
    attn_tensor b = tensor2(ATTN_F32, 5, 6), half = tensor2(ATTN_BF16, 5, 6);
    char buffer[4096];
    assert_refused(attn_matmul_pack(&b, buffer, attn_matmul_packed_size(&b) - 1), ATTN_SMALL_WORKSPACE, "packed b");
    assert_refused(attn_matmul_pack(&b, NULL, 4096), ATTN_BAD_ARGUMENT, "packed is NULL");
    assert_int_equal(attn_matmul_packed_size(&half), 0);
    assert_refused(attn_matmul_pack(&half, buffer, sizeof buffer), ATTN_UNSUPPORTED, "bf16");
    attn_tensor huge = { .rank = 2, .shape = { INT64_MAX / 2, INT64_MAX / 2 } };
    assert_int_equal(attn_matmul_packed_size(&huge), 0);
    attn_matmul_args a = { .a = tensor2(ATTN_BF16, 2, 5), .b = half, .c = tensor2(ATTN_BF16, 2, 6), .packed = buffer };
    assert_refused(attn_matmul(&a, NULL), ATTN_UNSUPPORTED, "packed");
}

#define TEST(name) cmocka_unit_test_teardown(name, free_blocks)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(products_of_any_shape_and_strides_are_within_the_bound),
        TEST(long_products_are_within_the_bound),
        TEST(every_combination_of_epilogues_is_right),
        TEST(half_types_round_the_reference_once),
        TEST(a_product_over_nothing_is_the_epilogue_of_zero),
        TEST(without_rows_or_columns_nothing_is_written),
        TEST(nan_shows_in_its_row_and_column_alone),
        TEST(bits_do_not_depend_on_threads),
        TEST(bits_do_not_depend_on_the_neighbours),
        TEST(bits_do_not_depend_on_strides),
        TEST(packed_gives_the_same_bits),
        TEST(gradients_are_two_products_and_a_sum),
        TEST(a_burst_counts_its_operations),
        TEST(lent_workspace_means_no_allocation),
        TEST(a_failing_allocation_is_a_status_and_writes_nothing),
        TEST(wrong_operands_are_refused_and_nothing_is_written),
        TEST(wrong_packing_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
