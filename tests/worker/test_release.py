"""The door: what leaves, in which form, and that it is on record first."""

from __future__ import annotations

import math
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fedpriv.clock import ManualClock
from fedpriv.entropy import SeededEntropy
from fedpriv.errors import ReleaseDenied, StorageFailed
from fedpriv.ids import DatasetName, JobId, PeerName, PlanDigest, WorkerName
from fedpriv.labels import Label, Origin, private
from fedpriv.ledger.entries import message_digest
from fedpriv.policy.decision import Recipient
from fedpriv.policy.rules import Metrics, PlainUpdate, Rule, SecureSum, Statistics
from fedpriv.sealed import Sealed
from fedpriv.secagg.descriptor import Descriptor
from fedpriv.secagg.messages import Invite
from fedpriv.secagg.vector import Part, with_counts
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
from fedpriv.wire.messages import Mock as MockMessage
from fedpriv.wire.messages import Statistics as StatisticsMessage
from fedpriv_worker.forecast import Forecast
from fedpriv_worker.journal import Journal
from fedpriv_worker.orders import Answer, Order
from fedpriv_worker.release import UNIDENTIFIED, Admitted, Door
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


def on_disk(state: Path) -> Journal:
    return Journal.open(state, worker=WorkerName("alice"), clock=ManualClock(), entropy=SeededEntropy(b"test"))


def door(rules: tuple[Rule, ...] = RULES, rows: int | None = 50, journal: Journal | None = None) -> Door:
    description = DatasetDescription(
        ROWS, (Column("x", "float"),), (1,), "float32", Column("y", "bool"), "float32", (), (), rows
    )
    memory = Journal.in_memory(worker=WorkerName("alice"), clock=ManualClock(), entropy=SeededEntropy(b"test"))
    return Door(Facts(WorkerName("alice"), "2.13.0", {ROWS: description}, {ROWS: rules}), journal or memory)


def foreseen(message: Answer, label: Label = LABEL) -> Forecast:
    """Return the forecast that this very message meets."""
    match message:
        case Update(delta=tensors, metrics=metrics):
            return Forecast("update", tensors.specs, tuple(metrics), tensors.nbytes, tensors.nbytes + 1000, {}, label)
        case StatisticsMessage(values=tensors):
            return Forecast("statistics", tensors.specs, (), tensors.nbytes, tensors.nbytes + 1000, {}, label)
        case Evaluation(metrics=metrics):
            return Forecast("evaluation", (), tuple(metrics), 0, 1000, {}, label)
        case MockMessage(values=tensors):
            return Forecast("mock", tensors.specs, (), tensors.nbytes, tensors.nbytes + 1000, {}, label)


def released(
    out: Door, message: Answer, order: Order = ORDER, recipient: Recipient = ME, label: Label = LABEL
) -> Sealed:
    """Take `message` through the whole of the door: admitted, then released."""
    forecast = foreseen(message, label)
    admitted = out.admit(order, forecast, recipient)
    assert isinstance(admitted, Admitted)
    return out.release(message, order, forecast, recipient, admitted)


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
        released(out, update()),
        released(out, StatisticsMessage(1, TensorSet({"count": torch.tensor(5.0)})), ASK),
        released(out, Evaluation(1, 3, 12.0, {"loss": 0.5}), MEASURE),
    ]
    entries = list(out.journal.entries())
    assert [entry.seq for entry in entries] == [each.envelope.entry for each in sealed] == list(range(8))
    for each, entry in zip(sealed, entries, strict=True):
        assert entry.draft.bytes == envelope_bytes(each.envelope) == sum(len(frame) for frame in frames(each.envelope))


def test_the_receiver_can_recompute_the_digest_from_what_it_received() -> None:
    out = door()
    envelope = released(out, update()).envelope
    digest = message_digest(
        envelope.entry_key, envelope.header, chunk_digests(envelope.payload), envelope.payload_bytes
    )
    assert next(iter(out.journal.entries())).digest == digest.hex()


def test_a_release_is_recorded_with_its_label_rule_plan_round_and_purpose() -> None:
    out = door()
    released(out, update(metrics={"loss": 0.5}))
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
        released(out, update(), recipient=recipient)
    assert out.journal.rows.size == 0


def test_metrics_that_ride_on_an_update_need_their_own_rule() -> None:
    with pytest.raises(ReleaseDenied):
        released(door(), update(metrics={"accuracy": 1.0}))
    assert released(door(), update(metrics={"loss": 1.0}))


def test_statistics_are_judged_by_what_they_hold_not_by_what_was_asked() -> None:
    more = StatisticsMessage(1, TensorSet({"count": torch.tensor(5.0), "sum-of-squares": torch.ones(1)}))
    with pytest.raises(ReleaseDenied):
        released(door(), more, ASK)


def test_a_mixture_of_data_sets_does_not_leave() -> None:
    mixed = Label(LABEL.origins | {Origin(DatasetName("other"), PeerName("alice"))})
    with pytest.raises(ReleaseDenied):
        released(door(), update(), label=mixed)


@pytest.mark.parametrize(("weight", "leaves"), [("exact", 57.0), ("rounded", 50.0), ("uniform", 1.0)])
def test_the_weight_is_as_exact_as_the_rule_says(weight: str, leaves: float) -> None:
    out = door((PlainUpdate(recipients=("me",), weight=weight),))
    message = decode(released(out, update(57.0)).envelope)
    assert isinstance(message, Update)
    assert message.weight == leaves


@pytest.mark.parametrize(("rows", "leaves"), [(50, 30.0), (None, 1.0)])
def test_the_weight_of_an_evaluation_says_no_more_than_the_announcement(rows: int | None, leaves: float) -> None:
    message = decode(released(door(rows=rows), Evaluation(1, 3, 37.0, {"loss": 0.5}), MEASURE).envelope)
    assert isinstance(message, Evaluation)
    assert message.weight == leaves


def test_a_slice_ships_its_own_bytes_and_not_its_neighbours() -> None:
    whole = torch.arange(100_000, dtype=torch.float32)
    envelope = released(door(), Update(1, 3, 5.0, {}, TensorSet({"w": whole[10:12]}))).envelope
    assert envelope.payload_bytes == 8


def test_every_nan_leaves_as_the_same_nan() -> None:
    smuggled = torch.frombuffer(bytearray(struct.pack("<3I", 0x7FC0BEEF, 0xFFC01234, 0x3F800000)), dtype=torch.float32)
    odd = struct.unpack("<d", struct.pack("<Q", 0x7FF8DEADBEEF0000))[0]
    message = Update(1, 3, 5.0, {"loss": odd}, TensorSet({"w": smuggled}))
    envelope = released(door(), message).envelope
    words = struct.unpack("<3I", b"".join(bytes(part) for part in envelope.payload))
    assert words == (0x7FC00000, 0x7FC00000, 0x3F800000)
    received = decode(envelope)
    assert isinstance(received, Update)
    assert struct.pack("<d", received.metrics["loss"]) == struct.pack("<d", math.nan)


def test_a_disk_that_is_full_stops_the_release_and_what_it_reserved_is_given_back(tmp_path: Path) -> None:
    out = door((PlainUpdate(recipients=("me",), rounds_per_day=1),), journal=on_disk(tmp_path))
    admitted = out.admit(ORDER, foreseen(update()), ME)
    assert isinstance(admitted, Admitted)
    with out.journal.rows._database.reading("limit it") as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages}")
        connection.execute("CREATE TEMP TABLE full AS SELECT 1")
    full = Update(1, 3, 1.0, {}, TensorSet({"w": torch.zeros(200_000)}))
    with pytest.raises(StorageFailed, match="full"):
        out.release(full, ORDER, foreseen(full), ME, admitted)
    assert out.journal.rows.size == 0
    with out.journal.rows._database.reading("give room") as connection:
        connection.execute("PRAGMA max_page_count=1000000")
    out.give_up(admitted, begun=True)
    assert released(out, update())
    out.journal.close()


def into_a_sum(least: int = 3) -> Train:
    descriptor = Descriptor(
        federation="clinics",
        roster=bytes(32),
        round=9,
        model=bytes(32),
        plan=bytes(32),
        vector=with_counts([Part("tensor/w", (3,), 1.0)]),
        modulus_bits=32,
        workers=5,
        threshold=least,
        minimum_cohort=least,
    )
    return replace(ORDER, invite=Invite(descriptor))


def test_an_answer_in_clear_to_an_order_into_a_sum_stays_here() -> None:
    out, order = door(rules=(SecureSum(),)), into_a_sum()
    admitted = out.admit(order, foreseen(update()), ME)
    assert isinstance(admitted, Admitted)
    with pytest.raises(ReleaseDenied, match="secure-sum: it would leave in clear, and 3 is the least"):
        out.release(update(), order, foreseen(update()), ME, admitted)
    assert list(out.journal.entries()) == []


def test_a_rule_for_clear_updates_does_not_let_one_out_that_was_ordered_into_a_sum() -> None:
    out, order = door(rules=(PlainUpdate(("me",)), SecureSum())), into_a_sum()
    masked = Forecast("secagg-masked", (), (), 40, 1000, {}, LABEL)
    admitted = out.admit(order, masked, ME)
    assert isinstance(admitted, Admitted)
    with pytest.raises(ReleaseDenied, match="the forecast of this order is 'secagg-masked'"):
        out.release(update(), order, masked, ME, admitted)
    assert list(out.journal.entries()) == []


@pytest.mark.parametrize(
    ("rule", "least", "admits"),
    [
        (SecureSum(), 3, True),
        (SecureSum(5), 4, False),
        (SecureSum(5), 5, True),
        (SecureSum(3, 1.0), 5, False),
        (PlainUpdate(("me",)), 5, False),
    ],
)
def test_an_order_into_a_sum_is_admitted_by_a_rule_for_sums_of_so_many(rule: Rule, least: int, admits: bool) -> None:
    out, order = door(rules=(rule,)), into_a_sum(least)
    if admits:
        assert isinstance(out.admit(order, foreseen(update()), ME), Admitted)
    else:
        with pytest.raises(ReleaseDenied):
            out.admit(order, foreseen(update()), ME)
