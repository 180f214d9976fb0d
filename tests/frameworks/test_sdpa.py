# SPDX-License-Identifier: Apache-2.0
"""attn.torch.scaled_dot_product_attention against torch's own in float64: 500 random calls with their gradients, and the patch."""

import random
import unittest

from drop_in import bounds, hold, missing, ours, torch

CALLS = 500


def formula(q, k, v, mask, causal, scale, gqa):
    """torch's documented meaning, with rows that see no key 0."""
    if gqa:
        k = k.repeat_interleave(q.shape[-3] // k.shape[-3], -3)
        v = v.repeat_interleave(q.shape[-3] // v.shape[-3], -3)
    scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    dead = torch.isneginf(scores).all(-1, keepdim=True)
    weights = torch.softmax(scores.masked_fill(dead, 0), -1).masked_fill(dead, 0)
    return weights @ v


@unittest.skipIf(missing, missing)
class Sdpa(unittest.TestCase):
    def setUp(self):
        self.random = random.Random(7)
        torch.manual_seed(7)

    def laid_out(self, *shape, dtype):
        """A normal tensor with some layout: dense, axes exchanged, every second element, or of a larger one."""
        kind = self.random.randrange(4)
        if kind == 0 or len(shape) < 3:
            return torch.randn(shape, dtype=dtype)
        if kind == 1:
            return torch.randn(*shape[:-3], shape[-2], shape[-3], shape[-1], dtype=dtype).transpose(-3, -2)
        if kind == 2:
            return torch.randn(*shape[:-1], 2 * shape[-1], dtype=dtype)[..., ::2]
        return torch.randn(*shape[:-2], shape[-2] + 3, shape[-1] + 1, dtype=dtype)[..., 2:-1, 1:]

    def mask_for(self, lead, rows, keys, dtype):
        """A mask that broadcasts: bool or float, some rows without keys; and whether it wants a gradient."""
        r = self.random
        shape = [r.choice((1, n)) for n in lead] + [r.choice((1, rows)), r.choice((1, keys))]
        shape = shape[r.randrange(len(lead) + 1) :]
        if r.random() < 0.5:
            return torch.rand(shape) < 0.8, False
        mask = torch.randn(shape, dtype=dtype).masked_fill(torch.rand(shape) < 0.2, -torch.inf)
        return mask, r.random() < 0.5

    def one_call(self, number):
        r = self.random
        dtype = r.choice((torch.float32, torch.float32, torch.float64, torch.float16, torch.bfloat16))
        lead = [r.randint(1, 3) for _ in range(r.choice((0, 1, 2, 2, 2, 3)))]
        rows, keys, dim, v_dim = r.randint(1, 40), r.randint(1, 40), r.randint(1, 40), r.randint(1, 40)
        gqa = bool(lead) and r.random() < 0.3
        k_lead = list(lead)
        if gqa:
            groups = r.choice((1, 2, 3))
            lead[-1], k_lead[-1] = lead[-1] * groups, lead[-1]
        elif lead and r.random() < 0.2:
            k_lead[r.randrange(len(lead))] = 1  # broadcasts
        q = self.laid_out(*lead, rows, dim, dtype=dtype)
        k = self.laid_out(*k_lead, keys, dim, dtype=dtype)
        v = self.laid_out(*k_lead, keys, v_dim, dtype=dtype)
        causal = r.random() < 0.3
        mask, wants = (None, False) if causal or r.random() < 0.4 else self.mask_for(lead, rows, keys, dtype)
        scale = r.choice((None, None, 0.3))
        what = f"call {number}: {dtype} q {tuple(q.shape)} k {tuple(k.shape)} v_dim {v_dim} mask {None if mask is None else (mask.dtype, tuple(mask.shape))} causal {causal} gqa {gqa}"
        inputs = [q, k, v] + ([mask] if wants else [])
        exact_inputs = [t.double().requires_grad_() for t in inputs]
        own_inputs = [t.requires_grad_() for t in inputs]
        exact_mask = exact_inputs[3] if wants else mask if mask is None or mask.dtype == torch.bool else mask.double()
        exact = formula(*exact_inputs[:3], exact_mask, causal, scale, gqa)
        out = ours.scaled_dot_product_attention(q, k, v, mask, is_causal=causal, scale=scale, enable_gqa=gqa)
        self.assertEqual(out.dtype, dtype, what)
        hold(self, out, exact, bounds(dtype)[0], what)
        dout = torch.randn_like(out)
        exact_grads = torch.autograd.grad(exact, exact_inputs, dout.double())
        grads = torch.autograd.grad(out, own_inputs, dout)
        for name, gradient, right in zip(("dq", "dk", "dv", "dmask"), grads, exact_grads):
            self.assertEqual(gradient.dtype, dtype, what)
            terms = out.numel() // v_dim * keys / gradient.numel() if name == "dmask" else 1
            hold(self, gradient, right, bounds(dtype)[1], f"{name} of {what}", terms)

    def test_500_random_calls_and_their_gradients(self):
        for number in range(CALLS):
            self.one_call(number)

    def test_torch_itself_agrees_with_the_formula(self):
        for causal in (False, True):
            q, k, v = (torch.randn(2, 3, n, 8, dtype=torch.float64) for n in (5, 7, 7))
            mask = None if causal else torch.rand(5, 7) < 0.5
            right = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, is_causal=causal)
            torch.testing.assert_close(formula(q, k, v, mask, causal, None, False), right)
            torch.testing.assert_close(ours.scaled_dot_product_attention(q, k, v, mask, is_causal=causal), right)

    def test_gradients_are_those_of_differences_twice_and_in_forward_mode(self):
        q, k, v = (torch.randn(1, 2, 4, 3, dtype=torch.float64, requires_grad=True) for _ in range(3))
        bias = torch.randn(2, 4, 4, dtype=torch.float64, requires_grad=True)
        live = torch.rand(4, 4) < 0.7

        def with_bias(q, k, v, bias):
            return ours.scaled_dot_product_attention(q, k, v, bias)

        def masked(q, k, v):
            return ours.scaled_dot_product_attention(q, k, v, live)

        def causal(q, k, v):
            return ours.scaled_dot_product_attention(q, k, v, is_causal=True)

        self.assertTrue(torch.autograd.gradcheck(with_bias, (q, k, v, bias), check_forward_ad=True))
        for function in (masked, causal):
            self.assertTrue(torch.autograd.gradcheck(function, (q, k, v), check_forward_ad=True))
            self.assertTrue(torch.autograd.gradgradcheck(function, (q, k, v)))

    def test_dropout_has_torchs_distribution_and_seed(self):
        q, k = torch.randn(1, 1, 1, 4), torch.randn(1, 1, 4000, 4)
        v = torch.ones(1, 1, 4000, 1)
        torch.manual_seed(1)
        first = ours.scaled_dot_product_attention(q * 0, k, v, dropout_p=0.25)
        self.assertLess(abs(first.item() - 1), 5 * (0.25 / 0.75 / 4000) ** 0.5)
        second = ours.scaled_dot_product_attention(q * 0, k, v, dropout_p=0.25)
        self.assertNotEqual(first.item(), second.item())
        torch.manual_seed(1)
        self.assertEqual(first.item(), ours.scaled_dot_product_attention(q * 0, k, v, dropout_p=0.25).item())
        self.assertEqual(ours.scaled_dot_product_attention(q, k, v, dropout_p=1.0).abs().sum().item(), 0)

    def test_autocast_computes_in_its_dtype_as_torchs_own_does(self):
        q = torch.randn(1, 2, 5, 8, requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16):
            right = torch.nn.functional.scaled_dot_product_attention(q, q, q)
            out = ours.scaled_dot_product_attention(q, q, q)
        self.assertEqual((out.dtype, right.dtype), (torch.bfloat16, torch.bfloat16))
        torch.testing.assert_close(out, right, atol=2**-7, rtol=2**-7)
        out.float().sum().backward()
        self.assertEqual(q.grad.dtype, torch.float32)

    def test_what_torch_refuses_is_refused_in_words(self):
        q = torch.randn(2, 3, 4, 5)
        call = ours.scaled_dot_product_attention
        for error, words, arguments in (
            (ValueError, "rank", (q[0, 0, 0], q, q)),
            (ValueError, "head size", (q, q[..., :3], q)),
            (ValueError, "dtype|is f64", (q, q.double(), q)),
            (RuntimeError, "is_causal", (q, q, q, torch.ones(4, 4) > 0, 0.0, True)),
            (ValueError, "dropout", (q, q, q, None, 1.5)),
            ((TypeError, ValueError), "q is|int64", (q.long(), q.long(), q.long())),
        ):
            with self.assertRaisesRegex(error, words):
                call(*arguments)
        with self.assertRaisesRegex(ValueError, "heads"):
            call(q, q[:, :2], q[:, :2], enable_gqa=True)

    def test_empty_lengths_give_what_torch_gives(self):
        q = torch.randn(2, 3, 4, 5)
        for keys, rows in ((0, 4), (4, 0)):
            right = torch.nn.functional.scaled_dot_product_attention(q[:, :, :rows], q[:, :, :keys], q[:, :, :keys])
            out = ours.scaled_dot_product_attention(q[:, :, :rows], q[:, :, :keys], q[:, :, :keys])
            torch.testing.assert_close(out, right.nan_to_num())


@unittest.skipIf(missing, missing)
class Patch(unittest.TestCase):
    def setUp(self):
        self.own = torch.nn.functional.scaled_dot_product_attention

    def tearDown(self):
        self.assertIs(torch.nn.functional.scaled_dot_product_attention, self.own)

    def test_the_patch_is_used_and_undone(self):
        with ours.patch():
            self.assertIsNot(torch.nn.functional.scaled_dot_product_attention, self.own)
            module = torch.nn.MultiheadAttention(8, 2, batch_first=True)
            x = torch.randn(2, 5, 8)
            patched = module(x, x, x, need_weights=False)[0]
        torch.testing.assert_close(patched, module(x, x, x, need_weights=False)[0])

    def test_patches_nest_and_may_be_undone_in_any_order(self):
        first, second = ours.patch(), ours.patch()
        with ours.patch():
            first.undo()
            first.undo()
        self.assertIsNot(torch.nn.functional.scaled_dot_product_attention, self.own)
        second.undo()

    def test_what_is_not_ours_goes_to_torch(self):
        class Kept(torch.Tensor):
            pass

        with ours.patch():
            patched = torch.nn.functional.scaled_dot_product_attention
            meta = torch.empty(1, 1, 2, 4, device="meta")
            self.assertEqual(patched(meta, meta, meta).device.type, "meta")
            kept = torch.randn(1, 1, 2, 4).as_subclass(Kept)
            self.assertIsInstance(patched(kept, kept, kept), Kept)

    def test_a_function_kept_from_a_patch_is_torchs_own_after_it(self):
        with ours.patch():
            kept = torch.nn.functional.scaled_dot_product_attention
        x = torch.randn(1, 1, 3, 4)
        self.assertTrue(torch.equal(kept(x, x, x), self.own(x, x, x)))

    def test_training_under_the_patch_is_training_without_it(self):
        def train(steps):
            torch.manual_seed(3)
            layer = torch.nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True).double()
            optimizer = torch.optim.AdamW(layer.parameters(), 1e-2)
            x = torch.randn(4, 6, 16, dtype=torch.float64)
            for _ in range(steps):
                optimizer.zero_grad()
                loss = (layer(x) - x.flip(1)).square().mean()
                loss.backward()
                optimizer.step()
            return loss.item()

        right = train(5)
        with ours.patch():
            self.assertAlmostEqual(train(5), right, places=12)
