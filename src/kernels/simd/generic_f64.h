/* SPDX-License-Identifier: Apache-2.0 */
/* The vocabulary for 64-bit elements on any processor: generic.h with two lanes. */
#ifndef ATTN_SIMD_GENERIC_F64_H
#define ATTN_SIMD_GENERIC_F64_H

#define ELEM_BITS 64
#define VL        2
typedef double elem;
typedef int64_t ei;
typedef elem vf __attribute__((vector_size(16)));
typedef ei vi __attribute__((vector_size(16)));
typedef vi vm; /* all bits of a lane set or clear */

#define MANTISSA_BITS 52
#define EXPONENT_BIAS 1023
#define INTEGRAL      0x1p52 /* from here on every number is integral */
#define SIGN          ((vi){ INT64_MIN, INT64_MIN })

#include "generic.h"

V vf v_iota(void) { return (vf){ 0, 1 }; }
V vf v_sqrt(vf x) { return (vf){ sqrt(x[0]), sqrt(x[1]) }; }

#endif
