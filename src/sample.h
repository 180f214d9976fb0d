/* SPDX-License-Identifier: Apache-2.0 */
/* Drawing from one row of logits after the other, after validation, through kernels in double. */
#ifndef ATTN_SAMPLE_H
#define ATTN_SAMPLE_H

#include "exec.h"
#include "rows.h"

#include "kernels/kernels.h"
#include "ref/sample.h"

/* In `rows`: the probability may be absent. */
enum { SAMPLE_X, SAMPLE_INDEX, SAMPLE_PROBABILITY, SAMPLE_TENSORS };

typedef struct sample_job {
    attn_rows rows; /* numbered */
    ref_sampler s;  /* its x is that of each row */
    uint64_t seed;
    const attn_kernels *k;   /* of F64; NULL: the reference */
    const attn_kernels *own; /* of the logits' type where that has some, else of F64: the largest are found without widening */
    int64_t block;           /* rows of an item */
} sample_job;

/* What a worker needs for rows of these options. */
attn_need attn_sample_need(const ref_sampler *s);
/* The rows of item `item`. */
void attn_sample_rows(void *job, int64_t item, void *scratch);

#endif
