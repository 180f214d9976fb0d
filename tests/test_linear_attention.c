/* SPDX-License-Identifier: Apache-2.0 */
/* Linear attention and the delta rules: the recurrence, chunks beside it, gradients, states, bits, memory, refusals. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/tensors.h"
#include "tests/ops_cases.h"

static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_BF16, ATTN_F16 };

typedef struct extents {
    int64_t batch, kv_heads, group, length, key_dim, value_dim;
} extents;

/* Keys of length 1, beta in (0, 1), decays below 0, as such models have them. */
static attn_linear_attention_args problem(int32_t dtype, extents e, int32_t rule, bool each, bool past, uint64_t *seed) {
    const int64_t keys[] = { e.batch, e.kv_heads, e.length, e.key_dim },
                  values[] = { e.batch, e.kv_heads, e.length, e.value_dim };
    const int64_t queries[] = { e.batch, e.kv_heads * e.group, e.length, e.key_dim };
    const int64_t outs[] = { e.batch, e.kv_heads * e.group, e.length, e.value_dim };
    const int64_t states[] = { e.batch, e.kv_heads, e.key_dim, e.value_dim };
    attn_linear_attention_args a = { .rule = rule, .q = tensor_of(dtype, 4, queries), .k = tensor_of(dtype, 4, keys) };
    a.v = tensor_of(dtype, 4, values), a.out = tensor_of(dtype, 4, outs), a.state = tensor_of(dtype, 4, states);
    fill_normal(a.q, 1, seed), fill_normal(a.k, 1, seed), fill_normal(a.v, 1, seed);
    for (int64_t row = 0; row < e.batch * e.kv_heads * e.length; row++) {
        double squares = 0;
        for (int64_t i = 0; i < e.key_dim; i++) squares += get(a.k, row * e.key_dim + i) * get(a.k, row * e.key_dim + i);
        for (int64_t i = 0; i < e.key_dim; i++) put(a.k, row * e.key_dim + i, get(a.k, row * e.key_dim + i) / sqrt(squares));
    }
    if (rule == ATTN_GATED || rule == ATTN_GATED_DELTA) {
        a.decay = tensor_of(dtype, each ? 4 : 3, keys);
        for (int64_t n = 0; n < attn_count(&a.decay); n++) put(a.decay, n, -0.2 * fabs(normal(seed)));
    }
    if (rule == ATTN_DELTA || rule == ATTN_GATED_DELTA) {
        a.beta = tensor_of(dtype, 3, keys);
        for (int64_t n = 0; n < attn_count(&a.beta); n++) put(a.beta, n, uniform(seed));
    }
    if (past) a.past_state = tensor_of(dtype, 4, states), fill_normal(a.past_state, 1, seed);
    return a;
}

/* ---- the recurrence, as the header writes it ------------------------------------------------------------------ */

enum { MOST_DIM = 129 };
static double decays;
static long double state[MOST_DIM][MOST_DIM], size_of_state[MOST_DIM][MOST_DIM];

/* The largest sum of a chunk's decays, which f64 takes differences of. */
static double sum_of_decays(const attn_linear_attention_args *a) {
    double most = 0, sum = 0;
    for (int64_t n = 0; a->decay.rank == 3 && n < attn_count(&a->decay); n++) {
        if (n % a->decay.shape[2] % 64 == 0) sum = 0;
        sum += fmin(fabs(get(a->decay, n)), 1000);
        if (sum > most) most = sum;
    }
    return most;
}

/* A result, and the size of what it was made of: of the published bound. */
typedef void (*see_result)(void *context, bool of_state, int64_t n, double right, double size);

static void recur(const attn_linear_attention_args *a, see_result see, void *context) {
    decays = sum_of_decays(a);
    const int64_t *shape = a->k.shape, heads = a->q.shape[1], group = heads / shape[1], length = shape[2], dk = shape[3];
    const int64_t dv = a->v.shape[3];
    const double scale = a->scale != 0 ? a->scale : 1 / sqrt((double)dk);
    for (int64_t head = 0; head < shape[0] * shape[1]; head++) {
        long double norm = 0; /* of the state at most, by the delta rules */
        for (int64_t i = 0; i < dk; i++)
            for (int64_t j = 0; j < dv; j++) {
                state[i][j] = a->past_state.rank ? get(a->past_state, (head * dk + i) * dv + j) : 0;
                size_of_state[i][j] = fabsl(state[i][j]);
                norm += state[i][j] * state[i][j];
            }
        norm = sqrtl(norm);
        for (int64_t t = 0; t < length; t++) {
            const int64_t row = head * length + t;
            long double largest = a->decay.rank ? 0 : 1, squares = 0, beta = a->beta.rank ? get(a->beta, row) : 1;
            for (int64_t i = 0; i < dk && a->decay.rank; i++) {
                long double decay = expl(get(a->decay, a->decay.rank == 4 ? row * dk + i : row));
                if (decay > largest) largest = decay;
                for (int64_t j = 0; j < dv; j++) state[i][j] *= decay, size_of_state[i][j] *= decay;
            }
            for (int64_t j = 0; j < dv; j++) {
                long double w = get(a->v, row * dv + j), v = fabsl(w);
                squares += w * w;
                for (int64_t i = 0; i < dk && a->beta.rank; i++) w -= state[i][j] * get(a->k, row * dk + i);
                for (int64_t i = 0; i < dk; i++) {
                    state[i][j] += get(a->k, row * dk + i) * beta * w;
                    size_of_state[i][j] += fabs(get(a->k, row * dk + i)) * v;
                }
            }
            norm = largest * norm + beta * sqrtl(squares);
            for (int64_t g = 0; g < group; g++) {
                const int64_t query = (head * group + g) * length + t;
                long double length_of_q = 0;
                for (int64_t i = 0; i < dk; i++) length_of_q += powl(get(a->q, query * dk + i), 2);
                for (int64_t j = 0; j < dv; j++) {
                    long double sum = 0, size = 0;
                    for (int64_t i = 0; i < dk; i++) {
                        sum += get(a->q, query * dk + i) * state[i][j];
                        size += fabs(get(a->q, query * dk + i)) * size_of_state[i][j];
                    }
                    if (a->beta.rank) size = sqrtl(length_of_q) * norm / 4;
                    see(context, false, query * dv + j, (double)(scale * sum), (double)(fabs(scale) * size));
                }
            }
        }
        for (int64_t i = 0; i < dk; i++)
            for (int64_t j = 0; j < dv; j++)
                see(context, true, (head * dk + i) * dv + j, (double)state[i][j],
                    (double)(a->beta.rank ? norm / 4 : size_of_state[i][j]));
    }
}

/* The published bound of the chunks: u (key_dim + 64 + chunks) times the size; f64 adds the chunk's decays. Of the reference: one
 * rounding, and double's. */
static void hold(void *context, bool of_state, int64_t n, double right, double size) {
    const attn_linear_attention_args *a = context;
    const attn_tensor t = of_state ? a->state : a->out;
    const double terms = (double)(a->k.shape[3] + 64 + a->k.shape[2] / 64) + (t.dtype == ATTN_F64 ? decays : 0);
    const bool by_chunks = t.dtype == ATTN_F64 || (t.dtype == ATTN_F32 && a->q.dtype == ATTN_F32 && a->decay.rank != 4);
    double bound = by_chunks
                       ? rounding(t.dtype) * terms * size + smallest(t.dtype)
                       : rounding(t.dtype) * fabs(right) + 0x1p-53 * terms * size + (t.dtype == ATTN_F16 ? 0x1p-25 : 0x1p-126);
    assert_within(of_state ? "state" : "out", n, get(t, n), right, bound);
}

static void every_rule_is_the_recurrence_within_the_published_bound(void **unused) {
    (void)unused;
    uint64_t seed = 1;
    for (int round = 0; round < 200; round++) {
        const int32_t rule = round % 4, dtype = dtypes[between(&seed, 0, 5) % 4];
        extents e = { between(&seed, 1, 2), between(&seed, 1, 2), between(&seed, 1, 3),
                      any_length(&seed),    any_length(&seed),    any_length(&seed) };
        if (e.length > 65 || round % 10 == 0) e.key_dim = between(&seed, 1, 17), e.value_dim = between(&seed, 1, 33);
        if (dtype == ATTN_BF16 || dtype == ATTN_F16) e.length = between(&seed, 1, 10), e.batch = e.kv_heads = 1;
        attn_linear_attention_args a = problem(dtype, e, rule, round % 3 == 0, round % 5 < 3, &seed);
        if (round % 7 == 0) a.scale = 0.3;
        assert_ok(attn_linear_attention(&a, NULL));
        recur(&a, hold, &a);
        free_blocks(NULL);
    }
}

static void long_sequences_stay_within_the_published_bound(void **unused) {
    (void)unused;
    uint64_t seed = 2;
    for (int32_t rule = ATTN_LINEAR; rule <= ATTN_GATED_DELTA; rule++)
        for (int d = 0; d < 2; d++) {
            attn_linear_attention_args a = problem(dtypes[d], (extents){ 1, 1, 1, 1500, 24, 17 }, rule, false, true, &seed);
            assert_ok(attn_linear_attention(&a, NULL));
            recur(&a, hold, &a);
            free_blocks(NULL);
        }
}

static void sixteen_bit_operands_may_have_a_state_of_f32(void **unused) {
    (void)unused;
    uint64_t seed = 3;
    attn_linear_attention_args a = problem(ATTN_F16, (extents){ 1, 2, 1, 7, 8, 9 }, ATTN_GATED_DELTA, false, true, &seed);
    a.past_state = dense_copy(a.past_state, ATTN_F32), a.state = tensor_of(ATTN_F32, 4, a.state.shape);
    assert_ok(attn_linear_attention(&a, NULL));
    recur(&a, hold, &a);
}

/* ---- gradients -------------------------------------------------------------------------------------------------- */

static double loss_of(const attn_linear_attention_args *a, const attn_linear_attention_grads *g) {
    double loss = 0;
    assert_ok(attn_linear_attention(a, NULL));
    for (int64_t n = 0; n < attn_count(&a->out); n++) loss += get(g->dout, n) * get(a->out, n);
    for (int64_t n = 0; g->dstate.rank && n < attn_count(&a->state); n++) loss += get(g->dstate, n) * get(a->state, n);
    return loss;
}

static void assert_gradient(const char *name, const attn_linear_attention_args *a, const attn_linear_attention_grads *g,
                            attn_tensor input, attn_tensor gradient) {
    for (int64_t n = 0; input.rank && n < attn_count(&input); n += 1 + n / 60) {
        const double x = get(input, n), h = 1e-5;
        put(input, n, x + h);
        double above = loss_of(a, g);
        put(input, n, x - h);
        double slope = (above - loss_of(a, g)) / (2 * h);
        put(input, n, x);
        assert_within(name, n, get(gradient, n), slope, 2e-8 * (1 + fabs(slope)));
    }
}

static attn_linear_attention_grads grads_of(const attn_linear_attention_args *a, bool dstate, uint64_t *seed) {
    attn_linear_attention_grads g = { .dout = tensor_of(a->q.dtype, 4, a->out.shape) };
    fill_normal(g.dout, 1, seed);
    if (dstate) g.dstate = tensor_of(a->q.dtype, 4, a->state.shape), fill_normal(g.dstate, 1, seed);
    g.dq = tensor_of(a->q.dtype, 4, a->q.shape), g.dk = tensor_of(a->q.dtype, 4, a->k.shape);
    g.dv = tensor_of(a->q.dtype, 4, a->v.shape), g.dpast_state = tensor_of(a->q.dtype, 4, a->state.shape);
    if (a->decay.rank) g.ddecay = tensor_of(a->q.dtype, a->decay.rank, a->decay.shape);
    if (a->beta.rank) g.dbeta = tensor_of(a->q.dtype, 3, a->beta.shape);
    return g;
}

static void gradients_are_those_of_central_differences(void **unused) {
    (void)unused;
    uint64_t seed = 4;
    for (int round = 0; round < 16; round++) {
        const extents e = { 1 + round % 2, 1 + round / 8, 1 + round / 4 % 2, round < 4 ? 70 : between(&seed, 1, 5), 3, 4 };
        attn_linear_attention_args a = problem(ATTN_F64, e, round % 4, round / 4 % 2, true, &seed);
        if (round % 3 == 0) a.scale = -0.7;
        attn_linear_attention_grads g = grads_of(&a, round % 2, &seed);
        assert_ok(attn_linear_attention_backward(&a, &g, NULL));
        assert_gradient("dq", &a, &g, a.q, g.dq);
        assert_gradient("dk", &a, &g, a.k, g.dk);
        assert_gradient("dv", &a, &g, a.v, g.dv);
        assert_gradient("ddecay", &a, &g, a.decay, g.ddecay);
        assert_gradient("dbeta", &a, &g, a.beta, g.dbeta);
        assert_gradient("dpast_state", &a, &g, a.past_state, g.dpast_state);
        free_blocks(NULL);
    }
}

static void gradients_are_rounded_once_and_each_may_be_left_out(void **unused) {
    (void)unused;
    uint64_t seed = 5;
    for (size_t d = 0; d < 4; d++) {
        attn_linear_attention_args a = problem(dtypes[d], (extents){ 1, 2, 2, 67, 5, 3 }, ATTN_GATED_DELTA, d < 3, true, &seed),
                                   b = a;
        attn_linear_attention_grads g = grads_of(&a, true, &seed), h = { 0 };
        assert_ok(attn_linear_attention_backward(&a, &g, NULL));
        attn_tensor *const inputs[] = { &b.q, &b.k, &b.v, &b.decay, &b.beta, &b.past_state };
        for (int i = 0; i < 6; i++) *inputs[i] = dense_copy(*inputs[i], ATTN_F64);
        h.dout = dense_copy(g.dout, ATTN_F64), h.dstate = dense_copy(g.dstate, ATTN_F64);
        const attn_tensor *const got[] = { &g.dq, &g.dk, &g.dv, &g.ddecay, &g.dbeta, &g.dpast_state };
        attn_tensor *const wanted[] = { &h.dq, &h.dk, &h.dv, &h.ddecay, &h.dbeta, &h.dpast_state };
        for (int i = 0; i < 6; i++) {
            *wanted[i] = tensor_of(ATTN_F64, got[i]->rank, got[i]->shape);
            assert_ok(attn_linear_attention_backward(&b, &h, NULL));
            for (int64_t n = 0; n < attn_count(got[i]); n++)
                assert_within("gradient", n, get(*got[i], n), get(*wanted[i], n),
                              rounding(dtypes[d]) * fabs(get(*wanted[i], n)) + smallest(dtypes[d]) * 0x1p-10);
            *wanted[i] = (attn_tensor){ 0 };
        }
        free_blocks(NULL);
    }
}

static attn_tensor part_of(attn_tensor t, int axis, int64_t begin, int64_t end) {
    if (!t.rank) return t;
    t.data = attn_at(&t, begin * t.stride[axis]);
    t.shape[axis] = end - begin;
    return t;
}

/* The same call in double and by the recurrence, which a decay for each element of the key takes it to. */
static attn_linear_attention_args by_the_recurrence(attn_linear_attention_args a) {
    attn_tensor *const inputs[] = { &a.q, &a.k, &a.v, &a.decay, &a.beta, &a.past_state };
    for (int i = 0; i < 6; i++)
        if (inputs[i]->rank) *inputs[i] = dense_copy(*inputs[i], ATTN_F64);
    if (!a.decay.rank) {
        a.decay = tensor_of(ATTN_F64, 4, a.k.shape), fill(a.decay, 0);
        a.rule = a.rule == ATTN_LINEAR ? ATTN_GATED : ATTN_GATED_DELTA;
    }
    a.decay.rank = 4;
    a.decay.shape[3] = a.k.shape[3];
    if (a.decay.stride[2] == 1) a.decay.stride[3] = 0;
    return a;
}

/* The published bound, of the largest of its kind. */
static void assert_normwise(const char *name, attn_tensor got, attn_tensor expected, double bound) {
    double most = 0;
    for (int64_t n = 0; n < attn_count(&got); n++) most = fmax(most, fabs(get(expected, n)));
    for (int64_t n = 0; n < attn_count(&got); n++)
        assert_within(name, n, get(got, n), get(expected, n), bound * most + smallest(got.dtype));
}

static void gradients_by_chunks_are_those_of_the_recurrence(void **unused) {
    (void)unused;
    uint64_t seed = 14;
    for (int round = 0; round < 64; round++) {
        const extents e = { 1 + round % 2,          between(&seed, 1, 2),  between(&seed, 1, 3),
                            between(&seed, 1, 200), between(&seed, 1, 40), between(&seed, 1, 40) };
        const int32_t dtype = round / 4 % 2 ? ATTN_F64 : ATTN_F32;
        attn_linear_attention_args a = problem(dtype, e, round % 4, false, round / 8 % 2, &seed);
        if (round % 3 == 0 && a.decay.rank) put(a.decay, between(&seed, 0, attn_count(&a.decay) - 1), -INFINITY);
        if (round % 5 == 0 && a.beta.rank) put(a.beta, between(&seed, 0, attn_count(&a.beta) - 1), 0);
        attn_linear_attention_args exact = by_the_recurrence(a);
        attn_linear_attention_grads g = grads_of(&a, round / 16 % 2, &seed), h = grads_of(&exact, false, &seed);
        h.dout = dense_copy(g.dout, ATTN_F64);
        if (g.dstate.rank) h.dstate = dense_copy(g.dstate, ATTN_F64);
        assert_ok(attn_linear_attention_backward(&a, &g, NULL));
        assert_ok(attn_linear_attention_backward(&exact, &h, NULL));
        const double terms = (double)(e.key_dim + e.value_dim + 64 + e.length / 64);
        const double bound = rounding(dtype) * (terms + (dtype == ATTN_F64 ? sum_of_decays(&a) : 0));
        assert_normwise("dq", g.dq, h.dq, bound);
        assert_normwise("dk", g.dk, h.dk, bound);
        assert_normwise("dv", g.dv, h.dv, bound);
        assert_normwise("dpast_state", g.dpast_state, h.dpast_state, bound);
        if (g.dbeta.rank) assert_normwise("dbeta", g.dbeta, h.dbeta, bound);
        if (g.ddecay.rank) {
            attn_tensor ddecay = tensor_of(ATTN_F64, 3, g.ddecay.shape);
            for (int64_t n = 0; n < attn_count(&ddecay); n++) {
                double sum = 0;
                for (int64_t i = 0; i < e.key_dim; i++) sum += get(h.ddecay, n * e.key_dim + i);
                put(ddecay, n, sum);
            }
            assert_normwise("ddecay", g.ddecay, ddecay, bound);
        }
        free_blocks(NULL);
    }
}

/* A gradient asked for alone has the bits that it has beside all others. */
static void each_gradient_by_chunks_may_be_left_out(void **unused) {
    (void)unused;
    uint64_t seed = 15;
    attn_linear_attention_args a = problem(ATTN_F32, (extents){ 1, 2, 2, 131, 9, 7 }, ATTN_GATED_DELTA, false, true, &seed);
    attn_linear_attention_grads g = grads_of(&a, true, &seed), h = { .dout = g.dout, .dstate = g.dstate };
    assert_ok(attn_linear_attention_backward(&a, &g, NULL));
    const attn_tensor *const all[] = { &g.dq, &g.dk, &g.dv, &g.ddecay, &g.dbeta, &g.dpast_state };
    attn_tensor *const alone[] = { &h.dq, &h.dk, &h.dv, &h.ddecay, &h.dbeta, &h.dpast_state };
    for (int i = 0; i < 6; i++) {
        *alone[i] = tensor_of(ATTN_F32, all[i]->rank, all[i]->shape);
        assert_ok(attn_linear_attention_backward(&a, &h, NULL));
        assert_same(*alone[i], *all[i]);
        *alone[i] = (attn_tensor){ 0 };
    }
}

/* What is written after a token reads says nothing of it, and what was read before a token is written neither. */
static void a_nan_shows_in_the_gradients_that_it_reaches_alone(void **unused) {
    (void)unused;
    uint64_t seed = 16;
    for (int round = 0; round < 4; round++) {
        attn_linear_attention_args a = problem(ATTN_F32, (extents){ 1, 1, 1, 75, 9, 7 }, round, false, true, &seed);
        attn_linear_attention_grads g = grads_of(&a, false, &seed), h = g;
        h.dq = tensor_of(ATTN_F32, 4, g.dq.shape), h.dk = tensor_of(ATTN_F32, 4, g.dk.shape),
        h.dv = tensor_of(ATTN_F32, 4, g.dv.shape);
        assert_ok(attn_linear_attention_backward(&a, &g, NULL));
        put(g.dout, 30 * 7 + 2, NAN);
        assert_ok(attn_linear_attention_backward(&a, &h, NULL));
        assert_same(part_of(h.dk, 2, 31, 75), part_of(g.dk, 2, 31, 75));
        assert_same(part_of(h.dv, 2, 31, 75), part_of(g.dv, 2, 31, 75));
        assert_same(part_of(h.dq, 2, 0, 30), part_of(g.dq, 2, 0, 30));
        assert_same(part_of(h.dq, 2, 31, 75), part_of(g.dq, 2, 31, 75));
        assert_true(isnan(get(h.dv, 30 * 7 + 2)));
        free_blocks(NULL);
    }
}

/* ---- states and edges --------------------------------------------------------------------------------------------- */

static attn_linear_attention_args tokens_of(attn_linear_attention_args a, int64_t begin, int64_t end) {
    attn_tensor *const all[] = { &a.q, &a.k, &a.v, &a.out, &a.decay, &a.beta };
    for (int i = 0; i < 6; i++) *all[i] = part_of(*all[i], 2, begin, end);
    return a;
}

static void a_state_carries_on_where_it_was_left_and_may_be_updated_in_place(void **unused) {
    (void)unused;
    uint64_t seed = 6;
    for (int round = 0; round < 16; round++) {
        attn_linear_attention_args a =
            problem(dtypes[round / 4], (extents){ 2, 2, 2, 130, 6, 5 }, round % 4, false, false, &seed);
        const int64_t cuts[] = { 0, 64, 65, 66, 130 };
        attn_tensor kept = tensor_of(a.q.dtype, 4, a.state.shape);
        if (round >= 8) a = tokens_of(a, 0, 2);
        for (int i = 0; i < 4 && cuts[i] < a.q.shape[2]; i++) {
            int64_t end = round >= 8 ? 2 : cuts[i + 1];
            attn_linear_attention_args part = tokens_of(a, cuts[i], end);
            if (i > 0) part.past_state = kept;
            part.state = kept;
            assert_ok(attn_linear_attention(&part, NULL));
        }
        a.state = kept;
        recur(&a, hold, &a);
        free_blocks(NULL);
    }
}

static void a_token_does_not_see_later_ones_whatever_they_hold(void **unused) {
    (void)unused;
    uint64_t seed = 7;
    for (int round = 0; round < 16; round++) {
        attn_linear_attention_args a = problem(dtypes[round / 4], (extents){ 1, 1, 2, 75, 9, 7 }, round % 4, false, true, &seed);
        attn_tensor before = tensor_of(a.q.dtype, 4, a.out.shape);
        assert_ok(attn_linear_attention(&a, NULL));
        copy_values(a.out, before);
        for (int64_t at = 74; at > 0; at -= 9) {
            for (int64_t i = 0; i < 9; i++) put(a.k, at * 9 + i, NAN);
            for (int64_t i = 0; i < 7; i++) put(a.v, at * 7 + i, at % 2 ? NAN : INFINITY);
            if (a.decay.rank) put(a.decay, at, NAN);
            if (a.beta.rank) put(a.beta, at, INFINITY);
            assert_ok(attn_linear_attention(&a, NULL));
            for (int64_t g = 0; g < 2; g++) {
                assert_same(part_of(part_of(a.out, 1, g, g + 1), 2, 0, at), part_of(part_of(before, 1, g, g + 1), 2, 0, at));
                for (int64_t j = 0; j < 7; j++) assert_true(isnan(get(a.out, (g * 75 + at) * 7 + j)));
            }
        }
        free_blocks(NULL);
    }
}

static void a_decay_of_minus_infinity_forgets_all(void **unused) {
    (void)unused;
    uint64_t seed = 8;
    for (int round = 0; round < 16; round++) {
        attn_linear_attention_args a = problem(dtypes[round / 4], (extents){ 1, 1, 1, 40, 5, 6 },
                                               round % 2 ? ATTN_GATED : ATTN_GATED_DELTA, round / 2 % 2, true, &seed);
        const int64_t each = a.decay.rank == 4 ? 5 : 1;
        for (int64_t i = 0; i < each; i++) put(a.decay, 20 * each + i, -INFINITY);
        assert_ok(attn_linear_attention(&a, NULL));
        recur(&a, hold, &a);
        attn_linear_attention_args fresh = tokens_of(a, 20, 40);
        fresh.past_state = (attn_tensor){ 0 };
        recur(&fresh, hold, &fresh);
        free_blocks(NULL);
    }
}

static void without_tokens_the_state_is_the_past(void **unused) {
    (void)unused;
    uint64_t seed = 9;
    for (int round = 0; round < 16; round++) {
        attn_linear_attention_args a = problem(dtypes[round / 4], (extents){ 2, 2, 1, 3, 4, 5 }, round % 4, false, true, &seed);
        attn_linear_attention_args none = tokens_of(a, 0, 0);
        assert_ok(attn_linear_attention(&none, NULL));
        assert_same(a.state, a.past_state);
        none.past_state = (attn_tensor){ 0 };
        assert_ok(attn_linear_attention(&none, NULL));
        for (int64_t n = 0; n < attn_count(&a.state); n++) assert_true(get(a.state, n) == 0);
        attn_linear_attention_grads g = grads_of(&none, true, &seed);
        assert_ok(attn_linear_attention_backward(&none, &g, NULL));
        assert_same(g.dpast_state, g.dstate);
        free_blocks(NULL);
    }
}

static void empty_extents_are_extents(void **unused) {
    (void)unused;
    static const extents empty[] = { { 0, 1, 1, 3, 4, 5 }, { 1, 0, 0, 3, 4, 5 }, { 1, 1, 1, 3, 4, 0 }, { 1, 1, 1, 3, 0, 5 } };
    uint64_t seed = 10;
    for (int round = 0; round < 16; round++) {
        attn_linear_attention_args a = problem(dtypes[round % 4], empty[round / 4], ATTN_GATED_DELTA, false, true, &seed);
        attn_linear_attention_grads g = grads_of(&a, true, &seed);
        assert_ok(attn_linear_attention(&a, NULL));
        assert_ok(attn_linear_attention_backward(&a, &g, NULL));
        for (int64_t n = 0; n < attn_count(&a.out); n++) assert_true(get(a.out, n) == 0);
        free_blocks(NULL);
    }
    const int64_t far = (int64_t)1 << 40;
    attn_tensor huge = { .dtype = ATTN_F32, .rank = 4, .shape = { far, far, 0, 4 } };
    assert_ok(attn_linear_attention(&(attn_linear_attention_args){ .q = huge, .k = huge, .v = huge, .out = huge }, NULL));
}

/* ---- bits and memory ------------------------------------------------------------------------------------------------ */

static void strides_batch_and_threads_do_not_change_a_bit(void **unused) {
    (void)unused;
    static const int orders[][4] = { { 0, 1, 2, 3 }, { 3, 1, 2, 0 }, { 2, 0, 1, 3 } };
    uint64_t seed = 11;
    for (int round = 0; round < 16; round++) {
        const extents e = { 2, 2, 2, round < 8 ? 131 : 9, 19, 13 };
        const attn_linear_attention_args a = problem(dtypes[round / 4], e, round % 4, round % 3 == 2, true, &seed);
        const attn_linear_attention_grads g = grads_of(&a, true, &seed);
        assert_ok(attn_linear_attention(&a, NULL));
        assert_ok(attn_linear_attention_backward(&a, &g, NULL));
        for (int way = 0; way < 3; way++) {
            attn_exec exec = { 0 };
            attn_linear_attention_args b = a;
            attn_linear_attention_grads h = g;
            attn_tensor *const inputs[] = { &b.q, &b.k, &b.v, &b.past_state, &h.dout, &h.dstate };
            attn_tensor *const outputs[] = { &b.out, &b.state, &h.dq, &h.dk, &h.dv, &h.dpast_state };
            for (int i = 0; i < 6; i++) {
                attn_tensor from = *inputs[i];
                *inputs[i] = tensor_in_order(a.q.dtype, 4, from.shape, orders[(way + i) % 3], i % 3);
                copy_values(from, *inputs[i]);
                *outputs[i] = tensor_in_order(a.q.dtype, 4, outputs[i]->shape, orders[(way + 2 * i) % 3], i % 2);
            }
            assert_ok(attn_pool_open(&exec, way + 1));
            assert_ok(attn_linear_attention(&b, &exec));
            assert_ok(attn_linear_attention_backward(&b, &h, &exec));
            attn_pool_close(&exec);
            assert_same(b.out, a.out), assert_same(b.state, a.state);
            assert_same(h.dq, g.dq), assert_same(h.dk, g.dk), assert_same(h.dv, g.dv), assert_same(h.dpast_state, g.dpast_state);
        }
        attn_linear_attention_args alone = a; /* the second of the batch */
        attn_tensor *const all[] = { &alone.q, &alone.k, &alone.v, &alone.decay, &alone.beta, &alone.past_state };
        for (int i = 0; i < 6; i++) *all[i] = part_of(*all[i], 0, 1, 2);
        alone.out = tensor_of(a.q.dtype, 4, part_of(a.out, 0, 1, 2).shape), alone.state = (attn_tensor){ 0 };
        assert_ok(attn_linear_attention(&alone, NULL));
        assert_same(alone.out, part_of(a.out, 0, 1, 2));
        free_blocks(NULL);
    }
}

static void a_lent_workspace_of_the_size_asked_for_is_enough(void **unused) {
    (void)unused;
    uint64_t seed = 12;
    for (int round = 0; round < 16; round++) {
        attn_linear_attention_args a =
            problem(dtypes[round / 4], (extents){ 1, 2, 1, 70, 9, 5 }, round % 4, round % 3 == 0, true, &seed);
        attn_linear_attention_grads g = grads_of(&a, true, &seed);
        attn_linear_attention_args question = a;
        question.q.data = question.k.data = question.v.data = question.out.data = NULL;
        size_t forward = attn_linear_attention_workspace(&question, 1),
               backward = attn_linear_attention_backward_workspace(&a, &g, 1);
        assert_true(forward > 0 && backward > 0);
        attn_exec exec = { .workspace = poisoned(backward), .workspace_size = backward };
        assert_ok(attn_linear_attention_backward(&a, &g, &exec));
        exec.workspace_size--;
        assert_refused(attn_linear_attention_backward(&a, &g, &exec), ATTN_SMALL_WORKSPACE, "");
        exec = (attn_exec){ .workspace = poisoned(forward), .workspace_size = forward };
        assert_ok(attn_linear_attention(&a, &exec));
        recur(&a, hold, &a);
        exec.workspace_size--;
        assert_refused(attn_linear_attention(&a, &exec), ATTN_SMALL_WORKSPACE, "");
        free_blocks(NULL);
    }
}

static void memory_does_not_grow_with_the_length_but_for_states_on_the_way_back(void **unused) {
    (void)unused;
    attn_linear_attention_args a = { 0 };
    attn_linear_attention_grads g = { 0 };
    size_t forward[2], backward[2];
    for (int i = 0; i < 2; i++) {
        const int64_t shape[] = { 1, 8, i ? 65536 : 1024, 64 };
        a.q = a.k = a.v = a.out = g.dout = g.dq = attn_dense(ATTN_F32, NULL, 4, shape);
        forward[i] = attn_linear_attention_workspace(&a, 1);
        backward[i] = attn_linear_attention_backward_workspace(&a, &g, 1);
    }
    assert_true(forward[0] > 0 && forward[0] == forward[1]);
    assert_int_equal(backward[1] - backward[0], (65536 - 1024) / 64 * 64 * 64 * sizeof(float));
}

static void bad_arguments_are_refused_before_anything_is_written(void **unused) {
    (void)unused;
    uint64_t seed = 13;
    const attn_linear_attention_args a = problem(ATTN_F32, (extents){ 2, 2, 2, 3, 4, 5 }, ATTN_GATED_DELTA, false, true, &seed);
    attn_linear_attention_grads g = { .dout = tensor_of(ATTN_F32, 4, a.out.shape), .dq = tensor_of(ATTN_F32, 4, a.q.shape) }, h;
    attn_linear_attention_args b;
    assert_refused(attn_linear_attention(NULL, NULL), ATTN_BAD_ARGUMENT, "no arguments");
    assert_refused(attn_linear_attention_backward(&a, NULL, NULL), ATTN_BAD_ARGUMENT, "no gradients");
    b = a, b.rule = 4;
    assert_refused(attn_linear_attention(&b, NULL), ATTN_BAD_ARGUMENT, "rule is 4");
    b = a, b.flags = 1;
    assert_refused(attn_linear_attention(&b, NULL), ATTN_BAD_ARGUMENT, "flags");
    b = a, b.scale = NAN;
    assert_refused(attn_linear_attention(&b, NULL), ATTN_BAD_ARGUMENT, "scale");
    b = a, b.reserved[3] = 1;
    assert_refused(attn_linear_attention(&b, NULL), ATTN_UNSUPPORTED, "reserved");
    b = a, b.rule = ATTN_GATED;
    assert_refused(attn_linear_attention(&b, NULL), ATTN_BAD_ARGUMENT, "beta is given: the rule ATTN_GATED has none");
    b = a, b.decay = (attn_tensor){ 0 };
    assert_refused(attn_linear_attention(&b, NULL), ATTN_BAD_ARGUMENT, "decay is absent: the rule ATTN_GATED_DELTA needs it");
    b = a, b.k = part_of(a.k, 1, 0, 1), b.q = part_of(a.q, 1, 0, 3);
    assert_refused(attn_linear_attention(&b, NULL), ATTN_BAD_SHAPE, "v has shape [2, 2, 3, 5]");
    b = a, b.q = part_of(a.q, 1, 0, 3);
    assert_refused(attn_linear_attention(&b, NULL), ATTN_BAD_SHAPE, "q has 3 heads, which is no multiple of k's 2");
    b = a, b.q = part_of(a.q, 3, 0, 3);
    assert_refused(attn_linear_attention(&b, NULL), ATTN_BAD_SHAPE, "k has shape [2, 2, 3, 4]");
    b = a, b.decay = part_of(a.decay, 2, 0, 2);
    assert_refused(attn_linear_attention(&b, NULL), ATTN_BAD_SHAPE, "decay has shape [2, 2, 2]");
    b = a, b.beta = a.k;
    assert_refused(attn_linear_attention(&b, NULL), ATTN_BAD_SHAPE, "beta");
    b = a, b.past_state.shape[3] = 4;
    assert_refused(attn_linear_attention(&b, NULL), ATTN_BAD_SHAPE, "past_state has shape [2, 2, 4, 4]");
    b = a, b.state.shape[2] = 3;
    assert_refused(attn_linear_attention(&b, NULL), ATTN_BAD_SHAPE, "state has shape [2, 2, 3, 5]");
    b = a, b.out.stride[2] = 0;
    assert_refused(attn_linear_attention(&b, NULL), ATTN_BAD_ARGUMENT, "stride 0");
    b = a, b.v = dense_copy(a.v, ATTN_F16);
    assert_refused(attn_linear_attention(&b, NULL), ATTN_UNSUPPORTED, "v is f16");
    h = g, h.dout.shape[1] = 2;
    assert_refused(attn_linear_attention_backward(&a, &h, NULL), ATTN_BAD_SHAPE, "dout");
    h = g, h.dbeta = tensor_of(ATTN_F32, 2, a.beta.shape);
    assert_refused(attn_linear_attention_backward(&a, &h, NULL), ATTN_BAD_SHAPE, "dbeta");
    h = g, h.reserved[0] = 1;
    assert_refused(attn_linear_attention_backward(&a, &h, NULL), ATTN_UNSUPPORTED, "reserved");
    b = a, b.rule = ATTN_GATED, b.beta = (attn_tensor){ 0 };
    h = g, h.dbeta = tensor_of(ATTN_F32, 3, a.beta.shape);
    assert_refused(attn_linear_attention_backward(&b, &h, NULL), ATTN_BAD_ARGUMENT, "dbeta is given, and there is no beta");
    assert_int_equal(attn_linear_attention_backward_workspace(&b, &h, 1), 0);
    assert_untouched(a.out), assert_untouched(a.state), assert_untouched(g.dq);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(every_rule_is_the_recurrence_within_the_published_bound, free_blocks),
        cmocka_unit_test_teardown(long_sequences_stay_within_the_published_bound, free_blocks),
        cmocka_unit_test_teardown(sixteen_bit_operands_may_have_a_state_of_f32, free_blocks),
        cmocka_unit_test_teardown(gradients_are_those_of_central_differences, free_blocks),
        cmocka_unit_test_teardown(gradients_by_chunks_are_those_of_the_recurrence, free_blocks),
        cmocka_unit_test_teardown(each_gradient_by_chunks_may_be_left_out, free_blocks),
        cmocka_unit_test_teardown(a_nan_shows_in_the_gradients_that_it_reaches_alone, free_blocks),
        cmocka_unit_test_teardown(gradients_are_rounded_once_and_each_may_be_left_out, free_blocks),
        cmocka_unit_test_teardown(a_state_carries_on_where_it_was_left_and_may_be_updated_in_place, free_blocks),
        cmocka_unit_test_teardown(a_token_does_not_see_later_ones_whatever_they_hold, free_blocks),
        cmocka_unit_test_teardown(a_decay_of_minus_infinity_forgets_all, free_blocks),
        cmocka_unit_test_teardown(without_tokens_the_state_is_the_past, free_blocks),
        cmocka_unit_test_teardown(empty_extents_are_extents, free_blocks),
        cmocka_unit_test_teardown(strides_batch_and_threads_do_not_change_a_bit, free_blocks),
        cmocka_unit_test_teardown(a_lent_workspace_of_the_size_asked_for_is_enough, free_blocks),
        cmocka_unit_test_teardown(memory_does_not_grow_with_the_length_but_for_states_on_the_way_back, free_blocks),
        cmocka_unit_test_teardown(bad_arguments_are_refused_before_anything_is_written, free_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
