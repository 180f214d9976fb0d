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
    nn_parameter *added = &all->all[all->n];
    *added = *p;
    added->count = 1;
    for (int32_t axis = 0; axis < p->rank; axis++)
        if (p->shape[axis] < 1 || __builtin_mul_overflow(added->count, (size_t)p->shape[axis], &added->count)) return -1;
    return added->count > SIZE_MAX / 64 ? -1 : (int32_t)all->n++;
}

/* Places every parameter that is (or is not) a table behind `size`; false when no memory holds that much. */
static bool place(nn_parameters *all, bool tables) {
    for (size_t i = 0; i < all->n; i++) {
        nn_parameter *p = &all->all[i];
        if (p->by_rows != tables) continue;
        p->offset = all->size;
        size_t end;
        if (__builtin_add_overflow(p->offset, p->count, &end) || end > SIZE_MAX / 64) return false;
        all->size = (end + GAP - 1) / GAP * GAP;
    }
    return true;
}

bool nn_parameters_allocate(nn_parameters *all) {
    if (!place(all, false)) return false;
    all->dense = all->size;
    if (!place(all, true)) return false;
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

size_t nn_parameters_count(const nn_parameters *all) {
    size_t n = 0;
    for (size_t i = 0; i < all->n; i++) n += all->all[i].count;
    return n;
}
