/* SPDX-License-Identifier: Apache-2.0 */
/* attn run: a model's answers, one per line of text or per picture. */
#define _POSIX_C_SOURCE 200809L
#include <unistd.h>

#include "commands.h"
#include "evaluate.h"
#include "inputs.h"
#include "message.h"
#include "predict.h"
#include "print.h"

enum { DEFAULT_TOP = 3 };

typedef struct run_settings {
    const char *model, *input, *text;
    option_integer top;
    bool json;
} run_settings;

/* ---- answers --------------------------------------------------------------------------------------------------------------------- */

/* The place of the largest probability that is smaller than the one before it, in order: ties go to the lower class. */
static size_t next_best(const float *p, size_t classes, size_t before, bool first) {
    size_t best = classes;
    for (size_t i = 0; i < classes; i++) {
        bool left = first || p[i] < p[before] || (p[i] == p[before] && i > before);
        if (left && (best == classes || p[i] > p[best])) best = i;
    }
    return best;
}

static void add_answer(text *out, const run_settings *s, const nn_config *c, const char *name, const float *p) {
    size_t classes = (size_t)c->n_labels, best = (size_t)nn_argmax(p, classes), top = DEFAULT_TOP;
    if (s->top.given) top = (size_t)s->top.value;
    if (top > classes) top = classes;
    if (!s->json) {
        size_t at = best;
        for (size_t k = 0; k < (s->top.given ? top : 1) && at < classes; k++, at = next_best(p, classes, at, false))
            text_add(out, "%s%s\t%.4f", k ? "\t" : "", c->labels[at], (double)p[at]);
        text_add(out, "\t%s\n", name);
        return;
    }
    text_add(out, "{\"input\": ");
    text_add_json(out, name);
    text_add(out, ", \"label\": ");
    text_add_json(out, c->labels[best]);
    text_add(out, ", \"probability\": ");
    text_add_json_number(out, (double)p[best]);
    text_add(out, ", \"top\": [");
    size_t at = best;
    for (size_t k = 0; k < top && at < classes; k++, at = next_best(p, classes, at, false)) {
        text_add(out, "%s{\"label\": ", k ? ", " : "");
        text_add_json(out, c->labels[at]);
        text_add(out, ", \"probability\": ");
        text_add_json_number(out, (double)p[at]);
        text_add(out, "}");
    }
    text_add(out, "]}\n");
}

static int answer(const run_settings *s, const nn_model *model, inputs *in, const attn_exec *exec, io_error *error) {
    const nn_examples *examples;
    prediction p;
    text out = { 0 };
    int failed = inputs_read(in, s->input, s->text, model, &examples, error);
    if (!failed) failed = predict(&p, model, examples, exec, error);
    if (failed) return fail_io(error);
    for (size_t i = 0; i < in->n; i++) add_answer(&out, s, &model->config, in->names[i], p.probabilities + i * p.classes);
    prediction_free(&p);
    return text_print(&out);
}

static int run(const void *settings, const attn_exec *exec) {
    const run_settings *s = settings;
    nn_model model;
    inputs in = { 0 };
    io_error error = { 0 };
    if (!s->input && isatty(STDIN_FILENO))
        return fail(IO_BAD_USAGE, "there is no input: give a file, or pipe lines of text to this command");
    if (nn_model_load(&model, s->model, NULL, &error)) return fail_io(&error);
    int code = answer(s, &model, &in, exec, &error);
    inputs_free(&in);
    nn_model_free(&model);
    return code;
}

#define FIELD(name) offsetof(run_settings, name)

static const option options[] = {
    { .name = "MODEL", .kind = OPTION_ARGUMENT, .field = FIELD(model), .required = true, .help = "the model's folder" },
    { .name = "INPUT",
      .kind = OPTION_ARGUMENT,
      .field = FIELD(input),
      .help = "texts: a file with one text per line, a .csv, .tsv or .jsonl, or a text in quotes; pictures: a PNG or JPEG, a "
              "folder of "
              "them, or IDX files; - or nothing is stdin" },
    { .name = "text", .kind = OPTION_TEXT, .field = FIELD(text), .value = "COL", .help = "the column with the texts" },
    { .name = "top",
      .kind = OPTION_INTEGER,
      .field = FIELD(top),
      .value = "K",
      .low = 1,
      .high = 1e6,
      .help = "so many likeliest classes (default: one, with --json three)" },
    { .name = "json", .kind = OPTION_FLAG, .field = FIELD(json), .help = "one JSON object per input" },
    { .kind = OPTION_END },
};

const command command_run = {
    .name = "run",
    .summary = "a model's answers for lines of text or for pictures",
    .about = "Prints the likeliest class, its probability and the input, one line per input, in the order of the inputs.",
    .examples = "  echo 'library for reading music tags' | attn run model\n  attn run model boot.png --json --top 5\n",
    .options = options,
    .settings_size = sizeof(run_settings),
    .run = run,
};
