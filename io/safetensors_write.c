/* SPDX-License-Identifier: Apache-2.0 */
/* Writing safetensors: sorted names, one spelling of the header, so that equal tensors make equal files. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "file.h"
#include "safetensors.h"
#include "safetensors_types.h"
#include "text.h"

/* A tensor on its way out. */
typedef struct item {
    const char *name;
    const attn_tensor *tensor;
    const safetensors_type *type;
    size_t size, begin; /* bytes; where they begin in the data */
} item;

/* ---- checking --------------------------------------------------------------------------------------------- */

static bool is_utf8(const char *s) {
    for (utf8proc_int32_t code; *s;) {
        utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)s, -1, &code);
        if (n <= 0) return false;
        s += n;
    }
    return true;
}

/* Bytes of the tensor, or false where they do not fit into memory. */
static bool bytes_of(const attn_tensor *t, size_t width, size_t *bytes) {
    *bytes = width;
    bool empty = false, overflow = false;
    for (int32_t i = 0; i < t->rank; i++) {
        if (t->shape[i] < 0) return false;
        empty |= t->shape[i] == 0;
        overflow |= __builtin_mul_overflow(*bytes, (size_t)t->shape[i], bytes);
    }
    if (empty) *bytes = 0;
    return empty || !overflow;
}

static int describe(const safetensors_entry *e, item *out, io_error *error) {
    const attn_tensor *t = &e->tensor;
    *out = (item){ .name = e->name, .tensor = t };
    if (!e->name || !is_utf8(e->name) || !strcmp(e->name, "__metadata__"))
        return io_fail(error, IO_BAD_USAGE, "a tensor to be written has no name, or one that cannot be written");
    for (out->type = safetensors_types; out->type->name && out->type->dtype != t->dtype;) out->type++;
    if (!out->type->name || t->dtype < 0 || t->rank < 0 || t->rank > ATTN_MAX_RANK)
        return io_fail(error, IO_BAD_USAGE, "tensor '%s' has dtype %d and rank %d, which cannot be written", e->name, t->dtype,
                       t->rank);
    if (!bytes_of(t, out->type->width, &out->size) || (!t->data && out->size > 0))
        return io_fail(error, IO_BAD_USAGE, "tensor '%s' has no data, or a shape that cannot be", e->name);
    return IO_OK;
}

/* By type, widest elements first, so that all are aligned, and by name within a type. */
static int by_type_and_name(const void *a, const void *b) {
    const item *x = a, *y = b;
    if (x->type != y->type) return x->type < y->type ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int by_name(const void *a, const void *b) { return strcmp(((const item *)a)->name, ((const item *)b)->name); }

/* Describes, sorts and places the tensors; *data is the size of them all. */
static int place(const safetensors_entry *entries, size_t n, item *items, size_t *data, io_error *error) {
    for (size_t i = 0; i < n; i++) {
        int failed = describe(&entries[i], &items[i], error);
        if (failed) return failed;
    }
    qsort(items, n, sizeof *items, by_name);
    for (size_t i = 1; i < n; i++)
        if (!strcmp(items[i].name, items[i - 1].name))
            return io_fail(error, IO_BAD_USAGE, "two tensors to be written are called '%s'", items[i].name);
    qsort(items, n, sizeof *items, by_type_and_name);
    *data = 0;
    for (size_t i = 0; i < n; i++) {
        items[i].begin = *data;
        if (__builtin_add_overflow(*data, items[i].size, data)) return io_no_memory(error, "a safetensors file", SIZE_MAX);
    }
    return IO_OK;
}

/* ---- writing ---------------------------------------------------------------------------------------------- */

static void add_item(text *header, const item *it) {
    text_add(header, ",");
    text_add_json(header, it->name);
    text_add(header, ":{\"dtype\":\"%s\",\"shape\":[", it->type->name);
    for (int32_t i = 0; i < it->tensor->rank; i++) text_add(header, "%s%lld", i ? "," : "", (long long)it->tensor->shape[i]);
    text_add(header, "],\"data_offsets\":[%zu,%zu]}", it->begin, it->begin + it->size);
}

/* The JSON, padded with spaces so that the data begins at a multiple of 8. */
static void add_header(text *header, const item *items, size_t n) {
    text_add(header, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < n; i++) add_item(header, &items[i]);
    text_add(header, "}");
    while (!header->failed && header->length % 8) text_add(header, " ");
}

/* The elements along `axis` and behind it, row-major; returns where the next ones go. */
static unsigned char *copy_elements(const attn_tensor *t, size_t width, int32_t axis, const unsigned char *from,
                                    unsigned char *to) {
    if (axis == t->rank) {
        memcpy(to, from, width);
        return to + width;
    }
    if (axis == t->rank - 1 && t->stride[axis] == 1) {
        size_t n = (size_t)t->shape[axis] * width;
        memcpy(to, from, n);
        return to + n;
    }
    for (int64_t i = 0; i < t->shape[axis]; i++)
        to = copy_elements(t, width, axis + 1, from + i * t->stride[axis] * (int64_t)width, to);
    return to;
}

static int assemble(const item *items, size_t n, size_t data, void **bytes, size_t *size, io_error *error) {
    text header = { 0 };
    add_header(&header, items, n);
    size_t total;
    if (header.failed || __builtin_add_overflow(header.length + 8, data, &total)) {
        text_free(&header);
        return io_no_memory(error, "a safetensors header", n * sizeof *items);
    }
    unsigned char *out = malloc(total);
    if (!out) {
        text_free(&header);
        return io_no_memory(error, "a safetensors file", total);
    }
    for (int i = 0; i < 8; i++) out[i] = (unsigned char)((uint64_t)header.length >> 8 * i);
    memcpy(out + 8, header.data, header.length);
    unsigned char *to = out + 8 + header.length;
    text_free(&header);
    for (size_t i = 0; i < n; i++)
        if (items[i].size > 0) to = copy_elements(items[i].tensor, items[i].type->width, 0, items[i].tensor->data, to);
    *bytes = out;
    *size = total;
    return IO_OK;
}

int safetensors_encode(const safetensors_entry *entries, size_t n, void **bytes, size_t *size, io_error *error) {
    *bytes = NULL;
    *size = 0;
    item *items = calloc(n ? n : 1, sizeof *items);
    if (!items) return io_no_memory(error, "a safetensors header", n);
    size_t data = 0;
    int failed = place(entries, n, items, &data, error);
    if (!failed) failed = assemble(items, n, data, bytes, size, error);
    free(items);
    return failed;
}

int safetensors_write(const char *path, const safetensors_entry *entries, size_t n, io_error *error) {
    void *bytes;
    size_t size;
    int failed = safetensors_encode(entries, n, &bytes, &size, error);
    if (failed) return failed;
    failed = io_write(path, bytes, size, error);
    free(bytes);
    return failed;
}
