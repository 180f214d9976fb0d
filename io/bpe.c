/* SPDX-License-Identifier: Apache-2.0 */
/* Building the model's tables: spelling of bytes, vocabulary, merges. See bpe.h; encoding a word is bpe_encode.c. */
#include "bpe.h"

#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "unicode.h"

/* GPT-2's alphabet: a byte that is a printable character of Latin-1 is that character; the 68 others, in order, follow from
 * U+0100. */
uint32_t bpe_byte_char(unsigned char byte) {
    if (byte <= 32) return 256u + byte;
    if (byte >= 127 && byte <= 160) return 256u + 33 + (byte - 127u);
    return byte == 173 ? 256u + 67 : byte;
}

int bpe_char_byte(uint32_t c) {
    if (c < 256) return bpe_byte_char((unsigned char)c) == c ? (int)c : -1;
    if (c <= 256 + 32) return (int)(c - 256);
    if (c < 256 + 67) return (int)(c - 256 - 33 + 127);
    return c == 256 + 67 ? 173 : -1;
}

size_t bpe_spell(const char *bytes, size_t n, char *out) {
    size_t length = 0;
    for (size_t i = 0; i < n; i++) length += unicode_encode(bpe_byte_char((unsigned char)bytes[i]), out + length);
    return length;
}

/* The bytes of a token's text; a text with any other character stands for itself. */
static uint32_t unspell(const char *text, size_t length, char *out) {
    size_t n = 0;
    for (size_t i = 0, used; i < length; i += used) {
        int byte = bpe_char_byte(unicode_decode(text + i, length - i, &used));
        if (byte < 0) {
            memcpy(out, text, length);
            return (uint32_t)length;
        }
        out[n++] = (char)byte;
    }
    return (uint32_t)n;
}

static int compare_texts(const char *a, size_t a_length, const char *b, size_t b_length) {
    int order = memcmp(a, b, a_length < b_length ? a_length : b_length);
    return order ? order : (a_length > b_length) - (a_length < b_length);
}

static int compare_entries(const void *a, const void *b) {
    const bpe_entry *x = a, *y = b;
    return compare_texts(x->text, x->length, y->text, y->length);
}

uint32_t bpe_find(const bpe *model, const char *text, size_t length) {
    size_t low = 0, high = model->n_tokens;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const bpe_token *token = &model->tokens[model->by_text[middle]];
        int order = compare_texts(text, length, token->text, token->text_length);
        if (order == 0) return model->by_text[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return BPE_NONE;
}

/* Bytes that the pool needs: text, its NUL, and the bytes, which are never more than the text. */
static bool pool_size(const bpe_entry *entries, size_t n, size_t *size) {
    *size = 0;
    for (size_t i = 0; i < n; i++) {
        size_t both;
        if (entries[i].length >= UINT32_MAX || __builtin_mul_overflow(entries[i].length, 2, &both) ||
            __builtin_add_overflow(*size, both, size) || __builtin_add_overflow(*size, 1, size))
            return false;
    }
    return true;
}

static int fill_tokens(bpe *model, const bpe_entry *sorted, size_t n, const char *name, io_error *error) {
    char *at = model->pool;
    for (size_t i = 0; i < n; i++) {
        const bpe_entry *entry = &sorted[i];
        char quoted[UNICODE_QUOTE], other[UNICODE_QUOTE];
        unicode_quote(entry->text, entry->length, quoted);
        if (i > 0 && compare_entries(&sorted[i - 1], entry) == 0)
            return io_fail(error, IO_BAD_MODEL, "%s: the token \"%s\" stands there twice", name, quoted);
        if (entry->id >= model->n_ids)
            return io_fail(error, IO_BAD_MODEL, "%s: the id %u of the token \"%s\" is out of range", name, entry->id, quoted);
        bpe_token *token = &model->tokens[entry->id];
        if (token->text)
            return io_fail(error, IO_BAD_MODEL, "%s: the tokens \"%s\" and \"%s\" have the same id %u", name,
                           unicode_quote(token->text, token->text_length, other), quoted, entry->id);
        memcpy(at, entry->text, entry->length);
        at[entry->length] = 0;
        token->text = at;
        token->text_length = (uint32_t)entry->length;
        token->bytes = at + entry->length + 1;
        token->n_bytes = unspell(entry->text, entry->length, at + entry->length + 1);
        token->in_model = entry->in_model;
        model->by_text[i] = entry->id;
        at += 2 * entry->length + 1;
    }
    model->n_tokens = n;
    return IO_OK;
}

int bpe_set_vocabulary(bpe *model, const bpe_entry *entries, size_t n, size_t n_ids, const char *name, io_error *error) {
    size_t size;
    if (!pool_size(entries, n, &size)) return io_fail(error, IO_BAD_MODEL, "%s: the tokens are too long", name);
    bpe_entry *sorted = array_new(n, sizeof *sorted);
    model->pool = array_new(size, 1);
    model->tokens = array_new(n_ids, sizeof *model->tokens);
    model->by_text = array_new(n, sizeof *model->by_text);
    model->n_ids = n_ids;
    if (!sorted || !model->pool || !model->tokens || !model->by_text) {
        free(sorted);
        return io_no_memory(error, "the vocabulary", size);
    }
    if (n) memcpy(sorted, entries, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, compare_entries);
    int failed = fill_tokens(model, sorted, n, name, error);
    free(sorted);
    if (failed) return failed;

    model->unknown = BPE_NONE;
    for (int byte = 0; byte < 256; byte++) {
        char text[UNICODE_MAX_LENGTH];
        uint32_t id = bpe_find(model, text, unicode_encode(bpe_byte_char((unsigned char)byte), text));
        model->byte_id[byte] = id != BPE_NONE && model->tokens[id].in_model ? id : BPE_NONE;
    }
    return IO_OK;
}

static int compare_merges(const void *a, const void *b) {
    const bpe_merge *x = a, *y = b;
    if (x->left != y->left) return x->left < y->left ? -1 : 1;
    if (x->right != y->right) return x->right < y->right ? -1 : 1;
    return (x->rank > y->rank) - (x->rank < y->rank);
}

int bpe_set_merges(bpe *model, const bpe_merge *merges, size_t n, io_error *error) {
    model->merges = array_new(n, sizeof *model->merges);
    model->first_merge = array_new(model->n_ids + 1, sizeof *model->first_merge);
    if (!model->merges || !model->first_merge) return io_no_memory(error, "the merges", n * sizeof *merges);
    if (n) memcpy(model->merges, merges, n * sizeof *merges);
    qsort(model->merges, n, sizeof *model->merges, compare_merges);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        const bpe_merge *merge = &model->merges[i];
        bool repeated = i + 1 < n && merge->left == merge[1].left && merge->right == merge[1].right;
        if (!repeated) model->merges[kept++] = *merge;
    }
    model->n_merges = kept;
    for (size_t i = 0; i < kept; i++) model->first_merge[model->merges[i].left + 1]++;
    for (size_t i = 0; i < model->n_ids; i++) model->first_merge[i + 1] += model->first_merge[i];
    return IO_OK;
}

void bpe_free(bpe *model) {
    free(model->tokens);
    free(model->by_text);
    free(model->merges);
    free(model->first_merge);
    free(model->pool);
    *model = (bpe){ 0 };
}
