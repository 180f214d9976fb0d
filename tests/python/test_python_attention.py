# SPDX-License-Identifier: Apache-2.0
"""Attention in Python: ranks, options, what is seen, gradients."""

import unittest

from package import attn, missing, np

if not missing:
    import formulas


@unittest.skipIf(missing, missing)
class Attention(unittest.TestCase):
    def setUp(self):
        rng = np.random.default_rng(2)
        self.q, self.k, self.v = (rng.standard_normal((2, 3, n, d)).astype("f4") for n, d in ((4, 8), (6, 8), (6, 5)))
        self.dout = rng.standard_normal((2, 3, 4, 5)).astype("f4")

    def refused(self, kind, says, *args, **options):
        with self.assertRaises(kind) as caught:
            attn.attention(*(args or (self.q, self.k, self.v)), **options)
        self.assertIn(says, str(caught.exception))

    def test_ranks_2_and_3_drop_the_leading_axes_of_every_output(self):
        see = ("lse", "entropy", "received", "weights", "scores", "top", "pooled")
        whole, all_seen = attn.attention(self.q, self.k, self.v, see=see, top_k=2, pooled_size=(2, 2))
        bias = np.linspace(-1, 1, 24, dtype="f4").reshape(4, 6)
        slopes = np.array([0.1, 0.2, 0.3], "f4")
        all_grads = attn.attention_backward(self.dout, self.q, self.k, self.v, bias=bias, alibi=slopes)
        self.assertEqual((all_grads.dbias.shape, all_grads.dalibi.shape), ((4, 6), (3,)))
        for index, heads in (((1,), slopes), ((1, 2), slopes[2:])):
            q, k, v, dout = (t[index] for t in (self.q, self.k, self.v, self.dout))
            out, seen = attn.attention(q, k, v, see=see, top_k=2, pooled_size=(2, 2))
            np.testing.assert_array_equal(out, whole[index])
            for part, full in zip(seen, all_seen):
                np.testing.assert_array_equal(part, full[index])
            grads = attn.attention_backward(dout, q, k, v, bias=bias, alibi=heads)
            for field in ("dq", "dk", "dv"):
                np.testing.assert_array_equal(getattr(grads, field), getattr(all_grads, field)[index])
            self.assertEqual((grads.dbias.shape, grads.dalibi.shape), (bias.shape, heads.shape))
            lse = seen.lse if not bias.any() else attn.attention(q, k, v, bias=bias, alibi=heads, see="lse")[1].lse
            again = attn.attention_backward(
                dout,
                q,
                k,
                v,
                bias=bias,
                alibi=heads,
                lse=lse,
                dlse=np.zeros_like(lse),
                out=attn.attention(q, k, v, bias=bias, alibi=heads),
            )
            np.testing.assert_allclose(again.dq, grads.dq, rtol=1e-5, atol=1e-6)

    def test_chosen_rows_and_heads_are_those_of_the_whole_maps(self):
        whole = attn.attention(self.q, self.k, self.v, see=("weights", "scores"), scores_stage="raw")[1]
        for rows, heads in (([3, 0, 0], [2, 1]), (np.array([1, 2], "i4")[::-1], 1), (2, np.array([0])), ([], None), (None, [])):
            seen = attn.attention(
                self.q, self.k, self.v, see=("weights", "scores"), scores_stage="raw", see_rows=rows, see_heads=heads
            )[1]
            row = slice(None) if rows is None else np.atleast_1d(np.asarray(rows, "i8"))
            head = slice(None) if heads is None else np.atleast_1d(np.asarray(heads, "i8"))
            np.testing.assert_array_equal(seen.weights, whole.weights[:, head][:, :, row])
            np.testing.assert_array_equal(seen.scores, whole.scores[:, head][:, :, row])
        seen = attn.attention(self.q[0], self.k[0], self.v[0], see="weights", see_rows=[1], see_heads=[2, 0])[1]
        np.testing.assert_array_equal(seen.weights, whole.weights[0][[2, 0]][:, [1]])
        seen = attn.attention(self.q[0, 0], self.k[0, 0], self.v[0, 0], see="weights", see_rows=[1, 3])[1]
        np.testing.assert_array_equal(seen.weights, whole.weights[0, 0, [1, 3]])

    def test_pooled_maps_are_means_over_blocks(self):
        for p, q in ((2, 3), (3, 4), (1, 1)):
            seen = attn.attention(self.q, self.k, self.v, see=("weights", "pooled"), pooled_size=(p, q), causal=True)[1]
            self.assertEqual(seen.pooled.shape, (2, 3, p, q))
            rows, keys = ([i * extent // n for i in range(n + 1)] for n, extent in ((p, 4), (q, 6)))
            for i in range(p):
                for j in range(q):
                    block = seen.weights[:, :, rows[i] : rows[i + 1], keys[j] : keys[j + 1]]
                    np.testing.assert_allclose(seen.pooled[:, :, i, j], block.mean((2, 3)), rtol=1e-5, atol=1e-7)

    def test_received_is_a_row_times_the_weights(self):
        by, options = np.linspace(-1, 1, 4, dtype="f4"), {"causal": True, "softcap": 2.0}
        seen = attn.attention(self.q, self.k, self.v, see=("lse", "weights", "received"), **options)[1]
        got = attn.attention_received(self.q, self.k, self.v, **options)
        np.testing.assert_array_equal(got, seen.received)
        for lse in (None, seen.lse):
            got = attn.attention_received(self.q, self.k, self.v, by=by, lse=lse, **options)
            np.testing.assert_allclose(got, np.einsum("i,bhij->bhj", by, seen.weights), rtol=1e-5, atol=1e-6)
            slopes = seen.weights * np.einsum("bhic,bhjc->bhij", self.dout, self.v)
            for positive in (False, True):
                got = attn.attention_received(
                    self.q, self.k, self.v, by=by, dout=self.dout, positive=positive, lse=lse, **options
                )
                wanted = np.maximum(slopes, 0) if positive else slopes
                np.testing.assert_allclose(got, np.einsum("i,bhij->bhj", by, wanted), rtol=1e-4, atol=1e-5)
        one = attn.attention_received(self.q[0, 1], self.k[0, 1], self.v[0, 1], by=by, dout=self.dout[0, 1], **options)
        np.testing.assert_allclose(one, np.einsum("i,ij->j", by, slopes[0, 1]), rtol=1e-4, atol=1e-5)
        with self.assertRaisesRegex(ValueError, "positive is 1, and there is no dout"):
            attn.attention_received(self.q, self.k, self.v, positive=True)

    def test_what_is_not_asked_for_is_none(self):
        out, seen = attn.attention(self.q, self.k, self.v, see="entropy")
        self.assertEqual([f for f in seen._fields if getattr(seen, f) is not None], ["entropy"])
        self.assertIs(type(attn.attention(self.q, self.k, self.v, see=())), np.ndarray)
        grads = attn.attention_backward(self.dout, self.q, self.k, self.v)
        self.assertEqual([f for f in grads._fields if getattr(grads, f) is not None], ["dq", "dk", "dv"])
        grads = attn.attention_backward(self.dout, self.q, self.k, self.v, wanted=("dk",))
        self.assertEqual([f for f in grads._fields if getattr(grads, f) is not None], ["dk"])

    def test_options_mean_what_they_say(self):
        j, i = np.arange(6), np.arange(4)[:, None]
        for options, mask in (
            ({"causal": True}, j <= i + 2),
            ({"causal": "bottom-right"}, j <= i + 2),
            ({"causal": "top-left"}, j <= i),
            ({"causal": True, "offset": 1}, j <= i + 1),
            ({"window": (1, 0)}, (j <= i + 2) & (j >= i + 1)),
            ({"window": [-1, 1], "offset": np.array([0, 0])}, j <= i + 1),
            ({"kv_lengths": [3, 3]}, np.broadcast_to(j < 3, (4, 6))),
        ):
            with self.subTest(options=options):
                np.testing.assert_array_equal(
                    attn.attention(self.q, self.k, self.v, **options), attn.attention(self.q, self.k, self.v, mask=mask)
                )
        np.testing.assert_array_equal(
            attn.attention(self.q, self.k, self.v, causal=False, scale=8**-0.5), attn.attention(self.q, self.k, self.v)
        )
        weights = attn.attention(self.q, self.k, self.v, scale=0, see="weights")[1].weights
        np.testing.assert_allclose(weights, 1 / 6, rtol=1e-6)
        one = (self.q[:1], self.k[:1], self.v[:1])
        np.testing.assert_array_equal(
            attn.attention(*one, kv_lengths=3, q_lengths=np.int64(4)), attn.attention(*one, kv_lengths=[3], q_lengths=[4])
        )

    def test_a_packed_batch_is_its_sequences_one_by_one(self):
        rng = np.random.default_rng(8)
        q_starts, kv_starts = [0, 3, 3, 10], np.array([0, 4, 9, 20], "i4")
        q, dout = rng.standard_normal((10, 4, 6)), rng.standard_normal((10, 4, 5))
        k, v = rng.standard_normal((20, 2, 6)), rng.standard_normal((20, 2, 5))
        sinks, alibi = rng.standard_normal(4), rng.random((3, 4))
        names = ("lse", "entropy", "received", "top")
        options = {"causal": True, "sinks": sinks, "q_starts": q_starts, "kv_starts": kv_starts}
        out, seen = attn.attention(q, k, v, see=names, top_k=2, alibi=alibi, **options)
        grads = attn.attention_backward(dout, q, k, v, out=out, lse=seen.lse, alibi=alibi, **options)
        self.assertEqual((out.shape, seen.lse.shape, seen.received.shape), ((10, 4, 5), (10, 4), (20, 4)))
        self.assertEqual((grads.dk.shape, grads.dalibi.shape), ((20, 2, 6), (3, 4)))
        dsinks = 0
        for b in range(3):
            rows, keys = slice(q_starts[b], q_starts[b + 1]), slice(kv_starts[b], kv_starts[b + 1])
            one = [t.swapaxes(0, 1) for t in (q[rows], k[keys], v[keys])]
            alone = {"causal": True, "sinks": sinks, "alibi": alibi[b]}
            expected, saw = attn.attention(*one, see=names, top_k=2, **alone)
            np.testing.assert_array_equal(out[rows], expected.swapaxes(0, 1))
            for name in ("lse", "entropy", "top_index", "top_weight"):
                np.testing.assert_array_equal(getattr(seen, name)[rows], getattr(saw, name).swapaxes(0, 1))
            np.testing.assert_array_equal(seen.received[keys], saw.received.swapaxes(0, 1))
            back = attn.attention_backward(dout[rows].swapaxes(0, 1), *one, out=expected, lse=saw.lse, **alone)
            np.testing.assert_array_equal(grads.dq[rows], back.dq.swapaxes(0, 1))
            np.testing.assert_array_equal(grads.dk[keys], back.dk.swapaxes(0, 1))
            np.testing.assert_array_equal(grads.dalibi[b], back.dalibi)
            dsinks += back.dsinks
        np.testing.assert_allclose(grads.dsinks, dsinks, rtol=1e-13)

    def test_refusals_of_packed_batches(self):
        packed = [t[0].swapaxes(0, 1) for t in (self.q, self.k, self.v)]
        self.refused(ValueError, "q has 4 axes: with q_starts it is [total, heads, dim]", q_starts=[0, 2])
        self.refused(ValueError, "kv_starts is given without q_starts", kv_starts=[0, 2])
        self.refused(ValueError, "q_starts[1] is 2: the last is the total, here 4", *packed, q_starts=[0, 2], kv_starts=[0, 6])

    def test_a_block_mask_is_the_mask_written_out(self):
        rng = np.random.default_rng(9)
        q, dout = rng.standard_normal((2, 4, 50, 6)), rng.standard_normal((2, 4, 50, 5))
        k, v = rng.standard_normal((2, 2, 70, 6)), rng.standard_normal((2, 2, 70, 5))
        for shape in ((4, 5), (4, 1, 5), (2, 1, 4, 5)):
            blocks = rng.random(shape) < 0.5
            mask = np.broadcast_to(blocks, (*shape[:-2], 4, 5)).repeat(16, -2).repeat(16, -1)[..., :50, :70]
            options = {"block_mask": blocks, "block_size": 16}
            out, seen = attn.attention(q, k, v, see="lse", **options)
            expected, saw = attn.attention(q, k, v, see="lse", mask=mask)
            np.testing.assert_array_equal(out, expected)
            np.testing.assert_array_equal(seen.lse, saw.lse)
            for got, full in zip(
                attn.attention_backward(dout, q, k, v, **options)[:3], attn.attention_backward(dout, q, k, v, mask=mask)[:3]
            ):
                np.testing.assert_array_equal(got, full)
            np.testing.assert_array_equal(
                attn.attention_jvp(q, k, v, dq=q, **options).dout, attn.attention_jvp(q, k, v, dq=q, mask=mask).dout
            )
            np.testing.assert_array_equal(attn.attention_received(q, k, v, **options), attn.attention_received(q, k, v, mask=mask))
        self.refused(ValueError, "block_size is given without a block_mask", block_size=16)
        self.refused(ValueError, "block_size is 0", block_mask=np.ones((1, 1), bool), block_size=0)
        self.refused(ValueError, "block_size is -1", block_mask=np.ones((1, 1), bool), block_size=-1)
        self.refused(ValueError, "block_mask is f64: it is bool", block_mask=np.ones((1, 1)))

    def test_stages_of_scores(self):
        raw = self.q.astype("f8") @ self.k.swapaxes(2, 3) / 8**0.5
        for stage, expected in (("raw", raw), ("capped", 2 * np.tanh(raw / 2)), ("weighted", 2 * np.tanh(raw / 2) + 1)):
            scores = attn.attention(self.q, self.k, self.v, softcap=2.0, bias=np.float32(1), see=("scores",), scores_stage=stage)[
                1
            ].scores
            np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)

    def test_float64_is_seen_in_float64_and_16_bits_in_float32(self):
        for dtype, seen_in in (("f8", "f8"), ("f4", "f4"), ("f2", "f4")):
            q, k, v = (t.astype(dtype) for t in (self.q, self.k, self.v))
            out, seen = attn.attention(q, k, v, see=("lse", "received"))
            self.assertEqual((out.dtype, seen.lse.dtype, seen.received.dtype), (dtype, seen_in, seen_in))

    def test_out_may_be_float32(self):
        q, k, v = (t.astype("f2") for t in (self.q, self.k, self.v))
        out = np.empty((2, 3, 4, 5), "f4")
        result, seen = attn.attention(q, k, v, out=out, see="lse")
        self.assertIs(result, out)
        np.testing.assert_allclose(out, attn.attention(q, k, v), rtol=2**-10, atol=2**-20)

    def test_no_keys_and_no_queries(self):
        out, seen = attn.attention(self.q, self.k[:, :, :0], self.v[:, :, :0], see=("lse", "entropy"))
        self.assertTrue((out == 0).all() and (seen.lse == -np.inf).all() and (seen.entropy == 0).all())
        self.assertEqual(attn.attention(self.q[:, :, :0], self.k, self.v).shape, (2, 3, 0, 5))

    def test_refusals(self):
        self.refused(ValueError, "q has 1 axes", self.q[0, 0, 0], self.k, self.v)
        self.refused(ValueError, "k has 3 axes, q has 4", self.q, self.k[0], self.v)
        self.refused(ValueError, "k has head size 7, q has 8", self.q, self.k[..., :7], self.v)
        self.refused(ValueError, "score is 'cos': it is dot, additive or cosine", score="cos")
        self.refused(ValueError, "weighting is 'soft'", weighting="soft")
        self.refused(ValueError, "causal is 'left': it is bottom-right or top-left", causal="left")
        self.refused(ValueError, "window is 3: it is (left, right)", window=3)
        self.refused(ValueError, "window reaches -2", window=(-2, 0))
        self.refused(TypeError, "window is an integer, not float", window=(0.5, 0))
        self.refused(ValueError, "see names 'lsé': it may name lse, entropy", see=("lsé",))
        self.refused(ValueError, "see names 'top', and top_k is 0", see="top")
        self.refused(ValueError, "top_k is 3, and see does not name 'top'", top_k=3)
        self.refused(ValueError, "top_k is -1", see="top", top_k=-1)
        self.refused(ValueError, "see_rows is given, and see names neither 'weights' nor 'scores'", see="lse", see_rows=[1])
        self.refused(ValueError, "see_heads is given", see_heads=1)
        self.refused(ValueError, "see.rows[1] is 4: it is from 0 to 3", see="weights", see_rows=[0, 4])
        self.refused(ValueError, "see_rows is [[1]]: it is an int, or a row of ints", see="weights", see_rows=[[1]])
        self.refused(ValueError, "see_rows is [0.5]", see="weights", see_rows=[0.5])
        self.refused(ValueError, "see.heads[0] and see.heads[1] are both 1", see="weights", see_heads=[1, 1])
        flat = (self.q[0, 0], self.k[0, 0], self.v[0, 0])
        self.refused(ValueError, "see_heads is given, and q has no heads", *flat, see="weights", see_heads=0)
        self.refused(ValueError, "pooled_size is None: it is (P, Q)", see="pooled")
        self.refused(ValueError, "pooled_size is (0, 2): both are 1 or more", see="pooled", pooled_size=(0, 2))
        self.refused(ValueError, "pooled_size is given, and see names no 'pooled'", pooled_size=(2, 2))
        self.refused(ValueError, "see.lse is asked for", weighting="sigmoid", see="lse")
        self.refused(ValueError, "scores_stage is 'late'", see="scores", scores_stage="late")
        self.refused(ValueError, "offset", causal="top-left", offset=1)
        self.refused(ValueError, "score_weight", score="additive")
        self.refused(ValueError, "alpha is 0", alpha=0)
        self.refused(ValueError, "kv_lengths[1] is 9", kv_lengths=[1, 9])
        self.refused(ValueError, "dropout is 2", dropout=2)
        with self.assertRaisesRegex(ValueError, "dout has 3 axes, here it has 4"):
            attn.attention_backward(self.dout[0], self.q, self.k, self.v)
        with self.assertRaisesRegex(ValueError, "wanted names 'dx'"):
            attn.attention_backward(self.dout, self.q, self.k, self.v, wanted="dx")
        with self.assertRaisesRegex(ValueError, "dout is missing"):
            attn.attention_backward(None, self.q, self.k, self.v)

    def test_every_score_weighting_sink_and_dropout_agrees_with_its_formula(self):
        rng = np.random.default_rng(7)
        plain = attn.attention(self.q, self.k, self.v)
        for options in (
            {"score": "additive", "score_weight": rng.standard_normal(8).astype("f4")},
            {"score": "cosine", "scale": 4.0},
            {"sinks": np.array([-1, 0, 3], "f4")},
            {"dropout": 0.5, "seed": 2**64 - 1},
            {"weighting": "sigmoid"},
            {"weighting": "sparsemax"},
            {"weighting": "entmax15"},
            {"weighting": "entmax"},
            {"weighting": "entmax", "alpha": 1.2},
            {"weighting": "entmax", "alpha": 3.0},
            {"weighting": "relu2"},
            {"weighting": "hardmax"},
        ):
            with self.subTest(options=options):
                right = formulas.Attention(self.q, self.k, self.v, **options)
                out = attn.attention(self.q, self.k, self.v, **options)
                self.assertFalse(np.array_equal(out, plain))
                np.testing.assert_allclose(out, right.out, rtol=1e-5, atol=1e-5)
                grads = attn.attention_backward(self.dout, self.q, self.k, self.v, **options)
                for name, exact in right.backward(self.dout).items():
                    np.testing.assert_allclose(getattr(grads, name), exact, rtol=1e-4, atol=2e-5, err_msg=name)
                    self.assertEqual(np.shape(getattr(grads, name)), exact.shape)

    def test_the_gradient_of_alpha_is_one_number_a_slope_and_only_entmax_s(self):
        q, k, v, dout = (t.astype("f8") for t in (self.q, self.k, self.v, self.dout))
        for alpha in (1.0, 1.3, 1.5, 1.9, 2.5):
            dalpha = attn.attention_backward(dout, q, k, v, weighting="entmax", alpha=alpha, wanted="dalpha").dalpha
            self.assertEqual((type(dalpha), np.shape(dalpha)), (np.float64, ()))
            below, above = (0 if alpha == 1 else -1e-6), 1e-6
            low, high = (attn.attention(q, k, v, weighting="entmax", alpha=alpha + h) for h in (below, above))
            slope = ((high - low) * dout).sum() / (above - below)
            np.testing.assert_allclose(dalpha, slope, rtol=1e-4, atol=1e-5)
        self.assertIs(type(attn.attention_backward(self.dout, self.q, self.k, self.v, weighting="entmax").dalpha), np.float32)
        self.assertIsNone(attn.attention_backward(dout, q, k, v, weighting="entmax15").dalpha)

    def test_sinks_and_seeds_are_the_caller_s(self):
        sinks = np.array([-1.0, 0.5, 2.0], "f4")
        seen = attn.attention(self.q, self.k, self.v, sinks=sinks, see="lse")[1]
        plain = attn.attention(self.q, self.k, self.v, see="lse")[1]
        np.testing.assert_allclose(seen.lse, np.logaddexp(plain.lse, sinks[None, :, None]), rtol=1e-6)
        one, again, other = (attn.attention(self.q, self.k, self.v, dropout=0.4, seed=s) for s in (5, 5, 6))
        self.assertEqual(one.tobytes(), again.tobytes())
        self.assertNotEqual(one.tobytes(), other.tobytes())
        self.refused(ValueError, "sinks", sinks=sinks[:2])
        self.refused(ValueError, "sinks", sinks=sinks, weighting="sigmoid")
        self.refused(ValueError, "alpha is 0.5", weighting="entmax", alpha=0.5)
        self.refused(ValueError, "alpha", weighting="entmax15", alpha=1.5)

    def test_unsupported_is_both_kinds_of_error(self):
        self.assertTrue(issubclass(attn.Unsupported, NotImplementedError) and issubclass(attn.Unsupported, ValueError))
        with self.assertRaisesRegex(attn.Unsupported, "v is f64 and q is f32: a mixture of dtypes is not built in this version"):
            attn.attention(self.q, self.k, self.v.astype("f8"))


if __name__ == "__main__":
    unittest.main()
