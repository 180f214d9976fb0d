/* SPDX-License-Identifier: Apache-2.0 */
/* The yardstick of a benchmark: multiply-adds in registers, as fast as the instruction set has them. */
#include "kernels/kernels.h"

#include <attn/ops.h>

int64_t attn_burst(int32_t dtype, int64_t rounds) {
    static _Thread_local volatile double sink; /* so that nothing is left out */
    const attn_kernels *k = attn_kernels_for(dtype == ATTN_F64 ? ATTN_F64 : ATTN_F32);
    if (!k || !k->attention.burst || rounds <= 0) return 0;
    sink = k->attention.burst(rounds, 0.5);
    (void)sink;
    return rounds * k->attention.burst_flops;
}
