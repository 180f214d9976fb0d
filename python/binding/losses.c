/* SPDX-License-Identifier: Apache-2.0 */
/* Losses in Python. */
#include "binding.h"

static const char *const reductions[] = { "mean", "sum", "none", NULL };

/* A loss of 16-bit logits is f32: a mean of many rows deserves more than three digits. */
static int32_t loss_dtype(const attn_tensor *logits) { return logits->dtype == ATTN_F64 ? ATTN_F64 : ATTN_F32; }

/* The loss alone, or a tuple of it and its n gradients. */
static PyObject *loss_and_gradients(call *c, result *loss, result *gradients, int n) {
    PyObject *value = call_result(c, loss);
    if (!value || n == 0) return value;
    PyObject *all = PyTuple_New(n + 1);
    if (!all || PyTuple_SetItem(all, 0, value)) {
        if (!all) Py_DECREF(value);
        Py_XDECREF(all);
        return NULL;
    }
    for (int i = 0; all && i < n; i++) {
        PyObject *gradient = call_result(c, &gradients[i]);
        if (!gradient || PyTuple_SetItem(all, i + 1, gradient)) Py_CLEAR(all);
    }
    return all;
}

/* logits, labels, weight, ignore_index, label_smoothing, z_loss, reduction, grad */
PyObject *cross_entropy(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    call c;
    attn_cross_entropy_args a = { .flags = ATTN_IGNORE_SET };
    result loss = { 0 }, dlogits = { 0 };
    bool grad = false;
    PyObject *out = NULL;
    if (!count_arguments(n, 8)) return NULL;
    bool ok = call_begin(&c, module, args[0]) && call_floats(&c, "logits", args[0], &a.logits) &&
              call_input(&c, "labels", args[1], &a.labels) && call_optional(&c, "weight", args[2], &a.class_weight) &&
              read_integer("ignore_index", args[3], &a.ignore_index) &&
              read_number("label_smoothing", args[4], &a.label_smoothing) && read_number("z_loss", args[5], &a.z_loss) &&
              read_choice("reduction", args[6], reductions, &a.reduction) && read_truth(args[7], &grad);
    if (ok && a.logits.rank != 2) {
        PyErr_Format(PyExc_ValueError, "logits has %d axes: it is [n, classes]", (int)a.logits.rank);
        ok = false;
    }
    ok = ok && call_output(&c, loss_dtype(&a.logits), a.reduction == ATTN_NONE, a.logits.shape, &loss, &a.loss) &&
         (!grad || call_output(&c, a.logits.dtype, 2, a.logits.shape, &dlogits, &a.dlogits));
    if (ok) COMPUTE(c, ok, attn_cross_entropy(&a, exec));
    if (ok) out = loss_and_gradients(&c, &loss, &dlogits, grad ? 1 : 0);
    result_drop(&loss);
    result_drop(&dlogits);
    call_end(&c);
    return out;
}

enum { DX, DWEIGHT, DBIAS, N_LINEAR };

/* x, weight, labels, bias, class_weight, ignore_index, label_smoothing, z_loss, reduction, grad */
PyObject *linear_cross_entropy(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    call c;
    attn_linear_cross_entropy_args a = { .flags = ATTN_IGNORE_SET };
    result loss = { 0 }, grads[N_LINEAR] = { { 0 } };
    bool grad = false;
    PyObject *out = NULL;
    if (!count_arguments(n, 10)) return NULL;
    bool ok = call_begin(&c, module, args[0]) && call_floats(&c, "x", args[0], &a.x) &&
              call_floats(&c, "weight", args[1], &a.weight) && call_input(&c, "labels", args[2], &a.labels) &&
              call_optional(&c, "bias", args[3], &a.bias) && call_optional(&c, "class_weight", args[4], &a.class_weight) &&
              read_integer("ignore_index", args[5], &a.ignore_index) &&
              read_number("label_smoothing", args[6], &a.label_smoothing) && read_number("z_loss", args[7], &a.z_loss) &&
              read_choice("reduction", args[8], reductions, &a.reduction) && read_truth(args[9], &grad);
    if (ok && a.x.rank != 2) {
        PyErr_Format(PyExc_ValueError, "x has %d axes: it is [n, dim]", (int)a.x.rank);
        ok = false;
    }
    bool biased = a.bias.rank != 0 || a.bias.data;
    ok = ok && call_output(&c, loss_dtype(&a.x), a.reduction == ATTN_NONE, a.x.shape, &loss, &a.loss) &&
         (!grad || (call_output(&c, a.x.dtype, 2, a.x.shape, &grads[DX], &a.dx) &&
                    call_output(&c, a.weight.dtype, a.weight.rank, a.weight.shape, &grads[DWEIGHT], &a.dweight) &&
                    (!biased || call_output(&c, a.bias.dtype, a.bias.rank, a.bias.shape, &grads[DBIAS], &a.dbias))));
    if (ok) COMPUTE(c, ok, attn_linear_cross_entropy(&a, exec));
    if (ok) out = loss_and_gradients(&c, &loss, grads, grad ? N_LINEAR : 0);
    result_drop(&loss);
    for (int i = 0; i < N_LINEAR; i++) result_drop(&grads[i]);
    call_end(&c);
    return out;
}
