/* SPDX-License-Identifier: Apache-2.0 */
/* BPE in time proportional to the merges done: all words lie in one row of positions, linked to their neighbours; each position
 * is in the list of the pair that begins there; a merge visits the positions of its pair and no others. Pairs wait in a heap by
 * count, whose entries are corrected when they come up. See bpe_train.h. */
#include "bpe_train.h"

#include <stdlib.h>
#include <string.h>

#include "array.h"

#define NONE UINT32_MAX

typedef struct position {
    uint32_t token;
    uint32_t previous, next; /* within the word, or NONE */
    uint32_t pair;           /* the pair that begins here, or NONE */
    uint32_t list_previous, list_next;
    uint32_t word;
} position;

typedef struct pair {
    uint32_t left, right;
    uint32_t first; /* of the positions where it begins */
    bool touched;
    uint64_t count;
} pair;

typedef struct waiting {
    uint64_t count;
    uint32_t left, right, pair;
} waiting;

typedef struct learner {
    const intern *words;
    position *row;
    pair *pairs;
    uint32_t *slots; /* pair + 1 by (left, right); open addressing */
    uint32_t *touched;
    waiting *heap;
    size_t n_pairs, n_slots, n_touched, n_heap;
    size_t pair_capacity, touched_capacity, heap_capacity;
    bpe_learnt *learnt;
} learner;

/* ---- the heap: count downwards, then ids upwards ------------------------------------------------------- */

static bool comes_first(const waiting *a, const waiting *b) {
    if (a->count != b->count) return a->count > b->count;
    return a->left != b->left ? a->left < b->left : a->right < b->right;
}

static bool heap_push(learner *l, uint32_t id) {
    waiting *heap = array_grow(l->heap, &l->heap_capacity, l->n_heap + 1, sizeof *heap);
    if (!heap) return false;
    l->heap = heap;
    const pair *p = &l->pairs[id];
    waiting entry = { p->count, p->left, p->right, id };
    size_t i = l->n_heap++;
    for (size_t parent; i > 0 && comes_first(&entry, &heap[parent = (i - 1) / 2]); i = parent) heap[i] = heap[parent];
    heap[i] = entry;
    return true;
}

static waiting heap_pop(learner *l) {
    waiting *heap = l->heap, top = heap[0], last = heap[--l->n_heap];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < l->n_heap; i = child) {
        if (child + 1 < l->n_heap && comes_first(&heap[child + 1], &heap[child])) child++;
        if (!comes_first(&heap[child], &last)) break;
        heap[i] = heap[child];
    }
    heap[i] = last;
    return top;
}

/* ---- pairs and where they begin ------------------------------------------------------------------------ */

static size_t pair_slot(const learner *l, uint32_t left, uint32_t right) {
    uint64_t hash = intern_mix(l->words->seed ^ ((uint64_t)left << 32 | right));
    size_t i = (size_t)hash & (l->n_slots - 1);
    while (l->slots[i] && (l->pairs[l->slots[i] - 1].left != left || l->pairs[l->slots[i] - 1].right != right))
        i = (i + 1) & (l->n_slots - 1);
    return i;
}

static bool grow_pairs(learner *l) {
    pair *pairs = array_grow(l->pairs, &l->pair_capacity, l->n_pairs + 1, sizeof *pairs);
    if (!pairs) return false;
    l->pairs = pairs;
    if (l->n_pairs < l->n_slots / 2) return true;
    size_t n_slots = l->n_slots ? l->n_slots * 2 : 4096;
    uint32_t *slots = array_new(n_slots, sizeof *slots);
    if (!slots) return false;
    free(l->slots);
    l->slots = slots;
    l->n_slots = n_slots;
    for (size_t i = 0; i < l->n_pairs; i++) slots[pair_slot(l, pairs[i].left, pairs[i].right)] = (uint32_t)i + 1;
    return true;
}

/* Enters position `at` into the list of the pair that begins there. */
static bool link_pair(learner *l, uint32_t at) {
    position *here = &l->row[at];
    uint32_t left = here->token, right = l->row[here->next].token;
    here->pair = NONE;
    const intern_entry *tokens = l->learnt->tokens.entries;
    if (tokens[left].length + tokens[right].length > BPE_LONGEST_TOKEN) return true;
    if (!grow_pairs(l)) return false;
    size_t slot = pair_slot(l, left, right);
    if (!l->slots[slot]) {
        if (l->n_pairs >= NONE - 1) return false;
        l->pairs[l->n_pairs] = (pair){ .left = left, .right = right, .first = NONE };
        l->slots[slot] = (uint32_t)++l->n_pairs;
    }
    uint32_t id = l->slots[slot] - 1;
    pair *p = &l->pairs[id];
    p->count += l->words->entries[here->word].count;
    here->pair = id;
    here->list_previous = NONE;
    here->list_next = p->first;
    if (p->first != NONE) l->row[p->first].list_previous = at;
    p->first = at;
    if (p->touched) return true;
    uint32_t *touched = array_grow(l->touched, &l->touched_capacity, l->n_touched + 1, sizeof *touched);
    if (!touched) return false;
    l->touched = touched;
    touched[l->n_touched++] = id;
    p->touched = true;
    return true;
}

static void unlink_pair(learner *l, uint32_t at) {
    position *here = &l->row[at];
    if (here->pair == NONE) return;
    pair *p = &l->pairs[here->pair];
    p->count -= l->words->entries[here->word].count;
    if (here->list_previous != NONE)
        l->row[here->list_previous].list_next = here->list_next;
    else
        p->first = here->list_next;
    if (here->list_next != NONE) l->row[here->list_next].list_previous = here->list_previous;
    here->pair = NONE;
}

/* Puts the pairs whose count has grown where it belongs. */
static bool queue_touched(learner *l) {
    for (size_t i = 0; i < l->n_touched; i++) {
        pair *p = &l->pairs[l->touched[i]];
        p->touched = false;
        if (p->count && !heap_push(l, l->touched[i])) return false;
    }
    l->n_touched = 0;
    return true;
}

/* ---- merging -------------------------------------------------------------------------------------------- */

/* Makes position `at` and the next one the token `made`. */
static bool merge_at(learner *l, uint32_t at, uint32_t made) {
    position *here = &l->row[at], *gone = &l->row[here->next];
    unlink_pair(l, at);
    unlink_pair(l, here->next);
    if (here->previous != NONE) unlink_pair(l, here->previous);
    here->token = made;
    here->next = gone->next;
    if (here->next != NONE) l->row[here->next].previous = at;
    if (here->previous != NONE && !link_pair(l, here->previous)) return false;
    return here->next == NONE || link_pair(l, at);
}

/* Every place of a pair. Where a pair of equal tokens repeats (a a a a) the merges have to begin at the left end of the run. */
static bool merge_everywhere(learner *l, uint32_t id, uint32_t made) {
    while (l->pairs[id].first != NONE) {
        uint32_t at = l->pairs[id].first;
        if (l->pairs[id].left == l->pairs[id].right)
            while (l->row[at].previous != NONE && l->row[l->row[at].previous].pair == id) at = l->row[at].previous;
        for (; at != NONE && l->row[at].pair == id; at = l->row[at].next)
            if (!merge_at(l, at, made)) return false;
    }
    return queue_touched(l);
}

/* The token that a pair makes: a new one, or one that another pair has made before. */
static uint32_t make_token(learner *l, const waiting *best) {
    intern *tokens = &l->learnt->tokens;
    char bytes[BPE_LONGEST_TOKEN];
    const intern_entry *left = &tokens->entries[best->left], *right = &tokens->entries[best->right];
    memcpy(bytes, tokens->bytes + left->at, left->length);
    memcpy(bytes + left->length, tokens->bytes + right->at, right->length);
    size_t id = intern_add(tokens, bytes, left->length + right->length);
    return id < NONE ? (uint32_t)id : NONE;
}

static bool learn_merges(learner *l, size_t n_tokens, uint64_t min_frequency) {
    bpe_learnt *learnt = l->learnt;
    while (l->n_heap > 0 && learnt->tokens.n < n_tokens) {
        waiting best = heap_pop(l);
        uint64_t count = l->pairs[best.pair].count;
        if (count != best.count) { /* it has shrunk meanwhile, or a later entry has done it */
            if (count && count < best.count && !heap_push(l, best.pair)) return false;
            continue;
        }
        if (count < min_frequency) break;
        uint32_t made = make_token(l, &best);
        bpe_merge *merges = array_grow(learnt->merges, &learnt->merge_capacity, learnt->n_merges + 1, sizeof *merges);
        if (merges) learnt->merges = merges;
        if (made == NONE || !merges || learnt->n_merges >= NONE) return false;
        merges[learnt->n_merges] = (bpe_merge){ best.left, best.right, (uint32_t)learnt->n_merges, made };
        learnt->n_merges++;
        if (!merge_everywhere(l, best.pair, made)) return false;
    }
    return true;
}

/* ---- the beginning -------------------------------------------------------------------------------------- */

/* The 256 bytes as tokens, in the order of their printable characters; rank[byte] is the id. */
static bool add_bytes(intern *tokens, uint32_t rank[256]) {
    for (uint32_t c = 0; c < 512; c++) {
        int byte = bpe_char_byte(c);
        if (byte < 0) continue;
        char bytes[1] = { (char)byte };
        size_t id = intern_add(tokens, bytes, 1);
        if (id == INTERN_NONE) return false;
        rank[byte] = (uint32_t)id;
    }
    return true;
}

static bool lay_out(learner *l, const uint32_t rank[256]) {
    size_t at = 0;
    for (size_t w = 0; w < l->words->n; w++) {
        const intern_entry *word = &l->words->entries[w];
        for (size_t i = 0; i < word->length; i++, at++) {
            unsigned char byte = (unsigned char)l->words->bytes[word->at + i];
            l->row[at] = (position){ .token = rank[byte],
                                     .previous = i ? (uint32_t)at - 1 : NONE,
                                     .next = i + 1 < word->length ? (uint32_t)at + 1 : NONE,
                                     .pair = NONE,
                                     .word = (uint32_t)w };
        }
    }
    for (size_t i = 0; i < at; i++)
        if (l->row[i].next != NONE && !link_pair(l, (uint32_t)i)) return false;
    return queue_touched(l);
}

int bpe_learn(const intern *words, size_t n_tokens, uint64_t min_frequency, bpe_learnt *learnt, io_error *error) {
    if (words->n_bytes >= NONE / 4)
        return io_fail(error, IO_BAD_DATA, "the texts have %zu bytes of different words; at most %u can be learnt from",
                       words->n_bytes, NONE / 4);
    learner l = { .words = words, .learnt = learnt };
    uint32_t rank[256];
    l.row = array_new(words->n_bytes, sizeof *l.row);
    bool done = l.row && add_bytes(&learnt->tokens, rank) && lay_out(&l, rank) && learn_merges(&l, n_tokens, min_frequency);
    free(l.row);
    free(l.pairs);
    free(l.slots);
    free(l.touched);
    free(l.heap);
    return done ? IO_OK : io_no_memory(error, "learning a vocabulary", words->n_bytes * sizeof *l.row);
}

void bpe_learnt_free(bpe_learnt *learnt) {
    intern_free(&learnt->tokens);
    free(learnt->merges);
    *learnt = (bpe_learnt){ 0 };
}
