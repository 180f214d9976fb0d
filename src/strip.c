/* SPDX-License-Identifier: Apache-2.0 */
/* Strips of rows in dense memory. */
#include "strip.h"
#include "exec.h"

#include <string.h>

attn_strip attn_strip_of(const attn_rows *rows, const attn_rows_block *block, int32_t t, int64_t row) {
    attn_strip s = { .row = block->next[t], .step = rows->t[t].step, .size = attn_dtype_size(rows->t[t].dtype) };
    s.data = block->data[t] ? block->data[t] + row * s.row * (int64_t)s.size : NULL;
    return s;
}

void attn_strip_copy(const attn_softmax_kernels *k, int64_t rows, int64_t n, attn_strip from, attn_strip to) {
    if (from.step == 1 && to.step == 1) {
        for (int64_t r = 0; r < rows; r++)
            if (attn_strip_at(to, r, 0) != attn_strip_at(from, r, 0))
                memcpy(attn_strip_at(to, r, 0), attn_strip_at(from, r, 0), (size_t)n * from.size);
    } else if (from.row == 1 && to.step == 1) {
        k->transpose(n, rows, from.data, from.step, to.data, to.row);
    } else if (from.step == 1 && to.row == 1) {
        k->transpose(rows, n, from.data, from.row, to.data, to.step);
    } else {
        for (int64_t r = 0; r < rows; r++)
            for (int64_t j = 0; j < n; j++) memcpy(attn_strip_at(to, r, j), attn_strip_at(from, r, j), from.size);
    }
}

attn_strip_plan attn_strip_plan_for(int64_t n, size_t size, int32_t buffers, const attn_exec *exec) {
    attn_strip_plan stack = { .rows = STRIP_STACK_ROWS, .capacity = ATTN_ROW_PIECE };
    int64_t limit = STRIP_LIMIT / (STRIP_ROWS * (int64_t)size * buffers) / ATTN_ROW_PIECE * ATTN_ROW_PIECE;
    if (n <= ATTN_ROW_PIECE) return (attn_strip_plan){ .rows = STRIP_STACK_ROWS, .capacity = n };
    attn_strip_plan plan = { .rows = STRIP_ROWS, .capacity = n < limit ? n : limit };
    plan.bytes = (size_t)plan.capacity * STRIP_ROWS * size * (size_t)buffers;
    attn_need need = { .per_worker = plan.bytes };
    bool lent_too_small = exec && exec->workspace && exec->workspace_size < attn_need_bytes(need, exec->n_threads);
    return lent_too_small ? stack : plan;
}
