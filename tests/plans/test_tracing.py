"""What tracing gives, that it gives it again, and what it says of a model that cannot be a plan."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from plan_families import BY_NAME, example
from torch import nn

from fedpriv.errors import TraceError, UsageError
from fedpriv.learning.local import SGD, Adam
from fedpriv.plans.layout import TensorExample
from fedpriv.plans.plan import BATCH, InputRole, OutputRole
from fedpriv.plans.tracing import accuracy, trace_evaluation, trace_function, trace_training

ROW = TensorExample("float32", (4,))
REAL = TensorExample("float32")
LABEL = TensorExample("int64")


def traced(model, loss=F.cross_entropy, target=LABEL, features=ROW, rule=None):
    return trace_training(model, loss, rule or SGD(0.1), features, target)


class Written(nn.Module):
    """A linear layer followed by whatever a test writes."""

    def __init__(self, then):
        super().__init__()
        self.layer, self.then = nn.Linear(4, 3), then

    def forward(self, rows):
        return self.then(self.layer(rows), rows)


@pytest.mark.parametrize("name", ["linear", "residual with batch norm 2d", "embedding with layer norm", "bce", "lstm"])
def test_weights_are_not_in_the_digest(name):
    family = BY_NAME[name]
    plans = [
        trace_training(family.build(), family.loss, SGD(lr), example(family.features), example(family.target))
        for lr in (0.1, 0.2)
    ]
    assert plans[0].digest == plans[1].digest


def test_what_is_computed_is_in_the_digest():
    family = BY_NAME["linear"]
    rules = [
        SGD(0.1),
        SGD(0.1, momentum=0.9),
        SGD(0.1, weight_decay=0.1),
        SGD(0.1, momentum=0.9, nesterov=True),
        Adam(0.1),
    ]
    digests = {traced(family.build(), rule=rule).digest for rule in rules}
    digests.add(traced(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))).digest)
    assert len(digests) == 6


@pytest.mark.slow
def test_another_process_gives_the_same_digest():
    program = (
        "import torch\nfrom torch import nn\nfrom fedpriv.learning.local import SGD\n"
        "from fedpriv.plans.tracing import *\n"
        "m = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(), nn.Flatten(), nn.Linear(72, 3))\n"
        "rows, label = TensorExample('float32', (1, 8, 8)), TensorExample('int64')\n"
        "p = trace_training(m, torch.nn.functional.cross_entropy, SGD(0.1), rows, label)\n"
        "print(p.digest.hex())"
    )
    seen = {
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(seen) == 1


def test_inputs_are_named_as_the_state_of_the_model():
    plan = traced(
        BY_NAME["residual with batch norm 2d"].build(),
        features=TensorExample("float32", (3, 8, 8)),
        rule=SGD(0.1, momentum=0.9),
    )
    names = {role: [each.name for each in plan.inputs_of(role)] for role in InputRole}
    assert names[InputRole.PARAMETER] == ["first.weight", "norm.weight", "norm.bias", "head.weight", "head.bias"]
    assert names[InputRole.STATE] == ["norm.running_mean", "norm.running_var", "norm.num_batches_tracked"]
    assert names[InputRole.HYPERPARAMETER] == ["lr", "momentum"]
    assert names[InputRole.OPTIMIZER] == [f"{name}/momentum_buffer" for name in names[InputRole.PARAMETER]]
    assert plan.inputs_of(InputRole.FEATURES)[0].shape == (BATCH, 3, 8, 8)
    assert [each.name for each in plan.outputs_of(OutputRole.STATE)] == names[InputRole.STATE]


def test_a_buffer_that_the_step_only_reads_is_frozen():
    model = Written(lambda out, rows: out)
    model.register_buffer("scale", torch.ones(3))
    model.then = lambda out, rows: out * model.scale
    plan = traced(model)
    assert [each.name for each in plan.inputs_of(InputRole.FROZEN)] == ["scale"]
    assert plan.outputs_of(OutputRole.STATE) == ()


def test_tracing_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout()).eval()
    model[1].train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    traced(model)
    trace_evaluation(model, F.cross_entropy, {"accuracy": accuracy}, ROW, LABEL)
    assert [module.training for module in model] == [False, True, False]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    "then",
    [
        lambda out, rows: out if out.sum() > 0 else -out,
        lambda out, rows: out * out.sum().item(),
        lambda out, rows: out[out[:, 0] > 0],
        lambda out, rows: out * len(torch.unique(rows)),
        lambda out, rows: out + torch.nonzero(rows).sum(),
    ],
    ids=["branch", "item", "boolean index", "unique", "nonzero"],
)
def test_what_needs_a_value_says_so_with_its_line(then):
    with pytest.raises(TraceError, match=r"(?s)(value|boolean index).*test_tracing\.py:\d+"):
        traced(Written(then))


def test_an_operation_outside_the_list_is_named_with_its_line():
    with pytest.raises(TraceError, match=r"'aten\.linalg_qr\.default'.*test_tracing\.py:\d+"):
        traced(Written(lambda out, rows: out + torch.linalg.qr(rows).Q.sum()))


def test_a_branch_on_the_number_of_rows_is_refused_with_its_line():
    with pytest.raises(TraceError, match=r"number of rows at .*test_tracing\.py:\d+"):
        traced(Written(lambda out, rows: out if rows.shape[0] > 4 else -out))


def test_a_fixed_number_of_rows_is_refused():
    with pytest.raises(TraceError, match=r"rows|trace"):
        traced(Written(lambda out, rows: out + torch.ones(11, 3)))


@pytest.mark.parametrize("loss", [F.mse_loss, F.binary_cross_entropy_with_logits, F.l1_loss])
def test_a_column_against_a_vector_says_to_squeeze(loss):
    with pytest.raises(TraceError, match=r"shape \(rows, 1\).*shape \(rows\).*squeeze\(-1\)"):
        traced(nn.Linear(4, 1), loss, REAL)


def test_a_target_of_the_wrong_dtype_names_both():
    with pytest.raises(TraceError, match=r"float32 of shape \(rows, 3\).*float32 of shape \(rows\)"):
        traced(nn.Linear(4, 3), F.cross_entropy, REAL)


def test_a_loss_per_row_says_to_average():
    with pytest.raises(TraceError, match="average over the rows"):
        traced(nn.Linear(4, 3), lambda prediction, target: F.cross_entropy(prediction, target, reduction="none"))


def test_what_cannot_be_used_says_what_to_do():
    with pytest.raises(TraceError, match="one tensor"):
        traced(Written(lambda out, rows: (out, out)))
    with pytest.raises(UsageError, match="nothing to train"):
        traced(nn.Flatten())
    with pytest.raises(UsageError, match="is not known"):
        traced(nn.Linear(4, 3), features=TensorExample("float33", (4,)))
    with pytest.raises(UsageError, match="rename it"):
        trace_evaluation(nn.Linear(4, 3), F.cross_entropy, {"loss": accuracy}, ROW, LABEL)
    with pytest.raises(TraceError, match=r"cannot trace.*same reduction dim"):
        traced(nn.Linear(5, 3))
    big = torch.ones(400, 400)
    with pytest.raises(TraceError, match="too large"):
        traced(Written(lambda out, rows: out + big.sum()))
    with pytest.raises(TraceError, match="tuple of tensors"):
        trace_function(lambda rows: {"rows": rows}, ROW)


def test_a_small_tensor_of_the_loss_becomes_a_constant():
    weights = torch.tensor([1.0, 2.0, 3.0])
    plan = traced(nn.Linear(4, 3), lambda prediction, target: F.cross_entropy(prediction, target, weight=weights))
    assert [(each.dtype, each.shape) for each in plan.constants] == [("float32", (3,))]
    assert plan.constants[0].content == weights.numpy().tobytes()


def test_accuracy_knows_logits_from_classes():
    logits, answers = torch.tensor([1.0, -1.0, 2.0, -3.0]), torch.tensor([1.0, 1.0, 1.0, 0.0])
    assert accuracy(logits, answers).item() == 0.75
    assert accuracy(logits[:, None], answers).item() == 0.75
    assert accuracy(torch.eye(3), torch.tensor([0, 1, 0])).item() == pytest.approx(2 / 3)
