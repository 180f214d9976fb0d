/* SPDX-License-Identifier: Apache-2.0 */
/* Examples for `attn explain`. See explain_cases.h. */
#include "explain_cases.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "path.h"

/* ---- one example --------------------------------------------------------------------------------------------------------------- */

static bool goes_on(char byte) { return ((unsigned char)byte & 0xc0) == 0x80; }

/* A token may be a part of a character, which nobody can show: it stands for the whole. */
static void widen(const explain_case *c, size_t i) {
    if (c->end[i] <= c->start[i] || c->end[i] > c->length) return;
    while (c->start[i] > 0 && goes_on(c->text[c->start[i]])) c->start[i]--;
    while (c->end[i] < c->length && goes_on(c->text[c->end[i]])) c->end[i]++;
}

/* The bytes that each token stands for, and which tokens stand for any. */
static int find_spans(explain_case *c, const nn_model *m, bool **counts, io_error *error) {
    encoding e = { 0 };
    int failed = tokenizer_encode(m->words, c->text, c->length, (size_t)m->config.positions, &e, error);
    c->start = array_new(e.n, sizeof *c->start);
    c->end = array_new(e.n, sizeof *c->end);
    *counts = array_new(e.n, sizeof **counts);
    if (!failed && (!c->start || !c->end || !*counts)) failed = io_no_memory(error, "the tokens' places", e.n * sizeof *c->start);
    for (size_t i = 0; i < e.n && !failed; i++) {
        c->start[i] = e.start[i];
        c->end[i] = e.end[i];
        widen(c, i);
        (*counts)[i] = e.word[i] >= 0;
    }
    encoding_free(&e);
    return failed;
}

static image picture_of(const image_set *s, size_t i) {
    size_t size = (size_t)s->width * (size_t)s->height * (size_t)s->channels;
    return (image){ .width = s->width, .height = s->height, .channels = s->channels, .pixels = s->pixels + i * size };
}

static int look_at(explain_case *c, const explain_choice *choice, const nn_model *m, const nn_examples *examples, size_t which,
                   io_error *error) {
    bool *counts = NULL;
    int failed = m->config.modality == NN_TEXT ? find_spans(c, m, &counts, error) : IO_OK;
    if (!failed) failed = explain_look_at(&c->look, m, examples, (uint32_t)which, choice->method, counts, error);
    free(counts);
    return failed;
}

static int make_room(explain_cases *c, size_t n, io_error *error) {
    c->cases = array_new(n, sizeof *c->cases);
    c->names = array_new(n, sizeof *c->names);
    return c->cases && c->names ? IO_OK : io_no_memory(error, "the examples", n * sizeof *c->cases);
}

/* ---- labelled data ---------------------------------------------------------------------------------------------------------------- */

static bool is_right(const explain_cases *c, size_t i) {
    const prediction *p = &c->answers;
    return nn_argmax(p->probabilities + i * p->classes, p->classes) == c->data.labels[i];
}

static float confidence(const prediction *p, size_t i) {
    const float *row = p->probabilities + i * p->classes;
    return row[nn_argmax(row, p->classes)];
}

static bool is_chosen(const size_t *chosen, size_t n, size_t i) {
    for (size_t k = 0; k < n; k++)
        if (chosen[k] == i) return true;
    return false;
}

/* The first right answer of a class not shown yet, else any right one not shown yet. */
static size_t next_right(const explain_cases *c, const size_t *chosen, size_t n) {
    for (int other_class = 1; other_class >= 0; other_class--)
        for (size_t i = 0; i < c->data.n; i++) {
            bool fresh = is_right(c, i) && !is_chosen(chosen, n, i);
            for (size_t k = 0; k < n && fresh && other_class; k++) fresh = c->data.labels[chosen[k]] != c->data.labels[i];
            if (fresh) return i;
        }
    return c->data.n;
}

/* The wrong answer that was given with most confidence. */
static size_t next_wrong(const explain_cases *c, const size_t *chosen, size_t n) {
    size_t best = c->data.n;
    for (size_t i = 0; i < c->data.n; i++)
        if (!is_right(c, i) && !is_chosen(chosen, n, i) &&
            (best == c->data.n || confidence(&c->answers, i) > confidence(&c->answers, best)))
            best = i;
    return best;
}

/* Half of them right answers of different classes, half the most confident mistakes. Returns how many there are. */
static size_t choose(const explain_cases *c, size_t *chosen, size_t most) {
    size_t n = 0;
    while (n < most) {
        size_t next = n < most - most / 2 ? next_right(c, chosen, n) : next_wrong(c, chosen, n);
        if (next == c->data.n) next = next_wrong(c, chosen, n);
        if (next == c->data.n) next = next_right(c, chosen, n);
        if (next == c->data.n) break;
        chosen[n++] = next;
    }
    return n;
}

static int explain_labelled(explain_cases *c, const explain_choice *choice, const nn_model *m, const attn_exec *exec,
                            io_error *error) {
    const nn_examples *examples;
    size_t most = choice->most < c->data.n ? choice->most : c->data.n;
    size_t *chosen = array_new(most, sizeof *chosen);
    int failed =
        chosen ? nn_source_examples(&c->data, m, &examples, error) : io_no_memory(error, "the choice", most * sizeof *chosen);
    if (!failed) failed = predict(&c->answers, m, examples, exec, error);
    if (!failed)
        failed = nn_evaluate(&c->figures, c->answers.probabilities, c->answers.losses, c->data.labels, c->data.n,
                             c->answers.classes, error);
    if (!failed) failed = make_room(c, most, error);
    size_t n = failed ? 0 : choose(c, chosen, most);
    for (size_t k = 0; k < n && !failed; k++) {
        size_t i = chosen[k];
        explain_case *one = &c->cases[k];
        snprintf(c->names[k], sizeof c->names[k], "example %zu", i + 1);
        one->name = c->names[k];
        one->truth = c->data.labels[i];
        if (m->config.modality == NN_TEXT) {
            one->text = c->data.texts[i];
            one->length = c->data.lengths[i];
        } else {
            one->picture = picture_of(&c->data.pictures, i);
        }
        c->n = k + 1;
        failed = look_at(one, choice, m, examples, i, error);
    }
    free(chosen);
    return failed;
}

/* ---- inputs without labels ----------------------------------------------------------------------------------------------------------- */

static int explain_inputs(explain_cases *c, const explain_choice *choice, const nn_model *m, io_error *error) {
    const nn_examples *examples;
    int failed = inputs_read(&c->in, choice->input, choice->text, m, &examples, error);
    size_t n = failed || c->in.n < choice->most ? c->in.n : choice->most;
    if (!failed) failed = make_room(c, n, error);
    for (size_t i = 0; i < n && !failed; i++) {
        explain_case *one = &c->cases[i];
        snprintf(c->names[i], sizeof c->names[i], "text %zu", i + 1);
        one->name = m->config.modality == NN_TEXT ? c->names[i] : c->in.names[i];
        one->truth = -1;
        if (m->config.modality == NN_TEXT) {
            one->text = c->in.texts[i];
            one->length = c->in.lengths[i];
        } else {
            one->picture = picture_of(&c->in.pictures, i);
        }
        c->n = i + 1;
        failed = look_at(one, choice, m, examples, i, error);
    }
    return failed;
}

/* A folder, IDX files or a table are labelled data; anything else is an input. */
static bool is_data_set(const char *input) {
    data_source where;
    if (!input || strcmp(input, "-") == 0 || (!path_is_folder(input) && !path_is_file(input))) return false;
    if (path_is_folder(input)) return true;
    if (data_find(input, DATA_TEST, &where, NULL)) return false;
    if (where.kind == DATA_IDX) return true;
    static const char *const ends[] = { ".csv", ".tsv", ".jsonl" };
    size_t n = strlen(input);
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        size_t m = strlen(ends[i]);
        if (n > m && strcmp(input + n - m, ends[i]) == 0) return true;
    }
    return false;
}

int explain_cases_find(explain_cases *c, const explain_choice *choice, const nn_model *model, const attn_exec *exec,
                       io_error *error) {
    if (!is_data_set(choice->input)) return explain_inputs(c, choice, model, error);
    nn_source_options o = { .half = DATA_TEST, .text = choice->text, .label = choice->label, .model = &model->config };
    int failed = nn_source_read(&c->data, choice->input, &o, error);
    if (failed) return failed;
    c->labelled = true;
    return explain_labelled(c, choice, model, exec, error);
}

void explain_cases_free(explain_cases *c) {
    for (size_t i = 0; i < c->n; i++) explain_case_free(&c->cases[i]);
    free(c->cases);
    free(c->names);
    nn_figures_free(&c->figures);
    prediction_free(&c->answers);
    nn_source_free(&c->data);
    inputs_free(&c->in);
}
