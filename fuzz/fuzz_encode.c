/* SPDX-License-Identifier: Apache-2.0 */
/* needs: models */
/* Training on, and encoding of, any bytes. The first byte chooses the options. What was learnt from a text, without
 * normalisation, decodes to that text byte by byte, and the spans of its tokens tile it. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void round_trip(const tokenizer *t, const encoding *e, const char *text, size_t length, bool prefixed) {
    char *decoded;
    size_t n;
    io_error error = { 0 };
    if (tokenizer_decode(t, e->ids, e->n, false, &decoded, &n, &error)) abort();
    /* [CLS] text [SEP], and maybe a space before the text */
    size_t before = 5 + (prefixed ? 1 : 0);
    if (n != length + before + 5 || (length && memcmp(decoded + before, text, length))) abort();
    free(decoded);
    uint32_t at = 0;
    for (size_t i = 1; i + 1 < e->n; i++) {
        if (e->start[i] != at) abort();
        at = e->end[i];
    }
    if (at != length) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    tokenizer_train_options options = { .vocab_size = 261 + data[0] / 4,
                                        .form = (tokenizer_form)(data[0] % 3),
                                        .lowercase = data[0] / 3 % 2,
                                        .add_prefix_space = data[0] / 6 % 2,
                                        .min_frequency = 1 };
    const char *text = (const char *)data + 1;
    size_t length = size - 1;
    tokenizer *t;
    io_error error = { 0 };
    if (tokenizer_train(&t, &text, &length, 1, &options, &error)) abort();
    encoding e = { 0 };
    if (tokenizer_encode(t, text, length, 0, &e, &error)) abort();
    for (size_t i = 0; i < e.n; i++)
        if (e.start[i] > e.end[i] || e.end[i] > length) abort();
    /* a text that spells a special token holds that token, which takes no space before the text that follows it */
    bool plain = options.form == TOKENIZER_AS_IT_IS && !options.lowercase && !memchr(text, '[', length);
    if (plain) round_trip(t, &e, text, length, options.add_prefix_space && length && text[0] != ' ');
    encoding_free(&e);
    tokenizer_free(t);
    return 0;
}
