/* SPDX-License-Identifier: Apache-2.0 */
/* How the vocabulary and the algorithms are written down for the compiler: always inlined, small loops over registers unrolled.
 * Every simd/<instruction set>_<element>.h defines the same words; the algorithms use nothing else:
 *
 *     elem, ELEM_BITS       float and 32, or double and 64
 *     vf, VL                a vector of VL elements           vm   one condition per lane
 *     v_load v_store        any alignment                     v_load_n v_store_n   the first n of VL lanes; the rest reads as 0
 *     v_stream v_fence      a store past the caches, to memory aligned to 16 bytes; and what comes after the last of them
 *     v_set v_zero v_iota   x everywhere; 0; 0, 1, 2, ...
 *     v_add v_sub v_mul v_div v_sqrt v_neg v_abs
 *     v_max v_min           a > b ? a : b, a < b ? a : b: when either is NaN, the second operand
 *     v_fma v_fms v_fnma    a*b + c, a*b - c, c - a*b; rounded once, except on "generic", which rounds twice
 *     v_round v_floor       to nearest even; towards -inf
 *     v_scale2              x * 2^n for integral n, rounded once, overflow and underflow as IEEE; |x| within [2^-20, 2^20]
 *     v_two_to              2^n where that is normal, 0 below the first; n comes as 1.5 * 2^(mantissa bits) + (exponent's bias) + n
 *     v_exponent            floor(log2 x) of a positive normal x
 *     v_copysign            |x| with the sign of s
 *     v_lt v_le v_eq        ordered comparisons: false with NaN       v_isnan
 *     v_select v_clear      m ? a : b; m ? 0 : x              v_both v_either v_not   on conditions
 *     v_any v_bits v_mask   is one lane set; lanes as bits, lane 0 lowest; and back
 *     v_pack                the lanes whose condition is set, one behind the other; up to VL elements are written
 *     v_sum v_hmax          over the lanes: the upper half is added to the lower one, until one is left; v_hmax without NaN
 *     v_transpose           a VL x VL block in registers
 *     v_load_bf16 v_load_f16 v_store_bf16 v_store_f16   VL elements of 16 bits, where ELEM_BITS is 32; stores round to nearest even
 *
 * and, in <instruction set>_u64.h, a few for whole numbers:
 *
 *     vu, UL                a vector of UL unsigned numbers of 64 bits
 *     v_u_set v_u_iota      x everywhere; 0, 1, 2, ...        v_u_add v_u_xor
 *     v_u_product           of the lower 32 bits of both      v_u_high   the upper 32 bits
 *     v_u_store_low         the lower 32 bits of each, close together */
#ifndef ATTN_SIMD_INLINE_H
#define ATTN_SIMD_INLINE_H

#define V static inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
/* clang warns where a loop of one round, of which nothing was left, was not unrolled */
#pragma clang diagnostic ignored "-Wpass-failed"
#else
#define UNROLL _Pragma("GCC unroll 64")
#endif

#endif
