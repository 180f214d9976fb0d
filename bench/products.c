/* SPDX-License-Identifier: Apache-2.0 */
/* How fast matrix products are, as a fraction of what the machine can do at that moment: every repetition of a problem stands
 * between two bursts of multiply-adds in registers and is compared with their mean. The fraction is the median of all repetitions.
 *
 *     bench_products [-t THREADS] [-s SECONDS] [PROBLEM ...]        ATTN_ISA lowers the instruction set
 *
 * A problem is a string: gemm:m1024n1024k1024,f32[,prepacked][,weight][,gradient][,gelu]. Plain: a [m, k] and b [k, n] are row-major.
 * weight: b is the transpose of [n, k], as models store it, with a bias. gradient: a is the transpose of [k, m], and c is added to.
 * Or linear-cross-entropy:n4096d512c32768,f32[,loss], loss and gradients to x, weight and bias: three products, logits, dx and dweight,
 * 6 n d c operations; with `loss` the loss alone, one product. */
#define _POSIX_C_SOURCE 200809L
#include "src/kernels/kernels.h"

#include <attn/ops.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Cubes, and the products of a small vision transformer's training: 16 pictures of 17 tokens, forward and backward. */
static const char *const default_problems[] = {
    "gemm:m128n128k128,f32",
    "gemm:m256n256k256,f32",
    "gemm:m512n512k512,f32",
    "gemm:m1024n1024k1024,f32",
    "gemm:m1024n1024k1024,f32,prepacked",
    "gemm:m512n512k512,f64",
    "gemm:m272n64k49,f32,weight,prepacked",
    "gemm:m272n192k64,f32,weight,prepacked",
    "gemm:m272n256k64,f32,weight,prepacked,gelu",
    "gemm:m272n64k256,f32,weight,prepacked",
    "gemm:m272n64k192,f32,prepacked",
    "gemm:m192n64k272,f32,gradient",
    "gemm:m256n64k272,f32,gradient",
    "gemm:m8n512k512,f32,weight,prepacked",
    "gemm:m64n512k512,f32,weight",
    "linear-cross-entropy:n4096d512c32768,f32",
    "linear-cross-entropy:n4096d512c32768,f32,loss",
};

static double read_clock(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
/* One thread's repetitions are timed in its own processor time: what others do on the machine meanwhile does not count. */
static double busy(const attn_exec *exec) { return read_clock(exec->n_threads > 1 ? CLOCK_MONOTONIC : CLOCK_THREAD_CPUTIME_ID); }

/* ---- problems ---------------------------------------------------------------------------------------------- */

typedef struct problem {
    int64_t m, n, k; /* of a linear cross-entropy: rows, classes, dim */
    int32_t dtype;
    bool prepacked, weight, gradient, gelu;
    bool linear, loss;
} problem;

static bool read_problem(const char *text, problem *p) {
    int used = 0;
    long long m = 0, n = 0, k = 0;
    *p = (problem){ .dtype = ATTN_F32 };
    p->linear = strncmp(text, "linear-", 7) == 0;
    int found = p->linear ? sscanf(text, "linear-cross-entropy:n%lldd%lldc%lld%n", &m, &k, &n, &used)
                          : sscanf(text, "gemm:m%lldn%lldk%lld%n", &m, &n, &k, &used);
    if (found != 3 || m < 1 || n < 1 || k < 1) return false;
    p->m = m;
    p->n = n;
    p->k = k;
    char copy[256], *rest;
    if (strlen(text) >= sizeof copy) return false;
    strcpy(copy, text + used);
    for (char *word = strtok_r(copy, ",", &rest); word; word = strtok_r(NULL, ",", &rest)) {
        if (!strcmp(word, "f64"))
            p->dtype = ATTN_F64;
        else if (!strcmp(word, "prepacked"))
            p->prepacked = true;
        else if (!strcmp(word, "weight"))
            p->weight = true;
        else if (!strcmp(word, "gradient"))
            p->gradient = true;
        else if (!strcmp(word, "gelu"))
            p->gelu = true;
        else if (!strcmp(word, "loss"))
            p->loss = true;
        else if (strcmp(word, "f32") != 0)
            return false;
    }
    return true;
}

static void *get_memory(size_t bytes) {
    void *memory = aligned_alloc(64, (bytes + 127) / 64 * 64);
    if (!memory) exit(5);
    return memory;
}

static attn_tensor random_matrix(int32_t dtype, int64_t rows, int64_t columns) {
    size_t n = (size_t)(rows * columns);
    void *data = get_memory(n * sizeof(double));
    for (size_t i = 0; i < n; i++) {
        double x = (double)rand() / RAND_MAX - 0.5;
        if (dtype == ATTN_F64)
            ((double *)data)[i] = x;
        else
            ((float *)data)[i] = (float)x;
    }
    return attn_dense(dtype, data, 2, (int64_t[]){ rows, columns });
}

/* What is repeated. */
typedef struct call {
    bool linear;
    attn_matmul_args product;
    attn_linear_cross_entropy_args loss;
    double flops;
} call;

static attn_matmul_args prepare_product(const problem *p) {
    attn_matmul_args a = { .c = random_matrix(p->dtype, p->m, p->n), .activation = p->gelu ? ATTN_GELU : ATTN_IDENTITY };
    a.a = p->gradient ? attn_transposed(random_matrix(p->dtype, p->k, p->m)) : random_matrix(p->dtype, p->m, p->k);
    a.b = p->weight ? attn_transposed(random_matrix(p->dtype, p->n, p->k)) : random_matrix(p->dtype, p->k, p->n);
    if (p->gradient) a.flags = ATTN_ACCUMULATE;
    if (p->weight) a.bias = attn_dense(p->dtype, random_matrix(p->dtype, 1, p->n).data, 1, &p->n);
    if (!p->prepacked) return a;
    size_t size = attn_matmul_packed_size(&a.b);
    void *packed = get_memory(size);
    if (attn_matmul_pack(&a.b, packed, size)) exit(2);
    a.packed = packed;
    return a;
}

static attn_linear_cross_entropy_args prepare_loss(const problem *p) {
    attn_linear_cross_entropy_args a = { .x = random_matrix(p->dtype, p->m, p->k),
                                         .weight = random_matrix(p->dtype, p->n, p->k) };
    int64_t *labels = get_memory((size_t)p->m * sizeof *labels), one = 1;
    for (int64_t i = 0; i < p->m; i++) labels[i] = i * 7919 % p->n;
    a.labels = attn_dense(ATTN_I64, labels, 1, &p->m);
    a.loss = attn_dense(ATTN_F64, get_memory(sizeof(double)), 1, &one);
    a.bias = attn_dense(p->dtype, random_matrix(p->dtype, 1, p->n).data, 1, &p->n);
    if (p->loss) return a;
    a.dx = random_matrix(p->dtype, p->m, p->k);
    a.dweight = random_matrix(p->dtype, p->n, p->k);
    a.dbias = attn_dense(p->dtype, random_matrix(p->dtype, 1, p->n).data, 1, &p->n);
    return a;
}

static call prepare(const problem *p) {
    call c = { .linear = p->linear, .flops = 2.0 * (double)p->m * (double)p->n * (double)p->k };
    if (p->linear)
        c.loss = prepare_loss(p);
    else
        c.product = prepare_product(p);
    if (p->linear && !p->loss) c.flops *= 3;
    return c;
}

static attn_status make(const call *c, const attn_exec *exec) {
    return c->linear ? attn_linear_cross_entropy(&c->loss, exec) : attn_matmul(&c->product, exec);
}
static size_t workspace_of(const call *c, int32_t threads) {
    return c->linear ? attn_linear_cross_entropy_workspace(&c->loss, threads) : attn_matmul_workspace(&c->product, threads);
}

static void release(const call *c) {
    const attn_linear_cross_entropy_args *l = &c->loss;
    void *const memory[] = {
        c->product.a.data, c->product.b.data, c->product.c.data, c->product.bias.data, (void *)c->product.packed,
        l->x.data,         l->weight.data,    l->bias.data,      l->labels.data,       l->loss.data,
        l->dx.data,        l->dweight.data,   l->dbias.data
    };
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) free(memory[i]);
}

/* ---- running ------------------------------------------------------------------------------------------------- */

/* GFLOP/s of one burst of some 20 us. */
static double measure_peak(const attn_attention_kernels *k) {
    static volatile double sink;
    const int64_t rounds = 4000;
    double t = read_clock(CLOCK_THREAD_CPUTIME_ID);
    sink = k->burst(rounds, 0.5);
    t = read_clock(CLOCK_THREAD_CPUTIME_ID) - t;
    (void)sink;
    return (double)(rounds * k->burst_flops) / t * 1e-9;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Small products are repeated within a measurement, so that reading the clock does not count. */
static bool run(const char *name, const problem *p, attn_exec *exec, double seconds) {
    enum { MOST = 4000 };
    static double times[MOST], fractions[MOST];
    const attn_kernels *k = attn_kernels_for(p->dtype);
    int32_t threads = exec->n_threads > 1 ? exec->n_threads : 1;
    call c = prepare(p);
    exec->workspace_size = workspace_of(&c, threads);
    exec->workspace = get_memory(exec->workspace_size);
    double flops = c.flops, peak = 0, before = measure_peak(&k->attention);
    double end = read_clock(CLOCK_MONOTONIC) + seconds;
    int n = 0, repeats = 1 + (int)(4e6 / flops);
    for (; n < MOST && (n < 3 || read_clock(CLOCK_MONOTONIC) < end); n++) {
        double t = busy(exec);
        for (int i = 0; i < repeats; i++)
            if (make(&c, exec)) return fprintf(stderr, "%s: %s\n", name, attn_last_error()), false;
        times[n] = (busy(exec) - t) / repeats;
        double after = measure_peak(&k->attention), beside = (before + after) / 2 * threads;
        fractions[n] = flops * 1e-9 / times[n] / beside;
        peak = fmax(peak, beside);
        before = after;
    }
    qsort(times, (size_t)n, sizeof times[0], by_value);
    qsort(fractions, (size_t)n, sizeof fractions[0], by_value);
    printf("%-46s %-7s %9.1f %9.1f %8.1f %8.1f %6.1f %%\n", name, k->isa, times[0] * 1e6, times[n / 2] * 1e6,
           flops / times[0] * 1e-9, peak, 100 * fractions[n / 2]);
    fflush(stdout);
    free(exec->workspace);
    release(&c);
    return true;
}

int main(int argc, char **argv) {
    attn_exec exec = { 0 };
    double seconds = 1;
    int at = 1;
    for (; at + 1 < argc && argv[at][0] == '-'; at += 2) {
        if (!strcmp(argv[at], "-s"))
            seconds = atof(argv[at + 1]);
        else if (strcmp(argv[at], "-t") != 0 || attn_pool_open(&exec, atoi(argv[at + 1])))
            return fprintf(stderr, "bench_products [-t THREADS] [-s SECONDS] [PROBLEM ...]\n"), 2;
    }
    int n = at < argc ? argc - at : (int)(sizeof default_problems / sizeof default_problems[0]);
    printf("%-46s %-7s %9s %9s %8s %8s %8s\n", "problem", "isa", "best us", "median", "GFLOP/s", "peak", "of peak");
    for (int i = 0; i < n; i++) {
        problem p;
        const char *text = at < argc ? argv[at + i] : default_problems[i];
        if (!read_problem(text, &p)) return fprintf(stderr, "%s: no such problem\n", text), 2;
        if (!run(text, &p, &exec, seconds)) return 2;
    }
    if (exec.pool) attn_pool_close(&exec);
    return 0;
}
