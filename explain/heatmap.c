/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures of weights. */
#include "heatmap.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "colour.h"

int heat_enlarge(const image *picture, int32_t width, int32_t height, image *out, io_error *error) {
    image rgb = { 0 };
    int code = image_with_channels(picture, 3, &rgb, error);
    if (code) return code;
    bool whole = width >= rgb.width && height >= rgb.height && width % rgb.width == 0 && height % rgb.height == 0;
    if (!whole) {
        code = image_resize(&rgb, width, height, out, error);
    } else if (!(code = image_new(width, height, 3, out, error))) {
        int32_t wide = width / rgb.width, high = height / rgb.height;
        for (int32_t y = 0; y < height; y++)
            for (int32_t x = 0; x < width; x++)
                memcpy(out->pixels + 3 * ((int64_t)y * width + x), rgb.pixels + 3 * ((int64_t)(y / high) * rgb.width + x / wide),
                       3);
    }
    image_free(&rgb);
    return code;
}

/* Bilinear between patch centres; beyond the outermost centres the outermost patch goes on. */
static double weight_at(heat_grid g, double y, double x) {
    y = fmin(fmax(y * g.rows - 0.5, 0), g.rows - 1);
    x = fmin(fmax(x * g.cols - 0.5, 0), g.cols - 1);
    int32_t top = (int32_t)y, left = (int32_t)x, bottom = top + (top + 1 < g.rows), right = left + (left + 1 < g.cols);
    double down = y - top, across = x - left;
    const double *upper = g.weights + (int64_t)top * g.cols, *lower = g.weights + (int64_t)bottom * g.cols;
    return (1 - down) * ((1 - across) * upper[left] + across * upper[right]) +
           down * ((1 - across) * lower[left] + across * lower[right]);
}

/* Light on light, the picture at half its strength: more heat is always brighter, on black as on white. */
static uint8_t screen(uint8_t picture, uint8_t heat) {
    int dark = (255 - picture / 2) * (255 - heat);
    return (uint8_t)(255 - (dark + 127) / 255);
}

int heat_overlay(const image *picture, heat_grid grid, int32_t width, int32_t height, image *out, io_error *error) {
    image gray = { 0 };
    int code = image_with_channels(picture, 1, &gray, error);
    if (!code) code = heat_enlarge(&gray, width, height, out, error);
    image_free(&gray);
    if (code) return code;
    double largest = 0;
    for (int64_t i = 0; i < (int64_t)grid.rows * grid.cols; i++) largest = fmax(largest, grid.weights[i]);
    for (int32_t y = 0; y < height; y++)
        for (int32_t x = 0; x < width; x++) {
            double share = largest > 0 ? weight_at(grid, (y + 0.5) / height, (x + 0.5) / width) / largest : 0;
            colour c = colour_of(share);
            uint8_t *p = out->pixels + 3 * ((int64_t)y * width + x);
            p[0] = screen(p[0], c.red);
            p[1] = screen(p[1], c.green);
            p[2] = screen(p[2], c.blue);
        }
    return IO_OK;
}

int heat_sheet(const image *panels, int32_t n, int32_t across, int32_t gap, image *out, io_error *error) {
    if (n < 1 || across < 1) return io_fail(error, IO_BAD_USAGE, "a sheet needs at least one panel");
    if (across > n) across = n;
    int64_t rows = (n + across - 1) / across, width = panels->width, height = panels->height;
    int64_t wide = across * (width + gap) + gap, high = rows * (height + gap) + gap;
    if (wide > IMAGE_MAX_SIDE || high > IMAGE_MAX_SIDE)
        return io_fail(error, IO_BAD_USAGE, "a sheet of %d panels of %d x %d pixels is too large", (int)n, (int)width,
                       (int)height);
    int code = image_new((int32_t)wide, (int32_t)high, 3, out, error);
    if (code) return code;
    memset(out->pixels, 255, (size_t)(3 * wide * high));
    for (int32_t i = 0; i < n; i++)
        for (int64_t y = 0; y < height; y++) {
            int64_t top = gap + i / across * (height + gap) + y, left = gap + i % across * (width + gap);
            memcpy(out->pixels + 3 * (top * wide + left), panels[i].pixels + 3 * y * width, (size_t)(3 * width));
        }
    return IO_OK;
}
