/* SPDX-License-Identifier: Apache-2.0 */
/* The tokenizer's life and its answers: parts, look-ups, decoding. Encoding is tokenizer_encode.c. See tokenizer.h. */
#include "tokenizer_parts.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "unicode.h"

tokenizer *tokenizer_new(void) {
    static atomic_uint_fast64_t serial;
    tokenizer *t = array_new(1, sizeof *t);
    if (t) t->serial = atomic_fetch_add(&serial, 1) + 1;
    return t;
}

void tokenizer_free(tokenizer *t) {
    if (!t) return;
    for (size_t i = 0; i < t->n_added; i++) free(t->added[i].pattern);
    free(t->added);
    added_set_free(&t->raw_set);
    added_set_free(&t->normalized_set);
    free(t->single.pieces);
    free(t->pair.pieces);
    bpe_free(&t->model);
    free(t);
}

int tokenizer_make_sets(tokenizer *t, const char *name, io_error *error) {
    const added_token *twice;
    for (int second = 0; second < 2; second++) {
        added_set *set = second ? &t->normalized_set : &t->raw_set;
        if (!added_set_make(set, t->added, t->n_added, second, &twice))
            return io_no_memory(error, "the added tokens", t->n_added * sizeof *t->added);
        if (twice) {
            char quoted[UNICODE_QUOTE];
            return io_fail(error, IO_BAD_MODEL, "%s: two added tokens are found by the same text \"%s\"", name,
                           unicode_quote(twice->pattern, twice->length, quoted));
        }
    }
    return IO_OK;
}

bool template_append(template_row *row, template_kind kind, uint32_t id, uint32_t type) {
    template_piece *pieces = array_grow(row->pieces, &row->capacity, row->n + 1, sizeof *pieces);
    if (!pieces) return false;
    row->pieces = pieces;
    pieces[row->n++] = (template_piece){ kind, id, type };
    return true;
}

const added_token *tokenizer_added(const tokenizer *t, uint32_t id) {
    size_t low = 0, high = t->n_added;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (t->added[middle].id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < t->n_added && t->added[low].id == id ? &t->added[low] : NULL;
}

size_t tokenizer_size(const tokenizer *t) { return t->model.n_ids; }

int32_t tokenizer_id(const tokenizer *t, const char *token) {
    uint32_t id = bpe_find(&t->model, token, strlen(token));
    return id == BPE_NONE ? -1 : (int32_t)id;
}

int32_t tokenizer_special(const tokenizer *t, tokenizer_role role) {
    static const char *const names[TOKENIZER_N_ROLES][2] = {
        { "[PAD]", "<pad>" }, { "[UNK]", "<unk>" }, { "[CLS]", "<s>" }, { "[SEP]", "</s>" }, { "[MASK]", "<mask>" },
    };
    for (int i = 0; i < 2; i++) {
        int32_t id = tokenizer_id(t, names[role][i]);
        const added_token *token = id < 0 ? NULL : tokenizer_added(t, (uint32_t)id);
        if (token && token->special) return id;
    }
    return -1;
}

/* The token with this id, or NULL. */
static const bpe_token *find_token(const tokenizer *t, int32_t id) {
    if (id < 0 || (size_t)id >= t->model.n_ids || !t->model.tokens[id].text) return NULL;
    return &t->model.tokens[id];
}

const char *tokenizer_token(const tokenizer *t, int32_t id, size_t *length) {
    const bpe_token *token = find_token(t, id);
    *length = token ? token->n_bytes : 0;
    return token ? token->bytes : NULL;
}

int tokenizer_decode(const tokenizer *t, const int32_t *ids, size_t n, bool skip_special, char **text, size_t *length,
                     io_error *error) {
    char *bytes = NULL;
    size_t capacity = 0, used = 0;
    *text = NULL;
    *length = 0;
    for (size_t i = 0; i <= n; i++) {
        const bpe_token *token = i < n ? find_token(t, ids[i]) : NULL;
        if (i < n && !token) {
            free(bytes);
            return io_fail(error, IO_BAD_DATA, "no token has the id %d; ids go from 0 to %zu", ids[i], t->model.n_ids - 1);
        }
        if (token && skip_special) {
            const added_token *added = tokenizer_added(t, (uint32_t)ids[i]);
            if (added && added->special) continue;
        }
        size_t wanted = used + 1, more = token ? token->n_bytes : 0;
        char *grown = __builtin_add_overflow(wanted, more, &wanted) ? NULL : array_grow(bytes, &capacity, wanted, 1);
        if (!grown) {
            free(bytes);
            return io_no_memory(error, "a decoded text", wanted);
        }
        bytes = grown;
        if (token) memcpy(bytes + used, token->bytes, more);
        used += more;
    }
    bytes[used] = 0;
    *text = bytes;
    *length = used;
    return IO_OK;
}
