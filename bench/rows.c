/* SPDX-License-Identifier: Apache-2.0 */
/* softmax:[b64]r1024c256,f32[,axis0|axis1][,in-place][,backward][,log|softmin|sparsemax|entmax15|entmax|gumbel] and
 * cross-entropy:n4096c32768,f32 (loss and gradient). Measured in bytes, each read and written once: x and y, or y, dy and dx. */
#include "case.h"

#include <string.h>

typedef struct rows_call {
    attn_softmax_args softmax;
    attn_softmax_grads grads;
    attn_cross_entropy_args loss;
} rows_call;

static const struct {
    const char *name;
    int32_t op;
} ops[] = { { "log", ATTN_LOG_SOFTMAX },   { "softmin", ATTN_SOFTMIN }, { "sparsemax", ATTN_SPARSEMAX },
            { "entmax15", ATTN_ENTMAX15 }, { "entmax", ATTN_ENTMAX },   { "gumbel", ATTN_GUMBEL_SOFTMAX } };

static attn_status run_forward(void *call, const attn_exec *exec) { return attn_softmax(&((rows_call *)call)->softmax, exec); }
static attn_status run_backward(void *call, const attn_exec *exec) {
    rows_call *r = call;
    return attn_softmax_backward(&r->softmax, &r->grads, exec);
}
static attn_status run_loss(void *call, const attn_exec *exec) { return attn_cross_entropy(&((rows_call *)call)->loss, exec); }

/* x and y, and what a copy of one to the other moves. */
static rows_call *open_rows(bench_problem *p, bench_case *c, int32_t rank, const int64_t *shape, attn_tensor *x, attn_tensor *y) {
    size_t before = c->size;
    *x = bench_tensor(c, p->dtype, rank, shape);
    c->copy_size = c->size - before;
    *y = bench_tensor(c, p->dtype, rank, shape);
    c->copy_from = x->data;
    c->copy_to = y->data;
    rows_call *r = c->call = bench_memory(c, sizeof *r);
    if (r) *r = (rows_call){ 0 };
    return c->failed ? NULL : r;
}

static void open_softmax(bench_problem *p, bench_case *c, int32_t rank, const int64_t *shape) {
    attn_tensor x, y, dy;
    rows_call *r = open_rows(p, c, rank, shape, &x, &y);
    if (!r) return;
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (bench_problem_has(p, ops[i].name)) r->softmax.op = ops[i].op;
    bool in_place = bench_problem_has(p, "in-place");
    int32_t axis = bench_problem_has(p, "axis0") ? 0 : bench_problem_has(p, "axis1") ? 1 : -1;
    r->softmax.x = attn_axis_last(x, axis);
    r->softmax.y = attn_axis_last(y, axis);
    if (in_place) r->softmax.y = r->softmax.x;
    c->bytes = 2 * (double)c->copy_size;
    c->run = run_forward;
    if (!bench_problem_has(p, "backward")) return;
    dy = bench_tensor(c, p->dtype, rank, shape);
    if (c->failed) return;
    r->grads = (attn_softmax_grads){ .dy = attn_axis_last(dy, axis), .dx = r->softmax.x };
    c->bytes = 3 * (double)c->copy_size;
    c->run = run_backward;
}

static void open_loss(bench_problem *p, bench_case *c, const int64_t shape[2]) {
    attn_tensor x, y;
    const int64_t one = 1;
    rows_call *r = open_rows(p, c, 2, shape, &x, &y);
    if (!r) return;
    r->loss = (attn_cross_entropy_args){
        .logits = x, .dlogits = y, .labels = bench_labels(c, shape[0], shape[1]), .loss = bench_output(c, ATTN_F64, 1, &one)
    };
    c->bytes = 2 * (double)c->copy_size;
    c->run = run_loss;
}

int bench_rows(bench_problem *p, bench_case *c, io_error *error) {
    int64_t shape[3];
    bool softmax = strcmp(p->kind, "softmax") == 0, batch = p->size['b' - 'a'] > 0;
    int failed = bench_problem_sizes(p, softmax ? "brc" : "nc", shape, error);
    if (failed) return failed;
    if (softmax)
        open_softmax(p, c, batch ? 3 : 2, batch ? shape : shape + 1);
    else
        open_loss(p, c, shape);
    return IO_OK;
}
