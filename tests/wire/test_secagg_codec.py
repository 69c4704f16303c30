"""Messages of secure aggregation to bytes and back: exactly, and for any other bytes a `WireError` in bounded time."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpriv.errors import WireError
from fedpriv.sealed import Envelope
from fedpriv.secagg import messages as m
from fedpriv.secagg.descriptor import Descriptor
from fedpriv.secagg.graph import COMPLETE, GraphKind, GraphSpec
from fedpriv.secagg.reasons import Reason
from fedpriv.secagg.vector import Part, Treatment, VectorSpec
from fedpriv.wire.secagg import MAXIMUM_CIPHERTEXT_BYTES, MAXIMUM_PARTS, MAXIMUM_WORKERS, decode_secagg, encode_secagg
from fedpriv.wire.v1 import secagg_pb2 as v1

SID, SIGNATURE = b"s" * 32, b"g" * 64
NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
DIGESTS, SIGNATURES = st.binary(min_size=32, max_size=32), st.binary(min_size=64, max_size=64)
SHARES = st.binary(min_size=33, max_size=33)


def named(content):
    return st.lists(st.tuples(NAMES, content), max_size=4).map(tuple)


MEMBERS = st.lists(NAMES, max_size=4).map(tuple)
ADVERTISED = st.builds(m.Advertise, st.just(SID), NAMES, DIGESTS, DIGESTS, DIGESTS, SIGNATURES)
PARTS = st.builds(
    Part,
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=8),
    st.lists(st.integers(0, 1000), max_size=3).map(tuple),
    st.floats(0.001, 1000),
    st.integers(0, 20),
    st.sampled_from([Treatment.WEIGHTED, Treatment.UNWEIGHTED]),
    st.sampled_from(["float32", "bfloat16", "int64"]),
)
COUNT = Part("# weight", (1,), 1000.0, 0, Treatment.WEIGHT, "int64")
VECTORS = st.builds(
    lambda parts, weight, noise: VectorSpec((*parts, COUNT), weight, noise),
    st.lists(PARTS, max_size=3, unique_by=lambda part: part.name),
    st.integers(1, 1000),
    st.integers(0, 2**40),
)
GRAPHS = st.one_of(
    st.just(COMPLETE),
    st.builds(lambda k, d: GraphSpec(GraphKind.HARARY, 2 * k, d), st.integers(1, 99), st.integers(0, 99)),
)
DESCRIPTORS = st.builds(
    Descriptor,
    federation=NAMES,
    roster=DIGESTS,
    round=st.integers(0, 2**40),
    model=DIGESTS,
    plan=DIGESTS,
    vector=VECTORS,
    modulus_bits=st.sampled_from([32, 64]),
    workers=st.integers(1, MAXIMUM_WORKERS),
    threshold=st.integers(1, MAXIMUM_WORKERS),
    minimum_cohort=st.integers(1, MAXIMUM_WORKERS),
    graph=GRAPHS,
    privacy=NAMES,
    deadlines_seconds=st.lists(st.floats(0, 1e6, exclude_min=True), max_size=5).map(tuple),
)
MESSAGES = st.one_of(
    st.builds(m.Invite, DESCRIPTORS),
    ADVERTISED,
    st.builds(
        m.Roll,
        st.just(SID),
        st.lists(ADVERTISED, max_size=3).map(tuple),
        MEMBERS,
        st.lists(DIGESTS, max_size=3).map(tuple),
    ),
    st.builds(m.Shares, st.just(SID), named(st.binary(max_size=300)), SIGNATURES),
    st.builds(m.Delivery, st.just(SID), MEMBERS, named(st.binary(max_size=300))),
    st.builds(m.Survivors, st.just(SID), MEMBERS),
    st.builds(m.Confirm, st.just(SID), SIGNATURES),
    st.builds(m.Agreement, st.just(SID), named(SIGNATURES)),
    st.builds(m.Unmask, st.just(SID), named(SHARES), named(SHARES), SIGNATURES),
    st.builds(m.Abort, st.just(SID), st.integers(0, 4), st.sampled_from(Reason), NAMES, SIGNATURES),
)


@settings(max_examples=100, deadline=None)
@given(MESSAGES)
def test_any_message_comes_back_as_it_was(message):
    envelope = encode_secagg(message)
    back = decode_secagg(envelope)
    assert back == message
    assert back.sid == message.sid
    assert encode_secagg(back) == envelope


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("cut", [0, 3, 8, 4001])
@pytest.mark.parametrize("length", [0, 1001])
def test_masked_words_come_back_whatever_the_pieces(bits, cut, length):
    words = np.arange(length, dtype=f"<u{bits // 8}") * 7
    envelope = encode_secagg(m.Masked(SID, words, SIGNATURE))
    data = b"".join(envelope.payload)
    pieces = tuple(memoryview(piece) for piece in (data[:cut], data[cut:]) if piece)
    back = decode_secagg(Envelope(envelope.header, pieces))
    np.testing.assert_array_equal(back.words, words)
    assert (back.words.dtype, back.signature, back.sid) == (words.dtype, SIGNATURE, SID)
    assert back.words.flags.aligned


@pytest.mark.parametrize("offset", range(1, 5))
def test_words_at_an_odd_address_are_copied(offset):
    words = np.arange(10, dtype="<u4")
    envelope = encode_secagg(m.Masked(SID, words, SIGNATURE))
    odd = memoryview(bytearray(offset) + words.tobytes())[offset:]
    back = decode_secagg(Envelope(envelope.header, (odd,)))
    np.testing.assert_array_equal(back.words, words)
    assert back.words.flags.aligned


CONFIRM = encode_secagg(m.Confirm(SID, SIGNATURE)).header


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\xff",
        CONFIRM[:-1],
        CONFIRM + b"\x98\x06\x01",  # an unknown field
        CONFIRM + CONFIRM,  # every field twice
        v1.Secagg(sid=SID).SerializeToString(),
        v1.Secagg(sid=SID, invite=v1.SecaggDescriptor()).SerializeToString(),
        v1.Secagg(sid=SID[:31], confirm=v1.SecaggConfirm(signature=SIGNATURE)).SerializeToString(),
        v1.Secagg(sid=SID, confirm=v1.SecaggConfirm(signature=SIGNATURE[1:])).SerializeToString(),
    ],
    ids=["empty", "noise", "cut", "unknown", "twice", "nothing", "invite with sid", "short sid", "short signature"],
)
def test_bytes_that_no_message_has_are_refused(header):
    with pytest.raises(WireError):
        decode_secagg(Envelope(header))


def built(**body):
    return v1.Secagg(sid=SID, **body).SerializeToString(deterministic=True)


def entry(worker="a", content=b""):
    return v1.SecaggNamed(worker=worker, content=content)


@pytest.mark.parametrize(
    "header",
    [
        built(survivors=v1.SecaggSurvivors(members=["a"] * (MAXIMUM_WORKERS + 1))),
        built(survivors=v1.SecaggSurvivors(members=["Not a name"])),
        built(survivors=v1.SecaggSurvivors(members=["a" * 64])),
        built(shares=v1.SecaggShares(ciphertexts=[entry()] * (MAXIMUM_WORKERS + 1), signature=SIGNATURE)),
        built(
            shares=v1.SecaggShares(
                ciphertexts=[entry(content=bytes(MAXIMUM_CIPHERTEXT_BYTES + 1))], signature=SIGNATURE
            )
        ),
        built(delivery=v1.SecaggDelivery(ciphertexts=[entry(worker="")])),
        built(agreement=v1.SecaggAgreement(signatures=[entry(content=bytes(63))])),
        built(unmask=v1.SecaggUnmask(self_shares=[entry(content=bytes(32))], signature=SIGNATURE)),
        built(unmask=v1.SecaggUnmask(key_shares=[entry(content=bytes(34))], signature=SIGNATURE)),
        built(roll=v1.SecaggRoll(members=[v1.SecaggAdvertise()])),
        built(roll=v1.SecaggRoll(everybody=["Not a name"])),
        built(roll=v1.SecaggRoll(everybody=["a"] * (MAXIMUM_WORKERS + 1))),
        built(roll=v1.SecaggRoll(proof=[bytes(31)])),
        built(roll=v1.SecaggRoll(proof=[bytes(32)] * (MAXIMUM_WORKERS + 1))),
        built(abort=v1.SecaggAbort(reason="because", signature=SIGNATURE)),
        built(abort=v1.SecaggAbort(round=5, reason="withdrawn", signature=SIGNATURE)),
        built(abort=v1.SecaggAbort(reason="withdrawn", subject="x" * 161, signature=SIGNATURE)),
        built(abort=v1.SecaggAbort(reason="withdrawn", subject="\x1b[2J", signature=SIGNATURE)),
        built(masked=v1.SecaggMasked(modulus_bits=48, signature=SIGNATURE)),
        built(masked=v1.SecaggMasked(modulus_bits=32)),
    ],
)
def test_counts_sizes_and_names_are_bounded(header):
    with pytest.raises(WireError):
        decode_secagg(Envelope(header))


def descriptor(**changes):
    vector = VectorSpec((Part("update", (7,), 1.0, 16, Treatment.UNWEIGHTED),))
    fields = {"federation": "f", "roster": SID, "round": 1, "model": SID, "plan": SID, "vector": vector}
    numbers = {"modulus_bits": 32, "workers": 5, "threshold": 4, "minimum_cohort": 3}
    body = v1.Secagg()
    body.ParseFromString(encode_secagg(m.Invite(Descriptor(**fields, **numbers))).header)
    for name, value in changes.items():
        target = body.invite
        *path, last = name.split("__")
        for each in path:
            target = target.parts[0] if each == "part" else getattr(target, each)
        if isinstance(value, list):
            del getattr(target, last)[:]
            getattr(target, last).extend(value)
        else:
            setattr(target, last, value)
    return body.SerializeToString(deterministic=True)


def test_the_descriptor_to_be_altered_is_one_that_decodes():
    assert isinstance(decode_secagg(Envelope(descriptor())), m.Invite)


@pytest.mark.parametrize(
    "change",
    [
        {"roster": b"short"},
        {"model": b""},
        {"plan": bytes(33)},
        {"modulus_bits": 16},
        {"workers": 0},
        {"workers": MAXIMUM_WORKERS + 1},
        {"threshold": 0},
        {"maximum_weight": 0},
        {"maximum_weight": 2},
        {"federation": "x" * 5000},
        {"privacy": "\x07"},
        {"graph__kind": "star"},
        {"graph__kind": "harary"},
        {"graph__degree": 4},
        {"part__bound": float("nan")},
        {"part__bound": float("inf")},
        {"part__bound": 1e308},
        {"part__bound": -1.0},
        {"part__fraction_bits": 1 << 31},
        {"part__dtype": "object"},
        {"part__treatment": "squared"},
        {"part__shape": [1 << 63]},
        {"part__shape": [1 << 30, 1 << 30]},
        {"part__shape": [1] * 65},
        {"deadlines_seconds": [1.0] * 17},
    ],
    ids=str,
)
def test_a_descriptor_that_nobody_could_have_written_is_refused(change):
    with pytest.raises(WireError):
        decode_secagg(Envelope(descriptor(**change)))


def test_parts_are_counted_before_they_are_made():
    body = v1.Secagg(invite=v1.SecaggDescriptor(parts=[v1.SecaggPart()] * (MAXIMUM_PARTS + 1)))
    with pytest.raises(WireError, match="parts in one message"):
        decode_secagg(Envelope(body.SerializeToString(deterministic=True)))


def test_a_header_is_measured_before_it_is_parsed():
    with pytest.raises(WireError, match="at most are accepted"):
        decode_secagg(Envelope(bytes((16 << 20) + 1)))


@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_payload_that_is_no_whole_number_of_words_is_refused(count):
    header = encode_secagg(m.Masked(SID, np.zeros(1, "<u4"), SIGNATURE)).header
    with pytest.raises(WireError, match="whole number of words"):
        decode_secagg(Envelope(header, (memoryview(bytes(count)),)))


def test_a_payload_belongs_to_masked_words_alone():
    with pytest.raises(WireError, match="none belong to it"):
        decode_secagg(Envelope(CONFIRM, (memoryview(bytes(4)),)))


@pytest.mark.parametrize("seed", range(4))
def test_mutated_bytes_are_refused_or_are_another_message(seed):
    source = random.Random(seed)
    advertised = m.Advertise(SID, "a", SID, SID, SID, SIGNATURE)
    originals = [
        descriptor(),
        encode_secagg(m.Roll(SID, (advertised, replace(advertised, worker="b")))).header,
        encode_secagg(m.Unmask(SID, (("a", bytes(33)),), (("b", bytes(33)),), SIGNATURE)).header,
        encode_secagg(m.Abort(SID, 1, Reason.NOT_AGREED, "a -> b", SIGNATURE)).header,
    ]
    refused = 0
    for _ in range(400):
        mutated = bytearray(source.choice(originals))
        for _ in range(source.choice((1, 2, 8))):
            match source.randrange(3):
                case 0:
                    mutated[source.randrange(len(mutated))] = source.randrange(256)
                case 1:
                    del mutated[source.randrange(len(mutated)) :][: source.randrange(1, 40)]
                case 2:
                    mutated.insert(source.randrange(len(mutated)), source.randrange(256))
            mutated = mutated or bytearray(b"\0")
        try:
            back = decode_secagg(Envelope(bytes(mutated)))
        except WireError:
            refused += 1
        else:
            assert encode_secagg(back).header == bytes(mutated)
    assert refused > 100
