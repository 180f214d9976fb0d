/* SPDX-License-Identifier: Apache-2.0 */
/* Losses in Python. */
#include "binding.h"

static const char *const reductions[] = { "mean", "sum", "none", NULL };

/* A loss of 16-bit logits is f32: a mean of many rows deserves more than three digits. */
static int32_t loss_dtype(const attn_tensor *logits) { return logits->dtype == ATTN_F64 ? ATTN_F64 : ATTN_F32; }

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
    if (ok) {
        PyObject *value = call_result(&c, &loss), *gradient = value && grad ? call_result(&c, &dlogits) : NULL;
        if (!grad)
            out = value;
        else if (gradient)
            out = Py_BuildValue("(NN)", value, gradient);
        else
            Py_XDECREF(value);
    }
    result_drop(&loss);
    result_drop(&dlogits);
    call_end(&c);
    return out;
}
