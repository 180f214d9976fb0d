# SPDX-License-Identifier: Apache-2.0
"""What calls do beside computing: references, memory, the GIL, threads, forks."""

import gc
import os
import subprocess
import sys
import threading
import time
import tracemalloc
import unittest

from package import BUILD, attn, missing, ml_dtypes, np


@unittest.skipIf(missing, missing)
class Calls(unittest.TestCase):
    def setUp(self):
        self.threads = attn.get_threads()
        self.addCleanup(attn.set_threads, self.threads)
        rng = np.random.default_rng(3)
        self.x = rng.standard_normal((2, 3, 4)).astype("f4")
        self.labels = np.array([0, 1, 2])

    def all_calls(self):
        x, y = self.x, attn.softmax(self.x)
        mask, bias = np.ones(4, bool), np.zeros(4, "f4")
        attn.softmax(x[::-1], 0, mask=np.ones(3, bool)[:, None], bias=np.zeros((3, 1), "f4"))
        attn.softmax(x, out=y)
        attn.log_softmax([1.0, 2.0])
        attn.softmax_backward(y, y)
        attn.logsumexp(x, mask=mask, bias=bias)
        attn.logsumexp_backward(x[..., 0], x)
        attn.gate_backward(x, x, x, "additive")
        index, weight = attn.top_k_softmax(x, 2, order="sigmoid-top-k", bias=bias)
        attn.top_k_softmax_backward(weight, x, index)
        attn.sample(x, 1, top_p=0.5, probability=True)
        attn.cross_entropy(x[0], self.labels, weight=bias, grad=True)
        attn.rope_backward(attn.rope(x, x[0, :, :1], x[0, :, 1:2], [[0, 1, 2]] * 2, heads=2), x[..., :1], x[..., 1:2], heads=2)
        out, state = attn.linear_attention(x[None], x[None], x[None], rule="delta", beta=x[None, ..., 0])
        attn.linear_attention_backward(out, x[None], x[None], x[None], past_state=state, dstate=state)
        attn.merge([x] * 30, x[None, ..., 0].repeat(30, 0), out=x.copy())
        attn.merge_backward(x, [x] * 30, [x[..., 0]] * 30, dlse=x[..., 0])
        attn.linear_cross_entropy(x[0], x[1], self.labels, bias=bias[:3], grad=True)
        attn.attention(
            x,
            x,
            x,
            see=("lse", "entropy", "received", "weights", "scores", "top", "pooled"),
            top_k=2,
            pooled_size=(2, 1),
            see_rows=[1],
            see_heads=np.array([0]),
            mask=np.ones((3, 3), bool),
            kv_lengths=3,
            offset=[1],
            causal=True,
            window=(2, 1),
        )
        attn.attention_received(x, x, x, by=x[0, :, 0], dout=x, positive=True, lse=x[..., 0])
        attn.attention_backward(x, x, x, x, bias=np.zeros((3, 3), "f4"), alibi=np.zeros(2, "f4"))
        if ml_dtypes:
            attn.softmax(x.astype(ml_dtypes.bfloat16))
        for refused in (
            lambda: attn.softmax(x, 5),
            lambda: attn.softmax(x.astype("i4")),
            lambda: attn.softmax(x, scale="a"),
            lambda: attn.top_k_softmax(x, -1),
            lambda: attn.top_k_softmax_backward(weight, x, index + 9),
            lambda: attn.sample(x, top_p=2),
            lambda: attn.softmax(x.astype(">f4")),
            lambda: attn.attention(x, x, x[0]),
            lambda: attn.softmax(object()),
            lambda: attn.attention(x, x, x, causal="x"),
            lambda: attn.softmax(x, out=x[:, ::-1]),
            lambda: attn.softmax(x, bias=x[0, 0, 1:]),
            lambda: attn.attention(x, x, x, dropout=3),
            lambda: attn.attention_backward(x, x, x, x, lse=x),
        ):
            with self.assertRaises((TypeError, ValueError)):
                refused()

    def test_no_reference_and_no_memory_is_kept(self):
        for _ in range(50):
            self.all_calls()
        gc.collect()
        watched = [
            self.x,
            self.labels,
            self.x.dtype,
            np.dtype("f4"),
            np.dtype("f8"),
            None,
            True,
            attn.softmax,
            np.ndarray,
            (),
            0,
            1,
        ]
        before = [sys.getrefcount(o) for o in watched]
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        self.all_calls()
        gc.collect()
        low = tracemalloc.get_traced_memory()[0]
        for _ in range(300):
            self.all_calls()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - low
        after = [sys.getrefcount(o) for o in watched]
        self.assertLess(grown, 20000)
        for o, one, other in zip(watched, before, after):
            self.assertLess(abs(other - one), 100, f"references to {type(o)} {o!r:.50}: {one} before, {other} after")

    def test_the_gil_is_released_while_computing(self):
        attn.set_threads(1)
        rng = np.random.default_rng(4)
        q = rng.standard_normal((1, 8, 1500, 64)).astype("f4")
        span, beats = [], []

        def compute():
            begin = time.perf_counter()
            attn.attention(q, q, q)
            span.extend((begin, time.perf_counter()))

        worker = threading.Thread(target=compute)
        worker.start()
        while not span:
            beats.append(time.perf_counter())
            time.sleep(0.001)
        worker.join()
        begin, end = span
        inside = [b for b in beats if begin + 0.1 * (end - begin) < b < end - 0.1 * (end - begin)]
        self.assertGreater(len(inside), 3, f"{end - begin:.3f} s")

    def test_any_number_of_threads_gives_the_same_bits(self):
        rng = np.random.default_rng(5)
        q, k, v = (rng.standard_normal((2, 4, 150, 32)).astype("f4") for _ in range(3))
        x = rng.standard_normal((3000, 70)).astype("f4")
        results = []
        for n in (1, 2, 3, 7):
            attn.set_threads(n)
            self.assertEqual(attn.get_threads(), n)
            grads = attn.attention_backward(v, q, k, v, causal=True)
            results.append(
                [attn.attention(q, k, v, causal=True).tobytes(), attn.softmax(x, 0).tobytes()] + [g.tobytes() for g in grads[:3]]
            )
        self.assertTrue(all(r == results[0] for r in results))

    def test_threads_may_call_and_change_the_pool_at_once(self):
        x = np.random.default_rng(6).standard_normal((400, 300)).astype("f4")
        expected = attn.softmax(x).tobytes()
        failures, stop = [], time.monotonic() + 1.0

        def work():
            while time.monotonic() < stop:
                if attn.softmax(x).tobytes() != expected:
                    failures.append("other bits")

        workers = [threading.Thread(target=work) for _ in range(4)]
        for worker in workers:
            worker.start()
        n = 0
        while time.monotonic() < stop:
            n += 1
            attn.set_threads(1 + n % 4)
        for worker in workers:
            worker.join()
        self.assertEqual(failures, [])
        self.assertGreater(n, 3)

    def test_errors_belong_to_the_thread_that_made_them(self):
        messages = {}

        def wrong(n):
            for _ in range(300):
                try:
                    attn.attention(np.zeros((2, 8), "f4"), np.zeros((2, n), "f4"), np.zeros((2, 8), "f4"))
                except ValueError as error:
                    messages.setdefault(n, set()).add(str(error))

        workers = [threading.Thread(target=wrong, args=(n,)) for n in (5, 6, 7)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        self.assertEqual(messages, {n: {f"k has head size {n}, q has 8"} for n in (5, 6, 7)})

    def test_set_threads(self):
        for bad, kind in ((-1, ValueError), (2**40, ValueError), (1.5, TypeError), (None, TypeError)):
            with self.assertRaises(kind):
                attn.set_threads(bad)
        attn.set_threads(0)
        self.assertGreaterEqual(attn.get_threads(), 1)
        attn.set_threads(3)
        self.assertEqual((attn.get_threads(), attn.info()["threads"]), (3, 3))

    def test_the_environment_says_how_many_threads_and_which_instructions(self):
        program = "import attn; i = attn.info(); print(attn.get_threads(), i['threads'], i['isa'], sorted(i))"
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(BUILD / "python"), "ATTN_THREADS": "5", "ATTN_ISA": "scalar"},
        )
        self.assertEqual((done.stdout, done.stderr), ("5 5 scalar ['compiler', 'isa', 'threads', 'version']\n", ""))

    def test_importing_attn_imports_no_numpy(self):
        done = subprocess.run(
            [sys.executable, "-c", "import sys, attn; print('numpy' in sys.modules, attn.__version__)"],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(BUILD / "python")},
        )
        self.assertEqual((done.stdout, done.stderr), (f"False {attn.__version__}\n", ""))

    @unittest.skipUnless(hasattr(os, "fork"), "no fork here")
    def test_a_forked_child_computes(self):
        program = """
import os, sys, warnings
import attn, numpy as np
warnings.simplefilter("ignore")
attn.set_threads(4)
x = np.random.default_rng(0).standard_normal((2000, 100)).astype("f4")
y = attn.softmax(x).tobytes()
child = os.fork()
if child == 0:
    ok = attn.softmax(x).tobytes() == y
    attn.set_threads(2)
    ok = ok and attn.get_threads() == 2 and attn.softmax(x).tobytes() == y
    os._exit(0 if ok else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or attn.softmax(x).tobytes() != y)
"""
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "PYTHONPATH": str(BUILD / "python")},
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))


if __name__ == "__main__":
    unittest.main()
