/* SPDX-License-Identifier: Apache-2.0 */
/* The training loop, one for every task: batches, Muon or AdamW with warm-up and cosine, validation, the best model kept, checkpoints that continue
 * bit for bit, and a way back when the loss stops being a number. It prints nothing: what happens is told to a function. */
#ifndef ATTN_NN_TRAIN_H
#define ATTN_NN_TRAIN_H

#include <signal.h>

#include "examples.h"
#include "model.h"

/* Where a training stands: what a checkpoint keeps beside parameters and moments. */
typedef struct nn_progress {
    int64_t step, total; /* updates made, updates planned */
    int64_t best_step;   /* of the best model; -1: none yet */
    double best_accuracy, best_loss;
    double rate_scale; /* halved with every way back */
    int64_t ways_back;
    double seconds; /* spent so far, over all runs */
    double loss;    /* of the training batches, smoothed */
} nn_progress;

enum {
    NN_NEWS_STEP,
    NN_NEWS_PLANNED,
    NN_NEWS_RESUMED,
    NN_NEWS_OTHER_BUILD,
    NN_NEWS_VALID,
    NN_NEWS_WAY_BACK,
    NN_NEWS_SAVED,
    NN_NEWS_OUT_OF_TIME
};

typedef struct nn_news {
    int what;
    const nn_progress *progress;
    int64_t steps_per_epoch;
    double examples_per_second; /* NN_NEWS_STEP */
    double rate;                /* NN_NEWS_STEP: the learning rate; NN_NEWS_WAY_BACK: the new scale of it */
    double loss, accuracy;      /* NN_NEWS_VALID; NN_NEWS_WAY_BACK: the loss that was no number */
    bool best;                  /* NN_NEWS_VALID: better than all before */
    int64_t step;               /* NN_NEWS_WAY_BACK: where it happened */
    const char *text;           /* NN_NEWS_OTHER_BUILD: the checkpoint's build */
} nn_news;

enum { NN_MUON = 0, NN_ADAMW };
/* "muon", "adamw", in the order of the numbers; NULL ends it. */
extern const char *const nn_optimizer_names[];

typedef struct nn_train_options {
    int64_t batch;
    int64_t steps;  /* updates; 0: epochs, or seconds */
    double epochs;  /* 0: seconds */
    double seconds; /* as many steps as fit; measured before the first update, then fixed */
    double rate;    /* the highest learning rate */
    double warm_up; /* share of the steps with a growing rate */
    double weight_decay, clip, smoothing;
    int32_t optimizer; /* NN_MUON: for matrices between hidden layers, AdamW for the rest; NN_ADAMW: for all */
    uint64_t seed;
    const char *checkpoint;  /* a file; NULL: none */
    double checkpoint_every; /* seconds between checkpoints, at validations; one is always written when stopped */
    bool resume;
    const char *settings;              /* whatever must be the same in a resumed run, as text */
    const volatile sig_atomic_t *stop; /* not 0: finish now; NULL: nobody stops it */
    void (*tell)(void *context, const nn_news *news);
    void *context;
} nn_train_options;

/* Trains the model on its (started) parameters and leaves the best ones in it. valid may be NULL: then the last are the best. Returns
 * IO_INTERRUPTED when stopped, after a checkpoint; the model is the best so far then, too. */
int nn_train(nn_model *m, const nn_examples *train, const nn_examples *valid, const nn_train_options *options,
             const attn_exec *exec, nn_progress *result, io_error *error);

#endif
