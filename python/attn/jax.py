# SPDX-License-Identifier: Apache-2.0
"""attn for JAX on the CPU: attention and softmax with gradients, under jit, grad and vmap.

    import attn.jax
    out = attn.jax.attention(q, k, v, causal=True)
    loss = jax.jit(jax.grad(lambda x: attn.jax.softmax(x)[..., 0].sum()))(x)

Calls go through jax.pure_callback: XLA hands its arrays to NumPy and takes copies of attn's. Reverse mode, once: no second
derivatives and no forward mode. vmap computes one after the other.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import jax
import numpy as np

import attn

__all__ = ["attention", "softmax"]

_INPUTS = ("q", "k", "v", "bias", "sinks")


def _like(x: jax.Array, shape: tuple[int, ...] | None = None) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape if shape is None else shape, x.dtype)


def _call(function: Any, shapes: Any, *arrays: Any) -> Any:
    """The function of NumPy arrays, when the computation comes to it."""
    return jax.pure_callback(function, shapes, *arrays, vmap_method="sequential")


def _numpy(arrays: Any) -> list[Any]:
    return [None if each is None else np.asarray(each) for each in arrays]


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def softmax(x: jax.Array, axis: int = -1, scale: float = 1.0) -> jax.Array:
    """attn.softmax(x, axis, scale=scale), with its gradient."""
    return _call(lambda x: attn.softmax(np.asarray(x), axis, scale=scale), _like(x), x)  # type: ignore[no-any-return]


def _softmax_forward(x: jax.Array, axis: int, scale: float) -> tuple[jax.Array, jax.Array]:
    y = softmax(x, axis, scale)
    return y, y


def _softmax_backward(axis: int, scale: float, y: jax.Array, dy: jax.Array) -> tuple[jax.Array]:
    def back(dy: Any, y: Any) -> Any:
        return attn.softmax_backward(*_numpy((dy, y)), axis, scale=scale)

    return (_call(back, _like(y), dy, y),)


softmax.defvjp(_softmax_forward, _softmax_backward)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _attention(inputs: tuple[Any, ...], mask: Any, words: tuple[tuple[str, Any], ...]) -> jax.Array:
    return _attention_forward(inputs, mask, words)[0]


def _attention_forward(inputs: tuple[Any, ...], mask: Any, words: tuple[tuple[str, Any], ...]) -> Any:
    q, v = inputs[0], inputs[2]

    def forward(inputs: Any, mask: Any) -> Any:
        given = dict(zip(_INPUTS, _numpy(inputs), strict=True))
        out, seen = attn.attention(**given, mask=_numpy([mask])[0], see="lse", **dict(words))
        return out, seen.lse

    sums = np.float64 if q.dtype == np.float64 else np.float32
    shapes = _like(q, (*q.shape[:-1], v.shape[-1])), jax.ShapeDtypeStruct(q.shape[:-1], sums)
    out, lse = _call(forward, shapes, inputs, mask)
    return out, (inputs, mask, out, lse)


def _attention_backward(words: tuple[tuple[str, Any], ...], saved: Any, dout: jax.Array) -> Any:
    inputs, mask, out, lse = saved
    present = [name for name, each in zip(_INPUTS, inputs, strict=True) if each is not None]

    def back(dout: Any, inputs: Any, mask: Any, out: Any, lse: Any) -> Any:
        given = dict(zip(_INPUTS, _numpy(inputs), strict=True))
        mask, out, lse = _numpy((mask, out, lse))
        wanted = ["d" + name for name in present]
        grads = attn.attention_backward(np.asarray(dout), **given, mask=mask, out=out, lse=lse, wanted=wanted, **dict(words))
        return tuple(getattr(grads, name) for name in wanted)

    shapes = tuple(_like(each) for each in inputs if each is not None)
    found = dict(zip(present, _call(back, shapes, dout, inputs, mask, out, lse), strict=True))
    no_mask = None if mask is None else np.zeros(mask.shape, jax.dtypes.float0)
    return tuple(found.get(name) for name in _INPUTS), no_mask


_attention.defvjp(_attention_forward, _attention_backward)


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    mask: jax.Array | None = None,
    bias: jax.Array | None = None,
    sinks: jax.Array | None = None,
    scale: float | None = None,
    softcap: float = 0.0,
    causal: bool | Literal["bottom-right", "top-left"] = False,
    window: tuple[int, int] | None = None,
) -> jax.Array:
    """attn.attention's softmax of dot scores, with gradients to q, k, v, bias and sinks.

    q, k, v  [batch, heads, length, dim] or without leading axes, as in attn.attention (jax.nn.dot_product_attention has heads and
             length the other way round); v may have another dim
    mask     bool, True = attend; broadcasts to [batch, heads, length, kv_len], and so does bias

    Returns [..., length, dim of v]. Errors are JAX's JaxRuntimeError with attn's message.
    """
    words = {"scale": scale, "softcap": softcap, "causal": causal, "window": window}
    return _attention((q, k, v, bias, sinks), mask, tuple(words.items()))  # type: ignore[no-any-return]
