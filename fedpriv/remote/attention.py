"""Attention, which torch offers as fused kernels and a worker carries out by matrix products and a softmax.

Each function has the arguments of the kernel that it stands for, in torch's order, and gives the same numbers up to
rounding. They run at the caller's, on pointers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_OF_PLACES = 1
"""The type of a mask, (batch, places), that leaves out places; any other broadcasts as it is: torch's number."""


def _flash_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _: Tensor,
    attention: Tensor,
    *__: object,
    scale: float | None = None,
    **___: object,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients for `attention`, (batch, heads, places, places), which the forward gives in its place."""
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    shared = query.shape[1] // key.shape[1]
    keys, values = (each.repeat_interleave(shared, 1) for each in (key, value))
    towards = grad @ values.mT
    slope = attention * (towards - (towards * attention).sum(-1, keepdim=True)) * scale
    of_keys, of_values = (
        each.view(*each.shape[:1], key.shape[1], shared, *each.shape[2:]).sum(2)
        for each in (slope.mT @ query, attention.mT @ grad)
    )
    return slope @ keys, of_keys, of_values


def _heads(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    size: int,
    heads: int,
    weight: Tensor,
    bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    mask: Tensor | None = None,
    need_weights: bool = True,  # noqa: FBT001, FBT002  torch's order
    average: bool = True,  # noqa: FBT001, FBT002  as above
    mask_type: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Return the attention of several heads, (batch, places, size), and its weights where they are needed."""
    parts = zip((query, key, value), weight.chunk(3), bias.chunk(3), strict=True)
    q, k, v = (F.linear(*each).view(*each[0].shape[:2], heads, size // heads).transpose(1, 2) for each in parts)
    scores = (q / math.sqrt(size // heads)) @ k.mT
    if mask is not None:
        scores = scores.masked_fill(_spread(mask.to(torch.bool), mask_type), -math.inf)
    weights = scores.softmax(-1)
    result = F.linear((weights @ v).transpose(1, 2).flatten(2), out_weight, out_bias)
    if not need_weights:
        return result, None
    return result, weights.mean(1) if average else weights


def _spread(mask: Tensor, mask_type: int | None) -> Tensor:
    """Return a mask, true for what is left out, that broadcasts to (batch, heads, places, places)."""
    return mask[:, None, None, :] if mask_type == _OF_PLACES else mask


def _encoder_layer(
    source: Tensor,
    size: int,
    heads: int,
    weight: Tensor,
    bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    use_gelu: bool,  # noqa: FBT001  torch's order
    norm_first: bool,  # noqa: FBT001  as above
    eps: float,
    *rest: Any,  # noqa: ANN401  weights and biases of two norms and two layers, then the mask
) -> Tensor:
    """Return one layer of a transformer's encoder, as it is evaluated."""
    norm_1, norm_2 = ((size,), *rest[0:2], eps), ((size,), *rest[2:4], eps)
    wide, narrow = rest[4:6], rest[6:8]
    mask, mask_type = (*rest[8:], None, None)[:2]
    activation: Callable[[Tensor], Tensor] = F.gelu if use_gelu else F.relu

    def attended(x: Tensor) -> Tensor:
        given = (x, x, x, size, heads, weight, bias, out_weight, out_bias, mask)
        return _heads(*given, need_weights=False, mask_type=mask_type)[0]

    def fed_forward(x: Tensor) -> Tensor:
        return F.linear(activation(F.linear(x, *wide)), *narrow)

    if norm_first:
        source = source + attended(F.layer_norm(source, *norm_1))
        return source + fed_forward(F.layer_norm(source, *norm_2))
    source = F.layer_norm(source + attended(source), *norm_1)
    return F.layer_norm(source + fed_forward(source), *norm_2)


ATTENTION: Mapping[str, Callable[..., Any]] = {
    "aten._scaled_dot_product_flash_attention_for_cpu_backward.default": _flash_backward,
    "aten._native_multi_head_attention.default": _heads,
    "aten._transformer_encoder_layer_fwd.default": _encoder_layer,
}
