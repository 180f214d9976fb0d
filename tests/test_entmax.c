/* SPDX-License-Identifier: Apache-2.0 */
/* Sparsemax, entmax-1.5 and alpha-entmax: values within the published bound of an oracle that sorts, the properties of weights, the same
 * bits whatever the strides, threads and memory. Masks, infinities and refusals are in test_softmax_edges.c. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "src/ref/softmax.h"

#include "tests/failing_malloc.h"
#include "tests/tensors.h"
#include "tests/entmax_bounds.h"

static const int32_t computing[] = { ATTN_F32, ATTN_F64 };
static const double alphas[] = { 1, 1.0001, 1.05, 1.25, 1.5, 1.7, 1.95, 2, 2.001, 2.5, 3, 6 };
enum { N_ALPHAS = sizeof alphas / sizeof *alphas };
static const int64_t lengths[] = { 1, 2, 3, 5, 8, 15, 16, 17, 33, 64, 100, 129, 257, 513, 1030, 2200 };
enum { N_LENGTHS = sizeof lengths / sizeof *lengths };

/* The operation with this alpha: by its own name where it has one. */
static attn_softmax_args entmax_of(double alpha, attn_tensor x, attn_tensor y) {
    attn_softmax_args a = { .op = alpha == 2 ? ATTN_SPARSEMAX : alpha == 1.5 ? ATTN_ENTMAX15 : ATTN_ENTMAX, .x = x, .y = y };
    if (a.op == ATTN_ENTMAX) a.alpha = alpha;
    return a;
}

/* ---- values -------------------------------------------------------------------------------------------- */

/* The rows of y against the oracle for the scores x as they are. */
static void check_rows(double alpha, attn_tensor x, attn_tensor y) {
    int64_t n = x.shape[x.rank - 1];
    long double *z = malloc((size_t)n * 2 * sizeof *z), *p = z + n;
    for (int64_t row = 0; row < attn_row_count(&x); row++) {
        long double max = -INFINITY, sum = 0;
        for (int64_t i = 0; i < n; i++) z[i] = get(x, row * n + i), max = z[i] > max ? z[i] : max;
        entmax_truth(alpha, z, n, p);
        for (int64_t i = 0; i < n; i++) {
            double value = get(y, row * n + i), units = entmax_units(alpha, x.dtype, max - z[i], p[i], value);
            assert_true(value >= 0 && value <= 1);
            if (!(units <= ENTMAX_C))
                fail_msg("alpha %g, n %lld: weight %.17g, exactly %.20Lg, at distance %Lg: off by %g units", alpha, (long long)n,
                         value, p[i], max - z[i], units);
            sum += value;
        }
        double off = (double)fabsl(sum - 1) / unit_of(x.dtype);
        if (!(off <= ENTMAX_C + log((double)n)))
            fail_msg("alpha %g, n %lld: weights sum to 1 + %g units", alpha, (long long)n, off);
    }
    free(z);
}

static void values_are_within_the_published_bound(void **state) {
    (void)state;
    uint64_t seed = 1;
    for (size_t d = 0; d < 2; d++)
        for (size_t m = 0; m < N_ALPHAS; m++)
            for (size_t l = 0; l < N_LENGTHS; l++)
                for (double sd = 0.003; sd < 200; sd *= 30) {
                    attn_tensor x = tensor2(computing[d], 1, lengths[l]), y = tensor2(computing[d], 1, lengths[l]);
                    fill_normal(x, sd, &seed);
                    attn_softmax_args a = entmax_of(alphas[m], x, y);
                    assert_ok(attn_softmax(&a, NULL));
                    check_rows(alphas[m], x, y);
                    free_blocks(NULL);
                }
}

/* All equal, a single large one, ties, steps, large offsets, the largest and the smallest numbers, one far above many that just have
 * weight, many that just have none. */
static double awkward(int kind, int64_t i, int64_t n) {
    switch (kind) {
    case 0: return 0.1;
    case 1: return i == n / 2 ? 300 : -300;
    case 2: return -(double)(i % 5);
    case 3: return -1e-4 * (double)i;
    case 4: return 1e6 + 0.0625 * (double)(i % 9);
    case 5: return i % 2 ? 3e38 : -3e38;
    case 6: return i % 3 ? 1e-42 : -1e-42;
    case 7: return i == 0 ? 1e-3 : -0.9;
    default: return i == n - 1 ? 0 : -1;
    }
}

static void awkward_rows_are_within_the_published_bound(void **state) {
    (void)state;
    static const int64_t n_of[] = { 1, 2, 17, 300, 700, 2600 };
    for (size_t d = 0; d < 2; d++)
        for (size_t m = 0; m < N_ALPHAS; m++)
            for (int kind = 0; kind < 9; kind++)
                for (size_t l = 0; l < 6; l++) {
                    if (n_of[l] > 700 && (alphas[m] < 1.25 || kind < 3)) continue; /* the oracle takes long */
                    attn_tensor x = tensor1(computing[d], n_of[l]), y = tensor1(computing[d], n_of[l]);
                    for (int64_t i = 0; i < n_of[l]; i++) put(x, i, awkward(kind, i, n_of[l]));
                    attn_softmax_args a = entmax_of(alphas[m], x, y);
                    assert_ok(attn_softmax(&a, NULL));
                    check_rows(alphas[m], x, y);
                    free_blocks(NULL);
                }
}

static void worked_cases(void **state) {
    (void)state;
    /* by hand: tau = 0.5 + 0.5 - 0.5 ... of [1, 0.5, -1]: (1 + 0.5 - 1)/2 = 0.25; of [0, 0.5, 1]/2: all three, mean 0.25 */
    attn_tensor x = values1(ATTN_F64, 3, (double[]){ 1, 0.5, -1 }), y = tensor1(ATTN_F64, 3);
    attn_softmax_args a = entmax_of(2, x, y);
    assert_ok(attn_softmax(&a, NULL));
    assert_true(get(y, 0) == 0.75 && get(y, 1) == 0.25 && get(y, 2) == 0);
    x = values1(ATTN_F64, 2, (double[]){ 1, 0 });
    y = tensor1(ATTN_F64, 2);
    a = entmax_of(1.5, x, y); /* (d - tau)^2 at 0 and -1/2: mean -1/4, tau = -1/4 - sqrt((1 - 1/8)/2) */
    assert_ok(attn_softmax(&a, NULL));
    assert_true(fabs(sqrt(get(y, 0)) - (0.25 + sqrt(7) / 4)) <= 2e-16);
    assert_true(fabs(sqrt(get(y, 1)) - (sqrt(7) / 4 - 0.25)) <= 2e-16);
}

static void alphas_with_a_name_are_what_it_names(void **state) {
    (void)state;
    static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_BF16 };
    static const int32_t names[] = { ATTN_SOFTMAX, ATTN_ENTMAX15, ATTN_SPARSEMAX, ATTN_ENTMAX15 };
    static const double of[] = { 1, 1.5, 2, 0 };
    uint64_t seed = 2;
    for (size_t d = 0; d < 3; d++)
        for (size_t i = 0; i < 4; i++) {
            attn_tensor x = tensor2(dtypes[d], 4, 90), y = tensor2(dtypes[d], 4, 90), expected = tensor2(dtypes[d], 4, 90);
            fill_normal(x, 2, &seed);
            assert_ok(attn_softmax(&(attn_softmax_args){ .op = names[i], .x = x, .y = expected }, NULL));
            assert_ok(attn_softmax(&(attn_softmax_args){ .op = ATTN_ENTMAX, .alpha = of[i], .x = x, .y = y }, NULL));
            assert_same(y, expected);
        }
}

static void a_large_alpha_leaves_the_largest_scores(void **state) {
    (void)state;
    attn_tensor x = values1(ATTN_F64, 5, (double[]){ 1, 3, 2.5, 3, -7 }), y = tensor1(ATTN_F64, 5);
    for (double alpha = 4; alpha < 1e6; alpha *= 3) {
        attn_softmax_args a = entmax_of(alpha, x, y);
        assert_ok(attn_softmax(&a, NULL));
        for (int64_t i = 0; i < 5; i++) assert_true(fabs(get(y, i) - (i == 1 || i == 3 ? 0.5 : 0)) < 1e-15);
    }
}

static void scale_bias_and_mask_come_first(void **state) {
    (void)state;
    uint64_t seed = 3;
    for (size_t d = 0; d < 2; d++)
        for (size_t m = 0; m < N_ALPHAS; m++)
            for (size_t l = 0; l < N_LENGTHS; l++) {
                const int64_t n = lengths[l];
                attn_tensor z = tensor2(computing[d], 2, n), y = tensor2(computing[d], 2, n);
                attn_softmax_args a = entmax_of(alphas[m], tensor2(computing[d], 2, n), y);
                a.scale = -0.5, a.mask = tensor2(ATTN_BOOL, 2, n), a.bias = tensor2(computing[d], 2, n);
                for (int64_t i = 0; i < 2 * n; i++) { /* exact in either type, with or without fma */
                    put(a.x, i, (double)between(&seed, -2000, 2000) / 512);
                    put(a.bias, i, (double)between(&seed, -2000, 2000) / 512);
                    put(a.mask, i, uniform(&seed) < 0.7);
                    put(z, i, get(a.mask, i) ? get(a.bias, i) - 0.5 * get(a.x, i) : -INFINITY);
                }
                put(a.mask, 0, 1), put(a.mask, n, 1); /* a row is live */
                put(z, 0, get(a.bias, 0) - 0.5 * get(a.x, 0)), put(z, n, get(a.bias, n) - 0.5 * get(a.x, n));
                assert_ok(attn_softmax(&a, NULL));
                check_rows(alphas[m], z, y);
                free_blocks(NULL);
            }
}

/* Shifting by what is exact changes no bit; permuting changes what rounding does, no more; larger scores get no smaller weights. */
static void weights_do_not_know_a_constant_nor_an_order(void **state) {
    (void)state;
    uint64_t seed = 4;
    for (size_t d = 0; d < 2; d++)
        for (size_t m = 0; m < N_ALPHAS; m++)
            for (size_t l = 0; l < N_LENGTHS; l++) {
                const int64_t n = lengths[l];
                attn_tensor x = tensor1(computing[d], n), y = tensor1(computing[d], n), shifted = tensor1(computing[d], n),
                            of_shifted = tensor1(computing[d], n), turned = tensor1(computing[d], n),
                            of_turned = tensor1(computing[d], n);
                for (int64_t i = 0; i < n; i++) {
                    put(x, i, (double)between(&seed, -1024, 1024) / 256);
                    put(shifted, i, get(x, i) + 32);
                }
                for (int64_t i = 0; i < n; i++) put(turned, i, get(x, n - 1 - i));
                attn_softmax_args a = entmax_of(alphas[m], x, y), b = entmax_of(alphas[m], shifted, of_shifted),
                                  c = entmax_of(alphas[m], turned, of_turned);
                assert_ok(attn_softmax(&a, NULL));
                assert_ok(attn_softmax(&b, NULL));
                assert_ok(attn_softmax(&c, NULL));
                assert_same(of_shifted, y);
                for (int64_t i = 0; i < n; i++)
                    assert_true(entmax_units(alphas[m], computing[d], 8, get(y, i), get(of_turned, n - 1 - i)) <= 2 * ENTMAX_C);
                for (int64_t i = 1; i < n; i++)
                    if (get(x, i) >= get(x, i - 1)) assert_true(get(y, i) >= get(y, i - 1));
                free_blocks(NULL);
            }
}

/* As from the same numbers in f32, rounded. */
static void sixteen_bit_types_are_rounded_once(void **state) {
    (void)state;
    static const int32_t types[] = { ATTN_BF16, ATTN_F16 };
    uint64_t seed = 5;
    for (size_t d = 0; d < 2; d++)
        for (size_t m = 0; m < N_ALPHAS; m++) {
            attn_tensor x = tensor2(types[d], 3, 40), y = tensor2(types[d], 3, 40), wide = tensor2(ATTN_F32, 3, 40);
            fill_normal(x, 1, &seed);
            attn_softmax_args a = entmax_of(alphas[m], x, y), b = entmax_of(alphas[m], x, wide);
            attn_tensor f32 = dense_copy(x, ATTN_F32), once = tensor1(types[d], 1);
            attn_softmax_args c = entmax_of(alphas[m], f32, f32);
            assert_ok(attn_softmax(&a, NULL));
            assert_ok(attn_softmax(&b, NULL));
            assert_ok(attn_softmax(&c, NULL));
            for (int64_t i = 0; i < 3 * 40; i++) {
                put(once, 0, get(f32, i));
                assert_true(get(wide, i) == get(f32, i));
                assert_true(get(y, i) == get(once, 0));
            }
            free_blocks(NULL);
        }
}

/* The row of doubles that attention uses is the same definition. */
static void the_row_of_doubles_is_the_definition(void **state) {
    (void)state;
    uint64_t seed = 6;
    for (size_t m = 0; m < N_ALPHAS; m++) {
        double s[50], p[50];
        bool live[50];
        attn_tensor x = tensor1(ATTN_F64, 50), y = tensor1(ATTN_F64, 50);
        for (int64_t i = 0; i < 50; i++) {
            live[i] = i % 3 != 1;
            s[i] = live[i] ? normal(&seed) : NAN;
            put(x, i, live[i] ? s[i] : -INFINITY);
        }
        ref_entmax_row(alphas[m], 50, live, s, p);
        attn_softmax_args a = entmax_of(alphas[m], x, y);
        assert_ok(attn_softmax(&a, NULL));
        for (int64_t i = 0; i < 50; i++) assert_true(entmax_units(alphas[m], ATTN_F64, 8, p[i], get(y, i)) <= ENTMAX_C);
        for (int64_t i = 0; i < 50; i++) live[i] = false;
        ref_entmax_row(alphas[m], 50, live, s, p);
        for (int64_t i = 0; i < 50; i++) assert_true(p[i] == 0);
    }
}

/* ---- the same bits ------------------------------------------------------------------------------------------ */

static const int orders[][2] = { { 0, 1 }, { 1, 0 } };

/* Also where rows come in pieces: there are 70000 elements in them, or no memory is lent. */
static void strides_place_threads_and_memory_do_not_change_a_bit(void **state) {
    (void)state;
    static const int64_t n_of[] = { 5, 130, 700, 3000, 70000 };
    static const double of[] = { 1.3, 1.5, 2, 2.5 };
    static const double sd[] = { 1e-3, 0.5 };
    uint64_t seed = 7;
    static char lent[64];
    attn_exec small = { .workspace = lent, .workspace_size = sizeof lent }, pool = { 0 };
    assert_ok(attn_pool_open(&pool, 3));
    for (size_t d = 0; d < 2; d++)
        for (size_t m = 0; m < 4; m++)
            for (size_t l = 0; l < 5; l++)
                for (int way = 0; way < 8; way++) {
                    const int64_t shape[] = { n_of[l] > 10000 ? 2 : 19, n_of[l] };
                    if (n_of[l] > 10000 && (way % 4 == 3 || of[m] > 2)) continue;
                    attn_softmax_args a = entmax_of(of[m], tensor_of(computing[d], 2, shape), tensor_of(computing[d], 2, shape)),
                                      s = a;
                    fill_normal(a.x, sd[way & 1], &seed);
                    if (way & 2) {
                        s.mask = a.mask = tensor_of(ATTN_BOOL, 2, shape);
                        fill_coin(a.mask, 0.9, &seed);
                    }
                    assert_ok(attn_softmax(&a, NULL));
                    s.x = tensor_in_order(computing[d], 2, shape, orders[1], 1);
                    s.y = way & 4 ? s.x : tensor_in_order(computing[d], 2, shape, orders[way & 1], 2);
                    const attn_exec *execs[] = { NULL, &small, &pool };
                    for (int e = 0; e < 3; e++) {
                        copy_values(a.x, s.x);
                        assert_ok(attn_softmax(&s, execs[e]));
                        assert_same(s.y, a.y);
                    }
                    free_blocks(NULL);
                }
    attn_pool_close(&pool);
}

static void any_lent_workspace_is_enough_and_nothing_is_allocated(void **state) {
    (void)state;
    uint64_t seed = 8;
    static char lent[4096];
    const int64_t shape[] = { 9, 800 };
    for (int op = 0; op < 3; op++) {
        attn_softmax_args a =
            entmax_of(op == 0   ? 1.3
                      : op == 1 ? 1.5
                                : 2,
                      tensor_in_order(ATTN_F32, 2, shape, orders[1], 0), tensor_in_order(ATTN_F32, 2, shape, orders[1], 1));
        attn_softmax_grads g = { .dy = a.x, .dx = tensor_in_order(ATTN_F32, 2, shape, orders[1], 1) };
        if (op == 0) g.dalpha = tensor1(ATTN_F64, 1);
        attn_exec exec = { .workspace = lent, .workspace_size = sizeof lent };
        fill_normal(a.x, 1, &seed);
        memory.allowed = 0, memory.for_ever = true;
        attn_status forward = attn_softmax(&a, &exec), backward = attn_softmax_backward(&a, &g, &exec);
        memory.allowed = -1;
        assert_int_equal(forward, ATTN_OK);
        assert_int_equal(backward, ATTN_OK);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(values_are_within_the_published_bound, free_blocks),
        cmocka_unit_test_teardown(awkward_rows_are_within_the_published_bound, free_blocks),
        cmocka_unit_test_teardown(worked_cases, free_blocks),
        cmocka_unit_test_teardown(alphas_with_a_name_are_what_it_names, free_blocks),
        cmocka_unit_test_teardown(a_large_alpha_leaves_the_largest_scores, free_blocks),
        cmocka_unit_test_teardown(scale_bias_and_mask_come_first, free_blocks),
        cmocka_unit_test_teardown(weights_do_not_know_a_constant_nor_an_order, free_blocks),
        cmocka_unit_test_teardown(sixteen_bit_types_are_rounded_once, free_blocks),
        cmocka_unit_test_teardown(the_row_of_doubles_is_the_definition, free_blocks),
        cmocka_unit_test_teardown(strides_place_threads_and_memory_do_not_change_a_bit, free_blocks),
        cmocka_unit_test_teardown(any_lent_workspace_is_enough_and_nothing_is_allocated, free_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
