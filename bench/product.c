/* SPDX-License-Identifier: Apache-2.0 */
/* gemm:m1024n1024k1024,f32[,prepacked][,weight][,gradient][,gelu]. Plain: a [m, k] and b [k, n] are row-major. weight: b is the
 * transpose of [n, k], as models store it, with a bias. gradient: a is the transpose of [k, m], and c is added to.
 * linear-cross-entropy:n4096d512c32768,f32[,loss]: the loss and the gradients to x, weight and bias, three products - logits, dx and
 * dweight, 6 n d c operations; with `loss` the loss alone, one product. */
#include "case.h"

#include <attn/ops.h>

/* ---- gemm ------------------------------------------------------------------------------------------------------------ */

static attn_status run_product(void *call, const attn_exec *exec) { return attn_matmul(call, exec); }
static size_t product_workspace(const void *call, int32_t n_threads) { return attn_matmul_workspace(call, n_threads); }

/* A matrix [rows, columns] that lies in memory as its transpose. */
static attn_tensor turned(bench_case *c, int32_t dtype, int64_t rows, int64_t columns) {
    attn_tensor t = bench_tensor(c, dtype, 2, (const int64_t[]){ columns, rows });
    return t.data ? attn_transposed(t) : t;
}
static attn_tensor upright(bench_case *c, int32_t dtype, int64_t rows, int64_t columns) {
    return bench_tensor(c, dtype, 2, (const int64_t[]){ rows, columns });
}

int bench_product(bench_problem *p, bench_case *c, io_error *error) {
    int64_t size[3];
    int failed = bench_problem_sizes(p, "mnk", size, error);
    if (failed) return failed;
    const int64_t m = size[0], n = size[1], k = size[2];
    bool weight = bench_problem_has(p, "weight"), gradient = bench_problem_has(p, "gradient");
    attn_matmul_args *a = c->call = bench_memory(c, sizeof *a);
    if (!a) return IO_OK;
    *a = (attn_matmul_args){ .a = gradient ? turned(c, p->dtype, m, k) : upright(c, p->dtype, m, k),
                             .b = weight ? turned(c, p->dtype, k, n) : upright(c, p->dtype, k, n),
                             .c = upright(c, p->dtype, m, n),
                             .flags = gradient ? ATTN_ACCUMULATE : 0,
                             .activation = bench_problem_has(p, "gelu") ? ATTN_GELU : ATTN_IDENTITY };
    if (weight) a->bias = bench_tensor(c, p->dtype, 1, &n);
    c->flops = 2 * (double)m * (double)n * (double)k;
    c->run = run_product;
    c->workspace = product_workspace;
    if (!bench_problem_has(p, "prepacked") || c->failed) return IO_OK;
    size_t packed = attn_matmul_packed_size(&a->b);
    void *memory = bench_memory(c, (double)packed);
    if (memory && attn_matmul_pack(&a->b, memory, packed) != ATTN_OK)
        return io_fail(error, IO_BAD_USAGE, "%s: %s", p->text, attn_last_error());
    a->packed = memory;
    return IO_OK;
}

/* ---- linear cross-entropy -------------------------------------------------------------------------------------------- */

static attn_status run_loss(void *call, const attn_exec *exec) { return attn_linear_cross_entropy(call, exec); }
static size_t loss_workspace(const void *call, int32_t n_threads) { return attn_linear_cross_entropy_workspace(call, n_threads); }

int bench_linear_loss(bench_problem *p, bench_case *c, io_error *error) {
    int64_t size[3];
    int failed = bench_problem_sizes(p, "ndc", size, error);
    if (failed) return failed;
    const int64_t n = size[0], dim = size[1], classes = size[2], one = 1;
    attn_linear_cross_entropy_args *a = c->call = bench_memory(c, sizeof *a);
    if (!a) return IO_OK;
    *a = (attn_linear_cross_entropy_args){ .x = upright(c, p->dtype, n, dim),
                                           .weight = upright(c, p->dtype, classes, dim),
                                           .bias = bench_tensor(c, p->dtype, 1, &classes),
                                           .labels = bench_labels(c, n, classes),
                                           .loss = bench_output(c, ATTN_F64, 1, &one) };
    c->flops = 2 * (double)n * (double)dim * (double)classes;
    if (!bench_problem_has(p, "loss")) {
        a->dx = bench_output(c, p->dtype, 2, (const int64_t[]){ n, dim });
        a->dweight = bench_output(c, p->dtype, 2, (const int64_t[]){ classes, dim });
        a->dbias = bench_output(c, p->dtype, 1, &classes);
        c->flops *= 3;
    }
    c->run = run_loss;
    c->workspace = loss_workspace;
    return IO_OK;
}
