# SPDX-License-Identifier: Apache-2.0
"""Rotary position embedding and linear attention."""

from ._core import linear_attention as _linear_attention
from ._core import linear_attention_backward as _linear_attention_backward
from ._core import rope as _rope
from ._core import rope_backward as _rope_backward


def rope(x, cos, sin, positions=None, *, interleaved=False, rotary_dim=0, heads=0):
    """Rotary position embedding (Su et al. 2021), as ONNX's RotaryEmbedding: pair i = (a, b) of each head, at position p, becomes
    (a cos[p, i] - b sin[p, i], a sin[p, i] + b cos[p, i]).

    x           [batch, heads, length, dim], or [batch, length, heads * dim] with `heads` given
    cos, sin    [n, rotary_dim / 2] with positions, else [batch, length, rotary_dim / 2]; of x's dtype or float32
    positions   int32 or int64 [batch, length], each from 0 to n - 1
    interleaved pair i is elements (2i, 2i + 1), not (i, i + rotary_dim / 2)
    rotary_dim  even: elements from it on are copied; 0 for all of dim

    Returns x's shape and dtype. A position out of range is a ValueError naming its place.
    """
    return _rope(x, cos, sin, positions, interleaved, rotary_dim, heads)


def rope_backward(dy, cos, sin, positions=None, *, interleaved=False, rotary_dim=0, heads=0):
    """The gradient of rope to x: dy turned back. Arguments as rope; returns dy's shape and dtype."""
    return _rope_backward(dy, cos, sin, positions, interleaved, rotary_dim, heads)


def linear_attention(q, k, v, *, rule="linear", decay=None, beta=None, past_state=None, scale=None):
    """Linear attention, as ONNX's LinearAttention: a state S of each head of keys, and out = scale S^T q after each token.

    q           [batch, heads, length, key_dim]
    k, v        [batch, kv_heads, length, key_dim] and [..., value_dim]; heads is a multiple of kv_heads
    rule        "linear"       S = S + k v^T                                  (Katharopoulos et al. 2020)
                "gated"        S = diag(a) S + k v^T, a = exp(decay)          (Yang et al. 2023)
                "delta"        S = S + k beta (v - S^T k)^T                   (Schlag et al. 2021)
                "gated_delta"  S = M + k beta (v - M^T k)^T, M = diag(a) S    (Yang et al. 2024)
    decay       of the gated rules: [batch, kv_heads, length] or [batch, kv_heads, length, key_dim]; logarithms
    beta        of the delta rules: [batch, kv_heads, length]
    past_state  [batch, kv_heads, key_dim, value_dim]: S before the first token, default zeros
    scale       default 1 / sqrt(key_dim)

    All are of q's dtype or float32. Returns (out, state): out [batch, heads, length, value_dim] of q's dtype, and S after the
    last token, of past_state's dtype or q's. The delta rules want keys of length 1 and beta from 0 to 1.
    """
    return _linear_attention(q, k, v, rule, decay, beta, past_state, scale)


def linear_attention_backward(
    dout, q, k, v, *, rule="linear", decay=None, beta=None, past_state=None, scale=None, dstate=None
):
    """The gradients of linear_attention: (dq, dk, dv, ddecay, dbeta, dpast_state), None where there is no such input.

    dout is the loss's gradient to out, dstate to the state after the last token. Other arguments as linear_attention. Each
    gradient has its input's shape and dtype.
    """
    return _linear_attention_backward(dout, q, k, v, rule, decay, beta, past_state, scale, dstate)
