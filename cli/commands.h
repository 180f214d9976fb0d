/* SPDX-License-Identifier: Apache-2.0 */
/* The verbs of the program. A new one is a file cli/<verb>.c that defines its command, a line here, and a line in main.c's table. */
#ifndef ATTN_CLI_COMMANDS_H
#define ATTN_CLI_COMMANDS_H

#include "options.h"

extern const command command_softmax, command_attend, command_inspect, command_info, command_bench;
extern const command command_train, command_eval, command_run, command_explain; /* only in builds with models */

#endif
