/* SPDX-License-Identifier: Apache-2.0 */
/* The reader of tokenizer.json, shared between its model half (tokenizer_load.c) and the parts around it
 * (tokenizer_load_parts.c). */
#ifndef ATTN_IO_TOKENIZER_LOAD_H
#define ATTN_IO_TOKENIZER_LOAD_H

#include <jansson.h>

#include "tokenizer_parts.h"

typedef struct loader {
    const char *name;    /* of the file, for messages */
    const json_t *added; /* the array added_tokens, or NULL */
    io_error *error;
} loader;

/* IO_BAD_MODEL, "<file>: <where> <why>". */
int loader_fail(const loader *l, const char *where, const char *why);
/* IO_BAD_MODEL for a part of the file that has no type, or one that is not implemented. */
int loader_refuse(const loader *l, const char *part, const json_t *value);
/* The "type" of a part, or "". */
const char *loader_type(const json_t *part);
/* A boolean that may be missing or null. */
int loader_bool(const loader *l, const json_t *object, const char *key, bool otherwise, bool *out);
/* A number that may be an id; `what` begins the message. */
int loader_id(const loader *l, const json_t *value, const char *what, uint32_t *id);

/* Each takes one member of the file, NULL where it has none. The vocabulary is there already. */
int load_normalizer(const loader *l, const json_t *part, tokenizer *t);
int load_pre_tokenizer(const loader *l, const json_t *part, tokenizer *t);
int load_post_processor(const loader *l, const json_t *part, tokenizer *t);
int load_decoder(const loader *l, const json_t *part);
int load_truncation(const loader *l, const json_t *part, tokenizer *t);
/* The array added_tokens, after the normalizer. */
int load_added(const loader *l, tokenizer *t);

#endif
