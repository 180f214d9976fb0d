/* SPDX-License-Identifier: Apache-2.0 */
/* Explained examples on a terminal. See terminal.h. */
#include "terminal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "colour.h"

enum { MOST_BARS = 8, BAR = 24, MOST_LAYERS = 12, MOST_COLUMNS = 16 };

/* Characters that could steer a terminal, and bytes that are none, become '?'. */
static void add_safe(text *out, const char *bytes, size_t n) {
    for (size_t i = 0, length; i < n; i += length ? length : 1) {
        unsigned char c = (unsigned char)bytes[i];
        length = text_utf8_length(bytes + i, n - i);
        bool space = c == '\n' || c == '\t';
        bool control = length == 0 || c < ' ' || c == 127 || (c == 0xc2 && (unsigned char)bytes[i + 1] < 0xa0);
        if (control)
            text_add(out, space ? " " : "?");
        else
            text_add_bytes(out, bytes + i, length);
    }
}

static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

/* Tokens belong to one word while no white space separates them, or where they share a character. */
size_t explain_words(const explain_case *c, const double *shares, explain_word *words, size_t room) {
    size_t n = 0, end = 0;
    for (int32_t t = 0; t < c->look.tokens; t++) {
        size_t from = c->start[t], to = c->end[t];
        if (to > c->length) continue;
        while (from < to && is_space(c->text[from])) from++;
        if (from >= to) continue;
        bool goes_on = n > 0 && (c->start[t] < end || (from == end && c->start[t] == from));
        if (!goes_on) {
            if (n == room) break;
            words[n++] = (explain_word){ .start = from, .end = to };
        }
        words[n - 1].share += shares[t];
        if (to > words[n - 1].end) words[n - 1].end = to;
        end = to;
    }
    return n;
}

static double largest_share(const explain_word *words, size_t n) {
    double largest = 0;
    for (size_t i = 0; i < n; i++) largest = fmax(largest, words[i].share);
    return largest;
}

static void add_shaded(const explain_case *c, const explain_word *words, size_t n, text *out) {
    double largest = largest_share(words, n);
    size_t at = 0;
    text_add(out, "  ");
    for (size_t i = 0; i < n; i++) {
        colour s = colour_of_shade(largest > 0 ? words[i].share / largest : 0);
        add_safe(out, c->text + at, words[i].start - at);
        text_add(out, "\033[38;2;17;17;17;48;2;%d;%d;%dm", s.red, s.green, s.blue);
        add_safe(out, c->text + words[i].start, words[i].end - words[i].start);
        text_add(out, "\033[0m");
        at = words[i].end;
    }
    add_safe(out, c->text + at, c->length - at);
    text_add(out, "\n");
}

/* Eighths of a character, so that small differences show. */
static void add_bar(text *out, double part, bool blocks) {
    static const char *const eighths[] = { "", "\u258f", "\u258e", "\u258d", "\u258c", "\u258b", "\u258a", "\u2589" };
    int units = (int)(part * BAR * 8 + 0.5);
    for (int i = 0; i < units / 8; i++) text_add(out, blocks ? "\u2588" : "#");
    if (blocks) text_add(out, "%s", eighths[units % 8]);
}

static size_t next_largest(const explain_word *words, size_t n, const bool *taken) {
    size_t best = n;
    for (size_t i = 0; i < n; i++)
        if (!taken[i] && (best == n || words[i].share > words[best].share)) best = i;
    return best;
}

static void add_bars(const explain_case *c, const explain_word *words, size_t n, terminal_look look, text *out) {
    bool *taken = array_new(n, sizeof *taken);
    double largest = largest_share(words, n);
    for (size_t k = 0; taken && k < n && k < MOST_BARS; k++) {
        size_t i = next_largest(words, n, taken);
        taken[i] = true;
        if (words[i].share <= 0) break;
        text_add(out, "  %6.3f ", words[i].share);
        add_bar(out, words[i].share / largest, look.blocks);
        text_add(out, " ");
        add_safe(out, c->text + words[i].start, words[i].end - words[i].start);
        text_add(out, "\n");
    }
    out->failed |= !taken;
    free(taken);
}

/* A picture's patches as cells with their percentages, where they fit on a line. */
static void add_grid(const explain_case *c, const nn_config *config, terminal_look look, text *out) {
    int64_t rows = config->image_height / config->patch, columns = config->image_width / config->patch;
    const double *shares = c->look.relevance + 1;
    double largest = 0;
    if (columns > MOST_COLUMNS || rows > MOST_COLUMNS) return;
    for (int64_t i = 0; i < rows * columns; i++) largest = fmax(largest, shares[i]);
    text_add(out, "  share of each patch in %%\n");
    for (int64_t i = 0; i < rows * columns; i++) {
        colour s = colour_of(largest > 0 ? shares[i] / largest : 0);
        int ink = colour_is_dark(s) ? 238 : 17;
        if (i % columns == 0) text_add(out, "  ");
        if (look.colour) text_add(out, "\033[38;2;%d;%d;%d;48;2;%d;%d;%dm", ink, ink, ink, s.red, s.green, s.blue);
        text_add(out, "%5.1f ", 100 * shares[i]);
        if (look.colour) text_add(out, "\033[0m");
        if (i % columns == columns - 1) text_add(out, "\n");
    }
}

/* Layer by layer: each head's spread, and in the last layer of a text the word it looks at most. */
static void add_heads(const explain_case *c, const nn_config *config, explain_word *words, size_t room, text *out) {
    const explain_look *l = &c->look;
    int32_t first = l->layers > MOST_LAYERS ? l->layers - MOST_LAYERS : 0;
    text_add(out, "  spread of each head (0 one token, 1 all alike)\n");
    for (int32_t i = first; i < l->layers; i++) {
        text_add(out, "  layer %d ", (int)i + 1);
        for (int32_t h = 0; h < l->heads; h++) {
            text_add(out, "  %.2f", explain_spread(l, i, h));
            if (i + 1 < l->layers || config->modality != NN_TEXT) continue;
            size_t n = explain_words(c, l->head_relevance + (int64_t)h * l->tokens, words, room), best = 0;
            for (size_t w = 1; w < n; w++)
                if (words[w].share > words[best].share) best = w;
            if (n == 0 || words[best].share <= 0) continue;
            text_add(out, " ");
            add_safe(out, c->text + words[best].start, words[best].end - words[best].start);
        }
        text_add(out, "\n");
    }
}

static void add_answer(const explain_case *c, const nn_config *config, int32_t method, text *out) {
    const explain_look *l = &c->look;
    add_safe(out, config->labels[l->label], strlen(config->labels[l->label]));
    text_add(out, " %.3f", (double)l->probabilities[l->label]);
    if (l->runner_up != l->label) {
        text_add(out, "   next ");
        add_safe(out, config->labels[l->runner_up], strlen(config->labels[l->runner_up]));
        text_add(out, " %.3f", (double)l->probabilities[l->runner_up]);
    }
    if (c->truth >= 0) {
        text_add(out, c->truth == l->label ? "   right" : "   wrong, it is ");
        if (c->truth != l->label) add_safe(out, config->labels[c->truth], strlen(config->labels[c->truth]));
    }
    text_add(out, "   (%s)\n", explain_method_names[method]);
}

void terminal_case(const explain_case *c, const nn_config *config, int32_t method, terminal_look look, text *out) {
    size_t room = (size_t)c->look.tokens, n = 0;
    explain_word *words = array_new(room, sizeof *words);
    if (!words) {
        out->failed = true;
        return;
    }
    add_answer(c, config, method, out);
    if (config->modality == NN_TEXT) {
        n = explain_words(c, c->look.relevance, words, room);
        if (look.colour) add_shaded(c, words, n, out);
        add_bars(c, words, n, look, out);
    } else {
        add_grid(c, config, look, out);
    }
    add_heads(c, config, words, room, out);
    free(words);
}
