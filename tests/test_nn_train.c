/* SPDX-License-Identifier: Apache-2.0 */
/* needs: models */
/* The promises of training: the same bits for any number of threads and after a resume, the best model kept, a way back from a loss that is
 * no number, folders that come back as they went, and hostile ones that are refused. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "evaluate.h"
#include "file.h"
#include "layers.h"
#include "random.h"
#include "source.h"
#include "team.h"
#include "train.h"

enum { SIDE = 6, PER_CLASS = 20, CLASSES = 3, N = PER_CLASS * CLASSES };

/* ---- pictures with a bright corner, which one says the class; noise everywhere ------------------------------------------ */

typedef struct toy {
    image_set set;
    uint8_t pixels[N * SIDE * SIDE];
    int32_t labels[N];
    nn_model model;
    nn_pictures pictures;
} toy;

static nn_config toy_config(int32_t attention) {
    io_error error = { 0 };
    char *labels[] = { "left", "right", "low" };
    nn_config c = { .attention = attention,
                    .layers = 2,
                    .heads = 2,
                    .width = 16,
                    .hidden = 32,
                    .activation = ATTN_GELU,
                    .epsilon = 1e-6,
                    .norm_first = true,
                    .image_height = SIDE,
                    .image_width = SIDE,
                    .patch = 2,
                    .channels = 1,
                    .mean = { 0.3 },
                    .deviation = { 0.3 } };
    assert_int_equal(nn_config_set_labels(&c, labels, CLASSES, &error), IO_OK);
    return c;
}

static void open_toy(toy *t, int32_t attention) {
    io_error error = { 0 };
    nn_random r = nn_random_at(1, NN_FOR_ORDER, 2, 3);
    nn_config c = toy_config(attention);
    memset(t, 0, sizeof *t);
    for (int i = 0; i < N; i++) {
        t->labels[i] = i % CLASSES;
        for (int j = 0; j < SIDE * SIDE; j++) t->pixels[i * SIDE * SIDE + j] = (uint8_t)nn_random_below(&r, 120);
        int corner = i % CLASSES == 0 ? 0 : i % CLASSES == 1 ? SIDE - 1 : SIDE * (SIDE - 1);
        t->pixels[i * SIDE * SIDE + corner] = (uint8_t)(200 + nn_random_below(&r, 50));
    }
    t->set = (image_set){ .n = N, .width = SIDE, .height = SIDE, .channels = 1, .pixels = t->pixels, .labels = t->labels };
    if (nn_model_build(&t->model, &c, NULL, &error)) fail_msg("%s", error.message);
    nn_model_start(&t->model, 11);
    nn_pictures_open(&t->pictures, &t->set, &t->model.config);
}

static void close_toy(toy *t) { nn_model_free(&t->model); }

static nn_train_options toy_options(int64_t steps) {
    return (nn_train_options){
        .batch = 40, .steps = steps, .rate = 3e-3, .warm_up = 0.1, .weight_decay = 0.01, .clip = 1, .smoothing = 0.1, .seed = 4
    };
}

static const nn_examples *examples(const toy *t) { return &t->pictures.base; }

static int train_toy(toy *t, const nn_train_options *o, const attn_exec *exec, nn_progress *p, io_error *error) {
    return nn_train(&t->model, examples(t), examples(t), o, exec, p, error);
}

static size_t value_bytes(const toy *t) { return t->model.parameters.size * sizeof(float); }

/* ---- the same bits ----------------------------------------------------------------------------------------------------------- */

static void any_number_of_threads_gives_the_same_model(int32_t optimizer) {
    static toy one, many;
    nn_train_options o = toy_options(6);
    o.optimizer = optimizer;
    nn_progress p;
    io_error error = { 0 };
    open_toy(&one, NN_DOT);
    assert_int_equal(train_toy(&one, &o, NULL, &p, &error), IO_OK);
    for (int32_t threads = 1; threads <= 4; threads++) {
        attn_exec exec = { 0 };
        assert_int_equal(attn_pool_open(&exec, threads), ATTN_OK);
        open_toy(&many, NN_DOT);
        assert_int_equal(train_toy(&many, &o, &exec, &p, &error), IO_OK);
        assert_memory_equal(many.model.parameters.values, one.model.parameters.values, value_bytes(&one));
        close_toy(&many);
        attn_pool_close(&exec);
    }
    close_toy(&one);
}

static void test_any_number_of_threads_gives_the_same_model(void **state) {
    (void)state;
    any_number_of_threads_gives_the_same_model(NN_MUON);
    any_number_of_threads_gives_the_same_model(NN_ADAMW);
}

static void test_another_seed_gives_another_model(void **state) {
    (void)state;
    static toy a, b;
    nn_train_options o = toy_options(2);
    nn_progress p;
    open_toy(&a, NN_DOT);
    open_toy(&b, NN_DOT);
    assert_int_equal(train_toy(&a, &o, NULL, &p, NULL), IO_OK);
    o.seed++;
    assert_int_equal(train_toy(&b, &o, NULL, &p, NULL), IO_OK);
    assert_memory_not_equal(a.model.parameters.values, b.model.parameters.values, value_bytes(&a));
    close_toy(&a);
    close_toy(&b);
}

/* Stops a training at a certain step, as Ctrl-C would. */
typedef struct stopper {
    volatile sig_atomic_t stop;
    int64_t at;
    int ways_back, valids;
    double best;
} stopper;

static void watch(void *context, const nn_news *news) {
    stopper *s = context;
    if (news->what == NN_NEWS_STEP && news->progress->step == s->at) s->stop = 1;
    if (news->what == NN_NEWS_WAY_BACK) s->ways_back++;
    if (news->what == NN_NEWS_VALID) {
        s->valids++;
        if (news->accuracy > s->best) s->best = news->accuracy;
    }
}

static void temporary_folder(char *out) {
    strcpy(out, "/tmp/attn-train-XXXXXX");
    assert_non_null(mkdtemp(out));
}

static void remove_folder(const char *folder) {
    static const char *const names[] = { "config.json", "model.safetensors", "preprocessor_config.json",
                                         "checkpoint.safetensors" };
    char path[256];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    assert_int_equal(rmdir(folder), 0);
}

/* Stopped at every kind of place: in the middle of an epoch, at its end, twice. */
static void a_resumed_training_is_the_uninterrupted_one(int32_t optimizer) {
    static toy whole, parts;
    char folder[64], path[128];
    nn_progress expected, p;
    io_error error = { 0 };
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/checkpoint.safetensors", folder);
    nn_train_options o = toy_options(9);
    o.optimizer = optimizer;
    open_toy(&whole, NN_ADDITIVE);
    assert_int_equal(train_toy(&whole, &o, NULL, &expected, &error), IO_OK);
    for (int64_t first = 1; first <= 4; first++) {
        stopper s = { .at = first };
        o.checkpoint = path;
        o.stop = &s.stop;
        o.tell = watch;
        o.context = &s;
        o.settings = "toy";
        o.resume = false;
        open_toy(&parts, NN_ADDITIVE);
        assert_int_equal(train_toy(&parts, &o, NULL, &p, &error), IO_INTERRUPTED);
        assert_true(p.best_step >= 0);
        close_toy(&parts);
        for (int64_t next = 6; next <= 10; next += 4) {
            s = (stopper){ .at = next };
            o.resume = true;
            open_toy(&parts, NN_ADDITIVE);
            int code = train_toy(&parts, &o, NULL, &p, &error);
            assert_int_equal(code, next == 6 ? IO_INTERRUPTED : IO_OK);
            if (code == IO_OK) {
                assert_memory_equal(parts.model.parameters.values, whole.model.parameters.values, value_bytes(&whole));
                assert_int_equal(p.best_step, expected.best_step);
                assert_true(p.best_accuracy == expected.best_accuracy && p.best_loss == expected.best_loss &&
                            p.loss == expected.loss);
            }
            close_toy(&parts);
        }
    }
    close_toy(&whole);
    remove_folder(folder);
}

static void test_a_resumed_training_is_the_uninterrupted_one(void **state) {
    (void)state;
    a_resumed_training_is_the_uninterrupted_one(NN_MUON);
    a_resumed_training_is_the_uninterrupted_one(NN_ADAMW);
}

static void test_resuming_refuses_other_settings_other_models_and_no_checkpoint(void **state) {
    (void)state;
    static toy t;
    char folder[64], path[128];
    nn_progress p;
    io_error error = { 0 };
    stopper s = { .at = 1 };
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/checkpoint.safetensors", folder);
    nn_train_options o = toy_options(4);
    o.checkpoint = path;
    o.stop = &s.stop;
    o.tell = watch;
    o.context = &s;
    o.settings = "this";
    o.resume = true;
    open_toy(&t, NN_DOT);
    assert_int_equal(train_toy(&t, &o, NULL, &p, &error), IO_BAD_MODEL);
    assert_non_null(strstr(error.message, "no checkpoint"));
    o.resume = false;
    assert_int_equal(train_toy(&t, &o, NULL, &p, &error), IO_INTERRUPTED);
    close_toy(&t);
    o.resume = true;
    s.stop = 0;
    o.settings = "that";
    open_toy(&t, NN_DOT);
    assert_int_equal(train_toy(&t, &o, NULL, &p, &error), IO_BAD_USAGE);
    assert_non_null(strstr(error.message, "other options"));
    close_toy(&t);
    o.settings = "this";
    open_toy(&t, NN_GATED);
    assert_int_equal(train_toy(&t, &o, NULL, &p, &error), IO_BAD_MODEL);
    assert_non_null(strstr(error.message, "another model"));
    assert_int_equal(truncate(path, 1000), 0);
    assert_int_equal(train_toy(&t, &o, NULL, &p, &error), IO_BAD_MODEL);
    close_toy(&t);
    remove_folder(folder);
}

/* ---- learning ------------------------------------------------------------------------------------------------------------------- */

static double accuracy_of(toy *t) {
    nn_team team;
    io_error error = { 0 };
    static float probabilities[N * CLASSES];
    assert_int_equal(nn_team_open(&team, &t->model, 0, NULL, &error), IO_OK);
    assert_int_equal(nn_team_predict(&team, examples(t), probabilities, NULL, &error), IO_OK);
    nn_team_close(&team);
    return nn_accuracy(probabilities, t->labels, N, CLASSES);
}

static void test_every_kind_of_attention_learns_the_toy(void **state) {
    (void)state;
    static toy t;
    nn_progress p;
    io_error error = { 0 };
    nn_train_options o = toy_options(180);
    for (int32_t kind = 0; kind < NN_N_ATTENTIONS; kind++) {
        open_toy(&t, kind);
        if (train_toy(&t, &o, NULL, &p, &error)) fail_msg("%s", error.message);
        if (accuracy_of(&t) < 1) fail_msg("%s: %g of the toy learned", nn_attention_names[kind], accuracy_of(&t));
        close_toy(&t);
    }
}

/* A learning rate that ruins the model late: what is left is the best of all validations, not the last. */
static void test_the_best_model_is_kept(void **state) {
    (void)state;
    static toy t;
    nn_progress p;
    io_error error = { 0 };
    stopper s = { .at = -1 };
    nn_train_options o = toy_options(40);
    o.tell = watch;
    o.context = &s;
    o.rate = 0.05;
    open_toy(&t, NN_DOT);
    assert_int_equal(train_toy(&t, &o, NULL, &p, &error), IO_OK);
    assert_true(s.valids > 5);
    assert_true(s.best == p.best_accuracy);
    assert_true(accuracy_of(&t) == p.best_accuracy);
    close_toy(&t);
}

/* Examples that are not numbers, once, at step 7: the batch poisons the gradient, training goes back and gets through. */
typedef struct poisoned {
    nn_examples base;
    const nn_examples *of;
    int times; /* how often it still poisons */
} poisoned;

static int64_t poisoned_length(const nn_examples *e, size_t i) {
    return ((const poisoned *)e)->of->length(((const poisoned *)e)->of, i);
}

static void poisoned_fetch(const nn_examples *e, const uint32_t *which, nn_pass *pass) {
    poisoned *p = (poisoned *)e;
    p->of->fetch(p->of, which, pass);
    if (!pass->train || pass->step != 7 || pass->first_example != 0 || p->times == 0) return;
    p->times--;
    ((float *)nn_patches(pass))[10] = NAN;
}

static poisoned poison(const toy *t, int times) {
    return (poisoned){ .base = { .n = N, .labels = t->labels, .length = poisoned_length, .fetch = poisoned_fetch },
                       .of = examples(t),
                       .times = times };
}

static void test_a_loss_that_is_no_number_leads_back_and_on(void **state) {
    (void)state;
    static toy t;
    nn_progress p;
    io_error error = { 0 };
    stopper s = { .at = -1 };
    nn_train_options o = toy_options(20);
    o.tell = watch;
    o.context = &s;
    open_toy(&t, NN_DOT);
    poisoned bad = poison(&t, 2);
    assert_int_equal(nn_train(&t.model, &bad.base, examples(&t), &o, NULL, &p, &error), IO_OK);
    assert_int_equal(s.ways_back, 2);
    assert_int_equal(p.ways_back, 2);
    assert_int_equal(p.step, 20);
    assert_true(p.rate_scale == 0.25);
    for (size_t i = 0; i < t.model.parameters.size; i++) assert_true(isfinite(((float *)t.model.parameters.values)[i]));
    close_toy(&t);
}

static void test_a_training_that_never_gets_through_has_diverged(void **state) {
    (void)state;
    static toy t;
    nn_progress p;
    io_error error = { 0 };
    nn_train_options o = toy_options(20);
    open_toy(&t, NN_DOT);
    poisoned bad = poison(&t, 1000);
    assert_int_equal(nn_train(&t.model, &bad.base, examples(&t), &o, NULL, &p, &error), IO_DIVERGED);
    assert_non_null(strstr(error.message, "diverged"));
    close_toy(&t);
}

static void test_time_is_turned_into_steps(void **state) {
    (void)state;
    static toy t;
    nn_progress p;
    io_error error = { 0 };
    nn_train_options o = toy_options(0);
    o.seconds = 0.3;
    open_toy(&t, NN_DOT);
    assert_int_equal(train_toy(&t, &o, NULL, &p, &error), IO_OK);
    assert_true(p.total >= 1 && p.step >= 1);
    assert_true(p.seconds < 3);
    close_toy(&t);
}

/* ---- folders ------------------------------------------------------------------------------------------------------------------------ */

static void test_a_saved_model_comes_back_as_it_was(void **state) {
    (void)state;
    static toy t;
    nn_model again;
    char folder[64];
    io_error error = { 0 };
    temporary_folder(folder);
    for (int32_t kind = 0; kind < NN_N_ATTENTIONS; kind++)
        for (int pool = 0; pool < 2; pool++) {
            open_toy(&t, kind);
            nn_config c = toy_config(kind);
            c.attention_pool = pool;
            nn_model_free(&t.model);
            assert_int_equal(nn_model_build(&t.model, &c, NULL, &error), IO_OK);
            nn_model_start(&t.model, 5);
            if (nn_model_save(&t.model, NULL, folder, &error)) fail_msg("%s", error.message);
            if (nn_model_load(&again, folder, NULL, &error)) fail_msg("%s", error.message);
            assert_int_equal(again.parameters.size, t.model.parameters.size);
            assert_memory_equal(again.parameters.values, t.model.parameters.values, value_bytes(&t));
            assert_string_equal(again.config.labels[2], "low");
            assert_int_equal(again.config.attention, kind);
            assert_int_equal(again.config.attention_pool, pool);
            nn_model_free(&again);
            close_toy(&t);
        }
    remove_folder(folder);
}

typedef struct hostile {
    const char *from, *to; /* in config.json: a text and what takes its place */
    const char *says;
} hostile;

static const hostile hostiles[] = {
    { "\"hidden_size\": 16", "\"hidden_size\": 0", "hidden_size" },
    { "\"hidden_size\": 16", "\"hidden_size\": -16", "hidden_size" },
    { "\"hidden_size\": 16", "\"hidden_size\": 17", "heads" },
    { "\"hidden_size\": 16", "\"hidden_size\": 65536", "larger model" },
    { "\"hidden_size\": 16", "\"hidden_size\": 9223372036854775807", "hidden_size" },
    { "\"hidden_size\": 16", "\"hidden_size\": \"16\"", "no integer" },
    { "\"hidden_size\": 16,", "", "missing" },
    { "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1000000000000", "num_hidden_layers" },
    { "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", "larger model" },
    { "\"num_attention_heads\": 2", "\"num_attention_heads\": 0", "num_attention_heads" },
    { "\"patch_size\": 2", "\"patch_size\": 4", "patches of 4" },
    { "\"patch_size\": 2", "\"patch_size\": 0", "patch_size" },
    { "\"patch_size\": 2", "\"patch_size\": 3", "calls for" },
    { "\"num_channels\": 1", "\"num_channels\": 5", "num_channels" },
    { "\"image_size\": 6", "\"image_size\": [6, 1000000]", "image width" },
    { "\"layer_norm_eps\": 1e-6", "\"layer_norm_eps\": -1", "layer_norm_eps" },
    { "\"hidden_act\": \"gelu\"", "\"hidden_act\": \"quick\"", "hidden_act" },
    { "\"model_type\": \"vit\"", "\"model_type\": \"llama\"", "model_type" },
    { "\"model_type\": \"vit\"", "\"model_type\": \"attn\"", "task" },
    { "\"model_type\": \"vit\"", "\"model_type\": 3", "model_type" },
    { "\"0\": \"left\"", "\"7\": \"left\"", "id2label" },
    { "\"0\": \"left\"", "\"0\": 4", "id2label" },
    { "{", "[", "config.json" },
};

/* Replaces the text in the file's contents and writes them back. */
static void write_changed(const char *path, const char *contents, const hostile *h) {
    io_error error = { 0 };
    const char *at = strstr(contents, h->from);
    if (!at) fail_msg("config.json does not hold '%s': %s", h->from, contents);
    char *changed = NULL;
    int length = asprintf(&changed, "%.*s%s%s", (int)(at - contents), contents, h->to, at + strlen(h->from));
    assert_true(length > 0);
    assert_int_equal(io_write(path, changed, (size_t)length, &error), IO_OK);
    free(changed);
}

static void test_hostile_configs_are_refused(void **state) {
    (void)state;
    static toy t;
    nn_model m;
    char folder[64], path[128];
    io_bytes good;
    io_error error = { 0 };
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/config.json", folder);
    assert_int_equal(nn_model_load(&m, folder, NULL, &error), IO_BAD_MODEL);
    assert_non_null(strstr(error.message, "no model"));
    open_toy(&t, NN_DOT);
    assert_int_equal(nn_model_save(&t.model, NULL, folder, &error), IO_OK);
    close_toy(&t);
    assert_int_equal(io_read(path, SIZE_MAX, &good, &error), IO_OK);
    for (size_t i = 0; i < sizeof hostiles / sizeof hostiles[0]; i++) {
        write_changed(path, (const char *)good.data, &hostiles[i]);
        error.message[0] = 0;
        int code = nn_model_load(&m, folder, NULL, &error);
        if (code != IO_BAD_MODEL || !strstr(error.message, hostiles[i].says))
            fail_msg("'%s' as '%s': code %d, '%s'", hostiles[i].from, hostiles[i].to, code, error.message);
    }
    io_bytes_free(&good);
    remove_folder(folder);
}

static void test_hostile_tensors_are_refused(void **state) {
    (void)state;
    static toy t;
    nn_model m;
    char folder[64], path[128];
    io_bytes good;
    io_error error = { 0 };
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    open_toy(&t, NN_DOT);
    assert_int_equal(nn_model_save(&t.model, NULL, folder, &error), IO_OK);
    close_toy(&t);
    assert_int_equal(io_read(path, SIZE_MAX, &good, &error), IO_OK);
    for (size_t size = 0; size < good.size; size += good.size / 7 + 1) {
        assert_int_equal(io_write(path, good.data, size, &error), IO_OK);
        assert_int_equal(nn_model_load(&m, folder, NULL, &error), IO_BAD_MODEL);
    }
    static const char *const names[] = { "vit.layernorm.weight", "classifier.bias", "cls_token", "F32" };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        unsigned char *at = memmem(good.data, good.size, names[i], strlen(names[i])), kept = *at;
        *at = 'I'; /* another name, or I32 */
        assert_int_equal(io_write(path, good.data, good.size, &error), IO_OK);
        assert_int_equal(nn_model_load(&m, folder, NULL, &error), IO_BAD_MODEL);
        *at = kept;
    }
    unlink(path);
    assert_int_equal(nn_model_load(&m, folder, NULL, &error), IO_BAD_MODEL);
    io_bytes_free(&good);
    remove_folder(folder);
}

/* ---- splits and figures ------------------------------------------------------------------------------------------------------------------- */

static void test_a_split_takes_its_share_of_every_class(void **state) {
    (void)state;
    enum { MANY = 230 };
    int32_t labels[MANY];
    uint32_t *first, *second;
    size_t n_first, n_second, seen[4] = { 0 };
    for (int i = 0; i < MANY; i++) labels[i] = i == 0 ? 3 : i < 30 ? 2 : i % 2; /* 100, 100, 29 and 1 */
    assert_int_equal(nn_split(labels, MANY, 4, 0.1, 9, &first, &n_first, &second, &n_second, NULL), IO_OK);
    assert_int_equal(n_first + n_second, MANY);
    for (size_t i = 0; i < n_second; i++) {
        seen[labels[second[i]]]++;
        if (i) assert_true(second[i - 1] < second[i]);
    }
    for (size_t i = 1; i < n_first; i++) assert_true(first[i - 1] < first[i]);
    assert_int_equal(seen[0], 10);
    assert_int_equal(seen[1], 10);
    assert_int_equal(seen[2], 3);
    assert_int_equal(seen[3], 0); /* the only example of a class is for learning */
    free(first);
    free(second);
}

/* Worked by hand: three classes, six examples, four right. */
static void test_figures_of_a_worked_case(void **state) {
    (void)state;
    const float p[6][3] = { { .8f, .1f, .1f }, { .6f, .3f, .1f }, { .2f, .7f, .1f },
                            { .5f, .3f, .2f }, { .1f, .8f, .1f }, { .9f, .05f, .05f } };
    const int32_t labels[6] = { 0, 0, 1, 1, 1, 2 };
    const double losses[6] = { 1, 2, 3, 4, 5, 6 };
    nn_figures f;
    assert_int_equal(nn_evaluate(&f, &p[0][0], losses, labels, 6, 3, NULL), IO_OK);
    assert_true(fabs(f.accuracy - 4.0 / 6) < 1e-12);
    assert_true(fabs(f.low - 0.299991) < 1e-5 && fabs(f.high - 0.903230) < 1e-5);
    assert_true(fabs(f.loss - 3.5) < 1e-12);
    assert_true(fabs(f.per_class[0].precision - 0.5) < 1e-12 && fabs(f.per_class[0].recall - 1) < 1e-12);
    assert_true(fabs(f.per_class[1].precision - 1) < 1e-12 && fabs(f.per_class[1].recall - 2.0 / 3) < 1e-12);
    assert_true(isnan(f.per_class[2].precision) && f.per_class[2].recall == 0 && f.per_class[2].f1 == 0);
    assert_true(fabs(f.macro_f1 - (2.0 / 3 + 0.8 + 0) / 3) < 1e-12);
    assert_int_equal(f.confusion[1 * 3 + 0], 1);
    assert_int_equal(f.confusion[2 * 3 + 0], 1);
    assert_int_equal(f.per_class[1].support, 3);
    /* bins (7/15, 8/15]: .5 wrong; (8/15, 9/15]: .6 right; (10/15, 11/15]: .7 right; (11/15, 12/15]: two of .8, right; (13/15, 14/15]: .9 wrong */
    assert_true(fabs(f.ece - (0.5 + 0.4 + 0.3 + 0.4 + 0.9) / 6) < 1e-6);
    nn_figures_free(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_number_of_threads_gives_the_same_model),
        cmocka_unit_test(test_another_seed_gives_another_model),
        cmocka_unit_test(test_a_resumed_training_is_the_uninterrupted_one),
        cmocka_unit_test(test_resuming_refuses_other_settings_other_models_and_no_checkpoint),
        cmocka_unit_test(test_every_kind_of_attention_learns_the_toy),
        cmocka_unit_test(test_the_best_model_is_kept),
        cmocka_unit_test(test_a_loss_that_is_no_number_leads_back_and_on),
        cmocka_unit_test(test_a_training_that_never_gets_through_has_diverged),
        cmocka_unit_test(test_time_is_turned_into_steps),
        cmocka_unit_test(test_a_saved_model_comes_back_as_it_was),
        cmocka_unit_test(test_hostile_configs_are_refused),
        cmocka_unit_test(test_hostile_tensors_are_refused),
        cmocka_unit_test(test_a_split_takes_its_share_of_every_class),
        cmocka_unit_test(test_figures_of_a_worked_case),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
