/* SPDX-License-Identifier: Apache-2.0 */
/* One word to tokens: bytes in a linked row, the lowest-ranked pair joined first, of equal ranks the leftmost, by a heap: O(n log
 * n) for a word of any length. See bpe.h. */
#include "bpe.h"

#include <stdlib.h>

#include "array.h"

/* The merge of two neighbours, or NULL. */
static const bpe_merge *find_merge(const bpe *model, uint32_t left, uint32_t right) {
    size_t low = model->first_merge[left], end = model->first_merge[left + 1], high = end;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (model->merges[middle].right < right)
            low = middle + 1;
        else
            high = middle;
    }
    return low < end && model->merges[low].right == right ? &model->merges[low] : NULL;
}

static bool comes_first(bpe_candidate a, bpe_candidate b) { return a.rank != b.rank ? a.rank < b.rank : a.at < b.at; }

static void heap_push(bpe_candidate *heap, size_t *n, bpe_candidate candidate) {
    size_t i = (*n)++;
    while (i > 0) {
        size_t parent = (i - 1) / 2;
        if (!comes_first(candidate, heap[parent])) break;
        heap[i] = heap[parent];
        i = parent;
    }
    heap[i] = candidate;
}

static bpe_candidate heap_pop(bpe_candidate *heap, size_t *n) {
    bpe_candidate top = heap[0], last = heap[--*n];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= *n) break;
        if (child + 1 < *n && comes_first(heap[child + 1], heap[child])) child++;
        if (!comes_first(heap[child], last)) break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return top;
}

/* The row of symbols before any merge: a byte each; unknown bytes by the model's rule. */
static uint32_t lay_out(const bpe *model, const char *word, size_t n, bpe_symbol *symbols) {
    uint32_t count = 0;
    bool after_unknown = false;
    for (size_t i = 0; i < n; i++) {
        uint32_t id = model->byte_id[(unsigned char)word[i]];
        bool unknown = id == BPE_NONE;
        if (unknown) id = model->unknown;
        if (id == BPE_NONE) continue;
        if (unknown && after_unknown && model->fuse_unknown) {
            symbols[count - 1].end = (uint32_t)i + 1;
            continue;
        }
        after_unknown = unknown;
        symbols[count] = (bpe_symbol){ id, (uint32_t)i, (uint32_t)i + 1, count ? count - 1 : BPE_NONE, BPE_NONE };
        if (count) symbols[count - 1].next = count;
        count++;
    }
    return count;
}

static void consider(const bpe *model, const bpe_symbol *symbols, uint32_t at, bpe_candidate *heap, size_t *n_heap) {
    if (at == BPE_NONE || symbols[at].next == BPE_NONE) return;
    const bpe_merge *merge = find_merge(model, symbols[at].id, symbols[symbols[at].next].id);
    if (merge) heap_push(heap, n_heap, (bpe_candidate){ merge->rank, at, merge->made });
}

/* Merges until nothing can be. A candidate whose pair has changed since it was pushed is passed over; a symbol that was joined to
 * the one before it has end = start. */
static void merge_all(const bpe *model, bpe_symbol *symbols, uint32_t count, bpe_candidate *heap) {
    size_t n_heap = 0;
    for (uint32_t i = 0; i < count; i++) consider(model, symbols, i, heap, &n_heap);
    while (n_heap > 0) {
        bpe_candidate best = heap_pop(heap, &n_heap);
        bpe_symbol *left = &symbols[best.at];
        if (left->end == left->start || left->next == BPE_NONE) continue;
        bpe_symbol *right = &symbols[left->next];
        const bpe_merge *merge = find_merge(model, left->id, right->id);
        if (!merge || merge->made != best.made) continue;
        left->id = best.made;
        left->end = right->end;
        left->next = right->next;
        right->end = right->start;
        if (left->next != BPE_NONE) symbols[left->next].previous = best.at;
        consider(model, symbols, left->previous, heap, &n_heap);
        consider(model, symbols, best.at, heap, &n_heap);
    }
}

static bool reserve(bpe_scratch *scratch, size_t n) {
    bpe_symbol *symbols = array_grow(scratch->symbols, &scratch->symbol_capacity, n, sizeof *symbols);
    if (!symbols) return false;
    scratch->symbols = symbols;
    /* n - 1 pairs to begin with, and each of at most n - 1 merges brings two */
    bpe_candidate *heap = array_grow(scratch->heap, &scratch->heap_capacity, 3 * n, sizeof *heap);
    if (!heap) return false;
    scratch->heap = heap;
    return true;
}

/* A word that is in the vocabulary as a whole. */
static int find_whole(const bpe *model, const char *word, size_t n, bpe_scratch *scratch, uint32_t *id, io_error *error) {
    char *spelled = array_grow(scratch->spelled, &scratch->spelled_capacity, 2 * n, 1);
    if (!spelled) return io_no_memory(error, "a word", 2 * n);
    scratch->spelled = spelled;
    *id = bpe_find(model, spelled, bpe_spell(word, n, spelled));
    if (*id != BPE_NONE && !model->tokens[*id].in_model) *id = BPE_NONE;
    return IO_OK;
}

int bpe_encode_word(const bpe *model, const char *word, size_t n, bpe_scratch *scratch, size_t *n_symbols, io_error *error) {
    *n_symbols = 0;
    if (n == 0) return IO_OK;
    if (!reserve(scratch, n)) return io_no_memory(error, "a word", n * sizeof *scratch->symbols);
    if (model->whole_words) {
        uint32_t id;
        int failed = find_whole(model, word, n, scratch, &id, error);
        if (failed) return failed;
        if (id != BPE_NONE) {
            scratch->symbols[0] = (bpe_symbol){ id, 0, (uint32_t)n, BPE_NONE, BPE_NONE };
            *n_symbols = 1;
            return IO_OK;
        }
    }
    uint32_t count = lay_out(model, word, n, scratch->symbols);
    merge_all(model, scratch->symbols, count, scratch->heap);
    size_t kept = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (scratch->symbols[i].end > scratch->symbols[i].start) scratch->symbols[kept++] = scratch->symbols[i];
    }
    *n_symbols = kept;
    return IO_OK;
}

void bpe_scratch_free(bpe_scratch *scratch) {
    free(scratch->symbols);
    free(scratch->heap);
    free(scratch->spelled);
    *scratch = (bpe_scratch){ 0 };
}
