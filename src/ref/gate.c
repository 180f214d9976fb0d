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

void ref_gate_backward(int32_t kind, double x, double g, double dy, double *dx, double *dg) {
    double s;
    switch (kind) {
    case ATTN_GATE_SIGMOID: /* y = x s(g),  ds/dg = s(g) s(-g) */
        s = ref_sigmoid(g);
        *dx = dy * s;
        *dg = dy * x * s * ref_sigmoid(-g);
        return;
    case ATTN_GATE_ADDITIVE: /* y = x + g x */
        *dx = dy * (1 + g);
        *dg = dy * x;
        return;
    default: /* y = x g */ *dx = dy * g; *dg = dy * x;
    }
}
