# SPDX-License-Identifier: Apache-2.0
"""scaled_dot_product_attention as PyTorch means it, and putting it in PyTorch's place."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from ._attention import Settings, call_attention
from ._call import seed_of

_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_PLAIN = Settings(
    mask=None,
    q_lengths=None,
    kv_lengths=None,
    offset=None,
    q_starts=None,
    kv_starts=None,
    block_mask=None,
    block_size=None,
    seed=None,
    score="dot",
    scale=None,
    softcap=0.0,
    causal="",
    window=None,
    weighting="softmax",
    dropout=0.0,
    see=[],
    top_k=0,
    scores_stage="weighted",
    see_rows=None,
    see_heads=None,
    pooled_size=None,
)


def _cast(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """What autocast makes of the inputs."""
    dtype = torch.get_autocast_dtype("cpu")
    return tuple(t.to(dtype) if t is not None and t.dtype in (torch.float32, torch.float16, torch.bfloat16) else t for t in tensors)


def _broadcast_heads(query: Tensor, key: Tensor, value: Tensor, enable_gqa: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Heads of one rank and batches of one shape. What torch refuses is refused."""
    rank = max(query.dim(), key.dim(), value.dim())
    if min(query.dim(), key.dim(), value.dim()) < 2:
        raise ValueError(f"query, key and value have ranks {query.dim()}, {key.dim()} and {value.dim()}: each is at least 2")
    query, key, value = (t[(None,) * (rank - t.dim())] for t in (query, key, value))
    if rank == 2:
        return query, key, value
    batch = torch.broadcast_shapes(query.shape[:-3], key.shape[:-3], value.shape[:-3])
    heads, groups = query.shape[-3], {key.shape[-3], value.shape[-3]}
    if not enable_gqa:
        heads = torch.broadcast_shapes((heads,), *((n,) for n in groups))[0]
    elif any(n == 0 or heads % n for n in groups):
        raise ValueError(f"query has {heads} heads, key {key.shape[-3]} and value {value.shape[-3]}: these do not divide it")
    query = query.expand(*batch, heads, *query.shape[-2:])
    return query, key.expand(*batch, *key.shape[-3:]), value.expand(*batch, *value.shape[-3:])


def _fold_mask(mask: Tensor, batch: torch.Size) -> Tensor:
    """A mask whose leading axes are those of `batch`, as one with a single axis in their place."""
    if mask.dim() <= 3:
        return mask
    lead = mask.shape[:-3]
    if all(n == 1 for n in lead):
        return mask.reshape(1, *mask.shape[-3:])
    return mask.expand(*batch, *mask.shape[-3:]).flatten(0, -4)


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """torch.nn.functional.scaled_dot_product_attention: its arguments and what they mean, on CPU tensors of any rank from 2.

    attn_mask  bool, True = attend, or added to the scores: of query's dtype or float32; broadcasts to [..., heads, L, S]
    is_causal  query i sees keys up to i, from the top left, whatever the lengths; not beside attn_mask

    Dropped weights are those of a seed that torch's generator gives. Differentiable as attn.torch.attention is: to attn_mask too,
    twice to query, key and value, and in forward mode. A query that may see no key gets 0. Errors are ValueError and TypeError;
    RuntimeError for is_causal beside attn_mask, as in torch.
    """
    if attn_mask is not None and is_causal:
        raise RuntimeError("attn_mask and is_causal are both given: give one of them")
    if torch.is_autocast_enabled("cpu"):
        query, key, value, attn_mask = _cast(query, key, value, attn_mask)
    if query.dim() < 2 or not query.shape[:-2] == key.shape[:-2] == value.shape[:-2]:
        query, key, value = _broadcast_heads(query, key, value, enable_gqa)
    batch = query.shape[:-3]
    if query.dim() > 4:
        query, key, value = query.flatten(0, -4), key.flatten(0, -4), value.flatten(0, -4)
        if attn_mask is not None:
            attn_mask = _fold_mask(attn_mask, batch)
    is_bool = attn_mask is not None and attn_mask.dtype == torch.bool
    settings = _PLAIN
    if is_bool or scale is not None or is_causal or dropout_p:
        settings = settings._replace(
            mask=attn_mask if is_bool else None,
            scale=scale,
            causal="top-left" if is_causal else "",
            dropout=dropout_p,
            seed=seed_of(None) if dropout_p else None,
        )
    out = call_attention((query, key, value, None, None if is_bool else attn_mask, None, None, None), settings)[0]
    return out.unflatten(0, batch) if len(batch) > 1 else out


# ---- in PyTorch's place ----------------------------------------------------------------------------------

_torch_own = torch.nn.functional.scaled_dot_product_attention
_active = 0
_lock = threading.Lock()


def _is_ours(*tensors: Tensor | None) -> bool:
    """Whether the tensors are such as we compute with: dense floats on the CPU, no subclass."""
    return all(
        t is None
        or (
            t.device.type == "cpu"
            and t.layout is torch.strided
            and (t.dtype in _FLOATS or t.dtype is torch.bool)
            and not torch.overrides.has_torch_function((t,))
        )
        for t in tensors
    )


def _in_place_of_torch(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    call = scaled_dot_product_attention if _active and _is_ours(query, key, value, attn_mask) else _torch_own
    return call(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)


class patch:
    """Puts scaled_dot_product_attention in the place of torch.nn.functional's, for CPU tensors; others go on to torch's own.

        with attn.torch.patch(): ...          or          patched = attn.torch.patch(); ...; patched.undo()

    Patches nest: torch's own is back when the last is undone, in any order. Not reached are names imported before (`from
    torch.nn.functional import scaled_dot_product_attention`), code compiled before, and the C++ of nn.MultiheadAttention and
    nn.TransformerEncoderLayer in inference (torch.backends.mha.set_fastpath_enabled(False) turns that off).
    """

    def __init__(self) -> None:
        global _active
        self._undone = False
        with _lock:
            _active += 1
            torch.nn.functional.scaled_dot_product_attention = _in_place_of_torch

    def undo(self) -> None:
        """Takes this patch back; a second time does nothing."""
        global _active
        with _lock:
            if self._undone:
                return
            self._undone = True
            _active -= 1
            if not _active and torch.nn.functional.scaled_dot_product_attention is _in_place_of_torch:
                torch.nn.functional.scaled_dot_product_attention = _torch_own

    def __enter__(self) -> patch:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> Any:
        self.undo()
