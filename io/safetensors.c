/* SPDX-License-Identifier: Apache-2.0 */
/* Reading safetensors: everything the header says is held against the file before a tensor is handed out. See safetensors.h;
 * writing is in safetensors_write.c. */
#include "safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "json.h"
#include "safetensors_types.h"

enum { LENGTH = 8, MAX_PARTS = 1 << 20, MAX_DEPTH = 3 };
enum { FILE_BYTES, ENTRIES, METADATA, HEADER, ALIGNED }; /* places in safetensors.memory */

static const size_t max_header = 100 * 1000 * 1000;

const safetensors_type safetensors_types[] = {
    { "U64", -1, 8 },     { "I64", ATTN_I64, 8 }, { "F64", ATTN_F64, 8 },   { "F32", ATTN_F32, 4 },
    { "U32", -1, 4 },     { "I32", ATTN_I32, 4 }, { "BF16", ATTN_BF16, 2 }, { "F16", ATTN_F16, 2 },
    { "U16", -1, 2 },     { "I16", -1, 2 },       { "F8_E4M3", -1, 1 },     { "F8_E5M2", -1, 1 },
    { "I8", ATTN_I8, 1 }, { "U8", ATTN_U8, 1 },   { "BOOL", ATTN_BOOL, 1 }, { NULL, -1, 0 },
};

typedef struct reader {
    safetensors *out;
    const char *name;
    io_error *error;
    const unsigned char *bytes; /* the file's beginning: at least the length, in the end everything */
    size_t size, data;          /* the size of the whole file; where the tensors begin */
} reader;

/* A size or an offset: an integer from 0 up. */
static bool get_size(const json_t *value, size_t *out) {
    if (!json_is_integer(value) || json_integer_value(value) < 0) return false;
    *out = (size_t)json_integer_value(value);
    return true;
}

static int bad(const reader *r, const char *tensor, const char *what) {
    return io_fail(r->error, IO_BAD_MODEL, "%s: tensor '%s': %s", r->name, tensor, what);
}

/* ---- one tensor ------------------------------------------------------------------------------------------- */

static int read_dtype(const reader *r, const json_t *about, safetensors_entry *e, size_t *width) {
    const char *dtype = json_string_value(json_object_get(about, "dtype"));
    if (!dtype) return bad(r, e->name, "no dtype");
    for (const safetensors_type *t = safetensors_types; t->name; t++) {
        if (strcmp(t->name, dtype)) continue;
        e->dtype = t->name;
        e->tensor.dtype = t->dtype;
        *width = t->width;
        return IO_OK;
    }
    return io_fail(r->error, IO_BAD_MODEL, "%s: tensor '%s': unknown dtype '%.40s'", r->name, e->name, dtype);
}

/* The shape, and the bytes that it makes with elements of this width. */
static int read_shape(const reader *r, const json_t *about, safetensors_entry *e, size_t width, size_t *bytes) {
    const json_t *shape = json_object_get(about, "shape");
    if (!json_is_array(shape)) return bad(r, e->name, "no shape");
    size_t rank = json_array_size(shape);
    if (rank > ATTN_MAX_RANK)
        return io_fail(r->error, IO_BAD_MODEL, "%s: tensor '%s' has rank %zu; at most %d is read", r->name, e->name, rank,
                       ATTN_MAX_RANK);
    int64_t extents[ATTN_MAX_RANK];
    *bytes = width;
    bool empty = false, overflow = false;
    for (size_t i = 0; i < rank; i++) {
        size_t extent;
        if (!get_size(json_array_get(shape, i), &extent)) return bad(r, e->name, "an extent is not an integer from 0 up");
        extents[i] = (int64_t)extent;
        empty |= extent == 0;
        overflow |= __builtin_mul_overflow(*bytes, extent, bytes);
    }
    if (empty)
        *bytes = 0;
    else if (overflow)
        return bad(r, e->name, "its elements overflow 64 bits");
    e->tensor = attn_dense(e->tensor.dtype, NULL, (int32_t)rank, extents);
    return IO_OK;
}

static int read_offsets(const reader *r, const json_t *about, safetensors_entry *e, size_t bytes) {
    const json_t *offsets = json_object_get(about, "data_offsets");
    size_t begin, end, data_size = r->size - r->data;
    if (json_array_size(offsets) != 2 || !get_size(json_array_get(offsets, 0), &begin) ||
        !get_size(json_array_get(offsets, 1), &end))
        return bad(r, e->name, "data_offsets are not two integers from 0 up");
    if (begin > end || end > data_size)
        return io_fail(r->error, IO_BAD_MODEL, "%s: tensor '%s': bytes %zu to %zu lie outside the file's %zu bytes of data",
                       r->name, e->name, begin, end, data_size);
    if (end - begin != bytes)
        return io_fail(r->error, IO_BAD_MODEL, "%s: tensor '%s': dtype and shape make %zu bytes, data_offsets %zu", r->name,
                       e->name, bytes, end - begin);
    e->size = bytes;
    e->offset = r->data + begin;
    return IO_OK;
}

static int read_tensor(const reader *r, const char *name, const json_t *about, safetensors_entry *e) {
    size_t width = 0, bytes = 0;
    *e = (safetensors_entry){ .name = name };
    if (!json_is_object(about)) return bad(r, name, "its entry is not an object");
    int failed = read_dtype(r, about, e, &width);
    if (!failed) failed = read_shape(r, about, e, width, &bytes);
    if (!failed) failed = read_offsets(r, about, e, bytes);
    return failed;
}

/* ---- the whole header --------------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b) {
    return strcmp(((const safetensors_entry *)a)->name, ((const safetensors_entry *)b)->name);
}

static int by_key(const void *a, const void *b) {
    return strcmp(((const safetensors_note *)a)->key, ((const safetensors_note *)b)->key);
}

static int by_offset(const void *a, const void *b) {
    const safetensors_entry *x = a, *y = b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    return (x->size > y->size) - (x->size < y->size);
}

static int read_metadata(reader *r, json_t *metadata) {
    safetensors *out = r->out;
    if (!json_is_object(metadata)) return io_fail(r->error, IO_BAD_MODEL, "%s: __metadata__ is not an object", r->name);
    size_t n = json_object_size(metadata);
    out->metadata = out->memory[METADATA] = calloc(n + 1, sizeof *out->metadata);
    if (!out->metadata) return io_no_memory(r->error, r->name, n * sizeof *out->metadata);
    const char *key;
    json_t *value;
    json_object_foreach(metadata, key, value) {
        if (!json_is_string(value))
            return io_fail(r->error, IO_BAD_MODEL, "%s: __metadata__: '%s' is not a string", r->name, key);
        out->metadata[out->n_metadata++] = (safetensors_note){ key, json_string_value(value) };
    }
    qsort(out->metadata, out->n_metadata, sizeof *out->metadata, by_key);
    return IO_OK;
}

/* Every byte of the data belongs to exactly one tensor. */
static int check_coverage(const reader *r) {
    safetensors_entry *e = r->out->entries;
    size_t n = r->out->n, at = r->data;
    qsort(e, n, sizeof *e, by_offset);
    for (size_t i = 0; i < n; i++) {
        if (e[i].offset < at) return bad(r, e[i].name, "its bytes overlap another tensor's");
        if (e[i].offset > at)
            return io_fail(r->error, IO_BAD_MODEL, "%s: %zu bytes before tensor '%s' belong to no tensor", r->name,
                           e[i].offset - at, e[i].name);
        at += e[i].size;
    }
    if (at != r->size)
        return io_fail(r->error, IO_BAD_MODEL, "%s: the last %zu bytes belong to no tensor", r->name, r->size - at);
    return IO_OK;
}

static int read_entries(reader *r, json_t *header) {
    safetensors *out = r->out;
    size_t n = json_object_size(header);
    out->entries = out->memory[ENTRIES] = calloc(n + 1, sizeof *out->entries);
    if (!out->entries) return io_no_memory(r->error, r->name, n * sizeof *out->entries);
    const char *name;
    json_t *about;
    json_object_foreach(header, name, about) {
        int failed =
            strcmp(name, "__metadata__") ? read_tensor(r, name, about, &out->entries[out->n++]) : read_metadata(r, about);
        if (failed) return failed;
    }
    int failed = check_coverage(r);
    if (out->n > 0) qsort(out->entries, out->n, sizeof *out->entries, by_name);
    return failed;
}

static size_t width_of(const safetensors_entry *e) {
    const safetensors_type *t = safetensors_types;
    while (t->name != e->dtype) t++;
    return t->width;
}

/* Points the tensors at their bytes. A file may put a tensor where its elements are not aligned: it gets a copy that is. */
static int hand_out_data(reader *r) {
    safetensors *out = r->out;
    size_t room = 0;
    for (size_t i = 0; i < out->n; i++) {
        safetensors_entry *e = &out->entries[i];
        e->tensor.data = (void *)(r->bytes + e->offset);
        if ((uintptr_t)e->tensor.data % width_of(e)) room += e->size + 8; /* sizes are parts of a file in memory */
    }
    if (room == 0) return IO_OK;
    unsigned char *copy = out->memory[ALIGNED] = malloc(room);
    if (!copy) return io_no_memory(r->error, r->name, room);
    for (size_t i = 0; i < out->n; i++) {
        safetensors_entry *e = &out->entries[i];
        if ((uintptr_t)e->tensor.data % width_of(e) == 0) continue;
        memcpy(copy, e->tensor.data, e->size);
        e->tensor.data = copy;
        copy += (e->size + 7) / 8 * 8;
    }
    return IO_OK;
}

/* The header's length from the first 8 bytes, held against the file. */
static int read_length(reader *r) {
    if (r->size < LENGTH) return io_fail(r->error, IO_BAD_MODEL, "%s is too short for a safetensors file", r->name);
    uint64_t length = 0;
    for (int i = LENGTH; i-- > 0;) length = length << 8 | r->bytes[i];
    if (length == 0 || length > max_header || length > r->size - LENGTH)
        return io_fail(r->error, IO_BAD_MODEL, "%s is not a safetensors file: a header of %llu bytes in a file of %zu", r->name,
                       (unsigned long long)length, r->size);
    r->data = LENGTH + (size_t)length;
    return IO_OK;
}

/* The header itself; its strings live as long as its JSON, which the result keeps. */
static int read_header(reader *r) {
    if (r->bytes[LENGTH] != '{')
        return io_fail(r->error, IO_BAD_MODEL, "%s is not a safetensors file: its header does not begin with '{'", r->name);
    json_t *header = io_json_parse((const char *)r->bytes + LENGTH, r->data - LENGTH, r->name, 1, MAX_PARTS, MAX_DEPTH,
                                   IO_BAD_MODEL, r->error);
    if (!header) return r->error->code;
    r->out->memory[HEADER] = header;
    return read_entries(r, header);
}

/* Reads as far as has been found to make sense: the length, the header, the data. */
static int read_steps(reader *r, io_input *input, io_bytes *bytes, bool with_data) {
    if (input->size < 0) return io_fail(r->error, IO_BAD_MODEL, "%s is not a regular file", r->name);
    r->size = (size_t)input->size;
    int failed = io_input_fill(input, bytes, LENGTH, r->error);
    r->bytes = bytes->data;
    if (!failed && bytes->size < LENGTH) r->size = bytes->size;
    if (!failed) failed = read_length(r);
    if (!failed) failed = io_input_fill(input, bytes, r->data, r->error);
    r->bytes = bytes->data;
    if (!failed && bytes->size < r->data)
        failed = io_fail(r->error, IO_BAD_MODEL, "%s became shorter while it was read", r->name);
    if (!failed) failed = read_header(r);
    if (failed || !with_data) return failed;
    failed = io_input_fill(input, bytes, r->size, r->error);
    r->bytes = bytes->data;
    if (!failed && bytes->size < r->size)
        failed = io_fail(r->error, IO_BAD_MODEL, "%s became shorter while it was read", r->name);
    return failed ? failed : hand_out_data(r);
}

static int read_file(const char *path, bool with_data, safetensors *out, io_error *error) {
    io_error unheard;
    io_input input;
    io_bytes bytes = { 0 };
    reader r = { .out = out, .name = path, .error = error ? error : &unheard };
    *out = (safetensors){ 0 };
    int failed = io_input_open(&input, path, r.error);
    if (!failed) {
        failed = read_steps(&r, &input, &bytes, with_data);
        io_input_close(&input);
    }
    out->memory[FILE_BYTES] = bytes.data;
    if (failed) safetensors_free(out);
    return failed == IO_BAD_DATA ? r.error->code = IO_BAD_MODEL : failed;
}

int safetensors_read(const char *path, safetensors *out, io_error *error) { return read_file(path, true, out, error); }

int safetensors_read_header(const char *path, safetensors *out, io_error *error) { return read_file(path, false, out, error); }

int safetensors_parse(const void *bytes, size_t size, const char *name, safetensors *out, io_error *error) {
    io_error unheard;
    reader r = { .out = out, .name = name, .error = error ? error : &unheard, .size = size };
    *out = (safetensors){ 0 };
    unsigned char *copy = malloc(size ? size : 1);
    if (!copy) return io_no_memory(error, name, size);
    if (size > 0) memcpy(copy, bytes, size);
    r.bytes = out->memory[FILE_BYTES] = copy;
    int failed = read_length(&r);
    if (!failed) failed = read_header(&r);
    if (!failed) failed = hand_out_data(&r);
    if (failed) safetensors_free(out);
    return failed;
}

void safetensors_free(safetensors *s) {
    json_decref(s->memory[HEADER]);
    s->memory[HEADER] = NULL;
    for (size_t i = 0; i < sizeof s->memory / sizeof *s->memory; i++) free(s->memory[i]);
    *s = (safetensors){ 0 };
}

const safetensors_entry *safetensors_find(const safetensors *s, const char *name) {
    const safetensors_entry key = { .name = name };
    return s->n ? bsearch(&key, s->entries, s->n, sizeof key, by_name) : NULL;
}
