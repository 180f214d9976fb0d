/* SPDX-License-Identifier: Apache-2.0 */
/* needs: models */
/* IDX files, plain or gzip, from any bytes. */
#include <stdlib.h>

#include "idx.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    idx a;
    io_error error = { 0 };
    if (idx_parse(data, size, "fuzz", &a, &error)) {
        if (error.code == IO_OK || !error.message[0]) abort();
        return 0;
    }
    /* What parses also looks like it, and all of it can be read. */
    if (!idx_looks_like(data, size)) abort();
    size_t product = 1, sum = 0;
    for (int i = 0; i < IDX_MAX_RANK; i++) product *= (size_t)a.shape[i];
    if (product != a.size) abort();
    for (size_t i = 0; i < a.size; i++) sum += a.data[i];
    if (a.size > 0 && sum > a.size * 255) abort();
    idx_free(&a);
    return 0;
}
