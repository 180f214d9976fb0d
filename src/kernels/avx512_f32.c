/* SPDX-License-Identifier: Apache-2.0 */
/* Every kernel for AVX-512 and 32-bit elements. */
#include "kernels.h"

#include <attn/attn.h>

#include <math.h>
#include <string.h>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#include "target_avx512.h"

#include "simd/avx512_f32.h"
#include "vmath.h"

#include "math.inc"

const attn_kernels attn_kernels_avx512_f32 = {
    .isa = "avx512",
    .dtype = ATTN_F32,
    .lanes = VL,
    .math = MATH_KERNELS,
};

#include "target_end.h"
#endif
