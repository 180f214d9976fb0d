/* SPDX-License-Identifier: Apache-2.0 */
/* Tokens from ids: a learned row per id, plus one per position, plus that of kind 0 (the models of this scheme know two kinds of
 * text; a single text is kind 0).
 *
 * A batch touches few rows of a large table, so the table's gradient is not a buffer per shard: the shard leaves ids and rows, and
 * nn_token_embedding_gather adds them up in order. */
#include <string.h>

#include "layers.h"

typedef struct token_layer {
    nn_layer base;
    int32_t words, positions, kinds; /* parameters */
    int32_t ids, places;             /* slots that hold int32 */
    int32_t sum;                     /* slot: one row of the backward */
} token_layer;

static int32_t *slot_ints(const nn_pass *pass, int32_t slot) { return nn_slot_matrix(pass, slot).data; }

static attn_embedding_args lookup(attn_tensor table, const int32_t *ids, attn_tensor y, uint32_t flags) {
    return (attn_embedding_args){ .flags = flags, .table = table, .ids = attn_dense(ATTN_I32, ids, 1, &y.shape[0]), .y = y };
}

static attn_status token_forward(const nn_layer *base, nn_pass *pass) {
    const token_layer *l = (const token_layer *)base;
    attn_tensor y = nn_data(pass, base->output), kinds = nn_weight(pass, l->kinds);
    attn_tensor kind = nn_matrix(kinds.dtype, kinds.data, y.shape[0], y.shape[1], 0);
    int32_t *places = slot_ints(pass, l->places);
    for (int64_t i = 0; i < y.shape[0]; i++) places[i] = (int32_t)(i % pass->tokens);
    attn_embedding_args words = lookup(nn_weight(pass, l->words), slot_ints(pass, l->ids), y, 0);
    attn_embedding_args positions = lookup(nn_weight(pass, l->positions), places, y, ATTN_ACCUMULATE);
    attn_status status = attn_embedding(&words, NULL);
    if (!status) status = attn_embedding(&positions, NULL);
    return status ? status : attn_add(&kind, 1, &y, NULL);
}

static attn_status token_backward(const nn_layer *base, nn_pass *pass) {
    const token_layer *l = (const token_layer *)base;
    attn_tensor dy = nn_gradient(pass, base->output), sum = nn_slot_matrix(pass, l->sum);
    attn_tensor d_positions = nn_weight_gradient(pass, l->positions), d_kinds = nn_weight_gradient(pass, l->kinds);
    attn_embedding_args positions = lookup(nn_weight(pass, l->positions), slot_ints(pass, l->places), dy, 0);
    attn_status status = attn_embedding_backward(&positions, &dy, &d_positions, NULL);
    attn_tensor row = attn_dense(sum.dtype, sum.data, 1, &dy.shape[1]);
    attn_tensor first = attn_dense(d_kinds.dtype, d_kinds.data, 1, &dy.shape[1]);
    if (!status) status = attn_sum_rows(&dy, &row, 0, NULL);
    if (!status) status = attn_add(&row, 1, &first, NULL);
    if (status) return status;
    pass->rows->n = dy.shape[0];
    memcpy(pass->rows->ids, slot_ints(pass, l->ids), (size_t)dy.shape[0] * sizeof(int32_t));
    memcpy(pass->rows->rows, dy.data, (size_t)(dy.shape[0] * dy.shape[1]) * nn_element(dy.dtype));
    return ATTN_OK;
}

static const nn_layer_kind token_kind = { "token-embedding", token_forward, token_backward };

int32_t nn_token_embedding(nn_graph *g, const char *name, int64_t vocabulary, int64_t positions, int64_t width) {
    token_layer *l = nn_graph_layer(g, &token_kind, sizeof *l, NULL, 0);
    nn_parameter table = { .rank = 2, .shape = { vocabulary, width }, .start = NN_NORMAL, .spread = 0.02, .by_rows = true };
    nn_parameter places = { .rank = 2, .shape = { positions, width }, .start = NN_NORMAL, .spread = 0.02 };
    nn_parameter kinds = { .rank = 2, .shape = { 2, width } };
    l->words = nn_graph_parameter(g, name, "words.weight", &table);
    l->positions = nn_graph_parameter(g, name, "positions.weight", &places);
    l->kinds = nn_graph_parameter(g, name, "kinds.weight", &kinds);
    l->ids = nn_graph_slot(g, &l->base, 1, false, NN_SAVED);
    l->places = nn_graph_slot(g, &l->base, 1, false, NN_SAVED);
    l->sum = nn_graph_slot(g, &l->base, width, true, NN_IN_BACKWARD);
    return nn_graph_output(g, &l->base, width, false);
}

/* The embedding is a graph's first layer. */
int32_t *nn_ids(const nn_pass *pass) {
    const token_layer *l = (const token_layer *)pass->graph->layers[0];
    return slot_ints(pass, l->ids);
}

attn_status nn_token_embedding_gather(const nn_graph *g, void *gradients, const nn_row_gradients *shards, size_t n) {
    const token_layer *l = (const token_layer *)g->layers[0];
    attn_tensor table = nn_parameters_view(g->parameters, gradients, l->words);
    attn_status status = ATTN_OK;
    for (size_t i = 0; i < n && !status; i++) {
        attn_tensor dy = nn_matrix(table.dtype, shards[i].rows, shards[i].n, table.shape[1], table.shape[1]);
        attn_embedding_args args = lookup(table, shards[i].ids, dy, 0);
        status = attn_embedding_backward(&args, &dy, &table, NULL);
    }
    return status;
}
