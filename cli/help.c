/* SPDX-License-Identifier: Apache-2.0 */
/* A verb's --help, printed from the table that parses its options, so that the two cannot disagree. See options.h. */
#include "options.h"

#include <stdio.h>
#include <string.h>

/* Lines end before this column; the texts of options start at that one. */
enum { WIDTH = 96, TEXT_COLUMN = 30 };

/* Appends the words of `words`, starting at `column`, wrapped to lines that are indented by `indent`; ends the line. */
static void wrap(text *out, const char *words, int column, int indent) {
    while (*words) {
        int length = (int)strcspn(words, " ");
        if (column > indent && column + 1 + length > WIDTH) {
            text_add(out, "\n%*s", indent, "");
            column = indent;
        } else if (column > indent) {
            text_add(out, " ");
            column++;
        }
        text_add_bytes(out, words, (size_t)length);
        column += length;
        words += length;
        words += strspn(words, " ");
    }
    text_add(out, "\n");
}

/* "--causal[=bottom-right|top-left]", "-o, --out FILE", ... */
static void synopsis(text *out, const option *o) {
    if (o->letter) text_add(out, "-%c, ", o->letter);
    text_add(out, "--%s", o->name);
    if (o->kind == OPTION_CHOICE) {
        text_add(out, o->bare ? "[=" : " ");
        for (size_t i = 0; o->choices[i]; i++) text_add(out, "%s%s", i ? "|" : "", o->choices[i]);
        if (o->bare) text_add(out, "]");
    } else if (o->value) {
        text_add(out, " %s", o->value);
    }
}

static void describe(text *out, const option *o) {
    if (o->kind == OPTION_HEADING) {
        text_add(out, "\n%s\n", o->name);
        return;
    }
    size_t start = out->length;
    text_add(out, "  ");
    if (o->kind == OPTION_ARGUMENT || o->kind == OPTION_WORDS)
        text_add(out, "%s", o->name);
    else
        synopsis(out, o);
    int column = (int)(out->length - start);
    if (column + 2 > TEXT_COLUMN) {
        text_add(out, "\n");
        column = 0;
    }
    text_add(out, "%*s", TEXT_COLUMN - column, "");
    wrap(out, o->help, TEXT_COLUMN, TEXT_COLUMN);
}

void options_help(const command *c, text *out) {
    static const option common[] = {
        { .name = "For every verb", .kind = OPTION_HEADING },
        { "threads", OPTION_INTEGER, .letter = 't', .value = "N",
          .help = "threads to compute with (default: the cores this process may use)" },
        { "help", OPTION_FLAG, .letter = 'h', .help = "this text" },
    };
    text_add(out, "Usage: attn %s", c->name);
    for (const option *o = c->options; o->kind; o++) {
        if (o->kind == OPTION_WORDS)
            text_add(out, " [%s ...]", o->name);
        else if (o->kind == OPTION_ARGUMENT)
            text_add(out, o->required ? " %s" : " [%s]", o->name);
        else if (o->required)
            text_add(out, " --%s %s", o->name, o->value);
    }
    text_add(out, " [options]\n\n");
    wrap(out, c->about, 0, 0);
    if (c->options[0].kind && c->options[0].kind != OPTION_HEADING) text_add(out, "\n");
    for (const option *o = c->options; o->kind; o++) describe(out, o);
    for (size_t i = 0; i < sizeof common / sizeof common[0]; i++) describe(out, &common[i]);
    if (c->examples) text_add(out, "\nExamples\n%s", c->examples);
}
