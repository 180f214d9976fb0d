/* SPDX-License-Identifier: Apache-2.0 */
/* The vocabulary for 32-bit elements on any processor: generic.h with four lanes. */
#ifndef ATTN_SIMD_GENERIC_F32_H
#define ATTN_SIMD_GENERIC_F32_H

#define ELEM_BITS 32
#define VL        4
typedef float elem;
typedef int32_t ei;
typedef elem vf __attribute__((vector_size(16)));
typedef ei vi __attribute__((vector_size(16)));
typedef vi vm; /* all bits of a lane set or clear */

#define MANTISSA_BITS 23
#define EXPONENT_BIAS 127
#define INTEGRAL      0x1p23f /* from here on every number is integral */
#define SIGN          ((vi){ INT32_MIN, INT32_MIN, INT32_MIN, INT32_MIN })

#include "generic.h"

V vf v_iota(void) { return (vf){ 0, 1, 2, 3 }; }
V vf v_sqrt(vf x) { return (vf){ sqrtf(x[0]), sqrtf(x[1]), sqrtf(x[2]), sqrtf(x[3]) }; }

#endif
