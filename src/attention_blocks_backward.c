/* SPDX-License-Identifier: Apache-2.0 */
/* The blocked backward, in sweeps whose items own what they write, so that every sum has one order: dq by groups of query blocks,
 * dk and dv by units of keys, each recomputing the tiles of weights and score gradients it needs. */
#include "attention_blocks.h"
#include "attention_gradient.h"
#include "attention_sums.h"

#include <string.h>

/* Blocks that meet a unit of keys together. */
enum { GROUP = 4 };

static bool additive(const attn_attention_plan *p) { return p->score == ATTN_ADDITIVE; }

/* ---- dq: dq_i = scale * sum_j ds_ij k_j, a mix of keys ------------------------------------------------------- */

typedef struct dq_worker {
    attn_tile_memory m;
    attn_gradient_tile tile;
    attn_gradient_block blocks[GROUP];
    void *dq[GROUP]; /* panels [dim][q_block] */
    bool begun[GROUP];
    void *k_groups; /* [k_block][dim] in groups of columns */
    void *v_copy;   /* [k_block][v_dim] */
} dq_worker;

static dq_worker dq_worker_in(const attn_attention_plan *p, attn_arena *a) {
    const attn_attention_kernels *k = attn_kernels_of(p);
    size_t size = attn_dtype_size(p->q.dtype);
    dq_worker w = { .m = attn_tile_memory_in(p, false, a), .tile = attn_gradient_tile_in(p, a) };
    for (int i = 0; i < GROUP; i++) {
        w.blocks[i] = attn_gradient_block_in(p, a);
        w.dq[i] = attn_take(a, p->dim, k->q_block, size);
    }
    w.k_groups = attn_take(a, k->k_block, p->dim, size);
    if (!attn_values_lie_densely(p)) w.v_copy = attn_take(a, k->k_block, p->v_dim, size);
    return w;
}

static void add_to_dq(const attn_head *head, dq_worker *w, int i, attn_tile_kind kind, int64_t n_keys, attn_rows k) {
    const attn_attention_plan *p = head->p;
    const uint64_t *live = kind == ATTN_TILE_PARTLY ? head->m.live : NULL;
    if (additive(p)) {
        head->kernels->additive_dq(&(attn_additive_gradient){ .ds = w->tile.ds,
                                                              .live = live,
                                                              .q = w->blocks[i].x.panel,
                                                              .k = k.data,
                                                              .k_row = k.row,
                                                              .n_keys = n_keys,
                                                              .dim = p->dim,
                                                              .weight = head->m.weight,
                                                              .dq = w->dq[i] });
        return;
    }
    bool skip = live && !head->kernels->finite(w->k_groups, n_keys * p->dim);
    head->kernels->mix(&(attn_mix_tile){ .p = w->tile.ds,
                                         .v = w->k_groups,
                                         .n_packed = n_keys,
                                         .n_keys = n_keys,
                                         .v_dim = p->dim,
                                         .live = skip ? live : NULL,
                                         .accumulate = w->begun[i],
                                         .o = w->dq[i] });
    w->begun[i] = true;
}

static void dq_unit(attn_head *head, dq_worker *w, int n_blocks, int64_t begin, int64_t end) {
    const attn_attention_plan *p = head->p;
    const attn_tensor *keys = &p->k;
    int64_t at = head->b * keys->stride[0] + head->h / p->k_group * keys->stride[1] + begin * keys->stride[2];
    attn_rows k = attn_keys_at(head, begin, end), v = attn_values_at(head, begin, end, w->v_copy);
    head->kernels->pack_groups(attn_at(keys, at), keys->stride[2], keys->stride[3], end - begin, p->dim, w->k_groups);
    for (int i = 0; i < n_blocks; i++) {
        attn_key_range seen = attn_keys_in_unit(&w->blocks[i].x, begin, end);
        if (seen.begin == seen.end) continue;
        attn_tile_kind kind = attn_gradient_tile_at(head, &w->blocks[i], w->tile, begin, end, k, v);
        if (kind == ATTN_TILE_EMPTY) continue;
        attn_gradient_uncap(head, w->tile, end - begin);
        add_to_dq(head, w, i, kind, end - begin, k);
    }
}

static void dq_item(void *context, int64_t item, void *scratch) {
    const attn_backward *c = context;
    const attn_attention_plan *p = c->p;
    const attn_tensor *dq = &c->g->dq;
    attn_arena arena = { .begin = scratch };
    dq_worker w = dq_worker_in(p, &arena);
    int64_t heads = p->batch * p->heads;
    attn_head head = attn_head_at(p, item % heads / p->heads, item % p->heads, w.m);
    int64_t lanes = head.kernels->q_block, unit = head.kernels->k_block,
            n_groups = (p->q_len + GROUP * lanes - 1) / (GROUP * lanes);
    int64_t first = (n_groups - 1 - item / heads) * GROUP * lanes;
    attn_key_range some = { p->kv_len, 0 };
    int n = 0;
    for (int64_t i0 = first; n < GROUP && i0 < p->q_len; n++, i0 += lanes) {
        attn_gradient_block_at(c, &head, &w.blocks[n], i0);
        attn_fill(w.dq[n], p->dim * lanes, head.size, 0);
        w.begun[n] = false;
        attn_key_range seen = w.blocks[n].x.keys.some;
        if (seen.begin == seen.end) continue;
        some.begin = seen.begin < some.begin ? seen.begin : some.begin;
        some.end = seen.end > some.end ? seen.end : some.end;
    }
    for (int64_t j = some.begin / unit * unit; j < some.end; j += unit)
        dq_unit(&head, &w, n, j, j + unit < p->kv_len ? j + unit : p->kv_len);
    for (int i = 0; i < n; i++) {
        const attn_query_block *x = &w.blocks[i].x;
        int64_t at = head.b * dq->stride[0] + head.h * dq->stride[1] + x->i0 * dq->stride[2];
        attn_scale_elements(w.dq[i], p->dim * lanes, head.size, p->scale);
        head.kernels->unpack(w.dq[i], x->n_written, p->dim, attn_at(dq, at), dq->stride[2], p->dim > 1 ? dq->stride[3] : 1);
    }
}

/* ---- dk, dv: dv_j = sum_i p_ij do_i, dk_j = scale * sum_i ds_ij q_i ---------------------------------------------- */

typedef struct kv_context {
    const attn_backward *c;
    bool dk, dv;
    int64_t group; /* query heads whose gradients add up */
} kv_context;

typedef struct kv_worker {
    attn_tile_memory m;
    attn_gradient_tile tiles; /* GROUP of them, one after the other */
    attn_gradient_block block;
    void *q_panels; /* [GROUP] panels, for the additive score */
    void *q, *dout; /* [GROUP * q_block] rows in lines */
    void *dk, *dv;  /* [k_block][dim], [k_block][v_dim], columns rounded up to whole vectors */
    void *v_copy;   /* [k_block][v_dim] */
    uint64_t *live; /* [GROUP][k_block] */
} kv_worker;

static int64_t whole_vectors(const attn_attention_plan *p, int64_t columns) {
    int64_t lanes = attn_kernels_for(p->q.dtype)->lanes;
    return (columns + lanes - 1) / lanes * lanes;
}

static kv_worker kv_worker_in(const attn_attention_plan *p, attn_arena *a) {
    const attn_attention_kernels *k = attn_kernels_of(p);
    size_t size = attn_dtype_size(p->q.dtype);
    int64_t dim = whole_vectors(p, p->dim), v_dim = whole_vectors(p, p->v_dim), rows = (int64_t)GROUP * k->q_block;
    kv_worker w = { .m = attn_tile_memory_in(p, false, a),
                    .tiles = { .p = attn_take(a, rows, k->k_block, size), .ds = attn_take(a, rows, k->k_block, size) },
                    .block = attn_gradient_block_in(p, a),
                    .q = attn_take(a, rows, dim, size),
                    .dout = attn_take(a, rows, v_dim, size),
                    .dk = attn_take(a, k->k_block, dim, size),
                    .dv = attn_take(a, k->k_block, v_dim, size),
                    .live = attn_take(a, GROUP, k->k_block, sizeof(uint64_t)) };
    if (p->softcap > 0) w.tiles.capped = attn_take(a, k->q_block, k->k_block, size);
    if (!attn_values_lie_densely(p)) w.v_copy = attn_take(a, k->k_block, p->v_dim, size);
    return w;
}

/* Rows i0 .. i0 + n - 1 of the head's q or dout, in lines. */
static void pack_rows_in_lines(const attn_head *head, const attn_tensor *t, int64_t i0, int64_t n, void *lines) {
    int64_t at = head->b * t->stride[0] + head->h * t->stride[1] + i0 * t->stride[2];
    head->kernels->pack_lines(attn_at(t, at), t->stride[2], t->shape[3] > 1 ? t->stride[3] : 1, n, t->shape[3], lines);
}

static void gather(const attn_head *head, const kv_worker *w, const void *a, const void *x, int64_t n_keys, int64_t n_rows,
                   int64_t n_cols, const uint64_t *live, void *to) {
    head->kernels->gather(&(attn_gather){ .a = a,
                                          .a_block = head->kernels->k_block * head->kernels->q_block,
                                          .n_keys = n_keys,
                                          .n_rows = n_rows,
                                          .n_cols = n_cols,
                                          .x = x,
                                          .live = live ? w->live : NULL,
                                          .c = to,
                                          .c_row = whole_vectors(head->p, n_cols) });
}

/* The tiles of one block: zeros where it sees none of these keys. */
static attn_tile_kind kv_tile(const kv_context *kv, attn_head *head, kv_worker *w, int i, int64_t i0, attn_key_range keys,
                              attn_rows k, attn_rows v) {
    const attn_attention_kernels *kernels = head->kernels;
    int64_t n_keys = keys.end - keys.begin, size = kernels->k_block * kernels->q_block;
    attn_gradient_tile t = { .p = (char *)w->tiles.p + (size_t)(i * size) * head->size,
                             .ds = (char *)w->tiles.ds + (size_t)(i * size) * head->size,
                             .capped = w->tiles.capped };
    head->m.live = w->live + i * kernels->k_block;
    attn_gradient_block_at(kv->c, head, &w->block, i0);
    attn_key_range seen = attn_keys_in_unit(&w->block.x, keys.begin, keys.end);
    attn_tile_kind kind = ATTN_TILE_EMPTY;
    if (seen.begin < seen.end) kind = attn_gradient_tile_at(head, &w->block, t, keys.begin, keys.end, k, v);
    if (kind == ATTN_TILE_EMPTY) {
        attn_fill(t.p, n_keys * kernels->q_block, head->size, 0);
        attn_fill(t.ds, n_keys * kernels->q_block, head->size, 0);
    } else {
        attn_gradient_uncap(head, t, n_keys);
    }
    for (int64_t j = 0; kind != ATTN_TILE_PARTLY && j < n_keys; j++) head->m.live[j] = kind == ATTN_TILE_FULL ? ~(uint64_t)0 : 0;
    if (kv->dk && additive(kv->c->p) && kind != ATTN_TILE_EMPTY)
        kernels->additive_dk(&(attn_additive_gradient){ .ds = t.ds,
                                                        .live = kind == ATTN_TILE_PARTLY ? head->m.live : NULL,
                                                        .q = w->block.x.panel,
                                                        .k = k.data,
                                                        .k_row = k.row,
                                                        .n_keys = n_keys,
                                                        .dim = head->p->dim,
                                                        .weight = head->m.weight,
                                                        .dk = w->dk,
                                                        .dk_row = whole_vectors(head->p, head->p->dim) });
    return kind;
}

/* A group of blocks from row i0 on. */
static void kv_group(const kv_context *kv, attn_head *head, kv_worker *w, int64_t i0, attn_key_range keys, attn_rows k,
                     attn_rows v) {
    const attn_attention_plan *p = kv->c->p;
    int64_t lanes = head->kernels->q_block, n_keys = keys.end - keys.begin, n_rows = head->sight.q_length - i0;
    if (n_rows > GROUP * lanes) n_rows = GROUP * lanes;
    attn_block_keys seen = attn_rows_keys(&head->sight, i0, i0 + n_rows);
    if (seen.some.begin >= keys.end || seen.some.end <= keys.begin) return;
    bool partly = false, any = false;
    for (int i = 0; i * lanes < n_rows; i++) {
        attn_tile_kind kind = kv_tile(kv, head, w, i, i0 + i * lanes, keys, k, v);
        partly |= kind != ATTN_TILE_FULL;
        any |= kind != ATTN_TILE_EMPTY;
    }
    if (!any) return;
    if (kv->dv) {
        pack_rows_in_lines(head, &kv->c->g->dout, i0, n_rows, w->dout);
        bool skip = partly && !head->kernels->finite(w->dout, n_rows * whole_vectors(p, p->v_dim));
        gather(head, w, w->tiles.p, w->dout, n_keys, n_rows, p->v_dim, skip ? w->live : NULL, w->dv);
    }
    if (kv->dk && !additive(p)) {
        pack_rows_in_lines(head, &p->q, i0, n_rows, w->q);
        bool skip = partly && !head->kernels->finite(w->q, n_rows * whole_vectors(p, p->dim));
        gather(head, w, w->tiles.ds, w->q, n_keys, n_rows, p->dim, skip ? w->live : NULL, w->dk);
    }
}

/* Rows of a unit into a gradient. */
static void write_unit(const attn_tensor *t, int64_t b, int64_t h, attn_key_range keys, const void *rows, int64_t row,
                       size_t size) {
    for (int64_t j = keys.begin; j < keys.end; j++) {
        const char *from = (const char *)rows + (size_t)((j - keys.begin) * row) * size;
        int64_t at = b * t->stride[0] + h * t->stride[1] + j * t->stride[2];
        for (int64_t c = 0; c < t->shape[3]; c++) memcpy(attn_at(t, at + c * t->stride[3]), from + (size_t)c * size, size);
    }
}

static void kv_item(void *context, int64_t item, void *scratch) {
    const kv_context *kv = context;
    const attn_attention_plan *p = kv->c->p;
    attn_arena arena = { .begin = scratch };
    kv_worker w = kv_worker_in(p, &arena);
    size_t size = attn_dtype_size(p->q.dtype);
    int64_t unit = attn_kernels_of(p)->k_block, rows = (int64_t)GROUP * attn_kernels_of(p)->q_block,
            own_heads = p->heads / kv->group;
    int64_t b = item % (p->batch * own_heads) / own_heads, own = item % own_heads, begin = item / (p->batch * own_heads) * unit;
    attn_key_range keys = { begin, begin + unit < p->kv_len ? begin + unit : p->kv_len };
    int64_t dim = whole_vectors(p, p->dim), v_dim = whole_vectors(p, p->v_dim);
    attn_fill(w.dk, unit * dim, size, 0);
    attn_fill(w.dv, unit * v_dim, size, 0);
    for (int64_t h = own * kv->group; h < (own + 1) * kv->group; h++) {
        attn_head head = attn_head_at(p, b, h, w.m);
        attn_rows k = attn_keys_at(&head, keys.begin, keys.end), v = attn_values_at(&head, keys.begin, keys.end, w.v_copy);
        for (int64_t i0 = 0; i0 < head.sight.q_length; i0 += rows) kv_group(kv, &head, &w, i0, keys, k, v);
    }
    attn_scale_elements(w.dk, unit * dim, size, p->scale);
    if (kv->dk) write_unit(&kv->c->g->dk, b, own, keys, w.dk, dim, size);
    if (kv->dv) write_unit(&kv->c->g->dv, b, own, keys, w.dv, v_dim, size);
}

static void run_kv(const attn_backward *c, attn_session *session, bool dk, bool dv, int64_t group) {
    int64_t unit = attn_kernels_of(c->p)->k_block;
    kv_context kv = { .c = c, .dk = dk, .dv = dv, .group = group };
    if (dk || dv) attn_session_run(session, (c->p->kv_len + unit - 1) / unit * c->p->batch * (c->p->heads / group), kv_item, &kv);
}

/* ---- the call ---------------------------------------------------------------------------------------------- */

static bool own_dtype(const attn_tensor *t, int32_t dtype) { return !t->rank || t->dtype == dtype; }

bool attn_blocks_cover_backward(const attn_attention_plan *p, const attn_attention_plan_grads *g) {
    int32_t dtype = p->q.dtype;
    /* without query heads there is nothing to sum over: the reference writes the zeros */
    return p->heads > 0 && attn_blocks_cover(p) && own_dtype(&g->dout, dtype) && own_dtype(&g->dq, dtype) &&
           own_dtype(&g->dk, dtype) && own_dtype(&g->dv, dtype);
}

static size_t most(size_t a, size_t b) { return a > b ? a : b; }

attn_need attn_blocks_backward_need(const attn_attention_plan *p, const attn_attention_plan_grads *g) {
    attn_arena shared = { 0 }, dq = { 0 }, kv = { 0 };
    attn_row_deltas_in(p, &shared);
    attn_sums_in(p, g, &shared);
    dq_worker_in(p, &dq);
    kv_worker_in(p, &kv);
    return (attn_need){ .shared = shared.used,
                        .per_worker = most(most(dq.used, kv.used), most(attn_row_deltas_need(p), attn_sums_need(p))) };
}

void attn_blocks_backward(const attn_attention_plan *p, const attn_attention_plan_grads *g, attn_session *session) {
    attn_arena shared = { .begin = session->shared };
    attn_backward c = { .p = p, .g = g, .rows = attn_row_deltas_in(p, &shared) };
    attn_sums sums = attn_sums_in(p, g, &shared);
    int64_t group_rows = (int64_t)GROUP * attn_kernels_of(p)->q_block;
    attn_row_deltas_compute(&c, session);
    if (g->dq.rank) attn_session_run(session, (p->q_len + group_rows - 1) / group_rows * p->batch * p->heads, dq_item, &c);
    bool dk = g->dk.rank != 0, dv = g->dv.rank != 0;
    if (p->k_group == p->v_group) {
        run_kv(&c, session, dk, dv, p->k_group);
    } else {
        run_kv(&c, session, dk, false, p->k_group);
        run_kv(&c, session, false, dv, p->v_group);
    }
    attn_sums_compute(&c, &sums, session);
}
