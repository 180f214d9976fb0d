/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures in memory: new, read, convert, free. The formats are in image_png.c and image_jpeg.c. */
#include "image.h"

#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "image_codec.h"

/* No picture within the limits needs more bytes than its raw pixels twice over; files that have more are refused unread. */
static const size_t max_file = (size_t)IMAGE_MAX_PIXELS * 8;

int image_check_size(unsigned long width, unsigned long height, const char *name, io_error *error) {
    if (width == 0 || height == 0) return io_fail(error, IO_BAD_DATA, "%s: a picture of %lux%lu pixels", name, width, height);
    if (width > IMAGE_MAX_SIDE || height > IMAGE_MAX_SIDE || width * height > IMAGE_MAX_PIXELS)
        return io_fail(error, IO_BAD_DATA, "%s: a picture of %lux%lu pixels; at most %d on a side and %d in all are read", name,
                       width, height, IMAGE_MAX_SIDE, IMAGE_MAX_PIXELS);
    return IO_OK;
}

int image_new(int32_t width, int32_t height, int32_t channels, image *out, io_error *error) {
    *out = (image){ 0 };
    if (width < 0 || height < 0 || (channels != 1 && channels != 3))
        return io_fail(error, IO_BAD_DATA, "a picture of %dx%d pixels with %d channels cannot be", width, height, channels);
    int failed = image_check_size((unsigned long)width, (unsigned long)height, "new picture", error);
    if (failed) return failed;
    size_t size = (size_t)width * (size_t)height * (size_t)channels; /* at most 2^26 * 3 */
    uint8_t *pixels = calloc(size, 1);
    if (!pixels) return io_no_memory(error, "a picture", size);
    *out = (image){ .width = width, .height = height, .channels = channels, .pixels = pixels };
    return IO_OK;
}

void image_free(image *i) {
    free(i->pixels);
    *i = (image){ 0 };
}

int image_decode(const void *bytes, size_t size, const char *name, image *out, io_error *error) {
    *out = (image){ 0 };
    if (image_is_png(bytes, size)) return image_decode_png(bytes, size, name, out, error);
    if (image_is_jpeg(bytes, size)) return image_decode_jpeg(bytes, size, name, out, error);
    return io_fail(error, IO_BAD_DATA, "%s is neither PNG nor JPEG", name);
}

int image_read(const char *path, image *out, io_error *error) {
    io_bytes bytes = { 0 };
    *out = (image){ 0 };
    int failed = io_read(path, max_file, &bytes, error);
    if (!failed) failed = image_decode(bytes.data, bytes.size, path, out, error);
    io_bytes_free(&bytes);
    return failed;
}

int image_write_png(const char *path, const image *in, io_error *error) {
    void *bytes;
    size_t size;
    int failed = image_encode_png(in, &bytes, &size, error);
    if (failed) return failed;
    failed = io_write(path, bytes, size, error);
    free(bytes);
    return failed;
}

int image_with_channels(const image *in, int32_t channels, image *out, io_error *error) {
    int failed = image_new(in->width, in->height, channels, out, error);
    if (failed) return failed;
    size_t n = (size_t)in->width * (size_t)in->height;
    const uint8_t *from = in->pixels;
    uint8_t *to = out->pixels;
    if (in->channels == channels) {
        memcpy(to, from, n * (size_t)channels);
    } else if (channels == 3) {
        for (size_t i = 0; i < n; i++) to[3 * i] = to[3 * i + 1] = to[3 * i + 2] = from[i];
    } else {
        for (size_t i = 0; i < n; i++)
            to[i] = (uint8_t)((19595u * from[3 * i] + 38470u * from[3 * i + 1] + 7471u * from[3 * i + 2] + 0x8000u) >> 16);
    }
    return IO_OK;
}
