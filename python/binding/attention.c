/* SPDX-License-Identifier: Apache-2.0 */
/* Attention in Python. Arrays of rank 2 and 3 are seen as [1, 1, ...] and [1, ...], packed ones [total, heads, ...] as [1, heads,
 * total, ...], and so are the outputs made for them. */
#include "binding.h"

#include <string.h>

/* ---- options --------------------------------------------------------------------------------------------- */

/* The arguments that forward and backward share, in their order. */
enum {
    Q,
    K,
    V,
    SCORE,
    SCORE_WEIGHT,
    SCALE,
    SOFTCAP,
    CAUSAL,
    OFFSET,
    WINDOW,
    MASK,
    BIAS,
    ALIBI,
    Q_LENGTHS,
    KV_LENGTHS,
    SINKS,
    WEIGHTING,
    ALPHA,
    DROPOUT,
    SEED,
    Q_STARTS,
    KV_STARTS,
    BLOCK_MASK,
    BLOCK_SIZE,
    N_SHARED
};

static const char *const scores[] = { "dot", "additive", "cosine", NULL };
static const char *const stages[] = { "weighted", "capped", "raw", NULL };
static const char *const weightings[] = { "softmax", "sigmoid", "normalized-sum", "sparsemax", "entmax15",
                                          "entmax",  "relu2",   "hardmax",        NULL };

static bool read_causal(PyObject *o, int32_t *causal) {
    static const char *const corners[] = { "bottom-right", "top-left", NULL };
    bool truth;
    if (PyUnicode_Check(o)) {
        if (!read_choice("causal", o, corners, causal)) return false;
        *causal += ATTN_CAUSAL;
        return true;
    }
    if (!read_truth(o, &truth)) return false;
    *causal = truth ? ATTN_CAUSAL : ATTN_NOT_CAUSAL;
    return true;
}

/* Two integers; `says` what they are. */
static bool read_pair(const char *name, PyObject *o, const char *says, int64_t pair[2]) {
    Py_ssize_t n = PySequence_Check(o) ? PySequence_Size(o) : -1;
    if (n != 2) {
        PyErr_Clear();
        return PyErr_Format(PyExc_ValueError, "%s is %R: it is %s", name, o, says), false;
    }
    for (Py_ssize_t i = 0; i < 2; i++) {
        PyObject *side = PySequence_GetItem(o, i);
        bool ok = side && read_integer(name, side, &pair[i]);
        Py_XDECREF(side);
        if (!ok) return false;
    }
    return true;
}

static bool read_window(PyObject *o, attn_attention_args *a) {
    if (o == Py_None) return true;
    a->flags |= ATTN_WINDOW;
    return read_pair("window", o, "(left, right), in keys, -1 for unbounded", a->window);
}

static bool read_scale(PyObject *o, attn_attention_args *a) {
    if (o == Py_None) return true;
    a->flags |= ATTN_SCALE_SET;
    return read_number("scale", o, &a->scale);
}

static bool read_alpha(PyObject *o, attn_attention_args *a) {
    return o == Py_None || read_nonzero("alpha", o, "it is a number from 1 on", &a->alpha);
}

/* None is the library's default, which a 0 would be too. */
static bool read_block_size(PyObject *o, attn_attention_args *a) {
    if (o == Py_None) return true;
    if (!read_integer("block_size", o, &a->block_size)) return false;
    return a->block_size != 0 || (PyErr_SetString(PyExc_ValueError, "block_size is 0: it is 1 or more"), false);
}

/* ---- shapes ---------------------------------------------------------------------------------------------- */

/* With axes of 1 in front, up to `rank` of them. */
static void lift(attn_tensor *t, int32_t rank) {
    int32_t more = rank - t->rank;
    if (more <= 0) return;
    memmove(t->shape + more, t->shape, (size_t)t->rank * sizeof *t->shape);
    memmove(t->stride + more, t->stride, (size_t)t->rank * sizeof *t->stride);
    for (int32_t i = 0; i < more; i++) {
        t->shape[i] = 1;
        t->stride[i] = 0;
    }
    t->rank = rank;
}

/* How the arrays of a call lie: q's axes, and whether they are those of a packed batch. */
typedef struct layout {
    int32_t rank;
    bool packed;
} layout;

/* An array of the caller's with all of its `full` axes: [batch, heads, length, ...]. */
static void view_whole(attn_tensor *t, int32_t full, layout l) {
    if (l.packed) {
        int64_t length = t->shape[0], stride = t->stride[0];
        t->shape[0] = t->shape[1];
        t->stride[0] = t->stride[1];
        t->shape[1] = length;
        t->stride[1] = stride;
    }
    lift(t, full);
}

static bool same_rank(const char *name, const attn_tensor *t, layout l) {
    if (t->rank == l.rank) return true;
    return PyErr_Format(PyExc_ValueError, "%s has %d axes, q has %d", name, (int)t->rank, (int)l.rank), false;
}

static bool read_layout(const attn_attention_args *a, bool packed, layout *l) {
    *l = (layout){ .rank = a->q.rank, .packed = packed };
    if (packed && l->rank != 3)
        return PyErr_Format(PyExc_ValueError, "q has %d axes: with q_starts it is [total, heads, dim]", (int)l->rank), false;
    if (l->rank < 2 || l->rank > 4)
        return PyErr_Format(PyExc_ValueError, "q has %d axes: it is [batch, heads, length, dim], without batch or without both",
                            (int)l->rank),
               false;
    return same_rank("k", &a->k, *l) && same_rank("v", &a->v, *l);
}

/* Reads what is shared; q, k and v are of rank 4 afterwards. */
static bool read_shared(call *c, PyObject *const *args, attn_attention_args *a, layout *l) {
    if (!call_floats(c, "q", args[Q], &a->q) || !call_floats(c, "k", args[K], &a->k) || !call_floats(c, "v", args[V], &a->v))
        return false;
    if (!read_layout(a, args[Q_STARTS] != Py_None, l) || !read_choice("score", args[SCORE], scores, &a->score) ||
        !call_optional(c, "score_weight", args[SCORE_WEIGHT], &a->score_weight) || !read_scale(args[SCALE], a) ||
        !read_number("softcap", args[SOFTCAP], &a->softcap) || !read_causal(args[CAUSAL], &a->causal) ||
        !call_integers(c, "offset", args[OFFSET], &a->offset) || !read_window(args[WINDOW], a) ||
        !call_optional(c, "mask", args[MASK], &a->mask) || !call_optional(c, "bias", args[BIAS], &a->bias) ||
        !call_optional(c, "alibi", args[ALIBI], &a->alibi) || !call_integers(c, "q_lengths", args[Q_LENGTHS], &a->q_lengths) ||
        !call_integers(c, "kv_lengths", args[KV_LENGTHS], &a->kv_lengths) || !call_optional(c, "sinks", args[SINKS], &a->sinks) ||
        !read_choice("weighting", args[WEIGHTING], weightings, &a->weighting) || !read_alpha(args[ALPHA], a) ||
        !read_number("dropout", args[DROPOUT], &a->dropout) || !read_seed("seed", args[SEED], &a->seed) ||
        !call_integers(c, "q_starts", args[Q_STARTS], &a->q_starts) ||
        !call_integers(c, "kv_starts", args[KV_STARTS], &a->kv_starts) ||
        !call_optional(c, "block_mask", args[BLOCK_MASK], &a->block_mask) || !read_block_size(args[BLOCK_SIZE], a))
        return false;
    view_whole(&a->q, 4, *l);
    view_whole(&a->k, 4, *l);
    view_whole(&a->v, 4, *l);
    return true;
}

/* A new output of `full` axes, laid out as q: without axes that q lacks (batch and heads are the first two). */
static bool new_output(call *c, int32_t dtype, int32_t full, const int64_t *shape, layout l, result *r, attn_tensor *t) {
    int32_t missing = 4 - l.rank;
    const int64_t packed[] = { shape[2], shape[1], full > 3 ? shape[3] : 1 };
    if (!call_output(c, dtype, full - missing, l.packed ? packed : shape + missing, r, t)) return false;
    view_whole(t, full, l);
    return true;
}

/* That of what is seen, and of sums. */
static int32_t seen_dtype(const attn_attention_args *a) { return a->q.dtype == ATTN_F64 ? ATTN_F64 : ATTN_F32; }

/* ---- forward --------------------------------------------------------------------------------------------- */

enum { LSE, ENTROPY, RECEIVED, WEIGHTS, SCORES, TOP, POOLED, N_ASKED };
enum { SEE = N_SHARED, TOP_K, SCORES_STAGE, SEE_ROWS, SEE_HEADS, POOLED_SIZE, OUT, N_FORWARD };
enum { R_OUT, R_LSE, R_ENTROPY, R_RECEIVED, R_WEIGHTS, R_SCORES, R_TOP_INDEX, R_TOP_WEIGHT, R_POOLED, N_RESULTS };

/* Which rows or heads: an int, or ints, as C's int64_t, in memory that is given back to PyMem_Free. */
static bool read_list(call *c, const char *name, PyObject *o, const int64_t **list, int64_t *n) {
    attn_tensor t = { 0 };
    if (o == Py_None) return true;
    if (!call_integers(c, name, o, &t)) return false;
    bool integers = t.dtype == ATTN_I32 || t.dtype == ATTN_I64;
    if (t.rank != 1 || !(integers || t.shape[0] == 0)) /* NumPy makes floats of [] */
        return PyErr_Format(PyExc_ValueError, "%s is %R: it is an int, or a row of ints", name, o), false;
    int64_t *all = PyMem_Calloc((size_t)t.shape[0] + 1, sizeof *all); /* an empty list is a list */
    if (!all) return PyErr_NoMemory(), false;
    for (int64_t i = 0; i < t.shape[0]; i++)
        all[i] = t.dtype == ATTN_I32 ? ((const int32_t *)t.data)[i * t.stride[0]] : ((const int64_t *)t.data)[i * t.stride[0]];
    *list = all;
    *n = t.shape[0];
    return true;
}

static bool beside(bool asked, const char *what, bool seen, const char *other) {
    if (!asked || seen) return true;
    return PyErr_Format(PyExc_ValueError, "%s is given, and see names %s", what, other), false;
}

/* What belongs to what is to be seen. */
static bool read_seen(call *c, PyObject *const *args, attn_see *see, int64_t asked, layout l, int64_t pooled[2]) {
    bool maps = asked >> WEIGHTS & 1 || asked >> SCORES & 1, pools = asked >> POOLED & 1;
    if (!beside(args[SEE_ROWS] != Py_None, "see_rows", maps, "neither 'weights' nor 'scores'") ||
        !beside(args[SEE_HEADS] != Py_None, "see_heads", maps, "neither 'weights' nor 'scores'") ||
        !beside(args[POOLED_SIZE] != Py_None, "pooled_size", pools, "no 'pooled'"))
        return false;
    if (args[SEE_HEADS] != Py_None && l.rank == 2)
        return PyErr_SetString(PyExc_ValueError, "see_heads is given, and q has no heads"), false;
    if (pools && !read_pair("pooled_size", args[POOLED_SIZE], "(P, Q), blocks of queries and of keys", pooled)) return false;
    if (pools && (pooled[0] < 1 || pooled[1] < 1))
        return PyErr_Format(PyExc_ValueError, "pooled_size is %R: both are 1 or more", args[POOLED_SIZE]), false;
    return read_list(c, "see_rows", args[SEE_ROWS], &see->rows, &see->n_rows) &&
           read_list(c, "see_heads", args[SEE_HEADS], &see->heads, &see->n_heads);
}

static bool new_seen(call *c, attn_attention_args *a, int64_t asked, int64_t top_k, const int64_t pools[2], layout l, result *r) {
    const int64_t *q = a->q.shape, kv_len = a->k.shape[2];
    attn_see *see = &a->see;
    const int64_t rows[] = { q[0], q[1], q[2] }, keys[] = { q[0], q[1], kv_len }, top[] = { q[0], q[1], q[2], top_k };
    const int64_t map[] = { q[0], see->heads ? see->n_heads : q[1], see->rows ? see->n_rows : q[2], kv_len };
    const int64_t pooled[] = { q[0], q[1], pools[0], pools[1] };
    int32_t dtype = seen_dtype(a);
    if ((asked >> TOP & 1) != (top_k > 0))
        return PyErr_Format(PyExc_ValueError,
                            top_k > 0 ? "top_k is %lld, and see does not name 'top'"
                                      : "see names 'top', and top_k is %lld: it is the number of keys to see",
                            (long long)top_k),
               false;
    return (!(asked >> LSE & 1) || new_output(c, dtype, 3, rows, l, &r[R_LSE], &see->lse)) &&
           (!(asked >> ENTROPY & 1) || new_output(c, dtype, 3, rows, l, &r[R_ENTROPY], &see->entropy)) &&
           (!(asked >> RECEIVED & 1) || new_output(c, dtype, 3, keys, l, &r[R_RECEIVED], &see->received)) &&
           (!(asked >> WEIGHTS & 1) || new_output(c, dtype, 4, map, l, &r[R_WEIGHTS], &see->weights)) &&
           (!(asked >> SCORES & 1) || new_output(c, dtype, 4, map, l, &r[R_SCORES], &see->scores)) &&
           (!(asked >> POOLED & 1) || new_output(c, dtype, 4, pooled, l, &r[R_POOLED], &see->pooled)) &&
           (!(asked >> TOP & 1) || (new_output(c, ATTN_I32, 4, top, l, &r[R_TOP_INDEX], &see->top_index) &&
                                    new_output(c, dtype, 4, top, l, &r[R_TOP_WEIGHT], &see->top_weight)));
}

static bool given_out(call *c, attn_attention_args *a, PyObject *out, layout l) {
    const struct {
        const char *name;
        const attn_tensor *t;
    } inputs[] = { { "q", &a->q },
                   { "k", &a->k },
                   { "v", &a->v },
                   { "score_weight", &a->score_weight },
                   { "offset", &a->offset },
                   { "mask", &a->mask },
                   { "bias", &a->bias },
                   { "alibi", &a->alibi },
                   { "q_lengths", &a->q_lengths },
                   { "kv_lengths", &a->kv_lengths },
                   { "sinks", &a->sinks },
                   { "q_starts", &a->q_starts },
                   { "kv_starts", &a->kv_starts },
                   { "block_mask", &a->block_mask } };
    if (!call_given_output(c, "out", out, &a->out) || !same_rank("out", &a->out, l)) return false;
    view_whole(&a->out, 4, l);
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++)
        if (!call_check_apart(c, "out", &a->out, inputs[i].name, inputs[i].t, false)) return false;
    return true;
}

/* (out, lse, entropy, received, weights, scores, top_index, top_weight, pooled), None where it was not asked for. */
static PyObject *all_results(call *c, result *r, int n) {
    PyObject *all = PyTuple_New(n);
    for (int i = 0; all && i < n; i++) {
        PyObject *one = call_result(c, &r[i]);
        if (!one || PyTuple_SetItem(all, i, one)) Py_CLEAR(all);
    }
    return all;
}

PyObject *attention(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    call c;
    attn_attention_args a = { 0 };
    result r[N_RESULTS] = { { 0 } };
    int64_t asked, top_k, pooled[2] = { 0, 0 };
    layout l = { 0 };
    PyObject *all = NULL;
    if (!count_arguments(n, N_FORWARD)) return NULL;
    bool given = args[OUT] != Py_None;
    bool ok = call_begin(&c, module, args[Q]) && read_shared(&c, args, &a, &l) && read_integer("see", args[SEE], &asked) &&
              read_integer("top_k", args[TOP_K], &top_k) &&
              read_choice("scores_stage", args[SCORES_STAGE], stages, &a.see.scores_stage) &&
              read_seen(&c, args, &a.see, asked, l, pooled) && new_seen(&c, &a, asked, top_k, pooled, l, r);
    if (ok) {
        const int64_t shape[] = { a.q.shape[0], a.q.shape[1], a.q.shape[2], a.v.shape[3] };
        ok = given ? given_out(&c, &a, args[OUT], l) : new_output(&c, a.q.dtype, 4, shape, l, &r[R_OUT], &a.out);
    }
    if (ok) COMPUTE(c, ok, attn_attention(&a, exec));
    if (ok) all = asked ? all_results(&c, r, N_RESULTS) : given ? Py_NewRef(args[OUT]) : call_result(&c, &r[R_OUT]);
    if (all && asked && given && PyTuple_SetItem(all, 0, Py_NewRef(args[OUT]))) Py_CLEAR(all);
    for (int i = 0; i < N_RESULTS; i++) result_drop(&r[i]);
    PyMem_Free((void *)a.see.rows);
    PyMem_Free((void *)a.see.heads);
    call_end(&c);
    return all;
}

/* ---- backward -------------------------------------------------------------------------------------------- */

enum { B_OUT = N_SHARED, B_LSE, B_DLSE, B_DOUT, B_WANTED, N_BACKWARD };
enum { DQ, DK, DV, DBIAS, DSINKS, DALIBI, DALPHA, DSCORE_WEIGHT, N_GRADS };

/* The gradient of an input in its own shape; nothing where there is no such input. */
static bool new_gradient(call *c, const attn_tensor *input, result *r, attn_tensor *t) {
    bool absent = input->rank == 0 && !input->data;
    return absent || call_output(c, input->dtype, input->rank, input->shape, r, t);
}

/* Gradients are those of the inputs that are there, as far as they are wanted. `l` is how q lies. */
static bool new_gradients(call *c, const attn_attention_args *a, attn_attention_grads *g, int64_t wanted, layout l, result *r) {
    bool alpha = a->weighting == ATTN_WEIGHT_ENTMAX;
    return (!(wanted >> DQ & 1) || new_output(c, a->q.dtype, 4, a->q.shape, l, &r[DQ], &g->dq)) &&
           (!(wanted >> DK & 1) || new_output(c, a->k.dtype, 4, a->k.shape, l, &r[DK], &g->dk)) &&
           (!(wanted >> DV & 1) || new_output(c, a->v.dtype, 4, a->v.shape, l, &r[DV], &g->dv)) &&
           (!(wanted >> DBIAS & 1) || new_gradient(c, &a->bias, &r[DBIAS], &g->dbias)) &&
           (!(wanted >> DSINKS & 1) || new_gradient(c, &a->sinks, &r[DSINKS], &g->dsinks)) &&
           (!(wanted >> DALIBI & 1) || new_gradient(c, &a->alibi, &r[DALIBI], &g->dalibi)) &&
           (!(wanted >> DALPHA & 1) || !alpha || call_output(c, seen_dtype(a), 0, NULL, &r[DALPHA], &g->dalpha)) &&
           (!(wanted >> DSCORE_WEIGHT & 1) || new_gradient(c, &a->score_weight, &r[DSCORE_WEIGHT], &g->dscore_weight));
}

/* An optional input beside q of `full` axes, less those that q lacks. */
static bool read_beside(call *c, const char *name, PyObject *o, int32_t full, layout l, attn_tensor *t) {
    if (o == Py_None) return true;
    if (!call_input(c, name, o, t)) return false;
    int32_t own = full - (4 - l.rank);
    if (t->rank != own)
        return PyErr_Format(PyExc_ValueError, "%s has %d axes, here it has %d", name, (int)t->rank, (int)own), false;
    view_whole(t, full, l);
    return true;
}

PyObject *attention_backward(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    call c;
    attn_attention_args a = { 0 };
    attn_attention_grads g = { 0 };
    result r[N_GRADS] = { { 0 } };
    int64_t wanted;
    layout l = { 0 };
    PyObject *all = NULL;
    if (!count_arguments(n, N_BACKWARD)) return NULL;
    bool ok = call_begin(&c, module, args[Q]) && read_shared(&c, args, &a, &l) &&
              read_beside(&c, "dout", args[B_DOUT], 4, l, &g.dout) && read_beside(&c, "out", args[B_OUT], 4, l, &a.out) &&
              read_beside(&c, "lse", args[B_LSE], 3, l, &a.see.lse) && read_beside(&c, "dlse", args[B_DLSE], 3, l, &g.dlse) &&
              read_integer("wanted", args[B_WANTED], &wanted);
    ok = ok && new_gradients(&c, &a, &g, wanted, l, r);
    if (ok) COMPUTE(c, ok, attn_attention_backward(&a, &g, exec));
    if (ok) all = all_results(&c, r, N_GRADS);
    for (int i = 0; i < N_GRADS; i++) result_drop(&r[i]);
    call_end(&c);
    return all;
}

/* ---- forward mode ---------------------------------------------------------------------------------------- */

enum { T_DQ = N_SHARED, T_DK, T_DV, T_DBIAS, N_JVP };
enum { T_OUT, T_LSE, T_DOUT, T_DLSE, N_TANGENTS };

PyObject *attention_jvp(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    call c;
    attn_attention_args a = { 0 };
    attn_attention_tangents t = { 0 };
    result r[N_TANGENTS] = { { 0 } };
    layout l = { 0 };
    PyObject *all = NULL;
    if (!count_arguments(n, N_JVP)) return NULL;
    bool ok = call_begin(&c, module, args[Q]) && read_shared(&c, args, &a, &l) &&
              read_beside(&c, "dq", args[T_DQ], 4, l, &t.dq) && read_beside(&c, "dk", args[T_DK], 4, l, &t.dk) &&
              read_beside(&c, "dv", args[T_DV], 4, l, &t.dv) && call_optional(&c, "dbias", args[T_DBIAS], &t.dbias);
    if (ok) {
        const int64_t shape[] = { a.q.shape[0], a.q.shape[1], a.q.shape[2], a.v.shape[3] };
        ok = new_output(&c, a.q.dtype, 4, shape, l, &r[T_OUT], &a.out) &&
             new_output(&c, seen_dtype(&a), 3, shape, l, &r[T_LSE], &a.see.lse) &&
             new_output(&c, a.q.dtype, 4, shape, l, &r[T_DOUT], &t.dout) &&
             new_output(&c, seen_dtype(&a), 3, shape, l, &r[T_DLSE], &t.dlse);
    }
    if (a.weighting != ATTN_WEIGHT_SOFTMAX) a.see.lse = (attn_tensor){ 0 }; /* what is refused is the weighting, not this */
    if (ok) COMPUTE(c, ok, attn_attention_jvp(&a, &t, exec));
    if (ok) all = all_results(&c, r, N_TANGENTS);
    for (int i = 0; i < N_TANGENTS; i++) result_drop(&r[i]);
    call_end(&c);
    return all;
}

/* ---- second derivatives ---------------------------------------------------------------------------------- */

enum { D_DLSE = N_SHARED, D_DDQ, D_DDK, D_DDV, D_DOUT, N_DOUBLE };
enum { D_DQ, D_DK, D_DV, D_DDOUT, D_DDLSE, N_SECOND };

PyObject *attention_double_backward(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    call c;
    attn_attention_args a = { 0 };
    attn_attention_double_grads g = { 0 };
    result r[N_SECOND] = { { 0 } };
    layout l = { 0 };
    PyObject *all = NULL;
    if (!count_arguments(n, N_DOUBLE)) return NULL;
    bool ok = call_begin(&c, module, args[Q]) && read_shared(&c, args, &a, &l) &&
              read_beside(&c, "dout", args[D_DOUT], 4, l, &g.dout) && read_beside(&c, "dlse", args[D_DLSE], 3, l, &g.dlse) &&
              read_beside(&c, "ddq", args[D_DDQ], 4, l, &g.ddq) && read_beside(&c, "ddk", args[D_DDK], 4, l, &g.ddk) &&
              read_beside(&c, "ddv", args[D_DDV], 4, l, &g.ddv);
    if (ok) {
        const int64_t shape[] = { a.q.shape[0], a.q.shape[1], a.q.shape[2], a.v.shape[3] };
        ok = new_output(&c, a.q.dtype, 4, a.q.shape, l, &r[D_DQ], &g.dq) &&
             new_output(&c, a.q.dtype, 4, a.k.shape, l, &r[D_DK], &g.dk) &&
             new_output(&c, a.q.dtype, 4, a.v.shape, l, &r[D_DV], &g.dv) &&
             new_output(&c, a.q.dtype, 4, shape, l, &r[D_DDOUT], &g.ddout) &&
             new_output(&c, seen_dtype(&a), 3, shape, l, &r[D_DDLSE], &g.ddlse);
    }
    if (ok) COMPUTE(c, ok, attn_attention_double_backward(&a, &g, exec));
    if (ok) all = all_results(&c, r, N_SECOND);
    for (int i = 0; i < N_SECOND; i++) result_drop(&r[i]);
    call_end(&c);
    return all;
}

/* ---- received mass --------------------------------------------------------------------------------------- */

enum { R_BY = N_SHARED, R_DOUT, R_POSITIVE, R_GIVEN_LSE, N_RECEIVED };

PyObject *attention_received(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    call c;
    attn_attention_args a = { 0 };
    attn_received_args r = { 0 };
    result received = { 0 };
    bool positive = false;
    layout l = { 0 };
    PyObject *done = NULL;
    if (!count_arguments(n, N_RECEIVED)) return NULL;
    bool ok = call_begin(&c, module, args[Q]) && read_shared(&c, args, &a, &l) && call_optional(&c, "by", args[R_BY], &r.by) &&
              read_beside(&c, "dout", args[R_DOUT], 4, l, &r.dout) && read_truth(args[R_POSITIVE], &positive) &&
              read_beside(&c, "lse", args[R_GIVEN_LSE], 3, l, &a.see.lse);
    r.positive = positive;
    if (ok) {
        const int64_t keys[] = { a.q.shape[0], a.q.shape[1], a.k.shape[2] };
        ok = new_output(&c, seen_dtype(&a), 3, keys, l, &received, &r.received);
    }
    if (ok) COMPUTE(c, ok, attn_attention_received(&a, &r, exec));
    if (ok) done = call_result(&c, &received);
    result_drop(&received);
    call_end(&c);
    return done;
}
