/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints are .safetensors files like any other: buffers, numbers and texts as tensors. */
#include "checkpoint.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "path.h"
#include "safetensors.h"

enum { N_COUNTS = 4, N_REALS = 5, N_BUFFERS = 4 };

static void own_build(char *out, size_t room) { snprintf(out, room, "libattn %s, %s", attn_version(), attn_isa()); }

static attn_tensor text_tensor(const char *text) { return attn_dense(ATTN_U8, text, 1, &(int64_t){ (int64_t)strlen(text) }); }

static void list_buffers(const nn_checkpoint *c, safetensors_entry *entries) {
    const char *names[N_BUFFERS] = { "values", "first", "second", "best" };
    void *buffers[N_BUFFERS] = { c->values, c->first, c->second, c->best };
    for (int i = 0; i < N_BUFFERS; i++)
        entries[i] = (safetensors_entry){
            .name = names[i],
            .tensor = attn_dense(c->layout->dtype, buffers[i], 1, &(int64_t){ (int64_t)c->layout->size }),
        };
}

int nn_checkpoint_write(const nn_checkpoint *c, const char *path, io_error *error) {
    const nn_progress *p = c->progress;
    char build[128];
    own_build(build, sizeof build);
    int64_t counts[N_COUNTS] = { p->step, p->total, p->best_step, p->ways_back };
    double reals[N_REALS] = { p->best_accuracy, p->best_loss, p->rate_scale, p->seconds, p->loss };
    safetensors_entry entries[N_BUFFERS + 4];
    list_buffers(c, entries);
    entries[N_BUFFERS] =
        (safetensors_entry){ .name = "counts", .tensor = attn_dense(ATTN_I64, counts, 1, &(int64_t){ N_COUNTS }) };
    entries[N_BUFFERS + 1] =
        (safetensors_entry){ .name = "reals", .tensor = attn_dense(ATTN_F64, reals, 1, &(int64_t){ N_REALS }) };
    entries[N_BUFFERS + 2] = (safetensors_entry){ .name = "settings", .tensor = text_tensor(c->settings) };
    entries[N_BUFFERS + 3] = (safetensors_entry){ .name = "build", .tensor = text_tensor(build) };
    return safetensors_write(path, entries, N_BUFFERS + 4, error);
}

static const safetensors_entry *find(const safetensors *file, const char *name, int32_t dtype, int64_t count) {
    const safetensors_entry *e = safetensors_find(file, name);
    return e && e->tensor.dtype == dtype && e->tensor.rank == 1 && (count < 0 || e->tensor.shape[0] == count) ? e : NULL;
}

static bool holds_text(const safetensors_entry *e, const char *text) {
    return e->size == strlen(text) && memcmp(e->tensor.data, text, e->size) == 0;
}

static int read_progress(const safetensors *file, nn_progress *p, const char *path, io_error *error) {
    const safetensors_entry *counts = find(file, "counts", ATTN_I64, N_COUNTS), *reals = find(file, "reals", ATTN_F64, N_REALS);
    if (counts && reals) {
        const int64_t *n = counts->tensor.data;
        const double *x = reals->tensor.data;
        *p = (nn_progress){ .step = n[0],
                            .total = n[1],
                            .best_step = n[2],
                            .ways_back = n[3],
                            .best_accuracy = x[0],
                            .best_loss = x[1],
                            .rate_scale = x[2],
                            .seconds = x[3],
                            .loss = x[4] };
        bool sane = p->step >= 0 && p->total >= p->step && p->best_step >= -1 && p->best_step <= p->step && p->ways_back >= 0 &&
                    p->rate_scale > 0 && p->rate_scale <= 1 && p->seconds >= 0 && isfinite(p->seconds);
        if (sane) return IO_OK;
    }
    return io_fail(error, IO_BAD_MODEL, "%s: it is no checkpoint of a training", path);
}

int nn_checkpoint_read(const nn_checkpoint *c, const char *path, char *build, size_t room, io_error *error) {
    safetensors file;
    build[0] = 0;
    if (!path_is_file(path))
        return io_fail(error, IO_BAD_MODEL, "%s: there is no checkpoint to resume from; train without --resume", path);
    int failed = safetensors_read(path, &file, error);
    if (failed) return failed;
    const safetensors_entry *settings = find(&file, "settings", ATTN_U8, -1), *made = find(&file, "build", ATTN_U8, -1);
    if (!settings || !made) failed = io_fail(error, IO_BAD_MODEL, "%s: it is no checkpoint of a training", path);
    if (!failed && !holds_text(settings, c->settings))
        failed = io_fail(error, IO_BAD_USAGE, "%s: it was made with other options or other data; resume with those of then: %.*s",
                         path, (int)(settings->size < 300 ? settings->size : 300), (const char *)settings->tensor.data);
    if (!failed) failed = read_progress(&file, c->progress, path, error);
    safetensors_entry buffers[N_BUFFERS];
    list_buffers(c, buffers);
    for (int i = 0; i < N_BUFFERS && !failed; i++) {
        const safetensors_entry *e = find(&file, buffers[i].name, c->layout->dtype, (int64_t)c->layout->size);
        if (!e)
            failed = io_fail(error, IO_BAD_MODEL, "%s: it is a checkpoint of another model", path);
        else
            memcpy(buffers[i].tensor.data, e->tensor.data, e->size);
    }
    if (!failed) {
        char own[128];
        own_build(own, sizeof own);
        if (!holds_text(made, own))
            snprintf(build, room, "%.*s", (int)(made->size < 100 ? made->size : 100), (const char *)made->tensor.data);
    }
    safetensors_free(&file);
    return failed;
}
