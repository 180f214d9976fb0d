/* SPDX-License-Identifier: Apache-2.0 */
/* The pool and the sessions: each share once, whoever calls; memory lent and own; the floating-point environment; ATTN_THREADS;
 * fork; quotas. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/failing_malloc.h"
#include "src/cores.h"
#include "src/exec.h"

#include <fenv.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ThreadSanitizer does not follow a forked child that starts threads. */
#if defined(__SANITIZE_THREAD__)
enum { CHILDREN_MAY_START_THREADS = 0 };
#else
enum { CHILDREN_MAY_START_THREADS = 1 };
#endif

enum { MOST = 64 };

/* There when coverage is counted: what a child ran, which does not end as programs do. */
extern void __gcov_dump(void) __attribute__((weak));

/* Counts how often each share was done. */
typedef struct tally {
    atomic_int done[MOST];
} tally;

static void count_share(void *job, int32_t w) { atomic_fetch_add(&((tally *)job)->done[w], 1); }

static void assert_each_once(tally *t, int n) {
    for (int w = 0; w < MOST; w++) assert_int_equal(atomic_load(&t->done[w]), w < n);
}

static void every_share_is_done_once_whatever_the_number(void **state) {
    (void)state;
    for (int32_t threads = 2; threads <= 7; threads++) {
        attn_exec exec = { 0 };
        assert_int_equal(attn_pool_open(&exec, threads), ATTN_OK);
        assert_int_equal(exec.n_threads, threads);
        for (int i = 0; i < 300; i++) {
            int n = i % (threads + 1);
            tally t = { { 0 } };
            exec.parallel_for(exec.pool, n, count_share, &t);
            assert_each_once(&t, n);
            if (i % 100 == 0) usleep(300); /* long enough for the workers to fall asleep */
        }
        attn_pool_close(&exec);
        assert_int_equal(exec.n_threads, 1);
        assert_null(exec.pool);
    }
}

static void a_pool_of_one_is_the_calling_thread(void **state) {
    (void)state;
    attn_exec exec = { .workspace = state, .workspace_size = 7 };
    assert_int_equal(attn_pool_open(&exec, 1), ATTN_OK);
    assert_int_equal(exec.n_threads, 1);
    assert_null(exec.pool);
    assert_ptr_equal(exec.workspace, state); /* what was lent stays lent */
    assert_int_equal(exec.workspace_size, 7);
    attn_pool_close(&exec);
    attn_pool_close(NULL);
}

static void threads_come_from_the_environment_else_from_the_cores(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int32_t threads; /* 0: the cores */
    } cases[] = { { "3", 3 },  { "1", 1 },  { "", 0 },     { "0", 0 },
                  { "-2", 0 }, { "4x", 0 }, { "many", 0 }, { "99999999999999999999", 0 } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        attn_exec exec = { 0 };
        setenv("ATTN_THREADS", cases[i].text, 1);
        assert_int_equal(attn_pool_open(&exec, 0), ATTN_OK);
        assert_int_equal(exec.n_threads, cases[i].threads ? cases[i].threads : attn_usable_cores());
        attn_pool_close(&exec);
    }
    setenv("ATTN_THREADS", "5", 1);
    attn_exec exec = { 0 };
    assert_int_equal(attn_pool_open(&exec, 2), ATTN_OK); /* an explicit number is not the environment's business */
    assert_int_equal(exec.n_threads, 2);
    attn_pool_close(&exec);
    unsetenv("ATTN_THREADS");
}

static void bad_pools_are_refused(void **state) {
    (void)state;
    attn_exec exec = { 0 };
    assert_int_equal(attn_pool_open(NULL, 2), ATTN_BAD_ARGUMENT);
    assert_int_equal(attn_pool_open(&exec, -1), ATTN_BAD_ARGUMENT);
    assert_non_null(strstr(attn_last_error(), "-1"));
    memory.allowed = 0, memory.for_ever = true;
    attn_status status = attn_pool_open(&exec, 4);
    memory.allowed = -1;
    assert_int_equal(status, ATTN_NO_MEMORY);
}

static void cores_are_those_of_the_affinity_mask_and_the_quota(void **state) {
    (void)state;
    cpu_set_t before, one;
    assert_true(attn_usable_cores() >= 1);
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    CPU_ZERO(&one);
    for (int c = 0; c < CPU_SETSIZE; c++)
        if (CPU_ISSET(c, &before)) {
            CPU_SET(c, &one);
            break;
        }
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(attn_usable_cores(), 1);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);

    assert_int_equal(attn_cores_of_quota("max 100000\n"), 0);
    assert_int_equal(attn_cores_of_quota("-1 100000\n"), 0);
    assert_int_equal(attn_cores_of_quota("200000 100000\n"), 2);
    assert_int_equal(attn_cores_of_quota("150000 100000\n"), 2);
    assert_int_equal(attn_cores_of_quota("1000 100000\n"), 1);
    assert_int_equal(attn_cores_of_quota("5000 0\n"), 0);
    assert_int_equal(attn_cores_of_quota("5000"), 0);
    assert_int_equal(attn_cores_of_quota(""), 0);
}

/* ---- several callers, nesting, fork ------------------------------------------------------------------------- */

static attn_exec shared;

static void *call_often(void *unused) {
    (void)unused;
    for (int i = 0; i < 400; i++) {
        tally t = { { 0 } };
        shared.parallel_for(shared.pool, 3, count_share, &t);
        for (int w = 0; w < 3; w++)
            if (atomic_load(&t.done[w]) != 1) return "a share was not done exactly once";
    }
    return NULL;
}

static void a_pool_serves_several_callers_at_once(void **state) {
    (void)state;
    pthread_t callers[4];
    assert_int_equal(attn_pool_open(&shared, 3), ATTN_OK);
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&callers[i], NULL, call_often, NULL), 0);
    for (int i = 0; i < 4; i++) {
        void *complaint;
        assert_int_equal(pthread_join(callers[i], &complaint), 0);
        assert_null(complaint);
    }
    attn_pool_close(&shared);
}

typedef struct nest {
    tally outer, inner[MOST];
} nest;

static void count_and_nest(void *job, int32_t w) {
    nest *n = job;
    count_share(&n->outer, w);
    shared.parallel_for(shared.pool, 3, count_share, &n->inner[w]);
}

static void nested_use_runs_inline(void **state) {
    (void)state;
    static nest n;
    memset(&n, 0, sizeof n);
    assert_int_equal(attn_pool_open(&shared, 3), ATTN_OK);
    shared.parallel_for(shared.pool, 3, count_and_nest, &n);
    assert_each_once(&n.outer, 3);
    for (int w = 0; w < 3; w++) assert_each_once(&n.inner[w], 3);
    attn_pool_close(&shared);
}

static void a_forked_child_works_alone_and_may_open_its_own_pool(void **state) {
    (void)state;
    tally t = { { 0 } };
    assert_int_equal(attn_pool_open(&shared, 3), ATTN_OK);
    shared.parallel_for(shared.pool, 3, count_share, &t);
    pid_t child = fork();
    if (child == 0) {
        tally in_child = { { 0 } }, in_own = { { 0 } };
        attn_exec own = { 0 };
        int wrong = 0;
        alarm(20);
        shared.parallel_for(shared.pool, 3, count_share, &in_child);
        wrong += attn_pool_open(&own, CHILDREN_MAY_START_THREADS ? 3 : 1) != ATTN_OK;
        if (own.pool) own.parallel_for(own.pool, 3, count_share, &in_own);
        for (int w = 0; w < 3; w++)
            wrong += atomic_load(&in_child.done[w]) != 1 || atomic_load(&in_own.done[w]) != CHILDREN_MAY_START_THREADS;
        attn_pool_close(&own);
        attn_pool_close(&shared);
        if (__gcov_dump) __gcov_dump();
        _exit(wrong);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    shared.parallel_for(shared.pool, 3, count_share, &t); /* the parent's pool is unharmed */
    for (int w = 0; w < 3; w++) assert_int_equal(atomic_load(&t.done[w]), 2);
    attn_pool_close(&shared);
}

static void idle_workers_sleep(void **state) {
    (void)state;
    tally t = { { 0 } };
    struct timespec before, after;
    attn_exec exec = { 0 };
    assert_int_equal(attn_pool_open(&exec, 4), ATTN_OK);
    exec.parallel_for(exec.pool, 4, count_share, &t);
    usleep(20000);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    usleep(200000);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    attn_pool_close(&exec);
    double busy = (double)(after.tv_sec - before.tv_sec) + 1e-9 * (double)(after.tv_nsec - before.tv_nsec);
    assert_true(busy < 0.05);
}

static void note_signal_mask(void *job, int32_t w) {
    sigset_t mask;
    (void)w;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    usleep(1000); /* so that workers get a share */
    if (sigismember(&mask, SIGINT)) atomic_fetch_add((atomic_int *)job, 1);
}

/* Ctrl-C has to reach a thread of the program's own. */
static void workers_take_no_signals(void **state) {
    (void)state;
    atomic_int blocked = 0;
    attn_exec exec = { 0 };
    assert_int_equal(attn_pool_open(&exec, 3), ATTN_OK);
    for (int i = 0; i < 200 && atomic_load(&blocked) == 0; i++) exec.parallel_for(exec.pool, 3, note_signal_mask, &blocked);
    attn_pool_close(&exec);
    assert_true(atomic_load(&blocked) > 0);
}

/* ---- sessions ------------------------------------------------------------------------------------------------ */

typedef struct work_done {
    atomic_int items[1000];
    atomic_int misaligned;
} work_done;

static void do_item(void *context, int64_t item, void *scratch) {
    work_done *w = context;
    atomic_fetch_add(&w->items[item], 1);
    if ((uintptr_t)scratch % 64) atomic_fetch_add(&w->misaligned, 1);
    memset(scratch, (int)item, 100);
}

static void a_session_does_each_item_once_with_scratch_of_its_own(void **state) {
    (void)state;
    static const int32_t threads[] = { 1, 2, 3, 7 };
    for (int i = 0; i < 4; i++)
        for (int64_t n = 0; n <= 1000; n = n * 3 + 1) {
            static work_done w;
            memset(&w, 0, sizeof w);
            attn_exec exec = { 0 };
            attn_session session;
            assert_int_equal(attn_pool_open(&exec, threads[i]), ATTN_OK);
            assert_int_equal(attn_session_open(&session, &exec, (attn_need){ .shared = 10, .per_worker = 100 }), ATTN_OK);
            assert_int_equal((uintptr_t)session.shared % 64, 0);
            attn_session_run(&session, n, do_item, &w);
            attn_session_close(&session);
            attn_pool_close(&exec);
            for (int64_t item = 0; item < 1000; item++) assert_int_equal(atomic_load(&w.items[item]), item < n);
            assert_int_equal(atomic_load(&w.misaligned), 0);
        }
}

static void lent_memory_is_used_and_nothing_is_allocated(void **state) {
    (void)state;
    static char lent[4096];
    const attn_need need = { .shared = 100, .per_worker = 200 };
    size_t bytes = attn_need_bytes(need, 1);
    attn_session session;
    for (size_t shift = 0; shift < 64; shift += 7) {
        attn_exec exec = { .workspace = lent + shift, .workspace_size = bytes };
        memory.allowed = 0, memory.for_ever = true;
        attn_status status = attn_session_open(&session, &exec, need);
        memory.allowed = -1;
        assert_int_equal(status, ATTN_OK);
        assert_true((char *)session.shared >= lent + shift && session.scratch + 200 <= lent + shift + bytes);
        attn_session_close(&session);
    }
}

static void too_little_lent_memory_is_refused_with_both_sizes(void **state) {
    (void)state;
    static char lent[4096];
    const attn_need need = { .shared = 100, .per_worker = 200 };
    attn_session session;
    attn_exec exec = { .workspace = lent, .workspace_size = attn_need_bytes(need, 1) - 1 };
    assert_int_equal(attn_session_open(&session, &exec, need), ATTN_SMALL_WORKSPACE);
    assert_non_null(strstr(attn_last_error(), "447"));
    assert_non_null(strstr(attn_last_error(), "448"));
}

static void memory_that_cannot_be_had_gives_a_status(void **state) {
    (void)state;
    attn_session session;
    memory.allowed = 0, memory.for_ever = true;
    attn_status status = attn_session_open(&session, NULL, (attn_need){ .shared = 1 });
    memory.allowed = -1;
    assert_int_equal(status, ATTN_NO_MEMORY);
    assert_int_equal(attn_session_open(&session, NULL, (attn_need){ .shared = SIZE_MAX }), ATTN_NO_MEMORY);
    assert_int_equal(attn_session_open(&session, NULL, (attn_need){ .shared = SIZE_MAX - 100, .per_worker = 200 }),
                     ATTN_NO_MEMORY);
}

static void needs_are_added_without_overflow(void **state) {
    (void)state;
    assert_int_equal(attn_need_bytes((attn_need){ 0, 0 }, 8), 0);
    assert_int_equal(attn_need_bytes((attn_need){ 1, 0 }, 8), 128);
    assert_int_equal(attn_need_bytes((attn_need){ 0, 65 }, 3), 3 * 128 + 64);
    assert_true(attn_need_bytes((attn_need){ 0, SIZE_MAX / 2 }, 3) == SIZE_MAX);
    assert_true(attn_need_bytes((attn_need){ SIZE_MAX, 0 }, 1) == SIZE_MAX);
    assert_true(attn_need_bytes((attn_need){ SIZE_MAX / 2, SIZE_MAX / 2 }, 1) == SIZE_MAX);
}

static void sessions_refuse_a_nonsensical_exec(void **state) {
    (void)state;
    attn_session session;
    assert_int_equal(attn_session_open(&session, &(attn_exec){ .n_threads = -1 }, (attn_need){ 0 }), ATTN_BAD_ARGUMENT);
    assert_int_equal(attn_session_open(&session, &(attn_exec){ .n_threads = 2 }, (attn_need){ 0 }), ATTN_BAD_ARGUMENT);
}

#if defined(__x86_64__)
#include <xmmintrin.h>

static void note_environment(void *context, int64_t item, void *scratch) {
    (void)scratch;
    ((unsigned *)context)[item] = _mm_getcsr();
}

/* Flush to zero, denormals as zero, round towards zero: the library computes as if they were not set, and puts them back. */
static void work_is_done_in_the_default_floating_point_environment(void **state) {
    (void)state;
    unsigned before = _mm_getcsr(), inside[40], caller = before | 0x8040 | 0x6000;
    attn_exec exec = { 0 };
    attn_session session;
    assert_int_equal(attn_pool_open(&exec, 3), ATTN_OK);
    _mm_setcsr(caller);
    attn_status status = attn_session_open(&session, &exec, (attn_need){ 0 });
    attn_session_run(&session, 40, note_environment, inside);
    attn_session_close(&session);
    unsigned after = _mm_getcsr();
    _mm_setcsr(before);
    attn_pool_close(&exec);
    assert_int_equal(status, ATTN_OK);
    assert_int_equal(after, caller);
    for (int i = 0; i < 40; i++) assert_int_equal(inside[i] & ~0x3fu, 0x1f80);
}
#else
static void work_is_done_in_the_default_floating_point_environment(void **state) {
    (void)state;
    fesetround(FE_TOWARDZERO);
    attn_session session;
    attn_status status = attn_session_open(&session, NULL, (attn_need){ 0 });
    int inside = fegetround();
    attn_session_close(&session);
    int after = fegetround();
    fesetround(FE_TONEAREST);
    assert_int_equal(status, ATTN_OK);
    assert_int_equal(inside, FE_TONEAREST);
    assert_int_equal(after, FE_TOWARDZERO);
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_share_is_done_once_whatever_the_number),
        cmocka_unit_test(a_pool_of_one_is_the_calling_thread),
        cmocka_unit_test(threads_come_from_the_environment_else_from_the_cores),
        cmocka_unit_test(bad_pools_are_refused),
        cmocka_unit_test(cores_are_those_of_the_affinity_mask_and_the_quota),
        cmocka_unit_test(a_pool_serves_several_callers_at_once),
        cmocka_unit_test(nested_use_runs_inline),
        cmocka_unit_test(a_forked_child_works_alone_and_may_open_its_own_pool),
        cmocka_unit_test(idle_workers_sleep),
        cmocka_unit_test(workers_take_no_signals),
        cmocka_unit_test(a_session_does_each_item_once_with_scratch_of_its_own),
        cmocka_unit_test(lent_memory_is_used_and_nothing_is_allocated),
        cmocka_unit_test(too_little_lent_memory_is_refused_with_both_sizes),
        cmocka_unit_test(memory_that_cannot_be_had_gives_a_status),
        cmocka_unit_test(needs_are_added_without_overflow),
        cmocka_unit_test(sessions_refuse_a_nonsensical_exec),
        cmocka_unit_test(work_is_done_in_the_default_floating_point_environment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
