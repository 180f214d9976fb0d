/* SPDX-License-Identifier: Apache-2.0 */
/* attn softmax without files: rows of numbers, of any lengths, from stdin; each is answered as soon as it has been read. Computed in
 * float64. An empty line is an empty row and gives an empty line. */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "arrays.h"
#include "message.h"
#include "softmax.h"

/* One row on its way through. */
typedef struct row {
    double *x, *y;
    size_t n, capacity;
    npy_array mask, bias;
} row;

static int grow(row *r) {
    size_t capacity = r->capacity ? 2 * r->capacity : 64;
    double *x = realloc(r->x, capacity * sizeof *x);
    if (x) r->x = x;
    double *y = x ? realloc(r->y, capacity * sizeof *y) : NULL;
    if (y) r->y = y;
    if (!y) return fail(IO_NO_ROOM, "out of memory: a row of %zu numbers", capacity);
    r->capacity = capacity;
    return IO_OK;
}

/* Numbers between blanks or commas. */
static int parse_row(char *line, size_t number, row *r) {
    static const char *const between = " \t\r\n\f\v,";
    char *rest = NULL;
    r->n = 0;
    for (char *word = strtok_r(line, between, &rest); word; word = strtok_r(NULL, between, &rest)) {
        if (r->n == r->capacity) {
            int failed = grow(r);
            if (failed) return failed;
        }
        if (!parse_real(word, &r->x[r->n])) {
            const char *fix = strncmp(word, "\x93NUMPY", 6) == 0
                                  ? "this looks like a .npy array: 'attn softmax -' reads one from stdin"
                                  : "a number is needed, with blanks or commas between";
            return fail(IO_BAD_DATA, "stdin, line %zu, number %zu is '%.40s'; %s", number, r->n + 1, word, fix);
        }
        r->n++;
    }
    return IO_OK;
}

/* A mask or bias for rows is one row itself: as long as each of them, or of one element. */
static int attach(const char *label, const npy_array *array, size_t number, size_t n, attn_tensor *view) {
    if (!array->bytes.data) return IO_OK;
    int64_t length = array_count(&array->tensor);
    if (length != 1 && (length != (int64_t)n || array->tensor.rank != 1))
        return fail(IO_BAD_DATA, "%s holds %lld elements and line %zu of stdin %zu numbers", label, (long long)length, number, n);
    *view = array->tensor;
    view->rank = 1;
    view->shape[0] = (int64_t)n;
    view->stride[0] = length != 1;
    return IO_OK;
}

static int compute(const softmax_settings *s, row *r, size_t number, text *out, const attn_exec *exec) {
    int64_t n = (int64_t)r->n;
    if (n == 0) {
        /* a row without a live element */
        text_add(out, softmax_reduces(s) ? "-inf\n" : s->op.value == OP_SAMPLE ? "-1 0\n" : "\n");
        return IO_OK;
    }
    attn_softmax_args args = softmax_args(s);
    int failed = attach("--mask", &r->mask, number, r->n, &args.mask);
    if (!failed) failed = attach("--bias", &r->bias, number, r->n, &args.bias);
    if (failed) return failed;
    args.seed += number - 1; /* noise of its own for each line */
    args.x = attn_dense(ATTN_F64, r->x, 1, &n);
    args.y = attn_dense(ATTN_F64, r->y, softmax_reduces(s) ? 0 : 1, &n);
    if (s->dtype.given)
        for (size_t i = 0; i < r->n; i++) r->x[i] = array_rounded(r->x[i], softmax_dtype(s));
    if (softmax_chooses(s)) return softmax_choose_row(s, &args.x, &args.bias, number, out, exec);
    failed = softmax_call(s, &args, exec);
    size_t results = softmax_reduces(s) ? 1 : r->n;
    for (size_t i = 0; i < results && !failed; i++) {
        char digits[32];
        int length = snprintf(digits, sizeof digits, "%.9g%c", r->y[i], i + 1 < results ? ' ' : '\n');
        text_add_bytes(out, digits, (size_t)length);
    }
    return failed;
}

static int answer_lines(const softmax_settings *s, row *r, io_output *to, const attn_exec *exec) {
    char *line = NULL;
    size_t room = 0;
    int failed = grow(r);
    text out = { 0 };
    io_error error = { 0 };
    for (size_t number = 1; !failed && !to->deaf; number++) {
        errno = 0;
        ssize_t length = getline(&line, &room, stdin);
        if (length < 0 && errno == ENOMEM)
            failed = fail(IO_NO_ROOM, "out of memory: line %zu of stdin", number);
        else if (length < 0 && ferror(stdin))
            failed = fail(IO_BAD_DATA, "cannot read stdin: %s", strerror(errno));
        else if (length >= 0 && strlen(line) != (size_t)length)
            failed = fail(IO_BAD_DATA,
                          "stdin, line %zu holds a zero byte; rows of numbers are needed ('attn softmax -' reads .npy)", number);
        if (failed || length < 0) break;
        failed = parse_row(line, number, r);
        if (!failed) failed = compute(s, r, number, &out, exec);
        if (!failed && text_write(&out, to, &error)) failed = fail_io(&error);
    }
    free(line);
    text_free(&out);
    return failed;
}

int softmax_rows(const softmax_settings *s, const attn_exec *exec) {
    if (s->axis.given && s->axis.value != -1 && s->axis.value != 0)
        return fail(IO_BAD_USAGE, "--axis is %lld; rows of numbers have one axis", (long long)s->axis.value);
    if (s->index || s->probability)
        return fail(IO_BAD_USAGE, "--%s is for arrays; for rows of numbers each line has all",
                    s->index ? "index" : "probability");
    if (isatty(STDIN_FILENO))
        return fail(IO_BAD_USAGE, "attn softmax needs an array or rows of numbers on stdin; try 'echo 1 2 3 | attn softmax'");
    row r = { 0 };
    io_output to = { 0 };
    io_error error = { 0 };
    int failed = s->mask ? array_load("--mask", s->mask, ARRAY_BOOL, &r.mask) : IO_OK;
    if (!failed && s->bias) failed = array_load("--bias", s->bias, ARRAY_FLOAT, &r.bias);
    if (!failed && io_output_open(&to, s->out ? s->out : "-", &error)) failed = fail_io(&error);
    if (!failed) failed = answer_lines(s, &r, &to, exec);
    if (!failed && io_output_commit(&to, &error)) failed = fail_io(&error);
    io_output_discard(&to);
    npy_free(&r.mask);
    npy_free(&r.bias);
    free(r.x);
    free(r.y);
    return failed;
}
