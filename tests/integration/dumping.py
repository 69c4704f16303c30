"""All that a coordinator received, as a file of the very frames that came, and what anybody reads in such a file.

The tap is on the coordinator's ingress, through which every message of every worker passes before anything is done
with it. Whoever reads a dump has the file, and what is public: the format of messages. Nothing here knows a secret.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message as Protobuf

from fedpriv.sealed import Envelope
from fedpriv.wire.codec import decode
from fedpriv.wire.framing import Assembler, frames
from fedpriv.wire.messages import Message
from fedpriv.wire.v1 import secagg_pb2, session_pb2
from fedpriv_coordinator.ingress import Ingress

FRESH = {"certificates", "nonce", "signature", "sid", "sealing", "masking", "commitment", "content", "note", "proof"}
"""Fields of bytes that are random, or depend on something that is: keys, ciphertexts, signatures, ids, hashes."""
OF_CHANCE = {"hello", "hello-proof", "checkpoint"}
"""Kinds whose length or number is chance: ECDSA signatures in DER, and how much of a ledger a timer had published."""


@dataclass(frozen=True)
class Received:
    """One message of a dump: who sent it, of which kind, and the envelope."""

    peer: str
    kind: str
    envelope: Envelope = field(repr=False)

    @property
    def message(self) -> Message:
        return decode(self.envelope)

    @property
    def payload(self) -> bytes:
        return b"".join(self.envelope.payload)


class Tap:
    """Writes each message that any coordinator of this process receives to a file, as its frames came."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._lock = threading.Lock()
        self._taken: list[tuple[str, str, Envelope]] = []
        record = Ingress.record

        def tapped(ingress: Ingress, peer: str, kind: str, envelope: Envelope) -> None:
            with self._lock:
                self._taken.append((peer, kind, envelope))
            record(ingress, peer, kind, envelope)

        monkeypatch.setattr(Ingress, "record", tapped)

    def write(self, file: Path) -> Path:
        """Write what came since the last time."""
        with self._lock:
            taken, self._taken = self._taken, []
        return write_dump(file, taken)


def write_dump(file: Path, messages: Iterable[tuple[str, str, Envelope]]) -> Path:
    """Write messages, each as (sender, kind, envelope): a line of JSON, then the frames that it names."""
    with file.open("wb") as dump:
        for peer, kind, envelope in messages:
            pieces = list(frames(envelope))
            line = {"peer": peer, "kind": kind, "frames": [len(piece) for piece in pieces]}
            dump.write(json.dumps(line).encode() + b"\n" + b"".join(pieces))
    return file


def read_dump(file: Path) -> list[Received]:
    """Return the messages of a dump in the order of their arrival."""
    return list(_read(file))


def _read(file: Path) -> Iterator[Received]:
    with file.open("rb") as dump:
        while line := dump.readline():
            head, assembler, envelope = json.loads(line), Assembler(), None
            for size in head["frames"]:
                envelope = assembler.feed(dump.read(size))
            assert envelope is not None, "the last frame completes a message"
            yield Received(head["peer"], head["kind"], envelope)


def appearance(dump: Iterable[Received]) -> dict[str, list[tuple[Any, ...]]]:
    """Return, for each sender, all that shows of its messages in order: kinds, lengths, every field that is not fresh.

    Of bytes that are fresh, and of payloads, the length is left.
    """
    seen: dict[str, list[tuple[Any, ...]]] = {}
    for each in dump:
        if each.kind in OF_CHANCE:
            continue
        header = session_pb2.Header.FromString(each.envelope.header)
        shown = _shown(header)
        lengths = len(each.envelope.header), each.envelope.payload_bytes, len(each.envelope.entry_key)
        seen.setdefault(each.peer, []).append((each.kind, *lengths, shown))
    return seen


def _shown(message: Protobuf) -> dict[str, Any]:
    return {field.name: _value(field.name, value) for field, value in message.ListFields()}


def _value(name: str, value: Any) -> Any:
    if name == "secagg":
        return _shown(secagg_pb2.Secagg.FromString(value))
    if isinstance(value, Protobuf):
        return _shown(value)
    if isinstance(value, bytes):
        return len(value) if name in FRESH else value.hex()
    if isinstance(value, str | int | float):
        return value
    return [_value(name, each) for each in value]
