# SPDX-License-Identifier: Apache-2.0
"""600 random problems over the whole package against float64 formulas, within the bounds of docs/ACCURACY.md.

Dtypes, ranks, axes, strides and options are drawn at random.
"""

import unittest

from package import attn, missing, ml_dtypes, np

if not missing:
    import formulas

SEED = 20260801
ENTMAX_C = 8  # that of tests/entmax_bounds.h
UNIT = {"float32": 2.0**-24, "float64": 2.0**-53, "float16": 2.0**-24, "bfloat16": 2.0**-24}  # of the computation
ROUNDING = {"float32": 0, "float64": 0, "float16": 2.0**-11, "bfloat16": 2.0**-8}  # of the result, relative
SMALLEST = {"float32": 2.0**-126, "float64": 2.0**-1022, "float16": 2.0**-24, "bfloat16": 2.0**-126}


def rounding(name, exact):
    return ROUNDING[name] * np.abs(exact) + SMALLEST[name]


@unittest.skipIf(missing, missing)
class Properties(unittest.TestCase):
    def setUp(self):
        self.rng = np.random.default_rng(SEED)

    # ---- drawing ----

    def chance(self, p):
        return self.rng.random() < p

    def choose(self, *values):
        return values[self.rng.integers(len(values))]

    def dtype(self):
        names = ["float32", "float32", "float64", "float16"] + ["bfloat16"] * bool(ml_dtypes)
        return self.choose(*names)

    def shape(self, low, high, extent=7):
        return tuple(int(n) for n in self.rng.integers(1, extent + 1, self.rng.integers(low, high + 1)))

    def cast(self, array, name):
        return array.astype(ml_dtypes.bfloat16 if name == "bfloat16" else name)

    def laid_out(self, array):
        """The same values, somewhere else: reversed, with gaps, transposed in memory."""
        array = np.asarray(array)
        for axis in range(array.ndim):
            way = self.rng.integers(4)
            index = [slice(None)] * array.ndim
            if way == 0:
                index[axis] = slice(None, None, -1)
                array = np.ascontiguousarray(array[tuple(index)])[tuple(index)]
            elif way == 1:
                wide = np.repeat(array, 2, axis)
                index[axis] = slice(1, None, 2)
                array = wide[tuple(index)]
        if array.ndim > 1 and self.chance(0.3):
            order = self.rng.permutation(array.ndim)
            array = np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order))
        return array

    def broadcast_shape(self, shape):
        kept = self.rng.integers(0, len(shape) + 1)
        return tuple(1 if self.chance(0.3) else n for n in shape[len(shape) - kept :])

    def normal(self, *shape):
        return self.rng.standard_normal(shape)

    def exact_scores(self, *shape):
        """Multiples of 1/16 below 8: scaled and shifted by such, they are exact in every dtype but bf16's sums."""
        return self.rng.integers(-127, 128, shape) / 16

    # ---- comparing ----

    def within(self, got, exact, bound, what):
        got = np.asarray(got).astype("f8").astype(np.longdouble)
        self.assertEqual(got.shape, np.shape(exact), what)
        same = (got == exact) | (np.isnan(got) & np.isnan(exact))
        with np.errstate(invalid="ignore"):
            off = np.where(same, 0, np.abs(got - exact))
        worst = np.max(off - bound, initial=-1)
        self.assertLessEqual(worst, 0, f"{what}: off by {np.max(off, initial=0)}")

    def rms(self, got, exact, bound, name, what, cancelled=0):
        """The relative root mean square bound, beside the rounding of 16-bit results and what cancelled in sums."""
        got = np.asarray(got).astype("f8")
        self.assertEqual(got.shape, np.shape(exact), what)
        off = np.maximum(np.abs(got - exact) - rounding(name, exact), 0)
        self.assertLessEqual(np.sqrt((off**2).sum()), bound * np.sqrt((exact**2).sum()) + cancelled + 1e-30, what)

    def entmax_within(self, got, exact, distance, alpha, name, what):
        """The bound is on how far scores would have to be moved to give these weights: |y^a - p^a| / a with a = alpha - 1."""
        y, p, a = np.asarray(got).astype("f8").astype(np.longdouble), np.asarray(exact, np.longdouble), alpha - 1
        self.assertEqual(y.shape, p.shape, what)
        y = p + np.sign(y - p) * np.maximum(np.abs(y - p) - rounding(name, exact), 0)
        if a == 0:
            off = np.where(y == p, 0, np.abs(np.log(np.where(y > 0, y, 1)) - np.log(np.where(p > 0, p, 1))))
        else:
            off = np.abs(y**a - p**a) / a
        units = off / (UNIT[name] * (1 + distance))
        self.assertLessEqual(np.max(units, initial=0), ENTMAX_C, what)

    # ---- the softmax family ----

    def softmax_problem(self):
        op = self.choose(
            "softmax",
            "softmax",
            "log_softmax",
            "log_softmax",
            "softmin",
            "logsumexp",
            "logsumexp",
            "sparsemax",
            "entmax15",
            "entmax",
        )
        name = self.dtype()
        shape = self.shape(1, 5)
        axis = int(self.rng.integers(-len(shape), len(shape)))
        scale = float(self.choose(1, 1, 2, 0.5, -1, 0))
        x = self.cast(self.exact_scores(*shape), name)
        z = scale * x.astype("f8").astype(np.longdouble)
        options = {"scale": scale}
        if self.chance(0.4):
            s, masks = self.broadcast_shape(shape), np.inf if op == "softmin" else -np.inf
            bias = self.cast(np.where(self.rng.random(s) < 0.1, masks, self.exact_scores(*s)), self.choose(name, "float32"))
            options["bias"] = self.laid_out(bias)
            z = z + bias.astype("f8")
        z = -z if op == "softmin" else z
        live = ~np.isneginf(z)
        if self.chance(0.4):
            mask = self.rng.random(self.broadcast_shape(shape)) < 0.7
            options["mask"] = self.laid_out(mask)
            live = live & mask
        z = np.moveaxis(np.where(live, z, -np.inf), axis, -1)
        what = f"{op} {name} {shape} axis {axis} {sorted(options)}"
        alpha = {"sparsemax": 2.0, "entmax15": 1.5}.get(op) or float(self.choose(1, 1.25, 1.5, self.rng.uniform(1.05, 2), 2))
        first = (x, alpha) if op == "entmax" else (x,)
        y = getattr(attn, op)(*first, axis=axis, **options)
        self.assertEqual(y.dtype, x.dtype, what)
        again = getattr(attn, op)(self.laid_out(x), *first[1:], axis=axis, **options)
        self.assertEqual(np.asarray(again).tobytes(), np.asarray(y).tobytes(), "strides change bits: " + what)
        u = UNIT[name]
        top = np.max(z, axis=-1, keepdims=True, initial=-np.inf)
        distance = np.where(np.isneginf(z), 0, np.where(np.isneginf(top), 0, top) - np.where(np.isneginf(z), 0, z))
        if op == "logsumexp":
            exact = formulas.logsumexp_rows(z)
            with np.errstate(invalid="ignore"):
                self.within(
                    y,
                    exact,
                    u * (8 + np.abs(np.where(np.isneginf(exact), 0, exact)))
                    + rounding(name, np.where(np.isneginf(exact), 0, exact)),
                    what,
                )
            self.logsumexp_gradient(x, axis, options, z, scale, name, what)
            return
        if op == "log_softmax":
            lse = formulas.logsumexp_rows(z)[..., None]
            exact = np.where(np.isneginf(z), -np.inf, z - np.where(np.isneginf(lse), 0, lse))
            size = np.abs(np.where(np.isneginf(exact), 0, exact))
            bound = u * (8 + distance + size) + rounding(name, size)
        elif op in ("softmax", "softmin"):
            exact = formulas.softmax_rows(z)
            bound = np.maximum(exact * u * (8 + distance), SMALLEST[name]) + rounding(name, exact)
        else:
            exact = formulas.entmax_rows(z, alpha)
            self.entmax_within(np.moveaxis(np.asarray(y), axis, -1), exact, distance, alpha, name, f"{what} alpha {alpha}")
            bound = np.inf
        self.within(np.moveaxis(np.asarray(y), axis, -1), exact, bound, what)
        self.softmax_gradient(op, y, axis, scale, alpha, name, what)
        if op == "entmax":
            self.alpha_gradient(y, axis, alpha, what)

    def softmax_gradient(self, op, y, axis, scale, alpha, name, what):
        u = UNIT[name]
        dy = self.cast(self.normal(*y.shape), self.choose(name, "float32"))
        backward = getattr(attn, op + "_backward")
        first = (self.laid_out(dy), self.laid_out(y)) + ((alpha,) if op == "entmax" else ())
        dx = backward(*first, axis=axis, scale=scale)
        self.assertEqual((dx.dtype, dx.shape), (y.dtype, y.shape), what)
        y, dy = (np.moveaxis(t.astype("f8").astype(np.longdouble), axis, -1) for t in (y, dy))
        if op == "log_softmax":
            live = ~np.isneginf(y)
            p, dy = np.where(live, np.exp(y), 0), np.where(live, dy, 0)
            exact = scale * np.where(live, dy - p * dy.sum(-1, keepdims=True), 0)
            bound = 16 * u * np.abs(scale) * (np.abs(dy) + p * np.abs(dy).sum(-1, keepdims=True))
        elif op in ("softmax", "softmin"):
            exact = formulas.softmax_rows_backward(dy, y) * (-scale if op == "softmin" else scale)
            bound = 16 * u * np.abs(scale) * y * (np.abs(dy) + np.abs(y * dy).sum(-1, keepdims=True))
        else:
            exact = scale * formulas.entmax_rows_backward(dy, y, alpha)
            bound = 64 * u * np.abs(scale) * np.abs(dy).sum(-1, keepdims=True)
        self.within(np.moveaxis(dx, axis, -1), exact, bound + rounding(name, exact), "gradient of " + what)

    def alpha_gradient(self, y, axis, alpha, what):
        dy = self.cast(self.normal(*y.shape), y.dtype.name)
        dx, dalpha = attn.entmax_backward(self.laid_out(dy), self.laid_out(y), alpha, axis, dalpha=True)
        np.testing.assert_array_equal(dx, attn.entmax_backward(dy, y, alpha, axis), what)
        kept_in = "float64" if y.dtype.name == "float64" else "float32"
        self.assertEqual((dalpha.dtype.name, dalpha.shape), (kept_in, ()), what)
        u = max(UNIT[y.dtype.name], ROUNDING[y.dtype.name])  # rounded, y does not sum to 1
        dy, y = (np.moveaxis(t.astype("f8"), axis, -1) for t in (dy, y))
        slope, size = formulas.entmax_rows_slope(y, alpha)
        exact, size = (slope * dy).sum(), (size * np.abs(dy)).sum()
        self.assertLessEqual(abs(dalpha - exact), 16 * u * size, f"dalpha of {what} alpha {alpha}")

    def logsumexp_gradient(self, x, axis, options, z, scale, name, what):
        dy = self.cast(np.asarray(self.normal(*np.delete(x.shape, axis))), name)
        dx = attn.logsumexp_backward(self.laid_out(dy), self.laid_out(x), axis, **options)
        p = formulas.softmax_rows(z)
        top = np.max(np.where(np.isneginf(z), -100, z), -1, keepdims=True)
        far = np.where(np.isneginf(z), 0, top - z)
        exact = scale * dy.astype("f8")[..., None] * p
        bound = np.abs(exact) * UNIT[name] * (16 + far) + rounding(name, exact)
        self.within(np.moveaxis(dx, axis, -1), exact, bound, "gradient of " + what)

    def test_150_problems_of_the_softmax_family(self):
        for problem in range(150):
            with self.subTest(problem=problem):
                self.softmax_problem()

    def gumbel_problem(self):
        name, shape, temperature = self.dtype(), self.shape(1, 4), float(self.choose(0.5, 1, 3))
        axis, seed = int(self.rng.integers(-len(shape), len(shape))), int(self.rng.integers(0, 2**64, dtype=np.uint64))
        x = self.cast(self.normal(*shape), name)
        what = f"gumbel-softmax {name} {shape} axis {axis} temperature {temperature} seed {seed}"
        y = attn.gumbel_softmax(self.laid_out(x), axis, temperature=temperature, seed=seed)
        hard = attn.gumbel_softmax(x, axis, temperature=temperature, seed=seed, hard=True)
        z = np.moveaxis(x, axis, -1).astype("f8")
        z = (z + formulas.gumbel(z.shape, seed)) / temperature
        exact, u = formulas.softmax_rows(z), UNIT[name]
        self.within(np.moveaxis(y, axis, -1), exact, 32 * u * (1 + np.abs(z).max()) * exact + rounding(name, exact), what)
        np.testing.assert_array_equal(np.moveaxis(hard, axis, -1).argmax(-1), exact.argmax(-1), what)
        self.assertTrue(np.all(hard.astype("f8").sum(axis) == 1) and set(np.unique(hard.astype("f8"))) <= {0.0, 1.0}, what)
        dy = self.cast(self.normal(*shape), name)
        dx = attn.gumbel_softmax_backward(dy, y, axis, temperature=temperature)
        dy, y = (np.moveaxis(t.astype("f8"), axis, -1) for t in (dy, y))
        right = formulas.softmax_rows_backward(dy, y) / temperature
        bound = 16 * u / temperature * y * (np.abs(dy) + np.abs(y * dy).sum(-1, keepdims=True))
        self.within(np.moveaxis(dx, axis, -1), right, bound + rounding(name, right), "gradient of " + what)

    def test_20_problems_of_gumbel_softmax(self):
        for problem in range(20):
            with self.subTest(problem=problem):
                self.gumbel_problem()

    # ---- cross-entropy, gates ----

    def cross_entropy_problem(self):
        name = self.dtype()
        n, classes = (int(i) for i in self.rng.integers(1, 30, 2))
        logits = self.cast(self.normal(n, classes) * 3, name)
        hard = self.chance(0.7)
        if hard:
            labels = self.rng.integers(0, classes, n, dtype=self.choose("i4", "i8"))
        else:
            labels = self.cast(self.rng.dirichlet(np.ones(classes), n), self.choose(name, "float32"))
        options = {
            "ignore_index": -100,
            "label_smoothing": float(self.choose(0, 0.1, 1)),
            "z_loss": float(self.choose(0, 1e-2)),
            "reduction": self.choose("mean", "sum", "none"),
        }
        if hard and self.chance(0.5):
            options["ignore_index"] = int(self.choose(-100, -1, 0))
            labels[self.rng.random(n) < 0.3] = options["ignore_index"]
        weight = self.rng.uniform(0, 1.5, classes).astype("f4") if self.chance(0.5) else None
        what = f"cross-entropy {name} [{n}, {classes}] {options}"
        loss, grad = attn.cross_entropy(self.laid_out(logits), self.laid_out(labels), weight=weight, grad=True, **options)
        alone = attn.cross_entropy(logits, labels, weight=weight, **options)
        self.assertEqual(np.asarray(alone).tobytes(), np.asarray(loss).tobytes(), what)
        self.assertEqual((loss.dtype, grad.dtype), (np.float64 if name == "float64" else np.float32, logits.dtype))
        exact, exact_grad, _ = formulas.cross_entropy(
            logits, labels, weight, options["ignore_index"], options["label_smoothing"], options["z_loss"], options["reduction"]
        )
        rows, _, _ = formulas.cross_entropy(
            logits, labels, weight, options["ignore_index"], options["label_smoothing"], options["z_loss"], "none"
        )
        u = UNIT[name]
        each = 32 * u * (1 + 4 * np.abs(rows))
        if options["reduction"] == "none":
            bound = each
        else:
            counts = (labels != options["ignore_index"]) if hard else np.ones(n, bool)
            total = (
                1
                if options["reduction"] == "sum"
                else n if not hard else (np.ones(classes) if weight is None else weight.astype("f8"))[labels[counts]].sum()
            )
            bound = (each.sum() / total if total else 0) + 8 * u * np.abs(exact)
        self.within(loss, exact, bound, what)
        per_row = np.abs(exact_grad).max(initial=0) + 1
        self.within(grad, exact_grad, 64 * u * per_row + rounding(name, exact_grad), what)

    def test_40_problems_of_cross_entropy(self):
        for problem in range(40):
            with self.subTest(problem=problem):
                self.cross_entropy_problem()

    def linear_problem(self):
        name = self.dtype()
        n, classes, dim = (int(i) for i in self.rng.integers(1, 30, 3))
        x, w = self.cast(self.normal(n, dim), name), self.cast(self.normal(classes, dim) * 3 / dim**0.5, name)
        bias = self.cast(self.normal(classes), self.choose(name, "float32")) if self.chance(0.5) else None
        labels = self.rng.integers(0, classes, n, dtype=self.choose("i4", "i8"))
        labels[self.rng.random(n) < 0.2] = -1
        class_weight = self.rng.uniform(0, 1.5, classes).astype("f4") if self.chance(0.5) else None
        o = {
            "ignore_index": -1,
            "label_smoothing": float(self.choose(0, 0.1)),
            "z_loss": float(self.choose(0, 1e-2)),
            "reduction": self.choose("mean", "sum", "none"),
        }
        what = f"linear cross-entropy {name} [{n}, {dim}] by [{classes}, {dim}] {o}"
        call = {**o, "bias": bias, "class_weight": class_weight}
        loss, dx, dw, db = attn.linear_cross_entropy(*map(self.laid_out, (x, w, labels)), grad=True, **call)
        self.assertEqual(np.asarray(attn.linear_cross_entropy(x, w, labels, **call)).tobytes(), np.asarray(loss).tobytes(), what)
        self.assertEqual((dx.dtype, dw.dtype, db is None), (x.dtype, w.dtype, bias is None), what)
        x8, w8 = x.astype("f8"), w.astype("f8")
        z = x8 @ w8.T + (0 if bias is None else bias.astype("f8"))
        size = np.abs(x8) @ np.abs(w8).T + (0 if bias is None else np.abs(bias.astype("f8")))
        u = UNIT[name]
        options = labels, class_weight, o["ignore_index"], o["label_smoothing"], o["z_loss"]
        exact, dz, terms = formulas.cross_entropy(z, *options, o["reduction"])
        rows, _, _ = formulas.cross_entropy(z, *options, "none")
        per_row = (32 * u * (1 + 4 * np.abs(rows)) + 4 * u * (dim + 2) * size.max(-1)) * (labels != -1)
        counted = np.ones(classes) if class_weight is None else class_weight.astype("f8")
        total = counted[labels[labels != -1]].sum() if o["reduction"] == "mean" else 1
        summed = per_row.sum() / total + 8 * u * np.abs(exact) if total else 0
        self.within(loss, exact, per_row if o["reduction"] == "none" else summed, what)
        each = 128 * u + 4 * u * (dim + 2) * size.max() + u * (max(n, classes) + 16)
        self.within(dx, dz @ w8, each * (terms @ np.abs(w8)) + rounding(name, dz @ w8), "dx of " + what)
        self.within(dw, dz.T @ x8, each * (terms.T @ np.abs(x8)) + rounding(name, dz.T @ x8), "dweight of " + what)
        if bias is not None:
            kept_in = rounding(bias.dtype.name, dz.sum(0)) + UNIT[bias.dtype.name] * np.abs(dz.sum(0))
            self.within(db, dz.sum(0), each * terms.sum(0) + kept_in, "dbias of " + what)

    def test_30_problems_of_linear_cross_entropy(self):
        for problem in range(30):
            with self.subTest(problem=problem):
                self.linear_problem()

    def gate_problem(self):
        name, kind = self.dtype(), self.choose("sigmoid", "additive", "multiplicative")
        shape = self.shape(1, 5)
        x, g, dy = (self.cast(self.normal(*shape), name) for _ in range(3))
        y = attn.gate(self.laid_out(x), self.laid_out(g), kind)
        dx, dg = attn.gate_backward(self.laid_out(dy), self.laid_out(x), self.laid_out(g), kind)
        x, g, dy = (t.astype("f8").astype(np.longdouble) for t in (x, g, dy))
        s = 1 / (1 + np.exp(-g))
        exact = {
            "sigmoid": (x * s, dy * s, dy * x * s * (1 - s)),
            "additive": (x + g * x, dy * (1 + g), dy * x),
            "multiplicative": (x * g, dy * g, dy * x),
        }[kind]
        size = (
            [np.abs(x) * (1 + np.abs(g)), np.abs(dy) * (1 + np.abs(g)), np.abs(exact[2])] if kind == "additive" else np.abs(exact)
        )
        for got, right, about, of in zip((y, dx, dg), exact, size, ("y", "dx", "dg")):
            units = 8 if of == "dg" else 4
            self.within(got, right, units * UNIT[name] * about + rounding(name, right), f"{of} of the gate {kind} {name} {shape}")

    def test_20_problems_of_gates(self):
        for problem in range(20):
            with self.subTest(problem=problem):
                self.gate_problem()

    # ---- rotary positions, linear attention ----

    def rope_problem(self):
        name, interleaved, table = self.dtype(), self.chance(0.5), self.chance(0.5)
        batch, heads, length = (int(n) for n in self.rng.integers(1, 4, 3))
        dim = 2 * int(self.rng.integers(1, 9))
        rotary_dim = self.choose(0, 2 * int(self.rng.integers(1, dim // 2 + 1)))
        turned = rotary_dim or dim
        x = self.cast(self.normal(batch, heads, length, dim), name)
        cos, sin = (self.cast(self.normal(*((9,) if table else (batch, length)), turned // 2), name) for _ in range(2))
        positions = self.rng.integers(0, 9, (batch, length)) if table else None
        call = {"positions": positions, "interleaved": interleaved, "rotary_dim": rotary_dim}
        y = attn.rope(self.laid_out(x), self.laid_out(cos), self.laid_out(sin), **call)
        dx = attn.rope_backward(self.laid_out(x), self.laid_out(cos), self.laid_out(sin), **call)
        packed = np.ascontiguousarray(x.transpose(0, 2, 1, 3)).reshape(batch, length, -1)
        again = attn.rope(packed, cos, sin, heads=heads, **call).reshape(batch, length, heads, dim).transpose(0, 2, 1, 3)
        np.testing.assert_array_equal(np.asarray(again).astype("f8"), np.asarray(y).astype("f8"))
        x, cos, sin = (t.astype("f8").astype(np.longdouble) for t in (x, cos, sin))
        c, s = ((t[positions] if table else t)[:, None] for t in (cos, sin))
        first = (Ellipsis, slice(0, turned, 2) if interleaved else slice(turned // 2))
        second = (Ellipsis, slice(1, turned, 2) if interleaved else slice(turned // 2, turned))
        for got, way in ((y, 1), (dx, -1)):
            exact, size = x.copy(), np.zeros_like(x)
            exact[first], exact[second] = x[first] * c - way * s * x[second], way * s * x[first] + c * x[second]
            size[first] = np.abs(x[first] * c) + np.abs(x[second] * s)
            size[second] = np.abs(x[first] * s) + np.abs(x[second] * c)
            self.within(got, exact, 2 * UNIT[name] * size + rounding(name, exact), f"rope {name} {x.shape} {call}")

    def test_20_problems_of_rotary_positions(self):
        for problem in range(20):
            with self.subTest(problem=problem):
                self.rope_problem()

    def linear_attention_problem(self):
        name, rule, given = self.dtype(), self.choose("linear", "gated", "delta", "gated_delta"), self.chance(0.5)
        batch, kv_heads, group, dk, dv = (int(n) for n in self.rng.integers(1, 5, 5))
        length = int(self.choose(1, 5, 70))
        q, k, v = (self.normal(batch, h, length, d) for h, d in ((kv_heads * group, dk), (kv_heads, dk), (kv_heads, dv)))
        k /= np.linalg.norm(k, axis=-1, keepdims=True)
        options = {"past_state": self.normal(batch, kv_heads, dk, dv)} if given else {}
        if "gated" in rule:
            shape = (batch, kv_heads, length) + (dk,) * self.chance(0.5)
            options["decay"] = -0.2 * np.abs(self.normal(*shape))
        if "delta" in rule:
            options["beta"] = self.rng.random((batch, kv_heads, length))
        q, k, v = (self.cast(t, name) for t in (q, k, v))
        options = {key: self.cast(t, name) for key, t in options.items()}
        call = {key: self.laid_out(t) for key, t in options.items()} | {"rule": rule}
        scale = self.choose(None, 0.7)
        out, state = attn.linear_attention(*map(self.laid_out, (q, k, v)), scale=scale, **call)
        q, k, v = (t.astype("f8").astype(np.longdouble) for t in (q, k, v))
        o = {key: t.astype("f8").astype(np.longdouble) for key, t in options.items()}
        s = o.get("past_state", np.zeros((batch, kv_heads, dk, dv), np.longdouble))
        exact = np.zeros((batch, kv_heads * group, length, dv), np.longdouble)
        norm = np.sqrt((s**2).sum((-2, -1)))
        for t in range(length):
            w, beta, decay = v[:, :, t], 1, 1
            if "decay" in o:
                decay = np.exp(o["decay"][:, :, t].reshape(batch, kv_heads, -1))
                s = s * decay[..., None]
            if "beta" in o:
                beta = o["beta"][:, :, t, None]
                w = beta * (w - np.einsum("bhij,bhi->bhj", s, k[:, :, t]))
            norm = norm + np.linalg.norm(v[:, :, t].astype("f8"), axis=-1)
            s = s + k[:, :, t, :, None] * w[:, :, None]
            exact[:, :, t] = np.einsum("bhij,bhi->bhj", np.repeat(s, group, 1), q[:, :, t])
        scale = scale or dk**-0.5
        size = scale * np.repeat(norm, group, 1)[:, :, None, None] * np.sqrt((q**2).sum(-1, keepdims=True))
        what = f"linear attention {name} {rule} {q.shape} {v.shape} {list(options)}"
        self.within(out, scale * exact, 4 * UNIT[name] * 70 * size + rounding(name, scale * exact), what)
        self.within(state, s, 4 * UNIT[name] * 70 * norm[:, :, None, None] + rounding(name, s), what)

    def test_20_problems_of_linear_attention(self):
        for problem in range(20):
            with self.subTest(problem=problem):
                self.linear_attention_problem()

    def test_gradients_of_linear_attention_are_those_of_central_differences(self):
        q, k, v, dout = (self.normal(1, h, 5, d) for h, d in ((2, 3), (1, 3), (1, 4), (2, 4)))
        inputs = {"q": q, "k": k, "v": v, "decay": -np.abs(self.normal(1, 1, 5)), "beta": self.rng.random((1, 1, 5))}
        inputs["past_state"], dstate = self.normal(1, 1, 3, 4), self.normal(1, 1, 3, 4)

        def loss():
            out, state = attn.linear_attention(rule="gated_delta", **inputs)
            return (out * dout).sum() + (state * dstate).sum()

        grads = attn.linear_attention_backward(dout, rule="gated_delta", dstate=dstate, **inputs)
        for (name, x), got in zip(inputs.items(), grads):
            self.assertEqual(got.shape, x.shape)
            for i in np.ndindex(x.shape):
                before, h = x[i], 1e-6
                x[i] = before + h
                above = loss()
                x[i] = before - h
                self.assertAlmostEqual(got[i], (above - loss()) / (2 * h), 7, name)
                x[i] = before
        self.assertEqual(attn.linear_attention_backward(dout, q, k, v)[3:], (None, None, None))

    # ---- attention ----

    def attention_problem(self):
        rank = int(self.choose(2, 3, 4, 4))
        name = self.dtype()
        batch = int(self.choose(1, 2, 3)) if rank == 4 else 1
        k_heads = int(self.choose(1, 2)) if rank > 2 else 1
        v_heads = int(self.choose(1, 2)) if rank > 2 else 1
        heads = 2 * int(self.choose(1, 2)) if rank > 2 else 1
        q_len, kv_len = (int(n) for n in self.rng.integers(1, 40, 2))
        dim, v_dim = (int(n) for n in self.rng.integers(1, 20, 2))
        o = {
            "weighting": self.choose(
                *["softmax"] * 6, "sigmoid", "normalized-sum", "sparsemax", "entmax15", "entmax", "relu2", "hardmax"
            ),
            "score": self.choose(*["dot"] * 4, "additive", "cosine"),
        }
        q, k, v = (
            self.normal(batch, heads, q_len, dim),
            self.normal(batch, k_heads, kv_len, dim),
            self.normal(batch, v_heads, kv_len, v_dim),
        )
        plain = o["weighting"] == "normalized-sum"  # its bounds hold for scores of one sign
        if plain:
            q, k, o["score"] = np.abs(q) + 0.1, np.abs(k) + 0.1, "dot"
        if o["score"] == "additive":
            o["score_weight"] = self.cast(self.normal(*self.choose((dim,), (heads, dim))), self.choose(name, "float32"))
        if self.chance(0.2):
            o["scale"] = 0.3
        if not plain and self.chance(0.2):
            o["softcap"] = 3.0
        if self.chance(0.5):
            o["causal"] = self.choose(True, "bottom-right", "top-left")
        if o.get("causal") != "top-left" and self.chance(0.3):
            o["offset"] = self.choose(int(self.rng.integers(-5, 20)), self.rng.integers(-5, 20, batch))
        if self.chance(0.3):
            o["window"] = tuple(int(n) for n in self.rng.integers(-1, 12, 2))
        if self.chance(0.3):
            o["mask"] = self.rng.random(self.broadcast_shape((batch, heads, q_len, kv_len))) < 0.7
        if not plain and self.chance(0.3):
            s = self.broadcast_shape((batch, heads, q_len, kv_len))
            o["bias"] = self.cast(np.where(self.rng.random(s) < 0.1, -np.inf, self.normal(*s)), self.choose(name, "float32"))
        if not plain and self.chance(0.2):
            o["alibi"] = self.cast(self.rng.random(self.choose((heads,), (batch, heads))) * 0.3, self.choose(name, "float32"))
        if self.chance(0.3):
            o["kv_lengths"] = self.rng.integers(0, kv_len + 1, batch, dtype=self.choose("i4", "i8"))
        if self.chance(0.2):
            o["q_lengths"] = self.rng.integers(0, q_len + 1, batch, dtype=self.choose("i4", "i8"))
        if o["weighting"] == "softmax" and self.chance(0.2):
            o["sinks"] = self.cast(self.normal(heads), self.choose(name, "float32"))
        if o["weighting"] == "entmax":
            o["alpha"] = self.choose(None, 1.0, 1.25, float(self.rng.uniform(1.05, 2)), 2.0)
        if self.chance(0.15):
            o["dropout"], o["seed"] = float(self.choose(0.1, 0.5, 1)), int(self.rng.integers(0, 2**64, dtype=np.uint64))
        q, k, v = (self.cast(t, name) for t in (q, k, v))
        right = formulas.Attention(
            q, k, v, **{**o, "causal": {True: "bottom-right"}.get(o.get("causal"), o.get("causal", False))}
        )
        self.hold(q, k, v, o, right, rank, name)

    def hold(self, q, k, v, o, right, rank, name):
        words = f"{sorted(o)} {o['score']} {o['weighting']} causal {o.get('causal')}"
        what = f"attention {name} q {q.shape} k {k.shape} v {v.shape} {words}"
        given = {key: self.laid_out(value) if isinstance(value, np.ndarray) else value for key, value in o.items()}
        drop = (0,) * (4 - rank)
        arrays = [self.laid_out(t[drop]) for t in (q, k, v)]
        softmax, bare = o["weighting"] == "softmax", o["weighting"] in ("sigmoid", "normalized-sum", "relu2")
        see = ("received", "weights", "scores", "top") + (("lse",) if softmax else ()) + (() if bare else ("entropy",))
        top_k = 3
        out, seen = attn.attention(*arrays, **given, see=see, top_k=top_k)
        alone = attn.attention(*(np.ascontiguousarray(t) for t in arrays), **o)
        self.assertEqual(out.tobytes(), alone.tobytes(), "seeing or strides change bits: " + what)
        self.assertEqual((out.dtype, out.shape), (q.dtype, right.out[drop].shape), what)
        f64 = name == "float64"
        if o["weighting"] != "relu2" or not {"bias", "alibi", "softcap"} & set(o):  # squares of what cancels: see hold_out
            self.rms(out, right.out[drop], 1e-14 if f64 else 2e-6, name, "out of " + what)
        e = UNIT[name] * ((2 * q.shape[3] + 16) * right.magnitude + k.shape[2] + 32)
        if o["weighting"] != "normalized-sum":
            each = e * (1 + right.magnitude) ** 2 if o["weighting"] == "relu2" else e
            self.within(seen.weights, right.p[drop], each[drop][..., None], "weights of " + what)
            all_of_a_key = q.shape[2] * each.max(-1, initial=0)
            self.within(seen.received, right.p.sum(2)[drop], all_of_a_key[drop][..., None], "received of " + what)
            self.hold_out(out, right, each, o, drop, name, what)
        self.within(seen.scores, right.s[drop], e[drop][..., None], "scores of " + what)
        if softmax:
            lse = right.lse[drop]
            size = np.where(np.isfinite(lse), np.abs(lse), 0)
            self.within(seen.lse, lse, e[drop] + UNIT[name] * size, "lse of " + what)
        if not bare:
            bound = e * (2 + 2 * right.magnitude) if softmax else k.shape[2] * e * (1 - np.log(e))
            self.within(seen.entropy, right.entropy[drop], bound[drop], "entropy of " + what)
        self.hold_top(seen, right, drop, e, top_k, what)
        self.hold_gradients(q, k, v, o, given, arrays, right, drop, name, what)

    def hold_out(self, out, right, each, o, drop, name, what):
        """Of the weightings that have a bound for every element of out."""
        size = np.where(right.live[..., None], np.abs(right.v)[:, :, None], 0)
        if o["weighting"] == "softmax":
            size = size.max(3, initial=0)
        elif o["weighting"] in ("sigmoid", "relu2"):
            size = size.sum(3)
        else:
            return
        if o.get("dropout"):
            size = size / (1 - o["dropout"]) if o["dropout"] < 1 else 0 * size
        bound = each[..., None] * size + rounding(name, right.out)
        self.within(out, right.out[drop], bound[drop], "out of " + what)

    def hold_top(self, seen, right, drop, e, top_k, what):
        s, index, weight = right.s[drop], seen.top_index, seen.top_weight
        self.assertEqual(
            (index.dtype, index.shape, weight.shape), (np.int32, s.shape[:-1] + (top_k,), s.shape[:-1] + (top_k,)), what
        )
        live = (~np.isneginf(s)).sum(-1, keepdims=True)
        there = np.arange(top_k) < live
        self.assertTrue(np.all((index >= 0) == there), what)
        chosen = np.take_along_axis(s, np.where(there, index, 0), -1)
        best = -np.sort(-s, axis=-1)[..., :top_k]
        best = np.pad(best, [(0, 0)] * (s.ndim - 1) + [(0, top_k - best.shape[-1])], constant_values=-np.inf)
        with np.errstate(invalid="ignore"):
            self.assertTrue(np.all(~there | (best - chosen <= 2 * e[drop][..., None])), "top of " + what)
        picked = np.take_along_axis(np.asarray(seen.weights), np.where(there, index, 0), -1)
        np.testing.assert_array_equal(weight, np.where(there, picked, 0), what)

    def hold_gradients(self, q, k, v, o, given, arrays, right, drop, name, what):
        dout = self.normal(*right.out.shape)
        if o["weighting"] == "normalized-sum":
            dout = np.abs(dout)
        dout = self.cast(dout, name)
        dlse = None
        if o["weighting"] == "softmax" and self.chance(0.3):
            dlse = self.normal(*right.lse.shape).astype("f8" if name == "float64" else "f4")
        made = {}
        if o["weighting"] == "softmax" and name in ("float32", "float64") and self.chance(0.5):
            made["out"], seen = attn.attention(*arrays, **given, see="lse")
            made["lse"] = seen.lse
        if dlse is not None:
            made["dlse"] = self.laid_out(dlse[drop])
        grads = attn.attention_backward(self.laid_out(dout[drop]), *arrays, **given, **made)
        exact, sizes = right.backward(dout, dlse), right.backward_sizes(dout, dlse)
        for field, gradient in zip(grads._fields, grads):
            if field not in exact:
                self.assertIsNone(gradient, f"{field} of {what}")
                continue
            about = {"dq": q, "dk": k, "dv": v}.get(field, o.get({"dscore_weight": "score_weight"}.get(field, field[1:])))
            value = exact[field][drop] if field in ("dq", "dk", "dv") else exact[field]
            dtype_name = about.dtype.name if field != "dalpha" else "float64" if name == "float64" else "float32"
            self.assertEqual(gradient.dtype.name, dtype_name, f"{field} of {what}")
            f64 = name == dtype_name == "float64"
            cancelled = 8 * UNIT["float64" if f64 else "float32"] * np.sqrt((sizes[field] ** 2).sum())
            bound = (5e-14 if f64 else 5e-6) * (10 if field == "dalpha" else 1)
            self.rms(gradient, value, bound, dtype_name, f"{field} of {what}", cancelled)

    def test_300_problems_of_attention(self):
        for problem in range(300):
            with self.subTest(problem=problem):
                self.attention_problem()


if __name__ == "__main__":
    unittest.main()
