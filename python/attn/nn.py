# SPDX-License-Identifier: Apache-2.0
"""Layers for PyTorch that it lacks: attention that can be looked into, gated attention, additive attention.

Each is a torch.nn.Module whose forward takes `see` and then returns (out, attn.Seen), without holding a weight matrix unless
weights are asked for. Tensors are [batch, length, size].
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .torch import attention, gate

__all__ = ["AdditiveAttention", "GatedAttention", "MultiheadAttention"]

_See = str | Iterable[str]


class MultiheadAttention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017) that shows what it attends to.

    dim        size of the input and of the output
    heads      how many
    kv_heads   heads of keys and values, dividing heads (Ainslie et al. 2023); default: heads
    kv_dim     size of the context's rows; default: dim
    head_dim   of a head; default: dim / heads
    bias       of the four projections
    dropout    probability that a weight is dropped in training
    weighting, softcap, window, sinks   as in attn.attention; sinks=True learns one for each head

    `from_torch` makes one of a torch.nn.MultiheadAttention, with its weights.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        kv_heads: int | None = None,
        kv_dim: int | None = None,
        head_dim: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
        weighting: Literal["softmax", "sigmoid", "sparsemax", "entmax15", "relu2", "hardmax"] = "softmax",
        softcap: float = 0.0,
        window: tuple[int, int] | None = None,
        sinks: bool = False,
    ) -> None:
        super().__init__()
        kv_heads, kv_dim = kv_heads or heads, kv_dim or dim
        if head_dim is None and dim % heads:
            raise ValueError(f"dim {dim} is no multiple of {heads} heads: give head_dim")
        if heads % kv_heads:
            raise ValueError(f"kv_heads {kv_heads} does not divide heads {heads}")
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, head_dim or dim // heads
        self.dropout, self.weighting, self.softcap, self.window = dropout, weighting, softcap, window
        self.query = nn.Linear(dim, heads * self.head_dim, bias)
        self.key = nn.Linear(kv_dim, kv_heads * self.head_dim, bias)
        self.value = nn.Linear(kv_dim, kv_heads * self.head_dim, bias)
        self.out = nn.Linear(heads * self.head_dim, dim, bias)
        self.sinks = nn.Parameter(torch.zeros(heads)) if sinks else None

    @classmethod
    def from_torch(cls, module: nn.MultiheadAttention) -> MultiheadAttention:
        """The same attention, with copies of the weights. Not built: bias_k and bias_v, add_zero_attn."""
        if module.bias_k is not None or module.add_zero_attn:
            raise NotImplementedError("bias_kv and add_zero_attn of torch.nn.MultiheadAttention are not built")
        if module.kdim != module.vdim:
            raise NotImplementedError("kdim and vdim that differ are not built")
        bias = module.in_proj_bias is not None
        made = cls(module.embed_dim, module.num_heads, kv_dim=module.kdim, bias=bias, dropout=module.dropout)
        made.to(module.out_proj.weight.dtype).train(module.training)
        if module.in_proj_weight is not None:
            weights = module.in_proj_weight.chunk(3)
        else:
            weights = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
        with torch.no_grad():
            for layer, weight in zip((made.query, made.key, made.value), weights, strict=True):
                layer.weight.copy_(weight)
            made.out.weight.copy_(module.out_proj.weight)
            if bias:
                for layer, values in zip((made.query, made.key, made.value), module.in_proj_bias.chunk(3), strict=True):
                    layer.bias.copy_(values)
                made.out.bias.copy_(module.out_proj.bias)
        return made

    def _split(self, rows: Tensor, heads: int) -> Tensor:
        """[batch, length, heads * head_dim] as [batch, heads, length, head_dim], in place."""
        return rows.unflatten(-1, (heads, self.head_dim)).transpose(-3, -2)

    def _mix(self, x: Tensor, context: Tensor | None, options: dict[str, Any]) -> tuple[Tensor, Any]:
        """The heads' results, [batch, length, heads * head_dim], and what is seen."""
        context = x if context is None else context
        done = attention(
            self._split(self.query(x), self.heads),
            self._split(self.key(context), self.kv_heads),
            self._split(self.value(context), self.kv_heads),
            weighting=self.weighting,
            softcap=self.softcap,
            window=self.window,
            sinks=self.sinks,
            dropout=self.dropout if self.training else 0.0,
            **options,
        )
        out, seen = done if options.get("see") else (done, None)
        return out.transpose(-3, -2).flatten(-2), seen

    def forward(self, x: Tensor, context: Tensor | None = None, *, see: _See = (), **options: Any) -> Any:
        """Attention of the rows of x, [batch, length, dim], to those of context, [batch, kv_len, kv_dim]; default: to their own.

        options  causal, offset, mask, bias, alibi, kv_lengths, top_k, see_rows, ... of attn.torch.attention

        Returns [batch, length, dim]; with see (out, attn.Seen).
        """
        mixed, seen = self._mix(x, context, {"see": see, **options})
        out = self.out(mixed)
        return (out, seen) if see else out


class GatedAttention(MultiheadAttention):
    """MultiheadAttention whose heads' results pass a gate that the query's row opens: out(gate(mix(x), gates(x))) (Qiu et al. 2025).

    gate  "sigmoid" y * sigmoid(g), "additive" y + g * y or "multiplicative" y * g, element by element
    Other arguments as MultiheadAttention.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        gate: Literal["sigmoid", "additive", "multiplicative"] = "sigmoid",
        bias: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(dim, heads, bias=bias, **options)
        self.gate = gate
        self.gates = nn.Linear(dim, self.heads * self.head_dim, bias)

    def forward(self, x: Tensor, context: Tensor | None = None, *, see: _See = (), **options: Any) -> Any:
        """As MultiheadAttention's."""
        mixed, seen = self._mix(x, context, {"see": see, **options})
        out = self.out(gate(mixed, self.gates(x), self.gate))
        return (out, seen) if see else out


class AdditiveAttention(nn.Module):
    """Additive attention (Bahdanau et al. 2015): score_ij = w . tanh(W q_i + U k_j), a network of one hidden layer.

    query_dim  size of a query's row
    key_dim    size of a key's row; default: query_dim
    hidden     size of the hidden layer; default: query_dim
    dropout    probability that a weight is dropped in training

    The values are mixed as they are: the result has their size. No [length, kv_len, hidden] tensor exists.
    """

    def __init__(
        self, query_dim: int, key_dim: int | None = None, hidden: int | None = None, *, dropout: float = 0.0
    ) -> None:
        super().__init__()
        hidden = hidden or query_dim
        self.dropout = dropout
        self.query = nn.Linear(query_dim, hidden)
        self.key = nn.Linear(key_dim or query_dim, hidden, bias=False)
        self.score = nn.Parameter(torch.empty(hidden))
        nn.init.uniform_(self.score, -(hidden**-0.5), hidden**-0.5)

    def forward(self, query: Tensor, keys: Tensor, values: Tensor | None = None, *, see: _See = (), **options: Any) -> Any:
        """Attention of the rows of query, [batch, length, query_dim], to keys, [batch, kv_len, key_dim].

        values   [batch, kv_len, v_dim]; default: keys
        options  mask, kv_lengths, causal, top_k, ... of attn.torch.attention, on [batch, 1, length, kv_len]

        Returns [batch, length, v_dim]; with see (out, attn.Seen), of one head.
        """
        values = keys if values is None else values
        q, k, v = (rows.unsqueeze(-3) for rows in (self.query(query), self.key(keys), values))
        dropout = self.dropout if self.training else 0.0
        done = attention(q, k, v, score="additive", score_weight=self.score, dropout=dropout, see=see, **options)
        out, seen = done if see else (done, None)
        return (out.squeeze(-3), seen) if see else out.squeeze(-3)
