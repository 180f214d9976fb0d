/* SPDX-License-Identifier: Apache-2.0 */
/* Maps of weights and scores that are not whole: those of chosen rows and heads, and means over blocks. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "attention_bounds.h"

/* ---- chosen rows and heads ------------------------------------------------------------------------------------------- */

/* Any order, neighbours and strangers, some twice; sorted; one; none. */
static const int64_t some_rows[] = { 3, 2, 2, 39, 0, 17, 18, 19, 5, 3 }, sorted_rows[] = { 0, 1, 5, 38 }, some_heads[] = { 2, 0 };

static attn_tensor of_rows(attn_tensor whole, const attn_see *see) {
    return tensor4(whole.dtype, whole.shape[0], see->n_heads, see->n_rows, whole.shape[3]);
}

static void assert_chosen(const char *what, attn_tensor chosen, attn_tensor whole, const attn_see *see) {
    for (int64_t n = 0; n < attn_count(&chosen); n++) {
        int64_t j = n % chosen.shape[3], r = n / chosen.shape[3] % see->n_rows, rest = n / chosen.shape[3] / see->n_rows;
        int64_t h = rest % see->n_heads, b = rest / see->n_heads;
        double x = get(chosen, n), y = get4(whole, b, see->heads[h], see->rows[r], j);
        if (memcmp(&x, &y, sizeof x)) fail_msg("%s[%lld]: %g, of the whole map %g", what, (long long)n, x, y);
    }
}

static attn_attention_args some_problem(int32_t dtype, int32_t weighting, int32_t stage) {
    attn_attention_args a = problem((problem_shape){ 2, 3, 3, 1, 40, 290, 9, 7 }, dtype, 4);
    uint64_t seed = 8;
    a.weighting = weighting;
    a.causal = ATTN_CAUSAL;
    a.offset = values1(ATTN_I64, 2, (double[]){ -2, 250 });
    a.mask = tensor4(ATTN_BOOL, 1, 3, 40, 290);
    fill_coin(a.mask, &seed, 0.8);
    a.softcap = 3;
    a.q_lengths = values1(ATTN_I32, 2, (double[]){ 40, 19 });
    a.see = (attn_see){ .scores_stage = stage };
    return a;
}

static void assert_chosen_maps_are_the_whole_s(const attn_attention_args *whole, const int64_t *rows, int64_t n_rows) {
    attn_attention_args a = *whole;
    attn_see *see = &a.see;
    see->rows = rows, see->n_rows = n_rows, see->heads = some_heads, see->n_heads = 2;
    see->weights = of_rows(whole->see.weights, see), see->scores = of_rows(whole->see.scores, see);
    a.out = tensor_of(a.out.dtype, 4, a.out.shape);
    attend(&a);
    assert_same_bits("out", a.out, whole->out);
    assert_chosen("weights", see->weights, whole->see.weights, see);
    assert_chosen("scores", see->scores, whole->see.scores, see);
}

static void maps_of_chosen_rows_and_heads_are_those_of_the_whole(void **state) {
    (void)state;
    static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_BF16 };
    static const int32_t weightings[] = { ATTN_WEIGHT_SOFTMAX, ATTN_WEIGHT_NORMALIZED_SUM, ATTN_WEIGHT_SPARSEMAX };
    for (int d = 0; d < 3; d++)
        for (int w = 0; w < 3; w++)
            for (int32_t stage = ATTN_STAGE_WEIGHTED; stage <= ATTN_STAGE_RAW; stage++) {
                attn_attention_args a = some_problem(dtypes[d], weightings[w], stage);
                int32_t seen = accumulator(dtypes[d]);
                a.see.weights = tensor4(seen, 2, 3, 40, 290), a.see.scores = tensor4(seen, 2, 3, 40, 290);
                attend(&a);
                assert_chosen_maps_are_the_whole_s(&a, some_rows, 10);
                assert_chosen_maps_are_the_whole_s(&a, sorted_rows, 4);
                assert_chosen_maps_are_the_whole_s(&a, some_rows, 1);
                assert_chosen_maps_are_the_whole_s(&a, some_rows, 0);
                free_blocks(NULL);
            }
}

static void rows_alone_and_heads_alone_may_be_chosen(void **state) {
    (void)state;
    static const int64_t every_head[] = { 0, 1, 2 };
    attn_attention_args a = some_problem(ATTN_F32, ATTN_WEIGHT_SOFTMAX, 0), rows = a, heads = a;
    int64_t every_row[40];
    for (int64_t i = 0; i < 40; i++) every_row[i] = i;
    a.see.weights = tensor4(ATTN_F32, 2, 3, 40, 290);
    attend(&a);
    rows.see = (attn_see){ .rows = some_rows, .n_rows = 10, .weights = strided_copy(tensor4(ATTN_F32, 2, 3, 10, 290)) };
    attend(&rows);
    assert_chosen("weights", rows.see.weights, a.see.weights,
                  &(attn_see){ .rows = some_rows, .n_rows = 10, .heads = every_head, .n_heads = 3 });
    heads.see = (attn_see){ .heads = some_heads, .n_heads = 2, .weights = tensor4(ATTN_F32, 2, 2, 40, 290) };
    attend(&heads);
    assert_chosen("weights", heads.see.weights, a.see.weights,
                  &(attn_see){ .rows = every_row, .n_rows = 40, .heads = some_heads, .n_heads = 2 });
}

static void threads_and_batch_neighbours_do_not_change_a_chosen_row(void **state) {
    (void)state;
    attn_attention_args a = some_problem(ATTN_F32, ATTN_WEIGHT_SOFTMAX, 0), b = a, one = a;
    attn_exec exec = { 0 };
    a.see.rows = some_rows, a.see.n_rows = 10;
    a.see.weights = tensor4(ATTN_F32, 2, 3, 10, 290);
    attend(&a);
    b.see = a.see, b.see.weights = tensor4(ATTN_F32, 2, 3, 10, 290);
    assert_int_equal(attn_pool_open(&exec, 5), ATTN_OK);
    assert_int_equal(attn_attention(&b, &exec), ATTN_OK);
    attn_pool_close(&exec);
    assert_same_bits("weights", b.see.weights, a.see.weights);
    one.see = a.see, one.see.weights = tensor4(ATTN_F32, 1, 3, 10, 290);
    one.q.shape[0] = one.k.shape[0] = one.v.shape[0] = one.out.shape[0] = 1;
    one.q_lengths.shape[0] = one.offset.shape[0] = 1;
    attend(&one);
    a.see.weights.shape[0] = 1;
    assert_same_bits("weights", one.see.weights, a.see.weights);
}

static void assert_refused(const attn_attention_args *a, attn_status status, const char *says) {
    attn_status s = attn_attention(a, NULL);
    if (s != status || !strstr(attn_last_error(), says)) fail_msg("%s: %s", attn_status_name(s), attn_last_error());
    assert_all("out", a->out, NAN);
}

static void lists_that_name_no_row_or_head_are_refused(void **state) {
    (void)state;
    static const int64_t wrong[] = { 0, 40 }, negative[] = { -1 }, twice[] = { 1, 0, 1 };
    attn_attention_args a = some_problem(ATTN_F32, ATTN_WEIGHT_SOFTMAX, 0), b = a;
    b.see.rows = wrong, b.see.n_rows = 2, b.see.weights = tensor4(ATTN_F32, 2, 3, 2, 290);
    assert_refused(&b, ATTN_BAD_ARGUMENT, "see.rows[1] is 40: it is from 0 to 39");
    b.see.n_rows = -1;
    assert_refused(&b, ATTN_BAD_ARGUMENT, "see.n_rows is -1");
    b.see.n_rows = 3, b.see.rows = NULL;
    assert_refused(&b, ATTN_BAD_ARGUMENT, "see.n_rows is 3, and see.rows is NULL");
    b.see.rows = some_rows;
    assert_refused(&b, ATTN_BAD_SHAPE, "see.weights has shape [2, 3, 2, 290], here it is [2, 3, 3, 290]");
    b = a, b.see.heads = negative, b.see.n_heads = 1;
    assert_refused(&b, ATTN_BAD_ARGUMENT, "see.heads[0] is -1: it is from 0 to 2");
    b.see.heads = twice, b.see.n_heads = 3;
    assert_refused(&b, ATTN_BAD_ARGUMENT, "see.heads[0] and see.heads[2] are both 1");
}

/* A question of memory reads no list, as it reads no data. */
static void the_question_of_workspace_reads_no_list(void **state) {
    (void)state;
    attn_attention_args a = some_problem(ATTN_F32, ATTN_WEIGHT_SOFTMAX, 0), b = a;
    a.see.weights = tensor4(ATTN_F32, 2, 3, 10, 290);
    a.see.rows = some_rows, a.see.n_rows = 10;
    b.see.weights = a.see.weights, b.see.weights.data = NULL, b.see.n_rows = 10;
    assert_true(attn_attention_workspace(&a, 3) > 0);
    assert_true(attn_attention_workspace(&b, 3) == attn_attention_workspace(&a, 3));
}

/* ---- pooled ---------------------------------------------------------------------------------------------------------- */

static int64_t edge(int64_t p, int64_t n, int64_t extent) { return (int64_t)((double)p * (double)extent / (double)n); }

/* Against means of the reference's weights in f64. docs/ACCURACY.md: (1 + rows / 32) times the bound on weights. */
static void assert_pooled(const attn_attention_args *a, const attn_attention_args *exact) {
    attn_attention_plan plan;
    attn_tensor t = a->see.pooled;
    assert_int_equal(attn_attention_plan_forward(&plan, a, ATTN_PLAN_CALL), ATTN_OK);
    for (int64_t n = 0; n < attn_count(&t); n++) {
        int64_t q = n % t.shape[3], p = n / t.shape[3] % t.shape[2], head = n / t.shape[3] / t.shape[2];
        int64_t b = head / t.shape[1], h = head % t.shape[1];
        int64_t i0 = edge(p, t.shape[2], plan.q_len), i1 = edge(p + 1, t.shape[2], plan.q_len);
        int64_t j0 = edge(q, t.shape[3], plan.kv_len), j1 = edge(q + 1, t.shape[3], plan.kv_len);
        double sum = 0, worst = 0;
        for (int64_t i = i0; i < i1; i++) {
            double bound = weight_bound(&plan, bound_of_row(&plan, b, h, i));
            worst = bound > worst ? bound : worst;
            for (int64_t j = j0; j < j1; j++) sum += get4(exact->see.weights, b, h, i, j);
        }
        if (i1 > i0 && j1 > j0) sum /= (double)((i1 - i0) * (j1 - j0));
        assert_within("pooled", t, n, sum, (1 + (double)(i1 - i0) / 32) * worst);
    }
}

static void pooled_maps_are_means_over_blocks(void **state) {
    (void)state;
    static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_BF16, ATTN_F16 };
    static const int32_t weightings[] = { ATTN_WEIGHT_SOFTMAX, ATTN_WEIGHT_SIGMOID, ATTN_WEIGHT_ENTMAX15 };
    static const int64_t sizes[][2] = { { 1, 1 }, { 3, 7 }, { 40, 290 }, { 16, 16 }, { 50, 300 }, { 2, 1 } };
    for (int d = 0; d < 4; d++)
        for (int w = 0; w < 3; w++) {
            attn_attention_args a = some_problem(dtypes[d], weightings[w], 0), exact = in_f64(a);
            exact.see.weights = tensor4(ATTN_F64, 2, 3, 40, 290);
            attend_by_reference(&exact);
            for (int s = 0; s < 6; s++) {
                a.see.pooled = tensor4(accumulator(dtypes[d]), 2, 3, sizes[s][0], sizes[s][1]);
                attend(&a);
                assert_pooled(&a, &exact);
            }
            free_blocks(NULL);
        }
}

static void random_problems_have_the_pooled_maps_of_their_weights(void **state) {
    (void)state;
    uint64_t seed = 77;
    for (int n = 0; n < 60; n++) {
        attn_attention_args a = random_problem(&seed, n % 2 ? ATTN_F64 : ATTN_F32), exact = in_f64(a);
        exact.see.weights = tensor4(ATTN_F64, a.q.shape[0], a.q.shape[1], a.q.shape[2], a.k.shape[2]);
        attend_by_reference(&exact);
        a.see.pooled = tensor4(a.q.dtype, a.q.shape[0], a.q.shape[1], between(&seed, 1, 9), between(&seed, 1, 9));
        attend(&a);
        assert_pooled(&a, &exact);
        free_blocks(NULL);
    }
}

static void blocks_without_rows_or_keys_are_0(void **state) {
    (void)state;
    for (int32_t weighting = 0; weighting <= ATTN_WEIGHT_SPARSEMAX; weighting += ATTN_WEIGHT_SPARSEMAX) {
        attn_attention_args a = problem((problem_shape){ 1, 2, 2, 2, 0, 5, 4, 4 }, ATTN_F32, 1);
        a.weighting = weighting;
        a.see.pooled = tensor4(ATTN_F32, 1, 2, 2, 3);
        attend(&a);
        assert_all("pooled", a.see.pooled, 0);
        a = problem((problem_shape){ 1, 2, 2, 2, 3, 0, 4, 4 }, ATTN_F32, 1);
        a.weighting = weighting;
        a.see.pooled = tensor4(ATTN_F32, 1, 2, 2, 3);
        attend(&a);
        assert_all("pooled", a.see.pooled, 0);
        a = problem((problem_shape){ 1, 2, 2, 2, 3, 5, 4, 4 }, ATTN_F32, 1);
        a.weighting = weighting;
        a.see.pooled = tensor4(ATTN_F32, 1, 2, 4, 0);
        attend(&a);
    }
}

static void threads_strides_and_what_else_is_seen_do_not_change_pooled_maps(void **state) {
    (void)state;
    static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_BF16 };
    for (int d = 0; d < 3; d++)
        for (int32_t threads = 1; threads < 8; threads += 2) {
            attn_attention_args a = some_problem(dtypes[d], ATTN_WEIGHT_SOFTMAX, 0), b = a, one = a, bare = a;
            attn_exec exec = { 0 };
            bare.out = tensor_of(a.out.dtype, 4, a.out.shape);
            attend(&bare);
            a.see.pooled = tensor4(accumulator(dtypes[d]), 2, 3, 5, 11);
            attend(&a);
            assert_same_bits("out", bare.out, a.out);
            b.see = see_all(&b, 2);
            b.see.pooled = strided_copy(a.see.pooled);
            b.q = strided_copy(a.q), b.k = strided_copy(a.k);
            assert_int_equal(attn_pool_open(&exec, threads), ATTN_OK);
            assert_int_equal(attn_attention(&b, &exec), ATTN_OK);
            attn_pool_close(&exec);
            assert_same_bits("pooled", b.see.pooled, a.see.pooled);
            one.see.pooled = tensor4(accumulator(dtypes[d]), 1, 3, 5, 11);
            one.q.shape[0] = one.k.shape[0] = one.v.shape[0] = one.out.shape[0] = 1;
            one.q_lengths.shape[0] = one.offset.shape[0] = 1;
            attend(&one);
            a.see.pooled.shape[0] = 1;
            assert_same_bits("pooled", one.see.pooled, a.see.pooled);
            free_blocks(NULL);
        }
}

static void memory_of_a_pooled_map_does_not_grow_with_the_map(void **state) {
    (void)state;
    attn_attention_args a = problem((problem_shape){ 1, 1, 1, 1, 4096, 4096, 8, 8 }, ATTN_F32, 1), b = a;
    b.see.pooled = tensor4(ATTN_F32, 1, 1, 64, 64);
    size_t plain = attn_attention_workspace(&a, 1), pooled = attn_attention_workspace(&b, 1);
    assert_true(pooled <= plain + 2 * 4096 * sizeof(float) + 64 * sizeof(double) + 4096);
}

static void pooled_maps_of_another_shape_are_refused(void **state) {
    (void)state;
    attn_attention_args a = some_problem(ATTN_F32, ATTN_WEIGHT_SOFTMAX, 0);
    a.see.pooled = tensor4(ATTN_F32, 2, 1, 4, 4);
    assert_refused(&a, ATTN_BAD_SHAPE, "see.pooled has shape [2, 1, 4, 4], here it is [2, 3, 4, 4]");
    a.see.pooled = tensor3(ATTN_F32, 2, 3, 4);
    assert_refused(&a, ATTN_BAD_SHAPE, "see.pooled");
    a.see.pooled = tensor4(ATTN_F64, 2, 3, 4, 4);
    assert_refused(&a, ATTN_BAD_ARGUMENT, "see.pooled is f64: with q of f32 it is f32");
    a.see.pooled = tensor4(ATTN_F32, 2, 3, 4, 0), a.see.pooled.shape[2] = (int64_t)1 << 31;
    assert_refused(&a, ATTN_BAD_ARGUMENT, "see.pooled has 2147483648 x 0 blocks");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(maps_of_chosen_rows_and_heads_are_those_of_the_whole, free_blocks),
        cmocka_unit_test_teardown(rows_alone_and_heads_alone_may_be_chosen, free_blocks),
        cmocka_unit_test_teardown(threads_and_batch_neighbours_do_not_change_a_chosen_row, free_blocks),
        cmocka_unit_test_teardown(lists_that_name_no_row_or_head_are_refused, free_blocks),
        cmocka_unit_test_teardown(the_question_of_workspace_reads_no_list, free_blocks),
        cmocka_unit_test_teardown(pooled_maps_are_means_over_blocks, free_blocks),
        cmocka_unit_test_teardown(random_problems_have_the_pooled_maps_of_their_weights, free_blocks),
        cmocka_unit_test_teardown(blocks_without_rows_or_keys_are_0, free_blocks),
        cmocka_unit_test_teardown(threads_strides_and_what_else_is_seen_do_not_change_pooled_maps, free_blocks),
        cmocka_unit_test_teardown(memory_of_a_pooled_map_does_not_grow_with_the_map, free_blocks),
        cmocka_unit_test_teardown(pooled_maps_of_another_shape_are_refused, free_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
