/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions: memory, workers and floating-point environment of one call. */
#define _POSIX_C_SOURCE 200809L
#include "exec.h"
#include "status.h"

#include <stdatomic.h>
#include <stdlib.h>

#if defined(__x86_64__) || defined(_M_X64)
#include <xmmintrin.h>
/* Round to nearest, no flush to zero, no trap; whatever the caller had comes back afterwards, its sticky flags included. */
unsigned attn_fp_enter(void) {
    unsigned caller = _mm_getcsr();
    _mm_setcsr(0x1f80);
    return caller;
}
void attn_fp_leave(unsigned caller) { _mm_setcsr(caller); }
#elif defined(__aarch64__)
unsigned attn_fp_enter(void) {
    uint64_t caller;
    __asm__ volatile("mrs %0, fpcr" : "=r"(caller));
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)0));
    return (unsigned)caller;
}
void attn_fp_leave(unsigned caller) { __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)caller)); }
#else
#include <fenv.h>
unsigned attn_fp_enter(void) {
    unsigned caller = (unsigned)fegetround();
    fesetround(FE_TONEAREST);
    return caller;
}
void attn_fp_leave(unsigned caller) { fesetround((int)caller); }
#endif

enum { ALIGNMENT = 64 };

size_t attn_need_bytes(attn_need need, int32_t n_threads) {
    size_t total, per_worker = attn_round64(need.per_worker), shared = attn_round64(need.shared);
    size_t workers = (size_t)(n_threads > 1 ? n_threads : 1);
    if (per_worker < need.per_worker || shared < need.shared) return SIZE_MAX;
    if (__builtin_mul_overflow(per_worker, workers, &total)) return SIZE_MAX;
    if (__builtin_add_overflow(total, shared, &total)) return SIZE_MAX;
    if (total == 0) return 0;
    /* A lent block may begin anywhere. */
    return __builtin_add_overflow(total, (size_t)ALIGNMENT, &total) ? SIZE_MAX : total;
}

attn_status attn_session_open(attn_session *s, const attn_exec *exec, attn_need need) {
    int32_t n_threads = exec && exec->n_threads > 1 ? exec->n_threads : 1;
    if (exec && exec->n_threads < 0) return attn_fail(ATTN_BAD_ARGUMENT, "exec has n_threads %d", (int)exec->n_threads);
    if (n_threads > 1 && exec->parallel_for == NULL)
        return attn_fail(ATTN_BAD_ARGUMENT, "exec has n_threads %d and no parallel_for (attn_pool_open fills it in)",
                         (int)n_threads);

    size_t bytes = attn_need_bytes(need, n_threads);
    char *block = NULL, *owned = NULL;
    if (exec && exec->workspace) {
        if (exec->workspace_size < bytes)
            return attn_fail(ATTN_SMALL_WORKSPACE, "the workspace has %zu bytes, this call needs %zu", exec->workspace_size,
                             bytes);
        block = exec->workspace;
    } else if (bytes) {
        if (bytes == SIZE_MAX || !(owned = malloc(bytes)))
            return attn_fail(ATTN_NO_MEMORY, "no memory for a workspace of %zu bytes", bytes);
        block = owned;
    }
    uintptr_t misaligned = (uintptr_t)block % ALIGNMENT;
    char *begin = block ? block + (misaligned ? ALIGNMENT - misaligned : 0) : NULL;
    *s = (attn_session){ .exec = exec,
                         .n_threads = n_threads,
                         .shared = begin,
                         .scratch = begin ? begin + attn_round64(need.shared) : NULL,
                         .per_worker = attn_round64(need.per_worker),
                         .owned = owned,
                         .caller_fp = attn_fp_enter() };
    return ATTN_OK;
}

typedef struct job {
    attn_session *session;
    attn_work work;
    void *context;
    int64_t n_items;
    atomic_llong next;
} job;

static void draw_items(void *argument, int32_t worker) {
    job *j = argument;
    unsigned caller_fp = attn_fp_enter();
    char *scratch = j->session->scratch ? j->session->scratch + (size_t)worker * j->session->per_worker : NULL;
    for (int64_t item; (item = atomic_fetch_add_explicit(&j->next, 1, memory_order_relaxed)) < j->n_items;)
        j->work(j->context, item, scratch);
    attn_fp_leave(caller_fp);
}

void attn_session_run(attn_session *s, int64_t n_items, attn_work work, void *context) {
    job j = { .session = s, .work = work, .context = context, .n_items = n_items };
    int32_t n = n_items < s->n_threads ? (int32_t)n_items : s->n_threads;
    if (n > 1)
        s->exec->parallel_for(s->exec->pool, n, draw_items, &j);
    else if (n == 1)
        draw_items(&j, 0);
}

void attn_session_close(attn_session *s) {
    free(s->owned);
    attn_fp_leave(s->caller_fp);
}
