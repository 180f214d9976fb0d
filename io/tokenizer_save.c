/* SPDX-License-Identifier: Apache-2.0 */
/* A tokenizer as the tokenizer.json and tokenizer_config.json that Hugging Face's libraries read. Merges are written as pairs: in
 * the older form, "a b", `tokenizers` takes a merge that begins with "#version" for a comment. See tokenizer.h. */
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "array.h"
#include "file.h"
#include "tokenizer_parts.h"

static const char *const step_names[] = { "NFC", "NFKC", "NFD", "NFKD", "Lowercase" };

/* Every function here gives NULL, or lets NULL through, when there is no memory: one look at the end is enough. jansson's
 * constructors that steal references accept NULL and fail. */

static json_t *token_text(const tokenizer *t, uint32_t id) {
    return json_stringn(t->model.tokens[id].text, t->model.tokens[id].text_length);
}

static json_t *added_tokens(const tokenizer *t) {
    json_t *list = json_array();
    for (size_t i = 0; i < t->n_added; i++) {
        const added_token *token = &t->added[i];
        json_t *entry = json_pack("{sI so sb sb sb sb sb}", "id", (json_int_t)token->id, "content", token_text(t, token->id),
                                  "single_word", 0, "lstrip", token->strip_left, "rstrip", token->strip_right, "normalized",
                                  token->normalized, "special", token->special);
        if (json_array_append_new(list, entry)) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static json_t *normalizer(const tokenizer *t) {
    if (t->n_steps == 0) return json_null();
    json_t *list = json_array();
    bool good = list != NULL;
    for (size_t i = 0; i < t->n_steps; i++)
        good &= !json_array_append_new(list, json_pack("{ss}", "type", step_names[t->steps[i]]));
    if (!good) {
        json_decref(list);
        return NULL;
    }
    if (t->n_steps > 1) return json_pack("{ss so}", "type", "Sequence", "normalizers", list);
    json_t *alone = json_incref(json_array_get(list, 0));
    json_decref(list);
    return alone;
}

static json_t *byte_level(const tokenizer *t) {
    return json_pack("{ss sb sb sb}", "type", "ByteLevel", "add_prefix_space", t->add_prefix_space, "trim_offsets",
                     t->trim_offsets, "use_regex", t->cut_words);
}

static json_t *template_pieces(const tokenizer *t, const template_row *row) {
    json_t *list = json_array();
    bool good = list != NULL;
    for (size_t i = 0; i < row->n; i++) {
        const template_piece *piece = &row->pieces[i];
        json_t *entry =
            piece->kind == TEMPLATE_TOKEN
                ? json_pack("{s{so sI}}", "SpecialToken", "id", token_text(t, piece->id), "type_id", (json_int_t)piece->type)
                : json_pack("{s{ss sI}}", "Sequence", "id", piece->kind == TEMPLATE_FIRST ? "A" : "B", "type_id",
                            (json_int_t)piece->type);
        good &= !json_array_append_new(list, entry);
    }
    if (good) return list;
    json_decref(list);
    return NULL;
}

/* The ids of the tokens that stand in the templates. */
static json_t *template_tokens(const tokenizer *t) {
    json_t *tokens = json_object();
    bool good = tokens != NULL;
    for (int pair = 0; pair < 2; pair++) {
        const template_row *row = pair ? &t->pair : &t->single;
        for (size_t i = 0; i < row->n; i++) {
            uint32_t id = row->pieces[i].id;
            if (row->pieces[i].kind != TEMPLATE_TOKEN) continue;
            json_t *entry =
                json_pack("{so s[I] s[o]}", "id", token_text(t, id), "ids", (json_int_t)id, "tokens", token_text(t, id));
            good &= !json_object_set_new(tokens, t->model.tokens[id].text, entry);
        }
    }
    if (good) return tokens;
    json_decref(tokens);
    return NULL;
}

static json_t *post_processor(const tokenizer *t) {
    if (!t->has_template) return json_null();
    return json_pack("{ss so so so}", "type", "TemplateProcessing", "single", template_pieces(t, &t->single), "pair",
                     template_pieces(t, &t->pair), "special_tokens", template_tokens(t));
}

static json_t *truncation(const tokenizer *t) {
    if (!t->truncation) return json_null();
    return json_pack("{ss sI ss si}", "direction", t->truncate_left ? "Left" : "Right", "max_length", (json_int_t)t->truncation,
                     "strategy", "LongestFirst", "stride", 0);
}

static json_t *vocabulary(const tokenizer *t) {
    json_t *object = json_object();
    bool good = object != NULL;
    for (size_t id = 0; good && id < t->model.n_ids; id++) {
        const bpe_token *token = &t->model.tokens[id];
        if (token->text && token->in_model) good = !json_object_set_new(object, token->text, json_integer((json_int_t)id));
    }
    if (good) return object;
    json_decref(object);
    return NULL;
}

static int compare_ranks(const void *a, const void *b) {
    const bpe_merge *x = *(const bpe_merge *const *)a, *y = *(const bpe_merge *const *)b;
    return (x->rank > y->rank) - (x->rank < y->rank);
}

static json_t *merges(const tokenizer *t) {
    size_t n = t->model.n_merges;
    json_t *list = json_array();
    const bpe_merge **order = array_new(n, sizeof *order);
    bool good = list && order;
    if (good) {
        for (size_t i = 0; i < n; i++) order[i] = &t->model.merges[i];
        qsort(order, n, sizeof *order, compare_ranks);
    }
    for (size_t i = 0; good && i < n; i++) {
        json_t *pair = json_pack("[o o]", token_text(t, order[i]->left), token_text(t, order[i]->right));
        good = !json_array_append_new(list, pair);
    }
    free(order);
    if (good) return list;
    json_decref(list);
    return NULL;
}

static json_t *model(const tokenizer *t) {
    json_t *unknown = t->model.unknown == BPE_NONE ? json_null() : token_text(t, t->model.unknown);
    return json_pack("{ss sn so sn sn sb sb sb so so}", "type", "BPE", "dropout", "unk_token", unknown,
                     "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", t->model.fuse_unknown, "byte_fallback", 0,
                     "ignore_merges", t->model.whole_words, "vocab", vocabulary(t), "merges", merges(t));
}

static int write_json(json_t *root, const char *path, io_error *error) {
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    json_decref(root);
    if (!text) return io_no_memory(error, path, 0);
    int failed = io_write(path, text, strlen(text), error);
    free(text);
    return failed;
}

int tokenizer_save(const tokenizer *t, const char *path, io_error *error) {
    json_t *root = json_pack("{ss so sn so so so so so so}", "version", "1.0", "truncation", truncation(t), "padding",
                             "added_tokens", added_tokens(t), "normalizer", normalizer(t), "pre_tokenizer", byte_level(t),
                             "post_processor", post_processor(t), "decoder", byte_level(t), "model", model(t));
    return write_json(root, path, error);
}

int tokenizer_save_config(const tokenizer *t, const char *path, size_t model_max_length, io_error *error) {
    static const char *const keys[TOKENIZER_N_ROLES] = { "pad_token", "unk_token", "cls_token", "sep_token", "mask_token" };
    json_t *root = json_pack("{ss ss ss sb}", "tokenizer_class", "PreTrainedTokenizerFast", "padding_side", "right",
                             "truncation_side", t->truncate_left ? "left" : "right", "clean_up_tokenization_spaces", 0);
    bool good = root != NULL;
    if (model_max_length) good &= !json_object_set_new(root, "model_max_length", json_integer((json_int_t)model_max_length));
    for (int role = 0; role < TOKENIZER_N_ROLES; role++) {
        int32_t id = tokenizer_special(t, (tokenizer_role)role);
        if (id >= 0) good &= !json_object_set_new(root, keys[role], token_text(t, (uint32_t)id));
    }
    if (!good) {
        json_decref(root);
        root = NULL;
    }
    return write_json(root, path, error);
}
