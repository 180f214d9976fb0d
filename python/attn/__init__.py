# SPDX-License-Identifier: Apache-2.0
"""Softmax and attention for CPUs: fast, exact and visible.

NumPy arrays in, NumPy arrays out; anything else with ``__dlpack__`` on the CPU (PyTorch, JAX) in, the same kind out. Nothing is
copied on the way in or out, whatever the strides. dtypes: float32, float64, float16, and bfloat16 (in NumPy that of ml_dtypes).
What NumPy can make an array of, like a list of numbers, is taken as that array.

Errors: ValueError for shapes and values that do not fit; TypeError for what is no array, no number, or of another dtype;
Unsupported, which is both a NotImplementedError and a ValueError, for what this version has not built; MemoryError. The messages
name the argument, what it holds and what it should hold; nothing was written.

The GIL is released while computing. Work is shared out to a pool of threads (set_threads); results have the same bits for any
number of them. In a forked child calls compute in the calling thread, until it calls set_threads.
"""

from ._attention import (
    DoubleGrads,
    Grads,
    Seen,
    Tangents,
    attention,
    attention_backward,
    attention_double_backward,
    attention_jvp,
    attention_received,
)
from ._core import Unsupported
from ._core import version as __version__
from ._losses import cross_entropy, linear_cross_entropy
from ._merge import merge, merge_backward
from ._sequence import linear_attention, linear_attention_backward, rope, rope_backward
from ._softmax import (
    entmax,
    entmax15,
    entmax15_backward,
    entmax15_jvp,
    entmax_backward,
    entmax_jvp,
    gate,
    gate_backward,
    gumbel_softmax,
    gumbel_softmax_backward,
    gumbel_softmax_jvp,
    log_softmax,
    log_softmax_backward,
    log_softmax_jvp,
    logsumexp,
    logsumexp_backward,
    logsumexp_jvp,
    sample,
    softmax,
    softmax_backward,
    softmax_jvp,
    softmin,
    softmin_backward,
    softmin_jvp,
    sparsemax,
    sparsemax_backward,
    sparsemax_jvp,
    top_k_softmax,
    top_k_softmax_backward,
)
from ._threads import get_threads, info, set_threads

__all__ = [
    "DoubleGrads",
    "Grads",
    "Seen",
    "Tangents",
    "Unsupported",
    "__version__",
    "attention",
    "attention_backward",
    "attention_double_backward",
    "attention_jvp",
    "attention_received",
    "cross_entropy",
    "entmax",
    "entmax15",
    "entmax15_backward",
    "entmax15_jvp",
    "entmax_backward",
    "entmax_jvp",
    "gate",
    "gate_backward",
    "get_threads",
    "gumbel_softmax",
    "gumbel_softmax_backward",
    "gumbel_softmax_jvp",
    "info",
    "linear_attention",
    "linear_attention_backward",
    "linear_cross_entropy",
    "log_softmax",
    "log_softmax_backward",
    "log_softmax_jvp",
    "logsumexp",
    "logsumexp_backward",
    "logsumexp_jvp",
    "merge",
    "merge_backward",
    "rope",
    "rope_backward",
    "sample",
    "set_threads",
    "softmax",
    "softmax_backward",
    "softmax_jvp",
    "softmin",
    "softmin_backward",
    "softmin_jvp",
    "sparsemax",
    "sparsemax_backward",
    "sparsemax_jvp",
    "top_k_softmax",
    "top_k_softmax_backward",
]
