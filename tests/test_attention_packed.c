/* SPDX-License-Identifier: Apache-2.0 */
/* Packed batches: sequences one behind the other give the bits that they give side by side with padding. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "attention_cases.h"
#include "tests/failing_malloc.h"

/* A sequence beyond 512 rows is shared out among the workers, the others are work items. */
enum { N = 6, H = 4, MOST_Q = 530, MOST_KV = 140 };
static const int64_t q_length[N] = { 7, 0, 530, 33, 1, 40 }, kv_length[N] = { 19, 5, 140, 0, 64, 40 };

static attn_tensor starts_of(int32_t dtype, const int64_t *length) {
    attn_tensor t = tensor1(dtype, N + 1);
    for (int64_t b = 0, at = 0; b <= N; at += b < N ? length[b] : 0, b++)
        dtype == ATTN_I32 ? (void)(((int32_t *)t.data)[b] = (int32_t)at) : (void)(((int64_t *)t.data)[b] = at);
    return t;
}

static int64_t sum_of(const int64_t *length) {
    int64_t sum = 0;
    for (int b = 0; b < N; b++) sum += length[b];
    return sum;
}

/* What an axis of lengths counts. */
typedef enum axis_kind { ROWS, KEYS } axis_kind;
static const int64_t *lengths(axis_kind which) { return which == ROWS ? q_length : kv_length; }

/* A packed tensor of the size of a padded one ([N, heads, length, ...]), with other strides. */
static attn_tensor packed_like(attn_tensor padded, axis_kind which) {
    if (!padded.rank) return padded;
    int64_t last = padded.rank == 4 ? padded.shape[3] : 1, total = sum_of(lengths(which)), heads = padded.shape[1];
    attn_tensor t = tensor_of(padded.dtype, 3, (int64_t[]){ total, heads, last });
    attn_tensor view = { .data = t.data,
                         .dtype = t.dtype,
                         .rank = padded.rank,
                         .shape = { 1, heads, total, last },
                         .stride = { total * heads * last, last, heads * last, 1 } };
    if (padded.rank == 3) view.shape[3] = view.stride[3] = 0;
    return view;
}

/* Element by element between a padded tensor and the packed one. */
typedef void (*visit_pair)(const char *what, char *packed, char *padded, size_t size);
static void each_element(const char *what, attn_tensor packed, attn_tensor padded, axis_kind which, visit_pair visit) {
    size_t size = attn_dtype_size(padded.dtype);
    int64_t last = padded.rank == 4 ? padded.shape[3] : 1, start = 0;
    for (int64_t b = 0; padded.rank && b < N; start += lengths(which)[b], b++)
        for (int64_t h = 0; h < padded.shape[1]; h++)
            for (int64_t i = 0; i < lengths(which)[b]; i++)
                for (int64_t d = 0; d < last; d++) {
                    int64_t at = h * packed.stride[1] + (start + i) * packed.stride[2] + d * packed.stride[3];
                    int64_t from = b * padded.stride[0] + h * padded.stride[1] + i * padded.stride[2] + d * padded.stride[3];
                    visit(what, (char *)packed.data + at * (int64_t)size, (char *)padded.data + from * (int64_t)size, size);
                }
}

static void copy_element(const char *what, char *packed, char *padded, size_t size) {
    (void)what;
    memcpy(packed, padded, size);
}

static void compare_element(const char *what, char *packed, char *padded, size_t size) {
    if (memcmp(packed, padded, size)) fail_msg("%s: not the bits of the padded batch", what);
}

static attn_tensor packed_copy(attn_tensor padded, axis_kind which) {
    attn_tensor t = packed_like(padded, which);
    each_element("input", t, padded, which, copy_element);
    return t;
}

/* ---- a padded batch, and the same packed ------------------------------------------------------------------------- */

static attn_attention_args padded_problem(int32_t dtype, uint64_t seed) {
    attn_attention_args a = problem((problem_shape){ N, H, 2, 1, MOST_Q, MOST_KV, 20, 9 }, dtype, seed);
    a.q_lengths = tensor1(ATTN_I64, N);
    a.kv_lengths = tensor1(ATTN_I64, N);
    memcpy(a.q_lengths.data, q_length, sizeof q_length);
    memcpy(a.kv_lengths.data, kv_length, sizeof kv_length);
    a.see = see_all(&a, 3);
    a.see.weights = a.see.scores = a.see.pooled = (attn_tensor){ 0 };
    return a;
}

static attn_attention_args pack(attn_attention_args a) {
    attn_attention_args p = a;
    p.q = packed_copy(a.q, ROWS);
    p.k = packed_copy(a.k, KEYS);
    p.v = packed_copy(a.v, KEYS);
    p.out = packed_like(a.out, ROWS);
    p.see.lse = packed_like(a.see.lse, ROWS);
    p.see.entropy = packed_like(a.see.entropy, ROWS);
    p.see.received = packed_like(a.see.received, KEYS);
    p.see.top_index = packed_like(a.see.top_index, ROWS);
    p.see.top_weight = packed_like(a.see.top_weight, ROWS);
    p.q_lengths = p.kv_lengths = (attn_tensor){ 0 };
    p.q_starts = starts_of(ATTN_I32, q_length);
    p.kv_starts = starts_of(ATTN_I64, kv_length);
    return p;
}

static void assert_same_forward(const attn_attention_args *p, const attn_attention_args *a) {
    each_element("out", p->out, a->out, ROWS, compare_element);
    each_element("lse", p->see.lse, a->see.lse, ROWS, compare_element);
    each_element("entropy", p->see.entropy, a->see.entropy, ROWS, compare_element);
    each_element("received", p->see.received, a->see.received, KEYS, compare_element);
    each_element("top_index", p->see.top_index, a->see.top_index, ROWS, compare_element);
    each_element("top_weight", p->see.top_weight, a->see.top_weight, ROWS, compare_element);
}

static attn_tensor numbers2(int32_t dtype, int64_t rows, int64_t columns, uint64_t seed) {
    attn_tensor t = tensor2(dtype, rows, columns);
    fill_normal(t, &seed);
    return t;
}

/* Options of many kinds, by number. */
enum { VARIANTS = 7 };
static void choose(attn_attention_args *a, int variant) {
    int32_t dtype = a->q.dtype;
    switch (variant) {
    case 0: return;
    case 1: a->causal = ATTN_CAUSAL; return;
    case 2:
        a->flags = ATTN_WINDOW;
        a->window[0] = 9, a->window[1] = 3;
        a->offset = tensor1(ATTN_I64, N);
        for (int64_t b = 0; b < N; b++) put(a->offset, b, (double)(3 * b - 4));
        a->alibi = numbers2(dtype, N, H, 5);
        return;
    case 3:
        a->sinks = values1(dtype, H, (double[]){ 0, -1, 2, 0.5 });
        a->dropout = 0.3;
        a->seed = 77;
        return;
    case 4:
        a->score = ATTN_ADDITIVE;
        a->score_weight = numbers2(dtype, H, 20, 6);
        a->softcap = 2;
        return;
    case 5: a->weighting = ATTN_WEIGHT_SIGMOID; break;
    default:
        a->weighting = ATTN_WEIGHT_ENTMAX;
        a->alpha = 1.3;
        return;
    }
    a->see.lse = a->see.entropy = (attn_tensor){ 0 };
}

static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_BF16 };

static void a_packed_batch_has_the_bits_of_the_padded_one(void **state) {
    (void)state;
    for (int variant = 0; variant < VARIANTS; variant++)
        for (int t = 0; t < 3; t++) {
            attn_attention_args a = padded_problem(dtypes[t], 3);
            choose(&a, variant);
            if (variant == 6) a.see.lse = (attn_tensor){ 0 };
            attn_attention_args p = pack(a);
            attend(&a);
            attend(&p);
            assert_same_forward(&p, &a);
            free_blocks(NULL);
        }
}

/* ---- gradients --------------------------------------------------------------------------------------------------- */

/* `own`: alibi's and the sinks' gradients for each sequence; else summed. */
static attn_attention_grads padded_gradients(const attn_attention_args *a, bool own) {
    uint64_t seed = 9;
    int32_t dtype = a->q.dtype, summed = dtype == ATTN_BF16 ? ATTN_F32 : dtype;
    attn_attention_grads g = { .dout = tensor_of(dtype, 4, a->out.shape),
                               .dq = tensor_of(dtype, 4, a->q.shape),
                               .dk = tensor_of(dtype, 4, a->k.shape),
                               .dv = tensor_of(dtype, 4, a->v.shape) };
    fill_normal(g.dout, &seed);
    if (a->weighting == ATTN_WEIGHT_SOFTMAX) {
        g.dlse = tensor3(accumulator(dtype), N, H, MOST_Q);
        fill_normal(g.dlse, &seed);
        /* padding has an lse, the sink's; a packed batch has no padding */
        for (int64_t n = 0; n < N * H * MOST_Q; n++)
            if (n % MOST_Q >= q_length[n / MOST_Q / H]) put(g.dlse, n, 0);
    }
    if (a->alibi.rank) g.dalibi = own ? tensor2(summed, N, H) : tensor1(summed, H);
    if (a->sinks.rank) g.dsinks = own ? tensor2(summed, N, 1) : tensor1(summed, H);
    if (a->score_weight.rank) g.dscore_weight = own ? tensor2(summed, H, 20) : tensor1(summed, 20);
    if (a->weighting == ATTN_WEIGHT_ENTMAX) g.dalpha = tensor1(ATTN_F64, 1);
    return g;
}

static attn_tensor like(attn_tensor t) { return t.rank ? tensor_of(t.dtype, t.rank, t.shape) : t; }

static attn_attention_grads packed_gradients(attn_attention_grads g) {
    return (attn_attention_grads){ .dout = packed_copy(g.dout, ROWS),
                                   .dlse = packed_copy(g.dlse, ROWS),
                                   .dq = packed_like(g.dq, ROWS),
                                   .dk = packed_like(g.dk, KEYS),
                                   .dv = packed_like(g.dv, KEYS),
                                   .dalibi = like(g.dalibi),
                                   .dsinks = like(g.dsinks),
                                   .dalpha = like(g.dalpha),
                                   .dscore_weight = like(g.dscore_weight) };
}

/* Sums over the batch are made in another order. */
static void assert_close_sums(const char *what, attn_tensor packed, attn_tensor padded) {
    if (padded.rank) assert_rms_within(what, packed, padded, padded.dtype == ATTN_F64 ? 1e-13 : 1e-6);
}

static void assert_same_gradients(const attn_attention_grads *p, const attn_attention_grads *g) {
    each_element("dq", p->dq, g->dq, ROWS, compare_element);
    each_element("dk", p->dk, g->dk, KEYS, compare_element);
    each_element("dv", p->dv, g->dv, KEYS, compare_element);
    assert_close_sums("dalibi", p->dalibi, g->dalibi);
    assert_close_sums("dsinks", p->dsinks, g->dsinks);
    assert_close_sums("dalpha", p->dalpha, g->dalpha);
    assert_close_sums("dscore_weight", p->dscore_weight, g->dscore_weight);
}

static void gradients_of_a_packed_batch_are_those_of_the_padded_one(void **state) {
    (void)state;
    for (int variant = 0; variant < VARIANTS; variant++)
        for (int t = 0; t < 3; t++) {
            attn_attention_args a = padded_problem(dtypes[t], 4);
            choose(&a, variant);
            a.see = (attn_see){ 0 };
            attn_attention_args p = pack(a);
            attn_attention_grads g = padded_gradients(&a, t == 1), packed = packed_gradients(g);
            p.out = a.out = (attn_tensor){ 0 };
            attend_backward(&a, &g);
            attend_backward(&p, &packed);
            assert_same_gradients(&packed, &g);
            free_blocks(NULL);
        }
}

static void tangents_and_second_derivatives_of_a_packed_batch_are_those_of_the_padded_one(void **state) {
    (void)state;
    for (int t = 0; t < 2; t++) {
        uint64_t seed = 8;
        attn_attention_args a = padded_problem(dtypes[t], 5);
        choose(&a, 3);
        a.see = (attn_see){ 0 };
        attn_attention_args p = pack(a);
        attn_tensor dq = like(a.q), dk = like(a.k), dv = like(a.v), dout = like(a.out), ddout = like(a.out);
        attn_tensor *const inputs[] = { &dq, &dk, &dv, &dout };
        for (int i = 0; i < 4; i++) fill_normal(*inputs[i], &seed);
        attn_attention_tangents along = { .dq = dq, .dk = dk, .dv = dv, .dout = ddout, .dlse = tensor3(dtypes[t], N, H, MOST_Q) };
        attn_attention_tangents packed_along = { .dq = packed_copy(dq, ROWS),
                                                 .dk = packed_copy(dk, KEYS),
                                                 .dv = packed_copy(dv, KEYS),
                                                 .dout = packed_like(ddout, ROWS),
                                                 .dlse = packed_like(along.dlse, ROWS) };
        assert_int_equal(attn_attention_jvp(&a, &along, NULL), ATTN_OK);
        assert_int_equal(attn_attention_jvp(&p, &packed_along, NULL), ATTN_OK);
        each_element("tangent of out", packed_along.dout, along.dout, ROWS, compare_element);
        each_element("tangent of lse", packed_along.dlse, along.dlse, ROWS, compare_element);
        attn_attention_double_grads g = {
            .dout = dout, .ddq = dq, .ddk = dk, .ddv = dv, .dq = like(a.q), .dk = like(a.k), .dv = like(a.v), .ddout = like(a.out)
        };
        attn_attention_double_grads packed = { .dout = packed_copy(dout, ROWS),
                                               .ddq = packed_along.dq,
                                               .ddk = packed_along.dk,
                                               .ddv = packed_along.dv,
                                               .dq = packed_like(a.q, ROWS),
                                               .dk = packed_like(a.k, KEYS),
                                               .dv = packed_like(a.v, KEYS),
                                               .ddout = packed_like(a.out, ROWS) };
        assert_int_equal(attn_attention_double_backward(&a, &g, NULL), ATTN_OK);
        assert_int_equal(attn_attention_double_backward(&p, &packed, NULL), ATTN_OK);
        each_element("second dq", packed.dq, g.dq, ROWS, compare_element);
        each_element("second dk", packed.dk, g.dk, KEYS, compare_element);
        each_element("second dv", packed.dv, g.dv, KEYS, compare_element);
        each_element("ddout", packed.ddout, g.ddout, ROWS, compare_element);
        free_blocks(NULL);
    }
}

static void rows_through_the_weights_of_a_packed_batch_too(void **state) {
    (void)state;
    for (int t = 0; t < 3; t++) {
        uint64_t seed = 12;
        int32_t seen = accumulator(dtypes[t]);
        attn_attention_args a = padded_problem(dtypes[t], 7);
        choose(&a, 1 + t);
        a.see = (attn_see){ 0 };
        attn_attention_args p = pack(a);
        attn_received_args r = { .by = tensor3(seen, N, H, MOST_Q),
                                 .dout = like(a.out),
                                 .received = tensor3(seen, N, H, MOST_KV) };
        fill_normal(r.by, &seed);
        fill_normal(r.dout, &seed);
        attn_received_args packed = { .by = packed_copy(r.by, ROWS),
                                      .dout = packed_copy(r.dout, ROWS),
                                      .received = packed_like(r.received, KEYS) };
        assert_int_equal(attn_attention_received(&a, &r, NULL), ATTN_OK);
        assert_int_equal(attn_attention_received(&p, &packed, NULL), ATTN_OK);
        each_element("received", packed.received, r.received, KEYS, compare_element);
        free_blocks(NULL);
    }
}

/* ---- threads, memory --------------------------------------------------------------------------------------------- */

static void threads_and_lent_memory_change_no_bit_and_nothing_is_allocated(void **state) {
    (void)state;
    attn_attention_args a = padded_problem(ATTN_F32, 6);
    choose(&a, 2);
    attn_attention_args p = pack(a), q = pack(a);
    attn_attention_grads g = padded_gradients(&a, false), one = packed_gradients(g), many = packed_gradients(g);
    attend(&p);
    attend_backward(&p, &one);
    for (int32_t threads = 1; threads <= 7; threads += threads == 3 ? 4 : 1) {
        attn_exec exec;
        assert_int_equal(attn_pool_open(&exec, threads), ATTN_OK);
        size_t forward = attn_attention_workspace(&q, threads), backward = attn_attention_backward_workspace(&q, &many, threads);
        exec.workspace_size = forward > backward ? forward : backward;
        exec.workspace = poisoned(exec.workspace_size);
        memory.allowed = 0;
        memory.for_ever = true;
        attn_status s = attn_attention(&q, &exec), t = attn_attention_backward(&q, &many, &exec);
        memory.allowed = -1;
        assert_int_equal(s, ATTN_OK);
        assert_int_equal(t, ATTN_OK);
        assert_same_bits("out", q.out, p.out);
        assert_same_bits("received", q.see.received, p.see.received);
        assert_same_bits("dq", many.dq, one.dq);
        assert_same_bits("dk", many.dk, one.dk);
        assert_same_bits("dalibi", many.dalibi, one.dalibi);
        attn_pool_close(&exec);
    }
}

static void no_memory_is_a_status(void **state) {
    (void)state;
    attn_attention_args p = pack(padded_problem(ATTN_F32, 6));
    memory.allowed = 0;
    attn_status s = attn_attention(&p, NULL);
    memory.allowed = -1;
    assert_int_equal(s, ATTN_NO_MEMORY);
}

/* ---- edges ------------------------------------------------------------------------------------------------------- */

static void no_sequence_at_all_is_no_work_and_sums_are_0(void **state) {
    (void)state;
    attn_attention_args a = problem((problem_shape){ 1, H, H, H, 0, 0, 8, 8 }, ATTN_F32, 1);
    a.q_starts = tensor1(ATTN_I32, 1);
    put(a.q_starts, 0, 0);
    a.sinks = values1(ATTN_F32, H, (double[]){ 1, 2, 3, 4 });
    attn_attention_grads g = { .dout = tensor_of(ATTN_F32, 4, a.out.shape), .dsinks = tensor1(ATTN_F32, H) };
    attend(&a);
    attend_backward(&a, &g);
    assert_all("dsinks", g.dsinks, 0);
}

static void one_start_of_keys_is_enough_for_self_attention(void **state) {
    (void)state;
    attn_attention_args a = problem((problem_shape){ 1, H, H, H, 12, 12, 8, 8 }, ATTN_F32, 1), b = a;
    a.q_starts = values1(ATTN_I32, 3, (double[]){ 0, 5, 12 });
    b.q_starts = b.kv_starts = a.q_starts;
    b.out = like(a.out);
    attend(&a);
    attend(&b);
    assert_same_bits("out", a.out, b.out);
}

static void assert_refused(const attn_attention_args *a, attn_status status, const char *words) {
    fill(a->out, 42);
    assert_int_equal(attn_attention(a, NULL), status);
    if (!strstr(attn_last_error(), words)) fail_msg("'%s' does not say '%s'", attn_last_error(), words);
    assert_all("out", a->out, 42);
}

static void wrong_starts_are_refused_by_name(void **state) {
    (void)state;
    attn_attention_args good = pack(padded_problem(ATTN_F32, 6)), a = good;
    a.q_starts = (attn_tensor){ 0 };
    assert_refused(&a, ATTN_BAD_ARGUMENT, "kv_starts is given without q_starts");
    a = good, a.kv_starts = (attn_tensor){ 0 };
    assert_refused(&a, ATTN_BAD_SHAPE, "kv_starts is needed");
    a = good, a.q_lengths = tensor1(ATTN_I64, N);
    assert_refused(&a, ATTN_BAD_ARGUMENT, "q_lengths is given beside q_starts");
    a = good, a.mask = tensor2(ATTN_BOOL, 1, 1);
    assert_refused(&a, ATTN_UNSUPPORTED, "mask is given beside q_starts");
    a = good, a.see.pooled = tensor4(ATTN_F32, 1, H, 2, 2);
    assert_refused(&a, ATTN_UNSUPPORTED, "see.pooled is given beside q_starts");
    a = good, a.q_starts = starts_of(ATTN_I32, q_length), ((int32_t *)a.q_starts.data)[0] = 1;
    assert_refused(&a, ATTN_BAD_ARGUMENT, "q_starts[0] is 1: the first is 0");
    a = good, a.q_starts = starts_of(ATTN_I32, q_length), ((int32_t *)a.q_starts.data)[2] = 6;
    assert_refused(&a, ATTN_BAD_ARGUMENT, "q_starts[2] is 6: it is below the one before");
    a = good, a.kv_starts = starts_of(ATTN_I64, kv_length), ((int64_t *)a.kv_starts.data)[N] = 1000;
    assert_refused(&a, ATTN_BAD_ARGUMENT, "kv_starts[6] is 1000: the last is the total, here 268");
    a = good, a.q_starts = tensor1(ATTN_I32, 0);
    assert_refused(&a, ATTN_BAD_SHAPE, "q_starts is empty");
    a = good, a.q_starts = tensor1(ATTN_F32, N + 1);
    assert_refused(&a, ATTN_BAD_ARGUMENT, "q_starts is f32: it is i32 or i64");
    a = good, a.kv_starts = values1(ATTN_I64, 2, (double[]){ 0, 268 });
    assert_refused(&a, ATTN_BAD_SHAPE, "kv_starts has 2 numbers, q_starts 7");
    a = good, a.offset = tensor1(ATTN_I64, N + 1);
    assert_refused(&a, ATTN_BAD_SHAPE, "offset");
    a = padded_problem(ATTN_F32, 6), a.q_lengths = a.kv_lengths = (attn_tensor){ 0 }, a.q_starts = good.q_starts;
    assert_refused(&a, ATTN_BAD_SHAPE, "q has batch 6 and q_starts is given");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_packed_batch_has_the_bits_of_the_padded_one, free_blocks),
        cmocka_unit_test_teardown(gradients_of_a_packed_batch_are_those_of_the_padded_one, free_blocks),
        cmocka_unit_test_teardown(tangents_and_second_derivatives_of_a_packed_batch_are_those_of_the_padded_one, free_blocks),
        cmocka_unit_test_teardown(rows_through_the_weights_of_a_packed_batch_too, free_blocks),
        cmocka_unit_test_teardown(threads_and_lent_memory_change_no_bit_and_nothing_is_allocated, free_blocks),
        cmocka_unit_test_teardown(no_memory_is_a_status, free_blocks),
        cmocka_unit_test_teardown(no_sequence_at_all_is_no_work_and_sums_are_0, free_blocks),
        cmocka_unit_test_teardown(one_start_of_keys_is_enough_for_self_attention, free_blocks),
        cmocka_unit_test_teardown(wrong_starts_are_refused_by_name, free_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
