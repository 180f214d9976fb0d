/* SPDX-License-Identifier: Apache-2.0 */
/* Colours for weights: one sequential map, dark to bright, that keeps its order in gray and for colour-blind readers. */
#ifndef ATTN_EXPLAIN_COLOUR_H
#define ATTN_EXPLAIN_COLOUR_H

#include <stdint.h>

typedef struct colour {
    uint8_t red, green, blue;
} colour;

/* share in [0, 1] (clamped; NaN is 0): near-black violet, purple, orange, pale yellow. */
colour colour_of(double share);

/* The same weight as a background for dark text on a white page: white for 0, saturated orange for 1. */
colour colour_of_shade(double share);

/* Whether white text reads better than black on this colour (its luminance, ITU-R 709). */
int colour_is_dark(colour c);

#endif
