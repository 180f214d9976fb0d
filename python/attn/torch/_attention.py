# SPDX-License-Identifier: Apache-2.0
"""attn.attention for torch: differentiable to every float input, twice for the dot score, in forward mode, and traced by compilers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

import attn

from ._call import as_tensor, bare, inspected, is_recorded, is_traced, last, one_by_one, seed_number, seed_of, share_threads

_Ints = int | Sequence[int] | Tensor


class Settings(NamedTuple):
    """The arguments of a call that no gradient goes to; None where they are not given."""

    mask: Tensor | None
    q_lengths: Tensor | None
    kv_lengths: Tensor | None
    offset: Tensor | None
    q_starts: Tensor | None
    kv_starts: Tensor | None
    block_mask: Tensor | None
    block_size: int | None
    seed: Tensor | None
    score: str
    scale: float | None
    softcap: float
    causal: str
    window: Sequence[int] | None
    weighting: str
    dropout: float
    see: Sequence[str]
    top_k: int
    scores_stage: str
    see_rows: Sequence[int] | None
    see_heads: Sequence[int] | None
    pooled_size: Sequence[int] | None

    def of_call(self) -> dict[str, Any]:
        """As keywords of the functions of attn's that compute with attention: all but what to look at."""
        words: dict[str, Any] = dict(zip(_OF_CALL, self, strict=False))
        words["causal"] = self.causal or False
        words["seed"] = 0 if self.seed is None else seed_number(self.seed)
        return words


_OF_CALL = Settings._fields[: Settings._fields.index("see")]
# The inputs that gradients go to, in the order of a recorded call, and their names in attn.Grads.
_INPUTS = ("q", "k", "v", "score_weight", "bias", "alibi", "sinks", "alpha")
_GRADS = tuple("d" + name for name in _INPUTS)
Inputs = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None, Tensor | None]


def _words(inputs: Sequence[Tensor | None], settings: Settings) -> dict[str, Any]:
    """q, k, v and all else by name, without their history."""
    words = {name: bare(value) for name, value in zip(_INPUTS, inputs, strict=True)}
    if inputs[7] is not None:
        words["alpha"] = float(inputs[7])
    return words | settings.of_call()


def _empty_out(q: Tensor, v: Tensor) -> Tensor:
    """Where out goes: lying in memory as q does where it has its shape."""
    return torch.empty_like(q) if v.shape[-1] == q.shape[-1] else q.new_empty((*q.shape[:-1], v.shape[-1]))


def _see_names(settings: Settings) -> list[str]:
    """The fields of attn.Seen that a call gives, in their order."""
    return [name for name in attn.Seen._fields if name.partition("_")[0] in settings.see]


# ---- the calls on memory ---------------------------------------------------------------------------------


def _forward(inputs: Inputs, settings: Settings) -> list[Tensor]:
    """Out, then what is seen in the order of attn.Seen."""
    share_threads()
    q, k, v, score_weight, bias, alibi, sinks, alpha = inputs
    out = _empty_out(q, v)
    s = settings  # spelled out: a dict of keywords costs as much as a small problem
    done = attn.attention(
        bare(q),
        bare(k),
        bare(v),
        score=s.score,
        score_weight=bare(score_weight),
        scale=s.scale,
        softcap=s.softcap,
        causal=s.causal or False,
        offset=s.offset,
        window=s.window,
        mask=s.mask,
        bias=bare(bias),
        alibi=bare(alibi),
        q_lengths=s.q_lengths,
        kv_lengths=s.kv_lengths,
        sinks=bare(sinks),
        weighting=s.weighting,
        alpha=None if alpha is None else float(alpha),
        dropout=s.dropout,
        seed=0 if s.seed is None else seed_number(s.seed),
        q_starts=s.q_starts,
        kv_starts=s.kv_starts,
        block_mask=s.block_mask,
        block_size=s.block_size,
        see=s.see,
        top_k=s.top_k,
        scores_stage=s.scores_stage,
        see_rows=s.see_rows,
        see_heads=s.see_heads,
        pooled_size=s.pooled_size,
        out=out,
    )
    return [out] if done is out else [out, *(each for each in done[1] if each is not None)]


def _backward(
    dout: Tensor,
    dlse: Tensor | None,
    out: Tensor | None,
    lse: Tensor | None,
    inputs: Inputs,
    settings: Settings,
    wanted: Sequence[str],
) -> list[Tensor]:
    """The gradients of the wanted inputs, in their order."""
    share_threads()
    known = {"out": bare(out), "lse": bare(lse), "dlse": bare(dlse)}
    grads = attn.attention_backward(bare(dout), **_words(inputs, settings), **known, wanted=wanted)
    found = []
    for name in wanted:
        gradient = getattr(grads, name)
        if name == "dalpha":
            assert inputs[7] is not None
            gradient = torch.as_tensor(gradient, dtype=inputs[7].dtype).reshape(inputs[7].shape)
        found.append(gradient)
    return found


def _tangents(*args: Any) -> Sequence[Tensor]:
    """How out and lse move: dq, dk, dv, dbias, the inputs, settings."""
    share_threads()
    moves = dict(zip(("dq", "dk", "dv", "dbias"), map(bare, args[:4]), strict=True))
    return attn.attention_jvp(**_words(args[4:12], args[12]), **moves)[2:]


def _double_backward(*args: Any) -> Sequence[Tensor]:
    """attn.DoubleGrads of: dout, dlse, ddq, ddk, ddv, the inputs, settings."""
    share_threads()
    dout, dlse, *moves = map(bare, args[:5])
    by_name = dict(zip(("ddq", "ddk", "ddv"), moves, strict=True))
    return attn.attention_double_backward(dout, **_words(args[5:13], args[13]), dlse=dlse, **by_name)


_move = last(_tangents, "attention's forward mode")
_go_back_twice = last(_double_backward, "attention's second derivatives")


# ---- recorded for gradients ------------------------------------------------------------------------------


def _set_up(ctx: Any, inputs: tuple[Any, ...], output: Sequence[Tensor]) -> None:
    settings = inputs[8]
    names = _see_names(settings)
    ctx.settings = settings
    ctx.saves_lse = "lse" in names and settings.weighting == "softmax"
    differentiable = 2 if ctx.saves_lse else 1
    ctx.mark_non_differentiable(*output[differentiable:])
    ctx.set_materialize_grads(False)
    ctx.n_outputs = len(output)
    ctx.out_like = output[0].shape, output[0].dtype, output[0].device
    ctx.save_for_backward(*inputs[:8], *(output[:2] if ctx.saves_lse else ()))
    ctx.save_for_forward(*inputs[:8])


def _go_back(ctx: Any, *douts: Tensor | None) -> tuple[Tensor | None, ...]:
    inputs, known = ctx.saved_tensors[:8], ctx.saved_tensors[8:]
    shape, dtype, device = ctx.out_like
    dout = douts[0] if douts[0] is not None else torch.zeros(shape, dtype=dtype, device=device)
    dlse = douts[1] if ctx.saves_lse else None
    wanted = [name for name, needed in zip(_GRADS, ctx.needs_input_grad, strict=False) if needed]
    found = _call_backward(dout, dlse, *(known or (None, None)), inputs, ctx.settings, wanted)
    grads = dict(zip(wanted, found, strict=True))
    return *(grads.get(name) for name in _GRADS), None


class _Attention(torch.autograd.Function):
    """(q, k, v, score_weight, bias, alibi, sinks, alpha, settings) -> out, then what is seen."""

    @staticmethod
    @inspected
    def forward(*args: Any) -> Any:
        return tuple(_forward(args[:8], args[8]))

    setup_context = staticmethod(_set_up)
    backward = staticmethod(_go_back)
    vmap = staticmethod(one_by_one(lambda *args: _Attention.apply(*args)))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        inputs = ctx.saved_tensors[:8]
        for name, tangent in zip(_INPUTS, tangents, strict=False):
            if tangent is not None and name not in ("q", "k", "v", "bias"):
                raise attn.Unsupported(f"{name} has a tangent: forward mode is built for q, k, v and bias")
        dout, dlse = _move(*tangents[:3], tangents[4], *inputs, ctx.settings)
        both = (dout, dlse) if ctx.saves_lse else (dout,)
        return both + (None,) * (ctx.n_outputs - len(both))


class _AttentionBackward(torch.autograd.Function):
    """(dout, dlse, out, lse, the eight inputs, settings, wanted) -> the wanted gradients."""

    @staticmethod
    @inspected
    def forward(*args: Any) -> Any:
        return tuple(_backward(*args[:4], args[4:12], *args[12:]))

    vmap = staticmethod(one_by_one(lambda *args: _AttentionBackward.apply(*args)))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.settings, ctx.wanted = inputs[12:]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[:2], *inputs[4:12])

    @staticmethod
    def backward(ctx: Any, *moves: Tensor | None) -> Any:
        dout, dlse, *inputs = ctx.saved_tensors
        by_name = {name: move for name, move in zip(ctx.wanted, moves, strict=True) if move is not None}
        beyond = by_name.keys() - {"dq", "dk", "dv"}
        beyond |= {name for name, needed in zip(_INPUTS[3:], ctx.needs_input_grad[7:12], strict=True) if needed}
        if beyond:
            raise attn.Unsupported(f"second derivatives of {', '.join(sorted(beyond))}: they are built for q, k and v")
        dq, dk, dv, ddout, ddlse = _go_back_twice(
            dout, dlse, by_name.get("dq"), by_name.get("dk"), by_name.get("dv"), *inputs, ctx.settings
        )
        return ddout, (None if dlse is None else ddlse), None, None, dq, dk, dv, *(None,) * 7


# ---- as operators for compilers --------------------------------------------------------------------------

_SCHEMA_INPUTS = (
    "Tensor q, Tensor k, Tensor v, Tensor? score_weight, Tensor? bias, Tensor? alibi, Tensor? sinks, Tensor? alpha, "
    "Tensor? mask, Tensor? q_lengths, Tensor? kv_lengths, Tensor? offset, Tensor? q_starts, Tensor? kv_starts, Tensor? block_mask, SymInt? block_size, Tensor? seed, "
    "str score, float? scale, float softcap, str causal, SymInt[]? window, str weighting, float dropout, str[] see, "
    "SymInt top_k, str scores_stage, SymInt[]? see_rows, SymInt[]? see_heads, SymInt[]? pooled_size"
)


def _split(args: Sequence[Any]) -> tuple[Inputs, Settings]:
    return tuple(args[:8]), Settings._make(args[8:])


@torch.library.custom_op("attn::attention", mutates_args=(), device_types="cpu", schema=f"({_SCHEMA_INPUTS}) -> Tensor[]")
def _attention_op(*args: Any) -> list[Tensor]:
    return _forward(*_split(args))


@_attention_op.register_fake
def _attention_shapes(*args: Any) -> list[Tensor]:
    (q, k, v, *_), settings = _split(args)
    shapes = _see_shapes(q.shape, k.shape, settings)
    sums = torch.float64 if q.dtype == torch.float64 else torch.float32
    made = [_empty_out(q, v)]
    for name in _see_names(settings):
        made.append(q.new_empty(shapes[name], dtype=torch.int32 if name == "top_index" else sums))
    return made


def _see_shapes(q_shape: Sequence[int], k_shape: Sequence[int], settings: Settings) -> dict[str, tuple[int, ...]]:
    """The shapes of attn.Seen's fields."""
    if settings.q_starts is not None:
        beyond = set(settings.see) - {"lse", "entropy"}
        if beyond:
            raise attn.Unsupported(f"compiled, a packed batch shows lse and entropy alone, not {', '.join(sorted(beyond))}")
        return {"lse": (*q_shape[:-1],), "entropy": (*q_shape[:-1],)}
    rows, keys = (*q_shape[:-1],), k_shape[-2]
    chosen = list(rows)
    if settings.see_rows is not None:
        chosen[-1] = len(settings.see_rows)
    if settings.see_heads is not None and len(chosen) > 1:
        chosen[-2] = len(settings.see_heads)
    return {
        "lse": rows,
        "entropy": rows,
        "received": (*rows[:-1], keys),
        "weights": (*chosen, keys),
        "scores": (*chosen, keys),
        "top_index": (*rows, settings.top_k),
        "top_weight": (*rows, settings.top_k),
        "pooled": (*rows[:-1], *(settings.pooled_size or ())),
    }


@torch.library.custom_op(
    "attn::attention_backward",
    mutates_args=(),
    device_types="cpu",
    schema=f"(Tensor dout, Tensor? dlse, Tensor? out, Tensor? lse, {_SCHEMA_INPUTS}, str[] wanted) -> Tensor[]",
)
def _attention_backward_op(*args: Any) -> list[Tensor]:
    return _backward(*args[:4], *_split(args[4:-1]), args[-1])


@_attention_backward_op.register_fake
def _attention_backward_shapes(*args: Any) -> list[Tensor]:
    inputs = dict(zip(_GRADS, args[4:12], strict=True))
    return [inputs[name].new_empty(inputs[name].shape) for name in args[-1]]


def _set_up_op(ctx: Any, inputs: tuple[Any, ...], output: Sequence[Tensor]) -> None:
    _set_up(ctx, (*inputs[:8], Settings._make(inputs[8:])), output)


def _go_back_op(ctx: Any, douts: Sequence[Tensor | None]) -> tuple[Any, ...]:
    return *_go_back(ctx, *douts)[:8], *(None,) * len(Settings._fields)


torch.library.register_autograd("attn::attention", _go_back_op, setup_context=_set_up_op)


# ---- which of them ---------------------------------------------------------------------------------------


def call_attention(inputs: Inputs, settings: Settings) -> Sequence[Tensor]:
    """Out, then what is seen in the order of attn.Seen."""
    traced = is_traced(*inputs[:3])
    recorded = is_recorded(*inputs)
    if (traced or recorded) and "lse" not in settings.see and settings.weighting == "softmax":
        settings = settings._replace(see=["lse", *settings.see])  # saves the backward a sweep
    if traced:
        return torch.ops.attn.attention(*inputs, *settings)
    if recorded:
        return _Attention.apply(*inputs, settings)
    return _forward(inputs, settings)


def _call_backward(
    dout: Tensor,
    dlse: Tensor | None,
    out: Tensor | None,
    lse: Tensor | None,
    inputs: Inputs,
    settings: Settings,
    wanted: Sequence[str],
) -> Sequence[Tensor]:
    if is_traced(dout, *inputs[:3]):
        return torch.ops.attn.attention_backward(dout, dlse, out, lse, *inputs, *settings, wanted)
    if is_recorded(dout, dlse, *inputs):
        return _AttentionBackward.apply(dout, dlse, out, lse, *inputs, settings, wanted)
    return _backward(dout, dlse, out, lse, inputs, settings, wanted)


def _integers(value: _Ints | None) -> Tensor | None:
    return as_tensor(value, torch.int64)


def _places(value: _Ints | None) -> list[int] | None:
    if value is None or isinstance(value, int):
        return value if value is None else [value]
    return [int(each) for each in value]


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    score: Literal["dot", "additive", "cosine"] = "dot",
    score_weight: Tensor | None = None,
    scale: float | None = None,
    softcap: float = 0.0,
    causal: bool | Literal["bottom-right", "top-left"] = False,
    offset: _Ints | None = None,
    window: tuple[int, int] | None = None,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    alibi: Tensor | None = None,
    q_lengths: _Ints | None = None,
    kv_lengths: _Ints | None = None,
    sinks: Tensor | None = None,
    weighting: Literal["softmax", "sigmoid", "normalized-sum", "sparsemax", "entmax15", "entmax", "relu2", "hardmax"] = "softmax",
    alpha: float | Tensor | None = None,
    dropout: float = 0.0,
    seed: int | Tensor | None = None,
    q_starts: _Ints | None = None,
    kv_starts: _Ints | None = None,
    block_mask: Tensor | None = None,
    block_size: int | None = None,
    see: str | Iterable[str] = (),
    top_k: int = 0,
    scores_stage: Literal["weighted", "capped", "raw"] = "weighted",
    see_rows: _Ints | None = None,
    see_heads: _Ints | None = None,
    pooled_size: tuple[int, int] | None = None,
) -> Any:
    """attn.attention of tensors: the same arguments and results, with gradients to q, k, v, score_weight, bias, alibi, sinks and alpha.

    Gradients arrive through out and, for the softmax, through seen.lse; what else is seen has none. The dot score and the
    softmax also have forward mode (torch.func.jvp) along q, k, v and bias, and second derivatives to q, k and v.

    seed   64 bits; default: new ones of torch's generator (torch.manual_seed). A tensor of one int64 is read when the call is made
    alpha  a number, or a tensor of one that may want its gradient

    Returns out; with see (out, attn.Seen).
    """
    names = [see] if isinstance(see, str) else list(see)
    settings = Settings(
        mask=mask,
        q_lengths=_integers(q_lengths),
        kv_lengths=_integers(kv_lengths),
        offset=_integers(offset),
        q_starts=_integers(q_starts),
        kv_starts=_integers(kv_starts),
        block_mask=block_mask,
        block_size=block_size,
        seed=seed_of(seed) if dropout else None,
        score=score,
        scale=scale,
        softcap=softcap,
        causal=("bottom-right" if causal is True else causal or ""),
        window=window,
        weighting=weighting,
        dropout=dropout,
        see=names,
        top_k=top_k,
        scores_stage=scores_stage,
        see_rows=_places(see_rows),
        see_heads=_places(see_heads),
        pooled_size=pooled_size,
    )
    inputs = (q, k, v, score_weight, bias, alibi, sinks, as_tensor(alpha, torch.float64))
    out, *seen = call_attention(inputs, settings)
    if not names:
        return out
    fields = dict.fromkeys(attn.Seen._fields)
    present = _see_names(settings)
    fields.update(zip(present, seen[len(seen) - len(present) :], strict=True))
    return out, attn.Seen(**fields)
