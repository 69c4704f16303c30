"""Gradients of single rows in the form in which they are cheap: as factors, or as they are.

Each piece covers some parameters. It knows the squared norm of each row's gradient by them, and adds up rows by given
factors, each row on its own until then. Where a gradient is one outer product its norm is a product of norms, and the
weighted sum is one matrix product. Nothing is clipped here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedpriv_worker.taps import Tap

Squares: TypeAlias = npt.NDArray[np.float64]


@dataclass(slots=True)
class Outer:
    """Gradients that are sums of outer products of slopes (rows, n, out) and operands (rows, n, in)."""

    tap: Tap
    operand: Tensor
    slope: Tensor
    whole: Tensor | None = None
    """The products themselves, shape (rows, out, in), where several were added up for each row."""

    def squares(self) -> Squares:
        """Return the squared norm of each row's gradient, weight and bias together."""
        if self.operand.shape[1] == 1:
            product = _squared(self.operand)
            return _squared(self.slope) * (product if self.tap.bias is None else product + 1.0)
        self.whole = torch.bmm(self.slope.mT, self.operand)
        found = _squared(self.whole)
        return found if self.tap.bias is None else found + _squared(self.slope.sum(1))

    def zero(self, rows: Tensor) -> None:
        """Make the gradient of `rows` zero, whatever is in it."""
        self.slope = self.slope.masked_fill(rows[:, None, None], 0.0)
        self.operand = self.operand.masked_fill(rows[:, None, None], 0.0)
        if self.whole is not None:
            self.whole = self.whole.masked_fill(rows[:, None, None], 0.0)

    def add_into(self, flat: Tensor, offsets: Mapping[int, tuple[int, int]], factors: Tensor) -> None:
        """Write the sum over rows of factor times gradient to its place in `flat`."""
        start, end = offsets[self.tap.weight]
        if self.whole is None:
            slopes = self.slope[:, 0] * factors[:, None]
            torch.mm(slopes.t(), self.operand[:, 0], out=flat[start:end].view(slopes.shape[1], -1))
            bias = slopes.sum(0)
        else:
            torch.mv(self.whole.flatten(1).t(), factors, out=flat[start:end])
            bias = factors @ self.slope.sum(1)
        if self.tap.bias is not None:
            start, end = offsets[self.tap.bias]
            flat[start:end] = bias


@dataclass(slots=True)
class Whole:
    """Gradients of one parameter for each row, as they are."""

    at: int
    slope: Tensor

    def squares(self) -> Squares:
        """Return the squared norm of each row's gradient."""
        return _squared(self.slope)

    def zero(self, rows: Tensor) -> None:
        """Make the gradient of `rows` zero, whatever is in it."""
        self.slope = self.slope.masked_fill(rows.view(-1, *[1] * (self.slope.dim() - 1)), 0.0)

    def add_into(self, flat: Tensor, offsets: Mapping[int, tuple[int, int]], factors: Tensor) -> None:
        """Write the sum over rows of factor times gradient to its place in `flat`."""
        start, end = offsets[self.at]
        torch.mv(self.slope.reshape(len(factors), -1).t(), factors, out=flat[start:end])


Piece: TypeAlias = Outer | Whole


def piece_of(tap: Tap, operand: Tensor, slope: Tensor) -> Outer:
    """Return what a tap found, a convolution as a linear step on its patches."""
    if tap.convolution is None:
        return Outer(tap, operand.flatten(1, -2) if operand.dim() > 3 else operand, slope)
    return Outer(tap, _patches(operand[:, 0], *tap.convolution), slope[:, 0].flatten(2).mT)


def _patches(
    images: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    """Return what each place of a convolution sees of `images` (rows, channels, high, wide): (rows, places, values)."""
    images = torch.nn.functional.pad(images, (padding[1], padding[1], padding[0], padding[0]))
    for axis in (0, 1):
        reach = dilation[axis] * (kernel[axis] - 1) + 1
        images = images.unfold(2 + axis, reach, stride[axis])[..., :: dilation[axis]]
    rows, channels, high, wide = images.shape[:4]
    return images.permute(0, 2, 3, 1, 4, 5).reshape(rows, high * wide, channels * kernel[0] * kernel[1])


def _squared(values: Tensor) -> Squares:
    """Return the squared L2 norm of each row, in float64: no square or product of two of float32 is lost there.

    In float32 a norm below 1e-22 would be 0, its row would not be clipped, and a loss can be scaled so that it is.
    """
    norms: Squares = torch.linalg.vector_norm(values.reshape(len(values), -1), dim=1, dtype=torch.float64).numpy()
    return norms * norms
