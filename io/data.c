/* SPDX-License-Identifier: Apache-2.0 */
/* Telling kinds of data apart, and finding the half of a data set that is wanted. See data.h. */
#define _POSIX_C_SOURCE 200809L
#include "data.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

#include "file.h"
#include "idx.h"
#include "path.h"

/* Bytes looked at to tell IDX from text: enough for gzip's header and the first block's codes. */
enum { GLANCE = 4096 };

/* Is there a folder in this folder? */
static bool has_folders(const char *path) {
    DIR *folder = opendir(path);
    if (!folder) return false;
    bool found = false;
    const struct dirent *entry;
    while (!found && (entry = readdir(folder))) {
        char inner[4096 + 256];
        found = entry->d_name[0] != '.' && path_join(path, entry->d_name, inner, sizeof inner) && path_is_folder(inner);
    }
    closedir(folder);
    return found;
}

/* One half as a table, or as a folder of classes, under one of its names. */
static bool find_half(const char *folder, int half, data_source *out) {
    static const char *const names[2][4] = { { "train" }, { "test", "valid", "val", "validation" } };
    static const char *const endings[] = { ".csv", ".tsv", ".jsonl", ".txt" };
    for (int i = 0; i < 4 && names[half][i]; i++) {
        out->kind = DATA_TABLE;
        for (int e = 0; e < 4; e++) {
            char name[32];
            snprintf(name, sizeof name, "%s%s", names[half][i], endings[e]);
            if (path_join(folder, name, out->path, sizeof out->path) && path_is_file(out->path)) return true;
        }
        out->kind = DATA_IMAGE_FOLDER;
        if (path_join(folder, names[half][i], out->path, sizeof out->path) && has_folders(out->path)) return true;
    }
    return false;
}

static int find_in_folder(const char *path, int half, data_source *out, io_error *error) {
    char other[sizeof out->path];
    out->kind = DATA_IDX;
    bool here = idx_in_folder(path, half, out->path, sizeof out->path), there = idx_in_folder(path, !half, other, sizeof other);
    if (!here && there) memcpy(out->path, other, sizeof other);
    out->has_halves = here && there;
    if (here || there) return IO_OK;

    data_source counterpart;
    if (find_half(path, !half, &counterpart) && find_half(path, half, out)) {
        out->has_halves = true;
        return IO_OK;
    }
    if (has_folders(path)) {
        out->kind = DATA_IMAGE_FOLDER;
        if (path_join("", path, out->path, sizeof out->path)) return IO_OK;
    }
    return io_fail(error, IO_BAD_DATA,
                   "%s holds no data: it needs one sub-folder of pictures per class, IDX files like train-images-idx3-ubyte, or "
                   "train and test tables",
                   path);
}

int data_find(const char *path, int half, data_source *out, io_error *error) {
    *out = (data_source){ .kind = DATA_TABLE };
    if (path_is_folder(path)) return find_in_folder(path, half == DATA_TEST, out, error);
    if (!path_join("", path, out->path, sizeof out->path)) return io_fail(error, IO_BAD_DATA, "%s: the path is too long", path);
    /* Pipes cannot be looked at twice: they are text. */
    if (!strcmp(path, "-") || !path_is_file(path)) return IO_OK;

    io_input input;
    io_bytes bytes = { 0 };
    int failed = io_input_open(&input, path, error);
    if (failed) return failed;
    failed = io_input_fill(&input, &bytes, GLANCE, error);
    io_input_close(&input);
    if (!failed && idx_looks_like(bytes.data, bytes.size)) out->kind = DATA_IDX;
    io_bytes_free(&bytes);
    return failed;
}
