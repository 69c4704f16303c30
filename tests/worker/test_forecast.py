"""The forecast of an order against what carrying it out really sends."""

from __future__ import annotations

from functools import cache

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedpriv.errors import ReleaseDenied
from fedpriv.ids import DatasetName, JobId, PeerName
from fedpriv.labels import PUBLIC, private
from fedpriv.learning.local import SGD, Adam
from fedpriv.plans.interpreter import Program
from fedpriv.plans.layout import TensorExample
from fedpriv.plans.tracing import accuracy, trace_evaluation, trace_training
from fedpriv.plans.validation import validate
from fedpriv.policy.requests import Recipient, ReleaseRequest
from fedpriv.sealed import Envelope
from fedpriv.updates import TensorSet, TensorSpec
from fedpriv.wire import codec
from fedpriv.wire.framing import envelope_bytes, frames
from fedpriv.wire.messages import Evaluation, Mock, Statistics, Train, Update
from fedpriv_worker import training
from fedpriv_worker.datasets import Rows
from fedpriv_worker.forecast import ENTRY_KEY_BYTES, Forecast, changed_specs, forecast

ROWS = DatasetName("rows")
ORIGIN = private(ROWS, PeerName("alice"))
ME = Recipient(PeerName("me"), "coordinator")
OPTIMIZERS = (SGD(0.1), SGD(0.1, momentum=0.9), Adam())
FLOAT = TensorExample("float32", (5,))


def model(width: int, *, normalised: bool, frozen: bool) -> nn.Module:
    layers = [nn.Linear(5, width), nn.Tanh(), *([nn.BatchNorm1d(width)] if normalised else ()), nn.Linear(width, 3)]
    if frozen:
        layers[0].requires_grad_(requires_grad=False)
    return nn.Sequential(*layers)


@cache
def traced(width: int, normalised: bool, frozen: bool, optimizer: int):
    made = model(width, normalised=normalised, frozen=frozen)
    return trace_training(made, F.cross_entropy, OPTIMIZERS[optimizer], FLOAT, TensorExample("int64", ()))


def request(*releases: str, kinds: tuple[str, ...] = (), plan: str = "") -> ReleaseRequest:
    return ReleaseRequest(ME, ROWS, releases, kinds, plan, "study", 2, 4)


def size(message) -> int:
    envelope = codec.encode(message)
    sealed = Envelope(envelope.header, envelope.payload, (1 << 62), bytes(ENTRY_KEY_BYTES))
    total = envelope_bytes(sealed)
    assert total == sum(map(len, frames(sealed)))
    return total


@cache
def trained(width: int, normalised: bool, frozen: bool, optimizer: int):
    """Return a plan and what training with it came to."""
    plan = traced(width, normalised, frozen, optimizer)
    made = model(width, normalised=normalised, frozen=frozen)
    tensors = TensorSet({name: value.detach() for name, value in made.state_dict().items()})
    rows = Rows(torch.randn(13, 5), torch.randint(0, 3, (13,)))
    order = Train(
        1, JobId("j"), 1, ROWS, plan.digest, 1, 4, True, False, 0, OPTIMIZERS[optimizer].hyperparameters, ("loss",),
        "study", tensors,
    )  # fmt: skip
    return plan, training.train(Program(validate(plan)), rows, order, 0, lambda: False, {})[0]


@settings(max_examples=40, deadline=None)
@given(
    step=st.sampled_from([(1, False, True, 0), (130, True, False, 1), (3, False, False, 2)]),
    metrics=st.sampled_from([(), ("loss",)]),
    number=st.integers(0, (1 << 64) - 1),
    round_number=st.integers(0, (1 << 31) - 1),
    weight=st.floats(allow_nan=False),
)
def test_a_real_update_is_as_forecast(step, metrics, number, round_number, weight):
    plan, outcome = trained(*step)
    asked = request("update", *(("metrics",) if metrics else ()), kinds=metrics, plan=plan.digest.hex())
    foreseen = forecast(plan, asked, ORIGIN)
    message = Update(number, round_number, weight, {name: outcome.metrics[name] for name in metrics}, outcome.delta)
    total = size(message)
    assert outcome.delta.specs == foreseen.tensors == changed_specs(plan)
    assert codec.encode(message).payload_bytes == foreseen.payload_bytes
    assert total <= foreseen.most_bytes <= total + 40 + 4 * len(foreseen.tensors)
    foreseen.check("update", outcome.delta.specs, total)


def test_the_outputs_of_a_step_derive_from_the_rows():
    plan = traced(3, False, False, 0)
    labels = forecast(plan, request("update", plan=plan.digest.hex()), ORIGIN).labels
    assert labels.keys() == {each.name for each in plan.outputs}
    assert set(labels.values()) == {ORIGIN}


def test_a_counter_of_the_optimiser_derives_from_nothing_private():
    labels = forecast(traced(3, False, False, 2), request("update"), ORIGIN).labels
    assert PUBLIC in labels.values()


def test_an_evaluation_is_a_few_numbers():
    made = model(3, normalised=False, frozen=False)
    plan = trace_evaluation(made, F.cross_entropy, {"accuracy": accuracy}, FLOAT, TensorExample("int64", ()))
    foreseen = forecast(plan, request("metrics", kinds=("loss", "accuracy"), plan=plan.digest.hex()), ORIGIN)
    total = size(Evaluation(7, 3, 120.0, {"loss": 0.25, "accuracy": 0.9}))
    assert (foreseen.kind, foreseen.tensors, foreseen.payload_bytes) == ("evaluation", (), 0)
    assert total <= foreseen.most_bytes < 200
    foreseen.check("evaluation", (), total)


def test_statistics_are_a_number_per_column_whatever_the_order_asked_in():
    foreseen = forecast(None, request("statistics", kinds=("sum", "count")), ORIGIN, features=30)
    values = TensorSet({"sum": torch.ones(30, dtype=torch.float64), "count": torch.tensor(1.0, dtype=torch.float64)})
    assert foreseen.payload_bytes == values.nbytes == 31 * 8
    foreseen.check("statistics", values.specs, size(Statistics(9, values)))


def test_a_stand_in_is_as_large_as_its_owner_made_it():
    values = TensorSet({"features": torch.ones(4, 3), "target": torch.ones(4)})
    foreseen = forecast(None, request("mock"), ORIGIN, stand_in=values.specs)
    foreseen.check("mock", values.specs, size(Mock(2, values)))


def test_a_forecast_of_a_model_larger_than_memory_takes_none():
    huge = TensorSpec("w", "float64", (1 << 24, 1 << 20))
    assert forecast(None, request("mock"), ORIGIN, stand_in=(huge,)).payload_bytes == 1 << 47


FORESEEN = Forecast("update", (TensorSpec("a", "float32", (2,)), TensorSpec("b", "float32", ())), (), 12, 100)


@pytest.mark.parametrize(
    ("kind", "specs", "total", "says"),
    [
        ("statistics", FORESEEN.tensors, 90, "'statistics'"),
        ("update", FORESEEN.tensors[:1], 90, "1 tensor, 2 tensors"),
        ("update", (*FORESEEN.tensors, TensorSpec("rows", "float32", (9,))), 90, "3 tensors"),
        ("update", (TensorSpec("a", "float32", (3,)), FORESEEN.tensors[1]), 90, r"\[3\]"),
        ("update", (TensorSpec("a", "float64", (2,)), FORESEEN.tensors[1]), 90, "float64"),
        ("update", (FORESEEN.tensors[0], TensorSpec("c", "float32", ())), 90, "'c'"),
        ("update", FORESEEN.tensors, 101, "101 bytes, 100 at most"),
    ],
)
def test_what_was_not_forecast_stays(kind, specs, total, says):
    with pytest.raises(ReleaseDenied, match=says):
        FORESEEN.check(kind, specs, total)


def test_what_was_forecast_passes_in_any_order():
    FORESEEN.check("update", FORESEEN.tensors[::-1], 100)


@pytest.mark.parametrize("releases", [(), ("update",), ("update", "statistics"), ("rows",), ("mock", "metrics")])
def test_an_order_without_one_answer_has_no_forecast(releases):
    with pytest.raises(ReleaseDenied):
        forecast(None, request(*releases), ORIGIN)
