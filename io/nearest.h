/* SPDX-License-Identifier: Apache-2.0 */
/* "Did you mean": the name that a mistyped word was probably meant to be. */
#ifndef ATTN_IO_NEAREST_H
#define ATTN_IO_NEAREST_H

#include <stddef.h>

/* The nearest of `n` names to `word`, or NULL when none is near. Capitals count as small letters and '_' as '-'. */
const char *nearest(const char *word, const char *const *names, size_t n);

#endif
