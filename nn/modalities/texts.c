/* SPDX-License-Identifier: Apache-2.0 */
/* From texts to ids: encoded once, then padded to the longest of each shard. */
#include <stdlib.h>
#include <string.h>

#include "examples.h"
#include "layers.h"
#include "array.h"
#include "tokenizer.h"

static int64_t text_length(const nn_examples *e, size_t i) {
    const nn_texts *t = (const nn_texts *)e;
    return (int64_t)(t->starts[i + 1] - t->starts[i]);
}

static void text_fetch(const nn_examples *e, const uint32_t *which, nn_pass *pass) {
    const nn_texts *t = (const nn_texts *)e;
    pass->tokens = 1;
    for (int64_t i = 0; i < pass->examples; i++) {
        int64_t length = text_length(e, which[i]);
        pass->room[i] = (int32_t)length;
        if (length > pass->tokens) pass->tokens = length;
    }
    pass->lengths = pass->room;
    int32_t *out = nn_ids(pass);
    for (int64_t i = 0; i < pass->examples; i++) {
        const int32_t *ids = t->ids + t->starts[which[i]];
        for (int64_t j = 0; j < pass->tokens; j++) *out++ = j < pass->room[i] ? ids[j] : t->config->pad;
    }
}

int nn_texts_open(nn_texts *t, const struct tokenizer *words, const nn_config *config, const char *const *texts,
                  const size_t *lengths, const int32_t *labels, size_t n, io_error *error) {
    *t = (nn_texts){ .base = { .n = n, .labels = labels, .length = text_length, .fetch = text_fetch }, .config = config };
    t->starts = array_new(n + 1, sizeof *t->starts);
    if (!t->starts) return io_no_memory(error, "the texts", (n + 1) * sizeof *t->starts);
    size_t capacity = 0;
    encoding e = { 0 };
    int failed = IO_OK;
    for (size_t i = 0; i < n && !failed; i++) {
        failed = tokenizer_encode(words, texts[i], lengths[i], (size_t)config->positions, &e, error);
        if (failed) break;
        size_t end = t->starts[i] + e.n;
        int32_t *grown = array_grow(t->ids, &capacity, end, sizeof *grown);
        if (!grown) {
            failed = io_no_memory(error, "the texts", end * sizeof *grown);
            break;
        }
        t->ids = grown;
        if (e.n) memcpy(grown + t->starts[i], e.ids, e.n * sizeof *grown);
        for (size_t j = t->starts[i]; j < end && !failed; j++)
            if (grown[j] < 0 || grown[j] >= config->vocabulary)
                failed = io_fail(error, IO_BAD_MODEL,
                                 "the tokenizer gives id %d, but the model has %lld tokens: they do not belong together",
                                 grown[j], (long long)config->vocabulary);
        t->starts[i + 1] = end;
    }
    encoding_free(&e);
    if (failed) nn_texts_close(t);
    return failed;
}

void nn_texts_close(nn_texts *t) {
    free(t->ids);
    free(t->starts);
    *t = (nn_texts){ 0 };
}
