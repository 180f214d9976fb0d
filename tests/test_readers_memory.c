/* SPDX-License-Identifier: Apache-2.0 */
/* needs: models */
/* Every allocation of every reader and writer fails in turn, once and from then on: the answer is "out of memory", the result is
 * empty, and (under a leak checker) nothing is left behind. */
#define _XOPEN_SOURCE 700
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "io/idx.h"
#include "io/image.h"
#include "io/image_set.h"
#include "io/safetensors.h"
#include "io/table.h"
#include "tests/failing_malloc.h"
#include "tests/scratch.h"

/* Runs `work` with one allocation after the other failing, until it gets through without a failure. */
static void starve(int (*work)(io_error *error)) {
    for (int for_ever = 0; for_ever < 2; for_ever++) {
        int result = -1;
        for (long allowed = 0; result != IO_OK; allowed++) {
            assert_in_range(allowed, 0, 2000);
            io_error error = { 0 };
            memory.for_ever = for_ever;
            memory.allowed = allowed;
            result = work(&error);
            memory.allowed = -1;
            if (result == IO_OK) break;
            if (result != IO_NO_ROOM) fail_msg("allocation %ld: %d %s", allowed, result, error.message);
            assert_int_equal(error.code, IO_NO_ROOM);
            assert_non_null(strstr(error.message, "memory"));
        }
    }
}

static int parse_table(const char *name, const char *text, io_error *error) {
    table t;
    int failed = table_parse(text, strlen(text), name, NULL, &t, error);
    if (failed) assert_null(t.rows);
    table_free(&t);
    return failed;
}

static int csv(io_error *error) { return parse_table("a.csv", "text,label\n\"a\",x\ncaf\xe9 caf\xe9,y\n", error); }

static int jsonl(io_error *error) {
    return parse_table("a.jsonl", "{\"text\":\"a\",\"label\":1}\n{\"text\":\"b\",\"label\":\"x\",\"z\":[1,{\"a\":2.5}]}\n",
                       error);
}

static int fasttext(io_error *error) { return parse_table("a.txt", "__label__a text\n", error); }

static int idx_file(io_error *error) {
    idx a;
    int failed = idx_parse("\0\0\10\1\0\0\0\2xy", 10, "a", &a, error);
    if (failed) assert_null(a.data);
    idx_free(&a);
    return failed;
}

static int folder_of_pictures(io_error *error) {
    image_set s;
    int failed = image_set_read(in_scratch("set"), &(image_set_options){ .width = 3, .height = 2 }, &s, error);
    if (failed) assert_null(s.pixels);
    image_set_free(&s);
    return failed;
}

static int idx_pictures(io_error *error) {
    image_set s;
    int failed = image_set_read(in_scratch("s-images-idx3-ubyte"), &(image_set_options){ .width = 5, .channels = 3 }, &s, error);
    if (failed) assert_null(s.pixels);
    image_set_free(&s);
    return failed;
}

static int picture_out(io_error *error) {
    image i;
    void *bytes = NULL;
    size_t size;
    int failed = image_new(4, 4, 3, &i, error);
    if (failed) return failed;
    failed = image_encode_png(&i, &bytes, &size, error);
    if (failed) assert_null(bytes);
    free(bytes);
    if (!failed) failed = image_write_png(in_scratch("out.png"), &i, error);
    image_free(&i);
    return failed;
}

static int safetensors_in(io_error *error) {
    static const char header[] =
        "{\"__metadata__\":{\"format\":\"pt\"},\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]},"
        "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[3,7]}}";
    char file[8 + sizeof header - 1 + 7] = { (char)(sizeof header - 1) };
    memcpy(file + 8, header, sizeof header - 1);
    safetensors s;
    int failed = safetensors_parse(file, sizeof file, "m", &s, error);
    if (failed) assert_null(s.entries);
    safetensors_free(&s);
    return failed;
}

static int safetensors_out(io_error *error) {
    static const float w[2] = { 1, 2 };
    const safetensors_entry e = { .name = "w", .tensor = attn_dense(ATTN_F32, w, 1, (int64_t[]){ 2 }) };
    return safetensors_write(in_scratch("out.safetensors"), &e, 1, error);
}

static int prepare(void **state) {
    if (scratch_open(state)) return -1;
    image i;
    if (image_new(4, 4, 1, &i, NULL)) return -1;
    mkdir(in_scratch("set"), 0700);
    mkdir(in_scratch("set/a"), 0700);
    mkdir(in_scratch("set/b"), 0700);
    int failed = image_write_png(in_scratch("set/a/1.png"), &i, NULL) | image_write_png(in_scratch("set/b/1.png"), &i, NULL);
    image_free(&i);
    write_scratch("s-images-idx3-ubyte", "\0\0\10\3\0\0\0\1\0\0\0\2\0\0\0\2abcd", 20);
    write_scratch("s-labels-idx1-ubyte", "\0\0\10\1\0\0\0\1\1", 9);
    return failed;
}

static void csv_survives_failing_memory(void **state) { (void)state, starve(csv); }

static void jsonl_survives_failing_memory(void **state) { (void)state, starve(jsonl); }

static void fasttext_survives_failing_memory(void **state) { (void)state, starve(fasttext); }

static void idx_survives_failing_memory(void **state) { (void)state, starve(idx_file); }

static void idx_pictures_survive_failing_memory(void **state) { (void)state, starve(idx_pictures); }

static void folder_of_pictures_survives_failing_memory(void **state) { (void)state, starve(folder_of_pictures); }

static void png_writing_survives_failing_memory(void **state) { (void)state, starve(picture_out); }

static void safetensors_reading_survives_failing_memory(void **state) { (void)state, starve(safetensors_in); }

static void safetensors_writing_survives_failing_memory(void **state) { (void)state, starve(safetensors_out); }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(csv_survives_failing_memory),
        cmocka_unit_test(jsonl_survives_failing_memory),
        cmocka_unit_test(fasttext_survives_failing_memory),
        cmocka_unit_test(idx_survives_failing_memory),
        cmocka_unit_test(idx_pictures_survive_failing_memory),
        cmocka_unit_test(folder_of_pictures_survives_failing_memory),
        cmocka_unit_test(png_writing_survives_failing_memory),
        cmocka_unit_test(safetensors_reading_survives_failing_memory),
        cmocka_unit_test(safetensors_writing_survives_failing_memory),
    };
    return cmocka_run_group_tests(tests, prepare, scratch_close);
}
