/* SPDX-License-Identifier: Apache-2.0 */
/* Counting the cores a process may use: a container with a quota of two cores on a machine of 64 wants two threads, not 64. */
#define _GNU_SOURCE
#include "cores.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if defined(__linux__)
#include <sched.h>

static int cores_by_affinity(void) {
    for (size_t bits = 1024; bits <= 1 << 20; bits *= 4) { /* the kernel refuses a set smaller than its own */
        cpu_set_t *set = CPU_ALLOC(bits);
        size_t size = CPU_ALLOC_SIZE(bits);
        if (!set) break;
        int n = sched_getaffinity(0, size, set) == 0 ? CPU_COUNT_S(size, set) : 0;
        CPU_FREE(set);
        if (n > 0) return n;
    }
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (int)online : 1;
}

static bool read_line(const char *path, char *line, size_t size) {
    FILE *f = fopen(path, "re");
    if (!f) return false;
    bool ok = fgets(line, (int)size, f) != NULL;
    fclose(f);
    return ok;
}

/* A version 1 group says quota and period in two files. */
static int quota_of_v1(const char *directory) {
    char path[1200], quota[64], period[64], both[130];
    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", directory);
    if (!read_line(path, quota, sizeof quota)) return 0;
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", directory);
    if (!read_line(path, period, sizeof period)) return 0;
    quota[strcspn(quota, "\n")] = 0;
    snprintf(both, sizeof both, "%s %s", quota, period);
    return attn_cores_of_quota(both);
}

static int quota_of_v2(const char *directory) {
    char path[1200], line[64];
    snprintf(path, sizeof path, "%s/cpu.max", directory);
    return read_line(path, line, sizeof line) ? attn_cores_of_quota(line) : 0;
}

/* The tightest quota from a group up to the root of its hierarchy: every level above limits it too. In a container the path may
 * name what only the host sees; its ancestors end at the mount point, which is the container's own group. */
static int tightest_quota(const char *mount, const char *group, int (*quota_of)(const char *directory)) {
    char directory[1100];
    int tightest = 0;
    size_t root = strlen(mount);
    int length = snprintf(directory, sizeof directory, "%s%s", mount, group);
    if (length < 0 || (size_t)length >= sizeof directory) return 0;
    for (;;) {
        int n = quota_of(directory);
        if (n > 0 && (tightest == 0 || n < tightest)) tightest = n;
        if (strlen(directory) <= root) return tightest;
        char *slash = strrchr(directory, '/');
        if (!slash || (size_t)(slash - directory) < root) return tightest;
        *slash = 0;
    }
}

static bool names_cpu(const char *controllers) {
    for (const char *at = controllers; *at;) {
        size_t n = strcspn(at, ",");
        if (n == 3 && memcmp(at, "cpu", 3) == 0) return true;
        at += n + (at[n] == ',');
    }
    return false;
}

/* /proc/self/cgroup has a line "id:controllers:path" per hierarchy; version 2's is "0::path". */
static int cores_by_quota(void) {
    char line[1100];
    int tightest = 0;
    FILE *f = fopen("/proc/self/cgroup", "re");
    if (!f) return 0;
    while (fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path) continue;
        *controllers++ = 0;
        *path++ = 0;
        int n = 0;
        if (strcmp(line, "0") == 0 && *controllers == 0)
            n = tightest_quota("/sys/fs/cgroup", path, quota_of_v2);
        else if (names_cpu(controllers))
            n = tightest_quota("/sys/fs/cgroup/cpu", path, quota_of_v1);
        if (n > 0 && (tightest == 0 || n < tightest)) tightest = n;
    }
    fclose(f);
    return tightest;
}
#else
static int cores_by_affinity(void) {
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (int)online : 1;
}
static int cores_by_quota(void) { return 0; }
#endif

int attn_cores_of_quota(const char *text) {
    char *end;
    long long quota = strtoll(text, &end, 10);
    if (end == text || quota <= 0) return 0; /* "max", or -1 in version 1 */
    long long period = strtoll(end, NULL, 10);
    if (period <= 0) return 0;
    long long cores = quota / period + (quota % period != 0);
    return cores > 1 << 20 ? 0 : (int)cores;
}

int attn_usable_cores(void) {
    int cores = cores_by_affinity(), quota = cores_by_quota();
    return quota > 0 && quota < cores ? quota : cores;
}
