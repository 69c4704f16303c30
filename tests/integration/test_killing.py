"""Kill -9 at every step of a release: nothing is charged too little, made twice, or missing from the ledger."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from dying import Mortal, Nursery, Peer, Work, agreed, contents, renumbered, work
from killing import COORDINATOR, NAME, PURSE, RULE, UNIT

from fedpriv.clock import SystemClock
from fedpriv.entropy import SystemEntropy
from fedpriv.errors import PeerLost, WorkerRefused
from fedpriv.ids import DatasetName
from fedpriv.ledger.entries import Entry
from fedpriv.policy.rules import cite
from fedpriv.privacy.budget import ORDERS
from fedpriv.privacy.reservations import State
from fedpriv.storage.verification import verify_ledger
from fedpriv.transport.authority import Authority
from fedpriv.wire.messages import Role, Train
from fedpriv_worker.journal import Journal
from fedpriv_worker.steps import Step

pytestmark = pytest.mark.chaos

RANDOM_KILLS = 100
"""Of each kind: in rounds over a socket, and among threads that share a journal."""
SMALL = work(4)
LARGE = work(50_000)

# What a kill at a step leaves behind: is anything charged, was the update recorded, are its bytes still kept?
NOTHING, CHARGED, RECORDED, SAVED = "nothing", "charged", "recorded", "saved"
LEAVES = {
    Step.RESERVE: NOTHING,
    Step.RESERVED: CHARGED,
    Step.COMPUTED: CHARGED,
    Step.APPEND: CHARGED,
    Step.COMMIT: CHARGED,
    Step.COMMITTED: RECORDED,
    Step.SEND: RECORDED,
    Step.SENT: RECORDED,
    Step.ACKNOWLEDGE: RECORDED,
    Step.ACKNOWLEDGED: SAVED,
    Step.SIGN: SAVED,
    Step.PUBLISHED: SAVED,
}


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    running = Nursery()
    yield running
    running.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, Path]:
    made, home = Authority.create(), tmp_path_factory.mktemp("alice")
    made.issue(NAME, Role.WORKER).save(home)
    return made, home


@pytest.fixture
def mortal(nursery: Nursery, authority: tuple[Authority, Path], tmp_path: Path) -> Mortal:
    peer = Peer(authority[0].issue(COORDINATOR, Role.COORDINATOR))
    return Mortal(nursery, tmp_path / "state", authority[1], peer)


def charged(mortal: Mortal) -> int:
    """Return how often the rule was used, as a restarted worker counts it."""
    journal = mortal.journal()
    try:
        return journal.holds.used(journal.now(), DatasetName("ruled")).get(cite(RULE), 0)
    finally:
        journal.close()


def made(entries: list[Entry], number: int) -> list[Entry]:
    """Return the entries of updates of one round that were made, not sent again."""
    return [
        each for each in entries if (each.draft.kind, each.draft.round, each.draft.source) == ("update", number, -1)
    ]


def test_every_step_has_its_kill() -> None:
    assert set(LEAVES) == set(Step)


@pytest.mark.parametrize("step", Step, ids=lambda step: step.value)
def test_a_kill_charges_enough_and_a_retry_is_identical(mortal: Mortal, step: Step) -> None:
    leaves, order = LEAVES[step], SMALL.order()
    mortal.wake(step.value)
    mortal.live_a_round(SMALL, order)
    assert len(made(agreed(mortal), 1)) == (leaves in (RECORDED, SAVED))
    assert charged(mortal) == (leaves != NOTHING)
    assert len(mortal.peer.updates) == {NOTHING: 0, CHARGED: 0, SAVED: 1}.get(leaves, len(mortal.peer.updates))
    mortal.wake()
    mortal.ask(SMALL, order)
    mortal.ask(SMALL, order)
    retried = mortal.peer.updates[-2:]
    mortal.sleep()
    assert contents(retried[0]) == contents(retried[1])
    entries = agreed(mortal)
    if leaves == RECORDED:
        assert len({contents(each) for each in mortal.peer.updates}) == 1
        assert len(made(entries, 1)) == charged(mortal) == 1
    else:
        assert charged(mortal) == (1 if leaves == NOTHING else 2)
    assert charged(mortal) >= len(made(entries, 1))


@pytest.mark.parametrize("step", [Step.COMMITTED, Step.SEND, Step.ACKNOWLEDGE], ids=lambda step: step.value)
def test_an_update_that_only_memory_held_is_lost_and_never_made_again(mortal: Mortal, step: Step) -> None:
    order = LARGE.order()
    mortal.wake(step.value)
    mortal.live_a_round(LARGE, order)
    mortal.wake()
    with pytest.raises(WorkerRefused) as refused:
        mortal.ask(LARGE, order)
    assert refused.value.code == "RELEASE_LOST"
    mortal.ask(LARGE, renumbered(order, 2))
    mortal.sleep()
    entries = agreed(mortal)
    assert (len(made(entries, 1)), len(made(entries, 2)), charged(mortal)) == (1, 1, 2)
    journal = mortal.journal()
    assert [held.state for held in journal.holds.all()] == [State.LOST, State.LOST]  # the second is not acknowledged
    journal.close()


class Rounds:
    """A coordinator that goes on round after round, whatever happens to its worker."""

    def __init__(self, mortal: Mortal, ordered: Work) -> None:
        self._mortal, self._work = mortal, ordered
        self.order: Train = ordered.order()
        self.firsts: dict[int, tuple[bytes, bytes]] = {}

    def live(self, chance: random.Random) -> None:
        """Wake the worker and ask for rounds until it is killed."""
        mortal = self._mortal
        mortal.wake("any", chance.randrange(1, 25))
        try:
            while True:
                seen = len(mortal.peer.updates)
                for _ in range(chance.randrange(1, 3)):
                    mortal.ask(self._work, self.order)
                for each in mortal.peer.updates[seen:]:
                    assert contents(each) == self.firsts.setdefault(self.order.round, contents(each))
                saved, self.order = self.order, renumbered(self.order, self.order.round + 1)
                mortal.acknowledge(self._work, saved)  # a coordinator never asks again for what it has saved
        except PeerLost:
            mortal.dies()


@pytest.mark.slow
def test_random_kills_in_rounds(mortal: Mortal) -> None:
    rounds, chance = Rounds(mortal, SMALL), random.Random(20261128)
    for _ in range(RANDOM_KILLS):
        rounds.live(chance)
    entries = agreed(mortal)
    assert rounds.order.round > RANDOM_KILLS // 4
    journal = mortal.journal()
    held = list(journal.holds.all())
    journal.close()
    live = [each for each in held if each.state is not State.CANCELLED]
    updates = [each for each in entries if each.draft.kind == "update" and each.draft.source < 0]
    assert sorted(each.entry for each in live if each.entry >= 0) == [each.seq for each in updates]
    assert charged(mortal) == len(live) >= len(updates)
    answered = Counter(each.draft.round for each in updates)
    assert all(count == 1 for number, count in answered.items() if number in rounds.firsts)


@pytest.mark.slow
def test_random_kills_among_threads_that_spend(nursery: Nursery, tmp_path: Path) -> None:
    chance = random.Random(20261129)
    outcomes: Counter[State] = Counter()
    for number in range(RANDOM_KILLS):
        state = tmp_path / str(number)
        state.mkdir()
        child = nursery.start(
            task="spend", state=state / "state", notes=state / "notes", seed=number, step="any",
            at=chance.randrange(1, 130),
        )  # fmt: skip  # one line of an order
        assert nursery.ended(child["pid"]) == -signal.SIGKILL
        outcomes += spent_as_noted(state)
    assert set(outcomes) == set(State) - {State.RESERVED}


def spent_as_noted(folder: Path) -> Counter[State]:
    """Hold a journal to the notes that were taken beside it; return how many reservations came to what."""
    lines = (
        [line.split() for line in (folder / "notes").read_text().splitlines()] if (folder / "notes").exists() else []
    )
    noted: dict[str, dict[int, int]] = {}
    for what, number, value in lines:
        noted.setdefault(what, {})[int(number)] = int(value)
    journal = Journal.open(folder / "state", worker=NAME, clock=SystemClock(), entropy=SystemEntropy())
    held = {int.from_bytes(each.release, "big"): each for each in journal.holds.all()}
    total, entries = journal.holds.spent(PURSE), list(journal.entries())
    kept = {each.number for each in held.values() if journal.holds.waiting(each.number) is not None}
    vkey = journal.vkey
    journal.close()
    verify_ledger(folder / "state" / "ledger", key=vkey)
    live = {number: each for number, each in held.items() if each.state is not State.CANCELLED}
    reserved, cancelling = noted.get("reserved", {}), noted.get("cancelling", {})
    least = sum(units for number, units in reserved.items() if number not in cancelling)
    most = sum(units for number, units in noted.get("reserving", {}).items())
    assert set(noted.get("cancelled", {})) <= held.keys() - live.keys() <= set(cancelling)
    assert least * UNIT <= total[0] <= most * UNIT
    assert total == (sum(each.cost.rdp[0] for each in live.values() if each.cost),) * len(ORDERS)
    for number, entry in noted.get("sent", {}).items():
        assert held[number].entry == entry
        assert held[number].state in (State.COMMITTED, State.ACKNOWLEDGED, State.LOST)
    assert sorted(each.entry for each in held.values() if each.entry >= 0) == [each.seq for each in entries]
    assert kept == {each.number for each in held.values() if each.state is State.COMMITTED}
    return Counter(each.state for each in held.values())
