# SPDX-License-Identifier: Apache-2.0
"""The softmax family, routers, sampling and gates."""

from ._core import gate as _gate
from ._core import gate_backward as _gate_backward
from ._core import logsumexp as _logsumexp
from ._core import logsumexp_backward as _logsumexp_backward
from ._core import logsumexp_jvp as _logsumexp_jvp
from ._core import sample as _sample
from ._core import softmax as _softmax
from ._core import softmax_backward as _backward
from ._core import softmax_jvp as _jvp
from ._core import top_k_softmax as _top_k_softmax
from ._core import top_k_softmax_backward as _top_k_softmax_backward

# attn.h's ATTN_SOFTMAX, ...
_SOFTMAX, _LOG_SOFTMAX, _SOFTMIN, _SPARSEMAX, _ENTMAX15, _ENTMAX, _GUMBEL = range(7)


def softmax(x, axis=-1, *, scale=1.0, mask=None, bias=None, out=None):
    """Softmax along an axis: with z = scale * x + bias and m the largest live z, y = exp(z - m) / sum exp(z - m).

    x     any shape of rank 1 to 6, any strides
    scale a finite number
    mask  bool, broadcasts to x: True = live. A masked entry gets 0 and never counts, whatever it holds
    bias  of x's dtype or float32, broadcasts to x; -inf masks
    out   where to write y: the shape of x, its dtype or float32; it may be x itself

    Returns y, of x's shape and dtype (or `out`). A row without live entries is 0. A live NaN or +inf of z makes the live
    entries of its own row NaN.
    """
    return _softmax(_SOFTMAX, x, axis, scale, mask, bias, out, None, None, None, None)


def log_softmax(x, axis=-1, *, scale=1.0, mask=None, bias=None, out=None):
    """Log-softmax along an axis: with z = scale * x + bias, y = z - m - log sum exp(z - m), never log(softmax).

    Arguments as softmax; masked entries, and rows without live ones, are -inf.
    """
    return _softmax(_LOG_SOFTMAX, x, axis, scale, mask, bias, out, None, None, None, None)


def softmin(x, axis=-1, *, scale=1.0, mask=None, bias=None, out=None):
    """Softmin along an axis: the softmax of -(scale * x + bias). Arguments as softmax; +inf masks."""
    return _softmax(_SOFTMIN, x, axis, scale, mask, bias, out, None, None, None, None)


def logsumexp(x, axis=-1, *, scale=1.0, mask=None, bias=None):
    """log sum exp(scale * x + bias) along an axis, the maximum taken off first.

    Arguments as softmax. Returns the shape of x without the axis, x's dtype; -inf of a row without live entries.
    """
    return _logsumexp(x, axis, scale, mask, bias)


def sparsemax(x, axis=-1, *, scale=1.0, mask=None, bias=None):
    """Sparsemax along an axis (Martins and Astudillo 2016): y = max(z - t, 0), z = scale * x + bias and t such that sum y = 1.

    Arguments as softmax.
    """
    return _softmax(_SPARSEMAX, x, axis, scale, mask, bias, None, None, None, None, None)


def entmax15(x, axis=-1, *, scale=1.0, mask=None, bias=None):
    """Entmax with alpha 1.5 along an axis (Peters et al. 2019): y = max(z / 2 - t, 0)^2 with t such that sum y = 1.

    Arguments as softmax.
    """
    return _softmax(_ENTMAX15, x, axis, scale, mask, bias, None, None, None, None, None)


def entmax(x, alpha=1.5, axis=-1, *, scale=1.0, mask=None, bias=None):
    """Alpha-entmax along an axis (Peters et al. 2019): y = max((alpha - 1) z - t, 0)^(1 / (alpha - 1)), sum y = 1.

    alpha  from 1 on: 1 is the softmax, 2 the sparsemax. Other arguments as softmax.
    """
    return _softmax(_ENTMAX, x, axis, scale, mask, bias, None, alpha, None, None, None)


def gumbel_softmax(x, axis=-1, *, temperature=1.0, hard=False, seed=0):
    """Gumbel-softmax along an axis (Jang et al. 2017): softmax((x + g) / temperature), g = -log(-log(u)) with u from the seed.

    temperature  above 0
    hard         one-hot, at the largest; its gradient is the soft one's
    seed         0 to 2**64 - 1. The same seed gives the same noise, whatever the strides, dtype or threads
    """
    return _softmax(_GUMBEL, x, axis, 1.0, None, None, None, None, temperature, hard, seed)


def softmax_backward(dy, y, axis=-1, *, scale=1.0):
    """The gradient of softmax to its x: dx = scale y (dy - sum y dy), 0 where y is 0.

    dy  the loss's gradient to y: the shape of y, its dtype or float32
    y   what softmax returned, with the same axis and scale

    Returns dx, of y's shape and dtype.
    """
    return _backward(_SOFTMAX, dy, y, axis, scale, None, None, False)


def log_softmax_backward(dy, y, axis=-1, *, scale=1.0):
    """The gradient of log_softmax to its x: dx = scale (dy - exp(y) sum dy). Arguments as softmax_backward."""
    return _backward(_LOG_SOFTMAX, dy, y, axis, scale, None, None, False)


def softmin_backward(dy, y, axis=-1, *, scale=1.0):
    """The gradient of softmin to its x: dx = -scale y (dy - sum y dy). Arguments as softmax_backward."""
    return _backward(_SOFTMIN, dy, y, axis, scale, None, None, False)


def sparsemax_backward(dy, y, axis=-1, *, scale=1.0):
    """The gradient of sparsemax to its x: on the support of y, dx = scale (dy - mean dy). Arguments as softmax_backward."""
    return _backward(_SPARSEMAX, dy, y, axis, scale, None, None, False)


def entmax15_backward(dy, y, axis=-1, *, scale=1.0):
    """The gradient of entmax15 to its x: with s = sqrt(y), dx = scale s (dy - sum s dy / sum s).

    Arguments as softmax_backward.
    """
    return _backward(_ENTMAX15, dy, y, axis, scale, None, None, False)


def entmax_backward(dy, y, alpha=1.5, axis=-1, *, scale=1.0, dalpha=False):
    """The gradient of entmax to its x: on the support of y, with s = y^(2 - alpha), dx = scale s (dy - sum s dy / sum s).

    Arguments as softmax_backward. Returns dx, or with dalpha=True (dx, the gradient to alpha: one number, float32, float64 for
    float64).
    """
    return _backward(_ENTMAX, dy, y, axis, scale, alpha, None, dalpha)


def gumbel_softmax_backward(dy, y_soft, axis=-1, *, temperature=1.0):
    """The gradient of gumbel_softmax to its x: dx = y (dy - sum y dy) / temperature. y_soft is the result with hard=False."""
    return _backward(_GUMBEL, dy, y_soft, axis, 1.0, None, temperature, False)


def logsumexp_backward(dy, x, axis=-1, *, scale=1.0, mask=None, bias=None):
    """The gradient of logsumexp to its x: dx = scale dy softmax(scale * x + bias).

    dy  the loss's gradient to logsumexp(x): the shape of x without the axis. Other arguments as logsumexp.

    Returns dx, of x's shape and dtype.
    """
    return _logsumexp_backward(dy, x, axis, scale, mask, bias)


def softmax_jvp(dx, y, axis=-1, *, scale=1.0):
    """What softmax's y does when its x moves along dx (forward mode): dy = scale y (dx - sum y dx), 0 where y is 0.

    dx  the direction of x: the shape of y, its dtype or float32
    y   what softmax returned, with the same axis and scale

    Returns dy, of y's shape and dtype.
    """
    return _jvp(_SOFTMAX, dx, y, axis, scale, None, None)


def log_softmax_jvp(dx, y, axis=-1, *, scale=1.0):
    """What log_softmax's y does when its x moves along dx: dy = scale (dx - sum exp(y) dx). Arguments as softmax_jvp."""
    return _jvp(_LOG_SOFTMAX, dx, y, axis, scale, None, None)


def softmin_jvp(dx, y, axis=-1, *, scale=1.0):
    """What softmin's y does when its x moves along dx: dy = -scale y (dx - sum y dx). Arguments as softmax_jvp."""
    return _jvp(_SOFTMIN, dx, y, axis, scale, None, None)


def sparsemax_jvp(dx, y, axis=-1, *, scale=1.0):
    """What sparsemax's y does when its x moves along dx: on the support of y, dy = scale (dx - mean dx).

    Arguments as softmax_jvp.
    """
    return _jvp(_SPARSEMAX, dx, y, axis, scale, None, None)


def entmax15_jvp(dx, y, axis=-1, *, scale=1.0):
    """What entmax15's y does when its x moves along dx: with s = sqrt(y), dy = scale s (dx - sum s dx / sum s).

    Arguments as softmax_jvp.
    """
    return _jvp(_ENTMAX15, dx, y, axis, scale, None, None)


def entmax_jvp(dx, y, alpha=1.5, axis=-1, *, scale=1.0):
    """What entmax's y does when its x moves along dx.

    On the support of y, with s = y^(2 - alpha), dy = scale s (dx - sum s dx / sum s). Arguments as softmax_jvp.
    """
    return _jvp(_ENTMAX, dx, y, axis, scale, alpha, None)


def gumbel_softmax_jvp(dx, y_soft, axis=-1, *, temperature=1.0):
    """What gumbel_softmax does when its x moves along dx: dy = y (dx - sum y dx) / temperature.

    y_soft is the result with hard=False. Arguments as softmax_jvp.
    """
    return _jvp(_GUMBEL, dx, y_soft, axis, 1.0, None, temperature)


def logsumexp_jvp(dx, x, axis=-1, *, scale=1.0, mask=None, bias=None):
    """What logsumexp does when its x moves along dx: dy = scale sum softmax(scale * x + bias) dx.

    A row without live entries moves by 0.

    dx  the direction: the shape of x, its dtype or float32. Other arguments as logsumexp.

    Returns dy, the shape of x without the axis.
    """
    return _logsumexp_jvp(dx, x, axis, scale, mask, bias)


def top_k_softmax(logits, k, axis=-1, *, order="softmax-top-k", normalize=False, bias=None, scale=1.0):
    """The k experts that a router chooses along an axis, the first choice first, and their weights.

    logits     any shape of rank 1 to 6, any strides; -inf masks an expert
    k          how many are chosen: any number from 0 on
    order      "softmax-top-k"  weight = scale p of the k largest logits, p = softmax(logits)  (Fedus et al. 2021)
               "top-k-softmax"  weight = scale softmax(the k largest logits)
               "sigmoid-top-k"  g = 1 / (1 + exp(-logits)), the k largest g + bias, weight = scale g  (DeepSeek-V3)
    normalize  the chosen weights are divided by their sum (0 where that is 0); not with "top-k-softmax", where it is 1
    bias       of "sigmoid-top-k": [experts], of logits' dtype or float32; -inf masks
    scale      of the weights: a finite number

    Returns (index, weight), the shape of logits with k in place of the axis: int32, and logits' dtype. Ties go to the lower
    index; beyond the live experts index is -1 and weight 0. A live NaN comes first and shows in its row.
    """
    return _top_k_softmax(logits, k, axis, order, normalize, bias, scale)


def top_k_softmax_backward(
    dweight, logits, index, axis=-1, *, order="softmax-top-k", normalize=False, bias=None, scale=1.0
):
    """The gradient of top_k_softmax's weights to its logits, what is chosen staying as it is.

    With v = scale dweight where chosen, else 0, and over what the order's weights w sum over (all, or the chosen):
    dlogits = p (v - sum p v) of a softmax p, v g (1 - g) of sigmoids, normalised (v - sum g v / G) g (1 - g) / G, G = sum g.

    dweight  the loss's gradient to weight: its shape, logits' dtype or float32; not counted where index is -1
    index    what top_k_softmax returned for these logits and options (int32 or int64)

    Other arguments as top_k_softmax. Returns the shape and dtype of logits. An index out of range is a ValueError naming its
    place.
    """
    return _top_k_softmax_backward(dweight, logits, index, axis, order, normalize, bias, scale)


def sample(logits, axis=-1, *, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seed=0, probability=False):
    """One class along an axis, drawn with the probabilities softmax(logits / temperature) that are left after, in this order:

    temperature  0 or more; 0 is no draw, but the first of the largest
    top_k        only the k largest logits stay; 0: all. Ties go to the lower class
    top_p        of these the fewest of the likeliest whose probabilities add up to p (Holtzman et al. 2020); 1: all
    min_p        of these those at least min_p times as likely as the likeliest (Nguyen et al. 2024); 0: all
    seed         0 to 2**64 - 1. The same seed gives the same draws, whatever the strides, dtype of the index or threads; each
                 row has a number of its own by where it stands among the rows
    probability  also return how likely each draw was, among what is left

    logits have any shape of rank 1 to 6; -inf masks. Returns int32 classes, the shape of logits without the axis, or with
    probability=True (classes, probabilities). A row that nothing can be drawn from gives -1: without a live class (probability
    0), with NaN, or with +inf at a temperature above 0 (probability NaN).
    """
    return _sample(logits, axis, temperature, top_k, top_p, min_p, seed, probability)


def gate(x, g, kind="sigmoid"):
    """x gated by g, of the same shape: "sigmoid" x * sigmoid(g), "additive" x + g * x, "multiplicative" x * g.

    g is of x's dtype or float32. Returns x's shape and dtype.
    """
    return _gate(x, g, kind)


def gate_backward(dy, x, g, kind="sigmoid"):
    """The gradients of gate: (dx, dg), with dy the loss's gradient to the result.

    dx = dy sigmoid(g), dy (1 + g), dy g; dg = dy x sigmoid(g) (1 - sigmoid(g)), dy x, dy x.
    """
    return _gate_backward(dy, x, g, kind)
