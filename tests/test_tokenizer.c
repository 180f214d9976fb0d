/* SPDX-License-Identifier: Apache-2.0 */
/* needs: models */
/* The tokenizer: what training promises, encoding with its spans, template and limit, and the ids of Hugging Face's `tokenizers`
 * replayed from a committed file. Hostile files and failing memory are in test_tokenizer_hostile.c. */
#define _XOPEN_SOURCE 700
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "io/json.h"
#include "io/tokenizer.h"
#include "tests/scratch.h"

static const char *const corpus[] = {
    "the cat sat on the mat", "the dog sat on the log",          "It's the cat's mat, isn't it?",
    "注意力 注意力机制 机制", "Größe, größer, am größten: 100%", "the the the THE The",
};
enum { N_CORPUS = sizeof corpus / sizeof *corpus };

static tokenizer *train_on(const char *const *texts, size_t n, tokenizer_train_options options) {
    size_t lengths[64];
    assert_in_range(n, 0, 64);
    for (size_t i = 0; i < n; i++) lengths[i] = strlen(texts[i]);
    tokenizer *t;
    io_error error;
    if (tokenizer_train(&t, texts, lengths, n, &options, &error)) fail_msg("%s", error.message);
    return t;
}

static tokenizer *train(tokenizer_train_options options) { return train_on(corpus, N_CORPUS, options); }

static tokenizer *parse(const char *json, size_t length) {
    tokenizer *t;
    io_error error;
    if (tokenizer_parse(&t, json, length, "fixture", &error)) fail_msg("%s", error.message);
    return t;
}

static void encode(const tokenizer *t, const char *text, size_t length, size_t max_length, encoding *e) {
    io_error error;
    if (tokenizer_encode(t, text, length, max_length, e, &error)) fail_msg("%s", error.message);
}

/* The saved file as a string; free it. */
static char *saved(const tokenizer *t) {
    io_error error;
    const char *path = in_scratch("tokenizer.json");
    if (tokenizer_save(t, path, &error)) fail_msg("%s", error.message);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    char *text = calloc(1, 1 << 20);
    assert_non_null(text);
    assert_in_range(fread(text, 1, 1 << 20, file), 1, (1 << 20) - 1);
    fclose(file);
    return text;
}

static void assert_same_file(const tokenizer *a, const tokenizer *b) {
    char *x = saved(a), *y = saved(b);
    assert_string_equal(x, y);
    free(x);
    free(y);
}

/* ---- training ------------------------------------------------------------------------------------------- */

static void training_puts_special_tokens_first_and_bytes_next(void **state) {
    (void)state;
    tokenizer *t = train((tokenizer_train_options){ .vocab_size = 280 });
    static const char *const names[] = { "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]" };
    for (int i = 0; i < 5; i++) {
        assert_int_equal(tokenizer_id(t, names[i]), i);
        assert_int_equal(tokenizer_special(t, (tokenizer_role)i), i);
    }
    bool seen[256] = { false };
    for (int32_t id = 5; id < 261; id++) {
        size_t length;
        const char *bytes = tokenizer_token(t, id, &length);
        assert_int_equal(length, 1);
        seen[(unsigned char)bytes[0]] = true;
    }
    for (int byte = 0; byte < 256; byte++) assert_true(seen[byte]);
    assert_int_equal(tokenizer_size(t), 280);
    assert_int_equal(tokenizer_id(t, "no such token"), -1);
    tokenizer_free(t);
}

static void the_most_frequent_pair_is_merged_first_and_ties_go_to_smaller_ids(void **state) {
    (void)state;
    /* "ab" five times; then "cd" and "ce" twice each: the smaller right id wins */
    static const char *const texts[] = { "ab", "ab", "ab", "ab", "ab", "ce", "ce", "cd", "cd" };
    tokenizer *t = train_on(texts, 9, (tokenizer_train_options){ .vocab_size = 263 });
    assert_int_equal(tokenizer_id(t, "ab"), 261);
    assert_int_equal(tokenizer_id(t, "cd"), 262);
    assert_int_equal(tokenizer_id(t, "ce"), -1);
    tokenizer_free(t);
}

static void runs_of_one_byte_are_merged_from_the_left(void **state) {
    (void)state;
    static const char *const texts[] = { "aaaaa", "aaaaa" };
    tokenizer *t = train_on(texts, 2, (tokenizer_train_options){ .vocab_size = 1000 });
    encoding e = { 0 };
    /* a a a a a -> aa aa a -> aa aaa (before aa aa: its right id is smaller) -> aaaaa */
    assert_int_equal(tokenizer_size(t), 264);
    encode(t, "aaaaa", 5, 0, &e);
    assert_int_equal(e.n, 3);
    encode(t, "aaaa", 4, 0, &e);
    assert_int_equal(e.n, 4);
    assert_int_equal(e.ids[1], tokenizer_id(t, "aa"));
    assert_int_equal(e.ids[2], tokenizer_id(t, "aa"));
    encoding_free(&e);
    tokenizer_free(t);
}

static void pairs_below_the_minimal_frequency_are_not_merged(void **state) {
    (void)state;
    static const char *const texts[] = { "ab ab", "ab", "xy" };
    tokenizer *t = train_on(texts, 3, (tokenizer_train_options){ .min_frequency = 3 });
    assert_int_equal(tokenizer_size(t), 262); /* "ab" alone; " ab" is there once */
    tokenizer_free(t);
    t = train_on(texts, 3, (tokenizer_train_options){ .min_frequency = 1 });
    assert_int_not_equal(tokenizer_id(t, "xy"), -1);
    tokenizer_free(t);
}

static void training_does_not_depend_on_the_order_of_the_texts(void **state) {
    (void)state;
    const char *turned[N_CORPUS];
    for (size_t i = 0; i < N_CORPUS; i++) turned[i] = corpus[N_CORPUS - 1 - i];
    tokenizer *a = train((tokenizer_train_options){ .vocab_size = 400 });
    tokenizer *b = train_on(turned, N_CORPUS, (tokenizer_train_options){ .vocab_size = 400 });
    assert_same_file(a, b);
    tokenizer_free(a);
    tokenizer_free(b);
}

static void tokens_stay_within_256_bytes(void **state) {
    (void)state;
    char *text = malloc(5001);
    assert_non_null(text);
    uint32_t random = 1;
    for (int i = 0; i < 5000; i++) text[i] = (char)('a' + ((random = random * 1664525u + 1013904223u) >> 24) % 26);
    text[5000] = 0;
    const char *const texts[] = { text, text };
    tokenizer *t = train_on(texts, 2, (tokenizer_train_options){ .vocab_size = 100000 });
    size_t longest = 0, length;
    for (size_t id = 0; id < tokenizer_size(t); id++)
        if (tokenizer_token(t, (int32_t)id, &length) && length > longest) longest = length;
    assert_in_range(longest, 129, 256);
    tokenizer_free(t);
    free(text);
}

static void a_vocabulary_without_room_for_the_bytes_is_refused(void **state) {
    (void)state;
    tokenizer *t;
    io_error error;
    int failed = tokenizer_train(&t, NULL, NULL, 0, &(tokenizer_train_options){ .vocab_size = 260 }, &error);
    assert_failure(failed, error, IO_BAD_USAGE, "at least 261");
    assert_null(t);
}

static void no_texts_give_the_bytes_alone(void **state) {
    (void)state;
    tokenizer *t;
    io_error error;
    assert_int_equal(tokenizer_train(&t, NULL, NULL, 0, NULL, &error), IO_OK);
    assert_int_equal(tokenizer_size(t), 261);
    tokenizer_free(t);
}

/* ---- encoding and decoding ------------------------------------------------------------------------------ */

static void round_trip(const tokenizer *t, const char *text, size_t length, encoding *e) {
    encode(t, text, length, 0, e);
    char *decoded;
    size_t n;
    io_error error;
    assert_int_equal(tokenizer_decode(t, e->ids, e->n, true, &decoded, &n, &error), IO_OK);
    assert_int_equal(n, length);
    assert_memory_equal(decoded, text, length);
    assert_int_equal(decoded[n], 0);
    free(decoded);
}

static void all_bytes_and_any_bytes_come_back(void **state) {
    (void)state;
    tokenizer *t = train((tokenizer_train_options){ .vocab_size = 400, .form = TOKENIZER_AS_IT_IS });
    tokenizer *normalising = train((tokenizer_train_options){ .vocab_size = 400, .form = TOKENIZER_NFC });
    encoding e = { 0 };
    char text[600];
    for (int i = 0; i < 256; i++) text[i] = (char)i;
    round_trip(t, text, 256, &e);
    round_trip(normalising, text, 256, &e);
    uint32_t random = 5;
    for (int round = 0; round < 300; round++) {
        size_t length = (random = random * 1664525u + 1013904223u) >> 23;
        for (size_t i = 0; i < length; i++) text[i] = (char)((random = random * 1664525u + 1013904223u) >> (round % 2 ? 24 : 25));
        round_trip(t, text, length, &e);
    }
    static const char scripts[] = "Größe 注意力 カタカナ 한국어 ελληνικά Жираф العربية हिन्दी ไทย "
                                  "👩‍👩‍👧 "
                                  "é";
    round_trip(t, scripts, sizeof scripts - 1, &e);
    round_trip(normalising, scripts, sizeof scripts - 1, &e);
    round_trip(t, "", 0, &e);
    assert_int_equal(e.n, 2);
    encoding_free(&e);
    tokenizer_free(t);
    tokenizer_free(normalising);
}

static void spans_tile_a_text_that_normalisation_leaves_alone(void **state) {
    (void)state;
    tokenizer *t = train((tokenizer_train_options){ .vocab_size = 400, .lowercase = true });
    encoding e = { 0 };
    static const char text[] = "The CAT's mat  \t 注意力机制 größten 🙂 \xff end ";
    encode(t, text, sizeof text - 1, 0, &e);
    uint32_t at = 0;
    int32_t word = 0;
    for (size_t i = 1; i + 1 < e.n; i++) {
        assert_int_equal(e.start[i], at);
        assert_true(e.end[i] > at);
        at = e.end[i];
        assert_true(e.word[i] == word || e.word[i] == word + (i > 1));
        word = e.word[i];
    }
    assert_int_equal(at, sizeof text - 1);
    encoding_free(&e);
    tokenizer_free(t);
}

static void tokens_of_one_word_have_one_number(void **state) {
    (void)state;
    tokenizer *t = train((tokenizer_train_options){ .vocab_size = 261 }); /* bytes only */
    encoding e = { 0 };
    encode(t, "ab's 12", 7, 0, &e);
    static const int32_t words[] = { -1, 0, 0, 1, 1, 2, 2, 2, -1 };
    assert_int_equal(e.n, 9);
    assert_memory_equal(e.word, words, sizeof words);
    assert_int_equal(e.start[0], 0);
    assert_int_equal(e.end[0], 0);
    encoding_free(&e);
    tokenizer_free(t);
}

/* The words of a text, '|' between them. */
static void assert_words(const tokenizer *t, const char *text, const char *expected) {
    encoding e = { 0 };
    char words[256];
    size_t n = 0;
    encode(t, text, strlen(text), 0, &e);
    for (size_t i = 1; i + 1 < e.n; i++) {
        if (i > 1 && e.word[i] != e.word[i - 1]) words[n++] = '|';
        for (uint32_t at = e.start[i]; at < e.end[i]; at++) words[n++] = text[at];
        assert_in_range(n, 1, 200);
    }
    words[n] = 0;
    assert_string_equal(words, expected);
    encoding_free(&e);
}

static void words_are_cut_by_the_rule_of_gpt2(void **state) {
    (void)state;
    tokenizer *t = train((tokenizer_train_options){ .vocab_size = 261 });
    assert_words(t, "I'm you're we've he'd she'll it's don't", "I|'m| you|'re| we|'ve| he|'d| she|'ll| it|'s| don|'t");
    assert_words(t, "I'M 'sa 's 'r 'l '", "I|'|M| '|sa| '|s| '|r| '|l| '");
    assert_words(t, "ab12 3.5%x", "ab|12| 3|.|5|%|x");
    assert_words(t, "a  b\t c\n\nd \n", "a| | b|\t| c|\n|\n|d| \n");
    assert_words(t, "  ", "  ");
    assert_words(t, "x\u3000y\u3000\u3000z", "x|\u3000|y|\u3000|\u3000|z");
    assert_words(t, "\u6ce8\u610f2\u529b\u3002\u00bd\u2167", "\u6ce8\u610f|2|\u529b|\u3002|\u00bd\u2167");
    tokenizer_free(t);
}

static void characters_that_normalisation_changed_are_spanned_as_a_whole(void **state) {
    (void)state;
    tokenizer *t = train((tokenizer_train_options){ .vocab_size = 261, .form = TOKENIZER_NFKC, .lowercase = true });
    encoding e = { 0 };
    /* "x", e + combining acute -> one character of two bytes, the ligature fi -> two letters, full-width A -> "a" */
    static const char text[] = "xe\xcc\x81\xef\xac\x81\xef\xbc\xa1y";
    encode(t, text, sizeof text - 1, 0, &e);
    static const uint32_t start[] = { 0, 0, 1, 1, 4, 4, 7, 10, 0 }, end[] = { 0, 1, 4, 4, 7, 7, 10, 11, 0 };
    assert_int_equal(e.n, 9);
    assert_memory_equal(e.start, start, sizeof start);
    assert_memory_equal(e.end, end, sizeof end);
    encoding_free(&e);
    tokenizer_free(t);
}

static void special_tokens_in_a_text_are_those_tokens(void **state) {
    (void)state;
    tokenizer *t = train((tokenizer_train_options){ .vocab_size = 300, .lowercase = true });
    encoding e = { 0 };
    encode(t, "a[SEP][MASK]b[sep]", 18, 0, &e);
    assert_int_equal(e.ids[2], 3);
    assert_int_equal(e.start[2], 1);
    assert_int_equal(e.end[2], 6);
    assert_int_equal(e.ids[3], 4);
    for (size_t i = 4; i + 1 < e.n; i++) assert_int_not_equal(e.ids[i], 3);
    encoding_free(&e);
    tokenizer_free(t);
}

static void a_prefix_space_belongs_to_no_byte(void **state) {
    (void)state;
    tokenizer *t = train((tokenizer_train_options){ .vocab_size = 261, .add_prefix_space = true });
    encoding e = { 0 };
    encode(t, "ab", 2, 0, &e);
    static const uint32_t start[] = { 0, 0, 0, 1, 0 }, end[] = { 0, 0, 1, 2, 0 };
    assert_int_equal(e.n, 5);
    assert_int_equal(e.ids[1], tokenizer_id(t, "\u0120"));
    assert_memory_equal(e.start, start, sizeof start);
    assert_memory_equal(e.end, end, sizeof end);
    encode(t, " a", 2, 0, &e);
    assert_int_equal(e.n, 4);
    encode(t, "", 0, 0, &e);
    assert_int_equal(e.n, 2);
    encoding_free(&e);
    tokenizer_free(t);
}

static void the_template_survives_truncation(void **state) {
    (void)state;
    tokenizer *t = train((tokenizer_train_options){ .vocab_size = 261 });
    encoding whole = { 0 }, e = { 0 };
    encode(t, "abcdef", 6, 0, &whole);
    assert_false(whole.truncated);
    for (size_t most = 2; most < 10; most++) {
        encode(t, "abcdef", 6, most, &e);
        assert_int_equal(e.n, most < 8 ? most : 8);
        assert_int_equal(e.truncated, most < 8);
        assert_int_equal(e.ids[0], 2);
        assert_int_equal(e.ids[e.n - 1], 3);
        assert_int_equal(e.word[e.n - 1], -1);
        assert_memory_equal(e.ids, whole.ids, (e.n - 1) * sizeof *e.ids);
    }
    io_error error;
    assert_failure(tokenizer_encode(t, "a", 1, 1, &e, &error), error, IO_BAD_USAGE, "template");
    encoding_free(&e);
    encoding_free(&whole);
    tokenizer_free(t);
}

static void one_encoding_serves_several_tokenizers(void **state) {
    (void)state;
    tokenizer *a = train((tokenizer_train_options){ .vocab_size = 400 }),
              *b = train((tokenizer_train_options){ .vocab_size = 261 });
    encoding e = { 0 };
    encode(a, "the cat", 7, 0, &e);
    assert_int_equal(e.n, 4);
    encode(b, "the cat", 7, 0, &e);
    assert_int_equal(e.n, 9);
    encode(a, "the cat", 7, 0, &e);
    assert_int_equal(e.n, 4);
    encoding_free(&e);
    tokenizer_free(a);
    tokenizer_free(b);
}

static void a_word_of_a_megabyte_takes_no_more_than_moments(void **state) {
    (void)state;
    tokenizer *t = train((tokenizer_train_options){ .vocab_size = 400, .form = TOKENIZER_NFKC });
    size_t n = 1 << 20;
    char *text = malloc(n);
    assert_non_null(text);
    encoding e = { 0 };
    memset(text, 't', n);
    round_trip(t, text, n, &e);
    memset(text, '\'', n);
    round_trip(t, text, n, &e);
    memset(text, ' ', n);
    round_trip(t, text, n, &e);
    for (size_t i = 0; i < n; i++) text[i] = "\xcc\x81\xcc\xa3"[i % 4]; /* marks above and below by turns: to be sorted */
    encode(t, text, n, 0, &e);
    assert_int_equal(e.n, n + 2);
    encoding_free(&e);
    tokenizer_free(t);
    free(text);
}

static void a_text_of_more_than_256_megabytes_is_refused(void **state) {
    (void)state;
    tokenizer *t = train((tokenizer_train_options){ .vocab_size = 261 });
    encoding e = { 0 };
    io_error error;
    const char *text = "never read";
    size_t length = (1u << 28) + 1;
    assert_failure(tokenizer_encode(t, text, length, 0, &e, &error), error, IO_BAD_DATA, "268435457 bytes");
    assert_int_equal(e.n, 0);
    encoding_free(&e);
    tokenizer_free(t);
    assert_failure(tokenizer_train(&t, &text, &length, 1, NULL, &error), error, IO_BAD_DATA, "text 1 has 268435457 bytes");
}

static void decoding_leaves_out_special_tokens_and_refuses_other_ids(void **state) {
    (void)state;
    tokenizer *t = train((tokenizer_train_options){ .vocab_size = 300 });
    int32_t ids[] = { 2, tokenizer_id(t, "a"), 4, 3 };
    char *text;
    size_t length;
    io_error error;
    assert_int_equal(tokenizer_decode(t, ids, 4, false, &text, &length, &error), IO_OK);
    assert_string_equal(text, "[CLS]a[MASK][SEP]");
    free(text);
    assert_int_equal(tokenizer_decode(t, ids, 4, true, &text, &length, &error), IO_OK);
    assert_string_equal(text, "a");
    free(text);
    assert_int_equal(tokenizer_decode(t, NULL, 0, true, &text, &length, &error), IO_OK);
    assert_string_equal(text, "");
    free(text);
    for (int32_t bad = -1; bad < 301; bad += 301) {
        assert_failure(tokenizer_decode(t, &bad, 1, true, &text, &length, &error), error, IO_BAD_DATA, "no token has the id");
        assert_null(text);
    }
    tokenizer_free(t);
}

/* ---- files ---------------------------------------------------------------------------------------------- */

static void what_is_saved_loads_and_saves_the_same(void **state) {
    (void)state;
    tokenizer *t = train((tokenizer_train_options){ .vocab_size = 400, .form = TOKENIZER_NFKC, .lowercase = true });
    char *first = saved(t);
    tokenizer *loaded = parse(first, strlen(first));
    char *second = saved(loaded);
    assert_string_equal(first, second);
    free(first);
    free(second);
    tokenizer_free(loaded);
    tokenizer_free(t);
}

static void the_config_names_the_special_tokens(void **state) {
    (void)state;
    tokenizer *t = train((tokenizer_train_options){ .vocab_size = 261 });
    io_error error;
    const char *path = in_scratch("tokenizer_config.json");
    assert_int_equal(tokenizer_save_config(t, path, 256, &error), IO_OK);
    json_t *config = io_json_read(path, 1 << 16, 1000, 8, IO_BAD_MODEL, &error);
    assert_non_null(config);
    assert_string_equal(json_string_value(json_object_get(config, "pad_token")), "[PAD]");
    assert_string_equal(json_string_value(json_object_get(config, "mask_token")), "[MASK]");
    assert_string_equal(json_string_value(json_object_get(config, "tokenizer_class")), "PreTrainedTokenizerFast");
    assert_int_equal(json_integer_value(json_object_get(config, "model_max_length")), 256);
    json_decref(config);
    tokenizer_free(t);
}

static json_t *fixture(void) {
    io_error error;
    json_t *root = io_json_read(TEST_DATA "/tokenizer.json", 1 << 22, 100000, 32, IO_BAD_DATA, &error);
    if (!root) fail_msg("%s", error.message);
    return root;
}

static void ids_are_those_of_tokenizers(void **state) {
    (void)state;
    json_t *root = fixture(), *entry, *one;
    size_t at, i, checked = 0;
    encoding e = { 0 };
    json_array_foreach(json_object_get(root, "tokenizers"), at, entry) {
        char *text = json_dumps(json_object_get(entry, "file"), JSON_COMPACT);
        tokenizer *t = parse(text, strlen(text));
        free(text);
        json_array_foreach(json_object_get(entry, "cases"), i, one) {
            const json_t *input = json_array_get(one, 0), *ids = json_array_get(one, 1);
            encode(t, json_string_value(input), json_string_length(input), 0, &e);
            if (e.n != json_array_size(ids)) fail_msg("%zu tokens of '%s'", e.n, json_string_value(input));
            for (size_t k = 0; k < e.n; k++) assert_int_equal(e.ids[k], json_integer_value(json_array_get(ids, k)));
            checked++;
        }
        tokenizer_free(t);
    }
    assert_in_range(checked, 300, 10000);
    encoding_free(&e);
    json_decref(root);
}

static void the_vocabulary_is_the_one_that_tokenizers_learns(void **state) {
    (void)state;
    json_t *root = fixture(), *entry, *text;
    const char *texts[64];
    size_t n = 0, at, i, checked = 0;
    json_array_foreach(json_object_get(root, "texts"), i, text) {
        assert_in_range(i, 0, 63);
        texts[n++] = json_string_value(text);
    }
    json_array_foreach(json_object_get(root, "tokenizers"), at, entry) {
        const json_t *options = json_object_get(entry, "train");
        if (!json_is_object(options)) continue;
        tokenizer *t = train_on(texts, n,
                                (tokenizer_train_options){
                                    .vocab_size = (size_t)json_integer_value(json_object_get(options, "vocab_size")),
                                    .form = (tokenizer_form)json_integer_value(json_object_get(options, "form")),
                                    .lowercase = json_is_true(json_object_get(options, "lowercase")),
                                    .add_prefix_space = json_is_true(json_object_get(options, "add_prefix_space")),
                                });
        char *ours = saved(t), *theirs = json_dumps(json_object_get(entry, "file"), JSON_COMPACT);
        json_t *a = json_loads(ours, 0, NULL), *b = json_loads(theirs, 0, NULL);
        static const char *const parts[] = { "model", "added_tokens", "normalizer", "post_processor" };
        for (size_t p = 0; p < 4; p++) {
            if (!json_equal(json_object_get(a, parts[p]), json_object_get(b, parts[p]))) fail_msg("%s differs", parts[p]);
        }
        json_decref(a);
        json_decref(b);
        free(ours);
        free(theirs);
        tokenizer_free(t);
        checked++;
    }
    assert_int_equal(checked, 2);
    json_decref(root);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(training_puts_special_tokens_first_and_bytes_next),
        cmocka_unit_test(the_most_frequent_pair_is_merged_first_and_ties_go_to_smaller_ids),
        cmocka_unit_test(runs_of_one_byte_are_merged_from_the_left),
        cmocka_unit_test(pairs_below_the_minimal_frequency_are_not_merged),
        cmocka_unit_test(training_does_not_depend_on_the_order_of_the_texts),
        cmocka_unit_test(tokens_stay_within_256_bytes),
        cmocka_unit_test(a_vocabulary_without_room_for_the_bytes_is_refused),
        cmocka_unit_test(no_texts_give_the_bytes_alone),
        cmocka_unit_test(all_bytes_and_any_bytes_come_back),
        cmocka_unit_test(spans_tile_a_text_that_normalisation_leaves_alone),
        cmocka_unit_test(tokens_of_one_word_have_one_number),
        cmocka_unit_test(words_are_cut_by_the_rule_of_gpt2),
        cmocka_unit_test(characters_that_normalisation_changed_are_spanned_as_a_whole),
        cmocka_unit_test(special_tokens_in_a_text_are_those_tokens),
        cmocka_unit_test(a_prefix_space_belongs_to_no_byte),
        cmocka_unit_test(the_template_survives_truncation),
        cmocka_unit_test(one_encoding_serves_several_tokenizers),
        cmocka_unit_test(a_word_of_a_megabyte_takes_no_more_than_moments),
        cmocka_unit_test(a_text_of_more_than_256_megabytes_is_refused),
        cmocka_unit_test(decoding_leaves_out_special_tokens_and_refuses_other_ids),
        cmocka_unit_test(what_is_saved_loads_and_saves_the_same),
        cmocka_unit_test(the_config_names_the_special_tokens),
        cmocka_unit_test(ids_are_those_of_tokenizers),
        cmocka_unit_test(the_vocabulary_is_the_one_that_tokenizers_learns),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
