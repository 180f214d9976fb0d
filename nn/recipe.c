/* SPDX-License-Identifier: Apache-2.0 */
/* Defaults for any data. They were found on small pictures and short texts; nothing here knows a data set. */
#include "recipe.h"

#include <math.h>
#include <stdlib.h>

#include <attn/ops.h>

#include "array.h"
#include "json.h"
#include "layers.h"

/* ---- pictures -------------------------------------------------------------------------------------------------------------- */

/* Few tokens make a fast model: 16 patches for small pictures, one per 32 x 32 pixels of large ones. */
static double wanted_tokens(int64_t width, int64_t height) { return fmax(16, (double)(width * height) / 1024); }

static double distance(int64_t width, int64_t height, int64_t patch) {
    double tokens = (double)(width / patch) * (double)(height / patch);
    return fabs(log(tokens / wanted_tokens(width, height)));
}

static int64_t best_patch(int64_t width, int64_t height) {
    int64_t best = 1;
    for (int64_t p = 1; p <= width && p <= height && p <= 1024; p++)
        if (width % p == 0 && height % p == 0 && distance(width, height, p) < distance(width, height, best)) best = p;
    return best;
}

static int32_t nearest_multiple(int32_t side, int64_t patch) {
    int64_t n = (side + patch / 2) / patch;
    return (int32_t)((n < 1 ? 1 : n) * patch);
}

void nn_recipe_size(const nn_recipe *r, const image_set *set, int32_t *width, int32_t *height) {
    *width = set->width;
    *height = set->height;
    int64_t patch = r->patch;
    if (patch == 0) {
        /* Sides without a common divisor of a useful size: the picture is stretched a little. log(4): four times too many tokens. */
        if (distance(set->width, set->height, best_patch(set->width, set->height)) < log(4)) return;
        patch = (int64_t)fmax(1, round(sqrt((double)set->width * set->height / wanted_tokens(set->width, set->height))));
    }
    *width = nearest_multiple(set->width, patch);
    *height = nearest_multiple(set->height, patch);
}

/* Mean and deviation of each channel over (at most the first million of) the training pixels. */
static void measure_pixels(const image_set *set, const uint32_t *which, size_t n, nn_config *c) {
    size_t pixels = (size_t)set->width * (size_t)set->height, channels = (size_t)set->channels;
    size_t some = 1000000 / pixels + 1;
    if (some > n) some = n;
    for (size_t k = 0; k < channels; k++) {
        double sum = 0, squares = 0, count = (double)some * (double)pixels;
        for (size_t i = 0; i < some; i++) {
            const uint8_t *at = set->pixels + which[i] * pixels * channels + k;
            for (size_t j = 0; j < pixels; j++) {
                double x = at[j * channels] / 255.0;
                sum += x;
                squares += x * x;
            }
        }
        double mean = sum / count, variance = squares / count - mean * mean;
        c->mean[k] = round(mean * 1e6) / 1e6;
        c->deviation[k] = variance > 1e-6 ? round(sqrt(variance) * 1e6) / 1e6 : 1;
    }
}

static void picture_config(const nn_recipe *r, const nn_source *data, const uint32_t *which, size_t n, nn_config *c) {
    const image_set *set = &data->pictures;
    c->norm_first = true;
    c->width = r->width ? r->width : 64;
    c->layers = r->layers ? r->layers : 4;
    c->hidden = 4 * c->width;
    c->epsilon = 1e-6;
    c->dropout = r->dropout >= 0 ? r->dropout : 0;
    c->image_width = set->width;
    c->image_height = set->height;
    c->channels = set->channels;
    c->patch = r->patch ? r->patch : best_patch(set->width, set->height);
    measure_pixels(set, which, n, c);
}

/* ---- texts ------------------------------------------------------------------------------------------------------------------- */

static int train_words(const nn_recipe *r, const nn_source *data, const uint32_t *which, size_t n, tokenizer **out,
                       io_error *error) {
    const char **texts = array_new(n, sizeof *texts);
    size_t *lengths = array_new(n, sizeof *lengths);
    int failed = texts && lengths ? IO_OK : io_no_memory(error, "the texts", n * sizeof *texts);
    for (size_t i = 0; i < n && !failed; i++) {
        texts[i] = data->texts[which[i]];
        lengths[i] = data->lengths[which[i]];
    }
    tokenizer_train_options o = { .vocab_size = (size_t)(r->vocabulary ? r->vocabulary : 16000),
                                  .lowercase = !r->keep_case,
                                  .add_prefix_space = true };
    if (!failed) failed = tokenizer_train(out, texts, lengths, n, &o, error);
    free(texts);
    free(lengths);
    return failed;
}

/* As many positions as the longest text needs, within the limit. */
static int longest_text(const nn_source *data, const tokenizer *words, size_t limit, int64_t *out, io_error *error) {
    encoding e = { 0 };
    int failed = IO_OK;
    *out = 1;
    for (size_t i = 0; i < data->n && !failed; i++) {
        failed = tokenizer_encode(words, data->texts[i], data->lengths[i], limit, &e, error);
        if (!failed && (int64_t)e.n > *out) *out = (int64_t)e.n;
    }
    encoding_free(&e);
    return failed;
}

static int text_config(const nn_recipe *r, const nn_source *data, const tokenizer *words, nn_config *c, io_error *error) {
    c->width = r->width ? r->width : 128;
    c->layers = r->layers ? r->layers : 1;
    c->hidden = 2 * c->width;
    c->epsilon = 1e-12;
    c->dropout = r->dropout >= 0 ? r->dropout : 0.3;
    c->head_dropout = c->dropout;
    c->vocabulary = (int64_t)tokenizer_size(words);
    c->pad = tokenizer_special(words, TOKENIZER_PAD) < 0 ? 0 : tokenizer_special(words, TOKENIZER_PAD);
    return longest_text(data, words, (size_t)(r->length ? r->length : 128), &c->positions, error);
}

/* Names go into config.json, which is UTF-8; a folder's name may be any bytes. */
static int check_names(const nn_source *data, io_error *error) {
    for (size_t i = 0; i < data->n_labels; i++) {
        json_t *name = json_string(data->label_names[i]);
        json_decref(name);
        if (!name)
            return io_fail(error, IO_BAD_DATA, "%s: the name of its class %zu is not UTF-8; rename it", data->where.path, i);
    }
    return IO_OK;
}

/* ---- both ---------------------------------------------------------------------------------------------------------------------- */

int nn_recipe_model(const nn_recipe *r, nn_source *data, const uint32_t *which, size_t n, nn_model *out, io_error *error) {
    nn_config c = { .modality = data->modality,
                    .attention = r->attention,
                    .heads = r->heads ? r->heads : 4,
                    .activation = ATTN_GELU,
                    .attention_pool = r->attention_pool };
    tokenizer *words = NULL;
    int failed = check_names(data, error);
    if (!failed) failed = nn_config_set_labels(&c, data->label_names, (int32_t)data->n_labels, error);
    if (!failed && data->modality == NN_TEXT) {
        failed = train_words(r, data, which, n, &words, error);
        if (!failed) failed = text_config(r, data, words, &c, error);
    } else if (!failed) {
        picture_config(r, data, which, n, &c);
    }
    if (failed) {
        nn_config_free(&c);
        tokenizer_free(words);
        return failed;
    }
    failed = nn_model_build(out, &c, NULL, error);
    if (failed) {
        tokenizer_free(words);
        return failed;
    }
    out->words = words;
    nn_model_start(out, r->seed);
    return IO_OK;
}

void nn_recipe_training(const nn_source *data, size_t n, nn_train_options *o) {
    bool text = data->modality == NN_TEXT;
    if (o->batch == 0) o->batch = 64; /* small ones: many updates in few passes */
    if (o->steps == 0 && o->epochs <= 0 && o->seconds <= 0) {
        /* Small sets are seen more often. */
        double passes = (text ? 235000 : 390000) / (double)n;
        o->epochs = fmin(fmax(ceil(passes), 4), 100);
    }
    if (o->optimizer < 0) o->optimizer = text ? NN_ADAMW : NN_MUON;
    if (o->rate < 0) o->rate = 2e-3;
    if (o->weight_decay < 0) o->weight_decay = text ? 0.05 : 0.1;
    if (o->smoothing < 0) o->smoothing = text ? 0.1 : 0.05;
    o->warm_up = 0.05;
    o->clip = 1;
}
