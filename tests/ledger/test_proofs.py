"""Proof files: the specification's shape, read back, verified, and refused where anything was changed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.errors import VerificationFailed
from fedpriv.ledger.checkpoint import Checkpoint, SigningKey, sign_checkpoint
from fedpriv.ledger.cosignature import add_cosignatures, cosign
from fedpriv.ledger.merkle import Tree, leaf_hash, prove_inclusion, root_at
from fedpriv.ledger.proofs import MAXIMUM_PROOF_BYTES, EntryProof, decode_proof, encode_proof, verify_proof

KEY = SigningKey("fedpriv.ledger/bob", bytes(range(32)))
WITNESS = SigningKey("fedpriv.witness/hub", bytes(range(1, 33)))
SIZE = 11
TREE = Tree(leaf_hash(b"entry %d" % number) for number in range(SIZE))
NOTE = sign_checkpoint(Checkpoint(KEY.name, SIZE, root_at(SIZE, TREE.node)), KEY)
COSIGNED = add_cosignatures(NOTE, [cosign(NOTE, WITNESS, 1_767_225_600)])

# The example of C2SP tlog-proof; its extra data as printed there is not base64, so its length was mended.
EXAMPLE = (
    "c2sp.org/tlog-proof@v1\n"
    "extra YWdlLXYxLjIuMS1kYXJ3aW4tYXJtNjQudGFyLmd6\n"
    "index 73894\n"
    "gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=\n"
    "B95lDa8R83lS8n0eG+o0buTxRKQTYFi//1U8anccXmA=\n"
    "EKNzoDWG8LGC0Yp9o+sv3qllpMP9uHQ9B20KNL+Q1zs=\n"
    "\n"
    "example.com/fancylog\n109482\nsFodV/vSp5O8n9a8QpW6PRY97tfOSW5bsc2Xl/EQi08=\n\n— example.com/fancylog hI2DJw==\n"
)


def proof(index, *, note=COSIGNED, entry=None):
    content = b"entry %d" % index if entry is None else entry
    return EntryProof(index, tuple(prove_inclusion(index, SIZE, TREE.node)), note, content)


def test_the_example_of_the_specification_reads_back():
    found = decode_proof(EXAMPLE.encode())
    assert (found.index, len(found.hashes), found.entry) == (73894, 3, b"age-v1.2.1-darwin-arm64.tar.gz")
    assert found.note.startswith(b"example.com/fancylog\n109482\n")
    assert encode_proof(found) == EXAMPLE.encode()


@pytest.mark.parametrize("index", range(SIZE))
def test_a_proof_verifies_with_nothing_beside_it_but_keys(index):
    found = decode_proof(encode_proof(proof(index)))
    cosigned = verify_proof(found, KEY.verifier, [WITNESS.cosigner])
    assert (cosigned.checkpoint.size, found.entry) == (SIZE, b"entry %d" % index)
    assert [(each.name, each.time) for each in cosigned.witnessed] == [("fedpriv.witness/hub", 1_767_225_600)]


def test_an_entry_can_be_brought_along_instead():
    found = decode_proof(encode_proof(proof(4, entry=b"")))
    assert b"extra" not in encode_proof(found)
    assert verify_proof(found, KEY.verifier, entry=b"entry 4").checkpoint.size == SIZE
    with pytest.raises(VerificationFailed, match="entry 4 is not in the ledger"):
        verify_proof(found, KEY.verifier)


@given(st.integers(0, SIZE - 1), st.data())
def test_a_proof_with_a_changed_bit_does_not_verify(index, data):
    content = bytearray(encode_proof(proof(index, note=NOTE)))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(VerificationFailed):
        verify_proof(decode_proof(bytes(content)), KEY.verifier)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (EXAMPLE.replace("@v1", "@v2"), "line 1"),
        (EXAMPLE.replace("\n\n", "\n"), "empty line"),
        (EXAMPLE.replace("extra YWdl", "extra YWd"), "line 2"),
        (EXAMPLE.replace("extra YWdlLXYxLjIuMS1kYXJ3aW4tYXJtNjQudGFyLmd6", "extra "), "line 2"),
        (EXAMPLE.replace("index 73894", "index 073894"), "line 3 .* index"),
        (EXAMPLE.replace("index 73894", "Index 73894"), "line 3 .* index"),
        (EXAMPLE.replace("index 73894\n", ""), "line 3 .* index"),
        ("c2sp.org/tlog-proof@v1\n\nnote", "line 2 .* index"),
        (EXAMPLE.replace("gSKy", "gSK"), "line 4 .* hash"),
        (EXAMPLE.replace("PlQ=", "PlR="), "line 4 .* hash"),
        (EXAMPLE.replace("index 73894\n", "index 73894\nAAAA\n"), "line 4 .* hash"),
        (EXAMPLE.replace("gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=\n", ("A" * 43 + "=\n") * 64), "66 hashes"),
        (EXAMPLE.replace("extra YWdl", "extra ä"), "not ASCII"),
        ("x" * (MAXIMUM_PROOF_BYTES + 1), "more than"),
        ("", "line 1"),
    ],
)
def test_another_spelling_is_refused_by_line(changed, says):
    with pytest.raises(VerificationFailed, match=says):
        decode_proof(changed.encode())
