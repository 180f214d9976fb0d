/* SPDX-License-Identifier: Apache-2.0 */
/* From a config to a graph: input -> tokens -> blocks -> head. */
#include "model.h"

#include <math.h>
#include <stdio.h>

#include "layers.h"

static int32_t embed(nn_graph *g, const nn_config *c) {
    if (c->modality == NN_IMAGE)
        return nn_patch_embedding(g, "embedding", nn_config_tokens(c) - 1, c->channels * c->patch * c->patch, c->width);
    int32_t x = nn_token_embedding(g, "embedding", c->vocabulary, c->positions, c->width);
    return nn_norm(g, "embedding.norm", x, ATTN_LAYER_NORM, c->epsilon);
}

/* One block. `first_only`: the head reads the first token alone, so the last block asks only its query; the others' results would
 * be thrown away. Keys and values are those of all tokens. */
static int32_t block(nn_graph *g, const nn_config *c, int32_t number, int32_t x, bool first_only) {
    char attention[32], feed[32], before[32], after[32];
    snprintf(attention, sizeof attention, "block.%d.attention", number);
    snprintf(feed, sizeof feed, "block.%d.feed", number);
    snprintf(before, sizeof before, "block.%d.norm1", number);
    snprintf(after, sizeof after, "block.%d.norm2", number);
    double out_scale =
        c->norm_first ? 1 / sqrt(2.0 * c->layers) : 1; /* the sum over the stack starts no larger than one block's */
    nn_attention_options a = { .kind = c->attention, .heads = c->heads, .dropout = c->dropout, .out_scale = out_scale };
    nn_feed_forward_options f = {
        .width = c->hidden, .activation = c->activation, .dropout = c->dropout, .out_scale = out_scale
    };
    int32_t memory = c->norm_first ? nn_norm(g, before, x, ATTN_LAYER_NORM, c->epsilon) : x;
    int32_t query = memory, residual = x;
    if (first_only) {
        query = nn_first(g, memory);
        residual = c->norm_first ? nn_first(g, x) : query;
    }
    x = nn_attention(g, attention, residual, query, memory, &a);
    if (!c->norm_first) x = nn_norm(g, before, x, ATTN_LAYER_NORM, c->epsilon);
    int32_t h = c->norm_first ? nn_norm(g, after, x, ATTN_LAYER_NORM, c->epsilon) : x;
    x = nn_feed_forward(g, feed, x, h, &f);
    return c->norm_first ? x : nn_norm(g, after, x, ATTN_LAYER_NORM, c->epsilon);
}

/* The row that the head reads, one per example. */
static int32_t pool(nn_graph *g, const nn_config *c, int32_t x) {
    if (c->attention_pool) x = nn_attention_pool(g, "pool", x, c->width);
    if (!nn_graph_single(g, x)) x = nn_first(g, x);
    if (c->norm_first) x = nn_norm(g, "norm", x, ATTN_LAYER_NORM, c->epsilon);
    if (c->modality == NN_TEXT) x = nn_linear(g, "pooler", x, c->width, ATTN_TANH);
    return c->head_dropout > 0 ? nn_dropout(g, x, c->head_dropout) : x;
}

int nn_model_build(nn_model *m, nn_config *config, const nn_model_options *options, io_error *error) {
    nn_model_options o = options ? *options : (nn_model_options){ 0 };
    *m = (nn_model){ .config = *config, .parameters = { .dtype = o.dtype } };
    *config = (nn_config){ 0 };
    const nn_config *c = &m->config;
    nn_graph *g = &m->graph;
    int failed = nn_config_check(c, "the model", error);
    if (!failed) {
        g->parameters = &m->parameters;
        int32_t x = embed(g, c);
        if (c->dropout > 0) x = nn_dropout(g, x, c->dropout);
        for (int32_t i = 0; i < c->layers; i++) x = block(g, c, i, x, i == c->layers - 1 && !c->attention_pool && !o.every_query);
        int32_t logits = nn_linear(g, "classifier", pool(g, c, x), c->n_labels, ATTN_IDENTITY);
        int64_t examples = o.examples > 0 && o.examples <= NN_MOST_SHARD ? o.examples : NN_SHARD;
        failed = nn_graph_finish(g, logits, examples, nn_config_tokens(c), error);
    }
    if (failed) nn_model_free(m);
    return failed;
}

void nn_model_start(nn_model *m, uint64_t seed) { nn_parameters_start(&m->parameters, seed); }

void nn_model_free(nn_model *m) {
    nn_graph_free(&m->graph);
    nn_parameters_free(&m->parameters);
    nn_config_free(&m->config);
    tokenizer_free(m->words);
    *m = (nn_model){ 0 };
}
