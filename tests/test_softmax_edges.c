/* SPDX-License-Identifier: Apache-2.0 */
/* Softmax's edges: masked and fully masked rows, NaN and infinities, empty shapes, and everything that is refused before anything
 * is written. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/tensors.h"

static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_BF16, ATTN_F16 };
static const int32_t ops[] = { ATTN_SOFTMAX, ATTN_LOG_SOFTMAX, ATTN_SOFTMIN, ATTN_SPARSEMAX, ATTN_ENTMAX15, ATTN_ENTMAX };
enum { N_OPS = sizeof ops / sizeof *ops };
static const int64_t lengths[] = { 1, 2, 9, 16, 33, 130, 700 };
enum { N_LENGTHS = sizeof lengths / sizeof *lengths };

/* Every dtype, operation and length, rows dense and along another axis, in place or not. */
typedef void (*row_test)(int32_t op, attn_tensor x, attn_tensor y);

static void for_every_kind_of_row(row_test test) {
    for (size_t d = 0; d < 4; d++)
        for (size_t o = 0; o < N_OPS; o++)
            for (size_t l = 0; l < N_LENGTHS; l++)
                for (int way = 0; way < 4; way++) {
                    const int64_t shape[] = { 3, lengths[l] };
                    const int order[] = { way & 1, 1 - (way & 1) };
                    attn_tensor x = tensor_in_order(dtypes[d], 2, shape, order, 0);
                    attn_tensor y = way & 2 ? x : tensor_in_order(dtypes[d], 2, shape, order, 0);
                    fill(x, 0.5);
                    test(ops[o], x, y);
                    free_blocks(NULL);
                }
}

static double sign_of(int32_t op) { return op == ATTN_SOFTMIN ? -1 : 1; }
static double masked_result(int32_t op) { return op == ATTN_LOG_SOFTMAX ? -INFINITY : 0; }

/* The middle row of three is the special one; the others must be as they always are: all equal. */
static void run(attn_softmax_args a) {
    int64_t n = a.x.shape[1];
    if (a.op == ATTN_ENTMAX) a.alpha = 1.25;
    assert_ok(attn_softmax(&a, NULL));
    for (int64_t r = 0; r < 3; r += 2)
        for (int64_t i = 0; i < n; i++) {
            double expected = a.op == ATTN_LOG_SOFTMAX ? -log((double)n) : 1 / (double)n;
            assert_true(fabs(get(a.y, r * n + i) - expected) <= 0.01 * fabs(expected));
        }
}

static void check_length_one(int32_t op, attn_tensor x, attn_tensor y) {
    if (x.shape[1] != 1) return;
    put(x, 1, -123);
    run((attn_softmax_args){ .op = op, .x = x, .y = y });
    assert_true(get(y, 1) == (op == ATTN_LOG_SOFTMAX ? 0 : 1));
}

static void softmax_over_an_axis_of_length_1_is_1(void **state) {
    (void)state;
    for_every_kind_of_row(check_length_one);
}

static void check_equal(int32_t op, attn_tensor x, attn_tensor y) {
    int64_t n = x.shape[1];
    for (int64_t i = 0; i < n; i++) put(x, n + i, -60000);
    run((attn_softmax_args){ .op = op, .x = x, .y = y });
    for (int64_t i = 0; i < n; i++) assert_true(get(y, n + i) == get(y, n));
    assert_true(get(y, 0) == get(y, n));
}

static void equal_scores_share_equally_however_large(void **state) {
    (void)state;
    for_every_kind_of_row(check_equal);
}

static void check_masked(int32_t op, attn_tensor x, attn_tensor y) {
    int64_t n = x.shape[1];
    if (n < 2) return;
    attn_tensor mask = tensor2(ATTN_BOOL, 3, n);
    fill(mask, 1);
    for (int64_t i = 1; i < n; i += 2) { /* what is hidden may be anything */
        put(mask, n + i, 0);
        put(x, n + i, i % 3 == 0 ? NAN : i % 3 == 1 ? INFINITY : -INFINITY);
    }
    run((attn_softmax_args){ .op = op, .x = x, .y = y, .mask = mask });
    double live = (double)((n + 1) / 2), expected = op == ATTN_LOG_SOFTMAX ? -log(live) : 1 / live;
    for (int64_t i = 0; i < n; i++)
        if (i % 2)
            assert_true(get(y, n + i) == masked_result(op));
        else
            assert_true(fabs(get(y, n + i) - expected) <= 0.01 * fabs(expected));
}

static void masked_entries_give_0_and_leak_nothing(void **state) {
    (void)state;
    for_every_kind_of_row(check_masked);
}

static void check_infinite_bias(int32_t op, attn_tensor x, attn_tensor y) {
    int64_t n = x.shape[1];
    attn_tensor bias = tensor2(x.dtype, 3, n);
    fill(bias, 0);
    put(bias, n, -sign_of(op) * INFINITY);
    run((attn_softmax_args){ .op = op, .x = x, .y = y, .bias = bias });
    assert_true(get(y, n) == masked_result(op));
    if (n > 1) assert_true(isfinite(get(y, n + 1)));
}

static void a_score_of_minus_infinity_masks_and_of_plus_infinity_in_softmin(void **state) {
    (void)state;
    for_every_kind_of_row(check_infinite_bias);
}

static void check_dead_by_score(int32_t op, attn_tensor x, attn_tensor y) {
    int64_t n = x.shape[1];
    for (int64_t i = 0; i < n; i++) put(x, n + i, -sign_of(op) * INFINITY);
    run((attn_softmax_args){ .op = op, .x = x, .y = y });
    for (int64_t i = 0; i < n; i++) assert_true(get(y, n + i) == masked_result(op));
}

static void check_dead_by_mask(int32_t op, attn_tensor x, attn_tensor y) {
    int64_t n = x.shape[1];
    attn_tensor mask = tensor2(ATTN_BOOL, 3, 1);
    fill(mask, 1);
    put(mask, 1, 0);
    put(x, n, NAN);
    run((attn_softmax_args){ .op = op, .x = x, .y = y, .mask = mask });
    for (int64_t i = 0; i < n; i++) assert_true(get(y, n + i) == masked_result(op));
}

static void a_row_without_live_entries_gives_0_or_minus_infinity(void **state) {
    (void)state;
    for_every_kind_of_row(check_dead_by_score);
    for_every_kind_of_row(check_dead_by_mask);
}

/* The special entry first, in the middle and last; a masked one beside it keeps giving 0. */
static void check_special(int32_t op, attn_tensor x, attn_tensor y, double special) {
    int64_t n = x.shape[1];
    attn_tensor keep = dense_copy(x, x.dtype);
    for (int64_t at = 0; at<n; at += n> 2 ? (n - 1) / 2 : 1) {
        copy_values(keep, x);
        put(x, n + at, special);
        int64_t masked = n > 1 ? (at + 1) % n : -1;
        if (masked >= 0) put(x, n + masked, -sign_of(op) * INFINITY);
        run((attn_softmax_args){ .op = op, .x = x, .y = y });
        for (int64_t i = 0; i < n; i++)
            if (i == masked)
                assert_true(get(y, n + i) == masked_result(op));
            else
                assert_true(isnan(get(y, n + i)));
    }
}

static void check_nan(int32_t op, attn_tensor x, attn_tensor y) { check_special(op, x, y, NAN); }
static void check_infinite(int32_t op, attn_tensor x, attn_tensor y) { check_special(op, x, y, sign_of(op) * INFINITY); }

static void a_live_nan_is_nan_in_every_live_entry_of_its_row_alone(void **state) {
    (void)state;
    for_every_kind_of_row(check_nan);
}

static void a_live_plus_infinity_is_nan_in_every_live_entry(void **state) {
    (void)state;
    for_every_kind_of_row(check_infinite);
}

static void finite_scores_that_overflow_their_sum_are_no_nan(void **state) {
    (void)state;
    attn_tensor x = tensor1(ATTN_F32, 200), y = tensor1(ATTN_F32, 200);
    for (int64_t i = 0; i < 200; i++) put(x, i, i % 40 < 20 ? -3e38 : 3e38);
    assert_ok(attn_softmax(&(attn_softmax_args){ .x = x, .y = y }, NULL));
    for (int64_t i = 0; i < 200; i++) assert_true(get(y, i) == (i % 40 < 20 ? 0 : (double)0.01f));
}

static void denormal_scores_count(void **state) {
    (void)state;
    attn_tensor x = values1(ATTN_F32, 3, (double[]){ 1e-44, 0, -1e-44 }), y = tensor1(ATTN_F32, 3);
    assert_ok(attn_softmax(&(attn_softmax_args){ .x = x, .y = y, .scale = 1e38 }, NULL));
    for (int64_t i = 0; i < 3; i++) assert_true(fabs(get(y, i) - 1.0 / 3) < 1e-6);
    assert_true(get(y, 0) > get(y, 1) && get(y, 1) > get(y, 2));
}

static void logsumexp_of_special_rows(void **state) {
    (void)state;
    for (size_t d = 0; d < 4; d++)
        for (size_t l = 0; l < N_LENGTHS; l++) {
            const int64_t n = lengths[l];
            attn_tensor x = tensor2(dtypes[d], 5, n), y = tensor1(dtypes[d], 5);
            fill(x, 0.5);
            for (int64_t i = 0; i < n; i++) put(x, n + i, -INFINITY);
            put(x, 2 * n + n / 2, INFINITY);
            put(x, 3 * n + n / 2, NAN);
            put(x, 4 * n, INFINITY);
            put(x, 4 * n + n - 1, NAN);
            assert_ok(attn_logsumexp(&(attn_softmax_args){ .x = x, .y = y }, NULL));
            assert_true(isfinite(get(y, 0)));
            assert_true(get(y, 1) == -INFINITY);
            assert_true(get(y, 2) == INFINITY);
            assert_true(isnan(get(y, 3)));
            assert_true(isnan(get(y, 4)));
            free_blocks(NULL);
        }
}

static void empty_shapes_are_answered(void **state) {
    (void)state;
    attn_tensor none = attn_dense(ATTN_F32, NULL, 2, (int64_t[]){ 0, 5 }),
                short_rows = attn_dense(ATTN_F32, NULL, 2, (int64_t[]){ 3, 0 });
    attn_tensor lse = tensor1(ATTN_F32, 3), of_none = attn_dense(ATTN_F32, NULL, 1, (int64_t[]){ 0 });
    assert_ok(attn_softmax(&(attn_softmax_args){ .x = none, .y = none }, NULL));
    assert_ok(attn_softmax(&(attn_softmax_args){ .x = short_rows, .y = short_rows }, NULL));
    assert_ok(attn_logsumexp(&(attn_softmax_args){ .x = none, .y = of_none }, NULL));
    assert_ok(attn_logsumexp(&(attn_softmax_args){ .x = short_rows, .y = lse }, NULL));
    for (int64_t i = 0; i < 3; i++) assert_true(get(lse, i) == -INFINITY);
    assert_ok(attn_softmax_backward(&(attn_softmax_args){ .y = none }, &(attn_softmax_grads){ .dy = none, .dx = none }, NULL));
}

static void the_lse_of_one_row_may_be_a_scalar_or_one_element(void **state) {
    (void)state;
    attn_tensor x = values1(ATTN_F64, 3, (double[]){ 1, 2, 3 }), one = tensor1(ATTN_F64, 1), scalar = one,
                single = tensor1(ATTN_F32, 1);
    assert_ok(attn_logsumexp(&(attn_softmax_args){ .x = x, .y = one }, NULL));
    double lse = get(one, 0);
    scalar.rank = 0;
    fill(one, NAN);
    assert_ok(attn_logsumexp(&(attn_softmax_args){ .x = x, .y = scalar }, NULL));
    assert_true(get(one, 0) == lse);
    assert_ok(attn_logsumexp(&(attn_softmax_args){ .x = x, .y = single }, NULL));
    assert_true(get(single, 0) == (double)(float)lse);
}

/* ---- refusals ---------------------------------------------------------------------------------------------- */

static attn_softmax_args good(void) {
    attn_softmax_args a = { .x = tensor2(ATTN_F32, 3, 4), .y = tensor2(ATTN_F32, 3, 4) };
    fill(a.x, 1);
    return a;
}

/* Each option belongs to the operations that read it. */
static void options_of_other_operations_are_refused(void **state) {
    (void)state;
    attn_softmax_args a = good(), b;
    attn_tensor y = a.y;
    for (int32_t op = ATTN_SOFTMAX; op <= ATTN_GUMBEL_SOFTMAX; op++) {
        if (op != ATTN_ENTMAX)
            for (int i = 0; i < 3; i++) {
                b = a, b.op = op, b.alpha = i == 0 ? 1.5 : i == 1 ? NAN : -1;
                assert_refused(attn_softmax(&b, NULL), ATTN_BAD_ARGUMENT, "it belongs to entmax alone, not to");
            }
        if (op == ATTN_GUMBEL_SOFTMAX) continue;
        b = a, b.op = op, b.temperature = 2;
        assert_refused(attn_softmax(&b, NULL), ATTN_BAD_ARGUMENT, "temperature is 2: it belongs to gumbel-softmax alone");
        b.temperature = NAN;
        assert_refused(attn_softmax(&b, NULL), ATTN_BAD_ARGUMENT, "temperature");
        b = a, b.op = op, b.hard = 1;
        assert_refused(attn_softmax(&b, NULL), ATTN_BAD_ARGUMENT, "hard is 1: it belongs to gumbel-softmax alone");
        if (op <= ATTN_SOFTMIN) continue;
        b = a, b.op = op;
        assert_refused(attn_logsumexp(&b, NULL), ATTN_BAD_ARGUMENT, "which has no logsumexp");
        assert_refused(attn_logsumexp_backward(&b, &(attn_softmax_grads){ 0 }, NULL), ATTN_BAD_ARGUMENT, "no logsumexp");
    }
    assert_untouched(y);
}

static void an_alpha_below_1_and_a_temperature_not_above_0_are_refused(void **state) {
    (void)state;
    static const double alphas[] = { 0.999999, 0.5, -1.5, NAN, INFINITY, -INFINITY };
    static const double temperatures[] = { -1, -1e-300, NAN, INFINITY, -INFINITY };
    attn_softmax_args a = good();
    attn_softmax_grads g = { .dy = a.x, .dx = a.y };
    a.op = ATTN_ENTMAX;
    for (int i = 0; i < 6; i++) {
        a.alpha = alphas[i];
        assert_refused(attn_softmax(&a, NULL), ATTN_BAD_ARGUMENT, "a finite number from 1 (softmax) on");
        assert_refused(attn_softmax_backward(&a, &g, NULL), ATTN_BAD_ARGUMENT, "a finite number from 1 (softmax) on");
    }
    a.op = ATTN_GUMBEL_SOFTMAX, a.alpha = 0;
    for (int i = 0; i < 5; i++) {
        a.temperature = temperatures[i];
        assert_refused(attn_softmax(&a, NULL), ATTN_BAD_ARGUMENT, "a finite number above 0");
        assert_refused(attn_softmax_backward(&a, &g, NULL), ATTN_BAD_ARGUMENT, "a finite number above 0");
    }
    assert_untouched(a.y);
}

static void a_dalpha_is_one_number_of_entmax(void **state) {
    (void)state;
    attn_softmax_args a = good(), b = a;
    attn_softmax_grads g = { .dy = a.x, .dx = tensor2(ATTN_F32, 3, 4), .dalpha = tensor1(ATTN_F32, 1) }, h = g;
    fill(a.y, 0.25);
    b.op = ATTN_ENTMAX15;
    assert_refused(attn_softmax_backward(&b, &g, NULL), ATTN_BAD_ARGUMENT, "dalpha is asked for; only entmax has an alpha");
    b.op = ATTN_ENTMAX;
    h.dalpha = tensor1(ATTN_F32, 2);
    assert_refused(attn_softmax_backward(&b, &h, NULL), ATTN_BAD_SHAPE, "dalpha has 2 elements");
    h.dalpha = tensor2(ATTN_F32, 1, 1);
    assert_refused(attn_softmax_backward(&b, &h, NULL), ATTN_BAD_SHAPE, "dalpha has rank 2");
    h.dalpha = tensor1(ATTN_BF16, 1);
    assert_refused(attn_softmax_backward(&b, &h, NULL), ATTN_UNSUPPORTED, "dalpha is bf16");
    h.dalpha = (attn_tensor){ .dtype = ATTN_F64, .rank = 1, .shape = { 1 }, .stride = { 1 } };
    assert_refused(attn_softmax_backward(&b, &h, NULL), ATTN_BAD_ARGUMENT, "dalpha has no data");
    assert_untouched(g.dx);
    assert_untouched(g.dalpha);
}

static void bad_arguments_are_refused_before_anything_is_written(void **state) {
    (void)state;
    attn_softmax_args a = good(), b = a;
    attn_tensor y = a.y;
    assert_refused(attn_softmax(NULL, NULL), ATTN_BAD_ARGUMENT, "no arguments");
    b.op = -1;
    assert_refused(attn_softmax(&b, NULL), ATTN_BAD_ARGUMENT, "op is -1");
    b = a, b.op = 99;
    assert_refused(attn_softmax(&b, NULL), ATTN_BAD_ARGUMENT, "op is 99");
    b = a, b.flags = 0x80;
    assert_refused(attn_softmax(&b, NULL), ATTN_BAD_ARGUMENT, "flags");
    b = a, b.scale = NAN;
    assert_refused(attn_softmax(&b, NULL), ATTN_BAD_ARGUMENT, "scale");
    b = a, b.scale = -INFINITY;
    assert_refused(attn_softmax(&b, NULL), ATTN_BAD_ARGUMENT, "scale");
    b = a, b.reserved[31] = 1;
    assert_refused(attn_softmax(&b, NULL), ATTN_UNSUPPORTED, "reserved");
    b = a, b.x.dtype = ATTN_I32;
    assert_refused(attn_softmax(&b, NULL), ATTN_UNSUPPORTED, "x is i32");
    b = a, b.x.rank = 0;
    assert_refused(attn_softmax(&b, NULL), ATTN_BAD_SHAPE, "x has rank 0");
    b = a, b.x.data = NULL;
    assert_refused(attn_softmax(&b, NULL), ATTN_BAD_ARGUMENT, "x has no data");
    b = a, b.y.data = NULL;
    assert_refused(attn_softmax(&b, NULL), ATTN_BAD_ARGUMENT, "y has no data");
    b = a, b.y.shape[1] = 3;
    assert_refused(attn_softmax(&b, NULL), ATTN_BAD_SHAPE, "y has shape [3, 3], x asks for [3, 4]");
    b = a, b.y.stride[0] = 0;
    assert_refused(attn_softmax(&b, NULL), ATTN_BAD_ARGUMENT, "stride 0");
    b = a, b.y.dtype = ATTN_BF16;
    assert_refused(attn_softmax(&b, NULL), ATTN_UNSUPPORTED, "y is bf16");
    b = a, b.mask = tensor1(ATTN_F32, 4);
    assert_refused(attn_softmax(&b, NULL), ATTN_BAD_ARGUMENT, "mask is f32");
    b = a, b.mask = tensor1(ATTN_BOOL, 3);
    assert_refused(attn_softmax(&b, NULL), ATTN_BAD_SHAPE, "does not broadcast");
    b = a, b.bias = tensor2(ATTN_F32, 4, 3);
    assert_refused(attn_softmax(&b, NULL), ATTN_BAD_SHAPE, "does not broadcast");
    b = a, b.bias = tensor1(ATTN_F64, 4);
    assert_refused(attn_softmax(&b, NULL), ATTN_UNSUPPORTED, "bias is f64");
    attn_exec exec = { .n_threads = 4 };
    assert_refused(attn_softmax(&a, &exec), ATTN_BAD_ARGUMENT, "parallel_for");
    assert_untouched(y);
}

static void bad_gradients_are_refused_before_anything_is_written(void **state) {
    (void)state;
    attn_softmax_args a = good();
    attn_softmax_grads g = { .dy = tensor2(ATTN_F32, 3, 4), .dx = tensor2(ATTN_F32, 3, 4) }, h = g;
    attn_tensor row = tensor1(ATTN_F32, 3);
    fill(a.y, 0.25), fill(g.dy, 1), fill(row, 1);
    assert_refused(attn_softmax_backward(&a, NULL, NULL), ATTN_BAD_ARGUMENT, "no gradients");
    h.dy.rank = 1;
    assert_refused(attn_softmax_backward(&a, &h, NULL), ATTN_BAD_SHAPE, "dy");
    h = g, h.dx.shape[0] = 2;
    assert_refused(attn_softmax_backward(&a, &h, NULL), ATTN_BAD_SHAPE, "dx");
    h = g, h.dx.stride[1] = 0;
    assert_refused(attn_softmax_backward(&a, &h, NULL), ATTN_BAD_ARGUMENT, "dx");
    h = g, h.dalpha = row;
    assert_refused(attn_softmax_backward(&a, &h, NULL), ATTN_BAD_ARGUMENT, "dalpha");
    h = g, h.reserved[0] = 1;
    assert_refused(attn_softmax_backward(&a, &h, NULL), ATTN_UNSUPPORTED, "reserved");
    h = g;
    assert_refused(attn_logsumexp_backward(&a, &h, NULL), ATTN_BAD_SHAPE, "dy");
    attn_softmax_args b = a;
    b.y.rank = 0, b.y.data = NULL;
    assert_refused(attn_softmax_backward(&b, &g, NULL), ATTN_BAD_SHAPE, "y has rank 0");
    b = a, b.x = tensor1(ATTN_F32, 4), fill(b.x, 1), b.y = (attn_tensor){ 0 };
    assert_refused(attn_logsumexp(&b, NULL), ATTN_BAD_ARGUMENT, "y is missing");
    assert_untouched(g.dx);
}

static void hostile_extents_are_refused(void **state) {
    (void)state;
    attn_softmax_args a = good(), b = a;
    b.x.shape[0] = b.y.shape[0] = INT64_MAX;
    assert_refused(attn_softmax(&b, NULL), ATTN_BAD_SHAPE, "too large");
    b = a, b.x.shape[0] = b.y.shape[0] = -1;
    assert_refused(attn_softmax(&b, NULL), ATTN_BAD_SHAPE, "negative");
    b = a, b.x.stride[0] = INT64_MAX / 2;
    assert_refused(attn_softmax(&b, NULL), ATTN_BAD_SHAPE, "too large");
    b = a, b.x.rank = b.y.rank = 7;
    assert_refused(attn_softmax(&b, NULL), ATTN_BAD_SHAPE, "rank 7");
    b = a, b.x.data = (char *)a.x.data - 1;
    assert_refused(attn_softmax(&b, NULL), ATTN_BAD_ARGUMENT, "aligned");
    assert_untouched(a.y);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(softmax_over_an_axis_of_length_1_is_1, free_blocks),
        cmocka_unit_test_teardown(equal_scores_share_equally_however_large, free_blocks),
        cmocka_unit_test_teardown(masked_entries_give_0_and_leak_nothing, free_blocks),
        cmocka_unit_test_teardown(a_score_of_minus_infinity_masks_and_of_plus_infinity_in_softmin, free_blocks),
        cmocka_unit_test_teardown(a_row_without_live_entries_gives_0_or_minus_infinity, free_blocks),
        cmocka_unit_test_teardown(a_live_nan_is_nan_in_every_live_entry_of_its_row_alone, free_blocks),
        cmocka_unit_test_teardown(a_live_plus_infinity_is_nan_in_every_live_entry, free_blocks),
        cmocka_unit_test_teardown(finite_scores_that_overflow_their_sum_are_no_nan, free_blocks),
        cmocka_unit_test_teardown(denormal_scores_count, free_blocks),
        cmocka_unit_test_teardown(logsumexp_of_special_rows, free_blocks),
        cmocka_unit_test_teardown(empty_shapes_are_answered, free_blocks),
        cmocka_unit_test_teardown(the_lse_of_one_row_may_be_a_scalar_or_one_element, free_blocks),
        cmocka_unit_test_teardown(options_of_other_operations_are_refused, free_blocks),
        cmocka_unit_test_teardown(an_alpha_below_1_and_a_temperature_not_above_0_are_refused, free_blocks),
        cmocka_unit_test_teardown(a_dalpha_is_one_number_of_entmax, free_blocks),
        cmocka_unit_test_teardown(bad_arguments_are_refused_before_anything_is_written, free_blocks),
        cmocka_unit_test_teardown(bad_gradients_are_refused_before_anything_is_written, free_blocks),
        cmocka_unit_test_teardown(hostile_extents_are_refused, free_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
