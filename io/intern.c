/* SPDX-License-Identifier: Apache-2.0 */
/* A hash table with open addressing. Its seed is an address, different in every run, so that nobody can prepare strings that
 * collide; no result depends on it, because numbers follow the order of arrival. See intern.h. */
#include "intern.h"

#include <stdlib.h>
#include <string.h>

#include "array.h"

uint64_t intern_mix(uint64_t x) {
    x ^= x >> 32;
    x *= 0x9E3779B97F4A7C15u;
    x ^= x >> 29;
    x *= 0xD6E8FEB86659FD93u;
    return x ^ x >> 32;
}

static uint64_t hash_bytes(uint64_t seed, const char *bytes, size_t length) {
    uint64_t hash = seed ^ length;
    for (; length >= 8; bytes += 8, length -= 8) {
        uint64_t eight;
        memcpy(&eight, bytes, 8);
        hash = intern_mix(hash ^ eight) + seed;
    }
    uint64_t rest = 0;
    if (length) memcpy(&rest, bytes, length);
    return intern_mix(hash ^ rest);
}

/* The slot where the string is, or the free one where it would go. */
static size_t find_slot(const intern *table, uint64_t hash, const char *bytes, size_t length) {
    size_t i = (size_t)hash & (table->n_slots - 1);
    for (; table->slots[i]; i = (i + 1) & (table->n_slots - 1)) {
        const intern_entry *entry = &table->entries[table->slots[i] - 1];
        if (entry->hash == hash && entry->length == length && memcmp(table->bytes + entry->at, bytes, length) == 0) break;
    }
    return i;
}

static int grow_slots(intern *table) {
    size_t n_slots = table->n_slots ? table->n_slots : 512;
    if (n_slots > SIZE_MAX / 2) return 0;
    n_slots *= 2;
    size_t *slots = array_new(n_slots, sizeof *slots);
    if (!slots) return 0;
    for (size_t e = 0; e < table->n; e++) {
        size_t i = (size_t)table->entries[e].hash & (n_slots - 1);
        while (slots[i]) i = (i + 1) & (n_slots - 1);
        slots[i] = e + 1;
    }
    free(table->slots);
    table->slots = slots;
    table->n_slots = n_slots;
    return 1;
}

size_t intern_add(intern *table, const char *bytes, size_t length) {
    if (!table->seed) table->seed = intern_mix((uint64_t)(uintptr_t)table) | 1;
    if (table->n >= table->n_slots / 2 && !grow_slots(table)) return INTERN_NONE;
    uint64_t hash = hash_bytes(table->seed, bytes, length);
    size_t slot = find_slot(table, hash, bytes, length);
    if (table->slots[slot]) return table->slots[slot] - 1;

    size_t end;
    if (__builtin_add_overflow(table->n_bytes, length, &end)) return INTERN_NONE;
    char *grown = array_grow(table->bytes, &table->byte_capacity, end, 1);
    if (!grown) return INTERN_NONE;
    table->bytes = grown;
    intern_entry *entries = array_grow(table->entries, &table->capacity, table->n + 1, sizeof *entries);
    if (!entries) return INTERN_NONE;
    table->entries = entries;
    if (length) memcpy(table->bytes + table->n_bytes, bytes, length);
    entries[table->n] = (intern_entry){ .at = table->n_bytes, .length = length, .hash = hash };
    table->n_bytes = end;
    table->slots[slot] = ++table->n;
    return table->n - 1;
}

void intern_free(intern *table) {
    free(table->entries);
    free(table->bytes);
    free(table->slots);
    *table = (intern){ 0 };
}
