#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/data/softmax.txt: what torch says of softmax, log-softmax, logsumexp, cross-entropy and linear cross-entropy in
float64, gradients included. tests/test_softmax_oracle.c replays it.

    python3 tests/oracle/make_softmax.py [-o FILE]      needs torch

One case a line: its kind, its numbers, then its arrays in row-major order.
    softmax OP ROWS N: x, dy, y, dx                     OP as in attn.h; softmin is softmax of -x
    logsumexp ROWS N: x, dy, y, dx
    cross-entropy N CLASSES SOFT WEIGHTED SMOOTHING Z_LOSS REDUCTION IGNORE_INDEX:
        logits, labels (N, or N x CLASSES if SOFT), weights (CLASSES if WEIGHTED), loss (N or 1), dlogits
    linear-cross-entropy N CLASSES DIM SOFT WEIGHTED SMOOTHING Z_LOSS REDUCTION IGNORE_INDEX:
        x, weight, bias, labels, weights, loss, dx, dweight, dbias
"""
import argparse
import itertools
import pathlib

import torch
import torch.nn.functional as F

IGNORE_DEFAULT = -100
REDUCTIONS = ("mean", "sum", "none")


def numbers(*tensors):
    return " ".join(repr(float(x)) for t in tensors for x in t.detach().flatten())


def softmax_cases():
    for op, shape in itertools.product(range(3), ((3, 1), (2, 5), (2, 19))):
        x = (torch.randn(shape) * 3).requires_grad_()
        if shape[1] > 1:
            x.data[0, 1] = float("inf") if op == 2 else float("-inf")
        y = (torch.softmax, torch.log_softmax, lambda t, d: torch.softmax(-t, d))[op](x, -1)
        dy = torch.randn(shape)
        if op == 1:
            dy[y == float("-inf")] = 0
        y.backward(dy)
        yield f"softmax {op} {shape[0]} {shape[1]} {numbers(x, dy, y, x.grad)}"


def logsumexp_cases():
    for shape in ((3, 1), (2, 19)):
        x = (torch.randn(shape) * 3).requires_grad_()
        y = torch.logsumexp(x, -1)
        dy = torch.randn(shape[0])
        y.backward(dy)
        yield f"logsumexp {shape[0]} {shape[1]} {numbers(x, dy, y, x.grad)}"


def targets(n, classes, soft, ignore_index):
    if soft:
        return torch.softmax(torch.randn(n, classes), -1)
    labels = torch.randint(classes, (n,))
    if ignore_index != IGNORE_DEFAULT:
        labels[1] = labels[4] = ignore_index
    return labels


def loss_of(logits, labels, weights, smoothing, z_loss, reduction, ignore_index):
    options = {"weight": weights, "label_smoothing": smoothing, "ignore_index": ignore_index}
    if z_loss == 0:
        return F.cross_entropy(logits, labels, reduction=reduction, **options)
    # torch has no z-loss: it joins each row that counts before the reduction
    soft, n = labels.dim() == 2, len(labels)
    counts = torch.ones(n, dtype=torch.bool) if soft else labels != ignore_index
    rows = F.cross_entropy(logits, labels, reduction="none", **options)
    rows = rows + counts * z_loss * torch.logsumexp(logits, -1) ** 2
    divisor = n if soft else (counts.sum() if weights is None else weights[labels[counts]].sum())
    return {"none": rows, "sum": rows.sum(), "mean": rows.sum() / divisor}[reduction]


def options_text(soft, weighted, smoothing, z_loss, reduction, ignore_index):
    return f"{int(soft)} {int(weighted)} {smoothing} {z_loss} {REDUCTIONS.index(reduction)} {ignore_index}"


def cross_entropy_case(soft, weighted, smoothing, z_loss, reduction, ignore_index):
    n, classes = 5, 4
    logits = (torch.randn(n, classes) * 2).requires_grad_()
    labels = targets(n, classes, soft, ignore_index)
    weights = torch.rand(classes) + 0.2 if weighted else None
    loss = loss_of(logits, labels, weights, smoothing, z_loss, reduction, ignore_index)
    loss.sum().backward()
    arrays = [logits, labels] + ([weights] if weighted else []) + [loss, logits.grad]
    return f"cross-entropy {n} {classes} {options_text(soft, weighted, smoothing, z_loss, reduction, ignore_index)} {numbers(*arrays)}"


def linear_case(soft, weighted, smoothing, z_loss, reduction, ignore_index):
    n, classes, dim = 5, 6, 3
    x, weight, bias = (torch.randn(*shape).requires_grad_() for shape in ((n, dim), (classes, dim), (classes,)))
    labels = targets(n, classes, soft, ignore_index)
    weights = torch.rand(classes) + 0.2 if weighted else None
    loss = loss_of(F.linear(x, weight, bias), labels, weights, smoothing, z_loss, reduction, ignore_index)
    loss.sum().backward()
    arrays = [x, weight, bias, labels] + ([weights] if weighted else []) + [loss, x.grad, weight.grad, bias.grad]
    return (f"linear-cross-entropy {n} {classes} {dim} "
            f"{options_text(soft, weighted, smoothing, z_loss, reduction, ignore_index)} {numbers(*arrays)}")


def cross_entropy_cases(case):
    for soft, weighted, smoothing, z_loss, reduction in itertools.product(
            (False, True), (False, True), (0.0, 0.1), (0.0, 0.02), REDUCTIONS):
        for ignore_index in (IGNORE_DEFAULT,) if soft else (IGNORE_DEFAULT, 2, -7):
            yield case(soft, weighted, smoothing, z_loss, reduction, ignore_index)


def write(path, seed):
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(seed)
    lines = [*softmax_cases(), *logsumexp_cases(), *cross_entropy_cases(cross_entropy_case),
             *cross_entropy_cases(linear_case)]
    path.write_text("\n".join(lines) + "\n")
    return len(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-o", default=pathlib.Path(__file__).parent.parent / "data" / "softmax.txt", type=pathlib.Path)
    path = parser.parse_args().o
    print(f"{path}: {write(path, 1)} cases")


if __name__ == "__main__":
    main()
