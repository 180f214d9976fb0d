/* SPDX-License-Identifier: Apache-2.0 */
/* attn bench: how fast the library is on this machine, as a share of what the machine can do at that moment. The problems and the
 * measuring are in bench/. */
#include "bench.h"

#include <math.h>
#include <string.h>

#include "commands.h"
#include "message.h"
#include "print.h"

/* ---- named sets ------------------------------------------------------------------------------------------------------------ */

static const char *const quick[] = {
    "softmax:r65536c128,f32",
    "attention:b1h1q2048s2048d64,f32",
    "attention:b1h8k2q1024s1024d128,f32,causal",
    "attention:b1h1q2048s2048d64,f32,backward",
    "additive:b1q128s512d256,f32",
    "gemm:m512n512k512,f32",
    "cross-entropy:n4096c32768,f32",
    NULL,
};

/* The products with 272 rows are those of training a small vision transformer: 16 pictures of 17 tokens, forward and backward. */
static const char *const full[] = {
    "attention:b1h1q2048s2048d128,f32",
    "attention:b1h1q2048s2048d64,f32",
    "attention:b1h8k2q2048s2048d128,f32,causal",
    "attention:b2h12q512s512d64,f32",
    "attention:b8h12q512s512d64,f32,padded",
    "attention:b1h2q4096s4096d64,f32,causal,window256",
    "attention:b1h1q2048s2048d64,f32,mask",
    "attention:b1h1q2048s2048d64,f32,bias",
    "attention:b1h1q2048s2048d64,f32,alibi",
    "attention:b1h1q2048s2048d64,f32,softcap",
    "attention:b1h32k8q1s8192d128,f32",
    "attention:b1h1q1024s1024d128,f64",
    "attention:b1h1q1024s1024d64,f64",
    "attention:b1h1q2048s2048d128,f32,backward",
    "attention:b1h1q2048s2048d64,f32,backward",
    "attention:b1h8k2q1024s1024d128,f32,causal,backward",
    "attention:b1h1q1024s1024d64,f64,backward",
    "additive:b1q128s512d256,f32",
    "additive:b1q128s512d256,f32,backward",
    "gemm:m128n128k128,f32",
    "gemm:m256n256k256,f32",
    "gemm:m512n512k512,f32",
    "gemm:m1024n1024k1024,f32",
    "gemm:m1024n1024k1024,f32,prepacked",
    "gemm:m512n512k512,f64",
    "gemm:m8n512k512,f32,weight,prepacked",
    "gemm:m64n512k512,f32,weight",
    "gemm:m272n64k49,f32,weight,prepacked",
    "gemm:m272n192k64,f32,weight,prepacked",
    "gemm:m272n256k64,f32,weight,prepacked,gelu",
    "gemm:m272n64k256,f32,weight,prepacked",
    "gemm:m272n64k192,f32,prepacked",
    "gemm:m192n64k272,f32,gradient",
    "gemm:m256n64k272,f32,gradient",
    "softmax:r65536c128,f32",
    "softmax:r8192c1024,f32",
    "softmax:r4096c32768,f32",
    "softmax:r1c128256,f32",
    "softmax:r65536c128,bf16",
    "softmax:r65536c128,f32,in-place",
    "softmax:r4096c4096,f32,axis0",
    "softmax:b64r1024c256,f32,axis1",
    "softmax:r65536c128,f32,log",
    "softmax:r8192c1024,f64",
    "softmax:r65536c128,f32,backward",
    "softmax:r65536c128,f32,sparsemax",
    "softmax:r65536c128,f32,entmax15",
    "softmax:r65536c128,f32,entmax",
    "softmax:r65536c128,f32,gumbel",
    "cross-entropy:n4096c32768,f32",
    "linear-cross-entropy:n4096d512c32768,f32",
    "linear-cross-entropy:n4096d512c32768,f32,loss",
    NULL,
};

static const struct {
    const char *name;
    const char *const *problems;
} sets[] = { { "quick", quick }, { "full", full } };

/* ---- the run ------------------------------------------------------------------------------------------------------------------ */

/* Problems whose memory is held at once, and whose repetitions therefore take turns. */
static const size_t most_memory = (size_t)1 << 30;
enum { MOST_PROBLEMS = 256 };

typedef struct list {
    const char *text[MOST_PROBLEMS];
    int n, widest;
} list;

static int add_problem(list *l, const char *problem) {
    if (l->n == MOST_PROBLEMS) return fail(IO_BAD_USAGE, "more than %d problems", MOST_PROBLEMS);
    int length = (int)strlen(problem);
    if (length > l->widest) l->widest = length;
    l->text[l->n++] = problem;
    return IO_OK;
}

static int add_words(list *l, const char *word) {
    int code = IO_OK;
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        if (strcmp(word, sets[i].name) != 0) continue;
        for (const char *const *p = sets[i].problems; *p && !code; p++) code = add_problem(l, *p);
        return code;
    }
    return add_problem(l, word);
}

/* A typing error shall not show after minutes of measuring. Sizes are looked at when their turn comes. */
static int check_problems(const list *l) {
    io_error error = { 0 };
    for (int i = 0; i < l->n; i++) {
        bench_problem p;
        if (bench_problem_read(&p, l->text[i], &error) || bench_case_known(&p, &error)) return fail_io(&error);
    }
    return IO_OK;
}

/* Opens problems from `first` on until they fill the memory; returns how many, or 0 with *code set. */
static int open_some(const list *l, int first, bench_case *cases, int *code) {
    size_t bytes = 0;
    int n = 0;
    for (; first + n < l->n && bytes < most_memory; n++) {
        io_error error = { 0 };
        if (bench_case_open(&cases[n], l->text[first + n], &error)) {
            *code = fail_io(&error);
            while (n) bench_case_close(&cases[--n]);
            return 0;
        }
        bytes += cases[n].size;
    }
    return n;
}

static double seconds_of(const bench_settings *s) { return s->seconds.given ? s->seconds.value : 1; }

static void announce(const bench_settings *s, int n, const attn_exec *exec) {
    bool many = exec->n_threads > 1;
    note("%d problem%s on %s, %d thread%s, about %.0f s", n, n == 1 ? "" : "s", attn_isa(), many ? (int)exec->n_threads : 1,
         many ? "s" : "", ceil(n * seconds_of(s) * 1.5));
}

static int measure_some(const bench_settings *s, const list *l, int first, int *n, const bench_earlier *earlier,
                        const attn_exec *exec) {
    static bench_case cases[MOST_PROBLEMS];
    static bench_result results[MOST_PROBLEMS];
    int code = IO_OK;
    io_error error = { 0 };
    *n = open_some(l, first, cases, &code);
    if (code) return code;
    if (first == 0) announce(s, l->n, exec);
    if (bench_measure(cases, *n, seconds_of(s), exec, results, &error)) code = fail_io(&error);
    text out = { 0 };
    if (first == 0 && !code) bench_print_head(&out, s, l->widest);
    for (int i = 0; i < *n && !code; i++)
        bench_print_result(&out, s, &cases[i], &results[i], exec->n_threads > 1 ? exec->n_threads : 1, l->widest,
                           s->against ? earlier : NULL);
    for (int i = 0; i < *n; i++) bench_case_close(&cases[i]);
    if (!code) return text_print(&out);
    text_free(&out);
    return code;
}

static int run(const void *settings, const attn_exec *exec) {
    const bench_settings *s = settings;
    static list l;
    bench_earlier earlier = { 0 };
    io_error error = { 0 };
    int code = s->problems.n ? IO_OK : add_words(&l, "quick");
    for (int i = 0; i < s->problems.n && !code; i++) code = add_words(&l, s->problems.word[i]);
    if (!code) code = check_problems(&l);
    if (!code && s->against && bench_earlier_read(&earlier, s->against, &error)) code = fail_io(&error);
    for (int at = 0, n = 0; at < l.n && !code; at += n) code = measure_some(s, &l, at, &n, &earlier, exec);
    bench_earlier_free(&earlier);
    return code;
}

static const char *const isa_names[] = { "scalar", "avx2", "avx512", "avx512bf16", "amx", "neon", NULL };

static const char *wanted_isa(const void *settings) {
    const bench_settings *s = settings;
    return s->isa.given ? isa_names[s->isa.value] : NULL;
}

#define FIELD(name) offsetof(bench_settings, name)
static const option options[] = {
    { .name = "PROBLEM",
      .kind = OPTION_WORDS,
      .field = FIELD(problems),
      .help = "what to measure, as below, or a set: quick (the default), full" },
    { .name = "isa",
      .kind = OPTION_CHOICE,
      .field = FIELD(isa),
      .choices = isa_names,
      .help = "an instruction set below the best (default: the best of this machine)" },
    { .name = "seconds",
      .kind = OPTION_REAL,
      .field = FIELD(seconds),
      .value = "S",
      .low = 0.001,
      .high = 3600,
      .help = "how long each problem is measured, at least (default 1)" },
    { .name = "against",
      .kind = OPTION_TEXT,
      .field = FIELD(against),
      .value = "FILE",
      .help = "an earlier run's --json: how many times as fast the median run is now" },
    { .name = "json", .kind = OPTION_FLAG, .field = FIELD(json), .help = "one JSON object per problem, a line each" },
    { .kind = OPTION_END },
};

const command command_bench = {
    .name = "bench",
    .summary = "how fast the library is here, beside the machine's own peak",
    .about =
        "Measures the library. Each repetition of a problem stands between two bursts of multiply-adds in registers (for rows of "
        "softmax: copies of the same memory) and is compared with them; problems take turns. A repetition whose bursts disagree "
        "by a tenth is made again; '~' marks a problem of which most had to be. Rate and best are of the fastest run, 'of peak' "
        "is the median.",
    .examples =
        "  attn bench\n  attn bench full --threads 1 --json >today.json\n  attn bench full --threads 1 --against today.json\n"
        "  attn bench attention:b1h32k8q2048s2048d128,f32,causal --isa avx2\n"
        "\nProblems are KIND:SIZES,WORDS; sizes are letters with numbers, and words come in any order\n"
        "  softmax:r65536c128,f32          (b) batch, rows, columns; axis0, axis1, in-place, backward; log,\n"
        "                                  softmin, sparsemax, entmax15, entmax, gumbel\n"
        "  attention:b1h8k2q2048s2048d128,f32\n"
        "                                  batch, heads, key heads, queries, keys, size of a head, (v) of a\n"
        "                                  value; causal, windowN (N keys with the query's own), padded;\n"
        "                                  backward, train (forward and backward); see (lse, entropy,\n"
        "                                  received); sinks, mask, bias, alibi, softcap, dropout, cosine; sigmoid,\n"
        "                                  normalized-sum, relu2, sparsemax, entmax15, entmax, hardmax\n"
        "  additive:b4q128s512d256,f32     the same with the additive score\n"
        "  cross-entropy:n4096c32768,f32   rows, classes\n"
        "  linear-cross-entropy:n4096d512c32768,f32\n"
        "                                  rows, dim, classes; loss (without gradients)\n"
        "  gemm:m1024n1024k1024,f32        a product [m, k] [k, n]; prepacked, weight, gradient, gelu\n"
        "  f32, f64, bf16, f16             the type of the elements\n",
    .options = options,
    .settings_size = sizeof(bench_settings),
    .isa = wanted_isa,
    .run = run,
};
