/* SPDX-License-Identifier: Apache-2.0 */
/* The list of a model's parameters and their one buffer. See parameters.h. */
#include "parameters.h"

#include <stdlib.h>

#include "array.h"
#include "random.h"

enum { GAP = 16 }; /* parameters begin at multiples of 16 elements: 64 bytes of f32 */

int32_t nn_parameters_add(nn_parameters *all, const nn_parameter *p) {
    nn_parameter *grown = array_grow(all->all, &all->capacity, all->n + 1, sizeof *grown);
    if (!grown) return -1;
    all->all = grown;
    nn_parameter new = *p;
    new.count = 1;
    for (int32_t axis = 0; axis < p->rank; axis++)
        if (__builtin_mul_overflow(new.count, (size_t)p->shape[axis], &new.count)) return -1;
    new.offset = all->size;
    size_t end;
    if (__builtin_add_overflow(new.offset, new.count, &end) || end > SIZE_MAX / 64) return -1;
    all->size = (end + GAP - 1) / GAP * GAP;
    all->all[all->n] = new;
    return (int32_t)all->n++;
}

bool nn_parameters_allocate(nn_parameters *all) {
    all->values = array_new(all->size, nn_element(all->dtype));
    return all->values != NULL;
}

static void set(const nn_parameters *all, size_t at, double x) {
    if (all->dtype == ATTN_F64)
        ((double *)all->values)[at] = x;
    else
        ((float *)all->values)[at] = (float)x;
}

void nn_parameters_start(nn_parameters *all, uint64_t seed) {
    for (size_t i = 0; i < all->n; i++) {
        const nn_parameter *p = &all->all[i];
        nn_random r = nn_random_at(seed, NN_FOR_WEIGHTS, 0, i);
        for (size_t j = 0; j < p->count; j++) {
            double x = p->start == NN_ONES ? 1 : 0;
            if (p->start == NN_UNIFORM) x = (2 * nn_random_uniform(&r) - 1) * p->spread;
            if (p->start == NN_NORMAL) x = nn_random_normal(&r) * p->spread;
            set(all, p->offset + j, x);
        }
    }
}

void nn_parameters_free(nn_parameters *all) {
    free(all->all);
    free(all->values);
    *all = (nn_parameters){ 0 };
}

attn_tensor nn_parameters_view(const nn_parameters *all, const void *buffer, int32_t index) {
    const nn_parameter *p = &all->all[index];
    const char *at = (const char *)buffer + p->offset * nn_element(all->dtype);
    return attn_dense(all->dtype, at, p->rank, p->shape);
}

attn_tensor nn_parameters_rows(const nn_parameters *all, const void *buffer, int32_t index, int64_t first, int64_t n) {
    attn_tensor t = nn_parameters_view(all, buffer, index);
    t.data = (char *)t.data + (size_t)(first * t.stride[0]) * nn_element(all->dtype);
    t.shape[0] = n;
    return t;
}
