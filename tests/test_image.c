/* SPDX-License-Identifier: Apache-2.0 */
/* needs: models */
/* Pictures: every kind of PNG and JPEG comes out as 8-bit gray or RGB, bad ones are refused, resizing has known answers, folders are
 * listed in order. */
#define _XOPEN_SOURCE 700
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdbool.h>
#include <stdio.h>
#include <jpeglib.h>
#include <png.h>

#include "io/image.h"
#include "io/image_set.h"
#include "tests/scratch.h"

/* ---- files made here ---------------------------------------------------------------------------------------- */

typedef struct bytes {
    unsigned char data[65536];
    size_t size;
} bytes;

static void keep(png_structp png, png_bytep from, size_t n) {
    bytes *out = png_get_io_ptr(png);
    assert_true(n <= sizeof out->data - out->size);
    memcpy(out->data + out->size, from, n);
    out->size += n;
}

static void flush_nothing(png_structp png) { (void)png; }

typedef struct kind {
    int type, bits, interlace;
    bool transparent; /* a tRNS chunk: the first palette entry, gray 0, or black */
} kind;

/* A PNG of any kind; `samples` as PNG packs them, `row` bytes a row. */
static bytes png_of(kind k, unsigned width, unsigned height, const unsigned char *samples, size_t row) {
    bytes out = { .size = 0 };
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    png_set_write_fn(png, &out, keep, flush_nothing);
    png_set_IHDR(png, info, width, height, k.bits, k.type, k.interlace, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    if (k.type == PNG_COLOR_TYPE_PALETTE) {
        const png_color palette[] = { { 10, 20, 30 }, { 200, 100, 0 } };
        png_set_PLTE(png, info, palette, 2);
    }
    png_color_16 black = { 0 };
    const png_byte first = 0;
    if (k.transparent) png_set_tRNS(png, info, &first, 1, &black);
    png_write_info(png, info);
    png_bytep rows[64];
    for (unsigned y = 0; y < height; y++) rows[y] = (png_bytep)samples + y * row;
    png_write_image(png, rows);
    png_write_end(png, NULL);
    png_destroy_write_struct(&png, &info);
    return out;
}

/* A JPEG of one colour. */
static bytes jpeg_of(J_COLOR_SPACE space, int channels, int side, const unsigned char *colour, bool progressive) {
    bytes out;
    struct jpeg_compress_struct jpeg;
    struct jpeg_error_mgr errors;
    unsigned char *memory = NULL, row[64 * 4];
    unsigned long size = 0;
    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_compress(&jpeg);
    jpeg_mem_dest(&jpeg, &memory, &size);
    jpeg.image_width = jpeg.image_height = (JDIMENSION)side;
    jpeg.input_components = channels;
    jpeg.in_color_space = space;
    jpeg_set_defaults(&jpeg);
    jpeg_set_quality(&jpeg, 95, TRUE);
    if (progressive) jpeg_simple_progression(&jpeg);
    jpeg_start_compress(&jpeg, TRUE);
    for (int i = 0; i < side * channels; i++) row[i] = colour[i % channels];
    JSAMPROW line = row;
    while (jpeg.next_scanline < jpeg.image_height) jpeg_write_scanlines(&jpeg, &line, 1);
    jpeg_finish_compress(&jpeg);
    assert_true(size <= sizeof out.data);
    memcpy(out.data, memory, size);
    out.size = size;
    jpeg_destroy_compress(&jpeg);
    free(memory);
    return out;
}

static image decoded(const bytes *file) {
    image i;
    io_error error = { 0 };
    if (image_decode(file->data, file->size, "a", &i, &error)) fail_msg("%s", error.message);
    return i;
}

static void bad(const void *data, size_t size, const char *part) {
    image i;
    io_error error = { 0 };
    unsigned char *exact = malloc(size ? size : 1); /* so that a sanitizer sees a read behind it */
    memcpy(exact, data, size);
    int failed = image_decode(exact, size, "a", &i, &error);
    free(exact);
    assert_failure(failed, error, IO_BAD_DATA, part);
    assert_null(i.pixels);
}

static void is_picture(const image *i, int width, int height, int channels, const unsigned char *pixels) {
    assert_int_equal(i->width, width);
    assert_int_equal(i->height, height);
    assert_int_equal(i->channels, channels);
    assert_memory_equal(i->pixels, pixels, (size_t)(width * height * channels));
}

/* ---- PNG ------------------------------------------------------------------------------------------------------ */

static void png_gray_of_every_depth_becomes_8_bits(void **state) {
    (void)state;
    static const struct {
        int bits;
        unsigned char row[8], pixels[4];
    } cases[] = { { 1, { 0x50 }, { 0, 255, 0, 255 } },
                  { 2, { 0x1b }, { 0, 85, 170, 255 } },
                  { 4, { 0x0f, 0x1e }, { 0, 255, 17, 238 } },
                  { 8, { 0, 1, 128, 255 }, { 0, 1, 128, 255 } },
                  { 16, { 0, 0, 0, 200, 128, 0, 255, 255 }, { 0, 1, 128, 255 } } };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        bytes file = png_of((kind){ PNG_COLOR_TYPE_GRAY, cases[c].bits, 0, false }, 4, 1, cases[c].row, 8);
        image i = decoded(&file);
        is_picture(&i, 4, 1, 1, cases[c].pixels);
        image_free(&i);
    }
}

static void png_rgb_and_palette_become_rgb(void **state) {
    (void)state;
    static const unsigned char rgb[] = { 1, 2, 3, 250, 251, 252 }, wide[] = { 1, 1, 2, 2, 3, 3, 250, 250, 251, 251, 252, 252 };
    static const unsigned char coloured[] = { 200, 100, 0, 10, 20, 30 };
    bytes file = png_of((kind){ PNG_COLOR_TYPE_RGB, 8, 0, false }, 2, 1, rgb, 6);
    image i = decoded(&file);
    is_picture(&i, 2, 1, 3, rgb);
    image_free(&i);
    file = png_of((kind){ PNG_COLOR_TYPE_RGB, 16, 0, false }, 2, 1, wide, 12);
    i = decoded(&file);
    is_picture(&i, 2, 1, 3, rgb);
    image_free(&i);
    file = png_of((kind){ PNG_COLOR_TYPE_PALETTE, 1, 0, false }, 2, 1, (const unsigned char *)"\x80", 1);
    i = decoded(&file);
    is_picture(&i, 2, 1, 3, coloured);
    image_free(&i);
}

static void png_transparency_is_laid_over_white(void **state) {
    (void)state;
    static const unsigned char gray[] = { 100, 255, 100, 0, 0, 128 }, gray_over[] = { 100, 255, 127 };
    bytes file = png_of((kind){ PNG_COLOR_TYPE_GRAY_ALPHA, 8, 0, false }, 3, 1, gray, 6);
    image i = decoded(&file);
    is_picture(&i, 3, 1, 1, gray_over);
    image_free(&i);
    static const unsigned char rgba[] = { 10, 20, 30, 255, 10, 20, 30, 0, 0, 255, 51, 51 };
    static const unsigned char rgb[] = { 10, 20, 30, 255, 255, 255, 204, 255, 214 };
    file = png_of((kind){ PNG_COLOR_TYPE_RGB_ALPHA, 8, 0, false }, 3, 1, rgba, 12);
    i = decoded(&file);
    is_picture(&i, 3, 1, 3, rgb);
    image_free(&i);
}

static void png_transparent_colour_is_laid_over_white(void **state) {
    (void)state;
    static const unsigned char over[] = { 200, 100, 0, 255, 255, 255 };
    bytes file = png_of((kind){ PNG_COLOR_TYPE_PALETTE, 1, 0, true }, 2, 1, (const unsigned char *)"\x80", 1);
    image i = decoded(&file);
    is_picture(&i, 2, 1, 3, over);
    image_free(&i);
    file = png_of((kind){ PNG_COLOR_TYPE_GRAY, 8, 0, true }, 2, 1, (const unsigned char *)"\x00\x07", 2);
    i = decoded(&file);
    is_picture(&i, 2, 1, 1, (const unsigned char *)"\xff\x07");
    image_free(&i);
}

static void png_interlaced_gives_the_same_pixels(void **state) {
    (void)state;
    unsigned char pixels[9 * 11];
    for (size_t p = 0; p < sizeof pixels; p++) pixels[p] = (unsigned char)(p * 37);
    bytes file = png_of((kind){ PNG_COLOR_TYPE_GRAY, 8, PNG_INTERLACE_ADAM7, false }, 9, 11, pixels, 9);
    image i = decoded(&file);
    is_picture(&i, 9, 11, 1, pixels);
    image_free(&i);
}

static void png_written_is_read_back_and_always_the_same_bytes(void **state) {
    (void)state;
    for (int channels = 1; channels <= 3; channels += 2) {
        image out, in;
        io_error error = { 0 };
        assert_int_equal(image_new(13, 7, channels, &out, &error), IO_OK);
        for (int p = 0; p < 13 * 7 * channels; p++) out.pixels[p] = (uint8_t)(p * p);
        void *first, *second;
        size_t n, m;
        assert_int_equal(image_encode_png(&out, &first, &n, &error), IO_OK);
        assert_int_equal(image_encode_png(&out, &second, &m, &error), IO_OK);
        assert_int_equal(n, m);
        assert_memory_equal(first, second, n);
        assert_int_equal(image_write_png(in_scratch("out.png"), &out, &error), IO_OK);
        assert_int_equal(image_read(in_scratch("out.png"), &in, &error), IO_OK);
        is_picture(&in, 13, 7, channels, out.pixels);
        image_free(&in);
        image_free(&out);
        free(first);
        free(second);
    }
}

static void png_every_prefix_is_refused(void **state) {
    (void)state;
    unsigned char pixels[20 * 20];
    for (size_t p = 0; p < sizeof pixels; p++) pixels[p] = (unsigned char)(p * p);
    bytes file = png_of((kind){ PNG_COLOR_TYPE_GRAY, 8, PNG_INTERLACE_ADAM7, false }, 20, 20, pixels, 20);
    for (size_t n = 0; n < file.size; n++) bad(file.data, n, n < 8 ? "neither PNG nor JPEG" : "not a valid PNG");
}

static void png_damaged_data_is_refused(void **state) {
    (void)state;
    bytes file = png_of((kind){ PNG_COLOR_TYPE_GRAY, 8, 0, false }, 4, 1, (const unsigned char *)"abcd", 4);
    file.data[file.size - 14] ^= 1; /* the checksum of the pixels */
    bad(file.data, file.size, "not a valid PNG");
}

/* A header alone, with its right checksum: what it declares must be refused before the pixels are asked for. */
static void declares(unsigned width, unsigned height, const char *part) {
    unsigned char head[33] = "\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
    for (int i = 0; i < 4; i++) {
        head[16 + i] = (unsigned char)(width >> (24 - 8 * i));
        head[20 + i] = (unsigned char)(height >> (24 - 8 * i));
    }
    head[24] = 8;
    uint32_t crc = 0xffffffff;
    for (int i = 12; i < 29; i++) {
        crc ^= head[i];
        for (int k = 0; k < 8; k++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
    }
    for (int i = 0; i < 4; i++) head[29 + i] = (unsigned char)(~crc >> (24 - 8 * i));
    unsigned char file[33 + 12] = { 0 };
    memcpy(file, head, 33);
    memcpy(file + 33, "\0\0\0\0IDAT\x35\xaf\x06\x1e", 12);
    bad(file, sizeof file, part);
}

static void png_sizes_beyond_the_limits_are_refused(void **state) {
    (void)state;
    declares(4, 4, "ends too early");
    declares(0, 4, "not a valid PNG");
    declares(40000, 1, "a picture of 40000x1 pixels; at most");
    declares(0x7fffffff, 0x7fffffff, "a picture of 2147483647x2147483647 pixels; at most");
    declares(0x80000001, 1, "not a valid PNG");
    declares(32768, 32768, "a picture of 32768x32768 pixels; at most");
}

/* ---- JPEG ------------------------------------------------------------------------------------------------------- */

static void jpeg_gray_and_colour_are_read(void **state) {
    (void)state;
    static const unsigned char gray[] = { 77 }, orange[] = { 240, 120, 30 };
    bytes file = jpeg_of(JCS_GRAYSCALE, 1, 20, gray, false);
    image i = decoded(&file);
    assert_int_equal(i.channels, 1);
    for (int p = 0; p < 400; p++) assert_in_range(i.pixels[p], 76, 78);
    image_free(&i);
    for (int progressive = 0; progressive < 2; progressive++) {
        file = jpeg_of(JCS_RGB, 3, 20, orange, progressive);
        i = decoded(&file);
        assert_int_equal(i.channels, 3);
        assert_int_equal(i.width, 20);
        for (int p = 0; p < 1200; p++) assert_in_range(i.pixels[p], orange[p % 3] - 2, orange[p % 3] + 2);
        image_free(&i);
    }
}

static void jpeg_for_printing_is_refused_by_name(void **state) {
    (void)state;
    static const unsigned char ink[] = { 1, 2, 3, 4 };
    bytes file = jpeg_of(JCS_CMYK, 4, 20, ink, false);
    bad(file.data, file.size, "CMYK");
}

static void jpeg_every_prefix_is_refused(void **state) {
    (void)state;
    static const unsigned char colour[] = { 240, 120, 30 };
    for (int progressive = 0; progressive < 2; progressive++) {
        bytes file = jpeg_of(JCS_RGB, 3, 20, colour, progressive);
        for (size_t n = 0; n < file.size; n++) bad(file.data, n, n < 3 ? "neither PNG nor JPEG" : "not a valid JPEG");
    }
}

static void jpeg_with_endless_scans_is_refused(void **state) {
    (void)state;
    static const unsigned char gray[] = { 77 };
    bytes file = jpeg_of(JCS_GRAYSCALE, 1, 16, gray, true), many = { .size = 0 };
    /* The last scan of the file, once more and again: "start of scan" to "end of image". */
    size_t scan = file.size - 4;
    while (file.data[scan] != 0xff || file.data[scan + 1] != 0xda) scan--;
    size_t n = file.size - 2 - scan;
    memcpy(many.data, file.data, file.size - 2);
    many.size = file.size - 2;
    for (int i = 0; i < 100; i++) {
        memcpy(many.data + many.size, file.data + scan, n);
        many.size += n;
    }
    memcpy(many.data + many.size, "\xff\xd9", 2);
    many.size += 2;
    bad(many.data, many.size, "more than 64 scans");
}

static void jpeg_sizes_beyond_the_limits_are_refused(void **state) {
    (void)state;
    static const unsigned char gray[] = { 77 };
    bytes file = jpeg_of(JCS_GRAYSCALE, 1, 16, gray, false);
    size_t frame = 2;
    while (file.data[frame] != 0xff || file.data[frame + 1] != 0xc0) frame++;
    memset(file.data + frame + 5, 0xff, 4);
    bad(file.data, file.size, "not a valid JPEG: Maximum supported image dimension");
    memcpy(file.data + frame + 5, "\x80\0\x80\0", 4);
    bad(file.data, file.size, "a picture of 32768x32768 pixels; at most");
}

static void other_files_are_neither(void **state) {
    (void)state;
    bad("GIF89a", 6, "neither PNG nor JPEG");
    bad("", 0, "neither PNG nor JPEG");
    image i;
    io_error error = { 0 };
    int failed = image_read(in_scratch("missing.png"), &i, &error);
    assert_failure(failed, error, IO_BAD_DATA, "missing.png");
}

/* ---- resizing and channels ---------------------------------------------------------------------------------------- */

static void resized_is(image in, int width, int height, const unsigned char *pixels) {
    image out;
    io_error error = { 0 };
    assert_int_equal(image_resize(&in, width, height, &out, &error), IO_OK);
    is_picture(&out, width, height, in.channels, pixels);
    image_free(&out);
}

static void shrinking_averages_under_the_widened_triangle(void **state) {
    (void)state;
    /* Output 0 has its centre at 1 and weights .75 .75 .25, so 255 * .25 / 1.75 = 36.4. */
    static unsigned char step[] = { 0, 0, 255, 255 };
    static const unsigned char halves[] = { 36, 219 };
    resized_is((image){ 4, 1, 1, step }, 2, 1, halves);
    resized_is((image){ 1, 4, 1, step }, 1, 2, halves);
    static unsigned char four[] = { 10, 20, 30, 40 };
    resized_is((image){ 2, 2, 1, four }, 1, 1, (const unsigned char[]){ 25 });
}

static void growing_is_bilinear(void **state) {
    (void)state;
    static unsigned char two[] = { 0, 255 };
    static const unsigned char four[] = { 0, 64, 191, 255 };
    resized_is((image){ 2, 1, 1, two }, 4, 1, four);
    resized_is((image){ 1, 2, 1, two }, 1, 4, four);
}

static void channels_are_resized_apart(void **state) {
    (void)state;
    static unsigned char rgb[] = { 0, 10, 20, 255, 30, 40 };
    static const unsigned char mean[] = { 128, 20, 30 };
    resized_is((image){ 2, 1, 3, rgb }, 1, 1, mean);
}

static void one_colour_stays_that_colour_at_any_size(void **state) {
    (void)state;
    image in, out;
    io_error error = { 0 };
    for (int value = 0; value <= 255; value += 51) {
        assert_int_equal(image_new(17, 23, 1, &in, &error), IO_OK);
        memset(in.pixels, value, 17 * 23);
        for (int side = 1; side < 60; side += 7) {
            assert_int_equal(image_resize(&in, side, 61 - side, &out, &error), IO_OK);
            for (int p = 0; p < side * (61 - side); p++) assert_int_equal(out.pixels[p], value);
            image_free(&out);
        }
        image_free(&in);
    }
}

static void resizing_to_the_same_size_copies(void **state) {
    (void)state;
    static unsigned char four[] = { 10, 20, 30, 40 };
    resized_is((image){ 2, 2, 1, four }, 2, 2, four);
}

static void sizes_that_cannot_be_are_refused(void **state) {
    (void)state;
    static unsigned char four[] = { 10, 20, 30, 40 };
    image in = { 2, 2, 1, four }, out;
    io_error error = { 0 };
    static const int sizes[][2] = { { 0, 1 }, { 1, -1 }, { IMAGE_MAX_SIDE + 1, 1 }, { IMAGE_MAX_SIDE, IMAGE_MAX_SIDE } };
    for (size_t i = 0; i < 4; i++) {
        int failed = image_resize(&in, sizes[i][0], sizes[i][1], &out, &error);
        assert_failure(failed, error, IO_BAD_DATA, "pixels");
        assert_null(out.pixels);
    }
    int failed = image_new(1, 1, 2, &out, &error);
    assert_failure(failed, error, IO_BAD_DATA, "2 channels");
}

static void gray_is_the_weighted_sum_and_rgb_repeats(void **state) {
    (void)state;
    static unsigned char rgb[] = { 255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255 };
    static const unsigned char gray[] = { 76, 150, 29, 255 };
    image in = { 4, 1, 3, rgb }, out, back;
    io_error error = { 0 };
    assert_int_equal(image_with_channels(&in, 1, &out, &error), IO_OK);
    is_picture(&out, 4, 1, 1, gray);
    assert_int_equal(image_with_channels(&out, 3, &back, &error), IO_OK);
    for (int p = 0; p < 12; p++) assert_int_equal(back.pixels[p], gray[p / 3]);
    image_free(&out);
    image_free(&back);
}

/* ---- folders -------------------------------------------------------------------------------------------------------- */

static void write_gray(const char *name, int width, int height, int value) {
    image i;
    assert_int_equal(image_new(width, height, 1, &i, NULL), IO_OK);
    memset(i.pixels, value, (size_t)(width * height));
    assert_int_equal(image_write_png(in_scratch(name), &i, NULL), IO_OK);
    image_free(&i);
}

static void folder_is_listed_by_class_and_name(void **state) {
    (void)state;
    static const char *const folders[] = { "list", "list/b", "list/a", "list/empty", "list/.hidden", "list/b/c.png" };
    for (size_t i = 0; i < 6; i++) mkdir(in_scratch(folders[i]), 0700);
    static const char *const files[] = { "list/b/2.PNG",  "list/b/10.jpeg",     "list/b/note.txt", "list/a/z.jpg",
                                         "list/a/.x.png", "list/.hidden/a.png", "list/top.png",    "list/empty/readme" };
    for (size_t i = 0; i < 8; i++) write_scratch(files[i], "x", 1);
    image_folder f;
    io_error error = { 0 };
    assert_int_equal(image_folder_list(in_scratch("list"), &f, &error), IO_OK);
    assert_int_equal(f.n_labels, 2);
    assert_string_equal(f.labels[0], "a");
    assert_string_equal(f.labels[1], "b");
    assert_int_equal(f.n_files, 3);
    assert_string_equal(f.files[0].path, in_scratch("list/a/z.jpg"));
    assert_string_equal(f.files[1].path, in_scratch("list/b/10.jpeg"));
    assert_string_equal(f.files[2].path, in_scratch("list/b/2.PNG"));
    assert_int_equal(f.files[0].label, 0);
    assert_int_equal(f.files[2].label, 1);
    assert_int_equal(f.n_other, 3); /* note.txt, the folder c.png, readme */
    image_folder_free(&f);
}

static void folder_without_pictures_is_refused(void **state) {
    (void)state;
    image_folder f;
    io_error error = { 0 };
    mkdir(in_scratch("none"), 0700);
    int failed = image_folder_list(in_scratch("none"), &f, &error);
    assert_failure(failed, error, IO_BAD_DATA, "holds no pictures");
    failed = image_folder_list(in_scratch("missing"), &f, &error);
    assert_failure(failed, error, IO_BAD_DATA, "cannot open the folder");
}

static void set_from_a_folder_has_one_size_and_reports_what_it_cannot_read(void **state) {
    (void)state;
    mkdir(in_scratch("set"), 0700);
    mkdir(in_scratch("set/cat"), 0700);
    mkdir(in_scratch("set/dog"), 0700);
    write_scratch("set/cat/0.png", "no picture", 10);
    write_gray("set/cat/1.png", 4, 6, 50);
    write_gray("set/dog/1.png", 8, 3, 200);
    image_set s;
    io_error error = { 0 };
    assert_int_equal(image_set_read(in_scratch("set"), NULL, &s, &error), IO_OK);
    assert_int_equal(s.n, 2);
    assert_int_equal(s.width, 4);
    assert_int_equal(s.height, 6);
    assert_int_equal(s.channels, 1);
    assert_int_equal(s.pixels[0], 50);
    assert_int_equal(s.pixels[24], 200);
    assert_int_equal(s.labels[0], 0);
    assert_int_equal(s.labels[1], 1);
    assert_string_equal(s.label_names[1], "dog");
    assert_string_equal(s.names[1], in_scratch("set/dog/1.png"));
    assert_int_equal(s.n_unreadable, 1);
    assert_non_null(strstr(s.first_unreadable, "cat/0.png is neither PNG nor JPEG"));
    image_set_free(&s);

    static const unsigned char orange[] = { 240, 120, 30 };
    bytes jpeg = jpeg_of(JCS_RGB, 3, 20, orange, false);
    write_scratch("set/dog/2.jpg", jpeg.data, jpeg.size);
    assert_int_equal(image_set_read(in_scratch("set"), &(image_set_options){ .width = 5, .height = 5 }, &s, &error), IO_OK);
    assert_int_equal(s.n, 3);
    assert_int_equal(s.width, 5);
    assert_int_equal(s.channels, 3);
    assert_int_equal(s.pixels[0], 50);
    assert_in_range(s.pixels[2 * 75], 238, 242);
    image_set_free(&s);
}

static void set_without_one_readable_picture_is_refused(void **state) {
    (void)state;
    mkdir(in_scratch("noise"), 0700);
    mkdir(in_scratch("noise/a"), 0700);
    write_scratch("noise/a/0.png", "x", 1);
    image_set s;
    io_error error = { 0 };
    int failed = image_set_read(in_scratch("noise"), NULL, &s, &error);
    assert_failure(failed, error, IO_BAD_DATA, "none of its 1 pictures can be read");
    failed = image_set_read(in_scratch("noise"), &(image_set_options){ .channels = 2 }, &s, &error);
    assert_failure(failed, error, IO_BAD_USAGE, "2 channels");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(png_gray_of_every_depth_becomes_8_bits),
        cmocka_unit_test(png_rgb_and_palette_become_rgb),
        cmocka_unit_test(png_transparency_is_laid_over_white),
        cmocka_unit_test(png_transparent_colour_is_laid_over_white),
        cmocka_unit_test(png_interlaced_gives_the_same_pixels),
        cmocka_unit_test(png_written_is_read_back_and_always_the_same_bytes),
        cmocka_unit_test(png_every_prefix_is_refused),
        cmocka_unit_test(png_damaged_data_is_refused),
        cmocka_unit_test(png_sizes_beyond_the_limits_are_refused),
        cmocka_unit_test(jpeg_gray_and_colour_are_read),
        cmocka_unit_test(jpeg_for_printing_is_refused_by_name),
        cmocka_unit_test(jpeg_every_prefix_is_refused),
        cmocka_unit_test(jpeg_with_endless_scans_is_refused),
        cmocka_unit_test(jpeg_sizes_beyond_the_limits_are_refused),
        cmocka_unit_test(other_files_are_neither),
        cmocka_unit_test(shrinking_averages_under_the_widened_triangle),
        cmocka_unit_test(growing_is_bilinear),
        cmocka_unit_test(channels_are_resized_apart),
        cmocka_unit_test(one_colour_stays_that_colour_at_any_size),
        cmocka_unit_test(resizing_to_the_same_size_copies),
        cmocka_unit_test(sizes_that_cannot_be_are_refused),
        cmocka_unit_test(gray_is_the_weighted_sum_and_rgb_repeats),
        cmocka_unit_test(folder_is_listed_by_class_and_name),
        cmocka_unit_test(folder_without_pictures_is_refused),
        cmocka_unit_test(set_from_a_folder_has_one_size_and_reports_what_it_cannot_read),
        cmocka_unit_test(set_without_one_readable_picture_is_refused),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
