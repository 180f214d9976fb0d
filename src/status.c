/* SPDX-License-Identifier: Apache-2.0 */
/* Statuses and the calling thread's last error message. */
#include "status.h"

#include <stdarg.h>
#include <stdio.h>

static _Thread_local char last_error[256];

attn_status attn_fail(attn_status status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(last_error, sizeof last_error, format, arguments);
    va_end(arguments);
    return status;
}

const char *attn_last_error(void) { return last_error; }

const char *attn_status_name(attn_status s) {
    switch (s) {
    case ATTN_OK: return "ok";
    case ATTN_BAD_SHAPE: return "bad shape";
    case ATTN_BAD_ARGUMENT: return "bad argument";
    case ATTN_UNSUPPORTED: return "unsupported";
    case ATTN_SMALL_WORKSPACE: return "small workspace";
    case ATTN_NO_MEMORY: return "no memory";
    }
    return "unknown status";
}
