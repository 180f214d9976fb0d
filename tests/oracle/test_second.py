# SPDX-License-Identifier: Apache-2.0
"""Forward mode and second derivatives against torch in float64: its autograd through a formula, twice, and torch.func.jvp."""

import importlib.util
import os
import pathlib
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("ATTN_BUILD", ROOT / "build"))
sys.path[:0] = [str(BUILD / "python")]

missing = next(
    (
        name
        for name in ("numpy", "torch", "attn._core")
        if not ((BUILD / "python/attn/_core.abi3.so").exists() if name == "attn._core" else importlib.util.find_spec(name))
    ),
    None,
)
if not missing:
    import attn
    import numpy as np
    import torch

PROBLEMS = 60


def scores_of(q, k, o):
    """The scores as they enter the softmax, -inf where masked."""
    k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
    s = o["scale"] * q @ k.mT
    if o["softcap"]:
        s = o["softcap"] * torch.tanh(s / o["softcap"])
    if o["bias"] is not None:
        s = s + o["bias"]
    if o["slopes"] is not None:
        s = s - o["slopes"][:, None, None] * o["distance"]
    return s.masked_fill(~o["live"], -torch.inf)


def forward(q, k, v, o):
    """out and lse; rows that see no key are 0, and their lse that of the sink or -inf."""
    s = scores_of(q, k, o)
    if o["sinks"] is not None:
        s = torch.cat([s, o["sinks"][:, None, None].expand(*s.shape[:3], 1)], -1)
    sees = (s > -torch.inf).any(-1)
    s = torch.where(sees[..., None], s, 0.0)
    p = torch.where(sees[..., None], s.softmax(-1), 0.0)[..., : k.shape[2]]
    lse = torch.where(sees, s.logsumexp(-1), 0.0)
    return p @ v.repeat_interleave(q.shape[1] // v.shape[1], 1), lse


@unittest.skipIf(missing, f"{missing} is not there")
class Second(unittest.TestCase):
    def setUp(self):
        self.rng = np.random.default_rng(20261127)

    def chance(self, p):
        return self.rng.random() < p

    def normal(self, *shape):
        return torch.from_numpy(self.rng.standard_normal(shape))

    def problem(self):
        """q, k, v, the options for the formula, and the same for attn."""
        r = self.rng.integers
        b, h, n, m, d, e = r(1, 3), 4, r(1, 40), r(1, 160), r(1, 20), r(1, 20)
        q, k, v = self.normal(b, h, n, d), self.normal(b, int(r(1, 3)), m, d), self.normal(b, int(r(1, 3)), m, e)
        distance = torch.arange(n)[:, None] + m - n - torch.arange(m)
        live = torch.ones(b, h, n, m, dtype=torch.bool)
        o = {"scale": float(d) ** -0.5, "softcap": 0, "bias": None, "slopes": None, "sinks": None, "distance": distance.abs()}
        given = {}
        if self.chance(0.5):
            given["causal"] = True
            live &= distance >= 0
        if self.chance(0.4):
            given["window"] = (int(r(0, 30)), int(r(-1, 30)))
            live &= distance <= given["window"][0]
            if given["window"][1] >= 0:
                live &= -distance <= given["window"][1]
        if self.chance(0.4):
            mask = torch.from_numpy(self.rng.random((b, 1, n, m)) < 0.7)
            given["mask"] = mask.numpy()
            live &= mask
        if self.chance(0.4):
            o["bias"] = self.normal(1, h, n, m)
            given["bias"] = o["bias"].numpy()
        if self.chance(0.3):
            o["slopes"] = self.normal(h).abs() / 8
            given["alibi"] = o["slopes"].numpy()
        if self.chance(0.3):
            o["sinks"] = self.normal(h)
            given["sinks"] = o["sinks"].numpy()
        if self.chance(0.4):
            o["softcap"] = given["softcap"] = 1.5
        if self.chance(0.3):
            o["scale"] = given["scale"] = 0.7
        o["live"] = live
        return q, k, v, o, given

    def close(self, got, exact, what):
        got, exact = np.asarray(got), exact.detach().numpy()
        self.assertEqual(got.shape, exact.shape, what)
        np.testing.assert_allclose(got, exact, rtol=1e-10, atol=1e-11 * max(1, np.abs(exact).max(initial=0)), err_msg=what)

    def test_attention_s_tangents_are_torch_s(self):
        for n in range(PROBLEMS):
            q, k, v, o, given = self.problem()
            directions = [self.normal(*x.shape) for x in (q, k, v)]
            bias = o["bias"] if o["bias"] is not None else torch.zeros(())
            dbias = self.normal(*bias.shape) if o["bias"] is not None else torch.zeros(())

            def moved(q, k, v, bias, o=o):
                return forward(q, k, v, {**o, "bias": bias})

            (out, lse), (dout, dlse) = torch.func.jvp(moved, (q, k, v, bias), (*directions, dbias))
            named = dict(zip(("dq", "dk", "dv"), (x.numpy() for x in directions)))
            if o["bias"] is not None:
                named["dbias"] = dbias.numpy()
            got = attn.attention_jvp(q.numpy(), k.numpy(), v.numpy(), **given, **named)
            with self.subTest(problem=n, given=sorted(given)):
                self.close(got.out, out, "out")
                self.close(np.where(np.isneginf(got.lse), 0, got.lse), lse, "lse")
                self.close(got.dout, dout, "dout")
                self.close(got.dlse, dlse, "dlse")

    def test_attention_s_double_backward_is_torch_s(self):
        for n in range(PROBLEMS):
            q, k, v, o, given = self.problem()
            inputs = [x.clone().requires_grad_() for x in (q, k, v)]
            out, lse = forward(*inputs, o)
            dout, dlse = self.normal(*out.shape).requires_grad_(), self.normal(*lse.shape).requires_grad_()
            grads = torch.autograd.grad((out, lse), inputs, (dout, dlse), create_graph=True)
            cotangents = [self.normal(*x.shape) for x in (q, k, v)]
            asked = [*inputs, dout, dlse]
            exact = torch.autograd.grad(grads, asked, cotangents, allow_unused=True)
            exact = [torch.zeros_like(x) if e is None else e for x, e in zip(asked, exact)]
            got = attn.attention_double_backward(
                dout.detach().numpy(),
                *(x.numpy() for x in (q, k, v)),
                **given,
                dlse=dlse.detach().numpy(),
                **dict(zip(("ddq", "ddk", "ddv"), (x.numpy() for x in cotangents))),
            )
            with self.subTest(problem=n, given=sorted(given)):
                for name, x, e in zip(got._fields, got, exact):
                    self.close(x, e, name)

    def test_the_softmax_family_s_tangents_are_torch_s(self):
        for shape, axis in (((7,), 0), ((3, 40), -1), ((5, 6, 33), 1)):
            x, dx = self.normal(*shape), self.normal(*shape)
            for ours, back, theirs, sign in (
                (attn.softmax, attn.softmax_jvp, torch.softmax, 1),
                (attn.log_softmax, attn.log_softmax_jvp, torch.log_softmax, 1),
                (attn.softmin, attn.softmin_jvp, torch.softmax, -1),
            ):
                y, dy = torch.func.jvp(lambda x: theirs(sign * 0.6 * x, axis), (x,), (dx,))
                self.close(ours(x.numpy(), axis, scale=0.6), y, ours.__name__)
                self.close(back(dx.numpy(), y.numpy(), axis, scale=0.6), dy, back.__name__)
            y, dy = torch.func.jvp(lambda x: torch.logsumexp(0.6 * x, axis), (x,), (dx,))
            self.close(attn.logsumexp_jvp(dx.numpy(), x.numpy(), axis, scale=0.6), dy, "logsumexp_jvp")


if __name__ == "__main__":
    unittest.main()
