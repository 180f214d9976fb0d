/* SPDX-License-Identifier: Apache-2.0 */
/* Text to token ids and back: a byte-level BPE tokenizer, trained here or read from a Hugging Face `tokenizer.json`. Saved files
 * give the same ids for the same text in Python's `tokenizers.Tokenizer.from_file()`, and its byte-level BPE files load here.
 *
 *     tokenizer *t = NULL;
 *     tokenizer_train_options options = { .vocab_size = 16000, .lowercase = true };
 *     int rc = tokenizer_train(&t, texts, lengths, n_texts, &options, &error);
 *     encoding e = { 0 };                                                // one per thread, reused from text to text
 *     if (!rc) rc = tokenizer_encode(t, text, length, 256, &e, &error);  // e.ids[0..e.n): [CLS] ... [SEP], at most 256
 *     if (!rc) rc = tokenizer_save(t, "model/tokenizer.json", &error);
 *     encoding_free(&e);
 *     tokenizer_free(t);
 *
 * A text is normalised (NFC and lower case, say), cut at added tokens ([SEP] in a text is the token [SEP]), cut into words
 * (GPT-2's rule: contractions, letters, digits, other signs, each with the one space before it, and white space), and each word's
 * bytes are merged by rank. Any bytes are welcome: what is not UTF-8 passes through as it is, and comes back from
 * tokenizer_decode. */
#ifndef ATTN_IO_TOKENIZER_H
#define ATTN_IO_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"

typedef struct tokenizer tokenizer; /* immutable once made: any number of threads may share it */

/* How Unicode's several spellings of one character are made one before anything else. */
typedef enum { TOKENIZER_NFC, TOKENIZER_NFKC, TOKENIZER_AS_IT_IS } tokenizer_form;

typedef struct tokenizer_train_options {
    size_t vocab_size;      /* tokens at most, the 5 special tokens and 256 bytes among them; 0: 16,000 */
    uint64_t min_frequency; /* a pair seen fewer times is not merged; 0: 2 */
    tokenizer_form form;    /* default NFC; NFKC also makes full-width letters, ligatures and the like plain ones */
    bool lowercase;         /* default: case is kept */
    bool add_prefix_space;  /* a space before a text that has none, so that a first word is like any other; default: none */
} tokenizer_train_options;

/* Learns a vocabulary: ids 0-4 are [PAD] [UNK] [CLS] [SEP] [MASK], 5-260 the bytes, then one token per merge, most frequent pair
 * first; of pairs equally frequent the one whose two ids are smaller, the left id first. The result depends on nothing but texts
 * and options: not on the order of the texts either. options NULL: all defaults. *made is NULL on failure; free it with
 * tokenizer_free. */
int tokenizer_train(tokenizer **made, const char *const *texts, const size_t *lengths, size_t n_texts,
                    const tokenizer_train_options *options, io_error *error);

/* Reads a tokenizer.json. IO_BAD_MODEL names what is malformed, or which model, normalizer, pre-tokenizer or post-processor of
 * the file is not implemented: nothing is skipped that would change an id. (A "padding" section is read over: padding belongs to
 * the batch.) tokenizer_parse takes the file's contents; `name` stands for the file in messages. */
int tokenizer_load(tokenizer **made, const char *path, io_error *error);
int tokenizer_parse(tokenizer **made, const char *json, size_t length, const char *name, io_error *error);

/* Writes tokenizer.json, whole or not at all. The same tokenizer gives the same bytes. */
int tokenizer_save(const tokenizer *t, const char *path, io_error *error);

/* Writes tokenizer_config.json, from which transformers' AutoTokenizer learns the special tokens and the longest input (0: not
 * said). */
int tokenizer_save_config(const tokenizer *t, const char *path, size_t model_max_length, io_error *error);

void tokenizer_free(tokenizer *t); /* NULL is fine */

/* What one text became. Zero it once, use it for many texts with one or several tokenizers, encoding_free it at the end. One
 * thread at a time. The arrays have n entries and stay until the next call with the same struct. */
typedef struct encoding {
    size_t n;
    int32_t *ids;
    /* The bytes of the text that a token stands for: text[start, end). Without normalisation the tokens of a text tile it (a
     * token that begins a word has the space before that word); where normalisation changed a character, every token of it has
     * the whole character. 0, 0 for tokens that the template added. */
    uint32_t *start, *end;
    int32_t *word;  /* tokens of one word have one number, growing from 0 along the text; -1 for tokens that the template added */
    bool truncated; /* the text was longer than max_length allowed */
    struct encoding_scratch *scratch;
} encoding;

/* Encodes with the template ([CLS] text [SEP] for what tokenizer_train made), at most max_length tokens, template included; 0: no
 * limit but the file's own "truncation". max_length smaller than the template is IO_BAD_USAGE. Time grows with length * log
 * length for any bytes. */
int tokenizer_encode(const tokenizer *t, const char *text, size_t length, size_t max_length, encoding *e, io_error *error);

void encoding_free(encoding *e);

/* The bytes that ids stand for, NUL-terminated, in *text (free() it) and *length. skip_special leaves out [CLS], [SEP] and the
 * like. An id that no token has is IO_BAD_DATA. */
int tokenizer_decode(const tokenizer *t, const int32_t *ids, size_t n, bool skip_special, char **text, size_t *length,
                     io_error *error);

/* Rows that an embedding table needs: the largest id + 1. */
size_t tokenizer_size(const tokenizer *t);

/* The id of a token by its text as it stands in the file ("[MASK]", "\u0120the"), or -1. */
int32_t tokenizer_id(const tokenizer *t, const char *token);

/* The special tokens by role, found by their usual names ([PAD] or <pad>, [CLS] or <s>, ...), or -1 where the vocabulary has
 * none. */
typedef enum { TOKENIZER_PAD, TOKENIZER_UNK, TOKENIZER_CLS, TOKENIZER_SEP, TOKENIZER_MASK } tokenizer_role;
int32_t tokenizer_special(const tokenizer *t, tokenizer_role role);

/* The bytes of one token: "the" with its space for \u0120the. NULL and *length 0 for an id that no token has. The bytes live as
 * long as t. */
const char *tokenizer_token(const tokenizer *t, int32_t id, size_t *length);

#endif
