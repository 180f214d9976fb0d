/* SPDX-License-Identifier: Apache-2.0 */
/* A model as a static graph: layers in the order of computation, joined by values. A value is a matrix with one row per token (or one
 * per example). Forward walks the layers, backward walks them in reverse; every layer adds up the gradients of its inputs.
 *
 * Where everything lies is planned once, when the graph is finished: one arena holds all activations of a shard (a few examples), and the
 * gradients share memory where they do not live at the same time. Each worker has its own arena; nothing is allocated per step. */
#ifndef ATTN_NN_GRAPH_H
#define ATTN_NN_GRAPH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <attn/attn.h>
#include <attn/ops.h>

#include "error.h"
#include "parameters.h"

enum { NN_MAX_INPUTS = 3, NN_MOST_SHARD = 1024 };

typedef struct nn_graph nn_graph;
typedef struct nn_layer nn_layer;
typedef struct nn_pass nn_pass;

/* What a kind of layer can do. A status other than ATTN_OK stops the pass; attn_last_error() says why. */
typedef struct nn_layer_kind {
    const char *name;
    attn_status (*forward)(const nn_layer *layer, nn_pass *pass);
    attn_status (*backward)(const nn_layer *layer, nn_pass *pass);
} nn_layer_kind;

/* The part that all layers have, the first member of each kind's own struct. */
struct nn_layer {
    const nn_layer_kind *kind;
    int32_t number; /* its place in the graph */
    int32_t n_inputs;
    int32_t inputs[NN_MAX_INPUTS];  /* values, in the order in which backward adds to their gradients */
    bool accumulate[NN_MAX_INPUTS]; /* a later layer has written that gradient already: add to it */
    bool residual;                  /* inputs[0] is added to the output: its gradient is the output's */
    int32_t output;
};

/* How long a piece of the arena is needed. */
enum { NN_SAVED = 0 /* from forward to backward */, NN_IN_FORWARD, NN_IN_BACKWARD };

/* A piece of the arena: rows of `width` elements. */
typedef struct nn_slot {
    int64_t width;
    bool single;      /* one row per example; else one per token */
    int32_t from, to; /* when it is needed: layer i runs forward at time i, backward at time 2 n - 1 - i */
    size_t offset;    /* bytes */
} nn_slot;

typedef struct nn_value {
    int32_t data, gradient; /* slots; gradient -1: nobody asks for it */
    int32_t maker;          /* the layer whose output it is */
} nn_value;

/* A weight used as y = x W^T + b, for packing once per step what every shard uses. */
typedef struct nn_product {
    int32_t weight, bias; /* parameters: [out, in], [out]; bias -1: none */
    int64_t first, rows;  /* the rows of the weight that take part */
    int64_t columns;
    size_t packed[2]; /* offsets in the packed weights: as the forward and as the backward read it */
    bool has_pack;
} nn_product;

struct nn_graph {
    nn_parameters *parameters;
    nn_layer **layers;
    size_t n_layers, layers_capacity;
    nn_value *values;
    size_t n_values, values_capacity;
    nn_slot *slots;
    size_t n_slots, slots_capacity;
    nn_product *products;
    size_t n_products, products_capacity;
    size_t packed_size;
    int64_t max_examples, max_tokens;
    size_t arena_size;
    int32_t output; /* the value that the loss reads */
    bool failed;    /* out of memory, or a shape that no memory holds, while building */
};

/* ---- building: failures are remembered in `failed` and reported by nn_graph_finish ------------------------- */

/* A new layer of `size` bytes (its own struct, whose first member is nn_layer), zeroed but for the common part. Never NULL: without memory
 * it is a layer that is in no graph. */
void *nn_graph_layer(nn_graph *g, const nn_layer_kind *kind, size_t size, const int32_t *inputs, int32_t n_inputs);
int32_t nn_graph_slot(nn_graph *g, const nn_layer *layer, int64_t width, bool single, int when);
/* The layer's output: a new value. */
int32_t nn_graph_output(nn_graph *g, nn_layer *layer, int64_t width, bool single);
/* "block.%d" and "weight" give the parameter's name. -1 on failure, which `failed` remembers. */
int32_t nn_graph_parameter(nn_graph *g, const char *prefix, const char *name, const nn_parameter *p);
/* y = x W^T + b over the rows [first, first + rows) of a weight. */
int32_t nn_graph_product(nn_graph *g, int32_t weight, int32_t bias, int64_t first, int64_t rows);
int nn_graph_finish(nn_graph *g, int32_t output, int64_t max_examples, int64_t max_tokens, io_error *error);
void nn_graph_free(nn_graph *g);

int64_t nn_graph_width(const nn_graph *g, int32_t value);
bool nn_graph_single(const nn_graph *g, int32_t value);

/* Packs every weight for this step; item i of n_products. `packed` has packed_size bytes. */
attn_status nn_graph_pack(const nn_graph *g, void *packed, size_t item);

/* ---- running ------------------------------------------------------------------------------------------------- */

/* Looks at attention while it happens. `see` may fill in args->see before the call (asking changes no bit of the result); `seen` comes after
 * it; `gradient` comes in the backward, with the gradient of the attention's output. layer counts the attention layers from 0;
 * pooling by attention is looked at too, with one query and one head, and takes the next number. */
typedef struct nn_observer {
    void *context;
    void (*see)(void *context, int32_t layer, attn_attention_args *args);
    void (*seen)(void *context, int32_t layer, const attn_attention_args *args);
    void (*gradient)(void *context, int32_t layer, const attn_attention_args *args, const attn_tensor *dout);
} nn_observer;

/* The gradient of an embedding table: row i of `rows` belongs to ids[i]. */
typedef struct nn_row_gradients {
    int32_t *ids;
    void *rows; /* [n, width] */
    int64_t n;
} nn_row_gradients;

/* One shard on its way through the graph. Owned by one worker. */
struct nn_pass {
    const nn_graph *graph;
    const void *values;     /* of the parameters */
    void *gradients;        /* of the parameters: added to. NULL: no backward */
    const void *packed;     /* weights packed by nn_graph_pack; NULL: not packed */
    nn_row_gradients *rows; /* where the token embedding leaves its gradient */
    void *arena;
    int32_t *room;            /* [max_examples]: for lengths */
    int64_t examples, tokens; /* of this shard; within the graph's maxima */
    const int32_t *lengths;   /* [examples] tokens that count; NULL: all */
    bool train;               /* dropout on */
    uint64_t seed, step;
    int64_t first_example;       /* place of the shard's first example in its batch */
    const nn_observer *observer; /* NULL: nobody looks */
    void *workspace;
    size_t workspace_size;
};

/* Memory for a worker: arena and room; the caller fills in the rest. */
int nn_pass_open(nn_pass *pass, const nn_graph *g, io_error *error);
void nn_pass_close(nn_pass *pass);

attn_status nn_forward(nn_pass *pass);
/* The loss has left its gradient at nn_gradient(pass, graph->output). */
attn_status nn_backward(nn_pass *pass);

/* ---- for layers ---------------------------------------------------------------------------------------------- */

/* The matrix in a slot: [rows, width] for this shard. */
attn_tensor nn_slot_matrix(const nn_pass *pass, int32_t slot);
attn_tensor nn_data(const nn_pass *pass, int32_t value);
attn_tensor nn_gradient(const nn_pass *pass, int32_t value);
attn_tensor nn_weight(const nn_pass *pass, int32_t parameter);          /* its value */
attn_tensor nn_weight_gradient(const nn_pass *pass, int32_t parameter); /* its gradient, to be added to */
/* Columns [first, first + n) of a matrix. */
attn_tensor nn_columns(attn_tensor t, int64_t first, int64_t n);
/* A matrix of `rows` rows, `columns` wide, whose rows are `stride` elements apart. */
attn_tensor nn_matrix(int32_t dtype, const void *data, int64_t rows, int64_t columns, int64_t stride);

/* Sets a matrix whose rows follow each other closely to zero. */
void nn_zero(attn_tensor t);
/* [examples, heads, positions, width] as attention reads it: columns [first, first + heads * width) of a matrix with a row per token (or
 * per example: positions is 1). */
attn_tensor nn_heads(const nn_pass *pass, attn_tensor t, int64_t first, int64_t heads, int64_t width);

/* y = activation(x W^T + b) + residual; `before` and `residual` of rank 0 are absent. */
attn_status nn_product_forward(const nn_pass *pass, int32_t product, attn_tensor x, attn_tensor y, attn_tensor before,
                               attn_tensor residual, int32_t activation);
/* dW += dy^T x, db += sum of dy, dx (+)= dy W (rank 0: not wanted). */
attn_status nn_product_backward(const nn_pass *pass, int32_t product, attn_tensor x, attn_tensor dy, attn_tensor dx,
                                bool accumulate);
/* Dropout of a matrix with the shard's rows, from (seed, step, layer, example). y may be x. The same call on gradients is its backward. */
attn_status nn_dropout_rows(const nn_pass *pass, const nn_layer *layer, attn_tensor x, attn_tensor y, double p);
/* Adds the output's gradient to inputs[0]'s where they are not one and the same memory. */
attn_status nn_residual_backward(const nn_layer *layer, const nn_pass *pass);

#endif
