/* SPDX-License-Identifier: Apache-2.0 */
/* The report: one web page about a model, its figures on labelled data where there are any, and examples with what was looked at. */
#ifndef ATTN_EXPLAIN_REPORT_H
#define ATTN_EXPLAIN_REPORT_H

#include "evaluate.h"
#include "image.h"
#include "look.h"
#include "text.h"

/* One example, explained. Everything but the look is borrowed. */
typedef struct explain_case {
    const char *name; /* what to call it */
    int32_t truth;    /* its class; -1: unknown */
    image picture;    /* of an image model: the pixels that the model saw */
    const char *text; /* of a text model, with the bytes that each token stands for */
    size_t length;
    uint32_t *start, *end; /* [look.tokens], owned */
    explain_look look;
} explain_case;

void explain_case_free(explain_case *c);

typedef struct explain_report {
    const nn_model *model;
    const char *folder;         /* the model's */
    const char *data;           /* where the examples come from */
    int32_t method;             /* EXPLAIN_GRADIENT, ... */
    const nn_figures *figures;  /* on the data; NULL: its labels are unknown */
    const float *probabilities; /* [n, classes] behind the figures, */
    const int32_t *labels;      /* [n] */
    const explain_case *cases;
    size_t n_cases;
} explain_report;

int explain_report_html(const explain_report *r, text *out, io_error *error);

/* The picture, what was looked at on average, and each head of the last layer, side by side: what `-o map.png` saves. */
int explain_case_sheet(const explain_case *c, const nn_config *config, image *out, io_error *error);

#endif
