/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of operations share: tensors that end at a guard page, hold NaN until they are written and are freed together,
 * elements by their row-major number, random numbers. Include it after cmocka.h, with _GNU_SOURCE defined. */
#ifndef ATTN_TESTS_TENSORS_H
#define ATTN_TESTS_TENSORS_H

#include "src/ref/element.h"
#include "src/tensor.h"

#include <attn/attn.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- memory ------------------------------------------------------------------------------------------------ */

enum { MOST_BLOCKS = 8192 };
static struct {
    void *at;
    size_t size;
} blocks[MOST_BLOCKS];
static size_t n_blocks;

/* Bytes of 0xff (NaN in every float dtype) right before a page that nobody may touch. */
static inline void *poisoned(size_t bytes) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), size = (bytes + page - 1) / page * page + page;
    char *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(at != MAP_FAILED && n_blocks < MOST_BLOCKS);
    assert_int_equal(mprotect(at + size - page, page, PROT_NONE), 0);
    blocks[n_blocks].at = at;
    blocks[n_blocks++].size = size;
    memset(at, 0xff, size - page);
    return at + size - page - bytes;
}

static inline int free_blocks(void **state) {
    (void)state;
    while (n_blocks) {
        n_blocks--;
        munmap(blocks[n_blocks].at, blocks[n_blocks].size);
    }
    return 0;
}

/* ---- tensors ----------------------------------------------------------------------------------------------- */

static inline attn_tensor tensor_of(int32_t dtype, int32_t rank, const int64_t *shape) {
    int64_t n = 1;
    for (int32_t i = 0; i < rank; i++) n *= shape[i];
    return attn_dense(dtype, poisoned((size_t)n * attn_dtype_size(dtype)), rank, shape);
}
static inline attn_tensor tensor1(int32_t dtype, int64_t n) { return tensor_of(dtype, 1, (int64_t[]){ n }); }
static inline attn_tensor tensor2(int32_t dtype, int64_t r, int64_t c) { return tensor_of(dtype, 2, (int64_t[]){ r, c }); }

/* The element offset of the n-th element in row-major order. */
static inline int64_t nth(const attn_tensor *t, int64_t n) {
    int64_t offset = 0;
    for (int32_t i = t->rank - 1; i >= 0; i--) {
        offset += n % t->shape[i] * t->stride[i];
        n /= t->shape[i];
    }
    return offset;
}
static inline double get(attn_tensor t, int64_t n) { return ref_load(t.data, t.dtype, nth(&t, n)); }
static inline void put(attn_tensor t, int64_t n, double x) { ref_store(t.data, t.dtype, nth(&t, n), x); }
static inline void fill(attn_tensor t, double x) {
    for (int64_t n = 0; n < attn_count(&t); n++) put(t, n, x);
}
static inline attn_tensor values1(int32_t dtype, int64_t n, const double *x) {
    attn_tensor t = tensor1(dtype, n);
    for (int64_t i = 0; i < n; i++) put(t, i, x[i]);
    return t;
}

/* A dense tensor of the same shape and values. */
static inline attn_tensor dense_copy(attn_tensor t, int32_t dtype) {
    attn_tensor copy = tensor_of(dtype, t.rank, t.shape);
    for (int64_t n = 0; n < attn_count(&t); n++) put(copy, n, get(t, n));
    return copy;
}

/* A tensor of this shape whose axes lie in memory in the given order, outermost first, with `gap` elements between neighbours
 * along the innermost and after each run. */
static inline attn_tensor tensor_in_order(int32_t dtype, int32_t rank, const int64_t *shape, const int *order, int64_t gap) {
    attn_tensor t = { .dtype = dtype, .rank = rank };
    int64_t size = 1 + gap;
    for (int32_t i = rank - 1; i >= 0; i--) {
        int axis = order[i];
        t.shape[axis] = shape[axis];
        t.stride[axis] = size;
        size = size * shape[axis] + gap;
    }
    t.data = poisoned((size_t)size * attn_dtype_size(dtype));
    return t;
}

static inline void copy_values(attn_tensor from, attn_tensor to) {
    for (int64_t n = 0; n < attn_count(&from); n++) put(to, n, get(from, n));
}

/* Equal values, NaN being equal to NaN. */
static inline void assert_same(attn_tensor a, attn_tensor b) {
    assert_true(attn_same_shape(&a, &b));
    for (int64_t n = 0; n < attn_count(&a); n++) {
        double x = get(a, n), y = get(b, n);
        if (x != y && !(isnan(x) && isnan(y))) fail_msg("element %lld: %.17g and %.17g", (long long)n, x, y);
    }
}

static inline void assert_untouched(attn_tensor t) {
    for (int64_t n = 0; n < attn_count(&t); n++)
        if (!isnan(get(t, n))) fail_msg("element %lld was written: %g", (long long)n, get(t, n));
}

#define assert_ok(call)                                                                                                          \
    do {                                                                                                                         \
        if ((call) != ATTN_OK) fail_msg("%s", attn_last_error());                                                                \
    } while (0)

/* Refused with this status and a message that holds these words. */
#define assert_refused(call, status, words)                                                                                      \
    do {                                                                                                                         \
        assert_int_equal((call), (status));                                                                                      \
        if (!strstr(attn_last_error(), (words))) fail_msg("message \"%s\" lacks \"%s\"", attn_last_error(), (words));            \
    } while (0)

/* ---- random numbers ------------------------------------------------------------------------------------------ */

static inline uint64_t random_word(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}
static inline double uniform(uint64_t *state) { return ((double)(random_word(state) >> 11) + 0.5) * 0x1p-53; }
static inline int64_t between(uint64_t *state, int64_t low, int64_t high) {
    return low + (int64_t)(random_word(state) % (uint64_t)(high - low + 1));
}
static inline double normal(uint64_t *state) {
    double radius = sqrt(-2 * log(uniform(state)));
    return radius * cos(6.283185307179586 * uniform(state));
}
static inline void fill_normal(attn_tensor t, double sd, uint64_t *state) {
    for (int64_t n = 0; n < attn_count(&t); n++) put(t, n, sd * normal(state));
}
static inline void fill_coin(attn_tensor t, double p_true, uint64_t *state) {
    for (int64_t n = 0; n < attn_count(&t); n++) put(t, n, uniform(state) < p_true);
}

#endif
