/* SPDX-License-Identifier: Apache-2.0 */
/* The vector functions of src/kernels/vmath.h against libm, on every instruction set this machine has: the published number of
 * units in the last place over a sweep of all magnitudes, and the special values. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/kernels/kernels.h"
#include "src/ref/element.h"
#include <attn/attn.h>

enum { N = 4096 };

typedef void (*array_function)(const void *, void *, int64_t);

typedef struct function {
    const char *name;
    long double (*exact)(long double);
    size_t entry; /* of the kernel in attn_math_kernels */
    double bound; /* units in the last place, published in vmath.h */
    double low32, high32, low64, high64;
} function;

static long double exact_sigmoid(long double x) { return 1 / (1 + expl(-x)); }

static const function functions[] = {
    { "exp", expl, offsetof(attn_math_kernels, exp), 1.1, -105, 90, -748, 711 },
    { "exp2", exp2l, offsetof(attn_math_kernels, exp2), 1.2, -152, 129, -1077, 1025 },
    { "log", logl, offsetof(attn_math_kernels, log), 0.9, 0, HUGE_VAL, 0, HUGE_VAL },
    { "tanh", tanhl, offsetof(attn_math_kernels, tanh), 2.6, -12, 12, -22, 22 },
    { "sigmoid", exact_sigmoid, offsetof(attn_math_kernels, sigmoid), 2.5, -105, 105, -748, 748 },
    { "erf", erfl, offsetof(attn_math_kernels, erf), 1.5, -5, 5, -7, 7 },
};
enum { N_FUNCTIONS = sizeof functions / sizeof functions[0] };

static array_function entry_of(const attn_kernels *k, const function *f) {
    array_function entry;
    memcpy(&entry, (const char *)&k->math + f->entry, sizeof entry);
    return entry;
}

/* The distance from y to the exact value in units of the last place of the exact value's binade. */
static double ulps(double y, long double exact, bool f64) {
    int digits = f64 ? 53 : 24, lowest = f64 ? -1074 : -149, e;
    if (isinf(y)) return fabsl(exact) >= (f64 ? 0x1.fffffffffffff8p1023L : 0x1.ffffffp127L) ? 0 : HUGE_VAL;
    frexpl(exact, &e);
    int unit = e - digits > lowest ? e - digits : lowest;
    return (double)(fabsl((long double)y - exact) / ldexpl(1, unit));
}

static uint64_t state = 1;
static uint64_t random_bits(void) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return state >> 11;
}
static double uniform(double low, double high) { return low + (high - low) * (double)random_bits() * 0x1p-53; }

/* Every second input is uniform over the range, the others have every magnitude down to the smallest subnormal. */
static double input(const function *f, bool f64) {
    double low = f64 ? f->low64 : f->low32, high = f64 ? f->high64 : f->high32;
    double size = ldexp(uniform(1, 2), (int)uniform(f64 ? -1076 : -151, f64 ? 1024 : 128));
    if (isinf(high)) return random_bits() & 1 ? uniform(0.5, 2) : size;
    if (random_bits() & 1) return uniform(low, high);
    size = random_bits() & 1 ? size : -size;
    return size < low ? low : size > high ? high : size;
}

static double sweep(const attn_kernels *k, const function *f, int blocks) {
    bool f64 = k->dtype == ATTN_F64;
    static float x32[N], y32[N];
    static double x64[N], y64[N];
    double worst = 0;
    for (int block = 0; block < blocks; block++) {
        for (int i = 0; i < N; i++) x32[i] = (float)(x64[i] = input(f, f64));
        entry_of(k, f)(f64 ? (void *)x64 : x32, f64 ? (void *)y64 : y32, N);
        for (int i = 0; i < N; i++) {
            double x = f64 ? x64[i] : (double)x32[i], y = f64 ? y64[i] : (double)y32[i];
            if (x == 0 && f->exact == logl) continue;
            double error = ulps(y, f->exact(x), f64);
            if (!(error <= worst)) worst = error;
        }
    }
    return worst;
}

static void vector_functions_hold_their_published_errors(void **unused) {
    (void)unused;
    bool report = getenv("ATTN_REPORT") != NULL;
    const attn_kernels *k;
    for (int32_t i = 0; (k = attn_kernels_at(i)); i++)
        for (int f = 0; f < N_FUNCTIONS; f++) {
            double worst = sweep(k, &functions[f], report ? 2000 : 100);
            if (report) printf("%-8s f%d %-8s %.3f\n", k->isa, k->dtype == ATTN_F64 ? 64 : 32, functions[f].name, worst);
            if (!(worst <= functions[f].bound))
                fail_msg("%s on %s (dtype %d) is %g units off", functions[f].name, k->isa, k->dtype, worst);
        }
}

/* One value through the kernel, at both ends of an array that is no multiple of any vector. */
static double value(const attn_kernels *k, array_function f, double x) {
    float x32[19], y32[19];
    double x64[19], y64[19];
    for (int i = 0; i < 19; i++) x32[i] = (float)(x64[i] = i % 18 ? 0.25 : x);
    bool f64 = k->dtype == ATTN_F64;
    f(f64 ? (void *)x64 : x32, f64 ? (void *)y64 : y32, 19);
    double first = f64 ? y64[0] : (double)y32[0], last = f64 ? y64[18] : (double)y32[18];
    assert_true(first == last || (isnan(first) && isnan(last)));
    return first;
}

static void special_values_are_as_ieee_says(void **unused) {
    (void)unused;
    const double inf = HUGE_VAL;
    const attn_kernels *k;
    for (int32_t i = 0; (k = attn_kernels_at(i)); i++) {
        const attn_math_kernels *m = &k->math;
        for (int f = 0; f < N_FUNCTIONS; f++) assert_true(isnan(value(k, entry_of(k, &functions[f]), NAN)));
        assert_true(value(k, m->exp, -inf) == 0 && value(k, m->exp, inf) == inf && value(k, m->exp, 0) == 1);
        assert_true(value(k, m->exp2, -inf) == 0 && value(k, m->exp2, inf) == inf && value(k, m->exp2, 10) == 1024);
        assert_true(value(k, m->exp2, -200 * (k->dtype == ATTN_F64 ? 8 : 1)) == 0);
        assert_true(value(k, m->log, 0) == -inf && value(k, m->log, inf) == inf && value(k, m->log, 1) == 0);
        assert_true(isnan(value(k, m->log, -1)) && isnan(value(k, m->log, -inf)));
        assert_true(value(k, m->tanh, inf) == 1 && value(k, m->tanh, -inf) == -1 && signbit(value(k, m->tanh, -0.0)));
        assert_true(value(k, m->sigmoid, inf) == 1 && value(k, m->sigmoid, -inf) == 0 && value(k, m->sigmoid, 0) == 0.5);
        assert_true(value(k, m->erf, inf) == 1 && value(k, m->erf, -inf) == -1 && signbit(value(k, m->erf, -0.0)));
    }
}

static void a_table_is_found_by_its_name(void **unused) {
    (void)unused;
    const attn_kernels *k;
    for (int32_t i = 0; (k = attn_kernels_at(i)); i++) assert_ptr_equal(attn_kernels_named(k->isa, k->dtype), k);
    assert_null(attn_kernels_named("sparc", ATTN_F32));
    assert_null(attn_kernels_named("scalar", ATTN_BF16));
    assert_non_null(attn_kernels_named("scalar", ATTN_F32));
    assert_string_equal(attn_kernels_for(ATTN_F32)->isa, attn_isa());
    assert_null(attn_kernels_for(ATTN_F16));
}

/* ---- elements of 16 bits ------------------------------------------------------------------------------------ */

/* Every one of them, at every place in a vector and behind the last whole one. */
static void every_element_of_sixteen_bits_is_widened_exactly(void **state_) {
    (void)state_;
    static uint16_t halves[65536 + 5];
    static float wide[65536 + 5];
    for (int i = 0; i < 65536 + 5; i++) halves[i] = (uint16_t)i;
    const attn_kernels *k;
    for (int t = 0; (k = attn_kernels_at(t)); t++)
        for (int32_t dtype = ATTN_BF16; k->dtype == ATTN_F32 && dtype <= ATTN_F16; dtype++)
            for (int first = 0; first < 3; first++) {
                k->convert.widen(halves + first, dtype, 65536 + 5 - first, wide);
                for (int i = 0; i < 65536 + 5 - first; i++) {
                    float exact = (float)ref_load(halves, dtype, first + i);
                    if (isnan(exact) ? !isnan(wide[i]) : memcmp(&exact, &wide[i], sizeof exact) != 0)
                        fail_msg("%s: 0x%04x of %s is %g, not %g", k->isa, halves[first + i], dtype == ATTN_F16 ? "f16" : "bf16",
                                 (double)wide[i], (double)exact);
                }
            }
}

/* All upper halves with lower halves below, at and above the middle, and at random. */
static void floats_are_rounded_to_sixteen_bits_once(void **state_) {
    (void)state_;
    static const uint32_t lower[] = { 0, 1, 0x0fff, 0x1000, 0x1001, 0x7fff, 0x8000, 0x8001, 0xffff };
    static float x[65536];
    static uint16_t got[65536];
    const attn_kernels *k;
    for (int t = 0; (k = attn_kernels_at(t)); t++)
        for (size_t l = 0; k->dtype == ATTN_F32 && l <= sizeof lower / sizeof *lower; l++) {
            for (uint32_t i = 0; i < 65536; i++) {
                uint32_t bits = i << 16 | (l < sizeof lower / sizeof *lower ? lower[l] : (uint32_t)random_bits() & 0xffff);
                memcpy(&x[i], &bits, sizeof bits);
            }
            for (int32_t dtype = ATTN_BF16; dtype <= ATTN_F16; dtype++) {
                k->convert.narrow(x, 65533, dtype, got);
                for (int i = 0; i < 65533; i++) {
                    uint16_t exact;
                    ref_store(&exact, dtype, 0, (double)x[i]);
                    bool nan = isnan(ref_load(&got[i], dtype, 0));
                    if (isnan(x[i]) ? !nan : got[i] != exact)
                        fail_msg("%s: %a is 0x%04x, not 0x%04x, of %s", k->isa, (double)x[i], got[i], exact,
                                 dtype == ATTN_F16 ? "f16" : "bf16");
                }
            }
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vector_functions_hold_their_published_errors),
        cmocka_unit_test(special_values_are_as_ieee_says),
        cmocka_unit_test(every_element_of_sixteen_bits_is_widened_exactly),
        cmocka_unit_test(floats_are_rounded_to_sixteen_bits_once),
        cmocka_unit_test(a_table_is_found_by_its_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
