/* SPDX-License-Identifier: Apache-2.0 */
/* The sizes of the public structs on 64-bit machines. A field takes words from `reserved`, so that a program built against an
 * older header and a newer library agree; a size that changed here would break them silently. */
#include <attn/attn.h>

#if UINTPTR_MAX == UINT64_MAX
_Static_assert(sizeof(attn_tensor) == 112, "attn_tensor");
_Static_assert(sizeof(attn_exec) == 40, "attn_exec");
_Static_assert(sizeof(attn_softmax_args) == 752, "attn_softmax_args");
_Static_assert(sizeof(attn_softmax_grads) == 592, "attn_softmax_grads");
_Static_assert(sizeof(attn_softmax_tangents) == 480, "attn_softmax_tangents");
_Static_assert(sizeof(attn_top_k_softmax_args) == 728, "attn_top_k_softmax_args");
_Static_assert(sizeof(attn_top_k_softmax_grads) == 480, "attn_top_k_softmax_grads");
_Static_assert(sizeof(attn_sample_args) == 640, "attn_sample_args");
_Static_assert(sizeof(attn_cross_entropy_args) == 848, "attn_cross_entropy_args");
_Static_assert(sizeof(attn_linear_cross_entropy_args) == 1296, "attn_linear_cross_entropy_args");
_Static_assert(sizeof(attn_see) == 1048, "attn_see");
_Static_assert(sizeof(attn_attention_args) == 2984, "attn_attention_args");
_Static_assert(sizeof(attn_attention_grads) == 1632, "attn_attention_grads");
_Static_assert(sizeof(attn_attention_tangents) == 1184, "attn_attention_tangents");
_Static_assert(sizeof(attn_attention_double_grads) == 1632, "attn_attention_double_grads");
_Static_assert(sizeof(attn_received_args) == 600, "attn_received_args");
_Static_assert(sizeof(attn_merge_args) == 504, "attn_merge_args");
_Static_assert(sizeof(attn_merge_grads) == 496, "attn_merge_grads");
_Static_assert(sizeof(attn_gate_args) == 600, "attn_gate_args");
_Static_assert(sizeof(attn_gate_grads) == 592, "attn_gate_grads");
#endif
