# SPDX-License-Identifier: Apache-2.0
"""Tensors of other libraries, lent through DLPack: torch in, torch out, without a copy. JAX where it can be imported."""

import gc
import unittest

from package import attn, missing, np, torch

try:
    import jax
except ImportError:
    jax = None


def resident():
    """Pages of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])


@unittest.skipIf(missing, missing)
@unittest.skipUnless(torch, "torch is not importable")
class Torch(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        self.x = torch.randn(2, 3, 4, 5)

    def test_torch_in_torch_out(self):
        for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
            x = self.x.to(dtype)
            y = attn.softmax(x, 1)
            self.assertEqual((type(y), y.dtype, y.shape, y.device.type), (torch.Tensor, dtype, x.shape, "cpu"))
            torch.testing.assert_close(y, torch.softmax(x.double(), 1).to(dtype))

    def test_every_function_gives_tensors(self):
        x, flat = self.x, self.x[0, 0]
        y = attn.softmax(x)
        see = ("lse", "entropy", "received", "weights", "scores", "top", "pooled")
        out, seen = attn.attention(x, x, x, see=see, top_k=2, see_rows=torch.tensor([1]), pooled_size=(2, 2))
        results = [
            out,
            *seen,
            *attn.attention_backward(out, x, x, x)[:3],
            attn.logsumexp(x),
            attn.softmax_backward(x, y),
            attn.logsumexp_backward(x[..., 0], x),
            attn.gate(x, x),
            *attn.gate_backward(x, x, x),
            attn.attention_received(x, x, x, by=x[0, :1, :, 0]),
            *attn.merge((x, x), (x[..., 0], x[..., 0])),
            attn.rope(x[0], x[0, ..., :1], x[0, ..., 1:2], rotary_dim=2, heads=1),
            attn.rope_backward(x[0], x[0, ..., :1], x[0, ..., 1:2], rotary_dim=2, heads=1),
            *attn.linear_attention(x, x, x),
            *attn.linear_attention_backward(out, x, x, x)[:3],
            *attn.cross_entropy(flat, torch.tensor([0, 1, -100, 2]), grad=True),
        ]
        self.assertTrue(all(type(r) is torch.Tensor for r in results))
        self.assertEqual(seen.top_index.dtype, torch.int32)
        torch.testing.assert_close(results[-2], torch.nn.functional.cross_entropy(flat, torch.tensor([0, 1, -100, 2])))

    def test_scalars_are_tensors_of_rank_0(self):
        loss = attn.cross_entropy(self.x[0, 0], torch.tensor([0, 1, 2, 3]))
        self.assertEqual((type(loss), loss.shape), (torch.Tensor, ()))
        self.assertEqual(attn.logsumexp(self.x[0, 0, 0]).shape, ())

    def test_strides_and_offsets_are_read_in_place(self):
        for x in (self.x.transpose(1, 3), self.x[:, 1:, ::2], self.x[:1].expand(4, 3, 4, 5), self.x[:0]):
            self.assertTrue(torch.equal(attn.softmax(x, 2), attn.softmax(x.contiguous(), 2)))

    def test_out_is_written_without_a_copy(self):
        out = torch.zeros(2, 3, 4, 10)[..., 1::2]
        self.assertIs(attn.softmax(self.x, out=out), out)
        self.assertTrue(torch.equal(out, attn.softmax(self.x)))
        x = self.x.bfloat16()
        self.assertIs(attn.softmax(x, out=x), x)
        torch.testing.assert_close(x, torch.softmax(self.x.bfloat16().float(), -1).bfloat16())
        with self.assertRaisesRegex(ValueError, "out overlaps x"):
            attn.softmax(self.x[0], out=self.x.view(-1)[1:61].view(3, 4, 5))

    def test_bool_masks_int_lengths_and_mixtures(self):
        mask = torch.rand(4, 4) < 0.7
        ours = attn.attention(self.x, self.x, self.x, mask=mask, kv_lengths=torch.tensor([3, 4]))
        theirs = attn.attention(self.x, self.x, self.x, mask=mask.numpy(), kv_lengths=[3, 4])
        self.assertTrue(torch.equal(ours, theirs))
        mixed = attn.gate(self.x.numpy(), self.x)
        self.assertIs(type(mixed), np.ndarray)

    def test_values_agree_with_numpy_bit_for_bit(self):
        ours = attn.attention(*[self.x] * 3, causal=True)
        self.assertEqual(ours.numpy().tobytes(), attn.attention(*[self.x.numpy()] * 3, causal=True).tobytes())

    def test_parameters_and_subclasses_are_torch_s(self):
        p = torch.nn.Parameter(self.x, requires_grad=False)
        self.assertIs(type(attn.softmax(p)), torch.Tensor)

    def test_a_tensor_that_wants_gradients_is_refused(self):
        x = self.x.clone().requires_grad_()
        with self.assertRaisesRegex(ValueError, "x cannot be read through DLPack: .*requires? grad"):
            attn.softmax(x)
        with self.assertRaisesRegex(ValueError, "out cannot be read"):
            attn.softmax(self.x, out=x)

    def test_what_is_not_on_the_cpu_or_not_dense_is_refused(self):
        with self.assertRaises(ValueError):
            attn.softmax(torch.empty(3, device="meta"))
        with self.assertRaises(ValueError):
            attn.softmax(self.x.to_sparse())
        with self.assertRaisesRegex(TypeError, "x has elements of 64 bits"):
            attn.softmax(torch.zeros(3, dtype=torch.complex64))
        with self.assertRaisesRegex(TypeError, "x is int64"):
            attn.softmax(torch.arange(3))

    def test_results_outlive_the_call_and_are_given_back(self):
        big = torch.zeros(1024, 1024)
        kept = attn.softmax(big)
        for _ in range(5):
            attn.softmax(big)
        gc.collect()
        before = resident()
        for _ in range(100):  # 4 MB each
            attn.attention(big[:512, :64], big[:512, :64], big[:512, :1024], see="weights")
            attn.softmax(big)
        gc.collect()
        self.assertLess(resident() - before, 10000, "pages")
        self.assertTrue(torch.all(kept == 1 / 1024))


@unittest.skipIf(missing, missing)
@unittest.skipUnless(jax, "JAX is not importable")
class Jax(unittest.TestCase):
    def test_jax_in_jax_out(self):
        for dtype in ("float32", "bfloat16", "float16"):
            x = jax.numpy.arange(12, dtype=dtype).reshape(3, 4)
            y = attn.softmax(x, 0)
            self.assertEqual((type(y), y.dtype), (type(x), x.dtype))
            np.testing.assert_allclose(np.asarray(y, "f4"), np.asarray(jax.nn.softmax(x.astype("float32"), 0)), rtol=2**-7)
        with self.assertRaisesRegex(ValueError, "immutable"):
            attn.softmax(x, out=y)


class Lender:
    """A library of its own: it lends, and has no from_dlpack."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self):
        return self.array.__dlpack__()

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


@unittest.skipIf(missing, missing)
class Others(unittest.TestCase):
    def test_what_only_lends_gets_numpy_arrays(self):
        x = np.arange(6.0).reshape(2, 3)
        y = attn.softmax(Lender(x))
        self.assertIs(type(y), np.ndarray)
        np.testing.assert_array_equal(y, attn.softmax(x))
        out = np.empty_like(x)
        lent = Lender(out)
        self.assertIs(attn.softmax(x, out=lent), lent)
        np.testing.assert_array_equal(out, y)

    def test_a_lender_that_fails_or_lies_is_refused(self):
        class Fails(Lender):
            def __dlpack__(self):
                raise BufferError("not today")

        class Lies(Lender):
            def __dlpack__(self):
                return "no capsule"

        with self.assertRaisesRegex(ValueError, "x cannot be read through DLPack: not today"):
            attn.softmax(Fails(None))
        with self.assertRaisesRegex(TypeError, "returns no DLPack capsule"):
            attn.softmax(Lies(None))


if __name__ == "__main__":
    unittest.main()
