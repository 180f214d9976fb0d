/* SPDX-License-Identifier: Apache-2.0 */
/* Listing a folder that has one sub-folder of pictures per class. Order is by bytes, never by what the file system returns. */
#define _POSIX_C_SOURCE 200809L
#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "image.h"
#include "path.h"

/* Strings that grow in number. */
typedef struct names {
    char **list;
    size_t n, room;
} names;

static void names_free(names *s) {
    for (size_t i = 0; i < s->n; i++) free(s->list[i]);
    free(s->list);
    *s = (names){ 0 };
}

static int names_add(names *s, const char *name, io_error *error) {
    if (s->n == s->room) {
        size_t room = s->room ? s->room * 2 : 64, bytes;
        char **grown = __builtin_mul_overflow(room, sizeof *grown, &bytes) ? NULL : realloc(s->list, bytes);
        if (!grown) return io_no_memory(error, "a list of files", room);
        s->list = grown;
        s->room = room;
    }
    if (!(s->list[s->n] = strdup(name))) return io_no_memory(error, "a list of files", strlen(name));
    s->n++;
    return IO_OK;
}

static int by_bytes(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* Everything in the folder whose name does not begin with a dot, sorted. */
static int list_folder(const char *path, names *out, io_error *error) {
    *out = (names){ 0 };
    DIR *folder = opendir(path);
    if (!folder) return io_fail(error, IO_BAD_DATA, "cannot open the folder %s: %s", path, strerror(errno));
    int failed = IO_OK;
    const struct dirent *entry;
    while (!failed && (errno = 0, entry = readdir(folder)))
        if (entry->d_name[0] != '.') failed = names_add(out, entry->d_name, error);
    if (!failed && errno) failed = io_fail(error, IO_BAD_DATA, "cannot read the folder %s: %s", path, strerror(errno));
    closedir(folder);
    if (failed)
        names_free(out);
    else if (out->n > 0)
        qsort(out->list, out->n, sizeof *out->list, by_bytes);
    return failed;
}

static bool is_picture_name(const char *name) {
    const char *dot = strrchr(name, '.');
    return dot && (!strcasecmp(dot, ".png") || !strcasecmp(dot, ".jpg") || !strcasecmp(dot, ".jpeg"));
}

static int add_file(image_folder *f, size_t *room, const char *path, int32_t label, io_error *error) {
    if (f->n_files == *room) {
        size_t more = *room ? *room * 2 : 256, bytes;
        image_file *grown = __builtin_mul_overflow(more, sizeof *grown, &bytes) ? NULL : realloc(f->files, bytes);
        if (!grown) return io_no_memory(error, "a list of files", more);
        f->files = grown;
        *room = more;
    }
    char *own = strdup(path);
    if (!own) return io_no_memory(error, "a list of files", strlen(path));
    f->files[f->n_files++] = (image_file){ .path = own, .label = label };
    return IO_OK;
}

/* The pictures of one class. */
static int list_class(const char *folder, int32_t label, image_folder *out, size_t *room, io_error *error) {
    names inside;
    char path[4096];
    int failed = list_folder(folder, &inside, error);
    for (size_t i = 0; !failed && i < inside.n; i++) {
        if (!path_join(folder, inside.list[i], path, sizeof path) || !is_picture_name(inside.list[i]) || !path_is_file(path))
            out->n_other++;
        else
            failed = add_file(out, room, path, label, error);
    }
    names_free(&inside);
    return failed;
}

static int list_classes(const char *path, const names *inside, image_folder *out, io_error *error) {
    size_t room = 0;
    out->labels = calloc(inside->n ? inside->n : 1, sizeof *out->labels);
    if (!out->labels) return io_no_memory(error, "a list of classes", inside->n * sizeof *out->labels);
    for (size_t i = 0; i < inside->n && i < INT32_MAX; i++) {
        char folder[4096];
        if (!path_join(path, inside->list[i], folder, sizeof folder) || !path_is_folder(folder)) continue;
        size_t before = out->n_files;
        int failed = list_class(folder, (int32_t)out->n_labels, out, &room, error);
        if (failed) return failed;
        if (out->n_files == before) continue;
        if (!(out->labels[out->n_labels] = strdup(inside->list[i]))) return io_no_memory(error, "a list of classes", 1);
        out->n_labels++;
    }
    if (out->n_files == 0)
        return io_fail(error, IO_BAD_DATA, "%s holds no pictures: one sub-folder per class with .png or .jpg files is needed",
                       path);
    return IO_OK;
}

int image_folder_list(const char *path, image_folder *out, io_error *error) {
    *out = (image_folder){ 0 };
    names inside;
    int failed = list_folder(path, &inside, error);
    if (!failed) failed = list_classes(path, &inside, out, error);
    names_free(&inside);
    if (failed) image_folder_free(out);
    return failed;
}

void image_folder_free(image_folder *f) {
    for (size_t i = 0; i < f->n_files; i++) free(f->files[i].path);
    for (size_t i = 0; i < f->n_labels; i++) free(f->labels[i]);
    free(f->files);
    free(f->labels);
    *f = (image_folder){ 0 };
}
