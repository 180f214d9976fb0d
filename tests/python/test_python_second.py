# SPDX-License-Identifier: Apache-2.0
"""Forward mode and second derivatives in Python: against differences of the package's own functions, ranks and refusals."""

import unittest

from package import attn, missing, np

STEP = 1e-5
ROWS = {
    "softmax": {},
    "log_softmax": {},
    "softmin": {},
    "sparsemax": {},
    "entmax15": {},
    "entmax": {"alpha": 1.3},
    "gumbel_softmax": {"temperature": 0.7},
}


@unittest.skipIf(missing, missing)
class Second(unittest.TestCase):
    def setUp(self):
        self.rng = np.random.default_rng(5)
        self.q, self.k, self.v = self.normal(2, 4, 5, 3), self.normal(2, 2, 6, 3), self.normal(2, 1, 6, 2)
        self.dout = self.normal(2, 4, 5, 2)
        self.options = {"causal": True, "softcap": 2.0, "bias": self.normal(5, 6), "dropout": 0.2, "seed": 3, "scale": 0.8}

    def normal(self, *shape):
        return self.rng.standard_normal(shape)

    def close(self, got, slope):
        self.assertEqual(got.shape, slope.shape)
        np.testing.assert_allclose(got, slope, rtol=1e-7, atol=1e-7)

    def test_tangents_of_rows_are_differences(self):
        for name, options in ROWS.items():
            for axis in (-1, 0, 1):
                forward, jvp = getattr(attn, name), getattr(attn, name + "_jvp")
                scale = {} if name == "gumbel_softmax" else {"scale": 0.6}
                seed = {"seed": 9} if name == "gumbel_softmax" else {}
                x, dx = self.normal(4, 9, 3), self.normal(4, 9, 3)

                def at(step):
                    return forward(x + step * dx, axis=axis, **options, **scale, **seed)

                dy = jvp(dx, at(0), axis=axis, **options, **scale)
                with self.subTest(name=name, axis=axis):
                    self.close(dy, (at(STEP) - at(-STEP)) / (2 * STEP))

    def test_tangents_of_logsumexp_are_differences(self):
        x, dx, bias, mask = self.normal(4, 9, 3), self.normal(4, 9, 3), self.normal(9, 3), self.rng.random((4, 9, 1)) < 0.7
        for axis in (-1, 0, 1):
            options = {"axis": axis, "scale": 0.6, "bias": bias, "mask": mask}
            above, below = (attn.logsumexp(x + step * dx, **options) for step in (STEP, -STEP))
            with np.errstate(invalid="ignore"):
                slope = np.where(np.isneginf(above), 0, (above - below) / (2 * STEP))
            self.close(attn.logsumexp_jvp(dx, x, **options), slope)

    def test_attention_s_tangents_are_differences(self):
        d = {"dq": self.normal(*self.q.shape), "dk": self.normal(*self.k.shape), "dv": self.normal(*self.v.shape)}
        dbias = self.normal(5, 6)

        def at(step):
            moved = {**self.options, "bias": self.options["bias"] + step * dbias}
            q, k, v = self.q + step * d["dq"], self.k + step * d["dk"], self.v + step * d["dv"]
            out, seen = attn.attention(q, k, v, see="lse", **moved)
            return out, seen.lse

        got = attn.attention_jvp(self.q, self.k, self.v, **self.options, **d, dbias=dbias)
        self.assertTrue(np.array_equal(got.out, at(0)[0]) and np.array_equal(got.lse, at(0)[1]))
        for tangent, above, below in zip((got.dout, got.dlse), at(STEP), at(-STEP)):
            self.close(tangent, (above - below) / (2 * STEP))

    def test_attention_s_double_backward_is_differences_of_the_backward(self):
        dd = [self.normal(*x.shape) for x in (self.q, self.k, self.v)]
        dlse = self.normal(2, 4, 5)

        def loss(dout, q, k, v, dlse):
            g = attn.attention_backward(dout, q, k, v, dlse=dlse, wanted=("dq", "dk", "dv"), **self.options)
            return sum((x * y).sum() for x, y in zip(g, dd))

        inputs = [self.dout, self.q, self.k, self.v, dlse]
        got = attn.attention_double_backward(*inputs[:4], **self.options, dlse=dlse, ddq=dd[0], ddk=dd[1], ddv=dd[2])
        for n, gradient in enumerate((got.ddout, got.dq, got.dk, got.dv, got.ddlse)):
            direction = self.normal(*inputs[n].shape)
            above, below = (
                loss(*(x + step * direction if i == n else x for i, x in enumerate(inputs))) for step in (STEP, -STEP)
            )
            self.assertEqual(gradient.shape, inputs[n].shape)
            self.assertAlmostEqual((gradient * direction).sum(), (above - below) / (2 * STEP), delta=1e-6)

    def test_ranks_2_and_3_drop_the_leading_axes(self):
        q, k, v, dout = (x[:1, :1] for x in (self.q, self.k, self.v, self.dout))
        full = attn.attention_jvp(q, k, v, dq=q, dk=k, dv=v)
        second = attn.attention_double_backward(dout, q, k, v, ddq=q, ddk=k, ddv=v)
        for drop in ((0,), (0, 0)):
            q1, k1, v1, dout1 = (x[drop] for x in (q, k, v, dout))
            for x, whole in zip(attn.attention_jvp(q1, k1, v1, dq=q1, dk=k1, dv=v1), full):
                self.assertTrue(np.array_equal(x, whole[drop]))
            for x, whole in zip(attn.attention_double_backward(dout1, q1, k1, v1, ddq=q1, ddk=k1, ddv=v1), second):
                self.assertTrue(np.array_equal(x, whole[drop]))

    def test_nothing_moves_along_nothing(self):
        got = attn.attention_jvp(self.q, self.k, self.v)
        self.assertFalse(got.dout.any() or got.dlse.any())
        self.assertFalse(any(x.any() for x in attn.attention_double_backward(self.dout, self.q, self.k, self.v)))

    def test_refusals(self):
        q, k, v = self.q, self.k, self.v
        with self.assertRaisesRegex(attn.Unsupported, "softmax"):
            attn.attention_jvp(q, k, v, weighting="sigmoid", dq=q)
        with self.assertRaisesRegex(attn.Unsupported, "dot score"):
            attn.attention_double_backward(self.dout, q, k, v, score="cosine", ddq=q)
        with self.assertRaisesRegex(ValueError, "dk has shape"):
            attn.attention_jvp(q, k, v, dk=q)
        with self.assertRaisesRegex(ValueError, "there is no bias"):
            attn.attention_jvp(q, k, v, dbias=self.normal(5, 6))
        with self.assertRaisesRegex(ValueError, "ddq has 3 axes"):
            attn.attention_double_backward(self.dout, q, k, v, ddq=q[0])
        with self.assertRaisesRegex(ValueError, "dx has 2 axes, y has 4"):
            attn.softmax_jvp(self.normal(2, 3), q)
        with self.assertRaisesRegex(ValueError, "dx has 2 axes, x has 4"):
            attn.logsumexp_jvp(self.normal(2, 3), q)


if __name__ == "__main__":
    unittest.main()
