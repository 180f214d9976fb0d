/* SPDX-License-Identifier: Apache-2.0 */
/* Every kernel for any processor and 32-bit elements. */
#include "kernels.h"

#include <attn/attn.h>

#include <math.h>
#include <string.h>

#include "target_any.h"

#include "simd/generic_f32.h"
#include "vmath.h"

#include "math.inc"

const attn_kernels attn_kernels_scalar_f32 = {
    .isa = "scalar",
    .dtype = ATTN_F32,
    .lanes = VL,
    .math = MATH_KERNELS,
};

#include "target_end.h"
