/* SPDX-License-Identifier: Apache-2.0 */
/* Normal forms in three passes (decompose, order the marks, compose) over characters that carry where they came from; utf8proc's
 * own functions say nothing about that and order marks in quadratic time. See normalize.h. */
#include "normalize.h"

#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "unicode.h"

static bool is_ascii(const char *text, size_t length) {
    unsigned char all = 0;
    for (size_t i = 0; i < length; i++) all |= (unsigned char)text[i];
    return all < 0x80;
}

static bool reserve_chars(normalize_char **chars, size_t *capacity, size_t n) {
    normalize_char *grown = array_grow(*chars, capacity, n, sizeof **chars);
    if (grown) *chars = grown;
    return grown != NULL;
}

static bool decode_text(const char *text, size_t length, normalized *out, size_t *n) {
    if (!reserve_chars(&out->chars, &out->char_capacity, length)) return false;
    size_t count = 0;
    for (size_t i = 0, used; i < length; i += used) {
        uint32_t c = unicode_decode(text + i, length - i, &used);
        out->chars[count++] = (normalize_char){ c, (uint32_t)i, (uint32_t)(i + used) };
    }
    *n = count;
    return true;
}

/* spare = the parts of chars; the two arrays change places. */
static bool decompose(normalized *out, size_t *n, bool compatible) {
    size_t count = 0;
    for (size_t i = 0; i < *n; i++) {
        if (!reserve_chars(&out->spare, &out->spare_capacity, count + UNICODE_MAX_PARTS)) return false;
        uint32_t parts[UNICODE_MAX_PARTS];
        normalize_char whole = out->chars[i];
        size_t n_parts = unicode_decompose(whole.c, compatible, parts);
        for (size_t p = 0; p < n_parts; p++) out->spare[count++] = (normalize_char){ parts[p], whole.from, whole.to };
    }
    normalize_char *chars = out->chars;
    size_t capacity = out->char_capacity;
    out->chars = out->spare;
    out->char_capacity = out->spare_capacity;
    out->spare = chars;
    out->spare_capacity = capacity;
    *n = count;
    return true;
}

/* Sorts a run of marks by class, equal classes in the order they stand: by counting, since a run may be as long as the text. */
static void order_run(normalize_char *run, size_t n, normalize_char *spare) {
    size_t place[256] = { 0 };
    for (size_t i = 0; i < n; i++) place[unicode_mark_class(run[i].c)]++;
    size_t sum = 0;
    for (size_t k = 0; k < 256; k++) {
        size_t here = place[k];
        place[k] = sum;
        sum += here;
    }
    for (size_t i = 0; i < n; i++) spare[place[unicode_mark_class(run[i].c)]++] = run[i];
    memcpy(run, spare, n * sizeof *run);
}

static bool order_marks(normalized *out, size_t n) {
    if (!reserve_chars(&out->spare, &out->spare_capacity, n)) return false;
    for (size_t i = 0; i < n;) {
        size_t end = i;
        bool ordered = true;
        unsigned last = 0, mark_class;
        for (; end < n && (mark_class = unicode_mark_class(out->chars[end].c)) != 0; end++) {
            if (mark_class < last) ordered = false;
            last = mark_class;
        }
        if (!ordered) order_run(out->chars + i, end - i, out->spare);
        i = end + (end == i);
    }
    return true;
}

/* Unicode's canonical composition: a character joins the last one that stands by itself (class 0) unless something between them
 * has class 0 or at least its own class. */
static size_t compose(normalize_char *chars, size_t n) {
    size_t count = 0, base = SIZE_MAX;
    unsigned between = 0; /* class of the last character kept after the base; meaningful when the base is not the last */
    for (size_t i = 0; i < n; i++) {
        normalize_char next = chars[i];
        unsigned mark_class = unicode_mark_class(next.c);
        bool adjacent = base != SIZE_MAX && base + 1 == count;
        if (base != SIZE_MAX && (adjacent || between < mark_class)) {
            uint32_t whole = unicode_compose(chars[base].c, next.c);
            if (whole) {
                chars[base].c = whole;
                if (next.from < chars[base].from) chars[base].from = next.from;
                if (next.to > chars[base].to) chars[base].to = next.to;
                continue;
            }
        }
        chars[count] = next;
        if (mark_class == 0) base = count;
        between = mark_class;
        count++;
    }
    return count;
}

static bool lowercase(normalized *out, size_t *n) {
    if (!reserve_chars(&out->spare, &out->spare_capacity, *n * 2)) return false;
    size_t count = 0;
    for (size_t i = 0; i < *n; i++) {
        uint32_t small[2];
        normalize_char whole = out->chars[i];
        size_t n_small = unicode_lower(whole.c, small);
        for (size_t p = 0; p < n_small; p++) out->spare[count++] = (normalize_char){ small[p], whole.from, whole.to };
    }
    if (!reserve_chars(&out->chars, &out->char_capacity, count)) return false;
    memcpy(out->chars, out->spare, count * sizeof *out->chars);
    *n = count;
    return true;
}

static bool take_step(normalize_step step, normalized *out, size_t *n) {
    if (step == NORMALIZE_LOWERCASE) return lowercase(out, n);
    if (!decompose(out, n, step == NORMALIZE_NFKC || step == NORMALIZE_NFKD) || !order_marks(out, *n)) return false;
    if (step == NORMALIZE_NFC || step == NORMALIZE_NFKC) *n = compose(out->chars, *n);
    return true;
}

static bool reserve_bytes(normalized *out, size_t n, bool mapped) {
    char *bytes = array_grow(out->bytes, &out->byte_capacity, n, 1);
    if (!bytes) return false;
    out->bytes = bytes;
    if (!mapped) return true;
    uint32_t *from = array_grow(out->from, &out->from_capacity, n, sizeof *from);
    if (!from) return false;
    out->from = from;
    uint32_t *to = array_grow(out->to, &out->to_capacity, n, sizeof *to);
    if (!to) return false;
    out->to = to;
    return true;
}

/* Characters to bytes. A character that stands unchanged for itself maps byte by byte, any other as a whole. */
static bool encode_chars(const char *text, size_t n_chars, normalized *out) {
    out->n = 0;
    out->mapped = true;
    for (size_t i = 0; i < n_chars; i++) {
        if (!reserve_bytes(out, out->n + UNICODE_MAX_LENGTH, true)) return false;
        normalize_char c = out->chars[i];
        char *bytes = out->bytes + out->n;
        size_t length = unicode_encode(c.c, bytes);
        bool same = length == c.to - c.from && memcmp(bytes, text + c.from, length) == 0;
        for (size_t b = 0; b < length; b++) {
            out->from[out->n] = same ? c.from + (uint32_t)b : c.from;
            out->to[out->n++] = same ? c.from + (uint32_t)b + 1 : c.to;
        }
    }
    return true;
}

static bool normalize_ascii(const normalize_step *steps, size_t n_steps, const char *text, size_t length, normalized *out) {
    if (!reserve_bytes(out, length, false)) return false;
    bool small = false;
    for (size_t i = 0; i < n_steps; i++) small |= steps[i] == NORMALIZE_LOWERCASE;
    for (size_t i = 0; i < length; i++)
        out->bytes[i] = small && text[i] >= 'A' && text[i] <= 'Z' ? (char)(text[i] + 0x20) : text[i];
    out->n = length;
    out->mapped = false;
    return true;
}

int normalize(const normalize_step *steps, size_t n_steps, const char *text, size_t length, normalized *out, io_error *error) {
    bool done;
    if (is_ascii(text, length)) {
        done = normalize_ascii(steps, n_steps, text, length, out);
    } else {
        size_t n = 0;
        done = decode_text(text, length, out, &n);
        for (size_t i = 0; done && i < n_steps; i++) done = take_step(steps[i], out, &n);
        done = done && encode_chars(text, n, out);
    }
    return done ? IO_OK : io_no_memory(error, "a normalised text", length);
}

void normalize_free(normalized *out) {
    free(out->bytes);
    free(out->from);
    free(out->to);
    free(out->chars);
    free(out->spare);
    *out = (normalized){ 0 };
}
