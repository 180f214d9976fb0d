/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a fuzz target over every file of its corpus, with any compiler: what a fuzzer found once is tested for ever.
 *
 *     replay [FOLDER|FILE ...]      without words: the corpus that REPLAY_CORPUS named when this was compiled
 *
 * Prints a line of TAP per file. A target that fails aborts, and the last line printed is the file before. */
#define _POSIX_C_SOURCE 200809L
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replayed;

static int replay_file(const char *path, long size) {
    FILE *file = fopen(path, "rb");
    uint8_t *data = malloc((size_t)size + 1);
    size_t got = file && data ? fread(data, 1, (size_t)size, file) : 0;
    if (file) fclose(file);
    if (got != (size_t)size) {
        fprintf(stderr, "cannot read %s\n", path);
        free(data);
        return 1;
    }
    /* A copy of the exact size: a sanitizer sees the first byte read behind it. */
    uint8_t *exact = got ? realloc(data, got) : data;
    if (!exact) exact = data;
    LLVMFuzzerTestOneInput(exact, got);
    free(exact);
    printf("ok %d - %s\n", ++replayed, path);
    fflush(stdout);
    return 0;
}

static int replay(const char *path) {
    struct stat about;
    if (stat(path, &about)) {
        perror(path);
        return 1;
    }
    if (!S_ISDIR(about.st_mode)) return replay_file(path, (long)about.st_size);
    struct dirent **entries = NULL;
    int n = scandir(path, &entries, NULL, alphasort), failed = n < 0;
    if (failed) perror(path);
    for (int i = 0; i < n; i++) {
        char inner[4096];
        if (entries[i]->d_name[0] != '.') {
            snprintf(inner, sizeof inner, "%s/%s", path, entries[i]->d_name);
            failed |= replay(inner);
        }
        free(entries[i]);
    }
    free(entries);
    return failed;
}

int main(int argc, char **argv) {
    int failed = 0;
#ifdef REPLAY_CORPUS
    if (argc < 2) failed = replay(REPLAY_CORPUS);
#endif
    for (int i = 1; i < argc; i++) failed |= replay(argv[i]);
    if (!replayed) fprintf(stderr, "nothing was replayed\n");
    return failed || !replayed;
}
