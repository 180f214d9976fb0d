/* SPDX-License-Identifier: Apache-2.0 */
/* From bytes of pictures to patches of numbers: normalised, and in training moved and mirrored a little. */
#include <string.h>

#include "examples.h"
#include "layers.h"
#include "random.h"

static int64_t picture_length(const nn_examples *e, size_t i) {
    (void)i;
    return nn_config_tokens(((const nn_pictures *)e)->config);
}

/* Where a pixel of the model's picture is taken from. */
typedef struct view {
    int64_t down, right;
    bool mirrored;
} view;

static view choose_view(const nn_pictures *p, const nn_pass *pass, int64_t place) {
    if (!pass->train || (!p->shift && !p->flip)) return (view){ 0 };
    nn_random r = nn_random_at(pass->seed, NN_FOR_AUGMENTATION, pass->step, (uint64_t)(pass->first_example + place));
    uint64_t span = (uint64_t)(2 * p->shift + 1);
    int64_t down = (int64_t)nn_random_below(&r, span) - p->shift, right = (int64_t)nn_random_below(&r, span) - p->shift;
    return (view){ .down = down, .right = right, .mirrored = p->flip && nn_random_below(&r, 2) };
}

static int64_t within(int64_t x, int64_t n) { return x < 0 ? 0 : x >= n ? n - 1 : x; }

/* One patch: channels, then rows, then columns, as a convolution's weight has them. */
static void *write_patch(const nn_pictures *p, const uint8_t *pixels, view v, int64_t top, int64_t left, void *out, bool f64) {
    const image_set *s = p->set;
    float *narrow = out;
    double *wide = out;
    for (int32_t c = 0; c < s->channels; c++)
        for (int64_t y = 0; y < p->config->patch; y++) {
            const uint8_t *row = pixels + within(top + y + v.down, s->height) * s->width * s->channels;
            for (int64_t x = 0; x < p->config->patch; x++) {
                int64_t column = within(left + x + v.right, s->width);
                if (v.mirrored) column = s->width - 1 - column;
                double value = p->scale[c][row[column * s->channels + c]];
                if (f64)
                    *wide++ = value;
                else
                    *narrow++ = (float)value;
            }
        }
    return f64 ? (void *)wide : (void *)narrow;
}

static void picture_fetch(const nn_examples *e, const uint32_t *which, nn_pass *pass) {
    const nn_pictures *p = (const nn_pictures *)e;
    const nn_config *c = p->config;
    bool f64 = pass->graph->parameters->dtype == ATTN_F64;
    size_t picture = (size_t)c->image_height * (size_t)c->image_width * (size_t)c->channels;
    size_t blank = (size_t)(c->patch * c->patch * c->channels) * nn_element(pass->graph->parameters->dtype);
    pass->tokens = nn_config_tokens(c);
    pass->lengths = NULL;
    void *out = nn_patches(pass);
    for (int64_t i = 0; i < pass->examples; i++) {
        const uint8_t *pixels = p->set->pixels + which[i] * picture;
        view v = choose_view(p, pass, i);
        memset(out, 0, blank); /* the place of the learned first token */
        out = (char *)out + blank;
        for (int64_t top = 0; top < c->image_height; top += c->patch)
            for (int64_t left = 0; left < c->image_width; left += c->patch) out = write_patch(p, pixels, v, top, left, out, f64);
    }
}

void nn_pictures_open(nn_pictures *p, const image_set *set, const nn_config *config) {
    *p = (nn_pictures){ .base = { .n = set->n, .labels = set->labels, .length = picture_length, .fetch = picture_fetch },
                        .set = set,
                        .config = config };
    for (int32_t c = 0; c < config->channels; c++)
        for (int32_t byte = 0; byte < 256; byte++) p->scale[c][byte] = (byte / 255.0 - config->mean[c]) / config->deviation[c];
}
