/* SPDX-License-Identifier: Apache-2.0 */
/* One step of AdamW (Loshchilov and Hutter 2019): the definition. */
#include "ops.h"

#include <math.h>

void ref_adamw_step(const ref_adamw *o, int64_t n, ref_vector param, ref_vector m, ref_vector v, ref_vector gradient) {
    for (int64_t i = 0; i < n; i++) {
        double g = ref_get(gradient, i) * o->grad_scale;
        double first = o->beta1 * ref_get(m, i) + (1 - o->beta1) * g;
        double second = o->beta2 * ref_get(v, i) + (1 - o->beta2) * g * g;
        ref_put(m, i, first);
        ref_put(v, i, second);
        ref_put(param, i, ref_get(param, i) * o->keep - o->rate * first / (sqrt(second) * o->root_scale + o->epsilon));
    }
}
