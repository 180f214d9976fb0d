/* SPDX-License-Identifier: Apache-2.0 */
/* Counting what a JSON text would become before jansson builds it. See json.h. */
#include "json.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "file.h"

/* jansson tells most failures of memory like errors in the text. It asks for its memory here, so that they can be told apart. */
static _Thread_local bool memory_failed;

static void *allocate(size_t size) {
    void *block = malloc(size);
    if (!block) memory_failed = true;
    return block;
}

static void watch_memory(void) { json_set_alloc_funcs(allocate, free); }

/* What the text holds, counted without building anything. Brackets and commas outside strings are what values are made of: every
 * value but the outermost follows one of '[', '{' and ','. */
typedef struct json_cost {
    size_t parts, depth, deepest;
} json_cost;

static json_cost count_parts(const char *text, size_t size) {
    json_cost cost = { .parts = 1 };
    bool in_string = false;
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '[' || c == '{') {
            cost.parts++;
            if (++cost.depth > cost.deepest) cost.deepest = cost.depth;
        } else if (c == ']' || c == '}') {
            if (cost.depth > 0) cost.depth--;
        } else if (c == ',') {
            cost.parts++;
        }
    }
    return cost;
}

json_t *io_json_parse(const char *text, size_t size, const char *name, size_t line, size_t max_parts, size_t max_depth, int code,
                      io_error *error) {
    json_cost cost = count_parts(text, size);
    if (cost.parts > max_parts) {
        io_fail(error, code, "%s:%zu: JSON of %zu values; at most %zu are read here", name, line, cost.parts, max_parts);
        return NULL;
    }
    if (cost.deepest > max_depth) {
        io_fail(error, code, "%s:%zu: JSON nested %zu levels deep; at most %zu are read here", name, line, cost.deepest,
                max_depth);
        return NULL;
    }
    static pthread_once_t watched = PTHREAD_ONCE_INIT;
    pthread_once(&watched, watch_memory);
    memory_failed = false;
    json_error_t why;
    json_t *value = json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &why);
    if (value) return value;
    if (memory_failed) {
        io_no_memory(error, name, size);
        return NULL;
    }
    size_t down = why.line > 0 ? (size_t)why.line - 1 : 0;
    io_fail(error, code, "%s:%zu:%d: not valid JSON: %s", name, line + down, why.column > 0 ? why.column : 1, why.text);
    return NULL;
}

json_t *io_json_read(const char *path, size_t max_size, size_t max_parts, size_t max_depth, int code, io_error *error) {
    io_bytes bytes = { 0 };
    int failed = io_read(path, max_size, &bytes, error);
    if (failed) {
        /* For a model's file, what cannot be read is as bad as what cannot be parsed. */
        if (failed == IO_BAD_DATA && error) error->code = code;
        return NULL;
    }
    json_t *value = io_json_parse((const char *)bytes.data, bytes.size, path, 1, max_parts, max_depth, code, error);
    io_bytes_free(&bytes);
    return value;
}
