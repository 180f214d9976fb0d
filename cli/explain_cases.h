/* SPDX-License-Identifier: Apache-2.0 */
/* What `attn explain` explains: the inputs themselves, or a few examples of labelled data, chosen by how they went. */
#ifndef ATTN_CLI_EXPLAIN_CASES_H
#define ATTN_CLI_EXPLAIN_CASES_H

#include "inputs.h"
#include "predict.h"
#include "report.h"
#include "source.h"

typedef struct explain_cases {
    bool labelled; /* then `data`, `answers` and `figures` are there; else `in` */
    nn_source data;
    prediction answers;
    nn_figures figures;
    inputs in;

    explain_case *cases;
    char (*names)[96]; /* of examples of labelled data */
    size_t n;
} explain_cases;

typedef struct explain_choice {
    const char *input, *text, *label; /* path or text; columns of tables */
    int32_t method;
    size_t most; /* examples */
} explain_choice;

/* Looks at each example with `model`; evaluates labelled data first. *c is zeroed by the caller and freed by explain_cases_free. */
int explain_cases_find(explain_cases *c, const explain_choice *choice, const nn_model *model, const attn_exec *exec,
                       io_error *error);
void explain_cases_free(explain_cases *c);

#endif
