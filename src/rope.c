/* SPDX-License-Identifier: Apache-2.0 */
/* attn_rope and its gradient: checks, and every head of every position turned in pieces that stand on the stack. */
#include "exec.h"
#include "operand.h"
#include "status.h"
#include "walk.h"

#include "ref/rope.h"

#include <attn/ops.h>

/* Elements of a work item, at least; pairs that are gathered at a time where they do not lie side by side. */
enum { CHUNK = 8192, PIECE = 256 };

typedef struct rope_job {
    attn_tensor x, y, cos, sin, positions; /* x and y are [batch, heads, length, dim] */
    const attn_kernels *kernels;
    ref_rope r;
    int64_t places; /* of an item: pairs of a batch index and a position */
} rope_job;

/* ---- checks ------------------------------------------------------------------------------------------------ */

/* Rank 3 as rank 4. */
static attn_tensor with_heads(const attn_tensor *t, int64_t heads) {
    if (t->rank == 4) return *t;
    int64_t dim = t->shape[2] / heads;
    return (
        attn_tensor){ .data = t->data,
                      .dtype = t->dtype,
                      .rank = 4,
                      .shape = { t->shape[0], heads, t->shape[1], dim },
                      .stride = { t->stride[0], (int64_t)((uint64_t)dim * (uint64_t)t->stride[2]), t->stride[1], t->stride[2] } };
}

static attn_status check_heads(const char *name, const attn_tensor *x, int64_t heads) {
    if (x->rank == 4 && heads)
        return attn_fail(ATTN_BAD_ARGUMENT, "heads is %lld, and %s of rank 4 has its own: leave it 0", (long long)heads, name);
    if (x->rank == 3 && heads <= 0)
        return attn_fail(ATTN_BAD_ARGUMENT, "heads is %lld: %s of rank 3 needs to be told how many it has", (long long)heads,
                         name);
    if (x->rank == 3 && x->shape[2] % heads)
        return attn_fail(ATTN_BAD_SHAPE, "%s has %lld columns, which %lld heads do not share evenly", name,
                         (long long)x->shape[2], (long long)heads);
    return ATTN_OK;
}

static attn_status check_rotary_dim(int64_t rotary_dim, int64_t dim) {
    if (rotary_dim < 0 || rotary_dim > dim)
        return attn_fail(ATTN_BAD_ARGUMENT, "rotary_dim is %lld: heads of %lld elements take 0 to that many",
                         (long long)rotary_dim, (long long)dim);
    if ((rotary_dim ? rotary_dim : dim) % 2)
        return attn_fail(rotary_dim ? ATTN_BAD_ARGUMENT : ATTN_BAD_SHAPE, "%s is %lld: pairs are turned, so it has to be even",
                         rotary_dim ? "rotary_dim" : "the heads' size", (long long)(rotary_dim ? rotary_dim : dim));
    return ATTN_OK;
}

static attn_status check_positions(const attn_tensor *p, int64_t n) {
    for (int64_t b = 0; b < p->shape[0] && p->shape[1] > 0; b++)
        for (int64_t i = 0; i < p->shape[1]; i++) {
            int64_t at = attn_int_at(p, b * p->stride[0] + i * p->stride[1]);
            if (at < 0 || at >= n)
                return attn_fail(ATTN_BAD_ARGUMENT, "positions[%lld, %lld] is %lld, cos and sin have %lld", (long long)b,
                                 (long long)i, (long long)at, (long long)n);
        }
    return ATTN_OK;
}

/* cos, sin and positions, for x of rank 4. */
static attn_status check_angles(const attn_rope_args *a, const rope_job *j) {
    int64_t shape[] = { j->x.shape[0], j->x.shape[2], j->r.pairs };
    if (!attn_present(&a->positions)) {
        attn_status s = attn_check_operand("cos", &a->cos, ATTN_INPUT, 3, shape, j->x.dtype, "[batch, length, pairs]");
        return s == ATTN_OK ? attn_check_operand("sin", &a->sin, ATTN_INPUT, 3, shape, j->x.dtype, "[batch, length, pairs]") : s;
    }
    attn_status s = attn_check_tensor("positions", &a->positions, 2, 2);
    if (s != ATTN_OK) return s;
    if (a->positions.dtype != ATTN_I32 && a->positions.dtype != ATTN_I64)
        return attn_fail(ATTN_UNSUPPORTED, "positions are %s, not i32 or i64", attn_dtype_name(a->positions.dtype));
    if (a->positions.shape[0] != shape[0] || a->positions.shape[1] != shape[1])
        return attn_fail(ATTN_BAD_SHAPE, "positions has shape [%lld, %lld], [batch, length] is [%lld, %lld]",
                         (long long)a->positions.shape[0], (long long)a->positions.shape[1], (long long)shape[0],
                         (long long)shape[1]);
    s = attn_check_float("cos", &a->cos, ATTN_INPUT, 2, 2);
    if (s != ATTN_OK) return s;
    const int64_t table[] = { a->cos.shape[0], shape[2] };
    s = attn_check_operand("cos", &a->cos, ATTN_INPUT, 2, table, j->x.dtype, "[positions, pairs]");
    if (s == ATTN_OK) s = attn_check_operand("sin", &a->sin, ATTN_INPUT, 2, table, j->x.dtype, "cos");
    return s == ATTN_OK ? check_positions(&a->positions, table[0]) : s;
}

/* What both ways share: from x (or dy) to y (or dx). */
static attn_status check_args(const attn_rope_args *a, const char *from, const attn_tensor *x, const char *to,
                              const attn_tensor *y, rope_job *j) {
    if (a->flags & ~(uint32_t)ATTN_ROPE_INTERLEAVED)
        return attn_fail(ATTN_BAD_ARGUMENT, "flags is 0x%x: a rotary embedding knows ATTN_ROPE_INTERLEAVED (0x%x) only",
                         (unsigned)a->flags, (unsigned)ATTN_ROPE_INTERLEAVED);
    attn_status s = attn_check_reserved("attn_rope_args", a->reserved, sizeof a->reserved / sizeof *a->reserved);
    if (s == ATTN_OK) s = attn_check_float(from, x, ATTN_INPUT, 3, 4);
    if (s == ATTN_OK) s = check_heads(from, x, a->heads);
    if (s == ATTN_OK) s = attn_check_operand(to, y, ATTN_OUTPUT, x->rank, x->shape, x->dtype, from);
    if (s != ATTN_OK) return s;
    j->x = with_heads(x, a->heads);
    j->y = with_heads(y, a->heads);
    j->cos = a->cos;
    j->sin = a->sin;
    j->positions = a->positions;
    s = check_rotary_dim(a->rotary_dim, j->x.shape[3]);
    j->r.dim = j->x.shape[3];
    j->r.pairs = (a->rotary_dim ? a->rotary_dim : j->r.dim) / 2;
    j->r.interleaved = a->flags & ATTN_ROPE_INTERLEAVED;
    return s == ATTN_OK ? check_angles(a, j) : s;
}

/* ---- one head at one position -------------------------------------------------------------------------------- */

/* n elements `step` apart, where they lie if that is side by side, else gathered into `buffer`. */
static const void *gather(size_t size, int64_t n, const void *from, int64_t step, void *buffer) {
    if (step == 1) return from;
    attn_copy_strided(size, n, from, step, buffer, 1);
    return buffer;
}

static const void *element(ref_vector v, int64_t i, size_t size) { return (const char *)v.data + i * v.stride * (int64_t)size; }

static void turn_head(const rope_job *j, ref_vector c, ref_vector s, ref_vector x, ref_vector y) {
    enum { COS, SIN, A, B, BUFFERS };
    double buffer[BUFFERS][PIECE];
    const size_t size = attn_dtype_size(x.dtype);
    const int64_t each = j->r.interleaved ? 2 : 1, across = j->r.interleaved ? 1 : j->r.pairs;
    const bool dense = y.stride * each == 1;
    for (int64_t i = 0; i < j->r.pairs; i += PIECE) {
        int64_t n = j->r.pairs - i < PIECE ? j->r.pairs - i : PIECE;
        const void *cosine = gather(size, n, element(c, i, size), c.stride, buffer[COS]);
        const void *sine = gather(size, n, element(s, i, size), s.stride, buffer[SIN]);
        const void *a = gather(size, n, element(x, i * each, size), x.stride * each, buffer[A]);
        const void *b = gather(size, n, element(x, i * each + across, size), x.stride * each, buffer[B]);
        void *first = (void *)element(y, i * each, size), *second = (void *)element(y, i * each + across, size);
        j->kernels->vector.rope(n, j->r.back, cosine, sine, a, b, dense ? first : buffer[A], dense ? second : buffer[B]);
        if (dense) continue;
        attn_copy_strided(size, n, buffer[A], 1, first, y.stride * each);
        attn_copy_strided(size, n, buffer[B], 1, second, y.stride * each);
    }
    const int64_t turned = 2 * j->r.pairs;
    if (x.data != y.data && turned < j->r.dim)
        attn_copy_strided(size, j->r.dim - turned, element(x, turned, size), x.stride, (void *)element(y, turned, size),
                          y.stride);
}

static ref_vector head_at(const attn_tensor *t, int64_t batch, int64_t head, int64_t i) {
    return (ref_vector){ attn_at(t, batch * t->stride[0] + head * t->stride[1] + i * t->stride[2]), t->stride[3], t->dtype };
}

static ref_vector angles_at(const rope_job *j, const attn_tensor *t, int64_t batch, int64_t i) {
    int64_t at = batch * t->stride[0] + i * t->stride[1];
    if (attn_present(&j->positions))
        at = t->stride[0] * attn_int_at(&j->positions, batch * j->positions.stride[0] + i * j->positions.stride[1]);
    return (ref_vector){ attn_at(t, at), t->stride[t->rank - 1], t->dtype };
}

static void do_item(void *context, int64_t item, void *scratch) {
    (void)scratch;
    const rope_job *j = context;
    const int64_t length = j->x.shape[2], count = j->x.shape[0] * length;
    int64_t begin = item * j->places, end = count - begin < j->places ? count : begin + j->places;
    for (int64_t place = begin; place < end; place++) {
        int64_t batch = place / length, i = place % length;
        ref_vector c = angles_at(j, &j->cos, batch, i), s = angles_at(j, &j->sin, batch, i);
        for (int64_t head = 0; head < j->x.shape[1]; head++) {
            ref_vector x = head_at(&j->x, batch, head, i), y = head_at(&j->y, batch, head, i);
            if (j->kernels)
                turn_head(j, c, s, x, y);
            else
                ref_rope_head(&j->r, c, s, x, y);
        }
    }
}

static attn_status run_job(rope_job *j, const attn_exec *exec) {
    attn_session session;
    const attn_tensor *const operands[] = { &j->x, &j->y, &j->cos, &j->sin };
    j->kernels = attn_operand_kernels(4, operands);
    if (j->kernels && !j->kernels->vector.rope) j->kernels = NULL;
    attn_status s = attn_session_open(&session, exec, (attn_need){ 0 });
    if (s != ATTN_OK) return s;
    if (attn_count(&j->x) > 0) {
        const int64_t count = j->x.shape[0] * j->x.shape[2], width = j->x.shape[1] * j->r.dim;
        j->places = width < CHUNK ? CHUNK / width : 1;
        attn_session_run(&session, (count + j->places - 1) / j->places, do_item, j);
    }
    attn_session_close(&session);
    return ATTN_OK;
}

attn_status attn_rope(const attn_rope_args *a, const attn_exec *exec) {
    rope_job j = { 0 };
    if (!a) return attn_fail(ATTN_BAD_ARGUMENT, "the rotary embedding has no arguments");
    attn_status s = check_args(a, "x", &a->x, "y", &a->y, &j);
    return s == ATTN_OK ? run_job(&j, exec) : s;
}

attn_status attn_rope_backward(const attn_rope_args *a, const attn_rope_grads *g, const attn_exec *exec) {
    rope_job j = { .r.back = true };
    if (!a || !g) return attn_fail(ATTN_BAD_ARGUMENT, "the rotary embedding has no %s", a ? "gradients to work on" : "arguments");
    attn_status s = attn_check_reserved("attn_rope_grads", g->reserved, sizeof g->reserved / sizeof *g->reserved);
    if (s == ATTN_OK) s = check_args(a, "dy", &g->dy, "dx", &g->dx, &j);
    return s == ATTN_OK ? run_job(&j, exec) : s;
}
