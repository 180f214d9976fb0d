/* SPDX-License-Identifier: Apache-2.0 */
/* What keys received, in one more sweep over the scores, when every row's normaliser is known: summed over all rows, or over rows and
 * keys that are pooled. */
#ifndef ATTN_ATTENTION_RECEIVED_H
#define ATTN_ATTENTION_RECEIVED_H

#include "attention_see.h"

/* Bytes per worker. */
size_t attn_received_need(const attn_attention_plan *p);
/* Received mass and pooled maps, where the plan has them. */
void attn_see_received(const attn_attention_plan *p, const attn_row_norms *norms, attn_session *session);

#endif
