/* SPDX-License-Identifier: Apache-2.0 */
/* Attention at the edges of numbers and of memory: equal scores, one huge score, denormals, and buffers that end where the
 * process may not read on. */
#define _DEFAULT_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "attention_bounds.h"

#include <sys/mman.h>
#include <unistd.h>

/* ---- numbers --------------------------------------------------------------------------------------------------- */

static const problem_shape shapes[] = { { 1, 2, 1, 2, 21, 150, 19, 11 }, { 1, 1, 1, 1, 1, 75, 16, 16 } };

static void equal_scores_give_the_mean_of_the_values(void **state) {
    (void)state;
    for (int n = 0; n < 4; n++) {
        int32_t dtype = n % 2 ? ATTN_F64 : ATTN_F32;
        attn_attention_args a = problem(shapes[n / 2], dtype, 1);
        int64_t keys = a.k.shape[2], columns = a.v.shape[3];
        fill(a.k, 0.5);
        attend(&a);
        for (int64_t h = 0; h < a.q.shape[1]; h++)
            for (int64_t c = 0; c < columns; c++) {
                double mean = 0;
                for (int64_t j = 0; j < keys; j++) mean += get4(a.v, 0, h, j, c) / (double)keys;
                for (int64_t i = 0; i < a.q.shape[2]; i++) assert_close(get4(a.out, 0, h, i, c), mean, 300 * unit_of(dtype));
            }
        free_blocks(NULL);
    }
}

/* Wherever the huge score stands - first, last, amid a block - it alone counts, and what came before is forgotten. */
static void one_huge_score_takes_all(void **state) {
    (void)state;
    for (int n = 0; n < 4; n++) {
        int32_t dtype = n % 2 ? ATTN_F64 : ATTN_F32;
        for (int64_t at = 0; at < 75; at += 74 / 2) {
            attn_attention_args a = problem(shapes[n / 2], dtype, 2);
            a.see = see_all(&a, 1);
            a.bias = tensor1(dtype, a.k.shape[2]);
            fill(a.bias, -1e4);
            put(a.bias, at, 1e4);
            attend(&a);
            for (int64_t h = 0; h < a.q.shape[1]; h++)
                for (int64_t i = 0; i < a.q.shape[2]; i++)
                    for (int64_t c = 0; c < a.v.shape[3]; c++)
                        assert_true(get4(a.out, 0, h, i, c) == get4(a.v, 0, h / (a.q.shape[1] / a.v.shape[1]), at, c));
            assert_all("entropy", a.see.entropy, 0);
            assert_all("top_weight", a.see.top_weight, 1);
            assert_all("top_index", a.see.top_index, (double)at);
            free_blocks(NULL);
        }
    }
}

static void rising_and_falling_scores_stay_within_the_published_bounds(void **state) {
    (void)state;
    for (int n = 0; n < 4; n++) {
        attn_attention_args a = problem(shapes[n / 2], ATTN_F32, 3);
        a.bias = tensor1(ATTN_F32, a.k.shape[2]);
        for (int64_t j = 0; j < a.k.shape[2]; j++) put(a.bias, j, (n % 2 ? -0.9 : 0.9) * (double)j);
        a.see = see_all(&a, 4);
        attn_attention_args exact = in_f64(a);
        exact.see = see_all(&exact, 4);
        attend(&a);
        attend_by_reference(&exact);
        assert_within_published_bounds(&a, &exact);
        free_blocks(NULL);
    }
}

static void denormal_inputs_are_not_flushed(void **state) {
    (void)state;
    for (int n = 0; n < 2; n++) {
        attn_attention_args a = problem(shapes[n], ATTN_F32, 4);
        for (int64_t x = 0; x < attn_count(&a.v); x++) put(a.v, x, 0x1p-140);
        for (int64_t x = 0; x < attn_count(&a.k); x++) put(a.k, x, get(a.k, x) * 0x1p-130);
        attend(&a);
        for (int64_t x = 0; x < attn_count(&a.out); x++) assert_close(get(a.out, x), 0x1p-140, 0x1p-148);
    }
}

static void head_sizes_of_one_and_single_keys_are_exact(void **state) {
    (void)state;
    attn_attention_args a = problem((problem_shape){ 3, 2, 2, 2, 20, 1, 1, 1 }, ATTN_F32, 5);
    attend(&a);
    for (int64_t n = 0; n < attn_count(&a.out); n++) assert_true(get(a.out, n) == get(a.v, n / 20));
}

/* ---- the additive score ------------------------------------------------------------------------------------------ */

static void fill_from(attn_tensor t, const double *values, int n, uint64_t *seed) {
    for (int64_t i = 0; i < attn_count(&t); i++) put(t, i, values[between(seed, 0, n - 1)]);
}

/* Numbers whose powers are out of reach, whose sums are not, and weights whose products overflow. */
static void additive_scores_of_far_numbers_are_within_the_published_bounds(void **state) {
    (void)state;
    static const double f32s[] = { 0.3, -1, 19.9, -20, 20.1, -30, 30, 300, -300, 1e30, -1e30, 0 };
    static const double f64s[] = { 0.3, -1, 169, -170, 171, -200, 200, 3000, -3000, 1e300, -1e300, 0 };
    for (int n = 0; n < 8; n++) {
        int32_t dtype = n % 2 ? ATTN_F64 : ATTN_F32;
        uint64_t seed = 60 + (uint64_t)n;
        attn_attention_args a = problem((problem_shape){ 1, 2, 1, 1, 21, 50, 5 + n, 6 }, dtype, seed);
        a.score = ATTN_ADDITIVE;
        a.score_weight = tensor1(dtype, 5 + n);
        fill_normal(a.score_weight, &seed);
        if (n >= 6) put(a.score_weight, 2, n == 6 ? 1e30 : 1e300), put(a.score_weight, 3, n == 6 ? -1e30 : -1e300);
        fill_from(a.q, n % 2 ? f64s : f32s, n < 2 ? 12 : 8, &seed);
        fill_from(a.k, n % 2 ? f64s : f32s, n < 2 ? 12 : 8, &seed);
        a.see.scores = tensor4(dtype, 1, 2, 21, 50);
        attn_attention_args exact = in_f64(a);
        exact.see.scores = tensor4(ATTN_F64, 1, 2, 21, 50);
        attend(&a);
        attend_by_reference(&exact);
        double sum = 0, unit = dtype == ATTN_F64 ? 0x1p-53 : 0x1p-24;
        for (int64_t d = 0; d < 5 + n; d++) sum += fabs(get(a.score_weight, d));
        assert_all_close("scores", a.see.scores, exact.see.scores, unit * (2 * (5 + n) + 16) * sum);
        if (n >= 6) continue;
        attn_attention_grads g = { .dout = tensor_of(dtype, 4, a.out.shape),
                                   .dq = tensor_of(dtype, 4, a.q.shape),
                                   .dk = tensor_of(dtype, 4, a.k.shape),
                                   .dscore_weight = tensor1(dtype, 5 + n) };
        fill_normal(g.dout, &seed);
        attn_attention_grads e = { .dout = dense_copy(g.dout, ATTN_F64),
                                   .dq = tensor_of(ATTN_F64, 4, a.q.shape),
                                   .dk = tensor_of(ATTN_F64, 4, a.k.shape),
                                   .dscore_weight = tensor1(ATTN_F64, 5 + n) };
        exact.see.scores = a.see.scores = (attn_tensor){ 0 };
        attend_backward(&a, &g);
        attend_backward_by_reference(&exact, &e);
        double bound = dtype == ATTN_F64 ? 5e-14 : 5e-6;
        assert_rms_within("dq", g.dq, e.dq, bound);
        assert_rms_within("dk", g.dk, e.dk, bound);
        assert_rms_within("dscore_weight", g.dscore_weight, e.dscore_weight, bound);
    }
}

/* ---- memory ------------------------------------------------------------------------------------------------------- */

typedef struct guarded {
    char *pages;
    size_t bytes;
} guarded;
static guarded guards[64];
static int n_guards;

static int unmap(void **state) {
    while (n_guards > 0) {
        n_guards--;
        munmap(guards[n_guards].pages, guards[n_guards].bytes);
    }
    return free_blocks(state);
}

/* The same dense tensor, its last byte being the last of a page that no readable one follows, or its first the first of one that
 * none precedes. */
static attn_tensor at_a_guard(attn_tensor t, bool behind) {
    if (!t.rank) return t;
    size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = (size_t)attn_count(&t) * attn_dtype_size(t.dtype);
    size_t inner = (bytes + page - 1) / page * page;
    char *pages = mmap(NULL, inner + 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(pages != MAP_FAILED && n_guards < 64);
    guards[n_guards++] = (guarded){ pages, inner + 2 * page };
    assert_int_equal(mprotect(pages, page, PROT_NONE), 0);
    assert_int_equal(mprotect(pages + page + inner, page, PROT_NONE), 0);
    attn_tensor moved = attn_dense(t.dtype, pages + page + (behind ? inner - bytes : 0), t.rank, t.shape);
    memcpy(moved.data, t.data, bytes);
    return moved;
}

static void assert_stays_within_its_buffers(attn_attention_args a, bool behind) {
    uint64_t seed = 6;
    attn_attention_args b = a;
    attn_attention_grads g = { .dout = tensor_of(a.q.dtype, 4, a.out.shape),
                               .dq = tensor_of(a.q.dtype, 4, a.q.shape),
                               .dk = tensor_of(a.q.dtype, 4, a.k.shape),
                               .dv = tensor_of(a.q.dtype, 4, a.v.shape) };
    if (a.bias.rank) g.dbias = tensor_of(a.q.dtype, a.bias.rank, a.bias.shape);
    fill_normal(g.dout, &seed);
    attn_attention_grads h = g;
    attn_tensor *all[] = { &b.q,
                           &b.k,
                           &b.v,
                           &b.out,
                           &b.mask,
                           &b.bias,
                           &b.see.lse,
                           &b.see.entropy,
                           &b.see.received,
                           &b.see.weights,
                           &b.see.scores,
                           &b.see.top_index,
                           &b.see.top_weight,
                           &h.dout,
                           &h.dq,
                           &h.dk,
                           &h.dv,
                           &h.dbias };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) *all[i] = at_a_guard(*all[i], behind);
    attend(&a);
    attend(&b);
    assert_same_bits("out", b.out, a.out);
    assert_same_bits("weights", b.see.weights, a.see.weights);
    assert_same_bits("received", b.see.received, a.see.received);
    attend_backward(&a, &g);
    attend_backward(&b, &h);
    assert_same_bits("dq", h.dq, g.dq);
    assert_same_bits("dk", h.dk, g.dk);
    assert_same_bits("dv", h.dv, g.dv);
    assert_same_bits("dbias", h.dbias, g.dbias);
    unmap(NULL);
}

static void nothing_beyond_a_tensor_is_read_or_written(void **state) {
    (void)state;
    static const problem_shape odd[] = {
        { 1, 2, 1, 2, 19, 37, 7, 5 }, { 1, 1, 1, 1, 1, 3, 1, 1 }, { 2, 1, 1, 1, 33, 129, 17, 33 }, { 1, 2, 2, 2, 2, 131, 64, 9 }
    };
    static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_BF16 };
    for (int n = 0; n < 4 * 3 * 4; n++) {
        int32_t dtype = dtypes[n / 4 % 3];
        uint64_t seed = 7;
        if (dtype == ATTN_BF16 && n % 4 == 2) continue;
        attn_attention_args a = problem(odd[n % 4], dtype, 8);
        if (n / 12 & 1) {
            a.mask = tensor2(ATTN_BOOL, odd[n % 4].q_len, odd[n % 4].kv_len);
            fill_coin(a.mask, &seed, 0.7);
            a.bias = tensor2(dtype, odd[n % 4].q_len, odd[n % 4].kv_len);
            fill_normal(a.bias, &seed);
            a.see = see_all(&a, 3);
        }
        assert_stays_within_its_buffers(a, n / 24);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(equal_scores_give_the_mean_of_the_values, free_blocks),
        cmocka_unit_test_teardown(one_huge_score_takes_all, free_blocks),
        cmocka_unit_test_teardown(rising_and_falling_scores_stay_within_the_published_bounds, free_blocks),
        cmocka_unit_test_teardown(denormal_inputs_are_not_flushed, free_blocks),
        cmocka_unit_test_teardown(head_sizes_of_one_and_single_keys_are_exact, free_blocks),
        cmocka_unit_test_teardown(additive_scores_of_far_numbers_are_within_the_published_bounds, free_blocks),
        cmocka_unit_test_teardown(nothing_beyond_a_tensor_is_read_or_written, unmap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
