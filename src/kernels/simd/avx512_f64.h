/* SPDX-License-Identifier: Apache-2.0 */
/* The vocabulary (inline.h says what each word means) for AVX-512 F, BW, DQ, VL and 64-bit elements. */
#ifndef ATTN_SIMD_AVX512_F64_H
#define ATTN_SIMD_AVX512_F64_H

#include "avx512_u64.h"
#include "inline.h"

#define ELEM_BITS 64
#define VL        8
typedef double elem;
typedef __m512d vf;
typedef __mmask8 vm;

V vf v_load(const elem *p) { return _mm512_loadu_pd(p); }
V void v_store(elem *p, vf x) { _mm512_storeu_pd(p, x); }
V vm v_first(int64_t n) { return (vm)((1u << n) - 1); }
V vf v_load_n(const elem *p, int64_t n) { return _mm512_maskz_loadu_pd(v_first(n), p); }
V void v_store_n(elem *p, vf x, int64_t n) { _mm512_mask_storeu_pd(p, v_first(n), x); }
V void v_stream(elem *p, vf x) {
    _mm_stream_pd(p, _mm512_castpd512_pd128(x));
    _mm_stream_pd(p + 2, _mm512_extractf64x2_pd(x, 1));
    _mm_stream_pd(p + 4, _mm512_extractf64x2_pd(x, 2));
    _mm_stream_pd(p + 6, _mm512_extractf64x2_pd(x, 3));
}
V void v_fence(void) { _mm_sfence(); }
V vf v_set(elem x) { return _mm512_set1_pd(x); }
V vf v_zero(void) { return _mm512_setzero_pd(); }
V vf v_iota(void) { return _mm512_setr_pd(0, 1, 2, 3, 4, 5, 6, 7); }

V vf v_add(vf a, vf b) { return _mm512_add_pd(a, b); }
V vf v_sub(vf a, vf b) { return _mm512_sub_pd(a, b); }
V vf v_mul(vf a, vf b) { return _mm512_mul_pd(a, b); }
V vf v_div(vf a, vf b) { return _mm512_div_pd(a, b); }
V vf v_sqrt(vf x) { return _mm512_sqrt_pd(x); }
V vf v_max(vf a, vf b) { return _mm512_max_pd(a, b); }
V vf v_min(vf a, vf b) { return _mm512_min_pd(a, b); }
V vf v_fma(vf a, vf b, vf c) { return _mm512_fmadd_pd(a, b, c); }
V vf v_fms(vf a, vf b, vf c) { return _mm512_fmsub_pd(a, b, c); }
V vf v_fnma(vf a, vf b, vf c) { return _mm512_fnmadd_pd(a, b, c); }
V vf v_neg(vf x) { return _mm512_xor_pd(x, _mm512_set1_pd(-0.0)); }
V vf v_abs(vf x) { return _mm512_andnot_pd(_mm512_set1_pd(-0.0), x); }
V vf v_copysign(vf x, vf s) {
    const vf sign = _mm512_set1_pd(-0.0);
    return _mm512_or_pd(_mm512_andnot_pd(sign, x), _mm512_and_pd(sign, s));
}

/* Without optimisation these are macros of the compiler that convert a full mask to a signed type. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-conversion"
V vf v_round(vf x) { return _mm512_roundscale_pd(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
V vf v_floor(vf x) { return _mm512_roundscale_pd(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
V vf v_scale2(vf x, vf n) { return _mm512_scalef_pd(x, n); }
V vf v_two_to(vf n) { return _mm512_castsi512_pd(_mm512_slli_epi64(_mm512_castpd_si512(n), 52)); }
V vf v_exponent(vf x) { return _mm512_getexp_pd(x); }
#pragma GCC diagnostic pop

V vm v_lt(vf a, vf b) { return _mm512_cmp_pd_mask(a, b, _CMP_LT_OQ); }
V vm v_le(vf a, vf b) { return _mm512_cmp_pd_mask(a, b, _CMP_LE_OQ); }
V vm v_eq(vf a, vf b) { return _mm512_cmp_pd_mask(a, b, _CMP_EQ_OQ); }
V vm v_isnan(vf x) { return _mm512_cmp_pd_mask(x, x, _CMP_UNORD_Q); }
V vf v_select(vm m, vf a, vf b) { return _mm512_mask_blend_pd(m, b, a); }
V vf v_clear(vm m, vf x) { return _mm512_mask_blend_pd(m, x, _mm512_setzero_pd()); }
V vm v_both(vm a, vm b) { return (vm)(a & b); }
V vm v_either(vm a, vm b) { return (vm)(a | b); }
V vm v_not(vm a) { return (vm)~a; }
V int v_any(vm m) { return m != 0; }
V uint64_t v_bits(vm m) { return m; }
V vm v_mask(uint64_t bits) { return (vm)bits; }
V void v_pack(elem *p, vf x, vm m) { v_store(p, _mm512_maskz_compress_pd(m, x)); }

V elem v_sum(vf x) { return _mm512_reduce_add_pd(x); }
V elem v_hmax(vf x) { return _mm512_reduce_max_pd(x); }

/* Pairs of rows, then of 128-bit quarters twice. */
V void v_transpose(vf *r) {
    vf t[8];
    UNROLL
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_unpacklo_pd(r[2 * i], r[2 * i + 1]);
        t[4 + i] = _mm512_unpackhi_pd(r[2 * i], r[2 * i + 1]);
    }
    UNROLL
    for (int i = 0; i < 2; i++) {
        vf even01 = _mm512_shuffle_f64x2(t[4 * i], t[4 * i + 1], 0x88),
           odd01 = _mm512_shuffle_f64x2(t[4 * i], t[4 * i + 1], 0xdd);
        vf even23 = _mm512_shuffle_f64x2(t[4 * i + 2], t[4 * i + 3], 0x88);
        vf odd23 = _mm512_shuffle_f64x2(t[4 * i + 2], t[4 * i + 3], 0xdd);
        r[i] = _mm512_shuffle_f64x2(even01, even23, 0x88);
        r[i + 4] = _mm512_shuffle_f64x2(even01, even23, 0xdd);
        r[i + 2] = _mm512_shuffle_f64x2(odd01, odd23, 0x88);
        r[i + 6] = _mm512_shuffle_f64x2(odd01, odd23, 0xdd);
    }
}

#endif
