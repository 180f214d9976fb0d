/* SPDX-License-Identifier: Apache-2.0 */
/* Cores on systems that are not this one: groups with quotas of both versions, and a system that does not say. */
/* wraps: sched_getaffinity fopen */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "src/cores.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

FILE *__real_fopen(const char *path, const char *mode);
FILE *__wrap_fopen(const char *path, const char *mode);
int __wrap_sched_getaffinity(pid_t pid, size_t size, cpu_set_t *set);

/* What the system's files hold, ended by a path that is NULL; every other file is missing. */
typedef struct file {
    const char *path, *text;
} file;
static const file *files;

FILE *__wrap_fopen(const char *path, const char *mode) {
    for (const file *f = files; f && f->path; f++)
        if (strcmp(f->path, path) == 0)
            return *f->text ? fmemopen((void *)f->text, strlen(f->text), mode) : __real_fopen("/dev/null", "r");
    return NULL;
}

/* Cores of the affinity mask; 0: the question fails, a negative number: it does where the set has less than so many bits. */
static int cores;

int __wrap_sched_getaffinity(pid_t pid, size_t size, cpu_set_t *set) {
    int n = cores < 0 ? 64 : cores;
    (void)pid;
    if (cores == 0 || (cores < 0 && size * 8 < (size_t)-cores)) return -1;
    CPU_ZERO_S(size, set);
    for (int i = 0; i < n; i++) CPU_SET_S(i, size, set);
    return 0;
}

static void assert_cores(int expected, const file *given) {
    files = given;
    assert_int_equal(attn_usable_cores(), expected);
    files = NULL;
}
#define FILES(...)                                                                                                               \
    (const file[]) {                                                                                                             \
        __VA_ARGS__, { NULL, NULL }                                                                                              \
    }

static void without_groups_they_are_those_of_the_affinity_mask(void **state) {
    (void)state;
    cores = 8;
    assert_cores(8, NULL);
    assert_cores(8, FILES({ "/proc/self/cgroup", "" }));
    assert_cores(8, FILES({ "/proc/self/cgroup", "0::/\n" }));
    assert_cores(8, FILES({ "/proc/self/cgroup", "no colon\none: colon\n" }));
    cores = -4096; /* a kernel whose own set is larger than ours to begin with */
    assert_cores(64, NULL);
    cores = 0;
    assert_cores((int)sysconf(_SC_NPROCESSORS_ONLN), NULL);
}

static void the_tightest_quota_from_the_group_to_the_root_counts(void **state) {
    (void)state;
    cores = 8;
    assert_cores(2, FILES({ "/proc/self/cgroup", "0::/a/b\n" }, { "/sys/fs/cgroup/a/b/cpu.max", "400000 100000\n" },
                          { "/sys/fs/cgroup/a/cpu.max", "150000 100000\n" }, { "/sys/fs/cgroup/cpu.max", "max 100000\n" }));
    assert_cores(4, FILES({ "/proc/self/cgroup", "0::/a/b" }, { "/sys/fs/cgroup/a/b/cpu.max", "400000 100000\n" },
                          { "/sys/fs/cgroup/a/cpu.max", "" }, { "/sys/fs/cgroup/cpu.max", "600000 100000\n" }));
    assert_cores(8, FILES({ "/proc/self/cgroup", "0::/\n" }, { "/sys/fs/cgroup/cpu.max", "1600000 100000\n" }));
    assert_cores(3, FILES({ "/proc/self/cgroup", "0::no-slash\n" }, { "/sys/fs/cgroupno-slash/cpu.max", "300000 100000\n" }));
    char line[1300] = "0::/", path[1400];
    memset(line + 4, 'x', 1090);
    snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", line + 3);
    assert_cores(8, FILES({ "/proc/self/cgroup", line }, { path, "100000 100000\n" })); /* longer than any path is */
}

static void version_1_says_quota_and_period_apart(void **state) {
    (void)state;
    cores = 8;
    static const char groups[] = "5:cpuset,cpu:/g\n4:memory:/g\n3:cpuacct,cpu:/g\n0::/g\n";
    assert_cores(2, FILES({ "/proc/self/cgroup", groups }, { "/sys/fs/cgroup/cpu/g/cpu.cfs_quota_us", "200000\n" },
                          { "/sys/fs/cgroup/cpu/g/cpu.cfs_period_us", "100000\n" }));
    assert_cores(8, FILES({ "/proc/self/cgroup", groups }, { "/sys/fs/cgroup/cpu/g/cpu.cfs_quota_us", "200000\n" }));
    assert_cores(8, FILES({ "/proc/self/cgroup", groups }, { "/sys/fs/cgroup/cpu/g/cpu.cfs_quota_us", "-1\n" },
                          { "/sys/fs/cgroup/cpu/g/cpu.cfs_period_us", "100000\n" }));
    static const char both[] = "3:cpu:/g\n0::/h\n";
    assert_cores(1, FILES({ "/proc/self/cgroup", both }, { "/sys/fs/cgroup/cpu/g/cpu.cfs_quota_us", "300000\n" },
                          { "/sys/fs/cgroup/cpu/g/cpu.cfs_period_us", "100000\n" },
                          { "/sys/fs/cgroup/h/cpu.max", "100000 100000\n" }));
    assert_cores(3, FILES({ "/proc/self/cgroup", both }, { "/sys/fs/cgroup/cpu/g/cpu.cfs_quota_us", "300000\n" },
                          { "/sys/fs/cgroup/cpu/g/cpu.cfs_period_us", "100000\n" },
                          { "/sys/fs/cgroup/h/cpu.max", "500000 100000\n" }));
}

static void quotas_beyond_all_machines_are_none(void **state) {
    (void)state;
    assert_int_equal(attn_cores_of_quota("9000000000000 1\n"), 0);
    assert_int_equal(attn_cores_of_quota("1048576 1\n"), 1 << 20);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_groups_they_are_those_of_the_affinity_mask),
        cmocka_unit_test(the_tightest_quota_from_the_group_to_the_root_counts),
        cmocka_unit_test(version_1_says_quota_and_period_apart),
        cmocka_unit_test(quotas_beyond_all_machines_are_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
