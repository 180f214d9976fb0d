/* SPDX-License-Identifier: Apache-2.0 */
/* The report's sections about the model and the data; report_cases.c has those about examples. */
#include "report.h"

#include <math.h>
#include <stdlib.h>

#include "html.h"
#include "layers.h"
#include "report_cases.h"

enum { MOST_CONFUSION = 24, BINS = 10, MOST_LISTED = 60, MOST_MISTAKES = 12 };

static double share_of(int64_t part, int64_t whole) { return whole > 0 ? (double)part / (double)whole : 0; }

static void add_number(text *out, double x) {
    if (isfinite(x))
        text_add(out, "<td>%.3f</td>", x);
    else
        text_add(out, "<td>-</td>");
}

/* ---- the card --------------------------------------------------------------------------------------------------------------- */

static void card_row(text *out, const char *what, const char *value) {
    text_add(out, "<tr><th>%s</th><td>", what);
    html_add_string(out, value);
    text_add(out, "</td></tr>\n");
}

static void add_card(const explain_report *r, text *out) {
    const nn_config *c = &r->model->config;
    text line = { 0 };
    text_add(out, "<h1>What the model looked at</h1>\n<table class=\"card\">\n");
    card_row(out, "model", r->folder);
    card_row(out, "data", r->data);
    text_add(&line, "%s, %d classes; layers: %d, heads in each: %d, attention: %s%s; %lld parameters", nn_config_task(c),
             (int)c->n_labels, (int)c->layers, (int)c->heads, nn_attention_names[c->attention],
             c->attention_pool ? ", pooled by attention" : "", (long long)nn_parameters_count(&r->model->parameters));
    if (line.data) card_row(out, "what it is", line.data);
    line.length = 0;
    if (r->figures) {
        text_add(&line, "%.2f %% of %zu examples (95 %% interval %.2f to %.2f), macro-F1 %.4f, calibration error %.4f",
                 100 * r->figures->accuracy, r->figures->n, 100 * r->figures->low, 100 * r->figures->high, r->figures->macro_f1,
                 r->figures->ece);
        if (line.data) card_row(out, "accuracy", line.data);
        line.length = 0;
    }
    text_add(&line, "attn explain %s %s --method %s --examples %zu -o report.html", r->folder, r->data,
             explain_method_names[r->method], r->n_cases);
    text_add(out, "<tr><th>made by</th><td><code>");
    if (line.data) html_add_string(out, line.data);
    text_add(out, "</code></td></tr>\n</table>\n");
    out->failed |= line.failed;
    text_free(&line);
}

/* ---- figures on labelled data -------------------------------------------------------------------------------------------------- */

static void add_classes(const explain_report *r, text *out) {
    const nn_figures *f = r->figures;
    text_add(out,
             "<h2>Class by class</h2>\n<div class=\"wide\"><table><tr><th>class</th><th>precision</th><th>recall</th><th>F1</th>"
             "<th>examples</th></tr>\n");
    for (size_t i = 0; i < f->classes && i < MOST_LISTED; i++) {
        text_add(out, "<tr><td class=\"name\">");
        html_add_string(out, r->model->config.labels[i]);
        text_add(out, "</td>");
        add_number(out, f->per_class[i].precision);
        add_number(out, f->per_class[i].recall);
        add_number(out, f->per_class[i].f1);
        text_add(out, "<td>%lld</td></tr>\n", (long long)f->per_class[i].support);
    }
    text_add(out, "</table></div>\n");
    if (f->classes > MOST_LISTED) text_add(out, "<p class=\"small\">The first %d of %zu classes.</p>\n", MOST_LISTED, f->classes);
}

/* The largest cells off the diagonal, where the whole table would not fit on the page. */
static void add_mistakes(const explain_report *r, text *out) {
    const nn_figures *f = r->figures;
    size_t cells = f->classes * f->classes, last = cells;
    text_add(out, "<h2>What is taken for what</h2>\n<table><tr><th>is</th><th>taken for</th><th>times</th><th>of</th></tr>\n");
    for (int k = 0; k < MOST_MISTAKES; k++) {
        size_t best = cells;
        for (size_t i = 0; i < cells; i++) {
            bool later =
                last == cells || f->confusion[i] < f->confusion[last] || (f->confusion[i] == f->confusion[last] && i > last);
            if (i / f->classes == i % f->classes || !later || f->confusion[i] == 0) continue;
            if (best == cells || f->confusion[i] > f->confusion[best]) best = i;
        }
        if (best == cells) break;
        last = best;
        text_add(out, "<tr><td class=\"name\">");
        html_add_string(out, r->model->config.labels[best / f->classes]);
        text_add(out, "</td><td class=\"name\">");
        html_add_string(out, r->model->config.labels[best % f->classes]);
        text_add(out, "</td><td>%lld</td><td>%lld</td></tr>\n", (long long)f->confusion[best],
                 (long long)f->per_class[best / f->classes].support);
    }
    text_add(out, "</table>\n");
}

static void add_confusion(const explain_report *r, text *out) {
    const nn_figures *f = r->figures;
    if (f->classes > MOST_CONFUSION) {
        add_mistakes(r, out);
        return;
    }
    text_add(out,
             "<h2>What is taken for what</h2>\n<p>A row is a true class, a column the answer; the colour is the share of the row."
             "</p>\n<div class=\"wide\"><table><tr><th></th>");
    for (size_t k = 0; k < f->classes; k++) {
        text_add(out, "<th>");
        html_add_string(out, r->model->config.labels[k]);
        text_add(out, "</th>");
    }
    text_add(out, "</tr>\n");
    for (size_t i = 0; i < f->classes; i++) {
        text_add(out, "<tr><td class=\"name\">");
        html_add_string(out, r->model->config.labels[i]);
        text_add(out, "</td>");
        for (size_t k = 0; k < f->classes; k++) {
            int64_t count = f->confusion[i * f->classes + k];
            text_add(out, "<td style=\"");
            html_style(out, colour_of_shade(share_of(count, f->per_class[i].support)));
            text_add(out, "\">%lld</td>", (long long)count);
        }
        text_add(out, "</tr>\n");
    }
    text_add(out, "</table></div>\n");
}

/* Confidence against being right, in bins: bars that should reach the diagonal. */
static void add_reliability(const explain_report *r, text *out) {
    const nn_figures *f = r->figures;
    int64_t count[BINS] = { 0 }, right[BINS] = { 0 };
    for (size_t i = 0; i < f->n; i++) {
        const float *p = r->probabilities + i * f->classes;
        int32_t best = nn_argmax(p, f->classes);
        int bin = (int)((double)p[best] * BINS);
        bin = bin < 0 ? 0 : bin >= BINS ? BINS - 1 : bin;
        count[bin]++;
        right[bin] += best == r->labels[i];
    }
    text_add(out,
             "<h2>Can its confidence be believed?</h2>\n<p>Answers by their probability: each bar is the share that was right, "
             "its strength how many there are. Where bars end at the line, a probability of 80 %% means right four times in "
             "five.</p>\n<svg width=\"340\" height=\"250\" viewBox=\"0 0 340 250\" role=\"img\" aria-label=\"reliability\">\n"
             "<line x1=\"40\" y1=\"210\" x2=\"330\" y2=\"210\" stroke=\"#999\"/><line x1=\"40\" y1=\"210\" x2=\"40\" y2=\"10\" "
             "stroke=\"#999\"/>\n");
    for (int b = 0; b < BINS; b++) {
        if (!count[b]) continue;
        double height = 200 * share_of(right[b], count[b]), strength = 0.25 + 0.75 * sqrt(share_of(count[b], (int64_t)f->n));
        text_add(
            out,
            "<rect x=\"%d\" y=\"%.1f\" width=\"26\" height=\"%.1f\" fill=\"#e6762a\" fill-opacity=\"%.2f\"><title>%lld answers, "
            "%.1f %% right</title></rect>\n",
            42 + 29 * b, 210 - height, height, strength, (long long)count[b], 100 * share_of(right[b], count[b]));
    }
    text_add(out, "<line x1=\"40\" y1=\"210\" x2=\"330\" y2=\"10\" stroke=\"#333\" stroke-dasharray=\"4 3\"/>\n"
                  "<g font-size=\"11\" fill=\"#555\"><text x=\"40\" y=\"226\">0</text><text x=\"318\" y=\"226\">1</text>"
                  "<text x=\"150\" y=\"243\">probability</text><text x=\"28\" y=\"214\">0</text><text x=\"28\" y=\"18\">1</text>"
                  "<text x=\"0\" y=\"110\">right</text></g>\n</svg>\n");
}

/* ---- the whole ------------------------------------------------------------------------------------------------------------------- */

static void add_meaning(const explain_report *r, text *out) {
    static const char *const meanings[] = {
        "The shares are weights, averaged over heads: those by which the last layer mixed the row that the classifier reads, or "
        "those of the pool where the model pools by attention.",
        "The shares follow the weights through all layers (attention rollout): each layer passes on half of what it has, and "
        "half of "
        "what it looks at.",
        "The shares are weights times the gradient of the answer's logit minus the runner-up's, added up through the layers: "
        "what "
        "speaks for this answer and not for the next one.",
    };
    text_add(out,
             "<h2>How to read this</h2>\n<p>%s They sum to 1 over the tokens of the input.</p>\n"
             "<p>Spread is a head's mean entropy over that of equal weights: 0 looks at one token, 1 at all alike.</p>\n"
             "<p>Weights say what was looked at, not why: a token may be looked at and change nothing. Shares of the gradient "
             "method are closer to what changed the answer, and still no proof of it.</p>\n",
             meanings[r->method]);
}

int explain_report_html(const explain_report *r, text *out, io_error *error) {
    html_begin(out, "attn: what the model looked at");
    add_card(r, out);
    int failed = explain_report_cases(r, out, error);
    if (failed) return failed;
    if (r->figures) {
        add_confusion(r, out);
        add_classes(r, out);
        add_reliability(r, out);
    }
    add_meaning(r, out);
    html_end(out);
    return out->failed ? io_no_memory(error, "the report", out->capacity) : IO_OK;
}
