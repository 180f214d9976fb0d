/* SPDX-License-Identifier: Apache-2.0 */
/* Softmax and its family, as a textbook has them: subtract the maximum, exponentiate, divide by the sum. */
#include "softmax.h"

#include "../philox.h"

#include <math.h>
#include <stdbool.h>

double ref_score(const ref_scores *s, int64_t i) {
    if (s->mask.data && ref_get(s->mask, i) == 0) return -INFINITY;
    double z = fma(s->scale, ref_get(s->x, i), s->bias.data ? ref_get(s->bias, i) : 0);
    return s->op == ATTN_SOFTMIN ? -z : z;
}

/* What a row comes to: its largest live score (NaN if any is NaN, -inf if none is live) and the sum of exp(z - max). */
typedef struct row_state {
    double max, sum;
} row_state;

static row_state examine(const ref_scores *s) {
    row_state r = { .max = -INFINITY, .sum = 0 };
    for (int64_t i = 0; i < s->n; i++) {
        double z = ref_score(s, i);
        if (isnan(z) || z > r.max) r.max = z;
        if (isnan(z)) return r;
    }
    if (isinf(r.max)) return r;
    for (int64_t i = 0; i < s->n; i++) r.sum += exp(ref_score(s, i) - r.max);
    return r;
}

void ref_softmax(const ref_scores *s, ref_vector y) {
    bool logarithmic = s->op == ATTN_LOG_SOFTMAX;
    row_state r = examine(s);
    double log_sum = log(r.sum);
    for (int64_t i = 0; i < s->n; i++) {
        double z = ref_score(s, i), result;
        if (z == -INFINITY)
            result = logarithmic ? -INFINITY : 0;
        else if (isnan(r.max) || isinf(r.max))
            result = NAN;
        else
            result = logarithmic ? z - r.max - log_sum : exp(z - r.max) / r.sum;
        ref_put(y, i, result);
    }
}

double ref_logsumexp(const ref_scores *s) {
    row_state r = examine(s);
    return isnan(r.max) || isinf(r.max) ? r.max : r.max + log(r.sum);
}

/* softmax:      y = exp(z - lse),  dz_i = y_i * (dy_i - sum_j y_j dy_j)
 * log-softmax:  y = z - lse,       dz_i = dy_i - exp(y_i) * sum_j dy_j
 * and dx = scale * dz, negated for softmin. */
void ref_softmax_backward(int32_t op, double scale, int64_t n, ref_vector y, ref_vector dy, ref_vector dx) {
    bool logarithmic = op == ATTN_LOG_SOFTMAX;
    double weightless = logarithmic ? -INFINITY : 0, sum = 0;
    if (op == ATTN_SOFTMIN) scale = -scale;
    for (int64_t i = 0; i < n; i++) {
        double yi = ref_get(y, i);
        if (yi != weightless) sum += logarithmic ? ref_get(dy, i) : yi * ref_get(dy, i);
    }
    for (int64_t i = 0; i < n; i++) {
        double yi = ref_get(y, i), dyi = ref_get(dy, i);
        double dz = logarithmic ? dyi - exp(yi) * sum : yi * (dyi - sum);
        ref_put(dx, i, yi == weightless ? 0 : scale * dz);
    }
}

/* log-softmax: dy_i = dz_i - sum_j exp(y_j) dz_j, dz = scale * dx. */
void ref_log_softmax_tangent(double scale, int64_t n, ref_vector y, ref_vector dx, ref_vector dy) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        if (ref_get(y, i) != -INFINITY) sum += exp(ref_get(y, i)) * ref_get(dx, i);
    for (int64_t i = 0; i < n; i++) ref_put(dy, i, ref_get(y, i) == -INFINITY ? 0 : scale * (ref_get(dx, i) - sum));
}

/* d lse = sum_j exp(z_j - lse) dz_j */
double ref_logsumexp_tangent(const ref_scores *s, ref_vector dx) {
    row_state r = examine(s);
    double dot = 0;
    if (r.max == -INFINITY) return 0;
    if (!isfinite(r.max)) return NAN;
    for (int64_t i = 0; i < s->n; i++) {
        double e = exp(ref_score(s, i) - r.max);
        if (e != 0) dot += e * ref_get(dx, i);
    }
    return dot / r.sum * (s->op == ATTN_SOFTMIN ? -s->scale : s->scale);
}

void ref_logsumexp_backward(const ref_scores *s, double dy, ref_vector dx) {
    row_state r = examine(s);
    double factor = dy * (s->op == ATTN_SOFTMIN ? -s->scale : s->scale);
    for (int64_t i = 0; i < s->n; i++) {
        double z = ref_score(s, i);
        double p = isnan(r.max) || isinf(r.max) ? NAN : exp(z - r.max) / r.sum;
        ref_put(dx, i, z == -INFINITY ? 0 : factor * p);
    }
}

/* ---- gumbel-softmax (Jang et al. 2017) ----------------------------------------------------------------------- */

double ref_gumbel(uint64_t seed, uint64_t index) {
    attn_philox random = attn_philox_words(attn_philox_counter(index >> 2, (uint64_t)1 << 32), seed);
    double u = ((double)(random.word[index & 3] >> 9) + 0.5) * 0x1p-23;
    return -log(-log(u));
}

void ref_gumbel_softmax(const ref_scores *s, uint64_t seed, uint64_t position, double temperature, bool hard, ref_vector y) {
    double max = -INFINITY, sum = 0;
    int64_t first = -1;
    for (int64_t i = 0; i < s->n; i++) {
        double z = ref_score(s, i) + ref_gumbel(seed, position + (uint64_t)i);
        if (isnan(z)) max = z;
        if (z > max) max = z, first = i;
    }
    for (int64_t i = 0; i < s->n && isfinite(max) && !hard; i++)
        sum += exp((ref_score(s, i) + ref_gumbel(seed, position + (uint64_t)i) - max) / temperature);
    for (int64_t i = 0; i < s->n; i++) {
        double z = ref_score(s, i), result;
        if (z == -INFINITY)
            result = 0;
        else if (!isfinite(max))
            result = NAN;
        else if (hard)
            result = i == first;
        else
            result = exp((z + ref_gumbel(seed, position + (uint64_t)i) - max) / temperature) / sum;
        ref_put(y, i, result);
    }
}
