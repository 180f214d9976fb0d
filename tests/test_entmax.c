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
static const double alphas[] = { 1, 1.0001, 1.05, 1.25, 1.5, 1.7, 1.95, 2, 2.5, 3 };
enum { N_ALPHAS = sizeof alphas / sizeof *alphas };
static const int64_t lengths[] = { 1, 2, 3, 5, 8, 15, 16, 17, 33, 64, 100, 129, 257, 513, 700, 1030, 3000 };
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
        if (!(off <= ENTMAX_C + log((double)n))) fail_msg("alpha %g, n %lld: weights sum to 1 + %g units", alpha, (long long)n, off);
    }
    free(z);
}

static void values_are_within_the_published_bound(void **state) {
    (void)state;
    uint64_t seed = 1;
    for (size_t d = 0; d < 2; d++)
        for (size_t m = 0; m < N_ALPHAS; m++)
            for (size_t l = 0; l < N_LENGTHS; l++)
                for (double sd = 0.003; sd < 200; sd *= 9) {
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
    static const int64_t n_of[] = { 1, 2, 17, 300, 1031, 9000 };
    for (size_t d = 0; d < 2; d++)
        for (size_t m = 0; m < N_ALPHAS; m++)
            for (int kind = 0; kind < 9; kind++)
                for (size_t l = 0; l < 6; l++) {
                    if (n_of[l] > 2000 && alphas[m] == 1.5) continue; /* the oracle takes long there */
                    attn_tensor x = tensor1(computing[d], n_of[l]), y = tensor1(computing[d], n_of[l]);
                    for (int64_t i = 0; i < n_of[l]; i++) put(x, i, awkward(kind, i, n_of[l]));
                    attn_softmax_args a = entmax_of(alphas[m], x, y);
                    assert_ok(attn_softmax(&a, NULL));
                    check_rows(alphas[m], x, y);
                    free_blocks(NULL);
                }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(values_are_within_the_published_bound, free_blocks),
        cmocka_unit_test_teardown(awkward_rows_are_within_the_published_bound, free_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
