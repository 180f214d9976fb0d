/* SPDX-License-Identifier: Apache-2.0 */
/* The training loop. See train.h. */
#define _POSIX_C_SOURCE 200809L
#include "train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "array.h"
#include "checkpoint.h"
#include "evaluate.h"
#include "random.h"
#include "team.h"

/* A snapshot to go back to is taken so many steps apart; a training that had to go back more often than MOST_WAYS_BACK has diverged. */
enum { SNAPSHOT_STEPS = 100, MOST_WAYS_BACK = 5 };

const char *const nn_optimizer_names[] = { "muon", "adamw", NULL };

typedef struct training {
    nn_model *model;
    const nn_examples *train, *valid;
    const nn_train_options *options;
    nn_progress *progress;
    nn_team team;
    int64_t steps_per_epoch;
    uint32_t *order;   /* of the current epoch */
    int64_t epoch;     /* whose order that is; -1: none */
    void *best;        /* buffers of the parameters' layout */
    void *snapshot[3]; /* values, first, second */
    int64_t snapshot_step;
    float *probabilities; /* of the validation examples */
    double *losses;
    double started, saved_at; /* seconds of the clock; progress->seconds at the last checkpoint */
    double before;            /* seconds of earlier runs */
} training;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static size_t buffer_bytes(const training *t) { return t->model->parameters.size * nn_element(t->model->parameters.dtype); }

static void tell(const training *t, nn_news news) {
    news.progress = t->progress;
    news.steps_per_epoch = t->steps_per_epoch;
    if (t->options->tell) t->options->tell(t->options->context, &news);
}

static bool stopped(const training *t) { return t->options->stop && *t->options->stop; }

/* ---- the schedule ------------------------------------------------------------------------------------------------------ */

/* A straight line up, then half a cosine down to (nearly) nothing: a function of step and total alone. */
static double learning_rate(const training *t, int64_t step) {
    double total = (double)t->progress->total, warm = t->options->warm_up * total;
    double rate = t->options->rate * t->progress->rate_scale;
    if ((double)step < warm) return rate * (double)(step + 1) / (warm + 1);
    double way = ((double)step - warm) / (total - warm);
    return rate * (0.5 + 0.5 * cos(3.141592653589793 * way));
}

/* Which examples step `step` learns from: every epoch goes through all of them in an order of its own. */
static nn_batch find_batch(training *t, int64_t step) {
    int64_t epoch = step / t->steps_per_epoch, first = step % t->steps_per_epoch * t->options->batch;
    int64_t n = (int64_t)t->train->n, left = n - first;
    if (epoch != t->epoch) {
        nn_random r = nn_random_at(t->options->seed, NN_FOR_ORDER, (uint64_t)epoch, 0);
        nn_random_order(&r, t->order, (uint32_t)n);
        t->epoch = epoch;
    }
    return (nn_batch){ .examples = t->train,
                       .which = t->order + first,
                       .n = left < t->options->batch ? left : t->options->batch,
                       .seed = t->options->seed,
                       .step = (uint64_t)step,
                       .smoothing = t->options->smoothing };
}

/* How many steps fit into the time: measured on a few batches that teach nothing, so that the steps are those of a run that was asked for
 * that number. Validation takes about a third of a step's time per example. */
static int plan_by_time(training *t, io_error *error) {
    double limit = t->options->seconds, start = now(), loss, norm;
    int64_t tried = 0;
    do {
        nn_batch batch = find_batch(t, tried % t->steps_per_epoch);
        int failed = nn_team_gradient(&t->team, &batch, &loss, &norm, error);
        if (!failed) failed = nn_team_update(&t->team, &(nn_update){ .lr = 0 }, error);
        if (failed) return failed;
        tried++;
    } while (tried < 3 || (now() - start < 0.02 * limit && tried < 50));
    double each = (now() - start) / (double)tried;
    double validation = t->valid ? (double)t->valid->n / (3.0 * (double)t->train->n) : 0;
    double fit = 0.93 * (limit - (now() - start)) / (each * (1 + validation));
    t->progress->total = fit < 1 ? 1 : fit > 1e12 ? (int64_t)1e12 : (int64_t)fit;
    return IO_OK;
}

static int plan(training *t, io_error *error) {
    const nn_train_options *o = t->options;
    if (o->steps > 0)
        t->progress->total = o->steps;
    else if (o->epochs > 0)
        t->progress->total = (int64_t)ceil(o->epochs * (double)t->steps_per_epoch);
    else
        return plan_by_time(t, error);
    return IO_OK;
}

/* ---- memory and checkpoints ---------------------------------------------------------------------------------------------- */

static int open_training(training *t, const attn_exec *exec, io_error *error) {
    size_t n = t->train->n, element = nn_element(t->model->parameters.dtype), size = t->model->parameters.size;
    size_t valid = t->valid ? t->valid->n : 0, classes = (size_t)t->model->config.n_labels;
    int64_t batch = t->options->batch < (int64_t)n ? t->options->batch : (int64_t)n;
    t->steps_per_epoch = ((int64_t)n + t->options->batch - 1) / t->options->batch;
    t->epoch = -1;
    t->order = array_new(n, sizeof *t->order);
    t->best = array_new(size, element);
    for (int i = 0; i < 3; i++) t->snapshot[i] = array_new(size, element);
    t->probabilities = array_new(valid * classes, sizeof(float));
    t->losses = array_new(valid, sizeof(double));
    if (!t->order || !t->best || !t->snapshot[0] || !t->snapshot[1] || !t->snapshot[2] || !t->probabilities || !t->losses)
        return io_no_memory(error, "training", 4 * size * element + n * sizeof *t->order);
    return nn_team_open(&t->team, t->model, batch, exec, error);
}

static void close_training(training *t) {
    nn_team_close(&t->team);
    free(t->order);
    free(t->best);
    for (int i = 0; i < 3; i++) free(t->snapshot[i]);
    free(t->probabilities);
    free(t->losses);
}

static nn_checkpoint checkpoint(training *t) {
    return (nn_checkpoint){ .layout = &t->model->parameters,
                            .values = t->model->parameters.values,
                            .first = t->team.first,
                            .second = t->team.second,
                            .best = t->best,
                            .progress = t->progress,
                            .settings = t->options->settings ? t->options->settings : "" };
}

static int save(training *t, io_error *error) {
    if (!t->options->checkpoint) return IO_OK;
    nn_checkpoint c = checkpoint(t);
    int failed = nn_checkpoint_write(&c, t->options->checkpoint, error);
    t->saved_at = t->progress->seconds;
    if (!failed) tell(t, (nn_news){ .what = NN_NEWS_SAVED });
    return failed;
}

static int resume(training *t, io_error *error) {
    char build[128];
    nn_checkpoint c = checkpoint(t);
    int failed = nn_checkpoint_read(&c, t->options->checkpoint, build, sizeof build, error);
    if (failed) return failed;
    tell(t, (nn_news){ .what = NN_NEWS_RESUMED });
    if (build[0]) tell(t, (nn_news){ .what = NN_NEWS_OTHER_BUILD, .text = build });
    t->before = t->saved_at = t->progress->seconds;
    return IO_OK;
}

static void take_snapshot(training *t) {
    memcpy(t->snapshot[0], t->model->parameters.values, buffer_bytes(t));
    memcpy(t->snapshot[1], t->team.first, buffer_bytes(t));
    memcpy(t->snapshot[2], t->team.second, buffer_bytes(t));
    t->snapshot_step = t->progress->step;
}

/* ---- the loop --------------------------------------------------------------------------------------------------------------- */

/* The loss is no number: go back to the last snapshot and on with half the rate. */
static int go_back(training *t, double loss, io_error *error) {
    nn_progress *p = t->progress;
    int64_t step = p->step;
    if (++p->ways_back > MOST_WAYS_BACK)
        return io_fail(
            error, IO_DIVERGED,
            "training diverged: the loss is no number at step %lld, for the %dth time with an ever smaller learning rate; "
            "try --lr %.2g, and look at the data",
            (long long)step, MOST_WAYS_BACK + 1, t->options->rate / 100);
    memcpy(t->model->parameters.values, t->snapshot[0], buffer_bytes(t));
    memcpy(t->team.first, t->snapshot[1], buffer_bytes(t));
    memcpy(t->team.second, t->snapshot[2], buffer_bytes(t));
    p->step = t->snapshot_step;
    p->rate_scale /= 2;
    tell(t, (nn_news){ .what = NN_NEWS_WAY_BACK, .loss = loss, .rate = p->rate_scale, .step = step });
    return IO_OK;
}

static int one_step(training *t, io_error *error) {
    nn_progress *p = t->progress;
    double loss, norm, start = now();
    if (p->step % SNAPSHOT_STEPS == 0) take_snapshot(t);
    nn_batch batch = find_batch(t, p->step);
    int failed = nn_team_gradient(&t->team, &batch, &loss, &norm, error);
    if (failed) return failed;
    nn_update update = { .lr = learning_rate(t, p->step),
                         .weight_decay = t->options->weight_decay,
                         .scale = 1 / (double)batch.n,
                         .muon = t->options->optimizer == NN_MUON,
                         .step = p->step + 1 };
    bool finite = isfinite(loss) && isfinite(norm);
    if (t->options->clip > 0 && norm > t->options->clip) update.scale *= t->options->clip / norm;
    if (!finite) update.lr = 0; /* nothing is learned from this batch, but its rows of the tables are cleared */
    failed = nn_team_update(&t->team, &update, error);
    if (!failed && !finite) failed = go_back(t, loss, error);
    if (failed || !finite) return failed;
    p->step++;
    p->loss = p->step == 1 ? loss : p->loss + 0.02 * (loss - p->loss);
    p->seconds = t->before + now() - t->started;
    tell(t, (nn_news){ .what = NN_NEWS_STEP, .examples_per_second = (double)batch.n / (now() - start), .rate = update.lr });
    return IO_OK;
}

/* Measures the model as it is now, and keeps it if it is the best so far: by accuracy, then by loss. Without a validation set the last
 * is the best, and there is nothing to tell. */
static int validate(training *t, io_error *error) {
    nn_progress *p = t->progress;
    nn_news news = { .what = NN_NEWS_VALID, .best = true };
    if (t->valid) {
        int failed = nn_team_predict(&t->team, t->valid, t->probabilities, t->losses, error);
        if (failed) return failed;
        news.accuracy = nn_accuracy(t->probabilities, t->valid->labels, t->valid->n, (size_t)t->model->config.n_labels);
        for (size_t i = 0; i < t->valid->n; i++) news.loss += t->losses[i] / (double)t->valid->n;
        news.best = p->best_step < 0 || news.accuracy > p->best_accuracy ||
                    (news.accuracy == p->best_accuracy && news.loss < p->best_loss);
    }
    if (news.best) {
        memcpy(t->best, t->model->parameters.values, buffer_bytes(t));
        p->best_step = p->step;
        p->best_accuracy = news.accuracy;
        p->best_loss = news.loss;
    }
    p->seconds = t->before + now() - t->started;
    if (t->valid) tell(t, news);
    return IO_OK;
}

static int loop(training *t, io_error *error) {
    nn_progress *p = t->progress;
    const nn_train_options *o = t->options;
    int failed = IO_OK;
    bool late = false;
    take_snapshot(t);
    while (!failed && p->step < p->total && !stopped(t) && !late) {
        int64_t before = p->step;
        failed = one_step(t, error);
        if (failed || p->step <= before) continue;
        late = o->steps == 0 && o->epochs <= 0 && p->seconds > o->seconds && p->step < p->total;
        bool turn = p->step % t->steps_per_epoch == 0 || p->step == p->total;
        if (turn && !stopped(t)) failed = validate(t, error);
        if (!failed && turn && p->step < p->total && p->seconds - t->saved_at >= o->checkpoint_every) failed = save(t, error);
    }
    if (late) tell(t, (nn_news){ .what = NN_NEWS_OUT_OF_TIME });
    if (!failed && late) failed = validate(t, error);
    if (failed || !stopped(t) || p->step == p->total) return failed;
    /* Stopped by the user. The checkpoint comes first and knows nothing of the extra look below: a resumed run takes the same turns as one
     * that was never stopped. */
    failed = save(t, error);
    if (!failed && p->best_step < 0) failed = validate(t, error);
    return failed ? failed
                  : io_fail(error, IO_INTERRUPTED, "interrupted at step %lld of %lld", (long long)p->step, (long long)p->total);
}

int nn_train(nn_model *m, const nn_examples *train, const nn_examples *valid, const nn_train_options *options,
             const attn_exec *exec, nn_progress *result, io_error *error) {
    *result = (nn_progress){ .best_step = -1, .rate_scale = 1 };
    training t = { .model = m, .train = train, .valid = valid, .options = options, .progress = result, .started = now() };
    int failed = open_training(&t, exec, error);
    if (!failed) failed = options->resume ? resume(&t, error) : plan(&t, error);
    if (!failed) tell(&t, (nn_news){ .what = NN_NEWS_PLANNED });
    if (!failed) failed = loop(&t, error);
    if ((!failed || failed == IO_INTERRUPTED) && result->best_step >= 0) memcpy(m->parameters.values, t.best, buffer_bytes(&t));
    close_training(&t);
    return failed;
}
