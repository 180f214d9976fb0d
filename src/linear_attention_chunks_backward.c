/* SPDX-License-Identifier: Apache-2.0 */
/* The gradients of linear attention by chunks, the last chunk first. In the words of src/linear_attention_chunks.c, with T the
 * gradient to the state after the chunk, E_j = exp(G_n - G_j), and sums over the heads that read the state:
 *
 *     P_ij = scale (q_i . k_j) D_ij, j <= i         dW = diag(E) K T + P^T dO, by the delta rules + A^T dW, solved upwards
 *     U_ij = scale (do_i . w_j) D_ij, j <= i        dQ = scale diag(exp G) dO S^T + U K
 *     Y    = diag(beta) dW                          dV = Y        dbeta_i = dw_i . (v_i - what S and earlier tokens had there)
 *     F_ij = -(y_i . w_j) D_ij, j < i, delta rules  H = F K - diag(exp G) Y S^T
 *                                                   L = U^T Q + diag(E) W T^T + F^T K        dK = H + L
 *                                                   dS = exp(G_n) T + scale (diag(exp G) Q)^T dO - (diag(exp G) K)^T Y
 *
 * G_i is in all of a row i, and its opposite in all of a column: dG_i = q_i . dq_i + k_i . h_i - k_i . l_i, and the whole of what is
 * left goes with G_n, T . S'. The gradient to a decay is the sum of dG from its token on; that of a state forgotten is 0. The states
 * before the chunks are found first. Triangles are multiplied up to the diagonal and no further, as forward. */
#include "linear_attention_chunks.h"

#include "operand.h"
#include "product.h"

#include <math.h>
#include <string.h>

/* What the way back needs beside the chunk. */
typedef struct backward_memory {
    char *first;                   /* [chunks][key_dim][value_dim]: S before each chunk */
    char *dstate;                  /* T, then dS */
    char *dout, *dw, *left;        /* [n][value_dim] */
    char *dq, *row, *col;          /* [n][key_dim]: dQ, H, L */
    char *states, *slopes, *wrote; /* panels of S, T and W */
    double *dlog;                  /* [n] */
} backward_memory;

static int64_t chunks_in(const attn_linear_plan *p) { return p->length / LINEAR_CHUNK + (p->length % LINEAR_CHUNK != 0); }

static backward_memory backward_in(const attn_chunks *r, attn_arena *at) {
    const int64_t dk = r->p->key_dim, dv = r->p->value_dim, n = attn_chunk_tokens(r->p), nr = r->k->matmul.nr;
    const size_t size = (size_t)r->size;
    size_t each;
    backward_memory b = { .dstate = attn_take(at, dk, dv, size) };
    if (__builtin_mul_overflow((size_t)dk, (size_t)dv, &each) || each > INT64_MAX) at->used = SIZE_MAX;
    b.first = attn_take(at, chunks_in(r->p), (int64_t)each, size);
    b.dout = attn_take(at, n, dv, size);
    b.dw = attn_take(at, n, dv, size);
    b.left = attn_take(at, n, dv, size);
    b.dq = attn_take(at, n, dk, size);
    b.row = attn_take(at, n, dk, size);
    b.col = attn_take(at, n, dk, size);
    b.states = attn_take(at, (dk + nr - 1) / nr * nr, dv, size);
    b.slopes = attn_take(at, (dk + nr - 1) / nr * nr, dv, size);
    b.wrote = attn_take(at, (n + nr - 1) / nr * nr, dv, size);
    b.dlog = attn_take(at, n, 1, sizeof(double));
    return b;
}

attn_need attn_linear_chunks_backward_need(const attn_linear_plan *p, const attn_kernels *k) {
    const attn_chunks r = attn_chunks_of(p, k);
    attn_arena count = { 0 };
    attn_chunk_in(&r, &count);
    backward_in(&r, &count);
    return (attn_need){ .per_worker = count.used };
}

/* ---- rows ------------------------------------------------------------------------------------------------------------ */

/* Of n elements, four sums side by side. */
static double inner(const attn_chunks *r, int64_t n, const void *x, const void *y) {
    const float *xf = x, *yf = y;
    const double *xd = x, *yd = y;
    double sum[4] = { 0 };
    if (r->k->dtype == ATTN_F32)
        for (int64_t i = 0; i < n; i++) sum[i & 3] += (double)xf[i] * (double)yf[i];
    else
        for (int64_t i = 0; i < n; i++) sum[i & 3] += xd[i] * yd[i];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

/* Rows times factor exp(G_i), or exp(G_n - G_i) for what comes from behind. */
static void fade(const attn_chunks *r, const attn_chunk *m, int64_t columns, bool from_behind, double factor, char *rows) {
    const double last = m->log[m->n - 1];
    for (int64_t i = 0; i < m->n; i++)
        attn_chunk_times(r, columns, factor * exp(from_behind ? last - m->log[i] : m->log[i]), rows + i * columns * r->size);
}

/* to [n][columns] += the transposed triangle of a [n][LINEAR_CHUNK] times x, with `diagonal` or without. to may be x where it is
 * without: a row is done before one above it reads it. */
static void add_upper(const attn_chunks *r, const attn_chunk *m, const char *a, bool diagonal, int64_t columns, const char *x,
                      char *to) {
    const int64_t row = columns * r->size;
    for (int64_t begin = (m->n - 1) / CHUNK_ROWS * CHUNK_ROWS; begin >= 0; begin -= CHUNK_ROWS) {
        const int64_t end = m->n - begin < CHUNK_ROWS ? m->n : begin + CHUNK_ROWS;
        if (end < m->n)
            attn_multiply(r->k,
                          attn_chunk_product(r, end - begin, columns, m->n - end, a + (end * LINEAR_CHUNK + begin) * r->size, 1,
                                             LINEAR_CHUNK, x + end * row, to + begin * row, true),
                          m->product);
        for (int64_t j = end - 1; j >= begin; j--) {
            const int64_t from = j + !diagonal, terms = end - from;
            if (terms > 0)
                attn_multiply(r->k,
                              attn_chunk_product(r, 1, columns, terms, a + (from * LINEAR_CHUNK + j) * r->size, 1, LINEAR_CHUNK,
                                                 x + from * row, to + j * row, true),
                              m->product);
        }
    }
}

/* scores [n][LINEAR_CHUNK] = factor (x_i . what was packed)_j D_ij, up to the diagonal. */
static void weighed(const attn_chunks *r, const attn_chunk *m, int64_t columns, const char *x, const char *panels, double factor,
                    char *scores) {
    attn_multiply(r->k, attn_chunk_scores(r, m->n, m->n, columns, x, panels, scores, LINEAR_CHUNK), m->product);
    attn_chunk_weigh(r, m, NULL, scores);
    for (int64_t i = 0; i < m->n; i++) attn_chunk_times(r, i + 1, factor, scores + i * LINEAR_CHUNK * r->size);
}

/* dstate += x^T y of [n][key_dim] and [n][value_dim]. */
static void add_outer(const attn_chunks *r, const attn_chunk *m, const char *x, const char *y, char *dstate) {
    const int64_t dk = r->p->key_dim, dv = r->p->value_dim;
    attn_multiply(r->k, attn_chunk_product(r, dk, dv, m->n, x, 1, dk, y, dstate, true), m->product);
}

/* ---- a chunk ---------------------------------------------------------------------------------------------------------- */

/* What T says: of W, of the keys, of the decays; then what is left of T. */
static void from_behind(const attn_chunks *r, const attn_chunk *m, const backward_memory *b) {
    const int64_t dk = r->p->key_dim, dv = r->p->value_dim;
    const double last = exp(m->log[m->n - 1]);
    attn_multiply(r->k, attn_chunk_product(r, m->n, dv, dk, m->keys, dk, 1, b->dstate, b->dw, false), m->product);
    attn_multiply(r->k, attn_chunk_scores(r, m->n, dk, dv, m->w, b->slopes, b->col, dk), m->product);
    double whole = last * inner(r, dk * dv, b->dstate, m->state);
    if (r->p->gated) {
        fade(r, m, dv, true, 1, b->dw);
        fade(r, m, dk, true, 1, b->col);
        for (int64_t i = 0; i < dk; i++) attn_chunk_times(r, dv, last, b->dstate + i * dv * r->size);
    }
    for (int64_t j = 0; j < m->n; j++) {
        b->dlog[j] = 0;
        whole += inner(r, dk, m->keys + j * dk * r->size, b->col + j * dk * r->size);
    }
    b->dlog[m->n - 1] = whole;
}

/* A head that reads: its dQ, and what its rows say of W, of the keys and of the state. */
static void from_reader(const attn_chunks *r, const attn_chunk *m, const backward_memory *b) {
    const int64_t dk = r->p->key_dim, dv = r->p->value_dim;
    const double scale = r->p->scale;
    attn_multiply(r->k, attn_chunk_scores(r, m->n, dk, dv, b->dout, b->states, b->dq, dk), m->product);
    fade(r, m, dk, false, scale, b->dq);
    weighed(r, m, dv, b->dout, b->wrote, scale, m->read);
    attn_chunk_add_triangle(r, m, m->read, true, dk, m->keys, b->dq);
    add_upper(r, m, m->read, true, dk, m->q, b->col);
    weighed(r, m, dk, m->q, m->panels, scale, m->read);
    add_upper(r, m, m->read, true, dv, b->dout, b->dw);
    for (int64_t i = 0; i < m->n; i++) b->dlog[i] += inner(r, dk, m->q + i * dk * r->size, b->dq + i * dk * r->size);
    fade(r, m, dk, false, scale, m->q);
    add_outer(r, m, m->q, b->dout, b->dstate);
}

/* beta's gradient: v - M^T k is worked out again, for beta may be 0. */
static void store_dbeta(const attn_chunks *r, const attn_chunk *m, const backward_memory *b, int64_t batch, int64_t head,
                        int64_t begin) {
    const attn_tensor *dbeta = &r->p->g->dbeta;
    const int64_t dk = r->p->key_dim, dv = r->p->value_dim, row = dv * r->size;
    attn_multiply(r->k, attn_chunk_product(r, m->n, dv, dk, m->keys, dk, 1, m->state, m->out, false), m->product);
    fade(r, m, dv, false, 1, m->out);
    weighed(r, m, dk, m->keys, m->panels, 1, m->read);
    attn_chunk_add_triangle(r, m, m->read, false, dv, m->w, m->out);
    attn_chunk_move(r, &r->p->a->v, batch, head, begin, m->n, b->left, true);
    for (int64_t i = 0; i < m->n; i++) {
        double d = inner(r, dv, b->dw + i * row, b->left + i * row) - inner(r, dv, b->dw + i * row, m->out + i * row);
        ref_store(dbeta->data, dbeta->dtype, batch * dbeta->stride[0] + head * dbeta->stride[1] + (begin + i) * dbeta->stride[2],
                  d);
    }
}

/* The delta rules: dW through the tokens that read what was written, and Y through what they took off their values. */
static void through_deltas(const attn_chunks *r, const attn_chunk *m, const backward_memory *b, int64_t batch, int64_t head,
                           int64_t begin) {
    const int64_t dk = r->p->key_dim, dv = r->p->value_dim;
    add_upper(r, m, m->cross, false, dv, b->dw, b->dw);
    if (attn_present(&r->p->g->dbeta)) store_dbeta(r, m, b, batch, head, begin);
    for (int64_t i = 0; i < m->n; i++) attn_chunk_times(r, dv, m->beta[i], b->dw + i * dv * r->size);
    attn_multiply(r->k, attn_chunk_scores(r, m->n, dk, dv, b->dw, b->states, b->row, dk), m->product);
    fade(r, m, dk, false, -1, b->row);
    weighed(r, m, dv, b->dw, b->wrote, -1, m->read);
    attn_chunk_add_triangle(r, m, m->read, false, dk, m->keys, b->row);
    add_upper(r, m, m->read, false, dk, m->keys, b->col);
    for (int64_t i = 0; i < m->n; i++) b->dlog[i] += inner(r, dk, m->keys + i * dk * r->size, b->row + i * dk * r->size);
}

/* d decay: the sum of what goes with G from the token on, 0 where all before was forgotten. */
static void store_ddecay(const attn_chunks *r, const attn_chunk *m, const backward_memory *b, int64_t batch, int64_t head,
                         int64_t begin) {
    const attn_tensor *to = &r->p->g->ddecay, *decay = &r->p->a->decay;
    const int64_t dk = r->p->key_dim;
    double sum = 0;
    for (int64_t i = m->n - 1; i >= 0; i--) {
        int64_t at = batch * decay->stride[0] + head * decay->stride[1] + (begin + i) * decay->stride[2];
        sum += b->dlog[i] - inner(r, dk, m->keys + i * dk * r->size, b->col + i * dk * r->size);
        ref_store(to->data, to->dtype, batch * to->stride[0] + head * to->stride[1] + (begin + i) * to->stride[2],
                  ref_load(decay->data, decay->dtype, at) < CHUNK_FORGOTTEN ? 0 : sum);
    }
}

static void store_rows(const attn_chunks *r, const attn_tensor *t, int64_t batch, int64_t head, int64_t begin, int64_t n,
                       char *rows) {
    if (attn_present(t)) attn_chunk_move(r, t, batch, head, begin, n, rows, false);
}

static void chunk_back(const attn_chunks *r, attn_chunk *m, const backward_memory *b, int64_t batch, int64_t head,
                       int64_t begin) {
    const attn_linear_plan *p = r->p;
    const attn_linear_attention_grads *g = p->g;
    const int64_t dk = p->key_dim, dv = p->value_dim;
    attn_chunk_load(r, batch, head, begin, m);
    attn_chunk_pack(r, dk, dv, m->state, b->states);
    attn_chunk_pack(r, dk, dv, b->dstate, b->slopes);
    attn_chunk_pack(r, m->n, dv, m->w, b->wrote);
    from_behind(r, m, b);
    for (int64_t h = head * p->group; h < (head + 1) * p->group; h++) {
        attn_chunk_move(r, &p->a->q, batch, h, begin, m->n, m->q, true);
        attn_chunk_move(r, &g->dout, batch, h, begin, m->n, b->dout, true);
        from_reader(r, m, b);
        store_rows(r, &g->dq, batch, h, begin, m->n, b->dq);
    }
    if (p->delta) through_deltas(r, m, b, batch, head, begin);
    store_rows(r, &g->dv, batch, head, begin, m->n, b->dw);
    if (attn_present(&g->ddecay)) store_ddecay(r, m, b, batch, head, begin);
    if (p->delta) {
        r->k->vector.add(m->n * dk, 1, b->row, b->col);
        fade(r, m, dk, false, -1, m->keys);
        add_outer(r, m, m->keys, b->dw, b->dstate);
    }
    store_rows(r, &g->dk, batch, head, begin, m->n, b->col);
}

static void head_item(void *context, int64_t item, void *scratch) {
    const attn_chunks *r = context;
    const attn_linear_plan *p = r->p;
    const int64_t batch = item / p->kv_heads, head = item % p->kv_heads, chunks = chunks_in(p);
    const size_t bytes = (size_t)(p->key_dim * p->value_dim * r->size);
    attn_arena arena = { .begin = scratch };
    attn_chunk m = attn_chunk_in(r, &arena);
    const backward_memory b = backward_in(r, &arena);
    attn_chunk_load_state(r, &p->a->past_state, batch, head, m.state);
    for (int64_t c = 0; c < chunks; c++) {
        if (bytes) memcpy(b.first + (size_t)c * bytes, m.state, bytes);
        if (c == chunks - 1) break;
        attn_chunk_load(r, batch, head, c * LINEAR_CHUNK, &m);
        attn_chunk_advance(r, &m);
    }
    attn_chunk_load_state(r, &p->g->dstate, batch, head, b.dstate);
    for (int64_t c = chunks - 1; c >= 0; c--) {
        if (bytes) memcpy(m.state, b.first + (size_t)c * bytes, bytes);
        chunk_back(r, &m, &b, batch, head, c * LINEAR_CHUNK);
    }
    store_rows(r, &p->g->dpast_state, batch, head, 0, p->key_dim, b.dstate);
}

void attn_linear_chunks_backward_run(const attn_linear_plan *p, const attn_kernels *k, int64_t n_items, attn_session *session) {
    attn_chunks r = attn_chunks_of(p, k);
    attn_session_run(session, n_items, head_item, &r);
}
