/* SPDX-License-Identifier: Apache-2.0 */
/* A machine without kernels, or with a table that leaves its families out, has the reference's answers, and they are the kernels'. */
/* wraps: attn_kernels_for */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/tensors.h"

#include "src/kernels/kernels.h"

#include <attn/ops.h>

/* ---- the machine ------------------------------------------------------------------------------------------------ */

const attn_kernels *__real_attn_kernels_for(int32_t dtype);
const attn_kernels *__wrap_attn_kernels_for(int32_t dtype);

static enum { ALL_KERNELS, BARE_TABLES, NO_TABLES } machine;

const attn_kernels *__wrap_attn_kernels_for(int32_t dtype) {
    static attn_kernels bare[2];
    const attn_kernels *k = __real_attn_kernels_for(dtype);
    if (!k || machine == ALL_KERNELS) return k;
    if (machine == NO_TABLES) return NULL;
    attn_kernels *b = &bare[dtype == ATTN_F64];
    b->isa = k->isa;
    b->dtype = dtype;
    b->lanes = k->lanes;
    return b;
}

/* ---- problems: what they make lies in `results` -------------------------------------------------------------------- */

enum { MOST_RESULTS = 256 };
static attn_tensor results[MOST_RESULTS];
static int n_results;
static uint64_t seed;

static attn_tensor in(int32_t rank, const int64_t *shape) {
    attn_tensor t = tensor_of(ATTN_F64, rank, shape);
    fill_normal(t, 1, &seed);
    return t;
}
static attn_tensor in1(int64_t n) { return in(1, &n); }
static attn_tensor in2(int64_t rows, int64_t n) { return in(2, (int64_t[]){ rows, n }); }
static attn_tensor in4(int64_t b, int64_t h, int64_t s, int64_t d) { return in(4, (int64_t[]){ b, h, s, d }); }

static attn_tensor result(attn_tensor t) {
    assert_true(n_results < MOST_RESULTS);
    return results[n_results++] = t;
}
static attn_tensor out(int32_t rank, const int64_t *shape) { return result(tensor_of(ATTN_F64, rank, shape)); }
static attn_tensor out1(int64_t n) { return out(1, &n); }
static attn_tensor out2(int64_t rows, int64_t n) { return out(2, (int64_t[]){ rows, n }); }
static attn_tensor out3(int64_t b, int64_t h, int64_t s) { return out(3, (int64_t[]){ b, h, s }); }
static attn_tensor like(attn_tensor t) { return out(t.rank, t.shape); }

/* Filled by `problem` on each machine; beside the kernels' the reference's are the same numbers within rounding. */
static void assert_answers(void (*problem)(void)) {
    static attn_tensor expected[MOST_RESULTS];
    int n = 0;
    for (machine = ALL_KERNELS;; machine = machine == BARE_TABLES ? NO_TABLES : BARE_TABLES) {
        n_results = 0;
        seed = 7;
        problem();
        if (machine == ALL_KERNELS) {
            n = n_results;
            memcpy(expected, results, sizeof expected);
            continue;
        }
        for (int i = 0; i < n; i++)
            for (int64_t e = 0; e < attn_count(&results[i]); e++) {
                double x = get(results[i], e), y = get(expected[i], e);
                if (!(x == y || fabs(x - y) <= 1e-11 * (1 + fabs(y))) && !(isnan(x) && isnan(y)))
                    fail_msg("result %d, element %lld: %.17g, by kernels %.17g", i, (long long)e, x, y);
            }
        if (machine == NO_TABLES) break;
    }
    machine = ALL_KERNELS;
}

static void elements(void) {
    for (int32_t activation = ATTN_IDENTITY; activation <= ATTN_TANH; activation++) {
        attn_activation_args a = { .activation = activation, .flags = activation % 2 ? ATTN_ACCUMULATE : 0, .x = in2(3, 7) };
        a.y = result(in2(3, 7));
        attn_activation_grads g = { .dy = in2(3, 7), .dx = result(in2(3, 7)) };
        assert_ok(attn_activation(&a, NULL));
        assert_ok(attn_activation_backward(&a, &g, NULL));
    }
    attn_tensor x = in2(3, 7), y = result(in2(3, 7)), dropped = like(x), sums = out1(7), added = result(in1(7));
    double squares;
    assert_ok(attn_add(&x, 0.5, &y, NULL));
    assert_ok(attn_dropout(&x, 0.3, 5, 6, &dropped, NULL));
    assert_ok(attn_sum_of_squares(&x, &squares, NULL));
    put(out1(1), 0, squares);
    assert_ok(attn_sum_rows(&x, &sums, 0, NULL));
    assert_ok(attn_sum_rows(&x, &added, ATTN_ACCUMULATE, NULL));
    for (int32_t kind = ATTN_GATE_SIGMOID; kind <= ATTN_GATE_MULTIPLICATIVE; kind++) {
        attn_gate_args a = { .kind = kind, .x = x, .g = in2(3, 7), .y = like(x) };
        attn_gate_grads g = { .dy = in2(3, 7), .dx = like(x), .dg = like(x) };
        assert_ok(attn_gate(&a, NULL));
        assert_ok(attn_gate_backward(&a, &g, NULL));
    }
}

static void models(void) {
    attn_matmul_args product = { .activation = ATTN_GELU,
                                 .a = in2(5, 9),
                                 .b = in2(9, 6),
                                 .c = out2(5, 6),
                                 .bias = in1(6),
                                 .residual = in2(5, 6),
                                 .before = out2(5, 6) };
    assert_ok(attn_matmul(&product, NULL));
    for (int32_t kind = ATTN_LAYER_NORM; kind <= ATTN_RMS_NORM; kind++) {
        bool layer = kind == ATTN_LAYER_NORM;
        attn_norm_args a = { .kind = kind, .x = in2(4, 9), .y = out2(4, 9), .weight = in1(9), .rstd = out1(4) };
        if (layer) a.bias = in1(9), a.mean = out1(4);
        assert_ok(attn_norm(&a, NULL));
        a.flags = ATTN_ACCUMULATE;
        attn_norm_grads g = { .dy = in2(4, 9), .dx = result(in2(4, 9)), .dweight = result(in1(9)) };
        if (layer) g.dbias = result(in1(9));
        assert_ok(attn_norm_backward(&a, &g, NULL));
        a.y = result(in2(4, 9));
        assert_ok(attn_norm(&a, NULL));
        attn_norm_grads bias_alone = { .dy = g.dy, .dbias = layer ? out1(9) : (attn_tensor){ 0 } };
        if (layer) fill(bias_alone.dbias, 1);
        assert_ok(attn_norm_backward(&a, &bias_alone, NULL));
    }
    attn_tensor ids = values1(ATTN_I32, 3, (double[]){ 2, 0, 2 });
    attn_embedding_args e = { .table = in2(4, 5), .ids = ids, .y = out2(3, 5) };
    assert_ok(attn_embedding(&e, NULL));
    e.flags = ATTN_ACCUMULATE;
    e.y = result(in2(3, 5));
    assert_ok(attn_embedding(&e, NULL));
    attn_tensor dy = in2(3, 5), dtable = result(in2(4, 5));
    assert_ok(attn_embedding_backward(&e, &dy, &dtable, NULL));
    attn_rope_args r = { .x = in4(2, 3, 4, 6),
                         .y = out(4, (int64_t[]){ 2, 3, 4, 6 }),
                         .cos = in(3, (int64_t[]){ 2, 4, 2 }),
                         .sin = in(3, (int64_t[]){ 2, 4, 2 }),
                         .rotary_dim = 4 };
    attn_rope_grads rg = { .dy = r.x, .dx = like(r.x) };
    assert_ok(attn_rope(&r, NULL));
    assert_ok(attn_rope_backward(&r, &rg, NULL));
    attn_adamw_args w = { .param = result(in2(3, 4)),
                          .m = result(in2(3, 4)),
                          .v = result(in2(3, 4)),
                          .gradient = in2(3, 4),
                          .lr = 0.1,
                          .weight_decay = 0.01,
                          .step = 3 };
    for (int64_t i = 0; i < 12; i++) put(w.v, i, fabs(get(w.v, i)));
    assert_ok(attn_adamw(&w, NULL));
    attn_muon_args m = { .param = result(in2(4, 3)), .m = result(in2(4, 3)), .gradient = in2(4, 3), .lr = 0.1 };
    assert_ok(attn_muon(&m, NULL));
    for (int32_t rule = ATTN_LINEAR; rule <= ATTN_GATED_DELTA; rule++) {
        attn_linear_attention_args a = { .rule = rule, .q = in4(1, 2, 5, 3), .k = in4(1, 1, 5, 3), .v = in4(1, 1, 5, 4) };
        a.out = out(4, (int64_t[]){ 1, 2, 5, 4 });
        if (rule == ATTN_GATED || rule == ATTN_GATED_DELTA) a.decay = in(3, (int64_t[]){ 1, 1, 5 });
        if (rule >= ATTN_DELTA) a.beta = in(3, (int64_t[]){ 1, 1, 5 });
        assert_ok(attn_linear_attention(&a, NULL));
        attn_linear_attention_grads g = { .dout = in4(1, 2, 5, 4), .dq = like(a.q), .dk = like(a.k), .dv = like(a.v) };
        assert_ok(attn_linear_attention_backward(&a, &g, NULL));
    }
}

static void rows_of_softmax(void) {
    attn_tensor x = in2(4, 9), dy = in2(4, 9);
    put(x, 9, -INFINITY);
    put(x, 20, NAN);
    for (int32_t op = ATTN_SOFTMAX; op <= ATTN_GUMBEL_SOFTMAX; op++) {
        attn_softmax_args a = { .op = op, .x = x, .y = like(x), .alpha = op == ATTN_ENTMAX ? 1.3 : 0 };
        attn_softmax_grads g = { .dy = dy, .dx = like(x) };
        attn_softmax_tangents t = { .dx = dy, .dy = like(x) };
        assert_ok(attn_softmax(&a, NULL));
        assert_ok(attn_softmax_backward(&a, &g, NULL));
        assert_ok(attn_softmax_jvp(&a, &t, NULL));
    }
    attn_softmax_args hard = { .op = ATTN_GUMBEL_SOFTMAX, .hard = 1, .x = x, .y = like(x), .seed = 3 };
    assert_ok(attn_softmax(&hard, NULL));
    for (int32_t op = ATTN_SOFTMAX; op <= ATTN_SOFTMIN; op += ATTN_SOFTMIN - ATTN_SOFTMAX) {
        attn_softmax_args a = { .op = op, .x = x, .y = out1(4), .scale = 0.7 };
        attn_softmax_grads g = { .dy = in1(4), .dx = like(x) };
        attn_softmax_tangents t = { .dx = dy, .dy = out1(4) };
        assert_ok(attn_logsumexp(&a, NULL));
        assert_ok(attn_logsumexp_backward(&a, &g, NULL));
        assert_ok(attn_logsumexp_jvp(&a, &t, NULL));
    }
    for (int32_t order = ATTN_SOFTMAX_TOP_K; order <= ATTN_SIGMOID_TOP_K; order++)
        for (int32_t normalize = 0; normalize <= (order != ATTN_TOP_K_SOFTMAX); normalize++) {
            attn_top_k_softmax_args a = { .order = order, .normalize = normalize, .logits = x, .weight = out2(4, 3) };
            a.index = result(tensor2(ATTN_I32, 4, 3));
            attn_top_k_softmax_grads g = { .dweight = in2(4, 3), .dlogits = like(x) };
            assert_ok(attn_top_k_softmax(&a, NULL));
            assert_ok(attn_top_k_softmax_backward(&a, &g, NULL));
        }
    for (int which = 0; which < 5; which++) {
        attn_sample_args a = { .logits = x, .index = result(tensor1(ATTN_I64, 4)), .probability = out1(4), .seed = 11 };
        a.temperature = which ? 0.8 : 0;
        a.top_k = which == 2 ? 4 : 0;
        a.top_p = which == 3 ? 0.6 : 0;
        a.min_p = which == 4 ? 0.2 : 0;
        assert_ok(attn_sample(&a, NULL));
    }
}

static void losses(void) {
    attn_tensor labels = values1(ATTN_I64, 4, (double[]){ 1, 0, -100, 2 });
    attn_cross_entropy_args c = {
        .logits = in2(4, 3), .labels = labels, .loss = out1(1), .dlogits = out2(4, 3), .label_smoothing = 0.1, .z_loss = 0.01
    };
    assert_ok(attn_cross_entropy(&c, NULL));
    attn_linear_cross_entropy_args l = { .x = in2(4, 5),
                                         .weight = in2(3, 5),
                                         .bias = in1(3),
                                         .labels = labels,
                                         .loss = out1(1),
                                         .dx = out2(4, 5),
                                         .dweight = out2(3, 5),
                                         .dbias = out1(3) };
    assert_ok(attn_linear_cross_entropy(&l, NULL));
    l.dbias = (attn_tensor){ 0 };
    l.dweight = out2(3, 5);
    assert_ok(attn_linear_cross_entropy(&l, NULL));
    l.dweight = (attn_tensor){ 0 };
    l.dbias = out1(3);
    assert_ok(attn_linear_cross_entropy(&l, NULL));
}

static void attentions(void) {
    for (int32_t weighting = ATTN_WEIGHT_SOFTMAX; weighting <= ATTN_WEIGHT_HARDMAX; weighting++)
        for (int32_t score = ATTN_DOT; score <= ATTN_COSINE; score++) {
            attn_attention_args a = { .score = score,
                                      .weighting = weighting,
                                      .causal = ATTN_CAUSAL,
                                      .q = in4(2, 2, 5, 3),
                                      .k = in4(2, 1, 6, 3),
                                      .v = in4(2, 1, 6, 4),
                                      .out = out(4, (int64_t[]){ 2, 2, 5, 4 }) };
            if (score == ATTN_ADDITIVE) a.score_weight = in1(3);
            a.see.received = out3(2, 2, 6);
            assert_ok(attn_attention(&a, NULL));
            attn_attention_grads g = { .dout = in4(2, 2, 5, 4), .dq = like(a.q), .dk = like(a.k), .dv = like(a.v) };
            assert_ok(attn_attention_backward(&a, &g, NULL));
            attn_received_args r = { .dout = g.dout, .received = out3(2, 2, 6) };
            assert_ok(attn_attention_received(&a, &r, NULL));
        }
}

static void derivatives_of_attention(void) {
    attn_attention_args a = { .q = in4(2, 2, 5, 3), .k = in4(2, 1, 6, 3), .v = in4(2, 1, 6, 4) };
    attn_attention_tangents t = {
        .dq = in4(2, 2, 5, 3), .dk = in4(2, 1, 6, 3), .dout = out(4, (int64_t[]){ 2, 2, 5, 4 }), .dlse = out3(2, 2, 5)
    };
    assert_ok(attn_attention_jvp(&a, &t, NULL));
    attn_attention_tangents of_out = t, of_lse = t;
    of_out.dlse = of_lse.dout = (attn_tensor){ 0 };
    of_out.dout = like(t.dout);
    of_lse.dlse = like(t.dlse);
    assert_ok(attn_attention_jvp(&a, &of_out, NULL));
    assert_ok(attn_attention_jvp(&a, &of_lse, NULL));
    attn_attention_double_grads g = { .dout = in4(2, 2, 5, 4),
                                      .ddq = in4(2, 2, 5, 3),
                                      .ddv = in4(2, 1, 6, 4),
                                      .dq = like(a.q),
                                      .dk = like(a.k),
                                      .dv = like(a.v),
                                      .ddout = like(t.dout) };
    assert_ok(attn_attention_double_backward(&a, &g, NULL));
    g.ddout = (attn_tensor){ 0 };
    g.ddlse = like(t.dlse);
    assert_ok(attn_attention_double_backward(&a, &g, NULL));
    g.ddlse = (attn_tensor){ 0 };
    assert_ok(attn_attention_double_backward(&a, &g, NULL));
}

static void merged_parts(void) {
    attn_tensor outs[2] = { in2(3, 4), in2(3, 4) }, lses[2] = { in1(3), in1(3) };
    put(lses[0], 1, -INFINITY);
    attn_merge_args a = { .n = 2, .outs = outs, .lses = lses, .out = out2(3, 4), .lse = out1(3) };
    assert_ok(attn_merge(&a, NULL));
    a.lse = (attn_tensor){ 0 };
    a.out = out2(3, 4);
    assert_ok(attn_merge(&a, NULL));
    attn_tensor douts[2] = { out2(3, 4), { 0 } }, dlses[2] = { { 0 }, out1(3) };
    attn_merge_grads all = { .dout = in2(3, 4), .douts = douts, .dlses = dlses }, lses_alone = { .dout = all.dout };
    assert_ok(attn_merge_backward(&a, &all, NULL));
    lses_alone.dlses = (attn_tensor[]){ out1(3), out1(3) };
    assert_ok(attn_merge_backward(&a, &lses_alone, NULL));
}

#define ANSWERS(problem)                                                                                                         \
    static void problem##_have_the_reference_s_answers(void **state) {                                                           \
        (void)state;                                                                                                             \
        assert_answers(problem);                                                                                                 \
    }
ANSWERS(elements)
ANSWERS(models)
ANSWERS(rows_of_softmax)
ANSWERS(losses)
ANSWERS(attentions)
ANSWERS(merged_parts)
ANSWERS(derivatives_of_attention)

/* ---- what there is only with kernels -------------------------------------------------------------------------------------- */

static void nothing_is_packed_and_there_is_no_burst(void **state) {
    (void)state;
    attn_tensor b = in2(3, 4);
    for (machine = BARE_TABLES;; machine = NO_TABLES) {
        assert_int_equal(attn_burst(ATTN_F32, 1), 0);
        assert_int_equal(attn_matmul_packed_size(&b), 0);
        if (machine == NO_TABLES) break;
    }
    machine = ALL_KERNELS;
    assert_true(attn_burst(ATTN_F32, 1) > 0);
    assert_int_equal(attn_burst(ATTN_F32, 0), 0);
    assert_true(attn_matmul_packed_size(&b) > 0);
}

#define TEST(name) cmocka_unit_test_teardown(name, free_blocks)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(elements_have_the_reference_s_answers),        TEST(models_have_the_reference_s_answers),
        TEST(rows_of_softmax_have_the_reference_s_answers), TEST(losses_have_the_reference_s_answers),
        TEST(attentions_have_the_reference_s_answers),      TEST(derivatives_of_attention_have_the_reference_s_answers),
        TEST(merged_parts_have_the_reference_s_answers),    TEST(nothing_is_packed_and_there_is_no_burst),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
