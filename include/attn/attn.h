/* SPDX-License-Identifier: Apache-2.0 */
/* attn.h - softmax and attention for CPUs: score, weight, mix - and see.
 *
 *     attn_attention_args a = {
 *         .q = attn_bhsd(ATTN_F32, q, B, H,   Sq,  D),
 *         .k = attn_bhsd(ATTN_F32, k, B, Hkv, Skv, D),
 *         .v = attn_bhsd(ATTN_F32, v, B, Hkv, Skv, D),
 *         .out = attn_bhsd(ATTN_F32, o, B, H, Sq,  D),
 *         .causal = ATTN_CAUSAL,
 *     };
 *     if (attn_attention(&a, NULL) != ATTN_OK) fprintf(stderr, "%s\n", attn_last_error());
 *
 * One args struct per operation; forward and backward share it. Zero is every field's default: start from { 0 } and set what
 * differs; a tensor of zeros (rank 0, data NULL) is absent. docs/SEMANTICS.md says what each operation means to the last edge
 * case, docs/ACCURACY.md how exact it is. Of every function here:
 *
 * - Memory is borrowed for the time of the call and stays the caller's. Inputs may overlap each other. An output overlaps nothing
 *   but the input that its comment allows, and that with the same strides; any other overlap gives unspecified values.
 * - Everything is checked before anything is written: a call that does not return ATTN_OK has left its outputs as they were.
 *   It prints nothing, and ends no process.
 * - Any number of threads may call at once, as long as no call writes what another one reads or writes, lent workspaces included.
 * - Results have the same bits for any number of threads, strides and memory lent. Every call computes in the default
 *   floating-point environment (round to nearest, nothing flushed to zero) and leaves the caller's as it was.
 * - F32 and F64 run through vector kernels where the machine has them; BF16 and F16 answer through the reference, which is
 *   slower. They accumulate in double and are rounded once, at the end.
 * - What is declared here and not built in this version answers ATTN_UNSUPPORTED; each such thing is marked "not built yet".
 */
#ifndef ATTN_H
#define ATTN_H

#include <stddef.h>
#include <stdint.h>

/* clang-format off */
#ifndef ATTN_API
#  if defined(__GNUC__)
#    define ATTN_API __attribute__((visibility("default")))
#  else
#    define ATTN_API
#  endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- status ------------------------------------------------------------------------------------- */

typedef enum attn_status {
    ATTN_OK = 0,          /* also of a call with nothing to do: an extent of 0 */
    ATTN_BAD_SHAPE,       /* shapes disagree, or a rank is not the one asked for */
    ATTN_BAD_ARGUMENT,    /* NULL where data is needed, a window below -1, a label out of range, ... */
    ATTN_UNSUPPORTED,     /* right, but not built: this dtype on this operation; a reserved field that is not zero */
    ATTN_SMALL_WORKSPACE, /* fewer bytes than the matching _workspace() says */
    ATTN_NO_MEMORY        /* no workspace was lent, and there was no memory for one; or the sizes overflow */
} attn_status;

/* "ok", "bad shape", ...; "unknown status" for any other number. A constant string. */
ATTN_API const char *attn_status_name(attn_status s);
/* What went wrong in this thread's last failing call: "k has head size 64, q has 128". Unchanged by success; "" before the first
 * failure. The string belongs to the thread and is valid until its next failing call. */
ATTN_API const char *attn_last_error(void);

/* ---- tensors: borrowed, strided, never owned by the library --------------------------------------- */

/* Element types. The float types are F32, BF16, F16 and F64; ATTN_BOOL is one byte, true when it is not 0. */
enum { ATTN_F32 = 0, ATTN_BF16, ATTN_F16, ATTN_F64, ATTN_BOOL, ATTN_I8, ATTN_U8, ATTN_I32, ATTN_I64 };
enum { ATTN_MAX_RANK = 6 };

/* A view of somebody's memory. ATTN_BAD_SHAPE: a rank that an operation does not take, a negative extent, a reach that overflows
 * 64 bits. ATTN_BAD_ARGUMENT: no data although there are elements, data that is not aligned to its element size, an unknown
 * dtype, an output with stride 0 along an extent above 1. */

typedef struct attn_tensor {
    void   *data;                   /* the element at index 0; may be NULL when an extent is 0, and in _workspace() questions */
    int32_t dtype;                  /* ATTN_F32, ... */
    int32_t rank;                   /* 0: absent, except where a scalar is meant */
    int64_t shape[ATTN_MAX_RANK];   /* extents of the first `rank` axes; 0 is an extent like any other */
    int64_t stride[ATTN_MAX_RANK];  /* in elements, as in DLPack; may be negative; 0 broadcasts (inputs only) */
} attn_tensor;

/* A dense row-major tensor over `data`. These four only fill in a struct: what is wrong with it, the operation says that gets it.
 * `const` is for the caller's convenience; an output's data is written. */
ATTN_API attn_tensor attn_dense(int32_t dtype, const void *data, int32_t rank, const int64_t *shape);
/* [batch, heads, length, dim] views of the two common layouts, named by their order in memory. Anything else (packed q, k and v,
 * a slice of a cache): set the strides. */
ATTN_API attn_tensor attn_bhsd(int32_t dtype, const void *data, int64_t b, int64_t h, int64_t s, int64_t d);
ATTN_API attn_tensor attn_bshd(int32_t dtype, const void *data, int64_t b, int64_t s, int64_t h, int64_t d);
/* The same elements with `axis` moved to the end (negative counts from the end). Row operations work along the last axis. An axis
 * outside the rank gives a tensor of rank -1, which every operation refuses. */
ATTN_API attn_tensor attn_axis_last(attn_tensor t, int32_t axis);

/* ---- execution: who runs the work, who lends the memory ------------------------------------------- */

typedef void (*attn_task)(void *job, int32_t worker);

/* Optional everywhere: NULL is the calling thread alone, and memory of the call's own where it needs any. ATTN_BAD_ARGUMENT: a
 * negative n_threads, or more than one of them without parallel_for. The struct is only read; one of them may serve several
 * calling threads at once as long as it lends no workspace. */
typedef struct attn_exec {
    int32_t n_threads;      /* 0 or 1: the calling thread alone */
    /* Calls task(job, w) once for each w in [0, n), n <= n_threads, at once or one after the other, and returns when all have
     * returned. w names the worker's scratch. Tasks draw work items themselves, never wait for each other and never fail. */
    void  (*parallel_for)(void *pool, int32_t n, attn_task task, void *job);
    void   *pool;           /* handed to parallel_for */
    void   *workspace;      /* of any alignment. NULL: the call allocates and frees its own, where it needs any */
    size_t  workspace_size; /* bytes; too few for a call that has a _workspace() question: ATTN_SMALL_WORKSPACE */
} attn_exec;

/* The library's own pool: fills in n_threads, parallel_for and pool, and leaves the workspace alone. 0: the environment's
 * ATTN_THREADS, else the cores this process may use; 1024 at most. n_threads then says how many there are: fewer than asked for
 * where the system starts no more. A pool that another call is using, or after a fork in the child, runs work in the calling
 * thread. ATTN_BAD_ARGUMENT, ATTN_NO_MEMORY. */
ATTN_API attn_status attn_pool_open(attn_exec *exec, int32_t n_threads);
/* Ends the threads; exec is then the calling thread alone. No call may be using the pool. NULL and an exec without a pool:
 * nothing. */
ATTN_API void        attn_pool_close(attn_exec *exec);

/* An explicit zero is said by a flag: `scale = 0` alone means the default. A flag that an operation does not know is an error. */
enum { ATTN_SCALE_SET = 1, ATTN_WINDOW = 2, ATTN_IGNORE_SET = 4 };

/* ---- softmax family: along the last axis ----------------------------------------------------------- */

/* With z = scale * x + bias, over the live entries j of a row (mask true, z not -inf), m their maximum:
 *   ATTN_SOFTMAX      y_j = exp(z_j - m) / sum_k exp(z_k - m); 0 where masked, and everywhere in a row without live entries
 *   ATTN_LOG_SOFTMAX  y_j = (z_j - m) - log sum_k exp(z_k - m), never log(softmax); -inf where masked
 *   ATTN_SOFTMIN      the softmax of -z; +inf in z then masks
 *   logsumexp         m + log sum_k exp(z_k - m); -inf of a row without live entries
 *   ATTN_ENTMAX       y_j = [(alpha - 1) z_j - tau]_+^(1/(alpha-1)), tau so that the row sums to 1 (Peters et al. 2019); alpha 1
 *                     is softmax, 1.5 ATTN_ENTMAX15, 2 ATTN_SPARSEMAX (Martins and Astudillo 2016)
 *   ATTN_GUMBEL_SOFTMAX  softmax of (z + g) / temperature, g = -log(-log(u)) with u from the seed and from where j stands in x
 *                     (Jang et al. 2017)
 * A live NaN, and for all but softmin and logsumexp a live +inf of z, makes all live entries of its own row NaN. */
enum { ATTN_SOFTMAX = 0, ATTN_LOG_SOFTMAX, ATTN_SOFTMIN, ATTN_SPARSEMAX, ATTN_ENTMAX15, ATTN_ENTMAX, ATTN_GUMBEL_SOFTMAX };

typedef struct attn_softmax_args {
    int32_t     op;             /* ATTN_SOFTMAX, ...; of logsumexp ATTN_SOFTMIN negates z, and any other that is built does not */
    uint32_t    flags;          /* ATTN_SCALE_SET: `scale` counts even when it is 0 */
    attn_tensor x, y;           /* [..., n], rank 1 to 6, same shape; x of a float dtype, y of x's or F32; y may be x */
    attn_tensor mask;           /* optional ATTN_BOOL, broadcasts to x from the right: true = live; a masked x never counts */
    attn_tensor bias;           /* optional, x's dtype or F32, broadcasts to x, added to scale * x; -inf masks */
    double      scale;          /* default 1; finite */
    double      alpha;          /* ATTN_ENTMAX: 1 or more, default 1.5; with another op an error, as are the next two */
    double      temperature;    /* ATTN_GUMBEL_SOFTMAX: above 0, default 1 */
    int32_t     hard;           /* ATTN_GUMBEL_SOFTMAX: y is one-hot, 1 at the first largest */
    uint64_t    seed;           /* of ATTN_GUMBEL_SOFTMAX's noise */
    uint64_t    reserved[32];   /* zero, or ATTN_UNSUPPORTED */
} attn_softmax_args;

typedef struct attn_softmax_grads {
    attn_tensor dy;             /* in, the shape of y: the loss's gradient to it; y's dtype or F32 */
    attn_tensor dx;             /* out, the shape of x, its dtype or F32; may be dy */
    attn_tensor dalpha;         /* out, optional, ATTN_ENTMAX: one F32 or F64 */
    uint64_t    reserved[32];   /* zero, or ATTN_UNSUPPORTED */
} attn_softmax_grads;

/* None of these needs a workspace. Rows of more than 256 elements that do not lie densely are worked on in a lent one that is
 * large enough, else in memory of the call's own; a lent one that is too small is left alone, and nothing is allocated. */
ATTN_API attn_status attn_softmax(const attn_softmax_args *a, const attn_exec *exec);
/* dx_j = scale y_j (dy_j - sum_k y_k dy_k), for gumbel-softmax over the temperature; for log-softmax
 * scale (dy_j - exp(y_j) sum_k dy_k); for entmax scale r_j (dy_j - sum_k r_k dy_k / sum_k r_k), r = y^(2 - alpha) where y > 0;
 * 0 where y has no weight. Reads y (the forward's result; for ATTN_GUMBEL_SOFTMAX the soft one), op, flags, scale, alpha and
 * temperature; of x, where it is given, only its shape and dtype. */
ATTN_API attn_status attn_softmax_backward(const attn_softmax_args *a, const attn_softmax_grads *g, const attn_exec *exec);
/* y: the shape of x without its last axis ([1] or rank 0 for x of rank 1); x's dtype or F32. */
ATTN_API attn_status attn_logsumexp(const attn_softmax_args *a, const attn_exec *exec);
/* dx_j = scale dy softmax(z)_j. Reads x, mask and bias (not y); dy has the shape of y. */
ATTN_API attn_status attn_logsumexp_backward(const attn_softmax_args *a, const attn_softmax_grads *g, const attn_exec *exec);

/* Forward mode: what a change of x does to y. */
typedef struct attn_softmax_tangents {
    attn_tensor dx;             /* in, the shape of x: the direction x moves in; y's dtype (of logsumexp x's) or F32 */
    attn_tensor dy;             /* out, the shape of y: the direction y then moves in; x's dtype or F32; may be dx */
    uint64_t    reserved[32];   /* zero, or ATTN_UNSUPPORTED */
} attn_softmax_tangents;

/* dy_j = scale y_j (dx_j - sum_k y_k dx_k), for gumbel-softmax over the temperature; for log-softmax
 * scale (dx_j - sum_k exp(y_k) dx_k); for entmax scale r_j (dx_j - sum_k r_k dx_k / sum_k r_k): the backward's formulas, but
 * for log-softmax's, because the slopes of y_j to x_k and of y_k to x_j are one. 0 where y has no weight, and dx counts nothing
 * there. Reads what the backward reads. */
ATTN_API attn_status attn_softmax_jvp(const attn_softmax_args *a, const attn_softmax_tangents *t, const attn_exec *exec);
/* dy = scale sum_j softmax(z)_j dx_j. Reads x, mask and bias (not y); dy has the shape of y. */
ATTN_API attn_status attn_logsumexp_jvp(const attn_softmax_args *a, const attn_softmax_tangents *t, const attn_exec *exec);

/* ---- routers: the top-k softmax of a mixture of experts ---------------------------------------------- */

/* From logits x of all experts of a token to the k that it goes to, the first choice first, and their weights w:
 *   ATTN_SOFTMAX_TOP_K  w = scale p of the k largest x, p the softmax over all experts (Shazeer et al. 2017, Fedus et al. 2021);
 *                       with `normalize` over their sum (Jiang et al. 2024): the numbers of ATTN_TOP_K_SOFTMAX
 *   ATTN_TOP_K_SOFTMAX  w = scale times the softmax over the k largest x alone
 *   ATTN_SIGMOID_TOP_K  g = 1 / (1 + exp(-x)); the k largest g + bias are chosen, w = scale g; with `normalize` g over the sum of
 *                       the chosen g (DeepSeek-AI 2024, DeepSeek-V3)
 * Ties go to the lower index. An expert whose x or bias is -inf is masked: never chosen, and of no weight in p. Beyond the live
 * experts index is -1 and w 0. NaN comes before all. A live NaN or +inf of x makes all w of its row NaN, of ATTN_SIGMOID_TOP_K
 * only NaN does (in x or bias), and without `normalize` only its own. Choices and w are worked out in double; of F32 logits p
 * is as exact as ATTN_SOFTMAX. */
enum { ATTN_SOFTMAX_TOP_K = 0, ATTN_TOP_K_SOFTMAX, ATTN_SIGMOID_TOP_K };

typedef struct attn_top_k_softmax_args {
    int32_t     order;          /* ATTN_SOFTMAX_TOP_K, ... */
    uint32_t    flags;          /* ATTN_SCALE_SET: `scale` counts even when it is 0 */
    int32_t     normalize;      /* the weights of a row sum to `scale`, but where all of them are 0; an error with
                                 * ATTN_TOP_K_SOFTMAX, where they do anyway */
    attn_tensor logits;         /* [..., experts], rank 1 to 6, a float dtype */
    attn_tensor bias;           /* optional [experts], logits' dtype or F32; ATTN_SIGMOID_TOP_K: chooses, and weighs nothing */
    attn_tensor index;          /* out, I32 or I64 [..., k]; k may be any number */
    attn_tensor weight;         /* out [..., k], logits' dtype or F32 */
    double      scale;          /* of the weights: default 1; finite */
    uint64_t    reserved[32];   /* zero, or ATTN_UNSUPPORTED */
} attn_top_k_softmax_args;

typedef struct attn_top_k_softmax_grads {
    attn_tensor dweight;        /* in, the shape of weight: the loss's gradient to it; logits' dtype or F32 */
    attn_tensor dlogits;        /* out, the shape of logits, its dtype or F32 */
    uint64_t    reserved[32];   /* zero, or ATTN_UNSUPPORTED */
} attn_top_k_softmax_grads;

/* Bytes a call needs with n_threads: none up to k = 256. Reads shapes, never data. The backward needs none. */
ATTN_API size_t attn_top_k_softmax_workspace(const attn_top_k_softmax_args *a, int32_t n_threads);
/* One sweep that keeps the k best, and for ATTN_SOFTMAX_TOP_K one for the sum: never a sort of the row. */
ATTN_API attn_status attn_top_k_softmax(const attn_top_k_softmax_args *a, const attn_exec *exec);
/* The choice stays as it is, so that the gradient is that of the weights. With dv = scale dweight, 0 where not chosen:
 *     softmax over all      dx_i = p_i (dv_i - sum_r p_r dv_r), the chosen r
 *     over the chosen       dx_r = s_r (dv_r - sum_q s_q dv_q), s = w / scale; 0 where not chosen, here and below
 *     sigmoid               dx_r = dv_r g_r (1 - g_r);  normalised  (dv_r - sum_q g_q / G dv_q) g_r (1 - g_r) / G, G = sum_q g_q
 * Reads logits, bias (NaN in it shows) and index, where the forward left what it chose; not weight, which may be absent. An index
 * outside -1 .. experts - 1 is ATTN_BAD_ARGUMENT, naming its place. */
ATTN_API attn_status attn_top_k_softmax_backward(const attn_top_k_softmax_args *a, const attn_top_k_softmax_grads *g,
                                                 const attn_exec *exec);

/* ---- sampling ------------------------------------------------------------------------------------------ */

/* One class for each row of logits x, drawn with the softmax probabilities of x / temperature that are left after, in this order,
 *   top_k   the k largest x stay, ties going to the lower class
 *   top_p   of these, the fewest of the largest whose probabilities, among what top_k left, add up to p or more (nucleus
 *           sampling, Holtzman et al. 2020); ties go to the lower class
 *   min_p   of these, those with (x - max x) / temperature >= log(min_p): at least min_p times as likely as the likeliest
 *           (Nguyen et al. 2024)
 * The largest always stays. With e = exp((x - max x) / temperature) of what is left, the draw is the first class, in the order of
 * classes, at which the sum of e is above u times their whole sum. u is of the row alone:
 *     u = (floor(W / 2^12) + 1/2) 2^-52,  W = w0 + w1 2^32, the first two words of Philox-4x32-10 with counter
 *     (row low, row high, 0, 2) and key seed, both low word first; row: the row's row-major number
 * so that the same seed and logits give the same draws with any number of threads and strides, and a row's draw depends on its
 * logits, its number and the seed alone. All is worked out in double. */
typedef struct attn_sample_args {
    uint32_t    flags;          /* none are known: 0 */
    attn_tensor logits;         /* [..., classes], rank 1 to 6, a float dtype; -inf masks */
    attn_tensor index;          /* out, I32 or I64: the shape of logits without its last axis ([1] or rank 0 for rank 1); -1
                                 * where nothing can be drawn: a row without a live class, with NaN, or (at a temperature
                                 * above 0) with +inf */
    attn_tensor probability;    /* out, optional, index's shape, logits' dtype or F32: of what was drawn, among what is left; 1 at
                                 * temperature 0. Where index is -1: 0 without a live class, else NaN */
    double      temperature;    /* finite, 0 or more; 0, the default: no draw, the first of the largest */
    int64_t     top_k;          /* 0: all. Negative: ATTN_BAD_ARGUMENT */
    double      top_p;          /* above 0, at most 1; default 1: all */
    double      min_p;          /* from 0 to 1; default 0: all */
    uint64_t    seed;
    uint64_t    reserved[32];   /* zero, or ATTN_UNSUPPORTED */
} attn_sample_args;

/* Bytes a call needs with n_threads: none at temperature 0, else at most 49 KiB and classes / 32 bytes a thread. Reads shapes
 * and options, never data. 0 where an option would be refused. */
ATTN_API size_t attn_sample_workspace(const attn_sample_args *a, int32_t n_threads);
/* Time grows with the number of classes, with any options: top_k and top_p select, they do not sort the row. */
ATTN_API attn_status attn_sample(const attn_sample_args *a, const attn_exec *exec);

/* ---- losses ------------------------------------------------------------------------------------------ */

/* Cross-entropy of softmax(logits), as torch.nn.functional.cross_entropy computes it. With nll_c = logsumexp(logits) - logits_c,
 * e the smoothing, w the class weights, a row costs
 *   label y             (1 - e) w_y nll_y + e / classes * sum_c w_c nll_c
 *   soft target t       sum_c w_c ((1 - e) t_c + e / classes) nll_c
 * plus z_loss * logsumexp(logits)^2 (Chowdhery et al. 2022), which class weights do not touch. ATTN_MEAN divides the sum by the
 * sum of w_y over the rows that count (soft targets: by n); when no row counts, loss and gradient are 0. */
enum { ATTN_MEAN = 0, ATTN_SUM, ATTN_NONE };

typedef struct attn_cross_entropy_args {
    uint32_t    flags;          /* ATTN_IGNORE_SET: `ignore_index` counts */
    int32_t     reduction;      /* ATTN_MEAN, ATTN_SUM, ATTN_NONE */
    attn_tensor logits;         /* [n, classes], a float dtype */
    attn_tensor labels;         /* I32 or I64 [n], each in [0, classes) or ignored; or float [n, classes], any numbers */
    attn_tensor class_weight;   /* optional [classes]; default ones. Floats here and below: logits' dtype or F32 */
    attn_tensor loss;           /* out: rank 0 or [1]; [n] with ATTN_NONE. F64 too */
    attn_tensor dlogits;        /* out, optional, may be logits: the gradient, from the same sweep; the sum's with ATTN_NONE */
    int64_t     ignore_index;   /* rows with this label cost nothing; -100 unless ATTN_IGNORE_SET */
    double      label_smoothing, z_loss; /* from 0 to 1; any finite number. Default 0 */
    uint64_t    reserved[32];   /* zero, or ATTN_UNSUPPORTED */
} attn_cross_entropy_args;

/* A label that is no class is ATTN_BAD_ARGUMENT, naming the first such row. Needs no workspace. */
ATTN_API attn_status attn_cross_entropy(const attn_cross_entropy_args *a, const attn_exec *exec);

/* The same loss of logits = x weight^T + bias, without ever holding the n x classes logits: blocks of rows meet blocks of
 * classes, whose sums of exponentials are joined as they come (Milakov and Gimelshein 2018), and what a strip of rows needs for
 * the gradients is kept or computed again. With dz the gradient to the logits: dx = dz weight, dweight = dz^T x, dbias = the sum
 * of dz over the rows. A row that is ignored is never multiplied: NaN in its x leaves no trace. */
typedef struct attn_linear_cross_entropy_args {
    uint32_t    flags;          /* ATTN_IGNORE_SET: `ignore_index` counts */
    int32_t     reduction;      /* ATTN_MEAN, ATTN_SUM, ATTN_NONE */
    attn_tensor x;              /* [n, dim], a float dtype. Floats here and below: x's dtype or F32 */
    attn_tensor weight;         /* [classes, dim] */
    attn_tensor bias;           /* optional [classes] */
    attn_tensor labels;         /* I32 or I64 [n], each in [0, classes) or ignored; or float [n, classes], any numbers */
    attn_tensor class_weight;   /* optional [classes]; default ones */
    attn_tensor loss;           /* out: rank 0 or [1]; [n] with ATTN_NONE. F64 too */
    attn_tensor dx, dweight, dbias; /* out, each optional: the shapes of x, weight, bias; dbias without a bias too: [classes] */
    int64_t     ignore_index;   /* rows with this label cost nothing; -100 unless ATTN_IGNORE_SET */
    double      label_smoothing, z_loss; /* from 0 to 1; any finite number. Default 0 */
    uint64_t    reserved[32];   /* zero, or ATTN_UNSUPPORTED */
} attn_linear_cross_entropy_args;

/* Bytes a call needs with n_threads; reads shapes, dtypes and options, never data. With gradients, F32 and F64: at most 32 MiB,
 * some 5 MiB, 3 elements * 256 * dim, 32 bytes for each class (up to 128 beside a large dim), and some 2 MiB for each thread,
 * however many rows there are. 0: a call that would be refused (the call itself says why); SIZE_MAX: more than can be
 * addressed. */
ATTN_API size_t attn_linear_cross_entropy_workspace(const attn_linear_cross_entropy_args *a, int32_t n_threads);
/* A label that is no class is ATTN_BAD_ARGUMENT, naming the first such row. */
ATTN_API attn_status attn_linear_cross_entropy(const attn_linear_cross_entropy_args *a, const attn_exec *exec);

/* ---- attention ------------------------------------------------------------------------------------------ */

/* For query i over keys j of one head, in this order:
 *   score    s = scale * q_i . k_j                    ATTN_DOT (Vaswani et al. 2017)
 *            s = scale * sum_d w_d tanh(q_id + k_jd)  ATTN_ADDITIVE (Bahdanau et al. 2015); the L x S x dim tensor never exists
 *            s = scale * q_i . k_j / (|q_i| |k_j|)    ATTN_COSINE; 0 for a zero vector
 *   then     s = c tanh(s / c) with softcap c;  s += bias;  s -= slope |i + offset - j| (ALiBi, Press et al. 2022);  masks
 *   weight   p = exp(s - m) / sum_j exp(s - m)        ATTN_WEIGHT_SOFTMAX: one sweep over the keys (Milakov and Gimelshein 2018),
 *                                                     block by block (FlashAttention, Dao et al. 2022)
 *            p = 1 / (1 + exp(-s))                    ATTN_WEIGHT_SIGMOID
 *            p = s / sum_j s, 0 where the sum is 0    ATTN_WEIGHT_NORMALIZED_SUM
 *            p = max(s, 0)^2                          ATTN_WEIGHT_RELU2 (So et al. 2021)
 *            p = [(alpha - 1) s - tau]_+^(1/(alpha-1)) ATTN_WEIGHT_ENTMAX (Peters et al. 2019), tau so that the row sums to 1;
 *                                                     alpha 2 is ATTN_WEIGHT_SPARSEMAX, 1.5 ATTN_WEIGHT_ENTMAX15, 1 the softmax
 *            p = 1 for the first largest s, else 0    ATTN_WEIGHT_HARDMAX; no gradient to the scores
 *                                                     (these four answer through the reference)
 *            a sink z adds exp(z - m) to the softmax's denominator alone (z = 0: softmax plus one; Xiao et al. 2024)
 *            dropout p then keeps each weight with probability 1 - p, 1 / (1 - p) times as large (Srivastava et al. 2014)
 *   mix      out_i = sum_j p_ij v_j
 *   see      what the weights were
 * Query i stands at position i + offset, key j at position j. A key is masked for a row when mask or block_mask is false,
 * bias is -inf, or causal, window or a length hides it; it is then never multiplied into that row, so that NaN or infinity in it
 * does not leak. A row that sees no key has out 0, lse -inf (the sink, where there is one), entropy 0 and no gradients but that of
 * the sink. NaN and infinity of live keys show as IEEE arithmetic has it. */

/* ATTN_CAUSAL: j <= i + offset, by default bottom-right: the last query stands on the last key. ATTN_CAUSAL_TOP_LEFT: j <= i, the
 * offset is 0, and giving one is ATTN_BAD_ARGUMENT. */
enum { ATTN_NOT_CAUSAL = 0, ATTN_CAUSAL, ATTN_CAUSAL_TOP_LEFT };
enum { ATTN_DOT = 0, ATTN_ADDITIVE, ATTN_COSINE };
/* What scores become. The softmax divides by the sum over live keys; the sigmoid and relu^2 divide by nothing. */
enum { ATTN_WEIGHT_SOFTMAX = 0, ATTN_WEIGHT_SIGMOID, ATTN_WEIGHT_NORMALIZED_SUM, ATTN_WEIGHT_SPARSEMAX, ATTN_WEIGHT_ENTMAX15,
       ATTN_WEIGHT_ENTMAX, ATTN_WEIGHT_RELU2, ATTN_WEIGHT_HARDMAX };
enum { ATTN_STAGE_WEIGHTED = 0, ATTN_STAGE_CAPPED, ATTN_STAGE_RAW };

/* What a call lets the caller see, besides its result; each tensor optional, F32 (F64 for F64 input) but for top_index, any
 * strides. Asking changes no bit of `out`, nor of anything else that is seen. All but weights and scores takes memory in proportion
 * to q_len + kv_len, and these to the rows that are seen. All before dropout. */
typedef struct attn_see {
    attn_tensor lse;            /* [batch, heads, q_len]: m + log sum_j exp(s_j - m), natural; softmax only. Backward: in */
    attn_tensor entropy;        /* same shape: -sum_j p_j ln p_j, nats; not of sigmoid, normalised sum, relu^2 */
    attn_tensor received;       /* [batch, heads, kv_len]: weight a key received, summed over queries */
    attn_tensor weights;        /* [batch, heads, q_len, kv_len], or of `rows` and `heads` alone: the p; 0 where masked */
    attn_tensor scores;         /* same shape; -inf where masked at ATTN_STAGE_WEIGHTED, of all rows and keys at the others */
    int32_t     scores_stage;   /* ATTN_STAGE_WEIGHTED: as they enter the weighting; _CAPPED: after softcap; _RAW: scale * q.k */
    attn_tensor top_index;      /* I32 or I64 [batch, heads, q_len, top_k]: the keys with the largest scores, largest first, */
                                /* ties to the lower key; -1 beyond the live keys */
    attn_tensor top_weight;     /* same shape: their weights; 0 beyond the live keys. Either may be asked for alone */
    const int64_t *rows, *heads; /* optional: weights and scores are of these rows and heads alone, in this order: */
    int64_t     n_rows, n_heads; /* [batch, n_heads, n_rows, kv_len]. From 0 to q_len - 1, to heads - 1; no head twice */
    attn_tensor pooled;         /* [batch, heads, P, Q]: means of the weights over P x Q blocks of the map. Block p holds rows */
                                /* floor(p q_len / P) to before floor((p + 1) q_len / P), Q likewise keys; 0 of an empty block */
    uint64_t    reserved[14];   /* zero, or ATTN_UNSUPPORTED */
} attn_see;

/* out = weighting(scores masked) v. Zero in every optional field is its default.
 * Grouped heads: k_heads and v_heads each divide heads; query head h reads key head h / (heads / k_heads), value head likewise.
 * q, k and v share one float dtype (mixtures: not built yet); dim and v_dim are at least 1, any length may be 0. Lengths, offsets
 * and positions reach to 2^52. Shapes that disagree are ATTN_BAD_SHAPE, other dtypes ATTN_BAD_ARGUMENT.
 * Packed batches: with q_starts, sequences of any lengths stand one behind the other along the length of a batch of 1, without
 * padding: sequence b has rows q_starts[b] .. q_starts[b+1] - 1 of q and out, keys kv_starts[b] .. kv_starts[b+1] - 1 of k and v, and
 * attends within itself; its positions begin at 0, and it is batch entry b of offset, alibi and dropout. Starts begin with 0, never
 * fall, and end with the total. What is seen and gradients are packed alike. Every sequence has the bits that it has alone. Beside
 * lengths: an error; with a mask, a block mask, a bias, weights, scores or pooled maps: not built yet. */
typedef struct attn_attention_args {
    uint32_t    flags;          /* ATTN_SCALE_SET: scale counts even when it is 0. ATTN_WINDOW: window counts */
    int32_t     score;          /* ATTN_DOT, ... */
    int32_t     weighting;      /* ATTN_WEIGHT_SOFTMAX, ... */
    int32_t     causal;         /* ATTN_NOT_CAUSAL, ... */
    attn_tensor q;              /* [batch, heads,   q_len,  dim]   */
    attn_tensor k;              /* [batch, k_heads, kv_len, dim]   */
    attn_tensor v;              /* [batch, v_heads, kv_len, v_dim] */
    attn_tensor out;            /* [batch, heads,   q_len,  v_dim], q's dtype or F32. Backward: in, optional */
    attn_tensor score_weight;   /* ATTN_ADDITIVE: [dim] or [heads, dim], q's dtype or F32; an error with another score */
    attn_tensor offset;         /* optional I32/I64 [1] or [batch]: where query 0 stands; default kv_len - q_len of that entry */
    int64_t     window[2];      /* with flag ATTN_WINDOW: keys kept left and right of a query's position; -1: unbounded */
    attn_tensor mask;           /* optional ATTN_BOOL, broadcasts to [batch, heads, q_len, kv_len]: true = attend */
    attn_tensor bias;           /* optional, broadcasts the same way, q's dtype or F32; added to the scores; -inf masks */
    attn_tensor alibi;          /* optional slopes [heads] or [batch, heads], q's dtype or F32 */
    attn_tensor q_lengths, kv_lengths; /* optional I32/I64 [batch], from 0 to q_len, kv_len: what is beyond is padding */
    attn_tensor sinks;          /* optional [heads]: q's dtype or F32: logits in the softmax's denominator only */
    double      scale;          /* default 1/sqrt(dim) for ATTN_DOT, else 1; finite */
    double      softcap;        /* 0: none; else positive and finite */
    double      alpha;          /* ATTN_WEIGHT_ENTMAX: 1 or more, default 1.5; with another weighting an error */
    double      dropout;        /* 0: none; a probability up to 1, which leaves nothing */
    uint64_t    seed, dropout_offset; /* of the dropout: the same two drop the same weights, forward and backward. Key j of row */
                                /* i is dropped where word j & 3 of Philox-4x32-10 with counter (j >> 2, i, batch entry, head) */
                                /* is below round(dropout * 2^32); the key is seed, or with an offset other than 0 the first */
                                /* two words of counter (offset, 0) under it */
    attn_see    see;            /* all optional */
    attn_tensor q_starts, kv_starts; /* optional I32/I64 [sequences + 1]: a packed batch, see below. kv_starts' default: q_starts */
    attn_tensor block_mask;     /* optional ATTN_BOOL, a mask of whole blocks: true = query i may attend to key j. Element */
                                /* [i / block_size, j / block_size]; broadcasts to [batch, heads, ceil(q_len / block_size), */
                                /* ceil(kv_len / block_size)]. What is dead is not computed. With mask: both have to be true */
    int64_t     block_size;     /* of block_mask, in rows and in keys: 1 or more, default 128; without block_mask an error */
    uint64_t    reserved[21];   /* zero, or ATTN_UNSUPPORTED */
} attn_attention_args;

typedef struct attn_attention_grads {
    attn_tensor dout;           /* in, the shape of out, q's dtype or F32: the loss's gradient to it */
    attn_tensor dlse;           /* in, optional [batch, heads, q_len], F32 (F64 for F64 input): to see.lse; softmax only */
    attn_tensor dq, dk, dv;     /* out, each optional: their input's shape, its dtype or F32; summed over the heads of a group */
    attn_tensor dbias, dsinks, dalibi, dalpha, dscore_weight; /* out, each optional; an extent of 1 is summed over */
                                /* Broadcast to the scores, [batch, heads] twice, [heads, dim]; the input has to be there. */
                                /* dalpha: one F32 or F64, of ATTN_WEIGHT_ENTMAX */
    uint64_t    reserved[64];   /* zero, or ATTN_UNSUPPORTED */
} attn_attention_grads;

/* Bytes a call needs with n_threads; reads shapes and options, never data. 0: none, or a call that would be refused (the call
 * itself says why); SIZE_MAX: more than can be addressed. */
ATTN_API size_t attn_attention_workspace(const attn_attention_args *a, int32_t n_threads);
ATTN_API size_t attn_attention_backward_workspace(const attn_attention_args *a, const attn_attention_grads *g, int32_t n_threads);
/* Writes a->out and what a->see asks for. */
ATTN_API attn_status attn_attention(const attn_attention_args *a, const attn_exec *exec);
/* With dp_ij = dout_i . v_j, times what dropout multiplied the weight by, the gradient of a score is
 *     softmax          ds_ij = p_ij (dp_ij - sum_k p_ik dp_ik + dlse_i)
 *     sigmoid          ds_ij = p_ij (1 - p_ij) dp_ij
 *     relu^2           ds_ij = 2 max(s_ij, 0) dp_ij
 *     normalised sum   ds_ij = (dp_ij - sum_k p_ik dp_ik) / sum_k s_ik
 *     entmax           ds_ij = r_ij (dp_ij - sum_k r_ik dp_ik / sum_k r_ik), r = p^(2 - alpha) where p > 0, else 0
 * and dq_i = scale sum_j ds_ij k_j, dk_j = scale sum_i ds_ij q_i, dv_j = sum_i p_ij dout_i (p after dropout), dbias = ds, through
 * the softcap where there is one; dsink = sum_i p_i,sink (dlse_i - sum_k p_ik dp_ik). Weights are computed again, block by block,
 * never kept. Reads a->out and a->see.lse when they are there (they have to be the forward's), recomputes them when not; the rest
 * of a->see is checked and not written. Writes only what g asks for. */
ATTN_API attn_status attn_attention_backward(const attn_attention_args *a, const attn_attention_grads *g, const attn_exec *exec);

/* Forward mode: what a change of q, k, v and bias does to out and lse. Of the dot score and the softmax, with everything else
 * that attention takes; another score or weighting is not built yet. */
typedef struct attn_attention_tangents {
    attn_tensor dq, dk, dv;     /* in, each optional: the input's direction: its shape, its dtype or F32; absent: it stays */
    attn_tensor dbias;          /* in, optional: broadcasts as bias does, which has to be there; bias's dtype or F32 */
    attn_tensor dout;           /* out, optional: the shape of out, q's dtype or F32 */
    attn_tensor dlse;           /* out, optional: [batch, heads, q_len], F32 (F64 for F64 input) */
    uint64_t    reserved[64];   /* zero, or ATTN_UNSUPPORTED */
} attn_attention_tangents;

/* Bytes: as attn_attention_workspace. */
ATTN_API size_t attn_attention_jvp_workspace(const attn_attention_args *a, const attn_attention_tangents *t, int32_t n_threads);
/* With ds_ij = scale (dq_i . k_j + q_i . dk_j), through the softcap where there is one, plus dbias_ij, over the keys that row i
 * sees:
 *     dlse_i = sum_j p_ij ds_ij        dout_i = sum_j p_ij ((ds_ij - dlse_i) v_j + dv_j), p times what dropout multiplies it by
 * in one sweep over the keys and memory in proportion to q_len + kv_len. Also writes a->out and a->see.lse where they are there,
 * the same bits as attn_attention; the rest of a->see is checked and not written. A row that sees no key moves by 0; the tangents
 * of a masked key count nothing, whatever they are. */
ATTN_API attn_status attn_attention_jvp(const attn_attention_args *a, const attn_attention_tangents *t, const attn_exec *exec);

/* The backward's own backward, of the dot score and the softmax (others are not built yet): a loss of dq, dk and dv (gradient
 * penalties, Hessian-vector products) has the gradients ddq, ddk and ddv to them; these are its gradients to q, k, v, dout and
 * dlse. */
typedef struct attn_attention_double_grads {
    attn_tensor dout;           /* in, as in attn_attention_grads, and so is dlse */
    attn_tensor dlse;
    attn_tensor ddq, ddk, ddv;  /* in, each optional: the loss's gradient to dq, dk, dv of the backward; their input's shape, */
                                /* its dtype or F32; absent: 0 */
    attn_tensor dq, dk, dv;     /* out, each optional: the loss's gradient to q, k, v; as in attn_attention_grads */
    attn_tensor ddout, ddlse;   /* out, each optional: to dout and dlse; the shape of out, q's dtype or F32; [batch, heads, */
                                /* q_len], F32 (F64 for F64 input) */
    uint64_t    reserved[64];   /* zero, or ATTN_UNSUPPORTED */
} attn_attention_double_grads;

/* Bytes: as attn_attention_backward_workspace. */
ATTN_API size_t attn_attention_double_backward_workspace(const attn_attention_args *a, const attn_attention_double_grads *g,
                                                         int32_t n_threads);
/* With, over the keys that row i sees and without softcap or dropout,
 *     r_ij = scale (ddq_i . k_j + q_i . ddk_j)      m_i = sum_j p_ij r_ij          (ddlse = m)
 *     ds_ij = p_ij (dp_ij - sum_k p_ik dp_ik + dlse_i), dp_ij = dout_i . v_j       (the backward's)
 *     ddout_i = sum_j p_ij ((r_ij - m_i) v_j + ddv_j)                              (the forward mode's dout along ddq, ddk, ddv)
 *     x_ij = (r_ij - m_i) ds_ij + p_ij (dout_i . ddv_j - dout_i . ddout_i)
 *     dq_i = scale sum_j (x_ij k_j + ds_ij ddk_j)   dk_j = scale sum_i (x_ij q_i + ds_ij ddq_i)
 *     dv_j = sum_i p_ij (r_ij - m_i) dout_i
 * and exact through softcap and dropout too (docs/SEMANTICS.md). Weights are computed again, block by block, never kept. a->out
 * and a->see are checked; nothing of them is read or written. */
ATTN_API attn_status attn_attention_double_backward(const attn_attention_args *a, const attn_attention_double_grads *g,
                                                    const attn_exec *exec);

/* What each key receives when the queries count for different amounts: a row of numbers times the weights, in memory in proportion to
 * q_len + kv_len. From the top layer down such steps are the rollout of one row (Abnar and Zuidema 2020), and with dout gradient
 * times attention (Chefer, Gur and Wolf 2021), without a map of weights anywhere. */
typedef struct attn_received_args {
    attn_tensor by;             /* in, optional: what a query counts; broadcasts to [batch, heads, q_len], F32 (F64 for F64 input); */
                                /* default 1. A query that counts 0 is left out, whatever its weights are */
    attn_tensor dout;           /* in, optional, as in attn_attention_grads: weights count times their gradients */
    int32_t     positive;       /* not 0, with dout: where that product is below 0 it counts as 0 */
    attn_tensor received;       /* out [batch, heads, kv_len], F32 (F64 for F64 input) */
    uint64_t    reserved[32];   /* zero, or ATTN_UNSUPPORTED */
} attn_received_args;

/* Bytes: as attn_attention_workspace. */
ATTN_API size_t attn_attention_received_workspace(const attn_attention_args *a, const attn_received_args *r, int32_t n_threads);
/* received_j = sum_i by_i p_ij, or with dout sum_i by_i p_ij dp_ij, where dp_ij = dout_i . v_j times what dropout multiplied the
 * weight by; weights before dropout. Reads a->see.lse when it is there (it has to be the forward's) and needs one sweep over the
 * scores then, else two; the rest of a->see, and a->out, are checked, neither read nor written. */
ATTN_API attn_status attn_attention_received(const attn_attention_args *a, const attn_received_args *r, const attn_exec *exec);

/* ---- merging parts of attention ---------------------------------------------------------------------------- */

/* The results of attention over disjoint sets of keys (pages of a cache, its share on another machine, a prefix that many
 * sequences have in common) become attention over all of them. With m the largest lse of a row and w_i = exp(lse_i - m):
 *     out = sum_i w_i out_i / sum_i w_i        lse = m + log sum_i w_i
 * A part whose lse is -inf saw no key and counts nothing, whatever its out holds; where none saw any, out is 0 and lse -inf.
 * Sinks belong to one of the parts, since each lse takes in what its call was given. */
typedef struct attn_merge_args {
    int64_t     n;              /* parts, at least one */
    const attn_tensor *outs;    /* n of them: [..., v_dim], of rank 2 to 6 and one shape; the first one's float dtype, or F32 */
    const attn_tensor *lses;    /* n of them: [...], F32 (F64 where the first out is) */
    attn_tensor out;            /* [..., v_dim], any float dtype; may be outs[0] */
    attn_tensor lse;            /* optional [...], F32 (F64 where the first of outs is); may be lses[0] */
    uint64_t    reserved[32];   /* zero, or ATTN_UNSUPPORTED */
} attn_merge_args;

typedef struct attn_merge_grads {
    attn_tensor dout;           /* in [..., v_dim]: the loss's gradient to out; the dtype of outs[0], or F32 */
    attn_tensor dlse;           /* in, optional [...]: to lse; F32 (F64) */
    const attn_tensor *douts;   /* optional, n of them, out: each [..., v_dim], the dtype of outs[0] or F32, or absent */
    const attn_tensor *dlses;   /* optional, n of them, out: each [...], F32 (F64), or absent */
    uint64_t    reserved[32];   /* zero, or ATTN_UNSUPPORTED */
} attn_merge_grads;

/* Needs no workspace. */
ATTN_API attn_status attn_merge(const attn_merge_args *a, const attn_exec *exec);
/* With p_i = w_i / sum_k w_k: douts_i = p_i dout, dlses_i = p_i (dout . (out_i - out) + dlse). Reads outs and lses, not out and
 * lse. attn_attention_backward of a part, told the merged out and lse (a->out, a->see.lse) and the loss's gradient to them, needs
 * none of this. */
ATTN_API attn_status attn_merge_backward(const attn_merge_args *a, const attn_merge_grads *g, const attn_exec *exec);

/* ---- gates ------------------------------------------------------------------------------------------------- */

/* y = x * sigmoid(g), x + g * x, x * g. Need no workspace. */
enum { ATTN_GATE_SIGMOID = 0, ATTN_GATE_ADDITIVE, ATTN_GATE_MULTIPLICATIVE };

typedef struct attn_gate_args {
    int32_t     kind;           /* ATTN_GATE_SIGMOID, ... */
    uint32_t    flags;          /* none are known: 0 */
    attn_tensor x, g, y;        /* same shape, any rank; float dtypes: g and y of x's or F32; y may be x */
    uint64_t    reserved[32];   /* zero, or ATTN_UNSUPPORTED */
} attn_gate_args;

typedef struct attn_gate_grads {
    attn_tensor dy;             /* in: the loss's gradient to y. All three: the shape of x, its dtype or F32 */
    attn_tensor dx, dg;         /* out, each optional; dx may be dy */
    uint64_t    reserved[32];   /* zero, or ATTN_UNSUPPORTED */
} attn_gate_grads;

ATTN_API attn_status attn_gate(const attn_gate_args *a, const attn_exec *exec);
/* dx = dy sigmoid(g), dy (1 + g), dy g; dg = dy x sigmoid(g) (1 - sigmoid(g)), dy x, dy x. Reads x and g (not y). */
ATTN_API attn_status attn_gate_backward(const attn_gate_args *a, const attn_gate_grads *g, const attn_exec *exec);

/* ---- the machine ------------------------------------------------------------------------------------------ */

/* The level in use: "scalar", "avx2" or "avx512" ("avx512bf16", "amx" and "neon" have no kernels yet). The environment's
 * ATTN_ISA, read once, lowers it; a name nobody knows lowers nothing, one that is not there is the best below it. A constant
 * string. */
ATTN_API const char *attn_isa(void);
/* The version of the library that runs, "0.1.0". A constant string. */
ATTN_API const char *attn_version(void);

/* clang-format on */

#ifdef __cplusplus
}
#endif
#endif
