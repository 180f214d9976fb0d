/* SPDX-License-Identifier: Apache-2.0 */
/* needs: models */
/* Every layer's backward against central differences of its forward in float64: the gradients of its inputs and of all its parameters,
 * with lengths, with fan-out, with residuals that share memory, with dropout. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "heads/class.h"
#include "layers.h"
#include "model.h"
#include "random.h"

enum { EXAMPLES = 3, TOKENS = 5, WIDTH = 8 };

/* ---- an input that is a parameter, so that gradients of inputs are gradients of parameters ------------------------- */

typedef struct leaf_layer {
    nn_layer base;
    int32_t parameter;
} leaf_layer;

static attn_status leaf_forward(const nn_layer *base, nn_pass *pass) {
    attn_tensor y = nn_data(pass, base->output), x = nn_weight(pass, ((const leaf_layer *)base)->parameter);
    memcpy(y.data, x.data, (size_t)(y.shape[0] * y.shape[1]) * sizeof(double));
    return ATTN_OK;
}

static attn_status leaf_backward(const nn_layer *base, nn_pass *pass) {
    attn_tensor dy = nn_gradient(pass, base->output);
    attn_tensor dx = nn_weight_gradient(pass, ((const leaf_layer *)base)->parameter);
    return attn_add(&dy, 1, &dx, NULL);
}

static const nn_layer_kind leaf_kind = { "leaf", leaf_forward, leaf_backward };

static int32_t leaf(nn_graph *g, const char *name, bool single, int64_t width) {
    leaf_layer *l = nn_graph_layer(g, &leaf_kind, sizeof *l, NULL, 0);
    nn_parameter p = { .rank = 2, .shape = { single ? EXAMPLES : EXAMPLES * TOKENS, width }, .start = NN_NORMAL, .spread = 1 };
    l->parameter = nn_graph_parameter(g, name, "x", &p);
    return nn_graph_output(g, &l->base, width, single);
}

/* ---- the check -------------------------------------------------------------------------------------------------------- */

typedef struct bench {
    nn_parameters parameters;
    nn_graph graph;
    nn_pass pass;
    double *coefficients, *gradients;
    int32_t ids[EXAMPLES * TOKENS];
    double table_rows[EXAMPLES * TOKENS * WIDTH];
    nn_row_gradients rows;
} bench;

/* The objective: a fixed random combination of the output's elements. */
static double objective(bench *b) {
    assert_int_equal(nn_forward(&b->pass), ATTN_OK);
    attn_tensor y = nn_data(&b->pass, b->graph.output);
    double sum = 0;
    for (int64_t i = 0; i < y.shape[0] * y.shape[1]; i++) sum += b->coefficients[i] * ((double *)y.data)[i];
    return sum;
}

static void randomise(bench *b) {
    nn_random r = nn_random_at(7, NN_FOR_WEIGHTS, 1, 1);
    for (size_t i = 0; i < b->parameters.size; i++) ((double *)b->parameters.values)[i] = 0.7 * nn_random_normal(&r);
}

static void open_bench(bench *b, int32_t output) {
    io_error error = { 0 };
    assert_int_equal(nn_graph_finish(&b->graph, output, EXAMPLES, TOKENS, &error), IO_OK);
    assert_int_equal(nn_pass_open(&b->pass, &b->graph, &error), IO_OK);
    b->pass.examples = EXAMPLES;
    b->pass.tokens = TOKENS;
    b->pass.seed = 3;
    b->gradients = calloc(b->parameters.size, sizeof(double));
    b->pass.gradients = b->gradients;
    b->rows = (nn_row_gradients){ .ids = b->ids, .rows = b->table_rows };
    b->pass.rows = &b->rows;
    randomise(b);
    attn_tensor y = nn_data(&b->pass, b->graph.output);
    nn_random r = nn_random_at(8, NN_FOR_WEIGHTS, 1, 1);
    b->coefficients = calloc((size_t)(y.shape[0] * y.shape[1]), sizeof(double));
    for (int64_t i = 0; i < y.shape[0] * y.shape[1]; i++) b->coefficients[i] = nn_random_normal(&r);
}

static void close_bench(bench *b) {
    nn_pass_close(&b->pass);
    nn_graph_free(&b->graph);
    nn_parameters_free(&b->parameters);
    free(b->coefficients);
    free(b->gradients);
}

static void backward(bench *b) {
    /* Whatever the arena held before must not matter. */
    memset(b->pass.arena, 0xff, b->graph.arena_size);
}

static void compare(bench *b) {
    double h = 1e-5;
    for (size_t i = 0; i < b->parameters.n; i++) {
        const nn_parameter *p = &b->parameters.all[i];
        size_t stride = p->count > 40 ? p->count / 40 : 1;
        for (size_t j = 0; j < p->count; j += stride) {
            double *x = (double *)b->parameters.values + p->offset + j, kept = *x;
            *x = kept + h;
            double up = objective(b);
            *x = kept - h;
            double down = objective(b);
            *x = kept;
            double expected = (up - down) / (2 * h), got = b->gradients[p->offset + j];
            if (!(fabs(got - expected) <= 2e-7 * (1 + fabs(expected))))
                fail_msg("%s[%zu]: backward %.10g, differences %.10g", p->name, j, got, expected);
        }
    }
}

/* Forward, backward, and all gradients against differences. */
static void check(bench *b, int32_t output) {
    open_bench(b, output);
    backward(b);
    if (b->graph.layers[0]->kind != &leaf_kind && strcmp(b->graph.layers[0]->kind->name, "token-embedding") == 0)
        for (int i = 0; i < EXAMPLES * TOKENS; i++) nn_ids(&b->pass)[i] = i * 3 % 7;
    if (strcmp(b->graph.layers[0]->kind->name, "patch-embedding") == 0) {
        double *x = nn_patches(&b->pass);
        for (int i = 0; i < EXAMPLES * TOKENS * 4; i++) x[i] = i / 4 % TOKENS ? sin(i) : 0;
    }
    objective(b);
    attn_tensor dy = nn_gradient(&b->pass, b->graph.output);
    memcpy(dy.data, b->coefficients, (size_t)(dy.shape[0] * dy.shape[1]) * sizeof(double));
    assert_int_equal(nn_backward(&b->pass), ATTN_OK);
    if (strcmp(b->graph.layers[0]->kind->name, "token-embedding") == 0)
        assert_int_equal(nn_token_embedding_gather(&b->graph, b->gradients, &b->rows, 1), ATTN_OK);
    compare(b);
    close_bench(b);
}

static bench *new_bench(void) {
    static bench b;
    memset(&b, 0, sizeof b);
    b.parameters.dtype = ATTN_F64;
    b.graph.parameters = &b.parameters;
    return &b;
}

static const int32_t lengths[EXAMPLES] = { 5, 1, 3 };

/* ---- layers ------------------------------------------------------------------------------------------------------------- */

static void test_linear_with_every_activation(void **state) {
    (void)state;
    for (int32_t activation = ATTN_IDENTITY; activation <= ATTN_TANH; activation++) {
        if (activation == ATTN_RELU) continue; /* its corner is no place for differences */
        bench *b = new_bench();
        check(b, nn_linear(&b->graph, "l", leaf(&b->graph, "x", false, WIDTH), 6, activation));
    }
}

static void test_norms(void **state) {
    (void)state;
    for (int32_t kind = ATTN_LAYER_NORM; kind <= ATTN_RMS_NORM; kind++) {
        bench *b = new_bench();
        check(b, nn_norm(&b->graph, "n", leaf(&b->graph, "x", false, WIDTH), kind, 1e-5));
    }
}

static void test_feed_forward(void **state) {
    (void)state;
    for (int drops = 0; drops < 2; drops++) {
        bench *b = new_bench();
        nn_feed_forward_options o = { .width = 12, .activation = ATTN_GELU, .dropout = drops ? 0.3 : 0 };
        int32_t x = leaf(&b->graph, "x", false, WIDTH);
        b->pass.train = drops;
        check(b, nn_feed_forward(&b->graph, "f", x, nn_norm(&b->graph, "n", x, ATTN_LAYER_NORM, 1e-5), &o));
    }
}

/* The residual is the block's own input: both gradients meet in one place. */
static void test_feed_forward_on_its_own_residual(void **state) {
    (void)state;
    bench *b = new_bench();
    nn_feed_forward_options o = { .width = 12, .activation = ATTN_SILU };
    int32_t x = leaf(&b->graph, "x", false, WIDTH);
    check(b, nn_feed_forward(&b->graph, "f", x, x, &o));
}

/* One value read by three layers, two of them with residuals: gradients add up, shared memory or not. */
static void test_fan_out(void **state) {
    (void)state;
    bench *b = new_bench();
    nn_feed_forward_options o = { .width = 6, .activation = ATTN_TANH };
    int32_t x = leaf(&b->graph, "x", false, WIDTH);
    int32_t first = nn_feed_forward(&b->graph, "f1", x, x, &o);
    int32_t second = nn_feed_forward(&b->graph, "f2", x, first, &o);
    check(b, nn_linear(&b->graph, "l", nn_feed_forward(&b->graph, "f3", first, second, &o), 3, ATTN_IDENTITY));
}

static void attention_case(int32_t kind, bool cross, bool norm, bool with_lengths, double dropout) {
    bench *b = new_bench();
    nn_attention_options o = { .kind = kind, .heads = 2, .dropout = dropout };
    int32_t x = leaf(&b->graph, "x", false, WIDTH), h = norm ? nn_norm(&b->graph, "n", x, ATTN_LAYER_NORM, 1e-5) : x;
    int32_t query = cross ? nn_first(&b->graph, h) : h, residual = cross ? nn_first(&b->graph, x) : x;
    int32_t y = nn_attention(&b->graph, "a", residual, query, h, &o);
    b->pass.train = dropout > 0;
    if (with_lengths) b->pass.lengths = lengths;
    /* Rows beyond a length are nobody's business: only first tokens count then. */
    check(b, with_lengths && !cross ? nn_first(&b->graph, y) : y);
}

static void test_attention_of_every_kind(void **state) {
    (void)state;
    for (int32_t kind = 0; kind < NN_N_ATTENTIONS; kind++)
        for (int way = 0; way < 8; way++) attention_case(kind, way & 1, way & 2, way & 4, 0);
}

static void test_attention_with_dropout(void **state) {
    (void)state;
    attention_case(NN_DOT, false, true, false, 0.25);
    attention_case(NN_GATED, true, true, true, 0.25);
}

static void test_pooling_by_attention(void **state) {
    (void)state;
    for (int with_lengths = 0; with_lengths < 2; with_lengths++) {
        bench *b = new_bench();
        if (with_lengths) b->pass.lengths = lengths;
        check(b, nn_attention_pool(&b->graph, "p", leaf(&b->graph, "x", false, WIDTH), 6));
    }
}

static void test_first_token(void **state) {
    (void)state;
    bench *b = new_bench();
    check(b, nn_first(&b->graph, leaf(&b->graph, "x", false, WIDTH)));
}

static void test_dropout(void **state) {
    (void)state;
    for (int train = 0; train < 2; train++) {
        bench *b = new_bench();
        b->pass.train = train;
        check(b, nn_dropout(&b->graph, leaf(&b->graph, "x", false, WIDTH), 0.4));
    }
}

static void test_token_embedding(void **state) {
    (void)state;
    bench *b = new_bench();
    check(b, nn_token_embedding(&b->graph, "e", 7, TOKENS, WIDTH));
}

static void test_patch_embedding(void **state) {
    (void)state;
    bench *b = new_bench();
    check(b, nn_patch_embedding(&b->graph, "e", TOKENS - 1, 4, WIDTH));
}

/* ---- what layers promise beside gradients --------------------------------------------------------------------------------- */

/* Dropout is a function of (seed, step, layer, example): the place of an example in its shard does not matter. */
static void test_dropout_depends_on_the_example_not_on_the_shard(void **state) {
    (void)state;
    bench *b = new_bench();
    b->pass.train = true;
    int32_t y = nn_dropout(&b->graph, leaf(&b->graph, "x", false, WIDTH), 0.5);
    open_bench(b, y);
    b->pass.train = true;
    for (size_t i = 0; i < b->parameters.size; i++) ((double *)b->parameters.values)[i] = 1;
    assert_int_equal(nn_forward(&b->pass), ATTN_OK);
    double whole[EXAMPLES * TOKENS * WIDTH];
    memcpy(whole, nn_data(&b->pass, y).data, sizeof whole);
    b->pass.examples = 1;
    b->pass.first_example = 2;
    assert_int_equal(nn_forward(&b->pass), ATTN_OK);
    assert_memory_equal(nn_data(&b->pass, y).data, whole + 2 * TOKENS * WIDTH, TOKENS * WIDTH * sizeof(double));
    b->pass.step = 1;
    assert_int_equal(nn_forward(&b->pass), ATTN_OK);
    assert_memory_not_equal(nn_data(&b->pass, y).data, whole + 2 * TOKENS * WIDTH, TOKENS * WIDTH * sizeof(double));
    close_bench(b);
}

/* The head's loss and its gradient, through a whole model of each modality. */
static void model_case(nn_config *config) {
    io_error error = { 0 };
    char *labels[] = { "a", "b", "c" };
    assert_int_equal(nn_config_set_labels(config, labels, 3, &error), IO_OK);
    nn_model m;
    nn_model_options o = { .dtype = ATTN_F64, .examples = EXAMPLES };
    if (nn_model_build(&m, config, &o, &error)) fail_msg("%s", error.message);
    bench *b = new_bench();
    b->parameters = m.parameters;
    b->graph = m.graph;
    b->graph.parameters = &b->parameters;
    randomise(b);
    assert_int_equal(nn_pass_open(&b->pass, &b->graph, &error), IO_OK);
    b->pass.examples = EXAMPLES;
    b->pass.tokens = TOKENS;
    b->gradients = calloc(b->parameters.size, sizeof(double));
    b->pass.gradients = b->gradients;
    b->rows = (nn_row_gradients){ .ids = b->ids, .rows = b->table_rows };
    b->pass.rows = &b->rows;
    const int32_t targets[EXAMPLES] = { 2, 0, 1 };
    backward(b);
    if (m.config.modality == NN_TEXT) {
        b->pass.lengths = lengths;
        for (int i = 0; i < EXAMPLES * TOKENS; i++) nn_ids(&b->pass)[i] = i * 3 % 7;
    } else {
        double *x = nn_patches(&b->pass);
        for (int i = 0; i < EXAMPLES * TOKENS * 4; i++) x[i] = i / 4 % TOKENS ? sin(i) : 0;
    }
    double loss, up, down, h = 1e-5;
    assert_int_equal(nn_forward(&b->pass), ATTN_OK);
    attn_tensor logits = nn_data(&b->pass, b->graph.output), none = { 0 };
    assert_int_equal(nn_class_loss(logits, targets, 0.1, nn_gradient(&b->pass, b->graph.output), &loss), ATTN_OK);
    assert_int_equal(nn_backward(&b->pass), ATTN_OK);
    if (m.config.modality == NN_TEXT) assert_int_equal(nn_token_embedding_gather(&b->graph, b->gradients, &b->rows, 1), ATTN_OK);
    for (size_t i = 0; i < b->parameters.n; i++) {
        const nn_parameter *p = &b->parameters.all[i];
        for (size_t j = 0; j<p->count; j += p->count> 8 ? p->count / 8 : 1) {
            double *x = (double *)b->parameters.values + p->offset + j, kept = *x;
            *x = kept + h;
            assert_int_equal(nn_forward(&b->pass), ATTN_OK);
            assert_int_equal(nn_class_loss(logits, targets, 0.1, none, &up), ATTN_OK);
            *x = kept - h;
            assert_int_equal(nn_forward(&b->pass), ATTN_OK);
            assert_int_equal(nn_class_loss(logits, targets, 0.1, none, &down), ATTN_OK);
            *x = kept;
            double expected = (up - down) / (2 * h), got = b->gradients[p->offset + j];
            if (!(fabs(got - expected) <= 2e-7 * (1 + fabs(expected))))
                fail_msg("%s[%zu]: backward %.10g, differences %.10g", p->name, j, got, expected);
        }
    }
    nn_pass_close(&b->pass);
    free(b->gradients);
    nn_model_free(&m);
}

static nn_config small_config(int32_t modality, int32_t attention, bool pool) {
    return (nn_config){ .modality = modality,
                        .attention = attention,
                        .layers = 2,
                        .heads = 2,
                        .width = WIDTH,
                        .hidden = 12,
                        .activation = ATTN_GELU,
                        .epsilon = 1e-6,
                        .norm_first = modality == NN_IMAGE,
                        .attention_pool = pool,
                        .image_height = 4,
                        .image_width = 4,
                        .patch = 2,
                        .channels = 1,
                        .mean = { 0.5 },
                        .deviation = { 0.5 },
                        .vocabulary = 7,
                        .positions = TOKENS };
}

static void test_whole_models(void **state) {
    (void)state;
    for (int32_t modality = NN_IMAGE; modality <= NN_TEXT; modality++)
        for (int32_t attention = 0; attention < NN_N_ATTENTIONS; attention++)
            for (int pool = 0; pool < 2; pool++) {
                nn_config config = small_config(modality, attention, pool);
                model_case(&config);
            }
}

/* Computing every query in the last block and only the one that is read give the same logits, up to the last bits. */
static void test_every_query_gives_the_same_logits(void **state) {
    (void)state;
    double logits[2][EXAMPLES * 3];
    for (int every = 0; every < 2; every++) {
        io_error error = { 0 };
        nn_config config = small_config(NN_IMAGE, NN_DOT, false);
        char *labels[] = { "a", "b", "c" };
        assert_int_equal(nn_config_set_labels(&config, labels, 3, &error), IO_OK);
        nn_model m;
        nn_model_options o = { .dtype = ATTN_F64, .examples = EXAMPLES, .every_query = every };
        assert_int_equal(nn_model_build(&m, &config, &o, &error), IO_OK);
        nn_model_start(&m, 5);
        nn_pass pass;
        assert_int_equal(nn_pass_open(&pass, &m.graph, &error), IO_OK);
        pass.examples = EXAMPLES;
        pass.tokens = TOKENS;
        double *x = nn_patches(&pass);
        for (int i = 0; i < EXAMPLES * TOKENS * 4; i++) x[i] = i / 4 % TOKENS ? sin(i) : 0;
        assert_int_equal(nn_forward(&pass), ATTN_OK);
        memcpy(logits[every], nn_data(&pass, m.graph.output).data, sizeof logits[0]);
        nn_pass_close(&pass);
        nn_model_free(&m);
    }
    for (int i = 0; i < EXAMPLES * 3; i++) assert_true(fabs(logits[0][i] - logits[1][i]) < 1e-12);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear_with_every_activation),
        cmocka_unit_test(test_norms),
        cmocka_unit_test(test_feed_forward),
        cmocka_unit_test(test_feed_forward_on_its_own_residual),
        cmocka_unit_test(test_fan_out),
        cmocka_unit_test(test_attention_of_every_kind),
        cmocka_unit_test(test_attention_with_dropout),
        cmocka_unit_test(test_pooling_by_attention),
        cmocka_unit_test(test_first_token),
        cmocka_unit_test(test_dropout),
        cmocka_unit_test(test_token_embedding),
        cmocka_unit_test(test_patch_embedding),
        cmocka_unit_test(test_dropout_depends_on_the_example_not_on_the_shard),
        cmocka_unit_test(test_whole_models),
        cmocka_unit_test(test_every_query_gives_the_same_logits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
