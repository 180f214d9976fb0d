# SPDX-License-Identifier: Apache-2.0
"""Losses for torch: the gradient is made in the sweep that makes the loss, and handed out when backward asks for it."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

import attn

from ._call import bare, inspected, is_recorded, is_traced, last, share_threads, sum_to

_Reduction = Literal["mean", "sum", "none"]
_CHUNK = 1024  # rows of logits that are held at a time where each row's loss has its own gradient


class Terms(NamedTuple):
    """How a loss is put together."""

    ignore_index: int
    label_smoothing: float
    z_loss: float
    reduction: str


def _times(gradient: Tensor, dloss: Tensor) -> Tensor:
    """The gradient of the loss, or of each row's, times what is to come after it."""
    return (gradient * (dloss[:, None] if dloss.dim() else dloss)).to(gradient.dtype)


_hand_out = last(lambda gradient, dloss: [_times(gradient, dloss)], "the gradient of a loss")


# ---- cross-entropy ---------------------------------------------------------------------------------------


def _forward(logits: Tensor, labels: Tensor, weight: Tensor | None, terms: Terms, grad: bool) -> tuple[Tensor, Tensor]:
    """(loss, dlogits), the latter empty where it is not wanted."""
    share_threads()
    done = attn.cross_entropy(bare(logits), bare(labels), weight=bare(weight), **terms._asdict(), grad=grad)
    return done if grad else (done, logits.new_empty(0))


def _set_up(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[1])


def _go_back(ctx: Any, dloss: Tensor | None, *rest: Any) -> tuple[Tensor | None, ...]:
    if dloss is None:
        return (None,) * 5
    (gradient,) = ctx.saved_tensors
    dlogits = _hand_out(gradient, dloss)[0] if is_recorded(dloss) else _times(gradient, dloss)
    return dlogits, None, None, None, None


class _CrossEntropy(torch.autograd.Function):
    """(logits, labels, weight, terms, grad) -> loss, dlogits."""

    forward = staticmethod(inspected(_forward))
    setup_context = staticmethod(_set_up)
    backward = staticmethod(_go_back)


_SCHEMA_TERMS = "SymInt ignore_index, float label_smoothing, float z_loss, str reduction"
_N_TERMS = len(Terms._fields)


@torch.library.custom_op(
    "attn::cross_entropy",
    mutates_args=(),
    device_types="cpu",
    schema=f"(Tensor logits, Tensor labels, Tensor? weight, {_SCHEMA_TERMS}, bool grad) -> (Tensor, Tensor)",
)
def _cross_entropy_op(*args: Any) -> tuple[Tensor, Tensor]:
    return _forward(*args[:3], Terms._make(args[3:-1]), args[-1])


def _loss_shape(x: Tensor, reduction: str) -> Tensor:
    dtype = x.dtype if x.dtype == torch.float64 else torch.float32
    return x.new_empty(x.shape[:1] if reduction == "none" else (), dtype=dtype)


@_cross_entropy_op.register_fake
def _cross_entropy_shapes(*args: Any) -> tuple[Tensor, Tensor]:
    logits, reduction, grad = args[0], args[-2], args[-1]
    return _loss_shape(logits, reduction), logits.new_empty(logits.shape if grad else 0)


torch.library.register_autograd(
    "attn::cross_entropy",
    lambda ctx, *grads: (*_go_back(ctx, *grads)[:3], *(None,) * (_N_TERMS + 1)),
    setup_context=lambda ctx, inputs, output: _set_up(ctx, inputs, output),
)


def _check_labels(labels: Tensor, *weights: Tensor | None) -> None:
    for name, tensor in zip(("labels", "class weights"), (labels, *weights), strict=False):
        if tensor is not None and torch.is_grad_enabled() and tensor.requires_grad:
            raise attn.Unsupported(f"{name} want a gradient, which is not built: hand in .detach()")


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: _Reduction = "mean",
) -> Tensor:
    """attn.cross_entropy of logits [n, classes], with a gradient to them (once: it is made with the loss).

    Unlike torch.nn.functional.cross_entropy classes are the last of two axes, a mean over no rows is 0, and the loss of 16-bit
    logits is float32.
    """
    _check_labels(labels, weight)
    terms = Terms(ignore_index, label_smoothing, z_loss, reduction)
    grad = is_recorded(logits)
    if is_traced(logits):
        return torch.ops.attn.cross_entropy(logits, labels, weight, *terms, grad)[0]
    if grad:
        return _CrossEntropy.apply(logits, labels, weight, terms, True)[0]
    return _forward(logits, labels, weight, terms, False)[0]


# ---- linear cross-entropy --------------------------------------------------------------------------------


def _forward_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, class_weight: Tensor | None, terms: Terms, grad: bool
) -> tuple[Tensor, ...]:
    """(loss, dx, dweight, dbias), empty where they are not wanted."""
    share_threads()
    words = {"bias": bare(bias), "class_weight": bare(class_weight), **terms._asdict(), "grad": grad}
    done = attn.linear_cross_entropy(bare(x), bare(weight), bare(labels), **words)
    if not grad:
        return done, *(x.new_empty(0) for _ in range(3))
    return *done[:3], x.new_empty(0) if bias is None else done[3]


def _rows_back(
    dloss: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, class_weight: Tensor | None, terms: Terms
) -> tuple[Tensor, ...]:
    """(dx, dweight, dbias) where each row's loss has a gradient of its own: some rows of logits at a time."""
    dx, dweight, dbias = torch.empty_like(x), torch.zeros_like(weight), weight.new_zeros(weight.shape[0])
    for begin in range(0, x.shape[0], _CHUNK):
        rows = slice(begin, begin + _CHUNK)
        logits = torch.nn.functional.linear(x[rows], weight, bias)
        _, dlogits = torch.ops.attn.cross_entropy(logits, labels[rows], class_weight, *terms, True)
        dlogits = _times(dlogits, dloss[rows])
        dx[rows] = dlogits @ weight
        dweight += dlogits.mT @ x[rows]
        dbias += dlogits.sum(0)
    return dx, dweight, dbias


def _set_up_linear(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, terms, grad = inputs
    ctx.terms = terms
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[1:])
    ctx.bias_like = None if inputs[2] is None else (inputs[2].shape, inputs[2].dtype)
    ctx.save_for_backward(*(tensors if terms.reduction == "none" else output[1:]))


def _go_back_linear(ctx: Any, dloss: Tensor | None, *rest: Any) -> tuple[Tensor | None, ...]:
    if dloss is None:
        return (None,) * 7
    saved = ctx.saved_tensors
    if ctx.terms.reduction == "none":
        grads = _linear_rows(dloss, *saved, ctx.terms)
    elif is_recorded(dloss):
        grads = tuple(_hand_out(gradient, dloss)[0] for gradient in saved)
    else:
        grads = tuple(_times(gradient, dloss) for gradient in saved)
    dbias = None if ctx.bias_like is None else sum_to(grads[2], *ctx.bias_like)
    return grads[0], grads[1], dbias, None, None, None, None


_linear_rows = last(lambda *args: _rows_back(*map(bare, args[:-1]), args[-1]), "the gradient of a loss")


class _LinearCrossEntropy(torch.autograd.Function):
    """(x, weight, bias, labels, class_weight, terms, grad) -> loss, dx, dweight, dbias."""

    forward = staticmethod(inspected(_forward_linear))
    setup_context = staticmethod(_set_up_linear)
    backward = staticmethod(_go_back_linear)


@torch.library.custom_op(
    "attn::linear_cross_entropy",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor x, Tensor weight, Tensor? bias, Tensor labels, Tensor? class_weight, "
    f"{_SCHEMA_TERMS}, bool grad) -> (Tensor, Tensor, Tensor, Tensor)",
)
def _linear_op(*args: Any) -> tuple[Tensor, ...]:
    return _forward_linear(*args[:5], Terms._make(args[5:-1]), args[-1])


@_linear_op.register_fake
def _linear_shapes(*args: Any) -> tuple[Tensor, ...]:
    x, weight, bias, reduction, grad = *args[:3], args[-2], args[-1]
    made = tuple(x.new_empty(0) if t is None or not grad else t.new_empty(t.shape) for t in (x, weight, bias))
    return _loss_shape(x, reduction), *made


torch.library.register_autograd(
    "attn::linear_cross_entropy",
    lambda ctx, *grads: (*_go_back_linear(ctx, *grads)[:5], *(None,) * (_N_TERMS + 1)),
    setup_context=lambda ctx, inputs, output: _set_up_linear(ctx, (*inputs[:5], Terms._make(inputs[5:-1]), inputs[-1]), output),
)


def linear_cross_entropy(
    x: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    bias: Tensor | None = None,
    class_weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: _Reduction = "mean",
) -> Tensor:
    """attn.linear_cross_entropy: cross_entropy of x weight^T + bias without the logits in memory, with gradients to the three.

    They are made with the loss, once; for reduction="none" when backward asks for them, some rows of logits at a time.
    """
    _check_labels(labels, class_weight)
    terms = Terms(ignore_index, label_smoothing, z_loss, reduction)
    recorded = is_recorded(x, weight, bias)
    grad = recorded and reduction != "none"
    if is_traced(x):
        return torch.ops.attn.linear_cross_entropy(x, weight, bias, labels, class_weight, *terms, grad)[0]
    if recorded:
        return _LinearCrossEntropy.apply(x, weight, bias, labels, class_weight, terms, grad)[0]
    return _forward_linear(x, weight, bias, labels, class_weight, terms, False)[0]
