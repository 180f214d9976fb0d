/* SPDX-License-Identifier: Apache-2.0 */
/* The definition of attention, forward and backward, for one head: plain loops over one row of scores at a time, in double.
 * Read attention.c first, then weighting.c, then attention_backward.c; attention_jvp.c and
 * attention_double_backward.c differentiate once more. */
#ifndef ATTN_REF_ATTENTION_H
#define ATTN_REF_ATTENTION_H

#include "../mask.h"
#include "../philox.h"
#include "element.h"
#include "weighting.h"

#include <stddef.h>

/* Maps of several heads, of which this head writes its own: [n_heads][n_rows, kv_len]. */
typedef struct ref_maps {
    void *data;
    int64_t head, row, col;
    int32_t dtype;
} ref_maps;

/* Which heads and rows they are of: these n, or (index NULL) all in order. */
typedef struct ref_list {
    const int64_t *index;
    int64_t n;
} ref_list;

/* One head. Optional members have data NULL. */
typedef struct ref_attention {
    int64_t q_len, kv_len, dim, v_dim;
    ref_matrix q, k, v;    /* [q_len, dim], [kv_len, dim], [kv_len, v_dim] */
    ref_matrix out;        /* optional [q_len, v_dim] */
    ref_matrix mask, bias; /* optional [q_len, kv_len] */
    attn_block_mask blocks;
    attn_sight sight; /* what lengths, causal masks and windows leave to see */
    int32_t score;
    ref_weighting weighting;
    ref_vector score_weight; /* [dim], for the additive score */
    double scale, softcap;   /* softcap 0: none */
    double slope;            /* of ALiBi; has_alibi tells a slope of 0 from none */
    bool has_alibi;
    attn_dropout_rule dropout;
    int64_t b, h; /* which head this is, as dropout and the lists of heads count them */

    /* what is to be seen, each optional */
    ref_vector lse, entropy; /* [q_len] */
    ref_vector received;     /* [kv_len] */
    ref_maps weights, scores;
    ref_list seen_rows, seen_heads;
    int32_t scores_stage;
    ref_matrix top_index, top_weight; /* [q_len, top_k] */
    int64_t top_k;
    ref_matrix pooled; /* [pool_rows, pool_keys] */
    int64_t pool_rows, pool_keys;
} ref_attention;

/* The row that is worked on. The caller lends the memory. */
typedef struct ref_rows {
    double *q;          /* [dim] query i; of length 1 with ATTN_COSINE */
    double *k;          /* [dim] the key at work, with ATTN_COSINE: of length 1 */
    double q_length;    /* with ATTN_COSINE: what q was divided by; 0 for a zero vector */
    double *capped;     /* [kv_len] scores after softcap */
    double *s, *p;      /* [kv_len] scores as they enter the weighting, weights */
    double *seen;       /* [kv_len] scores at the stage that is to be seen */
    double *keep;       /* [kv_len] what dropout multiplies weights by: 0, or 1 / (1 - p); 1 without it */
    double *dp, *ds;    /* [kv_len] gradients of the weights (before dropout) and scores */
    double *r;          /* [kv_len] tangents of the scores before softcap, in forward mode and the second order */
    double *x;          /* [kv_len] gradients of the same in the second order */
    double *sum, *dout; /* [max(dim, v_dim)] sums over keys, and d(loss)/d(out) of query i */
    ref_weighting_gradient dweighting;
    bool *live; /* [kv_len] the keys that query i sees */
} ref_rows;

/* Bytes of ref_rows' arrays; SIZE_MAX when they do not fit. */
size_t ref_rows_bytes(int64_t kv_len, int64_t dim, int64_t v_dim);
/* Lays them out in `memory`, which is aligned to 8 bytes. */
ref_rows ref_rows_in(void *memory, int64_t kv_len, int64_t dim, int64_t v_dim);

/* x of length 1, in place; a zero vector stays. Returns what it was divided by: its length, 0 for a zero vector. */
double ref_unit_vector(int64_t n, double *x);
/* Key j of length 1, and its length. */
double ref_attention_unit_key(const ref_attention *a, int64_t j, double *k);

/* Fills in q, live, capped, s and keep of row i; and seen, if scores are to be seen. */
void ref_attention_scores(const ref_attention *a, int64_t i, ref_rows *row);
/* All rows. `received` holds kv_len doubles, `pooled` pool_keys of them, used when these are asked for. */
void ref_attention_forward(const ref_attention *a, ref_rows *row, double *received, double *pooled);

/* ---- received mass: attention_received.c ------------------------------------------------------------------------ */

typedef struct ref_attention_received {
    ref_vector by;       /* optional [q_len]: what a query counts */
    ref_matrix dout;     /* optional [q_len, v_dim]: weights count times their gradients */
    bool positive;       /* where that product is positive */
    ref_vector received; /* [kv_len] */
} ref_attention_received;

/* Adds up in `sums`, kv_len doubles. */
void ref_attention_receive(const ref_attention *a, const ref_attention_received *r, ref_rows *row, double *sums);

/* ---- forward mode: attention_jvp.c ----------------------------------------------------------------------------- */

/* Directions of the inputs and the tangents of the results, each optional. */
typedef struct ref_attention_tangents {
    ref_matrix dq, dk, dv; /* [q_len, dim], [kv_len, dim], [kv_len, v_dim] */
    ref_matrix dbias;      /* [q_len, kv_len] */
    ref_matrix dout;       /* [q_len, v_dim] */
    ref_vector dlse;       /* [q_len] */
} ref_attention_tangents;

/* Fills in r of row i, whose scores are there: scale (dq_i . k_j + q_i . dk_j) for the keys it sees, else 0. */
void ref_attention_raw_tangents(const ref_attention *a, const ref_attention_tangents *t, int64_t i, ref_rows *row);
/* What the softcap multiplies the tangent or gradient of score j by. */
double ref_attention_cap_slope(const ref_attention *a, const ref_rows *row, int64_t j);
/* All rows: writes dout and dlse. The dot score and the softmax alone. */
void ref_attention_jvp(const ref_attention *a, const ref_attention_tangents *t, ref_rows *row);

/* ---- backward ------------------------------------------------------------------------------------------------ */

typedef struct ref_attention_grads {
    ref_matrix dout;              /* [q_len, v_dim] */
    ref_vector dlse;              /* optional [q_len] */
    ref_attention_tangents along; /* in the second order: ddq, ddk and ddv */
} ref_attention_grads;

/* dq [q_len, dim] of this head. */
void ref_attention_dq(const ref_attention *a, const ref_attention_grads *g, ref_rows *row, ref_matrix dq);
/* The others belong to more than this head: its share is added. dk [kv_len, dim], dv [kv_len, v_dim], dw [dim]. With ATTN_COSINE dk is
 * that of keys of length 1, which ref_attention_key_gradient takes to the keys' own when all heads were added. */
void ref_attention_key_gradient(const ref_attention *a, ref_rows *row, double *dk);
void ref_attention_add_dk(const ref_attention *a, const ref_attention_grads *g, ref_rows *row, double *dk);
void ref_attention_add_dv(const ref_attention *a, const ref_attention_grads *g, ref_rows *row, double *dv);
void ref_attention_add_dscore_weight(const ref_attention *a, const ref_attention_grads *g, ref_rows *row, double *dw);
void ref_attention_add_dalibi(const ref_attention *a, const ref_attention_grads *g, ref_rows *row, double *dslope);
void ref_attention_add_dsink(const ref_attention *a, const ref_attention_grads *g, ref_rows *row, double *dsink);
void ref_attention_add_dalpha(const ref_attention *a, const ref_attention_grads *g, ref_rows *row, double *dalpha);
/* Row i's share of d(bias): key j's goes to dbias[j * step]; step 0 sums over keys. */
void ref_attention_add_dbias(const ref_attention *a, const ref_attention_grads *g, int64_t i, ref_rows *row, double *dbias,
                             int64_t step);

/* ---- the second order: attention_double_backward.c ------------------------------------------------------------- */

/* The gradients of sum ddq dq + ddk dk + ddv dv, dq, dk and dv being the backward's. Those to dout and dlse are what
 * ref_attention_jvp writes along the same directions. The dot score and the softmax alone; each as its namesake above. */
void ref_attention_second_dq(const ref_attention *a, const ref_attention_grads *g, ref_rows *row, ref_matrix dq);
void ref_attention_second_add_dk(const ref_attention *a, const ref_attention_grads *g, ref_rows *row, double *dk);
void ref_attention_second_add_dv(const ref_attention *a, const ref_attention_grads *g, ref_rows *row, double *dv);

#endif
