/* SPDX-License-Identifier: Apache-2.0 */
/* What is measured, as a line of text: a kind, sizes by letters, words.
 *
 *     softmax:r65536c128,f32            softmax:r4096c4096,axis0,f32
 *     attention:b1h32k8q2048s2048d128,f32,causal,window256,backward
 *     gemm:m1024n1024k1024,f32,prepacked
 *
 * README of the words: `attn bench --help`. */
#ifndef ATTN_BENCH_PROBLEM_H
#define ATTN_BENCH_PROBLEM_H

#include <stdbool.h>
#include <stdint.h>

#include "error.h"

enum { BENCH_MOST_WORDS = 16, BENCH_MOST_TEXT = 200 };

typedef struct bench_problem {
    const char *text; /* as it was given; not owned */
    char copy[BENCH_MOST_TEXT];
    const char *kind;
    int64_t size[26]; /* by letter, 1 or more; 0: not given */
    int32_t dtype;    /* ATTN_F32 unless a word says otherwise */
    int n_words;
    const char *word[BENCH_MOST_WORDS]; /* NULL once somebody has asked for it */
} bench_problem;

/* Takes the text apart. Returns IO_OK or IO_BAD_USAGE. */
int bench_problem_read(bench_problem *p, const char *text, io_error *error);

/* Whether the word is there. */
bool bench_problem_has(bench_problem *p, const char *word);
/* The number behind the word ("window256"); 0: the word is not there. */
int64_t bench_problem_number(bench_problem *p, const char *word);
/* The sizes by their letters, those left out being 1. IO_BAD_USAGE where another letter was given. */
int bench_problem_sizes(const bench_problem *p, const char *letters, int64_t *sizes, io_error *error);
/* IO_BAD_USAGE where a word is left that nobody asked for. */
int bench_problem_done(const bench_problem *p, io_error *error);

#endif
