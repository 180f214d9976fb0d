/* SPDX-License-Identifier: Apache-2.0 */
/* ops.h - what models need beside attention: matrix products, norms, activations, embeddings, rotary positions, AdamW, Muon;
 * and linear attention.
 *
 * Same style and rules as attn.h: borrowed strided views, one args struct per operation, zero is the default, everything is
 * validated before anything is written, any thread may call, results are the same bits for any number of threads. F32 and F64 run
 * through vector kernels; BF16 and F16, and calls that mix dtypes, answer through the reference.
 *
 * The floats of a call have the dtype of its first one (x, a, table, dy, q) or F32. ATTN_BAD_SHAPE: shapes that disagree.
 * ATTN_UNSUPPORTED: another dtype, a reserved word that is not zero. ATTN_BAD_ARGUMENT: an enumerator or flag that is not there,
 * a number out of its range, missing data. Matrix products, norms and linear attention may want a workspace, the others never do.
 *
 *     attn_matmul_args linear = {                               // y = gelu(x W^T + bias)
 *         .a = x,                                               // [m, k]
 *         .b = attn_transposed(weight),                         // weight is [n, k], as models store it
 *         .c = y, .bias = bias, .activation = ATTN_GELU,
 *     };
 *     attn_matmul(&linear, NULL);
 */
#ifndef ATTN_OPS_H
#define ATTN_OPS_H

#include <attn/attn.h>

#ifdef __cplusplus
extern "C" {
#endif

/* clang-format off */
/* Flags of the operations below: results are added to what an output holds, instead of replacing it. */
enum { ATTN_ACCUMULATE = 8 };

/* The same matrix with its two axes exchanged (rank 2; any other rank comes back with rank -1, which every operation refuses). */
ATTN_API attn_tensor attn_transposed(attn_tensor t);

/* ---- activations -------------------------------------------------------------------------------------- */

/* ATTN_GELU is x * Phi(x) with the exact error function; ATTN_GELU_TANH its tanh approximation (Hendrycks and Gimpel 2016);
 * ATTN_SILU is x * sigmoid(x). */
enum { ATTN_IDENTITY = 0, ATTN_RELU, ATTN_GELU, ATTN_GELU_TANH, ATTN_SILU, ATTN_SIGMOID, ATTN_TANH };

typedef struct attn_activation_args {
    int32_t     activation; /* ATTN_RELU, ... */
    uint32_t    flags;      /* ATTN_ACCUMULATE */
    attn_tensor x, y;       /* same shape, any rank; y may be x */
    uint64_t    reserved[16]; /* zero, or ATTN_UNSUPPORTED */
} attn_activation_args;

typedef struct attn_activation_grads {
    attn_tensor dy;         /* in */
    attn_tensor dx;         /* out; may be dy. dx = dy * activation'(x), added with ATTN_ACCUMULATE in the args' flags */
    uint64_t    reserved[16]; /* zero, or ATTN_UNSUPPORTED */
} attn_activation_grads;

ATTN_API attn_status attn_activation(const attn_activation_args *a, const attn_exec *exec);
/* Reads x (not y). */
ATTN_API attn_status attn_activation_backward(const attn_activation_args *a, const attn_activation_grads *g,
                                              const attn_exec *exec);

/* ---- matrix products ------------------------------------------------------------------------------------ */

/* c = activation(a b + bias) + residual, or c += all that with ATTN_ACCUMULATE. In the kernels each element is one chain of
 * fused multiply-adds over k in order, started from the bias: its bits do not depend on other rows and columns, nor on packing.
 * The gradients of a product are two products: da = dc b^T and db = a^T dc; a bias's is attn_sum_rows. A linear layer whose
 * weight is stored [out, in] passes attn_transposed(weight) as b. */
typedef struct attn_matmul_args {
    uint32_t    flags;      /* ATTN_ACCUMULATE */
    int32_t     activation; /* default ATTN_IDENTITY */
    attn_tensor a;          /* [m, k], any strides */
    attn_tensor b;          /* [k, n], any strides. With `packed`, only its shape and dtype are read */
    attn_tensor c;          /* [m, n]; overlaps no input but `residual`, which it may be */
    attn_tensor bias;       /* optional [n] */
    attn_tensor residual;   /* optional [m, n], added after the activation */
    attn_tensor before;     /* optional out [m, n]: a b + bias before the activation, for attn_activation_backward */
    const void *packed;     /* optional: b as attn_matmul_pack left it, for weights used many times */
    uint64_t    reserved[16]; /* zero, or ATTN_UNSUPPORTED */
} attn_matmul_args;

ATTN_API attn_status attn_matmul(const attn_matmul_args *a, const attn_exec *exec);
/* Bytes a call needs with n_threads; reads shapes, strides, dtypes and whether b is packed, never data. */
ATTN_API size_t attn_matmul_workspace(const attn_matmul_args *a, int32_t n_threads);
/* Bytes that b [k, n] takes packed; 0 when this dtype is not packed (then `packed` must be NULL). */
ATTN_API size_t attn_matmul_packed_size(const attn_tensor *b);
/* Packs b for the instruction set in use. The buffer is valid in this process only, 64-byte aligned or not. */
ATTN_API attn_status attn_matmul_pack(const attn_tensor *b, void *packed, size_t size);

/* y [n] = sum over the rows of x [m, n] (a bias's gradient); added with ATTN_ACCUMULATE in `flags`. */
ATTN_API attn_status attn_sum_rows(const attn_tensor *x, const attn_tensor *y, uint32_t flags, const attn_exec *exec);

/* ---- norms: along the last axis --------------------------------------------------------------------------- */

/* ATTN_LAYER_NORM (Ba et al. 2016): y = (x - mean) / sqrt(variance + epsilon) * weight + bias, biased variance.
 * ATTN_RMS_NORM (Zhang and Sennrich 2019): y = x / sqrt(mean of squares + epsilon) * weight. */
enum { ATTN_LAYER_NORM = 0, ATTN_RMS_NORM };

typedef struct attn_norm_args {
    int32_t     kind;       /* ATTN_LAYER_NORM, ATTN_RMS_NORM */
    uint32_t    flags;      /* ATTN_ACCUMULATE */
    attn_tensor x, y;       /* [..., n]; y may be x in the forward */
    attn_tensor weight;     /* optional [n], default ones */
    attn_tensor bias;       /* optional [n], ATTN_LAYER_NORM only */
    attn_tensor mean, rstd; /* optional out [...], F32 (F64 for F64): for the backward, which recomputes what it is not given */
    double      epsilon;    /* default 1e-5 */
    uint64_t    reserved[16]; /* zero, or ATTN_UNSUPPORTED */
} attn_norm_args;

typedef struct attn_norm_grads {
    attn_tensor dy;             /* in [..., n] */
    attn_tensor dx;             /* out, optional; may be dy. Added with ATTN_ACCUMULATE in the args' flags */
    attn_tensor dweight, dbias; /* out, optional [n]; added likewise */
    uint64_t    reserved[16]; /* zero, or ATTN_UNSUPPORTED */
} attn_norm_grads;

/* Bytes a call needs with n_threads: none for evenly spaced rows of dense elements and (backward) given mean and rstd. */
ATTN_API size_t attn_norm_workspace(const attn_norm_args *a, int32_t n_threads);
ATTN_API size_t attn_norm_backward_workspace(const attn_norm_args *a, const attn_norm_grads *g, int32_t n_threads);
ATTN_API attn_status attn_norm(const attn_norm_args *a, const attn_exec *exec);
/* Reads x, weight, and mean and rstd where given; not y. */
ATTN_API attn_status attn_norm_backward(const attn_norm_args *a, const attn_norm_grads *g, const attn_exec *exec);

/* ---- embedding --------------------------------------------------------------------------------------------- */

typedef struct attn_embedding_args {
    uint32_t    flags;      /* ATTN_ACCUMULATE */
    attn_tensor table;      /* [vocabulary, dim] */
    attn_tensor ids;        /* I32 or I64 [n]; one outside [0, vocabulary) is an error naming its position */
    attn_tensor y;          /* [n, dim] = table[ids]; added with ATTN_ACCUMULATE */
    uint64_t    reserved[16]; /* zero, or ATTN_UNSUPPORTED */
} attn_embedding_args;

ATTN_API attn_status attn_embedding(const attn_embedding_args *a, const attn_exec *exec);
/* dtable[ids[i]] += dy[i], always added, in the order of i: the same bits every time. Reads ids and the table's shape. */
ATTN_API attn_status attn_embedding_backward(const attn_embedding_args *a, const attn_tensor *dy, const attn_tensor *dtable,
                                             const attn_exec *exec);

/* ---- rotary position embedding ------------------------------------------------------------------------------ */

/* Su et al. 2021, as ONNX's RotaryEmbedding has it. Each head's first rotary_dim elements are pairs (a, b), and position p turns
 * pair i to (a cos[p, i] - b sin[p, i], a sin[p, i] + b cos[p, i]); the elements after them are copied. */
enum { ATTN_ROPE_INTERLEAVED = 16 };

typedef struct attn_rope_args {
    uint32_t    flags;      /* ATTN_ROPE_INTERLEAVED: pair i is elements (2i, 2i + 1); default: (i, i + rotary_dim / 2) */
    attn_tensor x, y;       /* [batch, heads, length, dim], or [batch, length, heads * dim] with `heads`; y may be x */
    attn_tensor cos, sin;   /* with positions [n, rotary_dim / 2], else [batch, length, rotary_dim / 2] */
    attn_tensor positions;  /* optional I32 or I64 [batch, length]; one outside [0, n) is an error naming its place */
    int64_t     heads;      /* of x of rank 3, where it has no default; 0 for rank 4 */
    int64_t     rotary_dim; /* even, at most dim; default dim */
    uint64_t    reserved[16]; /* zero, or ATTN_UNSUPPORTED */
} attn_rope_args;

typedef struct attn_rope_grads {
    attn_tensor dy;         /* in, x's shape */
    attn_tensor dx;         /* out; may be dy. dy turned back: (a cos + b sin, b cos - a sin) */
    uint64_t    reserved[16]; /* zero, or ATTN_UNSUPPORTED */
} attn_rope_grads;

ATTN_API attn_status attn_rope(const attn_rope_args *a, const attn_exec *exec);
/* Reads neither x nor y, which may be absent. */
ATTN_API attn_status attn_rope_backward(const attn_rope_args *a, const attn_rope_grads *g, const attn_exec *exec);

/* ---- linear attention ------------------------------------------------------------------------------------------ */

/* What a token makes of the state S [key_dim, value_dim] of each head of keys, as ONNX's LinearAttention has it; a = exp(decay):
 *     ATTN_LINEAR       S = S + k v^T                                  (Katharopoulos et al. 2020)
 *     ATTN_GATED        S = diag(a) S + k v^T                          (Yang et al. 2023; one decay for a head: Sun et al. 2023)
 *     ATTN_DELTA        S = S + k beta (v - S^T k)^T                   (Schlag et al. 2021; Yang et al. 2024)
 *     ATTN_GATED_DELTA  S = M + k beta (v - M^T k)^T, M = diag(a) S    (Yang et al. 2024, "Gated delta networks")
 * and then out = scale S^T q. The delta rules want keys of length 1, and beta from 0 to 1. */
enum { ATTN_LINEAR = 0, ATTN_GATED, ATTN_DELTA, ATTN_GATED_DELTA };

typedef struct attn_linear_attention_args {
    int32_t     rule;       /* ATTN_LINEAR, ... */
    uint32_t    flags;      /* none yet: 0 */
    attn_tensor q;          /* [batch, heads, length, key_dim] */
    attn_tensor k, v;       /* [batch, kv_heads, length, key_dim], [..., value_dim]; heads is a multiple of kv_heads, and head h
                             * reads the state of h / (heads / kv_heads) */
    attn_tensor out;        /* [batch, heads, length, value_dim] */
    attn_tensor decay;      /* gated rules: [batch, kv_heads, length], or one for each element of the key [..., key_dim];
                             * logarithms, at most 0 in practice; -inf forgets all */
    attn_tensor beta;       /* delta rules: [batch, kv_heads, length] */
    attn_tensor past_state; /* optional [batch, kv_heads, key_dim, value_dim], default zeros */
    attn_tensor state;      /* optional out: the state after the last token; may be past_state */
    double      scale;      /* default 1 / sqrt(key_dim) */
    uint64_t    reserved[16]; /* zero, or ATTN_UNSUPPORTED */
} attn_linear_attention_args;

/* Each output is optional, and of its input's shape. */
typedef struct attn_linear_attention_grads {
    attn_tensor dout;       /* in */
    attn_tensor dstate;     /* in, optional: the loss's gradient to `state` */
    attn_tensor dq, dk, dv, ddecay, dbeta, dpast_state;
    uint64_t    reserved[16]; /* zero, or ATTN_UNSUPPORTED */
} attn_linear_attention_grads;

/* Time grows with length, not with its square. The kernels go by chunks of 64 tokens, counted from the first; a decay for each
 * element of the key goes through the reference. */
ATTN_API attn_status attn_linear_attention(const attn_linear_attention_args *a, const attn_exec *exec);
/* Reads the inputs, not out and state. States are kept for every 64th token; the kernels go by chunks here too. */
ATTN_API attn_status attn_linear_attention_backward(const attn_linear_attention_args *a, const attn_linear_attention_grads *g,
                                                    const attn_exec *exec);
/* Bytes that a call needs with n_threads; reads shapes and dtypes, never data. 0 where the call would be refused. */
ATTN_API size_t attn_linear_attention_workspace(const attn_linear_attention_args *a, int32_t n_threads);
ATTN_API size_t attn_linear_attention_backward_workspace(const attn_linear_attention_args *a,
                                                         const attn_linear_attention_grads *g, int32_t n_threads);

/* ---- elementwise ------------------------------------------------------------------------------------------- */

/* y += alpha * x, same shape. */
ATTN_API attn_status attn_add(const attn_tensor *x, double alpha, const attn_tensor *y, const attn_exec *exec);

/* y = x * keep / (1 - p) with keep from Philox-4x32-10 (key = seed, counter = (index >> 2, stream), word index & 3, dropped iff
 * word < round(p * 2^32)), index the element's row-major position. The same call on gradients is the backward. y may be x. */
ATTN_API attn_status attn_dropout(const attn_tensor *x, double p, uint64_t seed, uint64_t stream, const attn_tensor *y,
                                  const attn_exec *exec);

/* The sum of squares of all elements, accumulated in double in a fixed order (for gradient clipping). */
ATTN_API attn_status attn_sum_of_squares(const attn_tensor *x, double *result, const attn_exec *exec);

/* ---- optimiser ---------------------------------------------------------------------------------------------- */

/* One step of AdamW (Loshchilov and Hutter 2019) as torch.optim.AdamW computes it:
 *   param *= 1 - lr * weight_decay;  m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
 *   param -= lr * (m / (1 - beta1^step)) / (sqrt(v / (1 - beta2^step)) + epsilon)      with g = gradient * grad_scale */
typedef struct attn_adamw_args {
    attn_tensor param, m, v; /* F32 or F64, same shape, updated in place */
    attn_tensor gradient;    /* same shape and dtype */
    double      lr;          /* no default; 0 or more */
    double      beta1;       /* default 0.9 */
    double      beta2;       /* default 0.999 */
    double      epsilon;     /* default 1e-8 */
    double      weight_decay; /* default 0: none */
    double      grad_scale;  /* default 1 */
    int64_t     step;        /* 1 for the first, one more with every call */
    uint64_t    reserved[16]; /* zero, or ATTN_UNSUPPORTED */
} attn_adamw_args;

ATTN_API attn_status attn_adamw(const attn_adamw_args *a, const attn_exec *exec);

/* One step of Muon (Jordan et al. 2024) for a weight matrix between hidden layers, as torch.optim.Muon computes it with
 * adjust_lr_fn "match_rms_adamw", but for torch's bfloat16: here everything is in the dtype of param.
 *   m = momentum m + (1 - momentum) g;  x = momentum m + (1 - momentum) g;  x /= max(|x|, 1e-7)      with g = gradient * grad_scale
 *   five times: x = 3.4445 x - 4.7750 (x x^T) x + 2.0315 (x x^T)^2 x, which brings the singular values of x near 1
 *   param = (1 - lr * weight_decay) param - lr * 0.2 sqrt(max(rows, cols)) x
 * so that the same lr and weight_decay fit AdamW, which the other parameters are for: biases, norms, embeddings, the last layer.
 * One NaN in the gradient makes the whole matrix NaN. */
typedef struct attn_muon_args {
    attn_tensor param, m;    /* [rows, cols], F32 or F64, updated in place; m is 0 before the first step */
    attn_tensor gradient;    /* same shape and dtype */
    double      lr;          /* no default; 0 or more */
    double      momentum;    /* default 0.95 */
    double      weight_decay; /* default 0: none */
    double      grad_scale;  /* default 1 */
    uint64_t    reserved[16]; /* zero, or ATTN_UNSUPPORTED */
} attn_muon_args;

/* Bytes a call needs with n_threads; reads shapes, strides and dtypes, never data. 0 for a call that would be refused. */
ATTN_API size_t attn_muon_workspace(const attn_muon_args *a, int32_t n_threads);
ATTN_API attn_status attn_muon(const attn_muon_args *a, const attn_exec *exec);

/* ---- the machine's limit ---------------------------------------------------------------------------------- */

/* Multiplies and adds in registers for so many rounds, independently of memory, with the instruction set in use and elements of 64
 * bits (ATTN_F64) or 32 (any other dtype), in the calling thread; returns how many floating-point operations that were. Whoever times
 * it has the peak that products and attention can be measured against. 0 where rounds is not positive. */
ATTN_API int64_t attn_burst(int32_t dtype, int64_t rounds);

/* clang-format on */

#ifdef __cplusplus
}
#endif
#endif
