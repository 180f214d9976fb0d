/* SPDX-License-Identifier: Apache-2.0 */
/* Classification: softmax over the logits, cross-entropy with the labels. See class.h. */
#include "class.h"

attn_status nn_class_loss(attn_tensor logits, const int32_t *labels, double smoothing, attn_tensor dlogits, double *loss) {
    float narrow = 0;
    double wide = 0;
    bool f64 = logits.dtype == ATTN_F64;
    attn_cross_entropy_args args = {
        .reduction = ATTN_SUM,
        .logits = logits,
        .labels = attn_dense(ATTN_I32, labels, 1, logits.shape),
        .loss = attn_dense(logits.dtype, f64 ? (void *)&wide : (void *)&narrow, 0, NULL),
        .dlogits = dlogits,
        .label_smoothing = smoothing,
    };
    attn_status status = attn_cross_entropy(&args, NULL);
    *loss = f64 ? wide : (double)narrow;
    return status;
}

attn_status nn_class_probabilities(attn_tensor logits, float *out) {
    attn_softmax_args args = { .x = logits, .y = nn_matrix(ATTN_F32, out, logits.shape[0], logits.shape[1], logits.shape[1]) };
    return attn_softmax(&args, NULL);
}
