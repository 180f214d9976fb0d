# SPDX-License-Identifier: Apache-2.0
"""The softmax family for torch: differentiable any number of times, in forward mode, and traced by compilers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

import attn

from ._call import as_tensor, bare, inspected, is_recorded, is_traced, last, one_by_one, seed_number, seed_of, share_threads, sum_to


class Kind(NamedTuple):
    """What is computed, beside the tensors."""

    name: str  # of the function in attn
    axis: int = -1
    scale: float = 1.0
    temperature: float = 1.0  # of gumbel_softmax, as hard is
    hard: bool = False


# ---- the calls on memory ---------------------------------------------------------------------------------


def _forward(
    x: Tensor, mask: Tensor | None, bias: Tensor | None, alpha: Tensor | None, seed: Tensor | None, kind: Kind
) -> Tensor:
    share_threads()
    function: Callable[..., Any] = getattr(attn, kind.name)
    if seed is not None:
        noise = seed_number(seed)
        done = function(bare(x), kind.axis, temperature=kind.temperature, hard=kind.hard, seed=noise)
    elif alpha is not None:
        done = function(bare(x), float(alpha), kind.axis, scale=kind.scale, mask=mask, bias=bare(bias))
    else:
        done = function(bare(x), kind.axis, scale=kind.scale, mask=mask, bias=bare(bias))
    return done


def _words(alpha: Tensor | None, kind: Kind) -> dict[str, Any]:
    """What a _backward and a _jvp take beside y: they move by scale * x + bias, so that the scale is 1."""
    words: dict[str, Any] = {"axis": kind.axis}
    if kind.name == "entmax":
        words["alpha"] = float(alpha)
    elif kind.name == "gumbel_softmax":
        words["temperature"] = kind.temperature
    return words


def _gradient(dy: Tensor, y: Tensor, alpha: Tensor | None, kind: Kind, wants_alpha: bool = False) -> list[Tensor]:
    """The gradient to scale * x + bias; with wants_alpha the one to alpha too. y: of the soft form where that is hard."""
    share_threads()
    function: Callable[..., Any] = getattr(attn, kind.name + "_backward")
    words = _words(alpha, kind)
    if not wants_alpha:
        return [function(bare(dy), bare(y), **words)]
    dz, dalpha = function(bare(dy), bare(y), dalpha=True, **words)
    assert alpha is not None
    return [dz, torch.as_tensor(dalpha, dtype=alpha.dtype).reshape(alpha.shape)]


def _direction(dz: Tensor, y: Tensor, alpha: Tensor | None, kind: Kind) -> list[Tensor]:
    """How y moves when scale * x + bias moves along dz."""
    share_threads()
    function: Callable[..., Any] = getattr(attn, kind.name + "_jvp")
    return [function(bare(dz).contiguous(), bare(y), **_words(alpha, kind))]


_move = last(_direction, "the softmax family's forward mode")


# ---- recorded for gradients ------------------------------------------------------------------------------


def _slopes(dy: Tensor, y: Tensor, alpha: Tensor | None, kind: Kind) -> Tensor:
    """_gradient in torch's operations, which have derivatives of their own."""
    live = y > 0
    if kind.name == "log_softmax":
        dy = torch.where(torch.isneginf(y), 0, dy)
        return dy - y.exp() * dy.sum(kind.axis, keepdim=True)
    if kind.name in ("softmax", "softmin", "gumbel_softmax"):
        dz = y * (dy - (y * dy).sum(kind.axis, keepdim=True))
        return -dz if kind.name == "softmin" else dz / kind.temperature
    if kind.name == "sparsemax":
        share = live.to(y.dtype)
    else:
        power = 0.5 if kind.name == "entmax15" else 2 - float(alpha)
        share = torch.where(live, torch.where(live, y, 1) ** power, 0)
    whole = share.sum(kind.axis, keepdim=True)
    mean = (share * dy).sum(kind.axis, keepdim=True) / torch.where(whole > 0, whole, 1)
    return share * (dy - mean)


def _set_up(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, mask, bias, alpha, seed, kind = inputs
    ctx.kind = kind
    ctx.set_materialize_grads(False)
    ctx.bias_like = None if bias is None else (bias.shape, bias.dtype)
    hard = (x, seed) if kind.hard else (None, None)
    ctx.save_for_backward(output, alpha, *hard)
    ctx.save_for_forward(output, alpha, *hard)


def _soft(ctx: Any) -> tuple[Tensor, Tensor | None, Kind]:
    """y, alpha and kind of what the gradients are of."""
    y, alpha, x, seed = ctx.saved_tensors
    kind = ctx.kind
    if kind.hard:
        kind = kind._replace(hard=False)
        y = _call(x, None, None, None, seed, kind)
    return y, alpha, kind


def _go_back(ctx: Any, dy: Tensor | None) -> tuple[Tensor | None, ...]:
    if dy is None:
        return (None,) * 6
    y, alpha, kind = _soft(ctx)
    wants_alpha = ctx.needs_input_grad[3]
    if is_traced(dy, y):
        dz, *dalpha = torch.ops.attn.softmax_backward(dy, y, alpha, *kind, wants_alpha)
    elif not is_recorded(dy, y):
        dz, *dalpha = _gradient(dy, y, alpha, kind, wants_alpha)
    elif wants_alpha:
        raise attn.Unsupported("a gradient to alpha is built for backward() without create_graph alone")
    else:
        dz, dalpha = _slopes(dy, y, alpha, kind), []
    dbias = sum_to(dz, *ctx.bias_like) if ctx.needs_input_grad[2] else None
    return dz * kind.scale if kind.scale != 1 else dz, None, dbias, *(dalpha or (None,)), None, None


class _Family(torch.autograd.Function):
    """(x, mask, bias, alpha, seed, kind) -> y."""

    forward = staticmethod(inspected(_forward))
    setup_context = staticmethod(_set_up)
    backward = staticmethod(_go_back)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        (y,), (axis,) = one_by_one(lambda *args: (_Family.apply(*args),))(info, in_dims, *args)
        return y, axis

    @staticmethod
    def jvp(ctx: Any, dx: Tensor | None, dmask: None, dbias: Tensor | None, dalpha: Tensor | None, *rest: Any) -> Any:
        if dalpha is not None:
            raise attn.Unsupported("alpha has a tangent: forward mode is built for x and bias")
        y, alpha, kind = _soft(ctx)
        dz = torch.zeros_like(y) if dx is None else dx * kind.scale
        return _move(dz if dbias is None else dz + dbias, y, alpha, kind)[0]


def _logsumexp(x: Tensor, mask: Tensor | None, bias: Tensor | None, axis: int, scale: float) -> Tensor:
    share_threads()
    return attn.logsumexp(bare(x), axis, scale=scale, mask=mask, bias=bare(bias))


def _set_up_logsumexp(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.axis, ctx.scale = inputs
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)


def _go_back_logsumexp(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, mask, bias = ctx.saved_tensors
    dz = dy.unsqueeze(ctx.axis) * softmax(x, ctx.axis, scale=ctx.scale, mask=mask, bias=bias)
    dbias = sum_to(dz, bias.shape, bias.dtype) if ctx.needs_input_grad[2] else None
    return dz * ctx.scale, None, dbias, None, None


class _LogSumExp(torch.autograd.Function):
    """(x, mask, bias, axis, scale) -> the logarithm of the sum. Its derivatives are those of the softmax, called for them."""

    forward = staticmethod(inspected(_logsumexp))
    setup_context = staticmethod(_set_up_logsumexp)
    backward = staticmethod(_go_back_logsumexp)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        (y,), (axis,) = one_by_one(lambda *args: (_LogSumExp.apply(*args),))(info, in_dims, *args)
        return y, axis

    @staticmethod
    def jvp(ctx: Any, dx: Tensor | None, dmask: None, dbias: Tensor | None, *rest: None) -> Any:
        x, mask, bias = ctx.saved_tensors
        y = softmax(x, ctx.axis, scale=ctx.scale, mask=mask, bias=bias)
        dz = torch.zeros_like(y) if dx is None else dx * ctx.scale
        dz = dz if dbias is None else dz + dbias
        return torch.where(y > 0, y * dz, 0).sum(ctx.axis)


# ---- as operators for compilers --------------------------------------------------------------------------

_SCHEMA_KIND = "str name, SymInt axis, float scale, float temperature, bool hard"
_N_KIND = len(Kind._fields)


@torch.library.custom_op(
    "attn::softmax",
    mutates_args=(),
    device_types="cpu",
    schema=f"(Tensor x, Tensor? mask, Tensor? bias, Tensor? alpha, Tensor? seed, {_SCHEMA_KIND}) -> Tensor",
)
def _softmax_op(*args: Any) -> Tensor:
    return _forward(*args[:5], Kind._make(args[5:]))


@_softmax_op.register_fake
def _softmax_shape(x: Tensor, *rest: Any) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op(
    "attn::softmax_backward",
    mutates_args=(),
    device_types="cpu",
    schema=f"(Tensor dy, Tensor y, Tensor? alpha, {_SCHEMA_KIND}, bool wants_alpha) -> Tensor[]",
)
def _softmax_backward_op(*args: Any) -> list[Tensor]:
    return _gradient(*args[:3], Kind._make(args[3:-1]), args[-1])


@_softmax_backward_op.register_fake
def _softmax_backward_shapes(*args: Any) -> list[Tensor]:
    dy, y, alpha = args[:3]
    return [y.new_empty(y.shape)] + ([alpha.new_empty(())] if args[-1] else [])


torch.library.register_autograd(
    "attn::softmax",
    lambda ctx, dy: (*_go_back(ctx, dy)[:5], *(None,) * _N_KIND),
    setup_context=lambda ctx, inputs, output: _set_up(ctx, (*inputs[:5], Kind._make(inputs[5:])), output),
)


@torch.library.custom_op(
    "attn::logsumexp",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor x, Tensor? mask, Tensor? bias, SymInt axis, float scale) -> Tensor",
)
def _logsumexp_op(*args: Any) -> Tensor:
    return _logsumexp(*args)


@_logsumexp_op.register_fake
def _logsumexp_shape(x: Tensor, mask: Any, bias: Any, axis: int, scale: float) -> Tensor:
    axis %= x.dim()
    return x.new_empty((*x.shape[:axis], *x.shape[axis + 1 :]))


torch.library.register_autograd("attn::logsumexp", _go_back_logsumexp, setup_context=_set_up_logsumexp)


def _call(
    x: Tensor, mask: Tensor | None, bias: Tensor | None, alpha: float | Tensor | None, seed: Tensor | None, kind: Kind
) -> Tensor:
    alpha = as_tensor(alpha, torch.float64)
    if is_traced(x):
        return torch.ops.attn.softmax(x, mask, bias, alpha, seed, *kind)
    if is_recorded(x, bias, alpha):
        return _Family.apply(x, mask, bias, alpha, seed, kind)
    return _forward(x, mask, bias, alpha, seed, kind)


# ---- the functions ---------------------------------------------------------------------------------------


def softmax(
    x: Tensor, axis: int = -1, *, scale: float = 1.0, mask: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """attn.softmax, with gradients to x and bias. Rows without live entries are 0 and pass no gradient."""
    return _call(x, mask, bias, None, None, Kind("softmax", axis, scale))


def log_softmax(
    x: Tensor, axis: int = -1, *, scale: float = 1.0, mask: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """attn.log_softmax, with gradients to x and bias."""
    return _call(x, mask, bias, None, None, Kind("log_softmax", axis, scale))


def softmin(
    x: Tensor, axis: int = -1, *, scale: float = 1.0, mask: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """attn.softmin, with gradients to x and bias."""
    return _call(x, mask, bias, None, None, Kind("softmin", axis, scale))


def logsumexp(
    x: Tensor, axis: int = -1, *, scale: float = 1.0, mask: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """attn.logsumexp, with gradients to x and bias: the shape of x without the axis."""
    if is_traced(x):
        return torch.ops.attn.logsumexp(x, mask, bias, axis, scale)
    if is_recorded(x, bias):
        return _LogSumExp.apply(x, mask, bias, axis, scale)
    return _logsumexp(x, mask, bias, axis, scale)


def sparsemax(
    x: Tensor, axis: int = -1, *, scale: float = 1.0, mask: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """attn.sparsemax, with gradients to x and bias."""
    return _call(x, mask, bias, None, None, Kind("sparsemax", axis, scale))


def entmax15(
    x: Tensor, axis: int = -1, *, scale: float = 1.0, mask: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """attn.entmax15, with gradients to x and bias."""
    return _call(x, mask, bias, None, None, Kind("entmax15", axis, scale))


def entmax(
    x: Tensor,
    alpha: float | Tensor = 1.5,
    axis: int = -1,
    *,
    scale: float = 1.0,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """attn.entmax, with gradients to x, bias and, where it is a tensor of one number, alpha."""
    return _call(x, mask, bias, alpha, None, Kind("entmax", axis, scale))


def gumbel_softmax(
    x: Tensor, axis: int = -1, *, temperature: float = 1.0, hard: bool = False, seed: int | Tensor | None = None
) -> Tensor:
    """attn.gumbel_softmax, with a gradient to x: of the soft form, hard or not.

    seed  64 bits; default: new ones of torch's generator (torch.manual_seed)
    """
    return _call(x, None, None, None, seed_of(seed), Kind("gumbel_softmax", axis, 1.0, temperature, hard))
