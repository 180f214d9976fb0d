# SPDX-License-Identifier: Apache-2.0
"""What a call from Python costs above the C function: python3 bench/python_overhead.py [BUILD]

Eight floats, where computing takes next to nothing. The C function is timed by a loop in C around the same call.
"""

import ctypes
import os
import pathlib
import subprocess
import sys
import tempfile
import timeit

ROOT = pathlib.Path(__file__).resolve().parents[1]
BUILD = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build").resolve()
sys.path.insert(0, str(BUILD / "python"))

import attn  # noqa: E402
import numpy as np  # noqa: E402

LOOPS = """
#include <attn/attn.h>
#include <time.h>
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec; }
double softmax_seconds(const attn_exec *exec, int n) {
    float x[8] = { 1, 2, 3, 4, 5, 6, 7, 8 }, y[8];
    attn_softmax_args a = { .x = attn_dense(ATTN_F32, x, 1, (const int64_t[]){ 8 }), .y = attn_dense(ATTN_F32, y, 1, (const int64_t[]){ 8 }) };
    double begin = now();
    for (int i = 0; i < n; i++) if (attn_softmax(&a, exec)) return -1;
    return (now() - begin) / n;
}
double attention_seconds(const attn_exec *exec, int n) {
    float q[8] = { 1, 2, 3, 4, 5, 6, 7, 8 }, o[8];
    attn_tensor t = attn_bhsd(ATTN_F32, q, 1, 1, 2, 4);
    attn_attention_args a = { .q = t, .k = t, .v = t, .out = attn_bhsd(ATTN_F32, o, 1, 1, 2, 4) };
    double begin = now();
    for (int i = 0; i < n; i++) if (attn_attention(&a, exec)) return -1;
    return (now() - begin) / n;
}
double run(int which, int n) {
    attn_exec exec = { 0 };
    double best = 1;
    attn_pool_open(&exec, 0);
    for (int i = 0; i < 7; i++) {
        double seconds = which ? attention_seconds(&exec, n) : softmax_seconds(&exec, n);
        if (seconds < best) best = seconds;
    }
    attn_pool_close(&exec);
    return best;
}
"""


def c_loops(folder):
    source, library = pathlib.Path(folder, "loops.c"), pathlib.Path(folder, "loops.so")
    source.write_text(LOOPS)
    subprocess.run(
        [
            os.environ.get("CC", "cc"),
            "-O2",
            "-shared",
            "-fPIC",
            f"-I{ROOT}/include",
            source,
            BUILD / "libattn.a",
            "-lm",
            "-lpthread",
            "-o",
            library,
        ],
        check=True,
    )
    run = ctypes.CDLL(str(library)).run
    run.restype, run.argtypes = ctypes.c_double, [ctypes.c_int, ctypes.c_int]
    return run


def best(call, n=20000):
    return min(timeit.repeat(call, number=n, repeat=7)) / n


def main():
    x, q = np.arange(1, 9, dtype="f4"), np.arange(1, 9, dtype="f4").reshape(2, 4)
    out = np.empty_like(x)
    with tempfile.TemporaryDirectory() as folder:
        run = c_loops(folder)
        softmax, attention = run(0, 20000), run(1, 20000)
    for name, call, c in (
        ("softmax(x)", lambda: attn.softmax(x), softmax),
        ("softmax(x, out=out)", lambda: attn.softmax(x, out=out), softmax),
        ("attention(q, q, q)", lambda: attn.attention(q, q, q), attention),
    ):
        python = best(call)
        print(
            f"attn.{name:22} {python * 1e6:5.2f} us, of which the C function {c * 1e6:5.2f}, overhead {(python - c) * 1e6:5.2f}"
        )


if __name__ == "__main__":
    main()
