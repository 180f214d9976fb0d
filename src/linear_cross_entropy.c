/* SPDX-License-Identifier: Apache-2.0 */
/* attn_linear_cross_entropy: checks everything, and hands the work to blocks of kernels or to the reference. */
#include "linear_cross_entropy.h"
#include "operand.h"
#include "status.h"

#include "ref/linear_cross_entropy.h"

/* ---- checks ---------------------------------------------------------------------------------------------- */

static attn_status check_inputs(const attn_linear_cross_entropy_args *a, attn_linear_loss *p) {
    attn_status s = attn_check_float("x", &a->x, ATTN_INPUT, 2, 2);
    if (s == ATTN_OK) s = attn_check_float("weight", &a->weight, ATTN_INPUT, 2, 2);
    if (s != ATTN_OK) return s;
    const int64_t classes = a->weight.shape[0], shape[] = { classes, a->x.shape[1] };
    s = attn_check_operand("weight", &a->weight, ATTN_INPUT, 2, shape, a->x.dtype, "[classes, columns of x]");
    if (s == ATTN_OK && attn_present(&a->bias))
        s = attn_check_operand("bias", &a->bias, ATTN_INPUT, 1, &classes, a->x.dtype, "[classes]");
    p->dim = a->x.shape[1];
    p->x = a->x;
    p->weight = a->weight;
    if (attn_present(&a->bias)) p->bias = a->bias;
    return s;
}

static attn_status check_gradients(const attn_linear_cross_entropy_args *a, attn_linear_loss *p) {
    const int64_t classes = a->weight.shape[0];
    const int32_t dtype = a->x.dtype;
    attn_status s = ATTN_OK;
    if (attn_present(&a->dx)) s = attn_check_operand("dx", &a->dx, ATTN_OUTPUT, 2, a->x.shape, dtype, "x");
    if (s == ATTN_OK && attn_present(&a->dweight))
        s = attn_check_operand("dweight", &a->dweight, ATTN_OUTPUT, 2, a->weight.shape, dtype, "weight");
    if (s == ATTN_OK && attn_present(&a->dbias))
        s = attn_check_operand("dbias", &a->dbias, ATTN_OUTPUT, 1, &classes, dtype, "[classes]");
    if (attn_present(&a->dx)) p->dx = a->dx;
    if (attn_present(&a->dweight)) p->dweight = a->dweight;
    if (attn_present(&a->dbias)) p->dbias = a->dbias;
    return s;
}

/* Everything but what has to be read: labels and class weights. */
static attn_status check_args(const attn_linear_cross_entropy_args *a, attn_linear_loss *p) {
    *p = (attn_linear_loss){ 0 };
    if (!a) return attn_fail(ATTN_BAD_ARGUMENT, "linear cross-entropy has no arguments");
    attn_status s = attn_check_reserved("attn_linear_cross_entropy_args", a->reserved, sizeof a->reserved / sizeof *a->reserved);
    if (s == ATTN_OK) s = check_inputs(a, p);
    if (s != ATTN_OK) return s;
    attn_cross_entropy_args c = { .flags = a->flags,
                                  .reduction = a->reduction,
                                  .logits = { .dtype = a->x.dtype, .rank = 2, .shape = { a->x.shape[0], a->weight.shape[0] } },
                                  .labels = a->labels,
                                  .class_weight = a->class_weight,
                                  .loss = a->loss,
                                  .ignore_index = a->ignore_index,
                                  .label_smoothing = a->label_smoothing,
                                  .z_loss = a->z_loss };
    s = attn_loss_check("linear cross-entropy", &c, &p->loss);
    return s == ATTN_OK ? check_gradients(a, p) : s;
}

/* ---- memory ------------------------------------------------------------------------------------------------ */

/* The kernels, where all operands are of one type that has some. */
static const attn_kernels *kernels_for(const attn_linear_loss *p) {
    const attn_tensor *const operands[] = { &p->x,  &p->weight,  &p->bias,  &p->loss.weight,
                                            &p->dx, &p->dweight, &p->dbias, &p->loss.labels };
    const attn_kernels *k = attn_operand_kernels(p->loss.soft ? 8 : 7, operands);
    return k && k->softmax.rows && k->matmul.block ? k : NULL;
}

/* The reference keeps two numbers of each row, and works in double on a row of logits and one of a gradient. */
static attn_need reference_need(const attn_linear_loss *p) {
    attn_need need = { 0 };
    size_t wide;
    if (__builtin_mul_overflow((size_t)p->loss.n, sizeof(ref_linear_row), &need.shared)) need.shared = SIZE_MAX;
    if (__builtin_add_overflow((size_t)p->loss.classes, (size_t)p->dim, &wide) ||
        __builtin_mul_overflow(wide, sizeof(double), &need.per_worker))
        need.per_worker = SIZE_MAX;
    return need;
}

static attn_need need_of(const attn_linear_loss *p, const attn_kernels *k) {
    return k ? attn_linear_blocks_need(p, k) : reference_need(p);
}

/* Data is not looked at: whatever is not there stands for what is. */
static void give_address(attn_tensor *t) {
    static double something;
    if (t->rank != 0 && !t->data) t->data = &something;
}

size_t attn_linear_cross_entropy_workspace(const attn_linear_cross_entropy_args *a, int32_t n_threads) {
    attn_linear_loss p;
    if (!a) return 0;
    attn_linear_cross_entropy_args b = *a;
    attn_tensor *const tensors[] = { &b.x, &b.weight, &b.bias, &b.labels, &b.class_weight, &b.loss, &b.dx, &b.dweight, &b.dbias };
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) give_address(tensors[i]);
    if (b.loss.rank == 0) b.loss.data = b.x.data;
    if (check_args(&b, &p) != ATTN_OK) return 0;
    return attn_need_bytes(need_of(&p, kernels_for(&p)), n_threads);
}

/* ---- the reference --------------------------------------------------------------------------------------------- */

typedef struct reference_run {
    const attn_linear_loss *plan;
    ref_linear_loss loss;
    ref_linear_row *rows; /* [n] */
} reference_run;

static ref_linear_loss reference_of(const attn_linear_loss *p) {
    ref_linear_loss l = { .n = p->loss.n, .classes = p->loss.classes, .dim = p->dim };
    l.x = attn_ref_matrix(&p->x);
    l.weight = attn_ref_matrix(&p->weight);
    l.bias = attn_ref_row(&p->bias, 0);
    if (p->loss.soft)
        l.soft = attn_ref_matrix(&p->loss.labels);
    else
        l.labels = (ref_vector){ p->loss.labels.data, p->loss.labels.stride[0], p->loss.labels.dtype };
    l.ignore_index = p->loss.ignore_index;
    l.class_weight = attn_loss_weights(&p->loss);
    l.smoothing = p->loss.smoothing;
    l.z_loss = p->loss.z_loss;
    l.factor = 1 / p->loss.divisor;
    return l;
}

static void reference_row(void *context, int64_t i, void *scratch) {
    const reference_run *run = context;
    const attn_linear_loss *p = run->plan;
    double *logits = scratch, *sum = logits + p->loss.classes;
    ref_linear_loss_of(&run->loss, i, logits, &run->rows[i]);
    if (p->loss.reduction == ATTN_NONE)
        ref_store(p->loss.loss.data, p->loss.loss.dtype, i * p->loss.loss.stride[0], run->rows[i].loss);
    if (!p->dx.rank) return;
    if (ref_linear_counts(&run->loss, i))
        ref_linear_dx(&run->loss, i, run->rows[i], sum, attn_ref_row(&p->dx, i));
    else
        attn_clear_row(attn_ref_row(&p->dx, i), p->dim);
}

static void reference_class(void *context, int64_t c, void *scratch) {
    const reference_run *run = context;
    const attn_linear_loss *p = run->plan;
    ref_vector dweight = p->dweight.rank ? attn_ref_row(&p->dweight, c) : (ref_vector){ 0 };
    ref_linear_dweight(&run->loss, c, run->rows, scratch, dweight, attn_ref_row(&p->dbias, 0));
}

static void run_reference(const attn_linear_loss *p, attn_session *session) {
    reference_run run = { .plan = p, .loss = reference_of(p), .rows = session->shared };
    attn_session_run(session, p->loss.n, reference_row, &run);
    if (p->dweight.rank || p->dbias.rank) attn_session_run(session, p->loss.classes, reference_class, &run);
    if (p->loss.reduction == ATTN_NONE) return;
    double sum = 0;
    for (int64_t i = 0; i < p->loss.n; i++) sum += run.rows[i].loss;
    ref_store(p->loss.loss.data, p->loss.loss.dtype, 0, p->loss.any_counts ? sum / p->loss.divisor : 0);
}

/* ---- the call ---------------------------------------------------------------------------------------------------- */

attn_status attn_linear_cross_entropy(const attn_linear_cross_entropy_args *a, const attn_exec *exec) {
    attn_linear_loss p;
    attn_session session;
    attn_status s = check_args(a, &p);
    if (s == ATTN_OK) s = attn_loss_check_labels(&p.loss);
    if (s != ATTN_OK) return s;
    const attn_kernels *k = kernels_for(&p);
    s = attn_session_open(&session, exec, need_of(&p, k));
    if (s != ATTN_OK) return s;
    if (k)
        attn_linear_blocks_run(&p, k, &session);
    else
        run_reference(&p, &session);
    attn_session_close(&session);
    return ATTN_OK;
}
