/* SPDX-License-Identifier: Apache-2.0 */
/* The layers that models are built from. Each function adds one layer to a graph and returns its output, a value of the graph; the
 * parameters it makes are called "<name>.<what>". A new layer is a file nn/<layer>.c with its forward and its backward below it, and a
 * line here. No layer knows a task, and none keeps anything from one pass to the next. */
#ifndef ATTN_NN_LAYERS_H
#define ATTN_NN_LAYERS_H

#include "graph.h"

/* y = x W^T + b. Parameters: weight [width, in], bias [width]. */
int32_t nn_linear(nn_graph *g, const char *name, int32_t x, int64_t width, int32_t activation);

/* ATTN_LAYER_NORM or ATTN_RMS_NORM along the width. Parameters: weight, and bias with layer norm. */
int32_t nn_norm(nn_graph *g, const char *name, int32_t x, int32_t kind, double epsilon);

/* y = x in evaluation; in training entries are dropped with probability p and the others grow by 1 / (1 - p). */
int32_t nn_dropout(nn_graph *g, int32_t x, double p);

/* The first token of each example: one row per example. */
int32_t nn_first(nn_graph *g, int32_t x);

/* y = x + dropout(W2 activation(W1 h + b1) + b2): `residual` is x. Parameters: in.weight, in.bias, out.weight, out.bias. */
typedef struct nn_feed_forward_options {
    int64_t width;      /* of the hidden layer */
    int32_t activation; /* ATTN_GELU, ... */
    double dropout;
    double out_scale; /* shrinks the starting values of out.weight, for deep stacks; 0: 1 */
} nn_feed_forward_options;
int32_t nn_feed_forward(nn_graph *g, const char *name, int32_t residual, int32_t h, const nn_feed_forward_options *o);

/* How scores come from a query x and a key y; d is a head's size. The weights are a softmax over keys, the mix is of v = Wv y.
 *   dot             q = Wq x + bq, k = Wk y + bk, v with a bias too:   s = q.k / sqrt(d)     (Vaswani et al. 2017)
 *   multiplicative  q = W x, k = y:                                    s = q.k               (Luong et al. 2015, "general")
 *   additive        q = Wq x, k = Wk y:                                s = w.tanh(q + k)
 *   gated           dot without biases, then mix * sigmoid(Wg x)
 *   mlp             q = Wq x, k = Wk y, then a network of [q; k] per head with one hidden layer of 2 d units:
 *                                                                      s = w.tanh(U [q; k] + b)    (Bahdanau et al. 2015)
 * A one-layer network of [q; k] is the additive score of U1 q + b and U2 k: that is how it is computed. What it has beyond `additive` is the
 * bias and a hidden layer wider than the head. */
enum { NN_DOT = 0, NN_MULTIPLICATIVE, NN_ADDITIVE, NN_GATED, NN_MLP, NN_N_ATTENTIONS };
extern const char *const nn_attention_names[NN_N_ATTENTIONS + 1]; /* ended by NULL */

/* y = residual + dropout(Wo mix + bo). Queries come from the rows of x, keys and values from those of memory (x for self-attention).
 * Parameters: projection.weight (the parts query, gate, key, value that the kind has, below each other), projection.bias (dot), score.weight
 * [heads, d] (additive) or [heads, 2 d] (mlp), score.query, score.key [heads * 2 d, d] and score.bias (mlp), out.weight, out.bias. */
typedef struct nn_attention_options {
    int32_t kind; /* NN_DOT, ... */
    int32_t heads;
    double dropout;
    double out_scale;
} nn_attention_options;
int32_t nn_attention(nn_graph *g, const char *name, int32_t residual, int32_t x, int32_t memory, const nn_attention_options *o);
/* How many of them a graph has: the place of the next one, by which observers tell them apart. */
int32_t nn_attention_layers(const nn_graph *g);
/* The parts of projection.weight in their order, by index: "query", "gate", "key", "value"; NULL beyond the last. */
const char *nn_attention_part(int32_t kind, int32_t index);

/* One row per example, mixed from its tokens by additive attention with a learned query u: s = w.tanh(u + W x). Parameters: weight
 * [hidden, width], query [hidden], score [hidden]. */
int32_t nn_attention_pool(nn_graph *g, const char *name, int32_t x, int64_t hidden);

/* Tokens from ids: table[id] + position[its place] + kind[0]. The ids are written by the caller (nn_ids). Parameters: words.weight,
 * positions.weight, kinds.weight [2, width]. */
int32_t nn_token_embedding(nn_graph *g, const char *name, int64_t vocabulary, int64_t positions, int64_t width);
/* Where the ids of the shard go: [examples, tokens]. */
int32_t *nn_ids(const nn_pass *pass);
/* Adds what the shards left in pass->rows to the table's gradient, in their order. */
attn_status nn_token_embedding_gather(const nn_graph *g, void *gradients, const nn_row_gradients *shards, size_t n);

/* Tokens from patches of a picture: one learned first token, then W patch + b, all with positions added. The patches are written by the caller
 * (nn_patches). Parameters: first [1, width], positions [1 + patches, width], patch.weight [width, patch_size], patch.bias. */
int32_t nn_patch_embedding(nn_graph *g, const char *name, int64_t patches, int64_t patch_size, int64_t width);
/* Where the patches of the shard go: [examples, 1 + patches, patch_size], of the parameters' dtype; row 0 of each example stays zero. */
void *nn_patches(const nn_pass *pass);

#endif
