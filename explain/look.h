/* SPDX-License-Identifier: Apache-2.0 */
/* One example, looked at while the model computes it: what the weights of every layer and head say about each token, from the calls
 * that gave the answer, in memory that grows with the tokens and not with their square.
 *
 *     explain_look look;
 *     if (explain_look_at(&look, &model, examples, 0, EXPLAIN_GRADIENT, &error)) return report(&error);
 *     ... look.relevance[t] is token t's share ...
 *     explain_look_free(&look);
 */
#ifndef ATTN_EXPLAIN_LOOK_H
#define ATTN_EXPLAIN_LOOK_H

#include "examples.h"
#include "model.h"

/* What a token's share is. Each ends as shares that sum to 1 over the tokens that stand for input (not the [CLS] and the like).
 *   attention  the weights of the last layer in the row that the head reads, averaged over heads; of a model that pools by
 *              attention, the pool's weights
 *   rollout    the same through all layers: each layer's averaged weights and the residual half and half, multiplied up
 *              (Abnar and Zuidema 2020)
 *   gradient   weights times the gradient of (the answer's logit - the runner-up's), its positive part, averaged over heads and
 *              added up through the layers with the residual (Chefer, Gur and Wolf 2021): why this answer and not the next one
 * A pool by attention is the last step of rollout and gradient, without a residual. Its weights sum to 1, so a constant in all their
 * gradients changes nothing: each counts against their weighted mean. */
enum { EXPLAIN_ATTENTION = 0, EXPLAIN_ROLLOUT, EXPLAIN_GRADIENT, EXPLAIN_N_METHODS };
extern const char *const explain_method_names[EXPLAIN_N_METHODS + 1]; /* ended by NULL */

typedef struct explain_look {
    int32_t layers, heads, tokens, classes;
    int32_t label, runner_up; /* the most probable class and the next one (the same where there is one class) */
    float *probabilities;     /* [classes] */
    float *entropy;           /* [layers, heads, tokens]: of each row, in nats */
    float *pool;              /* [tokens]: the weights by which tokens are mixed for the head; NULL: it reads the first token */
    double *relevance;        /* [tokens], by the method; 0 for tokens that stand for no input */
    double
        *head_relevance; /* [heads, tokens]: the rows that the head reads in the last layer, head by head: one row, or by a pool's
                               * weights a mix of all; of the gradient method with their gradients */
} explain_look;

/* The model must have been loaded with .examples = 1 and .every_query, in f32. `counts` (may be NULL: all but the first) says
 * which tokens stand for input. */
int explain_look_at(explain_look *look, const nn_model *m, const nn_examples *examples, uint32_t which, int32_t method,
                    const bool *counts, io_error *error);
void explain_look_free(explain_look *look);

/* Mean entropy of a head's rows, over that of equal weights: 0 looks at one token, 1 at all alike. */
double explain_spread(const explain_look *look, int32_t layer, int32_t head);

#endif
