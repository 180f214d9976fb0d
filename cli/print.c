/* SPDX-License-Identifier: Apache-2.0 */
/* Results on stdout. See print.h. */
#include "print.h"

#include "message.h"

int text_print(text *t) {
    io_output output;
    io_error error = { 0 };
    int failed = io_output_open(&output, "-", &error);
    if (!failed) failed = text_write(t, &output, &error);
    io_output_discard(&output);
    text_free(t);
    return failed ? fail_io(&error) : IO_OK;
}
