# SPDX-License-Identifier: Apache-2.0
"""Losses."""

from ._core import cross_entropy as _cross_entropy
from ._core import linear_cross_entropy as _linear_cross_entropy


def cross_entropy(
    logits, labels, *, weight=None, ignore_index=-100, label_smoothing=0.0, z_loss=0.0, reduction="mean", grad=False
):
    """Cross-entropy of softmax(logits), as torch.nn.functional.cross_entropy computes it.

    logits           [n, classes]
    labels           int32 or int64 [n], each a class or ignore_index; or floats [n, classes], targets of any numbers
    weight           [classes], of logits' dtype or float32: what a class counts
    ignore_index     rows with this label cost nothing
    label_smoothing  e, from 0 to 1
    z_loss           adds z_loss * logsumexp(logits)^2 to each row that counts (Chowdhery et al. 2022)
    reduction        "mean", "sum" or "none"
    grad             return the gradient too, from the same sweep

    A row of label y costs (1 - e) w_y nll_y + e / classes * sum_c w_c nll_c with nll_c = logsumexp(logits) - logits_c; one of a
    soft target t costs sum_c w_c ((1 - e) t_c + e / classes) nll_c. The mean divides by the sum of w_y over the rows that count (soft
    targets: by n); when no row counts, loss and gradient are 0.

    Returns the loss, one number or [n], of logits' dtype (float32 for 16-bit logits); or (loss, dlogits), dlogits of logits'
    shape and dtype, with reduction="none" the gradient of the sum. A label that is no class is a ValueError naming the first such row.
    """
    return _cross_entropy(logits, labels, weight, ignore_index, label_smoothing, z_loss, reduction, grad)


def linear_cross_entropy(
    x,
    weight,
    labels,
    *,
    bias=None,
    class_weight=None,
    ignore_index=-100,
    label_smoothing=0.0,
    z_loss=0.0,
    reduction="mean",
    grad=False,
):
    """cross_entropy of the logits x weight^T + bias, which are never held in memory: n x classes of them would be.

    x             [n, dim]
    weight        [classes, dim], of x's dtype or float32
    labels        int32 or int64 [n], each a class or ignore_index; or floats [n, classes]
    bias          [classes], of x's dtype or float32
    class_weight  [classes]: what a class counts. This and all that follows is as in cross_entropy

    Returns the loss, one number or [n], of x's dtype (float32 for 16-bit x); or (loss, dx, dweight, dbias), each of its input's
    shape and dtype, dbias None without a bias. A row that is ignored is never multiplied.
    """
    return _linear_cross_entropy(x, weight, labels, bias, class_weight, ignore_index, label_smoothing, z_loss, reduction, grad)
