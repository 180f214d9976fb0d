/* SPDX-License-Identifier: Apache-2.0 */
/* Tensors by name, as the rest of the world stores them: an 8-byte length, a JSON header, then the bytes of every tensor.
 *
 *     safetensors model;
 *     if (safetensors_read("model/model.safetensors", &model, &error)) return report(&error);
 *     const safetensors_entry *w = safetensors_find(&model, "classifier.weight");
 *
 * The file is believed only after everything agrees: header within the file (and 100 MB), no key twice, every tensor inside the file,
 * none overlapping, no byte unaccounted for, byte counts equal to dtype times shape. */
#ifndef ATTN_IO_SAFETENSORS_H
#define ATTN_IO_SAFETENSORS_H

#include <stddef.h>

#include <attn/attn.h>

#include "error.h"

typedef struct safetensors_entry {
    const char *name;
    attn_tensor tensor; /* a dense view, aligned to its elements; dtype -1: the library has no such type (U16, F8_E4M3) */
    const char *dtype;  /* "F32", ...: reading fills it in, writing takes it from the tensor */
    size_t size;        /* bytes; the same */
    size_t offset;      /* of the tensor's bytes in the file; the same */
} safetensors_entry;

typedef struct safetensors_note {
    const char *key, *value;
} safetensors_note;

typedef struct safetensors {
    safetensors_entry *entries; /* sorted by name (bytes) */
    size_t n;
    safetensors_note *metadata; /* __metadata__, sorted by key (bytes) */
    size_t n_metadata;
    void *memory[5]; /* what safetensors_free frees */
} safetensors;

/* *out needs no preparation and is empty after a failure. A missing or unreadable file fails with IO_BAD_MODEL, like a malformed one. */
int safetensors_read(const char *path, safetensors *out, io_error *error);
/* Only what the header says, however large the file is: every tensor.data is NULL. */
int safetensors_read_header(const char *path, safetensors *out, io_error *error);
/* The same from memory, which is copied. */
int safetensors_parse(const void *bytes, size_t size, const char *name, safetensors *out, io_error *error);
void safetensors_free(safetensors *s);

/* NULL where there is none. */
const safetensors_entry *safetensors_find(const safetensors *s, const char *name);

/* Writes name and tensor of each entry, given in any order and with any strides. The file is sorted by type (widest first, so that all
 * are aligned), then by name, and says {"format":"pt"}: equal content gives equal bytes, the same as from the format's own library. It
 * is replaced at once or not at all. */
int safetensors_write(const char *path, const safetensors_entry *entries, size_t n, io_error *error);
int safetensors_encode(const safetensors_entry *entries, size_t n, void **bytes, size_t *size,
                       io_error *error); /* free(*bytes) */

#endif
