/* SPDX-License-Identifier: Apache-2.0 */
/* Rotary position embedding and linear attention in Python. */
#include "binding.h"

#include <attn/ops.h>

/* ---- rotary position embedding ---------------------------------------------------------------------------- */

/* cos, sin, positions, interleaved, rotary_dim, heads: what both ways share. */
static bool read_rope(call *c, PyObject *const *args, attn_rope_args *a) {
    bool interleaved;
    bool ok = call_floats(c, "cos", args[0], &a->cos) && call_floats(c, "sin", args[1], &a->sin) &&
              call_optional(c, "positions", args[2], &a->positions) && read_truth(args[3], &interleaved) &&
              read_integer("rotary_dim", args[4], &a->rotary_dim) && read_integer("heads", args[5], &a->heads);
    if (ok && interleaved) a->flags = ATTN_ROPE_INTERLEAVED;
    return ok;
}

/* x, cos, sin, positions, interleaved, rotary_dim, heads */
PyObject *rope(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    call c;
    attn_rope_args a = { 0 };
    result y = { 0 };
    PyObject *out = NULL;
    if (!count_arguments(n, 7)) return NULL;
    bool ok = call_begin(&c, module, args[0]) && call_floats(&c, "x", args[0], &a.x) && read_rope(&c, args + 1, &a) &&
              call_output(&c, a.x.dtype, a.x.rank, a.x.shape, &y, &a.y);
    if (ok) COMPUTE(c, ok, attn_rope(&a, exec));
    if (ok) out = call_result(&c, &y);
    result_drop(&y);
    call_end(&c);
    return out;
}

/* dy, cos, sin, positions, interleaved, rotary_dim, heads */
PyObject *rope_backward(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    call c;
    attn_rope_args a = { 0 };
    attn_rope_grads g = { 0 };
    result dx = { 0 };
    PyObject *out = NULL;
    if (!count_arguments(n, 7)) return NULL;
    bool ok = call_begin(&c, module, args[0]) && call_floats(&c, "dy", args[0], &g.dy) && read_rope(&c, args + 1, &a) &&
              call_output(&c, g.dy.dtype, g.dy.rank, g.dy.shape, &dx, &g.dx);
    if (ok) COMPUTE(c, ok, attn_rope_backward(&a, &g, exec));
    if (ok) out = call_result(&c, &dx);
    result_drop(&dx);
    call_end(&c);
    return out;
}

/* ---- linear attention --------------------------------------------------------------------------------------- */

static const char *const rules[] = { "linear", "gated", "delta", "gated_delta", NULL };

/* q, k, v, rule, decay, beta, past_state, scale: what both ways share. */
static bool read_linear(call *c, PyObject *const *args, attn_linear_attention_args *a) {
    bool ok = call_floats(c, "q", args[0], &a->q) && call_floats(c, "k", args[1], &a->k) && call_floats(c, "v", args[2], &a->v) &&
              read_choice("rule", args[3], rules, &a->rule) && call_optional(c, "decay", args[4], &a->decay) &&
              call_optional(c, "beta", args[5], &a->beta) && call_optional(c, "past_state", args[6], &a->past_state);
    if (ok && args[7] != Py_None) ok = read_nonzero("scale", args[7], "leave it out for the default", &a->scale);
    if (ok && (a->q.rank != 4 || a->k.rank != 4 || a->v.rank != 4)) {
        PyErr_Format(PyExc_ValueError, "q, k and v have %d, %d and %d axes: they are [batch, heads, length, dim]", (int)a->q.rank,
                     (int)a->k.rank, (int)a->v.rank);
        ok = false;
    }
    return ok;
}

static bool is_there(const attn_tensor *t) { return t->rank != 0 || t->data; }

/* The results as a tuple, None where there is none. */
static PyObject *tuple_of(call *c, result *results, int n) {
    PyObject *all = PyTuple_New(n);
    for (int i = 0; all && i < n; i++) {
        PyObject *one = call_result(c, &results[i]);
        if (!one || PyTuple_SetItem(all, i, one)) Py_CLEAR(all);
    }
    return all;
}

/* q, k, v, rule, decay, beta, past_state, scale */
PyObject *linear_attention(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    enum { OUT, STATE, RESULTS };
    call c;
    attn_linear_attention_args a = { 0 };
    result r[RESULTS] = { { 0 } };
    PyObject *out = NULL;
    if (!count_arguments(n, 8)) return NULL;
    bool ok = call_begin(&c, module, args[0]) && read_linear(&c, args, &a);
    if (ok) {
        const int64_t outs[] = { a.q.shape[0], a.q.shape[1], a.q.shape[2], a.v.shape[3] };
        const int64_t states[] = { a.k.shape[0], a.k.shape[1], a.k.shape[3], a.v.shape[3] };
        ok = call_output(&c, a.q.dtype, 4, outs, &r[OUT], &a.out) &&
             call_output(&c, is_there(&a.past_state) ? a.past_state.dtype : a.q.dtype, 4, states, &r[STATE], &a.state);
    }
    if (ok) COMPUTE(c, ok, attn_linear_attention(&a, exec));
    if (ok) out = tuple_of(&c, r, RESULTS);
    for (int i = 0; i < RESULTS; i++) result_drop(&r[i]);
    call_end(&c);
    return out;
}

/* dout, q, k, v, rule, decay, beta, past_state, scale, dstate */
PyObject *linear_attention_backward(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    enum { RESULTS = 6 };
    call c;
    attn_linear_attention_args a = { 0 };
    attn_linear_attention_grads g = { 0 };
    result r[RESULTS] = { { 0 } };
    PyObject *out = NULL;
    if (!count_arguments(n, 10)) return NULL;
    bool ok = call_begin(&c, module, args[1]) && call_floats(&c, "dout", args[0], &g.dout) && read_linear(&c, args + 1, &a) &&
              call_optional(&c, "dstate", args[9], &g.dstate);
    const attn_tensor *const inputs[RESULTS] = { &a.q, &a.k, &a.v, &a.decay, &a.beta, &a.past_state };
    attn_tensor *const gradients[RESULTS] = { &g.dq, &g.dk, &g.dv, &g.ddecay, &g.dbeta, &g.dpast_state };
    for (int i = 0; ok && i < RESULTS; i++)
        if (is_there(inputs[i])) ok = call_output(&c, inputs[i]->dtype, inputs[i]->rank, inputs[i]->shape, &r[i], gradients[i]);
    if (ok) COMPUTE(c, ok, attn_linear_attention_backward(&a, &g, exec));
    if (ok) out = tuple_of(&c, r, RESULTS);
    for (int i = 0; i < RESULTS; i++) result_drop(&r[i]);
    call_end(&c);
    return out;
}
