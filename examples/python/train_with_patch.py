# SPDX-License-Identifier: Apache-2.0
"""A training loop with torch's scaled_dot_product_attention, and the same with attn's in its place: time, memory and losses.

The model is a small causal transformer that learns to predict the next byte of Python's own library. Each side runs in a process of
its own, from the same seed, so that its peak of memory is its own.

    python examples/python/train_with_patch.py
    python examples/python/train_with_patch.py --length 2048 --batch 1 --steps 10

Needs torch; attn.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

import attn.torch

F = nn.functional


class Block(nn.Module):
    """Attention as anyone writes it: the call of torch's is the only thing that the patch changes."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(dim), nn.LayerNorm(dim)])
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norms[0](x)).unflatten(-1, (3, self.heads, -1)).transpose(1, 3).unbind(2)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norms[1](x))  # type: ignore[no-any-return]


class Model(nn.Module):
    def __init__(self, length: int, dim: int, heads: int, layers: int) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(256, dim), nn.Embedding(length, dim)
        self.blocks = nn.Sequential(*(Block(dim, heads) for _ in range(layers)))
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 256))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids) + self.place.weight[: ids.shape[1]]
        return self.head(self.blocks(x))  # type: ignore[no-any-return]


def corpus() -> Tensor:
    """The modules of Python's library, one after the other, as bytes."""
    text = b"".join(path.read_bytes() for path in sorted(Path(json.__file__).parent.parent.glob("*.py")))
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


def train(side: str, steps: int, length: int, batch: int) -> dict[str, list[float] | float]:
    """Losses, seconds of each step, and by how many MiB the peak of memory grew."""
    torch.manual_seed(0)
    data = corpus()
    model = Model(length, dim=128, heads=4, layers=2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses, seconds = [], []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with attn.torch.patch() if side == "attn" else nullcontext():
        for _ in range(steps):
            start = time.perf_counter()
            at = torch.randint(len(data) - length - 1, (batch,))
            rows = torch.stack([data[i : i + length + 1] for i in at.tolist()]).long()
            loss = F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            seconds.append(time.perf_counter() - start)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"losses": losses, "seconds": seconds, "memory": grown}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--steps", type=int, default=60, help="of the optimizer (default %(default)s)")
    parser.add_argument("--length", type=int, default=512, help="bytes of an example (default %(default)s)")
    parser.add_argument("--batch", type=int, default=4, help="examples of a step (default %(default)s)")
    parser.add_argument("--side", choices=("torch", "attn"), help="train this one alone and print its figures as JSON")
    options = parser.parse_args(arguments)
    size = options.steps, options.length, options.batch
    if options.side:
        print(json.dumps(train(options.side, *size)))
        return
    print(f"{options.steps} steps of {options.batch} x {options.length} bytes, {torch.get_num_threads()} threads\n")
    print(f"{'':6} {'first loss':>10} {'last loss':>10} {'median step':>12} {'memory grew by':>15}")
    results = {}
    for side in ("torch", "attn"):
        given = [f"--{name}={value}" for name, value in zip(("steps", "length", "batch"), size)]
        done = subprocess.run([sys.executable, __file__, f"--side={side}", *given], stdout=subprocess.PIPE, check=True)
        result = results[side] = json.loads(done.stdout)
        losses, step = result["losses"], statistics.median(result["seconds"])
        print(f"{side:6} {losses[0]:10.5f} {losses[-1]:10.5f} {1e3 * step:9.1f} ms {result['memory']:11.0f} MiB")
    apart = max(abs(a - b) for a, b in zip(results["torch"]["losses"], results["attn"]["losses"]))
    print(f"\nthe losses differ by at most {apart:.1e}")


if __name__ == "__main__":
    main()
