/* SPDX-License-Identifier: Apache-2.0 */
/* A router's top-k softmax: choices and weights against an oracle that sorts, every order's gradient against central differences,
 * special rows, the same bits whatever the strides and threads, memory, refusals. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "src/ref/top_k.h"

#include "tests/failing_malloc.h"
#include "tests/softmax_bounds.h"
#include "tests/tensors.h"

typedef attn_top_k_softmax_args router_args;

static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_BF16, ATTN_F16 };

/* The ways to weigh: an order, and whether it is normalised. */
static const struct {
    int32_t order, normalize;
} ways[] = { { ATTN_SOFTMAX_TOP_K, 0 },
             { ATTN_SOFTMAX_TOP_K, 1 },
             { ATTN_TOP_K_SOFTMAX, 0 },
             { ATTN_SIGMOID_TOP_K, 0 },
             { ATTN_SIGMOID_TOP_K, 1 } };
enum { WAYS = sizeof ways / sizeof *ways };

static router_args router(int way, attn_tensor logits, int64_t k) {
    router_args a = { .order = ways[way].order, .normalize = ways[way].normalize, .logits = logits };
    int64_t shape[ATTN_MAX_RANK];
    for (int32_t i = 0; i < logits.rank; i++) shape[i] = logits.shape[i];
    shape[logits.rank - 1] = k;
    a.index = tensor_of(ATTN_I64, logits.rank, shape);
    a.weight = tensor_of(logits.dtype, logits.rank, shape);
    return a;
}

/* ---- the oracle: sort everything, weigh in long double --------------------------------------------------------- */

typedef struct choice {
    double score;
    int64_t index;
} choice;

static int first_choice_first(const void *a, const void *b) {
    const choice *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

static long double sigmoid(double x) { return 1 / (1 + expl(-(long double)x)); }

/* Of finite or masked logits. Returns how many are live. */
static int64_t oracle(const router_args *a, int64_t row, choice *sorted, long double *weight) {
    const int64_t n = a->logits.shape[a->logits.rank - 1], k = a->index.shape[a->index.rank - 1];
    const bool gated = a->order == ATTN_SIGMOID_TOP_K;
    int64_t live = 0;
    long double max = -INFINITY, all = 0, chosen = 0, scale = a->scale != 0 || a->flags ? a->scale : 1;
    for (int64_t i = 0; i < n; i++) {
        double x = get(a->logits, row * n + i), bias = a->bias.rank ? get(a->bias, i) : 0;
        if (x == -INFINITY || bias == -INFINITY) continue;
        sorted[live++] =
            (choice){ gated ? ref_router_choice(&(ref_router){ .order = a->order, .x = { &x, 1, ATTN_F64 } }, 0) + bias : x, i };
        max = fmaxl(max, x);
    }
    qsort(sorted, (size_t)live, sizeof *sorted, first_choice_first);
    for (int64_t i = 0; i < n && live; i++) all += expl(get(a->logits, row * n + i) - max);
    for (int64_t r = 0; r < k && r < live; r++) {
        double x = get(a->logits, row * n + sorted[r].index);
        weight[r] = gated ? sigmoid(x) : expl(x - max);
        chosen += weight[r];
    }
    for (int64_t r = 0; r < k; r++) {
        if (r >= live)
            weight[r] = 0;
        else if (a->normalize || a->order == ATTN_TOP_K_SOFTMAX)
            weight[r] *= scale / chosen;
        else
            weight[r] *= scale / (gated ? 1 : all);
    }
    return live;
}

/* Half a unit of the result's type, and of F32 logits the softmax's published bound where it is over all experts. */
static double bound_of(const router_args *a, long double w, double distance) {
    static const double half[] = { [ATTN_F32] = 0x1p-24, [ATTN_BF16] = 0x1p-8, [ATTN_F16] = 0x1p-11, [ATTN_F64] = 0x1p-53 };
    static const double least[] = { [ATTN_F32] = 0x1p-149, [ATTN_BF16] = 0x1p-133, [ATTN_F16] = 0x1p-24, [ATTN_F64] = 0x1p-1022 };
    double u = half[a->weight.dtype];
    if (a->order == ATTN_SOFTMAX_TOP_K && !a->normalize && a->logits.dtype == ATTN_F32) u += 0x1p-24 * SOFTMAX_C;
    return (double)fabsl(w) * (u + 0x1p-53 * (16 + 2 * distance)) + least[a->weight.dtype];
}

static void check_rows(const router_args *a) {
    const int64_t n = a->logits.shape[a->logits.rank - 1], k = a->index.shape[a->index.rank - 1];
    choice *sorted = malloc((size_t)(n + 1) * sizeof *sorted);
    long double *weight = malloc((size_t)(k + 1) * sizeof *weight);
    for (int64_t row = 0; row < attn_row_count(&a->logits); row++) {
        int64_t live = oracle(a, row, sorted, weight);
        for (int64_t r = 0; r < k; r++) {
            double index = get(a->index, row * k + r), w = get(a->weight, row * k + r);
            if (index != (r < live ? (double)sorted[r].index : -1))
                fail_msg("order %d, n %lld, rank %lld: %g instead of %lld", a->order, (long long)n, (long long)r, index,
                         (long long)(r < live ? sorted[r].index : -1));
            if (!(fabs(w - (double)weight[r]) <= bound_of(a, weight[r], 64)))
                fail_msg("order %d, n %lld, rank %lld: %.17g instead of %.17g", a->order, (long long)n, (long long)r, w,
                         (double)weight[r]);
        }
    }
    free(sorted);
    free(weight);
}

/* Multiples of 1/16, so that there are ties; some masked. */
static void fill_logits(attn_tensor x, double masked, uint64_t *seed) {
    for (int64_t i = 0; i < attn_count(&x); i++)
        put(x, i, uniform(seed) < masked ? -INFINITY : (double)between(seed, -100, 100) / 16);
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

static void choices_and_weights_are_those_of_the_sorted_row(void **state) {
    (void)state;
    static const int64_t n_of[] = { 1, 2, 7, 8, 16, 33, 64, 128, 255, 256, 257, 700, 2200 };
    uint64_t seed = 1;
    for (size_t d = 0; d < 4; d++)
        for (int way = 0; way < WAYS; way++)
            for (size_t l = 0; l < sizeof n_of / sizeof *n_of; l++) {
                const int64_t n = n_of[l], ks[] = { 1, 2, 8, n / 2 + 1, n, n + 3 };
                for (int i = 0; i < 6; i++) {
                    router_args a = router(way, tensor2(dtypes[d], 3, n), ks[i]);
                    fill_logits(a.logits, i % 2 ? 0.2 : 0, &seed);
                    if (i == 3) a.scale = 2.5;
                    assert_ok(attn_top_k_softmax(&a, NULL));
                    check_rows(&a);
                    free_blocks(NULL);
                }
            }
}

static void the_reference_answers_the_same(void **state) {
    (void)state;
    uint64_t seed = 2;
    for (int way = 0; way < WAYS; way++)
        for (int64_t n = 1; n < 300; n += 1 + n / 2) {
            const int64_t k = n / 3 + 2;
            router_args a = router(way, tensor2(ATTN_F64, 1, n), k), b = router(way, a.logits, k);
            fill_logits(a.logits, 0.1, &seed);
            ref_router r = {
                .n = n, .k = k, .order = a.order, .normalize = a.normalize, .scale = 1, .x = { a.logits.data, 1, ATTN_F64 }
            };
            assert_ok(attn_top_k_softmax(&a, NULL));
            ref_top_k_softmax(&r, (ref_vector){ b.index.data, 1, ATTN_I64 }, (ref_vector){ b.weight.data, 1, ATTN_F64 });
            assert_same(a.index, b.index);
            for (int64_t i = 0; i < k; i++) assert_true(fabs(get(a.weight, i) - get(b.weight, i)) <= 1e-15 * get(b.weight, i));
            free_blocks(NULL);
        }
}

/* Rows that rise, fall or are all equal: every element, one, none after the first k replaces another. */
static void rows_in_order_and_equal_rows_are_rows(void **state) {
    (void)state;
    for (size_t d = 0; d < 2; d++)
        for (int way = 0; way < WAYS; way++)
            for (int kind = 0; kind < 3; kind++) {
                router_args a = router(way, tensor2(dtypes[d], 1, 1500), 300);
                for (int64_t i = 0; i < 1500; i++) put(a.logits, i, kind == 0 ? 0.25 : (kind == 1 ? 1 : -1) * (double)i / 128);
                assert_ok(attn_top_k_softmax(&a, NULL));
                check_rows(&a);
            }
}

static void worked_cases(void **state) {
    (void)state;
    attn_tensor x = values1(ATTN_F64, 4, (double[]){ 0, log(4), log(2), log(4) });
    for (int way = 0; way < WAYS; way++) {
        router_args a = router(way, x, 3);
        assert_ok(attn_top_k_softmax(&a, NULL));
        assert_true(get(a.index, 0) == 1 && get(a.index, 1) == 3 && get(a.index, 2) == 2);
        static const double expected[WAYS][3] = { { 4 / 11.0, 4 / 11.0, 2 / 11.0 },
                                                  { 0.4, 0.4, 0.2 },
                                                  { 0.4, 0.4, 0.2 },
                                                  { 0.8, 0.8, 2 / 3.0 },
                                                  { 0.8 / (34 / 15.0), 0.8 / (34 / 15.0), 10 / 34.0 } };
        for (int64_t r = 0; r < 3; r++) assert_true(fabs(get(a.weight, r) - expected[way][r]) <= 1e-15);
    }
}

/* The router of DeepSeek-V3: the bias chooses, the weights know nothing of it. */
static void a_bias_chooses_and_weighs_nothing(void **state) {
    (void)state;
    uint64_t seed = 3;
    for (size_t d = 0; d < 4; d++)
        for (int way = 3; way < WAYS; way++)
            for (int64_t n = 4; n < 600; n = 3 * n + 1)
                for (int32_t of = 0; of < 2; of++) {
                    router_args a = router(way, tensor2(dtypes[d], 4, n), 3);
                    a.bias = tensor1(of ? ATTN_F32 : dtypes[d], n);
                    a.scale = 2.5;
                    fill_logits(a.logits, 0.1, &seed);
                    fill_logits(a.bias, 0.1, &seed);
                    assert_ok(attn_top_k_softmax(&a, NULL));
                    check_rows(&a);
                    free_blocks(NULL);
                }
    router_args a = router(3, values1(ATTN_F32, 3, (double[]){ 5, 0, -5 }), 1);
    a.bias = values1(ATTN_F32, 3, (double[]){ 0, 0, 1 });
    assert_ok(attn_top_k_softmax(&a, NULL));
    assert_true(get(a.index, 0) == 2 &&
                get(a.weight, 0) == (double)(float)ref_router_choice(
                                        &(ref_router){ .order = ATTN_SIGMOID_TOP_K, .x = { &(double){ -5 }, 1, ATTN_F64 } }, 0));
}

static void normalised_softmax_is_the_softmax_of_the_top_k(void **state) {
    (void)state;
    uint64_t seed = 4;
    for (size_t d = 0; d < 4; d++) {
        router_args a = router(1, tensor2(dtypes[d], 20, 90), 6), b = router(2, a.logits, 6);
        fill_normal(a.logits, 3, &seed);
        assert_ok(attn_top_k_softmax(&a, NULL));
        assert_ok(attn_top_k_softmax(&b, NULL));
        assert_same(a.index, b.index);
        assert_same(a.weight, b.weight);
    }
}

static void a_scale_of_zero_needs_its_flag(void **state) {
    (void)state;
    for (int way = 0; way < WAYS; way++) {
        router_args a = router(way, values1(ATTN_F32, 3, (double[]){ 1, 2, 3 }), 2);
        assert_ok(attn_top_k_softmax(&a, NULL));
        assert_true(get(a.weight, 0) > 0);
        a.flags = ATTN_SCALE_SET;
        assert_ok(attn_top_k_softmax(&a, NULL));
        assert_true(get(a.weight, 0) == 0 && get(a.weight, 1) == 0 && get(a.index, 0) == 2);
    }
}

/* ---- special rows -------------------------------------------------------------------------------------------------- */

static void masked_experts_are_never_chosen(void **state) {
    (void)state;
    for (size_t d = 0; d < 4; d++)
        for (int way = 0; way < WAYS; way++) {
            router_args a = router(way, values1(dtypes[d], 5, (double[]){ -INFINITY, 1, -INFINITY, 1, -INFINITY }), 4);
            assert_ok(attn_top_k_softmax(&a, NULL));
            assert_true(get(a.index, 0) == 1 && get(a.index, 1) == 3 && get(a.index, 2) == -1 && get(a.index, 3) == -1);
            assert_true(get(a.weight, 0) > 0 && get(a.weight, 0) == get(a.weight, 1));
            assert_true(get(a.weight, 2) == 0 && get(a.weight, 3) == 0);
            for (int64_t i = 0; i < 5; i++) put(a.logits, i, -INFINITY);
            assert_ok(attn_top_k_softmax(&a, NULL));
            for (int64_t r = 0; r < 4; r++) assert_true(get(a.index, r) == -1 && get(a.weight, r) == 0);
        }
    router_args a = router(3, values1(ATTN_F32, 3, (double[]){ 3, NAN, -INFINITY }), 3);
    a.bias = values1(ATTN_F32, 3, (double[]){ 0, -INFINITY, NAN }); /* masked, whatever the other one holds */
    assert_ok(attn_top_k_softmax(&a, NULL));
    assert_true(get(a.index, 0) == 0 && get(a.index, 1) == -1 && get(a.index, 2) == -1);
    assert_true(get(a.weight, 0) > 0.95 && get(a.weight, 1) == 0 && get(a.weight, 2) == 0);
}

static void a_live_nan_comes_first_and_shows_in_its_row_alone(void **state) {
    (void)state;
    for (size_t d = 0; d < 4; d++)
        for (int way = 0; way < WAYS; way++) {
            router_args a = router(way, tensor2(dtypes[d], 2, 300), 3);
            for (int64_t i = 0; i < 600; i++) put(a.logits, i, (double)(i % 7));
            put(a.logits, 299, NAN);
            assert_ok(attn_top_k_softmax(&a, NULL));
            assert_true(get(a.index, 0) == 299 && isnan(get(a.weight, 0)));
            for (int64_t r = 1; r < 3; r++) assert_true(isnan(get(a.weight, r)) == (way != 3));
            for (int64_t r = 3; r < 6; r++) assert_true(get(a.weight, r) > 0);
        }
    router_args a = router(4, values1(ATTN_F64, 3, (double[]){ 3, 2, 1 }), 2);
    a.bias = values1(ATTN_F64, 3, (double[]){ 0, 0, NAN });
    assert_ok(attn_top_k_softmax(&a, NULL));
    assert_true(get(a.index, 0) == 2 && get(a.index, 1) == 0 && isnan(get(a.weight, 0)) && isnan(get(a.weight, 1)));
}

static void plus_infinity_has_no_softmax_and_a_sigmoid_of_1(void **state) {
    (void)state;
    for (int way = 0; way < WAYS; way++) {
        router_args a = router(way, values1(ATTN_F32, 3, (double[]){ 3, INFINITY, -INFINITY }), 3);
        assert_ok(attn_top_k_softmax(&a, NULL));
        assert_true(get(a.index, 0) == 1 && get(a.index, 1) == 0 && get(a.index, 2) == -1 && get(a.weight, 2) == 0);
        if (way < 3) assert_true(isnan(get(a.weight, 0)) && isnan(get(a.weight, 1)));
        if (way == 3) assert_true(get(a.weight, 0) == 1);
    }
}

static void sigmoids_that_are_all_0_weigh_nothing(void **state) {
    (void)state;
    router_args a = router(4, values1(ATTN_F64, 2, (double[]){ -800, -900 }), 2);
    attn_top_k_softmax_grads g = { .dweight = values1(ATTN_F64, 2, (double[]){ 1, 2 }), .dlogits = tensor1(ATTN_F64, 2) };
    assert_ok(attn_top_k_softmax(&a, NULL));
    assert_ok(attn_top_k_softmax_backward(&a, &g, NULL));
    assert_true(get(a.index, 0) == 0 && get(a.weight, 0) == 0 && get(a.weight, 1) == 0);
    assert_true(get(g.dlogits, 0) == 0 && get(g.dlogits, 1) == 0);
}

static void empty_extents_are_extents(void **state) {
    (void)state;
    for (int way = 0; way < WAYS; way++) {
        router_args a = router(way, tensor2(ATTN_F32, 3, 0), 2);
        attn_top_k_softmax_grads g = { .dweight = tensor2(ATTN_F32, 3, 2), .dlogits = a.logits };
        assert_ok(attn_top_k_softmax(&a, NULL));
        for (int64_t i = 0; i < 6; i++) assert_true(get(a.index, i) == -1 && get(a.weight, i) == 0);
        assert_ok(attn_top_k_softmax_backward(&a, &g, NULL));
        a = router(way, tensor2(ATTN_F32, 0, 5), 2);
        assert_ok(attn_top_k_softmax(&a, NULL));
        a = router(way, tensor2(ATTN_F32, 3, 5), 0); /* nothing is chosen: no gradient */
        fill(a.logits, 1);
        g = (attn_top_k_softmax_grads){ .dweight = tensor2(ATTN_F32, 3, 0), .dlogits = tensor2(ATTN_F32, 3, 5) };
        assert_ok(attn_top_k_softmax(&a, NULL));
        assert_ok(attn_top_k_softmax_backward(&a, &g, NULL));
        for (int64_t i = 0; i < 15; i++) assert_true(get(g.dlogits, i) == 0);
    }
}

/* ---- the gradient ---------------------------------------------------------------------------------------------------- */

static double loss_of(router_args *a, attn_tensor dweight) {
    double sum = 0;
    assert_ok(attn_top_k_softmax(a, NULL));
    for (int64_t i = 0; i < attn_count(&dweight); i++) sum += get(a->weight, i) * get(dweight, i);
    return sum;
}

static void gradients_are_those_of_central_differences(void **state) {
    (void)state;
    uint64_t seed = 5;
    for (int way = 0; way < WAYS; way++)
        for (int64_t n = 2; n < 600; n = 4 * n + 1) {
            const int64_t k = n < 5 ? 1 : 5;
            const double h = 1e-5;
            router_args a = router(way, tensor2(ATTN_F64, 2, n), k);
            a.scale = 1.7;
            if (ways[way].order == ATTN_SIGMOID_TOP_K) {
                a.bias = tensor1(ATTN_F64, n);
                fill_normal(a.bias, 0.3, &seed);
            }
            attn_top_k_softmax_grads g = { .dweight = tensor2(ATTN_F64, 2, k), .dlogits = tensor2(ATTN_F64, 2, n) };
            fill_normal(a.logits, 1.5, &seed);
            fill_normal(g.dweight, 1, &seed);
            assert_ok(attn_top_k_softmax(&a, NULL));
            assert_ok(attn_top_k_softmax_backward(&a, &g, NULL));
            for (int64_t i = 0; i < 2 * n; i++) {
                double x = get(a.logits, i);
                put(a.logits, i, x + h);
                double above = loss_of(&a, g.dweight);
                put(a.logits, i, x - h);
                double slope = (above - loss_of(&a, g.dweight)) / (2 * h);
                put(a.logits, i, x);
                if (!(fabs(slope - get(g.dlogits, i)) <= 1e-8))
                    fail_msg("way %d, n %lld, logit %lld: %.12g, differences give %.12g", way, (long long)n, (long long)i,
                             get(g.dlogits, i), slope);
            }
            free_blocks(NULL);
        }
}

static void kernels_and_reference_agree_on_gradients(void **state) {
    (void)state;
    uint64_t seed = 6;
    for (size_t d = 0; d < 4; d++)
        for (int way = 0; way < WAYS; way++)
            for (int64_t n = 3; n < 900; n = 3 * n + 2) {
                const int64_t k = 3;
                router_args a = router(way, tensor2(dtypes[d], 1, n), k);
                attn_top_k_softmax_grads g = { .dweight = tensor2(ATTN_F32, 1, k), .dlogits = tensor2(ATTN_F32, 1, n) };
                attn_tensor exact = tensor2(ATTN_F64, 1, n);
                fill_logits(a.logits, 0.2, &seed);
                fill_normal(g.dweight, 1, &seed);
                assert_ok(attn_top_k_softmax(&a, NULL));
                assert_ok(attn_top_k_softmax_backward(&a, &g, NULL));
                ref_router r = { .n = n, .k = k, .order = a.order, .normalize = a.normalize, .scale = 1 };
                r.x = (ref_vector){ a.logits.data, 1, a.logits.dtype };
                ref_top_k_softmax_backward(&r, (ref_vector){ a.index.data, 1, ATTN_I64 },
                                           (ref_vector){ g.dweight.data, 1, ATTN_F32 }, (ref_vector){ exact.data, 1, ATTN_F64 });
                for (int64_t i = 0; i < n; i++)
                    assert_true(fabs(get(g.dlogits, i) - get(exact, i)) <= 16 * 0x1p-24 * (fabs(get(exact, i)) + 1e-3));
                free_blocks(NULL);
            }
}

static void what_is_not_chosen_or_masked_gets_no_gradient(void **state) {
    (void)state;
    for (int way = 0; way < WAYS; way++) {
        router_args a = router(way, values1(ATTN_F32, 4, (double[]){ 2, -INFINITY, 1, -INFINITY }), 3);
        attn_top_k_softmax_grads g = { .dweight = values1(ATTN_F32, 3, (double[]){ 1, 2, NAN }),
                                       .dlogits = tensor1(ATTN_F32, 4) };
        assert_ok(attn_top_k_softmax(&a, NULL));
        assert_true(get(a.index, 2) == -1); /* its dweight counts nothing */
        assert_ok(attn_top_k_softmax_backward(&a, &g, NULL));
        assert_true(isfinite(get(g.dlogits, 0)) && isfinite(get(g.dlogits, 2)));
        assert_true(get(g.dlogits, 1) == 0 && get(g.dlogits, 3) == 0);
        for (int64_t i = 0; i < 4; i++) put(a.logits, i, -INFINITY);
        assert_ok(attn_top_k_softmax(&a, NULL));
        assert_ok(attn_top_k_softmax_backward(&a, &g, NULL));
        for (int64_t i = 0; i < 4; i++) assert_true(get(g.dlogits, i) == 0);
    }
}

static void a_live_nan_shows_in_the_gradients_of_its_row_alone(void **state) {
    (void)state;
    for (int way = 0; way < WAYS; way++)
        for (int special = 0; special < 2; special++) {
            router_args a = router(way, tensor2(ATTN_F32, 2, 5), 2);
            for (int64_t i = 0; i < 10; i++) put(a.logits, i, (double)i);
            put(a.logits, 1, special ? NAN : INFINITY);
            put(a.logits, 2, -INFINITY);
            attn_top_k_softmax_grads g = { .dweight = tensor2(ATTN_F32, 2, 2), .dlogits = tensor2(ATTN_F32, 2, 5) };
            for (int64_t i = 0; i < 4; i++) put(g.dweight, i, (double)i + 1);
            assert_ok(attn_top_k_softmax(&a, NULL));
            assert_ok(attn_top_k_softmax_backward(&a, &g, NULL));
            assert_true(isnan(get(g.dlogits, 1)) == (special || way < 3));
            assert_true(get(g.dlogits, 2) == 0);
            assert_true(isnan(get(g.dlogits, 3)) == (way == 0)); /* live, not chosen */
            for (int64_t i = 5; i < 10; i++) assert_true(isfinite(get(g.dlogits, i)));
        }
}

/* ---- the same bits ----------------------------------------------------------------------------------------------------- */

static void strides_threads_and_index_types_do_not_change_a_bit(void **state) {
    (void)state;
    static const int order[] = { 2, 0, 1 };
    static const int32_t threads[] = { 1, 2, 3, 7 };
    uint64_t seed = 7;
    for (size_t d = 0; d < 4; d++)
        for (int way = 0; way < WAYS; way++)
            for (int64_t n = 6; n < 900; n = 12 * n + 1) {
                const int64_t k = n < 10 ? 3 : 9, wide[] = { 5, 70, n }, narrow[] = { 5, 70, k };
                router_args a = router(way, tensor_of(dtypes[d], 3, wide), k), s = a;
                attn_top_k_softmax_grads g = { .dweight = tensor_of(dtypes[d], 3, narrow),
                                               .dlogits = tensor_of(dtypes[d], 3, wide) },
                                         t = g;
                fill_logits(a.logits, 0.1, &seed);
                fill_normal(g.dweight, 1, &seed);
                if (way >= 3) {
                    a.bias = s.bias = tensor1(dtypes[d], n);
                    fill_logits(a.bias, 0, &seed);
                    int64_t back = n; /* the same from its end */
                    s.bias = tensor1(dtypes[d], n);
                    for (int64_t i = 0; i < n; i++) put(s.bias, i, get(a.bias, n - 1 - i));
                    s.bias.data = (char *)s.bias.data + (back - 1) * (int64_t)attn_dtype_size(dtypes[d]);
                    s.bias.stride[0] = -1;
                }
                assert_ok(attn_top_k_softmax(&a, NULL));
                assert_ok(attn_top_k_softmax_backward(&a, &g, NULL));
                s.logits = tensor_in_order(dtypes[d], 3, wide, order, 1);
                s.index = tensor_in_order(ATTN_I32, 3, narrow, order, 2);
                s.weight = tensor_in_order(dtypes[d], 3, narrow, order, 3);
                t.dweight = tensor_in_order(dtypes[d], 3, narrow, order, 1);
                t.dlogits = tensor_in_order(dtypes[d], 3, wide, order, 1);
                copy_values(a.logits, s.logits);
                copy_values(g.dweight, t.dweight);
                for (int i = 0; i < 4; i++) {
                    attn_exec pool = { 0 };
                    assert_ok(attn_pool_open(&pool, threads[i]));
                    fill(s.index, 77);
                    fill(s.weight, 77);
                    fill(t.dlogits, 77);
                    assert_ok(attn_top_k_softmax(&s, &pool));
                    assert_ok(attn_top_k_softmax_backward(&s, &t, &pool));
                    attn_pool_close(&pool);
                    assert_same(s.index, a.index);
                    assert_same(s.weight, a.weight);
                    assert_same(t.dlogits, g.dlogits);
                }
                free_blocks(NULL);
            }
}

/* ---- memory -------------------------------------------------------------------------------------------------------------- */

static void up_to_256_chosen_nothing_is_allocated_and_beyond_as_much_as_is_said(void **state) {
    (void)state;
    uint64_t seed = 8;
    for (int way = 0; way < WAYS; way++) {
        router_args a = router(way, tensor2(ATTN_F32, 4, 900), 256), b = router(way, a.logits, 257);
        fill_logits(a.logits, 0, &seed);
        attn_top_k_softmax_grads g = { .dweight = b.weight, .dlogits = tensor2(ATTN_F32, 4, 900) };
        assert_true(attn_top_k_softmax_workspace(&a, 3) == 0);
        memory.allowed = 0, memory.for_ever = true;
        attn_status few = attn_top_k_softmax(&a, NULL), many = attn_top_k_softmax(&b, NULL);
        memory.allowed = -1;
        assert_int_equal(few, ATTN_OK);
        assert_int_equal(many, ATTN_NO_MEMORY);
        assert_untouched(b.weight);

        router_args question = b;
        question.logits.data = question.index.data = question.weight.data = NULL;
        size_t bytes = attn_top_k_softmax_workspace(&question, 1);
        assert_true(bytes >= 257 * 16);
        attn_exec exec = { .workspace = (char *)poisoned(bytes + 1), .workspace_size = bytes - 1 };
        assert_refused(attn_top_k_softmax(&b, &exec), ATTN_SMALL_WORKSPACE, "workspace");
        assert_untouched(b.weight);
        exec.workspace_size = bytes;
        long live = memory.live;
        memory.allowed = 0;
        attn_status lent = attn_top_k_softmax(&b, &exec), back = attn_top_k_softmax_backward(&b, &g, &exec);
        memory.allowed = -1, memory.for_ever = false;
        assert_int_equal(lent, ATTN_OK);
        assert_int_equal(back, ATTN_OK);
        assert_true(memory.live == live);
        check_rows(&b);
    }
}

/* ---- refusals ------------------------------------------------------------------------------------------------------------ */

static void bad_arguments_are_refused_before_anything_is_written(void **state) {
    (void)state;
    router_args good = router(3, tensor2(ATTN_F32, 2, 6), 2), a;
    attn_top_k_softmax_grads g = { .dweight = tensor2(ATTN_F32, 2, 2), .dlogits = tensor2(ATTN_F32, 2, 6) }, h;
    fill(good.logits, 1);
    good.bias = tensor1(ATTN_F32, 6);
    fill(good.bias, 0);
    assert_refused(attn_top_k_softmax(NULL, NULL), ATTN_BAD_ARGUMENT, "no arguments");
#define REFUSED(change, status, words)                                                                                           \
    do {                                                                                                                         \
        a = good;                                                                                                                \
        change;                                                                                                                  \
        assert_refused(attn_top_k_softmax(&a, NULL), status, words);                                                             \
    } while (0)
    REFUSED(a.order = 3, ATTN_BAD_ARGUMENT, "order is 3");
    REFUSED(a.order = -1, ATTN_BAD_ARGUMENT, "order is -1");
    REFUSED(a.flags = 2, ATTN_BAD_ARGUMENT, "flags 0x2");
    REFUSED((a.order = ATTN_TOP_K_SOFTMAX, a.bias = (attn_tensor){ 0 }, a.normalize = 1), ATTN_BAD_ARGUMENT, "normalize is 1");
    REFUSED(a.scale = NAN, ATTN_BAD_ARGUMENT, "scale is nan");
    REFUSED(a.order = ATTN_SOFTMAX_TOP_K, ATTN_BAD_ARGUMENT, "bias is there");
    REFUSED(a.bias.shape[0] = 5, ATTN_BAD_SHAPE, "bias has shape [5], [experts] asks for [6]");
    REFUSED(a.bias.dtype = ATTN_F16, ATTN_UNSUPPORTED, "bias is f16");
    REFUSED(a.logits.dtype = ATTN_I32, ATTN_UNSUPPORTED, "logits is i32");
    REFUSED(a.logits.rank = 0, ATTN_BAD_SHAPE, "logits has rank 0");
    REFUSED(a.logits.data = NULL, ATTN_BAD_ARGUMENT, "logits has no data");
    REFUSED(a.index = (attn_tensor){ 0 }, ATTN_BAD_ARGUMENT, "index is missing");
    REFUSED(a.index.dtype = ATTN_F64, ATTN_BAD_ARGUMENT, "index is f64: it is i32 or i64");
    REFUSED(a.index.shape[0] = 3, ATTN_BAD_SHAPE, "index has shape [3, 2], [..., k] beside the logits asks for [2, 2]");
    REFUSED(a.index.rank = 1, ATTN_BAD_SHAPE, "index has shape [2]");
    REFUSED(a.index.stride[0] = 0, ATTN_BAD_ARGUMENT, "index is an output and has stride 0");
    REFUSED(a.weight.shape[1] = 1, ATTN_BAD_SHAPE, "weight has shape [2, 1], index asks for [2, 2]");
    REFUSED(a.weight.dtype = ATTN_F64, ATTN_UNSUPPORTED, "weight is f64");
    REFUSED(a.weight = (attn_tensor){ 0 }, ATTN_BAD_ARGUMENT, "weight has no data");
    REFUSED(a.reserved[31] = 1, ATTN_UNSUPPORTED, "attn_top_k_softmax_args");
    static char one[4];
    attn_tensor huge = { .data = one, .dtype = ATTN_F32, .rank = 2, .shape = { 2, (int64_t)1 << 32 }, .stride = { 0, 0 } };
    REFUSED((a.logits = huge, a.bias = (attn_tensor){ 0 }, a.index.dtype = ATTN_I32), ATTN_BAD_ARGUMENT,
            "index is i32, which cannot count to 4294967296");
    assert_refused(attn_top_k_softmax(&good, &(attn_exec){ .n_threads = -1 }), ATTN_BAD_ARGUMENT, "n_threads -1");
    assert_untouched(good.weight);
    for (int64_t i = 0; i < 4; i++) assert_true(get(good.index, i) == -1); /* as it was: bytes of 0xff */

    assert_ok(attn_top_k_softmax(&good, NULL));
    fill(g.dweight, 1);
    assert_refused(attn_top_k_softmax_backward(NULL, &g, NULL), ATTN_BAD_ARGUMENT, "no arguments");
    assert_refused(attn_top_k_softmax_backward(&good, NULL, NULL), ATTN_BAD_ARGUMENT, "no gradients");
#define REFUSED_BACK(change, status, words)                                                                                      \
    do {                                                                                                                         \
        a = good, h = g;                                                                                                         \
        change;                                                                                                                  \
        assert_refused(attn_top_k_softmax_backward(&a, &h, NULL), status, words);                                                \
    } while (0)
    REFUSED_BACK(a.weight.shape[0] = 1, ATTN_BAD_SHAPE, "weight has shape");
    REFUSED_BACK(h.dweight.shape[1] = 3, ATTN_BAD_SHAPE, "dweight has shape [2, 3]");
    REFUSED_BACK(h.dlogits.shape[1] = 3, ATTN_BAD_SHAPE, "dlogits has shape [2, 3], logits asks for [2, 6]");
    REFUSED_BACK(h.dlogits.stride[1] = 0, ATTN_BAD_ARGUMENT, "dlogits is an output and has stride 0");
    REFUSED_BACK(h.reserved[0] = 1, ATTN_UNSUPPORTED, "attn_top_k_softmax_grads");
    put(good.index, 3, 6);
    assert_refused(attn_top_k_softmax_backward(&good, &g, NULL), ATTN_BAD_ARGUMENT,
                   "index 1 of row 1 is 6: an expert of 6, or -1");
    put(good.index, 3, -2);
    assert_refused(attn_top_k_softmax_backward(&good, &g, NULL), ATTN_BAD_ARGUMENT, "index 1 of row 1 is -2");
    assert_untouched(g.dlogits);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(choices_and_weights_are_those_of_the_sorted_row, free_blocks),
        cmocka_unit_test_teardown(the_reference_answers_the_same, free_blocks),
        cmocka_unit_test_teardown(rows_in_order_and_equal_rows_are_rows, free_blocks),
        cmocka_unit_test_teardown(worked_cases, free_blocks),
        cmocka_unit_test_teardown(a_bias_chooses_and_weighs_nothing, free_blocks),
        cmocka_unit_test_teardown(normalised_softmax_is_the_softmax_of_the_top_k, free_blocks),
        cmocka_unit_test_teardown(a_scale_of_zero_needs_its_flag, free_blocks),
        cmocka_unit_test_teardown(masked_experts_are_never_chosen, free_blocks),
        cmocka_unit_test_teardown(a_live_nan_comes_first_and_shows_in_its_row_alone, free_blocks),
        cmocka_unit_test_teardown(plus_infinity_has_no_softmax_and_a_sigmoid_of_1, free_blocks),
        cmocka_unit_test_teardown(sigmoids_that_are_all_0_weigh_nothing, free_blocks),
        cmocka_unit_test_teardown(empty_extents_are_extents, free_blocks),
        cmocka_unit_test_teardown(gradients_are_those_of_central_differences, free_blocks),
        cmocka_unit_test_teardown(kernels_and_reference_agree_on_gradients, free_blocks),
        cmocka_unit_test_teardown(what_is_not_chosen_or_masked_gets_no_gradient, free_blocks),
        cmocka_unit_test_teardown(a_live_nan_shows_in_the_gradients_of_its_row_alone, free_blocks),
        cmocka_unit_test_teardown(strides_threads_and_index_types_do_not_change_a_bit, free_blocks),
        cmocka_unit_test_teardown(up_to_256_chosen_nothing_is_allocated_and_beyond_as_much_as_is_said, free_blocks),
        cmocka_unit_test_teardown(bad_arguments_are_refused_before_anything_is_written, free_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
