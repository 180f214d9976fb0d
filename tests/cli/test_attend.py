# SPDX-License-Identifier: Apache-2.0
"""attn attend against NumPy in float64: every option that is built, what can be seen, gradients by differences."""
import io
import unittest

import numpy as np

from attention_reference import attention
from program import ProgramTest

INF = float("inf")


class AttendTest(ProgramTest):
    def setUp(self):
        super().setUp()
        self.random = np.random.default_rng(7)

    def normal(self, *shape, dtype="f4"):
        return self.random.normal(size=shape).astype(dtype)

    def words(self, q, k, v, options):
        """The command line of a problem: arrays are saved, the rest is written as it is."""
        words = ["attend", "--q", self.save("q.npy", q), "--k", self.save("k.npy", k), "--v", self.save("v.npy", v)]
        for name, value in options.items():
            name = name.replace("_", "-")
            if isinstance(value, np.ndarray):
                words += [f"--{name}", self.save(f"{name}.npy", value)]
            elif isinstance(value, tuple):
                words += [f"--{name}", ",".join(map(str, value))]
            elif name == "causal":
                words.append("--causal" if value is True else f"--causal={value}")
            else:
                words += [f"--{name}", value]
        return words

    def lifted(self, x):
        return x.reshape((1,) * (4 - x.ndim) + x.shape)

    def check(self, q, k, v, tolerance=3e-6, see=(), **options):
        """Compares the output, and what `see` names, with the definition."""
        words = self.words(q, k, v, options) + ["-o", "out.npy"]
        for name in see:
            words += [f"--{name}", f"seen-{name}.npy"]
        self.good(*words)
        expected = attention(*map(self.lifted, (q, k, v)), **options)
        expected["scores"] = expected["weighted"]
        out = self.load("out.npy")
        self.assertEqual(out.dtype, q.dtype)
        self.assertEqual(out.shape, q.shape[:-1] + v.shape[-1:])
        np.testing.assert_allclose(self.lifted(out), expected["out"], rtol=tolerance, atol=tolerance, err_msg=str(options))
        for name in see:
            seen = self.load(f"seen-{name}.npy")
            wanted = expected[name].reshape(q.shape[:-2] + expected[name].shape[2:])
            self.assertEqual(seen.dtype, np.float64 if q.dtype == np.float64 else np.float32)
            self.assertEqual(seen.shape, wanted.shape, name)
            np.testing.assert_allclose(seen, wanted, rtol=tolerance * 4, atol=tolerance * 4, err_msg=f"{name} {options}")
        return out


class Output(AttendTest):
    def test_ranks_2_3_and_4(self):
        self.check(self.normal(5, 8), self.normal(7, 8), self.normal(7, 6), see=("lse", "entropy", "received", "weights"))
        self.check(self.normal(2, 5, 8), self.normal(2, 7, 8), self.normal(2, 7, 6), see=("lse", "entropy", "received", "weights"))
        self.check(self.normal(3, 2, 5, 8), self.normal(3, 2, 7, 8), self.normal(3, 2, 7, 6), see=("lse", "received"))

    def test_k_and_v_heads_are_shared_apart(self):
        for k_heads, v_heads in ((1, 1), (2, 2), (6, 2), (3, 6), (1, 3)):
            self.check(self.normal(2, 6, 4, 8), self.normal(2, k_heads, 5, 8), self.normal(2, v_heads, 5, 3))

    def test_odd_sizes(self):
        for q_len, kv_len, dim, v_dim in ((1, 1, 1, 1), (1, 300, 65, 17), (67, 129, 33, 40), (200, 3, 16, 1)):
            self.check(self.normal(2, q_len, dim), self.normal(2, kv_len, dim), self.normal(2, kv_len, v_dim), causal=True)

    def test_causal_bottom_right_is_the_default_and_top_left_differs(self):
        q, k, v = self.normal(2, 4, 8), self.normal(2, 9, 8), self.normal(2, 9, 8)
        bare = self.check(q, k, v, causal=True)
        np.testing.assert_array_equal(bare, self.check(q, k, v, causal="bottom-right"))
        self.assertFalse(np.allclose(bare, self.check(q, k, v, causal="top-left")))

    def test_rows_that_see_nothing_are_0(self):
        q, k, v = self.normal(9, 8), self.normal(4, 8), self.normal(4, 8)
        out = self.check(q, k, v, causal=True, see=("lse", "entropy", "weights"))
        self.assertTrue((out[:5] == 0).all())

    def test_offsets(self):
        q, k, v = self.normal(3, 2, 4, 8), self.normal(3, 2, 9, 8), self.normal(3, 2, 9, 8)
        for offset in (0, 3, -2, 100):
            self.check(q, k, v, causal=True, offset=offset)
        self.check(q, k, v, causal=True, offset=np.array([0, 5, -1]))
        self.check(q, k, v, window=(2, 1), offset=np.array([0, 5, 2], "i4"))

    def test_windows(self):
        q, k, v = self.normal(2, 20, 8), self.normal(2, 25, 8), self.normal(2, 25, 8)
        for window in ((3, 2), (0, 0), (-1, 0), (4, -1), (-1, -1)):
            self.check(q, k, v, window=window)
            self.check(q, k, v, window=window, causal=True)
            self.check(q, k, v, window=window, causal="top-left")

    def test_lengths(self):
        q, k, v = self.normal(3, 2, 6, 8), self.normal(3, 1, 9, 8), self.normal(3, 1, 9, 8)
        kv_lengths, q_lengths = np.array([9, 0, 4]), np.array([6, 3, 0], "i4")
        self.check(q, k, v, kv_lengths=kv_lengths)
        self.check(q, k, v, q_lengths=q_lengths)
        self.check(q, k, v, kv_lengths=kv_lengths, q_lengths=q_lengths, causal=True, see=("lse", "entropy", "received"))
        self.check(q[0], k[0], v[0], kv_lengths=np.array(4))

    def test_a_packed_batch_is_its_sequences_one_by_one(self):
        q_starts, kv_starts = np.array([0, 3, 3, 10], "i4"), np.array([0, 4, 9, 20])
        q, dout = self.normal(10, 4, 6), self.normal(10, 4, 5)
        k, v = self.normal(20, 2, 6), self.normal(20, 2, 5)
        options = {"causal": True, "q_starts": q_starts, "kv_starts": kv_starts, "dout": dout}
        outputs = ["-o", "out.npy", "--dq", "dq.npy", "--dk", "dk.npy", "--lse", "lse.npy", "--received", "received.npy"]
        self.good(*self.words(q, k, v, options), *outputs)
        packed = [self.load(name) for name in outputs if name.endswith(".npy")]
        for b in range(3):
            rows, keys = slice(q_starts[b], q_starts[b + 1]), slice(kv_starts[b], kv_starts[b + 1])
            one = [np.ascontiguousarray(t.swapaxes(0, 1)) for t in (q[rows], k[keys], v[keys], dout[rows])]
            self.good(*self.words(*one[:3], {"causal": True, "dout": one[3]}), *outputs)
            alone = [self.load(name) for name in outputs if name.endswith(".npy")]
            for whole, own, part in zip(packed, alone, (rows, rows, keys, rows, keys)):
                np.testing.assert_array_equal(whole[part], own.swapaxes(0, 1))

    def test_wrong_starts_are_wrong_data(self):
        q, k, v = self.normal(4, 2, 6), self.normal(4, 2, 6), self.normal(4, 2, 5)
        for starts, says in (
            ([0, 3, 2, 4], "entry 2 is 2; it is below the one before"),
            ([1, 4], "entry 0 is 1; the first sequence begins at 0"),
            ([0, 3], "the last entry is 3; it is where the last sequence ends, here 4"),
        ):
            self.bad(3, *self.words(q, k, v, {"q_starts": np.array(starts)}), "-o", "out.npy", says=says)
        words = self.words(q[0], k[0], v[0], {"q_starts": np.array([0, 2])})
        self.bad(3, *words, says="beside --q-starts it needs [total, heads, dim]")
        self.bad(2, *self.words(q, k, v, {"kv_starts": np.array([0, 4])}), says="--kv-starts needs --q-starts")

    def test_masks_broadcast_and_hide_nan(self):
        q, k, v = self.normal(2, 3, 5, 8), self.normal(2, 3, 7, 8), self.normal(2, 3, 7, 8)
        for shape in ((7,), (5, 7), (3, 5, 1), (2, 1, 5, 7), (2, 3, 1, 7)):
            self.check(q, k, v, mask=self.random.random(shape) < 0.6, see=("weights",))
        mask = np.arange(7) != 2
        k[:, :, 2], v[:, :, 2] = np.nan, INF
        clean = attention(q, k[:, :, mask], v[:, :, mask])["out"]
        self.good(*self.words(q, k, v, {"mask": mask}), "-o", "out.npy")
        np.testing.assert_allclose(self.load("out.npy"), clean, rtol=1e-5, atol=1e-5)

    def test_a_block_mask_is_the_mask_written_out(self):
        q, k, v, dout = self.normal(2, 50, 8), self.normal(2, 70, 8), self.normal(2, 70, 5), self.normal(2, 50, 5)
        blocks = self.random.random((2, 4, 5)) < 0.5
        mask = blocks.repeat(16, 1).repeat(16, 2)[:, :50, :70].copy()
        outputs = ["-o", "out.npy", "--dq", "dq.npy", "--weights", "weights.npy"]
        self.good(*self.words(q, k, v, {"mask": mask, "dout": dout}), *outputs)
        expected = [self.load(name) for name in outputs if name.endswith(".npy")]
        self.good(*self.words(q, k, v, {"block_mask": blocks, "dout": dout}), "--block-size", "16", *outputs)
        for name, array in zip(("out.npy", "dq.npy", "weights.npy"), expected):
            np.testing.assert_array_equal(self.load(name), array)
        words = self.words(q, k, v, {"block_mask": blocks})
        self.bad(3, *words, "-o", "out.npy", says="block_mask")
        self.bad(2, *words, "--block-size", "0", says="--block-size")
        self.bad(2, *self.words(q, k, v, {}), "--block-size", "16", says="--block-size needs --block-mask")

    def test_bias_alibi_scale_and_softcap(self):
        q, k, v = self.normal(2, 3, 5, 8), self.normal(2, 3, 7, 8), self.normal(2, 3, 7, 8)
        bias = self.normal(3, 5, 7)
        bias[0, 1, :4] = -INF
        bias[1, 2] = -INF
        self.check(q, k, v, bias=bias)
        self.check(q, k, v, bias=self.normal(5, 1))
        self.check(q, k, v, alibi=np.array([0.5, 0.25, 0.125], "f4"))
        self.check(q, k, v, alibi=self.normal(2, 3), causal=True, offset=-1)
        self.check(q, k, v, scale=0.7)
        self.check(q, k, v, scale=0)
        self.check(q, k, v, softcap=1.5, see=("weights",))
        self.check(q, k, v, softcap=2, bias=bias, alibi=np.array([0.5, 0.25, 0.125], "f4"), window=(3, 1), causal=True)

    def test_additive_scores(self):
        q, k, v = self.normal(2, 4, 5, 8), self.normal(2, 2, 7, 8), self.normal(2, 2, 7, 3)
        self.check(q, k, v, score="additive", score_weight=self.normal(8))
        self.check(q, k, v, score="additive", score_weight=self.normal(4, 8), causal=True, scale=2, see=("weights", "lse"))

    def test_weightings_that_are_no_softmax(self):
        q, k, v = self.normal(2, 5, 8), self.normal(2, 7, 8), self.normal(2, 7, 3)
        self.check(q, k, v, weighting="sigmoid", causal=True, see=("weights", "received"))
        self.check(np.abs(q), np.abs(k), v, weighting="normalized-sum", mask=self.random.random((5, 7)) < 0.7, see=("weights",))

    def test_a_sink_is_one_more_key_whose_value_is_0(self):
        q, k, v = self.normal(2, 3, 8), self.normal(2, 5, 8), self.normal(2, 5, 4)
        sinks = self.normal(2)
        bias = np.zeros((1, 2, 3, 6), "f4")
        bias[0, :, :, 5] = sinks[:, None]
        self.good(*self.words(q, k, v, {"sinks": sinks}), "-o", "out.npy")
        more = [np.concatenate([x, np.zeros((2, 1, x.shape[2]), "f4")], axis=1) for x in (k, v)]
        expected = attention(*map(self.lifted, (q, *more)), bias=bias)["out"]
        np.testing.assert_allclose(self.lifted(self.load("out.npy")), expected, rtol=3e-6, atol=3e-6)

    def test_normalised_sum_of_the_literature(self):
        x = np.arange(1.0, 6.0).reshape(5, 1)
        self.good(*self.words(np.array([[1.1]]), x, x, {"weighting": "normalized-sum"}), "-o", "out.npy", "--weights", "w.npy")
        np.testing.assert_allclose(self.load("w.npy"), np.arange(1, 6)[None] / 15, rtol=1e-14)

    def test_dtypes(self):
        shapes = ((2, 5, 8), (2, 7, 8), (2, 7, 3))
        self.check(*(self.normal(*s, dtype="f8") for s in shapes), tolerance=1e-14, see=("lse", "weights"), causal=True)
        self.check(*(self.normal(*s, dtype="f2") for s in shapes), tolerance=2e-3)

    def test_rounding_is_to_the_nearest_with_ties_to_even_in_every_range(self):
        bits = np.concatenate([self.random.integers(0, 2**32, 20000), np.arange(0, 2**32, 0x8000 * 37)]).astype("u4")
        x = bits.view("f4").reshape(-1, 1)
        x = np.concatenate([x, self.normal(1000, 1), self.normal(1000, 1) * 1e-5, self.normal(1000, 1) * 6e4])  # where float16 lives
        one = np.ones((1, 1), "f4")
        with np.errstate(over="ignore"):
            kept = np.where(np.isnan(x), 0, x.view("u4").astype("u8"))
            bf16 = ((kept + 0x7FFF + (kept >> 16 & 1)) & 0xFFFF0000).astype("u4").view("f4")
            rounded = {"bf16": np.where(np.isnan(x), np.nan, bf16), "f16": x.astype("f2").astype("f4")}
        for dtype, expected in rounded.items():
            self.good(*self.words(x, one, one, {"scale": 1, "dtype": dtype}), "-o", "out.npy", "--scores", "s.npy", "--scores-stage", "raw")
            np.testing.assert_array_equal(self.load("s.npy"), expected)

    def test_dtype_option_rounds_the_inputs_and_keeps_float32_outputs(self):
        q, k, v = self.normal(2, 5, 8), self.normal(2, 7, 8), self.normal(2, 7, 3)
        bias = self.normal(5, 7)
        for dtype, tolerance in (("bf16", 8e-3), ("f16", 1e-3)):
            def rounded(x):
                return x.astype("f2") if dtype == "f16" else ((x.view("u4") + 0x7FFF + (x.view("u4") >> 16 & 1)) & 0xFFFF0000).view("f4")

            expected = attention(*(self.lifted(rounded(x)) for x in (q, k, v)), bias=bias)["out"]
            for wide in ("f4", "f8"):
                self.good(*self.words(q.astype(wide), k.astype(wide), v.astype(wide), {"bias": bias.astype(wide)}), "--dtype", dtype,
                          "-o", "out.npy")
                self.assertEqual(self.load("out.npy").dtype, np.float32)
                np.testing.assert_allclose(self.lifted(self.load("out.npy")), expected, rtol=tolerance, atol=tolerance)

    def test_fortran_order_gives_the_same_bits(self):
        q, k, v = self.normal(2, 2, 5, 8), self.normal(2, 2, 7, 8), self.normal(2, 2, 7, 8)
        c = self.check(q, k, v)
        np.testing.assert_array_equal(c, self.check(*map(np.asfortranarray, (q, k, v))))

    def test_any_number_of_threads_gives_the_same_bits(self):
        words = self.words(self.normal(2, 3, 70, 32), self.normal(2, 3, 90, 32), self.normal(2, 3, 90, 32), {"causal": True})
        one = self.good(*words, "--threads", 1)
        for threads in (2, 3, 7):
            self.assertEqual(one, self.good(*words, "--threads", threads))

    def test_empty_axes(self):
        for q_len, kv_len in ((0, 3), (3, 0), (0, 0)):
            self.check(self.normal(2, q_len, 4), self.normal(2, kv_len, 4), self.normal(2, kv_len, 4), see=("lse", "received"))

    def test_names_with_underscores_are_the_same_options(self):
        words = self.words(self.normal(2, 4, 8), self.normal(2, 5, 8), self.normal(2, 5, 8), {})
        self.save("n.npy", np.array([3]))
        self.assertEqual(self.good(*words, "--kv-lengths", "n.npy"), self.good(*words, "--kv_lengths=n.npy"))


class Seen(AttendTest):
    def test_scores_at_each_stage(self):
        q, k, v = self.normal(2, 5, 8), self.normal(2, 7, 8), self.normal(2, 7, 3)
        options = {"softcap": 1.2, "bias": self.normal(5, 7), "causal": True}
        expected = attention(*map(self.lifted, (q, k, v)), **options)
        for stage in ("weighted", "capped", "raw"):
            self.good(*self.words(q, k, v, options), "-o", "out.npy", "--scores", "s.npy", "--scores-stage", stage)
            np.testing.assert_allclose(self.load("s.npy"), expected[stage][0], rtol=1e-5, atol=1e-5)

    def test_top_k_is_sorted_with_ties_to_the_lower_key_and_minus_1_behind_the_live_keys(self):
        q, k, v = self.normal(2, 6, 8), self.normal(2, 6, 8), self.normal(2, 6, 3)
        k[:, 3] = k[:, 1]
        self.good(*self.words(q, k, v, {"causal": True}), "-o", "out.npy", "--top-k", 4, "--top-index", "i.npy", "--top-weight", "w.npy")
        index, weight = self.load("i.npy"), self.load("w.npy")
        p = attention(*map(self.lifted, (q, k, v)), causal=True)["weights"][0]
        self.assertEqual((index.dtype, weight.dtype, index.shape), (np.int32, np.float32, (2, 6, 4)))
        for head in range(2):
            for row in range(6):
                live = min(row + 1, 4)
                best = sorted(range(row + 1), key=lambda j: (-p[head, row, j], j))[:live]
                self.assertEqual(list(index[head, row]), best + [-1] * (4 - live))
                np.testing.assert_allclose(weight[head, row], list(p[head, row, best]) + [0] * (4 - live), rtol=1e-5)

    def test_chosen_rows_and_heads_are_those_of_the_whole_maps(self):
        q, k, v = self.normal(2, 3, 5, 8), self.normal(2, 3, 7, 8), self.normal(2, 3, 7, 3)
        for arrays in ((q, k, v), (q[0], k[0], v[0])):
            some = self.words(*arrays, {})
            self.good(*some, "-o", "out.npy", "--weights", "w.npy", "--scores", "s.npy")
            whole = self.load("w.npy"), self.load("s.npy")
            self.good(*some, "-o", "out.npy", "--weights", "w.npy", "--scores", "s.npy", "--see-rows", "3,0,3", "--see-heads", "2,1")
            for got, all_of in zip((self.load("w.npy"), self.load("s.npy")), whole):
                np.testing.assert_array_equal(got, all_of[..., [2, 1], :, :][..., [3, 0, 3], :])
        flat = self.words(q[0, 0], k[0, 0], v[0, 0], {})
        self.good(*flat, "-o", "out.npy", "--weights", "w.npy", "--see-rows", "4")
        self.assertEqual(self.load("w.npy").shape, (1, 7))
        for says, words in (("names 5; there are 0 to 4", ("--see-rows", "0,5")), ("names -1", ("--see-rows", "-1")),
                            ("holds ''", ("--see-rows", "1,")), ("holds 'x'", ("--see-rows", "1,x")),
                            ("has no heads", ("--see-heads", "0"))):
            self.bad(2, *flat, "-o", "out.npy", "--weights", "w.npy", *words, says=says)
        self.bad(2, *flat, "-o", "out.npy", "--see-rows", "1", says="--see-rows needs --weights or --scores")

    def test_queries_count_for_what_received_by_says(self):
        q, k, v = self.normal(2, 9, 8), self.normal(2, 7, 8), self.normal(2, 7, 3)
        weights = attention(*map(self.lifted, (q, k, v)), causal=True)["weights"][0]
        for by in (self.normal(9), self.normal(2, 9), self.normal(1, 9)):
            words = self.words(q, k, v, {"causal": True, "received_by": by})
            self.good(*words, "-o", "out.npy", "--received", "r.npy", "--lse", "l.npy")
            np.testing.assert_allclose(self.load("r.npy"), (weights * by.reshape(-1, 9, 1)).sum(1), rtol=1e-5, atol=1e-6)
        self.bad(2, *words, says="--received-by needs --received to write to")

    def test_pooled_maps_are_means_over_blocks(self):
        q, k, v = self.normal(2, 9, 8), self.normal(2, 7, 8), self.normal(2, 7, 3)
        words = self.words(q, k, v, {"causal": True})
        weights = attention(*map(self.lifted, (q, k, v)), causal=True)["weights"][0]
        self.good(*words, "-o", "out.npy", "--pooled", "p.npy", "--pooled-size", "4x3")
        rows, keys = ([i * extent // n for i in range(n + 1)] for n, extent in ((4, 9), (3, 7)))
        means = [[weights[:, rows[i]:rows[i + 1], keys[j]:keys[j + 1]].mean((1, 2)) for j in range(3)] for i in range(4)]
        np.testing.assert_allclose(self.load("p.npy"), np.moveaxis(means, 2, 0), rtol=1e-5, atol=1e-7)
        self.bad(2, *words, "--pooled", "p.npy", says="--pooled needs --pooled-size")
        self.bad(2, *words, "--pooled-size", "4x3", says="--pooled-size needs --pooled to write to")
        for size in ("4,3", "4x0", "4", "x", "4x3x2"):
            self.bad(2, *words, "--pooled", "p.npy", "--pooled-size", size, says=f"--pooled-size is '{size}'; ")

    def test_asking_to_see_changes_no_bit_of_the_output(self):
        words = self.words(self.normal(2, 3, 20, 16), self.normal(2, 3, 30, 16), self.normal(2, 3, 30, 16), {"causal": True})
        plain = self.good(*words)
        seeing = self.good(*words, "--lse", "l", "--entropy", "e", "--received", "r", "--weights", "w", "--scores", "s", "--top-k", 3,
                           "--top-index", "i", "--top-weight", "t")
        self.assertEqual(plain, seeing)

    def test_received_sums_to_the_number_of_live_rows(self):
        q, k, v = self.normal(9, 8), self.normal(4, 8), self.normal(4, 8)
        self.good(*self.words(q, k, v, {"causal": True}), "-o", "out.npy", "--received", "r.npy")
        self.assertAlmostEqual(float(self.load("r.npy").sum()), 4, places=5)


class Backward(AttendTest):
    def differences(self, arrays, name, loss, step=1e-5):
        """The gradient of loss with respect to arrays[name], by central differences."""
        x = arrays[name]
        gradient = np.zeros_like(x)
        for at in np.ndindex(x.shape):
            kept = x[at]
            x[at] = kept + step
            above = loss(**arrays)
            x[at] = kept - step
            gradient[at] = (above - loss(**arrays)) / (2 * step)
            x[at] = kept
        return gradient

    def check_gradients(self, q, k, v, wanted, dlse=None, tolerance=1e-7, **options):
        dout = self.normal(*q.shape[:-1], v.shape[-1], dtype="f8")

        def loss(**arrays):
            inputs = [self.lifted(arrays.pop(name)) for name in "qkv"]
            result = attention(*inputs, **options, **arrays)
            total = (result["out"] * self.lifted(dout)).sum()
            return total + (0 if dlse is None else (result["lse"] * dlse).sum())

        arrays = {"q": q, "k": k, "v": v, **{name: options.pop(name) for name in list(options) if name in wanted}}
        words = self.words(q, k, v, {**options, **{n: a for n, a in arrays.items() if n not in "qkv"}})
        words += ["-o", "out.npy", "--dout", self.save("dout.npy", dout)]
        if dlse is not None:
            words += ["--dlse", self.save("dlse.npy", dlse)]
        for name in wanted:
            words += [f"--d{name.replace('_', '-')}", f"d-{name}.npy"]
        self.good(*words)
        for name in wanted:
            got = self.load(f"d-{name}.npy")
            self.assertEqual((got.dtype, got.shape), (arrays[name].dtype, arrays[name].shape), name)
            np.testing.assert_allclose(got, self.differences(arrays, name, loss), rtol=1e-5, atol=tolerance, err_msg=name)

    def problem(self):
        return self.normal(2, 3, 4, dtype="f8"), self.normal(2, 5, 4, dtype="f8"), self.normal(2, 5, 3, dtype="f8")

    def test_plain(self):
        self.check_gradients(*self.problem(), "qkv")

    def test_causal_with_shared_heads(self):
        q, k, v = self.normal(4, 3, 4, dtype="f8"), self.normal(2, 5, 4, dtype="f8"), self.normal(1, 5, 3, dtype="f8")
        self.check_gradients(q, k, v, "qkv", causal=True)

    def test_window_mask_softcap_and_alibi(self):
        mask = np.array([[1, 1, 0, 1, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 0]], bool)
        self.check_gradients(*self.problem(), ["q", "k", "v", "alibi"], mask=mask, softcap=1.5, window=(3, 1), alibi=np.array([0.3, 0.1]))

    def test_bias_in_its_own_shape(self):
        for shape in ((5,), (3, 1), (2, 3, 5), (1, 2, 1, 5)):
            self.check_gradients(*self.problem(), ["q", "bias"], bias=self.normal(*shape, dtype="f8"))

    def test_additive_scores(self):
        for shape in ((4,), (2, 4)):
            self.check_gradients(*self.problem(), ["q", "k", "v", "score_weight"], score="additive",
                                 score_weight=self.normal(*shape, dtype="f8"), causal=True)

    def test_other_weightings(self):
        q, k, v = self.problem()
        self.check_gradients(q, k, v, "qkv", weighting="sigmoid", causal=True)
        self.check_gradients(np.abs(q) + 0.5, np.abs(k) + 0.5, v, "qkv", weighting="normalized-sum")

    def test_gradient_of_the_lse(self):
        self.check_gradients(*self.problem(), "qk", dlse=self.normal(2, 3, dtype="f8"), mask=np.ones((3, 5), bool))

    def test_lengths(self):
        q, k, v = self.normal(2, 1, 3, 4, dtype="f8"), self.normal(2, 1, 5, 4, dtype="f8"), self.normal(2, 1, 5, 3, dtype="f8")
        self.check_gradients(q, k, v, "qkv", kv_lengths=np.array([5, 2]), q_lengths=np.array([2, 3]), causal=True)

    def test_float32_gradients_agree_with_float64(self):
        q, k, v, dout = self.normal(2, 40, 16), self.normal(2, 50, 16), self.normal(2, 50, 16), self.normal(2, 40, 16)
        gradients = {}
        for dtype in ("f4", "f8"):
            words = self.words(*(x.astype(dtype) for x in (q, k, v)), {"causal": True})
            self.good(*words, "-o", "out.npy", "--dout", self.save("dout.npy", dout.astype(dtype)), "--dq", "dq.npy", "--dk", "dk.npy",
                      "--dv", "dv.npy")
            gradients[dtype] = [self.load(f"d{x}.npy") for x in "qkv"]
        for narrow, wide in zip(gradients["f4"], gradients["f8"]):
            self.assertEqual((narrow.dtype, wide.dtype), (np.float32, np.float64))
            np.testing.assert_allclose(narrow, wide, rtol=1e-4, atol=1e-5)

    def test_rounded_inputs_give_float32_gradients(self):
        q, k, v = (x.astype("f4") for x in self.problem())
        self.good(*self.words(q, k, v, {"dtype": "bf16"}), "-o", "out.npy", "--dout", self.save("dout.npy", self.normal(2, 3, 3)), "--dq",
                  "dq.npy", "--dk", "dk.npy")
        self.assertEqual(self.load("dq.npy").dtype, np.float32)
        self.assertEqual(self.load("dk.npy").shape, k.shape)


class Streams(AttendTest):
    def test_q_from_stdin_and_the_output_on_stdout(self):
        q, k, v = self.normal(4, 8), self.normal(5, 8), self.normal(5, 8)
        raw = io.BytesIO()
        np.save(raw, q)
        words = self.words(q, k, v, {})
        words[words.index("q.npy")] = "-"
        out = np.load(io.BytesIO(self.good(*words, stdin=raw.getvalue())))
        np.testing.assert_allclose(out, attention(*map(self.lifted, (q, k, v)))["out"][0, 0], rtol=1e-5)


if __name__ == "__main__":
    unittest.main()
