/* SPDX-License-Identifier: Apache-2.0 */
/* The machine: which instruction sets it has, which of them is used, and the kernel tables that follow from it. */
#define _POSIX_C_SOURCE 200809L
#include "kernels/kernels.h"

#include <attn/attn.h>

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* The levels of attn_isa(), lowest first. */
static const char *const level_names[] = { "scalar", "neon", "avx2", "avx512", "avx512bf16", "amx" };
enum { N_LEVELS = sizeof level_names / sizeof level_names[0] };

#define ATTN_KERNELS(name) extern const attn_kernels attn_kernels_##name;
#include "kernels/list.h"

#define ATTN_KERNELS(name) &attn_kernels_##name,
static const attn_kernels *const tables[] = {
#include "kernels/list.h"
};
enum { N_TABLES = sizeof tables / sizeof tables[0] };

/* ---- what the machine has ------------------------------------------------------------------------------ */

#if defined(__x86_64__) || defined(_M_X64)
#include <cpuid.h>

/* Which register states the system saves: bits 1, 2 are xmm and ymm, 5, 6, 7 the masks and both halves of zmm. */
static unsigned saved_states(void) {
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static bool machine_has(const char *isa) {
    enum { FMA = 1u << 12, F16C = 1u << 29, OSXSAVE = 1u << 27, AVX2 = 1u << 5, YMM = 0x06, ZMM = 0xe6 };
    const unsigned avx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31; /* F, DQ, BW, VL */
    unsigned a, b, c, d, b7, c7;
    if (!strcmp(isa, "scalar")) return true;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & OSXSAVE) || !(c & FMA) || !(c & F16C)) return false;
    if (!__get_cpuid_count(7, 0, &a, &b7, &c7, &d) || !(b7 & AVX2)) return false;
    unsigned states = saved_states();
    if (!strcmp(isa, "avx2")) return (states & YMM) == YMM;
    return !strcmp(isa, "avx512") && (states & ZMM) == ZMM && (b7 & avx512) == avx512;
}
#else
static bool machine_has(const char *isa) { return !strcmp(isa, "scalar"); }
#endif

/* ---- which is used ------------------------------------------------------------------------------------- */

static int level_of(const char *isa) {
    for (int i = 0; i < N_LEVELS; i++)
        if (!strcmp(isa, level_names[i])) return i;
    return -1;
}

/* The best level that is built and that the machine has, at most what ATTN_ISA names; a name nobody knows lowers nothing. */
static int find_level(void) {
    const char *wanted = getenv("ATTN_ISA");
    int limit = wanted ? level_of(wanted) : -1, best = 0;
    if (limit < 0) limit = N_LEVELS - 1;
    for (int i = 0; i < N_TABLES; i++) {
        int level = level_of(tables[i]->isa);
        if (level <= limit && level > best && machine_has(tables[i]->isa)) best = level;
    }
    return best;
}

static atomic_int known = -1;

/* Looked up once; two threads that do so at the same time find the same. */
static int level(void) {
    int found = atomic_load_explicit(&known, memory_order_relaxed);
    if (found < 0) {
        found = find_level();
        atomic_store_explicit(&known, found, memory_order_relaxed);
    }
    return found;
}

/* What attn_kernels_for found, for F32 and F64; NULL: not yet looked up. */
static _Atomic(const attn_kernels *) chosen[2];

/* There always is one: the scalar tables, the last, are of the lowest level. */
static const attn_kernels *find_kernels(int32_t dtype) {
    int i = 0;
    while (tables[i]->dtype != dtype || level_of(tables[i]->isa) > level()) i++;
    return tables[i];
}

/* Every call asks: small ones would notice the comparison of names. */
const attn_kernels *attn_kernels_for(int32_t dtype) {
    if (dtype != ATTN_F32 && dtype != ATTN_F64) return NULL;
    const attn_kernels *found = atomic_load_explicit(&chosen[dtype == ATTN_F64], memory_order_relaxed);
    if (!found) {
        found = find_kernels(dtype);
        atomic_store_explicit(&chosen[dtype == ATTN_F64], found, memory_order_relaxed);
    }
    return found;
}

const attn_kernels *attn_kernels_at(int32_t index) {
    for (int i = 0; i < N_TABLES; i++)
        if (machine_has(tables[i]->isa) && index-- == 0) return tables[i];
    return NULL;
}

const attn_kernels *attn_kernels_named(const char *isa, int32_t dtype) {
    for (int i = 0; i < N_TABLES; i++)
        if (tables[i]->dtype == dtype && !strcmp(tables[i]->isa, isa)) return machine_has(isa) ? tables[i] : NULL;
    return NULL;
}

const char *attn_isa(void) { return level_names[level()]; }
const char *attn_version(void) { return "0.1.0"; }
