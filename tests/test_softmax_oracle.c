/* SPDX-License-Identifier: Apache-2.0 */
/* Replays what torch says of the softmax family, of cross-entropy and of linear cross-entropy in float64 (tests/oracle/make_softmax.py): every combination
 * of options, losses and gradients; in float32 too. ATTN_ORACLE_SOFTMAX names another file than the one in the repository. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/tensors.h"

static FILE *oracle;

static attn_tensor read_tensor(int32_t dtype, int32_t rank, int64_t rows, int64_t n) {
    attn_tensor t = tensor_of(dtype, rank, (int64_t[]){ rows, n });
    for (int64_t i = 0; i < attn_count(&t); i++) {
        double x;
        assert_int_equal(fscanf(oracle, "%lf", &x), 1);
        put(t, i, x);
    }
    return t;
}

/* The same within what `dtype` can hold of numbers of size 1 to 10. */
static void assert_close(attn_tensor t, attn_tensor expected) {
    double tolerance = t.dtype == ATTN_F32 ? 4e-6 : 1e-14;
    for (int64_t i = 0; i < attn_count(&t); i++) {
        double x = get(t, i), e = get(expected, i);
        if (!(x == e || fabs(x - e) <= tolerance * (1 + fabs(e))))
            fail_msg("element %lld is %.17g, torch has %.17g", (long long)i, x, e);
    }
}

static attn_tensor like(attn_tensor t, int32_t dtype) { return tensor_of(dtype, t.rank, t.shape); }

static void replay_softmax(void) {
    int op;
    long long rows, n;
    assert_int_equal(fscanf(oracle, "%d %lld %lld", &op, &rows, &n), 3);
    attn_tensor x = read_tensor(ATTN_F64, 2, rows, n), dy = read_tensor(ATTN_F64, 2, rows, n);
    attn_tensor y = read_tensor(ATTN_F64, 2, rows, n), dx = read_tensor(ATTN_F64, 2, rows, n);
    for (int d = 0; d < 2; d++) {
        int32_t dtype = d ? ATTN_F32 : ATTN_F64;
        attn_softmax_args a = { .op = op, .x = dense_copy(x, dtype), .y = like(y, dtype) };
        attn_softmax_grads g = { .dy = dense_copy(dy, dtype), .dx = like(dx, dtype) };
        assert_ok(attn_softmax(&a, NULL));
        assert_ok(attn_softmax_backward(&a, &g, NULL));
        assert_close(a.y, y);
        assert_close(g.dx, dx);
    }
}

static void replay_logsumexp(void) {
    long long rows, n;
    assert_int_equal(fscanf(oracle, "%lld %lld", &rows, &n), 2);
    attn_tensor x = read_tensor(ATTN_F64, 2, rows, n), dy = read_tensor(ATTN_F64, 1, rows, 0);
    attn_tensor y = read_tensor(ATTN_F64, 1, rows, 0), dx = read_tensor(ATTN_F64, 2, rows, n);
    for (int d = 0; d < 2; d++) {
        int32_t dtype = d ? ATTN_F32 : ATTN_F64;
        attn_softmax_args a = { .x = dense_copy(x, dtype), .y = like(y, dtype) };
        attn_softmax_grads g = { .dy = dense_copy(dy, dtype), .dx = like(dx, dtype) };
        assert_ok(attn_logsumexp(&a, NULL));
        assert_ok(attn_logsumexp_backward(&a, &g, NULL));
        assert_close(a.y, y);
        assert_close(g.dx, dx);
    }
}

static void replay_cross_entropy(void) {
    long long n, classes, ignore_index;
    int soft, weighted, reduction;
    double smoothing, z_loss;
    assert_int_equal(fscanf(oracle, "%lld %lld %d %d %lf %lf %d %lld", &n, &classes, &soft, &weighted, &smoothing, &z_loss,
                            &reduction, &ignore_index),
                     8);
    attn_tensor logits = read_tensor(ATTN_F64, 2, n, classes);
    attn_tensor labels = read_tensor(soft ? ATTN_F64 : ATTN_I64, soft ? 2 : 1, n, classes), weight = { 0 };
    if (weighted) weight = read_tensor(ATTN_F64, 1, classes, 0);
    attn_tensor loss = read_tensor(ATTN_F64, 1, reduction == ATTN_NONE ? n : 1, 0),
                dlogits = read_tensor(ATTN_F64, 2, n, classes);
    for (int d = 0; d < 2; d++) {
        int32_t dtype = d ? ATTN_F32 : ATTN_F64;
        attn_cross_entropy_args a = { .flags = ATTN_IGNORE_SET,
                                      .reduction = reduction,
                                      .logits = dense_copy(logits, dtype),
                                      .labels = dense_copy(labels, soft ? dtype
                                                                   : d  ? ATTN_I32
                                                                        : ATTN_I64),
                                      .loss = like(loss, dtype),
                                      .dlogits = like(dlogits, dtype),
                                      .ignore_index = ignore_index,
                                      .label_smoothing = smoothing,
                                      .z_loss = z_loss };
        if (weighted) a.class_weight = dense_copy(weight, dtype);
        assert_ok(attn_cross_entropy(&a, NULL));
        assert_close(a.loss, loss);
        assert_close(a.dlogits, dlogits);
    }
}

static void replay_linear_cross_entropy(void) {
    long long n, classes, dim, ignore_index;
    int soft, weighted, reduction;
    double smoothing, z_loss;
    assert_int_equal(fscanf(oracle, "%lld %lld %lld %d %d %lf %lf %d %lld", &n, &classes, &dim, &soft, &weighted, &smoothing,
                            &z_loss, &reduction, &ignore_index),
                     9);
    attn_tensor x = read_tensor(ATTN_F64, 2, n, dim), weight = read_tensor(ATTN_F64, 2, classes, dim);
    attn_tensor bias = read_tensor(ATTN_F64, 1, classes, 0), class_weight = { 0 };
    attn_tensor labels = read_tensor(soft ? ATTN_F64 : ATTN_I64, soft ? 2 : 1, n, classes);
    if (weighted) class_weight = read_tensor(ATTN_F64, 1, classes, 0);
    attn_tensor loss = read_tensor(ATTN_F64, 1, reduction == ATTN_NONE ? n : 1, 0), dx = read_tensor(ATTN_F64, 2, n, dim);
    attn_tensor dweight = read_tensor(ATTN_F64, 2, classes, dim), dbias = read_tensor(ATTN_F64, 1, classes, 0);
    for (int d = 0; d < 2; d++) {
        int32_t dtype = d ? ATTN_F32 : ATTN_F64;
        attn_linear_cross_entropy_args a = { .flags = ATTN_IGNORE_SET,
                                             .reduction = reduction,
                                             .x = dense_copy(x, dtype),
                                             .weight = dense_copy(weight, dtype),
                                             .bias = dense_copy(bias, dtype),
                                             .labels = soft ? dense_copy(labels, dtype) : labels,
                                             .loss = like(loss, dtype),
                                             .dx = like(dx, dtype),
                                             .dweight = like(dweight, dtype),
                                             .dbias = like(dbias, dtype),
                                             .ignore_index = ignore_index,
                                             .label_smoothing = smoothing,
                                             .z_loss = z_loss };
        if (weighted) a.class_weight = dense_copy(class_weight, dtype);
        assert_ok(attn_linear_cross_entropy(&a, NULL));
        assert_close(a.loss, loss);
        assert_close(a.dx, dx);
        assert_close(a.dweight, dweight);
        assert_close(a.dbias, dbias);
    }
}

static void the_softmax_family_and_its_losses_are_torchs(void **state) {
    (void)state;
    char kind[32];
    int cases = 0;
    const char *path = getenv("ATTN_ORACLE_SOFTMAX");
    oracle = fopen(path ? path : TEST_DATA "/softmax.txt", "r");
    assert_non_null(oracle);
    for (; fscanf(oracle, "%31s", kind) == 1; cases++) {
        if (!strcmp(kind, "softmax"))
            replay_softmax();
        else if (!strcmp(kind, "logsumexp"))
            replay_logsumexp();
        else if (!strcmp(kind, "cross-entropy"))
            replay_cross_entropy();
        else if (!strcmp(kind, "linear-cross-entropy"))
            replay_linear_cross_entropy();
        else
            fail_msg("no case is called %s", kind);
        free_blocks(NULL);
    }
    fclose(oracle);
    assert_true(cases >= 200);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test_teardown(the_softmax_family_and_its_losses_are_torchs, free_blocks) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
