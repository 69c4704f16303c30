"""Two honest ledgers agree; every message that one side omits, changes or repeats is found, and named."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from fedpriv.ids import WorkerName
from fedpriv.ledger.entries import Draft, Entry
from fedpriv.ledger.reconciling import Count, Finding, Verdict, by_sender, reconcile

BOB = WorkerName("bob")
HUB = "hub"


def sent_by_bob(*changes):
    """Return a worker's ledger: hello, hello-proof, and one update for each of `changes`."""
    drafts = [Draft(peer="unidentified", method="Attach", kind=kind, bytes=9) for kind in ("hello", "hello-proof")]
    drafts += [replace(Draft(peer=HUB, method="Attach", kind="update", bytes=100), **change) for change in changes]
    return [Entry(draft, BOB, seq, seq, f"{seq:064x}") for seq, draft in enumerate(drafts)]


def received_from(sent, seqs=None):
    """Return what an honest coordinator records of `sent`, or of those numbers of it."""
    numbers = range(len(sent)) if seqs is None else seqs
    return [
        Entry(
            Draft(peer=sent[seq].worker, method="Attach", kind=sent[seq].draft.kind, bytes=sent[seq].draft.bytes,
                  source=seq),
            WorkerName(HUB), at, 1000 + at, sent[seq].digest,
        )
        for at, seq in enumerate(numbers)
    ]  # fmt: skip  # one entry


def found(sent, received):
    count = Count()
    return list(reconcile(sent, received, HUB, count)), count


def test_honest_ledgers_agree_also_where_messages_overtake_each_other():
    sent = sent_by_bob({}, {}, {})
    assert found(sent, received_from(sent, [1, 0, 4, 2, 3])) == ([], Count(received=5, matched=5))


def test_what_went_to_others_or_to_nobody_known_need_not_arrive():
    sent = sent_by_bob({"peer": "other"}, {})
    assert found(sent, received_from(sent, [3])) == ([], Count(received=1, matched=1))


def test_a_message_that_did_not_arrive_is_found():
    sent = sent_by_bob({}, {})
    findings, count = found(sent, received_from(sent, [0, 1, 3]))
    assert findings == [Finding(Verdict.UNRECEIVED, sent[2], None)]
    assert count.matched == 3


def test_what_the_worker_did_not_record_is_found():
    sent = sent_by_bob({}, {})
    received = received_from(sent)
    beyond = [replace(received[3], seq=at, draft=replace(received[3].draft, source=n)) for at, n in ((4, 7), (5, -1))]
    findings, _ = found(sent, [*received, *beyond])
    assert findings == [
        Finding(Verdict.UNRECORDED, None, beyond[1]),
        Finding(Verdict.UNRECORDED, None, beyond[0]),
    ]


def test_each_field_that_differs_is_named():
    sent = sent_by_bob({}, {"peer": "other"}, {"peer": "unidentified"})
    received = received_from(sent)
    received[0] = replace(received[0], digest="ff" * 32)
    received[2] = replace(received[2], draft=replace(received[2].draft, kind="evaluation", bytes=101))
    findings, count = found(sent, received)
    assert [(finding.verdict, finding.sent.seq, finding.fields) for finding in findings] == [
        (Verdict.DIFFERENT, 0, ("digest",)),
        (Verdict.DIFFERENT, 2, ("kind", "bytes")),
        (Verdict.DIFFERENT, 3, ("recipient",)),
        (Verdict.DIFFERENT, 4, ("recipient",)),  # an update to nobody: no message of that kind comes before identity
    ]
    assert count == Count(received=5, matched=1)


def test_a_message_that_arrived_twice_under_one_entry_is_found():
    sent = sent_by_bob({})
    received = received_from(sent, [0, 1, 2, 2])
    findings, _ = found(sent, received)
    assert findings == [Finding(Verdict.REPEATED, sent[2], received[3])]


def test_what_was_lost_but_arrived_when_sent_again_is_no_finding():
    sent = sent_by_bob({}, {"source": 2}, {"source": 2}, {}, {"source": 5})
    assert found(sent, received_from(sent, [0, 1, 4, 5])) == ([], Count(received=4, matched=4, again=3))
    lost = [Finding(Verdict.UNRECEIVED, sent[seq], None) for seq in (2, 3, 4)]
    assert found(sent, received_from(sent, [0, 1, 5]))[0] == lost


def test_entries_are_sorted_by_who_sent_them():
    sent = sent_by_bob({})
    received = received_from(sent)
    others = [replace(received[0], draft=replace(received[0].draft, peer="eve"))]
    assert by_sender([*others, *received], [BOB, WorkerName("alice")]) == {"bob": received, "alice": []}


@given(st.data())
def test_any_set_of_lost_changed_and_forged_messages_is_found_exactly(data):
    size = data.draw(st.integers(0, 12))
    sent = sent_by_bob(*[{}] * size)
    fate = [data.draw(st.sampled_from(["kept", "lost", "changed"])) for _ in range(size)]
    arrived = [seq for seq in range(size + 2) if seq < 2 or fate[seq - 2] != "lost"]
    received = data.draw(st.permutations(received_from(sent, arrived)))
    changed = {seq + 2 for seq in range(size) if fate[seq] == "changed"}
    received = [replace(entry, digest="ee" * 32) if entry.draft.source in changed else entry for entry in received]
    findings, count = found(sent, received)
    expected = [(Verdict.DIFFERENT, seq + 2) for seq in range(size) if fate[seq] == "changed"]
    expected += [(Verdict.UNRECEIVED, seq + 2) for seq in range(size) if fate[seq] == "lost"]
    assert [(finding.verdict, finding.sent.seq) for finding in findings] == expected
    assert count.matched == 2 + fate.count("kept")
