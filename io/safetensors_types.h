/* SPDX-License-Identifier: Apache-2.0 */
/* The dtypes that a safetensors file may name. Inner to safetensors*.c. */
#ifndef ATTN_IO_SAFETENSORS_TYPES_H
#define ATTN_IO_SAFETENSORS_TYPES_H

#include <stddef.h>
#include <stdint.h>

typedef struct safetensors_type {
    const char *name;
    int32_t dtype; /* ATTN_F32, ...; -1 where the library has no such type */
    size_t width;  /* bytes of an element */
} safetensors_type;

/* Widest first, in the order in which the format's own library writes tensors, so that a file has the same bytes from either. Ends with
 * a NULL name. */
extern const safetensors_type safetensors_types[];

#endif
