/* SPDX-License-Identifier: Apache-2.0 */
/* How many cores this process may use. */
#ifndef ATTN_CORES_H
#define ATTN_CORES_H

/* At least 1: the cores of the affinity mask, lowered to the cgroup's CPU quota (rounded up). */
int attn_usable_cores(void);

/* The cores that a CPU quota of `quota` microseconds per `period` amounts to, rounded up; 0 when it limits nothing.
 * `text` is the content of a cgroup v2 cpu.max file ("max 100000", "150000 100000"). */
int attn_cores_of_quota(const char *text);

#endif
