/* SPDX-License-Identifier: Apache-2.0 */
/* needs: models */
/* A tokenizer.json of any bytes, and a text of any bytes for it. The input is the file, a zero byte, and the text; without a zero
 * byte the text is the file itself. What loads has to encode with spans inside the text, decode what it encoded, and give the
 * same ids again from its cache. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const tokenizer *t, const encoding *e, size_t length) {
    for (size_t i = 0; i < e->n; i++) {
        size_t n_bytes;
        if (!tokenizer_token(t, e->ids[i], &n_bytes)) abort();
        if (e->start[i] > e->end[i] || e->end[i] > length) abort();
        if (e->word[i] < -1 || (e->word[i] < 0 && e->end[i] != 0)) abort();
    }
}

static void use(const tokenizer *t, const char *text, size_t length) {
    encoding e = { 0 };
    io_error error = { 0 };
    if (tokenizer_encode(t, text, length, 0, &e, &error)) abort();
    check(t, &e, length);
    char *decoded;
    size_t n_decoded, n = e.n;
    if (tokenizer_decode(t, e.ids, e.n, true, &decoded, &n_decoded, &error)) abort();
    free(decoded);
    int32_t *ids = malloc((n ? n : 1) * sizeof *ids);
    if (!ids) abort();
    if (n) memcpy(ids, e.ids, n * sizeof *ids);
    if (tokenizer_encode(t, text, length, 0, &e, &error) || e.n != n || (n && memcmp(ids, e.ids, n * sizeof *ids))) abort();
    free(ids);
    if (tokenizer_encode(t, text, length, 5, &e, &error) == IO_OK && e.n > 5) abort();
    encoding_free(&e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *json = (const char *)data, *end = size ? memchr(data, 0, size) : NULL;
    size_t n_json = end ? (size_t)(end - json) : size;
    const char *text = end ? end + 1 : json;
    size_t length = end ? size - n_json - 1 : size;
    tokenizer *t;
    io_error error = { 0 };
    if (tokenizer_parse(&t, json, n_json, "fuzz", &error)) {
        if (error.code != IO_BAD_MODEL || !error.message[0] || t) abort();
        return 0;
    }
    use(t, text, length);
    tokenizer_free(t);
    return 0;
}
