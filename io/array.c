/* SPDX-License-Identifier: Apache-2.0 */
/* Growing and making arrays with checked sizes. See array.h. */
#include "array.h"

#include <stdint.h>
#include <stdlib.h>

void *array_grow(void *items, size_t *capacity, size_t n, size_t size) {
    if (n <= *capacity && items) return items;
    size_t target = *capacity > SIZE_MAX / 2 ? SIZE_MAX : *capacity * 2;
    if (target < n) target = n;
    if (target < 16) target = 16;
    size_t bytes;
    if (__builtin_mul_overflow(target, size, &bytes)) return NULL;
    void *grown = realloc(items, bytes);
    if (grown) *capacity = target;
    return grown;
}

void *array_new(size_t n, size_t size) { return calloc(n ? n : 1, size); }
