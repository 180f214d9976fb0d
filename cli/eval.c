/* SPDX-License-Identifier: Apache-2.0 */
/* attn eval: how good a model is on labelled data. */
#include <math.h>

#include "commands.h"
#include "evaluate.h"
#include "message.h"
#include "predict.h"
#include "print.h"
#include "source.h"

/* A table of more classes than this is no help on a terminal; --json has them all. */
enum { MOST_SHOWN_CLASSES = 24 };

typedef struct eval_settings {
    const char *model, *data, *text, *label;
    option_real fail_under;
    bool json;
} eval_settings;

static void add_field(text *out, const char *name, double value) {
    text_add(out, ", \"%s\": ", name);
    text_add_json_number(out, value);
}

static void add_class(text *out, const char *label, const nn_class_figures *k) {
    text_add(out, "{\"label\": ");
    text_add_json(out, label);
    add_field(out, "precision", k->precision);
    add_field(out, "recall", k->recall);
    add_field(out, "f1", k->f1);
    text_add(out, ", \"support\": %lld}", (long long)k->support);
}

static void add_json(text *out, const nn_config *c, const nn_figures *f) {
    text_add(out, "{\"task\": \"%s\", \"n\": %zu", nn_config_task(c), f->n);
    add_field(out, "accuracy", f->accuracy);
    text_add(out, ", \"accuracy_ci95\": [");
    text_add_json_number(out, f->low);
    text_add(out, ", ");
    text_add_json_number(out, f->high);
    text_add(out, "]");
    add_field(out, "loss", f->loss);
    add_field(out, "macro_f1", f->macro_f1);
    add_field(out, "ece", f->ece);
    text_add(out, ", \"per_class\": [");
    for (size_t i = 0; i < f->classes; i++) {
        text_add(out, i ? ", " : "");
        add_class(out, c->labels[i], &f->per_class[i]);
    }
    text_add(out, "], \"confusion\": [");
    for (size_t i = 0; i < f->classes; i++) {
        text_add(out, i ? ", [" : "[");
        for (size_t k = 0; k < f->classes; k++)
            text_add(out, "%s%lld", k ? ", " : "", (long long)f->confusion[i * f->classes + k]);
        text_add(out, "]");
    }
    text_add(out, "]}\n");
}

/* What a class is most often taken for. */
static size_t likeliest_mistake(const nn_figures *f, size_t class) {
    size_t worst = class;
    int64_t most = 0;
    for (size_t k = 0; k < f->classes; k++) {
        int64_t count = f->confusion[class * f->classes + k];
        if (k == class || count <= most) continue;
        worst = k;
        most = count;
    }
    return worst;
}

static void add_table(text *out, const nn_config *c, const nn_figures *f) {
    text_add(out, "accuracy   %.2f %%  (95 %% interval %.2f .. %.2f, %zu examples)\n", 100 * f->accuracy, 100 * f->low,
             100 * f->high, f->n);
    text_add(out, "macro-F1   %.4f\nloss       %.4f\nECE        %.4f  (calibration error, 15 bins)\n", f->macro_f1, f->loss,
             f->ece);
    if (f->classes > MOST_SHOWN_CLASSES) {
        text_add(out, "%zu classes: --json shows each, and the confusion matrix\n", f->classes);
        return;
    }
    text_add(out, "\n%-20s %9s %9s %9s %9s  %s\n", "class", "precision", "recall", "F1", "examples", "mostly taken for");
    for (size_t i = 0; i < f->classes; i++) {
        const nn_class_figures *k = &f->per_class[i];
        size_t other = likeliest_mistake(f, i);
        text_add(out, "%-20.20s %9.3f %9.3f %9.3f %9lld", c->labels[i], k->precision, k->recall, k->f1, (long long)k->support);
        if (other != i) text_add(out, "  %.20s (%lld)", c->labels[other], (long long)f->confusion[i * f->classes + other]);
        text_add(out, "\n");
    }
}

static int print(const eval_settings *s, const nn_config *c, const nn_figures *f) {
    text out = { 0 };
    if (s->json)
        add_json(&out, c, f);
    else
        add_table(&out, c, f);
    int failed = text_print(&out);
    if (failed || !s->fail_under.given || f->accuracy >= s->fail_under.value) return failed;
    return fail(EXIT_BELOW, "accuracy %.4f is below --fail-under %.4f", f->accuracy, s->fail_under.value);
}

static int evaluate(const eval_settings *s, nn_model *model, nn_source *data, const attn_exec *exec, nn_figures *figures,
                    io_error *error) {
    nn_source_options o = { .half = DATA_TEST, .text = s->text, .label = s->label, .model = &model->config };
    const nn_examples *examples;
    prediction p;
    int failed = nn_source_read(data, s->data, &o, error);
    if (!failed) failed = nn_source_examples(data, model, &examples, error);
    if (failed) return failed;
    note("%s: %s", data->where.path, data->summary);
    failed = predict(&p, model, examples, exec, error);
    if (!failed) failed = nn_evaluate(figures, p.probabilities, p.losses, data->labels, data->n, p.classes, error);
    prediction_free(&p);
    return failed;
}

static int run(const void *settings, const attn_exec *exec) {
    const eval_settings *s = settings;
    static nn_source data; /* it holds paths: too large for the stack */
    nn_model model;
    nn_figures figures = { 0 };
    io_error error = { 0 };
    int code = nn_model_load(&model, s->model, NULL, &error);
    if (code) return fail_io(&error);
    code = evaluate(s, &model, &data, exec, &figures, &error);
    code = code ? fail_io(&error) : print(s, &model.config, &figures);
    nn_figures_free(&figures);
    nn_source_free(&data);
    nn_model_free(&model);
    return code;
}

#define FIELD(name) offsetof(eval_settings, name)

static const option options[] = {
    { .name = "MODEL", .kind = OPTION_ARGUMENT, .field = FIELD(model), .required = true, .help = "the model's folder" },
    { .name = "DATA",
      .kind = OPTION_ARGUMENT,
      .field = FIELD(data),
      .required = true,
      .help = "labelled data of the kinds that `attn train` reads; of a folder with a train and a test half the second is used" },
    { .name = "text", .kind = OPTION_TEXT, .field = FIELD(text), .value = "COL", .help = "the column with the texts" },
    { .name = "label", .kind = OPTION_TEXT, .field = FIELD(label), .value = "COL", .help = "the column with the labels" },
    { .name = "fail-under",
      .kind = OPTION_REAL,
      .field = FIELD(fail_under),
      .value = "X",
      .low = 0,
      .high = 1,
      .help = "exit 1 when the accuracy (0 .. 1) is below X" },
    { .name = "json",
      .kind = OPTION_FLAG,
      .field = FIELD(json),
      .help = "one JSON object, with the confusion matrix [true][predicted]" },
    { .kind = OPTION_END },
};

const command command_eval = {
    .name = "eval",
    .summary = "accuracy with its interval, F1, calibration and confusion on labelled data",
    .about = "Measures a model: accuracy with Wilson's 95 % interval, macro-F1, mean cross-entropy, expected calibration error, "
             "figures per "
             "class and what each class is mostly taken for.",
    .examples = "  attn eval model /usr/share/datasets/fashion-mnist\n  attn eval model test.csv --json --fail-under 0.9\n",
    .options = options,
    .settings_size = sizeof(eval_settings),
    .run = run,
};
