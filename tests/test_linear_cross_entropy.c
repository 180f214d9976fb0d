/* SPDX-License-Identifier: Apache-2.0 */
/* Linear cross-entropy: its rules one by one, its bits, its memory, its refusals. Every combination of options is compared with torch
 * in test_softmax_oracle.c. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/failing_malloc.h"
#include "tests/tensors.h"

typedef attn_linear_cross_entropy_args loss_args;

/* Sizes at which strips of rows, blocks of classes, panels and columns begin and end. The last two pairs need two portions of classes. */
static const struct {
    int64_t n, dim, classes;
} sizes[] = { { 1, 1, 1 },     { 3, 2, 2 },      { 5, 7, 10 },   { 16, 64, 33 },  { 7, 300, 257 },
              { 40, 65, 600 }, { 300, 20, 130 }, { 600, 3, 70 }, { 3, 5, 33000 }, { 3, 2, 66000 } };
enum { N_SIZES = sizeof sizes / sizeof *sizes };

static loss_args problem(int32_t dtype, bool soft, int64_t n, int64_t dim, int64_t classes, uint64_t *seed) {
    loss_args a = { .x = tensor2(dtype, n, dim), .weight = tensor2(dtype, classes, dim), .bias = tensor1(dtype, classes) };
    a.loss = tensor1(dtype, 1);
    a.dx = tensor2(dtype, n, dim), a.dweight = tensor2(dtype, classes, dim), a.dbias = tensor1(dtype, classes);
    fill_normal(a.x, 1, seed);
    fill_normal(a.weight, 2 / sqrt((double)dim + 1), seed);
    fill_normal(a.bias, 1, seed);
    if (soft) {
        a.labels = tensor2(dtype, n, classes);
        for (int64_t i = 0; i < n * classes; i++) put(a.labels, i, uniform(seed) * 2 / (double)classes);
    } else {
        a.labels = tensor1(ATTN_I64, n);
        for (int64_t i = 0; i < n; i++) put(a.labels, i, (double)between(seed, 0, classes - 1));
    }
    return a;
}

/* Every option at once. */
static loss_args with_options(loss_args a, uint64_t *seed) {
    int64_t classes = a.weight.shape[0];
    a.class_weight = tensor1(a.x.dtype, classes);
    for (int64_t c = 0; c < classes; c++) put(a.class_weight, c, 0.5 + uniform(seed));
    a.label_smoothing = 0.1;
    a.z_loss = 0.01;
    if (!attn_dtype_is_float(a.labels.dtype) && a.x.shape[0] > 1) put(a.labels, 1, -100);
    return a;
}

static void put_outputs_anew(loss_args *a, int32_t dtype) {
    a->loss = tensor_of(dtype, a->loss.rank, a->loss.shape);
    if (a->dx.rank) a->dx = tensor_of(dtype, 2, a->dx.shape);
    if (a->dweight.rank) a->dweight = tensor_of(dtype, 2, a->dweight.shape);
    if (a->dbias.rank) a->dbias = tensor_of(dtype, 1, a->dbias.shape);
}

static loss_args in_f64(loss_args a) {
    loss_args b = a;
    b.x = dense_copy(a.x, ATTN_F64), b.weight = dense_copy(a.weight, ATTN_F64), b.bias = dense_copy(a.bias, ATTN_F64);
    if (attn_dtype_is_float(a.labels.dtype)) b.labels = dense_copy(a.labels, ATTN_F64);
    if (a.class_weight.rank) b.class_weight = dense_copy(a.class_weight, ATTN_F64);
    put_outputs_anew(&b, ATTN_F64);
    return b;
}

static void assert_same_results(loss_args a, loss_args b) {
    assert_same(a.loss, b.loss);
    assert_same(a.dx, b.dx);
    assert_same(a.dweight, b.dweight);
    assert_same(a.dbias, b.dbias);
}

/* ---- values ------------------------------------------------------------------------------------------------- */

/* The same through logits in memory, in f64: products in plain loops, and attn_cross_entropy. What gradients are added up from is
 * kept without signs too: `spread` = factor (|total| p + |t|), of which dz is a difference. */
typedef struct truth {
    attn_tensor z, dz, loss, spread;
    double *size; /* of a row: the largest sum of |x_d w_cd| + |b_c| over the classes */
} truth;

static double label_weight(const loss_args *a, int64_t c) { return a->class_weight.rank ? get(a->class_weight, c) : 1; }

static truth truth_of(const loss_args *a) {
    const int64_t n = a->x.shape[0], dim = a->x.shape[1], classes = a->weight.shape[0];
    const bool soft = attn_dtype_is_float(a->labels.dtype);
    truth t = { tensor2(ATTN_F64, n, classes), tensor2(ATTN_F64, n, classes), tensor1(ATTN_F64, n), tensor2(ATTN_F64, n, classes),
                NULL };
    t.size = poisoned((size_t)n * sizeof *t.size);
    for (int64_t i = 0; i < n; i++) {
        t.size[i] = 0;
        for (int64_t c = 0; c < classes; c++) {
            double z = get(a->bias, c), size = fabs(z);
            for (int64_t d = 0; d < dim; d++) {
                double term = get(a->x, i * dim + d) * get(a->weight, c * dim + d);
                z += term;
                size += fabs(term);
            }
            put(t.z, i * classes + c, z);
            t.size[i] = fmax(t.size[i], size);
        }
    }
    attn_cross_entropy_args unfused = { .flags = a->flags,
                                        .reduction = ATTN_NONE,
                                        .logits = t.z,
                                        .labels = soft ? dense_copy(a->labels, ATTN_F64) : a->labels,
                                        .loss = t.loss,
                                        .dlogits = t.dz,
                                        .ignore_index = a->ignore_index,
                                        .label_smoothing = a->label_smoothing,
                                        .z_loss = a->z_loss };
    if (a->class_weight.rank) unfused.class_weight = dense_copy(a->class_weight, ATTN_F64);
    assert_ok(attn_cross_entropy(&unfused, NULL));
    for (int64_t i = 0; i < n; i++) {
        bool counts = soft || get(a->labels, i) != (a->flags & ATTN_IGNORE_SET ? (double)a->ignore_index : -100);
        for (int64_t c = 0; c < classes; c++) {
            double e = a->label_smoothing, w = label_weight(a, c), target = w * e / (double)classes;
            if (soft)
                target += w * (1 - e) * get(a->labels, i * classes + c);
            else if (c == (int64_t)get(a->labels, i))
                target += w * (1 - e);
            put(t.spread, i * classes + c, counts ? fabs(get(t.dz, i * classes + c) + target) + fabs(target) : 0);
        }
    }
    return t;
}

/* What a mean divides by. */
static double divisor_of(const loss_args *a) {
    double sum = 0;
    if (a->reduction != ATTN_MEAN) return 1;
    if (attn_dtype_is_float(a->labels.dtype)) return (double)a->x.shape[0];
    for (int64_t i = 0; i < a->x.shape[0]; i++)
        if (get(a->labels, i) != -100) sum += label_weight(a, (int64_t)get(a->labels, i));
    return sum;
}

static void check(const char *what, double got, double expected, double bound) {
    if (!(fabs(got - expected) <= bound))
        fail_msg("%s is %.9g, exactly %.9g, off by %.2f of its bound", what, got, expected, fabs(got - expected) / bound);
}

/* docs/ACCURACY.md: with E = u (dim + 2) S, gradients are within (128 u + 4 E + u (min(m, 256) + m / 256 + 16)) sum of the m terms' sizes. */
static void assert_within_bounds(const loss_args *a) {
    const int64_t n = a->x.shape[0], dim = a->x.shape[1], classes = a->weight.shape[0];
    const double u = a->x.dtype == ATTN_F32 ? 0x1p-24 : 0x1p-53, divisor = divisor_of(a);
    truth t = truth_of(a);
    double most = 0, loss = 0, loss_bound = 0;
    double over_classes = u * (fmin((double)classes, 256) + (double)classes / 256 + 144);
    double over_rows = u * (fmin((double)n, 256) + (double)n / 256 + 144);
    for (int64_t i = 0; i < n; i++) {
        double e = u * (double)(dim + 2) * t.size[i], bound = u * 32 * (1 + 4 * fabs(get(t.loss, i))) + 4 * e;
        most = fmax(most, e);
        if (a->reduction == ATTN_NONE) check("loss", get(a->loss, i), get(t.loss, i), bound);
        loss += get(t.loss, i) / divisor, loss_bound += bound / divisor;
    }
    if (a->reduction != ATTN_NONE) check("loss", get(a->loss, 0), loss, loss_bound + u * fabs(loss));
    for (int64_t i = 0; i < n; i++)
        for (int64_t d = 0; d < dim; d++) {
            double sum = 0, size = 0;
            for (int64_t c = 0; c < classes; c++) {
                sum += get(t.dz, i * classes + c) * get(a->weight, c * dim + d);
                size += get(t.spread, i * classes + c) * fabs(get(a->weight, c * dim + d));
            }
            check("dx", get(a->dx, i * dim + d), sum / divisor,
                  (over_classes + 4 * u * (double)(dim + 2) * t.size[i]) * size / divisor);
        }
    for (int64_t c = 0; c < classes; c++) {
        double all = 0, all_size = 0;
        for (int64_t i = 0; i < n; i++) {
            all += get(t.dz, i * classes + c);
            all_size += get(t.spread, i * classes + c);
        }
        check("dbias", get(a->dbias, c), all / divisor, (over_rows + 4 * most) * all_size / divisor);
        for (int64_t d = 0; d < dim; d++) {
            double sum = 0, size = 0;
            for (int64_t i = 0; i < n; i++) {
                sum += get(t.dz, i * classes + c) * get(a->x, i * dim + d);
                size += get(t.spread, i * classes + c) * fabs(get(a->x, i * dim + d));
            }
            check("dweight", get(a->dweight, c * dim + d), sum / divisor, (over_rows + 4 * most) * size / divisor);
        }
    }
}

static void loss_and_gradients_are_those_of_the_logits_in_memory(void **state) {
    (void)state;
    static const int32_t dtypes[] = { ATTN_F32, ATTN_F64 };
    uint64_t seed = 1;
    for (size_t d = 0; d < 2; d++)
        for (size_t s = 0; s < N_SIZES; s++)
            for (int way = 0; way < 4; way++) {
                loss_args a = problem(dtypes[d], way & 1, sizes[s].n, sizes[s].dim, sizes[s].classes, &seed);
                if (way & 2) a = with_options(a, &seed);
                a.reduction = (int32_t)(s + (size_t)way) % 3;
                if (a.reduction == ATTN_NONE) a.loss = tensor1(dtypes[d], sizes[s].n);
                assert_ok(attn_linear_cross_entropy(&a, NULL));
                assert_within_bounds(&a);
                free_blocks(NULL);
            }
}

static void the_reference_and_the_kernels_agree(void **state) {
    (void)state;
    uint64_t seed = 2;
    for (size_t s = 0; s < 6; s++)
        for (int way = 0; way < 4; way++) {
            loss_args a = problem(ATTN_F64, way & 1, sizes[s].n, sizes[s].dim, sizes[s].classes, &seed), b;
            if (way & 2) a = with_options(a, &seed);
            b = a;
            put_outputs_anew(&b, ATTN_F64);
            b.dbias = tensor1(ATTN_F32, sizes[s].classes); /* of two dtypes: the reference's */
            assert_ok(attn_linear_cross_entropy(&a, NULL));
            assert_ok(attn_linear_cross_entropy(&b, NULL));
            assert_true(fabs(get(a.loss, 0) - get(b.loss, 0)) <= 1e-13 * (1 + fabs(get(a.loss, 0))));
            for (int64_t i = 0; i < attn_count(&a.dx); i++) assert_true(fabs(get(a.dx, i) - get(b.dx, i)) <= 1e-13);
            for (int64_t i = 0; i < attn_count(&a.dweight); i++)
                assert_true(fabs(get(a.dweight, i) - get(b.dweight, i)) <= 1e-13);
            for (int64_t i = 0; i < attn_count(&a.dbias); i++) assert_true(fabs(get(a.dbias, i) - get(b.dbias, i)) <= 1e-7);
            free_blocks(NULL);
        }
}

static double loss_of(const loss_args *a) {
    loss_args b = *a;
    b.dx = b.dweight = b.dbias = (attn_tensor){ 0 };
    assert_ok(attn_linear_cross_entropy(&b, NULL));
    double sum = 0;
    for (int64_t i = 0; i < attn_count(&a->loss); i++) sum += get(a->loss, i);
    return sum;
}

static void assert_slopes(const loss_args *a, attn_tensor input, attn_tensor gradient) {
    for (int64_t i = 0; i < attn_count(&input); i++) {
        const double h = 1e-5, x = get(input, i);
        put(input, i, x + h);
        double above = loss_of(a);
        put(input, i, x - h);
        double slope = (above - loss_of(a)) / (2 * h);
        put(input, i, x);
        if (fabs(slope - get(gradient, i)) > 1e-8 * (1 + fabs(slope)))
            fail_msg("element %lld: %g, by differences %g", (long long)i, get(gradient, i), slope);
    }
}

static void gradients_are_those_of_central_differences(void **state) {
    (void)state;
    uint64_t seed = 3;
    for (int way = 0; way < 8; way++)
        for (int32_t reduction = ATTN_MEAN; reduction <= ATTN_NONE; reduction++) {
            loss_args a = problem(ATTN_F64, way & 1, 4, 3, way & 4 ? 70 : 5, &seed);
            if (way & 2) a = with_options(a, &seed);
            a.reduction = reduction;
            if (reduction == ATTN_NONE) a.loss = tensor1(ATTN_F64, 4);
            assert_ok(attn_linear_cross_entropy(&a, NULL));
            assert_slopes(&a, a.x, a.dx);
            assert_slopes(&a, a.weight, a.dweight);
            assert_slopes(&a, a.bias, a.dbias);
            free_blocks(NULL);
        }
}

static void sixteen_bit_types_are_rounded_once(void **state) {
    (void)state;
    static const int32_t dtypes[] = { ATTN_BF16, ATTN_F16 };
    uint64_t seed = 4;
    for (size_t d = 0; d < 2; d++)
        for (int soft = 0; soft < 2; soft++) {
            loss_args a = with_options(problem(dtypes[d], soft, 9, 12, 21, &seed), &seed), b = in_f64(a);
            assert_ok(attn_linear_cross_entropy(&a, NULL));
            assert_ok(attn_linear_cross_entropy(&b, NULL));
            const attn_tensor got[] = { a.loss, a.dx, a.dweight, a.dbias }, exact[] = { b.loss, b.dx, b.dweight, b.dbias };
            const double unit = dtypes[d] == ATTN_BF16 ? 0x1p-8 : 0x1p-11;
            for (int t = 0; t < 4; t++)
                for (int64_t i = 0; i < attn_count(&got[t]); i++)
                    assert_true(fabs(get(got[t], i) - get(exact[t], i)) <= unit * 1.0001 * fabs(get(exact[t], i)) + 0x1p-25);
            free_blocks(NULL);
        }
}

/* ---- rows that do not count, and numbers that are not finite ------------------------------------------------------ */

static void ignored_rows_count_nothing_whatever_they_hold(void **state) {
    (void)state;
    static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_BF16 };
    uint64_t seed = 5;
    for (size_t d = 0; d < 3; d++)
        for (int custom = 0; custom < 2; custom++) {
            loss_args a = problem(dtypes[d], false, 5, 9, 40, &seed), one = a;
            for (int64_t i = 9; i < 36; i++) put(a.x, i, i % 2 ? NAN : INFINITY);
            if (custom) a.flags = ATTN_IGNORE_SET, a.ignore_index = 17;
            put(a.labels, 0, 3), put(a.labels, 4, 5);
            for (int64_t i = 1; i < 4; i++) put(a.labels, i, custom ? 17 : -100);
            one.x = tensor2(dtypes[d], 2, 9), one.labels = tensor1(ATTN_I32, 2);
            put(one.labels, 0, 3), put(one.labels, 1, 5);
            for (int64_t i = 0; i < 18; i++) put(one.x, i, get(a.x, i < 9 ? i : i + 27));
            put_outputs_anew(&one, dtypes[d]);
            one.dx = tensor2(dtypes[d], 2, 9);
            assert_ok(attn_linear_cross_entropy(&a, NULL));
            assert_ok(attn_linear_cross_entropy(&one, NULL));
            assert_same(a.loss, one.loss);
            assert_same(a.dweight, one.dweight);
            assert_same(a.dbias, one.dbias);
            for (int64_t i = 0; i < 45; i++)
                assert_true(get(a.dx, i) == (i < 9 ? get(one.dx, i) : i >= 36 ? get(one.dx, i - 27) : 0));
            free_blocks(NULL);
        }
}

static void nothing_that_counts_gives_0_and_zero_gradients(void **state) {
    (void)state;
    static const int32_t dtypes[] = { ATTN_F32, ATTN_F16 };
    uint64_t seed = 6;
    for (size_t d = 0; d < 2; d++)
        for (int32_t reduction = ATTN_MEAN; reduction <= ATTN_NONE; reduction++)
            for (int64_t n = 0; n <= 4; n += 4) {
                loss_args a = problem(dtypes[d], false, n, 5, 7, &seed);
                a.reduction = reduction;
                a.z_loss = 1;
                if (reduction == ATTN_NONE) a.loss = tensor1(dtypes[d], n);
                fill(a.labels, -100);
                assert_ok(attn_linear_cross_entropy(&a, NULL));
                const attn_tensor results[] = { a.loss, a.dx, a.dweight, a.dbias };
                for (int t = 0; t < 4; t++)
                    for (int64_t i = 0; i < attn_count(&results[t]); i++) assert_true(get(results[t], i) == 0);
            }
}

static void without_columns_the_logits_are_the_bias(void **state) {
    (void)state;
    uint64_t seed = 7;
    for (int32_t dtype = ATTN_F32; dtype <= ATTN_F64; dtype += ATTN_F64) {
        loss_args a = problem(dtype, false, 3, 0, 4, &seed);
        double sum = 0;
        for (int64_t c = 0; c < 4; c++) sum += exp(get(a.bias, c));
        assert_ok(attn_linear_cross_entropy(&a, NULL));
        double expected = 0;
        for (int64_t i = 0; i < 3; i++) expected += (log(sum) - get(a.bias, (int64_t)get(a.labels, i))) / 3;
        assert_true(fabs(get(a.loss, 0) - expected) < 1e-6);
    }
}

static void a_bias_of_minus_infinity_rules_a_class_out(void **state) {
    (void)state;
    uint64_t seed = 8;
    for (int32_t dtype = ATTN_F32; dtype <= ATTN_F64; dtype += ATTN_F64) {
        /* a block in which all classes are ruled out, and one in which a single one is */
        loss_args a = problem(dtype, false, 3, 6, 300, &seed), b = a;
        for (int64_t c = 0; c < 300; c++)
            if (c < 256 || c == 270) put(a.bias, c, -INFINITY);
        for (int64_t i = 0; i < 3; i++) put(a.labels, i, 280 + (double)i);
        b.weight = tensor2(dtype, 43, 6), b.bias = tensor1(dtype, 43), b.labels = tensor1(ATTN_I32, 3);
        for (int64_t c = 256, to = 0; c < 300; c++) {
            if (c == 270) continue;
            put(b.bias, to, get(a.bias, c));
            for (int64_t d = 0; d < 6; d++) put(b.weight, to * 6 + d, get(a.weight, c * 6 + d));
            to++;
        }
        for (int64_t i = 0; i < 3; i++) put(b.labels, i, 23 + (double)i);
        b.loss = tensor1(dtype, 1), b.dx = tensor2(dtype, 3, 6), b.dweight = tensor2(dtype, 43, 6), b.dbias = tensor1(dtype, 43);
        assert_ok(attn_linear_cross_entropy(&a, NULL));
        assert_ok(attn_linear_cross_entropy(&b, NULL));
        assert_true(fabs(get(a.loss, 0) - get(b.loss, 0)) <= 1e-6);
        for (int64_t i = 0; i < 18; i++) assert_true(fabs(get(a.dx, i) - get(b.dx, i)) <= 1e-6);
        for (int64_t c = 0; c < 256; c++) assert_true(get(a.dbias, c) == 0);
        put(a.labels, 1, 5); /* the label itself ruled out */
        assert_ok(attn_linear_cross_entropy(&a, NULL));
        assert_true(get(a.loss, 0) == INFINITY);
    }
}

static void without_probabilities_loss_and_dx_are_nan_in_that_row_alone(void **state) {
    (void)state;
    static const double spoilers[] = { NAN, INFINITY };
    static const int32_t dtypes[] = { ATTN_F32, ATTN_BF16 };
    uint64_t seed = 9;
    for (size_t d = 0; d < 2; d++)
        for (int s = 0; s < 2; s++)
            for (int soft = 0; soft < 2; soft++) {
                loss_args a = problem(dtypes[d], soft, 3, 4, 600, &seed);
                a.reduction = ATTN_NONE;
                a.loss = tensor1(dtypes[d], 3);
                put(a.x, 5, spoilers[s]);
                for (int64_t c = 0; c < 600; c++) put(a.weight, 4 * c + 1, fabs(get(a.weight, 4 * c + 1)) + 1);
                assert_ok(attn_linear_cross_entropy(&a, NULL));
                for (int64_t i = 0; i < 3; i++) assert_true(isnan(get(a.loss, i)) == (i == 1));
                for (int64_t i = 0; i < 12; i++) assert_true(isnan(get(a.dx, i)) == (i >= 4 && i < 8));
                for (int64_t i = 0; i < 600; i++) assert_true(isnan(get(a.dbias, i))); /* every class meets that row */
                free_blocks(NULL);
            }
}

static void large_logits_cancel(void **state) {
    (void)state;
    loss_args a = { .x = values1(ATTN_F32, 1, (double[]){ 1e4 }), .weight = values1(ATTN_F32, 2, (double[]){ 1e3, 1e3 }) };
    a.x = attn_dense(ATTN_F32, a.x.data, 2, (int64_t[]){ 1, 1 });
    a.weight = attn_dense(ATTN_F32, a.weight.data, 2, (int64_t[]){ 2, 1 });
    a.bias = values1(ATTN_F32, 2, (double[]){ 0, -1 });
    a.labels = values1(ATTN_I64, 1, (double[]){ 0 });
    a.loss = tensor1(ATTN_F32, 1);
    assert_ok(attn_linear_cross_entropy(&a, NULL));
    assert_true(fabs(get(a.loss, 0) - log1p(exp(-1))) < 1e-7);
}

/* ---- bits ---------------------------------------------------------------------------------------------------------- */

static void strides_and_threads_do_not_change_a_bit(void **state) {
    (void)state;
    static const int by_column[] = { 1, 0 };
    static const int32_t dtypes[] = { ATTN_F32, ATTN_F64 };
    uint64_t seed = 10;
    for (size_t d = 0; d < 2; d++)
        for (int soft = 0; soft < 2; soft++)
            for (size_t c = 3; c < N_SIZES; c++) {
                const int64_t n = sizes[c].n, dim = sizes[c].dim, classes = sizes[c].classes;
                loss_args a = with_options(problem(dtypes[d], soft, n, dim, classes, &seed), &seed), s;
                assert_ok(attn_linear_cross_entropy(&a, NULL));
                for (int way = 0; way < 4; way++) {
                    attn_exec exec = { 0 };
                    s = a;
                    put_outputs_anew(&s, dtypes[d]);
                    if (way & 1) {
                        attn_tensor *const inputs[] = { &s.x, &s.weight, &s.bias, &s.class_weight, &s.labels };
                        for (int t = 0; t < 5; t++) {
                            attn_tensor from = *inputs[t];
                            *inputs[t] =
                                tensor_in_order(from.dtype, from.rank, from.shape, from.rank == 2 ? by_column : (int[]){ 0 }, 1);
                            copy_values(from, *inputs[t]);
                        }
                    }
                    if (way & 2) {
                        s.dx = tensor_in_order(dtypes[d], 2, a.dx.shape, by_column, 1);
                        s.dweight = tensor_in_order(dtypes[d], 2, a.dweight.shape, by_column, 1);
                        s.dbias = tensor_in_order(dtypes[d], 1, a.dbias.shape, (int[]){ 0 }, 1);
                    }
                    assert_ok(attn_pool_open(&exec, (int32_t[]){ 1, 2, 3, 7 }[way]));
                    assert_ok(attn_linear_cross_entropy(&s, &exec));
                    attn_pool_close(&exec);
                    assert_same_results(s, a);
                }
                free_blocks(NULL);
            }
}

static void what_is_asked_for_does_not_change_a_bit(void **state) {
    (void)state;
    uint64_t seed = 11;
    for (size_t c = 5; c < N_SIZES; c++) {
        loss_args a = with_options(problem(ATTN_F32, false, sizes[c].n, sizes[c].dim, sizes[c].classes, &seed), &seed);
        assert_ok(attn_linear_cross_entropy(&a, NULL));
        for (int way = 0; way < 7; way++) {
            loss_args b = a;
            if (!(way & 1)) b.dx = (attn_tensor){ 0 };
            if (!(way & 2)) b.dweight = (attn_tensor){ 0 };
            if (!(way & 4)) b.dbias = (attn_tensor){ 0 };
            put_outputs_anew(&b, ATTN_F32);
            assert_ok(attn_linear_cross_entropy(&b, NULL));
            assert_same(b.loss, a.loss);
            if (way & 1) assert_same(b.dx, a.dx);
            if (way & 2) assert_same(b.dweight, a.dweight);
            if (way & 4) assert_same(b.dbias, a.dbias);
        }
        free_blocks(NULL);
    }
}

static void a_rows_loss_and_dx_do_not_depend_on_its_neighbours(void **state) {
    (void)state;
    uint64_t seed = 12;
    loss_args a = problem(ATTN_F32, false, 300, 20, 130, &seed), b = a;
    a.reduction = b.reduction = ATTN_NONE;
    a.loss = tensor1(ATTN_F32, 300);
    assert_ok(attn_linear_cross_entropy(&a, NULL));
    for (int64_t first = 0; first < 300; first += 97) {
        int64_t n = first + 41 < 300 ? 41 : 300 - first;
        b.x = attn_dense(ATTN_F32, attn_at(&a.x, first * 20), 2, (int64_t[]){ n, 20 });
        b.labels = attn_dense(ATTN_I64, attn_at(&a.labels, first), 1, &n);
        b.loss = tensor1(ATTN_F32, n), b.dx = tensor2(ATTN_F32, n, 20);
        assert_ok(attn_linear_cross_entropy(&b, NULL));
        assert_same(b.loss, attn_dense(ATTN_F32, attn_at(&a.loss, first), 1, &n));
        assert_same(b.dx, attn_dense(ATTN_F32, attn_at(&a.dx, first * 20), 2, (int64_t[]){ n, 20 }));
    }
}

/* ---- memory --------------------------------------------------------------------------------------------------------- */

static void the_question_of_workspace_reads_no_data_and_a_lent_one_is_enough(void **state) {
    (void)state;
    static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_BF16 };
    uint64_t seed = 13;
    for (size_t d = 0; d < 3; d++)
        for (size_t s = 0; s < (dtypes[d] == ATTN_BF16 ? 6 : N_SIZES); s++)
            for (int with = 0; with < 8; with++) {
                loss_args a =
                    with_options(problem(dtypes[d], with & 1, sizes[s].n, sizes[s].dim, sizes[s].classes, &seed), &seed);
                if (with & 2) a.dx = a.dweight = a.dbias = (attn_tensor){ 0 };
                if (with & 4) a.dx = a.bias = (attn_tensor){ 0 };
                loss_args question = a;
                attn_tensor *const t[] = { &question.x,      &question.weight,       &question.bias,
                                           &question.labels, &question.class_weight, &question.loss,
                                           &question.dx,     &question.dweight,      &question.dbias };
                for (int i = 0; i < 9; i++) t[i]->data = NULL;
                attn_exec exec = { 0 };
                assert_ok(attn_pool_open(&exec, 2));
                exec.workspace_size = attn_linear_cross_entropy_workspace(&question, 2);
                assert_int_equal(exec.workspace_size, attn_linear_cross_entropy_workspace(&a, 2));
                exec.workspace = poisoned(exec.workspace_size);
                memory.allowed = 0, memory.for_ever = true;
                attn_status status = attn_linear_cross_entropy(&a, &exec);
                memory.allowed = -1;
                assert_ok(status);
                exec.workspace_size--;
                if (exec.workspace_size + 1 > 0)
                    assert_refused(attn_linear_cross_entropy(&a, &exec), ATTN_SMALL_WORKSPACE, "the workspace has");
                attn_pool_close(&exec);
                free_blocks(NULL);
            }
}

static void memory_stays_below_64_mib_however_many_logits_there_are(void **state) {
    (void)state;
    static const int64_t classes[] = { 32768, 262144 };
    for (int32_t dtype = ATTN_F32; dtype <= ATTN_F64; dtype += ATTN_F64)
        for (int i = 0; i < 2; i++) {
            const int64_t n = 1 << 20, c = classes[i];
            loss_args a = { .x = attn_dense(dtype, NULL, 2, (int64_t[]){ n, 512 }),
                            .weight = attn_dense(dtype, NULL, 2, (int64_t[]){ c, 512 }),
                            .labels = attn_dense(ATTN_I64, NULL, 1, &n),
                            .loss = attn_dense(dtype, NULL, 1, (int64_t[]){ 1 }) };
            a.dx = a.x, a.dweight = a.weight, a.bias = a.dbias = attn_dense(dtype, NULL, 1, &c);
            size_t bytes = attn_linear_cross_entropy_workspace(&a, 2);
            assert_true(bytes > 0 && bytes < (size_t)64 << 20);
        }
}

static void without_memory_the_status_says_so_and_nothing_leaks(void **state) {
    (void)state;
    uint64_t seed = 14;
    loss_args a = problem(ATTN_F32, false, 20, 30, 100, &seed);
    long live = memory.live;
    memory.allowed = 0, memory.for_ever = true;
    attn_status status = attn_linear_cross_entropy(&a, NULL);
    memory.allowed = -1;
    assert_int_equal(status, ATTN_NO_MEMORY);
    assert_true(memory.live == live);
    assert_untouched(a.loss);
    assert_untouched(a.dweight);
}

static void a_refused_call_needs_no_workspace(void **state) {
    (void)state;
    uint64_t seed = 15;
    loss_args a = problem(ATTN_F32, false, 5, 3, 7, &seed);
    a.reduction = 9;
    assert_int_equal(attn_linear_cross_entropy_workspace(&a, 1), 0);
    assert_int_equal(attn_linear_cross_entropy_workspace(NULL, 1), 0);
}

/* ---- refusals -------------------------------------------------------------------------------------------------------- */

static void a_label_out_of_range_is_refused_by_its_position_and_nothing_is_written(void **state) {
    (void)state;
    uint64_t seed = 16;
    static const double wrong[] = { 7, -1, 1e9, -99 };
    for (int i = 0; i < 4; i++) {
        loss_args a = problem(ATTN_F32, false, 5, 3, 7, &seed);
        put(a.labels, 1, -100);
        put(a.labels, 3, wrong[i]);
        assert_refused(attn_linear_cross_entropy(&a, NULL), ATTN_BAD_ARGUMENT, "labels[3] is ");
        assert_untouched(a.loss);
        assert_untouched(a.dx);
        assert_untouched(a.dweight);
        assert_untouched(a.dbias);
    }
}

static void refuse(loss_args b, attn_status status, const char *words) {
    assert_refused(attn_linear_cross_entropy(&b, NULL), status, words);
}

static void bad_arguments_are_refused_before_anything_is_written(void **state) {
    (void)state;
    uint64_t seed = 17;
    loss_args a = problem(ATTN_F32, false, 5, 3, 7, &seed), b = a, soft = problem(ATTN_F32, true, 5, 3, 7, &seed);
    assert_refused(attn_linear_cross_entropy(NULL, NULL), ATTN_BAD_ARGUMENT, "no arguments");
    b.reduction = 3, refuse(b, ATTN_BAD_ARGUMENT, "reduction is 3"), b = a;
    b.flags = ATTN_SCALE_SET, refuse(b, ATTN_BAD_ARGUMENT, "flags 0x1 mean nothing to linear cross-entropy"), b = a;
    b.label_smoothing = 1.01, refuse(b, ATTN_BAD_ARGUMENT, "label_smoothing"), b = a;
    b.z_loss = INFINITY, refuse(b, ATTN_BAD_ARGUMENT, "z_loss"), b = a;
    b.reserved[5] = 1, refuse(b, ATTN_UNSUPPORTED, "reserved"), b = a;
    b.x.rank = 1, refuse(b, ATTN_BAD_SHAPE, "x has rank 1"), b = a;
    b.x.dtype = ATTN_I32, refuse(b, ATTN_UNSUPPORTED, "x is i32"), b = a;
    b.weight.rank = 1, refuse(b, ATTN_BAD_SHAPE, "weight has rank 1"), b = a;
    b.weight.shape[1] = 2, refuse(b, ATTN_BAD_SHAPE, "weight has shape [7, 2], [classes, columns of x] asks for [7, 3]"), b = a;
    b.weight.dtype = ATTN_F16, refuse(b, ATTN_UNSUPPORTED, "weight is f16"), b = a;
    b.weight.shape[0] = 0, b.bias = (attn_tensor){ 0 }, refuse(b, ATTN_BAD_SHAPE, "no classes"), b = a;
    b.bias.shape[0] = 6, refuse(b, ATTN_BAD_SHAPE, "bias has shape [6]"), b = a;
    b.labels.shape[0] = 4, refuse(b, ATTN_BAD_SHAPE, "there are 4 labels for 5 rows"), b = a;
    b.labels.dtype = ATTN_U8, refuse(b, ATTN_BAD_ARGUMENT, "labels are u8"), b = a;
    b.class_weight = tensor1(ATTN_F32, 5), refuse(b, ATTN_BAD_SHAPE, "class_weight"), b = a;
    b.loss = (attn_tensor){ 0 }, refuse(b, ATTN_BAD_ARGUMENT, "loss is missing"), b = a;
    b.reduction = ATTN_NONE, refuse(b, ATTN_BAD_SHAPE, "loss has shape [1], the reduction asks for [5]"), b = a;
    b.dx.stride[0] = 0, refuse(b, ATTN_BAD_ARGUMENT, "dx is an output and has stride 0"), b = a;
    b.dx.shape[0] = 4, refuse(b, ATTN_BAD_SHAPE, "dx has shape [4, 3], x asks for [5, 3]"), b = a;
    b.dweight.dtype = ATTN_F16, refuse(b, ATTN_UNSUPPORTED, "dweight is f16"), b = a;
    b.dweight.shape[0] = 6, refuse(b, ATTN_BAD_SHAPE, "dweight has shape [6, 3], weight asks for [7, 3]"), b = a;
    b.dbias.shape[0] = 6, refuse(b, ATTN_BAD_SHAPE, "dbias has shape [6], [classes] asks for [7]"), b = a;
    soft.flags = ATTN_IGNORE_SET, soft.ignore_index = 3, refuse(soft, ATTN_BAD_ARGUMENT, "soft labels");
    soft.flags = 0, soft.labels.rank = 1, refuse(soft, ATTN_BAD_SHAPE, "labels");
    assert_refused(attn_linear_cross_entropy(&a, &(attn_exec){ .n_threads = -1 }), ATTN_BAD_ARGUMENT, "n_threads");
    assert_untouched(a.loss);
    assert_untouched(a.dx);
    assert_untouched(a.dweight);
    assert_untouched(a.dbias);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(loss_and_gradients_are_those_of_the_logits_in_memory, free_blocks),
        cmocka_unit_test_teardown(the_reference_and_the_kernels_agree, free_blocks),
        cmocka_unit_test_teardown(gradients_are_those_of_central_differences, free_blocks),
        cmocka_unit_test_teardown(sixteen_bit_types_are_rounded_once, free_blocks),
        cmocka_unit_test_teardown(ignored_rows_count_nothing_whatever_they_hold, free_blocks),
        cmocka_unit_test_teardown(nothing_that_counts_gives_0_and_zero_gradients, free_blocks),
        cmocka_unit_test_teardown(without_columns_the_logits_are_the_bias, free_blocks),
        cmocka_unit_test_teardown(a_bias_of_minus_infinity_rules_a_class_out, free_blocks),
        cmocka_unit_test_teardown(without_probabilities_loss_and_dx_are_nan_in_that_row_alone, free_blocks),
        cmocka_unit_test_teardown(large_logits_cancel, free_blocks),
        cmocka_unit_test_teardown(strides_and_threads_do_not_change_a_bit, free_blocks),
        cmocka_unit_test_teardown(what_is_asked_for_does_not_change_a_bit, free_blocks),
        cmocka_unit_test_teardown(a_rows_loss_and_dx_do_not_depend_on_its_neighbours, free_blocks),
        cmocka_unit_test_teardown(the_question_of_workspace_reads_no_data_and_a_lent_one_is_enough, free_blocks),
        cmocka_unit_test_teardown(memory_stays_below_64_mib_however_many_logits_there_are, free_blocks),
        cmocka_unit_test_teardown(without_memory_the_status_says_so_and_nothing_leaks, free_blocks),
        cmocka_unit_test_teardown(a_refused_call_needs_no_workspace, free_blocks),
        cmocka_unit_test_teardown(a_label_out_of_range_is_refused_by_its_position_and_nothing_is_written, free_blocks),
        cmocka_unit_test_teardown(bad_arguments_are_refused_before_anything_is_written, free_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
