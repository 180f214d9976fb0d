# SPDX-License-Identifier: Apache-2.0
"""Arrays in and out of the package: kinds, strides, ranks, in place, and what is refused with which words."""

import array
import unittest

from package import attn, missing, ml_dtypes, np


@unittest.skipIf(missing, missing)
class Arrays(unittest.TestCase):
    def setUp(self):
        self.rng = np.random.default_rng(1)
        self.x = self.rng.standard_normal((3, 4, 5)).astype("f4")

    def refused(self, kind, says, function, *args, **options):
        with self.assertRaises(kind) as caught:
            function(*args, **options)
        self.assertIn(says, str(caught.exception))

    # ---- what comes out ----

    def test_softmax_of_1_2_3_is_the_textbook_s(self):
        y = attn.softmax(np.array([1.0, 2.0, 3.0]))
        np.testing.assert_allclose(y, [0.09003057317038046, 0.24472847105479767, 0.6652409557748219], rtol=1e-15)
        self.assertIs(type(y), np.ndarray)

    def test_lists_and_buffers_are_taken_as_arrays(self):
        np.testing.assert_array_equal(attn.softmax([1.0, 2.0, 3.0]), attn.softmax(np.array([1.0, 2.0, 3.0])))
        y = attn.softmax(array.array("f", [1, 2, 3]))
        self.assertEqual((type(y), y.dtype), (np.ndarray, np.float32))

    def test_rank_0_is_a_scalar_as_numpy_s_own_sums_are(self):
        self.assertIs(type(attn.logsumexp(self.x[0, 0])), np.float32)
        loss, gradient = attn.cross_entropy(self.x[0], np.array([0, 1, 2, 3]), grad=True)
        self.assertIs(type(loss), np.float32)
        self.assertIs(type(gradient), np.ndarray)

    @unittest.skipUnless(ml_dtypes, "ml_dtypes is not there")
    def test_bfloat16_is_that_of_ml_dtypes(self):
        x = self.x.astype(ml_dtypes.bfloat16)
        y = attn.softmax(x[:, ::-1], axis=1)
        self.assertEqual(y.dtype, ml_dtypes.bfloat16)
        np.testing.assert_allclose(y.astype("f4"), attn.softmax(x.astype("f4")[:, ::-1], axis=1), rtol=2**-8)
        self.assertEqual(attn.logsumexp(x[0, 0]).dtype, ml_dtypes.bfloat16)
        out = np.zeros_like(x)
        self.assertIs(attn.softmax(x, out=out), out)
        self.assertEqual(out.tobytes(), attn.softmax(x).tobytes())
        loss, gradient = attn.cross_entropy(x[0], [0, 1, 2, 3], grad=True)
        self.assertEqual((loss.dtype, gradient.dtype), (np.float32, ml_dtypes.bfloat16))

    def test_results_are_of_the_first_argument_s_dtype_and_row_major(self):
        for dtype in ("f2", "f4", "f8"):
            y = attn.softmax(np.asfortranarray(self.x.astype(dtype)), axis=0)
            self.assertEqual((y.dtype, y.flags.c_contiguous), (np.dtype(dtype), True))

    def test_any_strides_give_the_bits_of_dense_memory(self):
        views = [
            self.x[::-1],
            self.x[:, ::2, ::-2],
            self.x.transpose(2, 0, 1),
            np.broadcast_to(self.x[:1], (6, 4, 5)),
            self.x[:0],
            self.x[:, :, :1],
        ]
        for view in views:
            for axis in range(3):
                np.testing.assert_array_equal(attn.softmax(view, axis), attn.softmax(np.ascontiguousarray(view), axis))

    def test_masks_and_biases_broadcast_beside_any_axis(self):
        mask, bias = np.array([True, False, True, True]).reshape(4, 1), np.arange(5, dtype="f4")
        y = attn.softmax(self.x, axis=1, mask=mask, bias=bias)
        z = np.where(mask, self.x + bias, -np.inf)
        np.testing.assert_allclose(y, np.exp(z) / np.exp(z).sum(1, keepdims=True), rtol=1e-6)
        self.refused(ValueError, "mask has shape", attn.softmax, self.x, mask=np.ones(7, bool))
        self.refused(ValueError, "mask", attn.softmax, self.x, axis=0, mask=np.ones((1, 3, 4, 5), bool))

    # ---- out ----

    def test_out_is_written_and_returned(self):
        wide = np.zeros((3, 4, 10), "f4")
        for out in (np.empty_like(self.x), wide[..., ::-2], np.empty((5, 4, 3), "f4").T):
            self.assertIs(attn.softmax(self.x, out=out), out)
            np.testing.assert_array_equal(out, attn.softmax(self.x))
        self.assertEqual(wide[..., ::2].any(), False)

    def test_in_place(self):
        for axis in range(3):
            x = self.x.copy()
            self.assertIs(attn.log_softmax(x, axis, out=x), x)
            np.testing.assert_array_equal(x, attn.log_softmax(self.x, axis))

    def test_an_out_that_overlaps_is_refused_and_nothing_is_written(self):
        memory = self.rng.standard_normal(40).astype("f4")
        before = memory.copy()
        for x, out in (
            (memory[:20], memory[1:21]),
            (memory[:20], memory[19::-1]),
            (memory[::2], memory[:20]),
            (memory[:32:4], memory[16:24]),
        ):
            self.refused(ValueError, "out overlaps x", attn.softmax, x, out=out)
        self.refused(ValueError, "out overlaps bias", attn.softmax, self.x[0, 0], bias=memory[:5], out=memory[4:9])
        q = memory[:12].reshape(3, 4)
        self.refused(
            ValueError, "out overlaps k", attn.attention, self.x[0, :3, :4], q, self.x[1, :3, :4], out=memory[8:20].reshape(3, 4)
        )
        np.testing.assert_array_equal(memory, before)

    def test_an_out_between_the_elements_of_x_is_apart(self):
        memory = self.rng.standard_normal((6, 8)).astype("f4")
        x = memory[::2].copy()
        attn.softmax(memory[::2], out=memory[1::2])
        np.testing.assert_array_equal(memory[1::2], attn.softmax(x))
        np.testing.assert_array_equal(memory[::2], x)
        packed = self.rng.standard_normal((4, 3, 2, 5)).astype("f4")  # length, (q k v), heads, dim
        q, k, v = (packed[:, i].transpose(1, 0, 2) for i in range(3))
        whole = np.zeros((4, 4, 2, 5), "f4")
        whole[:, :3] = packed
        q2, k2, v2, out = (whole[:, i].transpose(1, 0, 2) for i in range(4))
        np.testing.assert_array_equal(attn.attention(q2, k2, v2, out=out), attn.attention(q, k, v))

    def test_a_bad_out_is_refused(self):
        out = np.empty_like(self.x)
        out.flags.writeable = False
        self.refused(ValueError, "out is read-only", attn.softmax, self.x, out=out)
        self.refused(ValueError, "out is read-only", attn.softmax, self.x, out=np.broadcast_to(np.empty((4, 5), "f4"), (3, 4, 5)))
        zero = np.lib.stride_tricks.as_strided(np.empty(5, "f4"), (3, 4, 5), (0, 0, 4))
        self.refused(ValueError, "stride 0", attn.softmax, self.x, out=zero)
        sliding = np.lib.stride_tricks.as_strided(np.empty(9, "f4"), (3, 5), (8, 4))
        self.refused(ValueError, "out overlaps itself", attn.softmax, self.x[:, 0], out=sliding)
        self.refused(ValueError, "shape", attn.softmax, self.x, out=np.empty((3, 4, 6), "f4"))
        self.refused(ValueError, "out has 2 axes", attn.softmax, self.x, out=np.empty((4, 5), "f4"))
        self.refused(ValueError, "f64", attn.softmax, self.x, out=np.empty((3, 4, 5)))
        self.refused(TypeError, "cannot be written to", attn.softmax, self.x[0, 0], out=[0.0] * 5)
        self.refused(ValueError, "out has 3 axes, q has 2", attn.attention, *[self.x[0]] * 3, out=np.empty((1, 4, 5), "f4"))

    # ---- what is refused ----

    def test_dtypes_that_are_none_of_ours(self):
        for bad in (
            self.x.astype("c8"),
            self.x.astype("u4"),
            self.x.astype("i2"),
            self.x.astype(object),
            self.x.astype("f4").astype("O"),
            np.array(["a", "b"]),
            np.array(["2020-01-01"], "M8[D]"),
            np.zeros(3, [("a", "f4")]),
            np.zeros(3, np.longdouble),
        ):
            self.refused(TypeError, "x ", attn.softmax, bad)
        for bad in (self.x.astype(">f4"), self.x.astype(">f8")):
            self.refused(TypeError, "byte order", attn.softmax, bad)
        self.refused(TypeError, "byte order", attn.cross_entropy, self.x[0], np.array([0, 1, 2, 3], ">i4"))
        self.refused(TypeError, "x is int32: it is float32", attn.softmax, self.x.astype("i4"))
        self.refused(TypeError, "x is bool", attn.softmax, self.x > 0)
        self.refused(TypeError, "q is int64", attn.attention, *[self.x.astype("i8")] * 3)
        self.refused(ValueError, "mask is f32", attn.softmax, self.x, mask=self.x)
        self.refused(ValueError, "bias is f64", attn.softmax, self.x, bias=self.x.astype("f8"))
        self.refused(attn.Unsupported, "k is f64 and q is f32", attn.attention, self.x, self.x.astype("f8"), self.x)

    def test_things_that_are_no_arrays(self):
        self.refused(TypeError, "x is None", attn.softmax, None)
        for bad in ("text", {}, object(), lambda: 0):
            with self.assertRaises(TypeError):
                attn.softmax(bad)
        self.refused(ValueError, "", attn.softmax, [[1.0, 2.0], [3.0]])

    def test_memory_that_strides_in_elements_cannot_describe(self):
        odd = np.zeros(4, [("a", "f4"), ("b", "i1")])["a"]
        self.refused(ValueError, "no multiple of its 4-byte elements", attn.softmax, odd)
        raw = np.zeros(4 * 5 + 1, "u1")
        self.refused(ValueError, "aligned", attn.softmax, raw[1:].view("f4"))

    def test_shapes_and_axes(self):
        self.refused(ValueError, "axis is 3, and x has 3 axes", attn.softmax, self.x, 3)
        self.refused(ValueError, "axis is -4", attn.logsumexp, self.x, -4)
        self.refused(ValueError, "axis is 0, and x has 0 axes", attn.softmax, np.float32(1), 0)
        self.refused(ValueError, "7 axes, more than 6", attn.softmax, np.zeros((1,) * 7, "f4"))
        self.refused(TypeError, "axis is an integer, not float", attn.softmax, self.x, 1.0)
        self.refused(ValueError, "dy has 2 axes, y has 3", attn.softmax_backward, self.x[0], self.x)
        self.refused(ValueError, "dy", attn.softmax_backward, self.x[:2], self.x)
        self.refused(ValueError, "", attn.gate, self.x, self.x[0])
        self.refused(ValueError, "logits has 3 axes", attn.cross_entropy, self.x, [1])

    def test_numbers(self):
        self.refused(ValueError, "scale is nan", attn.softmax, self.x, scale=float("nan"))
        self.refused(TypeError, "scale is a number, not str", attn.softmax, self.x, scale="1")
        self.refused(ValueError, "alpha is 0", attn.entmax, self.x, 0)
        self.refused(ValueError, "temperature is 0", attn.gumbel_softmax, self.x, temperature=0.0)
        self.refused(ValueError, "seed is -1", attn.gumbel_softmax, self.x, seed=-1)
        self.refused(ValueError, "seed is 18446744073709551616", attn.gumbel_softmax, self.x, seed=2**64)
        self.refused(TypeError, "seed is an integer, not float", attn.gumbel_softmax, self.x, seed=1.5)
        self.refused(ValueError, "kind is 'relu': it is sigmoid, additive or multiplicative", attn.gate, self.x, self.x, "relu")
        np.testing.assert_array_equal(attn.softmax(self.x, scale=0), np.full(self.x.shape, 0.2, "f4"))
        np.testing.assert_array_equal(attn.softmax(self.x, np.int64(1), scale=np.float32(2)), attn.softmax(self.x, 1, scale=2.0))

    def test_labels(self):
        logits = self.x[0]
        self.refused(ValueError, "labels[1] is 5", attn.cross_entropy, logits, [0, 5, 1, 2])
        self.refused(ValueError, "labels", attn.cross_entropy, logits, [0, 1])
        self.refused(ValueError, "labels are u8", attn.cross_entropy, logits, np.zeros(4, "u1"))
        self.refused(
            ValueError, "reduction is 'avg': it is mean, sum or none", attn.cross_entropy, logits, [0, 1, 2, 3], reduction="avg"
        )
        self.refused(ValueError, "label_smoothing", attn.cross_entropy, logits, [0, 1, 2, 3], label_smoothing=2)
        self.assertEqual(attn.cross_entropy(logits, [-100] * 4), 0)
        self.assertEqual(attn.cross_entropy(logits, [7] * 4, ignore_index=7), 0)

    def test_a_linear_layer_before_the_loss(self):
        x, w = self.x[0], self.x[1, :3]
        loss, dx, dw, db = attn.linear_cross_entropy(x, w, [0, 1, 2, -100], grad=True)
        self.assertIs(type(loss), np.float32)
        np.testing.assert_allclose(loss, attn.cross_entropy(x @ w.T, [0, 1, 2, -100]), rtol=1e-6)
        self.assertEqual((dx.shape, dw.shape, db), (x.shape, w.shape, None))
        self.refused(ValueError, "x has 3 axes: it is [n, dim]", attn.linear_cross_entropy, self.x, w, [0])
        self.refused(ValueError, "weight", attn.linear_cross_entropy, x, w[:, 1:], [0, 1, 2, 0])
        self.refused(TypeError, "weight is int32", attn.linear_cross_entropy, x, w.astype("i4"), [0, 1, 2, 0])
        self.refused(ValueError, "labels[1] is 3", attn.linear_cross_entropy, x, w, [0, 3, 2, 0])

    def test_an_error_leaves_out_as_it_was(self):
        out = np.full((3, 4, 5), 7, "f4")
        self.refused(ValueError, "", attn.softmax, self.x, bias=np.zeros(9, "f4"), out=out)
        self.refused(ValueError, "", attn.attention, self.x, self.x, self.x, kv_lengths=9, out=out)
        self.assertTrue((out == 7).all())


if __name__ == "__main__":
    unittest.main()
