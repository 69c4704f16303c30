"""What passed a worker's door, kept as bytes beside the rows: for attacks on it, and for made-up data alone.

A ledger keeps digests and never payloads, so nobody can attack afterwards what left. A run on simulated data can keep
both directions of every link, exactly as they crossed it, and the rows that they derive from, by which an attack is
scored. That is the opposite of what a worker is for, so it takes data that its owner marked as simulated: the mark is
the owner's word and nothing checks it. Nothing here is sent.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from fedpriv.errors import UsageError
from fedpriv.ids import DatasetName, WorkerName
from fedpriv.sealed import Envelope
from fedpriv.storage.files import make_folder
from fedpriv.transport.link import RawLink
from fedpriv_worker.datasets import Dataset

FOLDER, ROWS = "payloads", "rows.safetensors"
SENT, RECEIVED = "out", "in"
LENGTH_BYTES = 8
"""A file begins with the length of the header in so many bytes, little-endian; header and payload follow."""


def check_simulated(marks: Sequence[tuple[str, bool]]) -> None:
    """Raise `UsageError` unless every data set, given as name and mark, is marked as simulated."""
    real = [name for name, simulated in marks if not simulated]
    if real:
        raise UsageError(
            f"record_payloads keeps rows and all that leaves, in the clear, to be attacked, and data set {real[0]!r} "
            "is not marked as simulated; remove record_payloads, or write simulated = true where no row is of a person"
        )


class Recorder:
    """One worker's recording under `folder`/payloads/NAME; writes at once, from any thread."""

    def __init__(self, folder: Path, worker: WorkerName, datasets: Sequence[Dataset]) -> None:
        check_simulated([(each.name, each.simulated) for each in datasets])
        self._folder = folder / FOLDER / worker
        if self._folder.exists():
            raise UsageError(f"{self._folder} holds another recording; name a new folder, or remove it")
        make_folder(self._folder, mode=0o700)
        save_file(_rows(datasets), self._folder / ROWS)
        self._count = 0
        self._lock = threading.Lock()

    def over(self, raw: RawLink) -> RawLink:
        """Return `raw`, with what crosses it kept."""
        return _Recorded(raw, self)

    def keep(self, direction: str, envelope: Envelope) -> None:
        """Write one message as it crossed the link; `direction` is "out" or "in"."""
        with self._lock:
            number, self._count = self._count, self._count + 1
        with (self._folder / f"{number:06d}.{direction}").open("xb") as file:
            file.write(len(envelope.header).to_bytes(LENGTH_BYTES, "little"))
            file.write(envelope.header)
            file.writelines(envelope.payload)


class _Recorded:
    """A link whose messages are kept before they are sent, and as they come."""

    __slots__ = ("_raw", "_recorder")

    def __init__(self, raw: RawLink, recorder: Recorder) -> None:
        self._raw = raw
        self._recorder = recorder

    @property
    def maximum_message_bytes(self) -> int:
        """What one received message may have at most."""
        return self._raw.maximum_message_bytes

    @maximum_message_bytes.setter
    def maximum_message_bytes(self, most: int) -> None:
        self._raw.maximum_message_bytes = most

    @property
    def tls_certificate(self) -> bytes | None:
        """The certificate that the other side showed in TLS."""
        return self._raw.tls_certificate

    @property
    def bytes_sent(self) -> int:
        """Serialised frame bytes handed to the transport."""
        return self._raw.bytes_sent

    @property
    def bytes_received(self) -> int:
        """Serialised frame bytes taken from the transport."""
        return self._raw.bytes_received

    async def send(self, envelope: Envelope) -> None:
        """Keep one message, then send it."""
        self._recorder.keep(SENT, envelope)
        await self._raw.send(envelope)

    async def receive(self) -> Envelope | None:
        """Return the next message, once it is kept."""
        envelope = await self._raw.receive()
        if envelope is not None:
            self._recorder.keep(RECEIVED, envelope)
        return envelope

    async def close(self) -> None:
        """End the stream."""
        await self._raw.close()


def name_of(dataset: DatasetName, part: str, what: str) -> str:
    """Return the name of a tensor of rows: `part` is "training" or "evaluation", `what` "features" or "target"."""
    return f"{dataset}/{part}/{what}"


def _rows(datasets: Sequence[Dataset]) -> dict[str, torch.Tensor]:
    held = {}
    for each in datasets:
        for part, rows in (("training", each.training), ("evaluation", each.evaluation)):
            held[name_of(each.name, part, "features")] = rows.features.contiguous().clone()
            held[name_of(each.name, part, "target")] = rows.target.contiguous().clone()
    return held
