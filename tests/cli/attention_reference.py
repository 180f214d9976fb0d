# SPDX-License-Identifier: Apache-2.0
"""Attention as it is defined, in NumPy and float64: whole score maps, plain loops over nothing but the batch."""
import numpy as np

INF = float("inf")


def grouped(x, heads):
    """Key or value heads repeated for the query heads that share them."""
    return np.repeat(x, heads // x.shape[1], axis=1)


def offsets(causal, offset, q_lengths, kv_lengths):
    if causal == "top-left":
        return np.zeros_like(q_lengths)
    if offset is None:
        return kv_lengths - q_lengths
    return np.broadcast_to(np.asarray(offset), q_lengths.shape)


def visible(batch, heads, q_len, kv_len, *, causal=None, offset=None, window=(-1, -1), mask=None, q_lengths=None, kv_lengths=None):
    """Which keys each row may see: a boolean map [batch, heads, q_len, kv_len], and the position of each query."""
    q_lengths = np.full(batch, q_len) if q_lengths is None else np.atleast_1d(q_lengths)
    kv_lengths = np.full(batch, kv_len) if kv_lengths is None else np.atleast_1d(kv_lengths)
    position = np.arange(q_len)[None, :] + offsets(causal, offset, q_lengths, kv_lengths)[:, None]
    j, i = np.arange(kv_len)[None, None, :], position[:, :, None]
    see = (j < kv_lengths[:, None, None]) & (np.arange(q_len)[None, :, None] < q_lengths[:, None, None])
    if causal:
        see &= j <= i
    if window[0] >= 0:
        see &= j >= i - window[0]
    if window[1] >= 0:
        see &= j <= i + window[1]
    see = np.broadcast_to(see[:, None], (batch, heads, q_len, kv_len))
    return see if mask is None else see & mask, position


def attention(q, k, v, *, score="dot", score_weight=None, scale=None, softcap=0.0, bias=None, alibi=None, weighting="softmax", **seeing):
    """Arrays of rank 4. Returns the output and everything that can be seen, as a dict of float64 arrays."""
    q, k, v = (np.asarray(x, "f8") for x in (q, k, v))
    batch, heads, q_len, dim = q.shape
    k, v = grouped(k, heads), grouped(v, heads)
    see, position = visible(batch, heads, q_len, k.shape[2], **seeing)
    if score == "dot":
        raw = np.einsum("bhid,bhjd->bhij", q, k) * (dim ** -0.5 if scale is None else scale)
    else:
        w = np.broadcast_to(np.asarray(score_weight, "f8"), (heads, dim))
        raw = np.einsum("bhijd,hd->bhij", np.tanh(q[:, :, :, None] + k[:, :, None]), w) * (1.0 if scale is None else scale)
    capped = softcap * np.tanh(raw / softcap) if softcap else raw
    s = capped
    if bias is not None:
        s = s + np.asarray(bias, "f8")
        see = see & ~np.isneginf(np.broadcast_to(bias, s.shape))
    if alibi is not None:
        distance = np.abs(position[:, :, None] - np.arange(k.shape[2]))
        s = s - np.broadcast_to(np.asarray(alibi, "f8"), (batch, heads))[:, :, None, None] * distance[:, None]
    s = np.where(see, s, -INF)
    with np.errstate(all="ignore"):
        if weighting == "softmax":
            top = np.max(s, axis=-1, keepdims=True, initial=-INF)
            e = np.exp(s - np.where(np.isneginf(top), 0, top))
            total = e.sum(-1, keepdims=True)
            p = np.where(total > 0, e / total, 0)
            lse = np.where(total > 0, np.log(total) + top, -INF)[..., 0]
            entropy = -np.where(p > 0, p * np.log(p), 0).sum(-1)
        else:
            p = 1 / (1 + np.exp(-s)) if weighting == "sigmoid" else np.where(see, s, 0)
            if weighting == "normalized-sum":
                total = p.sum(-1, keepdims=True)
                p = np.where(total != 0, p / total, 0)
            lse = entropy = None
    return {"out": np.einsum("bhij,bhjd->bhid", p, v), "weights": p, "raw": raw, "capped": capped, "weighted": s, "lse": lse,
            "entropy": entropy, "received": p.sum(2)}
