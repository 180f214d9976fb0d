/* SPDX-License-Identifier: Apache-2.0 */
/* See path.h. */
#define _POSIX_C_SOURCE 200809L
#include "path.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

bool path_is_file(const char *path) {
    struct stat about;
    return stat(path, &about) == 0 && S_ISREG(about.st_mode);
}

bool path_is_folder(const char *path) {
    struct stat about;
    return stat(path, &about) == 0 && S_ISDIR(about.st_mode);
}

bool path_join(const char *folder, const char *name, char *out, size_t room) {
    size_t n = strlen(folder);
    bool slash = n > 0 && folder[n - 1] != '/';
    int wrote = snprintf(out, room, "%s%s%s", folder, slash ? "/" : "", name);
    if (wrote >= 0 && (size_t)wrote < room) return true;
    if (room > 0) out[0] = 0;
    return false;
}
