# SPDX-License-Identifier: Apache-2.0
"""Keras' three attention layers computed by attn on NumPy arrays, and their weights carried both ways.

A model that was trained with Keras can be looked into, or served without Keras: each class is made of a layer (`of`), computes as it
does, shows what it attends to (`see`), and puts its weights back into a layer (`into`).

    KERAS_BACKEND=torch python examples/python/keras_layers.py         # or jax, tensorflow

prints how far apart Keras and attn are. Needs keras and a backend; attn.
"""

from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from numpy.typing import NDArray

import attn

Array = NDArray[np.float32]
See = Literal["lse", "entropy", "received", "weights", "scores"]


def _mix(q: Array, k: Array, v: Array, see: See | None, options: dict[str, Any]) -> tuple[Array, Any]:
    """attn.attention's result, and what is seen: None where nothing was asked for."""
    if see:
        return attn.attention(q, k, v, see=see, **options)
    return attn.attention(q, k, v, **options), None


@dataclass
class MultiHeadAttention:
    """keras.layers.MultiHeadAttention: kernels [dim, heads, head_dim], biases [heads, head_dim] or None; of the output transposed."""

    kernels: list[Array]
    biases: list[Array | None]

    @classmethod
    def of(cls, layer: Any) -> "MultiHeadAttention":
        """Of a layer that was built; attention axes other than the only one, a gate and a window are not covered."""
        weights = [np.asarray(each, np.float32) for each in layer.get_weights()]
        if len(weights) not in (4, 8):
            raise ValueError(f"the layer has {len(weights)} weights: 4 kernels, with or without their biases, are covered")
        step = len(weights) // 4
        return cls(weights[::step], list(weights[1::2]) if step == 2 else [None] * 4)

    def into(self, layer: Any) -> None:
        """Puts the weights into a layer of the same sizes that was built."""
        pairs = zip(self.kernels, self.biases, strict=True)
        layer.set_weights([each for pair in pairs for each in pair if each is not None])

    def _heads(self, x: Array, which: int) -> Array:
        """x [batch, length, dim] projected to [batch, heads, length, head_dim]."""
        rows: Array = np.einsum("bld,dhk->bhlk", x, self.kernels[which])
        bias = self.biases[which]
        return rows if bias is None else rows + bias[:, None]

    def __call__(self, query: Array, value: Array, key: Array | None = None, see: See | None = None, **options: Any) -> tuple[Array, Any]:
        """(out [batch, length, dim], attn.Seen or None); options of attn.attention: use_causal_mask is causal="top-left"."""
        q, k, v = (self._heads(x, i) for i, x in enumerate((query, value if key is None else key, value)))
        mixed, seen = _mix(q, k, v, see, options)
        out = np.einsum("bhlk,hkd->bld", mixed, self.kernels[3])
        return (out if self.biases[3] is None else out + self.biases[3]), seen


@dataclass
class Attention:
    """keras.layers.Attention: scores scale * q . k, or with `additive` sum(additive * tanh(scale * (q + k)))."""

    scale: float | None
    additive: float | None

    @classmethod
    def of(cls, layer: Any) -> "Attention":
        values = [float(each) for each in layer.get_weights()]
        return cls(values[0] if layer.use_scale else None, values[-1] if layer.score_mode == "concat" else None)

    def into(self, layer: Any) -> None:
        layer.set_weights([np.float32(each) for each in (self.scale, self.additive) if each is not None])

    def __call__(self, query: Array, value: Array, key: Array | None = None, see: See | None = None, **options: Any) -> tuple[Array, Any]:
        """Arrays [batch, length, dim] -> (out [batch, length, dim of value], attn.Seen or None)."""
        key = value if key is None else key
        scale = np.float32(1 if self.scale is None else self.scale)
        if self.additive is None:
            return _heads_of_one(query, key, value, see, {"scale": float(scale), **options})
        weight = np.full(query.shape[-1], self.additive, np.float32)
        return _heads_of_one(scale * query, scale * key, value, see, {"score": "additive", "score_weight": weight, **options})


@dataclass
class AdditiveAttention:
    """keras.layers.AdditiveAttention: scores sum(scale * tanh(q + k)), scale [dim] or None for ones."""

    scale: Array | None

    @classmethod
    def of(cls, layer: Any) -> "AdditiveAttention":
        return cls(np.asarray(layer.get_weights()[0], np.float32) if layer.use_scale else None)

    def into(self, layer: Any) -> None:
        layer.set_weights([] if self.scale is None else [self.scale])

    def __call__(self, query: Array, value: Array, key: Array | None = None, see: See | None = None, **options: Any) -> tuple[Array, Any]:
        """As Attention's."""
        weight = np.ones(query.shape[-1], np.float32) if self.scale is None else self.scale
        key = value if key is None else key
        return _heads_of_one(query, key, value, see, {"score": "additive", "score_weight": weight, **options})


def _heads_of_one(q: Array, k: Array, v: Array, see: See | None, options: dict[str, Any]) -> tuple[Array, Any]:
    """Attention of one head, [batch, length, dim]."""
    out, seen = _mix(q[:, None], k[:, None], v[:, None], see, options)
    return out[:, 0], seen


def main() -> None:
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x, context = (rng.standard_normal((2, n, 16), np.float32) for n in (5, 7))
    layers: list[tuple[type[MultiHeadAttention | Attention | AdditiveAttention], Any, Any]] = [
        (MultiHeadAttention, keras.layers.MultiHeadAttention(4, 8), (x, context)),
        (Attention, keras.layers.Attention(use_scale=True), ([x, context],)),
        (AdditiveAttention, keras.layers.AdditiveAttention(), ([x, context],)),
    ]
    for kind, layer, inputs in layers:
        right = keras.ops.convert_to_numpy(layer(*inputs))
        out, seen = kind.of(layer)(x, context, see="entropy")
        print(f"{kind.__name__:19} differs by {np.abs(out - right).max():.1e}, entropy {seen.entropy.mean():.3f}")


if __name__ == "__main__":
    main()
