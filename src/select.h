/* SPDX-License-Identifier: Apache-2.0 */
/* The k largest of a row that streams past: a heap of k whose root is the one to give way. Pieces of the row whose largest
 * element does not come before the root are not looked at. */
#ifndef ATTN_SELECT_H
#define ATTN_SELECT_H

#include "kernels/kernels.h"

typedef struct attn_entry {
    double score;
    int64_t index;
} attn_entry;

typedef struct attn_selection {
    attn_entry *entries; /* `room` of them */
    int64_t room, count;
} attn_selection;

/* Offers elements [first, first + n), n dense ones of F32 or F64 with this peak, in the order of the row. -inf is never taken. */
void attn_select(attn_selection *s, int64_t first, int64_t n, const void *z, int32_t dtype, attn_peak peak);

/* The largest of a short row without NaN, in the order of ref_comes_before: the largest is taken out of the n elements, with -inf
 * in its place, as often as there is room. For few of few it is faster than a heap, whose branches no processor foretells. */
void attn_select_few(attn_selection *s, int64_t n, void *z, int32_t dtype, const attn_softmax_kernels *k);

/* Puts them in the order of ref_comes_before, or of their indices. */
void attn_sort_by_score(attn_entry *entries, int64_t n);
void attn_sort_by_index(attn_entry *entries, int64_t n);

#endif
