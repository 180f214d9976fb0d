/* SPDX-License-Identifier: Apache-2.0 */
/* Looking at one example. See look.h. */
#include "look.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "evaluate.h"
#include "heads/class.h"

const char *const explain_method_names[EXPLAIN_N_METHODS + 1] = { "attention", "rollout", "gradient", NULL };

/* What the observer needs while it watches. */
typedef struct watch {
    explain_look *look;
    float *slopes;      /* [layers, heads, tokens, tokens]: the gradient of each weight; NULL: not wanted */
    float *pool_slopes; /* [tokens]: of the pool's weights */
} watch;

static size_t head_size(const explain_look *l) { return (size_t)l->tokens * (size_t)l->tokens; }
static size_t layer_size(const explain_look *l) { return (size_t)l->heads * head_size(l); }

static void see(void *context, int32_t layer, attn_attention_args *args) {
    explain_look *l = ((watch *)context)->look;
    if (layer == l->layers) {
        args->see.weights = attn_dense(ATTN_F32, l->pool, 4, (int64_t[]){ 1, 1, 1, l->tokens });
        return;
    }
    int64_t shape[4] = { 1, l->heads, l->tokens, l->tokens };
    args->see.weights = attn_dense(ATTN_F32, l->weights + (size_t)layer * layer_size(l), 4, shape);
    args->see.entropy = attn_dense(ATTN_F32, l->entropy + (size_t)layer * (size_t)(l->heads * l->tokens), 3, shape);
}

/* o_i = sum_j p_ij v_j, so the gradient of p_ij is do_i . v_j. */
static void gradient(void *context, int32_t layer, const attn_attention_args *args, const attn_tensor *dout) {
    watch *w = context;
    const explain_look *l = w->look;
    float *out = layer == l->layers ? w->pool_slopes : w->slopes + (size_t)layer * layer_size(l);
    int64_t heads = args->q.shape[1], group = heads / args->v.shape[1];
    for (int64_t h = 0; h < heads; h++)
        for (int64_t i = 0; i < args->q.shape[2]; i++)
            for (int64_t j = 0; j < args->k.shape[2]; j++) {
                const float *d = (const float *)dout->data + h * dout->stride[1] + i * dout->stride[2];
                const float *v = (const float *)args->v.data + h / group * args->v.stride[1] + j * args->v.stride[2];
                double sum = 0;
                for (int64_t c = 0; c < args->v.shape[3]; c++)
                    sum += (double)d[c * dout->stride[3]] * (double)v[c * args->v.stride[3]];
                *out++ = (float)sum;
            }
}

/* ---- from weights to shares ------------------------------------------------------------------------------------------------ */

/* One layer's map [tokens, tokens]: the heads' mean (head < 0) or one head's, by the method. */
static void layer_map(const watch *w, int32_t layer, int32_t head, int32_t method, double *map) {
    const explain_look *l = w->look;
    int32_t from = head < 0 ? 0 : head, to = head < 0 ? l->heads : head + 1;
    memset(map, 0, head_size(l) * sizeof *map);
    for (int32_t h = from; h < to; h++) {
        size_t at = (size_t)layer * layer_size(l) + (size_t)h * head_size(l);
        for (size_t e = 0; e < head_size(l); e++) {
            double p = (double)l->weights[at + e];
            map[e] += method == EXPLAIN_GRADIENT ? fmax(0, p * (double)w->slopes[at + e]) : p;
        }
    }
    for (size_t e = 0; e < head_size(l); e++) map[e] /= to - from;
}

/* What the head reads: the first token, or a pool's mix of all. */
static void read_out(const watch *w, int32_t method, double *row) {
    const explain_look *l = w->look;
    double mean = 0;
    memset(row, 0, (size_t)l->tokens * sizeof *row);
    if (!l->pool) row[0] = 1;
    if (!l->pool) return;
    for (int32_t t = 0; t < l->tokens && w->pool_slopes; t++) mean += (double)l->pool[t] * (double)w->pool_slopes[t];
    for (int32_t t = 0; t < l->tokens; t++) {
        double p = (double)l->pool[t];
        row[t] = method == EXPLAIN_GRADIENT ? fmax(0, p * ((double)w->pool_slopes[t] - mean)) : p;
    }
}

/* out = row map */
static void through(const explain_look *l, const double *row, const double *map, double *out) {
    size_t n = (size_t)l->tokens;
    memset(out, 0, n * sizeof *out);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n && row[i] != 0; j++) out[j] += row[i] * map[i * n + j];
}

/* A row becomes shares of the tokens that stand for input. Where no weight lies on any of them, all are 0. */
static void share(const explain_look *l, const double *row, const bool *counts, double *out) {
    double sum = 0;
    for (int32_t t = 0; t < l->tokens; t++) sum += (out[t] = (counts ? counts[t] : t > 0) ? row[t] : 0);
    for (int32_t t = 0; t < l->tokens && sum > 0; t++) out[t] /= sum;
}

/* From what the head reads down through the layers, one row all the way: the product of all maps is never formed. */
static void add_up(const watch *w, int32_t method, const bool *counts, double *memory) {
    explain_look *l = w->look;
    size_t n = (size_t)l->tokens;
    double *map = memory, *row = map + n * n, *mixed = row + n;
    read_out(w, method, row);
    for (int32_t h = 0; h < l->heads; h++) {
        layer_map(w, l->layers - 1, h, method, map);
        through(l, row, map, mixed);
        share(l, mixed, counts, l->head_relevance + (size_t)h * n);
    }
    int32_t lowest = method != EXPLAIN_ATTENTION ? 0 : l->pool ? l->layers : l->layers - 1;
    for (int32_t i = l->layers - 1; i >= lowest; i--) {
        layer_map(w, i, -1, method, map);
        through(l, row, map, mixed);
        double keep = method == EXPLAIN_ATTENTION ? 0 : 1, half = method == EXPLAIN_ROLLOUT ? 0.5 : 1;
        for (size_t t = 0; t < n; t++) row[t] = half * (keep * row[t] + mixed[t]);
    }
    share(l, row, counts, l->relevance);
}

/* ---- one pass --------------------------------------------------------------------------------------------------------------- */

static int failed_pass(attn_status status, io_error *error) {
    int code = status == ATTN_NO_MEMORY ? IO_NO_ROOM : IO_BAD_MODEL;
    return io_fail(error, code, "the model cannot be computed: %s", attn_last_error());
}

/* Memory whose size is known once the example has been fetched. */
static int allocate(watch *w, bool pools, int32_t method, io_error *error) {
    explain_look *l = w->look;
    size_t tokens = (size_t)l->tokens, maps = (size_t)l->layers * layer_size(l);
    l->weights = array_new(maps, sizeof *l->weights);
    l->entropy = array_new((size_t)(l->layers * l->heads) * tokens, sizeof *l->entropy);
    l->probabilities = array_new((size_t)l->classes, sizeof *l->probabilities);
    l->relevance = array_new(tokens, sizeof *l->relevance);
    l->head_relevance = array_new((size_t)l->heads * tokens, sizeof *l->head_relevance);
    bool all = l->weights && l->entropy && l->probabilities && l->relevance && l->head_relevance;
    if (pools) all &= (l->pool = array_new(tokens, sizeof *l->pool)) != NULL;
    if (method == EXPLAIN_GRADIENT) {
        w->slopes = array_new(maps, sizeof *w->slopes);
        w->pool_slopes = array_new(tokens, sizeof *w->pool_slopes);
        all &= w->slopes && w->pool_slopes;
    }
    return all ? IO_OK : io_no_memory(error, "the weights of every head", maps * sizeof *l->weights);
}

static void name_answer(explain_look *l) {
    l->label = l->runner_up = nn_argmax(l->probabilities, (size_t)l->classes);
    for (int32_t c = 0; c < l->classes; c++)
        if (c != l->label && (l->runner_up == l->label || l->probabilities[c] > l->probabilities[l->runner_up])) l->runner_up = c;
}

static attn_status go_back(nn_pass *pass, const explain_look *l) {
    attn_tensor logits = nn_data(pass, pass->graph->output), d = nn_gradient(pass, pass->graph->output);
    memset(d.data, 0, (size_t)logits.shape[1] * sizeof(float));
    ((float *)d.data)[l->runner_up] -= 1;
    ((float *)d.data)[l->label] += 1;
    return nn_backward(pass);
}

/* The backward leaves the parameters' gradients somewhere; nobody reads them. */
static int lend_gradients(nn_pass *pass, nn_row_gradients *rows, io_error *error) {
    const nn_parameters *all = pass->graph->parameters;
    size_t width = 1;
    for (size_t i = 0; i < all->n; i++)
        if (all->all[i].by_rows) width = (size_t)all->all[i].shape[1];
    pass->gradients = array_new(all->size, sizeof(float));
    rows->ids = array_new((size_t)pass->tokens, sizeof *rows->ids);
    rows->rows = array_new((size_t)pass->tokens * width, sizeof(float));
    pass->rows = rows;
    if (pass->gradients && rows->ids && rows->rows) return IO_OK;
    return io_no_memory(error, "the gradients", all->size * sizeof(float));
}

static int run(watch *w, nn_pass *pass, int32_t method, io_error *error) {
    explain_look *l = w->look;
    nn_observer observer = { .context = w, .see = see, .gradient = w->slopes ? gradient : NULL };
    pass->observer = &observer;
    attn_status status = nn_forward(pass);
    if (!status) status = nn_class_probabilities(nn_data(pass, pass->graph->output), l->probabilities);
    if (status) return failed_pass(status, error);
    name_answer(l);
    if (method != EXPLAIN_GRADIENT) return IO_OK;
    nn_row_gradients rows = { 0 };
    int failed = lend_gradients(pass, &rows, error);
    if (!failed && (status = go_back(pass, l))) failed = failed_pass(status, error);
    free(pass->gradients);
    free(rows.ids);
    free(rows.rows);
    return failed;
}

int explain_look_at(explain_look *look, const nn_model *m, const nn_examples *examples, uint32_t which, int32_t method,
                    const bool *counts, io_error *error) {
    *look = (explain_look){ .layers = m->config.layers, .heads = m->config.heads, .classes = m->config.n_labels };
    watch w = { .look = look };
    nn_pass pass;
    int failed = nn_pass_open(&pass, &m->graph, error);
    if (failed) return failed;
    pass.examples = 1;
    examples->fetch(examples, &which, &pass);
    look->tokens = (int32_t)pass.tokens;
    failed = allocate(&w, m->config.attention_pool, method, error);
    if (!failed) failed = run(&w, &pass, method, error);
    nn_pass_close(&pass);
    size_t numbers = head_size(look) + 2 * (size_t)look->tokens; /* a map and two rows */
    double *memory = failed ? NULL : array_new(numbers, sizeof *memory);
    if (memory) add_up(&w, method, counts, memory);
    if (!failed && !memory) failed = io_no_memory(error, "the shares", numbers * sizeof *memory);
    free(memory);
    free(w.slopes);
    free(w.pool_slopes);
    if (failed) explain_look_free(look);
    return failed;
}

void explain_look_free(explain_look *l) {
    free(l->probabilities);
    free(l->weights);
    free(l->entropy);
    free(l->pool);
    free(l->relevance);
    free(l->head_relevance);
    *l = (explain_look){ 0 };
}

double explain_spread(const explain_look *l, int32_t layer, int32_t head) {
    const float *rows = l->entropy + ((size_t)layer * (size_t)l->heads + (size_t)head) * (size_t)l->tokens;
    double sum = 0;
    for (int32_t t = 0; t < l->tokens; t++) sum += (double)rows[t];
    return l->tokens > 1 ? sum / l->tokens / log(l->tokens) : 0;
}
