/* SPDX-License-Identifier: Apache-2.0 */
/* config.json and preprocessor_config.json: a model's numbers in Hugging Face's words. Unknown keys are passed over; a key that would make
 * another model of it than the one we compute is refused. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attn/ops.h>

#include "array.h"
#include "config.h"
#include "file.h"
#include "json.h"
#include "layers.h"
#include "path.h"

enum { MOST_BYTES = 64 << 20, MOST_PARTS = 1 << 23, MOST_DEPTH = 32, ROOM = 4096 };

/* Hugging Face's names of activations, ours beside them. */
static const struct {
    const char *name;
    int32_t activation;
} activations[] = {
    { "gelu", ATTN_GELU }, { "gelu_new", ATTN_GELU_TANH }, { "gelu_pytorch_tanh", ATTN_GELU_TANH },
    { "relu", ATTN_RELU }, { "silu", ATTN_SILU },          { "swish", ATTN_SILU },
};
enum { N_ACTIVATIONS = sizeof activations / sizeof activations[0] };

/* ---- writing -------------------------------------------------------------------------------------------------------- */

static const char *model_type(const nn_config *c) {
    if (c->attention != NN_DOT || c->attention_pool) return "attn";
    return c->modality == NN_TEXT ? "bert" : "vit";
}

static const char *architecture(const nn_config *c) {
    if (strcmp(model_type(c), "attn") == 0)
        return c->modality == NN_TEXT ? "AttnForTextClassification" : "AttnForImageClassification";
    return c->modality == NN_TEXT ? "BertForSequenceClassification" : "ViTForImageClassification";
}

static json_t *size_value(const nn_config *c) {
    if (c->image_height == c->image_width) return json_integer(c->image_width);
    return json_pack("[I,I]", (json_int_t)c->image_height, (json_int_t)c->image_width);
}

/* What only pictures, only texts and only our own type say. Failures to set show in the caller's count of keys. */
static int add_particulars(const nn_config *c, json_t *root) {
    int bad = 0;
    if (c->modality == NN_IMAGE) {
        bad |= json_object_set_new(root, "image_size", size_value(c));
        bad |= json_object_set_new(root, "patch_size", json_integer(c->patch));
        bad |= json_object_set_new(root, "num_channels", json_integer(c->channels));
        bad |= json_object_set_new(root, "qkv_bias", json_boolean(c->attention == NN_DOT));
    } else {
        bad |= json_object_set_new(root, "vocab_size", json_integer(c->vocabulary));
        bad |= json_object_set_new(root, "max_position_embeddings", json_integer(c->positions));
        bad |= json_object_set_new(root, "type_vocab_size", json_integer(2));
        bad |= json_object_set_new(root, "pad_token_id", json_integer(c->pad));
        bad |= json_object_set_new(root, "position_embedding_type", json_string("absolute"));
        bad |= json_object_set_new(root, "classifier_dropout", json_real(c->head_dropout));
    }
    if (strcmp(model_type(c), "attn") == 0) {
        bad |= json_object_set_new(root, "task", json_string(nn_config_task(c)));
        bad |= json_object_set_new(root, "attention", json_string(nn_attention_names[c->attention]));
        bad |= json_object_set_new(root, "attention_pool", json_boolean(c->attention_pool));
    }
    return bad;
}

static int add_labels(const nn_config *c, json_t *root) {
    json_t *names = json_object(), *numbers = json_object();
    int bad = !names || !numbers;
    for (int32_t i = 0; i < c->n_labels && !bad; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", i);
        bad |= json_object_set_new(names, key, json_string(c->labels[i]));
        bad |= json_object_set_new(numbers, c->labels[i], json_integer(i));
    }
    bad |= json_object_set_new(root, "id2label", names);
    bad |= json_object_set_new(root, "label2id", numbers);
    return bad;
}

static json_t *config_value(const nn_config *c) {
    const char *act = NULL;
    for (size_t i = 0; i < N_ACTIVATIONS && !act; i++)
        if (activations[i].activation == c->activation) act = activations[i].name;
    json_t *root =
        json_pack("{s:[s], s:s, s:I, s:I, s:I, s:I, s:s, s:f, s:f, s:f, s:f, s:s}", "architectures", architecture(c),
                  "model_type", model_type(c), "hidden_size", (json_int_t)c->width, "num_hidden_layers", (json_int_t)c->layers,
                  "num_attention_heads", (json_int_t)c->heads, "intermediate_size", (json_int_t)c->hidden, "hidden_act",
                  act ? act : "gelu", "hidden_dropout_prob", c->dropout, "attention_probs_dropout_prob", 0.0, "initializer_range",
                  0.02, "layer_norm_eps", c->epsilon, "dtype", "float32");
    if (root && (add_particulars(c, root) | add_labels(c, root))) {
        json_decref(root);
        root = NULL;
    }
    return root;
}

static json_t *preprocessor_value(const nn_config *c) {
    json_t *mean = json_array(), *deviation = json_array();
    for (int32_t i = 0; i < c->channels; i++) {
        json_array_append_new(mean, json_real(c->mean[i]));
        json_array_append_new(deviation, json_real(c->deviation[i]));
    }
    return json_pack("{s:s, s:b, s:{s:I, s:I}, s:i, s:b, s:f, s:b, s:o, s:o}", "image_processor_type", "ViTImageProcessor",
                     "do_resize", 1, "size", "height", (json_int_t)c->image_height, "width", (json_int_t)c->image_width,
                     "resample", 2, "do_rescale", 1, "rescale_factor", 1 / 255.0, "do_normalize", 1, "image_mean", mean,
                     "image_std", deviation);
}

/* Takes the value over. */
static int write_json(json_t *value, const char *folder, const char *name, io_error *error) {
    char path[ROOM];
    char *text = value ? json_dumps(value, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(15)) : NULL;
    json_decref(value);
    if (!text)
        return io_fail(error, IO_NO_ROOM, "%s: its text cannot be made: out of memory, or a label that is not UTF-8", name);
    int failed =
        path_join(folder, name, path, sizeof path) ? IO_OK : io_fail(error, IO_NO_ROOM, "%s: the path is too long", folder);
    size_t length = strlen(text);
    text[length] = '\n'; /* where the NUL stood: the text is written by its length */
    if (!failed) failed = io_write(path, text, length + 1, error);
    free(text);
    return failed;
}

int nn_config_save(const nn_config *c, const char *folder, io_error *error) {
    int failed = write_json(config_value(c), folder, "config.json", error);
    if (!failed && c->modality == NN_IMAGE) failed = write_json(preprocessor_value(c), folder, "preprocessor_config.json", error);
    return failed;
}

/* ---- reading ---------------------------------------------------------------------------------------------------------- */

typedef struct reader {
    const json_t *root;
    const char *name; /* of the file */
    io_error *error;
    int failed;
} reader;

static void refuse(reader *r, const char *key, const char *what) {
    if (!r->failed) r->failed = io_fail(r->error, IO_BAD_MODEL, "%s: \"%s\" %s", r->name, key, what);
}

/* fallback < 0: the key is required. */
static int64_t integer(reader *r, const char *key, int64_t fallback) {
    const json_t *v = json_object_get(r->root, key);
    if ((!v || json_is_null(v)) && fallback >= 0) return fallback;
    if (!v)
        refuse(r, key, "is missing");
    else if (!json_is_integer(v))
        refuse(r, key, "is no integer");
    return json_integer_value(v);
}

static double real(reader *r, const char *key, double fallback) {
    const json_t *v = json_object_get(r->root, key);
    if (!v || json_is_null(v)) return fallback;
    if (!json_is_number(v)) refuse(r, key, "is no number");
    return json_number_value(v);
}

static const char *string(reader *r, const char *key, const char *fallback) {
    const json_t *v = json_object_get(r->root, key);
    if (v && !json_is_string(v)) refuse(r, key, "is no string");
    if (!v && !fallback) refuse(r, key, "is missing");
    return json_is_string(v) ? json_string_value(v) : fallback ? fallback : "";
}

static bool boolean(reader *r, const char *key, bool fallback) {
    const json_t *v = json_object_get(r->root, key);
    if (v && !json_is_boolean(v)) refuse(r, key, "is neither true nor false");
    return json_is_boolean(v) ? json_is_true(v) : fallback;
}

static int32_t narrow(reader *r, const char *key, int64_t fallback) {
    int64_t value = integer(r, key, fallback);
    if (value < 0 || value > INT32_MAX) refuse(r, key, "is out of range");
    return (int32_t)value;
}

static void read_image_size(reader *r, nn_config *c) {
    const json_t *v = json_object_get(r->root, "image_size");
    if (json_is_array(v) && json_array_size(v) == 2) {
        c->image_height = json_integer_value(json_array_get(v, 0));
        c->image_width = json_integer_value(json_array_get(v, 1));
    } else {
        c->image_height = c->image_width = integer(r, "image_size", 224);
    }
}

static void read_labels(reader *r, nn_config *c) {
    const json_t *names = json_object_get(r->root, "id2label");
    size_t n = names ? json_object_size(names) : 2;
    if ((names && !json_is_object(names)) || n < 1 || n > NN_MOST_CLASSES) {
        refuse(r, "id2label", "is no object that gives every class a name");
        return;
    }
    char **labels = array_new(n, sizeof *labels);
    if (!labels) {
        r->failed = io_no_memory(r->error, "the labels", n * sizeof *labels);
        return;
    }
    char fallback[2][8] = { "LABEL_0", "LABEL_1" };
    for (size_t i = 0; i < n; i++) {
        char key[24];
        snprintf(key, sizeof key, "%zu", i);
        const json_t *label = names ? json_object_get(names, key) : NULL;
        labels[i] = json_is_string(label) ? (char *)json_string_value(label) : NULL;
        if (!names) labels[i] = fallback[i];
        if (!labels[i]) refuse(r, "id2label", "does not name the classes 0, 1, 2 and so on");
    }
    if (!r->failed) r->failed = nn_config_set_labels(c, labels, (int32_t)n, r->error);
    free(labels);
}

static void read_activation(reader *r, nn_config *c) {
    const char *act = string(r, "hidden_act", "gelu");
    c->activation = -1;
    for (size_t i = 0; i < N_ACTIVATIONS; i++)
        if (strcmp(activations[i].name, act) == 0) c->activation = activations[i].activation;
    if (c->activation < 0) refuse(r, "hidden_act", "is none of gelu, gelu_new, gelu_pytorch_tanh, relu, silu");
}

/* Our own type says which task and which attention; Hugging Face's types mean one each. */
static void read_kind(reader *r, nn_config *c) {
    const char *type = string(r, "model_type", NULL);
    c->attention = NN_DOT;
    if (strcmp(type, "vit") == 0) {
        c->modality = NN_IMAGE;
    } else if (strcmp(type, "bert") == 0) {
        c->modality = NN_TEXT;
    } else if (strcmp(type, "attn") == 0) {
        const char *task = string(r, "task", NULL), *attention = string(r, "attention", "dot");
        c->modality = strcmp(task, "text:class") == 0 ? NN_TEXT : NN_IMAGE;
        if (c->modality == NN_IMAGE && strcmp(task, "image:class") != 0)
            refuse(r, "task", "is neither image:class nor text:class");
        for (c->attention = 0; c->attention < NN_N_ATTENTIONS; c->attention++)
            if (strcmp(nn_attention_names[c->attention], attention) == 0) break;
        if (c->attention == NN_N_ATTENTIONS) refuse(r, "attention", "is none of dot, multiplicative, additive, gated, mlp");
        c->attention_pool = boolean(r, "attention_pool", false);
    } else {
        refuse(r, "model_type", "is none of vit, bert, attn: models of other types are not built in this version");
    }
}

static void read_config(reader *r, nn_config *c) {
    bool text;
    read_kind(r, c);
    text = c->modality == NN_TEXT;
    c->norm_first = !text;
    c->layers = narrow(r, "num_hidden_layers", -1);
    c->heads = narrow(r, "num_attention_heads", -1);
    c->width = integer(r, "hidden_size", -1);
    c->hidden = integer(r, "intermediate_size", -1);
    c->epsilon = real(r, "layer_norm_eps", 1e-12);
    c->dropout = real(r, "hidden_dropout_prob", 0);
    c->head_dropout = real(r, "classifier_dropout", text ? c->dropout : 0);
    read_activation(r, c);
    if (text) {
        c->vocabulary = integer(r, "vocab_size", -1);
        c->positions = integer(r, "max_position_embeddings", -1);
        c->pad = narrow(r, "pad_token_id", 0);
        if (integer(r, "type_vocab_size", 2) != 2) refuse(r, "type_vocab_size", "is not 2");
        if (strcmp(string(r, "position_embedding_type", "absolute"), "absolute") != 0)
            refuse(r, "position_embedding_type", "is not \"absolute\": other positions are not built in this version");
    } else {
        read_image_size(r, c);
        c->patch = integer(r, "patch_size", 16);
        c->channels = narrow(r, "num_channels", 3);
        if (!boolean(r, "qkv_bias", true) && c->attention == NN_DOT)
            refuse(r, "qkv_bias", "is false: dot attention without biases is not built in this version");
    }
    if (!(c->dropout >= 0 && c->dropout < 1)) refuse(r, "hidden_dropout_prob", "is not within 0 .. 1");
    if (!(c->head_dropout >= 0 && c->head_dropout < 1)) refuse(r, "classifier_dropout", "is not within 0 .. 1");
    if (!r->failed) read_labels(r, c);
}

static void read_channels(reader *r, const char *key, const nn_config *c, double *out) {
    const json_t *list = json_object_get(r->root, key);
    if (!list) return;
    if (!json_is_array(list) || json_array_size(list) != (size_t)c->channels) {
        refuse(r, key, "is no list with one number per channel");
        return;
    }
    for (int32_t i = 0; i < c->channels; i++) out[i] = json_number_value(json_array_get(list, (size_t)i));
}

/* Without the file: what the models of this family mostly use. */
static int load_preprocessor(nn_config *c, const char *folder, io_error *error) {
    char path[ROOM];
    for (int32_t i = 0; i < NN_MOST_CHANNELS; i++) c->mean[i] = c->deviation[i] = 0.5;
    if (!path_join(folder, "preprocessor_config.json", path, sizeof path) || !path_is_file(path)) return IO_OK;
    json_t *root = io_json_read(path, MOST_BYTES, MOST_PARTS, MOST_DEPTH, IO_BAD_MODEL, error);
    if (!root) return error->code;
    reader r = { .root = root, .name = path, .error = error };
    if (c->channels >= 1 && c->channels <= NN_MOST_CHANNELS) {
        read_channels(&r, "image_mean", c, c->mean);
        read_channels(&r, "image_std", c, c->deviation);
    }
    json_decref(root);
    return r.failed;
}

int nn_config_load(nn_config *c, const char *folder, io_error *error) {
    char path[ROOM];
    io_error own = { 0 };
    if (!error) error = &own;
    *c = (nn_config){ 0 };
    if (!path_join(folder, "config.json", path, sizeof path))
        return io_fail(error, IO_BAD_MODEL, "%s: the path is too long", folder);
    if (!path_is_file(path))
        return io_fail(error, IO_BAD_MODEL, "%s is no model: there is no config.json in it; 'attn train' makes models", folder);
    json_t *root = io_json_read(path, MOST_BYTES, MOST_PARTS, MOST_DEPTH, IO_BAD_MODEL, error);
    if (!root) return error->code;
    reader r = { .root = root, .name = path, .error = error };
    if (!json_is_object(root)) r.failed = io_fail(error, IO_BAD_MODEL, "%s: it holds no JSON object", path);
    if (!r.failed) read_config(&r, c);
    json_decref(root);
    if (!r.failed && c->modality == NN_IMAGE) r.failed = load_preprocessor(c, folder, error);
    if (!r.failed) r.failed = nn_config_check(c, path, error);
    if (r.failed) nn_config_free(c);
    return r.failed;
}
