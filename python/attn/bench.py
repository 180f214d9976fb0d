# SPDX-License-Identifier: Apache-2.0
"""attn beside torch on this machine: `python -m attn.bench [--threads N] [--seconds S] [NAME ...]`.

Both compute the same problem on the same tensors and threads, in turns; each figure is the median of its rounds. Results are compared
before they are timed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

import attn
import attn.torch as ours

_F = torch.nn.functional


class Problem(NamedTuple):
    name: str
    ours: Callable[[], Tensor]
    torchs: Callable[[], Tensor]


def _attention(name: str, shape: tuple[int, ...], *, dtype: torch.dtype = torch.float32, train: bool = False, **options: bool) -> Problem:
    """Attention of one shape, forward or forward and backward; options of scaled_dot_product_attention, and whether it has a mask."""
    q, k, v = (torch.randn(shape, dtype=dtype, requires_grad=train) for _ in range(3))
    masked = options.pop("masked", False)
    mask = torch.rand(shape[0], 1, 1, shape[2]) < 0.9 if masked else None
    dout = torch.randn(shape, dtype=dtype)

    def call(function: Callable[..., Tensor]) -> Tensor:
        out = function(q, k, v, mask, **options)
        if not train:
            return out
        return torch.cat([grad.flatten() for grad in torch.autograd.grad(out, (q, k, v), dout)])

    return Problem(name, lambda: call(ours.scaled_dot_product_attention), lambda: call(_F.scaled_dot_product_attention))


def _loss() -> Problem:
    x, weight = torch.randn(2048, 256, requires_grad=True), torch.randn(16384, 256, requires_grad=True)
    labels = torch.randint(16384, (2048,))

    def gradient(loss: Tensor) -> Tensor:
        return torch.autograd.grad(loss, x)[0]

    return Problem(
        "loss of a linear layer, 2048 rows, 16384 classes, and its gradients",
        lambda: gradient(ours.linear_cross_entropy(x, weight, labels)),
        lambda: gradient(_F.cross_entropy(x @ weight.mT, labels)),
    )


def problems() -> Iterator[Problem]:
    yield _attention("one row of 8, the cost of a call", (1, 1, 1, 8))
    yield _attention("the same, recorded, with its gradients", (1, 1, 1, 8), train=True)
    yield _attention("encoder, 12 heads of 64, length 512", (1, 12, 512, 64))
    yield _attention("encoder with padding masked", (1, 12, 512, 64), masked=True)
    yield _attention("encoder, bf16", (1, 12, 512, 64), dtype=torch.bfloat16)
    yield _attention("encoder, forward and backward", (1, 12, 512, 64), train=True)
    yield _attention("decoder, 8 heads of 128, length 2048, causal", (1, 8, 2048, 128), is_causal=True)
    yield _attention("decoder, forward and backward", (1, 8, 2048, 128), is_causal=True, train=True)
    yield _attention("many small: batch 256, 4 heads of 32, length 49", (256, 4, 49, 32))
    yield _attention("many small, forward and backward", (256, 4, 49, 32), train=True)
    x = torch.randn(4096, 1000)
    yield Problem("softmax, 4096 rows of 1000", lambda: ours.softmax(x), lambda: torch.softmax(x, -1))
    yield Problem("softmax over the first axis of 1000 x 4096", lambda: ours.softmax(x.mT, 0), lambda: torch.softmax(x.mT, 0))
    yield _loss()


def _seconds(call: Callable[[], Tensor], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def _check(problem: Problem) -> None:
    mine, right = problem.ours().detach().double(), problem.torchs().detach().double()
    tolerance = 2e-2 if problem.ours().dtype in (torch.bfloat16, torch.float16) else 1e-4
    error = ((mine - right).norm() / right.norm().clamp(min=1e-30)).item()
    if error > tolerance:
        sys.exit(f"{problem.name}: the results differ by {error:.1e}, relative")


def compare(problem: Problem, budget: float) -> tuple[float, float]:
    """Median seconds of (ours, torch's), interleaved for about `budget` seconds."""
    _check(problem)
    once = max(_seconds(problem.ours, 1), _seconds(problem.torchs, 1))
    repeats = max(1, int(1e-3 / once))
    rounds = max(5, min(1000, int(budget / (2 * once * repeats))))
    pairs = [(_seconds(problem.ours, repeats), _seconds(problem.torchs, repeats)) for _ in range(rounds)]
    mine, theirs = zip(*pairs, strict=True)
    return statistics.median(mine), statistics.median(theirs)


def _text(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} us" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m attn.bench", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="only problems whose name holds one of these")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="for both (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=1.0, help="about how long each problem takes (default %(default)s)")
    options = parser.parse_args(arguments)
    if options.threads < 1 or not options.seconds > 0:
        parser.error("--threads is at least 1, --seconds above 0")
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    print(f"attn {attn.__version__} ({attn.info()['isa']}) beside torch {torch.__version__}, threads {options.threads}\n")
    print(f"| {'problem':68} |      attn |     torch | torch / attn |")
    print(f"|{'-' * 70}|----------:|----------:|-------------:|")
    for problem in problems():
        if options.names and not any(name in problem.name for name in options.names):
            continue
        mine, theirs = compare(problem, options.seconds)
        print(f"| {problem.name:68} | {_text(mine):>9} | {_text(theirs):>9} | {theirs / mine:12.2f} |", flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
