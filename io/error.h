/* SPDX-License-Identifier: Apache-2.0 */
/* How everything outside the library says that something failed: a class, which is the program's exit code, and one message that
 * says what failed, where, why and what would fix it. The caller owns the struct; nothing here prints.
 *
 *     int table_read(const char *path, table *t, io_error *error) {
 *         ...
 *         if (n_columns == 0) return io_fail(error, IO_BAD_DATA, "%s: the first line is empty; a header is needed there", path);
 *         return IO_OK;
 *     }
 *
 * A message names the file first, has no newline, no full stop at its end and no "error:" at its start: the program adds that. */
#ifndef ATTN_IO_ERROR_H
#define ATTN_IO_ERROR_H

#include <stddef.h>

#ifdef __GNUC__
#define IO_PRINTF(at, first) __attribute__((format(printf, at, first)))
#else
#define IO_PRINTF(at, first)
#endif

/* The classes, equal to the program's exit codes. A function that can fail returns one of them as int: IO_OK is 0. */
enum {
    IO_OK = 0,
    IO_BAD_USAGE = 2,     /* what was asked for makes no sense, or is not built */
    IO_BAD_DATA = 3,      /* an input is missing, unreadable, malformed, of a wrong type, or disagrees with another */
    IO_BAD_MODEL = 4,     /* the same for a model folder or a .safetensors file */
    IO_NO_ROOM = 5,       /* out of memory, disk full, output not writable */
    IO_DIVERGED = 6,      /* training lost its way and could not be brought back */
    IO_INTERRUPTED = 130, /* stopped by the user, after saving */
};

typedef struct io_error {
    int code;          /* one of the classes above */
    char message[512]; /* empty when code is IO_OK; cut to size, never overflowing */
} io_error;

/* Fills in *error (NULL: nobody listens) and returns `code`, so that a function can fail in one line. Arguments may be taken from
 * error->message itself ("%s: %s" around an inner failure). */
int io_fail(io_error *error, int code, const char *format, ...) IO_PRINTF(3, 4);

/* IO_NO_ROOM, for an allocation that failed: "out of memory: <what> needs <bytes> bytes". */
int io_no_memory(io_error *error, const char *what, size_t bytes);

#endif
