/* SPDX-License-Identifier: Apache-2.0 */
/* Model folders: our parameters under Hugging Face's names. The tables below map them, one per scheme: ViT's for pictures, BERT's for
 * texts; what neither architecture has comes from a third and stands under the root "attn". */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "array.h"
#include "layers.h"
#include "model.h"
#include "path.h"
#include "safetensors.h"

enum { ROOM = 4096, NAME_ROOM = 160 };

/* How a tensor is shaped in the file: as ours; [1, rows, columns]; a convolution's [out, channels, patch, patch]. */
enum { AS_IT_IS = 0, ONE_AHEAD, CONVOLUTION };

/* "@" is the root (vit, bert or attn), "%d" the block's number. A part names the rows of projection.* that are meant. Rules whose
 * parameter a model lacks do not concern it. */
typedef struct name_rule {
    const char *theirs, *ours, *part;
    int shape;
} name_rule;

static const name_rule vit_rules[] = {
    { "@.embeddings.cls_token", "embedding.first", NULL, ONE_AHEAD },
    { "@.embeddings.position_embeddings", "embedding.positions", NULL, ONE_AHEAD },
    { "@.embeddings.patch_embeddings.projection.weight", "embedding.patch.weight", NULL, CONVOLUTION },
    { "@.embeddings.patch_embeddings.projection.bias", "embedding.patch.bias", NULL, 0 },
    { "@.encoder.layer.%d.layernorm_before.weight", "block.%d.norm1.weight", NULL, 0 },
    { "@.encoder.layer.%d.layernorm_before.bias", "block.%d.norm1.bias", NULL, 0 },
    { "@.encoder.layer.%d.attention.attention.query.weight", "block.%d.attention.projection.weight", "query", 0 },
    { "@.encoder.layer.%d.attention.attention.query.bias", "block.%d.attention.projection.bias", "query", 0 },
    { "@.encoder.layer.%d.attention.attention.key.weight", "block.%d.attention.projection.weight", "key", 0 },
    { "@.encoder.layer.%d.attention.attention.key.bias", "block.%d.attention.projection.bias", "key", 0 },
    { "@.encoder.layer.%d.attention.attention.value.weight", "block.%d.attention.projection.weight", "value", 0 },
    { "@.encoder.layer.%d.attention.attention.value.bias", "block.%d.attention.projection.bias", "value", 0 },
    { "@.encoder.layer.%d.attention.output.dense.weight", "block.%d.attention.out.weight", NULL, 0 },
    { "@.encoder.layer.%d.attention.output.dense.bias", "block.%d.attention.out.bias", NULL, 0 },
    { "@.encoder.layer.%d.layernorm_after.weight", "block.%d.norm2.weight", NULL, 0 },
    { "@.encoder.layer.%d.layernorm_after.bias", "block.%d.norm2.bias", NULL, 0 },
    { "@.encoder.layer.%d.intermediate.dense.weight", "block.%d.feed.in.weight", NULL, 0 },
    { "@.encoder.layer.%d.intermediate.dense.bias", "block.%d.feed.in.bias", NULL, 0 },
    { "@.encoder.layer.%d.output.dense.weight", "block.%d.feed.out.weight", NULL, 0 },
    { "@.encoder.layer.%d.output.dense.bias", "block.%d.feed.out.bias", NULL, 0 },
    { "@.layernorm.weight", "norm.weight", NULL, 0 },
    { "@.layernorm.bias", "norm.bias", NULL, 0 },
    { "classifier.weight", "classifier.weight", NULL, 0 },
    { "classifier.bias", "classifier.bias", NULL, 0 },
};

static const name_rule bert_rules[] = {
    { "@.embeddings.word_embeddings.weight", "embedding.words.weight", NULL, 0 },
    { "@.embeddings.position_embeddings.weight", "embedding.positions.weight", NULL, 0 },
    { "@.embeddings.token_type_embeddings.weight", "embedding.kinds.weight", NULL, 0 },
    { "@.embeddings.LayerNorm.weight", "embedding.norm.weight", NULL, 0 },
    { "@.embeddings.LayerNorm.bias", "embedding.norm.bias", NULL, 0 },
    { "@.encoder.layer.%d.attention.self.query.weight", "block.%d.attention.projection.weight", "query", 0 },
    { "@.encoder.layer.%d.attention.self.query.bias", "block.%d.attention.projection.bias", "query", 0 },
    { "@.encoder.layer.%d.attention.self.key.weight", "block.%d.attention.projection.weight", "key", 0 },
    { "@.encoder.layer.%d.attention.self.key.bias", "block.%d.attention.projection.bias", "key", 0 },
    { "@.encoder.layer.%d.attention.self.value.weight", "block.%d.attention.projection.weight", "value", 0 },
    { "@.encoder.layer.%d.attention.self.value.bias", "block.%d.attention.projection.bias", "value", 0 },
    { "@.encoder.layer.%d.attention.output.dense.weight", "block.%d.attention.out.weight", NULL, 0 },
    { "@.encoder.layer.%d.attention.output.dense.bias", "block.%d.attention.out.bias", NULL, 0 },
    { "@.encoder.layer.%d.attention.output.LayerNorm.weight", "block.%d.norm1.weight", NULL, 0 },
    { "@.encoder.layer.%d.attention.output.LayerNorm.bias", "block.%d.norm1.bias", NULL, 0 },
    { "@.encoder.layer.%d.intermediate.dense.weight", "block.%d.feed.in.weight", NULL, 0 },
    { "@.encoder.layer.%d.intermediate.dense.bias", "block.%d.feed.in.bias", NULL, 0 },
    { "@.encoder.layer.%d.output.dense.weight", "block.%d.feed.out.weight", NULL, 0 },
    { "@.encoder.layer.%d.output.dense.bias", "block.%d.feed.out.bias", NULL, 0 },
    { "@.encoder.layer.%d.output.LayerNorm.weight", "block.%d.norm2.weight", NULL, 0 },
    { "@.encoder.layer.%d.output.LayerNorm.bias", "block.%d.norm2.bias", NULL, 0 },
    { "@.pooler.dense.weight", "pooler.weight", NULL, 0 },
    { "@.pooler.dense.bias", "pooler.bias", NULL, 0 },
    { "classifier.weight", "classifier.weight", NULL, 0 },
    { "classifier.bias", "classifier.bias", NULL, 0 },
};

static const name_rule attn_rules[] = {
    { "@.encoder.layer.%d.attention.gate.weight", "block.%d.attention.projection.weight", "gate", 0 },
    { "@.encoder.layer.%d.attention.score.weight", "block.%d.attention.score.weight", NULL, 0 },
    { "@.encoder.layer.%d.attention.score.query.weight", "block.%d.attention.score.query", NULL, 0 },
    { "@.encoder.layer.%d.attention.score.key.weight", "block.%d.attention.score.key", NULL, 0 },
    { "@.encoder.layer.%d.attention.score.bias", "block.%d.attention.score.bias", NULL, 0 },
    { "@.pool.weight", "pool.weight", NULL, 0 },
    { "@.pool.query", "pool.query", NULL, 0 },
    { "@.pool.score", "pool.score", NULL, 0 },
};

/* ---- applying a rule -------------------------------------------------------------------------------------------------- */

static int32_t find_parameter(const nn_parameters *all, const char *name) {
    for (size_t i = 0; i < all->n; i++)
        if (strcmp(all->all[i].name, name) == 0) return (int32_t)i;
    return -1;
}

/* "@" and "%d" filled in. The patterns above and the numbers of blocks fit in NAME_ROOM. */
static void expand(const char *pattern, const char *root, int32_t block, char *out) {
    char *const end = out + NAME_ROOM - 16;
    for (; *pattern && out < end; pattern++) {
        if (pattern[0] == '@')
            out += snprintf(out, 8, "%s", root);
        else if (pattern[0] == '%')
            out += snprintf(out, 12, "%d", block), pattern++;
        else
            *out++ = *pattern;
    }
    *out = 0;
}

static bool own_type(const nn_config *c) { return c->attention != NN_DOT || c->attention_pool; }

/* The rows [first, first + n) of a parameter that a rule means: false where this kind of attention has no such part. */
static bool part_rows(const nn_model *m, const nn_parameter *p, const char *part, int64_t *first, int64_t *n) {
    *first = 0;
    *n = p->shape[0];
    if (!part) return true;
    *n = m->config.width;
    for (int32_t i = 0; nn_attention_part(m->config.attention, i); i++, *first += *n)
        if (strcmp(nn_attention_part(m->config.attention, i), part) == 0) return true;
    return false;
}

/* Ours, seen in the shape of theirs. */
static attn_tensor reshaped(const nn_model *m, attn_tensor t, int shape) {
    const nn_config *c = &m->config;
    if (shape == ONE_AHEAD) return attn_dense(t.dtype, t.data, 3, (int64_t[]){ 1, t.shape[0], t.shape[1] });
    if (shape == CONVOLUTION) return attn_dense(t.dtype, t.data, 4, (int64_t[]){ t.shape[0], c->channels, c->patch, c->patch });
    return t;
}

typedef struct named {
    char name[NAME_ROOM];
    int32_t parameter;
    attn_tensor tensor; /* within the buffer that was asked for */
} named;

typedef struct named_list {
    named *all;
    size_t n, capacity;
} named_list;

static bool add_rule(const nn_model *m, const void *buffer, const name_rule *rule, int32_t block, named_list *out) {
    char ours[NAME_ROOM];
    expand(rule->ours, "", block, ours);
    int32_t index = find_parameter(&m->parameters, ours);
    int64_t first, n;
    if (index < 0 || !part_rows(m, &m->parameters.all[index], rule->part, &first, &n)) return true;
    named *grown = array_grow(out->all, &out->capacity, out->n + 1, sizeof *grown);
    if (!grown) return false;
    out->all = grown;
    named *new = &grown[out->n++];
    const char *root = own_type(&m->config) ? "attn" : m->config.modality == NN_TEXT ? "bert" : "vit";
    expand(rule->theirs, root, block, new->name);
    new->parameter = index;
    new->tensor = reshaped(m, nn_parameters_rows(&m->parameters, buffer, index, first, n), rule->shape);
    return true;
}

/* Every tensor of the model's file, as views of `buffer`. */
static int list_tensors(const nn_model *m, const void *buffer, named_list *out, io_error *error) {
    bool text = m->config.modality == NN_TEXT;
    const name_rule *tables[2] = { text ? bert_rules : vit_rules, attn_rules };
    size_t sizes[2] = { text ? sizeof bert_rules / sizeof *bert_rules : sizeof vit_rules / sizeof *vit_rules,
                        sizeof attn_rules / sizeof *attn_rules };
    *out = (named_list){ 0 };
    for (int t = 0; t < 2; t++)
        for (size_t i = 0; i < sizes[t]; i++) {
            int32_t blocks = strchr(tables[t][i].ours, '%') ? m->config.layers : 1;
            for (int32_t b = 0; b < blocks; b++)
                if (!add_rule(m, buffer, &tables[t][i], b, out)) {
                    free(out->all);
                    return io_no_memory(error, "the list of tensors", out->capacity * sizeof(named));
                }
        }
    return IO_OK;
}

/* ---- writing ------------------------------------------------------------------------------------------------------------ */

static int join(const char *folder, const char *name, char *path, int code, io_error *error) {
    return path_join(folder, name, path, ROOM) ? IO_OK : io_fail(error, code, "%s: the path is too long", folder);
}

static int save_tensors(const nn_model *m, const void *values, const char *folder, io_error *error) {
    char path[ROOM];
    named_list list;
    int failed = join(folder, "model.safetensors", path, IO_NO_ROOM, error);
    if (!failed) failed = list_tensors(m, values, &list, error);
    if (failed) return failed;
    safetensors_entry *entries = array_new(list.n, sizeof *entries);
    if (!entries) failed = io_no_memory(error, "the list of tensors", list.n * sizeof *entries);
    for (size_t i = 0; i < list.n && !failed; i++)
        entries[i] = (safetensors_entry){ .name = list.all[i].name, .tensor = list.all[i].tensor };
    if (!failed) failed = safetensors_write(path, entries, list.n, error);
    free(entries);
    free(list.all);
    return failed;
}

int nn_model_save(const nn_model *m, const void *values, const char *folder, io_error *error) {
    char path[ROOM];
    if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        return io_fail(error, IO_NO_ROOM, "%s: the folder cannot be made: %s", folder, strerror(errno));
    int failed = save_tensors(m, values ? values : m->parameters.values, folder, error);
    if (!failed && m->words) failed = join(folder, "tokenizer.json", path, IO_NO_ROOM, error);
    if (!failed && m->words) failed = tokenizer_save(m->words, path, error);
    if (!failed && m->words) failed = join(folder, "tokenizer_config.json", path, IO_NO_ROOM, error);
    if (!failed && m->words) failed = tokenizer_save_config(m->words, path, (size_t)m->config.positions, error);
    /* Last: a folder with a config.json is a whole model. */
    return failed ? failed : nn_config_save(&m->config, folder, error);
}

/* ---- reading ------------------------------------------------------------------------------------------------------------- */

static bool same_shape(const attn_tensor *a, const attn_tensor *b) {
    bool same = a->rank == b->rank;
    for (int32_t axis = 0; axis < a->rank && same; axis++) same = a->shape[axis] == b->shape[axis];
    return same;
}

static int check_tensor(const named *n, const safetensors_entry *e, const char *path, io_error *error) {
    if (!e) return io_fail(error, IO_BAD_MODEL, "%s: there is no tensor '%s', which config.json calls for", path, n->name);
    if (e->tensor.dtype != ATTN_F32)
        return io_fail(error, IO_BAD_MODEL, "%s: tensor '%s' is %s; models are read in F32 in this version", path, n->name,
                       e->dtype);
    if (same_shape(&e->tensor, &n->tensor)) return IO_OK;
    char shapes[2][96];
    for (int k = 0; k < 2; k++) {
        const attn_tensor *t = k ? &n->tensor : &e->tensor;
        int at = 0;
        shapes[k][0] = 0;
        for (int32_t axis = 0; axis < t->rank; axis++)
            at += snprintf(shapes[k] + at, sizeof shapes[k] - (size_t)at, "%s%lld", axis ? ", " : "", (long long)t->shape[axis]);
    }
    return io_fail(error, IO_BAD_MODEL, "%s: tensor '%s' is [%s]; config.json calls for [%s]", path, n->name, shapes[0],
                   shapes[1]);
}

static void copy_tensor(const attn_tensor *to, const attn_tensor *from) {
    size_t count = 1;
    for (int32_t axis = 0; axis < to->rank; axis++) count *= (size_t)to->shape[axis];
    if (to->dtype == ATTN_F32)
        memcpy(to->data, from->data, count * sizeof(float));
    else
        for (size_t i = 0; i < count; i++) ((double *)to->data)[i] = (double)((const float *)from->data)[i];
}

static int load_tensors(nn_model *m, const safetensors *file, const char *path, io_error *error) {
    named_list list;
    int failed = list_tensors(m, m->parameters.values, &list, error);
    if (failed) return failed;
    for (size_t i = 0; i < list.n && !failed; i++) {
        const safetensors_entry *e = safetensors_find(file, list.all[i].name);
        failed = check_tensor(&list.all[i], e, path, error);
        if (!failed) copy_tensor(&list.all[i].tensor, &e->tensor);
    }
    free(list.all);
    return failed;
}

static int load_words(nn_model *m, const char *folder, io_error *error) {
    char path[ROOM];
    int failed = join(folder, "tokenizer.json", path, IO_BAD_MODEL, error);
    if (!failed) failed = tokenizer_load(&m->words, path, error);
    if (!failed && tokenizer_size(m->words) > (size_t)m->config.vocabulary)
        failed = io_fail(error, IO_BAD_MODEL, "%s: it has %zu tokens, but the model has rows for %lld", path,
                         tokenizer_size(m->words), (long long)m->config.vocabulary);
    return failed;
}

/* A config may ask for any size up to the limits: the file's own size says what can be true before memory is taken. */
static int check_size(const nn_config *c, const safetensors *file, const char *path, io_error *error) {
    double block = 4.0 * (double)c->width * (double)c->width + 2.0 * (double)c->width * (double)c->hidden;
    double table = c->modality == NN_TEXT ? (double)(c->vocabulary + c->positions) * (double)c->width
                                          : (double)nn_config_tokens(c) * (double)c->width;
    double held = 0;
    for (size_t i = 0; i < file->n; i++) held += (double)file->entries[i].size / sizeof(float);
    if (c->attention == NN_MULTIPLICATIVE) block -= (double)c->width * (double)c->width;
    if ((double)c->layers * block + table <= held) return IO_OK;
    return io_fail(error, IO_BAD_MODEL, "%s: config.json describes a larger model than the file holds", path);
}

int nn_model_load(nn_model *m, const char *folder, const nn_model_options *options, io_error *error) {
    char path[ROOM];
    nn_config config;
    safetensors file;
    *m = (nn_model){ 0 };
    int failed = nn_config_load(&config, folder, error);
    if (failed) return failed;
    failed = join(folder, "model.safetensors", path, IO_BAD_MODEL, error);
    if (!failed) failed = safetensors_read(path, &file, error);
    if (failed) {
        nn_config_free(&config);
        return failed;
    }
    failed = check_size(&config, &file, path, error);
    if (failed)
        nn_config_free(&config);
    else
        failed = nn_model_build(m, &config, options, error);
    if (!failed) failed = load_tensors(m, &file, path, error);
    if (!failed && m->config.modality == NN_TEXT) failed = load_words(m, folder, error);
    safetensors_free(&file);
    if (failed) nn_model_free(m);
    return failed;
}
