/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of readers share: a folder of their own that is emptied afterwards, files in it, and the shape of a clean failure. */
#ifndef ATTN_TESTS_SCRATCH_H
#define ATTN_TESTS_SCRATCH_H

#ifndef _XOPEN_SOURCE
#error "define _XOPEN_SOURCE 700 first: nftw and mkdtemp are needed"
#endif
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/error.h"

static char scratch[64];

static int scratch_open(void **state) {
    (void)state;
    strcpy(scratch, "/tmp/attn-test-XXXXXX");
    return mkdtemp(scratch) ? 0 : -1;
}

static int scratch_remove(const char *path, const struct stat *about, int kind, struct FTW *where) {
    (void)about, (void)kind, (void)where;
    return remove(path);
}

static int scratch_close(void **state) {
    (void)state;
    return nftw(scratch, scratch_remove, 16, FTW_DEPTH | FTW_PHYS);
}

/* The path of a name in the scratch folder; valid until the fourth call from now. */
static const char *in_scratch(const char *name) {
    static char paths[4][512];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", scratch, name);
    return path;
}

static inline const char *write_scratch(const char *name, const void *bytes, size_t size) {
    const char *path = in_scratch(name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
    return path;
}

/* It failed with this class, and its message, one line, says `part`. */
#define assert_failure(result, error, class, part)                                                                               \
    do {                                                                                                                         \
        assert_int_equal(result, class);                                                                                         \
        assert_int_equal((error).code, class);                                                                                   \
        if (!strstr((error).message, part)) fail_msg("message '%s' does not say '%s'", (error).message, part);                   \
        assert_null(strchr((error).message, '\n'));                                                                              \
    } while (0)

#endif
