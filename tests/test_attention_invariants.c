/* SPDX-License-Identifier: Apache-2.0 */
/* What has to hold of every attention call, tried on random problems: options by coin, all kinds of shapes. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "attention_directions.h"

enum { TIMES = 60 };
static const int32_t dtypes[] = { ATTN_F32, ATTN_F64 };

static attn_tensor fresh(attn_tensor t) { return t.rank ? tensor_of(t.dtype, t.rank, t.shape) : t; }

/* Index `at` along `axis` of a copy is index map[at] of t; an axis that is not as long as the map repeats, and stays. */
static attn_tensor gathered(attn_tensor t, int32_t axis_from_end, const int64_t *map, int64_t n, int64_t length) {
    int32_t axis = t.rank - axis_from_end;
    if (!t.rank || axis < 0 || t.shape[axis] != length) return t;
    attn_tensor shaped = t;
    shaped.shape[axis] = n;
    attn_tensor copy = tensor_of(t.dtype, t.rank, shaped.shape);
    for (int64_t i = 0; i < attn_count(&copy); i++) {
        int64_t at = 0, rest = i;
        for (int32_t a = t.rank - 1; a >= 0; a--) {
            int64_t index = rest % copy.shape[a];
            at += (a == axis ? map[index] : index) * t.stride[a];
            rest /= copy.shape[a];
        }
        put(copy, i, ref_load(t.data, t.dtype, at));
    }
    return copy;
}

static int64_t heads_of(attn_tensor t) { return t.shape[1]; }

/* ---- keys in another order ----------------------------------------------------------------------------------------- */

static void permuting_keys_with_their_values_changes_nothing_beyond_rounding(void **state) {
    (void)state;
    uint64_t seed = 1;
    for (int n = 0; n < TIMES; n++) {
        attn_attention_args a = random_problem(&seed, dtypes[n % 2]);
        int64_t keys = a.k.shape[2], *to = poisoned((size_t)keys * sizeof *to);
        a.causal = ATTN_NOT_CAUSAL, a.flags &= ~(uint32_t)ATTN_WINDOW, a.window[0] = a.window[1] = 0;
        a.offset = a.alibi = a.q_lengths = a.kv_lengths = (attn_tensor){ 0 };
        a.dropout = 0, a.seed = a.dropout_offset = 0;
        a.see = (attn_see){ 0 };
        if (a.weighting == ATTN_WEIGHT_HARDMAX) a.weighting = ATTN_WEIGHT_SOFTMAX; /* of equal scores the first wins */
        for (int64_t j = 0; j < keys; j++) to[j] = j;
        for (int64_t j = keys - 1; j > 0; j--) {
            int64_t other = between(&seed, 0, j), mine = to[j];
            to[j] = to[other], to[other] = mine;
        }
        attn_attention_args b = a;
        b.k = gathered(a.k, 2, to, keys, keys);
        b.v = gathered(a.v, 2, to, keys, keys);
        b.mask = gathered(a.mask, 1, to, keys, keys);
        b.bias = gathered(a.bias, 1, to, keys, keys);
        b.out = fresh(a.out);
        attend(&a);
        attend(&b);
        assert_rms_within("out", b.out, a.out, 20 * rms_bound(dtypes[n % 2]));
        free_blocks(NULL);
    }
}

/* ---- keys in two parts --------------------------------------------------------------------------------------------- */

/* Where query 0 of an entry stands, and the length it has. */
static attn_sight sight_of(const attn_attention_args *a, int64_t b) {
    attn_attention_plan plan;
    assert_int_equal(attn_attention_plan_forward(&plan, a, ATTN_PLAN_CALL), ATTN_OK);
    return attn_plan_sight(&plan, b);
}

/* Keys begin .. end - 1 of `a`, each where it was. */
static attn_attention_args part_of(const attn_attention_args *a, int64_t begin, int64_t end, bool sinks) {
    attn_attention_args part = *a;
    int64_t keys = a->k.shape[2], batch = a->q.shape[0], n = end - begin, *map = poisoned((size_t)keys * sizeof *map);
    for (int64_t j = 0; j < n; j++) map[j] = begin + j;
    part.k = gathered(a->k, 2, map, n, keys);
    part.v = gathered(a->v, 2, map, n, keys);
    part.mask = gathered(a->mask, 1, map, n, keys);
    part.bias = gathered(a->bias, 1, map, n, keys);
    part.causal = a->causal == ATTN_NOT_CAUSAL ? ATTN_NOT_CAUSAL : ATTN_CAUSAL;
    part.offset = tensor1(ATTN_I64, batch);
    part.kv_lengths = tensor1(ATTN_I64, batch);
    for (int64_t b = 0; b < batch; b++) {
        attn_sight sight = sight_of(a, b);
        int64_t left = sight.kv_length - begin;
        put(part.offset, b, (double)(sight.offset - begin));
        put(part.kv_lengths, b, (double)(left < 0 ? 0 : left < n ? left : n));
    }
    if (!sinks) part.sinks = (attn_tensor){ 0 };
    part.out = fresh(a->out);
    part.see = (attn_see){ .lse = fresh(a->see.lse) };
    return part;
}

static void splitting_the_keys_and_merging_equals_the_whole(void **state) {
    (void)state;
    uint64_t seed = 2;
    for (int n = 0; n < TIMES; n++) {
        attn_attention_args a = random_problem(&seed, dtypes[n % 2]);
        a.weighting = ATTN_WEIGHT_SOFTMAX, a.alpha = 0;
        a.dropout = 0, a.seed = a.dropout_offset = 0;
        a.see = (attn_see){ .lse = tensor3(accumulator(a.q.dtype), a.q.shape[0], heads_of(a.q), a.q.shape[2]) };
        int64_t keys = a.k.shape[2], at = between(&seed, 0, keys);
        bool first = between(&seed, 0, 1);
        attn_attention_args parts[2] = { part_of(&a, 0, at, first), part_of(&a, at, keys, !first) };
        attend(&a);
        attend(&parts[0]);
        attend(&parts[1]);
        attn_tensor outs[] = { parts[0].out, parts[1].out }, lses[] = { parts[0].see.lse, parts[1].see.lse };
        attn_merge_args m = { .n = 2, .outs = outs, .lses = lses, .out = fresh(a.out), .lse = fresh(a.see.lse) };
        assert_int_equal(attn_merge(&m, NULL), ATTN_OK);
        assert_rms_within("out", m.out, a.out, 4 * rms_bound(dtypes[n % 2]));
        double bound = dtypes[n % 2] == ATTN_F64 ? 1e-12 : 1e-4;
        for (int64_t i = 0; i < attn_count(&a.see.lse); i++)
            assert_close(get(m.lse, i), get(a.see.lse, i), bound * (1 + fabs(get(a.see.lse, i))));
        free_blocks(NULL);
    }
}

/* ---- heads, masks -------------------------------------------------------------------------------------------------- */

static void grouped_heads_are_repeated_heads_bit_for_bit(void **state) {
    (void)state;
    uint64_t seed = 3;
    for (int n = 0; n < TIMES; n++) {
        attn_attention_args a = random_problem(&seed, dtypes[n % 2]), b = a;
        int64_t heads = heads_of(a.q), *key_head = poisoned((size_t)heads * sizeof *key_head),
                *value_head = poisoned((size_t)heads * sizeof *value_head);
        for (int64_t h = 0; h < heads; h++) {
            key_head[h] = h / (heads / heads_of(a.k));
            value_head[h] = h / (heads / heads_of(a.v));
        }
        a.see = b.see = (attn_see){ 0 };
        b.k = gathered(a.k, 3, key_head, heads, heads_of(a.k));
        b.v = gathered(a.v, 3, value_head, heads, heads_of(a.v));
        b.out = fresh(a.out);
        attend(&a);
        attend(&b);
        assert_same_bits("out", b.out, a.out);
        free_blocks(NULL);
    }
}

static void positions_lengths_and_windows_are_a_mask(void **state) {
    (void)state;
    uint64_t seed = 4;
    for (int n = 0; n < TIMES; n++) {
        attn_attention_args a = random_problem(&seed, dtypes[n % 2]), b = a;
        attn_attention_plan plan;
        int64_t batch = a.q.shape[0], heads = heads_of(a.q), rows = a.q.shape[2], keys = a.k.shape[2];
        a.see = b.see = (attn_see){ 0 };
        assert_int_equal(attn_attention_plan_forward(&plan, &a, ATTN_PLAN_CALL), ATTN_OK);
        b.mask = tensor4(ATTN_BOOL, batch, heads, rows, keys);
        b.offset = tensor1(ATTN_I64, batch); /* for ALiBi */
        for (int64_t i = 0; i < batch; i++) put(b.offset, i, (double)attn_plan_sight(&plan, i).offset);
        for (int64_t i = 0; i < attn_count(&b.mask); i++)
            put(b.mask, i, plan_sees(&plan, i / keys / rows / heads, i / keys / rows % heads, i / keys % rows, i % keys));
        b.causal = ATTN_NOT_CAUSAL, b.flags &= ~(uint32_t)ATTN_WINDOW, b.window[0] = b.window[1] = 0;
        b.q_lengths = b.kv_lengths = (attn_tensor){ 0 };
        b.out = fresh(a.out);
        attend(&a);
        attend(&b);
        assert_rms_within("out", b.out, a.out, 2 * rms_bound(dtypes[n % 2]));
        free_blocks(NULL);
    }
}

/* ---- mass, tangents ------------------------------------------------------------------------------------------------ */

static void received_mass_sums_to_the_number_of_rows_that_see_a_key(void **state) {
    (void)state;
    uint64_t seed = 5;
    for (int n = 0; n < TIMES; n++) {
        attn_attention_args a = random_problem(&seed, dtypes[n % 2]);
        attn_attention_plan plan;
        a.weighting = ATTN_WEIGHT_SOFTMAX, a.alpha = 0;
        a.sinks = (attn_tensor){ 0 };
        int64_t batch = a.q.shape[0], heads = heads_of(a.q), rows = a.q.shape[2], keys = a.k.shape[2];
        a.see = (attn_see){ .received = tensor3(a.q.dtype, batch, heads, keys) };
        assert_int_equal(attn_attention_plan_forward(&plan, &a, ATTN_PLAN_CALL), ATTN_OK);
        attend(&a);
        for (int64_t h = 0; h < batch * heads; h++) {
            double sum = 0;
            int64_t live = 0;
            for (int64_t j = 0; j < keys; j++) sum += get(a.see.received, h * keys + j);
            for (int64_t i = 0; i < rows; i++) {
                bool sees = false;
                for (int64_t j = 0; j < keys; j++) sees |= plan_sees(&plan, h / heads, h % heads, i, j);
                live += sees;
            }
            assert_close(sum, (double)live, (dtypes[n % 2] == ATTN_F64 ? 1e-13 : 1e-5) * (double)(rows + 1));
        }
        free_blocks(NULL);
    }
}

/* <dout, J d> = <J' dout, d>: forward mode and backward are each other's adjoint. */
static void forward_mode_and_backward_are_adjoint(void **state) {
    (void)state;
    uint64_t seed = 6;
    for (int n = 0; n < TIMES; n++) {
        attn_attention_args a = smooth_problem(&seed, ATTN_F64);
        attn_attention_tangents t = { .dq = normal_like(a.q, &seed),
                                      .dk = normal_like(a.k, &seed),
                                      .dv = normal_like(a.v, &seed),
                                      .dout = fresh(a.out),
                                      .dlse = fresh(a.see.lse) };
        attn_attention_grads g = { .dout = normal_like(a.out, &seed),
                                   .dlse = normal_like(a.see.lse, &seed),
                                   .dq = fresh(a.q),
                                   .dk = fresh(a.k),
                                   .dv = fresh(a.v) };
        assert_int_equal(attn_attention_jvp(&a, &t, NULL), ATTN_OK);
        a.out = a.see.lse = (attn_tensor){ 0 };
        attend_backward(&a, &g);
        double forward = inner(g.dout, t.dout) + inner(g.dlse, t.dlse);
        double backward = inner(g.dq, t.dq) + inner(g.dk, t.dk) + inner(g.dv, t.dv);
        assert_close(forward, backward, 1e-10 * (1 + fabs(forward)));
        free_blocks(NULL);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(permuting_keys_with_their_values_changes_nothing_beyond_rounding, free_blocks),
        cmocka_unit_test_teardown(splitting_the_keys_and_merging_equals_the_whole, free_blocks),
        cmocka_unit_test_teardown(grouped_heads_are_repeated_heads_bit_for_bit, free_blocks),
        cmocka_unit_test_teardown(positions_lengths_and_windows_are_a_mask, free_blocks),
        cmocka_unit_test_teardown(received_mass_sums_to_the_number_of_rows_that_see_a_key, free_blocks),
        cmocka_unit_test_teardown(forward_mode_and_backward_are_adjoint, free_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
