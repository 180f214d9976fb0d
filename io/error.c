/* SPDX-License-Identifier: Apache-2.0 */
/* The two ways to fill in an io_error. See error.h. */
#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int io_fail(io_error *error, int code, const char *format, ...) {
    if (!error) return code;
    /* Formatted apart, because an argument may be the old message. */
    char message[sizeof error->message];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    memcpy(error->message, message, sizeof message);
    error->code = code;
    return code;
}

int io_no_memory(io_error *error, const char *what, size_t bytes) {
    return io_fail(error, IO_NO_ROOM, "out of memory: %s needs %zu bytes", what, bytes);
}
