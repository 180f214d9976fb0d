/* SPDX-License-Identifier: Apache-2.0 */
/* Characters by utf8proc (Unicode 15 where this was measured), corrected to what `tokenizers` 0.23 answers: its regular
 * expressions know the letters and digits of Unicode 16, its small letters are those of Unicode 17, its normal forms stop at
 * Unicode 9. See unicode.h. */
#include "unicode.h"

#include <utf8proc.h>

typedef struct range {
    uint32_t first, last;
} range;

/* Letters since Unicode 15.1. */
static const range later_letters[] = {
    { 0x1C89, 0x1C8A },   { 0xA7CB, 0xA7CD },   { 0xA7DA, 0xA7DC },   { 0x105C0, 0x105F3 }, { 0x10D4A, 0x10D65 },
    { 0x10D6F, 0x10D85 }, { 0x10EC2, 0x10EC4 }, { 0x11380, 0x11389 }, { 0x1138B, 0x1138B }, { 0x1138E, 0x1138E },
    { 0x11390, 0x113B5 }, { 0x113B7, 0x113B7 }, { 0x113D1, 0x113D1 }, { 0x113D3, 0x113D3 }, { 0x11BC0, 0x11BE0 },
    { 0x13460, 0x143FA }, { 0x16100, 0x1611D }, { 0x16D40, 0x16D6C }, { 0x18CFF, 0x18CFF }, { 0x1E5D0, 0x1E5ED },
    { 0x1E5F0, 0x1E5F0 }, { 0x2EBF0, 0x2EE5D },
};

/* Digits since Unicode 15.1. */
static const range later_numbers[] = {
    { 0x10D40, 0x10D49 }, { 0x116D0, 0x116E3 }, { 0x11BF0, 0x11BF9 }, { 0x16130, 0x16139 },
    { 0x16D70, 0x16D79 }, { 0x1CCF0, 0x1CCF9 }, { 0x1E5F1, 0x1E5FA },
};

/* Marks since Unicode 9: the normal forms of `tokenizers` leave them where they stand. */
static const range later_marks[] = {
    { 0x7FD, 0x7FD },     { 0x898, 0x89F },     { 0x8CA, 0x8D3 },     { 0x9FE, 0x9FE },     { 0xC3C, 0xC3C },
    { 0xD3B, 0xD3C },     { 0xEBA, 0xEBA },     { 0x1715, 0x1715 },   { 0x1ABF, 0x1ACE },   { 0x1DF6, 0x1DFA },
    { 0xA82C, 0xA82C },   { 0x10D24, 0x10D27 }, { 0x10EAB, 0x10EAC }, { 0x10EFD, 0x10EFF }, { 0x10F46, 0x10F50 },
    { 0x10F82, 0x10F85 }, { 0x11070, 0x11070 }, { 0x1133B, 0x1133B }, { 0x1145E, 0x1145E }, { 0x11839, 0x1183A },
    { 0x1193D, 0x1193E }, { 0x11943, 0x11943 }, { 0x119E0, 0x119E0 }, { 0x11A34, 0x11A34 }, { 0x11A47, 0x11A47 },
    { 0x11A99, 0x11A99 }, { 0x11D42, 0x11D42 }, { 0x11D44, 0x11D45 }, { 0x11D97, 0x11D97 }, { 0x11F41, 0x11F42 },
    { 0x16FF0, 0x16FF1 }, { 0x1E08F, 0x1E08F }, { 0x1E130, 0x1E136 }, { 0x1E2AE, 0x1E2AE }, { 0x1E2EC, 0x1E2EF },
    { 0x1E4EC, 0x1E4EF },
};

/* Characters since Unicode 9 that have parts which `tokenizers` does not know of. */
static const range later_compounds[] = {
    { 0x32FF, 0x32FF },   { 0xA7F2, 0xA7F4 },   { 0xAB69, 0xAB69 },   { 0x10781, 0x10785 }, { 0x10787, 0x107B0 },
    { 0x107B2, 0x107BA }, { 0x11938, 0x11938 }, { 0x1E030, 0x1E06D }, { 0x1F16C, 0x1F16C }, { 0x1FBF0, 0x1FBF9 },
};

/* Capital letters since Unicode 15.1, and two that were encoded before their small letters: `distance` to the small letter. */
static const struct {
    uint32_t first, last;
    int32_t distance;
} later_capitals[] = {
    { 0x1C89, 0x1C89, 1 },      { 0xA7CB, 0xA7CB, 0x264 - 0xA7CB },
    { 0xA7CC, 0xA7CC, 1 },      { 0xA7CE, 0xA7CE, 1 },
    { 0xA7D2, 0xA7D2, 1 },      { 0xA7D4, 0xA7D4, 1 },
    { 0xA7DA, 0xA7DA, 1 },      { 0xA7DC, 0xA7DC, 0x19B - 0xA7DC },
    { 0x10D50, 0x10D65, 0x20 }, { 0x16EA0, 0x16EB8, 0x1B },
};

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static bool is_in(const range *table, size_t n, uint32_t c) {
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (c > table[middle].last)
            low = middle + 1;
        else
            high = middle;
    }
    return low < n && table[low].first <= c;
}

uint32_t unicode_decode(const char *text, size_t n, size_t *used) {
    unsigned char first = (unsigned char)text[0];
    *used = 1;
    if (first < 0x80) return first;
    utf8proc_int32_t c;
    utf8proc_ssize_t length = utf8proc_iterate((const utf8proc_uint8_t *)text, n > 4 ? 4 : (utf8proc_ssize_t)n, &c);
    if (length <= 0) return UNICODE_RAW + first;
    *used = (size_t)length;
    return (uint32_t)c;
}

size_t unicode_encode(uint32_t c, char *out) {
    if (c < 0x80 || c >= UNICODE_RAW) {
        out[0] = (char)(c < 0x80 ? c : c - UNICODE_RAW);
        return 1;
    }
    return (size_t)utf8proc_encode_char((utf8proc_int32_t)c, (utf8proc_uint8_t *)out);
}

static unicode_kind kind_of_ascii(uint32_t c) {
    if ((c | 0x20) - 'a' < 26) return UNICODE_LETTER;
    if (c - '0' < 10) return UNICODE_NUMBER;
    return c == ' ' || c - '\t' < 5 ? UNICODE_SPACE : UNICODE_OTHER;
}

static bool is_space(uint32_t c) {
    return c == 0x85 || c == 0xA0 || c == 0x1680 || c - 0x2000 <= 0x0A || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

unicode_kind unicode_kind_of(uint32_t c) {
    if (c < 0x80) return kind_of_ascii(c);
    if (c >= UNICODE_RAW) return UNICODE_OTHER;
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO: return UNICODE_LETTER;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO: return UNICODE_NUMBER;
    case UTF8PROC_CATEGORY_CN:
        if (is_in(later_letters, COUNT(later_letters), c)) return UNICODE_LETTER;
        return is_in(later_numbers, COUNT(later_numbers), c) ? UNICODE_NUMBER : UNICODE_OTHER;
    default: return is_space(c) ? UNICODE_SPACE : UNICODE_OTHER;
    }
}

size_t unicode_lower(uint32_t c, uint32_t out[2]) {
    out[0] = c;
    if (c < 0x80) {
        if (c - 'A' < 26) out[0] = c + 0x20;
        return 1;
    }
    if (c >= UNICODE_RAW) return 1;
    if (c == 0x130) { /* the dotted capital I: the one letter whose small form is two characters */
        out[0] = 'i';
        out[1] = 0x307;
        return 2;
    }
    out[0] = (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
    if (out[0] != c) return 1;
    for (size_t i = 0; i < COUNT(later_capitals); i++) {
        if (c >= later_capitals[i].first && c <= later_capitals[i].last)
            out[0] = (uint32_t)((int32_t)c + later_capitals[i].distance);
    }
    return 1;
}

unsigned unicode_mark_class(uint32_t c) {
    if (c < 0x300 || c >= UNICODE_RAW) return 0;
    unsigned mark_class = (uint16_t)utf8proc_get_property((utf8proc_int32_t)c)->combining_class;
    return mark_class && !is_in(later_marks, COUNT(later_marks), c) ? mark_class : 0;
}

size_t unicode_decompose(uint32_t c, bool compatible, uint32_t out[UNICODE_MAX_PARTS]) {
    out[0] = c;
    if (c < 0xA0 || c >= UNICODE_RAW || is_in(later_compounds, COUNT(later_compounds), c)) return 1;
    utf8proc_int32_t parts[UNICODE_MAX_PARTS];
    int boundary = 0;
    utf8proc_option_t options = compatible ? UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT : UTF8PROC_DECOMPOSE;
    utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)c, parts, UNICODE_MAX_PARTS, options, &boundary);
    if (n <= 0 || n > UNICODE_MAX_PARTS) return 1;
    for (utf8proc_ssize_t i = 0; i < n; i++) out[i] = (uint32_t)parts[i];
    return (size_t)n;
}

uint32_t unicode_compose(uint32_t a, uint32_t b) {
    if (b < 0x300 || a >= UNICODE_RAW || b >= UNICODE_RAW) return 0; /* nothing below U+0300 joins what stands before it */
    utf8proc_int32_t pair[2] = { (utf8proc_int32_t)a, (utf8proc_int32_t)b };
    if (utf8proc_normalize_utf32(pair, 2, UTF8PROC_COMPOSE | UTF8PROC_STABLE) != 1) return 0;
    uint32_t c = (uint32_t)pair[0];
    return is_in(later_compounds, COUNT(later_compounds), c) ? 0 : c;
}

const char *unicode_quote(const char *text, size_t n, char out[UNICODE_QUOTE]) {
    size_t length = 0, i = 0, used;
    for (int shown = 0; i < n && shown < 40; i += used, shown++) {
        uint32_t c = unicode_decode(text + i, n - i, &used);
        length += unicode_encode(c < 0x20 || (c >= 0x7F && c < 0xA0) || c >= UNICODE_RAW ? '?' : c, out + length);
    }
    for (int dot = 0; i < n && dot < 3; dot++) out[length++] = '.';
    out[length] = 0;
    return out;
}
