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
 */
#ifndef ATTN_H
#define ATTN_H

#include <stddef.h>
#include <stdint.h>

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
    ATTN_OK = 0,
    ATTN_BAD_SHAPE,       /* shapes disagree, or a rank is not the one asked for */
    ATTN_BAD_ARGUMENT,    /* NULL where data is needed, a window below -1, a label out of range, ... */
    ATTN_UNSUPPORTED,     /* right, but not built: this dtype on this operation; a reserved field that is not zero */
    ATTN_SMALL_WORKSPACE, /* fewer bytes than the matching _workspace() says */
    ATTN_NO_MEMORY
} attn_status;

ATTN_API const char *attn_status_name(attn_status s);
/* What went wrong in this thread's last failing call: "k has head size 64, q has 128". Unchanged by success. */
ATTN_API const char *attn_last_error(void);

/* ---- tensors: borrowed, strided, never owned by the library --------------------------------------- */

enum { ATTN_F32 = 0, ATTN_BF16, ATTN_F16, ATTN_F64, ATTN_BOOL, ATTN_I8, ATTN_U8, ATTN_I32, ATTN_I64 };
enum { ATTN_MAX_RANK = 6 };

typedef struct attn_tensor {
    void   *data;                   /* may be NULL when an extent is 0, and in _workspace() questions */
    int32_t dtype;
    int32_t rank;                   /* 0: absent, except where a scalar is meant */
    int64_t shape[ATTN_MAX_RANK];
    int64_t stride[ATTN_MAX_RANK];  /* in elements, as in DLPack; 0 broadcasts (inputs only) */
} attn_tensor;

/* A dense row-major tensor over `data`. */
ATTN_API attn_tensor attn_dense(int32_t dtype, const void *data, int32_t rank, const int64_t *shape);
/* [batch, heads, length, dim] views of the two common layouts. Anything else: set the strides. */
ATTN_API attn_tensor attn_bhsd(int32_t dtype, const void *data, int64_t b, int64_t h, int64_t s, int64_t d);
ATTN_API attn_tensor attn_bshd(int32_t dtype, const void *data, int64_t b, int64_t s, int64_t h, int64_t d);
/* The same elements with `axis` moved to the end (negative counts from the end). Row operations work along the last axis. */
ATTN_API attn_tensor attn_axis_last(attn_tensor t, int32_t axis);

/* ---- execution: who runs the work, who lends the memory ------------------------------------------- */

typedef void (*attn_task)(void *job, int32_t worker);

typedef struct attn_exec {
    int32_t n_threads;      /* 0 or 1: the calling thread alone */
    /* Calls task(job, w) once for each w in [0, n), n <= n_threads, at once or one after the other, and returns when all have
     * returned. w names the worker's scratch. Tasks draw work items themselves, never wait for each other and never fail. */
    void  (*parallel_for)(void *pool, int32_t n, attn_task task, void *job);
    void   *pool;
    void   *workspace;      /* NULL: the call allocates and frees its own */
    size_t  workspace_size;
} attn_exec;

/* The library's own pool: fills in n_threads, parallel_for and pool. 0: ATTN_THREADS, else the cores this process may use. */
ATTN_API attn_status attn_pool_open(attn_exec *exec, int32_t n_threads);
ATTN_API void        attn_pool_close(attn_exec *exec);

/* An explicit zero is said by a flag: `scale = 0` alone means the default. */
enum { ATTN_SCALE_SET = 1, ATTN_WINDOW = 2, ATTN_IGNORE_SET = 4 };

/* ---- softmax family: along the last axis ----------------------------------------------------------- */

enum { ATTN_SOFTMAX = 0, ATTN_LOG_SOFTMAX, ATTN_SOFTMIN, ATTN_SPARSEMAX, ATTN_ENTMAX15, ATTN_ENTMAX, ATTN_GUMBEL_SOFTMAX };

typedef struct attn_softmax_args {
    int32_t     op;             /* ATTN_SOFTMAX, ... */
    uint32_t    flags;
    attn_tensor x, y;           /* same shape; y may be x */
    attn_tensor mask;           /* optional ATTN_BOOL, broadcasts to x: true = live */
    attn_tensor bias;           /* optional, broadcasts to x, added to scale * x */
    double      scale;          /* default 1 */
    double      alpha;          /* ATTN_ENTMAX: default 1.5 */
    double      temperature;    /* ATTN_GUMBEL_SOFTMAX: default 1 */
    int32_t     hard;           /* ATTN_GUMBEL_SOFTMAX: y is one-hot */
    uint64_t    seed;
    uint64_t    reserved[32];
} attn_softmax_args;

typedef struct attn_softmax_grads {
    attn_tensor dy;             /* in */
    attn_tensor dx;             /* out; may be dy */
    attn_tensor dalpha;         /* out, optional, ATTN_ENTMAX: one F32 or F64 */
    uint64_t    reserved[32];
} attn_softmax_grads;

ATTN_API attn_status attn_softmax(const attn_softmax_args *a, const attn_exec *exec);
/* Reads y (the forward's result; for ATTN_GUMBEL_SOFTMAX the soft one), not x. */
ATTN_API attn_status attn_softmax_backward(const attn_softmax_args *a, const attn_softmax_grads *g, const attn_exec *exec);
/* y: the shape of x without its last axis. */
ATTN_API attn_status attn_logsumexp(const attn_softmax_args *a, const attn_exec *exec);
ATTN_API attn_status attn_logsumexp_backward(const attn_softmax_args *a, const attn_softmax_grads *g, const attn_exec *exec);

/* ---- losses ------------------------------------------------------------------------------------------ */

enum { ATTN_MEAN = 0, ATTN_SUM, ATTN_NONE };

typedef struct attn_cross_entropy_args {
    uint32_t    flags;
    int32_t     reduction;      /* ATTN_MEAN, ATTN_SUM, ATTN_NONE */
    attn_tensor logits;         /* [n, classes] */
    attn_tensor labels;         /* I32 or I64 [n], or float [n, classes] */
    attn_tensor class_weight;   /* optional [classes] */
    attn_tensor loss;           /* out: rank 0 or [1]; [n] with ATTN_NONE */
    attn_tensor dlogits;        /* out, optional: the loss's gradient from the same sweep */
    int64_t     ignore_index;   /* -100 unless ATTN_IGNORE_SET */
    double      label_smoothing, z_loss;
    uint64_t    reserved[32];
} attn_cross_entropy_args;

ATTN_API attn_status attn_cross_entropy(const attn_cross_entropy_args *a, const attn_exec *exec);

/* ---- attention ------------------------------------------------------------------------------------------ */

enum { ATTN_NOT_CAUSAL = 0, ATTN_CAUSAL, ATTN_CAUSAL_TOP_LEFT };
enum { ATTN_DOT = 0, ATTN_ADDITIVE, ATTN_COSINE };
enum { ATTN_WEIGHT_SOFTMAX = 0, ATTN_WEIGHT_SIGMOID, ATTN_WEIGHT_NORMALIZED_SUM, ATTN_WEIGHT_SPARSEMAX, ATTN_WEIGHT_ENTMAX15,
       ATTN_WEIGHT_ENTMAX, ATTN_WEIGHT_RELU2, ATTN_WEIGHT_HARDMAX };
enum { ATTN_STAGE_WEIGHTED = 0, ATTN_STAGE_CAPPED, ATTN_STAGE_RAW };

/* What a call lets the caller see, besides its result. Asking changes no bit of `out`. All before dropout. */
typedef struct attn_see {
    attn_tensor lse;            /* F32 (F64 for F64 input) [batch, heads, q_len]; softmax only */
    attn_tensor entropy;        /* same shape, nats */
    attn_tensor received;       /* [batch, heads, kv_len]: weight a key received, summed over queries */
    attn_tensor weights;        /* [batch, heads, q_len, kv_len] */
    attn_tensor scores;         /* same shape; -inf where masked at ATTN_STAGE_WEIGHTED */
    int32_t     scores_stage;   /* as they enter the weighting; after softcap; scale * q.k */
    attn_tensor top_index;      /* I32 or I64 [batch, heads, q_len, top_k] */
    attn_tensor top_weight;     /* F32 (F64 for F64 input), same shape */
    uint64_t    reserved[32];
} attn_see;

/* out = weighting(scores masked) v. Zero in every optional field is its default. */
typedef struct attn_attention_args {
    uint32_t    flags;
    int32_t     score;          /* ATTN_DOT, ... */
    int32_t     weighting;      /* ATTN_WEIGHT_SOFTMAX, ... */
    int32_t     causal;         /* ATTN_NOT_CAUSAL, ... */
    attn_tensor q;              /* [batch, heads,   q_len,  dim]   */
    attn_tensor k;              /* [batch, k_heads, kv_len, dim]   */
    attn_tensor v;              /* [batch, v_heads, kv_len, v_dim] */
    attn_tensor out;            /* [batch, heads,   q_len,  v_dim] */
    attn_tensor score_weight;   /* ATTN_ADDITIVE: [dim] or [heads, dim] */
    attn_tensor offset;         /* optional I32/I64 [1] or [batch]: where query 0 stands; default kv_len - q_len (of that entry) */
    int64_t     window[2];      /* with flag ATTN_WINDOW: keys kept left and right of a query's position; -1: unbounded */
    attn_tensor mask;           /* optional ATTN_BOOL, broadcasts to [batch, heads, q_len, kv_len]: true = attend */
    attn_tensor bias;           /* optional, broadcasts the same way */
    attn_tensor alibi;          /* optional slopes [heads] or [batch, heads] */
    attn_tensor q_lengths, kv_lengths; /* optional I32/I64 [batch] */
    attn_tensor sinks;          /* optional [heads] */
    double      scale;          /* default 1/sqrt(dim) for ATTN_DOT, else 1 */
    double      softcap;        /* 0: none */
    double      alpha;          /* ATTN_WEIGHT_ENTMAX: default 1.5 */
    double      dropout;        /* 0: none */
    uint64_t    seed, dropout_offset; /* of the dropout's counter-based generator */
    attn_see    see;
    uint64_t    reserved[64];
} attn_attention_args;

typedef struct attn_attention_grads {
    attn_tensor dout;           /* in */
    attn_tensor dlse;           /* in, optional */
    attn_tensor dq, dk, dv;     /* out, each optional */
    attn_tensor dbias, dsinks, dalibi, dalpha, dscore_weight; /* out, each optional; an extent of 1 is summed over */
    uint64_t    reserved[64];
} attn_attention_grads;

/* Bytes a call needs with n_threads; reads shapes and options, never data. */
ATTN_API size_t attn_attention_workspace(const attn_attention_args *a, int32_t n_threads);
ATTN_API size_t attn_attention_backward_workspace(const attn_attention_args *a, const attn_attention_grads *g, int32_t n_threads);
ATTN_API attn_status attn_attention(const attn_attention_args *a, const attn_exec *exec);
/* Recomputes what it is not given; reads a->out and a->see.lse when they are there. */
ATTN_API attn_status attn_attention_backward(const attn_attention_args *a, const attn_attention_grads *g, const attn_exec *exec);

/* ---- gates ------------------------------------------------------------------------------------------------- */

/* y = x * sigmoid(g), x + g * x, x * g. */
enum { ATTN_GATE_SIGMOID = 0, ATTN_GATE_ADDITIVE, ATTN_GATE_MULTIPLICATIVE };

typedef struct attn_gate_args {
    int32_t     kind;           /* ATTN_GATE_SIGMOID, ... */
    uint32_t    flags;
    attn_tensor x, g, y;        /* same shape and float dtype, any rank; y may be x */
    uint64_t    reserved[32];
} attn_gate_args;

typedef struct attn_gate_grads {
    attn_tensor dy;             /* in */
    attn_tensor dx, dg;         /* out, each optional; dx may be dy */
    uint64_t    reserved[32];
} attn_gate_grads;

ATTN_API attn_status attn_gate(const attn_gate_args *a, const attn_exec *exec);
/* Reads x and g (not y). */
ATTN_API attn_status attn_gate_backward(const attn_gate_args *a, const attn_gate_grads *g, const attn_exec *exec);

/* ---- the machine ------------------------------------------------------------------------------------------ */

/* The level in use: "scalar", "avx2", "avx512", "avx512bf16", "amx", "neon". The environment's ATTN_ISA lowers it. */
ATTN_API const char *attn_isa(void);
ATTN_API const char *attn_version(void);

#ifdef __cplusplus
}
#endif
#endif
