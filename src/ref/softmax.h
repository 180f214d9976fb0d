/* SPDX-License-Identifier: Apache-2.0 */
/* The definition of the softmax family, one row at a time, and of its gradients: softmax, log-softmax, softmin, logsumexp and
 * gumbel-softmax in softmax.c, sparsemax and entmax in entmax.c. */
#ifndef ATTN_REF_SOFTMAX_H
#define ATTN_REF_SOFTMAX_H

#include "element.h"

#include <stdbool.h>

/* A row of scores: z_i = scale * x_i + bias_i, negated for softmin. An entry is masked where the mask is false or z_i = -inf. */
typedef struct ref_scores {
    int64_t n;
    ref_vector x;
    ref_vector bias; /* data NULL: none */
    ref_vector mask; /* data NULL: none; false hides an entry, whatever its x is */
    double scale;
    int32_t op; /* ATTN_SOFTMAX, ATTN_LOG_SOFTMAX, ATTN_SOFTMIN; of the others ATTN_SOFTMAX */
} ref_scores;

/* z_i, -inf where the entry is masked. */
double ref_score(const ref_scores *s, int64_t i);

/* y_i = exp(z_i - lse), or z_i - lse for ATTN_LOG_SOFTMAX; 0 or -inf where masked. y may be x. */
void ref_softmax(const ref_scores *s, ref_vector y);
/* log(sum exp z_i): -inf when everything is masked, +inf with a +inf, NaN with a NaN among the live scores. */
double ref_logsumexp(const ref_scores *s);

/* dx from y and dy. An entry whose y says that it had no weight (0, or -inf for ATTN_LOG_SOFTMAX) counts nothing and gets 0.
 * dx may be dy. */
void ref_softmax_backward(int32_t op, double scale, int64_t n, ref_vector y, ref_vector dy, ref_vector dx);
/* dy of log-softmax from y and a tangent dx, as above: an entry without weight counts nothing and gets 0. dy may be dx. */
void ref_log_softmax_tangent(double scale, int64_t n, ref_vector y, ref_vector dx, ref_vector dy);
/* The same of the row's logsumexp; 0 of a row without live entries. */
double ref_logsumexp_tangent(const ref_scores *s, ref_vector dx);
/* dx_i = dy * scale * exp(z_i - lse). */
void ref_logsumexp_backward(const ref_scores *s, double dy, ref_vector dx);

/* Alpha-entmax of the row, alpha >= 1: 1 is softmax, 1.5 entmax-1.5, 2 sparsemax. 0 where masked or below the threshold. A live NaN or
 * +inf: NaN in all live entries. y may be x. */
void ref_entmax(const ref_scores *s, double alpha, ref_vector y);
/* dx from y and dy (dx absent: none is wanted); returns the row's d(loss)/d(alpha). Entries of weight 0 count nothing and get 0. dx may
 * be dy. */
double ref_entmax_backward(double alpha, double scale, int64_t n, ref_vector y, ref_vector dy, ref_vector dx);

/* The same for rows of doubles, as attention has them. p_j from scores s_j over n keys; a key that is not live (live NULL: all are) or
 * whose score is -inf gets 0, and the score of one not live is not read. p may be s. */
void ref_entmax_row(double alpha, int64_t n, const bool *live, const double *s, double *p);
/* ds = d(loss)/d(s) from p and dp = d(loss)/d(p); 0 where p is 0, and dp is not read there. Adds the row's share to dalpha, which may
 * be NULL. ds may be dp. */
void ref_entmax_row_backward(double alpha, int64_t n, const double *p, const double *dp, double *ds, double *dalpha);

/* The noise of element `index` (row-major): -log(-log u), u = ((word >> 9) + 0.5) 2^-23 in (0, 1), always finite. */
double ref_gumbel(uint64_t seed, uint64_t index);
/* Softmax of (z_i + noise) / temperature, the row's elements being numbers position, position + 1, ...; hard: 1 at the first largest,
 * 0 elsewhere. Masked entries give 0; a live NaN or +inf: NaN in all live entries. y may be x. Its gradient is softmax's, times
 * 1/temperature, at the soft y. */
void ref_gumbel_softmax(const ref_scores *s, uint64_t seed, uint64_t position, double temperature, bool hard, ref_vector y);

#endif
