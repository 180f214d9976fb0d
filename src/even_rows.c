/* SPDX-License-Identifier: Apache-2.0 */
/* A tensor's rows as kernels want them. */
#include "even_rows.h"
#include "tensor.h"
#include "walk.h"

attn_even_rows attn_even_rows_of(const attn_tensor *t) {
    attn_even_rows r = { .tensor = t, .size = attn_dtype_size(t->dtype) };
    int64_t last = t->rank - 1, extent = 1;
    r.even = t->stride[last] == 1 || t->shape[last] <= 1;
    for (int32_t axis = t->rank - 2; axis >= 0; axis--) {
        if (t->shape[axis] == 1) continue;
        if (extent == 1)
            r.row = t->stride[axis];
        else if (t->stride[axis] != r.row * extent)
            r.even = false;
        extent *= t->shape[axis];
    }
    return r;
}

void *attn_even_rows_borrow(const attn_even_rows *r, int64_t begin, int64_t m, int64_t first, int64_t n, bool read, void *buffer,
                            int64_t *row) {
    if (r->even) {
        *row = r->row;
        return attn_at(r->tensor, begin * r->row + first);
    }
    *row = n;
    int64_t col = r->tensor->stride[r->tensor->rank - 1];
    for (int64_t i = 0; read && i < m; i++) {
        const char *source = attn_at(r->tensor, attn_row_offset(r->tensor, begin + i) + first * col);
        attn_copy_strided(r->size, n, source, col, (char *)buffer + (size_t)(i * n) * r->size, 1);
    }
    return buffer;
}

void attn_even_rows_return(const attn_even_rows *r, int64_t begin, int64_t m, int64_t first, int64_t n, const void *buffer) {
    if (r->even) return;
    int64_t col = r->tensor->stride[r->tensor->rank - 1];
    for (int64_t i = 0; i < m; i++) {
        char *target = attn_at(r->tensor, attn_row_offset(r->tensor, begin + i) + first * col);
        attn_copy_strided(r->size, n, (const char *)buffer + (size_t)(i * n) * r->size, 1, target, col);
    }
}
