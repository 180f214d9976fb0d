/* SPDX-License-Identifier: Apache-2.0 */
/* How good a classifier is, from its probabilities: the figures of `attn eval` and of model cards. */
#ifndef ATTN_NN_EVALUATE_H
#define ATTN_NN_EVALUATE_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"

typedef struct nn_class_figures {
    double precision, recall, f1; /* NaN where there is nothing to divide by: never predicted, never there */
    int64_t support;              /* examples of the class */
} nn_class_figures;

typedef struct nn_figures {
    size_t n, classes;
    double accuracy, low, high;  /* with Wilson's 95 % interval (1927) */
    double loss;                 /* mean cross-entropy */
    double macro_f1;             /* mean over the classes that are there or were predicted */
    double ece;                  /* expected calibration error, 15 bins of equal width (Guo et al. 2017) */
    nn_class_figures *per_class; /* [classes], owned */
    int64_t *confusion;          /* [classes (true), classes (predicted)], owned */
} nn_figures;

/* The first of the largest. */
int32_t nn_argmax(const float *x, size_t n);
double nn_accuracy(const float *probabilities, const int32_t *labels, size_t n, size_t classes);

/* losses: of each example. n >= 1. */
int nn_evaluate(nn_figures *f, const float *probabilities, const double *losses, const int32_t *labels, size_t n, size_t classes,
                io_error *error);
void nn_figures_free(nn_figures *f);

#endif
