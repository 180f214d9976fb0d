/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel tables, the best instruction set first. Define ATTN_KERNELS(name) and include this: dispatch, tests, benchmarks
 * and `attn info` all expand the one list. Table `name` is attn_kernels_name in src/kernels/name.c. */
#if defined(__x86_64__) || defined(_M_X64)
ATTN_KERNELS(avx512_f32)
ATTN_KERNELS(avx512_f64)
ATTN_KERNELS(avx2_f32)
ATTN_KERNELS(avx2_f64)
#endif
ATTN_KERNELS(scalar_f32)
ATTN_KERNELS(scalar_f64)
#undef ATTN_KERNELS
