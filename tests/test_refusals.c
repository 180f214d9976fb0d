/* SPDX-License-Identifier: Apache-2.0 */
/* Every operation, called with one thing wrong at a time: each tensor's rank, type, alignment, data and extent, each option, the
 * reserved words, the exec. All are refused, and nothing is written. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/tensors.h"

#include <attn/ops.h>

/* ---- right calls ---------------------------------------------------------------------------------------------------- */

/* A number that an option refuses. */
typedef struct wrong {
    enum { NOTHING_WRONG, INT32_WRONG, INT64_WRONG, DOUBLE_WRONG } kind;
    size_t at;
    double value;
} wrong;

/* An operation and its structs, all right: the reserved words are a struct's last. */
typedef struct call {
    const char *name;
    attn_status (*run)(const void *args, const void *grads, const attn_exec *exec);
    void *args, *grads; /* grads NULL: it takes none */
    size_t args_size, grads_size;
    const wrong *wrongs; /* of args, ended by NOTHING_WRONG */
    bool loose;          /* no struct of the library's: no reserved words, and NULL is no answer */
} call;

static attn_tensor made[64];
static int n_made;
static bool is_output[64];

static attn_tensor make(int32_t dtype, bool output, int32_t rank, const int64_t *shape) {
    attn_tensor t = tensor_of(dtype, rank, shape);
    if (!output)
        for (int64_t i = 0; i < attn_count(&t); i++) put(t, i, dtype == ATTN_F32 ? 0.25 * (double)(i % 5) : 0);
    is_output[n_made] = output;
    return made[n_made++] = t;
}
#define IN(...)      make(ATTN_F32, false, sizeof((int64_t[]){ __VA_ARGS__ }) / 8, (int64_t[]){ __VA_ARGS__ })
#define OUT(...)     make(ATTN_F32, true, sizeof((int64_t[]){ __VA_ARGS__ }) / 8, (int64_t[]){ __VA_ARGS__ })
#define IDS(...)     make(ATTN_I64, false, sizeof((int64_t[]){ __VA_ARGS__ }) / 8, (int64_t[]){ __VA_ARGS__ })
#define OUT_IDS(...) make(ATTN_I64, true, sizeof((int64_t[]){ __VA_ARGS__ }) / 8, (int64_t[]){ __VA_ARGS__ })
#define LIVE(...)    make(ATTN_BOOL, false, sizeof((int64_t[]){ __VA_ARGS__ }) / 8, (int64_t[]){ __VA_ARGS__ })

/* ---- what is wrong with them ------------------------------------------------------------------------------------------ */

static void assert_refused_untouched(const call *c, const void *args, const void *grads, const attn_exec *exec, const char *what,
                                     size_t at) {
    if (c->run(args, grads, exec) == ATTN_OK) fail_msg("%s at byte %zu is accepted by %s", what, at, c->name);
    for (int i = 0; i < n_made; i++)
        if (is_output[i] && made[i].dtype == ATTN_F32) assert_untouched(made[i]);
}

static const char *const tensor_wrongs[] = { "rank -1", "rank 7", "i8", "odd address", "no data", "f16", "longer" };
enum { N_TENSOR_WRONGS = sizeof tensor_wrongs / sizeof *tensor_wrongs, FIRST_FOR_FOLLOWERS = 5 };

static attn_tensor spoilt(attn_tensor t, int which) {
    switch (which) {
    case 0: t.rank = -1; break;
    case 1: t.rank = 7; break;
    case 2: t.dtype = ATTN_I8; break;
    case 3: t.data = (char *)t.data + (attn_dtype_size(t.dtype) > 1); break;
    case 4: t.data = NULL; break;
    case 5: t.dtype = ATTN_F16; break;
    case 6: t.shape[t.rank - 1]++; break;
    }
    return t;
}

static attn_status run_attn_rope_backward(const void *args, const void *grads, const attn_exec *exec);

/* Spoils each tensor of one of the structs, which is a copy of what the call has. */
static void spoil_tensors(const call *c, char *copy, size_t size, const void *args, const void *grads) {
    bool leads = copy == args || c->run == run_attn_rope_backward; /* the first tensor says what the others are to be */
    for (size_t at = 0; at + sizeof(attn_tensor) <= size; at += sizeof(void *))
        for (int i = 0; i < n_made; i++) {
            if (memcmp(copy + at, &made[i], sizeof made[i]) != 0) continue;
            for (int which = 0; which < (leads ? FIRST_FOR_FOLLOWERS : N_TENSOR_WRONGS); which++) {
                if (which == 3 && attn_dtype_size(made[i].dtype) == 1) continue;
                attn_tensor bad = spoilt(made[i], which);
                memcpy(copy + at, &bad, sizeof bad);
                assert_refused_untouched(c, args, grads, NULL, tensor_wrongs[which], at);
            }
            memcpy(copy + at, &made[i], sizeof made[i]);
            leads = false;
        }
}

static void spoil_reserved(const call *c, char *copy, size_t size, const void *args, const void *grads) {
    copy[size - 1] = 1;
    assert_int_equal(c->run(args, grads, NULL), ATTN_UNSUPPORTED);
    copy[size - 1] = 0;
}

/* The end of a test, and of a call. */
static int forget(void **state) {
    n_made = 0;
    return free_blocks(state);
}

static void assert_all_wrongs_are_refused(call c) {
    attn_exec nonsense = { .n_threads = -1 };
    char *args = malloc(c.args_size), *grads = c.grads ? malloc(c.grads_size) : NULL;
    assert_non_null(args);
    memcpy(args, c.args, c.args_size);
    if (grads) memcpy(grads, c.grads, c.grads_size);
    assert_refused_untouched(&c, args, grads, &nonsense, "a negative number of threads", 0);
    if (!c.loose) {
        assert_int_equal(c.run(NULL, grads, NULL), ATTN_BAD_ARGUMENT);
        if (grads) assert_int_equal(c.run(args, NULL, NULL), ATTN_BAD_ARGUMENT);
        spoil_reserved(&c, args, c.args_size, args, grads);
        if (grads) spoil_reserved(&c, grads, c.grads_size, args, grads);
    }
    spoil_tensors(&c, args, c.args_size, args, grads);
    if (grads) spoil_tensors(&c, grads, c.grads_size, args, grads);
    for (const wrong *w = c.wrongs; w && w->kind; w++) {
        char *field = args + w->at;
        if (w->kind == INT32_WRONG) *(int32_t *)(void *)field = (int32_t)w->value;
        if (w->kind == INT64_WRONG) *(int64_t *)(void *)field = (int64_t)w->value;
        if (w->kind == DOUBLE_WRONG) *(double *)(void *)field = w->value;
        assert_refused_untouched(&c, args, grads, NULL, "an option", w->at);
        memcpy(args, c.args, c.args_size);
    }
    assert_ok(c.run(args, grads, NULL)); /* and right it was */
    free(args);
    free(grads);
    forget(NULL);
}

#define RUN(operation)                                                                                                           \
    static attn_status run_##operation(const void *args, const void *grads, const attn_exec *exec) {                             \
        (void)grads;                                                                                                             \
        return operation(args, exec);                                                                                            \
    }
#define RUN_WITH(operation)                                                                                                      \
    static attn_status run_##operation(const void *args, const void *grads, const attn_exec *exec) {                             \
        return operation(args, grads, exec);                                                                                     \
    }
#define REFUSE(operation, a, ...)                                                                                                \
    assert_all_wrongs_are_refused((call){ #operation, run_##operation, &(a), NULL, sizeof(a), 0,                                 \
                                          (const wrong[]){ __VA_ARGS__{ NOTHING_WRONG, 0, 0 } }, false })
#define REFUSE_WITH(operation, a, g)                                                                                             \
    assert_all_wrongs_are_refused((call){ #operation, run_##operation, &(a), &(g), sizeof(a), sizeof(g), NULL, false })
#define REFUSE_LOOSE(operation, a)                                                                                               \
    assert_all_wrongs_are_refused((call){ #operation, run_##operation, &(a), NULL, sizeof(a), 0, NULL, true })
#define INT32(type, field, value)  { INT32_WRONG, offsetof(type, field), value },
#define INT64(type, field, value)  { INT64_WRONG, offsetof(type, field), value },
#define DOUBLE(type, field, value) { DOUBLE_WRONG, offsetof(type, field), value },

/* ---- elements, products, norms ------------------------------------------------------------------------------------------ */

RUN(attn_activation)
RUN_WITH(attn_activation_backward)
RUN(attn_gate)
RUN_WITH(attn_gate_backward)

static void activations_and_gates(void **state) {
    (void)state;
    attn_activation_args a = { .activation = ATTN_RELU, .x = IN(2, 3), .y = OUT(2, 3) };
    REFUSE(attn_activation, a,
           INT32(attn_activation_args, activation, -1) INT32(attn_activation_args, activation, 7)
               INT32(attn_activation_args, flags, 1));
    a = (attn_activation_args){ .activation = ATTN_RELU, .x = IN(2, 3) };
    attn_activation_grads g = { .dy = IN(2, 3), .dx = OUT(2, 3) };
    REFUSE_WITH(attn_activation_backward, a, g);
    attn_gate_args gate = { .x = IN(2, 3), .g = IN(2, 3), .y = OUT(2, 3) };
    REFUSE(attn_gate, gate, INT32(attn_gate_args, kind, -1) INT32(attn_gate_args, kind, 3) INT32(attn_gate_args, flags, 8));
    gate = (attn_gate_args){ .x = IN(2, 3), .g = IN(2, 3) };
    attn_gate_grads gg = { .dy = IN(2, 3), .dx = OUT(2, 3), .dg = OUT(2, 3) };
    REFUSE_WITH(attn_gate_backward, gate, gg);
}

/* Operations whose arguments are no struct. */
typedef struct pair {
    attn_tensor x, y;
} pair;

static attn_status run_attn_add(const void *args, const void *grads, const attn_exec *exec) {
    const pair *p = args;
    (void)grads;
    return attn_add(&p->x, 2, &p->y, exec);
}
static attn_status run_attn_dropout(const void *args, const void *grads, const attn_exec *exec) {
    const pair *p = args;
    (void)grads;
    return attn_dropout(&p->x, 0.5, 1, 2, &p->y, exec);
}
static attn_status run_attn_sum_rows(const void *args, const void *grads, const attn_exec *exec) {
    const pair *p = args;
    (void)grads;
    return attn_sum_rows(&p->x, &p->y, 0, exec);
}
static attn_status run_attn_sum_of_squares(const void *args, const void *grads, const attn_exec *exec) {
    double sum;
    (void)grads;
    return attn_sum_of_squares(args, &sum, exec);
}

typedef struct embedding_call {
    attn_tensor dy, dtable;
    attn_embedding_args args; /* of its table only the shape is read */
} embedding_call;

static attn_status run_attn_embedding_backward(const void *args, const void *grads, const attn_exec *exec) {
    const embedding_call *e = args;
    (void)grads;
    return attn_embedding_backward(&e->args, &e->dy, &e->dtable, exec);
}
RUN(attn_embedding)

static void elements(void **state) {
    (void)state;
    pair p = { IN(2, 3), OUT(2, 3) };
    REFUSE_LOOSE(attn_dropout, p);
    p = (pair){ IN(2, 3), OUT(3) };
    REFUSE_LOOSE(attn_sum_rows, p);
    attn_tensor x = IN(2, 3);
    REFUSE_LOOSE(attn_sum_of_squares, x);
    p = (pair){ IN(2, 3), OUT(2, 3) };
    REFUSE_LOOSE(attn_add, p);
    x = IN(2, 3);
    assert_refused(attn_dropout(&x, -0.5, 1, 2, &x, NULL), ATTN_BAD_ARGUMENT, "p is -0.5");
    assert_refused(attn_dropout(&x, 1.5, 1, 2, &x, NULL), ATTN_BAD_ARGUMENT, "p is 1.5");
    n_made = 0;
    attn_embedding_args e = { .table = IN(4, 3), .ids = IDS(2), .y = OUT(2, 3) };
    REFUSE(attn_embedding, e, INT32(attn_embedding_args, flags, 1));
    embedding_call back = { .args = { .table = tensor2(ATTN_F32, 4, 3) } };
    back.dy = IN(2, 3);
    back.dtable = IN(4, 3);
    back.args.ids = IDS(2);
    assert_ok(attn_embedding_backward(&back.args, &back.dy, &back.dtable, NULL));
    back.args.reserved[0] = 1;
    assert_refused(attn_embedding_backward(&back.args, &back.dy, &back.dtable, NULL), ATTN_UNSUPPORTED, "reserved");
    back.args.reserved[0] = 0;
    REFUSE_LOOSE(attn_embedding_backward, back);
    n_made = 0;
}

RUN(attn_matmul)
RUN(attn_norm)
RUN_WITH(attn_norm_backward)
RUN(attn_rope)
RUN_WITH(attn_rope_backward)

static void products_and_norms(void **state) {
    (void)state;
    attn_matmul_args m = {
        .a = IN(2, 3), .b = IN(3, 4), .c = OUT(2, 4), .bias = IN(4), .residual = IN(2, 4), .before = OUT(2, 4)
    };
    REFUSE(attn_matmul, m,
           INT32(attn_matmul_args, activation, -1) INT32(attn_matmul_args, activation, 7) INT32(attn_matmul_args, flags, 1));
    attn_norm_args n = { .x = IN(2, 3), .y = OUT(2, 3), .weight = IN(3), .bias = IN(3), .mean = OUT(2), .rstd = OUT(2) };
    REFUSE(attn_norm, n,
           INT32(attn_norm_args, kind, -1) INT32(attn_norm_args, kind, 2) INT32(attn_norm_args, kind, ATTN_RMS_NORM)
               INT32(attn_norm_args, flags, 1) DOUBLE(attn_norm_args, epsilon, -1) DOUBLE(attn_norm_args, epsilon, NAN));
    n = (attn_norm_args){ .kind = ATTN_RMS_NORM, .x = IN(2, 3), .y = OUT(2, 3) };
    attn_norm_args other = n;
    other.mean = OUT(2);
    assert_refused(attn_norm(&other, NULL), ATTN_BAD_ARGUMENT, "mean is given");
    n_made = 0;
    n = (attn_norm_args){ .x = IN(2, 3), .weight = IN(3) };
    attn_norm_grads g = { .dy = IN(2, 3), .dx = OUT(2, 3), .dweight = OUT(3), .dbias = OUT(3) };
    n.kind = ATTN_RMS_NORM;
    assert_refused(attn_norm_backward(&n, &g, NULL), ATTN_BAD_ARGUMENT, "dbias is given");
    n.kind = ATTN_LAYER_NORM;
    REFUSE_WITH(attn_norm_backward, n, g);
    attn_rope_args r = { .x = IN(2, 1, 3, 4), .y = OUT(2, 1, 3, 4), .cos = IN(5, 2), .sin = IN(5, 2), .positions = IDS(2, 3) };
    REFUSE(attn_rope, r,
           INT32(attn_rope_args, flags, 1) INT64(attn_rope_args, heads, 2) INT64(attn_rope_args, rotary_dim, 3)
               INT64(attn_rope_args, rotary_dim, 6) INT64(attn_rope_args, rotary_dim, -2));
    r = (attn_rope_args){ .cos = IN(2, 3, 2), .sin = IN(2, 3, 2) };
    attn_rope_grads rg = { .dy = IN(2, 1, 3, 4), .dx = OUT(2, 1, 3, 4) };
    REFUSE_WITH(attn_rope_backward, r, rg);
}

RUN(attn_adamw)
RUN(attn_muon)

static void optimisers(void **state) {
    (void)state;
#define ADAMW(field, value) DOUBLE(attn_adamw_args, field, value)
    attn_adamw_args a = { .param = IN(2, 3), .m = IN(2, 3), .v = IN(2, 3), .gradient = IN(2, 3), .lr = 0.1, .step = 1 };
    REFUSE(attn_adamw, a,
           ADAMW(lr, -1) ADAMW(lr, NAN) ADAMW(beta1, -1) ADAMW(beta1, 1) ADAMW(beta2, -1) ADAMW(beta2, 1) ADAMW(epsilon, -1)
               ADAMW(weight_decay, -1) ADAMW(weight_decay, INFINITY) ADAMW(grad_scale, NAN) INT64(attn_adamw_args, step, 0));
#define MUON(field, value) DOUBLE(attn_muon_args, field, value)
    attn_muon_args m = { .param = IN(2, 3), .m = IN(2, 3), .gradient = IN(2, 3), .lr = 0.1 };
    REFUSE(attn_muon, m,
           MUON(lr, -1) MUON(lr, NAN) MUON(momentum, -1) MUON(momentum, 1) MUON(weight_decay, -1) MUON(weight_decay, INFINITY)
               MUON(grad_scale, NAN));
}

/* ---- softmax, routers, losses ------------------------------------------------------------------------------------------- */

RUN(attn_softmax)
RUN_WITH(attn_softmax_backward)
RUN_WITH(attn_softmax_jvp)
RUN(attn_logsumexp)
RUN_WITH(attn_logsumexp_backward)
RUN_WITH(attn_logsumexp_jvp)

static void softmax(void **state) {
    (void)state;
#define SOFTMAX(field, value) DOUBLE(attn_softmax_args, field, value)
    attn_softmax_args a = { .x = IN(2, 3), .y = OUT(2, 3), .mask = LIVE(2, 3), .bias = IN(2, 3) };
    REFUSE(attn_softmax, a,
           INT32(attn_softmax_args, op, -1) INT32(attn_softmax_args, op, 7) INT32(attn_softmax_args, flags, 2)
               INT32(attn_softmax_args, hard, 1) SOFTMAX(scale, NAN) SOFTMAX(alpha, 1.5) SOFTMAX(temperature, 1));
    a = (attn_softmax_args){ .op = ATTN_ENTMAX, .x = IN(2, 3), .y = OUT(2, 3), .alpha = 1.2 };
    REFUSE(attn_softmax, a, SOFTMAX(alpha, 0.5) SOFTMAX(alpha, NAN));
    a = (attn_softmax_args){ .op = ATTN_GUMBEL_SOFTMAX, .x = IN(2, 3), .y = OUT(2, 3), .temperature = 1 };
    REFUSE(attn_softmax, a, SOFTMAX(temperature, -1) SOFTMAX(temperature, NAN));
    a = (attn_softmax_args){ .op = ATTN_ENTMAX, .y = IN(2, 3) };
    attn_softmax_grads g = { .dy = IN(2, 3), .dx = OUT(2, 3), .dalpha = OUT(1) };
    REFUSE_WITH(attn_softmax_backward, a, g);
    a = (attn_softmax_args){ .y = IN(2, 3) };
    attn_softmax_tangents t = { .dx = IN(2, 3), .dy = OUT(2, 3) };
    REFUSE_WITH(attn_softmax_jvp, a, t);
    a = (attn_softmax_args){ .x = IN(2, 3), .y = OUT(2) };
    REFUSE(attn_logsumexp, a, INT32(attn_softmax_args, op, -1));
    a = (attn_softmax_args){ .x = IN(2, 3) };
    g = (attn_softmax_grads){ .dy = IN(2), .dx = OUT(2, 3) };
    REFUSE_WITH(attn_logsumexp_backward, a, g);
    a = (attn_softmax_args){ .x = IN(2, 3) };
    t = (attn_softmax_tangents){ .dx = IN(2, 3), .dy = OUT(2) };
    REFUSE_WITH(attn_logsumexp_jvp, a, t);
}

RUN(attn_top_k_softmax)
RUN_WITH(attn_top_k_softmax_backward)
RUN(attn_sample)

static void routers_and_draws(void **state) {
    (void)state;
    attn_top_k_softmax_args a = {
        .order = ATTN_SIGMOID_TOP_K, .logits = IN(2, 4), .bias = IN(4), .index = OUT_IDS(2, 3), .weight = OUT(2, 3)
    };
    REFUSE(attn_top_k_softmax, a,
           INT32(attn_top_k_softmax_args, order, -1) INT32(attn_top_k_softmax_args, order, 3)
               INT32(attn_top_k_softmax_args, flags, 2) DOUBLE(attn_top_k_softmax_args, scale, INFINITY));
    a = (attn_top_k_softmax_args){ .logits = IN(2, 4), .index = IDS(2, 1) };
    attn_top_k_softmax_grads g = { .dweight = IN(2, 1), .dlogits = OUT(2, 4) };
    REFUSE_WITH(attn_top_k_softmax_backward, a, g);
    attn_sample_args s = { .logits = IN(2, 4), .index = OUT_IDS(2), .probability = OUT(2) };
#define SAMPLE(field, value) DOUBLE(attn_sample_args, field, value)
    REFUSE(attn_sample, s,
           SAMPLE(temperature, -1) SAMPLE(temperature, NAN) SAMPLE(top_p, -1) SAMPLE(top_p, 2) SAMPLE(min_p, -1) SAMPLE(min_p, 2)
               INT64(attn_sample_args, top_k, -1) INT32(attn_sample_args, flags, 1));
}

RUN(attn_cross_entropy)
RUN(attn_linear_cross_entropy)

static void losses(void **state) {
    (void)state;
#define LOSS(field, value) DOUBLE(attn_cross_entropy_args, field, value)
    attn_cross_entropy_args a = {
        .logits = IN(2, 3), .labels = IDS(2), .class_weight = IN(3), .loss = OUT(1), .dlogits = OUT(2, 3)
    };
    REFUSE(attn_cross_entropy, a,
           INT32(attn_cross_entropy_args, reduction, -1) INT32(attn_cross_entropy_args, reduction, 3)
               INT32(attn_cross_entropy_args, flags, 1) LOSS(label_smoothing, -1) LOSS(label_smoothing, 2) LOSS(z_loss, NAN));
    attn_linear_cross_entropy_args l = { .x = IN(2, 4),
                                         .weight = IN(3, 4),
                                         .bias = IN(3),
                                         .labels = IDS(2),
                                         .class_weight = IN(3),
                                         .loss = OUT(1),
                                         .dx = OUT(2, 4),
                                         .dweight = OUT(3, 4),
                                         .dbias = OUT(3) };
    REFUSE(attn_linear_cross_entropy, l, INT32(attn_linear_cross_entropy_args, reduction, 3));
}

/* ---- attention ---------------------------------------------------------------------------------------------------------- */

RUN(attn_attention)
RUN_WITH(attn_attention_backward)
RUN_WITH(attn_attention_jvp)
RUN_WITH(attn_attention_double_backward)
RUN_WITH(attn_attention_received)

static attn_attention_args attention(void) {
    return (attn_attention_args){
        .q = IN(2, 2, 3, 4), .k = IN(2, 1, 5, 4), .v = IN(2, 1, 5, 3), .bias = IN(2, 2, 3, 5), .kv_lengths = IDS(2)
    };
}

static void attentions(void **state) {
    (void)state;
#define ATTENTION(field, value) DOUBLE(attn_attention_args, field, value)
    attn_attention_args a = attention();
    a.out = OUT(2, 2, 3, 3);
    a.mask = LIVE(2, 2, 3, 5);
    a.alibi = IN(2, 2);
    a.sinks = IN(2);
    a.offset = IDS(2);
    a.q_lengths = IDS(2);
    a.see = (attn_see){ .lse = OUT(2, 2, 3),
                        .entropy = OUT(2, 2, 3),
                        .received = OUT(2, 2, 5),
                        .weights = OUT(2, 2, 3, 5),
                        .scores = OUT(2, 2, 3, 5),
                        .top_index = OUT_IDS(2, 2, 3, 2),
                        .top_weight = OUT(2, 2, 3, 2) };
    REFUSE(attn_attention, a,
           INT32(attn_attention_args, score, -1) INT32(attn_attention_args, score, 3) INT32(attn_attention_args, weighting, -1)
               INT32(attn_attention_args, weighting, 8) INT32(attn_attention_args, causal, -1)
                   INT32(attn_attention_args, causal, 3) INT32(attn_attention_args, flags, 64)
                       INT32(attn_attention_args, see.scores_stage, -1) INT32(attn_attention_args, see.scores_stage, 3)
                           ATTENTION(scale, NAN) ATTENTION(softcap, -1) ATTENTION(softcap, INFINITY) ATTENTION(alpha, 1.5)
                               ATTENTION(dropout, -1) ATTENTION(dropout, 2));
    a = attention();
    a.score = ATTN_ADDITIVE;
    a.score_weight = IN(2, 4);
    a.weighting = ATTN_WEIGHT_ENTMAX;
    a.alibi = IN(2);
    attn_attention_grads g = { .dout = IN(2, 2, 3, 3),
                               .dq = OUT(2, 2, 3, 4),
                               .dk = OUT(2, 1, 5, 4),
                               .dv = OUT(2, 1, 5, 3),
                               .dbias = OUT(2, 2, 3, 5),
                               .dscore_weight = OUT(2, 4),
                               .dalpha = OUT(1),
                               .dalibi = OUT(2, 2) };
    REFUSE_WITH(attn_attention_backward, a, g);
    a = attention();
    a.sinks = IN(2);
    g = (attn_attention_grads){ .dout = IN(2, 2, 3, 3), .dlse = IN(2, 2, 3), .dq = OUT(2, 2, 3, 4), .dsinks = OUT(2, 2) };
    REFUSE_WITH(attn_attention_backward, a, g);
    a = attention();
    attn_attention_tangents t = { .dq = IN(2, 2, 3, 4),
                                  .dk = IN(2, 1, 5, 4),
                                  .dv = IN(2, 1, 5, 3),
                                  .dbias = IN(2, 2, 3, 5),
                                  .dout = OUT(2, 2, 3, 3),
                                  .dlse = OUT(2, 2, 3) };
    REFUSE_WITH(attn_attention_jvp, a, t);
    a = attention();
    attn_attention_double_grads d = { .dout = IN(2, 2, 3, 3),
                                      .dlse = IN(2, 2, 3),
                                      .ddq = IN(2, 2, 3, 4),
                                      .ddk = IN(2, 1, 5, 4),
                                      .ddv = IN(2, 1, 5, 3),
                                      .dq = OUT(2, 2, 3, 4),
                                      .dk = OUT(2, 1, 5, 4),
                                      .dv = OUT(2, 1, 5, 3),
                                      .ddout = OUT(2, 2, 3, 3),
                                      .ddlse = OUT(2, 2, 3) };
    REFUSE_WITH(attn_attention_double_backward, a, d);
    a = attention();
    attn_received_args r = { .by = IN(2, 2, 3), .dout = IN(2, 2, 3, 3), .received = OUT(2, 2, 5) };
    REFUSE_WITH(attn_attention_received, a, r);
}

RUN(attn_linear_attention)
RUN_WITH(attn_linear_attention_backward)

static void linear_attention(void **state) {
    (void)state;
    attn_linear_attention_args a = { .rule = ATTN_GATED_DELTA,
                                     .q = IN(2, 2, 3, 4),
                                     .k = IN(2, 1, 3, 4),
                                     .v = IN(2, 1, 3, 5),
                                     .out = OUT(2, 2, 3, 5),
                                     .decay = IN(2, 1, 3),
                                     .beta = IN(2, 1, 3),
                                     .past_state = IN(2, 1, 4, 5),
                                     .state = OUT(2, 1, 4, 5) };
    REFUSE(attn_linear_attention, a,
           INT32(attn_linear_attention_args, rule, -1) INT32(attn_linear_attention_args, rule, 4)
               INT32(attn_linear_attention_args, flags, 1) DOUBLE(attn_linear_attention_args, scale, NAN));
    a = (attn_linear_attention_args){ .rule = ATTN_GATED_DELTA,
                                      .q = IN(2, 2, 3, 4),
                                      .k = IN(2, 1, 3, 4),
                                      .v = IN(2, 1, 3, 5),
                                      .decay = IN(2, 1, 3, 4),
                                      .beta = IN(2, 1, 3),
                                      .past_state = IN(2, 1, 4, 5) };
    attn_linear_attention_grads g = { .dout = IN(2, 2, 3, 5),
                                      .dstate = IN(2, 1, 4, 5),
                                      .dq = OUT(2, 2, 3, 4),
                                      .dk = OUT(2, 1, 3, 4),
                                      .dv = OUT(2, 1, 3, 5),
                                      .ddecay = OUT(2, 1, 3, 4),
                                      .dbeta = OUT(2, 1, 3),
                                      .dpast_state = OUT(2, 1, 4, 5) };
    REFUSE_WITH(attn_linear_attention_backward, a, g);
    assert_int_equal(attn_linear_attention_workspace(NULL, 1), 0);
    assert_int_equal(attn_linear_attention_backward_workspace(NULL, &g, 1), 0);
    assert_int_equal(attn_linear_attention_backward_workspace(&a, NULL, 1), 0);
}

static void merges(void **state) {
    (void)state;
    attn_tensor outs[] = { IN(2, 3), IN(2, 3) }, lses[] = { IN(2), IN(2) }, douts[] = { OUT(2, 3) }, dlses[] = { OUT(2) };
    attn_tensor bad_lses[] = { lses[0], lses[1] };
    attn_merge_args a = { .n = 2, .outs = outs, .lses = lses, .out = OUT(2, 3), .lse = OUT(2) };
    attn_exec nonsense = { .n_threads = -1 };
    assert_refused(attn_merge(&a, &nonsense), ATTN_BAD_ARGUMENT, "n_threads");
    a.lses = bad_lses;
    for (int which = 0; which < N_TENSOR_WRONGS; which++) {
        bad_lses[1] = spoilt(lses[1], which);
        if (attn_merge(&a, NULL) == ATTN_OK) fail_msg("%s is accepted", tensor_wrongs[which]);
    }
    attn_tensor halves[] = { tensor_of(ATTN_F16, 2, (int64_t[]){ 2, 3 }) },
                half_lse[] = { tensor_of(ATTN_F16, 1, (int64_t[]){ 2 }) };
    attn_merge_args sixteen = { .n = 1, .outs = halves, .lses = half_lse, .out = a.out };
    assert_refused(attn_merge(&sixteen, NULL), ATTN_UNSUPPORTED, "lses[0] is f16");
    attn_merge_args double_outs = {
        .n = 1, .outs = (attn_tensor[]){ tensor_of(ATTN_F64, 2, (int64_t[]){ 2, 3 }) }, .lses = lses, .out = a.out
    };
    assert_refused(attn_merge(&double_outs, NULL), ATTN_UNSUPPORTED, "lses[0] is f32: beside outs[0] of f64 it is f64");
    a.lses = lses;
    a.n = 1;
    for (int which = 0; which < N_TENSOR_WRONGS; which++) {
        attn_merge_grads wrong_dout = { .dout = spoilt(outs[0], which), .douts = douts };
        attn_merge_grads wrong_dlse = { .dout = outs[0], .dlse = spoilt(lses[0], which), .douts = douts };
        attn_tensor bad_dout[] = { spoilt(douts[0], which) }, bad_dlse[] = { spoilt(dlses[0], which) };
        attn_merge_grads wrong_douts = { .dout = outs[0], .douts = bad_dout };
        attn_merge_grads wrong_dlses = { .dout = outs[0], .dlses = bad_dlse };
        const attn_merge_grads *all[] = { &wrong_dout, &wrong_dlse, &wrong_douts, &wrong_dlses };
        for (int i = 0; i < 4; i++)
            if (attn_merge_backward(&a, all[i], NULL) == ATTN_OK) fail_msg("%s is accepted in %d", tensor_wrongs[which], i);
    }
    assert_refused(attn_merge_backward(&a, NULL, NULL), ATTN_BAD_ARGUMENT, "no gradients");
    assert_untouched(douts[0]);
    assert_untouched(a.out);
    n_made = 0;
}

/* Floats beside a first tensor of another type may be f32; these may not. */
static void followers_of_doubles_and_halves_are_of_their_type(void **state) {
    (void)state;
    attn_tensor d = tensor2(ATTN_F64, 2, 3), f = tensor2(ATTN_F32, 2, 3), row = tensor1(ATTN_F32, 2);
    attn_adamw_args adamw = { .param = d, .m = f, .v = d, .gradient = d, .lr = 0.1, .step = 1 };
    assert_refused(attn_adamw(&adamw, NULL), ATTN_UNSUPPORTED, "m is f32, param is f64");
    attn_muon_args muon = { .param = d, .m = d, .gradient = f, .lr = 0.1 };
    assert_refused(attn_muon(&muon, NULL), ATTN_UNSUPPORTED, "gradient is f32, param is f64");
    attn_norm_args norm = { .x = d, .y = d, .mean = row };
    assert_refused(attn_norm(&norm, NULL), ATTN_UNSUPPORTED, "mean is f32, for x of f64 it is f64");
    attn_matmul_args product = { .a = d, .b = attn_transposed(f), .c = tensor2(ATTN_F64, 2, 2) };
    assert_refused(attn_matmul(&product, NULL), ATTN_UNSUPPORTED, "b is f32, a is f64");
    attn_tensor h = tensor_of(ATTN_F16, 4, (int64_t[]){ 1, 1, 2, 3 });
    attn_attention_args attention = { .q = h, .k = h, .v = h, .out = h, .bias = tensor_of(ATTN_F64, 2, (int64_t[]){ 2, 2 }) };
    assert_refused(attn_attention(&attention, NULL), ATTN_BAD_ARGUMENT, "bias is f64: here it is f16 or f32");
}

static void every_status_has_a_name(void **state) {
    (void)state;
    static const char *const names[] = { "ok", "bad shape", "bad argument", "unsupported", "small workspace", "no memory" };
    for (int s = ATTN_OK; s <= ATTN_NO_MEMORY; s++) assert_string_equal(attn_status_name((attn_status)s), names[s]);
    assert_string_equal(attn_status_name((attn_status)99), "unknown status");
}

#define TEST(name) cmocka_unit_test_teardown(name, forget)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(activations_and_gates),
        TEST(elements),
        TEST(products_and_norms),
        TEST(optimisers),
        TEST(softmax),
        TEST(routers_and_draws),
        TEST(losses),
        TEST(attentions),
        TEST(linear_attention),
        TEST(merges),
        TEST(followers_of_doubles_and_halves_are_of_their_type),

        TEST(every_status_has_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
