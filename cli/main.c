/* SPDX-License-Identifier: Apache-2.0 */
/* The program attn: finds the verb, reads its options, opens the threads, runs it. The table below is the list of verbs. */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "message.h"
#include "print.h"

/* Verbs about models need libraries that a build may lack; it knows their names all the same. */
#if ATTN_WITH_MODELS
#define WITH_MODELS(command) (command)
#else
#define WITH_MODELS(command) NULL
#endif

static const struct verb {
    const char *name;
    const command *command; /* NULL: not in this build */
    bool models;            /* needs the libraries that models need */
} verbs[] = {
    { "softmax", &command_softmax, false },
    { "attend", &command_attend, false },
    { "train", WITH_MODELS(&command_train), true },
    { "eval", WITH_MODELS(&command_eval), true },
    { "run", WITH_MODELS(&command_run), true },
    { "explain", WITH_MODELS(&command_explain), true },
    { "embed", NULL, true },
    { "check", NULL, true },
    { "bench", &command_bench, false },
    { "inspect", &command_inspect, false },
    { "info", &command_info, false },
};
enum { N_VERBS = sizeof verbs / sizeof verbs[0] };

static void overview(text *out) {
    text_add(out, "attn %s: attention and softmax for CPUs, fast, exact and visible.\n\nUsage: attn VERB [options]\n\n",
             attn_version());
    for (size_t i = 0; i < N_VERBS; i++)
        if (verbs[i].command) text_add(out, "  %-10s%s\n", verbs[i].name, verbs[i].command->summary);
    text_add(out, "\n  attn VERB --help    what a verb does, all its options, examples\n"
                  "  attn --version      the version\n\n"
                  "Arrays are .npy files; - is stdin or stdout. Results go to stdout, everything else to stderr.\n"
                  "Exit codes: 0 done, 1 below --fail-under, 2 wrong command line, 3 bad input, 4 bad model,\n"
                  "5 no memory, disk full or output not writable, 6 training diverged, 130 interrupted after saving.\n");
}

static const struct verb *find_verb(const char *word) {
    for (size_t i = 0; i < N_VERBS; i++)
        if (strcmp(word, verbs[i].name) == 0) return &verbs[i];
    return NULL;
}

static int unknown_verb(const char *word) {
    const char *names[N_VERBS];
    for (size_t i = 0; i < N_VERBS; i++) names[i] = verbs[i].name;
    const char *near = nearest(word, names, N_VERBS);
    const char *kind = word[0] == '-' ? "option" : "verb";
    if (near) return fail(IO_BAD_USAGE, "there is no %s '%s'; did you mean 'attn %s'?", kind, word, near);
    return fail(IO_BAD_USAGE, "there is no %s '%s'; 'attn --help' lists the verbs", kind, word);
}

static int absent_verb(const struct verb *verb) {
#if !ATTN_WITH_MODELS
    if (verb->models)
        return fail(
            IO_BAD_USAGE,
            "'%s' is not built in this version: it was built without models (jansson, libpng, libjpeg, zlib and libutf8proc "
            "are needed for them); install those and build again",
            verb->name);
#endif
    return fail(IO_BAD_USAGE, "'%s' is not built in this version; 'attn --help' lists what is", verb->name);
}

/* The library takes the best level below a wrong ATTN_ISA; somebody who typed it at a prompt wants to know instead. */
static int check_isa(void) {
    static const char *const known[] = { "scalar", "avx2", "avx512", "avx512bf16", "amx", "neon" };
    const char *asked = getenv("ATTN_ISA");
    if (!asked || !*asked || strcmp(asked, attn_isa()) == 0) return IO_OK;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(asked, known[i]) == 0)
            return fail(IO_BAD_USAGE, "ATTN_ISA is '%s', which this machine or this build lacks; '%s' is the best at or below it",
                        asked, attn_isa());
    return fail(IO_BAD_USAGE, "ATTN_ISA is '%s'; it is one of scalar, avx2, avx512, avx512bf16, amx, neon", asked);
}

static int run_command(const command *c, int n_words, char *const *words) {
    bool help = false;
    int32_t threads = 0;
    void *settings = calloc(1, c->settings_size);
    if (!settings) return fail(IO_NO_ROOM, "out of memory");
    int code = options_parse(c, n_words, words, settings, &threads, &help);
    if (help) {
        text out = { 0 };
        options_help(c, &out);
        code = text_print(&out);
    } else if (!code && c->isa && c->isa(settings) && setenv("ATTN_ISA", c->isa(settings), 1)) {
        code = fail(IO_NO_ROOM, "out of memory");
    } else if (!code && !(code = check_isa())) {
        attn_exec exec = { 0 };
        attn_status status = attn_pool_open(&exec, threads);
        code = status ? fail_status(status, "cannot start the threads") : c->run(settings, &exec);
        if (!status) attn_pool_close(&exec);
    }
    free(settings);
    return code;
}

static int dispatch(int argc, char **argv) {
    const char *word = argc > 1 ? argv[1] : "--help";
    bool help = strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0;
    if (help && argc > 2 && find_verb(argv[2])) return dispatch(3, (char *[]){ argv[0], argv[2], "--help", NULL });
    text out = { 0 };
    if (help) {
        overview(&out);
        if (argc > 1) return text_print(&out);
        if (!out.failed) fputs(out.data, stderr); /* nothing was asked for: this is no result */
        text_free(&out);
        return IO_BAD_USAGE;
    }
    if (strcmp(word, "--version") == 0) {
        text_add(&out, "attn %s\n", attn_version());
        return text_print(&out);
    }
    const struct verb *verb = find_verb(word);
    if (!verb) return unknown_verb(word);
    return verb->command ? run_command(verb->command, argc - 2, argv + 2) : absent_verb(verb);
}

/* What stdio still holds has to arrive, too: a full disk is an error, a reader that has gone away is not. */
static int finish_stdout(int code) {
    errno = 0;
    bool broken = fflush(stdout) != 0 || ferror(stdout);
    int why = errno;
    struct pollfd reader = { .fd = STDOUT_FILENO };
    if (!broken || why == EPIPE || (poll(&reader, 1, 0) > 0 && reader.revents & POLLERR)) return code;
    return fail(IO_NO_ROOM, "cannot write stdout: %s", why ? strerror(why) : "the disk may be full");
}

int main(int argc, char **argv) {
    /* Closed standard files would be handed out again to the first files that are opened. Opened the wrong way round, using them
     * still fails, as it should. */
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0) return IO_NO_ROOM;
    /* Writes shall fail where they stand, so that temporary files are removed and the message says what happened. */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    return finish_stdout(dispatch(argc, argv));
}
