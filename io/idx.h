/* SPDX-License-Identifier: Apache-2.0 */
/* IDX files, the format of MNIST and its descendants: a big-endian header (type, rank, shape) and bytes, plain or gzip.
 * Never more is inflated than the header declares, so a small file cannot fill the memory. */
#ifndef ATTN_IO_IDX_H
#define ATTN_IO_IDX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"

enum { IDX_MAX_RANK = 4 };

typedef struct idx {
    int rank;                    /* 1 (labels), 3 (gray images [n, height, width]), 4 ([n, height, width, channels]), ... */
    int64_t shape[IDX_MAX_RANK]; /* extents beyond rank are 1 */
    uint8_t *data;               /* the elements, unsigned bytes, row-major; owned */
    size_t size;                 /* bytes of data: the product of the shape */
} idx;

/* *out needs no preparation and is empty after a failure. */
int idx_read(const char *path, idx *out, io_error *error);
int idx_parse(const void *bytes, size_t size, const char *name, idx *out, io_error *error);
void idx_free(idx *a);

/* Does a file that begins with these bytes (some hundred are enough) look like IDX, plain or gzip? */
bool idx_looks_like(const void *bytes, size_t size);

/* The labels file that belongs to an images file: the same name with "images" as "labels" and "idx3" or "idx4" as "idx1", with or
 * without .gz. Fails where the name does not say "images" or where there is no such file. `out` takes at most `room` bytes. */
int idx_labels_beside(const char *images, char *out, size_t room, io_error *error);

/* The images file of one half in a folder of the four MNIST-style files: half 0 is train-images-idx3-ubyte, half 1 is
 * t10k-images-idx3-ubyte or test-images-idx3-ubyte (idx4 for colour), with or without .gz. False where there is none. */
bool idx_in_folder(const char *folder, int half, char *out, size_t room);

#endif
