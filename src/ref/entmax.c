/* SPDX-License-Identifier: Apache-2.0 */
/* Alpha-entmax (Peters et al. 2019), the family from softmax (alpha 1) over entmax-1.5 to sparsemax (alpha 2; Martins and Astudillo
 * 2016) and beyond, and its gradients. With a = alpha - 1 and d_j = z_j - max z:
 *
 *     p_j = (a d_j - tau)^(1/a) where that is positive, else 0; tau is the number that makes the row sum to 1
 *
 * What is searched for is tau. Seen from its left, the sum (for entmax-1.5 the norm) of the differences is a convex function, so that
 * Newton's steps never pass it, and each leaves out some scores that get no weight, until those are left that do: the support. On the
 * support tau is the root of a linear (sparsemax) or quadratic (entmax-1.5) equation. */
#include "softmax.h"

#include <math.h>

/* The largest live score; NaN if one is NaN, -inf if there is none. */
static double live_max(const ref_scores *s) {
    double max = -INFINITY;
    for (int64_t i = 0; i < s->n; i++) {
        double z = ref_score(s, i);
        if (isnan(z)) return z;
        if (z > max) max = z;
    }
    return max;
}

/* A sum whose rounding errors are carried along. */
typedef struct careful {
    double sum, lost;
} careful;

static void add(careful *c, double x) {
    double y = x - c->lost, sum = c->sum + y;
    c->lost = (sum - c->sum) - y;
    c->sum = sum;
}

/* ---- sparsemax: p = d - tau, entmax-1.5: p = (d/2 - tau)^2 ------------------------------------------------- */

/* What the scores above `at` say: how many they are; their excess t over it: its sum, that of its squares, its smallest. */
typedef struct excess {
    double count, sum, squares, least;
} excess;

static excess excess_over(const ref_scores *s, double max, double gain, double at) {
    excess e = { .least = INFINITY };
    careful sum = { 0, 0 }, squares = { 0, 0 };
    for (int64_t i = 0; i < s->n; i++) {
        double t = (ref_score(s, i) - max) * gain - at;
        if (!(t > 0)) continue;
        e.count += 1;
        add(&sum, t);
        add(&squares, t * t);
        e.least = fmin(e.least, t);
    }
    e.sum = sum.sum, e.squares = squares.sum;
    return e;
}

/* sum (t - step) = 1 */
static double linear_step(excess e) { return (e.sum - 1) / e.count; }

/* sum (t - step)^2 = 1 where no score falls out of the sum, else Newton's step for its root = 1. */
static double quadratic_step(excess e) {
    double inside = e.sum * e.sum - e.count * (e.squares - 1);
    double step = (e.squares - 1) / (e.sum + sqrt(inside));
    return inside >= 0 && step < e.least ? step : (e.squares - sqrt(e.squares)) / e.sum;
}

static void exact_weights(const ref_scores *s, double max, bool quadratic, ref_vector y) {
    double gain = quadratic ? 0.5 : 1, at = -1, step; /* no weight is above 1: tau >= -1 */
    for (;;) {
        excess e = excess_over(s, max, gain, at);
        step = quadratic ? quadratic_step(e) : linear_step(e);
        if (!(at + step > at)) break;
        at += step;
    }
    for (int64_t i = 0; i < s->n; i++) {
        double t = (ref_score(s, i) - max) * gain - at - step; /* the last step is what `at` has no digits for */
        ref_put(y, i, t > 0 ? (quadratic ? t * t : t) : 0);
    }
}

/* ---- any alpha: p_j = w (1 + a d_j / w^a)^(1/a), w being the largest weight ---------------------------------- */

/* log p_j for log w; -inf without weight. Exact for the smallest a too: the limit is log w + d. */
static double log_weight(double a, double d, double log_w) {
    double y = d == 0 ? 0 : a * d * exp(-a * log_w);
    return y > -1 ? log_w + log1p(y) / a : -INFINITY;
}

/* The sum of weights, and its logarithm's slope in log w. */
typedef struct weight_sum {
    double sum, slope;
} weight_sum;

static weight_sum sum_weights(const ref_scores *s, double max, double a, double log_w) {
    careful sum = { 0, 0 };
    double slope = 0;
    for (int64_t i = 0; i < s->n; i++) {
        double log_p = log_weight(a, ref_score(s, i) - max, log_w);
        if (log_p == -INFINITY) continue;
        add(&sum, exp(log_p));
        slope += exp(log_p + a * (log_w - log_p));
    }
    return (weight_sum){ sum.sum, slope / sum.sum };
}

/* log w is in [-log n, 0]. Newton's steps on the sum's a-norm, which is what is convex up to alpha 2; halving where a step leaves the
 * interval or is not worth it, as beyond alpha 2, where the sum is steep wherever a score comes in. */
static double find_log_weight(const ref_scores *s, double max, double a) {
    double low = -log((double)s->n), high = 0, log_w = 0, last = INFINITY;
    for (int round = 0;; round++) { /* ends: no step is longer than half of the one before, or the interval is halved */
        weight_sum r = sum_weights(s, max, a, log_w);
        if (r.sum == 1) return log_w;
        if (r.sum > 1)
            high = log_w;
        else
            low = log_w;
        double step = log1p(expm1(-a * log(r.sum)) / r.slope) / a, next = log_w + step;
        if (!(next > low && next < high) || (round > 1 && fabs(step) > last / 2)) next = low + (high - low) / 2;
        if (next == log_w || next == low || next == high) return log_w;
        last = fabs(next - log_w);
        log_w = next;
    }
}

static void general_weights(const ref_scores *s, double max, double a, ref_vector y) {
    double log_w = find_log_weight(s, max, a), sum = sum_weights(s, max, a, log_w).sum;
    for (int64_t i = 0; i < s->n; i++) ref_put(y, i, exp(log_weight(a, ref_score(s, i) - max, log_w)) / sum);
}

void ref_entmax(const ref_scores *s, double alpha, ref_vector y) {
    double max = live_max(s);
    if (!isfinite(max)) {
        for (int64_t i = 0; i < s->n; i++) ref_put(y, i, ref_score(s, i) == -INFINITY ? 0 : NAN);
    } else if (alpha == 1) {
        ref_softmax(s, y);
    } else if (alpha == 1.5 || alpha == 2) {
        exact_weights(s, max, alpha == 1.5, y);
    } else {
        general_weights(s, max, alpha - 1, y);
    }
}

void ref_entmax_row(double alpha, int64_t n, const bool *live, const double *s, double *p) {
    union {
        const void *in;
        void *out; /* a ref_vector reads and writes; these two are only read */
    } scores = { s }, mask = { live };
    ref_scores row = { .n = n, .x = { scores.out, 1, ATTN_F64 }, .mask = { mask.out, 1, ATTN_BOOL }, .scale = 1 };
    ref_entmax(&row, alpha, (ref_vector){ p, 1, ATTN_F64 });
}

/* ---- gradients ------------------------------------------------------------------------------------------------
 * From p^a = a z - tau on the support, with r_j = p_j^(2-alpha):
 *     dz_j = r_j (dy_j - sum_k r_k dy_k / sum_k r_k)
 * and d p_j / d alpha has the same form: -r_j (psi_j - sum_k r_k psi_k / sum_k r_k), where psi_j = d/da (p_j^a - 1)/a at fixed p_j.
 * So d alpha = -sum_j dz_j psi_j. */

/* psi = log^2 p * chi(a log p), chi(t) = (1 + (t - 1) e^t) / t^2 = sum_k t^k / (k! (k + 2)), t <= 0. */
static double psi(double a, double p) {
    double log_p = log(p), t = a * log_p, chi = 0.5, term = 1;
    if (t < -1) return log_p * log_p * (1 + (t - 1) * exp(t)) / (t * t);
    for (int k = 1; k < 18; k++) {
        term *= t / k;
        chi += term / (k + 2);
    }
    return log_p * log_p * chi;
}

/* The entry whose r is the largest. Differences to its dy keep their digits however much larger its r is than the others'. */
static int64_t heaviest(double alpha, int64_t n, ref_vector y) {
    int64_t best = -1;
    for (int64_t i = 0; i < n; i++) {
        double p = ref_get(y, i);
        if (p != 0 && (best < 0 || (alpha > 2 ? p < ref_get(y, best) : p > ref_get(y, best)))) best = i;
    }
    return best;
}

double ref_entmax_backward(double alpha, double scale, int64_t n, ref_vector y, ref_vector dy, ref_vector dx) {
    int64_t top = heaviest(alpha, n, y);
    double top_y = top < 0 ? 1 : ref_get(y, top), top_dy = top < 0 ? 0 : ref_get(dy, top);
    double total = 0, mean = 0, top_dz = 0, dalpha = 0;
    for (int64_t i = 0; i < n; i++) {
        double p = ref_get(y, i);
        if (p == 0) continue;
        double share = pow(p / top_y, 2 - alpha), difference = ref_get(dy, i) - top_dy;
        total += share;
        mean += share * difference;
        if (i != top) top_dz -= pow(p, 2 - alpha) * difference;
    }
    mean /= total;
    top_dz /= total;
    for (int64_t i = 0; i < n; i++) {
        double p = ref_get(y, i), dz = 0;
        if (p != 0) dz = i == top ? top_dz : pow(p, 2 - alpha) * (ref_get(dy, i) - top_dy - mean);
        if (p != 0) dalpha -= dz * psi(alpha - 1, p);
        if (dx.data) ref_put(dx, i, scale * dz);
    }
    return dalpha;
}

void ref_entmax_row_backward(double alpha, int64_t n, const double *p, const double *dp, double *ds, double *dalpha) {
    union {
        const void *in;
        void *out;
    } weights = { p }, slopes = { dp };
    double d = ref_entmax_backward(alpha, 1, n, (ref_vector){ weights.out, 1, ATTN_F64 }, (ref_vector){ slopes.out, 1, ATTN_F64 },
                                   (ref_vector){ ds, 1, ATTN_F64 });
    if (dalpha) *dalpha += d;
}
