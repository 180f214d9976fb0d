/* SPDX-License-Identifier: Apache-2.0 */
/* Laying out scratch memory: one function counts the bytes (begin NULL) and later carves the same pieces out of the block. */
#ifndef ATTN_ARENA_H
#define ATTN_ARENA_H

#include "exec.h"

typedef struct attn_arena {
    char *begin; /* NULL: only count */
    size_t used; /* SIZE_MAX from the moment it does not fit */
} attn_arena;

/* count * each * size bytes, aligned to 64 when `begin` is. */
static inline void *attn_take(attn_arena *a, int64_t count, int64_t each, size_t size) {
    size_t bytes, used;
    char *here = a->begin ? a->begin + a->used : NULL;
    if (__builtin_mul_overflow((size_t)count, (size_t)each, &bytes) || __builtin_mul_overflow(bytes, size, &bytes) ||
        __builtin_add_overflow(bytes, (size_t)63, &bytes) || __builtin_add_overflow(a->used, bytes / 64 * 64, &used))
        used = SIZE_MAX;
    a->used = used;
    return here;
}

#endif
