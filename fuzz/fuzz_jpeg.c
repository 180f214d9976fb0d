/* SPDX-License-Identifier: Apache-2.0 */
/* needs: models */
/* JPEG from any bytes that begin like one. */
#include "picture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size >= 3 && !memcmp(data, "\xff\xd8\xff", 3)) decode_and_check(data, size);
    return 0;
}
