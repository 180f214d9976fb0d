/* SPDX-License-Identifier: Apache-2.0 */
/* Labelled pictures of one size, from IDX files or from a folder per class. See image_set.h. */
#define _POSIX_C_SOURCE 200809L
#include "image_set.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "idx.h"
#include "image.h"
#include "path.h"

/* The picture as the set holds them: resized first, so that colours are mixed before they become gray. */
static int fit(const image *in, const image_set *s, image *out, io_error *error) {
    image sized;
    int failed = image_resize(in, s->width, s->height, &sized, error);
    if (failed) return failed;
    failed = image_with_channels(&sized, s->channels, out, error);
    image_free(&sized);
    return failed;
}

static size_t picture_size(const image_set *s) { return (size_t)s->width * (size_t)s->height * (size_t)s->channels; }

/* Room for n pictures and their labels. */
static int allocate(image_set *s, size_t n, io_error *error) {
    size_t bytes;
    if (__builtin_mul_overflow(picture_size(s), n, &bytes)) return io_no_memory(error, "the pictures", SIZE_MAX);
    s->pixels = malloc(bytes ? bytes : 1);
    s->labels = calloc(n ? n : 1, sizeof *s->labels);
    return s->pixels && s->labels ? IO_OK : io_no_memory(error, "the pictures", bytes);
}

/* ---- IDX ---------------------------------------------------------------------------------------------------- */

static int check_pictures(const idx *pictures, const char *path, io_error *error) {
    const int64_t *shape = pictures->shape;
    if (pictures->rank != 3 && !(pictures->rank == 4 && (shape[3] == 1 || shape[3] == 3)))
        return io_fail(error, IO_BAD_DATA, "%s has rank %d; pictures are [n, height, width] or [n, height, width, 1 or 3]", path,
                       pictures->rank);
    if (pictures->size == 0) return io_fail(error, IO_BAD_DATA, "%s holds no pictures", path);
    if (shape[1] > IMAGE_MAX_SIDE || shape[2] > IMAGE_MAX_SIDE || shape[1] * shape[2] > IMAGE_MAX_PIXELS)
        return io_fail(error, IO_BAD_DATA, "%s holds pictures of %lldx%lld pixels; at most %d are read", path,
                       (long long)shape[2], (long long)shape[1], IMAGE_MAX_PIXELS);
    return IO_OK;
}

/* Labels from their file, and a name for each number up to the largest. */
static int take_labels(const idx *labels, const char *path, image_set *s, io_error *error) {
    if (labels->rank != 1) return io_fail(error, IO_BAD_DATA, "%s has rank %d; labels have rank 1", path, labels->rank);
    if (labels->size != s->n)
        return io_fail(error, IO_BAD_DATA, "%s holds %zu labels for %zu pictures", path, labels->size, s->n);
    size_t largest = 0;
    for (size_t i = 0; i < s->n; i++) {
        s->labels[i] = labels->data[i];
        if (labels->data[i] > largest) largest = labels->data[i];
    }
    s->label_names = calloc(largest + 1, sizeof *s->label_names);
    if (!s->label_names) return io_no_memory(error, "the labels", largest);
    for (; s->n_labels <= largest; s->n_labels++) {
        char name[8];
        snprintf(name, sizeof name, "%zu", s->n_labels);
        if (!(s->label_names[s->n_labels] = strdup(name))) return io_no_memory(error, "the labels", largest);
    }
    return IO_OK;
}

static int take_pictures(const idx *pictures, image_set *s, io_error *error) {
    image in = { .width = (int32_t)pictures->shape[2],
                 .height = (int32_t)pictures->shape[1],
                 .channels = (int32_t)pictures->shape[3],
                 .pixels = pictures->data };
    size_t from = (size_t)in.width * (size_t)in.height * (size_t)in.channels, to = picture_size(s);
    if (in.width == s->width && in.height == s->height && in.channels == s->channels) {
        memcpy(s->pixels, pictures->data, pictures->size);
        return IO_OK;
    }
    for (size_t i = 0; i < s->n; i++, in.pixels += from) {
        image fitted;
        int failed = fit(&in, s, &fitted, error);
        if (failed) return failed;
        memcpy(s->pixels + i * to, fitted.pixels, to);
        image_free(&fitted);
    }
    return IO_OK;
}

static int read_idx(const char *path, const image_set_options *o, image_set *s, io_error *error) {
    char labels_path[4096];
    idx pictures = { 0 }, labels = { 0 };
    int failed = idx_labels_beside(path, labels_path, sizeof labels_path, error);
    if (!failed) failed = idx_read(path, &pictures, error);
    if (!failed) failed = check_pictures(&pictures, path, error);
    if (!failed) failed = idx_read(labels_path, &labels, error);
    if (!failed) {
        s->n = (size_t)pictures.shape[0];
        s->width = o->width ? o->width : (int32_t)pictures.shape[2];
        s->height = o->height ? o->height : (int32_t)pictures.shape[1];
        s->channels = o->channels ? o->channels : (int32_t)pictures.shape[3];
        failed = allocate(s, s->n, error);
    }
    if (!failed) failed = take_labels(&labels, labels_path, s, error);
    if (!failed) failed = take_pictures(&pictures, s, error);
    idx_free(&pictures);
    idx_free(&labels);
    return failed;
}

/* ---- folders -------------------------------------------------------------------------------------------------- */

/* Puts the next picture at the set's end. The first one that can be read settles a size that is not asked for. */
static int add_picture(image_file *file, size_t n_files, image_set *s, bool *colour, io_error *error) {
    image picture, fitted;
    io_error why = { 0 };
    int failed = image_read(file->path, &picture, &why);
    if (failed == IO_BAD_DATA) {
        if (s->n_unreadable++ == 0) memcpy(s->first_unreadable, why.message, sizeof s->first_unreadable);
        return IO_OK;
    }
    if (failed) return io_fail(error, failed, "%s", why.message);
    if (!s->width) s->width = picture.width;
    if (!s->height) s->height = picture.height;
    if (!s->pixels) failed = allocate(s, n_files, error);
    if (!failed) failed = fit(&picture, s, &fitted, error);
    *colour |= picture.channels == 3;
    image_free(&picture);
    if (failed) return failed;
    memcpy(s->pixels + s->n * picture_size(s), fitted.pixels, picture_size(s));
    image_free(&fitted);
    s->labels[s->n] = file->label;
    s->names[s->n++] = file->path;
    file->path = NULL;
    return IO_OK;
}

/* All pictures were gray: one channel of the three says it all. */
static void keep_one_channel(image_set *s) {
    size_t n = s->n * picture_size(s) / 3;
    for (size_t i = 0; i < n; i++) s->pixels[i] = s->pixels[3 * i];
    s->channels = 1;
}

static int read_folder(const char *path, const image_set_options *o, image_set *s, io_error *error) {
    image_folder folder;
    int failed = image_folder_list(path, &folder, error);
    if (failed) return failed;
    bool colour = false;
    s->width = o->width;
    s->height = o->height;
    s->channels = o->channels ? o->channels : 3;
    s->names = calloc(folder.n_files, sizeof *s->names);
    if (!s->names) failed = io_no_memory(error, "a list of files", folder.n_files * sizeof *s->names);
    for (size_t i = 0; !failed && i < folder.n_files; i++)
        failed = add_picture(&folder.files[i], folder.n_files, s, &colour, error);
    if (!failed && s->n == 0)
        failed = io_fail(error, IO_BAD_DATA, "%s: none of its %zu pictures can be read; the first: %s", path, folder.n_files,
                         s->first_unreadable);
    if (!failed && !o->channels && !colour) keep_one_channel(s);
    s->label_names = folder.labels;
    s->n_labels = folder.n_labels;
    folder.labels = NULL;
    folder.n_labels = 0;
    image_folder_free(&folder);
    return failed;
}

int image_set_read(const char *path, const image_set_options *options, image_set *out, io_error *error) {
    const image_set_options as_is = { 0 };
    const image_set_options *o = options ? options : &as_is;
    *out = (image_set){ 0 };
    if (o->width < 0 || o->height < 0 || o->width > IMAGE_MAX_SIDE || o->height > IMAGE_MAX_SIDE ||
        (o->channels != 0 && o->channels != 1 && o->channels != 3))
        return io_fail(error, IO_BAD_USAGE, "pictures of %dx%d pixels with %d channels cannot be asked for", o->width, o->height,
                       o->channels);
    int failed = path_is_folder(path) ? read_folder(path, o, out, error) : read_idx(path, o, out, error);
    if (failed) image_set_free(out);
    return failed;
}

void image_set_free(image_set *s) {
    for (size_t i = 0; s->names && i < s->n; i++) free(s->names[i]);
    for (size_t i = 0; i < s->n_labels; i++) free(s->label_names[i]);
    free(s->names);
    free(s->label_names);
    free(s->pixels);
    free(s->labels);
    *s = (image_set){ 0 };
}
