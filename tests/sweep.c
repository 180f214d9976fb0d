/* SPDX-License-Identifier: Apache-2.0 */
/* sweep [STEP [FUNCTION]]: the functions of src/kernels/vmath.h at every float there is (or every STEP-th), on every instruction set of
 * this machine, against libm's in double. Prints the largest error of each, in units of the last place of a float, as Markdown.
 * docs/ACCURACY.md has its figures; tests/test_math.c holds the bounds on a part of the floats and in f64. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/kernels/kernels.h"
#include <attn/attn.h>

enum { BATCH = 4096, MOST_TABLES = 8, MOST_FUNCTIONS = 8 };

static double exact_sigmoid(double x) { return x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x)); }

/* What softmax takes of scores less their maximum; 0 below the normal range, where it is not looked at. */
static double exact_weight(double x) { return x <= 0 && x >= -87.336 ? exp(x) : NAN; }

typedef struct swept {
    const char *name;
    double (*exact)(double);
    size_t entry; /* in attn_math_kernels; the weight's is of attn_softmax_kernels */
} swept;

static const swept functions[] = {
    { "exp", exp, offsetof(attn_math_kernels, exp) },    { "log", log, offsetof(attn_math_kernels, log) },
    { "tanh", tanh, offsetof(attn_math_kernels, tanh) }, { "sigmoid", exact_sigmoid, offsetof(attn_math_kernels, sigmoid) },
    { "erf", erf, offsetof(attn_math_kernels, erf) },    { "softmax's exp", exact_weight, 0 },
};

typedef struct worst {
    double error;
    float at;
} worst;

static void apply(const attn_kernels *k, const swept *f, const float *x, float *y, int64_t n) {
    void (*function)(const void *, void *, int64_t);
    attn_compensated sum = { 0, 0 };
    if (f->exact == exact_weight) {
        k->softmax.exp_sum(n, x, 0, y, &sum);
        return;
    }
    memcpy(&function, (const char *)&k->math + f->entry, sizeof function);
    function(x, y, n);
}

/* The distance of floats around y, from its exponent alone: this is done some fifty thousand million times. */
static double unit_of(double y) {
    uint64_t bits;
    memcpy(&bits, &y, sizeof bits);
    uint64_t exponent = bits >> 52 & 0x7ff, least = 1023 - 126; /* that of the smallest normal float */
    bits = ((exponent > least ? exponent : least) - 23) << 52;
    memcpy(&y, &bits, sizeof y);
    return y;
}

/* In units; what is not a number or infinite has to be so exactly. */
static double error_of(double exact, float y) {
    if (isfinite(y) && fabs(exact) <= 0x1.fffffep127) return fabs((double)y - exact) / unit_of(exact);
    if (isnan(exact) || isnan(y)) return isnan(exact) && isnan(y) ? 0 : INFINITY;
    if (isinf(exact)) return (double)y == exact ? 0 : INFINITY;
    const double end = 0x1p128; /* where floats would go on */
    return fabs(fmin(fmax((double)y, -end), end) - fmin(fmax(exact, -end), end)) / 0x1p104;
}

static bool wanted(const swept *f, int count, char **words) { return count < 3 || strcmp(words[2], f->name) == 0; }

int main(int count, char **words) {
    const uint64_t step = count > 1 ? strtoull(words[1], NULL, 10) : 1;
    const int n_functions = (int)(sizeof functions / sizeof *functions);
    const attn_kernels *tables[MOST_TABLES];
    static worst results[MOST_FUNCTIONS][MOST_TABLES];
    static float x[BATCH], y[BATCH];
    static double exact[BATCH];
    int n_tables = 0;
    if (step == 0) return fputs("usage: sweep [STEP [FUNCTION]]\n", stderr), 2;
    for (int32_t i = 0; attn_kernels_at(i) && n_tables < MOST_TABLES; i++)
        if (attn_kernels_at(i)->dtype == ATTN_F32) tables[n_tables++] = attn_kernels_at(i);
    for (int f = 0; f < n_functions; f++)
        for (uint64_t bits = 0; bits <= UINT32_MAX && wanted(&functions[f], count, words); bits += BATCH * step) {
            int n = 0;
            for (uint64_t b = bits; n < BATCH && b <= UINT32_MAX; b += step, n++) {
                uint32_t word = (uint32_t)b;
                memcpy(&x[n], &word, sizeof word);
                exact[n] = functions[f].exact((double)x[n]);
            }
            for (int t = 0; t < n_tables; t++) {
                apply(tables[t], &functions[f], x, y, n);
                for (int i = 0; i < n; i++) {
                    if (functions[f].exact == exact_weight && isnan(exact[i])) continue;
                    double error = error_of(exact[i], y[i]);
                    if (error > results[f][t].error) results[f][t] = (worst){ error, x[i] };
                }
            }
        }
    printf("| function |");
    for (int t = 0; t < n_tables; t++) printf(" %s | at |", tables[t]->isa);
    printf("\n|---|");
    for (int t = 0; t < n_tables; t++) printf("---|---|");
    for (int f = 0; f < n_functions; f++) {
        if (!wanted(&functions[f], count, words)) continue;
        printf("\n| %s |", functions[f].name);
        for (int t = 0; t < n_tables; t++) printf(" %.3f | %.9g |", results[f][t].error, (double)results[f][t].at);
    }
    printf("\n");
    return 0;
}
