/* SPDX-License-Identifier: Apache-2.0 */
/* Repetitions in turns, each between two bursts. See measure.h. */
#define _POSIX_C_SOURCE 200809L
#include "measure.h"

#include <attn/ops.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST = 4000, FEWEST = 5 };

static const double burst_seconds = 1e-4, fewest_seconds = 2e-5, agreement = 0.1;

/* A case while it is measured. */
typedef struct track {
    bench_case *c;
    int64_t rounds; /* of a burst */
    int repeats;    /* runs in one repetition: reading the clock does not count */
    int n, n_calm;  /* repetitions, and those whose bursts agree */
    double spent, peak;
    double time[MOST], fraction[MOST];
    bool calm[MOST];
} track;

static double read_clock(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* One thread is timed in its own processor time: what others do on the machine meanwhile does not count. */
static double now(const attn_exec *exec) { return read_clock(exec->n_threads > 1 ? CLOCK_MONOTONIC : CLOCK_THREAD_CPUTIME_ID); }

/* ---- bursts ---------------------------------------------------------------------------------------------------------- */

typedef struct copy_job {
    const bench_case *c;
    int32_t parts;
} copy_job;

static void copy_part(void *context, int32_t part) {
    const copy_job *job = context;
    size_t size = job->c->copy_size / (size_t)job->parts, at = size * (size_t)part;
    if (part == job->parts - 1) size = job->c->copy_size - at;
    memcpy((char *)job->c->copy_to + at, (const char *)job->c->copy_from + at, size);
}

/* Bytes per second, read and written. */
static double burst_of_copies(const bench_case *c, const attn_exec *exec) {
    copy_job job = { c, exec->n_threads > 1 ? exec->n_threads : 1 };
    double start = now(exec);
    if (job.parts > 1)
        exec->parallel_for(exec->pool, job.parts, copy_part, &job);
    else
        copy_part(&job, 0);
    return 2 * (double)c->copy_size / fmax(now(exec) - start, 1e-9);
}

/* Operations per second of one thread, times the threads. */
static double burst_of_products(const track *t, const attn_exec *exec) {
    double start = read_clock(CLOCK_THREAD_CPUTIME_ID);
    double flops = (double)attn_burst(t->c->dtype, t->rounds);
    return (exec->n_threads > 1 ? exec->n_threads : 1) * flops / fmax(read_clock(CLOCK_THREAD_CPUTIME_ID) - start, 1e-9);
}

static double burst(const track *t, const attn_exec *exec) {
    return t->c->flops > 0 ? burst_of_products(t, exec) : burst_of_copies(t->c, exec);
}

/* ---- repetitions ----------------------------------------------------------------------------------------------------- */

static int run(track *t, const attn_exec *exec, io_error *error) {
    if (t->c->run(t->c->call, exec) == ATTN_OK) return IO_OK;
    return io_fail(error, IO_BAD_USAGE, "%s: %s", t->c->text, attn_last_error());
}

/* How long a burst is, and how many runs a repetition has; warms memory and caches up on the way. */
static int prepare(track *t, const attn_exec *exec, io_error *error) {
    int failed = run(t, exec, error);
    double start = now(exec);
    if (!failed) failed = run(t, exec, error);
    double took = fmax(now(exec) - start, 1e-9);
    t->repeats = took < fewest_seconds ? 1 + (int)(fewest_seconds / took) : 1;
    t->rounds = 1000;
    start = read_clock(CLOCK_THREAD_CPUTIME_ID);
    attn_burst(t->c->dtype, t->rounds);
    took = fmax(read_clock(CLOCK_THREAD_CPUTIME_ID) - start, 1e-9);
    t->rounds = 1 + (int64_t)((double)t->rounds * burst_seconds / took);
    return failed;
}

static int repeat(track *t, const attn_exec *exec, io_error *error) {
    double work = t->c->flops > 0 ? t->c->flops : t->c->bytes, before = burst(t, exec), start = now(exec);
    for (int i = 0; i < t->repeats; i++) {
        int failed = run(t, exec, error);
        if (failed) return failed;
    }
    double took = fmax((now(exec) - start) / t->repeats, 1e-9), after = burst(t, exec), beside = (before + after) / 2;
    t->time[t->n] = took;
    t->fraction[t->n] = work / took / beside;
    t->calm[t->n] = fabs(before - after) < agreement * beside;
    t->n_calm += t->calm[t->n++];
    t->peak = fmax(t->peak, beside);
    t->spent += took * t->repeats;
    return IO_OK;
}

static bool finished(const track *t, double seconds) {
    return t->n == MOST || (t->n >= FEWEST && t->spent >= seconds && (2 * t->n_calm >= t->n || t->spent >= 2 * seconds));
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static bench_result summarise(track *t) {
    bench_result r = { .unsteady = t->n_calm < FEWEST || 2 * t->n_calm < t->n, .peak = t->peak };
    int n = 0;
    for (int i = 0; i < t->n; i++) {
        if (!r.unsteady && !t->calm[i]) continue;
        t->time[n] = t->time[i];
        t->fraction[n++] = t->fraction[i];
    }
    qsort(t->time, (size_t)n, sizeof *t->time, by_value);
    qsort(t->fraction, (size_t)n, sizeof *t->fraction, by_value);
    r.repetitions = n;
    r.disturbed = t->n - n;
    r.best = t->time[0];
    r.median = t->time[n / 2];
    r.fraction = t->fraction[n / 2];
    return r;
}

/* ---- all ---------------------------------------------------------------------------------------------------------------- */

static int in_turns(track *tracks, int n, double seconds, const attn_exec *exec, io_error *error) {
    for (int i = 0; i < n; i++) {
        int failed = prepare(&tracks[i], exec, error);
        if (failed) return failed;
    }
    for (bool all = false; !all;) {
        all = true;
        for (int i = 0; i < n; i++) {
            if (finished(&tracks[i], seconds)) continue;
            int failed = repeat(&tracks[i], exec, error);
            if (failed) return failed;
            all = false;
        }
    }
    return IO_OK;
}

int bench_measure(bench_case *cases, int n, double seconds, const attn_exec *exec, bench_result *results, io_error *error) {
    track *tracks = calloc((size_t)n, sizeof *tracks);
    if (!tracks) return io_no_memory(error, "measuring", (size_t)n * sizeof *tracks);
    attn_exec with = *exec;
    with.workspace_size = 0;
    for (int i = 0; i < n; i++) {
        tracks[i].c = &cases[i];
        size_t bytes = cases[i].workspace ? cases[i].workspace(cases[i].call, exec->n_threads) : 0;
        if (bytes > with.workspace_size) with.workspace_size = bytes;
    }
    with.workspace = with.workspace_size ? aligned_alloc(64, (with.workspace_size + 127) / 64 * 64) : NULL;
    int failed = IO_OK;
    if (with.workspace_size && !with.workspace)
        failed = io_no_memory(error, "the workspace", with.workspace_size);
    else
        failed = in_turns(tracks, n, seconds, &with, error);
    for (int i = 0; i < n && !failed; i++) results[i] = summarise(&tracks[i]);
    free(with.workspace);
    free(tracks);
    return failed;
}
