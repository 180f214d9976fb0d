/* SPDX-License-Identifier: Apache-2.0 */
/* attn explain: what a model looked at, on the terminal, as a picture, as a page or as JSON. */
#define _POSIX_C_SOURCE 200809L
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "explain_cases.h"
#include "message.h"
#include "print.h"
#include "terminal.h"

enum { DEFAULT_EXAMPLES = 4 };

typedef struct explain_settings {
    const char *model, *input, *out, *text, *label;
    option_choice method;
    option_integer examples;
    bool json;
} explain_settings;

static bool ends_in(const char *path, const char *end) {
    size_t n = path ? strlen(path) : 0, m = strlen(end);
    return n > m && strcmp(path + n - m, end) == 0;
}

/* ---- JSON ----------------------------------------------------------------------------------------------------------------------- */

/* Does the token stand for some of the input? Of pictures, all but the first do. */
static bool is_input(const explain_case *c, int32_t t) {
    return c->start ? c->end[t] > c->start[t] && c->end[t] <= c->length : t > 0;
}

static void add_shares(text *out, const explain_case *c, const double *shares) {
    text_add(out, ", \"relevance\": [");
    for (int32_t t = 0, shown = 0; t < c->look.tokens; t++) {
        if (!is_input(c, t)) continue;
        text_add(out, shown++ ? ", " : "");
        text_add_json_number(out, shares[t]);
    }
    text_add(out, "]");
}

static void add_tokens(text *out, const explain_case *c) {
    text_add(out, ", \"tokens\": [");
    for (int32_t t = 0, shown = 0; t < c->look.tokens; t++) {
        if (!is_input(c, t)) continue;
        char *token = strndup(c->text + c->start[t], c->end[t] - c->start[t]);
        text_add(out, "%s{\"text\": ", shown++ ? ", " : "");
        text_add_json(out, token ? token : "");
        text_add(out, ", \"start\": %u, \"end\": %u, \"relevance\": ", c->start[t], c->end[t]);
        text_add_json_number(out, c->look.relevance[t]);
        text_add(out, "}");
        free(token);
    }
    text_add(out, "]");
}

static void add_json(text *out, const explain_case *c, const nn_config *config, int32_t method) {
    const explain_look *l = &c->look;
    text_add(out, "{\"input\": ");
    text_add_json(out, config->modality == NN_TEXT ? c->text : c->name);
    text_add(out, ", \"label\": ");
    text_add_json(out, config->labels[l->label]);
    text_add(out, ", \"probability\": ");
    text_add_json_number(out, (double)l->probabilities[l->label]);
    text_add(out, ", \"runner_up\": ");
    text_add_json(out, config->labels[l->runner_up]);
    text_add(out, ", \"runner_up_probability\": ");
    text_add_json_number(out, (double)l->probabilities[l->runner_up]);
    if (c->truth >= 0) {
        text_add(out, ", \"truth\": ");
        text_add_json(out, config->labels[c->truth]);
    }
    text_add(out, ", \"method\": \"%s\"", explain_method_names[method]);
    if (config->modality == NN_TEXT) {
        add_tokens(out, c);
    } else {
        text_add(out, ", \"rows\": %lld, \"columns\": %lld", (long long)(config->image_height / config->patch),
                 (long long)(config->image_width / config->patch));
        add_shares(out, c, l->relevance);
    }
    text_add(out, ", \"heads\": [");
    for (int32_t i = 0; i < l->layers; i++)
        for (int32_t h = 0; h < l->heads; h++) {
            text_add(out, "%s{\"layer\": %d, \"head\": %d, \"spread\": ", i + h ? ", " : "", (int)i + 1, (int)h + 1);
            text_add_json_number(out, explain_spread(l, i, h));
            if (i + 1 == l->layers) add_shares(out, c, l->head_relevance + (int64_t)h * l->tokens);
            text_add(out, "}");
        }
    text_add(out, "]}\n");
}

/* ---- outputs ---------------------------------------------------------------------------------------------------------------------- */

static bool locale_is_utf8(void) {
    static const char *const names[] = { "LC_ALL", "LC_CTYPE", "LANG" };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *value = getenv(names[i]);
        if (value && *value) return strstr(value, "UTF-8") || strstr(value, "utf8") || strstr(value, "UTF8");
    }
    return false;
}

static int print(const explain_settings *s, const explain_cases *c, const nn_config *config, int32_t method) {
    const char *term = getenv("TERM"), *plain = getenv("NO_COLOR");
    terminal_look look = { .colour = isatty(STDOUT_FILENO) && !(plain && *plain) && !(term && strcmp(term, "dumb") == 0),
                           .blocks = locale_is_utf8() };
    text out = { 0 };
    for (size_t i = 0; i < c->n; i++) {
        if (s->json) {
            add_json(&out, &c->cases[i], config, method);
            continue;
        }
        text_add(&out, "%s", i ? "\n" : "");
        if (config->modality == NN_IMAGE) text_add(&out, "%s: ", c->cases[i].name);
        terminal_case(&c->cases[i], config, method, look, &out);
    }
    return text_print(&out);
}

static int write_report(const explain_settings *s, const explain_cases *c, const nn_model *m, int32_t method, io_error *error) {
    explain_report r = {
        .model = m, .folder = s->model, .data = s->input ? s->input : "-", .method = method, .cases = c->cases, .n_cases = c->n
    };
    if (c->labelled) {
        r.figures = &c->figures;
        r.probabilities = c->answers.probabilities;
        r.labels = c->data.labels;
    }
    text page = { 0 };
    int failed = explain_report_html(&r, &page, error);
    if (!failed) failed = io_write(s->out, page.data, page.length, error);
    text_free(&page);
    return failed;
}

static int write_map(const explain_settings *s, const explain_cases *c, const nn_model *m, io_error *error) {
    image sheet = { 0 };
    if (c->n == 0) return io_fail(error, IO_BAD_DATA, "%s: there is nothing to explain", s->input);
    int failed = explain_case_sheet(&c->cases[0], &m->config, &sheet, error);
    if (!failed) failed = image_write_png(s->out, &sheet, error);
    image_free(&sheet);
    return failed;
}

static int explain(const explain_settings *s, const nn_model *m, explain_cases *c, const attn_exec *exec, io_error *error) {
    explain_choice choice = { .input = s->input,
                              .text = s->text,
                              .label = s->label,
                              .method = s->method.given ? s->method.value : EXPLAIN_GRADIENT,
                              .most = s->examples.given ? (size_t)s->examples.value : DEFAULT_EXAMPLES };
    int failed = explain_cases_find(c, &choice, m, exec, error);
    if (failed) return fail_io(error);
    if (!s->out) return print(s, c, &m->config, choice.method);
    failed = ends_in(s->out, ".png") ? write_map(s, c, m, error) : write_report(s, c, m, choice.method, error);
    return failed ? fail_io(error) : IO_OK;
}

/* Only what needs no model: said before one is loaded. */
static int check(const explain_settings *s) {
    if (!s->input && isatty(STDIN_FILENO))
        return fail(IO_BAD_USAGE,
                    "there is no input: give a text in quotes, a picture or data, or pipe lines of text to this command");
    if (s->out && !ends_in(s->out, ".png") && !ends_in(s->out, ".html"))
        return fail(IO_BAD_USAGE, "-o %s: a report's name ends in .html, a map's in .png", s->out);
    if (s->out && s->json) return fail(IO_BAD_USAGE, "--json goes to stdout; leave out -o");
    return IO_OK;
}

static int run(const void *settings, const attn_exec *exec) {
    const explain_settings *s = settings;
    static explain_cases cases; /* it holds paths: too large for the stack */
    nn_model model;
    io_error error = { 0 };
    int code = check(s);
    if (code) return code;
    if (nn_model_load(&model, s->model, &(nn_model_options){ .examples = 1, .every_query = true }, &error))
        return fail_io(&error);
    if (model.config.modality == NN_TEXT && ends_in(s->out, ".png"))
        code = fail(IO_BAD_USAGE, "-o %s: %s is a model of texts, which are shaded in a report: name it .html", s->out, s->model);
    else
        code = explain(s, &model, &cases, exec, &error);
    explain_cases_free(&cases);
    nn_model_free(&model);
    return code;
}

#define FIELD(name) offsetof(explain_settings, name)

static const option options[] = {
    { .name = "MODEL", .kind = OPTION_ARGUMENT, .field = FIELD(model), .required = true, .help = "the model's folder" },
    { .name = "INPUT",
      .kind = OPTION_ARGUMENT,
      .field = FIELD(input),
      .help =
          "a text in quotes, a file with one text per line, a PNG or JPEG; or labelled data (IDX files, a folder, .csv, .tsv, "
          ".jsonl), of which right answers and the most confident mistakes are shown; - or nothing is stdin" },
    { .name = "out",
      .kind = OPTION_TEXT,
      .letter = 'o',
      .field = FIELD(out),
      .value = "FILE",
      .help = "report.html: one page with everything; map.png: the first picture, what was looked at, and each head of the last "
              "layer. Without: the terminal" },
    { .name = "method",
      .kind = OPTION_CHOICE,
      .field = FIELD(method),
      .value = "METHOD",
      .choices = explain_method_names,
      .help = "attention: the last layer's weights; rollout: weights through all layers; gradient: weights times the gradient of "
              "the answer against the runner-up (default)" },
    { .name = "examples",
      .kind = OPTION_INTEGER,
      .field = FIELD(examples),
      .value = "N",
      .low = 1,
      .high = 1000,
      .help = "explain at most so many (default: 4)" },
    { .name = "text", .kind = OPTION_TEXT, .field = FIELD(text), .value = "COL", .help = "the column with the texts" },
    { .name = "label", .kind = OPTION_TEXT, .field = FIELD(label), .value = "COL", .help = "the column with the labels" },
    { .name = "json", .kind = OPTION_FLAG, .field = FIELD(json), .help = "one JSON object per example" },
    { .kind = OPTION_END },
};

const command command_explain = {
    .name = "explain",
    .summary = "what a model looked at: shaded words, heat maps, a report",
    .about = "Shows what an answer rests on: each token's share by the chosen method, and how far each head spreads its weights. "
             "The weights come from the same calls that computed the answer.",
    .examples = "  attn explain model 'library for reading music tags'\n  attn explain model boot.png -o map.png\n"
                "  attn explain model /usr/share/datasets/fashion-mnist -o report.html\n",
    .options = options,
    .settings_size = sizeof(explain_settings),
    .run = run,
};
