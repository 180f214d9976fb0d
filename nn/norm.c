/* SPDX-License-Identifier: Apache-2.0 */
/* Layer norm and RMS norm as layers: every token's row is normalised, then scaled (and shifted) by learned vectors. */
#include "layers.h"

typedef struct norm_layer {
    nn_layer base;
    int32_t kind;
    double epsilon;
    int32_t weight, bias; /* bias -1: RMS norm has none */
    int32_t mean, rstd;   /* slots, one element per row */
} norm_layer;

static attn_norm_args norm_args(const norm_layer *l, const nn_pass *pass) {
    attn_norm_args args = {
        .kind = l->kind,
        .epsilon = l->epsilon,
        .x = nn_data(pass, l->base.inputs[0]),
        .y = nn_data(pass, l->base.output),
        .weight = nn_weight(pass, l->weight),
        .rstd = nn_slot_matrix(pass, l->rstd),
    };
    args.rstd.rank = 1;
    args.rstd.stride[0] = 1;
    if (l->bias >= 0) {
        args.bias = nn_weight(pass, l->bias);
        args.mean = nn_slot_matrix(pass, l->mean);
        args.mean.rank = 1;
    }
    return args;
}

static attn_status norm_forward(const nn_layer *base, nn_pass *pass) {
    attn_norm_args args = norm_args((const norm_layer *)base, pass);
    return attn_norm(&args, NULL);
}

static attn_status norm_backward(const nn_layer *base, nn_pass *pass) {
    const norm_layer *l = (const norm_layer *)base;
    attn_norm_args args = norm_args(l, pass);
    attn_tensor dy = nn_gradient(pass, base->output), dx = nn_gradient(pass, base->inputs[0]);
    attn_norm_grads grads = { .dy = dy, .dx = dx, .dweight = nn_weight_gradient(pass, l->weight) };
    if (l->bias >= 0) grads.dbias = nn_weight_gradient(pass, l->bias);
    /* ATTN_ACCUMULATE speaks for dx and the parameters alike: a dx that nobody has written yet starts from zero. */
    args.flags = ATTN_ACCUMULATE;
    if (!base->accumulate[0]) nn_zero(dx);
    return attn_norm_backward(&args, &grads, NULL);
}

static const nn_layer_kind norm_kind = { "norm", norm_forward, norm_backward };

int32_t nn_norm(nn_graph *g, const char *name, int32_t x, int32_t kind, double epsilon) {
    norm_layer *l = nn_graph_layer(g, &norm_kind, sizeof *l, &x, 1);
    int64_t width = nn_graph_width(g, x);
    bool single = nn_graph_single(g, x), centred = kind == ATTN_LAYER_NORM;
    l->kind = kind;
    l->epsilon = epsilon;
    l->weight = nn_graph_parameter(g, name, "weight", &(nn_parameter){ .rank = 1, .shape = { width }, .start = NN_ONES });
    l->bias = centred ? nn_graph_parameter(g, name, "bias", &(nn_parameter){ .rank = 1, .shape = { width } }) : -1;
    l->mean = centred ? nn_graph_slot(g, &l->base, 1, single, NN_SAVED) : -1;
    l->rstd = nn_graph_slot(g, &l->base, 1, single, NN_SAVED);
    return nn_graph_output(g, &l->base, width, single);
}
