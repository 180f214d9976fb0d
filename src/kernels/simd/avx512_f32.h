/* SPDX-License-Identifier: Apache-2.0 */
/* The vocabulary (inline.h says what each word means) for AVX-512 F, BW, DQ, VL and 32-bit elements. */
#ifndef ATTN_SIMD_AVX512_F32_H
#define ATTN_SIMD_AVX512_F32_H

#include "avx512_u64.h"
#include "inline.h"

#define ELEM_BITS 32
#define VL        16
typedef float elem;
typedef __m512 vf;
typedef __mmask16 vm;

V vf v_load(const elem *p) { return _mm512_loadu_ps(p); }
V void v_store(elem *p, vf x) { _mm512_storeu_ps(p, x); }
V vm v_first(int64_t n) { return (vm)((1u << n) - 1); }
V vf v_load_n(const elem *p, int64_t n) { return _mm512_maskz_loadu_ps(v_first(n), p); }
V void v_store_n(elem *p, vf x, int64_t n) { _mm512_mask_storeu_ps(p, v_first(n), x); }
V void v_stream(elem *p, vf x) {
    _mm_stream_ps(p, _mm512_castps512_ps128(x));
    _mm_stream_ps(p + 4, _mm512_extractf32x4_ps(x, 1));
    _mm_stream_ps(p + 8, _mm512_extractf32x4_ps(x, 2));
    _mm_stream_ps(p + 12, _mm512_extractf32x4_ps(x, 3));
}
V void v_fence(void) { _mm_sfence(); }
V vf v_set(elem x) { return _mm512_set1_ps(x); }
V vf v_zero(void) { return _mm512_setzero_ps(); }
V vf v_iota(void) { return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }

V vf v_add(vf a, vf b) { return _mm512_add_ps(a, b); }
V vf v_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
V vf v_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
V vf v_div(vf a, vf b) { return _mm512_div_ps(a, b); }
V vf v_sqrt(vf x) { return _mm512_sqrt_ps(x); }
V vf v_max(vf a, vf b) { return _mm512_max_ps(a, b); }
V vf v_min(vf a, vf b) { return _mm512_min_ps(a, b); }
V vf v_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
V vf v_fms(vf a, vf b, vf c) { return _mm512_fmsub_ps(a, b, c); }
V vf v_fnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); }
V vf v_neg(vf x) { return _mm512_xor_ps(x, _mm512_set1_ps(-0.0f)); }
V vf v_abs(vf x) { return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), x); }
V vf v_copysign(vf x, vf s) {
    const vf sign = _mm512_set1_ps(-0.0f);
    return _mm512_or_ps(_mm512_andnot_ps(sign, x), _mm512_and_ps(sign, s));
}

/* Without optimisation these are macros of the compiler that convert a full mask to a signed type. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-conversion"
V vf v_round(vf x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
V vf v_floor(vf x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
V vf v_scale2(vf x, vf n) { return _mm512_scalef_ps(x, n); }
V vf v_two_to(vf n) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(n), 23)); }
V vf v_exponent(vf x) { return _mm512_getexp_ps(x); }
#pragma GCC diagnostic pop

V vm v_lt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
V vm v_le(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
V vm v_eq(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
V vm v_isnan(vf x) { return _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q); }
V vf v_select(vm m, vf a, vf b) { return _mm512_mask_blend_ps(m, b, a); }
V vf v_clear(vm m, vf x) { return _mm512_mask_blend_ps(m, x, _mm512_setzero_ps()); }
V vm v_both(vm a, vm b) { return (vm)(a & b); }
V vm v_either(vm a, vm b) { return (vm)(a | b); }
V vm v_not(vm a) { return (vm)~a; }
V int v_any(vm m) { return m != 0; }
V uint64_t v_bits(vm m) { return m; }
V vm v_mask(uint64_t bits) { return (vm)bits; }
V void v_pack(elem *p, vf x, vm m) { v_store(p, _mm512_maskz_compress_ps(m, x)); }

V elem v_sum(vf x) { return _mm512_reduce_add_ps(x); }
V elem v_hmax(vf x) { return _mm512_reduce_max_ps(x); }

/* Pairs of rows, then of row pairs (64 bits), then of 128-bit quarters twice. */
V void v_transpose(vf *r) {
    vf t[16];
    UNROLL
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    UNROLL
    for (int i = 0; i < 4; i++) UNROLL
    for (int j = 0; j < 2; j++) {
        __m512d a = _mm512_castps_pd(t[4 * i + j]), b = _mm512_castps_pd(t[4 * i + 2 + j]);
        r[4 * i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
        r[4 * i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
    }
    UNROLL
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_f32x4(r[i], r[4 + i], 0x88);
        t[4 + i] = _mm512_shuffle_f32x4(r[i], r[4 + i], 0xdd);
        t[8 + i] = _mm512_shuffle_f32x4(r[8 + i], r[12 + i], 0x88);
        t[12 + i] = _mm512_shuffle_f32x4(r[8 + i], r[12 + i], 0xdd);
    }
    UNROLL
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_f32x4(t[i], t[8 + i], 0x88);
        r[4 + i] = _mm512_shuffle_f32x4(t[4 + i], t[12 + i], 0x88);
        r[8 + i] = _mm512_shuffle_f32x4(t[i], t[8 + i], 0xdd);
        r[12 + i] = _mm512_shuffle_f32x4(t[4 + i], t[12 + i], 0xdd);
    }
}

V vf v_load_bf16(const uint16_t *p) {
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p)), 16));
}
V vf v_load_f16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p)); }
/* The upper half, one more where the lower half is above the middle, or at it and the upper half is odd. NaN becomes quiet. */
V void v_store_bf16(uint16_t *p, vf x) {
    __m512i bits = _mm512_castps_si512(x), upper = _mm512_srli_epi32(bits, 16);
    __m512i up = _mm512_add_epi32(_mm512_and_si512(upper, _mm512_set1_epi32(1)), _mm512_set1_epi32(0x7fff));
    __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, up), 16);
    rounded = _mm512_mask_or_epi32(rounded, v_isnan(x), upper, _mm512_set1_epi32(0x40));
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtepi32_epi16(rounded));
}
V void v_store_f16(uint16_t *p, vf x) {
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

#endif
