/* SPDX-License-Identifier: Apache-2.0 */
/* From here to target_end.h functions are compiled for AVX-512 F, BW, DQ, VL (Skylake-X and later), without contraction.
 * Headers of libc and the compiler come before this one. */
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
#pragma GCC optimize("fp-contract=off")
#endif
