/* SPDX-License-Identifier: Apache-2.0 */
/* attn_cross_entropy: the loss of n rows of logits and its gradient, one row at a time: maximum, sum and gradient while the row is
 * in the cache. Per-row losses are added up in blocks that depend on n alone, so that the loss has the same bits for any number of
 * threads, and no memory is needed. */
#include "exec.h"
#include "operand.h"
#include "status.h"

#include "ref/cross_entropy.h"

#include <math.h>
#include <string.h>

/* Blocks of rows whose losses are added up first: at most this many. */
enum { MAX_BLOCKS = 512, ROWS_PER_BLOCK = 16 };

/* A loss after validation. */
typedef struct loss_plan {
    int64_t n, classes;
    attn_tensor logits, dlogits, labels, weight, loss; /* dlogits and weight may be absent; loss: [n] with ATTN_NONE */
    bool soft;
    int32_t reduction;
    int64_t ignore_index;
    double smoothing, z_loss;
    double divisor;  /* what the sum of losses is divided by */
    bool any_counts; /* some row is not ignored */
} loss_plan;

/* ---- checks ---------------------------------------------------------------------------------------------- */

static attn_status check_options(const attn_cross_entropy_args *a, loss_plan *p) {
    if (a->flags & ~(uint32_t)ATTN_IGNORE_SET)
        return attn_fail(ATTN_BAD_ARGUMENT, "flags 0x%x mean nothing to cross-entropy", a->flags);
    if (a->reduction < ATTN_MEAN || a->reduction > ATTN_NONE)
        return attn_fail(ATTN_BAD_ARGUMENT, "reduction is %d, not mean, sum or none", (int)a->reduction);
    if (!(a->label_smoothing >= 0 && a->label_smoothing <= 1))
        return attn_fail(ATTN_BAD_ARGUMENT, "label_smoothing is %g; it has to be from 0 to 1", a->label_smoothing);
    if (!isfinite(a->z_loss)) return attn_fail(ATTN_BAD_ARGUMENT, "z_loss is %g; it has to be a finite number", a->z_loss);
    p->reduction = a->reduction;
    p->ignore_index = a->flags & ATTN_IGNORE_SET ? a->ignore_index : -100;
    p->smoothing = a->label_smoothing;
    p->z_loss = a->z_loss;
    return attn_check_reserved("attn_cross_entropy_args", a->reserved, sizeof a->reserved / sizeof *a->reserved);
}

static attn_status check_labels_shape(const attn_cross_entropy_args *a, loss_plan *p) {
    const attn_tensor *labels = &a->labels;
    attn_status s;
    p->labels = *labels;
    p->soft = labels->rank != 0 && attn_dtype_is_float(labels->dtype);
    if (p->soft) {
        s = attn_check_operand("labels", labels, ATTN_INPUT, 2, a->logits.shape, a->logits.dtype, "logits");
        if (s == ATTN_OK && a->flags & ATTN_IGNORE_SET && a->ignore_index >= 0)
            s = attn_fail(ATTN_BAD_ARGUMENT, "ignore_index is %lld, but soft labels have no index to ignore",
                          (long long)a->ignore_index);
        return s;
    }
    s = attn_check_tensor("labels", labels, 1, 1);
    if (s == ATTN_OK && labels->dtype != ATTN_I32 && labels->dtype != ATTN_I64)
        s = attn_fail(ATTN_BAD_ARGUMENT, "labels are %s; they have to be i32, i64 or float", attn_dtype_name(labels->dtype));
    if (s == ATTN_OK && labels->shape[0] != p->n)
        s = attn_fail(ATTN_BAD_SHAPE, "there are %lld labels for %lld rows of logits", (long long)labels->shape[0],
                      (long long)p->n);
    return s;
}

static attn_status check_inputs(const attn_cross_entropy_args *a, loss_plan *p) {
    attn_status s = attn_check_float("logits", &a->logits, ATTN_INPUT, 2, 2);
    if (s != ATTN_OK) return s;
    p->logits = a->logits;
    p->n = a->logits.shape[0];
    p->classes = a->logits.shape[1];
    if (p->n > 0 && p->classes == 0) return attn_fail(ATTN_BAD_SHAPE, "logits have no classes");
    s = check_labels_shape(a, p);
    if (s != ATTN_OK || !attn_present(&a->class_weight)) return s;
    p->weight = a->class_weight;
    return attn_check_operand("class_weight", &a->class_weight, ATTN_INPUT, 1, &p->classes, a->logits.dtype, "classes");
}

static attn_status check_outputs(const attn_cross_entropy_args *a, loss_plan *p) {
    static const int64_t one = 1;
    bool per_row = p->reduction == ATTN_NONE;
    int32_t rank = per_row ? 1 : a->loss.rank != 0;
    if (!a->loss.data && a->loss.rank == 0) return attn_fail(ATTN_BAD_ARGUMENT, "loss is missing");
    int32_t dtype = a->loss.dtype == ATTN_F64 ? ATTN_F64 : a->logits.dtype;
    attn_status s = attn_check_operand("loss", &a->loss, ATTN_OUTPUT, rank, per_row ? &p->n : &one, dtype, "the reduction");
    p->loss = a->loss;
    if (s != ATTN_OK || !attn_present(&a->dlogits)) return s;
    p->dlogits = a->dlogits;
    return attn_check_operand("dlogits", &a->dlogits, ATTN_OUTPUT, 2, a->logits.shape, a->logits.dtype, "logits");
}

static int64_t label_of(const loss_plan *p, int64_t row) { return attn_int_at(&p->labels, row * p->labels.stride[0]); }
static bool counts(const loss_plan *p, int64_t row) { return p->soft || label_of(p, row) != p->ignore_index; }
static double weight_of(const loss_plan *p, int64_t c) {
    return p->weight.rank ? ref_load(p->weight.data, p->weight.dtype, c * p->weight.stride[0]) : 1;
}

/* Every label is a class or ignored; and what the mean divides by. */
static attn_status check_labels(loss_plan *p) {
    double weight = 0;
    for (int64_t i = 0; i < p->n; i++) {
        if (!counts(p, i)) continue;
        p->any_counts = true;
        if (p->soft) continue;
        int64_t label = label_of(p, i);
        if (label < 0 || label >= p->classes)
            return attn_fail(ATTN_BAD_ARGUMENT, "labels[%lld] is %lld, which is no class of %lld (and not ignore_index %lld)",
                             (long long)i, (long long)label, (long long)p->classes, (long long)p->ignore_index);
        weight += weight_of(p, label);
    }
    p->divisor = p->reduction != ATTN_MEAN ? 1 : p->soft ? (double)p->n : weight;
    return ATTN_OK;
}

/* ---- one row ------------------------------------------------------------------------------------------------ */

typedef struct loss_run {
    const loss_plan *plan;
    const attn_softmax_kernels *k; /* NULL: the reference */
    double factor;                 /* of the gradient */
    int64_t rows_per_block;
    double partial[MAX_BLOCKS]; /* sums of losses */
} loss_run;

static ref_vector row_of(const attn_tensor *t, int64_t row) {
    if (!t->rank) return (ref_vector){ 0 };
    return (ref_vector){ .data = attn_at(t, row * t->stride[0]), .stride = t->stride[1], .dtype = t->dtype };
}

static ref_vector weights_of(const loss_plan *p) {
    if (!p->weight.rank) return (ref_vector){ 0 };
    return (ref_vector){ .data = p->weight.data, .stride = p->weight.stride[0], .dtype = p->weight.dtype };
}

static double row_by_reference(const loss_run *run, int64_t row) {
    const loss_plan *p = run->plan;
    ref_target t = { .classes = p->classes,
                     .logits = row_of(&p->logits, row),
                     .label = p->soft ? 0 : label_of(p, row),
                     .soft = p->soft ? row_of(&p->labels, row) : (ref_vector){ 0 },
                     .weight = weights_of(p),
                     .smoothing = p->smoothing,
                     .z_loss = p->z_loss };
    double loss = ref_cross_entropy(&t);
    if (p->dlogits.rank) ref_cross_entropy_backward(&t, run->factor, row_of(&p->dlogits, row));
    return loss;
}

/* A row in the kernels' hands: whole where everything is dense, else in pieces that pass through buffers on the stack. */
typedef struct loss_row {
    const loss_run *run;
    ref_vector logits, dlogits, soft, weight; /* data NULL: absent */
    bool many_targets;                        /* the target has more terms than its label */
    int64_t piece;
} loss_row;

typedef struct loss_buffers {
    double z[ATTN_ROW_PIECE], soft[ATTN_ROW_PIECE], weight[ATTN_ROW_PIECE], dz[ATTN_ROW_PIECE];
} loss_buffers;

static void *element(ref_vector v, int64_t j) { return (char *)v.data + j * v.stride * (int64_t)attn_dtype_size(v.dtype); }

static const void *dense(ref_vector v, int64_t j, int64_t n, double *buffer) {
    if (!v.data) return NULL;
    if (v.stride == 1) return element(v, j);
    for (int64_t i = 0; i < n; i++) ref_store(buffer, v.dtype, i, ref_get(v, j + i));
    return buffer;
}

static attn_target target_piece(const loss_row *r, int64_t j, int64_t n, loss_buffers *b) {
    const loss_plan *p = r->run->plan;
    return (attn_target){ .soft = dense(r->soft, j, n, b->soft),
                          .weight = dense(r->weight, j, n, b->weight),
                          .sharp = 1 - p->smoothing,
                          .spread = p->smoothing / (double)p->classes };
}

/* Where the results of a piece are worked out: in dlogits, or in a buffer that put_piece copies from. */
static void *gradient_piece(const loss_row *r, int64_t j, loss_buffers *b) {
    if (!r->dlogits.data) return NULL;
    return r->dlogits.stride == 1 ? element(r->dlogits, j) : b->dz;
}

static void put_piece(const loss_row *r, int64_t j, int64_t n, const void *dz) {
    if (r->dlogits.stride == 1) return;
    for (int64_t i = 0; i < n; i++) ref_put(r->dlogits, j + i, ref_load(dz, r->dlogits.dtype, i));
}

/* What a row comes to: log p_c = z_c - max - log(sum); the target's total and its dot product with z - max. */
typedef struct loss_sums {
    attn_peak peak;
    attn_compensated exp, target, dot;
} loss_sums;

static loss_sums sum_row(const loss_row *r, loss_buffers *b) {
    const attn_softmax_kernels *k = r->run->k;
    const int64_t n = r->run->plan->classes;
    loss_sums s = { .peak = { .max = -INFINITY } };
    for (int64_t j = 0, m; j < n; j += m) {
        m = n - j < r->piece ? n - j : r->piece;
        k->peak(m, dense(r->logits, j, m, b->z), &s.peak);
    }
    if (!attn_is_regular(s.peak)) return s;
    for (int64_t j = 0, m; j < n; j += m) {
        m = n - j < r->piece ? n - j : r->piece;
        const void *z = dense(r->logits, j, m, b->z);
        if (r->many_targets) {
            attn_target t = target_piece(r, j, m, b);
            k->target_sums(m, z, s.peak.max, &t, &s.target, &s.dot);
        }
        /* dlogits may be the logits: the exponentials stay there only if these are not needed again. */
        k->exp_sum(m, z, s.peak.max, m == n ? gradient_piece(r, j, b) : NULL, &s.exp);
    }
    return s;
}

/* dlogits_c = factor * (total p_c - t_c), t being what the kernels know of the target: all of it but a hard label. */
static void store_gradient(const loss_row *r, const loss_sums *s, double total, loss_buffers *b) {
    const attn_softmax_kernels *k = r->run->k;
    const int64_t n = r->run->plan->classes;
    const double factor = r->run->factor, scale = factor * total / attn_total(s->exp);
    for (int64_t j = 0, m; j < n; j += m) {
        m = n - j < r->piece ? n - j : r->piece;
        void *dz = gradient_piece(r, j, b);
        if (!attn_is_regular(s->peak)) {
            k->blank(m, dense(r->logits, j, m, b->z), NAN, dz);
        } else {
            if (m < n) k->exp_sum(m, dense(r->logits, j, m, b->z), s->peak.max, dz, &(attn_compensated){ 0, 0 });
            attn_target t = target_piece(r, j, m, b);
            if (r->many_targets)
                k->target_dz(m, dz, scale, factor, &t, dz);
            else
                k->multiply(m, dz, scale, dz);
        }
        put_piece(r, j, m, dz);
    }
}

static double row_by_kernels(const loss_run *run, int64_t row) {
    const loss_plan *p = run->plan;
    loss_buffers b;
    loss_row r = { .run = run,
                   .logits = row_of(&p->logits, row),
                   .dlogits = row_of(&p->dlogits, row),
                   .soft = p->soft ? row_of(&p->labels, row) : (ref_vector){ 0 },
                   .weight = weights_of(p),
                   .many_targets = p->soft || p->smoothing != 0 };
    bool whole = r.logits.stride == 1 && (!r.dlogits.data || r.dlogits.stride == 1) &&
                 (!r.many_targets || ((!r.soft.data || r.soft.stride == 1) && (!r.weight.data || r.weight.stride == 1)));
    r.piece = whole ? p->classes : ATTN_ROW_PIECE;

    int64_t label = p->soft ? 0 : label_of(p, row);
    double label_weight = p->soft ? 0 : weight_of(p, label), label_target = (1 - p->smoothing) * label_weight;
    double label_z = ref_get(r.logits, label);
    loss_sums s = sum_row(&r, &b);
    double log_sum = log(attn_total(s.exp)), lse = s.peak.max + log_sum;
    double target = attn_total(s.target) + label_target, total = target + 2 * p->z_loss * lse;
    double loss = target * log_sum - attn_total(s.dot) + p->z_loss * lse * lse;
    if (!p->soft) loss -= label_target * (label_z - s.peak.max);
    if (r.dlogits.data) {
        store_gradient(&r, &s, total, &b);
        if (!p->soft && attn_is_regular(s.peak)) {
            double probability = exp(label_z - s.peak.max) / attn_total(s.exp);
            double all = label_target + p->smoothing / (double)p->classes * label_weight;
            ref_put(r.dlogits, label, run->factor * (total * probability - all));
        }
    }
    return attn_is_regular(s.peak) ? loss : NAN;
}

/* ---- all rows ------------------------------------------------------------------------------------------------ */

static void clear_row(ref_vector v, int64_t n) {
    if (v.stride == 1)
        memset(v.data, 0, (size_t)n * attn_dtype_size(v.dtype));
    else
        for (int64_t c = 0; c < n; c++) ref_put(v, c, 0);
}

static void do_block(void *context, int64_t item, void *scratch) {
    (void)scratch;
    loss_run *run = context;
    const loss_plan *p = run->plan;
    int64_t row = item * run->rows_per_block, end = row + run->rows_per_block < p->n ? row + run->rows_per_block : p->n;
    double sum = 0;
    for (; row < end; row++) {
        double loss = 0;
        if (counts(p, row)) {
            loss = run->k ? row_by_kernels(run, row) : row_by_reference(run, row);
        } else if (p->dlogits.rank) {
            clear_row(row_of(&p->dlogits, row), p->classes);
        }
        if (p->reduction == ATTN_NONE)
            ref_store(p->loss.data, p->loss.dtype, row * p->loss.stride[0], loss);
        else
            sum += loss;
    }
    run->partial[item] = sum;
}

/* The kernels, where logits, soft labels, class weights and gradient are all of one type that has some. */
static const attn_softmax_kernels *kernels_for(const loss_plan *p) {
    const attn_kernels *k = attn_kernels_for(p->logits.dtype);
    int32_t dtype = p->logits.dtype;
    bool alike = (!p->dlogits.rank || p->dlogits.dtype == dtype) && (!p->weight.rank || p->weight.dtype == dtype) &&
                 (!p->soft || p->labels.dtype == dtype);
    return k && k->softmax.rows && alike ? &k->softmax : NULL;
}

attn_status attn_cross_entropy(const attn_cross_entropy_args *a, const attn_exec *exec) {
    loss_plan p = { 0 };
    attn_session session;
    if (!a) return attn_fail(ATTN_BAD_ARGUMENT, "cross-entropy has no arguments");
    attn_status s = check_options(a, &p);
    if (s == ATTN_OK) s = check_inputs(a, &p);
    if (s == ATTN_OK) s = check_outputs(a, &p);
    if (s == ATTN_OK) s = check_labels(&p);
    if (s == ATTN_OK) s = attn_session_open(&session, exec, (attn_need){ 0 });
    if (s != ATTN_OK) return s;

    int64_t rows_per_block = (p.n + MAX_BLOCKS - 1) / MAX_BLOCKS;
    if (rows_per_block < ROWS_PER_BLOCK) rows_per_block = ROWS_PER_BLOCK;
    int64_t blocks = (p.n + rows_per_block - 1) / rows_per_block;
    loss_run run = { .plan = &p, .k = kernels_for(&p), .factor = 1 / p.divisor, .rows_per_block = rows_per_block };
    attn_session_run(&session, blocks, do_block, &run);
    if (p.reduction != ATTN_NONE) {
        double sum = 0;
        for (int64_t i = 0; i < blocks; i++) sum += run.partial[i];
        ref_store(p.loss.data, p.loss.dtype, 0, p.any_counts ? sum / p.divisor : 0);
    }
    attn_session_close(&session);
    return ATTN_OK;
}
