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


def top_k(x, k, order, bias=0.0, normalize=False, scale=1.0):
    """The definition, in float64, along the last axis: (weights, indices)."""
    with np.errstate(over="ignore"):
        gates = 1 / (1 + np.exp(-x.astype("f8")))
    choice = np.where(np.isneginf(x), -INF, gates + bias) if order == "sigmoid-top-k" else x.astype("f8")
    index = np.argsort(-choice, axis=-1, kind="stable")[..., :k]
    chosen = np.take_along_axis(x.astype("f8"), index, -1)
    weight = np.take_along_axis(gates, index, -1)
    if order != "sigmoid-top-k":
        weight = np.exp(chosen - (chosen if order == "top-k-softmax" else x.astype("f8")).max(-1, keepdims=True))
        weight = weight / np.exp((chosen if order == "top-k-softmax" else x) - x.max(-1, keepdims=True)).sum(-1, keepdims=True)
    if normalize:
        weight = weight / weight.sum(-1, keepdims=True)
    return scale * weight, index


class Choices(ProgramTest):
    """--op top-k and --op sample."""

    def setUp(self):
        super().setUp()
        self.random = np.random.default_rng(2)

    def test_every_order_along_every_axis(self):
        x = self.random.integers(-60, 60, (4, 5, 6)).astype("f4") / 8
        bias = self.random.normal(size=(5,)).astype("f4")
        self.save("x.npy", x)
        self.save("b.npy", bias)
        for order in ("softmax-top-k", "top-k-softmax", "sigmoid-top-k"):
            for normalize in (False, True):
                if normalize and order == "top-k-softmax":
                    continue
                sigmoid = order == "sigmoid-top-k"
                for axis in (1,) if sigmoid else (0, 1, 2, -1):
                    self.good("softmax", "x.npy", "--op", "top-k", "--top-k", 3, "--order", order, "--axis", axis, "-o", "w.npy",
                              "--index", "i.npy", "--scale", 2.5, *["--normalize"] * normalize, *["--bias", "b.npy"] * sigmoid)
                    weight, index = top_k(np.moveaxis(x, axis, -1), 3, order, bias.astype("f8") * sigmoid, normalize, 2.5)
                    self.assertEqual(self.load("i.npy").dtype, np.int32)
                    np.testing.assert_array_equal(np.moveaxis(self.load("i.npy"), axis, -1), index)
                    np.testing.assert_allclose(np.moveaxis(self.load("w.npy"), axis, -1), weight, rtol=1e-6)
        self.good("softmax", "x.npy", "--op", "top-k", "--top-k", 2, "-o", "only.npy")
        np.testing.assert_allclose(self.load("only.npy"), top_k(x, 2, "softmax-top-k")[0], rtol=1e-6)

    def test_a_router_of_float64_and_16_bits(self):
        x = self.random.normal(size=(7, 16))
        for dtype in (None, "bf16", "f16"):
            self.good("softmax", self.save("x.npy", x), "--op=top-k", "--top-k=4", "-o", "w.npy", "--index=i.npy",
                      *[f"--dtype={dtype}"] * bool(dtype))
            rounded = x if dtype is None else x.astype("f2") if dtype == "f16" else None
            if rounded is not None:
                weight, index = top_k(rounded.astype("f8"), 4, "softmax-top-k")
                np.testing.assert_array_equal(self.load("i.npy"), index)
                np.testing.assert_allclose(self.load("w.npy"), weight, rtol=1e-6 if dtype else 1e-14)
            self.assertEqual(self.load("w.npy").dtype, np.float32 if dtype else np.float64)

    def test_sampling_is_seeded_and_follows_the_probabilities(self):
        p = np.array([0.5, 0.25, 0.125, 0.125])
        self.save("x.npy", np.tile(np.log(p), (20000, 1)))
        sample = ("softmax", "x.npy", "--op", "sample", "-o", "i.npy")
        self.good(*sample, "--seed", 5, "--probability", "p.npy")
        index = self.load("i.npy")
        self.assertEqual((index.dtype, index.shape), (np.int32, (20000,)))
        np.testing.assert_allclose(self.load("p.npy"), p[index], rtol=1e-12)
        np.testing.assert_allclose(np.bincount(index) / 20000, p, atol=0.015)
        self.good(*sample, "--seed", 5, "--threads", 3)
        np.testing.assert_array_equal(self.load("i.npy"), index)
        self.good(*sample, "--seed", 2**64 - 1)
        self.assertGreater((self.load("i.npy") != index).mean(), 0.3)
        for options, left in ((("--temperature", 0), 1), (("--top-k", 2), 2), (("--top-p", 0.7), 2), (("--top-p", 0.8), 3),
                              (("--min-p", 0.5), 2), (("--temperature", 0.5, "--min-p", 0.25), 2)):
            self.good(*sample, *options, "--probability", "p.npy")
            self.assertEqual(self.load("i.npy").max(), left - 1)
            if left == 2 and len(options) == 2:
                np.testing.assert_allclose(self.load("p.npy"), (p / p[:2].sum())[self.load("i.npy")], rtol=1e-12)
        self.good("softmax", self.save("y.npy", np.eye(3)), "--op", "sample", "--temperature", 0, "--axis", 0, "-o", "i.npy")
        np.testing.assert_array_equal(self.load("i.npy"), [0, 1, 2])
        self.good("softmax", self.save("z.npy", np.full((2, 3), -INF)), "--op", "sample", "-o", "i.npy")
        np.testing.assert_array_equal(self.load("i.npy"), [-1, -1])

    def test_rows_of_numbers(self):
        rows = "1 2 3\n\n-inf 0\nnan 1\n"
        out = self.good("softmax", "--op", "top-k", "--top-k", 2, stdin=rows)
        self.assertEqual(out, b"2:0.665240956 1:0.244728471\n\n1:1\n0:nan 1:nan\n")
        out = self.good("softmax", "--op", "top-k", "--top-k", 5, "--order", "sigmoid-top-k", stdin="0 0\n")
        self.assertEqual(out, b"0:0.5 1:0.5\n")
        self.assertEqual(self.good("softmax", "--op", "sample", "--temperature", 0, stdin=rows), b"2 1\n-1 0\n1 1\n-1 nan\n")
        lines = self.good("softmax", "--op", "sample", "--seed", 3, stdin="0 0\n" * 64).split(b"\n")
        self.assertEqual(set(lines), {b"0 0.5", b"1 0.5", b""})

    def test_what_does_not_go_together_is_refused(self):
        self.save("x.npy", np.ones((2, 3), "f4"))
        chooses, samples = ("softmax", "x.npy", "--op", "top-k"), ("softmax", "x.npy", "--op", "sample")
        self.bad(2, *chooses, says="needs --top-k")
        self.bad(2, *chooses, "--top-k", -1, says="--top-k is '-1'")
        self.bad(2, *chooses, "--top-k", 1, "--order", "topk", says="softmax-top-k")
        self.bad(2, *chooses, "--top-k", 1, "--order", "top-k-softmax", "--normalize", says="takes no --normalize")
        self.bad(2, *chooses, "--top-k", 1, "--bias", "x.npy", says="--order sigmoid-top-k")
        self.bad(2, *chooses, "--top-k", 1, "--temperature", 1, says="--op gumbel and sample")
        self.bad(2, *chooses, "--top-k", 1, "--index", "w.npy", "-o", "w.npy", says="both be written")
        self.bad(3, *chooses, "--top-k", 1, "--order", "sigmoid-top-k", "--bias", "x.npy", says="bias has shape [2, 3]")
        self.bad(2, *samples, "--mask", "x.npy", says="no --mask")
        self.bad(2, *samples, "--scale", 2, says="no --scale")
        self.bad(2, *samples, "--top-p", 0, says="above 0")
        self.bad(2, *samples, "--top-p", 1.5, says="from 0 to 1")
        self.bad(2, *samples, "--temperature", -1, says="--temperature is '-1'")
        self.bad(2, *samples, "--index", "i.npy", says="--op top-k")
        for option in ("--top-k", "--top-p", "--min-p"):
            self.bad(2, "softmax", "x.npy", option, 1, says="belongs to --op")
        self.bad(2, "softmax", "--op", "sample", "--probability", "p.npy", stdin="1 2\n", says="for arrays")


if __name__ == "__main__":
    unittest.main()
