/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes that no memory holds: questions answer that they cannot be addressed, calls refuse them. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/tensors.h"

#include <attn/ops.h>

/* One element, repeated: questions read no more. */
static attn_tensor repeated(int32_t dtype, int32_t rank, const int64_t *shape) {
    attn_tensor t = { .data = poisoned(8), .dtype = dtype, .rank = rank };
    for (int32_t i = 0; i < rank; i++) t.shape[i] = shape[i];
    return t;
}

static void sizes_that_overflow_are_said(void **state) {
    (void)state;
    const int64_t huge = (int64_t)1 << 60;
    attn_top_k_softmax_args router = { .logits = repeated(ATTN_F32, 1, &huge), .index = repeated(ATTN_I64, 1, &huge) };
    assert_true(attn_top_k_softmax_workspace(&router, 1) == SIZE_MAX);
    assert_int_equal(attn_top_k_softmax_workspace(NULL, 1), 0);
    router.index.rank = 2;
    assert_int_equal(attn_top_k_softmax_workspace(&router, 1), 0);
    router.logits.rank = 0;
    assert_int_equal(attn_top_k_softmax_workspace(&router, 1), 0);
    router.logits.rank = 7;
    assert_int_equal(attn_top_k_softmax_workspace(&router, 1), 0);
    attn_linear_cross_entropy_args loss = { .x = repeated(ATTN_F16, 2, (int64_t[]){ 1, 1 }),
                                            .weight = repeated(ATTN_F16, 2, (int64_t[]){ 2 * huge, 1 }),
                                            .labels = repeated(ATTN_I64, 1, (int64_t[]){ 1 }) };
    assert_true(attn_linear_cross_entropy_workspace(&loss, 1) == SIZE_MAX);
    attn_see see = { .top_index = repeated(ATTN_I32, 4, (int64_t[]){ 1, 1, 1, 1 }) };
    attn_attention_args a = { .q = repeated(ATTN_F32, 4, (int64_t[]){ 1, 1, 1, 1 }), .see = see };
    a.k = a.v = repeated(ATTN_F32, 4, (int64_t[]){ 1, 1, (int64_t)1 << 32, 1 });
    a.out = a.q;
    assert_refused(attn_attention(&a, NULL), ATTN_BAD_ARGUMENT, "see.top_index is i32, which cannot count");
    a.k.shape[2] = a.v.shape[2] = (int64_t)1 << 53;
    assert_refused(attn_attention(&a, NULL), ATTN_BAD_SHAPE, "k has length");
    a.q.shape[2] = (int64_t)1 << 53;
    assert_refused(attn_attention(&a, NULL), ATTN_BAD_SHAPE, "q has length");
    attn_tensor bad[] = { { .dtype = ATTN_F32, .rank = 1 },
                          { .dtype = ATTN_F32, .rank = 2, .shape = { -1, 2 } },
                          { .dtype = ATTN_F32, .rank = 2, .shape = { 2, -1 } },
                          { .dtype = ATTN_F32, .rank = 2, .shape = { huge, huge } } };
    for (int i = 0; i < 4; i++) assert_int_equal(attn_matmul_packed_size(&bad[i]), 0);
    attn_matmul_args product = { .a = bad[0], .b = bad[1] };
    assert_int_equal(attn_matmul_workspace(&product, 1), 0);
    product.a = bad[3];
    product.b = bad[0];
    assert_int_equal(attn_matmul_workspace(&product, 1), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test_teardown(sizes_that_overflow_are_said, free_blocks) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
