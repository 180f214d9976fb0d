/* SPDX-License-Identifier: Apache-2.0 */
/* Limits and ownership of configs. Reading and writing them is in config_json.c. */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <attn/ops.h>

#include "array.h"
#include "layers.h"

int64_t nn_config_tokens(const nn_config *c) {
    return c->modality == NN_TEXT ? c->positions : 1 + (c->image_height / c->patch) * (c->image_width / c->patch);
}

const char *nn_config_task(const nn_config *c) { return c->modality == NN_TEXT ? "text:class" : "image:class"; }

typedef struct limit {
    const char *what;
    int64_t value, low, high;
} limit;

static int check_limits(const limit *limits, size_t n, const char *name, io_error *error) {
    for (size_t i = 0; i < n; i++)
        if (limits[i].value < limits[i].low || limits[i].value > limits[i].high)
            return io_fail(error, IO_BAD_MODEL, "%s: %s is %lld; it has to be within %lld .. %lld", name, limits[i].what,
                           (long long)limits[i].value, (long long)limits[i].low, (long long)limits[i].high);
    return IO_OK;
}

static int check_pictures(const nn_config *c, const char *name, io_error *error) {
    const limit limits[] = {
        { "the image height", c->image_height, 1, 8192 },
        { "the image width", c->image_width, 1, 8192 },
        { "num_channels", c->channels, 1, NN_MOST_CHANNELS },
        { "patch_size", c->patch, 1, 1024 },
    };
    int failed = check_limits(limits, sizeof limits / sizeof limits[0], name, error);
    if (failed) return failed;
    if (c->image_height % c->patch || c->image_width % c->patch)
        return io_fail(error, IO_BAD_MODEL, "%s: images of %lldx%lld cannot be cut into patches of %lld", name,
                       (long long)c->image_height, (long long)c->image_width, (long long)c->patch);
    for (int32_t i = 0; i < c->channels; i++)
        if (!isfinite(c->mean[i]) || !isfinite(c->deviation[i]) || !(c->deviation[i] > 0))
            return io_fail(error, IO_BAD_MODEL,
                           "%s: the mean or deviation of channel %d is no use: it has to be finite, and the "
                           "deviation above 0",
                           name, i);
    return IO_OK;
}

int nn_config_check(const nn_config *c, const char *name, io_error *error) {
    const limit limits[] = {
        { "num_hidden_layers", c->layers, 1, NN_MOST_LAYERS },
        { "hidden_size", c->width, 1, NN_MOST_WIDTH },
        { "num_attention_heads", c->heads, 1, c->width },
        { "intermediate_size", c->hidden, 1, 4 * NN_MOST_WIDTH },
        { "the number of labels", c->n_labels, 1, NN_MOST_CLASSES },
        { "the kind of attention", c->attention, 0, NN_N_ATTENTIONS - 1 },
    };
    const limit text[] = {
        { "vocab_size", c->vocabulary, 1, INT32_MAX },
        { "max_position_embeddings", c->positions, 1, 1 << 20 },
        { "pad_token_id", c->pad, 0, c->vocabulary - 1 },
    };
    int failed = check_limits(limits, sizeof limits / sizeof limits[0], name, error);
    if (!failed && c->width % c->heads)
        failed = io_fail(error, IO_BAD_MODEL, "%s: hidden_size %lld cannot be shared among %d heads", name, (long long)c->width,
                         c->heads);
    if (!failed && !(c->epsilon > 0 && c->epsilon < 1))
        failed = io_fail(error, IO_BAD_MODEL, "%s: layer_norm_eps has to be above 0 and below 1", name);
    if (failed) return failed;
    return c->modality == NN_TEXT ? check_limits(text, sizeof text / sizeof text[0], name, error)
                                  : check_pictures(c, name, error);
}

int nn_config_set_labels(nn_config *c, char *const *labels, int32_t n, io_error *error) {
    char **copies = array_new((size_t)n, sizeof *copies);
    if (!copies) return io_no_memory(error, "the labels", (size_t)n * sizeof *copies);
    c->labels = copies;
    c->n_labels = n;
    for (int32_t i = 0; i < n; i++) {
        size_t size = strlen(labels[i]) + 1;
        if (!(copies[i] = malloc(size))) return io_no_memory(error, "a label", size);
        memcpy(copies[i], labels[i], size);
    }
    return IO_OK;
}

void nn_config_free(nn_config *c) {
    for (int32_t i = 0; c->labels && i < c->n_labels; i++) free(c->labels[i]);
    free(c->labels);
    c->labels = NULL;
    c->n_labels = 0;
}
