/* SPDX-License-Identifier: Apache-2.0 */
/* What the two modes of attn softmax share: the settings, and one call of the library made from them. */
#ifndef ATTN_CLI_SOFTMAX_H
#define ATTN_CLI_SOFTMAX_H

#include "options.h"

typedef struct softmax_settings {
    const char *in, *out, *mask, *bias;
    option_choice op, dtype;
    option_integer axis;
    option_real alpha, temperature, scale;
    option_seed seed;
    bool hard;
} softmax_settings;

/* What --dtype means to the library. */
int32_t softmax_dtype(const softmax_settings *s);
/* Whether the operation takes one axis away. */
bool softmax_reduces(const softmax_settings *s);
/* The library's arguments for these settings; x, y, mask and bias are still to be set. */
attn_softmax_args softmax_args(const softmax_settings *s);
/* Runs it, saying on stderr what failed. */
int softmax_call(const softmax_settings *s, const attn_softmax_args *args, const attn_exec *exec);

/* Rows of numbers on stdin, one row of results a line on stdout (or in s->out). */
int softmax_rows(const softmax_settings *s, const attn_exec *exec);

#endif
