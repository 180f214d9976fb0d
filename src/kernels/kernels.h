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

/* Long rows may be handed over in pieces, first piece first, whose lengths (but the last) are multiples of ATTN_ROW_PIECE: what is
 * accumulated (peak, sums) then has the same bits as in one call. Outputs may be inputs. */
enum { ATTN_ROW_PIECE = 256 };

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
    /* Softmax or log-softmax of whole rows: the same bits as from the pieces above. */
    void (*rows)(bool logarithmic, int64_t rows, int64_t n, const void *z, int64_t z_row, void *y, int64_t y_row);
    /* y[j * y_row + i] = x[i * x_row + j] for i < m, j < n. */
    void (*transpose)(int64_t m, int64_t n, const void *x, int64_t x_row, void *y, int64_t y_row);
    /* The sum of y dy (dy for log-softmax) over entries that have weight: y is not 0 (-inf). */
    void (*dy_sum)(bool logarithmic, int64_t n, const void *y, const void *dy, attn_compensated *sum);
    /* dx = scale y (dy - sum), or scale (dy - exp(y) sum) for log-softmax; 0 where there is no weight. */
    void (*dx)(bool logarithmic, int64_t n, const void *y, const void *dy, double sum, double scale, void *dx);
    /* The sums of t_c and of t_c (z_c - max). */
    void (*target_sums)(int64_t n, const void *z, double max, const attn_target *target, attn_compensated *total,
                        attn_compensated *dot);
    /* dz_c = factor e_c - gain t_c */
    void (*target_dz)(int64_t n, const void *e, double factor, double gain, const attn_target *target, void *dz);
} attn_softmax_kernels;

/* ---- attention ------------------------------------------------------------------------------------------ */

typedef struct attn_attention_kernels {
    int32_t unused; /* replaced by the first kernel */
} attn_attention_kernels;

/* ---- matrix products ------------------------------------------------------------------------------------ */

/* c [m, n] = activation(a [m, k] b [k, n] + bias) + residual, added to c when `accumulate`; b comes packed. Every element is one
 * chain of fused multiply-adds over k in order, started from 0, whatever the block, tile or packing it is computed in. */
typedef struct attn_matmul_block {
    int64_t m, n, k;
    const void *a;
    int64_t a_row, a_col;
    const void *b;   /* panels of nr columns: [n / nr, rounded up][k][nr] */
    int64_t b_panel; /* elements from one panel to the next */
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
    int32_t nr;               /* columns of a panel */
    int32_t m_block, n_block; /* the largest block: what one work item computes. n_block is a multiple of nr */
    /* One panel: columns [0, n) of b, n <= nr, as [k][nr], zeros beyond n. NULL: this table has no matrix products. */
    void (*pack)(int64_t k, int64_t n, const void *b, int64_t b_row, int64_t b_col, void *panel);
    /* Bytes of scratch that a block needs: for a packed piece of a, and for sums between pieces of k. */
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
    double (*sum_of_squares)(int64_t n, const void *x);
    void (*adamw)(const struct ref_adamw *o, int64_t n, void *param, void *m, void *v, const void *gradient);
} attn_vector_kernels;

typedef struct attn_kernels {
    const char *isa; /* "avx512" */
    int32_t dtype;   /* ATTN_F32, ATTN_F64: what it reads, computes in and writes */
    int32_t lanes;   /* elements of one vector */
    attn_math_kernels math;
    attn_softmax_kernels softmax;
    attn_attention_kernels attention;
    attn_matmul_kernels matmul;
    attn_vector_kernels vector;
} attn_kernels;

/* The best table for an element type on this machine, lowered by ATTN_ISA; NULL when the reference has to answer (bf16, f16). */
const attn_kernels *attn_kernels_for(int32_t dtype);
/* Every table that this machine can run, best instruction set first, whatever ATTN_ISA says; NULL from the end on. */
const attn_kernels *attn_kernels_at(int32_t index);
/* One of these by name; NULL when it is not built or the machine lacks it. */
const attn_kernels *attn_kernels_named(const char *isa, int32_t dtype);

#endif
