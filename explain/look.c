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

/* What the observer needs while it watches. No map of weights is ever kept: a row of shares goes down through the layers. */
typedef struct watch {
    explain_look *look;
    int32_t method;
    const bool *counts;        /* which tokens stand for input; NULL: all but the first */
    attn_attention_args *args; /* [layers]: each layer's call, when it is over */
    double *row, *mixed;       /* [tokens]: what the tokens that leave a layer count */
    float *by, *received;      /* [tokens], [heads, tokens]: the same for the library, and what it makes of it */
    attn_status status;        /* of the first of these calls that failed */
} watch;

static void see(void *context, int32_t layer, attn_attention_args *args) {
    explain_look *l = ((watch *)context)->look;
    if (layer == l->layers)
        args->see.weights = attn_dense(ATTN_F32, l->pool, 4, (int64_t[]){ 1, 1, 1, l->tokens });
    else
        args->see.entropy = attn_dense(ATTN_F32, l->entropy + (size_t)layer * (size_t)(l->heads * l->tokens), 3,
                                       (int64_t[]){ 1, l->heads, l->tokens });
}

static void seen(void *context, int32_t layer, const attn_attention_args *args) {
    watch *w = context;
    if (layer < w->look->layers) w->args[layer] = *args;
}

/* ---- from weights to shares ------------------------------------------------------------------------------------------------ */

/* What the keys of a call receive from `by` (NULL: from one row), with dout times the weights' gradients, into w->received. */
static bool receive(watch *w, const attn_attention_args *args, const float *by, const attn_tensor *dout, bool positive) {
    attn_attention_args call = *args;
    attn_received_args r = { .received =
                                 attn_dense(ATTN_F32, w->received, 3, (int64_t[]){ 1, args->q.shape[1], args->k.shape[2] }) };
    if (by) r.by = attn_dense(ATTN_F32, by, 1, &args->q.shape[2]);
    if (dout) r.dout = *dout;
    r.positive = positive;
    call.see = (attn_see){ .lse = args->see.lse };
    if (!w->status) w->status = attn_attention_received(&call, &r, NULL);
    return !w->status;
}

/* A row becomes shares of the tokens that stand for input. Where no weight lies on any of them, all are 0. */
static void share(const watch *w, const double *row, double *out) {
    const explain_look *l = w->look;
    double sum = 0;
    for (int32_t t = 0; t < l->tokens; t++) sum += (out[t] = (w->counts ? w->counts[t] : t > 0) ? row[t] : 0);
    for (int32_t t = 0; t < l->tokens && sum > 0; t++) out[t] /= sum;
}

/* One layer down: the row times the heads' mean, and what the residual leaves as it is. Of the last layer, head by head too. */
static void step(watch *w, int32_t layer, const attn_attention_args *args, const attn_tensor *dout) {
    explain_look *l = w->look;
    const size_t n = (size_t)l->tokens;
    for (size_t t = 0; t < n; t++) w->by[t] = (float)w->row[t];
    if (!receive(w, args, w->by, dout, dout != NULL)) return;
    for (size_t h = 0; layer == l->layers - 1 && h < (size_t)l->heads; h++) {
        for (size_t t = 0; t < n; t++) w->mixed[t] = (double)w->received[h * n + t];
        share(w, w->mixed, l->head_relevance + h * n);
    }
    bool reads = w->method == EXPLAIN_ATTENTION;
    if (reads && l->pool) return; /* its own weights are what is asked for */
    double keep = reads ? 0 : 1, half = w->method == EXPLAIN_ROLLOUT ? 0.5 : 1;
    for (size_t t = 0; t < n; t++) {
        double mean = 0;
        for (size_t h = 0; h < (size_t)l->heads; h++) mean += (double)w->received[h * n + t];
        w->row[t] = half * (keep * w->row[t] + mean / l->heads);
    }
}

/* What the head reads: the first token, or a pool's mix of all. */
static void read_out(watch *w) {
    const explain_look *l = w->look;
    for (int32_t t = 0; t < l->tokens; t++) w->row[t] = l->pool ? (double)l->pool[t] : t == 0;
}

/* The pool's weights times their gradients, each counted against the weighted mean. */
static void read_out_by_gradient(watch *w, const attn_attention_args *args, const attn_tensor *dout) {
    const explain_look *l = w->look;
    double mean = 0;
    if (!receive(w, args, NULL, dout, false)) return;
    for (int32_t t = 0; t < l->tokens; t++) mean += (double)w->received[t];
    for (int32_t t = 0; t < l->tokens; t++) w->row[t] = fmax(0, (double)w->received[t] - (double)l->pool[t] * mean);
}

/* The backward comes from the top down, as the row does. */
static void gradient(void *context, int32_t layer, const attn_attention_args *args, const attn_tensor *dout) {
    watch *w = context;
    if (layer == w->look->layers)
        read_out_by_gradient(w, args, dout);
    else
        step(w, layer, args, dout);
}

/* The same without gradients, when the forward is over. */
static void go_down(watch *w) {
    int32_t lowest = w->method == EXPLAIN_ROLLOUT ? 0 : w->look->layers - 1;
    for (int32_t i = w->look->layers - 1; i >= lowest; i--) step(w, i, &w->args[i], NULL);
}

/* ---- one pass --------------------------------------------------------------------------------------------------------------- */

static int failed_pass(attn_status status, io_error *error) {
    int code = status == ATTN_NO_MEMORY ? IO_NO_ROOM : IO_BAD_MODEL;
    return io_fail(error, code, "the model cannot be computed: %s", attn_last_error());
}

/* Memory whose size is known once the example has been fetched. */
static int allocate(watch *w, bool pools, io_error *error) {
    explain_look *l = w->look;
    size_t tokens = (size_t)l->tokens, heads = (size_t)l->heads;
    l->entropy = array_new((size_t)l->layers * heads * tokens, sizeof *l->entropy);
    l->probabilities = array_new((size_t)l->classes, sizeof *l->probabilities);
    l->relevance = array_new(tokens, sizeof *l->relevance);
    l->head_relevance = array_new(heads * tokens, sizeof *l->head_relevance);
    w->args = array_new((size_t)l->layers, sizeof *w->args);
    w->row = array_new(2 * tokens, sizeof *w->row);
    w->by = array_new((1 + heads) * tokens, sizeof *w->by);
    bool all = l->entropy && l->probabilities && l->relevance && l->head_relevance && w->args && w->row && w->by;
    if (pools) all &= (l->pool = array_new(tokens, sizeof *l->pool)) != NULL;
    if (!all) return io_no_memory(error, "what every head looks at", (size_t)l->layers * heads * tokens * sizeof *l->entropy);
    w->mixed = w->row + tokens;
    w->received = w->by + tokens;
    return IO_OK;
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

static int run(watch *w, nn_pass *pass, io_error *error) {
    explain_look *l = w->look;
    bool back = w->method == EXPLAIN_GRADIENT;
    nn_observer observer = { .context = w, .see = see, .seen = seen, .gradient = back ? gradient : NULL };
    pass->observer = &observer;
    attn_status status = nn_forward(pass);
    if (!status) status = nn_class_probabilities(nn_data(pass, pass->graph->output), l->probabilities);
    if (status) return failed_pass(status, error);
    name_answer(l);
    read_out(w);
    if (!back) {
        go_down(w);
        return w->status ? failed_pass(w->status, error) : IO_OK;
    }
    nn_row_gradients rows = { 0 };
    int failed = lend_gradients(pass, &rows, error);
    if (!failed && ((status = go_back(pass, l)) || (status = w->status))) failed = failed_pass(status, error);
    free(pass->gradients);
    free(rows.ids);
    free(rows.rows);
    return failed;
}

int explain_look_at(explain_look *look, const nn_model *m, const nn_examples *examples, uint32_t which, int32_t method,
                    const bool *counts, io_error *error) {
    *look = (explain_look){ .layers = m->config.layers, .heads = m->config.heads, .classes = m->config.n_labels };
    watch w = { .look = look, .method = method, .counts = counts };
    nn_pass pass;
    int failed = nn_pass_open(&pass, &m->graph, error);
    if (failed) return failed;
    pass.examples = 1;
    examples->fetch(examples, &which, &pass);
    look->tokens = (int32_t)pass.tokens;
    failed = allocate(&w, m->config.attention_pool, error);
    if (!failed) failed = run(&w, &pass, error);
    nn_pass_close(&pass);
    if (!failed) share(&w, w.row, look->relevance);
    free(w.args);
    free(w.row);
    free(w.by);
    if (failed) explain_look_free(look);
    return failed;
}

void explain_look_free(explain_look *l) {
    free(l->probabilities);
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
