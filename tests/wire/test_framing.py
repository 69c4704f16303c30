"""Frames: exact sizes beforehand, valid protobuf, one copy, strict and bounded reading."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpriv.errors import WireError
from fedpriv.sealed import Envelope
from fedpriv.wire.framing import (
    END,
    FRAME_BYTES,
    MAXIMUM_FRAME_BYTES,
    MAXIMUM_HEADER_BYTES,
    Assembler,
    envelope_bytes,
    framed_bytes,
    frames,
)
from fedpriv.wire.v1.session_pb2 import Frame

SIZES = sorted({base + offset for base in (1, 127, 128, 1000, 16_383, 16_384, 70_000) for offset in (-1, 0, 1)})


def envelope(header: int, *parts: int, entry: int = -1, key: bytes = b"") -> Envelope:
    pattern = bytes(range(256)) * (max((header, *parts)) // 256 + 1)
    return Envelope(pattern[:header], tuple(memoryview(pattern[-part:]) for part in parts if part), entry, key)


def content(message: Envelope) -> tuple[bytes, bytes, int, bytes]:
    return message.header, b"".join(message.payload), message.entry, message.entry_key


def assembled(pieces: list[bytes], assembler: Assembler | None = None) -> Envelope:
    assembler = assembler or Assembler()
    results = [assembler.feed(piece) for piece in pieces]
    assert all(result is None for result in results[:-1])
    assert results[-1] is not None
    assert assembler.is_between_messages
    return results[-1]


@pytest.mark.parametrize("frame_bytes", [1, 100, 127, 128, 1000, 16_384, FRAME_BYTES])
def test_the_size_said_beforehand_is_the_size_of_the_frames(frame_bytes: int) -> None:
    for size in SIZES if frame_bytes > 1 else SIZES[:8]:
        for entry, key in ((-1, b""), (0, bytes(32)), (2**40, bytes(32)), (7, b"")):
            message = envelope(40, size, entry=entry, key=key)
            pieces = list(frames(message, frame_bytes))
            said = framed_bytes(40, size, entry=entry, entry_key_bytes=len(key), frame_bytes=frame_bytes)
            assert sum(map(len, pieces)) == said == envelope_bytes(message, frame_bytes)


def test_the_size_does_not_depend_on_the_number_of_the_entry() -> None:
    sizes = {framed_bytes(10, 1000, entry=entry, entry_key_bytes=32) for entry in (0, 1, 127, 128, 2**31, 2**60)}
    assert len(sizes) == 1


@settings(max_examples=200, deadline=None)
@given(
    header=st.integers(1, 400),
    parts=st.lists(st.integers(0, 400), max_size=5),
    frame_bytes=st.integers(1, 300),
    entry=st.integers(-1, 2**63 - 2),
    key=st.binary(max_size=64),
)
def test_a_message_comes_together_again_whatever_the_cuts(
    header: int, parts: list[int], frame_bytes: int, entry: int, key: bytes
) -> None:
    message = envelope(header, *parts, entry=entry, key=key)
    pieces = list(frames(message, frame_bytes))
    assert sum(map(len, pieces)) == envelope_bytes(message, frame_bytes)
    assert content(assembled(pieces)) == content(message)


def test_messages_follow_each_other_without_a_trace() -> None:
    assembler = Assembler()
    first, second = envelope(5, 300, entry=3, key=b"k"), envelope(900)
    for message in (first, second, first):
        assert content(assembled(list(frames(message, 128)), assembler)) == content(message)


def test_frames_are_valid_protobuf() -> None:
    message = envelope(300, 5000, entry=0, key=bytes(32))
    parsed = [Frame.FromString(piece) for piece in frames(message, 1000)]
    assert (parsed[0].header_bytes, parsed[0].payload_bytes) == (300, 5000)
    assert (parsed[0].entry, parsed[0].entry_key) == (1, bytes(32))
    assert all(frame.header_bytes == frame.payload_bytes == frame.entry == 0 for frame in parsed[1:])
    assert b"".join(frame.chunk for frame in parsed) == message.header + b"".join(message.payload)


def test_what_protobuf_writes_we_read() -> None:
    frame = Frame(header_bytes=2, payload_bytes=3, entry=8, entry_key=b"key", chunk=b"hdpay").SerializeToString()
    message = Assembler().feed(frame)
    assert message is not None
    assert content(message) == (b"hd", b"pay", 7, b"key")


def test_no_frame_is_larger_than_three_mebibytes() -> None:
    largest = MAXIMUM_FRAME_BYTES - 128
    message = envelope(1000, 2 * largest, entry=2**60, key=bytes(64))
    assert max(map(len, frames(message, largest))) <= MAXIMUM_FRAME_BYTES
    with pytest.raises(WireError):
        list(frames(message, largest + 1))


@pytest.mark.parametrize("header", [0, MAXIMUM_HEADER_BYTES + 1])
def test_a_header_of_an_impossible_length_is_not_sent(header: int) -> None:
    with pytest.raises(WireError):
        next(frames(Envelope(bytes(header))))


def test_a_header_may_span_frames() -> None:
    message = envelope(3 * FRAME_BYTES + 5, 10)
    assert content(assembled(list(frames(message)))) == content(message)


@pytest.mark.parametrize(
    "frame",
    [
        END,
        b"\x2a\x01x",
        b"\x08\x00\x2a\x01x",
        b"\x08\x01",
        b"\x08\x01\x2a\x00",
        b"\x08\x01\x2a\x02xy",
        b"\x08\x01\x2a\x05x",
        b"\x08\x01\x2a\x01xmore",
        b"\x08\x01\x30\x01\x2a\x01x",
        b"\x10\x01\x08\x01\x2a\x01x",
        b"\x08" + b"\xff" * 11,
        b"\x08\x80",
        b"\x08\x01\x19\x01",
        b"\x08\x01\x22\x41" + bytes(65) + b"\x2a\x01x",
        b"\x08\xff\xff\xff\xff\x0f\x2a\x01x",
        b"\x08\x01\x10\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x2a\x01x",
        bytes(MAXIMUM_FRAME_BYTES + 1),
    ],
    ids=lambda frame: frame[:12].hex() or "end",
)
def test_a_frame_that_we_would_not_write_is_refused(frame: bytes) -> None:
    with pytest.raises(WireError):
        Assembler().feed(frame)


@pytest.mark.parametrize("second", [END, b"\x08\x01\x2a\x01x", b"\x2a\x03xyz", b"\x2a\x00"], ids=bytes.hex)
def test_a_message_goes_on_only_with_its_own_bytes(second: bytes) -> None:
    assembler = Assembler()
    assert assembler.feed(b"\x08\x03\x2a\x01a") is None
    with pytest.raises(WireError):
        assembler.feed(second)


def test_a_message_over_the_limit_is_refused_before_anything_is_allocated() -> None:
    assembler = Assembler(maximum_message_bytes=1000)
    with pytest.raises(WireError, match="1001"):
        assembler.feed(Frame(header_bytes=1, payload_bytes=1000, chunk=b"h").SerializeToString())
    assembler.maximum_message_bytes = 1001
    assert assembler.feed(Frame(header_bytes=1, payload_bytes=1000, chunk=b"h").SerializeToString()) is None


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_mutated_frames_are_a_message_or_a_wire_error(data: st.DataObject) -> None:
    pieces = [bytearray(piece) for piece in frames(envelope(30, 200, entry=4, key=bytes(32)), 64)]
    for _ in range(data.draw(st.integers(1, 4))):
        piece = data.draw(st.sampled_from(pieces))
        position = data.draw(st.integers(0, len(piece)))
        piece[position : position + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    assembler = Assembler(maximum_message_bytes=1 << 16)
    try:
        results = [assembler.feed(bytes(piece)) for piece in pieces]
    except WireError:
        return
    assert all(result is None or result.payload_bytes <= 1 << 16 for result in results)
