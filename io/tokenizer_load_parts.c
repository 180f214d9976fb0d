/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of a tokenizer.json around its model: normalizer, pre-tokenizer, post-processor, decoder, added tokens, truncation.
 * Each takes what this tokenizer does and refuses the rest by name. */
#include "tokenizer_load.h"

#include <stdlib.h>
#include <string.h>

#include "array.h"

/* ---- normalizer ----------------------------------------------------------------------------------------- */

static int load_step(const loader *l, const json_t *part, tokenizer *t) {
    static const char *const names[] = { "NFC", "NFKC", "NFD", "NFKD", "Lowercase" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(loader_type(part), names[i]) != 0) continue;
        if (t->n_steps == TOKENIZER_MAX_STEPS) return loader_fail(l, "normalizer", "has more than 16 steps");
        t->steps[t->n_steps++] = (normalize_step)i;
        return IO_OK;
    }
    return loader_refuse(l, "normalizer", part);
}

int load_normalizer(const loader *l, const json_t *part, tokenizer *t) {
    if (!part || json_is_null(part)) return IO_OK;
    if (strcmp(loader_type(part), "Sequence") != 0) return load_step(l, part, t);
    const json_t *list = json_object_get(part, "normalizers");
    if (!json_is_array(list)) return loader_fail(l, "normalizer.normalizers", "has to be an array");
    int failed = IO_OK;
    for (size_t i = 0; !failed && i < json_array_size(list); i++) failed = load_step(l, json_array_get(list, i), t);
    return failed;
}

/* ---- pre-tokenizer and decoder -------------------------------------------------------------------------- */

int load_pre_tokenizer(const loader *l, const json_t *part, tokenizer *t) {
    if (!part || json_is_null(part)) return loader_fail(l, "pre_tokenizer", "is missing; this reads byte-level BPE");
    if (strcmp(loader_type(part), "Sequence") == 0) {
        const json_t *list = json_object_get(part, "pretokenizers");
        if (!json_is_array(list) || json_array_size(list) == 0)
            return loader_fail(l, "pre_tokenizer.pretokenizers", "has to be an array");
        for (size_t i = 0; i < json_array_size(list); i++) {
            if (strcmp(loader_type(json_array_get(list, i)), "ByteLevel") != 0)
                return loader_refuse(l, "pre-tokenizer", json_array_get(list, i));
        }
        if (json_array_size(list) > 1) return loader_fail(l, "pre_tokenizer", "spells bytes twice");
        part = json_array_get(list, 0);
    }
    if (strcmp(loader_type(part), "ByteLevel") != 0) return loader_refuse(l, "pre-tokenizer", part);
    int failed = loader_bool(l, part, "add_prefix_space", true, &t->add_prefix_space);
    if (!failed) failed = loader_bool(l, part, "trim_offsets", true, &t->trim_offsets);
    if (!failed) failed = loader_bool(l, part, "use_regex", true, &t->cut_words);
    return failed;
}

int load_decoder(const loader *l, const json_t *part) {
    if (!part || json_is_null(part) || strcmp(loader_type(part), "ByteLevel") == 0) return IO_OK;
    return loader_refuse(l, "decoder", part);
}

/* ---- post-processor ------------------------------------------------------------------------------------- */

enum { TEMPLATE_LONGEST = 4096 };

/* The ids of a special token of a template, appended to the row. */
static int load_template_token(const loader *l, const json_t *special, const json_t *body, uint32_t type, const tokenizer *t,
                               template_row *row) {
    const json_t *name = json_object_get(body, "id");
    const json_t *ids = json_is_string(name) ? json_object_get(json_object_get(special, json_string_value(name)), "ids") : NULL;
    if (!json_is_array(ids)) return loader_fail(l, "post_processor", "names a special token that it does not define");
    /* a few bytes that name a long definition again and again would otherwise become any number of tokens */
    if (json_array_size(ids) > TEMPLATE_LONGEST || row->n > TEMPLATE_LONGEST)
        return loader_fail(l, "post_processor", "is too long");
    for (size_t i = 0; i < json_array_size(ids); i++) {
        uint32_t id;
        int failed = loader_id(l, json_array_get(ids, i), "an id in post_processor", &id);
        if (failed) return failed;
        if (id >= t->model.n_ids || !t->model.tokens[id].text)
            return loader_fail(l, "post_processor", "has an id that no token has");
        if (!template_append(row, TEMPLATE_TOKEN, id, type))
            return io_no_memory(l->error, "the template", row->n * sizeof *row->pieces);
    }
    return IO_OK;
}

static int load_template_piece(const loader *l, const json_t *piece, const json_t *special, const tokenizer *t,
                               template_row *row) {
    const json_t *token = json_object_get(piece, "SpecialToken"), *sequence = json_object_get(piece, "Sequence");
    const json_t *body = token ? token : sequence;
    uint32_t type;
    if (!json_is_object(body)) return loader_fail(l, "post_processor", "has a piece that is neither SpecialToken nor Sequence");
    int failed = loader_id(l, json_object_get(body, "type_id"), "post_processor: a type_id", &type);
    if (failed) return failed;
    if (token) return load_template_token(l, special, body, type, t, row);
    const char *id = json_string_value(json_object_get(body, "id"));
    if (!id || (strcmp(id, "A") != 0 && strcmp(id, "B") != 0))
        return loader_fail(l, "post_processor", "has a Sequence that is neither A nor B");
    if (!template_append(row, *id == 'A' ? TEMPLATE_FIRST : TEMPLATE_SECOND, 0, type))
        return io_no_memory(l->error, "the template", row->n * sizeof *row->pieces);
    return IO_OK;
}

static size_t count_kind(const template_row *row, template_kind kind) {
    size_t n = 0;
    for (size_t i = 0; i < row->n; i++) n += row->pieces[i].kind == kind;
    return n;
}

static int load_template(const loader *l, const json_t *part, tokenizer *t) {
    const json_t *special = json_object_get(part, "special_tokens");
    for (int pair = 0; pair < 2; pair++) {
        const json_t *list = json_object_get(part, pair ? "pair" : "single");
        if (!json_is_array(list))
            return loader_fail(l, pair ? "post_processor.pair" : "post_processor.single", "has to be an array");
        for (size_t i = 0; i < json_array_size(list); i++) {
            int failed = load_template_piece(l, json_array_get(list, i), special, t, pair ? &t->pair : &t->single);
            if (failed) return failed;
        }
    }
    if (count_kind(&t->single, TEMPLATE_FIRST) != 1 || count_kind(&t->single, TEMPLATE_SECOND) != 0)
        return loader_fail(l, "post_processor.single", "has to hold the text A once, and no other");
    t->has_template = true;
    return IO_OK;
}

/* ["[SEP]", 3]: of BertProcessing and RobertaProcessing. */
static int load_named_id(const loader *l, const json_t *part, const char *key, const tokenizer *t, uint32_t *id) {
    int failed = loader_id(l, json_array_get(json_object_get(part, key), 1), "an id in post_processor", id);
    if (failed) return failed;
    if (*id >= t->model.n_ids || !t->model.tokens[*id].text)
        return loader_fail(l, "post_processor", "has an id that no token has");
    return IO_OK;
}

/* [CLS] A [SEP]; pairs as [CLS] A [SEP] B [SEP] by BERT, as <s> A </s> </s> B </s> by RoBERTa. */
static int load_bert(const loader *l, const json_t *part, bool roberta, tokenizer *t) {
    uint32_t first, last, second = roberta ? 0 : 1;
    int failed = load_named_id(l, part, "cls", t, &first);
    if (!failed) failed = load_named_id(l, part, "sep", t, &last);
    if (failed) return failed;
    bool done = true;
    for (int pair = 0; pair < 2; pair++) {
        template_row *row = pair ? &t->pair : &t->single;
        done = done && template_append(row, TEMPLATE_TOKEN, first, 0) && template_append(row, TEMPLATE_FIRST, 0, 0) &&
               template_append(row, TEMPLATE_TOKEN, last, 0);
    }
    if (roberta) done = done && template_append(&t->pair, TEMPLATE_TOKEN, last, 0);
    done =
        done && template_append(&t->pair, TEMPLATE_SECOND, 0, second) && template_append(&t->pair, TEMPLATE_TOKEN, last, second);
    t->has_template = true;
    return done ? IO_OK : io_no_memory(l->error, "the template", 8 * sizeof(template_piece));
}

static int load_processor(const loader *l, const json_t *part, tokenizer *t) {
    const char *type = loader_type(part);
    if (strcmp(type, "ByteLevel") == 0) return IO_OK; /* changes only the offsets that Hugging Face reports */
    bool roberta = strcmp(type, "RobertaProcessing") == 0, bert = strcmp(type, "BertProcessing") == 0;
    if (!roberta && !bert && strcmp(type, "TemplateProcessing") != 0) return loader_refuse(l, "post-processor", part);
    if (t->has_template) return loader_fail(l, "post_processor", "has two templates, of which one is implemented");
    return roberta || bert ? load_bert(l, part, roberta, t) : load_template(l, part, t);
}

int load_post_processor(const loader *l, const json_t *part, tokenizer *t) {
    if (!part || json_is_null(part)) return IO_OK;
    if (strcmp(loader_type(part), "Sequence") != 0) return load_processor(l, part, t);
    const json_t *list = json_object_get(part, "processors");
    if (!json_is_array(list)) return loader_fail(l, "post_processor.processors", "has to be an array");
    int failed = IO_OK;
    for (size_t i = 0; !failed && i < json_array_size(list); i++) failed = load_processor(l, json_array_get(list, i), t);
    return failed;
}

/* ---- added tokens --------------------------------------------------------------------------------------- */

static int load_added_token(const loader *l, const json_t *entry, tokenizer *t) {
    const json_t *content = json_object_get(entry, "content");
    added_token token = { 0 };
    bool single_word;
    int failed = loader_id(l, json_object_get(entry, "id"), "the id of an added token", &token.id);
    if (!failed) failed = loader_bool(l, entry, "single_word", false, &single_word);
    if (!failed && single_word) failed = loader_fail(l, "an added token with single_word", "is not implemented");
    if (!failed) failed = loader_bool(l, entry, "lstrip", false, &token.strip_left);
    if (!failed) failed = loader_bool(l, entry, "rstrip", false, &token.strip_right);
    if (!failed) failed = loader_bool(l, entry, "special", false, &token.special);
    if (!failed) failed = loader_bool(l, entry, "normalized", !token.special, &token.normalized);
    if (failed) return failed;

    normalized pattern = { 0 };
    size_t n_steps = token.normalized ? t->n_steps : 0;
    failed = normalize(t->steps, n_steps, json_string_value(content), json_string_length(content), &pattern, l->error);
    if (!failed && pattern.n == 0) failed = loader_fail(l, "an added token", "is nothing once normalised");
    if (failed) {
        normalize_free(&pattern);
        return failed;
    }
    token.pattern = pattern.bytes;
    token.length = pattern.n;
    pattern.bytes = NULL;
    normalize_free(&pattern);
    t->added[t->n_added++] = token;
    return IO_OK;
}

static int compare_ids(const void *a, const void *b) {
    const added_token *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

int load_added(const loader *l, tokenizer *t) {
    size_t n = json_array_size(l->added);
    t->added = array_new(n, sizeof *t->added);
    if (!t->added) return io_no_memory(l->error, "the added tokens", n * sizeof *t->added);
    for (size_t i = 0; i < n; i++) {
        int failed = load_added_token(l, json_array_get(l->added, i), t);
        if (failed) return failed;
    }
    qsort(t->added, n, sizeof *t->added, compare_ids);
    for (size_t i = 1; i < n; i++)
        if (t->added[i].id == t->added[i - 1].id) return loader_fail(l, "added_tokens", "has the same token twice");
    return tokenizer_make_sets(t, l->name, l->error);
}

/* ---- truncation ----------------------------------------------------------------------------------------- */

int load_truncation(const loader *l, const json_t *part, tokenizer *t) {
    if (!part || json_is_null(part)) return IO_OK;
    const char *direction = json_string_value(json_object_get(part, "direction"));
    uint32_t length;
    int failed = loader_id(l, json_object_get(part, "max_length"), "truncation.max_length", &length);
    if (failed) return failed;
    if (direction && strcmp(direction, "Left") != 0 && strcmp(direction, "Right") != 0)
        return loader_fail(l, "truncation.direction", "is neither Left nor Right");
    size_t n_around = t->has_template ? t->single.n - 1 : 0;
    if (length == 0 || length < n_around) return loader_fail(l, "truncation.max_length", "leaves no room for the template");
    t->truncation = length;
    t->truncate_left = direction && *direction == 'L';
    return IO_OK;
}
