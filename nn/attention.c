/* SPDX-License-Identifier: Apache-2.0 */
/* Multi-head attention as a layer: project to queries, keys and values; score, weight and mix in one call of the library; project back
 * and add the residual. The five kinds differ in how scores come about (layers.h defines them).
 *
 * One product makes all projections of a token; attention reads queries, keys and values as columns of its result. */
#include <math.h>
#include <stdlib.h>

#include "layers.h"

const char *const nn_attention_names[] = { "dot", "multiplicative", "additive", "gated", "mlp", NULL };

/* The rows of projection.weight, by part: what stands beside the query comes from the same rows of x, the rest from memory. */
static const char *const parts[NN_N_ATTENTIONS][5] = {
    [NN_DOT] = { "query", "key", "value" },      [NN_MULTIPLICATIVE] = { "query", "value" },
    [NN_ADDITIVE] = { "query", "key", "value" }, [NN_GATED] = { "query", "gate", "key", "value" },
    [NN_MLP] = { "query", "key", "value" },
};

const char *nn_attention_part(int32_t kind, int32_t index) { return parts[kind][index]; }

typedef struct attention_layer {
    nn_layer base; /* inputs: residual, x, and memory where it is not x */
    int32_t kind, heads, place;
    bool self;
    int64_t width, head; /* of a token, of a head */
    int64_t beside;      /* columns that come from x: query, and gate */
    double dropout;
    int32_t near, far, out;        /* products; far -1: near makes all */
    int32_t score;                 /* parameter of additive and mlp */
    int32_t query_net[2];          /* mlp: the products U1 (from 0) and U2 (from 1) of the first head; the other heads' follow */
    int32_t projected, remembered; /* slots: columns from x, from memory (one and the same for self-attention) */
    int32_t net[2];                /* slots: U1 q + b and U2 k of mlp */
    int32_t mix, gated, lse;       /* slots */
    int32_t d_projected, d_remembered, d_net[2], d_mix, d_gate, d_key, d_score, dropped; /* slots of the backward */
} attention_layer;

static int64_t memory_input(const attention_layer *l) { return l->base.inputs[l->self ? 1 : 2]; }

/* Columns of query, gate, key and value; those of key and value count from `far` on. */
static attn_tensor far_columns(const attention_layer *l, attn_tensor t, int64_t place) {
    return nn_columns(t, (l->self ? l->beside : 0) + place * l->width, l->width);
}

static int64_t value_place(const attention_layer *l) { return l->kind == NN_MULTIPLICATIVE ? 0 : 1; }

/* What the library is asked: the same in forward and backward. `projected` and `remembered` are data or gradients. */
typedef struct operands {
    attn_tensor q, k, v;
} operands;

static operands find_operands(const attention_layer *l, const nn_pass *pass, bool gradient) {
    attn_tensor near = nn_slot_matrix(pass, gradient ? l->d_projected : l->projected);
    attn_tensor far = l->self ? near : nn_slot_matrix(pass, gradient ? l->d_remembered : l->remembered);
    attn_tensor q = nn_columns(near, 0, l->width), v = far_columns(l, far, value_place(l)), k;
    int64_t head = l->head;
    if (l->kind == NN_MULTIPLICATIVE)
        k = gradient ? nn_slot_matrix(pass, l->d_key) : nn_data(pass, (int32_t)memory_input(l));
    else
        k = far_columns(l, far, 0);
    if (l->kind == NN_MLP) {
        q = nn_slot_matrix(pass, gradient ? l->d_net[0] : l->net[0]);
        k = nn_slot_matrix(pass, gradient ? l->d_net[1] : l->net[1]);
        head = 2 * l->head;
    }
    return (operands){ .q = nn_heads(pass, q, 0, l->heads, head),
                       .k = nn_heads(pass, k, 0, l->heads, head),
                       .v = nn_heads(pass, v, 0, l->heads, l->head) };
}

static attn_attention_args attention_args(const attention_layer *l, const nn_pass *pass) {
    operands o = find_operands(l, pass, false);
    attn_tensor mix = nn_slot_matrix(pass, l->mix), lse = nn_slot_matrix(pass, l->lse);
    attn_attention_args args = { .q = o.q, .k = o.k, .v = o.v, .out = nn_heads(pass, mix, 0, l->heads, l->head) };
    args.see.lse = attn_dense(lse.dtype, lse.data, 3, (int64_t[]){ pass->examples, l->heads, o.q.shape[2] });
    if (l->kind == NN_MULTIPLICATIVE) {
        args.scale = 1;
        args.flags = ATTN_SCALE_SET;
    }
    if (l->kind == NN_ADDITIVE || l->kind == NN_MLP) {
        args.score = ATTN_ADDITIVE;
        args.score_weight = nn_weight(pass, l->score);
    }
    if (pass->lengths) {
        args.kv_lengths = attn_dense(ATTN_I32, pass->lengths, 1, (int64_t[]){ pass->examples });
        if (o.q.shape[2] == o.k.shape[2] && l->self) args.q_lengths = args.kv_lengths;
    }
    return args;
}

/* The library's own threads are at work on whole shards: a call uses the calling thread, and memory that the pass keeps. */
static attn_exec lend(nn_pass *pass, size_t size) {
    if (size > pass->workspace_size) {
        free(pass->workspace);
        pass->workspace = malloc(size);
        pass->workspace_size = pass->workspace ? size : 0;
    }
    return (attn_exec){ .workspace = pass->workspace, .workspace_size = pass->workspace_size };
}

/* ---- mlp: the network's first layer on a head's queries (side 0) and keys (side 1), head by head -------------------- */

static attn_tensor net_input(const attention_layer *l, const nn_pass *pass, int side, int32_t head, bool gradient) {
    attn_tensor near = nn_slot_matrix(pass, gradient ? l->d_projected : l->projected);
    attn_tensor far = l->self ? near : nn_slot_matrix(pass, gradient ? l->d_remembered : l->remembered);
    attn_tensor all = side == 0 ? nn_columns(near, 0, l->width) : far_columns(l, far, 0);
    return nn_columns(all, head * l->head, l->head);
}

static attn_status nets_forward(const attention_layer *l, const nn_pass *pass) {
    attn_tensor none = { 0 };
    for (int side = 0; side < 2; side++)
        for (int32_t h = 0; h < l->heads; h++) {
            attn_tensor y = nn_columns(nn_slot_matrix(pass, l->net[side]), h * 2 * l->head, 2 * l->head);
            attn_status status = nn_product_forward(pass, l->query_net[side] + h, net_input(l, pass, side, h, false), y, none,
                                                    none, ATTN_IDENTITY);
            if (status) return status;
        }
    return ATTN_OK;
}

static attn_status nets_backward(const attention_layer *l, const nn_pass *pass) {
    for (int side = 0; side < 2; side++)
        for (int32_t h = 0; h < l->heads; h++) {
            attn_tensor dy = nn_columns(nn_slot_matrix(pass, l->d_net[side]), h * 2 * l->head, 2 * l->head);
            attn_status status = nn_product_backward(pass, l->query_net[side] + h, net_input(l, pass, side, h, false), dy,
                                                     net_input(l, pass, side, h, true), false);
            if (status) return status;
        }
    return ATTN_OK;
}

/* ---- the layer -------------------------------------------------------------------------------------------------------- */

static attn_gate_args gate_args(const attention_layer *l, const nn_pass *pass) {
    attn_tensor g = nn_columns(nn_slot_matrix(pass, l->projected), l->width, l->width);
    return (attn_gate_args){
        .kind = ATTN_GATE_SIGMOID, .x = nn_slot_matrix(pass, l->mix), .g = g, .y = nn_slot_matrix(pass, l->gated)
    };
}

static attn_status project(const attention_layer *l, nn_pass *pass) {
    attn_tensor none = { 0 }, x = nn_data(pass, l->base.inputs[1]), near = nn_slot_matrix(pass, l->projected);
    attn_status status = nn_product_forward(pass, l->near, x, near, none, none, ATTN_IDENTITY);
    if (status || l->self) return status;
    attn_tensor far = nn_slot_matrix(pass, l->remembered);
    return nn_product_forward(pass, l->far, nn_data(pass, l->base.inputs[2]), far, none, none, ATTN_IDENTITY);
}

static attn_status attend(const attention_layer *l, nn_pass *pass) {
    attn_attention_args args = attention_args(l, pass);
    const nn_observer *observer = pass->observer;
    if (observer && observer->see) observer->see(observer->context, l->place, &args);
    attn_exec exec = lend(pass, attn_attention_workspace(&args, 1));
    attn_status status = attn_attention(&args, &exec);
    if (!status && observer && observer->seen) observer->seen(observer->context, l->place, &args);
    return status;
}

static attn_status attention_forward(const nn_layer *base, nn_pass *pass) {
    const attention_layer *l = (const attention_layer *)base;
    attn_tensor none = { 0 }, x = nn_data(pass, base->inputs[0]), y = nn_data(pass, base->output);
    attn_tensor mix = nn_slot_matrix(pass, l->mix);
    bool drops = pass->train && l->dropout > 0;
    attn_status status = project(l, pass);
    if (!status && l->kind == NN_MLP) status = nets_forward(l, pass);
    if (!status) status = attend(l, pass);
    if (!status && l->kind == NN_GATED) {
        attn_gate_args gate = gate_args(l, pass);
        status = attn_gate(&gate, NULL);
        mix = gate.y;
    }
    if (!status) status = nn_product_forward(pass, l->out, mix, y, none, drops ? none : x, ATTN_IDENTITY);
    if (!status && drops) status = nn_dropout_rows(pass, base, y, y, l->dropout);
    if (!status && drops) status = attn_add(&x, 1, &y, NULL);
    return status;
}

/* From the gradient of the layer's output to that of the attention's: y = x + dropout(Wo gate(mix) + bo) */
static attn_status output_backward(const attention_layer *l, nn_pass *pass) {
    attn_tensor dy = nn_gradient(pass, l->base.output), d_mix = nn_slot_matrix(pass, l->d_mix);
    bool gates = l->kind == NN_GATED;
    attn_tensor used = nn_slot_matrix(pass, gates ? l->gated : l->mix);
    attn_status status = nn_residual_backward(&l->base, pass);
    if (!status && pass->train && l->dropout > 0) {
        attn_tensor dropped = nn_slot_matrix(pass, l->dropped);
        status = nn_dropout_rows(pass, &l->base, dy, dropped, l->dropout);
        dy = dropped;
    }
    if (!status) status = nn_product_backward(pass, l->out, used, dy, d_mix, false);
    if (status || !gates) return status;
    attn_gate_args gate = gate_args(l, pass);
    attn_gate_grads grads = { .dy = d_mix,
                              .dx = d_mix,
                              .dg = nn_columns(nn_slot_matrix(pass, l->d_projected), l->width, l->width) };
    return attn_gate_backward(&gate, &grads, NULL);
}

static attn_status attend_backward(const attention_layer *l, nn_pass *pass) {
    attn_attention_args args = attention_args(l, pass);
    operands d = find_operands(l, pass, true);
    attn_tensor d_mix = nn_slot_matrix(pass, l->d_mix), dw = { 0 };
    attn_attention_grads grads = { .dout = nn_heads(pass, d_mix, 0, l->heads, l->head), .dq = d.q, .dk = d.k, .dv = d.v };
    if (args.score == ATTN_ADDITIVE) {
        dw = nn_weight_gradient(pass, l->score);
        grads.dscore_weight = attn_dense(dw.dtype, nn_slot_matrix(pass, l->d_score).data, 2, dw.shape);
    }
    const nn_observer *observer = pass->observer;
    if (observer && observer->gradient) observer->gradient(observer->context, l->place, &args, &grads.dout);
    attn_exec exec = lend(pass, attn_attention_backward_workspace(&args, &grads, 1));
    attn_status status = attn_attention_backward(&args, &grads, &exec);
    return !status && args.score == ATTN_ADDITIVE ? attn_add(&grads.dscore_weight, 1, &dw, NULL) : status;
}

static attn_status attention_backward(const nn_layer *base, nn_pass *pass) {
    const attention_layer *l = (const attention_layer *)base;
    attn_tensor near = nn_slot_matrix(pass, l->d_projected), dx = nn_gradient(pass, base->inputs[1]);
    attn_tensor dm = nn_gradient(pass, (int32_t)memory_input(l));
    attn_status status = output_backward(l, pass);
    if (!status) status = attend_backward(l, pass);
    if (!status && l->kind == NN_MLP) status = nets_backward(l, pass);
    if (!status) status = nn_product_backward(pass, l->near, nn_data(pass, base->inputs[1]), near, dx, base->accumulate[1]);
    if (!status && !l->self)
        status = nn_product_backward(pass, l->far, nn_data(pass, base->inputs[2]), nn_slot_matrix(pass, l->d_remembered), dm,
                                     base->accumulate[2]);
    if (!status && l->kind == NN_MULTIPLICATIVE) {
        attn_tensor d_key = nn_slot_matrix(pass, l->d_key);
        status = attn_add(&d_key, 1, &dm, NULL);
    }
    return status;
}

static const nn_layer_kind attention_kind = { "attention", attention_forward, attention_backward };

/* ---- building ---------------------------------------------------------------------------------------------------------- */

static void add_parameters(attention_layer *l, nn_graph *g, const char *name, double out_scale) {
    double spread = 1 / sqrt((double)l->width);
    int64_t n_parts = 0;
    while (parts[l->kind][n_parts]) n_parts++;
    nn_parameter w = { .rank = 2,
                       .shape = { n_parts * l->width, l->width },
                       .start = NN_UNIFORM,
                       .spread = spread,
                       .decays = true,
                       .inner = l->width };
    int32_t weight = nn_graph_parameter(g, name, "projection.weight", &w), bias = -1;
    if (l->kind == NN_DOT)
        bias = nn_graph_parameter(g, name, "projection.bias", &(nn_parameter){ .rank = 1, .shape = { w.shape[0] } });
    l->near = nn_graph_product(g, weight, bias, 0, l->self ? w.shape[0] : l->beside);
    l->far = l->self ? -1 : nn_graph_product(g, weight, bias, l->beside, w.shape[0] - l->beside);
    w.shape[0] = l->width;
    w.spread = spread * (out_scale > 0 ? out_scale : 1);
    weight = nn_graph_parameter(g, name, "out.weight", &w);
    bias = nn_graph_parameter(g, name, "out.bias", &(nn_parameter){ .rank = 1, .shape = { l->width } });
    l->out = nn_graph_product(g, weight, bias, 0, l->width);
}

static void add_score_parameters(attention_layer *l, nn_graph *g, const char *name) {
    int64_t units = l->kind == NN_MLP ? 2 * l->head : l->head;
    nn_parameter score = {
        .rank = 2, .shape = { l->heads, units }, .start = NN_UNIFORM, .spread = 1 / sqrt((double)units), .decays = true
    };
    l->score = nn_graph_parameter(g, name, "score.weight", &score);
    if (l->kind != NN_MLP) return;
    nn_parameter net = {
        .rank = 2, .shape = { l->heads * units, l->head }, .start = NN_UNIFORM, .spread = 1 / sqrt((double)units), .decays = true
    };
    int32_t query = nn_graph_parameter(g, name, "score.query", &net), key = nn_graph_parameter(g, name, "score.key", &net);
    int32_t bias = nn_graph_parameter(g, name, "score.bias", &(nn_parameter){ .rank = 1, .shape = { l->heads * units } });
    for (int32_t h = 0; h < l->heads; h++) {
        int32_t p = nn_graph_product(g, query, bias, h * units, units);
        if (h == 0) l->query_net[0] = p;
    }
    for (int32_t h = 0; h < l->heads; h++) {
        int32_t p = nn_graph_product(g, key, -1, h * units, units);
        if (h == 0) l->query_net[1] = p;
    }
}

static void add_slots(attention_layer *l, nn_graph *g, bool single) {
    int64_t n_parts = 0, net = 2 * l->width;
    while (parts[l->kind][n_parts]) n_parts++;
    int64_t all = n_parts * l->width, near = l->self ? all : l->beside;
    l->projected = nn_graph_slot(g, &l->base, near, single, NN_SAVED);
    l->d_projected = nn_graph_slot(g, &l->base, near, single, NN_IN_BACKWARD);
    if (!l->self) {
        l->remembered = nn_graph_slot(g, &l->base, all - near, false, NN_SAVED);
        l->d_remembered = nn_graph_slot(g, &l->base, all - near, false, NN_IN_BACKWARD);
    }
    l->mix = nn_graph_slot(g, &l->base, l->width, single, NN_SAVED);
    l->d_mix = nn_graph_slot(g, &l->base, l->width, single, NN_IN_BACKWARD);
    l->lse = nn_graph_slot(g, &l->base, l->heads, single, NN_SAVED);
    if (l->kind == NN_GATED) l->gated = nn_graph_slot(g, &l->base, l->width, single, NN_SAVED);
    if (l->kind == NN_MULTIPLICATIVE) l->d_key = nn_graph_slot(g, &l->base, l->width, false, NN_IN_BACKWARD);
    for (int side = 0; side < 2 && l->kind == NN_MLP; side++) {
        l->net[side] = nn_graph_slot(g, &l->base, net, single && side == 0, NN_SAVED);
        l->d_net[side] = nn_graph_slot(g, &l->base, net, single && side == 0, NN_IN_BACKWARD);
    }
    if (l->kind == NN_ADDITIVE || l->kind == NN_MLP) l->d_score = nn_graph_slot(g, &l->base, net, true, NN_IN_BACKWARD);
    if (l->dropout > 0) l->dropped = nn_graph_slot(g, &l->base, l->width, single, NN_IN_BACKWARD);
}

int32_t nn_attention_layers(const nn_graph *g) {
    int32_t n = 0;
    for (size_t i = 0; i < g->n_layers; i++) n += g->layers[i]->kind == &attention_kind;
    return n;
}

int32_t nn_attention(nn_graph *g, const char *name, int32_t residual, int32_t x, int32_t memory, const nn_attention_options *o) {
    int32_t place = nn_attention_layers(g);
    bool self = x == memory, single = nn_graph_single(g, x);
    attention_layer *l = nn_graph_layer(g, &attention_kind, sizeof *l, (int32_t[]){ residual, x, memory }, self ? 2 : 3);
    l->base.residual = true;
    l->kind = o->kind;
    l->heads = o->heads;
    l->place = place;
    l->self = self;
    l->width = nn_graph_width(g, x);
    l->head = l->width / o->heads;
    l->beside = o->kind == NN_GATED ? 2 * l->width : l->width;
    l->dropout = o->dropout;
    add_parameters(l, g, name, o->out_scale);
    if (o->kind == NN_ADDITIVE || o->kind == NN_MLP) add_score_parameters(l, g, name);
    add_slots(l, g, single);
    return nn_graph_output(g, &l->base, l->width, single);
}
