"""Sessions of values as a client written to cheat speaks them: each attack that once worked, or came near."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from by_hand import FREE, Hand, dense
from sites import Site

import fedpriv.plans.calls
from fedpriv.errors import PeerLost, StepFailed, WorkerRefused
from fedpriv.plans.calls import Call, Layout
from fedpriv.plans.plan import MAXIMUM_RESULTS, Slot, Step
from fedpriv.transport.runtime import runtime
from fedpriv.wire.codec import encode
from fedpriv.wire.values import AskObjects, AskRelease, Collect, Fetch, Objects, Ticket, Value

ROWS = dense("float32", 40, 4)
FLAT = dense("float32", 160)
CLONE = Call(Step("aten.clone.default", (Slot(0),)), (ROWS,))
COPY = Call(Step("aten.copy.default", (Slot(0), Slot(1))), (FLAT, FLAT), writes=True)
FLATTEN = Call(Step("aten.view.default", (Slot(0), (160,))), (ROWS,))
MULTIPLY = Call(Step("aten.mul.Tensor", (Slot(0), Slot(1))), (ROWS, ROWS))
SUM = Call(Step("aten.sum.default", (Slot(0),)), (ROWS,))
EXPONENTIAL = Call(Step("aten.exp.default", (Slot(0),)), (ROWS,))


@pytest.fixture
def hand(site: Site) -> Iterator[Hand]:
    hand = Hand(site)
    yield hand
    hand.close()


def code(hand: Hand, number: int) -> str:
    """Return with which code a value is refused."""
    with pytest.raises(WorkerRefused) as refused:
        hand.ask(Fetch(0, number))
    return refused.value.code


def ticket_for(hand: Hand, number: int, *, request: int | None = None) -> str:
    reply = hand.ask(AskRelease(0, number, "the mean of all cells"), request)
    assert isinstance(reply, Ticket)
    return reply.ticket


def test_two_results_of_one_operation_never_share_memory(site: Site, hand: Hand) -> None:
    """Batch norm in evaluation returns its running mean and variance: one tensor given for both came back as both."""
    strided = Layout("float32", (160,), (2,))
    select = Call(Step("aten.select.int", (Slot(0), 1, 0)), (Layout("float32", (160, 2), (2, 1)),))
    norm = Call(
        Step(
            "aten._native_batch_norm_legit_functional.default",
            (Slot(0), None, None, Slot(1), Slot(1), False, 0.1, 1e-5),
            (),
            5,
        ),
        (dense("float32", 1, 160), strided),
    )
    hand.put(1, torch.ones(160, 2), torch.ones(1, 160))
    hand.open(3)
    hand.calls([select, norm, FLATTEN, COPY], 1, 1, 5, 2, 2, 5, 6, 3, 3, 11, 4, 9, 11, 0)
    assert code(hand, 9) == "RELEASE_DENIED"
    untouched = hand.ask(Fetch(0, 10))
    assert isinstance(untouched, Value)
    assert not torch.equal(untouched.values["value"], site.datasets[0].features.flatten())


def test_an_approval_of_one_value_never_lets_out_another_of_the_same_recipe(site: Site, hand: Hand) -> None:
    """Two values, the same steps and the same request number: only the caller's own weights differ."""
    cell = torch.zeros(40, 4)
    cell[7, 2] = 1
    hand.open(1)
    hand.put(3, torch.full((40, 4), 1 / 160), cell)
    hand.calls([MULTIPLY, SUM], 1, 1, 3, 5, 2, 5, 6, 1, 1, 4, 7, 2, 7, 8)
    mean = ticket_for(hand, 6, request=77)
    site.desk.approve(mean, 1, 60.0)
    hand = hand.again()
    one_cell = ticket_for(hand, 8, request=77)
    assert one_cell != mean
    got = hand.ask(Collect(0, mean, 5.0))
    assert isinstance(got, Value)
    assert torch.allclose(got.values["value"], site.datasets[0].features.mean(), atol=1e-6)
    with pytest.raises(WorkerRefused) as refused:
        hand.ask(Collect(0, one_cell, 0.0))
    assert refused.value.code == "APPROVAL_PENDING"
    hand.close()


def test_a_message_that_breaks_off_does_nothing_and_ends_its_session(site: Site, hand: Hand) -> None:
    """A write that was believed and never ran would have shown its owner zeros where the rows still were."""
    zeros = Call(Step("aten.zeros_like.default", (Slot(0),)), (ROWS,), writes=True)
    hand.open(1)
    hand.ask(AskObjects(0))
    hand.calls([zeros], 1, 1, 0, 999)
    with pytest.raises(PeerLost):
        hand.ask(AskObjects(0))
    with pytest.raises(PeerLost):
        Hand(site)
    assert site.desk.requests() == []
    fresh = Hand(site, b"another session.")
    assert fresh.ask(AskObjects(0)) == Objects(2, ())
    fresh.close()


@pytest.mark.parametrize("question", [Fetch(0, 2), AskRelease(0, 2, "all of it")], ids=["fetch", "request"])
def test_a_view_that_shows_more_than_it_takes_is_not_copied_beyond_the_quota(hand: Hand, question) -> None:
    huge = 2**34 // 4
    hand.put(1, torch.tensor(1.0))
    hand.calls([Call(Step("aten.expand.default", (Slot(0), (huge,))), (dense("float32"),))], 1, 1, 2)
    with pytest.raises(WorkerRefused) as refused:
        hand.ask(question)
    assert refused.value.code == "OVER_QUOTA"


def test_a_definition_never_reserves_more_results_than_a_step_may_have(hand: Hand) -> None:
    many = Call(Step("aten.split.Tensor", (Slot(0), 1), results=MAXIMUM_RESULTS + 1), (ROWS,))
    hand.put(1, torch.ones(40, 4))
    hand.calls([many], 1, 1, 2)
    with pytest.raises(PeerLost):
        hand.ask(AskObjects(0))


def outcome(site: Site, failing: bool) -> tuple[object, ...]:
    """Return everything that a peer can see of an operation on rows, whether its kernel fails or not."""
    hand = Hand(site, b"0123456789abcde" + bytes([failing]))
    hand.open(1)
    alike = Call(Step("aten.ones_like.default", (Slot(0),)), (ROWS,))
    hand.calls([CLONE, EXPONENTIAL, alike], 1, 1, 10, 2, 10, 11, 1, 11, 12, 3, 11, 13, FREE, 10)
    seen: list[object] = [code(hand, 11), code(hand, 12), hand.ask(AskObjects(0), 50)]
    shape_alone = hand.ask(Fetch(0, 13), 60)
    assert isinstance(shape_alone, Value)
    seen += [shape_alone.values["value"].sum().item(), len(ticket_for(hand, 12))]
    hand.open(20)
    seen.append(code(hand, 20))
    hand.close()
    return tuple(seen)


def test_a_failure_on_rows_shows_in_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The failing kernel stands for any that might fail on values: whether it does is a question about the rows."""
    before = outcome(site, failing=False)
    run = fedpriv.plans.calls.Ready.run

    def failing(self, operands):
        if self._name == "aten.exp.default":
            raise StepFailed(step=0, operation=self._name)
        return run(self, operands)

    monkeypatch.setattr(fedpriv.plans.calls.Ready, "run", failing)
    assert outcome(site, failing=True) == before


def test_a_number_that_does_not_fit_is_no_question_about_rows(site: Site, hand: Hand) -> None:
    """Filling half precision with one cell of the rows failed where the cell was too large."""
    cell = Call(Step("aten.select.int", (Slot(0), 0, 0)), (dense("float32", 160),))
    large = Call(Step("aten.mul.Scalar", (Slot(0), 1e30)), (dense("float32"),))
    fill = Call(
        Step("aten.masked_fill.Tensor", (Slot(0), Slot(1), Slot(2))),
        (dense("float16", 1), dense("bool", 1), dense("float32")),
    )
    hand.put(1, torch.zeros(1, dtype=torch.float16), torch.ones(1, dtype=torch.bool), torch.ones(()))
    hand.calls([large, fill, cell], 1, 3, 10, 2, 1, 2, 10, 11)
    told = hand.ask(Fetch(0, 11))
    assert isinstance(told, Value), "of the caller's own a failure would be told"
    assert told.values["value"].isinf().all()


def test_what_an_owner_reads_of_memory_written_twice_is_no_lie(site: Site, hand: Hand) -> None:
    """One cell into the first place, the mean into the second: of the first place it was said to be the mean."""
    scalar = dense("float32")
    places = [Call(Step("aten.select.int", (Slot(0), 0, at)), (dense("float32", 2),)) for at in (0, 1)]
    row = Call(Step("aten.select.int", (Slot(0), 0, 7)), (ROWS,))
    cell = Call(Step("aten.select.int", (Slot(0), 0, 2)), (dense("float32", 4),))
    mean = Call(Step("aten.mean.default", (Slot(0),)), (ROWS,))
    write = Call(Step("aten.copy.default", (Slot(0), Slot(1))), (scalar, scalar), writes=True)
    hand.open(1)
    hand.put(3, torch.zeros(2))
    definitions = [*places, mean, row, cell, write]
    hand.calls(definitions, 1, 3, 10, 2, 3, 11, 3, 1, 12, 4, 1, 13, 5, 13, 14, 6, 10, 14, 0, 6, 11, 12, 0)
    listing = site.desk.explain(ticket_for(hand, 10))["facts"]["plan"]["listing"]
    assert listing[-1].endswith("any part of which, or none, was replaced by what #9 derives from")
    assert any("select" in line for line in listing)


def test_an_owner_reads_which_rows_a_value_is_of_however_many_inputs_it_has(site: Site, hand: Hand) -> None:
    hand.open(1)
    hand.put(3, *[torch.zeros(()) for _ in range(9)])
    scalar = dense("float32")
    mean = Call(Step("aten.mean.default", (Slot(0),)), (ROWS,))
    label = Call(Step("aten.select.int", (Slot(0), 0, 7)), (dense("float32", 40),))
    add = Call(Step("aten.add.Tensor", (Slot(0), Slot(1))), (scalar, scalar))
    added = [word for at in range(9) for word in (3, 20 + at, 3 + at, 21 + at)]
    hand.calls([mean, label, add], 1, 1, 20, *added, 2, 2, 40, 3, 29, 40, 41)
    text = " ".join(site.desk.explain(ticket_for(hand, 41))["text"].split())
    assert "toy/target" in text
    assert "3 more of the caller's own, which --steps names" in text


def test_nobody_waits_for_more_answers_than_there_are_tickets(site: Site, hand: Hand) -> None:
    hand.open(1)
    ticket = ticket_for(hand, 2)

    async def ask_often() -> None:
        for number in range(100):
            await hand._connection._link.send(encode(Collect(number + 1, ticket, 3600.0)))
        await hand._connection.ask(AskObjects(0))

    with pytest.raises(PeerLost):
        runtime.run(ask_often())
    again = Hand(site)
    assert isinstance(again.ask(AskObjects(0)), Objects)
    again.close()


def test_an_answer_that_was_lost_comes_again_with_the_same_bytes(site: Site, hand: Hand) -> None:
    hand.open(1)
    hand.calls([SUM], 1, 1, 3)
    ticket = ticket_for(hand, 3)
    site.desk.approve(ticket, 1, 60.0)
    first = hand.ask(Collect(0, ticket, 5.0))
    hand = hand.again()
    assert hand.ask(Collect(0, ticket, 5.0)) == first
    once, again = [entry for entry in site.journal.entries() if entry.draft.kind == "value"]
    assert again.draft == replace(once.draft, source=once.seq)
    hand.close()
