/* SPDX-License-Identifier: Apache-2.0 */
/* Attention forward and backward against torch's float64 answers, replayed from tests/data/attention.bin, which
 * tests/oracle/make_attention.py makes. ATTENTION_ORACLE names another file. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "attention_bounds.h"

/* ---- reading ------------------------------------------------------------------------------------------------------ */

enum { MOST_TENSORS = 40 };

typedef struct oracle_problem {
    int n;
    char names[MOST_TENSORS][17];
    attn_tensor tensors[MOST_TENSORS];
} oracle_problem;

static const char *oracle_path(void) {
    const char *path = getenv("ATTENTION_ORACLE");
    return path ? path : TEST_DATA "/attention.bin";
}

/* The next problem of the file; false at its end. */
static bool read_problem(FILE *file, oracle_problem *p) {
    *p = (oracle_problem){ 0 };
    for (char name[17] = { 0 }; fread(name, 16, 1, file) == 1;) {
        int64_t rank, shape[ATTN_MAX_RANK];
        assert_int_equal(fread(&rank, sizeof rank, 1, file), 1);
        assert_in_range(rank, 0, ATTN_MAX_RANK);
        assert_int_equal(fread(shape, sizeof *shape, (size_t)rank, file), rank);
        if (strcmp(name, "end") == 0) return true;
        attn_tensor t = tensor_of(ATTN_F64, (int32_t)rank, shape);
        assert_int_equal(fread(t.data, sizeof(double), (size_t)attn_count(&t), file), attn_count(&t));
        assert_true(p->n < MOST_TENSORS);
        memcpy(p->names[p->n], name, sizeof name);
        p->tensors[p->n++] = t;
    }
    assert_int_equal(p->n, 0);
    return false;
}

static FILE *open_oracle(void) {
    static const char magic[] = "attention oracle 1\n";
    char line[sizeof magic] = { 0 };
    FILE *file = fopen(oracle_path(), "rb");
    if (!file) fail_msg("%s cannot be opened", oracle_path());
    assert_int_equal(fread(line, sizeof magic - 1, 1, file), 1);
    assert_string_equal(line, magic);
    return file;
}

/* An absent tensor when the problem has none of this name. */
static attn_tensor named(const oracle_problem *p, const char *name) {
    for (int i = 0; i < p->n; i++)
        if (strcmp(p->names[i], name) == 0) return p->tensors[i];
    return (attn_tensor){ 0 };
}

static attn_tensor named_as(const oracle_problem *p, const char *name, int32_t dtype) {
    attn_tensor t = named(p, name);
    return t.rank ? dense_copy(t, dtype) : t;
}

/* ---- replaying ------------------------------------------------------------------------------------------------------ */

static attn_attention_args call_of(const oracle_problem *p, int32_t dtype) {
    attn_tensor o = named(p, "options");
    attn_attention_args a = { .q = named_as(p, "q", dtype),
                              .k = named_as(p, "k", dtype),
                              .v = named_as(p, "v", dtype),
                              .bias = named_as(p, "bias", dtype),
                              .alibi = named_as(p, "alibi", dtype),
                              .score_weight = named_as(p, "score_weight", dtype),
                              .mask = named_as(p, "mask", ATTN_BOOL),
                              .offset = named_as(p, "offset", ATTN_I64),
                              .q_lengths = named_as(p, "q_lengths", ATTN_I32),
                              .kv_lengths = named_as(p, "kv_lengths", ATTN_I64),
                              .score = (int32_t)get(o, 0),
                              .weighting = (int32_t)get(o, 1),
                              .causal = (int32_t)get(o, 2),
                              .scale = get(o, 4),
                              .softcap = get(o, 5) };
    if (get(o, 3) != 0) a.flags |= ATTN_SCALE_SET;
    if (get(o, 6) != 0) a.flags |= ATTN_WINDOW;
    a.window[0] = (int64_t)get(o, 7);
    a.window[1] = (int64_t)get(o, 8);
    a.out = tensor_of(dtype, 4, named(p, "out").shape);
    a.see = see_all(&a, named(p, "top_index").shape[3]);
    return a;
}

static int at_problem; /* counted from 0, in the order of make_attention.py */

/* Rms relative to the whole tensor, with an absolute floor: gradients that are nearly 0 are sums of terms near 1 that cancel. */
static void assert_agrees(const char *what, attn_tensor x, attn_tensor exact, double bound) {
    if (!exact.rank) return;
    double error = 0, size = 0;
    assert_true(attn_same_shape(&x, &exact));
    for (int64_t n = 0; n < attn_count(&exact); n++) {
        double e = get(exact, n), got = get(x, n);
        if (got == e) continue;
        error += (got - e) * (got - e);
    }
    for (int64_t n = 0; n < attn_count(&exact); n++)
        if (isfinite(get(exact, n))) size += get(exact, n) * get(exact, n);
    if (!(sqrt(error) <= bound * (sqrt(size) + 0.5)))
        fail_msg("problem %d, %s: error %g of %g, bound %g", at_problem, what, sqrt(error), sqrt(size), bound);
}

/* Bounds on these problems, whose scores reach 100: u times a few hundred. */
static double oracle_bound(int32_t dtype) { return dtype == ATTN_F64 ? 2e-13 : 2e-5; }

static void assert_forward_agrees(const oracle_problem *p, const attn_attention_args *a) {
    double bound = oracle_bound(a->q.dtype);
    attend(a);
    assert_agrees("out", a->out, named(p, "out"), bound);
    assert_agrees("lse", a->see.lse, named(p, "lse"), bound);
    assert_agrees("entropy", a->see.entropy, named(p, "entropy"), bound);
    assert_agrees("received", a->see.received, named(p, "received"), bound);
    assert_agrees("weights", a->see.weights, named(p, "weights"), bound);
    assert_agrees("top_index", a->see.top_index, named(p, "top_index"), 0);
}

static void assert_backward_agrees(const oracle_problem *p, const attn_attention_args *a) {
    int32_t dtype = a->q.dtype;
    double bound = oracle_bound(dtype);
    attn_attention_grads g = { .dout = named_as(p, "dout", dtype),
                               .dlse = named_as(p, "dlse", dtype),
                               .dq = tensor_of(dtype, 4, a->q.shape),
                               .dk = tensor_of(dtype, 4, a->k.shape),
                               .dv = tensor_of(dtype, 4, a->v.shape) };
    if (a->bias.rank) g.dbias = tensor_of(dtype, a->bias.rank, a->bias.shape);
    if (a->alibi.rank) g.dalibi = tensor_of(dtype, a->alibi.rank, a->alibi.shape);
    if (a->score_weight.rank) g.dscore_weight = tensor_of(dtype, a->score_weight.rank, a->score_weight.shape);
    attend_backward(a, &g);
    assert_agrees("dq", g.dq, named(p, "dq"), bound);
    assert_agrees("dk", g.dk, named(p, "dk"), bound);
    assert_agrees("dv", g.dv, named(p, "dv"), bound);
    assert_agrees("dbias", g.dbias, named(p, "dbias"), bound);
    assert_agrees("dalibi", g.dalibi, named(p, "dalibi"), bound);
    assert_agrees("dscore_weight", g.dscore_weight, named(p, "dscore_weight"), bound);
}

static void replay(int32_t dtype) {
    FILE *file = open_oracle();
    oracle_problem p;
    for (at_problem = 0; read_problem(file, &p); at_problem++) {
        attn_attention_args a = call_of(&p, dtype);
        assert_forward_agrees(&p, &a);
        assert_backward_agrees(&p, &a);
        free_blocks(NULL);
    }
    fclose(file);
    assert_true(at_problem >= 30);
}

static void f64_agrees_with_torch_forward_and_backward(void **state) {
    (void)state;
    replay(ATTN_F64);
}

static void f32_agrees_with_torch_forward_and_backward(void **state) {
    (void)state;
    replay(ATTN_F32);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(f64_agrees_with_torch_forward_and_backward, free_blocks),
        cmocka_unit_test_teardown(f32_agrees_with_torch_forward_and_backward, free_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
