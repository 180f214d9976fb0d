# SPDX-License-Identifier: Apache-2.0
"""attn bench: what it prints, how it counts, what it refuses. How fast anything is, is not tested."""
import json
import random
import unittest

from program import ProgramTest

SMALL = ("softmax:r64c32,f32", "attention:b1h2q24s24d8,f32,causal", "gemm:m16n16k16,f32")


class BenchTest(ProgramTest):
    def bench(self, *words):
        """Standard output of a short run; stderr has one line, which says what is measured."""
        done = self.run_attn("bench", "--seconds", "0.001", *words)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        self.assertRegex(done.stderr.decode(), r"^attn: \d+ problems? on \w+, \d+ threads?, about \d+ s\n$")
        return done.stdout.decode()

    def results(self, *words):
        return [json.loads(line) for line in self.bench("--json", *words).splitlines()]

    def operations(self, problem):
        """What it counted: operations, or bytes, of one run."""
        result, = self.results(problem)
        return result.get("gflops", result.get("gbytes")) * result["best_ms"] * 1e6

    def test_each_problem_is_an_object_on_a_line(self):
        results = self.results("--threads", 1, *SMALL)
        self.assertEqual([r["problem"] for r in results], list(SMALL))
        isa = json.loads(self.good("info", "--json"))["isa"]
        for r in results:
            rate = "gbytes" if r["problem"].startswith("softmax") else "gflops"
            self.assertEqual(list(r), ["problem", "isa", "threads", "best_ms", "median_ms", rate, "peak", "fraction_of_peak",
                                       "repetitions", "disturbed", "steady"])
            self.assertEqual((r["isa"], r["threads"]), (isa, 1))
            self.assertLessEqual(r["best_ms"], r["median_ms"])
            self.assertGreaterEqual(r["repetitions"], 5)
            for key in ("best_ms", rate, "peak", "fraction_of_peak"):
                self.assertGreater(r[key], 0)

    def test_a_markdown_table(self):
        lines = self.bench(*SMALL).splitlines()
        self.assertEqual([c.strip() for c in lines[0].split("|")[1:-1]],
                         ["problem", "isa", "best ms", "median ms", "rate", "peak", "of peak"])
        self.assertRegex(lines[1], r"^\|:-+\|:-+\|-+:\|-+:\|-+:\|-+:\|-+:\|$")
        self.assertEqual([line.split("|")[1].strip() for line in lines[2:]], list(SMALL))
        self.assertEqual({line.count("|") for line in lines}, {8})

    def test_operations_and_bytes_are_counted_as_documented(self):
        window = sum(min(i + 1, 5) for i in range(20))
        lengths = random.Random(1)
        padded = sum(lengths.randint(32, 50) ** 2 for _ in range(6))
        for problem, count in (("attention:b2h3q8s8d4,f32", 4 * 2 * 3 * 4 * 64),
                               ("attention:b1h2q8s8d4v2,f32,causal", 2 * 2 * (4 + 2) * 36),
                               ("attention:b1h1q20s20d8,f32,window5", 4 * 8 * window),
                               ("attention:b6h2q50s50d8,f32,padded", 4 * 2 * 8 * padded),
                               ("attention:b1h4k2q8s16d4,f64,backward", 2.5 * 4 * 4 * 4 * 128),
                               ("attention:b1h1q8s16d4,f32,train", 3.5 * 4 * 4 * 128),
                               ("additive:b1h1q8s16d4,f32", 4 * 4 * 128),
                               ("gemm:m3n5k7,f64", 2 * 105),
                               ("linear-cross-entropy:n5d8c11,f32", 6 * 440),
                               ("linear-cross-entropy:n5d8c11,f32,loss", 2 * 440),
                               ("softmax:r64c32,f32", 2 * 64 * 32 * 4),
                               ("softmax:r64c32,f64,backward", 3 * 64 * 32 * 8),
                               ("cross-entropy:n64c32,f32", 2 * 64 * 32 * 4)):
            with self.subTest(problem=problem):
                self.assertAlmostEqual(self.operations(problem) / count, 1, places=5)

    def test_every_word_runs(self):
        rows = "axis0 axis1 in-place backward log softmin sparsemax entmax15 entmax gumbel".split()
        attention = ("sinks mask bias alibi softcap dropout cosine see sigmoid normalized-sum relu2 sparsemax entmax15 entmax hardmax "
                     "window3 train").split()
        problems = ([f"softmax:r8c16,f32,{word}" for word in rows] + [f"attention:b1h2q8s8d4,f32,{word}" for word in attention]
                    + [f"gemm:m8n8k8,f32,{word}" for word in "prepacked weight gradient gelu".split()]
                    + [f"{p},{dtype}" for p in ("softmax:r8c16", "attention:b1h2q8s8d4,train") for dtype in ("f64", "bf16", "f16")])
        self.assertEqual([r["problem"] for r in self.results(*problems)], problems)

    def test_against_an_earlier_run(self):
        (self.folder / "then.json").write_text("".join(
            json.dumps({"problem": p, "isa": "avx2", "threads": 1, "median_ms": 1e6}) + "\n" for p in SMALL[:2]))
        lines = self.bench("--against", "then.json", *SMALL).splitlines()
        self.assertEqual(lines[0].split("|")[-2].strip(), "before")
        for line, known in zip(lines[2:], (True, True, False)):
            self.assertRegex(line.split("|")[-2].strip(), r"^\d{4,}\.\d\d x$" if known else "^-$")
        self.bad(3, "bench", SMALL[0], "--against", "missing.json", says="missing.json")
        (self.folder / "other.json").write_text("{}\n")
        self.bad(3, "bench", SMALL[0], "--against", "other.json", says="holds no results")

    def test_a_lower_instruction_set(self):
        self.assertEqual([r["isa"] for r in self.results("--isa", "scalar", "gemm:m4n4k4")], ["scalar"])
        self.bad(2, "bench", "--isa", "sse", says="it is one of scalar, avx2")

    def test_what_is_no_problem(self):
        for problem, says in (("softmax", "KIND:SIZES"), ("softmx:r4c4", "did you mean 'softmax'"), ("hat:r4", "there is no problem"),
                              ("softmax:r4c4,f33", "does not know the word 'f33'"), ("softmax:r4m4", "no size m"),
                              ("softmax:r0c4", "size r needs a number"), ("softmax:rc4", "size r needs a number"),
                              ("softmax:4c4", "letters and numbers"), ("softmax:r9999999999", "letters and numbers"),
                              ("attention:b1q8s9,padded", "q must equal s"), ("attention:b1q16s16,padded", "32"),
                              ("softmax:r4c4,causal", "does not know the word 'causal'"),
                              ("softmax:r4," + "c" * 300, "less than 200"), ("softmax:r4c4" + ",a" * 40, "too many words")):
            with self.subTest(problem=problem):
                self.bad(2, "bench", problem, says=says)
        refused = self.run_attn("bench", "attention:h3k2q4s4d4")  # the library's own word, once it is called
        self.assertEqual(refused.returncode, 2)
        self.assertIn(b"attn: error: attention:h3k2q4s4d4: k has 2 heads", refused.stderr)
        self.bad(5, "bench", "softmax:r999999999c999999999", says="out of memory")
        self.bad(2, "bench", *["softmax:r4c4"] * 65, says="more than 64")
        self.bad(2, "bench", "--seconds", 0, says="--seconds")


if __name__ == "__main__":
    unittest.main()
