"""Labels reach every output that a private input reaches, and the forecast is what comes out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_families import BY_NAME, FAMILIES, program_of
from random_plans import random_plan

from fedpriv.errors import PlanRefused
from fedpriv.ids import DatasetName, PeerName
from fedpriv.labels import PUBLIC, private
from fedpriv.learning.local import SGD
from fedpriv.plans.interpreter import Program
from fedpriv.plans.labelling import forecast, output_labels
from fedpriv.plans.layout import TensorExample
from fedpriv.plans.plan import InputRole, OutputRole
from fedpriv.plans.tracing import trace_function
from fedpriv.plans.validation import validate

ROWS = private(DatasetName("hospital"), PeerName("owner"))
OTHER = private(DatasetName("bank"), PeerName("other"))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_everything_that_training_gives_derives_from_the_rows(family):
    plan = program_of(family, SGD(0.05, momentum=0.9)).plan
    rows = {InputRole.FEATURES: ROWS, InputRole.TARGET: OTHER}
    labels = output_labels(plan, {each.name: rows.get(each.role, PUBLIC) for each in plan.inputs})
    for output, label in zip(plan.outputs, labels, strict=True):
        if output.name.endswith("num_batches_tracked"):
            assert label == PUBLIC  # a count of batches, which the request chose
        elif output.role in {OutputRole.PARAMETER, OutputRole.LOSS}:
            assert ROWS.origins <= label.origins


def test_labels_join_and_shapes_are_public():
    plan = trace_function(
        lambda a, b: (a + b, a * 2, torch.zeros_like(b), torch.full((2,), 3.0)),
        TensorExample("float32", (2,)),
        TensorExample("float32", (2,)),
    )
    labels = output_labels(plan, {"argument0": ROWS, "argument1": OTHER})
    assert labels == (ROWS.join(OTHER), ROWS, PUBLIC, PUBLIC)


def test_an_input_without_a_label_is_not_taken_for_public():
    plan = trace_function(lambda a: a + 1, TensorExample("float32"))
    with pytest.raises(PlanRefused, match="argument0"):
        output_labels(plan, {})


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**9))
def test_an_output_changes_with_a_private_input_only_if_it_is_labelled(seed):
    plan = random_plan(seed)
    private_input = plan.inputs[0].name
    labels = output_labels(plan, {each.name: ROWS if each.name == private_input else PUBLIC for each in plan.inputs})
    program = Program(validate(plan))
    generator = torch.Generator().manual_seed(seed)
    values = [torch.rand(each.shape, generator=generator) for each in plan.inputs]
    first = program.run(*values)
    second = program.run(values[0] + 1.0, *values[1:])
    for label, one, other in zip(labels, first, second, strict=True):
        assert torch.equal(one, other) or label == ROWS


def test_the_forecast_is_what_comes_out():
    family = BY_NAME["residual with batch norm 2d"]
    checked = program_of(family, SGD(0.1)).checked
    sizes = forecast(checked, 5)
    state = Program(checked).bind(family.build().state_dict(), {"lr": 0.1}).state()
    assert sizes["loss"] == 4
    assert {name: value.nbytes for name, value in state.items()} == {
        name: size for name, size in sizes.items() if name != "loss"
    }
