/* SPDX-License-Identifier: Apache-2.0 */
/* Growing text. See text.h. */
#include "text.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool reserve(text *t, size_t more) {
    if (t->failed) return false;
    if (t->data && more < t->capacity - t->length) return true;
    size_t capacity = t->capacity * 2 + more + 256;
    char *grown = capacity > more ? realloc(t->data, capacity) : NULL;
    if (!grown) {
        t->failed = true;
        return false;
    }
    t->data = grown;
    t->capacity = capacity;
    return true;
}

void text_add(text *t, const char *format, ...) {
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (length >= 0 && reserve(t, (size_t)length)) {
        vsnprintf(t->data + t->length, (size_t)length + 1, format, again);
        t->length += (size_t)length;
    }
    va_end(again);
}

void text_add_bytes(text *t, const char *bytes, size_t n) {
    if (!reserve(t, n)) return;
    memcpy(t->data + t->length, bytes, n);
    t->length += n;
    t->data[t->length] = '\0';
}

size_t text_utf8_length(const char *bytes, size_t n) {
    const unsigned char *s = (const unsigned char *)bytes;
    static const unsigned least[] = { 0, 0, 0x80, 0x800, 0x10000 };
    if (s[0] < 0x80) return 1;
    size_t length = s[0] >= 0xf0 && s[0] < 0xf8 ? 4 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3 : s[0] >= 0xc0 && s[0] < 0xe0 ? 2 : 0;
    if (length == 0 || length > n) return 0;
    unsigned code = s[0] & (0xffu >> (length + 1));
    for (size_t i = 1; i < length; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0;
        code = code << 6 | (s[i] & 0x3f);
    }
    return code >= least[length] && code <= 0x10ffff && !(code >= 0xd800 && code < 0xe000) ? length : 0;
}

void text_add_json(text *t, const char *string) {
    text_add_bytes(t, "\"", 1);
    size_t left = strlen(string), length;
    for (const char *c = string; left > 0; c += length, left -= length) {
        size_t valid = text_utf8_length(c, left);
        length = valid ? valid : 1;
        if (*c == '"' || *c == '\\')
            text_add(t, "\\%c", *c);
        else if ((unsigned char)*c < ' ')
            text_add(t, "\\u%04x", (unsigned)*c);
        else
            text_add_bytes(t, valid ? c : "\xef\xbf\xbd", valid ? valid : 3);
    }
    text_add_bytes(t, "\"", 1);
}

void text_add_json_number(text *t, double value) {
    if (!isfinite(value)) {
        text_add(t, "null");
        return;
    }
    char digits[32];
    for (int precision = 6; precision <= 17; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, value);
        if (strtod(digits, NULL) == value) break;
    }
    text_add(t, "%s", digits);
}

void text_free(text *t) {
    free(t->data);
    *t = (text){ 0 };
}

int text_write(text *t, io_output *output, io_error *error) {
    if (t->failed) return io_fail(error, IO_NO_ROOM, "out of memory while composing the result");
    int failed = io_output_write(output, t->data, t->length, error);
    t->length = 0;
    return failed;
}
