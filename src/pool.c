/* SPDX-License-Identifier: Apache-2.0 */
/* The library's own pool of threads behind attn_exec.parallel_for.
 *
 * A job is n shares. Whoever is free claims the next one, the caller included: a worker that is slow to wake delays nobody, because
 * the caller takes what is left and waits only for shares that somebody is in the middle of. One 64-bit word (epoch, n, next) is
 * the whole state of a job, so that claiming is a compare-and-swap and a late worker can never claim from a finished job.
 *
 * Workers look for the next job for at most 50 us before they sleep, and not at all when there are more threads than cores. */
#define _POSIX_C_SOURCE 200809L
#include "cores.h"
#include "status.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

enum { MAX_THREADS = 1024, SPIN_NANOSECONDS = 50000, STACK_BYTES = 1 << 20 };

typedef struct attn_pool {
    /* Of the job in progress: epoch (high 32 bits), n (16), next share to claim (16). */
    atomic_uint_least64_t state;
    _Atomic(attn_task) task;
    _Atomic(void *) job;
    atomic_int finished; /* shares done */
    atomic_flag in_use;  /* a caller has the pool */
    atomic_int sleepers; /* workers asleep on `work` */
    atomic_bool caller_asleep, stopping;
    pthread_mutex_t mutex;
    pthread_cond_t work, done;
    unsigned forks; /* of the process, when the pool was opened */
    int cores;
    int32_t n_workers;
    pthread_t workers[];
} attn_pool;

/* Threads of all open pools, their callers included: with more of them than cores, spinning steals from those who work. */
static atomic_int open_threads;

/* A forked child has its parent's pools in memory and none of their threads. */
static atomic_uint process_forks;
static void count_fork(void) {
    atomic_fetch_add(&process_forks, 1);
    atomic_store(&open_threads, 0);
}
static void watch_forks(void) { pthread_atfork(NULL, NULL, count_fork); }

static uint64_t pack(uint64_t epoch, uint64_t n) { return epoch << 32 | n << 16; }
static uint32_t epoch_of(uint64_t state) { return (uint32_t)(state >> 32); }
static uint32_t shares_of(uint64_t state) { return (uint32_t)(state >> 16) & 0xffff; }
static uint32_t next_of(uint64_t state) { return (uint32_t)state & 0xffff; }

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static bool may_spin(attn_pool *p) { return atomic_load_explicit(&open_threads, memory_order_relaxed) <= p->cores; }

/* Claims shares and does them until none is left. The fields are read before the claim; that the claim then succeeds on an
 * unchanged word proves that they belong to its job, for the caller changes them only when every share has been claimed. */
static void take_shares(attn_pool *p) {
    for (;;) {
        uint64_t state = atomic_load_explicit(&p->state, memory_order_acquire);
        if (next_of(state) >= shares_of(state)) return;
        attn_task task = atomic_load_explicit(&p->task, memory_order_relaxed);
        void *job = atomic_load_explicit(&p->job, memory_order_relaxed);
        if (!atomic_compare_exchange_weak(&p->state, &state, state + 1)) continue;
        task(job, (int32_t)next_of(state));
        if (atomic_fetch_add(&p->finished, 1) + 1 == (int)shares_of(state) && atomic_load(&p->caller_asleep)) {
            pthread_mutex_lock(&p->mutex);
            pthread_cond_signal(&p->done);
            pthread_mutex_unlock(&p->mutex);
        }
    }
}

static bool has_news(attn_pool *p, uint32_t seen) {
    return epoch_of(atomic_load(&p->state)) != seen || atomic_load(&p->stopping);
}

static void wait_for_news(attn_pool *p, uint32_t seen) {
    if (may_spin(p))
        for (int64_t until = now() + SPIN_NANOSECONDS; now() < until;)
            for (int i = 0; i < 16; i++) {
                if (has_news(p, seen)) return;
                relax();
            }
    pthread_mutex_lock(&p->mutex);
    atomic_fetch_add(&p->sleepers, 1);
    while (!has_news(p, seen)) pthread_cond_wait(&p->work, &p->mutex);
    atomic_fetch_sub(&p->sleepers, 1);
    pthread_mutex_unlock(&p->mutex);
}

static void *worker_main(void *argument) {
    attn_pool *p = argument;
    for (uint32_t seen = 0;;) {
        wait_for_news(p, seen);
        if (atomic_load(&p->stopping)) return NULL;
        seen = epoch_of(atomic_load(&p->state));
        take_shares(p);
    }
}

static void wake_workers(attn_pool *p, int32_t wanted) {
    int sleepers = atomic_load(&p->sleepers);
    if (sleepers == 0) return;
    pthread_mutex_lock(&p->mutex);
    if (wanted >= sleepers)
        pthread_cond_broadcast(&p->work);
    else
        for (int32_t i = 0; i < wanted; i++) pthread_cond_signal(&p->work);
    pthread_mutex_unlock(&p->mutex);
}

static void wait_for_shares(attn_pool *p, int n) {
    if (may_spin(p))
        for (int64_t until = now() + SPIN_NANOSECONDS; now() < until;)
            for (int i = 0; i < 16; i++) {
                if (atomic_load(&p->finished) == n) return;
                relax();
            }
    if (atomic_load(&p->finished) == n) return;
    pthread_mutex_lock(&p->mutex);
    atomic_store(&p->caller_asleep, true);
    while (atomic_load(&p->finished) != n) pthread_cond_wait(&p->done, &p->mutex);
    atomic_store(&p->caller_asleep, false);
    pthread_mutex_unlock(&p->mutex);
}

/* attn_exec.parallel_for. One caller at a time has the workers; another one, a nested call or a forked child does it alone. */
static void pool_run(void *pool, int32_t n, attn_task task, void *job) {
    attn_pool *p = pool;
    bool alone = n <= 1 || n > MAX_THREADS || p->forks != atomic_load(&process_forks);
    if (alone || atomic_flag_test_and_set_explicit(&p->in_use, memory_order_acquire)) {
        for (int32_t w = 0; w < n; w++) task(job, w);
        return;
    }
    uint32_t epoch = epoch_of(atomic_load_explicit(&p->state, memory_order_relaxed)) + 1;
    atomic_store_explicit(&p->task, task, memory_order_relaxed);
    atomic_store_explicit(&p->job, job, memory_order_relaxed);
    atomic_store_explicit(&p->finished, 0, memory_order_relaxed);
    atomic_store(&p->state, pack(epoch, (uint64_t)n));
    wake_workers(p, n - 1);
    take_shares(p);
    wait_for_shares(p, n);
    atomic_flag_clear_explicit(&p->in_use, memory_order_release);
}

/* Starts up to n workers and returns how many there are. They take no signals: those are for the program's own threads. */
static int32_t start_workers(attn_pool *p, int32_t n) {
    pthread_attr_t attributes;
    sigset_t all, before;
    int32_t started = 0;
    if (pthread_attr_init(&attributes)) return 0;
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (started < n && pthread_create(&p->workers[started], &attributes, worker_main, p) == 0) started++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return started;
}

static int32_t threads_of_environment(void) {
    const char *text = getenv("ATTN_THREADS");
    if (!text || !*text) return 0;
    char *end;
    errno = 0;
    long n = strtol(text, &end, 10);
    return *end || errno || n < 1 ? 0 : n > MAX_THREADS ? MAX_THREADS : (int32_t)n;
}

attn_status attn_pool_open(attn_exec *exec, int32_t n_threads) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (!exec) return attn_fail(ATTN_BAD_ARGUMENT, "attn_pool_open has no exec to fill in");
    if (n_threads < 0) return attn_fail(ATTN_BAD_ARGUMENT, "a pool of %d threads was asked for", (int)n_threads);
    int cores = attn_usable_cores();
    if (n_threads == 0) n_threads = threads_of_environment();
    if (n_threads == 0) n_threads = cores;
    if (n_threads > MAX_THREADS) n_threads = MAX_THREADS;
    exec->n_threads = 1;
    exec->parallel_for = NULL;
    exec->pool = NULL;
    if (n_threads == 1) return ATTN_OK;

    pthread_once(&once, watch_forks);
    attn_pool *p = calloc(1, sizeof *p + (size_t)(n_threads - 1) * sizeof *p->workers);
    if (!p) return attn_fail(ATTN_NO_MEMORY, "no memory for a pool of %d threads", (int)n_threads);
    p->forks = atomic_load(&process_forks);
    p->cores = cores;
    atomic_flag_clear(&p->in_use);
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->done, NULL);
    p->n_workers = start_workers(p, n_threads - 1);
    atomic_fetch_add(&open_threads, p->n_workers + 1);
    *exec = (attn_exec){ .n_threads = p->n_workers + 1,
                         .parallel_for = pool_run,
                         .pool = p,
                         .workspace = exec->workspace,
                         .workspace_size = exec->workspace_size };
    return ATTN_OK;
}

void attn_pool_close(attn_exec *exec) {
    attn_pool *p = exec ? exec->pool : NULL;
    if (!p) return;
    /* In a forked child there is nobody to join, and the mutex may be as a vanished thread left it. */
    if (p->forks == atomic_load(&process_forks)) {
        pthread_mutex_lock(&p->mutex);
        atomic_store(&p->stopping, true);
        pthread_cond_broadcast(&p->work);
        pthread_mutex_unlock(&p->mutex);
        for (int32_t i = 0; i < p->n_workers; i++) pthread_join(p->workers[i], NULL);
        pthread_cond_destroy(&p->done);
        pthread_cond_destroy(&p->work);
        pthread_mutex_destroy(&p->mutex);
        atomic_fetch_sub(&open_threads, p->n_workers + 1);
    }
    free(p);
    exec->n_threads = 1;
    exec->parallel_for = NULL;
    exec->pool = NULL;
}
