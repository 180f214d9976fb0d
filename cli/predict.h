/* SPDX-License-Identifier: Apache-2.0 */
/* What `attn eval` and `attn run` share: a model's answers for many examples. */
#ifndef ATTN_CLI_PREDICT_H
#define ATTN_CLI_PREDICT_H

#include <attn/attn.h>

#include "examples.h"
#include "model.h"

typedef struct prediction {
    size_t n, classes;
    float *probabilities; /* [n, classes] */
    double *losses;       /* [n]; NULL where labels are unknown */
} prediction;

/* Owned by the struct, empty after a failure. */
int predict(prediction *p, const nn_model *model, const nn_examples *examples, const attn_exec *exec, io_error *error);
void prediction_free(prediction *p);

#endif
