/* SPDX-License-Identifier: Apache-2.0 */
/* needs: models */
/* The readers of labelled texts: what each format means, what is guessed, and how bad files are refused. */
#define _XOPEN_SOURCE 700
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "io/table.h"
#include "tests/scratch.h"

static int parse(const char *name, const char *text, const table_options *options, table *t, io_error *error) {
    return table_parse(text, strlen(text), name, options, t, error);
}

static table good(const char *name, const char *text, const table_options *options) {
    table t;
    io_error error = { 0 };
    if (parse(name, text, options, &t, &error)) fail_msg("%s", error.message);
    return t;
}

/* Fails with this class and says `part`; nothing is left to free. */
static void bad(const char *name, const char *text, const table_options *options, int class, const char *part) {
    table t;
    io_error error = { 0 };
    int failed = parse(name, text, options, &t, &error);
    assert_failure(failed, error, class, part);
    assert_null(t.rows);
    assert_int_equal(t.n_rows, 0);
}

static void is_row(const table *t, size_t i, const char *text, const char *label, int64_t line) {
    assert_in_range(i, 0, t->n_rows - 1);
    assert_string_equal(t->rows[i].text, text);
    assert_int_equal(t->rows[i].length, strlen(text));
    if (label)
        assert_string_equal(t->labels[t->rows[i].label], label);
    else
        assert_int_equal(t->rows[i].label, -1);
    assert_int_equal(t->rows[i].line, line);
}

/* ---- csv and tsv ------------------------------------------------------------------------------------------ */

static void csv_rows_come_with_text_label_and_line(void **state) {
    (void)state;
    table t = good("a.csv", "id,text,label\n1,good film,pos\n2,bad film,neg\n", NULL);
    assert_int_equal(t.format, TABLE_CSV);
    assert_int_equal(t.n_rows, 2);
    is_row(&t, 0, "good film", "pos", 2);
    is_row(&t, 1, "bad film", "neg", 3);
    assert_string_equal(t.text_column, "text");
    assert_string_equal(t.label_column, "label");
    table_free(&t);
}

static void csv_quoted_fields_hold_separators_quotes_and_line_ends(void **state) {
    (void)state;
    table t = good("a.csv", "text,label\r\n\"a, \"\"b\"\"\r\nc\",x\r\n\"\"\"\",y\r\nlast,\"z\"", NULL);
    assert_int_equal(t.n_rows, 3);
    is_row(&t, 0, "a, \"b\"\r\nc", "x", 2);
    is_row(&t, 1, "\"", "y", 4);
    is_row(&t, 2, "last", "z", 5);
    table_free(&t);
}

static void csv_quote_inside_a_plain_field_is_a_character(void **state) {
    (void)state;
    table t = good("a.csv", "text,label\n6\" pipe,x\n", NULL);
    is_row(&t, 0, "6\" pipe", "x", 2);
    table_free(&t);
}

static void byte_order_mark_and_blank_lines_are_passed_over(void **state) {
    (void)state;
    table t = good("a.csv", "\xef\xbb\xbf\r\ntext,label\n\n\r\na,x\n\n", NULL);
    assert_int_equal(t.n_rows, 1);
    is_row(&t, 0, "a", "x", 5);
    table_free(&t);
}

static void csv_with_semicolons_is_recognised_by_its_header(void **state) {
    (void)state;
    table t = good("a.csv", "text;label\na, b;x\n", NULL);
    assert_int_equal(t.separator, ';');
    is_row(&t, 0, "a, b", "x", 2);
    table_free(&t);
}

static void tsv_quotes_that_do_not_close_are_characters(void **state) {
    (void)state;
    table t = good("a.tsv", "text\tlabel\n\"a\tb\"\tx\n\" the film \" is\ty\n\"open\tz\n", NULL);
    assert_int_equal(t.n_rows, 3);
    is_row(&t, 0, "a\tb", "x", 2);
    is_row(&t, 1, "\" the film \" is", "y", 3);
    is_row(&t, 2, "\"open", "z", 4);
    table_free(&t);
}

static void csv_quote_never_closed_is_located(void **state) {
    (void)state;
    bad("a.csv", "text,label\nok,x\nno,\"y\nz\n", NULL, IO_BAD_DATA, "a.csv:3:4: the quote that opens here is never closed");
}

static void csv_text_behind_a_closing_quote_is_located(void **state) {
    (void)state;
    bad("a.csv", "text,label\n\"a\n\"b,x\n", NULL, IO_BAD_DATA, "a.csv:3:2: a closing quote must be followed");
}

static void csv_row_with_too_many_fields_is_located(void **state) {
    (void)state;
    bad("a.csv", "text,label\na,b,c\n", NULL, IO_BAD_DATA, "a.csv:2:5: more fields than the header's 2");
}

static void rows_without_text_or_label_are_dropped_and_counted(void **state) {
    (void)state;
    table t = good("a.csv", "label,text\nx,a\nx\nx,\nx,\"  \t\"\nx,\xe3\x80\x80\n,b\n\" \",c\n", NULL);
    assert_int_equal(t.n_rows, 1);
    assert_int_equal(t.n_empty_text, 4);
    assert_int_equal(t.n_empty_label, 2);
    table_free(&t);
}

/* ---- columns ------------------------------------------------------------------------------------------------ */

static void columns_are_taken_by_name(void **state) {
    (void)state;
    table t = good("a.csv", "text,label,title,kind\na,b,c,d\n", &(table_options){ .text = "title", .label = "kind" });
    is_row(&t, 0, "c", "d", 2);
    assert_false(t.text_guessed);
    assert_false(t.label_guessed);
    table_free(&t);
}

static void columns_with_telling_names_are_guessed_and_said(void **state) {
    (void)state;
    table t = good("a.csv", "id,Review,stars\n1,fine,5\n", NULL);
    is_row(&t, 0, "fine", "5", 2);
    assert_true(t.text_guessed && t.label_guessed);
    char line[200];
    table_summary(&t, line, sizeof line);
    assert_string_equal(line, "1 row, 1 label; text column 'Review' (guessed), label column 'stars' (guessed)");
    table_free(&t);
}

static void the_other_of_two_columns_is_guessed(void **state) {
    (void)state;
    table t = good("a.csv", "phrase,mood\nfine,good\n", &(table_options){ .label = "mood" });
    is_row(&t, 0, "fine", "good", 2);
    assert_true(t.text_guessed);
    assert_false(t.label_guessed);
    table_free(&t);
}

static void two_plausible_columns_are_a_question(void **state) {
    (void)state;
    bad("a.csv", "review,comment,label\na,b,c\n", NULL, IO_BAD_USAGE, "which column holds the texts? Say it with --text");
    bad("a.csv", "text,stars,topic\na,b,c\n", NULL, IO_BAD_USAGE, "which column holds the labels? Say it with --label");
}

static void text_alone_is_not_enough_unless_no_labels_are_wanted(void **state) {
    (void)state;
    bad("a.csv", "text\na\n", NULL, IO_BAD_DATA, "has only the column 'text'");
    table t = good("a.csv", "phrase\na\n", &(table_options){ .no_labels = true });
    is_row(&t, 0, "a", NULL, 2);
    assert_null(t.labels);
    table_free(&t);
}

static void misspelt_column_gets_the_list_and_a_suggestion(void **state) {
    (void)state;
    table_options o = { .text = "reviw" };
    bad("r.csv", "id,review,stars\n1,a,5\n", &o, IO_BAD_USAGE,
        "r.csv has no column 'reviw' (columns: id, review, stars); did you mean --text=review?");
    bad("r.jsonl", "{\"id\":1,\"review\":\"a\",\"stars\":5}\n", &o, IO_BAD_USAGE, "did you mean --text=review?");
}

static void one_column_cannot_be_text_and_label(void **state) {
    (void)state;
    table_options o = { .text = "text", .label = "text" };
    bad("a.csv", "text,label\na,b\n", &o, IO_BAD_USAGE, "same column 'text'");
    bad("a.jsonl", "{\"text\":\"a\",\"label\":1}\n", &o, IO_BAD_USAGE, "same column 'text'");
}

static void two_columns_of_the_wanted_name_are_refused(void **state) {
    (void)state;
    bad("a.csv", "text,text,label\na,b,c\n", &(table_options){ .text = "text" }, IO_BAD_DATA, "two columns 'text'");
}

static void a_thousand_columns_make_a_short_message(void **state) {
    (void)state;
    char text[20000] = "";
    for (int i = 0; i < 1000; i++) sprintf(text + strlen(text), "%scolumn%d", i ? "," : "", i);
    strcat(text, "\n1\n");
    bad("a.csv", text, NULL, IO_BAD_USAGE, "column2, ");
    bad("a.csv", text, NULL, IO_BAD_USAGE, ", ...)");
}

/* ---- jsonl and fastText --------------------------------------------------------------------------------------- */

static void jsonl_keys_are_columns_and_scalars_are_labels(void **state) {
    (void)state;
    table t = good("a.jsonl",
                   "{\"text\": \"caf\\u00e9 \\ud83d\\ude00\", \"label\": 3, \"tokens\": [\"a\", {}]}\r\n\n"
                   "{\"label\": true, \"text\": \"b\\nc\"}\n{\"label\": 0.5, \"text\": \"d\"}\n{\"text\":\"e\",\"label\":\"x\"}",
                   NULL);
    assert_int_equal(t.n_rows, 4);
    is_row(&t, 0, "caf\xc3\xa9 \xf0\x9f\x98\x80", "3", 1);
    is_row(&t, 1, "b\nc", "true", 3);
    is_row(&t, 2, "d", "0.5", 4);
    is_row(&t, 3, "e", "x", 5);
    table_free(&t);
}

static void jsonl_missing_and_null_values_are_counted(void **state) {
    (void)state;
    table t =
        good("a.jsonl", "{\"text\":\"a\",\"label\":1}\n{\"label\":1}\n{\"text\":null,\"label\":1}\n{\"text\":\"a\"}\n", NULL);
    assert_int_equal(t.n_rows, 1);
    assert_int_equal(t.n_empty_text, 2);
    assert_int_equal(t.n_empty_label, 1);
    table_free(&t);
}

static void jsonl_named_key_may_be_missing_in_the_first_object(void **state) {
    (void)state;
    table t = good("a.jsonl", "{\"text\":\"a\"}\n{\"text\":\"b\",\"y\":1}\n", &(table_options){ .label = "y" });
    assert_int_equal(t.n_rows, 1);
    is_row(&t, 0, "b", "1", 2);
    table_free(&t);
}

static void jsonl_syntax_errors_are_located(void **state) {
    (void)state;
    bad("a.jsonl", "{\"text\":\"a\",\"label\":1}\n{\"text\":\"b\" 1}\n", NULL, IO_BAD_DATA, "a.jsonl:2:13: not valid JSON");
    bad("a.jsonl", "{\"text\":\"a\",\"label\":1}\n[1]\n", NULL, IO_BAD_DATA, "a.jsonl:2:1: every line must be a JSON object");
    bad("a.jsonl", "{\"text\":\"a\",\"text\":1}\n", NULL, IO_BAD_DATA, "duplicate");
}

static void jsonl_values_of_the_wrong_kind_are_refused(void **state) {
    (void)state;
    bad("a.jsonl", "{\"text\":\"a\",\"label\":1}\n{\"text\":5,\"label\":1}\n", NULL, IO_BAD_DATA,
        "a.jsonl:2: the value of 'text' is not");
    bad("a.jsonl", "{\"text\":\"a\",\"label\":1}\n{\"text\":\"a\",\"label\":[1]}\n", NULL, IO_BAD_DATA,
        "the value of 'label' is a list");
}

static void jsonl_deep_and_wide_lines_are_refused_before_they_are_built(void **state) {
    (void)state;
    enum { WIDE = 1 << 20 };
    char *line = malloc(WIDE + 64);
    assert_non_null(line);
    strcpy(line, "{\"text\":\"a\",\"label\":");
    size_t n = strlen(line);
    memset(line + n, '[', 100);
    line[n + 100] = 0;
    bad("a.jsonl", line, NULL, IO_BAD_DATA, "nested 101 levels deep");
    line[n++] = '[';
    memset(line + n, ',', WIDE);
    line[n + WIDE] = 0;
    bad("a.jsonl", line, NULL, IO_BAD_DATA, "values; at most");
    free(line);
}

static void fasttext_lines_give_their_first_label(void **state) {
    (void)state;
    table t =
        good("a.txt", "__label__pos  a good film\r\n__label__b __label__c two\nno label\n__label__d\n\n__label__ e\n", NULL);
    assert_int_equal(t.format, TABLE_FASTTEXT);
    assert_int_equal(t.n_rows, 2);
    is_row(&t, 0, "a good film", "pos", 1);
    is_row(&t, 1, "two", "b", 2);
    assert_int_equal(t.n_several_labels, 1);
    assert_int_equal(t.n_empty_text, 1);
    assert_int_equal(t.n_empty_label, 2);
    char line[300];
    table_summary(&t, line, sizeof line);
    assert_non_null(strstr(line, "1 with several labels: the first was taken"));
    table_free(&t);
}

static void fasttext_files_have_no_columns_to_name(void **state) {
    (void)state;
    bad("a.txt", "__label__x a\n", &(table_options){ .text = "text" }, IO_BAD_USAGE, "has no columns");
}

/* ---- any format ------------------------------------------------------------------------------------------------- */

static void format_is_told_by_the_first_line_where_the_name_says_nothing(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int format;
    } cases[] = { { "text,label\na,b\n", TABLE_CSV },
                  { "text\tlabel\na\tb\n", TABLE_TSV },
                  { "\n {\"text\":\"a\",\"label\":1}\n", TABLE_JSONL },
                  { "__label__b a\n", TABLE_FASTTEXT } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        table t = good("stdin", cases[i].text, NULL);
        assert_int_equal(t.format, cases[i].format);
        assert_string_equal(t.rows[0].text, "a");
        table_free(&t);
    }
}

static void labels_are_a_sorted_set(void **state) {
    (void)state;
    table t = good("a.csv", "text,label\na,b\nb,a\nc,b\nd,\xc3\xa4\ne,B\n", NULL);
    assert_int_equal(t.n_labels, 4);
    assert_string_equal(t.labels[0], "B");
    assert_string_equal(t.labels[1], "a");
    assert_string_equal(t.labels[2], "b");
    assert_string_equal(t.labels[3], "\xc3\xa4");
    is_row(&t, 2, "c", "b", 4);
    table_free(&t);
}

static void integer_labels_are_sorted_by_number(void **state) {
    (void)state;
    table t = good("a.csv", "text,label\na,10\nb,9\nc,-1\nd,9\n", NULL);
    assert_int_equal(t.n_labels, 3);
    assert_string_equal(t.labels[0], "-1");
    assert_string_equal(t.labels[1], "9");
    assert_string_equal(t.labels[2], "10");
    is_row(&t, 3, "d", "9", 5);
    table_free(&t);
}

static void blanks_around_labels_do_not_count(void **state) {
    (void)state;
    table t = good("a.csv", "text,label\na, x y \nb,x y\n", NULL);
    assert_int_equal(t.n_labels, 1);
    assert_string_equal(t.labels[0], "x y");
    table_free(&t);
}

static void bytes_that_are_not_utf8_are_replaced_and_counted(void **state) {
    (void)state;
    static const char text[] = "text,label\ncaf\xe9 au lait,x\na\0b,x\n\xed\xa0\x80,y\n";
    table t;
    io_error error = { 0 };
    assert_int_equal(table_parse(text, sizeof text - 1, "a.csv", NULL, &t, &error), IO_OK);
    is_row(&t, 0, "caf\xef\xbf\xbd au lait", "x", 2);
    is_row(&t, 1,
           "a\xef\xbf\xbd"
           "b",
           "x", 3);
    is_row(&t, 2, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", "y", 4);
    assert_int_equal(t.n_replaced, 5);
    table_free(&t);
}

static void files_that_are_no_text_are_refused(void **state) {
    (void)state;
    char noise[400];
    for (size_t i = 0; i < sizeof noise; i++) noise[i] = (char)(0x80 + i % 7);
    table t;
    io_error error = { 0 };
    int failed = table_parse(noise, sizeof noise, "a.csv", NULL, &t, &error);
    assert_failure(failed, error, IO_BAD_DATA, "is not UTF-8 text");
    failed = table_parse("\xff\xfet\0", 4, "a.csv", NULL, &t, &error);
    assert_failure(failed, error, IO_BAD_DATA, "is UTF-16");
}

static void empty_files_and_files_without_rows_are_refused(void **state) {
    (void)state;
    static const char *const names[] = { "a.csv", "a.tsv", "a.jsonl", "a.txt" };
    for (size_t i = 0; i < 4; i++) {
        bad(names[i], "", NULL, IO_BAD_DATA, "is empty");
        bad(names[i], " \r\n\n", NULL, IO_BAD_DATA, "is empty");
    }
    bad("a.csv", "text,label\n", NULL, IO_BAD_DATA, "holds no row with a text and a label (0 without text, 0 without label)");
    bad("a.csv", "text,label\na,\n,b\n", NULL, IO_BAD_DATA, "(1 without text, 1 without label)");
}

static void every_prefix_of_a_file_is_read_or_refused_cleanly(void **state) {
    (void)state;
    static const char *const files[][2] = {
        { "a.csv", "text,label\r\n\"a \"\"b\"\"\r\nc\",x\r\n\xc3\xa9t\xc3\xa9,y\n" },
        { "a.tsv", "text\tlabel\n\"a\"\"b\"\tx\n\"c\ty\n" },
        { "a.jsonl", "{\"text\": \"a\\u00e9\", \"label\": -12}\n{\"label\": null, \"text\": \"b\"}\n" },
        { "a.txt", "__label__a __label__b text\r\n__label__c text\n" },
    };
    for (size_t f = 0; f < 4; f++) {
        for (size_t n = 0; n <= strlen(files[f][1]); n++) {
            /* Of the exact size, so that a sanitizer sees a read behind it. */
            char *part = malloc(n ? n : 1);
            memcpy(part, files[f][1], n);
            table t;
            io_error error = { 0 };
            int failed = table_parse(part, n, files[f][0], NULL, &t, &error);
            if (failed)
                assert_true(error.message[0] && (failed == IO_BAD_DATA || failed == IO_BAD_USAGE));
            else
                assert_true(t.n_rows > 0 && t.n_labels > 0);
            table_free(&t);
            free(part);
        }
    }
}

static void tables_are_read_from_files_and_missing_ones_refused(void **state) {
    (void)state;
    table t;
    io_error error = { 0 };
    const char *path = write_scratch("a.csv", "text,label\na,b\n", 15);
    assert_int_equal(table_read(path, NULL, &t, &error), IO_OK);
    is_row(&t, 0, "a", "b", 2);
    table_free(&t);
    int failed = table_read(in_scratch("missing.csv"), NULL, &t, &error);
    assert_failure(failed, error, IO_BAD_DATA, "missing.csv");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(csv_rows_come_with_text_label_and_line),
        cmocka_unit_test(csv_quoted_fields_hold_separators_quotes_and_line_ends),
        cmocka_unit_test(csv_quote_inside_a_plain_field_is_a_character),
        cmocka_unit_test(byte_order_mark_and_blank_lines_are_passed_over),
        cmocka_unit_test(csv_with_semicolons_is_recognised_by_its_header),
        cmocka_unit_test(tsv_quotes_that_do_not_close_are_characters),
        cmocka_unit_test(csv_quote_never_closed_is_located),
        cmocka_unit_test(csv_text_behind_a_closing_quote_is_located),
        cmocka_unit_test(csv_row_with_too_many_fields_is_located),
        cmocka_unit_test(rows_without_text_or_label_are_dropped_and_counted),
        cmocka_unit_test(columns_are_taken_by_name),
        cmocka_unit_test(columns_with_telling_names_are_guessed_and_said),
        cmocka_unit_test(the_other_of_two_columns_is_guessed),
        cmocka_unit_test(two_plausible_columns_are_a_question),
        cmocka_unit_test(text_alone_is_not_enough_unless_no_labels_are_wanted),
        cmocka_unit_test(misspelt_column_gets_the_list_and_a_suggestion),
        cmocka_unit_test(one_column_cannot_be_text_and_label),
        cmocka_unit_test(two_columns_of_the_wanted_name_are_refused),
        cmocka_unit_test(a_thousand_columns_make_a_short_message),
        cmocka_unit_test(jsonl_keys_are_columns_and_scalars_are_labels),
        cmocka_unit_test(jsonl_missing_and_null_values_are_counted),
        cmocka_unit_test(jsonl_named_key_may_be_missing_in_the_first_object),
        cmocka_unit_test(jsonl_syntax_errors_are_located),
        cmocka_unit_test(jsonl_values_of_the_wrong_kind_are_refused),
        cmocka_unit_test(jsonl_deep_and_wide_lines_are_refused_before_they_are_built),
        cmocka_unit_test(fasttext_lines_give_their_first_label),
        cmocka_unit_test(fasttext_files_have_no_columns_to_name),
        cmocka_unit_test(format_is_told_by_the_first_line_where_the_name_says_nothing),
        cmocka_unit_test(labels_are_a_sorted_set),
        cmocka_unit_test(integer_labels_are_sorted_by_number),
        cmocka_unit_test(blanks_around_labels_do_not_count),
        cmocka_unit_test(bytes_that_are_not_utf8_are_replaced_and_counted),
        cmocka_unit_test(files_that_are_no_text_are_refused),
        cmocka_unit_test(empty_files_and_files_without_rows_are_refused),
        cmocka_unit_test(every_prefix_of_a_file_is_read_or_refused_cleanly),
        cmocka_unit_test(tables_are_read_from_files_and_missing_ones_refused),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
