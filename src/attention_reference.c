/* SPDX-License-Identifier: Apache-2.0 */
/* Hands a planned call to the reference. Forward work items are heads. Backward items are the gradients' own pieces (a key head,
 * a row of dbias, ...): each gathers all that is summed into it in a fixed order, so no result depends on the threads. */
#include "attention_reference.h"
#include "ref/attention.h"

/* ---- one head of the plan --------------------------------------------------------------------------------- */

/* [b, h, :, :] of a rank 4 tensor; absent stays absent. */
static ref_matrix matrix_of(const attn_tensor *t, int64_t b, int64_t h) {
    if (t->rank == 0 || t->data == NULL) return (ref_matrix){ 0 };
    return (ref_matrix){
        .data = attn_at(t, b * t->stride[0] + h * t->stride[1]), .row = t->stride[2], .col = t->stride[3], .dtype = t->dtype
    };
}

/* [b, h, :] of a rank 3 tensor. */
static ref_vector vector_of(const attn_tensor *t, int64_t b, int64_t h) {
    if (t->rank == 0 || t->data == NULL) return (ref_vector){ 0 };
    return (ref_vector){ .data = attn_at(t, b * t->stride[0] + h * t->stride[1]), .stride = t->stride[2], .dtype = t->dtype };
}

/* [b, :, :, :] of a rank 4 tensor. */
static ref_maps maps_of(const attn_tensor *t, int64_t b) {
    if (t->rank == 0 || t->data == NULL) return (ref_maps){ 0 };
    return (ref_maps){ attn_at(t, b * t->stride[0]), t->stride[1], t->stride[2], t->stride[3], t->dtype };
}

/* [h, :] of a rank 2 tensor. */
static ref_vector row_of(const attn_tensor *t, int64_t h) {
    if (t->rank == 0) return (ref_vector){ 0 };
    return (ref_vector){ .data = attn_at(t, h * t->stride[0]), .stride = t->stride[1], .dtype = t->dtype };
}

static ref_weighting weighting_of(const attn_attention_plan *p, int64_t h) {
    ref_weighting w = { .kind = p->weighting, .alpha = p->alpha, .has_sink = p->sinks.rank != 0 };
    if (w.has_sink) w.sink = attn_plan_sink(p, h);
    return w;
}

static ref_attention head_of(const attn_attention_plan *p, int64_t b, int64_t h) {
    ref_attention a = {
        .q_len = p->q_len,
        .kv_len = p->kv_len,
        .dim = p->dim,
        .v_dim = p->v_dim,
        .q = matrix_of(&p->q, b, h),
        .k = matrix_of(&p->k, b, h / p->k_group),
        .v = matrix_of(&p->v, b, h / p->v_group),
        .out = matrix_of(&p->out, b, h),
        .mask = matrix_of(&p->mask, b, h),
        .bias = matrix_of(&p->bias, b, h),
        .blocks = attn_plan_blocks(p, b, h),
        .sight = attn_plan_sight(p, b),
        .score = p->score,
        .weighting = weighting_of(p, h),
        .score_weight = row_of(&p->score_weight, h),
        .scale = p->scale,
        .softcap = p->softcap,
        .has_alibi = p->alibi.rank != 0,
        .dropout = p->dropout,
        .b = p->first_entry + b,
        .h = h,
        .lse = vector_of(&p->lse, b, h),
        .entropy = vector_of(&p->entropy, b, h),
        .received = vector_of(&p->received, b, h),
        .weights = maps_of(&p->weights, b),
        .scores = maps_of(&p->scores, b),
        .scores_stage = p->scores_stage,
        .seen_rows = { p->seen_rows.index, p->seen_rows.n },
        .seen_heads = { p->seen_heads.index, p->seen_heads.n },
        .top_index = matrix_of(&p->top_index, b, h),
        .top_weight = matrix_of(&p->top_weight, b, h),
        .top_k = p->top_k,
        .pooled = matrix_of(&p->pooled, b, h),
        .pool_rows = p->pooled.shape[2],
        .pool_keys = p->pooled.shape[3],
    };
    if (a.has_alibi) a.slope = ref_load(p->alibi.data, p->alibi.dtype, b * p->alibi.stride[0] + h * p->alibi.stride[1]);
    return a;
}

/* ---- scratch: the row that is worked on, then sums ------------------------------------------------------------ */

typedef struct reference_job {
    const attn_attention_plan *plan;
    const attn_attention_plan_grads *grads;
    const attn_attention_plan_tangents *tangents;
    const attn_attention_plan_received *received;
} reference_job;

static size_t rows_bytes(const attn_attention_plan *p) {
    size_t bytes = ref_rows_bytes(p->kv_len, p->dim, p->v_dim);
    return bytes > SIZE_MAX - 63 ? SIZE_MAX : attn_round64(bytes);
}

static ref_rows rows_in(const attn_attention_plan *p, void *scratch) { return ref_rows_in(scratch, p->kv_len, p->dim, p->v_dim); }

static double *sums_in(const attn_attention_plan *p, void *scratch, int64_t n) {
    double *sums = (double *)((char *)scratch + rows_bytes(p));
    for (int64_t i = 0; i < n; i++) sums[i] = 0;
    return sums;
}

/* Room for a row and for `rows` times `columns` sums. */
static size_t scratch_bytes(const attn_attention_plan *p, int64_t rows, int64_t columns) {
    size_t sums, bytes;
    if (__builtin_mul_overflow((size_t)rows, (size_t)columns, &sums)) return SIZE_MAX;
    if (__builtin_mul_overflow(sums, sizeof(double), &sums)) return SIZE_MAX;
    return __builtin_add_overflow(rows_bytes(p), sums, &bytes) ? SIZE_MAX : bytes;
}

/* ---- forward ------------------------------------------------------------------------------------------------- */

attn_need attn_reference_need(const attn_attention_plan *p) {
    int64_t sums = (p->received.rank ? p->kv_len : 0) + (p->pooled.rank ? p->pooled.shape[3] : 0);
    return (attn_need){ .per_worker = scratch_bytes(p, sums, 1) };
}

static void forward_head(void *context, int64_t item, void *scratch) {
    const attn_attention_plan *p = ((const reference_job *)context)->plan;
    ref_attention head = head_of(p, item / p->heads, item % p->heads);
    ref_rows row = rows_in(p, scratch);
    double *sums = sums_in(p, scratch, 0);
    ref_attention_forward(&head, &row, sums, sums + (p->received.rank ? p->kv_len : 0));
}

void attn_reference_forward(const attn_attention_plan *p, attn_session *session) {
    reference_job job = { .plan = p };
    bool keys_to_write = p->received.rank && p->kv_len > 0; /* a sum over no rows is 0, and is written */
    bool pools_to_write = p->pooled.rank && p->pooled.shape[2] > 0 && p->pooled.shape[3] > 0; /* and so is a mean */
    if (p->q_len > 0 || keys_to_write || pools_to_write) attn_session_run(session, p->batch * p->heads, forward_head, &job);
}

/* ---- received mass ------------------------------------------------------------------------------------------- */

attn_need attn_reference_received_need(const attn_attention_plan *p) {
    return (attn_need){ .per_worker = scratch_bytes(p, p->kv_len, 1) };
}

static void received_head(void *context, int64_t item, void *scratch) {
    const reference_job *job = context;
    const attn_attention_plan *p = job->plan;
    int64_t b = item / p->heads, h = item % p->heads;
    ref_attention head = head_of(p, b, h);
    ref_rows row = rows_in(p, scratch);
    ref_attention_received r = { .by = vector_of(&job->received->by, b, h),
                                 .dout = matrix_of(&job->received->dout, b, h),
                                 .positive = job->received->positive,
                                 .received = vector_of(&job->received->received, b, h) };
    ref_attention_receive(&head, &r, &row, sums_in(p, scratch, 0));
}

void attn_reference_received(const attn_attention_plan *p, const attn_attention_plan_received *r, attn_session *session) {
    reference_job job = { .plan = p, .received = r };
    attn_session_run(session, p->kv_len > 0 ? p->batch * p->heads : 0, received_head, &job);
}

/* ---- forward mode ---------------------------------------------------------------------------------------------- */

attn_need attn_reference_jvp_need(const attn_attention_plan *p) { return (attn_need){ .per_worker = scratch_bytes(p, 0, 1) }; }

static ref_attention_tangents head_tangents(const attn_attention_plan *p, const attn_attention_plan_tangents *t, int64_t b,
                                            int64_t h) {
    return (ref_attention_tangents){ .dq = matrix_of(&t->dq, b, h),
                                     .dk = matrix_of(&t->dk, b, h / p->k_group),
                                     .dv = matrix_of(&t->dv, b, h / p->v_group),
                                     .dbias = matrix_of(&t->dbias, b, h),
                                     .dout = matrix_of(&t->dout, b, h),
                                     .dlse = vector_of(&t->dlse, b, h) };
}

static void jvp_head(void *context, int64_t item, void *scratch) {
    const reference_job *job = context;
    const attn_attention_plan *p = job->plan;
    int64_t b = item / p->heads, h = item % p->heads;
    ref_attention head = head_of(p, b, h);
    ref_attention_tangents t = head_tangents(p, job->tangents, b, h);
    ref_rows row = rows_in(p, scratch);
    if (p->out.rank || p->lse.rank) ref_attention_forward(&head, &row, NULL, NULL);
    ref_attention_jvp(&head, &t, &row);
}

void attn_reference_jvp(const attn_attention_plan *p, const attn_attention_plan_tangents *t, attn_session *session) {
    reference_job job = { .plan = p, .tangents = t };
    attn_session_run(session, p->q_len > 0 ? p->batch * p->heads : 0, jvp_head, &job);
}

/* ---- backward: each item gathers one piece of one gradient ---------------------------------------------------- */

static ref_attention_grads head_grads(const attn_attention_plan *p, const attn_attention_plan_grads *g, int64_t b, int64_t h) {
    ref_attention_grads grads = { .dout = matrix_of(&g->dout, b, h), .dlse = vector_of(&g->dlse, b, h) };
    if (g->along) grads.along = head_tangents(p, g->along, b, h);
    return grads;
}

static void dq_of_head(void *context, int64_t item, void *scratch) {
    const reference_job *job = context;
    const attn_attention_plan *p = job->plan;
    int64_t b = item / p->heads, h = item % p->heads;
    ref_attention head = head_of(p, b, h);
    ref_attention_grads g = head_grads(job->plan, job->grads, b, h);
    ref_rows row = rows_in(p, scratch);
    ref_matrix dq = matrix_of(&job->grads->dq, b, h);
    (job->grads->along ? ref_attention_second_dq : ref_attention_dq)(&head, &g, &row, dq);
}

typedef void (*add_gradient)(const ref_attention *a, const ref_attention_grads *g, ref_rows *row, double *sums);

/* Heads h0 .. h1 - 1 of entry b, in order. */
static void add_heads(const reference_job *job, int64_t b, int64_t h0, int64_t h1, add_gradient add, void *scratch,
                      double *sums) {
    ref_rows row = rows_in(job->plan, scratch);
    for (int64_t h = h0; h < h1; h++) {
        ref_attention head = head_of(job->plan, b, h);
        ref_attention_grads g = head_grads(job->plan, job->grads, b, h);
        add(&head, &g, &row, sums);
    }
}

static void store_matrix(ref_matrix m, int64_t rows, int64_t columns, const double *sums) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++) ref_set(m, r, c, sums[r * columns + c]);
}

static void dk_of_key_head(void *context, int64_t item, void *scratch) {
    const reference_job *job = context;
    const attn_attention_plan *p = job->plan;
    int64_t b = item / p->k_heads, h = item % p->k_heads;
    double *sums = sums_in(p, scratch, p->kv_len * p->dim);
    add_heads(job, b, h * p->k_group, (h + 1) * p->k_group,
              job->grads->along ? ref_attention_second_add_dk : ref_attention_add_dk, scratch, sums);
    if (p->score == ATTN_COSINE && p->heads > 0) {
        ref_attention head = head_of(p, b, h * p->k_group);
        ref_rows row = rows_in(p, scratch);
        ref_attention_key_gradient(&head, &row, sums);
    }
    store_matrix(matrix_of(&job->grads->dk, b, h), p->kv_len, p->dim, sums);
}

static void dv_of_value_head(void *context, int64_t item, void *scratch) {
    const reference_job *job = context;
    const attn_attention_plan *p = job->plan;
    int64_t b = item / p->v_heads, h = item % p->v_heads;
    double *sums = sums_in(p, scratch, p->kv_len * p->v_dim);
    add_heads(job, b, h * p->v_group, (h + 1) * p->v_group,
              job->grads->along ? ref_attention_second_add_dv : ref_attention_add_dv, scratch, sums);
    store_matrix(matrix_of(&job->grads->dv, b, h), p->kv_len, p->v_dim, sums);
}

/* An axis of a gradient, at index `at`: that index alone where the axis is full, all of it where the gradient sums over it. */
static attn_key_range axis_at(int64_t extent, int64_t full, int64_t at) {
    return extent == full ? (attn_key_range){ at, at + 1 } : (attn_key_range){ 0, full };
}

static void dbias_row(void *context, int64_t item, void *scratch) {
    const reference_job *job = context;
    const attn_attention_plan *p = job->plan;
    const attn_tensor *t = &job->grads->dbias;
    int64_t at[3] = { item / t->shape[2] / t->shape[1], item / t->shape[2] % t->shape[1], item % t->shape[2] };
    attn_key_range entries = axis_at(t->shape[0], p->batch, at[0]), heads = axis_at(t->shape[1], p->heads, at[1]),
                   queries = axis_at(t->shape[2], p->q_len, at[2]);
    ref_rows row = rows_in(p, scratch);
    double *sums = sums_in(p, scratch, t->shape[3]);
    for (int64_t b = entries.begin; b < entries.end; b++)
        for (int64_t h = heads.begin; h < heads.end; h++) {
            ref_attention head = head_of(p, b, h);
            ref_attention_grads g = head_grads(job->plan, job->grads, b, h);
            for (int64_t i = queries.begin; i < queries.end; i++)
                ref_attention_add_dbias(&head, &g, i, &row, sums, t->shape[3] == p->kv_len ? 1 : 0);
        }
    ref_vector out = { .data = attn_at(t, at[0] * t->stride[0] + at[1] * t->stride[1] + at[2] * t->stride[2]),
                       .stride = t->stride[3],
                       .dtype = t->dtype };
    for (int64_t j = 0; j < t->shape[3]; j++) ref_put(out, j, sums[j]);
}

/* A gradient with one number per head, [batch | 1, heads | 1]. */
static void number_of_heads(const reference_job *job, const attn_tensor *t, add_gradient add, int64_t item, void *scratch) {
    const attn_attention_plan *p = job->plan;
    int64_t at[2] = { item / t->shape[1], item % t->shape[1] };
    attn_key_range entries = axis_at(t->shape[0], p->batch, at[0]), heads = axis_at(t->shape[1], p->heads, at[1]);
    double *sum = sums_in(p, scratch, 1);
    for (int64_t b = entries.begin; b < entries.end; b++) add_heads(job, b, heads.begin, heads.end, add, scratch, sum);
    ref_store(t->data, t->dtype, at[0] * t->stride[0] + at[1] * t->stride[1], *sum);
}

static void dalibi_slope(void *context, int64_t item, void *scratch) {
    const reference_job *job = context;
    number_of_heads(job, &job->grads->dalibi, ref_attention_add_dalibi, item, scratch);
}

static void dsinks_sink(void *context, int64_t item, void *scratch) {
    const reference_job *job = context;
    number_of_heads(job, &job->grads->dsinks, ref_attention_add_dsink, item, scratch);
}

static void dalpha_number(void *context, int64_t item, void *scratch) {
    const reference_job *job = context;
    const attn_attention_plan *p = job->plan;
    double *sum = sums_in(p, scratch, 1);
    (void)item;
    for (int64_t b = 0; b < p->batch; b++) add_heads(job, b, 0, p->heads, ref_attention_add_dalpha, scratch, sum);
    ref_store(job->grads->dalpha.data, job->grads->dalpha.dtype, 0, *sum);
}

static void dscore_weight_row(void *context, int64_t item, void *scratch) {
    const reference_job *job = context;
    const attn_attention_plan *p = job->plan;
    const attn_tensor *t = &job->grads->dscore_weight;
    attn_key_range heads = axis_at(t->shape[0], p->heads, item);
    double *sums = sums_in(p, scratch, p->dim);
    for (int64_t b = 0; b < p->batch; b++)
        add_heads(job, b, heads.begin, heads.end, ref_attention_add_dscore_weight, scratch, sums);
    for (int64_t d = 0; d < p->dim; d++) ref_store(t->data, t->dtype, item * t->stride[0] + d * t->stride[1], sums[d]);
}

attn_need attn_reference_backward_need(const attn_attention_plan *p, const attn_attention_plan_grads *g) {
    size_t bytes[] = { scratch_bytes(p, 1, 1), g->dk.rank ? scratch_bytes(p, p->kv_len, p->dim) : 0,
                       g->dv.rank ? scratch_bytes(p, p->kv_len, p->v_dim) : 0,
                       g->dbias.rank ? scratch_bytes(p, p->kv_len > 0 ? p->kv_len : 1, 1) : 0,
                       g->dscore_weight.rank ? scratch_bytes(p, p->dim, 1) : 0 };
    attn_need need = { 0 };
    for (size_t i = 0; i < sizeof bytes / sizeof *bytes; i++)
        if (bytes[i] > need.per_worker) need.per_worker = bytes[i];
    return need;
}

/* Items of a gradient whose last `inner` axes make up one item; none when it is absent or holds no element. */
static int64_t items_of(const attn_tensor *t, int32_t inner) {
    int64_t n = t->rank ? 1 : 0;
    for (int32_t i = 0; i < t->rank; i++)
        if (t->shape[i] == 0) return 0;
    for (int32_t i = 0; i < t->rank - inner; i++) n *= t->shape[i];
    return n;
}

void attn_reference_backward(const attn_attention_plan *p, const attn_attention_plan_grads *g, attn_session *session) {
    reference_job job = { .plan = p, .grads = g };
    if (g->along && (g->along->dout.rank || g->along->dlse.rank)) attn_reference_jvp(p, g->along, session);
    attn_session_run(session, items_of(&g->dq, 2), dq_of_head, &job);
    attn_session_run(session, items_of(&g->dk, 2), dk_of_key_head, &job);
    attn_session_run(session, items_of(&g->dv, 2), dv_of_value_head, &job);
    attn_session_run(session, items_of(&g->dbias, 1), dbias_row, &job);
    attn_session_run(session, items_of(&g->dalibi, 0), dalibi_slope, &job);
    attn_session_run(session, items_of(&g->dsinks, 0), dsinks_sink, &job);
    attn_session_run(session, items_of(&g->dalpha, 0), dalpha_number, &job);
    attn_session_run(session, items_of(&g->dscore_weight, 1), dscore_weight_row, &job);
}
