/* SPDX-License-Identifier: Apache-2.0 */
/* Writing safetensors: sorted names, one spelling of the header, so that equal tensors make equal files. */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "file.h"
#include "safetensors.h"
#include "safetensors_types.h"

/* A tensor on its way out. */
typedef struct item {
    const char *name;
    const attn_tensor *tensor;
    const safetensors_type *type;
    size_t size, begin; /* bytes; where they begin in the data */
} item;

/* Text that grows. Once memory has failed it stays failed, so that only the end needs a check. */
typedef struct text {
    char *data;
    size_t size, room;
    bool failed;
} text;

static void append(text *t, const char *s) {
    size_t n = strlen(s), need;
    if (t->failed || __builtin_add_overflow(t->size, n, &need) || need > SIZE_MAX / 2) {
        t->failed = true;
        return;
    }
    if (need > t->room) {
        char *grown = realloc(t->data, need * 2);
        if (!grown) {
            t->failed = true;
            return;
        }
        t->data = grown;
        t->room = need * 2;
    }
    memcpy(t->data + t->size, s, n);
    t->size = need;
}

static void append_string(text *t, const char *s) {
    append(t, "\"");
    for (; *s; s++) {
        char escape[8];
        if (*s == '"' || *s == '\\')
            snprintf(escape, sizeof escape, "\\%c", *s);
        else if ((unsigned char)*s < 0x20)
            snprintf(escape, sizeof escape, "\\u%04x", (unsigned)*s);
        else
            snprintf(escape, sizeof escape, "%c", *s);
        append(t, escape);
    }
    append(t, "\"");
}

static void append_number(text *t, uint64_t n) {
    char digits[24];
    snprintf(digits, sizeof digits, "%" PRIu64, n);
    append(t, digits);
}

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

/* Widest elements first, so that all are aligned, and by name within a width. */
static int by_width_and_name(const void *a, const void *b) {
    const item *x = a, *y = b;
    if (x->type->width != y->type->width) return x->type->width > y->type->width ? -1 : 1;
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
    qsort(items, n, sizeof *items, by_width_and_name);
    *data = 0;
    for (size_t i = 0; i < n; i++) {
        items[i].begin = *data;
        if (__builtin_add_overflow(*data, items[i].size, data)) return io_no_memory(error, "a safetensors file", SIZE_MAX);
    }
    return IO_OK;
}

/* ---- writing ---------------------------------------------------------------------------------------------- */

static void append_item(text *t, const item *it) {
    append(t, ",");
    append_string(t, it->name);
    append(t, ":{\"dtype\":\"");
    append(t, it->type->name);
    append(t, "\",\"shape\":[");
    for (int32_t i = 0; i < it->tensor->rank; i++) {
        if (i > 0) append(t, ",");
        append_number(t, (uint64_t)it->tensor->shape[i]);
    }
    append(t, "],\"data_offsets\":[");
    append_number(t, it->begin);
    append(t, ",");
    append_number(t, it->begin + it->size);
    append(t, "]}");
}

/* The JSON, padded with spaces so that the data begins at a multiple of 8. */
static void append_header(text *t, const item *items, size_t n) {
    append(t, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < n; i++) append_item(t, &items[i]);
    append(t, "}");
    while (!t->failed && t->size % 8) append(t, " ");
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
    append_header(&header, items, n);
    size_t total;
    if (header.failed || __builtin_add_overflow(header.size + 8, data, &total)) {
        free(header.data);
        return io_no_memory(error, "a safetensors header", header.size);
    }
    unsigned char *out = malloc(total);
    if (!out) {
        free(header.data);
        return io_no_memory(error, "a safetensors file", total);
    }
    for (int i = 0; i < 8; i++) out[i] = (unsigned char)((uint64_t)header.size >> 8 * i);
    memcpy(out + 8, header.data, header.size);
    unsigned char *to = out + 8 + header.size;
    free(header.data);
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
