/* SPDX-License-Identifier: Apache-2.0 */
/* needs: models */
/* PNG from any bytes that begin like one. */
#include "picture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size >= 8 && !memcmp(data, "\x89PNG\r\n\x1a\n", 8)) decode_and_check(data, size);
    return 0;
}
