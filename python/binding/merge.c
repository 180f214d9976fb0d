/* SPDX-License-Identifier: Apache-2.0 */
/* Merging parts of attention in Python. */
#include "binding.h"

/* The parts of a call, and the gradients to them. */
typedef struct parts {
    Py_ssize_t n;
    attn_tensor *outs, *lses, *douts, *dlses; /* one block of memory */
} parts;

static bool read_part(call *c, const char *list, Py_ssize_t i, PyObject *o, attn_tensor *t) {
    char name[64];
    PyOS_snprintf(name, sizeof name, "%s[%zd]", list, i);
    return call_floats(c, name, o, t);
}

/* Two lists. */
static bool read_parts(call *c, PyObject *outs, PyObject *lses, parts *p) {
    p->n = PyList_Size(outs);
    if (PyList_Size(lses) != p->n)
        return PyErr_Format(PyExc_ValueError, "outs are %zd and lses %zd: each part has both", p->n, PyList_Size(lses)), false;
    p->outs = PyMem_Calloc((size_t)p->n, 4 * sizeof *p->outs);
    if (!p->outs) return PyErr_NoMemory(), false;
    p->lses = p->outs + p->n;
    p->douts = p->lses + p->n;
    p->dlses = p->douts + p->n;
    for (Py_ssize_t i = 0; i < p->n; i++)
        if (!read_part(c, "outs", i, PyList_GetItem(outs, i), &p->outs[i]) ||
            !read_part(c, "lses", i, PyList_GetItem(lses, i), &p->lses[i]))
            return false;
    return true;
}

/* The first of a list, which says of what kind results are. */
static PyObject *first_of(PyObject *outs) {
    if (PyList_Size(outs) > 0) return PyList_GetItem(outs, 0);
    return PyErr_SetString(PyExc_ValueError, "outs has no parts: it is one array or more"), NULL;
}

static bool given_out(call *c, PyObject *out, const parts *p, attn_tensor *t) {
    char name[64];
    if (!call_given_output(c, "out", out, t)) return false;
    for (Py_ssize_t i = 0; i < p->n; i++) {
        PyOS_snprintf(name, sizeof name, "outs[%zd]", i);
        if (!call_check_apart(c, "out", t, name, &p->outs[i], i == 0)) return false;
        PyOS_snprintf(name, sizeof name, "lses[%zd]", i);
        if (!call_check_apart(c, "out", t, name, &p->lses[i], false)) return false;
    }
    return true;
}

/* outs, lses, out */
PyObject *merge(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    call c;
    parts p = { 0 };
    attn_merge_args a = { 0 };
    result out = { 0 }, lse = { 0 };
    PyObject *both = NULL, *one = NULL, *other = NULL, *first;
    if (!count_arguments(n, 3) || !(first = first_of(args[0]))) return NULL;
    bool given = args[2] != Py_None;
    bool ok = call_begin(&c, module, first) && read_parts(&c, args[0], args[1], &p);
    if (ok) {
        a = (attn_merge_args){ .n = p.n, .outs = p.outs, .lses = p.lses };
        ok = (given ? given_out(&c, args[2], &p, &a.out)
                    : call_output(&c, p.outs[0].dtype, p.outs[0].rank, p.outs[0].shape, &out, &a.out)) &&
             call_output(&c, p.lses[0].dtype, p.lses[0].rank, p.lses[0].shape, &lse, &a.lse);
    }
    if (ok) COMPUTE(c, ok, attn_merge(&a, exec));
    if (ok) one = given ? Py_NewRef(args[2]) : call_result(&c, &out);
    if (one) other = call_result(&c, &lse);
    if (other) both = PyTuple_Pack(2, one, other);
    Py_XDECREF(one);
    Py_XDECREF(other);
    result_drop(&out);
    result_drop(&lse);
    PyMem_Free(p.outs);
    call_end(&c);
    return both;
}

static PyObject *list_of(call *c, result *results, Py_ssize_t n) {
    PyObject *all = PyList_New(n);
    for (Py_ssize_t i = 0; all && i < n; i++) {
        PyObject *one = call_result(c, &results[i]);
        if (!one || PyList_SetItem(all, i, one)) Py_CLEAR(all);
    }
    return all;
}

static bool new_gradients(call *c, const parts *p, result *r) {
    for (Py_ssize_t i = 0; i < p->n; i++)
        if (!call_output(c, p->outs[i].dtype, p->outs[i].rank, p->outs[i].shape, &r[i], &p->douts[i]) ||
            !call_output(c, p->lses[i].dtype, p->lses[i].rank, p->lses[i].shape, &r[p->n + i], &p->dlses[i]))
            return false;
    return true;
}

/* dout, outs, lses, dlse */
PyObject *merge_backward(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    call c;
    parts p = { 0 };
    attn_merge_grads g = { 0 };
    result *r = NULL;
    PyObject *both = NULL, *first;
    if (!count_arguments(n, 4) || !(first = first_of(args[1]))) return NULL;
    bool ok = call_begin(&c, module, first) && read_parts(&c, args[1], args[2], &p) &&
              call_floats(&c, "dout", args[0], &g.dout) && call_optional(&c, "dlse", args[3], &g.dlse);
    if (ok && !(r = PyMem_Calloc((size_t)p.n, 2 * sizeof *r))) ok = PyErr_NoMemory() != NULL;
    ok = ok && new_gradients(&c, &p, r);
    g.douts = p.douts;
    g.dlses = p.dlses;
    const attn_merge_args a = { .n = p.n, .outs = p.outs, .lses = p.lses };
    if (ok) COMPUTE(c, ok, attn_merge_backward(&a, &g, exec));
    PyObject *douts = ok ? list_of(&c, r, p.n) : NULL, *dlses = douts ? list_of(&c, r + p.n, p.n) : NULL;
    if (dlses) both = PyTuple_Pack(2, douts, dlses);
    Py_XDECREF(douts);
    Py_XDECREF(dlses);
    for (Py_ssize_t i = 0; r && i < 2 * p.n; i++) result_drop(&r[i]);
    PyMem_Free(r);
    PyMem_Free(p.outs);
    call_end(&c);
    return both;
}
