/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a tokenizer.json that anybody may have written: every type is looked at before it is believed, every id is held against
 * the vocabulary, and a part that is not implemented is refused by name. The parts around the model are in
 * tokenizer_load_parts.c. */
#include "tokenizer_load.h"

#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "file.h"
#include "json.h"
#include "unicode.h"

enum { MAX_DEPTH = 64, MAX_VALUES = 8000000, MAX_FILE = 512 << 20 };

/* ---- typed access --------------------------------------------------------------------------------------- */

int loader_fail(const loader *l, const char *where, const char *why) {
    return io_fail(l->error, IO_BAD_MODEL, "%s: %s %s", l->name, where, why);
}

int loader_bool(const loader *l, const json_t *object, const char *key, bool otherwise, bool *out) {
    const json_t *value = json_object_get(object, key);
    *out = otherwise;
    if (!value || json_is_null(value)) return IO_OK;
    if (!json_is_boolean(value)) return loader_fail(l, key, "has to be true or false");
    *out = json_is_true(value);
    return IO_OK;
}

const char *loader_type(const json_t *part) {
    const char *type = json_string_value(json_object_get(part, "type"));
    return type ? type : "";
}

int loader_refuse(const loader *l, const char *part, const json_t *value) {
    char quoted[UNICODE_QUOTE];
    const char *type = loader_type(value);
    if (!*type) return loader_fail(l, part, "has no type");
    return io_fail(l->error, IO_BAD_MODEL, "%s: the %s \"%s\" is not implemented; this reads byte-level BPE", l->name, part,
                   unicode_quote(type, strlen(type), quoted));
}

int loader_id(const loader *l, const json_t *value, const char *what, uint32_t *id) {
    json_int_t number = json_is_integer(value) ? json_integer_value(value) : -1;
    *id = 0;
    if (number < 0 || number >= INT32_MAX)
        return loader_fail(l, what, "has to be a whole number of at least 0 and below 2^31 - 1");
    *id = (uint32_t)number;
    return IO_OK;
}

/* ---- vocabulary ----------------------------------------------------------------------------------------- */

/* What the file calls an added token with a text that the vocabulary has must be that token; the others follow the vocabulary in
 * their order: Hugging Face's `tokenizers` numbers them so, whatever the file says. */
static int check_added_id(const loader *l, const json_t *known, const char *content, uint32_t id, uint32_t *next) {
    uint32_t expected = *next;
    if (known) {
        int failed = loader_id(l, known, "an id in model.vocab", &expected);
        if (failed) return failed;
    } else {
        ++*next;
    }
    if (id == expected) return IO_OK;
    char quoted[UNICODE_QUOTE];
    return io_fail(l->error, IO_BAD_MODEL,
                   "%s: the added token \"%s\" has the id %u, where its place in the vocabulary gives it %u", l->name,
                   unicode_quote(content, strlen(content), quoted), id, expected);
}

/* Appends the added tokens that the vocabulary lacks to its entries. */
static int gather_added(const loader *l, const json_t *vocab, bpe_entry *entries, size_t *n) {
    uint32_t next = (uint32_t)*n;
    for (size_t i = 0; i < json_array_size(l->added); i++) {
        const json_t *token = json_array_get(l->added, i);
        const json_t *content = json_object_get(token, "content");
        uint32_t id;
        if (!json_is_string(content) || json_string_length(content) == 0)
            return loader_fail(l, "an entry of added_tokens", "has no content");
        if (json_string_length(content) > ADDED_LONGEST)
            return loader_fail(l, "an entry of added_tokens", "is longer than 256 bytes");
        int failed = loader_id(l, json_object_get(token, "id"), "the id of an added token", &id);
        const char *text = json_string_value(content);
        const json_t *known = json_object_get(vocab, text);
        if (!failed) failed = check_added_id(l, known, text, id, &next);
        if (failed) return failed;
        if (!known) entries[(*n)++] = (bpe_entry){ text, json_string_length(content), id, false };
    }
    return IO_OK;
}

static int gather_entries(const loader *l, const json_t *vocab, bpe_entry *entries, size_t *n) {
    const char *text;
    json_t *value;
    *n = 0;
    for (void *at = json_object_iter((json_t *)vocab); at; at = json_object_iter_next((json_t *)vocab, at)) {
        text = json_object_iter_key(at);
        value = json_object_iter_value(at);
        uint32_t id;
        int failed = loader_id(l, value, "an id in model.vocab", &id);
        if (failed) return failed;
        entries[(*n)++] = (bpe_entry){ text, strlen(text), id, true };
    }
    return gather_added(l, vocab, entries, n);
}

static int load_vocabulary(const loader *l, const json_t *vocab, tokenizer *t) {
    if (!json_is_object(vocab)) return loader_fail(l, "model.vocab", "has to be an object of tokens and their ids");
    size_t n = json_object_size(vocab) + json_array_size(l->added), n_ids = 0;
    if (n == 0) return loader_fail(l, "model.vocab", "is empty");
    if (n >= INT32_MAX / 2) return loader_fail(l, "model.vocab", "is too long");
    bpe_entry *entries = array_new(n, sizeof *entries);
    if (!entries) return io_no_memory(l->error, "the vocabulary", n * sizeof *entries);
    int failed = gather_entries(l, vocab, entries, &n);
    for (size_t i = 0; !failed && i < n; i++)
        if (entries[i].id >= n_ids) n_ids = (size_t)entries[i].id + 1;
    if (!failed && n_ids > n + TOKENIZER_MAX_HOLES)
        failed =
            io_fail(l->error, IO_BAD_MODEL, "%s: the largest id is %zu, but there are %zu tokens only", l->name, n_ids - 1, n);
    if (!failed) failed = bpe_set_vocabulary(&t->model, entries, n, n_ids, l->name, l->error);
    free(entries);
    return failed;
}

/* ---- merges --------------------------------------------------------------------------------------------- */

/* The two texts of a merge: "a b" or ["a", "b"]. */
static bool split_merge(const json_t *value, const char **left, size_t *n_left, const char **right, size_t *n_right) {
    if (json_is_string(value)) {
        const char *text = json_string_value(value), *space = strchr(text, ' ');
        if (!space || strchr(space + 1, ' ')) return false;
        *left = text;
        *n_left = (size_t)(space - text);
        *right = space + 1;
        *n_right = strlen(space + 1);
        return true;
    }
    const json_t *first = json_array_get(value, 0), *second = json_array_get(value, 1);
    if (json_array_size(value) != 2 || !json_is_string(first) || !json_is_string(second)) return false;
    *left = json_string_value(first);
    *n_left = json_string_length(first);
    *right = json_string_value(second);
    *n_right = json_string_length(second);
    return true;
}

static uint32_t find_in_model(const tokenizer *t, const char *text, size_t n) {
    uint32_t id = bpe_find(&t->model, text, n);
    return id != BPE_NONE && t->model.tokens[id].in_model ? id : BPE_NONE;
}

/* The id of a text that merge `rank` needs. */
static int find_merged(const loader *l, const tokenizer *t, uint32_t rank, const char *text, size_t n, uint32_t *id) {
    char quoted[UNICODE_QUOTE];
    *id = find_in_model(t, text, n);
    if (*id != BPE_NONE) return IO_OK;
    return io_fail(l->error, IO_BAD_MODEL, "%s: merge %u needs the token \"%s\", which the vocabulary lacks", l->name, rank,
                   unicode_quote(text, n, quoted));
}

typedef struct text_room {
    char *bytes;
    size_t capacity;
} text_room;

static int load_merge(const loader *l, const json_t *value, const tokenizer *t, text_room *joined, bpe_merge *merge) {
    const char *left, *right;
    size_t n_left, n_right, n;
    if (!split_merge(value, &left, &n_left, &right, &n_right))
        return io_fail(l->error, IO_BAD_MODEL, "%s: merge %u is neither \"a b\" nor [\"a\", \"b\"]", l->name, merge->rank);
    char *bytes = __builtin_add_overflow(n_left, n_right, &n) ? NULL : array_grow(joined->bytes, &joined->capacity, n, 1);
    if (!bytes) return io_no_memory(l->error, "a merge", n);
    joined->bytes = bytes;
    memcpy(bytes, left, n_left);
    memcpy(bytes + n_left, right, n_right);
    int failed = find_merged(l, t, merge->rank, left, n_left, &merge->left);
    if (!failed) failed = find_merged(l, t, merge->rank, right, n_right, &merge->right);
    if (!failed) failed = find_merged(l, t, merge->rank, bytes, n, &merge->made);
    return failed;
}

/* In the older form a line that begins with "#version" is a comment to `tokenizers`. */
static bool is_comment(const json_t *value) { return json_is_string(value) && !strncmp(json_string_value(value), "#version", 8); }

static int load_merges(const loader *l, const json_t *list, tokenizer *t) {
    if (!json_is_array(list)) return loader_fail(l, "model.merges", "has to be an array");
    size_t n = json_array_size(list), count = 0;
    bpe_merge *merges = array_new(n, sizeof *merges);
    if (!merges) return io_no_memory(l->error, "the merges", n * sizeof *merges);
    text_room joined = { 0 };
    int failed = IO_OK;
    for (size_t i = 0; !failed && i < n; i++) {
        const json_t *value = json_array_get(list, i);
        if (json_typeof(value) != json_typeof(json_array_get(list, 0)))
            failed = loader_fail(l, "model.merges", "has strings and pairs mixed");
        if (failed || is_comment(value)) continue;
        merges[count].rank = (uint32_t)count;
        failed = load_merge(l, value, t, &joined, &merges[count++]);
    }
    if (!failed) failed = bpe_set_merges(&t->model, merges, count, l->error);
    free(joined.bytes);
    free(merges);
    return failed;
}

/* ---- model ---------------------------------------------------------------------------------------------- */

static int load_unknown(const loader *l, const json_t *value, tokenizer *t) {
    if (!value || json_is_null(value)) return IO_OK;
    if (!json_is_string(value)) return loader_fail(l, "model.unk_token", "has to be a string");
    t->model.unknown = find_in_model(t, json_string_value(value), json_string_length(value));
    if (t->model.unknown != BPE_NONE) return IO_OK;
    /* Some files name one that they lack; where every byte is a token it is never needed. */
    for (int byte = 0; byte < 256; byte++)
        if (t->model.byte_id[byte] == BPE_NONE) return loader_fail(l, "model.unk_token", "is not in the vocabulary");
    return IO_OK;
}

/* A string that only the empty one is implemented for. */
static int refuse_affix(const loader *l, const json_t *model, const char *key) {
    const json_t *value = json_object_get(model, key);
    if (!value || json_is_null(value) || (json_is_string(value) && json_string_length(value) == 0)) return IO_OK;
    return io_fail(l->error, IO_BAD_MODEL, "%s: model.%s is not implemented; this reads byte-level BPE", l->name, key);
}

static int load_model(const loader *l, const json_t *model, tokenizer *t) {
    if (!json_is_object(model)) return loader_fail(l, "model", "has to be an object");
    /* The type may be missing in old files, which are BPE when they have merges. */
    if (json_object_get(model, "type") ? strcmp(loader_type(model), "BPE") != 0 : !json_object_get(model, "merges"))
        return loader_refuse(l, "model", model);
    const json_t *dropout = json_object_get(model, "dropout");
    if (dropout && !json_is_null(dropout) && !(json_is_number(dropout) && json_number_value(dropout) == 0))
        return loader_fail(l, "model.dropout", "is not implemented: ids would be random");
    bool byte_fallback;
    int failed = loader_bool(l, model, "byte_fallback", false, &byte_fallback);
    if (!failed && byte_fallback) failed = loader_fail(l, "model.byte_fallback", "is not implemented; this reads byte-level BPE");
    if (!failed) failed = refuse_affix(l, model, "continuing_subword_prefix");
    if (!failed) failed = refuse_affix(l, model, "end_of_word_suffix");
    if (!failed) failed = loader_bool(l, model, "fuse_unk", false, &t->model.fuse_unknown);
    if (!failed) failed = loader_bool(l, model, "ignore_merges", false, &t->model.whole_words);
    if (!failed) failed = load_vocabulary(l, json_object_get(model, "vocab"), t);
    if (!failed) failed = load_unknown(l, json_object_get(model, "unk_token"), t);
    if (!failed) failed = load_merges(l, json_object_get(model, "merges"), t);
    return failed;
}

/* ---- the file ------------------------------------------------------------------------------------------- */

static int load_root(loader *l, const json_t *root, tokenizer *t) {
    if (!json_is_object(root)) return loader_fail(l, "the file", "is no object");
    const json_t *version = json_object_get(root, "version");
    if (version && !(json_is_string(version) && strcmp(json_string_value(version), "1.0") == 0))
        return loader_fail(l, "version", "is not \"1.0\"");
    l->added = json_object_get(root, "added_tokens");
    if (l->added && !json_is_null(l->added) && !json_is_array(l->added))
        return loader_fail(l, "added_tokens", "has to be an array");
    int failed = load_model(l, json_object_get(root, "model"), t);
    if (!failed) failed = load_normalizer(l, json_object_get(root, "normalizer"), t);
    if (!failed) failed = load_pre_tokenizer(l, json_object_get(root, "pre_tokenizer"), t);
    if (!failed) failed = load_post_processor(l, json_object_get(root, "post_processor"), t);
    if (!failed) failed = load_decoder(l, json_object_get(root, "decoder"));
    if (!failed) failed = load_added(l, t);
    if (!failed) failed = load_truncation(l, json_object_get(root, "truncation"), t);
    return failed;
}

static int load_json(tokenizer **made, json_t *root, const char *name, io_error *error) {
    loader l = { .name = name, .error = error };
    tokenizer *t = tokenizer_new();
    int failed = t ? load_root(&l, root, t) : io_no_memory(error, "a tokenizer", sizeof *t);
    if (failed)
        tokenizer_free(t);
    else
        *made = t;
    return failed;
}

int tokenizer_parse(tokenizer **made, const char *json, size_t length, const char *name, io_error *error) {
    *made = NULL;
    io_error here;
    json_t *root = io_json_parse(json, length, name, 1, MAX_VALUES, MAX_DEPTH, IO_BAD_MODEL, &here);
    if (!root) return io_fail(error, here.code, "%s", here.message);
    int failed = load_json(made, root, name, error);
    json_decref(root);
    return failed;
}

int tokenizer_load(tokenizer **made, const char *path, io_error *error) {
    *made = NULL;
    io_error here;
    json_t *root = io_json_read(path, MAX_FILE, MAX_VALUES, MAX_DEPTH, IO_BAD_MODEL, &here);
    if (!root) return io_fail(error, here.code, "%s", here.message);
    int failed = load_json(made, root, path, error);
    json_decref(root);
    return failed;
}
