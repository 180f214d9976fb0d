/* SPDX-License-Identifier: Apache-2.0 */
/* The kinds of files that attn inspect knows. A new one is a pair of functions here and a line in inspect.c's table. */
#ifndef ATTN_CLI_INSPECT_H
#define ATTN_CLI_INSPECT_H

#include <stdbool.h>

#include <attn/attn.h>

#include "text.h"

typedef struct inspect_settings {
    const char *path;
    bool json;
} inspect_settings;

/* "[2, 3]" */
void inspect_shape(text *out, const attn_tensor *t);

/* Say what is in the file, as text or as one JSON object; an exit code, after a message, when it cannot be read. */
int inspect_safetensors(const inspect_settings *settings, text *out);
int inspect_model(const inspect_settings *settings, text *out);

#endif
