/* SPDX-License-Identifier: Apache-2.0 */
/* Front-end of matrix products: checks, packs b into panels (or takes it packed), and hands out blocks of c.
 * Every element is one chain over k whatever block it lies in, so blocks may be chosen by the shape alone. */
#include "exec.h"
#include "operand.h"
#include "ref/ops.h"
#include "status.h"

#include <attn/ops.h>

attn_tensor attn_transposed(attn_tensor t) {
    if (t.rank != 2) return (attn_tensor){ .dtype = t.dtype, .rank = -1 };
    int64_t extent = t.shape[0], stride = t.stride[0];
    t.shape[0] = t.shape[1];
    t.stride[0] = t.stride[1];
    t.shape[1] = extent;
    t.stride[1] = stride;
    return t;
}

/* ---- packed b ------------------------------------------------------------------------------------------- */

/* The kernels that b's dtype has for products; NULL: the reference answers. */
static const attn_kernels *product_kernels(int32_t dtype) {
    const attn_kernels *kernels = attn_kernels_for(dtype);
    return kernels && kernels->matmul.block ? kernels : NULL;
}

static int64_t panel_count(const attn_kernels *kernels, int64_t n) {
    return n / kernels->matmul.nr + (n % kernels->matmul.nr != 0);
}

/* Bytes of all panels of b [k, n]; SIZE_MAX when they cannot be counted. */
static size_t panel_bytes(const attn_kernels *kernels, int64_t k, int64_t n, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow((size_t)panel_count(kernels, n), (size_t)kernels->matmul.nr * size, &bytes) ||
        __builtin_mul_overflow(bytes, (size_t)k, &bytes) || bytes > SIZE_MAX / 2)
        return SIZE_MAX;
    return bytes;
}

/* Where the panels begin in a caller's buffer: wherever it begins, they are aligned to cache lines. */
enum { ALIGNMENT = 64 };
static char *first_panel(const void *packed) { return (char *)packed + (ALIGNMENT - (uintptr_t)packed % ALIGNMENT) % ALIGNMENT; }

size_t attn_matmul_packed_size(const attn_tensor *b) {
    const attn_kernels *kernels = product_kernels(b->dtype);
    if (!kernels || b->rank != 2 || b->shape[0] < 0 || b->shape[1] < 0) return 0;
    size_t bytes = panel_bytes(kernels, b->shape[0], b->shape[1], attn_dtype_size(b->dtype));
    return bytes == SIZE_MAX ? 0 : bytes + ALIGNMENT;
}

static void pack_panel(const attn_kernels *kernels, const attn_tensor *b, int64_t panel, char *panels) {
    int64_t nr = kernels->matmul.nr, first = panel * nr, left = b->shape[1] - first;
    size_t panel_size = (size_t)(b->shape[0] * nr) * attn_dtype_size(b->dtype);
    kernels->matmul.pack(b->shape[0], left < nr ? left : nr, attn_at(b, first * b->stride[1]), b->stride[0], b->stride[1],
                         panels + (size_t)panel * panel_size);
}

attn_status attn_matmul_pack(const attn_tensor *b, void *packed, size_t size) {
    attn_status s = attn_check_float("b", b, ATTN_INPUT, 2, 2);
    if (s != ATTN_OK) return s;
    const attn_kernels *kernels = product_kernels(b->dtype);
    if (!kernels) return attn_fail(ATTN_UNSUPPORTED, "b is %s, which is not packed", attn_dtype_name(b->dtype));
    size_t needed = attn_matmul_packed_size(b);
    if (needed == 0) return attn_fail(ATTN_BAD_SHAPE, "b is too large to be packed");
    if (packed == NULL) return attn_fail(ATTN_BAD_ARGUMENT, "packed is NULL");
    if (size < needed)
        return attn_fail(ATTN_SMALL_WORKSPACE, "the buffer for packed b has %zu bytes, it takes %zu", size, needed);
    char *panels = first_panel(packed);
    for (int64_t i = 0; i < panel_count(kernels, b->shape[1]); i++) pack_panel(kernels, b, i, panels);
    return ATTN_OK;
}

/* ---- what a call does, and the memory it needs ------------------------------------------------------------ */

typedef struct product_job {
    const attn_matmul_args *args;
    const attn_kernels *kernels; /* NULL: the reference */
    int64_t m, n, k;
    int64_t m_block, n_block, m_blocks, n_blocks;
    char *panels; /* of b, packed by the caller or by this call */
    bool b_in_place;
    size_t size; /* bytes of an element */
} product_job;

static const void *data_of(const attn_tensor *t) { return attn_present(t) ? t->data : NULL; }

/* Columns and rows of block (i, j), its operands in place. */
static attn_matmul_block block_of(const product_job *p, int64_t i, int64_t j) {
    const attn_matmul_args *a = p->args;
    int64_t row = i * p->m_block, col = j * p->n_block;
    attn_matmul_block t = { .m = p->m - row < p->m_block ? p->m - row : p->m_block,
                            .n = p->n - col < p->n_block ? p->n - col : p->n_block,
                            .k = p->k,
                            .a = attn_at(&a->a, row * a->a.stride[0]),
                            .a_row = a->a.stride[0],
                            .a_col = a->a.stride[1],
                            .b_row = p->kernels->matmul.nr,
                            .b_panel = p->k * p->kernels->matmul.nr,
                            .c = attn_at(&a->c, row * a->c.stride[0] + col * a->c.stride[1]),
                            .c_row = a->c.stride[0],
                            .c_col = a->c.stride[1],
                            .activation = a->activation,
                            .accumulate = a->flags & ATTN_ACCUMULATE };
    if (p->panels) t.b = p->panels + (size_t)(col * p->k) * p->size;
    if (p->b_in_place) {
        t.b = attn_at(&a->b, col);
        t.b_row = a->b.stride[0];
        t.b_panel = p->kernels->matmul.nr;
    }
    if (data_of(&a->bias)) {
        t.bias = attn_at(&a->bias, col * a->bias.stride[0]);
        t.bias_col = a->bias.stride[0];
    }
    if (data_of(&a->residual)) {
        t.residual = attn_at(&a->residual, row * a->residual.stride[0] + col * a->residual.stride[1]);
        t.residual_row = a->residual.stride[0];
        t.residual_col = a->residual.stride[1];
    }
    if (data_of(&a->before)) {
        t.before = attn_at(&a->before, row * a->before.stride[0] + col * a->before.stride[1]);
        t.before_row = a->before.stride[0];
        t.before_col = a->before.stride[1];
    }
    return t;
}

static int64_t blocks_in(int64_t extent, int64_t block) { return (extent + block - 1) / block; }

/* The extent cut into `n` blocks of whole steps, as even as these allow. */
static int64_t even_block(int64_t extent, int64_t n, int64_t step) { return ((extent + n - 1) / n + step - 1) / step * step; }

/* Blocks small enough that a few threads share them evenly, while each is work enough to pay for handing it out: the longer side is
 * cut, down to where its operand would be read again for too few of the other's. */
static void choose_blocks(product_job *p) {
    enum { PLENTY = 16, WORK = 500000 /* multiply-adds */, FEWEST_ROWS = 48, FEWEST_COLUMNS = 128 };
    /* of a transposed a a block reads some neighbours in each of its columns */
    const int64_t fewest_rows = p->args->a.stride[1] == 1 ? FEWEST_ROWS : 2 * FEWEST_ROWS;
    const int64_t nr = p->kernels->matmul.nr, mr = p->kernels->matmul.mr;
    int64_t rows = blocks_in(p->m, p->kernels->matmul.m_block), columns = blocks_in(p->n, p->kernels->matmul.n_block);
    for (;;) {
        p->m_block = even_block(p->m, rows, mr);
        p->n_block = even_block(p->n, columns, nr);
        p->m_blocks = blocks_in(p->m, p->m_block);
        p->n_blocks = blocks_in(p->n, p->n_block);
        bool cuts_rows = p->m_block >= 2 * fewest_rows, cuts_columns = p->n_block >= 2 * FEWEST_COLUMNS;
        if (p->m_blocks * p->n_blocks >= PLENTY || (double)p->m_block * (double)p->n_block * (double)p->k <= WORK ||
            !(cuts_rows || cuts_columns))
            return;
        if (cuts_rows && (p->m_block >= p->n_block || !cuts_columns))
            rows = 2 * p->m_blocks;
        else
            columns = 2 * p->n_blocks;
    }
}

/* Reading dense rows of b where they lie beats packing them for few rows of a: for very few always, for more unless the rows are so
 * far apart that they fall into the same few sets of the cache. */
static bool reads_b_in_place(const product_job *p) {
    enum { VERY_FEW = 16, FEW = 64, FEW_BLOCKS = 4, FAR = 2048 /* bytes */ };
    const attn_tensor *b = &p->args->b;
    if (p->args->packed || (b->stride[1] != 1 && p->n > 1)) return false;
    if (p->m <= VERY_FEW) return true;
    int64_t far = FAR / (int64_t)p->size;
    return p->m <= (b->stride[0] == far ? FEW : FEW_BLOCKS * p->kernels->matmul.m_block) && b->stride[0] >= 0 &&
           b->stride[0] <= far;
}

static product_job job_of(const attn_matmul_args *a) {
    const attn_tensor *const operands[] = { &a->a, &a->b, &a->c, &a->bias, &a->residual, &a->before };
    product_job p = {
        .args = a, .m = a->a.shape[0], .k = a->a.shape[1], .n = a->b.shape[1], .size = attn_dtype_size(a->a.dtype)
    };
    p.kernels = attn_operand_kernels(6, operands);
    if (p.kernels && !p.kernels->matmul.block) p.kernels = NULL;
    if (!p.kernels) return p;
    if (p.m > 0 && p.n > 0) choose_blocks(&p);
    if (a->packed) p.panels = first_panel(a->packed);
    p.b_in_place = reads_b_in_place(&p);
    return p;
}

static attn_need need_of(const product_job *p) {
    attn_need need = { 0 };
    if (!p->kernels || p->m == 0 || p->n == 0) return need;
    /* The first block is the largest; the last one's edge may need memory that the first one does not. */
    attn_matmul_block first = block_of(p, 0, 0), last = block_of(p, 0, p->n_blocks - 1);
    size_t most = p->kernels->matmul.scratch(&first), other = p->kernels->matmul.scratch(&last);
    need.per_worker = most > other ? most : other;
    if (!p->args->packed && !p->b_in_place) need.shared = panel_bytes(p->kernels, p->k, p->n, p->size);
    return need;
}

size_t attn_matmul_workspace(const attn_matmul_args *a, int32_t n_threads) {
    if (a->a.rank != 2 || a->b.rank != 2) return 0; /* the call itself says what is wrong */
    product_job p = job_of(a);
    return attn_need_bytes(need_of(&p), n_threads);
}

/* ---- checks ---------------------------------------------------------------------------------------------------- */

static attn_status check_b(const attn_matmul_args *a) {
    attn_tensor b = a->b;
    if (a->packed) b.data = (void *)first_panel(a->packed); /* its own data is not read */
    attn_status s = attn_check_float("b", &b, ATTN_INPUT, 2, 2);
    if (s != ATTN_OK) return s;
    if (b.shape[0] != a->a.shape[1])
        return attn_fail(ATTN_BAD_SHAPE, "b has %lld rows, a has %lld columns", (long long)b.shape[0], (long long)a->a.shape[1]);
    if (b.dtype != a->a.dtype)
        return attn_fail(ATTN_UNSUPPORTED, "b is %s, a is %s", attn_dtype_name(b.dtype), attn_dtype_name(a->a.dtype));
    return ATTN_OK;
}

static attn_status check_args(const attn_matmul_args *a) {
    if (!a) return attn_fail(ATTN_BAD_ARGUMENT, "the product has no arguments");
    attn_status s = attn_check_flags(a->flags);
    if (s == ATTN_OK) s = attn_check_reserved("attn_matmul_args", a->reserved, 16);
    if (s != ATTN_OK) return s;
    if (a->activation < ATTN_IDENTITY || a->activation > ATTN_TANH)
        return attn_fail(ATTN_BAD_ARGUMENT, "there is no activation %d", (int)a->activation);
    s = attn_check_float("a", &a->a, ATTN_INPUT, 2, 2);
    if (s == ATTN_OK) s = check_b(a);
    if (s != ATTN_OK) return s;
    const int64_t shape[] = { a->a.shape[0], a->b.shape[1] };
    int32_t dtype = a->a.dtype;
    s = attn_check_operand("c", &a->c, ATTN_OUTPUT, 2, shape, dtype, "[rows of a, columns of b]");
    if (s == ATTN_OK && attn_present(&a->bias))
        s = attn_check_operand("bias", &a->bias, ATTN_INPUT, 1, &shape[1], dtype, "[columns of b]");
    if (s == ATTN_OK && attn_present(&a->residual))
        s = attn_check_operand("residual", &a->residual, ATTN_INPUT, 2, shape, dtype, "c");
    if (s == ATTN_OK && attn_present(&a->before)) s = attn_check_operand("before", &a->before, ATTN_OUTPUT, 2, shape, dtype, "c");
    return s;
}

/* ---- the product ------------------------------------------------------------------------------------------------- */

static void pack_item(void *context, int64_t item, void *scratch) {
    (void)scratch;
    const product_job *p = context;
    pack_panel(p->kernels, &p->args->b, item, p->panels);
}

static void block_item(void *context, int64_t item, void *scratch) {
    const product_job *p = context;
    attn_matmul_block t = block_of(p, item % p->m_blocks, item / p->m_blocks);
    p->kernels->matmul.block(&t, scratch);
}

/* One row of c, by the definition. */
static void reference_item(void *context, int64_t item, void *scratch) {
    (void)scratch;
    const product_job *p = context;
    const attn_matmul_args *a = p->args;
    ref_product r = { .m = 1, .n = p->n, .k = p->k, .activation = a->activation, .accumulate = a->flags & ATTN_ACCUMULATE };
    r.a = attn_ref_matrix(&a->a);
    r.a.data = attn_at(&a->a, item * r.a.row);
    r.b = attn_ref_matrix(&a->b);
    r.c = attn_ref_matrix(&a->c);
    r.c.data = attn_at(&a->c, item * r.c.row);
    r.bias = attn_ref_row(&a->bias, 0);
    if (data_of(&a->residual)) {
        r.residual = attn_ref_matrix(&a->residual);
        r.residual.data = attn_at(&a->residual, item * r.residual.row);
    }
    if (data_of(&a->before)) {
        r.before = attn_ref_matrix(&a->before);
        r.before.data = attn_at(&a->before, item * r.before.row);
    }
    ref_matmul(&r);
}

attn_status attn_matmul(const attn_matmul_args *a, const attn_exec *exec) {
    attn_status s = check_args(a);
    if (s != ATTN_OK) return s;
    product_job p = job_of(a);
    if (a->packed && !p.kernels)
        return attn_fail(ATTN_UNSUPPORTED, "b is packed, but these operands (a is %s) are not multiplied packed",
                         attn_dtype_name(a->a.dtype));
    attn_session session;
    s = attn_session_open(&session, exec, need_of(&p));
    if (s != ATTN_OK) return s;
    if (p.m > 0 && p.n > 0) {
        if (!p.kernels) {
            attn_session_run(&session, p.m, reference_item, &p);
        } else {
            if (!p.panels && !p.b_in_place) {
                p.panels = session.shared;
                attn_session_run(&session, panel_count(p.kernels, p.n), pack_item, &p);
            }
            attn_session_run(&session, p.m_blocks * p.n_blocks, block_item, &p);
        }
    }
    attn_session_close(&session);
    return ATTN_OK;
}
