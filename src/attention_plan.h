/* SPDX-License-Identifier: Apache-2.0 */
/* An attention call after validation: every extent, view and option in one struct, defaults resolved, nothing left to doubt.
 * The entry points make it; the reference and the blocked kernels read it. Absent optional tensors have rank 0. */
#ifndef ATTN_ATTENTION_PLAN_H
#define ATTN_ATTENTION_PLAN_H

#include "mask.h"
#include "philox.h"
#include "ref/element.h"
#include "tensor.h"

/* Which rows or heads: all n of them in order (index NULL), or these n. */
typedef struct attn_index_list {
    const int64_t *index;
    int64_t n;
} attn_index_list;

static inline int64_t attn_listed(attn_index_list list, int64_t i) { return list.index ? list.index[i] : i; }

typedef struct attn_attention_plan {
    int64_t batch, heads, k_heads, v_heads, q_len, kv_len, dim, v_dim;
    /* Sequences: `batch`, but of a packed batch, whose `batch` is 1 and whose lengths are those of all its sequences in a row.
     * Numbered from first_entry on, which is above 0 in a call that is one sequence of a packed batch. */
    int64_t entries, first_entry;
    int64_t k_group, v_group; /* query heads per key head and per value head: head h reads key head h / k_group */

    attn_tensor q, k, v;      /* [batch, heads | k_heads | v_heads, length, dim | v_dim]; one float dtype */
    attn_tensor out;          /* [batch, heads, q_len, v_dim], q's dtype or f32; the backward may lack it */
    attn_tensor mask, bias;   /* optional, seen as [batch, heads, q_len, kv_len]: stride 0 where they repeat */
    attn_tensor block_mask;   /* optional, seen as [batch, heads, q_len, kv_len] in blocks, those at an end cut off */
    int64_t block_size;       /* rows and keys of a block; of heads that are rows the rows have all one */
    attn_tensor alibi;        /* optional, seen as [entries, heads] */
    attn_tensor score_weight; /* with ATTN_ADDITIVE, seen as [heads, dim] */
    attn_tensor sinks;        /* optional [heads] */
    attn_tensor q_lengths, kv_lengths, offset; /* optional, each seen as [entries]; values are in range */
    attn_tensor q_starts, kv_starts;           /* of a packed batch [entries + 1], both or none */
    bool starts_known;                         /* they can be read: it is no question */

    int32_t score, weighting;
    bool top_left;         /* the offset is 0 */
    int64_t left, right;   /* the window, a causal mask included (right 0); -1: unbounded */
    double scale, softcap; /* scale is resolved; softcap 0: none */
    double alpha;          /* of sparsemax (2), entmax-1.5 and alpha-entmax */
    attn_dropout_rule dropout;

    /* What is to be seen: shapes as in attn_see. In the backward only lse remains: the forward's result, to be read. In forward
     * mode too: to be written. */
    attn_tensor lse, entropy, received, weights, scores, top_index, top_weight, pooled;
    int32_t scores_stage;
    attn_index_list seen_rows, seen_heads; /* of weights and scores */
    int64_t top_k;

    int64_t heads_in_rows; /* 0, or after attn_plan_heads_as_rows: the rows are so many heads of one query */
} attn_attention_plan;

struct attn_attention_plan_tangents;

/* The gradients asked for, as views of fixed rank. An extent of 1 where the input has more is summed over. In the second order
 * they are those of sum ddq dq + ddk dk + ddv dv, the backward's results, and only dq, dk and dv. */
typedef struct attn_attention_plan_grads {
    attn_tensor dout;          /* [batch, heads, q_len, v_dim], always there */
    attn_tensor dlse;          /* optional [batch, heads, q_len] */
    attn_tensor dq, dk, dv;    /* each optional, shaped as its input */
    attn_tensor dbias;         /* optional, rank 4, each extent that of [batch, heads, q_len, kv_len] or 1 */
    attn_tensor dalibi;        /* optional [entries | 1, heads | 1] */
    attn_tensor dsinks;        /* the same */
    attn_tensor dalpha;        /* optional [1] */
    attn_tensor dscore_weight; /* optional [heads | 1, dim] */
    const struct attn_attention_plan_tangents
        *along; /* second order: ddq, ddk and ddv, and where ddout and ddlse go. Else NULL */
} attn_attention_plan_grads;

/* Directions for forward mode, and where its results go. In the second order: the gradients to dq, dk and dv, and where those to
 * dout and dlse go. */
typedef struct attn_attention_plan_tangents {
    attn_tensor dq, dk, dv; /* each optional, shaped as its input */
    attn_tensor dbias;      /* optional, seen as [batch, heads, q_len, kv_len] */
    attn_tensor dout;       /* optional [batch, heads, q_len, v_dim] */
    attn_tensor dlse;       /* optional [batch, heads, q_len] */
} attn_attention_plan_tangents;

/* What a received mass is asked for beyond the call. */
typedef struct attn_attention_plan_received {
    attn_tensor by;       /* optional, seen as [batch, heads, q_len] */
    attn_tensor dout;     /* optional [batch, heads, q_len, v_dim] */
    bool positive;        /* of the products with the weights' gradients */
    attn_tensor received; /* [batch, heads, kv_len] */
} attn_attention_plan_received;

/* A call has data behind its tensors, and lengths and offsets are read and checked. A question (of workspace) has shapes
 * and options only: data may be missing and is never read. */
typedef enum attn_plan_purpose { ATTN_PLAN_CALL, ATTN_PLAN_QUESTION } attn_plan_purpose;

/* Validates everything and writes nothing but the plan. */
attn_status attn_attention_plan_forward(attn_attention_plan *plan, const attn_attention_args *a, attn_plan_purpose purpose);
attn_status attn_attention_plan_backward(attn_attention_plan *plan, attn_attention_plan_grads *grads,
                                         const attn_attention_args *a, const attn_attention_grads *g, attn_plan_purpose purpose);
attn_status attn_attention_plan_jvp(attn_attention_plan *plan, attn_attention_plan_tangents *tangents,
                                    const attn_attention_args *a, const attn_attention_tangents *t, attn_plan_purpose purpose);
/* `tangents` is what grads->along points to. */
attn_status attn_attention_plan_double_backward(attn_attention_plan *plan, attn_attention_plan_grads *grads,
                                                attn_attention_plan_tangents *tangents, const attn_attention_args *a,
                                                const attn_attention_double_grads *g, attn_plan_purpose purpose);

/* The plan is to see nothing; an lse that it has is the forward's, to be read. */
attn_status attn_attention_plan_for_received(attn_attention_plan *plan, attn_attention_plan_received *received,
                                             const attn_attention_args *a, const attn_received_args *r,
                                             attn_plan_purpose purpose);

/* A weight depends on its score alone: rows are divided by nothing. */
static inline bool attn_plan_is_elementwise(const attn_attention_plan *p) {
    return p->weighting == ATTN_WEIGHT_SIGMOID || p->weighting == ATTN_WEIGHT_RELU2;
}

/* One query per entry, and heads that share a key head: the same call with those heads as the rows of one, so that they meet a key
 * together. No bit changes. Anything else stays as it is. */
attn_attention_plan attn_plan_heads_as_rows(const attn_attention_plan *p);

/* ---- per batch entry ---------------------------------------------------------------------------------- */

/* Of queries, also where their heads are the rows. */
static inline int64_t attn_plan_q_length(const attn_attention_plan *p, int64_t b) {
    if (p->q_lengths.rank) return attn_int_at(&p->q_lengths, b * p->q_lengths.stride[0]);
    return p->heads_in_rows ? 1 : p->q_len;
}

static inline int64_t attn_plan_kv_length(const attn_attention_plan *p, int64_t b) {
    return p->kv_lengths.rank ? attn_int_at(&p->kv_lengths, b * p->kv_lengths.stride[0]) : p->kv_len;
}

/* Where query 0 stands. By default the entry's last query stands on its last key. */
static inline int64_t attn_plan_offset(const attn_attention_plan *p, int64_t b) {
    if (p->top_left) return 0;
    if (p->offset.rank) return attn_int_at(&p->offset, b * p->offset.stride[0]);
    return attn_plan_kv_length(p, b) - attn_plan_q_length(p, b);
}

/* The mask of blocks of head (b, h). */
static inline attn_block_mask attn_plan_blocks(const attn_attention_plan *p, int64_t b, int64_t h) {
    const attn_tensor *t = &p->block_mask;
    if (!t->rank) return (attn_block_mask){ NULL, 0, 0, 0 };
    return (attn_block_mask){
        .data = attn_at(t, b * t->stride[0] + h * t->stride[1]), .block = p->block_size, .row = t->stride[2], .col = t->stride[3]
    };
}

/* The sink of head h; there are sinks. */
static inline double attn_plan_sink(const attn_attention_plan *p, int64_t h) {
    return ref_load(p->sinks.data, p->sinks.dtype, h * p->sinks.stride[0]);
}

static inline attn_sight attn_plan_sight(const attn_attention_plan *p, int64_t b) {
    bool one = p->heads_in_rows != 0;
    return (attn_sight){ .q_length = attn_plan_q_length(p, b) * (one ? p->heads_in_rows : 1),
                         .one_position = one,
                         .kv_length = attn_plan_kv_length(p, b),
                         .offset = attn_plan_offset(p, b),
                         .left = p->left,
                         .right = p->right };
}

#endif
