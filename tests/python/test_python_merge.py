# SPDX-License-Identifier: Apache-2.0
"""Merging in Python: parts of the keys are the whole, arrays of any kind and number, in place, gradients, refusals."""

import unittest

from package import attn, missing, np


@unittest.skipIf(missing, missing)
class Merge(unittest.TestCase):
    def setUp(self):
        self.rng = np.random.default_rng(2)
        self.q, self.k, self.v = (self.rng.standard_normal((2, 3, n, 8)) for n in (5, 60, 60))

    def parts(self, n, dtype="f8"):
        """Attention over n parts of the keys, the last of which sees nothing."""
        q, k, v = (x.astype(dtype) for x in (self.q, self.k, self.v))
        edges = [i * 60 // n for i in range(n)] + [60, 60]
        calls = [attn.attention(q, k[:, :, a:b], v[:, :, a:b], see="lse") for a, b in zip(edges, edges[1:])]
        return [out for out, _ in calls], [seen.lse for _, seen in calls], *attn.attention(q, k, v, see="lse")

    def test_parts_are_the_whole(self):
        for n in (1, 2, 3, 50):  # 50: more arrays than a call holds itself
            for dtype, unit in (("f8", 1e-13), ("f4", 1e-5)):
                outs, lses, out, seen = self.parts(n, dtype)
                for given in ((outs, lses), (np.stack(outs), np.stack(lses))):
                    merged, lse = attn.merge(*given)
                    self.assertEqual((merged.dtype, lse.dtype), (out.dtype, seen.lse.dtype))
                    np.testing.assert_allclose(merged, out, rtol=unit, atol=unit)
                    np.testing.assert_allclose(lse, seen.lse, rtol=unit, atol=unit)

    def test_out_is_written_where_it_is_asked_for(self):
        outs, lses, out, _ = self.parts(3, "f4")
        half = np.zeros(out.shape, "f2")
        self.assertIs(attn.merge(outs, lses, out=half)[0], half)
        np.testing.assert_allclose(half, out, atol=2e-3)
        self.assertIs(attn.merge(outs, lses, out=outs[0])[0], outs[0])
        np.testing.assert_allclose(outs[0], out, atol=1e-5)
        with self.assertRaisesRegex(ValueError, r"out overlaps outs\[1\]"):
            attn.merge(outs, lses, out=outs[1])

    def test_gradients_are_differences(self):
        outs, lses, _, _ = self.parts(3)
        dout, dlse = self.rng.standard_normal(outs[0].shape), self.rng.standard_normal(lses[0].shape)
        douts, dlses = attn.merge_backward(dout, outs, lses, dlse=dlse)
        moves = [self.rng.standard_normal(x.shape) for x in outs + lses]

        def loss(step):
            moved = [x + step * d for x, d in zip(outs + lses, moves)]
            out, lse = attn.merge(moved[:4], moved[4:])
            return (dout * out).sum() + (dlse * lse).sum()

        slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
        self.assertAlmostEqual(sum((g * d).sum() for g, d in zip(douts + dlses, moves)), slope, delta=1e-6)
        self.assertFalse(douts[3].any() or dlses[3].any())

    def test_refusals(self):
        outs, lses, out, _ = self.parts(2)
        for refused, says in (
            (lambda: attn.merge([], []), "outs has no parts"),
            (lambda: attn.merge(outs, lses[1:]), "outs are 3 and lses 2"),
            (lambda: attn.merge(outs[:1] + [out[:1]], lses[:2]), r"outs\[1\] has shape \[1, 3, 5, 8\]"),
            (lambda: attn.merge(outs, outs), r"lses\[0\] has shape"),
            (lambda: attn.merge_backward(out[:1], outs, lses), "dout has shape"),
            (lambda: attn.merge_backward(out, [], lses), "outs has no parts"),
        ):
            with self.assertRaisesRegex(ValueError, says):
                refused()
        with self.assertRaisesRegex(TypeError, r"lses\[0\]"):
            attn.merge([out], ["a"])


if __name__ == "__main__":
    unittest.main()
