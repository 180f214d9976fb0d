/* SPDX-License-Identifier: Apache-2.0 */
/* Error lines and notes. See message.h. */
#include "message.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Bytes of the printable character at `at`: ASCII or whole, well-formed UTF-8; 0 for anything else. */
static size_t printable(const unsigned char *at) {
    if (at[0] < 0x80) return at[0] >= ' ' && at[0] != 127;
    if (at[0] < 0xc2 || at[0] > 0xf4) return 0;
    size_t length = at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : 4;
    for (size_t i = 1; i < length; i++)
        if ((at[i] & 0xc0) != 0x80) return 0;
    bool control = at[0] == 0xc2 && at[1] < 0xa0;
    bool overlong = (at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xf0 && at[1] < 0x90);
    return control || overlong ? 0 : length;
}

/* One line, printed in one piece so that lines of several processes do not mix. File names and headers come from outside, and
 * nothing in them may steer the terminal. */
static void print_line(const char *prefix, const char *format, va_list arguments) {
    char line[2048];
    size_t used = (size_t)snprintf(line, sizeof line, "%s", prefix);
    vsnprintf(line + used, sizeof line - used - 1, format, arguments);
    size_t length = strlen(line), at = 0;
    while (at < length) {
        size_t step = printable((const unsigned char *)line + at);
        if (step == 0) line[at] = '?';
        at += step ? step : 1;
    }
    line[length] = '\n';
    fwrite(line, 1, length + 1, stderr);
}

int fail(int code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    print_line("attn: error: ", format, arguments);
    va_end(arguments);
    return code;
}

int fail_io(const io_error *error) { return fail(error->code, "%s", error->message); }

int fail_status(attn_status status, const char *what) {
    /* Options are checked before the library is asked, so what is left of bad arguments is a combination that makes no sense. */
    int code = status == ATTN_BAD_SHAPE ? IO_BAD_DATA : status == ATTN_NO_MEMORY ? IO_NO_ROOM : IO_BAD_USAGE;
    return fail(code, "%s: %s", what, attn_last_error());
}

void note(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    print_line("attn: ", format, arguments);
    va_end(arguments);
}
