/* SPDX-License-Identifier: Apache-2.0 */
/* What a tokenizer asks of a character: its kind, its small letter, its parts. The answers are those of Hugging Face's
 * `tokenizers`, whose engines know other editions of Unicode than utf8proc does: where the two differ, a table in unicode.c
 * follows `tokenizers`, because a token id must be the same on both sides. tests/oracle/test_tokenizer.py compares every
 * character there is. */
#ifndef ATTN_IO_UNICODE_H
#define ATTN_IO_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A byte b that is not part of valid UTF-8 is the character UNICODE_RAW + b: every text is a row of characters and comes back
 * whole. */
#define UNICODE_RAW        0x110000u
#define UNICODE_MAX_PARTS  32 /* more characters than any one decomposes into (the longest is 18) */
#define UNICODE_MAX_LENGTH 4  /* bytes */

/* The character at text[0, n), n > 0, and the bytes it takes. */
uint32_t unicode_decode(const char *text, size_t n, size_t *used);

/* Its bytes, at most UNICODE_MAX_LENGTH, in out; returns how many. */
size_t unicode_encode(uint32_t c, char *out);

typedef enum { UNICODE_LETTER, UNICODE_NUMBER, UNICODE_SPACE, UNICODE_OTHER } unicode_kind;
unicode_kind unicode_kind_of(uint32_t c);

/* The small letter, one or two characters; any other character is itself. */
size_t unicode_lower(uint32_t c, uint32_t out[2]);

/* Canonical combining class: 0 for what stands by itself, else where the mark goes. */
unsigned unicode_mark_class(uint32_t c);

/* The full decomposition, canonical or compatible; c itself where there is none. */
size_t unicode_decompose(uint32_t c, bool compatible, uint32_t out[UNICODE_MAX_PARTS]);

/* The one character that a and b make canonically, or 0. */
uint32_t unicode_compose(uint32_t a, uint32_t b);

/* A text for an error message: at most 40 characters of it, whole ones, control characters as '?', "..." where it was cut. */
#define UNICODE_QUOTE 168
const char *unicode_quote(const char *text, size_t n, char out[UNICODE_QUOTE]);

#endif
