/* SPDX-License-Identifier: Apache-2.0 */
/* The threshold of a row of sparsemax or entmax, found through the kernels. */
#ifndef ATTN_ENTMAX_SEARCH_H
#define ATTN_ENTMAX_SEARCH_H

#include "kernels/kernels.h"

/* The scores of a regular row, as often as they are asked for: a dense piece from element j on, `n` elements of it; pieces are as
 * kernels.h wants them. */
typedef struct attn_scores_source {
    const void *(*piece)(void *context, int64_t j, int64_t *n);
    void *context;
    int64_t n;
    int32_t dtype; /* ATTN_F32, ATTN_F64 */
    double max;
} attn_scores_source;

/* What turns a row's scores into weights. */
typedef struct attn_entmax_cut {
    double alpha, max;
    double at, rest;             /* alpha 1.5 and 2: the threshold in two parts */
    double log_w, shift, factor; /* any other alpha: log of the largest weight in two parts, and that weight itself */
} attn_entmax_cut;

/* Alpha is above 1, and beyond 2 such that n^(alpha - 1) is far from overflow, of F64. Two rows of the same
 * scores have the same cut, in whatever pieces they come. */
attn_entmax_cut attn_entmax_search(const attn_kernels *k, double alpha, const attn_scores_source *row);
/* The weights of n dense scores; y may be z. */
void attn_entmax_apply(const attn_entmax_kernels *k, const attn_entmax_cut *cut, int64_t n, const void *z, void *y);

#endif
