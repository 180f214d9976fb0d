/* SPDX-License-Identifier: Apache-2.0 */
/* The report's sections about examples. */
#ifndef ATTN_EXPLAIN_REPORT_CASES_H
#define ATTN_EXPLAIN_REPORT_CASES_H

#include "report.h"

int explain_report_cases(const explain_report *r, text *out, io_error *error);

#endif
