/* SPDX-License-Identifier: Apache-2.0 */
/* What the program says on stderr, and the exit codes it ends with. Results never come this way. */
#ifndef ATTN_CLI_MESSAGE_H
#define ATTN_CLI_MESSAGE_H

#include <attn/attn.h>

#include "error.h"
#include "nearest.h"

/* The exit code that io/error.h has no class for: eval ran, and its figure is below --fail-under. */
enum { EXIT_BELOW = 1 };

/* Prints "attn: error: ..." as one line and returns `code`, an exit code. Bytes that could steer a terminal are shown as '?'. */
int fail(int code, const char *format, ...) IO_PRINTF(2, 3);
int fail_io(const io_error *error);
/* A status of the library that is not ATTN_OK, with the library's own words behind `what`, the thing that was tried. */
int fail_status(attn_status status, const char *what);

/* Prints "attn: ..." as one line: something the user should know that is no failure. */
void note(const char *format, ...) IO_PRINTF(1, 2);

#endif
