/* SPDX-License-Identifier: Apache-2.0 */
/* The vocabulary (inline.h says what each word means) in the vector extension of gcc and clang: for any processor, no target.
 * generic_f32.h and generic_f64.h name the types and include this. v_fma is a product and a sum, rounded twice. */
#include "generic_u64.h"
#include "inline.h"

#include <string.h>

V vf v_load(const elem *p) {
    vf x;
    memcpy(&x, p, sizeof x);
    return x;
}
V void v_store(elem *p, vf x) { memcpy(p, &x, sizeof x); }
V vf v_load_n(const elem *p, int64_t n) {
    vf x = { 0 };
    for (int64_t i = 0; i < n; i++) x[i] = p[i];
    return x;
}
V void v_store_n(elem *p, vf x, int64_t n) {
    for (int64_t i = 0; i < n; i++) p[i] = x[i];
}
V void v_stream(elem *p, vf x) { v_store(p, x); }
V void v_fence(void) {}
V vf v_set(elem x) { return x - (vf){ 0 }; }
V vf v_zero(void) { return (vf){ 0 }; }

V vf v_add(vf a, vf b) { return a + b; }
V vf v_sub(vf a, vf b) { return a - b; }
V vf v_mul(vf a, vf b) { return a * b; }
V vf v_div(vf a, vf b) { return a / b; }
V vf v_fma(vf a, vf b, vf c) { return a * b + c; }
V vf v_fms(vf a, vf b, vf c) { return a * b - c; }
V vf v_fnma(vf a, vf b, vf c) { return c - a * b; }
V vf v_neg(vf x) { return -x; }
V vf v_abs(vf x) { return (vf)((vi)x & ~SIGN); }
V vf v_copysign(vf x, vf s) { return (vf)(((vi)x & ~SIGN) | ((vi)s & SIGN)); }

V vm v_lt(vf a, vf b) { return (vm)(a < b); }
V vm v_le(vf a, vf b) { return (vm)(a <= b); }
V vm v_eq(vf a, vf b) { return (vm)(a == b); }
V vm v_isnan(vf x) { return (vm)(x != x); }
V vf v_select(vm m, vf a, vf b) { return (vf)((m & (vi)a) | (~m & (vi)b)); }
V vf v_clear(vm m, vf x) { return (vf)(~m & (vi)x); }
V vm v_both(vm a, vm b) { return a & b; }
V vm v_either(vm a, vm b) { return a | b; }
V vm v_not(vm a) { return ~a; }
V uint64_t v_bits(vm m) {
    uint64_t bits = 0;
    UNROLL
    for (int i = 0; i < VL; i++) bits |= (uint64_t)(m[i] & 1) << i;
    return bits;
}
V int v_any(vm m) { return v_bits(m) != 0; }
V vm v_mask(uint64_t bits) {
    vm m = { 0 };
    UNROLL
    for (int i = 0; i < VL; i++) m[i] = -(ei)(bits >> i & 1);
    return m;
}
V vf v_max(vf a, vf b) { return v_select(v_lt(b, a), a, b); }
V vf v_min(vf a, vf b) { return v_select(v_lt(a, b), a, b); }

/* Adding 1.5 * 2^mantissa leaves no fraction bits; larger magnitudes have none to begin with (and keep the sign of -0). */
V vf v_round(vf x) {
    const vf shift = v_set(INTEGRAL + INTEGRAL / 2);
    vf rounded = v_copysign((x + shift) - shift, x);
    return v_select(v_lt(v_abs(x), v_set(INTEGRAL / 2)), rounded, x);
}
V vf v_floor(vf x) {
    vf r = v_round(x);
    return v_select(v_lt(x, r), r - v_set(1), r);
}
V vf v_power2(vi n) { return (vf)((n + (EXPONENT_BIAS)) << MANTISSA_BITS); }
/* In two steps of half the exponent: the first is exact, so a result below the normal range is rounded once. */
V vf v_scale2(vf x, vf n) {
    const elem limit = 2 * (EXPONENT_BIAS - 1);
    vi i = __builtin_convertvector(v_min(v_max(n, v_set(-limit)), v_set(limit)), vi);
    vi half = i >> 1;
    return x * v_power2(half) * v_power2(i - half);
}
V vf v_two_to(vf n) { return (vf)((vi)n << MANTISSA_BITS); }
V vf v_exponent(vf x) { return __builtin_convertvector(((vi)x >> MANTISSA_BITS) - (EXPONENT_BIAS), vf); }
/* Lane by lane: selections keep few. */
V void v_pack(elem *p, vf x, vm m) {
    elem lane[VL];
    v_store(lane, x);
    for (uint64_t bits = v_bits(m); bits; bits &= bits - 1) *p++ = lane[__builtin_ctzll(bits)];
}

V elem v_sum(vf x) {
    elem s[VL];
    v_store(s, x);
    for (int n = VL / 2; n > 0; n /= 2)
        for (int i = 0; i < n; i++) s[i] += s[i + n];
    return s[0];
}
V elem v_hmax(vf x) {
    elem m = x[0];
    UNROLL
    for (int i = 1; i < VL; i++) m = x[i] > m ? x[i] : m;
    return m;
}
V void v_transpose(vf *r) {
    elem t[VL][VL];
    for (int i = 0; i < VL; i++) v_store(t[i], r[i]);
    for (int i = 0; i < VL; i++) {
        elem column[VL];
        for (int j = 0; j < VL; j++) column[j] = t[j][i];
        r[i] = v_load(column);
    }
}
