#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/data/ops.txt: what torch computes for steps of AdamW and Muon, layer norm, RMS norm and the activations, in float64.

tests/test_adamw.c, tests/test_muon.c, tests/test_norm.c and tests/test_activation.c replay it without Python. Each line is a name and its numbers.

    python tests/oracle/make_ops.py
"""
import pathlib

import torch
from torch.nn import functional as F

OUT = pathlib.Path(__file__).resolve().parent.parent / "data" / "ops.txt"


def lines():
    """(name, tensor) pairs: inputs first, then what torch makes of them."""
    torch.manual_seed(1)
    torch.set_default_dtype(torch.float64)

    # AdamW: five steps of 13 parameters, the gradients scaled by 0.5 beforehand.
    param = torch.nn.Parameter(torch.randn(13))
    optimiser = torch.optim.AdamW([param], lr=0.05, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1)
    yield "adamw.start", param
    for step in range(1, 6):
        gradient = torch.randn(13)
        yield f"adamw.gradient{step}", gradient
        param.grad = gradient * 0.5
        optimiser.step()
        yield f"adamw.param{step}", param

    x, weight, bias = torch.randn(3, 7) * 2 + 1, torch.randn(7), torch.randn(7)
    dy = torch.randn(3, 7)
    for name, value in (("x", x), ("weight", weight), ("bias", bias), ("dy", dy)):
        yield f"norm.{name}", value
    for kind, function in (("layer", lambda x, w, b: F.layer_norm(x, (7,), w, b, 1e-3)),
                           ("rms", lambda x, w, b: F.rms_norm(x, (7,), w, 1e-3))):
        leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
        y = function(*leaves)
        y.backward(dy)
        yield f"norm.{kind}.y", y
        yield f"norm.{kind}.dx", leaves[0].grad
        yield f"norm.{kind}.dweight", leaves[1].grad
    yield "norm.layer.dbias", dy.sum(0)

    x = torch.cat([torch.linspace(-9, 9, 37), torch.randn(12)])
    yield "activation.x", x
    for name, function in (("relu", F.relu), ("gelu", F.gelu), ("gelu_tanh", lambda x: F.gelu(x, approximate="tanh")),
                           ("silu", F.silu), ("sigmoid", torch.sigmoid), ("tanh", torch.tanh)):
        leaf = x.clone().requires_grad_()
        y = function(leaf)
        y.sum().backward()
        yield f"activation.{name}.y", y
        yield f"activation.{name}.dx", leaf.grad

    # Muon: three steps of a wide matrix and of a tall one. torch orthogonalises in bfloat16 whatever the parameter's type is;
    # float64 in its place shows what it computes.
    torch.Tensor.bfloat16 = torch.Tensor.clone
    for name, shape in (("wide", (3, 5)), ("tall", (6, 2))):
        param = torch.nn.Parameter(torch.randn(shape))
        optimiser = torch.optim.Muon([param], lr=0.05, momentum=0.9, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
        yield f"muon.{name}.start", param
        for step in range(1, 4):
            gradient = torch.randn(shape)
            yield f"muon.{name}.gradient{step}", gradient
            param.grad = gradient * 0.5
            optimiser.step()
            yield f"muon.{name}.param{step}", param


def main():
    with open(OUT, "w", encoding="ascii") as out:
        for name, value in lines():
            out.write(name + " " + " ".join(float(x).hex() for x in value.detach().flatten()) + "\n")


if __name__ == "__main__":
    main()
