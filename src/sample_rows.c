/* SPDX-License-Identifier: Apache-2.0 */
/* One row's draw, in sweeps over the row that read it in pieces. What top-k and top-p leave is always a prefix of the classes in
 * the order of their logits. Where that is short it is selected in one sweep, and the rest is done on it. Where it is long, classes
 * and their mass are counted in buckets by their distance from the largest logit; in the bucket where the prefix ends its last class
 * is found, by bits where there are many, and the row is swept again for what does not come after that class. */
#include "sample.h"
#include "piece.h"
#include "select.h"

#include "ref/top_k.h"

#include <math.h>
#include <string.h>

/* Entries that are selected at most: for top-k; for top-p alone, which finds its prefix among so few or goes by buckets.
 * Buckets, and how many there are to a distance of 1: they reach to where exp(-32) is left of the largest probability. */
enum { MOST_ENTRIES = 1024, NUCLEUS_ENTRIES = 256, BUCKET_BITS = 11, BUCKETS = 1 << BUCKET_BITS, STEPS = 64 };

typedef struct bucket {
    double mass;
    int64_t count;
} bucket;

/* Of the classes, what is left: those that do not come after `last`, and of these those not below `floor`. */
typedef struct cut {
    bool whole; /* nothing is cut off */
    attn_entry last;
    double floor; /* of (x - max) / temperature */
} cut;

static const cut everything = { .whole = true };

/* The smallest prefix of so many classes, or of so much mass; not both. */
typedef struct prefix {
    double count, mass; /* 0: the other */
} prefix;

static bool reaches(const prefix *wanted, double mass, double count) {
    return wanted->count > 0 ? count >= wanted->count : mass >= wanted->mass;
}

typedef struct sample_row {
    const sample_job *job;
    const ref_sampler *s;
    ref_vector x;
    double max;
    attn_entry *entries; /* MOST_ENTRIES */
    bucket *buckets;     /* BUCKETS, where they may be needed */
    double *masses;      /* of the pieces up to each */
    double gathered[ATTN_ROW_PIECE], wide[ATTN_ROW_PIECE], d[ATTN_ROW_PIECE], e[ATTN_ROW_PIECE];
} sample_row;

static int64_t pieces_of(int64_t n) { return n / ATTN_ROW_PIECE + (n % ATTN_ROW_PIECE != 0); }
static int64_t piece_length(const sample_row *r, int64_t j) {
    return r->s->n - j < ATTN_ROW_PIECE ? r->s->n - j : ATTN_ROW_PIECE;
}

static bool needs_buckets(const ref_sampler *s) { return s->top_p < 1 || s->top_k > MOST_ENTRIES; }

attn_need attn_sample_need(const ref_sampler *s) {
    if (s->temperature == 0) return (attn_need){ 0 };
    size_t bytes = attn_round64(MOST_ENTRIES * sizeof(attn_entry)) + attn_round64((size_t)pieces_of(s->n) * sizeof(double));
    return (attn_need){ .per_worker = bytes + (needs_buckets(s) ? BUCKETS * sizeof(bucket) : 0) };
}

static double distance(const sample_row *r, double x) { return (x - r->max) / r->s->temperature; }

/* ---- sums over the row ------------------------------------------------------------------------------------------- */

/* d = (x - max) / temperature of elements [j, j + n); returns x. */
static const double *distances(sample_row *r, int64_t j, int64_t n) {
    const double *x = attn_wide_piece(r->job->k, r->x, j, n, r->gathered, r->wide);
    r->job->k->entmax.cool(n, x, r->max, r->s->temperature, r->d);
    return x;
}

/* The same, and e = exp(d), 0 where they are cut off, added to sum. */
static const double *masses_of(sample_row *r, const cut *c, int64_t j, int64_t n, attn_compensated *sum) {
    const double *x = distances(r, j, n);
    for (int64_t i = 0; i < n && !c->whole; i++)
        if (x[i] < c->last.score || (x[i] == c->last.score && j + i > c->last.index) || r->d[i] < c->floor) r->d[i] = -INFINITY;
    r->job->k->softmax.exp_sum(n, r->d, 0, r->e, sum);
    return x;
}

/* The mass of what is left, and of the pieces up to each. */
static double mass_of_row(sample_row *r, const cut *c) {
    attn_compensated sum = { 0, 0 };
    for (int64_t j = 0, m; j < r->s->n; j += m) {
        m = piece_length(r, j);
        masses_of(r, c, j, m, &sum);
        r->masses[j / ATTN_ROW_PIECE] = attn_total(sum);
    }
    return attn_total(sum);
}

static ref_draw draw_from_row(sample_row *r, const cut *c, double u) {
    double mass = mass_of_row(r, c), target = u * mass;
    int64_t piece = 0, end = pieces_of(r->s->n);
    while (piece < end - 1 && !(r->masses[piece] > target)) piece++;
    /* Rounding may leave the last piece with nothing to draw: step back to one that has mass. */
    while (piece > 0 && r->masses[piece] == r->masses[piece - 1]) piece--;
    double sum = piece ? r->masses[piece - 1] : 0;
    int64_t j = piece * ATTN_ROW_PIECE, n = piece_length(r, j);
    ref_draw draw = { -1, 0 };
    masses_of(r, c, j, n, &(attn_compensated){ 0, 0 });
    for (int64_t i = 0; i < n && (draw.index < 0 || sum <= target); i++) {
        sum += r->e[i];
        if (r->e[i] > 0) draw = (ref_draw){ j + i, r->e[i] / mass };
    }
    return draw;
}

/* ---- a prefix that was selected -------------------------------------------------------------------------------- */

/* Selects the `room` classes that come first, sorted, and finds the peak of the row. Returns how many there are. */
static int64_t select_first(sample_row *r, int64_t room, attn_entry *entries, attn_peak *peak) {
    attn_selection best = { .entries = entries, .room = room };
    for (int64_t j = 0, m; j < r->s->n; j += m) {
        m = piece_length(r, j);
        const void *x = attn_wide_piece(r->job->own, r->x, j, m, r->gathered, r->wide);
        attn_peak piece = { .max = -INFINITY };
        r->job->own->softmax.peak(m, x, &piece);
        attn_select(&best, j, m, x, r->job->own->dtype, piece);
        peak->nan |= piece.nan;
        if (piece.max > peak->max) peak->max = piece.max;
    }
    attn_sort_by_score(entries, best.count);
    return best.count;
}

static double mass_of_entries(const sample_row *r, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += exp(distance(r, r->entries[i].score));
    return sum;
}

/* How many of the n entries make up `target`; 0 where they do not. */
static int64_t entries_that_hold(const sample_row *r, int64_t n, double target) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += exp(distance(r, r->entries[i].score));
        if (sum >= target) return i + 1;
    }
    return 0;
}

static ref_draw draw_from_entries(const sample_row *r, int64_t n, double floor, double u) {
    while (n > 1 && distance(r, r->entries[n - 1].score) < floor) n--;
    attn_sort_by_index(r->entries, n);
    double mass = mass_of_entries(r, n), target = u * mass, sum = 0;
    ref_draw draw = { -1, 0 };
    for (int64_t i = 0; i < n && sum <= target; i++) {
        double e = exp(distance(r, r->entries[i].score));
        sum += e;
        if (e > 0) draw = (ref_draw){ r->entries[i].index, e / mass };
    }
    return draw;
}

/* ---- a prefix that is too long for that ---------------------------------------------------------------------------- */

/* Where the prefix ends: among the classes of one bucket of distances whose topmost bits, all but `shift`, are `top`. */
typedef struct place {
    int64_t bucket;
    int shift; /* 64: whatever their bits are */
    uint64_t top;
    double mass;  /* of the classes that come before these, */
    double count; /* and how many */
} place;

/* Buckets get farther from the largest logit as they go, in steps so small that few classes share one; the last has all the rest. */
static int64_t bucket_of(double d) {
    double steps = d * -STEPS;
    return steps < BUCKETS - 1 ? (int64_t)steps : BUCKETS - 1;
}

/* Unsigned integers that are smaller for larger numbers; both zeros are one. */
static uint64_t bits_of(double x) {
    uint64_t bits;
    x += 0.0;
    memcpy(&bits, &x, sizeof bits);
    return bits >> 63 ? bits : ~(bits | (uint64_t)1 << 63);
}

static bool is_in(const place *p, double x, double d) {
    return x != -INFINITY && bucket_of(d) == p->bucket && (p->shift == 64 || bits_of(x) >> p->shift == p->top);
}

/* Sorts all classes into buckets by their distance, and returns their mass. */
static double fill_by_distance(sample_row *r) {
    attn_compensated sum = { 0, 0 };
    memset(r->buckets, 0, BUCKETS * sizeof *r->buckets);
    for (int64_t j = 0, m; j < r->s->n; j += m) {
        m = piece_length(r, j);
        const double *x = masses_of(r, &everything, j, m, &sum);
        for (int64_t i = 0; i < m; i++) {
            if (x[i] == -INFINITY) continue;
            bucket *b = &r->buckets[bucket_of(r->d[i])];
            b->mass += r->e[i];
            b->count++;
        }
    }
    return attn_total(sum);
}

/* Sorts the classes of a place by their next bits, and returns how many these are. */
static int fill_by_bits(sample_row *r, const place *p) {
    const int bits = p->shift < BUCKET_BITS ? p->shift : BUCKET_BITS;
    memset(r->buckets, 0, BUCKETS * sizeof *r->buckets);
    for (int64_t j = 0, m; j < r->s->n; j += m) {
        m = piece_length(r, j);
        const double *x = masses_of(r, &everything, j, m, &(attn_compensated){ 0, 0 });
        for (int64_t i = 0; i < m; i++) {
            if (!is_in(p, x[i], r->d[i])) continue;
            bucket *b = &r->buckets[bits_of(x[i]) >> (p->shift - bits) & ((1u << bits) - 1)];
            b->mass += r->e[i];
            b->count++;
        }
    }
    return bits;
}

/* The bucket in which count or mass reaches its target, beginning with what comes before all of them; the last that has any class
 * where rounding keeps it from that. */
static int64_t crossing(const sample_row *r, const prefix *wanted, double *mass, double *count) {
    int64_t found = -1;
    double sum = *mass, n = *count;
    for (int64_t b = 0; b < BUCKETS && !reaches(wanted, sum, n); b++) {
        if (r->buckets[b].count == 0) continue;
        found = b;
        *mass = sum;
        *count = n;
        sum += r->buckets[b].mass;
        n += (double)r->buckets[b].count;
    }
    return found;
}

/* One class of the place after the other: true where it is the last. */
static bool step(sample_row *r, const prefix *wanted, place *p, attn_entry e, attn_entry *end) {
    *end = e;
    p->mass += exp(distance(r, e.score));
    p->count++;
    return reaches(wanted, p->mass, p->count);
}

/* The classes of a place: collects them where they are few, and says how many there are and whether they are all equal. */
static int64_t look_at(sample_row *r, const place *p, bool *equal) {
    int64_t n = 0;
    double first = 0;
    *equal = true;
    for (int64_t j = 0, m; j < r->s->n; j += m) {
        m = piece_length(r, j);
        const double *x = distances(r, j, m);
        for (int64_t i = 0; i < m; i++) {
            if (!is_in(p, x[i], r->d[i])) continue;
            if (n == 0) first = x[i];
            if (x[i] != first) *equal = false;
            if (n < MOST_ENTRIES) r->entries[n] = (attn_entry){ x[i], j + i };
            n++;
        }
    }
    return n;
}

/* The end of a prefix among the many equal classes of a place. */
static attn_entry end_among_equals(sample_row *r, const prefix *wanted, place *p) {
    attn_entry end = { -INFINITY, -1 };
    for (int64_t j = 0, m; j < r->s->n; j += m) {
        m = piece_length(r, j);
        const double *x = distances(r, j, m);
        for (int64_t i = 0; i < m; i++)
            if (is_in(p, x[i], r->d[i]) && step(r, wanted, p, (attn_entry){ x[i], j + i }, &end)) return end;
    }
    return end;
}

/* The last class of the smallest prefix that reaches what is wanted, and the prefix's mass; the last class of all where rounding
 * keeps it from that. Buckets by distance are filled. Uses r->entries. */
static attn_entry prefix_end(sample_row *r, const prefix *wanted, double *mass) {
    place p = { .shift = 64 };
    attn_entry end = { -INFINITY, -1 };
    bool equal;
    p.bucket = crossing(r, wanted, &p.mass, &p.count);
    int64_t n = look_at(r, &p, &equal);
    while (n > MOST_ENTRIES && !equal) {
        int bits = fill_by_bits(r, &p);
        uint64_t next = (uint64_t)crossing(r, wanted, &p.mass, &p.count);
        p.top = (p.shift == 64 ? 0 : p.top << bits) | next;
        p.shift -= bits;
        n = look_at(r, &p, &equal);
    }
    if (n > MOST_ENTRIES) {
        end = end_among_equals(r, wanted, &p);
    } else {
        attn_sort_by_score(r->entries, n);
        for (int64_t i = 0; i < n && !step(r, wanted, &p, r->entries[i], &end); i++) continue;
    }
    *mass = p.mass;
    return end;
}

/* ---- a row ------------------------------------------------------------------------------------------------------- */

/* At a temperature above 0, from a row whose largest logit is finite; the first `n` classes of `room` asked for are selected. */
static ref_draw draw(sample_row *r, int64_t room, int64_t n, double u) {
    const ref_sampler *s = r->s;
    const int64_t limit = s->top_k > 0 && s->top_k < s->n ? s->top_k : s->n;
    const bool complete = room > 0 && (n < room || limit <= room); /* all that top-k leaves is selected */
    cut c = { .whole = limit == s->n, .last = { -INFINITY, 0 }, .floor = -INFINITY };
    const double floor = log(s->min_p);
    bool selected = complete;
    if (complete && s->top_p == 1) return draw_from_entries(r, n, floor, u);
    double mass = 0;
    if (!complete && limit < s->n) {
        fill_by_distance(r);
        c.last = prefix_end(r, &(prefix){ .count = (double)limit }, &mass);
        attn_peak again = { .max = -INFINITY };
        if (room > 0) n = select_first(r, room, r->entries, &again);
    } else if (s->top_p < 1) {
        mass = complete ? mass_of_entries(r, n) : fill_by_distance(r);
    }
    if (s->top_p < 1) {
        int64_t held = entries_that_hold(r, n, s->top_p * mass);
        selected = held > 0;
        if (selected) n = held;
    }
    if (s->top_p < 1 && !selected) {
        if (limit < s->n) fill_by_distance(r);
        attn_entry end = prefix_end(r, &(prefix){ .mass = s->top_p * mass }, &mass);
        bool sooner = c.whole || ref_comes_before(end.score, end.index, c.last.score, c.last.index);
        if (sooner) c.last = end; /* rounding might carry it on beyond what top-k left */
    }
    if (selected) return draw_from_entries(r, n, floor, u);
    c.whole = c.whole && s->top_p == 1 && s->min_p == 0;
    c.floor = floor;
    return draw_from_row(r, &c, u);
}

/* How many classes are to be selected in the first sweep. */
static int64_t room_for(const ref_sampler *s) {
    if (s->temperature == 0) return 1;
    int64_t room = s->top_k > 0 && s->top_k <= MOST_ENTRIES ? s->top_k : s->top_p < 1 ? NUCLEUS_ENTRIES : 0;
    return room < s->n ? room : s->n;
}

static ref_draw draw_row(sample_row *r, double u) {
    attn_peak peak = { .max = -INFINITY };
    attn_entry largest;
    const bool greedy = r->s->temperature == 0;
    const int64_t room = room_for(r->s), n = select_first(r, room, greedy ? &largest : r->entries, &peak);
    if (peak.nan) return (ref_draw){ -1, NAN };
    if (peak.max == -INFINITY) return (ref_draw){ -1, 0 };
    if (greedy) return (ref_draw){ largest.index, 1 };
    if (isinf(peak.max)) return (ref_draw){ -1, NAN };
    r->max = peak.max;
    return draw(r, room, n, u);
}

void attn_sample_rows(void *context, int64_t item, void *scratch) {
    const sample_job *job = context;
    const attn_rows_block block = attn_rows_at(&job->rows, job->block, item);
    sample_row r = { .job = job, .s = &job->s };
    char *at = scratch;
    if (at) {
        r.entries = attn_carve(&at, MOST_ENTRIES * sizeof *r.entries);
        r.masses = attn_carve(&at, (size_t)pieces_of(job->s.n) * sizeof *r.masses);
        r.buckets = (bucket *)(void *)at;
    }
    for (int64_t i = 0; i < block.count; i++) {
        uint64_t number = (uint64_t)(block.number + i * block.next_number);
        ref_vector index = attn_rows_vector(&job->rows, &block, SAMPLE_INDEX, i),
                   probability = attn_rows_vector(&job->rows, &block, SAMPLE_PROBABILITY, i);
        double u = ref_sample_uniform(job->seed, number);
        r.x = attn_rows_vector(&job->rows, &block, SAMPLE_X, i);
        ref_sampler s = job->s;
        s.x = r.x;
        ref_draw d = job->k ? draw_row(&r, u) : ref_sample(&s, u);
        ref_put(index, 0, (double)d.index);
        if (probability.data) ref_put(probability, 0, d.probability);
    }
}
