/* SPDX-License-Identifier: Apache-2.0 */
/* Rotary position embedding: pairs of elements turned by an angle that grows with the position. */
#include "rope.h"

void ref_rope_head(const ref_rope *r, ref_vector cos, ref_vector sin, ref_vector x, ref_vector y) {
    for (int64_t i = 0; i < r->pairs; i++) {
        int64_t first = r->interleaved ? 2 * i : i, second = r->interleaved ? 2 * i + 1 : i + r->pairs;
        double c = ref_get(cos, i), s = r->back ? -ref_get(sin, i) : ref_get(sin, i);
        double a = ref_get(x, first), b = ref_get(x, second);
        ref_put(y, first, c * a - s * b);
        ref_put(y, second, s * a + c * b);
    }
    for (int64_t i = 2 * r->pairs; i < r->dim; i++) ref_put(y, i, ref_get(x, i));
}
