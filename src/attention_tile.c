/* SPDX-License-Identifier: Apache-2.0 */
/* Tiles of scores: which memory they are computed in, from which rows, and which of them a query may see. */
#include "attention_tile.h"
#include "attention_unit.h"
#include "ref/element.h"
#include "walk.h"

#include <math.h>
#include <string.h>

enum {
    FAR_APART =
        2048,  /* bytes: rows further apart fall into few sets of the first-level cache and are copied close together first */
    BLOCKS = 4 /* of queries, whose rows the backward packs at once */
};

int32_t attn_computing_dtype(const attn_attention_plan *p) { return p->q.dtype == ATTN_F64 ? ATTN_F64 : ATTN_F32; }
size_t attn_computing_size(const attn_attention_plan *p) { return attn_dtype_size(attn_computing_dtype(p)); }

bool attn_kernels_take(const attn_attention_plan *p, const attn_tensor *t) {
    return !t->rank || t->dtype == p->q.dtype || t->dtype == attn_computing_dtype(p);
}

const attn_attention_kernels *attn_kernels_of(const attn_attention_plan *p) {
    const attn_kernels *k = attn_kernels_for(attn_computing_dtype(p));
    return k && k->attention.q_block ? &k->attention : NULL;
}

void attn_fill(void *x, int64_t n, size_t size, double value) {
    for (int64_t i = 0; i < n; i++) {
        if (size == sizeof(float))
            ((float *)x)[i] = (float)value;
        else
            ((double *)x)[i] = value;
    }
}

/* ---- memory ---------------------------------------------------------------------------------------------- */

/* Such that a kernel reads them where they are. */
static bool lie_densely(const attn_attention_plan *p, const attn_tensor *t, int64_t n_columns) {
    if (t->dtype != attn_computing_dtype(p)) return false;
    int64_t apart = t->stride[2] * (int64_t)attn_dtype_size(t->dtype);
    if (t->stride[3] != 1 && n_columns > 1) return false;
    return (apart > -FAR_APART && apart < FAR_APART) || t->stride[2] == n_columns;
}

attn_tile_memory attn_tile_memory_in(const attn_attention_plan *p, bool values, attn_arena *a) {
    const attn_attention_kernels *k = attn_kernels_of(p);
    size_t size = attn_computing_size(p);
    attn_tile_memory m = { .s = attn_take(a, k->k_block, k->q_block, size),
                           .live = attn_take(a, k->k_block, 1, sizeof(uint64_t)),
                           .lanes = attn_take(a, k->k_block, 1, sizeof(uint64_t)) };
    if (p->bias.rank) m.bias = attn_take(a, k->k_block, k->q_block, size);
    if (p->dropout.on) m.keep = attn_take(a, k->k_block, k->q_block, size);
    if (!lie_densely(p, &p->k, p->dim) || p->score == ATTN_COSINE) m.k = attn_take(a, k->k_block, p->dim, size);
    if (values) m.v = attn_take(a, k->k_block, p->v_dim, size);
    if (p->score_weight.rank) {
        m.weight = attn_take(a, 1, p->dim, size);
        m.powers = attn_take(a, p->dim + k->k_block, k->q_block + 2, size);
    }
    if (p->q.dtype == attn_computing_dtype(p)) return m;
    int64_t rows = k->k_block > BLOCKS * k->q_block ? k->k_block : BLOCKS * k->q_block;
    int64_t columns = p->dim > p->v_dim ? p->dim : p->v_dim;
    m.wide = attn_take(a, rows, columns > k->k_block ? columns : k->k_block, size);
    return m;
}

/* ---- elements in and out ------------------------------------------------------------------------------------- */

void attn_load_elements(const attn_head *head, const attn_tensor *t, int64_t at, int64_t step, int64_t n, void *to) {
    attn_read_strided(head->convert, head->dtype, n, attn_at(t, at), t->dtype, step, to);
}

void attn_store_elements(const attn_head *head, const void *from, int64_t n, const attn_tensor *t, int64_t at, int64_t step) {
    attn_write_strided(head->convert, head->dtype, n, from, attn_at(t, at), t->dtype, step);
}

void attn_load_rows(const attn_head *head, const attn_tensor *t, int64_t at, int64_t row, int64_t col, int64_t n_rows,
                    int64_t n_cols, void *to) {
    for (int64_t i = 0; i < n_rows; i++)
        attn_load_elements(head, t, at + i * row, n_cols > 1 ? col : 1, n_cols, (char *)to + (size_t)(i * n_cols) * head->size);
}

void attn_pack_panel(const attn_head *head, const attn_tensor *t, int64_t at, int64_t row, int64_t col, int64_t n_rows,
                     int64_t n_cols, void *panel) {
    const void *from = attn_at(t, at);
    if (n_cols == 1) col = 1;
    if (t->dtype != head->dtype) {
        attn_load_rows(head, t, at, row, col, n_rows, n_cols, head->m.wide);
        from = head->m.wide;
        row = n_cols;
        col = 1;
    }
    head->kernels->pack(from, row, col, n_rows, n_cols, panel);
}

void attn_pack_groups(const attn_head *head, const attn_tensor *t, int64_t at, int64_t row, int64_t col, int64_t n_rows,
                      int64_t n_cols, void *groups) {
    const void *from = attn_at(t, at);
    if (t->dtype != head->dtype) {
        attn_load_rows(head, t, at, row, col, n_rows, n_cols, head->m.wide);
        from = head->m.wide;
        row = n_cols;
        col = 1;
    }
    head->kernels->pack_groups(from, row, col, n_rows, n_cols, groups);
}

void attn_pack_rows(const attn_head *head, const attn_tensor *t, const attn_query_block *x, void *panel) {
    int64_t at = head->b * t->stride[0] + head->h * t->stride[1] + x->i0 * t->stride[2], columns = t->shape[3];
    attn_fill(panel, columns * head->kernels->q_block, head->size, 0);
    if (x->n_rows > 0) attn_pack_panel(head, t, at, t->stride[2], t->stride[3], x->n_rows, columns, panel);
}

attn_rows attn_rows_of(const attn_head *head, const attn_tensor *t, int64_t h, int64_t j0, int64_t j1, void *copy) {
    int64_t at = head->b * t->stride[0] + h * t->stride[1] + j0 * t->stride[2], n = t->shape[3];
    if (!copy) return (attn_rows){ attn_at(t, at), t->stride[2] };
    attn_load_rows(head, t, at, t->stride[2], t->stride[3], j1 - j0, n, copy);
    return (attn_rows){ copy, n };
}

attn_rows attn_keys_at(const attn_head *head, int64_t j0, int64_t j1) {
    attn_rows rows = attn_rows_of(head, &head->p->k, head->h / head->p->k_group, j0, j1, head->m.k);
    for (int64_t j = 0; head->p->score == ATTN_COSINE && j < j1 - j0; j++)
        attn_unit_vector((char *)head->m.k + (size_t)(j * rows.row) * head->size, head->p->dim, 1, head->size);
    return rows;
}

bool attn_values_lie_densely(const attn_attention_plan *p) { return lie_densely(p, &p->v, p->v_dim); }
attn_rows attn_values_at(const attn_head *head, int64_t j0, int64_t j1, void *copy) {
    return attn_rows_of(head, &head->p->v, head->h / head->p->v_group, j0, j1, copy);
}

void attn_pack_values(const attn_head *head, int64_t j0, int64_t j1) {
    const attn_tensor *v = &head->p->v;
    int64_t at = head->b * v->stride[0] + head->h / head->p->v_group * v->stride[1] + j0 * v->stride[2];
    attn_pack_groups(head, v, at, v->stride[2], v->stride[3], j1 - j0, head->p->v_dim, head->m.v);
}

attn_head attn_head_at(const attn_attention_plan *p, int64_t b, int64_t h, attn_tile_memory m) {
    attn_head head = { .p = p,
                       .kernels = attn_kernels_of(p),
                       .convert = &attn_kernels_for(attn_computing_dtype(p))->convert,
                       .dtype = attn_computing_dtype(p),
                       .size = attn_computing_size(p),
                       .b = b,
                       .h = h,
                       .sight = attn_plan_sight(p, b),
                       .blocks = attn_plan_blocks(p, b, h),
                       .m = m };
    if (p->alibi.rank) head.slope = ref_load(p->alibi.data, p->alibi.dtype, b * p->alibi.stride[0] + h * p->alibi.stride[1]);
    if (p->score_weight.rank)
        attn_load_elements(&head, &p->score_weight, h * p->score_weight.stride[0], p->score_weight.stride[1], p->dim, m.weight);
    return head;
}

attn_query_block attn_query_block_at(const attn_head *head, int64_t i0, void *panel) {
    const attn_tensor *q = &head->p->q;
    int64_t rows = head->kernels->q_block, queries = head->sight.q_length - i0;
    attn_query_block x = { .i0 = i0, .panel = panel };
    x.n_written = head->p->q_len - i0 < rows ? head->p->q_len - i0 : rows;
    x.n_rows = queries < 0 ? 0 : queries < rows ? queries : rows;
    x.keys = attn_rows_keys(&head->sight, i0, i0 + x.n_written);
    int64_t at = head->b * q->stride[0] + head->h * q->stride[1] + i0 * q->stride[2];
    if (x.n_rows > 0) attn_pack_panel(head, q, at, q->stride[2], q->stride[3], x.n_rows, head->p->dim, panel);
    for (int64_t i = 0; head->p->score == ATTN_COSINE && i < x.n_rows; i++)
        attn_unit_vector((char *)panel + (size_t)i * head->size, head->p->dim, rows, head->size);
    return x;
}

/* Lanes 0 .. n - 1. */
static uint64_t low_bits(int64_t n) { return n <= 0 ? 0 : n >= 64 ? ~(uint64_t)0 : ((uint64_t)1 << n) - 1; }

/* ---- values and results ------------------------------------------------------------------------------------ */

/* Whether a row of the block does not see one of the keys. */
static bool some_hidden(const attn_head *head, const attn_query_block *x, int64_t n_keys) {
    uint64_t all = ~(uint64_t)0;
    for (int64_t j = 0; j < n_keys; j++) all &= head->m.live[j];
    return (all & low_bits(x->n_rows)) != low_bits(x->n_rows);
}

/* Dense rows that lie close together, or not. */
static bool rows_are_finite(const attn_head *head, attn_rows rows, int64_t n_rows, int64_t n_cols) {
    if (rows.row == n_cols) return head->kernels->finite(rows.data, n_rows * n_cols);
    for (int64_t j = 0; j < n_rows; j++)
        if (!head->kernels->finite(rows.data + j * rows.row * (int64_t)head->size, n_cols)) return false;
    return true;
}

bool attn_has_to_skip(const attn_head *head, const attn_query_block *x, int64_t n_keys, attn_tile_kind kind, attn_rows values,
                      int64_t n_values, attn_finiteness *known) {
    if (kind != ATTN_TILE_PARTLY || !some_hidden(head, x, n_keys)) return false;
    if (*known == ATTN_FINITENESS_UNKNOWN)
        *known = rows_are_finite(head, values, n_values, head->p->v_dim) ? ATTN_FINITE : ATTN_NOT_FINITE;
    return *known == ATTN_NOT_FINITE;
}

void attn_write_panel(const attn_head *head, const attn_query_block *x, const attn_tensor *t, const void *panel) {
    int64_t at = head->b * t->stride[0] + head->h * t->stride[1] + x->i0 * t->stride[2], columns = t->shape[3];
    int64_t col = columns > 1 ? t->stride[3] : 1;
    if (t->dtype == head->dtype) {
        head->kernels->unpack(panel, x->n_written, columns, attn_at(t, at), t->stride[2], col);
        return;
    }
    head->kernels->unpack(panel, x->n_written, columns, head->m.wide, columns, 1);
    for (int64_t i = 0; i < x->n_written; i++)
        attn_store_elements(head, (const char *)head->m.wide + (size_t)(i * columns) * head->size, columns, t,
                            at + i * t->stride[2], col);
}

void attn_write_rows(const attn_head *head, const attn_query_block *x, const attn_tensor *t, const void *values) {
    int64_t at = head->b * t->stride[0] + head->h * t->stride[1] + x->i0 * t->stride[2];
    for (int64_t i = 0; i < x->n_written; i++)
        memcpy(attn_at(t, at + i * t->stride[2]), (const char *)values + (size_t)i * head->size, head->size);
}

/* ---- masks ----------------------------------------------------------------------------------------------- */

/* Which pairs of rows i0 .. i1 - 1 and keys j0 .. j1 - 1 a mask of blocks leaves. */
static attn_tile_kind kind_of_blocks(const attn_block_mask *m, int64_t i0, int64_t i1, int64_t j0, int64_t j1) {
    bool some = false, all = true;
    if (!m->data) return ATTN_TILE_FULL;
    for (int64_t i = i0; i < i1; i = (i / m->block + 1) * m->block)
        for (int64_t j = j0; j < j1; j = (j / m->block + 1) * m->block) {
            bool live = attn_block_is_live(m, i, j);
            some |= live;
            all &= live;
        }
    return !some ? ATTN_TILE_EMPTY : all ? ATTN_TILE_FULL : ATTN_TILE_PARTLY;
}

attn_key_range attn_keys_in_unit(const attn_head *head, const attn_query_block *x, int64_t unit_begin, int64_t unit_end) {
    int64_t begin = x->keys.some.begin > unit_begin ? x->keys.some.begin : unit_begin;
    int64_t end = x->keys.some.end < unit_end ? x->keys.some.end : unit_end;
    if (begin >= end || kind_of_blocks(&head->blocks, x->i0, x->i0 + x->n_rows, begin, end) == ATTN_TILE_EMPTY)
        return (attn_key_range){ 0, 0 };
    return (attn_key_range){ begin / ATTN_KEY_STEP * ATTN_KEY_STEP, end };
}

/* attn_row_keys turned round: key j is seen by a run of rows. */
static uint64_t rows_that_see(const attn_head *head, const attn_query_block *x, int64_t j) {
    const attn_sight *s = &head->sight;
    if (s->one_position) {
        attn_key_range keys = attn_row_keys(s, 0);
        return j >= keys.begin && j < keys.end ? low_bits(x->n_rows) : 0;
    }
    int64_t first = 0, end = j < s->kv_length ? x->n_rows : 0, here = j - s->offset - x->i0; /* the lane that stands on the key */
    if (s->right >= 0 && here - s->right > first) first = here - s->right;
    if (s->left >= 0 && here + s->left + 1 < end) end = here + s->left + 1;
    return low_bits(end) & ~low_bits(first);
}

/* Eight bytes of a mask as bits that are set where a byte is 0. */
static uint64_t hidden_bytes(const uint8_t *mask) {
    const uint64_t low7 = 0x7f7f7f7f7f7f7f7f;
    uint64_t bytes;
    memcpy(&bytes, mask, sizeof bytes);
    return ~(((bytes & low7) + low7) | bytes | low7) >> 7;
}

/* Of up to eight rows and eight keys: a byte for each key, a bit for each row. */
static inline uint64_t hidden_block(const uint8_t *mask, int64_t row, int64_t rows) {
    uint64_t hidden = 0;
    for (int64_t r = 0; r < rows; r++) hidden |= hidden_bytes(mask + r * row) << r;
    return hidden;
}

/* read_mask of rows that are dense. */
static void read_dense_mask(const uint8_t *mask, int64_t row, int64_t n_rows, int64_t n_keys, uint64_t *live) {
    const int64_t whole = n_keys / 8 * 8;
    for (int64_t i = 0; i < n_rows; i += 8, mask += 8 * row) {
        const int64_t rows = n_rows - i < 8 ? n_rows - i : 8;
        for (int64_t j = 0; j < whole; j += 8) {
            uint64_t hidden = rows == 8 ? hidden_block(mask + j, row, 8) : hidden_block(mask + j, row, rows);
            for (int k = 0; k < 8; k++) live[j + k] &= ~((hidden >> 8 * k & 0xff) << i);
        }
        for (int64_t j = whole; j < n_keys; j++)
            for (int64_t r = 0; r < rows; r++) live[j] &= ~((uint64_t)(mask[r * row + j] == 0) << (i + r));
    }
}

static attn_tile_kind kind_of(const attn_head *head, int64_t n_keys) {
    uint64_t some = 0, all = ~(uint64_t)0, lanes = low_bits(head->kernels->q_block);
    for (int64_t j = 0; j < n_keys; j++) {
        some |= head->m.live[j];
        all &= head->m.live[j];
    }
    if ((some & lanes) == 0) return ATTN_TILE_EMPTY;
    return (all & lanes) == lanes ? ATTN_TILE_FULL : ATTN_TILE_PARTLY;
}

/* Key j and those after it in its block are hidden alike. */
static void hide_dead_blocks(const attn_head *head, const attn_query_block *x, int64_t j0, int64_t j1) {
    const attn_block_mask *m = &head->blocks;
    uint64_t rows = 0;
    for (int64_t j = j0; j < j1; j++) {
        if (j == j0 || j % m->block == 0) {
            rows = 0;
            for (int64_t i = 0; i < x->n_rows; i++) rows |= (uint64_t)attn_block_is_live(m, x->i0 + i, j) << i;
        }
        head->m.live[j - j0] &= rows;
    }
}

attn_tile_kind attn_tile_live(const attn_head *head, const attn_query_block *x, int64_t j0, int64_t j1) {
    const attn_tensor *mask = &head->p->mask;
    int64_t n_keys = j1 - j0;
    bool inside = j0 >= x->keys.all.begin && j1 <= x->keys.all.end && x->n_rows == head->kernels->q_block;
    attn_tile_kind blocks = kind_of_blocks(&head->blocks, x->i0, x->i0 + x->n_rows, j0, j1);
    if (blocks == ATTN_TILE_EMPTY) return ATTN_TILE_EMPTY;
    if (inside && blocks == ATTN_TILE_FULL && !mask->rank && !head->p->bias.rank) return ATTN_TILE_FULL;
    for (int64_t j = 0; j < n_keys; j++) head->m.live[j] = inside ? ~(uint64_t)0 : rows_that_see(head, x, j0 + j);
    if (blocks == ATTN_TILE_PARTLY) hide_dead_blocks(head, x, j0, j1);
    if (mask->rank) {
        int64_t at = head->b * mask->stride[0] + head->h * mask->stride[1] + x->i0 * mask->stride[2] + j0 * mask->stride[3];
        if (mask->stride[2] != 0 && mask->stride[3] == 1)
            read_dense_mask(attn_at(mask, at), mask->stride[2], x->n_rows, n_keys, head->m.live);
        else
            head->kernels->read_mask(attn_at(mask, at), mask->stride[2], mask->stride[3], x->n_rows, n_keys, head->m.live);
    }
    return kind_of(head, n_keys);
}

static void read_bias(const attn_head *head, const attn_query_block *x, int64_t j0, int64_t n_keys) {
    const attn_tensor *bias = &head->p->bias;
    int64_t at = head->b * bias->stride[0] + head->h * bias->stride[1] + x->i0 * bias->stride[2] + j0 * bias->stride[3];
    attn_pack_panel(head, bias, at, bias->stride[2], bias->stride[3], x->n_rows, n_keys, head->m.bias);
    head->kernels->add_bias(head->m.s, head->m.bias, n_keys, head->m.live);
}

/* ---- dropout --------------------------------------------------------------------------------------------- */

void attn_tile_keep(const attn_head *head, const attn_query_block *x, int64_t j0, int64_t n_keys) {
    head->kernels->keep(&(attn_keep_tile){ .rule = &head->p->dropout,
                                           .b = head->p->first_entry + head->b,
                                           .h = head->h,
                                           .i0 = x->i0,
                                           .j0 = j0,
                                           .n_keys = n_keys,
                                           .keep = head->m.keep });
}

/* ---- scores ---------------------------------------------------------------------------------------------- */

void attn_tile_raw(const attn_head *head, const attn_query_block *x, int64_t j0, int64_t j1, attn_rows keys, attn_rows next) {
    const attn_score_tile tile = { .q = x->panel,
                                   .k = keys.data,
                                   .k_row = keys.row,
                                   .n_keys = j1 - j0,
                                   .dim = head->p->dim,
                                   .weight = head->m.weight,
                                   .scratch = head->m.powers,
                                   .scale = head->p->scale,
                                   .s = head->m.s,
                                   .v = next.data,
                                   .v_row = next.row,
                                   .v_dim = next.data ? head->p->v_dim : 0 };
    if (attn_block_is_few(head, x) && head->p->score != ATTN_ADDITIVE)
        head->kernels->score_few(&tile, x->n_rows);
    else
        head->kernels->score[head->p->score](&tile);
}

void attn_tile_product(const attn_head *head, const void *panel, attn_rows v, int64_t n_keys, void *dp) {
    head->kernels->score[ATTN_DOT](&(attn_score_tile){
        .q = panel, .k = v.data, .k_row = v.row, .n_keys = n_keys, .dim = head->p->v_dim, .scale = 1, .s = dp });
}

void attn_tile_cap(const attn_head *head, int64_t n_keys) {
    if (head->p->softcap > 0) head->kernels->cap(head->m.s, n_keys, head->p->softcap);
}

attn_tile_kind attn_tile_hide(const attn_head *head, const attn_query_block *x, int64_t j0, int64_t j1, attn_tile_kind kind) {
    const attn_attention_plan *p = head->p;
    int64_t n_keys = j1 - j0;
    if (p->bias.rank) {
        read_bias(head, x, j0, n_keys);
        kind = kind_of(head, n_keys);
    }
    if (p->alibi.rank) head->kernels->add_alibi(head->m.s, n_keys, head->slope, (double)(x->i0 + head->sight.offset - j0));
    if (kind == ATTN_TILE_PARTLY)
        head->kernels->hide(head->m.s, n_keys, head->m.live, p->weighting == ATTN_WEIGHT_NORMALIZED_SUM ? 0 : -INFINITY);
    return kind;
}

attn_tile_kind attn_tile_scores(const attn_head *head, const attn_query_block *x, int64_t j0, int64_t j1, attn_rows keys) {
    attn_tile_kind kind = attn_tile_live(head, x, j0, j1);
    if (kind == ATTN_TILE_EMPTY) return kind;
    attn_tile_raw(head, x, j0, j1, keys, (attn_rows){ NULL, 0 });
    attn_tile_cap(head, j1 - j0);
    return attn_tile_hide(head, x, j0, j1, kind);
}
