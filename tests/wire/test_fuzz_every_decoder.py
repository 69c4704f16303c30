"""Every decoder of bytes from outside, with its own examples mutated: an error of ours or a value, never anything else.

A few hundred a decoder in the ordinary suite, and a hundred thousand of each (of files a fifth) in the long one.
Mutations are of bits, bytes, cuts, doublings, spliced parts and numbers that announce much; all follow from a seed.
"""

from __future__ import annotations

import random
import resource
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from test_codec import EXAMPLES

from fedpriv.clock import ManualClock
from fedpriv.entropy import SeededEntropy
from fedpriv.errors import FedprivError
from fedpriv.ids import WorkerName
from fedpriv.ledger.checkpoint import Checkpoint, SigningKey, open_checkpoint, origin_of, sign_checkpoint
from fedpriv.ledger.cosignature import cosign, read_cosignature
from fedpriv.ledger.entries import Draft, Entry, decode_entry, encode_entry
from fedpriv.ledger.proofs import EntryProof, decode_proof, encode_proof
from fedpriv.ledger.witness import Request, decode_request, encode_request
from fedpriv.sealed import Envelope
from fedpriv.secagg import messages as s
from fedpriv.secagg.keys import Identity
from fedpriv.secagg.roster import Member, Roster
from fedpriv.storage.rosters import SignedRoster, load_roster, new_identity, to_text
from fedpriv.transport.authority import Authority
from fedpriv.transport.credentials import read_certificates, read_key
from fedpriv.transport.enquiry import pack, text, unpack
from fedpriv.transport.health import _service
from fedpriv.transport.joining import signing_request
from fedpriv.transport.registrar import requested_key
from fedpriv.transport.revocation import read_revoked
from fedpriv.transport.token import JoinToken
from fedpriv.wire import codec
from fedpriv.wire import messages as m
from fedpriv.wire.framing import Assembler, frames
from fedpriv.wire.plans import decode_plan, encode_plan
from fedpriv.wire.secagg import decode_secagg, encode_secagg
from fedpriv_worker.config import load_config
from fedpriv_worker.template import render_template

FEW, MANY, MANY_FILES = 300, 100_000, 20_000
LARGEST = 1 << 16
"""Of what is assembled here from frames: what a stranger may say."""
GROWTH = 256 << 20


@dataclass(frozen=True)
class Decoder:
    """One way in: what it makes of bytes, and bytes that it takes."""

    decode: Callable[[bytes], object]
    examples: tuple[bytes, ...]


def assembled(data: bytes) -> object:
    """Feed frames that stand behind their lengths, two bytes each, as many as there are."""
    assembler, at, found = Assembler(LARGEST), 0, []
    while at + 2 <= len(data):
        size = int.from_bytes(data[at : at + 2], "big")
        found.append(assembler.feed(data[at + 2 : at + 2 + size]))
        at += 2 + size
    return found


def framed(message: m.Message) -> bytes:
    return b"".join(len(each).to_bytes(2, "big") + each for each in frames(codec.encode(message), 1000))


def split(data: bytes) -> Envelope:
    """Return an envelope whose header is as long as the first two bytes say."""
    size = int.from_bytes(data[:2], "big")
    payload = data[2 + size :]
    return Envelope(data[2 : 2 + size], (memoryview(payload),) if payload else ())


def joined(envelope: Envelope) -> bytes:
    return len(envelope.header).to_bytes(2, "big") + envelope.header + b"".join(envelope.payload)


def key() -> SigningKey:
    return SigningKey(origin_of(WorkerName("bob")), SeededEntropy(b"bob").random_bytes(32))


def from_file(read: Callable[[Path], object], folder: Path) -> Callable[[bytes], object]:
    path = folder / "file"

    def decode(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return decode


def of_text(read: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: read(data.decode("utf-8", "replace"))


def sums() -> tuple[bytes, ...]:
    sid, signature = b"s" * 32, b"g" * 64
    advertised = s.Advertise(sid, "a", b"1" * 32, b"2" * 32, b"3" * 32, signature)
    found = (
        advertised,
        s.Roll(sid, (advertised,), ("a", "b"), (b"4" * 32,)),
        s.Shares(sid, (("a", b"cipher"),), signature),
        s.Delivery(sid, ("a",), (("b", b"cipher"),)),
        s.Survivors(sid, ("a", "b")),
        s.Agreement(sid, (("a", signature),)),
    )
    return tuple(joined(encode_secagg(each)) for each in found)


@cache
def decoders(folder: Path) -> dict[str, Decoder]:
    authority, clock, signing = Authority.create(), ManualClock(), key()
    issued = authority.issue("alice", m.Role.WORKER)
    note = sign_checkpoint(Checkpoint(signing.name, 5, b"r" * 32), signing)
    entry = Entry(
        Draft(peer="hub", method="Attach", kind="update", bytes=7), WorkerName("bob"), 5, 1_767_225_600_000, "ab" * 32
    )
    administrator: Identity = new_identity(SeededEntropy(b"administrator"))
    roster = SignedRoster.sign(Roster("clinics", 1, (Member(WorkerName("a"), b"k" * 32),)), administrator)
    token = JoinToken(b"i" * 8, b"s" * 16, b"f" * 32, "ca.example:7444", b"k" * 32)
    witness = SigningKey("fedpriv.witness/me", SeededEntropy(b"me").random_bytes(32))
    revoked = authority.revoke({7: clock.now()}, 1, now=clock.now())
    plans = tuple(encode_plan(each.plan) for each in EXAMPLES if isinstance(each, m.OfferPlan))
    small = [each for each in EXAMPLES if codec.encode(each).payload_bytes + len(codec.encode(each).header) < 4000]
    return {
        "frames": Decoder(assembled, tuple(map(framed, small))),
        "messages": Decoder(lambda data: codec.decode(split(data)), tuple(joined(codec.encode(e)) for e in small)),
        "plans": Decoder(decode_plan, plans),
        "sums": Decoder(lambda data: decode_secagg(split(data)), sums()),
        "entries": Decoder(decode_entry, (encode_entry(entry),)),
        "checkpoints": Decoder(lambda data: open_checkpoint(data, signing.verifier), (note,)),
        "cosignatures": Decoder(
            lambda data: read_cosignature(data, note, witness.cosigner), (cosign(note, witness, 1_767_225_600),)
        ),
        "proofs": Decoder(decode_proof, (encode_proof(EntryProof(2, (b"h" * 32,), note, b"entry")),)),
        "requests to witnesses": Decoder(decode_request, (encode_request(Request(3, (b"h" * 32,), note)),)),
        "rosters": Decoder(from_file(load_roster, folder), (to_text(roster).encode(),)),
        "worker.toml": Decoder(from_file(load_config, folder), (render_template("alice").encode(),)),
        "tokens": Decoder(of_text(JoinToken.parse), (token.text.encode(),)),
        "questions": Decoder(lambda data: text(unpack(data), "ask"), (pack({"ask": "join", "role": "worker"})[4:],)),
        "signing requests": Decoder(of_text(requested_key), (signing_request(issued.key).encode(),)),
        "revocation lists": Decoder(
            lambda data: read_revoked(data, (authority.certificate,), where="it"), (revoked,)
        ),
        "certificates": Decoder(from_file(read_certificates, folder), (issued.chain_pem,)),
        "keys": Decoder(from_file(read_key, folder), (issued.key_pem,)),
        "health": Decoder(_service, (b"", b"\x0a\x0cfedpriv.link")),
    }  # fmt: skip  # one line a decoder, where it fits


NAMES = (
    "frames", "messages", "plans", "sums", "entries", "checkpoints", "cosignatures", "proofs", "requests to witnesses",
    "rosters", "worker.toml", "tokens", "questions", "signing requests", "revocation lists", "certificates", "keys",
    "health",
)  # fmt: skip  # a list


FILES = ("rosters", "worker.toml", "certificates", "keys")
"""What is read from a file, which takes its time."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


LARGE_NUMBERS = (b"\xff" * 9 + b"\x01", b"\x80\x80\x80\x80\x80\x20", b"\xff\xff\xff\x7f", b"\xff" * 8, b"9" * 30)


def mutations(examples: tuple[bytes, ...], count: int, seed: int) -> Iterator[bytes]:
    chance = random.Random(seed)
    for _ in range(count):
        data = bytearray(chance.choice(examples))
        for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
            at = chance.randrange(len(data) + 1)
            match chance.randrange(7):
                case 0 if at < len(data):
                    data[at] ^= 1 << chance.randrange(8)
                case 1 if at < len(data):
                    data[at] = chance.randrange(256)
                case 2:
                    del data[at : at + chance.randrange(1, 9)]
                case 3:
                    data[at:at] = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 9)))
                case 4:
                    data[at : at + chance.randrange(9)] = chance.choice(LARGE_NUMBERS)
                case 5:
                    data[at:at] = data[chance.randrange(len(data) + 1) :][: chance.randrange(1, 200)]
                case _:
                    other = chance.choice(examples)
                    data[at:] = other[chance.randrange(len(other) + 1) :]
        yield bytes(data)


def peak_memory() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def fuzzed(decoder: Decoder, count: int, seed: int) -> int:
    """Decode mutated examples and return how many were taken; whatever is raised and not ours ends the test."""
    taken, before = 0, peak_memory()
    for data in mutations(decoder.examples, count, seed):
        try:
            decoder.decode(data)
            taken += 1
        except FedprivError as error:
            assert len(str(error)) < 4000  # noqa: PT017 - what is quoted is cut
    assert peak_memory() - before < GROWTH
    return taken


def test_every_decoder_has_its_name_here(folder: Path) -> None:
    assert tuple(decoders(folder)) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_its_examples_are_taken_so_that_what_is_refused_is_the_mutation(folder: Path, name: str) -> None:
    decoder = decoders(folder)[name]
    assert decoder.examples
    refused = 0
    for example in decoder.examples:
        try:
            decoder.decode(example)
        except FedprivError:
            refused += 1
    assert refused == 0


@pytest.mark.parametrize("name", NAMES)
def test_mutated_bytes_are_refused_by_an_error_of_ours_or_are_another_value(folder: Path, name: str) -> None:
    assert fuzzed(decoders(folder)[name], FEW, seed=1) < FEW


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_hundred_thousand_of_each(folder: Path, name: str) -> None:
    count = MANY_FILES if name in FILES else MANY
    assert fuzzed(decoders(folder)[name], count, seed=2) < count
