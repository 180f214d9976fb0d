# SPDX-License-Identifier: Apache-2.0
"""What bench/peers.py measures: one problem, as `attn bench` writes it, made ready for the library and for whichever of numpy, torch,
onnxruntime and entmax can be imported. Everybody gets the same numbers, in the same dtype, and writes the same result.

A contestant is a function without arguments that returns its results. Its name begins with its library's.
"""

import dataclasses
import random
import re
import typing

import attn
import numpy as np

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    torch = None
try:
    import onnx.helper
    import onnxruntime
except ImportError:
    onnxruntime = None
try:
    import entmax
except ImportError:
    entmax = None


@dataclasses.dataclass
class Contest:
    contestants: dict
    threads: int
    # which part of a result is defined for all: what lies behind the end of a padded sequence is not
    defined: typing.Callable = lambda result: result


class Problem:
    """kind, sizes by letter and words of a text such as attention:b1h32k8q2048s2048d128,f32,causal."""

    def __init__(self, text):
        self.text = text
        self.kind, rest = text.split(":")
        sizes, *words = rest.split(",")
        self.size = {letter: int(n) for letter, n in re.findall(r"([a-z])(\d+)", sizes)}
        self.dtype = next((w for w in words if w in ("f32", "f16", "bf16")), "f32")
        self.words = set(words) - {self.dtype}
        self.random = np.random.default_rng(0)

    def __contains__(self, word):
        return word in self.words

    def number(self, word):
        return next((int(w[len(word) :]) for w in self.words if re.fullmatch(word + r"\d+", w)), 0)

    def array(self, *shape, scale=1.0):
        x = self.random.standard_normal(shape, dtype=np.float32) * np.float32(scale)
        if self.dtype == "bf16":
            import ml_dtypes

            return x.astype(ml_dtypes.bfloat16)
        return x.astype({"f32": np.float32, "f16": np.float16}[self.dtype])


def torch_of(x, gradient=False):
    """The same elements as a tensor of torch."""
    x = torch.from_numpy(x.view(np.int16)).view(torch.bfloat16) if x.dtype.name == "bfloat16" else torch.from_numpy(x)
    return x.detach().clone().requires_grad_() if gradient else x


def quiet(call):
    """Without gradients."""

    def run():
        with torch.no_grad():
            return call()

    return run


def onnx_call(threads, node, feeds, output, opset=23):
    """A node of ONNX, run in place: inputs and the output are bound once."""
    tensor = onnx.TensorProto
    kinds = {"float32": tensor.FLOAT, "float16": tensor.FLOAT16, "bfloat16": tensor.BFLOAT16, "int32": tensor.INT32}
    infos = [onnx.helper.make_tensor_value_info(name, kinds[x.dtype.name], x.shape) for name, x in feeds.items()]
    results = [onnx.helper.make_tensor_value_info(name, kinds[x.dtype.name], x.shape) for name, x in output.items()]
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", infos, results),
        opset_imports=[onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid("com.microsoft", 1)],
        ir_version=11,
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(x) for name, x in (feeds | output).items()}
    for name in feeds:
        binding.bind_ortvalue_input(name, values[name])
    for name in output:
        binding.bind_ortvalue_output(name, values[name])
    first = next(iter(output))

    def run():
        session.run_with_iobinding(binding)
        return values[first].numpy()

    return run


# ---- attention -----------------------------------------------------------------------------------------------------------------


def attention_sizes(p):
    b, h, q, s, d = (p.size.get(letter, 1) for letter in "bhqsd")
    return b, h, p.size.get("k", h), q, s, d


def attention_options(p):
    """Of attn.attention."""
    options = {"causal": "causal" in p}
    if window := p.number("window"):
        options["window"] = (window - 1, 0)
    if "padded" in p:
        options["q_lengths"] = options["kv_lengths"] = padded_lengths(p)
    return options


def padded_lengths(p):
    drawn = random.Random(1)
    return np.array([drawn.randint(32, p.size["s"]) for _ in range(p.size["b"])])


def numpy_attention(p, q, k, v):
    b, h, groups, n, s, d = attention_sizes(p)
    out, scale = np.empty_like(q), np.float32(d**-0.5)
    hidden = np.triu(np.ones((n, s), bool), s - n + 1) if "causal" in p else None

    def run():
        for i in range(b):
            for j in range(h):
                scores = (q[i, j] * scale) @ k[i, j * groups // h].T
                if hidden is not None:
                    scores[hidden] = -np.inf
                weights = np.exp(scores - scores.max(-1, keepdims=True))
                out[i, j] = weights @ v[i, j * groups // h] / weights.sum(-1, keepdims=True)
        return [out]

    return run


def torch_attention(p, q, k, v, lengths):
    b, h, groups, n, s, d = attention_sizes(p)
    q, k, v = map(torch_of, (q, k, v))
    causal, window, sdpa = "causal" in p, p.number("window"), F.scaled_dot_product_attention
    if lengths is not None:
        mask = (torch.arange(s)[None] < torch.tensor(lengths)[:, None])[:, None, None, :]

        def loop():
            out = torch.zeros_like(q)
            for i, m in enumerate(lengths):
                out[i : i + 1, :, :m] = sdpa(q[i : i + 1, :, :m], k[i : i + 1, :, :m], v[i : i + 1, :, :m])
            return [out]

        return {"torch mask": quiet(lambda: [sdpa(q, k, v, attn_mask=mask)]), "torch loop": quiet(loop)}
    if window:
        return {"torch chunks": quiet(lambda: [windowed_chunks(q, k, v, window)]), "torch flex": torch_flex(q, k, v, window)}
    if "see" in p:

        def seen():
            weights = torch.softmax((q * d**-0.5) @ k.transpose(-1, -2), -1)
            return [weights @ v, torch.special.entr(weights).sum(-1), weights.sum(-2)]

        return {"torch matmul": quiet(seen)}
    if n == 1 and groups != h:
        rows = q.view(b, groups, h // groups, d)  # heads that share keys as rows of one problem
        return {"torch rows": quiet(lambda: [sdpa(rows, k, v).view(b, h, 1, d)])}
    return {"torch sdpa": quiet(lambda: [sdpa(q, k, v, is_causal=causal, enable_gqa=groups != h)])}


def windowed_chunks(q, k, v, window):
    """Local attention by hand: blocks of `window` queries on the keys that one of them sees."""
    out, s = [], q.shape[2]
    for begin in range(0, s, window):
        first, end = max(0, begin - window + 1), begin + window
        i, j = torch.arange(begin, end)[:, None], torch.arange(first, end)[None]
        seen = (i >= j) & (i - j < window)
        out.append(F.scaled_dot_product_attention(q[:, :, begin:end], k[:, :, first:end], v[:, :, first:end], attn_mask=seen))
    return torch.cat(out, 2)


def torch_flex(q, k, v, window):
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    s = q.shape[2]
    blocks = create_block_mask(lambda b, h, i, j: (i >= j) & (i - j < window), 1, 1, s, s, device="cpu", BLOCK_SIZE=64)
    compiled = torch.compile(flex_attention, dynamic=False)
    return quiet(lambda: [compiled(q, k, v, block_mask=blocks)])


def onnx_attention(p, threads, q, k, v):
    b, h, groups, n, s, d = attention_sizes(p)
    beside, make = lambda x: np.ascontiguousarray(x.transpose(0, 2, 1, 3)).reshape(b, x.shape[2], -1), onnx.helper.make_node
    feeds = {"q": beside(q), "k": beside(k), "v": beside(v)}
    back = lambda y: [y.reshape(b, n, h, d).transpose(0, 2, 1, 3)]
    if "causal" in p:  # the only fused one that knows groups; it is always causal
        feeds |= {"last": np.full(b, s - 1, np.int32), "total": np.array([s], np.int32)}
        node = make(
            "GroupQueryAttention",
            ["q", "k", "v", "", "", "last", "total"],
            ["y", "pk", "pv"],
            domain="com.microsoft",
            num_heads=h,
            kv_num_heads=groups,
        )
        cache = np.zeros((b, groups, s, d), q.dtype)
        run = onnx_call(threads, node, feeds, {"y": np.zeros((b, n, h * d), q.dtype), "pk": cache, "pv": cache.copy()})
        return {"onnxruntime gqa": lambda: back(run())}
    if n == 1:
        run = onnx_call(threads, make("Attention", ["q", "k", "v"], ["y"]), {"q": q, "k": k, "v": v}, {"y": np.zeros_like(q)})
        return {"onnxruntime attention": lambda: [run()]}
    node = make("MultiHeadAttention", ["q", "k", "v"], ["y"], domain="com.microsoft", num_heads=h)
    run = onnx_call(threads, node, feeds, {"y": np.zeros((b, n, h * d), q.dtype)})
    return {"onnxruntime mha": lambda: back(run())}


def attention_train(p, q, k, v, options):
    dout = p.array(*q.shape)

    def ours():
        out, seen = attn.attention(q, k, v, see=("lse",), **options)
        grads = attn.attention_backward(dout, q, k, v, out=out, lse=seen.lse, **options)
        return [out, grads.dq, grads.dk, grads.dv]

    contestants = {"attn": ours}
    if torch:
        leaves, dout_ = [torch_of(x, gradient=True) for x in (q, k, v)], torch_of(dout)

        def theirs():
            out = F.scaled_dot_product_attention(*leaves, is_causal="causal" in p, enable_gqa=q.shape[1] != k.shape[1])
            return [out, *torch.autograd.grad(out, leaves, dout_)]

        contestants["torch sdpa"] = theirs
    return contestants


def attention(p, threads):
    b, h, groups, n, s, d = attention_sizes(p)
    q, k, v = p.array(b, h, n, d), p.array(b, groups, s, d), p.array(b, groups, s, d)
    options, out = attention_options(p), np.empty_like(q)
    lengths = options.get("kv_lengths")
    if "train" in p:
        return Contest(attention_train(p, q, k, v, options), threads)
    if "see" in p:

        def seen():
            result, see = attn.attention(q, k, v, see=("entropy", "received"), **options)
            return [result, see.entropy, see.received]

        contestants = {"attn": seen}
    else:
        contestants = {"attn": lambda: [attn.attention(q, k, v, out=out, **options)]}
    plain = not ({"see", "padded"} & p.words or p.number("window"))
    if plain and p.dtype == "f32" and n * s * h * b <= 1 << 28:
        contestants["numpy"] = numpy_attention(p, q, k, v)
    if torch:
        contestants |= torch_attention(p, q, k, v, lengths)
    if onnxruntime and plain and p.dtype != "bf16":
        contestants |= onnx_attention(p, threads, q, k, v)
    live = np.ones(q.shape, bool)
    if lengths is not None:
        live &= (np.arange(n)[None] < lengths[:, None])[:, None, :, None]
    return Contest(contestants, threads, lambda result: [result[0][live], *result[1:]])


def additive(p, threads):
    b, n, s, d = (p.size[letter] for letter in "bqsd")
    q, k, v, w = p.array(b, 1, n, d), p.array(b, 1, s, d), p.array(b, 1, s, d), p.array(d, scale=1 / 16)
    dout = p.array(b, 1, n, d)
    options = {"score": "additive", "score_weight": w, "scale": 1.0}

    def forward():
        return [attn.attention(q, k, v, **options)]

    def train():
        out, seen = attn.attention(q, k, v, see=("lse",), **options)
        grads = attn.attention_backward(dout, q, k, v, out=out, lse=seen.lse, **options)
        return [out, grads.dq, grads.dk, grads.dv, grads.dscore_weight]

    contestants = {"attn": train if "train" in p else forward}
    if torch:
        leaves = [torch_of(x, gradient="train" in p) for x in (q, k, v, w)]

        def theirs():
            q, k, v, w = leaves
            out = torch.softmax((torch.tanh(q[:, :, :, None] + k[:, :, None]) * w).sum(-1), -1) @ v
            return [out, *(torch.autograd.grad(out, leaves, torch_of(dout)) if "train" in p else ())]

        contestants["torch"] = theirs if "train" in p else quiet(theirs)
    return Contest(contestants, threads)


# ---- rows ----------------------------------------------------------------------------------------------------------------------


def softmax(p, threads):
    shape = [p.size[letter] for letter in "brc" if letter in p.size]
    axis = 0 if "axis0" in p else 1 if "axis1" in p else -1
    x = p.array(*shape)
    if "backward" in p:
        return softmax_backward(p, threads, x)
    for op in ("sparsemax", "entmax15"):
        if op in p:
            contestants = {"attn": lambda op=op: [getattr(attn, op)(x)]}
            if entmax and torch:
                contestants["entmax"] = quiet(lambda op=op: [getattr(entmax, op)(torch_of(x), -1)])
                contestants["entmax k 32"] = quiet(lambda op=op: [getattr(entmax, op)(torch_of(x), -1, k=32)])
            return Contest(contestants, threads)
    y, theirs = np.empty_like(x), np.empty_like(x)
    contestants = {"attn": lambda: [attn.softmax(x, axis, out=y)]}
    if p.dtype == "f32":

        def plain():
            np.exp(np.subtract(x, x.max(axis, keepdims=True), out=theirs), out=theirs)
            return [np.divide(theirs, theirs.sum(axis, keepdims=True), out=theirs)]

        contestants["numpy"] = plain
    if torch:
        z, out = torch_of(x), torch_of(np.empty_like(x))
        contestants["torch"] = quiet(lambda: [torch.softmax(z, axis, out=out)])
    if onnxruntime and p.dtype != "bf16":
        node = onnx.helper.make_node("Softmax", ["x"], ["y"], axis=axis)
        run = onnx_call(threads, node, {"x": x}, {"y": np.zeros_like(x)}, opset=22)
        contestants["onnxruntime"] = lambda: [run()]
    return Contest(contestants, threads)


def softmax_backward(p, threads, x):
    y, dy = attn.softmax(x), p.array(*x.shape)
    contestants = {"attn": lambda: [attn.softmax_backward(dy, y)]}
    if torch:
        a, b = torch_of(y), torch_of(dy)
        contestants["torch"] = quiet(lambda: [torch._softmax_backward_data(b, a, -1, a.dtype)])
    return Contest(contestants, threads)


def cross_entropy(p, threads):
    n, c = p.size["n"], p.size["c"]
    x, labels = p.array(n, c), p.random.integers(0, c, n)
    contestants = {"attn": lambda: list(attn.cross_entropy(x, labels, grad=True))}
    if torch:
        leaf, at = torch_of(x, gradient=True), torch.from_numpy(labels)
        compiled = torch.compile(F.cross_entropy, dynamic=False)

        def train(loss_of):
            loss = loss_of(leaf, at)
            return [loss, *torch.autograd.grad(loss, [leaf])]

        contestants["torch"] = lambda: train(F.cross_entropy)
        contestants["torch compiled"] = lambda: train(compiled)
    return Contest(contestants, threads)


def linear_cross_entropy(p, threads):
    n, d, c = p.size["n"], p.size["d"], p.size["c"]
    x, weight, labels = p.array(n, d), p.array(c, d, scale=0.05), p.random.integers(0, c, n)
    contestants = {"attn": lambda: list(attn.linear_cross_entropy(x, weight, labels, grad=True)[:3])}
    if torch:
        leaves, at = [torch_of(x, gradient=True), torch_of(weight, gradient=True)], torch.from_numpy(labels)

        def theirs():
            loss = F.cross_entropy(F.linear(*leaves), at)
            return [loss, *torch.autograd.grad(loss, leaves)]

        contestants["torch"] = theirs
    return Contest(contestants, threads)


KINDS = {
    "attention": attention,
    "additive": additive,
    "softmax": softmax,
    "cross-entropy": cross_entropy,
    "linear-cross-entropy": linear_cross_entropy,
}


def contest(text, threads):
    """The contestants of a problem, everybody told to use so many threads."""
    problem = Problem(text)
    attn.set_threads(threads)
    if torch:
        torch.set_num_threads(threads)
        torch.manual_seed(0)
    return KINDS[problem.kind](problem, threads)


def versions():
    found = {"numpy": np.__version__}
    for name, module in (("torch", torch), ("onnxruntime", onnxruntime), ("entmax", entmax)):
        if module:
            found[name] = getattr(module, "__version__", "?")
    return found
