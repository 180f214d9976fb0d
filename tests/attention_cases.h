/* SPDX-License-Identifier: Apache-2.0 */
/* What the attention tests share: tensors that are freed together, random problems, and the reference's answer in float64 to
 * the very same inputs. Include it after cmocka.h. */
#ifndef ATTENTION_CASES_H
#define ATTENTION_CASES_H

#include "src/attention_reference.h"
#include "src/ref/element.h"

#include <attn/attn.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- memory: poisoned, and freed after each test ----------------------------------------------------------- */

enum { MOST_BLOCKS = 65536 };
static void *blocks[MOST_BLOCKS];
static size_t n_blocks;

static inline void *poisoned(size_t bytes) {
    void *block = malloc(bytes ? bytes : 1);
    assert_non_null(block);
    assert_true(n_blocks < MOST_BLOCKS);
    memset(block, 0xff, bytes); /* NaN in every float dtype */
    blocks[n_blocks++] = block;
    return block;
}

static inline int free_blocks(void **state) {
    (void)state;
    while (n_blocks) free(blocks[--n_blocks]);
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
static inline attn_tensor tensor3(int32_t dtype, int64_t b, int64_t h, int64_t n) {
    return tensor_of(dtype, 3, (int64_t[]){ b, h, n });
}
static inline attn_tensor tensor4(int32_t dtype, int64_t b, int64_t h, int64_t r, int64_t c) {
    return tensor_of(dtype, 4, (int64_t[]){ b, h, r, c });
}

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
static inline double get4(attn_tensor t, int64_t b, int64_t h, int64_t r, int64_t c) {
    return ref_load(t.data, t.dtype, b * t.stride[0] + h * t.stride[1] + r * t.stride[2] + c * t.stride[3]);
}
static inline void put4(attn_tensor t, int64_t b, int64_t h, int64_t r, int64_t c, double x) {
    ref_store(t.data, t.dtype, b * t.stride[0] + h * t.stride[1] + r * t.stride[2] + c * t.stride[3], x);
}
static inline double get3(attn_tensor t, int64_t b, int64_t h, int64_t r) {
    return ref_load(t.data, t.dtype, b * t.stride[0] + h * t.stride[1] + r * t.stride[2]);
}
static inline void fill(attn_tensor t, double x) {
    for (int64_t n = 0; n < attn_count(&t); n++) put(t, n, x);
}

static inline attn_tensor values1(int32_t dtype, int64_t n, const double *x) {
    attn_tensor t = tensor1(dtype, n);
    for (int64_t i = 0; i < n; i++) put(t, i, x[i]);
    return t;
}

static inline attn_tensor dense_copy(attn_tensor t, int32_t dtype) {
    attn_tensor copy = tensor_of(dtype, t.rank, t.shape);
    for (int64_t n = 0; n < attn_count(&t); n++) put(copy, n, get(t, n));
    return copy;
}

/* A view of the same values with gaps between its elements and its first two axes swapped in memory. */
static inline attn_tensor strided_copy(attn_tensor t) {
    attn_tensor copy = t;
    int64_t size = 3;
    static const int order[] = { 3, 1, 2, 0 };
    for (int i = 0; i < 4; i++) {
        int axis = order[i];
        copy.stride[axis] = size;
        size = size * t.shape[axis] + 5;
    }
    copy.data = poisoned((size_t)size * attn_dtype_size(t.dtype));
    for (int64_t n = 0; n < attn_count(&t); n++) put(copy, n, get(t, n));
    return copy;
}

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
static inline void fill_normal(attn_tensor t, uint64_t *state) {
    for (int64_t n = 0; n < attn_count(&t); n++) put(t, n, normal(state));
}
static inline void fill_coin(attn_tensor t, uint64_t *state, double p_true) {
    for (int64_t n = 0; n < attn_count(&t); n++) put(t, n, uniform(state) < p_true);
}

/* ---- problems -------------------------------------------------------------------------------------------------- */

typedef struct problem_shape {
    int64_t b, h, k_heads, v_heads, q_len, kv_len, dim, v_dim;
} problem_shape;

static inline attn_attention_args problem(problem_shape z, int32_t dtype, uint64_t seed) {
    attn_attention_args a = { .q = tensor4(dtype, z.b, z.h, z.q_len, z.dim),
                              .k = tensor4(dtype, z.b, z.k_heads, z.kv_len, z.dim),
                              .v = tensor4(dtype, z.b, z.v_heads, z.kv_len, z.v_dim),
                              .out = tensor4(dtype, z.b, z.h, z.q_len, z.v_dim) };
    fill_normal(a.q, &seed);
    fill_normal(a.k, &seed);
    fill_normal(a.v, &seed);
    return a;
}

static inline int32_t accumulator(int32_t dtype) { return dtype == ATTN_F64 ? ATTN_F64 : ATTN_F32; }

static inline bool has_entropy(int32_t weighting) {
    return weighting == ATTN_WEIGHT_SOFTMAX || (weighting >= ATTN_WEIGHT_SPARSEMAX && weighting != ATTN_WEIGHT_RELU2);
}

/* Everything there is to see of `a`, in fresh tensors. */
static inline attn_see see_all(const attn_attention_args *a, int64_t top_k) {
    int64_t b = a->q.shape[0], h = a->q.shape[1], l = a->q.shape[2], s = a->k.shape[2];
    int32_t dtype = accumulator(a->q.dtype);
    attn_see see = { .received = tensor3(dtype, b, h, s),
                     .weights = tensor4(dtype, b, h, l, s),
                     .scores = tensor4(dtype, b, h, l, s),
                     .top_index = tensor4(ATTN_I32, b, h, l, top_k),
                     .top_weight = tensor4(dtype, b, h, l, top_k),
                     .pooled = tensor4(dtype, b, h, 3, 5) };
    if (a->weighting == ATTN_WEIGHT_SOFTMAX) see.lse = tensor3(dtype, b, h, l);
    if (has_entropy(a->weighting)) see.entropy = tensor3(dtype, b, h, l);
    return see;
}

/* The same problem with every float input as f64 and outputs of its own. */
static inline attn_attention_args in_f64(attn_attention_args a) {
    attn_tensor *inputs[] = { &a.q, &a.k, &a.v, &a.bias, &a.alibi, &a.score_weight, &a.sinks };
    for (int i = 0; i < 7; i++)
        if (inputs[i]->rank) *inputs[i] = dense_copy(*inputs[i], ATTN_F64);
    a.out = tensor4(ATTN_F64, a.q.shape[0], a.q.shape[1], a.q.shape[2], a.v.shape[3]);
    a.see = (attn_see){ 0 };
    return a;
}

/* Options by coin: every combination of what composes turns up. */
static inline attn_attention_args random_problem(uint64_t *seed, int32_t dtype) {
    int64_t group_k = between(seed, 1, 2), group_v = between(seed, 1, 2), b = between(seed, 1, 3);
    problem_shape z = {
        b, 2 * between(seed, 1, 2), 0, 0, between(seed, 1, 40), between(seed, 2, 90), between(seed, 1, 40), between(seed, 1, 40)
    };
    z.k_heads = z.h / group_k;
    z.v_heads = z.h / group_v;
    attn_attention_args a = problem(z, dtype, random_word(seed));
    int64_t score = between(seed, 0, 7);
    if (score == 2 && z.dim > 1) a.score = ATTN_COSINE; /* of one number it is its sign, and dq is 0 */
    if (score < 2) {
        a.score = ATTN_ADDITIVE;
        a.score_weight = tensor1(dtype, z.dim);
        for (int64_t d = 0; d < z.dim; d++) put(a.score_weight, d, normal(seed) / sqrt((double)z.dim));
    }
    if (between(seed, 0, 2) == 0) a.causal = (int32_t)between(seed, 1, 2);
    if (between(seed, 0, 2) == 0) {
        a.flags |= ATTN_WINDOW;
        a.window[0] = between(seed, -1, 30);
        a.window[1] = between(seed, -1, 30);
    }
    if (a.causal != ATTN_CAUSAL_TOP_LEFT && between(seed, 0, 2) == 0) {
        a.offset = tensor1(ATTN_I64, b);
        for (int64_t n = 0; n < b; n++) put(a.offset, n, (double)between(seed, -10, 50));
    }
    if (between(seed, 0, 2) == 0) {
        a.mask = tensor4(ATTN_BOOL, between(seed, 0, 1) ? b : 1, between(seed, 0, 1) ? z.h : 1, z.q_len, z.kv_len);
        fill_coin(a.mask, seed, 0.7);
    }
    if (between(seed, 0, 2) == 0) {
        a.bias = tensor4(dtype, 1, z.h, between(seed, 0, 1) ? z.q_len : 1, z.kv_len);
        fill_normal(a.bias, seed);
        put(a.bias, between(seed, 0, attn_count(&a.bias) - 1), -INFINITY);
    }
    if (between(seed, 0, 2) == 0) {
        a.alibi = tensor1(dtype, z.h);
        for (int64_t h = 0; h < z.h; h++) put(a.alibi, h, ldexp(1, (int)(-h - 1)));
    }
    if (between(seed, 0, 2) == 0) {
        a.q_lengths = tensor1(ATTN_I32, b);
        a.kv_lengths = tensor1(ATTN_I64, b);
        for (int64_t n = 0; n < b; n++) {
            put(a.q_lengths, n, (double)between(seed, 0, z.q_len));
            put(a.kv_lengths, n, (double)between(seed, 0, z.kv_len));
        }
    }
    if (between(seed, 0, 2) == 0) a.softcap = 0.5 + 5 * uniform(seed);
    if (between(seed, 0, 2) == 0) a.scale = normal(seed);
    static const int32_t others[] = { ATTN_WEIGHT_SIGMOID,  ATTN_WEIGHT_RELU2,  ATTN_WEIGHT_SPARSEMAX,
                                      ATTN_WEIGHT_ENTMAX15, ATTN_WEIGHT_ENTMAX, ATTN_WEIGHT_HARDMAX };
    if (between(seed, 0, 1) == 0) a.weighting = others[between(seed, 0, 5)];
    if (a.weighting == ATTN_WEIGHT_ENTMAX) a.alpha = 1 + uniform(seed);
    if (a.weighting == ATTN_WEIGHT_SOFTMAX && between(seed, 0, 2) == 0) {
        a.sinks = tensor1(dtype, z.h);
        for (int64_t h = 0; h < z.h; h++) put(a.sinks, h, 3 * normal(seed));
    }
    if (between(seed, 0, 3) == 0) {
        a.dropout = 0.5 * uniform(seed);
        a.seed = random_word(seed);
        a.dropout_offset = (uint64_t)between(seed, 0, 1) * random_word(seed);
    }
    a.see = see_all(&a, between(seed, 1, 5));
    return a;
}

static inline void attend(const attn_attention_args *a) {
    attn_status s = attn_attention(a, NULL);
    if (s != ATTN_OK) fail_msg("attn_attention: %s", attn_last_error());
}

static inline void attend_backward(const attn_attention_args *a, const attn_attention_grads *g) {
    attn_status s = attn_attention_backward(a, g, NULL);
    if (s != ATTN_OK) fail_msg("attn_attention_backward: %s", attn_last_error());
}

/* src/ref's own answer, whatever kernels would say. */
static inline void attend_by_reference(const attn_attention_args *a) {
    attn_attention_plan plan;
    attn_session session;
    assert_int_equal(attn_attention_plan_forward(&plan, a, ATTN_PLAN_CALL), ATTN_OK);
    assert_int_equal(attn_session_open(&session, NULL, attn_reference_need(&plan)), ATTN_OK);
    attn_reference_forward(&plan, &session);
    attn_session_close(&session);
}

static inline void attend_backward_by_reference(const attn_attention_args *a, const attn_attention_grads *g) {
    attn_attention_plan plan;
    attn_attention_plan_grads grads;
    attn_session session;
    assert_int_equal(attn_attention_plan_backward(&plan, &grads, a, g, ATTN_PLAN_CALL), ATTN_OK);
    assert_int_equal(attn_session_open(&session, NULL, attn_reference_backward_need(&plan, &grads)), ATTN_OK);
    attn_reference_backward(&plan, &grads, &session);
    attn_session_close(&session);
}

/* ---- comparisons ------------------------------------------------------------------------------------------------- */

static inline double relative_rms(attn_tensor x, attn_tensor exact) {
    double error = 0, size = 0;
    for (int64_t n = 0; n < attn_count(&exact); n++) {
        double e = get(exact, n), d = get(x, n) - e;
        error += d * d;
        size += e * e;
    }
    if (error == 0) return 0;
    return sqrt(error / size);
}

static inline void assert_rms_within(const char *what, attn_tensor x, attn_tensor exact, double bound) {
    double rms = relative_rms(x, exact);
    if (!(rms <= bound)) fail_msg("%s: relative rms error %g, bound %g", what, rms, bound);
}

/* |x - exact| <= bound, NaN equal to NaN and infinities to themselves. */
static inline void assert_close(double x, double exact, double bound) {
    if (x == exact || (isnan(x) && isnan(exact))) return;
    if (!(fabs(x - exact) <= bound)) fail_msg("%.17g instead of %.17g (bound %g)", x, exact, bound);
}

static inline void assert_all_close(const char *what, attn_tensor x, attn_tensor exact, double bound) {
    for (int64_t n = 0; n < attn_count(&exact); n++) {
        double a = get(x, n), e = get(exact, n);
        if (a == e || (isnan(a) && isnan(e))) continue;
        if (!(fabs(a - e) <= bound)) fail_msg("%s[%lld]: %.17g instead of %.17g (bound %g)", what, (long long)n, a, e, bound);
    }
}

/* Absent tensors are the same. */
static inline void assert_same_bits(const char *what, attn_tensor x, attn_tensor y) {
    if (!x.rank && !y.rank) return;
    size_t size = attn_dtype_size(x.dtype);
    for (int64_t n = 0; n < attn_count(&x); n++)
        if (memcmp((char *)x.data + nth(&x, n) * (int64_t)size, (char *)y.data + nth(&y, n) * (int64_t)size, size))
            fail_msg("%s[%lld]: %.17g and %.17g are not the same bits", what, (long long)n, get(x, n), get(y, n));
}

static inline void assert_all(const char *what, attn_tensor t, double x) {
    for (int64_t n = 0; n < attn_count(&t); n++)
        if (!(get(t, n) == x || (isnan(x) && isnan(get(t, n)))))
            fail_msg("%s[%lld] is %g, not %g", what, (long long)n, get(t, n), x);
}

#endif
