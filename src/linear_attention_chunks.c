/* SPDX-License-Identifier: Apache-2.0 */
/* Linear attention by chunks: matrix products in place of the recurrence (Yang et al. 2024, with their UT transform). S is the
 * state before a chunk, rows i and j are its tokens, G_i the sum of its decays up to and with i, D_ij = exp(G_i - G_j), and W is V
 * where there is no beta:
 *
 *     A_ij = -beta_i (k_i . k_j) D_ij, j < i        W = diag(beta) (V - diag(exp G) K S) + A W, solved row by row
 *     P_ij = (q_i . k_j) D_ij, j <= i               O = scale (diag(exp G) Q S + P W)
 *                                                   S = exp(G_n) S + (diag(exp(G_n - G_j)) K)^T W
 *
 * Rows are multiplied up to the diagonal and no further: what a later token holds, NaN or infinity, does not meet an earlier
 * one. */
#include "linear_attention.h"

#include "arena.h"
#include "operand.h"
#include "product.h"
#include "walk.h"

#include <math.h>
#include <string.h>

/* Rows of a triangular product that share one product to the left of the diagonal's block. A decay below FORGOTTEN is one: its
 * exponential is 0 in either type, and sums of it stay exact enough. */
enum { ROWS = 8, FORGOTTEN = -1000 };

typedef struct chunks_run {
    const attn_linear_plan *p;
    const attn_kernels *k;
    int64_t size; /* of an element */
} chunks_run;

/* What a worker has for itself; n tokens of the chunk at hand. */
typedef struct chunk_memory {
    char *state;        /* [key_dim][value_dim] */
    char *q, *keys;     /* [n][key_dim] */
    char *w, *out;      /* [n][value_dim] */
    char *cross, *read; /* A and P [n][LINEAR_CHUNK] */
    char *panels;       /* the keys, as the right side of a product */
    double *log, *beta; /* G [n]; [n] */
    void *product;
    int64_t n;
} chunk_memory;

static int64_t tokens_at_most(const attn_linear_plan *p) { return p->length < LINEAR_CHUNK ? p->length : LINEAR_CHUNK; }

/* c [m, n] = a b, or c += a b; b's rows are dense, n apart. */
static attn_matmul_block product_of(const chunks_run *r, int64_t m, int64_t n, int64_t k, const void *a, int64_t a_row,
                                    int64_t a_col, const void *b, void *c, bool accumulate) {
    const int64_t nr = r->k->matmul.nr;
    return (attn_matmul_block){ .m = m,
                                .n = n,
                                .k = k,
                                .a = a,
                                .a_row = a_row,
                                .a_col = a_col,
                                .b = b,
                                .b_panel = nr,
                                .b_row = n,
                                .c = c,
                                .c_row = n,
                                .c_col = 1,
                                .accumulate = accumulate };
}

/* to [n][LINEAR_CHUNK] = rows keys^T */
static attn_matmul_block scores_of(const chunks_run *r, int64_t n, const char *rows, const char *panels, char *to) {
    const int64_t dk = r->p->key_dim, nr = r->k->matmul.nr;
    return (attn_matmul_block){ .m = n,
                                .n = n,
                                .k = dk,
                                .a = rows,
                                .a_row = dk,
                                .a_col = 1,
                                .b = panels,
                                .b_panel = dk * nr,
                                .b_row = nr,
                                .c = to,
                                .c_row = LINEAR_CHUNK,
                                .c_col = 1 };
}

static size_t product_bytes(const chunks_run *r) {
    const int64_t dk = r->p->key_dim, dv = r->p->value_dim, n = tokens_at_most(r->p);
    const attn_matmul_block products[] = { product_of(r, n, dv, dk, NULL, dk, 1, NULL, NULL, true),
                                           product_of(r, ROWS, dv, n, NULL, LINEAR_CHUNK, 1, NULL, NULL, true),
                                           product_of(r, dk, dv, n, NULL, 1, dk, NULL, NULL, true),
                                           scores_of(r, n, NULL, NULL, NULL) };
    size_t most = 0;
    for (size_t i = 0; i < sizeof products / sizeof *products; i++) {
        size_t bytes = attn_multiply_scratch(r->k, products[i]);
        if (most < bytes) most = bytes;
    }
    return most;
}

static chunk_memory lay_out(const chunks_run *r, attn_arena *at) {
    const int64_t dk = r->p->key_dim, dv = r->p->value_dim, n = tokens_at_most(r->p), nr = r->k->matmul.nr;
    const size_t size = (size_t)r->size;
    chunk_memory m = { .state = attn_take(at, dk, dv, size) };
    m.q = attn_take(at, n, dk, size);
    m.keys = attn_take(at, n, dk, size);
    m.w = attn_take(at, n, dv, size);
    m.out = attn_take(at, n, dv, size);
    m.cross = attn_take(at, n, LINEAR_CHUNK, size);
    m.read = attn_take(at, n, LINEAR_CHUNK, size);
    m.panels = attn_take(at, (n + nr - 1) / nr * nr, dk, size);
    m.log = attn_take(at, n, 1, sizeof(double));
    m.beta = attn_take(at, n, 1, sizeof(double));
    m.product = attn_take(at, (int64_t)product_bytes(r), 1, 1);
    return m;
}

static chunks_run run_of(const attn_linear_plan *p, const attn_kernels *k) {
    return (chunks_run){ .p = p, .k = k, .size = (int64_t)attn_dtype_size(k->dtype) };
}

attn_need attn_linear_chunks_need(const attn_linear_plan *p, const attn_kernels *k) {
    const chunks_run r = run_of(p, k);
    attn_arena count = { 0 };
    lay_out(&r, &count);
    return (attn_need){ .per_worker = count.used };
}

/* ---- in and out of dense memory ------------------------------------------------------------------------------- */

/* Rows [begin, begin + n) of a tensor at (batch, head), to or from [n][columns]. */
static void move_rows(const chunks_run *r, const attn_tensor *t, int64_t batch, int64_t head, int64_t begin, int64_t n,
                      char *dense, bool in) {
    const int64_t columns = t->shape[3];
    for (int64_t i = 0; i < n; i++) {
        void *row = attn_at(t, batch * t->stride[0] + head * t->stride[1] + (begin + i) * t->stride[2]);
        char *at = dense + i * columns * r->size;
        if (in)
            attn_copy_strided((size_t)r->size, columns, row, t->stride[3], at, 1);
        else
            attn_copy_strided((size_t)r->size, columns, at, 1, row, t->stride[3]);
    }
}

static double token_of(const attn_tensor *t, int64_t batch, int64_t head, int64_t i) {
    return ref_load(t->data, t->dtype, batch * t->stride[0] + head * t->stride[1] + i * t->stride[2]);
}

static void load_gates(const chunks_run *r, int64_t batch, int64_t head, int64_t begin, chunk_memory *m) {
    double sum = 0;
    for (int64_t i = 0; i < m->n; i++) {
        double log = r->p->gated ? token_of(&r->p->a->decay, batch, head, begin + i) : 0;
        sum += log < FORGOTTEN ? FORGOTTEN : log;
        m->log[i] = sum;
        m->beta[i] = r->p->delta ? token_of(&r->p->a->beta, batch, head, begin + i) : 1;
    }
}

static void times(const chunks_run *r, int64_t n, double factor, char *row) { r->k->softmax.multiply(n, row, factor, row); }

/* ---- a chunk -------------------------------------------------------------------------------------------------------- */

/* to [n][value_dim] += the triangle of a [n][LINEAR_CHUNK] times w, with `diagonal` or without. to may be w where it is without:
 * a row is done before one reads it. */
static void add_triangle(const chunks_run *r, const chunk_memory *m, const char *a, bool diagonal, const char *w, char *to) {
    const int64_t dv = r->p->value_dim, row = dv * r->size;
    for (int64_t begin = 0; begin < m->n; begin += ROWS) {
        const int64_t end = m->n - begin < ROWS ? m->n : begin + ROWS;
        if (begin > 0)
            attn_multiply(r->k,
                          product_of(r, end - begin, dv, begin, a + begin * LINEAR_CHUNK * r->size, LINEAR_CHUNK, 1, w,
                                     to + begin * row, true),
                          m->product);
        for (int64_t i = begin; i < end; i++) {
            const int64_t terms = i - begin + diagonal;
            const char *from = a + (i * LINEAR_CHUNK + begin) * r->size;
            if (terms > 0)
                attn_multiply(r->k, product_of(r, 1, dv, terms, from, LINEAR_CHUNK, 1, w + begin * row, to + i * row, true),
                              m->product);
        }
    }
}

/* Rows of scores, up to the diagonal: times D, and where `beta` is not NULL times -beta_i. */
static void weigh(const chunks_run *r, const chunk_memory *m, const double *beta, char *scores) {
    for (int64_t i = 0; i < m->n; i++) {
        char *row = scores + i * LINEAR_CHUNK * r->size;
        if (r->p->gated) r->k->vector.decay(i + 1, m->log[i], m->log, row);
        if (beta) times(r, i + 1, -beta[i], row);
    }
}

/* W in place of V: what is written with each key. */
static void solve(const chunks_run *r, const chunk_memory *m) {
    const int64_t dk = r->p->key_dim, dv = r->p->value_dim;
    attn_multiply(r->k, scores_of(r, m->n, m->keys, m->panels, m->cross), m->product);
    weigh(r, m, m->beta, m->cross);
    attn_multiply(r->k, product_of(r, m->n, dv, dk, m->keys, dk, 1, m->state, m->out, false), m->product);
    for (int64_t i = 0; i < m->n; i++) {
        char *w = m->w + i * dv * r->size;
        times(r, dv, m->beta[i], w);
        r->k->vector.add(dv, -m->beta[i] * exp(m->log[i]), m->out + i * dv * r->size, w);
    }
    add_triangle(r, m, m->cross, false, m->w, m->w);
}

/* out = scale (diag(exp G) Q S + P W) for the queries in m->q. */
static void read_out(const chunks_run *r, const chunk_memory *m) {
    const int64_t dk = r->p->key_dim, dv = r->p->value_dim;
    times(r, m->n * dk, r->p->scale, m->q);
    attn_multiply(r->k, product_of(r, m->n, dv, dk, m->q, dk, 1, m->state, m->out, false), m->product);
    if (r->p->gated)
        for (int64_t i = 0; i < m->n; i++) times(r, dv, exp(m->log[i]), m->out + i * dv * r->size);
    attn_multiply(r->k, scores_of(r, m->n, m->q, m->panels, m->read), m->product);
    weigh(r, m, NULL, m->read);
    add_triangle(r, m, m->read, true, m->w, m->out);
}

static void advance(const chunks_run *r, const chunk_memory *m) {
    const int64_t dk = r->p->key_dim, dv = r->p->value_dim;
    const double last = m->log[m->n - 1];
    if (r->p->gated) {
        for (int64_t i = 0; i < dk; i++) times(r, dv, exp(last), m->state + i * dv * r->size);
        for (int64_t j = 0; j < m->n; j++) times(r, dk, exp(last - m->log[j]), m->keys + j * dk * r->size);
    }
    attn_multiply(r->k, product_of(r, dk, dv, m->n, m->keys, 1, dk, m->w, m->state, true), m->product);
}

static void pack_keys(const chunks_run *r, const chunk_memory *m) {
    const int64_t dk = r->p->key_dim, nr = r->k->matmul.nr;
    for (int64_t j = 0; j < m->n; j += nr)
        r->k->matmul.pack(dk, m->n - j < nr ? m->n - j : nr, m->keys + j * dk * r->size, 1, dk, m->panels + j * dk * r->size);
}

static void head_item(void *context, int64_t item, void *scratch) {
    const chunks_run *r = context;
    const attn_linear_plan *p = r->p;
    const attn_linear_attention_args *a = p->a;
    const int64_t batch = item / p->kv_heads, head = item % p->kv_heads, dk = p->key_dim, dv = p->value_dim;
    chunk_memory m = lay_out(r, &(attn_arena){ .begin = scratch });
    if (dk * dv > 0) {
        memset(m.state, 0, (size_t)(dk * dv * r->size));
        if (attn_present(&a->past_state)) move_rows(r, &a->past_state, batch, head, 0, dk, m.state, true);
    }
    for (int64_t begin = 0; begin < p->length; begin += LINEAR_CHUNK) {
        m.n = p->length - begin < LINEAR_CHUNK ? p->length - begin : LINEAR_CHUNK;
        move_rows(r, &a->k, batch, head, begin, m.n, m.keys, true);
        move_rows(r, &a->v, batch, head, begin, m.n, m.w, true);
        load_gates(r, batch, head, begin, &m);
        pack_keys(r, &m);
        if (p->delta) solve(r, &m);
        for (int64_t h = head * p->group; h < (head + 1) * p->group; h++) {
            move_rows(r, &a->q, batch, h, begin, m.n, m.q, true);
            read_out(r, &m);
            move_rows(r, &a->out, batch, h, begin, m.n, m.out, false);
        }
        advance(r, &m);
    }
    if (attn_present(&a->state)) move_rows(r, &a->state, batch, head, 0, dk, m.state, false);
}

void attn_linear_chunks_run(const attn_linear_plan *p, const attn_kernels *k, int64_t n_items, attn_session *session) {
    chunks_run r = run_of(p, k);
    attn_session_run(session, n_items, head_item, &r);
}
