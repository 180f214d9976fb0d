/* SPDX-License-Identifier: Apache-2.0 */
/* attn_cross_entropy: the loss of n rows of logits and its gradient, one row at a time: maximum, sum and gradient while the row is
 * in the cache. Per-row losses are added up in blocks that depend on n alone, so that the loss has the same bits for any number of
 * threads, and no memory is needed. */
#include "exec.h"
#include "loss.h"
#include "operand.h"
#include "status.h"

#include "ref/cross_entropy.h"

#include <math.h>

/* Blocks of rows whose losses are added up first: at most this many. */
enum { MAX_BLOCKS = 512, ROWS_PER_BLOCK = 16 };

/* ---- checks ---------------------------------------------------------------------------------------------- */

static attn_status check_args(const attn_cross_entropy_args *a, attn_loss *p) {
    attn_status s = attn_check_reserved("attn_cross_entropy_args", a->reserved, sizeof a->reserved / sizeof *a->reserved);
    if (s == ATTN_OK) s = attn_check_float("logits", &a->logits, ATTN_INPUT, 2, 2);
    if (s == ATTN_OK) s = attn_loss_check("cross-entropy", a, p);
    if (s == ATTN_OK && attn_present(&a->dlogits))
        s = attn_check_operand("dlogits", &a->dlogits, ATTN_OUTPUT, 2, a->logits.shape, a->logits.dtype, "logits");
    return s == ATTN_OK ? attn_loss_check_labels(p) : s;
}

/* ---- one row ------------------------------------------------------------------------------------------------ */

typedef struct loss_run {
    const attn_loss *plan;
    attn_tensor dlogits;           /* may be absent */
    const attn_softmax_kernels *k; /* NULL: the reference */
    double factor;                 /* of the gradient */
    int64_t rows_per_block;
    double partial[MAX_BLOCKS]; /* sums of losses */
} loss_run;

static ref_vector row_of(const attn_tensor *t, int64_t row) {
    if (!t->rank) return (ref_vector){ 0 };
    return (ref_vector){ .data = attn_at(t, row * t->stride[0]), .stride = t->stride[1], .dtype = t->dtype };
}

static double row_by_reference(const loss_run *run, int64_t row) {
    const attn_loss *p = run->plan;
    ref_target t = { .classes = p->classes,
                     .logits = row_of(&p->logits, row),
                     .label = p->soft ? 0 : attn_loss_label(p, row),
                     .soft = attn_loss_soft(p, row),
                     .weight = attn_loss_weights(p),
                     .smoothing = p->smoothing,
                     .z_loss = p->z_loss };
    double loss = ref_cross_entropy(&t);
    if (run->dlogits.rank) ref_cross_entropy_backward(&t, run->factor, row_of(&run->dlogits, row));
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

static attn_target target_piece(const loss_row *r, int64_t j, int64_t n, loss_buffers *b) {
    const attn_loss *p = r->run->plan;
    return (attn_target){ .soft = attn_dense_piece(r->soft, j, n, b->soft),
                          .weight = attn_dense_piece(r->weight, j, n, b->weight),
                          .sharp = 1 - p->smoothing,
                          .spread = p->smoothing / (double)p->classes };
}

/* Where the results of a piece are worked out: in dlogits, or in a buffer that put_piece copies from. */
static void *gradient_piece(const loss_row *r, int64_t j, loss_buffers *b) {
    if (!r->dlogits.data) return NULL;
    return r->dlogits.stride == 1 ? attn_element(r->dlogits, j) : b->dz;
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
        k->peak(m, attn_dense_piece(r->logits, j, m, b->z), &s.peak);
    }
    if (!attn_is_regular(s.peak)) return s;
    for (int64_t j = 0, m; j < n; j += m) {
        m = n - j < r->piece ? n - j : r->piece;
        const void *z = attn_dense_piece(r->logits, j, m, b->z);
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
            k->blank(m, attn_dense_piece(r->logits, j, m, b->z), NAN, dz);
        } else {
            if (m < n) k->exp_sum(m, attn_dense_piece(r->logits, j, m, b->z), s->peak.max, dz, &(attn_compensated){ 0, 0 });
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
    const attn_loss *p = run->plan;
    loss_buffers b;
    loss_row r = { .run = run,
                   .logits = row_of(&p->logits, row),
                   .dlogits = row_of(&run->dlogits, row),
                   .soft = attn_loss_soft(p, row),
                   .weight = attn_loss_weights(p),
                   .many_targets = p->soft || p->smoothing != 0 };
    bool whole = r.logits.stride == 1 && (!r.dlogits.data || r.dlogits.stride == 1) &&
                 (!r.many_targets || ((!r.soft.data || r.soft.stride == 1) && (!r.weight.data || r.weight.stride == 1)));
    r.piece = whole ? p->classes : ATTN_ROW_PIECE;

    int64_t label = p->soft ? 0 : attn_loss_label(p, row);
    double label_weight = p->soft ? 0 : attn_loss_weight(p, label), label_target = (1 - p->smoothing) * label_weight;
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

static void do_block(void *context, int64_t item, void *scratch) {
    (void)scratch;
    loss_run *run = context;
    const attn_loss *p = run->plan;
    int64_t row = item * run->rows_per_block, end = row + run->rows_per_block < p->n ? row + run->rows_per_block : p->n;
    double sum = 0;
    for (; row < end; row++) {
        double loss = 0;
        if (attn_loss_counts(p, row)) {
            loss = run->k ? row_by_kernels(run, row) : row_by_reference(run, row);
        } else if (run->dlogits.rank) {
            attn_clear_row(row_of(&run->dlogits, row), p->classes);
        }
        if (p->reduction == ATTN_NONE)
            ref_store(p->loss.data, p->loss.dtype, row * p->loss.stride[0], loss);
        else
            sum += loss;
    }
    run->partial[item] = sum;
}

/* The kernels, where logits, soft labels, class weights and gradient are all of one type that has some. */
static const attn_softmax_kernels *kernels_for(const attn_cross_entropy_args *a, const attn_loss *p) {
    const attn_tensor *const operands[] = { &a->logits, &a->dlogits, &a->class_weight, &a->labels };
    const attn_kernels *k = attn_operand_kernels(p->soft ? 4 : 3, operands);
    return k && k->softmax.rows ? &k->softmax : NULL;
}

attn_status attn_cross_entropy(const attn_cross_entropy_args *a, const attn_exec *exec) {
    attn_loss p = { 0 };
    attn_session session;
    if (!a) return attn_fail(ATTN_BAD_ARGUMENT, "cross-entropy has no arguments");
    attn_status s = check_args(a, &p);
    if (s == ATTN_OK) s = attn_session_open(&session, exec, (attn_need){ 0 });
    if (s != ATTN_OK) return s;

    int64_t rows_per_block = (p.n + MAX_BLOCKS - 1) / MAX_BLOCKS;
    if (rows_per_block < ROWS_PER_BLOCK) rows_per_block = ROWS_PER_BLOCK;
    int64_t blocks = (p.n + rows_per_block - 1) / rows_per_block;
    loss_run run = {
        .plan = &p, .dlogits = a->dlogits, .k = kernels_for(a, &p), .factor = 1 / p.divisor, .rows_per_block = rows_per_block
    };
    attn_session_run(&session, blocks, do_block, &run);
    if (p.reduction != ATTN_NONE) {
        double sum = 0;
        for (int64_t i = 0; i < blocks; i++) sum += run.partial[i];
        ref_store(p.loss.data, p.loss.dtype, 0, p.any_counts ? sum / p.divisor : 0);
    }
    attn_session_close(&session);
    return ATTN_OK;
}
