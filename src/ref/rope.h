/* SPDX-License-Identifier: Apache-2.0 */
/* The definition of rotary position embedding: one head at one position. */
#ifndef ATTN_REF_ROPE_H
#define ATTN_REF_ROPE_H

#include "element.h"

#include <stdbool.h>

typedef struct ref_rope {
    int64_t dim, pairs; /* elements of a head; of which 2 * pairs turn */
    bool interleaved;   /* pair i is (2i, 2i + 1); else (i, i + pairs) */
    bool back;          /* the inverse: turned by -sin */
} ref_rope;

/* y from x, which it may be; cos and sin have an element for each pair. */
void ref_rope_head(const ref_rope *r, ref_vector cos, ref_vector sin, ref_vector x, ref_vector y);

#endif
