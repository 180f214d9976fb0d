/* SPDX-License-Identifier: Apache-2.0 */
/* The command that repeats a training, for the model card; and times as people write them. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train.h"

bool parse_time(const char *word, double *seconds) {
    char number[32];
    size_t n = strlen(word);
    double unit = 1;
    if (n == 0 || n >= sizeof number) return false;
    memcpy(number, word, n + 1);
    if (number[n - 1] == 's' || number[n - 1] == 'm' || number[n - 1] == 'h') {
        unit = number[n - 1] == 's' ? 1 : number[n - 1] == 'm' ? 60 : 3600;
        number[n - 1] = 0;
    }
    if (!parse_real(number, seconds)) return false;
    *seconds *= unit;
    return *seconds > 0 && *seconds <= 1e9;
}

static bool plain(const char *word) {
    for (const char *c = word; *c; c++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=,+", *c)) return false;
    return *word != 0;
}

/* As a shell reads it. */
static void add_word(text *out, const char *word) {
    if (plain(word)) {
        text_add(out, "%s", word);
        return;
    }
    text_add(out, "'");
    for (const char *c = word; *c; c++) text_add(out, *c == '\'' ? "'\\''" : "%c", *c);
    text_add(out, "'");
}

static void add_text(text *out, const char *name, const char *value) {
    if (!value) return;
    text_add(out, " --%s ", name);
    add_word(out, value);
}

static void add_integer(text *out, const char *name, const option_integer *o) {
    if (o->given) text_add(out, " --%s %lld", name, (long long)o->value);
}

static void add_real(text *out, const char *name, const option_real *o) {
    if (o->given) text_add(out, " --%s %.17g", name, o->value);
}

void train_command(text *out, const train_settings *s, int64_t steps) {
    static const char *const pools[] = { "first", "attention" };
    text_add(out, "attn train ");
    add_word(out, s->data);
    text_add(out, " -o ");
    add_word(out, s->out);
    add_text(out, "valid", s->valid);
    add_text(out, "text", s->text);
    add_text(out, "label", s->label);
    add_text(out, "labels", s->labels);
    if (s->attention.given) text_add(out, " --attention %s", nn_attention_names[s->attention.value]);
    if (s->pool.given) text_add(out, " --pool %s", pools[s->pool.value]);
    add_integer(out, "heads", &s->heads);
    add_integer(out, "layers", &s->layers);
    add_integer(out, "dim", &s->dim);
    add_integer(out, "patch", &s->patch);
    add_integer(out, "vocab", &s->vocab);
    add_integer(out, "length", &s->length);
    add_integer(out, "batch", &s->batch);
    add_integer(out, "shift", &s->shift);
    if (s->optimizer.given) text_add(out, " --optimizer %s", nn_optimizer_names[s->optimizer.value]);
    add_real(out, "lr", &s->lr);
    add_real(out, "dropout", &s->dropout);
    add_real(out, "weight-decay", &s->weight_decay);
    add_real(out, "smoothing", &s->smoothing);
    if (s->no_flip) text_add(out, " --no-flip");
    if (s->keep_case) text_add(out, " --keep-case");
    text_add(out, " --steps %lld --seed %llu", (long long)steps, (unsigned long long)(s->seed.given ? s->seed.value : 1));
}
