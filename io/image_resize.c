/* SPDX-License-Identifier: Apache-2.0 */
/* Resizing with a triangle filter, columns then rows. An output pixel is a weighted mean of the input pixels under a triangle around
 * its centre; the triangle is one input pixel wide on each side when growing (bilinear) and one output pixel when shrinking, so that
 * every input pixel counts. Weights are rounded to fixed point, so that sums are exact and the same everywhere. */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "image.h"

/* Weights add up to 2^22, give or take half a unit each, and a byte is below 2^8: sums stay below 2^31. */
enum { WEIGHT_BITS = 22, HALF = 1 << (WEIGHT_BITS - 1) };

/* For each output position: where its input begins, how many pixels it takes, and their weights. */
typedef struct filter {
    int32_t *first, *count;
    int32_t *weight; /* [n, most] */
    size_t most;
} filter;

static void filter_free(filter *f) {
    free(f->first);
    free(f->count);
    free(f->weight);
}

/* On failure *f holds what there is to free, too. */
static int filter_new(int32_t from, int32_t to, filter *f, io_error *error) {
    double scale = (double)from / to, wide = scale > 1.0 ? scale : 1.0;
    *f = (filter){ .most = (size_t)ceil(wide) * 2 + 1 };
    size_t n = (size_t)to, weights; /* at most 2^15 positions of 2^16 + 1 weights, never both */
    if (__builtin_mul_overflow(n * sizeof *f->weight, f->most, &weights)) return io_no_memory(error, "resizing", SIZE_MAX);
    f->first = malloc(n * sizeof *f->first);
    f->count = malloc(n * sizeof *f->count);
    f->weight = malloc(weights);
    double *exact = malloc(f->most * sizeof *exact);
    if (!f->first || !f->count || !f->weight || !exact) {
        free(exact);
        return io_no_memory(error, "resizing", weights);
    }
    for (int32_t i = 0; i < to; i++) {
        double centre = (i + 0.5) * scale, sum = 0.0;
        int32_t begin = (int32_t)fmax(centre - wide + 0.5, 0.0), end = (int32_t)fmin(centre + wide + 0.5, from);
        for (int32_t x = begin; x < end; x++) {
            double away = fabs((x - centre + 0.5) * (1.0 / wide));
            exact[x - begin] = away < 1.0 ? 1.0 - away : 0.0;
            sum += exact[x - begin];
        }
        f->first[i] = begin;
        f->count[i] = end - begin;
        int32_t *weight = f->weight + (size_t)i * f->most;
        for (int32_t k = 0; k < end - begin; k++) weight[k] = (int32_t)(exact[k] / sum * (1 << WEIGHT_BITS) + 0.5);
    }
    free(exact);
    return IO_OK;
}

static uint8_t rounded(int32_t sum) {
    sum >>= WEIGHT_BITS;
    return (uint8_t)(sum > 255 ? 255 : sum);
}

/* Along a row the neighbours of a value are `channels` apart. */
static void filter_rows(const image *in, const filter *f, image *out) {
    size_t channels = (size_t)in->channels, in_row = (size_t)in->width * channels;
    uint8_t *to = out->pixels;
    for (size_t y = 0; y < (size_t)out->height; y++) {
        for (size_t x = 0; x < (size_t)out->width; x++) {
            const uint8_t *from = in->pixels + y * in_row + (size_t)f->first[x] * channels;
            const int32_t *weight = f->weight + x * f->most;
            for (size_t c = 0; c < channels; c++) {
                int32_t sum = HALF;
                for (size_t k = 0; k < (size_t)f->count[x]; k++) sum += from[k * channels + c] * weight[k];
                *to++ = rounded(sum);
            }
        }
    }
}

/* Down the columns whole rows are added up, in `sums`, so that memory is read in its order. */
static void filter_columns(const image *in, const filter *f, int32_t *sums, image *out) {
    size_t row = (size_t)in->width * (size_t)in->channels;
    for (size_t y = 0; y < (size_t)out->height; y++) {
        for (size_t x = 0; x < row; x++) sums[x] = HALF;
        for (size_t k = 0; k < (size_t)f->count[y]; k++) {
            const uint8_t *from = in->pixels + ((size_t)f->first[y] + k) * row;
            int32_t weight = f->weight[y * f->most + k];
            for (size_t x = 0; x < row; x++) sums[x] += from[x] * weight;
        }
        for (size_t x = 0; x < row; x++) out->pixels[y * row + x] = rounded(sums[x]);
    }
}

/* One axis; the other keeps its extent. */
static int resize_axis(const image *in, bool along_rows, int32_t extent, image *out, io_error *error) {
    filter f = { 0 };
    int32_t *sums = NULL;
    int failed = image_new(along_rows ? extent : in->width, along_rows ? in->height : extent, in->channels, out, error);
    if (!failed) failed = filter_new(along_rows ? in->width : in->height, extent, &f, error);
    if (!failed && !along_rows) {
        size_t row = (size_t)in->width * (size_t)in->channels; /* at most 2^15 * 3 */
        sums = malloc(row * sizeof *sums);
        if (!sums) failed = io_no_memory(error, "resizing", row * sizeof *sums);
    }
    if (failed)
        image_free(out);
    else if (along_rows)
        filter_rows(in, &f, out);
    else
        filter_columns(in, &f, sums, out);
    free(sums);
    filter_free(&f);
    return failed;
}

int image_resize(const image *in, int32_t width, int32_t height, image *out, io_error *error) {
    *out = (image){ 0 };
    if (width < 1 || height < 1 || width > IMAGE_MAX_SIDE || height > IMAGE_MAX_SIDE)
        return io_fail(error, IO_BAD_DATA, "cannot resize to %dx%d pixels", width, height);
    if (width == in->width && height == in->height) return image_with_channels(in, in->channels, out, error);
    if (height == in->height) return resize_axis(in, true, width, out, error);
    if (width == in->width) return resize_axis(in, false, height, out, error);
    image between;
    int failed = resize_axis(in, true, width, &between, error);
    if (failed) return failed;
    failed = resize_axis(&between, false, height, out, error);
    image_free(&between);
    return failed;
}
