/* SPDX-License-Identifier: Apache-2.0 */
/* Philox-4x32-10 (Salmon et al. 2011), the counter-based generator behind dropout: four random words are a function of a counter
 * and a key, so that any tiling and any thread draws the same ones. */
#ifndef ATTN_PHILOX_H
#define ATTN_PHILOX_H

#include <stdbool.h>
#include <stdint.h>

typedef struct attn_philox {
    uint32_t word[4];
} attn_philox;

#define ATTN_PHILOX_M0 0xD2511F53u
#define ATTN_PHILOX_M1 0xCD9E8D57u
#define ATTN_PHILOX_W0 0x9E3779B9u /* Weyl sequence: golden ratio */
#define ATTN_PHILOX_W1 0xBB67AE85u /* ... and sqrt(3) - 1 */

/* The ten rounds on one counter; plain 32-bit arithmetic, which compilers turn into vectors when it stands in a loop. */
static inline attn_philox attn_philox_words(attn_philox counter, uint64_t seed) {
    uint32_t c0 = counter.word[0], c1 = counter.word[1], c2 = counter.word[2], c3 = counter.word[3];
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)ATTN_PHILOX_M0 * c0, p1 = (uint64_t)ATTN_PHILOX_M1 * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += ATTN_PHILOX_W0;
        k1 += ATTN_PHILOX_W1;
    }
    return (attn_philox){ { c0, c1, c2, c3 } };
}

/* The counter of four neighbouring elements: (position >> 2, stream), as four words. */
static inline attn_philox attn_philox_counter(uint64_t low, uint64_t high) {
    return (attn_philox){ { (uint32_t)low, (uint32_t)(low >> 32), (uint32_t)high, (uint32_t)(high >> 32) } };
}

/* A word below this is dropped: round(p * 2^32), p in [0, 1]; 2^32 drops all. */
static inline uint64_t attn_dropout_threshold(double p) { return (uint64_t)(p * 4294967296.0 + 0.5); }

/* ---- dropout of attention's weights ------------------------------------------------------------------------ */

/* What a call drops. Not on: nothing. */
typedef struct attn_dropout_rule {
    bool on;
    uint64_t key, threshold;
    double scale; /* of what is kept: 1 / (1 - p) */
} attn_dropout_rule;

/* An offset, which callers move on from call to call, changes the key. */
static inline attn_dropout_rule attn_dropout_rule_of(double p, uint64_t seed, uint64_t offset) {
    attn_dropout_rule r = { .on = p > 0, .key = seed, .threshold = attn_dropout_threshold(p), .scale = p < 1 ? 1 / (1 - p) : 0 };
    if (offset) {
        attn_philox w = attn_philox_words(attn_philox_counter(offset, 0), seed);
        r.key = w.word[0] | (uint64_t)w.word[1] << 32;
    }
    return r;
}

/* The words for keys j .. j + 3 of row i of head h of batch entry b; j is a multiple of 4. */
static inline attn_philox attn_dropout_words(const attn_dropout_rule *r, int64_t b, int64_t h, int64_t i, int64_t j) {
    return attn_philox_words((attn_philox){ { (uint32_t)(j >> 2), (uint32_t)i, (uint32_t)b, (uint32_t)h } }, r->key);
}

/* What the weight of key j in row i is multiplied by. */
static inline double attn_dropout_factor(const attn_dropout_rule *r, int64_t b, int64_t h, int64_t i, int64_t j) {
    if (!r->on) return 1;
    return attn_dropout_words(r, b, h, i, j & ~(int64_t)3).word[j & 3] < r->threshold ? 0 : r->scale;
}

#endif
