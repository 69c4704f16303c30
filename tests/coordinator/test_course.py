"""A round over workers that go away and come back."""

from __future__ import annotations

import asyncio

import torch

from fedpriv.clock import SystemClock
from fedpriv.errors import PeerLost
from fedpriv.ids import WorkerName
from fedpriv.learning.strategies import add_weighted
from fedpriv.updates import TensorSet
from fedpriv.wire.messages import Update
from fedpriv_coordinator.asking import Asking
from fedpriv_coordinator.course import Course
from fedpriv_coordinator.pacing import AsItComes
from fedpriv_coordinator.round import Complete, State, Terms

A, B = WorkerName("a"), WorkerName("b")
CLOCK = SystemClock()


def asking() -> Asking:
    return Asking(lambda *_: None, CLOCK)


def update(value: float) -> Update:
    return Update(1, 1, 1.0, {}, TensorSet({"w": torch.tensor([value])}))


def play(course: Course) -> State:
    return asyncio.run(asyncio.wait_for(course.run((A, B)), 20))


def test_an_order_is_sent_again_to_a_worker_that_came_back() -> None:
    asked: list[WorkerName] = []
    returned: list[WorkerName] = []

    async def contribute(worker: WorkerName) -> Update:
        asked.append(worker)
        if worker == A and asked.count(A) == 1:
            raise PeerLost("cut")
        return update(2.0)

    async def back(worker: WorkerName) -> None:
        returned.append(worker)

    terms = Terms(1, quorum=2, deadline_seconds=10.0, returning=True)
    course = Course(
        terms, contribute=contribute, asking=asking(), fold=add_weighted, pacing=AsItComes(CLOCK), back=back
    )
    assert play(course) == Complete(terms, (A, B))
    assert (asked.count(A), asked.count(B), returned) == (2, 1, [A])
    assert course.parts[A].status == "folded"
    assert course.gathering.totals["w"].item() == 4.0


def test_where_nobody_can_come_back_a_lost_worker_costs_nobody_time() -> None:
    async def contribute(worker: WorkerName) -> Update:
        if worker == A:
            raise PeerLost("cut")
        return update(2.0)

    async def back(worker: WorkerName) -> None:
        raise AssertionError

    terms = Terms(1, quorum=1, deadline_seconds=10.0)
    course = Course(
        terms, contribute=contribute, asking=asking(), fold=add_weighted, pacing=AsItComes(CLOCK), back=back
    )
    assert play(course) == Complete(terms, (B,))
    assert course.parts[A].status == "lost"


def test_an_update_counts_by_its_weight_times_its_workers_factor() -> None:
    async def contribute(worker: WorkerName) -> Update:
        return update(2.0 if worker == A else 3.0)

    async def back(worker: WorkerName) -> None:
        raise AssertionError

    course = Course(
        Terms(1, quorum=2, deadline_seconds=10.0),
        contribute=contribute,
        asking=asking(),
        fold=add_weighted,
        pacing=AsItComes(CLOCK),
        back=back,
        factors={A: 10.0},
    )
    play(course)
    weight = update(0.0).weight
    assert course.gathering.totals["w"].item() == 10 * weight * 2.0 + weight * 3.0
    assert course.gathering.weight == 11 * weight
