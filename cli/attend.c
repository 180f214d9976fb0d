/* SPDX-License-Identifier: Apache-2.0 */
/* attn attend: its options, and which of them go together. The work is in attend_run.c. */
#include "attend.h"

#include <math.h>

#include "commands.h"
#include "message.h"

/* In the order of the library's enumerators. */
static const char *const scores[] = { "dot", "additive", "cosine", NULL };
static const char *const weightings[] = { "softmax", "sigmoid", "normalized-sum", "sparsemax", "entmax15",
                                          "entmax",  "relu2",   "hardmax",        NULL };
static const char *const causals[] = { "bottom-right", "top-left", NULL }; /* one more is the enumerator */
static const char *const stages[] = { "weighted", "capped", "raw", NULL };
static const char *const dtypes[] = { "bf16", "f16", NULL };

/* An output or option that makes sense only beside another one. */
static int needs(bool asked, const char *what, bool there, const char *other) {
    if (!asked || there) return IO_OK;
    return fail(IO_BAD_USAGE, "%s needs %s", what, other);
}

static int check_gradients(const attend_settings *s) {
    bool any = s->dq || s->dk || s->dv || s->dbias || s->dsinks || s->dalibi || s->dalpha || s->dscore_weight;
    int failed = needs(any, "a gradient", s->dout, "--dout, the gradient of the output");
    if (!failed) failed = needs(s->dlse, "--dlse", s->dout, "--dout beside it");
    if (!failed) failed = needs(s->dout, "--dout", any, "an output: --dq, --dk, --dv, --dbias, ...");
    if (!failed) failed = needs(s->dbias, "--dbias", s->bias, "--bias");
    if (!failed) failed = needs(s->dsinks, "--dsinks", s->sinks, "--sinks");
    if (!failed) failed = needs(s->dalibi, "--dalibi", s->alibi, "--alibi");
    if (!failed) failed = needs(s->dalpha, "--dalpha", s->weighting.value == ATTN_WEIGHT_ENTMAX, "--weighting entmax");
    if (!failed) failed = needs(s->dscore_weight, "--dscore-weight", s->score_weight, "--score-weight");
    return failed;
}

static int check_combination(const attend_settings *s) {
    bool additive = s->score.value == ATTN_ADDITIVE;
    bool top = s->top_index || s->top_weight;
    int failed = needs(additive, "--score additive", s->score_weight, "--score-weight");
    if (!failed) failed = needs(s->score_weight, "--score-weight", additive, "--score additive");
    if (!failed) failed = needs(s->alpha.given, "--alpha", s->weighting.value == ATTN_WEIGHT_ENTMAX, "--weighting entmax");
    if (!failed) failed = needs(s->seed.given, "--seed", s->dropout.given, "--dropout");
    if (!failed) failed = needs(s->scores_stage.given, "--scores-stage", s->scores, "--scores");
    if (!failed) failed = needs(s->see_rows, "--see-rows", s->weights || s->scores, "--weights or --scores");
    if (!failed) failed = needs(s->see_heads, "--see-heads", s->weights || s->scores, "--weights or --scores");
    if (!failed) failed = needs(s->received_by, "--received-by", s->received, "--received to write to");
    if (!failed) failed = needs(s->pooled, "--pooled", s->pooled_size.given, "--pooled-size, such as 16x16");
    if (!failed) failed = needs(s->pooled_size.given, "--pooled-size", s->pooled, "--pooled to write to");
    if (!failed) failed = needs(top, "--top-index or --top-weight", s->top_k.given, "--top-k");
    if (!failed) failed = needs(s->block_size.given, "--block-size", s->block_mask, "--block-mask");
    if (!failed) failed = needs(s->kv_starts, "--kv-starts", s->q_starts, "--q-starts");
    if (!failed) failed = needs(s->top_k.given, "--top-k", top, "--top-index or --top-weight to write to");
    if (!failed && s->causal.given && s->causal.value == 1 && s->offset)
        failed = fail(IO_BAD_USAGE, "--causal=top-left means offset 0; --offset beside it contradicts that: use --causal");
    return failed ? failed : check_gradients(s);
}

static int run(const void *settings, const attn_exec *exec) {
    const attend_settings *s = settings;
    int failed = check_combination(s);
    return failed ? failed : attend_run(s, exec);
}

#define FIELD(name) offsetof(attend_settings, name)
static const option options[] = {
    { .name = "q",
      .kind = OPTION_TEXT,
      .field = FIELD(q),
      .value = "Q.npy",
      .required = true,
      .help = "queries [batch, heads, q_len, dim]" },
    { .name = "k",
      .kind = OPTION_TEXT,
      .field = FIELD(k),
      .value = "K.npy",
      .required = true,
      .help = "keys [batch, k_heads, kv_len, dim]; k_heads divides heads" },
    { .name = "v",
      .kind = OPTION_TEXT,
      .field = FIELD(v),
      .value = "V.npy",
      .required = true,
      .help = "values [batch, v_heads, kv_len, v_dim]; v_heads divides heads" },
    { .name = "out",
      .kind = OPTION_TEXT,
      .letter = 'o',
      .field = FIELD(out),
      .value = "OUT.npy",
      .help = "where the output goes (default: stdout, as a table on a terminal)" },
    { .name = "dtype",
      .kind = OPTION_CHOICE,
      .field = FIELD(dtype),
      .choices = dtypes,
      .help = "rounds q, k, v and dout to bfloat16 or float16 first; outputs are float32" },

    { .name = "Score: how well a query and a key fit", .kind = OPTION_HEADING },
    { .name = "score",
      .kind = OPTION_CHOICE,
      .field = FIELD(score),
      .choices = scores,
      .help = "default dot; additive is w.tanh(q + k)" },
    { .name = "score-weight",
      .kind = OPTION_TEXT,
      .field = FIELD(score_weight),
      .value = "W.npy",
      .help = "the w of the additive score: [dim] or [heads, dim]" },
    { .name = "scale",
      .kind = OPTION_REAL,
      .field = FIELD(scale),
      .value = "S",
      .help = "multiplies the scores (default 1/sqrt(dim) for dot, else 1)" },
    { .name = "softcap",
      .kind = OPTION_REAL,
      .field = FIELD(softcap),
      .value = "C",
      .low = 0,
      .high = INFINITY,
      .help = "scores become C tanh(s/C) (default 0: they stay)" },
    { .name = "bias",
      .kind = OPTION_TEXT,
      .field = FIELD(bias),
      .value = "B.npy",
      .help = "added to the scores; broadcasts to [batch, heads, q_len, kv_len]; -inf masks" },
    { .name = "alibi",
      .kind = OPTION_TEXT,
      .field = FIELD(alibi),
      .value = "SLOPES.npy",
      .help = "adds -slope |i + offset - j|; [heads] or [batch, heads]" },

    { .name = "What a query may see", .kind = OPTION_HEADING },
    { .name = "causal",
      .kind = OPTION_CHOICE,
      .field = FIELD(causal),
      .choices = causals,
      .bare = true,
      .help = "no key after the query; alone it is bottom-right: the last query stands on the last key" },
    { .name = "offset",
      .kind = OPTION_TEXT,
      .field = FIELD(offset),
      .value = "N|N.npy",
      .help =
          "the position of query 0, for causal, window and alibi; one number or one per batch entry (default kv_len - q_len)" },
    { .name = "window",
      .kind = OPTION_PAIR,
      .field = FIELD(window),
      .value = "L,R",
      .low = -1,
      .high = INFINITY,
      .help = "keys kept left and right of the query's position; -1: all on that side" },
    { .name = "mask",
      .kind = OPTION_TEXT,
      .field = FIELD(mask),
      .value = "M.npy",
      .help = "booleans, true = attend; broadcasts to [batch, heads, q_len, kv_len]" },
    { .name = "block-mask",
      .kind = OPTION_TEXT,
      .field = FIELD(block_mask),
      .value = "M.npy",
      .help = "booleans, one for a block of queries and keys: true = attend, false is not computed; broadcasts to [batch, heads, "
              "ceil(q_len / size), ceil(kv_len / size)]" },
    { .name = "block-size",
      .kind = OPTION_INTEGER,
      .field = FIELD(block_size),
      .value = "N",
      .low = 1,
      .high = INFINITY,
      .help = "queries and keys of a block of --block-mask (default 128)" },
    { .name = "kv-lengths",
      .kind = OPTION_TEXT,
      .field = FIELD(kv_lengths),
      .value = "N.npy",
      .help = "how many keys each batch entry has: whole numbers [batch]" },
    { .name = "q-lengths",
      .kind = OPTION_TEXT,
      .field = FIELD(q_lengths),
      .value = "N.npy",
      .help = "how many queries each batch entry has: whole numbers [batch]" },
    { .name = "q-starts",
      .kind = OPTION_TEXT,
      .field = FIELD(q_starts),
      .value = "N.npy",
      .help = "a packed batch: where each sequence begins, and the total, [sequences + 1]; arrays are [total, heads, dim]" },
    { .name = "kv-starts",
      .kind = OPTION_TEXT,
      .field = FIELD(kv_starts),
      .value = "N.npy",
      .help = "the same of keys and values (default: as --q-starts)" },

    { .name = "Weight: scores become weights", .kind = OPTION_HEADING },
    { .name = "weighting", .kind = OPTION_CHOICE, .field = FIELD(weighting), .choices = weightings, .help = "default softmax" },
    { .name = "alpha",
      .kind = OPTION_REAL,
      .field = FIELD(alpha),
      .value = "A",
      .low = 1,
      .high = INFINITY,
      .help = "of entmax: 1 is softmax, 2 is sparsemax (default 1.5)" },
    { .name = "sinks",
      .kind = OPTION_TEXT,
      .field = FIELD(sinks),
      .value = "S.npy",
      .help = "one logit per head [heads], in the softmax denominator only" },
    { .name = "dropout",
      .kind = OPTION_REAL,
      .field = FIELD(dropout),
      .value = "P",
      .low = 0,
      .high = 1,
      .help = "drops weights with probability P; survivors grow by 1/(1-P)" },
    { .name = "seed", .kind = OPTION_SEED, .field = FIELD(seed), .value = "N", .help = "of the dropout (default 0)" },

    { .name = "See: what the weights were, from the same call", .kind = OPTION_HEADING },
    { .name = "lse",
      .kind = OPTION_TEXT,
      .field = FIELD(lse),
      .value = "FILE",
      .help = "log of the softmax denominator [batch, heads, q_len]" },
    { .name = "entropy",
      .kind = OPTION_TEXT,
      .field = FIELD(entropy),
      .value = "FILE",
      .help = "of each row of weights, in nats [batch, heads, q_len]" },
    { .name = "received",
      .kind = OPTION_TEXT,
      .field = FIELD(received),
      .value = "FILE",
      .help = "weight each key received, summed over the queries [batch, heads, kv_len]" },
    { .name = "received-by",
      .kind = OPTION_TEXT,
      .field = FIELD(received_by),
      .value = "R.npy",
      .help = "what each query counts in --received (default 1): a row times the weights; broadcasts to [batch, heads, q_len]" },
    { .name = "weights",
      .kind = OPTION_TEXT,
      .field = FIELD(weights),
      .value = "FILE",
      .help = "all weights [batch, heads, q_len, kv_len]" },
    { .name = "scores",
      .kind = OPTION_TEXT,
      .field = FIELD(scores),
      .value = "FILE",
      .help = "all scores [batch, heads, q_len, kv_len]" },
    { .name = "scores-stage",
      .kind = OPTION_CHOICE,
      .field = FIELD(scores_stage),
      .choices = stages,
      .help = "scores as they enter the weighting (default; -inf where masked), after the softcap, or scale * q.k" },
    { .name = "see-rows",
      .kind = OPTION_TEXT,
      .field = FIELD(see_rows),
      .value = "0,3,7",
      .help = "weights and scores of these queries alone, in this order" },
    { .name = "see-heads", .kind = OPTION_TEXT, .field = FIELD(see_heads), .value = "0,3,7", .help = "... of these heads alone" },
    { .name = "pooled",
      .kind = OPTION_TEXT,
      .field = FIELD(pooled),
      .value = "FILE",
      .help = "means of the weights over P x Q blocks of the map [batch, heads, P, Q]" },
    { .name = "pooled-size",
      .kind = OPTION_SIZE,
      .field = FIELD(pooled_size),
      .value = "PxQ",
      .low = 1,
      .high = INT32_MAX,
      .help = "how many blocks of queries and of keys, such as 16x16" },
    { .name = "top-k",
      .kind = OPTION_INTEGER,
      .field = FIELD(top_k),
      .value = "K",
      .low = 1,
      .high = INT32_MAX,
      .help = "the K keys of each query with the largest scores" },
    { .name = "top-index",
      .kind = OPTION_TEXT,
      .field = FIELD(top_index),
      .value = "FILE",
      .help = "their indices, int32, -1 where there is no key [batch, heads, q_len, K]" },
    { .name = "top-weight",
      .kind = OPTION_TEXT,
      .field = FIELD(top_weight),
      .value = "FILE",
      .help = "their weights, same shape" },

    { .name = "Backward", .kind = OPTION_HEADING },
    { .name = "dout",
      .kind = OPTION_TEXT,
      .field = FIELD(dout),
      .value = "FILE",
      .help = "the gradient of the output, as input: asks for the backward pass" },
    { .name = "dlse",
      .kind = OPTION_TEXT,
      .field = FIELD(dlse),
      .value = "FILE",
      .help = "the gradient of the lse, as input (optional)" },
    { .name = "dq", .kind = OPTION_TEXT, .field = FIELD(dq), .value = "FILE", .help = "where the gradient of q goes" },
    { .name = "dk",
      .kind = OPTION_TEXT,
      .field = FIELD(dk),
      .value = "FILE",
      .help = "... of k, summed over the heads that share it" },
    { .name = "dv",
      .kind = OPTION_TEXT,
      .field = FIELD(dv),
      .value = "FILE",
      .help = "... of v, summed over the heads that share it" },
    { .name = "dbias", .kind = OPTION_TEXT, .field = FIELD(dbias), .value = "FILE", .help = "... of the bias, in its own shape" },
    { .name = "dsinks", .kind = OPTION_TEXT, .field = FIELD(dsinks), .value = "FILE", .help = "... of the sinks" },
    { .name = "dalibi", .kind = OPTION_TEXT, .field = FIELD(dalibi), .value = "FILE", .help = "... of the slopes" },
    { .name = "dalpha", .kind = OPTION_TEXT, .field = FIELD(dalpha), .value = "FILE", .help = "... of entmax's alpha" },
    { .name = "dscore-weight",
      .kind = OPTION_TEXT,
      .field = FIELD(dscore_weight),
      .value = "FILE",
      .help = "... of the additive score's weight" },
    { .kind = OPTION_END },
};

const command command_attend = {
    .name = "attend",
    .summary = "attention over arrays: score, weight, mix - and see",
    .about =
        "Attention: out = weighting(scale * q.k, masked) v, for arrays of rank 4 [batch, heads, length, dim], 3 [heads, "
        "length, dim] "
        "or 2 [length, dim]; outputs lack the same leading axes. With --q-starts sequences stand one behind the other without "
        "padding: arrays are [total, heads, dim], and outputs [total, heads, ...]. A query that may see no key gives 0. All "
        "outputs are "
        "written once everything has succeeded, or none.",
    .examples = "  attn attend --q q.npy --k k.npy --v v.npy -o out.npy --causal\n"
                "  attn attend --q q.npy --k k.npy --v v.npy -o out.npy --window 255,0 --entropy h.npy --received r.npy\n"
                "  attn attend --q q.npy --k k.npy --v v.npy -o out.npy --dout do.npy --dq dq.npy --dk dk.npy --dv dv.npy\n",
    .options = options,
    .settings_size = sizeof(attend_settings),
    .run = run,
};
