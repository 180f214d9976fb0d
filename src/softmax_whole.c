/* SPDX-License-Identifier: Apache-2.0 */
/* Rows and columns of softmax as a whole. */
#include "softmax_whole.h"
#include "exec.h"

/* Bytes of results that do not stay in a cache anyway: written past it, their lines are not read first. */
enum { STREAM_BYTES = 16 << 20 };
/* What one worker brings near at a time: it is to stay in the second cache. Columns that long rows leave less room for come by the line
 * of memory, up to COLUMNS_LIMIT. */
enum { ROOM_BYTES = 256 << 10, NEAR_BYTES = 1 << 20, COLUMNS_LIMIT = 4 << 20, LINE_BYTES = 64 };

/* Whether y goes past the caches. Its rows, or the lines of its columns, have to begin at multiples of `alignment`. */
static bool worth_streaming(const attn_rows *rows, bool columns, int64_t alignment) {
    const attn_rows_tensor *x = &rows->t[SCORES_X], *y = &rows->t[SCORES_Y];
    const int64_t size = (int64_t)attn_dtype_size(y->dtype);
    int64_t bytes = rows->n * size;
    bool aligned = (uintptr_t)y->data % (uintptr_t)alignment == 0 && (!columns || y->step * size % alignment == 0);
    for (int32_t a = 0; a < rows->axes; a++) {
        bytes *= rows->extent[a];
        if (!columns || a < rows->axes - 1) aligned = aligned && y->stride[a] * size % alignment == 0;
    }
    return aligned && size > 2 && y->data != x->data && bytes >= STREAM_BYTES;
}

static bool too_small(const attn_exec *exec, size_t per_worker) {
    attn_need need = { .per_worker = per_worker };
    return exec && exec->workspace && exec->workspace_size < attn_need_bytes(need, exec->n_threads);
}

/* Long rows want a room where y cannot hold exponentials. Without one they are not streamed, or taken twice. */
static void plan_rows(attn_whole_run *run, const attn_kernels *k, const attn_exec *exec) {
    const attn_rows *rows = &run->job->rows;
    const size_t row = (size_t)(rows->n + k->lanes) * attn_dtype_size(k->dtype);
    const bool own = rows->t[SCORES_X].dtype == k->dtype && rows->t[SCORES_Y].dtype == k->dtype;
    run->stream = own && worth_streaming(rows, false, 16);
    run->block = attn_rows_per_item(rows->n, 1);
    bool room = row <= ROOM_BYTES && !too_small(exec, row);
    if (rows->n <= ATTN_ROOM) return;
    if ((run->stream || !own) && room) run->bytes = row;
    run->stream = run->stream && room;
}

static bool plan_columns(attn_whole_run *run, const attn_kernels *k, const attn_exec *exec) {
    const attn_rows *rows = &run->job->rows;
    const int64_t size = (int64_t)attn_dtype_size(k->dtype), line = LINE_BYTES / size;
    int64_t columns = NEAR_BYTES / size / rows->n / line * line;
    columns = columns < line ? line : columns > ATTN_COLUMNS ? ATTN_COLUMNS : columns;
    run->bytes = (size_t)(columns * (rows->n + 1) * size);
    run->block = columns;
    run->columns = true;
    run->stream = rows->t[SCORES_Y].dtype == k->dtype && worth_streaming(rows, true, LINE_BYTES);
    return run->bytes <= COLUMNS_LIMIT && !too_small(exec, run->bytes);
}

bool attn_plan_whole(attn_whole_run *run, const score_job *job, const attn_kernels *k, const attn_exec *exec) {
    const attn_rows_tensor *x = &job->rows.t[SCORES_X], *y = &job->rows.t[SCORES_Y];
    const int32_t inner = job->rows.axes - 1;
    *run = (attn_whole_run){ .job = job, .k = &k->softmax };
    if (job->result > RESULT_LOG_SOFTMAX) return false;
    if (x->step == 1 && y->step == 1) {
        plan_rows(run, k, exec);
        return true;
    }
    return x->stride[inner] == 1 && y->stride[inner] == 1 && plan_columns(run, k, exec);
}

static void do_block(void *context, int64_t item, void *scratch) {
    const attn_whole_run *run = context;
    const attn_rows *rows = &run->job->rows;
    const attn_rows_block b = attn_rows_at(rows, run->block, item);
    const attn_rows_tensor *x = &rows->t[SCORES_X], *y = &rows->t[SCORES_Y];
    const bool logarithmic = run->job->result == RESULT_LOG_SOFTMAX;
    if (run->columns)
        run->k->columns(&(attn_softmax_columns){ .logarithmic = logarithmic,
                                                 .stream = run->stream,
                                                 .x_dtype = x->dtype,
                                                 .y_dtype = y->dtype,
                                                 .columns = b.count,
                                                 .n = rows->n,
                                                 .x = b.data[SCORES_X],
                                                 .x_step = x->step,
                                                 .y = b.data[SCORES_Y],
                                                 .y_step = y->step,
                                                 .room = scratch });
    else
        run->k->rows(&(attn_softmax_rows){ .logarithmic = logarithmic,
                                           .stream = run->stream,
                                           .room = run->bytes ? scratch : NULL,
                                           .x_dtype = x->dtype,
                                           .y_dtype = y->dtype,
                                           .rows = b.count,
                                           .n = rows->n,
                                           .x = b.data[SCORES_X],
                                           .x_row = b.next[SCORES_X],
                                           .y = b.data[SCORES_Y],
                                           .y_row = b.next[SCORES_Y] });
}

attn_status attn_run_whole(const attn_whole_run *run, const attn_exec *exec) {
    attn_session session;
    attn_status status = attn_session_open(&session, exec, (attn_need){ .per_worker = run->bytes });
    if (status != ATTN_OK) return status;
    attn_session_run(&session, attn_rows_blocks(&run->job->rows, run->block), do_block, (void *)run);
    attn_session_close(&session);
    return ATTN_OK;
}
