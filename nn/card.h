/* SPDX-License-Identifier: Apache-2.0 */
/* The model card: README.md in a model folder, with the figures and the command that repeats them. */
#ifndef ATTN_NN_CARD_H
#define ATTN_NN_CARD_H

#include "evaluate.h"
#include "model.h"
#include "train.h"

typedef struct nn_card {
    const nn_model *model;
    const nn_progress *progress;
    const nn_figures *figures; /* on the validation examples; NULL: there were none */
    const char *command;       /* that repeats the training */
    const char *data;          /* what was read */
    const char *validation;    /* where the validation examples come from */
    size_t n_train;
    double rate, weight_decay, smoothing;
    int64_t batch;
    int32_t optimizer;
    uint64_t seed;
    bool interrupted;
} nn_card;

int nn_card_write(const nn_card *c, const char *folder, io_error *error);

#endif
