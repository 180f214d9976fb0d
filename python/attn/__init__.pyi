# SPDX-License-Identifier: Apache-2.0
# The types of attn's functions. A is NumPy's ndarray, torch's Tensor, JAX's Array: results are of the first argument's kind.
from collections.abc import Iterable, Sequence
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar, overload

class _Array(Protocol):
    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any: ...

A = TypeVar("A", bound=_Array)
_Ints = int | Sequence[int] | _Array
_Reduction = Literal["mean", "sum", "none"]
_Gate = Literal["sigmoid", "additive", "multiplicative"]
_Order = Literal["softmax-top-k", "top-k-softmax", "sigmoid-top-k"]
_Rule = Literal["linear", "gated", "delta", "gated_delta"]
_Score = Literal["dot", "additive", "cosine"]
_Weighting = Literal["softmax", "sigmoid", "normalized-sum", "sparsemax", "entmax15", "entmax", "relu2", "hardmax"]
_Causal = bool | Literal["bottom-right", "top-left"]
_See = Literal["lse", "entropy", "received", "weights", "scores", "top", "pooled"]
_Stage = Literal["weighted", "capped", "raw"]
_Grad = Literal["dq", "dk", "dv", "dbias", "dsinks", "dalibi", "dalpha", "dscore_weight"]

__version__: str

class Unsupported(NotImplementedError, ValueError): ...

class Seen(NamedTuple, Generic[A]):
    lse: A
    entropy: A
    received: A
    weights: A
    scores: A
    top_index: A
    top_weight: A
    pooled: A

class Grads(NamedTuple, Generic[A]):
    dq: A
    dk: A
    dv: A
    dbias: A
    dsinks: A
    dalibi: A
    dalpha: Any
    dscore_weight: A

class Tangents(NamedTuple, Generic[A]):
    out: A
    lse: A
    dout: A
    dlse: A

class DoubleGrads(NamedTuple, Generic[A]):
    dq: A
    dk: A
    dv: A
    ddout: A
    ddlse: A

def softmax(x: A, axis: int = -1, *, scale: float = 1.0, mask: _Array | None = None, bias: _Array | None = None, out: A | None = None) -> A: ...
def log_softmax(x: A, axis: int = -1, *, scale: float = 1.0, mask: _Array | None = None, bias: _Array | None = None, out: A | None = None) -> A: ...
def softmin(x: A, axis: int = -1, *, scale: float = 1.0, mask: _Array | None = None, bias: _Array | None = None, out: A | None = None) -> A: ...
def logsumexp(x: A, axis: int = -1, *, scale: float = 1.0, mask: _Array | None = None, bias: _Array | None = None) -> A: ...
def sparsemax(x: A, axis: int = -1, *, scale: float = 1.0, mask: _Array | None = None, bias: _Array | None = None) -> A: ...
def entmax15(x: A, axis: int = -1, *, scale: float = 1.0, mask: _Array | None = None, bias: _Array | None = None) -> A: ...
def entmax(x: A, alpha: float = 1.5, axis: int = -1, *, scale: float = 1.0, mask: _Array | None = None, bias: _Array | None = None) -> A: ...
def gumbel_softmax(x: A, axis: int = -1, *, temperature: float = 1.0, hard: bool = False, seed: int = 0) -> A: ...
def softmax_backward(dy: A, y: _Array, axis: int = -1, *, scale: float = 1.0) -> A: ...
def log_softmax_backward(dy: A, y: _Array, axis: int = -1, *, scale: float = 1.0) -> A: ...
def softmin_backward(dy: A, y: _Array, axis: int = -1, *, scale: float = 1.0) -> A: ...
def sparsemax_backward(dy: A, y: _Array, axis: int = -1, *, scale: float = 1.0) -> A: ...
def entmax15_backward(dy: A, y: _Array, axis: int = -1, *, scale: float = 1.0) -> A: ...
@overload
def entmax_backward(dy: A, y: _Array, alpha: float = 1.5, axis: int = -1, *, scale: float = 1.0, dalpha: Literal[False] = False) -> A: ...
@overload
def entmax_backward(dy: A, y: _Array, alpha: float = 1.5, axis: int = -1, *, scale: float = 1.0, dalpha: Literal[True]) -> tuple[A, Any]: ...
def gumbel_softmax_backward(dy: A, y_soft: _Array, axis: int = -1, *, temperature: float = 1.0) -> A: ...
def logsumexp_backward(
    dy: _Array | float, x: A, axis: int = -1, *, scale: float = 1.0, mask: _Array | None = None, bias: _Array | None = None
) -> A: ...
def softmax_jvp(dx: A, y: _Array, axis: int = -1, *, scale: float = 1.0) -> A: ...
def log_softmax_jvp(dx: A, y: _Array, axis: int = -1, *, scale: float = 1.0) -> A: ...
def softmin_jvp(dx: A, y: _Array, axis: int = -1, *, scale: float = 1.0) -> A: ...
def sparsemax_jvp(dx: A, y: _Array, axis: int = -1, *, scale: float = 1.0) -> A: ...
def entmax15_jvp(dx: A, y: _Array, axis: int = -1, *, scale: float = 1.0) -> A: ...
def entmax_jvp(dx: A, y: _Array, alpha: float = 1.5, axis: int = -1, *, scale: float = 1.0) -> A: ...
def gumbel_softmax_jvp(dx: A, y_soft: _Array, axis: int = -1, *, temperature: float = 1.0) -> A: ...
def logsumexp_jvp(
    dx: _Array, x: A, axis: int = -1, *, scale: float = 1.0, mask: _Array | None = None, bias: _Array | None = None
) -> A: ...
def top_k_softmax(
    logits: A,
    k: int,
    axis: int = -1,
    *,
    order: _Order = "softmax-top-k",
    normalize: bool = False,
    bias: _Array | None = None,
    scale: float = 1.0,
) -> tuple[A, A]: ...
def top_k_softmax_backward(
    dweight: _Array,
    logits: A,
    index: _Array,
    axis: int = -1,
    *,
    order: _Order = "softmax-top-k",
    normalize: bool = False,
    bias: _Array | None = None,
    scale: float = 1.0,
) -> A: ...
@overload
def sample(
    logits: A,
    axis: int = -1,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    seed: int = 0,
    probability: Literal[False] = False,
) -> A: ...
@overload
def sample(
    logits: A,
    axis: int = -1,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    seed: int = 0,
    probability: Literal[True],
) -> tuple[A, A]: ...
def gate(x: A, g: _Array, kind: _Gate = "sigmoid") -> A: ...
def gate_backward(dy: _Array, x: A, g: _Array, kind: _Gate = "sigmoid") -> tuple[A, A]: ...
def merge(outs: Sequence[A] | A, lses: Sequence[_Array] | _Array, *, out: A | None = None) -> tuple[A, A]: ...
def merge_backward(
    dout: _Array, outs: Sequence[A] | A, lses: Sequence[_Array] | _Array, *, dlse: _Array | None = None
) -> tuple[list[A], list[A]]: ...
def rope(
    x: A,
    cos: _Array,
    sin: _Array,
    positions: _Array | None = None,
    *,
    interleaved: bool = False,
    rotary_dim: int = 0,
    heads: int = 0,
) -> A: ...
def rope_backward(
    dy: A,
    cos: _Array,
    sin: _Array,
    positions: _Array | None = None,
    *,
    interleaved: bool = False,
    rotary_dim: int = 0,
    heads: int = 0,
) -> A: ...
def linear_attention(
    q: A,
    k: _Array,
    v: _Array,
    *,
    rule: _Rule = "linear",
    decay: _Array | None = None,
    beta: _Array | None = None,
    past_state: _Array | None = None,
    scale: float | None = None,
) -> tuple[A, A]: ...
def linear_attention_backward(
    dout: _Array,
    q: A,
    k: _Array,
    v: _Array,
    *,
    rule: _Rule = "linear",
    decay: _Array | None = None,
    beta: _Array | None = None,
    past_state: _Array | None = None,
    scale: float | None = None,
    dstate: _Array | None = None,
) -> tuple[A, A, A, Any, Any, Any]: ...
@overload
def cross_entropy(
    logits: A,
    labels: _Array | Sequence[int],
    *,
    weight: _Array | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: _Reduction = "mean",
    grad: Literal[False] = False,
) -> A: ...
@overload
def cross_entropy(
    logits: A,
    labels: _Array | Sequence[int],
    *,
    weight: _Array | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: _Reduction = "mean",
    grad: Literal[True],
) -> tuple[A, A]: ...
@overload
def linear_cross_entropy(
    x: A,
    weight: _Array,
    labels: _Array | Sequence[int],
    *,
    bias: _Array | None = None,
    class_weight: _Array | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: _Reduction = "mean",
    grad: Literal[False] = False,
) -> A: ...
@overload
def linear_cross_entropy(
    x: A,
    weight: _Array,
    labels: _Array | Sequence[int],
    *,
    bias: _Array | None = None,
    class_weight: _Array | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: _Reduction = "mean",
    grad: Literal[True],
) -> tuple[A, A, A, Any]: ...
@overload
def attention(
    q: A,
    k: _Array,
    v: _Array,
    *,
    score: _Score = "dot",
    score_weight: _Array | None = None,
    scale: float | None = None,
    softcap: float = 0.0,
    causal: _Causal = False,
    offset: _Ints | None = None,
    window: tuple[int, int] | None = None,
    mask: _Array | None = None,
    bias: _Array | None = None,
    alibi: _Array | None = None,
    q_lengths: _Ints | None = None,
    kv_lengths: _Ints | None = None,
    sinks: _Array | None = None,
    weighting: _Weighting = "softmax",
    alpha: float | None = None,
    dropout: float = 0.0,
    seed: int = 0,
    q_starts: _Ints | None = None,
    kv_starts: _Ints | None = None,
    block_mask: _Array | None = None,
    block_size: int | None = None,
    see: _See | Iterable[_See],
    top_k: int = 0,
    scores_stage: _Stage = "weighted",
    see_rows: _Ints | None = None,
    see_heads: _Ints | None = None,
    pooled_size: tuple[int, int] | None = None,
    out: A | None = None,
) -> tuple[A, Seen[A]]: ...
@overload
def attention(
    q: A,
    k: _Array,
    v: _Array,
    *,
    score: _Score = "dot",
    score_weight: _Array | None = None,
    scale: float | None = None,
    softcap: float = 0.0,
    causal: _Causal = False,
    offset: _Ints | None = None,
    window: tuple[int, int] | None = None,
    mask: _Array | None = None,
    bias: _Array | None = None,
    alibi: _Array | None = None,
    q_lengths: _Ints | None = None,
    kv_lengths: _Ints | None = None,
    sinks: _Array | None = None,
    weighting: _Weighting = "softmax",
    alpha: float | None = None,
    dropout: float = 0.0,
    seed: int = 0,
    q_starts: _Ints | None = None,
    kv_starts: _Ints | None = None,
    block_mask: _Array | None = None,
    block_size: int | None = None,
    see: tuple[()] = (),
    top_k: int = 0,
    scores_stage: _Stage = "weighted",
    see_rows: _Ints | None = None,
    see_heads: _Ints | None = None,
    pooled_size: tuple[int, int] | None = None,
    out: A | None = None,
) -> A: ...
def attention_backward(
    dout: _Array,
    q: A,
    k: _Array,
    v: _Array,
    *,
    score: _Score = "dot",
    score_weight: _Array | None = None,
    scale: float | None = None,
    softcap: float = 0.0,
    causal: _Causal = False,
    offset: _Ints | None = None,
    window: tuple[int, int] | None = None,
    mask: _Array | None = None,
    bias: _Array | None = None,
    alibi: _Array | None = None,
    q_lengths: _Ints | None = None,
    kv_lengths: _Ints | None = None,
    sinks: _Array | None = None,
    weighting: _Weighting = "softmax",
    alpha: float | None = None,
    dropout: float = 0.0,
    seed: int = 0,
    q_starts: _Ints | None = None,
    kv_starts: _Ints | None = None,
    block_mask: _Array | None = None,
    block_size: int | None = None,
    out: _Array | None = None,
    lse: _Array | None = None,
    dlse: _Array | None = None,
    wanted: _Grad | Iterable[_Grad] | None = None,
) -> Grads[A]: ...
def attention_jvp(
    q: A,
    k: _Array,
    v: _Array,
    *,
    score: _Score = "dot",
    score_weight: _Array | None = None,
    scale: float | None = None,
    softcap: float = 0.0,
    causal: _Causal = False,
    offset: _Ints | None = None,
    window: tuple[int, int] | None = None,
    mask: _Array | None = None,
    bias: _Array | None = None,
    alibi: _Array | None = None,
    q_lengths: _Ints | None = None,
    kv_lengths: _Ints | None = None,
    sinks: _Array | None = None,
    weighting: _Weighting = "softmax",
    alpha: float | None = None,
    dropout: float = 0.0,
    seed: int = 0,
    q_starts: _Ints | None = None,
    kv_starts: _Ints | None = None,
    block_mask: _Array | None = None,
    block_size: int | None = None,
    dq: _Array | None = None,
    dk: _Array | None = None,
    dv: _Array | None = None,
    dbias: _Array | None = None,
) -> Tangents[A]: ...
def attention_double_backward(
    dout: _Array,
    q: A,
    k: _Array,
    v: _Array,
    *,
    score: _Score = "dot",
    score_weight: _Array | None = None,
    scale: float | None = None,
    softcap: float = 0.0,
    causal: _Causal = False,
    offset: _Ints | None = None,
    window: tuple[int, int] | None = None,
    mask: _Array | None = None,
    bias: _Array | None = None,
    alibi: _Array | None = None,
    q_lengths: _Ints | None = None,
    kv_lengths: _Ints | None = None,
    sinks: _Array | None = None,
    weighting: _Weighting = "softmax",
    alpha: float | None = None,
    dropout: float = 0.0,
    seed: int = 0,
    q_starts: _Ints | None = None,
    kv_starts: _Ints | None = None,
    block_mask: _Array | None = None,
    block_size: int | None = None,
    dlse: _Array | None = None,
    ddq: _Array | None = None,
    ddk: _Array | None = None,
    ddv: _Array | None = None,
) -> DoubleGrads[A]: ...
def attention_received(
    q: A,
    k: _Array,
    v: _Array,
    *,
    score: _Score = "dot",
    score_weight: _Array | None = None,
    scale: float | None = None,
    softcap: float = 0.0,
    causal: _Causal = False,
    offset: _Ints | None = None,
    window: tuple[int, int] | None = None,
    mask: _Array | None = None,
    bias: _Array | None = None,
    alibi: _Array | None = None,
    q_lengths: _Ints | None = None,
    kv_lengths: _Ints | None = None,
    sinks: _Array | None = None,
    weighting: _Weighting = "softmax",
    alpha: float | None = None,
    dropout: float = 0.0,
    seed: int = 0,
    q_starts: _Ints | None = None,
    kv_starts: _Ints | None = None,
    block_mask: _Array | None = None,
    block_size: int | None = None,
    by: _Array | None = None,
    dout: _Array | None = None,
    positive: bool = False,
    lse: _Array | None = None,
) -> A: ...
def set_threads(n: int) -> None: ...
def get_threads() -> int: ...
def info() -> dict[str, Any]: ...
