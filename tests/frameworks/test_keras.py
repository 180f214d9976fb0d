# SPDX-License-Identifier: Apache-2.0
"""examples/python/keras_layers.py: Keras' attention layers on attn, values and weights both ways. Keras runs on torch."""

import importlib.util
import os
import sys
import unittest
import unittest.mock

from drop_in import ROOT, missing, ours

os.environ["KERAS_BACKEND"] = "torch"
if not missing and not importlib.util.find_spec("keras"):
    missing = "keras is not importable"
if not missing:
    import keras
    import numpy as np

    sys.path.insert(0, str(ROOT / "examples/python"))
    import keras_layers


@unittest.skipIf(missing, missing)
class Keras(unittest.TestCase):
    def setUp(self):
        rng = np.random.default_rng(3)
        self.normal = lambda *shape: rng.standard_normal(shape, np.float32)
        self.x, self.context, self.key = self.normal(2, 5, 6), self.normal(2, 7, 6), self.normal(2, 7, 6)

    def close(self, got, right):
        np.testing.assert_allclose(got, keras.ops.convert_to_numpy(right), rtol=2e-5, atol=2e-6)

    def there_and_back(self, kind, make, call):
        """attn's class of a layer with random weights, and a second layer that got them back: equal to the first."""
        layer, other = make(), make()
        for each in (layer, other):
            call(each)
        layer.set_weights([self.normal(*np.shape(each)) for each in layer.get_weights()])
        mine = kind.of(layer)
        mine.into(other)
        for got, right in zip(other.get_weights(), layer.get_weights(), strict=True):
            np.testing.assert_array_equal(got, right)
        return layer, mine

    def test_multi_head_attention(self):
        for options in ({}, {"use_bias": False, "value_dim": 3}):
            layer, mine = self.there_and_back(
                keras_layers.MultiHeadAttention,
                lambda: keras.layers.MultiHeadAttention(2, 4, **options),
                lambda layer: layer(self.x, self.context, self.key),
            )
            right, weights = layer(self.x, self.context, self.key, return_attention_scores=True)
            out, seen = mine(self.x, self.context, self.key, see="weights")
            self.close(out, right)
            self.close(seen.weights, weights)
            self.close(mine(self.x, self.x, causal="top-left")[0], layer(self.x, self.x, use_causal_mask=True))
            mask = np.tri(5, 7, 2) > 0
            right = layer(self.x, self.context, attention_mask=mask[None])
            self.close(mine(self.x, self.context, mask=mask)[0], right)

    def test_attention(self):
        for options in ({}, {"use_scale": True}, {"score_mode": "concat"}, {"score_mode": "concat", "use_scale": True}):
            self.one_head(keras_layers.Attention, lambda: keras.layers.Attention(**options))

    def test_additive_attention(self):
        for use_scale in (True, False):
            self.one_head(keras_layers.AdditiveAttention, lambda: keras.layers.AdditiveAttention(use_scale=use_scale))

    def one_head(self, kind, make):
        inputs = [self.x, self.context, self.key]
        layer, mine = self.there_and_back(kind, make, lambda layer: layer(inputs))
        right, weights = layer(inputs, return_attention_scores=True)
        out, seen = mine(self.x, self.context, self.key, see="weights")
        self.close(out, right)
        self.close(seen.weights[:, 0], weights)
        live = np.arange(7) < np.array([7, 4])[:, None]
        right = layer(inputs, mask=[None, keras.ops.convert_to_tensor(live)])
        self.close(mine(*inputs, kv_lengths=np.array([7, 4]))[0], right)
        self.close(mine(self.x, self.x, causal="top-left")[0], layer([self.x, self.x], use_causal_mask=True))

    def test_the_patch_reaches_multi_head_attention_on_torch(self):
        layer = keras.layers.MultiHeadAttention(2, 4)
        for options in ({}, {"use_causal_mask": True}, {"attention_mask": np.tri(5, dtype=bool)[None]}):
            right = keras.ops.convert_to_numpy(layer(self.x, self.x, **options))
            call = unittest.mock.patch("attn.torch._sdpa.scaled_dot_product_attention", side_effect=ours.scaled_dot_product_attention)
            with ours.patch(), call as called:
                self.close(right, layer(self.x, self.x, **options))
            self.assertEqual(called.call_count, 1)

    def test_what_is_not_covered_is_refused(self):
        layer = keras.layers.MultiHeadAttention(2, 4, use_gate=True)
        layer(self.x, self.x)
        with self.assertRaisesRegex(ValueError, "weights"):
            keras_layers.MultiHeadAttention.of(layer)
