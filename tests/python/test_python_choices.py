# SPDX-License-Identifier: Apache-2.0
"""Routers and sampling against NumPy in float64.

Every order and option on random problems, gradients, and draws by Philox's own words.
"""

import unittest

from package import attn, missing, ml_dtypes, np, torch

INF = float("inf")
MASK = 2**32 - 1
NAMES = ["float32", "float64", "float16"] + ["bfloat16"] * bool(ml_dtypes)
ROUNDING = {"float32": 2.0**-20, "float64": 1e-13, "float16": 2.0**-10, "bfloat16": 2.0**-7}


def philox(counter, key):
    """Philox-4x32-10 (Salmon et al. 2011)."""
    c, k = list(counter), [key & MASK, key >> 32]
    for _ in range(10):
        p, q = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [q >> 32 ^ c[1] ^ k[0], q & MASK, p >> 32 ^ c[3] ^ k[1], p & MASK]
        k = [(k[0] + 0x9E3779B9) & MASK, (k[1] + 0xBB67AE85) & MASK]
    return c


def uniform(seed, row):
    low, high = philox((row & MASK, row >> 32, 0, 2), seed)[:2]
    return ((low | high << 32) // 2**12 + 0.5) * 2.0**-52


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def route(x, k, order, normalize, bias, scale):
    """One row: (index, weight)."""
    gates = 1 / (1 + np.exp(-x))
    choice = np.where(np.isneginf(x), -INF, gates + bias) if order == "sigmoid-top-k" else x
    index = np.argsort(-choice, kind="stable")[:k]
    index = index[~np.isneginf(choice[index])]
    weight = gates[index]
    if order == "softmax-top-k" and len(index):
        weight = softmax(x)[index]
    elif order == "top-k-softmax" and len(index):
        weight = softmax(x[index])
    if normalize and len(index):
        weight = weight / weight.sum()
    rest = k - len(index)
    return np.append(index, np.full(rest, -1)).astype(int), np.append(scale * weight, np.zeros(rest))


def left_of(x, temperature, top_k, top_p, min_p):
    """What may be drawn of one row: its probabilities, 0 where cut off, and whether a border is too near to tell."""
    order = [i for i in np.argsort(-x, kind="stable") if x[i] > -INF]
    e = np.exp((x - x[order[0]]) / temperature)
    order = order[: top_k or None]
    sums = np.cumsum(e[order])
    near = top_p < 1 and np.abs(sums - top_p * sums[-1]).min() < 1e-9 * sums[-1]
    if top_p < 1:
        order = order[: np.searchsorted(sums, top_p * sums[-1]) + 1]
    near = near or (min_p > 0 and any(abs(e[i] - min_p) < 1e-9 and e[i] < 1 for i in order))
    p = np.zeros(len(x))
    kept = [i for i in order if e[i] >= min_p]
    p[kept] = e[kept] / e[kept].sum()
    return p, near


@unittest.skipIf(missing, missing)
class Choices(unittest.TestCase):
    def setUp(self):
        self.rng = np.random.default_rng(20261127)

    def array(self, values, name):
        return values.astype(ml_dtypes.bfloat16 if name == "bfloat16" else name)

    def shape(self, classes):
        shape = tuple(int(n) for n in self.rng.integers(1, 4, self.rng.integers(0, 4)))
        axis = int(self.rng.integers(-len(shape) - 1, len(shape) + 1))
        at = axis % (len(shape) + 1)
        return shape[:at] + (classes,) + shape[at:], axis

    # ---- routers ----

    def router_problem(self):
        name = NAMES[self.rng.integers(len(NAMES))]
        order = ("softmax-top-k", "top-k-softmax", "sigmoid-top-k")[self.rng.integers(3)]
        experts = int(self.rng.choice([1, 2, 5, 16, 64, 300]))
        shape, axis = self.shape(experts)
        x = self.rng.integers(-90, 91, shape) / 16
        x[self.rng.random(shape) < 0.1] = -INF
        options = {"order": order, "normalize": order != "top-k-softmax" and self.rng.random() < 0.5}
        options["scale"] = float(self.rng.choice([1, 2.5, 0, -1]))
        bias = np.zeros(experts)
        if order == "sigmoid-top-k" and self.rng.random() < 0.6:
            bias = self.rng.integers(-20, 21, experts) / 64
            options["bias"] = self.array(bias, name if self.rng.random() < 0.5 else "float32")
        return name, x, axis, int(self.rng.integers(0, experts + 2)), options, bias

    def test_60_problems_of_routers(self):
        for _ in range(60):
            name, x, axis, k, options, bias = self.router_problem()
            what = f"{name} {x.shape} axis {axis} k {k} {options}"
            logits = self.array(x, name)
            index, weight = attn.top_k_softmax(logits, k, axis, **options)
            self.assertEqual((index.dtype, weight.dtype), (np.int32, logits.dtype), what)
            rows = np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis])
            indices, weights = (np.moveaxis(a, axis, -1).reshape(len(rows), k) for a in (index, weight))
            for row, got_index, got_weight in zip(rows, indices, weights):
                i, w = route(row, k, options["order"], options["normalize"], bias, options["scale"])
                np.testing.assert_array_equal(got_index, i, what)
                np.testing.assert_allclose(got_weight.astype("f8"), w, rtol=ROUNDING[name], atol=1e-7, err_msg=what)
            turned = np.asfortranarray(logits[..., ::-1])[..., ::-1]
            again = attn.top_k_softmax(turned, k, axis, **options)
            self.assertEqual((again[0].tobytes(), again[1].tobytes()), (index.tobytes(), weight.tobytes()), what)

    def test_gradients_are_those_of_central_differences(self):
        for order, normalize in (
            ("softmax-top-k", False),
            ("softmax-top-k", True),
            ("top-k-softmax", False),
            ("sigmoid-top-k", False),
            ("sigmoid-top-k", True),
        ):
            options = {"order": order, "normalize": normalize, "scale": 1.5}
            if order == "sigmoid-top-k":
                options["bias"] = self.rng.standard_normal(6) / 10
            x = self.rng.standard_normal((2, 6, 3))
            index, weight = attn.top_k_softmax(x, 3, 1, **options)
            dweight = self.rng.standard_normal(weight.shape)
            dx = attn.top_k_softmax_backward(dweight, x, index, 1, **options)
            for at in np.ndindex(*x.shape):
                step = np.zeros_like(x)
                step[at] = 1e-5
                above, below = (attn.top_k_softmax(x + s, 3, 1, **options)[1] for s in (step, -step))
                self.assertAlmostEqual(dx[at], ((above - below) * dweight).sum() / 2e-5, delta=1e-8)

    @unittest.skipIf(torch is None, "torch is not there")
    def test_the_gradient_of_a_router_is_torch_s(self):
        x = torch.randn(20, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
        bias = torch.linspace(-0.2, 0.2, 16, dtype=torch.float64)
        for order, normalize in (("softmax-top-k", False), ("softmax-top-k", True), ("sigmoid-top-k", True)):
            scores = torch.sigmoid(x) if order == "sigmoid-top-k" else torch.softmax(x, -1)
            chosen = torch.topk((scores + bias) if order == "sigmoid-top-k" else scores, 4).indices
            expected = scores.gather(-1, chosen)
            expected = 2.5 * (expected / expected.sum(-1, keepdim=True) if normalize else expected)
            options = {"order": order, "normalize": normalize, "scale": 2.5, "bias": bias if order == "sigmoid-top-k" else None}
            index, weight = attn.top_k_softmax(x.detach(), 4, **options)
            self.assertTrue(torch.equal(index.long(), chosen), order)
            torch.testing.assert_close(weight, expected.detach(), rtol=1e-12, atol=0)
            dweight = torch.randn(20, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
            (dx,) = torch.autograd.grad(expected, x, dweight)
            torch.testing.assert_close(
                attn.top_k_softmax_backward(dweight, x.detach(), index, **options), dx, rtol=1e-10, atol=1e-12
            )

    # ---- sampling ----

    def test_60_problems_of_sampling(self):
        for _ in range(60):
            name = NAMES[self.rng.integers(len(NAMES))]
            classes = int(self.rng.choice([1, 2, 7, 50, 300, 1500]))
            shape, axis = self.shape(classes)
            logits = self.array(self.rng.standard_normal(shape) * 2, name)
            logits[self.rng.random(shape) < 0.1] = -INF
            options = {"temperature": float(self.rng.choice([0.5, 1, 3])), "seed": int(self.rng.integers(2**63)) * 2 + 1}
            options["top_k"] = int(self.rng.choice([0, 0, 1, 5, 40]))
            options["top_p"] = float(self.rng.choice([1, 1, 0.9, 0.5]))
            options["min_p"] = float(self.rng.choice([0, 0, 0.1]))
            what = f"{name} {shape} axis {axis} {options}"
            index, probability = attn.sample(logits, axis, probability=True, **options)
            self.assertEqual((index.dtype, index.shape), (np.int32, np.moveaxis(logits, axis, -1).shape[:-1]), what)
            rows = np.moveaxis(logits, axis, -1).reshape(-1, classes).astype("f8")
            limits = [options[o] for o in ("temperature", "top_k", "top_p", "min_p")]
            for number, (row, i, p) in enumerate(zip(rows, np.ravel(index), np.ravel(probability))):
                if np.isneginf(row).all():
                    self.assertEqual((i, p), (-1, 0), what)
                    continue
                left, near = left_of(row, *limits)
                if near:
                    continue
                sums, u = np.cumsum(left), uniform(options["seed"], number)
                self.assertGreater(left[i], 0, what)
                self.assertLessEqual(sums[i] - left[i], u + 1e-10, what)
                self.assertGreaterEqual(sums[i], u - 1e-10, what)
                self.assertLessEqual(abs(float(p) - left[i]), ROUNDING[name] * left[i], what)
            np.testing.assert_array_equal(index, attn.sample(np.asfortranarray(logits), axis, **options), what)

    def test_temperature_0_is_argmax(self):
        x = self.rng.integers(-5, 6, (4, 3, 9)).astype("f4")
        for axis in range(3):
            np.testing.assert_array_equal(attn.sample(x, axis, temperature=0), x.argmax(axis))

    def test_frequencies_are_the_probabilities(self):
        logits = np.log(np.array([0.4, 0.3, 0.2, 0.1]))
        drawn = attn.sample(np.broadcast_to(logits, (40000, 4)), seed=11, top_p=0.85)
        counts = np.bincount(drawn, minlength=4)
        expected = 40000 * np.array([0.4, 0.3, 0.2]) / 0.9
        self.assertEqual(counts[3], 0)
        self.assertLess((((counts[:3] - expected) ** 2) / expected).sum(), 13.8)  # one in a thousand, were the seed another

    def test_rows_that_nothing_can_be_drawn_from(self):
        x = np.array([[-INF, -INF], [np.nan, 0], [INF, 0], [-INF, 0]])
        index, probability = attn.sample(x, probability=True)
        np.testing.assert_array_equal(index, [-1, -1, -1, 1])
        np.testing.assert_array_equal(probability, [0, np.nan, np.nan, 1])

    @unittest.skipIf(torch is None, "torch is not there")
    def test_torch_in_torch_out(self):
        x = torch.zeros(2, 5)
        index, weight = attn.top_k_softmax(x, 2)
        self.assertEqual((type(index), index.dtype, weight.dtype), (torch.Tensor, torch.int32, torch.float32))
        self.assertEqual(attn.sample(x).shape, (2,))
        self.assertEqual(attn.sample(x[0]).shape, ())

    # ---- refusals ----

    def test_what_does_not_fit_is_refused_by_name(self):
        x = np.zeros((2, 6), "f4")
        index, weight = attn.top_k_softmax(x, 2)
        for error, says, call in (
            (ValueError, "k is -1", lambda: attn.top_k_softmax(x, -1)),
            (TypeError, "k is an integer, not", lambda: attn.top_k_softmax(x, 2.5)),
            (ValueError, "axis is 2", lambda: attn.top_k_softmax(x, 2, 2)),
            (ValueError, "order is 'topk'", lambda: attn.top_k_softmax(x, 2, order="topk")),
            (ValueError, "normalize is 1", lambda: attn.top_k_softmax(x, 2, order="top-k-softmax", normalize=True)),
            (ValueError, "bias is there", lambda: attn.top_k_softmax(x, 2, bias=x[0])),
            (ValueError, "bias has shape", lambda: attn.top_k_softmax(x, 2, order="sigmoid-top-k", bias=x)),
            (ValueError, "scale is nan", lambda: attn.top_k_softmax(x, 2, scale=np.nan)),
            (TypeError, "logits is int32", lambda: attn.top_k_softmax(x.astype("i4"), 2)),
            (ValueError, "index has 1 axes", lambda: attn.top_k_softmax_backward(weight, x, index[0])),
            (ValueError, "index is f32", lambda: attn.top_k_softmax_backward(weight, x, weight)),
            (ValueError, "dweight has shape", lambda: attn.top_k_softmax_backward(x, x, index)),
            (ValueError, "an expert of 6", lambda: attn.top_k_softmax_backward(weight, x, index + 5)),
            (ValueError, "temperature is -1", lambda: attn.sample(x, temperature=-1)),
            (ValueError, "top_k is -1", lambda: attn.sample(x, top_k=-1)),
            (ValueError, "top_p is 0", lambda: attn.sample(x, top_p=0)),
            (ValueError, "top_p is 2", lambda: attn.sample(x, top_p=2)),
            (ValueError, "min_p is -1", lambda: attn.sample(x, min_p=-1)),
            (ValueError, "seed is -1", lambda: attn.sample(x, seed=-1)),
            (ValueError, "axis is 0, and logits has 0 axes", lambda: attn.sample(np.float32(1), 0)),
        ):
            with self.assertRaisesRegex(error, says):
                call()


if __name__ == "__main__":
    unittest.main()
