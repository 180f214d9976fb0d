/* SPDX-License-Identifier: Apache-2.0 */
/* Results on stdout. */
#ifndef ATTN_CLI_PRINT_H
#define ATTN_CLI_PRINT_H

#include "text.h"

/* Prints the text on stdout and frees it; an exit code after a failure, which has been said on stderr. */
int text_print(text *t);

#endif
