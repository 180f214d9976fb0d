# SPDX-License-Identifier: Apache-2.0
"""What the tests of the Python package share: the package of the build, or the reason why there is none."""

import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("ATTN_BUILD", ROOT / "build"))
sys.path[:0] = [str(BUILD / "python"), str(ROOT / "tests/cli")]

missing = None
try:
    import numpy as np
except ImportError:
    np, missing = None, "NumPy is not there"
if (BUILD / "python/attn/_core.abi3.so").exists():
    import attn  # one that does not load is a failure, not a reason to skip
else:
    attn, missing = None, missing or "the Python package is not built: Python's headers were not there"
try:
    import ml_dtypes
except ImportError:
    ml_dtypes = None
try:
    import torch
except ImportError:
    torch = None
