/* SPDX-License-Identifier: Apache-2.0 */
/* Whole numbers (inline.h says what each word means) for any processor. */
#ifndef ATTN_SIMD_GENERIC_U64_H
#define ATTN_SIMD_GENERIC_U64_H

#include "inline.h"

#define UL 1
typedef uint64_t vu;

V vu v_u_set(uint64_t x) { return x; }
V vu v_u_iota(void) { return 0; }
V vu v_u_add(vu a, vu b) { return a + b; }
V vu v_u_xor(vu a, vu b) { return a ^ b; }
V vu v_u_high(vu x) { return x >> 32; }
V vu v_u_product(vu a, vu b) { return (a & 0xffffffffu) * (b & 0xffffffffu); }
V void v_u_store_low(uint32_t *p, vu x) { *p = (uint32_t)x; }

#endif
