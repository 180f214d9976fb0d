/* SPDX-License-Identifier: Apache-2.0 */
/* The gradients of attention: against central differences in float64, and by the rules for masks, groups and broadcasts. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "attention_bounds.h"

/* ---- central differences -------------------------------------------------------------------------------------- */

/* loss = sum dout * out + sum dlse * lse: its gradients are what the backward returns. Rows without a key have no lse. */
static double loss_of(const attn_attention_args *a, const attn_attention_grads *g) {
    double loss = 0;
    attend(a);
    for (int64_t n = 0; n < attn_count(&a->out); n++) loss += get(g->dout, n) * get(a->out, n);
    for (int64_t n = 0; g->dlse.rank && n < attn_count(&g->dlse); n++)
        if (get(a->see.lse, n) != -INFINITY) loss += get(g->dlse, n) * get(a->see.lse, n);
    return loss;
}

/* How far a difference may be from its slope. A weight of entmax bends without bound where it comes in: p = t^(1 / (alpha - 1)). */
static double slope_bound(const attn_attention_args *a) {
    return a->weighting == ATTN_WEIGHT_ENTMAX || a->weighting == ATTN_WEIGHT_ENTMAX15 ? 1e-6 : 2e-8;
}

static void assert_is_the_gradient(const char *what, attn_tensor gradient, attn_tensor input, const attn_attention_args *a,
                                   const attn_attention_grads *g) {
    if (!input.rank) return;
    const double h = 1e-5;
    for (int64_t n = 0; n < attn_count(&input); n++) {
        double x = get(input, n);
        if (x == -INFINITY) { /* masked, and stays so */
            assert_true(get(gradient, n) == 0);
            continue;
        }
        put(input, n, x + h);
        double above = loss_of(a, g);
        put(input, n, x - h);
        double below = loss_of(a, g);
        put(input, n, x);
        double slope = (above - below) / (2 * h), error = fabs(get(gradient, n) - slope);
        if (!(error <= slope_bound(a) * (1 + fabs(slope))))
            fail_msg("%s[%lld] is %.12g, the slope is %.12g", what, (long long)n, get(gradient, n), slope);
    }
}

static attn_attention_grads all_gradients(const attn_attention_args *a, uint64_t *seed) {
    int32_t dtype = a->q.dtype;
    attn_attention_grads g = { .dout = tensor_of(dtype, 4, a->out.shape),
                               .dq = tensor_of(dtype, 4, a->q.shape),
                               .dk = tensor_of(dtype, 4, a->k.shape),
                               .dv = tensor_of(dtype, 4, a->v.shape) };
    fill_normal(g.dout, seed);
    if (a->bias.rank) g.dbias = tensor_of(dtype, a->bias.rank, a->bias.shape);
    if (a->alibi.rank) g.dalibi = tensor_of(dtype, a->alibi.rank, a->alibi.shape);
    if (a->score_weight.rank) g.dscore_weight = tensor_of(dtype, a->score_weight.rank, a->score_weight.shape);
    if (a->sinks.rank) g.dsinks = tensor_of(dtype, 1, a->sinks.shape);
    if (a->weighting == ATTN_WEIGHT_ENTMAX) g.dalpha = tensor1(accumulator(dtype), 1);
    return g;
}

/* alpha is a number, not a tensor; below 1 there is none: from there on the slope is that to the right. */
static void assert_is_the_gradient_of_alpha(attn_tensor gradient, attn_attention_args *a, const attn_attention_grads *g) {
    const double h = 1e-5, alpha = a->alpha;
    a->alpha = alpha + h;
    double above = loss_of(a, g);
    a->alpha = alpha - h;
    double below = loss_of(a, g), slope = (above - below) / (2 * h);
    a->alpha = alpha;
    assert_close(get(gradient, 0), slope, slope_bound(a) * (1 + fabs(slope)));
}

static void assert_gradients_are_slopes(attn_attention_args *a) {
    uint64_t seed = 99;
    attn_attention_grads g = all_gradients(a, &seed);
    if (a->weighting == ATTN_WEIGHT_SOFTMAX) {
        a->see.lse = tensor3(a->q.dtype, a->q.shape[0], a->q.shape[1], a->q.shape[2]);
        g.dlse = tensor_of(a->q.dtype, 3, a->q.shape);
        fill_normal(g.dlse, &seed);
    }
    attn_tensor lse = a->see.lse;
    a->see = (attn_see){ 0 };
    attend_backward(a, &g);
    a->see.lse = lse;
    assert_is_the_gradient("dq", g.dq, a->q, a, &g);
    assert_is_the_gradient("dk", g.dk, a->k, a, &g);
    assert_is_the_gradient("dv", g.dv, a->v, a, &g);
    assert_is_the_gradient("dbias", g.dbias, a->bias, a, &g);
    assert_is_the_gradient("dalibi", g.dalibi, a->alibi, a, &g);
    assert_is_the_gradient("dscore_weight", g.dscore_weight, a->score_weight, a, &g);
    assert_is_the_gradient("dsinks", g.dsinks, a->sinks, a, &g);
    if (g.dalpha.rank) assert_is_the_gradient_of_alpha(g.dalpha, a, &g);
    free_blocks(NULL);
}

static const problem_shape small = { 2, 4, 2, 1, 4, 5, 3, 2 };

static attn_attention_args small_problem(int32_t weighting, uint64_t seed) {
    attn_attention_args a = problem(small, ATTN_F64, seed);
    a.weighting = weighting;
    if (weighting == ATTN_WEIGHT_ENTMAX) a.alpha = 1.7;
    if (weighting == ATTN_WEIGHT_NORMALIZED_SUM) { /* away from a sum of zero */
        for (int64_t n = 0; n < attn_count(&a.q); n++) put(a.q, n, 0.5 + fabs(get(a.q, n)));
        for (int64_t n = 0; n < attn_count(&a.k); n++) put(a.k, n, 0.5 + fabs(get(a.k, n)));
    }
    return a;
}

static const int32_t weightings[] = { ATTN_WEIGHT_SOFTMAX,   ATTN_WEIGHT_SIGMOID,  ATTN_WEIGHT_NORMALIZED_SUM,
                                      ATTN_WEIGHT_SPARSEMAX, ATTN_WEIGHT_ENTMAX15, ATTN_WEIGHT_ENTMAX,
                                      ATTN_WEIGHT_RELU2,     ATTN_WEIGHT_HARDMAX };
enum { WEIGHTINGS = sizeof weightings / sizeof *weightings };

static void gradients_of_every_weighting_are_slopes(void **state) {
    (void)state;
    for (int w = 0; w < WEIGHTINGS; w++) {
        attn_attention_args a = small_problem(weightings[w], 1);
        assert_gradients_are_slopes(&a);
    }
}

static void gradients_of_every_alpha_are_slopes(void **state) {
    (void)state;
    static const double alphas[] = { 1.02, 1.25, 1.5, 1.9, 2, 2.3 };
    for (int i = 0; i < 6; i++) {
        attn_attention_args a = small_problem(ATTN_WEIGHT_ENTMAX, 24);
        a.alpha = alphas[i];
        assert_gradients_are_slopes(&a);
    }
}

static void gradients_of_the_cosine_score_are_slopes(void **state) {
    (void)state;
    uint64_t seed = 23;
    for (int i = 0; i < 4; i++) {
        attn_attention_args a = small_problem(i == 3 ? ATTN_WEIGHT_RELU2 : ATTN_WEIGHT_SOFTMAX, 23);
        a.score = ATTN_COSINE;
        a.scale = i == 0 ? 0 : 4;
        if (i == 1) {
            a.causal = ATTN_CAUSAL;
            a.softcap = 2;
        }
        if (i == 2) {
            a.dropout = 0.2;
            fill_normal(a.bias = tensor2(ATTN_F64, 4, 5), &seed);
        }
        assert_gradients_are_slopes(&a);
    }
}

static void gradients_of_the_additive_score_are_slopes(void **state) {
    (void)state;
    uint64_t seed = 2;
    for (int per_head = 0; per_head < 2; per_head++) {
        attn_attention_args a = small_problem(ATTN_WEIGHT_SOFTMAX, 2);
        a.score = ATTN_ADDITIVE;
        a.scale = 0.8;
        a.score_weight = per_head ? tensor2(ATTN_F64, 4, 3) : tensor1(ATTN_F64, 3);
        fill_normal(a.score_weight, &seed);
        assert_gradients_are_slopes(&a);
    }
}

static void gradients_through_softcap_are_slopes(void **state) {
    (void)state;
    for (int w = 0; w < WEIGHTINGS; w++) {
        attn_attention_args a = small_problem(weightings[w], 3);
        a.softcap = 0.9;
        assert_gradients_are_slopes(&a);
    }
}

static void gradients_of_a_bias_come_back_in_its_broadcast_shape(void **state) {
    (void)state;
    static const int64_t shapes[][4] = { { 2, 4, 4, 5 }, { 1, 4, 4, 5 }, { 2, 1, 1, 5 }, { 1, 1, 4, 1 },
                                         { 1, 1, 4, 5 }, { 1, 4, 1, 1 }, { 1, 1, 1, 1 }, { 1, 1, 1, 5 } };
    uint64_t seed = 4;
    for (int i = 0; i < 8; i++) {
        attn_attention_args a = small_problem(i % 2 ? ATTN_WEIGHT_SOFTMAX : ATTN_WEIGHT_SIGMOID, 4);
        int32_t rank = i == 4 ? 2 : i == 7 ? 1 : 4;
        a.bias = tensor_of(ATTN_F64, rank, shapes[i] + (4 - rank));
        fill_normal(a.bias, &seed);
        assert_gradients_are_slopes(&a);
    }
}

static void gradients_of_alibi_slopes_are_slopes(void **state) {
    (void)state;
    for (int per_entry = 0; per_entry < 2; per_entry++) {
        attn_attention_args a = small_problem(ATTN_WEIGHT_SOFTMAX, 5);
        a.alibi = per_entry ? tensor2(ATTN_F64, 2, 4) : tensor1(ATTN_F64, 4);
        for (int64_t n = 0; n < attn_count(&a.alibi); n++) put(a.alibi, n, 0.3 / (double)(n + 1));
        a.causal = per_entry ? ATTN_CAUSAL : ATTN_NOT_CAUSAL;
        assert_gradients_are_slopes(&a);
    }
}

static void gradients_under_every_mask_are_slopes(void **state) {
    (void)state;
    uint64_t seed = 6;
    for (int n = 0; n < 6 * WEIGHTINGS; n++) {
        int i = n % 6;
        attn_attention_args a = small_problem(weightings[n / 6], 6);
        if (i == 0 || i == 1) a.causal = i == 0 ? ATTN_CAUSAL : ATTN_CAUSAL_TOP_LEFT;
        if (i == 2 || i == 5) {
            a.flags = ATTN_WINDOW;
            a.window[0] = 1;
        }
        if (i == 3) {
            a.mask = tensor4(ATTN_BOOL, 2, 1, 4, 5);
            fill_coin(a.mask, &seed, 0.5);
            for (int64_t j = 0; j < 5; j++) put(a.mask, j, 0); /* and a fully masked row */
        }
        if (i == 4 || i == 5) {
            a.q_lengths = values1(ATTN_I32, 2, (double[]){ 3, 0 });
            a.kv_lengths = values1(ATTN_I32, 2, (double[]){ 4, 5 });
        }
        if (i == 3 || i == 4) {
            a.bias = tensor2(ATTN_F64, 4, 5);
            fill_normal(a.bias, &seed);
            put(a.bias, 7, -INFINITY);
        }
        assert_gradients_are_slopes(&a);
    }
}

static void gradients_of_sinks_are_slopes(void **state) {
    (void)state;
    uint64_t seed = 21;
    for (int i = 0; i < 5; i++) {
        attn_attention_args a = small_problem(ATTN_WEIGHT_SOFTMAX, 21);
        a.sinks = tensor1(ATTN_F64, 4);
        fill_normal(a.sinks, &seed);
        put(a.sinks, 2, i == 4 ? 12 : -3); /* far above, below the scores */
        if (i == 1) a.causal = ATTN_CAUSAL_TOP_LEFT;
        if (i == 2) { /* rows without a key: their lse is the sink */
            a.q_lengths = values1(ATTN_I32, 2, (double[]){ 3, 0 });
            a.kv_lengths = values1(ATTN_I32, 2, (double[]){ 4, 5 });
        }
        if (i == 3) {
            a.mask = tensor4(ATTN_BOOL, 2, 1, 4, 5);
            fill_coin(a.mask, &seed, 0.5);
            for (int64_t j = 0; j < 5; j++) put(a.mask, j, 0);
        }
        assert_gradients_are_slopes(&a);
    }
}

static void gradients_under_dropout_are_slopes_of_the_same_mask(void **state) {
    (void)state;
    static const double rates[] = { 0.1, 0.5, 0.9, 1 };
    for (int w = 0; w < WEIGHTINGS; w++)
        for (int i = 0; i < 4; i++) {
            attn_attention_args a = small_problem(weightings[w], 22);
            a.dropout = rates[i];
            a.seed = 5;
            a.dropout_offset = (uint64_t)i;
            if (i == 1) a.causal = ATTN_CAUSAL;
            if (i == 2 && a.weighting == ATTN_WEIGHT_SOFTMAX) a.sinks = values1(ATTN_F64, 4, (double[]){ 0, 1, -1, 2 });
            assert_gradients_are_slopes(&a);
        }
}

static void gradients_of_everything_at_once_are_slopes(void **state) {
    (void)state;
    uint64_t seed = 7;
    attn_attention_args a = small_problem(ATTN_WEIGHT_SOFTMAX, 7);
    a.score = ATTN_ADDITIVE;
    a.score_weight = tensor1(ATTN_F64, 3);
    a.bias = tensor4(ATTN_F64, 1, 4, 1, 5);
    a.alibi = tensor1(ATTN_F64, 4);
    fill_normal(a.score_weight, &seed);
    fill_normal(a.bias, &seed);
    fill(a.alibi, 0.2);
    a.sinks = values1(ATTN_F64, 4, (double[]){ 0, -0.5, 1.5, 0.3 });
    a.dropout = 0.25;
    a.softcap = 1.5;
    a.causal = ATTN_CAUSAL;
    a.offset = values1(ATTN_I32, 2, (double[]){ 2, -1 });
    assert_gradients_are_slopes(&a);
}

/* ---- sums --------------------------------------------------------------------------------------------------------- */

static void gradients_of_a_group_sum_over_its_query_heads(void **state) {
    (void)state;
    uint64_t seed = 8;
    attn_attention_args a = problem((problem_shape){ 2, 6, 2, 3, 20, 33, 16, 8 }, ATTN_F64, 8), wide = a;
    attn_attention_grads g = all_gradients(&a, &seed), each = g;
    wide.k = tensor4(ATTN_F64, 2, 6, 33, 16);
    wide.v = tensor4(ATTN_F64, 2, 6, 33, 8);
    each.dq = tensor_of(ATTN_F64, 4, a.q.shape);
    each.dk = tensor_of(ATTN_F64, 4, wide.k.shape);
    each.dv = tensor_of(ATTN_F64, 4, wide.v.shape);
    for (int64_t n = 0; n < attn_count(&wide.k); n++)
        put(wide.k, n, get4(a.k, n / (6 * 33 * 16), n / (33 * 16) % 6 / 3, n / 16 % 33, n % 16));
    for (int64_t n = 0; n < attn_count(&wide.v); n++)
        put(wide.v, n, get4(a.v, n / (6 * 33 * 8), n / (33 * 8) % 6 / 2, n / 8 % 33, n % 8));
    attend_backward(&a, &g);
    attend_backward(&wide, &each);
    assert_same_bits("dq", each.dq, g.dq);
    for (int64_t n = 0; n < attn_count(&g.dk); n++) {
        double sum = 0;
        for (int64_t h = 0; h < 3; h++) sum += get4(each.dk, n / (2 * 33 * 16), n / (33 * 16) % 2 * 3 + h, n / 16 % 33, n % 16);
        assert_close(get(g.dk, n), sum, 1e-13);
    }
    for (int64_t n = 0; n < attn_count(&g.dv); n++) {
        double sum = 0;
        for (int64_t h = 0; h < 2; h++) sum += get4(each.dv, n / (3 * 33 * 8), n / (33 * 8) % 3 * 2 + h, n / 8 % 33, n % 8);
        assert_close(get(g.dv, n), sum, 1e-13);
    }
}

static void an_input_repeated_by_stride_0_gets_its_full_gradient(void **state) {
    (void)state;
    uint64_t seed = 9;
    attn_attention_args a = problem((problem_shape){ 2, 2, 2, 2, 5, 6, 4, 3 }, ATTN_F64, 9), copied;
    a.k.stride[0] = 0; /* both entries read the first one's keys */
    a.bias = tensor4(ATTN_F64, 1, 1, 5, 6);
    fill_normal(a.bias, &seed);
    a.bias.shape[0] = a.bias.shape[1] = 2;
    a.bias.stride[0] = a.bias.stride[1] = 0;
    copied = a;
    copied.k = dense_copy(a.k, ATTN_F64);
    copied.bias = dense_copy(a.bias, ATTN_F64);
    attn_attention_grads g = all_gradients(&a, &seed), h = g;
    h.dk = tensor_of(ATTN_F64, 4, a.k.shape);
    h.dbias = tensor_of(ATTN_F64, 4, a.bias.shape);
    attend_backward(&a, &g);
    attend_backward(&copied, &h);
    assert_same_bits("dk", g.dk, h.dk);
    assert_same_bits("dbias", g.dbias, h.dbias);
}

static void summed_gradients_may_be_asked_for_in_any_shape_that_broadcasts(void **state) {
    (void)state;
    uint64_t seed = 10;
    attn_attention_args a = problem((problem_shape){ 2, 3, 3, 3, 4, 5, 4, 3 }, ATTN_F64, 10);
    a.bias = tensor4(ATTN_F64, 2, 3, 4, 5);
    a.alibi = tensor1(ATTN_F64, 3);
    a.score = ATTN_ADDITIVE;
    a.score_weight = tensor1(ATTN_F64, 4);
    fill_normal(a.bias, &seed);
    fill_normal(a.score_weight, &seed);
    fill(a.alibi, 0.1);
    attn_attention_grads full = all_gradients(&a, &seed), sums = { .dout = full.dout };
    full.dalibi = tensor2(ATTN_F64, 2, 3);
    full.dscore_weight = tensor2(ATTN_F64, 3, 4);
    sums.dbias = tensor4(ATTN_F64, 1, 3, 1, 5);
    sums.dalibi = tensor1(ATTN_F64, 1);
    sums.dscore_weight = tensor2(ATTN_F64, 1, 4);
    attend_backward(&a, &full);
    attend_backward(&a, &sums);
    for (int64_t h = 0; h < 3; h++)
        for (int64_t j = 0; j < 5; j++) {
            double sum = 0;
            for (int64_t n = 0; n < 8; n++) sum += get4(full.dbias, n / 4, h, n % 4, j);
            assert_close(get(sums.dbias, h * 5 + j), sum, 1e-14);
        }
    double slopes = 0;
    for (int64_t n = 0; n < 6; n++) slopes += get(full.dalibi, n);
    assert_close(get(sums.dalibi, 0), slopes, 1e-13);
    for (int64_t d = 0; d < 4; d++)
        assert_close(get(sums.dscore_weight, d),
                     get(full.dscore_weight, d) + get(full.dscore_weight, 4 + d) + get(full.dscore_weight, 8 + d), 1e-14);
}

static void sums_over_no_rows_are_zero(void **state) {
    (void)state;
    attn_attention_args a = problem((problem_shape){ 2, 2, 2, 2, 0, 6, 4, 3 }, ATTN_F32, 11);
    a.bias = tensor1(ATTN_F32, 6);
    fill(a.bias, 1);
    attn_attention_grads g = { .dout = tensor4(ATTN_F32, 2, 2, 0, 3),
                               .dk = tensor_of(ATTN_F32, 4, a.k.shape),
                               .dv = tensor_of(ATTN_F32, 4, a.v.shape),
                               .dbias = tensor1(ATTN_F32, 6) };
    attend_backward(&a, &g);
    assert_all("dk", g.dk, 0);
    assert_all("dv", g.dv, 0);
    assert_all("dbias", g.dbias, 0);
    attn_attention_args no_keys = problem((problem_shape){ 2, 2, 2, 2, 3, 0, 4, 3 }, ATTN_F32, 11);
    attn_attention_grads n = { .dout = tensor4(ATTN_F32, 2, 2, 3, 3), .dq = tensor4(ATTN_F32, 2, 2, 3, 4) };
    fill(n.dout, 1);
    attend_backward(&no_keys, &n);
    assert_all("dq", n.dq, 0);
}

/* ---- masked keys, masked rows ---------------------------------------------------------------------------------------- */

static void gradients_of_fully_masked_rows_are_zero(void **state) {
    (void)state;
    static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_BF16 };
    for (int t = 0; t < 3; t++)
        for (int w = 0; w < WEIGHTINGS; w++) {
            uint64_t seed = 12;
            attn_attention_args a = problem((problem_shape){ 1, 2, 2, 2, 20, 30, 8, 8 }, dtypes[t], 12);
            a.weighting = weightings[w];
            a.score = w % 2 ? ATTN_COSINE : ATTN_DOT;
            a.kv_lengths = values1(ATTN_I32, 1, (double[]){ 0 });
            fill(a.k, NAN);
            fill(a.v, INFINITY);
            a.bias = tensor2(dtypes[t], 20, 30);
            a.alibi = tensor1(dtypes[t], 2);
            fill(a.bias, NAN);
            fill(a.alibi, 0.5);
            attn_attention_grads g = all_gradients(&a, &seed);
            if (a.weighting == ATTN_WEIGHT_SOFTMAX) fill(g.dlse = tensor3(accumulator(dtypes[t]), 1, 2, 20), 3);
            attend_backward(&a, &g);
            assert_all("dq", g.dq, 0);
            assert_all("dk", g.dk, 0);
            assert_all("dv", g.dv, 0);
            assert_all("dbias", g.dbias, 0);
            assert_all("dalibi", g.dalibi, 0);
            free_blocks(NULL);
        }
}

static void nan_and_inf_of_masked_keys_and_rows_do_not_leak_into_gradients(void **state) {
    (void)state;
    static const double poison[] = { NAN, INFINITY };
    static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_F16 };
    enum { L = 40, S = 50 };
    for (int n = 0; n < 12; n++) {
        uint64_t seed = 13;
        int32_t dtype = dtypes[n / 2 % 3];
        attn_attention_args a = problem((problem_shape){ 1, 2, 1, 2, L, S, 8, 8 }, dtype, 13), b;
        if (n >= 6) a.score = ATTN_COSINE;
        b = a;
        a.kv_lengths = b.kv_lengths = values1(ATTN_I32, 1, (double[]){ 37 });
        a.q_lengths = b.q_lengths = values1(ATTN_I32, 1, (double[]){ 21 });
        a.mask = b.mask = tensor1(ATTN_BOOL, S);
        fill(a.mask, 1);
        put(a.mask, 5, 0);
        attn_attention_grads g = all_gradients(&a, &seed), p = all_gradients(&a, &seed);
        p.dout = dense_copy(g.dout, dtype);
        b.q = dense_copy(a.q, dtype);
        b.k = dense_copy(a.k, dtype);
        b.v = dense_copy(a.v, dtype);
        for (int64_t x = 0; x < 2 * S * 8; x++) {
            int64_t j = x / 8 % S, i = x / 8 % L;
            if (j >= 37 || j == 5) {
                if (x < S * 8) put(b.k, x, poison[n % 2]);
                put(b.v, x, poison[n % 2]);
            }
            if (x < 2 * L * 8 && i >= 21) {
                put(b.q, x, poison[n % 2]);
                put(p.dout, x, poison[n % 2]);
            }
        }
        attend_backward(&a, &g);
        attend_backward(&b, &p);
        assert_same_bits("dq", p.dq, g.dq);
        assert_same_bits("dk", p.dk, g.dk);
        assert_same_bits("dv", p.dv, g.dv);
        for (int64_t x = 0; x < S * 8; x++)
            if (x / 8 >= 37 || x / 8 == 5) assert_true(get(p.dk, x) == 0 && get(p.dv, x) == 0);
        free_blocks(NULL);
    }
}

static void a_live_nan_shows_in_the_gradients_of_what_it_touches_only(void **state) {
    (void)state;
    uint64_t seed = 14;
    enum { L = 24, S = 40 };
    attn_attention_args a = problem((problem_shape){ 1, 2, 2, 2, L, S, 8, 8 }, ATTN_F32, 14), clean = a;
    attn_attention_grads g = all_gradients(&a, &seed), c = all_gradients(&a, &seed);
    a.q = dense_copy(a.q, ATTN_F32);
    a.causal = clean.causal = ATTN_CAUSAL_TOP_LEFT;
    put4(a.q, 0, 1, 3, 0, NAN); /* row 3 of head 1 sees keys 0 .. 3 */
    c.dout = g.dout;
    attend_backward(&a, &g);
    attend_backward(&clean, &c);
    for (int64_t h = 0; h < 2; h++)
        for (int64_t r = 0; r < S; r++) {
            if (r < L) assert_true(isnan(get4(g.dq, 0, h, r, 1)) == (h == 1 && r == 3));
            bool touched = h == 1 && r <= 3;
            assert_true(isnan(get4(g.dk, 0, h, r, 1)) == touched && isnan(get4(g.dv, 0, h, r, 1)) == touched);
            if (!touched) assert_true(get4(g.dk, 0, h, r, 1) == get4(c.dk, 0, h, r, 1));
        }
}

/* ---- what is given, what is asked for ---------------------------------------------------------------------------------- */

static void gradients_are_the_same_with_out_and_lse_given_or_recomputed(void **state) {
    (void)state;
    for (int32_t dtype = ATTN_F32; dtype <= ATTN_F64; dtype += ATTN_F64 - ATTN_F32) {
        uint64_t seed = 15;
        attn_attention_args a = problem((problem_shape){ 2, 2, 1, 2, 50, 70, 16, 24 }, dtype, 15);
        a.causal = ATTN_CAUSAL;
        a.see.lse = tensor3(dtype, 2, 2, 50);
        attn_attention_grads g = all_gradients(&a, &seed), h = all_gradients(&a, &seed);
        h.dout = g.dout;
        attend(&a);
        attend_backward(&a, &g);
        a.out = (attn_tensor){ 0 };
        a.see = (attn_see){ 0 };
        attend_backward(&a, &h);
        assert_rms_within("dq", h.dq, g.dq, gradient_rms_bound(dtype));
        assert_rms_within("dk", h.dk, g.dk, gradient_rms_bound(dtype));
        assert_rms_within("dv", h.dv, g.dv, gradient_rms_bound(dtype));
    }
}

static void the_backward_writes_only_what_is_asked_for(void **state) {
    (void)state;
    uint64_t seed = 16;
    attn_attention_args a = problem((problem_shape){ 1, 2, 2, 2, 20, 30, 8, 8 }, ATTN_F32, 16);
    a.see = see_all(&a, 2);
    attend(&a);
    fill(a.see.received, 42);
    attn_attention_grads all = all_gradients(&a, &seed);
    attend_backward(&a, &all);
    assert_all("received", a.see.received, 42);
    attn_tensor *one[] = { &all.dq, &all.dk, &all.dv };
    for (int i = 0; i < 3; i++) {
        attn_attention_grads g = { .dout = all.dout };
        attn_tensor mine = tensor_of(ATTN_F32, 4, one[i]->shape);
        *(i == 0 ? &g.dq : i == 1 ? &g.dk : &g.dv) = mine;
        attend_backward(&a, &g);
        assert_same_bits("gradient", mine, *one[i]);
    }
    attn_attention_grads none = { .dout = all.dout };
    attend_backward(&a, &none);
}

static void gradients_of_16_bit_inputs_come_in_their_dtype_or_f32(void **state) {
    (void)state;
    uint64_t seed = 17;
    attn_attention_args a = problem((problem_shape){ 1, 2, 1, 1, 9, 12, 8, 4 }, ATTN_BF16, 17);
    attn_attention_grads g = all_gradients(&a, &seed), wide = g, exact;
    wide.dq = tensor_of(ATTN_F32, 4, a.q.shape);
    wide.dk = tensor_of(ATTN_F32, 4, a.k.shape);
    wide.dv = tensor_of(ATTN_F32, 4, a.v.shape);
    attn_attention_args e = in_f64(a);
    exact = all_gradients(&e, &seed);
    exact.dout = dense_copy(g.dout, ATTN_F64);
    attend_backward(&a, &g);
    attend_backward(&a, &wide);
    attend_backward_by_reference(&e, &exact);
    assert_rms_within("dq", wide.dq, exact.dq, gradient_rms_bound_f32);
    assert_rms_within("dk", wide.dk, exact.dk, gradient_rms_bound_f32);
    assert_rms_within("dv", wide.dv, exact.dv, gradient_rms_bound_f32);
    for (int64_t n = 0; n < attn_count(&g.dk); n++)
        assert_close(get(g.dk, n), get(exact.dk, n), fabs(get(exact.dk, n)) * 0x1p-8 * 1.001);
}

/* ---- accuracy ------------------------------------------------------------------------------------------------------------ */

static void assert_gradients_are_exact(attn_attention_args a) {
    uint64_t seed = 18;
    attn_attention_grads g = all_gradients(&a, &seed);
    attn_attention_args e = in_f64(a);
    attn_attention_grads exact = all_gradients(&e, &seed);
    exact.dout = dense_copy(g.dout, ATTN_F64);
    attend_backward(&a, &g);
    attend_backward_by_reference(&e, &exact);
    double bound = gradient_rms_bound(a.q.dtype);
    assert_rms_within("dq", g.dq, exact.dq, bound);
    assert_rms_within("dk", g.dk, exact.dk, bound);
    assert_rms_within("dv", g.dv, exact.dv, bound);
    if (g.dbias.rank) assert_rms_within("dbias", g.dbias, exact.dbias, bound);
    if (g.dalibi.rank) assert_rms_within("dalibi", g.dalibi, exact.dalibi, bound);
    if (g.dscore_weight.rank) assert_rms_within("dscore_weight", g.dscore_weight, exact.dscore_weight, bound);
    if (g.dsinks.rank) assert_rms_within("dsinks", g.dsinks, exact.dsinks, bound);
    free_blocks(NULL);
}

static void gradients_on_normal_inputs_are_within_the_published_bound(void **state) {
    (void)state;
    static const problem_shape shapes[] = { { 1, 2, 1, 1, 96, 130, 64, 64 },
                                            { 2, 2, 2, 2, 33, 65, 17, 31 },
                                            { 1, 2, 1, 2, 50, 50, 128, 32 },
                                            { 1, 1, 1, 1, 1, 90, 16, 16 } };
    for (int i = 0; i < 4; i++)
        for (int option = 0; option < (shapes[i].dim < 20 ? 9 : 8); option++) {
            uint64_t seed = 19;
            attn_attention_args a = problem(shapes[i], option == 1 ? ATTN_F64 : ATTN_F32, 19 + (uint64_t)i);
            if (option == 2) a.causal = ATTN_CAUSAL;
            if (option == 3) {
                a.bias = tensor4(ATTN_F32, 1, shapes[i].h, shapes[i].q_len, shapes[i].kv_len);
                fill_normal(a.bias, &seed);
                a.softcap = 3;
            }
            if (option == 4) a.weighting = ATTN_WEIGHT_SIGMOID;
            if (option == 5) {
                a.sinks = tensor1(ATTN_F32, shapes[i].h);
                fill(a.sinks, 2);
            }
            if (option == 6) a.score = ATTN_COSINE;
            if (option == 7) a.weighting = ATTN_WEIGHT_RELU2;
            if (option == 8) { /* at small head sizes: the reference computes six tanh per score and size */
                a.score = ATTN_ADDITIVE;
                a.score_weight = tensor1(ATTN_F32, shapes[i].dim);
                fill_normal(a.score_weight, &seed);
            }
            assert_gradients_are_exact(a);
        }
}

static void gradients_at_every_head_size_are_within_the_published_bound(void **state) {
    (void)state;
    static const int64_t sizes[] = { 1, 2, 3, 5, 8, 15, 16, 17, 31, 33, 64, 65, 80, 127, 129, 257 };
    int n = sizeof sizes / sizeof *sizes;
    for (int i = 0; i < n; i++)
        assert_gradients_are_exact(problem((problem_shape){ 1, 2, 1, 2, 19, 23, sizes[i], sizes[n - 1 - i] }, ATTN_F32, 20));
}

/* Relative to 0.1 where gradients are smaller or none: those of one key, say, whose weight is 1 whatever its score. */
static void assert_near(const char *what, attn_tensor x, attn_tensor exact, int32_t dtype, double times) {
    double error = 0, size = 0;
    for (int64_t n = 0; x.rank && n < attn_count(&exact); n++) {
        double e = get(exact, n), d = get(x, n) - e;
        error += d * d;
        size += e * e + 0.01;
    }
    double bound = gradient_rms_bound(dtype) * times;
    if (!(sqrt(error) <= bound * sqrt(size))) fail_msg("%s: rms error %g of %g, bound %g", what, sqrt(error), sqrt(size), bound);
}

static void random_gradients_agree_with_the_reference(void **state) {
    (void)state;
    uint64_t seed = 31;
    for (int i = 0; i < 90; i++) {
        attn_attention_args a = random_problem(&seed, i % 3 == 2 ? ATTN_F64 : ATTN_F32);
        a.scale = 0;
        a.see = (attn_see){ .lse = a.see.lse };
        attn_attention_args e = in_f64(a);
        attn_attention_grads g = all_gradients(&a, &seed), exact = all_gradients(&e, &seed);
        exact.dout = dense_copy(g.dout, ATTN_F64);
        attend(&a);
        if (between(&seed, 0, 1)) a.out = (attn_tensor){ 0 };
        if (between(&seed, 0, 1)) a.see = (attn_see){ 0 };
        attend_backward(&a, &g);
        attend_backward_by_reference(&e, &exact);
        assert_near("dq", g.dq, exact.dq, a.q.dtype, 1);
        assert_near("dk", g.dk, exact.dk, a.q.dtype, 1);
        assert_near("dv", g.dv, exact.dv, a.q.dtype, 1);
        assert_near("dbias", g.dbias, exact.dbias, a.q.dtype, 1);
        assert_near("dalibi", g.dalibi, exact.dalibi, a.q.dtype, 10); /* distances multiply what cancels */
        assert_near("dscore_weight", g.dscore_weight, exact.dscore_weight, a.q.dtype, 1);
        assert_near("dsinks", g.dsinks, exact.dsinks, a.q.dtype, 1);
        assert_near("dalpha", g.dalpha, exact.dalpha, a.q.dtype, 10); /* logarithms of small weights do too */
        free_blocks(NULL);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(gradients_of_every_weighting_are_slopes, free_blocks),
        cmocka_unit_test_teardown(gradients_of_every_alpha_are_slopes, free_blocks),
        cmocka_unit_test_teardown(gradients_of_the_cosine_score_are_slopes, free_blocks),
        cmocka_unit_test_teardown(gradients_of_the_additive_score_are_slopes, free_blocks),
        cmocka_unit_test_teardown(gradients_through_softcap_are_slopes, free_blocks),
        cmocka_unit_test_teardown(gradients_of_a_bias_come_back_in_its_broadcast_shape, free_blocks),
        cmocka_unit_test_teardown(gradients_of_alibi_slopes_are_slopes, free_blocks),
        cmocka_unit_test_teardown(gradients_under_every_mask_are_slopes, free_blocks),
        cmocka_unit_test_teardown(gradients_of_sinks_are_slopes, free_blocks),
        cmocka_unit_test_teardown(gradients_under_dropout_are_slopes_of_the_same_mask, free_blocks),
        cmocka_unit_test_teardown(gradients_of_everything_at_once_are_slopes, free_blocks),
        cmocka_unit_test_teardown(gradients_of_a_group_sum_over_its_query_heads, free_blocks),
        cmocka_unit_test_teardown(an_input_repeated_by_stride_0_gets_its_full_gradient, free_blocks),
        cmocka_unit_test_teardown(summed_gradients_may_be_asked_for_in_any_shape_that_broadcasts, free_blocks),
        cmocka_unit_test_teardown(sums_over_no_rows_are_zero, free_blocks),
        cmocka_unit_test_teardown(gradients_of_fully_masked_rows_are_zero, free_blocks),
        cmocka_unit_test_teardown(nan_and_inf_of_masked_keys_and_rows_do_not_leak_into_gradients, free_blocks),
        cmocka_unit_test_teardown(a_live_nan_shows_in_the_gradients_of_what_it_touches_only, free_blocks),
        cmocka_unit_test_teardown(gradients_are_the_same_with_out_and_lse_given_or_recomputed, free_blocks),
        cmocka_unit_test_teardown(the_backward_writes_only_what_is_asked_for, free_blocks),
        cmocka_unit_test_teardown(gradients_of_16_bit_inputs_come_in_their_dtype_or_f32, free_blocks),
        cmocka_unit_test_teardown(gradients_on_normal_inputs_are_within_the_published_bound, free_blocks),
        cmocka_unit_test_teardown(gradients_at_every_head_size_are_within_the_published_bound, free_blocks),
        cmocka_unit_test_teardown(random_gradients_agree_with_the_reference, free_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
