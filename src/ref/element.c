/* SPDX-License-Identifier: Apache-2.0 */
/* Elements of every dtype as double, and back with one rounding. */
#include "element.h"

#include <math.h>
#include <string.h>

/* The value of a binary format with `mantissa` stored bits and the given exponent bias, from its bits. */
static double decode(uint32_t bits, int sign_bit, int mantissa, int bias) {
    uint32_t fraction = bits & ((1u << mantissa) - 1), top = (1u << (sign_bit - mantissa)) - 1;
    uint32_t exponent = bits >> mantissa & top;
    double x;
    if (exponent == top)
        x = fraction ? NAN : INFINITY;
    else if (exponent == 0)
        x = ldexp((double)fraction, 1 - bias - mantissa);
    else
        x = ldexp((double)(fraction | 1u << mantissa), (int)exponent - bias - mantissa);
    return bits >> sign_bit & 1 ? -x : x;
}

/* The bits of `x` rounded once, to nearest even. */
static uint32_t encode(double x, int sign_bit, int mantissa, int bias) {
    uint32_t sign = signbit(x) ? 1u << sign_bit : 0, top = (1u << (sign_bit - mantissa)) - 1;
    if (isnan(x)) return sign | top << mantissa | 1u << (mantissa - 1);
    double magnitude = fabs(x);
    if (isinf(magnitude)) return sign | top << mantissa;
    int exponent = 0;
    frexp(magnitude, &exponent); /* magnitude = f * 2^exponent, f in [0.5, 1) */
    exponent -= 1;               /* ... in [1, 2) */
    if (exponent < 1 - bias) exponent = 1 - bias;
    double units = rint(ldexp(magnitude, mantissa - exponent)); /* may round up to the next power of two */
    double next = ldexp(1.0, mantissa + 1);
    if (units >= next) {
        units /= 2;
        exponent++;
    }
    if (exponent > (int)top - 1 - bias) return sign | top << mantissa;
    uint32_t u = (uint32_t)units;
    if (u < 1u << mantissa) return sign | u; /* subnormal */
    return sign | (uint32_t)(exponent + bias) << mantissa | (u & ((1u << mantissa) - 1));
}

double ref_load(const void *data, int32_t dtype, int64_t offset) {
    switch (dtype) {
    case ATTN_F32: return (double)((const float *)data)[offset];
    case ATTN_F64: return ((const double *)data)[offset];
    case ATTN_BF16: return decode(((const uint16_t *)data)[offset], 15, 7, 127);
    case ATTN_F16: return decode(((const uint16_t *)data)[offset], 15, 10, 15);
    case ATTN_BOOL: return ((const uint8_t *)data)[offset] != 0;
    case ATTN_I8: return ((const int8_t *)data)[offset];
    case ATTN_U8: return ((const uint8_t *)data)[offset];
    case ATTN_I32: return ((const int32_t *)data)[offset];
    default: return (double)((const int64_t *)data)[offset];
    }
}

void ref_store(void *data, int32_t dtype, int64_t offset, double x) {
    switch (dtype) {
    case ATTN_F32: ((float *)data)[offset] = (float)x; break;
    case ATTN_F64: ((double *)data)[offset] = x; break;
    case ATTN_BF16: ((uint16_t *)data)[offset] = (uint16_t)encode(x, 15, 7, 127); break;
    case ATTN_F16: ((uint16_t *)data)[offset] = (uint16_t)encode(x, 15, 10, 15); break;
    case ATTN_BOOL: ((uint8_t *)data)[offset] = x != 0; break;
    case ATTN_I8: ((int8_t *)data)[offset] = (int8_t)x; break;
    case ATTN_U8: ((uint8_t *)data)[offset] = (uint8_t)x; break;
    case ATTN_I32: ((int32_t *)data)[offset] = (int32_t)x; break;
    default: ((int64_t *)data)[offset] = (int64_t)x; break;
    }
}
