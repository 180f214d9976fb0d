/* SPDX-License-Identifier: Apache-2.0 */
/* The blocked path: a planned call answered by this machine's attention kernels, in O(q_len + kv_len) memory. */
#ifndef ATTN_ATTENTION_BLOCKS_H
#define ATTN_ATTENTION_BLOCKS_H

#include "attention_plan.h"
#include "exec.h"

/* Do the kernels cover this call? If not, the reference answers. */
bool attn_blocks_cover(const attn_attention_plan *p);
attn_need attn_blocks_need(const attn_attention_plan *p);
/* Writes what the plan has: out and all that is to be seen. */
void attn_blocks_forward(const attn_attention_plan *p, attn_session *session);

#endif
