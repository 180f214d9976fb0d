/* SPDX-License-Identifier: Apache-2.0 */
/* From texts to a tokenizer: the words and their counts, the merges learnt from them, and the five special tokens and the
 * template that BERT's heads expect. See tokenizer.h; the learning itself is bpe_train.c. */
#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "bpe_train.h"
#include "pretokenize.h"
#include "tokenizer_parts.h"

static const char *const special_tokens[TOKENIZER_N_ROLES] = { "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]" };

enum { DEFAULT_VOCABULARY = 16000, DEFAULT_FREQUENCY = 2 };

static void set_steps(tokenizer *t, const tokenizer_train_options *options) {
    if (options->form == TOKENIZER_NFC) t->steps[t->n_steps++] = NORMALIZE_NFC;
    if (options->form == TOKENIZER_NFKC) t->steps[t->n_steps++] = NORMALIZE_NFKC;
    if (options->lowercase) t->steps[t->n_steps++] = NORMALIZE_LOWERCASE;
    t->add_prefix_space = options->add_prefix_space;
    t->cut_words = true;
    t->trim_offsets = true;
}

static bool count_word(intern *words, const char *bytes, size_t length) {
    size_t word = intern_add(words, bytes, length);
    if (word == INTERN_NONE) return false;
    words->entries[word].count++;
    return true;
}

/* The words of one normalised text. With add_prefix_space its first word gets the space that it lacks. */
static bool count_text(const tokenizer *t, const char *text, size_t length, intern *words, normalized *room) {
    size_t at = 0;
    if (length > 0 && t->add_prefix_space && text[0] != ' ') {
        char *prefixed = array_grow(room->bytes, &room->byte_capacity, length + 1, 1);
        if (!prefixed) return false;
        room->bytes = prefixed;
        prefixed[0] = ' ';
        memcpy(prefixed + 1, text, length++);
        text = prefixed;
    }
    for (size_t end; at < length; at = end) {
        end = pretokenize_next(text, length, at);
        if (!count_word(words, text + at, end - at)) return false;
    }
    return true;
}

static int count_words(const tokenizer *t, const char *const *texts, const size_t *lengths, size_t n, intern *words,
                       io_error *error) {
    normalized text = { 0 }, room = { 0 };
    int failed = IO_OK;
    for (size_t i = 0; !failed && i < n; i++) {
        if (lengths[i] > TOKENIZER_MAX_TEXT) {
            failed = io_fail(error, IO_BAD_DATA, "text %zu has %zu bytes; at most %u are learnt from at once", i + 1, lengths[i],
                             TOKENIZER_MAX_TEXT);
        } else if (!(failed = normalize(t->steps, t->n_steps, texts[i], lengths[i], &text, error))) {
            if (!count_text(t, text.bytes, text.n, words, &room))
                failed = io_no_memory(error, "the words of the texts", words->n_bytes);
        }
    }
    normalize_free(&text);
    normalize_free(&room);
    return failed;
}

/* The special tokens and what was learnt as one vocabulary. */
static int set_model(tokenizer *t, bpe_learnt *learnt, io_error *error) {
    const intern *tokens = &learnt->tokens;
    size_t n = tokens->n + TOKENIZER_N_ROLES, at = 0;
    bpe_entry *entries = array_new(n, sizeof *entries);
    char *spelled = array_new(tokens->n_bytes, 2);
    int failed = entries && spelled ? IO_OK : io_no_memory(error, "the vocabulary", tokens->n_bytes);
    for (size_t i = 0; !failed && i < n; i++) {
        if (i < TOKENIZER_N_ROLES) {
            entries[i] = (bpe_entry){ special_tokens[i], strlen(special_tokens[i]), (uint32_t)i, true };
        } else {
            const intern_entry *token = &tokens->entries[i - TOKENIZER_N_ROLES];
            size_t length = bpe_spell(tokens->bytes + token->at, token->length, spelled + at);
            entries[i] = (bpe_entry){ spelled + at, length, (uint32_t)i, true };
            at += length;
        }
    }
    for (size_t i = 0; i < learnt->n_merges; i++) {
        learnt->merges[i].left += TOKENIZER_N_ROLES;
        learnt->merges[i].right += TOKENIZER_N_ROLES;
        learnt->merges[i].made += TOKENIZER_N_ROLES;
    }
    if (!failed) failed = bpe_set_vocabulary(&t->model, entries, n, n, "the vocabulary", error);
    if (!failed) failed = bpe_set_merges(&t->model, learnt->merges, learnt->n_merges, error);
    t->model.unknown = 1;
    free(entries);
    free(spelled);
    return failed;
}

/* [CLS] A [SEP], and [CLS] A [SEP] B [SEP] for pairs. */
static bool set_templates(tokenizer *t) {
    t->has_template = true;
    for (int pair = 0; pair < 2; pair++) {
        template_row *row = pair ? &t->pair : &t->single;
        if (!template_append(row, TEMPLATE_TOKEN, 2, 0) || !template_append(row, TEMPLATE_FIRST, 0, 0) ||
            !template_append(row, TEMPLATE_TOKEN, 3, 0))
            return false;
    }
    return template_append(&t->pair, TEMPLATE_SECOND, 0, 1) && template_append(&t->pair, TEMPLATE_TOKEN, 3, 1);
}

static int set_added(tokenizer *t, io_error *error) {
    t->added = array_new(TOKENIZER_N_ROLES, sizeof *t->added);
    if (!t->added || !set_templates(t)) return io_no_memory(error, "the special tokens", TOKENIZER_N_ROLES * sizeof *t->added);
    for (uint32_t i = 0; i < TOKENIZER_N_ROLES; i++) {
        size_t length = strlen(special_tokens[i]);
        char *pattern = array_new(length + 1, 1);
        if (!pattern) return io_no_memory(error, "the special tokens", length);
        memcpy(pattern, special_tokens[i], length);
        t->added[t->n_added++] = (added_token){ .id = i, .special = true, .pattern = pattern, .length = length };
    }
    return tokenizer_make_sets(t, "the special tokens", error);
}

int tokenizer_train(tokenizer **made, const char *const *texts, const size_t *lengths, size_t n_texts,
                    const tokenizer_train_options *options, io_error *error) {
    static const tokenizer_train_options defaults;
    if (!options) options = &defaults;
    *made = NULL;
    size_t size = options->vocab_size ? options->vocab_size : DEFAULT_VOCABULARY;
    if (size < 256 + TOKENIZER_N_ROLES || size > INT32_MAX)
        return io_fail(error, IO_BAD_USAGE,
                       "a vocabulary of %zu tokens: it needs at least %d, for %d special tokens and 256 bytes", size,
                       256 + TOKENIZER_N_ROLES, TOKENIZER_N_ROLES);
    tokenizer *t = tokenizer_new();
    if (!t) return io_no_memory(error, "a tokenizer", sizeof *t);
    set_steps(t, options);
    intern words = { 0 };
    bpe_learnt learnt = { 0 };
    int failed = count_words(t, texts, lengths, n_texts, &words, error);
    if (!failed) {
        uint64_t frequency = options->min_frequency ? options->min_frequency : DEFAULT_FREQUENCY;
        failed = bpe_learn(&words, size - TOKENIZER_N_ROLES, frequency, &learnt, error);
    }
    if (!failed) failed = set_model(t, &learnt, error);
    if (!failed) failed = set_added(t, error);
    intern_free(&words);
    bpe_learnt_free(&learnt);
    if (failed)
        tokenizer_free(t);
    else
        *made = t;
    return failed;
}
