/* SPDX-License-Identifier: Apache-2.0 */
/* Views: making them (the public helpers) and checking them (what every front-end does first). */
#include "tensor.h"
#include "status.h"

#include <stdio.h>

attn_tensor attn_dense(int32_t dtype, const void *data, int32_t rank, const int64_t *shape) {
    attn_tensor t = { .data = (void *)data, .dtype = dtype, .rank = rank };
    int64_t stride = 1;
    for (int32_t i = (rank <= ATTN_MAX_RANK ? rank : ATTN_MAX_RANK) - 1; i >= 0; i--) {
        t.shape[i] = shape[i];
        t.stride[i] = stride;
        /* An overflowing product is found by attn_check_tensor; here it must only not be undefined. */
        if (__builtin_mul_overflow(stride, shape[i] > 0 ? shape[i] : 1, &stride)) stride = INT64_MAX;
    }
    return t;
}

attn_tensor attn_bhsd(int32_t dtype, const void *data, int64_t b, int64_t h, int64_t s, int64_t d) {
    return attn_dense(dtype, data, 4, (const int64_t[]){ b, h, s, d });
}

attn_tensor attn_bshd(int32_t dtype, const void *data, int64_t b, int64_t s, int64_t h, int64_t d) {
    attn_tensor t = attn_dense(dtype, data, 4, (const int64_t[]){ b, s, h, d });
    int64_t between = t.stride[1];
    t.shape[1] = h;
    t.stride[1] = t.stride[2];
    t.shape[2] = s;
    t.stride[2] = between;
    return t;
}

attn_tensor attn_axis_last(attn_tensor t, int32_t axis) {
    if (axis < 0) axis += t.rank;
    if (axis < 0 || axis >= t.rank || t.rank > ATTN_MAX_RANK) return (attn_tensor){ .dtype = t.dtype, .rank = -1 };
    int64_t extent = t.shape[axis], stride = t.stride[axis];
    for (int32_t i = axis; i < t.rank - 1; i++) {
        t.shape[i] = t.shape[i + 1];
        t.stride[i] = t.stride[i + 1];
    }
    t.shape[t.rank - 1] = extent;
    t.stride[t.rank - 1] = stride;
    return t;
}

size_t attn_dtype_size(int32_t dtype) {
    switch (dtype) {
    case ATTN_F64:
    case ATTN_I64: return 8;
    case ATTN_F32:
    case ATTN_I32: return 4;
    case ATTN_BF16:
    case ATTN_F16: return 2;
    case ATTN_BOOL:
    case ATTN_I8:
    case ATTN_U8: return 1;
    default: return 0;
    }
}

const char *attn_dtype_name(int32_t dtype) {
    static const char *const names[] = { "f32", "bf16", "f16", "f64", "bool", "i8", "u8", "i32", "i64" };
    return dtype >= 0 && dtype < (int32_t)(sizeof names / sizeof *names) ? names[dtype] : "no dtype";
}

bool attn_dtype_is_float(int32_t dtype) {
    return dtype == ATTN_F32 || dtype == ATTN_BF16 || dtype == ATTN_F16 || dtype == ATTN_F64;
}

static bool is_empty(const attn_tensor *t) {
    for (int32_t i = 0; i < t->rank; i++)
        if (t->shape[i] == 0) return true;
    return false;
}

int64_t attn_count(const attn_tensor *t) {
    int64_t n = 1;
    if (is_empty(t)) return 0; /* its other extents may be of any size */
    for (int32_t i = 0; i < t->rank; i++) n *= t->shape[i];
    return n;
}

bool attn_same_shape(const attn_tensor *x, const attn_tensor *y) {
    if (x->rank != y->rank) return false;
    for (int32_t i = 0; i < x->rank; i++)
        if (x->shape[i] != y->shape[i]) return false;
    return true;
}

const char *attn_shape_text(const attn_tensor *t, char buffer[ATTN_SHAPE_TEXT]) {
    size_t at = 0;
    buffer[at++] = '[';
    for (int32_t i = 0; i < t->rank && i < ATTN_MAX_RANK; i++)
        at += (size_t)snprintf(buffer + at, ATTN_SHAPE_TEXT - at, i ? ", %lld" : "%lld", (long long)t->shape[i]);
    snprintf(buffer + at, ATTN_SHAPE_TEXT - at, "]");
    return buffer;
}

/* Element count and the bytes between the lowest and the highest element must fit in int64 with room to spare. */
static bool span_is_representable(const attn_tensor *t) {
    int64_t count = (int64_t)attn_dtype_size(t->dtype), low = 0, high = 0;
    for (int32_t i = 0; i < t->rank; i++) {
        int64_t reach;
        if (__builtin_mul_overflow(count, t->shape[i], &count)) return false;
        if (t->shape[i] == 0) return true;
        if (__builtin_mul_overflow(t->shape[i] - 1, t->stride[i], &reach)) return false;
        if (__builtin_add_overflow(reach < 0 ? low : high, reach, reach < 0 ? &low : &high)) return false;
    }
    int64_t span;
    return !__builtin_sub_overflow(high, low, &span) && !__builtin_add_overflow(span, 1, &span) &&
           !__builtin_mul_overflow(span, (int64_t)attn_dtype_size(t->dtype), &span);
}

attn_status attn_check_tensor(const char *name, const attn_tensor *t, int32_t min_rank, int32_t max_rank) {
    char text[ATTN_SHAPE_TEXT];
    size_t size = attn_dtype_size(t->dtype);
    if (size == 0) return attn_fail(ATTN_BAD_ARGUMENT, "%s has no known dtype (%d)", name, (int)t->dtype);
    if (t->rank < min_rank || t->rank > max_rank || t->rank > ATTN_MAX_RANK) {
        if (min_rank == max_rank) return attn_fail(ATTN_BAD_SHAPE, "%s has rank %d, not %d", name, (int)t->rank, (int)min_rank);
        return attn_fail(ATTN_BAD_SHAPE, "%s has rank %d, not %d to %d", name, (int)t->rank, (int)min_rank, (int)max_rank);
    }
    for (int32_t i = 0; i < t->rank; i++)
        if (t->shape[i] < 0) return attn_fail(ATTN_BAD_SHAPE, "%s has a negative extent: %s", name, attn_shape_text(t, text));
    if (is_empty(t)) return ATTN_OK;
    if (!span_is_representable(t))
        return attn_fail(ATTN_BAD_SHAPE, "%s is too large to address: %s", name, attn_shape_text(t, text));
    if (t->data == NULL) return attn_fail(ATTN_BAD_ARGUMENT, "%s has no data (shape %s)", name, attn_shape_text(t, text));
    if ((uintptr_t)t->data % size)
        return attn_fail(ATTN_BAD_ARGUMENT, "%s is not aligned to its %d-byte elements", name, (int)size);
    return ATTN_OK;
}

attn_status attn_check_output(const char *name, const attn_tensor *t, int32_t min_rank, int32_t max_rank) {
    attn_status s = attn_check_tensor(name, t, min_rank, max_rank);
    if (s != ATTN_OK || is_empty(t)) return s;
    for (int32_t i = 0; i < t->rank; i++)
        if (t->stride[i] == 0 && t->shape[i] > 1)
            return attn_fail(ATTN_BAD_ARGUMENT,
                             "%s is an output and has stride 0 along axis %d: its rows would overwrite each other", name, (int)i);
    return ATTN_OK;
}

attn_status attn_broadcast(const char *name, const attn_tensor *t, int32_t rank, const int64_t *shape, attn_tensor *out) {
    char text[ATTN_SHAPE_TEXT], wanted[ATTN_SHAPE_TEXT];
    attn_tensor target = { .rank = rank };
    for (int32_t i = 0; i < rank; i++) target.shape[i] = shape[i];
    attn_tensor view = { .data = t->data, .dtype = t->dtype, .rank = rank };
    bool fits = t->rank <= rank;
    for (int32_t i = rank - 1, j = t->rank - 1; fits && i >= 0; i--, j--) {
        bool repeats = j < 0 || (t->shape[j] == 1 && shape[i] != 1);
        view.shape[i] = shape[i];
        view.stride[i] = repeats ? 0 : t->stride[j];
        fits = repeats || t->shape[j] == shape[i];
    }
    if (!fits)
        return attn_fail(ATTN_BAD_SHAPE, "%s has shape %s, which does not broadcast to %s", name, attn_shape_text(t, text),
                         attn_shape_text(&target, wanted));
    *out = view;
    return ATTN_OK;
}

int64_t attn_row_count(const attn_tensor *t) {
    int64_t n = 1;
    for (int32_t i = 0; i < t->rank - 1; i++) n *= t->shape[i];
    return n;
}

int64_t attn_row_offset(const attn_tensor *t, int64_t row) {
    int64_t offset = 0;
    for (int32_t i = t->rank - 2; i >= 0; i--) {
        offset += row % t->shape[i] * t->stride[i];
        row /= t->shape[i];
    }
    return offset;
}

int64_t attn_int_at(const attn_tensor *t, int64_t offset) {
    return t->dtype == ATTN_I64 ? ((const int64_t *)t->data)[offset] : ((const int32_t *)t->data)[offset];
}

attn_status attn_check_reserved(const char *what, const uint64_t *reserved, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (reserved[i])
            return attn_fail(ATTN_UNSUPPORTED, "a reserved word of %s is not zero: it asks for something this version lacks",
                             what);
    return ATTN_OK;
}
