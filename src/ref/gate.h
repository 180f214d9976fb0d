/* SPDX-License-Identifier: Apache-2.0 */
/* The definition of the three gates, element by element. */
#ifndef ATTN_REF_GATE_H
#define ATTN_REF_GATE_H

#include "element.h"

/* 1 / (1 + exp(-x)), without overflow on either side. */
double ref_sigmoid(double x);

/* x * sigmoid(g), x + g * x, x * g. */
double ref_gate(int32_t kind, double x, double g);
/* dy/dx and dy/dg, times dy. */
void ref_gate_backward(int32_t kind, double x, double g, double dy, double *dx, double *dg);

#endif
