/* SPDX-License-Identifier: Apache-2.0 */
/* A model at work on many examples: they are cut into shards of fixed size, each worker takes whole shards. What shards yield is put
 * together in a fixed order, so results are the same bits for any number of threads. */
#ifndef ATTN_NN_TEAM_H
#define ATTN_NN_TEAM_H

#include "examples.h"
#include "model.h"

/* A piece of one parameter, treated alone: the unit of parallel work on parameters. */
typedef struct nn_piece {
    int32_t parameter;
    size_t offset, count; /* elements in the buffers */
} nn_piece;

/* A matrix that Muon moves as one. */
typedef struct nn_inner_matrix {
    int32_t parameter;
    int64_t first_row, rows;
} nn_inner_matrix;

/* An example's place in the order of lengths. */
typedef struct nn_by_length {
    int64_t length;
    uint32_t index;
} nn_by_length;

typedef struct nn_team {
    const nn_model *model;
    const attn_exec *exec;
    int32_t n_workers;
    nn_pass *passes; /* one per worker */
    void *packed;    /* weights, packed once per step */

    /* training only */
    size_t max_shards;
    nn_by_length *lengths; /* room for the order of a batch */
    uint32_t *order;
    char **gradients;       /* per shard; the first one also has the tables */
    nn_row_gradients *rows; /* per shard, where the model has a table */
    double *losses;         /* per shard */
    nn_piece *pieces;
    size_t n_pieces;
    double *squares;           /* per piece */
    char *first, *second;      /* AdamW's moments; the first is Muon's momentum */
    nn_inner_matrix *matrices; /* large ones first */
    size_t n_matrices;
    char *muon_memory; /* per worker */
    size_t muon_size;  /* of one worker's */
} nn_team;

/* Memory for everything. max_batch 0: no training. The team borrows model and exec. */
int nn_team_open(nn_team *t, const nn_model *model, int64_t max_batch, const attn_exec *exec, io_error *error);
void nn_team_close(nn_team *t);

/* The probabilities of all examples, [n, classes]; the losses too where `losses` is not NULL (labels needed). */
int nn_team_predict(nn_team *t, const nn_examples *examples, float *probabilities, double *losses, io_error *error);

typedef struct nn_batch {
    const nn_examples *examples;
    const uint32_t *which;
    int64_t n;
    uint64_t seed, step;
    double smoothing;
} nn_batch;

/* Mean loss of the batch and the norm of its gradient, which is left in the team. */
int nn_team_gradient(nn_team *t, const nn_batch *batch, double *loss, double *norm, io_error *error);

typedef struct nn_update {
    double lr, weight_decay, scale; /* scale: of the summed gradient */
    int64_t step;                   /* 1 for the first */
    bool muon;                      /* for inner matrices; AdamW for all else, or for all */
} nn_update;
int nn_team_update(nn_team *t, const nn_update *u, io_error *error);

#endif
