/* SPDX-License-Identifier: Apache-2.0 */
/* DLPack, both ways: tensors that others lend to us, and memory of results that others then own. */
#include "binding.h"
#include "dlpack.h"

#include <stdatomic.h>
#include <stdlib.h>

/* ---- reading --------------------------------------------------------------------------------------------- */

static int32_t dtype_of(const dlpack_tensor *d) {
    static const struct {
        uint8_t code, bits;
        int32_t dtype;
    } known[] = { { DLPACK_FLOAT, 32, ATTN_F32 },   { DLPACK_FLOAT, 64, ATTN_F64 }, { DLPACK_FLOAT, 16, ATTN_F16 },
                  { DLPACK_BFLOAT, 16, ATTN_BF16 }, { DLPACK_BOOL, 8, ATTN_BOOL },  { DLPACK_INT, 64, ATTN_I64 },
                  { DLPACK_INT, 32, ATTN_I32 },     { DLPACK_INT, 8, ATTN_I8 },     { DLPACK_UINT, 8, ATTN_U8 } };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (d->dtype.lanes == 1 && d->dtype.code == known[i].code && d->dtype.bits == known[i].bits) return known[i].dtype;
    return -1;
}

static bool read_tensor(const char *name, const dlpack_tensor *d, attn_tensor *t) {
    if (d->device.type != DLPACK_CPU && d->device.type != DLPACK_CUDA_HOST)
        return PyErr_Format(PyExc_ValueError, "%s is on a device of DLPack's type %d, not on the CPU", name, (int)d->device.type),
               false;
    if (d->rank > ATTN_MAX_RANK)
        return PyErr_Format(PyExc_ValueError, "%s has %d axes, more than %d", name, (int)d->rank, ATTN_MAX_RANK), false;
    int32_t dtype = dtype_of(d);
    if (dtype < 0)
        return PyErr_Format(PyExc_TypeError, "%s has elements of %d bits of DLPack's type %d, which attn does not know", name,
                            (int)d->dtype.bits, (int)d->dtype.code),
               false;
    *t = attn_dense(dtype, d->data ? (char *)d->data + d->byte_offset : NULL, d->rank, d->shape);
    if (d->strides)
        for (int32_t i = 0; i < d->rank; i++) t->stride[i] = d->strides[i];
    return true;
}

bool dlpack_read(const char *name, PyObject *capsule, bool writable, attn_tensor *t) {
    if (PyCapsule_IsValid(capsule, "dltensor")) {
        const dlpack_managed *m = PyCapsule_GetPointer(capsule, "dltensor");
        return read_tensor(name, &m->tensor, t);
    }
    if (!PyCapsule_IsValid(capsule, "dltensor_versioned"))
        return PyErr_Format(PyExc_TypeError, "%s has a __dlpack__ that returns no DLPack capsule", name), false;
    const dlpack_versioned *v = PyCapsule_GetPointer(capsule, "dltensor_versioned");
    if (v->version.major != DLPACK_MAJOR)
        return PyErr_Format(PyExc_TypeError, "%s speaks version %d of DLPack", name, (int)v->version.major), false;
    if (writable && (v->flags & DLPACK_READ_ONLY)) return PyErr_Format(PyExc_ValueError, "%s is read-only", name), false;
    return read_tensor(name, &v->tensor, t);
}

/* ---- lending --------------------------------------------------------------------------------------------- */

/* Bytes that live as long as any capsule or Python object looks at them. Their last user may not hold the GIL. */
typedef struct block {
    void *bytes;
    atomic_int users;
} block;

static void block_leave(block *b) {
    if (atomic_fetch_sub(&b->users, 1) != 1) return;
    free(b->bytes);
    free(b);
}

typedef struct memory {
    PyObject_HEAD block *block;
    attn_tensor view;
} memory;

typedef struct export {
    dlpack_managed managed;
    attn_tensor view;
}
export;

static void export_end(dlpack_managed *m) {
    block_leave(m->context);
    free(m);
}

static void capsule_end(PyObject *capsule) {
    dlpack_managed *m = PyCapsule_GetPointer(capsule, "dltensor");
    if (m)
        m->deleter(m);
    else
        PyErr_Clear(); /* taken over: it is called "used_dltensor" */
}

static PyObject *memory_dlpack(PyObject *self, PyObject *args, PyObject *keywords) {
    static const struct {
        uint8_t code, bits;
    } types[] = { [ATTN_F32] = { DLPACK_FLOAT, 32 },   [ATTN_F64] = { DLPACK_FLOAT, 64 }, [ATTN_F16] = { DLPACK_FLOAT, 16 },
                  [ATTN_BF16] = { DLPACK_BFLOAT, 16 }, [ATTN_BOOL] = { DLPACK_BOOL, 8 },  [ATTN_I64] = { DLPACK_INT, 64 },
                  [ATTN_I32] = { DLPACK_INT, 32 },     [ATTN_I8] = { DLPACK_INT, 8 },     [ATTN_U8] = { DLPACK_UINT, 8 } };
    (void)args, (void)keywords; /* a stream or a device: there is only the CPU */
    memory *m = (memory *)self;
    export *e = calloc(1, sizeof *e);
    if (!e) return PyErr_NoMemory();
    e->view = m->view;
    e->managed.context = m->block;
    e->managed.deleter = export_end;
    dlpack_tensor *d = &e->managed.tensor;
    d->data = e->view.data;
    d->device.type = DLPACK_CPU;
    d->rank = e->view.rank;
    d->dtype.code = types[e->view.dtype].code;
    d->dtype.bits = types[e->view.dtype].bits;
    d->dtype.lanes = 1;
    d->shape = e->view.shape;
    d->strides = e->view.stride;
    atomic_fetch_add(&m->block->users, 1);
    PyObject *capsule = PyCapsule_New(&e->managed, "dltensor", capsule_end);
    if (!capsule) export_end(&e->managed);
    return capsule;
}

static PyObject *memory_device(PyObject *self, PyObject *nothing) {
    (void)self, (void)nothing;
    return Py_BuildValue("(ii)", DLPACK_CPU, 0);
}

static void memory_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    if (((memory *)self)->block) block_leave(((memory *)self)->block);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static size_t element_size(int32_t dtype) {
    static const unsigned char size[] = { [ATTN_F32] = 4, [ATTN_BF16] = 2, [ATTN_F16] = 2, [ATTN_F64] = 8, [ATTN_BOOL] = 1,
                                          [ATTN_I8] = 1,  [ATTN_U8] = 1,   [ATTN_I32] = 4, [ATTN_I64] = 8 };
    return size[dtype];
}

/* Aligned as JAX wants memory that it does not copy. */
enum { ALIGNMENT = 64 };

static block *block_make(int32_t dtype, int32_t rank, const int64_t *shape) {
    size_t bytes = element_size(dtype);
    for (int32_t i = 0; i < rank; i++)
        if (__builtin_mul_overflow(bytes, (size_t)shape[i], &bytes)) return NULL;
    if (bytes > (size_t)PTRDIFF_MAX - ALIGNMENT) return NULL;
    block *b = calloc(1, sizeof *b);
    if (!b) return NULL;
    size_t whole = (bytes + ALIGNMENT) / ALIGNMENT * ALIGNMENT; /* at least one line, so that there is an address */
    b->bytes = aligned_alloc(ALIGNMENT, whole);
    atomic_init(&b->users, 1);
    if (b->bytes) return b;
    free(b);
    return NULL;
}

PyObject *memory_make(PyObject *type, int32_t dtype, int32_t rank, const int64_t *shape, attn_tensor *t) {
    memory *m = (memory *)PyType_GenericAlloc((PyTypeObject *)type, 0);
    if (!m) return NULL;
    m->block = block_make(dtype, rank, shape);
    if (!m->block) {
        Py_DECREF(m);
        return PyErr_NoMemory();
    }
    *t = m->view = attn_dense(dtype, m->block->bytes, rank, shape);
    return (PyObject *)m;
}

PyObject *memory_make_type(PyObject *module) {
    static PyMethodDef methods[] = {
        { "__dlpack__", (PyCFunction)(void (*)(void))memory_dlpack, METH_VARARGS | METH_KEYWORDS, NULL },
        { "__dlpack_device__", memory_device, METH_NOARGS, NULL },
        { NULL, NULL, 0, NULL },
    };
    static PyType_Slot slots[] = { { Py_tp_dealloc, memory_dealloc },
                                   { Py_tp_methods, methods },
                                   { Py_tp_doc, "Memory of a result, on its way to the library that asked for it." },
                                   { 0, NULL } };
    static PyType_Spec spec = { .name = "attn._core.Memory",
                                .basicsize = sizeof(memory),
                                .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                                .slots = slots };
    return PyType_FromModuleAndSpec(module, &spec, NULL);
}
