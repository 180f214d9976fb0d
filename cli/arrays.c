/* SPDX-License-Identifier: Apache-2.0 */
/* Inputs, elements and rounding for the array verbs. See arrays.h; the outputs are in outputs.c. */
#include "arrays.h"

#include <math.h>
#include <stdlib.h>

#include "message.h"

/* ---- elements --------------------------------------------------------------------------------------- */

int64_t array_count(const attn_tensor *t) {
    int64_t count = 1;
    for (int32_t axis = 0; axis < t->rank; axis++) count *= t->shape[axis];
    return count;
}

/* sign, exponent, fraction -> value, for the two 16-bit formats */
static double from_16(uint16_t bits, int exponent_bits) {
    int fraction_bits = 15 - exponent_bits, bias = (1 << (exponent_bits - 1)) - 1;
    int exponent = bits >> fraction_bits & ((1 << exponent_bits) - 1);
    int fraction = bits & ((1 << fraction_bits) - 1);
    double magnitude;
    if (exponent == (1 << exponent_bits) - 1)
        magnitude = fraction ? NAN : INFINITY;
    else if (exponent == 0)
        magnitude = ldexp(fraction, 1 - bias - fraction_bits);
    else
        magnitude = ldexp(fraction + (1 << fraction_bits), exponent - bias - fraction_bits);
    return bits >> 15 ? -magnitude : magnitude;
}

/* The nearest value of the format, ties to even, in one rounding; beyond the largest it is infinite. */
static uint16_t to_16(double x, int exponent_bits) {
    int fraction_bits = 15 - exponent_bits, bias = (1 << (exponent_bits - 1)) - 1;
    uint32_t sign = signbit(x) ? 0x8000 : 0, infinite = ((1u << exponent_bits) - 1) << fraction_bits;
    if (isnan(x)) return (uint16_t)(sign | infinite | 1u << (fraction_bits - 1));
    if (x == 0) return (uint16_t)sign;
    if (isinf(x) || ilogb(x) > bias) return (uint16_t)(sign | infinite);
    int exponent = ilogb(x) < 1 - bias ? 1 - bias : ilogb(x); /* below that the steps stay as wide as they are */
    uint32_t steps = (uint32_t)nearbyint(ldexp(fabs(x), fraction_bits - exponent));
    /* `steps` holds the leading one, which adds the last 1 to the exponent; so does a carry out of the fraction. */
    return (uint16_t)(sign | (((uint32_t)(exponent + bias - 1) << fraction_bits) + steps));
}

enum { BF16_EXPONENT = 8, F16_EXPONENT = 5 };

double array_element(const attn_tensor *t, int64_t offset) {
    switch (t->dtype) {
    case ATTN_F32: return (double)((const float *)t->data)[offset];
    case ATTN_F64: return ((const double *)t->data)[offset];
    case ATTN_F16: return from_16(((const uint16_t *)t->data)[offset], F16_EXPONENT);
    case ATTN_BF16: return from_16(((const uint16_t *)t->data)[offset], BF16_EXPONENT);
    case ATTN_I8: return ((const int8_t *)t->data)[offset];
    case ATTN_I32: return ((const int32_t *)t->data)[offset];
    case ATTN_I64: return (double)((const int64_t *)t->data)[offset];
    default: return ((const uint8_t *)t->data)[offset];
    }
}

/* ---- inputs ----------------------------------------------------------------------------------------- */

int array_load(const char *label, const char *path, array_kind kind, npy_array *array) {
    io_error error = { 0 };
    if (npy_read(path, array, &error)) return fail(error.code, "%s: %s", label, error.message);
    int32_t dtype = array->tensor.dtype;
    bool right = kind == ARRAY_BOOL      ? dtype == ATTN_BOOL
                 : kind == ARRAY_INTEGER ? dtype == ATTN_I32 || dtype == ATTN_I64
                                         : dtype == ATTN_F32 || dtype == ATTN_F64 || dtype == ATTN_F16;
    if (right) return IO_OK;
    const char *needed = kind == ARRAY_BOOL      ? "booleans are needed: save a.astype(bool), true where a query may attend"
                         : kind == ARRAY_INTEGER ? "whole numbers are needed: save a.astype('int64')"
                                                 : "float32, float64 or float16 is needed: save a.astype('float32')";
    int failed = fail(IO_BAD_DATA, "%s: %s holds %s; %s", label, path, npy_dtype_name(dtype), needed);
    npy_free(array);
    return failed;
}

double array_rounded(double x, int32_t dtype) {
    int exponent_bits = dtype == ATTN_BF16 ? BF16_EXPONENT : F16_EXPONENT;
    return from_16(to_16(x, exponent_bits), exponent_bits);
}

/* As float32, by way of a 16-bit dtype unless `through` is ATTN_F32. In the order of memory: what was dense in some order stays so. */
static int to_f32(const char *label, npy_array *array, int32_t through) {
    attn_tensor *t = &array->tensor;
    size_t count = (size_t)array_count(t);
    io_bytes wide = { .data = malloc(count * sizeof(float) + 1),
                      .size = count * sizeof(float),
                      .capacity = count * sizeof(float) };
    if (!wide.data) return fail(IO_NO_ROOM, "out of memory: %s as float32 needs %zu bytes", label, wide.size);
    float *to = (float *)(void *)wide.data;
    for (size_t i = 0; i < count; i++) {
        double x = array_element(t, (int64_t)i);
        to[i] = (float)(through == ATTN_F32 ? x : array_rounded(x, through));
    }
    io_bytes_free(&array->bytes);
    array->bytes = wide;
    t->data = to;
    t->dtype = ATTN_F32;
    return IO_OK;
}

int array_round(const char *label, npy_array *array, int32_t dtype) { return to_f32(label, array, dtype); }

int array_adapt(const char *label, npy_array *array, int32_t main_dtype, bool rounded) {
    int32_t dtype = array->tensor.dtype;
    if (dtype == ATTN_F32 || dtype == main_dtype) return IO_OK;
    if (dtype == ATTN_F16 || rounded) return to_f32(label, array, ATTN_F32);
    return fail(IO_BAD_DATA, "%s holds %s beside numbers of %s; save a.astype('%s')", label, npy_dtype_name(dtype),
                npy_dtype_name(main_dtype), npy_dtype_name(main_dtype));
}
