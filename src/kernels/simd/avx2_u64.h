/* SPDX-License-Identifier: Apache-2.0 */
/* Whole numbers (inline.h says what each word means) for AVX2. */
#ifndef ATTN_SIMD_AVX2_U64_H
#define ATTN_SIMD_AVX2_U64_H

#include "inline.h"

#define UL 4
typedef __m256i vu;

V vu v_u_set(uint64_t x) { return _mm256_set1_epi64x((long long)x); }
V vu v_u_iota(void) { return _mm256_setr_epi64x(0, 1, 2, 3); }
V vu v_u_add(vu a, vu b) { return _mm256_add_epi64(a, b); }
V vu v_u_xor(vu a, vu b) { return _mm256_xor_si256(a, b); }
V vu v_u_high(vu x) { return _mm256_srli_epi64(x, 32); }
V vu v_u_product(vu a, vu b) { return _mm256_mul_epu32(a, b); }
V void v_u_store_low(uint32_t *p, vu x) {
    __m256i even = _mm256_permutevar8x32_epi32(x, _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6));
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_castsi256_si128(even));
}

#endif
