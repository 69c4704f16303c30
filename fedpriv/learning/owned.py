"""What each worker has of its own, as values: which tensors of a model stay, or a whole model beside the shared one.

It is kept at the worker between rounds (`fedpriv.plans.own`) and leaves in no message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fedpriv.errors import UsageError, nearest


@dataclass(frozen=True, slots=True)
class Layers:
    """The layers of these names stay at each worker, with all that is in them."""

    names: tuple[str, ...]

    def stays(self, model: nn.Module) -> frozenset[str]:
        """Return the names of the tensors that stay; raise `UsageError` for a layer that the model has not."""
        tensors = [name for name, _ in (*model.named_parameters(), *model.named_buffers())]
        found: set[str] = set()
        for layer in self.names:
            inside = {name for name in tensors if name == layer or name.startswith(f"{layer}.")}
            if not inside:
                known = [name for name, _ in model.named_modules() if name]
                raise UsageError(
                    f"the model has no layer {layer!r}{nearest(layer, known)}; it has {', '.join(known) or 'none'}"
                )
            found |= inside
        return frozenset(found)


@dataclass(frozen=True, slots=True)
class BatchNorms:
    """Every BatchNorm stays at each worker: its weight, its bias and its statistics."""

    def stays(self, model: nn.Module) -> frozenset[str]:
        """Return the names of the tensors that stay; raise `UsageError` for a model without BatchNorm."""
        norms = [(name, module) for name, module in model.named_modules() if isinstance(module, _BatchNorm)]
        found = {
            f"{name}.{each}" if name else each
            for name, module in norms
            for each, _ in (*module.named_parameters(), *module.named_buffers())
        }
        if not found:
            raise UsageError(
                "fedbn keeps each worker's BatchNorm layers at that worker, and the model has none; use FedAvg, or "
                "FedPer(layers=...) for other layers"
            )
        return frozenset(found)


@dataclass(frozen=True, slots=True)
class Beside:
    """A whole model of each worker's own, pulled towards the shared one: g + strength (v - w), at the rate `lr`."""

    strength: float
    lr: float

    @property
    def hyperparameters(self) -> Mapping[str, float]:
        """The numbers that the plan takes as inputs."""
        return {"own_strength": float(self.strength), "own_lr": float(self.lr)}

    def stays(self, model: nn.Module) -> frozenset[str]:
        """Return nothing: the whole shared model travels."""
        del model
        return frozenset()

    def update(
        self,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor],
        received: Sequence[Tensor],
        hyper: Mapping[str, Tensor],
    ) -> Sequence[Tensor]:
        """Return the own model's parameters after a step; `received` is the shared model of the round."""
        bent = [g + (v - w) * hyper["own_strength"] for g, v, w in zip(gradients, parameters, received, strict=True)]
        return [v - g * hyper["own_lr"] for v, g in zip(parameters, bent, strict=True)]


Personal: TypeAlias = Layers | BatchNorms | Beside
