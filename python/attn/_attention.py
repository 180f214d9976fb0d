# SPDX-License-Identifier: Apache-2.0
"""Attention: score, weight, mix - and see."""

from typing import NamedTuple

from ._core import attention as _attention
from ._core import attention_backward as _attention_backward
from ._core import attention_double_backward as _attention_double_backward
from ._core import attention_jvp as _attention_jvp
from ._core import attention_received as _attention_received


class Seen(NamedTuple):
    """What a call of attention saw; None where it was not asked for. float32, float64 for float64 input."""

    lse: object  #: [batch, heads, q_len] natural logarithm of the softmax's denominator
    entropy: object  #: [batch, heads, q_len] of the weights, in nats
    received: object  #: [batch, heads, kv_len] weight that a key received, summed over queries
    weights: object  #: [batch, heads, q_len, kv_len], or of see_heads and see_rows alone
    scores: object  #: the same, at scores_stage
    top_index: (
        object  #: [batch, heads, q_len, top_k] int32: the keys with the largest scores, largest first; -1 beyond the live ones
    )
    top_weight: object  #: [batch, heads, q_len, top_k] their weights
    pooled: object  #: [batch, heads, P, Q] means of the weights over P x Q blocks


class Grads(NamedTuple):
    """The gradients of attention, each of the shape and dtype of its input; None where there is no such input."""

    dq: object
    dk: object
    dv: object
    dbias: object
    dsinks: object
    dalibi: object
    dalpha: object  #: one number
    dscore_weight: object


class Tangents(NamedTuple):
    """Attention and how it moves."""

    out: object  #: what attention returns
    lse: object  #: what it sees as lse
    dout: object  #: how out moves
    dlse: object  #: how lse moves


class DoubleGrads(NamedTuple):
    """The gradients of a loss of attention's gradients, each of the shape and dtype of what it is to."""

    dq: object
    dk: object
    dv: object
    ddout: object  #: to dout
    ddlse: object  #: to dlse: float32, float64 for float64 input


# Bits of attention.c's LSE, ... and DQ, ...
_SEE = {"lse": 1, "entropy": 2, "received": 4, "weights": 8, "scores": 16, "top": 32, "pooled": 64}
_WANTED = {name: 1 << i for i, name in enumerate(Grads._fields)}
_ALL = (1 << len(_WANTED)) - 1


def _bits(argument, names, known):
    bits = 0
    for name in (names,) if isinstance(names, str) else names:
        if name not in known:
            raise ValueError(f"{argument} names {name!r}: it may name {', '.join(known)}")
        bits |= known[name]
    return bits


def attention(
    q,
    k,
    v,
    *,
    score="dot",
    score_weight=None,
    scale=None,
    softcap=0.0,
    causal=False,
    offset=None,
    window=None,
    mask=None,
    bias=None,
    alibi=None,
    q_lengths=None,
    kv_lengths=None,
    sinks=None,
    weighting="softmax",
    alpha=None,
    dropout=0.0,
    seed=0,
    q_starts=None,
    kv_starts=None,
    block_mask=None,
    block_size=None,
    see=(),
    top_k=0,
    scores_stage="weighted",
    see_rows=None,
    see_heads=None,
    pooled_size=None,
    out=None,
):
    """Attention: out_i = sum_j p_ij v_j, with p the weighting of the scores of query i with the keys j it may see.

    q             [batch, heads, q_len, dim], or without batch, or without batch and heads: then so is all that is returned
    k, v          [batch, k_heads, kv_len, dim], [batch, v_heads, kv_len, v_dim], k_heads and v_heads dividing heads; q's dtype
    score         "dot" q . k; "additive" score_weight . tanh(q + k); "cosine" q . k of length 1
    score_weight  of the additive score: [dim] or [heads, dim]
    scale         of the score; default 1/sqrt(dim) for "dot", else 1
    softcap       c: scores become c tanh(score / c); 0: they stay
    causal        False; True or "bottom-right": key j <= query i + offset; "top-left": j <= i
    offset        where query 0 stands, an int or integers [batch]; default kv_len - q_len: the last query on the last key
    window        (left, right): keys kept on either side of a query's position; -1: all
    mask          bool, broadcasts to [batch, heads, q_len, kv_len]: True = attend
    bias          added to the scores, broadcasts the same way; -inf masks
    alibi         slopes [heads] or [batch, heads]: adds -slope |i + offset - j|
    q_lengths, kv_lengths  integers [batch] (or one int where batch is 1): what is beyond is padding
    sinks         [heads]: logits in the softmax's denominator only
    weighting     "softmax", "sigmoid", "normalized-sum", "sparsemax", "entmax15", "entmax", "relu2" or "hardmax"
    alpha         of "entmax", from 1 on; default 1.5
    dropout       probability that a weight is dropped; survivors are scaled by 1 / (1 - dropout). seed: 0 to 2**64 - 1
    q_starts, kv_starts  integers [sequences + 1], from 0 to the total: a packed batch, q [total, heads, dim], k and v likewise.
                  Sequence b has rows q_starts[b] : q_starts[b + 1] and keys kv_starts[b] : kv_starts[b + 1] (default: as
                  q_starts) and attends within itself, without padding; it is batch entry b of offset, alibi and dropout. Out,
                  what is seen and gradients lie the same way, [total, heads, ...]
    block_mask    bool, broadcasts to [batch, heads, ceil(q_len / block_size), ceil(kv_len / block_size)]: True where queries
                  i // block_size may attend to keys j // block_size. What is False is not computed
    block_size    queries and keys of a block of block_mask; default 128
    see           any of "lse", "entropy", "received", "weights", "scores", "top", "pooled": returned beside out, which stays as
                  it is
    top_k         of "top": how many keys
    scores_stage  of "scores": "weighted" (as they enter the weighting, masked ones -inf), "capped" (after the softcap), "raw"
    see_rows, see_heads  of "weights" and "scores": an int or ints, the queries and heads to see, in this order; default all
    pooled_size   of "pooled": (P, Q), how many blocks of queries and of keys. Block p begins with query floor(p q_len / P)
    out           where to write: [batch, heads, q_len, v_dim], q's dtype or float32, overlapping no input

    Float arrays beside q, k and v are of q's dtype or float32. A row that sees no key is 0, its lse -inf, its entropy 0.
    Masked keys never leak, whatever they hold.

    Returns out, of q's dtype; with see (out, Seen).
    """
    bits = _bits("see", see, _SEE) if see else 0
    done = _attention(
        q,
        k,
        v,
        score,
        score_weight,
        scale,
        softcap,
        causal,
        offset,
        window,
        mask,
        bias,
        alibi,
        q_lengths,
        kv_lengths,
        sinks,
        weighting,
        alpha,
        dropout,
        seed,
        q_starts,
        kv_starts,
        block_mask,
        block_size,
        bits,
        top_k,
        scores_stage,
        see_rows,
        see_heads,
        pooled_size,
        out,
    )
    return (done[0], Seen._make(done[1:])) if bits else done


def attention_backward(
    dout,
    q,
    k,
    v,
    *,
    score="dot",
    score_weight=None,
    scale=None,
    softcap=0.0,
    causal=False,
    offset=None,
    window=None,
    mask=None,
    bias=None,
    alibi=None,
    q_lengths=None,
    kv_lengths=None,
    sinks=None,
    weighting="softmax",
    alpha=None,
    dropout=0.0,
    seed=0,
    q_starts=None,
    kv_starts=None,
    block_mask=None,
    block_size=None,
    out=None,
    lse=None,
    dlse=None,
    wanted=None,
):
    """The gradients of attention with the same options.

    dout    the loss's gradient to out: its shape, q's dtype or float32
    out     what attention returned, and lse: what it saw as lse. Both are worked out again where they are not given
    dlse    the loss's gradient to lse, [batch, heads, q_len]; softmax only
    wanted  names of Grads' fields to work out; default: all whose input is there

    Returns Grads: dq, dk, dv, dbias, dsinks, dalibi, dalpha, dscore_weight. What was broadcast gets the sum.
    """
    bits = _ALL if wanted is None else _bits("wanted", wanted, _WANTED)
    return Grads._make(
        _attention_backward(
            q,
            k,
            v,
            score,
            score_weight,
            scale,
            softcap,
            causal,
            offset,
            window,
            mask,
            bias,
            alibi,
            q_lengths,
            kv_lengths,
            sinks,
            weighting,
            alpha,
            dropout,
            seed,
            q_starts,
            kv_starts,
            block_mask,
            block_size,
            out,
            lse,
            dlse,
            dout,
            bits,
        )
    )


def attention_jvp(
    q,
    k,
    v,
    *,
    score="dot",
    score_weight=None,
    scale=None,
    softcap=0.0,
    causal=False,
    offset=None,
    window=None,
    mask=None,
    bias=None,
    alibi=None,
    q_lengths=None,
    kv_lengths=None,
    sinks=None,
    weighting="softmax",
    alpha=None,
    dropout=0.0,
    seed=0,
    q_starts=None,
    kv_starts=None,
    block_mask=None,
    block_size=None,
    dq=None,
    dk=None,
    dv=None,
    dbias=None,
):
    """Attention and what it does when q, k, v and bias move along dq, dk, dv and dbias (forward mode), in one sweep.

    With s the scores, p their softmax over the keys that query i may see, and ds_ij = scale (dq_i . k_j + q_i . dk_j), through
    the softcap, + dbias_ij:

        dlse_i = sum_j p_ij ds_ij        dout_i = sum_j p_ij ((ds_ij - dlse_i) v_j + dv_j)

    dq, dk, dv  each of its input's shape, its dtype or float32; None: it stays
    dbias       broadcasts as bias, which has to be given; its dtype or float32

    Other arguments as attention; the dot score and the softmax, else attn.Unsupported. A masked key moves nothing.

    Returns Tangents: out, lse, dout, dlse.
    """
    return Tangents._make(
        _attention_jvp(
            q,
            k,
            v,
            score,
            score_weight,
            scale,
            softcap,
            causal,
            offset,
            window,
            mask,
            bias,
            alibi,
            q_lengths,
            kv_lengths,
            sinks,
            weighting,
            alpha,
            dropout,
            seed,
            q_starts,
            kv_starts,
            block_mask,
            block_size,
            dq,
            dk,
            dv,
            dbias,
        )
    )


def attention_double_backward(
    dout,
    q,
    k,
    v,
    *,
    score="dot",
    score_weight=None,
    scale=None,
    softcap=0.0,
    causal=False,
    offset=None,
    window=None,
    mask=None,
    bias=None,
    alibi=None,
    q_lengths=None,
    kv_lengths=None,
    sinks=None,
    weighting="softmax",
    alpha=None,
    dropout=0.0,
    seed=0,
    q_starts=None,
    kv_starts=None,
    block_mask=None,
    block_size=None,
    dlse=None,
    ddq=None,
    ddk=None,
    ddv=None,
):
    """The gradients of a loss of attention_backward's dq, dk and dv, which has the gradients ddq, ddk and ddv to them.

    With p the weights, ds_ij = p_ij (dp_ij - sum_k p_ik dp_ik + dlse_i), dp_ij = dout_i . v_j (the backward's),
    r_ij = scale (ddq_i . k_j + q_i . ddk_j) and m_i = sum_j p_ij r_ij, without softcap and dropout:

        ddout_i = sum_j p_ij ((r_ij - m_i) v_j + ddv_j)                                      ddlse_i = m_i
        x_ij    = (r_ij - m_i) ds_ij + p_ij (dout_i . ddv_j - dout_i . ddout_i)
        dq_i    = scale sum_j (x_ij k_j + ds_ij ddk_j)      dk_j = scale sum_i (x_ij q_i + ds_ij ddq_i)
        dv_j    = sum_i p_ij (r_ij - m_i) dout_i

    and exact through both. With dout the gradient of a loss to out, (dq, dk, dv) is that loss's Hessian times (ddq, ddk, ddv).

    dout, dlse     as in attention_backward
    ddq, ddk, ddv  each of its input's shape, its dtype or float32; None: 0

    Other arguments as attention; the dot score and the softmax, else attn.Unsupported.

    Returns DoubleGrads: dq, dk, dv, ddout, ddlse, the gradients to q, k, v, dout and dlse.
    """
    return DoubleGrads._make(
        _attention_double_backward(
            q,
            k,
            v,
            score,
            score_weight,
            scale,
            softcap,
            causal,
            offset,
            window,
            mask,
            bias,
            alibi,
            q_lengths,
            kv_lengths,
            sinks,
            weighting,
            alpha,
            dropout,
            seed,
            q_starts,
            kv_starts,
            block_mask,
            block_size,
            dlse,
            ddq,
            ddk,
            ddv,
            dout,
        )
    )


def attention_received(
    q,
    k,
    v,
    *,
    score="dot",
    score_weight=None,
    scale=None,
    softcap=0.0,
    causal=False,
    offset=None,
    window=None,
    mask=None,
    bias=None,
    alibi=None,
    q_lengths=None,
    kv_lengths=None,
    sinks=None,
    weighting="softmax",
    alpha=None,
    dropout=0.0,
    seed=0,
    q_starts=None,
    kv_starts=None,
    block_mask=None,
    block_size=None,
    by=None,
    dout=None,
    positive=False,
    lse=None,
):
    """What each key receives when the queries count for different amounts: a row of numbers times the weights p,

        received_j = sum_i by_i p_ij        or, with dout, sum_i by_i p_ij dp_ij

    where dp_ij = dout_i . v_j, times what dropout multiplied the weight by, in memory in proportion to q_len + kv_len. From the top
    layer of a stack down, with the mean over heads, r = (r + received) / 2 is the rollout of one row (Abnar and Zuidema 2020), and
    r = r + received with dout and positive=True gradient times attention (Chefer, Gur and Wolf 2021).

    by        what a query counts; broadcasts to [batch, heads, q_len]; float32, float64 beside q of float64; default 1. A query that
              counts 0 is left out, whatever its weights are
    dout      the loss's gradient to out: its shape, q's dtype or float32
    positive  with dout: products p_ij dp_ij below 0 count as 0
    lse       what attention saw as lse, if that is at hand: one sweep over the scores instead of two

    Other arguments as attention. Returns [batch, heads, kv_len], float32, float64 for float64 input.
    """
    return _attention_received(
        q,
        k,
        v,
        score,
        score_weight,
        scale,
        softcap,
        causal,
        offset,
        window,
        mask,
        bias,
        alibi,
        q_lengths,
        kv_lengths,
        sinks,
        weighting,
        alpha,
        dropout,
        seed,
        q_starts,
        kv_starts,
        block_mask,
        block_size,
        by,
        dout,
        positive,
        lse,
    )
