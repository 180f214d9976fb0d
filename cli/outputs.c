/* SPDX-License-Identifier: Apache-2.0 */
/* Outputs of the array verbs: memory to compute into, then files that appear all together or not at all. See arrays.h. */
#define _POSIX_C_SOURCE 200809L
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "arrays.h"
#include "message.h"
#include "show.h"

static bool to_stdout(const char *path) { return !path || strcmp(path, "-") == 0; }

static int check_names(const outputs *o, const char *label, const char *path) {
    for (int i = 0; i < o->n; i++) {
        const output *other = &o->all[i];
        if (to_stdout(path) && to_stdout(other->path))
            return fail(IO_BAD_USAGE, "%s and %s would both go to stdout; give one of them a file", other->label, label);
        if (!to_stdout(path) && !to_stdout(other->path) && strcmp(path, other->path) == 0 && strncmp(path, "/dev/", 5) != 0)
            return fail(IO_BAD_USAGE, "%s and %s would both be written to %s", other->label, label, path);
    }
    return IO_OK;
}

int outputs_add(outputs *o, const char *label, const char *path, int32_t dtype, int32_t rank, const int64_t *shape,
                attn_tensor *tensor) {
    int failed = check_names(o, label, path);
    if (failed) return failed;
    size_t bytes = npy_dtype_size(dtype);
    bool fits = true, empty = false;
    for (int32_t axis = 0; axis < rank; axis++) {
        if (shape[axis] == 0)
            empty = true;
        else if (__builtin_mul_overflow(bytes, (size_t)shape[axis], &bytes) || bytes > PTRDIFF_MAX)
            fits = false;
    }
    void *data = fits ? malloc(empty ? 1 : bytes) : NULL;
    if (!data)
        return fail(IO_NO_ROOM, "out of memory: %s would be an array of %s%zu bytes", label, fits ? "" : "more than ", bytes);
    output *added = &o->all[o->n++];
    *added = (output){ .label = label, .path = path, .tensor = attn_dense(dtype, data, rank, shape) };
    *tensor = added->tensor;
    return IO_OK;
}

static int write_one(const output *o, io_output *to, io_error *error) {
    const attn_tensor *t = &o->tensor;
    if (!to_stdout(o->path) || !isatty(STDOUT_FILENO)) return npy_write(to, t->dtype, t->data, t->rank, t->shape, error);
    text out = { 0 };
    show_array(&out, t);
    int failed = out.failed ? io_no_memory(error, "the table", out.capacity) : io_output_write(to, out.data, out.length, error);
    text_free(&out);
    return failed;
}

int outputs_write(const outputs *o) {
    io_output to[MOST_OUTPUTS] = { { 0 } };
    io_error error = { 0 };
    int failed = IO_OK;
    /* stdout last: what has been printed cannot be taken back. */
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < o->n && !failed; i++) {
            if (to_stdout(o->all[i].path) != (pass == 1)) continue;
            failed = io_output_open(&to[i], pass ? "-" : o->all[i].path, &error);
            if (!failed) failed = write_one(&o->all[i], &to[i], &error);
            if (!failed) failed = io_output_sync(&to[i], &error);
        }
    }
    for (int i = 0; i < o->n && !failed; i++) failed = io_output_commit(&to[i], &error);
    for (int i = 0; i < o->n; i++) io_output_discard(&to[i]);
    return failed ? fail_io(&error) : IO_OK;
}

void outputs_free(outputs *o) {
    for (int i = 0; i < o->n; i++) free(o->all[i].tensor.data);
    o->n = 0;
}
