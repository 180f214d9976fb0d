/* SPDX-License-Identifier: Apache-2.0 */
/* Plain softmax and log-softmax (the scores are x) of rows or columns as a whole: the shortest way through memory. Other rows go
 * through strips (softmax_rows.c), with the same bits. */
#ifndef ATTN_SOFTMAX_WHOLE_H
#define ATTN_SOFTMAX_WHOLE_H

#include "softmax_rows.h"
#include "strip.h"

typedef struct attn_whole_run {
    const score_job *job;
    const attn_softmax_kernels *k;
    bool columns;
    bool stream;   /* results go past the caches */
    int64_t block; /* rows or columns of a work item */
    size_t bytes;  /* of each worker's scratch */
} attn_whole_run;

/* Whether the job can be done this way: x is of a float type that the kernels read, its rows (or columns) are dense in x and y. Where
 * lent memory is too small for it, it cannot. */
bool attn_plan_whole(attn_whole_run *run, const score_job *job, const attn_kernels *k, const attn_exec *exec);
attn_status attn_run_whole(const attn_whole_run *run, const attn_exec *exec);

#endif
