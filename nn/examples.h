/* SPDX-License-Identifier: Apache-2.0 */
/* What a model is trained and measured on, whatever it is made of: examples by number, written into a shard's inputs on request. */
#ifndef ATTN_NN_EXAMPLES_H
#define ATTN_NN_EXAMPLES_H

#include "config.h"
#include "graph.h"
#include "image_set.h"

typedef struct nn_examples nn_examples;
struct nn_examples {
    size_t n;
    const int32_t *labels; /* [n] class of each; NULL: unknown */
    /* Tokens that example i has. */
    int64_t (*length)(const nn_examples *e, size_t i);
    /* Writes the inputs of pass->examples examples, sets pass->tokens and pass->lengths. Where pass->train, examples may be varied, as a function
     * of pass->seed, pass->step and the place in the batch. Called by several threads at once. */
    void (*fetch)(const nn_examples *e, const uint32_t *which, nn_pass *pass);
};

/* A subset: example i is `of` example which[i]. */
typedef struct nn_subset {
    nn_examples base;
    const nn_examples *of;
    const uint32_t *which;
} nn_subset;

/* ---- pictures --------------------------------------------------------------------------------------------------- */

typedef struct nn_pictures {
    nn_examples base;
    const image_set *set; /* pictures of the config's size and channels; borrowed */
    const nn_config *config;
    int32_t shift;                       /* in training a picture moves by up to so many pixels each way, its edge repeated */
    bool flip;                           /* in training every other picture is seen in a mirror */
    double scale[NN_MOST_CHANNELS][256]; /* what a byte means to the model */
} nn_pictures;

void nn_pictures_open(nn_pictures *p, const image_set *set, const nn_config *config);

/* ---- texts -------------------------------------------------------------------------------------------------------- */

typedef struct nn_texts {
    nn_examples base;
    const nn_config *config;
    int32_t *ids;   /* of all texts, one after the other; owned */
    size_t *starts; /* [n + 1] where each begins; owned */
} nn_texts;

struct tokenizer;
/* Encodes all texts with at most config->positions tokens each. labels may be NULL. */
int nn_texts_open(nn_texts *t, const struct tokenizer *words, const nn_config *config, const char *const *texts,
                  const size_t *lengths, const int32_t *labels, size_t n, io_error *error);
void nn_texts_close(nn_texts *t);

#endif
