/* SPDX-License-Identifier: Apache-2.0 */
/* Random numbers that depend on where they are used and on nothing else: a stream is opened for a seed and a place (the step, the layer,
 * the example), so that neither the number of threads nor the order of the work changes a bit. */
#ifndef ATTN_NN_RANDOM_H
#define ATTN_NN_RANDOM_H

#include <stdint.h>

/* What a stream is for, the first word of its place. */
enum { NN_FOR_WEIGHTS = 1, NN_FOR_ORDER, NN_FOR_SPLIT, NN_FOR_DROPOUT, NN_FOR_AUGMENTATION };

typedef struct nn_random {
    uint64_t key, count;
} nn_random;

nn_random nn_random_at(uint64_t seed, uint64_t purpose, uint64_t step, uint64_t place);
uint64_t nn_random_bits(nn_random *r);
double nn_random_uniform(nn_random *r);                          /* [0, 1) */
double nn_random_normal(nn_random *r);                           /* mean 0, deviation 1 */
uint64_t nn_random_below(nn_random *r, uint64_t n);              /* [0, n), n >= 1 */
void nn_random_order(nn_random *r, uint32_t *order, uint32_t n); /* a permutation of 0 .. n - 1 */

#endif
