# SPDX-License-Identifier: Apache-2.0
"""What the tests of attn.torch share: the package of the build and torch, or the reason why there is none."""

import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("ATTN_BUILD", ROOT / "build"))
sys.path.insert(0, str(BUILD / "python"))

missing = None
if not (BUILD / "python/attn/_core.abi3.so").exists():
    missing = "the Python package is not built: Python's headers were not there"
try:
    import torch
except ImportError:
    torch, missing = None, "torch is not importable"
if torch:
    torch.set_num_threads(1)  # small problems: threads of torch's would wait for each other
if not missing:
    import attn
    import attn.torch as ours
else:
    attn = ours = None

# The relative root mean square bounds of docs/ACCURACY.md on standard normal inputs, the rounding of 16-bit results beside them.
BOUNDS = {"float32": (2e-6, 5e-6), "float64": (1e-14, 5e-14), "float16": (2**-11, 2**-11), "bfloat16": (2**-8, 2**-8)}


def bounds(dtype):
    """(of out, of gradients)."""
    return BOUNDS[str(dtype).removeprefix("torch.")]


def hold(case, got, exact, bound, what, terms=1):
    """The relative root mean square error of a tensor; sums of `terms` that cancel out are held against 0.1 for each of them."""
    case.assertEqual(got.shape, exact.shape, what)
    case.assertTrue(torch.isfinite(got).all(), what)
    off = (got.double() - exact.double()).norm()
    size = max(exact.double().norm().item(), 0.1 * (terms * exact.numel()) ** 0.5)
    case.assertLessEqual(off.item(), bound * size, what)
