/* SPDX-License-Identifier: Apache-2.0 */
/* Memory for arrays whose length comes from outside: the product of count and size is checked before anything is asked for. */
#ifndef ATTN_IO_ARRAY_H
#define ATTN_IO_ARRAY_H

#include <stddef.h>

/* `items` grown to hold `n` elements of `size` bytes, and usually some more, in *capacity elements. NULL on failure, when the old
 * array is as it was. Growth is geometric, so n appends cost O(n). */
void *array_grow(void *items, size_t *capacity, size_t n, size_t size);

/* n elements of `size` bytes, zeroed; n may be 0. NULL on failure. */
void *array_new(size_t n, size_t size);

#endif
