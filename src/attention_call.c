/* SPDX-License-Identifier: Apache-2.0 */
/* Runs planned calls. A sequence of a packed batch is a dense call of batch 1 over its own rows, so that its results are the bits
 * that it has alone. Short sequences are work items, each done by one worker; the rows of a long one are shared out among all.
 * Gradients that are summed over the batch are first made for each sequence, in double, and then added in their order. */
#include "attention_call.h"
#include "arena.h"

/* A sequence with more rows or keys than this is shared out. */
enum { SHORT = 512 };

static bool is_packed(const attn_attention_plan *p) { return p->q_starts.rank != 0; }

/* ---- a sequence ---------------------------------------------------------------------------------------------- */

/* Where sequence b begins. */
static int64_t start_of(const attn_tensor *starts, int64_t b) { return attn_int_at(starts, b * starts->stride[0]); }
static int64_t length_of(const attn_tensor *starts, int64_t b) { return start_of(starts, b + 1) - start_of(starts, b); }

/* Rows `start` .. `start + length - 1` along axis 2; an absent tensor stays absent. */
static void keep_rows(attn_tensor *t, int64_t start, int64_t length) {
    if (!t->rank) return;
    t->data = attn_at(t, start * t->stride[2]);
    t->shape[2] = length;
}

/* Entry b along axis 0, where there is more than one. */
static void keep_entry(attn_tensor *t, int64_t b) {
    if (!t->rank || t->shape[0] == 1) return;
    t->data = attn_at(t, b * t->stride[0]);
    t->shape[0] = 1;
}

static void keep_sequence_of_plan(attn_attention_plan *p, int64_t b) {
    int64_t q_start = start_of(&p->q_starts, b), kv_start = start_of(&p->kv_starts, b);
    p->q_len = length_of(&p->q_starts, b);
    p->kv_len = length_of(&p->kv_starts, b);
    attn_tensor *const rows[] = { &p->q, &p->out, &p->lse, &p->entropy, &p->top_index, &p->top_weight };
    attn_tensor *const keys[] = { &p->k, &p->v, &p->received };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) keep_rows(rows[i], q_start, p->q_len);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) keep_rows(keys[i], kv_start, p->kv_len);
    keep_entry(&p->alibi, b);
    keep_entry(&p->offset, b);
    p->first_entry = b;
    p->entries = 1;
    p->q_starts = p->kv_starts = (attn_tensor){ 0 };
}

/* The call of sequence b alone. What is summed over the batch still has its own place. */
static attn_attention_call sequence_of(const attn_attention_call *whole, int64_t b) {
    attn_attention_call one = *whole;
    const attn_attention_plan *p = &whole->plan;
    keep_sequence_of_plan(&one.plan, b);
    attn_attention_plan_grads *g = &one.grads;
    attn_attention_plan_tangents *t = &one.tangents;
    attn_attention_plan_received *r = &one.received;
    attn_tensor *const rows[] = { &g->dout, &g->dlse, &g->dq, &t->dq, &t->dout, &t->dlse, &r->by, &r->dout };
    attn_tensor *const keys[] = { &g->dk, &g->dv, &t->dk, &t->dv, &r->received };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) keep_rows(rows[i], start_of(&p->q_starts, b), one.plan.q_len);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) keep_rows(keys[i], start_of(&p->kv_starts, b), one.plan.kv_len);
    return one;
}

/* A dense call at least as large as every sequence. Where the starts are not there to be read (data NULL: a question), any sequence
 * could be the whole. */
static attn_attention_call largest_sequence(const attn_attention_call *whole) {
    attn_attention_call one = *whole;
    const attn_attention_plan *p = &whole->plan;
    int64_t q_len = 0, kv_len = 0;
    if (p->starts_known) {
        for (int64_t b = 0; b < p->entries; b++) {
            q_len = length_of(&p->q_starts, b) > q_len ? length_of(&p->q_starts, b) : q_len;
            kv_len = length_of(&p->kv_starts, b) > kv_len ? length_of(&p->kv_starts, b) : kv_len;
        }
        one.plan.q_len = q_len;
        one.plan.kv_len = kv_len;
    }
    return one;
}

/* ---- gradients that are summed over the batch ------------------------------------------------------------------ */

enum { SUMMED = 4 };

/* The four of a call, and how many numbers each has for one sequence. */
typedef struct summed_gradients {
    attn_tensor *t[SUMMED];
    double *each[SUMMED]; /* [entries][n]; NULL where sequences have places of their own */
    int64_t n[SUMMED];
} summed_gradients;

static summed_gradients summed_of(attn_attention_plan_grads *g) {
    summed_gradients s = { .t = { &g->dalibi, &g->dsinks, &g->dalpha, &g->dscore_weight } };
    for (int i = 0; i < SUMMED; i++) {
        const attn_tensor *t = s.t[i];
        s.n[i] = t->rank == 0 ? 0 : t->rank == 1 ? t->shape[0] : t->shape[0] * t->shape[1];
    }
    return s;
}

/* dalibi and dsinks may have a row for each sequence. */
static bool has_own_rows(const attn_attention_plan *p, int i, const attn_tensor *t) { return i < 2 && t->shape[0] == p->entries; }

static summed_gradients summed_in(const attn_attention_plan *p, attn_attention_plan_grads *g, attn_arena *arena) {
    summed_gradients s = summed_of(g);
    for (int i = 0; i < SUMMED; i++)
        if (s.t[i]->rank && !has_own_rows(p, i, s.t[i]))
            s.each[i] = attn_take(arena, p->entries > 0 ? p->entries : 1, s.n[i], sizeof(double));
    return s;
}

/* Turns the gradients of sequence b to where its shares go. */
static void turn_to_shares(const summed_gradients *shares, attn_attention_plan_grads *g, int64_t b) {
    summed_gradients own = summed_of(g);
    for (int i = 0; i < SUMMED; i++) {
        attn_tensor *t = own.t[i];
        if (!t->rank) continue;
        if (!shares->each[i])
            keep_entry(t, b);
        else
            *t = attn_dense(ATTN_F64, shares->each[i] + b * shares->n[i], t->rank, t->shape);
    }
}

static void add_shares(const attn_attention_plan *p, const summed_gradients *shares) {
    for (int i = 0; i < SUMMED; i++)
        for (int64_t n = 0; shares->each[i] && n < shares->n[i]; n++) {
            const attn_tensor *t = shares->t[i];
            int64_t columns = t->shape[t->rank - 1], row = n / columns, column = n % columns;
            int64_t at = t->rank == 1 ? column * t->stride[0] : row * t->stride[0] + column * t->stride[1];
            double total = 0;
            for (int64_t b = 0; b < p->entries; b++) total += shares->each[i][b * shares->n[i] + n];
            ref_store(t->data, t->dtype, at, total);
        }
}

/* ---- packed batches ------------------------------------------------------------------------------------------ */

/* Memory: shared among the workers for a long sequence, or everything of a short one in one worker's scratch. */
typedef struct packed_need {
    attn_need sequence; /* of the largest, shared out */
    attn_need alone;    /* of the largest that is short */
    size_t shares;      /* behind the sequence's shared memory */
} packed_need;

static size_t add(size_t a, size_t b) {
    size_t sum;
    return a > SIZE_MAX - 63 || b > SIZE_MAX - 63 || __builtin_add_overflow(attn_round64(a), attn_round64(b), &sum) ? SIZE_MAX
                                                                                                                    : sum;
}

static attn_need need_of(const attn_attention_kind *kind, attn_attention_call *call) {
    if (call->grads.along) call->grads.along = &call->tangents;
    return kind->need(call);
}

static packed_need packed_need_of(const attn_attention_kind *kind, const attn_attention_call *whole) {
    attn_attention_call largest = largest_sequence(whole), alone = largest;
    attn_attention_plan_grads grads = whole->grads;
    attn_arena shares = { 0 };
    summed_in(&whole->plan, &grads, &shares);
    alone.plan.q_len = largest.plan.q_len < SHORT ? largest.plan.q_len : SHORT;
    alone.plan.kv_len = largest.plan.kv_len < SHORT ? largest.plan.kv_len : SHORT;
    return (packed_need){ .sequence = need_of(kind, &largest), .alone = need_of(kind, &alone), .shares = shares.used };
}

static attn_need total_need(const packed_need *n) {
    size_t alone = add(n->alone.shared, n->alone.per_worker), shared_out = n->sequence.per_worker;
    return (attn_need){ .shared = add(n->sequence.shared, n->shares), .per_worker = alone > shared_out ? alone : shared_out };
}

typedef struct packed_run {
    const attn_attention_kind *kind;
    const attn_attention_call *whole;
    const packed_need *need;
    const summed_gradients *shares;
} packed_run;

static bool is_short(const attn_attention_plan *p, int64_t b) {
    return length_of(&p->q_starts, b) <= SHORT && length_of(&p->kv_starts, b) <= SHORT;
}

static void run_sequence(const packed_run *r, int64_t b, attn_session *session) {
    attn_attention_call one = sequence_of(r->whole, b);
    if (one.grads.along) one.grads.along = &one.tangents;
    turn_to_shares(r->shares, &one.grads, b);
    r->kind->run(&one, session);
}

/* A session of this worker alone. */
static void run_short_sequence(void *context, int64_t b, void *scratch) {
    const packed_run *r = context;
    if (!is_short(&r->whole->plan, b)) return;
    attn_session own = { .n_threads = 1,
                         .shared = scratch,
                         .scratch = (char *)scratch + attn_round64(r->need->alone.shared),
                         .per_worker = attn_round64(r->need->alone.per_worker) };
    run_sequence(r, b, &own);
}

static attn_status run_packed(const attn_attention_kind *kind, const attn_attention_call *whole, const attn_exec *exec) {
    const attn_attention_plan *p = &whole->plan;
    packed_need need = packed_need_of(kind, whole);
    attn_attention_plan_grads grads = whole->grads;
    attn_session session;
    attn_status s;
    if ((s = attn_session_open(&session, exec, total_need(&need)))) return s;
    attn_arena arena = { .begin = (char *)session.shared + attn_round64(need.sequence.shared) };
    summed_gradients shares = summed_in(p, &grads, &arena);
    packed_run r = { kind, whole, &need, &shares };
    attn_session_run(&session, p->entries, run_short_sequence, &r);
    for (int64_t b = 0; b < p->entries; b++)
        if (!is_short(p, b)) run_sequence(&r, b, &session);
    add_shares(p, &shares);
    attn_session_close(&session);
    return ATTN_OK;
}

/* ---- either ---------------------------------------------------------------------------------------------------- */

static attn_need any_need(const attn_attention_kind *kind, const attn_attention_call *call) {
    attn_attention_call dense = *call;
    if (!is_packed(&call->plan)) return need_of(kind, &dense);
    packed_need packed = packed_need_of(kind, call);
    return total_need(&packed);
}

size_t attn_attention_call_bytes(const attn_attention_kind *kind, const attn_attention_call *call, int32_t n_threads) {
    return attn_need_bytes(any_need(kind, call), n_threads);
}

attn_status attn_attention_call_run(const attn_attention_kind *kind, const attn_attention_call *call, const attn_exec *exec) {
    attn_attention_call dense = *call;
    attn_session session;
    attn_status s;
    if (is_packed(&call->plan)) return run_packed(kind, call, exec);
    if ((s = attn_session_open(&session, exec, need_of(kind, &dense)))) return s;
    kind->run(&dense, &session);
    attn_session_close(&session);
    return ATTN_OK;
}
