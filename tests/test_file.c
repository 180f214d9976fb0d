/* SPDX-License-Identifier: Apache-2.0 */
/* needs: arrays */
/* Whole files: limits when reading, and the promise when writing that a path holds its old content or its new one. */
#define _POSIX_C_SOURCE 200809L
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"

static char folder[] = "/tmp/attn-file-XXXXXX";
static io_error failure;

static const char *in_folder(const char *name) {
    static char path[4][320];
    static unsigned turn;
    char *p = path[turn++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", folder, name);
    return p;
}

static void put(const char *path, const char *content) {
    assert_int_equal(io_write(path, content, strlen(content), &failure), IO_OK);
}

static void holds(const char *path, const char *content) {
    io_bytes bytes;
    assert_int_equal(io_read(path, SIZE_MAX, &bytes, &failure), IO_OK);
    assert_string_equal((char *)bytes.data, content);
    assert_int_equal(bytes.size, strlen(content));
    io_bytes_free(&bytes);
}

/* Removes everything in the folder; returns how many files there were. */
static int empty_folder(void) {
    int n = 0;
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) {
            assert_int_equal(unlink(in_folder(e->d_name)), 0);
            n++;
        }
    closedir(d);
    return n;
}

static void a_file_larger_than_the_limit_is_refused(void **state) {
    (void)state;
    io_bytes bytes;
    put(in_folder("a"), "0123456789");
    assert_int_equal(io_read(in_folder("a"), 10, &bytes, &failure), IO_OK);
    assert_int_equal(bytes.data[10], 0);
    io_bytes_free(&bytes);
    assert_int_equal(io_read(in_folder("a"), 9, &bytes, &failure), IO_BAD_DATA);
    assert_null(bytes.data);
    assert_int_equal(io_read("/dev/zero", 100000, &bytes, &failure), IO_BAD_DATA);
    assert_int_equal(empty_folder(), 1);
}

static void empty_files_and_files_without_a_size_are_read(void **state) {
    (void)state;
    io_bytes bytes;
    put(in_folder("a"), "");
    holds(in_folder("a"), "");
    assert_int_equal(io_read("/proc/self/status", 1 << 20, &bytes, &failure), IO_OK);
    assert_true(bytes.size > 100);
    io_bytes_free(&bytes);
    assert_int_equal(empty_folder(), 1);
}

static void steps_read_no_more_than_asked_for(void **state) {
    (void)state;
    io_input input;
    io_bytes bytes = { 0 };
    put(in_folder("a"), "0123456789");
    assert_int_equal(io_input_open(&input, in_folder("a"), &failure), IO_OK);
    assert_int_equal(input.size, 10);
    for (size_t upto = 3; upto < 20; upto += 4) {
        assert_int_equal(io_input_fill(&input, &bytes, upto, &failure), IO_OK);
        assert_int_equal(bytes.size, upto < 10 ? upto : 10);
        assert_memory_equal(bytes.data, "0123456789", bytes.size);
    }
    io_input_close(&input);
    io_bytes_free(&bytes);
    assert_int_equal(empty_folder(), 1);
}

static void an_output_appears_only_when_it_is_committed(void **state) {
    (void)state;
    io_output to;
    put(in_folder("a"), "old");
    assert_int_equal(io_output_open(&to, in_folder("a"), &failure), IO_OK);
    assert_int_equal(io_output_write(&to, "new", 3, &failure), IO_OK);
    holds(in_folder("a"), "old");
    assert_int_equal(io_output_sync(&to, &failure), IO_OK);
    holds(in_folder("a"), "old");
    assert_int_equal(io_output_commit(&to, &failure), IO_OK);
    holds(in_folder("a"), "new");
    assert_int_equal(empty_folder(), 1);
}

static void a_discarded_output_leaves_the_old_file_and_nothing_else(void **state) {
    (void)state;
    io_output to;
    put(in_folder("a"), "old");
    assert_int_equal(io_output_open(&to, in_folder("a"), &failure), IO_OK);
    assert_int_equal(io_output_write(&to, "new", 3, &failure), IO_OK);
    io_output_discard(&to);
    io_output_discard(&to);
    holds(in_folder("a"), "old");
    assert_int_equal(empty_folder(), 1);
}

static void the_access_rights_of_a_replaced_file_stay(void **state) {
    (void)state;
    struct stat about;
    put(in_folder("a"), "old");
    assert_int_equal(chmod(in_folder("a"), 0640), 0);
    put(in_folder("a"), "new");
    assert_int_equal(stat(in_folder("a"), &about), 0);
    assert_int_equal(about.st_mode & 0777, 0640);
    assert_int_equal(empty_folder(), 1);
}

static void a_link_stays_and_its_file_is_replaced(void **state) {
    (void)state;
    struct stat about;
    put(in_folder("a"), "old");
    assert_int_equal(symlink("a", in_folder("link")), 0);
    put(in_folder("link"), "new");
    assert_int_equal(lstat(in_folder("link"), &about), 0);
    assert_true(S_ISLNK(about.st_mode));
    holds(in_folder("a"), "new");
    assert_int_equal(empty_folder(), 2);
}

static void what_cannot_be_written_is_said_and_leaves_nothing(void **state) {
    (void)state;
    assert_int_equal(io_write(in_folder("none/a"), "x", 1, &failure), IO_NO_ROOM);
    assert_int_equal(io_write(folder, "x", 1, &failure), IO_NO_ROOM);
    assert_non_null(strstr(failure.message, "folder"));
    assert_int_equal(io_write("/dev/full", "x", 1, &failure), IO_NO_ROOM);
    assert_int_equal(io_write("", "x", 1, &failure), IO_NO_ROOM);
    assert_int_equal(empty_folder(), 0);
}

static void devices_are_written_to_and_not_replaced(void **state) {
    (void)state;
    struct stat about;
    put("/dev/null", "x");
    assert_int_equal(stat("/dev/null", &about), 0);
    assert_true(S_ISCHR(about.st_mode));
}

static void a_failure_may_wrap_the_message_of_another(void **state) {
    (void)state;
    io_error error = { 0 };
    assert_int_equal(io_fail(&error, IO_BAD_DATA, "line %d is odd", 3), IO_BAD_DATA);
    assert_int_equal(io_fail(&error, IO_BAD_MODEL, "model: %s", error.message), IO_BAD_MODEL);
    assert_string_equal(error.message, "model: line 3 is odd");
    assert_int_equal(error.code, IO_BAD_MODEL);
    assert_int_equal(io_fail(NULL, IO_BAD_DATA, "nobody listens"), IO_BAD_DATA);
    char longer[2000];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    io_fail(&error, IO_BAD_DATA, "%s", longer);
    assert_int_equal(strlen(error.message), sizeof error.message - 1);
}

static int make_folder(void **state) {
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
    (void)state;
    return rmdir(folder); /* fails when a temporary file was left behind */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_larger_than_the_limit_is_refused),
        cmocka_unit_test(empty_files_and_files_without_a_size_are_read),
        cmocka_unit_test(steps_read_no_more_than_asked_for),
        cmocka_unit_test(an_output_appears_only_when_it_is_committed),
        cmocka_unit_test(a_discarded_output_leaves_the_old_file_and_nothing_else),
        cmocka_unit_test(the_access_rights_of_a_replaced_file_stay),
        cmocka_unit_test(a_link_stays_and_its_file_is_replaced),
        cmocka_unit_test(what_cannot_be_written_is_said_and_leaves_nothing),
        cmocka_unit_test(devices_are_written_to_and_not_replaced),
        cmocka_unit_test(a_failure_may_wrap_the_message_of_another),
    };
    return cmocka_run_group_tests_name("file", tests, make_folder, remove_folder);
}
