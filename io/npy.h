/* SPDX-License-Identifier: Apache-2.0 */
/* NumPy's .npy files, versions 1.0 to 3.0: arrays in and out, for every dtype the library has. Both orders of memory are read
 * without copying (Fortran order becomes strides); nothing that a header claims is believed before the bytes are there. */
#ifndef ATTN_IO_NPY_H
#define ATTN_IO_NPY_H

#include <stdbool.h>

#include <attn/attn.h>

#include "error.h"
#include "file.h"

/* An array and the bytes it lies in. */
typedef struct npy_array {
    attn_tensor tensor; /* its data points into bytes; rank 0 is a scalar */
    bool fortran;       /* stored with the first index running fastest */
    io_bytes bytes;
} npy_array;

/* "-" is stdin. IO_BAD_DATA: missing, malformed, cut off, followed by other bytes, or of a dtype that no operation here takes. */
int npy_read(const char *path, npy_array *array, io_error *error);
/* The same from bytes in memory, which the array takes over (on failure, too: they are freed). `name` is for messages. */
int npy_from_bytes(const char *name, io_bytes *bytes, npy_array *array, io_error *error);
void npy_free(npy_array *array);

/* Version 1.0, C order, the elements at a multiple of 64 bytes. `data` is dense. Any dtype but ATTN_BF16, which .npy
 * has no name for. */
int npy_write(io_output *output, int32_t dtype, const void *data, int32_t rank, const int64_t *shape, io_error *error);

/* NumPy's word for a dtype ("float32"; "bfloat16") and its size in bytes; NULL and 0 for a number that is no dtype. */
const char *npy_dtype_name(int32_t dtype);
size_t npy_dtype_size(int32_t dtype);

#endif
