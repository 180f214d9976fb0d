/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of forward mode and of second derivatives share: problems of the dot score and the softmax with every other
 * option, directions of their inputs, and the inputs moved along them. */
#ifndef ATTENTION_DIRECTIONS_H
#define ATTENTION_DIRECTIONS_H

#include "attention_bounds.h"

/* A random problem whose score and weighting have second derivatives. */
static inline attn_attention_args smooth_problem(uint64_t *seed, int32_t dtype) {
    attn_attention_args a = random_problem(seed, dtype);
    const bool was_softmax = a.weighting == ATTN_WEIGHT_SOFTMAX;
    a.score = ATTN_DOT;
    a.weighting = ATTN_WEIGHT_SOFTMAX;
    a.score_weight = (attn_tensor){ 0 };
    a.alpha = 0;
    a.see = (attn_see){ .lse = tensor3(accumulator(dtype), a.q.shape[0], a.q.shape[1], a.q.shape[2]) };
    if (!was_softmax && between(seed, 0, 2) == 0) {
        a.sinks = tensor1(dtype, a.q.shape[1]);
        for (int64_t h = 0; h < a.q.shape[1]; h++) put(a.sinks, h, 3 * normal(seed));
    }
    return a;
}

/* Four heads, two of keys and one of values, small enough for differences in every element; option `which` of SMALL_OPTIONS. */
enum { SMALL_OPTIONS = 11 };
static inline attn_attention_args small_smooth_problem(int which, uint64_t seed) {
    static const problem_shape z = { 2, 4, 2, 1, 4, 5, 3, 2 };
    attn_attention_args a = problem(z, ATTN_F64, seed);
    a.see.lse = tensor3(ATTN_F64, z.b, z.h, z.q_len);
    if (which == 1) a.causal = ATTN_CAUSAL;
    if (which == 2) a.causal = ATTN_CAUSAL_TOP_LEFT;
    if (which == 3) a.softcap = 0.9;
    if (which == 4 || which == 10) {
        a.flags = ATTN_WINDOW;
        a.window[0] = 1;
    }
    if (which == 5 || which == 10) {
        a.mask = tensor4(ATTN_BOOL, z.b, 1, z.q_len, z.kv_len);
        fill_coin(a.mask, &seed, 0.6);
        for (int64_t j = 0; j < z.kv_len; j++) put(a.mask, j, 0); /* and a row that sees no key */
    }
    if (which == 6 || which == 10) {
        a.q_lengths = values1(ATTN_I32, 2, (double[]){ 3, 0 });
        a.kv_lengths = values1(ATTN_I32, 2, (double[]){ 4, 5 });
    }
    if (which == 7 || which == 10) {
        a.bias = tensor2(ATTN_F64, z.q_len, z.kv_len);
        fill_normal(a.bias, &seed);
        put(a.bias, 7, -INFINITY);
        a.alibi = values1(ATTN_F64, 4, (double[]){ 0.3, 0.2, 0.1, 0 });
    }
    if (which == 8 || which == 10) {
        a.sinks = tensor1(ATTN_F64, z.h);
        fill_normal(a.sinks, &seed);
        put(a.sinks, 2, 3);
    }
    if (which == 9 || which == 10) {
        a.dropout = 0.3;
        a.seed = 11;
        a.scale = 1.3;
        a.softcap = 2;
    }
    return a;
}

static inline attn_tensor normal_like(attn_tensor t, uint64_t *seed) {
    if (!t.rank) return t;
    attn_tensor direction = tensor_of(t.dtype, t.rank, t.shape);
    fill_normal(direction, seed);
    return direction;
}

/* x + h dx; -inf and what has no direction stay. */
static inline attn_tensor moved(attn_tensor x, attn_tensor dx, double h) {
    if (!dx.rank) return x;
    attn_tensor to = tensor_of(x.dtype, x.rank, x.shape);
    for (int64_t n = 0; n < attn_count(&x); n++) put(to, n, get(x, n) + h * get(dx, n));
    return to;
}

/* Of absent ones: 0. */
static inline double inner(attn_tensor x, attn_tensor y) {
    double sum = 0;
    for (int64_t n = 0; x.rank && y.rank && n < attn_count(&x); n++) sum += get(x, n) * get(y, n);
    return sum;
}

static inline attn_tensor in_f64_copy(attn_tensor t) { return t.rank ? dense_copy(t, ATTN_F64) : t; }

#endif
