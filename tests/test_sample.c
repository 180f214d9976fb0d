/* SPDX-License-Identifier: Apache-2.0 */
/* Sampling: every draw against an oracle that sorts the row in long double, frequencies by chi-square under fixed seeds, special
 * rows, the same draws whatever the strides and threads, memory, refusals. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "src/philox.h"
#include "src/ref/sample.h"

#include "tests/failing_malloc.h"
#include "tests/tensors.h"

static const int32_t dtypes[] = { ATTN_F32, ATTN_F64, ATTN_BF16, ATTN_F16 };

static attn_sample_args sampling(attn_tensor logits, double temperature) {
    attn_sample_args a = { .logits = logits, .temperature = temperature };
    a.index = tensor_of(ATTN_I64, logits.rank - 1, logits.shape);
    a.probability = tensor_of(logits.dtype == ATTN_F64 ? ATTN_F64 : ATTN_F32, logits.rank - 1, logits.shape);
    return a;
}

/* ---- the oracle: sort everything, add up in long double ----------------------------------------------------------- */

typedef struct class_of {
    long double e; /* exp((x - max) / temperature) */
    double x;
    int64_t index;
} class_of;

static int likelier_first(const void *a, const void *b) {
    const class_of *x = a, *y = b;
    if (x->x != y->x) return x->x > y->x ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}
static int lower_first(const void *a, const void *b) {
    const class_of *x = a, *y = b;
    return x->index < y->index ? -1 : 1;
}

static double u_of(uint64_t seed, uint64_t row) {
    attn_philox w = attn_philox_words((attn_philox){ { (uint32_t)row, (uint32_t)(row >> 32), 0, 2 } }, seed);
    return ((double)((w.word[0] | (uint64_t)w.word[1] << 32) >> 12) + 0.5) * 0x1p-52;
}

/* The classes that are left of n finite or masked logits, in their order. Returns how many; *close: a border is so near that
 * rounding may decide it. */
static int64_t left_of(const attn_sample_args *a, int64_t row, class_of *c, bool *close) {
    const int64_t n = a->logits.shape[a->logits.rank - 1];
    const double p = a->top_p != 0 ? a->top_p : 1;
    int64_t live = 0;
    long double total = 0, sum = 0;
    for (int64_t i = 0; i < n; i++)
        if (get(a->logits, row * n + i) != -INFINITY) c[live++] = (class_of){ 0, get(a->logits, row * n + i), i };
    qsort(c, (size_t)live, sizeof *c, likelier_first);
    if (a->top_k > 0 && live > a->top_k) live = a->top_k;
    for (int64_t i = 0; i < live; i++) total += c[i].e = expl(((long double)c[i].x - c[0].x) / a->temperature);
    *close = false;
    for (int64_t i = 0; i < live && p < 1; i++) {
        sum += c[i].e;
        if (fabsl(sum - p * total) < 1e-9L * total) *close = true;
        if (sum >= p * total) live = i + 1;
    }
    while (live > 1 && c[live - 1].e < a->min_p) live--;
    for (int64_t i = 0; i < live; i++)
        if (fabsl(c[i].e - a->min_p) < 1e-9L * a->min_p && i > 0 && c[i].x != c[0].x) *close = true;
    qsort(c, (size_t)live, sizeof *c, lower_first);
    return live;
}

static void check_draws(const attn_sample_args *a) {
    const int64_t n = a->logits.shape[a->logits.rank - 1];
    class_of *c = malloc((size_t)(n + 1) * sizeof *c);
    for (int64_t row = 0; row < attn_row_count(&a->logits); row++) {
        bool close;
        int64_t left = left_of(a, row, c, &close), at = -1;
        long double mass = 0, below = 0, target = u_of(a->seed, (uint64_t)row);
        double index = get(a->index, row), probability = get(a->probability, row);
        if (close) continue;
        for (int64_t i = 0; i < left; i++) mass += c[i].e;
        for (int64_t i = 0; i < left && at < 0; i++) {
            if ((double)c[i].index == index)
                at = i;
            else
                below += c[i].e;
        }
        if (at < 0)
            fail_msg("n %lld, T %g, k %lld, p %g, m %g: class %g, which is cut off", (long long)n, a->temperature,
                     (long long)a->top_k, a->top_p, a->min_p, index);
        if (!(below <= (target + 1e-10L) * mass && below + c[at].e >= (target - 1e-10L) * mass))
            fail_msg("n %lld, T %g, k %lld, p %g, m %g: class %g lies at %.12Lg .. %.12Lg, not at %.12Lg", (long long)n,
                     a->temperature, (long long)a->top_k, a->top_p, a->min_p, index, below / mass, (below + c[at].e) / mass,
                     target);
        double exact = (double)(c[at].e / mass), u = a->probability.dtype == ATTN_F64 ? 1e-12 : 0x1p-23;
        if (!(fabs(probability - exact) <= u * exact))
            fail_msg("n %lld: probability %.17g instead of %.17g", (long long)n, probability, exact);
    }
    free(c);
}

static const struct {
    double temperature, top_p, min_p;
    int64_t top_k;
} options[] = {
    { 1, 0, 0, 0 },    { 0.3, 0, 0, 0 },      { 2, 0, 0, 5 },    { 1, 0.9, 0, 0 },    { 1, 0.5, 0, 7 },
    { 1, 0, 0.05, 0 }, { 0.7, 0.8, 0.1, 3 },  { 5, 0.95, 0, 0 }, { 50, 0.99, 0, 0 },  { 1, 1, 1, 0 },
    { 1, 1e-9, 0, 0 }, { 3, 0.7, 0.2, 0 },    { 4, 0, 0, 1500 }, { 9, 0.9, 0, 1500 }, { 4, 0, 0.3, 1300 },
    { 1e-3, 0, 0, 0 }, { 1e-300, 0.9, 0, 0 }, { 1, 0, 0, 1 },    { 1e9, 0.5, 0, 0 },  { 8, 0.01, 0, 1 << 20 },
};
enum { OPTIONS = sizeof options / sizeof *options };

static void set_options(attn_sample_args *a, size_t o) {
    a->temperature = options[o].temperature;
    a->top_p = options[o].top_p, a->min_p = options[o].min_p, a->top_k = options[o].top_k;
}

/* ---- draws -------------------------------------------------------------------------------------------------------------- */

static void every_draw_is_the_one_that_u_says(void **state) {
    (void)state;
    static const int64_t n_of[] = { 1, 2, 3, 10, 100, 255, 256, 257, 513, 1025, 2600, 5000 };
    uint64_t seed = 1;
    for (size_t d = 0; d < 4; d++)
        for (size_t o = 0; o < OPTIONS; o++)
            for (size_t l = 0; l < sizeof n_of / sizeof *n_of; l++) {
                attn_sample_args a = sampling(tensor2(dtypes[d], 4, n_of[l]), 1);
                set_options(&a, o);
                a.seed = random_word(&seed);
                fill_normal(a.logits, l % 2 ? 3 : 1, &seed);
                for (int64_t i = 0; i < 4 * n_of[l]; i++)
                    if (i % n_of[l] && uniform(&seed) < 0.1) put(a.logits, i, -INFINITY);
                assert_ok(attn_sample(&a, NULL));
                check_draws(&a);
                free_blocks(NULL);
            }
}

/* Many equal logits, thousands in one place, logits whose differences are tiny, large, or both. */
static double awkward(int kind, int64_t i) {
    switch (kind) {
    case 0: return 2.5;
    case 1: return (double)(i % 3);
    case 2: return 1 + 0x1p-50 * (double)(i % 5000);
    case 3: return -1e-3 * (double)i;
    case 4: return i == 1234 ? 1 : -1e-9 * (double)(i % 7);
    case 5: return i % 2 ? 1e300 : -1e300;
    case 6: return i % 2 ? 0.0 : -0.0;
    case 7: return i % 3 == 2 ? -1e-9 : i % 3 ? -0.0 : 0.0;
    default: return i % 1000 == 7 ? 40 : -40 - 1e-12 * (double)(i % 4000);
    }
}

static void awkward_rows_are_rows(void **state) {
    (void)state;
    for (int kind = 0; kind < 9; kind++)
        for (size_t o = 0; o < OPTIONS; o++)
            for (int64_t n = 901; n < 9000; n *= 3) {
                attn_sample_args a = sampling(tensor2(ATTN_F64, 2, n), 1);
                set_options(&a, o);
                for (int64_t i = 0; i < 2 * n; i++) put(a.logits, i, awkward(kind, i % n));
                for (a.seed = 0; a.seed < 3; a.seed++) {
                    assert_ok(attn_sample(&a, NULL));
                    check_draws(&a);
                }
                free_blocks(NULL);
            }
}

static void the_reference_draws_the_same(void **state) {
    (void)state;
    uint64_t seed = 2;
    for (size_t d = 0; d < 4; d++)
        for (size_t o = 0; o < OPTIONS; o++) {
            const int64_t n = 400;
            attn_sample_args a = sampling(tensor2(dtypes[d], 2, n), 1);
            set_options(&a, o);
            fill_normal(a.logits, 2, &seed);
            assert_ok(attn_sample(&a, NULL));
            for (int64_t row = 0; row < 2; row++) {
                ref_sampler s = { .n = n,
                                  .x = { attn_at(&a.logits, row * n), 1, dtypes[d] },
                                  .temperature = a.temperature,
                                  .top_k = a.top_k,
                                  .top_p = a.top_p != 0 ? a.top_p : 1,
                                  .min_p = a.min_p };
                ref_draw r = ref_sample(&s, ref_sample_uniform(a.seed, (uint64_t)row));
                assert_true(get(a.index, row) == (double)r.index);
                assert_true(fabs(get(a.probability, row) - r.probability) <= 0x1p-23 * r.probability);
            }
            free_blocks(NULL);
        }
}

static void worked_cases(void **state) {
    (void)state;
    attn_sample_args a = sampling(values1(ATTN_F64, 4, (double[]){ 7, 7, 7, 7 }), 1);
    int64_t seen[4] = { 0 };
    a.top_p = 0.5; /* exactly the mass of two: the two lower ones */
    for (a.seed = 0; a.seed < 64; a.seed++) {
        assert_ok(attn_sample(&a, NULL));
        assert_true(get(a.probability, 0) == 0.5 && get(a.index, 0) == (u_of(a.seed, 0) >= 0.5));
        seen[(int64_t)get(a.index, 0)]++;
    }
    assert_true(seen[0] > 16 && seen[1] > 16);
    a.top_p = 0.51;
    assert_ok(attn_sample(&a, NULL));
    assert_true(fabs(get(a.probability, 0) - 1 / 3.0) < 1e-15);
    a.top_p = 0, a.top_k = 2;
    assert_ok(attn_sample(&a, NULL));
    assert_true(get(a.probability, 0) == 0.5);
    a.top_k = 0, a.min_p = 1; /* as likely as the likeliest: all */
    assert_ok(attn_sample(&a, NULL));
    assert_true(get(a.probability, 0) == 0.25);
    a.logits = values1(ATTN_F64, 4, (double[]){ 0, log(2), log(4), 0 }); /* 1/8, 1/4, 1/2, 1/8 */
    a.min_p = 0.4;
    for (a.seed = 0; a.seed < 64; a.seed++) {
        assert_ok(attn_sample(&a, NULL));
        bool second = u_of(a.seed, 0) * 3 >= 1; /* of classes 1 and 2 */
        assert_true(get(a.index, 0) == (second ? 2 : 1));
        assert_true(fabs(get(a.probability, 0) - (second ? 2 : 1) / 3.0) < 1e-15);
    }
    attn_sample_args many = sampling(tensor1(ATTN_F32, 4096), 1);
    fill(many.logits, -3);
    many.top_p = 0.5; /* again exactly, of more than are sorted */
    for (many.seed = 0; many.seed < 64; many.seed++) {
        assert_ok(attn_sample(&many, NULL));
        assert_true(get(many.probability, 0) == 1 / 2048.0 && get(many.index, 0) == floor(2048 * u_of(many.seed, 0)));
    }
    a.temperature = 0.5, a.min_p = 0, a.top_p = 0.7; /* 1, 4, 16, 1 of 22: class 2 alone holds 0.7 */
    assert_ok(attn_sample(&a, NULL));
    assert_true(get(a.index, 0) == 2 && get(a.probability, 0) == 1);
}

/* The published words of Philox-4x32-10 under the key and the counter of a row: see philox_gives_the_published_words. */
static void u_is_a_function_of_seed_and_row(void **state) {
    (void)state;
    assert_true(ref_sample_uniform(0, 0) == u_of(0, 0) && u_of(0, 0) != u_of(1, 0) && u_of(0, 0) != u_of(0, 1));
    assert_true(ref_sample_uniform(UINT64_MAX, (uint64_t)5 << 40) == u_of(UINT64_MAX, (uint64_t)5 << 40));
    for (uint64_t row = 0; row < 10000; row++) assert_true(u_of(3, row) > 0 && u_of(3, row) < 1);
}

/* ---- frequencies ---------------------------------------------------------------------------------------------------------- */

/* A chi-square with df degrees of freedom has a mean of df and a variance of 2 df: it lies within 4 standard deviations. The
 * seeds are fixed, so that each run is the same run. */
static void frequencies_are_the_probabilities(void **state) {
    (void)state;
    enum { CLASSES = 12, DRAWS = 200000 };
    double x[CLASSES];
    uint64_t seed = 3;
    for (int64_t i = 0; i < CLASSES; i++) x[i] = 1.2 * normal(&seed);
    for (size_t o = 0; o < OPTIONS; o++) {
        attn_sample_args a = sampling(tensor2(ATTN_F64, 1, CLASSES), 1);
        for (int64_t i = 0; i < CLASSES; i++) put(a.logits, i, x[i]);
        set_options(&a, o);
        class_of c[CLASSES];
        bool close;
        int64_t left = left_of(&a, 0, c, &close), seen[CLASSES] = { 0 };
        long double mass = 0;
        a.logits.shape[0] = DRAWS, a.logits.stride[0] = 0; /* one row, many times */
        a.index = tensor1(ATTN_I32, DRAWS);
        a.probability = (attn_tensor){ 0 };
        a.seed = 1000 + o;
        assert_ok(attn_sample(&a, NULL));
        for (int64_t i = 0; i < DRAWS; i++) seen[(int64_t)get(a.index, i)]++;
        double statistic = 0, degrees = 0;
        for (int64_t i = 0; i < left; i++) mass += c[i].e;
        int64_t all = 0;
        for (int64_t i = 0; i < left; i++) {
            double expected = (double)(c[i].e / mass) * DRAWS;
            all += seen[c[i].index];
            if (expected < 5) continue; /* too few to be counted on */
            statistic += (seen[c[i].index] - expected) * (seen[c[i].index] - expected) / expected;
            degrees++;
        }
        assert_true(all == DRAWS); /* none was drawn that is cut off */
        if (!(fabs(statistic - (degrees - 1)) <= 4 * sqrt(2 * degrees)))
            fail_msg("options %zu: chi-square %g with %g degrees of freedom", o, statistic, degrees - 1);
        free_blocks(NULL);
    }
}

/* ---- special rows ---------------------------------------------------------------------------------------------------------- */

static void temperature_0_is_the_first_of_the_largest(void **state) {
    (void)state;
    for (size_t d = 0; d < 4; d++)
        for (int64_t n = 1; n < 2000; n = 3 * n + 1) {
            attn_sample_args a = sampling(tensor2(dtypes[d], 3, n), 0);
            a.top_k = 7, a.top_p = 0.3, a.min_p = 0.5;
            for (int64_t i = 0; i < 3 * n; i++) put(a.logits, i, (double)(i % n % 5));
            put(a.logits, 2 * n - 1, INFINITY);
            for (a.seed = 0; a.seed < 3; a.seed++) {
                assert_ok(attn_sample(&a, NULL));
                assert_true(get(a.index, 0) == (double)(n < 5 ? n - 1 : 4) && get(a.probability, 0) == 1);
                assert_true(get(a.index, 1) == (double)(n - 1) && get(a.probability, 1) == 1);
                assert_true(get(a.index, 2) == get(a.index, 0));
            }
        }
}

static void masked_classes_are_never_drawn(void **state) {
    (void)state;
    for (size_t d = 0; d < 4; d++)
        for (size_t o = 0; o < OPTIONS; o++) {
            attn_sample_args a = sampling(tensor2(dtypes[d], 50, 300), 1);
            set_options(&a, o);
            fill(a.logits, -INFINITY);
            for (int64_t row = 0; row < 50; row++) put(a.logits, row * 300 + 77, 1), put(a.logits, row * 300 + 299, 1);
            assert_ok(attn_sample(&a, NULL));
            for (int64_t row = 0; row < 50; row++) assert_true(get(a.index, row) == 77 || get(a.index, row) == 299);
            free_blocks(NULL);
        }
}

static void rows_that_nothing_can_be_drawn_from_give_minus_1(void **state) {
    (void)state;
    for (size_t d = 0; d < 4; d++)
        for (size_t o = 0; o <= OPTIONS; o++) {
            attn_sample_args a = sampling(tensor2(dtypes[d], 4, 300), 0);
            if (o < OPTIONS) set_options(&a, o);
            fill(a.logits, 1);
            for (int64_t i = 0; i < 300; i++) put(a.logits, i, -INFINITY);
            put(a.logits, 300 + 299, NAN);
            put(a.logits, 600 + 5, INFINITY);
            assert_ok(attn_sample(&a, NULL));
            assert_true(get(a.index, 0) == -1 && get(a.probability, 0) == 0);
            assert_true(get(a.index, 1) == -1 && isnan(get(a.probability, 1)));
            assert_true(o < OPTIONS ? get(a.index, 2) == -1 && isnan(get(a.probability, 2)) : get(a.index, 2) == 5);
            assert_true(get(a.index, 3) >= 0 && get(a.probability, 3) > 0);
            free_blocks(NULL);
        }
}

static void empty_extents_are_extents(void **state) {
    (void)state;
    for (size_t o = 0; o < OPTIONS; o++) {
        attn_sample_args a = sampling(tensor2(ATTN_F32, 3, 0), 1);
        set_options(&a, o);
        assert_ok(attn_sample(&a, NULL));
        for (int64_t i = 0; i < 3; i++) assert_true(get(a.index, i) == -1 && get(a.probability, i) == 0);
        a = sampling(tensor2(ATTN_F32, 0, 5), 1);
        assert_ok(attn_sample(&a, NULL));
    }
    attn_tensor x = values1(ATTN_F32, 3, (double[]){ 0, 9, 0 }), index = tensor1(ATTN_I32, 1);
    attn_sample_args a = { .logits = x, .index = index }; /* one row: [1], or a scalar */
    assert_ok(attn_sample(&a, NULL));
    assert_true(get(index, 0) == 1);
    put(index, 0, 0);
    a.index = attn_dense(ATTN_I32, index.data, 0, NULL);
    assert_ok(attn_sample(&a, NULL));
    assert_true(get(index, 0) == 1);
}

/* ---- the same draws ---------------------------------------------------------------------------------------------------------- */

static void strides_threads_and_index_types_do_not_change_a_draw(void **state) {
    (void)state;
    static const int orders[][4] = { { 0, 1, 2, 3 }, { 3, 1, 0, 2 }, { 2, 0, 3, 1 } };
    static const int32_t threads[] = { 1, 2, 3, 7 };
    uint64_t seed = 4;
    for (size_t d = 0; d < 4; d++)
        for (size_t o = 0; o < OPTIONS; o++)
            for (int64_t n = 9; n < 2000; n = 150 * n - 1) {
                const int64_t shape[] = { 3, 5, 2, n };
                attn_sample_args a = sampling(tensor_of(dtypes[d], 4, shape), 1);
                set_options(&a, o);
                a.seed = (uint64_t)o << 60;
                fill_normal(a.logits, 2, &seed);
                assert_ok(attn_sample(&a, NULL));
                for (int way = 0; way < 3; way++) {
                    attn_sample_args s = a;
                    attn_exec pool = { 0 };
                    int order[3], at = 0;
                    for (int i = 0; i < 4; i++)
                        if (orders[way][i] < 3) order[at++] = orders[way][i];
                    s.logits = tensor_in_order(dtypes[d], 4, shape, orders[way], way);
                    s.index = tensor_in_order(ATTN_I32, 3, shape, order, 2);
                    s.probability = tensor_in_order(a.probability.dtype, 3, shape, order, 1);
                    copy_values(a.logits, s.logits);
                    for (int i = 0; i < 4; i++) {
                        assert_ok(attn_pool_open(&pool, threads[i]));
                        fill(s.index, 77);
                        fill(s.probability, 77);
                        assert_ok(attn_sample(&s, &pool));
                        attn_pool_close(&pool);
                        assert_same(s.index, a.index);
                        assert_same(s.probability, a.probability);
                    }
                }
                free_blocks(NULL);
            }
}

static void a_row_depends_on_its_logits_number_and_seed_alone(void **state) {
    (void)state;
    uint64_t seed = 5;
    attn_sample_args a = sampling(tensor2(ATTN_F32, 40, 50), 1), b = sampling(tensor2(ATTN_F32, 40, 50), 1);
    fill_normal(a.logits, 1, &seed);
    fill_normal(b.logits, 1, &seed);
    for (int64_t i = 0; i < 50; i++) put(b.logits, 17 * 50 + i, get(a.logits, 17 * 50 + i));
    a.seed = b.seed = 99;
    assert_ok(attn_sample(&a, NULL));
    assert_ok(attn_sample(&b, NULL));
    assert_true(get(a.index, 17) == get(b.index, 17) && get(a.probability, 17) == get(b.probability, 17));
    int64_t differ = 0;
    b = a;
    b.index = tensor1(ATTN_I64, 40);
    b.seed = 100;
    assert_ok(attn_sample(&b, NULL));
    for (int64_t i = 0; i < 40; i++) differ += get(a.index, i) != get(b.index, i);
    assert_true(differ > 20);
    b.probability = (attn_tensor){ 0 };
    b.seed = 99;
    assert_ok(attn_sample(&b, NULL)); /* the same draws, whatever else is asked for */
    assert_same(a.index, b.index);
}

/* ---- memory ---------------------------------------------------------------------------------------------------------------------- */

static void as_much_memory_as_is_said_is_enough(void **state) {
    (void)state;
    uint64_t seed = 6;
    for (size_t o = 0; o <= OPTIONS; o++) {
        attn_sample_args a = sampling(tensor2(ATTN_F32, 3, 4000), 0), question;
        if (o < OPTIONS) set_options(&a, o);
        fill_normal(a.logits, 1, &seed);
        question = a;
        question.logits.data = question.index.data = question.probability.data = NULL;
        size_t bytes = attn_sample_workspace(&question, 1);
        assert_true(bytes <= 49 * 1024 + 4000 / 32 + 128 && (bytes == 0) == (o == OPTIONS));
        attn_exec exec = { .workspace = poisoned(bytes + 1), .workspace_size = bytes };
        long live = memory.live;
        if (bytes) {
            memory.allowed = 0, memory.for_ever = true;
            attn_status status = attn_sample(&a, NULL);
            memory.allowed = -1;
            assert_int_equal(status, ATTN_NO_MEMORY);
            exec.workspace_size--;
            assert_refused(attn_sample(&a, &exec), ATTN_SMALL_WORKSPACE, "workspace");
            exec.workspace_size++;
            assert_untouched(a.probability);
        }
        memory.allowed = 0, memory.for_ever = true;
        attn_status lent = attn_sample(&a, &exec);
        memory.allowed = -1, memory.for_ever = false;
        assert_int_equal(lent, ATTN_OK);
        assert_true(memory.live == live);
        if (o < OPTIONS) check_draws(&a);
        free_blocks(NULL);
    }
}

/* ---- refusals ---------------------------------------------------------------------------------------------------------------------- */

static void bad_arguments_are_refused_before_anything_is_written(void **state) {
    (void)state;
    attn_sample_args good = sampling(tensor2(ATTN_F32, 2, 6), 1), a;
    fill(good.logits, 1);
    assert_refused(attn_sample(NULL, NULL), ATTN_BAD_ARGUMENT, "no arguments");
#define REFUSED(change, status, words)                                                                                           \
    do {                                                                                                                         \
        a = good;                                                                                                                \
        change;                                                                                                                  \
        assert_refused(attn_sample(&a, NULL), status, words);                                                                    \
    } while (0)
    REFUSED(a.flags = 1, ATTN_BAD_ARGUMENT, "flags 0x1");
    REFUSED(a.temperature = -1, ATTN_BAD_ARGUMENT, "temperature is -1");
    REFUSED(a.temperature = INFINITY, ATTN_BAD_ARGUMENT, "temperature is inf");
    REFUSED(a.temperature = NAN, ATTN_BAD_ARGUMENT, "temperature is nan");
    REFUSED(a.top_k = -1, ATTN_BAD_ARGUMENT, "top_k is -1");
    REFUSED(a.top_p = 1.5, ATTN_BAD_ARGUMENT, "top_p is 1.5");
    REFUSED(a.top_p = -0.5, ATTN_BAD_ARGUMENT, "top_p is -0.5");
    REFUSED(a.top_p = NAN, ATTN_BAD_ARGUMENT, "top_p is nan");
    REFUSED(a.min_p = 2, ATTN_BAD_ARGUMENT, "min_p is 2");
    REFUSED(a.min_p = NAN, ATTN_BAD_ARGUMENT, "min_p is nan");
    REFUSED(a.logits.dtype = ATTN_I8, ATTN_UNSUPPORTED, "logits is i8");
    REFUSED(a.logits.rank = 7, ATTN_BAD_SHAPE, "logits has rank 7");
    REFUSED(a.logits.data = NULL, ATTN_BAD_ARGUMENT, "logits has no data");
    REFUSED(a.index = (attn_tensor){ 0 }, ATTN_BAD_ARGUMENT, "index is missing");
    REFUSED(a.index.dtype = ATTN_F32, ATTN_BAD_ARGUMENT, "index is f32: it is i32 or i64");
    REFUSED(a.index.shape[0] = 3, ATTN_BAD_SHAPE, "index has shape [3], the number of rows asks for [2]");
    REFUSED(a.index.stride[0] = 0, ATTN_BAD_ARGUMENT, "index is an output and has stride 0");
    REFUSED(a.probability.dtype = ATTN_F64, ATTN_UNSUPPORTED, "probability is f64");
    REFUSED(a.probability.shape[0] = 1, ATTN_BAD_SHAPE, "probability has shape [1]");
    REFUSED(a.reserved[0] = 1, ATTN_UNSUPPORTED, "attn_sample_args");
    static char one[4];
    attn_tensor huge = { .data = one, .dtype = ATTN_F32, .rank = 2, .shape = { 2, (int64_t)1 << 32 } };
    REFUSED((a.logits = huge, a.index.dtype = ATTN_I32), ATTN_BAD_ARGUMENT, "index is i32, which cannot count to 4294967296");
    assert_refused(attn_sample(&good, &(attn_exec){ .n_threads = 2 }), ATTN_BAD_ARGUMENT, "parallel_for");
    assert_untouched(good.probability);
    for (int64_t i = 0; i < 2; i++) assert_true(get(good.index, i) == -1); /* as it was: bytes of 0xff */
    a = good, a.top_p = 7;
    assert_true(attn_sample_workspace(&a, 1) == 0 && attn_sample_workspace(NULL, 1) == 0);
}

/* Rounding may keep the sum of a prefix below what is wanted of it: the last class then ends it. */
static void a_nucleus_of_nearly_all_among_equals_ends_with_the_last(void **state) {
    (void)state;
    enum { N = 3000 };
    for (int level = 1; level <= 30; level++) {
        attn_sample_args a = { .logits = tensor2(ATTN_F64, 1, N),
                               .index = tensor1(ATTN_I64, 1),
                               .probability = tensor1(ATTN_F64, 1) };
        double below = exp(-0.1 * level), whole = 1 + (N - 1) * below;
        a.temperature = 1;
        a.top_p = nextafter(1, 0);
        a.seed = (uint64_t)level;
        fill(a.logits, -0.1 * level);
        put(a.logits, 0, 0);
        assert_ok(attn_sample(&a, NULL));
        assert_in_range((uint64_t)get(a.index, 0), 0, N - 1);
        assert_true(fabs(get(a.probability, 0) * whole - (get(a.index, 0) == 0 ? 1 : below)) < 1e-12);
        free_blocks(NULL);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(every_draw_is_the_one_that_u_says, free_blocks),
        cmocka_unit_test_teardown(awkward_rows_are_rows, free_blocks),
        cmocka_unit_test_teardown(the_reference_draws_the_same, free_blocks),
        cmocka_unit_test_teardown(worked_cases, free_blocks),
        cmocka_unit_test_teardown(u_is_a_function_of_seed_and_row, free_blocks),
        cmocka_unit_test_teardown(frequencies_are_the_probabilities, free_blocks),
        cmocka_unit_test_teardown(temperature_0_is_the_first_of_the_largest, free_blocks),
        cmocka_unit_test_teardown(masked_classes_are_never_drawn, free_blocks),
        cmocka_unit_test_teardown(rows_that_nothing_can_be_drawn_from_give_minus_1, free_blocks),
        cmocka_unit_test_teardown(empty_extents_are_extents, free_blocks),
        cmocka_unit_test_teardown(strides_threads_and_index_types_do_not_change_a_draw, free_blocks),
        cmocka_unit_test_teardown(a_row_depends_on_its_logits_number_and_seed_alone, free_blocks),
        cmocka_unit_test_teardown(as_much_memory_as_is_said_is_enough, free_blocks),
        cmocka_unit_test_teardown(bad_arguments_are_refused_before_anything_is_written, free_blocks),
        cmocka_unit_test_teardown(a_nucleus_of_nearly_all_among_equals_ends_with_the_last, free_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
