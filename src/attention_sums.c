/* SPDX-License-Identifier: Apache-2.0 */
/* d(bias) is the score gradient itself, summed over what the bias repeats along; ALiBi slopes, sinks and the additive score's weight
 * sum over all of a head. Every item owns its sums and adds in the order of batch entries, heads, rows and keys. */
#include "attention_sums.h"
#include "ref/element.h"

#include <math.h>
#include <string.h>

/* ---- memory ------------------------------------------------------------------------------------------------ */

typedef struct sum_worker {
    attn_tile_memory m;
    attn_gradient_tile tile;
    attn_gradient_block block;
    void *v_copy;  /* [k_block][v_dim] */
    double *total; /* [k_block][q_block] */
} sum_worker;

static sum_worker sum_worker_in(const attn_attention_plan *p, attn_arena *a) {
    const attn_attention_kernels *k = attn_kernels_of(p);
    sum_worker w = { .m = attn_tile_memory_in(p, false, a),
                     .tile = attn_gradient_tile_in(p, a),
                     .block = attn_gradient_block_in(p, NULL, a),
                     .total = attn_take(a, k->k_block, k->q_block, sizeof(double)) };
    if (!attn_values_lie_densely(p)) w.v_copy = attn_take(a, k->k_block, p->v_dim, attn_computing_size(p));
    return w;
}

size_t attn_sums_need(const attn_attention_plan *p) {
    attn_arena a = { 0 };
    sum_worker_in(p, &a);
    return a.used;
}

attn_sums attn_sums_in(const attn_attention_plan *p, const attn_attention_plan_grads *g, attn_arena *shared) {
    int64_t lanes = attn_kernels_of(p)->q_block;
    attn_sums s = { .blocks = (p->q_len + lanes - 1) / lanes };
    /* batch * heads * q_len elements fit in memory: q has more */
    if (g->dalibi.rank) s.slope = attn_take(shared, p->batch * p->heads, s.blocks, sizeof(double));
    if (g->dsinks.rank) s.sink = attn_take(shared, p->batch, p->heads, sizeof(double));
    if (g->dscore_weight.rank) s.weight = attn_take(shared, p->batch * p->heads * s.blocks, p->dim, attn_computing_size(p));
    return s;
}

/* The score gradients of the worker's block and unit j0; an empty tile is not computed. */
static attn_tile_kind tile_at(attn_head *head, sum_worker *w, int64_t j0, int64_t j1) {
    attn_key_range seen = attn_keys_in_unit(head, &w->block.x, j0, j1);
    if (seen.begin == seen.end) return ATTN_TILE_EMPTY;
    return attn_gradient_tile_at(head, &w->block, w->tile, j0, j1, attn_keys_at(head, j0, j1),
                                 attn_values_at(head, j0, j1, w->v_copy));
}

static double element(const void *x, int64_t i, size_t size) {
    return size == sizeof(float) ? (double)((const float *)x)[i] : ((const double *)x)[i];
}

/* ---- ALiBi slopes and the additive weight ------------------------------------------------------------------ */

typedef struct sum_context {
    const attn_backward *c;
    const attn_sums *sums;
} sum_context;

/* s = ... - slope * distance: dslope = -sum ds * distance */
static double slope_share(const attn_head *head, const sum_worker *w, int64_t j0, int64_t n_keys) {
    int64_t lanes = head->kernels->q_block;
    double sum = 0;
    for (int64_t j = 0; j < n_keys; j++)
        for (int64_t i = 0; i < w->block.x.n_rows; i++)
            sum -=
                element(w->tile.ds, j * lanes + i, head->size) * (double)attn_distance(&head->sight, w->block.x.i0 + i, j0 + j);
    return sum;
}

static void add_weight_share(attn_head *head, const sum_worker *w, attn_tile_kind kind, int64_t j0, int64_t n_keys,
                             void *dweight) {
    attn_rows k = attn_keys_at(head, j0, j0 + n_keys);
    attn_gradient_uncap(head, w->tile, n_keys);
    head->kernels->additive_dweight(&(attn_additive_gradient){ .ds = w->tile.ds,
                                                               .live = kind == ATTN_TILE_PARTLY ? head->m.live : NULL,
                                                               .q = w->block.x.panel,
                                                               .k = k.data,
                                                               .k_row = k.row,
                                                               .n_keys = n_keys,
                                                               .dim = head->p->dim,
                                                               .weight = head->m.weight,
                                                               .scratch = head->m.powers,
                                                               .dweight = dweight });
}

static void share_item(void *context, int64_t item, void *scratch) {
    const sum_context *s = context;
    const attn_attention_plan *p = s->c->p;
    attn_arena arena = { .begin = scratch };
    sum_worker w = sum_worker_in(p, &arena);
    int64_t head_number = item / s->sums->blocks;
    attn_head head = attn_head_at(p, head_number / p->heads, head_number % p->heads, w.m);
    int64_t unit = head.kernels->k_block, lanes = head.kernels->q_block;
    attn_gradient_block_at(s->c, &head, &w.block, item % s->sums->blocks * lanes);
    double slope = 0;
    char *weight = NULL;
    if (s->sums->weight) {
        weight = (char *)s->sums->weight + (size_t)(item * p->dim) * head.size;
        attn_fill(weight, p->dim, head.size, 0);
    }
    for (int64_t j = w.block.x.keys.some.begin / unit * unit; j < w.block.x.keys.some.end; j += unit) {
        int64_t end = j + unit < p->kv_len ? j + unit : p->kv_len;
        attn_tile_kind kind = tile_at(&head, &w, j, end);
        if (kind == ATTN_TILE_EMPTY) continue;
        if (s->sums->slope) slope += slope_share(&head, &w, j, end - j);
        if (weight) add_weight_share(&head, &w, kind, j, end - j, weight);
    }
    if (s->sums->slope) s->sums->slope[item] = slope;
}

/* ---- sinks ------------------------------------------------------------------------------------------------- */

/* Does row i see a key? Asked where that is not known otherwise. */
static bool sees_a_key(const attn_head *head, int64_t i) {
    const attn_tensor *mask = &head->p->mask, *bias = &head->p->bias;
    attn_key_range keys = attn_row_keys(&head->sight, i);
    for (int64_t j = keys.begin; j < keys.end; j++) {
        const int64_t at[4] = { head->b, head->h, i, j };
        int64_t mask_at = 0, bias_at = 0;
        for (int axis = 0; axis < 4; axis++) {
            mask_at += at[axis] * mask->stride[axis];
            bias_at += at[axis] * bias->stride[axis];
        }
        if (head->blocks.data && !attn_block_is_live(&head->blocks, i, j)) continue;
        bool masked = mask->rank && ref_load(mask->data, mask->dtype, mask_at) == 0;
        if (!masked && (!bias->rank || ref_load(bias->data, bias->dtype, bias_at) != -INFINITY)) return true;
    }
    return false;
}

/* A sink's weight is mixed with nothing: dsink = -sum over rows of p_sink delta. A row without a key has p_sink 1, delta -d(lse). */
static void sink_item(void *context, int64_t item, void *scratch) {
    const sum_context *s = context;
    const attn_attention_plan *p = s->c->p;
    const attn_row_deltas *rows = &s->c->rows;
    const attn_tensor *dlse = &s->c->g->dlse;
    size_t size = attn_computing_size(p);
    attn_head head = { .p = p, .b = item / p->heads, .h = item % p->heads, .sight = attn_plan_sight(p, item / p->heads) };
    head.blocks = attn_plan_blocks(p, head.b, head.h);
    double sink = attn_plan_sink(p, head.h), sum = 0;
    (void)scratch;
    for (int64_t i = 0; sink != -INFINITY && i < p->q_len; i++) {
        int64_t row = item * p->q_len + i, at = head.b * dlse->stride[0] + head.h * dlse->stride[1] + i * dlse->stride[2];
        double inverse = element(rows->norms.inverse, row, size), delta = element(rows->delta, row, size), weight = 1;
        bool padding = i >= head.sight.q_length;
        if (padding || (!isfinite(delta) && !sees_a_key(&head, i)))
            delta = dlse->rank ? -ref_load(dlse->data, dlse->dtype, at) : 0;
        else if (inverse != 0)
            weight = exp(sink - element(rows->norms.max, row, size)) * inverse;
        sum -= weight * delta;
    }
    s->sums->sink[item] = sum;
}

/* ---- sums of all ------------------------------------------------------------------------------------------- */

/* The sum of `each` numbers of every head (b, h) that belongs to entry (own_b, own_h) of a gradient whose extents are full or 1. */
static double sum_of_heads(const attn_attention_plan *p, const double *numbers, int64_t each, const attn_tensor *t, int64_t own_b,
                           int64_t own_h) {
    double total = 0;
    for (int64_t b = 0; b < p->batch; b++)
        for (int64_t h = 0; h < p->heads; h++)
            for (int64_t n = 0; n < each; n++)
                if ((t->shape[0] == 1 || b == own_b) && (t->shape[1] == 1 || h == own_h))
                    total += numbers[(b * p->heads + h) * each + n];
    return total;
}

static double sum_of_weights(const attn_attention_plan *p, const attn_sums *sums, const attn_tensor *t, int64_t own_h,
                             int64_t d) {
    size_t size = attn_computing_size(p);
    double total = 0;
    for (int64_t b = 0; b < p->batch; b++)
        for (int64_t h = 0; h < p->heads; h++)
            for (int64_t n = 0; n < sums->blocks; n++)
                if (t->shape[0] == 1 || h == own_h)
                    total += element(sums->weight, ((b * p->heads + h) * sums->blocks + n) * p->dim + d, size);
    return total * p->scale;
}

/* A gradient of one number per head. */
static void write_heads(const attn_attention_plan *p, const attn_tensor *t, const double *numbers, int64_t each) {
    for (int64_t b = 0; t->rank && b < t->shape[0]; b++)
        for (int64_t h = 0; h < t->shape[1]; h++)
            ref_store(t->data, t->dtype, b * t->stride[0] + h * t->stride[1], sum_of_heads(p, numbers, each, t, b, h));
}

static void write_sums(const attn_backward *c, const attn_sums *sums) {
    const attn_tensor *weight = &c->g->dscore_weight;
    write_heads(c->p, &c->g->dalibi, sums->slope, sums->blocks);
    write_heads(c->p, &c->g->dsinks, sums->sink, 1);
    for (int64_t h = 0; weight->rank && h < weight->shape[0]; h++)
        for (int64_t d = 0; d < weight->shape[1]; d++)
            ref_store(weight->data, weight->dtype, h * weight->stride[0] + d * weight->stride[1],
                      sum_of_weights(c->p, sums, weight, h, d));
}

/* ---- bias -------------------------------------------------------------------------------------------------- */

/* One axis of dbias: an item has one place along it, or, where dbias has extent 1, all of them. */
typedef struct span {
    int64_t begin, end;
} span;

static span span_of(bool full, int64_t place, int64_t n) { return full ? (span){ place, place + 1 } : (span){ 0, n }; }

typedef struct bias_context {
    const attn_backward *c;
    int64_t n_blocks, n_units; /* of the problem */
    bool full[4];              /* axes that are not summed over */
    int64_t items[4];          /* places along each axis */
} bias_context;

/* A tile is added to the totals, [key][lane] without the axes that are summed over. */
static void add_tile(const bias_context *c, const attn_head *head, sum_worker *w, int64_t n_keys) {
    int64_t lanes = head->kernels->q_block, lane_step = c->full[2], key_step = !c->full[3] ? 0 : c->full[2] ? lanes : 1;
    for (int64_t j = 0; j < n_keys; j++)
        for (int64_t i = 0; i < w->block.x.n_rows; i++)
            w->total[j * key_step + i * lane_step] += element(w->tile.ds, j * lanes + i, head->size);
}

static void write_totals(const bias_context *c, const sum_worker *w, const int64_t place[4]) {
    const attn_attention_plan *p = c->c->p;
    const attn_tensor *t = &c->c->g->dbias;
    int64_t lanes = attn_kernels_of(p)->q_block, unit = attn_kernels_of(p)->k_block;
    int64_t i0 = place[2] * lanes, j0 = place[3] * unit, key_step = !c->full[3] ? 0 : c->full[2] ? lanes : 1;
    int64_t rows = !c->full[2] ? 1 : p->q_len - i0 < lanes ? p->q_len - i0 : lanes;
    int64_t keys = !c->full[3] ? 1 : p->kv_len - j0 < unit ? p->kv_len - j0 : unit;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < keys; j++)
            ref_store(t->data, t->dtype,
                      place[0] * t->stride[0] + place[1] * t->stride[1] + (i0 + i) * t->stride[2] + (j0 + j) * t->stride[3],
                      w->total[j * key_step + i]);
}

static void bias_item(void *context, int64_t item, void *scratch) {
    const bias_context *c = context;
    const attn_attention_plan *p = c->c->p;
    attn_arena arena = { .begin = scratch };
    sum_worker w = sum_worker_in(p, &arena);
    int64_t place[4], lanes = attn_kernels_of(p)->q_block, unit = attn_kernels_of(p)->k_block;
    for (int axis = 3; axis >= 0; axis--) {
        place[axis] = item % c->items[axis];
        item /= c->items[axis];
    }
    span bs = span_of(c->full[0], place[0], p->batch), hs = span_of(c->full[1], place[1], p->heads);
    span blocks = span_of(c->full[2], place[2], c->n_blocks), units = span_of(c->full[3], place[3], c->n_units);
    memset(w.total, 0, (size_t)(lanes * unit) * sizeof(double));
    for (int64_t b = bs.begin; b < bs.end; b++)
        for (int64_t h = hs.begin; h < hs.end; h++) {
            attn_head head = attn_head_at(p, b, h, w.m);
            for (int64_t n = blocks.begin; n < blocks.end; n++) {
                attn_gradient_block_at(c->c, &head, &w.block, n * lanes);
                for (int64_t u = units.begin; u < units.end; u++) {
                    int64_t end = (u + 1) * unit < p->kv_len ? (u + 1) * unit : p->kv_len;
                    if (tile_at(&head, &w, u * unit, end) != ATTN_TILE_EMPTY) add_tile(c, &head, &w, end - u * unit);
                }
            }
        }
    write_totals(c, &w, place);
}

static void run_bias(const attn_backward *c, attn_session *session) {
    const attn_tensor *t = &c->g->dbias;
    const attn_attention_kernels *k = attn_kernels_of(c->p);
    bias_context bias = { .c = c,
                          .n_blocks = (c->p->q_len + k->q_block - 1) / k->q_block,
                          .n_units = (c->p->kv_len + k->k_block - 1) / k->k_block };
    const int64_t places[4] = { c->p->batch, c->p->heads, bias.n_blocks, bias.n_units };
    int64_t n = 1;
    for (int axis = 0; axis < 4; axis++) {
        bias.full[axis] = t->shape[axis] != 1;
        bias.items[axis] = bias.full[axis] ? places[axis] : 1;
        n *= bias.items[axis];
    }
    attn_session_run(session, n, bias_item, &bias);
}

/* ---- all --------------------------------------------------------------------------------------------------- */

void attn_sums_compute(const attn_backward *c, const attn_sums *sums, attn_session *session) {
    sum_context s = { .c = c, .sums = sums };
    if (c->g->dbias.rank) run_bias(c, session);
    if (c->g->dsinks.rank) attn_session_run(session, c->p->batch * c->p->heads, sink_item, &s);
    if (c->g->dalibi.rank || c->g->dscore_weight.rank)
        attn_session_run(session, c->p->batch * c->p->heads * sums->blocks, share_item, &s);
    write_sums(c, sums);
}
