/* SPDX-License-Identifier: Apache-2.0 */
/* The vocabulary (inline.h says what each word means) for AVX2 with FMA and 32-bit elements. */
#ifndef ATTN_SIMD_AVX2_F32_H
#define ATTN_SIMD_AVX2_F32_H

#include "avx2_u64.h"
#include "inline.h"

#define ELEM_BITS 32
#define VL        8
typedef float elem;
typedef __m256 vf;
typedef __m256 vm; /* all bits of a lane set or clear */

V vf v_load(const elem *p) { return _mm256_loadu_ps(p); }
V void v_store(elem *p, vf x) { _mm256_storeu_ps(p, x); }
V __m256i v_first(int64_t n) { return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)); }
V vf v_load_n(const elem *p, int64_t n) { return _mm256_maskload_ps(p, v_first(n)); }
V void v_store_n(elem *p, vf x, int64_t n) { _mm256_maskstore_ps(p, v_first(n), x); }
V void v_stream(elem *p, vf x) {
    _mm_stream_ps(p, _mm256_castps256_ps128(x));
    _mm_stream_ps(p + 4, _mm256_extractf128_ps(x, 1));
}
V void v_fence(void) { _mm_sfence(); }
V vf v_set(elem x) { return _mm256_set1_ps(x); }
V vf v_zero(void) { return _mm256_setzero_ps(); }
V vf v_iota(void) { return _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7); }

V vf v_add(vf a, vf b) { return _mm256_add_ps(a, b); }
V vf v_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
V vf v_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
V vf v_div(vf a, vf b) { return _mm256_div_ps(a, b); }
V vf v_sqrt(vf x) { return _mm256_sqrt_ps(x); }
V vf v_max(vf a, vf b) { return _mm256_max_ps(a, b); }
V vf v_min(vf a, vf b) { return _mm256_min_ps(a, b); }
V vf v_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
V vf v_fms(vf a, vf b, vf c) { return _mm256_fmsub_ps(a, b, c); }
V vf v_fnma(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); }
V vf v_neg(vf x) { return _mm256_xor_ps(x, _mm256_set1_ps(-0.0f)); }
V vf v_abs(vf x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }
V vf v_copysign(vf x, vf s) {
    const vf sign = _mm256_set1_ps(-0.0f);
    return _mm256_or_ps(_mm256_andnot_ps(sign, x), _mm256_and_ps(sign, s));
}

V vf v_round(vf x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
V vf v_floor(vf x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
V vf v_power2(__m256i n) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23)); }
/* In two steps of half the exponent: the first is exact, so a result below the normal range is rounded once. */
V vf v_scale2(vf x, vf n) {
    __m256i i = _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(n, _mm256_set1_ps(-252)), _mm256_set1_ps(252)));
    __m256i half = _mm256_srai_epi32(i, 1);
    return _mm256_mul_ps(_mm256_mul_ps(x, v_power2(half)), v_power2(_mm256_sub_epi32(i, half)));
}
V vf v_two_to(vf n) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(n), 23)); }
V vf v_exponent(vf x) {
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_srli_epi32(_mm256_castps_si256(x), 23), _mm256_set1_epi32(127)));
}

V vm v_lt(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
V vm v_le(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LE_OQ); }
V vm v_eq(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
V vm v_isnan(vf x) { return _mm256_cmp_ps(x, x, _CMP_UNORD_Q); }
V vf v_select(vm m, vf a, vf b) { return _mm256_blendv_ps(b, a, m); }
V vf v_clear(vm m, vf x) { return _mm256_andnot_ps(m, x); }
V vm v_both(vm a, vm b) { return _mm256_and_ps(a, b); }
V vm v_either(vm a, vm b) { return _mm256_or_ps(a, b); }
V vm v_not(vm a) { return _mm256_xor_ps(a, _mm256_castsi256_ps(_mm256_set1_epi32(-1))); }
V int v_any(vm m) { return _mm256_movemask_ps(m) != 0; }
V uint64_t v_bits(vm m) { return (uint64_t)_mm256_movemask_ps(m); }
V vm v_mask(uint64_t bits) {
    const __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)(bits & 0xff)), lane), lane));
}
/* Lane by lane: selections keep few. */
V void v_pack(elem *p, vf x, vm m) {
    elem lane[VL];
    v_store(lane, x);
    for (uint64_t bits = v_bits(m); bits; bits &= bits - 1) *p++ = lane[__builtin_ctzll(bits)];
}

V elem v_sum(vf x) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
V elem v_hmax(vf x) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

/* Pairs of rows, then of row pairs (64 bits), then of 128-bit halves. */
V void v_transpose(vf *r) {
    vf t[8];
    UNROLL
    for (int i = 0; i < 4; i++) {
        t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    UNROLL
    for (int i = 0; i < 2; i++) UNROLL
    for (int j = 0; j < 2; j++) {
        r[4 * i + 2 * j] = _mm256_shuffle_ps(t[4 * i + j], t[4 * i + 2 + j], 0x44);
        r[4 * i + 2 * j + 1] = _mm256_shuffle_ps(t[4 * i + j], t[4 * i + 2 + j], 0xee);
    }
    UNROLL
    for (int i = 0; i < 4; i++) {
        t[i] = _mm256_permute2f128_ps(r[i], r[4 + i], 0x20);
        t[4 + i] = _mm256_permute2f128_ps(r[i], r[4 + i], 0x31);
    }
    UNROLL
    for (int i = 0; i < 8; i++) r[i] = t[i];
}

V vf v_load_bf16(const uint16_t *p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)), 16));
}
V vf v_load_f16(const uint16_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p)); }
/* The upper half, one more where the lower half is above the middle, or at it and the upper half is odd. NaN becomes quiet. */
V void v_store_bf16(uint16_t *p, vf x) {
    __m256i bits = _mm256_castps_si256(x), upper = _mm256_srli_epi32(bits, 16);
    __m256i up = _mm256_add_epi32(_mm256_and_si256(upper, _mm256_set1_epi32(1)), _mm256_set1_epi32(0x7fff));
    __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, up), 16);
    __m256i quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
    rounded = _mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(v_isnan(x)));
    __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(rounded, rounded), 0xd8);
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_castsi256_si128(packed));
}
V void v_store_f16(uint16_t *p, vf x) {
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

#endif
