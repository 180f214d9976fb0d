/* SPDX-License-Identifier: Apache-2.0 */
/* A result made of text, composed in memory and written at the end, so that a failure half way writes nothing. Includes the little
 * JSON that the array verbs write; they work in builds without any JSON library. */
#ifndef ATTN_IO_TEXT_H
#define ATTN_IO_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "file.h"

typedef struct text {
    char *data; /* length bytes and a 0; NULL while empty */
    size_t length, capacity;
    bool failed; /* out of memory: noticed by text_write */
} text;

void text_add(text *t, const char *format, ...) IO_PRINTF(2, 3);
void text_add_bytes(text *t, const char *bytes, size_t n);
/* Bytes of the UTF-8 sequence that begins here, of which n >= 1 bytes are left; 0 where there is none. */
size_t text_utf8_length(const char *bytes, size_t n);
/* A JSON string in its quotes; bytes that are not UTF-8 become U+FFFD. */
void text_add_json(text *t, const char *string);
/* A JSON number that reads back as the same double; null for NaN and infinities, which JSON does not have. */
void text_add_json_number(text *t, double value);
void text_free(text *t);

/* Appends the text to an output and empties it. */
int text_write(text *t, io_output *output, io_error *error);

#endif
