# SPDX-License-Identifier: Apache-2.0
"""How a call on torch's tensors is made: directly, recorded for gradients, or as an operator that a compiler sees."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

import attn

from .. import _threads

_T = TypeVar("_T", bound=Tensor | None)
_R = TypeVar("_R")
_OURS = (Tensor, torch.nn.Parameter)


def bare(tensor: _T) -> _T:
    """The tensor without its history, which attn's functions on memory refuse."""
    return tensor.detach() if tensor is not None and tensor.requires_grad else tensor


def share_threads() -> None:
    """Computes with as many threads as torch does, unless the user chose a number."""
    _threads.follow(torch.get_num_threads())


def is_traced(*tensors: Tensor) -> bool:
    """Whether a compiler looks on: the call has to be an operator of torch.library's."""
    if torch.compiler.is_compiling():
        return True
    for tensor in tensors:
        if type(tensor) not in _OURS:
            return True
    return False


def is_recorded(*tensors: Tensor | None) -> bool:
    """Whether derivatives may be asked for: by backward, in forward mode or by torch.func."""
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor is not None and tensor.requires_grad:
                return True
    return torch.autograd.forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


def as_tensor(value: Any, dtype: torch.dtype) -> Tensor | None:
    """A number or numbers as a tensor; None and tensors stay."""
    return value if value is None or isinstance(value, Tensor) else torch.tensor(value, dtype=dtype)


def seed_of(seed: int | Tensor | None) -> Tensor:
    """64 bits as a tensor of one number: those given, or new ones of torch's generator."""
    if seed is None:
        return torch.randint(torch.iinfo(torch.int64).max, ())
    if isinstance(seed, Tensor):
        return seed
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed is {seed}: it is from 0 to 2**64 - 1")
    return torch.tensor(seed - 2**64 if seed >= 2**63 else seed)


def seed_number(seed: Tensor) -> int:
    """What seed_of made, as attn's functions on memory take it."""
    return int(seed) % 2**64


def sum_to(gradient: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """The gradient to what was broadcast: the sum over where it went."""
    return gradient.sum_to_size(shape).to(dtype)


def inspected(forward: Callable[..., _R]) -> Callable[..., _R]:
    """The forward of an autograd.Function with its signature at hand: torch asks for it in each call, and finding it takes longer
    than the rest of the call."""
    forward.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    return forward


def _entry(value: Any, axis: Any, i: int) -> Any:
    """Entry i of what torch.vmap maps over; `axis` has the form of `value`, None where that is not mapped."""
    if isinstance(axis, int):
        return value.select(axis, i)
    if isinstance(axis, (tuple, list)):
        entries = [_entry(*each, i) for each in zip(value, axis, strict=True)]
        return value._make(entries) if hasattr(value, "_make") else type(value)(entries)
    return value


def one_by_one(apply: Callable[..., Sequence[Tensor]]) -> Callable[..., Any]:
    """The vmap of an autograd.Function that gives several tensors: a call for each entry."""

    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        calls = [apply(*_entry(args, in_dims, i)) for i in range(info.batch_size)]
        return tuple(map(torch.stack, zip(*calls, strict=True))), (0,) * len(calls[0])

    return vmap


def last(compute: Callable[..., Sequence[Tensor]], what: str) -> Callable[..., Any]:
    """A function of bare tensors as one that torch.func's transforms see through, with no derivatives of its own."""

    class Last(torch.autograd.Function):
        @staticmethod
        @inspected
        def forward(*args: Any) -> Any:
            return tuple(compute(*args))

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            pass

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            raise attn.Unsupported(f"derivatives of {what} are not built")

        vmap = staticmethod(one_by_one(lambda *args: Last.apply(*args)))

    return Last.apply
