# SPDX-License-Identifier: Apache-2.0
"""The library beside what a user would otherwise take, on the same problems, numbers and threads.

    python3 bench/peers.py [BUILD] [PROBLEM...] [--threads N] [--seconds S] [--json FILE]

Runs through the Python package of BUILD (default: build) and whichever of numpy, torch, onnxruntime and entmax are installed. Before
anything is timed, all results are compared. Contestants then take turns, so that a machine that changes its speed changes it for
all; one thread is timed in its own processor time. Prints a table in Markdown, and with --json writes everything that was measured.

torch runs as it is installed and once more, "tuned", in a process of its own (the library beside it again): freed memory is kept,
and on processors of AMD MKL takes the path that it has for Intel's. A ratio is between the fastest runs of one process: above 1
the library is faster.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve()

# each with what it is to reach: against the best of all, and against torch as it is installed
PROBLEMS = {
    "attention:b1h32k8q2048s2048d128,f32,causal": (1.35, 3),
    "attention:b1h32k8q2048s2048d128,bf16,causal": (1.6, 5.5),
    "attention:b1h32k8q2048s2048d128,f16,causal": (1.5, None),
    "attention:b1h32k8q2048s2048d128,f32,causal,train": (1.5, None),
    "attention:b1h32k8q2048s2048d128,bf16,causal,train": (1.7, None),
    "attention:b8h12q512s512d64,f32": (1.3, None),
    "attention:b8h12q512s512d64,bf16": (1.5, 4.7),
    "attention:b8h12q512s512d64,f32,train": (1.4, None),
    "attention:b8h12q512s512d64,bf16,train": (2.5, None),
    "attention:b1h8q16384s16384d64,f32,causal": (1.3, None),
    "attention:b1h8q16384s16384d64,bf16,causal": (1.6, None),
    "attention:b1h32k8q1s8192d128,f32": (2, None),
    "attention:b1h32k8q1s8192d128,bf16": (2.5, None),
    "attention:b1h32k8q1s8192d128,f16": (8, None),
    "attention:b8h32k8q1s8192d128,f32": (2, None),
    "attention:b8h32k8q1s8192d128,bf16": (2, None),
    "attention:b8h12q512s512d64,f32,padded": (1.3, None),
    "attention:b8h12q512s512d64,bf16,padded": (1.6, None),
    "attention:b1h8q8192s8192d64,f32,causal,window256": (3, None),
    "attention:b1h8q8192s8192d64,bf16,causal,window256": (4, None),
    "attention:b1h12q4096s4096d64,f32,see": (2, None),
    "additive:b4q128s512d256,f32": (8, None),
    "additive:b4q128s512d256,f32,train": (6, None),
    "softmax:r4096c32768,f32": (1.45, 2),
    "softmax:r65536c128,f32": (1.45, 2),
    "softmax:r8192c1024,f32": (1.45, 2),
    "softmax:r1c128256,f32": (1.45, 2),
    "softmax:r4096c4096,f32,axis0": (None, 5),
    "softmax:b64r1024c256,f32,axis1": (None, 3),
    "softmax:r65536c128,bf16": (None, None),
    "softmax:r65536c128,f32,backward": (1.1, None),
    "softmax:r65536c128,f32,sparsemax": (10, None),
    "softmax:r65536c128,f32,entmax15": (10, None),
    "cross-entropy:n4096c32768,f32": (3, None),
    "linear-cross-entropy:n4096d512c32768,f32": (1.2, None),
    "linear-cross-entropy:n4096d512c32768,bf16": (1.4, None),
}
LIBRARIES = ("attn", "numpy", "onnxruntime", "entmax", "torch")
# relative root mean square error to the library's result
TOLERANCE = {"f32": 2e-5, "f16": 4e-3, "bf16": 2e-2}
MOST_ROUNDS, FEWEST_ROUNDS = 50, 3
SHORTEST = 2e-3  # seconds of a repetition: reading the clock does not count


# ---- one problem, in a process of its own ---------------------------------------------------------------------------------------


def difference(ours, theirs):
    import numpy as np

    worst = 0.0
    for a, b in zip(ours, theirs, strict=True):
        a, b = (np.asarray(x.detach().float() if hasattr(x, "detach") else x, np.float64) for x in (a, b))
        worst = max(worst, float(np.sqrt(np.mean((a - b) ** 2) / np.mean(a**2))))
    return worst


def repetition(call, repeats, clock):
    begin = clock()
    for _ in range(repeats):
        call()
    return (clock() - begin) / repeats


def measure(text, threads, seconds, tuned):
    """Everybody's times and differences, or why there are none, by name."""
    import peers_problems

    clock = time.process_time if threads == 1 else time.perf_counter
    contest = peers_problems.contest(text, threads)
    dtype = peers_problems.Problem(text).dtype
    entries, expected = {}, None
    for name, call in contest.contestants.items():
        if tuned and not name.startswith(("attn", "torch")):
            continue
        try:
            result = contest.defined(call())
        except Exception as error:  # a peer may refuse a problem, in many ways
            if name == "attn":
                raise
            entries[name] = {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}
            continue
        if expected is None:
            expected = [x.copy() if hasattr(x, "copy") else x for x in result]
        off = difference(expected, result)
        if not off <= TOLERANCE[dtype]:
            raise SystemExit(f"{text}: {name} differs by {off:.2g}")
        took = repetition(call, 1, clock)
        repeats = 1 + int(SHORTEST / took)
        rounds = min(MOST_ROUNDS, max(FEWEST_ROUNDS, int(seconds / (took * repeats))))
        entries[name] = {"call": call, "difference": off, "repeats": repeats, "rounds": rounds, "times": []}
    running = [entry for entry in entries.values() if "call" in entry]
    for number in range(max(entry["rounds"] for entry in running)):
        for entry in running:
            if number < entry["rounds"]:
                entry["times"].append(repetition(entry["call"], entry["repeats"], clock))
    for entry in running:
        del entry["call"]
        entry["best"], entry["median"] = min(entry["times"]), statistics.median(entry["times"])
    return {"contestants": entries, "versions": peers_problems.versions(), "isa": peers_problems.attn.info()["isa"]}


# ---- all of them -----------------------------------------------------------------------------------------------------------------


def tuned_environment(folder):
    """What makes torch as fast as it can be here."""
    environment = {"GLIBC_TUNABLES": "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184:glibc.malloc.hugetlb=1"}
    if "AuthenticAMD" in pathlib.Path("/proc/cpuinfo").read_text():
        source, library = pathlib.Path(folder, "mkl.c"), pathlib.Path(folder, "mkl.so")
        source.write_text("int mkl_serv_intel_cpu_true(void) { return 1; }\nint mkl_serv_intel_cpu(void) { return 1; }\n")
        subprocess.run([os.environ.get("CC", "cc"), "-shared", "-fPIC", "-o", library, source], check=True)
        environment["LD_PRELOAD"] = str(library)
    return environment


def processor():
    names = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    return names[0] if names else platform.machine()


def run_apart(options, text, extra):
    """`measure` in a fresh process."""
    threads = str(options.threads)
    environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads} | extra
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(options.build / "python"), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, HERE, "--measure", text, "--threads", threads, "--seconds", str(options.seconds)]
    done = subprocess.run(command + ["--tuned"] * bool(extra), env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def best_of(contestants, library):
    """The fastest of a library's contestants."""
    own = [e for name, e in contestants.items() if name.split()[0] == library and "best" in e]
    return min(own, key=lambda e: e["best"]) if own else None


def ratios(row):
    """Against the best of all, and against torch as it is installed."""
    own, tuned = (best_of(row[state], "attn") if row[state] else None for state in ("stock", "tuned"))
    others = [best_of(row["stock"], library) for library in LIBRARIES[1:]]
    found = [e["best"] / own["best"] for e in others if e]
    torch = best_of(row["stock"], "torch")
    if tuned and (theirs := best_of(row["tuned"], "torch")):
        found.append(theirs["best"] / tuned["best"])
    return min(found, default=None), torch["best"] / own["best"] if torch else None


def cell(entry):
    return f"{entry['best'] * 1e3:.4g} / {entry['median'] * 1e3:.4g}" if entry else ""


def ratio_cell(ratio, goal):
    text = f"{ratio:.2f}" if ratio else ""
    return f"{text} (goal {goal:g})" if goal else text


def line(text, row):
    cells = [cell(best_of(row["stock"], library)) for library in LIBRARIES]
    cells.append(cell(best_of(row["tuned"], "torch")) if row["tuned"] else "")
    goals = PROBLEMS.get(text, (None, None))
    return f"| {text} | {' | '.join(cells)} | {' | '.join(map(ratio_cell, row['ratios'], goals))} |"


def run_all(options):
    rows = {}
    heads = [*LIBRARIES, "torch tuned", "best / attn", "torch / attn"]
    print(f"| problem, best / median ms | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|", sep="\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        tuned = tuned_environment(folder)
        for text in options.problem or PROBLEMS:
            stock = run_apart(options, text, {})
            has_torch = best_of(stock["contestants"], "torch")
            row = {"stock": stock["contestants"], "versions": stock["versions"], "isa": stock["isa"], "tuned": None}
            if has_torch:
                row["tuned"] = run_apart(options, text, tuned)["contestants"]
            row["ratios"] = ratios(row)
            rows[text] = row
            print(line(text, row), flush=True)
            if options.json:
                machine = {"processor": processor(), "threads": options.threads}
                options.json.write_text(json.dumps({"machine": machine, "problems": rows}, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", nargs="?", type=pathlib.Path, default=HERE.parents[1] / "build")
    parser.add_argument("problem", nargs="*", help="default: all of them")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1, help="how long each contestant is measured, at least (default 1)")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--tuned", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.build = options.build.resolve()
    if options.measure:
        print(json.dumps(measure(options.measure, options.threads, options.seconds, options.tuned)))
    else:
        run_all(options)


if __name__ == "__main__":
    main()
