/* SPDX-License-Identifier: Apache-2.0 */
/* attn bench: results as a markdown table or as JSON lines, and what an earlier run said. */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

#include "file.h"

/* ---- an earlier run ---------------------------------------------------------------------------------------------------- */

/* Lines that bench_print_result wrote: the verb is built without a JSON library too, and needs two words of each. */
static const char problem_key[] = "{\"problem\": \"", median_key[] = "\"median_ms\": ";

int bench_earlier_read(bench_earlier *e, const char *path, io_error *error) {
    io_bytes bytes;
    int failed = io_read(path, 1 << 24, &bytes, error);
    if (failed) return failed;
    e->bytes = malloc(bytes.size + 1);
    if (!e->bytes) failed = io_no_memory(error, path, bytes.size);
    if (!failed) {
        memcpy(e->bytes, bytes.data, bytes.size);
        e->bytes[bytes.size] = 0;
        if (!strstr(e->bytes, problem_key) || !strstr(e->bytes, median_key))
            failed = io_fail(error, IO_BAD_DATA, "%s: it holds no results; write them with 'attn bench --json >FILE'", path);
    }
    io_bytes_free(&bytes);
    return failed;
}

void bench_earlier_free(bench_earlier *e) {
    free(e->bytes);
    e->bytes = NULL;
}

/* 0: the problem was not measured then. */
static double earlier_median(const bench_earlier *e, const char *problem) {
    size_t length = strlen(problem);
    for (const char *at = e->bytes; (at = strstr(at, problem_key)); at++) {
        const char *name = at + sizeof problem_key - 1, *end = strchr(at, '\n'), *median = strstr(at, median_key);
        if (strncmp(name, problem, length) != 0 || name[length] != '"' || !median || (end && median > end)) continue;
        return strtod(median + sizeof median_key - 1, NULL);
    }
    return 0;
}

/* ---- this run ---------------------------------------------------------------------------------------------------------- */

void bench_print_head(text *out, const bench_settings *s, int widest) {
    if (s->json) return;
    text_add(out, "| %-*s | isa     | best ms | median ms |            rate |    peak | of peak |%s\n", widest, "problem",
             s->against ? "  before |" : "");
    text_add(out, "|:");
    for (int i = 0; i < widest + 1; i++) text_add(out, "-");
    text_add(out, "|:--------|--------:|----------:|----------------:|--------:|--------:|%s\n", s->against ? "--------:|" : "");
}

static void add_line(text *out, const bench_case *c, const bench_result *r, int32_t n_threads) {
    double rate = (c->flops > 0 ? c->flops : c->bytes) / r->best * 1e-9;
    text_add_bytes(out, problem_key, sizeof problem_key - 2);
    text_add_json(out, c->text);
    text_add(out, ", \"isa\": \"%s\", \"threads\": %d, \"best_ms\": ", attn_isa(), (int)n_threads);
    text_add_json_number(out, r->best * 1e3);
    text_add(out, ", %s", median_key);
    text_add_json_number(out, r->median * 1e3);
    text_add(out, ", \"%s\": ", c->flops > 0 ? "gflops" : "gbytes");
    text_add_json_number(out, rate);
    text_add(out, ", \"peak\": ");
    text_add_json_number(out, r->peak * 1e-9);
    text_add(out, ", \"fraction_of_peak\": ");
    text_add_json_number(out, r->fraction);
    text_add(out, ", \"repetitions\": %d, \"disturbed\": %d, \"steady\": %s}\n", r->repetitions, r->disturbed,
             r->unsteady ? "false" : "true");
}

void bench_print_result(text *out, const bench_settings *s, const bench_case *c, const bench_result *r, int32_t n_threads,
                        int widest, const bench_earlier *earlier) {
    if (s->json) {
        add_line(out, c, r, n_threads);
        return;
    }
    double rate = (c->flops > 0 ? c->flops : c->bytes) / r->best * 1e-9;
    text_add(out, "| %-*s | %-7s | %7.4g | %9.4g | %7.1f %s | %7.1f | %5.1f %%%s|", widest, c->text, attn_isa(), r->best * 1e3,
             r->median * 1e3, rate, c->flops > 0 ? "GFLOP/s" : "GB/s   ", r->peak * 1e-9, 100 * r->fraction,
             r->unsteady ? "~" : " ");
    double before = earlier ? earlier_median(earlier, c->text) : 0;
    if (earlier && before > 0)
        text_add(out, " %6.2f x |", before / (r->median * 1e3));
    else if (earlier)
        text_add(out, "       - |");
    text_add(out, "\n");
}
