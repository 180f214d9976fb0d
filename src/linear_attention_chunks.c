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
#include "linear_attention_chunks.h"

#include "operand.h"
#include "product.h"
#include "walk.h"

#include <math.h>
#include <string.h>

int64_t attn_chunk_tokens(const attn_linear_plan *p) { return p->length < LINEAR_CHUNK ? p->length : LINEAR_CHUNK; }

attn_matmul_block attn_chunk_product(const attn_chunks *r, int64_t m, int64_t n, int64_t k, const void *a, int64_t a_row,
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

attn_matmul_block attn_chunk_scores(const attn_chunks *r, int64_t m, int64_t n, int64_t k, const char *rows, const char *panels,
                                    char *c, int64_t c_row) {
    const int64_t nr = r->k->matmul.nr;
    return (attn_matmul_block){ .m = m,
                                .n = n,
                                .k = k,
                                .a = rows,
                                .a_row = k,
                                .a_col = 1,
                                .b = panels,
                                .b_panel = k * nr,
                                .b_row = nr,
                                .c = c,
                                .c_row = c_row,
                                .c_col = 1 };
}

static int64_t largest(int64_t x, int64_t y) { return x > y ? x : y; }

/* Scratch grows with each extent. Backward multiplies whatever by whatever. */
static size_t product_bytes(const attn_chunks *r) {
    const int64_t dk = r->p->key_dim, dv = r->p->value_dim, n = attn_chunk_tokens(r->p);
    const int64_t rows = largest(n, dk), any = largest(rows, dv), columns = r->p->g ? any : dv, terms = r->p->g ? any : rows;
    const attn_matmul_block products[] = { attn_chunk_product(r, rows, columns, terms, NULL, terms, 1, NULL, NULL, true),
                                           attn_chunk_product(r, rows, columns, terms, NULL, 1, rows, NULL, NULL, true),
                                           attn_chunk_scores(r, rows, largest(n, columns), terms, NULL, NULL, NULL, 1) };
    size_t most = 0;
    for (size_t i = 0; i < sizeof products / sizeof *products; i++) {
        size_t bytes = attn_multiply_scratch(r->k, products[i]);
        if (most < bytes) most = bytes;
    }
    return most;
}

attn_chunk attn_chunk_in(const attn_chunks *r, attn_arena *at) {
    const int64_t dk = r->p->key_dim, dv = r->p->value_dim, n = attn_chunk_tokens(r->p), nr = r->k->matmul.nr;
    const size_t size = (size_t)r->size;
    attn_chunk m = { .state = attn_take(at, dk, dv, size) };
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

attn_chunks attn_chunks_of(const attn_linear_plan *p, const attn_kernels *k) {
    return (attn_chunks){ .p = p, .k = k, .size = (int64_t)attn_dtype_size(k->dtype) };
}

attn_need attn_linear_chunks_need(const attn_linear_plan *p, const attn_kernels *k) {
    const attn_chunks r = attn_chunks_of(p, k);
    attn_arena count = { 0 };
    attn_chunk_in(&r, &count);
    return (attn_need){ .per_worker = count.used };
}

/* ---- in and out of dense memory ------------------------------------------------------------------------------- */

void attn_chunk_move(const attn_chunks *r, const attn_tensor *t, int64_t batch, int64_t head, int64_t begin, int64_t n,
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

static void load_gates(const attn_chunks *r, int64_t batch, int64_t head, int64_t begin, attn_chunk *m) {
    double sum = 0;
    for (int64_t i = 0; i < m->n; i++) {
        double log = r->p->gated ? token_of(&r->p->a->decay, batch, head, begin + i) : 0;
        sum += log < CHUNK_FORGOTTEN ? CHUNK_FORGOTTEN : log;
        m->log[i] = sum;
        m->beta[i] = r->p->delta ? token_of(&r->p->a->beta, batch, head, begin + i) : 1;
    }
}

void attn_chunk_times(const attn_chunks *r, int64_t n, double factor, char *row) { r->k->softmax.multiply(n, row, factor, row); }

void attn_chunk_pack(const attn_chunks *r, int64_t rows, int64_t columns, const char *from, char *panels) {
    const int64_t nr = r->k->matmul.nr;
    for (int64_t j = 0; j < rows; j += nr)
        r->k->matmul.pack(columns, rows - j < nr ? rows - j : nr, from + j * columns * r->size, 1, columns,
                          panels + j * columns * r->size);
}

/* ---- a chunk -------------------------------------------------------------------------------------------------------- */

void attn_chunk_add_triangle(const attn_chunks *r, const attn_chunk *m, const char *a, bool diagonal, int64_t columns,
                             const char *x, char *to) {
    const int64_t row = columns * r->size;
    for (int64_t begin = 0; begin < m->n; begin += CHUNK_ROWS) {
        const int64_t end = m->n - begin < CHUNK_ROWS ? m->n : begin + CHUNK_ROWS;
        if (begin > 0)
            attn_multiply(r->k,
                          attn_chunk_product(r, end - begin, columns, begin, a + begin * LINEAR_CHUNK * r->size, LINEAR_CHUNK, 1,
                                             x, to + begin * row, true),
                          m->product);
        for (int64_t i = begin; i < end; i++) {
            const int64_t terms = i - begin + diagonal;
            const char *from = a + (i * LINEAR_CHUNK + begin) * r->size;
            if (terms > 0)
                attn_multiply(
                    r->k, attn_chunk_product(r, 1, columns, terms, from, LINEAR_CHUNK, 1, x + begin * row, to + i * row, true),
                    m->product);
        }
    }
}

/* Rows of scores, up to the diagonal: attn_chunk_times D, and where `beta` is not NULL attn_chunk_times -beta_i. */
void attn_chunk_weigh(const attn_chunks *r, const attn_chunk *m, const double *beta, char *scores) {
    for (int64_t i = 0; i < m->n; i++) {
        char *row = scores + i * LINEAR_CHUNK * r->size;
        if (r->p->gated) r->k->vector.decay(i + 1, m->log[i], m->log, row);
        if (beta) attn_chunk_times(r, i + 1, -beta[i], row);
    }
}

/* W in place of V: what is written with each key. */
static void solve(const attn_chunks *r, const attn_chunk *m) {
    const int64_t dk = r->p->key_dim, dv = r->p->value_dim;
    attn_multiply(r->k, attn_chunk_scores(r, m->n, m->n, dk, m->keys, m->panels, m->cross, LINEAR_CHUNK), m->product);
    attn_chunk_weigh(r, m, m->beta, m->cross);
    attn_multiply(r->k, attn_chunk_product(r, m->n, dv, dk, m->keys, dk, 1, m->state, m->out, false), m->product);
    for (int64_t i = 0; i < m->n; i++) {
        char *w = m->w + i * dv * r->size;
        attn_chunk_times(r, dv, m->beta[i], w);
        r->k->vector.add(dv, -m->beta[i] * exp(m->log[i]), m->out + i * dv * r->size, w);
    }
    attn_chunk_add_triangle(r, m, m->cross, false, dv, m->w, m->w);
}

/* out = scale (diag(exp G) Q S + P W) for the queries in m->q. */
static void read_out(const attn_chunks *r, const attn_chunk *m) {
    const int64_t dk = r->p->key_dim, dv = r->p->value_dim;
    attn_chunk_times(r, m->n * dk, r->p->scale, m->q);
    attn_multiply(r->k, attn_chunk_product(r, m->n, dv, dk, m->q, dk, 1, m->state, m->out, false), m->product);
    if (r->p->gated)
        for (int64_t i = 0; i < m->n; i++) attn_chunk_times(r, dv, exp(m->log[i]), m->out + i * dv * r->size);
    attn_multiply(r->k, attn_chunk_scores(r, m->n, m->n, dk, m->q, m->panels, m->read, LINEAR_CHUNK), m->product);
    attn_chunk_weigh(r, m, NULL, m->read);
    attn_chunk_add_triangle(r, m, m->read, true, dv, m->w, m->out);
}

void attn_chunk_advance(const attn_chunks *r, const attn_chunk *m) {
    const int64_t dk = r->p->key_dim, dv = r->p->value_dim;
    const double last = m->log[m->n - 1];
    if (r->p->gated) {
        for (int64_t i = 0; i < dk; i++) attn_chunk_times(r, dv, exp(last), m->state + i * dv * r->size);
        for (int64_t j = 0; j < m->n; j++) attn_chunk_times(r, dk, exp(last - m->log[j]), m->keys + j * dk * r->size);
    }
    attn_multiply(r->k, attn_chunk_product(r, dk, dv, m->n, m->keys, 1, dk, m->w, m->state, true), m->product);
}

void attn_chunk_load(const attn_chunks *r, int64_t batch, int64_t head, int64_t begin, attn_chunk *m) {
    m->n = r->p->length - begin < LINEAR_CHUNK ? r->p->length - begin : LINEAR_CHUNK;
    attn_chunk_move(r, &r->p->a->k, batch, head, begin, m->n, m->keys, true);
    attn_chunk_move(r, &r->p->a->v, batch, head, begin, m->n, m->w, true);
    load_gates(r, batch, head, begin, m);
    attn_chunk_pack(r, m->n, r->p->key_dim, m->keys, m->panels);
    if (r->p->delta) solve(r, m);
}

void attn_chunk_load_state(const attn_chunks *r, const attn_tensor *t, int64_t batch, int64_t head, char *state) {
    const int64_t dk = r->p->key_dim, dv = r->p->value_dim;
    if (dk * dv == 0) return;
    memset(state, 0, (size_t)(dk * dv * r->size));
    if (attn_present(t)) attn_chunk_move(r, t, batch, head, 0, dk, state, true);
}

static void head_item(void *context, int64_t item, void *scratch) {
    const attn_chunks *r = context;
    const attn_linear_plan *p = r->p;
    const attn_linear_attention_args *a = p->a;
    const int64_t batch = item / p->kv_heads, head = item % p->kv_heads;
    attn_chunk m = attn_chunk_in(r, &(attn_arena){ .begin = scratch });
    attn_chunk_load_state(r, &a->past_state, batch, head, m.state);
    for (int64_t begin = 0; begin < p->length; begin += LINEAR_CHUNK) {
        attn_chunk_load(r, batch, head, begin, &m);
        for (int64_t h = head * p->group; h < (head + 1) * p->group; h++) {
            attn_chunk_move(r, &a->q, batch, h, begin, m.n, m.q, true);
            read_out(r, &m);
            attn_chunk_move(r, &a->out, batch, h, begin, m.n, m.out, false);
        }
        attn_chunk_advance(r, &m);
    }
    if (attn_present(&a->state)) attn_chunk_move(r, &a->state, batch, head, 0, p->key_dim, m.state, false);
}

void attn_linear_chunks_run(const attn_linear_plan *p, const attn_kernels *k, int64_t n_items, attn_session *session) {
    attn_chunks r = attn_chunks_of(p, k);
    attn_session_run(session, n_items, head_item, &r);
}
