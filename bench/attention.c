/* SPDX-License-Identifier: Apache-2.0 */
/* attention:b1h32k8q2048s2048d128v128,f32,causal,window256,padded,backward, and additive: likewise. k: key heads (default h), v: the
 * size of a value (default d). Operations are counted over the pairs of a query and a key that it sees. */
#include "case.h"

#include <string.h>

typedef struct attention_call {
    attn_attention_args args;
    attn_attention_grads grads;
    bool forward, backward;
} attention_call;

typedef struct attention_sizes {
    int64_t b, h, k, q, s, d, v;
} attention_sizes;

static const struct {
    const char *name;
    int32_t number;
} weightings[] = { { "sigmoid", ATTN_WEIGHT_SIGMOID },   { "normalized-sum", ATTN_WEIGHT_NORMALIZED_SUM },
                   { "relu2", ATTN_WEIGHT_RELU2 },       { "sparsemax", ATTN_WEIGHT_SPARSEMAX },
                   { "entmax15", ATTN_WEIGHT_ENTMAX15 }, { "entmax", ATTN_WEIGHT_ENTMAX },
                   { "hardmax", ATTN_WEIGHT_HARDMAX } };

/* ---- lengths of a padded batch: random.Random(1).randint(32, s) of Python, so that others can measure the same --------- */

enum { STATE = 624 };

/* The state of MT19937 that Python seeds with 1 (init_by_array of Matsumoto and Nishimura, 2002). */
static void seed_twister(uint32_t state[STATE]) {
    state[0] = 19650218;
    for (uint32_t i = 1; i < STATE; i++) state[i] = 1812433253u * (state[i - 1] ^ state[i - 1] >> 30) + i;
    uint32_t i = 1;
    for (int k = 0; k < STATE; k++) {
        state[i] = (state[i] ^ (state[i - 1] ^ state[i - 1] >> 30) * 1664525u) + 1;
        if (++i == STATE) state[0] = state[STATE - 1], i = 1;
    }
    for (int k = 0; k < STATE - 1; k++) {
        state[i] = (state[i] ^ (state[i - 1] ^ state[i - 1] >> 30) * 1566083941u) - i;
        if (++i == STATE) state[0] = state[STATE - 1], i = 1;
    }
    state[0] = 0x80000000u;
}

/* The next word; one after the other, as the state is renewed in place. */
static uint32_t next_word(uint32_t state[STATE], int *at) {
    int i = *at, next = (i + 1) % STATE;
    uint32_t y = (state[i] & 0x80000000u) | (state[next] & 0x7fffffffu);
    y = state[i] = state[(i + 397) % STATE] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
    *at = next;
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}

static attn_tensor padded_lengths(bench_case *c, int64_t batch, int64_t longest) {
    attn_tensor t = bench_output(c, ATTN_I64, 1, &batch);
    uint32_t state[STATE], range = (uint32_t)(longest - 31), bits = 0;
    int at = 0;
    while (range >> bits) bits++;
    seed_twister(state);
    for (int64_t b = 0; t.data && b < batch; b++) {
        uint32_t drawn;
        do drawn = next_word(state, &at) >> (32 - bits);
        while (drawn >= range);
        ((int64_t *)t.data)[b] = 32 + drawn;
    }
    return t;
}

/* ---- the call ------------------------------------------------------------------------------------------------------ */

/* Pairs that see each other in one entry of the batch, per head. */
static double live_pairs(int64_t q_length, int64_t kv_length, bool causal, int64_t window) {
    double pairs = 0;
    for (int64_t i = 0; i < q_length; i++) {
        int64_t position = i + kv_length - q_length, begin = 0, end = causal || window ? position + 1 : kv_length;
        if (window && position - window + 1 > begin) begin = position - window + 1;
        if (end > begin) pairs += (double)(end - begin);
    }
    return pairs;
}

static attn_status run(void *call, const attn_exec *exec) {
    attention_call *a = call;
    attn_status s = a->forward ? attn_attention(&a->args, exec) : ATTN_OK;
    return s == ATTN_OK && a->backward ? attn_attention_backward(&a->args, &a->grads, exec) : s;
}

static size_t workspace(const void *call, int32_t n_threads) {
    const attention_call *a = call;
    size_t forward = attn_attention_workspace(&a->args, n_threads), backward = 0;
    if (a->backward) backward = attn_attention_backward_workspace(&a->args, &a->grads, n_threads);
    return forward > backward ? forward : backward;
}

static void read_options(bench_problem *p, bench_case *c, const attention_sizes *n, attention_call *a) {
    attn_attention_args *args = &a->args;
    a->backward = bench_problem_has(p, "backward");
    a->forward = !a->backward;
    if (bench_problem_has(p, "train")) a->forward = a->backward = true;
    if (bench_problem_has(p, "causal")) args->causal = ATTN_CAUSAL;
    if (bench_problem_has(p, "cosine")) args->score = ATTN_COSINE;
    if (bench_problem_has(p, "dropout")) args->dropout = 0.1;
    if (bench_problem_has(p, "softcap")) args->softcap = 30;
    if (bench_problem_has(p, "sinks")) args->sinks = bench_tensor(c, p->dtype, 1, &n->h);
    if (bench_problem_has(p, "alibi")) args->alibi = bench_tensor(c, ATTN_F32, 1, &n->h);
    if (bench_problem_has(p, "mask")) args->mask = bench_mask(c, n->q, n->s);
    if (bench_problem_has(p, "bias")) args->bias = bench_tensor(c, p->dtype, 2, (const int64_t[]){ n->q, n->s });
    int64_t window = bench_problem_number(p, "window");
    if (window) args->flags |= ATTN_WINDOW, args->window[0] = window - 1;
    for (size_t i = 0; i < sizeof weightings / sizeof *weightings; i++)
        if (bench_problem_has(p, weightings[i].name)) args->weighting = weightings[i].number;
    if (bench_problem_has(p, "see")) {
        const int64_t rows[] = { n->b, n->h, n->q }, keys[] = { n->b, n->h, n->s };
        int32_t dtype = p->dtype == ATTN_F64 ? ATTN_F64 : ATTN_F32;
        args->see.lse = bench_output(c, dtype, 3, rows);
        args->see.entropy = bench_output(c, dtype, 3, rows);
        args->see.received = bench_output(c, dtype, 3, keys);
    }
}

static double count_flops(const attention_sizes *n, const attention_call *a) {
    const int64_t *lengths = a->args.kv_lengths.data;
    double pairs = 0, times = (a->forward ? 1 : 0) + (a->backward ? 2.5 : 0);
    int64_t window = a->args.flags & ATTN_WINDOW ? a->args.window[0] + 1 : 0;
    for (int64_t b = 0; b < n->b; b++)
        pairs +=
            lengths ? live_pairs(lengths[b], lengths[b], a->args.causal, window) : live_pairs(n->q, n->s, a->args.causal, window);
    return times * 2 * pairs * (double)n->h * (double)(n->d + n->v);
}

/* A backward pass alone is given what the forward pass before it leaves: out and lse. */
static int prepare_backward(bench_problem *p, bench_case *c, const attention_sizes *n, attention_call *a, io_error *error) {
    const int64_t q[] = { n->b, n->h, n->q, n->d }, k[] = { n->b, n->k, n->s, n->d }, v[] = { n->b, n->k, n->s, n->v },
                  out[] = { n->b, n->h, n->q, n->v };
    a->grads = (attn_attention_grads){ .dout = bench_tensor(c, p->dtype, 4, out),
                                       .dq = bench_output(c, p->dtype, 4, q),
                                       .dk = bench_output(c, p->dtype, 4, k),
                                       .dv = bench_output(c, p->dtype, 4, v) };
    if (a->args.weighting == ATTN_WEIGHT_SOFTMAX && !a->args.see.lse.data)
        a->args.see.lse = bench_output(c, p->dtype == ATTN_F64 ? ATTN_F64 : ATTN_F32, 3, (const int64_t[]){ n->b, n->h, n->q });
    if (c->failed || a->forward || attn_attention(&a->args, NULL) == ATTN_OK) return IO_OK;
    return io_fail(error, IO_BAD_USAGE, "%s: %s", p->text, attn_last_error());
}

int bench_attention(bench_problem *p, bench_case *c, io_error *error) {
    attention_sizes n;
    int64_t sizes[7];
    bool additive = strcmp(p->kind, "additive") == 0;
    int failed = bench_problem_sizes(p, "bhkqsdv", sizes, error);
    if (failed) return failed;
    memcpy(&n, sizes, sizeof n);
    if (!p->size['k' - 'a']) n.k = n.h;
    if (!p->size['v' - 'a']) n.v = n.d;
    attention_call *a = c->call = bench_memory(c, sizeof *a);
    if (!a) return IO_OK;
    *a = (attention_call){ .args.q = bench_tensor(c, p->dtype, 4, (const int64_t[]){ n.b, n.h, n.q, n.d }),
                           .args.k = bench_tensor(c, p->dtype, 4, (const int64_t[]){ n.b, n.k, n.s, n.d }),
                           .args.v = bench_tensor(c, p->dtype, 4, (const int64_t[]){ n.b, n.k, n.s, n.v }),
                           .args.out = bench_output(c, p->dtype, 4, (const int64_t[]){ n.b, n.h, n.q, n.v }),
                           .args.score = additive ? ATTN_ADDITIVE : ATTN_DOT };
    if (additive) a->args.score_weight = bench_tensor(c, p->dtype, 1, &n.d);
    read_options(p, c, &n, a);
    if (bench_problem_has(p, "padded")) {
        if (n.q != n.s || n.s < 32)
            return io_fail(error, IO_BAD_USAGE, "%s: a padded batch has lengths of 32 to s on both sides: q must equal s",
                           p->text);
        a->args.q_lengths = a->args.kv_lengths = padded_lengths(c, n.b, n.s);
    }
    if (c->failed) return IO_OK;
    c->flops = count_flops(&n, a);
    c->run = run;
    c->workspace = workspace;
    return a->backward ? prepare_backward(p, c, &n, a, error) : IO_OK;
}
