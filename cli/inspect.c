/* SPDX-License-Identifier: Apache-2.0 */
/* attn inspect: what is in a file, without running anything. Each kind of file has one line in the table of inspectors below. */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>

#include "arrays.h"
#include "commands.h"
#include "inspect.h"
#include "message.h"
#include "print.h"

/* ---- .npy ------------------------------------------------------------------------------------------- */

typedef struct figures {
    int64_t count, nan, infinite;
    double min, max, mean; /* of the finite elements; NaN when there is none */
} figures;

static figures count_figures(const attn_tensor *t) {
    figures f = { .count = array_count(t), .min = NAN, .max = NAN, .mean = NAN };
    int64_t finite = 0;
    for (int64_t i = 0; i < f.count; i++) {
        double x = array_element(t, i); /* the order in memory does for these */
        if (isnan(x))
            f.nan++;
        else if (isinf(x))
            f.infinite++;
        else {
            f.min = finite && f.min < x ? f.min : x;
            f.max = finite && f.max > x ? f.max : x;
            /* A running mean overflows nowhere, whatever the elements are. */
            f.mean = finite ? f.mean + (x / (double)(finite + 1) - f.mean / (double)(finite + 1)) : x;
            finite++;
        }
    }
    return f;
}

void inspect_shape(text *out, const attn_tensor *t) {
    text_add(out, "[");
    for (int32_t axis = 0; axis < t->rank; axis++) text_add(out, "%s%lld", axis ? ", " : "", (long long)t->shape[axis]);
    text_add(out, "]");
}

static void npy_as_json(text *out, const char *path, const npy_array *array, const figures *f) {
    text_add(out, "{\"file\": ");
    text_add_json(out, path);
    text_add(out, ", \"format\": \"npy\", \"dtype\": \"%s\", \"shape\": ", npy_dtype_name(array->tensor.dtype));
    inspect_shape(out, &array->tensor);
    text_add(out, ", \"order\": \"%s\", \"elements\": %lld, \"min\": ", array->fortran ? "Fortran" : "C", (long long)f->count);
    text_add_json_number(out, f->min);
    text_add(out, ", \"max\": ");
    text_add_json_number(out, f->max);
    text_add(out, ", \"mean\": ");
    text_add_json_number(out, f->mean);
    text_add(out, ", \"nan\": %lld, \"inf\": %lld}\n", (long long)f->nan, (long long)f->infinite);
}

static int inspect_npy(const inspect_settings *s, text *out) {
    npy_array array;
    io_error error = { 0 };
    if (npy_read(s->path, &array, &error)) return fail_io(&error);
    figures f = count_figures(&array.tensor);
    if (s->json) {
        npy_as_json(out, s->path, &array, &f);
    } else {
        text_add(out, "file      %s\nformat    npy\ndtype     %s\nshape     ", s->path, npy_dtype_name(array.tensor.dtype));
        inspect_shape(out, &array.tensor);
        text_add(out, "\norder     %s\nelements  %lld\n", array.fortran ? "Fortran" : "C", (long long)f.count);
        text_add(out, "min       %.9g\nmax       %.9g\nmean      %.9g\n", f.min, f.max, f.mean);
        text_add(out, "nan       %lld\ninf       %lld\n", (long long)f.nan, (long long)f.infinite);
    }
    npy_free(&array);
    return IO_OK;
}

/* ---- the kinds -------------------------------------------------------------------------------------- */

static bool ends_in(const char *path, const char *ending) {
    size_t n = strlen(path), m = strlen(ending);
    return n > m && strcmp(path + n - m, ending) == 0;
}

static bool is_npy(const char *path, bool folder) { return !folder && (ends_in(path, ".npy") || strcmp(path, "-") == 0); }

#if ATTN_WITH_MODELS
static bool is_safetensors(const char *path, bool folder) { return !folder && ends_in(path, ".safetensors"); }

static bool is_folder(const char *path, bool folder) {
    (void)path;
    return folder;
}
#endif

static const struct inspector {
    bool (*applies)(const char *path, bool folder);
    int (*inspect)(const inspect_settings *settings, text *out);
} inspectors[] = {
    { is_npy, inspect_npy },
#if ATTN_WITH_MODELS
    { is_safetensors, inspect_safetensors },
    { is_folder, inspect_model },
#endif
};

static int run(const void *settings, const attn_exec *exec) {
    const inspect_settings *s = settings;
    (void)exec;
    struct stat about = { 0 };
    if (strcmp(s->path, "-") != 0 && stat(s->path, &about))
        return fail(IO_BAD_DATA, "cannot open %s: %s", s->path, strerror(errno));
    for (size_t i = 0; i < sizeof inspectors / sizeof inspectors[0]; i++) {
        if (!inspectors[i].applies(s->path, S_ISDIR(about.st_mode))) continue;
        text out = { 0 };
        int failed = inspectors[i].inspect(s, &out);
        if (!failed) return text_print(&out);
        text_free(&out);
        return failed;
    }
#if ATTN_WITH_MODELS
    return fail(IO_BAD_DATA, "%s is nothing that can be inspected: a .npy file, a .safetensors file or a model folder is",
                s->path);
#else
    return fail(IO_BAD_DATA,
                "%s cannot be inspected by this build: a .npy file can (models need jansson and others when building)", s->path);
#endif
}

static const option options[] = {
    { .name = "FILE",
      .kind = OPTION_ARGUMENT,
      .field = offsetof(inspect_settings, path),
      .required = true,
      .help = "a .npy array (- is an array on stdin), a .safetensors file or a model folder" },
    { .name = "json",
      .kind = OPTION_FLAG,
      .field = offsetof(inspect_settings, json),
      .help = "one JSON object instead of lines" },
    { .kind = OPTION_END },
};

const command command_inspect = {
    .name = "inspect",
    .summary = "what is in a file: dtype, shape, range, NaN",
    .about =
        "Shows what is in a file without running anything: of an array its dtype, shape, order in memory, smallest and largest "
        "element and mean (of the finite ones), and how many elements are NaN or infinite; of a .safetensors file, whose header "
        "is "
        "held against the file first, the name, dtype, shape and bytes of every tensor; of a model folder its configuration too.",
    .examples =
        "  attn inspect scores.npy\n  attn softmax x.npy | attn inspect - --json\n  attn inspect model/model.safetensors\n",
    .options = options,
    .settings_size = sizeof(inspect_settings),
    .run = run,
};
