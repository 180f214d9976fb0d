/* SPDX-License-Identifier: Apache-2.0 */
/* One text to ids: added tokens are cut out, what lies between is normalised and cut into words, words are merged - or remembered
 * from before, since a few thousand words make up most of any text - and the template goes around. See tokenizer.h. */
#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "intern.h"
#include "pretokenize.h"
#include "tokenizer_parts.h"

enum { CACHE_SLOTS = 4096, CACHE_KEY = 22, CACHE_IDS = 8 };

/* A short word and its tokens; a slot is one line of the processor's cache. */
typedef struct cached_word {
    uint8_t length, n; /* length 0: free */
    uint8_t ends[CACHE_IDS];
    char key[CACHE_KEY];
    uint32_t ids[CACHE_IDS];
} cached_word;

struct encoding_scratch {
    size_t id_capacity, start_capacity, end_capacity, word_capacity;
    uint64_t serial; /* the tokenizer that the cached words belong to */
    cached_word *cache;
    bpe_scratch bpe;
    normalized text;
    char *prefixed;
    size_t prefixed_capacity;
};

/* One text on its way. */
typedef struct encoder {
    const tokenizer *t;
    encoding *e;
    size_t most; /* entries after which nothing more is needed */
    int32_t word;
    io_error *error;
} encoder;

/* Text that lies between added tokens, normalised; `base` is where it begins in the whole text. */
typedef struct stretch {
    const char *bytes;
    const normalized *map; /* NULL: byte i came from byte base + i */
    uint32_t base;
} stretch;

static bool reserve(encoding *e, size_t n) {
    struct encoding_scratch *s = e->scratch;
    int32_t *ids = array_grow(e->ids, &s->id_capacity, n, sizeof *ids);
    if (ids) e->ids = ids;
    uint32_t *start = array_grow(e->start, &s->start_capacity, n, sizeof *start);
    if (start) e->start = start;
    uint32_t *end = array_grow(e->end, &s->end_capacity, n, sizeof *end);
    if (end) e->end = end;
    int32_t *word = array_grow(e->word, &s->word_capacity, n, sizeof *word);
    if (word) e->word = word;
    return ids && start && end && word;
}

static int emit(encoder *c, uint32_t id, uint32_t start, uint32_t end, int32_t word) {
    encoding *e = c->e;
    if (!reserve(e, e->n + 1)) return io_no_memory(c->error, "a text's tokens", e->n * 16);
    e->ids[e->n] = (int32_t)id;
    e->start[e->n] = start;
    e->end[e->n] = end;
    e->word[e->n++] = word;
    return IO_OK;
}

/* The bytes of the text that bytes [from, to) of a stretch came from. Marks may have changed places, so all are looked at. */
static void find_span(const stretch *s, size_t from, size_t to, uint32_t *start, uint32_t *end) {
    if (!s->map) {
        *start = s->base + (uint32_t)from;
        *end = s->base + (uint32_t)to;
        return;
    }
    uint32_t low = UINT32_MAX, high = 0;
    for (size_t i = from; i < to; i++) {
        if (s->map->from[i] < low) low = s->map->from[i];
        if (s->map->to[i] > high) high = s->map->to[i];
    }
    if (from == to) low = high = s->map->from[from];
    *start = s->base + low;
    *end = s->base + high;
}

static cached_word *cache_slot(struct encoding_scratch *scratch, const char *word, size_t n) {
    uint64_t parts[3] = { 0, 0, n };
    memcpy(parts, word, n);
    uint64_t hash = intern_mix(intern_mix(intern_mix(parts[0]) ^ parts[1]) ^ parts[2]);
    return &scratch->cache[hash % CACHE_SLOTS];
}

static void remember(cached_word *slot, const char *word, size_t n, const bpe_symbol *symbols, size_t n_symbols) {
    if (n_symbols > CACHE_IDS || n_symbols == 0) return;
    uint32_t at = 0;
    for (size_t i = 0; i < n_symbols; at = symbols[i++].end)
        if (symbols[i].start != at) return; /* bytes were dropped */
    if (at != n) return;
    slot->length = (uint8_t)n;
    slot->n = (uint8_t)n_symbols;
    memcpy(slot->key, word, n);
    for (size_t i = 0; i < n_symbols; i++) {
        slot->ids[i] = symbols[i].id;
        slot->ends[i] = (uint8_t)symbols[i].end;
    }
}

/* A row of words, `bytes` being the stretch from `first` on, with `added` spaces (0 or 1) before it. */
typedef struct word_row {
    const stretch *from;
    const char *bytes;
    size_t first, added;
} word_row;

static int emit_symbol(encoder *c, const word_row *row, uint32_t id, size_t start, size_t end) {
    size_t from = start > row->added ? start - row->added : 0, to = end > row->added ? end - row->added : 0;
    uint32_t text_start, text_end;
    find_span(row->from, row->first + from, row->first + to, &text_start, &text_end);
    return emit(c, id, text_start, text_end, c->word);
}

static int encode_word(encoder *c, const word_row *row, size_t at, size_t end) {
    struct encoding_scratch *scratch = c->e->scratch;
    const char *word = row->bytes + at;
    size_t n = end - at, n_symbols, start = 0;
    cached_word *slot = n <= CACHE_KEY ? cache_slot(scratch, word, n) : NULL;
    if (slot && slot->length == n && memcmp(slot->key, word, n) == 0) {
        for (size_t i = 0; i < slot->n; start = slot->ends[i++]) {
            int failed = emit_symbol(c, row, slot->ids[i], at + start, at + slot->ends[i]);
            if (failed) return failed;
        }
    } else {
        int failed = bpe_encode_word(&c->t->model, word, n, &scratch->bpe, &n_symbols, c->error);
        if (failed) return failed;
        const bpe_symbol *symbols = scratch->bpe.symbols;
        if (slot) remember(slot, word, n, symbols, n_symbols);
        for (size_t i = 0; i < n_symbols; i++) {
            failed = emit_symbol(c, row, symbols[i].id, at + symbols[i].start, at + symbols[i].end);
            if (failed) return failed;
        }
    }
    c->word++;
    return IO_OK;
}

/* Bytes [first, last) of a stretch, which hold no added token. */
static int encode_words(encoder *c, const stretch *s, size_t first, size_t last) {
    struct encoding_scratch *scratch = c->e->scratch;
    word_row row = { s, s->bytes + first, first, 0 };
    size_t n = last - first;
    if (n > 0 && c->t->add_prefix_space && row.bytes[0] != ' ') {
        char *prefixed = array_grow(scratch->prefixed, &scratch->prefixed_capacity, n + 1, 1);
        if (!prefixed) return io_no_memory(c->error, "a text", n + 1);
        scratch->prefixed = prefixed;
        prefixed[0] = ' ';
        memcpy(prefixed + 1, row.bytes, n);
        row.bytes = prefixed;
        row.added = 1;
        n++;
    }
    for (size_t at = 0, end; at < n && c->e->n < c->most; at = end) {
        end = c->t->cut_words ? pretokenize_next(row.bytes, n, at) : n;
        int failed = encode_word(c, &row, at, end);
        if (failed) return failed;
    }
    return IO_OK;
}

static int encode_added(encoder *c, const stretch *s, const added_piece *piece) {
    uint32_t start, end;
    find_span(s, piece->start, piece->end, &start, &end);
    return emit(c, piece->token->id, start, end, c->word++);
}

/* text[0, length) at byte `base` of the whole, which holds no added token that is looked for in the raw text. */
static int encode_stretch(encoder *c, const char *text, size_t length, size_t base) {
    struct encoding_scratch *scratch = c->e->scratch;
    stretch s = { text, NULL, (uint32_t)base };
    if (c->t->n_steps > 0) {
        int failed = normalize(c->t->steps, c->t->n_steps, text, length, &scratch->text, c->error);
        if (failed) return failed;
        s.bytes = scratch->text.bytes;
        s.map = scratch->text.mapped ? &scratch->text : NULL;
        length = scratch->text.n;
    }
    added_walk walk = { .set = &c->t->normalized_set, .text = s.bytes, .length = length };
    added_piece piece;
    while (c->e->n < c->most && added_next(&walk, &piece)) {
        int failed = piece.token ? encode_added(c, &s, &piece) : encode_words(c, &s, piece.start, piece.end);
        if (failed) return failed;
    }
    return IO_OK;
}

static int encode_text(encoder *c, const char *text, size_t length) {
    stretch whole = { text, NULL, 0 };
    added_walk walk = { .set = &c->t->raw_set, .text = text, .length = length };
    added_piece piece;
    while (c->e->n < c->most && added_next(&walk, &piece)) {
        int failed = piece.token ? encode_added(c, &whole, &piece)
                                 : encode_stretch(c, text + piece.start, piece.end - piece.start, piece.start);
        if (failed) return failed;
    }
    return IO_OK;
}

/* ---- the template and the limit ------------------------------------------------------------------------ */

static int prepare(const tokenizer *t, encoding *e, io_error *error) {
    e->n = 0;
    e->truncated = false;
    if (!e->scratch && !(e->scratch = array_new(1, sizeof *e->scratch)))
        return io_no_memory(error, "an encoder", sizeof *e->scratch);
    struct encoding_scratch *s = e->scratch;
    if (!s->cache && !(s->cache = array_new(CACHE_SLOTS, sizeof *s->cache)))
        return io_no_memory(error, "an encoder", CACHE_SLOTS * sizeof *s->cache);
    if (s->serial && s->serial != t->serial) memset(s->cache, 0, CACHE_SLOTS * sizeof *s->cache);
    s->serial = t->serial;
    return reserve(e, 16) ? IO_OK : io_no_memory(error, "an encoder", 16 * 16);
}

static void drop_left(encoding *e, size_t first, size_t kept) {
    size_t gone = e->n - first - kept;
    memmove(e->ids + first, e->ids + first + gone, kept * sizeof *e->ids);
    memmove(e->start + first, e->start + first + gone, kept * sizeof *e->start);
    memmove(e->end + first, e->end + first + gone, kept * sizeof *e->end);
    memmove(e->word + first, e->word + first + gone, kept * sizeof *e->word);
}

/* Cuts what lies after entry `first` to `room` entries. */
static void truncate_to(const tokenizer *t, encoding *e, size_t first, size_t room) {
    if (e->n - first <= room) return;
    if (t->truncate_left) drop_left(e, first, room);
    e->n = first + room;
    e->truncated = true;
}

static int encode_with_template(encoder *c, const char *text, size_t length, size_t room) {
    const template_row *row = &c->t->single;
    bool plain = !c->t->has_template;
    for (size_t i = 0; i < (plain ? 1 : row->n); i++) {
        int failed;
        if (plain || row->pieces[i].kind != TEMPLATE_TOKEN) {
            size_t first = c->e->n;
            /* one more than there is room for, to know that something was cut */
            c->most = room >= SIZE_MAX - first || c->t->truncate_left ? SIZE_MAX : first + room + 1;
            failed = encode_text(c, text, length);
            if (!failed) truncate_to(c->t, c->e, first, room);
        } else {
            failed = emit(c, row->pieces[i].id, 0, 0, -1);
        }
        if (failed) return failed;
    }
    return IO_OK;
}

int tokenizer_encode(const tokenizer *t, const char *text, size_t length, size_t max_length, encoding *e, io_error *error) {
    int failed = prepare(t, e, error);
    if (failed) return failed;
    if (length > TOKENIZER_MAX_TEXT)
        return io_fail(error, IO_BAD_DATA, "a text of %zu bytes; at most %u are encoded at once", length, TOKENIZER_MAX_TEXT);
    size_t n_around = t->has_template ? t->single.n - 1 : 0, limit = max_length ? max_length : t->truncation;
    if (limit && limit < n_around)
        return io_fail(error, IO_BAD_USAGE, "at most %zu tokens per text, but the template alone is %zu", limit, n_around);
    encoder c = { .t = t, .e = e, .error = error };
    failed = encode_with_template(&c, text, length, limit ? limit - n_around : SIZE_MAX);
    if (failed) e->n = 0;
    return failed;
}

void encoding_free(encoding *e) {
    free(e->ids);
    free(e->start);
    free(e->end);
    free(e->word);
    if (e->scratch) {
        free(e->scratch->cache);
        bpe_scratch_free(&e->scratch->bpe);
        normalize_free(&e->scratch->text);
        free(e->scratch->prefixed);
        free(e->scratch);
    }
    *e = (encoding){ 0 };
}
