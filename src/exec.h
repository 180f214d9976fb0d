/* SPDX-License-Identifier: Apache-2.0 */
/* One call's execution: its memory (lent or allocated), its workers, and the floating-point environment they compute in.
 * Front-ends open a session after validation, run work items through it, and close it. Nothing below a front-end allocates,
 * and work items cannot fail. Items never depend on how many workers there are: that is what keeps results the same bits. */
#ifndef ATTN_EXEC_H
#define ATTN_EXEC_H

#include <attn/attn.h>

/* Bytes a call needs: what its workers share, and what each has for itself. Both are rounded up to 64. */
typedef struct attn_need {
    size_t shared, per_worker;
} attn_need;

/* Total bytes with n_threads workers, alignment included; SIZE_MAX when it does not fit. */
size_t attn_need_bytes(attn_need need, int32_t n_threads);

/* Does work item `item` with the worker's own scratch (64-byte aligned, need.per_worker bytes, contents undefined). */
typedef void (*attn_work)(void *context, int64_t item, void *scratch);

typedef struct attn_session {
    const attn_exec *exec;
    int32_t n_threads;
    void *shared;       /* 64-byte aligned, need.shared bytes, contents undefined */
    char *scratch;      /* n_threads blocks of `per_worker` bytes */
    size_t per_worker;  /* rounded up */
    void *owned;        /* what close frees; NULL when the memory was lent */
    unsigned caller_fp; /* the caller's floating-point control word */
} attn_session;

/* Checks `exec`, finds the memory and enters the default floating-point environment.
 * ATTN_SMALL_WORKSPACE, ATTN_NO_MEMORY or ATTN_BAD_ARGUMENT: nothing to close. */
attn_status attn_session_open(attn_session *s, const attn_exec *exec, attn_need need);
/* Does items [0, n_items), each once, on the session's workers, lower items first; returns when all are done. */
void attn_session_run(attn_session *s, int64_t n_items, attn_work work, void *context);
void attn_session_close(attn_session *s);

/* The default floating-point environment: round to nearest, no flush to zero. Sessions and their workers are in it; what a
 * front-end computes before it opens one is not. Leaving brings the caller's back. */
unsigned attn_fp_enter(void);
void attn_fp_leave(unsigned caller);

/* Carves `bytes` (rounded up to 64) off a region; for laying out shared and scratch memory the same way it was counted. */
static inline size_t attn_round64(size_t bytes) { return (bytes + 63) & ~(size_t)63; }
static inline void *attn_carve(char **at, size_t bytes) {
    void *here = *at;
    *at += attn_round64(bytes);
    return here;
}

#endif
