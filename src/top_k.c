/* SPDX-License-Identifier: Apache-2.0 */
/* attn_top_k_softmax and its gradient: checks, and rows through the kernels: one sweep that finds the largest, and where the
 * softmax is over all experts a second one for its sum. What is then left to do for the k chosen is done by the reference. */
#include "exec.h"
#include "operand.h"
#include "piece.h"
#include "select.h"
#include "status.h"

#include "ref/top_k.h"

#include <math.h>
#include <string.h>

/* Elements of a work item, at least; chosen entries that stand on the stack; and of a row of one piece, so few that taking out the
 * largest so many times beats a heap. */
enum { ITEM_ELEMENTS = 16384, STACK_ENTRIES = 256, FEW = 16 };

/* ---- checks ------------------------------------------------------------------------------------------------ */

static attn_status check_options(const attn_top_k_softmax_args *a) {
    if (!a) return attn_fail(ATTN_BAD_ARGUMENT, "top-k softmax has no arguments");
    attn_status s = attn_check_reserved("attn_top_k_softmax_args", a->reserved, sizeof a->reserved / sizeof *a->reserved);
    if (s != ATTN_OK) return s;
    if (a->order < ATTN_SOFTMAX_TOP_K || a->order > ATTN_SIGMOID_TOP_K)
        return attn_fail(ATTN_BAD_ARGUMENT, "order is %d, which no top-k softmax has", (int)a->order);
    if (a->flags & ~(uint32_t)ATTN_SCALE_SET)
        return attn_fail(ATTN_BAD_ARGUMENT, "flags 0x%x mean nothing to top-k softmax", a->flags);
    if (a->normalize && a->order == ATTN_TOP_K_SOFTMAX)
        return attn_fail(ATTN_BAD_ARGUMENT, "normalize is %d: the softmax of the top k has a sum of 1 already",
                         (int)a->normalize);
    if (!isfinite(a->scale)) return attn_fail(ATTN_BAD_ARGUMENT, "scale is %g; it has to be a finite number", a->scale);
    return ATTN_OK;
}

/* logits, bias, and index, which says what k is. */
static attn_status check_inputs(const attn_top_k_softmax_args *a, attn_role role) {
    int64_t shape[ATTN_MAX_RANK];
    attn_status s = check_options(a);
    if (s != ATTN_OK) return s;
    const attn_tensor *x = &a->logits;
    if ((s = attn_check_float("logits", x, ATTN_INPUT, 1, ATTN_MAX_RANK)) != ATTN_OK) return s;
    for (int32_t i = 0; i < x->rank; i++) shape[i] = x->shape[i];
    if (attn_present(&a->bias) && a->order != ATTN_SIGMOID_TOP_K)
        return attn_fail(ATTN_BAD_ARGUMENT, "bias is there: it belongs to ATTN_SIGMOID_TOP_K alone, the order is %d",
                         (int)a->order);
    if (attn_present(&a->bias) &&
        (s = attn_check_operand("bias", &a->bias, ATTN_INPUT, 1, &shape[x->rank - 1], x->dtype, "[experts]")) != ATTN_OK)
        return s;
    if (!attn_present(&a->index)) return attn_fail(ATTN_BAD_ARGUMENT, "index is missing");
    if (a->index.rank == x->rank) shape[x->rank - 1] = a->index.shape[x->rank - 1];
    return attn_check_index("index", &a->index, role, x->rank, shape, x->shape[x->rank - 1], "[..., k] beside the logits");
}

static attn_status check_forward(const attn_top_k_softmax_args *a) {
    attn_status s = check_inputs(a, ATTN_OUTPUT);
    if (s != ATTN_OK) return s;
    return attn_check_operand("weight", &a->weight, ATTN_OUTPUT, a->index.rank, a->index.shape, a->logits.dtype, "index");
}

/* Every index is an expert or none. */
static attn_status check_chosen(const attn_tensor *index, int64_t experts) {
    int64_t k = index->shape[index->rank - 1], rows = attn_count(index) == 0 ? 0 : attn_row_count(index);
    for (int64_t row = 0; row < rows; row++)
        for (int64_t j = 0; j < k; j++) {
            int64_t i = attn_int_at(index, attn_row_offset(index, row) + j * index->stride[index->rank - 1]);
            if (i < -1 || i >= experts)
                return attn_fail(ATTN_BAD_ARGUMENT, "index %lld of row %lld is %lld: an expert of %lld, or -1", (long long)j,
                                 (long long)row, (long long)i, (long long)experts);
        }
    return ATTN_OK;
}

/* ---- rows -------------------------------------------------------------------------------------------------- */

enum { ROUTER_X, ROUTER_INDEX, ROUTER_WEIGHT, ROUTER_DX, ROUTER_TENSORS };

typedef struct router_job {
    attn_rows rows;
    ref_router router;     /* its x is that of each row */
    const attn_kernels *k; /* NULL: the reference */
    int64_t room;          /* entries to select */
    int64_t block;         /* rows of an item */
} router_job;

typedef struct router_buffers {
    double gathered[ATTN_ROW_PIECE], z[ATTN_ROW_PIECE], bias[ATTN_ROW_PIECE], out[ATTN_ROW_PIECE];
} router_buffers;

static router_job job_of(const attn_top_k_softmax_args *a, const attn_tensor *weight, const attn_tensor *dx) {
    const attn_tensor *tensors[ROUTER_TENSORS] = { &a->logits, &a->index, weight, dx };
    const int64_t k = a->index.shape[a->index.rank - 1], n = a->logits.shape[a->logits.rank - 1];
    router_job job = { .router = { .n = n,
                                   .k = k,
                                   .order = a->order,
                                   .normalize = a->normalize != 0,
                                   .scale = a->scale != 0 || a->flags & ATTN_SCALE_SET ? a->scale : 1 },
                       .room = k < n ? k : n,
                       .block = n > 0 && n < ITEM_ELEMENTS ? ITEM_ELEMENTS / n
                                : n > 0                    ? 1
                                                           : ITEM_ELEMENTS };
    if (attn_present(&a->bias)) job.router.bias = attn_ref_row(&a->bias, 0);
    /* Sigmoids are compared in double whatever the logits are: near 1 single precision would make ties of them. */
    bool single = a->logits.dtype == ATTN_F32 && a->order != ATTN_SIGMOID_TOP_K;
    job.k = attn_kernels_for(single ? ATTN_F32 : ATTN_F64);
    if (job.k && (!job.k->softmax.peak || !job.k->math.sigmoid || !job.k->convert.widen)) job.k = NULL;
    attn_rows_make(&job.rows, ROUTER_TENSORS, tensors);
    return job;
}

/* What elements [j, j + n) are chosen by, in the kernels' type. */
static const void *choices(const router_job *job, const ref_router *r, int64_t j, int64_t n, router_buffers *b) {
    const void *piece = attn_wide_piece(job->k, r->x, j, n, b->gathered, b->z);
    if (r->order != ATTN_SIGMOID_TOP_K) return piece;
    const double *x = piece, *bias = r->bias.data ? attn_wide_piece(job->k, r->bias, j, n, b->out, b->bias) : NULL;
    double *choice = b->gathered == x ? b->z : b->gathered;
    job->k->math.sigmoid(x, choice, n);
    for (int64_t i = 0; i < n; i++) {
        double shift = bias ? bias[i] : 0;
        choice[i] = x[i] == -INFINITY || shift == -INFINITY ? -INFINITY : choice[i] + shift;
    }
    return choice;
}

static attn_peak peak_of(const router_job *job, int64_t n, const void *z) {
    attn_peak p = { .max = -INFINITY };
    job->k->softmax.peak(n, z, &p);
    return p;
}

static void join_peak(attn_peak *row, attn_peak piece) {
    row->nan |= piece.nan;
    if (piece.max > row->max) row->max = piece.max;
}

static int64_t piece_length(int64_t left) { return left < ATTN_ROW_PIECE ? left : ATTN_ROW_PIECE; }

/* The softmax's sum over a row whose peak is known. */
static ref_router_sum sum_row(const router_job *job, const ref_router *r, attn_peak peak, router_buffers *b) {
    attn_compensated sum = { 0, 0 };
    if (!attn_is_regular(peak)) return (ref_router_sum){ peak.nan ? NAN : peak.max, 0 };
    for (int64_t j = 0, m; j < r->n; j += m) {
        m = piece_length(r->n - j);
        job->k->softmax.exp_sum(m, attn_wide_piece(job->k, r->x, j, m, b->gathered, b->z), peak.max, NULL, &sum);
    }
    return (ref_router_sum){ peak.max, attn_total(sum) };
}

static void route_row(const router_job *job, const ref_router *r, ref_vector index, ref_vector weight, attn_entry *entries) {
    router_buffers b;
    attn_selection best = { .entries = entries, .room = job->room };
    attn_peak peak = { .max = -INFINITY };
    for (int64_t j = 0, m; j < r->n; j += m) {
        m = piece_length(r->n - j);
        const void *z = choices(job, r, j, m, &b);
        attn_peak piece = peak_of(job, m, z);
        join_peak(&peak, piece);
        if (r->n <= ATTN_ROW_PIECE && job->room <= FEW && !peak.nan)
            attn_select_few(&best, m, memcpy(b.out, z, (size_t)m * attn_dtype_size(job->k->dtype)), job->k->dtype,
                            &job->k->softmax);
        else
            attn_select(&best, j, m, z, job->k->dtype, piece);
    }
    attn_sort_by_score(entries, best.count);
    for (int64_t rank = 0; rank < r->k; rank++) ref_put(index, rank, rank < best.count ? (double)entries[rank].index : -1);
    ref_router_sum row = { 0, 0 };
    if (r->order == ATTN_SOFTMAX_TOP_K && !r->normalize) row = sum_row(job, r, peak, &b);
    ref_router_weigh(r, row, index, weight);
}

static void do_routes(void *context, int64_t item, void *scratch) {
    const router_job *job = context;
    attn_rows_block block = attn_rows_at(&job->rows, job->block, item);
    attn_entry stack[STACK_ENTRIES];
    for (int64_t i = 0; i < block.count; i++) {
        ref_router r = job->router;
        r.x = attn_rows_vector(&job->rows, &block, ROUTER_X, i);
        ref_vector index = attn_rows_vector(&job->rows, &block, ROUTER_INDEX, i),
                   weight = attn_rows_vector(&job->rows, &block, ROUTER_WEIGHT, i);
        if (job->k)
            route_row(job, &r, index, weight, job->room > STACK_ENTRIES ? scratch : stack);
        else
            ref_top_k_softmax(&r, index, weight);
    }
}

static attn_need need_of(const attn_top_k_softmax_args *a) {
    const int64_t k = a->index.shape[a->index.rank - 1], n = a->logits.shape[a->logits.rank - 1], room = k < n ? k : n;
    attn_need need = { 0 };
    if (room > STACK_ENTRIES && __builtin_mul_overflow((size_t)room, sizeof(attn_entry), &need.per_worker))
        need.per_worker = SIZE_MAX;
    return need;
}

size_t attn_top_k_softmax_workspace(const attn_top_k_softmax_args *a, int32_t n_threads) {
    if (!a || a->logits.rank < 1 || a->logits.rank > ATTN_MAX_RANK || a->index.rank != a->logits.rank) return 0;
    return attn_need_bytes(need_of(a), n_threads);
}

attn_status attn_top_k_softmax(const attn_top_k_softmax_args *a, const attn_exec *exec) {
    attn_session session;
    attn_status s = check_forward(a);
    if (s == ATTN_OK) s = attn_session_open(&session, exec, need_of(a));
    if (s != ATTN_OK) return s;
    if (attn_count(&a->index) > 0) {
        router_job job = job_of(a, &a->weight, NULL);
        attn_session_run(&session, attn_rows_blocks(&job.rows, job.block), do_routes, &job);
    }
    attn_session_close(&session);
    return ATTN_OK;
}

/* ---- the gradient -------------------------------------------------------------------------------------------- */

/* -p dot, as the gradient of a softmax y to which no dy comes; 0 where masked. `e` is what the kernels write to. */
static void unchosen_dx(const router_job *job, const ref_router *r, attn_peak peak, double sum, double dot, ref_vector dx,
                        router_buffers *b) {
    static const double nothing[ATTN_ROW_PIECE];
    const attn_softmax_kernels *k = &job->k->softmax;
    for (int64_t j = 0, m; j < r->n; j += m) {
        m = piece_length(r->n - j);
        const void *z = attn_wide_piece(job->k, r->x, j, m, b->gathered, b->z);
        void *out = dx.stride == 1 && dx.dtype == job->k->dtype ? attn_element(dx, j) : b->out;
        if (attn_is_regular(peak)) {
            k->exp_sum(m, z, peak.max, out, &(attn_compensated){ 0, 0 });
            k->dx(ATTN_SLOPE_SOFTMAX, m, out, nothing, dot, 1 / sum, out);
        } else {
            k->blank(m, z, 0, out);
        }
        for (int64_t i = 0; i < m && out == b->out; i++) ref_put(dx, j + i, ref_load(out, job->k->dtype, i));
    }
}

static void softmax_dx(const router_job *job, const ref_router *r, ref_vector index, ref_vector dweight, ref_vector dx) {
    router_buffers b;
    attn_peak peak = { .max = -INFINITY };
    for (int64_t j = 0, m; j < r->n; j += m) {
        m = piece_length(r->n - j);
        join_peak(&peak, peak_of(job, m, attn_wide_piece(job->k, r->x, j, m, b.gathered, b.z)));
    }
    ref_router_sum row = sum_row(job, r, peak, &b);
    double dot = ref_router_dot(r, row, index, dweight);
    unchosen_dx(job, r, peak, row.sum, dot, dx, &b);
    ref_router_chosen_dx(r, row, dot, index, dweight, dx);
}

static void do_gradients(void *context, int64_t item, void *scratch) {
    (void)scratch;
    const router_job *job = context;
    attn_rows_block block = attn_rows_at(&job->rows, job->block, item);
    for (int64_t i = 0; i < block.count; i++) {
        ref_router r = job->router;
        r.x = attn_rows_vector(&job->rows, &block, ROUTER_X, i);
        ref_vector index = attn_rows_vector(&job->rows, &block, ROUTER_INDEX, i),
                   dweight = attn_rows_vector(&job->rows, &block, ROUTER_WEIGHT, i),
                   dx = attn_rows_vector(&job->rows, &block, ROUTER_DX, i);
        if (job->k && r.order == ATTN_SOFTMAX_TOP_K && !r.normalize)
            softmax_dx(job, &r, index, dweight, dx);
        else
            ref_top_k_softmax_backward(&r, index, dweight, dx);
    }
}

static attn_status check_backward(const attn_top_k_softmax_args *a, const attn_top_k_softmax_grads *g) {
    attn_status s = check_inputs(a, ATTN_INPUT);
    if (s != ATTN_OK) return s;
    if (!g) return attn_fail(ATTN_BAD_ARGUMENT, "top-k softmax has no gradients to work on");
    s = attn_check_reserved("attn_top_k_softmax_grads", g->reserved, sizeof g->reserved / sizeof *g->reserved);
    const attn_tensor *x = &a->logits, *index = &a->index;
    if (s == ATTN_OK && attn_present(&a->weight))
        s = attn_check_operand("weight", &a->weight, ATTN_INPUT, index->rank, index->shape, x->dtype, "index");
    if (s == ATTN_OK) s = attn_check_operand("dweight", &g->dweight, ATTN_INPUT, index->rank, index->shape, x->dtype, "index");
    if (s == ATTN_OK) s = attn_check_operand("dlogits", &g->dlogits, ATTN_OUTPUT, x->rank, x->shape, x->dtype, "logits");
    return s == ATTN_OK ? check_chosen(index, x->shape[x->rank - 1]) : s;
}

attn_status attn_top_k_softmax_backward(const attn_top_k_softmax_args *a, const attn_top_k_softmax_grads *g,
                                        const attn_exec *exec) {
    attn_session session;
    attn_status s = check_backward(a, g);
    if (s == ATTN_OK) s = attn_session_open(&session, exec, (attn_need){ 0 });
    if (s != ATTN_OK) return s;
    if (attn_count(&a->logits) > 0) {
        router_job job = job_of(a, &g->dweight, &g->dlogits);
        attn_session_run(&session, attn_rows_blocks(&job.rows, job.block), do_gradients, &job);
    }
    attn_session_close(&session);
    return ATTN_OK;
}
