/* SPDX-License-Identifier: Apache-2.0 */
/* JSON from anyone: jansson behind limits that keep a small hostile text from becoming a huge tree, and with errors that say where. */
#ifndef ATTN_IO_JSON_H
#define ATTN_IO_JSON_H

#include <stddef.h>

#include <jansson.h>

#include "error.h"

/* The value in `text` (UTF-8; keys twice in an object are an error), or NULL. Before anything is allocated the text is held against
 * `max_parts` values and `max_depth` levels: a value costs up to some 150 bytes of memory. `code` is the class of a failure,
 * IO_BAD_DATA or IO_BAD_MODEL; `line` is where the text begins in its file, from 1. */
json_t *io_json_parse(const char *text, size_t size, const char *name, size_t line, size_t max_parts, size_t max_depth, int code,
                      io_error *error);

/* The same from a whole file of at most `max_size` bytes. */
json_t *io_json_read(const char *path, size_t max_size, size_t max_parts, size_t max_depth, int code, io_error *error);

#endif
