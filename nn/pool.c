/* SPDX-License-Identifier: Apache-2.0 */
/* From many tokens to one row per example: the first token, or a mix of all by attention with a learned query. */
#include <math.h>
#include <string.h>

#include "layers.h"

/* ---- the first token -------------------------------------------------------------------------------------------- */

static attn_status first_forward(const nn_layer *base, nn_pass *pass) {
    attn_tensor x = nn_data(pass, base->inputs[0]), y = nn_data(pass, base->output);
    size_t row = (size_t)x.shape[1] * nn_element(x.dtype);
    for (int64_t i = 0; i < pass->examples; i++)
        memcpy((char *)y.data + (size_t)i * row, (char *)x.data + (size_t)(i * pass->tokens) * row, row);
    return ATTN_OK;
}

static attn_status first_backward(const nn_layer *base, nn_pass *pass) {
    attn_tensor dx = nn_gradient(pass, base->inputs[0]), dy = nn_gradient(pass, base->output);
    if (!base->accumulate[0]) nn_zero(dx);
    attn_tensor firsts = nn_matrix(dx.dtype, dx.data, pass->examples, dx.shape[1], pass->tokens * dx.stride[0]);
    return attn_add(&dy, 1, &firsts, NULL);
}

static const nn_layer_kind first_kind = { "first", first_forward, first_backward };

int32_t nn_first(nn_graph *g, int32_t x) {
    nn_layer *l = nn_graph_layer(g, &first_kind, sizeof *l, &x, 1);
    return nn_graph_output(g, l, nn_graph_width(g, x), true);
}

/* ---- attention with a learned query ------------------------------------------------------------------------------- */

typedef struct pool_layer {
    nn_layer base;
    int64_t hidden;
    int32_t place;                              /* among the attention layers, for observers */
    int32_t project, query, score;              /* the product W x, and parameters */
    int32_t keys, lse;                          /* slots */
    int32_t d_keys, d_values, d_query, d_score; /* slots of the backward */
} pool_layer;

static attn_attention_args pool_args(const pool_layer *l, const nn_pass *pass) {
    attn_tensor x = nn_data(pass, l->base.inputs[0]), y = nn_data(pass, l->base.output), u = nn_weight(pass, l->query);
    attn_attention_args args = {
        .score = ATTN_ADDITIVE,
        .q = u,
        .k = nn_heads(pass, nn_slot_matrix(pass, l->keys), 0, 1, l->hidden),
        .v = nn_heads(pass, x, 0, 1, x.shape[1]),
        .out = nn_heads(pass, y, 0, 1, y.shape[1]),
        .score_weight = nn_weight(pass, l->score),
    };
    args.q.rank = 4; /* the same query for every example */
    for (int i = 0; i < 4; i++) args.q.shape[i] = 1, args.q.stride[i] = 0;
    args.q.shape[0] = pass->examples;
    args.q.shape[3] = l->hidden;
    args.q.stride[3] = 1;
    if (pass->lengths) args.kv_lengths = attn_dense(ATTN_I32, pass->lengths, 1, (int64_t[]){ pass->examples });
    attn_tensor lse = nn_slot_matrix(pass, l->lse);
    args.see.lse = attn_dense(lse.dtype, lse.data, 3, (int64_t[]){ pass->examples, 1, 1 });
    return args;
}

static attn_status pool_forward(const nn_layer *base, nn_pass *pass) {
    const pool_layer *l = (const pool_layer *)base;
    attn_tensor none = { 0 }, keys = nn_slot_matrix(pass, l->keys);
    attn_status status = nn_product_forward(pass, l->project, nn_data(pass, base->inputs[0]), keys, none, none, ATTN_IDENTITY);
    if (status) return status;
    attn_attention_args args = pool_args(l, pass);
    const nn_observer *observer = pass->observer;
    if (observer && observer->see) observer->see(observer->context, l->place, &args);
    status = attn_attention(&args, NULL);
    if (!status && observer && observer->seen) observer->seen(observer->context, l->place, &args);
    return status;
}

/* y = sum_j p_j x_j, p = softmax(w.tanh(u + W x_j)) */
static attn_status pool_backward(const nn_layer *base, nn_pass *pass) {
    const pool_layer *l = (const pool_layer *)base;
    attn_tensor x = nn_data(pass, base->inputs[0]), dx = nn_gradient(pass, base->inputs[0]);
    attn_tensor dy = nn_gradient(pass, base->output), d_keys = nn_slot_matrix(pass, l->d_keys);
    attn_tensor d_values = nn_slot_matrix(pass, l->d_values), d_query = nn_slot_matrix(pass, l->d_query);
    attn_tensor d_score = nn_slot_matrix(pass, l->d_score), du = nn_weight_gradient(pass, l->query);
    attn_tensor dw = nn_weight_gradient(pass, l->score), first = attn_dense(d_score.dtype, d_score.data, 1, &l->hidden);
    attn_attention_args args = pool_args(l, pass);
    attn_attention_grads grads = {
        .dout = nn_heads(pass, dy, 0, 1, dy.shape[1]),
        .dq = nn_heads(pass, d_query, 0, 1, l->hidden),
        .dk = nn_heads(pass, d_keys, 0, 1, l->hidden),
        .dv = nn_heads(pass, d_values, 0, 1, x.shape[1]),
        .dscore_weight = first,
    };
    const nn_observer *observer = pass->observer;
    if (observer && observer->gradient) observer->gradient(observer->context, l->place, &args, &grads.dout);
    attn_status status = attn_attention_backward(&args, &grads, NULL);
    if (!status) status = attn_sum_rows(&d_query, &du, ATTN_ACCUMULATE, NULL);
    if (!status) status = attn_add(&first, 1, &dw, NULL);
    if (!status) status = nn_product_backward(pass, l->project, x, d_keys, dx, base->accumulate[0]);
    if (!status) status = attn_add(&d_values, 1, &dx, NULL);
    return status;
}

static const nn_layer_kind pool_kind = { "attention-pool", pool_forward, pool_backward };

int32_t nn_attention_pool(nn_graph *g, const char *name, int32_t x, int64_t hidden) {
    pool_layer *l = nn_graph_layer(g, &pool_kind, sizeof *l, &x, 1);
    int64_t width = nn_graph_width(g, x);
    nn_parameter w = {
        .rank = 2, .shape = { hidden, width }, .start = NN_UNIFORM, .spread = 1 / sqrt((double)width), .decays = true
    };
    nn_parameter score = { .rank = 1, .shape = { hidden }, .start = NN_UNIFORM, .spread = 1 / sqrt((double)hidden) };
    l->hidden = hidden;
    l->place = nn_attention_layers(g);
    l->project = nn_graph_product(g, nn_graph_parameter(g, name, "weight", &w), -1, 0, hidden);
    l->query = nn_graph_parameter(g, name, "query", &(nn_parameter){ .rank = 1, .shape = { hidden } });
    l->score = nn_graph_parameter(g, name, "score", &score);
    l->keys = nn_graph_slot(g, &l->base, hidden, false, NN_SAVED);
    l->lse = nn_graph_slot(g, &l->base, 1, true, NN_SAVED);
    l->d_keys = nn_graph_slot(g, &l->base, hidden, false, NN_IN_BACKWARD);
    l->d_values = nn_graph_slot(g, &l->base, width, false, NN_IN_BACKWARD);
    l->d_query = nn_graph_slot(g, &l->base, hidden, true, NN_IN_BACKWARD);
    l->d_score = nn_graph_slot(g, &l->base, hidden, true, NN_IN_BACKWARD);
    return nn_graph_output(g, &l->base, width, true);
}
