/* SPDX-License-Identifier: Apache-2.0 */
/* Attention, as it is defined. For a query i over keys j:
 *
 *     score    s_ij = scale * q_i . k_j (or another score), capped, biased, masked
 *     weight   p_ij = softmax over j of s_ij (or another weighting)
 *     mix      o_i  = sum_j p_ij v_j            p_ij after dropout
 *     see      what the weights were
 *
 * A key that is masked is skipped everywhere, never multiplied by 0: what stands in its memory does not matter. */
#include "attention.h"

#include <math.h>

/* ---- memory -------------------------------------------------------------------------------------------------- */

size_t ref_rows_bytes(int64_t kv_len, int64_t dim, int64_t v_dim) {
    size_t keys, vectors, bytes, wide = (size_t)(dim > v_dim ? dim : v_dim);
    if (__builtin_mul_overflow((size_t)kv_len, 9 * sizeof(double) + sizeof(bool), &keys)) return SIZE_MAX;
    if (__builtin_mul_overflow(wide, 4 * sizeof(double), &vectors)) return SIZE_MAX;
    return __builtin_add_overflow(keys, vectors, &bytes) ? SIZE_MAX : bytes;
}

ref_rows ref_rows_in(void *memory, int64_t kv_len, int64_t dim, int64_t v_dim) {
    double *at = memory;
    int64_t wide = dim > v_dim ? dim : v_dim;
    return (ref_rows){ .q = at,
                       .k = at + wide,
                       .sum = at + 2 * wide,
                       .dout = at + 3 * wide,
                       .capped = at + 4 * wide,
                       .s = at + 4 * wide + kv_len,
                       .p = at + 4 * wide + 2 * kv_len,
                       .dp = at + 4 * wide + 3 * kv_len,
                       .ds = at + 4 * wide + 4 * kv_len,
                       .keep = at + 4 * wide + 5 * kv_len,
                       .r = at + 4 * wide + 6 * kv_len,
                       .x = at + 4 * wide + 7 * kv_len,
                       .seen = at + 4 * wide + 8 * kv_len,
                       .live = (bool *)(at + 4 * wide + 9 * kv_len) };
}

/* ---- score --------------------------------------------------------------------------------------------------- */

static double dot_score(const ref_attention *a, const double *q, int64_t j) {
    double sum = 0;
    for (int64_t d = 0; d < a->dim; d++) sum += q[d] * ref_at(a->k, j, d);
    return sum;
}

static double additive_score(const ref_attention *a, const double *q, int64_t j) {
    double sum = 0;
    for (int64_t d = 0; d < a->dim; d++) sum += ref_get(a->score_weight, d) * tanh(q[d] + ref_at(a->k, j, d));
    return sum;
}

/* The largest element is taken out first, so that no square leaves the range. */
double ref_unit_vector(int64_t n, double *x) {
    double largest = 0, sum = 0;
    for (int64_t d = 0; d < n; d++)
        if (!(fabs(x[d]) <= largest)) largest = fabs(x[d]);
    if (largest == 0) return 0;
    for (int64_t d = 0; d < n; d++) sum += (x[d] / largest) * (x[d] / largest);
    for (int64_t d = 0; d < n; d++) x[d] = x[d] / largest / sqrt(sum);
    return largest * sqrt(sum);
}

double ref_attention_unit_key(const ref_attention *a, int64_t j, double *k) {
    for (int64_t d = 0; d < a->dim; d++) k[d] = ref_at(a->k, j, d);
    return ref_unit_vector(a->dim, k);
}

static double cosine_score(const ref_attention *a, const ref_rows *row, int64_t j) {
    double sum = 0;
    ref_attention_unit_key(a, j, row->k);
    for (int64_t d = 0; d < a->dim; d++) sum += row->q[d] * row->k[d];
    return sum;
}

static double raw_score(const ref_attention *a, const ref_rows *row, int64_t j) {
    switch (a->score) {
    case ATTN_ADDITIVE: return a->scale * additive_score(a, row->q, j);
    case ATTN_COSINE: return a->scale * cosine_score(a, row, j);
    default: return a->scale * dot_score(a, row->q, j);
    }
}

static bool is_live(const ref_attention *a, attn_key_range keys, int64_t i, int64_t j) {
    if (j < keys.begin || j >= keys.end) return false;
    if (a->blocks.data && !attn_block_is_live(&a->blocks, i, j)) return false;
    if (a->mask.data && ref_at(a->mask, i, j) == 0) return false;
    return !a->bias.data || ref_at(a->bias, i, j) != -INFINITY;
}

void ref_attention_scores(const ref_attention *a, int64_t i, ref_rows *row) {
    attn_key_range keys = attn_row_keys(&a->sight, i);
    bool see_unmasked = a->scores.data && a->scores_stage != ATTN_STAGE_WEIGHTED;
    for (int64_t d = 0; d < a->dim; d++) row->q[d] = ref_at(a->q, i, d);
    if (a->score == ATTN_COSINE) row->q_length = ref_unit_vector(a->dim, row->q);

    for (int64_t j = 0; j < a->kv_len; j++) {
        row->live[j] = is_live(a, keys, i, j);
        double raw = row->live[j] || see_unmasked ? raw_score(a, row, j) : -INFINITY;
        double capped = a->softcap > 0 ? a->softcap * tanh(raw / a->softcap) : raw;
        double score = -INFINITY;
        if (row->live[j]) {
            score = capped;
            if (a->bias.data) score += ref_at(a->bias, i, j);
            if (a->has_alibi) score -= a->slope * (double)attn_distance(&a->sight, i, j);
        }
        row->keep[j] = attn_dropout_factor(&a->dropout, a->b, a->h, i, j);
        row->capped[j] = capped;
        row->s[j] = score;
        row->seen[j] = a->scores_stage == ATTN_STAGE_RAW ? raw : a->scores_stage == ATTN_STAGE_CAPPED ? capped : score;
    }
}

/* ---- mix ----------------------------------------------------------------------------------------------------- */

static void mix(const ref_attention *a, int64_t i, ref_rows *row) {
    for (int64_t c = 0; c < a->v_dim; c++) row->sum[c] = 0;
    for (int64_t j = 0; j < a->kv_len; j++) {
        if (!row->live[j]) continue;
        for (int64_t c = 0; c < a->v_dim; c++) row->sum[c] += row->p[j] * row->keep[j] * ref_at(a->v, j, c);
    }
    for (int64_t c = 0; c < a->v_dim; c++) ref_set(a->out, i, c, row->sum[c]);
}

/* ---- see ----------------------------------------------------------------------------------------------------- */

/* Does key j come before key k among the largest? Ties go to the lower key; NaN counts as largest, so that it shows. */
static bool ranks_before(const double *s, int64_t j, int64_t k) {
    if (isnan(s[j]) || isnan(s[k])) return isnan(s[j]) && (!isnan(s[k]) || j < k);
    return s[j] > s[k] || (s[j] == s[k] && j < k);
}

static void see_top(const ref_attention *a, int64_t i, const ref_rows *row) {
    int64_t last = -1;
    for (int64_t rank = 0; rank < a->top_k; rank++) {
        int64_t best = -1;
        for (int64_t j = 0; j < a->kv_len; j++) {
            if (!row->live[j] || (rank > 0 && (last < 0 || !ranks_before(row->s, last, j)))) continue;
            if (best < 0 || ranks_before(row->s, j, best)) best = j;
        }
        last = best;
        if (a->top_index.data) ref_set(a->top_index, i, rank, (double)best);
        if (a->top_weight.data) ref_set(a->top_weight, i, rank, best < 0 ? 0 : row->p[best]);
    }
}

/* Row i of this head, wherever it was asked for. */
static void see_map(const ref_attention *a, int64_t i, ref_maps m, const double *row) {
    for (int64_t h = 0; h < a->seen_heads.n; h++) {
        if ((a->seen_heads.index ? a->seen_heads.index[h] : h) != a->h) continue;
        for (int64_t r = 0; r < a->seen_rows.n; r++) {
            if ((a->seen_rows.index ? a->seen_rows.index[r] : r) != i) continue;
            for (int64_t j = 0; j < a->kv_len; j++) ref_store(m.data, m.dtype, h * m.head + r * m.row + j * m.col, row[j]);
        }
    }
}

static void see_row(const ref_attention *a, int64_t i, const ref_rows *row, ref_norm norm, double *received) {
    if (a->lse.data) ref_put(a->lse, i, ref_lse(norm));
    if (a->entropy.data) ref_put(a->entropy, i, ref_entropy(&a->weighting, a->kv_len, row->live, norm, row->s, row->p));
    if (a->weights.data) see_map(a, i, a->weights, row->p);
    if (a->scores.data) see_map(a, i, a->scores, row->seen);
    for (int64_t j = 0; a->received.data && j < a->kv_len; j++) received[j] += row->p[j];
    if (a->top_k > 0) see_top(a, i, row);
}

/* The blocks of rows before that of row `row`, from block `first` on: `sums` is what the first of them has gathered. Returns the
 * block of that row. */
static int64_t see_pools_before(const ref_attention *a, int64_t row, int64_t first, double *sums) {
    int64_t p = first;
    for (; p < a->pool_rows && attn_pool_edge(p + 1, a->pool_rows, a->q_len) <= row; p++) {
        int64_t rows = attn_pool_edge(p + 1, a->pool_rows, a->q_len) - attn_pool_edge(p, a->pool_rows, a->q_len);
        for (int64_t q = 0; q < a->pool_keys; q++) {
            int64_t keys = attn_pool_edge(q + 1, a->pool_keys, a->kv_len) - attn_pool_edge(q, a->pool_keys, a->kv_len);
            ref_set(a->pooled, p, q, rows == 0 || keys == 0 ? 0 : sums[q] / (double)rows / (double)keys);
            sums[q] = 0;
        }
    }
    return p;
}

static void add_to_pools(const ref_attention *a, const ref_rows *row, double *sums) {
    for (int64_t q = 0; q < a->pool_keys; q++)
        for (int64_t j = attn_pool_edge(q, a->pool_keys, a->kv_len); j < attn_pool_edge(q + 1, a->pool_keys, a->kv_len); j++)
            sums[q] += row->p[j];
}

/* ---- all of it ------------------------------------------------------------------------------------------------- */

void ref_attention_forward(const ref_attention *a, ref_rows *row, double *received, double *pooled) {
    int64_t pool = 0;
    for (int64_t j = 0; a->received.data && j < a->kv_len; j++) received[j] = 0;
    for (int64_t q = 0; a->pooled.data && q < a->pool_keys; q++) pooled[q] = 0;
    for (int64_t i = 0; i < a->q_len; i++) {
        ref_attention_scores(a, i, row);
        ref_norm norm = ref_weigh(&a->weighting, a->kv_len, row->live, row->s, row->p);
        if (a->out.data) mix(a, i, row);
        see_row(a, i, row, norm, received);
        if (!a->pooled.data) continue;
        pool = see_pools_before(a, i, pool, pooled);
        add_to_pools(a, row, pooled);
    }
    if (a->pooled.data) see_pools_before(a, a->q_len, pool, pooled);
    for (int64_t j = 0; a->received.data && j < a->kv_len; j++) ref_put(a->received, j, received[j]);
}
