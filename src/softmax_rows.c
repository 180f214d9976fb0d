/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of the softmax family through the kernels. A work item is a block of rows. Dense rows are worked on where they are; others
 * are brought into a strip first. A row too long for its strip is worked on in pieces, read once for its maximum, once for its sum
 * and once for its result. Whichever way a row takes, its bits are the same: kernels.h says how pieces are summed. */
#include "softmax_rows.h"
#include "status.h"
#include "strip.h"

#include "ref/softmax.h"

#include <math.h>

/* Elements of dense rows that make a work item, and of which at least two items are worth a second worker. */
enum { ITEM_ELEMENTS = 16384 };

/* A multiple of `unit` rows. */
static int64_t rows_per_item(int64_t n, int64_t unit) {
    int64_t units = ITEM_ELEMENTS / unit / (n > 0 ? n : 1);
    return units > 1 ? units * unit : unit;
}

/* The kernels for tensors that are all of one element type that has some; else NULL, and the reference answers. */
static const attn_kernels *kernels_of(const attn_rows *rows, const int32_t *tensors, size_t count) {
    int32_t dtype = -1;
    for (size_t i = 0; i < count; i++) {
        const attn_rows_tensor *t = &rows->t[tensors[i]];
        if (!t->data) continue;
        if (dtype >= 0 && t->dtype != dtype) return NULL;
        dtype = t->dtype;
    }
    const attn_kernels *k = attn_kernels_for(dtype);
    return k && k->softmax.rows ? k : NULL;
}

/* ---- scores ------------------------------------------------------------------------------------------- */

typedef struct score_run {
    const score_job *job;
    const attn_softmax_kernels *k;
    int32_t dtype;
    size_t size;
    bool plain; /* z = x */
    int64_t block;
    attn_strip_plan plan;
} score_run;

/* Rows being worked on: their tensors, and where their scores and results stand. */
typedef struct score_strip {
    int64_t rows;
    attn_strip x, mask, bias, y, of_row;
    attn_strip z;     /* x itself, or `work` */
    attn_strip work;  /* dense: y itself, or a buffer; absent when nothing but the lse of dense rows is wanted */
    int64_t capacity; /* of z, in elements of a row */
    attn_peak peak[STRIP_ROWS];
    attn_compensated sum[STRIP_ROWS];
} score_strip;

/* Elements [j, j + n) of row r's mask and bias, dense and of the scores' element type. */
static const uint8_t *mask_piece(const score_strip *s, int64_t r, int64_t j, int64_t n, uint8_t *buffer) {
    if (!s->mask.data) return NULL;
    if (s->mask.step == 1) return (uint8_t *)attn_strip_at(s->mask, r, j);
    for (int64_t i = 0; i < n; i++) buffer[i] = *(uint8_t *)attn_strip_at(s->mask, r, j + i);
    return buffer;
}

static const void *bias_piece(const score_run *run, const score_strip *s, int64_t r, int64_t j, int64_t n, double *buffer) {
    if (!s->bias.data) return NULL;
    int32_t dtype = run->job->rows.t[SCORES_BIAS].dtype;
    if (s->bias.step == 1 && dtype == run->dtype) return attn_strip_at(s->bias, r, j);
    for (int64_t i = 0; i < n; i++) ref_store(buffer, run->dtype, i, ref_load(attn_strip_at(s->bias, r, j + i), dtype, 0));
    return buffer;
}

/* Elements [j, j + n) of every row's scores into z, which begins at element j. */
static void load_scores(const score_run *run, score_strip *s, int64_t j, int64_t n) {
    if (s->z.data == s->x.data && run->plain) return;
    attn_strip from = s->x;
    from.data = attn_strip_at(s->x, 0, j);
    if (run->plain || from.step != 1) {
        attn_strip_copy(run->k, s->rows, n, from, s->z);
        from = s->z;
    }
    if (run->plain) return;
    for (int64_t r = 0; r < s->rows; r++)
        for (int64_t i = 0, m; i < n; i += m) {
            uint8_t mask[ATTN_ROW_PIECE];
            double bias[ATTN_ROW_PIECE];
            m = n - i < ATTN_ROW_PIECE ? n - i : ATTN_ROW_PIECE;
            run->k->scores(m, attn_strip_at(from, r, i), bias_piece(run, s, r, j + i, m, bias), mask_piece(s, r, j + i, m, mask),
                           run->job->scale, run->job->negate ? -1 : 1, attn_strip_at(s->z, r, i));
        }
}

/* What a regular row's exponentials are multiplied by. */
static double factor_of(const score_run *run, const score_strip *s, int64_t r) {
    double inverse = 1 / attn_total(s->sum[r]);
    if (run->job->result != RESULT_LSE_GRADIENT) return inverse;
    double dy = ref_load(attn_strip_at(s->of_row, r, 0), run->job->rows.t[SCORES_OF_ROW].dtype, 0);
    return inverse * dy * (run->job->negate ? -run->job->scale : run->job->scale);
}

/* Row r's result for the n scores at z, of which `have_exp` says that the exponentials are already in `work`. */
static void finish_row(const score_run *run, score_strip *s, int64_t r, const char *z, int64_t n, bool have_exp) {
    const attn_softmax_kernels *k = run->k;
    char *work = attn_strip_at(s->work, r, 0);
    bool logarithmic = run->job->result == RESULT_LOG_SOFTMAX;
    if (!attn_is_regular(s->peak[r])) {
        k->blank(n, z, logarithmic ? -INFINITY : 0, work);
    } else if (logarithmic) {
        k->log(n, z, s->peak[r].max, log(attn_total(s->sum[r])), work);
    } else {
        if (!have_exp) k->exp_sum(n, z, s->peak[r].max, work, &(attn_compensated){ 0, 0 });
        k->multiply(n, work, factor_of(run, s, r), work);
    }
}

static void store_lse(const score_run *run, const score_strip *s, int64_t r) {
    attn_peak p = s->peak[r];
    double lse = p.nan ? NAN : isfinite(p.max) ? p.max + log(attn_total(s->sum[r])) : p.max;
    ref_store(attn_strip_at(s->of_row, r, 0), run->job->rows.t[SCORES_OF_ROW].dtype, 0, lse);
}

/* Maximum, sum, result. Scores that stay where x is are found at their own element, those in a buffer at the buffer's first. */
static void do_strip(const score_run *run, score_strip *s) {
    const int64_t n = run->job->rows.n, capacity = s->capacity;
    const bool once = n <= capacity, direct = s->z.data == s->x.data;
    const bool keep_exp = once && s->work.data && run->job->result != RESULT_LOG_SOFTMAX;
    for (int64_t r = 0; r < s->rows; r++) {
        s->peak[r] = (attn_peak){ .max = -INFINITY };
        s->sum[r] = (attn_compensated){ 0, 0 };
    }
    for (int64_t j = 0; j < n; j += capacity) {
        int64_t m = n - j < capacity ? n - j : capacity;
        load_scores(run, s, j, m);
        for (int64_t r = 0; r < s->rows; r++) run->k->peak(m, attn_strip_at(s->z, r, direct ? j : 0), &s->peak[r]);
    }
    for (int64_t j = 0; j < n; j += capacity) {
        int64_t m = n - j < capacity ? n - j : capacity;
        if (!once) load_scores(run, s, j, m);
        for (int64_t r = 0; r < s->rows; r++)
            if (attn_is_regular(s->peak[r]))
                run->k->exp_sum(m, attn_strip_at(s->z, r, direct ? j : 0), s->peak[r].max,
                                keep_exp ? attn_strip_at(s->work, r, 0) : NULL, &s->sum[r]);
    }
    if (run->job->result == RESULT_LSE) {
        for (int64_t r = 0; r < s->rows; r++) store_lse(run, s, r);
        return;
    }
    for (int64_t j = 0; j < n; j += capacity) {
        int64_t m = n - j < capacity ? n - j : capacity;
        if (!once) load_scores(run, s, j, m);
        for (int64_t r = 0; r < s->rows; r++) finish_row(run, s, r, attn_strip_at(s->z, r, direct ? j : 0), m, keep_exp);
        attn_strip y = s->y;
        y.data = attn_strip_at(s->y, 0, j);
        if (s->work.data != s->y.data) attn_strip_copy(run->k, s->rows, m, s->work, y);
    }
}

/* Rows [row, row + count) of the block, worked on in y itself where its rows are dense, else in `buffer`. */
static void do_rows(const score_run *run, const attn_rows_block *b, int64_t row, int64_t count, void *buffer) {
    const attn_rows *rows = &run->job->rows;
    score_strip s = { .rows = count,
                      .x = attn_strip_of(rows, b, SCORES_X, row),
                      .mask = attn_strip_of(rows, b, SCORES_MASK, row),
                      .bias = attn_strip_of(rows, b, SCORES_BIAS, row),
                      .y = attn_strip_of(rows, b, SCORES_Y, row),
                      .of_row = attn_strip_of(rows, b, SCORES_OF_ROW, row),
                      .capacity = run->plan.capacity };
    bool direct = run->plain && s.x.step == 1;
    if (s.y.data && s.y.step == 1) {
        s.work = s.y;
        s.capacity = rows->n;
    } else if (s.y.data || !direct) {
        s.work = (attn_strip){ .data = buffer, .row = run->plan.row, .step = 1, .size = run->size };
    } else {
        s.capacity = rows->n;
    }
    if (s.capacity < 1) s.capacity = 1;
    s.z = direct ? s.x : s.work;
    if (run->job->result == RESULT_LSE) s.work.data = NULL;
    do_strip(run, &s);
}

static void do_block(void *context, int64_t item, void *scratch) {
    const score_run *run = context;
    const attn_rows *rows = &run->job->rows;
    attn_rows_block b = attn_rows_at(rows, run->block, item);
    const attn_rows_tensor *x = &rows->t[SCORES_X], *y = &rows->t[SCORES_Y];
    if (run->plain && x->step == 1 && y->step == 1 && run->job->result <= RESULT_LOG_SOFTMAX) {
        run->k->rows(run->job->result == RESULT_LOG_SOFTMAX, b.count, rows->n, b.data[SCORES_X], b.next[SCORES_X],
                     b.data[SCORES_Y], b.next[SCORES_Y]);
        return;
    }
    _Alignas(64) char stack[STRIP_STACK_BYTES(1)];
    for (int64_t row = 0; row < b.count; row += run->plan.rows)
        do_rows(run, &b, row, b.count - row < run->plan.rows ? b.count - row : run->plan.rows, run->plan.bytes ? scratch : stack);
}

static ref_vector row_vector(const attn_rows *rows, const attn_rows_block *b, int32_t t, int64_t row) {
    attn_strip s = attn_strip_of(rows, b, t, row);
    return (ref_vector){ .data = s.data, .stride = s.step, .dtype = rows->t[t].dtype };
}

static void do_block_by_reference(void *context, int64_t item, void *scratch) {
    (void)scratch;
    const score_run *run = context;
    const attn_rows *rows = &run->job->rows;
    attn_rows_block b = attn_rows_at(rows, run->block, item);
    for (int64_t row = 0; row < b.count; row++) {
        ref_scores scores = { .n = rows->n,
                              .x = row_vector(rows, &b, SCORES_X, row),
                              .mask = row_vector(rows, &b, SCORES_MASK, row),
                              .bias = row_vector(rows, &b, SCORES_BIAS, row),
                              .scale = run->job->scale,
                              .op = run->job->negate ? ATTN_SOFTMIN : ATTN_SOFTMAX };
        ref_vector y = row_vector(rows, &b, SCORES_Y, row), of_row = row_vector(rows, &b, SCORES_OF_ROW, row);
        if (run->job->result == RESULT_LOG_SOFTMAX) scores.op = ATTN_LOG_SOFTMAX;
        if (run->job->result == RESULT_LSE)
            ref_put(of_row, 0, ref_logsumexp(&scores));
        else if (run->job->result == RESULT_LSE_GRADIENT)
            ref_logsumexp_backward(&scores, ref_get(of_row, 0), y);
        else
            ref_softmax(&scores, y);
    }
}

attn_status attn_run_scores(const score_job *job, const attn_exec *exec) {
    const attn_rows *rows = &job->rows;
    const attn_kernels *k = kernels_of(rows, (const int32_t[]){ SCORES_X, SCORES_Y }, 2);
    const attn_rows_tensor *x = &rows->t[SCORES_X], *y = &rows->t[SCORES_Y];
    score_run run = { .job = job,
                      .k = k ? &k->softmax : NULL,
                      .dtype = x->dtype,
                      .size = attn_dtype_size(x->dtype),
                      .block = rows_per_item(rows->n, 1) };
    run.plain = job->scale == 1 && !job->negate && !rows->t[SCORES_MASK].data && !rows->t[SCORES_BIAS].data;
    run.plan = (attn_strip_plan){ .rows = STRIP_STACK_ROWS, .capacity = rows->n };
    bool works_in_y = y->data && y->step == 1, works_in_x = !y->data && run.plain && x->step == 1;
    if (k && !works_in_y && !works_in_x) {
        run.plan = attn_strip_plan_for(rows->n, run.size, 1, exec);
        run.block = rows_per_item(rows->n, run.plan.rows);
    }
    attn_session session;
    attn_status status = attn_session_open(&session, exec, (attn_need){ .per_worker = run.plan.bytes });
    if (status != ATTN_OK) return status;
    attn_session_run(&session, attn_rows_blocks(rows, run.block), k ? do_block : do_block_by_reference, &run);
    attn_session_close(&session);
    return ATTN_OK;
}

/* ---- gradients ----------------------------------------------------------------------------------------- */

typedef struct gradient_run {
    const gradient_job *job;
    const attn_softmax_kernels *k;
    size_t size;
    int64_t block;
    attn_strip_plan plan;
} gradient_run;

static bool is_dense(const attn_rows *rows) {
    for (int32_t t = 0; t < rows->tensors; t++)
        if (rows->t[t].step != 1) return false;
    return true;
}

static void dense_gradient(const gradient_run *run, const char *y, const char *dy, char *dx) {
    const gradient_job *job = run->job;
    attn_compensated sum = { 0, 0 };
    run->k->dy_sum(job->logarithmic, job->rows.n, y, dy, &sum);
    run->k->dx(job->logarithmic, job->rows.n, y, dy, attn_total(sum), job->scale, dx);
}

/* Rows of a strip: y and dy into two buffers, once for the sum and, where they did not fit whole, again for the result. */
static void strip_gradient(const gradient_run *run, int64_t count, attn_strip y, attn_strip dy, attn_strip dx, char *buffer) {
    const int64_t n = run->job->rows.n, capacity = run->plan.capacity;
    attn_strip y_work = { .data = buffer, .row = run->plan.row, .step = 1, .size = run->size }, dy_work = y_work;
    dy_work.data += (size_t)(run->plan.rows * run->plan.row) * run->size;
    attn_compensated sum[STRIP_ROWS] = { { 0, 0 } };
    for (int pass = 0; pass < 2; pass++)
        for (int64_t j = 0; j < n; j += capacity) {
            int64_t m = n - j < capacity ? n - j : capacity;
            attn_strip from_y = y, from_dy = dy, to = dx;
            from_y.data = attn_strip_at(y, 0, j);
            from_dy.data = attn_strip_at(dy, 0, j);
            to.data = attn_strip_at(dx, 0, j);
            if (pass == 0 || n > capacity) {
                attn_strip_copy(run->k, count, m, from_y, y_work);
                attn_strip_copy(run->k, count, m, from_dy, dy_work);
            }
            for (int64_t r = 0; r < count; r++) {
                char *yr = attn_strip_at(y_work, r, 0), *dyr = attn_strip_at(dy_work, r, 0);
                if (pass == 0)
                    run->k->dy_sum(run->job->logarithmic, m, yr, dyr, &sum[r]);
                else
                    run->k->dx(run->job->logarithmic, m, yr, dyr, attn_total(sum[r]), run->job->scale, dyr);
            }
            if (pass == 1) attn_strip_copy(run->k, count, m, dy_work, to);
        }
}

static void gradient_block(void *context, int64_t item, void *scratch) {
    const gradient_run *run = context;
    const attn_rows *rows = &run->job->rows;
    attn_rows_block b = attn_rows_at(rows, run->block, item);
    if (is_dense(rows)) {
        for (int64_t r = 0; r < b.count; r++)
            dense_gradient(run, attn_strip_of(rows, &b, GRADIENT_Y, r).data, attn_strip_of(rows, &b, GRADIENT_DY, r).data,
                           attn_strip_of(rows, &b, GRADIENT_DX, r).data);
        return;
    }
    _Alignas(64) char stack[STRIP_STACK_BYTES(2)];
    for (int64_t r = 0; r < b.count; r += run->plan.rows)
        strip_gradient(run, b.count - r < run->plan.rows ? b.count - r : run->plan.rows, attn_strip_of(rows, &b, GRADIENT_Y, r),
                       attn_strip_of(rows, &b, GRADIENT_DY, r), attn_strip_of(rows, &b, GRADIENT_DX, r),
                       run->plan.bytes ? scratch : stack);
}

static void gradient_block_by_reference(void *context, int64_t item, void *scratch) {
    (void)scratch;
    const gradient_run *run = context;
    const attn_rows *rows = &run->job->rows;
    attn_rows_block b = attn_rows_at(rows, run->block, item);
    for (int64_t r = 0; r < b.count; r++)
        ref_softmax_backward(run->job->logarithmic ? ATTN_LOG_SOFTMAX : ATTN_SOFTMAX, run->job->scale, rows->n,
                             row_vector(rows, &b, GRADIENT_Y, r), row_vector(rows, &b, GRADIENT_DY, r),
                             row_vector(rows, &b, GRADIENT_DX, r));
}

attn_status attn_run_gradients(const gradient_job *job, const attn_exec *exec) {
    const attn_rows *rows = &job->rows;
    const attn_kernels *k = kernels_of(rows, (const int32_t[]){ GRADIENT_Y, GRADIENT_DY, GRADIENT_DX }, 3);
    gradient_run run = { .job = job,
                         .k = k ? &k->softmax : NULL,
                         .size = attn_dtype_size(rows->t[GRADIENT_Y].dtype),
                         .block = rows_per_item(rows->n, 1) };
    if (k && !is_dense(rows)) {
        run.plan = attn_strip_plan_for(rows->n, run.size, 2, exec);
        run.block = rows_per_item(rows->n, run.plan.rows);
    }
    attn_session session;
    attn_status status = attn_session_open(&session, exec, (attn_need){ .per_worker = run.plan.bytes });
    if (status != ATTN_OK) return status;
    attn_session_run(&session, attn_rows_blocks(rows, run.block), k ? gradient_block : gradient_block_by_reference, &run);
    attn_session_close(&session);
    return ATTN_OK;
}
