"""A worker's own judgement of a plan that a peer sent, before anything runs.

`validate` believes nothing: names, slots, argument types, shapes, bytes and arithmetic are all derived again.
A `CheckedPlan` is the only thing that `interpreter.Program` accepts. What a plan may *learn* is not judged
here: that is for labels and the owner's rules.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch

from fedpriv.errors import PlanRefused, QuotaExceeded, TorchVersionMismatch
from fedpriv.plans.inference import Inference, Quota, infer
from fedpriv.plans.operations import operation
from fedpriv.plans.plan import BATCH, MAXIMUM_RESULTS, Constant, InputRole, OutputRole, Plan, step_slots
from fedpriv.updates import DTYPES

__all__ = ["CheckedPlan", "Quota", "torch_minor", "validate"]

MAXIMUM_NAME = 512
SLOTS_PER_STEP = 4
"""Results that a plan may have, for each step that the owner grants."""
_REPLACES = {
    OutputRole.PARAMETER: InputRole.PARAMETER,
    OutputRole.STATE: InputRole.STATE,
    OutputRole.OPTIMIZER: InputRole.OPTIMIZER,
    OutputRole.KEPT: InputRole.KEPT,
}
_ROWS = {InputRole.FEATURES, InputRole.TARGET, InputRole.ARGUMENT}


@dataclass(frozen=True)
class CheckedPlan:
    """A plan that passed `validate`, and its shapes at each batch size that was asked for."""

    plan: Plan
    quota: Quota
    _inferences: dict[int, Inference] = field(default_factory=dict, repr=False, compare=False)

    def at(self, batch: int) -> Inference:
        """Return the shapes and costs at `batch` rows; raise `PlanRefused` when it does not fit."""
        found = self._inferences.get(batch)
        if found is None:
            found = infer(self.plan, batch, self.quota)
            self._inferences[batch] = found
            while len(self._inferences) > _MAXIMUM_BATCHES:
                del self._inferences[next(iter(self._inferences))]
        return found


_MAXIMUM_BATCHES = 64


def validate(plan: Plan, quota: Quota | None = None, *, batches: Iterable[int] = (2,)) -> CheckedPlan:
    """Return `plan` as fit to run at each of `batches`; raise `PlanRefused` with the step and operation at fault."""
    checked = CheckedPlan(plan, quota or Quota())
    _check_version(plan)
    _check_size(plan, checked.quota)
    _check_inputs(plan)
    for constant in plan.constants:
        _check_constant(constant)
    _check_steps(plan, checked.quota)
    _check_outputs(plan)
    for batch in batches:
        checked.at(batch)
    return checked


def torch_minor(version: str) -> str:
    """Return "2.13" for "2.13.0+cpu"."""
    return ".".join(version.split("+", maxsplit=1)[0].split(".")[:2])


def _check_version(plan: Plan) -> None:
    ours = torch_minor(torch.__version__)
    if plan.torch_version != ours:
        raise TorchVersionMismatch(
            f"the plan was traced with torch {plan.torch_version[:16]!r}, this worker runs {ours}; trace it with {ours}"
        )


def _check_size(plan: Plan, quota: Quota) -> None:
    if len(plan.steps) > quota.maximum_steps:
        raise QuotaExceeded(f"{len(plan.steps)} steps, over the {quota.maximum_steps} that the owner grants")
    if len(plan.inputs) + len(plan.constants) + len(plan.outputs) > quota.maximum_inputs:
        raise QuotaExceeded(f"more than {quota.maximum_inputs} inputs, constants and outputs")
    held = sum(len(constant.content) for constant in plan.constants)
    if held > quota.maximum_constant_bytes:
        raise QuotaExceeded(f"{held} bytes of constants, over the {quota.maximum_constant_bytes} that the owner grants")


def _check_inputs(plan: Plan) -> None:
    names: set[str] = set()
    for each in plan.inputs:
        if not 0 < len(each.name) <= MAXIMUM_NAME or each.name in names:
            raise PlanRefused(f"input {each.name[:40]!r} is unnamed, too long or named twice")
        names.add(each.name)
        if each.dtype not in DTYPES:
            raise PlanRefused(f"input {each.name[:40]!r} has the unknown dtype {each.dtype[:32]!r}")
        if BATCH in each.shape[1:]:
            raise PlanRefused(f"input {each.name[:40]!r} may have the batch as its first dimension only")
        if BATCH in each.shape and each.role not in _ROWS:
            raise PlanRefused(f"input {each.name[:40]!r} is not per row, so its shape cannot depend on the batch")
        if each.role in {InputRole.FEATURES, InputRole.TARGET} and each.shape[:1] != (BATCH,):
            raise PlanRefused(f"input {each.name[:40]!r} must have the batch as its first dimension")
        if each.role is InputRole.HYPERPARAMETER and (each.dtype != "float64" or each.shape != ()):
            raise PlanRefused(f"hyperparameter {each.name[:40]!r} must be one float64")
    for role in (InputRole.FEATURES, InputRole.TARGET):
        if len(plan.inputs_of(role)) > 1:
            raise PlanRefused(f"more than one input has the role {role.value}")


def _check_constant(constant: Constant) -> None:
    if constant.dtype not in DTYPES or any(size < 0 for size in constant.shape):
        raise PlanRefused("a constant has an unknown dtype or a negative size")
    if constant.elements * DTYPES[constant.dtype].itemsize != len(constant.content):
        raise PlanRefused(
            f"a constant of shape {constant.shape} and {constant.dtype} has {len(constant.content)} bytes"
        )
    if constant.dtype == "bool" and not set(constant.content) <= {0, 1}:
        raise PlanRefused("a constant of dtype bool holds bytes other than 0 and 1")


def _check_steps(plan: Plan, quota: Quota) -> None:
    most = plan.first_step_slot + SLOTS_PER_STEP * quota.maximum_steps
    for index, step, filled in plan.walk():
        operation(step.operation, step=index)
        if not 1 <= step.results <= MAXIMUM_RESULTS:
            raise PlanRefused(f"step {index} has {step.results} results", step=index, operation=step.operation)
        if filled.stop > most:
            raise QuotaExceeded(
                f"the steps give more than {SLOTS_PER_STEP * quota.maximum_steps} results",
                step=index,
                operation=step.operation,
            )
        for slot in step_slots(step):
            if not 0 <= slot < filled.start:
                raise PlanRefused(
                    f"step {index} ({step.operation}) reads slot {slot}, which is not filled yet",
                    step=index,
                    operation=step.operation,
                )


def _check_outputs(plan: Plan) -> None:
    filled = plan.first_step_slot + sum(step.results for step in plan.steps)
    inputs = {each.name: each for each in plan.inputs}
    seen: set[str] = set()
    for output in plan.outputs:
        if not 0 <= output.slot < filled:
            raise PlanRefused(f"output {output.name[:40]!r} names slot {output.slot}, which nothing fills")
        if output.name in seen or not 0 < len(output.name) <= MAXIMUM_NAME:
            raise PlanRefused(f"output {output.name[:40]!r} is unnamed, too long or named twice")
        seen.add(output.name)
        wanted = _REPLACES.get(output.role)
        if wanted is not None and (output.name not in inputs or inputs[output.name].role is not wanted):
            raise PlanRefused(f"output {output.name[:40]!r} replaces no {wanted.value} input")
    if len(plan.outputs_of(OutputRole.LOSS)) > 1:
        raise PlanRefused("more than one output is the loss")
