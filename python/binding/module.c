/* SPDX-License-Identifier: Apache-2.0 */
/* attn._core: the module, its threads, and the plain values among its arguments. */
#include "binding.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- errors and arguments -------------------------------------------------------------------------------- */

PyObject *raise_status(const binding *m, attn_status s) {
    PyObject *type = s == ATTN_BAD_SHAPE || s == ATTN_BAD_ARGUMENT ? PyExc_ValueError
                     : s == ATTN_UNSUPPORTED                       ? m->unsupported
                     : s == ATTN_NO_MEMORY                         ? PyExc_MemoryError
                                                                   : PyExc_RuntimeError;
    PyErr_SetString(type, attn_last_error());
    return NULL;
}

bool count_arguments(Py_ssize_t n, Py_ssize_t wanted) {
    if (n == wanted) return true;
    PyErr_Format(PyExc_TypeError, "attn._core got %zd arguments instead of %zd: its parts are of different versions", n, wanted);
    return false;
}

/* Replaces Python's own TypeError, which does not say which argument it means. */
static bool not_a(const char *what, const char *name, PyObject *o) {
    if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_TypeError)) return false;
    PyErr_Clear();
    PyObject *type = PyObject_GetAttrString((PyObject *)Py_TYPE(o), "__name__");
    if (type) PyErr_Format(PyExc_TypeError, "%s is %s, not %U", name, what, type);
    Py_XDECREF(type);
    return false;
}

bool read_number(const char *name, PyObject *o, double *value) {
    *value = PyFloat_AsDouble(o);
    return !(*value == -1 && PyErr_Occurred()) || not_a("a number", name, o);
}

bool read_nonzero(const char *name, PyObject *o, const char *says, double *value) {
    if (!read_number(name, o, value)) return false;
    return *value != 0 || (PyErr_Format(PyExc_ValueError, "%s is 0: %s", name, says), false);
}

bool read_integer(const char *name, PyObject *o, int64_t *value) {
    PyObject *index = PyNumber_Index(o);
    if (!index) return not_a("an integer", name, o);
    int overflow;
    *value = PyLong_AsLongLongAndOverflow(index, &overflow);
    Py_DECREF(index);
    if (overflow) PyErr_Format(PyExc_ValueError, "%s is %R, which does not fit into 64 bits", name, o);
    return !overflow && !(*value == -1 && PyErr_Occurred());
}

bool read_seed(const char *name, PyObject *o, uint64_t *value) {
    PyObject *index = PyNumber_Index(o);
    if (!index) return not_a("an integer", name, o);
    *value = PyLong_AsUnsignedLongLong(index);
    Py_DECREF(index);
    if (*value != UINT64_MAX || !PyErr_Occurred()) return true;
    PyErr_Clear();
    return PyErr_Format(PyExc_ValueError, "%s is %R, not a number from 0 to 2**64 - 1", name, o), false;
}

bool read_choice(const char *name, PyObject *o, const char *const *names, int32_t *value) {
    char list[256] = "";
    if (!PyUnicode_Check(o)) return not_a("a name", name, o);
    for (int32_t i = 0; names[i]; i++) {
        if (PyUnicode_CompareWithASCIIString(o, names[i]) == 0) {
            *value = i;
            return true;
        }
        if (strlen(list) + strlen(names[i]) + 5 < sizeof list) {
            if (i) strcat(list, names[i + 1] ? ", " : " or ");
            strcat(list, names[i]);
        }
    }
    return PyErr_Format(PyExc_ValueError, "%s is %R: it is %s", name, o, list), false;
}

bool read_truth(PyObject *o, bool *value) {
    int is = PyObject_IsTrue(o);
    *value = is > 0;
    return is >= 0;
}

/* ---- threads --------------------------------------------------------------------------------------------- */

/* A pool that calls without the GIL may be using. It is closed when it is no longer the current one and its last user leaves.
 * All of this is touched with the GIL held. */
struct threads {
    attn_exec exec;
    int users;
};
static threads *current;

const attn_exec *threads_exec(const threads *t) { return &t->exec; }

void threads_give(threads *t) {
    if (--t->users > 0) return;
    attn_pool_close(&t->exec);
    free(t);
}

static threads *threads_open(const binding *m, int32_t n) {
    threads *t = calloc(1, sizeof *t);
    attn_status s = t ? attn_pool_open(&t->exec, n) : ATTN_NO_MEMORY;
    if (s == ATTN_OK) {
        t->users = 1;
        return t;
    }
    if (t)
        raise_status(m, s);
    else
        PyErr_NoMemory();
    free(t);
    return NULL;
}

threads *threads_take(const binding *m) {
    if (!current && !(current = threads_open(m, 0))) return NULL;
    current->users++;
    return current;
}

PyObject *set_threads(PyObject *module, PyObject *n) {
    int64_t wanted;
    if (!read_integer("n", n, &wanted)) return NULL;
    if (wanted < 0 || wanted > INT32_MAX)
        return PyErr_Format(PyExc_ValueError, "n is %R: it is a number of threads, or 0 for all cores", n);
    threads *opened = threads_open(PyModule_GetState(module), (int32_t)wanted), *before = current;
    if (!opened) return NULL;
    current = opened;
    if (before) threads_give(before);
    Py_RETURN_NONE;
}

PyObject *get_threads(PyObject *module, PyObject *nothing) {
    (void)nothing;
    threads *t = threads_take(PyModule_GetState(module));
    if (!t) return NULL;
    int32_t n = t->exec.n_threads > 1 ? t->exec.n_threads : 1;
    threads_give(t);
    return PyLong_FromLong(n);
}

PyObject *info(PyObject *module, PyObject *nothing) {
#if defined(__clang__)
    const char *compiler = "clang " __clang_version__;
#else
    const char *compiler = "gcc " __VERSION__;
#endif
    PyObject *n = get_threads(module, nothing);
    return n ? Py_BuildValue("{sssssNss}", "version", attn_version(), "isa", attn_isa(), "threads", n, "compiler", compiler)
             : NULL;
}

/* ---- the module ------------------------------------------------------------------------------------------ */

/* Both: what a version lacks is no value that it takes. */
static PyObject *make_unsupported(void) {
    PyObject *bases = PyTuple_Pack(2, PyExc_NotImplementedError, PyExc_ValueError);
    PyObject *made =
        bases ? PyErr_NewExceptionWithDoc("attn.Unsupported",
                                          "Right, but not built in this version: an option, or a mixture of dtypes.", bases, NULL)
              : NULL;
    Py_XDECREF(bases);
    return made;
}

static int module_exec(PyObject *module) {
    binding *m = PyModule_GetState(module);
    m->importers = PyDict_New();
    m->lenders = PyDict_New();
    m->dlpack = PyUnicode_InternFromString("__dlpack__");
    m->memory_type = memory_make_type(module);
    m->unsupported = make_unsupported();
    if (!m->importers || !m->lenders || !m->dlpack || !m->memory_type || !m->unsupported) return -1;
    if (PyModule_AddObjectRef(module, "Unsupported", m->unsupported)) return -1;
    return PyModule_AddStringConstant(module, "version", attn_version());
}

static int module_traverse(PyObject *module, visitproc visit, void *arg) {
    binding *m = PyModule_GetState(module);
    Py_VISIT(m->importers);
    Py_VISIT(m->importer);
    Py_VISIT(m->lenders);
    Py_VISIT(m->lender);
    Py_VISIT(m->plain);
    Py_VISIT(m->bfloat16);
    Py_VISIT(m->check_mutable);
    Py_VISIT(m->share_memory);
    Py_VISIT(m->memory_type);
    Py_VISIT(m->unsupported);
    return 0;
}

static int module_clear(PyObject *module) {
    binding *m = PyModule_GetState(module);
    PyObject **all[] = { &m->ndarray,  &m->asarray,       &m->empty,        &m->importer,   &m->plain,
                         &m->bfloat16, &m->check_mutable, &m->share_memory, &m->importers,  &m->lenders,
                         &m->lender,   &m->memory_type,   &m->dlpack,       &m->unsupported };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) Py_CLEAR(*all[i]);
    for (int i = 0; i < BINDING_DTYPES; i++) Py_CLEAR(m->dtype[i]);
    return 0;
}

static void module_free(void *module) { module_clear(module); }

#define FAST(name)                                                                                                               \
    { #name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, NULL }
static PyMethodDef methods[] = {
    FAST(softmax),
    FAST(softmax_backward),
    FAST(logsumexp),
    FAST(logsumexp_backward),
    FAST(softmax_jvp),
    FAST(logsumexp_jvp),
    FAST(top_k_softmax),
    FAST(top_k_softmax_backward),
    FAST(sample),
    FAST(gate),
    FAST(gate_backward),
    FAST(cross_entropy),
    FAST(linear_cross_entropy),
    FAST(attention),
    FAST(attention_backward),
    FAST(attention_jvp),
    FAST(attention_double_backward),
    FAST(attention_received),
    FAST(merge),
    FAST(merge_backward),
    FAST(rope),
    FAST(rope_backward),
    FAST(linear_attention),
    FAST(linear_attention_backward),
    { "set_threads", set_threads, METH_O, NULL },
    { "get_threads", get_threads, METH_NOARGS, NULL },
    { "info", info, METH_NOARGS, NULL },
    { NULL, NULL, 0, NULL },
};

static PyModuleDef_Slot slots[] = { { Py_mod_exec, module_exec }, { 0, NULL } };

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,         .m_name = "attn._core",  .m_doc = "libattn, for the package attn alone.",
    .m_size = sizeof(binding),     .m_methods = methods,    .m_slots = slots,
    .m_traverse = module_traverse, .m_clear = module_clear, .m_free = module_free,
};

PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&definition); }
