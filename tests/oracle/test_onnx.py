# SPDX-License-Identifier: Apache-2.0
"""Conformance with ONNX: the cases that the onnx package's own backend test makes for operators that we have.

Every case has to pass within rtol 1e-3 and atol 1e-7 (bfloat16: two units in the last place, for the expected values are rounded
to it at every step). Norms go through the C library; Hardmax is a weighting of attention, and NegativeLogLikelihoodLoss the
cross-entropy less the row's logsumexp. Not ours are the preview's FlexAttention, whose scores are changed by subgraphs of a model,
and the cases "..._expanded", which say an operator in many others.
"""

import ctypes
import importlib.util
import os
import pathlib
import sys
import unittest
import warnings

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("ATTN_BUILD", ROOT / "build"))
sys.path[:0] = [str(BUILD / "python")]

missing = next(
    (
        name
        for name in ("numpy", "onnx", "attn._core", "ml_dtypes")
        if not ((BUILD / "python/attn/_core.abi3.so").exists() if name == "attn._core" else importlib.util.find_spec(name))
    ),
    None,
)
if not missing:
    import attn
    import numpy as np
    import onnx
    from onnx.backend.test.case.node import collect_testcases

RTOL, ATOL = 1e-3, 1e-7


# ---- our words for ONNX's ----------------------------------------------------------------------------------------


def rows_of(x, axis):
    """x as [n, classes], and the way back for arrays [n]."""
    moved = np.moveaxis(x, axis, -1)
    return moved.reshape(-1, moved.shape[-1]), moved.shape[:-1]


def softmax(function, inputs, axis=-1):
    return [function(inputs[0], axis)]


def hardmax_weights(inputs, axis=-1):
    """One query 1 for each row, whose keys are the row's numbers: the weights of attention with the weighting hardmax."""
    rows, shape = rows_of(inputs[0], axis)
    keys = rows[:, :, None]
    _, seen = attn.attention(np.ones((len(rows), 1, 1), rows.dtype), keys, keys, scale=1.0, weighting="hardmax", see="weights")
    return [np.moveaxis(seen.weights.reshape(shape + (-1,)), -1, axis)]


def softmax_cross_entropy(inputs, reduction=b"mean", ignore_index=-100):
    scores, labels, weight = (list(inputs) + [None])[:3]
    logits, shape = rows_of(scores, 1)
    loss = attn.cross_entropy(logits, labels.reshape(-1), weight=weight, ignore_index=ignore_index, reduction=reduction.decode())
    log_prob = np.moveaxis(attn.log_softmax(logits).reshape(shape + (-1,)), -1, 1)
    return [loss.reshape(shape) if reduction == b"none" else loss, log_prob]


def negative_log_likelihood(inputs, reduction=b"mean", ignore_index=-100):
    """Of any numbers, log-probabilities or not: cross-entropy takes their logsumexp off, which is put back."""
    scores, labels, weight = (list(inputs) + [None])[:3]
    logits, shape = rows_of(scores, 1)
    labels = labels.reshape(-1)
    counts = labels != ignore_index
    weights = np.where(counts, 1 if weight is None else weight[np.where(counts, labels, 0)], 0).astype(logits.dtype)
    losses = attn.cross_entropy(logits, labels, weight=weight, ignore_index=ignore_index, reduction="none")
    losses = losses - weights * attn.logsumexp(logits)
    if reduction == b"none":
        return [losses.reshape(shape)]
    return [losses.sum() if reduction == b"sum" else losses.sum() / weights.sum()]


def layer_norm(inputs, axis=-1, epsilon=1e-5, stash_type=1):
    x = inputs[0]
    y, mean, rstd = norm(0, x, axis, epsilon, inputs[1], inputs[2] if len(inputs) > 2 else None)
    shape = x.shape[: axis % x.ndim] + (1,) * (x.ndim - axis % x.ndim)
    return [y, mean.reshape(shape), rstd.reshape(shape)]


def rms_norm(inputs, axis=-1, epsilon=1e-5, stash_type=1):
    return [norm(1, inputs[0], axis, epsilon, inputs[1], None)[0]]


def heads_apart(x, heads):
    """[batch, length, heads * dim] as [batch, heads, length, dim], without a copy."""
    return x.reshape(x.shape[0], x.shape[1], heads, -1).transpose(0, 2, 1, 3) if x.ndim == 3 else x


def padded(mask, kv_len):
    """A mask may be shorter than the keys: what is beyond is masked."""
    beyond = [(0, 0)] * (mask.ndim - 1) + [(0, kv_len - mask.shape[-1])]
    return np.pad(mask, beyond, constant_values=False if mask.dtype == bool else -np.inf)


def attention(
    inputs,
    q_num_heads=None,
    kv_num_heads=None,
    scale=None,
    softcap=0.0,
    is_causal=0,
    qk_matmul_output_mode=0,
    left_window_size=-1,
    right_window_size=-1,
    softmax_precision=None,
):
    q, k, v, mask, past_k, past_v, lengths = (list(inputs) + [None] * 4)[:7]
    packed = q.ndim == 3
    q, k, v = heads_apart(q, q_num_heads), heads_apart(k, kv_num_heads), heads_apart(v, kv_num_heads)
    if past_k is not None:
        k, v = np.concatenate([past_k, k], 2), np.concatenate([past_v, v], 2)
    options = {"scale": scale, "softcap": softcap, "causal": bool(is_causal), "window": (left_window_size, right_window_size)}
    options["offset"] = past_k.shape[2] if past_k is not None else 0 if lengths is None else lengths - q.shape[2]
    if lengths is not None:
        options["kv_lengths"] = lengths
    if mask is not None:
        options["mask" if mask.dtype == bool else "bias"] = padded(mask, k.shape[2])
    see, stage = [("scores", "raw"), ("scores", "capped"), ("scores", "weighted"), ("weights", "weighted")][qk_matmul_output_mode]
    out, seen = attn.attention(q, k, v, **options, see=see, scores_stage=stage)
    if packed:
        out = out.transpose(0, 2, 1, 3).reshape(out.shape[0], out.shape[2], -1)
    return [out, k, v, getattr(seen, see)]


def rotary_embedding(inputs, interleaved=0, rotary_embedding_dim=0, num_heads=0):
    return [attn.rope(*inputs, interleaved=interleaved, rotary_dim=rotary_embedding_dim, heads=num_heads)]


def linear_attention(inputs, q_num_heads, kv_num_heads, scale=0.0, update_rule=b"gated_delta", chunk_size=64):
    q, k, v, past, decay, beta = (list(inputs) + [None] * 3)[:6]
    q, k, v = heads_apart(q, q_num_heads), heads_apart(k, kv_num_heads), heads_apart(v, kv_num_heads)
    if decay is not None:
        decay = heads_apart(decay, kv_num_heads)
        decay = decay[..., 0] if decay.shape[-1] == 1 else decay
    if beta is not None:
        beta = np.broadcast_to(beta.transpose(0, 2, 1), k.shape[:3])
    options = {"rule": update_rule.decode(), "decay": decay, "beta": beta, "past_state": past, "scale": scale or None}
    out, state = attn.linear_attention(q, k, v, **options)
    return [out.transpose(0, 2, 1, 3).reshape(out.shape[0], out.shape[2], -1), state]


# ---- norms, through the C library ---------------------------------------------------------------------------------


class Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("dtype", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("shape", ctypes.c_int64 * 6),
        ("stride", ctypes.c_int64 * 6),
    ]


class NormArgs(ctypes.Structure):
    _fields_ = (
        [("kind", ctypes.c_int32), ("flags", ctypes.c_uint32)]
        + [(n, Tensor) for n in ("x", "y", "weight", "bias", "mean", "rstd")]
        + [("epsilon", ctypes.c_double), ("reserved", ctypes.c_uint64 * 16)]
    )


def tensor(array):
    if array is None:
        return Tensor()
    array_shape, strides = array.shape, [s // array.itemsize for s in array.strides]
    return Tensor(array.ctypes.data, 0, array.ndim, (ctypes.c_int64 * 6)(*array_shape), (ctypes.c_int64 * 6)(*strides))


def norm(kind, x, axis, epsilon, weight, bias):
    """attn_norm over all axes from `axis` on, of float32."""
    axis %= x.ndim
    rows = np.ascontiguousarray(x).reshape(int(np.prod(x.shape[:axis])), -1)
    y, mean, rstd = np.empty_like(rows), np.empty(len(rows), "f4"), np.empty(len(rows), "f4")
    weight, bias = (
        None if t is None else np.ascontiguousarray(np.broadcast_to(t, x.shape[axis:])).reshape(-1) for t in (weight, bias)
    )
    library = ctypes.CDLL(str(BUILD / "libattn.so"))
    library.attn_last_error.restype = ctypes.c_char_p
    args = NormArgs(
        kind=kind,
        x=tensor(rows),
        y=tensor(y),
        weight=tensor(weight),
        bias=tensor(bias),
        rstd=tensor(rstd),
        epsilon=epsilon,
        mean=tensor(mean if kind == 0 else None),
    )
    if library.attn_norm(ctypes.byref(args), None):
        raise AssertionError(library.attn_last_error().decode())
    return y.reshape(x.shape), mean, rstd


OPERATORS = {
    "Attention": attention,
    "Softmax": lambda inputs, **options: softmax(attn.softmax, inputs, **options),
    "LogSoftmax": lambda inputs, **options: softmax(attn.log_softmax, inputs, **options),
    "Hardmax": hardmax_weights,
    "SoftmaxCrossEntropyLoss": softmax_cross_entropy,
    "NegativeLogLikelihoodLoss": negative_log_likelihood,
    "LayerNormalization": layer_norm,
    "RMSNormalization": rms_norm,
    "RotaryEmbedding": rotary_embedding,
    "LinearAttention": linear_attention,
}


@unittest.skipIf(missing, f"{missing} is not importable")
class Onnx(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cls.cases = [
                case
                for case in collect_testcases(None)
                if len(case.model.graph.node) == 1 and case.model.graph.node[0].op_type in OPERATORS
            ]

    def inputs_of(self, node, given):
        """As the node names them: an absent one is None."""
        given = iter(given)
        return [next(given) if name else None for name in node.input]

    def close(self, got, expected, name):
        self.assertEqual(np.shape(got), expected.shape, name)
        rtol = 2.0**-6 if expected.dtype.name == "bfloat16" else RTOL
        np.testing.assert_allclose(np.asarray(got).astype("f8"), expected.astype("f8"), rtol=rtol, atol=ATOL, err_msg=name)

    def run_case(self, case):
        node = case.model.graph.node[0]
        options = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        for given, expected in case.data_sets:
            results = OPERATORS[node.op_type](self.inputs_of(node, given), **options)
            wanted = iter(expected)
            for output, result in zip(node.output, results):
                if output:
                    self.close(result, next(wanted), f"{case.name}: {output}")

    def test_cases(self):
        passed = dict.fromkeys(OPERATORS, 0)
        for case in self.cases:
            with self.subTest(case=case.name):
                self.run_case(case)
                passed[case.model.graph.node[0].op_type] += 1
        print(f"onnx {onnx.__version__}: {sum(passed.values())} cases passed:", ", ".join(f"{k} {n}" for k, n in passed.items()))
        self.assertGreaterEqual(sum(passed.values()), 226)


if __name__ == "__main__":
    unittest.main()
