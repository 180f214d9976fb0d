/* SPDX-License-Identifier: Apache-2.0 */
/* needs: models */
/* PNG from any bytes that begin like one: as they are, and with right checksums, which no fuzzer finds, so that what lies behind them
 * is reached. */
#include <zlib.h>

#include "picture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t big_endian(const uint8_t *at) { return (size_t)at[0] << 24 | (size_t)at[1] << 16 | (size_t)at[2] << 8 | at[3]; }

/* A chunk is its length, its type, that many bytes, and the checksum of type and bytes. */
static void correct_checksums(uint8_t *file, size_t size) {
    for (size_t at = 8; size - at >= 12;) {
        size_t length = big_endian(file + at);
        if (length > size - at - 12) return;
        uint32_t sum = (uint32_t)crc32(0, file + at + 4, (uInt)length + 4);
        at += length + 8;
        for (int i = 0; i < 4; i++) file[at++] = (uint8_t)(sum >> (24 - 8 * i));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 8 || memcmp(data, "\x89PNG\r\n\x1a\n", 8)) return 0;
    decode_and_check(data, size);
    uint8_t *copy = malloc(size);
    if (!copy) return 0;
    memcpy(copy, data, size);
    correct_checksums(copy, size);
    decode_and_check(copy, size);
    free(copy);
    return 0;
}
