/* SPDX-License-Identifier: Apache-2.0 */
/* What keys receive from rows that count for different amounts: a row of numbers times the weights, and times their gradients. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "attention_bounds.h"

static void receive(const attn_attention_args *a, const attn_received_args *r) {
    if (attn_attention_received(a, r, NULL) != ATTN_OK) fail_msg("attn_attention_received: %s", attn_last_error());
}

static attn_tensor new_received(const attn_attention_args *a) {
    return tensor3(accumulator(a->q.dtype), a->q.shape[0], a->q.shape[1], a->k.shape[2]);
}

/* A random problem and what is asked of it: rows of 0, of one number, of numbers for each head; gradients; an lse or none. */
static attn_attention_args some_problem(uint64_t *seed, int32_t dtype, attn_received_args *r) {
    attn_attention_args a = random_problem(seed, dtype);
    const int64_t *q = a.q.shape;
    a.see = (attn_see){ 0 };
    *r = (attn_received_args){ .received = new_received(&a) };
    if (between(seed, 0, 3)) {
        r->by = tensor3(accumulator(dtype), 1, between(seed, 0, 1) ? q[1] : 1, q[2]);
        fill_normal(r->by, seed);
        for (int64_t n = 0; n < attn_count(&r->by); n += between(seed, 1, 4)) put(r->by, n, 0);
    }
    if (between(seed, 0, 1)) {
        r->dout = tensor_of(dtype, 4, a.out.shape);
        fill_normal(r->dout, seed);
        r->positive = (int32_t)between(seed, 0, 1);
    }
    if (a.weighting == ATTN_WEIGHT_SOFTMAX && between(seed, 0, 1)) {
        a.see.lse = tensor3(accumulator(dtype), q[0], q[1], q[2]);
        attend(&a);
    }
    return a;
}

/* ---- against sums over whole maps in f64 ------------------------------------------------------------------------------------ */

static double by_at(const attn_received_args *r, int64_t h, int64_t i) {
    if (!r->by.rank) return 1;
    return get3(r->by, 0, r->by.shape[1] == 1 ? 0 : h, i);
}

/* dp_ij, and the sum of magnitudes that makes it up. */
static double slope_at(const attn_attention_plan *p, const attn_received_args *r, int64_t b, int64_t h, int64_t i, int64_t j,
                       double *size) {
    double sum = 0, keep = attn_dropout_factor(&p->dropout, b, h, i, j);
    *size = 0;
    for (int64_t c = 0; c < p->v_dim; c++) {
        double x = get4(r->dout, b, h, i, c) * get4(p->v, b, h / p->v_group, j, c);
        sum += x;
        *size += fabs(x);
    }
    *size *= p->dropout.on ? p->dropout.scale : 1;
    return keep * sum;
}

/* docs/ACCURACY.md: (1 + q_len / 32) sum_i |by_i| (the bound on the row's weights, with dout plus u v_dim, times the largest sum of
 * magnitudes of the row's dp). */
static void assert_received(const attn_attention_args *a, const attn_received_args *r, const attn_attention_args *exact) {
    attn_attention_plan p;
    assert_int_equal(attn_attention_plan_forward(&p, a, ATTN_PLAN_CALL), ATTN_OK);
    for (int64_t head = 0; head < p.batch * p.heads; head++)
        for (int64_t j = 0; j < p.kv_len; j++) {
            int64_t b = head / p.heads, h = head % p.heads;
            double sum = 0, bound = 0;
            for (int64_t i = 0; i < p.q_len; i++) {
                double by = by_at(r, h, i), x = get4(exact->see.weights, b, h, i, j),
                       w = weight_bound(&p, bound_of_row(&p, b, h, i));
                double largest = 1, size;
                if (by == 0) continue;
                if (r->dout.rank && plan_sees(&p, b, h, i, j)) {
                    x *= slope_at(&p, r, b, h, i, j, &largest);
                    for (int64_t k = 0; k < p.kv_len; k++) {
                        slope_at(&p, r, b, h, i, k, &size);
                        largest = size > largest ? size : largest;
                    }
                    w += unit_of(p.q.dtype) * (double)p.v_dim;
                }
                if (r->positive && x < 0) x = 0;
                sum += by * x;
                bound += fabs(by) * w * largest;
            }
            assert_within("received", r->received, head * p.kv_len + j, sum, (1 + (double)p.q_len / 32) * bound);
        }
}

static void what_keys_receive_is_within_the_published_bound(void **state) {
    (void)state;
    static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_BF16 };
    uint64_t seed = 12;
    for (int n = 0; n < 90; n++) {
        attn_received_args r;
        attn_attention_args a = some_problem(&seed, dtypes[n % 3], &r), exact = in_f64(a);
        exact.see.weights = tensor4(ATTN_F64, a.q.shape[0], a.q.shape[1], a.q.shape[2], a.k.shape[2]);
        attend_by_reference(&exact);
        receive(&a, &r);
        assert_received(&a, &r, &exact);
        free_blocks(NULL);
    }
}

static void rows_that_all_count_1_give_what_is_seen_as_received(void **state) {
    (void)state;
    for (int32_t dtype = ATTN_F32; dtype <= ATTN_F64; dtype += ATTN_F64 - ATTN_F32) {
        attn_attention_args a = problem((problem_shape){ 2, 3, 1, 3, 70, 300, 16, 8 }, dtype, 3);
        attn_tensor one = tensor3(dtype, 1, 1, 1);
        a.causal = ATTN_CAUSAL;
        a.see.received = new_received(&a);
        attend(&a);
        put(one, 0, 1);
        attn_tensor seen = a.see.received;
        a.see.received = (attn_tensor){ 0 };
        attn_received_args r = { .received = new_received(&a) }, ones = { .by = one, .received = new_received(&a) };
        receive(&a, &r);
        receive(&a, &ones);
        assert_same_bits("received", r.received, seen);
        assert_same_bits("received", ones.received, seen);
    }
}

static void a_row_that_counts_0_is_left_out_whatever_it_holds(void **state) {
    (void)state;
    for (int32_t w = ATTN_WEIGHT_SOFTMAX; w <= ATTN_WEIGHT_SPARSEMAX; w++) {
        attn_attention_args a = problem((problem_shape){ 1, 2, 2, 2, 40, 150, 16, 8 }, ATTN_F32, 3);
        uint64_t seed = 4;
        a.weighting = w;
        attn_received_args r = { .by = tensor1(ATTN_F32, 40),
                                 .dout = tensor_of(ATTN_F32, 4, a.out.shape),
                                 .received = new_received(&a) };
        fill(r.by, 0), fill_normal(r.dout, &seed);
        put(r.by, 7, 2), put(r.by, 33, -1);
        receive(&a, &r);
        attn_received_args with = r;
        with.received = new_received(&a);
        for (int64_t d = 0; d < 16; d++) put4(a.q, 0, 1, 8, d, NAN), put4(a.q, 0, 0, 39, d, INFINITY);
        for (int64_t c = 0; c < 8; c++) put4(r.dout, 0, 1, 6, c, NAN);
        receive(&a, &with);
        assert_same_bits("received", with.received, r.received);
        put(r.by, 8, 1);
        receive(&a, &with);
        assert_true(isnan(get(with.received, 150)) && !isnan(get(with.received, 0)));
    }
}

static void masked_keys_receive_nothing_whatever_they_hold(void **state) {
    (void)state;
    attn_attention_args a = problem((problem_shape){ 1, 2, 2, 2, 40, 150, 16, 8 }, ATTN_F32, 3);
    uint64_t seed = 4;
    a.kv_lengths = values1(ATTN_I32, 1, (double[]){ 90 });
    attn_received_args r = { .dout = tensor_of(ATTN_F32, 4, a.out.shape), .received = new_received(&a) };
    fill_normal(r.dout, &seed);
    receive(&a, &r);
    attn_received_args with = r;
    with.received = new_received(&a);
    for (int64_t c = 0; c < 8; c++) put4(a.v, 0, 1, 90, c, NAN), put4(a.k, 0, 0, 91, c, INFINITY);
    receive(&a, &with);
    assert_same_bits("received", with.received, r.received);
    for (int64_t j = 90; j < 150; j++) assert_true(get(r.received, j) == 0 && get(r.received, 150 + j) == 0);
}

/* r <- (r + r A) / 2 from the top layer down is the row of the product of all (A + I) / 2. */
static void steps_down_a_stack_are_a_row_of_the_product_of_its_maps(void **state) {
    (void)state;
    enum { LAYERS = 4, T = 60 };
    attn_attention_args layers[LAYERS];
    double product[T], next[T];
    attn_tensor by = tensor1(ATTN_F64, T);
    for (int64_t t = 0; t < T; t++) product[t] = t == 5;
    for (int64_t t = 0; t < T; t++) put(by, t, product[t]);
    for (int l = LAYERS - 1; l >= 0; l--) {
        attn_attention_args *a = &layers[l];
        *a = problem((problem_shape){ 1, 1, 1, 1, T, T, 8, 8 }, ATTN_F64, (uint64_t)l);
        a->see.weights = tensor4(ATTN_F64, 1, 1, T, T), a->see.lse = tensor3(ATTN_F64, 1, 1, T);
        attend(a);
        attn_received_args r = { .by = by, .received = new_received(a) };
        receive(a, &r);
        for (int64_t j = 0; j < T; j++) {
            next[j] = product[j] / 2;
            for (int64_t i = 0; i < T; i++) next[j] += product[i] * get4(a->see.weights, 0, 0, i, j) / 2;
        }
        for (int64_t j = 0; j < T; j++) {
            product[j] = next[j];
            put(by, j, (get(by, j) + get(r.received, j)) / 2);
        }
    }
    for (int64_t j = 0; j < T; j++) assert_close(get(by, j), product[j], 1e-14);
}

/* ---- bits, memory, refusals -------------------------------------------------------------------------------------------------- */

static void threads_strides_and_batch_neighbours_do_not_change_a_bit(void **state) {
    (void)state;
    uint64_t seed = 19;
    for (int n = 0; n < 24; n++) {
        attn_received_args r, s;
        attn_attention_args a = some_problem(&seed, n % 3 ? ATTN_F32 : ATTN_F16, &r), b = a;
        attn_exec exec = { 0 };
        receive(&a, &r);
        s = r, s.received = tensor3(r.received.dtype, r.received.shape[2], r.received.shape[0], r.received.shape[1]);
        attn_tensor turned = attn_axis_last(s.received, 0);
        s.received = turned;
        b.q = strided_copy(a.q), b.k = strided_copy(a.k), b.v = strided_copy(a.v);
        if (r.dout.rank) s.dout = strided_copy(r.dout);
        assert_int_equal(attn_pool_open(&exec, n % 7 + 1), ATTN_OK);
        assert_int_equal(attn_attention_received(&b, &s, &exec), ATTN_OK);
        attn_pool_close(&exec);
        assert_same_bits("received", s.received, r.received);
        /* the first entry alone: dropout counts it as the first */
        attn_tensor *entries[] = {
            &a.q, &a.k, &a.v, &a.out, &a.mask, &a.q_lengths, &a.kv_lengths, &a.offset, &a.see.lse, &r.dout
        };
        attn_tensor whole = r.received;
        for (int i = 0; i < 10; i++)
            if (entries[i]->rank) entries[i]->shape[0] = 1;
        r.received = new_received(&a);
        receive(&a, &r);
        whole.shape[0] = 1;
        assert_same_bits("received", r.received, whole);
        free_blocks(NULL);
    }
}

static void memory_grows_with_the_lengths_and_is_enough(void **state) {
    (void)state;
    uint64_t seed = 23;
    attn_attention_args big = problem((problem_shape){ 1, 1, 1, 1, 1, 1, 8, 8 }, ATTN_F32, 1);
    attn_received_args ask = { .dout = big.out, .received = tensor3(ATTN_F32, 1, 1, 1) };
    big.q.shape[2] = big.out.shape[2] = ask.dout.shape[2] = big.k.shape[2] = big.v.shape[2] = ask.received.shape[2] = 1 << 20;
    big.q.data = big.k.data = big.v.data = NULL;
    assert_true(attn_attention_received_workspace(&big, &ask, 1) < (size_t)16 << 20);
    for (int n = 0; n < 24; n++) {
        attn_received_args r, s;
        attn_attention_args a = some_problem(&seed, n % 3 ? ATTN_F32 : ATTN_F16, &r);
        size_t size = attn_attention_received_workspace(&a, &r, 1);
        receive(&a, &r);
        s = r, s.received = new_received(&a);
        attn_exec exec = { .workspace = poisoned(size), .workspace_size = size };
        assert_int_equal(attn_attention_received(&a, &s, &exec), ATTN_OK);
        assert_same_bits("received", s.received, r.received);
        exec.workspace_size = size / 2;
        assert_int_equal(attn_attention_received(&a, &s, &exec), ATTN_SMALL_WORKSPACE);
        free_blocks(NULL);
    }
}

static void sums_over_no_rows_are_0(void **state) {
    (void)state;
    for (int32_t w = ATTN_WEIGHT_SOFTMAX; w <= ATTN_WEIGHT_SPARSEMAX; w++) {
        attn_attention_args a = problem((problem_shape){ 1, 2, 2, 2, 0, 5, 4, 4 }, ATTN_F32, 1);
        a.weighting = w;
        attn_received_args r = { .received = new_received(&a) };
        receive(&a, &r);
        assert_all("received", r.received, 0);
        a = problem((problem_shape){ 1, 2, 2, 2, 5, 0, 4, 4 }, ATTN_F32, 1);
        r.received = new_received(&a);
        receive(&a, &r);
    }
}

static void assert_refused(const attn_attention_args *a, const attn_received_args *r, attn_status status, const char *says) {
    attn_status s = attn_attention_received(a, r, NULL);
    if (s != status || !strstr(attn_last_error(), says)) fail_msg("%s: %s", attn_status_name(s), attn_last_error());
    if (r && r->received.rank == 3) assert_all("received", r->received, NAN);
}

static void bad_arguments_are_refused_before_anything_is_written(void **state) {
    (void)state;
    attn_attention_args a = problem((problem_shape){ 1, 2, 2, 2, 4, 5, 4, 3 }, ATTN_F32, 1);
    attn_received_args good = { .received = new_received(&a) }, r;
    assert_refused(NULL, &good, ATTN_BAD_ARGUMENT, "attn_attention_args is NULL");
    assert_refused(&a, NULL, ATTN_BAD_ARGUMENT, "attn_received_args is NULL");
    r = good, r.received = (attn_tensor){ 0 };
    assert_refused(&a, &r, ATTN_BAD_ARGUMENT, "received is missing");
    r = good, r.received = tensor3(ATTN_F32, 1, 1, 5);
    assert_refused(&a, &r, ATTN_BAD_SHAPE, "received has shape [1, 1, 5], here it is [1, 2, 5]");
    r = good, r.received = tensor3(ATTN_F64, 1, 2, 5);
    assert_refused(&a, &r, ATTN_BAD_ARGUMENT, "received is f64");
    r = good, r.positive = 1;
    assert_refused(&a, &r, ATTN_BAD_ARGUMENT, "positive is 1, and there is no dout");
    r = good, r.by = tensor1(ATTN_F32, 3);
    assert_refused(&a, &r, ATTN_BAD_SHAPE, "by");
    r = good, r.by = tensor1(ATTN_BF16, 4);
    assert_refused(&a, &r, ATTN_BAD_ARGUMENT, "by is bf16: with q of f32 it is f32");
    r = good, r.dout = tensor4(ATTN_F32, 1, 2, 4, 4);
    assert_refused(&a, &r, ATTN_BAD_SHAPE, "dout has shape [1, 2, 4, 4], here it is [1, 2, 4, 3]");
    r = good, r.reserved[3] = 1;
    assert_refused(&a, &r, ATTN_UNSUPPORTED, "attn_received_args");
    assert_true(attn_attention_received_workspace(&a, &r, 1) == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(what_keys_receive_is_within_the_published_bound, free_blocks),
        cmocka_unit_test_teardown(rows_that_all_count_1_give_what_is_seen_as_received, free_blocks),
        cmocka_unit_test_teardown(a_row_that_counts_0_is_left_out_whatever_it_holds, free_blocks),
        cmocka_unit_test_teardown(masked_keys_receive_nothing_whatever_they_hold, free_blocks),
        cmocka_unit_test_teardown(steps_down_a_stack_are_a_row_of_the_product_of_its_maps, free_blocks),
        cmocka_unit_test_teardown(threads_strides_and_batch_neighbours_do_not_change_a_bit, free_blocks),
        cmocka_unit_test_teardown(memory_grows_with_the_lengths_and_is_enough, free_blocks),
        cmocka_unit_test_teardown(sums_over_no_rows_are_0, free_blocks),
        cmocka_unit_test_teardown(bad_arguments_are_refused_before_anything_is_written, free_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
