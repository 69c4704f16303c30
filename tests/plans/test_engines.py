"""However a plan is run, fused or plain, compiled or node by node, it computes the same."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_families import BY_NAME, FAMILIES, program_of
from random_plans import SIZE, random_plan

from fedpriv.errors import InputMismatch, StepFailed, UsageError
from fedpriv.learning.local import SGD, AdamW
from fedpriv.plans.blocks import overload_named
from fedpriv.plans.interpreter import MAXIMUM_KEPT, Program
from fedpriv.plans.layout import TensorExample
from fedpriv.plans.tracing import trace_function
from fedpriv.plans.validation import validate


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 10**9))
def test_a_random_plan_computes_the_same_in_every_engine(seed):
    plan = random_plan(seed, trained=True)
    program = Program(validate(plan, batches=(SIZE,)))
    generator = torch.Generator().manual_seed(seed)
    state = {name: torch.rand(SIZE, SIZE, generator=generator) - 0.5 for name in ("p0", "p1", "f")}
    kept = {name: value.clone() for name, value in state.items()}
    rows = [torch.rand(3 * SIZE, SIZE, generator=generator) - 0.5 for _ in range(2)]
    before = [each.clone() for each in rows]
    plain, fused, compiled = (program.bind(state, {"lr": 0.5}) for _ in range(3))
    assert program.native(SIZE) is not None
    total = 0.0
    for start in range(0, 3 * SIZE, SIZE):
        cut = [each[start : start + SIZE] for each in rows]
        expected = plain._run(SIZE, *cut, plain=True)
        outputs = fused.step(*cut)
        torch.testing.assert_close(outputs["loss"], expected[2], equal_nan=True)
        total += float(expected[2])
    mean = compiled.epoch(*rows, None, SIZE)["loss"]
    torch.testing.assert_close(torch.tensor(mean), torch.tensor(total / 3), equal_nan=True, rtol=1e-4, atol=1e-5)
    for name, value in plain.state().items():
        torch.testing.assert_close(fused.state()[name], value, equal_nan=True)
        torch.testing.assert_close(compiled.state()[name], value, equal_nan=True)
    assert all(torch.equal(value, kept[name]) for name, value in state.items())
    assert all(torch.equal(one, other) for one, other in zip(rows, before, strict=True))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_family_compiles(family):
    assert program_of(family, SGD(0.05, momentum=0.9)).native(4) is not None


def test_a_training_step_is_fused_down_to_what_one_writes_by_hand():
    names = [node.name for node in program_of(BY_NAME["linear"], SGD(0.1)).block(4).nodes]
    assert names.count("aten.addmm_.default") == 2
    assert names.count("aten.sub_.Tensor") == 2
    assert "aten.relu_.default" in names
    assert not {"aten.mul.Tensor", "aten.detach.default", "aten.clamp.default", "aten.ones_like.default"} & set(names)


def test_binding_never_writes_to_what_it_was_given():
    family = BY_NAME["residual with batch norm 2d"]
    state = family.build().state_dict()
    kept = {name: value.clone() for name, value in state.items()}
    rule = AdamW(0.1)
    bound = program_of(family, rule).bind(state, rule.hyperparameters)
    bound.epoch(family.features, family.target, None, 5)
    first = bound.state()
    copied = {name: value.clone() for name, value in first.items()}
    bound.epoch(family.features, family.target, None, 5)
    assert all(torch.equal(value, kept[name]) for name, value in state.items())
    assert all(torch.equal(value, copied[name]) for name, value in first.items())
    assert not torch.equal(first["head.weight"], bound.state()["head.weight"])


def test_order_and_drop_last_choose_the_rows():
    family = BY_NAME["linear"]
    state = family.build().state_dict()
    program = program_of(family, SGD(0.1))
    order = torch.tensor([5, 1, 1, 7, 0])
    one, other = (program.bind(state, {"lr": 0.1}) for _ in range(2))
    one.epoch(family.features, family.target, order, 2, drop_last=True)
    other.epoch(family.features[order[:4]], family.target[order[:4]], None, 2)
    assert torch.equal(one.state()["0.weight"], other.state()["0.weight"])
    assert one.epoch(family.features[:0], family.target[:0], None, 2) == {}
    assert one.epoch(family.features, family.target, order[:1], 2, drop_last=True) == {}
    with pytest.raises(UsageError, match="batch_size is 0"):
        one.epoch(family.features, family.target, None, 0)


def test_large_epochs_are_gathered_in_pieces(monkeypatch):
    family = BY_NAME["linear"]
    state = family.build().state_dict()
    program = program_of(family, SGD(0.1))
    order = torch.randperm(12)
    whole, pieces = (program.bind(state, {"lr": 0.1}) for _ in range(2))
    first = whole.epoch(family.features, family.target, order, 2)
    monkeypatch.setattr("fedpriv.plans.interpreter.CHUNK_BYTES", 100)
    second = pieces.epoch(family.features, family.target, order, 2)
    assert first["loss"] == pytest.approx(second["loss"], rel=1e-6)
    assert torch.equal(whole.state()["0.weight"], pieces.state()["0.weight"])


def test_what_does_not_fit_the_inputs_is_refused_before_it_runs():
    family = BY_NAME["linear"]
    program = program_of(family, SGD(0.1))
    state = family.build().state_dict()
    with pytest.raises(InputMismatch, match=r"no tensor '0\.weight'"):
        program.bind({}, {"lr": 0.1})
    with pytest.raises(InputMismatch, match=r"'0\.bias' needs float32"):
        program.bind({**state, "0.bias": torch.zeros(8, dtype=torch.float64)}, {"lr": 0.1})
    with pytest.raises(InputMismatch, match="hyperparameter 'lr'"):
        program.bind(state, {})
    bound = program.bind(state, {"lr": 0.1})
    with pytest.raises(InputMismatch, match="'features' needs"):
        bound.step(torch.zeros(2, 5), family.target[:2])
    with pytest.raises(InputMismatch, match="'target' needs"):
        bound.epoch(family.features, family.target.float(), None, 4)
    with pytest.raises(InputMismatch, match="'target' needs"):
        bound.epoch(family.features, family.target[:5], None, 4)
    function = Program(validate(trace_function(lambda rows: rows + 1, TensorExample("float32", (2,)))))
    with pytest.raises(UsageError, match="takes 1 argument"):
        function.run()
    with pytest.raises(UsageError, match="call `run`"):
        function.bind({}, {})


def test_a_failing_step_gives_its_number_and_name_and_no_text_of_torch():
    program = Program(validate(trace_function(lambda rows: (rows * 2).exp(), TensorExample("float32", (2,)))))
    block = program.block(3)
    block.every_node()[1].arguments = ["secret"]
    with pytest.raises(StepFailed) as caught:
        program.run(torch.ones(3, 2))
    assert (caught.value.step, caught.value.operation) == (1, "aten.exp.default")
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_failure_in_the_compiled_loop_is_found_again_by_its_step(monkeypatch):
    family = BY_NAME["linear"]
    program = Program(program_of(family, SGD(0.1)).checked)
    loop = program.native(4)

    def broken(*_arguments):
        raise RuntimeError("Target 7 is out of bounds")

    monkeypatch.setattr(loop, "_function", broken)
    bound = program.bind(family.build().state_dict(), {"lr": 0.1})
    with pytest.raises(StepFailed) as caught:
        bound.epoch(family.features, family.target, None, 4)
    assert "Target" not in str(caught.value)


def test_a_peer_that_varies_the_batch_size_does_not_grow_the_program():
    program = Program(program_of(BY_NAME["mse"], SGD(0.1)).checked)
    for batch in range(1, MAXIMUM_KEPT + 9):
        program.native(batch)
    assert len(program._blocks) == len(program._natives) == MAXIMUM_KEPT


def test_the_engines_know_only_overloads_of_the_list_and_their_own():
    for name in ("aten.set_.source_Tensor", "aten.as_strided.default", "aten.item.default", "aten.resize_.default"):
        with pytest.raises(KeyError):
            overload_named(name)
