/* SPDX-License-Identifier: Apache-2.0 */
/* bench_instructions PROBLEM: does one problem, as `attn bench` writes it, twice; the second time in `counted`, which is what
 * tests/build/test_instructions.py has callgrind collect. No clock is read: the count is the same on every run. */
#include "case.h"

#include <stdio.h>

__attribute__((noinline)) void counted(bench_case *c, const attn_exec *exec);
void counted(bench_case *c, const attn_exec *exec) {
    if (c->run(c->call, exec) != ATTN_OK) fprintf(stderr, "%s\n", attn_last_error());
}

int main(int count, char **words) {
    io_error error = { 0 };
    bench_case c;
    if (count != 2) return fputs("usage: bench_instructions PROBLEM\n", stderr), 2;
    if (bench_case_open(&c, words[1], &error)) return fprintf(stderr, "%s\n", error.message), 1;
    attn_status status = c.run(c.call, NULL);
    counted(&c, NULL);
    bench_case_close(&c);
    return status != ATTN_OK;
}
