/* SPDX-License-Identifier: Apache-2.0 */
/* The colour maps: a few anchors, straight lines between them. Lightness grows along each map without turning back. */
#include "colour.h"

#include <stddef.h>

static const colour sequential[] = { { 8, 6, 30 },    { 51, 16, 104 },   { 114, 31, 129 }, { 182, 54, 121 },
                                     { 241, 96, 93 }, { 254, 159, 109 }, { 252, 253, 191 } };
static const colour shades[] = { { 255, 255, 255 }, { 255, 237, 214 }, { 254, 204, 145 }, { 253, 160, 72 }, { 230, 110, 20 } };

static uint8_t between(uint8_t low, uint8_t high, double part) { return (uint8_t)(low + part * (high - low) + 0.5); }

static colour along(const colour *anchors, size_t n, double share) {
    if (!(share > 0)) return anchors[0];
    if (share >= 1) return anchors[n - 1];
    double at = share * (double)(n - 1);
    size_t i = (size_t)at;
    const colour *low = anchors + i, *high = low + 1;
    double part = at - (double)i;
    return (colour){ between(low->red, high->red, part), between(low->green, high->green, part),
                     between(low->blue, high->blue, part) };
}

colour colour_of(double share) { return along(sequential, sizeof sequential / sizeof *sequential, share); }

colour colour_of_shade(double share) { return along(shades, sizeof shades / sizeof *shades, share); }

int colour_is_dark(colour c) { return 0.2126 * c.red + 0.7152 * c.green + 0.0722 * c.blue < 128; }
