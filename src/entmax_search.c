/* SPDX-License-Identifier: Apache-2.0 */
/* The search of src/ref/entmax.c, with sums from vectors. The scores that are above the first threshold, a number known beforehand, are
 * packed together as they are found: few are, so that the later sweeps are short. Where they are too many, sweeps go over the row
 * until they are few enough, or over it alone. */
#include "entmax_search.h"

#include <attn/attn.h>

/* Scores that are packed together; a vector may be written beyond. */
enum { ROOM = 1024, BEYOND = 16, MOST_ROUNDS = 100 };

typedef struct search {
    const attn_entmax_kernels *k;
    const attn_scores_source *row;
    double gain;
    int64_t kept;   /* how many scores are packed; above ROOM: they are not all there */
    double kept_at; /* above what */
    _Alignas(64) char packed[(ROOM + BEYOND) * sizeof(double)];
} search;

static double rounded(const search *s, double x) { return s->row->dtype == ATTN_F32 ? (double)(float)x : x; }

/* Packs what is above `at` and sums it up. */
static attn_excess sweep(search *s, double at) {
    attn_excess e = { .least = INFINITY };
    if (s->kept <= ROOM && at >= s->kept_at) {
        s->k->excess(s->kept, s->packed, 0, 1, at, s->packed, ROOM, &e);
    } else {
        for (int64_t j = 0, m; j < s->row->n; j += m) {
            const void *z = s->row->piece(s->row->context, j, &m);
            s->k->excess(m, z, s->row->max, s->gain, at, s->packed, ROOM, &e);
        }
    }
    s->kept = e.count, s->kept_at = at;
    return e;
}

/* ---- sparsemax and entmax-1.5 ---------------------------------------------------------------------------------- */

/* How far the threshold is from where e was taken, and whether no score lies between: the support is then the right one. Sums of
 * single precision tell the quadratic's root only near it; farther off Newton's step for the norm, which never passes it. */
static double step_from(bool quadratic, const attn_excess *e, bool *settled) {
    double count = (double)e->count, sum = attn_total(e->sum), squares = attn_total(e->squares), step;
    if (!quadratic) {
        step = (sum - 1) / count;
        *settled = step < e->least;
        return step;
    }
    double inside = sum * sum - count * (squares - 1);
    step = (squares - 1) / (sum + sqrt(inside > 0 ? inside : 0));
    *settled = squares < 4 && inside >= 0 && step < e->least;
    return *settled ? step : (squares - sqrt(squares)) / sum;
}

/* The threshold is taken from sums at its own place, where they are close to 1: their rounding errors are then of its last place. */
static void find_threshold(search *s, bool quadratic, attn_entmax_cut *cut) {
    const double n = (double)s->row->n, highest = quadratic ? -1 / sqrt(n) : -1 / n; /* all scores equal */
    double at = -1;
    for (int round = 0;; round++) {
        bool settled;
        attn_excess e = sweep(s, at);
        double step = step_from(quadratic, &e, &settled), total = attn_total(quadratic ? e.squares : e.sum);
        double next = at + step < highest ? at + step : highest;
        next = rounded(s, next);
        if ((settled && fabs(total - 1) < 0x1p-6) || next == at || round == MOST_ROUNDS) {
            cut->at = at, cut->rest = step;
            return;
        }
        at = next;
    }
}

/* ---- any other alpha --------------------------------------------------------------------------------------------- */

typedef struct power_sum {
    double sum, slope;
} power_sum;

static power_sum sum_powers(search *s, double a, double log_w) {
    attn_compensated sum = { 0, 0 }, slope = { 0, 0 };
    if (s->kept <= ROOM) {
        s->k->power_sums(s->kept, s->packed, 0, 1, a, log_w, &sum, &slope);
    } else {
        for (int64_t j = 0, m; j < s->row->n; j += m) {
            const void *z = s->row->piece(s->row->context, j, &m);
            s->k->power_sums(m, z, s->row->max, s->gain, a, log_w, &sum, &slope);
        }
    }
    return (power_sum){ attn_total(sum), attn_total(slope) };
}

/* Newton's steps come from above and stop going down where rounding errors are all that is left. The last sum divides them out. */
static void find_power(search *s, double a, attn_entmax_cut *cut) {
    const double enough = s->row->dtype == ATTN_F32 ? 0x1p-20 : 0x1p-49, lowest = -log((double)s->row->n);
    double log_w = 0;
    sweep(s, -1);
    for (int round = 0;; round++) {
        power_sum p = sum_powers(s, a, log_w);
        double step = log1p(expm1(-a * log(p.sum)) * p.sum / p.slope) / a, next = rounded(s, fmax(log_w + step, lowest));
        if (!(next < log_w) || p.sum - 1 < enough || round == MOST_ROUNDS) {
            cut->log_w = log_w, cut->factor = 1 / p.sum;
            return;
        }
        log_w = next;
    }
}

attn_entmax_cut attn_entmax_search(const attn_entmax_kernels *k, double alpha, const attn_scores_source *row) {
    attn_entmax_cut cut = { .alpha = alpha, .max = row->max };
    search s;
    s.k = k, s.row = row, s.kept = ROOM + 1, s.kept_at = 0;
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
        k->power(n, z, cut->max, cut->alpha - 1, cut->alpha - 1, cut->log_w, cut->factor, y);
}
