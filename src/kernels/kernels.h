/* SPDX-License-Identifier: Apache-2.0 */
/* What an instruction set provides: for each element type it computes in, one table of kernels, each with its contract.
 *
 * Kernels know pointers, lengths and strides (in elements), never tensors. They validate nothing, allocate nothing and cannot
 * fail. A NULL entry means the reference in src/ref answers. A table is filled by one thin file per instruction set and element
 * type (avx512_f32.c, avx2_f64.c, ...): target, vocabulary (simd/), algorithms (*.inc), table. list.h names them all. */
#ifndef ATTN_KERNELS_H
#define ATTN_KERNELS_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- the functions of vmath.h over n dense elements; y may be x ------------------------------------------- */

typedef struct attn_math_kernels {
    void (*exp)(const void *x, void *y, int64_t n);
    void (*exp2)(const void *x, void *y, int64_t n);
    void (*log)(const void *x, void *y, int64_t n);
    void (*tanh)(const void *x, void *y, int64_t n);
    void (*sigmoid)(const void *x, void *y, int64_t n);
    void (*erf)(const void *x, void *y, int64_t n);
} attn_math_kernels;

/* ---- softmax family: rows of n dense elements ----------------------------------------------------------- */

/* A sum in double whose rounding errors are carried along. */
typedef struct attn_compensated {
    double high, low;
} attn_compensated;

static inline void attn_accumulate(attn_compensated *s, double x) {
    double t = s->high + x;
    s->low += fabs(s->high) >= fabs(x) ? (s->high - t) + x : (x - t) + s->high;
    s->high = t;
}
static inline double attn_total(attn_compensated s) { return isfinite(s.high) ? s.high + s.low : s.high; }

/* What a row's largest score is, and whether it holds a NaN (max is then anything). Starts as { -INFINITY, false }. */
typedef struct attn_peak {
    double max;
    bool nan;
} attn_peak;

/* Some entry is live, and none is NaN or +inf: exp(z - max) and its sum are finite. */
static inline bool attn_is_regular(attn_peak p) { return !p.nan && isfinite(p.max); }

/* Targets of a row: t_c = weight_c * (sharp * soft_c + spread). soft and weight: dense elements, or NULL for zeros and ones. */
typedef struct attn_target {
    const void *soft, *weight;
    double sharp, spread;
} attn_target;

/* Which slopes of a row: softmax's (to a gradient and to a tangent the same), log-softmax's to a gradient, and to a tangent. */
typedef enum attn_slope { ATTN_SLOPE_SOFTMAX, ATTN_SLOPE_LOG, ATTN_SLOPE_LOG_TANGENT } attn_slope;

/* Long rows may be handed over in pieces, first piece first, whose lengths (but the last) are multiples of ATTN_ROW_PIECE: what is
 * accumulated (peak, sums) then has the same bits as in one call. Outputs may be inputs. */
enum { ATTN_ROW_PIECE = 256 };

/* Elements of rows that are worked on at once without memory for it: few enough for the first cache. */
enum { ATTN_ROOM = 4096 };

/* Softmax or log-softmax of whole dense rows, so many elements apart: the same bits as from the pieces below. */
typedef struct attn_softmax_rows {
    bool logarithmic;
    bool stream; /* y goes past the caches: it is of the table's own type, not x, and all its rows are aligned to 16 bytes */
    void *
        room; /* NULL, or a row's elements rounded up to whole vectors, aligned to 64 bytes: for rows of more than ATTN_ROOM where
                  * y cannot hold exponentials, lest they be taken twice. Without it such rows do not stream */
    int32_t x_dtype, y_dtype; /* the table's own or, beside F32, 16 bits */
    int64_t rows, n;
    const void *x;
    int64_t x_row;
    void *y; /* may be x where the types are one */
    int64_t y_row;
} attn_softmax_rows;

/* The same along another axis: `columns` columns side by side, at most ATTN_COLUMNS. */
enum { ATTN_COLUMNS = 256 };

typedef struct attn_softmax_columns {
    bool logarithmic, stream; /* as above */
    int32_t x_dtype, y_dtype;
    int64_t columns, n; /* n: elements of a column, so many apart */
    const void *x;
    int64_t x_step;
    void *y;
    int64_t y_step;
    void *room; /* n + 1 times the columns rounded up to whole lines of 64 bytes; aligned to them */
} attn_softmax_columns;

typedef struct attn_softmax_kernels {
    /* z = sign * (scale * x + bias), -inf where the mask is 0. bias and mask may be NULL. */
    void (*scores)(int64_t n, const void *x, const void *bias, const uint8_t *mask, double scale, double sign, void *z);
    void (*peak)(int64_t n, const void *z, attn_peak *peak);
    /* e = exp(z - max), added to sum. e may be NULL. */
    void (*exp_sum)(int64_t n, const void *z, double max, void *e, attn_compensated *sum);
    void (*multiply)(int64_t n, const void *e, double factor, void *y);
    void (*log)(int64_t n, const void *z, double max, double log_sum, void *y); /* y = (z - max) - log_sum */
    /* Of a row that is not regular: y = masked where z is -inf, else NaN. */
    void (*blank)(int64_t n, const void *z, double masked, void *y);
    void (*rows)(const attn_softmax_rows *t);
    void (*columns)(const attn_softmax_columns *t);
    /* y[j * y_row + i] = x[i * x_row + j] for i < m, j < n. */
    void (*transpose)(int64_t m, int64_t n, const void *x, int64_t x_row, void *y, int64_t y_row);
    /* The sum of y dy (log-softmax: dy, of a tangent exp(y) dy) over entries that have weight: y is not 0 (-inf). */
    void (*dy_sum)(attn_slope slope, int64_t n, const void *y, const void *dy, attn_compensated *sum);
    /* dx = scale y (dy - sum), or scale (dy - exp(y) sum) for log-softmax, of a tangent scale (dy - sum); 0 where there is no
     * weight. */
    void (*dx)(attn_slope slope, int64_t n, const void *y, const void *dy, double sum, double scale, void *dx);
    /* The sums of t_c and of t_c (z_c - max). */
    void (*target_sums)(int64_t n, const void *z, double max, const attn_target *target, attn_compensated *total,
                        attn_compensated *dot);
    /* dz_c = factor e_c - gain t_c */
    void (*target_dz)(int64_t n, const void *e, double factor, double gain, const attn_target *target, void *dz);
} attn_softmax_kernels;

/* ---- sparsemax, entmax, gumbel-softmax: regular rows of n dense elements, in pieces as above ------------------ */

/* Scores d = (z - max) gain above a threshold: how many, and their excess t = d - at: its sum, its squares', its smallest. Starts as
 * { .least = INFINITY }. */
typedef struct attn_excess {
    int64_t count;
    attn_compensated sum, squares;
    double least;
} attn_excess;

/* How far the threshold is from where these were taken: sum (t - step) = 1, or sum (t - step)^2 = 1. `settled`: no score lies between,
 * so that the sums are over those that have weight. Sums of single precision tell the quadratic's root only near it; farther off it is
 * Newton's step for the norm, which never passes the root. */
static inline double attn_threshold_step(bool quadratic, double count, double sum, double squares, double least, bool *settled) {
    double step = (sum - 1) / count;
    if (!quadratic) {
        *settled = step < least;
        return step;
    }
    double inside = sum * sum - count * (squares - 1);
    step = (squares - 1) / (sum + sqrt(inside > 0 ? inside : 0));
    *settled = squares < 4 && inside >= 0 && step < least;
    return *settled ? step : (squares - sqrt(squares)) / sum;
}

typedef struct attn_entmax_kernels {
    /* The largest d of each of 4 * lanes interleaved parts of the row; it replaces a smaller one in `tops`. */
    void (*tops)(int64_t n, const void *z, double max, double gain, void *tops);
    /* Adds to e. Appends the d above to `packed`, after the e->count that are there, all of them if they are no more than `room` in the
     * end; a vector more than that may be written. */
    void (*excess)(int64_t n, const void *z, double max, double gain, double at, void *packed, int64_t room, attn_excess *e);
    /* The threshold of n scores, which is not below `at` nor above `highest`: `at`, as the element type has it, and what is left. */
    void (*settle)(bool quadratic, int64_t n, const void *z, double max, double gain, double highest, double *at, double *rest);
    /* y = t with t = max(z - max - at - rest, 0), or t^2 with t = max((z - max)/2 - at - rest, 0). y may be z, here and below. */
    void (*cut)(bool quadratic, int64_t n, const void *z, double max, double at, double rest, void *y);
    /* With base = 1 + x / w^a (1 - shift), x = (z - max) gain, and q = base^(1/a) where that is above 0, else 0: the sums of q and
     * q / base, shift being 0; y = factor q. */
    void (*power_sums)(int64_t n, const void *z, double max, double gain, double a, double log_w, attn_compensated *sum,
                       attn_compensated *slope);
    void (*power)(int64_t n, const void *z, double max, double gain, double a, double log_w, double shift, double factor,
                  void *y);
    /* The sums of r dy and of r, r = y^power where y is not 0; dx = scale r (dy - mean) there, else 0. power in [0, 1). */
    void (*support_sums)(double power, int64_t n, const void *y, const void *dy, attn_compensated *weighted,
                         attn_compensated *total);
    void (*support_dx)(double power, int64_t n, const void *y, const void *dy, double mean, double scale, void *dx);
    /* z += the noise of elements [position, position + n): see ref_gumbel. */
    void (*add_gumbel)(int64_t n, uint64_t position, uint64_t seed, void *z);
    void (*cool)(int64_t n, const void *z, double max, double temperature, void *y); /* y = (z - max) / temperature */
    /* y = 1 where z is max for the first time (then `found` is true), else 0. */
    void (*one_hot)(int64_t n, const void *z, double max, bool *found, void *y);
} attn_entmax_kernels;

/* ---- attention ------------------------------------------------------------------------------------------ */

/* Blocks of q_block queries (one per lane, at most 64) meet units of k_block keys. A panel is a transposed block, [column][lane]:
 * of queries [dim][lane], of outputs [v_dim][lane]; a tile of scores or weights is [key][lane]. `live` says for each key of a tile
 * which lanes see it, lane 0 in the lowest bit. Panels, tiles and per-lane arrays are aligned to 64 bytes. */

/* What a block of rows knows of the keys seen so far, one element per lane each. They start as -inf, 0, 0. */
typedef struct attn_row_state {
    void *max;     /* softmax: what scores are shifted by; up to ATTN_LAZY_MAX below the largest */
    void *sum;     /* softmax: of exp(s - max); normalised sum: of s */
    void *shifted; /* softmax, for the entropy: of exp(s - max) (s - max) */
} attn_row_state;

/* A row's maximum moves only when a score exceeds it by more: rescaling sums and outputs is then rare. */
#define ATTN_LAZY_MAX 8

typedef struct attn_score_tile {
    const void *q; /* panel [dim][lane] */
    const void *k; /* dense rows, k_row elements apart */
    int64_t k_row;
    int64_t n_keys, dim;
    const void *weight; /* additive: [dim] */
    void *scratch;      /* additive: dim * (q_block + 2) elements */
    double scale;
    void *s; /* out: tile [n_keys][lane] */
    /* Rows that are read next, those of the same keys: a few rows' scores take longer to come from memory than to compute. */
    const void *v;
    int64_t v_row, v_dim;
} attn_score_tile;

typedef struct attn_mix_tile {
    const void *p;           /* tile [n_keys][lane] */
    const void *v;           /* groups of columns, as pack_groups makes them */
    int64_t n_packed, first; /* keys in the groups, and the one that is the tile's first */
    int64_t n_keys, v_dim;
    const uint64_t *live; /* NULL: every weight counts. Else a key is skipped where a lane does not see it */
    bool accumulate;      /* add to o, or begin it */
    void *o;              /* panel [v_dim][lane] */
} attn_mix_tile;

/* The same of a block of few rows, from values where they lie. */
typedef struct attn_few_mix {
    const void *p; /* tile [n_keys][lane] */
    const void *v; /* dense rows, v_row elements apart */
    int64_t v_row, n_keys, n_rows, v_dim;
    const uint64_t *live; /* as above */
    bool accumulate;
    void *o; /* panel [v_dim][lane]; lanes from n_rows on hold nothing in particular */
} attn_few_mix;

/* Which weights dropout keeps. */
typedef struct attn_keep_tile {
    const struct attn_dropout_rule *rule;
    int64_t b, h, i0, j0; /* of the tile's first lane and key; j0 is a multiple of 4 */
    int64_t n_keys;
    void *keep; /* out: tile [n_keys][lane] of 0 and rule->scale */
} attn_keep_tile;

/* c[key][column] += sum over rows of a[key][row] * x[row][column]: what the keys of a unit gather from some blocks of rows. */
typedef struct attn_gather {
    const void *a; /* tiles [block][n_keys][lane]; `a_block` elements from one block to the next */
    int64_t a_block;
    int64_t n_keys, n_rows, n_cols;
    const void *x;        /* [n_rows] in lines, as pack_lines makes them */
    const uint64_t *live; /* NULL, or [block][k_block]: a row is skipped where it does not see the key */
    void *c;              /* [n_keys][c_row] */
    int64_t c_row;        /* n_cols rounded up to whole vectors */
} attn_gather;

/* What the gradients of the additive score are made from. */
typedef struct attn_additive_gradient {
    const void *ds;       /* tile [n_keys][lane] */
    const uint64_t *live; /* NULL, or as in attn_mix_tile */
    const void *q;        /* panel [dim][lane] */
    const void *k;        /* dense rows */
    int64_t k_row, n_keys, dim;
    const void *weight; /* [dim] */
    void *dq;           /* panel [dim][lane], added to */
    void *dk;           /* [n_keys][dk_row], added to */
    int64_t dk_row;
    void *dweight; /* [dim], added to */
    void *scratch; /* [n_keys] */
} attn_additive_gradient;

/* The way back of the way back through a softmax: tiles [n_keys][lane] that are read and then hold results, and what is known of
 * each lane's row. With p the weight, g the softcap's slope (1 without one) and ds = p (dp - delta):
 *     s: scores              becomes p (g r - mean)
 *     dp: dout . v           becomes g ds
 *     u: dout . ddv          becomes g (p ((g r - mean) (dp - delta) + u - eta) - 2 capped / softcap^2 ds r) */
typedef struct attn_second_tile {
    void *s, *dp, *u;
    const void *r;      /* tangents of scores before softcap */
    const void *capped; /* scores after it; NULL without one */
    double softcap;
    int64_t n_keys;
    const void *max, *inverse, *delta, *mean, *eta;
} attn_second_tile;

/* Tiles begin at keys that are multiples of this: what keys are added up together is then the same in every tile. */
enum { ATTN_KEY_STEP = 4 };

/* ATTN_WEIGHT_SOFTMAX, ..., ATTN_WEIGHT_HARDMAX */
enum { ATTN_WEIGHTINGS = 8 };

typedef struct attn_attention_kernels {
    int32_t q_block, k_block; /* q_block 0: this table has no attention */

    /* The peak, for benchmarks: `rounds` times burst_flops operations in registers. The result is not to be thrown away. */
    double (*burst)(int64_t rounds, double start);
    int64_t burst_flops;

    /* panel[column][lane] = x[lane][column]; lanes from n_rows on are 0. And back, rows up to n_rows. */
    void (*pack)(const void *x, int64_t row, int64_t col, int64_t n_rows, int64_t n_cols, void *panel);
    void (*unpack)(const void *panel, int64_t n_rows, int64_t n_cols, void *x, int64_t row, int64_t col);
    /* Rows in groups of columns: [n_cols / width][row][width], in widths that suit the registers. n_rows * n_cols elements. */
    void (*pack_groups)(const void *x, int64_t row, int64_t col, int64_t n_rows, int64_t n_cols, void *groups);
    /* No NaN and no infinity among n elements. */
    bool (*finite)(const void *x, int64_t n);

    /* score: by kind, ATTN_DOT, ATTN_ADDITIVE, ATTN_COSINE (of vectors of length 1: the dot). Then, each if it is there: softcap,
     * bias, ALiBi, masks. */
    void (*score[3])(const attn_score_tile *t);
    void (*cap)(void *s, int64_t n_keys, double softcap);
    void (*add_bias)(void *s, const void *bias_tile, int64_t n_keys, uint64_t *live); /* -inf clears the bit */
    void (*add_alibi)(void *s, int64_t n_keys, double slope, double position); /* of lane 0, counted from the tile's first key */
    void (*read_mask)(const void *mask, int64_t row, int64_t col, int64_t n_rows, int64_t n_keys, uint64_t *live); /* clears */
    void (*hide)(void *s, int64_t n_keys, const uint64_t *live, double fill);

    /* weigh: by kind, ATTN_WEIGHT_SOFTMAX, ...; NULL where the reference has to answer. Scores become weights (not yet divided by
     * the row's sum), the state moves on; true: outputs so far are to be multiplied by `factor`, one per lane. */
    bool (*weigh[ATTN_WEIGHTINGS])(void *s, int64_t n_keys, attn_row_state *state, void *factor, bool see_entropy);
    /* Scores become final weights, given a finished row's max and 1 / sum. */
    void (*weigh_again[ATTN_WEIGHTINGS])(void *s, int64_t n_keys, const void *max, const void *inverse);

    /* Dropout, and what it multiplies: s *= by. */
    void (*keep)(const attn_keep_tile *t);
    void (*multiply)(void *s, const void *by, int64_t n_keys);

    /* The way back, by weighting: scores become final weights in s, and dp (what the weights' gradient is) becomes the scores' in
     * dp. delta per lane: sum of p dp over the keys, less d(lse). Then through the softcap, `capped` being the capped scores. */
    void (*weigh_back[ATTN_WEIGHTINGS])(void *s, void *dp, int64_t n_keys, const void *max, const void *inverse,
                                        const void *delta);
    void (*softmax_back_twice)(const attn_second_tile *t);
    void (*cap_back)(void *ds, const void *capped, int64_t n_keys, double softcap);
    /* delta[lane] = sum over columns of dout * out, both panels. */
    void (*inner_lanes)(const void *dout, const void *out, int64_t n_cols, void *delta);
    /* Rows in lines of whole vectors: [columns / width][row][width], zeros beyond n_cols. */
    void (*pack_lines)(const void *x, int64_t row, int64_t col, int64_t n_rows, int64_t n_cols, void *lines);
    void (*gather)(const attn_gather *t);
    /* The additive score's own: each adds to one member. */
    void (*additive_dq)(const attn_additive_gradient *t);
    void (*additive_dk)(const attn_additive_gradient *t);
    void (*additive_dweight)(const attn_additive_gradient *t);

    /* see: which lanes hold a score that is not <= the lane's threshold, per key; what each key received, summed over lanes. */
    void (*above)(const void *s, int64_t n_keys, const void *threshold, uint64_t *lanes);
    void (*add_received)(const void *p, int64_t n_keys, void *received);
    void (*positive)(void *s, int64_t n_keys); /* what is below 0 becomes 0; NaN stays */

    void (*mix)(const attn_mix_tile *t);

    /* Blocks of at most `few` rows: the dot score and the mix with other lanes, the same bits. */
    int32_t few;
    void (*score_few)(const attn_score_tile *t, int64_t n_rows);
    void (*mix_few)(const attn_few_mix *t);

    void (*rescale)(void *o, int64_t v_dim, const void *factor);
    /* What o is still to be multiplied by, per lane: 1 / sum (0 for a row without weights), 1 where nothing is divided. Also lse
     * and entropy, per lane; each may be NULL. sink: NULL, or one more score per lane for the row's sum. */
    void (*finish)(int32_t weighting, const void *sink, const attn_row_state *state, void *inverse, void *lse, void *entropy);
} attn_attention_kernels;

/* ---- matrix products ------------------------------------------------------------------------------------ */

/* c [m, n] = activation(a [m, k] b [k, n] + bias) + residual, added to c when `accumulate`; b comes packed. Every element is one
 * chain of fused multiply-adds over k in order, started from the bias, whatever the block, tile or packing it is computed in. */
typedef struct attn_matmul_block {
    int64_t m, n, k;
    const void *a;
    int64_t a_row, a_col;
    const void
        *b; /* panels of nr columns: [n / nr, rounded up][k][nr]. Or in place: b_panel nr, rows b_row apart, columns dense */
    int64_t b_panel, b_row; /* elements from one panel to the next, from one row of a panel to the next */
    void *c;
    int64_t c_row, c_col;
    const void *bias; /* NULL: none, as below */
    int64_t bias_col;
    const void *residual;
    int64_t residual_row, residual_col;
    void *before; /* out: a b + bias */
    int64_t before_row, before_col;
    int32_t activation;
    bool accumulate;
} attn_matmul_block;

typedef struct attn_matmul_kernels {
    int32_t mr, nr;           /* a tile; nr columns are a panel */
    int32_t m_block, n_block; /* the largest block: what one work item computes. Multiples of mr and nr */
    /* One panel: columns [0, n) of b, n <= nr, as [k][nr], zeros beyond n. NULL: this table has no matrix products. */
    void (*pack)(int64_t k, int64_t n, const void *b, int64_t b_row, int64_t b_col, void *panel);
    /* Bytes of scratch that a block needs: for packed pieces of a and b, and for sums between pieces of k. */
    size_t (*scratch)(const attn_matmul_block *t);
    void (*block)(const attn_matmul_block *t, void *scratch);
} attn_matmul_kernels;

/* ---- rows and elements: norms, activations, gates, AdamW ------------------------------------------------- */

/* Rows of a norm, forward and backward: `rows` rows of n dense elements, so many elements apart. */
typedef struct attn_norm_rows {
    int32_t kind; /* ATTN_LAYER_NORM, ATTN_RMS_NORM */
    bool accumulate;
    int64_t rows, n;
    double epsilon;
    const void *x, *weight, *bias; /* weight and bias may be NULL */
    const void *dy;                /* backward */
    void *y;                       /* forward: y, backward: dx; may be x, dy */
    int64_t x_row, dy_row, y_row;
    void *mean, *rstd; /* [rows], in the element type */
} attn_norm_rows;

struct ref_adamw;

/* All on dense elements. In place is allowed where attn/ops.h allows it. */
typedef struct attn_vector_kernels {
    void (*activation)(int32_t activation, int64_t n, const void *x, void *y, bool accumulate);
    void (*activation_backward)(int32_t activation, int64_t n, const void *x, const void *dy, void *dx, bool accumulate);
    void (*norm_moments)(const attn_norm_rows *r); /* writes mean and rstd */
    void (*norm)(const attn_norm_rows *r);         /* reads them */
    void (*norm_dx)(const attn_norm_rows *r);
    /* total [n] += the sum over m rows of x, or of dy * (x - mean) * rstd: one partial sum, added once. */
    void (*sum_rows)(int64_t m, int64_t n, const void *x, int64_t x_row, void *total);
    void (*norm_dweight)(const attn_norm_rows *r, void *total);
    void (*add)(int64_t n, double alpha, const void *x, void *y); /* y += alpha x */
    /* Elements [position, position + n) of a tensor: see attn_dropout. */
    void (*dropout)(int64_t n, int64_t position, uint64_t threshold, double scale, uint64_t seed, uint64_t stream, const void *x,
                    void *y);
    /* sum[8]: the square of element `position` is added to sum[position & 7], in order. */
    void (*sum_of_squares)(int64_t n, int64_t position, const void *x, double *sum);
    void (*adamw)(const struct ref_adamw *o, int64_t n, void *param, void *m, void *v, const void *gradient);
    void (*decay)(int64_t n, double here, const double *there, void *y); /* y *= exp(here - there) */
    /* n pairs: first = a cos - b sin, second = b cos + a sin; `back` turns by -sin. They may be a and b. */
    void (*rope)(int64_t n, bool back, const void *cos, const void *sin, const void *a, const void *b, void *first, void *second);
} attn_vector_kernels;

/* ---- gates over dense elements; y may be x ----------------------------------------------------------------- */

typedef struct attn_gate_kernels {
    void (*apply)(int32_t kind, int64_t n, const void *x, const void *g, void *y); /* the gradient to x too: linear in x */
    void (*dg)(int32_t kind, int64_t n, const void *x, const void *g, const void *dy, void *dg);
} attn_gate_kernels;

typedef struct attn_convert_kernels {
    void (*widen)(const void *x, int32_t dtype, int64_t n, void *y);  /* n elements of any float dtype into the table's */
    void (*narrow)(const void *x, int64_t n, int32_t dtype, void *y); /* and back: rounded once, to nearest even */
} attn_convert_kernels;

typedef struct attn_kernels {
    const char *isa; /* "avx512" */
    int32_t dtype;   /* ATTN_F32, ATTN_F64: what it reads, computes in and writes */
    int32_t lanes;   /* elements of one vector */
    attn_convert_kernels convert;
    attn_math_kernels math;
    attn_softmax_kernels softmax;
    attn_entmax_kernels entmax;
    attn_attention_kernels attention;
    attn_matmul_kernels matmul;
    attn_vector_kernels vector;
    attn_gate_kernels gate;
} attn_kernels;

/* The best table for an element type on this machine, lowered by ATTN_ISA; NULL for other types than f32 and f64. */
const attn_kernels *attn_kernels_for(int32_t dtype);
/* Every table that this machine can run, best instruction set first, whatever ATTN_ISA says; NULL from the end on. */
const attn_kernels *attn_kernels_at(int32_t index);
/* One of these by name; NULL when it is not built or the machine lacks it. */
const attn_kernels *attn_kernels_named(const char *isa, int32_t dtype);

#endif
