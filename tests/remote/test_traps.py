"""Threat model, rules 1 to 6: each trap with the program that would have leaked, on both transports."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from sites import MakeSite, Site, rows
from torch import Tensor

import fedpriv as fp
from fedpriv.errors import FedprivError, OperationNotAllowed, ReleaseDenied, WorkerRefused
from fedpriv.plans.calls import Call, Layout
from fedpriv.plans.plan import Slot, Step
from fedpriv.remote.pointer import RemoteTensor, at
from fedpriv.wire.values import Fetch


@pytest.fixture
def private(site: Site) -> RemoteTensor:
    features = site.pointed.dataset("toy").features
    assert isinstance(features, RemoteTensor)
    return features


def stays(pointer: Tensor) -> None:
    assert isinstance(pointer, RemoteTensor)
    assert not pointer.label.is_public
    with pytest.raises(ReleaseDenied):
        pointer.get()


@pytest.mark.parametrize(
    "control",
    [
        lambda x: bool(x[0, 0] > 0), lambda x: int(x[0, 0]), lambda x: float(x[0, 0]), lambda x: x[0, 0].item(),
        lambda x: x.tolist(), lambda x: x[0, 0] == x[0, 1] or None, lambda x: torch.allclose(x, x),
        lambda x: torch.equal(x, x),
        lambda x: f"{x[0, 0]:.2f}", lambda x: 0.5 in x, lambda x: x.numpy(), lambda x: x.__reduce_ex__(2),
        lambda x: [1 for each in x if each[0] > 0], lambda x: range(10)[x[0].argmax()],
        lambda x: x[0, 0].is_nonzero(),
    ],
)  # fmt: skip  # one line of cases
def test_rule_1_no_value_becomes_control_flow(private: RemoteTensor, site: Site, control) -> None:
    with pytest.raises((ReleaseDenied, OperationNotAllowed, TypeError)):
        control(private)
    assert "value" not in [entry.draft.kind for entry in site.journal.entries()]


def test_rule_1_refusals_say_what_to_do(private: RemoteTensor) -> None:
    with pytest.raises(ReleaseDenied, match=r"torch\.where"):
        bool(private.sum() > 0)
    with pytest.raises(ReleaseDenied, match=r"request\(\)"):
        private.sum().item()


def test_rule_1_shape_and_length_come_from_what_was_announced(private: RemoteTensor, site: Site) -> None:
    site.pointed.values.flush()
    trips = site.pointed.values.round_trips
    assert (len(private), private.shape, private.dtype, private.dim()) == (40, (40, 4), torch.float32, 2)
    assert "<RemoteTensor" in f"{private!r}{[private]}"
    assert site.pointed.values.round_trips == trips


def denied(site: Site, call: Call) -> str:
    """Send a call that no client of ours would make, and return the code that comes of it."""

    class Bare:
        definition = call

    layout = Layout.dense("float32", (4,))
    operands = [site.pointed.values.put([torch.ones(4)]) for _ in call.operands]
    number = site.pointed.values.use(Bare(), operands, [0.5] * call.numbers, 0 if call.writes else call.step.results)
    with pytest.raises(WorkerRefused) as refused:
        site.pointed.values.ask(Fetch(0, operands[0] if call.writes else number))
    assert layout in call.operands or call.operands
    return refused.value.code


FOUR = Layout.dense("float32", (4,))


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (Call(Step("aten.as_strided.default", (Slot(0), (9,), (1,))), (FOUR,)), "OPERATION_NOT_ALLOWED"),
        (Call(Step("aten.set_.source_Tensor", (Slot(0), Slot(1))), (FOUR, FOUR), writes=True), "OPERATION_NOT_ALLOWED"),
        (Call(Step("aten.nonzero.default", (Slot(0),)), (FOUR,)), "OPERATION_NOT_ALLOWED"),
        (Call(Step("aten._local_scalar_dense.default", (Slot(0),)), (FOUR,)), "OPERATION_NOT_ALLOWED"),
        (Call(Step("os.system", (Slot(0),)), (FOUR,)), "OPERATION_NOT_ALLOWED"),
        (Call(Step("__class__", (Slot(0),)), (FOUR,)), "OPERATION_NOT_ALLOWED"),
        (Call(Step("int.numel", (Slot(0),)), (FOUR,)), "PLAN_REFUSED"),
        (Call(Step("aten.abs.default", (Slot(0),)), (Layout("float32", (9,), (1,)),)), "INPUT_MISMATCH"),
        (Call(Step("aten.abs.default", (Slot(0),)), (Layout("float32", (4,), (2,)),)), "INPUT_MISMATCH"),
        (Call(Step("aten.abs.default", (Slot(0),)), (Layout("float64", (4,), (1,)),)), "INPUT_MISMATCH"),
        (Call(Step("aten.abs.default", (Slot(0),)), (Layout("float32", (2**41,), (1,)),)), "OVER_QUOTA"),
        (Call(Step("aten.abs.default", (Slot(0),)), (FOUR,), numbers=1), "PLAN_REFUSED"),
        (Call(Step("aten.exp.default", (Slot(1),)), (FOUR, FOUR)), "PLAN_REFUSED"),
        (Call(Step("aten.repeat.default", (Slot(0), (2**30,))), (FOUR,)), "OVER_QUOTA"),
        (Call(Step("aten.sum.default", (Slot(0),)), (FOUR,), writes=True), "PLAN_REFUSED"),
        (Call(Step("aten.exp.default", (Slot(0),)), (Layout("float32", (4,), (0,)),), writes=True), "PLAN_REFUSED"),
    ],
    ids=lambda each: each.step.operation if isinstance(each, Call) else each,
)  # fmt: skip  # one line of cases
def test_rule_2_what_is_not_reviewed_does_not_run(site: Site, call: Call, code: str) -> None:
    assert denied(site, call) == code


def test_rule_2_memory_that_nobody_wrote_is_zero(site: Site) -> None:
    pointer = site.pointed.send(torch.ones(1))
    for _ in range(50):
        assert not torch.empty_like(pointer.expand(1000)).get().any()
        assert not pointer.new_empty(1000).get().any()


@pytest.mark.parametrize(
    "launder",
    [
        lambda own, private: own.copy_(private[0]),
        lambda own, private: own.add_(private[0]),
        lambda own, private: own[1:].copy_(private[0, 1:]),
        lambda own, private: own.view(2, 2).t()[0].copy_(private[0, :2]),
        lambda own, private: torch.add(own, private[0], out=own),
        lambda own, private: own.index_put_((torch.tensor([0]),), private[0, :1]),
        lambda own, private: own.masked_fill_(private[0] > 0, 1.0),
        lambda own, private: own.mul_(private[0] * 0),
        lambda own, private: own.copy_(private[0]).zero_(),
    ],
)  # fmt: skip  # one line of cases
def test_rule_3_a_write_labels_every_view_of_the_memory(site: Site, private: RemoteTensor, launder) -> None:
    own = site.pointed.send(torch.zeros(4))
    before, elsewhere = own[:2], site.pointed.send(torch.zeros(4))
    launder(own, private)
    for each in (own, before, own[3:], own.view(2, 2), own.detach(), own.data, own * 0):
        stays(each)
    assert torch.equal(elsewhere.get(), torch.zeros(4))


def test_rule_3_running_statistics_and_optimiser_state_are_labelled(site: Site, private: RemoteTensor) -> None:
    layer = fp.send_module(torch.nn.BatchNorm1d(4), site.pointed)
    weight = fp.send_module(torch.nn.Linear(4, 1), site.pointed)
    optimizer = torch.optim.Adam(weight.parameters())
    weight(layer(private)).sum().backward()
    optimizer.step()
    stays(layer.running_mean)
    stays(weight.weight)
    stays(optimizer.state[weight.weight]["exp_avg"])
    with pytest.raises(ReleaseDenied):
        fp.get_module(layer)


def test_rule_3_a_chosen_weight_makes_its_gradient_private(site: Site, private: RemoteTensor) -> None:
    weight = site.pointed.send(torch.zeros(40, 4)).requires_grad_()
    (weight * private).sum().backward()
    assert weight.grad is not None
    stays(weight.grad)
    assert torch.equal(weight.detach().get(), torch.zeros(40, 4))


def test_rule_3_shapes_alone_derive_from_nothing(site: Site, private: RemoteTensor) -> None:
    assert torch.equal(torch.ones_like(private).get(), torch.ones(40, 4))


def test_rule_3_random_draws_do_not_depend_on_what_was_drawn_for(site: Site, private: RemoteTensor) -> None:
    dropped = F.dropout(private, 0.5)
    stays(dropped)
    drawn = torch.rand_like(private)
    assert drawn.label.is_public
    assert drawn.get().shape == (40, 4)


@pytest.mark.parametrize(
    "ask",
    [lambda x: x.nonzero(), lambda x: x.unique(), lambda x: x[x > 0], lambda x: x.masked_select(x > 0),
     lambda x: x[:, 0].long().bincount(), lambda x: torch.argwhere(x > 0), lambda x: x.repeat_interleave(x[0].long())],
)  # fmt: skip  # one line of cases
def test_rule_4_shapes_that_depend_on_values_are_refused(private: RemoteTensor, ask) -> None:
    with pytest.raises((OperationNotAllowed, ReleaseDenied, RuntimeError)):
        ask(private)


@pytest.mark.parametrize(
    "fail",
    [
        lambda x: F.embedding((x[:, 0] * 1e6).long(), x.new_ones(3, 2)),
        lambda x: F.nll_loss(x, (x[:, 0] * 1e6).long()),
        lambda x: F.binary_cross_entropy(x, x),
        lambda x: x.gather(1, (x * 1e6).long()),
        lambda x: x[(x[:, 0] * 1e6).long()],
        lambda x: x.long() // (x.long() * 0),
    ],
)  # fmt: skip  # one line of cases
def test_rule_5_values_decide_neither_over_failure_nor_over_its_text(
    make_site: MakeSite, caplog: pytest.LogCaptureFixture, fail: Callable[[Tensor], Tensor]
) -> None:
    """The error oracle: whether an operation fails must say nothing of the rows."""
    answers = []
    with caplog.at_level(logging.DEBUG):
        for seed in (0, 1):
            site = make_site(rows(seed), name=f"bob-{seed}")
            features = site.pointed.dataset("toy").features
            try:
                fail(features).request("why")
                answers.append("asked")
            except FedprivError as error:
                answers.append(type(error).__name__)
    assert len(set(answers)) == 1
    assert "out of bounds" not in caplog.text
    assert "Target" not in caplog.text


def test_rule_6_a_view_travels_without_its_neighbours(site: Site) -> None:
    whole = site.pointed.send(torch.arange(1000.0))
    part = whole[10:12]
    got = part.get()
    assert torch.equal(got, torch.tensor([10.0, 11.0]))
    assert got.untyped_storage().nbytes() == 8
    sizes = [entry.draft.bytes for entry in site.journal.entries() if entry.draft.kind == "value"]
    assert sizes[-1] < 200


def test_rule_6_what_leaves_has_no_gradient_and_one_kind_of_nan(site: Site) -> None:
    strange = torch.tensor([0x7FC00001, 0x7FC12345], dtype=torch.int32).view(torch.float32)
    got = (site.pointed.send(strange).requires_grad_() * 1).get()
    assert not got.requires_grad
    assert got.view(torch.int32).unique().numel() == 1


def test_nobody_reaches_a_number_that_is_not_its_own(site: Site) -> None:
    own = site.pointed.send(torch.ones(1))
    foreign = at(site.pointed.values, own._handle.id + 1000, Layout.dense("float32", (1,)))
    with pytest.raises(WorkerRefused) as refused:
        foreign.get()
    assert refused.value.code == "BAD_REQUEST"
    with pytest.raises(WorkerRefused):
        (own + foreign).get()
    assert own.get().item() == 1.0
    foreign._handle.keep = True
