/* SPDX-License-Identifier: Apache-2.0 */
/* needs: models */
/* IDX files: plain and gzip, every way in which a header can lie, the files beside a file; and what a data argument is taken for. */
#define _XOPEN_SOURCE 700
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <zlib.h>

#include "io/data.h"
#include "io/idx.h"
#include "io/image_set.h"
#include "tests/scratch.h"

/* Two pictures of 3 rows and 2 columns, and their labels. */
static const unsigned char pictures[] = { 0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 };
static const unsigned char labels[] = { 0, 0, 8, 1, 0, 0, 0, 2, 4, 1 };

/* gzip of the bytes, in memory of its own. */
static unsigned char *zipped(const void *bytes, size_t size, size_t *out_size) {
    z_stream z = { 0 };
    size_t room = size + 1000;
    unsigned char *out = malloc(room);
    assert_non_null(out);
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 9, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (Bytef *)bytes;
    z.avail_in = (uInt)size;
    z.next_out = out;
    z.avail_out = (uInt)room;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    *out_size = z.total_out;
    deflateEnd(&z);
    return out;
}

static void bad(const void *bytes, size_t size, const char *part) {
    idx a;
    io_error error = { 0 };
    int failed = idx_parse(bytes, size, "a", &a, &error);
    assert_failure(failed, error, IO_BAD_DATA, part);
    assert_null(a.data);
}

/* The same header lie, plain and zipped. */
static void bad_both(const void *bytes, size_t size, const char *part) {
    size_t n;
    unsigned char *gzip = zipped(bytes, size, &n);
    bad(bytes, size, part);
    bad(gzip, n, part);
    free(gzip);
}

static void is_the_pictures(const idx *a) {
    assert_int_equal(a->rank, 3);
    assert_int_equal(a->shape[0], 2);
    assert_int_equal(a->shape[1], 3);
    assert_int_equal(a->shape[2], 2);
    assert_int_equal(a->shape[3], 1);
    assert_int_equal(a->size, 12);
    assert_memory_equal(a->data, pictures + 16, 12);
}

static void plain_file_is_read(void **state) {
    (void)state;
    idx a;
    assert_int_equal(idx_parse(pictures, sizeof pictures, "a", &a, NULL), IO_OK);
    is_the_pictures(&a);
    idx_free(&a);
}

static void gzip_is_known_by_its_magic_and_read(void **state) {
    (void)state;
    size_t n;
    unsigned char *gzip = zipped(pictures, sizeof pictures, &n);
    idx a;
    assert_int_equal(idx_parse(gzip, n, "a", &a, NULL), IO_OK);
    is_the_pictures(&a);
    idx_free(&a);
    free(gzip);
}

static void gzip_of_several_members_is_one_stream(void **state) {
    (void)state;
    size_t n, m;
    unsigned char *first = zipped(pictures, 10, &n), *second = zipped(pictures + 10, sizeof pictures - 10, &m), both[2100];
    memcpy(both, first, n);
    memcpy(both + n, second, m);
    idx a;
    assert_int_equal(idx_parse(both, n + m, "a", &a, NULL), IO_OK);
    is_the_pictures(&a);
    idx_free(&a);
    free(first);
    free(second);
}

static void no_elements_are_no_error(void **state) {
    (void)state;
    static const unsigned char none[] = { 0, 0, 8, 2, 0, 0, 0, 0, 255, 255, 255, 255 };
    idx a;
    assert_int_equal(idx_parse(none, sizeof none, "a", &a, NULL), IO_OK);
    assert_int_equal(a.size, 0);
    idx_free(&a);
}

static void every_prefix_is_refused(void **state) {
    (void)state;
    size_t n;
    unsigned char *gzip = zipped(pictures, sizeof pictures, &n);
    for (size_t i = 0; i < sizeof pictures; i++) {
        unsigned char *part = malloc(i + 1);
        memcpy(part, pictures, i);
        bad(part, i, "");
        free(part);
    }
    for (size_t i = 0; i < n; i++) {
        unsigned char *part = malloc(i + 1);
        memcpy(part, gzip, i);
        bad(part, i, "");
        free(part);
    }
    free(gzip);
}

static void other_element_types_are_refused_by_name(void **state) {
    (void)state;
    static const struct {
        unsigned char type;
        const char *name;
    } types[] = { { 9, "signed bytes" },   { 11, "16-bit integers" }, { 12, "32-bit integers" },
                  { 13, "32-bit floats" }, { 14, "64-bit floats" },   { 10, "no element type 0x0a" } };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        unsigned char file[sizeof pictures];
        memcpy(file, pictures, sizeof file);
        file[2] = types[i].type;
        bad_both(file, sizeof file, types[i].name);
    }
}

static void ranks_outside_1_to_4_are_refused(void **state) {
    (void)state;
    bad_both("\0\0\10\0\1\1\1\1", 8, "rank 0");
    bad_both("\0\0\10\5\0\0\0\1\0\0\0\1\0\0\0\1\0\0\0\1\0\0\0\1\1", 25, "rank 5");
}

static void shape_that_overflows_is_refused(void **state) {
    (void)state;
    bad_both("\0\0\10\3\377\377\377\377\377\377\377\377\377\377\377\377x", 17, "more bytes than 64 bits count");
}

static void more_declared_than_there_is_is_refused_without_allocating(void **state) {
    (void)state;
    bad_both("\0\0\10\1\177\377\377\377x", 9, "declares 2147483647 bytes of data");
    bad_both("\0\0\10\1\0\0\0\2x", 9, "declares 2 bytes of data");
}

static void more_data_than_declared_is_refused(void **state) {
    (void)state;
    bad_both("\0\0\10\1\0\0\0\2xyz", 11, "more data than its header declares");
}

/* A megabyte of zeros behind a header that declares one byte: a kilobyte of gzip that must not be inflated to its end. */
static void zip_bomb_is_inflated_no_further_than_declared(void **state) {
    (void)state;
    size_t size = 1 << 20, n;
    unsigned char *zeros = calloc(size, 1);
    memcpy(zeros, "\0\0\10\1\0\0\0\1", 8);
    unsigned char *gzip = zipped(zeros, size, &n);
    bad(gzip, n, "more data than its header declares");
    free(gzip);
    free(zeros);
}

static void damaged_gzip_is_refused(void **state) {
    (void)state;
    size_t n;
    unsigned char *gzip = zipped(pictures, sizeof pictures, &n);
    gzip[n - 6] ^= 1; /* the checksum */
    bad(gzip, n, "damaged gzip data");
    gzip[n - 6] ^= 1;
    gzip[12] ^= 0xff; /* the compressed bytes */
    bad(gzip, n, "");
    free(gzip);
}

static void text_is_no_idx(void **state) {
    (void)state;
    bad("text,label\n", 11, "is not an IDX file");
    assert_false(idx_looks_like("text,label\n", 11));
    assert_false(idx_looks_like("", 0));
    assert_true(idx_looks_like(pictures, sizeof pictures));
    size_t n;
    unsigned char *gzip = zipped(labels, sizeof labels, &n);
    assert_true(idx_looks_like(gzip, n));
    free(gzip);
    gzip = zipped("text,label\n", 11, &n);
    assert_false(idx_looks_like(gzip, n));
    free(gzip);
}

/* ---- files beside files ------------------------------------------------------------------------------------ */

static void labels_are_found_beside_their_images(void **state) {
    (void)state;
    char found[600];
    io_error error = { 0 };
    write_scratch("a-labels-idx1-ubyte", labels, sizeof labels);
    write_scratch("b-labels.idx1-ubyte.gz", labels, sizeof labels);
    assert_int_equal(idx_labels_beside(in_scratch("a-images-idx3-ubyte.gz"), found, sizeof found, &error), IO_OK);
    assert_string_equal(found, in_scratch("a-labels-idx1-ubyte"));
    assert_int_equal(idx_labels_beside(in_scratch("b-images.idx4-ubyte"), found, sizeof found, &error), IO_OK);
    assert_string_equal(found, in_scratch("b-labels.idx1-ubyte.gz"));
    int failed = idx_labels_beside(in_scratch("c-images-idx3-ubyte"), found, sizeof found, &error);
    assert_failure(failed, error, IO_BAD_DATA, "its labels are missing");
    failed = idx_labels_beside(in_scratch("pictures"), found, sizeof found, &error);
    assert_failure(failed, error, IO_BAD_DATA, "no \"images\" in its name");
    failed = idx_labels_beside(in_scratch("a-images-idx3-ubyte"), found, 8, &error);
    assert_failure(failed, error, IO_BAD_DATA, "missing");
}

static void folder_of_four_files_is_train_and_test(void **state) {
    (void)state;
    mkdir(in_scratch("mnist"), 0700);
    write_scratch("mnist/train-images-idx3-ubyte", pictures, sizeof pictures);
    data_source source;
    io_error error = { 0 };
    assert_int_equal(data_find(in_scratch("mnist"), DATA_TEST, &source, &error), IO_OK);
    assert_false(source.has_halves);
    size_t n;
    unsigned char *gzip = zipped(pictures, sizeof pictures, &n);
    write_scratch("mnist/t10k-images-idx3-ubyte.gz", gzip, n);
    free(gzip);
    assert_int_equal(data_find(in_scratch("mnist"), DATA_TRAIN, &source, &error), IO_OK);
    assert_int_equal(source.kind, DATA_IDX);
    assert_true(source.has_halves);
    assert_string_equal(source.path, in_scratch("mnist/train-images-idx3-ubyte"));
    assert_int_equal(data_find(in_scratch("mnist"), DATA_TEST, &source, &error), IO_OK);
    assert_string_equal(source.path, in_scratch("mnist/t10k-images-idx3-ubyte.gz"));
}

static void files_are_idx_or_tables_by_their_first_bytes(void **state) {
    (void)state;
    data_source source;
    io_error error = { 0 };
    assert_int_equal(data_find(write_scratch("p", pictures, sizeof pictures), DATA_TRAIN, &source, &error), IO_OK);
    assert_int_equal(source.kind, DATA_IDX);
    assert_int_equal(data_find(write_scratch("t", "text,label\n", 11), DATA_TRAIN, &source, &error), IO_OK);
    assert_int_equal(source.kind, DATA_TABLE);
    assert_int_equal(data_find("-", DATA_TRAIN, &source, &error), IO_OK);
    assert_int_equal(source.kind, DATA_TABLE);
}

static void folder_of_two_tables_has_halves_and_an_empty_one_no_data(void **state) {
    (void)state;
    mkdir(in_scratch("tables"), 0700);
    data_source source;
    io_error error = { 0 };
    int failed = data_find(in_scratch("tables"), DATA_TRAIN, &source, &error);
    assert_failure(failed, error, IO_BAD_DATA, "holds no data");
    write_scratch("tables/train.csv", "text,label\n", 11);
    write_scratch("tables/valid.tsv", "text\tlabel\n", 11);
    assert_int_equal(data_find(in_scratch("tables"), DATA_TEST, &source, &error), IO_OK);
    assert_int_equal(source.kind, DATA_TABLE);
    assert_true(source.has_halves);
    assert_string_equal(source.path, in_scratch("tables/valid.tsv"));
}

/* ---- sets of pictures ----------------------------------------------------------------------------------------- */

static void set_joins_pictures_and_labels(void **state) {
    (void)state;
    const char *path = write_scratch("s-images-idx3-ubyte", pictures, sizeof pictures);
    write_scratch("s-labels-idx1-ubyte", labels, sizeof labels);
    image_set s;
    io_error error = { 0 };
    assert_int_equal(image_set_read(path, NULL, &s, &error), IO_OK);
    assert_int_equal(s.n, 2);
    assert_int_equal(s.width, 2);
    assert_int_equal(s.height, 3);
    assert_int_equal(s.channels, 1);
    assert_memory_equal(s.pixels, pictures + 16, 12);
    assert_int_equal(s.labels[0], 4);
    assert_int_equal(s.labels[1], 1);
    assert_int_equal(s.n_labels, 5);
    assert_string_equal(s.label_names[4], "4");
    assert_null(s.names);
    image_set_free(&s);
}

static void set_is_resized_and_coloured_on_demand(void **state) {
    (void)state;
    const char *path = write_scratch("r-images-idx3-ubyte", pictures, sizeof pictures);
    write_scratch("r-labels-idx1-ubyte", labels, sizeof labels);
    image_set s;
    io_error error = { 0 };
    assert_int_equal(image_set_read(path, &(image_set_options){ .width = 1, .height = 1, .channels = 3 }, &s, &error), IO_OK);
    assert_int_equal(s.n, 2);
    for (int c = 0; c < 3; c++) {
        assert_in_range(s.pixels[c], 3, 4); /* the mean of 1 .. 6 */
        assert_in_range(s.pixels[3 + c], 9, 10);
    }
    image_set_free(&s);
}

static void set_whose_labels_disagree_is_refused(void **state) {
    (void)state;
    image_set s;
    io_error error = { 0 };
    const char *path = write_scratch("d-images-idx3-ubyte", pictures, sizeof pictures);
    write_scratch("d-labels-idx1-ubyte", "\0\0\10\1\0\0\0\1\1", 9);
    int failed = image_set_read(path, NULL, &s, &error);
    assert_failure(failed, error, IO_BAD_DATA, "1 labels for 2 pictures");
    write_scratch("d-labels-idx1-ubyte", pictures, sizeof pictures);
    failed = image_set_read(path, NULL, &s, &error);
    assert_failure(failed, error, IO_BAD_DATA, "labels have rank 1");
    write_scratch("d-images-idx3-ubyte", labels, sizeof labels);
    failed = image_set_read(path, NULL, &s, &error);
    assert_failure(failed, error, IO_BAD_DATA, "has rank 1; pictures are");
    write_scratch("d-images-idx3-ubyte", "\0\0\10\3\0\0\0\0\0\0\0\2\0\0\0\2", 16);
    failed = image_set_read(path, NULL, &s, &error);
    assert_failure(failed, error, IO_BAD_DATA, "holds no pictures");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_file_is_read),
        cmocka_unit_test(gzip_is_known_by_its_magic_and_read),
        cmocka_unit_test(gzip_of_several_members_is_one_stream),
        cmocka_unit_test(no_elements_are_no_error),
        cmocka_unit_test(every_prefix_is_refused),
        cmocka_unit_test(other_element_types_are_refused_by_name),
        cmocka_unit_test(ranks_outside_1_to_4_are_refused),
        cmocka_unit_test(shape_that_overflows_is_refused),
        cmocka_unit_test(more_declared_than_there_is_is_refused_without_allocating),
        cmocka_unit_test(more_data_than_declared_is_refused),
        cmocka_unit_test(zip_bomb_is_inflated_no_further_than_declared),
        cmocka_unit_test(damaged_gzip_is_refused),
        cmocka_unit_test(text_is_no_idx),
        cmocka_unit_test(labels_are_found_beside_their_images),
        cmocka_unit_test(folder_of_four_files_is_train_and_test),
        cmocka_unit_test(files_are_idx_or_tables_by_their_first_bytes),
        cmocka_unit_test(folder_of_two_tables_has_halves_and_an_empty_one_no_data),
        cmocka_unit_test(set_joins_pictures_and_labels),
        cmocka_unit_test(set_is_resized_and_coloured_on_demand),
        cmocka_unit_test(set_whose_labels_disagree_is_refused),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
