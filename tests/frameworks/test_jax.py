# SPDX-License-Identifier: Apache-2.0
"""attn.jax against JAX's formulas: values, gradients, jit and vmap; and its limits."""

import importlib.util
import os
import unittest

from drop_in import missing

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if not missing and not importlib.util.find_spec("jax"):
    missing = "jax is not importable"
if not missing:
    import jax
    import jax.numpy as jnp
    import numpy as np

    import attn.jax as ours


@unittest.skipIf(missing, missing)
class Jax(unittest.TestCase):
    def setUp(self):
        keys = jax.random.split(jax.random.key(4), 5)
        shapes = (2, 4, 5, 8), (2, 2, 7, 8), (2, 2, 7, 3), (4, 1, 7), (4,)
        self.q, self.k, self.v, self.bias, self.sinks = (jax.random.normal(*each) for each in zip(keys, shapes))
        self.mask = (jnp.arange(5)[:, None] + 2 >= jnp.arange(7)) & (jnp.arange(7) != 1)

    def formula(self, q, k, v, bias, sinks):
        k, v = (jnp.repeat(each, 2, 1) for each in (k, v))
        scores = jnp.where(self.mask, 0.4 * q @ k.mT + bias, -jnp.inf)
        sink = jnp.broadcast_to(sinks[:, None, None], (*scores.shape[:-1], 1))
        return jax.nn.softmax(jnp.concatenate([scores, sink], -1), -1)[..., :-1] @ v

    def mine(self, q, k, v, bias, sinks):
        return ours.attention(q, k, v, mask=self.mask, bias=bias, sinks=sinks, scale=0.4)

    def close(self, got, right):
        for mine, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(right), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)

    def test_attention_and_its_gradients(self):
        inputs = self.q, self.k, self.v, self.bias, self.sinks
        self.close(self.mine(*inputs), self.formula(*inputs))
        for wrap in (jax.jit, lambda function: function):
            got, right = (
                wrap(jax.grad(lambda *each: jnp.sin(call(*each)).sum(), argnums=range(5)))(*inputs)
                for call in (self.mine, self.formula)
            )
            self.close(got, right)

    def test_jaxs_own_function_has_heads_the_other_way_round(self):
        q, k, v = self.q, self.k, jnp.concatenate([self.v, self.v, self.v[..., :2]], -1)
        right = jax.nn.dot_product_attention(*(each.swapaxes(1, 2) for each in (q, k, v)), is_causal=True)
        self.close(ours.attention(q, k, v, causal="top-left"), right.swapaxes(1, 2))

    def test_softmax_and_its_gradient(self):
        for axis in (-1, 1):
            def loss(softmax, x):
                return jnp.sin(3 * softmax(2 * x, axis)).sum()

            def scaled(x, axis):
                return ours.softmax(x / 2, axis, 2.0)

            self.close(jax.jit(ours.softmax, static_argnums=1)(self.q, axis), jax.nn.softmax(self.q, axis))
            got, right = (jax.jit(jax.grad(lambda x: loss(each, x)))(self.q) for each in (scaled, jax.nn.softmax))
            self.close(got, right)

    def test_vmap_and_bfloat16(self):
        q, k, v = (each.astype(jnp.bfloat16) for each in (self.q, self.k, self.v))
        each = jax.vmap(lambda q, k, v: ours.attention(q, k, v, causal=True))(q, k, v)
        self.assertEqual(each.dtype, jnp.bfloat16)
        self.assertTrue((each == ours.attention(q, k, v, causal=True)).all())

    def test_errors_carry_attns_words(self):
        with self.assertRaisesRegex(Exception, "k has head size 7, q has 8"):
            ours.attention(self.q, self.k[..., :7], self.v).block_until_ready()
