"""Small models, one per family of layers, with rows and a loss that fit; shared by the tests of plans."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedpriv.plans.interpreter import Program
from fedpriv.plans.layout import TensorExample
from fedpriv.plans.tracing import trace_training
from fedpriv.plans.validation import validate

ROWS = 12
CLASSES = torch.randint(0, 3, (ROWS,), generator=torch.Generator().manual_seed(1))


@dataclass(frozen=True, eq=False)
class Family:
    name: str
    build: Callable[[], nn.Module]
    features: Tensor
    target: Tensor
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    smallest: int = 1


def drawn(*shape: int) -> Tensor:
    return torch.randn(ROWS, *shape, generator=torch.Generator().manual_seed(2))


def example(rows: Tensor) -> TensorExample:
    return TensorExample(str(rows.dtype).removeprefix("torch."), tuple(rows.shape[1:]))


@cache
def program_of(family: Family, rule) -> Program:
    """Return the traced step of a family; weights are not in a plan, so any model of the family will do."""
    plan = trace_training(family.build(), family.loss, rule, example(family.features), example(family.target))
    return Program(validate(plan))


class LastOf(nn.Module):
    """A recurrent layer, and a linear one on its last output."""

    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(width, 3)

    def forward(self, rows: Tensor) -> Tensor:
        return self.head(self.layer(rows)[0][:, -1])


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(3, 3)

    def forward(self, rows: Tensor) -> Tensor:
        return self.head(F.relu(rows + self.norm(self.first(rows))).mean((2, 3)))


class Activations(nn.Module):
    """Every activation, each on its own projection, summed."""

    def __init__(self, *activations: nn.Module) -> None:
        super().__init__()
        self.activations = nn.ModuleList(activations)
        self.into = nn.ModuleList(nn.Linear(4, 4) for _ in activations)
        self.head = nn.Linear(4, 3)

    def forward(self, rows: Tensor) -> Tensor:
        return self.head(torch.stack([a(i(rows)) for a, i in zip(self.activations, self.into, strict=True)]).sum(0))


def _sequential(*layers: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*(layer() for layer in layers))


def _squeezed(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda prediction, target: loss(prediction.squeeze(-1), target)


_smooth = (
    nn.ELU,
    nn.SELU,
    nn.CELU,
    nn.GELU,
    lambda: nn.GELU("tanh"),
    nn.SiLU,
    nn.Mish,
    nn.Tanh,
    nn.Sigmoid,
    nn.Softplus,
)
_broken = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.Hardtanh,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.PReLU,
    nn.Softshrink,
    nn.Hardshrink,
)
_other = (
    nn.Softsign,
    nn.LogSigmoid,
    nn.Tanhshrink,
    lambda: nn.Softmax(-1),
    lambda: nn.LogSoftmax(-1),
    lambda: nn.Threshold(0.1, 0.2),
)
_flat, _image, _line, _words = drawn(4), drawn(3, 8, 8), drawn(3, 10), torch.randint(0, 9, (ROWS, 5))
_real = drawn()
_yes = (_real > 0).float()
_linear = _sequential(lambda: nn.Linear(4, 3))
_single = _sequential(lambda: nn.Linear(4, 1))

FAMILIES = (
    Family("linear", _sequential(lambda: nn.Linear(4, 8), nn.ReLU, lambda: nn.Linear(8, 3)), _flat, CLASSES),
    Family("smooth activations", lambda: Activations(*(each() for each in _smooth)), _flat, CLASSES),
    Family("broken activations", lambda: Activations(*(each() for each in _broken)), _flat, CLASSES),
    Family("other activations", lambda: Activations(*(each() for each in _other)), _flat, CLASSES),
    Family(
        "conv1d, max and average pooling",
        _sequential(
            lambda: nn.Conv1d(3, 4, 3),
            lambda: nn.MaxPool1d(2),
            lambda: nn.AvgPool1d(2),
            nn.Flatten,
            lambda: nn.Linear(8, 3),
        ),
        _line,
        CLASSES,
    ),
    Family(
        "conv2d, max pooling",
        _sequential(
            lambda: nn.Conv2d(3, 4, 3, stride=2, padding=1),
            lambda: nn.MaxPool2d(2),
            nn.Flatten,
            lambda: nn.Linear(16, 3),
        ),
        _image,
        CLASSES,
    ),
    Family(
        "grouped and transposed convolution, adaptive pooling",
        _sequential(
            lambda: nn.Conv2d(3, 6, 3, groups=3),
            lambda: nn.ConvTranspose2d(6, 2, 2, stride=2),
            lambda: nn.AdaptiveAvgPool2d(3),
            lambda: nn.AdaptiveMaxPool2d(2),
            nn.Flatten,
            lambda: nn.Linear(8, 3),
        ),
        _image,
        CLASSES,
    ),
    Family(
        "batch norm 1d",
        _sequential(lambda: nn.Linear(4, 5, bias=False), lambda: nn.BatchNorm1d(5), lambda: nn.Linear(5, 3)),
        _flat,
        CLASSES,
        smallest=2,
    ),
    Family("residual with batch norm 2d", Residual, _image, CLASSES),
    Family(
        "group norm",
        _sequential(
            lambda: nn.Conv2d(3, 4, 3), lambda: nn.GroupNorm(2, 4), nn.ReLU, nn.Flatten, lambda: nn.Linear(144, 3)
        ),
        _image,
        CLASSES,
    ),
    Family(
        "embedding with layer norm",
        _sequential(
            lambda: nn.Embedding(9, 4, padding_idx=0), lambda: nn.LayerNorm(4), nn.Flatten, lambda: nn.Linear(20, 3)
        ),
        _words,
        CLASSES,
    ),
    Family("lstm", lambda: LastOf(nn.LSTM(4, 5, batch_first=True), 5), drawn(2, 4), CLASSES),
    Family("gru", lambda: LastOf(nn.GRU(4, 5, batch_first=True), 5), drawn(2, 4), CLASSES),
    Family(
        "transformer",
        _sequential(
            lambda: nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True),
            nn.Flatten,
            lambda: nn.Linear(12, 3),
        ),
        drawn(3, 4),
        CLASSES,
    ),
    Family("mse", _single, _flat, _real, _squeezed(F.mse_loss)),
    Family("l1", _single, _flat, _real, _squeezed(F.l1_loss)),
    Family("smooth l1", _single, _flat, _real, _squeezed(F.smooth_l1_loss)),
    Family("huber", _single, _flat, _real, _squeezed(F.huber_loss)),
    Family("bce", _sequential(lambda: nn.Linear(4, 1), nn.Sigmoid), _flat, _yes, _squeezed(F.binary_cross_entropy)),
    Family("bce with logits", _single, _flat, _yes, _squeezed(F.binary_cross_entropy_with_logits)),
    Family("nll", _sequential(lambda: nn.Linear(4, 3), lambda: nn.LogSoftmax(1)), _flat, CLASSES, F.nll_loss),
    Family("smoothed cross entropy", _linear, _flat, CLASSES, nn.CrossEntropyLoss(label_smoothing=0.1)),
    Family(
        "kl divergence",
        _sequential(lambda: nn.Linear(4, 3), lambda: nn.LogSoftmax(1)),
        _flat,
        torch.softmax(drawn(3), 1),
        lambda prediction, target: F.kl_div(prediction, target, reduction="batchmean"),
    ),
    Family(
        "cross entropy per pixel", _sequential(lambda: nn.Conv2d(3, 3, 3)), _image, torch.randint(0, 3, (ROWS, 6, 6))
    ),
)
BY_NAME = {family.name: family for family in FAMILIES}
