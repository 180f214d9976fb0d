/* SPDX-License-Identifier: Apache-2.0 */
/* What cross-entropy and linear cross-entropy share: their options and targets after validation. */
#ifndef ATTN_LOSS_H
#define ATTN_LOSS_H

#include "piece.h"
#include "tensor.h"

/* A loss over n rows of logits. */
typedef struct attn_loss {
    int64_t n, classes;
    attn_tensor logits, labels, weight, loss; /* weight may be absent; loss: [n] with ATTN_NONE */
    bool soft;
    int32_t reduction;
    int64_t ignore_index;
    double smoothing, z_loss;
    double divisor;  /* what the sum of losses is divided by */
    bool any_counts; /* some row is not ignored */
} attn_loss;

/* Options, shapes and dtypes of everything but the gradients. Of a->logits only shape and dtype are looked at: where there are no
 * logits in memory, they say what the others have to agree with. `operation` opens messages. Reads no data. */
attn_status attn_loss_check(const char *operation, const attn_cross_entropy_args *a, attn_loss *p);
/* Every label is a class or ignored; and what the mean divides by. Reads labels and class weights. */
attn_status attn_loss_check_labels(attn_loss *p);

static inline int64_t attn_loss_label(const attn_loss *p, int64_t row) {
    return attn_int_at(&p->labels, row * p->labels.stride[0]);
}
static inline bool attn_loss_counts(const attn_loss *p, int64_t row) {
    return p->soft || attn_loss_label(p, row) != p->ignore_index;
}
static inline double attn_loss_weight(const attn_loss *p, int64_t c) {
    return p->weight.rank ? ref_load(p->weight.data, p->weight.dtype, c * p->weight.stride[0]) : 1;
}
/* The soft labels of a row, and the class weights; data NULL where there are none. */
ref_vector attn_loss_soft(const attn_loss *p, int64_t row);
ref_vector attn_loss_weights(const attn_loss *p);

#endif
