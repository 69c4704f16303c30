"""Signed notes and checkpoints: Go's vectors, and every way to write one that must be refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedpriv.errors import UsageError, VerificationFailed
from fedpriv.ids import WorkerName
from fedpriv.ledger.checkpoint import (
    Algorithm,
    Checkpoint,
    SigningKey,
    VerifierKey,
    check_signature,
    open_checkpoint,
    open_note,
    origin_of,
    parse_signing_key,
    parse_verifier_key,
    sign_checkpoint,
    sign_note,
)
from fedpriv.ledger.merkle import EMPTY_ROOT

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "ledger_notes.json").read_text(encoding="utf-8"))
KEY = SigningKey(origin_of(WorkerName("bob")), bytes(range(32)))
CHECKPOINT = Checkpoint(KEY.name, 20852163, EMPTY_ROOT)


def test_the_note_of_the_go_package_verifies_and_is_signed_alike():
    key = parse_verifier_key(VECTORS["vkey"])
    signer = parse_signing_key(VECTORS["signing_key"])
    assert open_note(VECTORS["note"].encode(), key) == VECTORS["text"]
    assert sign_note(VECTORS["text"], signer) == VECTORS["note"].encode()
    assert (str(signer.verifier), signer.to_text()) == (VECTORS["vkey"], VECTORS["signing_key"])


@pytest.mark.parametrize("name", VECTORS["refused"])
def test_a_note_that_says_the_same_otherwise_is_refused(name):
    with pytest.raises(VerificationFailed):
        open_note(VECTORS["refused"][name].encode(), parse_verifier_key(VECTORS["vkey"]))


@pytest.mark.parametrize("name", VECTORS["refused_vkeys"])
def test_a_malformed_verifier_key_is_refused(name):
    with pytest.raises(UsageError):
        parse_verifier_key(VECTORS["refused_vkeys"][name])


@pytest.mark.parametrize(
    "text", ["", VECTORS["vkey"], VECTORS["signing_key"][:-4], VECTORS["signing_key"].replace("c74f", "c74e")]
)
def test_a_malformed_signing_key_is_refused_without_quoting_it(text):
    with pytest.raises(UsageError) as refused:
        parse_signing_key(text)
    assert "AYEKFALV" not in str(refused.value)


def test_a_checkpoint_reads_back():
    note = sign_checkpoint(CHECKPOINT, KEY)
    assert note.startswith(b"fedpriv.ledger/bob\n20852163\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n")
    assert open_checkpoint(note, KEY.verifier) == CHECKPOINT


def test_signatures_of_witnesses_are_carried():
    witness = SigningKey("witness.example/w", bytes(32))
    note = sign_checkpoint(CHECKPOINT, KEY)
    line = sign_checkpoint(CHECKPOINT, witness).split(b"\n\n")[1]
    assert open_checkpoint(note + line, KEY.verifier) == CHECKPOINT
    assert (
        open_checkpoint(note[: -len(note.split(b"\n\n")[1])] + line + note.split(b"\n\n")[1], KEY.verifier)
        == CHECKPOINT
    )


def test_a_checkpoint_of_another_key_is_refused():
    with pytest.raises(VerificationFailed, match="no signature is by the key"):
        open_checkpoint(sign_checkpoint(CHECKPOINT, KEY), SigningKey(KEY.name, bytes(32)).verifier)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("another/bob\n1\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n", "line 1"),
        ("fedpriv.ledger/bob\n01\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n", "line 2"),
        ("fedpriv.ledger/bob\n-1\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n", "line 2"),
        ("fedpriv.ledger/bob\n" + "9" * 30 + "\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n", "line 2"),
        ("fedpriv.ledger/bob\n1\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV=\n", "line 3"),
        ("fedpriv.ledger/bob\n1\n47DE\n", "line 3"),
        ("fedpriv.ledger/bob\n1\nnot base64\n", "line 3"),
        ("fedpriv.ledger/bob\n1\n", "3 lines"),
        ("fedpriv.ledger/bob\n1\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\nmore\n", "3 lines"),
    ],
)
def test_a_signed_text_that_is_no_checkpoint_is_refused_by_line(text, says):
    with pytest.raises(VerificationFailed, match=says):
        open_checkpoint(sign_note(text, KEY), KEY.verifier)


@pytest.mark.parametrize(
    "note",
    [
        b"\xff\n\n\xe2\x80\x94 a AAAAAAA=\n",
        b"x" * 70_000,
        b"text\n\n" + "— a AAAAAAA=\n".encode() * 65,
        "text\n\n— a AAAA\n".encode(),
        "text\n\n— a\n".encode(),
        b"",
    ],
    ids=["not UTF-8", "too long", "65 signatures", "short signature", "no signature bytes", "empty"],
)
def test_hostile_notes_are_refused(note):
    with pytest.raises(VerificationFailed):
        open_note(note, KEY.verifier)


def test_a_signing_key_does_not_print_its_seed():
    assert "seed" not in repr(KEY)
    assert repr(bytes(range(32))) not in repr(KEY)


P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
PRIME_ORDER = 2**252 + 27742317777372353535851937790883648493


def added(left, right):
    """Return the sum of two points of edwards25519 (RFC 8032, section 5.1.4, in affine form)."""
    (x, y), (u, v) = left, right
    cross = D * x * u * y * v % P
    return (x * v + u * y) * pow(1 + cross, -1, P) % P, (y * v + x * u) * pow(1 - cross, -1, P) % P


def times(factor, point):
    total = (0, 1)
    for bit in f"{factor:b}":
        total = added(total, total)
        if bit == "1":
            total = added(total, point)
    return total


def points_of_small_order():
    """Return all 8: what is left of any points once the large prime is multiplied away."""
    found, y = set(), 1
    while len(found) < 8:
        y += 1
        square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
        for root in (r := pow(square, (P + 3) // 8, P), r * pow(2, (P - 1) // 4, P) % P):
            if root * root % P == square:
                found |= {times(PRIME_ORDER, (root, y)), times(PRIME_ORDER, (-root % P, y))}
    return found


def encodings(points):
    """Yield every way to write a point's y in 255 bits, with either sign bit (RFC 8032, section 5.1.2)."""
    for y in {y for _, y in points}:
        for value in range(y, 2**255, P):
            for sign in (0, 1):
                yield (value | sign << 255).to_bytes(32, "little")


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_a_key_of_small_order_is_refused_in_every_encoding(algorithm):
    encoded = list(encodings(points_of_small_order()))
    assert len(set(encoded)) == 14
    for public in encoded:
        with pytest.raises(UsageError, match="small order"):
            parse_verifier_key(str(VerifierKey(KEY.name, public, algorithm)), algorithm)


def test_a_key_of_small_order_would_verify_what_nobody_signed():
    neutral = (1).to_bytes(32, "little")
    check_signature(VerifierKey(KEY.name, neutral), neutral + bytes(32), b"whatever it may be")
