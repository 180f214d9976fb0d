/* SPDX-License-Identifier: Apache-2.0 */
/* Streams of random numbers: SplitMix64 (Steele, Lea and Flood 2014) started at a hash of seed and place. */
#include "random.h"

#include <math.h>

static uint64_t mixed(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static const uint64_t golden = 0x9e3779b97f4a7c15u;

nn_random nn_random_at(uint64_t seed, uint64_t purpose, uint64_t step, uint64_t place) {
    uint64_t key = mixed(seed + golden);
    key = mixed(key ^ (purpose * golden));
    key = mixed(key ^ ((step + 1) * golden));
    key = mixed(key ^ ((place + 1) * golden));
    return (nn_random){ .key = key };
}

uint64_t nn_random_bits(nn_random *r) { return mixed(r->key + ++r->count * golden); }

double nn_random_uniform(nn_random *r) { return (double)(nn_random_bits(r) >> 11) * 0x1p-53; }

/* Box and Muller (1958), one of the pair. 1 - u is never 0. */
double nn_random_normal(nn_random *r) {
    double u = nn_random_uniform(r), turn = nn_random_uniform(r);
    return sqrt(-2 * log(1 - u)) * cos(6.283185307179586 * turn);
}

/* The bias of the remainder is below n / 2^64. */
uint64_t nn_random_below(nn_random *r, uint64_t n) { return nn_random_bits(r) % n; }

void nn_random_order(nn_random *r, uint32_t *order, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) order[i] = i;
    for (uint32_t i = n; i > 1; i--) {
        uint32_t other = (uint32_t)nn_random_below(r, i), last = order[i - 1];
        order[i - 1] = order[other];
        order[other] = last;
    }
}
