/* SPDX-License-Identifier: Apache-2.0 */
/* The reference path: a planned call answered by src/ref, head by head. What every dtype and option without kernels takes. */
#ifndef ATTN_ATTENTION_REFERENCE_H
#define ATTN_ATTENTION_REFERENCE_H

#include "attention_plan.h"
#include "exec.h"

attn_need attn_reference_need(const attn_attention_plan *p);
/* Writes what the plan has: out (when it is there) and all that is to be seen. */
void attn_reference_forward(const attn_attention_plan *p, attn_session *session);

/* What keys receive. */
attn_need attn_reference_received_need(const attn_attention_plan *p);
void attn_reference_received(const attn_attention_plan *p, const attn_attention_plan_received *r, attn_session *session);

/* Forward mode: writes dout and dlse, and what the plan has. */
attn_need attn_reference_jvp_need(const attn_attention_plan *p);
void attn_reference_jvp(const attn_attention_plan *p, const attn_attention_plan_tangents *t, attn_session *session);

attn_need attn_reference_backward_need(const attn_attention_plan *p, const attn_attention_plan_grads *g);
/* Writes the gradients that are asked for; recomputes everything from the inputs and dout. Of either order. */
void attn_reference_backward(const attn_attention_plan *p, const attn_attention_plan_grads *g, attn_session *session);

#endif
