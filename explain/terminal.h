/* SPDX-License-Identifier: Apache-2.0 */
/* An explained example on a terminal: words on shades or a list with bars, and what each head looks at. */
#ifndef ATTN_EXPLAIN_TERMINAL_H
#define ATTN_EXPLAIN_TERMINAL_H

#include "report.h"

typedef struct terminal_look {
    bool colour; /* shades by 24-bit escape codes; else words and bars only */
    bool blocks; /* bars of UTF-8 block elements; else of '#' */
} terminal_look;

void terminal_case(const explain_case *c, const nn_config *config, int32_t method, terminal_look look, text *out);

/* Shares of whole words, from those of their tokens: word w is text[start, end). At most `room` words, in the order of the text. */
typedef struct explain_word {
    size_t start, end;
    double share;
} explain_word;
size_t explain_words(const explain_case *c, const double *shares, explain_word *words, size_t room);

#endif
