/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of `attn train` share: its settings, and what it tells while it works. */
#ifndef ATTN_CLI_TRAIN_H
#define ATTN_CLI_TRAIN_H

#include <signal.h>

#include "options.h"
#include "layers.h"
#include "recipe.h"
#include "text.h"

typedef struct train_settings {
    const char *data, *out, *valid, *text, *label, *log, *labels, *time;
    option_choice task, attention, pool, optimizer;
    option_integer heads, layers, dim, patch, vocab, length, batch, steps, shift;
    option_real epochs, lr, dropout, weight_decay, smoothing;
    option_seed seed;
    bool resume, no_flip, keep_case, json;
} train_settings;

/* ---- telling (train_news.c) ---------------------------------------------------------------------------------------- */

/* A line on a terminal that is written over, or a line every ten seconds elsewhere; and a log of JSON lines where one was asked for. */
typedef struct train_teller {
    bool terminal, open_line; /* a line without its end stands on the terminal */
    double last;              /* when something was shown, in seconds of the training */
    io_output log;
    bool logs;
    int64_t n_train;
} train_teller;

int train_teller_open(train_teller *t, const char *log, io_error *error);
void train_tell(void *teller, const nn_news *news);
/* Ends an open line. */
void train_teller_rest(train_teller *t);
int train_teller_close(train_teller *t, io_error *error);

/* ---- Ctrl-C: once asks for an end with the best so far, twice ends the process ----------------------------------------- */

extern volatile sig_atomic_t train_stop;
void train_catch_interrupts(void);

/* ---- the command again (train_command.c) -------------------------------------------------------------------------------- */

/* The command line that repeats this training: with --steps in place of what was said about time. */
void train_command(text *out, const train_settings *s, int64_t steps);
/* "2m", "90s", "1h", "1.5h", or a number of seconds. */
bool parse_time(const char *word, double *seconds);

#endif
