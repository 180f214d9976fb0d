/* SPDX-License-Identifier: Apache-2.0 */
/* Sums of tensors, sums over rows, sums of squares, and dropout: against their definitions, any strides, threads, and the published
 * numbers of Philox-4x32-10. docs/ACCURACY.md publishes: y + alpha x within u (|y| + 3 |alpha x|); a sum over m rows within
 * u (34 + m/32) sum |x|; a sum of squares within 2^-53 (n/8 + 16) of itself, relatively. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/tensors.h"
#include "tests/ops_cases.h"

#include "src/philox.h"

static attn_tensor any_tensor(int32_t dtype, const int64_t shape[3], int round, uint64_t *seed) {
    static const int orders[3][3] = { { 0, 1, 2 }, { 2, 0, 1 }, { 1, 2, 0 } };
    attn_tensor t = tensor_in_order(dtype, 3, shape, orders[round % 3], round % 2);
    fill_normal(t, 1, seed);
    return t;
}

static void adding_is_within_the_bound(void **state) {
    (void)state;
    static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_BF16, ATTN_F16 };
    uint64_t seed = 1;
    for (int round = 0; round < 36; round++) {
        int32_t dtype = dtypes[round % 4];
        int64_t shape[] = { 3, between(&seed, 0, 4), any_length(&seed) };
        attn_tensor x = any_tensor(dtype, shape, round, &seed), y = any_tensor(dtype, shape, round / 3, &seed);
        attn_tensor old = dense_copy(y, dtype);
        double alpha = round % 5 ? normal(&seed) : 1;
        assert_ok(attn_add(&x, alpha, &y, NULL));
        for (int64_t i = 0; i < attn_count(&x); i++) {
            long double product = (long double)alpha * (long double)get(x, i), sum = (long double)get(old, i) + product;
            double bound = rounding(dtype) * (fabs(get(old, i)) + 3 * fabs((double)product)) * 1.001;
            assert_within("y", i, (double)((long double)get(y, i) - sum), 0, bound);
        }
        free_blocks(NULL);
    }
}

static void sums_over_rows_are_within_the_bound(void **state) {
    (void)state;
    uint64_t seed = 2;
    for (int round = 0; round < 40; round++) {
        int32_t dtype = round % 4 == 3 ? ATTN_F64 : ATTN_F32;
        int64_t m = round % 7 ? between(&seed, 0, 130) : 1000, n = any_length(&seed);
        attn_tensor x = normal_matrix(dtype, m, n, &seed), y = normal_vector(dtype, n, &seed), old = dense_copy(y, dtype);
        uint32_t flags = round % 2 ? ATTN_ACCUMULATE : 0;
        assert_ok(attn_sum_rows(&x, &y, flags, NULL));
        for (int64_t j = 0; j < n; j++) {
            double sum = flags ? get(old, j) : 0, size = fabs(sum);
            for (int64_t i = 0; i < m; i++) {
                sum += get(x, i * n + j);
                size += fabs(get(x, i * n + j));
            }
            assert_within("sum", j, get(y, j), sum, rounding(dtype) * (34 + (double)m / 32) * size);
        }
        free_blocks(NULL);
    }
}

static void sums_of_squares_are_within_the_bound(void **state) {
    (void)state;
    uint64_t seed = 3;
    for (int round = 0; round < 20; round++) {
        int64_t shape[] = { 2, round % 3 ? 3 : 9001, any_length(&seed) };
        attn_tensor x = any_tensor(round % 2 ? ATTN_F32 : ATTN_BF16, shape, round, &seed);
        double got = -1;
        long double sum = 0;
        assert_ok(attn_sum_of_squares(&x, &got, NULL));
        for (int64_t i = 0; i < attn_count(&x); i++) sum += (long double)get(x, i) * (long double)get(x, i);
        assert_within("sum", 0, got, (double)sum, (double)sum * 0x1p-53 * ((double)attn_count(&x) / 8 + 16));
        free_blocks(NULL);
    }
}

static void bits_do_not_depend_on_threads_or_strides(void **state) {
    (void)state;
    uint64_t seed = 4;
    attn_tensor x = any_tensor(ATTN_F32, (int64_t[]){ 3, 301, 129 }, 1, &seed), dense = dense_copy(x, ATTN_F32);
    attn_tensor rows = normal_matrix(ATTN_F32, 700, 131, &seed), y = tensor1(ATTN_F32, 131), z = tensor1(ATTN_F32, 131);
    attn_tensor d = tensor_of(ATTN_F32, 3, x.shape), e = tensor_of(ATTN_F32, 3, x.shape);
    double sum = 0, other = 0;
    assert_ok(attn_sum_of_squares(&x, &sum, NULL));
    assert_ok(attn_sum_rows(&rows, &y, 0, NULL));
    assert_ok(attn_dropout(&x, 0.3, 5, 6, &d, NULL));
    attn_tensor dense_rows = dense_copy(rows, ATTN_F32);
    for (int i = 0; i < N_THREAD_COUNTS; i++) {
        attn_exec exec = { 0 };
        assert_ok(attn_pool_open(&exec, thread_counts[i]));
        assert_ok(attn_sum_of_squares(&dense, &other, &exec));
        assert_ok(attn_sum_rows(&dense_rows, &z, 0, &exec));
        assert_ok(attn_dropout(&dense, 0.3, 5, 6, &e, &exec));
        attn_pool_close(&exec);
        assert_true(sum == other);
        assert_same(y, z);
        assert_same(d, e);
    }
}

/* ---- dropout ----------------------------------------------------------------------------------------------- */

/* The known answers that come with the Random123 library of Salmon et al. */
static void philox_gives_the_published_words(void **state) {
    (void)state;
    attn_philox zeros = attn_philox_words((attn_philox){ { 0, 0, 0, 0 } }, 0);
    const uint32_t expected_zeros[] = { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 };
    attn_philox ones = attn_philox_words((attn_philox){ { UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX } }, UINT64_MAX);
    const uint32_t expected_ones[] = { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd };
    attn_philox pi = attn_philox_words((attn_philox){ { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 } }, 0x299f31d0a4093822);
    const uint32_t expected_pi[] = { 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 };
    assert_memory_equal(zeros.word, expected_zeros, 16);
    assert_memory_equal(ones.word, expected_ones, 16);
    assert_memory_equal(pi.word, expected_pi, 16);
}

static void dropout_is_the_documented_function_of_position_seed_and_stream(void **state) {
    (void)state;
    uint64_t seed = 5;
    for (int round = 0; round < 24; round++) {
        int32_t dtype = round % 3 == 0 ? ATTN_F64 : round % 3 == 1 ? ATTN_F32 : ATTN_BF16;
        int64_t shape[] = { 3, between(&seed, 1, 5), any_length(&seed) };
        attn_tensor x = any_tensor(dtype, shape, round, &seed), y = any_tensor(dtype, shape, round + 1, &seed);
        double p = round % 4 ? 0.25 * (round % 4) : 0.1;
        uint64_t key = random_word(&seed), stream = random_word(&seed);
        put(x, 0, NAN);
        assert_ok(attn_dropout(&x, p, key, stream, &y, NULL));
        for (int64_t i = 0; i < attn_count(&x); i++) {
            attn_philox r =
                attn_philox_words((attn_philox){ { (uint32_t)(i >> 2), 0, (uint32_t)stream, (uint32_t)(stream >> 32) } }, key);
            bool dropped = r.word[i & 3] < (uint64_t)llround(p * 4294967296.0);
            double expected = dropped ? 0 : get(x, i) / (1 - p);
            assert_within("y", i, get(y, i), expected, 2 * rounding(dtype) * fabs(expected));
        }
        free_blocks(NULL);
    }
}

static void dropout_drops_its_share_and_keeps_the_mean(void **state) {
    (void)state;
    attn_tensor x = tensor2(ATTN_F32, 100, 1000);
    fill(x, 1);
    for (int i = 0; i <= 4; i++) {
        attn_tensor y = dense_copy(x, ATTN_F32);
        double p = i / 4.0, zeros = 0, sum = 0;
        assert_ok(attn_dropout(&y, p, 7, (uint64_t)i, &y, NULL)); /* in place */
        for (int64_t n = 0; n < 100000; n++) {
            zeros += get(y, n) == 0;
            sum += get(y, n);
        }
        assert_within("share", i, zeros / 1e5, p, 6 * sqrt(p * (1 - p) / 1e5));
        if (p < 1) assert_within("mean", i, sum / 1e5, 1, 6 * sqrt(p / (1 - p) / 1e5) + 1e-6);
    }
}

static void wrong_operands_are_refused_and_nothing_is_written(void **state) {
    (void)state;
    attn_tensor x = tensor2(ATTN_F32, 3, 4), y = tensor2(ATTN_F32, 3, 5), z = tensor2(ATTN_F32, 3, 4),
                ints = tensor2(ATTN_I32, 3, 4);
    attn_tensor v = tensor1(ATTN_F32, 4), none = { 0 };
    double sum = 0;
    assert_refused(attn_add(&x, 1, &y, NULL), ATTN_BAD_SHAPE, "y has shape");
    assert_refused(attn_add(&ints, 1, &x, NULL), ATTN_UNSUPPORTED, "x is i32");
    assert_refused(attn_add(&none, 1, &z, NULL), ATTN_BAD_ARGUMENT, "x has no data");
    assert_refused(attn_dropout(&x, -0.1, 0, 0, &z, NULL), ATTN_BAD_ARGUMENT, "p is -0.1");
    assert_refused(attn_dropout(&x, 1.1, 0, 0, &z, NULL), ATTN_BAD_ARGUMENT, "p is 1.1");
    assert_refused(attn_dropout(&x, NAN, 0, 0, &z, NULL), ATTN_BAD_ARGUMENT, "p is");
    assert_refused(attn_sum_rows(&x, &v, 1, NULL), ATTN_BAD_ARGUMENT, "flags");
    assert_refused(attn_sum_rows(&v, &v, 0, NULL), ATTN_BAD_SHAPE, "x has rank 1");
    assert_refused(attn_sum_of_squares(&x, NULL, NULL), ATTN_BAD_ARGUMENT, "result is NULL");
    assert_refused(attn_sum_of_squares(&ints, &sum, NULL), ATTN_UNSUPPORTED, "x is i32");
    assert_untouched(z);
}

#define TEST(name) cmocka_unit_test_teardown(name, free_blocks)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(adding_is_within_the_bound),
        TEST(sums_over_rows_are_within_the_bound),
        TEST(sums_of_squares_are_within_the_bound),
        TEST(bits_do_not_depend_on_threads_or_strides),
        TEST(philox_gives_the_published_words),
        TEST(dropout_is_the_documented_function_of_position_seed_and_stream),
        TEST(dropout_drops_its_share_and_keeps_the_mean),
        TEST(wrong_operands_are_refused_and_nothing_is_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
