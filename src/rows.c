/* SPDX-License-Identifier: Apache-2.0 */
/* Walking the rows of several tensors together. */
#include "rows.h"

/* Whether axis a and the one behind it are one axis in every tensor. */
static bool continues(const attn_rows *rows, int32_t a) {
    for (int32_t t = 0; t < rows->tensors; t++) {
        const attn_rows_tensor *r = &rows->t[t];
        if (r->data && r->stride[a] != r->stride[a + 1] * rows->extent[a + 1]) return false;
    }
    return !rows->numbered || rows->number[a] == rows->number[a + 1] * rows->extent[a + 1];
}

static void remove_axis(attn_rows *rows, int32_t a) {
    rows->axes--;
    for (int32_t i = a; i < rows->axes; i++) {
        rows->extent[i] = rows->extent[i + 1];
        rows->number[i] = rows->number[i + 1];
        for (int32_t t = 0; t < rows->tensors; t++) rows->t[t].stride[i] = rows->t[t].stride[i + 1];
    }
}

static void move_innermost(attn_rows *rows, int32_t a) {
    int32_t last = rows->axes - 1;
    int64_t extent = rows->extent[a], number = rows->number[a], stride[ATTN_ROWS_TENSORS];
    for (int32_t t = 0; t < rows->tensors; t++) stride[t] = rows->t[t].stride[a];
    remove_axis(rows, a);
    rows->extent[last] = extent;
    rows->number[last] = number;
    for (int32_t t = 0; t < rows->tensors; t++) rows->t[t].stride[last] = stride[t];
    rows->axes++;
}

static int64_t magnitude(int64_t x) { return x < 0 ? -x : x; }

/* The row axis with the smallest stride in the first tensor. */
static int32_t closest_axis(const attn_rows *rows) {
    int32_t best = rows->axes - 1;
    for (int32_t a = 0; a < rows->axes; a++)
        if (magnitude(rows->t[0].stride[a]) < magnitude(rows->t[0].stride[best])) best = a;
    return best;
}

static void make(attn_rows *rows, bool numbered, int32_t n_tensors, const attn_tensor *const *tensors) {
    const attn_tensor *shape = tensors[0];
    int32_t row_axes = shape->rank - 1;
    *rows = (attn_rows){ .n = shape->shape[row_axes], .tensors = n_tensors, .numbered = numbered };
    for (int32_t t = 0; t < n_tensors; t++)
        if (tensors[t] && attn_present(tensors[t]))
            rows->t[t] =
                (attn_rows_tensor){ .data = tensors[t]->data, .dtype = tensors[t]->dtype, .step = tensors[t]->stride[row_axes] };
    for (int32_t a = 0; a < row_axes; a++) {
        if (shape->shape[a] == 1) continue;
        rows->extent[rows->axes] = shape->shape[a];
        for (int32_t t = 0; t < n_tensors; t++)
            if (rows->t[t].data) rows->t[t].stride[rows->axes] = tensors[t]->stride[a];
        rows->axes++;
    }
    for (int32_t a = rows->axes - 1; a >= 0; a--)
        rows->number[a] = a == rows->axes - 1 ? 1 : rows->number[a + 1] * rows->extent[a + 1];
    if (rows->axes == 0) rows->extent[rows->axes++] = 1;
    move_innermost(rows, closest_axis(rows));
    for (int32_t a = rows->axes - 2; a >= 0; a--)
        if (continues(rows, a)) {
            rows->extent[a + 1] *= rows->extent[a];
            remove_axis(rows, a);
        }
}

void attn_rows_make(attn_rows *rows, int32_t n_tensors, const attn_tensor *const *tensors) {
    make(rows, false, n_tensors, tensors);
}

void attn_rows_make_numbered(attn_rows *rows, int32_t n_tensors, const attn_tensor *const *tensors) {
    make(rows, true, n_tensors, tensors);
}

static int64_t blocks_inside(const attn_rows *rows, int64_t size) {
    int64_t inner = rows->extent[rows->axes - 1];
    return inner / size + (inner % size != 0);
}

int64_t attn_rows_blocks(const attn_rows *rows, int64_t size) {
    int64_t blocks = blocks_inside(rows, size);
    for (int32_t a = 0; a < rows->axes - 1; a++) blocks *= rows->extent[a];
    return blocks;
}

attn_rows_block attn_rows_at(const attn_rows *rows, int64_t size, int64_t index) {
    int32_t inner = rows->axes - 1;
    int64_t inside = blocks_inside(rows, size), first = index % inside * size, outer = index / inside;
    int64_t left = rows->extent[inner] - first, offset[ATTN_ROWS_TENSORS];
    attn_rows_block block = { .count = left < size ? left : size,
                              .number = first * rows->number[inner],
                              .next_number = rows->number[inner] };
    for (int32_t t = 0; t < rows->tensors; t++) offset[t] = first * rows->t[t].stride[inner];
    for (int32_t a = inner - 1; a >= 0; a--) {
        int64_t at = outer % rows->extent[a];
        outer /= rows->extent[a];
        block.number += at * rows->number[a];
        for (int32_t t = 0; t < rows->tensors; t++) offset[t] += at * rows->t[t].stride[a];
    }
    for (int32_t t = 0; t < rows->tensors; t++) {
        const attn_rows_tensor *r = &rows->t[t];
        block.data[t] = r->data ? r->data + offset[t] * (int64_t)attn_dtype_size(r->dtype) : NULL;
        block.next[t] = r->stride[inner];
    }
    return block;
}
