/* SPDX-License-Identifier: Apache-2.0 */
/* How a front-end says that a call was refused: a status, and a sentence that attn_last_error() gives back. */
#ifndef ATTN_STATUS_H
#define ATTN_STATUS_H

#include <attn/attn.h>

/* Remembers the message for the calling thread and returns `status`. Messages say what, where and the fix:
 * "k has head size 64, q has 128". Longer ones are cut at 255 bytes. */
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
attn_status
attn_fail(attn_status status, const char *format, ...);

#endif
