/* SPDX-License-Identifier: Apache-2.0 */
/* Every kernel for AVX2 with FMA and 64-bit elements. */
#include "kernels.h"
#include "../philox.h"
#include "../ref/ops.h"

#include <attn/ops.h>

#include <float.h>
#include <math.h>
#include <string.h>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#include "target_avx2.h"

#include "simd/avx2_f64.h"
#include "vmath.h"

#include "convert.inc"
#include "math.inc"
#include "softmax.inc"
#include "softmax_rows.inc"
#include "softmax_columns.inc"
#include "gate.inc"
#include "activation.inc"
#include "norm.inc"
#include "elementwise.inc"
#include "entmax.inc"
#define MATMUL_MR 6
#define MATMUL_NV 2
#include "matmul.inc"
#define ATTENTION_ROWS 6
#define ATTENTION_VECS 2
#define ATTENTION_KEYS 192
#include "attention.inc"

const attn_kernels attn_kernels_avx2_f64 = {
    .isa = "avx2",
    .dtype = ATTN_F64,
    .lanes = VL,
    .convert = CONVERT_KERNELS,
    .math = MATH_KERNELS,
    .attention = ATTENTION_KERNELS,
    .softmax = SOFTMAX_KERNELS,
    .entmax = ENTMAX_KERNELS,
    .matmul = MATMUL_KERNELS,
    .vector = VECTOR_KERNELS,
    .gate = GATE_KERNELS,
};

#include "target_end.h"
#endif
