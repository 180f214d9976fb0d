# SPDX-License-Identifier: Apache-2.0
"""attn as an attention implementation of Hugging Face's transformers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._attention import attention


def _attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    output_attentions: bool | None = None,
    **others: Any,
) -> tuple[Tensor, Tensor | None]:
    """An attention function as transformers calls it: heads first in, [batch, length, heads, dim] out, and the weights if asked for.

    A window is in the mask. Without a mask a causal module's query i sees keys up to i, as with the "sdpa" implementation.
    """
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    is_bool = attention_mask is not None and attention_mask.dtype == torch.bool
    bias = position_bias
    if attention_mask is not None and not is_bool:
        bias = attention_mask if bias is None else bias + attention_mask
    wants_weights = output_attentions if output_attentions is not None else _asks_for_weights(module)
    done = attention(
        query,
        key,
        value,
        scale=scaling,
        softcap=softcap or 0.0,
        causal="top-left" if causal and attention_mask is None and query.shape[2] > 1 else False,
        mask=attention_mask if is_bool else None,
        bias=bias,
        sinks=None if s_aux is None else s_aux.to(query.dtype),
        dropout=dropout,
        see="weights" if wants_weights else (),
    )
    out, weights = (done[0], done[1].weights.to(query.dtype)) if wants_weights else (done, None)
    return out.transpose(1, 2).contiguous(), weights


def _asks_for_weights(module: torch.nn.Module) -> bool:
    return bool(getattr(getattr(module, "config", None), "output_attentions", False))


def register_transformers(name: str = "attn") -> None:
    """Makes attn an attention implementation of transformers (4.48 or later), under `name`:

        attn.torch.register_transformers()
        model = AutoModel.from_pretrained(..., attn_implementation="attn")

    Masks, padding on either side, grouped heads, sliding windows, softcap, sinks, position biases, dropout and KV caches are
    those of the model; output_attentions=True gives the weights. Gradients as attn.torch.attention.
    """
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(name, _attend)
    AttentionMaskInterface.register(name, sdpa_mask)
