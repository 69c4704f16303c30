"""What the outputs of a plan derive from, and how many bytes they would be: before anything runs.

Labels follow the steps of the plan, never the run: every result derives from all operands of its step, views and
written buffers included, except where only their shapes matter. The forecast is what a ledger entry is checked
against afterwards. No tensor is made here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from fedpriv.errors import PlanRefused
from fedpriv.labels import PUBLIC, Label
from fedpriv.plans.operations import LabelRule, operation
from fedpriv.plans.plan import Plan, step_slots
from fedpriv.plans.validation import CheckedPlan


def output_labels(plan: Plan, inputs: Mapping[str, Label]) -> tuple[Label, ...]:
    """Return the label of each output, in order, from the labels of all inputs by name.

    Constants are the researcher's and public. Random draws are public: how many there are depends on no value.
    Raise `PlanRefused` when an input has no label: nothing is taken for public by omission.
    """
    missing = [each.name for each in plan.inputs if each.name not in inputs]
    if missing:
        raise PlanRefused(f"no label is known for input {missing[0]!r}; give one for every input")
    labels = [inputs[each.name] for each in plan.inputs] + [PUBLIC] * len(plan.constants)
    for index, step, filled in plan.walk():
        rule = operation(step.operation, step=index).label
        joined = PUBLIC
        if rule is LabelRule.JOIN:
            joined = joined.join(*(labels[slot] for slot in step_slots(step)))
        labels.extend([joined] * len(filled))
    return tuple(labels[output.slot] for output in plan.outputs)


def forecast(checked: CheckedPlan, batch: int) -> Mapping[str, int]:
    """Return the bytes of each output by name, were it released after running over `batch` rows."""
    slots = checked.at(batch).slots
    sizes: dict[str, int] = {}
    for output in checked.plan.outputs:
        meta = slots[output.slot]
        assert isinstance(meta, torch.Tensor)
        sizes[output.name] = math.prod(meta.shape) * meta.dtype.itemsize
    return sizes
