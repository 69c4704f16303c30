"""The order of a recorded run, carried out again by whoever attacks: on chosen rows, without any protection.

That is how an attack is shown to work where nothing protects (its positive control), how shadow models are trained, and
how guesses at a row are matched to what was released. What runs is the recorded plan, by the worker's own loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from fedpriv.plans.engine import Engine
from fedpriv.plans.interpreter import Program
from fedpriv.plans.plan import InputRole, OutputRole, Plan
from fedpriv.plans.scalars import evaluate
from fedpriv.plans.validation import validate
from fedpriv.updates import TensorSet
from fedpriv.wire.messages import Train
from fedpriv_worker.datasets import Rows
from fedpriv_worker.training import train

Array = npt.NDArray[np.float64]
_STEPS = 60
"""Iterations of a search for a row."""


@lru_cache(maxsize=4)
def _program(plan: Plan) -> Program:
    return Program(validate(plan))


class Replay:
    """One recorded order to train and its plan, ready to be run on any rows."""

    def __init__(self, plan: Plan, order: Train) -> None:
        self._plan = plan
        self._program = _program(plan)
        self._order = replace(order, metrics=(), invite=None)
        self._trained = [each.name for each in plan.outputs_of(OutputRole.PARAMETER)]

    def changed(self, rows: Rows, model: TensorSet | None = None, epochs: int | None = None) -> dict[str, Array]:
        """Return what training on `rows` as ordered changes, by tensor; without `epochs`, one step over all of them."""
        order = self._order if model is None else replace(self._order, model=model)
        if epochs is None:
            order = replace(order, epochs=1, batch_size=len(rows), shuffle=False, drop_last=False)
        else:
            order = replace(order, epochs=epochs)
        found = train(self._program, rows, order, order.seed, lambda: False, {})[0].delta
        return {name: found[name].to(torch.float64).numpy() for name in self._trained}

    def model(self, changed: Mapping[str, Array]) -> TensorSet:
        """Return the ordered model with `changed` added."""
        moved = {name: torch.from_numpy(changed[name]).to(torch.float32) for name in changed}
        return TensorSet({name: each + moved[name] if name in moved else each for name, each in self._order.model})

    def losses(self, model: TensorSet, rows: Rows) -> Array:
        """Return the loss of each row, shape (rows,)."""
        found = np.empty(len(rows))
        for at in range(len(rows)):
            bound = self._program.bind(model.tensors, self._order.hyperparameters)
            one = slice(at, at + 1)
            found[at] = float(bound.step(rows.features[one], rows.target[one])["loss"])
        return found

    def matched(self, released: Mapping[str, Array], targets: torch.Tensor) -> Array:
        """Return the one row whose gradient is nearest to `released`, flat: whatever it is under one of `targets`.

        Zhu, Liu, Han 2019 (DLG): the row is searched for by gradient descent on the difference of the gradients. Every
        label is tried, which is what iDLG spares (Zhao et al. 2020).
        """
        guesses = [self._searched(released, target) for target in targets]
        return min(guesses, key=lambda each: each[0])[1]

    def _searched(self, released: Mapping[str, Array], target: torch.Tensor) -> tuple[float, Array]:
        """Return how far apart the gradients stay, relative, and the row that was found."""
        block = self._program.block(1, plain=True)
        numbers = {
            at: self._order.hyperparameters[each.name]
            for at, each in enumerate(self._plan.inputs)
            if each.role is InputRole.HYPERPARAMETER
        }
        engine = Engine(block, evaluate(block, numbers), None, torch.device("cpu"))
        values = [self._value(each.role, each.name, each.shape) for each in self._plan.inputs]
        outputs = {each.name: at for at, each in enumerate(self._plan.outputs)}
        (shape,) = (each.shape[1:] for each in self._plan.inputs_of(InputRole.FEATURES))
        goal = {name: torch.from_numpy(each).to(torch.float32) for name, each in released.items()}
        size = sum(float(each.square().sum()) for each in goal.values()) or 1.0
        row = torch.full((1, *shape), 0.5, requires_grad=True)
        search = torch.optim.LBFGS([row], max_iter=_STEPS, line_search_fn="strong_wolfe", tolerance_change=1e-12)

        def apart() -> torch.Tensor:
            search.zero_grad()
            placed = {InputRole.FEATURES: row, InputRole.TARGET: target.reshape(1)}
            given = [placed.get(each.role, held) for each, held in zip(self._plan.inputs, values, strict=True)]
            found = engine.run([*given, *self._program.constants])
            total = torch.zeros(())
            for name, wanted in goal.items():
                total = total + (found[outputs[name]] - self._order.model[name] - wanted).square().sum() / size
            total.backward()  # type: ignore[no-untyped-call]
            return total

        search.step(apart)  # type: ignore[no-untyped-call]
        last = float(apart().detach())
        guess: Array = row.detach().flatten().to(torch.float64).numpy()
        return (last if np.isfinite(guess).all() else np.inf), guess

    def _value(self, role: InputRole, name: str, shape: tuple[int, ...]) -> torch.Tensor | None:
        if role in {InputRole.PARAMETER, InputRole.STATE, InputRole.FROZEN}:
            return self._order.model[name].clone()
        return torch.zeros(shape) if role is InputRole.OPTIMIZER else None
