/* SPDX-License-Identifier: Apache-2.0 */
/* The definition of a step of Muon (Jordan et al. 2024), with the constants that torch.optim.Muon has. */
#ifndef ATTN_REF_MUON_H
#define ATTN_REF_MUON_H

#include "element.h"

/* x -> a x + b (x x^T) x + c (x x^T)^2 x moves singular values of up to 1 towards 1; five times leave them within 0.7 .. 1.2. */
#define REF_MUON_A       3.4445
#define REF_MUON_B       (-4.7750)
#define REF_MUON_C       2.0315
#define REF_MUON_EPSILON 1e-7
#define REF_MUON_RMS     0.2 /* root mean square of an update of AdamW, which a step of Muon is made to have */
enum { REF_MUON_STEPS = 5 };

typedef struct ref_muon {
    double lr, momentum, weight_decay, grad_scale;
} ref_muon;

/* Updates param and m, [rows, cols] like the gradient. `room` has 2 rows cols + 2 rows^2 numbers. */
void ref_muon_step(const ref_muon *o, int64_t rows, int64_t cols, ref_matrix param, ref_matrix m, ref_matrix gradient,
                   double *room);

#endif
