/* SPDX-License-Identifier: Apache-2.0 */
/* The .npy reader on any bytes: it refuses them with a message, or every element it promises is there and aligned. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "npy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    /* Of the exact size, so that a byte read behind it is seen. */
    io_bytes bytes = { .data = malloc(size + 1), .size = size, .capacity = size };
    if (!bytes.data) return 0;
    if (size) memcpy(bytes.data, data, size);
    bytes.data[size] = 0;
    npy_array array;
    io_error error = { 0 };
    if (npy_from_bytes("fuzz", &bytes, &array, &error)) {
        if (error.code != IO_BAD_DATA || !error.message[0] || array.bytes.data) abort();
        return 0;
    }
    const attn_tensor *t = &array.tensor;
    size_t count = 1, last = 0, element = npy_dtype_size(t->dtype);
    for (int32_t axis = 0; axis < t->rank; axis++) {
        count *= (size_t)t->shape[axis];
        last += count ? (size_t)((t->shape[axis] - 1) * t->stride[axis]) : 0;
    }
    if ((uintptr_t)t->data % element) abort();
    if (count && last + 1 != count) abort(); /* the strides reach every element and no further */
    unsigned sum = 0;
    for (size_t i = 0; i < count * element; i++) sum += ((const unsigned char *)t->data)[i];
    npy_free(&array);
    return sum == 1 ? -1 : 0; /* uses the sum, so that no compiler leaves the reads away */
}
