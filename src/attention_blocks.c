/* SPDX-License-Identifier: Apache-2.0 */
/* The blocked forward. A work item is a group of query blocks of one head; units of keys stream past it: score, weight, mix, and
 * what is to be seen. Items, blocks and units depend on the problem alone, never on the number of workers. */
#include "attention_blocks.h"
#include "attention_see.h"
#include "attention_tangent.h"
#include "attention_tile.h"

#include <math.h>
#include <string.h>

/* Blocks of an item: keys and values are read from memory, and values packed, once for all of them. Many, but not so many that few
 * threads share the items unevenly, nor that they crowd the unit of keys out of the second-level cache. */
enum { FEWEST_BLOCKS = 4, MOST_BLOCKS = 16, MOST_ROWS = 256, PLENTY = 32 /* items */ };

static int64_t blocks_of_head(const attn_attention_plan *p) {
    int64_t rows = attn_kernels_of(p)->q_block;
    return p->q_len / rows + (p->q_len % rows != 0);
}

/* Grows with the length, so that memory for the longest sequence is enough for all. */
static int64_t blocks_of_item(const attn_attention_plan *p) {
    int64_t own = blocks_of_head(p), most = MOST_ROWS / attn_kernels_of(p)->q_block;
    double shared = (double)own * (double)p->batch * (double)p->heads / PLENTY;
    int64_t n = shared < MOST_BLOCKS ? (int64_t)shared : MOST_BLOCKS;
    n = n > most ? most : n;
    n = n < FEWEST_BLOCKS ? FEWEST_BLOCKS : n;
    return n < own ? n : own;
}

/* ---- memory ---------------------------------------------------------------------------------------------- */

/* A block under way. */
typedef struct running_block {
    attn_query_block x;
    attn_row_state state;
    void *o;    /* [v_dim][q_block] */
    bool begun; /* o holds something */
    attn_top top;
    attn_tangent_block tangent;
} running_block;

typedef struct worker {
    attn_tile_memory m;
    running_block blocks[MOST_BLOCKS];
    const attn_attention_plan_tangents *t; /* NULL, but in forward mode */
    attn_tangent_unit tangent;
    void *factor, *inverse, *lse, *entropy, *sink; /* [q_block] */
} worker;

static worker worker_in(const attn_attention_plan *p, const attn_attention_plan_tangents *t, attn_arena *a) {
    const attn_attention_kernels *k = attn_kernels_of(p);
    size_t size = attn_computing_size(p);
    worker w = { .m = attn_tile_memory_in(p, true, a), .t = t };
    if (t) w.tangent = attn_tangent_unit_in(p, t, a);
    for (int64_t i = 0; i < blocks_of_item(p); i++) {
        running_block *r = &w.blocks[i];
        r->x.panel = attn_take(a, p->dim, k->q_block, size);
        r->o = attn_take(a, p->v_dim, k->q_block, size);
        r->state = (attn_row_state){ attn_take(a, 1, k->q_block, size), attn_take(a, 1, k->q_block, size),
                                     attn_take(a, 1, k->q_block, size) };
        if (p->top_k > 0) r->top = attn_top_in(p, a);
        if (t) r->tangent = attn_tangent_block_in(p, t, a);
    }
    w.factor = attn_take(a, 1, k->q_block, size);
    w.inverse = attn_take(a, 1, k->q_block, size);
    w.lse = attn_take(a, 1, k->q_block, size);
    w.entropy = attn_take(a, 1, k->q_block, size);
    if (p->sinks.rank) w.sink = attn_take(a, 1, k->q_block, size);
    return w;
}

/* ---- one block against one unit ---------------------------------------------------------------------------- */

/* The keys and values that all blocks of a group share. */
typedef struct key_unit {
    attn_key_range keys;
    attn_rows k, v; /* v: rows where they lie for a block of few rows, else groups of columns */
    bool few;
    attn_finiteness values;
} key_unit;

static const char *row_at(const attn_head *head, attn_rows rows, int64_t n) {
    return rows.data + n * rows.row * (int64_t)head->size;
}

static void mix(const attn_head *head, const running_block *r, const worker *w, const key_unit *u, int64_t skipped,
                int64_t n_keys, bool skip) {
    const uint64_t *live = skip ? w->m.live : NULL;
    if (u->few)
        head->kernels->mix_few(&(attn_few_mix){ .p = w->m.s,
                                                .v = row_at(head, u->v, skipped),
                                                .v_row = u->v.row,
                                                .n_keys = n_keys,
                                                .n_rows = r->x.n_rows,
                                                .v_dim = head->p->v_dim,
                                                .live = live,
                                                .accumulate = r->begun,
                                                .o = r->o });
    else
        head->kernels->mix(&(attn_mix_tile){ .p = w->m.s,
                                             .v = u->v.data,
                                             .n_packed = u->keys.end - u->keys.begin,
                                             .first = skipped,
                                             .n_keys = n_keys,
                                             .v_dim = head->p->v_dim,
                                             .live = live,
                                             .accumulate = r->begun,
                                             .o = r->o });
}
/* Whoever asks for the rows' normalisers alone needs no values. */
static bool mixes(const attn_attention_plan *p, const worker *w) { return p->out.rank || w->t; }

static void visit(const attn_head *head, running_block *r, worker *w, key_unit *u, attn_key_range keys) {
    const attn_attention_plan *p = head->p;
    int64_t n_keys = keys.end - keys.begin, skipped = keys.begin - u->keys.begin;
    attn_rows k = { row_at(head, u->k, skipped), u->k.row };
    attn_tile_kind kind = attn_tile_live(head, &r->x, keys.begin, keys.end);
    if (kind == ATTN_TILE_EMPTY) return;
    attn_rows next = { u->few ? row_at(head, u->v, skipped) : NULL, u->v.row };
    attn_tile_raw(head, &r->x, keys.begin, keys.end, k, next);
    attn_tile_cap(head, n_keys);
    if (w->t) attn_tangent_scores(head, w->t, &w->tangent, &r->tangent, &r->x, keys.begin, n_keys);
    kind = attn_tile_hide(head, &r->x, keys.begin, keys.end, kind);
    if (kind == ATTN_TILE_EMPTY) return;
    if (p->top_k > 0) attn_top_visit(head, &r->x, &r->top, keys.begin, n_keys, kind);
    bool moved = head->kernels->weigh[p->weighting](w->m.s, n_keys, &r->state, w->factor, p->entropy.rank != 0);
    if (!mixes(p, w)) return;
    if (w->t) attn_tangent_weigh(head, w->t, &w->tangent, &r->tangent, n_keys, kind, moved ? w->factor : NULL);
    if (p->dropout.on) {
        attn_tile_keep(head, &r->x, keys.begin, n_keys);
        head->kernels->multiply(w->m.s, w->m.keep, n_keys);
    }
    const bool skip = attn_has_to_skip(head, &r->x, n_keys, kind, u->v, u->keys.end - u->keys.begin, &u->values);
    if (w->t) attn_tangent_mix(head, w->t, &w->tangent, &r->tangent, &r->x, keys.begin, n_keys, kind, skip);
    if (moved && r->begun) head->kernels->rescale(r->o, p->v_dim, w->factor);
    mix(head, r, w, u, skipped, n_keys, skip);
    r->begun = true;
}

/* ---- begin, end -------------------------------------------------------------------------------------------- */

static void begin_block(const attn_head *head, const worker *w, running_block *r, int64_t i0) {
    int64_t lanes = head->kernels->q_block;
    r->x = attn_query_block_at(head, i0, r->x.panel);
    r->begun = false;
    attn_fill(r->state.max, lanes, head->size, -INFINITY);
    attn_fill(r->state.sum, lanes, head->size, 0);
    attn_fill(r->state.shifted, lanes, head->size, 0);
    if (head->p->top_k > 0) attn_top_begin(head, &r->top);
    if (w->t) attn_tangent_begin(head, w->t, &r->tangent, &r->x);
}

/* Each row's sink: its head's, which may be the row's own. */
static void load_sinks(const attn_head *head, const running_block *r, void *sinks) {
    const attn_attention_plan *p = head->p;
    int64_t own = p->heads_in_rows;
    for (int64_t i = 0; i < head->kernels->q_block; i++) {
        int64_t row = r->x.i0 + i < p->q_len ? r->x.i0 + i : p->q_len - 1;
        attn_fill((char *)sinks + (size_t)i * head->size, 1, head->size, attn_plan_sink(p, own ? head->h * own + row : head->h));
    }
}

static void end_block(const attn_head *head, running_block *r, worker *w, const attn_row_norms *norms) {
    const attn_attention_plan *p = head->p;
    if (p->sinks.rank) load_sinks(head, r, w->sink);
    head->kernels->finish(p->weighting, w->sink, &r->state, w->inverse, w->lse, w->entropy);
    if (!r->begun) memset(r->o, 0, (size_t)(p->v_dim * head->kernels->q_block) * head->size);
    head->kernels->rescale(r->o, p->v_dim, w->inverse);
    if (p->out.rank) attn_write_panel(head, &r->x, &p->out, r->o);
    if (w->t) attn_tangent_end(head, w->t, &r->tangent, &r->x, w->inverse, r->o);
    if (p->lse.rank) attn_write_rows(head, &r->x, &p->lse, w->lse);
    if (p->entropy.rank) attn_write_rows(head, &r->x, &p->entropy, w->entropy);
    if (norms->max) attn_row_norms_keep(norms, head, &r->x, r->state.max, w->inverse);
    if (p->top_k > 0) attn_top_end(head, &r->x, &r->top, r->state.max, w->inverse);
}

/* ---- a group of blocks ------------------------------------------------------------------------------------- */

typedef struct forward_context {
    const attn_attention_plan *p;
    const attn_attention_plan_tangents *t;
    attn_row_norms norms;
    int64_t n_groups, n_blocks; /* of one head, of a group */
} forward_context;

static void visit_unit(const attn_head *head, worker *w, int n_blocks, int64_t begin, int64_t end) {
    key_unit u = { .keys = { end, begin } };
    for (int i = 0; i < n_blocks; i++) {
        attn_key_range keys = attn_keys_in_unit(head, &w->blocks[i].x, begin, end);
        if (keys.begin == keys.end) continue;
        u.keys.begin = keys.begin < u.keys.begin ? keys.begin : u.keys.begin;
        u.keys.end = keys.end > u.keys.end ? keys.end : u.keys.end;
    }
    if (u.keys.begin >= u.keys.end) return;
    u.k = attn_keys_at(head, u.keys.begin, u.keys.end);
    u.few = n_blocks == 1 && !w->t && attn_block_is_few(head, &w->blocks[0].x);
    if (u.few) {
        u.v = attn_values_at(head, u.keys.begin, u.keys.end, attn_values_lie_densely(head->p) ? NULL : w->m.v);
    } else if (mixes(head->p, w)) {
        attn_pack_values(head, u.keys.begin, u.keys.end);
        u.v = (attn_rows){ w->m.v, head->p->v_dim };
    }
    if (w->t) attn_tangent_unit_at(head, w->t, &w->tangent, u.keys, u.k);
    for (int i = 0; i < n_blocks; i++) {
        attn_key_range keys = attn_keys_in_unit(head, &w->blocks[i].x, begin, end);
        if (keys.begin < keys.end) visit(head, &w->blocks[i], w, &u, keys);
    }
}

/* Items begin with the last group of every head: under a causal mask it sees the most keys. */
static void forward_item(void *context, int64_t item, void *scratch) {
    const forward_context *c = context;
    const attn_attention_plan *p = c->p;
    attn_arena arena = { .begin = scratch };
    worker w = worker_in(p, c->t, &arena);
    int64_t heads = p->batch * p->heads, group = c->n_groups - 1 - item / heads, b = item % heads / p->heads;
    attn_head head = attn_head_at(p, b, item % p->heads, w.m);
    int64_t lanes = head.kernels->q_block, unit = head.kernels->k_block, i0 = group * c->n_blocks * lanes;
    attn_key_range some = { p->kv_len, 0 };
    int n_blocks = 0;
    for (; n_blocks < c->n_blocks && i0 < p->q_len; n_blocks++, i0 += lanes) {
        running_block *r = &w.blocks[n_blocks];
        begin_block(&head, &w, r, i0);
        if (r->x.keys.some.begin == r->x.keys.some.end) continue;
        some.begin = r->x.keys.some.begin < some.begin ? r->x.keys.some.begin : some.begin;
        some.end = r->x.keys.some.end > some.end ? r->x.keys.some.end : some.end;
    }
    for (int64_t j = some.begin / unit * unit; j < some.end; j += unit) visit_unit(&head, &w, n_blocks, j, j + unit);
    for (int i = 0; i < n_blocks; i++) end_block(&head, &w.blocks[i], &w, &c->norms);
}

/* ---- the call ---------------------------------------------------------------------------------------------- */

bool attn_blocks_cover(const attn_attention_plan *p) {
    return attn_kernels_of(p) != NULL && attn_kernels_of(p)->weigh[p->weighting] && attn_kernels_take(p, &p->out) &&
           attn_kernels_take(p, &p->bias) && attn_kernels_take(p, &p->score_weight);
}

static size_t most(size_t a, size_t b) { return a > b ? a : b; }

size_t attn_blocks_rows_need(const attn_attention_plan *p, const attn_attention_plan_tangents *t) {
    attn_arena a = { 0 };
    worker_in(p, t, &a);
    return a.used;
}

attn_need attn_blocks_need(const attn_attention_plan *p) {
    attn_arena shared = { 0 };
    if (attn_second_sweep(p)) attn_row_norms_in(p, &shared);
    return (attn_need){ .shared = shared.used, .per_worker = most(attn_blocks_rows_need(p, NULL), attn_see_need(p)) };
}

void attn_blocks_rows(const attn_attention_plan *p, const attn_attention_plan_tangents *t, const attn_row_norms *norms,
                      attn_session *session) {
    if (p->q_len == 0) return;
    forward_context c = { .p = p, .t = t, .norms = *norms, .n_blocks = blocks_of_item(p) };
    c.n_groups = (blocks_of_head(p) + c.n_blocks - 1) / c.n_blocks;
    attn_session_run(session, c.n_groups * p->batch * p->heads, forward_item, &c);
}

void attn_blocks_forward(const attn_attention_plan *p, attn_session *session) {
    attn_arena shared = { .begin = session->shared };
    attn_row_norms norms = { NULL, NULL };
    if (attn_second_sweep(p)) norms = attn_row_norms_in(p, &shared);
    attn_blocks_rows(p, NULL, &norms, session);
    attn_see_maps(p, &norms, session);
}

/* ---- forward mode ------------------------------------------------------------------------------------------ */

bool attn_blocks_cover_jvp(const attn_attention_plan *p, const attn_attention_plan_tangents *t) {
    const attn_tensor *all[] = { &t->dq, &t->dk, &t->dv, &t->dbias, &t->dout };
    for (int i = 0; i < 5; i++)
        if (!attn_kernels_take(p, all[i])) return false;
    return attn_blocks_cover(p);
}

attn_need attn_blocks_jvp_need(const attn_attention_plan *p, const attn_attention_plan_tangents *t) {
    return (attn_need){ .per_worker = attn_blocks_rows_need(p, t) };
}

void attn_blocks_jvp(const attn_attention_plan *p, const attn_attention_plan_tangents *t, attn_session *session) {
    attn_blocks_rows(p, t, &(attn_row_norms){ NULL, NULL }, session);
}
