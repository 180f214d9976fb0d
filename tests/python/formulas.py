# SPDX-License-Identifier: Apache-2.0
"""The operations as docs/SEMANTICS.md defines them, in NumPy and float64: whole maps, no tricks."""

import numpy as np
from attention_reference import INF, grouped, visible

# ---- rows: z [..., n] with masked entries -inf ---------------------------------------------------------------


def softmax_rows(z):
    top = np.max(z, axis=-1, keepdims=True, initial=-INF)
    e = np.exp(z - np.where(np.isneginf(top), 0, top))
    total = e.sum(-1, keepdims=True)
    return np.divide(e, total, out=np.zeros_like(e), where=total > 0)


def logsumexp_rows(z):
    top = np.max(z, axis=-1, keepdims=True, initial=-INF)
    finite = np.where(np.isneginf(top), 0, top)
    with np.errstate(divide="ignore"):
        return (np.log(np.exp(z - finite).sum(-1, keepdims=True)) + finite)[..., 0]


def entmax_rows(z, alpha):
    """Bisection on the threshold: alpha 2 is sparsemax, 1.5 entmax-1.5, 1 softmax."""
    if alpha == 1:
        return softmax_rows(z)
    live = np.isfinite(z)
    s = np.where(live, z, 0) * (alpha - 1)
    top = np.max(np.where(live, s, -INF), axis=-1, keepdims=True, initial=-INF)
    low, high = top - 1, top.copy()
    power = 1 / (alpha - 1)
    for _ in range(200):
        middle = (low + high) / 2
        total = np.where(live, np.maximum(s - middle, 0) ** power, 0).sum(-1, keepdims=True)
        low, high = np.where(total >= 1, middle, low), np.where(total >= 1, high, middle)
    p = np.where(live, np.maximum(s - low, 0) ** power, 0)
    total = p.sum(-1, keepdims=True)
    return np.divide(p, total, out=np.zeros_like(p), where=total > 0)


def entmax_rows_backward(dy, y, alpha):
    if alpha == 1:
        return softmax_rows_backward(dy, y)
    s = np.where(y > 0, np.where(y > 0, y, 1) ** (2 - alpha), 0)
    total = s.sum(-1, keepdims=True)
    mean = np.divide((s * dy).sum(-1, keepdims=True), total, out=np.zeros_like(total), where=total > 0)
    return s * (dy - mean)


def entmax_rows_slope(y, alpha):
    """(the derivative of y to alpha, the same with every term positive), after Correia et al. 2019, proposition 3."""
    log = np.log(np.where(y > 0, y, 1))
    if alpha == 1:
        terms = -y * log * log / 2, y * (y * log * log).sum(-1, keepdims=True) / 2
    else:
        share = np.where(y > 0, np.where(y > 0, y, 1) ** (2 - alpha), 0)
        total = share.sum(-1, keepdims=True)
        share = np.divide(share, total, out=np.zeros_like(share), where=total > 0)
        a = alpha - 1
        terms = y / a**2, -share / a**2, -y * log / a, share * (y * log).sum(-1, keepdims=True) / a
    return sum(terms), sum(map(np.abs, terms))


def softmax_rows_backward(dy, y):
    return y * (dy - (y * dy).sum(-1, keepdims=True))


# ---- random words --------------------------------------------------------------------------------------------


def philox(counter, seed):
    """Philox-4x32-10 (Salmon et al. 2011): four words of a counter of four; arrays of uint64 that hold 32 bits."""
    low = np.uint64(0xFFFFFFFF)
    c0, c1, c2, c3 = np.broadcast_arrays(*(np.asarray(c).astype(np.uint64) & low for c in counter))
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (
            (p1 >> np.uint64(32)) ^ c1 ^ np.uint64(k0),
            p1 & low,
            (p0 >> np.uint64(32)) ^ c3 ^ np.uint64(k1),
            p0 & low,
        )
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3])


def kept(shape, dropout, seed):
    """1 / (1 - dropout) where a weight of [batch, heads, q_len, kv_len] is kept, else 0."""
    b, h, i, j = np.indices(shape)
    words = np.take_along_axis(philox((j >> 2, i, b, h), seed), (j & 3)[None], 0)[0]
    return np.where(words < round(dropout * 2**32), 0, 1 / (1 - dropout) if dropout < 1 else 0)


def gumbel(shape, seed):
    """The noise of gumbel_softmax for rows along the last axis."""
    index = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
    group = index >> 2
    words = np.take_along_axis(philox((group & 0xFFFFFFFF, group >> 32, 0 * group, 0 * group + 1), seed), (index & 3)[None], 0)[0]
    return -np.log(-np.log(((words >> np.uint64(9)).astype("f8") + 0.5) * 2.0**-23))


# ---- attention -----------------------------------------------------------------------------------------------

ALPHA = {"sparsemax": 2.0, "entmax15": 1.5}


def weigh(s, weighting, alpha, sink):
    """From masked scores to weights; a sink is one more score that has no key."""
    if weighting == "softmax":
        if sink is None:
            return softmax_rows(s)
        return softmax_rows(np.concatenate([s, np.broadcast_to(sink, s.shape[:-1] + (1,))], -1))[..., :-1]
    live = ~np.isneginf(s)
    finite = np.where(live, s, 0)
    if weighting == "sigmoid":
        return np.where(live, 1 / (1 + np.exp(-finite)), 0)
    if weighting == "normalized-sum":
        total = finite.sum(-1, keepdims=True)
        return np.divide(finite, total, out=np.zeros_like(s), where=total != 0)
    if weighting == "relu2":
        return np.maximum(finite, 0) ** 2
    if weighting == "hardmax":
        p = np.zeros_like(s)
        if s.shape[-1]:
            np.put_along_axis(p, s.argmax(-1)[..., None], 1, -1)
        return np.where(live, p, 0)
    return entmax_rows(s, ALPHA.get(weighting) or alpha or 1.5)


def unweigh(dp, p, s, weighting, alpha):
    """From the gradient to weights to the gradient to scores."""
    live = ~np.isneginf(s)
    finite = np.where(live, s, 0)
    if weighting == "softmax":
        return softmax_rows_backward(dp, p)
    if weighting == "sigmoid":
        return dp * p * (1 - p)
    if weighting == "normalized-sum":
        total = finite.sum(-1, keepdims=True)
        ds = np.divide(dp - (p * dp).sum(-1, keepdims=True), total, out=np.zeros_like(s), where=total != 0)
        return np.where(live, ds, 0)
    if weighting == "relu2":
        return np.where(live, 2 * np.maximum(finite, 0) * dp, 0)
    if weighting == "hardmax":
        return np.zeros_like(s)
    return entmax_rows_backward(dp, p, ALPHA.get(weighting) or alpha or 1.5)


def unweigh_size(dp, p, s, weighting):
    """The same with every term positive: what its rounding errors are in proportion to."""
    if weighting == "relu2":
        return 2 * np.maximum(np.where(np.isneginf(s), 0, s), 0) * dp
    if weighting == "normalized-sum":
        total = np.where(np.isneginf(s), 0, s).sum(-1, keepdims=True)
        return np.divide(dp + (p * dp).sum(-1, keepdims=True), total, out=np.zeros_like(dp), where=total != 0)
    if weighting in ("sparsemax", "entmax15", "entmax"):
        return np.where(p > 0, dp + dp.max(-1, keepdims=True, initial=0), 0)
    return p * (dp + (p * dp).sum(-1, keepdims=True))


class Attention:
    """One problem of rank 4, forward and backward."""

    def __init__(
        self,
        q,
        k,
        v,
        *,
        score="dot",
        score_weight=None,
        scale=None,
        softcap=0.0,
        causal=False,
        offset=None,
        window=None,
        mask=None,
        bias=None,
        alibi=None,
        q_lengths=None,
        kv_lengths=None,
        sinks=None,
        weighting="softmax",
        alpha=None,
        dropout=0.0,
        seed=0,
    ):
        self.shapes = q.shape, k.shape, v.shape
        self.q, heads = np.asarray(q, "f8"), q.shape[1]
        self.k, self.v = grouped(np.asarray(k, "f8"), heads), grouped(np.asarray(v, "f8"), heads)
        batch, heads, q_len, dim = q.shape
        self.score, self.softcap, self.weighting, self.alpha = score, softcap, weighting, alpha
        self.scale = (dim**-0.5 if score == "dot" else 1.0) if scale is None else scale
        self.live, self.position = visible(
            batch,
            heads,
            q_len,
            k.shape[2],
            causal=causal,
            offset=offset,
            window=window or (-1, -1),
            mask=mask,
            q_lengths=q_lengths,
            kv_lengths=kv_lengths,
        )
        self.bias = None if bias is None else np.asarray(bias, "f8")
        self.alibi = None if alibi is None else np.asarray(alibi, "f8")
        self.sinks = None if sinks is None else np.asarray(sinks, "f8")
        self.score_weight = None if score_weight is None else np.asarray(score_weight, "f8")
        self.kept = kept(self.live.shape, dropout, seed) if dropout else 1.0
        if self.bias is not None:
            self.live = self.live & ~np.isneginf(np.broadcast_to(self.bias, self.live.shape))
        self.forward()

    def unit(self, x):
        length = np.linalg.norm(x, axis=-1, keepdims=True)
        return np.divide(x, length, out=np.zeros_like(x), where=length > 0), length

    def forward(self):
        if self.score == "additive":
            self.tanh = np.tanh(self.q[:, :, :, None] + self.k[:, :, None])
            self.w = np.broadcast_to(self.score_weight, self.q.shape[1:2] + self.q.shape[3:])
            self.raw = np.einsum("bhijd,hd->bhij", self.tanh, self.w) * self.scale
            size = np.abs(self.w).sum(-1)[None, :, None, None]
        else:
            q, k = (self.q, self.k) if self.score == "dot" else (self.unit(self.q)[0], self.unit(self.k)[0])
            self.raw = np.einsum("bhid,bhjd->bhij", q, k) * self.scale
            size = np.einsum("bhid,bhjd->bhij", np.abs(q), np.abs(k))
        size = np.broadcast_to(np.abs(self.scale) * size, self.raw.shape)
        self.capped = self.softcap * np.tanh(self.raw / self.softcap) if self.softcap else self.raw
        s = self.capped
        if self.bias is not None:
            finite = np.where(np.isneginf(self.bias), 0, self.bias)
            s, size = s + finite, size + np.abs(finite)
        if self.alibi is not None:
            self.distance = np.abs(self.position[:, :, None] - np.arange(s.shape[3]))[:, None]
            slope = np.broadcast_to(self.alibi, s.shape[:2])[:, :, None, None]
            s, size = s - slope * self.distance, size + np.abs(slope * self.distance)
        self.s = np.where(self.live, s, -INF)
        sink = None if self.sinks is None else self.sinks[None, :, None, None]
        self.p = weigh(self.s, self.weighting, self.alpha, sink)
        self.out = np.einsum("bhij,bhjd->bhid", self.p * self.kept, self.v)
        # docs/ACCURACY.md's A
        self.magnitude = np.max(np.where(self.live, size, 0), axis=-1, initial=0)
        if sink is not None:
            self.magnitude = np.maximum(self.magnitude, np.abs(sink[..., 0]))
        with_sink = self.s if sink is None else np.concatenate([self.s, np.broadcast_to(sink, s.shape[:-1] + (1,))], -1)
        self.lse = logsumexp_rows(with_sink)
        with np.errstate(divide="ignore", invalid="ignore"):
            self.entropy = -np.where(self.p > 0, self.p * np.log(self.p), 0).sum(-1)

    def ungroup(self, grad, shape):
        batch, heads, length, dim = shape
        return grad.reshape(batch, heads, -1, length, dim).sum(2)

    def backward(self, dout, dlse=None):
        """The gradients as a dict; a fully masked row has none."""
        dout = np.asarray(dout, "f8")
        dp = np.einsum("bhid,bhjd->bhij", dout, self.v) * self.kept
        ds = unweigh(dp, self.p, self.s, self.weighting, self.alpha)
        if dlse is not None:
            ds = ds + self.p * np.asarray(dlse, "f8")[..., None]
        grads = self.spread(np.where(self.live, ds, 0), dp, dout, dlse)
        if self.weighting == "entmax":
            grads["dalpha"] = (dp * entmax_rows_slope(self.p, self.alpha or 1.5)[0]).sum()
        return grads

    def backward_sizes(self, dout, dlse=None):
        """The sums of the magnitudes of the terms that the gradients are sums of."""
        dout = np.abs(np.asarray(dout, "f8"))
        dp = np.einsum("bhid,bhjd->bhij", dout, np.abs(self.v)) * self.kept
        ds = unweigh_size(dp, self.p, self.s, self.weighting)
        if dlse is not None:
            ds, dlse = ds + self.p * np.abs(np.asarray(dlse, "f8"))[..., None], -np.abs(np.asarray(dlse, "f8"))
        signed = self.q, self.k, self.score_weight, self.scale
        self.q, self.k, self.scale = np.abs(self.q), np.abs(self.k), abs(self.scale)
        if self.score == "additive":
            self.tanh, self.w = np.abs(self.tanh), np.abs(self.w)
        sizes = self.spread(np.where(self.live, ds, 0), dp, dout, dlse, along=1)
        if self.weighting == "entmax":
            sizes["dalpha"] = (dp * entmax_rows_slope(self.p, self.alpha or 1.5)[1]).sum()
        self.q, self.k, self.score_weight, self.scale = signed
        return {name: np.abs(size) for name, size in sizes.items()}

    def spread(self, ds, dp, dout, dlse, along=-1):
        """From the gradients to scores to all others. Cosine takes off what lies along a vector: it does not turn it."""
        grads = {"dv": self.ungroup(np.einsum("bhij,bhid->bhjd", self.p * self.kept, dout), self.shapes[2])}
        if self.bias is not None:
            grads["dbias"] = summed_to(ds, self.bias.shape)
        if self.alibi is not None:
            grads["dalibi"] = summed_to((-ds * self.distance).sum((2, 3)), self.alibi.shape)
        if self.sinks is not None:
            share = np.exp(self.sinks[None, :, None] - self.lse)
            slope = -(self.p * dp).sum(-1) + (0 if dlse is None else np.asarray(dlse, "f8"))
            grads["dsinks"] = (share * slope).sum((0, 2))
        draw = ds * (1 - (self.capped / self.softcap) ** 2) if self.softcap else ds
        draw = draw * self.scale
        if self.score == "additive":
            slope = np.einsum("bhij,bhijd,hd->bhijd", draw, 1 - self.tanh**2, self.w)
            dq, dk = slope.sum(3), slope.sum(2)
            grads["dscore_weight"] = summed_to(np.einsum("bhij,bhijd->hd", draw, self.tanh), self.score_weight.shape)
        elif self.score == "dot":
            dq, dk = np.einsum("bhij,bhjd->bhid", draw, self.k), np.einsum("bhij,bhid->bhjd", draw, self.q)
        else:
            (q, q_length), (k, k_length) = self.unit(self.q), self.unit(self.k)
            dq, dk = np.einsum("bhij,bhjd->bhid", draw, k), np.einsum("bhij,bhid->bhjd", draw, q)
            dq = (dq + along * q * (q * dq).sum(-1, keepdims=True)) / q_length
            dk = (dk + along * k * (k * dk).sum(-1, keepdims=True)) / k_length
        return {"dq": dq, "dk": self.ungroup(dk, self.shapes[1]), **grads}


def summed_to(x, shape):
    """Summed over what was broadcast."""
    x = x.sum(tuple(range(x.ndim - len(shape))))
    axes = tuple(i for i, extent in enumerate(shape) if extent == 1 and x.shape[i] != 1)
    return x.sum(axes, keepdims=True)


# ---- cross-entropy -------------------------------------------------------------------------------------------


def cross_entropy(logits, labels, weight, ignore_index, smoothing, z_loss, reduction):
    """(loss, dlogits, and the sums of the sizes of what dlogits is made of)."""
    z = np.asarray(logits, "f8")
    n, classes = z.shape
    w = np.ones(classes) if weight is None else np.asarray(weight, "f8")
    labels = np.asarray(labels)
    hard = labels.ndim == 1
    counts = labels != ignore_index if hard else np.ones(n, bool)
    target = np.zeros((n, classes))
    if hard:
        target[counts, labels[counts]] = 1
    else:
        target = labels.astype("f8")
    target = ((1 - smoothing) * target + smoothing / classes) * w * counts[:, None]
    lse = logsumexp_rows(z)
    rows = (target * (lse[:, None] - z)).sum(-1) + z_loss * lse**2 * counts
    p = np.exp(z - lse[:, None])
    pull = (target.sum(-1) + 2 * z_loss * lse * counts)[:, None]
    grads, sizes = p * pull - target, p * np.abs(pull) + np.abs(target)
    total = (w[labels[counts]].sum() if hard else n) if reduction == "mean" else 1
    scale = 1 / total if total else 0
    return (rows if reduction == "none" else rows.sum() * scale), grads * scale, sizes * scale
