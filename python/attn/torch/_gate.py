# SPDX-License-Identifier: Apache-2.0
"""Gates for torch, differentiable any number of times."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

import attn

from ._call import bare, inspected, is_recorded, is_traced, one_by_one, share_threads


def _formula(x: Tensor, g: Tensor, kind: str) -> Tensor:
    """In torch's operations, for compilers, which fuse it with what is around."""
    if kind == "sigmoid":
        return x * torch.sigmoid(g)
    return x + g * x if kind == "additive" else x * g


def _slopes(x: Tensor, g: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """The derivatives by x and by g, in torch's operations, for derivatives of derivatives."""
    if kind == "sigmoid":
        open_ = torch.sigmoid(g)
        return open_, x * open_ * (1 - open_)
    return 1 + g if kind == "additive" else g, x


class _Gate(torch.autograd.Function):
    """(x, g, kind) -> x gated by g."""

    @staticmethod
    @inspected
    def forward(x: Tensor, g: Tensor, kind: str) -> Any:
        share_threads()
        return attn.gate(bare(x), bare(g), kind)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.kind = inputs[2]
        ctx.save_for_backward(*inputs[:2])
        ctx.save_for_forward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, g = ctx.saved_tensors
        if not is_recorded(dy, x, g):
            share_threads()
            return *attn.gate_backward(dy, bare(x), bare(g), ctx.kind), None
        to_x, to_g = _slopes(x, g, ctx.kind)
        return dy * to_x, dy * to_g, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        (y,), (axis,) = one_by_one(lambda *args: (_Gate.apply(*args),))(info, in_dims, *args)
        return y, axis

    @staticmethod
    def jvp(ctx: Any, dx: Tensor | None, dg: Tensor | None, dkind: None) -> Any:
        x, g = ctx.saved_tensors
        to_x, to_g = _slopes(x, g, ctx.kind)
        return sum(d * slope for d, slope in ((dx, to_x), (dg, to_g)) if d is not None)


def gate(x: Tensor, g: Tensor, kind: Literal["sigmoid", "additive", "multiplicative"] = "sigmoid") -> Tensor:
    """attn.gate, with gradients to x and g: "sigmoid" x * sigmoid(g), "additive" x + g * x, "multiplicative" x * g."""
    if is_traced(x, g):
        return _formula(x, g, kind)
    if is_recorded(x, g):
        return _Gate.apply(x, g, kind)
    return _Gate.forward(x, g, kind)
