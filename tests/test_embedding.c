/* SPDX-License-Identifier: Apache-2.0 */
/* Embedding: rows gathered and gradients scattered, any strides and id types, ids out of range, repeated ids in a fixed order. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/tensors.h"
#include "tests/ops_cases.h"

static attn_tensor random_ids(int32_t dtype, int64_t n, int64_t vocabulary, uint64_t *seed) {
    attn_tensor ids = any_vector(dtype, n, seed);
    for (int64_t i = 0; i < n; i++) put(ids, i, (double)between(seed, 0, vocabulary - 1));
    return ids;
}

static attn_embedding_args random_call(int32_t dtype, int64_t n, int64_t dim, uint64_t *seed) {
    attn_embedding_args a = { .table = normal_matrix(dtype, 11, dim, seed), .y = any_matrix(dtype, n, dim, seed) };
    a.ids = random_ids(between(seed, 0, 1) ? ATTN_I32 : ATTN_I64, n, 11, seed);
    return a;
}

static void rows_are_those_of_the_table(void **state) {
    (void)state;
    static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_BF16, ATTN_F16 };
    uint64_t seed = 1;
    for (int round = 0; round < 24; round++) {
        attn_embedding_args a = random_call(dtypes[round % 4], between(&seed, 0, 90), any_length(&seed), &seed);
        int64_t dim = a.table.shape[1];
        assert_ok(attn_embedding(&a, NULL));
        for (int64_t i = 0; i < attn_count(&a.y); i++)
            assert_true(get(a.y, i) == get(a.table, (int64_t)get(a.ids, i / dim) * dim + i % dim));
        a.flags = ATTN_ACCUMULATE; /* a sum of two equal numbers is exact */
        assert_ok(attn_embedding(&a, NULL));
        for (int64_t i = 0; i < attn_count(&a.y); i++)
            assert_true(get(a.y, i) == 2 * get(a.table, (int64_t)get(a.ids, i / dim) * dim + i % dim));
        free_blocks(NULL);
    }
}

static void gradients_are_added_in_the_order_of_the_ids(void **state) {
    (void)state;
    uint64_t seed = 2;
    for (int round = 0; round < 24; round++) {
        int32_t dtype = round % 2 ? ATTN_F32 : ATTN_F64;
        attn_embedding_args a = random_call(dtype, between(&seed, 0, 90), any_length(&seed), &seed);
        int64_t n = a.ids.shape[0], dim = a.table.shape[1];
        attn_tensor dy = normal_matrix(dtype, n, dim, &seed), dtable = normal_matrix(dtype, 11, dim, &seed);
        attn_tensor expected = dense_copy(dtable, dtype);
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < dim; j++) {
                int64_t at = (int64_t)get(a.ids, i) * dim + j;
                put(expected, at, get(expected, at) + get(dy, i * dim + j));
            }
        attn_exec exec = { 0 };
        assert_ok(attn_pool_open(&exec, thread_counts[round % N_THREAD_COUNTS]));
        assert_ok(attn_embedding_backward(&a, &dy, &dtable, &exec));
        attn_pool_close(&exec);
        assert_same(dtable, expected);
        free_blocks(NULL);
    }
}

static void an_id_out_of_range_is_named_and_nothing_is_written(void **state) {
    (void)state;
    uint64_t seed = 3;
    attn_embedding_args a = random_call(ATTN_F32, 5, 3, &seed);
    attn_tensor dtable = tensor2(ATTN_F32, 11, 3), dy = tensor2(ATTN_F32, 5, 3);
    put(a.ids, 3, 11);
    assert_refused(attn_embedding(&a, NULL), ATTN_BAD_ARGUMENT, "ids[3] is 11, the table has 11 rows");
    assert_refused(attn_embedding_backward(&a, &dy, &dtable, NULL), ATTN_BAD_ARGUMENT, "ids[3] is 11");
    put(a.ids, 1, -1);
    assert_refused(attn_embedding(&a, NULL), ATTN_BAD_ARGUMENT, "ids[1] is -1");
    assert_untouched(a.y);
    assert_untouched(dtable);
}

static void wrong_operands_are_refused(void **state) {
    (void)state;
    uint64_t seed = 4;
    attn_embedding_args right = random_call(ATTN_F32, 5, 3, &seed), a;
    attn_tensor dy = tensor2(ATTN_F32, 5, 3), dtable = tensor2(ATTN_F32, 11, 3), narrow = tensor2(ATTN_F32, 11, 2);
#define WITH(change) (a = right, (void)(change), &a)
    assert_refused(attn_embedding(WITH(a.ids.dtype = ATTN_F32), NULL), ATTN_UNSUPPORTED, "ids are f32");
    assert_refused(attn_embedding(WITH(a.ids.rank = 2), NULL), ATTN_BAD_SHAPE, "ids");
    assert_refused(attn_embedding(WITH(a.y.shape[1] = 2), NULL), ATTN_BAD_SHAPE, "y has shape");
    assert_refused(attn_embedding(WITH(a.table.rank = 1), NULL), ATTN_BAD_SHAPE, "table");
    assert_refused(attn_embedding(WITH(a.flags = 1), NULL), ATTN_BAD_ARGUMENT, "flags");
    assert_refused(attn_embedding(WITH(a.reserved[0] = 1), NULL), ATTN_UNSUPPORTED, "reserved");
    assert_refused(attn_embedding_backward(WITH(a.table.rank = 0), &dy, &dtable, NULL), ATTN_BAD_SHAPE, "table");
    assert_refused(attn_embedding_backward(&right, &dy, &narrow, NULL), ATTN_BAD_SHAPE, "dtable");
#undef WITH
}

#define TEST(name) cmocka_unit_test_teardown(name, free_blocks)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(rows_are_those_of_the_table),
        TEST(gradients_are_added_in_the_order_of_the_ids),
        TEST(an_id_out_of_range_is_named_and_nothing_is_written),
        TEST(wrong_operands_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
