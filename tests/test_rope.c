/* SPDX-License-Identifier: Apache-2.0 */
/* Rotary position embedding: values, its inverse, layouts, positions, partial rotation, bits, refusals. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/tensors.h"
#include "tests/ops_cases.h"

static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_BF16, ATTN_F16 };

/* A problem of rank 4 (batch, heads, length, dim), all tensors dense. */
static attn_rope_args problem(int32_t dtype, const int64_t *shape, int64_t rotary_dim, bool table, uint64_t *seed) {
    int64_t pairs = (rotary_dim ? rotary_dim : shape[3]) / 2, n = 2 * shape[2] + 1;
    attn_rope_args a = { .flags = uniform(seed) < 0.5 ? ATTN_ROPE_INTERLEAVED : 0, .rotary_dim = rotary_dim };
    a.x = tensor_of(dtype, 4, shape), a.y = tensor_of(dtype, 4, shape);
    const int64_t angles[] = { shape[0], shape[2], pairs };
    a.cos = table ? tensor2(dtype, n, pairs) : tensor_of(dtype, 3, angles);
    a.sin = table ? tensor2(dtype, n, pairs) : tensor_of(dtype, 3, angles);
    fill_normal(a.x, 1, seed);
    for (int64_t i = 0; i < attn_count(&a.cos); i++) {
        double angle = 10 * normal(seed);
        put(a.cos, i, cos(angle)), put(a.sin, i, sin(angle));
    }
    if (table) {
        a.positions = tensor2(uniform(seed) < 0.5 ? ATTN_I32 : ATTN_I64, shape[0], shape[2]);
        for (int64_t i = 0; i < shape[0] * shape[2]; i++) put(a.positions, i, (double)between(seed, 0, n - 1));
    }
    return a;
}

/* The formula of element (b, h, i, d), and the size of its terms. */
static double expected(const attn_rope_args *a, attn_tensor x, bool back, int64_t b, int64_t h, int64_t i, int64_t d,
                       double *size) {
    const int64_t *shape = x.shape;
    int64_t pairs = (a->rotary_dim ? a->rotary_dim : shape[3]) / 2, row = ((b * shape[1] + h) * shape[2] + i) * shape[3];
    *size = 0;
    if (d >= 2 * pairs) return get(x, row + d);
    bool interleaved = a->flags & ATTN_ROPE_INTERLEAVED, second = interleaved ? d % 2 : d >= pairs;
    int64_t pair = interleaved ? d / 2 : d % pairs, other = interleaved ? d ^ 1 : second ? d - pairs : d + pairs;
    int64_t place = b * shape[2] + i;
    if (a->positions.rank) place = (int64_t)get(a->positions, place);
    double c = get(a->cos, place * pairs + pair) * get(x, row + d), s = get(a->sin, place * pairs + pair) * get(x, row + other);
    *size = fabs(c) + fabs(s);
    return second != back ? c + s : c - s;
}

static void assert_turned(const attn_rope_args *a, attn_tensor x, attn_tensor y, bool back) {
    const int64_t *shape = x.shape;
    bool half = x.dtype == ATTN_BF16 || x.dtype == ATTN_F16;
    for (int64_t n = 0; n < attn_count(&x); n++) {
        int64_t row = n / shape[3];
        double size, right = expected(a, x, back, row / shape[2] / shape[1], row / shape[2] % shape[1], row % shape[2],
                                      n % shape[3], &size);
        double bound = size == 0 ? 0 : half ? rounding(x.dtype) * fabs(right) + 0x1p-25 : 2 * rounding(x.dtype) * size;
        assert_within("y", n, get(y, n), right, bound);
    }
}

static void values_are_those_of_the_formula_within_the_published_bound(void **state) {
    (void)state;
    uint64_t seed = 1;
    for (size_t d = 0; d < 4; d++)
        for (int round = 0; round < 40; round++) {
            const int64_t dim = 2 * any_length(&seed),
                          shape[] = { between(&seed, 1, 2), between(&seed, 1, 3), between(&seed, 1, 5), dim };
            attn_rope_args a = problem(dtypes[d], shape, round % 2 ? 2 * between(&seed, 1, dim / 2) : 0, round % 3, &seed);
            assert_ok(attn_rope(&a, NULL));
            assert_turned(&a, a.x, a.y, false);
            attn_rope_grads g = { .dy = a.x, .dx = a.y };
            assert_ok(attn_rope_backward(&a, &g, NULL));
            assert_turned(&a, a.x, a.y, true);
            free_blocks(NULL);
        }
}

static void more_pairs_than_a_piece_holds_turn_the_same(void **state) {
    (void)state;
    uint64_t seed = 2;
    for (size_t d = 0; d < 4; d++)
        for (int round = 0; round < 4; round++) {
            attn_rope_args a = problem(dtypes[d], (int64_t[]){ 1, 2, 3, 1300 }, round % 2 ? 1042 : 0, true, &seed);
            assert_ok(attn_rope(&a, NULL));
            assert_turned(&a, a.x, a.y, false);
        }
}

static void gradients_are_those_of_central_differences(void **state) {
    (void)state;
    uint64_t seed = 3;
    for (int round = 0; round < 4; round++) {
        attn_rope_args a = problem(ATTN_F64, (int64_t[]){ 2, 2, 3, 6 }, round % 2 ? 4 : 0, true, &seed);
        attn_rope_grads g = { .dy = tensor_of(ATTN_F64, 4, a.x.shape), .dx = tensor_of(ATTN_F64, 4, a.x.shape) };
        fill_normal(g.dy, 1, &seed);
        assert_ok(attn_rope_backward(&a, &g, NULL));
        for (int64_t n = 0; n < attn_count(&a.x); n++) {
            const double x = get(a.x, n), h = 1e-4;
            double loss[2] = { 0, 0 };
            for (int side = 0; side < 2; side++) {
                put(a.x, n, side ? x - h : x + h);
                assert_ok(attn_rope(&a, NULL));
                for (int64_t m = 0; m < attn_count(&a.y); m++) loss[side] += get(g.dy, m) * get(a.y, m);
            }
            put(a.x, n, x);
            assert_within("dx", n, get(g.dx, n), (loss[0] - loss[1]) / (2 * h), 1e-9);
        }
    }
}

static void turning_back_undoes_turning(void **state) {
    (void)state;
    uint64_t seed = 4;
    attn_rope_args a = problem(ATTN_F64, (int64_t[]){ 2, 3, 4, 10 }, 6, false, &seed);
    attn_rope_grads g = { .dy = a.y, .dx = a.y };
    assert_ok(attn_rope(&a, NULL));
    assert_ok(attn_rope_backward(&a, &g, NULL));
    for (int64_t n = 0; n < attn_count(&a.x); n++) assert_within("x", n, get(a.y, n), get(a.x, n), 1e-14);
}

static void heads_packed_in_columns_are_those_of_rank_4(void **state) {
    (void)state;
    uint64_t seed = 5;
    for (size_t d = 0; d < 4; d++) {
        attn_rope_args a = problem(dtypes[d], (int64_t[]){ 2, 3, 5, 8 }, d % 2 ? 4 : 0, d / 2 % 2, &seed), packed = a;
        packed.heads = 3;
        packed.x = packed.y = tensor_of(dtypes[d], 3, (int64_t[]){ 2, 5, 24 });
        attn_tensor view = packed.x;
        view.rank = 4;
        memcpy(view.shape, a.x.shape, sizeof view.shape);
        view.stride[0] = 120, view.stride[1] = 8, view.stride[2] = 24, view.stride[3] = 1;
        copy_values(a.x, view);
        assert_ok(attn_rope(&a, NULL));
        assert_ok(attn_rope(&packed, NULL));
        assert_same(view, a.y);
    }
}

static void strides_place_and_threads_do_not_change_a_bit(void **state) {
    (void)state;
    static const int orders[][4] = { { 0, 1, 2, 3 }, { 3, 2, 1, 0 }, { 2, 0, 3, 1 } };
    const int64_t shape[] = { 3, 5, 67, 26 };
    uint64_t seed = 6;
    for (size_t d = 0; d < 4; d++)
        for (int round = 0; round < 4; round++) {
            attn_rope_args a = problem(dtypes[d], shape, round % 2 ? 18 : 0, true, &seed);
            attn_rope_grads g = { .dy = a.x, .dx = tensor_of(dtypes[d], 4, shape) };
            assert_ok(attn_rope(&a, NULL));
            assert_ok(attn_rope_backward(&a, &g, NULL));
            for (int way = 0; way < 3; way++) {
                attn_exec exec = { 0 };
                attn_rope_args s = a;
                s.x = tensor_in_order(dtypes[d], 4, shape, orders[way], way);
                s.cos = tensor_in_order(dtypes[d], 2, a.cos.shape, (int[]){ way % 2, 1 - way % 2 }, 1);
                copy_values(a.x, s.x), copy_values(a.cos, s.cos);
                s.y = way == 1 ? tensor_in_order(dtypes[d], 4, shape, orders[0], 0) : s.x; /* or in place */
                attn_rope_grads h = { .dy = tensor_in_order(dtypes[d], 4, shape, orders[2 - way], 1) };
                h.dx = h.dy;
                copy_values(a.x, h.dy);
                assert_ok(attn_pool_open(&exec, way + 1));
                assert_ok(attn_rope(&s, &exec));
                assert_ok(attn_rope_backward(&s, &h, &exec));
                attn_pool_close(&exec);
                assert_same(s.y, a.y);
                assert_same(h.dx, g.dx);
            }
            free_blocks(NULL);
        }
}

static void a_nan_stays_in_its_pair(void **state) {
    (void)state;
    uint64_t seed = 7;
    for (size_t d = 0; d < 4; d++) {
        attn_rope_args a = problem(dtypes[d], (int64_t[]){ 1, 1, 2, 12 }, 8, true, &seed);
        a.flags = 0;
        put(a.x, 1, NAN), put(a.x, 9, INFINITY);
        assert_ok(attn_rope(&a, NULL));
        for (int64_t n = 0; n < 24; n++) assert_true(isnan(get(a.y, n)) == (n == 1 || n == 5));
        assert_true(get(a.y, 9) == INFINITY);
        free_blocks(NULL);
    }
}

static void empty_tensors_and_f32_angles_are_taken(void **state) {
    (void)state;
    uint64_t seed = 8;
    attn_rope_args a = problem(ATTN_F64, (int64_t[]){ 1, 2, 3, 6 }, 0, true, &seed), b = a;
    b.cos = dense_copy(a.cos, ATTN_F32), b.sin = dense_copy(a.sin, ATTN_F32);
    copy_values(b.cos, a.cos), copy_values(b.sin, a.sin);
    b.y = tensor_of(ATTN_F64, 4, a.x.shape);
    assert_ok(attn_rope(&a, NULL));
    assert_ok(attn_rope(&b, NULL));
    for (int64_t n = 0; n < 36; n++) assert_within("y", n, get(b.y, n), get(a.y, n), 1e-14);
    attn_tensor none = attn_dense(ATTN_F32, NULL, 4, (int64_t[]){ 2, 3, 0, 4 });
    attn_tensor angles = attn_dense(ATTN_F32, NULL, 3, (int64_t[]){ 2, 0, 2 });
    assert_ok(attn_rope(&(attn_rope_args){ .x = none, .y = none, .cos = angles, .sin = angles }, NULL));
    const int64_t far = (int64_t)1 << 60;
    attn_tensor huge = { .dtype = ATTN_F32, .rank = 3, .shape = { far, 0, far }, .stride = { far, far, far } };
    attn_tensor places = { .dtype = ATTN_I32, .rank = 2, .shape = { far, 0 } };
    angles = (attn_tensor){ .dtype = ATTN_F32, .rank = 2, .shape = { 0, far / 4 } };
    assert_ok(attn_rope(&(attn_rope_args){ .x = huge, .y = huge, .cos = angles, .sin = angles, .positions = places, .heads = 2 },
                        NULL));
}

static void bad_arguments_are_refused_before_anything_is_written(void **state) {
    (void)state;
    uint64_t seed = 9;
    const attn_rope_args a = problem(ATTN_F32, (int64_t[]){ 2, 3, 5, 8 }, 0, true, &seed);
    attn_rope_args b;
    attn_rope_grads g = { .dy = a.x, .dx = a.y };
    assert_refused(attn_rope(NULL, NULL), ATTN_BAD_ARGUMENT, "no arguments");
    assert_refused(attn_rope_backward(&a, NULL, NULL), ATTN_BAD_ARGUMENT, "no gradients");
    b = a, b.flags = 8;
    assert_refused(attn_rope(&b, NULL), ATTN_BAD_ARGUMENT, "flags is 0x8");
    b = a, b.reserved[15] = 1;
    assert_refused(attn_rope(&b, NULL), ATTN_UNSUPPORTED, "reserved");
    b = a, b.heads = 3;
    assert_refused(attn_rope(&b, NULL), ATTN_BAD_ARGUMENT, "heads is 3");
    b = a, b.x = b.y = attn_dense(ATTN_F32, a.y.data, 3, (int64_t[]){ 2, 5, 24 });
    assert_refused(attn_rope(&b, NULL), ATTN_BAD_ARGUMENT, "heads is 0");
    b.heads = 7;
    assert_refused(attn_rope(&b, NULL), ATTN_BAD_SHAPE, "7 heads");
    b.heads = 8;
    assert_refused(attn_rope(&b, NULL), ATTN_BAD_SHAPE, "the heads' size is 3");
    b = a, b.rotary_dim = 3;
    assert_refused(attn_rope(&b, NULL), ATTN_BAD_ARGUMENT, "rotary_dim is 3");
    b.rotary_dim = 10;
    assert_refused(attn_rope(&b, NULL), ATTN_BAD_ARGUMENT, "rotary_dim is 10");
    b.rotary_dim = -2;
    assert_refused(attn_rope(&b, NULL), ATTN_BAD_ARGUMENT, "rotary_dim is -2");
    b = a, b.rotary_dim = 6;
    assert_refused(attn_rope(&b, NULL), ATTN_BAD_SHAPE, "cos has shape [11, 4]");
    b = a, b.sin.shape[0] = 10;
    assert_refused(attn_rope(&b, NULL), ATTN_BAD_SHAPE, "sin has shape [10, 4]");
    b = a, b.positions = (attn_tensor){ 0 };
    assert_refused(attn_rope(&b, NULL), ATTN_BAD_SHAPE, "cos has shape [11, 4]");
    b = a, b.positions.shape[1] = 4;
    assert_refused(attn_rope(&b, NULL), ATTN_BAD_SHAPE, "positions has shape [2, 4]");
    b = a, b.positions = tensor2(ATTN_F32, 2, 5), fill(b.positions, 0);
    assert_refused(attn_rope(&b, NULL), ATTN_UNSUPPORTED, "positions are f32");
    b = a, b.cos = dense_copy(a.cos, ATTN_BF16);
    assert_refused(attn_rope(&b, NULL), ATTN_UNSUPPORTED, "cos is bf16");
    b = a, b.y.stride[1] = 0;
    assert_refused(attn_rope(&b, NULL), ATTN_BAD_ARGUMENT, "stride 0");
    put(a.positions, 7, 11);
    assert_refused(attn_rope(&a, NULL), ATTN_BAD_ARGUMENT, "positions[1, 2] is 11, cos and sin have 11");
    put(a.positions, 7, -1);
    assert_refused(attn_rope_backward(&a, &g, NULL), ATTN_BAD_ARGUMENT, "positions[1, 2] is -1");
    put(a.positions, 7, 0);
    g.dx.shape[3] = 6;
    assert_refused(attn_rope_backward(&a, &g, NULL), ATTN_BAD_SHAPE, "dx");
    g.dx = a.y, g.reserved[0] = 1;
    assert_refused(attn_rope_backward(&a, &g, NULL), ATTN_UNSUPPORTED, "reserved");
    assert_untouched(a.y);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(values_are_those_of_the_formula_within_the_published_bound, free_blocks),
        cmocka_unit_test_teardown(more_pairs_than_a_piece_holds_turn_the_same, free_blocks),
        cmocka_unit_test_teardown(gradients_are_those_of_central_differences, free_blocks),
        cmocka_unit_test_teardown(turning_back_undoes_turning, free_blocks),
        cmocka_unit_test_teardown(heads_packed_in_columns_are_those_of_rank_4, free_blocks),
        cmocka_unit_test_teardown(strides_place_and_threads_do_not_change_a_bit, free_blocks),
        cmocka_unit_test_teardown(a_nan_stays_in_its_pair, free_blocks),
        cmocka_unit_test_teardown(empty_tensors_and_f32_angles_are_taken, free_blocks),
        cmocka_unit_test_teardown(bad_arguments_are_refused_before_anything_is_written, free_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
