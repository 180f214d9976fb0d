/* SPDX-License-Identifier: Apache-2.0 */
/* What the modes of attn softmax share: the settings, and one call of the library made from them. */
#ifndef ATTN_CLI_SOFTMAX_H
#define ATTN_CLI_SOFTMAX_H

#include "arrays.h"
#include "options.h"

/* --op, in its order on the command line. */
enum {
    OP_SOFTMAX,
    OP_LOG_SOFTMAX,
    OP_SOFTMIN,
    OP_LOGSUMEXP,
    OP_SPARSEMAX,
    OP_ENTMAX15,
    OP_ENTMAX,
    OP_GUMBEL,
    OP_TOP_K,
    OP_SAMPLE
};

typedef struct softmax_settings {
    const char *in, *out, *mask, *bias, *index, *probability;
    option_choice op, dtype, order;
    option_integer axis, top_k;
    option_real alpha, temperature, scale, top_p, min_p;
    option_seed seed;
    bool hard, normalize;
} softmax_settings;

/* What --dtype means to the library. */
int32_t softmax_dtype(const softmax_settings *s);
/* Whether the operation takes one axis away. */
bool softmax_reduces(const softmax_settings *s);
/* The library's arguments for these settings; x, y, mask and bias are still to be set. */
attn_softmax_args softmax_args(const softmax_settings *s);
/* Runs it, saying on stderr what failed. */
int softmax_call(const softmax_settings *s, const attn_softmax_args *args, const attn_exec *exec);

/* --op top-k and --op sample, which choose among the elements of a row. */
bool softmax_chooses(const softmax_settings *s);
/* Of an array along an axis: adds the outputs and computes them. bias may be absent. */
int softmax_choose(const softmax_settings *s, const attn_tensor *x, int32_t axis, const attn_tensor *bias, outputs *out,
                   const attn_exec *exec);
/* Of line `number` of stdin, n float64 numbers: adds a line that says what was chosen. */
int softmax_choose_row(const softmax_settings *s, const attn_tensor *x, const attn_tensor *bias, size_t number, text *out,
                       const attn_exec *exec);

/* Rows of numbers on stdin, one row of results a line on stdout (or in s->out). */
int softmax_rows(const softmax_settings *s, const attn_exec *exec);

#endif
