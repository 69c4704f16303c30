"""Every message that arrives is an entry, with the digest of the bytes that came."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fedpriv.clock import ManualClock
from fedpriv.entropy import SystemEntropy
from fedpriv.errors import StateInUse, StorageFailed, UsageError
from fedpriv.ledger.entries import Entry, chunk_digests, message_digest
from fedpriv.sealed import Envelope
from fedpriv.storage.verification import find_ledgers, read_entries, verify_ledger
from fedpriv.updates import TensorSet
from fedpriv.wire.codec import encode
from fedpriv.wire.framing import envelope_bytes
from fedpriv.wire.messages import Goodbye, Update
from fedpriv_coordinator.evidence import INGRESS_KEY, WITNESS_KEY, Evidence


def opened(state: Path | None, name: str = "me") -> Evidence:
    clock, entropy = ManualClock(), SystemEntropy()
    if state is None:
        return Evidence.in_memory(name, clock=clock, entropy=entropy, note=print)
    return Evidence.open(state, name, clock=clock, entropy=entropy, note=print)


@pytest.fixture(params=["durable", "in memory"])
def evidence(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Evidence]:
    held = opened(tmp_path / "state" if request.param == "durable" else None)
    yield held
    held.close()


def update(entry: int, size: int = 3) -> Envelope:
    plain = encode(Update(1, 1, 1.0, {}, TensorSet({"w": torch.arange(float(size))})))
    return Envelope(plain.header, plain.payload, entry, bytes([entry % 256]) * 32)


def entries(evidence: Evidence, tmp_path: Path) -> list[Entry]:
    evidence.save(tmp_path / "run")
    return list(read_entries(tmp_path / "run" / "ingress"))


def test_an_entry_says_who_sent_what_and_where_the_sender_recorded_it(evidence: Evidence, tmp_path: Path) -> None:
    sent = [update(4), update(5, size=400_000)]
    for each in sent:
        evidence.ingress.record("bob", "update", each)
    found = entries(evidence, tmp_path)
    for at, (entry, envelope) in enumerate(zip(found, sent, strict=True)):
        draft = entry.draft
        assert (entry.worker, entry.seq, draft.peer, draft.method) == ("me", at, "bob", "Attach")
        assert (draft.kind, draft.bytes, draft.source) == ("update", envelope_bytes(envelope), 4 + at)
        digest = message_digest(
            envelope.entry_key, envelope.header, chunk_digests(envelope.payload), envelope.payload_bytes
        )
        assert entry.digest == digest.hex()


@pytest.mark.parametrize("entry", [-1, 1 << 60])
def test_a_message_without_an_entry_that_could_be_is_recorded_without_one(
    evidence: Evidence, tmp_path: Path, entry: int
) -> None:
    plain = encode(Goodbye())
    evidence.ingress.record("bob", "goodbye", Envelope(plain.header, (), entry, b""))
    assert [found.draft.source for found in entries(evidence, tmp_path)] == [-1]


def test_the_ledger_verifies_under_its_key_and_is_no_worker_of_the_run(evidence: Evidence, tmp_path: Path) -> None:
    for at in range(600):
        evidence.ingress.record("bob", "update", update(at))
    evidence.ingress.drain()
    evidence.close()
    evidence.save(tmp_path / "run")
    report = verify_ledger(tmp_path / "run" / "ingress", key=evidence.ingress.vkey)
    assert (report.origin, report.entries) == ("fedpriv.ingress/me", 600)
    with pytest.raises(UsageError, match="holds no ledger"):
        find_ledgers(tmp_path / "run")


def test_a_durable_ledger_goes_on_under_its_keys(tmp_path: Path) -> None:
    keys = set()
    for turn in range(3):
        evidence = opened(tmp_path)
        keys.add((evidence.ingress.vkey, evidence.witness.vkey))
        evidence.ingress.record("bob", "update", update(turn))
        evidence.close()
    assert len(keys) == 1
    report = verify_ledger(tmp_path / "ledger", key=keys.pop()[0])
    assert report.entries == 3
    for name in (INGRESS_KEY, WITNESS_KEY, "journal.sqlite"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_a_state_folder_is_held_by_one_coordinator_at_a_time(tmp_path: Path) -> None:
    evidence = opened(tmp_path)
    with pytest.raises(StateInUse, match="a coordinator that runs"):
        opened(tmp_path)
    evidence.close()
    evidence.close()
    opened(tmp_path).close()


def test_the_folder_of_another_coordinator_is_refused_and_left_free(tmp_path: Path) -> None:
    opened(tmp_path).close()
    with pytest.raises(UsageError, match=r"belongs to 'fedpriv\.ingress/me'"):
        opened(tmp_path, "other")
    (tmp_path / WITNESS_KEY).unlink()
    with pytest.raises(StorageFailed, match="has no witness-signing-key; restore it"):
        opened(tmp_path)


def test_what_the_disk_refused_is_recorded_once_it_can_be(tmp_path: Path) -> None:
    evidence = opened(tmp_path)
    blocker = sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None)
    evidence._database._connection.execute("PRAGMA busy_timeout=1")
    blocker.execute("BEGIN IMMEDIATE")
    evidence.ingress.record("bob", "update", update(0))
    with pytest.raises(StorageFailed, match="what workers sent cannot be recorded"):
        evidence.ingress.drain()
    evidence.ingress.record("bob", "update", update(1))
    blocker.execute("ROLLBACK")
    blocker.close()
    assert evidence.ingress.drain().size == 2
    evidence.close()
    evidence.ingress.record("bob", "update", update(2))
    assert verify_ledger(tmp_path / "ledger", key=None).entries == 2
