/* SPDX-License-Identifier: Apache-2.0 */
/* The definition of the three gates, element by element. */
#ifndef ATTN_REF_GATE_H
#define ATTN_REF_GATE_H

#include "element.h"

/* 1 / (1 + exp(-x)), without overflow on either side. */
double ref_sigmoid(double x);

/* x * sigmoid(g), x + g * x, x * g. Linear in x: the gradient to x is the gate of dy. */
double ref_gate(int32_t kind, double x, double g);
/* The gradient to g. */
double ref_gate_dg(int32_t kind, double x, double g, double dy);

#endif
