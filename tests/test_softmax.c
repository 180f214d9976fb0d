/* SPDX-License-Identifier: Apache-2.0 */
/* Softmax, log-softmax, softmin, logsumexp: values within the published bound, the same bits whatever the strides, threads and
 * memory, gradients. Masks, infinities and refusals are in test_softmax_edges.c. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/failing_malloc.h"
#include "tests/tensors.h"
#include "tests/softmax_bounds.h"

static const int32_t computing[] = { ATTN_F32, ATTN_F64 };
static const int32_t ops[] = { ATTN_SOFTMAX, ATTN_LOG_SOFTMAX, ATTN_SOFTMIN };
static const int64_t lengths[] = { 1,  2,  3,  4,   5,   7,   8,   9,   15,  16,  17,  31,   32,  33,
                                   63, 64, 65, 100, 127, 128, 129, 255, 256, 257, 511, 1000, 4099 };
enum { N_LENGTHS = sizeof lengths / sizeof *lengths };

/* ---- values -------------------------------------------------------------------------------------------- */

/* The scores that a row comes to, as rounded to the computing type: they count as the input. */
static void scores_of(const attn_softmax_args *a, int64_t row, long double *z) {
    int64_t n = a->x.shape[a->x.rank - 1];
    bool fused = strcmp(attn_isa(), "scalar") != 0;
    double scale = a->scale != 0 || a->flags ? a->scale : 1;
    for (int64_t i = 0; i < n; i++) {
        int64_t at = row * n + i;
        double x = get(a->x, at), bias = a->bias.rank ? get(a->bias, at) : 0, score;
        if (a->x.dtype == ATTN_F32)
            score = fused ? (double)fmaf((float)scale, (float)x, (float)bias) : (double)((float)scale * (float)x + (float)bias);
        else
            score = fused ? fma(scale, x, bias) : scale * x + bias;
        z[i] = a->mask.rank && !get(a->mask, at) ? -INFINITY : a->op == ATTN_SOFTMIN ? -(long double)score : score;
    }
}

static void check_rows(const attn_softmax_args *a) {
    int64_t n = a->x.shape[a->x.rank - 1];
    long double *z = poisoned((size_t)n * sizeof *z);
    for (int64_t row = 0; row < attn_row_count(&a->x); row++) {
        scores_of(a, row, z);
        row_truth truth = truth_of(z, n);
        for (int64_t i = 0; i < n; i++)
            assert_within_bound(a->op == ATTN_LOG_SOFTMAX, a->x.dtype, truth, z[i], get(a->y, row * n + i));
    }
}

static void values_are_within_the_published_bound(void **state) {
    (void)state;
    uint64_t seed = 1;
    for (size_t d = 0; d < 2; d++)
        for (size_t o = 0; o < 3; o++)
            for (size_t l = 0; l < N_LENGTHS; l++)
                for (double sd = 0.01; sd < 2000; sd *= 17) {
                    attn_tensor x = tensor2(computing[d], 3, lengths[l]), y = tensor2(computing[d], 3, lengths[l]);
                    fill_normal(x, sd, &seed);
                    attn_softmax_args a = { .op = ops[o], .x = x, .y = y };
                    assert_ok(attn_softmax(&a, NULL));
                    check_rows(&a);
                    free_blocks(NULL);
                }
}

/* Rows made to be awkward: all equal, one entry far above, steps that reach the smallest numbers, a ramp of equal rounding errors. */
static double awkward(int kind, int64_t i, int64_t n) {
    switch (kind) {
    case 0: return 0.1;
    case 1: return i == n / 2 ? 300 : -300;
    case 2: return -0.09 * (double)i;
    case 3: return 1e6 + 1e-3 * (double)i;
    case 4: return i == 0 ? 0.3 : -9.7000001;
    case 5: return i % 2 ? 3e38 : -3e38;
    case 6: return i % 3 ? 1e-42 : -1e-42;
    default: return -87.4 - 1e-3 * (double)(i % 17000) * (i > 0);
    }
}

static void awkward_rows_are_within_the_published_bound(void **state) {
    (void)state;
    static const int64_t n_of[] = { 1, 17, 1031, 40000 };
    for (size_t d = 0; d < 2; d++)
        for (size_t o = 0; o < 3; o++)
            for (int kind = 0; kind < 8; kind++)
                for (size_t l = 0; l < 4; l++) {
                    attn_tensor x = tensor1(computing[d], n_of[l]), y = tensor1(computing[d], n_of[l]);
                    for (int64_t i = 0; i < n_of[l]; i++) put(x, i, awkward(kind, i, n_of[l]));
                    attn_softmax_args a = { .op = ops[o], .x = x, .y = y };
                    assert_ok(attn_softmax(&a, NULL));
                    check_rows(&a);
                    free_blocks(NULL);
                }
}

static void scale_bias_and_mask_come_before_the_softmax(void **state) {
    (void)state;
    uint64_t seed = 2;
    for (size_t d = 0; d < 2; d++)
        for (size_t o = 0; o < 3; o++)
            for (size_t l = 0; l < N_LENGTHS; l++) {
                const int64_t n = lengths[l];
                attn_softmax_args a = { .op = ops[o], .scale = -1.7, .x = tensor2(computing[d], 2, n) };
                a.y = tensor2(computing[d], 2, n);
                a.bias = tensor2(computing[d], 2, n);
                a.mask = tensor2(ATTN_BOOL, 2, n);
                fill_normal(a.x, 3, &seed);
                fill_normal(a.bias, 2, &seed);
                fill_coin(a.mask, 0.7, &seed);
                assert_ok(attn_softmax(&a, NULL));
                check_rows(&a);
                free_blocks(NULL);
            }
}

static void an_explicit_scale_of_zero_needs_its_flag(void **state) {
    (void)state;
    attn_tensor x = values1(ATTN_F32, 3, (double[]){ 1, 2, 3 }), y = tensor1(ATTN_F32, 3);
    assert_ok(attn_softmax(&(attn_softmax_args){ .x = x, .y = y, .scale = 0 }, NULL));
    assert_true(get(y, 2) > 0.66);
    assert_ok(attn_softmax(&(attn_softmax_args){ .x = x, .y = y, .scale = 0, .flags = ATTN_SCALE_SET }, NULL));
    assert_true(get(y, 2) == (double)(1.0f / 3));
}

static void weights_lie_in_0_1_and_sum_to_1(void **state) {
    (void)state;
    uint64_t seed = 3;
    for (size_t d = 0; d < 2; d++)
        for (size_t l = 0; l < N_LENGTHS; l++) {
            attn_tensor x = tensor2(computing[d], 8, lengths[l]), y = tensor2(computing[d], 8, lengths[l]);
            fill_normal(x, l % 2 ? 0.001 : 10, &seed);
            assert_ok(attn_softmax(&(attn_softmax_args){ .x = x, .y = y }, NULL));
            for (int64_t r = 0; r < 8; r++) {
                long double sum = 0;
                for (int64_t i = 0; i < lengths[l]; i++) {
                    double p = get(y, r * lengths[l] + i);
                    assert_true(p >= 0 && p <= 1);
                    sum += p;
                }
                assert_true(fabsl(sum - 1) <= unit_of(computing[d]) * (SOFTMAX_C + log((double)lengths[l])));
            }
            free_blocks(NULL);
        }
}

static void softmin_is_the_softmax_of_the_negated_scores(void **state) {
    (void)state;
    uint64_t seed = 4;
    attn_tensor x = tensor2(ATTN_F32, 5, 77), negated = tensor2(ATTN_F32, 5, 77);
    attn_tensor y = tensor2(ATTN_F32, 5, 77), expected = tensor2(ATTN_F32, 5, 77);
    fill_normal(x, 2, &seed);
    for (int64_t i = 0; i < 5 * 77; i++) put(negated, i, -get(x, i));
    assert_ok(attn_softmax(&(attn_softmax_args){ .op = ATTN_SOFTMIN, .x = x, .y = y }, NULL));
    assert_ok(attn_softmax(&(attn_softmax_args){ .x = negated, .y = expected }, NULL));
    assert_same(y, expected);
}

static void log_softmax_keeps_what_the_log_of_softmax_loses(void **state) {
    (void)state;
    attn_tensor x = values1(ATTN_F32, 2, (double[]){ 0, -1000 }), y = tensor1(ATTN_F32, 2);
    assert_ok(attn_softmax(&(attn_softmax_args){ .op = ATTN_LOG_SOFTMAX, .x = x, .y = y }, NULL));
    assert_true(get(y, 0) == 0 && get(y, 1) == -1000);
}

static void logsumexp_is_within_the_published_bound(void **state) {
    (void)state;
    uint64_t seed = 5;
    for (size_t d = 0; d < 2; d++)
        for (size_t l = 0; l < N_LENGTHS; l++)
            for (int with = 0; with < 2; with++) {
                const int64_t n = lengths[l];
                attn_softmax_args a = { .x = tensor2(computing[d], 3, n), .y = tensor1(computing[d], 3) };
                long double *z = poisoned((size_t)n * sizeof *z);
                fill_normal(a.x, 5, &seed);
                if (with) {
                    a.bias = tensor2(computing[d], 3, n);
                    fill_normal(a.bias, 5, &seed);
                    a.scale = 0.3;
                }
                assert_ok(attn_logsumexp(&a, NULL));
                for (int64_t r = 0; r < 3; r++) {
                    scores_of(&a, r, z);
                    row_truth truth = truth_of(z, n);
                    assert_lse_within_bound(computing[d], truth, get(a.y, r));
                }
                free_blocks(NULL);
            }
}

/* 16-bit types are computed in double and rounded once. */
static bool same(double a, double b) { return a == b || (isnan(a) && isnan(b)); }

/* As from the same numbers in f32, rounded: whether rows are dense, columns of a matrix, or neither. */
static void sixteen_bit_types_are_rounded_once(void **state) {
    (void)state;
    enum { R = 20 };
    static const int64_t n_of[] = { 1, 33, 700, 5001 };
    static const int64_t strides[][2] = { { 0, 1 }, { 1, R }, { 3, 3 * R + 1 } }; /* of rows (0: n) and elements */
    const int32_t types[] = { ATTN_BF16, ATTN_F16 };
    uint64_t seed = 6;
    for (int way = 0; way < 3 * 2 * 4 * 3; way++) {
        const int64_t n = n_of[way / 3 % 4], *stride = strides[way % 3];
        const int32_t type = types[way / 12 % 2], op = ops[way / 24];
        attn_tensor exact = tensor2(ATTN_F32, R, n), once = tensor1(type, 1);
        attn_tensor x = tensor1(type, 4 * R * (n + 1)), y = tensor1(type, 4 * R * (n + 1)),
                    wide = tensor1(ATTN_F32, 4 * R * (n + 1));
        fill_normal(x, 2, &seed);
        attn_tensor *views[] = { &x, &y, &wide };
        for (int i = 0; i < 3; i++)
            *views[i] = (attn_tensor){ .data = views[i]->data,
                                       .dtype = views[i]->dtype,
                                       .rank = 2,
                                       .shape = { R, n },
                                       .stride = { stride[0] ? stride[0] : n, stride[1] } };
        put(x, 3 * n, -INFINITY);
        if (way % 5 == 0) put(x, 7 * n, NAN);
        for (int64_t i = 0; i < R * n; i++) put(exact, i, get(x, i));
        assert_ok(attn_softmax(&(attn_softmax_args){ .op = op, .x = exact, .y = exact }, NULL));
        assert_ok(attn_softmax(&(attn_softmax_args){ .op = op, .x = x, .y = y }, NULL));
        assert_ok(attn_softmax(&(attn_softmax_args){ .op = op, .x = x, .y = wide }, NULL));
        for (int64_t i = 0; i < R * n; i++) {
            put(once, 0, get(exact, i));
            assert_true(same(get(y, i), get(once, 0)));
            assert_true(same(get(wide, i), get(exact, i)));
        }
        free_blocks(NULL);
    }
}

static void worked_case_one_two_three(void **state) {
    (void)state;
    const double expected[] = { 0.09003057317038046, 0.24472847105479767, 0.6652409557748219 };
    attn_tensor x = values1(ATTN_F64, 3, (double[]){ 1, 2, 3 }), y = tensor1(ATTN_F64, 3), lse = tensor1(ATTN_F64, 1);
    assert_ok(attn_softmax(&(attn_softmax_args){ .x = x, .y = y }, NULL));
    for (int64_t i = 0; i < 3; i++) assert_true(fabs(get(y, i) - expected[i]) <= 2e-16);
    assert_ok(attn_logsumexp(&(attn_softmax_args){ .x = x, .y = lse }, NULL));
    assert_true(fabs(exp(get(lse, 0)) - 30.192874850577365) <= 1e-13);
}

/* ---- the same bits ------------------------------------------------------------------------------------------ */

/* x of shape [5, 4, n] in several memory orders, its mask and bias dense: the same numbers as from dense rows. */
static const int orders[][3] = { { 0, 1, 2 }, { 2, 1, 0 }, { 0, 2, 1 }, { 1, 2, 0 }, { 2, 0, 1 } };

static attn_softmax_args random_problem(int32_t dtype, int32_t op, int64_t n, bool with, uint64_t *seed) {
    const int64_t shape[] = { 5, 4, n };
    attn_softmax_args a = { .op = op, .x = tensor_of(dtype, 3, shape), .y = tensor_of(dtype, 3, shape) };
    fill_normal(a.x, 4, seed);
    if (!with) return a;
    a.scale = 0.7;
    a.mask = tensor_of(ATTN_BOOL, 3, shape);
    a.bias = tensor_of(dtype, 3, shape);
    fill_coin(a.mask, 0.8, seed);
    fill_normal(a.bias, 1, seed);
    return a;
}

static void any_axis_and_strides_give_the_bits_of_dense_rows(void **state) {
    (void)state;
    static const int64_t n_of[] = { 1, 7, 64, 255, 300, 1025 };
    uint64_t seed = 7;
    for (size_t d = 0; d < 2; d++)
        for (size_t o = 0; o < 3; o++)
            for (size_t l = 0; l < 6; l++)
                for (int with = 0; with < 2; with++) {
                    attn_softmax_args a = random_problem(computing[d], ops[o], n_of[l], with, &seed);
                    assert_ok(attn_softmax(&a, NULL));
                    for (size_t i = 0; i < 5; i++)
                        for (size_t j = 0; j < 5; j++) {
                            attn_softmax_args s = a;
                            s.x = tensor_in_order(computing[d], 3, a.x.shape, orders[i], i % 2 * 3);
                            s.y = tensor_in_order(computing[d], 3, a.x.shape, orders[j], j % 3);
                            copy_values(a.x, s.x);
                            if (with && i % 2) {
                                s.mask = tensor_in_order(ATTN_BOOL, 3, a.x.shape, orders[j], 1);
                                s.bias = tensor_in_order(computing[d], 3, a.x.shape, orders[i], 0);
                                copy_values(a.mask, s.mask);
                                copy_values(a.bias, s.bias);
                            }
                            assert_ok(attn_softmax(&s, NULL));
                            assert_same(s.y, a.y);
                        }
                    free_blocks(NULL);
                }
}

static void moving_an_axis_last_is_softmax_along_it(void **state) {
    (void)state;
    uint64_t seed = 8;
    const int64_t shape[] = { 3, 40, 37 };
    attn_tensor x = tensor_of(ATTN_F32, 3, shape), y = tensor_of(ATTN_F32, 3, shape);
    fill_normal(x, 3, &seed);
    for (int32_t axis = -3; axis < 3; axis++) {
        attn_softmax_args a = { .x = attn_axis_last(x, axis), .y = attn_axis_last(y, axis) };
        assert_ok(attn_softmax(&a, NULL));
        check_rows(&a);
    }
}

static void in_place_gives_the_same_bits(void **state) {
    (void)state;
    uint64_t seed = 9;
    for (size_t o = 0; o < 3; o++)
        for (int with = 0; with < 2; with++)
            for (size_t i = 0; i < 5; i++) {
                attn_softmax_args a = random_problem(ATTN_F32, ops[o], 700, with, &seed), s = a;
                assert_ok(attn_softmax(&a, NULL));
                s.x = tensor_in_order(ATTN_F32, 3, a.x.shape, orders[i], 1);
                copy_values(a.x, s.x);
                s.y = s.x;
                assert_ok(attn_softmax(&s, NULL));
                assert_same(s.y, a.y);
                free_blocks(NULL);
            }
}

static void elements_between_those_of_a_strided_output_are_left_alone(void **state) {
    (void)state;
    uint64_t seed = 10;
    attn_tensor x = tensor2(ATTN_F32, 40, 300), wide = tensor2(ATTN_F32, 80, 600), y = wide;
    fill_normal(x, 1, &seed);
    y.shape[0] = 40, y.shape[1] = 300, y.stride[0] = 1200, y.stride[1] = 2;
    assert_ok(attn_softmax(&(attn_softmax_args){ .x = x, .y = y }, NULL));
    for (int64_t i = 0; i < 80; i++)
        for (int64_t j = 0; j < 600; j++) assert_true(!isnan(get(wide, i * 600 + j)) == (i % 2 == 0 && j % 2 == 0));
}

/* A mask and a bias of extents 1, or missing leading axes, repeat; so does a stride of 0 along the row. */
static void mask_and_bias_broadcast(void **state) {
    (void)state;
    static const int64_t shapes[][3] = { { 5, 1, 6 }, { 1, 4, 6 }, { 1, 1, 6 }, { 5, 4, 1 }, { 1, 1, 1 } };
    uint64_t seed = 11;
    for (size_t i = 0; i < 5; i++)
        for (int32_t rank = shapes[i][0] == 1 ? (shapes[i][1] == 1 ? 1 : 2) : 3; rank <= 3; rank++) {
            attn_softmax_args a = random_problem(ATTN_F32, ATTN_SOFTMAX, 6, true, &seed), s = a;
            s.mask = tensor_of(ATTN_BOOL, rank, shapes[i] + 3 - rank);
            s.bias = tensor_of(ATTN_F32, rank, shapes[i] + 3 - rank);
            fill_coin(s.mask, 0.6, &seed);
            fill_normal(s.bias, 1, &seed);
            for (int64_t b = 0; b < 5; b++)
                for (int64_t h = 0; h < 4; h++)
                    for (int64_t j = 0; j < 6; j++) {
                        const int64_t *e = shapes[i];
                        int64_t from = ((b % e[0]) * e[1] + h % e[1]) * e[2] + j % e[2];
                        put(a.mask, (b * 4 + h) * 6 + j, get(s.mask, from));
                        put(a.bias, (b * 4 + h) * 6 + j, get(s.bias, from));
                    }
            assert_ok(attn_softmax(&a, NULL));
            assert_ok(attn_softmax(&s, NULL));
            assert_same(s.y, a.y);
            free_blocks(NULL);
        }
}

static void an_f32_bias_serves_every_dtype(void **state) {
    (void)state;
    uint64_t seed = 12;
    const int32_t types[] = { ATTN_F64, ATTN_BF16, ATTN_F16 };
    for (size_t d = 0; d < 3; d++) {
        attn_tensor bias = tensor1(ATTN_F32, 300), x = tensor2(types[d], 3, 300), y = tensor2(types[d], 3, 300);
        attn_tensor expected = tensor2(types[d], 3, 300);
        for (int64_t i = 0; i < 300; i++) put(bias, i, (double)between(&seed, -4, 4)); /* exact in every dtype */
        fill_normal(x, 1, &seed);
        assert_ok(attn_softmax(&(attn_softmax_args){ .x = x, .y = y, .bias = bias }, NULL));
        assert_ok(attn_softmax(&(attn_softmax_args){ .x = x, .y = expected, .bias = dense_copy(bias, types[d]) }, NULL));
        assert_same(y, expected);
    }
}

static void a_row_has_the_same_bits_whatever_stands_beside_it(void **state) {
    (void)state;
    uint64_t seed = 13;
    attn_tensor x = tensor2(ATTN_F32, 9, 1000), y = tensor2(ATTN_F32, 9, 1000), one = tensor1(ATTN_F32, 1000);
    fill_normal(x, 3, &seed);
    for (int64_t i = 0; i < 1000; i++) put(x, 4 * 1000 + i, NAN);
    assert_ok(attn_softmax(&(attn_softmax_args){ .x = x, .y = y }, NULL));
    for (int64_t r = 0; r < 9; r++) {
        attn_tensor row = attn_dense(ATTN_F32, (float *)x.data + 1000 * r, 1, (int64_t[]){ 1000 });
        attn_tensor of_y = attn_dense(ATTN_F32, (float *)y.data + 1000 * r, 1, (int64_t[]){ 1000 });
        assert_ok(attn_softmax(&(attn_softmax_args){ .x = row, .y = one }, NULL));
        assert_same(one, of_y);
    }
}

static void threads_do_not_change_a_bit(void **state) {
    (void)state;
    static const int32_t threads[] = { 1, 2, 3, 7 };
    uint64_t seed = 14;
    for (int axis = 0; axis < 2; axis++) {
        attn_tensor x = attn_axis_last(tensor2(ATTN_F32, 130, 900), axis), y = x, alone = x, lse, lse_alone;
        y.data = poisoned(130 * 900 * sizeof(float));
        alone.data = poisoned(130 * 900 * sizeof(float));
        fill_normal(x, 3, &seed);
        lse = tensor1(ATTN_F32, x.shape[0]), lse_alone = tensor1(ATTN_F32, x.shape[0]);
        assert_ok(attn_softmax(&(attn_softmax_args){ .x = x, .y = alone }, NULL));
        assert_ok(attn_logsumexp(&(attn_softmax_args){ .x = x, .y = lse_alone }, NULL));
        for (int t = 0; t < 4; t++) {
            attn_exec exec = { 0 };
            assert_ok(attn_pool_open(&exec, threads[t]));
            assert_ok(attn_softmax(&(attn_softmax_args){ .x = x, .y = y }, &exec));
            assert_ok(attn_logsumexp(&(attn_softmax_args){ .x = x, .y = lse }, &exec));
            attn_pool_close(&exec);
            assert_same(y, alone);
            assert_same(lse, lse_alone);
        }
    }
}

/* There is no question that tells how much these calls want: any lent workspace does, and nothing is then allocated. */
static void any_lent_workspace_is_enough_and_nothing_is_allocated(void **state) {
    (void)state;
    uint64_t seed = 15;
    static char lent[1 << 20];
    attn_softmax_args a = random_problem(ATTN_F32, ATTN_SOFTMAX, 3000, true, &seed), s = a;
    s.x = tensor_in_order(ATTN_F32, 3, a.x.shape, orders[1], 0);
    s.y = tensor_in_order(ATTN_F32, 3, a.x.shape, orders[2], 1);
    copy_values(a.x, s.x);
    assert_ok(attn_softmax(&a, NULL));
    assert_ok(attn_softmax(&s, NULL));
    attn_softmax_grads g = { .dy = s.x, .dx = tensor_in_order(ATTN_F32, 3, a.x.shape, orders[3], 0) }, h = g;
    assert_ok(attn_softmax_backward(&s, &g, NULL));
    h.dx = tensor_in_order(ATTN_F32, 3, a.x.shape, orders[4], 2);
    for (size_t bytes = 1; bytes <= sizeof lent; bytes *= 1024) {
        attn_exec exec = { .workspace = lent + sizeof lent - bytes, .workspace_size = bytes };
        memory.allowed = 0, memory.for_ever = true;
        attn_status forward = attn_softmax(&s, &exec), backward = attn_softmax_backward(&s, &h, &exec);
        memory.allowed = -1;
        assert_int_equal(forward, ATTN_OK);
        assert_int_equal(backward, ATTN_OK);
        assert_same(s.y, a.y);
        assert_same(h.dx, g.dx);
    }
}

static void without_memory_the_status_says_so_and_nothing_leaks(void **state) {
    (void)state;
    attn_tensor x = attn_axis_last(tensor2(ATTN_F32, 3000, 64), 0), y = attn_axis_last(tensor2(ATTN_F32, 3000, 64), 0);
    fill(x, 1);
    long before = memory.live;
    memory.allowed = 0, memory.for_ever = true;
    attn_status status = attn_softmax(&(attn_softmax_args){ .x = x, .y = y }, NULL);
    memory.allowed = -1;
    assert_int_equal(status, ATTN_NO_MEMORY);
    assert_int_equal(memory.live, before);
    assert_untouched(y);
    assert_ok(attn_softmax(&(attn_softmax_args){ .x = x, .y = y }, NULL));
    assert_int_equal(memory.live, before);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(values_are_within_the_published_bound, free_blocks),
        cmocka_unit_test_teardown(awkward_rows_are_within_the_published_bound, free_blocks),
        cmocka_unit_test_teardown(scale_bias_and_mask_come_before_the_softmax, free_blocks),
        cmocka_unit_test_teardown(an_explicit_scale_of_zero_needs_its_flag, free_blocks),
        cmocka_unit_test_teardown(weights_lie_in_0_1_and_sum_to_1, free_blocks),
        cmocka_unit_test_teardown(softmin_is_the_softmax_of_the_negated_scores, free_blocks),
        cmocka_unit_test_teardown(log_softmax_keeps_what_the_log_of_softmax_loses, free_blocks),
        cmocka_unit_test_teardown(logsumexp_is_within_the_published_bound, free_blocks),
        cmocka_unit_test_teardown(sixteen_bit_types_are_rounded_once, free_blocks),
        cmocka_unit_test_teardown(worked_case_one_two_three, free_blocks),
        cmocka_unit_test_teardown(any_axis_and_strides_give_the_bits_of_dense_rows, free_blocks),
        cmocka_unit_test_teardown(moving_an_axis_last_is_softmax_along_it, free_blocks),
        cmocka_unit_test_teardown(in_place_gives_the_same_bits, free_blocks),
        cmocka_unit_test_teardown(elements_between_those_of_a_strided_output_are_left_alone, free_blocks),
        cmocka_unit_test_teardown(mask_and_bias_broadcast, free_blocks),
        cmocka_unit_test_teardown(an_f32_bias_serves_every_dtype, free_blocks),
        cmocka_unit_test_teardown(a_row_has_the_same_bits_whatever_stands_beside_it, free_blocks),
        cmocka_unit_test_teardown(threads_do_not_change_a_bit, free_blocks),
        cmocka_unit_test_teardown(any_lent_workspace_is_enough_and_nothing_is_allocated, free_blocks),
        cmocka_unit_test_teardown(without_memory_the_status_says_so_and_nothing_leaks, free_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
