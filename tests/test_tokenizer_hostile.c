/* SPDX-License-Identifier: Apache-2.0 */
/* needs: models */
/* tokenizer.json from anyone, and memory that runs out: every wrong part is refused by name, and nothing leaks. */
#define _XOPEN_SOURCE 700
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>

#include "io/tokenizer.h"
#include "tests/failing_malloc.h"
#include "tests/scratch.h"

#define VOCAB                   "{\"a\": 0, \"b\": 1, \"ab\": 2, \"[CLS]\": 3}"
#define MODEL                   "{\"type\": \"BPE\", \"vocab\": " VOCAB ", \"merges\": [\"a b\"]}"
#define BYTES                   "{\"type\": \"ByteLevel\", \"add_prefix_space\": false}"
#define FILE_OF(model, rest)    "{\"pre_tokenizer\": " BYTES ", \"model\": " model rest "}"
#define MODEL_OF(vocab, merges) FILE_OF("{\"type\": \"BPE\", \"vocab\": " vocab ", \"merges\": " merges "}", "")
#define ADDED(id, content)      "{\"id\": " id ", \"content\": " content "}"

static void good(const char *json) {
    tokenizer *t;
    io_error error;
    if (tokenizer_parse(&t, json, strlen(json), "t.json", &error)) fail_msg("%s", error.message);
    encoding e = { 0 };
    if (tokenizer_encode(t, "ab?ab [CLS] \xff", 13, 0, &e, &error)) fail_msg("%s", error.message);
    encoding_free(&e);
    tokenizer_free(t);
}

static void bad(const char *json, const char *part) {
    tokenizer *t = NULL;
    io_error error = { 0 };
    int failed = tokenizer_parse(&t, json, strlen(json), "t.json", &error);
    assert_failure(failed, error, IO_BAD_MODEL, part);
    assert_ptr_equal(strstr(error.message, "t.json"), error.message);
    assert_null(t);
}

static void both_spellings_of_merges_load(void **state) {
    (void)state;
    good(FILE_OF(MODEL, ""));
    good(MODEL_OF(VOCAB, "[[\"a\", \"b\"]]"));
    good(MODEL_OF(VOCAB, "[\"#version: 0.2\", \"a b\"]"));
    good(MODEL_OF(VOCAB, "[]"));
}

/* The ids of a text, in words: "0 3 3 1". */
static void assert_ids(const char *json, const char *text, const char *expected) {
    tokenizer *t;
    io_error error;
    if (tokenizer_parse(&t, json, strlen(json), "t.json", &error)) fail_msg("%s", error.message);
    for (int copied = 0; copied < 2; copied++) { /* as it was read, and as it is after saving and loading */
        encoding e = { 0 };
        if (tokenizer_encode(t, text, strlen(text), 0, &e, &error)) fail_msg("%s", error.message);
        char ids[128] = "";
        for (size_t i = 0; i < e.n && i < 20; i++) sprintf(ids + strlen(ids), i ? " %d" : "%d", e.ids[i]);
        assert_string_equal(ids, expected);
        encoding_free(&e);
        if (copied) continue;
        const char *path = in_scratch("copy.json");
        if (tokenizer_save(t, path, &error)) fail_msg("%s", error.message);
        tokenizer_free(t);
        if (tokenizer_load(&t, path, &error)) fail_msg("%s", error.message);
    }
    tokenizer_free(t);
}

static void unknown_bytes_are_dropped_or_one_token_each_or_one_for_all(void **state) {
    (void)state;
#define UNKNOWN(rest)                                                                                                            \
    FILE_OF("{\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2, \"?\": 3}, \"merges\": [\"a b\"]" rest "}", "")
    assert_ids(UNKNOWN(""), "axxbxab", "2 2"); /* what is left are neighbours */
    assert_ids(UNKNOWN(", \"unk_token\": \"?\""), "axxbxab", "0 3 3 1 3 2");
    assert_ids(UNKNOWN(", \"unk_token\": \"?\", \"fuse_unk\": true"), "axxbxab", "0 3 1 3 2");
}

static void of_two_ranks_of_a_pair_the_later_counts(void **state) {
    (void)state;
#define ABC "{\"a\": 0, \"b\": 1, \"c\": 2, \"ab\": 3, \"bc\": 4}"
    assert_ids(MODEL_OF(ABC, "[\"a b\", \"b c\"]"), "abc", "3 2");
    assert_ids(MODEL_OF(ABC, "[\"a b\", \"b c\", \"a b\"]"), "abc", "0 4");
}

static void parts_in_sequences_of_one_are_those_parts(void **state) {
    (void)state;
    assert_ids("{\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [" BYTES "]}, \"model\": " MODEL "}", "ab", "2");
    assert_ids(FILE_OF(MODEL, ", \"post_processor\": {\"type\": \"Sequence\", \"processors\": [" BYTES
                              ", {\"type\": \"BertProcessing\", \"sep\": [\"ab\", 2], \"cls\": [\"[CLS]\", 3]}]}"),
               "a", "3 0 2");
    bad(FILE_OF(MODEL, ", \"post_processor\": {\"type\": \"Sequence\", \"processors\": ["
                       "{\"type\": \"BertProcessing\", \"sep\": [\"ab\", 2], \"cls\": [\"[CLS]\", 3]}, "
                       "{\"type\": \"BertProcessing\", \"sep\": [\"ab\", 2], \"cls\": [\"[CLS]\", 3]}]}"),
        "two templates");
}

static void what_is_not_json_or_no_object_is_refused(void **state) {
    (void)state;
    bad("", "not valid JSON");
    bad("{", "not valid JSON");
    bad("[]", "no object");
    bad("{}", "model has to be an object");
    bad("{\"model\": 1}", "model has to be an object");
    bad("{\"version\": \"2.0\", \"model\": " MODEL "}", "version");
    bad("{\"version\": 1, \"model\": " MODEL "}", "version");
    bad(MODEL_OF("{\"a\": 0, \"a\": 1}", "[]"), "duplicate");
}

static void parts_that_are_not_implemented_are_named(void **state) {
    (void)state;
    bad("{\"model\": {\"type\": \"WordPiece\", \"vocab\": {}}}", "\"WordPiece\"");
    bad("{\"model\": {\"type\": \"Unigram\\nevil\", \"vocab\": {}}}", "\"Unigram?evil\"");
    bad("{\"model\": {\"vocab\": {}}}", "model has no type");
    bad("{\"model\": " MODEL "}", "pre_tokenizer is missing");
    bad("{\"pre_tokenizer\": {\"type\": \"Metaspace\"}, \"model\": " MODEL "}", "pre-tokenizer \"Metaspace\"");
    bad("{\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Digits\"}, " BYTES "]}, \"model\": " MODEL
        "}",
        "\"Digits\"");
    bad("{\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [" BYTES ", " BYTES "]}, \"model\": " MODEL "}",
        "twice");
    bad("{\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": 7}, \"model\": " MODEL "}", "array");
    bad(FILE_OF(MODEL, ", \"normalizer\": {\"type\": \"BertNormalizer\"}"), "normalizer \"BertNormalizer\"");
    bad(FILE_OF(MODEL, ", \"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Replace\"}]}"), "\"Replace\"");
    bad(FILE_OF(MODEL, ", \"normalizer\": {\"type\": \"Sequence\"}"), "array");
    bad(FILE_OF(MODEL, ", \"normalizer\": 3"), "normalizer has no type");
    bad(FILE_OF(MODEL, ", \"decoder\": {\"type\": \"WordPiece\"}"), "decoder \"WordPiece\"");
    bad(FILE_OF(MODEL, ", \"post_processor\": {\"type\": \"Other\"}"), "post-processor \"Other\"");
    bad(FILE_OF("{\"type\": \"BPE\", \"dropout\": 0.1, \"vocab\": {}, \"merges\": []}", ""), "dropout");
    bad(FILE_OF("{\"type\": \"BPE\", \"byte_fallback\": true, \"vocab\": {}, \"merges\": []}", ""), "byte_fallback");
    bad(FILE_OF("{\"type\": \"BPE\", \"end_of_word_suffix\": \"</w>\", \"vocab\": {}, \"merges\": []}", ""),
        "end_of_word_suffix");
    bad(FILE_OF("{\"type\": \"BPE\", \"fuse_unk\": 1, \"vocab\": {}, \"merges\": []}", ""), "fuse_unk");
    good(FILE_OF("{\"type\": \"BPE\", \"dropout\": null, \"end_of_word_suffix\": \"\", \"vocab\": {\"a\": 0}, \"merges\": []}",
                 ""));
}

static void ids_are_whole_numbers_in_range_each_once(void **state) {
    (void)state;
    bad(MODEL_OF("{\"a\": -1}", "[]"), "whole number");
    bad(MODEL_OF("{\"a\": 1.5}", "[]"), "whole number");
    bad(MODEL_OF("{\"a\": \"0\"}", "[]"), "whole number");
    bad(MODEL_OF("{\"a\": 2147483647}", "[]"), "whole number");
    bad(MODEL_OF("{\"a\": 99999999999999999999}", "[]"), "not valid JSON");
    bad(MODEL_OF("{\"a\": 2147483646}", "[]"), "1 tokens only");
    bad(MODEL_OF("{\"a\": 0, \"b\": 0}", "[]"), "same id 0");
    bad(MODEL_OF("{}", "[]"), "empty");
    bad(MODEL_OF("[]", "[]"), "object");
    good(MODEL_OF("{\"a\": 0, \"b\": 1000}", "[]"));
}

static void holes_have_no_token(void **state) {
    (void)state;
    tokenizer *t;
    io_error error;
    static const char json[] = MODEL_OF("{\"a\": 0, \"b\": 7}", "[]");
    assert_int_equal(tokenizer_parse(&t, json, sizeof json - 1, "t.json", &error), IO_OK);
    assert_int_equal(tokenizer_size(t), 8);
    size_t length = 1;
    char *text;
    int32_t hole = 3;
    assert_null(tokenizer_token(t, hole, &length));
    assert_int_equal(length, 0);
    assert_failure(tokenizer_decode(t, &hole, 1, false, &text, &length, &error), error, IO_BAD_DATA, "no token has the id 3");
    const char *path = in_scratch("holes.json");
    assert_int_equal(tokenizer_save(t, path, &error), IO_OK);
    tokenizer_free(t);
    assert_int_equal(tokenizer_load(&t, path, &error), IO_OK);
    assert_int_equal(tokenizer_size(t), 8);
    tokenizer_free(t);
}

static void merges_name_tokens_that_are_there(void **state) {
    (void)state;
    bad(MODEL_OF(VOCAB, "[\"a c\"]"), "needs the token \"c\"");
    bad(MODEL_OF(VOCAB, "[\"c a\"]"), "needs the token \"c\"");
    bad(MODEL_OF(VOCAB, "[\"b a\"]"), "needs the token \"ba\"");
    bad(MODEL_OF(VOCAB, "[\"ab\"]"), "merge 0 is neither");
    bad(MODEL_OF(VOCAB, "[\"a b c\"]"), "merge 0 is neither");
    bad(MODEL_OF(VOCAB, "[[\"a\"]]"), "merge 0 is neither");
    bad(MODEL_OF(VOCAB, "[[\"a\", 1]]"), "merge 0 is neither");
    bad(MODEL_OF(VOCAB, "[7]"), "merge 0 is neither");
    bad(MODEL_OF(VOCAB, "[\"a b\", [\"a\", \"b\"]]"), "mixed");
    bad(MODEL_OF(VOCAB, "{}"), "array");
    bad(FILE_OF("{\"type\": \"BPE\", \"vocab\": " VOCAB "}", ""), "array");
    bad(FILE_OF("{\"type\": \"BPE\", \"unk_token\": \"?\", \"vocab\": " VOCAB ", \"merges\": []}", ""), "unk_token is not");
    bad(FILE_OF("{\"type\": \"BPE\", \"unk_token\": 1, \"vocab\": " VOCAB ", \"merges\": []}", ""), "unk_token has to be");
}

static void added_tokens_agree_with_the_vocabulary(void **state) {
    (void)state;
    good(FILE_OF(MODEL, ", \"added_tokens\": [" ADDED("3", "\"[CLS]\"") ", " ADDED("4", "\"[X]\"") "]"));
    bad(FILE_OF(MODEL, ", \"added_tokens\": [" ADDED("2", "\"[CLS]\"") "]"), "has the id 2");
    bad(FILE_OF(MODEL, ", \"added_tokens\": [" ADDED("9", "\"[X]\"") "]"), "gives it 4");
    bad(FILE_OF(MODEL, ", \"added_tokens\": [" ADDED("-4", "\"[X]\"") "]"), "whole number");
    bad(FILE_OF(MODEL, ", \"added_tokens\": [" ADDED("4", "\"[X]\"") ", " ADDED("5", "\"[X]\"") "]"), "twice");
    bad(FILE_OF(MODEL, ", \"added_tokens\": [" ADDED("3", "\"[CLS]\"") ", " ADDED("3", "\"[CLS]\"") "]"), "twice");
    bad(FILE_OF(MODEL, ", \"added_tokens\": [" ADDED("4", "\"\"") "]"), "no content");
    bad(FILE_OF(MODEL, ", \"added_tokens\": [" ADDED("4", "4") "]"), "no content");
    bad(FILE_OF(MODEL, ", \"added_tokens\": [3]"), "no content");
    bad(FILE_OF(MODEL, ", \"added_tokens\": {}"), "array");
    bad(FILE_OF(MODEL, ", \"added_tokens\": [{\"id\": 4, \"content\": \"x\", \"single_word\": true}]"), "single_word");
    bad(FILE_OF(MODEL, ", \"added_tokens\": [{\"id\": 4, \"content\": \"x\", \"lstrip\": 0}]"), "lstrip");
    bad(FILE_OF(MODEL, ", \"normalizer\": {\"type\": \"Lowercase\"}, \"added_tokens\": [" ADDED("4", "\"X\"") ", " ADDED(
                           "5", "\"x\"") "]"),
        "same text \"x\"");
}

static void templates_name_tokens_that_are_there(void **state) {
    (void)state;
#define TEMPLATE(single, special)                                                                                                \
    FILE_OF(MODEL, ", \"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": " single                                \
                   ", \"pair\": [], \"special_tokens\": " special "}")
#define TEXT "{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}"
#define CLS  "{\"SpecialToken\": {\"id\": \"[CLS]\", \"type_id\": 0}}"
    good(TEMPLATE("[" CLS ", " TEXT "]", "{\"[CLS]\": {\"id\": \"[CLS]\", \"ids\": [3], \"tokens\": [\"[CLS]\"]}}"));
    bad(TEMPLATE("[" CLS ", " TEXT "]", "{}"), "does not define");
    bad(TEMPLATE("[" CLS ", " TEXT "]", "{\"[CLS]\": {\"ids\": [4]}}"), "id that no token has");
    bad(TEMPLATE("[" CLS ", " TEXT "]", "{\"[CLS]\": {\"ids\": [-4]}}"), "whole number");
    bad(TEMPLATE("[" CLS "]", "{\"[CLS]\": {\"ids\": [3]}}"), "text A once");
    bad(TEMPLATE("[" TEXT ", " TEXT "]", "{}"), "text A once");
    bad(TEMPLATE("[{\"Sequence\": {\"id\": \"C\", \"type_id\": 0}}]", "{}"), "neither A nor B");
    bad(TEMPLATE("[{\"Sequence\": {\"id\": \"A\"}}]", "{}"), "type_id");
    bad(TEMPLATE("[3]", "{}"), "neither SpecialToken nor Sequence");
    bad(TEMPLATE("3", "{}"), "array");
    good(FILE_OF(MODEL, ", \"post_processor\": {\"type\": \"BertProcessing\", \"sep\": [\"ab\", 2], \"cls\": [\"[CLS]\", 3]}"));
    bad(FILE_OF(MODEL, ", \"post_processor\": {\"type\": \"BertProcessing\", \"sep\": [\"ab\", 2], \"cls\": [\"[CLS]\", 4]}"),
        "no token has");
    bad(FILE_OF(MODEL, ", \"post_processor\": {\"type\": \"BertProcessing\", \"sep\": 3}"), "whole number");
    bad(FILE_OF(MODEL, ", \"post_processor\": {\"type\": \"Sequence\", \"processors\": 3}"), "array");
}

static void a_template_that_multiplies_itself_is_refused(void **state) {
    (void)state;
    enum { TIMES = 5000 };
    char *json = malloc(200 * TIMES);
    assert_non_null(json);
    char *at = json + sprintf(json, "{\"pre_tokenizer\": " BYTES ", \"model\": " MODEL ", \"post_processor\": {\"type\": "
                                    "\"TemplateProcessing\", \"single\": [" TEXT);
    for (int i = 0; i < TIMES; i++) at += sprintf(at, ", " CLS);
    at += sprintf(at, "], \"pair\": [], \"special_tokens\": {\"[CLS]\": {\"ids\": [3");
    for (int i = 0; i < 4000; i++) at += sprintf(at, ", 3");
    sprintf(at, "]}}}}");
    bad(json, "too long");
    free(json);
}

static void truncation_of_the_file_holds_and_leaves_room_for_the_template(void **state) {
    (void)state;
    bad(FILE_OF(MODEL, ", \"truncation\": {\"max_length\": 0}"), "room");
    bad(FILE_OF(MODEL, ", \"truncation\": {\"max_length\": 4, \"direction\": \"Up\"}"), "Left nor Right");
    bad(FILE_OF(MODEL, ", \"truncation\": 4"), "max_length");
    assert_ids(FILE_OF(MODEL, ", \"truncation\": {\"max_length\": 2, \"direction\": \"Left\"}"), "abbba", "1 0");
    assert_ids(FILE_OF(MODEL, ", \"truncation\": {\"max_length\": 2}"), "abbba", "2 1");
    static const char json[] = FILE_OF(MODEL, ", \"truncation\": {\"max_length\": 2, \"direction\": \"Left\"}");
    tokenizer *t;
    io_error error;
    assert_int_equal(tokenizer_parse(&t, json, sizeof json - 1, "t.json", &error), IO_OK);
    encoding e = { 0 };
    assert_int_equal(tokenizer_encode(t, "aaabb", 5, 0, &e, &error), IO_OK); /* a a ab b */
    assert_int_equal(e.n, 2);
    assert_int_equal(e.ids[0], 2);
    assert_int_equal(e.ids[1], 1);
    assert_int_equal(e.start[0], 2);
    assert_true(e.truncated);
    encoding_free(&e);
    tokenizer_free(t);
}

static void giant_and_deep_files_are_refused_or_read(void **state) {
    (void)state;
    size_t n = 200000;
    char *deep = malloc(n + 1);
    assert_non_null(deep);
    memset(deep, '[', n);
    deep[n] = 0;
    bad(deep, "levels deep");
    memset(deep, 'x', n);
    sprintf(deep, FILE_OF(MODEL, ", \"added_tokens\": [{\"id\": 4, \"content\": \"%0300d\"}]"), 0);
    bad(deep, "longer than 256 bytes");
    free(deep);
    size_t long_token = 1 << 20;
    char *json = malloc(long_token + 200);
    assert_non_null(json);
    int head = sprintf(json, "{\"pre_tokenizer\": " BYTES ", \"model\": {\"type\": \"BPE\", \"merges\": [], \"vocab\": {\"");
    memset(json + head, 'x', long_token);
    strcpy(json + head + long_token, "\": 0}}}");
    good(json);
    free(json);
}

static void a_file_that_is_missing_is_named(void **state) {
    (void)state;
    tokenizer *t;
    io_error error;
    assert_failure(tokenizer_load(&t, "/nonexistent/tokenizer.json", &error), error, IO_BAD_MODEL, "/nonexistent/tokenizer.json");
    assert_null(t);
}

/* ---- memory that runs out ------------------------------------------------------------------------------- */

static const char whole_file[] =
    FILE_OF(MODEL, ", \"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFKC\"}, {\"type\": "
                   "\"Lowercase\"}]}, \"added_tokens\": "
                   "[" ADDED("3", "\"[CLS]\"") ", " ADDED(
                       "4", "\"X\"") "], \"post_processor\": {\"type\": \"BertProcessing\", \"sep\": [\"ab\", 2], "
                                     "\"cls\": [\"[CLS]\", 3]}");

static int use(const tokenizer *t, io_error *error) {
    encoding e = { 0 };
    static const char text[] = "abab[CLS]\xef\xac\x81 e\xcc\xa3\xcc\x81\xcc\xa3 a word that is too long for the cache";
    int failed = tokenizer_encode(t, text, sizeof text - 1, 0, &e, error);
    char *decoded = NULL;
    size_t length;
    if (!failed) failed = tokenizer_decode(t, e.ids, e.n, false, &decoded, &length, error);
    free(decoded);
    encoding_free(&e);
    return failed;
}

static int parse_and_use(io_error *error) {
    tokenizer *t;
    int failed = tokenizer_parse(&t, whole_file, sizeof whole_file - 1, "t.json", error);
    if (!failed) failed = use(t, error);
    tokenizer_free(t);
    return failed;
}

static int train_and_use(io_error *error) {
    static const char *const texts[] = { "abab abab", "e\xcc\xa3\xcc\x81 ababab cdcd", "cdcd cdcd" };
    static const size_t lengths[] = { 9, 17, 9 };
    tokenizer *t;
    int failed =
        tokenizer_train(&t, texts, lengths, 3, &(tokenizer_train_options){ .vocab_size = 270, .add_prefix_space = true }, error);
    if (!failed) failed = use(t, error);
    tokenizer_free(t);
    return failed;
}

static tokenizer *made;

static int save_both(io_error *error) {
    int failed = tokenizer_save(made, in_scratch("a.json"), error);
    return failed ? failed : tokenizer_save_config(made, in_scratch("b.json"), 64, error);
}

/* Lets the first, the second, ... allocation fail until all succeed. Blocks are counted unless libc makes some that our code
 * frees. */
static void runs_out_cleanly(int (*work)(io_error *), bool for_ever, bool counted) {
    for (long n = 0;; n++) {
        assert_in_range(n, 0, 20000);
        long live = memory.live;
        io_error error = { 0 };
        memory.for_ever = for_ever;
        memory.allowed = n;
        int failed = work(&error);
        bool reached = memory.allowed <= 0 && (for_ever ? memory.allowed == 0 : memory.allowed < 0);
        memory.allowed = -1;
        if (counted) assert_int_equal(memory.live, live);
        /* jansson takes a string that it has no memory for for a syntax error */
        bool as_syntax = failed == IO_BAD_MODEL && strstr(error.message, "not valid JSON");
        if (failed && failed != IO_NO_ROOM && !as_syntax) fail_msg("allocation %ld: class %d: %s", n, failed, error.message);
        if (!failed && !reached) break;
        if (!failed && for_ever) break; /* exactly as many as it needs */
    }
}

static void loading_training_and_encoding_survive_memory_that_runs_out(void **state) {
    (void)state;
    for (int for_ever = 0; for_ever < 2; for_ever++) {
        runs_out_cleanly(parse_and_use, for_ever, true);
        runs_out_cleanly(train_and_use, for_ever, true);
    }
}

static void saving_survives_memory_that_runs_out(void **state) {
    (void)state;
    io_error error;
    assert_int_equal(tokenizer_parse(&made, whole_file, sizeof whole_file - 1, "t.json", &error), IO_OK);
    for (int for_ever = 0; for_ever < 2; for_ever++) runs_out_cleanly(save_both, for_ever, false);
    tokenizer_free(made);
}

/* jansson allocates inside its shared library unless it is told to use ours. */
static void *json_memory(size_t size) { return malloc(size); }
static void json_free(void *block) { free(block); }

static int set_up(void **state) {
    json_set_alloc_funcs(json_memory, json_free);
    return scratch_open(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_spellings_of_merges_load),
        cmocka_unit_test(unknown_bytes_are_dropped_or_one_token_each_or_one_for_all),
        cmocka_unit_test(of_two_ranks_of_a_pair_the_later_counts),
        cmocka_unit_test(parts_in_sequences_of_one_are_those_parts),
        cmocka_unit_test(what_is_not_json_or_no_object_is_refused),
        cmocka_unit_test(parts_that_are_not_implemented_are_named),
        cmocka_unit_test(ids_are_whole_numbers_in_range_each_once),
        cmocka_unit_test(holes_have_no_token),
        cmocka_unit_test(merges_name_tokens_that_are_there),
        cmocka_unit_test(added_tokens_agree_with_the_vocabulary),
        cmocka_unit_test(templates_name_tokens_that_are_there),
        cmocka_unit_test(a_template_that_multiplies_itself_is_refused),
        cmocka_unit_test(truncation_of_the_file_holds_and_leaves_room_for_the_template),
        cmocka_unit_test(giant_and_deep_files_are_refused_or_read),
        cmocka_unit_test(a_file_that_is_missing_is_named),
        cmocka_unit_test(loading_training_and_encoding_survive_memory_that_runs_out),
        cmocka_unit_test(saving_survives_memory_that_runs_out),
    };
    return cmocka_run_group_tests(tests, set_up, scratch_close);
}
