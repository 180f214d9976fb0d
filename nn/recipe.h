/* SPDX-License-Identifier: Apache-2.0 */
/* From data to a sensible model: what is built and how it is trained where the user says nothing. */
#ifndef ATTN_NN_RECIPE_H
#define ATTN_NN_RECIPE_H

#include "source.h"
#include "train.h"

/* What the user asked for; 0: decided here. */
typedef struct nn_recipe {
    int32_t attention; /* NN_DOT, ... */
    int32_t layers, heads;
    int64_t width, patch;
    int64_t vocabulary, length; /* texts: tokens known, tokens of a text at most */
    bool keep_case;             /* texts: upper and lower case differ */
    bool attention_pool;
    double dropout; /* < 0: decided here */
    uint64_t seed;
} nn_recipe;

/* The size that pictures of a set should be brought to, so that patches fit: its own where that works. */
void nn_recipe_size(const nn_recipe *r, const image_set *set, int32_t *width, int32_t *height);
/* A model for the data, with the starting values of r->seed. Texts: the tokenizer is trained on the examples `which` [n]. */
int nn_recipe_model(const nn_recipe *r, nn_source *data, const uint32_t *which, size_t n, nn_model *out, io_error *error);
/* Fills in what is 0 (rates: < 0) in the options. */
void nn_recipe_training(const nn_source *data, size_t n, nn_train_options *o);

#endif
