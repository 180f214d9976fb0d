/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of ops.h share: random layouts, units of rounding, and calls on several numbers of threads. Include after
 * tests/tensors.h. */
#ifndef ATTN_TESTS_OPS_CASES_H
#define ATTN_TESTS_OPS_CASES_H

#include <attn/ops.h>

/* Lengths at which vectors, panels, tiles and blocks begin and end. */
static const int64_t lengths[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33, 48, 49, 63, 64, 65, 97, 100, 129 };
enum { N_LENGTHS = sizeof lengths / sizeof lengths[0] };

static inline int64_t any_length(uint64_t *seed) { return lengths[between(seed, 0, N_LENGTHS - 1)]; }

/* Half a unit in the last place of 1: what one rounding costs, relatively. Halfs store their results with it. */
static inline double rounding(int32_t dtype) {
    return dtype == ATTN_F64 ? 0x1p-53 : dtype == ATTN_F32 ? 0x1p-24 : dtype == ATTN_F16 ? 0x1p-11 : 0x1p-8;
}
static inline double smallest(int32_t dtype) { return dtype == ATTN_F64 ? 0x1p-1022 : dtype == ATTN_F16 ? 0x1p-14 : 0x1p-126; }

/* A matrix in either order of axes, dense or with gaps. */
static inline attn_tensor any_matrix(int32_t dtype, int64_t rows, int64_t cols, uint64_t *seed) {
    static const int orders[2][2] = { { 0, 1 }, { 1, 0 } };
    int64_t gap = between(seed, 0, 2) ? 0 : between(seed, 1, 3);
    return tensor_in_order(dtype, 2, (int64_t[]){ rows, cols }, orders[between(seed, 0, 1)], gap);
}
static inline attn_tensor any_vector(int32_t dtype, int64_t n, uint64_t *seed) {
    static const int order[1] = { 0 };
    return tensor_in_order(dtype, 1, &n, order, between(seed, 0, 2) ? 0 : between(seed, 1, 3));
}
static inline attn_tensor normal_matrix(int32_t dtype, int64_t rows, int64_t cols, uint64_t *seed) {
    attn_tensor t = any_matrix(dtype, rows, cols, seed);
    fill_normal(t, 1, seed);
    return t;
}
static inline attn_tensor normal_vector(int32_t dtype, int64_t n, uint64_t *seed) {
    attn_tensor t = any_vector(dtype, n, seed);
    fill_normal(t, 1, seed);
    return t;
}

static inline ref_matrix matrix_of(attn_tensor t) {
    return t.rank ? (ref_matrix){ t.data, t.stride[0], t.stride[1], t.dtype } : (ref_matrix){ 0 };
}
static inline ref_vector vector_of(attn_tensor t) {
    return t.rank ? (ref_vector){ t.data, t.stride[0], t.dtype } : (ref_vector){ 0 };
}

/* The numbers of threads that results must not depend on. */
static const int32_t thread_counts[] = { 1, 2, 3, 7 };
enum { N_THREAD_COUNTS = 4 };

/* Within `bound` of what is expected; equal infinities and NaN beside NaN are. */
static inline void assert_within(const char *what, int64_t n, double got, double expected, double bound) {
    if (isnan(expected) ? isnan(got) : got == expected || fabs(got - expected) <= bound) return;
    fail_msg("%s, element %lld: %.9g, expected %.9g within %.3g", what, (long long)n, got, expected, bound);
}

/* The numbers that torch gave under `name`, as F64: tests/oracle/make_ops.py wrote them. */
static inline attn_tensor torch_gave(const char *name, int64_t n) {
    attn_tensor t = tensor1(ATTN_F64, n);
    FILE *file = fopen(TEST_DATA "/ops.txt", "r");
    char word[64];
    assert_non_null(file);
    while (fscanf(file, "%63s", word) == 1 && strcmp(word, name)) {}
    assert_string_equal(word, name);
    for (int64_t i = 0; i < n; i++) {
        assert_int_equal(fscanf(file, "%63s", word), 1);
        put(t, i, strtod(word, NULL));
    }
    fclose(file);
    return t;
}
static inline attn_tensor as_matrix(attn_tensor t, int64_t rows, int64_t cols) {
    return attn_dense(t.dtype, t.data, 2, (int64_t[]){ rows, cols });
}

#endif
