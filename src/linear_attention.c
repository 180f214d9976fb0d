/* SPDX-License-Identifier: Apache-2.0 */
/* attn_linear_attention and its gradients: checks everything, and hands each head of keys to chunks of kernels or to the
 * reference, whose gradients keep the states of each chunk's beginning and recompute those within it. */
#include "linear_attention.h"
#include "arena.h"
#include "operand.h"
#include "status.h"

#include "ref/linear_attention.h"

#include <math.h>
#include <string.h>

/* ---- checks ------------------------------------------------------------------------------------------------- */

static const char *const rule_names[] = { "ATTN_LINEAR", "ATTN_GATED", "ATTN_DELTA", "ATTN_GATED_DELTA" };

/* decay and beta: there exactly where the rule has them. */
static attn_status check_presence(const char *name, const attn_tensor *t, bool wanted, int32_t rule) {
    if (attn_present(t) == wanted) return ATTN_OK;
    return attn_fail(ATTN_BAD_ARGUMENT, wanted ? "%s is absent: the rule %s needs it" : "%s is given: the rule %s has none", name,
                     rule_names[rule]);
}

static attn_status check_queries(const attn_linear_attention_args *a, attn_linear_plan *p) {
    attn_status s = attn_check_float("q", &a->q, ATTN_INPUT, 4, 4);
    if (s == ATTN_OK) s = attn_check_float("k", &a->k, ATTN_INPUT, 4, 4);
    if (s == ATTN_OK) s = attn_check_float("v", &a->v, ATTN_INPUT, 4, 4);
    if (s != ATTN_OK) return s;
    const int64_t heads = a->q.shape[1], kv_heads = a->k.shape[1];
    p->batch = a->q.shape[0], p->length = a->q.shape[2], p->key_dim = a->q.shape[3];
    p->kv_heads = kv_heads, p->value_dim = a->v.shape[3];
    if (kv_heads ? heads % kv_heads || heads == 0 : heads)
        return attn_fail(ATTN_BAD_SHAPE, "q has %lld heads, which is no multiple of k's %lld", (long long)heads,
                         (long long)kv_heads);
    p->group = kv_heads ? heads / kv_heads : 0;
    const int64_t keys[] = { p->batch, kv_heads, p->length, p->key_dim },
                  values[] = { p->batch, kv_heads, p->length, p->value_dim };
    s = attn_check_operand("k", &a->k, ATTN_INPUT, 4, keys, a->q.dtype, "q, but for its heads,");
    if (s == ATTN_OK) s = attn_check_operand("v", &a->v, ATTN_INPUT, 4, values, a->q.dtype, "k, but for its columns,");
    return s;
}

static attn_status check_gates(const attn_linear_attention_args *a, attn_linear_plan *p) {
    const int64_t tokens[] = { p->batch, p->kv_heads, p->length, p->key_dim };
    p->gated = a->rule == ATTN_GATED || a->rule == ATTN_GATED_DELTA;
    p->delta = a->rule == ATTN_DELTA || a->rule == ATTN_GATED_DELTA;
    p->each = p->gated && a->decay.rank == 4;
    attn_status s = check_presence("decay", &a->decay, p->gated, a->rule);
    if (s == ATTN_OK) s = check_presence("beta", &a->beta, p->delta, a->rule);
    if (s == ATTN_OK && p->gated)
        s = attn_check_operand("decay", &a->decay, ATTN_INPUT, p->each ? 4 : 3, tokens, a->q.dtype,
                               p->each ? "k" : "[batch, k's heads, length]");
    if (s == ATTN_OK && p->delta)
        s = attn_check_operand("beta", &a->beta, ATTN_INPUT, 3, tokens, a->q.dtype, "[batch, k's heads, length]");
    return s;
}

/* What both ways share: all inputs. */
static attn_status check_inputs(const attn_linear_attention_args *a, attn_linear_plan *p) {
    *p = (attn_linear_plan){ .a = a };
    if (!a) return attn_fail(ATTN_BAD_ARGUMENT, "linear attention has no arguments");
    if (a->rule < ATTN_LINEAR || a->rule > ATTN_GATED_DELTA)
        return attn_fail(ATTN_BAD_ARGUMENT, "rule is %d: it is ATTN_LINEAR, ATTN_GATED, ATTN_DELTA or ATTN_GATED_DELTA",
                         (int)a->rule);
    if (a->flags) return attn_fail(ATTN_BAD_ARGUMENT, "flags 0x%x mean nothing to linear attention", (unsigned)a->flags);
    if (!isfinite(a->scale))
        return attn_fail(ATTN_BAD_ARGUMENT, "scale is %g: it is a finite number, 0 for the default", a->scale);
    attn_status s = attn_check_reserved("attn_linear_attention_args", a->reserved, sizeof a->reserved / sizeof *a->reserved);
    if (s == ATTN_OK) s = check_queries(a, p);
    if (s == ATTN_OK) s = check_gates(a, p);
    if (s != ATTN_OK) return s;
    p->scale = a->scale != 0 ? a->scale : p->key_dim ? 1 / sqrt((double)p->key_dim) : 1;
    const int64_t states[] = { p->batch, p->kv_heads, p->key_dim, p->value_dim };
    if (attn_present(&a->past_state))
        s = attn_check_operand("past_state", &a->past_state, ATTN_INPUT, 4, states, a->q.dtype,
                               "[batch, k's heads, key_dim, value_dim]");
    return s;
}

static attn_status check_forward(const attn_linear_attention_args *a, attn_linear_plan *p) {
    attn_status s = check_inputs(a, p);
    if (s != ATTN_OK) return s;
    const int64_t outs[] = { p->batch, p->kv_heads * p->group, p->length, p->value_dim };
    const int64_t states[] = { p->batch, p->kv_heads, p->key_dim, p->value_dim };
    s = attn_check_operand("out", &a->out, ATTN_OUTPUT, 4, outs, a->q.dtype, "[batch, heads, length, value_dim]");
    if (s == ATTN_OK && attn_present(&a->state))
        s = attn_check_operand("state", &a->state, ATTN_OUTPUT, 4, states, a->q.dtype, "[batch, k's heads, key_dim, value_dim]");
    return s;
}

/* A gradient, where it is wanted, of an input that is there. */
static attn_status check_gradient(const char *name, const attn_tensor *d, const char *input, const attn_tensor *t,
                                  int32_t dtype) {
    if (!attn_present(d)) return ATTN_OK;
    if (!attn_present(t)) return attn_fail(ATTN_BAD_ARGUMENT, "%s is given, and there is no %s", name, input);
    return attn_check_operand(name, d, ATTN_OUTPUT, t->rank, t->shape, dtype, input);
}

static attn_status check_backward(const attn_linear_attention_args *a, const attn_linear_attention_grads *g,
                                  attn_linear_plan *p) {
    attn_status s = check_inputs(a, p);
    if (s != ATTN_OK) return s;
    if (!g) return attn_fail(ATTN_BAD_ARGUMENT, "linear attention has no gradients to work on");
    s = attn_check_reserved("attn_linear_attention_grads", g->reserved, sizeof g->reserved / sizeof *g->reserved);
    if (s != ATTN_OK) return s;
    p->g = g;
    const int64_t outs[] = { p->batch, p->kv_heads * p->group, p->length, p->value_dim };
    const attn_tensor states = { .dtype = a->q.dtype, .rank = 4, .shape = { p->batch, p->kv_heads, p->key_dim, p->value_dim } };
    const int32_t dtype = a->q.dtype;
    s = attn_check_operand("dout", &g->dout, ATTN_INPUT, 4, outs, dtype, "[batch, heads, length, value_dim]");
    if (s == ATTN_OK && attn_present(&g->dstate))
        s = attn_check_operand("dstate", &g->dstate, ATTN_INPUT, 4, states.shape, dtype,
                               "[batch, k's heads, key_dim, value_dim]");
    if (s == ATTN_OK) s = check_gradient("dq", &g->dq, "q", &a->q, dtype);
    if (s == ATTN_OK) s = check_gradient("dk", &g->dk, "k", &a->k, dtype);
    if (s == ATTN_OK) s = check_gradient("dv", &g->dv, "v", &a->v, dtype);
    if (s == ATTN_OK) s = check_gradient("ddecay", &g->ddecay, "decay", &a->decay, dtype);
    if (s == ATTN_OK) s = check_gradient("dbeta", &g->dbeta, "beta", &a->beta, dtype);
    if (s == ATTN_OK) s = check_gradient("dpast_state", &g->dpast_state, "state", &states, dtype);
    return s;
}

/* ---- memory ---------------------------------------------------------------------------------------------------- */

/* The kernels, where all operands are of one type that has some. */
static const attn_kernels *kernels_for(const attn_linear_plan *p) {
    const attn_linear_attention_args *a = p->a;
    const attn_linear_attention_grads none = { 0 }, *g = p->g ? p->g : &none;
    const attn_tensor absent = { 0 }, *out = p->g ? &absent : &a->out,
                      *state = p->g ? &absent : &a->state; /* not read backward */
    const attn_tensor *const operands[] = {
        &a->q,    &a->k,      &a->v,  out,    state,  &a->decay,  &a->beta,  &a->past_state,
        &g->dout, &g->dstate, &g->dq, &g->dk, &g->dv, &g->ddecay, &g->dbeta, &g->dpast_state
    };
    const attn_kernels *k = attn_operand_kernels(sizeof operands / sizeof *operands, operands);
    return k && k->matmul.block && !p->each ? k : NULL;
}

/* What a worker of the reference has for itself. Of the last three, forward needs the one state. */
typedef struct reference_memory {
    double *state, *value, *work; /* [key_dim][value_dim], [value_dim], [2 (key_dim + value_dim)] */
    double *first, *within;       /* backward: states, at the beginning of each chunk; around each token of one */
} reference_memory;

static int64_t chunks_of(const attn_linear_plan *p) { return p->length / LINEAR_CHUNK + (p->length % LINEAR_CHUNK != 0); }

static reference_memory lay_out(const attn_linear_plan *p, attn_arena *at) {
    const int64_t dk = p->key_dim, dv = p->value_dim;
    const int64_t tokens = p->length < LINEAR_CHUNK ? p->length : LINEAR_CHUNK;
    reference_memory m = { .state = attn_take(at, dk, dv, sizeof(double)), .value = attn_take(at, dv, 1, sizeof(double)) };
    if (!p->g) return m;
    m.work = attn_take(at, (int64_t)((uint64_t)dk + (uint64_t)dv), 2, sizeof(double));
    size_t each;
    if (__builtin_mul_overflow((size_t)dk, (size_t)dv, &each) || each > INT64_MAX) at->used = SIZE_MAX;
    m.first = attn_take(at, chunks_of(p), (int64_t)each, sizeof(double));
    m.within = attn_take(at, tokens + 1, (int64_t)each, sizeof(double));
    return m;
}

/* Nothing is to be written: then nothing bounds the extents either. */
static bool idle(const attn_linear_plan *p) {
    const attn_linear_attention_args *a = p->a;
    const attn_linear_attention_grads none = { 0 }, *g = p->g ? p->g : &none;
    const attn_tensor *const forward[] = { &a->out, &a->state };
    const attn_tensor *const backward[] = { &g->dq, &g->dk, &g->dv, &g->ddecay, &g->dbeta, &g->dpast_state };
    const attn_tensor *const *outputs = p->g ? backward : forward;
    for (int i = 0; i < (p->g ? 6 : 2); i++)
        if (attn_present(outputs[i]) && attn_count(outputs[i]) > 0) return false;
    return true;
}

static int64_t items_of(const attn_linear_plan *p) { return idle(p) ? 0 : p->batch * p->kv_heads; }

static attn_need reference_need(const attn_linear_plan *p) {
    attn_arena count = { 0 };
    if (idle(p)) return (attn_need){ 0 };
    lay_out(p, &count);
    return (attn_need){ .per_worker = count.used };
}

static attn_need need_of(const attn_linear_plan *p, const attn_kernels *k) {
    if (!k || idle(p)) return reference_need(p);
    return p->g ? attn_linear_chunks_backward_need(p, k) : attn_linear_chunks_need(p, k);
}

/* Data is not looked at: whatever is not there stands for what is. */
static void give_addresses(attn_tensor *const *tensors, size_t n) {
    static double something;
    for (size_t i = 0; i < n; i++)
        if (tensors[i]->rank != 0 && !tensors[i]->data) tensors[i]->data = &something;
}

static attn_linear_attention_args with_addresses(const attn_linear_attention_args *a) {
    attn_linear_attention_args b = *a;
    attn_tensor *const tensors[] = { &b.q, &b.k, &b.v, &b.out, &b.decay, &b.beta, &b.past_state, &b.state };
    give_addresses(tensors, sizeof tensors / sizeof *tensors);
    return b;
}

size_t attn_linear_attention_workspace(const attn_linear_attention_args *a, int32_t n_threads) {
    attn_linear_plan p;
    if (!a) return 0;
    const attn_linear_attention_args b = with_addresses(a);
    return check_forward(&b, &p) == ATTN_OK ? attn_need_bytes(need_of(&p, kernels_for(&p)), n_threads) : 0;
}

size_t attn_linear_attention_backward_workspace(const attn_linear_attention_args *a, const attn_linear_attention_grads *g,
                                                int32_t n_threads) {
    attn_linear_plan p;
    if (!a || !g) return 0;
    const attn_linear_attention_args b = with_addresses(a);
    attn_linear_attention_grads h = *g;
    attn_tensor *const tensors[] = { &h.dout, &h.dstate, &h.dq, &h.dk, &h.dv, &h.ddecay, &h.dbeta, &h.dpast_state };
    give_addresses(tensors, sizeof tensors / sizeof *tensors);
    return check_backward(&b, &h, &p) == ATTN_OK ? attn_need_bytes(need_of(&p, kernels_for(&p)), n_threads) : 0;
}

/* ---- the reference ------------------------------------------------------------------------------------------------ */

/* Axes 2 and 3 of a tensor at (batch, head); absent of an absent one. */
static ref_matrix head_of(const attn_tensor *t, int64_t batch, int64_t head) {
    if (!attn_present(t)) return (ref_matrix){ 0 };
    return (ref_matrix){ attn_at(t, batch * t->stride[0] + head * t->stride[1]), t->stride[2], t->rank > 3 ? t->stride[3] : 0,
                         t->dtype };
}
static ref_vector column_of(const attn_tensor *t, int64_t batch, int64_t head) {
    ref_matrix m = head_of(t, batch, head);
    return (ref_vector){ m.data, m.row, m.dtype };
}
static ref_heads heads_of(const attn_tensor *t, int64_t batch, int64_t head) {
    return (ref_heads){ head_of(t, batch, head), attn_present(t) ? t->stride[1] : 0 };
}

static ref_linear_attention reference_of(const attn_linear_plan *p, int64_t batch, int64_t head) {
    const attn_linear_attention_args *a = p->a;
    return (ref_linear_attention){ .length = p->length,
                                   .group = p->group,
                                   .key_dim = p->key_dim,
                                   .value_dim = p->value_dim,
                                   .delta = p->delta,
                                   .scale = p->scale,
                                   .k = head_of(&a->k, batch, head),
                                   .v = head_of(&a->v, batch, head),
                                   .q = heads_of(&a->q, batch, head * p->group),
                                   .decay = head_of(&a->decay, batch, head),
                                   .each = p->each,
                                   .beta = column_of(&a->beta, batch, head) };
}

/* A state of zeros where it is absent. */
static void load_state(const attn_linear_plan *p, ref_matrix from, double *state) {
    for (int64_t i = 0; i < p->key_dim; i++)
        for (int64_t j = 0; j < p->value_dim; j++) state[i * p->value_dim + j] = from.data ? ref_at(from, i, j) : 0;
}
static void store_state(const attn_linear_plan *p, const double *state, ref_matrix to) {
    for (int64_t i = 0; to.data && i < p->key_dim; i++)
        for (int64_t j = 0; j < p->value_dim; j++) ref_set(to, i, j, state[i * p->value_dim + j]);
}

static void forward_item(void *context, int64_t item, void *scratch) {
    const attn_linear_plan *p = context;
    const int64_t batch = item / p->kv_heads, head = item % p->kv_heads;
    const ref_linear_attention r = reference_of(p, batch, head);
    const reference_memory m = lay_out(p, &(attn_arena){ .begin = scratch });
    const ref_heads out = heads_of(&p->a->out, batch, head * p->group);
    load_state(p, head_of(&p->a->past_state, batch, head), m.state);
    for (int64_t t = 0; t < p->length; t++) {
        ref_linear_step(&r, t, m.state, m.value);
        ref_linear_read(&r, t, m.state, out);
    }
    store_state(p, m.state, head_of(&p->a->state, batch, head));
}

static void backward_item(void *context, int64_t item, void *scratch) {
    const attn_linear_plan *p = context;
    const attn_linear_attention_grads *g = p->g;
    const int64_t batch = item / p->kv_heads, head = item % p->kv_heads, each = p->key_dim * p->value_dim;
    const size_t bytes = (size_t)each * sizeof(double);
    const ref_linear_attention r = reference_of(p, batch, head);
    const ref_linear_grads d = { .dout = heads_of(&g->dout, batch, head * p->group),
                                 .dq = heads_of(&g->dq, batch, head * p->group),
                                 .dk = head_of(&g->dk, batch, head),
                                 .dv = head_of(&g->dv, batch, head),
                                 .ddecay = head_of(&g->ddecay, batch, head),
                                 .dbeta = column_of(&g->dbeta, batch, head) };
    const reference_memory m = lay_out(p, &(attn_arena){ .begin = scratch });
    load_state(p, head_of(&p->a->past_state, batch, head), m.state);
    for (int64_t t = 0; t < p->length; t++) {
        if (t % LINEAR_CHUNK == 0 && bytes) memcpy(m.first + t / LINEAR_CHUNK * each, m.state, bytes);
        ref_linear_step(&r, t, m.state, m.value);
    }
    load_state(p, head_of(&g->dstate, batch, head), m.state); /* from here on the gradient */
    for (int64_t c = chunks_of(p) - 1; c >= 0; c--) {
        int64_t begin = c * LINEAR_CHUNK, n = p->length - begin < LINEAR_CHUNK ? p->length - begin : LINEAR_CHUNK;
        if (bytes) memcpy(m.within, m.first + c * each, bytes);
        for (int64_t t = 0; t < n; t++) {
            if (bytes) memcpy(m.within + (t + 1) * each, m.within + t * each, bytes);
            ref_linear_step(&r, begin + t, m.within + (t + 1) * each, m.value);
        }
        for (int64_t t = n - 1; t >= 0; t--)
            ref_linear_step_backward(&r, &d, begin + t, m.within + t * each, m.within + (t + 1) * each, m.state, m.work);
    }
    store_state(p, m.state, head_of(&g->dpast_state, batch, head));
}

/* ---- the calls ------------------------------------------------------------------------------------------------------ */

attn_status attn_linear_attention(const attn_linear_attention_args *a, const attn_exec *exec) {
    attn_linear_plan p;
    attn_session session;
    attn_status s = check_forward(a, &p);
    if (s != ATTN_OK) return s;
    const attn_kernels *k = kernels_for(&p);
    s = attn_session_open(&session, exec, need_of(&p, k));
    if (s != ATTN_OK) return s;
    if (k)
        attn_linear_chunks_run(&p, k, items_of(&p), &session);
    else
        attn_session_run(&session, items_of(&p), forward_item, &p);
    attn_session_close(&session);
    return ATTN_OK;
}

attn_status attn_linear_attention_backward(const attn_linear_attention_args *a, const attn_linear_attention_grads *g,
                                           const attn_exec *exec) {
    attn_linear_plan p;
    attn_session session;
    attn_status s = check_backward(a, g, &p);
    if (s != ATTN_OK) return s;
    const attn_kernels *k = kernels_for(&p);
    s = attn_session_open(&session, exec, need_of(&p, k));
    if (s != ATTN_OK) return s;
    if (k)
        attn_linear_chunks_backward_run(&p, k, items_of(&p), &session);
    else
        attn_session_run(&session, items_of(&p), backward_item, &p);
    attn_session_close(&session);
    return ATTN_OK;
}
