# SPDX-License-Identifier: Apache-2.0
"""The package as a whole: its names and signatures are promises, its types and documents agree with them."""

import ast
import importlib.util
import inspect
import re
import subprocess
import sys
import tempfile
import unittest

from package import BUILD, ROOT, attn, missing

ROW = "(x, axis=-1, *, scale=1.0, mask=None, bias=None, out=None)"
ROW_WITHOUT_OUT = "(x, axis=-1, *, scale=1.0, mask=None, bias=None)"
BACK = "(dy, y, axis=-1, *, scale=1.0)"
JVP = "(dx, y, axis=-1, *, scale=1.0)"
OPTIONS = (
    "score='dot', score_weight=None, scale=None, softcap=0.0, causal=False, offset=None, window=None, mask=None, bias=None, "
    "alibi=None, q_lengths=None, kv_lengths=None, sinks=None, weighting='softmax', alpha=None, dropout=0.0, seed=0, "
    "q_starts=None, kv_starts=None, block_mask=None, block_size=None"
)
LOSS = "ignore_index=-100, label_smoothing=0.0, z_loss=0.0, reduction='mean', grad=False)"
ROUTER = "order='softmax-top-k', normalize=False, bias=None, scale=1.0)"
ROPE = "({}, cos, sin, positions=None, *, interleaved=False, rotary_dim=0, heads=0)"
LINEAR = "rule='linear', decay=None, beta=None, past_state=None, scale=None"
SIGNATURES = {
    "softmax": ROW,
    "log_softmax": ROW,
    "softmin": ROW,
    "logsumexp": ROW_WITHOUT_OUT,
    "sparsemax": ROW_WITHOUT_OUT,
    "entmax15": ROW_WITHOUT_OUT,
    "entmax": "(x, alpha=1.5, axis=-1, *, scale=1.0, mask=None, bias=None)",
    "gumbel_softmax": "(x, axis=-1, *, temperature=1.0, hard=False, seed=0)",
    "softmax_backward": BACK,
    "log_softmax_backward": BACK,
    "softmin_backward": BACK,
    "sparsemax_backward": BACK,
    "entmax15_backward": BACK,
    "entmax_backward": "(dy, y, alpha=1.5, axis=-1, *, scale=1.0, dalpha=False)",
    "gumbel_softmax_backward": "(dy, y_soft, axis=-1, *, temperature=1.0)",
    "logsumexp_backward": "(dy, x, axis=-1, *, scale=1.0, mask=None, bias=None)",
    "softmax_jvp": JVP,
    "log_softmax_jvp": JVP,
    "softmin_jvp": JVP,
    "sparsemax_jvp": JVP,
    "entmax15_jvp": JVP,
    "entmax_jvp": "(dx, y, alpha=1.5, axis=-1, *, scale=1.0)",
    "gumbel_softmax_jvp": "(dx, y_soft, axis=-1, *, temperature=1.0)",
    "logsumexp_jvp": "(dx, x, axis=-1, *, scale=1.0, mask=None, bias=None)",
    "cross_entropy": "(logits, labels, *, weight=None, " + LOSS,
    "linear_cross_entropy": "(x, weight, labels, *, bias=None, class_weight=None, " + LOSS,
    "attention": f"(q, k, v, *, {OPTIONS}, see=(), top_k=0, scores_stage='weighted', "
    "see_rows=None, see_heads=None, pooled_size=None, out=None)",
    "attention_backward": f"(dout, q, k, v, *, {OPTIONS}, out=None, lse=None, dlse=None, wanted=None)",
    "attention_jvp": f"(q, k, v, *, {OPTIONS}, dq=None, dk=None, dv=None, dbias=None)",
    "attention_double_backward": f"(dout, q, k, v, *, {OPTIONS}, dlse=None, ddq=None, ddk=None, ddv=None)",
    "top_k_softmax": f"(logits, k, axis=-1, *, {ROUTER}",
    "top_k_softmax_backward": f"(dweight, logits, index, axis=-1, *, {ROUTER}",
    "sample": "(logits, axis=-1, *, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seed=0, probability=False)",
    "attention_received": f"(q, k, v, *, {OPTIONS}, by=None, dout=None, positive=False, lse=None)",
    "merge": "(outs, lses, *, out=None)",
    "merge_backward": "(dout, outs, lses, *, dlse=None)",
    "gate": "(x, g, kind='sigmoid')",
    "gate_backward": "(dy, x, g, kind='sigmoid')",
    "rope": ROPE.format("x"),
    "rope_backward": ROPE.format("dy"),
    "linear_attention": f"(q, k, v, *, {LINEAR})",
    "linear_attention_backward": f"(dout, q, k, v, *, {LINEAR}, dstate=None)",
    "set_threads": "(n)",
    "get_threads": "()",
    "info": "()",
}


def signature_of(node):
    """The signature of a stub, without its types."""
    for argument in node.args.posonlyargs + node.args.args + node.args.kwonlyargs:
        argument.annotation = None
    return f"({ast.unparse(node.args)})"


def names_of(node):
    return [a.arg for a in node.args.args + node.args.kwonlyargs]


@unittest.skipIf(missing, missing)
class Package(unittest.TestCase):
    def test_signatures_are_as_promised(self):
        for name, wanted in SIGNATURES.items():
            self.assertEqual(str(inspect.signature(getattr(attn, name))), wanted, name)

    def test_every_public_name_is_promised_and_documented(self):
        others = {"DoubleGrads", "Grads", "Seen", "Tangents", "Unsupported", "__version__"}
        self.assertEqual(set(attn.__all__) - others, set(SIGNATURES))
        self.assertEqual(sorted(set(attn.__all__)), sorted(attn.__all__))
        for name in SIGNATURES:
            self.assertTrue(getattr(attn, name).__doc__, name)
        page = (ROOT / "docs/python.md").read_text()
        for name in SIGNATURES:
            self.assertRegex(page, rf"\b{name}\b", "docs/python.md")

    def test_stubs_say_the_same_as_the_functions(self):
        tree = ast.parse((ROOT / "python/attn/__init__.pyi").read_text())
        stubs = {}
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                stubs.setdefault(node.name, []).append(node)
        self.assertEqual(set(stubs), set(SIGNATURES))
        for name, several in stubs.items():
            for node in several:
                self.assertEqual(names_of(node), list(inspect.signature(getattr(attn, name)).parameters), name)
            if len(several) == 1:
                self.assertEqual(re.sub(r"\s", "", signature_of(several[0])), re.sub(r"\s", "", SIGNATURES[name]), name)

    def test_the_example_prints_what_the_document_says(self):
        for document in ("README.md", "docs/python.md"):
            text = (ROOT / document).read_text()
            code, printed = re.search(r"```python\n([\s\S]*?)```\n\n((?:    .*\n)+)", text).groups()
            done = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(BUILD / "python")}
            )
            self.assertEqual((done.stderr, done.stdout), ("", re.sub(r"(?m)^    ", "", printed)), document)

    def test_one_version(self):
        self.assertEqual(attn.__version__, attn.info()["version"])
        self.assertIn(f"project(attn VERSION {attn.__version__} ", (ROOT / "CMakeLists.txt").read_text())

    @unittest.skipUnless(importlib.util.find_spec("mypy"), "mypy is not there")
    def test_types(self):
        program = (
            "import attn, numpy as np\nx = np.ones((2, 3), np.float32)\na: np.ndarray = attn.softmax(x, out=x)\n"
            "out, seen = attn.attention(x, x, x, see=('lse',))\nb: np.ndarray = seen.lse\n"
            "c: np.ndarray = attn.attention(x, x, x)\n"
            "loss, dlogits = attn.cross_entropy(x, [0, 1], grad=True)\nd: np.ndarray = attn.attention_backward(x, x, x, x).dq\n"
        )
        for text, good in ((program, True), (program + "attn.softmax(x, axis='last')\n", False)):
            with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
                file.write(text)
                file.flush()
                done = subprocess.run(
                    [sys.executable, "-m", "mypy", "--strict", "--allow-any-generics", file.name],
                    capture_output=True,
                    text=True,
                    env={"MYPYPATH": str(BUILD / "python"), "PATH": "/usr/bin:/bin"},
                    cwd=tempfile.gettempdir(),
                )
                self.assertEqual(done.returncode == 0, good, done.stdout + done.stderr)


if __name__ == "__main__":
    unittest.main()
