/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures of weights: a grid of shares laid over the picture they belong to, panels side by side on one sheet. */
#ifndef ATTN_EXPLAIN_HEATMAP_H
#define ATTN_EXPLAIN_HEATMAP_H

#include <stdint.h>

#include "image.h"

/* Weights of rows x cols patches, row-major; only their ratio to the largest counts. */
typedef struct heat_grid {
    const double *weights;
    int32_t rows, cols;
} heat_grid;

/* The grid over the picture, both scaled to width x height: bilinear between patch centres, coloured by colour_of, shining
 * through the picture in gray at half its strength. *out is a new RGB image. */
int heat_overlay(const image *picture, heat_grid grid, int32_t width, int32_t height, image *out, io_error *error);

/* The picture itself at that size, RGB, pixels kept square and sharp when it grows by whole numbers. */
int heat_enlarge(const image *picture, int32_t width, int32_t height, image *out, io_error *error);

/* n RGB panels of one size in rows of `across`, `gap` white pixels around each. */
int heat_sheet(const image *panels, int32_t n, int32_t across, int32_t gap, image *out, io_error *error);

#endif
