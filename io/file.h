/* SPDX-License-Identifier: Apache-2.0 */
/* Whole files in, whole files out. Reading never trusts a size that a file claims; writing goes to a temporary file in the same
 * folder that is synced and renamed, so that a path holds its old content or its new one, never half of either.
 *
 * "-" is stdin or stdout. Files are read, not mapped: a mapped file that somebody truncates kills the process that looks at it. */
#ifndef ATTN_IO_FILE_H
#define ATTN_IO_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"

/* ---- reading ---------------------------------------------------------------------------------------- */

/* Bytes owned by the struct. {0} is empty. data[size] exists and is 0, so that text may be used as a string. */
typedef struct io_bytes {
    unsigned char *data;
    size_t size;
    size_t capacity;
} io_bytes;

void io_bytes_free(io_bytes *bytes);

/* Everything in the file. More than `limit` bytes is IO_BAD_DATA (SIZE_MAX: as much as memory holds). A missing file, a folder and a
 * failing read are IO_BAD_DATA too; no memory is IO_NO_ROOM. On failure *bytes is empty. */
int io_read(const char *path, size_t limit, io_bytes *bytes, io_error *error);

/* The same in steps, for formats whose beginning says how much will follow: open, fill a few times, close. */
typedef struct io_input {
    int fd;
    const char *name; /* for messages: the path, or "stdin" */
    int64_t size;     /* of a regular file, else -1: a pipe or a device may go on for ever */
} io_input;

int io_input_open(io_input *input, const char *path, io_error *error);
/* Appends to *bytes until it holds `up_to` bytes or the input ends. Memory grows with what has really been read. */
int io_input_fill(io_input *input, io_bytes *bytes, size_t up_to, io_error *error);
void io_input_close(io_input *input);

/* ---- writing ---------------------------------------------------------------------------------------- */

/* One output on its way: open, write as often as needed, sync, then commit - or discard at any point, which leaves what the path
 * held before. Several outputs that belong together are all synced before the first is committed. {0} may be discarded.
 * stdout, devices and pipes are written directly; a reader of stdout that has gone away is no failure: the rest is dropped. */
typedef struct io_output {
    int fd;
    bool open;
    bool deaf;       /* the reader of stdout has gone away */
    char *path;      /* where the content shall appear, links resolved; NULL when written directly */
    char *temporary; /* where it is until then; NULL when written directly */
    char *name;      /* for messages */
} io_output;

int io_output_open(io_output *output, const char *path, io_error *error);
int io_output_write(io_output *output, const void *data, size_t size, io_error *error);
int io_output_sync(io_output *output, io_error *error);
int io_output_commit(io_output *output, io_error *error);
void io_output_discard(io_output *output);

/* All of it in one call. */
int io_write(const char *path, const void *data, size_t size, io_error *error);

#endif
