/* SPDX-License-Identifier: Apache-2.0 */
/* Linear cross-entropy by blocks. A strip of up to STRIP_ROWS rows that count is gathered, and meets all classes, block by block:
 *
 *     score    z = x weight^T + bias of a block, its maximum, sum of exponentials and share of the target, row by row
 *     join     each row's logsumexp and loss from what the blocks found
 *     slope    exponentials become the gradient dz; dbias and dweight = dz^T x of a block
 *     mix      dx = dz weight, in groups of blocks that are added up at the end
 *
 * The exponentials of a strip stay in memory when they fit into STRIP_BYTES; else classes are gone through in such portions, and a
 * portion is scored again when its gradients are due. Blocks, groups and portions follow from the shapes alone, and every sum runs
 * in one order: the same bits for any number of threads. */
#include "linear_cross_entropy.h"

#include "arena.h"
#include "operand.h"
#include "product.h"
#include "walk.h"

#include <math.h>

enum {
    STRIP_ROWS = 256,
    STRIP_BYTES = 32 << 20,
    MOST_CLASSES = 256, /* of a block; at least FEWEST_CLASSES, a multiple of every panel's width */
    FEWEST_CLASSES = 64,
    PANEL_BYTES = 1 << 20, /* of a block's weights */
    COLUMNS = 256,         /* of dx, for an item of `mix` */
    ITEMS = 16,            /* work items that there should be at least */
    SOME_ROWS = 16         /* of an item that goes over rows */
};

/* What a block of classes says of a row. Sums are shifted by `max`, or by 0 where that is not finite. */
typedef struct block_sums {
    double max; /* NaN where the block holds one */
    double exp, target, dot;
} block_sums;

typedef struct strip_row {
    int64_t row, label; /* label: -1 of soft targets */
    double label_z, max, sum, total, loss;
    bool regular;
} strip_row;

typedef struct blocks_run {
    const attn_linear_loss *p;
    const attn_kernels *k;
    size_t size; /* of an element */
    bool gradients, many_targets;
    int64_t rows_at_most, classes_per_block, blocks, blocks_per_portion, portions, groups, column_blocks;
    double factor;

    strip_row *rows;
    block_sums *sums;                /* [block][row] */
    char *x, *x_panels, *z, *shares; /* [row][dim]; packed; [block of the portion][row][class]; [group][row][dim] */

    int64_t count; /* rows of the strip at hand */
    bool first_strip, first_portion;
    int64_t first_block, n_blocks; /* of the portion at hand */
} blocks_run;

/* ---- sizes and memory ------------------------------------------------------------------------------------- */

static int64_t parts(int64_t n, int64_t size) { return n / size + (n % size != 0); }
static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

static void choose_sizes(blocks_run *r) {
    const attn_linear_loss *p = r->p;
    const int64_t classes = p->loss.classes, dim = p->dim, size = (int64_t)r->size;
    r->gradients = p->dx.rank || p->dweight.rank || p->dbias.rank;
    r->many_targets = p->loss.soft || p->loss.smoothing != 0;
    r->rows_at_most = smaller(p->loss.n, STRIP_ROWS);
    r->classes_per_block = MOST_CLASSES;
    while (r->classes_per_block > FEWEST_CLASSES &&
           (dim > PANEL_BYTES / size / r->classes_per_block || parts(classes, r->classes_per_block) < ITEMS))
        r->classes_per_block /= 2;
    r->blocks = parts(classes, r->classes_per_block);
    r->blocks_per_portion =
        r->gradients ? smaller(r->blocks, STRIP_BYTES / (STRIP_ROWS * r->classes_per_block * size)) : r->blocks;
    r->portions = r->blocks ? parts(r->blocks, r->blocks_per_portion) : 0;
    r->column_blocks = parts(dim, COLUMNS);
    r->groups = smaller(r->blocks_per_portion, r->column_blocks ? parts(ITEMS, r->column_blocks) : 1);
}

/* What a worker has for itself. */
typedef struct worker_memory {
    char *panels, *z, *soft, *weight, *total;
    void *product;
} worker_memory;

/* The operands of the three products. Data apart, they are all that a kernel's question for scratch looks at. */
static attn_matmul_block score_block(const blocks_run *r, int64_t classes) {
    return (attn_matmul_block){ .m = r->rows_at_most,
                                .n = classes,
                                .k = r->p->dim,
                                .a_row = r->p->dim,
                                .a_col = 1,
                                .b_panel = r->p->dim * r->k->matmul.nr,
                                .b_row = r->k->matmul.nr,
                                .c_row = r->classes_per_block,
                                .c_col = 1 };
}
static attn_matmul_block weight_block(const blocks_run *r, int64_t classes) {
    return (attn_matmul_block){ .m = classes,
                                .n = r->p->dim,
                                .k = r->rows_at_most,
                                .a_row = 1,
                                .a_col = r->classes_per_block,
                                .b_panel = r->rows_at_most * r->k->matmul.nr,
                                .b_row = r->k->matmul.nr,
                                .c_row = r->p->dweight.stride[0],
                                .c_col = r->p->dweight.stride[1] };
}
static attn_matmul_block mix_block(const blocks_run *r, int64_t classes, int64_t columns) {
    return (attn_matmul_block){ .m = r->rows_at_most,
                                .n = columns,
                                .k = classes,
                                .a_row = r->classes_per_block,
                                .a_col = 1,
                                .b_panel = classes * r->k->matmul.nr,
                                .b_row = r->k->matmul.nr,
                                .c_row = r->p->dim,
                                .c_col = 1 };
}

static worker_memory lay_out_worker(const blocks_run *r, attn_arena *a) {
    const int64_t nr = r->k->matmul.nr, classes = r->classes_per_block, columns = smaller(r->p->dim, COLUMNS);
    const int64_t for_scores = parts(classes, nr) * nr * r->p->dim, for_mix = parts(columns, nr) * nr * classes;
    worker_memory w = { .panels = attn_take(a, for_scores > for_mix ? for_scores : for_mix, 1, r->size) };
    w.soft = attn_take(a, classes, 1, r->size);
    w.weight = attn_take(a, classes, 1, r->size);
    w.total = attn_take(a, classes, 1, r->size);
    w.z = attn_take(a, r->gradients ? 0 : r->rows_at_most, classes, r->size);
    size_t most = attn_multiply_scratch(r->k, score_block(r, classes));
    if (r->gradients) {
        size_t weight = attn_multiply_scratch(r->k, weight_block(r, classes)),
               mix = attn_multiply_scratch(r->k, mix_block(r, classes, columns));
        if (most < weight) most = weight;
        if (most < mix) most = mix;
    }
    w.product = attn_take(a, (int64_t)most, 1, 1);
    return w;
}

static void lay_out_shared(blocks_run *r, attn_arena *a) {
    const int64_t nr = r->k->matmul.nr, rows = r->rows_at_most, dim = r->p->dim;
    r->rows = attn_take(a, rows, 1, sizeof *r->rows);
    r->sums = attn_take(a, rows, r->blocks, sizeof *r->sums);
    r->x = attn_take(a, rows, dim, r->size);
    r->x_panels = attn_take(a, r->p->dweight.rank ? parts(dim, nr) * nr : 0, rows, r->size);
    r->z = attn_take(a, r->gradients ? r->blocks_per_portion * r->classes_per_block : 0, rows, r->size);
    r->shares = attn_take(a, r->p->dx.rank ? r->groups * rows : 0, dim, r->size);
}

static blocks_run run_of(const attn_linear_loss *p, const attn_kernels *k) {
    blocks_run r = { .p = p, .k = k, .size = attn_dtype_size(p->x.dtype) };
    choose_sizes(&r);
    return r;
}

attn_need attn_linear_blocks_need(const attn_linear_loss *p, const attn_kernels *k) {
    blocks_run r = run_of(p, k);
    attn_arena shared = { 0 }, worker = { 0 };
    if (p->loss.n == 0 || p->loss.classes == 0) return (attn_need){ 0 };
    lay_out_shared(&r, &shared);
    lay_out_worker(&r, &worker);
    return (attn_need){ .shared = shared.used, .per_worker = worker.used };
}

static worker_memory memory_of(const blocks_run *r, void *scratch) {
    return lay_out_worker(r, &(attn_arena){ .begin = scratch });
}

/* ---- a block of classes ---------------------------------------------------------------------------------------- */

static int64_t first_class(const blocks_run *r, int64_t block) { return block * r->classes_per_block; }
static int64_t classes_of(const blocks_run *r, int64_t block) {
    return smaller(r->p->loss.classes - first_class(r, block), r->classes_per_block);
}

/* Row i of block `block` of the portion at hand. */
static char *z_at(const blocks_run *r, int64_t block, int64_t i) {
    int64_t rows = (block - r->first_block) * r->rows_at_most + i;
    return r->z + rows * r->classes_per_block * (int64_t)r->size;
}

/* The part of row i's target that has more terms than its label, for classes [first, first + n). */
static attn_target target_part(const blocks_run *r, int64_t i, int64_t first, int64_t n, const worker_memory *w) {
    const attn_loss *l = &r->p->loss;
    return (attn_target){ .soft = attn_dense_piece(attn_loss_soft(l, r->rows[i].row), first, n, w->soft),
                          .weight = attn_dense_piece(attn_loss_weights(l), first, n, w->weight),
                          .sharp = 1 - l->smoothing,
                          .spread = l->smoothing / (double)l->classes };
}

static double shift_of(double max) { return isfinite(max) ? max : 0; }

/* Maximum and sums of row i; its logits become exponentials where the gradient wants them. */
static void sum_block(const blocks_run *r, int64_t block, int64_t i, void *z, const worker_memory *w) {
    const attn_softmax_kernels *k = &r->k->softmax;
    const int64_t first = first_class(r, block), n = classes_of(r, block), label = r->rows[i].label - first;
    block_sums *s = &r->sums[block * r->rows_at_most + i];
    attn_peak peak = { .max = -INFINITY };
    attn_compensated exp = { 0, 0 }, target = { 0, 0 }, dot = { 0, 0 };
    if (label >= 0 && label < n) r->rows[i].label_z = ref_load(z, r->p->x.dtype, label);
    k->peak(n, z, &peak);
    *s = (block_sums){ .max = peak.nan ? NAN : peak.max };
    if (isnan(s->max) || s->max == INFINITY) return;
    if (r->many_targets) {
        attn_target t = target_part(r, i, first, n, w);
        k->target_sums(n, z, shift_of(s->max), &t, &target, &dot);
    }
    k->exp_sum(n, z, shift_of(s->max), r->gradients ? z : NULL, &exp);
    s->exp = attn_total(exp);
    s->target = attn_total(target);
    s->dot = attn_total(dot);
}

static void pack_weight(const blocks_run *r, int64_t n, int64_t k, const void *b, int64_t b_row, int64_t b_col, char *panels) {
    const int64_t nr = r->k->matmul.nr, size = (int64_t)r->size;
    for (int64_t j = 0; j < n; j += nr)
        r->k->matmul.pack(k, smaller(n - j, nr), (const char *)b + j * b_col * size, b_row, b_col, panels + j * k * size);
}

static void score_item(void *context, int64_t item, void *scratch) {
    const blocks_run *r = context;
    const attn_tensor *weight = &r->p->weight, *bias = &r->p->bias;
    const int64_t block = r->first_block + item, first = first_class(r, block);
    const worker_memory w = memory_of(r, scratch);
    attn_matmul_block t = score_block(r, classes_of(r, block));
    pack_weight(r, t.n, t.k, attn_at(weight, first * weight->stride[0]), weight->stride[1], weight->stride[0], w.panels);
    t.m = r->count;
    t.a = r->x;
    t.b = w.panels;
    t.c = r->gradients ? z_at(r, block, 0) : w.z;
    if (bias->rank) {
        t.bias = attn_at(bias, first * bias->stride[0]);
        t.bias_col = bias->stride[0];
    }
    attn_multiply(r->k, t, w.product);
    for (int64_t i = 0; i < r->count; i++) sum_block(r, block, i, (char *)t.c + i * r->classes_per_block * (int64_t)r->size, &w);
}

/* ---- rows ------------------------------------------------------------------------------------------------------ */

/* What the blocks found of row i comes together. */
static void join_row(const blocks_run *r, strip_row *row, int64_t i) {
    const attn_loss *l = &r->p->loss;
    const block_sums *s = r->sums + i;
    attn_peak peak = { .max = -INFINITY };
    for (int64_t b = 0; b < r->blocks; b++) {
        double max = s[b * r->rows_at_most].max;
        peak.nan |= isnan(max);
        if (max > peak.max) peak.max = max;
    }
    row->regular = attn_is_regular(peak);
    row->loss = NAN;
    if (!row->regular) return;
    attn_compensated sum = { 0, 0 }, target = { 0, 0 }, dot = { 0, 0 };
    for (int64_t b = 0; b < r->blocks; b++) {
        block_sums part = s[b * r->rows_at_most];
        double shift = shift_of(part.max);
        if (part.max > -INFINITY) attn_accumulate(&sum, part.exp * exp(shift - peak.max));
        attn_accumulate(&target, part.target);
        attn_accumulate(&dot, part.dot);
        attn_accumulate(&dot, part.target * (shift - peak.max));
    }
    double label_target = row->label < 0 ? 0 : (1 - l->smoothing) * attn_loss_weight(l, row->label);
    double all = attn_total(target) + label_target, log_sum = log(attn_total(sum)), lse = peak.max + log_sum;
    row->max = peak.max;
    row->sum = attn_total(sum);
    row->total = all + 2 * l->z_loss * lse;
    row->loss = all * log_sum - attn_total(dot) + l->z_loss * lse * lse;
    if (row->label >= 0) row->loss -= label_target * (row->label_z - peak.max);
}

static void join_item(void *context, int64_t item, void *scratch) {
    (void)scratch;
    const blocks_run *r = context;
    for (int64_t i = item * SOME_ROWS; i < smaller(r->count, (item + 1) * SOME_ROWS); i++) join_row(r, &r->rows[i], i);
}

static void gather_item(void *context, int64_t item, void *scratch) {
    (void)scratch;
    const blocks_run *r = context;
    const attn_tensor *x = &r->p->x;
    for (int64_t i = item * SOME_ROWS; i < smaller(r->count, (item + 1) * SOME_ROWS); i++)
        attn_copy_strided(r->size, r->p->dim, attn_at(x, r->rows[i].row * x->stride[0]), x->stride[1],
                          r->x + i * r->p->dim * (int64_t)r->size, 1);
}

static void pack_x_item(void *context, int64_t panel, void *scratch) {
    (void)scratch;
    const blocks_run *r = context;
    const int64_t nr = r->k->matmul.nr, size = (int64_t)r->size, left = r->p->dim - panel * nr;
    r->k->matmul.pack(r->count, smaller(left, nr), r->x + panel * nr * size, r->p->dim, 1,
                      r->x_panels + panel * nr * r->count * size);
}

/* ---- gradients --------------------------------------------------------------------------------------------------- */

/* Row i's exponentials e become dz_c = factor (total p_c - t_c), p_c = e_c exp(shift - max) / sum. */
static void slope_row(const blocks_run *r, int64_t block, int64_t i, const worker_memory *w) {
    const attn_softmax_kernels *k = &r->k->softmax;
    const attn_loss *l = &r->p->loss;
    const strip_row *row = &r->rows[i];
    const int64_t first = first_class(r, block), n = classes_of(r, block), label = row->label - first;
    void *e = z_at(r, block, i);
    if (!row->regular) {
        k->blank(n, e, NAN, e);
        return;
    }
    double max = r->sums[block * r->rows_at_most + i].max;
    double scale = max > -INFINITY ? r->factor * row->total * (exp(max - row->max) / row->sum) : 0;
    if (r->many_targets) {
        attn_target t = target_part(r, i, first, n, w);
        k->target_dz(n, e, scale, r->factor, &t, e);
    } else {
        k->multiply(n, e, scale, e);
    }
    if (row->label < first || label >= n) return;
    double spread = l->smoothing / (double)l->classes, all = (1 - l->smoothing + spread) * attn_loss_weight(l, row->label);
    double probability = exp(row->label_z - row->max) / row->sum;
    ref_store(e, r->p->x.dtype, label, r->factor * (row->total * probability - all));
}

static void add_bias_gradient(const blocks_run *r, int64_t block, const worker_memory *w) {
    const attn_tensor *dbias = &r->p->dbias;
    const int64_t n = classes_of(r, block);
    const ref_vector total = { w->total, 1, dbias->dtype }, to = { dbias->data, dbias->stride[0], dbias->dtype };
    attn_clear_row(total, n);
    r->k->vector.sum_rows(r->count, n, z_at(r, block, 0), r->classes_per_block, w->total);
    for (int64_t c = 0, at = first_class(r, block); c < n; c++)
        ref_put(to, at + c, ref_get(total, c) + (r->first_strip ? 0 : ref_get(to, at + c)));
}

static void slope_item(void *context, int64_t item, void *scratch) {
    const blocks_run *r = context;
    const attn_tensor *dweight = &r->p->dweight;
    const int64_t block = r->first_block + item;
    const worker_memory w = memory_of(r, scratch);
    for (int64_t i = 0; i < r->count; i++) slope_row(r, block, i, &w);
    if (r->p->dbias.rank) add_bias_gradient(r, block, &w);
    if (!dweight->rank) return;
    attn_matmul_block t = weight_block(r, classes_of(r, block));
    t.k = r->count;
    t.a = z_at(r, block, 0);
    t.b = r->x_panels;
    t.b_panel = r->count * r->k->matmul.nr;
    t.c = attn_at(dweight, first_class(r, block) * dweight->stride[0]);
    t.accumulate = !r->first_strip;
    attn_multiply(r->k, t, w.product);
}

/* One group's share of some columns of dx. */
static void mix_item(void *context, int64_t item, void *scratch) {
    const blocks_run *r = context;
    const attn_tensor *weight = &r->p->weight;
    const int64_t group = item / r->column_blocks, first = item % r->column_blocks * COLUMNS, dim = r->p->dim;
    const int64_t columns = smaller(dim - first, COLUMNS), size = (int64_t)r->size;
    const worker_memory w = memory_of(r, scratch);
    int64_t block = r->n_blocks * group / r->groups, end = r->n_blocks * (group + 1) / r->groups;
    char *share = r->shares + (group * r->rows_at_most * dim + first) * size;
    bool begun = !r->first_portion;
    if (block == end && !begun)
        for (int64_t i = 0; i < r->count; i++) attn_clear_row((ref_vector){ share + i * dim * size, 1, weight->dtype }, columns);
    for (block += r->first_block, end += r->first_block; block < end; block++, begun = true) {
        attn_matmul_block t = mix_block(r, classes_of(r, block), columns);
        const void *b = attn_at(weight, first_class(r, block) * weight->stride[0] + first * weight->stride[1]);
        pack_weight(r, columns, t.k, b, weight->stride[0], weight->stride[1], w.panels);
        t.m = r->count;
        t.a = z_at(r, block, 0);
        t.b = w.panels;
        t.c = share;
        t.accumulate = begun;
        attn_multiply(r->k, t, w.product);
    }
}

/* The groups' shares are added up, and go to their rows of dx. */
static void scatter_item(void *context, int64_t item, void *scratch) {
    (void)scratch;
    const blocks_run *r = context;
    const attn_tensor *dx = &r->p->dx;
    const int64_t dim = r->p->dim, size = (int64_t)r->size;
    for (int64_t i = item * SOME_ROWS; i < smaller(r->count, (item + 1) * SOME_ROWS); i++) {
        char *sum = r->shares + i * dim * size;
        for (int64_t g = 1; g < r->groups; g++) r->k->vector.add(dim, 1, sum + g * r->rows_at_most * dim * size, sum);
        attn_copy_strided(r->size, dim, sum, 1, attn_at(dx, r->rows[i].row * dx->stride[0]), dx->stride[1]);
    }
}

/* ---- a strip of rows -------------------------------------------------------------------------------------------- */

static void score_portion(blocks_run *r, attn_session *session, int64_t portion) {
    r->first_block = portion * r->blocks_per_portion;
    r->n_blocks = smaller(r->blocks - r->first_block, r->blocks_per_portion);
    attn_session_run(session, r->n_blocks, score_item, r);
}

/* The last portion's exponentials are still there when the gradients begin: these go backwards. */
static void run_strip(blocks_run *r, attn_session *session) {
    const int64_t row_items = parts(r->count, SOME_ROWS);
    attn_session_run(session, row_items, gather_item, r);
    for (int64_t portion = 0; portion < r->portions; portion++) score_portion(r, session, portion);
    attn_session_run(session, row_items, join_item, r);
    if (!r->gradients) return;
    if (r->p->dweight.rank) attn_session_run(session, parts(r->p->dim, r->k->matmul.nr), pack_x_item, r);
    r->first_portion = true;
    for (int64_t portion = r->portions - 1; portion >= 0; portion--, r->first_portion = false) {
        if (portion < r->portions - 1) score_portion(r, session, portion);
        attn_session_run(session, r->n_blocks, slope_item, r);
        if (r->p->dx.rank) attn_session_run(session, r->groups * r->column_blocks, mix_item, r);
    }
    if (r->p->dx.rank) attn_session_run(session, row_items, scatter_item, r);
    r->first_strip = false;
}

/* A row that is ignored has loss and gradient 0 at once; the others come into the strip. */
static int64_t fill_strip(blocks_run *r, int64_t row) {
    const attn_linear_loss *p = r->p;
    const attn_loss *l = &p->loss;
    for (r->count = 0; row < l->n && r->count < r->rows_at_most; row++) {
        if (attn_loss_counts(l, row)) {
            r->rows[r->count++] = (strip_row){ .row = row, .label = l->soft ? -1 : attn_loss_label(l, row) };
            continue;
        }
        if (p->dx.rank) attn_clear_row(attn_ref_row(&p->dx, row), p->dim);
        if (l->reduction == ATTN_NONE) ref_store(l->loss.data, l->loss.dtype, row * l->loss.stride[0], 0);
    }
    return row;
}

/* Without a row that counts, gradients of parameters are 0. */
static void clear_parameters(const attn_linear_loss *p) {
    for (int64_t c = 0; p->dweight.rank && c < p->loss.classes; c++) attn_clear_row(attn_ref_row(&p->dweight, c), p->dim);
    if (p->dbias.rank) attn_clear_row(attn_ref_row(&p->dbias, 0), p->loss.classes);
}

void attn_linear_blocks_run(const attn_linear_loss *p, const attn_kernels *k, attn_session *session) {
    const attn_loss *l = &p->loss;
    blocks_run r = run_of(p, k);
    double sum = 0;
    r.factor = 1 / l->divisor;
    r.first_strip = true;
    if (l->n > 0) lay_out_shared(&r, &(attn_arena){ .begin = session->shared });
    for (int64_t row = 0; row < l->n;) {
        row = fill_strip(&r, row);
        if (r.count == 0) continue;
        run_strip(&r, session);
        for (int64_t i = 0; i < r.count; i++) {
            sum += r.rows[i].loss;
            if (l->reduction == ATTN_NONE)
                ref_store(l->loss.data, l->loss.dtype, r.rows[i].row * l->loss.stride[0], r.rows[i].loss);
        }
    }
    if (r.first_strip) clear_parameters(p);
    if (l->reduction != ATTN_NONE) ref_store(l->loss.data, l->loss.dtype, 0, l->any_counts ? sum / l->divisor : 0);
}
