/* SPDX-License-Identifier: Apache-2.0 */
/* PNG through libpng, from memory and to memory. libpng reports failure by longjmp: what lives across it is in one struct, and the
 * functions that libpng may leave that way allocate nothing of their own. */
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <png.h>

#include "image_codec.h"

/* Memory that one chunk of text, profile and the like may take, and how many of them are kept. */
enum { MAX_CHUNK = 1 << 20, MAX_CHUNKS = 64 };

typedef struct png_job {
    png_structp png;
    png_infop info;
    jmp_buf failed;
    char why[96];
    const char *name;
    io_error *error;

    const unsigned char *bytes; /* decoding: the file */
    size_t size, at;
    uint8_t *pixels; /* decoding: what libpng fills in, with its alpha channel */
    png_bytep *rows;

    unsigned char *out; /* encoding: the file as it grows */
    size_t out_size, out_room;
} png_job;

bool image_is_png(const void *bytes, size_t size) { return size >= 8 && !png_sig_cmp(bytes, 0, 8); }

static void on_error(png_structp png, png_const_charp why) {
    png_job *job = png_get_error_ptr(png);
    strncpy(job->why, why, sizeof job->why - 1);
    longjmp(job->failed, 1);
}

static void on_warning(png_structp png, png_const_charp why) { (void)png, (void)why; }

/* ---- decoding --------------------------------------------------------------------------------------------- */

static void read_bytes(png_structp png, png_bytep to, size_t n) {
    png_job *job = png_get_io_ptr(png);
    if (n > job->size - job->at) png_error(png, "the file ends too early");
    memcpy(to, job->bytes + job->at, n);
    job->at += n;
}

static int read_header(png_job *job) {
    job->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, job, on_error, on_warning);
    if (job->png) job->info = png_create_info_struct(job->png);
    if (!job->info) return io_no_memory(job->error, job->name, sizeof(png_job));
    if (setjmp(job->failed)) return io_fail(job->error, IO_BAD_DATA, "%s: not a valid PNG: %s", job->name, job->why);
    png_set_user_limits(job->png, PNG_UINT_31_MAX, PNG_UINT_31_MAX); /* image_check_size has the smaller ones, and says them */
    png_set_chunk_malloc_max(job->png, MAX_CHUNK);
    png_set_chunk_cache_max(job->png, MAX_CHUNKS);
    png_set_read_fn(job->png, job, read_bytes);
    png_read_info(job->png, job->info);
    return IO_OK;
}

/* Any kind of PNG to 8 bits of gray or RGB, with or without alpha. */
static int set_transforms(png_job *job) {
    if (setjmp(job->failed)) return io_fail(job->error, IO_BAD_DATA, "%s: not a valid PNG: %s", job->name, job->why);
    png_set_expand(job->png);   /* palette to RGB, gray of 1, 2, 4 bits to 8, tRNS to alpha */
    png_set_scale_16(job->png); /* 65535 is 255, rounded */
    png_set_interlace_handling(job->png);
    png_read_update_info(job->png, job->info);
    return IO_OK;
}

static int read_rows(png_job *job) {
    size_t height = png_get_image_height(job->png, job->info), row = png_get_rowbytes(job->png, job->info), size;
    if (__builtin_mul_overflow(height, row, &size)) return io_no_memory(job->error, job->name, SIZE_MAX);
    job->pixels = malloc(size);
    job->rows = malloc(height * sizeof *job->rows);
    if (!job->pixels || !job->rows) return io_no_memory(job->error, job->name, size);
    for (size_t y = 0; y < height; y++) job->rows[y] = job->pixels + y * row;
    if (setjmp(job->failed)) return io_fail(job->error, IO_BAD_DATA, "%s: not a valid PNG: %s", job->name, job->why);
    png_read_image(job->png, job->rows);
    png_read_end(job->png, NULL);
    return IO_OK;
}

/* value over white, in the bytes' own space: (value * alpha + 255 * (255 - alpha)) / 255, rounded. */
static uint8_t over_white(unsigned value, unsigned alpha) {
    return (uint8_t)((value * alpha + 255u * (255u - alpha) + 127u) / 255u);
}

static int take_pixels(const png_job *job, image *out) {
    int32_t width = (int32_t)png_get_image_width(job->png, job->info),
            height = (int32_t)png_get_image_height(job->png, job->info);
    unsigned samples = png_get_channels(job->png, job->info), channels = samples < 3 ? 1 : 3;
    int failed = image_new(width, height, (int32_t)channels, out, job->error);
    if (failed) return failed;
    size_t n = (size_t)width * (size_t)height;
    if (samples == channels) {
        memcpy(out->pixels, job->pixels, n * channels);
        return IO_OK;
    }
    for (size_t i = 0; i < n; i++) {
        const uint8_t *from = job->pixels + i * samples;
        for (unsigned c = 0; c < channels; c++) out->pixels[i * channels + c] = over_white(from[c], from[channels]);
    }
    return IO_OK;
}

int image_decode_png(const void *bytes, size_t size, const char *name, image *out, io_error *error) {
    png_job job = { .bytes = bytes, .size = size, .name = name, .error = error };
    int failed = read_header(&job);
    if (!failed)
        failed = image_check_size(png_get_image_width(job.png, job.info), png_get_image_height(job.png, job.info), name, error);
    if (!failed) failed = set_transforms(&job);
    if (!failed) failed = read_rows(&job);
    if (!failed) failed = take_pixels(&job, out);
    png_destroy_read_struct(&job.png, &job.info, NULL);
    free(job.rows);
    free(job.pixels);
    return failed;
}

/* ---- encoding --------------------------------------------------------------------------------------------- */

static void write_bytes(png_structp png, png_bytep from, size_t n) {
    png_job *job = png_get_io_ptr(png);
    size_t need;
    if (__builtin_add_overflow(job->out_size, n, &need)) png_error(png, "the file grows too large");
    if (need > job->out_room) {
        size_t room = need > SIZE_MAX / 2 ? need : need * 2;
        unsigned char *grown = realloc(job->out, room);
        if (!grown) png_error(png, "out of memory");
        job->out = grown;
        job->out_room = room;
    }
    memcpy(job->out + job->out_size, from, n);
    job->out_size = need;
}

static void flush_nothing(png_structp png) { (void)png; }

static int write_all(png_job *job, const image *in) {
    job->png = png_create_write_struct(PNG_LIBPNG_VER_STRING, job, on_error, on_warning);
    if (job->png) job->info = png_create_info_struct(job->png);
    if (!job->info) return io_no_memory(job->error, "a PNG", sizeof(png_job));
    /* Encoding our own pixels fails only for want of memory. */
    if (setjmp(job->failed)) return io_no_memory(job->error, "a PNG", job->out_room);
    png_set_write_fn(job->png, job, write_bytes, flush_nothing);
    png_set_IHDR(job->png, job->info, (png_uint_32)in->width, (png_uint_32)in->height, 8,
                 in->channels == 3 ? PNG_COLOR_TYPE_RGB : PNG_COLOR_TYPE_GRAY, PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
                 PNG_FILTER_TYPE_DEFAULT);
    png_set_compression_level(job->png, 6);
    png_write_info(job->png, job->info);
    size_t row = (size_t)in->width * (size_t)in->channels;
    for (size_t y = 0; y < (size_t)in->height; y++) png_write_row(job->png, in->pixels + y * row);
    png_write_end(job->png, NULL);
    return IO_OK;
}

int image_encode_png(const image *in, void **bytes, size_t *size, io_error *error) {
    png_job job = { .name = "a PNG", .error = error };
    int failed = write_all(&job, in);
    png_destroy_write_struct(&job.png, &job.info);
    if (failed) free(job.out), job.out = NULL, job.out_size = 0;
    *bytes = job.out;
    *size = job.out_size;
    return failed;
}
