/* SPDX-License-Identifier: Apache-2.0 */
/* What the array verbs share: inputs read and checked by kind, elements of any dtype, rounding to 16 bits, and outputs that are all
 * written only once everything has succeeded. Functions that fail have said why on stderr and return the exit code. */
#ifndef ATTN_CLI_ARRAYS_H
#define ATTN_CLI_ARRAYS_H

#include <stdbool.h>
#include <stdint.h>

#include "npy.h"

/* ---- elements --------------------------------------------------------------------------------------- */

int64_t array_count(const attn_tensor *t);
/* The element `offset` elements from the start, in the order of memory, as a double (exact for all but the largest int64). */
double array_element(const attn_tensor *t, int64_t offset);

/* ---- inputs ----------------------------------------------------------------------------------------- */

typedef enum array_kind { ARRAY_FLOAT, ARRAY_BOOL, ARRAY_INTEGER } array_kind;

/* Reads the array that messages call `label` ("--mask") and checks that its dtype is of the kind. */
int array_load(const char *label, const char *path, array_kind kind, npy_array *array);

/* Every element to the nearest bfloat16 or float16 (ties to even), kept as float32, which holds both exactly: the library computes
 * with 16-bit numbers in float32, so this is the same result, in float32 too. */
int array_round(const char *label, npy_array *array, int32_t dtype);
double array_rounded(double x, int32_t dtype);

/* Makes an array that goes with numbers of `main_dtype` (a bias with x, ...) one that the library takes: of that dtype or float32.
 * float16 is widened, which changes nothing; float64 is narrowed only beside numbers that were `rounded`, else refused. */
int array_adapt(const char *label, npy_array *array, int32_t main_dtype, bool rounded);

/* ---- outputs ---------------------------------------------------------------------------------------- */

enum { MOST_OUTPUTS = 24 };

typedef struct output {
    const char *label;  /* for messages: "-o", "--lse" */
    const char *path;   /* NULL: stdout, as a table when it is a terminal */
    attn_tensor tensor; /* dense, over memory of its own */
} output;

typedef struct outputs {
    output all[MOST_OUTPUTS];
    int n;
} outputs;

/* Makes room for one more output and hands out its tensor. Two outputs of the same name, or two on stdout, are refused. */
int outputs_add(outputs *o, const char *label, const char *path, int32_t dtype, int32_t rank, const int64_t *shape,
                attn_tensor *tensor);
/* Writes all of them: first everything to its temporary file, then the renames. After a failure no path has changed. */
int outputs_write(const outputs *o);
void outputs_free(outputs *o);

#endif
