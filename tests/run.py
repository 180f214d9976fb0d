#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs every test of a build and counts: the last line is "N passed, N failed".

    tests/run.py BUILD [-k WORD,...] [--quick]    WORD: only test programs and modules whose name holds one of them
                                                  --quick: one instruction set, no oracles (for sanitizers)

Test programs (cmocka) lie in BUILD/tests. Those of the core run once for each instruction set this machine has. Tests of the
program, of the Python package (BUILD/python) and of the build are unittest modules in tests/cli, tests/python and tests/build;
those in tests/oracle compare with other libraries, those in tests/frameworks are of attn.torch: they run where these can be
imported. Without NumPy what needs it is skipped.
"""
import argparse
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
LIMIT = 900  # seconds for one test program
# Test programs of the core whose results depend on the instruction set.
LEVELLED = re.compile(r"test_(attention|softmax|entmax|cross_entropy|linear|top_k|sample|rope|gate|matmul|norm|activation|"
                      r"embedding|adamw|muon|elementwise)")


class Count:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0


def wanted(name, words):
    return any(word in name for word in words)


def levels(build):
    """The instruction sets below the best one, as names for ATTN_ISA; none when the program cannot tell."""
    program = build / "attn"
    if not program.exists():
        return []
    names = []
    for name in ("scalar", "avx2", "avx512", "avx512bf16", "amx", "neon"):
        answer = subprocess.run([program, "info"], env={**os.environ, "ATTN_ISA": name}, capture_output=True)
        if answer.returncode == 0:
            names.append(name)
    return names[:-1]


def run_program(program, level=None):
    """Runs one test program; returns (passed, failed, skipped, what to print)."""
    environment = {**os.environ, "CMOCKA_MESSAGE_OUTPUT": "TAP", "ATTN": str(program.parent.parent / "attn")}
    label = program.name
    if level:
        environment["ATTN_ISA"] = level
        label += f" ({level})"
    start = time.monotonic()
    try:
        done = subprocess.run([program], env=environment, cwd=HERE.parent, timeout=LIMIT, text=True, errors="replace",
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        output, code = done.stdout, done.returncode
    except subprocess.TimeoutExpired as error:
        output, code = (error.stdout or b"").decode(errors="replace"), "time-out"
    passed = failed = skipped = 0
    for line in output.splitlines():
        if re.match(r"not ok \d+", line):
            failed += 1
        elif re.match(r"ok \d+", line):
            if re.search(r"# *skip", line, re.I):
                skipped += 1
            else:
                passed += 1
    if code != 0 and failed == 0:  # crashed, or a sanitizer spoke
        failed = 1
    said = ""
    if failed or passed + skipped == 0:
        failed = max(failed, 1)
        said = f"{output}{label}: exit {code}\n"
    said += f"{label:48} {passed:5} passed {failed:3} failed {time.monotonic() - start:7.1f} s"
    return passed, failed, skipped, said


def run_all(function, runs, count):
    """Calls a function for each of the runs, as many side by side as there are cores, and prints in their order."""
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for passed, failed, skipped, said in pool.map(lambda run: function(*run), runs):
            print(said, flush=True)
            count.passed += passed
            count.failed += failed
            count.skipped += skipped


class Result(unittest.TextTestResult):
    """Counts each test that passed; unittest itself only counts those that ran."""

    passes = 0

    def addSuccess(self, test):
        super().addSuccess(test)
        self.passes += 1


def count_module(path):
    """In a process of its own: runs a module's tests; the last line is "passed failed skipped"."""
    sys.path[:0] = [str(path.parent), str(pathlib.Path(os.environ["ATTN_BUILD"]) / "python")]
    loader = unittest.TestLoader()
    suite = loader.loadTestsFromName(path.stem)
    if any("No module named 'numpy'" in error for error in loader.errors):
        print(0, 0, len(re.findall(r"^    def test_", path.read_text(), re.M)))
        return
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=0, resultclass=Result).run(suite)
    failed = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    print(f"\n{result.passes} {failed} {len(result.skipped)}")


def run_module(path, build):
    """Runs the tests of one module; returns (passed, failed, skipped, what to print)."""
    environment = {**os.environ, "ATTN": str(build / "attn"), "ATTN_BUILD": str(build)}
    start = time.monotonic()
    try:
        done = subprocess.run([sys.executable, __file__, build, "--module", path], env=environment, text=True, errors="replace",
                              timeout=LIMIT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        output, code = done.stdout, done.returncode
    except subprocess.TimeoutExpired as error:
        output, code = (error.stdout or b"").decode(errors="replace"), "time-out"
    last = re.search(r"^(\d+) (\d+) (\d+)\n\Z", output, re.M)
    passed, failed, skipped = map(int, last.groups()) if last else (0, 1, 0)
    said = ""
    if failed or code != 0:
        failed = max(failed, 1)
        said = f"{output}{path.name}: exit {code}\n"
    said += f"{path.parent.name + '/' + path.name:48} {passed:5} passed {failed:3} failed {time.monotonic() - start:7.1f} s"
    return passed, failed, skipped, said


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("-k", metavar="WORD,...", default="")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--module", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.module:
        return count_module(options.module)
    build = options.build.resolve()
    words = options.k.split(",")
    count = Count()
    programs = sorted(p for p in (build / "tests").glob("test_*") if p.is_file() and os.access(p, os.X_OK))
    below = [] if options.quick else levels(build)
    programs = [program for program in programs if wanted(program.name, words)]
    run_all(run_program, [(program, level) for program in programs
                          for level in (None, *(below if LEVELLED.match(program.name) else ()))], count)
    folders = ("cli",) if options.quick else ("build", "cli", "python", "oracle", "frameworks")
    modules = [path for folder in folders for path in sorted((HERE / folder).glob("test_*.py"))]
    run_all(run_module, [(path, build) for path in modules if wanted(path.stem, words)], count)
    if count.skipped:
        print(f"{count.skipped} skipped")
    print(f"{count.passed} passed, {count.failed} failed")
    return 0 if count.failed == 0 and count.passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
