/* SPDX-License-Identifier: Apache-2.0 */
/* An array as a person reads it on a terminal: one line per row, columns aligned, the middle of large axes left out. */
#ifndef ATTN_CLI_SHOW_H
#define ATTN_CLI_SHOW_H

#include <attn/attn.h>

#include "text.h"

/* `t` is dense. */
void show_array(text *out, const attn_tensor *t);

#endif
