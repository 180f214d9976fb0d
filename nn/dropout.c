/* SPDX-License-Identifier: Apache-2.0 */
/* Dropout between layers (Srivastava et al. 2014). */
#include <string.h>

#include "layers.h"

typedef struct dropout_layer {
    nn_layer base;
    double p;
    int32_t turned; /* slot: the gradient to be added, where it does not go into place at once */
} dropout_layer;

static attn_status dropout_forward(const nn_layer *base, nn_pass *pass) {
    const dropout_layer *l = (const dropout_layer *)base;
    attn_tensor x = nn_data(pass, base->inputs[0]), y = nn_data(pass, base->output);
    if (pass->train) return nn_dropout_rows(pass, base, x, y, l->p);
    memcpy(y.data, x.data, (size_t)(x.shape[0] * x.shape[1]) * nn_element(x.dtype));
    return ATTN_OK;
}

/* The same entries are dropped from the gradient, the others grow alike. */
static attn_status dropout_backward(const nn_layer *base, nn_pass *pass) {
    const dropout_layer *l = (const dropout_layer *)base;
    attn_tensor dy = nn_gradient(pass, base->output), dx = nn_gradient(pass, base->inputs[0]);
    attn_tensor to = base->accumulate[0] ? nn_slot_matrix(pass, l->turned) : dx;
    attn_status status = ATTN_OK;
    if (pass->train)
        status = nn_dropout_rows(pass, base, dy, to, l->p);
    else
        memcpy(to.data, dy.data, (size_t)(dy.shape[0] * dy.shape[1]) * nn_element(dy.dtype));
    return !status && base->accumulate[0] ? attn_add(&to, 1, &dx, NULL) : status;
}

static const nn_layer_kind dropout_kind = { "dropout", dropout_forward, dropout_backward };

int32_t nn_dropout(nn_graph *g, int32_t x, double p) {
    dropout_layer *l = nn_graph_layer(g, &dropout_kind, sizeof *l, &x, 1);
    int64_t width = nn_graph_width(g, x);
    bool single = nn_graph_single(g, x);
    l->p = p;
    l->turned = nn_graph_slot(g, &l->base, width, single, NN_IN_BACKWARD);
    return nn_graph_output(g, &l->base, width, single);
}
