/* SPDX-License-Identifier: Apache-2.0 */
/* Whole numbers (inline.h says what each word means) for AVX-512. */
#ifndef ATTN_SIMD_AVX512_U64_H
#define ATTN_SIMD_AVX512_U64_H

#include "inline.h"

#define UL 8
typedef __m512i vu;

V vu v_u_set(uint64_t x) { return _mm512_set1_epi64((long long)x); }
V vu v_u_iota(void) { return _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7); }
V vu v_u_add(vu a, vu b) { return _mm512_add_epi64(a, b); }
V vu v_u_xor(vu a, vu b) { return _mm512_xor_si512(a, b); }
V vu v_u_high(vu x) { return _mm512_srli_epi64(x, 32); }
V vu v_u_product(vu a, vu b) { return _mm512_mul_epu32(a, b); }
V void v_u_store_low(uint32_t *p, vu x) { _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtepi64_epi32(x)); }

#endif
