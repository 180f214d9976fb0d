/* SPDX-License-Identifier: Apache-2.0 */
/* Forward mode by blocks: with weights not yet divided, sum of p ds v + p dv and sum of p ds grow beside out and the row's sum,
 * are rescaled and divided as they are, and in the end dout is the first less the second times out. */
#include "attention_tangent.h"

#include <string.h>

/* Do scores move? */
static bool scores_move(const attn_attention_plan_tangents *t) { return t->dq.rank || t->dk.rank || t->dbias.rank; }

/* ---- the product -------------------------------------------------------------------------------------------- */

int64_t attn_tangent_halves(const attn_attention_plan_tangents *t) { return (t->dq.rank != 0) + (t->dk.rank != 0); }

void attn_tangent_panel(const attn_head *head, const attn_attention_plan_tangents *t, const attn_query_block *x, void *panel) {
    int64_t dim = head->p->dim, lanes = head->kernels->q_block;
    size_t half = (size_t)(dim * lanes) * head->size;
    if (t->dq.rank) {
        int64_t at = head->b * t->dq.stride[0] + head->h * t->dq.stride[1] + x->i0 * t->dq.stride[2];
        if (x->n_rows > 0) attn_pack_panel(head, &t->dq, at, t->dq.stride[2], t->dq.stride[3], x->n_rows, dim, panel);
        panel = (char *)panel + half;
    }
    if (t->dk.rank && x->n_rows > 0) memcpy(panel, x->panel, half);
}

void attn_tangent_rows(const attn_head *head, const attn_attention_plan_tangents *t, int64_t j0, int64_t j1, attn_rows k,
                       void *rows) {
    int64_t dim = head->p->dim, columns = attn_tangent_halves(t) * dim;
    int64_t at = head->b * t->dk.stride[0] + head->h / head->p->k_group * t->dk.stride[1];
    for (int64_t j = j0; j < j1; j++) {
        char *to = (char *)rows + (size_t)((j - j0) * columns) * head->size;
        if (t->dq.rank) {
            memcpy(to, k.data + (j - j0) * k.row * (int64_t)head->size, (size_t)dim * head->size);
            to += (size_t)dim * head->size;
        }
        if (t->dk.rank) attn_load_elements(head, &t->dk, at + j * t->dk.stride[2], t->dk.stride[3], dim, to);
    }
}

void attn_tangent_product(const attn_head *head, const attn_attention_plan_tangents *t, const void *panel, const char *rows,
                          int64_t n_keys, void *ds) {
    int64_t columns = attn_tangent_halves(t) * head->p->dim;
    head->kernels->score[ATTN_DOT](&(attn_score_tile){
        .q = panel, .k = rows, .k_row = columns, .n_keys = n_keys, .dim = columns, .scale = head->p->scale, .s = ds });
}

/* ---- memory ------------------------------------------------------------------------------------------------- */

attn_tangent_unit attn_tangent_unit_in(const attn_attention_plan *p, const attn_attention_plan_tangents *t, attn_arena *a) {
    const attn_attention_kernels *k = attn_kernels_of(p);
    size_t size = attn_computing_size(p);
    attn_tangent_unit u = { .rows = attn_take(a, attn_tangent_halves(t) * k->k_block, p->dim, size) };
    if (t->dv.rank) u.dv = attn_take(a, k->k_block, p->v_dim, size);
    if (!scores_move(t)) return u;
    u.ones = attn_take(a, k->k_block, 1, size);
    u.ds = attn_take(a, k->k_block, k->q_block, size);
    if (t->dbias.rank) u.bias = attn_take(a, k->k_block, k->q_block, size);
    if (t->dbias.rank) u.spare = attn_take(a, k->k_block, 1, sizeof(uint64_t));
    return u;
}

attn_tangent_block attn_tangent_block_in(const attn_attention_plan *p, const attn_attention_plan_tangents *t, attn_arena *a) {
    const attn_attention_kernels *k = attn_kernels_of(p);
    size_t size = attn_computing_size(p);
    return (attn_tangent_block){ .panel = attn_take(a, attn_tangent_halves(t) * k->q_block, p->dim, size),
                                 .o = attn_take(a, p->v_dim, k->q_block, size),
                                 .mean = attn_take(a, 1, k->q_block, size) };
}

/* ---- the sweep ---------------------------------------------------------------------------------------------- */

void attn_tangent_begin(const attn_head *head, const attn_attention_plan_tangents *t, attn_tangent_block *block,
                        const attn_query_block *x) {
    attn_tangent_panel(head, t, x, block->panel);
    attn_fill(block->o, head->p->v_dim * head->kernels->q_block, head->size, 0);
    attn_fill(block->mean, head->kernels->q_block, head->size, 0);
}

void attn_tangent_unit_at(const attn_head *head, const attn_attention_plan_tangents *t, attn_tangent_unit *unit,
                          attn_key_range keys, attn_rows k) {
    const attn_tensor *dv = &t->dv;
    int64_t at = head->b * dv->stride[0] + head->h / head->p->v_group * dv->stride[1] + keys.begin * dv->stride[2];
    unit->keys = keys;
    unit->values = ATTN_FINITENESS_UNKNOWN;
    attn_tangent_rows(head, t, keys.begin, keys.end, k, unit->rows);
    if (scores_move(t)) attn_fill(unit->ones, keys.end - keys.begin, head->size, 1);
    if (dv->rank) attn_pack_groups(head, dv, at, dv->stride[2], dv->stride[3], keys.end - keys.begin, head->p->v_dim, unit->dv);
}

/* What is added to a score's tangent whatever it is; one of -inf is a tangent like any other, and hides nothing. */
static void add_bias_tangent(const attn_head *head, const attn_tensor *dbias, attn_tangent_unit *unit, const attn_query_block *x,
                             int64_t j0, int64_t n_keys) {
    int64_t at = head->b * dbias->stride[0] + head->h * dbias->stride[1] + x->i0 * dbias->stride[2] + j0 * dbias->stride[3];
    attn_pack_panel(head, dbias, at, dbias->stride[2], dbias->stride[3], x->n_rows, n_keys, unit->bias);
    memset(unit->spare, 0, (size_t)n_keys * sizeof *unit->spare);
    head->kernels->add_bias(unit->ds, unit->bias, n_keys, unit->spare);
}

void attn_tangent_scores(const attn_head *head, const attn_attention_plan_tangents *t, attn_tangent_unit *unit,
                         const attn_tangent_block *block, const attn_query_block *x, int64_t j0, int64_t n_keys) {
    int64_t columns = attn_tangent_halves(t) * head->p->dim;
    if (!scores_move(t)) return;
    attn_tangent_product(head, t, block->panel, unit->rows + (size_t)((j0 - unit->keys.begin) * columns) * head->size, n_keys,
                         unit->ds);
    if (head->p->softcap > 0) head->kernels->cap_back(unit->ds, head->m.s, n_keys, head->p->softcap);
    if (t->dbias.rank) add_bias_tangent(head, &t->dbias, unit, x, j0, n_keys);
}

void attn_tangent_weigh(const attn_head *head, const attn_attention_plan_tangents *t, attn_tangent_unit *unit,
                        attn_tangent_block *block, int64_t n_keys, attn_tile_kind kind, const void *factor) {
    if (factor) {
        head->kernels->rescale(block->o, head->p->v_dim, factor);
        head->kernels->rescale(block->mean, 1, factor);
    }
    if (!scores_move(t)) return;
    if (kind == ATTN_TILE_PARTLY) head->kernels->hide(unit->ds, n_keys, head->m.live, 0);
    head->kernels->multiply(unit->ds, head->m.s, n_keys);
    head->kernels->mix(&(attn_mix_tile){
        .p = unit->ds, .v = unit->ones, .n_packed = n_keys, .n_keys = n_keys, .v_dim = 1, .accumulate = true, .o = block->mean });
}

void attn_tangent_mix(const attn_head *head, const attn_attention_plan_tangents *t, attn_tangent_unit *unit,
                      attn_tangent_block *block, const attn_query_block *x, int64_t j0, int64_t n_keys, attn_tile_kind kind,
                      bool skip) {
    attn_mix_tile mix = { .p = unit->ds,
                          .v = head->m.v,
                          .n_packed = unit->keys.end - unit->keys.begin,
                          .first = j0 - unit->keys.begin,
                          .n_keys = n_keys,
                          .v_dim = head->p->v_dim,
                          .live = skip ? head->m.live : NULL,
                          .accumulate = true,
                          .o = block->o };
    if (scores_move(t)) {
        if (head->p->dropout.on) head->kernels->multiply(unit->ds, head->m.keep, n_keys);
        head->kernels->mix(&mix);
    }
    if (!t->dv.rank) return;
    mix.p = head->m.s;
    mix.v = unit->dv;
    const attn_rows values = { unit->dv, head->p->v_dim };
    skip = attn_has_to_skip(head, x, n_keys, kind, values, unit->keys.end - unit->keys.begin, &unit->values);
    mix.live = skip ? head->m.live : NULL;
    head->kernels->mix(&mix);
}

/* x[column][lane] -= factor[lane] y[column][lane] */
static void subtract(void *x, const void *factor, const void *y, int64_t n_cols, int64_t lanes, size_t size) {
    for (int64_t c = 0; c < n_cols; c++)
        for (int64_t i = 0, at = c * lanes; i < lanes; i++, at++) {
            if (size == sizeof(float))
                ((float *)x)[at] -= ((const float *)factor)[i] * ((const float *)y)[at];
            else
                ((double *)x)[at] -= ((const double *)factor)[i] * ((const double *)y)[at];
        }
}

void attn_tangent_end(const attn_head *head, const attn_attention_plan_tangents *t, attn_tangent_block *block,
                      const attn_query_block *x, const void *inverse, const void *o) {
    int64_t v_dim = head->p->v_dim;
    head->kernels->rescale(block->o, v_dim, inverse);
    head->kernels->rescale(block->mean, 1, inverse);
    subtract(block->o, block->mean, o, v_dim, head->kernels->q_block, head->size);
    if (t->dout.rank) attn_write_panel(head, x, &t->dout, block->o);
    if (t->dlse.rank) attn_write_rows(head, x, &t->dlse, block->mean);
}
