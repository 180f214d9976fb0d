/* SPDX-License-Identifier: Apache-2.0 */
/* needs: models */
/* What is said about a model, against the same said another way: shares against products of whole maps, gradients of weights against
 * differences of logits after nudging a weight by hand, pictures pixel by pixel, pages against hostile text. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "colour.h"
#include "evaluate.h"
#include "heatmap.h"
#include "html.h"
#include "layers.h"
#include "look.h"
#include "random.h"
#include "terminal.h"

enum { SIDE = 6, PATCH = 2, TOKENS = 10, WIDTH = 8, CLASSES = 3 };

/* ---- a small model of pictures with weights large enough to be sure of something ---------------------------------------- */

typedef struct toy {
    nn_model model;
    image_set set;
    uint8_t pixels[SIDE * SIDE];
    nn_pictures pictures;
} toy;

static void open_toy(toy *t, int32_t layers, int32_t heads, bool pool) {
    io_error error = { 0 };
    char *labels[] = { "a", "b", "c" };
    nn_config c = { .layers = layers,
                    .heads = heads,
                    .width = WIDTH,
                    .hidden = 16,
                    .activation = ATTN_GELU,
                    .epsilon = 1e-6,
                    .norm_first = true,
                    .attention_pool = pool,
                    .image_height = SIDE,
                    .image_width = SIDE,
                    .patch = PATCH,
                    .channels = 1,
                    .mean = { 0.5 },
                    .deviation = { 0.3 } };
    memset(t, 0, sizeof *t);
    assert_int_equal(nn_config_set_labels(&c, labels, CLASSES, &error), IO_OK);
    nn_model_options o = { .examples = 1, .every_query = true };
    assert_int_equal(nn_model_build(&t->model, &c, &o, &error), IO_OK);
    nn_random r = nn_random_at(5, NN_FOR_WEIGHTS, 1, 2);
    for (size_t i = 0; i < t->model.parameters.size; i++)
        ((float *)t->model.parameters.values)[i] = (float)(0.5 * nn_random_normal(&r));
    for (int i = 0; i < SIDE * SIDE; i++) t->pixels[i] = (uint8_t)nn_random_below(&r, 256);
    t->set = (image_set){ .n = 1, .width = SIDE, .height = SIDE, .channels = 1, .pixels = t->pixels };
    nn_pictures_open(&t->pictures, &t->set, &t->model.config);
}

/* Whole maps of the same example, which nothing else keeps: [layers, heads, tokens (query), tokens (key)]. */
typedef struct toy_maps {
    int32_t layers, heads;
    float weights[3 * 2 * TOKENS * TOKENS];
} toy_maps;

static void see_map(void *context, int32_t layer, attn_attention_args *args) {
    toy_maps *m = context;
    int64_t shape[] = { 1, m->heads, TOKENS, TOKENS };
    if (layer < m->layers) args->see.weights = attn_dense(ATTN_F32, m->weights + layer * m->heads * TOKENS * TOKENS, 4, shape);
}

static toy_maps maps_of(toy *t) {
    nn_pass pass;
    io_error error = { 0 };
    toy_maps m = { .layers = t->model.config.layers, .heads = t->model.config.heads };
    nn_observer observer = { .context = &m, .see = see_map };
    assert_int_equal(nn_pass_open(&pass, &t->model.graph, &error), IO_OK);
    pass.examples = 1;
    pass.observer = &observer;
    t->pictures.base.fetch(&t->pictures.base, (uint32_t[]){ 0 }, &pass);
    assert_int_equal(nn_forward(&pass), ATTN_OK);
    nn_pass_close(&pass);
    return m;
}

static const float *row_of(const toy_maps *m, int32_t layer, int32_t head, int32_t query) {
    return m->weights + ((layer * m->heads + head) * TOKENS + query) * TOKENS;
}

static explain_look look_at(toy *t, int32_t method) {
    explain_look look;
    io_error error = { 0 };
    assert_int_equal(explain_look_at(&look, &t->model, &t->pictures.base, 0, method, NULL, &error), IO_OK);
    assert_int_equal(look.tokens, TOKENS);
    return look;
}

/* ---- shares -------------------------------------------------------------------------------------------------------------- */

/* Weights are f32, and so is each row of shares that goes through them. */
static const double f32 = 1e-6;

/* The expected shares: a row, without the learned first token, made to sum to 1. */
static void assert_shares(const double *got, const double *row, double tolerance) {
    double sum = 0, all = 0;
    for (int t = 1; t < TOKENS; t++) sum += row[t];
    assert_true(sum > 0);
    assert_true(got[0] == 0);
    for (int t = 1; t < TOKENS; t++) {
        all += got[t];
        if (!(fabs(got[t] - row[t] / sum) <= tolerance)) fail_msg("token %d: %.9g, expected %.9g", t, got[t], row[t] / sum);
    }
    assert_true(fabs(all - 1) < 1e-12);
}

static void weights_of_every_row_sum_to_1_and_shares_too(void **state) {
    (void)state;
    for (int pool = 0; pool < 2; pool++)
        for (int32_t method = 0; method < EXPLAIN_N_METHODS; method++) {
            toy t;
            open_toy(&t, 2, 2, pool);
            explain_look l = look_at(&t, method);
            toy_maps m = maps_of(&t);
            for (int row = 0; row < 2 * 2 * TOKENS; row++) {
                double sum = 0, entropy = 0;
                for (int j = 0; j < TOKENS; j++) {
                    double p = (double)m.weights[row * TOKENS + j];
                    sum += p;
                    entropy -= p > 0 ? p * log(p) : 0;
                }
                assert_true(fabs(sum - 1) < 1e-5);
                assert_true(fabs(entropy - (double)l.entropy[row]) < 1e-4);
            }
            assert_shares(l.relevance, l.relevance, 1e-12);
            for (int h = 0; h < 2; h++) {
                double sum = 0; /* of the gradient method nothing, where all of a head speaks for the runner-up */
                for (int j = 0; j < TOKENS; j++) sum += l.head_relevance[h * TOKENS + j];
                assert_true(fabs(sum - 1) < 1e-12 || (method == EXPLAIN_GRADIENT && sum == 0));
            }
            assert_true(explain_spread(&l, 1, 1) > 0 && explain_spread(&l, 1, 1) < 1);
            explain_look_free(&l);
            nn_model_free(&t.model);
        }
}

static void attention_is_the_last_layers_first_row_averaged_over_heads(void **state) {
    (void)state;
    toy t;
    open_toy(&t, 2, 2, false);
    explain_look l = look_at(&t, EXPLAIN_ATTENTION);
    toy_maps m = maps_of(&t);
    double row[TOKENS];
    for (int j = 0; j < TOKENS; j++) row[j] = (double)row_of(&m, 1, 0, 0)[j] + (double)row_of(&m, 1, 1, 0)[j];
    assert_shares(l.relevance, row, f32);
    assert_true(l.pool == NULL);
    explain_look_free(&l);
    nn_model_free(&t.model);
}

static void attention_of_a_pooling_model_is_the_pools_weights(void **state) {
    (void)state;
    toy t;
    open_toy(&t, 2, 2, true);
    explain_look l = look_at(&t, EXPLAIN_ATTENTION);
    toy_maps m = maps_of(&t);
    double row[TOKENS], head[TOKENS] = { 0 }, sum = 0;
    for (int j = 0; j < TOKENS; j++) sum += row[j] = (double)l.pool[j];
    for (int i = 0; i < TOKENS; i++)
        for (int j = 0; j < TOKENS; j++) head[j] += row[i] * (double)row_of(&m, 1, 1, i)[j];
    assert_true(fabs(sum - 1) < 1e-5);
    assert_shares(l.relevance, row, 1e-12);
    assert_shares(l.head_relevance + TOKENS, head, f32);
    explain_look_free(&l);
    nn_model_free(&t.model);
}

/* R = (A + I) / 2 of layer 0, then (A + I) / 2 of layer 1 times that, ...: whole matrices. */
static void naive_rollout(const toy_maps *l, double r[TOKENS][TOKENS]) {
    for (int i = 0; i < TOKENS; i++)
        for (int j = 0; j < TOKENS; j++) r[i][j] = i == j;
    for (int layer = 0; layer < l->layers; layer++) {
        double next[TOKENS][TOKENS] = { 0 };
        for (int i = 0; i < TOKENS; i++)
            for (int k = 0; k < TOKENS; k++) {
                double a = 0;
                for (int h = 0; h < l->heads; h++) a += (double)row_of(l, layer, h, i)[k] / l->heads;
                for (int j = 0; j < TOKENS; j++) next[i][j] += (a + (i == k)) / 2 * r[k][j];
            }
        memcpy(r, next, sizeof next);
    }
}

static void rollout_is_the_product_of_the_layers_with_their_residuals(void **state) {
    (void)state;
    for (int layers = 1; layers <= 3; layers += 2)
        for (int pool = 0; pool < 2; pool++) {
            toy t;
            double r[TOKENS][TOKENS], row[TOKENS] = { 0 };
            open_toy(&t, layers, layers == 1 ? 1 : 2, pool);
            explain_look l = look_at(&t, EXPLAIN_ROLLOUT);
            toy_maps m = maps_of(&t);
            naive_rollout(&m, r);
            for (int i = 0; i < TOKENS; i++)
                for (int j = 0; j < TOKENS; j++) row[j] += (pool ? (double)l.pool[i] : i == 0) * r[i][j];
            assert_shares(l.relevance, row, layers * f32);
            explain_look_free(&l);
            nn_model_free(&t.model);
        }
}

/* ---- gradients, by nudging one weight: out_i += step v_j, which is what weight p_ij does ----------------------------------- */

typedef struct nudge {
    int32_t layer, query, key;
    float step;
} nudge;

static void add_value(void *context, int32_t layer, const attn_attention_args *args) {
    const nudge *n = context;
    if (layer != n->layer) return;
    float *out = (float *)args->out.data + n->query * args->out.stride[2];
    const float *v = (const float *)args->v.data + n->key * args->v.stride[2];
    for (int64_t c = 0; c < args->v.shape[3]; c++) out[c * args->out.stride[3]] += n->step * v[c * args->v.stride[3]];
}

static double margin(toy *t, const explain_look *l, nudge n) {
    nn_pass pass;
    io_error error = { 0 };
    nn_observer observer = { .context = &n, .seen = add_value };
    assert_int_equal(nn_pass_open(&pass, &t->model.graph, &error), IO_OK);
    pass.examples = 1;
    pass.observer = &observer;
    t->pictures.base.fetch(&t->pictures.base, (uint32_t[]){ 0 }, &pass);
    assert_int_equal(nn_forward(&pass), ATTN_OK);
    const float *logits = nn_data(&pass, t->model.graph.output).data;
    double difference = (double)logits[l->label] - (double)logits[l->runner_up];
    nn_pass_close(&pass);
    return difference;
}

static double slope(toy *t, const explain_look *l, int32_t layer, int32_t query, int32_t key) {
    float h = 0.01f;
    double up = margin(t, l, (nudge){ layer, query, key, h }), down = margin(t, l, (nudge){ layer, query, key, -h });
    return (up - down) / (2 * (double)h);
}

/* One layer, one head: the row that is read times (I + positive part of weights times gradients). */
static void check_gradient(bool pool) {
    toy t;
    open_toy(&t, 1, 1, pool);
    explain_look l = look_at(&t, EXPLAIN_GRADIENT);
    toy_maps m = maps_of(&t);
    double read[TOKENS] = { 1 }, row[TOKENS], mean = 0;
    if (pool) {
        for (int j = 0; j < TOKENS; j++) mean += (double)l.pool[j] * (read[j] = slope(&t, &l, 1, 0, j));
        for (int j = 0; j < TOKENS; j++) read[j] = fmax(0, (double)l.pool[j] * (read[j] - mean));
    }
    memcpy(row, read, sizeof row);
    for (int i = 0; i < TOKENS; i++)
        for (int j = 0; j < TOKENS && read[i] > 0; j++)
            row[j] += read[i] * fmax(0, (double)row_of(&m, 0, 0, i)[j] * slope(&t, &l, 0, i, j));
    assert_shares(l.relevance, row, 3e-3);
    explain_look_free(&l);
    nn_model_free(&t.model);
}

static void gradient_agrees_with_nudging_each_weight(void **state) {
    (void)state;
    check_gradient(false);
}

static void gradient_of_a_pool_agrees_with_nudging_each_weight(void **state) {
    (void)state;
    check_gradient(true);
}

static void looking_changes_no_bit_of_the_answer(void **state) {
    (void)state;
    toy t;
    open_toy(&t, 2, 2, true);
    explain_look a = look_at(&t, EXPLAIN_ATTENTION), g = look_at(&t, EXPLAIN_GRADIENT);
    double difference = margin(&t, &a, (nudge){ -1, 0, 0, 0 });
    double ratio = log((double)a.probabilities[a.label] / (double)a.probabilities[a.runner_up]);
    assert_memory_equal(a.probabilities, g.probabilities, CLASSES * sizeof(float));
    assert_true(fabs(difference - ratio) < 1e-4);
    assert_true(a.probabilities[a.label] >= a.probabilities[a.runner_up] && a.label != a.runner_up);
    explain_look_free(&a);
    explain_look_free(&g);
    nn_model_free(&t.model);
}

/* ---- colours and pictures ---------------------------------------------------------------------------------------------------- */

static double light(colour c) { return 0.2126 * c.red + 0.7152 * c.green + 0.0722 * c.blue; }

static void colours_keep_their_order_in_gray(void **state) {
    (void)state;
    for (int i = 1; i <= 200; i++) {
        assert_true(light(colour_of(i / 200.0)) > light(colour_of((i - 1) / 200.0)));
        assert_true(light(colour_of_shade(i / 200.0)) < light(colour_of_shade((i - 1) / 200.0)) + 0.5);
    }
    assert_true(light(colour_of(NAN)) == light(colour_of(0)) && light(colour_of(7)) == light(colour_of(1)));
    assert_true(colour_is_dark(colour_of(0)) && !colour_is_dark(colour_of(1)) && !colour_is_dark(colour_of_shade(0)));
}

static void more_heat_is_brighter_on_any_picture(void **state) {
    (void)state;
    uint8_t checks[16];
    double grid[4] = { 1, 0.5, 0.25, 0 };
    io_error error = { 0 };
    for (int i = 0; i < 16; i++) checks[i] = i % 2 ? 255 : 0;
    image picture = { .width = 4, .height = 4, .channels = 1, .pixels = checks }, out;
    assert_int_equal(heat_overlay(&picture, (heat_grid){ grid, 1, 4 }, 4, 4, &out, &error), IO_OK);
    assert_int_equal(out.width * out.height * out.channels, 48);
    const uint8_t *p = out.pixels;
    assert_true(p[0] > p[6] && p[1] > p[7]);  /* black: columns 0 and 2 */
    assert_true(p[3] > p[9] && p[4] > p[10]); /* white: columns 1 and 3 */
    image_free(&out);
    memset(grid, 0, sizeof grid);
    assert_int_equal(heat_overlay(&picture, (heat_grid){ grid, 2, 2 }, 4, 4, &out, &error), IO_OK);
    colour none = colour_of(0);
    assert_int_equal(out.pixels[0], none.red);
    image_free(&out);
}

static void small_pictures_grow_by_whole_pixels(void **state) {
    (void)state;
    uint8_t two[] = { 10, 200 };
    image picture = { .width = 2, .height = 1, .channels = 1, .pixels = two }, out;
    io_error error = { 0 };
    assert_int_equal(heat_enlarge(&picture, 6, 3, &out, &error), IO_OK);
    for (int i = 0; i < 6 * 3; i++) assert_int_equal(out.pixels[3 * i + 1], i % 6 < 3 ? 10 : 200);
    image_free(&out);
}

static void panels_stand_in_rows_with_white_between(void **state) {
    (void)state;
    enum { N = 5, W = 4, H = 3, GAP = 2 };
    uint8_t pixels[N][W * H * 3];
    image panels[N], sheet;
    io_error error = { 0 };
    for (int i = 0; i < N; i++) {
        memset(pixels[i], 10 * (i + 1), sizeof pixels[i]);
        panels[i] = (image){ .width = W, .height = H, .channels = 3, .pixels = pixels[i] };
    }
    assert_int_equal(heat_sheet(panels, N, 3, GAP, &sheet, &error), IO_OK);
    assert_int_equal(sheet.width, 3 * (W + GAP) + GAP);
    assert_int_equal(sheet.height, 2 * (H + GAP) + GAP);
    for (int y = 0; y < sheet.height; y++)
        for (int x = 0; x < sheet.width; x++) {
            int row = (y - GAP) / (H + GAP), column = (x - GAP) / (W + GAP), i = 3 * row + column;
            bool within = y >= GAP && x >= GAP && (y - GAP) % (H + GAP) < H && (x - GAP) % (W + GAP) < W && i < N;
            assert_int_equal(sheet.pixels[3 * (y * sheet.width + x)], within ? 10 * (i + 1) : 255);
        }
    image_free(&sheet);
    assert_int_equal(heat_sheet(panels, 0, 3, GAP, &sheet, &error), IO_BAD_USAGE);
}

/* ---- text -------------------------------------------------------------------------------------------------------------------- */

static void pages_show_markup_and_repair_bytes_that_are_not_utf8(void **state) {
    (void)state;
    static const struct {
        const char *in, *out;
    } cases[] = {
        { "<b a=\"1\">'&", "&#60;b a=&#34;1&#34;&#62;&#39;&#38;" },
        { "\xc3\xa9\xe4\xb8\xad\xf0\x9f\x99\x82", "\xc3\xa9\xe4\xb8\xad\xf0\x9f\x99\x82" },
        { "a\xff z", "a\xef\xbf\xbd z" },
        { "\xe4\xb8", "\xef\xbf\xbd\xef\xbf\xbd" },                 /* cut off */
        { "\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd" },                 /* overlong */
        { "\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" }, /* a surrogate */
        { "\x1b[2J\n", "\xef\xbf\xbd[2J\n" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        text out = { 0 };
        html_add_string(&out, cases[i].in);
        assert_string_equal(out.data, cases[i].out);
        text_free(&out);
    }
}

static void pictures_on_a_page_are_base64_png(void **state) {
    (void)state;
    uint8_t pixel[] = { 1, 2, 3 };
    image one = { .width = 1, .height = 1, .channels = 3, .pixels = pixel };
    text out = { 0 };
    io_error error = { 0 };
    assert_int_equal(html_figure(&out, &one, "<a>", &error), IO_OK);
    assert_non_null(strstr(out.data, "src=\"data:image/png;base64,iVBORw0KGgo"));
    assert_non_null(strstr(out.data, "<figcaption>&#60;a&#62;</figcaption>"));
    text_free(&out);
}

/* "[CLS]", "re", "ad", " tag", "s", two tokens for the two bytes of one character, "[SEP]" */
static void words_gather_the_shares_of_their_tokens(void **state) {
    (void)state;
    uint32_t start[] = { 0, 0, 2, 4, 8, 9, 9, 0 }, end[] = { 0, 2, 4, 8, 9, 12, 12, 0 };
    double shares[] = { 0, 0.1, 0.2, 0.05, 0.15, 0.3, 0.2, 0 };
    explain_case c = { .text = "read tags \xc3\xa9", .length = 12, .start = start, .end = end, .look = { .tokens = 8 } };
    explain_word words[8];
    assert_int_equal(explain_words(&c, shares, words, 8), 3);
    assert_int_equal(words[0].start, 0);
    assert_int_equal(words[0].end, 4);
    assert_int_equal(words[1].start, 5);
    assert_int_equal(words[1].end, 9);
    assert_int_equal(words[2].start, 10);
    assert_int_equal(words[2].end, 12);
    assert_true(fabs(words[0].share - 0.3) < 1e-12 && fabs(words[1].share - 0.2) < 1e-12);
    assert_true(fabs(words[2].share - 0.5) < 1e-12);
    assert_int_equal(explain_words(&c, shares, words, 1), 1);
}

static void terminals_see_no_escape_codes_but_ours(void **state) {
    (void)state;
    char *labels[] = { "\x1b[31m" };
    float probability = 1, entropy[2] = { 0.6f, 0.6f };
    double shares[2] = { 0, 1 };
    uint32_t start[] = { 0, 0 }, end[] = { 0, 4 };
    explain_case c = { .text = "\x1b[2J \xc2\x9b\xff", .length = 8, .truth = -1, .start = start, .end = end };
    c.look = (explain_look){ .layers = 1,
                             .heads = 1,
                             .tokens = 2,
                             .classes = 1,
                             .probabilities = &probability,
                             .entropy = entropy,
                             .relevance = shares,
                             .head_relevance = shares };
    nn_config config = { .modality = NN_TEXT, .labels = labels, .n_labels = 1 };
    text out = { 0 };
    terminal_case(&c, &config, EXPLAIN_ROLLOUT, (terminal_look){ 0 }, &out);
    assert_null(strchr(out.data, '\x1b'));
    assert_non_null(strstr(out.data, "?[2J"));
    assert_null(strchr(out.data, '\x9b'));
    assert_non_null(strstr(out.data, "########"));
    text_free(&out);
    terminal_case(&c, &config, EXPLAIN_ROLLOUT, (terminal_look){ .colour = true, .blocks = true }, &out);
    assert_non_null(strstr(out.data, "\x1b[38;2;17;17;17;48;2;230;110;20m?[2J\x1b[0m ??\n"));
    text_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_of_every_row_sum_to_1_and_shares_too),
        cmocka_unit_test(attention_is_the_last_layers_first_row_averaged_over_heads),
        cmocka_unit_test(attention_of_a_pooling_model_is_the_pools_weights),
        cmocka_unit_test(rollout_is_the_product_of_the_layers_with_their_residuals),
        cmocka_unit_test(gradient_agrees_with_nudging_each_weight),
        cmocka_unit_test(gradient_of_a_pool_agrees_with_nudging_each_weight),
        cmocka_unit_test(looking_changes_no_bit_of_the_answer),
        cmocka_unit_test(colours_keep_their_order_in_gray),
        cmocka_unit_test(more_heat_is_brighter_on_any_picture),
        cmocka_unit_test(small_pictures_grow_by_whole_pixels),
        cmocka_unit_test(panels_stand_in_rows_with_white_between),
        cmocka_unit_test(pages_show_markup_and_repair_bytes_that_are_not_utf8),
        cmocka_unit_test(pictures_on_a_page_are_base64_png),
        cmocka_unit_test(words_gather_the_shares_of_their_tokens),
        cmocka_unit_test(terminals_see_no_escape_codes_but_ours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
