"""A witness: what it cosigns, what it refuses and how, and that a public test log passes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.errors import VerificationFailed
from fedpriv.ledger.checkpoint import Checkpoint, SigningKey, parse_signing_key, parse_verifier_key, sign_checkpoint
from fedpriv.ledger.cosignature import cosign, read_cosignature
from fedpriv.ledger.merkle import Tree, leaf_hash, prove_consistency, root_at
from fedpriv.ledger.witness import (
    MAXIMUM_REQUEST_BYTES,
    Refused,
    Request,
    Stale,
    Witnessed,
    consider,
    decode_request,
    encode_request,
    origin_in,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "ledger_cosignatures.json").read_text(encoding="utf-8"))
KEY = SigningKey("fedpriv.ledger/bob", bytes(range(32)))
TREE = Tree(leaf_hash(b"%d" % number) for number in range(20))
OTHER = Tree(leaf_hash(b"other %d" % number) for number in range(20))


def note(size, tree=TREE, key=KEY):
    return sign_checkpoint(Checkpoint(key.name, size, root_at(size, tree.node)), key)


def request(old, new, tree=TREE):
    proof = prove_consistency(old, new, tree.node) if old <= new else []
    return Request(old, tuple(proof), note(new, tree))


def held(size):
    return Witnessed(size, root_at(size, TREE.node), note(size))


def status(outcome):
    return outcome.status if isinstance(outcome, Stale | Refused) else 200


def test_a_public_test_log_is_followed():
    log = VECTORS["witness"]
    key = parse_verifier_key(log["vkey"])
    first = consider(Witnessed(), key, Request(0, (), log["first"].encode()))
    proof = tuple(map(bytes.fromhex, log["proof"]))
    following = consider(first, key, Request(5, proof, log["next"].encode()))
    assert (first.size, following.size, following.note.decode()) == (5, 8, log["next"])
    assert status(consider(first, key, Request(5, proof[:-1], log["next"].encode()))) == 422
    witness = parse_signing_key(log["signing_key"])
    line = cosign(following.note, witness, 1_700_000_000)
    assert read_cosignature(line, log["next"].encode(), witness.cosigner).time == 1_700_000_000


@given(st.lists(st.integers(0, 20), max_size=6).map(sorted))
def test_a_ledger_that_only_grows_is_always_witnessed(sizes):
    state = Witnessed()
    for size in sizes:
        state = consider(state, KEY.verifier, request(state.size, size))
        assert state == held(size)


@pytest.mark.parametrize("old", [0, 1, 6, 8, 20])
@pytest.mark.parametrize("new", [0, 1, 7, 8, 20])
@pytest.mark.parametrize("has", [0, 1, 6, 20])
def test_only_an_extension_of_what_is_held_is_witnessed(old, new, has):
    outcome = consider(held(has) if has else Witnessed(), KEY.verifier, request(old, new))
    expected = 400 if old > new else 409 if old != has else 200
    assert status(outcome) == expected
    if old <= new and old != has:
        assert outcome == Stale(has)


def test_another_ledger_of_the_same_size_is_a_conflict():
    outcome = consider(held(7), KEY.verifier, request(7, 7, OTHER))
    assert outcome == Refused(409, "another ledger of 7 entries was witnessed: this one was rewritten")


def test_a_longer_ledger_that_was_rewritten_is_refused():
    outcome = consider(held(7), KEY.verifier, request(7, 9, OTHER))
    assert (status(outcome), "does not extend" in outcome.why) == (422, True)


def test_an_empty_ledger_has_one_root():
    wrong = Request(0, (), sign_checkpoint(Checkpoint(KEY.name, 0, bytes(32)), KEY))
    assert status(consider(Witnessed(), KEY.verifier, wrong)) == 409


def test_a_proof_from_nothing_is_empty():
    assert status(consider(Witnessed(), KEY.verifier, replace(request(0, 7), proof=(bytes(32),)))) == 422


def test_an_unknown_ledger_and_a_strange_signature_are_told_apart():
    stranger = SigningKey(KEY.name, bytes(32))
    assert status(consider(Witnessed(), None, request(0, 7))) == 404
    assert status(consider(Witnessed(), KEY.verifier, Request(0, (), note(7, key=stranger)))) == 403
    assert status(consider(Witnessed(), KEY.verifier, Request(0, (), b"nonsense"))) == 403


def test_the_origin_is_the_first_line():
    assert origin_in(note(7)) == KEY.name
    assert origin_in(b"\xff") == "\N{REPLACEMENT CHARACTER}"


def test_a_request_has_the_specified_shape():
    body = encode_request(request(6, 7))
    assert body.startswith(b"old 6\n")
    assert body.count(b"\n\n") == 2
    assert decode_request(body) == request(6, 7)
    assert encode_request(Request(0, (), b"note")) == b"old 0\n\nnote"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"old 0",
        b"old 00\n\nnote",
        b"old -1\n\nnote",
        b"Old 1\n\nnote",
        b"old 1\nAAAA\n\nnote",
        b"old 1\n" + b"A" * 42 + b"B=\n\nnote",
        b"old 1\n\xff\n\nnote",
        b"old 1\n" + (b"A" * 43 + b"=\n") * 64 + b"\nnote",
        b"x" * (MAXIMUM_REQUEST_BYTES + 1),
    ],
)
def test_a_malformed_request_is_refused(body):
    with pytest.raises(VerificationFailed):
        decode_request(body)
