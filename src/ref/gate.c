/* SPDX-License-Identifier: Apache-2.0 */
/* Gates: one signal decides how much of another passes. */
#include "gate.h"

#include <math.h>

double ref_sigmoid(double x) {
    double e = exp(-fabs(x)); /* never above 1 */
    return (x < 0 ? e : 1) / (1 + e);
}

double ref_gate(int32_t kind, double x, double g) {
    switch (kind) {
    case ATTN_GATE_SIGMOID: return x * ref_sigmoid(g);
    case ATTN_GATE_ADDITIVE: return x + g * x;
    default: return x * g;
    }
}

/* sigmoid' = sigmoid(g) sigmoid(-g) */
double ref_gate_dg(int32_t kind, double x, double g, double dy) {
    return kind == ATTN_GATE_SIGMOID ? dy * x * ref_sigmoid(g) * ref_sigmoid(-g) : dy * x;
}
