/* SPDX-License-Identifier: Apache-2.0 */
/* Every kernel for any processor and 64-bit elements. */
#include "kernels.h"
#include "../philox.h"
#include "../ref/ops.h"

#include <attn/ops.h>

#include <float.h>
#include <math.h>
#include <string.h>

#include "target_any.h"

#include "simd/generic_f64.h"
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
#define MATMUL_MR 4
#define MATMUL_NV 2
#include "matmul.inc"
#define ATTENTION_ROWS 4
#define ATTENTION_VECS 2
#define ATTENTION_KEYS 128
#include "attention.inc"

const attn_kernels attn_kernels_scalar_f64 = {
    .isa = "scalar",
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
