/* SPDX-License-Identifier: Apache-2.0 */
/* needs: models */
/* safetensors from any bytes; what can be read is written and must be read back the same. */
#include <stdlib.h>
#include <string.h>

#include "safetensors.h"

static void write_and_compare(const safetensors *s) {
    for (size_t i = 0; i < s->n; i++)
        if (s->entries[i].tensor.dtype < 0) return; /* a dtype the library does not have is not written */
    void *bytes;
    size_t size;
    safetensors again;
    io_error error = { 0 };
    if (safetensors_encode(s->entries, s->n, &bytes, &size, &error)) abort();
    if (safetensors_parse(bytes, size, "again", &again, &error)) abort();
    if (again.n != s->n) abort();
    for (size_t i = 0; i < s->n; i++) {
        const safetensors_entry *a = &s->entries[i], *b = &again.entries[i];
        if (strcmp(a->name, b->name) || a->size != b->size || a->dtype != b->dtype) abort();
        if (a->size > 0 && memcmp(a->tensor.data, b->tensor.data, a->size)) abort();
    }
    safetensors_free(&again);
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    safetensors s;
    io_error error = { 0 };
    if (safetensors_parse(data, size, "fuzz", &s, &error)) {
        if (error.code == IO_OK || !error.message[0]) abort();
        return 0;
    }
    for (size_t i = 0; i < s.n; i++)
        if (safetensors_find(&s, s.entries[i].name) != &s.entries[i]) abort();
    write_and_compare(&s);
    safetensors_free(&s);
    return 0;
}
