/* SPDX-License-Identifier: Apache-2.0 */
/* The feed-forward block: every token alone through one hidden layer, with the residual added in the same product. */
#include <math.h>

#include "layers.h"

typedef struct feed_forward_layer {
    nn_layer base; /* inputs: residual, h */
    int32_t in, out;
    int32_t activation;
    double dropout;
    int32_t before, hidden;  /* slots: W1 h + b1, and activation of that */
    int32_t turned, dropped; /* slots: the gradients of hidden and of what dropout left */
} feed_forward_layer;

static attn_status feed_forward_forward(const nn_layer *base, nn_pass *pass) {
    const feed_forward_layer *l = (const feed_forward_layer *)base;
    attn_tensor none = { 0 }, h = nn_data(pass, base->inputs[1]), hidden = nn_slot_matrix(pass, l->hidden);
    attn_tensor x = nn_data(pass, base->inputs[0]), y = nn_data(pass, base->output);
    attn_status status = nn_product_forward(pass, l->in, h, hidden, nn_slot_matrix(pass, l->before), none, l->activation);
    bool drops = pass->train && l->dropout > 0;
    if (!status) status = nn_product_forward(pass, l->out, hidden, y, none, drops ? none : x, ATTN_IDENTITY);
    if (!status && drops) status = nn_dropout_rows(pass, base, y, y, l->dropout);
    if (!status && drops) status = attn_add(&x, 1, &y, NULL);
    return status;
}

/* y = x + dropout(W2 f + b2), f = activation(W1 h + b1) */
static attn_status feed_forward_backward(const nn_layer *base, nn_pass *pass) {
    const feed_forward_layer *l = (const feed_forward_layer *)base;
    attn_tensor dy = nn_gradient(pass, base->output), df = nn_slot_matrix(pass, l->turned);
    attn_tensor h = nn_data(pass, base->inputs[1]), dh = nn_gradient(pass, base->inputs[1]);
    attn_status status = nn_residual_backward(base, pass);
    if (!status && pass->train && l->dropout > 0) {
        attn_tensor dropped = nn_slot_matrix(pass, l->dropped);
        status = nn_dropout_rows(pass, base, dy, dropped, l->dropout);
        dy = dropped;
    }
    if (!status) status = nn_product_backward(pass, l->out, nn_slot_matrix(pass, l->hidden), dy, df, false);
    attn_activation_args args = { .activation = l->activation, .x = nn_slot_matrix(pass, l->before) };
    attn_activation_grads grads = { .dy = df, .dx = df };
    if (!status) status = attn_activation_backward(&args, &grads, NULL);
    if (!status) status = nn_product_backward(pass, l->in, h, df, dh, base->accumulate[1]);
    return status;
}

static const nn_layer_kind feed_forward_kind = { "feed-forward", feed_forward_forward, feed_forward_backward };

int32_t nn_feed_forward(nn_graph *g, const char *name, int32_t residual, int32_t h, const nn_feed_forward_options *o) {
    feed_forward_layer *l = nn_graph_layer(g, &feed_forward_kind, sizeof *l, (int32_t[]){ residual, h }, 2);
    int64_t width = nn_graph_width(g, residual), in = nn_graph_width(g, h);
    bool single = nn_graph_single(g, residual);
    nn_parameter w1 = { .rank = 2,
                        .shape = { o->width, in },
                        .start = NN_UNIFORM,
                        .spread = 1 / sqrt((double)in),
                        .decays = true,
                        .inner = o->width };
    nn_parameter w2 = { .rank = 2, .shape = { width, o->width }, .start = NN_UNIFORM, .decays = true, .inner = width };
    w2.spread = (o->out_scale > 0 ? o->out_scale : 1) / sqrt((double)o->width);
    l->base.residual = true;
    l->activation = o->activation;
    l->dropout = o->dropout;
    int32_t weight = nn_graph_parameter(g, name, "in.weight", &w1);
    int32_t bias = nn_graph_parameter(g, name, "in.bias", &(nn_parameter){ .rank = 1, .shape = { o->width } });
    l->in = nn_graph_product(g, weight, bias, 0, o->width);
    weight = nn_graph_parameter(g, name, "out.weight", &w2);
    bias = nn_graph_parameter(g, name, "out.bias", &(nn_parameter){ .rank = 1, .shape = { width } });
    l->out = nn_graph_product(g, weight, bias, 0, width);
    l->before = nn_graph_slot(g, &l->base, o->width, single, NN_SAVED);
    l->hidden = nn_graph_slot(g, &l->base, o->width, single, NN_SAVED);
    l->turned = nn_graph_slot(g, &l->base, o->width, single, NN_IN_BACKWARD);
    l->dropped = o->dropout > 0 ? nn_graph_slot(g, &l->base, width, single, NN_IN_BACKWARD) : -1;
    return nn_graph_output(g, &l->base, width, single);
}
