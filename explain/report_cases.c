/* SPDX-License-Identifier: Apache-2.0 */
/* Examples with what was looked at: pictures under heat, words on shades, each head's spread. */
#include "report_cases.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "array.h"
#include "heatmap.h"
#include "html.h"

enum { PANEL = 140, ACROSS = 6, GAP = 8 };

void explain_case_free(explain_case *c) {
    explain_look_free(&c->look);
    free(c->start);
    free(c->end);
    *c = (explain_case){ 0 };
}

/* ---- pictures ----------------------------------------------------------------------------------------------------------------- */

static heat_grid grid_of(const nn_config *c, const double *relevance) {
    return (heat_grid){ .weights = relevance + 1, /* behind the learned first token */
                        .rows = (int32_t)(c->image_height / c->patch),
                        .cols = (int32_t)(c->image_width / c->patch) };
}

/* About PANEL pixels high, by a whole factor where the picture is small. */
static void panel_size(const image *picture, int32_t *width, int32_t *height) {
    int32_t factor = PANEL / picture->height;
    *height = factor >= 1 ? factor * picture->height : PANEL;
    *width = factor >= 1 ? factor * picture->width : (int32_t)((int64_t)PANEL * picture->width / picture->height);
    if (*width < 1) *width = 1;
}

/* Panel 0 is the picture, 1 the shares of all heads, then one head of the last layer each. */
static int panel(const explain_case *c, const nn_config *config, int32_t number, image *out, io_error *error) {
    int32_t width, height;
    panel_size(&c->picture, &width, &height);
    if (number == 0) return heat_enlarge(&c->picture, width, height, out, error);
    const double *shares = number == 1 ? c->look.relevance : c->look.head_relevance + (int64_t)(number - 2) * c->look.tokens;
    return heat_overlay(&c->picture, grid_of(config, shares), width, height, out, error);
}

int explain_case_sheet(const explain_case *c, const nn_config *config, image *out, io_error *error) {
    int32_t n = 2 + c->look.heads;
    image *panels = array_new((size_t)n, sizeof *panels);
    int failed = panels ? IO_OK : io_no_memory(error, "the panels", (size_t)n * sizeof *panels);
    for (int32_t i = 0; i < n && !failed; i++) failed = panel(c, config, i, &panels[i], error);
    if (!failed) failed = heat_sheet(panels, n, ACROSS, GAP, out, error);
    for (int32_t i = 0; panels && i < n; i++) image_free(&panels[i]);
    free(panels);
    return failed;
}

static int add_pictures(const explain_case *c, const nn_config *config, text *out, io_error *error) {
    int failed = IO_OK;
    for (int32_t i = 0; i < 2 + c->look.heads && !failed; i++) {
        char caption[64];
        image picture = { 0 };
        if (i < 2)
            snprintf(caption, sizeof caption, "%s", i == 0 ? "seen" : "looked at");
        else
            snprintf(caption, sizeof caption, "head %d, spread %.2f", i - 1, explain_spread(&c->look, c->look.layers - 1, i - 2));
        failed = panel(c, config, i, &picture, error);
        if (!failed) failed = html_figure(out, &picture, caption, error);
        image_free(&picture);
    }
    return failed;
}

/* ---- words -------------------------------------------------------------------------------------------------------------------- */

/* The text with each token on its shade, the space before it left white, as are bytes that no token stands for. */
static void add_words(const explain_case *c, const double *shares, text *out) {
    double largest = 0;
    size_t at = 0;
    for (int32_t t = 0; t < c->look.tokens; t++) largest = fmax(largest, shares[t]);
    text_add(out, "<p class=\"words\">");
    for (int32_t t = 0; t < c->look.tokens; t++) {
        size_t from = c->start[t], to = c->end[t];
        if (to <= from || from < at || to > c->length) continue; /* the template's */
        double share = shares[t];
        while (t + 1 < c->look.tokens && c->end[t + 1] > c->start[t + 1] && c->start[t + 1] < to) {
            share += shares[++t]; /* of the same character */
            if (c->end[t] > to && c->end[t] <= c->length) to = c->end[t];
        }
        while (from < to && c->text[from] == ' ') from++;
        html_add(out, c->text + at, from - at);
        text_add(out, "<span title=\"%.3f\" style=\"", share);
        html_style(out, colour_of_shade(largest > 0 ? share / largest : 0));
        text_add(out, "\">");
        html_add(out, c->text + from, to - from);
        text_add(out, "</span>");
        at = to;
    }
    html_add(out, c->text + at, c->length - at);
    text_add(out, "</p>\n");
}

static void add_text_case(const explain_case *c, text *out) {
    add_words(c, c->look.relevance, out);
    text_add(out, "<details><summary>head by head (last layer)</summary>\n");
    for (int32_t h = 0; h < c->look.heads; h++) {
        text_add(out, "<p class=\"small\">head %d, spread %.2f</p>\n", h + 1, explain_spread(&c->look, c->look.layers - 1, h));
        add_words(c, c->look.head_relevance + (int64_t)h * c->look.tokens, out);
    }
    text_add(out, "</details>\n");
}

/* ---- one example, and all ------------------------------------------------------------------------------------------------------- */

static void add_answer(const explain_case *c, const nn_config *config, text *out) {
    const explain_look *l = &c->look;
    text_add(out, "<h3>");
    html_add_string(out, c->name);
    text_add(out, ": ");
    html_add_string(out, config->labels[l->label]);
    text_add(out, ", %.1f %%", 100 * (double)l->probabilities[l->label]);
    if (c->truth == l->label) text_add(out, " <span class=\"right\">right</span>");
    if (c->truth >= 0 && c->truth != l->label) {
        text_add(out, " <span class=\"wrong\">wrong: it is ");
        html_add_string(out, config->labels[c->truth]);
        text_add(out, "</span>");
    }
    text_add(out, "</h3>\n");
    if (l->runner_up == l->label) return;
    text_add(out, "<p class=\"small\">next: ");
    html_add_string(out, config->labels[l->runner_up]);
    text_add(out, ", %.1f %%</p>\n", 100 * (double)l->probabilities[l->runner_up]);
}

/* Mean over the examples: which layers and heads look at few tokens, which at all. */
static void add_spreads(const explain_report *r, text *out) {
    const explain_look *first = &r->cases[0].look;
    text_add(out, "<h2>Spread of each head</h2>\n<p>The mean over the examples above.</p>\n<table><tr><th>layer</th>");
    for (int32_t h = 0; h < first->heads; h++) text_add(out, "<th>head %d</th>", h + 1);
    text_add(out, "</tr>\n");
    for (int32_t i = 0; i < first->layers; i++) {
        text_add(out, "<tr><td class=\"name\">%d</td>", i + 1);
        for (int32_t h = 0; h < first->heads; h++) {
            double sum = 0;
            for (size_t c = 0; c < r->n_cases; c++) sum += explain_spread(&r->cases[c].look, i, h);
            text_add(out, "<td style=\"");
            html_style(out, colour_of_shade(1 - sum / (double)r->n_cases));
            text_add(out, "\">%.2f</td>", sum / (double)r->n_cases);
        }
        text_add(out, "</tr>\n");
    }
    text_add(out, "</table>\n");
}

/* The colours from no share to the largest of an example. */
static void add_legend(const nn_config *config, text *out) {
    text_add(out, "<p class=\"small\">share: 0 <span class=\"legend\" style=\"background:linear-gradient(to right");
    for (int i = 0; i <= 12; i++) {
        colour c = config->modality == NN_IMAGE ? colour_of(i / 12.0) : colour_of_shade(i / 12.0);
        text_add(out, ",#%02x%02x%02x", c.red, c.green, c.blue);
    }
    text_add(out, ")\"></span> the largest of the example</p>\n");
}

int explain_report_cases(const explain_report *r, text *out, io_error *error) {
    const nn_config *config = &r->model->config;
    int failed = IO_OK;
    if (r->n_cases == 0) return IO_OK;
    text_add(out, "<h2>Examples</h2>\n");
    add_legend(config, out);
    for (size_t i = 0; i < r->n_cases && !failed; i++) {
        add_answer(&r->cases[i], config, out);
        if (config->modality == NN_IMAGE)
            failed = add_pictures(&r->cases[i], config, out, error);
        else
            add_text_case(&r->cases[i], out);
    }
    if (!failed) add_spreads(r, out);
    return failed;
}
