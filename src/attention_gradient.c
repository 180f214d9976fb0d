/* SPDX-License-Identifier: Apache-2.0 */
/* The score gradient of blocks: o_i = sum_j p_ij v_j, so dp_ij = do_i . v_j; the weighting takes dp to ds, for which it needs one
 * number per row, delta_i = sum_j p_ij dp_ij = do_i . o_i. Dropout multiplies p in the mix, and so dp as well.
 *
 * In the second order (src/ref/attention_double_backward.c) the score gradient is p_ij (e_ij - sum_k p_ik e_ik), and all that is
 * to be known of a row are its mean tangent m_i and eta_i = do_i . ddo_i, where ddo is the forward's tangent: e_ij less its mean
 * is (r_ij - m_i) (dp_ij - delta_i) + u_ij - eta_i. */
#include "attention_gradient.h"
#include "attention_blocks.h"
#include "ref/element.h"

#include <string.h>

void attn_scale_elements(void *x, int64_t n, size_t size, double by) {
    for (int64_t i = 0; i < n; i++) {
        if (size == sizeof(float))
            ((float *)x)[i] = ((float *)x)[i] * (float)by + 0.0F;
        else
            ((double *)x)[i] = ((double *)x)[i] * by + 0.0;
    }
}

/* ---- rows -------------------------------------------------------------------------------------------------- */

/* Out gives delta, and lse the softmax's normaliser. */
static bool computes_forward(const attn_attention_plan *p) {
    if (attn_plan_is_elementwise(p)) return false;
    /* an out of 16 bits is rounded too coarsely for delta */
    return !p->out.rank || p->out.dtype != attn_computing_dtype(p) || p->weighting != ATTN_WEIGHT_SOFTMAX || !p->lse.rank;
}

attn_row_deltas attn_row_deltas_in(const attn_attention_plan *p, const attn_attention_plan_grads *g, attn_arena *shared) {
    size_t size = attn_computing_size(p);
    attn_row_deltas rows = { .norms = attn_row_norms_in(p, shared),
                             .delta = attn_take(shared, p->batch * p->heads, p->q_len, size) };
    /* batch * heads * q_len elements fit in memory: q has more */
    if (computes_forward(p)) rows.out = attn_take(shared, p->batch * p->heads * p->q_len, p->v_dim, size);
    if (!g->along) return rows;
    rows.mean = attn_take(shared, p->batch * p->heads, p->q_len, size);
    rows.eta = attn_take(shared, p->batch * p->heads, p->q_len, size);
    rows.ddout = attn_take(shared, p->batch * p->heads * p->q_len, p->v_dim, size);
    return rows;
}

/* Dense [batch, heads, q_len, v_dim]. */
static attn_tensor like_out(const attn_attention_plan *p, void *data) {
    return attn_bhsd(attn_computing_dtype(p), data, p->batch, p->heads, p->q_len, p->v_dim);
}

/* The plan of a forward that computes out, and nothing to be seen. */
static attn_attention_plan forward_plan(const attn_attention_plan *p, void *out) {
    attn_attention_plan forward = *p;
    forward.lse = (attn_tensor){ 0 };
    forward.out = like_out(p, out);
    return forward;
}

/* Its tangents in the second order: whole rows of them are needed, whether they were asked for or not. */
static attn_attention_plan_tangents forward_tangents(const attn_backward *c) {
    const attn_attention_plan *p = c->p;
    attn_attention_plan_tangents t = *c->g->along;
    t.dout = like_out(p, c->rows.ddout);
    t.dlse = attn_dense(attn_computing_dtype(p), c->rows.mean, 3, (const int64_t[]){ p->batch, p->heads, p->q_len });
    return t;
}

typedef struct delta_worker {
    attn_tile_memory m;
    void *dout, *out;            /* panels [v_dim][q_block] */
    void *delta, *max, *inverse; /* [q_block] */
} delta_worker;

static delta_worker delta_worker_in(const attn_attention_plan *p, attn_arena *a) {
    const attn_attention_kernels *k = attn_kernels_of(p);
    size_t size = attn_computing_size(p);
    return (delta_worker){ .m = attn_tile_memory_in(p, false, a),
                           .dout = attn_take(a, p->v_dim, k->q_block, size),
                           .out = attn_take(a, p->v_dim, k->q_block, size),
                           .delta = attn_take(a, 1, k->q_block, size),
                           .max = attn_take(a, 1, k->q_block, size),
                           .inverse = attn_take(a, 1, k->q_block, size) };
}

size_t attn_row_deltas_need(const attn_attention_plan *p, const attn_attention_plan_grads *g) {
    attn_arena a = { 0 };
    delta_worker_in(p, &a);
    size_t again = computes_forward(p) ? attn_blocks_rows_need(p, g->along) : 0;
    return a.used > again ? a.used : again;
}

static double row_value(const attn_head *head, const attn_tensor *t, int64_t i) {
    return ref_load(t->data, t->dtype, head->b * t->stride[0] + head->h * t->stride[1] + i * t->stride[2]);
}

static void add_element(void *x, int64_t i, size_t size, double y) {
    if (size == sizeof(float))
        ((float *)x)[i] += (float)y;
    else
        ((double *)x)[i] += y;
}

/* eta of a block whose dout is packed, and what was asked for of its tangents. */
static void keep_second(const attn_backward *c, const attn_head *head, const attn_query_block *x, delta_worker *w, size_t at) {
    const attn_tensor ddout = like_out(c->p, c->rows.ddout);
    attn_pack_rows(head, &ddout, x, w->out);
    head->kernels->inner_lanes(w->dout, w->out, c->p->v_dim, w->delta);
    memcpy(c->rows.eta + at, w->delta, (size_t)x->n_written * head->size);
    if (c->g->along->dout.rank) attn_write_panel(head, x, &c->g->along->dout, w->out);
    if (c->g->along->dlse.rank) attn_write_rows(head, x, &c->g->along->dlse, c->rows.mean + at);
}

static void delta_item(void *context, int64_t item, void *scratch) {
    const attn_backward *c = context;
    const attn_attention_plan *p = c->p;
    attn_arena arena = { .begin = scratch };
    delta_worker w = delta_worker_in(p, &arena);
    attn_head head = attn_head_at(p, item % (p->batch * p->heads) / p->heads, item % p->heads, w.m);
    attn_query_block x = { .i0 = item / (p->batch * p->heads) * head.kernels->q_block };
    int64_t rows = head.kernels->q_block, queries = head.sight.q_length - x.i0;
    x.n_written = p->q_len - x.i0 < rows ? p->q_len - x.i0 : rows;
    x.n_rows = queries < 0 ? 0 : queries < x.n_written ? queries : x.n_written;
    const attn_tensor own = c->rows.out ? like_out(p, c->rows.out) : p->out;
    attn_fill(w.delta, rows, head.size, 0);
    if (!attn_plan_is_elementwise(p)) {
        attn_pack_rows(&head, &c->g->dout, &x, w.dout);
        attn_pack_rows(&head, &own, &x, w.out);
        head.kernels->inner_lanes(w.dout, w.out, p->v_dim, w.delta);
    }
    for (int64_t i = 0; c->g->dlse.rank && i < x.n_rows; i++)
        add_element(w.delta, i, head.size, -row_value(&head, &c->g->dlse, x.i0 + i));
    size_t at = (size_t)((head.b * p->heads + head.h) * p->q_len + x.i0) * head.size;
    memcpy(c->rows.delta + at, w.delta, (size_t)x.n_written * head.size);
    if (c->g->along) keep_second(c, &head, &x, &w, at);
    if (c->rows.out) return;
    attn_fill(w.max, rows, head.size, 0);
    attn_fill(w.inverse, rows, head.size, 1);
    for (int64_t i = 0; p->lse.rank && i < x.n_rows; i++)
        attn_fill((char *)w.max + (size_t)i * head.size, 1, head.size, row_value(&head, &p->lse, x.i0 + i));
    attn_row_norms_keep(&c->rows.norms, &head, &x, w.max, w.inverse);
}

void attn_row_deltas_compute(attn_backward *c, attn_session *session) {
    const attn_attention_plan *p = c->p;
    int64_t lanes = attn_kernels_of(p)->q_block;
    if (c->rows.out) {
        attn_attention_plan forward = forward_plan(p, c->rows.out);
        attn_attention_plan_tangents tangents = { 0 };
        if (c->g->along) tangents = forward_tangents(c);
        attn_blocks_rows(&forward, c->g->along ? &tangents : NULL, &c->rows.norms, session);
    }
    attn_session_run(session, (p->q_len + lanes - 1) / lanes * p->batch * p->heads, delta_item, c);
}

/* ---- blocks ------------------------------------------------------------------------------------------------ */

attn_gradient_block attn_gradient_block_in(const attn_attention_plan *p, const attn_attention_plan_tangents *along,
                                           attn_arena *a) {
    const attn_attention_kernels *k = attn_kernels_of(p);
    size_t size = attn_computing_size(p);
    attn_gradient_block block = { .x.panel = attn_take(a, p->dim, k->q_block, size),
                                  .dout = attn_take(a, p->v_dim, k->q_block, size),
                                  .max = attn_take(a, 1, k->q_block, size),
                                  .inverse = attn_take(a, 1, k->q_block, size),
                                  .delta = attn_take(a, 1, k->q_block, size) };
    if (!along) return block;
    block.along = attn_take(a, attn_tangent_halves(along) * k->q_block, p->dim, size);
    block.mean = attn_take(a, 1, k->q_block, size);
    block.eta = attn_take(a, 1, k->q_block, size);
    return block;
}

/* A block's numbers out of those of every row; 0 in lanes that are no row. */
static void load_rows(const attn_head *head, const attn_query_block *x, const char *rows, void *lanes) {
    size_t at = (size_t)((head->b * head->p->heads + head->h) * head->p->q_len + x->i0) * head->size;
    attn_fill(lanes, head->kernels->q_block, head->size, 0);
    memcpy(lanes, rows + at, (size_t)x->n_written * head->size);
}

void attn_gradient_block_at(const attn_backward *c, const attn_head *head, attn_gradient_block *block, int64_t i0) {
    block->x = attn_query_block_at(head, i0, block->x.panel);
    attn_pack_rows(head, &c->g->dout, &block->x, block->dout);
    attn_row_norms_load(&c->rows.norms, head, &block->x, block->max, block->inverse);
    load_rows(head, &block->x, c->rows.delta, block->delta);
    if (!c->g->along) return;
    attn_tangent_panel(head, c->g->along, &block->x, block->along);
    load_rows(head, &block->x, c->rows.mean, block->mean);
    load_rows(head, &block->x, c->rows.eta, block->eta);
}

/* ---- tiles ------------------------------------------------------------------------------------------------- */

attn_gradient_tile attn_gradient_tile_in(const attn_attention_plan *p, attn_arena *a) {
    const attn_attention_kernels *k = attn_kernels_of(p);
    size_t size = attn_computing_size(p);
    attn_gradient_tile t = { .p = attn_take(a, k->k_block, k->q_block, size), .ds = attn_take(a, k->k_block, k->q_block, size) };
    if (p->softcap > 0) t.capped = attn_take(a, k->k_block, k->q_block, size);
    return t;
}

/* Scores into t.p, and into `dp` what the weights' gradient is, through dropout. */
static attn_tile_kind scores_and_dp(attn_head *head, const attn_gradient_block *block, attn_gradient_tile t, void *dp, int64_t j0,
                                    int64_t j1, attn_rows k, attn_rows v) {
    const attn_attention_plan *p = head->p;
    int64_t n_keys = j1 - j0;
    head->m.s = t.p;
    attn_tile_kind kind = attn_tile_live(head, &block->x, j0, j1);
    if (kind == ATTN_TILE_EMPTY) return kind;
    attn_tile_raw(head, &block->x, j0, j1, k, (attn_rows){ NULL, 0 });
    attn_tile_cap(head, n_keys);
    if (p->softcap > 0) memcpy(t.capped, t.p, (size_t)(n_keys * head->kernels->q_block) * head->size);
    kind = attn_tile_hide(head, &block->x, j0, j1, kind);
    if (kind == ATTN_TILE_EMPTY) return kind;
    attn_tile_product(head, block->dout, v, n_keys, dp);
    if (p->dropout.on) {
        attn_tile_keep(head, &block->x, j0, n_keys);
        head->kernels->multiply(dp, head->m.keep, n_keys);
    }
    return kind;
}

attn_tile_kind attn_gradient_tile_at(attn_head *head, const attn_gradient_block *block, attn_gradient_tile t, int64_t j0,
                                     int64_t j1, attn_rows k, attn_rows v) {
    const attn_attention_plan *p = head->p;
    int64_t n_keys = j1 - j0;
    attn_tile_kind kind = scores_and_dp(head, block, t, t.ds, j0, j1, k, v);
    if (kind == ATTN_TILE_EMPTY) return kind;
    head->kernels->weigh_back[p->weighting](t.p, t.ds, n_keys, block->max, block->inverse, block->delta);
    if (p->dropout.on) head->kernels->multiply(t.p, head->m.keep, n_keys);
    if (kind == ATTN_TILE_PARTLY) {
        head->kernels->hide(t.p, n_keys, head->m.live, 0);
        head->kernels->hide(t.ds, n_keys, head->m.live, 0);
    }
    return kind;
}

attn_tile_kind attn_second_tile_at(attn_head *head, const attn_attention_plan_tangents *along, const attn_gradient_block *block,
                                   attn_gradient_tile t, int64_t j0, int64_t j1, attn_rows k, attn_rows v, const void *rows,
                                   attn_rows ddv) {
    const attn_attention_kernels *kernels = head->kernels;
    const attn_attention_plan *p = head->p;
    int64_t n_keys = j1 - j0;
    attn_tile_kind kind = scores_and_dp(head, block, t, t.slope, j0, j1, k, v);
    if (kind == ATTN_TILE_EMPTY) return kind;
    attn_tangent_product(head, along, block->along, rows, n_keys, t.r);
    if (ddv.data)
        attn_tile_product(head, block->dout, ddv, n_keys, t.ds);
    else
        attn_fill(t.ds, n_keys * kernels->q_block, head->size, 0);
    if (p->dropout.on) kernels->multiply(t.ds, head->m.keep, n_keys);
    kernels->softmax_back_twice(&(attn_second_tile){ .s = t.p,
                                                     .dp = t.slope,
                                                     .u = t.ds,
                                                     .r = t.r,
                                                     .capped = p->softcap > 0 ? t.capped : NULL,
                                                     .softcap = p->softcap,
                                                     .n_keys = n_keys,
                                                     .max = block->max,
                                                     .inverse = block->inverse,
                                                     .delta = block->delta,
                                                     .mean = block->mean,
                                                     .eta = block->eta });
    if (p->dropout.on) kernels->multiply(t.p, head->m.keep, n_keys);
    for (int i = 0; kind == ATTN_TILE_PARTLY && i < 3; i++)
        kernels->hide((void *[]){ t.p, t.ds, t.slope }[i], n_keys, head->m.live, 0);
    return kind;
}

void attn_gradient_uncap(const attn_head *head, attn_gradient_tile t, int64_t n_keys) {
    if (head->p->softcap > 0) head->kernels->cap_back(t.ds, t.capped, n_keys, head->p->softcap);
}
