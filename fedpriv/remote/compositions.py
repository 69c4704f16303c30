"""Operations that torch offers as one and a worker as several, each written with operations on the allow-list.

Whatever reads a value as a place does so by an index that the worker brings into range, so that none of these fails or
reaches beyond on any value. They run at the caller's, on pointers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fedpriv.remote.attention import ATTENTION

aten = torch.ops.aten


def _batch_norm(
    source: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    training: bool,  # noqa: FBT001  torch's order
    momentum: float,
    eps: float,
) -> tuple[Tensor, ...]:
    if mean is None or variance is None:
        given: tuple[Tensor, ...] = aten._native_batch_norm_legit.no_stats(  # noqa: SLF001  torch's name for it
            source, weight, bias, training, momentum, eps
        )
        return given
    if not training:
        given = aten._native_batch_norm_legit_no_training.default(source, weight, bias, mean, variance, momentum, eps)  # noqa: SLF001
        return given[0], given[1], given[2]
    output, saved, inverse, new_mean, new_variance = aten._native_batch_norm_legit_functional.default(  # noqa: SLF001
        source, weight, bias, mean, variance, training, momentum, eps
    )
    mean.copy_(new_mean)
    variance.copy_(new_variance)
    return output, saved, inverse


def _batch_norm_with_update(
    source: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    momentum: float,
    eps: float,
) -> tuple[Tensor, ...]:
    given = _batch_norm(source, weight, bias, mean, variance, True, momentum, eps)  # noqa: FBT003  torch's order
    return *given, source.new_zeros(0, dtype=torch.uint8)


def _is_nonzero(value: Tensor) -> bool:
    return bool(aten._local_scalar_dense.default(value))  # noqa: SLF001  torch's name for it


def _equal(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and _is_nonzero((first == second).all())


def _all_close(
    first: Tensor,
    second: Tensor,
    rtol: float = 1e-5,
    atol: float = 1e-8,
    equal_nan: bool = False,  # noqa: FBT001, FBT002  torch's order
) -> bool:
    close = ((first - second).abs() <= atol + rtol * second.abs()).logical_or(first == second)
    if equal_nan:
        close = close.logical_or((first != first).logical_and(second != second))  # noqa: PLR0124  what is no number
    return _is_nonzero(close.all())


def _written(target: Tensor, source: Tensor) -> Tensor:
    return target.copy_(source)


def _leaky_noise(
    source: Tensor,
    noise: Tensor,
    lower: float = 0.125,
    upper: float = 1 / 3,
    training: bool = False,  # noqa: FBT001, FBT002  torch's order
    *_: object,
    **__: object,
) -> Tensor:
    result, drawn = aten.rrelu_with_noise_functional.default(source, noise, lower, upper, training)
    noise.copy_(drawn)
    made: Tensor = result
    return made


def _drawn(source: Tensor, **_: object) -> Tensor:
    """Draw with the probabilities `source`: what is no probability is as near as one comes to it."""
    return torch.rand_like(source).lt(source).to(source.dtype)


def _drawn_by(source: Tensor, probability: Tensor, **_: object) -> Tensor:
    chance = probability if probability.dtype.is_floating_point else probability.to(torch.float32)
    return torch.rand_like(chance.expand_as(source)).lt(chance).to(source.dtype)


def _chances(like: Tensor) -> Tensor:
    return torch.rand_like(like.new_zeros(like.shape, dtype=torch.float64))


def _integers(lowest: int, highest: int, like: Tensor, dtype: torch.dtype | None) -> Tensor:
    drawn = _chances(like).mul(highest - lowest).floor().clamp(0, highest - lowest - 1)
    return drawn.add(lowest).to(dtype or like.dtype)


def _integers_below(like: Tensor, high: int, *, dtype: torch.dtype | None = None, **_: object) -> Tensor:
    return _integers(0, high, like, dtype)


def _integers_between(like: Tensor, low: int, high: int, *, dtype: torch.dtype | None = None, **_: object) -> Tensor:
    return _integers(low, high, like, dtype)


def _waits(source: Tensor, p: float, **_: object) -> Tensor:
    return _chances(source).neg().log1p().div(math.log1p(-p)).floor().add(1.0).to(source.dtype)


def _taken(source: Tensor, index: Tensor) -> Tensor:
    made: Tensor = aten.index.Tensor(source.reshape(-1), [index])
    return made


def _put(source: Tensor, index: Tensor, values: Tensor, accumulate: bool = False) -> Tensor:  # noqa: FBT001, FBT002  torch's order
    flat = aten.index_put.default(source.reshape(-1), [index.reshape(-1)], values.reshape(-1), accumulate)
    made: Tensor = flat.view(source.shape)
    return made


def _spread(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    shape = torch.broadcast_shapes(first.shape, second.shape)  # type: ignore[no-untyped-call]  # torch's is untyped
    return first.expand(shape), second.expand(shape)


def _places(mask: Tensor) -> Tensor:
    """Return for each element how many flagged ones are before it."""
    return mask.reshape(-1).to(torch.int64).cumsum(0).sub(1).clamp(min=0)


def _masked_scatter(source: Tensor, mask: Tensor, values: Tensor) -> Tensor:
    source, mask = _spread(source, mask)
    if source.numel() == 0 or values.numel() == 0:
        return source.clone()
    found = aten.index.Tensor(values.reshape(-1), [_places(mask)])
    made: Tensor = torch.where(mask, found.view(mask.shape), source)
    return made


def _masked_scatter_backward(grad: Tensor, mask: Tensor, sizes: Sequence[int]) -> Tensor:
    grad, mask = _spread(grad, mask)
    flat = grad.new_zeros(math.prod(sizes))
    if flat.numel() == 0 or grad.numel() == 0:
        return flat.view(list(sizes))
    kept = torch.where(mask, grad, torch.zeros_like(grad)).reshape(-1)
    made: Tensor = aten.index_put.default(flat, [_places(mask)], kept, True).view(list(sizes))  # noqa: FBT003  torch's order
    return made


def _renormed(weight: Tensor, indices: Tensor, maximum: float, kind: float) -> Tensor:
    rows = weight.new_zeros(weight.shape[0], dtype=torch.bool)
    asked = aten.index_put.default(rows, [indices.reshape(-1)], rows.new_ones((), dtype=torch.bool))
    norm = torch.linalg.vector_norm(weight, kind, dim=1)
    scale = torch.where(asked.logical_and(norm > maximum), maximum / (norm + 1e-7), norm.new_ones(()))
    return weight * scale.unsqueeze(1)


def _products_summed(source: Tensor, left: Tensor, right: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    if not source.dtype.is_floating_point:
        beta, alpha = int(beta), int(alpha)
    return source * beta + torch.bmm(left, right).sum(0) * alpha


def _trilinear(
    first: Tensor,
    second: Tensor,
    third: Tensor,
    expand1: Sequence[int],
    expand2: Sequence[int],
    expand3: Sequence[int],
    summed: Sequence[int],
    *_: object,
) -> Tensor:
    for axis in expand1:
        first = first.unsqueeze(axis)
    for axis in expand2:
        second = second.unsqueeze(axis)
    for axis in expand3:
        third = third.unsqueeze(axis)
    made = first * second * third
    return made.sum(list(summed)) if summed else made


def _scatter_reduced(source: Tensor, dim: int, index: Tensor, values: Tensor, *, reduce: str) -> Tensor:
    made: Tensor = aten.scatter_reduce.two(source, dim, index, values, {"add": "sum", "multiply": "prod"}[reduce])
    return made


def _scatter_reduced_number(source: Tensor, dim: int, index: Tensor, value: float, *, reduce: str) -> Tensor:
    return _scatter_reduced(source, dim, index, source.new_full(index.shape, value), reduce=reduce)


def _margins_backward(
    grad: Tensor,
    scores: Tensor,
    target: Tensor,
    p: float,
    margin: float,
    weight: Tensor | None = None,
    reduction: int = 1,
) -> Tensor:
    rows = scores.reshape(-1, scores.shape[-1] if scores.dim() else 1)
    right = target.reshape(-1, 1)
    loss = (margin - rows.gather(1, right) + rows).clamp(min=0)
    slope = loss.sign() if p == 1 else 2 * loss
    if weight is not None:
        slope = slope * aten.index.Tensor(weight, [right])
    slope = slope.scatter(1, right, 0.0)
    slope = slope.scatter(1, right, -slope.sum(1, keepdim=True)) / rows.shape[1]
    share = grad.reshape(-1, 1) if reduction == 0 else grad / (rows.shape[0] if reduction == 1 else 1)
    return (slope * share).view(scores.shape)


def _empty(source: Tensor, size: Sequence[int], stride: Sequence[int], *, dtype: Any = None, **_: object) -> Tensor:  # noqa: ANN401  a dtype
    """Return zeros whose axes lie in memory in the order of `stride`, without gaps."""
    order = sorted(range(len(size)), key=lambda axis: (-stride[axis], axis))
    made = source.new_zeros([size[axis] for axis in order], dtype=dtype or source.dtype)
    return made.permute([order.index(axis) for axis in range(len(size))])


def _diagonal_scatter(source: Tensor, part: Tensor, *axes: int) -> Tensor:
    made = source.clone(memory_format=torch.contiguous_format)
    made.diagonal(*axes).copy_(part)
    return made


def flagged(args: Sequence[Any]) -> Callable[..., Any] | None:
    """Return how to put numbers where flags are set, in order, or None for any other way of putting at places."""
    source, indices, values, *rest = args
    mask, *others = indices
    if others or any(rest) or mask is None or mask.dtype != torch.bool:
        return None
    if mask.shape != source.shape[: mask.dim()]:
        return None
    if values.numel() == 1 or values.dim() <= source.dim() - mask.dim():
        return _alike_where
    in_order = values.dim() > 0 and values.shape[1:] == source.shape[mask.dim() :]
    return _in_order_where if in_order else None


def _alike_where(source: Tensor, indices: Sequence[Tensor], values: Tensor, *_: object, **__: object) -> Tensor:
    put = values.reshape(()) if values.numel() == 1 else values
    made: Tensor = aten.where.self(_over(indices[0], source), put, source)
    return made


def _in_order_where(source: Tensor, indices: Sequence[Tensor], values: Tensor, *_: object, **__: object) -> Tensor:
    return _masked_scatter(source, _over(indices[0], source), values)


def _over(mask: Tensor, source: Tensor) -> Tensor:
    """Return flags of whole parts of `source` as flags of all their elements."""
    return mask.reshape([*mask.shape, *[1] * (source.dim() - mask.dim())])


def _number_first(func: Callable[..., Any]) -> Callable[..., Any]:
    """Return how to carry out `func`, which takes two operands, where the first is a plain number."""

    def run(first: float, second: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  any operation
        given = second.new_full((), first, dtype=torch.result_type(first, second))
        return func(given, second, *args, **kwargs)

    return run


def _powered(target: Tensor, exponent: Any) -> Tensor:  # noqa: ANN401  a number or a tensor
    return target.copy_(torch.pow(target, exponent))


def _turned_places(source: Tensor) -> Tensor:
    """Return a copy whose channels lie side by side."""
    axes = list(range(source.dim()))
    inverse = [0, axes[-1], *axes[1:-1]]
    made = source.permute([0, *axes[2:], 1]).clone(memory_format=torch.contiguous_format)
    return made.permute(inverse)


def _complex_second(func: Callable[..., Any]) -> Callable[..., Any]:
    def run(first: Tensor, second: complex, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  any operation
        return func(first, torch.tensor(second, dtype=torch.result_type(first, second)), *args, **kwargs)

    return run


def special(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Callable[..., Any] | None:
    """Return how `func` is carried out as several others on these arguments, or None where it may be one."""
    name = str(func)
    if name in NUMBERED and not isinstance(args[0], Tensor):
        return _number_first(func)
    if name in NUMBERED and isinstance(args[1], complex):
        return _complex_second(func)
    if name == "aten.index_put.default":
        return flagged(args)
    if name in {"aten.sign.default", "aten.sgn.default"} and args[0].dtype == torch.bool:
        return torch.clone
    return COMPOSITIONS.get(name) or _laid_out(name, kwargs)


def plainly(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Sequence[Any]:
    """Return `args` with what torch works out by itself: a size of -1, a float that fills whole numbers."""
    name = str(func)
    if name in _SIZED and -1 in args[1]:
        return args[0], list(func(*args, **kwargs).shape), *args[2:]
    if name == "aten.constant_pad_nd.default" and len(args) > 2 and not args[0].dtype.is_floating_point:
        value = args[2]
        if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
            return *args[:2], int(value)
    return args


def _laid_out(name: str, kwargs: Mapping[str, Any]) -> Callable[..., Any] | None:
    """Return how to copy into a memory format that no plan knows, or None for any other operation."""
    plain = _COPIES.get(name)
    if plain is None or kwargs.get("memory_format") not in {torch.channels_last, torch.channels_last_3d}:
        return None

    def run(source: Tensor, *args: Any, **named: Any) -> Tensor:  # noqa: ANN401  any operation
        del named["memory_format"]
        return _turned_places(plain(source, *args, **named))

    return run


NUMBERED = frozenset(
    f"aten.{name}.Tensor"
    for name in ("add", "sub", "mul", "div", "eq", "ne", "lt", "le", "gt", "ge", "remainder", "fmod")
)
"""Operations of two operands of which torch lets either be a plain number."""
_SIZED = frozenset({"aten.view.default", "aten._unsafe_view.default", "aten.expand.default"})
"""Operations whose sizes may be left to torch."""
_COPIES: Mapping[str, Callable[..., Tensor]] = {
    f"aten.{name}.default": getattr(aten, name).default
    for name in ("clone", "_to_copy", "empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like")
}
COMPOSITIONS: Mapping[str, Callable[..., Any]] = {
    **ATTENTION,
    "aten.native_batch_norm.default": _batch_norm,
    "aten._native_batch_norm_legit.default": _batch_norm,
    "aten._batch_norm_with_update.default": _batch_norm_with_update,
    "prims.copy_to.default": _written,
    "aten.equal.default": _equal,
    "aten.allclose.default": _all_close,
    "aten.is_nonzero.default": _is_nonzero,
    "aten.rrelu_with_noise.default": _leaky_noise,
    "aten.bernoulli.default": _drawn,
    "aten.bernoulli.Tensor": _drawn_by,
    "aten.randint_like.default": _integers_below,
    "aten.randint_like.low_dtype": _integers_between,
    "aten.geometric.default": _waits,
    "aten.new_empty_strided.default": _empty,
    "aten.diagonal_scatter.default": _diagonal_scatter,
    "aten.take.default": _taken,
    "aten.put.default": _put,
    "aten.masked_scatter.default": _masked_scatter,
    "aten.masked_scatter_backward.default": _masked_scatter_backward,
    "aten.embedding_renorm.default": _renormed,
    "aten.addbmm.default": _products_summed,
    "aten._trilinear.default": _trilinear,
    "aten.scatter.reduce": _scatter_reduced,
    "aten.scatter.value_reduce": _scatter_reduced_number,
    "aten.multi_margin_loss_backward.default": _margins_backward,
    "aten._conj.default": aten.conj_physical.default,
    "aten._conj_physical.default": aten.conj_physical.default,
    "aten.pow_.Scalar": _powered,
    "aten.pow_.Tensor": _powered,
}
