/* SPDX-License-Identifier: Apache-2.0 */
/* Vectors of length 1, for the cosine score: a zero vector stays, one that holds an infinity or NaN is NaN. Elements are float or
 * double by `size`, `step` elements apart; sums are in double, in an order that depends on n alone. */
#ifndef ATTN_ATTENTION_UNIT_H
#define ATTN_ATTENTION_UNIT_H

#include <stddef.h>
#include <stdint.h>

void attn_unit_vector(void *x, int64_t n, int64_t step, size_t size);
/* From the gradient g of x / |x| to that of x, in place. A gradient of 0 stays 0 whatever x is; a zero vector has none. */
void attn_unit_gradient(const void *x, int64_t x_step, void *g, int64_t g_step, int64_t n, size_t size);

#endif
