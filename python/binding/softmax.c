/* SPDX-License-Identifier: Apache-2.0 */
/* The softmax family and the gates in Python. */
#include "binding.h"

/* ---- axes ------------------------------------------------------------------------------------------------ */

static bool read_axis(PyObject *o, const char *name, int32_t rank, int32_t *axis) {
    int64_t given;
    if (!read_integer("axis", o, &given)) return false;
    if (given < -rank || given >= rank)
        return PyErr_Format(PyExc_ValueError, "axis is %lld, and %s has %d axes", (long long)given, name, (int)rank), false;
    *axis = (int32_t)(given < 0 ? given + rank : given);
    return true;
}

/* A mask or bias beside x: its missing axes are extents of 1, and the same axis moves to the end. */
static attn_tensor beside(attn_tensor t, int32_t rank, int32_t axis) {
    if ((t.rank == 0 && !t.data) || t.rank > rank || axis == rank - 1) return t;
    attn_tensor full = { .data = t.data, .dtype = t.dtype, .rank = rank };
    for (int32_t i = 0, own = t.rank - rank; i < rank; i++, own++) {
        full.shape[i] = own < 0 ? 1 : t.shape[own];
        full.stride[i] = own < 0 ? 0 : t.stride[own];
    }
    return attn_axis_last(full, axis);
}

/* x, scale, mask and bias, as they stand in both softmax and logsumexp. x keeps its own axes. */
static bool read_operands(call *c, attn_softmax_args *a, int32_t *axis, PyObject *const *args) {
    if (!call_floats(c, "x", args[0], &a->x) || !read_axis(args[1], "x", a->x.rank, axis) ||
        !read_number("scale", args[2], &a->scale) || !call_optional(c, "mask", args[3], &a->mask) ||
        !call_optional(c, "bias", args[4], &a->bias))
        return false;
    a->flags = ATTN_SCALE_SET;
    return true;
}

static void move_operands(attn_softmax_args *a, int32_t axis) {
    a->mask = beside(a->mask, a->x.rank, axis);
    a->bias = beside(a->bias, a->x.rank, axis);
    a->x = attn_axis_last(a->x, axis);
}

/* ---- softmax and its kin --------------------------------------------------------------------------------- */

static const char alpha_says[] = "it is a number from 1 on", temperature_says[] = "it is a number above 0";

/* op, x, axis, scale, mask, bias, out, alpha, temperature, hard, seed */
static bool read_softmax(call *c, attn_softmax_args *a, int32_t *axis, PyObject *const *args) {
    int64_t op;
    bool hard;
    if (!read_integer("op", args[0], &op) || !read_operands(c, a, axis, args + 1)) return false;
    a->op = (int32_t)op;
    if (op == ATTN_ENTMAX && !read_nonzero("alpha", args[7], alpha_says, &a->alpha)) return false;
    if (op != ATTN_GUMBEL_SOFTMAX) return true;
    if (!read_nonzero("temperature", args[8], temperature_says, &a->temperature) || !read_truth(args[9], &hard) ||
        !read_seed("seed", args[10], &a->seed))
        return false;
    a->hard = hard;
    return true;
}

static bool read_out(call *c, attn_softmax_args *a, PyObject *out, attn_tensor *y) {
    return call_given_output(c, "out", out, y) && call_check_apart(c, "out", y, "x", &a->x, true) &&
           call_check_apart(c, "out", y, "mask", &a->mask, false) && call_check_apart(c, "out", y, "bias", &a->bias, false);
}

PyObject *softmax(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    call c;
    attn_softmax_args a = { 0 };
    attn_tensor y = { 0 };
    result made = { 0 };
    int32_t axis;
    PyObject *out = NULL;
    if (!count_arguments(n, 11)) return NULL;
    bool ok = call_begin(&c, module, args[1]) && read_softmax(&c, &a, &axis, args);
    bool given = args[6] != Py_None;
    ok = ok && (given ? read_out(&c, &a, args[6], &y) : call_output(&c, a.x.dtype, a.x.rank, a.x.shape, &made, &y));
    if (ok) {
        if (y.rank != a.x.rank) {
            PyErr_Format(PyExc_ValueError, "out has %d axes, x has %d", (int)y.rank, (int)a.x.rank);
            ok = false;
        } else {
            move_operands(&a, axis);
            a.y = attn_axis_last(y, axis);
            COMPUTE(c, ok, attn_softmax(&a, exec));
        }
    }
    if (ok) out = given ? Py_NewRef(args[6]) : call_result(&c, &made);
    result_drop(&made);
    call_end(&c);
    return out;
}

/* A tuple of two results, or the first alone. */
static PyObject *one_or_both(call *c, result *first, result *second, bool both) {
    PyObject *x = call_result(c, first);
    if (!x || !both) return x;
    PyObject *y = call_result(c, second);
    if (y) return Py_BuildValue("(NN)", x, y);
    Py_DECREF(x);
    return NULL;
}

/* op, dy or dx, y, axis, scale, alpha, temperature: what a gradient and a tangent begin with. */
static bool read_result(call *c, attn_softmax_args *a, int32_t *axis, const char *name, attn_tensor *beside_y,
                        PyObject *const *args) {
    int64_t op;
    if (!read_integer("op", args[0], &op) || !call_floats(c, name, args[1], beside_y) || !call_floats(c, "y", args[2], &a->y) ||
        !read_axis(args[3], "y", a->y.rank, axis) || !read_number("scale", args[4], &a->scale) ||
        (op == ATTN_ENTMAX && !read_nonzero("alpha", args[5], alpha_says, &a->alpha)) ||
        (op == ATTN_GUMBEL_SOFTMAX && !read_nonzero("temperature", args[6], temperature_says, &a->temperature)))
        return false;
    a->op = (int32_t)op;
    a->flags = ATTN_SCALE_SET;
    if (beside_y->rank == a->y.rank) return true;
    return PyErr_Format(PyExc_ValueError, "%s has %d axes, y has %d", name, (int)beside_y->rank, (int)a->y.rank), false;
}

/* op, dy, y, axis, scale, alpha, temperature, dalpha */
PyObject *softmax_backward(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    call c;
    attn_softmax_args a = { 0 };
    attn_softmax_grads g = { 0 };
    result dx = { 0 }, dalpha = { 0 };
    int32_t axis;
    bool with_alpha = false;
    PyObject *out = NULL;
    if (!count_arguments(n, 8)) return NULL;
    bool ok = call_begin(&c, module, args[1]) && read_result(&c, &a, &axis, "dy", &g.dy, args) &&
              read_truth(args[7], &with_alpha) && call_output(&c, a.y.dtype, a.y.rank, a.y.shape, &dx, &g.dx) &&
              (!with_alpha || call_output(&c, a.y.dtype == ATTN_F64 ? ATTN_F64 : ATTN_F32, 0, NULL, &dalpha, &g.dalpha));
    if (ok) {
        a.y = attn_axis_last(a.y, axis);
        g.dy = attn_axis_last(g.dy, axis);
        g.dx = attn_axis_last(g.dx, axis);
        COMPUTE(c, ok, attn_softmax_backward(&a, &g, exec));
    }
    if (ok) out = one_or_both(&c, &dx, &dalpha, with_alpha);
    result_drop(&dx);
    result_drop(&dalpha);
    call_end(&c);
    return out;
}

/* op, dx, y, axis, scale, alpha, temperature */
PyObject *softmax_jvp(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    call c;
    attn_softmax_args a = { 0 };
    attn_softmax_tangents t = { 0 };
    result dy = { 0 };
    int32_t axis;
    PyObject *out = NULL;
    if (!count_arguments(n, 7)) return NULL;
    bool ok = call_begin(&c, module, args[1]) && read_result(&c, &a, &axis, "dx", &t.dx, args) &&
              call_output(&c, a.y.dtype, a.y.rank, a.y.shape, &dy, &t.dy);
    if (ok) {
        a.y = attn_axis_last(a.y, axis);
        t.dx = attn_axis_last(t.dx, axis);
        t.dy = attn_axis_last(t.dy, axis);
        COMPUTE(c, ok, attn_softmax_jvp(&a, &t, exec));
    }
    if (ok) out = call_result(&c, &dy);
    result_drop(&dy);
    call_end(&c);
    return out;
}

/* ---- logsumexp ------------------------------------------------------------------------------------------- */

/* x's extents without `axis`. */
static void without_axis(const attn_tensor *x, int32_t axis, int64_t shape[ATTN_MAX_RANK]) {
    for (int32_t i = 0, to = 0; i < x->rank; i++)
        if (i != axis) shape[to++] = x->shape[i];
}

/* x, axis, scale, mask, bias */
PyObject *logsumexp(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    call c;
    attn_softmax_args a = { 0 };
    result y = { 0 };
    int64_t shape[ATTN_MAX_RANK];
    int32_t axis;
    PyObject *out = NULL;
    if (!count_arguments(n, 5)) return NULL;
    bool ok = call_begin(&c, module, args[0]) && read_operands(&c, &a, &axis, args);
    if (ok) without_axis(&a.x, axis, shape);
    ok = ok && call_output(&c, a.x.dtype, a.x.rank - 1, shape, &y, &a.y);
    if (ok) {
        move_operands(&a, axis);
        COMPUTE(c, ok, attn_logsumexp(&a, exec));
    }
    if (ok) out = call_result(&c, &y);
    result_drop(&y);
    call_end(&c);
    return out;
}

/* dy, x, axis, scale, mask, bias */
PyObject *logsumexp_backward(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    call c;
    attn_softmax_args a = { 0 };
    attn_softmax_grads g = { 0 };
    result dx = { 0 };
    int32_t axis;
    PyObject *out = NULL;
    if (!count_arguments(n, 6)) return NULL;
    bool ok = call_begin(&c, module, args[1]) && call_floats(&c, "dy", args[0], &g.dy) &&
              read_operands(&c, &a, &axis, args + 1) && call_output(&c, a.x.dtype, a.x.rank, a.x.shape, &dx, &g.dx);
    if (ok) {
        g.dx = attn_axis_last(g.dx, axis);
        move_operands(&a, axis);
        COMPUTE(c, ok, attn_logsumexp_backward(&a, &g, exec));
    }
    if (ok) out = call_result(&c, &dx);
    result_drop(&dx);
    call_end(&c);
    return out;
}

/* dx, x, axis, scale, mask, bias */
PyObject *logsumexp_jvp(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    call c;
    attn_softmax_args a = { 0 };
    attn_softmax_tangents t = { 0 };
    result dy = { 0 };
    int64_t shape[ATTN_MAX_RANK];
    int32_t axis;
    PyObject *out = NULL;
    if (!count_arguments(n, 6)) return NULL;
    bool ok = call_begin(&c, module, args[1]) && call_floats(&c, "dx", args[0], &t.dx) && read_operands(&c, &a, &axis, args + 1);
    if (ok && t.dx.rank != a.x.rank) {
        PyErr_Format(PyExc_ValueError, "dx has %d axes, x has %d", (int)t.dx.rank, (int)a.x.rank);
        ok = false;
    }
    if (ok) without_axis(&a.x, axis, shape);
    ok = ok && call_output(&c, a.x.dtype, a.x.rank - 1, shape, &dy, &t.dy);
    if (ok) {
        t.dx = attn_axis_last(t.dx, axis);
        move_operands(&a, axis);
        COMPUTE(c, ok, attn_logsumexp_jvp(&a, &t, exec));
    }
    if (ok) out = call_result(&c, &dy);
    result_drop(&dy);
    call_end(&c);
    return out;
}

/* ---- routers and sampling -------------------------------------------------------------------------------- */

static const char *const orders[] = { "softmax-top-k", "top-k-softmax", "sigmoid-top-k", NULL };

/* axis, order, normalize, bias, scale: what a router and its gradient share. */
static bool read_router(call *c, attn_top_k_softmax_args *a, int32_t *axis, PyObject *const *args) {
    bool normalize;
    if (!read_axis(args[0], "logits", a->logits.rank, axis) || !read_choice("order", args[1], orders, &a->order) ||
        !read_truth(args[2], &normalize) || !call_optional(c, "bias", args[3], &a->bias) ||
        !read_number("scale", args[4], &a->scale))
        return false;
    a->normalize = normalize;
    a->flags = ATTN_SCALE_SET;
    return true;
}

/* logits, k, axis, order, normalize, bias, scale */
PyObject *top_k_softmax(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    call c;
    attn_top_k_softmax_args a = { 0 };
    result index = { 0 }, weight = { 0 };
    int64_t k, shape[ATTN_MAX_RANK];
    int32_t axis;
    PyObject *out = NULL;
    if (!count_arguments(n, 7)) return NULL;
    bool ok = call_begin(&c, module, args[0]) && call_floats(&c, "logits", args[0], &a.logits) &&
              read_integer("k", args[1], &k) && read_router(&c, &a, &axis, args + 2);
    if (ok && k < 0) {
        PyErr_Format(PyExc_ValueError, "k is %lld: it is how many are chosen", (long long)k);
        ok = false;
    }
    for (int32_t i = 0; ok && i < a.logits.rank; i++) shape[i] = i == axis ? k : a.logits.shape[i];
    ok = ok && call_output(&c, ATTN_I32, a.logits.rank, shape, &index, &a.index) &&
         call_output(&c, a.logits.dtype, a.logits.rank, shape, &weight, &a.weight);
    if (ok) {
        a.logits = attn_axis_last(a.logits, axis);
        a.index = attn_axis_last(a.index, axis);
        a.weight = attn_axis_last(a.weight, axis);
        COMPUTE(c, ok, attn_top_k_softmax(&a, exec));
    }
    if (ok) out = one_or_both(&c, &index, &weight, true);
    result_drop(&index);
    result_drop(&weight);
    call_end(&c);
    return out;
}

/* dweight, logits, index, axis, order, normalize, bias, scale */
PyObject *top_k_softmax_backward(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    call c;
    attn_top_k_softmax_args a = { 0 };
    attn_top_k_softmax_grads g = { 0 };
    result dlogits = { 0 };
    int32_t axis;
    PyObject *out = NULL;
    if (!count_arguments(n, 8)) return NULL;
    bool ok = call_begin(&c, module, args[1]) && call_floats(&c, "dweight", args[0], &g.dweight) &&
              call_floats(&c, "logits", args[1], &a.logits) && call_input(&c, "index", args[2], &a.index) &&
              read_router(&c, &a, &axis, args + 3);
    if (ok && (a.index.rank != a.logits.rank || g.dweight.rank != a.logits.rank)) {
        PyErr_Format(PyExc_ValueError, "index has %d axes and dweight %d, logits has %d", (int)a.index.rank, (int)g.dweight.rank,
                     (int)a.logits.rank);
        ok = false;
    }
    ok = ok && call_output(&c, a.logits.dtype, a.logits.rank, a.logits.shape, &dlogits, &g.dlogits);
    if (ok) {
        a.logits = attn_axis_last(a.logits, axis);
        a.index = attn_axis_last(a.index, axis);
        g.dweight = attn_axis_last(g.dweight, axis);
        g.dlogits = attn_axis_last(g.dlogits, axis);
        COMPUTE(c, ok, attn_top_k_softmax_backward(&a, &g, exec));
    }
    if (ok) out = call_result(&c, &dlogits);
    result_drop(&dlogits);
    call_end(&c);
    return out;
}

/* logits, axis, temperature, top_k, top_p, min_p, seed, probability */
PyObject *sample(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    call c;
    attn_sample_args a = { 0 };
    result index = { 0 }, probability = { 0 };
    int64_t shape[ATTN_MAX_RANK];
    int32_t axis;
    bool with_probability = false;
    PyObject *out = NULL;
    if (!count_arguments(n, 8)) return NULL;
    bool ok = call_begin(&c, module, args[0]) && call_floats(&c, "logits", args[0], &a.logits) &&
              read_axis(args[1], "logits", a.logits.rank, &axis) && read_number("temperature", args[2], &a.temperature) &&
              read_integer("top_k", args[3], &a.top_k) &&
              read_nonzero("top_p", args[4], "it is a number above 0, at most 1", &a.top_p) &&
              read_number("min_p", args[5], &a.min_p) && read_seed("seed", args[6], &a.seed) &&
              read_truth(args[7], &with_probability);
    if (ok) without_axis(&a.logits, axis, shape);
    ok = ok && call_output(&c, ATTN_I32, a.logits.rank - 1, shape, &index, &a.index) &&
         (!with_probability || call_output(&c, a.logits.dtype, a.logits.rank - 1, shape, &probability, &a.probability));
    if (ok) {
        a.logits = attn_axis_last(a.logits, axis);
        COMPUTE(c, ok, attn_sample(&a, exec));
    }
    if (ok) out = one_or_both(&c, &index, &probability, with_probability);
    result_drop(&index);
    result_drop(&probability);
    call_end(&c);
    return out;
}

/* ---- gates ----------------------------------------------------------------------------------------------- */

static const char *const gate_kinds[] = { "sigmoid", "additive", "multiplicative", NULL };

/* x, g, kind */
PyObject *gate(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    call c;
    attn_gate_args a = { 0 };
    result y = { 0 };
    PyObject *out = NULL;
    if (!count_arguments(n, 3)) return NULL;
    bool ok = call_begin(&c, module, args[0]) && call_floats(&c, "x", args[0], &a.x) && call_floats(&c, "g", args[1], &a.g) &&
              read_choice("kind", args[2], gate_kinds, &a.kind) && call_output(&c, a.x.dtype, a.x.rank, a.x.shape, &y, &a.y);
    if (ok) COMPUTE(c, ok, attn_gate(&a, exec));
    if (ok) out = call_result(&c, &y);
    result_drop(&y);
    call_end(&c);
    return out;
}

/* dy, x, g, kind */
PyObject *gate_backward(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    call c;
    attn_gate_args a = { 0 };
    attn_gate_grads g = { 0 };
    result dx = { 0 }, dg = { 0 };
    PyObject *out = NULL;
    if (!count_arguments(n, 4)) return NULL;
    bool ok = call_begin(&c, module, args[1]) && call_floats(&c, "dy", args[0], &g.dy) && call_floats(&c, "x", args[1], &a.x) &&
              call_floats(&c, "g", args[2], &a.g) && read_choice("kind", args[3], gate_kinds, &a.kind) &&
              call_output(&c, a.x.dtype, a.x.rank, a.x.shape, &dx, &g.dx) &&
              call_output(&c, a.g.dtype, a.g.rank, a.g.shape, &dg, &g.dg);
    if (ok) COMPUTE(c, ok, attn_gate_backward(&a, &g, exec));
    if (ok) out = one_or_both(&c, &dx, &dg, true);
    result_drop(&dx);
    result_drop(&dg);
    call_end(&c);
    return out;
}
