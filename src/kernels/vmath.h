/* SPDX-License-Identifier: Apache-2.0 */
/* exp, exp2, expm1, log, tanh, sigmoid and erf of a vector, written once over the vocabulary of simd/inline.h.
 * NaN gives NaN, infinities and results below the normal range are as IEEE says. The polynomials are Chebyshev interpolants
 * of the function named beside them; their own error is below a tenth of a unit in the last place.
 *
 * Largest error in units of the last place, both element types, every instruction set; tests/test_math.c holds it:
 *     exp 1.1   exp2 1.2   log 0.9   tanh 2.6   sigmoid 2.5   erf 1.5 */
#ifndef ATTN_VMATH_H
#define ATTN_VMATH_H

#if ELEM_BITS == 32
enum { EXP2_DEGREE = 5, EXP_DEGREE = 4, LOG_DEGREE = 3, ERF_DEGREE = 6, ERFC_DEGREE = 6 };
/* (2^f - 1) / f, |f| <= 1/2 */
static const elem exp2_poly[] = { 0.69314718802622878f,   0.24022650760568127f,   0.055503571142190778f,
                                  0.0096180825572778515f, 0.0013390863364671234f, 0.00015453162945120690f };
/* (e^r - 1 - r) / r^2, |r| <= ln(2)/2 */
static const elem exp_poly[] = { 0.5f, 0.16666576989698776f, 0.041666554617204574f, 0.0083631790527225774f,
                                 0.0013926183587713495f };
/* (log((1+s)/(1-s)) - 2s) / s^3 in s^2, sqrt(1/2) <= (1+s)/(1-s) <= sqrt(2) */
static const elem log_poly[] = { 0.66666666554042012f, 0.40000122211810650f, 0.28550778633191965f, 0.23331614471843499f };
/* erf(x)/x - 1 in x^2, |x| <= 1 */
static const elem erf_poly[] = { 0.12837916584835095f,   -0.37612626666720331f,    0.11283594715160218f,  -0.026854212010626412f,
                                 0.0051890874234339740f, -0.00080168642871658695f, 7.8758750626854883e-5f };
/* e^(x^2) erfc(x) in (1/(x+2) - middle) * inverse of half the width, 1 <= x <= ERF_ONE */
static const elem erfc_poly[] = { 0.25659417317575129f,   0.14164682642498063f,    0.026474059174045523f,  0.0028531389455247679f,
                                  4.3379015943537035e-5f, -2.6938071906110219e-5f, -1.0688919285142466e-6f };
#define ERFC_MIDDLE  0.25070028011204482f
#define ERFC_INVERSE 12.101694915254237f
#define ERF_ONE      3.95f /* from here on erf rounds to 1 */
#define TANH_ONE     10.0f /* from here on tanh rounds to 1 */
/* Beyond these, exp is 0 or infinite. */
#define EXP_LOWEST   -104.5f
#define EXP_HIGHEST  89.0f
#define EXP2_LOWEST  -151.0f
#define EXP2_HIGHEST 129.0f
#define INV_LN2      1.4426950408889634f
/* ln 2 in two parts: n times the first is exact for every n that occurs, with or without fma. */
#define LN2_HIGH      0.693359375f
#define LN2_LOW       -2.12194440054690583e-4f
#define SMALLEST      0x1p-126f
#define EXP_NORMAL    -87.3365402f /* -126 ln 2, rounded up */
#define ROUND_SHIFT   (0x1.8p23f + 127)
#define SUBNORMAL_EXP 32
#define SUBNORMAL_UP  0x1p32f
#define INFINITE      HUGE_VALF
#define SQRT2         1.41421356f
#else
enum { EXP2_DEGREE = 10, EXP_DEGREE = 10, LOG_DEGREE = 6, ERF_DEGREE = 12, ERFC_DEGREE = 14 };
static const elem exp2_poly[] = { 0.69314718055994530942,   0.2402265069591009822,    0.055504108664821594339,
                                  0.0096181291076068885273, 0.001333355814641693531,  1.5403530441736050155e-4,
                                  1.5252733829836118394e-5, 1.3215442587921689653e-6, 1.0178062445845773521e-7,
                                  7.0725859492692236999e-9, 4.4549605981865183938e-10 };
static const elem exp_poly[] = { 0.5,
                                 0.16666666666666670991,
                                 0.041666666666666669755,
                                 0.0083333333333261351258,
                                 0.0013888888888883748305,
                                 1.9841269874820625271e-4,
                                 2.4801587325547741216e-5,
                                 2.755725540020642443e-6,
                                 2.7557273643110295328e-7,
                                 2.5105217004720745164e-8,
                                 2.0914686968086877233e-9 };
static const elem log_poly[] = { 0.66666666666666697077, 0.39999999999898890514, 0.28571428626253837606, 0.22222211089379496214,
                                 0.18182892432536871201, 0.15331611722055007885, 0.14617807153417324964 };
static const elem erf_poly[] = { 0.12837916709551257377,    -0.37612638903183748056,   0.11283791670954878666,
                                 -0.026866170645076793248,  0.0052239776248180144673,  -8.5483269808338099052e-4,
                                 1.2055331111642710923e-4,  -1.4925595266831181565e-5, 1.6461000484121368033e-6,
                                 -1.6350312701054695011e-7, 1.4659775274047435814e-8,  -1.137284885679167367e-9,
                                 5.9571761477489114044e-11 };
static const elem erfc_poly[] = { 0.22204100875529987285,     0.16157281178316234848,     0.038332906038689215647,
                                  0.0055287158593578631984,   1.9267725090098943866e-4,   -7.9441791131527217919e-5,
                                  -7.1246970044446132721e-6,  1.9326311779490716835e-6,   1.5632115620141215091e-7,
                                  -6.7727944923934939241e-8,  -4.6588865646145507437e-10, 2.5041187989062634124e-9,
                                  -2.5528803314447109199e-10, -6.8508478174998594513e-11, 1.7709853678336062684e-11 };
#define ERFC_MIDDLE   0.22955974842767295597
#define ERFC_INVERSE  9.6363636363636363636
#define ERF_ONE       5.95
#define TANH_ONE      20.0
#define EXP_LOWEST    -746.0
#define EXP_HIGHEST   710.0
#define EXP2_LOWEST   -1076.0
#define EXP2_HIGHEST  1025.0
#define INV_LN2       1.4426950408889634074
#define LN2_HIGH      0x1.62e42feep-1
#define LN2_LOW       1.90821492927058770002e-10
#define SMALLEST      0x1p-1022
#define EXP_NORMAL    -708.39641853226408
#define ROUND_SHIFT   (0x1.8p52 + 1023)
#define SUBNORMAL_EXP 64
#define SUBNORMAL_UP  0x1p64
#define INFINITE      HUGE_VAL
#define SQRT2         1.4142135623730950488
#endif

/* c[0] + c[1] x + ... + c[degree] x^degree */
V vf v_poly(vf x, const elem *c, int degree) {
    vf p = v_set(c[degree]);
    UNROLL
    for (int i = degree - 1; i >= 0; i--) p = v_fma(p, x, v_set(c[i]));
    return p;
}

/* x within [low, high]; NaN stays NaN. */
V vf v_clamp(vf x, elem low, elem high) { return v_min(v_set(high), v_max(v_set(low), x)); }

V vf v_exp2(vf x) {
    x = v_clamp(x, EXP2_LOWEST, EXP2_HIGHEST);
    vf n = v_round(x), f = v_sub(x, n);
    return v_scale2(v_fma(f, v_poly(f, exp2_poly, EXP2_DEGREE), v_set(1)), n);
}

/* e^x = 2^n (1 + p) with p = e^r - 1, |r| <= ln(2)/2. Returns p. */
V vf v_exp_parts(vf x, vf *n) {
    *n = v_round(v_mul(x, v_set(INV_LN2)));
    vf r = v_fnma(*n, v_set(LN2_LOW), v_fnma(*n, v_set(LN2_HIGH), x));
    return v_fma(v_mul(r, r), v_poly(r, exp_poly, EXP_DEGREE), r);
}

V vf v_exp(vf x) {
    vf n, p = v_exp_parts(v_clamp(x, EXP_LOWEST, EXP_HIGHEST), &n);
    return v_scale2(v_add(v_set(1), p), n);
}

/* e^x of `count` vectors side by side, whose chains are long; x up to some 20. 0 where that is below the normal range, which takes
 * half the operations. Adding ROUND_SHIFT leaves the nearest integer n, and the exponent's bias, in the low bits of t. NaN is not
 * less than anything, and a product with NaN is NaN. */
V void v_exp_normal(int count, vf *x) {
    vf t[4], r[4], p[4];
    UNROLL
    for (int i = 0; i < count; i++) t[i] = v_fma(x[i], v_set(INV_LN2), v_set(ROUND_SHIFT));
    UNROLL
    for (int i = 0; i < count; i++) r[i] = v_fnma(v_sub(t[i], v_set(ROUND_SHIFT)), v_set(LN2_HIGH), x[i]);
    UNROLL
    for (int i = 0; i < count; i++) r[i] = v_fnma(v_sub(t[i], v_set(ROUND_SHIFT)), v_set(LN2_LOW), r[i]);
    UNROLL
    for (int i = 0; i < count; i++) p[i] = v_set(exp_poly[EXP_DEGREE]);
    UNROLL
    for (int degree = EXP_DEGREE - 1; degree >= 0; degree--) UNROLL
    for (int i = 0; i < count; i++) p[i] = v_fma(p[i], r[i], v_set(exp_poly[degree]));
    UNROLL
    for (int i = 0; i < count; i++) p[i] = v_fma(v_mul(r[i], r[i]), p[i], r[i]);
    UNROLL
    for (int i = 0; i < count; i++) p[i] = v_fma(p[i], v_two_to(t[i]), v_two_to(t[i]));
    UNROLL
    for (int i = 0; i < count; i++) x[i] = v_clear(v_lt(x[i], v_set(EXP_NORMAL)), p[i]);
}

/* e^x - 1 for x from -40 to 0, accurate near 0; n as in v_exp_normal. */
V vf v_expm1_negative(vf x) {
    vf t = v_fma(x, v_set(INV_LN2), v_set(ROUND_SHIFT)), n = v_sub(t, v_set(ROUND_SHIFT)), power = v_two_to(t);
    vf r = v_fnma(n, v_set(LN2_LOW), v_fnma(n, v_set(LN2_HIGH), x));
    vf p = v_fma(v_mul(r, r), v_poly(r, exp_poly, EXP_DEGREE), r);
    return v_fma(power, p, v_sub(power, v_set(1)));
}

/* x = 2^e m with m in [sqrt(1/2), sqrt(2)]; with f = m - 1, s = f/(2+f): log m = f - f^2/2 + s (f^2/2 + s^2 poly(s^2)). */
V vf v_log(vf x) {
    vm tiny = v_lt(x, v_set(SMALLEST));
    vf normal = v_select(tiny, v_mul(x, v_set(SUBNORMAL_UP)), x);
    vf e = v_exponent(normal), m = v_scale2(normal, v_neg(e));
    e = v_sub(e, v_select(tiny, v_set(SUBNORMAL_EXP), v_zero()));
    vm high = v_lt(v_set(SQRT2), m);
    m = v_select(high, v_mul(m, v_set((elem)0.5)), m);
    e = v_select(high, v_add(e, v_set(1)), e);

    vf f = v_sub(m, v_set(1)), s = v_div(f, v_add(f, v_set(2))), z = v_mul(s, s), half = v_mul(v_mul(f, f), v_set((elem)0.5));
    vf series = v_mul(s, v_fma(z, v_poly(z, log_poly, LOG_DEGREE), half));
    vf low = v_fma(e, v_set(LN2_LOW), series);
    vf y = v_fma(e, v_set(LN2_HIGH), v_sub(f, v_sub(half, low)));

    y = v_select(v_eq(x, v_set(INFINITE)), x, y);
    y = v_select(v_eq(x, v_zero()), v_set(-INFINITE), y);
    return v_select(v_le(v_zero(), x), y, v_set((elem)NAN));
}

/* tanh |x| = (1 - e^(-2|x|)) / (1 + e^(-2|x|)) */
V vf v_tanh(vf x) {
    vf size = v_min(v_set(TANH_ONE), v_abs(x)), t = v_expm1_negative(v_mul(size, v_set(-2)));
    return v_copysign(v_div(t, v_add(t, v_set(2))), x);
}

/* 1 / (1 + e^-x), and e^x / (1 + e^x) for negative x: relative accuracy on both sides. */
V vf v_sigmoid(vf x) {
    vf e = v_exp(v_neg(v_abs(x)));
    return v_div(v_select(v_lt(x, v_zero()), e, v_set(1)), v_add(v_set(1), e));
}

/* x + x poly(x^2) up to 1, from there 1 - e^(-x^2) poly(1/(x+2)). */
V vf v_erf(vf x) {
    vf size = v_min(v_set(ERF_ONE), v_abs(x)), square = v_mul(size, size);
    vf near = v_fma(size, v_poly(square, erf_poly, ERF_DEGREE), size);
    vf t = v_mul(v_sub(v_div(v_set(1), v_add(size, v_set(2))), v_set(ERFC_MIDDLE)), v_set(ERFC_INVERSE));
    vf far = v_fnma(v_exp(v_neg(square)), v_poly(t, erfc_poly, ERFC_DEGREE), v_set(1));
    return v_copysign(v_select(v_le(size, v_set(1)), near, far), x);
}

#endif
