/* SPDX-License-Identifier: Apache-2.0 */
/* What attn attend was told, between its options (attend.c) and its work (attend_run.c). */
#ifndef ATTN_CLI_ATTEND_H
#define ATTN_CLI_ATTEND_H

#include "options.h"

/* The fields have the options' names; a NULL file was not asked for. */
typedef struct attend_settings {
    const char *q, *k, *v, *out;
    option_choice score, weighting, causal, dtype; /* values are the library's enumerators; dtype: 0 bf16, 1 f16 */
    option_real scale, softcap, alpha, dropout;
    option_seed seed;
    option_pair window;
    option_integer block_size;
    const char *score_weight, *offset, *mask, *block_mask, *bias, *alibi, *q_lengths, *kv_lengths, *q_starts, *kv_starts, *sinks;
    const char *lse, *entropy, *received, *weights, *scores, *top_index, *top_weight, *pooled;
    const char *received_by;
    const char *see_rows, *see_heads; /* lists such as 0,3,7 */
    option_choice scores_stage;
    option_pair pooled_size;
    option_integer top_k;
    const char *dout, *dlse;
    const char *dq, *dk, *dv, *dbias, *dsinks, *dalibi, *dalpha, *dscore_weight;
} attend_settings;

/* Loads, computes, writes. Returns the exit code, having said what failed. */
int attend_run(const attend_settings *s, const attn_exec *exec);

#endif
