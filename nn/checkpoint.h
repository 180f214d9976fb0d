/* SPDX-License-Identifier: Apache-2.0 */
/* What a training needs to go on as if it had never stopped, in one file that is replaced at once or not at all. */
#ifndef ATTN_NN_CHECKPOINT_H
#define ATTN_NN_CHECKPOINT_H

#include "parameters.h"
#include "train.h"

typedef struct nn_checkpoint {
    const nn_parameters *layout;
    void *values, *first, *second, *best; /* buffers of that layout */
    nn_progress *progress;
    const char *settings; /* text that a resumed run must agree with */
} nn_checkpoint;

int nn_checkpoint_write(const nn_checkpoint *c, const char *path, io_error *error);
/* Fills in the buffers and *progress. IO_BAD_MODEL for a file that is missing, malformed or of another model; IO_BAD_USAGE where settings
 * differ. `build` (of `room` bytes) gets the build that wrote it where that is another one, else "". */
int nn_checkpoint_read(const nn_checkpoint *c, const char *path, char *build, size_t room, io_error *error);

#endif
