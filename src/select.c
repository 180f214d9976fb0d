/* SPDX-License-Identifier: Apache-2.0 */
/* Selecting the largest, and sorting what was selected. */
#include "select.h"

#include "ref/top_k.h"

typedef bool (*entry_order)(attn_entry a, attn_entry b);

static bool by_score(attn_entry a, attn_entry b) { return ref_comes_before(a.score, a.index, b.score, b.index); }
static bool by_index(attn_entry a, attn_entry b) { return a.index < b.index; }

/* The entry at `at` goes down until none below it comes after it. */
static inline void sink(attn_entry *heap, int64_t n, int64_t at, entry_order before) {
    attn_entry e = heap[at];
    for (int64_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && before(heap[child], heap[child + 1])) child++;
        if (!before(e, heap[child])) break;
        heap[at] = heap[child];
    }
    heap[at] = e;
}

static void offer(attn_selection *s, attn_entry e) {
    if (s->count < s->room) {
        int64_t at = s->count++;
        for (int64_t up; at > 0 && by_score(s->entries[up = (at - 1) / 2], e); at = up) s->entries[at] = s->entries[up];
        s->entries[at] = e;
    } else if (by_score(e, s->entries[0])) {
        s->entries[0] = e;
        sink(s->entries, s->count, 0, by_score);
    }
}

/* What an element has to be above to be taken; elements that come later never win a tie. */
static double least(const attn_selection *s) { return s->count < s->room ? -INFINITY : s->entries[0].score; }

static inline void scan(attn_selection *s, int64_t first, int64_t n, const void *z, int32_t dtype) {
    double limit = least(s);
    for (int64_t i = 0; i < n; i++) {
        double score = dtype == ATTN_F32 ? (double)((const float *)z)[i] : ((const double *)z)[i];
        if (score <= limit) continue; /* NaN comes before all */
        offer(s, (attn_entry){ score, first + i });
        limit = least(s);
    }
}

void attn_select(attn_selection *s, int64_t first, int64_t n, const void *z, int32_t dtype, attn_peak peak) {
    if (s->room == 0 || (!peak.nan && !(peak.max > least(s)))) return;
    if (dtype == ATTN_F32)
        scan(s, first, n, z, ATTN_F32);
    else
        scan(s, first, n, z, ATTN_F64);
}

static inline int64_t take(void *z, int64_t n, int32_t dtype, double max) {
    int64_t i = 0;
    if (dtype == ATTN_F32) {
        float *f = z;
        while (i < n - 1 && f[i] != (float)max) i++;
        f[i] = -INFINITY;
    } else {
        double *d = z;
        while (i < n - 1 && d[i] != max) i++;
        d[i] = -INFINITY;
    }
    return i;
}

void attn_select_few(attn_selection *s, int64_t n, void *z, int32_t dtype, const attn_softmax_kernels *k) {
    while (s->count < s->room) {
        attn_peak p = { .max = -INFINITY };
        k->peak(n, z, &p);
        if (p.max == -INFINITY) return;
        s->entries[s->count++] = (attn_entry){ p.max, take(z, n, dtype, p.max) };
    }
}

static inline void sort(attn_entry *entries, int64_t n, entry_order before) {
    for (int64_t at = n / 2 - 1; at >= 0; at--) sink(entries, n, at, before);
    for (int64_t end = n - 1; end > 0; end--) {
        attn_entry last = entries[0];
        entries[0] = entries[end];
        entries[end] = last;
        sink(entries, end, 0, before);
    }
}

void attn_sort_by_score(attn_entry *entries, int64_t n) { sort(entries, n, by_score); }
void attn_sort_by_index(attn_entry *entries, int64_t n) { sort(entries, n, by_index); }
