/* SPDX-License-Identifier: Apache-2.0 */
/* One shard's way through a graph, forward and back, and what its layers share: where their matrices lie, products, dropout. */
#include "graph.h"

#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "random.h"

int nn_pass_open(nn_pass *pass, const nn_graph *g, io_error *error) {
    *pass = (nn_pass){ .graph = g, .values = g->parameters->values };
    pass->arena = aligned_alloc(64, g->arena_size ? g->arena_size : 64);
    pass->room = array_new((size_t)g->max_examples, sizeof *pass->room);
    if (pass->arena && pass->room) return IO_OK;
    nn_pass_close(pass);
    return io_no_memory(error, "the activations", g->arena_size);
}

void nn_pass_close(nn_pass *pass) {
    free(pass->arena);
    free(pass->room);
    free(pass->workspace);
    *pass = (nn_pass){ 0 };
}

attn_status nn_forward(nn_pass *pass) {
    attn_status status = ATTN_OK;
    for (size_t i = 0; i < pass->graph->n_layers && !status; i++) {
        const nn_layer *layer = pass->graph->layers[i];
        status = layer->kind->forward(layer, pass);
    }
    return status;
}

attn_status nn_backward(nn_pass *pass) {
    attn_status status = ATTN_OK;
    for (size_t i = pass->graph->n_layers; i > 0 && !status; i--) {
        const nn_layer *layer = pass->graph->layers[i - 1];
        status = layer->kind->backward(layer, pass);
    }
    return status;
}

attn_tensor nn_matrix(int32_t dtype, const void *data, int64_t rows, int64_t columns, int64_t stride) {
    return (attn_tensor){ .data = (void *)data, .dtype = dtype, .rank = 2, .shape = { rows, columns }, .stride = { stride, 1 } };
}

attn_tensor nn_slot_matrix(const nn_pass *pass, int32_t slot) {
    const nn_slot *s = &pass->graph->slots[slot];
    int64_t rows = s->single ? pass->examples : pass->examples * pass->tokens;
    return nn_matrix(pass->graph->parameters->dtype, (char *)pass->arena + s->offset, rows, s->width, s->width);
}

attn_tensor nn_data(const nn_pass *pass, int32_t value) { return nn_slot_matrix(pass, pass->graph->values[value].data); }

attn_tensor nn_gradient(const nn_pass *pass, int32_t value) { return nn_slot_matrix(pass, pass->graph->values[value].gradient); }

attn_tensor nn_weight(const nn_pass *pass, int32_t parameter) {
    return nn_parameters_view(pass->graph->parameters, pass->values, parameter);
}

attn_tensor nn_weight_gradient(const nn_pass *pass, int32_t parameter) {
    return nn_parameters_view(pass->graph->parameters, pass->gradients, parameter);
}

attn_tensor nn_columns(attn_tensor t, int64_t first, int64_t n) {
    t.data = (char *)t.data + (size_t)first * nn_element(t.dtype);
    t.shape[1] = n;
    return t;
}

void nn_zero(attn_tensor t) { memset(t.data, 0, (size_t)(t.shape[0] * t.shape[1]) * nn_element(t.dtype)); }

attn_tensor nn_heads(const nn_pass *pass, attn_tensor t, int64_t first, int64_t heads, int64_t width) {
    int64_t positions = t.shape[0] / pass->examples, row = t.stride[0];
    return (attn_tensor){
        .data = (char *)t.data + (size_t)first * nn_element(t.dtype),
        .dtype = t.dtype,
        .rank = 4,
        .shape = { pass->examples, heads, positions, width },
        .stride = { positions * row, width, row, 1 },
    };
}

/* ---- products -------------------------------------------------------------------------------------------------- */

static const void *packed_at(const nn_pass *pass, const nn_product *p, int way) {
    return pass->packed && p->has_pack ? (const char *)pass->packed + p->packed[way] : NULL;
}

attn_status nn_product_forward(const nn_pass *pass, int32_t product, attn_tensor x, attn_tensor y, attn_tensor before,
                               attn_tensor residual, int32_t activation) {
    const nn_parameters *all = pass->graph->parameters;
    const nn_product *p = &pass->graph->products[product];
    attn_matmul_args args = {
        .a = x,
        .b = attn_transposed(nn_parameters_rows(all, pass->values, p->weight, p->first, p->rows)),
        .c = y,
        .before = before,
        .residual = residual,
        .activation = activation,
        .packed = packed_at(pass, p, 0),
    };
    if (p->bias >= 0) args.bias = nn_parameters_rows(all, pass->values, p->bias, p->first, p->rows);
    return attn_matmul(&args, NULL);
}

attn_status nn_product_backward(const nn_pass *pass, int32_t product, attn_tensor x, attn_tensor dy, attn_tensor dx,
                                bool accumulate) {
    const nn_parameters *all = pass->graph->parameters;
    const nn_product *p = &pass->graph->products[product];
    attn_matmul_args weight = {
        .flags = ATTN_ACCUMULATE,
        .a = attn_transposed(dy),
        .b = x,
        .c = nn_parameters_rows(all, pass->gradients, p->weight, p->first, p->rows),
    };
    attn_status status = attn_matmul(&weight, NULL);
    if (!status && p->bias >= 0) {
        attn_tensor db = nn_parameters_rows(all, pass->gradients, p->bias, p->first, p->rows);
        status = attn_sum_rows(&dy, &db, ATTN_ACCUMULATE, NULL);
    }
    if (status || dx.rank == 0) return status;
    attn_matmul_args input = {
        .flags = accumulate ? ATTN_ACCUMULATE : 0,
        .a = dy,
        .b = nn_parameters_rows(all, pass->values, p->weight, p->first, p->rows),
        .c = dx,
        .packed = packed_at(pass, p, 1),
    };
    return attn_matmul(&input, NULL);
}

/* ---- dropout and residuals -------------------------------------------------------------------------------------- */

attn_status nn_dropout_rows(const nn_pass *pass, const nn_layer *layer, attn_tensor x, attn_tensor y, double p) {
    nn_random r = nn_random_at(pass->seed, NN_FOR_DROPOUT, pass->step, (uint64_t)layer->number);
    uint64_t seed = nn_random_bits(&r);
    int64_t each = x.shape[0] / pass->examples;
    attn_status status = ATTN_OK;
    for (int64_t i = 0; i < pass->examples && !status; i++) {
        attn_tensor from = x, to = y;
        from.shape[0] = to.shape[0] = each;
        from.data = (char *)x.data + (size_t)(i * each * x.stride[0]) * nn_element(x.dtype);
        to.data = (char *)y.data + (size_t)(i * each * y.stride[0]) * nn_element(y.dtype);
        status = attn_dropout(&from, p, seed, (uint64_t)(pass->first_example + i), &to, NULL);
    }
    return status;
}

attn_status nn_residual_backward(const nn_layer *layer, const nn_pass *pass) {
    if (!layer->residual || !layer->accumulate[0]) return ATTN_OK;
    attn_tensor dy = nn_gradient(pass, layer->output), dx = nn_gradient(pass, layer->inputs[0]);
    return attn_add(&dy, 1, &dx, NULL);
}
