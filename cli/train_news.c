/* SPDX-License-Identifier: Apache-2.0 */
/* What `attn train` says on stderr while it works, and in its log. */
#define _POSIX_C_SOURCE 200809L
#include "train.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "message.h"

enum { SECONDS_BETWEEN_LINES = 10 };

volatile sig_atomic_t train_stop;

/* write() and _exit() are among the few calls that a signal handler may make. */
static void interrupted(int signal) {
    static const char first[] = "\nattn: finishing with the best so far; Ctrl-C again ends at once\n";
    (void)signal;
    if (train_stop) _exit(IO_INTERRUPTED);
    train_stop = 1;
    if (write(STDERR_FILENO, first, sizeof first - 1) < 0) return;
}

void train_catch_interrupts(void) {
    struct sigaction action = { .sa_handler = interrupted, .sa_flags = SA_RESTART };
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

int train_teller_open(train_teller *t, const char *log, io_error *error) {
    const char *kind = getenv("TERM");
    *t = (train_teller){ .terminal = isatty(STDERR_FILENO) && !(kind && strcmp(kind, "dumb") == 0),
                         .last = 0,
                         .logs = log != NULL };
    return log ? io_output_open(&t->log, log, error) : IO_OK;
}

void train_teller_rest(train_teller *t) {
    if (t->open_line) fputc('\n', stderr);
    t->open_line = false;
}

int train_teller_close(train_teller *t, io_error *error) {
    train_teller_rest(t);
    if (!t->logs) return IO_OK;
    int failed = io_output_sync(&t->log, error);
    if (!failed) failed = io_output_commit(&t->log, error);
    io_output_discard(&t->log);
    return failed;
}

static void show_step(train_teller *t, const nn_news *news) {
    const nn_progress *p = news->progress;
    double every = t->terminal ? 0.2 : SECONDS_BETWEEN_LINES;
    if (p->seconds - t->last < every) return;
    t->last = p->seconds;
    double left = p->seconds / (double)p->step * (double)(p->total - p->step);
    fprintf(stderr, "%sepoch %.1f/%.1f  step %lld/%lld  loss %.4f  %.0f examples/s  %d:%02d left%s", t->terminal ? "\r" : "",
            (double)p->step / (double)news->steps_per_epoch, (double)p->total / (double)news->steps_per_epoch, (long long)p->step,
            (long long)p->total, p->loss,
            (double)p->step / fmax(p->seconds, 1e-9) * (double)t->n_train / (double)news->steps_per_epoch, (int)(left / 60),
            (int)fmod(left, 60), t->terminal ? "\033[K" : "\n");
    t->open_line = t->terminal;
    fflush(stderr);
}

static void show(train_teller *t, const nn_news *news) {
    const nn_progress *p = news->progress;
    train_teller_rest(t);
    switch (news->what) {
    case NN_NEWS_PLANNED:
        note("%lld steps: %.1f passes over %lld examples", (long long)p->total, (double)p->total / (double)news->steps_per_epoch,
             (long long)t->n_train);
        break;
    case NN_NEWS_RESUMED: note("resumed at step %lld of %lld", (long long)p->step, (long long)p->total); break;
    case NN_NEWS_OTHER_BUILD:
        note("the checkpoint was made by another build or instruction set (%s): the result will differ in its last bits",
             news->text);
        break;
    case NN_NEWS_VALID:
        note("step %lld: validation accuracy %.2f %%, loss %.4f%s (%.0f s)", (long long)p->step, 100 * news->accuracy, news->loss,
             news->best ? ", the best so far" : "", p->seconds);
        break;
    case NN_NEWS_WAY_BACK:
        note("the loss became %g at step %lld: back to step %lld with %g times the learning rate (way back %lld of 5)",
             news->loss, (long long)news->step, (long long)p->step, news->rate, (long long)p->ways_back);
        break;
    case NN_NEWS_OUT_OF_TIME:
        note("the time is over at step %lld of %lld: the machine was slower than measured at the start", (long long)p->step,
             (long long)p->total);
        break;
    default: break;
    }
}

static void log_news(train_teller *t, const nn_news *news) {
    static const char *const names[] = {
        "step", "planned", "resumed", "other-build", "valid", "way-back", "saved", "out-of-time"
    };
    const nn_progress *p = news->progress;
    char line[512];
    io_error ignored; /* a log that cannot be written is noticed when it is closed */
    int length = snprintf(
        line, sizeof line, "{\"event\": \"%s\", \"step\": %lld, \"total\": %lld, \"seconds\": %.3f, \"train_loss\": %.6g",
        names[news->what], (long long)p->step, (long long)p->total, p->seconds, isfinite(p->loss) ? p->loss : 0);
    if (news->what == NN_NEWS_STEP) length += snprintf(line + length, sizeof line - (size_t)length, ", \"lr\": %.6g", news->rate);
    if (news->what == NN_NEWS_VALID)
        length += snprintf(line + length, sizeof line - (size_t)length, ", \"accuracy\": %.6g, \"loss\": %.6g, \"best\": %s",
                           news->accuracy, news->loss, news->best ? "true" : "false");
    length += snprintf(line + length, sizeof line - (size_t)length, "}\n");
    io_output_write(&t->log, line, (size_t)length, &ignored);
}

void train_tell(void *teller, const nn_news *news) {
    train_teller *t = teller;
    if (news->what == NN_NEWS_STEP)
        show_step(t, news);
    else
        show(t, news);
    if (t->logs && (news->what != NN_NEWS_STEP || news->progress->step % 10 == 0)) log_news(t, news);
}
