"""What a researcher reads when a model, a loss or the workers' data sets do not fit together."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fedpriv as fp
from fedpriv.errors import TraceError, UsageError
from fedpriv.ids import DatasetName, WorkerName
from fedpriv.learning.local import LocalTraining
from fedpriv.wire.messages import Announcement
from fedpriv_coordinator.job import Job, agreed_schema, prepare
from fedpriv_worker.datasets import Dataset

LOSS = nn.functional.binary_cross_entropy_with_logits
FOUR = torch.randn(20, 4)


def network(layer: nn.Module) -> nn.Module:
    return nn.Sequential(layer, nn.Flatten(0))


def announced(**features: Dataset) -> dict[WorkerName, Announcement]:
    return {WorkerName(name): Announcement("2.13", (dataset.describe(),)) for name, dataset in features.items()}


def toy(features: torch.Tensor = FOUR, **options: object) -> Dataset:
    return Dataset("toy", features, torch.arange(len(features)) % 2 == 0, **options)


def prepared(
    model: object, loss: object = LOSS, local: object = None, features: torch.Tensor = FOUR, purpose: str = ""
) -> Job:
    return prepare(
        model,
        loss,
        dataset="toy",
        purpose=purpose,
        rounds=1,
        seed=0,
        local=LocalTraining() if local is None else local,
        quorum=None,
        deadline_seconds=1.0,
        worker_metrics=("loss",),
        schema=toy(features).describe(),
        workers=1,
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": nn.Linear}, "model is the class Linear; pass an instance"),
        ({"model": lambda rows: rows}, "model is a function; pass an instance"),
        ({"loss": "cross_entropy"}, "loss is a str; pass a function"),
        ({"loss": nn.BCEWithLogitsLoss}, r"pass an instance, BCEWithLogitsLoss\(\)"),
        ({"local": {"epochs": 1}}, r"local is a dict; pass fp.LocalTraining"),
        ({"model": network(nn.Linear(4, 1, device="meta"))}, "'0.weight' is on the device meta"),
    ],
)
def test_what_is_not_of_the_right_kind_is_refused_with_the_mend(given: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        prepared(**{"model": network(nn.Linear(4, 1)), **given})


@pytest.mark.parametrize("purpose", ["x" * 1025, "\u00e9" * 513, "two\nlines"])
def test_a_purpose_that_no_owner_would_read_is_refused_before_anything_is_sent(purpose: str) -> None:
    with pytest.raises(UsageError, match="an owner reads it"):
        prepared(network(nn.Linear(4, 1)), purpose=purpose)


@pytest.mark.parametrize(
    ("layer", "features", "message"),
    [
        (nn.Linear(7, 1), FOUR, "first layer takes 7 features, but data set 'toy' has 4 feature columns: x0, x1, x2"),
        (nn.Conv2d(3, 1, 1), torch.randn(9, 1, 2, 2), r"Conv2d, .* 3 channels first, but .* shape \(1, 2, 2\)"),
        (nn.Conv2d(1, 1, 1), FOUR, r"rows of 3 dimensions with 1 channel first, but .* shape \(4\)"),
        (nn.Embedding(9, 1), FOUR, "an Embedding, which takes whole numbers, .* are float32"),
        (nn.Linear(4, 1).bfloat16(), FOUR, "parameters are bfloat16 and the features float32: cast the input in forw"),
        (nn.Linear(4, 1).double(), FOUR, "parameters are float64 and the features float32: cast the input in forward"),
        (nn.Linear(4, 1), torch.ones(20, 4, dtype=torch.uint8), 'the features int64: .* features_dtype = "float32"'),
    ],
)
def test_a_model_that_does_not_take_the_rows_is_told_why(
    layer: nn.Module, features: torch.Tensor, message: str
) -> None:
    with pytest.raises(TraceError, match=message):
        prepared(network(layer), features=features)


def test_a_model_that_casts_its_input_may_have_another_dtype() -> None:
    class Casting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 1).bfloat16()

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return self.layer(rows.to(torch.bfloat16)).squeeze(-1).float()

    assert prepared(Casting()).training.steps


def test_a_misfit_elsewhere_keeps_its_own_words() -> None:
    with pytest.raises(TraceError, match=r"^cannot trace"):
        prepared(nn.Sequential(nn.Linear(4, 5), nn.Linear(6, 1), nn.Flatten(0)))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (toy(FOUR[:, :3]), "only 'alice' has 'x3' \\(float\\)"),
        (toy(columns=["x0", "x1", "x2", "age"]), "only 'bob' has 'age' \\(float\\)"),
        (toy(columns=["x1", "x0", "x2", "x3"]), "the same columns stand in another order at 'bob' than at 'alice'"),
        (toy(torch.ones(20, 4, dtype=torch.int32)), "column 'x0' is float at 'alice' and integer at 'bob'"),
        (toy(target_name="y"), "'alice' has the target 'target' \\(bool\\), 'bob' 'y' \\(bool\\)"),
    ],
)
def test_workers_that_disagree_on_the_schema_are_told_which_columns_differ(other: Dataset, message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        agreed_schema(DatasetName("toy"), announced(alice=toy(), bob=other))
    assert "Column(" not in str(refused.value)


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (torch.optim.Adam, r"the class torch.optim.adam.Adam; .* use fp.Adam\(lr=0.001\)"),
        (torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1), r"torch.optim.sgd.SGD; .* use fp.SGD"),
        (fp.AdamW, r"use fp.AdamW\(lr=0.001\)"),
        ("adam", r"of type str; .* use fp.Adam"),
    ],
)
def test_an_optimizer_that_is_not_ours_is_named_with_the_one_to_use(optimizer: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        LocalTraining(optimizer=optimizer)
