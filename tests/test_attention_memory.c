/* SPDX-License-Identifier: Apache-2.0 */
/* Attention's memory: asked for, lent, refused, exhausted; and a pool that has been used before a fork. */
#define _POSIX_C_SOURCE 200809L
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "attention_cases.h"
#include "tests/failing_malloc.h"

#include <sys/wait.h>
#include <unistd.h>

enum { PROBLEMS = 4 };

static attn_attention_args some_problem(int which) {
    static const problem_shape shapes[PROBLEMS] = {
        { 2, 4, 2, 1, 40, 70, 32, 16 }, { 2, 2, 2, 2, 2, 90, 16, 16 }, { 1, 2, 1, 1, 9, 12, 8, 8 }, { 1, 2, 2, 2, 20, 30, 8, 4 }
    };
    static const int32_t dtypes[PROBLEMS] = { ATTN_F32, ATTN_F32, ATTN_BF16, ATTN_F64 };
    attn_attention_args a = problem(shapes[which], dtypes[which], 1);
    a.causal = ATTN_CAUSAL;
    a.bias = tensor1(a.q.dtype, shapes[which].kv_len);
    fill(a.bias, 0.5);
    a.dropout = which % 2 ? 0.5 : 0;
    a.see = see_all(&a, 2);
    return a;
}

static attn_attention_grads some_gradients(const attn_attention_args *a) {
    attn_attention_grads g = { .dout = tensor_of(a->q.dtype, 4, a->out.shape),
                               .dq = tensor_of(a->q.dtype, 4, a->q.shape),
                               .dk = tensor_of(a->q.dtype, 4, a->k.shape),
                               .dv = tensor_of(a->q.dtype, 4, a->v.shape),
                               .dbias = tensor_of(a->q.dtype, 1, a->bias.shape) };
    fill(g.dout, 0.25);
    return g;
}

/* ---- lent -------------------------------------------------------------------------------------------------------- */

static void a_call_with_lent_memory_allocates_nothing(void **state) {
    (void)state;
    for (int32_t threads = 1; threads <= 3; threads += 2)
        for (int which = 0; which < PROBLEMS; which++) {
            attn_exec exec = { 0 };
            attn_attention_args a = some_problem(which);
            attn_attention_grads g = some_gradients(&a);
            assert_int_equal(attn_pool_open(&exec, threads), ATTN_OK);
            size_t forward = attn_attention_workspace(&a, threads), backward = attn_attention_backward_workspace(&a, &g, threads);
            exec.workspace_size = forward > backward ? forward : backward;
            assert_true(exec.workspace_size > 0);
            exec.workspace = poisoned(exec.workspace_size);
            memory.allowed = 0;
            memory.for_ever = true;
            attn_status s = attn_attention(&a, &exec), t = attn_attention_backward(&a, &g, &exec);
            memory.allowed = -1;
            assert_int_equal(s, ATTN_OK);
            assert_int_equal(t, ATTN_OK);
            attn_pool_close(&exec);
            free_blocks(NULL);
        }
}

static void a_byte_too_few_is_refused_and_nothing_is_written(void **state) {
    (void)state;
    for (int which = 0; which < PROBLEMS; which++) {
        attn_attention_args a = some_problem(which);
        attn_attention_grads g = some_gradients(&a);
        fill(a.out, 42);
        fill(g.dq, 42);
        attn_exec exec = { .workspace_size = attn_attention_workspace(&a, 1) - 1 };
        exec.workspace = poisoned(exec.workspace_size);
        assert_int_equal(attn_attention(&a, &exec), ATTN_SMALL_WORKSPACE);
        exec.workspace_size = attn_attention_backward_workspace(&a, &g, 1) - 1;
        exec.workspace = poisoned(exec.workspace_size);
        assert_int_equal(attn_attention_backward(&a, &g, &exec), ATTN_SMALL_WORKSPACE);
        assert_all("out", a.out, 42);
        assert_all("dq", g.dq, 42);
        free_blocks(NULL);
    }
}

static void lent_memory_is_not_written_beyond_its_end(void **state) {
    (void)state;
    for (int which = 0; which < PROBLEMS; which++) {
        attn_attention_args a = some_problem(which);
        attn_attention_grads g = some_gradients(&a);
        size_t forward = attn_attention_workspace(&a, 1), backward = attn_attention_backward_workspace(&a, &g, 1);
        uint8_t *f = poisoned(forward + 64), *b = poisoned(backward + 64);
        assert_int_equal(attn_attention(&a, &(attn_exec){ .workspace = f, .workspace_size = forward }), ATTN_OK);
        assert_int_equal(attn_attention_backward(&a, &g, &(attn_exec){ .workspace = b, .workspace_size = backward }), ATTN_OK);
        for (int i = 0; i < 64; i++) assert_true(f[forward + (size_t)i] == 0xff && b[backward + (size_t)i] == 0xff);
        free_blocks(NULL);
    }
}

/* ---- questions ---------------------------------------------------------------------------------------------------------- */

/* One query whose many heads share keys: they are rows, and more blocks of them than the query is; so too in a packed batch. */
static void heads_that_are_rows_have_room(void **state) {
    (void)state;
    for (int dtype = 0; dtype < 2; dtype++)
        for (int packed = 0; packed < 2; packed++) {
            int32_t of = dtype ? ATTN_F64 : ATTN_F32;
            attn_attention_args a = problem((problem_shape){ 1, 150, 1, 1, packed ? 4 : 1, 40, 6, 5 }, of, 30);
            if (packed) {
                a.q_starts = values1(ATTN_I32, 3, (double[]){ 0, 1, 4 });
                a.kv_starts = values1(ATTN_I32, 3, (double[]){ 0, 30, 40 });
            }
            size_t size = attn_attention_workspace(&a, 1);
            unsigned char *room = poisoned(size + 4096);
            assert_int_equal(attn_attention(&a, &(attn_exec){ .workspace = room, .workspace_size = size }), ATTN_OK);
            for (int i = 0; i < 4096; i++) assert_int_equal(room[size + (size_t)i], 0xff);
            for (int64_t n = 0; n < attn_count(&a.out); n++) assert_true(isfinite(get(a.out, n)));
        }
}

static void the_question_of_workspace_reads_no_data(void **state) {
    (void)state;
    for (int which = 0; which < PROBLEMS; which++) {
        attn_attention_args a = some_problem(which);
        a.kv_lengths = tensor1(ATTN_I32, a.q.shape[0]); /* poison: no length at all */
        a.offset = tensor1(ATTN_I64, 1);
        attn_attention_grads g = some_gradients(&a);
        size_t forward = attn_attention_workspace(&a, 3), backward = attn_attention_backward_workspace(&a, &g, 3);
        attn_tensor *all[] = { &a.q,
                               &a.k,
                               &a.v,
                               &a.out,
                               &a.bias,
                               &a.kv_lengths,
                               &a.offset,
                               &a.see.lse,
                               &a.see.entropy,
                               &a.see.received,
                               &a.see.weights,
                               &a.see.scores,
                               &a.see.top_index,
                               &a.see.top_weight,
                               &g.dout,
                               &g.dq,
                               &g.dk,
                               &g.dv,
                               &g.dbias };
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) all[i]->data = NULL;
        assert_true(forward > 0 && backward > 0);
        assert_int_equal(attn_attention_workspace(&a, 3), forward);
        assert_int_equal(attn_attention_backward_workspace(&a, &g, 3), backward);
    }
}

static void workspace_grows_with_the_lengths_not_with_their_product(void **state) {
    (void)state;
    for (int32_t dtype = ATTN_F32; dtype <= ATTN_F64; dtype += ATTN_F64 - ATTN_F32) {
        size_t forward[2], backward[2];
        for (int i = 0; i < 2; i++) {
            int64_t n = (int64_t)1 << (19 + i);
            attn_attention_args a = { .q = attn_bhsd(dtype, NULL, 1, 2, n, 64),
                                      .k = attn_bhsd(dtype, NULL, 1, 2, n, 64),
                                      .v = attn_bhsd(dtype, NULL, 1, 2, n, 64),
                                      .out = attn_bhsd(dtype, NULL, 1, 2, n, 64) };
            a.see.lse = attn_dense(dtype, NULL, 3, (int64_t[]){ 1, 2, n });
            a.see.received = a.see.entropy = a.see.lse;
            attn_attention_grads g = { .dout = a.out, .dq = a.q, .dk = a.k, .dv = a.v };
            forward[i] = attn_attention_workspace(&a, 1);
            backward[i] = attn_attention_backward_workspace(&a, &g, 1);
        }
        assert_true(forward[0] > 0 && forward[1] <= 2 * forward[0] + ((size_t)1 << 20));
        assert_true(backward[0] > 0 && backward[1] <= 2 * backward[0] + ((size_t)1 << 20));
    }
}

static void a_refused_call_needs_no_workspace(void **state) {
    (void)state;
    attn_attention_args a = some_problem(0);
    attn_attention_grads g = some_gradients(&a);
    a.causal = 7;
    assert_int_equal(attn_attention_workspace(&a, 1), 0);
    assert_int_equal(attn_attention_backward_workspace(&a, &g, 1), 0);
}

/* ---- exhausted ------------------------------------------------------------------------------------------------------------ */

static void each_allocation_that_fails_gives_a_status_and_leaks_nothing(void **state) {
    (void)state;
    for (int which = 0; which < PROBLEMS; which++)
        for (int backward = 0; backward < 2; backward++) {
            attn_attention_args a = some_problem(which);
            attn_attention_grads g = some_gradients(&a);
            attn_tensor output = backward ? g.dq : a.out;
            fill(output, 42);
            attn_status s = ATTN_NO_MEMORY;
            int failures = 0;
            while (s == ATTN_NO_MEMORY && failures < 100) {
                long live = memory.live;
                memory.allowed = failures;
                memory.for_ever = false;
                s = backward ? attn_attention_backward(&a, &g, NULL) : attn_attention(&a, NULL);
                memory.allowed = -1;
                assert_int_equal(memory.live, live);
                if (s == ATTN_NO_MEMORY) assert_all("output", output, 42);
                failures++;
            }
            assert_int_equal(s, ATTN_OK);
            assert_true(failures > 1);
            free_blocks(NULL);
        }
}

/* Read by the sanitizers, where there are any: a malloc that is too large returns NULL, as libc's does. */
__attribute__((visibility("default"))) const char *__asan_default_options(void);
__attribute__((visibility("default"))) const char *__tsan_default_options(void);
const char *__asan_default_options(void) { return "allocator_may_return_null=1"; }
const char *__tsan_default_options(void) { return "allocator_may_return_null=1"; }

/* With sparsemax a row of scores is held whole. */
static void a_workspace_beyond_all_memory_is_a_status(void **state) {
    (void)state;
    static uint16_t one[2] = { 0x3f80, 0x3f80 };
    attn_attention_args a = { .q = attn_bhsd(ATTN_BF16, one, 1, 1, 1, 1),
                              .k = attn_bhsd(ATTN_BF16, one, 1, 1, 1, 1),
                              .v = attn_bhsd(ATTN_BF16, one, 1, 1, 1, 1),
                              .out = attn_bhsd(ATTN_BF16, one + 1, 1, 1, 1, 1),
                              .weighting = ATTN_WEIGHT_SPARSEMAX };
    a.k.shape[2] = a.v.shape[2] = (int64_t)1 << 50; /* one key repeated by stride 0 */
    a.k.stride[2] = a.v.stride[2] = 0;
    attn_attention_grads g = { .dout = a.q, .dq = a.out };
    assert_int_equal(attn_attention(&a, NULL), ATTN_NO_MEMORY);
    assert_int_equal(attn_attention_backward(&a, &g, NULL), ATTN_NO_MEMORY);
    assert_int_equal(one[1], 0x3f80);
}

/* ---- fork --------------------------------------------------------------------------------------------------------------------- */

static void a_pool_used_before_a_fork_still_answers_in_the_child(void **state) {
    (void)state;
    attn_exec exec = { 0 };
    attn_attention_args a = some_problem(0), b = a;
    b.out = tensor_of(ATTN_F32, 4, a.out.shape);
    assert_int_equal(attn_pool_open(&exec, 3), ATTN_OK);
    assert_int_equal(attn_attention(&a, &exec), ATTN_OK);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(60);
        bool right = attn_attention(&b, &exec) == ATTN_OK;
        for (int64_t n = 0; right && n < attn_count(&a.out); n++) right = get(a.out, n) == get(b.out, n);
        _exit(right ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(attn_attention(&b, &exec), ATTN_OK);
    assert_same_bits("out", b.out, a.out);
    attn_pool_close(&exec);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_call_with_lent_memory_allocates_nothing, free_blocks),
        cmocka_unit_test_teardown(a_byte_too_few_is_refused_and_nothing_is_written, free_blocks),
        cmocka_unit_test_teardown(lent_memory_is_not_written_beyond_its_end, free_blocks),
        cmocka_unit_test_teardown(heads_that_are_rows_have_room, free_blocks),
        cmocka_unit_test_teardown(the_question_of_workspace_reads_no_data, free_blocks),
        cmocka_unit_test_teardown(workspace_grows_with_the_lengths_not_with_their_product, free_blocks),
        cmocka_unit_test_teardown(a_refused_call_needs_no_workspace, free_blocks),
        cmocka_unit_test_teardown(each_allocation_that_fails_gives_a_status_and_leaks_nothing, free_blocks),
        cmocka_unit_test_teardown(a_workspace_beyond_all_memory_is_a_status, free_blocks),
        cmocka_unit_test_teardown(a_pool_used_before_a_fork_still_answers_in_the_child, free_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
