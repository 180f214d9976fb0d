/* SPDX-License-Identifier: Apache-2.0 */
/* The blocked path, forward and backward: a planned call answered by this machine's attention kernels, in O(q_len + kv_len) memory. */
#ifndef ATTN_ATTENTION_BLOCKS_H
#define ATTN_ATTENTION_BLOCKS_H

#include "attention_plan.h"
#include "exec.h"

/* Do the kernels cover this call? If not, the reference answers. */
bool attn_blocks_cover(const attn_attention_plan *p);
attn_need attn_blocks_need(const attn_attention_plan *p);
/* Writes what the plan has: out and all that is to be seen. */
void attn_blocks_forward(const attn_attention_plan *p, attn_session *session);

/* Forward mode: dout and dlse, and out and lse where the plan has them. */
bool attn_blocks_cover_jvp(const attn_attention_plan *p, const attn_attention_plan_tangents *t);
attn_need attn_blocks_jvp_need(const attn_attention_plan *p, const attn_attention_plan_tangents *t);
void attn_blocks_jvp(const attn_attention_plan *p, const attn_attention_plan_tangents *t, attn_session *session);

/* What keys receive. */
bool attn_blocks_cover_received(const attn_attention_plan *p, const attn_attention_plan_received *r);
attn_need attn_blocks_received_need(const attn_attention_plan *p, const attn_attention_plan_received *r);
void attn_blocks_received(const attn_attention_plan *p, const attn_attention_plan_received *r, attn_session *session);

/* For the backward: out (where the plan has it), the rows' normalisers and, in the second order (else t is NULL), tangents. Bytes per worker, and the
 * sweep. */
struct attn_row_norms;
size_t attn_blocks_rows_need(const attn_attention_plan *p, const attn_attention_plan_tangents *t);
void attn_blocks_rows(const attn_attention_plan *p, const attn_attention_plan_tangents *t, const struct attn_row_norms *norms,
                      attn_session *session);

attn_need attn_blocks_backward_need(const attn_attention_plan *p, const attn_attention_plan_grads *g);
bool attn_blocks_cover_backward(const attn_attention_plan *p, const attn_attention_plan_grads *g);
void attn_blocks_backward(const attn_attention_plan *p, const attn_attention_plan_grads *g, attn_session *session);

#endif
