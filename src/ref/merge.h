/* SPDX-License-Identifier: Apache-2.0 */
/* The definition of the merge of partial attention results: one row of every part at a time, in double. */
#ifndef ATTN_REF_MERGE_H
#define ATTN_REF_MERGE_H

#include "element.h"

/* One row of one part. */
typedef struct ref_part {
    ref_vector out; /* [v_dim]; holds anything where lse is -inf */
    double lse;
    ref_vector dout, dlse; /* backward, each optional: where the gradients go; [v_dim], [1] */
} ref_part;

/* Part i of the row that `context` knows. Parts are asked for again and again, so that their number needs no memory. */
typedef ref_part (*ref_part_at)(const void *context, int64_t i);

/* What is known of a row when all its parts' lse have been seen: the largest (NaN where there is one), and the sum of
 * exp(lse - max). */
typedef struct ref_merged {
    double max, sum;
} ref_merged;

/* The largest lse of n parts; NaN if there is one among them, -inf of none. */
double ref_merge_max(int64_t n, ref_part_at at, const void *context);
/* Their merged lse. */
double ref_merge_lse(ref_merged row);

/* out [v_dim] and lse [1], which is optional; either may be the first part's own. */
void ref_merge_row(int64_t n, int64_t v_dim, ref_part_at at, const void *context, ref_vector out, ref_vector lse);
/* The gradients of a loss whose gradients to out and lse are dout and dlse. */
void ref_merge_row_backward(int64_t n, int64_t v_dim, ref_part_at at, const void *context, ref_vector dout, double dlse);

#endif
