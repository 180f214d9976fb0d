/* SPDX-License-Identifier: Apache-2.0 */
/* A model: input -> tokens -> blocks -> head, built from its config, and the folder that keeps it.
 *
 *     nn_model model;
 *     if (nn_model_load(&model, "build/run/model", NULL, &error)) return report(&error);
 *     ...
 *     nn_model_free(&model);
 *
 * A folder holds config.json, model.safetensors (f32), README.md (written by training), and what the input needs: preprocessor_config.json,
 * or tokenizer.json and tokenizer_config.json. With dot attention and the head at the first token it is a ViTForImageClassification or a
 * BertForSequenceClassification of Hugging Face's transformers, name by name; anything else says model_type "attn" in the same scheme. */
#ifndef ATTN_NN_MODEL_H
#define ATTN_NN_MODEL_H

#include "config.h"
#include "graph.h"
#include "tokenizer.h"

typedef struct nn_model {
    nn_config config;
    nn_parameters parameters;
    nn_graph graph;   /* its output are the logits, [examples, classes] */
    tokenizer *words; /* text: owned */
} nn_model;

typedef struct nn_model_options {
    int32_t dtype;    /* ATTN_F32 (default), or ATTN_F64 */
    int64_t examples; /* of a shard, at most NN_MOST_SHARD; 0: NN_SHARD */
    bool every_query; /* the last block computes all tokens, not only the one that the head reads: for looking at its attention */
} nn_model_options;

enum { NN_SHARD = 16 }; /* examples that are computed together: the same for any number of threads, so the same sums */

/* Takes the config over, also on failure. Values are zero. options may be NULL. */
int nn_model_build(nn_model *m, nn_config *config, const nn_model_options *options, io_error *error);
void nn_model_start(nn_model *m, uint64_t seed);
void nn_model_free(nn_model *m);

/* Everything but README.md. `values` are the parameters to be saved (NULL: the model's own). */
int nn_model_save(const nn_model *m, const void *values, const char *folder, io_error *error);
int nn_model_load(nn_model *m, const char *folder, const nn_model_options *options, io_error *error);

#endif
