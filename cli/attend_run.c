/* SPDX-License-Identifier: Apache-2.0 */
/* The work of attn attend: arrays in, one call forward, one backward when it is asked for, arrays out. */
#include "attend.h"

#include <stdlib.h>
#include <string.h>

#include "arrays.h"
#include "message.h"

/* Every array that may come in; those that were not named stay empty. */
typedef struct inputs {
    npy_array q, k, v, score_weight, offset, mask, block_mask, bias, alibi, q_lengths, kv_lengths, q_starts, kv_starts, sinks,
        received_by, dout, dlse;
} inputs;

/* One run on its way. Once failed is set, nothing more is done. */
typedef struct job {
    const attend_settings *s;
    inputs in;
    attn_attention_args args;
    attn_received_args received; /* with --received-by */
    attn_attention_grads grads;
    outputs out;
    int32_t rank;          /* of q, k, v as they came: outputs get as many axes */
    int32_t observed;      /* dtype of what is seen */
    int64_t number_offset; /* --offset as a number */
    int64_t *rows, *heads; /* of --see-rows and --see-heads */
    int failed;
} job;

/* ---- inputs ----------------------------------------------------------------------------------------- */

#define PATH(name)  offsetof(attend_settings, name)
#define ARRAY(name) offsetof(inputs, name)
static const struct source {
    const char *label;
    size_t path, array;
    array_kind kind;
    bool rounds; /* --dtype rounds it */
} sources[] = {
    { "--q", PATH(q), ARRAY(q), ARRAY_FLOAT, true },
    { "--k", PATH(k), ARRAY(k), ARRAY_FLOAT, true },
    { "--v", PATH(v), ARRAY(v), ARRAY_FLOAT, true },
    { "--score-weight", PATH(score_weight), ARRAY(score_weight), ARRAY_FLOAT, false },
    { "--mask", PATH(mask), ARRAY(mask), ARRAY_BOOL, false },
    { "--block-mask", PATH(block_mask), ARRAY(block_mask), ARRAY_BOOL, false },
    { "--bias", PATH(bias), ARRAY(bias), ARRAY_FLOAT, false },
    { "--alibi", PATH(alibi), ARRAY(alibi), ARRAY_FLOAT, false },
    { "--q-lengths", PATH(q_lengths), ARRAY(q_lengths), ARRAY_INTEGER, false },
    { "--kv-lengths", PATH(kv_lengths), ARRAY(kv_lengths), ARRAY_INTEGER, false },
    { "--q-starts", PATH(q_starts), ARRAY(q_starts), ARRAY_INTEGER, false },
    { "--kv-starts", PATH(kv_starts), ARRAY(kv_starts), ARRAY_INTEGER, false },
    { "--sinks", PATH(sinks), ARRAY(sinks), ARRAY_FLOAT, false },
    { "--received-by", PATH(received_by), ARRAY(received_by), ARRAY_FLOAT, false },
    { "--dout", PATH(dout), ARRAY(dout), ARRAY_FLOAT, true },
    { "--dlse", PATH(dlse), ARRAY(dlse), ARRAY_FLOAT, false },
};
enum { N_SOURCES = sizeof sources / sizeof sources[0] };

static npy_array *array_of(job *j, const struct source *source) { return (npy_array *)(void *)((char *)&j->in + source->array); }

static const char *path_of(const job *j, const struct source *source) {
    return *(const char *const *)(const void *)((const char *)j->s + source->path);
}

/* --offset is a number, or the name of an array with one number or one per batch entry. */
static int load_offset(job *j) {
    double real = 0;
    if (!j->s->offset || parse_integer(j->s->offset, &j->number_offset)) return IO_OK;
    if (parse_real(j->s->offset, &real))
        return fail(IO_BAD_USAGE, "--offset is '%s'; a whole number or a .npy file is needed", j->s->offset);
    return array_load("--offset", j->s->offset, ARRAY_INTEGER, &j->in.offset);
}

static int load(job *j) {
    for (size_t i = 0; i < N_SOURCES; i++) {
        const struct source *source = &sources[i];
        if (!path_of(j, source)) continue;
        int failed = array_load(source->label, path_of(j, source), source->kind, array_of(j, source));
        if (failed) return failed;
        if (source->rounds && j->s->dtype.given)
            failed = array_round(source->label, array_of(j, source), j->s->dtype.value == 0 ? ATTN_BF16 : ATTN_F16);
        if (failed) return failed;
    }
    int32_t main_dtype = j->in.q.tensor.dtype;
    for (size_t i = 0; i < N_SOURCES; i++) {
        const struct source *source = &sources[i];
        if (!path_of(j, source) || source->kind != ARRAY_FLOAT) continue;
        npy_array *array = array_of(j, source);
        if (source->rounds && array->tensor.dtype != main_dtype)
            return fail(IO_BAD_DATA, "%s holds %s and --q %s; save both as the same", source->label,
                        npy_dtype_name(array->tensor.dtype), npy_dtype_name(main_dtype));
        int failed = array_adapt(source->label, array, main_dtype, j->s->dtype.given);
        if (failed) return failed;
    }
    return load_offset(j);
}

/* ---- views ------------------------------------------------------------------------------------------ */

/* The same elements with axes of extent 1 put in front until the rank is `rank`. */
static attn_tensor lift(attn_tensor t, int32_t rank) {
    while (t.rank < rank) {
        memmove(t.shape + 1, t.shape, sizeof t.shape - sizeof t.shape[0]);
        memmove(t.stride + 1, t.stride, sizeof t.stride - sizeof t.stride[0]);
        t.shape[0] = 1;
        t.stride[0] = 0;
        t.rank++;
    }
    return t;
}

static bool is_packed(const job *j) { return j->s->q_starts != NULL; }

/* An array as it came or goes, with all axes: [batch, heads, length, ...]. A packed one is [length, heads, ...]. */
static attn_tensor view_whole(const job *j, attn_tensor t, int32_t rank) {
    if (is_packed(j)) {
        attn_tensor lying = t;
        t.shape[0] = lying.shape[1], t.stride[0] = lying.stride[1];
        t.shape[1] = lying.shape[0], t.stride[1] = lying.stride[0];
    }
    return lift(t, rank);
}

/* q, k, v and dout have one rank, 2 to 4; what is per row has one less. */
static int check_rank(const job *j, const char *label, const npy_array *array, int32_t rank) {
    if (!array->bytes.data || array->tensor.rank == rank) return IO_OK;
    return fail(IO_BAD_DATA, "%s has %d axes; beside a --q of %d it needs %d", label, (int)array->tensor.rank, (int)j->rank,
                (int)rank);
}

static int check_ranks(const job *j) {
    if (is_packed(j) && j->rank != 3)
        return fail(IO_BAD_DATA, "--q has %d %s; beside --q-starts it needs [total, heads, dim]", (int)j->rank,
                    j->rank == 1 ? "axis" : "axes");
    if (j->rank < 2 || j->rank > 4)
        return fail(IO_BAD_DATA, "--q has %d %s; [length, dim], [heads, length, dim] or [batch, heads, length, dim] is needed",
                    (int)j->rank, j->rank == 1 ? "axis" : "axes");
    int failed = check_rank(j, "--k", &j->in.k, j->rank);
    if (!failed) failed = check_rank(j, "--v", &j->in.v, j->rank);
    if (!failed) failed = check_rank(j, "--dout", &j->in.dout, j->rank);
    if (!failed) failed = check_rank(j, "--dlse", &j->in.dlse, j->rank - 1);
    return failed;
}

/* Lengths and offsets come from a file, so a wrong one is wrong data, not a wrong command line. */
static int check_range(const char *label, const npy_array *array, double least, double most) {
    if (!array->bytes.data) return IO_OK;
    for (int64_t i = 0; i < array_count(&array->tensor); i++) {
        double number = array_element(&array->tensor, i);
        if (number < least || number > most)
            return fail(IO_BAD_DATA, "%s: entry %lld is %.0f; a number from %.0f to %.0f is needed", label, (long long)i, number,
                        least, most);
    }
    return IO_OK;
}

/* The same of where sequences begin: from 0 to the total, and never falling. */
static int check_starts(const char *label, const npy_array *array, int64_t total) {
    int64_t n = array->bytes.data ? array_count(&array->tensor) : 0;
    double before = 0;
    for (int64_t i = 0; i < n; i++) {
        double start = array_element(&array->tensor, i);
        if (i == 0 ? start != 0 : start < before)
            return fail(IO_BAD_DATA, "%s: entry %lld is %.0f; %s", label, (long long)i, start,
                        i == 0 ? "the first sequence begins at 0" : "it is below the one before");
        before = start;
    }
    if (n > 0 && before != (double)total)
        return fail(IO_BAD_DATA, "%s: the last entry is %.0f; it is where the last sequence ends, here %lld", label, before,
                    (long long)total);
    return IO_OK;
}

/* ---- the call --------------------------------------------------------------------------------------- */

static void fill_args(job *j) {
    const attend_settings *s = j->s;
    j->args = (attn_attention_args){
        .flags = (s->scale.given ? ATTN_SCALE_SET : 0u) | (s->window.given ? ATTN_WINDOW : 0u),
        .score = s->score.value,
        .weighting = s->weighting.value,
        .causal = !s->causal.given       ? ATTN_NOT_CAUSAL
                  : s->causal.value == 0 ? ATTN_CAUSAL
                                         : ATTN_CAUSAL_TOP_LEFT,
        .q = view_whole(j, j->in.q.tensor, 4),
        .k = view_whole(j, j->in.k.tensor, 4),
        .v = view_whole(j, j->in.v.tensor, 4),
        .score_weight = j->in.score_weight.tensor,
        .offset = lift(j->in.offset.tensor, j->in.offset.bytes.data ? 1 : 0),
        .window = { s->window.value[0], s->window.value[1] },
        .mask = j->in.mask.tensor,
        .block_mask = j->in.block_mask.tensor,
        .block_size = s->block_size.value,
        .bias = j->in.bias.tensor,
        .alibi = j->in.alibi.tensor,
        .q_lengths = lift(j->in.q_lengths.tensor, s->q_lengths ? 1 : 0),
        .kv_lengths = lift(j->in.kv_lengths.tensor, s->kv_lengths ? 1 : 0),
        .q_starts = j->in.q_starts.tensor,
        .kv_starts = j->in.kv_starts.tensor,
        .sinks = lift(j->in.sinks.tensor, s->sinks ? 1 : 0),
        .scale = s->scale.value,
        .softcap = s->softcap.value,
        .alpha = s->alpha.value,
        .dropout = s->dropout.value,
        .seed = s->seed.value,
        .see = { .scores_stage = s->scores_stage.value },
    };
    if (s->offset && !j->in.offset.bytes.data)
        j->args.offset = attn_dense(ATTN_I64, &j->number_offset, 1, (const int64_t[]){ 1 });
    if (!s->dout) return;
    j->grads.dout = view_whole(j, j->in.dout.tensor, 4);
    if (s->dlse) j->grads.dlse = view_whole(j, j->in.dlse.tensor, 3);
}

/* Numbers with commas between them, each below `end`. */
static int read_list(const char *label, const char *word, int64_t end, const int64_t **list, int64_t **memory, int64_t *n) {
    if (!word) return IO_OK;
    int64_t most = 1;
    for (const char *c = word; *c; c++) most += *c == ',';
    *list = *memory = malloc((size_t)most * sizeof **memory);
    if (!*memory) return fail(IO_NO_ROOM, "%s: there is no memory for %lld numbers", label, (long long)most);
    for (*n = 0; *n < most; ++*n) {
        char number[32] = "";
        size_t length = strcspn(word, ",");
        memcpy(number, word, length < sizeof number ? length : 0);
        if (!parse_integer(number, &(*memory)[*n]))
            return fail(IO_BAD_USAGE, "%s holds '%.*s'; whole numbers like 0,3,7 are needed", label, (int)length, word);
        if ((*memory)[*n] < 0 || (*memory)[*n] >= end)
            return fail(IO_BAD_USAGE, "%s names %s; there are 0 to %lld", label, number, (long long)end - 1);
        word += length + 1;
    }
    return IO_OK;
}

static int read_lists(job *j) {
    attn_see *see = &j->args.see;
    if (j->s->see_heads && j->rank == 2)
        return fail(IO_BAD_USAGE, "--see-heads is given, and --q is [length, dim]: it has no heads to choose from");
    int failed = read_list("--see-rows", j->s->see_rows, j->args.q.shape[2], &see->rows, &j->rows, &see->n_rows);
    if (!failed) failed = read_list("--see-heads", j->s->see_heads, j->args.q.shape[1], &see->heads, &j->heads, &see->n_heads);
    return failed;
}

/* An output of the call that was asked for. */
static void want(job *j, const char *label, const char *path, int32_t dtype, int32_t rank, const int64_t *shape,
                 attn_tensor *tensor) {
    if (!j->failed && path) j->failed = outputs_add(&j->out, label, path, dtype, rank, shape, tensor);
}

/* One laid out as q; `whole` is its shape with all axes, [batch, heads, length, ...]. */
static void want_laid(job *j, const char *label, const char *path, int32_t dtype, int32_t rank, const int64_t *whole,
                      attn_tensor *tensor) {
    int32_t leading = 4 - j->rank;
    const int64_t packed[] = { whole[2], whole[1], rank > 3 ? whole[3] : 1 };
    if (!path) return;
    want(j, label, path, dtype, rank - leading, is_packed(j) ? packed : whole + leading, tensor);
    *tensor = view_whole(j, *tensor, rank);
}

static void want_seen(job *j) {
    const attend_settings *s = j->s;
    attn_see *see = &j->args.see;
    int64_t batch = j->args.q.shape[0], heads = j->args.q.shape[1], rows = j->args.q.shape[2], keys = j->args.k.shape[2];
    const int64_t per_row[] = { batch, heads, rows }, per_key[] = { batch, heads, keys };
    const int64_t map[] = { batch, s->see_heads ? see->n_heads : heads, s->see_rows ? see->n_rows : rows, keys };
    const int64_t top[] = { batch, heads, rows, s->top_k.value };
    const int64_t pooled[] = { batch, heads, s->pooled_size.value[0], s->pooled_size.value[1] };
    want_laid(j, "--lse", s->lse, j->observed, 3, per_row, &see->lse);
    want_laid(j, "--entropy", s->entropy, j->observed, 3, per_row, &see->entropy);
    want_laid(j, "--received", s->received, j->observed, 3, per_key, s->received_by ? &j->received.received : &see->received);
    want_laid(j, "--weights", s->weights, j->observed, 4, map, &see->weights);
    want_laid(j, "--scores", s->scores, j->observed, 4, map, &see->scores);
    want_laid(j, "--top-index", s->top_index, ATTN_I32, 4, top, &see->top_index);
    want_laid(j, "--top-weight", s->top_weight, j->observed, 4, top, &see->top_weight);
    want_laid(j, "--pooled", s->pooled, j->observed, 4, pooled, &see->pooled);
}

static void want_gradients(job *j) {
    const attend_settings *s = j->s;
    attn_attention_args *a = &j->args;
    attn_attention_grads *g = &j->grads;
    want_laid(j, "--dq", s->dq, a->q.dtype, 4, a->q.shape, &g->dq);
    want_laid(j, "--dk", s->dk, a->q.dtype, 4, a->k.shape, &g->dk);
    want_laid(j, "--dv", s->dv, a->q.dtype, 4, a->v.shape, &g->dv);
    want(j, "--dbias", s->dbias, a->bias.dtype, a->bias.rank, a->bias.shape, &g->dbias);
    want(j, "--dsinks", s->dsinks, a->sinks.dtype, a->sinks.rank, a->sinks.shape, &g->dsinks);
    want(j, "--dalibi", s->dalibi, a->alibi.dtype, a->alibi.rank, a->alibi.shape, &g->dalibi);
    want(j, "--dalpha", s->dalpha, j->observed, 0, NULL, &g->dalpha);
    want(j, "--dscore-weight", s->dscore_weight, a->score_weight.dtype, a->score_weight.rank, a->score_weight.shape,
         &g->dscore_weight);
}

static void want_outputs(job *j) {
    const attn_attention_args *a = &j->args;
    const int64_t shape[] = { a->q.shape[0], a->q.shape[1], a->q.shape[2], a->v.shape[3] };
    j->observed = a->q.dtype == ATTN_F64 ? ATTN_F64 : ATTN_F32;
    want_laid(j, "-o", j->s->out ? j->s->out : "-", a->q.dtype, 4, shape, &j->args.out);
    want_seen(j);
    want_gradients(j);
}

static int compute(job *j, const attn_exec *exec) {
    attn_status status = attn_attention(&j->args, exec);
    if (!status && j->s->received_by) {
        j->received.by = j->in.received_by.tensor;
        status = attn_attention_received(&j->args, &j->received, exec);
    }
    if (status) return fail_status(status, "attend");
    if (!j->s->dout) return IO_OK;
    /* The backward reads the result and the lse; the rest of what was seen is none of its business. */
    j->args.see = (attn_see){ .lse = j->args.see.lse };
    status = attn_attention_backward(&j->args, &j->grads, exec);
    return status ? fail_status(status, "attend, backward") : IO_OK;
}

static int do_job(job *j, const attn_exec *exec) {
    int failed = load(j);
    if (failed) return failed;
    j->rank = j->in.q.tensor.rank;
    failed = check_ranks(j);
    if (failed) return failed;
    fill_args(j);
    failed = check_range("--q-lengths", &j->in.q_lengths, 0, (double)j->args.q.shape[2]);
    if (!failed) failed = check_range("--kv-lengths", &j->in.kv_lengths, 0, (double)j->args.k.shape[2]);
    if (!failed) failed = check_starts("--q-starts", &j->in.q_starts, j->args.q.shape[2]);
    if (!failed) failed = check_starts("--kv-starts", &j->in.kv_starts, j->args.k.shape[2]);
    if (!failed) failed = check_range("--offset", &j->in.offset, -0x1p52, 0x1p52);
    if (!failed) failed = read_lists(j);
    if (failed) return failed;
    want_outputs(j);
    if (!j->failed) j->failed = compute(j, exec);
    return j->failed ? j->failed : outputs_write(&j->out);
}

int attend_run(const attend_settings *s, const attn_exec *exec) {
    job j = { .s = s };
    int failed = do_job(&j, exec);
    outputs_free(&j.out);
    for (size_t i = 0; i < N_SOURCES; i++) npy_free(array_of(&j, &sources[i]));
    npy_free(&j.in.offset);
    free(j.rows);
    free(j.heads);
    return failed;
}
