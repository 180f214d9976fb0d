/* SPDX-License-Identifier: Apache-2.0 */
/* Figures of a classifier. See evaluate.h. */
#include "evaluate.h"

#include <math.h>
#include <stdlib.h>

#include "array.h"

enum { BINS = 15 };

int32_t nn_argmax(const float *x, size_t n) {
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return (int32_t)best;
}

double nn_accuracy(const float *probabilities, const int32_t *labels, size_t n, size_t classes) {
    size_t right = 0;
    for (size_t i = 0; i < n; i++) right += nn_argmax(probabilities + i * classes, classes) == labels[i];
    return n ? (double)right / (double)n : 0;
}

/* The interval of proportions p for which the observed one is no surprise at 5 %. */
static void wilson(double p, double n, double *low, double *high) {
    const double z = 1.959963984540054, square = z * z;
    double middle = p + square / (2 * n), half = z * sqrt(p * (1 - p) / n + square / (4 * n * n)), whole = 1 + square / n;
    *low = fmax(0, (middle - half) / whole);
    *high = fmin(1, (middle + half) / whole);
}

/* Bins by confidence: how far apart are confidence and share of right answers, weighted by how many fall there. */
static double calibration_error(const float *probabilities, const int32_t *labels, size_t n, size_t classes) {
    double right[BINS] = { 0 }, confidence[BINS] = { 0 }, error = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t best = nn_argmax(probabilities + i * classes, classes);
        double p = (double)probabilities[i * classes + (size_t)best];
        int bin = p > 0 ? (int)ceil(p * BINS) - 1 : 0; /* (0, 1/15], (1/15, 2/15], ... */
        if (!(bin >= 0)) bin = 0;
        if (bin >= BINS) bin = BINS - 1;
        right[bin] += best == labels[i];
        confidence[bin] += p;
    }
    for (int b = 0; b < BINS; b++) error += fabs(right[b] - confidence[b]) / (double)n;
    return error;
}

static void class_figures(nn_figures *f) {
    double sum = 0;
    size_t counted = 0, classes = f->classes;
    for (size_t c = 0; c < classes; c++) {
        int64_t predicted = 0, right = f->confusion[c * classes + c];
        for (size_t other = 0; other < classes; other++) predicted += f->confusion[other * classes + c];
        nn_class_figures *k = &f->per_class[c];
        k->precision = predicted ? (double)right / (double)predicted : NAN;
        k->recall = k->support ? (double)right / (double)k->support : NAN;
        k->f1 = predicted + k->support ? 2 * (double)right / (double)(predicted + k->support) : NAN;
        if (predicted + k->support == 0) continue;
        sum += k->f1;
        counted++;
    }
    f->macro_f1 = sum / (double)counted;
}

int nn_evaluate(nn_figures *f, const float *probabilities, const double *losses, const int32_t *labels, size_t n, size_t classes,
                io_error *error) {
    size_t cells;
    *f = (nn_figures){ .n = n, .classes = classes };
    if (!__builtin_mul_overflow(classes, classes, &cells)) f->confusion = array_new(cells, sizeof *f->confusion);
    f->per_class = array_new(classes, sizeof *f->per_class);
    if (!f->confusion || !f->per_class) {
        nn_figures_free(f);
        return io_no_memory(error, "the confusion matrix", classes * classes * sizeof(int64_t));
    }
    for (size_t i = 0; i < n; i++) {
        size_t best = (size_t)nn_argmax(probabilities + i * classes, classes), truth = (size_t)labels[i];
        f->confusion[truth * classes + best]++;
        f->per_class[truth].support++;
        f->loss += losses[i] / (double)n;
    }
    f->accuracy = nn_accuracy(probabilities, labels, n, classes);
    wilson(f->accuracy, (double)n, &f->low, &f->high);
    f->ece = calibration_error(probabilities, labels, n, classes);
    class_figures(f);
    return IO_OK;
}

void nn_figures_free(nn_figures *f) {
    free(f->per_class);
    free(f->confusion);
    *f = (nn_figures){ 0 };
}
