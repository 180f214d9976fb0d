/* SPDX-License-Identifier: Apache-2.0 */
/* From here to target_end.h functions are compiled for whatever the build targets, without contraction. */
#if defined(__clang__)
#pragma clang attribute push(__attribute__((annotate("any"))), apply_to = function)
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC push_options
#pragma GCC optimize("fp-contract=off")
#endif
