/* SPDX-License-Identifier: Apache-2.0 */
/* Cutting a text into the words within which BPE merges, by the rule that GPT-2 brought and that ByteLevel names:
 *     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
#ifndef ATTN_IO_PRETOKENIZE_H
#define ATTN_IO_PRETOKENIZE_H

#include <stddef.h>

/* The end of the word that begins at `at` < length. Every byte is in some word. */
size_t pretokenize_next(const char *text, size_t length, size_t at);

#endif
