"""The coordinator cosigns ledgers that grow, and no other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from scripted import Scripted, connected

from fedpriv.clock import ManualClock
from fedpriv.entropy import SeededEntropy, SystemEntropy
from fedpriv.ids import WorkerName
from fedpriv.ledger.checkpoint import Algorithm, SigningKey, open_checkpoint, parse_verifier_key
from fedpriv.ledger.cosignature import open_cosigned, read_cosignature
from fedpriv_coordinator.evidence import Evidence
from fedpriv_coordinator.membership import Membership
from fedpriv_coordinator.witness import LedgerRefused

BOB = WorkerName("bob")


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 20))


def evidence(
    state: Path | None = None, clock: ManualClock | None = None, note: Callable[[str], None] = print
) -> Evidence:
    clock, entropy = clock or ManualClock(), SystemEntropy()
    if state is None:
        return Evidence.in_memory("coordinator-1", clock=clock, entropy=entropy, note=note)
    return Evidence.open(state, "coordinator-1", clock=clock, entropy=entropy, note=note)


def test_a_ledger_that_grows_is_cosigned_each_time_and_the_worker_is_told() -> None:
    async def scenario() -> None:
        worker, ours = Scripted(), evidence()
        notes = []
        async with connected(worker) as connection:
            for size in (5, 6, 300):
                worker.entries = [str(at).encode() for at in range(size)]
                worker.entries[:5] = [bytes([at]) for at in range(5)]
                notes.append(worker.note)
                await ours.witness.visit(connection)
        vkey = parse_verifier_key(ours.witness.vkey, Algorithm.COSIGNATURE)
        assert vkey.name == "fedpriv.witness/coordinator-1"
        assert [each.vkey for each in worker.cosigned] == [ours.witness.vkey] * 3
        for told, note in zip(worker.cosigned, notes, strict=True):
            assert read_cosignature(told.signature, note, vkey).time == int(ManualClock().now())
        assert worker.held[0] == b""
        assert [open_checkpoint(held, worker.key.verifier).size for held in worker.held[1:]] == [5, 6]
        ours.close()

    run(scenario())


def refused(worker: Scripted, ours: Evidence) -> str:
    """Return why `worker` is refused; nothing of it may be cosigned."""
    before = len(worker.cosigned)

    async def scenario() -> str:
        async with connected(worker) as connection:
            with pytest.raises(LedgerRefused) as caught:
                await ours.meet(connection)
        return str(caught.value)

    why = asyncio.run(asyncio.wait_for(scenario(), 20))
    assert len(worker.cosigned) == before
    assert ours.witness.refused == {"bob": why}
    return why


def accepted(worker: Scripted, ours: Evidence) -> None:
    async def scenario() -> None:
        async with connected(worker) as connection:
            await ours.meet(connection)

    run(scenario())


def test_a_ledger_that_was_rolled_back_is_refused_also_by_the_next_process(tmp_path: Path) -> None:
    worker, ours = Scripted(), evidence(tmp_path)
    accepted(worker, ours)
    ours.close()
    worker.entries = worker.entries[:3]
    ours = evidence(tmp_path)
    assert "its ledger was rolled back: we cosigned 5 entries, it shows 3" in refused(worker, ours)
    worker.entries += [b"other", b"entries", b"now"]
    assert "its ledger was rewritten: we cosigned 5 entries" in refused(worker, ours)
    worker.entries = worker.entries[:5]
    assert "its ledger was rewritten: we cosigned 5 entries" in refused(worker, ours)
    worker.entries = [bytes([at]) for at in range(6)]
    accepted(worker, ours)
    ours.close()


def test_a_changed_ledger_key_is_refused_and_both_are_named() -> None:
    worker, ours = Scripted(), evidence()
    accepted(worker, ours)
    before = str(worker.key.verifier)
    worker.key = SigningKey(worker.key.name, SeededEntropy(b"other").random_bytes(32))
    worker._proof = lambda held: ()  # type: ignore[method-assign]
    why = refused(worker, ours)
    assert before in why
    assert str(worker.key.verifier) in why
    ours.close()


def test_the_ledger_of_another_worker_is_refused() -> None:
    ours = evidence()
    assert "it shows the ledger of 'fedpriv.ledger/alice'" in refused(Scripted("alice"), ours)
    ours.close()


def test_a_worker_that_shows_no_checkpoint_is_noted_once_and_takes_part() -> None:
    notes: list[str] = []
    worker, ours = Scripted(), evidence(note=notes.append)
    worker.refuses = True
    accepted(worker, ours)
    accepted(worker, ours)
    assert len(notes) == 1
    assert "worker bob shows no checkpoint of its ledger" in notes[0]
    ours.close()


def test_a_worker_is_visited_when_something_came_and_not_more_than_once_a_second() -> None:
    clock = ManualClock()

    async def scenario() -> None:
        worker, ours, members = Scripted(), evidence(clock=clock), Membership([BOB])
        async with connected(worker) as connection:
            await ours.meet(connection)
            await members.join(connection)
            clock.advance(10)
            await ours.look(members, last=True)
            assert len(worker.held) == 1  # nothing came since
            connection.received["update"] = (1, 100)
            await ours.look(members)
            assert len(worker.held) == 2
            connection.received["update"] = (2, 200)
            await ours.look(members)
            assert len(worker.held) == 2
            await ours.look(members, last=True)
            assert len(worker.held) == 3
        ours.close()

    run(scenario())


def test_a_worker_whose_ledger_shrinks_during_a_run_is_shut_out_with_the_reason() -> None:
    notes: list[str] = []

    async def scenario() -> None:
        worker, ours, members = Scripted(), evidence(note=notes.append), Membership([BOB])
        async with connected(worker) as connection:
            await ours.meet(connection)
            await members.join(connection)
            worker.entries.pop()
            connection.received["update"] = (1, 100)
            await ours.look(members, last=True)
            assert members.connected == {}
            assert "rolled back: we cosigned 5 entries, it shows 4" in members.absent
        assert members.absent in notes
        ours.close()

    run(scenario())


@pytest.mark.parametrize("durable", [True, False])
def test_what_was_cosigned_is_saved_for_auditors(tmp_path: Path, *, durable: bool) -> None:
    worker, ours = Scripted(), evidence(tmp_path / "state" if durable else None)
    accepted(worker, ours)
    ours.close()
    ours.save(tmp_path / "run")
    document = json.loads((tmp_path / "run" / "witness.json").read_text())
    assert document["witness"] == ours.witness.vkey
    (bob,) = document["workers"]
    assert (bob["worker"], bob["size"], bob["ledger"]) == ("bob", 5, str(worker.key.verifier))
    note = (tmp_path / "run" / "witness" / "bob.checkpoint").read_bytes()
    vkey = parse_verifier_key(ours.witness.vkey, Algorithm.COSIGNATURE)
    found = open_cosigned(note, worker.key.verifier, [vkey])
    assert (found.checkpoint.size, found.checkpoint.root.hex()) == (bob["size"], bob["root"])
    assert [each.name for each in found.witnessed] == ["fedpriv.witness/coordinator-1"]
