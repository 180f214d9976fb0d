/* SPDX-License-Identifier: Apache-2.0 */
/* Building a graph and planning its memory. Running it is in pass.c. */
#include "graph.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "array.h"

enum { ALIGNMENT = 64 };

void *nn_graph_layer(nn_graph *g, const nn_layer_kind *kind, size_t size, const int32_t *inputs, int32_t n_inputs) {
    /* A layer that could not be made is a spare one of the largest kind's size: building goes on, finish reports the failure. */
    static _Thread_local union {
        nn_layer layer;
        char bytes[512];
    } spare;
    nn_layer *layer = size <= sizeof spare ? calloc(1, size) : NULL;
    nn_layer **grown = layer ? array_grow(g->layers, &g->layers_capacity, g->n_layers + 1, sizeof(nn_layer *)) : NULL;
    if (!grown) {
        free(layer);
        g->failed = true;
        memset(&spare, 0, sizeof spare);
        layer = &spare.layer;
    } else {
        g->layers = grown;
        g->layers[g->n_layers++] = layer;
    }
    layer->kind = kind;
    layer->number = (int32_t)g->n_layers - 1;
    layer->n_inputs = n_inputs;
    for (int32_t i = 0; i < n_inputs; i++) layer->inputs[i] = inputs[i];
    return layer;
}

static int32_t add_slot(nn_graph *g, nn_slot slot) {
    nn_slot *grown = array_grow(g->slots, &g->slots_capacity, g->n_slots + 1, sizeof *grown);
    if (!grown || slot.width < 1) g->failed = true;
    if (!grown) return 0;
    g->slots = grown;
    g->slots[g->n_slots] = slot;
    return (int32_t)g->n_slots++;
}

/* The times are layer numbers here; negative ones count from the end and are settled by finish. */
int32_t nn_graph_slot(nn_graph *g, const nn_layer *layer, int64_t width, bool single, int when) {
    int32_t forward = layer->number, backward = -1 - layer->number;
    return add_slot(g, (nn_slot){
                           .width = width,
                           .single = single,
                           .from = when == NN_IN_BACKWARD ? backward : forward,
                           .to = when == NN_IN_FORWARD ? forward : backward,
                       });
}

int32_t nn_graph_output(nn_graph *g, nn_layer *layer, int64_t width, bool single) {
    nn_value *grown = array_grow(g->values, &g->values_capacity, g->n_values + 1, sizeof *grown);
    if (!grown) {
        g->failed = true;
        return layer->output = 0;
    }
    g->values = grown;
    g->values[g->n_values] =
        (nn_value){ .data = nn_graph_slot(g, layer, width, single, NN_SAVED), .gradient = -1, .maker = layer->number };
    return layer->output = (int32_t)g->n_values++;
}

int32_t nn_graph_parameter(nn_graph *g, const char *prefix, const char *name, const nn_parameter *p) {
    nn_parameter named = *p;
    int length = snprintf(named.name, sizeof named.name, "%s.%s", prefix, name);
    int32_t index = length < (int)sizeof named.name ? nn_parameters_add(g->parameters, &named) : -1;
    if (index < 0) g->failed = true;
    return index < 0 ? 0 : index;
}

int32_t nn_graph_product(nn_graph *g, int32_t weight, int32_t bias, int64_t first, int64_t rows) {
    nn_product *grown = array_grow(g->products, &g->products_capacity, g->n_products + 1, sizeof *grown);
    if (!grown || g->failed) {
        if (grown) g->products = grown;
        g->failed = true;
        return 0;
    }
    g->products = grown;
    g->products[g->n_products] = (nn_product){
        .weight = weight,
        .bias = bias,
        .first = first,
        .rows = rows,
        .columns = g->parameters->all[weight].shape[1],
    };
    return (int32_t)g->n_products++;
}

int64_t nn_graph_width(const nn_graph *g, int32_t value) { return g->failed ? 1 : g->slots[g->values[value].data].width; }

bool nn_graph_single(const nn_graph *g, int32_t value) { return g->failed ? false : g->slots[g->values[value].data].single; }

/* ---- planning ------------------------------------------------------------------------------------------------ */

/* The last reader of a value comes first in the backward: it writes the gradient, the others add to it. A residual's gradient is the
 * output's own where nobody has written before: the sum costs nothing. */
static void plan_gradients(nn_graph *g) {
    int32_t last = 2 * (int32_t)g->n_layers - 1;
    nn_value *output = &g->values[g->output];
    output->gradient = add_slot(g, g->slots[output->data]);
    if (g->failed) return;
    g->slots[output->gradient].from = (int32_t)g->n_layers;
    g->slots[output->gradient].to = last - output->maker;
    for (int32_t i = (int32_t)g->n_layers - 1; i >= 0; i--) {
        nn_layer *layer = g->layers[i];
        for (int32_t k = 0; k < layer->n_inputs; k++) {
            nn_value *in = &g->values[layer->inputs[k]];
            int32_t until = last - in->maker;
            layer->accumulate[k] = in->gradient >= 0;
            if (in->gradient >= 0) continue;
            if (k == 0 && layer->residual) {
                in->gradient = g->values[layer->output].gradient;
                if (g->slots[in->gradient].to < until) g->slots[in->gradient].to = until;
            } else {
                nn_slot slot = g->slots[in->data];
                slot.from = last - i;
                slot.to = until;
                in->gradient = add_slot(g, slot);
                if (g->failed) return;
            }
        }
    }
}

static bool slot_bytes(const nn_graph *g, const nn_slot *slot, size_t *bytes) {
    size_t rows = (size_t)g->max_examples;
    if (!slot->single && __builtin_mul_overflow(rows, (size_t)g->max_tokens, &rows)) return false;
    if (__builtin_mul_overflow(rows, (size_t)slot->width, bytes)) return false;
    if (__builtin_mul_overflow(*bytes, nn_element(g->parameters->dtype), bytes)) return false;
    if (__builtin_add_overflow(*bytes, ALIGNMENT - 1, bytes)) return false;
    *bytes = *bytes / ALIGNMENT * ALIGNMENT;
    return *bytes <= PTRDIFF_MAX;
}

/* The lowest place that no piece needed at the same time covers. Pieces are placed in their order; a few hundred of them at most. */
static bool place(nn_graph *g, size_t index, const size_t *bytes) {
    nn_slot *slot = &g->slots[index];
    size_t at = 0, end;
    for (size_t i = 0; i < index; i++) {
        const nn_slot *other = &g->slots[i];
        bool apart = other->to < slot->from || slot->to < other->from;
        if (apart || other->offset >= at + bytes[index] || other->offset + bytes[i] <= at) continue;
        at = other->offset + bytes[i];
        i = (size_t)-1; /* higher up another piece may be in the way: look again from the first */
    }
    if (__builtin_add_overflow(at, bytes[index], &end) || end > PTRDIFF_MAX) return false;
    slot->offset = at;
    if (end > g->arena_size) g->arena_size = end;
    return true;
}

static bool plan_arena(nn_graph *g) {
    size_t *bytes = array_new(g->n_slots, sizeof *bytes);
    if (!bytes) return false;
    bool fits = true;
    for (size_t i = 0; i < g->n_slots && fits; i++) fits = slot_bytes(g, &g->slots[i], &bytes[i]) && place(g, i, bytes);
    free(bytes);
    return fits;
}

static attn_tensor product_weight(const nn_graph *g, const nn_product *p, const void *values) {
    return nn_parameters_rows(g->parameters, values, p->weight, p->first, p->rows);
}

static void plan_packs(nn_graph *g) {
    for (size_t i = 0; i < g->n_products; i++) {
        nn_product *p = &g->products[i];
        attn_tensor w = product_weight(g, p, g->parameters->values), turned = attn_transposed(w);
        size_t size[2] = { attn_matmul_packed_size(&turned), attn_matmul_packed_size(&w) };
        p->has_pack = size[0] && size[1];
        if (!p->has_pack) continue;
        for (int k = 0; k < 2; k++) {
            p->packed[k] = g->packed_size;
            g->packed_size += (size[k] + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        }
    }
}

int nn_graph_finish(nn_graph *g, int32_t output, int64_t max_examples, int64_t max_tokens, io_error *error) {
    g->output = output;
    g->max_examples = max_examples;
    g->max_tokens = max_tokens;
    if (g->failed) return io_fail(error, IO_NO_ROOM, "out of memory: the model does not fit");
    int32_t last = 2 * (int32_t)g->n_layers - 1;
    for (size_t i = 0; i < g->n_slots; i++) {
        nn_slot *slot = &g->slots[i];
        if (slot->from < 0) slot->from += last + 1;
        if (slot->to < 0) slot->to += last + 1;
    }
    plan_gradients(g);
    if (g->failed || !plan_arena(g))
        return io_fail(error, IO_NO_ROOM, "out of memory: the model's activations for %lld examples of %lld tokens do not fit",
                       (long long)max_examples, (long long)max_tokens);
    if (!nn_parameters_allocate(g->parameters))
        return io_no_memory(error, "the model", g->parameters->size * nn_element(g->parameters->dtype));
    plan_packs(g);
    return IO_OK;
}

void nn_graph_free(nn_graph *g) {
    for (size_t i = 0; i < g->n_layers; i++) free(g->layers[i]);
    free(g->layers);
    free(g->values);
    free(g->slots);
    free(g->products);
    *g = (nn_graph){ 0 };
}

attn_status nn_graph_pack(const nn_graph *g, void *packed, size_t item) {
    const nn_product *p = &g->products[item];
    if (!p->has_pack) return ATTN_OK;
    attn_tensor w = product_weight(g, p, g->parameters->values), turned = attn_transposed(w);
    attn_status status = attn_matmul_pack(&turned, (char *)packed + p->packed[0], attn_matmul_packed_size(&turned));
    return status ? status : attn_matmul_pack(&w, (char *)packed + p->packed[1], attn_matmul_packed_size(&w));
}
