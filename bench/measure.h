/* SPDX-License-Identifier: Apache-2.0 */
/* How fast cases are, as a share of what the machine can do at that very moment. Each repetition stands between two bursts - of
 * multiply-adds in registers, or of a copy of the same memory - and is compared with their mean; repetitions of all cases take turns,
 * so that a machine that changes its speed changes it for all. Where the two bursts disagree somebody else was at work: the repetition
 * is made again. */
#ifndef ATTN_BENCH_MEASURE_H
#define ATTN_BENCH_MEASURE_H

#include "case.h"

typedef struct bench_result {
    int repetitions;     /* that count */
    int disturbed;       /* that did not, because the bursts around them disagreed */
    bool unsteady;       /* too many were disturbed: all count */
    double best, median; /* seconds of a run */
    double peak;         /* operations or bytes per second: the best burst, times the threads */
    double fraction;     /* of the peak beside it: the median over the repetitions */
} bench_result;

/* Measures n cases, about so many seconds each. Returns IO_OK, IO_BAD_USAGE where the library refuses a call, IO_NO_ROOM. */
int bench_measure(bench_case *cases, int n, double seconds, const attn_exec *exec, bench_result *results, io_error *error);

#endif
