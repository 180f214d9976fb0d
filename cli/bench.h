/* SPDX-License-Identifier: Apache-2.0 */
/* attn bench, shared between what is measured (bench.c) and what is told of it (bench_print.c). */
#ifndef ATTN_CLI_BENCH_H
#define ATTN_CLI_BENCH_H

#include "measure.h"
#include "options.h"

typedef struct bench_settings {
    option_words problems;
    option_choice isa;
    option_real seconds;
    const char *against;
    bool json;
} bench_settings;

/* Of an earlier `attn bench --json`: the median time of a problem, in milliseconds. */
typedef struct bench_earlier {
    char *bytes; /* the file; owned */
} bench_earlier;

/* Returns IO_OK, IO_BAD_DATA (the file is missing or holds no result). */
int bench_earlier_read(bench_earlier *e, const char *path, io_error *error);
void bench_earlier_free(bench_earlier *e);

/* What is known of one problem: a row of a markdown table, or an object on a line of its own. NULL for `earlier`: nothing to compare. */
void bench_print_head(text *out, const bench_settings *s, int widest);
void bench_print_result(text *out, const bench_settings *s, const bench_case *c, const bench_result *r, int32_t n_threads,
                        int widest, const bench_earlier *earlier);

#endif
