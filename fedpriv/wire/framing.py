"""One logical message as a sequence of frames, and back.

Each frame is a valid protobuf `Frame` (see session.proto), written and read by hand so that every byte is copied
once: into the frame on one side, into the message's own buffer on the other. A message is a header, then a payload;
the first frame states both lengths, the chunks of all frames follow each other without gaps. The exact number of
bytes is known before the first frame is made (`framed_bytes`), because a ledger records it first.
Reading is strict: only frames as written here are accepted, and nothing is allocated beyond the limit.
It does not look into the header.
"""

from __future__ import annotations

from collections.abc import Iterator

from fedpriv.errors import WireError
from fedpriv.sealed import Envelope
from fedpriv.wire.buffers import buffers

FRAME_BYTES = 1 << 20
MAXIMUM_FRAME_BYTES = 3 << 20
MAXIMUM_HEADER_BYTES = 16 << 20
MAXIMUM_MESSAGE_BYTES = 8 << 30
MAXIMUM_ENTRY_KEY_BYTES = 64
END = b""
"""The frame that ends a stream in order: it has no fields, so it has no bytes."""

_HEADER_BYTES, _PAYLOAD_BYTES, _ENTRY, _ENTRY_KEY, _CHUNK = 0x08, 0x10, 0x19, 0x22, 0x2A
_MAXIMUM_VARINT_BYTES = 10
_LONGEST_PREAMBLE = 128


def frames(envelope: Envelope, frame_bytes: int = FRAME_BYTES) -> Iterator[bytes]:
    """Yield the frames of `envelope`, each with at most `frame_bytes` bytes of content."""
    _check_frame_bytes(frame_bytes)
    header_bytes, payload_bytes = len(envelope.header), envelope.payload_bytes
    if not 0 < header_bytes <= MAXIMUM_HEADER_BYTES:
        raise WireError(f"a header of {header_bytes} bytes; 1 to {MAXIMUM_HEADER_BYTES} are possible")
    preamble = _preamble(header_bytes, payload_bytes, envelope.entry, envelope.entry_key)
    pieces: list[memoryview] = []
    room = frame_bytes
    for part in (memoryview(envelope.header), *envelope.payload):
        rest = part
        while rest.nbytes:
            piece, rest = rest[:room], rest[room:]
            pieces.append(piece)
            room -= piece.nbytes
            if not room:
                yield b"".join((preamble, _chunk_prefix(frame_bytes), *pieces))
                preamble, pieces, room = b"", [], frame_bytes
    if pieces:
        yield b"".join((preamble, _chunk_prefix(frame_bytes - room), *pieces))


def framed_bytes(
    header_bytes: int,
    payload_bytes: int,
    *,
    entry: int = -1,
    entry_key_bytes: int = 0,
    frame_bytes: int = FRAME_BYTES,
) -> int:
    """Return the sum of the lengths of the frames that `frames` will make, without making them."""
    _check_frame_bytes(frame_bytes)
    content = header_bytes + payload_bytes
    full, last = divmod(content, frame_bytes)
    total = content + full * len(_chunk_prefix(frame_bytes)) + (len(_chunk_prefix(last)) if last else 0)
    return total + len(_preamble(header_bytes, payload_bytes, entry, bytes(entry_key_bytes)))


def envelope_bytes(envelope: Envelope, frame_bytes: int = FRAME_BYTES) -> int:
    """Return the exact number of bytes that `envelope` has on the wire."""
    return framed_bytes(
        len(envelope.header),
        envelope.payload_bytes,
        entry=envelope.entry,
        entry_key_bytes=len(envelope.entry_key),
        frame_bytes=frame_bytes,
    )


class Assembler:
    """Puts frames together; holds at most one unfinished message, in buffers of exactly its size."""

    __slots__ = ("_entry", "_entry_key", "_filled", "_header", "_payload", "maximum_message_bytes")

    def __init__(self, maximum_message_bytes: int = MAXIMUM_MESSAGE_BYTES) -> None:
        self.maximum_message_bytes = maximum_message_bytes
        self._clear()

    @property
    def is_between_messages(self) -> bool:
        """Whether nothing is left of an unfinished message."""
        return not self._header

    @property
    def announced_bytes(self) -> int:
        """How large the unfinished message is said to be, 0 between messages."""
        return len(self._header) + self._payload.nbytes

    def feed(self, frame: bytes) -> Envelope | None:
        """Take the next frame; return the message that it completes, or None; raise `WireError` for a bad one."""
        reader = _Reader(frame)
        if self.is_between_messages:
            self._begin(reader)
        chunk = reader.chunk()
        header_bytes = len(self._header)
        if not chunk.nbytes or self._filled + chunk.nbytes > header_bytes + self._payload.nbytes:
            raise WireError(f"a frame with {chunk.nbytes} bytes of content does not fit the message that it belongs to")
        of_header = min(max(header_bytes - self._filled, 0), chunk.nbytes)
        if of_header:
            self._header[self._filled : self._filled + of_header] = chunk[:of_header]
        start = self._filled + of_header - header_bytes
        if chunk.nbytes > of_header:
            self._payload[start : start + chunk.nbytes - of_header] = chunk[of_header:]
        self._filled += chunk.nbytes
        return self._finish() if self._filled == header_bytes + self._payload.nbytes else None

    def _begin(self, reader: _Reader) -> None:
        header_bytes = reader.varint(_HEADER_BYTES)
        payload_bytes = reader.varint(_PAYLOAD_BYTES)
        if not 0 < header_bytes <= MAXIMUM_HEADER_BYTES:
            raise WireError(f"a header of {header_bytes} bytes; 1 to {MAXIMUM_HEADER_BYTES} are accepted")
        if header_bytes + payload_bytes > self.maximum_message_bytes:
            raise WireError(
                f"a message of {header_bytes + payload_bytes} bytes; {self.maximum_message_bytes} at most are accepted"
            )
        self._entry = reader.fixed64(_ENTRY) - 1
        self._entry_key = reader.short_bytes(_ENTRY_KEY)
        self._header = bytearray(header_bytes)
        # Uninitialised, so that a length without content commits no memory; only ever handed out full.
        self._payload = buffers.take(payload_bytes)

    def _finish(self) -> Envelope:
        payload = (self._payload,) if self._payload.nbytes else ()
        envelope = Envelope(bytes(self._header), payload, self._entry, self._entry_key)
        self._clear()
        return envelope

    def _clear(self) -> None:
        self._filled = 0
        self._header = bytearray()
        self._payload = memoryview(b"")
        self._entry = -1
        self._entry_key = b""


class _Reader:
    """Reads the fields of one frame in ascending order; an absent field is zero or empty."""

    __slots__ = ("_frame", "_position")

    def __init__(self, frame: bytes) -> None:
        if len(frame) > MAXIMUM_FRAME_BYTES:
            raise WireError(f"a frame of {len(frame)} bytes; {MAXIMUM_FRAME_BYTES} at most are accepted")
        self._frame = memoryview(frame)
        self._position = 0

    def varint(self, tag: int) -> int:
        """Return the integer under `tag`."""
        return self._number() if self._skip(tag) else 0

    def fixed64(self, tag: int) -> int:
        """Return the 8-byte integer under `tag`."""
        return int.from_bytes(self._take(8), "little") if self._skip(tag) else 0

    def short_bytes(self, tag: int) -> bytes:
        """Return the bytes under `tag`."""
        if not self._skip(tag):
            return b""
        length = self._number()
        if length > MAXIMUM_ENTRY_KEY_BYTES:
            raise WireError(f"an entry key of {length} bytes; {MAXIMUM_ENTRY_KEY_BYTES} at most are accepted")
        return bytes(self._take(length))

    def chunk(self) -> memoryview:
        """Return the content, which is the last field."""
        if not self._skip(_CHUNK):
            raise WireError("a frame without content, or with a field that does not belong there")
        content = self._take(self._number())
        if self._position != self._frame.nbytes:
            raise WireError("a frame goes on after its content")
        return content

    def _skip(self, tag: int) -> bool:
        there = self._position < self._frame.nbytes and self._frame[self._position] == tag
        self._position += there
        return there

    def _take(self, count: int) -> memoryview:
        end = self._position + count
        if end > self._frame.nbytes:
            raise WireError("a frame ends in the middle of a field")
        content = self._frame[self._position : end]
        self._position = end
        return content

    def _number(self) -> int:
        value = 0
        for index, byte in enumerate(self._frame[self._position : self._position + _MAXIMUM_VARINT_BYTES]):
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                self._position += index + 1
                return value
        raise WireError("a frame holds a number without an end")


def _preamble(header_bytes: int, payload_bytes: int, entry: int, entry_key: bytes) -> bytes:
    """Return fields 1 to 4; proto3 leaves out what is zero or empty."""
    if len(entry_key) > MAXIMUM_ENTRY_KEY_BYTES:
        raise WireError(f"an entry key of {len(entry_key)} bytes; {MAXIMUM_ENTRY_KEY_BYTES} at most can travel")
    fields = [bytes((_HEADER_BYTES,)), _varint(header_bytes)]
    if payload_bytes:
        fields += bytes((_PAYLOAD_BYTES,)), _varint(payload_bytes)
    if entry >= 0:
        fields += bytes((_ENTRY,)), (entry + 1).to_bytes(8, "little")
    if entry_key:
        fields += bytes((_ENTRY_KEY, len(entry_key))), entry_key
    return b"".join(fields)


def _chunk_prefix(count: int) -> bytes:
    return bytes((_CHUNK,)) + _varint(count)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _check_frame_bytes(frame_bytes: int) -> None:
    if not 0 < frame_bytes <= MAXIMUM_FRAME_BYTES - _LONGEST_PREAMBLE:
        raise WireError(f"frames of {frame_bytes} bytes; 1 to {MAXIMUM_FRAME_BYTES - _LONGEST_PREAMBLE} are possible")
