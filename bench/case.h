/* SPDX-License-Identifier: Apache-2.0 */
/* A problem made ready to run: its tensors, and the call of the library that is timed. One file for each kind of problem fills it in. */
#ifndef ATTN_BENCH_CASE_H
#define ATTN_BENCH_CASE_H

#include <attn/attn.h>

#include "problem.h"

enum { BENCH_MOST_BLOCKS = 24 };

typedef struct bench_case {
    const char *text;
    int32_t dtype;
    double flops;          /* of a run; 0: it is measured in bytes */
    double bytes;          /* read and written once in a run, where flops is 0 */
    const void *copy_from; /* what a run in bytes is compared with: a copy of so many */
    void *copy_to;
    size_t copy_size;
    attn_status (*run)(void *call, const attn_exec *exec);
    size_t (*workspace)(const void *call, int32_t n_threads); /* NULL: none */
    void *call;                                               /* what `run` gets; one of the blocks */

    void *block[BENCH_MOST_BLOCKS]; /* owned */
    int n_blocks;
    size_t size; /* of all blocks, in bytes */
    bool failed; /* there was no memory for one of them */
    uint64_t random;
} bench_case;

/* Reads the text and makes it ready. Returns IO_OK, IO_BAD_USAGE or IO_NO_ROOM; nothing is to be closed then. */
int bench_case_open(bench_case *c, const char *text, io_error *error);
void bench_case_close(bench_case *c);
/* Whether there is such a kind of problem: IO_OK or IO_BAD_USAGE. */
int bench_case_known(const bench_problem *p, io_error *error);

/* ---- for the kinds ------------------------------------------------------------------------------------------- */

/* Each fills in flops or bytes, run, workspace and call; bench_case_open looks at `failed` afterwards. */
int bench_attention(bench_problem *p, bench_case *c, io_error *error);   /* attention, additive */
int bench_product(bench_problem *p, bench_case *c, io_error *error);     /* gemm */
int bench_rows(bench_problem *p, bench_case *c, io_error *error);        /* softmax, cross-entropy */
int bench_linear_loss(bench_problem *p, bench_case *c, io_error *error); /* linear-cross-entropy */

/* `bytes` of memory that the case owns, on a cache line; NULL, and c->failed, where there is none. */
void *bench_memory(bench_case *c, double bytes);
/* A dense tensor of numbers around 0 with deviation near 1 (F32, F64), or with sizes of 1/2 .. 1 (BF16, F16); data NULL, and
 * c->failed, where there is no memory. */
attn_tensor bench_tensor(bench_case *c, int32_t dtype, int32_t rank, const int64_t *shape);
/* The same, not filled in: what a call writes. */
attn_tensor bench_output(bench_case *c, int32_t dtype, int32_t rank, const int64_t *shape);
/* Seven of eight are true, here and there. */
attn_tensor bench_mask(bench_case *c, int64_t rows, int64_t columns);
/* Classes 0 .. n_classes - 1, as I64 [n]. */
attn_tensor bench_labels(bench_case *c, int64_t n, int64_t n_classes);

#endif
