/* SPDX-License-Identifier: Apache-2.0 */
/* Tokens from pictures: each patch of pixels is projected to a token, a learned token stands first (Dosovitskiy et al. 2021).
 *
 *     y[e, 0] = first + positions[0]        y[e, t] = W patch[e, t] + b + positions[t]
 *
 * The patches of an example have a row of zeros in front, so that one product makes all rows; everything but W patch is one table
 * that all examples share. */
#include <math.h>
#include <string.h>

#include "layers.h"

typedef struct patch_layer {
    nn_layer base;
    int32_t product, bias, first, positions;
    int32_t patches;     /* slot: the input */
    int32_t table, sums; /* slots: the shared table; its gradient */
} patch_layer;

/* A slot with one row per token, seen as the rows of one example. */
static attn_tensor one_example(const nn_pass *pass, int32_t slot) {
    attn_tensor t = nn_slot_matrix(pass, slot);
    t.shape[0] = pass->tokens;
    return t;
}

static attn_tensor row_range(attn_tensor t, int64_t first, int64_t n) {
    t.data = (char *)t.data + (size_t)(first * t.stride[0]) * nn_element(t.dtype);
    t.shape[0] = n;
    return t;
}

static attn_status patch_forward(const nn_layer *base, nn_pass *pass) {
    const patch_layer *l = (const patch_layer *)base;
    attn_tensor table = one_example(pass, l->table), y = nn_data(pass, base->output), none = { 0 };
    attn_tensor positions = nn_weight(pass, l->positions), first = nn_weight(pass, l->first);
    attn_tensor bias = nn_weight(pass, l->bias), head = row_range(table, 0, 1), rest = row_range(table, 1, pass->tokens - 1);
    attn_tensor repeated = nn_matrix(bias.dtype, bias.data, rest.shape[0], rest.shape[1], 0);
    size_t size = (size_t)(table.shape[0] * table.shape[1]) * nn_element(table.dtype);
    memcpy(table.data, positions.data, size);
    attn_status status = attn_add(&first, 1, &head, NULL);
    if (!status) status = attn_add(&repeated, 1, &rest, NULL);
    for (int64_t i = 0; i < pass->examples; i++) memcpy((char *)y.data + (size_t)i * size, table.data, size);
    return status ? status : nn_product_forward(pass, l->product, nn_slot_matrix(pass, l->patches), y, none, y, ATTN_IDENTITY);
}

static attn_status patch_backward(const nn_layer *base, nn_pass *pass) {
    const patch_layer *l = (const patch_layer *)base;
    attn_tensor dy = nn_gradient(pass, base->output), sums = one_example(pass, l->sums), none = { 0 };
    attn_tensor dp = nn_weight_gradient(pass, l->positions), df = nn_weight_gradient(pass, l->first);
    attn_tensor db = nn_weight_gradient(pass, l->bias), head = row_range(sums, 0, 1);
    attn_tensor rest = row_range(sums, 1, pass->tokens - 1);
    int64_t all = pass->tokens * dy.shape[1];
    attn_tensor by_example = nn_matrix(dy.dtype, dy.data, pass->examples, all, all);
    attn_tensor flat = attn_dense(dy.dtype, sums.data, 1, &all);
    attn_status status = attn_sum_rows(&by_example, &flat, 0, NULL);
    if (!status) status = attn_add(&sums, 1, &dp, NULL);
    if (!status) status = attn_add(&head, 1, &df, NULL);
    if (!status) status = attn_sum_rows(&rest, &db, ATTN_ACCUMULATE, NULL);
    if (!status) status = nn_product_backward(pass, l->product, nn_slot_matrix(pass, l->patches), dy, none, false);
    return status;
}

static const nn_layer_kind patch_kind = { "patch-embedding", patch_forward, patch_backward };

int32_t nn_patch_embedding(nn_graph *g, const char *name, int64_t patches, int64_t patch_size, int64_t width) {
    patch_layer *l = nn_graph_layer(g, &patch_kind, sizeof *l, NULL, 0);
    nn_parameter first = { .rank = 2, .shape = { 1, width }, .start = NN_NORMAL, .spread = 0.02 };
    nn_parameter positions = { .rank = 2, .shape = { 1 + patches, width }, .start = NN_NORMAL, .spread = 0.02 };
    nn_parameter weight = {
        .rank = 2, .shape = { width, patch_size }, .start = NN_UNIFORM, .spread = 1 / sqrt((double)patch_size), .decays = true
    };
    l->first = nn_graph_parameter(g, name, "first", &first);
    l->positions = nn_graph_parameter(g, name, "positions", &positions);
    int32_t w = nn_graph_parameter(g, name, "patch.weight", &weight);
    l->bias = nn_graph_parameter(g, name, "patch.bias", &(nn_parameter){ .rank = 1, .shape = { width } });
    l->product = nn_graph_product(g, w, -1, 0, width);
    l->patches = nn_graph_slot(g, &l->base, patch_size, false, NN_SAVED);
    l->table = nn_graph_slot(g, &l->base, width, false, NN_IN_FORWARD);
    l->sums = nn_graph_slot(g, &l->base, width, false, NN_IN_BACKWARD);
    return nn_graph_output(g, &l->base, width, false);
}

/* The embedding is a graph's first layer. */
void *nn_patches(const nn_pass *pass) {
    const patch_layer *l = (const patch_layer *)pass->graph->layers[0];
    return nn_slot_matrix(pass, l->patches).data;
}
