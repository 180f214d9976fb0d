# SPDX-License-Identifier: Apache-2.0
"""How many instructions the kernels take, as callgrind counts them: no clock, so no noise. Held for the AVX2 kernels of one compiler;
skipped elsewhere. After a change that is meant to change them:

    python3 tests/build/test_instructions.py BUILD    # writes tests/data/instructions.json
"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
HELD = ROOT / "tests" / "data" / "instructions.json"
TOLERANCE = 0.03

PROBLEMS = (
    "softmax:r64c1024,f32",
    "softmax:r512c128,f32,log",
    "softmax:r64c1024,bf16",
    "softmax:r256c256,f32,axis0",
    "softmax:r64c1024,f32,backward",
    "cross-entropy:n32c2048,f32",
    "attention:b1h1q256s256d64,f32",
    "attention:b1h2q192s192d128,f32,causal",
    "attention:b1h2q192s192d64,bf16",
    "attention:b1h8k2q1s1024d128,f32",
    "attention:b1h1q192s192d64,f32,backward",
    "additive:b1q32s128d64,f32",
    "gemm:m128n128k128,f32",
)


def settings(build):
    """What counts depend on: the compiler and how it was told to optimise."""
    said = subprocess.run([build / "attn", "info"], capture_output=True, text=True, env={**os.environ, "ATTN_ISA": "avx2"})
    compiler = re.search(r"^compiler +(.*)$", said.stdout, re.M)
    cache = (build / "CMakeCache.txt").read_text()
    of = lambda name: (re.search(rf"^{name}:\w+=(.*)$", cache, re.M) or ["", ""])[1]
    return {"isa": (re.search(r"^isa +(.*)$", said.stdout, re.M) or ["", ""])[1], "compiler": compiler[1] if compiler else "",
            "build": of("CMAKE_BUILD_TYPE"), "flags": of("CMAKE_C_FLAGS"), "sanitizers": of("ATTN_SANITIZE")}


def count(build, problem):
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(["valgrind", "--tool=callgrind", "--toggle-collect=counted",
                               f"--callgrind-out-file={folder}/out", build / "bench_instructions", problem],
                              env={**os.environ, "ATTN_ISA": "avx2"}, capture_output=True, text=True, check=True)
    return int(re.search(r"Collected : (\d+)", done.stderr)[1])


class Instructions(unittest.TestCase):
    def test_counts_are_those_held(self):
        build, held = pathlib.Path(os.environ["ATTN_BUILD"]), json.loads(HELD.read_text())
        if not shutil.which("valgrind") or not (build / "bench_instructions").exists():
            self.skipTest("needs valgrind and bench_instructions")
        if settings(build) != held["settings"]:
            self.skipTest(f"held for {held['settings']}")
        self.assertEqual(sorted(held["counts"]), sorted(PROBLEMS))
        for problem, expected in held["counts"].items():
            with self.subTest(problem):
                self.assertLess(abs(count(build, problem) / expected - 1), TOLERANCE)


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1]).resolve()
    counts = {problem: count(folder, problem) for problem in PROBLEMS}
    HELD.write_text(json.dumps({"settings": settings(folder), "counts": counts}, indent=1) + "\n")
