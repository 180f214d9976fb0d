/* SPDX-License-Identifier: Apache-2.0 */
/* Walking several views of one shape together, element by element in row-major order, whatever their strides: in runs along the
 * last axis, after merging axes that are dense in all of them (so dense tensors are one long run). */
#ifndef ATTN_WALK_H
#define ATTN_WALK_H

#include <attn/attn.h>

#include <stdbool.h>

enum { ATTN_WALK_VIEWS = 4 };

typedef struct attn_walk {
    int32_t n_views, rank;
    int64_t count, run; /* elements; elements of one run */
    bool unit;          /* runs are dense in every view */
    int64_t shape[ATTN_MAX_RANK];
    int64_t stride[ATTN_WALK_VIEWS][ATTN_MAX_RANK];
    char *data[ATTN_WALK_VIEWS];
    int32_t dtype[ATTN_WALK_VIEWS];
    size_t size[ATTN_WALK_VIEWS]; /* bytes of an element */
} attn_walk;

/* The views share their shape; they were checked. */
attn_walk attn_walk_of(int32_t n_views, const attn_tensor *const views[]);

/* Part of a run: n elements of each view, `stride[i]` apart, the first being element `position` of the whole. */
typedef void (*attn_run)(void *context, char *const data[], const int64_t stride[], int64_t n, int64_t position);

/* Calls `run` for elements [begin, end), in order. */
void attn_walk_strided(const attn_walk *w, int64_t begin, int64_t end, attn_run run, void *context);

/* The same for kernels, which want stride 1: runs that are not dense pass through a buffer, in pieces. Views i with bit i of
 * `reads` set are copied in, those of `writes` back. Elements of 4 or 8 bytes. */
void attn_walk_dense(const attn_walk *w, int64_t begin, int64_t end, unsigned reads, unsigned writes, attn_run run,
                     void *context);

/* n elements of `size` bytes (2, 4 or 8), `from` and `to` elements apart. */
void attn_copy_strided(size_t size, int64_t n, const void *source, int64_t from, void *target, int64_t to);

/* n floats of `dtype`, `step` apart, one behind the other as F32 or F64 (`as`, whose kernels convert); and back, rounded once. */
struct attn_convert_kernels;
void attn_read_strided(const struct attn_convert_kernels *convert, int32_t as, int64_t n, const void *from, int32_t dtype,
                       int64_t step, void *to);
void attn_write_strided(const struct attn_convert_kernels *convert, int32_t as, int64_t n, const void *from, void *to,
                        int32_t dtype, int64_t step);

#endif
