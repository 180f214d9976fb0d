/* SPDX-License-Identifier: Apache-2.0 */
/* Items drawn from one counter by all workers. */
#include "parallel.h"

#include <stdatomic.h>

typedef struct drawing {
    atomic_size_t next;
    size_t n;
    nn_item item;
    void *context;
} drawing;

static void draw(void *job, int32_t worker) {
    drawing *d = job;
    for (size_t i; (i = atomic_fetch_add_explicit(&d->next, 1, memory_order_relaxed)) < d->n;) d->item(d->context, worker, i);
}

int32_t nn_workers(const attn_exec *exec) { return exec && exec->parallel_for && exec->n_threads > 1 ? exec->n_threads : 1; }

void nn_parallel(const attn_exec *exec, size_t n, nn_item item, void *context) {
    drawing d = { .n = n, .item = item, .context = context };
    atomic_init(&d.next, 0);
    int32_t workers = nn_workers(exec);
    if ((size_t)workers > n) workers = (int32_t)n;
    if (workers > 1)
        exec->parallel_for(exec->pool, workers, draw, &d);
    else
        draw(&d, 0);
}
