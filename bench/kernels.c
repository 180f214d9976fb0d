/* SPDX-License-Identifier: Apache-2.0 */
/* How fast the kernels are, as a fraction of what the machine can do at that moment: every repetition of a problem stands between
 * two bursts of multiply-adds in registers and is compared with their mean. The fraction is the median over all repetitions.
 *
 *     bench [-t THREADS] [-s SECONDS] [PROBLEM ...]        ATTN_ISA lowers the instruction set
 *
 * A problem is a string: attention:b1h32k8q2048s2048d128,f32,causal[,window256][,backward], additive:b4q128s512d256,f32[,backward].
 * Further words: sinks, dropout (of a tenth), cosine, relu2, sparsemax, entmax15, entmax, hardmax.
 * Sizes left out are 1; k is the number of key heads (those of q), v the value size (that of q and k). */
#define _POSIX_C_SOURCE 200809L
#include "src/kernels/kernels.h"

#include <attn/attn.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *const default_problems[] = {
    "attention:b1h1q2048s2048d128,f32",
    "attention:b1h1q2048s2048d64,f32",
    "attention:b1h8k2q2048s2048d128,f32,causal",
    "attention:b2h12q512s512d64,f32",
    "attention:b1h2q4096s4096d64,f32,causal,window256",
    "attention:b1h1q1024s1024d128,f64",
    "attention:b1h1q1024s1024d64,f64",
    "attention:b1h1q2048s2048d128,f32,backward",
    "attention:b1h1q2048s2048d64,f32,backward",
    "attention:b1h8k2q1024s1024d128,f32,causal,backward",
    "attention:b1h1q1024s1024d64,f64,backward",
    "additive:b1q128s512d256,f32",
    "additive:b1q128s512d256,f32,backward",
};

static double read_clock(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
static double now(void) { return read_clock(CLOCK_MONOTONIC); }
/* One thread's repetitions are timed in its own processor time: what others do on the machine meanwhile does not count. */
static double busy(const attn_exec *exec) { return exec->n_threads > 1 ? now() : read_clock(CLOCK_THREAD_CPUTIME_ID); }

/* ---- problems ---------------------------------------------------------------------------------------------- */

typedef struct problem {
    const char *name;
    int32_t dtype, score;
    int64_t b, h, k, q, s, d, v, window;
    int32_t weighting;
    bool causal, backward, sinks, dropout;
} problem;

static int64_t *size_field(problem *p, char letter) {
    switch (letter) {
    case 'b': return &p->b;
    case 'h': return &p->h;
    case 'k': return &p->k;
    case 'q': return &p->q;
    case 's': return &p->s;
    case 'd': return &p->d;
    case 'v': return &p->v;
    default: return NULL;
    }
}

static const struct {
    const char *name;
    int32_t number;
} weightings[] = { { "relu2", ATTN_WEIGHT_RELU2 },
                   { "sparsemax", ATTN_WEIGHT_SPARSEMAX },
                   { "entmax15", ATTN_WEIGHT_ENTMAX15 },
                   { "entmax", ATTN_WEIGHT_ENTMAX },
                   { "hardmax", ATTN_WEIGHT_HARDMAX } };

static bool parse_word(problem *p, const char *word) {
    char *end;
    if (!strcmp(word, "f32")) return p->dtype = ATTN_F32, true;
    if (!strcmp(word, "f64")) return p->dtype = ATTN_F64, true;
    if (!strcmp(word, "causal")) return p->causal = true;
    if (!strcmp(word, "backward")) return p->backward = true;
    if (!strcmp(word, "sinks")) return p->sinks = true;
    if (!strcmp(word, "dropout")) return p->dropout = true;
    if (!strcmp(word, "cosine")) return p->score = ATTN_COSINE, true;
    for (int i = 0; i < 5; i++)
        if (!strcmp(word, weightings[i].name)) return p->weighting = weightings[i].number, true;
    if (strncmp(word, "window", 6)) return false;
    p->window = strtoll(word + 6, &end, 10);
    return *end == 0 && p->window > 0;
}

static bool parse(problem *p, const char *text) {
    char copy[256], *rest, *at;
    *p = (problem){ .name = text, .b = 1, .h = 1, .q = 1, .s = 1, .d = 1 };
    if (strlen(text) >= sizeof copy) return false;
    strcpy(copy, text);
    at = strtok_r(copy, ":", &rest);
    if (at && !strcmp(at, "additive"))
        p->score = ATTN_ADDITIVE;
    else if (!at || strcmp(at, "attention"))
        return false;
    at = strtok_r(NULL, ",", &rest);
    while (at && *at) {
        int64_t *size = size_field(p, *at);
        if (!size || (*size = strtoll(at + 1, &at, 10)) <= 0) return false;
    }
    while ((at = strtok_r(NULL, ",", &rest)))
        if (!parse_word(p, at)) return false;
    if (!p->k) p->k = p->h;
    if (!p->v) p->v = p->d;
    return true;
}

/* Pairs of a query and a key that it sees. */
static double live_pairs(const problem *p) {
    double pairs = 0;
    for (int64_t i = 0; i < p->q; i++) {
        int64_t position = i + p->s - p->q, begin = 0, end = p->causal ? position + 1 : p->s;
        if (p->window && position - p->window + 1 > begin) begin = position - p->window + 1;
        if (p->window && position + 1 < end) end = position + 1;
        if (end > begin) pairs += (double)(end - begin);
    }
    return pairs * (double)(p->b * p->h);
}

/* dot: 2 flops for each of d and v; the backward is 2.5 times that. additive: 2 per element, as a measure. */
static double flops(const problem *p) {
    double forward = 2 * live_pairs(p) * (double)(p->d + p->v);
    return p->backward ? 2.5 * forward : forward;
}

/* ---- running ----------------------------------------------------------------------------------------------- */

typedef struct call {
    attn_attention_args args;
    attn_attention_grads grads;
    bool backward;
    void *owned[16];
    int n_owned;
} call;

static attn_tensor tensor(call *c, int32_t dtype, int64_t b, int64_t h, int64_t s, int64_t d, bool random) {
    int64_t n = b * h * s * d;
    size_t size = dtype == ATTN_F64 ? sizeof(double) : sizeof(float);
    void *data = aligned_alloc(64, ((size_t)n * size + 63) / 64 * 64);
    if (!data) exit(5);
    c->owned[c->n_owned++] = data;
    for (int64_t i = 0; i < n; i++) {
        double x = 0;
        for (int k = 0; random && k < 4; k++) x += (double)rand() / RAND_MAX - 0.5;
        if (dtype == ATTN_F64)
            ((double *)data)[i] = x * 1.73;
        else
            ((float *)data)[i] = (float)(x * 1.73);
    }
    return attn_bhsd(dtype, data, b, h, s, d);
}

static call *prepare(const problem *p) {
    call *c = calloc(1, sizeof *c);
    if (!c) exit(5);
    c->backward = p->backward;
    c->args = (attn_attention_args){ .q = tensor(c, p->dtype, p->b, p->h, p->q, p->d, true),
                                     .k = tensor(c, p->dtype, p->b, p->k, p->s, p->d, true),
                                     .v = tensor(c, p->dtype, p->b, p->k, p->s, p->v, true),
                                     .out = tensor(c, p->dtype, p->b, p->h, p->q, p->v, false),
                                     .score = p->score,
                                     .causal = p->causal ? ATTN_CAUSAL : ATTN_NOT_CAUSAL };
    if (p->window) {
        c->args.flags |= ATTN_WINDOW;
        c->args.window[0] = p->window - 1;
    }
    if (p->score == ATTN_ADDITIVE) {
        c->args.score_weight = tensor(c, p->dtype, 1, 1, 1, p->d, true);
        c->args.score_weight = attn_dense(p->dtype, c->args.score_weight.data, 1, &p->d);
    }
    c->args.weighting = p->weighting;
    if (p->dropout) c->args.dropout = 0.1;
    if (p->sinks) c->args.sinks = attn_dense(p->dtype, tensor(c, p->dtype, 1, 1, 1, p->h, true).data, 1, &p->h);
    if (!p->backward) return c;
    if (p->weighting == ATTN_WEIGHT_SOFTMAX) {
        attn_tensor lse = tensor(c, p->dtype, 1, p->b, p->h, p->q, false);
        c->args.see.lse = attn_dense(p->dtype, lse.data, 3, (const int64_t[]){ p->b, p->h, p->q });
    }
    c->grads = (attn_attention_grads){ .dout = tensor(c, p->dtype, p->b, p->h, p->q, p->v, true),
                                       .dq = tensor(c, p->dtype, p->b, p->h, p->q, p->d, false),
                                       .dk = tensor(c, p->dtype, p->b, p->k, p->s, p->d, false),
                                       .dv = tensor(c, p->dtype, p->b, p->k, p->s, p->v, false) };
    if (attn_attention(&c->args, NULL)) exit(2);
    return c;
}

static void release(call *c) {
    while (c->n_owned) free(c->owned[--c->n_owned]);
    free(c);
}

/* GFLOP/s of one burst of some 100 us. */
static double measure_peak(const attn_attention_kernels *k) {
    static volatile double sink;
    const int64_t rounds = 20000;
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

static bool run(const problem *p, const attn_exec *exec, double seconds) {
    enum { MOST = 2000 };
    static double times[MOST], fractions[MOST];
    const attn_kernels *k = attn_kernels_for(p->dtype);
    int32_t threads = exec->n_threads > 1 ? exec->n_threads : 1;
    call *c = prepare(p);
    double peak = 0, before = measure_peak(&k->attention), end = now() + seconds;
    int n = 0;
    for (; n < MOST && (n < 3 || now() < end); n++) {
        double t = busy(exec);
        attn_status s = c->backward ? attn_attention_backward(&c->args, &c->grads, exec) : attn_attention(&c->args, exec);
        times[n] = busy(exec) - t;
        if (s) return fprintf(stderr, "%s: %s\n", p->name, attn_last_error()), false;
        double after = measure_peak(&k->attention), beside = (before + after) / 2 * threads;
        fractions[n] = flops(p) * 1e-9 / times[n] / beside;
        peak = fmax(peak, beside);
        before = after;
    }
    qsort(times, (size_t)n, sizeof times[0], by_value);
    qsort(fractions, (size_t)n, sizeof fractions[0], by_value);
    printf("%-52s %-7s %9.3f %9.3f %8.1f %8.1f %6.1f %%\n", p->name, k->isa, times[0] * 1e3, times[n / 2] * 1e3,
           flops(p) / times[0] * 1e-9, peak, 100 * fractions[n / 2]);
    fflush(stdout);
    release(c);
    return true;
}

int main(int argc, char **argv) {
    attn_exec exec = { 0 };
    double seconds = 1;
    int at = 1;
    for (; at + 1 < argc && argv[at][0] == '-'; at += 2) {
        if (!strcmp(argv[at], "-s"))
            seconds = atof(argv[at + 1]);
        else if (!strcmp(argv[at], "-t")) {
            if (attn_pool_open(&exec, atoi(argv[at + 1]))) return 2;
        } else
            return fprintf(stderr, "bench [-t THREADS] [-s SECONDS] [PROBLEM ...]\n"), 2;
    }
    int n = at < argc ? argc - at : (int)(sizeof default_problems / sizeof default_problems[0]);
    printf("%-52s %-7s %9s %9s %8s %8s %8s\n", "problem", "isa", "best ms", "median", "GFLOP/s", "peak", "of peak");
    for (int i = 0; i < n; i++) {
        problem p;
        const char *text = at < argc ? argv[at + i] : default_problems[i];
        if (!parse(&p, text)) return fprintf(stderr, "%s: no such problem\n", text), 2;
        if (!run(&p, &exec, seconds)) return 2;
    }
    if (exec.pool) attn_pool_close(&exec);
    return 0;
}
