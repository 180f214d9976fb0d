/* SPDX-License-Identifier: Apache-2.0 */
/* attn softmax: the softmax family along any axis of a .npy array. Rows of numbers on stdin are in softmax_rows.c. */
#define _POSIX_C_SOURCE 200809L
#include "softmax.h"

#include <math.h>

#include "commands.h"
#include "message.h"

static const char *const op_names[] = { "softmax", "log-softmax", "softmin", "logsumexp", "sparsemax", "entmax15",
                                        "entmax",  "gumbel",      "top-k",   "sample",    NULL };
/* What each means to attn_softmax and attn_logsumexp; nothing to those that choose. */
static const int32_t ops[OP_SAMPLE + 1] = {
    [OP_SOFTMAX] = ATTN_SOFTMAX,   [OP_LOG_SOFTMAX] = ATTN_LOG_SOFTMAX, [OP_SOFTMIN] = ATTN_SOFTMIN,
    [OP_LOGSUMEXP] = ATTN_SOFTMAX, [OP_SPARSEMAX] = ATTN_SPARSEMAX,     [OP_ENTMAX15] = ATTN_ENTMAX15,
    [OP_ENTMAX] = ATTN_ENTMAX,     [OP_GUMBEL] = ATTN_GUMBEL_SOFTMAX
};

static const char *const order_names[] = { "softmax-top-k", "top-k-softmax", "sigmoid-top-k", NULL };
static const char *const dtype_names[] = { "bf16", "f16", NULL };

int32_t softmax_dtype(const softmax_settings *s) { return s->dtype.value == 0 ? ATTN_BF16 : ATTN_F16; }

bool softmax_reduces(const softmax_settings *s) { return s->op.value == OP_LOGSUMEXP; }

attn_softmax_args softmax_args(const softmax_settings *s) {
    return (attn_softmax_args){
        .op = ops[s->op.value],
        .flags = s->scale.given ? ATTN_SCALE_SET : 0,
        .scale = s->scale.value,
        .alpha = s->alpha.value,
        .temperature = s->temperature.value,
        .hard = s->hard,
        .seed = s->seed.value,
    };
}

int softmax_call(const softmax_settings *s, const attn_softmax_args *args, const attn_exec *exec) {
    attn_status status = softmax_reduces(s) ? attn_logsumexp(args, exec) : attn_softmax(args, exec);
    return status ? fail_status(status, op_names[s->op.value]) : IO_OK;
}

/* An option that not every operation takes. */
typedef struct own_option {
    const char *name;
    bool given;
    int32_t of, also; /* the operations that take it; -1: no second one */
} own_option;

static int check_settings(const softmax_settings *s) {
    const own_option own[] = {
        { "alpha", s->alpha.given, OP_ENTMAX, -1 },
        { "temperature", s->temperature.given, OP_GUMBEL, OP_SAMPLE },
        { "hard", s->hard, OP_GUMBEL, -1 },
        { "seed", s->seed.given, OP_GUMBEL, OP_SAMPLE },
        { "top-k", s->top_k.given, OP_TOP_K, OP_SAMPLE },
        { "order", s->order.given, OP_TOP_K, -1 },
        { "normalize", s->normalize, OP_TOP_K, -1 },
        { "index", s->index != NULL, OP_TOP_K, -1 },
        { "top-p", s->top_p.given, OP_SAMPLE, -1 },
        { "min-p", s->min_p.given, OP_SAMPLE, -1 },
        { "probability", s->probability != NULL, OP_SAMPLE, -1 },
    };
    const int32_t op = s->op.value;
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (own[i].given && op != own[i].of && op != own[i].also)
            return fail(IO_BAD_USAGE, "--%s belongs to --op %s%s%s, not to %s", own[i].name, op_names[own[i].of],
                        own[i].also < 0 ? "" : " and ", own[i].also < 0 ? "" : op_names[own[i].also], op_names[op]);
    if (op == OP_GUMBEL && s->temperature.given && !(s->temperature.value > 0))
        return fail(IO_BAD_USAGE, "--temperature is 0; it has to be above 0");
    if (s->top_p.given && !(s->top_p.value > 0)) return fail(IO_BAD_USAGE, "--top-p is 0; it has to be above 0");
    if (softmax_chooses(s) && s->mask)
        return fail(IO_BAD_USAGE, "--op %s takes no --mask; elements of -inf are masked", op_names[op]);
    if (op == OP_SAMPLE && (s->scale.given || s->bias))
        return fail(IO_BAD_USAGE, "--op sample takes no --%s", s->scale.given ? "scale" : "bias");
    if (op == OP_TOP_K && s->bias && s->order.value != ATTN_SIGMOID_TOP_K)
        return fail(IO_BAD_USAGE, "--bias of top-k belongs to --order sigmoid-top-k, not to %s", order_names[s->order.value]);
    if (op == OP_TOP_K && s->normalize && s->order.value == ATTN_TOP_K_SOFTMAX)
        return fail(IO_BAD_USAGE, "--order top-k-softmax takes no --normalize: its weights sum to 1 already");
    if (op == OP_TOP_K && !s->top_k.given) return fail(IO_BAD_USAGE, "--op top-k needs --top-k: how many are chosen");
    return IO_OK;
}

/* A mask or bias aligned with x from the right, as NumPy broadcasts: axes that it lacks are of extent 1 here, so that moving an axis
 * moves the same one in both. What does not fit is left to the library, which says so. */
static attn_tensor align(const attn_tensor *t, int32_t rank) {
    if (t->rank >= rank) return *t;
    attn_tensor wide = { .data = t->data, .dtype = t->dtype, .rank = rank };
    for (int32_t axis = 0; axis < rank; axis++) {
        int32_t own = axis - (rank - t->rank);
        wide.shape[axis] = own < 0 ? 1 : t->shape[own];
        wide.stride[axis] = own < 0 ? 0 : t->stride[own];
    }
    return wide;
}

/* The arrays in use: x and what stands beside it. */
typedef struct inputs {
    npy_array x, mask, bias;
} inputs;

static int load(const softmax_settings *s, inputs *in, int32_t *axis) {
    int failed = array_load("x", s->in, ARRAY_FLOAT, &in->x);
    if (!failed && s->mask) failed = array_load("--mask", s->mask, ARRAY_BOOL, &in->mask);
    if (!failed && s->bias) failed = array_load("--bias", s->bias, ARRAY_FLOAT, &in->bias);
    if (failed) return failed;
    int64_t asked = s->axis.given ? s->axis.value : -1, rank = in->x.tensor.rank;
    if (asked < -rank || asked >= rank)
        return fail(IO_BAD_USAGE, "--axis is %lld; %s has %d %s", (long long)asked, s->in, (int)rank,
                    rank == 1 ? "axis" : "axes");
    *axis = (int32_t)(asked < 0 ? asked + rank : asked);
    if (s->dtype.given) failed = array_round("x", &in->x, softmax_dtype(s));
    if (!failed && s->bias) failed = array_adapt("--bias", &in->bias, in->x.tensor.dtype, s->dtype.given);
    return failed;
}

/* One output in the shape of x, or x without the axis. */
static int add_output(const softmax_settings *s, const attn_tensor *x, int32_t axis, outputs *out, attn_tensor *y) {
    int64_t shape[ATTN_MAX_RANK];
    int32_t rank = 0;
    for (int32_t i = 0; i < x->rank; i++)
        if (i != axis || !softmax_reduces(s)) shape[rank++] = x->shape[i];
    int failed = outputs_add(out, "-o", s->out, x->dtype, rank, shape, y);
    if (!failed && !softmax_reduces(s)) *y = attn_axis_last(*y, axis);
    return failed;
}

static int softmax_array(const softmax_settings *s, inputs *in, outputs *out, const attn_exec *exec) {
    int32_t axis = 0;
    int failed = load(s, in, &axis);
    if (failed) return failed;
    const attn_tensor *x = &in->x.tensor;
    if (softmax_chooses(s)) {
        failed = softmax_choose(s, x, axis, &in->bias.tensor, out, exec);
        return failed ? failed : outputs_write(out);
    }
    attn_softmax_args args = softmax_args(s);
    args.x = attn_axis_last(*x, axis);
    if (s->mask) args.mask = attn_axis_last(align(&in->mask.tensor, x->rank), axis);
    if (s->bias) args.bias = attn_axis_last(align(&in->bias.tensor, x->rank), axis);
    failed = add_output(s, x, axis, out, &args.y);
    if (!failed) failed = softmax_call(s, &args, exec);
    return failed ? failed : outputs_write(out);
}

static int run(const void *settings, const attn_exec *exec) {
    const softmax_settings *s = settings;
    int failed = check_settings(s);
    if (failed) return failed;
    if (!s->in) return softmax_rows(s, exec);
    inputs in = { .x = { .fortran = false } };
    outputs out = { 0 };
    failed = softmax_array(s, &in, &out, exec);
    outputs_free(&out);
    npy_free(&in.x);
    npy_free(&in.mask);
    npy_free(&in.bias);
    return failed;
}

#define FIELD(name) offsetof(softmax_settings, name)
static const option options[] = {
    { .name = "IN.npy",
      .kind = OPTION_ARGUMENT,
      .field = FIELD(in),
      .help =
          "the array x (float32, float64 or float16); - is an array on stdin; without it rows of numbers are read from stdin, of "
          "any lengths, and one row of results is printed for each" },
    { .name = "out",
      .kind = OPTION_TEXT,
      .letter = 'o',
      .field = FIELD(out),
      .value = "OUT.npy",
      .help = "where the result goes (default: stdout, as a table on a terminal); of top-k the weights, of sample the "
              "classes" },
    { .name = "axis",
      .kind = OPTION_INTEGER,
      .field = FIELD(axis),
      .value = "N",
      .help = "the axis to work along (default -1, the last)" },
    { .name = "op",
      .kind = OPTION_CHOICE,
      .field = FIELD(op),
      .choices = op_names,
      .help = "the operation (default softmax); logsumexp and sample take the axis away, top-k leaves K of it" },
    { .name = "scale",
      .kind = OPTION_REAL,
      .field = FIELD(scale),
      .value = "S",
      .help = "multiplies x first, of top-k the weights (default 1)" },
    { .name = "bias",
      .kind = OPTION_TEXT,
      .field = FIELD(bias),
      .value = "B.npy",
      .help = "added to scale * x; broadcasts to x; -inf masks; of top-k, order sigmoid-top-k: [experts], added to what "
              "chooses alone" },
    { .name = "mask",
      .kind = OPTION_TEXT,
      .field = FIELD(mask),
      .value = "M.npy",
      .help = "booleans, true = live; broadcasts to x; a masked element gets weight 0 and its value does not count" },
    { .name = "alpha",
      .kind = OPTION_REAL,
      .field = FIELD(alpha),
      .value = "A",
      .low = 1,
      .high = INFINITY,
      .help = "of entmax: 1 is softmax, 2 is sparsemax (default 1.5)" },
    { .name = "temperature",
      .kind = OPTION_REAL,
      .field = FIELD(temperature),
      .value = "T",
      .low = 0,
      .high = INFINITY,
      .help = "of gumbel and sample (default 1); 0 in sample: the first of the largest" },
    { .name = "hard", .kind = OPTION_FLAG, .field = FIELD(hard), .help = "of gumbel: one-hot results" },
    { .name = "seed",
      .kind = OPTION_SEED,
      .field = FIELD(seed),
      .value = "N",
      .help = "of gumbel's noise and of sample's draws (default 0); line i of stdin has seed N + i - 1" },
    { .name = "top-k",
      .kind = OPTION_INTEGER,
      .field = FIELD(top_k),
      .value = "K",
      .low = 0,
      .high = INT32_MAX,
      .help = "of top-k: how many experts are chosen; of sample: only the K largest may be drawn (default 0: all)" },
    { .name = "order",
      .kind = OPTION_CHOICE,
      .field = FIELD(order),
      .choices = order_names,
      .help = "of top-k: softmax over all experts and then the K largest (default), the softmax of the K largest alone, or "
              "the K largest sigmoids" },
    { .name = "normalize",
      .kind = OPTION_FLAG,
      .field = FIELD(normalize),
      .help = "of top-k: the chosen weights are divided by their sum" },
    { .name = "index",
      .kind = OPTION_TEXT,
      .field = FIELD(index),
      .value = "I.npy",
      .help = "of top-k: where the chosen experts go, int32, the first choice first, -1 where there is none" },
    { .name = "top-p",
      .kind = OPTION_REAL,
      .field = FIELD(top_p),
      .value = "P",
      .low = 0,
      .high = 1,
      .help = "of sample, after --top-k: only the fewest of the likeliest that make up P may be drawn (default 1: all)" },
    { .name = "min-p",
      .kind = OPTION_REAL,
      .field = FIELD(min_p),
      .value = "M",
      .low = 0,
      .high = 1,
      .help = "of sample, after --top-p: only those at least M times as likely as the likeliest (default 0: all)" },
    { .name = "probability",
      .kind = OPTION_TEXT,
      .field = FIELD(probability),
      .value = "P.npy",
      .help = "of sample: where the probability of each draw goes" },
    { .name = "dtype",
      .kind = OPTION_CHOICE,
      .field = FIELD(dtype),
      .choices = dtype_names,
      .help = "rounds x to bfloat16 or float16 first; the result is float32" },
    { .kind = OPTION_END },
};

const command command_softmax = {
    .name = "softmax",
    .summary = "softmax and its family, along any axis of an array",
    .about =
        "Turns numbers into weights: exp(x) / sum exp(x) along one axis, computed so that nothing overflows, or another of the "
        "family; or chooses by them: a router's top-k softmax, sampling. A row without a live element gives 0 (log-softmax and "
        "logsumexp: -inf; what is chosen of it: -1); NaN shows in its own row only.",
    .examples = "  echo 1 2 3 | attn softmax\n"
                "  attn softmax scores.npy -o weights.npy --axis 1\n"
                "  attn softmax x.npy --op logsumexp --mask live.npy | attn inspect -\n"
                "  attn softmax router.npy --op top-k --top-k 8 --normalize -o weights.npy --index experts.npy\n"
                "  attn softmax logits.npy --op sample --temperature 0.8 --top-k 50 --top-p 0.95 --seed 7 -o tokens.npy\n",
    .options = options,
    .settings_size = sizeof(softmax_settings),
    .run = run,
};
