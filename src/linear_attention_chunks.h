/* SPDX-License-Identifier: Apache-2.0 */
/* What the chunks of linear attention share, forward and backward: a chunk's memory, and the products with it. */
#ifndef ATTN_LINEAR_ATTENTION_CHUNKS_H
#define ATTN_LINEAR_ATTENTION_CHUNKS_H

#include "arena.h"
#include "linear_attention.h"

/* Rows of a triangular product that share one product beside the diagonal's block. A decay below CHUNK_FORGOTTEN is one: its
 * exponential is 0 in either type, and sums of it stay exact enough. */
enum { CHUNK_ROWS = 8, CHUNK_FORGOTTEN = -1000 };

typedef struct attn_chunks {
    const attn_linear_plan *p;
    const attn_kernels *k;
    int64_t size; /* of an element */
} attn_chunks;

/* What a worker has for itself; n tokens of the chunk at hand. */
typedef struct attn_chunk {
    char *state;        /* [key_dim][value_dim] */
    char *q, *keys;     /* [n][key_dim] */
    char *w, *out;      /* [n][value_dim] */
    char *cross, *read; /* A and P [n][LINEAR_CHUNK] */
    char *panels;       /* the keys, as the right side of a product */
    double *log, *beta; /* G [n]; [n] */
    void *product;
    int64_t n;
} attn_chunk;

attn_chunks attn_chunks_of(const attn_linear_plan *p, const attn_kernels *k);
/* Of the longest chunk. */
int64_t attn_chunk_tokens(const attn_linear_plan *p);
attn_chunk attn_chunk_in(const attn_chunks *r, attn_arena *at);

/* c [m, n] = a b, or c += a b; b's rows are dense, n apart. */
attn_matmul_block attn_chunk_product(const attn_chunks *r, int64_t m, int64_t n, int64_t k, const void *a, int64_t a_row,
                                     int64_t a_col, const void *b, void *c, bool accumulate);
/* c [m, n] = rows [m][k] times the transposed of what was packed [n][k]; c's rows are c_row apart. */
attn_matmul_block attn_chunk_scores(const attn_chunks *r, int64_t m, int64_t n, int64_t k, const char *rows, const char *panels,
                                    char *c, int64_t c_row);
/* Dense [rows][columns], to be the transposed right side of products. Panels have room for whole ones. */
void attn_chunk_pack(const attn_chunks *r, int64_t rows, int64_t columns, const char *from, char *panels);

/* Rows [begin, begin + n) of a tensor at (batch, head), to or from [n][columns]. */
void attn_chunk_move(const attn_chunks *r, const attn_tensor *t, int64_t batch, int64_t head, int64_t begin, int64_t n,
                     char *dense, bool in);
/* A state of zeros where the tensor is absent. */
void attn_chunk_load_state(const attn_chunks *r, const attn_tensor *t, int64_t batch, int64_t head, char *state);
/* The chunk that begins with a token, m->state being what was before it: keys, panels, gates, and W in m->w. By the delta rules
 * m->cross is A; m->out is scratch. */
void attn_chunk_load(const attn_chunks *r, int64_t batch, int64_t head, int64_t begin, attn_chunk *m);
/* The state after it. The keys are no more themselves. */
void attn_chunk_advance(const attn_chunks *r, const attn_chunk *m);

void attn_chunk_times(const attn_chunks *r, int64_t n, double factor, char *row);
/* Rows of scores, up to the diagonal: times D, and where `beta` is not NULL times -beta_i. */
void attn_chunk_weigh(const attn_chunks *r, const attn_chunk *m, const double *beta, char *scores);
/* to [n][columns] += the lower triangle of a [n][LINEAR_CHUNK] times x, with `diagonal` or without. to may be x where it is
 * without: a row is done before one reads it. */
void attn_chunk_add_triangle(const attn_chunks *r, const attn_chunk *m, const char *a, bool diagonal, int64_t columns,
                             const char *x, char *to);

#endif
