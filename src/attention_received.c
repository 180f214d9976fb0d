/* SPDX-License-Identifier: Apache-2.0 */
/* What keys received. A unit of keys meets blocks of queries one after the other, and gathers their weights: those of all rows of the
 * head, or of the rows that a pooled map puts together. */
#include "attention_received.h"

#include <string.h>

typedef struct received_context {
    const attn_attention_plan *p;
    const attn_row_norms *norms;
} received_context;

typedef struct worker {
    attn_tile_memory m;
    void *panel;
    void *max, *inverse; /* [q_block] */
    void *received;      /* [k_block] */
    double *pools;       /* [Q] of a pooled map */
} worker;

static worker worker_in(const attn_attention_plan *p, attn_arena *a) {
    const attn_attention_kernels *k = attn_kernels_of(p);
    size_t size = attn_computing_size(p);
    worker w = { .m = attn_tile_memory_in(p, false, a),
                 .panel = attn_take(a, p->dim, k->q_block, size),
                 .max = attn_take(a, 1, k->q_block, size),
                 .inverse = attn_take(a, 1, k->q_block, size),
                 .received = attn_take(a, 1, k->k_block, size) };
    if (p->pooled.rank) w.pools = attn_take(a, 1, p->pooled.shape[3], sizeof *w.pools);
    return w;
}

size_t attn_received_need(const attn_attention_plan *p) {
    attn_arena a = { 0 };
    worker_in(p, &a);
    return a.used;
}

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
    attn_rows rows = attn_keys_at(head, begin, end);
    for (; i0 < i1; i0 += head->kernels->q_block) {
        attn_query_block x = block_before(head, i0, i1, w->panel);
        attn_key_range keys = attn_keys_in_unit(&x, begin, end);
        if (keys.begin == keys.end) continue;
        int64_t skipped = keys.begin - begin, n_keys = keys.end - keys.begin;
        attn_rows seen = { rows.data + skipped * rows.row * (int64_t)head->size, rows.row };
        attn_tile_kind kind = attn_tile_scores(head, &x, keys.begin, keys.end, seen);
        if (kind == ATTN_TILE_EMPTY) continue;
        attn_row_norms_load(c->norms, head, &x, w->max, w->inverse);
        head->kernels->weigh_again[c->p->weighting](w->m.s, n_keys, w->max, w->inverse);
        if (kind == ATTN_TILE_PARTLY) head->kernels->hide(w->m.s, n_keys, w->m.live, 0);
        head->kernels->add_received(w->m.s, n_keys, (char *)w->received + (size_t)skipped * head->size);
    }
}

static int64_t unit_end(const attn_head *head, int64_t begin) {
    return begin + head->kernels->k_block < head->p->kv_len ? begin + head->kernels->k_block : head->p->kv_len;
}

/* ---- received: the keys of one unit, all rows ------------------------------------------------------------------------- */

static void received_item(void *context, int64_t item, void *scratch) {
    const received_context *c = context;
    const attn_attention_plan *p = c->p;
    const attn_tensor *received = &p->received;
    attn_arena arena = { .begin = scratch };
    worker w = worker_in(p, &arena);
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
    worker w = worker_in(p, &arena);
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

void attn_see_received(const attn_attention_plan *p, const attn_row_norms *norms, attn_session *session) {
    int64_t unit = attn_kernels_of(p)->k_block, heads = p->batch * p->heads;
    received_context c = { .p = p, .norms = norms };
    if (p->received.rank) attn_session_run(session, (p->kv_len + unit - 1) / unit * heads, received_item, &c);
    if (p->pooled.rank && p->pooled.shape[3] > 0) attn_session_run(session, p->pooled.shape[2] * heads, pooled_item, &c);
}
