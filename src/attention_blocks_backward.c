/* SPDX-License-Identifier: Apache-2.0 */
/* The blocked backward. A work item is a chunk of keys under the query heads that share it: blocks of queries stream past, weights
 * and score gradients are computed once, and dk, dv and this chunk's share of dq are made from them. Chunks have a fixed size;
 * their shares of dq are added up in the order of keys, WAVE chunks at a time so that memory stays a multiple of q.
 *
 * In the second order tiles hold other numbers (attention_gradient.h), and the backward's own score gradients meet ddk and ddq:
 * dq_i = scale sum_j ds_ij k_j + slope_ij ddk_j, dk_j = scale sum_i ds_ij q_i + slope_ij ddq_i. */
#include "attention_blocks.h"
#include "attention_gradient.h"
#include "attention_sums.h"
#include "attention_unit.h"
#include "walk.h"

#include <string.h>

enum {
    GROUP = 4, /* blocks that meet a unit of keys together */
    CHUNK = 4, /* units of a chunk */
    WAVE = 4   /* chunks of a wave */
};

static bool additive(const attn_attention_plan *p) { return p->score == ATTN_ADDITIVE; }
static bool cosine(const attn_attention_plan *p) { return p->score == ATTN_COSINE; }

static int64_t whole_vectors(const attn_attention_plan *p, int64_t columns) {
    int64_t lanes = attn_kernels_for(attn_computing_dtype(p))->lanes;
    return (columns + lanes - 1) / lanes * lanes;
}

/* ---- memory ------------------------------------------------------------------------------------------------ */

/* What is made in one wave: dq of all or none, dk and dv for heads shared by `group` query heads. */
typedef struct wave_context {
    const attn_backward *c;
    bool dq, dk, dv;
    int64_t group, first_chunk, n_chunks, n_blocks;
    void *shares; /* [WAVE][batch, heads, blocks] panels [dim][q_block] of dq */
    void *totals; /* [batch, heads, blocks] panels: the shares of earlier waves; a single chunk's share is the total itself */
} wave_context;

/* Keys of a chunk, or their directions, in groups of columns, unit after unit. */
typedef struct packed_keys {
    void *groups; /* NULL: there are none */
    attn_finiteness finite[CHUNK];
} packed_keys;

/* Rows of a group of blocks in lines. */
typedef struct packed_rows {
    void *lines; /* [GROUP * q_block] rows; NULL: there are none */
    attn_finiteness finite;
} packed_rows;

typedef struct chunk_worker {
    attn_tile_memory m;
    attn_gradient_tile tiles; /* GROUP of them, one after the other */
    attn_gradient_block blocks[GROUP];
    uint64_t *live; /* [GROUP][k_block] */
    packed_rows q, dout, ddq;
    packed_keys k_groups, ddk_groups;
    void *unit_q;        /* [GROUP * q_block][dim] queries of length 1, for the cosine score */
    void *dk, *dv;       /* [chunk][dim], [chunk][v_dim], columns rounded up to whole vectors */
    void *v_copy;        /* [k_block][v_dim] */
    void *rows;          /* in the second order: [k_block] keys and directions, as attn_tangent_rows has them */
    void *ddv_copy;      /* [k_block][v_dim] */
    attn_rows ddv;       /* the unit's */
    attn_key_range unit; /* keys that are packed together */
    attn_key_range keys; /* those of them that are at work: seen by the group */
    attn_rows k, v;      /* and their rows */
    attn_tile_kind kinds[GROUP];
    attn_key_range seen[GROUP]; /* those of the keys at work that a block sees */
} chunk_worker;

static chunk_worker chunk_worker_in(const attn_attention_plan *p, const attn_attention_plan_tangents *along, attn_arena *a) {
    const attn_attention_kernels *k = attn_kernels_of(p);
    size_t size = attn_computing_size(p);
    int64_t dim = whole_vectors(p, p->dim), v_dim = whole_vectors(p, p->v_dim), rows = (int64_t)GROUP * k->q_block;
    int64_t keys = (int64_t)CHUNK * k->k_block;
    chunk_worker w = { .m = attn_tile_memory_in(p, false, a),
                       .tiles = { .p = attn_take(a, rows, k->k_block, size), .ds = attn_take(a, rows, k->k_block, size) },
                       .live = attn_take(a, GROUP, k->k_block, sizeof(uint64_t)),
                       .q.lines = attn_take(a, rows, dim, size),
                       .dout.lines = attn_take(a, rows, v_dim, size),
                       .dk = attn_take(a, keys, dim, size),
                       .dv = attn_take(a, keys, v_dim, size),
                       .k_groups.groups = attn_take(a, keys, p->dim, size) };
    for (int i = 0; i < GROUP; i++) w.blocks[i] = attn_gradient_block_in(p, along, a);
    if (cosine(p)) w.unit_q = attn_take(a, rows, p->dim, size);
    if (p->softcap > 0) w.tiles.capped = attn_take(a, k->q_block, k->k_block, size);
    if (!attn_values_lie_densely(p)) w.v_copy = attn_take(a, k->k_block, p->v_dim, size);
    if (!along) return w;
    w.tiles.slope = attn_take(a, rows, k->k_block, size);
    w.tiles.r = attn_take(a, k->q_block, k->k_block, size);
    w.rows = attn_take(a, attn_tangent_halves(along) * k->k_block, p->dim, size);
    if (along->dk.rank) w.ddk_groups.groups = attn_take(a, keys, p->dim, size);
    if (along->dq.rank) w.ddq.lines = attn_take(a, rows, dim, size);
    if (along->dv.rank) w.ddv_copy = attn_take(a, k->k_block, p->v_dim, size);
    return w;
}

static size_t panel_bytes(const attn_head *head) { return (size_t)(head->p->dim * head->kernels->q_block) * head->size; }

/* Where a block's panel lies in `panels` of every block of every head. */
static void *panel_at(const wave_context *c, const attn_head *head, void *panels, int64_t block) {
    int64_t n = (head->b * head->p->heads + head->h) * c->n_blocks + block;
    return (char *)panels + (size_t)n * panel_bytes(head);
}

/* The panels of chunk `chunk` of the wave. */
static void *share_at(const wave_context *c, const attn_head *head, int64_t chunk, int64_t block) {
    int64_t n = c->c->p->batch * c->c->p->heads * c->n_blocks;
    return panel_at(c, head, (char *)c->shares + (size_t)(chunk * n) * panel_bytes(head), block);
}

/* ---- a group of blocks against a unit of keys ---------------------------------------------------------------- */

static attn_gradient_tile tile_of(const attn_head *head, const chunk_worker *w, int i) {
    size_t at = (size_t)(i * head->kernels->k_block * head->kernels->q_block) * head->size;
    attn_gradient_tile t = { (char *)w->tiles.p + at, (char *)w->tiles.ds + at, w->tiles.capped, NULL, w->tiles.r };
    if (w->tiles.slope) t.slope = (char *)w->tiles.slope + at;
    return t;
}

static void *at_key(const attn_head *head, void *tile, int64_t j) {
    return (char *)tile + (size_t)(j * head->kernels->q_block) * head->size;
}

static attn_rows rows_from(const attn_head *head, attn_rows rows, int64_t j) {
    return (attn_rows){ (const char *)rows.data + (size_t)(j * rows.row) * head->size, rows.row };
}

/* A tile is made for the keys that the block sees; the others at work get zeros, and no row sees them. */
static void blank_unseen(const attn_head *head, const chunk_worker *w, int i, attn_gradient_tile t) {
    int64_t lanes = head->kernels->q_block, begin = w->seen[i].begin - w->keys.begin, end = w->seen[i].end - w->keys.begin;
    int64_t n_keys = w->keys.end - w->keys.begin;
    uint64_t *live = w->live + i * head->kernels->k_block;
    void *tiles[] = { t.p, t.ds, t.slope };
    for (int m = 0; m < 3 && tiles[m]; m++) {
        attn_fill(tiles[m], begin * lanes, head->size, 0);
        attn_fill(at_key(head, tiles[m], end), (n_keys - end) * lanes, head->size, 0);
    }
    memset(live, 0, (size_t)begin * sizeof *live);
    memset(live + end, 0, (size_t)(n_keys - end) * sizeof *live);
    if (w->kinds[i] == ATTN_TILE_FULL) memset(live + begin, 0xff, (size_t)(end - begin) * sizeof *live);
}

/* Weights and score gradients of block i. */
static void compute_tile(attn_head *head, const attn_attention_plan_tangents *along, chunk_worker *w, int i) {
    const attn_gradient_block *block = &w->blocks[i];
    attn_key_range seen = attn_keys_in_unit(head, &block->x, w->keys.begin, w->keys.end);
    attn_tile_kind kind = ATTN_TILE_EMPTY;
    if (along && seen.begin < seen.end) seen = w->keys; /* the directions of their rows are packed together */
    int64_t n = seen.end - seen.begin, skipped = n > 0 ? seen.begin - w->keys.begin : 0;
    attn_gradient_tile whole = tile_of(head, w, i), t = whole;
    t.p = at_key(head, whole.p, skipped);
    t.ds = at_key(head, whole.ds, skipped);
    attn_rows k = rows_from(head, w->k, skipped), v = rows_from(head, w->v, skipped);
    head->m.live = w->live + i * head->kernels->k_block + skipped;
    if (n > 0 && along)
        kind = attn_second_tile_at(head, along, block, t, seen.begin, seen.end, k, v, w->rows, w->ddv);
    else if (n > 0)
        kind = attn_gradient_tile_at(head, block, t, seen.begin, seen.end, k, v);
    if (kind != ATTN_TILE_EMPTY && !along) attn_gradient_uncap(head, t, n);
    w->kinds[i] = kind;
    w->seen[i] = kind == ATTN_TILE_EMPTY ? (attn_key_range){ w->keys.begin, w->keys.begin } : seen;
    blank_unseen(head, w, i, whole);
}

/* Whether rows have to be left out of sums with numbers that are 0 where they are not seen: some number is not finite. */
static bool has_to_skip(const attn_head *head, attn_finiteness *known, const void *x, int64_t n) {
    if (*known == ATTN_FINITENESS_UNKNOWN) *known = head->kernels->finite(x, n) ? ATTN_FINITE : ATTN_NOT_FINITE;
    return *known == ATTN_NOT_FINITE;
}

/* dq_i += sum_j ds_ij k_j: a mix of keys, of the unit at work. */
static void add_dq(const attn_head *head, chunk_worker *w, int i, void *ds, packed_keys *k, void *dq, bool accumulate) {
    int64_t unit = head->kernels->k_block, n_packed = w->unit.end - w->unit.begin, number = w->unit.begin / unit % CHUNK;
    attn_key_range seen = w->seen[i];
    int64_t skipped = seen.begin - w->keys.begin;
    const void *groups = (const char *)k->groups + (size_t)(number * unit * head->p->dim) * head->size;
    bool skip = w->kinds[i] == ATTN_TILE_PARTLY && has_to_skip(head, &k->finite[number], groups, n_packed * head->p->dim);
    head->kernels->mix(&(attn_mix_tile){ .p = at_key(head, ds, skipped),
                                         .v = groups,
                                         .n_packed = n_packed,
                                         .first = seen.begin - w->unit.begin,
                                         .n_keys = seen.end - seen.begin,
                                         .v_dim = head->p->dim,
                                         .live = skip ? w->live + i * unit + skipped : NULL,
                                         .accumulate = accumulate,
                                         .o = dq });
}

/* The additive score's slope depends on q and k together: dq and dk from the same terms. */
static void add_additive(const wave_context *c, const attn_head *head, chunk_worker *w, int i, void *dk, void *dq) {
    attn_additive_gradient t = { .ds = tile_of(head, w, i).ds,
                                 .live = w->kinds[i] == ATTN_TILE_PARTLY ? w->live + i * head->kernels->k_block : NULL,
                                 .q = w->blocks[i].x.panel,
                                 .k = w->k.data,
                                 .k_row = w->k.row,
                                 .n_keys = w->keys.end - w->keys.begin,
                                 .dim = head->p->dim,
                                 .weight = head->m.weight,
                                 .scratch = head->m.powers,
                                 .dq = dq,
                                 .dk = dk,
                                 .dk_row = whole_vectors(head->p, head->p->dim) };
    if (c->dq) head->kernels->additive_dq(&t);
    if (c->dk) head->kernels->additive_dk(&t);
}

/* Whether keys at work are not in block i's tile. */
static bool sees_part(const chunk_worker *w, int i) { return w->seen[i].end - w->seen[i].begin < w->keys.end - w->keys.begin; }

/* to[j] += sum_i a[j][i] rows[i], a being the group's weights or score gradients. */
static void gather(const attn_head *head, const chunk_worker *w, const void *a, packed_rows *rows, int64_t n_rows, int64_t n_cols,
                   void *to) {
    int64_t row = whole_vectors(head->p, n_cols), lanes = head->kernels->q_block;
    bool partly = false;
    for (int i = 0; i * lanes < n_rows; i++) partly |= w->kinds[i] != ATTN_TILE_FULL || sees_part(w, i);
    const uint64_t *live = partly && has_to_skip(head, &rows->finite, rows->lines, n_rows * row) ? w->live : NULL;
    head->kernels->gather(&(attn_gather){ .a = a,
                                          .a_block = head->kernels->k_block * lanes,
                                          .n_keys = w->keys.end - w->keys.begin,
                                          .n_rows = n_rows,
                                          .n_cols = n_cols,
                                          .x = rows->lines,
                                          .live = live,
                                          .c = to,
                                          .c_row = row });
}

/* ---- a group of blocks against a chunk ----------------------------------------------------------------------- */

/* Rows i0 .. i0 + n - 1 of the head's q or dout. */
static void pack_rows_in_lines(const attn_head *head, const attn_tensor *t, int64_t i0, int64_t n, packed_rows *to) {
    int64_t at = head->b * t->stride[0] + head->h * t->stride[1] + i0 * t->stride[2];
    to->finite = ATTN_FINITENESS_UNKNOWN;
    if (t->dtype == head->dtype) {
        head->kernels->pack_lines(attn_at(t, at), t->stride[2], t->shape[3] > 1 ? t->stride[3] : 1, n, t->shape[3], to->lines);
        return;
    }
    attn_load_rows(head, t, at, t->stride[2], t->stride[3], n, t->shape[3], head->m.wide);
    head->kernels->pack_lines(head->m.wide, t->shape[3], 1, n, t->shape[3], to->lines);
}

/* The same of q with length 1. */
static void pack_unit_rows_in_lines(const attn_head *head, int64_t i0, int64_t n, void *rows, packed_rows *to) {
    const attn_tensor *q = &head->p->q;
    int64_t dim = head->p->dim;
    to->finite = ATTN_FINITENESS_UNKNOWN;
    for (int64_t i = 0; i < n; i++) {
        char *row = (char *)rows + (size_t)(i * dim) * head->size;
        int64_t at = head->b * q->stride[0] + head->h * q->stride[1] + (i0 + i) * q->stride[2];
        attn_load_elements(head, q, at, q->stride[3], dim, row);
        attn_unit_vector(row, dim, 1, head->size);
    }
    head->kernels->pack_lines(rows, dim, 1, n, dim, to->lines);
}

/* The unit's keys along their directions, and those of its values. */
static void load_directions(const attn_head *head, const attn_attention_plan_tangents *along, chunk_worker *w) {
    attn_tangent_rows(head, along, w->keys.begin, w->keys.end, w->k, w->rows);
    if (along->dv.rank)
        w->ddv = attn_rows_of(head, &along->dv, head->h / head->p->v_group, w->keys.begin, w->keys.end, w->ddv_copy);
}

/* The keys of the unit that some block of the group sees: from the first to the last. */
static attn_key_range keys_at_work(const attn_head *head, const chunk_worker *w, int64_t n_rows) {
    attn_key_range keys = { w->unit.end, w->unit.begin };
    for (int i = 0; i * head->kernels->q_block < n_rows; i++) {
        attn_key_range seen = attn_keys_in_unit(head, &w->blocks[i].x, w->unit.begin, w->unit.end);
        if (seen.begin >= seen.end) continue;
        if (seen.begin < keys.begin) keys.begin = seen.begin;
        if (seen.end > keys.end) keys.end = seen.end;
    }
    return keys;
}

static void visit_unit(const wave_context *c, attn_head *head, chunk_worker *w, int64_t chunk, int64_t chunk_begin, int64_t i0,
                       int64_t n_rows, bool *begun) {
    const attn_attention_plan *p = head->p;
    int64_t lanes = head->kernels->q_block, skipped = w->keys.begin - chunk_begin;
    const attn_attention_plan_tangents *along = c->c->g->along;
    void *dk = (char *)w->dk + (size_t)(skipped * whole_vectors(p, p->dim)) * head->size;
    void *dv = (char *)w->dv + (size_t)(skipped * whole_vectors(p, p->v_dim)) * head->size;
    bool any = false;
    w->k = attn_keys_at(head, w->keys.begin, w->keys.end);
    w->v = attn_values_at(head, w->keys.begin, w->keys.end, w->v_copy);
    if (along) load_directions(head, along, w);
    for (int i = 0; i * lanes < n_rows; i++) {
        compute_tile(head, along, w, i);
        if (w->kinds[i] == ATTN_TILE_EMPTY) continue;
        void *dq = c->dq ? share_at(c, head, chunk, i0 / lanes + i) : NULL;
        any = true;
        if (additive(p)) {
            add_additive(c, head, w, i, dk, dq);
        } else if (c->dq) {
            attn_gradient_tile t = tile_of(head, w, i);
            add_dq(head, w, i, t.ds, &w->k_groups, dq, begun[i]);
            if (w->ddk_groups.groups) add_dq(head, w, i, t.slope, &w->ddk_groups, dq, true);
            begun[i] = true;
        }
    }
    if (!any) return;
    if (c->dv) gather(head, w, w->tiles.p, &w->dout, n_rows, p->v_dim, dv);
    if (c->dk && !additive(p)) gather(head, w, w->tiles.ds, &w->q, n_rows, p->dim, dk);
    if (c->dk && w->ddq.lines) gather(head, w, w->tiles.slope, &w->ddq, n_rows, p->dim, dk);
}

/* Zeros for the blocks of a group that no unit has begun. */
static void clear_shares(const wave_context *c, const attn_head *head, int64_t chunk, int64_t i0, const bool *begun) {
    int64_t block = i0 / head->kernels->q_block;
    for (int i = 0; c->dq && i < GROUP && block + i < c->n_blocks; i++)
        if (!begun[i]) memset(share_at(c, head, chunk, block + i), 0, panel_bytes(head));
}

static void visit_group(const wave_context *c, attn_head *head, chunk_worker *w, int64_t chunk, attn_key_range keys, int64_t i0) {
    const attn_attention_plan *p = head->p;
    int64_t lanes = head->kernels->q_block, unit = head->kernels->k_block, n_rows = head->sight.q_length - i0;
    bool begun[GROUP] = { false };
    if (n_rows > GROUP * lanes) n_rows = GROUP * lanes;
    attn_key_range some = attn_rows_keys(&head->sight, i0, i0 + n_rows).some;
    bool sees = n_rows > 0 && some.begin < keys.end && some.end > keys.begin;
    if (additive(p) || !sees) clear_shares(c, head, chunk, i0, begun);
    if (!sees) return;
    for (int i = 0; i * lanes < n_rows; i++) attn_gradient_block_at(c->c, head, &w->blocks[i], i0 + i * lanes);
    if (c->dv) pack_rows_in_lines(head, &c->c->g->dout, i0, n_rows, &w->dout);
    if (c->dk && cosine(p)) pack_unit_rows_in_lines(head, i0, n_rows, w->unit_q, &w->q);
    if (c->dk && !additive(p) && !cosine(p)) pack_rows_in_lines(head, &p->q, i0, n_rows, &w->q);
    if (c->dk && w->ddq.lines) pack_rows_in_lines(head, &c->c->g->along->dq, i0, n_rows, &w->ddq);
    for (int64_t j = keys.begin; j < keys.end; j += unit) {
        w->unit = (attn_key_range){ j, j + unit < keys.end ? j + unit : keys.end };
        w->keys = keys_at_work(head, w, n_rows);
        if (w->keys.begin < w->keys.end) visit_unit(c, head, w, chunk, keys.begin, i0, n_rows, begun);
    }
    if (!additive(p)) clear_shares(c, head, chunk, i0, begun);
}

/* ---- a chunk of keys ----------------------------------------------------------------------------------------- */

/* Rows of a chunk into a gradient. */
static void write_chunk(const attn_head *head, const attn_tensor *t, int64_t own, attn_key_range keys, const void *rows,
                        int64_t row) {
    int64_t at = head->b * t->stride[0] + own * t->stride[1];
    for (int64_t j = keys.begin; j < keys.end; j++)
        attn_store_elements(head, (const char *)rows + (size_t)((j - keys.begin) * row) * head->size, t->shape[3], t,
                            at + j * t->stride[2], t->shape[3] > 1 ? t->stride[3] : 1);
}

static void pack_chunk(const attn_head *head, const attn_tensor *k, attn_key_range keys, packed_keys *to) {
    int64_t unit = head->kernels->k_block, dim = head->p->dim;
    int64_t at = head->b * k->stride[0] + head->h / head->p->k_group * k->stride[1];
    for (int64_t j = keys.begin; j < keys.end; j += unit) {
        int64_t n = j + unit < keys.end ? unit : keys.end - j;
        to->finite[(j - keys.begin) / unit] = ATTN_FINITENESS_UNKNOWN;
        void *groups = (char *)to->groups + (size_t)((j - keys.begin) * dim) * head->size;
        if (cosine(head->p)) {
            attn_rows rows = attn_keys_at(head, j, j + n);
            head->kernels->pack_groups(rows.data, rows.row, 1, n, dim, groups);
        } else {
            attn_pack_groups(head, k, at + j * k->stride[2], k->stride[2], k->stride[3], n, dim, groups);
        }
    }
}

/* dk through the length of the keys. */
static void finish_cosine(const attn_head *head, int64_t own, attn_key_range keys, void *dk, int64_t row, void *key) {
    const attn_tensor *k = &head->p->k;
    for (int64_t j = keys.begin; j < keys.end; j++) {
        attn_load_elements(head, k, head->b * k->stride[0] + own * k->stride[1] + j * k->stride[2], k->stride[3], head->p->dim,
                           key);
        attn_unit_gradient(key, 1, (char *)dk + (size_t)((j - keys.begin) * row) * head->size, 1, head->p->dim, head->size);
    }
}

static void chunk_item(void *context, int64_t item, void *scratch) {
    const wave_context *c = context;
    const attn_attention_plan *p = c->c->p;
    attn_arena arena = { .begin = scratch };
    chunk_worker w = chunk_worker_in(p, c->c->g->along, &arena);
    size_t size = attn_computing_size(p);
    const attn_attention_kernels *kernels = attn_kernels_of(p);
    int64_t own_heads = p->heads / c->group, owners = p->batch * own_heads, chunk = item / owners;
    int64_t b = item % owners / own_heads, own = item % own_heads, length = (int64_t)CHUNK * kernels->k_block;
    attn_key_range keys = { (c->first_chunk + chunk) * length, (c->first_chunk + chunk + 1) * length };
    if (keys.end > p->kv_len) keys.end = p->kv_len;
    int64_t dim = whole_vectors(p, p->dim), v_dim = whole_vectors(p, p->v_dim), n_keys = keys.end - keys.begin;
    attn_fill(w.dk, n_keys * dim, size, 0);
    attn_fill(w.dv, n_keys * v_dim, size, 0);
    for (int64_t h = own * c->group; h < (own + 1) * c->group; h++) {
        attn_head head = attn_head_at(p, b, h, w.m);
        if (c->dq && !additive(p)) pack_chunk(&head, &p->k, keys, &w.k_groups);
        if (c->dq && w.ddk_groups.groups) pack_chunk(&head, &c->c->g->along->dk, keys, &w.ddk_groups);
        for (int64_t i0 = 0; i0 < p->q_len; i0 += GROUP * kernels->q_block) visit_group(c, &head, &w, chunk, keys, i0);
    }
    attn_scale_elements(w.dk, n_keys * dim, size, p->scale);
    const attn_head any = attn_head_at(p, b, own * c->group, w.m);
    if (c->dk && cosine(p)) finish_cosine(&any, own, keys, w.dk, dim, w.unit_q);
    if (c->dk) write_chunk(&any, &c->c->g->dk, own, keys, w.dk, dim);
    if (c->dv) write_chunk(&any, &c->c->g->dv, own, keys, w.dv, v_dim);
}

/* ---- dq: the sum of its shares --------------------------------------------------------------------------------- */

static void add_elements(void *to, const void *from, int64_t n, size_t size) {
    for (int64_t i = 0; i < n; i++) {
        if (size == sizeof(float))
            ((float *)to)[i] += ((const float *)from)[i];
        else
            ((double *)to)[i] += ((const double *)from)[i];
    }
}

/* One block: the wave's shares are added to the total, which is the first share to begin with; after the last wave that is dq. */
static void dq_item(void *context, int64_t item, void *scratch) {
    const wave_context *c = context;
    const attn_attention_plan *p = c->c->p;
    const attn_tensor *dq = &c->c->g->dq;
    attn_arena arena = { .begin = scratch };
    int64_t head_number = item / c->n_blocks, block = item % c->n_blocks;
    const attn_head head = attn_head_at(p, head_number / p->heads, head_number % p->heads, attn_tile_memory_in(p, false, &arena));
    int64_t lanes = head.kernels->q_block, n = p->dim * lanes;
    char *total = panel_at(c, &head, c->totals, block);
    int64_t begin = c->first_chunk == 0 ? 1 : 0;
    if (c->n_chunks == 0)
        attn_fill(total, n, head.size, 0);
    else if (begin == 1 && c->totals != c->shares)
        memcpy(total, share_at(c, &head, 0, block), (size_t)n * head.size);
    for (int64_t chunk = begin; chunk < c->n_chunks; chunk++) add_elements(total, share_at(c, &head, chunk, block), n, head.size);
    int64_t length = (int64_t)CHUNK * head.kernels->k_block, i0 = block * lanes;
    if ((c->first_chunk + c->n_chunks) * length < p->kv_len) return;
    attn_scale_elements(total, n, head.size, p->scale);
    const attn_query_block x = { .i0 = i0, .n_written = p->q_len - i0 < lanes ? p->q_len - i0 : lanes };
    const attn_tensor *q = &p->q;
    for (int64_t i = 0; cosine(p) && i < x.n_written; i++) {
        int64_t at = head.b * q->stride[0] + head.h * q->stride[1] + (i0 + i) * q->stride[2];
        attn_load_elements(&head, q, at, q->stride[3], p->dim, head.m.k);
        attn_unit_gradient(head.m.k, 1, total + (size_t)i * head.size, lanes, p->dim, head.size);
    }
    attn_write_panel(&head, &x, dq, total);
}

/* ---- the call ---------------------------------------------------------------------------------------------- */

static int64_t chunks_of(const attn_attention_plan *p) {
    int64_t length = (int64_t)CHUNK * attn_kernels_of(p)->k_block;
    return (p->kv_len + length - 1) / length;
}

static wave_context wave_in(const attn_attention_plan *p, const attn_attention_plan_grads *g, attn_arena *shared) {
    const attn_attention_kernels *k = attn_kernels_of(p);
    size_t size = attn_computing_size(p);
    wave_context c = { .n_blocks = (p->q_len + k->q_block - 1) / k->q_block };
    if (!g->dq.rank) return c;
    /* batch * heads * blocks is at most the number of q's elements */
    int64_t n = p->batch * p->heads * c.n_blocks, panel = p->dim, chunks = chunks_of(p) < WAVE ? chunks_of(p) : WAVE;
    c.totals = attn_take(shared, n, panel, size * (size_t)k->q_block);
    c.shares = chunks > 1 ? attn_take(shared, n, panel, size * (size_t)(k->q_block * chunks)) : c.totals;
    return c;
}

static void run_waves(wave_context *c, attn_session *session, bool dq, bool dk, bool dv, int64_t group) {
    const attn_attention_plan *p = c->c->p;
    int64_t n = chunks_of(p);
    if (!dq && !dk && !dv) return;
    c->dq = dq;
    c->dk = dk;
    c->dv = dv;
    c->group = group;
    /* without keys one empty wave writes dq's zeros */
    for (int64_t first = 0; first == 0 || first < n; first += WAVE) {
        c->first_chunk = first;
        c->n_chunks = n - first < WAVE ? n - first : WAVE;
        attn_session_run(session, c->n_chunks * p->batch * (p->heads / group), chunk_item, c);
        if (dq) attn_session_run(session, p->batch * p->heads * c->n_blocks, dq_item, c);
    }
}

bool attn_blocks_cover_backward(const attn_attention_plan *p, const attn_attention_plan_grads *g) {
    /* without query heads there is nothing to sum over: the reference writes the zeros */
    return p->heads > 0 && attn_blocks_cover(p) && (!g->along || attn_blocks_cover_jvp(p, g->along)) &&
           attn_kernels_take(p, &g->dout) && attn_kernels_take(p, &g->dq) && attn_kernels_take(p, &g->dk) &&
           attn_kernels_take(p, &g->dv);
}

static size_t most(size_t a, size_t b) { return a > b ? a : b; }

attn_need attn_blocks_backward_need(const attn_attention_plan *p, const attn_attention_plan_grads *g) {
    attn_arena shared = { 0 }, chunk = { 0 };
    attn_row_deltas_in(p, g, &shared);
    attn_sums_in(p, g, &shared);
    wave_in(p, g, &shared);
    chunk_worker_in(p, g->along, &chunk);
    return (attn_need){ .shared = shared.used,
                        .per_worker = most(chunk.used, most(attn_row_deltas_need(p, g), attn_sums_need(p))) };
}

void attn_blocks_backward(const attn_attention_plan *p, const attn_attention_plan_grads *g, attn_session *session) {
    attn_arena shared = { .begin = session->shared };
    attn_backward c = { .p = p, .g = g, .rows = attn_row_deltas_in(p, g, &shared) };
    attn_sums sums = attn_sums_in(p, g, &shared);
    wave_context wave = wave_in(p, g, &shared);
    wave.c = &c;
    attn_row_deltas_compute(&c, session);
    bool dq = g->dq.rank != 0, dk = g->dk.rank != 0, dv = g->dv.rank != 0;
    if (p->k_group == p->v_group) {
        run_waves(&wave, session, dq, dk, dv, p->k_group);
    } else {
        run_waves(&wave, session, dq, dk, false, p->k_group);
        run_waves(&wave, session, false, false, dv, p->v_group);
    }
    attn_sums_compute(&c, &sums, session);
}
