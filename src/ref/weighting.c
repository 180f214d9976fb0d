/* SPDX-License-Identifier: Apache-2.0 */
/* The weightings, each with its gradient below it: softmax, sigmoid, normalised sum, relu^2, sparsemax and
 * entmax (which are defined in entmax.c), hardmax. */
#include "weighting.h"
#include "softmax.h"

#include <attn/attn.h>

#include <math.h>

/* ---- softmax: p_j = exp(s_j) / sum_k exp(s_k) ------------------------------------------------------------- */

/* The largest live score; NaN if one is NaN, -inf if there is none. */
static double live_max(int64_t n, const bool *live, const double *s) {
    double max = -INFINITY;
    for (int64_t j = 0; j < n; j++) {
        if (!live[j]) continue;
        if (isnan(s[j])) return s[j];
        if (s[j] > max) max = s[j];
    }
    return max;
}

/* The maximum is taken off first, so that no exponential overflows. */
static ref_norm softmax(const ref_weighting *w, int64_t n, const bool *live, const double *s, double *p) {
    ref_norm norm = { .max = live_max(n, live, s) };
    if (w->has_sink && !(w->sink <= norm.max) && !isnan(norm.max)) norm.max = w->sink;
    if (norm.max == -INFINITY) return norm; /* nothing to share out: all weights stay 0 */
    if (w->has_sink) norm.sum = exp(w->sink - norm.max);
    for (int64_t j = 0; j < n; j++)
        if (live[j]) norm.sum += exp(s[j] - norm.max);
    for (int64_t j = 0; j < n; j++)
        if (live[j]) p[j] = exp(s[j] - norm.max) / norm.sum;
    return norm;
}

/* d p_j / d s_k = p_j ([j = k] - p_k) and d lse / d s_k = p_k, so ds_k = p_k (dp_k - sum_j p_j dp_j + dlse). So it is for the
 * sink, whose dp is 0: nothing is mixed with its weight. */
static double softmax_backward(const ref_weighting *w, int64_t n, const bool *live, ref_norm norm, const double *p,
                               const double *dp, double dlse, double *ds) {
    double mean = 0;
    for (int64_t j = 0; j < n; j++)
        if (live[j]) mean += p[j] * dp[j];
    for (int64_t j = 0; j < n; j++)
        if (live[j]) ds[j] = p[j] * (dp[j] - mean + dlse);
    if (!w->has_sink || w->sink == -INFINITY) return 0;
    return exp(w->sink - norm.max) / norm.sum * (dlse - mean);
}

double ref_lse(ref_norm norm) { return isinf(norm.max) ? norm.max : norm.max + log(norm.sum); }

/* softmax: -sum p ln p = sum p ln l - sum p (s - m), since p = exp(s - m) / l: this form does not cancel. The p sum to 1 but for
 * the sink's share. */
static double softmax_entropy(const ref_weighting *w, int64_t n, const bool *live, ref_norm norm, const double *s,
                              const double *p) {
    double shifted = 0, share = 0;
    bool any = false;
    for (int64_t j = 0; j < n; j++) {
        if (!live[j] || p[j] == 0) continue;
        any = true;
        share += p[j];
        shifted += p[j] * (s[j] - norm.max);
    }
    if (!any) return 0;
    return (w->has_sink ? share : 1) * log(norm.sum) - shifted;
}

double ref_entropy(const ref_weighting *w, int64_t n, const bool *live, ref_norm norm, const double *s, const double *p) {
    double sum = 0;
    if (w->kind == ATTN_WEIGHT_SOFTMAX) return softmax_entropy(w, n, live, norm, s, p);
    for (int64_t j = 0; j < n; j++)
        if (p[j] != 0) sum -= p[j] * log(p[j]);
    return sum;
}

/* ---- sigmoid: p_j = 1 / (1 + exp(-s_j)) ------------------------------------------------------------------- */

static void sigmoid(int64_t n, const bool *live, const double *s, double *p) {
    for (int64_t j = 0; j < n; j++)
        if (live[j]) p[j] = s[j] < 0 ? exp(s[j]) / (1 + exp(s[j])) : 1 / (1 + exp(-s[j]));
}

/* dp_j / ds_j = p_j (1 - p_j), where 1 - p_j is the sigmoid of -s_j. */
static void sigmoid_backward(int64_t n, const bool *live, const double *s, const double *p, const double *dp, double *ds) {
    for (int64_t j = 0; j < n; j++) {
        if (!live[j]) continue;
        double rest = s[j] < 0 ? 1 / (1 + exp(s[j])) : exp(-s[j]) / (1 + exp(-s[j]));
        ds[j] = p[j] * rest * dp[j];
    }
}

/* ---- normalised sum: p_j = s_j / sum_k s_k ----------------------------------------------------------------- */

static ref_norm normalized_sum(int64_t n, const bool *live, const double *s, double *p) {
    ref_norm norm = { 0 };
    for (int64_t j = 0; j < n; j++)
        if (live[j]) norm.sum += s[j];
    if (norm.sum == 0) return norm; /* all weights stay 0 */
    for (int64_t j = 0; j < n; j++)
        if (live[j]) p[j] = s[j] / norm.sum;
    return norm;
}

/* d p_j / d s_k = ([j = k] - p_j) / sum, so ds_k = (dp_k - sum_j p_j dp_j) / sum. */
static void normalized_sum_backward(int64_t n, const bool *live, ref_norm norm, const double *p, const double *dp, double *ds) {
    double mean = 0;
    if (norm.sum == 0) return;
    for (int64_t j = 0; j < n; j++)
        if (live[j]) mean += p[j] * dp[j];
    for (int64_t j = 0; j < n; j++)
        if (live[j]) ds[j] = (dp[j] - mean) / norm.sum;
}

/* ---- relu^2: p_j = max(s_j, 0)^2 --------------------------------------------------------------------------- */

static double rectified(double s) { return s > 0 || isnan(s) ? s : 0; }

static void relu2(int64_t n, const bool *live, const double *s, double *p) {
    for (int64_t j = 0; j < n; j++)
        if (live[j]) p[j] = rectified(s[j]) * rectified(s[j]);
}

static void relu2_backward(int64_t n, const bool *live, const double *s, const double *dp, double *ds) {
    for (int64_t j = 0; j < n; j++)
        if (live[j]) ds[j] = 2 * rectified(s[j]) * dp[j];
}

/* ---- hardmax: 1 for the first largest score, else 0; its slope is 0 wherever it has one ----------------------- */

static void hardmax(int64_t n, const bool *live, const double *s, double *p) {
    double max = live_max(n, live, s);
    for (int64_t j = 0; j < n; j++) {
        if (!live[j]) continue;
        if (isnan(max)) p[j] = max;
        if (max == -INFINITY || s[j] != max) continue;
        p[j] = 1;
        return;
    }
}

/* ---- by name ----------------------------------------------------------------------------------------------- */

ref_norm ref_weigh(const ref_weighting *w, int64_t n, const bool *live, const double *s, double *p) {
    for (int64_t j = 0; j < n; j++) p[j] = 0;
    switch (w->kind) {
    case ATTN_WEIGHT_SOFTMAX: return softmax(w, n, live, s, p);
    case ATTN_WEIGHT_NORMALIZED_SUM: return normalized_sum(n, live, s, p);
    case ATTN_WEIGHT_RELU2: relu2(n, live, s, p); return (ref_norm){ 0 };
    case ATTN_WEIGHT_SPARSEMAX:
    case ATTN_WEIGHT_ENTMAX15:
    case ATTN_WEIGHT_ENTMAX: ref_entmax_row(w->alpha, n, live, s, p); return (ref_norm){ 0 };
    case ATTN_WEIGHT_HARDMAX: hardmax(n, live, s, p); return (ref_norm){ 0 };
    default: sigmoid(n, live, s, p); return (ref_norm){ 0 };
    }
}

ref_weighting_gradient ref_weigh_backward(const ref_weighting *w, int64_t n, const bool *live, ref_norm norm, const double *s,
                                          const double *p, const double *dp, double dlse, double *ds) {
    ref_weighting_gradient g = { 0 };
    for (int64_t j = 0; j < n; j++) ds[j] = 0;
    switch (w->kind) {
    case ATTN_WEIGHT_SOFTMAX: g.sink = softmax_backward(w, n, live, norm, p, dp, dlse, ds); break;
    case ATTN_WEIGHT_NORMALIZED_SUM: normalized_sum_backward(n, live, norm, p, dp, ds); break;
    case ATTN_WEIGHT_RELU2: relu2_backward(n, live, s, dp, ds); break;
    case ATTN_WEIGHT_SPARSEMAX:
    case ATTN_WEIGHT_ENTMAX15:
    case ATTN_WEIGHT_ENTMAX: ref_entmax_row_backward(w->alpha, n, p, dp, ds, &g.alpha); break;
    case ATTN_WEIGHT_HARDMAX: break;
    default: sigmoid_backward(n, live, s, p, dp, ds); break;
    }
    return g;
}
