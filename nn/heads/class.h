/* SPDX-License-Identifier: Apache-2.0 */
/* The classification head: what a row of logits per example says, and what it costs to be wrong. The head owns the targets. */
#ifndef ATTN_NN_HEADS_CLASS_H
#define ATTN_NN_HEADS_CLASS_H

#include "graph.h"

/* The sum over the rows of logits [n, classes] of the cross-entropy with labels [n] (in double, in the order of the rows). dlogits, where its
 * rank is not 0, becomes that sum's gradient. */
attn_status nn_class_loss(attn_tensor logits, const int32_t *labels, double smoothing, attn_tensor dlogits, double *loss);

/* The probabilities, [n, classes]. */
attn_status nn_class_probabilities(attn_tensor logits, float *out);

#endif
