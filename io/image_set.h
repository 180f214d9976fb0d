/* SPDX-License-Identifier: Apache-2.0 */
/* Labelled pictures in memory, all of one size: what training and evaluation read, whether they came from IDX files or from a
 * folder of PNG and JPEG. */
#ifndef ATTN_IO_IMAGE_SET_H
#define ATTN_IO_IMAGE_SET_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"

typedef struct image_set_options {
    int32_t width, height; /* 0: as the files are (folders: as the first picture; pictures of another size are resized to it) */
    int32_t channels;      /* 1 or 3; 0: as the files are (folders: 3 if any picture has colour) */
} image_set_options;

typedef struct image_set {
    size_t n;
    int32_t width, height, channels;
    uint8_t *pixels;    /* [n, height, width, channels] */
    int32_t *labels;    /* [n], indices into label_names */
    char **label_names; /* folders: the sub-folders, sorted; IDX: "0", "1", ... to the largest label in the file */
    size_t n_labels;
    char **names;               /* [n] where each picture came from; NULL for IDX */
    size_t n_unreadable;        /* pictures of a folder left out because they could not be decoded */
    char first_unreadable[512]; /* why, for the first of them */
} image_set;

/* `path`: an IDX images file (its labels beside it), or a folder with one sub-folder of pictures per class. See data.h for folders
 * that hold both halves. *out needs no preparation and is empty after a failure. options may be NULL. */
int image_set_read(const char *path, const image_set_options *options, image_set *out, io_error *error);
void image_set_free(image_set *s);

#endif
