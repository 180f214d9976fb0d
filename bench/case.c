/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of cases, and which file knows which kind. See case.h. */
#include "case.h"

#include <stdlib.h>
#include <string.h>

#include "nearest.h"

static const struct {
    const char *name;
    int (*open)(bench_problem *p, bench_case *c, io_error *error);
} kinds[] = { { "attention", bench_attention },
              { "additive", bench_attention },
              { "softmax", bench_rows },
              { "cross-entropy", bench_rows },
              { "linear-cross-entropy", bench_linear_loss },
              { "gemm", bench_product } };
enum { N_KINDS = sizeof kinds / sizeof *kinds };

void *bench_memory(bench_case *c, double bytes) {
    void *memory = NULL;
    if (c->failed || c->n_blocks == BENCH_MOST_BLOCKS || bytes > 1e12 ||
        !(memory = aligned_alloc(64, ((size_t)bytes + 127) / 64 * 64))) {
        c->failed = true;
        return NULL;
    }
    c->size += (size_t)bytes;
    return c->block[c->n_blocks++] = memory;
}

static double element_size(int32_t dtype) {
    return dtype == ATTN_F64 || dtype == ATTN_I64 ? 8 : dtype == ATTN_F32 || dtype == ATTN_I32 ? 4 : 2;
}

attn_tensor bench_output(bench_case *c, int32_t dtype, int32_t rank, const int64_t *shape) {
    double n = 1;
    for (int32_t i = 0; i < rank; i++) n *= (double)shape[i];
    void *data = bench_memory(c, n * element_size(dtype));
    return data ? attn_dense(dtype, data, rank, shape) : (attn_tensor){ .dtype = dtype };
}

/* 32 random bits: a linear congruential generator modulo 2^64 (Knuth's), of which the low bits are left out. */
static uint32_t draw(bench_case *c) {
    c->random = c->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(c->random >> 32);
}

attn_tensor bench_tensor(bench_case *c, int32_t dtype, int32_t rank, const int64_t *shape) {
    attn_tensor t = bench_output(c, dtype, rank, shape);
    int64_t n = 1;
    for (int32_t i = 0; t.data && i < rank; i++) n *= shape[i];
    for (int64_t i = 0; t.data && i < n; i++) {
        uint32_t bits = draw(c);
        /* the sum of four bytes is nearly normal, with deviation 147.8 */
        double x = ((double)((bits & 255) + (bits >> 8 & 255) + (bits >> 16 & 255) + (bits >> 24)) - 510) / 147.8;
        switch (dtype) {
        case ATTN_F32: ((float *)t.data)[i] = (float)x; break;
        case ATTN_F64: ((double *)t.data)[i] = x; break;
        case ATTN_BF16: ((uint16_t *)t.data)[i] = (uint16_t)(0x3f00 | (bits & 0x807f)); break;
        default: ((uint16_t *)t.data)[i] = (uint16_t)(0x3800 | (bits & 0x83ff)); break;
        }
    }
    return t;
}

attn_tensor bench_labels(bench_case *c, int64_t n, int64_t n_classes) {
    attn_tensor t = bench_output(c, ATTN_I64, 1, &n);
    for (int64_t i = 0; t.data && i < n; i++) ((int64_t *)t.data)[i] = i * 7919 % n_classes;
    return t;
}

attn_tensor bench_mask(bench_case *c, int64_t rows, int64_t columns) {
    attn_tensor t = bench_output(c, ATTN_BOOL, 2, (const int64_t[]){ rows, columns });
    for (int64_t i = 0; t.data && i < rows * columns; i++) ((uint8_t *)t.data)[i] = i * 7919 % 8191 >= 1024;
    return t;
}

static size_t find_kind(const bench_problem *p) {
    size_t i = 0;
    while (i < N_KINDS && strcmp(p->kind, kinds[i].name) != 0) i++;
    return i;
}

int bench_case_known(const bench_problem *p, io_error *error) {
    if (find_kind(p) < N_KINDS) return IO_OK;
    const char *names[N_KINDS];
    for (size_t i = 0; i < N_KINDS; i++) names[i] = kinds[i].name;
    const char *near = nearest(p->kind, names, N_KINDS);
    return io_fail(error, IO_BAD_USAGE, "%s: there is no problem '%s'%s%s%s; 'attn bench --help' lists them", p->text, p->kind,
                   near ? "; did you mean '" : "", near ? near : "", near ? "'" : "");
}

int bench_case_open(bench_case *c, const char *text, io_error *error) {
    bench_problem p;
    *c = (bench_case){ .text = text, .random = 1 };
    int failed = bench_problem_read(&p, text, error);
    c->dtype = p.dtype;
    if (!failed) failed = bench_case_known(&p, error);
    if (!failed) failed = kinds[find_kind(&p)].open(&p, c, error);
    if (!failed) failed = bench_problem_done(&p, error);
    if (!failed && c->failed) failed = io_fail(error, IO_NO_ROOM, "%s: out of memory", text);
    if (failed) bench_case_close(c);
    return failed;
}

void bench_case_close(bench_case *c) {
    while (c->n_blocks) free(c->block[--c->n_blocks]);
    *c = (bench_case){ 0 };
}
