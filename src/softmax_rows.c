/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of the softmax family through the kernels. A work item is a block of rows. Dense rows are worked on where they are; others
 * are brought into a strip first. A row too long for its strip is worked on in pieces, read once for its maximum, once for its sum
 * and once for its result. Whichever way a row takes, its bits are the same: kernels.h says how pieces are summed. */
#include "softmax_rows.h"
#include "softmax_whole.h"
#include "entmax_search.h"
#include "operand.h"
#include "piece.h"
#include "status.h"
#include "strip.h"

#include "ref/softmax.h"

#include <math.h>

/* Elements of dense rows that make a work item, and of which at least two items are worth a second worker. */
enum { ITEM_ELEMENTS = 16384 };

int64_t attn_rows_per_item(int64_t n, int64_t unit) {
    int64_t units = ITEM_ELEMENTS / unit / (n > 0 ? n : 1);
    return units > 1 ? units * unit : unit;
}

/* The kernels for tensors that are all of one element type that has some, 16 bits counting as F32; else NULL, and the reference
 * answers. */
static const attn_kernels *kernels_of(const attn_rows *rows, const int32_t *tensors, size_t count) {
    int32_t dtype = -1;
    for (size_t i = 0; i < count; i++) {
        const attn_rows_tensor *t = &rows->t[tensors[i]];
        if (!t->data) continue;
        int32_t computed = t->dtype == ATTN_F64 ? ATTN_F64 : ATTN_F32;
        if (dtype >= 0 && computed != dtype) return NULL;
        dtype = computed;
    }
    const attn_kernels *k = attn_kernels_for(dtype);
    return k && k->softmax.rows && k->entmax.excess ? k : NULL;
}

/* Beyond alpha 2 weights rise so steeply above the threshold that single precision would tell little of them, and a huge alpha takes
 * what kernels multiply by beyond double: the reference answers. */
static bool takes_alpha(const attn_kernels *k, double alpha, int64_t n) {
    return alpha <= 2 || (k->dtype == ATTN_F64 && (alpha - 1) * log((double)n) < 600);
}

/* ---- scores ------------------------------------------------------------------------------------------- */

typedef struct score_run {
    const score_job *job;
    const attn_kernels *kernels;
    const attn_softmax_kernels *k;
    const attn_entmax_kernels *entmax;
    int32_t dtype;
    size_t size;
    bool plain;         /* z = x */
    double temperature; /* as the element type can hold it */
    int64_t block;
    attn_strip_plan plan;
} score_run;

/* Rows being worked on: their tensors, and where their scores and results stand. */
typedef struct score_strip {
    int64_t rows;
    int64_t number, next_number; /* the first row's row-major number, and how far apart they are */
    attn_strip x, mask, bias, y, of_row, tangent;
    attn_strip z;     /* x itself, or `work` */
    attn_strip work;  /* dense: y itself, or a buffer; absent when nothing but the lse of dense rows is wanted */
    int64_t capacity; /* of z, in elements of a row */
    attn_peak peak[STRIP_ROWS];
    attn_compensated sum[STRIP_ROWS];
    attn_compensated dot[STRIP_ROWS]; /* of exponentials and tangents */
    bool found[STRIP_ROWS];           /* the largest score of a row has been written as 1 */
} score_strip;

/* Elements [j, j + n) of row r's mask, and of its bias or tangent: dense, and of the scores' element type. */
static const uint8_t *mask_piece(const score_strip *s, int64_t r, int64_t j, int64_t n, uint8_t *buffer) {
    if (!s->mask.data) return NULL;
    if (s->mask.step == 1) return (uint8_t *)attn_strip_at(s->mask, r, j);
    for (int64_t i = 0; i < n; i++) buffer[i] = *(uint8_t *)attn_strip_at(s->mask, r, j + i);
    return buffer;
}

static const void *float_piece(const score_run *run, attn_strip from, int32_t dtype, int64_t r, int64_t j, int64_t n,
                               double *buffer) {
    if (!from.data) return NULL;
    if (from.step == 1 && dtype == run->dtype) return attn_strip_at(from, r, j);
    for (int64_t i = 0; i < n; i++) ref_store(buffer, run->dtype, i, ref_load(attn_strip_at(from, r, j + i), dtype, 0));
    return buffer;
}

/* z += the noise of gumbel-softmax. */
static void add_noise(const score_run *run, const score_strip *s, int64_t r, int64_t j, int64_t n, void *z) {
    uint64_t position = (uint64_t)(s->number + r * s->next_number) * (uint64_t)run->job->rows.n + (uint64_t)j;
    run->entmax->add_gumbel(n, position, run->job->seed, z);
}

/* Elements [j, j + n) of the scores of rows [row, end) into z, which begins at element j. */
static void load_scores(const score_run *run, score_strip *s, int64_t row, int64_t end, int64_t j, int64_t n) {
    if (s->z.data == s->x.data && run->plain) return;
    attn_strip from = s->x, z = s->z;
    from.data = attn_strip_at(s->x, row, j);
    z.data = attn_strip_at(s->z, row, 0);
    if (run->plain || from.step != 1 || from.dtype != run->dtype) {
        attn_strip_copy(run->kernels, end - row, n, from, z);
        from = z;
    }
    if (run->plain) return;
    for (int64_t r = row; r < end; r++)
        for (int64_t i = 0, m; i < n; i += m) {
            uint8_t mask[ATTN_ROW_PIECE];
            double bias[ATTN_ROW_PIECE];
            m = n - i < ATTN_ROW_PIECE ? n - i : ATTN_ROW_PIECE;
            char *to = attn_strip_at(z, r - row, i);
            run->k->scores(m, attn_strip_at(from, r - row, i),
                           float_piece(run, s->bias, run->job->rows.t[SCORES_BIAS].dtype, r, j + i, m, bias),
                           mask_piece(s, r, j + i, m, mask), run->job->scale, run->job->negate ? -1 : 1, to);
            if (run->job->result == RESULT_GUMBEL) add_noise(run, s, r, j + i, m, to);
        }
}

/* What a regular row's exponentials are multiplied by. */
static double factor_of(const score_run *run, const score_strip *s, int64_t r) {
    double inverse = 1 / attn_total(s->sum[r]);
    if (run->job->result != RESULT_LSE_GRADIENT) return inverse;
    double dy = ref_load(attn_strip_at(s->of_row, r, 0), run->job->rows.t[SCORES_OF_ROW].dtype, 0);
    return inverse * dy * (run->job->negate ? -run->job->scale : run->job->scale);
}

/* e = exp(z - max) of row r, added to sum; the temperature of gumbel-softmax divides z - max, lest a small one overflow. Such scores
 * are in a buffer and e there too; else e may be NULL. */
static void exponentials(const score_run *run, const score_strip *s, int64_t r, const char *z, int64_t n, char *e,
                         attn_compensated *sum) {
    if (run->job->result == RESULT_GUMBEL) {
        run->entmax->cool(n, z, s->peak[r].max, run->temperature, e);
        run->k->exp_sum(n, e, 0, e, sum);
    } else {
        run->k->exp_sum(n, z, s->peak[r].max, e, sum);
    }
}

/* Row r's exponentials e of elements [j, j + n) meet their tangents. */
static void add_dot(const score_run *run, score_strip *s, int64_t r, int64_t j, int64_t n, const char *e) {
    int32_t dtype = run->job->rows.t[SCORES_TANGENT].dtype;
    for (int64_t i = 0, m; i < n; i += m) {
        double buffer[ATTN_ROW_PIECE];
        m = n - i < ATTN_ROW_PIECE ? n - i : ATTN_ROW_PIECE;
        run->k->dy_sum(ATTN_SLOPE_SOFTMAX, m, e + i * (int64_t)run->size,
                       float_piece(run, s->tangent, dtype, r, j + i, m, buffer), &s->dot[r]);
    }
}

static void store_lse_tangent(const score_run *run, const score_strip *s, int64_t r) {
    attn_peak p = s->peak[r];
    double scale = run->job->negate ? -run->job->scale : run->job->scale, tangent = NAN;
    if (attn_is_regular(p)) tangent = attn_total(s->dot[r]) / attn_total(s->sum[r]) * scale;
    if (!p.nan && p.max == -INFINITY) tangent = 0;
    ref_store(attn_strip_at(s->of_row, r, 0), run->job->rows.t[SCORES_OF_ROW].dtype, 0, tangent);
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
    } else if (run->job->hard) {
        run->entmax->one_hot(n, z, s->peak[r].max, &s->found[r], work);
    } else {
        if (!have_exp) exponentials(run, s, r, z, n, work, &(attn_compensated){ 0, 0 });
        k->multiply(n, work, factor_of(run, s, r), work);
    }
}

static void store_lse(const score_run *run, const score_strip *s, int64_t r) {
    attn_peak p = s->peak[r];
    double lse = p.nan ? NAN : isfinite(p.max) ? p.max + log(attn_total(s->sum[r])) : p.max;
    ref_store(attn_strip_at(s->of_row, r, 0), run->job->rows.t[SCORES_OF_ROW].dtype, 0, lse);
}

/* ---- entmax: as many sweeps as the threshold needs, row by row ---- */

typedef struct entmax_source {
    const score_run *run;
    score_strip *strip;
    int64_t row;
    bool direct; /* the scores stay where x is */
} entmax_source;

/* Scores that did not fit whole are brought in again. */
static const void *entmax_piece(void *context, int64_t j, int64_t *n) {
    const entmax_source *f = context;
    score_strip *s = f->strip;
    int64_t left = f->run->job->rows.n - j;
    *n = left < s->capacity ? left : s->capacity;
    if (f->run->job->rows.n > s->capacity) load_scores(f->run, s, f->row, f->row + 1, j, *n);
    return attn_strip_at(s->z, f->row, f->direct ? j : 0);
}

static void entmax_row(const score_run *run, score_strip *s, int64_t r, bool direct) {
    entmax_source from = { run, s, r, direct };
    attn_scores_source row = { entmax_piece, &from, run->job->rows.n, run->dtype, s->peak[r].max };
    bool regular = attn_is_regular(s->peak[r]);
    attn_entmax_cut cut = { .alpha = 0 };
    if (regular) cut = attn_entmax_search(run->kernels, run->job->alpha, &row);
    char *work = attn_strip_at(s->work, r, 0);
    for (int64_t j = 0, m; j < row.n; j += m) {
        const void *z = entmax_piece(&from, j, &m);
        if (regular)
            attn_entmax_apply(run->entmax, &cut, m, z, work);
        else
            run->k->blank(m, z, 0, work);
        attn_strip from_work = s->work, y = s->y;
        from_work.data = work, y.data = attn_strip_at(s->y, r, j);
        if (s->work.data != s->y.data) attn_strip_copy(run->kernels, 1, m, from_work, y);
    }
}

/* Maximum, sum, result. Scores that stay where x is are found at their own element, those in a buffer at the buffer's first. */
static void do_strip(const score_run *run, score_strip *s) {
    const int64_t n = run->job->rows.n, capacity = s->capacity;
    const bool once = n <= capacity, direct = s->z.data == s->x.data;
    const bool tangent = run->job->result == RESULT_LSE_TANGENT;
    const bool keep_exp = tangent || (once && s->work.data && run->job->result != RESULT_LOG_SOFTMAX);
    for (int64_t r = 0; r < s->rows; r++) {
        s->peak[r] = (attn_peak){ .max = -INFINITY };
        s->sum[r] = s->dot[r] = (attn_compensated){ 0, 0 };
        s->found[r] = false;
    }
    for (int64_t j = 0; j < n; j += capacity) {
        int64_t m = n - j < capacity ? n - j : capacity;
        load_scores(run, s, 0, s->rows, j, m);
        for (int64_t r = 0; r < s->rows; r++) run->k->peak(m, attn_strip_at(s->z, r, direct ? j : 0), &s->peak[r]);
    }
    if (run->job->result == RESULT_ENTMAX) {
        for (int64_t r = 0; r < s->rows; r++) entmax_row(run, s, r, direct);
        return;
    }
    for (int64_t j = 0; j < n && !run->job->hard; j += capacity) {
        int64_t m = n - j < capacity ? n - j : capacity;
        if (!once) load_scores(run, s, 0, s->rows, j, m);
        for (int64_t r = 0; r < s->rows; r++) {
            if (!attn_is_regular(s->peak[r])) continue;
            char *e = keep_exp || run->job->result == RESULT_GUMBEL ? attn_strip_at(s->work, r, 0) : NULL;
            exponentials(run, s, r, attn_strip_at(s->z, r, direct ? j : 0), m, e, &s->sum[r]);
            if (tangent) add_dot(run, s, r, j, m, e);
        }
    }
    if (tangent) {
        for (int64_t r = 0; r < s->rows; r++) store_lse_tangent(run, s, r);
        return;
    }
    if (run->job->result == RESULT_LSE) {
        for (int64_t r = 0; r < s->rows; r++) store_lse(run, s, r);
        return;
    }
    for (int64_t j = 0; j < n; j += capacity) {
        int64_t m = n - j < capacity ? n - j : capacity;
        if (!once) load_scores(run, s, 0, s->rows, j, m);
        for (int64_t r = 0; r < s->rows; r++) finish_row(run, s, r, attn_strip_at(s->z, r, direct ? j : 0), m, keep_exp);
        attn_strip y = s->y;
        y.data = attn_strip_at(s->y, 0, j);
        if (s->work.data != s->y.data) attn_strip_copy(run->kernels, s->rows, m, s->work, y);
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
                      .tangent = attn_strip_of(rows, b, SCORES_TANGENT, row),
                      .number = b->number + row * b->next_number,
                      .next_number = b->next_number,
                      .capacity = run->plan.capacity };
    bool direct = run->plain && s.x.step == 1 && s.x.dtype == run->dtype;
    if (s.y.data && s.y.step == 1 && s.y.dtype == run->dtype) {
        s.work = s.y;
        s.capacity = rows->n;
    } else if (s.y.data || !direct || run->job->result == RESULT_LSE_TANGENT) {
        s.work = (attn_strip){ .data = buffer, .row = run->plan.row, .step = 1, .dtype = run->dtype, .size = run->size };
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
    _Alignas(64) char stack[STRIP_STACK_BYTES(1)];
    for (int64_t row = 0; row < b.count; row += run->plan.rows)
        do_rows(run, &b, row, b.count - row < run->plan.rows ? b.count - row : run->plan.rows, run->plan.bytes ? scratch : stack);
}

static void do_block_by_reference(void *context, int64_t item, void *scratch) {
    (void)scratch;
    const score_run *run = context;
    const attn_rows *rows = &run->job->rows;
    attn_rows_block b = attn_rows_at(rows, run->block, item);
    for (int64_t row = 0; row < b.count; row++) {
        ref_scores scores = { .n = rows->n,
                              .x = attn_rows_vector(rows, &b, SCORES_X, row),
                              .mask = attn_rows_vector(rows, &b, SCORES_MASK, row),
                              .bias = attn_rows_vector(rows, &b, SCORES_BIAS, row),
                              .scale = run->job->scale,
                              .op = run->job->negate ? ATTN_SOFTMIN : ATTN_SOFTMAX };
        ref_vector y = attn_rows_vector(rows, &b, SCORES_Y, row), of_row = attn_rows_vector(rows, &b, SCORES_OF_ROW, row);
        uint64_t number = (uint64_t)(b.number + row * b.next_number);
        switch (run->job->result) {
        case RESULT_LSE: ref_put(of_row, 0, ref_logsumexp(&scores)); break;
        case RESULT_LSE_TANGENT:
            ref_put(of_row, 0, ref_logsumexp_tangent(&scores, attn_rows_vector(rows, &b, SCORES_TANGENT, row)));
            break;
        case RESULT_LSE_GRADIENT: ref_logsumexp_backward(&scores, ref_get(of_row, 0), y); break;
        case RESULT_ENTMAX: ref_entmax(&scores, run->job->alpha, y); break;
        case RESULT_GUMBEL:
            ref_gumbel_softmax(&scores, run->job->seed, number * (uint64_t)rows->n, run->job->temperature, run->job->hard, y);
            break;
        case RESULT_LOG_SOFTMAX:
            scores.op = ATTN_LOG_SOFTMAX;
            ref_softmax(&scores, y);
            break;
        case RESULT_SOFTMAX: ref_softmax(&scores, y); break;
        }
    }
}

attn_status attn_run_scores(const score_job *job, const attn_exec *exec) {
    const attn_rows *rows = &job->rows;
    const attn_kernels *k = kernels_of(rows, (const int32_t[]){ SCORES_X, SCORES_Y, SCORES_TANGENT }, 3);
    if (k && !takes_alpha(k, job->alpha, rows->n)) k = NULL;
    const attn_rows_tensor *x = &rows->t[SCORES_X], *y = &rows->t[SCORES_Y];
    score_run run = { .job = job,
                      .kernels = k,
                      .k = k ? &k->softmax : NULL,
                      .entmax = k ? &k->entmax : NULL,
                      .dtype = k ? k->dtype : x->dtype,
                      .size = attn_dtype_size(k ? k->dtype : x->dtype),
                      .temperature =
                          k && k->dtype == ATTN_F32 ? fmin(fmax(job->temperature, 0x1p-126), 0x1p126) : job->temperature,
                      .block = attn_rows_per_item(rows->n, 1) };
    run.plain = job->scale == 1 && !job->negate && !rows->t[SCORES_MASK].data && !rows->t[SCORES_BIAS].data &&
                job->result != RESULT_GUMBEL;
    attn_whole_run whole;
    if (k && run.plain && attn_plan_whole(&whole, job, k, exec)) return attn_run_whole(&whole, exec);
    run.plan = (attn_strip_plan){ .rows = STRIP_STACK_ROWS, .capacity = rows->n };
    bool works_in_y = y->data && y->step == 1 && y->dtype == run.dtype;
    bool works_in_x = !y->data && run.plain && x->step == 1 && x->dtype == run.dtype && job->result != RESULT_LSE_TANGENT;
    if (k && !works_in_y && !works_in_x) {
        run.plan = attn_strip_plan_for(rows->n, run.size, 1, x->step == 1 && (!y->data || y->step == 1), exec);
        run.block = attn_rows_per_item(rows->n, run.plan.rows);
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
    const attn_kernels *kernels;
    const attn_softmax_kernels *k;
    const attn_entmax_kernels *entmax;
    size_t size;
    int64_t block;
    attn_strip_plan plan;
} gradient_run;

static bool all_dense(const attn_rows *rows) {
    for (int32_t t = 0; t < rows->tensors; t++)
        if (rows->t[t].step != 1) return false;
    return true;
}

/* Worked on where they are. */
static bool is_dense(const attn_rows *rows, int32_t dtype) {
    for (int32_t t = 0; t < rows->tensors; t++)
        if (rows->t[t].dtype != dtype) return false;
    return all_dense(rows);
}

/* What a row's y and dy add up to: softmax sum y dy, log-softmax sum dy (of a tangent sum exp(y) dy), entmax sum r dy and
 * sum r. */
typedef struct gradient_sums {
    attn_compensated dy, shares;
} gradient_sums;

static void add_sums(const gradient_run *run, int64_t n, const char *y, const char *dy, gradient_sums *s) {
    if (run->job->alpha > 0)
        run->entmax->support_sums(2 - run->job->alpha, n, y, dy, &s->dy, &s->shares);
    else
        run->k->dy_sum(run->job->slope, n, y, dy, &s->dy);
}

static void write_dx(const gradient_run *run, int64_t n, const char *y, const char *dy, const gradient_sums *s, char *dx) {
    const gradient_job *job = run->job;
    double sum = attn_total(s->dy);
    if (job->alpha > 0)
        run->entmax->support_dx(2 - job->alpha, n, y, dy, sum / attn_total(s->shares), job->scale, dx);
    else
        run->k->dx(job->slope, n, y, dy, sum, job->scale, dx);
}

static void dense_gradient(const gradient_run *run, const char *y, const char *dy, char *dx) {
    gradient_sums sums = { { 0, 0 }, { 0, 0 } };
    add_sums(run, run->job->rows.n, y, dy, &sums);
    write_dx(run, run->job->rows.n, y, dy, &sums, dx);
}

/* Rows of a strip: y and dy into two buffers, once for the sum and, where they did not fit whole, again for the result. */
static void strip_gradient(const gradient_run *run, int64_t count, attn_strip y, attn_strip dy, attn_strip dx, char *buffer) {
    const int64_t n = run->job->rows.n, capacity = run->plan.capacity;
    attn_strip y_work = { .data = buffer, .row = run->plan.row, .step = 1, .dtype = run->kernels->dtype, .size = run->size },
               dy_work = y_work;
    dy_work.data += (size_t)(run->plan.rows * run->plan.row) * run->size;
    gradient_sums sums[STRIP_ROWS] = { { { 0, 0 }, { 0, 0 } } };
    for (int pass = 0; pass < 2; pass++)
        for (int64_t j = 0; j < n; j += capacity) {
            int64_t m = n - j < capacity ? n - j : capacity;
            attn_strip from_y = y, from_dy = dy, to = dx;
            from_y.data = attn_strip_at(y, 0, j);
            from_dy.data = attn_strip_at(dy, 0, j);
            to.data = attn_strip_at(dx, 0, j);
            if (pass == 0 || n > capacity) {
                attn_strip_copy(run->kernels, count, m, from_y, y_work);
                attn_strip_copy(run->kernels, count, m, from_dy, dy_work);
            }
            for (int64_t r = 0; r < count; r++) {
                char *yr = attn_strip_at(y_work, r, 0), *dyr = attn_strip_at(dy_work, r, 0);
                if (pass == 0)
                    add_sums(run, m, yr, dyr, &sums[r]);
                else
                    write_dx(run, m, yr, dyr, &sums[r], dyr);
            }
            if (pass == 1) attn_strip_copy(run->kernels, count, m, dy_work, to);
        }
}

static void gradient_block(void *context, int64_t item, void *scratch) {
    const gradient_run *run = context;
    const attn_rows *rows = &run->job->rows;
    attn_rows_block b = attn_rows_at(rows, run->block, item);
    if (is_dense(rows, run->kernels->dtype)) {
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
    for (int64_t r = 0; r < b.count; r++) {
        ref_vector y = attn_rows_vector(rows, &b, GRADIENT_Y, r), dy = attn_rows_vector(rows, &b, GRADIENT_DY, r),
                   dx = attn_rows_vector(rows, &b, GRADIENT_DX, r);
        if (run->job->alpha > 0)
            ref_entmax_backward(run->job->alpha, run->job->scale, rows->n, y, dy, dx);
        else if (run->job->slope == ATTN_SLOPE_LOG_TANGENT)
            ref_log_softmax_tangent(run->job->scale, rows->n, y, dy, dx);
        else
            ref_softmax_backward(run->job->slope == ATTN_SLOPE_LOG ? ATTN_LOG_SOFTMAX : ATTN_SOFTMAX, run->job->scale, rows->n, y,
                                 dy, dx);
    }
}

attn_status attn_run_gradients(const gradient_job *job, const attn_exec *exec) {
    const attn_rows *rows = &job->rows;
    const int32_t all[] = { GRADIENT_Y, GRADIENT_DY, GRADIENT_DX };
    /* Beyond alpha 2 the least weights count most, and the reference keeps the digits of differences to the least. */
    const attn_kernels *k = job->alpha > 2 ? NULL : kernels_of(rows, all, 3);
    gradient_run run = { .job = job,
                         .kernels = k,
                         .k = k ? &k->softmax : NULL,
                         .entmax = k ? &k->entmax : NULL,
                         .size = attn_dtype_size(k ? k->dtype : rows->t[GRADIENT_Y].dtype),
                         .block = attn_rows_per_item(rows->n, 1) };
    if (k && !is_dense(rows, k->dtype)) {
        run.plan = attn_strip_plan_for(rows->n, run.size, 2, all_dense(rows), exec);
        run.block = attn_rows_per_item(rows->n, run.plan.rows);
    }
    attn_session session;
    attn_status status = attn_session_open(&session, exec, (attn_need){ .per_worker = run.plan.bytes });
    if (status != ATTN_OK) return status;
    attn_session_run(&session, attn_rows_blocks(rows, run.block), k ? gradient_block : gradient_block_by_reference, &run);
    attn_session_close(&session);
    return ATTN_OK;
}

/* ---- the gradient to alpha ------------------------------------------------------------------------------- */

enum { MOST_PARTS = 512 };

typedef struct dalpha_run {
    double alpha;
    const attn_tensor *y, *dy;
    int64_t rows, rows_per_part;
    double part[MOST_PARTS];
} dalpha_run;

static void dalpha_part(void *context, int64_t item, void *scratch) {
    (void)scratch;
    dalpha_run *run = context;
    int64_t row = item * run->rows_per_part, end = row + run->rows_per_part < run->rows ? row + run->rows_per_part : run->rows;
    int64_t n = run->y->shape[run->y->rank - 1];
    double sum = 0;
    for (; row < end; row++)
        sum += ref_entmax_backward(run->alpha, 1, n, attn_ref_row(run->y, row), attn_ref_row(run->dy, row), (ref_vector){ 0 });
    run->part[item] = sum;
}

attn_status attn_run_dalpha(double alpha, const attn_tensor *y, const attn_tensor *dy, double *dalpha, const attn_exec *exec) {
    dalpha_run run = { .alpha = alpha, .y = y, .dy = dy, .rows = attn_row_count(y) };
    run.rows_per_part = (run.rows + MOST_PARTS - 1) / MOST_PARTS;
    int64_t parts = run.rows ? (run.rows + run.rows_per_part - 1) / run.rows_per_part : 0;
    attn_session session;
    attn_status status = attn_session_open(&session, exec, (attn_need){ 0 });
    if (status != ATTN_OK) return status;
    attn_session_run(&session, parts, dalpha_part, &run);
    *dalpha = 0;
    for (int64_t i = 0; i < parts; i++) *dalpha += run.part[i];
    attn_session_close(&session);
    return ATTN_OK;
}
