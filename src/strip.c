/* SPDX-License-Identifier: Apache-2.0 */
/* Strips of rows in dense memory. */
#include "strip.h"
#include "exec.h"

#include "ref/element.h"

#include <string.h>

attn_strip attn_strip_of(const attn_rows *rows, const attn_rows_block *block, int32_t t, int64_t row) {
    attn_strip s = { .row = block->next[t], .step = rows->t[t].step, .dtype = rows->t[t].dtype };
    s.size = attn_dtype_size(s.dtype);
    s.data = block->data[t] ? block->data[t] + row * s.row * (int64_t)s.size : NULL;
    return s;
}

/* Elements of 16 bits that are widened or rounded at a time, on their way through a transposition. */
enum { TILE = 2048 };

/* The same where one of the types has 16 bits. */
static void convert(const attn_kernels *k, int64_t rows, int64_t n, attn_strip from, attn_strip to) {
    _Alignas(64) float tile[TILE];
    const int64_t most = rows > 0 ? TILE / rows : 0;
    if (from.step == 1 && to.step == 1) {
        for (int64_t r = 0; r < rows; r++)
            if (to.dtype == k->dtype)
                k->convert.widen(attn_strip_at(from, r, 0), from.dtype, n, attn_strip_at(to, r, 0));
            else
                k->convert.narrow(attn_strip_at(from, r, 0), n, to.dtype, attn_strip_at(to, r, 0));
    } else if (from.row == 1 && to.step == 1 && to.dtype == k->dtype && most > 0) {
        for (int64_t j = 0, m; j < n; j += m) {
            m = n - j < most ? n - j : most;
            for (int64_t i = 0; i < m; i++) k->convert.widen(attn_strip_at(from, 0, j + i), from.dtype, rows, tile + i * rows);
            k->softmax.transpose(m, rows, tile, rows, attn_strip_at(to, 0, j), to.row);
        }
    } else if (from.step == 1 && to.row == 1 && from.dtype == k->dtype && most > 0) {
        for (int64_t j = 0, m; j < n; j += m) {
            m = n - j < most ? n - j : most;
            k->softmax.transpose(rows, m, attn_strip_at(from, 0, j), from.row, tile, rows);
            for (int64_t i = 0; i < m; i++) k->convert.narrow(tile + i * rows, rows, to.dtype, attn_strip_at(to, 0, j + i));
        }
    } else {
        for (int64_t r = 0; r < rows; r++)
            for (int64_t j = 0; j < n; j++)
                ref_store(attn_strip_at(to, r, j), to.dtype, 0, ref_load(attn_strip_at(from, r, j), from.dtype, 0));
    }
}

void attn_strip_copy(const attn_kernels *k, int64_t rows, int64_t n, attn_strip from, attn_strip to) {
    if (from.dtype != to.dtype) {
        convert(k, rows, n, from, to);
    } else if (from.step == 1 && to.step == 1) {
        for (int64_t r = 0; r < rows; r++)
            if (attn_strip_at(to, r, 0) != attn_strip_at(from, r, 0))
                memcpy(attn_strip_at(to, r, 0), attn_strip_at(from, r, 0), (size_t)n * from.size);
    } else if (from.row == 1 && to.step == 1) {
        k->softmax.transpose(n, rows, from.data, from.step, to.data, to.row);
    } else if (from.step == 1 && to.row == 1) {
        k->softmax.transpose(rows, n, from.data, from.row, to.data, to.step);
    } else {
        for (int64_t r = 0; r < rows; r++)
            for (int64_t j = 0; j < n; j++) memcpy(attn_strip_at(to, r, j), attn_strip_at(from, r, j), from.size);
    }
}

/* Rows a power of two apart would compete for the same few lines of the cache: they are an odd number of lines apart. */
static int64_t row_apart(int64_t capacity, int64_t line) { return ((capacity + line - 1) / line | 1) * line; }

attn_strip_plan attn_strip_plan_for(int64_t n, size_t size, int32_t buffers, bool dense, const attn_exec *exec) {
    const attn_strip_plan stack = { .rows = STRIP_STACK_ROWS * 8 / (int64_t)size,
                                    .capacity = n < ATTN_ROW_PIECE ? n : ATTN_ROW_PIECE,
                                    .row = ATTN_ROW_PIECE };
    const int64_t line = 64 / (int64_t)size, fewest = dense ? 1 : STRIP_FEWEST;
    const int64_t limit = (dense ? STRIP_NEAR : STRIP_LIMIT) / ((int64_t)size * buffers); /* elements */
    if (n == 0) return stack;
    attn_strip_plan plan = { .capacity = n };
    if (n > limit / fewest) plan.capacity = limit / fewest / ATTN_ROW_PIECE * ATTN_ROW_PIECE;
    plan.rows = limit / plan.capacity / fewest * fewest;
    if (plan.rows > STRIP_ROWS) plan.rows = STRIP_ROWS;
    plan.row = row_apart(plan.capacity, line);
    plan.bytes = (size_t)(plan.row * plan.rows) * size * (size_t)buffers;
    attn_need need = { .per_worker = plan.bytes };
    bool lent_too_small = exec && exec->workspace && exec->workspace_size < attn_need_bytes(need, exec->n_threads);
    return lent_too_small ? stack : plan;
}
