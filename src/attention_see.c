/* SPDX-License-Identifier: Apache-2.0 */
/* see: top-k while the scores stream past, then maps of weights and scores by blocks of queries. What keys received is in
 * attention_blocks_received.c. */
#include "attention_see.h"
#include "attention_received.h"
#include "walk.h"

#include <math.h>
#include <string.h>

static double element(const void *x, int64_t i, size_t size) {
    return size == sizeof(float) ? (double)((const float *)x)[i] : ((const double *)x)[i];
}

/* ---- normalisers ------------------------------------------------------------------------------------------- */

bool attn_second_sweep(const attn_attention_plan *p) { return p->weights.rank || p->received.rank || p->pooled.rank; }

attn_row_norms attn_row_norms_in(const attn_attention_plan *p, attn_arena *a) {
    size_t size = attn_computing_size(p);
    return (attn_row_norms){ .max = attn_take(a, p->batch * p->heads, p->q_len, size),
                             .inverse = attn_take(a, p->batch * p->heads, p->q_len, size) };
}

static size_t norm_offset(const attn_head *head, const attn_query_block *x) {
    return (size_t)((head->b * head->p->heads + head->h) * head->p->q_len + x->i0) * head->size;
}

void attn_row_norms_keep(const attn_row_norms *n, const attn_head *head, const attn_query_block *x, const void *max,
                         const void *inverse) {
    size_t at = norm_offset(head, x), bytes = (size_t)x->n_written * head->size;
    memcpy(n->max + at, max, bytes);
    memcpy(n->inverse + at, inverse, bytes);
}

void attn_row_norms_load(const attn_row_norms *n, const attn_head *head, const attn_query_block *x, void *max, void *inverse) {
    size_t at = norm_offset(head, x), bytes = (size_t)x->n_written * head->size;
    attn_fill(max, head->kernels->q_block, head->size, 0);
    attn_fill(inverse, head->kernels->q_block, head->size, 0);
    memcpy(max, n->max + at, bytes);
    memcpy(inverse, n->inverse + at, bytes);
}

/* ---- top-k ------------------------------------------------------------------------------------------------- */

attn_top attn_top_in(const attn_attention_plan *p, attn_arena *a) {
    int64_t lanes = attn_kernels_of(p)->q_block;
    size_t size = attn_computing_size(p);
    return (attn_top){ .score = attn_take(a, p->top_k, lanes, size),
                       .key = attn_take(a, p->top_k, lanes, sizeof(int64_t)),
                       .threshold = attn_take(a, 1, lanes, size) };
}

/* A row's empty places weigh nothing. */
void attn_top_begin(const attn_head *head, attn_top *top) {
    int64_t lanes = head->kernels->q_block, n = head->p->top_k * lanes;
    attn_fill(top->score, n, head->size, head->p->weighting == ATTN_WEIGHT_NORMALIZED_SUM ? 0 : -INFINITY);
    for (int64_t i = 0; i < n; i++) top->key[i] = -1;
    attn_fill(top->threshold, lanes, head->size, NAN);
}

/* NaN counts as largest, so that it shows. Keys come in rising order: among equals the earlier one stays ahead. */
static bool exceeds(double x, double y) { return isnan(x) ? !isnan(y) : x > y; }

static void insert(const attn_head *head, attn_top *top, int64_t lane, double score, int64_t key) {
    int64_t lanes = head->kernels->q_block, at = head->p->top_k - 1;
    if (top->key[at * lanes + lane] >= 0 && !exceeds(score, element(top->score, at * lanes + lane, head->size))) return;
    for (; at > 0; at--) {
        int64_t before = (at - 1) * lanes + lane;
        if (top->key[before] >= 0 && !exceeds(score, element(top->score, before, head->size))) break;
        attn_fill((char *)top->score + (size_t)(at * lanes + lane) * head->size, 1, head->size,
                  element(top->score, before, head->size));
        top->key[at * lanes + lane] = top->key[before];
    }
    attn_fill((char *)top->score + (size_t)(at * lanes + lane) * head->size, 1, head->size, score);
    top->key[at * lanes + lane] = key;
    int64_t last = (head->p->top_k - 1) * lanes + lane;
    if (top->key[last] >= 0)
        attn_fill((char *)top->threshold + (size_t)lane * head->size, 1, head->size, element(top->score, last, head->size));
}

void attn_top_visit(const attn_head *head, const attn_query_block *x, attn_top *top, int64_t j0, int64_t n_keys,
                    attn_tile_kind kind) {
    int64_t lanes = head->kernels->q_block;
    head->kernels->above(head->m.s, n_keys, top->threshold, head->m.lanes);
    for (int64_t j = 0; j < n_keys; j++) {
        uint64_t candidates = head->m.lanes[j];
        if (kind == ATTN_TILE_PARTLY) candidates &= head->m.live[j];
        for (int64_t lane = 0; candidates != 0 && lane < x->n_rows; lane++)
            if (candidates >> lane & 1) insert(head, top, lane, element(head->m.s, j * lanes + lane, head->size), j0 + j);
    }
}

static void write_index(const attn_tensor *t, int64_t at, int64_t key) {
    if (t->dtype == ATTN_I32)
        *(int32_t *)attn_at(t, at) = (int32_t)key;
    else
        *(int64_t *)attn_at(t, at) = key;
}

void attn_top_end(const attn_head *head, const attn_query_block *x, attn_top *top, const void *max, const void *inverse) {
    const attn_attention_plan *p = head->p;
    const attn_tensor *index = &p->top_index, *weight = &p->top_weight;
    int64_t lanes = head->kernels->q_block;
    for (int64_t i = 0; index->rank && i < x->n_written; i++) {
        int64_t at = head->b * index->stride[0] + head->h * index->stride[1] + (x->i0 + i) * index->stride[2];
        for (int64_t rank = 0; rank < p->top_k; rank++)
            write_index(index, at + rank * index->stride[3], top->key[rank * lanes + i]);
    }
    if (!weight->rank) return;
    head->kernels->weigh_again[p->weighting](top->score, p->top_k, max, inverse);
    int64_t at = head->b * weight->stride[0] + head->h * weight->stride[1] + x->i0 * weight->stride[2];
    head->kernels->unpack(top->score, x->n_written, p->top_k, attn_at(weight, at), weight->stride[2], weight->stride[3]);
}

/* ---- the second sweep -------------------------------------------------------------------------------------- */

typedef struct see_context {
    const attn_attention_plan *p;
    const attn_row_norms *norms;
} see_context;

typedef struct see_worker {
    attn_tile_memory m;
    void *panel;
    void *max, *inverse; /* [q_block] */
} see_worker;

static see_worker see_worker_in(const attn_attention_plan *p, attn_arena *a) {
    const attn_attention_kernels *k = attn_kernels_of(p);
    size_t size = attn_computing_size(p);
    return (see_worker){ .m = attn_tile_memory_in(p, false, a),
                         .panel = attn_take(a, p->dim, k->q_block, size),
                         .max = attn_take(a, 1, k->q_block, size),
                         .inverse = attn_take(a, 1, k->q_block, size) };
}

/* ---- maps: a block of queries, and which of its rows go where ------------------------------------------------------ */

/* Rows slot .. slot + n_slots - 1 of the maps, which all stand in one block of queries. */
typedef struct map_block {
    int64_t head; /* of the maps */
    int64_t slot, n_slots, i0;
} map_block;

/* What item `slot` of the list begins: the rows after it that stand in the same block come along. Nothing, where it came along itself.
 * A list in rising order computes no block twice; any other order is as right. */
static map_block map_block_at(const attn_attention_plan *p, int64_t head, int64_t slot) {
    int64_t lanes = attn_kernels_of(p)->q_block;
    const int64_t *rows = p->seen_rows.index;
    if (!rows) {
        int64_t i0 = slot * lanes, n = p->seen_rows.n - i0 < lanes ? p->seen_rows.n - i0 : lanes;
        return (map_block){ .head = head, .slot = i0, .n_slots = n, .i0 = i0 };
    }
    map_block m = { .head = head, .slot = slot, .i0 = rows[slot] / lanes * lanes };
    if (slot > 0 && rows[slot - 1] / lanes * lanes == m.i0) return m;
    while (slot + m.n_slots < p->seen_rows.n && rows[slot + m.n_slots] / lanes * lanes == m.i0) m.n_slots++;
    return m;
}

static int64_t map_blocks(const attn_attention_plan *p) {
    int64_t lanes = attn_kernels_of(p)->q_block;
    return p->seen_rows.index ? p->seen_rows.n : (p->seen_rows.n + lanes - 1) / lanes;
}

/* The tile m.s of keys j0 .. */
static void write_tile(const attn_head *head, const map_block *m, const attn_tensor *t, int64_t j0, int64_t n_keys) {
    int64_t lanes = head->kernels->q_block;
    int64_t at = head->b * t->stride[0] + m->head * t->stride[1] + m->slot * t->stride[2] + j0 * t->stride[3];
    if (!head->p->seen_rows.index) {
        head->kernels->unpack(head->m.s, m->n_slots, n_keys, attn_at(t, at), t->stride[2], t->stride[3]);
        return;
    }
    for (int64_t i = 0; i < m->n_slots; i++) {
        int64_t lane = head->p->seen_rows.index[m->slot + i] - m->i0;
        attn_copy_strided(head->size, n_keys, (const char *)head->m.s + (size_t)lane * head->size, lanes,
                          attn_at(t, at + i * t->stride[2]), t->stride[3]);
    }
}

/* Scores before the masks, of every row and key: nothing is hidden at these stages. */
static void see_unmasked_scores(const attn_head *head, const map_block *m, const attn_query_block *x, int64_t j0, int64_t j1) {
    attn_tile_raw(head, x, j0, j1, attn_keys_at(head, j0, j1), (attn_rows){ NULL, 0 });
    if (head->p->scores_stage == ATTN_STAGE_CAPPED) attn_tile_cap(head, j1 - j0);
    write_tile(head, m, &head->p->scores, j0, j1 - j0);
}

static void see_masked_tile(const attn_head *head, const map_block *m, const attn_query_block *x, see_worker *w, int64_t j0,
                            int64_t j1) {
    const attn_attention_plan *p = head->p;
    int64_t n_keys = j1 - j0, n = n_keys * head->kernels->q_block;
    bool scores = p->scores.rank && p->scores_stage == ATTN_STAGE_WEIGHTED;
    attn_tile_kind kind = attn_tile_scores(head, x, j0, j1, attn_keys_at(head, j0, j1));
    if (scores) {
        if (kind == ATTN_TILE_EMPTY) attn_fill(w->m.s, n, head->size, -INFINITY);
        if (kind == ATTN_TILE_PARTLY) head->kernels->hide(w->m.s, n_keys, w->m.live, -INFINITY);
        write_tile(head, m, &p->scores, j0, n_keys);
    }
    if (!p->weights.rank) return;
    if (kind == ATTN_TILE_EMPTY) attn_fill(w->m.s, n, head->size, 0);
    if (kind == ATTN_TILE_PARTLY && p->weighting == ATTN_WEIGHT_NORMALIZED_SUM) head->kernels->hide(w->m.s, n_keys, w->m.live, 0);
    if (kind != ATTN_TILE_EMPTY) head->kernels->weigh_again[p->weighting](w->m.s, n_keys, w->max, w->inverse);
    if (kind == ATTN_TILE_PARTLY) head->kernels->hide(w->m.s, n_keys, w->m.live, 0);
    write_tile(head, m, &p->weights, j0, n_keys);
}

static void map_item(void *context, int64_t item, void *scratch) {
    const see_context *c = context;
    const attn_attention_plan *p = c->p;
    attn_arena arena = { .begin = scratch };
    int64_t heads = p->batch * p->seen_heads.n, b = item % heads / p->seen_heads.n;
    map_block m = map_block_at(p, item % p->seen_heads.n, item / heads);
    if (m.n_slots == 0) return;
    see_worker w = see_worker_in(p, &arena);
    attn_head head = attn_head_at(p, b, attn_listed(p->seen_heads, m.head), w.m), unpadded = head;
    int64_t unit = head.kernels->k_block;
    bool unmasked = p->scores.rank && p->scores_stage != ATTN_STAGE_WEIGHTED, masked = p->weights.rank || !unmasked;
    if (unmasked) {
        unpadded.sight.q_length = p->q_len;
        attn_query_block x = attn_query_block_at(&unpadded, m.i0, w.panel);
        for (int64_t j = 0; j < p->kv_len; j += unit)
            see_unmasked_scores(&unpadded, &m, &x, j, j + unit < p->kv_len ? j + unit : p->kv_len);
    }
    if (!masked) return;
    attn_query_block x = attn_query_block_at(&head, m.i0, w.panel);
    if (p->weights.rank) attn_row_norms_load(c->norms, &head, &x, w.max, w.inverse);
    for (int64_t j = 0; j < p->kv_len; j += unit)
        see_masked_tile(&head, &m, &x, &w, j, j + unit < p->kv_len ? j + unit : p->kv_len);
}

/* ---- all of it ------------------------------------------------------------------------------------------------------- */

size_t attn_see_need(const attn_attention_plan *p) {
    attn_arena a = { 0 };
    see_worker_in(p, &a);
    size_t received = attn_received_need(p);
    return a.used > received ? a.used : received;
}

void attn_see_maps(const attn_attention_plan *p, const attn_row_norms *norms, attn_session *session) {
    see_context c = { .p = p, .norms = norms };
    bool maps = (p->weights.rank || p->scores.rank) && p->kv_len > 0;
    if (maps) attn_session_run(session, map_blocks(p) * p->batch * p->seen_heads.n, map_item, &c);
    attn_see_received(p, norms, session);
}
