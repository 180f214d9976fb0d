/* SPDX-License-Identifier: Apache-2.0 */
/* The classification head: what a row of logits per example says, and what it costs to be wrong. The head owns the targets. */
#ifndef ATTN_NN_HEADS_CLASS_H
#define ATTN_NN_HEADS_CLASS_H

#include "../graph.h"

/* The sum over the shard of the cross-entropy of the graph's output with the labels [examples] (in double, in the order of the examples).
 * In a pass with gradients, that sum's gradient is left at the output. */
attn_status nn_class_loss(const nn_pass *pass, const int32_t *labels, double smoothing, double *loss);

/* The probabilities of the shard's examples, [examples, classes]. */
attn_status nn_class_probabilities(const nn_pass *pass, float *out);

#endif
