/* SPDX-License-Identifier: Apache-2.0 */
/* The linear layer, with an activation behind it where asked: y = activation(x W^T + b). */
#include <math.h>

#include "layers.h"

typedef struct linear_layer {
    nn_layer base;
    int32_t product, activation;
    int32_t before; /* slot: x W^T + b, where the activation's gradient needs it */
    int32_t turned; /* slot: the gradient of that */
} linear_layer;

static attn_status linear_forward(const nn_layer *base, nn_pass *pass) {
    const linear_layer *l = (const linear_layer *)base;
    attn_tensor none = { 0 }, before = l->before < 0 ? none : nn_slot_matrix(pass, l->before);
    return nn_product_forward(pass, l->product, nn_data(pass, base->inputs[0]), nn_data(pass, base->output), before, none,
                              l->activation);
}

static attn_status linear_backward(const nn_layer *base, nn_pass *pass) {
    const linear_layer *l = (const linear_layer *)base;
    attn_tensor dy = nn_gradient(pass, base->output);
    if (l->before >= 0) {
        attn_activation_args args = { .activation = l->activation, .x = nn_slot_matrix(pass, l->before) };
        attn_activation_grads grads = { .dy = dy, .dx = nn_slot_matrix(pass, l->turned) };
        attn_status status = attn_activation_backward(&args, &grads, NULL);
        if (status) return status;
        dy = grads.dx;
    }
    return nn_product_backward(pass, l->product, nn_data(pass, base->inputs[0]), dy, nn_gradient(pass, base->inputs[0]),
                               base->accumulate[0]);
}

static const nn_layer_kind linear_kind = { "linear", linear_forward, linear_backward };

int32_t nn_linear(nn_graph *g, const char *name, int32_t x, int64_t width, int32_t activation) {
    linear_layer *l = nn_graph_layer(g, &linear_kind, sizeof *l, &x, 1);
    int64_t in = nn_graph_width(g, x);
    bool single = nn_graph_single(g, x);
    int32_t weight = nn_graph_parameter(
        g, name, "weight",
        &(nn_parameter){
            .rank = 2, .shape = { width, in }, .start = NN_UNIFORM, .spread = 1 / sqrt((double)in), .decays = true });
    int32_t bias = nn_graph_parameter(g, name, "bias", &(nn_parameter){ .rank = 1, .shape = { width } });
    l->product = nn_graph_product(g, weight, bias, 0, width);
    l->activation = activation;
    bool plain = activation == ATTN_IDENTITY;
    l->before = plain ? -1 : nn_graph_slot(g, &l->base, width, single, NN_SAVED);
    l->turned = plain ? -1 : nn_graph_slot(g, &l->base, width, single, NN_IN_BACKWARD);
    return nn_graph_output(g, &l->base, width, single);
}
