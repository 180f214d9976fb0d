/* SPDX-License-Identifier: Apache-2.0 */
/* attn info: the instruction set in use, what the processor offers, threads, version, how this program was built. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "file.h"
#include "print.h"

typedef struct info_settings {
    bool json;
} info_settings;

/* What the kernels could use, by the names of /proc/cpuinfo. */
static const char *const interesting[] = {
    "sse4_2",   "avx",      "avx2",     "fma",         "f16c",        "avx_vnni",    "avx512f",
    "avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile",
    "amx_bf16", "amx_int8", "asimd",    "asimdhp",     "bf16",        "sve",
};
enum { N_INTERESTING = sizeof interesting / sizeof interesting[0] };

/* Marks the names that the first flags line of /proc/cpuinfo holds; none where there is no such file. */
static void find_flags(bool found[N_INTERESTING]) {
    io_bytes bytes;
    if (io_read("/proc/cpuinfo", 1 << 24, &bytes, NULL)) return;
    char *line = strstr((char *)bytes.data, "\nflags");
    if (!line) line = strstr((char *)bytes.data, "\nFeatures");
    char *rest = NULL;
    char *end = line ? strchr(line + 1, '\n') : NULL;
    if (end) *end = '\0';
    for (char *word = line ? strtok_r(line, " \t\n", &rest) : NULL; word; word = strtok_r(NULL, " \t\n", &rest))
        for (size_t i = 0; i < N_INTERESTING; i++)
            if (strcmp(word, interesting[i]) == 0) found[i] = true;
    io_bytes_free(&bytes);
}

static const char *compiler(void) {
#if defined(__clang__)
    return "clang " __clang_version__;
#elif defined(__GNUC__)
    return "gcc " __VERSION__;
#else
    return "unknown";
#endif
}

static const char *models(void) {
#if ATTN_WITH_MODELS
    return "true";
#else
    return "false";
#endif
}

static int run(const void *settings, const attn_exec *exec) {
    const info_settings *s = settings;
    bool found[N_INTERESTING] = { false };
    find_flags(found);
    int threads = exec->n_threads > 1 ? exec->n_threads : 1;
    text out = { 0 };
    text_add(&out,
             s->json ? "{\"version\": \"%s\", \"isa\": \"%s\", \"threads\": %d, \"cpu_flags\": ["
                     : "version   %s\nisa       %s\nthreads   %d\ncpu       ",
             attn_version(), attn_isa(), threads);
    const char *between = "";
    for (size_t i = 0; i < N_INTERESTING; i++) {
        if (!found[i]) continue;
        text_add(&out, s->json ? "%s\"%s\"" : "%s%s", between, interesting[i]);
        between = s->json ? ", " : " ";
    }
    if (s->json) {
        text_add(&out, "], \"compiler\": ");
        text_add_json(&out, compiler());
        text_add(&out, ", \"models\": %s}\n", models());
    } else {
        text_add(&out, "\ncompiler  %s\nmodels    %s\n", compiler(), strcmp(models(), "true") == 0 ? "yes" : "no");
    }
    return text_print(&out);
}

static const option options[] = {
    { .name = "json", .kind = OPTION_FLAG, .field = offsetof(info_settings, json), .help = "one JSON object instead of lines" },
    { .kind = OPTION_END },
};

const command command_info = {
    .name = "info",
    .summary = "instruction set in use, processor, threads, version",
    .about = "Shows the instruction set that the kernels use (the environment's ATTN_ISA lowers it), what the processor offers, "
             "how many "
             "threads a verb would compute with, the version and how the program was built.",
    .examples = "  attn info\n  ATTN_ISA=avx2 attn info --json\n",
    .options = options,
    .settings_size = sizeof(info_settings),
    .run = run,
};
