/* SPDX-License-Identifier: Apache-2.0 */
/* Views: the public helpers, and every check that front-ends make, with hostile extents and strides. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/tensors.h"
#include "src/rows.h"

static float memory_of_floats[4096];

static attn_tensor floats(int32_t rank, const int64_t *shape) { return attn_dense(ATTN_F32, memory_of_floats, rank, shape); }

static void assert_view(attn_tensor t, int32_t rank, const int64_t *shape, const int64_t *stride) {
    assert_int_equal(t.rank, rank);
    for (int32_t i = 0; i < rank; i++) {
        assert_int_equal(t.shape[i], shape[i]);
        assert_int_equal(t.stride[i], stride[i]);
    }
}

static void dense_is_row_major(void **state) {
    (void)state;
    attn_tensor t = floats(3, (int64_t[]){ 2, 3, 4 });
    assert_view(t, 3, (int64_t[]){ 2, 3, 4 }, (int64_t[]){ 12, 4, 1 });
    assert_ptr_equal(t.data, memory_of_floats);
    assert_int_equal(t.dtype, ATTN_F32);
    assert_view(floats(3, (int64_t[]){ 2, 0, 4 }), 3, (int64_t[]){ 2, 0, 4 }, (int64_t[]){ 4, 4, 1 });
    assert_int_equal(floats(0, NULL).rank, 0);
}

static void both_layouts_are_batch_heads_length_dim(void **state) {
    (void)state;
    const int64_t shape[] = { 2, 3, 5, 7 };
    assert_view(attn_bhsd(ATTN_F32, NULL, 2, 3, 5, 7), 4, shape, (int64_t[]){ 105, 35, 7, 1 });
    assert_view(attn_bshd(ATTN_F32, NULL, 2, 5, 3, 7), 4, shape, (int64_t[]){ 105, 7, 21, 1 });
}

static void axis_last_moves_one_axis_and_keeps_the_order_of_the_others(void **state) {
    (void)state;
    attn_tensor t = floats(3, (int64_t[]){ 2, 3, 4 });
    assert_view(attn_axis_last(t, 0), 3, (int64_t[]){ 3, 4, 2 }, (int64_t[]){ 4, 1, 12 });
    assert_view(attn_axis_last(t, 1), 3, (int64_t[]){ 2, 4, 3 }, (int64_t[]){ 12, 1, 4 });
    assert_view(attn_axis_last(t, 2), 3, t.shape, t.stride);
    assert_view(attn_axis_last(t, -3), 3, (int64_t[]){ 3, 4, 2 }, (int64_t[]){ 4, 1, 12 });
}

static void an_axis_that_is_not_there_gives_a_view_that_every_check_refuses(void **state) {
    (void)state;
    attn_tensor t = floats(3, (int64_t[]){ 2, 3, 4 }), hostile = t;
    for (int32_t axis = -4; axis <= 3; axis += 7) {
        attn_tensor moved = attn_axis_last(t, axis);
        assert_refused(attn_check_tensor("x", &moved, 0, ATTN_MAX_RANK), ATTN_BAD_SHAPE, "x has rank -1");
    }
    hostile.rank = 100;
    assert_int_equal(attn_axis_last(hostile, 50).rank, -1);
    assert_int_equal(attn_axis_last(t, INT32_MIN).rank, -1);
    assert_int_equal(attn_axis_last(t, INT32_MAX).rank, -1);
}

static void ranks_and_dtypes_are_checked(void **state) {
    (void)state;
    attn_tensor t = floats(2, (int64_t[]){ 3, 4 });
    assert_ok(attn_check_tensor("x", &t, 2, 2));
    assert_refused(attn_check_tensor("x", &t, 3, 3), ATTN_BAD_SHAPE, "x has rank 2, not 3");
    assert_refused(attn_check_tensor("x", &t, 3, 5), ATTN_BAD_SHAPE, "x has rank 2, not 3 to 5");
    t.rank = ATTN_MAX_RANK + 1;
    assert_refused(attn_check_tensor("x", &t, 0, 100), ATTN_BAD_SHAPE, "rank 7");
    t.rank = 2;
    static const int32_t unknown[] = { -1, ATTN_I64 + 1, INT32_MAX, INT32_MIN };
    for (int i = 0; i < 4; i++) {
        t.dtype = unknown[i];
        assert_refused(attn_check_tensor("x", &t, 2, 2), ATTN_BAD_ARGUMENT, "no known dtype");
    }
    static const size_t sizes[] = { 4, 2, 2, 8, 1, 1, 1, 4, 8 };
    for (int32_t d = ATTN_F32; d <= ATTN_I64; d++) {
        assert_int_equal(attn_dtype_size(d), sizes[d]);
        assert_int_equal(attn_dtype_is_float(d), d <= ATTN_F64);
    }
}

static void extents_strides_and_spans_that_overflow_are_refused(void **state) {
    (void)state;
    static const struct {
        int64_t shape[2], stride[2];
        const char *words; /* NULL: fine */
    } cases[] = {
        { { -1, 4 }, { 4, 1 }, "negative" },
        { { 4, INT64_MIN }, { 4, 1 }, "negative" },
        { { INT64_MAX, 1 }, { 1, 1 }, "too large" },
        { { INT64_MAX, 2 }, { 0, 0 }, "too large" },
        { { 1LL << 32, 1LL << 31 }, { 1LL << 31, 1 }, "too large" },
        { { 3, 1 }, { INT64_MAX, 1 }, "too large" },
        { { 3, 1 }, { INT64_MIN, 1 }, "too large" },
        { { 2, 2 }, { INT64_MAX / 2, INT64_MAX / 2 }, "too large" },
        { { 2, 2 }, { INT64_MAX / 2, INT64_MIN / 2 }, "too large" },
        { { 2, 2 }, { INT64_MAX / 4, 1 }, "too large" }, /* as elements, not as bytes */
        { { 1, 1 }, { INT64_MAX, INT64_MIN }, NULL },    /* never stepped along */
        { { 0, INT64_MAX }, { INT64_MAX, INT64_MAX }, NULL },
        { { 5, 5 }, { -5, -1 }, NULL },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        attn_tensor t = { .data = memory_of_floats + 100, .dtype = ATTN_F32, .rank = 2 };
        for (int a = 0; a < 2; a++) t.shape[a] = cases[i].shape[a], t.stride[a] = cases[i].stride[a];
        if (cases[i].words)
            assert_refused(attn_check_tensor("x", &t, 2, 2), ATTN_BAD_SHAPE, cases[i].words);
        else
            assert_ok(attn_check_tensor("x", &t, 2, 2));
    }
    /* attn_dense of extents whose product overflows must not be undefined, and is refused */
    attn_tensor t = floats(3, (int64_t[]){ INT64_MAX / 2, INT64_MAX / 2, 8 });
    assert_refused(attn_check_tensor("x", &t, 3, 3), ATTN_BAD_SHAPE, "too large");
}

static void data_is_there_and_aligned_unless_an_extent_is_0(void **state) {
    (void)state;
    attn_tensor t = floats(1, (int64_t[]){ 4 });
    t.data = NULL;
    assert_refused(attn_check_tensor("x", &t, 1, 1), ATTN_BAD_ARGUMENT, "no data");
    t.data = (char *)memory_of_floats + 2;
    assert_refused(attn_check_tensor("x", &t, 1, 1), ATTN_BAD_ARGUMENT, "not aligned to its 4-byte elements");
    t.dtype = ATTN_F16;
    assert_ok(attn_check_tensor("x", &t, 1, 1));
    t.data = NULL, t.shape[0] = 0;
    assert_ok(attn_check_tensor("x", &t, 1, 1));
}

static void an_output_may_not_repeat_its_elements(void **state) {
    (void)state;
    attn_tensor t = floats(2, (int64_t[]){ 3, 4 });
    assert_ok(attn_check_output("y", &t, 2, 2));
    t.stride[0] = 0;
    assert_ok(attn_check_tensor("y", &t, 2, 2));
    assert_refused(attn_check_output("y", &t, 2, 2), ATTN_BAD_ARGUMENT, "stride 0 along axis 0");
    t.shape[0] = 1;
    assert_ok(attn_check_output("y", &t, 2, 2));
}

static void broadcasting_is_numpys(void **state) {
    (void)state;
    const int64_t target[] = { 2, 3, 4 };
    attn_tensor view, t = floats(3, target);
    assert_ok(attn_broadcast("mask", &t, 3, target, &view));
    assert_view(view, 3, target, (int64_t[]){ 12, 4, 1 });
    t = floats(1, (int64_t[]){ 4 });
    assert_ok(attn_broadcast("mask", &t, 3, target, &view));
    assert_view(view, 3, target, (int64_t[]){ 0, 0, 1 });
    t = floats(3, (int64_t[]){ 2, 1, 4 });
    assert_ok(attn_broadcast("mask", &t, 3, target, &view));
    assert_view(view, 3, target, (int64_t[]){ 4, 0, 1 });
    t = floats(0, NULL);
    assert_ok(attn_broadcast("mask", &t, 3, target, &view));
    assert_view(view, 3, target, (int64_t[]){ 0, 0, 0 });
    t = floats(1, (int64_t[]){ 3 });
    assert_refused(attn_broadcast("mask", &t, 3, target, &view), ATTN_BAD_SHAPE,
                   "mask has shape [3], which does not broadcast to [2, 3, 4]");
    t = floats(4, (int64_t[]){ 1, 2, 3, 4 });
    assert_refused(attn_broadcast("mask", &t, 3, target, &view), ATTN_BAD_SHAPE, "does not broadcast");
    t = floats(3, (int64_t[]){ 2, 0, 4 });
    assert_refused(attn_broadcast("mask", &t, 3, target, &view), ATTN_BAD_SHAPE, "does not broadcast");
    t = floats(1, (int64_t[]){ 1 });
    assert_ok(attn_broadcast("mask", &t, 2, (int64_t[]){ 0, 4 }, &view));
    assert_view(view, 2, (int64_t[]){ 0, 4 }, (int64_t[]){ 0, 0 });
}

static void rows_begin_where_row_major_order_says(void **state) {
    (void)state;
    attn_tensor t = attn_axis_last(floats(3, (int64_t[]){ 2, 3, 4 }), 1); /* rows of 3, numbered by (2, 4) */
    assert_int_equal(attn_row_count(&t), 8);
    for (int64_t r = 0; r < 8; r++) assert_int_equal(attn_row_offset(&t, r), r / 4 * 12 + r % 4);
    attn_tensor vector = floats(1, (int64_t[]){ 5 });
    assert_int_equal(attn_row_count(&vector), 1);
    assert_int_equal(attn_row_offset(&vector, 0), 0);
}

/* Every row of every tensor is met exactly once, whatever the strides and the size of the blocks. */
static void blocks_of_rows_meet_every_row_once(void **state) {
    (void)state;
    static const int orders[][4] = { { 0, 1, 2, 3 }, { 3, 2, 1, 0 }, { 1, 3, 0, 2 }, { 2, 0, 3, 1 } };
    const int64_t shape[] = { 3, 1, 5, 4 };
    for (int64_t size = 1; size < 20; size += 3)
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < 4; j++) {
                attn_tensor a = tensor_in_order(ATTN_F32, 4, shape, orders[i], i % 2),
                            b = tensor_in_order(ATTN_F64, 4, shape, orders[j], 0);
                attn_rows rows;
                int met[15] = { 0 };
                attn_rows_make(&rows, 3, (const attn_tensor *const[]){ &a, NULL, &b });
                assert_int_equal(rows.n, 4);
                for (int64_t k = 0; k < attn_rows_blocks(&rows, size); k++) {
                    attn_rows_block block = attn_rows_at(&rows, size, k);
                    assert_true(block.count >= 1 && block.count <= size);
                    assert_null(block.data[1]);
                    for (int64_t r = 0; r < block.count; r++)
                        for (int64_t row = 0; row < 15; row++)
                            if ((float *)block.data[0] + r * block.next[0] == (float *)a.data + attn_row_offset(&a, row)) {
                                assert_ptr_equal((double *)block.data[2] + r * block.next[2],
                                                 (double *)b.data + attn_row_offset(&b, row));
                                met[row]++;
                            }
                }
                for (int row = 0; row < 15; row++) assert_int_equal(met[row], 1);
                free_blocks(NULL);
            }
}

static void dense_rows_are_one_run(void **state) {
    (void)state;
    attn_tensor t = floats(4, (int64_t[]){ 2, 3, 5, 7 });
    attn_rows rows;
    attn_rows_make(&rows, 1, (const attn_tensor *const[]){ &t });
    assert_int_equal(rows.axes, 1);
    assert_int_equal(attn_rows_blocks(&rows, 30), 1);
    assert_int_equal(attn_rows_blocks(&rows, 7), 5);
}

static void integers_are_read_whatever_their_size(void **state) {
    (void)state;
    int32_t small[] = { -7, INT32_MAX };
    int64_t large[] = { INT64_MIN, 9 };
    attn_tensor s = attn_dense(ATTN_I32, small, 1, (int64_t[]){ 2 }), l = attn_dense(ATTN_I64, large, 1, (int64_t[]){ 2 });
    assert_true(attn_int_at(&s, 0) == -7 && attn_int_at(&s, 1) == INT32_MAX);
    assert_true(attn_int_at(&l, 0) == INT64_MIN && attn_int_at(&l, 1) == 9);
}

static void elements_of_every_type_are_stored_and_read(void **state) {
    (void)state;
    for (int32_t dtype = ATTN_F32; dtype <= ATTN_I64; dtype++) {
        _Alignas(8) char data[16];
        memset(data, 0x55, sizeof data);
        ref_store(data, dtype, 1, dtype == ATTN_U8 ? 200 : dtype == ATTN_BOOL ? 1 : -100);
        assert_true(ref_load(data, dtype, 1) == (dtype == ATTN_U8 ? 200 : dtype == ATTN_BOOL ? 1 : -100));
        assert_int_equal(data[0], 0x55);
    }
}

static void reserved_words_must_be_zero(void **state) {
    (void)state;
    uint64_t reserved[32] = { 0 };
    assert_ok(attn_check_reserved("attn_softmax_args", reserved, 32));
    reserved[31] = 1;
    assert_refused(attn_check_reserved("attn_softmax_args", reserved, 32), ATTN_UNSUPPORTED, "attn_softmax_args");
}

static void shapes_are_written_out_whole(void **state) {
    (void)state;
    char text[ATTN_SHAPE_TEXT];
    attn_tensor t = { .rank = ATTN_MAX_RANK };
    for (int i = 0; i < ATTN_MAX_RANK; i++) t.shape[i] = INT64_MIN;
    assert_int_equal(strlen(attn_shape_text(&t, text)), 6 * 20 + 5 * 2 + 2); /* the longest there is */
    t = floats(2, (int64_t[]){ 3, 4 });
    assert_string_equal(attn_shape_text(&t, text), "[3, 4]");
    t.rank = 0;
    assert_string_equal(attn_shape_text(&t, text), "[]");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dense_is_row_major),
        cmocka_unit_test(both_layouts_are_batch_heads_length_dim),
        cmocka_unit_test(axis_last_moves_one_axis_and_keeps_the_order_of_the_others),
        cmocka_unit_test(an_axis_that_is_not_there_gives_a_view_that_every_check_refuses),
        cmocka_unit_test(ranks_and_dtypes_are_checked),
        cmocka_unit_test(extents_strides_and_spans_that_overflow_are_refused),
        cmocka_unit_test(data_is_there_and_aligned_unless_an_extent_is_0),
        cmocka_unit_test(an_output_may_not_repeat_its_elements),
        cmocka_unit_test(broadcasting_is_numpys),
        cmocka_unit_test(rows_begin_where_row_major_order_says),
        cmocka_unit_test(blocks_of_rows_meet_every_row_once),
        cmocka_unit_test(dense_rows_are_one_run),
        cmocka_unit_test(integers_are_read_whatever_their_size),
        cmocka_unit_test(elements_of_every_type_are_stored_and_read),
        cmocka_unit_test(reserved_words_must_be_zero),
        cmocka_unit_test(shapes_are_written_out_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
