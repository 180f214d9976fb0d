/* SPDX-License-Identifier: Apache-2.0 */
/* The definition of linear attention and its delta rules: the recurrence of one head of keys and values, token by token, with a
 * state [key_dim, value_dim] in double. */
#ifndef ATTN_REF_LINEAR_ATTENTION_H
#define ATTN_REF_LINEAR_ATTENTION_H

#include "element.h"

#include <stdbool.h>

/* Several heads of queries, `head` elements apart. */
typedef struct ref_heads {
    ref_matrix first;
    int64_t head;
} ref_heads;

/* One head of keys and values, and the `group` heads of queries that read its state. */
typedef struct ref_linear_attention {
    int64_t length, group, key_dim, value_dim;
    bool delta; /* what the state already answers to a key is taken off its value */
    double scale;
    ref_matrix k, v;  /* [length, key_dim], [length, value_dim] */
    ref_heads q;      /* of [length, key_dim] */
    ref_matrix decay; /* absent; or logarithms, [length, key_dim] where `each`, else [length, 1] */
    bool each;
    ref_vector beta; /* [length], of the delta rules */
} ref_linear_attention;

/* One token: turns the state before it into the state after it; `value` [value_dim] is what was written with the key. */
void ref_linear_step(const ref_linear_attention *p, int64_t t, double *state, double *value);
/* out [group] of [length, value_dim]: row t becomes scale * state^T q of that token. */
void ref_linear_read(const ref_linear_attention *p, int64_t t, const double *state, ref_heads out);

/* Gradients; each may be absent. */
typedef struct ref_linear_grads {
    ref_heads dout, dq; /* of [length, value_dim], given; of [length, key_dim] */
    ref_matrix dk, dv, ddecay;
    ref_vector dbeta;
} ref_linear_grads;

/* Token t: `before` and `after` are the states around it, and dstate goes from the gradient after it to that before it.
 * work has 2 * (key_dim + value_dim) numbers. */
void ref_linear_step_backward(const ref_linear_attention *p, const ref_linear_grads *g, int64_t t, const double *before,
                              const double *after, double *dstate, double *work);

#endif
