/* SPDX-License-Identifier: Apache-2.0 */
/* The command line as data: each verb has one table of its options, which parses the arguments, checks every value and prints the
 * help. A value lands in the verb's settings struct at the offset that the table gives; a struct of zeros means "nothing given". */
#ifndef ATTN_CLI_OPTIONS_H
#define ATTN_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <attn/attn.h>

#include "text.h"

/* What an option's value is, and the field it lands in. */
typedef enum option_kind {
    OPTION_END = 0,
    OPTION_HEADING,  /* no option: its name is a heading in the help */
    OPTION_ARGUMENT, /* const char *: a word without dashes; the table's order is the order on the command line */
    OPTION_FLAG,     /* bool */
    OPTION_TEXT,     /* const char *: a file, a column, ... */
    OPTION_INTEGER,  /* option_integer, within low..high */
    OPTION_REAL,     /* option_real, finite and within low..high */
    OPTION_SEED,     /* option_seed: 0 .. 2^64-1 */
    OPTION_PAIR,     /* option_pair: two integers L,R, each within low..high */
    OPTION_SIZE,     /* option_pair: the same, written PxQ */
    OPTION_WORDS,    /* option_words: all words without dashes that are left */
    OPTION_CHOICE,   /* option_choice: one of the names in `choices`; "name: meaning" is written "name" alone */
} option_kind;

typedef struct option_integer {
    bool given;
    int64_t value;
} option_integer;

typedef struct option_real {
    bool given;
    double value;
} option_real;

typedef struct option_seed {
    bool given;
    uint64_t value;
} option_seed;

typedef struct option_pair {
    bool given;
    int64_t value[2];
} option_pair;

typedef struct option_choice {
    bool given;
    int32_t value; /* index into the choices */
} option_choice;

enum { OPTION_MOST_WORDS = 64 };
typedef struct option_words {
    int n;
    const char *word[OPTION_MOST_WORDS];
} option_words;

typedef struct option {
    const char *name; /* without its dashes; of an argument: what the help calls it */
    option_kind kind;
    char letter;                /* also written -o; 0: not */
    size_t field;               /* offset in the settings struct */
    const char *value;          /* what the help calls the value: "FILE" */
    const char *help;           /* one sentence; wrapped when printed */
    double low, high;           /* bounds of a number; both 0: any */
    const char *const *choices; /* ended by NULL */
    bool bare;                  /* OPTION_CHOICE: the name alone is allowed and means the first choice; a value needs '=' */
    bool required;              /* OPTION_ARGUMENT and OPTION_TEXT: must be given, and not be empty */
} option;

/* A verb of the program. */
typedef struct command {
    const char *name;
    const char *summary;                      /* one line, for the list of verbs */
    const char *about;                        /* for its help: what it does, in sentences; wrapped when printed */
    const char *examples;                     /* for its help, as they are: lines of two blanks and a command */
    const option *options;                    /* ended by OPTION_END; --threads and --help are added to every verb */
    size_t settings_size;                     /* of the struct that the options fill in */
    const char *(*isa)(const void *settings); /* the instruction set that the options ask for, or NULL; may be NULL itself */
    int (*run)(const void *settings, const attn_exec *exec); /* returns the exit code, having said what failed */
} command;

/* Fills in settings (zeroed, of settings_size bytes) and the number of threads (0: not given) from the words behind the verb.
 * Returns 0, or an exit code after an error line. *help is set when --help or -h is among the words: nothing else counts then. */
int options_parse(const command *c, int n_words, char *const *words, void *settings, int32_t *threads, bool *help);

/* The verb's help, made from the same table. */
void options_help(const command *c, text *out);

/* Numbers as the options take them: the whole word is one number, nothing before or behind it. */
bool parse_integer(const char *word, int64_t *value);
bool parse_real(const char *word, double *value);

#endif
