/* SPDX-License-Identifier: Apache-2.0 */
/* The merge of partial attention results: parts of the keys are the whole, whatever the parts; places, types, gradients, refusals. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "attention_bounds.h"

#include "src/ref/merge.h"

enum { MOST_PARTS = 100 };

/* ---- attention, and attention by parts ------------------------------------------------------------------------------- */

/* Axis 2 of k and v, axis 3 of masks and biases: keys [begin, end). */
static attn_tensor keys_of(attn_tensor t, int32_t axis, int64_t begin, int64_t end) {
    if (!t.rank || t.shape[axis] == 1) return t;
    t.data = attn_at(&t, begin * t.stride[axis]);
    t.shape[axis] = end - begin;
    return t;
}

/* A position is what it was, counted from the first key of the part. */
static attn_attention_args part_of(const attn_attention_args *whole, int64_t begin, int64_t end) {
    attn_attention_args a = *whole;
    int64_t batch = a.q.shape[0];
    a.k = keys_of(a.k, 2, begin, end), a.v = keys_of(a.v, 2, begin, end);
    a.mask = keys_of(a.mask, 3, begin, end), a.bias = keys_of(a.bias, 3, begin, end);
    a.offset = tensor1(ATTN_I64, batch);
    for (int64_t b = 0; b < batch; b++) put(a.offset, b, get(whole->offset, b) - (double)begin);
    if (end < whole->k.shape[2]) a.sinks = (attn_tensor){ 0 };
    a.out = tensor_of(whole->out.dtype, 4, whole->out.shape);
    a.see = (attn_see){ .lse = tensor_of(accumulator(a.q.dtype), 3, a.q.shape) };
    return a;
}

/* Masked, biased, windowed, with a sink and rows that see nothing. */
static attn_attention_args some_problem(int32_t dtype, uint64_t seed) {
    attn_attention_args a = problem((problem_shape){ 2, 2, 1, 2, 37, 203, 24, 17 }, dtype, seed);
    a.causal = ATTN_CAUSAL;
    a.offset = values1(ATTN_I64, 2, (double[]){ -3, 150 });
    a.flags = ATTN_WINDOW;
    a.window[0] = 120;
    a.mask = tensor4(ATTN_BOOL, 2, 1, 37, 203);
    fill_coin(a.mask, &seed, 0.8);
    a.bias = tensor4(dtype, 1, 2, 1, 203);
    fill_normal(a.bias, &seed);
    if (seed % 2) {
        a.sinks = tensor1(dtype, 2);
        fill_normal(a.sinks, &seed);
    }
    a.see.lse = tensor3(accumulator(dtype), 2, 2, 37);
    return a;
}

static void merge(const attn_merge_args *a) {
    if (attn_merge(a, NULL) != ATTN_OK) fail_msg("attn_merge: %s", attn_last_error());
}

/* The error that docs/ACCURACY.md allows the merge of n parts, relative to the largest |out_i|. */
static double merge_unit(int32_t dtype, int64_t n) { return unit_of(dtype) * (2 * (double)n + 16); }

/* Parts are each within e of theirs, and so are their lse: 4 e, and what the merge adds. */
static void assert_parts_are_the_whole(const attn_attention_args *whole, const int64_t *edges, int64_t n) {
    attn_tensor outs[MOST_PARTS], lses[MOST_PARTS];
    attn_attention_args exact = in_f64(*whole);
    attn_attention_plan p;
    exact.see.lse = tensor_of(ATTN_F64, 3, whole->q.shape);
    attend_by_reference(&exact);
    for (int64_t i = 0; i < n; i++) {
        attn_attention_args part = part_of(whole, edges[i], edges[i + 1]);
        attend(&part);
        outs[i] = part.out, lses[i] = part.see.lse;
    }
    attn_merge_args m = { .n = n, .outs = outs, .lses = lses, .out = whole->out, .lse = whole->see.lse };
    merge(&m);
    assert_int_equal(attn_attention_plan_forward(&p, whole, ATTN_PLAN_CALL), ATTN_OK);
    for (int64_t row = 0; row < p.batch * p.heads * p.q_len; row++) {
        int64_t b = row / (p.heads * p.q_len), h = row / p.q_len % p.heads;
        row_bound bound = bound_of_row(&p, b, h, row % p.q_len);
        double lse = get(exact.see.lse, row), unit = merge_unit(p.q.dtype, n);
        assert_within("lse", whole->see.lse, row, lse, bound.e + unit * (1 + fabs(lse)));
        if (lse == -INFINITY) lse = 0;
        for (int64_t c = 0; c < p.v_dim; c++) {
            double largest = 0;
            for (int64_t j = 0; j < p.kv_len; j++)
                if (fabs(get4(p.v, b, h / p.v_group, j, c)) > largest) largest = fabs(get4(p.v, b, h / p.v_group, j, c));
            assert_within("out", whole->out, row * p.v_dim + c, get(exact.out, row * p.v_dim + c),
                          (4 * bound.e + unit * (1 + fabs(lse))) * largest);
        }
    }
}

static void keys_split_anywhere_and_merged_are_the_whole(void **state) {
    (void)state;
    uint64_t seed = 3;
    for (int32_t dtype = ATTN_F32; dtype <= ATTN_F64; dtype += ATTN_F64 - ATTN_F32)
        for (int64_t cut = 0; cut <= 203; cut += 7) {
            attn_attention_args a = some_problem(dtype, random_word(&seed));
            assert_parts_are_the_whole(&a, (int64_t[]){ 0, cut, 203 }, 2);
            free_blocks(NULL);
        }
}

static void any_number_of_parts_is_the_whole(void **state) {
    (void)state;
    uint64_t seed = 4;
    for (int64_t n = 1; n < MOST_PARTS; n = n * 2 + 1) {
        attn_attention_args a = some_problem(ATTN_F32, random_word(&seed));
        int64_t edges[MOST_PARTS + 1];
        for (int64_t i = 0; i <= n; i++) edges[i] = i * 203 / n;
        assert_parts_are_the_whole(&a, edges, n);
        free_blocks(NULL);
    }
}

static void the_backward_of_a_part_told_the_merged_out_and_lse_is_the_whole_s(void **state) {
    (void)state;
    attn_attention_args a = some_problem(ATTN_F64, 6), whole = a;
    whole.sinks = a.sinks = (attn_tensor){ 0 };
    uint64_t seed = 8;
    attn_attention_grads g = { .dout = tensor_of(ATTN_F64, 4, a.out.shape),
                               .dq = tensor_of(ATTN_F64, 4, a.q.shape),
                               .dk = tensor_of(ATTN_F64, 4, a.k.shape),
                               .dv = tensor_of(ATTN_F64, 4, a.v.shape) };
    fill_normal(g.dout, &seed);
    attend(&whole);
    attend_backward(&whole, &g);
    attn_tensor dq = tensor_of(ATTN_F64, 4, a.q.shape);
    fill(dq, 0);
    for (int i = 0; i < 2; i++) {
        int64_t begin = i ? 88 : 0, end = i ? 203 : 88;
        attn_attention_args part = part_of(&a, begin, end);
        part.out = whole.out, part.see.lse = whole.see.lse;
        attn_attention_grads h = { .dout = g.dout,
                                   .dq = tensor_of(ATTN_F64, 4, a.q.shape),
                                   .dk = tensor_of(ATTN_F64, 4, part.k.shape),
                                   .dv = tensor_of(ATTN_F64, 4, part.v.shape) };
        attend_backward(&part, &h);
        for (int64_t n = 0; n < attn_count(&dq); n++) put(dq, n, get(dq, n) + get(h.dq, n));
        assert_all_close("dk", h.dk, keys_of(g.dk, 2, begin, end), 1e-12);
        assert_all_close("dv", h.dv, keys_of(g.dv, 2, begin, end), 1e-12);
    }
    assert_all_close("dq", dq, g.dq, 1e-12);
}

/* ---- parts of any numbers -------------------------------------------------------------------------------------------- */

static const int64_t out_shape[] = { 2, 3, 5, 300 };

typedef struct parts {
    attn_tensor outs[MOST_PARTS], lses[MOST_PARTS];
} parts;

/* Some of them saw nothing, and hold NaN. */
static void make_parts(parts *p, int64_t n, int32_t dtype, uint64_t seed) {
    for (int64_t i = 0; i < n; i++) {
        p->outs[i] = tensor_of(dtype, 4, out_shape);
        p->lses[i] = tensor_of(accumulator(dtype), 3, out_shape);
        fill_normal(p->outs[i], &seed);
        for (int64_t row = 0; row < attn_count(&p->lses[i]); row++) {
            bool dead = uniform(&seed) < 0.3;
            put(p->lses[i], row, dead ? -INFINITY : 20 * normal(&seed));
            for (int64_t c = 0; dead && c < out_shape[3]; c++) put(p->outs[i], row * out_shape[3] + c, NAN);
        }
    }
}

static attn_merge_args merge_of(const parts *p, int64_t n, int32_t out_dtype) {
    return (attn_merge_args){ .n = n,
                              .outs = p->outs,
                              .lses = p->lses,
                              .out = tensor_of(out_dtype, 4, out_shape),
                              .lse = tensor_of(p->lses[0].dtype, 3, out_shape) };
}

/* The formula in long double. */
static void assert_formula(const attn_merge_args *a, double out_unit) {
    for (int64_t row = 0; row < attn_count(&a->lse); row++) {
        long double max = -INFINITY, sum = 0;
        for (int64_t i = 0; i < a->n; i++) max = fmaxl(max, get(a->lses[i], row));
        for (int64_t i = 0; i < a->n && max > -INFINITY; i++) sum += expl(get(a->lses[i], row) - max);
        double lse = max == -INFINITY ? -INFINITY : (double)(max + logl(sum)), unit = merge_unit(a->outs[0].dtype, a->n);
        assert_within("lse", a->lse, row, lse, unit + unit_of(a->outs[0].dtype) * fabs(lse));
        for (int64_t c = 0; c < out_shape[3]; c++) {
            long double mix = 0;
            double largest = 0;
            for (int64_t i = 0; i < a->n; i++) {
                double part = get(a->lses[i], row), x = get(a->outs[i], row * out_shape[3] + c);
                if (part == -INFINITY) continue;
                mix += expl(part - max) / sum * x;
                largest = fmax(largest, fabs(x));
            }
            assert_within("out", a->out, row * out_shape[3] + c, (double)mix,
                          unit * largest + out_unit * fabs((double)mix) + 0x1p-24 * (out_unit > 0x1p-20));
        }
    }
}

static void merged_parts_are_the_formula_within_the_published_bound(void **state) {
    (void)state;
    static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_BF16, ATTN_F16 };
    static const double units[] = { 0, 0, 0x1p-8, 0x1p-11 };
    static const int64_t numbers[] = { 1, 2, 3, 64, 65, 99 };
    for (int in = 0; in < 4; in++)
        for (int out = 0; out < 4; out++)
            for (int k = 0; k < 6; k++) {
                parts p;
                make_parts(&p, numbers[k], dtypes[in], 10 + (uint64_t)k);
                attn_merge_args a = merge_of(&p, numbers[k], dtypes[out]);
                merge(&a);
                assert_formula(&a, dtypes[in] == ATTN_F64 && dtypes[out] == ATTN_F32 ? 0x1p-24 : units[out]);
                free_blocks(NULL);
            }
}

static void parts_that_saw_nothing_count_nothing_whatever_they_hold(void **state) {
    (void)state;
    parts p;
    make_parts(&p, 3, ATTN_F32, 1);
    attn_merge_args a = merge_of(&p, 3, ATTN_F32);
    for (int i = 0; i < 3; i++) put(p.lses[i], 0, -INFINITY);
    put(p.lses[0], 1, -INFINITY), put(p.lses[1], 1, -700), put(p.lses[2], 1, -INFINITY);
    for (int64_t c = 0; c < 300; c++) {
        for (int i = 0; i < 3; i++) put(p.outs[i], c, c % 2 ? NAN : INFINITY);
        put(p.outs[0], 300 + c, NAN), put(p.outs[1], 300 + c, (double)c), put(p.outs[2], 300 + c, -INFINITY);
    }
    merge(&a);
    assert_true(get(a.lse, 0) == -INFINITY && get(a.lse, 1) == -700);
    for (int64_t c = 0; c < 300; c++) assert_true(get(a.out, c) == 0 && get(a.out, 300 + c) == (double)c);
}

static void nan_and_infinite_sums_show_in_their_row_alone(void **state) {
    (void)state;
    parts p;
    make_parts(&p, 3, ATTN_F64, 2);
    attn_merge_args a = merge_of(&p, 3, ATTN_F64), b = merge_of(&p, 3, ATTN_F64);
    merge(&b);
    put(p.lses[1], 4, INFINITY), put(p.lses[2], 7, NAN);
    merge(&a);
    assert_true(get(a.lse, 4) == INFINITY && isnan(get(a.lse, 7)));
    for (int64_t n = 0; n < attn_count(&a.out); n++) {
        if (n / 300 == 4 || n / 300 == 7)
            assert_true(isnan(get(a.out, n)));
        else
            assert_true(get(a.out, n) == get(b.out, n));
    }
}

static void strides_place_and_threads_do_not_change_a_bit(void **state) {
    (void)state;
    static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_BF16 };
    for (int d = 0; d < 3; d++)
        for (int32_t threads = 1; threads < 8; threads += 2) {
            parts p, s;
            attn_exec exec = { 0 };
            make_parts(&p, 5, dtypes[d], 3);
            make_parts(&s, 5, dtypes[d], 3);
            attn_merge_args a = merge_of(&p, 5, dtypes[d]), b = merge_of(&s, 5, dtypes[d]);
            merge(&a);
            for (int i = 0; i < 5; i++) s.outs[i] = strided_copy(s.outs[i]);
            b.out = threads % 2 ? s.outs[0] : strided_copy(b.out);
            b.lse = s.lses[0];
            assert_int_equal(attn_pool_open(&exec, threads), ATTN_OK);
            assert_int_equal(attn_merge(&b, &exec), ATTN_OK);
            attn_pool_close(&exec);
            assert_same_bits("out", b.out, a.out);
            assert_same_bits("lse", b.lse, a.lse);
            free_blocks(NULL);
        }
}

static ref_part part_of_row(const void *context, int64_t i) {
    const attn_merge_args *a = context;
    return (ref_part){ .out = { a->outs[i].data, 1, a->outs[i].dtype }, .lse = get(a->lses[i], 0) };
}

static void the_reference_is_the_formula(void **state) {
    (void)state;
    parts p;
    make_parts(&p, 7, ATTN_F64, 5);
    attn_merge_args a = merge_of(&p, 7, ATTN_F64);
    merge(&a);
    attn_tensor out = tensor1(ATTN_F64, 300), lse = tensor1(ATTN_F64, 1);
    ref_merge_row(7, 300, part_of_row, &a, (ref_vector){ out.data, 1, ATTN_F64 }, (ref_vector){ lse.data, 1, ATTN_F64 });
    assert_close(get(lse, 0), get(a.lse, 0), 1e-14);
    for (int64_t c = 0; c < 300; c++) assert_close(get(out, c), get(a.out, c), 1e-14);
}

/* ---- gradients --------------------------------------------------------------------------------------------------------- */

/* sum dout * out + sum dlse * lse, over rows where something was seen. */
static double loss(const attn_merge_args *a, const attn_merge_grads *g) {
    double sum = 0;
    merge(a);
    for (int64_t n = 0; n < attn_count(&a->out); n++) sum += get(g->dout, n) * get(a->out, n);
    for (int64_t n = 0; n < attn_count(&a->lse); n++)
        if (get(a->lse, n) > -INFINITY) sum += get(g->dlse, n) * get(a->lse, n);
    return sum;
}

static double slope(const attn_merge_args *a, const attn_merge_grads *g, attn_tensor t, int64_t at) {
    const double h = 1e-5, x = get(t, at);
    put(t, at, x + h);
    double up = loss(a, g);
    put(t, at, x - h);
    double down = loss(a, g);
    put(t, at, x);
    return (up - down) / (2 * h);
}

static void gradients_are_those_of_central_differences(void **state) {
    (void)state;
    enum { N = 4 };
    uint64_t seed = 11;
    parts p, d;
    make_parts(&p, N, ATTN_F64, 21);
    make_parts(&d, N, ATTN_F64, 22);
    for (int i = 0; i < N; i++)
        for (int64_t n = 0; n < attn_count(&p.lses[i]); n++) put(p.lses[i], n, get(p.lses[i], n) / 10);
    attn_merge_args a = merge_of(&p, N, ATTN_F64);
    attn_merge_grads g = { .dout = tensor_of(ATTN_F64, 4, out_shape), .dlse = tensor_of(ATTN_F64, 3, out_shape) };
    fill_normal(g.dout, &seed), fill_normal(g.dlse, &seed);
    g.douts = d.outs, g.dlses = d.lses;
    assert_int_equal(attn_merge_backward(&a, &g, NULL), ATTN_OK);
    for (int i = 0; i < N; i++)
        for (int64_t row = 0; row < attn_count(&p.lses[i]); row += 4) {
            bool dead = get(p.lses[i], row) == -INFINITY;
            for (int64_t c = 0; c < 300; c += 97) {
                double expected = dead ? 0 : slope(&a, &g, p.outs[i], row * 300 + c);
                assert_close(get(d.outs[i], row * 300 + c), expected, 1e-7);
            }
            assert_close(get(d.lses[i], row), dead ? 0 : slope(&a, &g, p.lses[i], row), 1e-6);
        }
    /* each may be left out, and dlse too */
    attn_tensor some[N] = { { 0 } };
    some[2] = tensor_of(ATTN_F64, 4, out_shape);
    assert_int_equal(attn_merge_backward(&a, &(attn_merge_grads){ .dout = g.dout, .douts = some }, NULL), ATTN_OK);
    assert_same_bits("douts[2]", some[2], d.outs[2]);
}

static void gradients_are_shares_within_the_published_bound(void **state) {
    (void)state;
    static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_BF16, ATTN_F16 };
    static const double units[] = { 0, 0, 0x1p-8, 0x1p-11 };
    static const int64_t numbers[] = { 1, 3, 64, 65 };
    for (int k = 0; k < 16; k++) {
        const int64_t n = numbers[k % 4];
        const int32_t dtype = dtypes[k / 4];
        uint64_t seed = 40 + (uint64_t)k;
        parts p, d;
        make_parts(&p, n, dtype, seed), make_parts(&d, n, dtype, seed);
        attn_merge_args a = merge_of(&p, n, dtype);
        attn_merge_grads g = { .dout = tensor_of(dtype, 4, out_shape), .dlse = tensor_of(p.lses[0].dtype, 3, out_shape) };
        fill_normal(g.dout, &seed), fill_normal(g.dlse, &seed);
        g.douts = d.outs, g.dlses = d.lses;
        assert_int_equal(attn_merge_backward(&a, &g, NULL), ATTN_OK);
        for (int64_t row = 0; row < attn_count(&p.lses[0]); row += 3) {
            double max = -INFINITY, sum = 0, share[MOST_PARTS] = { 0 }, along[MOST_PARTS] = { 0 }, mean = 0, size = 0;
            double unit = merge_unit(dtype, n), dlse = get(g.dlse, row);
            for (int64_t i = 0; i < n; i++) max = fmax(max, get(p.lses[i], row));
            for (int64_t i = 0; i < n && max > -INFINITY; i++) sum += share[i] = exp(get(p.lses[i], row) - max);
            for (int64_t c = 0; c < out_shape[3]; c++) {
                double largest = 0;
                for (int64_t i = 0; i < n; i++) {
                    double x = get(g.dout, row * out_shape[3] + c) * get(p.outs[i], row * out_shape[3] + c);
                    if (share[i] == 0) continue;
                    along[i] += x;
                    largest = fmax(largest, fabs(x));
                }
                size += largest;
            }
            for (int64_t i = 0; i < n; i++) mean += sum > 0 ? (share[i] /= sum) * along[i] : 0;
            for (int64_t i = 0; i < n; i++) {
                assert_within("dlses", d.lses[i], row, share[i] * (along[i] - mean + dlse),
                              unit * share[i] * (2 * size + fabs(dlse)) + (dtype == ATTN_F64 ? 0x1p-1022 : 0x1p-126));
                for (int64_t c = 0; c < out_shape[3]; c += 50) {
                    double exact = share[i] * get(g.dout, row * out_shape[3] + c);
                    assert_within("douts", d.outs[i], row * out_shape[3] + c, exact,
                                  (unit + units[k / 4]) * fabs(exact) + (dtype == ATTN_F16   ? 0x1p-25
                                                                         : dtype == ATTN_F64 ? 0x1p-1022
                                                                                             : 0x1p-126));
                }
            }
        }
        free_blocks(NULL);
    }
}

/* ---- refusals ------------------------------------------------------------------------------------------------------------ */

static void assert_refused(const attn_merge_args *a, attn_status status, const char *says) {
    attn_status s = attn_merge(a, NULL);
    if (s != status || !strstr(attn_last_error(), says)) fail_msg("%s: %s", attn_status_name(s), attn_last_error());
    if (a && a->out.rank == 4) assert_all("out", a->out, NAN);
}

static void bad_arguments_are_refused_before_anything_is_written(void **state) {
    (void)state;
    parts p, q;
    make_parts(&p, 3, ATTN_F32, 1);
    attn_merge_args good = merge_of(&p, 3, ATTN_F32), a;
    assert_refused(NULL, ATTN_BAD_ARGUMENT, "has no arguments");
    a = good, a.n = 0;
    assert_refused(&a, ATTN_BAD_ARGUMENT, "n is 0: there is at least one part");
    a = good, a.outs = NULL;
    assert_refused(&a, ATTN_BAD_ARGUMENT, "outs is NULL");
    a = good, a.lses = NULL;
    assert_refused(&a, ATTN_BAD_ARGUMENT, "lses is NULL");
    a = good, a.reserved[31] = 1;
    assert_refused(&a, ATTN_UNSUPPORTED, "attn_merge_args");
    a = good, q = p, a.outs = q.outs, a.lses = q.lses, q.outs[2].shape[3] = 299;
    assert_refused(&a, ATTN_BAD_SHAPE, "outs[2] has shape [2, 3, 5, 299], outs[0] asks for [2, 3, 5, 300]");
    q = p, q.lses[1].shape[2] = 4;
    assert_refused(&a, ATTN_BAD_SHAPE, "lses[1] has shape [2, 3, 4]");
    q = p, q.lses[1] = tensor3(ATTN_F64, 2, 3, 5);
    assert_refused(&a, ATTN_UNSUPPORTED, "lses[1] is f64");
    q = p, q.outs[1].dtype = ATTN_I32;
    assert_refused(&a, ATTN_UNSUPPORTED, "outs[1] is i32");
    q = p, q.outs[0].rank = 1;
    assert_refused(&a, ATTN_BAD_SHAPE, "outs[0]");
    a = good, a.out = tensor4(ATTN_F32, 2, 3, 5, 299);
    assert_refused(&a, ATTN_BAD_SHAPE, "out has shape [2, 3, 5, 299]");
    a = good, a.out.stride[3] = 0;
    assert_refused(&a, ATTN_BAD_ARGUMENT, "out");
    a = good, a.lse.dtype = ATTN_BF16;
    assert_refused(&a, ATTN_UNSUPPORTED, "lse is bf16");
    assert_int_equal(attn_merge_backward(&good, NULL, NULL), ATTN_BAD_ARGUMENT);
    attn_merge_grads g = { .dout = good.out, .dlses = p.outs };
    assert_int_equal(attn_merge_backward(&good, &g, NULL), ATTN_BAD_SHAPE);
    assert_non_null(strstr(attn_last_error(), "dlses[0] has shape [2, 3, 5, 300]"));
}

static void empty_extents_are_extents(void **state) {
    (void)state;
    attn_tensor out = tensor4(ATTN_F32, 2, 3, 4, 0), lse = tensor3(ATTN_F32, 2, 3, 4), merged = tensor3(ATTN_F32, 2, 3, 4);
    fill(lse, 3);
    merge(&(attn_merge_args){ .n = 1, .outs = &out, .lses = &lse, .out = out, .lse = merged });
    assert_all("lse", merged, 3);
    out = tensor4(ATTN_F32, 2, 0, 4, 8), lse = tensor3(ATTN_F32, 2, 0, 4);
    merge(&(attn_merge_args){ .n = 1, .outs = &out, .lses = &lse, .out = out });
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(keys_split_anywhere_and_merged_are_the_whole, free_blocks),
        cmocka_unit_test_teardown(any_number_of_parts_is_the_whole, free_blocks),
        cmocka_unit_test_teardown(the_backward_of_a_part_told_the_merged_out_and_lse_is_the_whole_s, free_blocks),
        cmocka_unit_test_teardown(merged_parts_are_the_formula_within_the_published_bound, free_blocks),
        cmocka_unit_test_teardown(parts_that_saw_nothing_count_nothing_whatever_they_hold, free_blocks),
        cmocka_unit_test_teardown(nan_and_infinite_sums_show_in_their_row_alone, free_blocks),
        cmocka_unit_test_teardown(strides_place_and_threads_do_not_change_a_bit, free_blocks),
        cmocka_unit_test_teardown(the_reference_is_the_formula, free_blocks),
        cmocka_unit_test_teardown(gradients_are_those_of_central_differences, free_blocks),
        cmocka_unit_test_teardown(gradients_are_shares_within_the_published_bound, free_blocks),
        cmocka_unit_test_teardown(bad_arguments_are_refused_before_anything_is_written, free_blocks),
        cmocka_unit_test_teardown(empty_extents_are_extents, free_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
