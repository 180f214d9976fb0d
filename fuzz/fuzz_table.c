/* SPDX-License-Identifier: Apache-2.0 */
/* needs: models */
/* Labelled texts from any bytes: the first byte chooses the format and the options, the rest is the file. */
#include <stdlib.h>
#include <string.h>

#include "table.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    static const int formats[] = { TABLE_GUESS, TABLE_CSV, TABLE_TSV, TABLE_JSONL, TABLE_FASTTEXT };
    const table_options options = { .format = formats[data[0] % 5],
                                    .text = data[0] & 64 ? "text" : NULL,
                                    .label = data[0] & 128 ? "label" : NULL,
                                    .no_labels = (data[0] & 32) != 0 };
    table t;
    io_error error = { 0 };
    if (table_parse(data + 1, size - 1, "fuzz", &options, &t, &error)) {
        if (error.code == IO_OK || !error.message[0]) abort();
        return 0;
    }
    char summary[256];
    table_summary(&t, summary, sizeof summary);
    for (size_t i = 0; i < t.n_rows; i++) {
        const table_row *r = &t.rows[i];
        if (strlen(r->text) != r->length || r->length == 0) abort();
        if (options.no_labels ? r->label != -1 : (size_t)r->label >= t.n_labels) abort();
    }
    for (size_t i = 0; i < t.n_labels; i++)
        if (!t.labels[i][0] || (i > 0 && !strcmp(t.labels[i], t.labels[i - 1]))) abort();
    table_free(&t);
    return 0;
}
