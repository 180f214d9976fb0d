/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures: PNG and JPEG in, PNG out, resizing, and folders with one sub-folder of pictures per class.
 *
 *     image picture, small;
 *     if (image_read("boot.png", &picture, &error)) return report(&error);
 *     if (image_resize(&picture, 28, 28, &small, &error)) ...
 *     image_free(&picture), image_free(&small);
 *
 * An image is 8-bit gray or RGB. Whatever a PNG holds (1 to 16 bits, palette, interlaced) is brought to that; transparency is laid
 * over white, as a page would show it. Width, height and their product are held against limits before anything is allocated. */
#ifndef ATTN_IO_IMAGE_H
#define ATTN_IO_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"

enum { IMAGE_MAX_SIDE = 32768, IMAGE_MAX_PIXELS = 1 << 26 }; /* 64 megapixels: 192 MiB as RGB */

typedef struct image {
    int32_t width, height;
    int32_t channels; /* 1 gray, 3 RGB */
    uint8_t *pixels;  /* [height, width, channels], top row first; owned */
} image;

/* PNG or JPEG, told apart by their first bytes. *out needs no preparation and is empty after a failure. */
int image_read(const char *path, image *out, io_error *error);
int image_decode(const void *bytes, size_t size, const char *name, image *out, io_error *error);

/* The same picture always gives the same bytes. image_write_png replaces the file at once or not at all. */
int image_encode_png(const image *in, void **bytes, size_t *size, io_error *error); /* free(*bytes) */
int image_write_png(const char *path, const image *in, io_error *error);

/* A new image of zeros (black). */
int image_new(int32_t width, int32_t height, int32_t channels, image *out, io_error *error);

/* Separable triangle filter: bilinear when growing, widened to average over what a pixel covers when shrinking. 22-bit fixed-point
 * weights, along the rows first, rounded to bytes, then along the columns: bit for bit Pillow 11's BILINEAR (Pillow 13 may take the
 * columns first and differ by one). The same on every machine. */
int image_resize(const image *in, int32_t width, int32_t height, image *out, io_error *error);

/* A copy with 1 or 3 channels: gray = (19595 R + 38470 G + 7471 B + 2^15) >> 16 (ITU-R 601), RGB from gray repeats it. */
int image_with_channels(const image *in, int32_t channels, image *out, io_error *error);

void image_free(image *i);

/* ---- a folder with one sub-folder of pictures per class ---------------------------------------------- */

typedef struct image_file {
    char *path;
    int32_t label; /* index into labels */
} image_file;

typedef struct image_folder {
    image_file
        *files; /* by label, then by name (bytes): .png .jpg .jpeg in any case, regular files; nothing that begins with a dot */
    size_t n_files;
    char **labels; /* the sub-folders that hold a picture, sorted by bytes */
    size_t n_labels;
    size_t n_other; /* files in them passed over because of their name or kind */
} image_folder;

int image_folder_list(const char *path, image_folder *out, io_error *error);
void image_folder_free(image_folder *f);

#endif
