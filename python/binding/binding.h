/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the Python binding share. A call goes: read the inputs as attn_tensor views (NumPy through the buffer
 * protocol, everything else through DLPack), make the outputs in the kind of the first input, compute without the GIL, give the
 * views back. Nothing is copied on the way.
 *
 * Only CPython's limited API of 3.11 is used: one build serves every later version. */
#ifndef ATTN_BINDING_H
#define ATTN_BINDING_H

#define Py_LIMITED_API 0x030b0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <attn/attn.h>

#include <stdbool.h>

/* ---- the module's own objects ---------------------------------------------------------------------------- */

enum { BINDING_DTYPES = ATTN_I64 + 1 };

typedef struct binding {
    /* of attn._arrays, which imports NumPy; NULL until the first call */
    PyObject *ndarray, *asarray, *empty, *importer, *lender, *plain, *bfloat16, *check_mutable, *share_memory;
    PyObject *dtype[BINDING_DTYPES]; /* NumPy's; bf16 travels as float16 */
    PyObject *importers;             /* type of an input: from_dlpack of its library */
    PyObject *lenders;               /* type of an input: what lends one faster than its __dlpack__, or None */
    PyObject *memory_type;           /* what such a from_dlpack is given */
    PyObject *dlpack;                /* "__dlpack__" */
    PyObject *unsupported;           /* attn.Unsupported */
} binding;

/* ---- a call ---------------------------------------------------------------------------------------------- */

enum { CALL_VIEWS = 40, CALL_INTEGERS = 3 };

typedef struct call_view {
    PyObject *owner;  /* keeps the memory: an array or a capsule */
    Py_buffer buffer; /* held where buffer.obj is not NULL */
} call_view;

/* Views beyond those that a call holds itself: of a merge of many parts. */
typedef struct call_page {
    struct call_page *before;
    call_view views[CALL_VIEWS];
} call_page;

typedef struct call {
    binding *module;
    PyObject *from_dlpack; /* makes results of the first input's kind; NULL: NumPy arrays */
    int n_views, n_integers;
    int64_t integers[CALL_INTEGERS]; /* ints that stand for arrays of one element */
    call_view views[CALL_VIEWS];
    call_page *pages; /* the one that is being filled first */
} call;

/* An output in the making. */
typedef struct result {
    PyObject *held; /* an array of NumPy's, or memory that from_dlpack will read */
    int32_t dtype, rank;
} result;

/* Everything that can fail returns false (or NULL) with a Python exception set. */

/* Begins a call whose results are of the kind of `first`. call_end gives everything back, whatever happened before. */
bool call_begin(call *c, PyObject *module, PyObject *first);
void call_end(call *c);

/* An input: an array, anything with __dlpack__ on the CPU, or what numpy.asarray understands. */
bool call_input(call *c, const char *name, PyObject *o, attn_tensor *t);
/* The same, and of floats. */
bool call_floats(call *c, const char *name, PyObject *o, attn_tensor *t);
/* An input, absent where it is None. A number is a tensor of rank 0. */
bool call_optional(call *c, const char *name, PyObject *o, attn_tensor *t);
/* An int, or an array; None is absent. An int becomes an array [1]. */
bool call_integers(call *c, const char *name, PyObject *o, attn_tensor *t);
/* Memory of the caller's to write to: no read-only one, no element in it twice. */
bool call_given_output(call *c, const char *name, PyObject *o, attn_tensor *t);
/* Whether an output and an input lie apart; `in_place` allows that they are the same view. */
bool call_check_apart(call *c, const char *out_name, const attn_tensor *out, const char *in_name, const attn_tensor *in,
                      bool in_place);

/* A dense output of the library's making. */
bool call_output(call *c, int32_t dtype, int32_t rank, const int64_t *shape, result *r, attn_tensor *t);
/* What the caller gets of it, once it is computed: an array; of rank 0 in NumPy a scalar. */
PyObject *call_result(call *c, result *r);
void result_drop(result *r);

/* The exception of a status, with the library's message. Returns NULL. */
PyObject *raise_status(const binding *m, attn_status s);

/* ---- arguments ------------------------------------------------------------------------------------------- */

bool read_number(const char *name, PyObject *o, double *value);
/* A number for which C's 0 would mean the default: an explicit 0 is refused with `says`. */
bool read_nonzero(const char *name, PyObject *o, const char *says, double *value);
bool read_integer(const char *name, PyObject *o, int64_t *value);
bool read_seed(const char *name, PyObject *o, uint64_t *value);
/* The place of a name in a list that ends with NULL. */
bool read_choice(const char *name, PyObject *o, const char *const *names, int32_t *value);
bool read_truth(PyObject *o, bool *value);

/* ---- threads --------------------------------------------------------------------------------------------- */

/* The process's pool, kept open until it is given back. Both with the GIL held. */
typedef struct threads threads;
threads *threads_take(const binding *m);
void threads_give(threads *t);
const attn_exec *threads_exec(const threads *t);

/* Computes without the GIL, in the pool: `expression` is one in `exec`. Where it fails, `ok` is false and the exception set. */
#define COMPUTE(c, ok, expression)                                                                                               \
    do {                                                                                                                         \
        threads *pool_ = threads_take((c).module);                                                                               \
        (ok) = pool_ != NULL;                                                                                                    \
        if (pool_) {                                                                                                             \
            const attn_exec *exec = threads_exec(pool_);                                                                         \
            attn_status status_;                                                                                                 \
            Py_BEGIN_ALLOW_THREADS;                                                                                              \
            status_ = (expression);                                                                                              \
            Py_END_ALLOW_THREADS;                                                                                                \
            threads_give(pool_);                                                                                                 \
            if (status_ != ATTN_OK) {                                                                                            \
                raise_status((c).module, status_);                                                                               \
                (ok) = false;                                                                                                    \
            }                                                                                                                    \
        }                                                                                                                        \
    } while (0)

PyObject *set_threads(PyObject *module, PyObject *n);
PyObject *get_threads(PyObject *module, PyObject *nothing);
PyObject *info(PyObject *module, PyObject *nothing);

/* ---- memory that other libraries read through DLPack ----------------------------------------------------- */

PyObject *memory_make_type(PyObject *module);
/* Dense memory of its own; `t` is the view of it. */
PyObject *memory_make(PyObject *type, int32_t dtype, int32_t rank, const int64_t *shape, attn_tensor *t);
/* The tensor in a capsule of __dlpack__, which stays the capsule's. */
bool dlpack_read(const char *name, PyObject *capsule, bool writable, attn_tensor *t);

/* ---- the functions: all arguments, in the order of attn's Python signatures ------------------------------- */

PyObject *softmax(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *softmax_backward(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *logsumexp(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *logsumexp_backward(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *softmax_jvp(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *logsumexp_jvp(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *top_k_softmax(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *top_k_softmax_backward(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *sample(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *gate(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *gate_backward(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *cross_entropy(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *linear_cross_entropy(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *attention(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *attention_backward(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *attention_jvp(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *attention_double_backward(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *attention_received(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *merge(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *merge_backward(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *rope(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *rope_backward(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *linear_attention(PyObject *module, PyObject *const *args, Py_ssize_t n);
PyObject *linear_attention_backward(PyObject *module, PyObject *const *args, Py_ssize_t n);

/* These functions are called by attn alone; this guards against a binding and a package of different builds. */
bool count_arguments(Py_ssize_t n, Py_ssize_t wanted);

#endif
