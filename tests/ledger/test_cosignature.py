"""Cosignatures: a public witness's own, ours read back, and every way in which one does not count."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.errors import UsageError, VerificationFailed
from fedpriv.ids import WorkerName
from fedpriv.ledger.checkpoint import (
    Algorithm,
    Checkpoint,
    SigningKey,
    ingress_origin_of,
    origin_of,
    parse_signature,
    parse_verifier_key,
    sign_checkpoint,
    split_note,
    witness_name_of,
)
from fedpriv.ledger.cosignature import (
    MAXIMUM_COSIGNATURES,
    MAXIMUM_TIME,
    Cosignature,
    add_cosignatures,
    cosign,
    cosignature_lines,
    open_cosigned,
    read_cosignature,
)
from fedpriv.ledger.merkle import EMPTY_ROOT

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "ledger_cosignatures.json").read_text(encoding="utf-8"))
REAL = VECTORS["checkpoint"]
KEY = SigningKey(origin_of(WorkerName("bob")), bytes(range(32)))
WITNESS = SigningKey(witness_name_of(WorkerName("hub")), bytes(range(1, 33)))
NOTE = sign_checkpoint(Checkpoint(KEY.name, 7, EMPTY_ROOT), KEY)


def test_the_cosignature_of_a_public_witness_verifies():
    key = parse_verifier_key(REAL["vkey"])
    witness = parse_verifier_key(REAL["witness"], Algorithm.COSIGNATURE)
    cosigned = open_cosigned(REAL["note"].encode(), key, [witness])
    assert cosigned.checkpoint.size == 1432088532
    assert cosigned.witnessed == (Cosignature("remora.n621.de", REAL["time"]),)
    assert list(cosigned.unverified) == REAL["others"]


def test_the_cosignature_of_a_public_witness_does_not_verify_for_another_checkpoint():
    witness = parse_verifier_key(REAL["witness"], Algorithm.COSIGNATURE)
    line = next(line for line in REAL["note"].split("\n") if "remora" in line).encode()
    assert read_cosignature(line, REAL["note"].encode(), witness).time == REAL["time"]
    with pytest.raises(VerificationFailed, match=r"'remora\.n621\.de' does not verify"):
        read_cosignature(line, REAL["note"].replace("1432088532", "1432088533").encode(), witness)


def test_the_line_of_the_specification_holds_a_time_before_its_signature():
    signature = split_note(VECTORS["framing"]["note"].encode())[1][1]
    assert int.from_bytes(signature.signature[:8], "big") == VECTORS["framing"]["time"]
    assert len(signature.signature) == 8 + 64


def test_key_names_say_what_a_key_is_for():
    hub = WorkerName("hub")
    assert (origin_of(hub), ingress_origin_of(hub), witness_name_of(hub)) == (
        "fedpriv.ledger/hub", "fedpriv.ingress/hub", "fedpriv.witness/hub",
    )  # fmt: skip  # in one line each


@given(st.integers(0, MAXIMUM_TIME))
def test_a_cosignature_reads_back_with_its_time(time):
    line = cosign(NOTE, WITNESS, time)
    assert read_cosignature(line, NOTE, WITNESS.cosigner) == Cosignature(WITNESS.name, time)
    cosigned = open_cosigned(add_cosignatures(NOTE, [line]), KEY.verifier, [WITNESS.cosigner])
    assert cosigned.witnessed == (Cosignature(WITNESS.name, time),)
    assert (cosigned.checkpoint, cosigned.unverified) == (Checkpoint(KEY.name, 7, EMPTY_ROOT), ())


@pytest.mark.parametrize("time", [-1, MAXIMUM_TIME + 1])
def test_an_impossible_time_is_not_signed(time):
    with pytest.raises(UsageError, match="cannot be dated"):
        cosign(NOTE, WITNESS, time)


def test_an_impossible_time_is_not_believed():
    line = bytearray(parse_signature(cosign(NOTE, WITNESS, 0).decode()).signature)
    line[0] = 0x80
    forged = parse_signature(cosign(NOTE, WITNESS, 0).decode())
    forged = type(forged)(forged.name, forged.key_id, bytes(line))
    with pytest.raises(VerificationFailed, match="no possible time"):
        read_cosignature(bytes(forged), NOTE, WITNESS.cosigner)


def test_a_changed_time_is_noticed():
    found = parse_signature(cosign(NOTE, WITNESS, 5).decode())
    later = type(found)(found.name, found.key_id, (6).to_bytes(8, "big") + found.signature[8:])
    for opened in (
        lambda: read_cosignature(bytes(later), NOTE, WITNESS.cosigner),
        lambda: open_cosigned(add_cosignatures(NOTE, [bytes(later)]), KEY.verifier, [WITNESS.cosigner]),
    ):
        with pytest.raises(VerificationFailed, match=r"fedpriv\.witness/hub' does not verify"):
            opened()


def test_the_line_of_another_key_is_no_cosignature_of_this_witness():
    other = SigningKey(WITNESS.name, bytes(32))
    with pytest.raises(VerificationFailed, match="not by the key"):
        read_cosignature(cosign(NOTE, other, 5), NOTE, WITNESS.cosigner)
    cosigned = open_cosigned(add_cosignatures(NOTE, [cosign(NOTE, other, 5)]), KEY.verifier, [WITNESS.cosigner])
    assert (cosigned.witnessed, cosigned.unverified) == ((), (WITNESS.name,))


def test_a_plain_signature_of_a_witnesss_key_is_no_cosignature():
    plain = split_note(sign_checkpoint(Checkpoint(KEY.name, 7, EMPTY_ROOT), WITNESS))[1][0]
    cosigned = open_cosigned(add_cosignatures(NOTE, [bytes(plain)]), KEY.verifier, [WITNESS.cosigner])
    assert cosigned.witnessed == ()
    with pytest.raises(UsageError, match="is of a ledger"):
        read_cosignature(bytes(plain), NOTE, WITNESS.verifier)


@pytest.mark.parametrize("line", [b"\xff", b"- a AAAAAAA=", "— a".encode(), b"", cosign(NOTE, WITNESS, 5) + b"\n"])
def test_a_malformed_line_is_refused(line):
    with pytest.raises(VerificationFailed):
        read_cosignature(line, NOTE, WITNESS.cosigner)
    with pytest.raises(VerificationFailed):
        add_cosignatures(NOTE, [line])


def test_a_newer_line_of_a_key_takes_the_place_of_the_older():
    other = SigningKey("fedpriv.witness/other", bytes(32))
    note = add_cosignatures(NOTE, [cosign(NOTE, WITNESS, 5), cosign(NOTE, other, 5)])
    newer = add_cosignatures(note, [cosign(NOTE, WITNESS, 6)])
    assert cosignature_lines(newer, KEY.verifier) == [cosign(NOTE, WITNESS, 6), cosign(NOTE, other, 5)]
    assert newer.startswith(NOTE)


def test_of_two_lines_of_a_witness_the_latest_counts_once():
    lines = b"".join(cosign(NOTE, WITNESS, time) + b"\n" for time in (5, 9, 7))
    assert open_cosigned(NOTE + lines, KEY.verifier, [WITNESS.cosigner]).witnessed == (Cosignature(WITNESS.name, 9),)


def test_a_checkpoint_carries_at_most_16_cosignatures():
    keys = [SigningKey(f"witness/{number}", bytes([number]) * 32) for number in range(MAXIMUM_COSIGNATURES + 1)]
    lines = [cosign(NOTE, key, 5) for key in keys]
    full = add_cosignatures(NOTE, lines[:-1])
    assert len(open_cosigned(full, KEY.verifier, [key.cosigner for key in keys]).witnessed) == MAXIMUM_COSIGNATURES
    assert add_cosignatures(full, lines[:1]) == full
    with pytest.raises(UsageError, match="17 cosignatures"):
        add_cosignatures(full, lines[-1:])


def test_a_witnesss_key_is_not_taken_for_a_ledgers_nor_the_other_way_round():
    with pytest.raises(UsageError, match="is of a witness, not of a ledger"):
        parse_verifier_key(str(WITNESS.cosigner))
    with pytest.raises(UsageError, match="is of a ledger, not of a witness"):
        parse_verifier_key(str(WITNESS.verifier), Algorithm.COSIGNATURE)
    assert parse_verifier_key(str(WITNESS.cosigner), Algorithm.COSIGNATURE) == WITNESS.cosigner
