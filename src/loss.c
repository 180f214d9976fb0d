/* SPDX-License-Identifier: Apache-2.0 */
/* Options and targets of the losses: the checks that cross-entropy and linear cross-entropy share. */
#include "loss.h"
#include "operand.h"
#include "status.h"

#include <math.h>

static attn_status check_options(const char *operation, const attn_cross_entropy_args *a, attn_loss *p) {
    if (a->flags & ~(uint32_t)ATTN_IGNORE_SET)
        return attn_fail(ATTN_BAD_ARGUMENT, "flags 0x%x mean nothing to %s", a->flags, operation);
    if (a->reduction < ATTN_MEAN || a->reduction > ATTN_NONE)
        return attn_fail(ATTN_BAD_ARGUMENT, "reduction is %d, not mean, sum or none", (int)a->reduction);
    if (!(a->label_smoothing >= 0 && a->label_smoothing <= 1))
        return attn_fail(ATTN_BAD_ARGUMENT, "label_smoothing is %g; it has to be from 0 to 1", a->label_smoothing);
    if (!isfinite(a->z_loss)) return attn_fail(ATTN_BAD_ARGUMENT, "z_loss is %g; it has to be a finite number", a->z_loss);
    p->reduction = a->reduction;
    p->ignore_index = a->flags & ATTN_IGNORE_SET ? a->ignore_index : -100;
    p->smoothing = a->label_smoothing;
    p->z_loss = a->z_loss;
    return ATTN_OK;
}

static attn_status check_labels_shape(const attn_cross_entropy_args *a, attn_loss *p) {
    const attn_tensor *labels = &a->labels;
    attn_status s;
    p->labels = *labels;
    p->soft = labels->rank != 0 && attn_dtype_is_float(labels->dtype);
    if (p->soft) {
        s = attn_check_operand("labels", labels, ATTN_INPUT, 2, a->logits.shape, a->logits.dtype, "logits");
        if (s == ATTN_OK && a->flags & ATTN_IGNORE_SET && a->ignore_index >= 0)
            s = attn_fail(ATTN_BAD_ARGUMENT, "ignore_index is %lld, but soft labels have no index to ignore",
                          (long long)a->ignore_index);
        return s;
    }
    s = attn_check_tensor("labels", labels, 1, 1);
    if (s == ATTN_OK && labels->dtype != ATTN_I32 && labels->dtype != ATTN_I64)
        s = attn_fail(ATTN_BAD_ARGUMENT, "labels are %s; they have to be i32, i64 or float", attn_dtype_name(labels->dtype));
    if (s == ATTN_OK && labels->shape[0] != p->n)
        s = attn_fail(ATTN_BAD_SHAPE, "there are %lld labels for %lld rows of logits", (long long)labels->shape[0],
                      (long long)p->n);
    return s;
}

static attn_status check_loss(const attn_cross_entropy_args *a, attn_loss *p) {
    static const int64_t one = 1;
    bool per_row = p->reduction == ATTN_NONE;
    int32_t rank = per_row ? 1 : a->loss.rank != 0;
    if (!a->loss.data && a->loss.rank == 0) return attn_fail(ATTN_BAD_ARGUMENT, "loss is missing");
    int32_t dtype = a->loss.dtype == ATTN_F64 ? ATTN_F64 : a->logits.dtype;
    p->loss = a->loss;
    return attn_check_operand("loss", &a->loss, ATTN_OUTPUT, rank, per_row ? &p->n : &one, dtype, "the reduction");
}

attn_status attn_loss_check(const char *operation, const attn_cross_entropy_args *a, attn_loss *p) {
    attn_status s = check_options(operation, a, p);
    if (s != ATTN_OK) return s;
    p->logits = a->logits;
    p->n = a->logits.shape[0];
    p->classes = a->logits.shape[1];
    if (p->n > 0 && p->classes == 0) return attn_fail(ATTN_BAD_SHAPE, "logits have no classes");
    s = check_labels_shape(a, p);
    if (s == ATTN_OK && attn_present(&a->class_weight)) {
        p->weight = a->class_weight;
        s = attn_check_operand("class_weight", &a->class_weight, ATTN_INPUT, 1, &p->classes, a->logits.dtype, "classes");
    }
    return s == ATTN_OK ? check_loss(a, p) : s;
}

attn_status attn_loss_check_labels(attn_loss *p) {
    double weight = 0;
    for (int64_t i = 0; i < p->n; i++) {
        if (!attn_loss_counts(p, i)) continue;
        p->any_counts = true;
        if (p->soft) continue;
        int64_t label = attn_loss_label(p, i);
        if (label < 0 || label >= p->classes)
            return attn_fail(ATTN_BAD_ARGUMENT, "labels[%lld] is %lld, which is no class of %lld (and not ignore_index %lld)",
                             (long long)i, (long long)label, (long long)p->classes, (long long)p->ignore_index);
        weight += attn_loss_weight(p, label);
    }
    p->divisor = p->reduction != ATTN_MEAN ? 1 : p->soft ? (double)p->n : weight;
    return ATTN_OK;
}

ref_vector attn_loss_soft(const attn_loss *p, int64_t row) {
    if (!p->soft) return (ref_vector){ 0 };
    return (ref_vector){ attn_at(&p->labels, row * p->labels.stride[0]), p->labels.stride[1], p->labels.dtype };
}

ref_vector attn_loss_weights(const attn_loss *p) {
    if (!p->weight.rank) return (ref_vector){ 0 };
    return (ref_vector){ p->weight.data, p->weight.stride[0], p->weight.dtype };
}
