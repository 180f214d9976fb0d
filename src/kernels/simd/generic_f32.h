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

V vf v_load_bf16(const uint16_t *p) {
    vf x;
    for (int i = 0; i < VL; i++) x[i] = (elem)ref_load(p, ATTN_BF16, i);
    return x;
}
V vf v_load_f16(const uint16_t *p) {
    vf x;
    for (int i = 0; i < VL; i++) x[i] = (elem)ref_load(p, ATTN_F16, i);
    return x;
}
V void v_store_bf16(uint16_t *p, vf x) {
    for (int i = 0; i < VL; i++) ref_store(p, ATTN_BF16, i, x[i]);
}
V void v_store_f16(uint16_t *p, vf x) {
    for (int i = 0; i < VL; i++) ref_store(p, ATTN_F16, i, x[i]);
}

#endif
