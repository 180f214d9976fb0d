/* SPDX-License-Identifier: Apache-2.0 */
/* Walking several views of one shape together. */
#include "walk.h"
#include "kernels/kernels.h"
#include "ref/element.h"
#include "tensor.h"

#include <string.h>

/* Elements of a piece that passes through the buffer: four views of 8-byte elements take 8 KB of stack. */
enum { PIECE = 256 };

/* Axis `outer` directly continues axis `inner` in every view: walking both is walking one of their product. */
static bool continues(const attn_tensor *const views[], int32_t n_views, int32_t outer, int64_t extent, const int64_t inner[]) {
    for (int32_t i = 0; i < n_views; i++)
        if (views[i]->stride[outer] != inner[i] * extent) return false;
    return true;
}

attn_walk attn_walk_of(int32_t n_views, const attn_tensor *const views[]) {
    attn_walk w = { .n_views = n_views, .rank = 1, .count = attn_count(views[0]) };
    int64_t extent[ATTN_MAX_RANK] = { 1 }, stride[ATTN_MAX_RANK][ATTN_WALK_VIEWS] = { 0 }; /* innermost first */
    for (int32_t i = 0; i < n_views; i++) stride[0][i] = 1;
    for (int32_t axis = views[0]->rank - 1, at = 0; axis >= 0; axis--) {
        if (views[0]->shape[axis] == 1) continue;
        if (extent[at] > 1) {
            if (continues(views, n_views, axis, extent[at], stride[at])) {
                extent[at] *= views[0]->shape[axis];
                continue;
            }
            at = w.rank++;
        }
        extent[at] = views[0]->shape[axis];
        for (int32_t i = 0; i < n_views; i++) stride[at][i] = views[i]->stride[axis];
    }
    w.run = extent[0];
    w.unit = true;
    for (int32_t i = 0; i < n_views; i++) {
        w.data[i] = views[i]->data;
        w.dtype[i] = views[i]->dtype;
        w.size[i] = attn_dtype_size(views[i]->dtype);
        if (stride[0][i] != 1 && w.run > 1) w.unit = false;
    }
    for (int32_t axis = 0; axis < w.rank; axis++) {
        w.shape[axis] = extent[w.rank - 1 - axis];
        for (int32_t i = 0; i < n_views; i++) w.stride[i][axis] = stride[w.rank - 1 - axis][i];
    }
    return w;
}

/* The addresses of element `position` of the views. */
static void locate(const attn_walk *w, int64_t position, char *data[]) {
    for (int32_t i = 0; i < w->n_views; i++) data[i] = w->data[i];
    for (int32_t axis = w->rank - 1; axis >= 0; axis--) {
        int64_t index = position % w->shape[axis];
        position /= w->shape[axis];
        for (int32_t i = 0; i < w->n_views; i++) data[i] += index * w->stride[i][axis] * (int64_t)w->size[i];
    }
}

void attn_walk_strided(const attn_walk *w, int64_t begin, int64_t end, attn_run run, void *context) {
    int64_t stride[ATTN_WALK_VIEWS] = { 0 };
    for (int32_t i = 0; i < w->n_views; i++) stride[i] = w->stride[i][w->rank - 1];
    while (begin < end) {
        char *data[ATTN_WALK_VIEWS] = { 0 };
        int64_t n = w->run - begin % w->run;
        if (n > end - begin) n = end - begin;
        locate(w, begin, data);
        run(context, data, stride, n, begin);
        begin += n;
    }
}

void attn_copy_strided(size_t size, int64_t n, const void *source, int64_t from, void *target, int64_t to) {
    const char *s = source;
    char *t = target;
    if (from == 1 && to == 1) {
        memmove(t, s, (size_t)n * size);
        return;
    }
    switch (size) { /* memcpy of a known size is one move, and may alias anything */
    case 2:
        for (int64_t i = 0; i < n; i++) memcpy(t + 2 * i * to, s + 2 * i * from, 2);
        break;
    case 4:
        for (int64_t i = 0; i < n; i++) memcpy(t + 4 * i * to, s + 4 * i * from, 4);
        break;
    default:
        for (int64_t i = 0; i < n; i++) memcpy(t + 8 * i * to, s + 8 * i * from, 8);
        break;
    }
}

void attn_read_strided(const attn_convert_kernels *convert, int32_t as, int64_t n, const void *from, int32_t dtype, int64_t step,
                       void *to) {
    if (dtype == as)
        attn_copy_strided(attn_dtype_size(as), n, from, step, to, 1);
    else if (step == 1)
        convert->widen(from, dtype, n, to);
    else
        for (int64_t i = 0; i < n; i++) ref_store(to, as, i, ref_load(from, dtype, i * step));
}

void attn_write_strided(const attn_convert_kernels *convert, int32_t as, int64_t n, const void *from, void *to, int32_t dtype,
                        int64_t step) {
    if (dtype == as)
        attn_copy_strided(attn_dtype_size(as), n, from, 1, to, step);
    else if (step == 1)
        convert->narrow(from, n, dtype, to);
    else
        for (int64_t i = 0; i < n; i++) ref_store(to, dtype, i * step, ref_load(from, as, i));
}

/* What buffers a run for a kernel that wants stride 1. */
typedef struct buffered {
    const attn_walk *walk;
    unsigned reads, writes;
    attn_run run;
    void *context;
} buffered;

static void run_buffered(void *context, char *const data[], const int64_t stride[], int64_t n, int64_t position) {
    static const int64_t dense[ATTN_WALK_VIEWS] = { 1, 1, 1, 1 };
    const buffered *b = context;
    uint64_t buffer[ATTN_WALK_VIEWS][PIECE];
    char *at[ATTN_WALK_VIEWS] = { 0 };
    for (int64_t begin = 0; begin < n; begin += PIECE) {
        int64_t piece = n - begin < PIECE ? n - begin : PIECE;
        for (int32_t i = 0; i < b->walk->n_views; i++) {
            char *first = data[i] + begin * stride[i] * (int64_t)b->walk->size[i];
            at[i] = (char *)buffer[i];
            if (b->reads >> i & 1) attn_copy_strided(b->walk->size[i], piece, first, stride[i], at[i], 1);
        }
        b->run(b->context, at, dense, piece, position + begin);
        for (int32_t i = 0; i < b->walk->n_views; i++) {
            char *first = data[i] + begin * stride[i] * (int64_t)b->walk->size[i];
            if (b->writes >> i & 1) attn_copy_strided(b->walk->size[i], piece, at[i], 1, first, stride[i]);
        }
    }
}

void attn_walk_dense(const attn_walk *w, int64_t begin, int64_t end, unsigned reads, unsigned writes, attn_run run,
                     void *context) {
    buffered b = { .walk = w, .reads = reads, .writes = writes, .run = run, .context = context };
    if (w->unit)
        attn_walk_strided(w, begin, end, run, context);
    else
        attn_walk_strided(w, begin, end, run_buffered, &b);
}
