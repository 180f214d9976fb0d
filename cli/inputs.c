/* SPDX-License-Identifier: Apache-2.0 */
/* Inputs of `attn run` and `attn explain`. See inputs.h. */
#include "inputs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "idx.h"
#include "image.h"
#include "path.h"
#include "data.h"

static const size_t MOST_INPUT = (size_t)4 << 30;

void inputs_free(inputs *in) {
    for (size_t i = 0; in->own_names && in->names && i < in->n; i++) free(in->names[i]);
    if (in->own_names) free(in->names);
    free(in->texts);
    free(in->lengths);
    io_bytes_free(&in->bytes);
    table_free(&in->table);
    image_set_free(&in->pictures);
    nn_texts_close(&in->as_texts);
}

/* ---- texts ------------------------------------------------------------------------------------------------------------------ */

static int add_line(inputs *in, size_t *room, const char *line, size_t length, io_error *error) {
    size_t room_too = *room;
    const char **texts = array_grow(in->texts, room, in->n + 1, sizeof *texts);
    if (texts) in->texts = texts;
    size_t *lengths = texts ? array_grow(in->lengths, &room_too, in->n + 1, sizeof *lengths) : NULL;
    if (!lengths) return io_no_memory(error, "the lines", (in->n + 1) * sizeof *texts);
    in->lengths = lengths;
    in->texts[in->n] = line;
    in->lengths[in->n++] = length;
    return IO_OK;
}

/* Every line is a text, an empty one too: answers and lines correspond. A last line may lack its end. */
static int cut_lines(inputs *in, char *lines, size_t size, io_error *error) {
    size_t room = 0;
    char *end = lines + size;
    int failed = IO_OK;
    for (char *at = lines; at < end && !failed;) {
        char *stop = memchr(at, '\n', (size_t)(end - at));
        if (!stop) stop = end;
        size_t length = (size_t)(stop - at);
        if (length && at[length - 1] == '\r') length--;
        at[length] = 0; /* the file's bytes are followed by a 0, so there is always room */
        failed = add_line(in, &room, at, length, error);
        at = stop + 1;
    }
    return failed;
}

static bool is_table(const char *path) {
    static const char *const ends[] = { ".csv", ".tsv", ".jsonl", ".ndjson" };
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        size_t n = strlen(path), m = strlen(ends[i]);
        if (n > m && strcmp(path + n - m, ends[i]) == 0) return true;
    }
    return false;
}

static int read_table(const char *input, const char *column, inputs *in, io_error *error) {
    table_options o = { .text = column, .no_labels = true };
    size_t room = 0;
    int failed = table_read(input, &o, &in->table, error);
    for (size_t i = 0; i < in->table.n_rows && !failed; i++)
        failed = add_line(in, &room, in->table.rows[i].text, in->table.rows[i].length, error);
    return failed;
}

static int read_texts(const char *input, const char *column, const nn_model *model, inputs *in, const nn_examples **out,
                      io_error *error) {
    int failed;
    if (is_table(input)) {
        failed = read_table(input, column, in, error);
    } else if (strcmp(input, "-") != 0 && strchr(input, ' ') && !path_is_file(input)) {
        size_t room = 0; /* a text itself, in quotes */
        failed = add_line(in, &room, input, strlen(input), error);
    } else {
        failed = io_read(input, MOST_INPUT, &in->bytes, error);
        if (!failed) failed = cut_lines(in, (char *)in->bytes.data, in->bytes.size, error);
    }
    in->names = (char **)in->texts;
    *out = &in->as_texts.base;
    return failed ? failed
                  : nn_texts_open(&in->as_texts, model->words, &model->config, in->texts, in->lengths, NULL, in->n, error);
}

/* ---- pictures ----------------------------------------------------------------------------------------------------------------- */

static bool looks_like_idx(const char *path) {
    unsigned char head[512];
    FILE *file = path_is_file(path) ? fopen(path, "rb") : NULL;
    size_t n = file ? fread(head, 1, sizeof head, file) : 0;
    if (file) fclose(file);
    return idx_looks_like(head, n);
}

/* One picture file, brought to the model's size. */
static int read_picture(const char *path, const nn_config *c, image_set *set, io_error *error) {
    image raw = { 0 }, sized = { 0 }, ready = { 0 };
    int failed = image_read(path, &raw, error);
    if (!failed) failed = image_resize(&raw, (int32_t)c->image_width, (int32_t)c->image_height, &sized, error);
    if (!failed) failed = image_with_channels(&sized, c->channels, &ready, error);
    if (!failed)
        *set = (image_set){
            .n = 1, .width = ready.width, .height = ready.height, .channels = ready.channels, .pixels = ready.pixels
        };
    image_free(&raw);
    image_free(&sized);
    return failed;
}

static int name_pictures(inputs *in, const char *input, io_error *error) {
    in->own_names = true;
    in->names = array_new(in->n, sizeof *in->names);
    size_t size = strlen(input) + 32;
    for (size_t i = 0; in->names && i < in->n; i++) {
        const char *name = in->pictures.names ? in->pictures.names[i] : NULL;
        size_t room = name ? strlen(name) + 1 : size;
        in->names[i] = malloc(room);
        if (!in->names[i]) return io_no_memory(error, "the names", room);
        if (name || in->n == 1)
            snprintf(in->names[i], room, "%s", name ? name : input);
        else
            snprintf(in->names[i], room, "%s#%zu", input, i);
    }
    return in->names ? IO_OK : io_no_memory(error, "the names", in->n * sizeof *in->names);
}

static int read_pictures(const char *input, const nn_model *model, inputs *in, const nn_examples **out, io_error *error) {
    const nn_config *c = &model->config;
    image_set_options o = { .width = (int32_t)c->image_width, .height = (int32_t)c->image_height, .channels = c->channels };
    int failed;
    if (path_is_folder(input) || looks_like_idx(input)) {
        data_source where;
        failed = data_find(input, DATA_TEST, &where, error);
        if (!failed && where.kind == DATA_TABLE)
            failed = io_fail(error, IO_BAD_DATA, "%s: it holds texts, but the model is for pictures", input);
        if (!failed) failed = image_set_read(where.path, &o, &in->pictures, error);
    } else {
        failed = read_picture(input, c, &in->pictures, error);
    }
    if (failed) return failed;
    in->n = in->pictures.n;
    nn_pictures_open(&in->as_pictures, &in->pictures, c);
    in->as_pictures.base.labels = NULL;
    *out = &in->as_pictures.base;
    return name_pictures(in, input, error);
}

int inputs_read(inputs *in, const char *input, const char *column, const nn_model *model, const nn_examples **out,
                io_error *error) {
    if (!input) input = "-";
    return model->config.modality == NN_TEXT ? read_texts(input, column, model, in, out, error)
                                             : read_pictures(input, model, in, out, error);
}
