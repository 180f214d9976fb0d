/* SPDX-License-Identifier: Apache-2.0 */
/* Reading DATA for a model. See source.h. */
#include "source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "random.h"

/* ---- classes by name ----------------------------------------------------------------------------------------------------- */

/* The model's class for each of the data's labels. Labels of IDX files are numbers and mean the class of that number. */
static int map_labels(const nn_source *s, const nn_config *model, int32_t *map, io_error *error) {
    for (size_t i = 0; i < s->n_labels; i++) {
        map[i] = -1;
        for (int32_t c = 0; c < model->n_labels && map[i] < 0; c++)
            if (strcmp(model->labels[c], s->label_names[i]) == 0) map[i] = c;
        if (map[i] < 0 && s->where.kind == DATA_IDX && i < (size_t)model->n_labels) map[i] = (int32_t)i;
        if (map[i] < 0)
            return io_fail(error, IO_BAD_DATA, "%s: its label '%s' is none of the model's %d classes ('%s', ...)", s->where.path,
                           s->label_names[i], model->n_labels, model->labels[0]);
    }
    return IO_OK;
}

static int settle_labels(nn_source *s, const int32_t *raw, const nn_config *model, io_error *error) {
    s->labels = array_new(s->n, sizeof *s->labels);
    int32_t *map = array_new(s->n_labels, sizeof *map);
    int failed = s->labels && map ? IO_OK : io_no_memory(error, "the labels", s->n * sizeof *s->labels);
    for (size_t i = 0; i < s->n_labels && !failed; i++) map[i] = (int32_t)i;
    if (!failed && model) failed = map_labels(s, model, map, error);
    for (size_t i = 0; i < s->n && !failed; i++) s->labels[i] = map[raw[i]];
    free(map);
    return failed;
}

/* ---- the two modalities ---------------------------------------------------------------------------------------------------- */

static int read_texts(nn_source *s, const nn_source_options *o, io_error *error) {
    table_options columns = { .text = o->text, .label = o->label };
    int failed = table_read(s->where.path, &columns, &s->table, error);
    if (failed) return failed;
    s->n = s->table.n_rows;
    s->label_names = (char **)s->table.labels;
    s->n_labels = s->table.n_labels;
    table_summary(&s->table, s->summary, sizeof s->summary);
    s->texts = array_new(s->n, sizeof *s->texts);
    s->lengths = array_new(s->n, sizeof *s->lengths);
    int32_t *raw = array_new(s->n, sizeof *raw);
    if (!s->texts || !s->lengths || !raw) failed = io_no_memory(error, "the texts", s->n * sizeof *s->texts);
    for (size_t i = 0; i < s->n && !failed; i++) {
        s->texts[i] = s->table.rows[i].text;
        s->lengths[i] = s->table.rows[i].length;
        raw[i] = s->table.rows[i].label;
    }
    if (!failed) failed = settle_labels(s, raw, o->model, error);
    free(raw);
    return failed;
}

static int read_pictures(nn_source *s, const nn_source_options *o, io_error *error) {
    image_set_options size = { .width = o->width, .height = o->height };
    if (o->model)
        size = (image_set_options){ .width = (int32_t)o->model->image_width,
                                    .height = (int32_t)o->model->image_height,
                                    .channels = o->model->channels };
    int failed = image_set_read(s->where.path, &size, &s->pictures, error);
    if (failed) return failed;
    const image_set *set = &s->pictures;
    s->n = set->n;
    s->label_names = set->label_names;
    s->n_labels = set->n_labels;
    int length = snprintf(s->summary, sizeof s->summary, "%zu pictures of %dx%d, %s, %zu classes", set->n, set->width,
                          set->height, set->channels == 1 ? "gray" : "colour", set->n_labels);
    if (set->n_unreadable)
        snprintf(s->summary + length, sizeof s->summary - (size_t)length, "; %zu left out, the first: %.200s", set->n_unreadable,
                 set->first_unreadable);
    return settle_labels(s, set->labels, o->model, error);
}

int nn_source_read(nn_source *out, const char *path, const nn_source_options *options, io_error *error) {
    *out = (nn_source){ 0 };
    int failed = data_find(path, options->half, &out->where, error);
    if (failed) return failed;
    out->modality = out->where.kind == DATA_TABLE ? NN_TEXT : NN_IMAGE;
    if (options->model && options->model->modality != out->modality)
        failed =
            io_fail(error, IO_BAD_DATA, "%s: it holds %s, but the model is for %s", path,
                    out->modality == NN_TEXT ? "texts" : "pictures", options->model->modality == NN_TEXT ? "texts" : "pictures");
    if (!failed) failed = out->modality == NN_TEXT ? read_texts(out, options, error) : read_pictures(out, options, error);
    if (!failed && (out->n == 0 || out->n > UINT32_MAX / 2))
        failed =
            io_fail(error, IO_BAD_DATA, "%s: %s", path, out->n ? "more examples than this version counts" : "no examples in it");
    if (failed) nn_source_free(out);
    return failed;
}

int nn_source_examples(nn_source *s, const nn_model *m, const nn_examples **out, io_error *error) {
    if (s->modality == NN_IMAGE) {
        nn_pictures_open(&s->as_pictures, &s->pictures, &m->config);
        s->as_pictures.base.labels = s->labels;
        *out = &s->as_pictures.base;
        return IO_OK;
    }
    *out = &s->as_texts.base;
    nn_texts_close(&s->as_texts);
    return nn_texts_open(&s->as_texts, m->words, &m->config, s->texts, s->lengths, s->labels, s->n, error);
}

void nn_source_free(nn_source *s) {
    nn_texts_close(&s->as_texts);
    table_free(&s->table);
    image_set_free(&s->pictures);
    free(s->labels);
    free(s->texts);
    free(s->lengths);
    *s = (nn_source){ 0 };
}

/* ---- subsets ------------------------------------------------------------------------------------------------------------------ */

int nn_split(const int32_t *labels, size_t n, size_t n_labels, double share, uint64_t seed, uint32_t **first, size_t *n_first,
             uint32_t **second, size_t *n_second, io_error *error) {
    uint32_t *order = array_new(n, sizeof *order);
    size_t *wanted = array_new(n_labels, sizeof *wanted);
    *first = array_new(n, sizeof **first);
    *second = array_new(n, sizeof **second);
    *n_first = *n_second = 0;
    int failed = order && wanted && *first && *second ? IO_OK : io_no_memory(error, "the split", 3 * n * sizeof *order);
    if (!failed) {
        bool *apart = (bool *)*first; /* marks, until the lists are written: n bytes of the room for n numbers */
        nn_random r = nn_random_at(seed, NN_FOR_SPLIT, 0, 0);
        nn_random_order(&r, order, (uint32_t)n);
        for (size_t i = 0; i < n; i++) wanted[labels[i]]++;
        for (size_t c = 0; c < n_labels; c++) {
            size_t all = wanted[c], part = (size_t)(share * (double)all + 0.5);
            wanted[c] = part >= all && all > 0 ? all - 1 : part;
        }
        for (size_t i = 0; i < n; i++)
            if (wanted[labels[order[i]]] > 0) apart[order[i]] = true, wanted[labels[order[i]]]--;
        for (size_t i = 0; i < n; i++)
            if (apart[i]) (*second)[(*n_second)++] = (uint32_t)i;
        size_t next = 0;
        for (size_t i = 0; i < n; i++) {
            if (next < *n_second && (*second)[next] == i)
                next++;
            else
                order[(*n_first)++] = (uint32_t)i;
        }
        memcpy(*first, order, *n_first * sizeof *order);
    }
    free(order);
    free(wanted);
    if (!failed) return IO_OK;
    free(*first);
    free(*second);
    *first = *second = NULL;
    return failed;
}

static int64_t subset_length(const nn_examples *e, size_t i) {
    const nn_subset *s = (const nn_subset *)e;
    return s->of->length(s->of, s->which[i]);
}

static void subset_fetch(const nn_examples *e, const uint32_t *which, nn_pass *pass) {
    const nn_subset *s = (const nn_subset *)e;
    uint32_t chosen[NN_MOST_SHARD];
    for (int64_t i = 0; i < pass->examples; i++) chosen[i] = s->which[which[i]];
    s->of->fetch(s->of, chosen, pass);
}

void nn_subset_open(nn_subset *s, const nn_examples *of, const uint32_t *which, size_t n, int32_t *labels) {
    for (size_t i = 0; i < n; i++) labels[i] = of->labels[which[i]];
    *s = (nn_subset){ .base = { .n = n, .labels = labels, .length = subset_length, .fetch = subset_fetch },
                      .of = of,
                      .which = which };
}
