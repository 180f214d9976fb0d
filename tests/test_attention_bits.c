/* SPDX-License-Identifier: Apache-2.0 */
/* The bits promise: a row's result depends on its own query, its sequence's keys, values, mask and bias, and its position - not
 * on threads, batch neighbours, grouping, strides, lent memory, masked keys behind, or the caller's floating-point environment. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "attention_cases.h"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

/* ---- the problems ------------------------------------------------------------------------------------------------- */

enum { PROBLEMS = 7 };

/* Blocks of queries, a single row, f64, 16 bits, the additive score, sigmoid, cosine with relu^2: with options that compose. */
static attn_attention_args some_problem(int which) {
    static const problem_shape shapes[PROBLEMS] = { { 2, 2, 1, 2, 45, 140, 17, 12 }, { 3, 2, 2, 1, 3, 200, 40, 20 },
                                                    { 2, 2, 2, 1, 37, 90, 16, 24 },  { 2, 2, 1, 1, 5, 9, 8, 8 },
                                                    { 1, 2, 1, 2, 33, 60, 12, 20 },  { 2, 2, 2, 2, 25, 140, 17, 9 },
                                                    { 2, 4, 2, 2, 47, 290, 10, 9 } };
    static const int32_t dtypes[PROBLEMS] = { ATTN_F32, ATTN_F32, ATTN_F64, ATTN_BF16, ATTN_F32, ATTN_F32, ATTN_F32 };
    problem_shape z = shapes[which];
    uint64_t seed = 100 + (uint64_t)which;
    attn_attention_args a = problem(z, dtypes[which], seed);
    a.causal = which % 2 ? ATTN_NOT_CAUSAL : ATTN_CAUSAL;
    a.mask = tensor4(ATTN_BOOL, z.b, 1, z.q_len, z.kv_len);
    fill_coin(a.mask, &seed, 0.8);
    a.bias = tensor4(ATTN_F32, 1, z.h, 1, z.kv_len);
    if (which == 2) a.bias = tensor4(ATTN_F64, 1, z.h, 1, z.kv_len);
    fill_normal(a.bias, &seed);
    if (which == 4) {
        a.score = ATTN_ADDITIVE;
        a.score_weight = tensor1(ATTN_F32, z.dim);
        fill_normal(a.score_weight, &seed);
    }
    if (which == 5) a.weighting = ATTN_WEIGHT_SIGMOID;
    if (which == 6) {
        a.weighting = ATTN_WEIGHT_RELU2;
        a.score = ATTN_COSINE;
    }
    if (which % 2 == 0) {
        a.dropout = 0.3;
        a.seed = 77;
    }
    if (which < 3) {
        a.sinks = tensor1(dtypes[which], z.h);
        fill_normal(a.sinks, &seed);
    }
    a.see = see_all(&a, 3);
    return a;
}

static attn_attention_grads some_gradients(const attn_attention_args *a) {
    uint64_t seed = 7;
    int32_t dtype = a->q.dtype;
    attn_attention_grads g = { .dout = tensor_of(dtype, 4, a->out.shape),
                               .dq = tensor_of(dtype, 4, a->q.shape),
                               .dk = tensor_of(dtype, 4, a->k.shape),
                               .dv = tensor_of(dtype, 4, a->v.shape),
                               .dbias = tensor_of(a->bias.dtype, 4, a->bias.shape) };
    fill_normal(g.dout, &seed);
    if (a->score_weight.rank) g.dscore_weight = tensor1(dtype, a->q.shape[3]);
    if (a->sinks.rank) g.dsinks = tensor1(dtype, a->sinks.shape[0]);
    return g;
}

static attn_tensor fresh(attn_tensor t) { return t.rank ? tensor_of(t.dtype, t.rank, t.shape) : t; }

static attn_attention_args with_fresh_outputs(attn_attention_args a) {
    attn_tensor *outputs[] = { &a.out,        &a.see.lse,       &a.see.entropy,    &a.see.received, &a.see.weights,
                               &a.see.scores, &a.see.top_index, &a.see.top_weight, &a.see.pooled };
    for (int i = 0; i < 9; i++) *outputs[i] = fresh(*outputs[i]);
    return a;
}

static attn_attention_grads with_fresh_gradients(attn_attention_grads g) {
    attn_tensor *outputs[] = { &g.dq, &g.dk, &g.dv, &g.dbias, &g.dscore_weight, &g.dsinks };
    for (int i = 0; i < 6; i++) *outputs[i] = fresh(*outputs[i]);
    return g;
}

static void assert_same_results(const attn_attention_args *a, const attn_attention_args *b) {
    assert_same_bits("out", b->out, a->out);
    assert_same_bits("lse", b->see.lse, a->see.lse);
    assert_same_bits("entropy", b->see.entropy, a->see.entropy);
    assert_same_bits("received", b->see.received, a->see.received);
    assert_same_bits("weights", b->see.weights, a->see.weights);
    assert_same_bits("scores", b->see.scores, a->see.scores);
    assert_same_bits("top_index", b->see.top_index, a->see.top_index);
    assert_same_bits("top_weight", b->see.top_weight, a->see.top_weight);
    assert_same_bits("pooled", b->see.pooled, a->see.pooled);
}

static void assert_same_gradients(const attn_attention_grads *g, const attn_attention_grads *h) {
    assert_same_bits("dq", h->dq, g->dq);
    assert_same_bits("dk", h->dk, g->dk);
    assert_same_bits("dv", h->dv, g->dv);
    assert_same_bits("dbias", h->dbias, g->dbias);
    assert_same_bits("dscore_weight", h->dscore_weight, g->dscore_weight);
    assert_same_bits("dsinks", h->dsinks, g->dsinks);
}

/* Forward and backward with `exec` give the bits of the plain call. */
static void assert_exec_changes_nothing(const attn_exec *exec, int which) {
    attn_attention_args a = some_problem(which), b = with_fresh_outputs(a);
    attn_attention_grads g = some_gradients(&a), h = with_fresh_gradients(g);
    attend(&a);
    attend_backward(&a, &g);
    assert_int_equal(attn_attention(&b, exec), ATTN_OK);
    assert_int_equal(attn_attention_backward(&b, &h, exec), ATTN_OK);
    assert_same_results(&a, &b);
    assert_same_gradients(&g, &h);
    free_blocks(NULL);
}

/* ---- who computes ---------------------------------------------------------------------------------------------------- */

static void any_number_of_threads_gives_the_same_bits(void **state) {
    (void)state;
    static const int32_t threads[] = { 1, 2, 3, 7 };
    for (int t = 0; t < 4; t++) {
        attn_exec exec = { 0 };
        assert_int_equal(attn_pool_open(&exec, threads[t]), ATTN_OK);
        for (int which = 0; which < PROBLEMS; which++) assert_exec_changes_nothing(&exec, which);
        attn_pool_close(&exec);
    }
}

static void one_after_the_other(void *pool, int32_t n, attn_task task, void *job) {
    (*(int *)pool)++;
    for (int32_t w = n - 1; w >= 0; w--) task(job, w);
}

static void a_caller_s_own_parallel_for_gives_the_same_bits(void **state) {
    (void)state;
    int calls = 0;
    attn_exec exec = { .n_threads = 5, .parallel_for = one_after_the_other, .pool = &calls };
    for (int which = 0; which < PROBLEMS; which++) assert_exec_changes_nothing(&exec, which);
    assert_true(calls > 0);
}

static void lent_memory_of_any_alignment_gives_the_same_bits(void **state) {
    (void)state;
    for (int which = 0; which < PROBLEMS; which++) {
        attn_attention_args a = some_problem(which);
        attn_attention_grads g = some_gradients(&a);
        size_t forward = attn_attention_workspace(&a, 1), backward = attn_attention_backward_workspace(&a, &g, 1);
        size_t size = forward > backward ? forward : backward;
        char *memory = malloc(size + 3);
        assert_non_null(memory);
        memset(memory, 0x7f, size + 3);
        attn_exec exec = { .workspace = memory + 3, .workspace_size = size };
        assert_exec_changes_nothing(&exec, which);
        free(memory);
    }
}

#if defined(__x86_64__)
static void flush_to_zero_and_another_rounding_of_the_caller_change_nothing(void **state) {
    (void)state;
    attn_exec pool = { 0 };
    assert_int_equal(attn_pool_open(&pool, 2), ATTN_OK);
    for (int which = 0; which < PROBLEMS; which++) {
        attn_attention_args a = some_problem(which), b, c;
        for (int64_t n = 0; n < attn_count(&a.v); n += 3)
            put(a.v, n, get(a.v, n) * 0x1p-130); /* results below the normal range */
        b = with_fresh_outputs(a);
        c = with_fresh_outputs(a);
        attn_attention_grads g = some_gradients(&a), h = with_fresh_gradients(g);
        attend(&a);
        attend_backward(&a, &g);
        unsigned usual = _mm_getcsr(), odd = 0x1f80 | 0x8040 | 0x4000; /* flush to zero, denormals are zero, round up */
        _mm_setcsr(odd);
        attn_status s = attn_attention(&b, NULL), p = attn_attention(&c, &pool), t = attn_attention_backward(&a, &h, NULL);
        unsigned after = _mm_getcsr();
        _mm_setcsr(usual);
        assert_true(s == ATTN_OK && p == ATTN_OK && t == ATTN_OK);
        assert_int_equal(after & ~0x3fu, odd); /* but for the sticky flags */
        assert_same_results(&a, &b);
        assert_same_results(&a, &c);
        assert_same_gradients(&g, &h);
        free_blocks(NULL);
    }
    attn_pool_close(&pool);
}
#endif

/* ---- what surrounds a sequence ------------------------------------------------------------------------------------------ */

/* Entry b of a tensor that has one per batch entry, or the whole of one that broadcasts. */
static attn_tensor entry(attn_tensor t, int64_t b) {
    if (!t.rank) return t;
    if (t.shape[0] > 1) t.data = attn_at(&t, b * t.stride[0]);
    t.shape[0] = 1;
    return t;
}

static void batch_neighbours_change_nothing(void **state) {
    (void)state;
    for (int which = 0; which < PROBLEMS; which++) {
        attn_attention_args a = some_problem(which);
        a.dropout = 0; /* which draws by the number of the entry */
        attend(&a);
        for (int64_t b = 0; b < a.q.shape[0]; b++) {
            attn_attention_args one = a;
            one.q = entry(a.q, b), one.k = entry(a.k, b), one.v = entry(a.v, b), one.mask = entry(a.mask, b);
            one.out = entry(a.out, b);
            one.out = fresh(one.out);
            one.see = see_all(&one, 3);
            attend(&one);
            assert_same_bits("out", one.out, entry(a.out, b));
            assert_same_bits("weights", one.see.weights, entry(a.see.weights, b));
            assert_same_bits("received", one.see.received, entry(a.see.received, b));
            assert_same_bits("pooled", one.see.pooled, entry(a.see.pooled, b));
        }
        free_blocks(NULL);
    }
}

static void strides_and_layouts_change_nothing(void **state) {
    (void)state;
    for (int which = 0; which < PROBLEMS; which++) {
        attn_attention_args a = some_problem(which), b = with_fresh_outputs(a);
        attn_attention_grads g = some_gradients(&a), h = g;
        b.q = strided_copy(a.q), b.k = strided_copy(a.k), b.v = strided_copy(a.v), b.out = strided_copy(a.out);
        b.mask = strided_copy(a.mask), b.bias = strided_copy(a.bias);
        h.dq = strided_copy(g.dq), h.dk = strided_copy(g.dk), h.dv = strided_copy(g.dv), h.dout = strided_copy(g.dout);
        h.dbias = strided_copy(g.dbias);
        if (g.dscore_weight.rank) h.dscore_weight = fresh(g.dscore_weight);
        if (g.dsinks.rank) {
            h.dsinks = fresh(g.dsinks);
            b.sinks = attn_dense(a.sinks.dtype, poisoned(3 * 8 * (size_t)a.sinks.shape[0]), 1, a.sinks.shape);
            b.sinks.stride[0] = 3;
            for (int64_t n = 0; n < a.sinks.shape[0]; n++) put(b.sinks, n, get(a.sinks, n));
        }
        attend(&a);
        attend(&b);
        assert_same_results(&a, &b);
        attend_backward(&a, &g);
        attend_backward(&b, &h);
        assert_same_gradients(&g, &h);
        /* [batch, length, heads, dim] in memory, as frameworks keep it */
        attn_attention_args c = with_fresh_outputs(a);
        attn_tensor *each[] = { &c.q, &c.k, &c.v, &c.out };
        for (int i = 0; i < 4; i++) {
            attn_tensor t = *each[i], l;
            void *data = poisoned((size_t)attn_count(&t) * attn_dtype_size(t.dtype));
            l = attn_bshd(t.dtype, data, t.shape[0], t.shape[2], t.shape[1], t.shape[3]);
            for (int64_t n = 0; n < attn_count(&t); n++) put(l, n, get(t, n));
            *each[i] = l;
        }
        attend(&c);
        assert_same_results(&a, &c);
        free_blocks(NULL);
    }
}

static attn_tensor repeated_heads(attn_tensor t, int64_t heads) {
    attn_tensor wide = tensor4(t.dtype, t.shape[0], heads, t.shape[2], t.shape[3]);
    int64_t inner = t.shape[2] * t.shape[3], group = heads / t.shape[1];
    for (int64_t n = 0; n < attn_count(&wide); n++)
        put(wide, n, get4(t, n / inner / heads, n / inner % heads / group, n / t.shape[3] % t.shape[2], n % t.shape[3]));
    return wide;
}

static void grouped_heads_equal_repeated_heads(void **state) {
    (void)state;
    for (int which = 0; which < PROBLEMS; which++) {
        attn_attention_args a = some_problem(which), b = with_fresh_outputs(a);
        b.k = repeated_heads(a.k, a.q.shape[1]);
        b.v = repeated_heads(a.v, a.q.shape[1]);
        attend(&a);
        attend(&b);
        assert_same_results(&a, &b);
        free_blocks(NULL);
    }
}

static attn_tensor with_rows_behind(attn_tensor t, int32_t axis, int64_t more, double value) {
    int64_t shape[4] = { t.shape[0], t.shape[1], t.shape[2], t.shape[3] };
    shape[axis] += more;
    attn_tensor longer = tensor_of(t.dtype, 4, shape);
    fill(longer, value);
    attn_tensor front = longer;
    front.shape[axis] = t.shape[axis];
    for (int64_t n = 0; n < attn_count(&t); n++) put(front, n, get(t, n));
    return longer;
}

static void masked_keys_appended_behind_change_nothing(void **state) {
    (void)state;
    for (int which = 0; which < PROBLEMS; which++)
        for (int by_length = 0; by_length < 2; by_length++) {
            attn_attention_args a = some_problem(which), b = with_fresh_outputs(a);
            int64_t batch = a.q.shape[0], keys = a.k.shape[2];
            attn_attention_grads g = some_gradients(&a), h = with_fresh_gradients(g);
            double offset = (double)(keys - a.q.shape[2]);
            b.k = with_rows_behind(a.k, 2, 77, NAN);
            b.v = with_rows_behind(a.v, 2, 77, INFINITY);
            b.mask = with_rows_behind(a.mask, 3, 77, by_length);
            b.bias = with_rows_behind(a.bias, 3, 77, 1);
            b.see = (attn_see){ .entropy = b.see.entropy, .lse = b.see.lse, .top_index = b.see.top_index };
            if (by_length) {
                b.kv_lengths = tensor1(ATTN_I32, batch);
                fill(b.kv_lengths, (double)keys);
            } else {
                b.offset = values1(ATTN_I64, 1, &offset);
            }
            h.dk = tensor_of(g.dk.dtype, 4, b.k.shape);
            h.dv = tensor_of(g.dv.dtype, 4, b.v.shape);
            h.dbias = tensor_of(g.dbias.dtype, 4, b.bias.shape);
            attend(&a);
            attend(&b);
            attend_backward(&a, &g);
            attend_backward(&b, &h);
            assert_same_bits("out", b.out, a.out);
            assert_same_bits("lse", b.see.lse, a.see.lse);
            assert_same_bits("entropy", b.see.entropy, a.see.entropy);
            assert_same_bits("top_index", b.see.top_index, a.see.top_index);
            assert_same_bits("dq", h.dq, g.dq);
            h.dk.shape[2] = h.dv.shape[2] = h.dbias.shape[3] = keys;
            assert_same_bits("dk", h.dk, g.dk);
            assert_same_bits("dv", h.dv, g.dv);
            assert_same_bits("dbias", h.dbias, g.dbias);
            free_blocks(NULL);
        }
}

/* More rows before or behind leave a row as it is, as long as its position stays and both calls work on blocks of queries. */
static void other_rows_of_the_sequence_change_nothing(void **state) {
    (void)state;
    for (int32_t dtype = ATTN_F32; dtype <= ATTN_F64; dtype += ATTN_F64 - ATTN_F32) {
        attn_attention_args a = problem((problem_shape){ 1, 2, 2, 2, 93, 170, 24, 16 }, dtype, 9), b = a;
        a.causal = b.causal = ATTN_CAUSAL;
        a.flags = b.flags = ATTN_WINDOW;
        a.window[0] = b.window[0] = 60;
        b.q.data = attn_at(&a.q, 41 * a.q.stride[2]);
        b.q.shape[2] = 30;
        b.out = tensor4(dtype, 1, 2, 30, 16);
        a.offset = values1(ATTN_I32, 1, (double[]){ 20 });
        b.offset = values1(ATTN_I32, 1, (double[]){ 61 });
        attend(&a);
        attend(&b);
        attn_tensor middle = a.out;
        middle.data = attn_at(&a.out, 41 * a.out.stride[2]);
        middle.shape[2] = 30;
        assert_same_bits("out", b.out, middle);
    }
}

/* Each entry's own length decides: a padded batch gives the bits of the sequences alone. */
static void padding_gives_the_bits_of_the_sequence_alone(void **state) {
    (void)state;
    static const int64_t q_lengths[] = { 64, 20, 3 }, kv_lengths[] = { 100, 31, 77 };
    attn_attention_args a = problem((problem_shape){ 3, 2, 1, 1, 64, 100, 32, 16 }, ATTN_F32, 11);
    a.causal = ATTN_CAUSAL;
    a.q_lengths = tensor1(ATTN_I32, 3);
    a.kv_lengths = tensor1(ATTN_I32, 3);
    for (int b = 0; b < 3; b++) {
        put(a.q_lengths, b, (double)q_lengths[b]);
        put(a.kv_lengths, b, (double)kv_lengths[b]);
    }
    attend(&a);
    for (int b = 0; b < 3; b++) {
        attn_attention_args one = { .q = entry(a.q, b), .k = entry(a.k, b), .v = entry(a.v, b), .causal = ATTN_CAUSAL };
        one.q.shape[2] = q_lengths[b];
        one.k.shape[2] = one.v.shape[2] = kv_lengths[b];
        one.out = tensor4(ATTN_F32, 1, 2, q_lengths[b], 16);
        attend(&one);
        attn_tensor mine = entry(a.out, b);
        mine.shape[2] = q_lengths[b];
        assert_same_bits("out", one.out, mine);
        for (int64_t i = q_lengths[b]; i < 64; i++) assert_true(get4(a.out, b, 0, i, 0) == 0);
    }
}

/* ---- how many rows --------------------------------------------------------------------------------------------------- */

/* Rows begin .. begin + n - 1 of a problem, as a problem of their own. */
static attn_tensor some_rows(attn_tensor t, int64_t begin, int64_t n) {
    if (t.rank < 3 || t.shape[2] == 1) return t;
    t.data = attn_at(&t, begin * t.stride[2]);
    t.shape[2] = n;
    return t;
}

/* A position given by hand, other heads than lanes, values that some rows must not see. */
enum { FEW_PROBLEMS = 9, MANY = 40 };
static attn_attention_args many_rows(int which) {
    static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_BF16, ATTN_F32 };
    uint64_t seed = 300 + (uint64_t)which;
    int64_t dim = which % 2 ? 37 : 64, v_dim = which % 3 ? 70 : 24;
    attn_attention_args a = problem((problem_shape){ 2, 6, 2, 2, MANY, 430, dim, v_dim }, dtypes[which % 4], seed);
    a.offset = tensor1(ATTN_I64, 1);
    put(a.offset, 0, 390);
    if (which != 1) a.causal = ATTN_CAUSAL;
    if (which == 2 || which == 5) {
        a.flags = ATTN_WINDOW;
        a.window[0] = 100;
    }
    if (which >= 3) {
        a.mask = tensor4(ATTN_BOOL, 2, which % 2 ? 6 : 1, MANY, 430);
        fill_coin(a.mask, &seed, 0.7);
        for (int64_t b = 0; b < 2; b++)
            for (int64_t i = 0; i < MANY; i++)
                for (int64_t h = 0; h < a.mask.shape[1]; h++) put4(a.mask, b, h, i, 200, i % 3 == 0);
        for (int64_t c = 0; c < v_dim; c++) put4(a.v, 1, 1, 200, c, c % 2 ? NAN : INFINITY);
        a.bias = tensor4(ATTN_F32, 1, 6, 1, 430);
        if (a.q.dtype == ATTN_F64) a.bias = tensor4(ATTN_F64, 1, 6, 1, 430);
        fill_normal(a.bias, &seed);
    }
    if (which == 4) a.softcap = 3;
    if (which == 6) a.score = ATTN_COSINE;
    if (which == 7) a.weighting = ATTN_WEIGHT_SIGMOID;
    if (which == 8) {
        a.score = ATTN_ADDITIVE;
        a.score_weight = tensor1(ATTN_F32, dim);
        fill_normal(a.score_weight, &seed);
        for (int64_t i = 0; i < MANY; i += 3) put4(a.q, 0, 1, i, i, 30 - 0.1 * (double)i); /* some beyond the reach of powers */
        put4(a.k, 0, 0, 17, 3, -25);
    }
    if (which == 0 || which == 5) {
        a.sinks = tensor1(a.q.dtype, 6);
        fill_normal(a.sinks, &seed);
        a.v = strided_copy(a.v);
    }
    a.see = see_all(&a, 3);
    a.see.received = a.see.pooled = (attn_tensor){ 0 };
    return a;
}

/* One row at a time takes other ways through the kernels than many at once, and heads that share keys go together. */
static void a_row_alone_has_the_bits_it_has_among_many(void **state) {
    (void)state;
    static const int64_t counts[] = { 1, 2, 3, 4, 7, 8, 17 };
    for (int which = 0; which < FEW_PROBLEMS; which++) {
        attn_attention_args a = many_rows(which);
        attend(&a);
        for (int c = 0; c < 7; c++)
            for (int64_t begin = c, n = counts[c]; begin + n <= MANY; begin += 2 * n) {
                attn_attention_args part = a, some = a;
                attn_tensor *of[] = { &part.q,          &part.mask,          &part.out,
                                      &part.see.lse,    &part.see.entropy,   &part.see.weights,
                                      &part.see.scores, &part.see.top_index, &part.see.top_weight };
                for (int i = 0; i < 9; i++) *of[i] = some_rows(*of[i], begin, n);
                some = with_fresh_outputs(part);
                double offset = 390 + (double)begin;
                some.offset = values1(ATTN_I64, 1, &offset);
                attend(&some);
                assert_same_results(&part, &some);
                some.see.weights = some.see.scores = (attn_tensor){ 0 }; /* with a map heads stay apart */
                some = with_fresh_outputs(some);
                attend(&some);
                some.see.weights = part.see.weights, some.see.scores = part.see.scores;
                assert_same_results(&part, &some);
            }
        free_blocks(NULL);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_row_alone_has_the_bits_it_has_among_many, free_blocks),
        cmocka_unit_test_teardown(any_number_of_threads_gives_the_same_bits, free_blocks),
        cmocka_unit_test_teardown(a_caller_s_own_parallel_for_gives_the_same_bits, free_blocks),
        cmocka_unit_test_teardown(lent_memory_of_any_alignment_gives_the_same_bits, free_blocks),
#if defined(__x86_64__)
        cmocka_unit_test_teardown(flush_to_zero_and_another_rounding_of_the_caller_change_nothing, free_blocks),
#endif
        cmocka_unit_test_teardown(batch_neighbours_change_nothing, free_blocks),
        cmocka_unit_test_teardown(strides_and_layouts_change_nothing, free_blocks),
        cmocka_unit_test_teardown(grouped_heads_equal_repeated_heads, free_blocks),
        cmocka_unit_test_teardown(masked_keys_appended_behind_change_nothing, free_blocks),
        cmocka_unit_test_teardown(other_rows_of_the_sequence_change_nothing, free_blocks),
        cmocka_unit_test_teardown(padding_gives_the_bits_of_the_sequence_alone, free_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
