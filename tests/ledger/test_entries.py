"""The entry format: its recorded vectors, what it refuses, and that every entry has one spelling."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from fedpriv import canonical
from fedpriv.errors import UsageError, VerificationFailed
from fedpriv.ids import WorkerName
from fedpriv.ledger import entries as ledger_entries
from fedpriv.ledger.entries import (
    CHUNK_BYTES,
    MAXIMUM_ENTRY_BYTES,
    Draft,
    Entry,
    PrivacySpend,
    chunk_digests,
    decode_entry,
    encode_entry,
    entry_key,
    message_digest,
)
from fedpriv.ledger.merkle import leaf_hash

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "ledger_entries.json").read_text(encoding="utf-8"))
DRAFT = Draft(peer="coordinator-1", method="attach", kind="update", bytes=10)
ENTRY = Entry(DRAFT, WorkerName("bob"), 5, 1_767_225_600_000, "00" * 32)


@pytest.mark.parametrize("vector", VECTORS["entries"], ids=lambda vector: f"entry {vector['seq']}")
def test_keys_digests_bytes_and_leaves_are_the_recorded_ones(vector):
    key = entry_key(bytes.fromhex(VECTORS["secret"]), vector["seq"])
    payload = bytes.fromhex(vector["payload"])
    digest = message_digest(key, bytes.fromhex(vector["header"]), chunk_digests([memoryview(payload)]), len(payload))
    entry = decode_entry(vector["entry"].encode())
    assert key.hex() == vector["key"]
    assert digest.hex() == vector["digest"] == entry.digest
    assert encode_entry(entry) == vector["entry"].encode()
    assert leaf_hash(vector["entry"].encode()).hex() == vector["leaf"]
    assert (entry.worker, entry.seq) == (VECTORS["worker"], vector["seq"])


@pytest.mark.parametrize("name", VECTORS["refused"])
def test_a_second_spelling_or_a_wrong_type_is_refused(name):
    with pytest.raises(VerificationFailed):
        decode_entry(VECTORS["refused"][name].encode())


@pytest.mark.parametrize(
    "content",
    [b"\xff", b"[" * 60_000, VECTORS["entries"][0]["entry"].replace(":17", ":" + "9" * 5000).encode()],
    ids=["not UTF-8", "nested 60,000 deep", "a number of 5,000 digits"],
)
def test_hostile_bytes_are_refused_without_a_crash(content):
    with pytest.raises(VerificationFailed):
        decode_entry(content)


def test_an_unknown_key_is_named():
    with pytest.raises(VerificationFailed, match="unknown key 'byte'"):
        decode_entry(VECTORS["refused"]["an unknown key"].encode())


def test_a_missing_key_is_named():
    with pytest.raises(VerificationFailed, match="lacks the key 'sid'"):
        decode_entry(VECTORS["refused"]["a missing key"].encode())


texts = st.text(max_size=30)
digits = st.binary(max_size=32).map(bytes.hex)
drafts = st.builds(
    Draft,
    peer=texts, method=texts, kind=texts, bytes=st.integers(0, 2**53 - 1),
    labels=st.sets(texts, max_size=4).map(lambda found: tuple(sorted(found))),
    policy=texts, approval=texts, plan=digits, model=digits, sid=digits, round=st.integers(-1, 2**53 - 1),
    dp=st.builds(PrivacySpend, texts, texts, texts, texts), purpose=texts, legal_basis=texts,
)  # fmt: skip  # strategies by kind of field
entries = st.builds(
    Entry,
    drafts,
    texts,
    st.integers(0, 2**53 - 1),
    st.integers(0, 2**53 - 1),
    st.binary(min_size=32, max_size=32).map(bytes.hex),
)


@given(entries)
def test_every_entry_survives_encoding_and_decoding(entry):
    assert decode_entry(encode_entry(entry)) == entry


@given(entries)
def test_an_entry_is_ordinary_json_with_sorted_keys(entry):
    found = json.loads(encode_entry(entry))
    assert list(found) == sorted(found, key=lambda key: key.encode("utf-16-be"))
    assert list(found["dp"]) == sorted(found["dp"])
    assert json.dumps(found, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode() == encode_entry(entry)


@given(entries, st.data())
def test_mutated_bytes_are_refused_or_are_another_entry(entry, data):
    content = bytearray(encode_entry(entry))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    try:
        other = decode_entry(bytes(content))
    except VerificationFailed:
        return
    assert other != entry
    assert encode_entry(other) == bytes(content)


SPELLINGS = (
    '"',
    "\\",
    ",",
    '","',
    "[",
    "]",
    "{",
    "}",
    ":",
    "-",
    "0",
    "9" * 17,
    "1.0",
    "a",
    "A",
    "\x7f",
    "\x1f",
    " ",
    "é",
    "",
)


@given(entries, st.data())
def test_the_quick_way_to_decode_believes_nothing_that_the_slow_way_refuses(entry, data):
    text = encode_entry(entry).decode()
    at = data.draw(st.integers(0, len(text)))
    changed = text[:at] + data.draw(st.sampled_from(SPELLINGS)) + text[at + data.draw(st.integers(0, 3)) :]
    for content in (text.encode(), changed.encode()):
        quick = ledger_entries._decoded_plain(content)
        assert quick is None or quick == ledger_entries._decoded_slowly(content)


def test_the_quick_way_to_decode_is_the_one_that_is_taken():
    labels = replace(ENTRY, draft=replace(DRAFT, labels=("a/x", "b,[]/é"), plan="ab" * 32, round=0, source=3))
    for entry in (ENTRY, labels):
        assert ledger_entries._decoded_plain(encode_entry(entry)) == entry
    escaped = replace(ENTRY, draft=replace(DRAFT, purpose='"\n'))
    assert ledger_entries._decoded_plain(encode_entry(escaped)) is None
    assert decode_entry(encode_entry(escaped)) == escaped


@pytest.mark.parametrize(
    "entry",
    [
        replace(ENTRY, v=2),
        replace(ENTRY, seq=-1),
        replace(ENTRY, time=2**53),
        replace(ENTRY, digest="00"),
        replace(ENTRY, digest="G0" * 32),
        replace(ENTRY, draft=replace(DRAFT, bytes=-1)),
        replace(ENTRY, draft=replace(DRAFT, round=-2)),
        replace(ENTRY, draft=replace(DRAFT, plan="AB")),
        replace(ENTRY, draft=replace(DRAFT, model="abc")),
        replace(ENTRY, draft=replace(DRAFT, plan="a", model="b")),
        replace(ENTRY, draft=replace(DRAFT, labels=("b/x", "a/x"))),
        replace(ENTRY, draft=replace(DRAFT, labels=("a/x", "a/x"))),
        replace(ENTRY, draft=replace(DRAFT, purpose="\ud800")),
        replace(ENTRY, draft=replace(DRAFT, purpose="x" * MAXIMUM_ENTRY_BYTES)),
    ],
)
def test_a_draft_that_no_entry_can_hold_is_refused_before_it_is_written(entry):
    with pytest.raises(UsageError):
        encode_entry(entry)


def test_the_entry_key_is_hkdf_of_the_secret():
    info = canonical.encode("fedpriv/ledger/v1/entry-key", 9)
    expected = HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(b"s" * 32)
    assert entry_key(b"s" * 32, 9) == expected


def test_a_digest_binds_header_payload_and_number():
    def digest(seq=0, header=b"h", payload=b"payload"):
        chunks = chunk_digests([memoryview(payload)])
        return message_digest(entry_key(b"s" * 32, seq), header, chunks, len(payload))

    assert len({digest(), digest(seq=1), digest(header=b""), digest(payload=b"payloae"), digest(payload=b"")}) == 5


@given(st.lists(st.integers(0, 5), max_size=5), st.integers(-2, 2))
def test_chunks_do_not_depend_on_how_the_payload_is_cut_into_parts(cuts, beyond):
    whole = bytes(range(256)) * (2 * CHUNK_BYTES // 256) + b"x" * (beyond + 2)
    edges = [0, *sorted(cut * len(whole) // 5 for cut in cuts), len(whole)]
    parts = [memoryview(whole)[a:b] for a, b in pairwise(edges)]
    expected = [hashlib.sha256(whole[at : at + CHUNK_BYTES]).digest() for at in range(0, len(whole), CHUNK_BYTES)]
    assert chunk_digests(parts) == expected


def test_a_part_of_wide_items_counts_its_bytes():
    wide = memoryview(bytes(range(16))).cast("I")
    assert chunk_digests([wide, memoryview(b"").cast("B")]) == [hashlib.sha256(bytes(range(16))).digest()]
    assert chunk_digests([]) == []


def test_a_key_does_not_print():
    assert ENTRY.digest not in repr(ENTRY)
