# SPDX-License-Identifier: Apache-2.0
"""attn softmax against NumPy in float64: arrays, rows of numbers, every option that is built."""
import io
import unittest

import numpy as np

from program import ProgramTest

INF = float("inf")


def logsumexp(z, live, axis):
    z = np.where(live, z, -INF)
    top = np.max(z, axis=axis, keepdims=True, initial=-INF)
    with np.errstate(all="ignore"):
        shifted = np.where(np.isneginf(z), 0, np.exp(z - np.where(np.isinf(top), 0, top)))
        return np.log(np.sum(shifted, axis=axis, keepdims=True)) + np.where(np.isinf(top), 0, top)


def reference(op, x, axis=-1, scale=1.0, mask=None, bias=None):
    """The definition, in float64, for finite x."""
    z = scale * x.astype(np.float64) + (0 if bias is None else bias.astype(np.float64))
    if op == "softmin":
        z = -z
    live = np.broadcast_to(True if mask is None else mask, z.shape) & ~np.isneginf(z)
    lse = logsumexp(z, live, axis)
    if op == "logsumexp":
        return np.squeeze(lse, axis)
    with np.errstate(all="ignore"):
        y = np.where(live, z - lse, -INF)
    return y if op == "log-softmax" else np.exp(y)


class Arrays(ProgramTest):
    def setUp(self):
        super().setUp()
        self.random = np.random.default_rng(1)

    def check(self, x, op="softmax", tolerance=2e-6, **options):
        words = ["softmax", self.save("x.npy", x), "-o", "y.npy", "--op", op]
        for name, value in options.items():
            words += [f"--{name}", self.save(f"{name}.npy", value) if isinstance(value, np.ndarray) else value]
        self.good(*words)
        y, expected = self.load("y.npy"), reference(op, x, **options)
        self.assertEqual(y.dtype, x.dtype)
        self.assertEqual(y.shape, expected.shape)
        np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance)

    def test_every_operation_along_every_axis(self):
        x = self.random.normal(size=(3, 5, 7)).astype("f4") * 4
        for op in ("softmax", "log-softmax", "softmin", "logsumexp"):
            for axis in range(-3, 3):
                self.check(x, op, axis=axis)

    def test_float64_is_computed_in_float64(self):
        x = self.random.normal(size=(4, 33)) * 10
        for op in ("softmax", "log-softmax", "softmin", "logsumexp"):
            self.check(x, op, tolerance=1e-14)

    def test_float16_comes_out_as_float16(self):
        self.check(self.random.normal(size=(4, 33)).astype("f2"), tolerance=1e-3)

    def test_fortran_order_gives_the_same_bits_as_c_order(self):
        x = self.random.normal(size=(5, 6, 7)).astype("f4")
        for axis in range(3):
            c = self.good("softmax", self.save("c.npy", x), "--axis", axis)
            self.assertEqual(c, self.good("softmax", self.save("f.npy", np.asfortranarray(x)), "--axis", axis))

    def test_scale_bias_and_mask_broadcast(self):
        x = self.random.normal(size=(2, 3, 5)).astype("f4")
        for axis in range(3):
            self.check(x, scale=2.5, axis=axis)
            self.check(x, scale=0, axis=axis)
            self.check(x, bias=self.random.normal(size=(3, 1)).astype("f4"), axis=axis)
            self.check(x, mask=self.random.random((3, 5)) < 0.6, axis=axis)
            self.check(x, "log-softmax", mask=self.random.random((2, 1, 5)) < 0.6, bias=self.random.normal(size=5).astype("f4"), axis=axis)

    def test_a_row_without_a_live_element_gives_zeros_and_its_lse_is_minus_infinity(self):
        x, mask = np.ones((2, 3), "f4"), np.array([[False], [True]])
        self.check(x, mask=mask)
        self.check(x, "logsumexp", mask=mask)
        self.check(np.full((2, 3), -INF, "f4"))

    def test_nan_shows_in_its_own_row_and_not_where_it_is_masked(self):
        x = np.array([[1, np.nan, 2], [1, 2, 3]], "f4")
        self.good("softmax", self.save("x.npy", x), "-o", "y.npy")
        y = self.load("y.npy")
        self.assertTrue(np.isnan(y[0]).all())
        np.testing.assert_allclose(y[1], reference("softmax", x[1]), rtol=1e-6)
        self.good("softmax", "x.npy", "-o", "y.npy", "--mask", self.save("m.npy", ~np.isnan(x)))
        np.testing.assert_allclose(self.load("y.npy")[0], [1 / (1 + np.e), 0, np.e / (1 + np.e)], rtol=1e-6)

    def test_dtype_rounds_x_to_16_bits_and_keeps_a_float32_result(self):
        x = np.array([[1.00390625, 3.1415926, -2.7182818, 1e-3]], "f4")
        rounded = {"bf16": np.array([[1.0, 3.140625, -2.71875, 0.00099945068359375]]), "f16": x.astype("f2").astype("f8")}
        for dtype, exact in rounded.items():
            for given in (x, x.astype("f8")):
                self.good("softmax", self.save("x.npy", given), "-o", "y.npy", "--dtype", dtype)
                y = self.load("y.npy")
                self.assertEqual(y.dtype, np.float32)
                np.testing.assert_allclose(y, reference("softmax", exact), rtol=1e-6)

    def test_empty_arrays_give_empty_arrays(self):
        for shape in ((0,), (3, 0), (0, 3)):
            self.good("softmax", self.save("x.npy", np.zeros(shape, "f4")), "-o", "y.npy")
            self.assertEqual(self.load("y.npy").shape, shape)

    def test_dash_is_stdin_and_the_result_goes_to_stdout(self):
        x = self.random.normal(size=(2, 3)).astype("f4")
        raw = io.BytesIO()
        np.save(raw, x)
        y = np.load(io.BytesIO(self.good("softmax", "-", stdin=raw.getvalue())))
        np.testing.assert_allclose(y, reference("softmax", x), rtol=1e-6)

    def test_the_output_may_be_the_input(self):
        x = self.random.normal(size=(2, 3)).astype("f4")
        self.good("softmax", self.save("x.npy", x), "-o", "x.npy")
        np.testing.assert_allclose(self.load("x.npy"), reference("softmax", x), rtol=1e-6)

    def test_any_number_of_threads_gives_the_same_bits(self):
        self.save("x.npy", self.random.normal(size=(300, 257)).astype("f4"))
        one = self.good("softmax", "x.npy", "--threads", 1)
        for threads in (2, 3, 7):
            self.assertEqual(one, self.good("softmax", "x.npy", f"--threads={threads}"))

    def test_options_come_in_any_order_and_spelling(self):
        x = self.random.normal(size=(2, 3)).astype("f4")
        self.save("x.npy", x)
        expected = self.good("softmax", "x.npy", "--op", "log-softmax", "--scale", "-0.5")
        for words in (["--scale=-0.5", "--op=log-softmax", "x.npy"], ["--op", "log-softmax", "--scale", "-.5", "--", "x.npy"]):
            self.assertEqual(expected, self.good("softmax", *words))
        self.assertEqual(b"", self.good("softmax", "-oy.npy", "x.npy"))
        self.assertEqual(b"", self.good("softmax", "--out=z.npy", "x.npy"))
        np.testing.assert_array_equal(self.load("y.npy"), self.load("z.npy"))


class Rows(ProgramTest):
    def test_the_example_of_the_literature(self):
        self.assertEqual(self.good("softmax", stdin="1 2 3\n"), b"0.0900305732 0.244728471 0.665240956\n")

    def test_rows_of_any_lengths(self):
        out = self.good("softmax", stdin="0\n0 0\n\n1,2,3\n-inf 0 1e3")
        lines = out.decode().split("\n")
        self.assertEqual(lines[:3], ["1", "0.5 0.5", ""])
        self.assertEqual(lines[4:], ["0 0 1", ""])

    def test_other_operations(self):
        self.assertEqual(self.good("softmax", "--op", "logsumexp", stdin="0 0\n\n5"), b"0.693147181\n-inf\n5\n")
        self.assertEqual(self.good("softmax", "--op=log-softmax", stdin="0 0"), b"-0.693147181 -0.693147181\n")
        self.assertEqual(self.good("softmax", "--op", "softmin", "--scale", "0", stdin="1 2"), b"0.5 0.5\n")

    def test_a_mask_and_a_bias_as_long_as_the_rows(self):
        self.save("m.npy", np.array([True, False, True]))
        self.save("b.npy", np.array([0.0, 0.0, np.log(3)]))
        self.assertEqual(self.good("softmax", "--mask", "m.npy", "--bias", "b.npy", stdin="0 nan 0\n"), b"0.25 0 0.75\n")
        self.bad_rows(3, "2", "--mask", "m.npy", stdin="1 2\n")

    def bad_rows(self, code, says, *words, stdin):
        done = self.run_attn("softmax", *words, stdin=stdin)
        self.assertEqual(done.returncode, code)
        self.assertTrue(done.stderr.startswith(b"attn: error: "))
        self.assertIn(says, done.stderr.decode())

    def test_what_is_no_number_is_refused_with_its_place(self):
        self.bad_rows(3, "line 2, number 3 is 'x'", stdin="1 2\n3 4 x\n")
        self.bad_rows(3, "'1.2.3'", stdin="1.2.3\n")
        self.bad_rows(3, "zero byte", stdin=b"1 \x00 2\n")
        self.bad_rows(3, "attn softmax -", stdin=b"\x93NUMPY\x01")

    def test_text_can_go_to_a_file(self):
        self.good("softmax", "-o", "y.txt", stdin="0 0\n")
        self.assertEqual((self.folder / "y.txt").read_bytes(), b"0.5 0.5\n")

    def test_a_long_row(self):
        n = 100000
        out = self.good("softmax", stdin=" ".join(["0"] * n))
        self.assertEqual(out, b" ".join([b"1e-05"] * n) + b"\n")


if __name__ == "__main__":
    unittest.main()
