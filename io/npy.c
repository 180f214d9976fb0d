/* SPDX-License-Identifier: Apache-2.0 */
/* The .npy reader and writer. A file is: magic, version, the length of a header, the header (a Python dict literal with the keys
 * 'descr', 'fortran_order' and 'shape'), the elements. The literal is parsed by hand, strictly: what numpy.lib.format writes, now
 * and in the past, and nothing more. See npy.h. */
#include "npy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The longest header that is looked at. NumPy itself writes 128 bytes and reads 10,000. */
enum { LONGEST_HEADER = 1 << 20, PREFIX = 12 };

static const struct dtype {
    int32_t dtype;
    const char *code; /* in 'descr', behind the byte order */
    const char *name;
    size_t size;
} dtypes[] = {
    { ATTN_F32, "f4", "float32", 4 }, { ATTN_F64, "f8", "float64", 8 }, { ATTN_F16, "f2", "float16", 2 },
    { ATTN_BOOL, "b1", "bool", 1 },   { ATTN_I8, "i1", "int8", 1 },     { ATTN_U8, "u1", "uint8", 1 },
    { ATTN_I32, "i4", "int32", 4 },   { ATTN_I64, "i8", "int64", 8 },   { ATTN_BF16, NULL, "bfloat16", 2 },
};
enum { N_DTYPES = sizeof dtypes / sizeof dtypes[0] };

static const struct dtype *dtype_of(int32_t dtype) {
    for (size_t i = 0; i < N_DTYPES; i++)
        if (dtypes[i].dtype == dtype) return &dtypes[i];
    return NULL;
}

const char *npy_dtype_name(int32_t dtype) {
    const struct dtype *d = dtype_of(dtype);
    return d ? d->name : NULL;
}

size_t npy_dtype_size(int32_t dtype) {
    const struct dtype *d = dtype_of(dtype);
    return d ? d->size : 0;
}

/* ---- the header ------------------------------------------------------------------------------------- */

typedef struct header {
    const struct dtype *dtype;
    bool fortran;
    int32_t rank;
    int64_t shape[ATTN_MAX_RANK];
    size_t begin; /* of the elements, from the start of the file */
    size_t bytes; /* of all elements */
} header;

typedef struct cursor {
    const char *name; /* of the file */
    const unsigned char *start, *at, *end;
    io_error *error;
} cursor;

static int malformed(const cursor *c, const char *what) {
    return io_fail(c->error, IO_BAD_DATA, "%s: the header of this .npy file is malformed at byte %zu: %s", c->name,
                   (size_t)(c->at - c->start), what);
}

static void skip_space(cursor *c) {
    while (c->at < c->end && memchr(" \t\r\n\f", *c->at, 5)) c->at++;
}

/* Steps over `wanted` if it comes next. */
static bool take(cursor *c, char wanted) {
    skip_space(c);
    if (c->at == c->end || *c->at != (unsigned char)wanted) return false;
    c->at++;
    return true;
}

static bool take_word(cursor *c, const char *word) {
    skip_space(c);
    size_t length = strlen(word);
    if ((size_t)(c->end - c->at) < length || memcmp(c->at, word, length) != 0) return false;
    c->at += length;
    return true;
}

/* A quoted string without escapes, as all keys and dtype codes are. */
static int parse_string(cursor *c, char *text, size_t room) {
    skip_space(c);
    if (c->at == c->end || (*c->at != '\'' && *c->at != '"')) return malformed(c, "a quoted string is expected");
    unsigned char quote = *c->at++;
    size_t length = 0;
    while (c->at < c->end && *c->at != quote) {
        if (*c->at < ' ' || *c->at > '~' || *c->at == '\\') return malformed(c, "a character that no dtype or key has");
        if (length + 1 == room) return malformed(c, "a string longer than any dtype or key");
        text[length++] = (char)*c->at++;
    }
    if (c->at == c->end) return malformed(c, "a string that does not end");
    c->at++;
    text[length] = '\0';
    return IO_OK;
}

static int parse_extent(cursor *c, int64_t *extent) {
    skip_space(c);
    if (c->at < c->end && *c->at == '-') return malformed(c, "a negative extent in 'shape'");
    if (c->at == c->end || *c->at < '0' || *c->at > '9') return malformed(c, "an extent is expected in 'shape'");
    *extent = 0;
    for (; c->at < c->end && *c->at >= '0' && *c->at <= '9'; c->at++)
        if (__builtin_mul_overflow(*extent, 10, extent) || __builtin_add_overflow(*extent, *c->at - '0', extent))
            return malformed(c, "an extent in 'shape' overflows 64 bits");
    if (c->at < c->end && *c->at == 'L') c->at++; /* Python 2 wrote 3L */
    return IO_OK;
}

static int parse_shape(cursor *c, header *h) {
    if (!take(c, '(')) return malformed(c, "'shape' is not a tuple");
    h->rank = 0;
    while (!take(c, ')')) {
        if (h->rank == ATTN_MAX_RANK)
            return io_fail(c->error, IO_BAD_DATA, "%s: the array has more than %d axes; reshape it", c->name, ATTN_MAX_RANK);
        int failed = parse_extent(c, &h->shape[h->rank]);
        if (failed) return failed;
        h->rank++;
        if (take(c, ',')) continue;
        if (h->rank == 1) return malformed(c, "'shape' of one axis is written (n,)");
        if (!take(c, ')')) return malformed(c, "a comma or ) is expected in 'shape'");
        break;
    }
    return IO_OK;
}

/* Says which dtypes exist, and what to do about the one that was found. */
static int refuse_dtype(const cursor *c, const char *descr) {
    const char *code = descr + (strchr("<>|=", descr[0]) ? 1 : 0);
    const char *fix = "save a.astype('float32')";
    if (strcmp(code, "O") == 0)
        fix = "it holds pickled Python objects, which are never loaded; save numbers";
    else if (strcmp(code, "V2") == 0)
        fix = "if this is bfloat16, save a.astype('float32')";
    else if (code[0] == 'V')
        fix = "it holds raw bytes; save numbers";
    else if (code[0] == 'U' || code[0] == 'S')
        fix = "it holds text; save numbers";
    else if (code[0] == 'c')
        fix = "it holds complex numbers; save a.real or a.imag";
    else if (code[0] == 'M' || code[0] == 'm')
        fix = "it holds dates; save numbers";
    else if (code[0] == 'i' || code[0] == 'u')
        fix = "save a.astype('int32') or a.astype('int64')";
    return io_fail(c->error, IO_BAD_DATA,
                   "%s: dtype '%s' is none of float16, float32, float64, bool, int8, uint8, int32, int64: %s", c->name, descr,
                   fix);
}

static int parse_dtype(cursor *c, header *h) {
    char descr[32];
    skip_space(c);
    if (c->at < c->end && *c->at == '[')
        return io_fail(c->error, IO_BAD_DATA, "%s: the array holds records (a structured dtype); save one field: a['name']",
                       c->name);
    int failed = parse_string(c, descr, sizeof descr);
    if (failed) return failed;
    if (!descr[0] || !strchr("<>|=", descr[0])) return refuse_dtype(c, descr);
    h->dtype = NULL;
    for (size_t i = 0; i < N_DTYPES; i++)
        if (dtypes[i].code && strcmp(descr + 1, dtypes[i].code) == 0) h->dtype = &dtypes[i];
    if (!h->dtype) return refuse_dtype(c, descr);
    if (descr[0] == '>' && h->dtype->size > 1)
        return io_fail(c->error, IO_BAD_DATA, "%s: the numbers are big-endian ('%s'); save a.astype('<%s')", c->name, descr,
                       h->dtype->code);
    if (descr[0] == '|' && h->dtype->size > 1) return malformed(c, "'descr' says no byte order for numbers of several bytes");
    return IO_OK;
}

static int parse_bool(cursor *c, bool *value) {
    if (take_word(c, "True"))
        *value = true;
    else if (take_word(c, "False"))
        *value = false;
    else
        return malformed(c, "'fortran_order' is neither True nor False");
    return IO_OK;
}

/* {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), } with its keys in any order, each once. */
static int parse_dict(cursor *c, header *h) {
    static const char *const keys[] = { "descr", "fortran_order", "shape" };
    unsigned seen = 0;
    if (!take(c, '{')) return malformed(c, "it does not start with {");
    while (!take(c, '}')) {
        char key[32];
        int failed = parse_string(c, key, sizeof key);
        if (failed) return failed;
        unsigned which = 0;
        while (which < 3 && strcmp(key, keys[which]) != 0) which++;
        if (which == 3) return malformed(c, "a key that is none of descr, fortran_order, shape");
        if (seen & 1u << which) return malformed(c, "a key comes twice");
        seen |= 1u << which;
        if (!take(c, ':')) return malformed(c, "a colon is expected behind the key");
        failed = which == 0 ? parse_dtype(c, h) : which == 1 ? parse_bool(c, &h->fortran) : parse_shape(c, h);
        if (failed) return failed;
        if (take(c, ',')) continue;
        if (!take(c, '}')) return malformed(c, "a comma or } is expected behind the value");
        break;
    }
    if (seen != 7) return malformed(c, "one of descr, fortran_order, shape is missing");
    skip_space(c);
    return c->at == c->end ? IO_OK : malformed(c, "something follows the closing }");
}

/* The bytes that the shape asks for. Extents of 0 do not hide the others: their product has to fit, too, for it becomes strides. */
static int count_bytes(const cursor *c, header *h) {
    int64_t bytes = (int64_t)h->dtype->size;
    bool empty = false;
    for (int32_t axis = 0; axis < h->rank; axis++) {
        if (h->shape[axis] == 0)
            empty = true;
        else if (__builtin_mul_overflow(bytes, h->shape[axis], &bytes) || (uint64_t)bytes > PTRDIFF_MAX)
            return io_fail(c->error, IO_BAD_DATA, "%s: the shape in the header asks for more bytes than 64 bits can count",
                           c->name);
    }
    h->bytes = empty ? 0 : (size_t)bytes;
    return IO_OK;
}

/* Magic, version and header length: how many bytes come before the elements. Needs min(PREFIX, file size) bytes. */
static int header_end(const char *name, const io_bytes *bytes, size_t *text, size_t *end, io_error *error) {
    const unsigned char *b = bytes->data;
    size_t magic = bytes->size < 6 ? bytes->size : 6;
    if (magic == 0) return io_fail(error, IO_BAD_DATA, "%s is empty; a .npy array is needed here", name);
    if (memcmp(b, "\x93NUMPY", magic) != 0)
        return io_fail(error, IO_BAD_DATA, "%s is not a .npy file (it does not start with \\x93NUMPY); write one with numpy.save",
                       name);
    if (bytes->size < PREFIX) return io_fail(error, IO_BAD_DATA, "%s is cut off within its first %d bytes", name, (int)PREFIX);
    if (b[6] < 1 || b[6] > 3 || b[7] != 0)
        return io_fail(error, IO_BAD_DATA, "%s: .npy version %d.%d is not known (1.0, 2.0 and 3.0 are)", name, b[6], b[7]);
    *text = b[6] == 1 ? 10 : 12;
    size_t length = (size_t)b[8] | (size_t)b[9] << 8;
    if (b[6] > 1) length |= (size_t)b[10] << 16 | (size_t)b[11] << 24;
    if (length > LONGEST_HEADER)
        return io_fail(error, IO_BAD_DATA, "%s: the header claims %zu bytes; no .npy file needs more than %d", name, length,
                       (int)LONGEST_HEADER);
    *end = *text + length;
    return IO_OK;
}

static int parse_header(const char *name, const io_bytes *bytes, header *h, io_error *error) {
    size_t text = 0;
    int failed = header_end(name, bytes, &text, &h->begin, error);
    if (failed) return failed;
    if (bytes->size < h->begin)
        return io_fail(error, IO_BAD_DATA, "%s is cut off within its header: %zu of %zu bytes are there", name, bytes->size,
                       h->begin);
    cursor c = { name, bytes->data, bytes->data + text, bytes->data + h->begin, error };
    failed = parse_dict(&c, h);
    return failed ? failed : count_bytes(&c, h);
}

/* ---- reading ---------------------------------------------------------------------------------------- */

static void set_strides(attn_tensor *t, bool fortran) {
    int64_t step = 1;
    for (int32_t i = 0; i < t->rank; i++) {
        int32_t axis = fortran ? i : t->rank - 1 - i;
        t->stride[axis] = step;
        step *= t->shape[axis] ? t->shape[axis] : 1;
    }
}

int npy_from_bytes(const char *name, io_bytes *bytes, npy_array *array, io_error *error) {
    *array = (npy_array){ .bytes = *bytes };
    *bytes = (io_bytes){ 0 };
    header h = { 0 };
    int failed = parse_header(name, &array->bytes, &h, error);
    size_t there = failed ? 0 : array->bytes.size - h.begin;
    if (!failed && there < h.bytes)
        failed = io_fail(error, IO_BAD_DATA, "%s is cut off: its shape asks for %zu bytes of numbers and %zu are there", name,
                         h.bytes, there);
    if (!failed && there > h.bytes)
        failed = io_fail(error, IO_BAD_DATA, "%s: more bytes follow the %zu that its shape asks for; save one array per file",
                         name, h.bytes);
    if (failed) {
        npy_free(array);
        return failed;
    }
    /* Headers of old writers end anywhere; elements have to lie at a multiple of their size. */
    unsigned char *data = array->bytes.data + h.begin;
    size_t off = h.begin % h.dtype->size;
    if (off) data = memmove(data - off, data, h.bytes);
    if (h.dtype->dtype == ATTN_BOOL)
        for (size_t i = 0; i < h.bytes; i++) data[i] = data[i] != 0;
    attn_tensor *t = &array->tensor;
    *t = (attn_tensor){ .data = data, .dtype = h.dtype->dtype, .rank = h.rank };
    memcpy(t->shape, h.shape, sizeof t->shape);
    array->fortran = h.fortran;
    set_strides(t, h.fortran);
    return IO_OK;
}

int npy_read(const char *path, npy_array *array, io_error *error) {
    *array = (npy_array){ 0 };
    io_input input;
    int failed = io_input_open(&input, path, error);
    if (failed) return failed;
    /* In three steps, so that an endless pipe or a file of something else is not read to its end. */
    io_bytes bytes = { 0 };
    size_t text = 0, end = 0;
    header h = { 0 };
    failed = io_input_fill(&input, &bytes, PREFIX, error);
    if (!failed) failed = header_end(input.name, &bytes, &text, &end, error);
    if (!failed) failed = io_input_fill(&input, &bytes, end, error);
    if (!failed) failed = parse_header(input.name, &bytes, &h, error);
    if (!failed) failed = io_input_fill(&input, &bytes, h.begin + h.bytes + 1, error);
    io_input_close(&input);
    if (failed) io_bytes_free(&bytes);
    return failed ? failed : npy_from_bytes(input.name, &bytes, array, error);
}

void npy_free(npy_array *array) {
    io_bytes_free(&array->bytes);
    *array = (npy_array){ 0 };
}

/* ---- writing ---------------------------------------------------------------------------------------- */

/* The header padded with spaces to a multiple of 64 bytes, ending in a newline. Returns its length; `room` holds any header. */
static size_t format_header(char *text, size_t room, const struct dtype *d, int32_t rank, const int64_t *shape) {
    int length = snprintf(text, room, "%s{'descr': '%c%s', 'fortran_order': False, 'shape': (", "\x93NUMPY\x01...",
                          d->size > 1 ? '<' : '|', d->code);
    size_t used = (size_t)length;
    for (int32_t axis = 0; axis < rank; axis++) {
        const char *behind = rank == 1 ? "," : axis + 1 < rank ? ", " : "";
        used += (size_t)snprintf(text + used, room - used, "%lld%s", (long long)shape[axis], behind);
    }
    used += (size_t)snprintf(text + used, room - used, "), }");
    size_t total = (used + 1 + 63) / 64 * 64;
    memset(text + used, ' ', total - used);
    text[total - 1] = '\n';
    return total;
}

int npy_write(io_output *output, int32_t dtype, const void *data, int32_t rank, const int64_t *shape, io_error *error) {
    const struct dtype *d = dtype_of(dtype);
    if (!d || !d->code)
        return io_fail(error, IO_BAD_USAGE, "%s: a .npy file has no name for %s", output->name, d ? d->name : "this dtype");
    size_t bytes = d->size;
    for (int32_t axis = 0; axis < rank; axis++)
        if (__builtin_mul_overflow(bytes, (size_t)shape[axis], &bytes))
            return io_fail(error, IO_NO_ROOM, "cannot write %s: the array is larger than memory", output->name);
    char text[384]; /* 64 and up to ATTN_MAX_RANK extents of 20 digits, rounded up */
    size_t length = format_header(text, sizeof text, d, rank, shape);
    text[7] = 0;
    text[8] = (char)((length - 10) & 255);
    text[9] = (char)((length - 10) >> 8);
    int failed = io_output_write(output, text, length, error);
    return failed ? failed : io_output_write(output, data, bytes, error);
}
