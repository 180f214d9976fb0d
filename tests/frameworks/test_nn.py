# SPDX-License-Identifier: Apache-2.0
"""attn.nn's layers against torch's and against formulas, attn.torch.gate, and the table of attn.bench."""

import os
import subprocess
import sys
import unittest

from drop_in import BUILD, attn, missing, ours, torch

if not missing:
    import attn.nn as layers


def normal(*shape, **options):
    return torch.randn(*shape, dtype=torch.float64, **options)


def gradients_hold(case, module, *inputs, **options):
    """Of the inputs and of every parameter, against finite differences."""
    names, parameters = zip(*module.named_parameters())

    def call(*values):
        changed = dict(zip(names, values[len(inputs) :]))
        return torch.func.functional_call(module, changed, values[: len(inputs)], options)

    case.assertTrue(torch.autograd.gradcheck(call, (*inputs, *parameters)))


def compiles_whole(case, module, *inputs, **options):
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    results = []
    for call in (module, compiled):
        module.zero_grad()
        y = call(*inputs, **options)
        y.sin().sum().backward()
        results.append((y.detach(), {name: p.grad.clone() for name, p in module.named_parameters()}))
    torch.testing.assert_close(results[1], results[0])


def loads_its_state(case, module, other, *inputs):
    case.assertFalse(torch.equal(module(*inputs), other(*inputs)))
    other.load_state_dict(module.state_dict())
    case.assertTrue(torch.equal(module(*inputs), other(*inputs)))


@unittest.skipIf(missing, missing)
class MultiheadAttention(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(21)
        self.x = normal(2, 5, 12)

    def of_torch(self, **options):
        """torch's layer in float64, its biases not zero, and ours made of it."""
        module = torch.nn.MultiheadAttention(12, 3, batch_first=True, dtype=torch.float64, **options)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.normal_(std=0.4)
        return module, layers.MultiheadAttention.from_torch(module)

    def test_equals_torchs(self):
        for options in ({}, {"bias": False}):
            module, mine = self.of_torch(**options)
            right, _ = module(self.x, self.x, self.x, need_weights=False)
            torch.testing.assert_close(mine(self.x), right)
            causal = torch.ones(5, 5, dtype=torch.bool).triu(1)  # torch's masks say what is hidden
            right, _ = module(self.x, self.x, self.x, attn_mask=causal, is_causal=True, need_weights=False)
            torch.testing.assert_close(mine(self.x, causal=True), right)
            hidden = torch.rand(5, 5) < 0.4
            hidden[:, 0] = False
            right, _ = module(self.x, self.x, self.x, attn_mask=hidden, need_weights=False)
            torch.testing.assert_close(mine(self.x, mask=~hidden), right)
            padding = torch.arange(5)[None] >= torch.tensor([[5], [3]])
            right, _ = module(self.x, self.x, self.x, key_padding_mask=padding, need_weights=False)
            torch.testing.assert_close(mine(self.x, kv_lengths=[5, 3]), right)
            bias = normal(5, 5)
            right, _ = module(self.x, self.x, self.x, attn_mask=bias, need_weights=False)
            torch.testing.assert_close(mine(self.x, bias=bias), right)

    def test_a_context_of_another_size(self):
        module, mine = self.of_torch(kdim=7, vdim=7)
        context = normal(2, 9, 7)
        right, weights = module(self.x, context, context, average_attn_weights=False)
        out, seen = mine(self.x, context, see="weights")
        torch.testing.assert_close(out, right)
        torch.testing.assert_close(seen.weights, weights)

    def test_sees_the_weights_of_torchs_heads(self):
        module, mine = self.of_torch()
        _, weights = module(self.x, self.x, self.x, average_attn_weights=False)
        out, seen = mine(self.x, see=("weights", "entropy", "received", "top"), top_k=2)
        self.assertTrue(torch.equal(out, mine(self.x)))
        torch.testing.assert_close(seen.weights, weights)
        torch.testing.assert_close(seen.received, weights.sum(-2))
        torch.testing.assert_close(seen.entropy, -(weights * weights.log()).sum(-1))
        torch.testing.assert_close(seen.top_weight, weights.topk(2).values)
        self.assertEqual(seen.top_index.tolist(), weights.topk(2).indices.tolist())

    def test_keeps_the_mode_and_drops_only_in_training(self):
        module, _ = self.of_torch(dropout=0.5)
        mine = layers.MultiheadAttention.from_torch(module.eval())
        self.assertFalse(mine.training)
        torch.testing.assert_close(mine(self.x), module(self.x, self.x, self.x)[0])
        mine.train()
        self.assertFalse(torch.equal(mine(self.x), mine(self.x)))

    def test_what_is_not_built_says_so(self):
        for options in ({"add_bias_kv": True}, {"add_zero_attn": True}, {"kdim": 7, "vdim": 6}):
            with self.assertRaises(NotImplementedError):
                layers.MultiheadAttention.from_torch(torch.nn.MultiheadAttention(12, 3, **options))
        with self.assertRaisesRegex(ValueError, "no multiple"):
            layers.MultiheadAttention(10, 3)
        with self.assertRaisesRegex(ValueError, "does not divide"):
            layers.MultiheadAttention(12, 3, kv_heads=2)

    def test_grouped_heads_are_repeated_ones(self):
        mine = layers.MultiheadAttention(12, 4, kv_heads=2, head_dim=5, sinks=True, window=(2, 0), softcap=3.0).double()
        mine.sinks.data.normal_()
        whole = layers.MultiheadAttention(12, 4, head_dim=5, sinks=True, window=(2, 0), softcap=3.0).double()
        state = mine.state_dict()
        for name in ("key.weight", "key.bias", "value.weight", "value.bias"):
            heads = state[name].unflatten(0, (2, 5))
            state[name] = heads.repeat_interleave(2, 0).flatten(0, 1)
        whole.load_state_dict(state)
        torch.testing.assert_close(mine(self.x), whole(self.x))

    def test_gradients(self):
        _, mine = self.of_torch()
        x = self.x[:1, :3].clone().requires_grad_()
        gradients_hold(self, mine, x, causal=True)
        grouped = layers.MultiheadAttention(12, 2, kv_heads=1, kv_dim=4, head_dim=3, sinks=True).double()
        gradients_hold(self, grouped, x, normal(1, 4, 4, requires_grad=True))

    def test_state_and_compilation(self):
        options = {"kv_heads": 1, "head_dim": 4, "sinks": True}
        mine, other = (layers.MultiheadAttention(12, 2, **options).double() for _ in range(2))
        loads_its_state(self, mine, other, self.x)
        compiles_whole(self, mine, self.x, causal=True)


@unittest.skipIf(missing, missing)
class GatedAttention(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(22)
        self.x = normal(2, 5, 6)

    def test_is_attention_behind_a_gate(self):
        gates = {
            "sigmoid": lambda y, g: y * torch.sigmoid(g),
            "additive": lambda y, g: y + g * y,
            "multiplicative": lambda y, g: y * g,
        }
        for kind, formula in gates.items():
            mine = layers.GatedAttention(6, 2, gate=kind, weighting="sparsemax").double()
            plain = layers.MultiheadAttention(6, 2, weighting="sparsemax").double()
            shared = {name: value for name, value in mine.state_dict().items() if not name.startswith("gates.")}
            plain.load_state_dict(shared)
            plain.out = torch.nn.Identity()
            right = mine.out(formula(plain(self.x, causal=True), mine.gates(self.x)))
            torch.testing.assert_close(mine(self.x, causal=True), right)
            out, seen = mine(self.x, causal=True, see="weights")
            self.assertTrue(torch.equal(out, mine(self.x, causal=True)))
            torch.testing.assert_close(seen.weights.sum(-1), torch.ones_like(seen.weights[..., 0]))

    def test_gradients_state_and_compilation(self):
        mine, other = (layers.GatedAttention(6, 2).double() for _ in range(2))
        gradients_hold(self, mine, normal(1, 3, 6, requires_grad=True))
        loads_its_state(self, mine, other, self.x)
        compiles_whole(self, mine, self.x)


@unittest.skipIf(missing, missing)
class AdditiveAttention(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(23)
        self.layer = layers.AdditiveAttention(4, 3, 7).double()
        self.query, self.keys, self.values = normal(2, 5, 4), normal(2, 6, 3), normal(2, 6, 2)

    def weights(self, live):
        hidden = torch.tanh(self.layer.query(self.query)[:, :, None] + self.layer.key(self.keys)[:, None])
        return torch.softmax((hidden @ self.layer.score).masked_fill(~live, -torch.inf), -1)

    def test_is_bahdanaus_formula(self):
        live = torch.arange(6) < torch.tensor([6, 4])[:, None, None]
        weights = self.weights(live)
        for values in (self.values, None):
            right = weights @ (self.keys if values is None else values)
            out, seen = self.layer(self.query, self.keys, values, kv_lengths=[6, 4], see=("weights", "received"))
            torch.testing.assert_close(out, right)
            torch.testing.assert_close(seen.weights, weights[:, None])
            torch.testing.assert_close(seen.received, weights.sum(-2)[:, None])
            self.assertTrue(torch.equal(out, self.layer(self.query, self.keys, values, kv_lengths=[6, 4])))

    def test_gradients_state_and_compilation(self):
        inputs = normal(1, 2, 4, requires_grad=True), normal(1, 3, 3, requires_grad=True), normal(1, 3, 2, requires_grad=True)
        gradients_hold(self, self.layer, *inputs)
        other = layers.AdditiveAttention(4, 3, 7).double()
        loads_its_state(self, self.layer, other, self.query, self.keys, self.values)
        compiles_whole(self, self.layer, self.query, self.keys, self.values)

    def test_drops_only_in_training(self):
        layer = layers.AdditiveAttention(4, 3, dropout=0.5).double()
        self.assertFalse(torch.equal(layer(self.query, self.keys), layer(self.query, self.keys)))
        layer.eval()
        self.assertTrue(torch.equal(layer(self.query, self.keys), layer(self.query, self.keys)))


@unittest.skipIf(missing, missing)
class Gate(unittest.TestCase):
    def test_values_and_derivatives_of_every_order_and_mode(self):
        torch.manual_seed(24)
        for kind in ("sigmoid", "additive", "multiplicative"):

            def call(x, g):
                return ours.gate(x, g, kind)

            plain = torch.randn(3, 5), torch.randn(3, 5)
            self.assertTrue(torch.equal(call(*plain), attn.gate(*plain, kind)), kind)
            inputs = normal(3, 4, requires_grad=True), normal(3, 4, requires_grad=True)
            self.assertTrue(torch.equal(call(*inputs), attn.gate(*(each.detach() for each in inputs), kind)), kind)
            self.assertTrue(torch.autograd.gradcheck(call, inputs, check_forward_ad=True), kind)
            self.assertTrue(torch.autograd.gradgradcheck(call, inputs), kind)
            each = torch.func.vmap(torch.func.grad(lambda x, g: call(x, g).sin().sum()))(*inputs)
            torch.testing.assert_close(each, torch.autograd.grad(call(*inputs).sin().sum(), inputs[0])[0])
            torch._dynamo.reset()
            compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
            torch.testing.assert_close(compiled(*inputs), call(*inputs))


@unittest.skipIf(missing, missing)
class Bench(unittest.TestCase):
    def run_bench(self, *arguments):
        environment = {**os.environ, "PYTHONPATH": str(BUILD / "python")}
        command = [sys.executable, "-m", "attn.bench", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)

    def test_prints_a_table(self):
        done = self.run_bench("--threads", "1", "--seconds", "0.01", "one row")
        self.assertEqual(done.returncode, 0, done.stderr)
        first, _, header, _, row = done.stdout.splitlines()
        self.assertEqual(first, f"attn {attn.__version__} ({attn.info()['isa']}) beside torch {torch.__version__}, threads 1")
        self.assertIn("torch / attn", header)
        self.assertRegex(row, r"^\| one row of 8, the cost of a call +\| +[\d.]+ [um]s \| +[\d.]+ [um]s \| +[\d.]+ \|$")

    def test_refuses_nonsense(self):
        self.assertEqual(self.run_bench("--seconds", "0").returncode, 2)
