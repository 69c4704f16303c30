"""The door: what leaves, in which form, and that it is on record first."""

from __future__ import annotations

import math
import struct

import pytest
import torch

from fedpriv.clock import ManualClock
from fedpriv.entropy import SeededEntropy
from fedpriv.errors import ReleaseDenied, StorageFailed
from fedpriv.ids import DatasetName, JobId, PeerName, PlanDigest, WorkerName
from fedpriv.labels import Label, Origin, private
from fedpriv.ledger.entries import message_digest
from fedpriv.policy.decision import Recipient
from fedpriv.policy.rules import Metrics, PlainUpdate, Rule, Statistics
from fedpriv.storage.hashing import chunk_digests
from fedpriv.updates import TensorSet
from fedpriv.wire.codec import decode
from fedpriv.wire.framing import envelope_bytes, frames
from fedpriv.wire.messages import (
    Announcement,
    AskStatistics,
    Column,
    DatasetDescription,
    ErrorCode,
    Evaluate,
    Evaluation,
    Failure,
    Goodbye,
    HelloProof,
    PlanAccepted,
    Train,
    Update,
)
from fedpriv.wire.messages import Statistics as StatisticsMessage
from fedpriv_worker.journal import Journal
from fedpriv_worker.release import UNIDENTIFIED, Door
from fedpriv_worker.session import Facts

ROWS = DatasetName("rows")
ME = Recipient(PeerName("me"), "coordinator")
LABEL = private(ROWS, PeerName("alice"))
RULES: tuple[Rule, ...] = (
    PlainUpdate(recipients=("me",)),
    Statistics(kinds=("count", "sum"), recipients=("me",)),
    Metrics(kinds=("loss",), recipients=("me",)),
)
ORDER = Train(
    1, JobId("j"), 3, ROWS, PlanDigest(b"p" * 32), 1, 8, True, False, 0, {"lr": 0.1}, (), "study", TensorSet()
)  # fmt: skip
MEASURE = Evaluate(1, JobId("j"), 3, ROWS, PlanDigest(b"p" * 32), 8, ("loss",), "study", TensorSet())
ASK = AskStatistics(1, ROWS, ("count",), "study")


def door(rules: tuple[Rule, ...] = RULES, rows: int | None = 50) -> Door:
    description = DatasetDescription(
        ROWS, (Column("x", "float"),), (1,), "float32", Column("y", "bool"), "float32", (), (), rows
    )
    journal = Journal.in_memory(worker=WorkerName("alice"), clock=ManualClock(), entropy=SeededEntropy(b"test"))
    return Door(Facts(WorkerName("alice"), "2.13.0", {ROWS: description}, {ROWS: rules}), journal)


def update(weight: float = 57.0, metrics: dict[str, float] | None = None, value: float = 1.0) -> Update:
    return Update(1, 3, weight, metrics or {}, TensorSet({"w": torch.full((3,), value)}))


def test_every_message_is_on_record_with_the_bytes_that_the_wire_will_carry() -> None:
    out = door()
    sealed = [
        out.tell(HelloProof(b"signature"), None),
        out.tell(Announcement("2.13.0", ()), ME),
        out.tell(PlanAccepted(1, PlanDigest(b"p" * 32)), ME),
        out.tell(Failure(1, ErrorCode.STEP_FAILED, 3, "aten.add.Tensor"), ME),
        out.tell(Goodbye(), ME),
        out.release(update(), LABEL, ORDER, ME),
        out.release(StatisticsMessage(1, TensorSet({"count": torch.tensor(5.0)})), LABEL, ASK, ME),
        out.release(Evaluation(1, 3, 12.0, {"loss": 0.5}), LABEL, MEASURE, ME),
    ]
    entries = list(out.journal.entries())
    assert [entry.seq for entry in entries] == [each.envelope.entry for each in sealed] == list(range(8))
    for each, entry in zip(sealed, entries, strict=True):
        assert entry.draft.bytes == envelope_bytes(each.envelope) == sum(len(frame) for frame in frames(each.envelope))


def test_the_receiver_can_recompute_the_digest_from_what_it_received() -> None:
    out = door()
    envelope = out.release(update(), LABEL, ORDER, ME).envelope
    digest = message_digest(
        envelope.entry_key, envelope.header, chunk_digests(envelope.payload), envelope.payload_bytes
    )
    assert next(iter(out.journal.entries())).digest == digest.hex()


def test_a_release_is_recorded_with_its_label_rule_plan_round_and_purpose() -> None:
    out = door()
    out.release(update(metrics={"loss": 0.5}), LABEL, ORDER, ME)
    draft = next(iter(out.journal.entries())).draft
    assert (draft.peer, draft.kind, draft.round, draft.purpose) == ("me", "update", 3, "study")
    assert draft.labels == ("rows/alice",)
    assert draft.plan == (b"p" * 32).hex()
    assert [rule.split(":")[0] for rule in draft.policy.split()] == ["plain-update", "metrics"]


def test_a_hello_goes_to_somebody_not_yet_identified() -> None:
    out = door()
    out.tell(HelloProof(b"signature"), None)
    assert next(iter(out.journal.entries())).draft.peer == UNIDENTIFIED


@pytest.mark.parametrize(
    ("rules", "recipient"),
    [
        ((), ME),
        (RULES[1:], ME),
        (RULES, Recipient(PeerName("mallory"), "coordinator")),
        (RULES, Recipient(PeerName("me"), "worker")),
        ((PlainUpdate(recipients=("me",), purpose="other"),), ME),
    ],
)
def test_what_no_rule_permits_is_denied_and_leaves_no_sealed_bytes(
    rules: tuple[Rule, ...], recipient: Recipient
) -> None:
    out = door(rules)
    with pytest.raises(ReleaseDenied, match="stays here"):
        out.release(update(), LABEL, ORDER, recipient)
    assert out.journal.size == 0


def test_metrics_that_ride_on_an_update_need_their_own_rule() -> None:
    with pytest.raises(ReleaseDenied):
        door().release(update(metrics={"accuracy": 1.0}), LABEL, ORDER, ME)
    assert door().release(update(metrics={"loss": 1.0}), LABEL, ORDER, ME)


def test_statistics_are_judged_by_what_they_hold_not_by_what_was_asked() -> None:
    more = StatisticsMessage(1, TensorSet({"count": torch.tensor(5.0), "sum-of-squares": torch.ones(1)}))
    with pytest.raises(ReleaseDenied):
        door().release(more, LABEL, ASK, ME)


def test_a_mixture_of_data_sets_does_not_leave() -> None:
    mixed = Label(LABEL.origins | {Origin(DatasetName("other"), PeerName("alice"))})
    with pytest.raises(ReleaseDenied):
        door().release(update(), mixed, ORDER, ME)


@pytest.mark.parametrize(("weight", "leaves"), [("exact", 57.0), ("rounded", 50.0), ("uniform", 1.0)])
def test_the_weight_is_as_exact_as_the_rule_says(weight: str, leaves: float) -> None:
    out = door((PlainUpdate(recipients=("me",), weight=weight),))
    message = decode(out.release(update(57.0), LABEL, ORDER, ME).envelope)
    assert isinstance(message, Update)
    assert message.weight == leaves


@pytest.mark.parametrize(("rows", "leaves"), [(50, 30.0), (None, 1.0)])
def test_the_weight_of_an_evaluation_says_no_more_than_the_announcement(rows: int | None, leaves: float) -> None:
    message = decode(door(rows=rows).release(Evaluation(1, 3, 37.0, {"loss": 0.5}), LABEL, MEASURE, ME).envelope)
    assert isinstance(message, Evaluation)
    assert message.weight == leaves


def test_a_slice_ships_its_own_bytes_and_not_its_neighbours() -> None:
    whole = torch.arange(100_000, dtype=torch.float32)
    envelope = door().release(Update(1, 3, 5.0, {}, TensorSet({"w": whole[10:12]})), LABEL, ORDER, ME).envelope
    assert envelope.payload_bytes == 8


def test_every_nan_leaves_as_the_same_nan() -> None:
    smuggled = torch.frombuffer(bytearray(struct.pack("<3I", 0x7FC0BEEF, 0xFFC01234, 0x3F800000)), dtype=torch.float32)
    odd = struct.unpack("<d", struct.pack("<Q", 0x7FF8DEADBEEF0000))[0]
    message = Update(1, 3, 5.0, {"loss": odd}, TensorSet({"w": smuggled}))
    envelope = door().release(message, LABEL, ORDER, ME).envelope
    words = struct.unpack("<3I", b"".join(bytes(part) for part in envelope.payload))
    assert words == (0x7FC00000, 0x7FC00000, 0x3F800000)
    received = decode(envelope)
    assert isinstance(received, Update)
    assert struct.pack("<d", received.metrics["loss"]) == struct.pack("<d", math.nan)


def test_a_disk_that_is_full_stops_the_release() -> None:
    out = door()

    class Full:
        size = 0

        def append(self, *_: object) -> None:
            raise StorageFailed("no space")

    blocked = Door(out.facts, Full())
    with pytest.raises(StorageFailed):
        blocked.release(update(), LABEL, ORDER, ME)
