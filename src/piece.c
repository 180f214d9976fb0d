/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of any strides in pieces. */
#include "piece.h"

#include <string.h>

const void *attn_dense_piece(ref_vector v, int64_t j, int64_t n, void *buffer) {
    if (!v.data) return NULL;
    if (v.stride == 1) return attn_element(v, j);
    for (int64_t i = 0; i < n; i++) ref_store(buffer, v.dtype, i, ref_get(v, j + i));
    return buffer;
}

const void *attn_wide_piece(const attn_kernels *k, ref_vector v, int64_t j, int64_t n, void *buffer, void *wide) {
    const void *piece = attn_dense_piece(v, j, n, buffer);
    if (v.dtype == k->dtype || !piece) return piece;
    k->convert.widen(piece, v.dtype, n, wide);
    return wide;
}

void attn_clear_row(ref_vector v, int64_t n) {
    if (v.stride == 1 && n > 0)
        memset(v.data, 0, (size_t)n * attn_dtype_size(v.dtype));
    else
        for (int64_t c = 0; c < n; c++) ref_put(v, c, 0);
}
