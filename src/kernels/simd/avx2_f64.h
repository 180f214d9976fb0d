/* SPDX-License-Identifier: Apache-2.0 */
/* The vocabulary (inline.h says what each word means) for AVX2 with FMA and 64-bit elements. */
#ifndef ATTN_SIMD_AVX2_F64_H
#define ATTN_SIMD_AVX2_F64_H

#include "avx2_u64.h"
#include "inline.h"

#define ELEM_BITS 64
#define VL        4
typedef double elem;
typedef __m256d vf;
typedef __m256d vm; /* all bits of a lane set or clear */

V vf v_load(const elem *p) { return _mm256_loadu_pd(p); }
V void v_store(elem *p, vf x) { _mm256_storeu_pd(p, x); }
V __m256i v_first(int64_t n) { return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3)); }
V vf v_load_n(const elem *p, int64_t n) { return _mm256_maskload_pd(p, v_first(n)); }
V void v_store_n(elem *p, vf x, int64_t n) { _mm256_maskstore_pd(p, v_first(n), x); }
V void v_stream(elem *p, vf x) {
    _mm_stream_pd(p, _mm256_castpd256_pd128(x));
    _mm_stream_pd(p + 2, _mm256_extractf128_pd(x, 1));
}
V void v_fence(void) { _mm_sfence(); }
V vf v_set(elem x) { return _mm256_set1_pd(x); }
V vf v_zero(void) { return _mm256_setzero_pd(); }
V vf v_iota(void) { return _mm256_setr_pd(0, 1, 2, 3); }

V vf v_add(vf a, vf b) { return _mm256_add_pd(a, b); }
V vf v_sub(vf a, vf b) { return _mm256_sub_pd(a, b); }
V vf v_mul(vf a, vf b) { return _mm256_mul_pd(a, b); }
V vf v_div(vf a, vf b) { return _mm256_div_pd(a, b); }
V vf v_sqrt(vf x) { return _mm256_sqrt_pd(x); }
V vf v_max(vf a, vf b) { return _mm256_max_pd(a, b); }
V vf v_min(vf a, vf b) { return _mm256_min_pd(a, b); }
V vf v_fma(vf a, vf b, vf c) { return _mm256_fmadd_pd(a, b, c); }
V vf v_fms(vf a, vf b, vf c) { return _mm256_fmsub_pd(a, b, c); }
V vf v_fnma(vf a, vf b, vf c) { return _mm256_fnmadd_pd(a, b, c); }
V vf v_neg(vf x) { return _mm256_xor_pd(x, _mm256_set1_pd(-0.0)); }
V vf v_abs(vf x) { return _mm256_andnot_pd(_mm256_set1_pd(-0.0), x); }
V vf v_copysign(vf x, vf s) {
    const vf sign = _mm256_set1_pd(-0.0);
    return _mm256_or_pd(_mm256_andnot_pd(sign, x), _mm256_and_pd(sign, s));
}

V vf v_round(vf x) { return _mm256_round_pd(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
V vf v_floor(vf x) { return _mm256_round_pd(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
V vf v_power2(__m128i n) {
    return _mm256_castsi256_pd(_mm256_slli_epi64(_mm256_add_epi64(_mm256_cvtepi32_epi64(n), _mm256_set1_epi64x(1023)), 52));
}
/* In two steps of half the exponent: the first is exact, so a result below the normal range is rounded once. */
V vf v_scale2(vf x, vf n) {
    __m128i i = _mm256_cvtpd_epi32(_mm256_min_pd(_mm256_max_pd(n, _mm256_set1_pd(-2044)), _mm256_set1_pd(2044)));
    __m128i half = _mm_srai_epi32(i, 1);
    return _mm256_mul_pd(_mm256_mul_pd(x, v_power2(half)), v_power2(_mm_sub_epi32(i, half)));
}
V vf v_two_to(vf n) { return _mm256_castsi256_pd(_mm256_slli_epi64(_mm256_castpd_si256(n), 52)); }
/* The biased exponent becomes the low bits of 2^52 + exponent. */
V vf v_exponent(vf x) {
    const __m256i two52 = _mm256_castpd_si256(_mm256_set1_pd(0x1p52));
    __m256i biased = _mm256_or_si256(_mm256_srli_epi64(_mm256_castpd_si256(x), 52), two52);
    return _mm256_sub_pd(_mm256_castsi256_pd(biased), _mm256_set1_pd(0x1p52 + 1023));
}

V vm v_lt(vf a, vf b) { return _mm256_cmp_pd(a, b, _CMP_LT_OQ); }
V vm v_le(vf a, vf b) { return _mm256_cmp_pd(a, b, _CMP_LE_OQ); }
V vm v_eq(vf a, vf b) { return _mm256_cmp_pd(a, b, _CMP_EQ_OQ); }
V vm v_isnan(vf x) { return _mm256_cmp_pd(x, x, _CMP_UNORD_Q); }
V vf v_select(vm m, vf a, vf b) { return _mm256_blendv_pd(b, a, m); }
V vf v_clear(vm m, vf x) { return _mm256_andnot_pd(m, x); }
V vm v_both(vm a, vm b) { return _mm256_and_pd(a, b); }
V vm v_either(vm a, vm b) { return _mm256_or_pd(a, b); }
V vm v_not(vm a) { return _mm256_xor_pd(a, _mm256_castsi256_pd(_mm256_set1_epi32(-1))); }
V int v_any(vm m) { return _mm256_movemask_pd(m) != 0; }
V uint64_t v_bits(vm m) { return (uint64_t)_mm256_movemask_pd(m); }
V vm v_mask(uint64_t bits) {
    const __m256i lane = _mm256_setr_epi64x(1, 2, 4, 8);
    return _mm256_castsi256_pd(_mm256_cmpeq_epi64(_mm256_and_si256(_mm256_set1_epi64x((long long)(bits & 15)), lane), lane));
}
/* Lane by lane: selections keep few. */
V void v_pack(elem *p, vf x, vm m) {
    elem lane[VL];
    v_store(lane, x);
    for (uint64_t bits = v_bits(m); bits; bits &= bits - 1) *p++ = lane[__builtin_ctzll(bits)];
}

V elem v_sum(vf x) {
    __m128d s = _mm_add_pd(_mm256_castpd256_pd128(x), _mm256_extractf128_pd(x, 1));
    return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
}
V elem v_hmax(vf x) {
    __m128d s = _mm_max_pd(_mm256_castpd256_pd128(x), _mm256_extractf128_pd(x, 1));
    return _mm_cvtsd_f64(_mm_max_sd(s, _mm_unpackhi_pd(s, s)));
}

/* Pairs of rows, then of 128-bit halves. */
V void v_transpose(vf *r) {
    vf a = _mm256_unpacklo_pd(r[0], r[1]), b = _mm256_unpackhi_pd(r[0], r[1]);
    vf c = _mm256_unpacklo_pd(r[2], r[3]), d = _mm256_unpackhi_pd(r[2], r[3]);
    r[0] = _mm256_permute2f128_pd(a, c, 0x20);
    r[1] = _mm256_permute2f128_pd(b, d, 0x20);
    r[2] = _mm256_permute2f128_pd(a, c, 0x31);
    r[3] = _mm256_permute2f128_pd(b, d, 0x31);
}

#endif
