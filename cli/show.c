/* SPDX-License-Identifier: Apache-2.0 */
/* Arrays as tables. See show.h. */
#include "show.h"

#include <stdio.h>
#include <string.h>

#include "arrays.h"

/* Of longer axes this many are shown from each end. */
enum { EDGE_ROWS = 10, EDGE_COLUMNS = 5, EDGE_MATRICES = 3, WIDTH = 12 };

/* The index after i, stepping over the middle of a long axis; *gap says that something was left out. */
static int64_t next_index(int64_t i, int64_t n, int64_t edge, bool *gap) {
    *gap = n > 2 * edge && i == edge - 1;
    return *gap ? n - edge : i + 1;
}

static void add_row(text *out, const attn_tensor *t, int64_t row, int64_t columns) {
    bool gap = false;
    for (int64_t j = 0; j < columns; j = next_index(j, columns, EDGE_COLUMNS, &gap)) {
        if (gap) text_add(out, " ...");
        text_add(out, "%*.6g", WIDTH, array_element(t, row * columns + j));
    }
    text_add(out, "\n");
}

static void add_matrix(text *out, const attn_tensor *t, int64_t first_row, int64_t rows, int64_t columns) {
    bool gap = false;
    for (int64_t i = 0; i < rows; i = next_index(i, rows, EDGE_ROWS, &gap)) {
        if (gap) text_add(out, "%*s\n", WIDTH, "...");
        add_row(out, t, first_row + i, columns);
    }
}

void show_array(text *out, const attn_tensor *t) {
    text_add(out, "%s [", npy_dtype_name(t->dtype));
    for (int32_t axis = 0; axis < t->rank; axis++) text_add(out, "%s%lld", axis ? ", " : "", (long long)t->shape[axis]);
    text_add(out, "]\n");
    int64_t columns = t->rank > 0 ? t->shape[t->rank - 1] : 1;
    int64_t rows = t->rank > 1 ? t->shape[t->rank - 2] : 1;
    int64_t matrices = 1;
    for (int32_t axis = 0; axis < t->rank - 2; axis++) matrices *= t->shape[axis];
    if (columns == 0 || rows == 0) return;
    bool gap = false;
    for (int64_t m = 0; m < matrices; m = next_index(m, matrices, EDGE_MATRICES, &gap)) {
        if (gap) text_add(out, "...\n");
        if (t->rank > 2) {
            int64_t index[ATTN_MAX_RANK], rest = m;
            for (int32_t axis = t->rank - 3; axis >= 0; rest /= t->shape[axis--]) index[axis] = rest % t->shape[axis];
            text_add(out, "[");
            for (int32_t axis = 0; axis < t->rank - 2; axis++) text_add(out, "%lld, ", (long long)index[axis]);
            text_add(out, "...]\n");
        }
        add_matrix(out, t, m * rows, rows, columns);
    }
}
