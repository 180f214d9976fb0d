/* SPDX-License-Identifier: Apache-2.0 */
/* Independent pieces of work on the threads of an attn_exec. Which worker takes which piece is open; nothing may depend on it. */
#ifndef ATTN_NN_PARALLEL_H
#define ATTN_NN_PARALLEL_H

#include <stddef.h>

#include <attn/attn.h>

typedef void (*nn_item)(void *context, int32_t worker, size_t item);

/* Calls item(context, worker, i) once for each i in [0, n), and returns when all have returned. exec NULL: the calling thread alone. */
void nn_parallel(const attn_exec *exec, size_t n, nn_item item, void *context);

/* The number of workers there may be. */
int32_t nn_workers(const attn_exec *exec);

#endif
