# SPDX-License-Identifier: Apache-2.0
"""attn for PyTorch: drop-in attention, the softmax family and losses, differentiable, on tensors of the CPU.

    import attn.torch
    attn.torch.patch()                     # torch.nn.functional.scaled_dot_product_attention is ours for CPU tensors
    attn.torch.register_transformers()     # AutoModel.from_pretrained(..., attn_implementation="attn")

Calls compute with torch.get_num_threads() threads, of attn's own pool, unless attn.set_threads or ATTN_THREADS says otherwise.
Each is an operator of torch.library's ("attn::attention", ...) where a compiler looks on: torch.compile(fullgraph=True) traces it.
"""

from ._attention import attention
from ._gate import gate
from ._losses import cross_entropy, linear_cross_entropy
from ._sdpa import patch, scaled_dot_product_attention
from ._softmax import entmax, entmax15, gumbel_softmax, log_softmax, logsumexp, softmax, softmin, sparsemax
from ._transformers import register_transformers

__all__ = [
    "attention",
    "cross_entropy",
    "entmax",
    "entmax15",
    "gate",
    "gumbel_softmax",
    "linear_cross_entropy",
    "log_softmax",
    "logsumexp",
    "patch",
    "register_transformers",
    "scaled_dot_product_attention",
    "softmax",
    "softmin",
    "sparsemax",
]
