/* SPDX-License-Identifier: Apache-2.0 */
/* Cross-entropy: its rules one by one, its bits, its refusals. Every combination of options is compared with torch in
 * test_softmax_oracle.c. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/failing_malloc.h"
#include "tests/tensors.h"

static const int64_t class_counts[] = { 1, 2, 10, 33, 257, 1100 };
enum { N_COUNTS = sizeof class_counts / sizeof *class_counts };

static attn_cross_entropy_args problem(int32_t dtype, bool soft, int64_t n, int64_t classes, uint64_t *seed) {
    attn_cross_entropy_args a = { .logits = tensor2(dtype, n, classes), .dlogits = tensor2(dtype, n, classes) };
    a.loss = tensor1(dtype, 1);
    fill_normal(a.logits, 3, seed);
    if (soft) {
        a.labels = tensor2(dtype, n, classes);
        for (int64_t i = 0; i < n * classes; i++) put(a.labels, i, uniform(seed) * 2 / (double)classes);
    } else {
        a.labels = tensor1(ATTN_I64, n);
        for (int64_t i = 0; i < n; i++) put(a.labels, i, (double)between(seed, 0, classes - 1));
    }
    return a;
}

/* Every option at once, or none. */
static attn_cross_entropy_args with_options(attn_cross_entropy_args a, uint64_t *seed) {
    a.class_weight = tensor1(a.logits.dtype, a.logits.shape[1]);
    for (int64_t c = 0; c < a.logits.shape[1]; c++) put(a.class_weight, c, 0.5 + uniform(seed));
    a.label_smoothing = 0.1;
    a.z_loss = 0.01;
    if (!attn_dtype_is_float(a.labels.dtype)) put(a.labels, 0, -100);
    return a;
}

static double loss_of(const attn_cross_entropy_args *a) {
    attn_cross_entropy_args b = *a;
    b.dlogits = (attn_tensor){ 0 };
    assert_ok(attn_cross_entropy(&b, NULL));
    double sum = 0;
    for (int64_t i = 0; i < attn_count(&a->loss); i++) sum += get(a->loss, i);
    return sum;
}

static void gradients_are_those_of_central_differences(void **state) {
    (void)state;
    uint64_t seed = 1;
    for (int soft = 0; soft < 2; soft++)
        for (int with = 0; with < 2; with++)
            for (int32_t reduction = ATTN_MEAN; reduction <= ATTN_NONE; reduction++)
                for (int64_t classes = 1; classes <= 20; classes = classes * 2 + 3) {
                    attn_cross_entropy_args a = problem(ATTN_F64, soft, 4, classes, &seed);
                    if (with) a = with_options(a, &seed);
                    a.reduction = reduction;
                    if (reduction == ATTN_NONE) a.loss = tensor1(ATTN_F64, 4);
                    assert_ok(attn_cross_entropy(&a, NULL));
                    for (int64_t i = 0; i < 4 * classes; i++) {
                        const double h = 1e-5, x = get(a.logits, i);
                        put(a.logits, i, x + h);
                        double above = loss_of(&a);
                        put(a.logits, i, x - h);
                        double slope = (above - loss_of(&a)) / (2 * h);
                        put(a.logits, i, x);
                        if (fabs(slope - get(a.dlogits, i)) > 1e-8 * (1 + fabs(slope)))
                            fail_msg("element %lld: %g, by differences %g", (long long)i, get(a.dlogits, i), slope);
                    }
                    free_blocks(NULL);
                }
}

/* The published bound of f32, relative to what is added up: sum_c |t_c| (|z_c - max| + |log sum|), and for the gradient total p + t. */
static void f32_is_within_its_bound_of_f64(void **state) {
    (void)state;
    uint64_t seed = 2;
    for (int soft = 0; soft < 2; soft++)
        for (int with = 0; with < 2; with++)
            for (size_t c = 0; c < N_COUNTS; c++) {
                const int64_t n = 6, classes = class_counts[c];
                attn_cross_entropy_args a = problem(ATTN_F32, soft, n, classes, &seed);
                if (with) a = with_options(a, &seed);
                a.reduction = ATTN_NONE;
                a.loss = tensor1(ATTN_F32, n);
                attn_cross_entropy_args b = a;
                b.logits = dense_copy(a.logits, ATTN_F64);
                if (soft) b.labels = dense_copy(a.labels, ATTN_F64);
                if (with) b.class_weight = dense_copy(a.class_weight, ATTN_F64);
                b.loss = tensor1(ATTN_F64, n);
                b.dlogits = tensor2(ATTN_F64, n, classes);
                assert_ok(attn_cross_entropy(&a, NULL));
                assert_ok(attn_cross_entropy(&b, NULL));
                for (int64_t i = 0; i < n; i++)
                    assert_true(fabs(get(a.loss, i) - get(b.loss, i)) <= 0x1p-24 * 32 * (1 + 4 * fabs(get(b.loss, i))));
                for (int64_t i = 0; i < n * classes; i++)
                    assert_true(fabs(get(a.dlogits, i) - get(b.dlogits, i)) <= 0x1p-24 * 32 * 2);
                free_blocks(NULL);
            }
}

static void the_reference_and_the_kernels_agree(void **state) {
    (void)state;
    uint64_t seed = 3;
    for (int soft = 0; soft < 2; soft++)
        for (int with = 0; with < 2; with++)
            for (size_t c = 0; c < N_COUNTS; c++) {
                attn_cross_entropy_args a = problem(ATTN_F64, soft, 5, class_counts[c], &seed);
                if (with) a = with_options(a, &seed);
                attn_cross_entropy_args b = a;
                b.loss = tensor1(ATTN_F64, 1);
                b.dlogits = tensor2(ATTN_F32, 5, class_counts[c]); /* of two dtypes: the reference's */
                assert_ok(attn_cross_entropy(&a, NULL));
                assert_ok(attn_cross_entropy(&b, NULL));
                assert_true(fabs(get(a.loss, 0) - get(b.loss, 0)) <= 1e-14 * (1 + fabs(get(a.loss, 0))));
                for (int64_t i = 0; i < 5 * class_counts[c]; i++)
                    assert_true(fabs(get(a.dlogits, i) - get(b.dlogits, i)) <= 1e-7 * (1 + fabs(get(a.dlogits, i))));
                free_blocks(NULL);
            }
}

static void ignored_rows_count_nothing_whatever_they_hold(void **state) {
    (void)state;
    static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_BF16, ATTN_F16 };
    uint64_t seed = 4;
    for (size_t d = 0; d < 4; d++)
        for (int custom = 0; custom < 2; custom++) {
            attn_cross_entropy_args a = problem(dtypes[d], false, 3, 9, &seed), one = a;
            one.logits = attn_dense(dtypes[d], a.logits.data, 2, (int64_t[]){ 1, 9 });
            one.dlogits = tensor2(dtypes[d], 1, 9);
            one.labels.shape[0] = 1;
            one.loss = tensor1(dtypes[d], 1);
            for (int64_t i = 9; i < 27; i++) put(a.logits, i, i % 2 ? NAN : INFINITY);
            /* ignore_index is looked at before the range, and may even be a class */
            if (custom) a.flags = ATTN_IGNORE_SET, a.ignore_index = (int64_t)get(a.labels, 0) ? 0 : 1;
            put(a.labels, 1, custom ? (double)a.ignore_index : -100);
            put(a.labels, 2, custom ? (double)a.ignore_index : -100);
            assert_ok(attn_cross_entropy(&one, NULL));
            assert_ok(attn_cross_entropy(&a, NULL));
            assert_same(a.loss, one.loss);
            for (int64_t i = 0; i < 27; i++) assert_true(get(a.dlogits, i) == (i < 9 ? get(one.dlogits, i) : 0));
        }
}

static void an_explicit_ignore_index_of_zero_needs_its_flag(void **state) {
    (void)state;
    uint64_t seed = 5;
    attn_cross_entropy_args a = problem(ATTN_F32, false, 2, 3, &seed);
    fill(a.labels, 0);
    assert_ok(attn_cross_entropy(&a, NULL));
    assert_true(get(a.loss, 0) > 0);
    a.flags = ATTN_IGNORE_SET;
    assert_ok(attn_cross_entropy(&a, NULL));
    assert_true(get(a.loss, 0) == 0);
}

static void all_rows_ignored_give_0_and_zero_gradients(void **state) {
    (void)state;
    uint64_t seed = 6;
    for (int32_t reduction = ATTN_MEAN; reduction <= ATTN_NONE; reduction++) {
        attn_cross_entropy_args a = problem(ATTN_F32, false, 4, 7, &seed);
        a.reduction = reduction;
        a.z_loss = 1;
        if (reduction == ATTN_NONE) a.loss = tensor1(ATTN_F32, 4);
        fill(a.labels, -100);
        assert_ok(attn_cross_entropy(&a, NULL));
        for (int64_t i = 0; i < attn_count(&a.loss); i++) assert_true(get(a.loss, i) == 0);
        for (int64_t i = 0; i < 28; i++) assert_true(get(a.dlogits, i) == 0);
    }
}

static void no_rows_give_0(void **state) {
    (void)state;
    attn_tensor loss = tensor1(ATTN_F32, 1);
    attn_cross_entropy_args a = { .logits = attn_dense(ATTN_F32, NULL, 2, (int64_t[]){ 0, 5 }),
                                  .labels = attn_dense(ATTN_I64, NULL, 1, (int64_t[]){ 0 }),
                                  .loss = loss };
    assert_ok(attn_cross_entropy(&a, NULL));
    assert_true(get(loss, 0) == 0);
}

static void a_class_ruled_out_by_minus_infinity_costs_nothing(void **state) {
    (void)state;
    for (int32_t dtype = ATTN_F32; dtype <= ATTN_F64; dtype += ATTN_F64) {
        attn_tensor logits = values1(dtype, 3, (double[]){ 1, -INFINITY, 1 }), d = tensor2(dtype, 1, 3), loss = tensor1(dtype, 1);
        attn_tensor label = values1(ATTN_I32, 1, (double[]){ 2 });
        logits = attn_dense(dtype, logits.data, 2, (int64_t[]){ 1, 3 });
        assert_ok(attn_cross_entropy(&(attn_cross_entropy_args){ .logits = logits, .labels = label, .loss = loss, .dlogits = d },
                                     NULL));
        assert_true(fabs(get(loss, 0) - log(2)) < 1e-6);
        assert_true(get(d, 1) == 0 && fabs(get(d, 0) - 0.5) < 1e-6 && fabs(get(d, 2) + 0.5) < 1e-6);
        put(label, 0, 1); /* the label itself ruled out */
        assert_ok(attn_cross_entropy(&(attn_cross_entropy_args){ .logits = logits, .labels = label, .loss = loss }, NULL));
        assert_true(get(loss, 0) == INFINITY);
    }
}

static void without_probabilities_loss_and_gradient_are_nan_in_that_row_alone(void **state) {
    (void)state;
    static const double spoilers[] = { NAN, INFINITY, -INFINITY };
    static const int32_t dtypes[] = { ATTN_F32, ATTN_BF16 };
    for (size_t d = 0; d < 2; d++)
        for (int s = 0; s < 3; s++) {
            uint64_t seed = 7;
            attn_cross_entropy_args a = problem(dtypes[d], false, 3, 40, &seed);
            a.reduction = ATTN_NONE;
            a.loss = tensor1(dtypes[d], 3);
            for (int64_t c = 0; c < (spoilers[s] == -INFINITY ? 40 : 1); c++) put(a.logits, 40 + c, spoilers[s]);
            assert_ok(attn_cross_entropy(&a, NULL));
            for (int64_t i = 0; i < 3; i++) assert_true(isnan(get(a.loss, i)) == (i == 1));
            for (int64_t i = 0; i < 120; i++) assert_true(isnan(get(a.dlogits, i)) == (i >= 40 && i < 80));
        }
}

static void large_offsets_cancel(void **state) {
    (void)state;
    attn_tensor logits = tensor2(ATTN_F32, 1, 2), label = values1(ATTN_I64, 1, (double[]){ 0 }), loss = tensor1(ATTN_F32, 1);
    put(logits, 0, 1e7), put(logits, 1, 1e7 - 1);
    assert_ok(attn_cross_entropy(&(attn_cross_entropy_args){ .logits = logits, .labels = label, .loss = loss }, NULL));
    assert_true(fabs(get(loss, 0) - log1p(exp(-1))) < 1e-7);
}

static void the_loss_may_be_a_scalar_of_another_float_type(void **state) {
    (void)state;
    uint64_t seed = 8;
    attn_cross_entropy_args a = problem(ATTN_F32, false, 10, 20, &seed), b = a;
    b.loss = tensor1(ATTN_F64, 1);
    assert_ok(attn_cross_entropy(&a, NULL));
    assert_ok(attn_cross_entropy(&b, NULL));
    assert_true((double)(float)get(b.loss, 0) == get(a.loss, 0));
    double loss = get(a.loss, 0);
    put(a.loss, 0, NAN);
    b.loss = a.loss;
    b.loss.rank = 0;
    assert_ok(attn_cross_entropy(&b, NULL));
    assert_true(get(a.loss, 0) == loss);
}

static void strides_place_and_threads_do_not_change_a_bit(void **state) {
    (void)state;
    static const int by_column[] = { 1, 0 };
    static const int32_t dtypes[] = { ATTN_F32, ATTN_F64 };
    uint64_t seed = 9;
    for (size_t d = 0; d < 2; d++)
        for (int soft = 0; soft < 2; soft++)
            for (size_t c = 0; c < N_COUNTS; c++) {
                attn_cross_entropy_args a = with_options(problem(dtypes[d], soft, 50, class_counts[c], &seed), &seed), s = a;
                assert_ok(attn_cross_entropy(&a, NULL));
                for (int way = 0; way < 8; way++) {
                    attn_exec exec = { 0 };
                    s = a;
                    s.logits =
                        way & 1 ? tensor_in_order(dtypes[d], 2, a.logits.shape, by_column, 0) : dense_copy(a.logits, dtypes[d]);
                    copy_values(a.logits, s.logits);
                    s.dlogits = way & 2 ? tensor_in_order(dtypes[d], 2, a.logits.shape, by_column, 0) : s.logits;
                    if (way & 4) {
                        s.class_weight = tensor_in_order(dtypes[d], 1, a.class_weight.shape, (int[]){ 0 }, 1);
                        s.labels =
                            tensor_in_order(a.labels.dtype, a.labels.rank, a.labels.shape, soft ? by_column : (int[]){ 0 }, 1);
                        copy_values(a.class_weight, s.class_weight);
                        copy_values(a.labels, s.labels);
                    }
                    s.loss = tensor1(dtypes[d], 1);
                    assert_ok(attn_pool_open(&exec, (int32_t[]){ 1, 2, 3, 7 }[way % 4]));
                    assert_ok(attn_cross_entropy(&s, &exec));
                    attn_pool_close(&exec);
                    assert_same(s.loss, a.loss);
                    assert_same(s.dlogits, a.dlogits);
                }
                free_blocks(NULL);
            }
}

static void nothing_is_allocated(void **state) {
    (void)state;
    uint64_t seed = 10;
    attn_cross_entropy_args a = with_options(problem(ATTN_F32, false, 20, 300, &seed), &seed);
    memory.allowed = 0, memory.for_ever = true;
    attn_status status = attn_cross_entropy(&a, NULL);
    memory.allowed = -1;
    assert_int_equal(status, ATTN_OK);
}

static void a_label_out_of_range_is_refused_by_its_position_and_nothing_is_written(void **state) {
    (void)state;
    uint64_t seed = 11;
    static const double wrong[] = { 7, -1, 1e9, -99 };
    for (int i = 0; i < 4; i++) {
        attn_cross_entropy_args a = problem(ATTN_F32, false, 5, 7, &seed);
        put(a.labels, 1, -100);
        put(a.labels, 3, wrong[i]);
        put(a.labels, 4, 50);
        assert_refused(attn_cross_entropy(&a, NULL), ATTN_BAD_ARGUMENT, "labels[3] is ");
        assert_untouched(a.loss);
        assert_untouched(a.dlogits);
    }
}

static void bad_arguments_are_refused_before_anything_is_written(void **state) {
    (void)state;
    uint64_t seed = 12;
    attn_cross_entropy_args a = problem(ATTN_F32, false, 5, 7, &seed), b = a, soft = problem(ATTN_F32, true, 5, 7, &seed);
    assert_refused(attn_cross_entropy(NULL, NULL), ATTN_BAD_ARGUMENT, "no arguments");
    b.reduction = 3;
    assert_refused(attn_cross_entropy(&b, NULL), ATTN_BAD_ARGUMENT, "reduction");
    b = a, b.flags = ATTN_SCALE_SET;
    assert_refused(attn_cross_entropy(&b, NULL), ATTN_BAD_ARGUMENT, "flags");
    b = a, b.label_smoothing = 1.01;
    assert_refused(attn_cross_entropy(&b, NULL), ATTN_BAD_ARGUMENT, "label_smoothing");
    b = a, b.label_smoothing = NAN;
    assert_refused(attn_cross_entropy(&b, NULL), ATTN_BAD_ARGUMENT, "label_smoothing");
    b = a, b.z_loss = INFINITY;
    assert_refused(attn_cross_entropy(&b, NULL), ATTN_BAD_ARGUMENT, "z_loss");
    b = a, b.reserved[5] = 1;
    assert_refused(attn_cross_entropy(&b, NULL), ATTN_UNSUPPORTED, "reserved");
    b = a, b.logits.rank = 1;
    assert_refused(attn_cross_entropy(&b, NULL), ATTN_BAD_SHAPE, "logits has rank 1");
    b = a, b.logits.dtype = ATTN_I32;
    assert_refused(attn_cross_entropy(&b, NULL), ATTN_UNSUPPORTED, "logits is i32");
    b = a, b.logits.shape[1] = 0;
    assert_refused(attn_cross_entropy(&b, NULL), ATTN_BAD_SHAPE, "no classes");
    b = a, b.labels.shape[0] = 4;
    assert_refused(attn_cross_entropy(&b, NULL), ATTN_BAD_SHAPE, "there are 4 labels for 5 rows");
    b = a, b.labels.dtype = ATTN_U8;
    assert_refused(attn_cross_entropy(&b, NULL), ATTN_BAD_ARGUMENT, "labels are u8");
    b = soft, b.labels.rank = 1;
    assert_refused(attn_cross_entropy(&b, NULL), ATTN_BAD_SHAPE, "labels");
    b = soft, b.flags = ATTN_IGNORE_SET, b.ignore_index = 3;
    assert_refused(attn_cross_entropy(&b, NULL), ATTN_BAD_ARGUMENT, "soft labels");
    b = a, b.class_weight = tensor1(ATTN_F32, 5);
    assert_refused(attn_cross_entropy(&b, NULL), ATTN_BAD_SHAPE, "class_weight");
    b = a, b.class_weight = tensor1(ATTN_I32, 7);
    assert_refused(attn_cross_entropy(&b, NULL), ATTN_UNSUPPORTED, "class_weight is i32");
    b = a, b.loss = (attn_tensor){ 0 };
    assert_refused(attn_cross_entropy(&b, NULL), ATTN_BAD_ARGUMENT, "loss");
    b = a, b.reduction = ATTN_NONE;
    assert_refused(attn_cross_entropy(&b, NULL), ATTN_BAD_SHAPE, "loss has shape [1], the reduction asks for [5]");
    b = a, b.dlogits.stride[0] = 0;
    assert_refused(attn_cross_entropy(&b, NULL), ATTN_BAD_ARGUMENT, "dlogits");
    b = a, b.dlogits.dtype = ATTN_F16;
    assert_refused(attn_cross_entropy(&b, NULL), ATTN_UNSUPPORTED, "dlogits is f16");
    assert_untouched(a.loss);
    assert_untouched(a.dlogits);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(gradients_are_those_of_central_differences, free_blocks),
        cmocka_unit_test_teardown(f32_is_within_its_bound_of_f64, free_blocks),
        cmocka_unit_test_teardown(the_reference_and_the_kernels_agree, free_blocks),
        cmocka_unit_test_teardown(ignored_rows_count_nothing_whatever_they_hold, free_blocks),
        cmocka_unit_test_teardown(an_explicit_ignore_index_of_zero_needs_its_flag, free_blocks),
        cmocka_unit_test_teardown(all_rows_ignored_give_0_and_zero_gradients, free_blocks),
        cmocka_unit_test_teardown(no_rows_give_0, free_blocks),
        cmocka_unit_test_teardown(a_class_ruled_out_by_minus_infinity_costs_nothing, free_blocks),
        cmocka_unit_test_teardown(without_probabilities_loss_and_gradient_are_nan_in_that_row_alone, free_blocks),
        cmocka_unit_test_teardown(large_offsets_cancel, free_blocks),
        cmocka_unit_test_teardown(the_loss_may_be_a_scalar_of_another_float_type, free_blocks),
        cmocka_unit_test_teardown(strides_place_and_threads_do_not_change_a_bit, free_blocks),
        cmocka_unit_test_teardown(nothing_is_allocated, free_blocks),
        cmocka_unit_test_teardown(a_label_out_of_range_is_refused_by_its_position_and_nothing_is_written, free_blocks),
        cmocka_unit_test_teardown(bad_arguments_are_refused_before_anything_is_written, free_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
