"""Ledgers to audit, of any signer, written straight into a folder."""

from __future__ import annotations

from dataclasses import replace

from fedpriv.ids import WorkerName
from fedpriv.ledger.checkpoint import Checkpoint, SigningKey, sign_checkpoint
from fedpriv.ledger.entries import Draft, Entry, encode_entry
from fedpriv.ledger.log import Log
from fedpriv.storage.tiles import TileFolder

START = 1_767_225_600_000
"""2026-01-01 00:00 UTC, in milliseconds."""
UPDATE = Draft(
    peer="coordinator-1", method="Attach", kind="update", bytes=12_345, labels=("notes/bob",), policy="plain-update:01",
    purpose="tumours",
)  # fmt: skip  # one message


def update(**changes):
    return replace(UPDATE, **changes)


def entries(drafts, *, worker="bob", step=1000, start=START):
    """Return entries of `drafts`, `step` milliseconds apart, each with a digest of its own."""
    return [
        Entry(draft, WorkerName(worker), number, start + number * step, f"{number:064x}")
        for number, draft in enumerate(drafts)
    ]


def signer(worker, seed=bytes(32)):
    return SigningKey(f"fedpriv.ledger/{worker}", seed)


def written(folder, made, *, name="fedpriv.ledger/bob", seed=bytes(32)):
    """Write `made` as the ledger `name` into `folder`, as whoever holds its key can; return the verifier key."""
    key = SigningKey(name, seed)
    files, log = TileFolder(folder, durable=False), Log()
    files.create(str(key.verifier))
    files.extend(log, map(encode_entry, made), [])
    files.publish(sign_checkpoint(Checkpoint(name, log.size, log.root()), key))
    return str(key.verifier)
