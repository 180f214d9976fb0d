# SPDX-License-Identifier: Apache-2.0
"""Parts of attention made one."""

from ._core import merge as _merge
from ._core import merge_backward as _merge_backward


def merge(outs, lses, *, out=None):
    """The results of attention over disjoint sets of keys (pages of a cache, say) made one: with m the largest lse of a row and
    w_i = exp(lse_i - m),

        out = sum_i w_i out_i / sum_i w_i        lse = m + log sum_i w_i

    outs  the parts' out, each [..., v_dim] of one shape, with two axes or more; the first one's dtype or float32
    lses  what they saw as lse, each [...]; float32, float64 beside outs of float64
    out   where to write: of any float dtype; may be outs[0], and overlaps no part otherwise

    A part whose lse is -inf saw no key and counts nothing, whatever its out holds; where none saw any, out is 0 and lse -inf.
    A sink belongs to one of the parts. In each part's call `offset` counts from that part's first key.

    Returns (out, lse), of the dtypes of outs[0] and of lses.
    """
    return _merge(list(outs), list(lses), out)


def merge_backward(dout, outs, lses, *, dlse=None):
    """The gradients of merge. With p_i = w_i / sum_k w_k: douts_i = p_i dout, dlses_i = p_i (dout . (out_i - out) + dlse).

    dout, dlse  the loss's gradients to out and lse

    Returns (douts, dlses), lists of as many as there are parts. attention_backward of a part's q, k and v, told the merged out
    and lse, and dout, gives that part's gradients without it.
    """
    return _merge_backward(dout, list(outs), list(lses), dlse)
