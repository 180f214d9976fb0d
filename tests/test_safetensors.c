/* SPDX-License-Identifier: Apache-2.0 */
/* needs: models */
/* safetensors: what is written is read back, equal content makes equal bytes, and a header that lies in any way is refused. */
#define _XOPEN_SOURCE 700
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "io/safetensors.h"
#include "tests/scratch.h"

/* A file in memory: a header, its length in front of it, and `n_data` bytes of data behind it that count up from 0. */
typedef struct file {
    unsigned char *bytes;
    size_t size;
} file;

static file make(const char *header, size_t n_data) {
    size_t n = strlen(header);
    file f = { malloc(8 + n + n_data), 8 + n + n_data };
    assert_non_null(f.bytes);
    for (int i = 0; i < 8; i++) f.bytes[i] = (unsigned char)((uint64_t)n >> 8 * i);
    memcpy(f.bytes + 8, header, n);
    for (size_t i = 0; i < n_data; i++) f.bytes[8 + n + i] = (unsigned char)i;
    return f;
}

static safetensors good(const char *header, size_t n_data) {
    file f = make(header, n_data);
    safetensors s;
    io_error error = { 0 };
    if (safetensors_parse(f.bytes, f.size, "m", &s, &error)) fail_msg("%s", error.message);
    free(f.bytes);
    return s;
}

static void bad(const char *header, size_t n_data, const char *part) {
    file f = make(header, n_data);
    safetensors s;
    io_error error = { 0 };
    int failed = safetensors_parse(f.bytes, f.size, "m", &s, &error);
    assert_failure(failed, error, IO_BAD_MODEL, part);
    assert_null(s.entries);
    /* The same from a file, where the data is not read before the header is believed. */
    failed = safetensors_read_header(write_scratch("bad.safetensors", f.bytes, f.size), &s, &error);
    assert_failure(failed, error, IO_BAD_MODEL, part);
    free(f.bytes);
}

/* ---- what is right --------------------------------------------------------------------------------------------- */

static void tensors_come_sorted_by_name_with_dtype_shape_and_bytes(void **state) {
    (void)state;
    safetensors s = good("{\"w\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
                         "\"b\":{\"data_offsets\":[24,28],\"shape\":[2],\"dtype\":\"BF16\"}}",
                         28);
    assert_int_equal(s.n, 2);
    assert_string_equal(s.entries[0].name, "b");
    assert_int_equal(s.entries[0].tensor.dtype, ATTN_BF16);
    assert_int_equal(s.entries[0].size, 4);
    const safetensors_entry *w = safetensors_find(&s, "w");
    assert_ptr_equal(w, &s.entries[1]);
    assert_string_equal(w->dtype, "F32");
    assert_int_equal(w->tensor.dtype, ATTN_F32);
    assert_int_equal(w->tensor.rank, 2);
    assert_int_equal(w->tensor.shape[0], 2);
    assert_int_equal(w->tensor.shape[1], 3);
    assert_int_equal(w->tensor.stride[0], 3);
    assert_int_equal(w->tensor.stride[1], 1);
    for (int i = 0; i < 24; i++) assert_int_equal(((unsigned char *)w->tensor.data)[i], i);
    assert_null(safetensors_find(&s, "v"));
    safetensors_free(&s);
}

static void every_dtype_is_known_and_foreign_ones_have_no_library_type(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int dtype, width;
    } types[] = { { "F32", ATTN_F32, 4 }, { "F64", ATTN_F64, 8 }, { "F16", ATTN_F16, 2 },   { "BF16", ATTN_BF16, 2 },
                  { "I32", ATTN_I32, 4 }, { "I64", ATTN_I64, 8 }, { "U8", ATTN_U8, 1 },     { "I8", ATTN_I8, 1 },
                  { "I16", -1, 2 },       { "U64", -1, 8 },       { "BOOL", ATTN_BOOL, 1 }, { "F8_E4M3", -1, 1 } };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        char header[100];
        sprintf(header, "{\"t\":{\"dtype\":\"%s\",\"shape\":[3],\"data_offsets\":[0,%d]}}", types[i].name, 3 * types[i].width);
        safetensors s = good(header, 3 * (size_t)types[i].width);
        assert_int_equal(s.entries[0].tensor.dtype, types[i].dtype);
        assert_int_equal((uintptr_t)s.entries[0].tensor.data % (unsigned)types[i].width, 0);
        safetensors_free(&s);
    }
}

static void scalars_empty_tensors_and_no_tensors_are_fine(void **state) {
    (void)state;
    safetensors s =
        good("{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
             "\"b\":{\"dtype\":\"F32\",\"shape\":[0,9223372036854775807,9223372036854775807],\"data_offsets\":[4,4]}}  ",
             4);
    assert_int_equal(s.entries[0].tensor.rank, 0);
    assert_int_equal(s.entries[0].size, 4);
    assert_int_equal(s.entries[1].size, 0);
    safetensors_free(&s);
    s = good("{}", 0);
    assert_int_equal(s.n, 0);
    assert_null(safetensors_find(&s, "a"));
    safetensors_free(&s);
}

static void metadata_comes_sorted_by_key(void **state) {
    (void)state;
    safetensors s = good("{\"__metadata__\":{\"z\":\"1\",\"format\":\"pt\"}}", 0);
    assert_int_equal(s.n_metadata, 2);
    assert_string_equal(s.metadata[0].key, "format");
    assert_string_equal(s.metadata[0].value, "pt");
    assert_string_equal(s.metadata[1].key, "z");
    safetensors_free(&s);
}

static void unaligned_tensors_are_handed_out_aligned(void **state) {
    (void)state;
    safetensors s = good("{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]},"
                         "\"b\":{\"dtype\":\"F64\",\"shape\":[2],\"data_offsets\":[3,19]},"
                         "\"c\":{\"dtype\":\"I16\",\"shape\":[1],\"data_offsets\":[19,21]}}",
                         21);
    assert_int_equal((uintptr_t)s.entries[1].tensor.data % 8, 0);
    assert_int_equal((uintptr_t)s.entries[2].tensor.data % 2, 0);
    for (int i = 0; i < 16; i++) assert_int_equal(((unsigned char *)s.entries[1].tensor.data)[i], 3 + i);
    for (int i = 0; i < 2; i++) assert_int_equal(((unsigned char *)s.entries[2].tensor.data)[i], 19 + i);
    safetensors_free(&s);
}

static void the_header_alone_can_be_read(void **state) {
    (void)state;
    file f = make("{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}", 3);
    safetensors s;
    io_error error = { 0 };
    assert_int_equal(safetensors_read_header(write_scratch("h.safetensors", f.bytes, f.size), &s, &error), IO_OK);
    assert_int_equal(s.n, 1);
    assert_int_equal(s.entries[0].size, 3);
    assert_null(s.entries[0].tensor.data);
    safetensors_free(&s);
    free(f.bytes);
}

/* ---- writing ---------------------------------------------------------------------------------------------------- */

static void what_is_written_is_read_back(void **state) {
    (void)state;
    static const float w[6] = { 1, 2, 3, 4, 5, 6 };
    static const double d[1] = { 0.5 };
    static const uint8_t u[3] = { 7, 8, 9 };
    const safetensors_entry entries[] = {
        { .name = "u", .tensor = attn_dense(ATTN_U8, u, 1, (int64_t[]){ 3 }) },
        { .name = "w \"\\\n\xc3\xa9", .tensor = attn_dense(ATTN_F32, w, 2, (int64_t[]){ 2, 3 }) },
        { .name = "d", .tensor = attn_dense(ATTN_F64, d, 0, NULL) },
        { .name = "empty", .tensor = attn_dense(ATTN_F32, NULL, 1, (int64_t[]){ 0 }) },
    };
    safetensors s;
    io_error error = { 0 };
    const char *path = in_scratch("out.safetensors");
    assert_int_equal(safetensors_write(path, entries, 4, &error), IO_OK);
    assert_int_equal(safetensors_read(path, &s, &error), IO_OK);
    assert_int_equal(s.n, 4);
    assert_string_equal(s.metadata[0].key, "format");
    assert_string_equal(s.metadata[0].value, "pt");
    for (size_t i = 0; i < 4; i++) {
        const safetensors_entry *e = safetensors_find(&s, entries[i].name);
        assert_non_null(e);
        assert_int_equal(e->tensor.dtype, entries[i].tensor.dtype);
        assert_int_equal(e->tensor.rank, entries[i].tensor.rank);
        if (e->size > 0) assert_memory_equal(e->tensor.data, entries[i].tensor.data, e->size);
    }
    safetensors_free(&s);
}

static void equal_content_makes_equal_bytes_in_any_order(void **state) {
    (void)state;
    static const float w[2] = { 1, 2 };
    static const uint8_t u[1] = { 7 };
    const safetensors_entry b = { .name = "b", .tensor = attn_dense(ATTN_F32, w, 1, (int64_t[]){ 2 }) };
    const safetensors_entry c = { .name = "c", .tensor = attn_dense(ATTN_F32, w, 1, (int64_t[]){ 1 }) };
    const safetensors_entry a = { .name = "a", .tensor = attn_dense(ATTN_U8, u, 1, (int64_t[]){ 1 }) };
    void *first, *second;
    size_t n, m;
    assert_int_equal(safetensors_encode((safetensors_entry[]){ a, b, c }, 3, &first, &n, NULL), IO_OK);
    assert_int_equal(safetensors_encode((safetensors_entry[]){ c, a, b }, 3, &second, &m, NULL), IO_OK);
    assert_int_equal(n, m);
    assert_memory_equal(first, second, n);
    static const char header[] = "{\"__metadata__\":{\"format\":\"pt\"},"
                                 "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                                 "\"c\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]},"
                                 "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[12,13]}}";
    size_t padded = (sizeof header - 1 + 7) / 8 * 8;
    assert_int_equal(((unsigned char *)first)[0] | ((unsigned char *)first)[1] << 8, padded);
    assert_memory_equal((char *)first + 8, header, sizeof header - 1);
    for (size_t i = sizeof header - 1; i < padded; i++) assert_int_equal(((char *)first)[8 + i], ' ');
    assert_int_equal(n, 8 + padded + 13);
    free(first);
    free(second);
}

/* The order of the format's own library, checked against its 0.8.0: a file has the same bytes from either. */
static void tensors_are_placed_by_type_then_by_name(void **state) {
    (void)state;
    static const int types[] = { ATTN_I64, ATTN_F64, ATTN_F32, ATTN_I32, ATTN_BF16, ATTN_F16, ATTN_I8, ATTN_U8, ATTN_BOOL };
    static const double one[1];
    safetensors_entry entries[9];
    static const char *const names[] = { "i", "h", "g", "f", "e", "d", "c", "b", "a" };
    for (int i = 0; i < 9; i++)
        entries[i] = (safetensors_entry){ .name = names[i], .tensor = attn_dense(types[i], one, 1, (int64_t[]){ 1 }) };
    void *bytes;
    size_t n;
    safetensors s;
    assert_int_equal(safetensors_encode(entries, 9, &bytes, &n, NULL), IO_OK);
    assert_int_equal(safetensors_parse(bytes, n, "m", &s, NULL), IO_OK);
    for (size_t i = 1; i < 9; i++) assert_true(s.entries[i].offset < s.entries[i - 1].offset);
    safetensors_free(&s);
    free(bytes);
}

static void strided_tensors_are_written_dense(void **state) {
    (void)state;
    static const float w[6] = { 1, 2, 3, 4, 5, 6 };
    safetensors_entry e = { .name = "t", .tensor = attn_dense(ATTN_F32, w, 2, (int64_t[]){ 3, 2 }) };
    e.tensor.stride[0] = 1; /* the transpose of [2, 3] */
    e.tensor.stride[1] = 3;
    void *bytes;
    size_t n;
    safetensors s;
    assert_int_equal(safetensors_encode(&e, 1, &bytes, &n, NULL), IO_OK);
    assert_int_equal(safetensors_parse(bytes, n, "m", &s, NULL), IO_OK);
    static const float transposed[6] = { 1, 4, 2, 5, 3, 6 };
    assert_memory_equal(s.entries[0].tensor.data, transposed, sizeof transposed);
    safetensors_free(&s);
    free(bytes);
}

static void tensors_that_cannot_be_written_are_refused(void **state) {
    (void)state;
    static const float w[1] = { 1 };
    const attn_tensor t = attn_dense(ATTN_F32, w, 1, (int64_t[]){ 1 });
    attn_tensor no_data = t, no_dtype = t, huge = t;
    no_data.data = NULL;
    no_dtype.dtype = -1;
    huge.rank = 2;
    huge.shape[0] = huge.shape[1] = INT64_MAX;
    const safetensors_entry cases[] = { { .name = NULL, .tensor = t },       { .name = "__metadata__", .tensor = t },
                                        { .name = "\xff", .tensor = t },     { .name = "a", .tensor = no_data },
                                        { .name = "a", .tensor = no_dtype }, { .name = "a", .tensor = huge } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        io_error error = { 0 };
        int failed = safetensors_write(in_scratch("never.safetensors"), &cases[i], 1, &error);
        assert_failure(failed, error, IO_BAD_USAGE, "tensor");
        assert_int_not_equal(access(in_scratch("never.safetensors"), F_OK), 0);
    }
    const safetensors_entry twice[] = { { .name = "a", .tensor = t }, { .name = "a", .tensor = t } };
    io_error error = { 0 };
    int failed = safetensors_write(in_scratch("never.safetensors"), twice, 2, &error);
    assert_failure(failed, error, IO_BAD_USAGE, "two tensors to be written are called 'a'");
}

/* ---- what is wrong ------------------------------------------------------------------------------------------------ */

static void every_prefix_is_refused(void **state) {
    (void)state;
    file f = make("{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}", 3);
    for (size_t n = 0; n < f.size; n++) {
        unsigned char *part = malloc(n ? n : 1); /* so that a sanitizer sees a read behind it */
        memcpy(part, f.bytes, n);
        safetensors s;
        io_error error = { 0 };
        int failed = safetensors_parse(part, n, "m", &s, &error);
        assert_failure(failed, error, IO_BAD_MODEL, "m");
        failed = safetensors_read(write_scratch("p.safetensors", part, n), &s, &error);
        assert_failure(failed, error, IO_BAD_MODEL, "p.safetensors");
        free(part);
    }
    free(f.bytes);
}

static void header_longer_than_the_file_or_100_mb_is_refused(void **state) {
    (void)state;
    static const unsigned char files[][16] = { { 255, 255, 255, 255, 255, 255, 255, 255, '{', '}' },
                                               { 9, 0, 0, 0, 0, 0, 0, 0, '{', '}' },
                                               { 0, 0, 0, 0, 0, 0, 0, 0, '{', '}' } };
    safetensors s;
    io_error error = { 0 };
    for (size_t i = 0; i < 3; i++) {
        int failed = safetensors_parse(files[i], 16, "m", &s, &error);
        assert_failure(failed, error, IO_BAD_MODEL, "m is not a safetensors file: a header of ");
    }
    /* A sparse file of 200 MB whose header claims 150 MB: refused before it is read. */
    const char *path = write_scratch("big.safetensors", "\x80\xd1\xf0\x08\0\0\0\0{", 9);
    assert_int_equal(truncate(path, 200000000), 0);
    int failed = safetensors_read(path, &s, &error);
    assert_failure(failed, error, IO_BAD_MODEL, "a header of 150000000 bytes");
}

static void other_files_are_no_safetensors(void **state) {
    (void)state;
    bad("[]", 0, "does not begin with '{'");
    bad(" {}", 0, "does not begin with '{'");
    bad("{\"a\":", 0, "not valid JSON");
    bad("{} {}", 0, "not valid JSON");
    bad("{\"\xff\":1}", 0, "not valid JSON");
    safetensors s;
    io_error error = { 0 };
    int failed = safetensors_read(in_scratch("missing.safetensors"), &s, &error);
    assert_failure(failed, error, IO_BAD_MODEL, "missing.safetensors");
    failed = safetensors_read("/dev/zero", &s, &error);
    assert_failure(failed, error, IO_BAD_MODEL, "not a regular file");
}

static void names_twice_are_refused(void **state) {
    (void)state;
    bad("{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":["
        "0,0]}}",
        0, "duplicate");
    bad("{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0, "duplicate");
    bad("{\"a\\u0000b\":{}}", 0, "not valid JSON");
}

static void tensors_outside_the_file_are_refused(void **state) {
    (void)state;
    bad("{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 3, "lie outside the file's 3 bytes");
    bad("{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[3,0]}}", 3, "lie outside");
    bad("{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[9223372036854775804,9223372036854775807]}}", 3, "lie outside");
}

static void offsets_that_are_no_sizes_are_refused(void **state) {
    (void)state;
    static const char *const offsets[] = { "[0]", "[0,3,3]", "[-1,2]",   "[0.0,3.0]", "[\"0\",\"3\"]",
                                           "{}",  "null",    "[0,null]", "[true,3]",  "[[0],[3]]" };
    for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
        char header[120];
        sprintf(header, "{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":%s}}", offsets[i]);
        bad(header, 3, "");
    }
    bad("{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,18446744073709551619]}}", 3, "not valid JSON");
}

static void shapes_that_overflow_or_are_no_sizes_are_refused(void **state) {
    (void)state;
    bad("{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0, "overflow 64 bits");
    bad("{\"a\":{\"dtype\":\"F64\",\"shape\":[2305843009213693952],\"data_offsets\":[0,0]}}", 0, "overflow 64 bits");
    bad("{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "an extent is not an integer");
    bad("{\"a\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", 4, "an extent is not an integer");
    bad("{\"a\":{\"dtype\":\"F32\",\"shape\":1,\"data_offsets\":[0,4]}}", 4, "no shape");
    bad("{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, "rank 7");
}

static void sizes_that_disagree_with_shape_and_dtype_are_refused(void **state) {
    (void)state;
    bad("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, "dtype and shape make 8 bytes, data_offsets 4");
    bad("{\"a\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "dtype and shape make 2 bytes, data_offsets 4");
}

static void overlaps_and_holes_are_refused(void **state) {
    (void)state;
    bad("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":["
        "1,3]}}",
        3, "tensor 'b': its bytes overlap another tensor's");
    bad("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":["
        "2,3]}}",
        3, "1 bytes before tensor 'b' belong to no tensor");
    bad("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 3, "the last 2 bytes belong to no tensor");
    bad("{}", 1, "the last 1 bytes belong to no tensor");
}

static void entries_that_are_no_tensors_are_refused(void **state) {
    (void)state;
    bad("{\"a\":1}", 0, "not an object");
    bad("{\"a\":{}}", 0, "no dtype");
    bad("{\"a\":{\"dtype\":5,\"shape\":[0],\"data_offsets\":[0,0]}}", 0, "no dtype");
    bad("{\"a\":{\"dtype\":\"F99\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0, "unknown dtype 'F99'");
    bad("{\"__metadata__\":[]}", 0, "__metadata__ is not an object");
    bad("{\"__metadata__\":{\"a\":1}}", 0, "'a' is not a string");
}

static void headers_of_many_parts_or_levels_are_refused_before_they_are_built(void **state) {
    (void)state;
    bad("{\"a\":{\"shape\":[[1]]}}", 0, "nested 4 levels deep");
    enum { PARTS = (1 << 20) + 100 };
    char *header = malloc(PARTS + 64);
    assert_non_null(header);
    strcpy(header, "{\"a\":{\"shape\":[");
    size_t n = strlen(header);
    memset(header + n, ',', PARTS);
    header[n + PARTS] = 0;
    bad(header, 0, "values; at most 1048576");
    free(header);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_come_sorted_by_name_with_dtype_shape_and_bytes),
        cmocka_unit_test(every_dtype_is_known_and_foreign_ones_have_no_library_type),
        cmocka_unit_test(scalars_empty_tensors_and_no_tensors_are_fine),
        cmocka_unit_test(metadata_comes_sorted_by_key),
        cmocka_unit_test(unaligned_tensors_are_handed_out_aligned),
        cmocka_unit_test(the_header_alone_can_be_read),
        cmocka_unit_test(what_is_written_is_read_back),
        cmocka_unit_test(equal_content_makes_equal_bytes_in_any_order),
        cmocka_unit_test(tensors_are_placed_by_type_then_by_name),
        cmocka_unit_test(strided_tensors_are_written_dense),
        cmocka_unit_test(tensors_that_cannot_be_written_are_refused),
        cmocka_unit_test(every_prefix_is_refused),
        cmocka_unit_test(header_longer_than_the_file_or_100_mb_is_refused),
        cmocka_unit_test(other_files_are_no_safetensors),
        cmocka_unit_test(names_twice_are_refused),
        cmocka_unit_test(tensors_outside_the_file_are_refused),
        cmocka_unit_test(offsets_that_are_no_sizes_are_refused),
        cmocka_unit_test(shapes_that_overflow_or_are_no_sizes_are_refused),
        cmocka_unit_test(sizes_that_disagree_with_shape_and_dtype_are_refused),
        cmocka_unit_test(overlaps_and_holes_are_refused),
        cmocka_unit_test(entries_that_are_no_tensors_are_refused),
        cmocka_unit_test(headers_of_many_parts_or_levels_are_refused_before_they_are_built),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
