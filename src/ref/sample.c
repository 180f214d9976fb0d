/* SPDX-License-Identifier: Apache-2.0 */
/* Sampling, as it is said: cut off the unlikely, then walk through the classes until the probabilities add up to u. */
#include "sample.h"

#include "../philox.h"
#include "top_k.h"

#include <math.h>
#include <stdbool.h>

double ref_sample_uniform(uint64_t seed, uint64_t row) {
    attn_philox random = attn_philox_words(attn_philox_counter(row, (uint64_t)2 << 32), seed);
    uint64_t word = random.word[0] | (uint64_t)random.word[1] << 32;
    return ((double)(word >> 12) + 0.5) * 0x1p-52; /* 52 bits and a half are exact */
}

/* The entry that comes next in the order of scores, after entry `last` (-1: the first); -1 where no live one does. */
static int64_t next_largest(const ref_sampler *s, int64_t last) {
    int64_t best = -1;
    for (int64_t i = 0; i < s->n; i++) {
        double x = ref_get(s->x, i);
        if (x == -INFINITY || (last >= 0 && !ref_comes_before(ref_get(s->x, last), last, x, i))) continue;
        if (best < 0 || ref_comes_before(x, i, ref_get(s->x, best), best)) best = i;
    }
    return best;
}

/* (x_i - max) / temperature, the logarithm of p_i / p_max. */
static double distance(const ref_sampler *s, double max, int64_t i) { return (ref_get(s->x, i) - max) / s->temperature; }

/* The entries up to `last`, in the order of scores, that min_p leaves. */
static bool is_kept(const ref_sampler *s, double max, int64_t last, int64_t i) {
    double x = ref_get(s->x, i);
    return x != -INFINITY && !ref_comes_before(ref_get(s->x, last), last, x, i) && distance(s, max, i) >= log(s->min_p);
}

ref_draw ref_sample(const ref_sampler *s, double u) {
    double max = -INFINITY, total = 0, mass = 0;
    int64_t first = next_largest(s, -1), last = first, kth = first;
    for (int64_t i = 0; i < s->n; i++)
        if (isnan(ref_get(s->x, i))) return (ref_draw){ -1, NAN };
    if (first < 0) return (ref_draw){ -1, 0 };
    if (s->temperature == 0) return (ref_draw){ first, 1 };
    max = ref_get(s->x, first);
    if (isinf(max)) return (ref_draw){ -1, NAN };

    /* top-k */
    for (int64_t rank = 0, i = first; i >= 0 && (s->top_k == 0 || rank < s->top_k); rank++, i = next_largest(s, i)) {
        total += exp(distance(s, max, i));
        kth = i;
    }
    /* top-p: the smallest prefix that holds that share of what is left */
    for (int64_t i = first; i >= 0; i = next_largest(s, i)) {
        mass += exp(distance(s, max, i));
        last = i;
        if (i == kth || (s->top_p < 1 && mass >= s->top_p * total)) break;
    }
    /* min-p, and the draw in the order of the classes */
    mass = 0;
    for (int64_t i = 0; i < s->n; i++)
        if (is_kept(s, max, last, i)) mass += exp(distance(s, max, i));
    double sum = 0;
    ref_draw draw = { -1, 0 };
    for (int64_t i = 0; i < s->n && sum <= u * mass; i++) {
        double e = is_kept(s, max, last, i) ? exp(distance(s, max, i)) : 0;
        sum += e;
        if (e > 0) draw = (ref_draw){ i, e / mass };
    }
    return draw;
}
