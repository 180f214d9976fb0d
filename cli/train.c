/* SPDX-License-Identifier: Apache-2.0 */
/* attn train: labelled data in, a model folder out. */
#define _POSIX_C_SOURCE 200809L
#include "train.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "array.h"
#include "card.h"
#include "commands.h"
#include "message.h"
#include "path.h"
#include "predict.h"
#include "print.h"

static const double VALIDATION_SHARE = 0.1;
enum { MOST_VALIDATION = 3000 };

/* Pictures that are seen fewer times than this need no moving: it would only slow the learning down. */
static const double MANY_PASSES = 20;

/* Everything that is opened on the way, closed in one place. */
typedef struct job {
    const train_settings *s;
    const attn_exec *exec;
    nn_source data, other; /* other: --valid */
    uint32_t *train, *valid;
    size_t n_train, n_valid;
    int32_t *train_labels, *valid_labels;
    nn_subset train_set, valid_set;
    const nn_examples *validation; /* NULL: none */
    nn_model model;
    nn_train_options options;
    nn_progress progress;
    train_teller teller;
    text settings;
    char validation_text[256], checkpoint[4096];
} job;

static uint64_t seed_of(const train_settings *s) { return s->seed.given ? s->seed.value : 1; }

static nn_recipe recipe_of(const train_settings *s) {
    return (nn_recipe){ .attention = s->attention.value,
                        .layers = (int32_t)s->layers.value,
                        .heads = (int32_t)s->heads.value,
                        .width = s->dim.value,
                        .patch = s->patch.value,
                        .vocabulary = s->vocab.value,
                        .length = s->length.value,
                        .keep_case = s->keep_case,
                        .attention_pool = s->pool.value == 1,
                        .dropout = s->dropout.given ? s->dropout.value : -1,
                        .seed = seed_of(s) };
}

/* ---- data ---------------------------------------------------------------------------------------------------------------- */

/* Pictures whose sides patches do not divide are read again at the nearest size that they do. */
static int read_data(job *j, io_error *error) {
    const train_settings *s = j->s;
    nn_source_options o = { .half = DATA_TRAIN, .text = s->text, .label = s->label };
    nn_recipe recipe = recipe_of(s);
    int failed = nn_source_read(&j->data, s->data, &o, error);
    if (failed) return failed;
    bool texts = j->data.modality == NN_TEXT;
    if (s->task.given && (s->task.value == 0) != texts)
        return io_fail(error, IO_BAD_USAGE, "--task %s does not fit %s, which holds %s",
                       s->task.value ? "image:class" : "text:class", s->data, texts ? "texts" : "pictures");
    if (!texts) {
        nn_recipe_size(&recipe, &j->data.pictures, &o.width, &o.height);
        if (o.width != j->data.pictures.width || o.height != j->data.pictures.height) {
            note("pictures are resized from %dx%d to %dx%d, so that patches fit", j->data.pictures.width, j->data.pictures.height,
                 o.width, o.height);
            nn_source_free(&j->data);
            failed = nn_source_read(&j->data, s->data, &o, error);
            if (failed) return failed;
        }
    }
    note("%s: %s", j->data.where.path, j->data.summary);
    if (j->data.n_labels < 2)
        return io_fail(error, IO_BAD_DATA, "%s: all examples have the label '%s'; at least two classes are needed to learn from",
                       s->data, j->data.n_labels ? j->data.label_names[0] : "");
    return IO_OK;
}

/* --labels a,b,c: names in place of the numbers of IDX files. */
static int rename_labels(const job *j, nn_config *c, io_error *error) {
    if (!j->s->labels) return IO_OK;
    if (j->data.where.kind != DATA_IDX)
        return io_fail(error, IO_BAD_USAGE, "--labels is for IDX files, whose classes are numbers; %s has names of its own",
                       j->s->data);
    char *copy = strdup(j->s->labels), **names = array_new((size_t)c->n_labels, sizeof *names);
    int failed = copy && names ? IO_OK : io_no_memory(error, "the labels", (size_t)c->n_labels * sizeof *names);
    int32_t n = 0;
    for (char *at = copy; !failed && at; n++) {
        char *comma = strchr(at, ',');
        if (comma) *comma++ = 0;
        if (n < c->n_labels) names[n] = at;
        at = comma;
    }
    if (!failed && n != c->n_labels)
        failed = io_fail(error, IO_BAD_USAGE, "--labels names %d classes; the data has %d", n, c->n_labels);
    if (!failed) {
        int32_t count = c->n_labels;
        nn_config_free(c);
        failed = nn_config_set_labels(c, names, count, error);
    }
    free(copy);
    free(names);
    return failed;
}

/* A tenth of each class is set apart to measure, of large sets less: MOST_VALIDATION tell an accuracy of 90 % to one in a hundred. */
static double validation_share(const job *j) {
    if (j->s->valid || j->data.n < 10) return 0;
    return fmin(VALIDATION_SHARE, (double)MOST_VALIDATION / (double)j->data.n);
}

/* Which examples are learned from, which measure: those of --valid, or a share of each class. */
static int choose_split(job *j, io_error *error) {
    double share = validation_share(j);
    int failed = nn_split(j->data.labels, j->data.n, j->data.n_labels, share, seed_of(j->s), &j->train, &j->n_train, &j->valid,
                          &j->n_valid, error);
    if (failed) return failed;
    j->train_labels = array_new(j->n_train, sizeof(int32_t));
    j->valid_labels = array_new(j->n_valid, sizeof(int32_t));
    if (!j->train_labels || !j->valid_labels) return io_no_memory(error, "the labels", j->data.n * sizeof(int32_t));
    if (j->s->valid)
        snprintf(j->validation_text, sizeof j->validation_text, "%.200s", j->s->valid);
    else if (j->n_valid)
        snprintf(j->validation_text, sizeof j->validation_text, "%zu examples set apart, %.3g %% of each class (seed %llu)",
                 j->n_valid, 100 * share, (unsigned long long)seed_of(j->s));
    else
        snprintf(j->validation_text, sizeof j->validation_text, "none: too few examples; the last model counts as the best");
    note("%zu examples to learn from; validation: %s", j->n_train, j->validation_text);
    return IO_OK;
}

static int open_examples(job *j, io_error *error) {
    const nn_examples *all, *others;
    int failed = nn_source_examples(&j->data, &j->model, &all, error);
    if (failed) return failed;
    if (j->data.modality == NN_IMAGE) {
        nn_pictures *p = &j->data.as_pictures;
        int32_t side = p->set->width < p->set->height ? p->set->width : p->set->height;
        double passes = (double)j->options.steps * (double)j->options.batch / (double)j->n_train + j->options.epochs;
        p->shift = passes < MANY_PASSES ? 0 : side / 14;
        if (j->s->shift.given) p->shift = (int32_t)j->s->shift.value;
        p->flip = !j->s->no_flip;
    }
    nn_subset_open(&j->train_set, all, j->train, j->n_train, j->train_labels);
    nn_subset_open(&j->valid_set, all, j->valid, j->n_valid, j->valid_labels);
    j->validation = j->n_valid ? &j->valid_set.base : NULL;
    if (!j->s->valid) return IO_OK;
    nn_source_options o = { .half = DATA_TEST, .text = j->s->text, .label = j->s->label, .model = &j->model.config };
    failed = nn_source_read(&j->other, j->s->valid, &o, error);
    if (!failed) failed = nn_source_examples(&j->other, &j->model, &others, error);
    if (!failed) j->validation = others;
    return failed;
}

/* ---- training --------------------------------------------------------------------------------------------------------------- */

static int settle_options(job *j, io_error *error) {
    const train_settings *s = j->s;
    nn_train_options *o = &j->options;
    *o = (nn_train_options){ .batch = s->batch.value,
                             .steps = s->steps.value,
                             .epochs = s->epochs.value,
                             .optimizer = s->optimizer.given ? s->optimizer.value : -1,
                             .rate = s->lr.given ? s->lr.value : -1,
                             .weight_decay = s->weight_decay.given ? s->weight_decay.value : -1,
                             .smoothing = s->smoothing.given ? s->smoothing.value : -1,
                             .seed = seed_of(s),
                             .checkpoint = j->checkpoint,
                             .checkpoint_every = 30,
                             .resume = s->resume,
                             .stop = &train_stop,
                             .tell = train_tell,
                             .context = &j->teller };
    if (s->time && !parse_time(s->time, &o->seconds))
        return io_fail(error, IO_BAD_USAGE, "--time is '%s'; it is a time like 90s, 2m or 1.5h", s->time);
    if ((s->time != NULL) + s->epochs.given + s->steps.given > 1)
        return io_fail(error, IO_BAD_USAGE, "--time, --epochs and --steps say the same thing in three ways; give one of them");
    return IO_OK;
}

/* What a resumed run must agree with: everything that the result depends on. */
static int settle_settings(job *j, io_error *error) {
    const nn_train_options *o = &j->options;
    train_settings given = *j->s;
    given.out = ".";
    train_command(&j->settings, &given, o->steps);
    text_add(&j->settings, " --epochs %g --time %g; %zu examples, %zu for validation", o->epochs, o->seconds, j->n_train,
             j->validation ? j->validation->n : 0);
    if (j->settings.failed) return io_no_memory(error, "the settings", 1024);
    j->options.settings = j->settings.data;
    return IO_OK;
}

static int prepare_folder(job *j, io_error *error) {
    if (mkdir(j->s->out, 0777) != 0 && (errno != EEXIST || !path_is_folder(j->s->out)))
        return io_fail(error, IO_NO_ROOM, "%s: the folder cannot be made: %s", j->s->out, strerror(errno));
    if (access(j->s->out, W_OK) != 0)
        return io_fail(error, IO_NO_ROOM, "%s: nothing can be written there: %s", j->s->out, strerror(errno));
    if (!path_join(j->s->out, "checkpoint.safetensors", j->checkpoint, sizeof j->checkpoint))
        return io_fail(error, IO_NO_ROOM, "%s: the path is too long", j->s->out);
    return IO_OK;
}

static int measure(job *j, nn_figures *figures, io_error *error) {
    prediction p;
    int failed = predict(&p, &j->model, j->validation, j->exec, error);
    if (!failed) failed = nn_evaluate(figures, p.probabilities, p.losses, j->validation->labels, p.n, p.classes, error);
    prediction_free(&p);
    return failed;
}

static int save(job *j, const nn_figures *figures, bool interrupted, io_error *error) {
    text again = { 0 };
    train_settings said = *j->s; /* with what was decided by the number of passes, which --steps may not say again */
    if (j->data.modality == NN_IMAGE) said.shift = (option_integer){ .given = true, .value = j->data.as_pictures.shift };
    train_command(&again, &said, j->progress.total);
    nn_card card = { .model = &j->model,
                     .progress = &j->progress,
                     .figures = figures,
                     .command = again.data,
                     .data = j->data.summary,
                     .validation = j->validation_text,
                     .n_train = j->n_train,
                     .rate = j->options.rate,
                     .weight_decay = j->options.weight_decay,
                     .smoothing = j->options.smoothing,
                     .optimizer = j->options.optimizer,
                     .batch = j->options.batch,
                     .seed = j->options.seed,
                     .interrupted = interrupted };
    int failed = again.failed ? io_no_memory(error, "the command", again.capacity) : IO_OK;
    if (!failed) failed = nn_model_save(&j->model, NULL, j->s->out, error);
    if (!failed) failed = nn_card_write(&card, j->s->out, error);
    text_free(&again);
    return failed;
}

static int print_result(const job *j, const nn_figures *f) {
    const nn_progress *p = &j->progress;
    if (f)
        note("best at step %lld: validation accuracy %.2f %% (%.2f .. %.2f), macro-F1 %.3f, loss %.4f; %.0f s; model in %s",
             (long long)p->best_step, 100 * f->accuracy, 100 * f->low, 100 * f->high, f->macro_f1, f->loss, p->seconds,
             j->s->out);
    else
        note("trained %lld steps in %.0f s; model in %s", (long long)p->step, p->seconds, j->s->out);
    if (!j->s->json) return IO_OK;
    text out = { 0 };
    text_add(&out, "{\"model\": ");
    text_add_json(&out, j->s->out);
    text_add(&out, ", \"step\": %lld, \"best_step\": %lld, \"seconds\": %.3f, \"validation_n\": %zu, \"accuracy\": ",
             (long long)p->step, (long long)p->best_step, p->seconds, f ? f->n : (size_t)0);
    text_add_json_number(&out, f ? f->accuracy : NAN);
    text_add(&out, ", \"loss\": ");
    text_add_json_number(&out, f ? f->loss : NAN);
    text_add(&out, "}\n");
    return text_print(&out);
}

static int train(job *j, io_error *error) {
    nn_recipe recipe = recipe_of(j->s);
    int failed = settle_options(j, error);
    if (!failed) failed = prepare_folder(j, error);
    if (!failed) failed = read_data(j, error);
    if (!failed) failed = choose_split(j, error);
    if (!failed) failed = nn_recipe_model(&recipe, &j->data, j->train, j->n_train, &j->model, error);
    if (failed == IO_BAD_MODEL) failed = error->code = IO_BAD_USAGE; /* what is wrong with the model was asked for by options */
    if (!failed) failed = rename_labels(j, &j->model.config, error);
    if (failed) return failed;
    nn_recipe_training(&j->data, j->n_train, &j->options);
    failed = open_examples(j, error);
    if (failed) return failed;
    j->teller.n_train = (int64_t)j->n_train;
    failed = settle_settings(j, error);
    if (failed) return failed;
    train_catch_interrupts();
    failed = nn_train(&j->model, &j->train_set.base, j->validation, &j->options, j->exec, &j->progress, error);
    train_teller_rest(&j->teller);
    return failed;
}

static int run(const void *settings, const attn_exec *exec) {
    static job j; /* it holds paths: too large for the stack */
    io_error error = { 0 };
    nn_figures figures = { 0 };
    j = (job){ .s = settings, .exec = exec };
    int code = train_teller_open(&j.teller, j.s->log, &error);
    if (!code) code = train(&j, &error);
    bool interrupted = code == IO_INTERRUPTED;
    if (!code || interrupted) {
        int failed = j.validation ? measure(&j, &figures, &error) : IO_OK;
        if (!failed) failed = save(&j, j.validation ? &figures : NULL, interrupted, &error);
        if (!failed) failed = print_result(&j, j.validation ? &figures : NULL);
        if (failed) code = failed;
    }
    if (code == IO_OK) unlink(j.checkpoint); /* nothing is left to resume */
    if (interrupted && code == IO_INTERRUPTED)
        note("interrupted at step %lld of %lld; the same command with --resume goes on", (long long)j.progress.step,
             (long long)j.progress.total);
    else if (code)
        fail_io(&error);
    int failed = train_teller_close(&j.teller, &error);
    if (failed && !code) code = fail_io(&error);
    nn_figures_free(&figures);
    nn_source_free(&j.data);
    nn_source_free(&j.other);
    nn_model_free(&j.model);
    void *rest[] = { j.train, j.valid, j.train_labels, j.valid_labels };
    for (size_t i = 0; i < sizeof rest / sizeof rest[0]; i++) free(rest[i]);
    text_free(&j.settings);
    return code;
}

/* ---- options -------------------------------------------------------------------------------------------------------------------- */

static const char *const tasks[] = { "text:class", "image:class", NULL };
static const char *const pools[] = { "first", "attention", NULL };

#define FIELD(name) offsetof(train_settings, name)

static const option options[] = {
    { .name = "DATA",
      .kind = OPTION_ARGUMENT,
      .field = FIELD(data),
      .required = true,
      .help =
          "a .csv, .tsv or .jsonl with a header or keys, a fastText file, a folder of pictures with one sub-folder per class, or "
          "IDX files; of a folder with a train and a test half the first is used" },
    { .name = "out",
      .kind = OPTION_TEXT,
      .letter = 'o',
      .field = FIELD(out),
      .value = "MODEL",
      .required = true,
      .help = "the folder that the model goes to" },
    { .name = "task",
      .kind = OPTION_CHOICE,
      .field = FIELD(task),
      .choices = tasks,
      .help = "what is learned (default: what the data is for)" },
    { .name = "valid",
      .kind = OPTION_TEXT,
      .field = FIELD(valid),
      .value = "DATA",
      .help = "examples that choose the best model (default: a tenth of each class, at most 3000, is set apart)" },
    { .name = "text",
      .kind = OPTION_TEXT,
      .field = FIELD(text),
      .value = "COL",
      .help = "the column with the texts (default: guessed where there is one choice)" },
    { .name = "label",
      .kind = OPTION_TEXT,
      .field = FIELD(label),
      .value = "COL",
      .help = "the column with the labels (the same)" },
    { .name = "labels",
      .kind = OPTION_TEXT,
      .field = FIELD(labels),
      .value = "A,B,...",
      .help = "names for the classes of IDX files, in their order" },
    { .kind = OPTION_HEADING, .name = "How long" },
    { .name = "epochs",
      .kind = OPTION_REAL,
      .field = FIELD(epochs),
      .value = "N",
      .low = 1e-3,
      .high = 1e6,
      .help = "passes over the examples (default: depends on how many there are)" },
    { .name = "steps",
      .kind = OPTION_INTEGER,
      .field = FIELD(steps),
      .value = "N",
      .low = 1,
      .high = 1e12,
      .help = "updates, instead of --epochs" },
    { .name = "time",
      .kind = OPTION_TEXT,
      .field = FIELD(time),
      .value = "T",
      .help =
          "as much as fits in a time like 90s, 2m or 1.5h, instead of --epochs; the model card says how many --steps that was" },
    { .name = "resume",
      .kind = OPTION_FLAG,
      .field = FIELD(resume),
      .help = "go on where an interrupted training with the same options stopped: the result is the same, bit for bit" },
    { .kind = OPTION_HEADING, .name = "The model" },
    { .name = "attention",
      .kind = OPTION_CHOICE,
      .field = FIELD(attention),
      .choices = nn_attention_names,
      .help = "how scores come about (default dot)" },
    { .name = "heads",
      .kind = OPTION_INTEGER,
      .field = FIELD(heads),
      .value = "N",
      .low = 1,
      .high = 1024,
      .help = "heads of each attention (default 4)" },
    { .name = "layers",
      .kind = OPTION_INTEGER,
      .field = FIELD(layers),
      .value = "N",
      .low = 1,
      .high = NN_MOST_LAYERS,
      .help = "blocks (default 4 for pictures, 1 for texts)" },
    { .name = "dim",
      .kind = OPTION_INTEGER,
      .field = FIELD(dim),
      .value = "N",
      .low = 1,
      .high = NN_MOST_WIDTH,
      .help = "width of a token, a multiple of the heads (default 64 for pictures, 128 for texts)" },
    { .name = "pool",
      .kind = OPTION_CHOICE,
      .field = FIELD(pool),
      .choices = pools,
      .help = "what the classifier reads: the first token (default), or a mix of all by additive attention" },
    { .name = "patch",
      .kind = OPTION_INTEGER,
      .field = FIELD(patch),
      .value = "N",
      .low = 1,
      .high = 1024,
      .help = "side of a patch of pixels (default: chosen by the size of the pictures)" },
    { .name = "vocab",
      .kind = OPTION_INTEGER,
      .field = FIELD(vocab),
      .value = "N",
      .low = 261,
      .high = 1e6,
      .help = "tokens that the tokenizer learns at most (default 16000)" },
    { .name = "length",
      .kind = OPTION_INTEGER,
      .field = FIELD(length),
      .value = "N",
      .low = 3,
      .high = 1 << 20,
      .help = "tokens of a text at most; what is longer is cut (default 128)" },
    { .name = "keep-case", .kind = OPTION_FLAG, .field = FIELD(keep_case), .help = "upper and lower case differ" },
    { .kind = OPTION_HEADING, .name = "Learning" },
    { .name = "seed", .kind = OPTION_SEED, .field = FIELD(seed), .value = "N", .help = "of everything random (default 1)" },
    { .name = "batch",
      .kind = OPTION_INTEGER,
      .field = FIELD(batch),
      .value = "N",
      .low = 1,
      .high = 65536,
      .help = "examples of an update (default 64)" },
    { .name = "optimizer",
      .kind = OPTION_CHOICE,
      .field = FIELD(optimizer),
      .choices = nn_optimizer_names,
      .help = "muon for matrices between hidden layers, adamw for the rest; or adamw for all (default muon for pictures, adamw "
              "for texts)" },
    { .name = "lr",
      .kind = OPTION_REAL,
      .field = FIELD(lr),
      .value = "X",
      .low = 1e-12,
      .high = 1e12,
      .help = "the highest learning rate (default 0.002)" },
    { .name = "weight-decay",
      .kind = OPTION_REAL,
      .field = FIELD(weight_decay),
      .value = "X",
      .low = 0,
      .high = 100,
      .help = "of matrices (default 0.1 for pictures, 0.05 for texts)" },
    { .name = "dropout",
      .kind = OPTION_REAL,
      .field = FIELD(dropout),
      .value = "P",
      .low = 0,
      .high = 0.99,
      .help = "default 0 for pictures, 0.3 for texts" },
    { .name = "smoothing",
      .kind = OPTION_REAL,
      .field = FIELD(smoothing),
      .value = "X",
      .low = 0,
      .high = 0.99,
      .help = "of labels (default 0.05 for pictures, 0.1 for texts)" },
    { .name = "shift",
      .kind = OPTION_INTEGER,
      .field = FIELD(shift),
      .value = "N",
      .low = 0,
      .high = 1024,
      .help = "pictures move by up to N pixels while they are learned (default: none; with 20 epochs or more a 14th of the "
              "smaller side)" },
    { .name = "no-flip",
      .kind = OPTION_FLAG,
      .field = FIELD(no_flip),
      .help = "pictures are not seen in a mirror while they are learned: for letters, digits, left and right" },
    { .kind = OPTION_HEADING, .name = "Telling" },
    { .name = "log", .kind = OPTION_TEXT, .field = FIELD(log), .value = "FILE", .help = "what happens, as JSON lines" },
    { .name = "json", .kind = OPTION_FLAG, .field = FIELD(json), .help = "the result as one JSON object on stdout" },
    { .kind = OPTION_END },
};

const command command_train = {
    .name = "train",
    .summary = "labelled texts or pictures in, a classifier with attention out",
    .about =
        "Trains a model and writes its folder: config.json, model.safetensors, what the input needs, and a model card. The best "
        "model by validation accuracy is kept. Ctrl-C finishes with the best so far (exit 130); --resume goes on. The result "
        "depends "
        "on data, options and seed alone, not on the number of threads.",
    .examples = "  attn train /usr/share/datasets/fashion-mnist -o model --time 2m\n"
                "  attn train reviews.csv -o model --text review --label stars\n"
                "  attn train pictures/ -o model --attention additive --seed 3\n",
    .options = options,
    .settings_size = sizeof(train_settings),
    .run = run,
};
