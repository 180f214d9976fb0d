/* SPDX-License-Identifier: Apache-2.0 */
/* From Python's arrays to attn_tensor views and back: the inputs and outputs of a call. */
#include "binding.h"

#include <string.h>

/* ---- NumPy, when it is first needed ---------------------------------------------------------------------- */

static bool take(PyObject *from, const char *name, PyObject **to) {
    *to = PyObject_GetAttrString(from, name);
    return *to != NULL;
}

static bool import_numpy(binding *m) {
    if (m->ndarray) return true;
    PyObject *arrays = PyImport_ImportModule("attn._arrays"), *dtypes = NULL, *ndarray = NULL;
    bool ok = arrays && take(arrays, "asarray", &m->asarray) && take(arrays, "empty", &m->empty) &&
              take(arrays, "importer", &m->importer) && take(arrays, "lender", &m->lender) && take(arrays, "plain", &m->plain) &&
              take(arrays, "bfloat16", &m->bfloat16) && take(arrays, "check_mutable", &m->check_mutable) &&
              take(arrays, "share_memory", &m->share_memory) && take(arrays, "dtypes", &dtypes) &&
              take(arrays, "ndarray", &ndarray);
    for (Py_ssize_t i = 0; ok && i < BINDING_DTYPES; i++) {
        m->dtype[i] = PyTuple_GetItem(dtypes, i);
        Py_XINCREF(m->dtype[i]);
        ok = m->dtype[i] != NULL;
    }
    if (ok)
        m->ndarray = ndarray; /* last: it says that all is there */
    else
        Py_XDECREF(ndarray);
    Py_XDECREF(dtypes);
    Py_XDECREF(arrays);
    return ok;
}

static bool is_ndarray(const binding *m, PyObject *o) {
    PyTypeObject *type = Py_TYPE(o);
    return type == (PyTypeObject *)m->ndarray || PyType_IsSubtype(type, (PyTypeObject *)m->ndarray);
}

/* ---- beginning and ending a call ------------------------------------------------------------------------- */

/* What `find` says of the type of `o`, asked once for each type; borrowed, NULL with an exception. */
static PyObject *of_type(PyObject *known, PyObject *find, PyObject *o) {
    PyObject *type = (PyObject *)Py_TYPE(o), *found = PyDict_GetItemWithError(known, type);
    if (found || PyErr_Occurred()) return found;
    found = PyObject_CallFunctionObjArgs(find, o, NULL);
    if (!found) return NULL;
    int failed = PyDict_SetItem(known, type, found);
    Py_DECREF(found); /* the dict has it */
    return failed ? NULL : found;
}

/* Results for anything that NumPy would have to make an array of are NumPy's. */
static bool find_kind(call *c, PyObject *first) {
    binding *m = c->module;
    if (is_ndarray(m, first)) return true;
    PyObject *importer = of_type(m->importers, m->importer, first);
    if (importer && importer != Py_None) c->from_dlpack = Py_NewRef(importer);
    return importer != NULL;
}

bool call_begin(call *c, PyObject *module, PyObject *first) {
    c->module = PyModule_GetState(module);
    c->from_dlpack = NULL;
    c->n_views = c->n_integers = 0;
    c->pages = NULL;
    return import_numpy(c->module) && find_kind(c, first);
}

static call_view *view_at(call *c, int i) { return i < CALL_VIEWS ? &c->views[i] : &c->pages->views[i % CALL_VIEWS]; }
static bool opens_page(int i) { return i >= CALL_VIEWS && i % CALL_VIEWS == 0; }

void call_end(call *c) {
    while (c->n_views > 0) {
        call_view *v = view_at(c, --c->n_views);
        if (v->buffer.obj) PyBuffer_Release(&v->buffer);
        Py_XDECREF(v->owner);
        if (!opens_page(c->n_views)) continue;
        call_page *page = c->pages;
        c->pages = page->before;
        PyMem_Free(page);
    }
    Py_XDECREF(c->from_dlpack);
}

/* A place for a view, which call_end gives back. `owner` is taken over. Places do not move: buffers point into themselves. */
static call_view *next_view(call *c, PyObject *owner) {
    if (opens_page(c->n_views)) {
        call_page *page = PyMem_Malloc(sizeof *page);
        if (!page) {
            Py_DECREF(owner);
            PyErr_NoMemory();
            return NULL;
        }
        page->before = c->pages;
        c->pages = page;
    }
    call_view *v = view_at(c, c->n_views++);
    v->owner = owner;
    v->buffer.obj = NULL;
    return v;
}

/* ---- the buffer protocol --------------------------------------------------------------------------------- */

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
enum { OTHER_ORDER = '>' };
#else
enum { OTHER_ORDER = '<' };
#endif

/* The dtype of a struct-module format; -1 where there is none. */
static int32_t dtype_of(const char *format, Py_ssize_t size) {
    if (*format && strchr("@=<>!^", *format)) format++;
    if (!format[0] || format[1]) return -1;
    switch (format[0]) {
    case 'f': return ATTN_F32;
    case 'd': return ATTN_F64;
    case 'e': return ATTN_F16;
    case '?': return ATTN_BOOL;
    case 'B': return ATTN_U8;
    case 'b': return ATTN_I8;
    case 'i':
    case 'l':
    case 'q': return size == 4 ? ATTN_I32 : size == 8 ? ATTN_I64 : -1;
    default: return -1;
    }
}

static bool bad_dtype(const char *name, const char *format, Py_ssize_t size) {
    bool swapped = *format == OTHER_ORDER || (*format == '!' && OTHER_ORDER == '>');
    if (swapped && dtype_of(format, size) >= 0)
        PyErr_Format(PyExc_TypeError, "%s is in the byte order of other machines: x.astype(x.dtype.newbyteorder('=')) turns it",
                     name);
    else
        PyErr_Format(PyExc_TypeError,
                     "%s has elements of format '%s': attn knows float32, float64, float16, bfloat16, bool, int8, uint8, int32 "
                     "and int64",
                     name, format);
    return false;
}

/* Byte strides in elements. */
static bool read_strides(const char *name, const Py_buffer *b, attn_tensor *t) {
    for (int i = 0; i < b->ndim; i++) {
        t->shape[i] = b->shape[i];
        t->stride[i] = b->strides[i] / b->itemsize;
        if (b->shape[i] > 1 && b->strides[i] % b->itemsize)
            return PyErr_Format(PyExc_ValueError, "%s has a stride of %zd bytes, no multiple of its %zd-byte elements", name,
                                b->strides[i], b->itemsize),
                   false;
    }
    return true;
}

/* The view of an array whose buffer is held. `dtype` is what it is read as where that is known, else -1. */
static bool read_buffer(const char *name, const Py_buffer *b, int32_t dtype, attn_tensor *t) {
    const char *format = b->format ? b->format : "B";
    if (dtype < 0) {
        dtype = *format == OTHER_ORDER || *format == '!' ? -1 : dtype_of(format, b->itemsize);
        if (dtype < 0) return bad_dtype(name, format, b->itemsize);
    }
    if (b->ndim > ATTN_MAX_RANK)
        return PyErr_Format(PyExc_ValueError, "%s has %d axes, more than %d", name, b->ndim, ATTN_MAX_RANK), false;
    t->data = b->buf;
    t->dtype = dtype;
    t->rank = b->ndim;
    return read_strides(name, b, t);
}

/* What has no format in a buffer: bf16, which attn._arrays.plain gives as float16; it refuses the rest by name. */
static PyObject *plain_array(call *c, const char *name, PyObject *o) {
    PyErr_Clear();
    return PyObject_CallFunction(c->module->plain, "sO", name, o);
}

static bool read_array(call *c, const char *name, PyObject *o, bool writable, attn_tensor *t) {
    int flags = PyBUF_STRIDES | PyBUF_FORMAT, dtype = -1;
    Py_INCREF(o);
    call_view *v = next_view(c, o);
    if (!v) return false;
    if (PyObject_GetBuffer(o, &v->buffer, flags)) {
        v->buffer.obj = NULL;
        PyObject *as_f16 = plain_array(c, name, o);
        if (!as_f16) return false;
        if (!(v = next_view(c, as_f16))) return false;
        dtype = ATTN_BF16;
        if (PyObject_GetBuffer(as_f16, &v->buffer, flags)) return v->buffer.obj = NULL, false;
    }
    if (writable && v->buffer.readonly) return PyErr_Format(PyExc_ValueError, "%s is read-only", name), false;
    return read_buffer(name, &v->buffer, dtype, t);
}

/* ---- DLPack ---------------------------------------------------------------------------------------------- */

/* A library's refusal to lend a tensor (it wants gradients, it lives elsewhere) in our words, with its own as the cause. */
static void refused(const char *name) {
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyErr_NormalizeException(&type, &value, &trace);
    PyObject *text = value ? PyObject_Str(value) : NULL;
    PyErr_Clear();
    PyErr_Format(PyExc_ValueError, "%s cannot be read through DLPack: %V", name, text, "no reason is given");
    Py_XDECREF(text);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(trace);
}

static PyObject *ask_for_capsule(PyObject *method, bool writable) {
    if (!writable) return PyObject_CallNoArgs(method);
    /* Only version 1 says what is read-only. */
    PyObject *none = PyTuple_New(0), *words = Py_BuildValue("{s(ii)}", "max_version", 1, 0);
    PyObject *capsule = none && words ? PyObject_Call(method, none, words) : NULL;
    Py_XDECREF(none);
    Py_XDECREF(words);
    if (capsule || !PyErr_ExceptionMatches(PyExc_TypeError)) return capsule;
    PyErr_Clear();
    return PyObject_CallNoArgs(method);
}

static bool is_mutable(call *c, const char *name, PyObject *o) {
    PyObject *nothing = PyObject_CallFunction(c->module->check_mutable, "sO", name, o);
    Py_XDECREF(nothing);
    return nothing != NULL;
}

static bool read_capsule(call *c, const char *name, PyObject *capsule, bool writable, attn_tensor *t) {
    if (!capsule) return refused(name), false;
    return next_view(c, capsule) && dlpack_read(name, capsule, writable, t);
}

/* 1 and 0 as true and false, -1 where the array does not lend its memory. */
static int read_lent(call *c, const char *name, PyObject *o, bool writable, attn_tensor *t) {
    PyObject *lender = of_type(c->module->lenders, c->module->lender, o);
    if (!lender) return false;
    if (lender != Py_None) return read_capsule(c, name, PyObject_CallFunctionObjArgs(lender, o, NULL), writable, t);
    PyObject *method = PyObject_GetAttr(o, c->module->dlpack);
    if (!method) return PyErr_Clear(), -1;
    bool ok = (!writable || is_mutable(c, name, o)) && read_capsule(c, name, ask_for_capsule(method, writable), writable, t);
    Py_DECREF(method);
    return ok;
}

static bool read_any(call *c, const char *name, PyObject *o, bool writable, attn_tensor *t) {
    if (is_ndarray(c->module, o)) return read_array(c, name, o, writable, t);
    int lent = read_lent(c, name, o, writable, t);
    if (lent >= 0) return lent;
    if (writable)
        return PyErr_Format(PyExc_TypeError, "%s is neither a NumPy array nor has it __dlpack__: it cannot be written to", name),
               false;
    PyObject *array = PyObject_CallFunctionObjArgs(c->module->asarray, o, NULL);
    if (!array) return false;
    bool ok = read_array(c, name, array, false, t);
    Py_DECREF(array);
    return ok;
}

/* ---- inputs ---------------------------------------------------------------------------------------------- */

bool call_input(call *c, const char *name, PyObject *o, attn_tensor *t) {
    if (o == Py_None) return PyErr_Format(PyExc_TypeError, "%s is None: it is an array", name), false;
    return read_any(c, name, o, false, t);
}

bool call_floats(call *c, const char *name, PyObject *o, attn_tensor *t) {
    static const char *const names[] = {
        [ATTN_BOOL] = "bool", [ATTN_I8] = "int8", [ATTN_U8] = "uint8", [ATTN_I32] = "int32", [ATTN_I64] = "int64",
    };
    if (!call_input(c, name, o, t)) return false;
    if (t->dtype < ATTN_BOOL) return true;
    return PyErr_Format(PyExc_TypeError, "%s is %s: it is float32, float64, float16 or bfloat16", name, names[t->dtype]), false;
}

bool call_optional(call *c, const char *name, PyObject *o, attn_tensor *t) {
    return o == Py_None || read_any(c, name, o, false, t);
}

bool call_integers(call *c, const char *name, PyObject *o, attn_tensor *t) {
    if (o == Py_None) return true;
    if (!PyLong_Check(o)) {
        if (!read_any(c, name, o, false, t)) return false;
        if (t->rank == 0) t->rank = 1, t->shape[0] = t->stride[0] = 1;
        return true;
    }
    int64_t *place = &c->integers[c->n_integers++];
    if (!read_integer(name, o, place)) return false;
    *t = attn_dense(ATTN_I64, place, 1, (const int64_t[]){ 1 });
    return true;
}

/* ---- outputs --------------------------------------------------------------------------------------------- */

static size_t element_size(const attn_tensor *t) {
    switch (t->dtype) {
    case ATTN_F64:
    case ATTN_I64: return 8;
    case ATTN_F32:
    case ATTN_I32: return 4;
    case ATTN_BF16:
    case ATTN_F16: return 2;
    default: return 1;
    }
}

static int64_t distance(int64_t stride) { return stride < 0 ? -stride : stride; }

/* No two indices name one element: sorted by stride, each axis steps over all that lies within. Exotic views may lie apart and
 * still be refused. Strides of 0 are left to the library. */
static bool elements_apart(const attn_tensor *t) {
    int order[ATTN_MAX_RANK], n = 0;
    for (int i = 0; i < t->rank; i++) {
        if (t->shape[i] == 0) return true;
        if (t->shape[i] == 1 || t->stride[i] == 0) continue;
        int at = n++;
        for (; at > 0 && distance(t->stride[order[at - 1]]) > distance(t->stride[i]); at--) order[at] = order[at - 1];
        order[at] = i;
    }
    int64_t reach = 0;
    for (int i = 0; i < n; i++) {
        int64_t step = distance(t->stride[order[i]]);
        if (step <= reach) return false;
        reach += step * (t->shape[order[i]] - 1);
    }
    return true;
}

bool call_given_output(call *c, const char *name, PyObject *o, attn_tensor *t) {
    if (!read_any(c, name, o, true, t)) return false;
    if (elements_apart(t)) return true;
    return PyErr_Format(PyExc_ValueError, "%s overlaps itself: some of its elements lie in the same place", name), false;
}

/* The bytes a view reaches over, from *low up to *high. False of one without elements. */
static bool span(const attn_tensor *t, uintptr_t *low, uintptr_t *high) {
    int64_t size = (int64_t)element_size(t), below = 0, above = size;
    for (int i = 0; i < t->rank; i++) {
        if (t->shape[i] == 0) return false;
        int64_t reach = (t->shape[i] - 1) * t->stride[i] * size;
        *(reach < 0 ? &below : &above) += reach;
    }
    *low = (uintptr_t)t->data + (uintptr_t)below;
    *high = (uintptr_t)t->data + (uintptr_t)above;
    return true;
}

static bool same_view(const attn_tensor *x, const attn_tensor *y) {
    bool same = x->data == y->data && x->dtype == y->dtype && x->rank == y->rank;
    for (int i = 0; same && i < x->rank; i++)
        same = x->shape[i] == y->shape[i] && (x->shape[i] == 1 || x->stride[i] == y->stride[i]);
    return same;
}

/* The view as attn._arrays.share_memory takes it: address, element size, shape, strides in bytes. */
static PyObject *describe(const attn_tensor *t) {
    PyObject *shape = PyTuple_New(t->rank), *strides = PyTuple_New(t->rank);
    for (int i = 0; shape && strides && i < t->rank; i++) {
        PyTuple_SetItem(shape, i, PyLong_FromLongLong(t->shape[i]));
        PyTuple_SetItem(strides, i, PyLong_FromLongLong(t->stride[i] * (long long)element_size(t)));
    }
    return Py_BuildValue("(NiNN)", PyLong_FromVoidPtr(t->data), (int)element_size(t), shape, strides);
}

/* -1: an exception. */
static int share_memory(call *c, const attn_tensor *x, const attn_tensor *y) {
    PyObject *one = describe(x), *other = describe(y);
    PyObject *answer = one && other ? PyObject_CallFunctionObjArgs(c->module->share_memory, one, other, NULL) : NULL;
    int shared = answer ? PyObject_IsTrue(answer) : -1;
    Py_XDECREF(answer);
    Py_XDECREF(one);
    Py_XDECREF(other);
    return shared;
}

bool call_check_apart(call *c, const char *out_name, const attn_tensor *out, const char *in_name, const attn_tensor *in,
                      bool in_place) {
    uintptr_t low[2], high[2];
    if (!in->data || !span(out, &low[0], &high[0]) || !span(in, &low[1], &high[1])) return true;
    if (high[0] <= low[1] || high[1] <= low[0] || (in_place && same_view(out, in))) return true;
    int shared = share_memory(c, out, in);
    if (shared > 0)
        PyErr_Format(PyExc_ValueError, in_place ? "%s overlaps %s: it is the same view, or lies apart" : "%s overlaps %s",
                     out_name, in_name);
    return shared == 0;
}

/* ---- results --------------------------------------------------------------------------------------------- */

static PyObject *new_array(call *c, int32_t dtype, int32_t rank, const int64_t *shape) {
    PyObject *extents = PyTuple_New(rank);
    for (int i = 0; extents && i < rank; i++) {
        PyObject *extent = PyLong_FromLongLong(shape[i]);
        if (!extent || PyTuple_SetItem(extents, i, extent)) Py_CLEAR(extents);
    }
    if (!extents) return NULL;
    PyObject *array = PyObject_CallFunctionObjArgs(c->module->empty, extents, c->module->dtype[dtype], NULL);
    Py_DECREF(extents);
    return array;
}

bool call_output(call *c, int32_t dtype, int32_t rank, const int64_t *shape, result *r, attn_tensor *t) {
    *r = (result){ .dtype = dtype, .rank = rank };
    if (c->from_dlpack) return (r->held = memory_make(c->module->memory_type, dtype, rank, shape, t)) != NULL;
    r->held = new_array(c, dtype, rank, shape);
    if (!r->held || !read_array(c, "a result", r->held, true, t)) return false;
    t->dtype = dtype; /* bf16 is held as float16 */
    return true;
}

void result_drop(result *r) { Py_CLEAR(r->held); }

PyObject *call_result(call *c, result *r) {
    PyObject *held = r->held;
    r->held = NULL;
    if (!held) return Py_NewRef(Py_None);
    PyObject *done = held;
    if (c->from_dlpack) {
        done = PyObject_CallFunctionObjArgs(c->from_dlpack, held, NULL);
    } else if (r->dtype == ATTN_BF16) {
        done = PyObject_CallFunctionObjArgs(c->module->bfloat16, held, NULL);
    } else {
        Py_INCREF(held);
    }
    Py_DECREF(held);
    if (!done || c->from_dlpack || r->rank > 0) return done;
    PyObject *nothing = PyTuple_New(0);
    PyObject *scalar = nothing ? PyObject_GetItem(done, nothing) : NULL;
    Py_XDECREF(nothing);
    Py_DECREF(done);
    return scalar;
}
