"""The coordinator as a witness: it cosigns each worker's ledger as it grows, and nothing that contradicts before.

A worker's ledger key is pinned when it is first seen. What is cosigned is stored before the cosignature leaves, so that
after a crash we hold no less than anybody can show. A worker whose ledger was cut short, rewritten or signed by another
key is refused with the reason; one that shows no checkpoint at all is noted, once, and trusted no further than before.
What follows from a checkpoint is decided in `fedpriv.ledger.witness`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from fedpriv.clock import Clock
from fedpriv.errors import FedprivError, PeerLost, UsageError, VerificationFailed, WorkerRefused
from fedpriv.ids import WorkerName
from fedpriv.ledger.checkpoint import SigningKey, VerifierKey, open_checkpoint, origin_of, parse_verifier_key
from fedpriv.ledger.cosignature import add_cosignatures, cosign, cosignature_lines
from fedpriv.ledger.witness import Refused, Request, Stale, Witnessed, consider
from fedpriv.remote.connection import Connection
from fedpriv.storage.rows import Rows
from fedpriv.wire.messages import AskCheckpoint, Checkpoint, Cosigned

ASK_SECONDS = 10.0
PAUSE_SECONDS = 1.0
"""A worker's checkpoint is asked for at most this often while rounds go on."""
_NOTE, _KEY = "witness/note/", "witness/key/"


class LedgerRefused(FedprivError):
    """A worker's ledger contradicts what we cosigned before, or its key what we pinned."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Sighting:
    """The last checkpoint of one worker that we cosigned; `time` in seconds since 1970-01-01 UTC, `root` in hex."""

    worker: str
    size: int
    root: str
    time: int
    ledger: str
    witness: str


class Witness:
    """Cosigns the checkpoints of the workers of one coordinator; all coroutines run on the loop's thread."""

    def __init__(self, rows: Rows, key: SigningKey, *, clock: Clock, note: Callable[[str], None]) -> None:
        self._rows = rows
        self._key = key
        self._clock = clock
        self._note = note
        self._silent: set[WorkerName] = set()
        self._visited: dict[WorkerName, tuple[float, int]] = {}
        self.sightings: dict[WorkerName, Sighting] = {}
        self.refused: dict[WorkerName, str] = {}

    @property
    def vkey(self) -> str:
        """The line that auditors pass as `--witness`."""
        return str(self._key.cosigner)

    async def visit(self, connection: Connection) -> None:
        """Cosign the worker's checkpoint as it is now; raise `LedgerRefused` if nobody should."""
        name = connection.name
        held = await asyncio.to_thread(self._rows.recall, _NOTE + name)
        try:
            ask = AskCheckpoint(0, (held or "").encode())
            shown = await connection.ask(ask, timeout_seconds=ASK_SECONDS)
        except (PeerLost, WorkerRefused) as error:
            if name not in self._silent:
                self._silent.add(name)
                self._note(f"worker {name} shows no checkpoint of its ledger, so none is cosigned: {error}")
            return
        finally:
            self._visited[name] = self._clock.monotonic(), _messages(connection)
        assert isinstance(shown, Checkpoint)  # the connection accepts nothing else as an answer
        try:
            line = await asyncio.to_thread(self._cosigned, name, held, shown)
        except LedgerRefused as refusal:
            self.refused[name] = str(refusal)
            raise
        with contextlib.suppress(PeerLost):  # it is gone, and will be told when it is back
            await connection.tell(Cosigned(self.vkey, line))

    def is_due(self, connection: Connection, *, last: bool = False) -> bool:
        """Whether to visit now: something came since, and the last visit was a while ago, or this is the `last`."""
        then, messages = self._visited.get(connection.name, (-PAUSE_SECONDS, -1))
        return _messages(connection) != messages and (last or self._clock.monotonic() - then >= PAUSE_SECONDS)

    def save(self, folder: Path, rows: Rows) -> None:
        """Write what was cosigned of the workers seen, as `rows` hold it: witness.json, and each note with our line."""
        beside = folder / "witness"
        beside.mkdir(parents=True, exist_ok=True)
        for worker in sorted(self._visited):
            if (note := rows.recall(_NOTE + worker)) is not None:
                (beside / f"{worker}.checkpoint").write_text(note, encoding="utf-8")
        document = {
            "witness": self.vkey,
            "workers": [asdict(self.sightings[name]) for name in sorted(self.sightings)],
            "refused": dict(sorted(self.refused.items())),
        }
        (folder / "witness.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    def _cosigned(self, name: WorkerName, held: str | None, shown: Checkpoint) -> bytes:
        """Return the cosignature of what `name` shows, once it is stored; blocks on the disk."""
        key = self._pinned(name, shown.vkey)
        before = _witnessed(held, key)
        after = consider(before, key, Request(before.size, shown.proof, shown.note))
        if isinstance(after, Stale | Refused):
            raise LedgerRefused(f"worker {name!r} is left out: {_why(after, before, shown, key)}")
        time = int(self._clock.now())
        line = cosign(after.note, self._key, time)
        note = add_cosignatures(_bare(after.note, key), [line])
        self._rows.remember(_NOTE + name, note.decode())
        self.sightings[name] = Sighting(name, after.size, after.root.hex(), time, str(key), self.vkey)
        return line

    def _pinned(self, name: WorkerName, shown: str) -> VerifierKey:
        """Return the ledger key of `name`, pinning `shown` at first sight; raise `LedgerRefused` for another."""
        try:
            key = parse_verifier_key(shown)
        except UsageError as error:
            raise LedgerRefused(f"worker {name!r} is left out: its ledger's key cannot be read ({error})") from None
        if key.name != origin_of(name):
            raise LedgerRefused(f"worker {name!r} is left out: it shows the ledger of {key.name!r}")
        known = self._rows.recall(_KEY + name)
        if known is None:
            self._rows.remember(_KEY + name, shown)
        elif known != shown:
            raise LedgerRefused(
                f"worker {name!r} is left out: its ledger is signed by the key {shown}, it was {known} before; ask its "
                "owner why. Only if they replaced the ledger on purpose, name another state folder here"
            )
        return key


def _messages(connection: Connection) -> int:
    """Return how many messages came that are not about checkpoints themselves."""
    return sum(messages for kind, (messages, _) in connection.received.items() if kind != "checkpoint")


def _witnessed(held: str | None, key: VerifierKey) -> Witnessed:
    if held is None:
        return Witnessed()
    note = held.encode()
    found = open_checkpoint(note, key)
    return Witnessed(found.size, found.root, note)


def _bare(note: bytes, key: VerifierKey) -> bytes:
    """Return `note` with the ledger's own signature only: we keep no line that we did not verify."""
    others = set(cosignature_lines(note, key))
    text, separator, lines = note.rpartition(b"\n\n")
    return text + separator + b"".join(line + b"\n" for line in lines.splitlines() if line not in others)


def _why(refusal: Stale | Refused, before: Witnessed, shown: Checkpoint, key: VerifierKey) -> str:
    """Return in words what is wrong with what a worker shows."""
    try:
        size = open_checkpoint(shown.note, key).size
    except VerificationFailed as error:
        return f"its checkpoint does not verify: {error}"
    if size < before.size:
        return f"its ledger was rolled back: we cosigned {before.size} entries, it shows {size}"
    told = refusal.why if isinstance(refusal, Refused) else f"we hold {refusal.size} entries"
    return f"its ledger was rewritten: we cosigned {before.size} entries, and its {size} do not continue them ({told})"
