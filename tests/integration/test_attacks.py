"""A peer that holds a valid certificate and no good intentions; each test is named after what it must not reach."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fleets import toy
from torch import nn

import fedpriv as fp
from fedpriv.errors import PeerLost
from fedpriv.ids import DatasetName, JobId
from fedpriv.learning.local import SGD
from fedpriv.plans.layout import TensorExample
from fedpriv.plans.plan import Plan, Slot, Step
from fedpriv.plans.tracing import trace_training
from fedpriv.transport.credentials import Credentials
from fedpriv.transport.hello import Side, greet
from fedpriv.transport.link import OpenLink
from fedpriv.transport.memory import memory_pair
from fedpriv.transport.runtime import runtime
from fedpriv.updates import TensorSet
from fedpriv.wire import codec
from fedpriv.wire.messages import ErrorCode, Failure, Hello, Message, OfferPlan, PlanAccepted, Role, Train, Update
from fedpriv_worker.actions import Broken
from fedpriv_worker.executor import Programs
from fedpriv_worker.worker import MAXIMUM_SESSIONS, serve_quietly

Make = Callable[..., fp.VirtualWorker]
UNIFORM = (fp.PlainUpdate(recipients=("mallory",), weight="uniform"),)


class Attacker:
    """A researcher's end of a link that says whatever it likes."""

    def __init__(self, link: OpenLink, serving: asyncio.Task[None]) -> None:
        self.link, self.serving = link, serving

    @classmethod
    async def connect(cls, worker: fp.VirtualWorker, name: str = "mallory") -> Attacker:
        ours, theirs = memory_pair()
        serving = asyncio.create_task(serve_quietly(worker._worker, theirs, Side.LISTENER))
        link = OpenLink(ours)
        await greet(Side.DIALER, link, Credentials.throwaway(name, Role.RESEARCHER), codec.encode)
        await link.receive()
        return cls(link, serving)

    async def say(self, message: Message) -> None:
        await self.link.send(codec.encode(message))

    async def hear(self) -> Message:
        envelope = await self.link.receive()
        assert envelope is not None
        return codec.decode(envelope)

    async def ask(self, message: Message) -> Message:
        await self.say(message)
        return await self.hear()


def play(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    runtime.run(scenario(), timeout_seconds=60)


@pytest.fixture
def virtual() -> Iterator[Make]:
    made: list[fp.VirtualWorker] = []

    def make(dataset: fp.Dataset | None = None) -> fp.VirtualWorker:
        made.append(fp.VirtualWorker("alice", [dataset or toy(64, release=UNIFORM)]))
        return made[-1]

    yield make
    for each in made:
        each.close()


def plan(width: int = 4) -> Plan:
    model = nn.Sequential(nn.Linear(width, 1), nn.Flatten(0))
    rows, target = TensorExample("float32", (width,)), TensorExample("float32", ())
    return trace_training(model, F.binary_cross_entropy_with_logits, SGD(lr=0.1), rows, target)


def order(number: int = 2, **fields: object) -> Train:
    model = TensorSet({"0.weight": torch.zeros(1, 4), "0.bias": torch.zeros(1)})
    request = Train(
        request=number, job=JobId("j"), round=1, dataset=DatasetName("toy"), plan=PLAN.digest, epochs=1, batch_size=8,
        shuffle=False, drop_last=False, seed=0, hyperparameters={"lr": 0.1}, metrics=(), purpose="", model=model,
    )  # fmt: skip
    return replace(request, **fields)


PLAN = plan()


def test_codes_say_nothing_about_a_hidden_row_count(virtual: Make) -> None:
    hidden = fp.Dataset("toy", torch.zeros(37, 4), torch.zeros(37), rows="hidden", release=UNIFORM)
    worker = virtual(hidden)

    async def scenario() -> None:
        attacker = await Attacker.connect(worker)
        await attacker.ask(OfferPlan(1, PLAN))
        answers = []
        for number, batch in enumerate((1, 36, 37, 38, 1000), start=2):
            probe = order(number, batch_size=batch, drop_last=True, epochs=1_000_001)
            answers.append(await attacker.ask(probe))
        assert {answer.code for answer in answers if isinstance(answer, Failure)} == {ErrorCode.OVER_QUOTA}
        assert len(answers) == 5
        update = await attacker.ask(order(99, batch_size=1000, drop_last=True))
        assert isinstance(update, Update)
        assert update.weight == 1.0

    play(scenario)


def fitting(operation: str, of: int, limit: int) -> Plan:
    """Return a plan that can be prepared only where `operation` of a batch's rows and `of` is at most `limit`."""
    size = PLAN.first_step_slot + sum(step.results for step in PLAN.steps)
    steps = (
        Step("int.size", (Slot(0), 0)),
        Step(operation, (Slot(size), of)),
        Step("int.sub", (limit, Slot(size + 1))),
        Step("aten.zeros.default", ((Slot(size + 2),),)),
    )
    return replace(PLAN, steps=(*PLAN.steps, *steps))


@pytest.mark.parametrize("most", [20, 60])
def test_codes_say_nothing_about_a_hidden_row_count_whatever_a_plan_computes_from_it(virtual: Make, most: int) -> None:
    rule = fp.PlainUpdate(recipients=("mallory",), weight="uniform", rounds_per_day=9)
    worker = virtual(fp.Dataset("toy", torch.zeros(37, 4), torch.zeros(37), rows="hidden", release=(rule,)))
    probe = fitting("int.max", 0, most)

    async def scenario() -> None:
        attacker = await Attacker.connect(worker)
        assert isinstance(await attacker.ask(OfferPlan(1, probe)), PlanAccepted)
        refused = await attacker.ask(order(2, plan=probe.digest, batch_size=1 << 20))
        assert isinstance(refused, Failure)
        assert (refused.code, refused.step) == (ErrorCode.PLAN_REFUSED, len(PLAN.steps) + 3)  # whatever the rows are

    play(scenario)
    (held,) = worker._worker.journal.holds.all()
    assert held.state.value == "cancelled"


def test_a_remainder_that_does_not_fit_costs_what_a_release_costs_and_says_no_more_than_that_it_failed(
    virtual: Make,
) -> None:
    rule = fp.PlainUpdate(recipients=("mallory",), weight="uniform", rounds_per_day=9)
    worker = virtual(fp.Dataset("toy", torch.zeros(37, 4), torch.zeros(37), rows="hidden", release=(rule,)))
    even = fitting("int.mod", 2, 0)

    async def scenario() -> None:
        attacker = await Attacker.connect(worker)
        assert isinstance(await attacker.ask(OfferPlan(1, even)), PlanAccepted)
        assert await attacker.ask(order(2, plan=even.digest, batch_size=2)) == Failure(2, ErrorCode.STEP_FAILED)
        again = await attacker.ask(order(3, plan=even.digest, batch_size=37))
        assert isinstance(again, Failure)
        assert again.code is ErrorCode.RELEASE_DENIED

    play(scenario)
    (held,) = worker._worker.journal.holds.all()
    assert held.state.value == "interrupted"
    assert worker._worker._barred == {"mallory": {"toy"}}


def test_whom_no_rule_names_cannot_fill_the_table_of_plans(virtual: Make) -> None:
    worker = virtual()

    async def scenario() -> None:
        stranger = await Attacker.connect(worker, "stranger")
        answer = await stranger.ask(OfferPlan(1, PLAN))
        assert isinstance(answer, Failure)
        assert answer.code is ErrorCode.RELEASE_DENIED

    play(scenario)


def test_a_full_table_of_plans_forgets_the_oldest_and_refuses_nobody(
    virtual: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedpriv_worker.executor.MAXIMUM_PROGRAMS", 2)
    worker = virtual()
    worker._worker._executor._programs = programs = Programs()

    async def scenario() -> None:
        attacker = await Attacker.connect(worker)
        for number, width in enumerate((4, 5, 6, 7)):
            assert isinstance(await attacker.ask(OfferPlan(number, plan(width))), PlanAccepted)
        assert set(programs._programs) == {plan(6).digest, plan(7).digest}
        assert isinstance(await attacker.ask(order(9)), Update)

    play(scenario)


def test_one_peer_cannot_hold_every_session(virtual: Make) -> None:
    worker = virtual()

    async def scenario() -> None:
        for _ in range(MAXIMUM_SESSIONS):
            await Attacker.connect(worker)
        ours, theirs = memory_pair()
        refused = asyncio.create_task(serve_quietly(worker._worker, theirs, Side.LISTENER))
        link = OpenLink(ours)
        await greet(Side.DIALER, link, Credentials.throwaway("mallory", Role.RESEARCHER), codec.encode)
        assert await link.receive() is None
        await refused
        await Attacker.connect(worker, "honest")

    play(scenario)


def test_work_of_a_peer_that_left_is_given_up(virtual: Make) -> None:
    worker = virtual()
    executor = worker._worker._executor
    passes, two = [], threading.Event()

    def counting(request: Any, plan: Any, stopped: Callable[[], bool], peer: str) -> Any:
        def asked() -> bool:
            passes.append(request.request)
            if len(passes) >= 3:
                two.set()
                left.wait(30)
            return stopped()

        return executor.__class__.carry_out(executor, request, plan, asked, peer)

    left = threading.Event()

    async def scenario() -> None:
        attacker = await Attacker.connect(worker)
        await attacker.ask(OfferPlan(1, PLAN))
        executor.carry_out = counting
        for number in range(2, 8):
            await attacker.say(order(number, epochs=1000))
        await asyncio.to_thread(two.wait, 30)
        await attacker.link.close()
        await attacker.serving
        left.set()
        honest = await Attacker.connect(worker)
        assert isinstance(await honest.ask(OfferPlan(1, PLAN)), PlanAccepted)
        assert len(passes) < 10

    play(scenario)


def test_a_bar_holds_in_other_sessions_of_the_same_peer_open_and_new(virtual: Make) -> None:
    worker = virtual()
    executor = worker._worker._executor

    async def scenario() -> None:
        first, beside = await Attacker.connect(worker), await Attacker.connect(worker)
        for attacker in (first, beside):
            assert isinstance(await attacker.ask(OfferPlan(1, PLAN)), PlanAccepted)
        carry_out, executor.carry_out = executor.carry_out, lambda *_: Broken(ErrorCode.STEP_FAILED, on_values=True)
        assert isinstance(await first.ask(order(2)), Failure)
        executor.carry_out = carry_out
        await first.link.close()
        await first.serving
        for attacker in (beside, await Attacker.connect(worker)):
            await attacker.ask(OfferPlan(3, PLAN))
            answer = await attacker.ask(order(4))
            assert isinstance(answer, Failure)
            assert answer.code is ErrorCode.RELEASE_DENIED
            await attacker.link.close()
            await attacker.serving

    play(scenario)


def test_a_peer_that_hangs_up_before_it_hears_of_a_failure_is_barred_too(virtual: Make) -> None:
    worker = virtual()
    executor = worker._worker._executor
    begun, left = threading.Event(), threading.Event()

    def failing(*_: object) -> Broken:
        begun.set()
        left.wait(30)
        return Broken(ErrorCode.STEP_FAILED, on_values=True)

    async def scenario() -> None:
        attacker = await Attacker.connect(worker)
        await attacker.ask(OfferPlan(1, PLAN))
        carry_out, executor.carry_out = executor.carry_out, failing
        await attacker.say(order(2))
        await asyncio.to_thread(begun.wait, 30)
        executor.carry_out = carry_out
        again = await Attacker.connect(worker)
        await attacker.link.close()
        await attacker.serving
        left.set()
        await again.ask(OfferPlan(1, PLAN))
        answer = await again.ask(order(3))
        assert isinstance(answer, Failure)
        assert answer.code is ErrorCode.RELEASE_DENIED

    play(scenario)


def test_a_round_number_that_no_ledger_can_hold_is_refused_and_the_session_goes_on(virtual: Make) -> None:
    worker = virtual()

    async def scenario() -> None:
        attacker = await Attacker.connect(worker)
        await attacker.ask(OfferPlan(1, PLAN))
        answer = await attacker.ask(order(2, round=1 << 62))
        assert isinstance(answer, Failure)
        assert answer.code is ErrorCode.BAD_REQUEST
        assert isinstance(await attacker.ask(order(3)), Update)

    play(scenario)


@pytest.mark.parametrize("change", [(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07"), (b"\x30\x82", b"\x30\x83")])
def test_a_certificate_that_cannot_be_parsed_ends_one_link_and_not_the_worker(
    virtual: Make, change: tuple[bytes, bytes]
) -> None:
    worker = virtual()
    good = Credentials.throwaway("mallory", Role.RESEARCHER).chain_der[0]
    bad = good.replace(*change, 1)
    assert bad != good

    async def scenario() -> None:
        for chain in ((bad,), (good, bad)):
            ours, theirs = memory_pair()
            serving = asyncio.create_task(serve_quietly(worker._worker, theirs, Side.LISTENER))
            await ours.send(codec.encode(Hello(chain, b"n" * 32)))
            assert await ours.receive() is None
            await serving
        await Attacker.connect(worker)

    play(scenario)


def test_text_that_would_drive_a_terminal_does_not_decode() -> None:
    envelope = codec.encode(Failure(1, ErrorCode.STEP_FAILED, 1, "\x1b]0;owned\x07"))
    with pytest.raises(fp.FedprivError, match="control characters"):
        codec.decode(envelope)


def test_a_peer_that_grants_no_window_does_not_hold_a_run_up(virtual: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from fedpriv.remote.connection import Connection
    from fedpriv.wire.messages import CloseRound
    from fedpriv_coordinator import offering

    stalled = virtual(toy(20, release=(fp.PlainUpdate(recipients=("me",)),)))
    tell = Connection.tell

    async def stalling(self: Connection, message: Any) -> None:
        if isinstance(message, CloseRound):
            await asyncio.Event().wait()
        await tell(self, message)

    monkeypatch.setattr(Connection, "tell", stalling)
    monkeypatch.setattr(offering, "TELL_SECONDS", 0.1)
    with fp.Federation([stalled]) as federation, pytest.raises((fp.RoundAbandoned, PeerLost)):
        federation.fit(
            nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)),
            dataset="toy",
            loss=F.binary_cross_entropy_with_logits,
            rounds=2,
            deadline_seconds=0.5,
        )
