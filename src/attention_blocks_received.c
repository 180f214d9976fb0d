/* SPDX-License-Identifier: Apache-2.0 */
/* What keys received. A unit of keys meets blocks of queries one after the other, and gathers their weights: those of all rows of the
 * head, or of the rows that a pooled map puts together; as they are, or each row counting for what the caller says. */
#include "attention_blocks.h"
#include "attention_received.h"
#include "walk.h"

#include <string.h>

typedef struct received_context {
    const attn_attention_plan *p;
    const attn_row_norms *norms;
    const attn_attention_plan_received *r; /* NULL: every row counts 1 */
    const attn_tensor *received;           /* where the sums over all rows go */
} received_context;

typedef struct worker {
    attn_tile_memory m;
    void *panel;
    void *max, *inverse; /* [q_block] */
    void *received;      /* [k_block] */
    double *pools;       /* [Q] of a pooled map */
    void *by;            /* [q_block] what a row counts */
    uint64_t counted;    /* the lanes of rows that count */
    void *dout;          /* panel [v_dim][q_block] */
    void *dp;            /* [k_block][q_block] */
    void *v;             /* [k_block][v_dim], for values that do not lie densely */
} worker;

static worker worker_in(const attn_attention_plan *p, const attn_attention_plan_received *r, attn_arena *a) {
    const attn_attention_kernels *k = attn_kernels_of(p);
    size_t size = attn_computing_size(p);
    worker w = { .m = attn_tile_memory_in(p, false, a),
                 .panel = attn_take(a, p->dim, k->q_block, size),
                 .max = attn_take(a, 1, k->q_block, size),
                 .inverse = attn_take(a, 1, k->q_block, size),
                 .received = attn_take(a, 1, k->k_block, size) };
    if (p->pooled.rank) w.pools = attn_take(a, 1, p->pooled.shape[3], sizeof *w.pools);
    if (!r) return w;
    w.by = attn_take(a, 1, k->q_block, size);
    if (!r->dout.rank) return w;
    w.dout = attn_take(a, p->v_dim, k->q_block, size);
    w.dp = attn_take(a, k->k_block, k->q_block, size);
    if (!attn_values_lie_densely(p)) w.v = attn_take(a, k->k_block, p->v_dim, size);
    return w;
}

size_t attn_received_need(const attn_attention_plan *p) {
    attn_arena a = { 0 };
    worker_in(p, NULL, &a);
    return a.used;
}

/* ---- what a row counts ------------------------------------------------------------------------------------------------- */

/* The block's rows into w->by and w->counted. False: none of them counts. */
static bool load_by(const received_context *c, const attn_head *head, int64_t i0, int64_t n_rows, worker *w) {
    const attn_tensor *by = &c->r->by;
    attn_fill(w->by, head->kernels->q_block, head->size, by->rank ? 0 : 1);
    if (by->rank)
        attn_copy_strided(head->size, n_rows, attn_at(by, head->b * by->stride[0] + head->h * by->stride[1] + i0 * by->stride[2]),
                          by->stride[2], w->by, 1);
    w->counted = 0;
    for (int64_t i = 0; i < n_rows; i++) w->counted |= (uint64_t)(ref_load(w->by, head->dtype, i) != 0) << i;
    return w->counted != 0;
}

/* Final weights become what they count: nothing in rows that do not, whatever they hold. */
static void count_tile(const received_context *c, const attn_head *head, const attn_query_block *x, worker *w, int64_t j0,
                       int64_t n_keys, attn_rows v, attn_tile_kind kind) {
    const attn_attention_kernels *kernels = head->kernels;
    if (c->r->dout.rank) {
        attn_tile_product(head, w->dout, v, n_keys, w->dp);
        if (c->p->dropout.on) {
            attn_tile_keep(head, x, j0, n_keys);
            kernels->multiply(w->dp, w->m.keep, n_keys);
        }
        kernels->multiply(w->m.s, w->dp, n_keys);
        if (c->r->positive) kernels->positive(w->m.s, n_keys);
    }
    if (c->r->by.rank) kernels->rescale(w->m.s, n_keys, w->by);
    for (int64_t j = 0; j < n_keys; j++) w->m.live[j] = kind == ATTN_TILE_FULL ? w->counted : w->m.live[j] & w->counted;
    kernels->hide(w->m.s, n_keys, w->m.live, 0);
}

/* ---- a unit of keys and some rows --------------------------------------------------------------------------------------- */

/* A block, but for its rows from `end` on. */
static attn_query_block block_before(const attn_head *head, int64_t i0, int64_t end, void *panel) {
    attn_query_block x = attn_query_block_at(head, i0, panel);
    if (x.n_written > end - i0) x.n_written = end - i0;
    if (x.n_rows > x.n_written) x.n_rows = x.n_written;
    return x;
}

/* What keys begin .. end - 1 of a unit receive from rows i0 .. i1 - 1, into w->received. */
static void receive(const received_context *c, const attn_head *head, worker *w, int64_t i0, int64_t i1, int64_t begin,
                    int64_t end) {
    attn_fill(w->received, head->kernels->k_block, head->size, 0);
    bool weighted = c->r && c->r->dout.rank;
    attn_rows rows = attn_keys_at(head, begin, end), v = weighted ? attn_values_at(head, begin, end, w->v) : rows;
    int64_t lanes = head->kernels->q_block, size = (int64_t)head->size;
    for (; i0 < i1; i0 += lanes) {
        if (c->r && !load_by(c, head, i0, i1 - i0 < lanes ? i1 - i0 : lanes, w)) continue;
        attn_query_block x = block_before(head, i0, i1, w->panel);
        attn_key_range keys = attn_keys_in_unit(head, &x, begin, end);
        if (keys.begin == keys.end) continue;
        int64_t skipped = keys.begin - begin, n_keys = keys.end - keys.begin;
        attn_rows seen = { rows.data + skipped * rows.row * size, rows.row }, values = { v.data + skipped * v.row * size, v.row };
        attn_tile_kind kind = attn_tile_scores(head, &x, keys.begin, keys.end, seen);
        if (kind == ATTN_TILE_EMPTY) continue;
        attn_row_norms_load(c->norms, head, &x, w->max, w->inverse);
        head->kernels->weigh_again[c->p->weighting](w->m.s, n_keys, w->max, w->inverse);
        if (weighted) attn_pack_rows(head, &c->r->dout, &x, w->dout);
        if (c->r)
            count_tile(c, head, &x, w, keys.begin, n_keys, values, kind);
        else if (kind == ATTN_TILE_PARTLY)
            head->kernels->hide(w->m.s, n_keys, w->m.live, 0);
        head->kernels->add_received(w->m.s, n_keys, (char *)w->received + (size_t)(skipped * size));
    }
}

static int64_t unit_end(const attn_head *head, int64_t begin) {
    return begin + head->kernels->k_block < head->p->kv_len ? begin + head->kernels->k_block : head->p->kv_len;
}

/* ---- received: the keys of one unit, all rows ------------------------------------------------------------------------- */

static void received_item(void *context, int64_t item, void *scratch) {
    const received_context *c = context;
    const attn_attention_plan *p = c->p;
    const attn_tensor *received = c->received;
    attn_arena arena = { .begin = scratch };
    worker w = worker_in(p, c->r, &arena);
    int64_t heads = p->batch * p->heads, b = item % heads / p->heads, h = item % p->heads;
    attn_head head = attn_head_at(p, b, h, w.m);
    int64_t begin = item / heads * head.kernels->k_block, end = unit_end(&head, begin);
    receive(c, &head, &w, 0, p->q_len, begin, end);
    int64_t at = b * received->stride[0] + h * received->stride[1] + begin * received->stride[2];
    for (int64_t j = 0; j < end - begin; j++)
        memcpy(attn_at(received, at + j * received->stride[2]), (char *)w.received + (size_t)j * head.size, head.size);
}

/* ---- pooled: one row of the map -------------------------------------------------------------------------------------------- */

/* Adds what keys begin .. end - 1 received to the pools that they stand in, of which *q is the first's. */
static void add_to_pools(const attn_head *head, const worker *w, int64_t *q, int64_t begin, int64_t end) {
    const attn_tensor *pooled = &head->p->pooled;
    for (int64_t j = begin; j < end; j++) {
        while (attn_pool_edge(*q + 1, pooled->shape[3], head->p->kv_len) <= j) ++*q;
        w->pools[*q] += ref_load(w->received, head->dtype, j - begin);
    }
}

static void pooled_item(void *context, int64_t item, void *scratch) {
    const received_context *c = context;
    const attn_attention_plan *p = c->p;
    const attn_tensor *pooled = &p->pooled;
    attn_arena arena = { .begin = scratch };
    worker w = worker_in(p, c->r, &arena);
    int64_t n_pools = pooled->shape[3], heads = p->batch * p->heads, b = item % heads / p->heads, h = item % p->heads, q = 0;
    attn_head head = attn_head_at(p, b, h, w.m);
    int64_t block = item / heads, i0 = attn_pool_edge(block, pooled->shape[2], p->q_len);
    int64_t i1 = attn_pool_edge(block + 1, pooled->shape[2], p->q_len);
    memset(w.pools, 0, (size_t)n_pools * sizeof *w.pools);
    for (int64_t j = 0; i0 < i1 && j < p->kv_len; j += head.kernels->k_block) {
        receive(c, &head, &w, i0, i1, j, unit_end(&head, j));
        add_to_pools(&head, &w, &q, j, unit_end(&head, j));
    }
    int64_t at = b * pooled->stride[0] + h * pooled->stride[1] + block * pooled->stride[2];
    for (q = 0; q < n_pools; q++) {
        int64_t keys = attn_pool_edge(q + 1, n_pools, p->kv_len) - attn_pool_edge(q, n_pools, p->kv_len);
        double mean = i0 == i1 || keys == 0 ? 0 : w.pools[q] / (double)(i1 - i0) / (double)keys;
        ref_store(pooled->data, pooled->dtype, at + q * pooled->stride[3], mean);
    }
}

/* ---- the sweep --------------------------------------------------------------------------------------------------------------- */

static void receive_all(const received_context *c, attn_session *session) {
    int64_t unit = attn_kernels_of(c->p)->k_block, heads = c->p->batch * c->p->heads;
    attn_session_run(session, (c->p->kv_len + unit - 1) / unit * heads, received_item, (void *)c);
}

void attn_see_received(const attn_attention_plan *p, const attn_row_norms *norms, attn_session *session) {
    received_context c = { .p = p, .norms = norms, .received = &p->received };
    if (p->received.rank) receive_all(&c, session);
    if (p->pooled.rank && p->pooled.shape[3] > 0)
        attn_session_run(session, p->pooled.shape[2] * p->batch * p->heads, pooled_item, &c);
}

/* ---- a call for received mass alone --------------------------------------------------------------------------------------------- */

bool attn_blocks_cover_received(const attn_attention_plan *p, const attn_attention_plan_received *r) {
    return attn_blocks_cover(p) && attn_kernels_take(p, &r->dout);
}

/* Whether the rows have to be gone through for their normalisers: the softmax's is the lse, and the elementwise weightings have none. */
static bool sweeps_rows(const attn_attention_plan *p) { return !p->lse.rank && !attn_plan_is_elementwise(p); }

attn_need attn_blocks_received_need(const attn_attention_plan *p, const attn_attention_plan_received *r) {
    attn_arena shared = { 0 }, own = { 0 };
    attn_row_norms_in(p, &shared);
    worker_in(p, r, &own);
    size_t rows = sweeps_rows(p) ? attn_blocks_rows_need(p, NULL) : 0;
    return (attn_need){ .shared = shared.used, .per_worker = own.used > rows ? own.used : rows };
}

/* The normalisers of a head's rows: e^(s - lse) is its weight. */
static void norms_item(void *context, int64_t item, void *scratch) {
    const received_context *c = context;
    const attn_attention_plan *p = c->p;
    const size_t size = attn_computing_size(p), at = (size_t)(item * p->q_len) * size;
    const attn_tensor *lse = &p->lse;
    (void)scratch;
    attn_fill(c->norms->inverse + at, p->q_len, size, 1);
    if (!lse->rank)
        attn_fill(c->norms->max + at, p->q_len, size, 0);
    else
        attn_copy_strided(size, p->q_len, attn_at(lse, item / p->heads * lse->stride[0] + item % p->heads * lse->stride[1]),
                          lse->stride[2], c->norms->max + at, 1);
}

void attn_blocks_received(const attn_attention_plan *p, const attn_attention_plan_received *r, attn_session *session) {
    attn_arena shared = { .begin = session->shared };
    const attn_row_norms norms = attn_row_norms_in(p, &shared);
    received_context c = { .p = p, .norms = &norms, .r = r, .received = &r->received };
    if (sweeps_rows(p))
        attn_blocks_rows(p, NULL, &norms, session);
    else
        attn_session_run(session, p->q_len > 0 ? p->batch * p->heads : 0, norms_item, &c);
    receive_all(&c, session);
}
