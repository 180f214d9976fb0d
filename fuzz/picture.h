/* SPDX-License-Identifier: Apache-2.0 */
/* What is done with every picture that the two picture targets can decode. */
#ifndef ATTN_FUZZ_PICTURE_H
#define ATTN_FUZZ_PICTURE_H

#include <stdlib.h>
#include <string.h>

#include "image.h"

/* Resizes, writes, and reads again what came out, which must be the same picture. */
static void check(const image *i) {
    image small, again;
    io_error error = { 0 };
    if (image_resize(i, 8, 8, &small, &error)) abort();
    void *png;
    size_t n;
    if (image_encode_png(&small, &png, &n, &error)) abort();
    if (image_decode(png, n, "again", &again, &error)) abort();
    if (again.channels != i->channels || memcmp(again.pixels, small.pixels, (size_t)(64 * i->channels))) abort();
    free(png);
    image_free(&again);
    image_free(&small);
}

static void decode_and_check(const uint8_t *data, size_t size) {
    image i;
    io_error error = { 0 };
    if (image_decode(data, size, "fuzz", &i, &error)) {
        if (error.code == IO_OK || !error.message[0]) abort();
        return;
    }
    if (i.width * i.height < 1 << 20) check(&i); /* large ones take their time under sanitizers */
    image_free(&i);
}

#endif
