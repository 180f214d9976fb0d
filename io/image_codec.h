/* SPDX-License-Identifier: Apache-2.0 */
/* The decoders behind image_decode. Inner to image*.c. */
#ifndef ATTN_IO_IMAGE_CODEC_H
#define ATTN_IO_IMAGE_CODEC_H

#include <stdbool.h>

#include "image.h"

bool image_is_png(const void *bytes, size_t size);
bool image_is_jpeg(const void *bytes, size_t size);
int image_decode_png(const void *bytes, size_t size, const char *name, image *out, io_error *error);
int image_decode_jpeg(const void *bytes, size_t size, const char *name, image *out, io_error *error);

/* Holds what a header declares against the limits, before anything is allocated. */
int image_check_size(unsigned long width, unsigned long height, const char *name, io_error *error);

#endif
