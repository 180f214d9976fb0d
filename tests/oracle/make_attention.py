#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the attention problems that tests/test_attention_oracle.c replays: inputs, and what torch says in float64.

    tests/oracle/make_attention.py [OUT=tests/data/attention.bin] [--seed N=1]

Forward values are written out in torch operations, gradients are torch's autograd, and where torch's own
scaled_dot_product_attention can express a problem, it has to agree. Inputs are float32 numbers, so that f32 calls get them
exactly. The file: "attention oracle 1\\n", then for each problem its tensors - a name of 16 bytes, the rank and the extents as
little-endian int64, then float64 values - and a tensor named "end".
"""
import argparse
import math
import pathlib
import struct

import torch

torch.set_default_dtype(torch.float64)
SOFTMAX, SIGMOID, NORMALIZED_SUM = 0, 1, 2
NOT_CAUSAL, CAUSAL, TOP_LEFT = 0, 1, 2


class Problem:
    """One call. `options` are those of attn_attention_args by name; tensors among them get gradients where they have any."""

    def __init__(self, shape, generator, **options):
        self.b, self.h, self.kh, self.vh, self.l, self.s, self.d, self.dv = shape
        self.g = generator
        self.o = options
        factor = options.get("factor", 1.0)
        self.q = self.normal(self.b, self.h, self.l, self.d) * factor
        self.k = self.normal(self.b, self.kh, self.s, self.d)
        self.v = self.normal(self.b, self.vh, self.s, self.dv)
        if options.get("positive"):
            self.q, self.k = self.q.abs() + 0.5, self.k.abs() + 0.5
        for name in ("bias", "alibi", "score_weight"):
            wanted = options.get(name)
            setattr(self, name, None if wanted is None else self.normal(*wanted))
        if self.alibi is not None:
            self.alibi = self.alibi.abs() / 4
        if self.bias is not None and options.get("bias_masks"):
            self.bias[torch.rand(self.bias.shape, generator=self.g) < 0.3] = -math.inf
        mask = options.get("mask")
        self.mask = None if mask is None else torch.rand(mask, generator=self.g) < 0.6

    def normal(self, *shape):
        return torch.randn(shape, generator=self.g).float().double()

    # ---- the definition, in torch ----------------------------------------------------------------------

    def positions(self):
        """i + offset, [b, 1, l, 1], and j, [1, 1, 1, s]; with each entry's lengths."""
        lengths = lambda name, full: torch.tensor(self.o.get(name) or [full] * self.b)
        q_length, kv_length = lengths("q_lengths", self.l), lengths("kv_lengths", self.s)
        offset = kv_length - q_length
        if self.o.get("offset") is not None:
            offset = torch.tensor(self.o["offset"]).expand(self.b)
        if self.o.get("causal") == TOP_LEFT:
            offset = torch.zeros(self.b, dtype=torch.int64)
        i = torch.arange(self.l).view(1, 1, -1, 1)
        j = torch.arange(self.s).view(1, 1, 1, -1)
        per_entry = lambda t: t.view(-1, 1, 1, 1)
        inside = (i < per_entry(q_length)) & (j < per_entry(kv_length))
        return i + per_entry(offset), j, inside

    def live(self):
        position, j, live = self.positions()
        if self.o.get("causal"):
            live = live & (j <= position)
        left, right = self.o.get("window", (-1, -1))
        if left >= 0:
            live = live & (j >= position - left)
        if right >= 0:
            live = live & (j <= position + right)
        if self.mask is not None:
            live = live & self.mask
        if self.bias is not None:
            live = live & (self.bias != -math.inf)
        return live.expand(self.b, self.h, self.l, self.s)

    def scores(self):
        k = self.k.repeat_interleave(self.h // self.kh, 1)
        if self.score_weight is not None:
            w = self.score_weight.expand(self.h, self.d).view(1, self.h, 1, 1, self.d)
            s = (w * torch.tanh(self.q.unsqueeze(3) + k.unsqueeze(2))).sum(-1)
            default = 1.0
        else:
            s = self.q @ k.transpose(-1, -2)
            default = 1 / math.sqrt(self.d)
        s = s * self.o.get("scale", default)
        if self.o.get("softcap"):
            s = self.o["softcap"] * torch.tanh(s / self.o["softcap"])
        if self.bias is not None:
            s = s + torch.where(self.bias == -math.inf, torch.zeros(()), self.bias)
        if self.alibi is not None:
            position, j, _ = self.positions()
            s = s - self.alibi.expand(self.b, self.h).view(self.b, self.h, 1, 1) * (position - j).abs()
        return s

    def forward(self):
        live, s = self.live(), self.scores()
        weighting = self.o.get("weighting", SOFTMAX)
        results = {}
        if weighting == SOFTMAX:
            masked = torch.where(live, s, torch.tensor(-math.inf))
            top = masked.amax(-1, keepdim=True).detach()
            top = torch.where(top == -math.inf, torch.zeros(()), top)
            e = torch.where(live, torch.exp(torch.where(live, s, top) - top), torch.zeros(()))
            total = e.sum(-1, keepdim=True)
            p = e / torch.where(total == 0, torch.ones(()), total)
            results["lse"] = (torch.log(total) + top).squeeze(-1)
            results["entropy"] = -torch.special.xlogy(p, p).sum(-1)
        elif weighting == SIGMOID:
            p = torch.where(live, torch.sigmoid(s), torch.zeros(()))
        else:
            kept = torch.where(live, s, torch.zeros(()))
            total = kept.sum(-1, keepdim=True)
            p = kept / torch.where(total == 0, torch.ones(()), total)
        order = torch.where(live, s, torch.tensor(-math.inf)).sort(dim=-1, descending=True, stable=True).indices[..., :3]
        results["top_index"] = torch.where(live.gather(-1, order), order, torch.tensor(-1)).double()
        results["weights"], results["received"] = p, p.sum(-2)
        results["out"] = p @ self.v.repeat_interleave(self.h // self.vh, 1)
        return results

    def check_against_torch(self, out):
        """torch's own function, where it can say the same thing."""
        if set(self.o) - {"name", "mask", "bias", "scale", "causal", "bias_masks"} or self.o.get("causal") == CAUSAL:
            return
        bias = self.bias
        mask = self.mask if bias is None else bias.masked_fill(~self.mask, -math.inf) if self.mask is not None else bias
        theirs = torch.nn.functional.scaled_dot_product_attention(
            self.q, self.k.repeat_interleave(self.h // self.kh, 1), self.v.repeat_interleave(self.h // self.vh, 1),
            attn_mask=mask, is_causal=self.o.get("causal") == TOP_LEFT, scale=self.o.get("scale"))
        rows = self.live().any(-1)
        assert torch.allclose(theirs[rows], out[rows], rtol=1e-12, atol=1e-13), self.o

    # ---- what is written --------------------------------------------------------------------------------

    def tensors(self):
        inputs = [n for n in ("q", "k", "v", "bias", "alibi", "score_weight") if getattr(self, n) is not None]
        for name in inputs:
            getattr(self, name).requires_grad_(True)
        results = self.forward()
        out = results["out"]
        self.check_against_torch(out.detach())
        dout = self.normal(*out.shape)
        loss = (out * dout).sum()
        gives_dlse = self.o.get("dlse")
        if gives_dlse:
            dlse = self.normal(*results["lse"].shape)
            finite = results["lse"] != -math.inf
            loss = loss + (results["lse"][finite] * dlse[finite]).sum()
        gradients = torch.autograd.grad(loss, [getattr(self, n) for n in inputs], allow_unused=True)
        numbers = lambda *x: torch.tensor(x, dtype=torch.float64)
        has_scale = "scale" in self.o
        yield "options", numbers(1 if self.score_weight is not None else 0, self.o.get("weighting", SOFTMAX),
                                 self.o.get("causal", NOT_CAUSAL), has_scale, self.o.get("scale", 0.0),
                                 self.o.get("softcap", 0.0), "window" in self.o, *self.o.get("window", (0, 0)))
        for name in inputs:
            yield name, getattr(self, name).detach()
        if self.mask is not None:
            yield "mask", self.mask.double()
        for name in ("offset", "q_lengths", "kv_lengths"):
            if self.o.get(name) is not None:
                yield name, numbers(*self.o[name])
        yield "dout", dout
        if gives_dlse:
            yield "dlse", dlse
        for name, value in results.items():
            yield name, value.detach()
        for name, value in zip(inputs, gradients):
            given = getattr(self, name)
            value = torch.zeros_like(given) if value is None else value
            yield "d" + name, torch.where(given.detach() == -math.inf, torch.zeros(()), value)


def problems(seed):
    g = torch.Generator().manual_seed(seed)
    usual = (2, 2, 2, 2, 4, 6, 4, 3)
    grouped = (1, 6, 3, 2, 3, 5, 4, 3)
    make = lambda shape=usual, **options: Problem(shape, g, **options)
    return [
        make(), make((1, 1, 1, 1, 1, 1, 1, 1)), make((1, 2, 2, 2, 1, 40, 8, 8), dlse=True), make((1, 1, 1, 1, 20, 35, 5, 2)),
        make(causal=CAUSAL), make(causal=TOP_LEFT), make((1, 2, 1, 2, 7, 4, 4, 3), causal=CAUSAL, dlse=True),
        make(causal=CAUSAL, offset=[1, -2]), make(causal=CAUSAL, offset=[2]), make(window=(1, 1)),
        make(window=(2, -1), causal=TOP_LEFT), make((1, 1, 1, 1, 9, 9, 3, 3), window=(2, 0)),
        make(mask=(4, 6)), make(mask=(2, 1, 1, 6)), make(mask=(2, 2, 4, 6)), make(bias=(2, 2, 4, 6)), make(bias=(6,)),
        make(bias=(1, 2, 4, 1)), make(bias=(2, 1, 1, 6), bias_masks=True), make(bias=(4, 6), mask=(2, 1, 1, 6)),
        make(alibi=(2,)), make(alibi=(2, 2), causal=CAUSAL, offset=[3, 0]),
        make(q_lengths=[3, 4], kv_lengths=[6, 2]), make(q_lengths=[2, 0], kv_lengths=[5, 6], causal=CAUSAL, dlse=True),
        make(softcap=0.8), make(softcap=2.0, bias=(2, 4, 6), factor=4.0), make(scale=0.0), make(scale=-1.3), make(factor=30.0),
        make(grouped), make(grouped, causal=CAUSAL, bias=(6, 1, 5), dlse=True),
        make(score_weight=(4,)), make(score_weight=(2, 4), mask=(4, 6), scale=1.7), make(grouped, score_weight=(4,), causal=CAUSAL),
        make(weighting=SIGMOID), make(weighting=SIGMOID, bias=(2, 1, 6), mask=(4, 6), softcap=1.5),
        make(weighting=NORMALIZED_SUM, positive=True),
        make(weighting=NORMALIZED_SUM, positive=True, causal=CAUSAL, mask=(2, 1, 4, 6)),
        make(score_weight=(4,), bias=(1, 2, 1, 6), alibi=(2,), softcap=1.2, causal=CAUSAL, window=(3, 0), mask=(2, 1, 4, 6),
             q_lengths=[4, 3], kv_lengths=[6, 5], dlse=True),
    ]


def write(path, seed):
    with open(path, "wb") as file:
        file.write(b"attention oracle 1\n")
        for problem in problems(seed):
            for name, tensor in list(problem.tensors()) + [("end", torch.zeros(0))]:
                file.write(struct.pack("<16sq", name.encode(), tensor.dim()))
                file.write(struct.pack(f"<{tensor.dim()}q", *tensor.shape))
                file.write(tensor.contiguous().numpy().astype("<f8").tobytes())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", nargs="?", default=pathlib.Path(__file__).resolve().parent.parent / "data/attention.bin")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    write(options.out, options.seed)
