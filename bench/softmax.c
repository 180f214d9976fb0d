/* SPDX-License-Identifier: Apache-2.0 */
/* How fast softmax's rows are, as a fraction of copying the same memory at that moment: every repetition of a problem stands between
 * two copies (memcpy of x to y) and is compared with their mean. The fraction is the median over all repetitions.
 *
 *     bench_softmax [-t THREADS] [-s SECONDS] [PROBLEM ...]        ATTN_ISA lowers the instruction set
 *
 * A problem is a string: softmax:r65536c128,f32[,axis0][,in-place][,backward][,log|sparsemax|entmax15|entmax|gumbel], cross-entropy:n4096c32768,f32. Bytes are what is
 * read and written once; gigabytes per second are those of the best repetition. */
#define _POSIX_C_SOURCE 200809L
#include <attn/attn.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *const default_problems[] = {
    "softmax:r65536c128,f32",
    "softmax:r8192c1024,f32",
    "softmax:r4096c32768,f32",
    "softmax:r1c128256,f32",
    "softmax:r65536c128,f32,in-place",
    "softmax:r4096c4096,f32,axis0",
    "softmax:r65536c128,f32,log",
    "softmax:r8192c1024,f64",
    "softmax:r65536c128,f32,backward",
    "cross-entropy:n4096c32768,f32",
    "softmax:r65536c128,f32,sparsemax",
    "softmax:r65536c128,f32,entmax15",
    "softmax:r65536c128,f32,entmax",
    "softmax:r65536c128,f32,gumbel",
    "softmax:r4096c32768,f32,sparsemax",
    "softmax:r4096c32768,f32,entmax15",
    "softmax:r65536c128,f32,backward,sparsemax",
    "softmax:r65536c128,f32,backward,entmax15",
};
enum { MOST_REPETITIONS = 2000, DEFAULT_SECONDS = 2 };

/* One thread's repetitions are timed in its own processor time: what others do on the machine meanwhile does not count. */
static clockid_t timer = CLOCK_MONOTONIC;
static double now(void) {
    struct timespec t;
    clock_gettime(timer, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- problems ---------------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    int32_t op;
} ops[] = { { "log", ATTN_LOG_SOFTMAX },
            { "sparsemax", ATTN_SPARSEMAX },
            { "entmax15", ATTN_ENTMAX15 },
            { "entmax", ATTN_ENTMAX },
            { "gumbel", ATTN_GUMBEL_SOFTMAX } };

typedef struct problem {
    bool cross_entropy, axis0, in_place, backward;
    int32_t op, dtype;
    int64_t rows, columns;
    size_t bytes; /* of x */
    void *x, *y, *dy;
    int64_t *labels;
    double loss;
} problem;

static bool has(const char *text, const char *option) {
    const char *at = strstr(text, option);
    return at && at[-1] == ',' && (at[strlen(option)] == 0 || at[strlen(option)] == ',');
}

static bool read_problem(const char *text, problem *p) {
    long long rows = 0, columns = 0;
    *p = (problem){ .cross_entropy = strncmp(text, "cross-entropy:", 14) == 0 };
    int found = p->cross_entropy ? sscanf(text, "cross-entropy:n%lldc%lld,", &rows, &columns)
                                 : sscanf(text, "softmax:r%lldc%lld,", &rows, &columns);
    if (found != 2 || rows < 1 || columns < 1 || rows > 1 << 24 || columns > 1 << 24) return false;
    p->rows = rows, p->columns = columns;
    p->axis0 = has(text, "axis0"), p->in_place = has(text, "in-place");
    p->backward = has(text, "backward");
    p->op = ATTN_SOFTMAX;
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (has(text, ops[i].name)) p->op = ops[i].op;
    if (!has(text, "f32") && !has(text, "f64")) return false;
    p->dtype = has(text, "f64") ? ATTN_F64 : ATTN_F32;
    p->bytes = (size_t)rows * (size_t)columns * (p->dtype == ATTN_F64 ? 8 : 4);
    return true;
}

static void *filled(const problem *p) {
    void *data = malloc(p->bytes);
    uint64_t state = 1;
    for (int64_t i = 0; data && i < p->rows * p->columns; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        double x = (double)(state >> 40) * 0x1p-22 - 2; /* from -2 to 2 */
        if (p->dtype == ATTN_F64)
            ((double *)data)[i] = x;
        else
            ((float *)data)[i] = (float)x;
    }
    return data;
}

static bool prepare(problem *p) {
    p->x = filled(p), p->y = filled(p);
    if (p->backward) p->dy = filled(p);
    p->labels = malloc((size_t)p->rows * sizeof *p->labels);
    for (int64_t i = 0; p->labels && i < p->rows; i++) p->labels[i] = i * 7919 % p->columns;
    return p->x && p->y && p->labels && (!p->backward || p->dy);
}

static attn_tensor view(const problem *p, void *data) {
    attn_tensor t = attn_dense(p->dtype, data, 2, (const int64_t[]){ p->rows, p->columns });
    return p->axis0 ? attn_axis_last(t, 0) : t;
}

static attn_status run(problem *p, const attn_exec *exec) {
    attn_softmax_args a = { .op = p->op, .x = view(p, p->x), .alpha = p->op == ATTN_ENTMAX ? 1.25 : 0 };
    a.y = view(p, p->in_place ? p->x : p->y);
    if (p->backward) {
        attn_softmax_grads g = { .dy = view(p, p->dy), .dx = view(p, p->x) };
        return attn_softmax_backward(&a, &g, exec);
    }
    if (!p->cross_entropy) return attn_softmax(&a, exec);
    attn_tensor labels = attn_dense(ATTN_I64, p->labels, 1, &p->rows), loss = { .data = &p->loss, .dtype = ATTN_F64 };
    attn_cross_entropy_args c = { .logits = view(p, p->x), .labels = labels, .loss = loss, .dlogits = view(p, p->y) };
    return attn_cross_entropy(&c, exec);
}

/* ---- measuring ------------------------------------------------------------------------------------------- */

typedef struct copy_job {
    problem *p;
    int32_t parts;
} copy_job;

static void copy_part(void *job, int32_t part) {
    const copy_job *c = job;
    size_t size = c->p->bytes / (size_t)c->parts, at = size * (size_t)part;
    memcpy((char *)c->p->y + at, (char *)c->p->x + at, size);
}

static double time_copy(problem *p, const attn_exec *exec) {
    copy_job job = { p, exec->n_threads };
    double start = now();
    if (job.parts > 1)
        exec->parallel_for(exec->pool, job.parts, copy_part, &job);
    else
        copy_part(&job, 0);
    return now() - start;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int measure(const char *text, const attn_exec *exec, double seconds) {
    static double fraction[MOST_REPETITIONS];
    problem p;
    if (!read_problem(text, &p) || !prepare(&p)) {
        fprintf(stderr, "bench_softmax: %s is no problem, or there is no memory for it\n", text);
        return 1;
    }
    double best = 1e30, best_copy = 1e30, begin = now(), before = time_copy(&p, exec);
    double bytes = (double)p.bytes * (p.backward ? 3 : 2);
    int n = 0;
    while (n < MOST_REPETITIONS && (n < 3 || now() - begin < seconds)) {
        double start = now();
        if (run(&p, exec) != ATTN_OK) return fprintf(stderr, "bench_softmax: %s: %s\n", text, attn_last_error()), 1;
        double took = now() - start, after = time_copy(&p, exec);
        fraction[n++] = bytes / took / (2 * (double)p.bytes / ((before + after) / 2));
        before = after;
        if (took < best) best = took;
        if (after < best_copy) best_copy = after;
    }
    qsort(fraction, (size_t)n, sizeof *fraction, ascending);
    printf("%-42s %-9s %2d threads %9.3f ms %7.1f GB/s, copy %7.1f GB/s, median %5.1f %% of copy\n", text, attn_isa(),
           (int)exec->n_threads, best * 1e3, bytes / best * 1e-9, 2 * (double)p.bytes / best_copy * 1e-9, 100 * fraction[n / 2]);
    free(p.x), free(p.y), free(p.dy), free(p.labels);
    return 0;
}

int main(int argc, char **argv) {
    double seconds = DEFAULT_SECONDS;
    int32_t threads = 1;
    int at = 1, failed = 0;
    for (; at + 1 < argc && argv[at][0] == '-'; at += 2) {
        if (argv[at][1] == 's') seconds = atof(argv[at + 1]);
        if (argv[at][1] == 't') threads = atoi(argv[at + 1]);
    }
    attn_exec exec = { 0 };
    if (threads == 1) timer = CLOCK_THREAD_CPUTIME_ID;
    if (attn_pool_open(&exec, threads) != ATTN_OK) return fprintf(stderr, "bench_softmax: %s\n", attn_last_error()), 1;
    if (at < argc)
        for (; at < argc; at++) failed |= measure(argv[at], &exec, seconds);
    else
        for (size_t i = 0; i < sizeof default_problems / sizeof *default_problems; i++)
            failed |= measure(default_problems[i], &exec, seconds);
    attn_pool_close(&exec);
    return failed;
}
