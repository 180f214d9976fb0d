/* SPDX-License-Identifier: Apache-2.0 */
/* Strings of bytes numbered in the order in which they were first seen, each once: the words of a corpus with their counts, the
 * tokens of a vocabulary that is being made. */
#ifndef ATTN_IO_INTERN_H
#define ATTN_IO_INTERN_H

#include <stddef.h>
#include <stdint.h>

#define INTERN_NONE SIZE_MAX

typedef struct intern_entry {
    size_t at, length; /* in bytes */
    uint64_t hash;
    uint64_t count;
} intern_entry;

typedef struct intern {
    intern_entry *entries;
    size_t n, capacity;
    char *bytes;
    size_t n_bytes, byte_capacity;
    size_t *slots; /* number + 1, 0 is free; a power of two of them, at most half used */
    size_t n_slots;
    uint64_t seed;
} intern; /* zero it once */

/* The number of a string, which is added with count 0 when it is new; INTERN_NONE when there is no memory. */
size_t intern_add(intern *table, const char *bytes, size_t length);

void intern_free(intern *table);

/* 64 bits in, 64 bits well mixed. */
uint64_t intern_mix(uint64_t x);

#endif
