/* SPDX-License-Identifier: Apache-2.0 */
/* attn inspect for models: a .safetensors file, or a folder with its config.json. Only headers are read, however large the model is,
 * and nothing is believed that does not agree with the file. */
#define _POSIX_C_SOURCE 200809L
#include "inspect.h"

#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "message.h"
#include "path.h"
#include "safetensors.h"

enum { LARGEST_CONFIG = 16 << 20, CONFIG_PARTS = 1 << 20, CONFIG_DEPTH = 64 };

/* Text from a file, without what could steer a terminal. */
static void add_visible(text *out, const char *s) {
    for (; *s; s++) text_add_bytes(out, (unsigned char)*s < ' ' || *s == 127 ? "?" : s, 1);
}

/* An empty tensor may have other extents that overflow; the product of any other is part of a size that was checked. */
static int64_t count_elements(const safetensors_entry *e) {
    int64_t n = e->size > 0;
    for (int32_t axis = 0; n > 0 && axis < e->tensor.rank; axis++) n *= e->tensor.shape[axis];
    return n;
}

typedef struct totals {
    int64_t elements;
    size_t bytes;
    int longest_name;
} totals;

static totals add_up(const safetensors *s) {
    totals sum = { 0 };
    for (size_t i = 0; i < s->n; i++) {
        int length = (int)strnlen(s->entries[i].name, 80);
        sum.elements += count_elements(&s->entries[i]);
        sum.bytes += s->entries[i].size;
        if (length > sum.longest_name) sum.longest_name = length;
    }
    return sum;
}

/* ---- the tensors ------------------------------------------------------------------------------------ */

static void tensors_as_text(text *out, const safetensors *s) {
    totals sum = add_up(s);
    text_add(out, "tensors   %zu\nelements  %lld\nbytes     %zu\n", s->n, (long long)sum.elements, sum.bytes);
    for (size_t i = 0; i < s->n_metadata; i++) {
        text_add(out, "%s", i ? "          " : "metadata  ");
        add_visible(out, s->metadata[i].key);
        text_add(out, ": ");
        add_visible(out, s->metadata[i].value);
        text_add(out, "\n");
    }
    for (size_t i = 0; i < s->n; i++) {
        const safetensors_entry *e = &s->entries[i];
        add_visible(out, e->name);
        int padding = sum.longest_name - (int)strnlen(e->name, 80);
        text_add(out, "%*s  %-8s %10zu bytes  ", padding, "", e->dtype, e->size);
        inspect_shape(out, &e->tensor);
        text_add(out, "\n");
    }
}

/* The members of an object: "tensors", "elements", "bytes", "metadata". */
static void tensors_as_json(text *out, const safetensors *s) {
    totals sum = add_up(s);
    text_add(out, "\"elements\": %lld, \"bytes\": %zu, \"metadata\": {", (long long)sum.elements, sum.bytes);
    for (size_t i = 0; i < s->n_metadata; i++) {
        text_add(out, "%s", i ? ", " : "");
        text_add_json(out, s->metadata[i].key);
        text_add(out, ": ");
        text_add_json(out, s->metadata[i].value);
    }
    text_add(out, "}, \"tensors\": [");
    for (size_t i = 0; i < s->n; i++) {
        const safetensors_entry *e = &s->entries[i];
        text_add(out, "%s{\"name\": ", i ? ", " : "");
        text_add_json(out, e->name);
        text_add(out, ", \"dtype\": \"%s\", \"shape\": ", e->dtype);
        inspect_shape(out, &e->tensor);
        text_add(out, ", \"bytes\": %zu}", e->size);
    }
    text_add(out, "]");
}

int inspect_safetensors(const inspect_settings *settings, text *out) {
    safetensors s;
    io_error error = { 0 };
    if (safetensors_read_header(settings->path, &s, &error)) return fail_io(&error);
    if (settings->json) {
        text_add(out, "{\"file\": ");
        text_add_json(out, settings->path);
        text_add(out, ", \"format\": \"safetensors\", ");
        tensors_as_json(out, &s);
        text_add(out, "}\n");
    } else {
        text_add(out, "file      %s\nformat    safetensors\n", settings->path);
        tensors_as_text(out, &s);
    }
    safetensors_free(&s);
    return IO_OK;
}

/* ---- a folder ----------------------------------------------------------------------------------------- */

/* A single value as it is, the labels counted; lists and objects are left to --json. */
static void add_value(text *out, const char *key, const json_t *value) {
    bool labels = !strcmp(key, "id2label");
    char *words = json_is_string(value) || labels ? NULL : json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
    add_visible(out, key);
    text_add(out, ": ");
    if (labels)
        text_add(out, "%zu", json_object_size(value));
    else if (json_is_string(value))
        add_visible(out, json_string_value(value));
    else
        add_visible(out, words ? words : "?");
    text_add(out, "\n");
    free(words);
}

static void config_as_text(text *out, json_t *config) {
    const char *key, *column = "config    ";
    json_t *value;
    json_object_foreach(config, key, value) {
        if (json_is_array(value) && json_array_size(value) == 1) value = json_array_get(value, 0);
        bool single = !json_is_object(value) && !json_is_array(value);
        if (!single && strcmp(key, "id2label")) continue;
        text_add(out, "%s", column);
        add_value(out, key, value);
        column = "          ";
    }
}

static int config_as_json(text *out, const json_t *config) {
    char *words = json_dumps(config, JSON_COMPACT);
    if (!words) return fail(IO_NO_ROOM, "out of memory: config.json");
    text_add(out, "\"config\": ");
    text_add_bytes(out, words, strlen(words));
    text_add(out, ", ");
    free(words);
    return IO_OK;
}

static int describe_model(const inspect_settings *settings, json_t *config, const safetensors *s, text *out) {
    if (!settings->json) {
        text_add(out, "folder    %s\nformat    model\n", settings->path);
        config_as_text(out, config);
        tensors_as_text(out, s);
        return IO_OK;
    }
    text_add(out, "{\"folder\": ");
    text_add_json(out, settings->path);
    text_add(out, ", \"format\": \"model\", ");
    int failed = config_as_json(out, config);
    tensors_as_json(out, s);
    text_add(out, "}\n");
    return failed;
}

int inspect_model(const inspect_settings *settings, text *out) {
    char path[4096];
    io_error error = { 0 };
    if (!path_join(settings->path, "config.json", path, sizeof path) || !path_is_file(path))
        return fail(IO_BAD_MODEL, "%s is not a model folder: it has no config.json", settings->path);
    json_t *config = io_json_read(path, LARGEST_CONFIG, CONFIG_PARTS, CONFIG_DEPTH, IO_BAD_MODEL, &error);
    if (!config) return fail_io(&error);
    safetensors s = { 0 };
    int failed;
    if (!json_is_object(config))
        failed = fail(IO_BAD_MODEL, "%s is not a JSON object", path);
    else if (!path_join(settings->path, "model.safetensors", path, sizeof path) || safetensors_read_header(path, &s, &error))
        failed = fail_io(&error);
    else
        failed = describe_model(settings, config, &s, out);
    safetensors_free(&s);
    json_decref(config);
    return failed;
}
