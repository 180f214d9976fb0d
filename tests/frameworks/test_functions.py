# SPDX-License-Identifier: Apache-2.0
"""attn.torch's other functions: their values are attn's, their derivatives those of differences, and compilers trace them."""

import subprocess
import sys
import unittest

from drop_in import BUILD, attn, missing, ours, torch

KINDS = ("softmax", "log_softmax", "softmin", "sparsemax", "entmax15", "entmax", "logsumexp", "gumbel_softmax")


def normal(*shape, **options):
    return torch.randn(*shape, dtype=torch.float64, **options)


def wanting(*shape):
    return normal(*shape, requires_grad=True)


@unittest.skipIf(missing, missing)
class Attention(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(11)
        self.q, self.k, self.v = wanting(1, 4, 3, 4), wanting(1, 2, 5, 4), wanting(1, 2, 5, 3)

    def check(self, *others, forward=False, **options):
        """Gradients to q, k, v and the named others."""
        names = [name for name, _ in others]

        def call(q, k, v, *values):
            return ours.attention(q, k, v, **dict(zip(names, values)), **options)

        inputs = (self.q, self.k, self.v, *(value for _, value in others))
        self.assertTrue(torch.autograd.gradcheck(call, inputs, check_forward_ad=forward), options)

    def test_gradients_with_every_option(self):
        bias = ("bias", wanting(4, 1, 5))
        self.check(bias, causal=True, offset=1, window=(2, 1), forward=True)
        self.check(("sinks", wanting(4)), softcap=2.0, scale=0.7)
        self.check(("alibi", wanting(4)), kv_lengths=4)
        self.check(mask=torch.rand(3, 5) < 0.7, dropout=0.3, seed=5, forward=True)
        self.check(("score_weight", wanting(4, 4)), score="additive")
        self.check(score="cosine", scale=3.0)
        self.check(block_mask=torch.tensor([[[[True, False, True], [True, True, False]]]]), block_size=2, forward=True)
        for weighting in ("sigmoid", "sparsemax", "entmax15", "relu2"):
            self.check(bias, weighting=weighting)
        self.check(("alpha", torch.tensor(1.4, dtype=torch.float64, requires_grad=True)), weighting="entmax")

    def test_gradients_of_a_packed_batch(self):
        self.q, self.k, self.v = wanting(7, 4, 4), wanting(7, 2, 4), wanting(7, 2, 3)
        self.check(q_starts=[0, 3, 7], causal=True)

    def test_what_is_seen_is_attns_and_lse_has_a_gradient(self):
        see = ("lse", "entropy", "received", "weights", "top", "pooled")
        out, seen = ours.attention(self.q, self.k, self.v, see=see, top_k=2, pooled_size=(2, 2))
        plain = [t.detach() for t in (self.q, self.k, self.v)]
        right, right_seen = attn.attention(*plain, see=see, top_k=2, pooled_size=(2, 2))
        self.assertTrue(torch.equal(out, right))
        for name in attn.Seen._fields:
            got, expected = getattr(seen, name), getattr(right_seen, name)
            self.assertTrue(got is expected is None or torch.equal(got, expected), name)
            self.assertEqual(got is not None and got.requires_grad, name == "lse", name)

        def lse(q, k, v):
            return ours.attention(q, k, v, see="lse", causal=True)[1].lse

        self.assertTrue(torch.autograd.gradcheck(lse, (self.q, self.k, self.v), check_forward_ad=True))

    def test_second_derivatives_through_out_and_lse(self):
        def both(q, k, v):
            out, seen = ours.attention(q, k, v, see="lse", softcap=3.0, mask=torch.ones(3, 5).tril() > 0)
            return out, seen.lse

        self.assertTrue(torch.autograd.gradgradcheck(both, (self.q, self.k, self.v)))

    def test_what_has_no_derivatives_says_so(self):
        bias = wanting(3, 5)
        out = ours.attention(self.q, self.k, self.v, bias=bias)
        (dq,) = torch.autograd.grad(out.sin().sum(), self.q, create_graph=True)
        with self.assertRaisesRegex(attn.Unsupported, "second derivatives of bias"):
            dq.square().sum().backward()
        weight = normal(4)
        with self.assertRaisesRegex(attn.Unsupported, "score_weight has a tangent"):
            torch.func.jvp(
                lambda w: ours.attention(self.q, self.k, self.v, score="additive", score_weight=w), (weight,), (weight,)
            )

    def test_transforms_of_torch_func(self):
        q, k, v = normal(3, 4, 4), normal(3, 5, 4), normal(3, 5, 2)

        def loss(q, k, v):
            return ours.attention(q, k, v, causal=True).sin().sum()

        def formula(q, k, v):
            live = torch.arange(5) <= torch.arange(4)[:, None] + 1
            return (torch.softmax((q @ k.mT / 2).masked_fill(~live, -torch.inf), -1) @ v).sin().sum()

        for transform in (torch.func.grad, torch.func.jacfwd, torch.func.jacrev, torch.func.hessian):
            if transform is torch.func.hessian:
                mine = torch.func.jacrev(torch.func.grad(loss))  # forward over reverse is not built
            else:
                mine = transform(loss)
            torch.testing.assert_close(mine(q, k, v), transform(formula)(q, k, v))
        each = torch.func.vmap(torch.func.grad(loss))(q, k, v)
        torch.testing.assert_close(each, torch.func.grad(formula)(q, k, v))

    def test_dropout_is_seeded_by_torchs_generator_and_repeats(self):
        torch.manual_seed(2)
        first = ours.attention(self.q, self.k, self.v, dropout=0.5)
        second = ours.attention(self.q, self.k, self.v, dropout=0.5)
        torch.manual_seed(2)
        self.assertTrue(torch.equal(first, ours.attention(self.q, self.k, self.v, dropout=0.5)))
        self.assertFalse(torch.equal(first, second))
        plain = [t.detach() for t in (self.q, self.k, self.v)]
        for seed in (0, 9, 2**63, 2**64 - 1):
            right = attn.attention(*plain, dropout=0.5, seed=seed)
            self.assertTrue(torch.equal(ours.attention(*plain, dropout=0.5, seed=seed), right), seed)
        with self.assertRaisesRegex(ValueError, "seed"):
            ours.attention(*plain, dropout=0.5, seed=2**64)


@unittest.skipIf(missing, missing)
class Softmax(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(12)

    def options(self, kind):
        if kind == "gumbel_softmax":
            return {"temperature": 0.7, "seed": 3}
        mask = torch.rand(3, 1, 5) < 0.8
        return {"scale": 0.8, "mask": mask} | ({"alpha": 1.3} if kind == "entmax" else {})

    def test_values_are_attns(self):
        x = torch.randn(3, 4, 5)
        for kind in KINDS:
            for axis in (-1, 0):
                options = self.options(kind)
                right = getattr(attn, kind)(x, axis=axis, **options)
                self.assertTrue(torch.equal(getattr(ours, kind)(x, axis=axis, **options), right), kind)

    def test_derivatives_of_first_and_second_order_and_in_forward_mode(self):
        for kind in KINDS:
            options = self.options(kind)
            function = getattr(ours, kind)

            def call(x, *bias):
                y = function(x, axis=1, **options, **({"bias": bias[0]} if bias else {}))
                return torch.where(torch.isneginf(y), 0, y)  # of masked entries

            inputs = (wanting(3, 4, 5),) + (() if kind == "gumbel_softmax" else (wanting(4, 5),))
            self.assertTrue(torch.autograd.gradcheck(call, inputs, check_forward_ad=True), kind)
            self.assertTrue(torch.autograd.gradgradcheck(call, inputs), kind)

    def test_alpha_has_a_gradient(self):
        alpha = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
        self.assertTrue(torch.autograd.gradcheck(lambda x, a: ours.entmax(x, a), (wanting(3, 6), alpha)))

    def test_hard_gumbel_has_the_gradient_of_the_soft_one(self):
        x, dy = wanting(3, 6), normal(3, 6)
        hard = ours.gumbel_softmax(x, hard=True, seed=4)
        self.assertEqual(hard.sum(-1).tolist(), [1.0] * 3)
        soft = ours.gumbel_softmax(x, seed=4)
        torch.testing.assert_close(torch.autograd.grad(hard, x, dy), torch.autograd.grad(soft, x, dy))

    def test_rows_without_live_entries_pass_no_gradient(self):
        x = torch.randn(2, 4, requires_grad=True)
        mask = torch.tensor([[True], [False]])
        for kind in ("softmax", "log_softmax", "sparsemax", "logsumexp"):
            y = getattr(ours, kind)(x, mask=mask)
            dx = torch.autograd.grad(torch.where(torch.isneginf(y), 0, y).square().sum(), x)[0]
            self.assertEqual(dx[1].tolist(), [0.0] * 4, kind)
            self.assertTrue(torch.isfinite(dx).all(), kind)


@unittest.skipIf(missing, missing)
class Losses(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(13)
        self.labels = torch.tensor([0, 2, -100, 1, 3])

    def test_cross_entropy_is_torchs(self):
        logits, weight = wanting(5, 4), torch.rand(4, dtype=torch.float64)
        soft = torch.rand(5, 4, dtype=torch.float64)
        for reduction in ("mean", "sum", "none"):
            for labels, options in (
                (self.labels, {"weight": weight, "label_smoothing": 0.1}),
                (soft, {"label_smoothing": 0.2}),
            ):
                right = torch.nn.functional.cross_entropy(logits, labels, reduction=reduction, **options)
                loss = ours.cross_entropy(logits, labels, reduction=reduction, **options)
                torch.testing.assert_close(loss, right)
                dloss = torch.rand_like(loss)
                torch.testing.assert_close(torch.autograd.grad(loss, logits, dloss), torch.autograd.grad(right, logits, dloss))

    def test_linear_cross_entropy_is_the_loss_of_a_linear_layer(self):
        inputs = wanting(5, 3), wanting(4, 3), wanting(4)
        for reduction in ("mean", "sum", "none"):
            x, weight, bias = inputs
            right = torch.nn.functional.cross_entropy(x @ weight.mT + bias, self.labels, reduction=reduction)
            loss = ours.linear_cross_entropy(x, weight, self.labels, bias=bias, reduction=reduction)
            torch.testing.assert_close(loss, right)
            dloss = torch.rand_like(loss)
            grads, rights = (torch.autograd.grad(each, inputs, dloss, retain_graph=True) for each in (loss, right))
            torch.testing.assert_close(grads, rights)

    def test_a_second_derivative_of_a_loss_says_that_it_is_not_built(self):
        logits = wanting(5, 4)
        (dlogits,) = torch.autograd.grad(ours.cross_entropy(logits, self.labels) ** 2, logits, create_graph=True)
        with self.assertRaisesRegex(attn.Unsupported, "gradient of a loss"):
            dlogits.sum().backward()
        with self.assertRaisesRegex(attn.Unsupported, "labels"):
            ours.cross_entropy(logits, wanting(5, 4))


@unittest.skipIf(missing, missing)
class Compiled(unittest.TestCase):
    """torch.compile(fullgraph=True), which a function that is not traced whole would break."""

    def setUp(self):
        torch.manual_seed(14)
        torch._dynamo.reset()

    def check(self, function, *inputs, backend="aot_eager", dynamic=None):
        compiled = torch.compile(function, fullgraph=True, backend=backend, dynamic=dynamic)
        results = []
        for call in (function, compiled):
            fresh = [t.detach().clone().requires_grad_(t.requires_grad) for t in inputs]
            y = call(*fresh)
            wanted = [t for t in fresh if t.requires_grad]
            results.append((y.detach(), *torch.autograd.grad(y.sin().sum(), wanted)))
        torch.testing.assert_close(results[1], results[0])

    def test_attention_and_its_gradients(self):
        x = torch.randn(2, 3, 6, 4, requires_grad=True)
        bias = torch.randn(3, 6, 6, requires_grad=True)
        call = ours.scaled_dot_product_attention
        for dynamic in (False, True):
            self.check(lambda x, bias: call(2 * x, x, x, bias).mT, x, bias, dynamic=dynamic)
        self.check(lambda x: call(x, x[:, :1], x[:, :1], is_causal=True, enable_gqa=True) + 1, x)
        self.check(lambda x: call(x, x, x, torch.ones(6, 6) > 0), x)

    def test_what_is_seen(self):
        x = torch.randn(2, 3, 6, 4, requires_grad=True)

        def look(x):
            see = ("lse", "entropy", "received", "weights", "scores", "top", "pooled")
            out, seen = ours.attention(
                x, x, x, see=see, top_k=2, see_rows=[1, 4], see_heads=2, pooled_size=(2, 3), window=(2, 0), offset=0
            )
            sums = [each.double().sum().reshape(1) for each in seen[1:]]
            return torch.cat([out.flatten().double(), seen.lse.flatten().double(), *sums])

        self.check(look, x)

    def test_dropout_draws_new_seeds(self):
        x = torch.randn(1, 1, 8, 4)
        compiled = torch.compile(
            lambda x: ours.scaled_dot_product_attention(x, x, x, dropout_p=0.5), fullgraph=True, backend="aot_eager"
        )
        self.assertFalse(torch.equal(compiled(x), compiled(x)))

    def test_under_the_patch(self):
        x = torch.randn(1, 2, 5, 4, requires_grad=True)
        with ours.patch():
            self.check(lambda x: torch.nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True), x)

    def test_the_softmax_family_and_losses(self):
        x = torch.randn(5, 4, requires_grad=True)
        for kind in KINDS:
            options = {"seed": 1} if kind == "gumbel_softmax" else {"scale": 0.5, "mask": torch.rand(5, 4) < 0.9}
            self.check(lambda x: getattr(ours, kind)(x, axis=-1, **options), x)
        labels = torch.tensor([0, 1, 2, -100, 3])
        weight, bias = torch.randn(4, 4, requires_grad=True), torch.randn(4, requires_grad=True)
        for reduction in ("mean", "none"):
            self.check(lambda x: ours.cross_entropy(x, labels, reduction=reduction), x)
            self.check(lambda x, w, b: ours.linear_cross_entropy(x, w, labels, bias=b, reduction=reduction), x, weight, bias)

    def test_operators_are_what_they_claim(self):
        x = torch.randn(1, 2, 3, 4, requires_grad=True)
        from attn.torch._sdpa import _PLAIN

        none = (None,) * 5
        torch.library.opcheck(torch.ops.attn.attention.default, (x, x, x, *none, *_PLAIN._replace(see=["lse"])))
        flat = x.detach()[0, 0].requires_grad_()
        torch.library.opcheck(
            torch.ops.attn.softmax.default, (flat, None, None, None, None, "softmax", -1, 1.0, 1.0, False)
        )
        torch.library.opcheck(torch.ops.attn.logsumexp.default, (flat, None, None, 0, 1.0))
        labels = torch.tensor([0, 1, 2])
        torch.library.opcheck(torch.ops.attn.cross_entropy.default, (flat, labels, None, -100, 0.0, 0.0, "mean", True))

    @unittest.skipUnless(__import__("shutil").which("g++"), "inductor needs a C++ compiler")
    def test_by_inductor(self):
        x = torch.randn(1, 2, 5, 4, requires_grad=True)
        self.check(lambda x: ours.scaled_dot_product_attention(x * 2, x, x).relu(), x, backend="inductor")


@unittest.skipIf(missing, missing)
class Threads(unittest.TestCase):
    def run_in_a_process(self, code, **environment):
        prelude = f"import sys; sys.path.insert(0, {str(BUILD / 'python')!r}); import torch, attn, attn.torch\n"
        prelude += "x = torch.ones(3); torch.set_num_threads(1)\n"
        done = subprocess.run(
            [sys.executable, "-c", prelude + code], env=dict(__import__("os").environ, **environment), capture_output=True, text=True
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.split()

    def test_calls_follow_torchs_number_of_threads(self):
        code = "for n in (1, 2, 1): torch.set_num_threads(n); attn.torch.softmax(x); print(attn.get_threads())"
        self.assertEqual(self.run_in_a_process(code), ["1", "2", "1"])

    def test_unless_the_user_chose(self):
        code = "attn.set_threads(2); attn.torch.softmax(x); print(attn.get_threads())"
        self.assertEqual(self.run_in_a_process(code), ["2"])
        self.assertEqual(self.run_in_a_process("attn.torch.softmax(x); print(attn.get_threads())", ATTN_THREADS="2"), ["2"])
