/* SPDX-License-Identifier: Apache-2.0 */
/* The search of src/ref/entmax.c, with sums from vectors. The scores above a number that the threshold is not below are packed together;
 * few are, so that what is left to do is short. That number is the threshold of a part of the scores: of long rows, of the largest of
 * each lane. Where the packed scores are too many all the same, sweeps go over the row. */
#include "entmax_search.h"

#include <attn/attn.h>

/* Scores that are packed together, and a vector that may be written beyond; vectors of a row (one piece) that is not worth packing, and
 * elements of one whose lanes are looked at first. */
enum { ROOM = 2048, BEYOND = 16, SHORT_ROW = 32, LONG_ROW = 1024, MOST_ROUNDS = 100 };

typedef struct search {
    const attn_kernels *k;
    const attn_scores_source *row;
    double gain;
    _Alignas(64) char packed[(ROOM + BEYOND) * sizeof(double)];
} search;

static double rounded(const search *s, double x) { return s->row->dtype == ATTN_F32 ? (double)(float)x : x; }

/* Packs what is above `at` and sums it up. */
static attn_excess sweep(search *s, double at) {
    attn_excess e = { .least = INFINITY };
    for (int64_t j = 0, m; j < s->row->n; j += m) {
        const void *z = s->row->piece(s->row->context, j, &m);
        s->k->entmax.excess(m, z, s->row->max, s->gain, at, s->packed, ROOM, &e);
    }
    return e;
}

/* Packs the largest of each lane; how many these are. 0: the row is short. */
static int64_t pack_tops(search *s) {
    const int64_t count = 4 * s->k->lanes;
    if (s->row->n < LONG_ROW) return 0;
    for (int64_t i = 0; i < count; i++) {
        if (s->row->dtype == ATTN_F32)
            ((float *)(void *)s->packed)[i] = -INFINITY;
        else
            ((double *)(void *)s->packed)[i] = -INFINITY;
    }
    for (int64_t j = 0, m; j < s->row->n; j += m) {
        const void *z = s->row->piece(s->row->context, j, &m);
        s->k->entmax.tops(m, z, s->row->max, s->gain, s->packed);
    }
    return count;
}

/* ---- sparsemax and entmax-1.5 ---------------------------------------------------------------------------------- */

static void find_threshold(search *s, bool quadratic, attn_entmax_cut *cut) {
    const double n = (double)s->row->n, highest = quadratic ? -1 / sqrt(n) : -1 / n; /* that of equal scores */
    double at = -1;                                                                  /* that of a single one */
    if (s->row->n <= SHORT_ROW * s->k->lanes) {
        int64_t all;
        const void *z = s->row->piece(s->row->context, 0, &all);
        s->k->entmax.settle(quadratic, all, z, s->row->max, s->gain, highest, &at, &cut->rest);
        cut->at = at;
        return;
    }
    int64_t tops = pack_tops(s);
    if (tops > 0) s->k->entmax.settle(quadratic, tops, s->packed, 0, 1, highest, &at, &cut->rest);
    for (int round = 0;; round++) {
        attn_excess e = sweep(s, at);
        if (e.count <= ROOM) {
            s->k->entmax.settle(quadratic, e.count, s->packed, 0, 1, highest, &at, &cut->rest);
            cut->at = at;
            return;
        }
        bool settled;
        double sum = attn_total(e.sum), squares = attn_total(e.squares), total = quadratic ? squares : sum;
        double step = attn_threshold_step(quadratic, (double)e.count, sum, squares, e.least, &settled);
        double next = rounded(s, at + step < highest ? at + step : highest);
        if ((settled && fabs(total - 1) < 0x1p-6) || next == at || round == MOST_ROUNDS) {
            cut->at = at, cut->rest = step;
            return;
        }
        at = next;
    }
}

/* ---- any other alpha --------------------------------------------------------------------------------------------- */

/* Sums of weights as multiples of the largest, w: the row's sum is w times `sum`. */
typedef struct power_sum {
    double sum, slope;
} power_sum;

/* Of `packed` scores, or, where they are more than there is room for, of the row. */
static power_sum sum_powers(search *s, int64_t packed, double a, double log_w) {
    attn_compensated sum = { 0, 0 }, slope = { 0, 0 };
    if (packed <= ROOM) {
        s->k->entmax.power_sums(packed, s->packed, 0, 1, a, log_w, &sum, &slope);
    } else {
        for (int64_t j = 0, m; j < s->row->n; j += m) {
            const void *z = s->row->piece(s->row->context, j, &m);
            s->k->entmax.power_sums(m, z, s->row->max, s->gain, a, log_w, &sum, &slope);
        }
    }
    return (power_sum){ attn_total(sum), attn_total(slope) };
}

/* Newton's steps come from above, until one is as small as what the element type can tell of w^a, or nearly so and the sum as good as 1.
 * It is returned, for the weights to be corrected by. */
static double find_log_weight(search *s, int64_t packed, double a, double *log_w) {
    const double unit = s->row->dtype == ATTN_F32 ? 0x1p-25 : 0x1p-54, lowest = -log((double)s->row->n);
    for (int round = 0;; round++) {
        power_sum p = sum_powers(s, packed, a, *log_w);
        double log_sum = log(p.sum) + *log_w, step = log1p(expm1(-a * log_sum) * p.sum / p.slope) / a, size = a * fabs(step);
        double next = fmax(*log_w + step, lowest);
        if (size < unit || (size < 32 * unit && fabs(log_sum) < 0x1p-14) || !(next < *log_w) || round == MOST_ROUNDS) return step;
        *log_w = next;
    }
}

/* Beyond alpha 2 the sum is steep wherever a score comes in, and Newton's steps may pass the root: the interval is halved where one
 * leaves it, or is not worth it. Returns the step that is left at *log_w; the root is not above *above. */
static double find_steep_log_weight(search *s, int64_t packed, double a, double *log_w, double *above) {
    double low = -log1p((double)s->row->n), last = INFINITY;
    *log_w = *above;
    for (int round = 0;; round++) {
        power_sum p = sum_powers(s, packed, a, *log_w);
        double log_sum = log(p.sum) + *log_w, step = log1p(expm1(-a * log_sum) * p.sum / p.slope) / a, next = *log_w + step;
        if (log_sum > 0)
            *above = *log_w;
        else
            low = *log_w;
        if (log_sum == 0 || next == *log_w) return step;
        if (!(next > low && next < *above) || (round > 1 && fabs(step) > last / 2)) next = low + (*above - low) / 2;
        if (next == low || next == *above) return step;
        last = fabs(next - *log_w);
        *log_w = next;
    }
}

static void find_power(search *s, double a, attn_entmax_cut *cut) {
    double log_w = 0, above = 0, step;
    int64_t tops = pack_tops(s);
    if (a > 1) {
        if (tops > 0) find_steep_log_weight(s, tops, a, &log_w, &above);
        step = find_steep_log_weight(s, sweep(s, -exp(a * above)).count, a, &log_w, &above);
    } else {
        if (tops > 0) find_log_weight(s, tops, a, &log_w);
        step = find_log_weight(s, sweep(s, -exp(a * log_w)).count, a, &log_w);
    }
    cut->log_w = log_w;
    cut->shift = -expm1(-a * step);
    cut->factor = exp(log_w + step);
}

attn_entmax_cut attn_entmax_search(const attn_kernels *k, double alpha, const attn_scores_source *row) {
    attn_entmax_cut cut = { .alpha = alpha, .max = row->max };
    search s;
    s.k = k, s.row = row;
    s.gain = alpha == 1.5 ? 0.5 : alpha - 1;
    if (alpha == 1.5 || alpha == 2)
        find_threshold(&s, alpha == 1.5, &cut);
    else
        find_power(&s, alpha - 1, &cut);
    return cut;
}

void attn_entmax_apply(const attn_entmax_kernels *k, const attn_entmax_cut *cut, int64_t n, const void *z, void *y) {
    if (cut->alpha == 1.5 || cut->alpha == 2)
        k->cut(cut->alpha == 1.5, n, z, cut->max, cut->at, cut->rest, y);
    else
        k->power(n, z, cut->max, cut->alpha - 1, cut->alpha - 1, cut->log_w, cut->shift, cut->factor, y);
}
