/* SPDX-License-Identifier: Apache-2.0 */
/* What a model is, in numbers: everything from which its graph is built. config.json in a model folder says the same in the words of
 * Hugging Face. */
#ifndef ATTN_NN_CONFIG_H
#define ATTN_NN_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "error.h"

enum { NN_IMAGE = 0, NN_TEXT };

enum { NN_MOST_LAYERS = 256, NN_MOST_WIDTH = 65536, NN_MOST_CLASSES = 1 << 20, NN_MOST_CHANNELS = 4 };

typedef struct nn_config {
    int32_t modality;  /* NN_IMAGE: the task image:class, NN_TEXT: text:class */
    int32_t attention; /* NN_DOT, ... (layers.h) */
    int32_t layers, heads;
    int64_t width;       /* of a token */
    int64_t hidden;      /* of the feed-forward block */
    int32_t activation;  /* ATTN_GELU, ... */
    double epsilon;      /* of the norms */
    bool norm_first;     /* norms before each block (ViT) or after it (BERT) */
    bool attention_pool; /* the head reads a mix of all tokens, not the first one */
    double dropout;      /* in training: behind embedding and blocks */
    double head_dropout; /* in training: before the classifier */

    /* pictures */
    int64_t image_height, image_width, patch;
    int32_t channels;
    double mean[NN_MOST_CHANNELS], deviation[NN_MOST_CHANNELS]; /* of pixels in 0..1 */

    /* text */
    int64_t vocabulary, positions; /* rows of the tables; positions is the longest text in tokens */
    int32_t pad;                   /* the id that fills up short texts */

    char **labels; /* by class, owned */
    int32_t n_labels;
} nn_config;

/* Tokens of one example at most: 1 + patches, or positions. */
int64_t nn_config_tokens(const nn_config *c);
/* Is every number within what a graph can be built from? IO_BAD_MODEL naming the field if not. `name` is what messages call it. */
int nn_config_check(const nn_config *c, const char *name, io_error *error);
int nn_config_set_labels(nn_config *c, char *const *labels, int32_t n, io_error *error);
void nn_config_free(nn_config *c);

/* "image:class", "text:class" */
const char *nn_config_task(const nn_config *c);

/* config.json, and preprocessor_config.json of pictures. */
int nn_config_save(const nn_config *c, const char *folder, io_error *error);
int nn_config_load(nn_config *c, const char *folder, io_error *error);

#endif
