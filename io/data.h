/* SPDX-License-Identifier: Apache-2.0 */
/* What a DATA argument is: a table of texts, IDX images, or a folder of pictures; and where its halves are. */
#ifndef ATTN_IO_DATA_H
#define ATTN_IO_DATA_H

#include <stdbool.h>

#include "error.h"

enum { DATA_TABLE = 1, DATA_IDX, DATA_IMAGE_FOLDER };
enum { DATA_TRAIN = 0, DATA_TEST };

typedef struct data_source {
    int kind;        /* DATA_TABLE: for table_read; DATA_IDX, DATA_IMAGE_FOLDER: for image_set_read */
    bool has_halves; /* the folder holds a train and a test half, and `path` is the one asked for */
    char path[4096]; /* what to read */
} data_source;

/* A file is IDX by its first bytes, else a table. A folder is the four MNIST-style IDX files; or train and test (or valid, val),
 * each a table (.csv, .tsv, .jsonl, .txt) or a folder with one sub-folder of pictures per class; or one such folder alone. Data
 * without halves is the same for both. */
int data_find(const char *path, int half, data_source *out, io_error *error);

#endif
