/* SPDX-License-Identifier: Apache-2.0 */
/* Learning merges: the most frequent pair of neighbouring tokens becomes a token, again and again. */
#ifndef ATTN_IO_BPE_TRAIN_H
#define ATTN_IO_BPE_TRAIN_H

#include <stddef.h>
#include <stdint.h>

#include "bpe.h"
#include "error.h"
#include "intern.h"

/* No token gets longer: a text that repeats itself for pages would otherwise fill the vocabulary with pages. */
#define BPE_LONGEST_TOKEN 256

/* What was learnt: the bytes of tokens [0, n) of `tokens` - first the 256 bytes in the order of their printable characters, then
 * what was merged - and the merges, best first. Ids count from 0 here. */
typedef struct bpe_learnt {
    intern tokens;
    bpe_merge *merges;
    size_t n_merges, merge_capacity;
} bpe_learnt;

/* Learns from words and their counts until there are `n_tokens` tokens or no pair is seen `min_frequency` times. The most
 * frequent pair comes first; of pairs equally frequent the one with the smaller left id, then the smaller right id. */
int bpe_learn(const intern *words, size_t n_tokens, uint64_t min_frequency, bpe_learnt *learnt, io_error *error);

void bpe_learnt_free(bpe_learnt *learnt);

#endif
