/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that runs out when a test says so. Including this links the test with --wrap for malloc, calloc, realloc and free
 * (tests/CMakeLists.txt), which catches the calls of the test and of our static libraries, not those within shared libraries. */
#ifndef ATTN_TESTS_FAILING_MALLOC_H
#define ATTN_TESTS_FAILING_MALLOC_H

#include <stddef.h>
#include <stdbool.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *old, size_t size);
void __real_free(void *memory);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *old, size_t size);
void __wrap_free(void *memory);

static struct {
    long allowed;  /* allocations that still succeed; negative: all do */
    bool for_ever; /* false: one fails and the next succeed again */
    long live;     /* blocks that are allocated and not freed */
} memory = { .allowed = -1 };

static bool memory_runs_out(void) {
    if (memory.allowed < 0) return false;
    if (memory.allowed > 0) {
        memory.allowed--;
        return false;
    }
    if (!memory.for_ever) memory.allowed = -1;
    return true;
}

void *__wrap_malloc(size_t size) {
    void *block = memory_runs_out() ? NULL : __real_malloc(size);
    memory.live += block != NULL;
    return block;
}

void *__wrap_calloc(size_t n, size_t size) {
    void *block = memory_runs_out() ? NULL : __real_calloc(n, size);
    memory.live += block != NULL;
    return block;
}

void *__wrap_realloc(void *old, size_t size) {
    void *block = memory_runs_out() ? NULL : __real_realloc(old, size);
    memory.live += block != NULL && old == NULL;
    return block;
}

void __wrap_free(void *block) {
    memory.live -= block != NULL;
    __real_free(block);
}

#endif
