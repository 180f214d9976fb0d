/* SPDX-License-Identifier: Apache-2.0 */
/* Looking at paths without opening them. */
#ifndef ATTN_IO_PATH_H
#define ATTN_IO_PATH_H

#include <stdbool.h>
#include <stddef.h>

/* What the path leads to, links followed; false where there is nothing. */
bool path_is_file(const char *path); /* a regular one */
bool path_is_folder(const char *path);

/* folder/name, NUL-terminated, in `room` bytes; false, and an empty string, where it does not fit. An empty folder gives name. */
bool path_join(const char *folder, const char *name, char *out, size_t room);

#endif
