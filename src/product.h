/* SPDX-License-Identifier: Apache-2.0 */
/* A matrix product of any size, inside a work item: in blocks of the kernels' size, one after the other. */
#ifndef ATTN_PRODUCT_H
#define ATTN_PRODUCT_H

#include "kernels/kernels.h"
#include "tensor.h"

static inline void attn_multiply(const attn_kernels *kernels, attn_matmul_block whole, void *scratch) {
    const attn_matmul_kernels *k = &kernels->matmul;
    const int64_t size = (int64_t)attn_dtype_size(kernels->dtype);
    for (int64_t j = 0; j < whole.n; j += k->n_block)
        for (int64_t i = 0; i < whole.m; i += k->m_block) {
            attn_matmul_block t = whole;
            t.m = whole.m - i < k->m_block ? whole.m - i : k->m_block;
            t.n = whole.n - j < k->n_block ? whole.n - j : k->n_block;
            t.a = (const char *)whole.a + i * whole.a_row * size;
            t.b = (const char *)whole.b + j / k->nr * whole.b_panel * size;
            t.c = (char *)whole.c + (i * whole.c_row + j * whole.c_col) * size;
            if (whole.bias) t.bias = (const char *)whole.bias + j * whole.bias_col * size;
            k->block(&t, scratch);
        }
}

/* Scratch for any block of a product: it grows with each extent, but for a panel's edge that is packed where k is 1. */
static inline size_t attn_multiply_scratch(const attn_kernels *kernels, attn_matmul_block t) {
    const attn_matmul_kernels *k = &kernels->matmul;
    if (t.m > k->m_block) t.m = k->m_block;
    if (t.n > k->n_block) t.n = k->n_block;
    return k->scratch(&t) + (size_t)k->nr * attn_dtype_size(kernels->dtype);
}

#endif
