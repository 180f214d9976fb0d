/* SPDX-License-Identifier: Apache-2.0 */
/* attn_gate and its gradients: element by element, whatever the strides. */
#include "exec.h"
#include "rows.h"
#include "status.h"

#include "ref/gate.h"

enum { GATE_X, GATE_G, GATE_Y, GATE_DY = GATE_Y, GATE_DX, GATE_DG, GATE_TENSORS };
enum { ITEM_ELEMENTS = 4096 };

typedef struct gate_run {
    attn_rows rows;
    int32_t kind;
    int64_t block;
} gate_run;

static ref_vector row_at(const gate_run *run, const attn_rows_block *b, int32_t t, int64_t row) {
    const attn_rows_tensor *r = &run->rows.t[t];
    if (!r->data) return (ref_vector){ 0 };
    return (ref_vector){ .data = b->data[t] + row * b->next[t] * (int64_t)attn_dtype_size(r->dtype),
                         .stride = r->step,
                         .dtype = r->dtype };
}

static void do_block(void *context, int64_t item, void *scratch) {
    (void)scratch;
    const gate_run *run = context;
    attn_rows_block b = attn_rows_at(&run->rows, run->block, item);
    for (int64_t r = 0; r < b.count; r++) {
        ref_vector x = row_at(run, &b, GATE_X, r), g = row_at(run, &b, GATE_G, r), y = row_at(run, &b, GATE_Y, r);
        for (int64_t i = 0; i < run->rows.n; i++) ref_put(y, i, ref_gate(run->kind, ref_get(x, i), ref_get(g, i)));
    }
}

static void do_block_backward(void *context, int64_t item, void *scratch) {
    (void)scratch;
    const gate_run *run = context;
    attn_rows_block b = attn_rows_at(&run->rows, run->block, item);
    for (int64_t r = 0; r < b.count; r++) {
        ref_vector x = row_at(run, &b, GATE_X, r), g = row_at(run, &b, GATE_G, r), dy = row_at(run, &b, GATE_DY, r);
        ref_vector dx = row_at(run, &b, GATE_DX, r), dg = row_at(run, &b, GATE_DG, r);
        for (int64_t i = 0; i < run->rows.n; i++) {
            double dxi, dgi;
            ref_gate_backward(run->kind, ref_get(x, i), ref_get(g, i), ref_get(dy, i), &dxi, &dgi);
            if (dx.data) ref_put(dx, i, dxi);
            if (dg.data) ref_put(dg, i, dgi);
        }
    }
}

static attn_status check_like(const char *name, const attn_tensor *t, const attn_tensor *x, bool output) {
    char text[ATTN_SHAPE_TEXT], wanted[ATTN_SHAPE_TEXT];
    attn_status s = output ? attn_check_output(name, t, x->rank, x->rank) : attn_check_tensor(name, t, x->rank, x->rank);
    if (s != ATTN_OK) return s;
    if (!attn_same_shape(t, x))
        return attn_fail(ATTN_BAD_SHAPE, "%s has shape %s, x has %s", name, attn_shape_text(t, text), attn_shape_text(x, wanted));
    if (t->dtype != x->dtype)
        return attn_fail(ATTN_BAD_ARGUMENT, "%s is %s, x is %s", name, attn_dtype_name(t->dtype), attn_dtype_name(x->dtype));
    return ATTN_OK;
}

/* What forward and backward share: kind, flags, reserved words, x and g. */
static attn_status check_args(const attn_gate_args *a) {
    if (!a) return attn_fail(ATTN_BAD_ARGUMENT, "the gate has no arguments");
    if (a->kind < ATTN_GATE_SIGMOID || a->kind > ATTN_GATE_MULTIPLICATIVE)
        return attn_fail(ATTN_BAD_ARGUMENT, "kind is %d, which no gate has", (int)a->kind);
    if (a->flags) return attn_fail(ATTN_BAD_ARGUMENT, "flags 0x%x mean nothing to a gate", a->flags);
    attn_status s = attn_check_reserved("attn_gate_args", a->reserved, sizeof a->reserved / sizeof *a->reserved);
    if (s == ATTN_OK) s = attn_check_tensor("x", &a->x, 0, ATTN_MAX_RANK);
    if (s == ATTN_OK && !attn_present(&a->x)) s = attn_fail(ATTN_BAD_ARGUMENT, "x is missing");
    if (s == ATTN_OK && !attn_dtype_is_float(a->x.dtype))
        s = attn_fail(ATTN_BAD_ARGUMENT, "x is %s; it has to be a float tensor", attn_dtype_name(a->x.dtype));
    return s == ATTN_OK ? check_like("g", &a->g, &a->x, false) : s;
}

static attn_status run_gate(const attn_tensor *const tensors[GATE_TENSORS], int32_t kind, attn_work work, const attn_exec *exec) {
    attn_session session;
    attn_tensor with_axis[GATE_TENSORS] = { { 0 } };
    const attn_tensor *views[GATE_TENSORS] = { NULL };
    gate_run run = { .kind = kind };
    if (attn_count(tensors[GATE_X]) == 0) return ATTN_OK;
    for (int t = 0; t < GATE_TENSORS; t++) {
        if (!tensors[t] || !attn_present(tensors[t])) continue;
        with_axis[t] = *tensors[t];
        if (with_axis[t].rank == 0) { /* a scalar is a row of one */
            with_axis[t].rank = 1;
            with_axis[t].shape[0] = with_axis[t].stride[0] = 1;
        }
        views[t] = &with_axis[t];
    }
    attn_rows_make(&run.rows, GATE_TENSORS, views);
    run.block = run.rows.n < ITEM_ELEMENTS ? ITEM_ELEMENTS / run.rows.n : 1;
    attn_status s = attn_session_open(&session, exec, (attn_need){ 0 });
    if (s != ATTN_OK) return s;
    attn_session_run(&session, attn_rows_blocks(&run.rows, run.block), work, &run);
    attn_session_close(&session);
    return ATTN_OK;
}

attn_status attn_gate(const attn_gate_args *a, const attn_exec *exec) {
    attn_status s = check_args(a);
    if (s == ATTN_OK) s = check_like("y", &a->y, &a->x, true);
    if (s != ATTN_OK) return s;
    return run_gate((const attn_tensor *const[GATE_TENSORS]){ [GATE_X] = &a->x, [GATE_G] = &a->g, [GATE_Y] = &a->y }, a->kind,
                    do_block, exec);
}

attn_status attn_gate_backward(const attn_gate_args *a, const attn_gate_grads *g, const attn_exec *exec) {
    attn_status s = check_args(a);
    if (s == ATTN_OK && !g) s = attn_fail(ATTN_BAD_ARGUMENT, "the gate has no gradients to work on");
    if (s == ATTN_OK) s = attn_check_reserved("attn_gate_grads", g->reserved, sizeof g->reserved / sizeof *g->reserved);
    if (s == ATTN_OK) s = check_like("dy", &g->dy, &a->x, false);
    if (s == ATTN_OK && attn_present(&g->dx)) s = check_like("dx", &g->dx, &a->x, true);
    if (s == ATTN_OK && attn_present(&g->dg)) s = check_like("dg", &g->dg, &a->x, true);
    if (s != ATTN_OK) return s;
    return run_gate(
        (const attn_tensor *const[GATE_TENSORS]){
            [GATE_X] = &a->x, [GATE_G] = &a->g, [GATE_DY] = &g->dy, [GATE_DX] = &g->dx, [GATE_DG] = &g->dg },
        a->kind, do_block_backward, exec);
}
