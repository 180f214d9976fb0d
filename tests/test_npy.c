/* SPDX-License-Identifier: Apache-2.0 */
/* needs: arrays */
/* The .npy reader against headers of every kind, honest and hostile, and the writer against the reader. */
#define _POSIX_C_SOURCE 200809L
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "npy.h"

static io_error failure;

/* A file in memory: version, header text as it is, then `n` bytes of data (the numbers 0, 1, 2, ... when data is NULL). */
static int read_version(int major, const char *text, const void *data, size_t n, npy_array *array) {
    size_t length = strlen(text), start = major == 1 ? 10 : 12;
    io_bytes bytes = { .data = calloc(start + length + n + 1, 1), .size = start + length + n, .capacity = start + length + n };
    assert_non_null(bytes.data);
    memcpy(bytes.data, "\x93NUMPY", 6);
    bytes.data[6] = (unsigned char)major;
    bytes.data[8] = (unsigned char)(length & 255);
    bytes.data[9] = (unsigned char)(length >> 8);
    memcpy(bytes.data + start, text, length);
    for (size_t i = 0; i < n; i++) bytes.data[start + length + i] = data ? ((const unsigned char *)data)[i] : (unsigned char)i;
    failure = (io_error){ 0 };
    return npy_from_bytes("a.npy", &bytes, array, &failure);
}

static int read_text(const char *text, const void *data, size_t n, npy_array *array) {
    return read_version(1, text, data, n, array);
}

/* The header is refused as bad data, and the message holds `word` and the file's name. */
static void refuses(const char *text, size_t n, const char *word) {
    npy_array array;
    int code = read_text(text, NULL, n, &array);
    if (code != IO_BAD_DATA || !strstr(failure.message, word) || !strstr(failure.message, "a.npy"))
        fail_msg("header \"%.80s\" gave code %d: %s", text, code, failure.message);
    assert_null(array.bytes.data);
}

/* The same bytes, taken as a whole file. */
static void refuses_file(const void *data, size_t n, const char *word) {
    npy_array array;
    io_bytes bytes = { .data = malloc(n + 1), .size = n, .capacity = n };
    assert_non_null(bytes.data);
    memcpy(bytes.data, data, n);
    bytes.data[n] = 0;
    failure = (io_error){ 0 };
    assert_int_equal(npy_from_bytes("a.npy", &bytes, &array, &failure), IO_BAD_DATA);
    if (!strstr(failure.message, word)) fail_msg("%s", failure.message);
    assert_null(array.bytes.data);
}

static void every_dtype_of_the_library_is_read_by_its_name(void **state) {
    (void)state;
    static const struct {
        const char *descr;
        int32_t dtype;
        size_t size;
    } all[] = {
        { "<f4", ATTN_F32, 4 }, { "<f8", ATTN_F64, 8 }, { "<f2", ATTN_F16, 2 }, { "|b1", ATTN_BOOL, 1 }, { "<i4", ATTN_I32, 4 },
        { "<i8", ATTN_I64, 8 }, { "|i1", ATTN_I8, 1 },  { "|u1", ATTN_U8, 1 },  { "=f4", ATTN_F32, 4 },  { "<u1", ATTN_U8, 1 },
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        char text[128];
        npy_array a;
        snprintf(text, sizeof text, "{'descr': '%s', 'fortran_order': False, 'shape': (3,), }   \n", all[i].descr);
        assert_int_equal(read_text(text, NULL, 3 * all[i].size, &a), IO_OK);
        assert_int_equal(a.tensor.dtype, all[i].dtype);
        assert_int_equal(a.tensor.rank, 1);
        assert_int_equal(a.tensor.shape[0], 3);
        assert_int_equal(a.tensor.stride[0], 1);
        assert_int_equal((uintptr_t)a.tensor.data % all[i].size, 0);
        if (all[i].dtype != ATTN_BOOL) assert_int_equal(((unsigned char *)a.tensor.data)[2 * all[i].size], 2 * all[i].size);
        npy_free(&a);
    }
}

static void versions_2_and_3_have_a_header_length_of_four_bytes(void **state) {
    (void)state;
    for (int major = 1; major <= 3; major++) {
        npy_array a;
        assert_int_equal(read_version(major, "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }\n", NULL, 6, &a),
                         IO_OK);
        assert_int_equal(((unsigned char *)a.tensor.data)[5], 5);
        npy_free(&a);
    }
}

static void fortran_order_becomes_strides(void **state) {
    (void)state;
    npy_array a;
    assert_int_equal(read_text("{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3, 4), }", NULL, 24, &a), IO_OK);
    assert_true(a.fortran);
    const int64_t strides[] = { 1, 2, 6 };
    for (int axis = 0; axis < 3; axis++) assert_int_equal(a.tensor.stride[axis], strides[axis]);
    npy_free(&a);
    assert_int_equal(read_text("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3, 4), }", NULL, 24, &a), IO_OK);
    assert_false(a.fortran);
    assert_int_equal(a.tensor.stride[0], 12);
    npy_free(&a);
}

static void ranks_0_to_6_and_empty_axes_are_read(void **state) {
    (void)state;
    npy_array a;
    assert_int_equal(read_text("{'descr': '<f4', 'fortran_order': False, 'shape': (), }", NULL, 4, &a), IO_OK);
    assert_int_equal(a.tensor.rank, 0);
    assert_non_null(a.tensor.data);
    npy_free(&a);
    assert_int_equal(read_text("{'descr': '|u1', 'fortran_order': False, 'shape': (1, 2, 1, 2, 1, 2), }", NULL, 8, &a), IO_OK);
    assert_int_equal(a.tensor.rank, 6);
    npy_free(&a);
    assert_int_equal(read_text("{'descr': '<f8', 'fortran_order': False, 'shape': (3, 0, 5), }", NULL, 0, &a), IO_OK);
    assert_int_equal(a.tensor.shape[1], 0);
    npy_free(&a);
    refuses("{'descr': '|u1', 'fortran_order': False, 'shape': (1, 1, 1, 1, 1, 1, 1), }", 1, "axes");
}

static void keys_in_any_order_quotes_blanks_and_python_2_longs_are_read(void **state) {
    (void)state;
    static const char *const texts[] = {
        "{'shape': (2, 2), 'fortran_order': False, 'descr': '|u1'}",
        "{\"descr\": \"|u1\", \"fortran_order\": False, \"shape\": (2, 2)}",
        "{ 'descr':'|u1','fortran_order':False,'shape':(2,2) , }\n\n",
        "  {'descr' : '|u1' ,\t'fortran_order' : False , 'shape' : ( 2 , 2 , ) }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (2L, 2L), }",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        npy_array a;
        if (read_text(texts[i], NULL, 4, &a) != IO_OK) fail_msg("%s: %s", texts[i], failure.message);
        assert_int_equal(a.tensor.rank, 2);
        npy_free(&a);
    }
}

static void numbers_after_a_header_of_odd_length_are_aligned(void **state) {
    (void)state;
    const double values[] = { 1.5, -2.25 };
    const char *text = "{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }                ";
    for (int cut = 0; cut < 16; cut++) {
        npy_array a;
        char odd[128];
        snprintf(odd, sizeof odd, "%.*s", (int)strlen(text) - cut, text);
        assert_int_equal(read_text(odd, values, sizeof values, &a), IO_OK);
        assert_int_equal((uintptr_t)a.tensor.data % 8, 0);
        assert_memory_equal(a.tensor.data, values, sizeof values);
        npy_free(&a);
    }
}

static void any_byte_but_0_is_true(void **state) {
    (void)state;
    npy_array a;
    const unsigned char bytes[] = { 0, 1, 2, 255 };
    assert_int_equal(read_text("{'descr': '|b1', 'fortran_order': False, 'shape': (4,), }", bytes, 4, &a), IO_OK);
    assert_memory_equal(a.tensor.data, "\0\1\1\1", 4);
    npy_free(&a);
}

static void other_dtypes_are_refused_by_name_with_the_fix(void **state) {
    (void)state;
    static const char *const codes[][2] = {
        { "<i2", "int32" },  { "<u4", "int64" },      { "<c8", "complex" },    { "|O", "pickled" },   { "<U5", "text" },
        { "|S3", "text" },   { "<V2", "bfloat16" },   { "|V8", "raw" },        { "<M8[s]", "dates" }, { "<f16", "float32" },
        { "f4", "float32" }, { ">f4", "big-endian" }, { ">i8", "big-endian" }, { "", "dtype" },
    };
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        char text[128];
        snprintf(text, sizeof text, "{'descr': '%s', 'fortran_order': False, 'shape': (1,), }", codes[i][0]);
        refuses(text, 8, codes[i][1]);
        assert_non_null(strstr(failure.message, codes[i][0]));
    }
    refuses("{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (1,), }", 4, "records");
}

static void malformed_headers_are_refused_with_their_place(void **state) {
    (void)state;
    static const char *const texts[][2] = {
        { "", "{" },
        { "{", "quoted" },
        { "{}", "missing" },
        { "[]", "{" },
        { "{'descr': '<f4', 'fortran_order': False}", "missing" },
        { "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'more': 1}", "none of" },
        { "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", "twice" },
        { "{'descr': '<f4', 'fortran_order': 0, 'shape': (1,)}", "True" },
        { "{'descr': '<f4', 'fortran_order': False, 'shape': (1)}", "(n,)" },
        { "{'descr': '<f4', 'fortran_order': False, 'shape': 1}", "tuple" },
        { "{'descr': '<f4', 'fortran_order': False, 'shape': (1,,)}", "extent" },
        { "{'descr': '<f4', 'fortran_order': False, 'shape': (1 2)}", "(n,)" },
        { "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2 3)}", "comma" },
        { "{'descr': '<f4', 'fortran_order': False, 'shape': (1,", "extent" },
        { "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", "negative" },
        { "{'descr': '<f4', 'fortran_order': False, 'shape': (0x10,)}", "(n,)" },
        { "{'descr': '<f4', 'fortran_order': False, 'shape': (1.0,)}", "(n,)" },
        { "{'descr': '<f4', 'fortran_order': False, 'shape': (None,)}", "extent" },
        { "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} x", "follows" },
        { "{'descr': '<f4' 'fortran_order': False, 'shape': (1,)}", "comma" },
        { "{'descr' '<f4', 'fortran_order': False, 'shape': (1,)}", "colon" },
        { "{'descr': '<f4, 'fortran_order': False, 'shape': (1,)}", "" },
        { "{'descr': '<f4", "does not end" },
        { "{'descr': '<f\\x34', 'fortran_order': False, 'shape': (1,)}", "character" },
        { "{'descr': '<f4444444444444444444444444444444444444444', 'fortran_order': False, 'shape': (1,)}", "longer" },
        { "{'descr': '|f4', 'fortran_order': False, 'shape': (1,)}", "byte order" },
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) refuses(texts[i][0], 4, texts[i][1]);
}

static void shapes_that_overflow_are_refused_before_anything_is_reserved(void **state) {
    (void)state;
    static const char *const shapes[] = {
        "(9223372036854775808,)",      "(99999999999999999999999999,)", "(9223372036854775807,)",
        "(4611686018427387904, 2)",    "(2147483648, 2147483648, 4)",   "(4294967296, 4294967296, 4294967296, 4294967296)",
        "(0, 4294967296, 4294967296)",
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        char text[192];
        snprintf(text, sizeof text, "{'descr': '<f4', 'fortran_order': False, 'shape': %s, }", shapes[i]);
        refuses(text, 4, i < 2 ? "overflows" : "64 bits");
    }
}

static void cut_off_and_overlong_files_are_refused(void **state) {
    (void)state;
    refuses("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", 11, "cut off");
    refuses("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", 13, "more bytes follow");
    refuses("{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }", 4, "cut off");
    unsigned char file[96] = "\x93NUMPY\x01\x00\x60\x00{'descr': '<f4', ";
    refuses_file("", 0, "empty");
    refuses_file("\x93NUM", 4, "cut off");
    refuses_file("hello, world", 12, "not a .npy file");
    refuses_file("PK\3\4", 4, "not a .npy file");
    refuses_file(file, 10, "cut off");
    refuses_file(file, 60, "cut off within its header");
    file[6] = 4;
    refuses_file(file, 96, "version 4.0");
    file[6] = 1, file[7] = 1;
    refuses_file(file, 96, "version 1.1");
    file[6] = 2, file[7] = 0, file[11] = 255;
    refuses_file(file, 96, "claims");
}

/* ---- files ------------------------------------------------------------------------------------------ */

static char folder[] = "/tmp/attn-npy-XXXXXX";
static char path[64];

static int make_folder(void **state) {
    (void)state;
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/a.npy", folder);
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    unlink(path);
    return rmdir(folder); /* fails when a temporary file was left behind */
}

static void what_is_written_is_read_back(void **state) {
    (void)state;
    const float values[24] = { 0, 1.5f, -2, 3e38f, 1e-45f };
    const int64_t shape[] = { 1, 2, 3, 1, 2, 2 };
    for (int32_t rank = 0; rank <= 6; rank++) {
        io_output to;
        io_error error = { 0 };
        npy_array a;
        int64_t count = 1;
        for (int32_t i = 0; i < rank; i++) count *= shape[i];
        assert_int_equal(io_output_open(&to, path, &error), IO_OK);
        assert_int_equal(npy_write(&to, ATTN_F32, values, rank, shape, &error), IO_OK);
        assert_int_equal(io_output_commit(&to, &error), IO_OK);
        assert_int_equal(npy_read(path, &a, &error), IO_OK);
        assert_int_equal(a.tensor.rank, rank);
        assert_int_equal(a.tensor.dtype, ATTN_F32);
        for (int32_t i = 0; i < rank; i++) assert_int_equal(a.tensor.shape[i], shape[i]);
        assert_memory_equal(a.tensor.data, values, (size_t)count * sizeof values[0]);
        assert_int_equal(((unsigned char *)a.tensor.data - a.bytes.data) % 64, 0);
        npy_free(&a);
    }
}

static void bfloat16_is_not_written(void **state) {
    (void)state;
    io_output to;
    io_error error = { 0 };
    const int64_t one = 1;
    assert_int_equal(io_output_open(&to, path, &error), IO_OK);
    assert_int_equal(npy_write(&to, ATTN_BF16, "xy", 1, &one, &error), IO_BAD_USAGE);
    io_output_discard(&to);
}

static void a_missing_file_a_folder_and_an_endless_device_are_refused(void **state) {
    (void)state;
    npy_array a;
    io_error error = { 0 };
    assert_int_equal(npy_read("/nonexistent/a.npy", &a, &error), IO_BAD_DATA);
    assert_non_null(strstr(error.message, "/nonexistent/a.npy"));
    assert_int_equal(npy_read("/tmp", &a, &error), IO_BAD_DATA);
    assert_non_null(strstr(error.message, "folder"));
    assert_int_equal(npy_read("/dev/zero", &a, &error), IO_BAD_DATA);
    assert_non_null(strstr(error.message, "not a .npy file"));
    assert_null(a.bytes.data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_dtype_of_the_library_is_read_by_its_name),
        cmocka_unit_test(versions_2_and_3_have_a_header_length_of_four_bytes),
        cmocka_unit_test(fortran_order_becomes_strides),
        cmocka_unit_test(ranks_0_to_6_and_empty_axes_are_read),
        cmocka_unit_test(keys_in_any_order_quotes_blanks_and_python_2_longs_are_read),
        cmocka_unit_test(numbers_after_a_header_of_odd_length_are_aligned),
        cmocka_unit_test(any_byte_but_0_is_true),
        cmocka_unit_test(other_dtypes_are_refused_by_name_with_the_fix),
        cmocka_unit_test(malformed_headers_are_refused_with_their_place),
        cmocka_unit_test(shapes_that_overflow_are_refused_before_anything_is_reserved),
        cmocka_unit_test(cut_off_and_overlong_files_are_refused),
        cmocka_unit_test(what_is_written_is_read_back),
        cmocka_unit_test(bfloat16_is_not_written),
        cmocka_unit_test(a_missing_file_a_folder_and_an_endless_device_are_refused),
    };
    return cmocka_run_group_tests_name("npy", tests, make_folder, remove_folder);
}
