/* SPDX-License-Identifier: Apache-2.0 */
/* Cross-entropy of a row against a hard or soft target. */
#include "cross_entropy.h"
#include "softmax.h"

#include <math.h>

double ref_target_at(const ref_target *t, int64_t c) {
    double w = t->weight.data ? ref_get(t->weight, c) : 1, spread = t->smoothing / (double)t->classes;
    if (t->soft.data) return w * ((1 - t->smoothing) * ref_get(t->soft, c) + spread);
    return w * ((c == t->label ? 1 - t->smoothing : 0) + spread);
}

static double lse_of(const ref_target *t) {
    return ref_logsumexp(&(ref_scores){ .n = t->classes, .x = t->logits, .scale = 1, .op = ATTN_LOG_SOFTMAX });
}

/* Where lse is not finite (a NaN, a +inf, or nothing but -inf among the logits) there are no probabilities: NaN. */
double ref_cross_entropy(const ref_target *t) {
    double lse = lse_of(t), loss = 0;
    if (!isfinite(lse)) return NAN;
    for (int64_t c = 0; c < t->classes; c++) {
        /* A hard target without smoothing has one term: a logit of -inf elsewhere is a class that is ruled out. */
        if (!t->soft.data && t->smoothing == 0 && c != t->label) continue;
        loss -= ref_target_at(t, c) * (ref_get(t->logits, c) - lse);
    }
    return loss + t->z_loss * lse * lse;
}

void ref_cross_entropy_backward(const ref_target *t, double factor, ref_vector dlogits) {
    double lse = lse_of(t), total = 2 * t->z_loss * lse;
    for (int64_t c = 0; c < t->classes; c++) total += ref_target_at(t, c);
    for (int64_t c = 0; c < t->classes; c++) {
        double p = isfinite(lse) ? exp(ref_get(t->logits, c) - lse) : NAN;
        ref_put(dlogits, c, factor * (total * p - ref_target_at(t, c)));
    }
}
