/* SPDX-License-Identifier: Apache-2.0 */
/* What an instruction set provides: for each element type it computes in, one table of kernels, each with its contract.
 *
 * Kernels know pointers, lengths and strides (in elements), never tensors. They validate nothing, allocate nothing and cannot
 * fail. A NULL entry means the reference in src/ref answers. A table is filled by one thin file per instruction set and element
 * type (avx512_f32.c, avx2_f64.c, ...): target, vocabulary (simd/), algorithms (*.inc), table. list.h names them all. */
#ifndef ATTN_KERNELS_H
#define ATTN_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* ---- softmax family: rows of n elements --------------------------------------------------------------- */

typedef struct attn_softmax_kernels {
    int32_t unused; /* replaced by the first kernel */
} attn_softmax_kernels;

/* ---- attention ------------------------------------------------------------------------------------------ */

typedef struct attn_attention_kernels {
    int32_t unused; /* replaced by the first kernel */
} attn_attention_kernels;

/* ---- matrix products ------------------------------------------------------------------------------------ */

typedef struct attn_matmul_kernels {
    int32_t unused; /* replaced by the first kernel */
} attn_matmul_kernels;

/* ---- rows and elements: norms, activations, gates, AdamW ------------------------------------------------- */

typedef struct attn_vector_kernels {
    int32_t unused; /* replaced by the first kernel */
} attn_vector_kernels;

typedef struct attn_kernels {
    const char *isa; /* "avx512" */
    int32_t dtype;   /* ATTN_F32, ATTN_F64: what it reads, computes in and writes */
    int32_t lanes;   /* elements of one vector */
    attn_softmax_kernels softmax;
    attn_attention_kernels attention;
    attn_matmul_kernels matmul;
    attn_vector_kernels vector;
} attn_kernels;

/* The best table for an element type on this machine, lowered by ATTN_ISA; NULL when the reference has to answer (bf16, f16). */
const attn_kernels *attn_kernels_for(int32_t dtype);

#endif
