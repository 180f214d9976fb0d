/* SPDX-License-Identifier: Apache-2.0 */
/* Shards on workers: predictions, gradients, updates. See team.h. */
#include "team.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "heads/class.h"
#include "layers.h"
#include "parallel.h"

enum { PIECE = 4096 }; /* elements: with the copies of eight shards it stays within a core's cache */

/* ---- failure: the first one counts, whoever meets it -------------------------------------------------------------- */

typedef struct failure {
    atomic_flag taken;
    atomic_int status;
    char message[256];
} failure;

static failure no_failure(void) { return (failure){ .taken = ATOMIC_FLAG_INIT }; }

static void note_failure(failure *f, attn_status status) {
    if (status == ATTN_OK || atomic_flag_test_and_set(&f->taken)) return;
    strncpy(f->message, attn_last_error(), sizeof f->message - 1);
    atomic_store(&f->status, (int)status);
}

static int failed_work(failure *f, io_error *error) {
    int status = atomic_load(&f->status);
    if (status == ATTN_OK) return IO_OK;
    return io_fail(error, status == ATTN_NO_MEMORY ? IO_NO_ROOM : IO_BAD_MODEL, "the model cannot be computed: %s", f->message);
}

/* ---- opening ------------------------------------------------------------------------------------------------------- */

static size_t table_width(const nn_model *m) {
    for (size_t i = 0; i < m->parameters.n; i++)
        if (m->parameters.all[i].by_rows) return (size_t)m->parameters.all[i].shape[1];
    return 0;
}

static bool cut_pieces(nn_team *t) {
    const nn_parameters *all = &t->model->parameters;
    size_t n = 0;
    for (size_t i = 0; i < all->n; i++) n += (all->all[i].count + PIECE - 1) / PIECE;
    t->pieces = array_new(n, sizeof *t->pieces);
    t->squares = array_new(n, sizeof *t->squares);
    if (!t->pieces || !t->squares) return false;
    for (size_t i = 0; i < all->n; i++) {
        const nn_parameter *p = &all->all[i];
        for (size_t at = 0; at < p->count && !p->frozen; at += PIECE)
            t->pieces[t->n_pieces++] = (nn_piece){ .parameter = (int32_t)i,
                                                   .offset = p->offset + at,
                                                   .count = p->count - at < PIECE ? p->count - at : PIECE };
    }
    return true;
}

/* From the matrix with the most work down: what is left at the end is small. */
static int compare_work(const void *a, const void *b) {
    const nn_inner_matrix *x = a, *y = b;
    if (x->rows != y->rows) return x->rows > y->rows ? -1 : 1;
    if (x->parameter != y->parameter) return x->parameter < y->parameter ? -1 : 1;
    return x->first_row < y->first_row ? -1 : 1;
}

static attn_muon_args muon_args(const nn_team *t, const nn_inner_matrix *m) {
    const nn_parameters *all = &t->model->parameters;
    return (attn_muon_args){ .param = nn_parameters_rows(all, all->values, m->parameter, m->first_row, m->rows),
                             .m = nn_parameters_rows(all, t->first, m->parameter, m->first_row, m->rows),
                             .gradient = nn_parameters_rows(all, t->gradients[0], m->parameter, m->first_row, m->rows) };
}

static bool find_matrices(nn_team *t) {
    const nn_parameters *all = &t->model->parameters;
    size_t n = 0;
    for (size_t i = 0; i < all->n; i++)
        if (all->all[i].inner && !all->all[i].frozen) n += (size_t)(all->all[i].shape[0] / all->all[i].inner);
    t->matrices = array_new(n, sizeof *t->matrices);
    if (!t->matrices) return false;
    for (size_t i = 0; i < all->n; i++) {
        const nn_parameter *p = &all->all[i];
        for (int64_t row = 0; p->inner && !p->frozen && row < p->shape[0]; row += p->inner)
            t->matrices[t->n_matrices++] = (nn_inner_matrix){ .parameter = (int32_t)i, .first_row = row, .rows = p->inner };
    }
    qsort(t->matrices, t->n_matrices, sizeof *t->matrices, compare_work);
    for (size_t i = 0; i < t->n_matrices; i++) {
        attn_muon_args args = muon_args(t, &t->matrices[i]);
        size_t bytes = attn_muon_workspace(&args, 1);
        if (bytes > t->muon_size) t->muon_size = bytes;
    }
    t->muon_memory = array_new((size_t)t->n_workers, t->muon_size);
    return t->muon_memory != NULL;
}

static bool open_training(nn_team *t, int64_t max_batch) {
    const nn_graph *g = &t->model->graph;
    const nn_parameters *all = &t->model->parameters;
    size_t element = nn_element(all->dtype), width = table_width(t->model);
    size_t tokens = (size_t)(g->max_examples * g->max_tokens);
    t->max_shards = (size_t)((max_batch + g->max_examples - 1) / g->max_examples);
    t->gradients = array_new(t->max_shards, sizeof *t->gradients);
    t->rows = array_new(t->max_shards, sizeof *t->rows);
    t->losses = array_new(t->max_shards, sizeof *t->losses);
    t->lengths = array_new((size_t)max_batch, sizeof *t->lengths);
    t->order = array_new((size_t)max_batch, sizeof *t->order);
    t->first = array_new(all->size, element);
    t->second = array_new(all->size, element);
    if (!t->gradients || !t->rows || !t->losses || !t->lengths || !t->order || !t->first || !t->second) return false;
    for (size_t i = 0; i < t->max_shards; i++) {
        t->gradients[i] = array_new(i == 0 ? all->size : all->dense, element);
        if (!t->gradients[i]) return false;
        if (!width) continue;
        t->rows[i].ids = array_new(tokens, sizeof(int32_t));
        t->rows[i].rows = array_new(tokens, width * element);
        if (!t->rows[i].ids || !t->rows[i].rows) return false;
    }
    return cut_pieces(t) && find_matrices(t);
}

int nn_team_open(nn_team *t, const nn_model *model, int64_t max_batch, const attn_exec *exec, io_error *error) {
    *t = (nn_team){ .model = model, .exec = exec, .n_workers = nn_workers(exec) };
    t->passes = array_new((size_t)t->n_workers, sizeof *t->passes);
    t->packed = array_new(model->graph.packed_size + 64, 1);
    int failed = t->passes && t->packed ? IO_OK : io_no_memory(error, "the packed weights", model->graph.packed_size);
    for (int32_t i = 0; i < t->n_workers && !failed; i++) failed = nn_pass_open(&t->passes[i], &model->graph, error);
    if (!failed && max_batch > 0 && !open_training(t, max_batch))
        failed = io_no_memory(error, "training", t->max_shards * model->parameters.size * nn_element(model->parameters.dtype));
    if (failed) nn_team_close(t);
    return failed;
}

void nn_team_close(nn_team *t) {
    for (int32_t i = 0; t->passes && i < t->n_workers; i++) nn_pass_close(&t->passes[i]);
    for (size_t i = 0; i < t->max_shards; i++) {
        if (t->gradients) free(t->gradients[i]);
        if (t->rows) free(t->rows[i].ids), free(t->rows[i].rows);
    }
    void *rest[] = { t->passes, t->packed,  t->gradients, t->rows,   t->losses,   t->lengths,    t->order,
                     t->pieces, t->squares, t->first,     t->second, t->matrices, t->muon_memory };
    for (size_t i = 0; i < sizeof rest / sizeof rest[0]; i++) free(rest[i]);
    *t = (nn_team){ 0 };
}

/* ---- the weights of this step ---------------------------------------------------------------------------------------- */

typedef struct packing {
    nn_team *team;
    failure *failed;
} packing;

static void pack_item(void *context, int32_t worker, size_t item) {
    (void)worker;
    packing *p = context;
    note_failure(p->failed, nn_graph_pack(&p->team->model->graph, p->team->packed, item));
}

static void pack(nn_team *t, failure *failed) {
    nn_parallel(t->exec, t->model->graph.n_products, pack_item, &(packing){ t, failed });
}

/* ---- many examples in order of length, cut into shards ------------------------------------------------------------------ */

static int compare_lengths(const void *a, const void *b) {
    const nn_by_length *x = a, *y = b;
    if (x->length != y->length) return x->length < y->length ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

/* order[i]: which of the n examples stands at place i, short ones first, so that the examples of a shard are of like length. `room` has
 * room for n. */
static void sort_by_length(const nn_examples *e, const uint32_t *which, size_t n, nn_by_length *room, uint32_t *order) {
    for (size_t i = 0; i < n; i++) {
        uint32_t index = which ? which[i] : (uint32_t)i;
        room[i] = (nn_by_length){ .length = e->length(e, index), .index = index };
    }
    qsort(room, n, sizeof *room, compare_lengths);
    for (size_t i = 0; i < n; i++) order[i] = room[i].index;
}

/* ---- predictions ---------------------------------------------------------------------------------------------------------- */

typedef struct predicting {
    nn_team *team;
    const nn_examples *examples;
    const uint32_t *order;
    float *probabilities;
    double *losses;
    failure *failed;
} predicting;

static attn_status predict_shard(const predicting *job, nn_pass *pass, const uint32_t *which) {
    int64_t classes = job->team->model->config.n_labels, all = pass->examples;
    job->examples->fetch(job->examples, which, pass);
    attn_status status = nn_forward(pass);
    /* The results go to the examples' own places, one by one: the shard's order is that of the lengths. */
    attn_tensor logits = nn_data(pass, pass->graph->output);
    for (int64_t i = 0; i < all && !status; i++) {
        attn_tensor row = logits;
        row.shape[0] = 1;
        row.data = (char *)logits.data + (size_t)(i * classes) * nn_element(logits.dtype);
        status = nn_class_probabilities(row, job->probabilities + which[i] * (size_t)classes);
        if (!status && job->losses)
            status = nn_class_loss(row, &job->examples->labels[which[i]], 0, (attn_tensor){ 0 }, &job->losses[which[i]]);
    }
    return status;
}

static void predict_item(void *context, int32_t worker, size_t item) {
    const predicting *job = context;
    nn_pass *pass = &job->team->passes[worker];
    int64_t shard = pass->graph->max_examples, first = (int64_t)item * shard, left = (int64_t)job->examples->n - first;
    pass->examples = left < shard ? left : shard;
    pass->first_example = first;
    pass->train = false;
    pass->gradients = NULL;
    pass->packed = job->team->packed;
    note_failure(job->failed, predict_shard(job, pass, job->order + first));
}

int nn_team_predict(nn_team *t, const nn_examples *examples, float *probabilities, double *losses, io_error *error) {
    uint32_t *order = array_new(examples->n, sizeof *order);
    nn_by_length *room = array_new(examples->n, sizeof *room);
    int failed = order && room ? IO_OK : io_no_memory(error, "the order of the examples", examples->n * sizeof *room);
    if (!failed) {
        failure f = no_failure();
        size_t shard = (size_t)t->model->graph.max_examples;
        sort_by_length(examples, NULL, examples->n, room, order);
        pack(t, &f);
        predicting job = { t, examples, order, probabilities, losses, &f };
        nn_parallel(t->exec, (examples->n + shard - 1) / shard, predict_item, &job);
        failed = failed_work(&f, error);
    }
    free(order);
    free(room);
    return failed;
}

/* ---- gradients -------------------------------------------------------------------------------------------------------------- */

typedef struct learning {
    nn_team *team;
    const nn_batch *batch;
    const uint32_t *order;
    size_t n_shards;
    failure *failed;
} learning;

static attn_status learn_shard(const learning *job, nn_pass *pass, const uint32_t *which, size_t shard) {
    const nn_batch *b = job->batch;
    int32_t labels[NN_MOST_SHARD];
    b->examples->fetch(b->examples, which, pass);
    for (int64_t i = 0; i < pass->examples; i++) labels[i] = b->examples->labels[which[i]];
    attn_status status = nn_forward(pass);
    if (!status)
        status = nn_class_loss(nn_data(pass, pass->graph->output), labels, b->smoothing, nn_gradient(pass, pass->graph->output),
                               &job->team->losses[shard]);
    return status ? status : nn_backward(pass);
}

static void learn_item(void *context, int32_t worker, size_t shard) {
    const learning *job = context;
    nn_team *t = job->team;
    nn_pass *pass = &t->passes[worker];
    int64_t size = pass->graph->max_examples, first = (int64_t)shard * size, left = job->batch->n - first;
    pass->examples = left < size ? left : size;
    pass->first_example = first;
    pass->train = true;
    pass->seed = job->batch->seed;
    pass->step = job->batch->step;
    pass->packed = t->packed;
    pass->gradients = t->gradients[shard];
    pass->rows = &t->rows[shard];
    memset(pass->gradients, 0, t->model->parameters.dense * nn_element(t->model->parameters.dtype));
    note_failure(job->failed, learn_shard(job, pass, job->order + first, shard));
}

static attn_tensor piece_view(const nn_team *t, const nn_piece *p, const void *buffer) {
    int32_t dtype = t->model->parameters.dtype;
    return attn_dense(dtype, (const char *)buffer + p->offset * nn_element(dtype), 1, &(int64_t){ (int64_t)p->count });
}

/* The shards' gradients of one piece, added in a fixed tree: neighbours, then pairs of pairs, and so on. */
static void add_item(void *context, int32_t worker, size_t item) {
    (void)worker;
    const learning *job = context;
    nn_team *t = job->team;
    const nn_piece *piece = &t->pieces[item];
    bool table = t->model->parameters.all[piece->parameter].by_rows;
    attn_status status = ATTN_OK;
    for (size_t apart = 1; apart < job->n_shards && !table; apart *= 2)
        for (size_t i = 0; i + apart < job->n_shards && !status; i += 2 * apart) {
            attn_tensor to = piece_view(t, piece, t->gradients[i]), from = piece_view(t, piece, t->gradients[i + apart]);
            status = attn_add(&from, 1, &to, NULL);
        }
    attn_tensor sum = piece_view(t, piece, t->gradients[0]);
    if (!status) status = attn_sum_of_squares(&sum, &t->squares[item], NULL);
    note_failure(job->failed, status);
}

int nn_team_gradient(nn_team *t, const nn_batch *batch, double *loss, double *norm, io_error *error) {
    failure f = no_failure();
    size_t shard = (size_t)t->model->graph.max_examples;
    learning job = { t, batch, t->order, ((size_t)batch->n + shard - 1) / shard, &f };
    sort_by_length(batch->examples, batch->which, (size_t)batch->n, t->lengths, t->order);
    pack(t, &f);
    nn_parallel(t->exec, job.n_shards, learn_item, &job);
    int failed = failed_work(&f, error);
    if (!failed && table_width(t->model))
        note_failure(&f, nn_token_embedding_gather(&t->model->graph, t->gradients[0], t->rows, job.n_shards));
    if (!failed) {
        nn_parallel(t->exec, t->n_pieces, add_item, &job);
        failed = failed_work(&f, error);
    }
    *loss = *norm = 0;
    for (size_t i = 0; i < job.n_shards; i++) *loss += t->losses[i] / (double)batch->n;
    for (size_t i = 0; i < t->n_pieces; i++) *norm += t->squares[i];
    *norm = sqrt(*norm) / (double)batch->n;
    return failed;
}

/* ---- updates ------------------------------------------------------------------------------------------------------------------ */

/* Trainings of some thousand steps: the usual 0.999 would remember gradients of a time when the rate was another. */
static const double SECOND_MOMENT_DECAY = 0.98;

typedef struct updating {
    nn_team *team;
    const nn_update *update;
    failure *failed;
} updating;

static void update_item(void *context, int32_t worker, size_t item) {
    (void)worker;
    const updating *job = context;
    nn_team *t = job->team;
    const nn_piece *piece = &t->pieces[item];
    if (job->update->muon && t->model->parameters.all[piece->parameter].inner) return;
    attn_adamw_args args = {
        .param = piece_view(t, piece, t->model->parameters.values),
        .m = piece_view(t, piece, t->first),
        .v = piece_view(t, piece, t->second),
        .gradient = piece_view(t, piece, t->gradients[0]),
        .lr = job->update->lr,
        .beta2 = SECOND_MOMENT_DECAY,
        .weight_decay = t->model->parameters.all[piece->parameter].decays ? job->update->weight_decay : 0,
        .grad_scale = job->update->scale,
        .step = job->update->step,
    };
    note_failure(job->failed, attn_adamw(&args, NULL));
}

static void muon_item(void *context, int32_t worker, size_t item) {
    const updating *job = context;
    nn_team *t = job->team;
    const nn_inner_matrix *matrix = &t->matrices[item];
    attn_exec exec = { .workspace = t->muon_memory + (size_t)worker * t->muon_size, .workspace_size = t->muon_size };
    attn_muon_args args = muon_args(t, matrix);
    args.lr = job->update->lr;
    args.weight_decay = t->model->parameters.all[matrix->parameter].decays ? job->update->weight_decay : 0;
    args.grad_scale = job->update->scale;
    note_failure(job->failed, attn_muon(&args, &exec));
}

/* The table's gradient is zero everywhere again: only the rows of this batch were not. */
static void clear_table(nn_team *t) {
    const nn_parameters *all = &t->model->parameters;
    size_t row = table_width(t->model) * nn_element(all->dtype);
    char *table = t->gradients[0] + all->dense * nn_element(all->dtype);
    for (size_t i = 0; i < t->max_shards && row; i++) {
        for (int64_t j = 0; j < t->rows[i].n; j++) memset(table + (size_t)t->rows[i].ids[j] * row, 0, row);
        t->rows[i].n = 0;
    }
}

int nn_team_update(nn_team *t, const nn_update *u, io_error *error) {
    failure f = no_failure();
    updating job = { t, u, &f };
    if (u->lr > 0 && u->muon) nn_parallel(t->exec, t->n_matrices, muon_item, &job);
    if (u->lr > 0) nn_parallel(t->exec, t->n_pieces, update_item, &job);
    clear_table(t);
    return failed_work(&f, error);
}
