/* SPDX-License-Identifier: Apache-2.0 */
/* Every kernel for any processor and 64-bit elements. */
#include "kernels.h"

#include <attn/attn.h>

#include <math.h>
#include <string.h>

#include "target_any.h"

#include "simd/generic_f64.h"
#include "vmath.h"

#include "math.inc"

const attn_kernels attn_kernels_scalar_f64 = {
    .isa = "scalar",
    .dtype = ATTN_F64,
    .lanes = VL,
    .math = MATH_KERNELS,
};

#include "target_end.h"
