/* SPDX-License-Identifier: Apache-2.0 */
/* Reading whole files with a limit, and writing them so that nothing is lost when it fails. See file.h. */
#define _POSIX_C_SOURCE 200809L
#define _XOPEN_SOURCE   700 /* realpath */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* First piece read from a pipe, and the most that one read or write call is asked for. */
enum { FIRST_PIECE = 1 << 16, LARGEST_PIECE = 1 << 30 };

static bool is_dash(const char *path) { return path[0] == '-' && path[1] == '\0'; }

/* ---- reading ---------------------------------------------------------------------------------------- */

void io_bytes_free(io_bytes *bytes) {
    free(bytes->data);
    *bytes = (io_bytes){ 0 };
}

/* Makes room for `capacity` bytes and the 0 behind them. */
static int reserve(io_bytes *bytes, size_t capacity, const char *name, io_error *error) {
    if (bytes->data && capacity <= bytes->capacity) return IO_OK;
    unsigned char *grown = capacity < SIZE_MAX ? realloc(bytes->data, capacity + 1) : NULL;
    if (!grown) return io_no_memory(error, name, capacity);
    bytes->data = grown;
    bytes->capacity = capacity;
    grown[bytes->size] = 0;
    return IO_OK;
}

int io_input_open(io_input *input, const char *path, io_error *error) {
    bool standard = is_dash(path);
    *input = (io_input){ .fd = STDIN_FILENO, .name = standard ? "stdin" : path, .size = -1 };
    if (!standard) {
        do input->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
        while (input->fd < 0 && errno == EINTR);
        if (input->fd < 0) return io_fail(error, IO_BAD_DATA, "cannot open %s: %s", path, strerror(errno));
    }
    struct stat about;
    if (fstat(input->fd, &about)) {
        int failed = io_fail(error, IO_BAD_DATA, "cannot look at %s: %s", input->name, strerror(errno));
        io_input_close(input);
        return failed;
    }
    if (S_ISDIR(about.st_mode)) {
        io_input_close(input);
        return io_fail(error, IO_BAD_DATA, "%s is a folder; a file is needed here", input->name);
    }
    if (S_ISREG(about.st_mode)) input->size = (int64_t)about.st_size;
    return IO_OK;
}

void io_input_close(io_input *input) {
    if (input->fd > STDIN_FILENO) close(input->fd);
    input->fd = -1;
}

int io_input_fill(io_input *input, io_bytes *bytes, size_t up_to, io_error *error) {
    /* A regular file says how much there is; of anything else no more is reserved than twice what has come so far. */
    size_t expected = input->size >= 0 ? (size_t)input->size : FIRST_PIECE;
    for (bool first = true; bytes->size < up_to; first = false) {
        if (first || bytes->size == bytes->capacity) {
            size_t twice = bytes->size <= SIZE_MAX / 2 ? bytes->size * 2 : SIZE_MAX;
            size_t wanted = twice > expected ? twice : expected;
            if (first && input->size >= 0) wanted = expected + 1; /* one more, to see the end without growing */
            if (wanted > up_to) wanted = up_to;
            int failed = reserve(bytes, wanted, input->name, error);
            if (failed) return failed;
        }
        size_t piece = (bytes->capacity < up_to ? bytes->capacity : up_to) - bytes->size;
        if (piece > LARGEST_PIECE) piece = LARGEST_PIECE;
        ssize_t got = read(input->fd, bytes->data + bytes->size, piece);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return io_fail(error, IO_BAD_DATA, "cannot read %s: %s", input->name, strerror(errno));
        if (got == 0) break;
        bytes->size += (size_t)got;
    }
    int failed = reserve(bytes, bytes->size, input->name, error); /* an empty input has its 0, too */
    if (failed) return failed;
    bytes->data[bytes->size] = 0;
    return IO_OK;
}

int io_read(const char *path, size_t limit, io_bytes *bytes, io_error *error) {
    *bytes = (io_bytes){ 0 };
    io_input input;
    int failed = io_input_open(&input, path, error);
    if (failed) return failed;
    failed = io_input_fill(&input, bytes, limit < SIZE_MAX ? limit + 1 : SIZE_MAX - 1, error);
    if (!failed && bytes->size > limit)
        failed = io_fail(error, IO_BAD_DATA, "%s is larger than the %zu bytes that are read of such a file", input.name, limit);
    io_input_close(&input);
    if (failed) io_bytes_free(bytes);
    return failed;
}

/* ---- writing ---------------------------------------------------------------------------------------- */

static int cannot_write(const io_output *output, io_error *error) {
    return io_fail(error, IO_NO_ROOM, "cannot write %s: %s", output->name, strerror(errno));
}

/* Opens a file beside `path` that nobody else has, with the access rights of what it will replace. */
static int open_temporary(io_output *output, const struct stat *old, io_error *error) {
    size_t room = strlen(output->path) + 48;
    output->temporary = malloc(room);
    if (!output->temporary) return io_no_memory(error, output->name, room);
    const char *slash = strrchr(output->path, '/');
    int folder = slash ? (int)(slash - output->path) + 1 : 0;
    for (unsigned attempt = 0; attempt < 1000; attempt++) {
        snprintf(output->temporary, room, "%.*s.attn-%ld-%u.tmp", folder, output->path, (long)getpid(), attempt);
        output->fd = open(output->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (output->fd >= 0) {
            output->open = true;
            if (old) (void)fchmod(output->fd, old->st_mode & 0777);
            return IO_OK;
        }
        if (errno != EEXIST && errno != EINTR) break;
    }
    int failed = cannot_write(output, error);
    free(output->temporary); /* it was never made: discarding must not remove it */
    output->temporary = NULL;
    return failed;
}

/* Devices, pipes and sockets: nothing can be renamed over them. */
static int open_directly(io_output *output, const char *path, io_error *error) {
    do output->fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
    while (output->fd < 0 && errno == EINTR);
    if (output->fd < 0) return cannot_write(output, error);
    output->open = true;
    return IO_OK;
}

int io_output_open(io_output *output, const char *path, io_error *error) {
    *output = (io_output){ .fd = -1 };
    output->name = strdup(is_dash(path) ? "stdout" : path);
    if (!output->name) return io_no_memory(error, path, strlen(path) + 1);
    if (is_dash(path)) {
        output->fd = STDOUT_FILENO;
        output->open = true;
        return IO_OK;
    }
    struct stat old;
    int failed = IO_OK;
    if (stat(path, &old)) {
        if (errno != ENOENT || !*path)
            failed = cannot_write(output, error);
        else if (!(output->path = strdup(path)))
            failed = io_no_memory(error, path, strlen(path) + 1);
        else
            failed = open_temporary(output, NULL, error);
    } else if (S_ISDIR(old.st_mode)) {
        failed = io_fail(error, IO_NO_ROOM, "cannot write %s: it is a folder; name a file", path);
    } else if (!S_ISREG(old.st_mode)) {
        failed = open_directly(output, path, error);
    } else if (access(path, W_OK) || !(output->path = realpath(path, NULL))) {
        failed = cannot_write(output, error);
    } else {
        failed = open_temporary(output, &old, error);
    }
    if (failed) io_output_discard(output);
    return failed;
}

int io_output_write(io_output *output, const void *data, size_t size, io_error *error) {
    const unsigned char *next = data;
    while (size > 0 && !output->deaf) {
        ssize_t put = write(output->fd, next, size < LARGEST_PIECE ? size : LARGEST_PIECE);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0 && errno == EPIPE && output->fd == STDOUT_FILENO) {
            output->deaf = true;
            return IO_OK;
        }
        if (put < 0) return cannot_write(output, error);
        next += put;
        size -= (size_t)put;
    }
    return IO_OK;
}

int io_output_sync(io_output *output, io_error *error) {
    if (output->temporary && fsync(output->fd)) return cannot_write(output, error);
    if (!output->open || output->fd == STDOUT_FILENO) return IO_OK;
    output->open = false; /* whatever close says, the descriptor is gone */
    if (close(output->fd) && errno != EINTR) return cannot_write(output, error);
    return IO_OK;
}

/* The rename itself is safe only once the folder is on the disk. Some file systems cannot sync a folder: they say EINVAL. */
static int sync_folder(const io_output *output, io_error *error) {
    char *slash = strrchr(output->path, '/');
    if (slash) slash[slash == output->path] = '\0'; /* "/file" lies in "/" */
    int folder = open(slash ? output->path : ".", O_RDONLY | O_CLOEXEC | O_DIRECTORY);
    if (folder < 0) return errno == EACCES ? IO_OK : cannot_write(output, error); /* a folder one may write but not read */
    int failed = fsync(folder) && errno != EINVAL ? cannot_write(output, error) : IO_OK;
    close(folder);
    return failed;
}

int io_output_commit(io_output *output, io_error *error) {
    int failed = output->open ? io_output_sync(output, error) : IO_OK;
    if (!failed && output->temporary) {
        if (rename(output->temporary, output->path)) {
            failed = cannot_write(output, error);
        } else {
            free(output->temporary); /* renamed: nothing is left to remove */
            output->temporary = NULL;
            failed = sync_folder(output, error);
        }
    }
    io_output_discard(output);
    return failed;
}

void io_output_discard(io_output *output) {
    if (output->open && output->fd != STDOUT_FILENO) close(output->fd);
    if (output->temporary) unlink(output->temporary);
    free(output->temporary);
    free(output->path);
    free(output->name);
    *output = (io_output){ .fd = -1 };
}

int io_write(const char *path, const void *data, size_t size, io_error *error) {
    io_output output;
    int failed = io_output_open(&output, path, error);
    if (!failed) failed = io_output_write(&output, data, size, error);
    if (!failed) failed = io_output_commit(&output, error);
    if (failed) io_output_discard(&output);
    return failed;
}
