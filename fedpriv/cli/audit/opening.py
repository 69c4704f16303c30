"""`fedpriv audit open` and `check`: whether a message that somebody kept is the one on record.

A ledger holds digests under keys of single entries. The owner alone can hand out such a key: its holder can then
check a payload against that one digest, and nothing else; no payload follows from it, and no other entry opens.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from fedpriv.cli.audit.choosing import AsJson, OwnersKey
from fedpriv.cli.audit.printing import console, print_json, printable, say
from fedpriv.errors import StorageFailed, UsageError, VerificationFailed
from fedpriv.ledger.entries import CHUNK_BYTES, Entry, chunk_digests, entry_key, message_digest
from fedpriv.storage.files import read_bounded
from fedpriv.storage.verification import LEDGER, STATE, find_ledgers, read_entries, verify_ledger

SECRET_BYTES = 32
MAXIMUM_HEADER_BYTES = 16 << 20
SECRET = "owner-secret"  # noqa: S105  # a file's name


def open_entries(
    state: Annotated[
        Path, typer.Argument(metavar="STATE", help="The worker's state folder, which only its owner has.")
    ],
    numbers: Annotated[list[int], typer.Argument(metavar="ENTRY...", min=0, help="Numbers of entries.")],
) -> None:
    """Print the key of an entry's digest for an auditor; it opens that digest and nothing else."""
    folder, secret = _secret(state)
    wanted = set(numbers)
    opened = {entry.seq: entry for entry in read_entries(folder) if entry.seq in wanted}
    missing = sorted(wanted - set(opened))
    if missing:
        raise UsageError(f"{folder} has no entry {missing[0]}; `fedpriv audit show {quote(str(state))}` lists them")
    for number in numbers:
        entry = opened[number]
        print_json(
            {
                "worker": entry.worker, "entry": number, "key": entry_key(secret, number).hex(),
                "digest": entry.digest, "kind": entry.draft.kind, "bytes": entry.draft.bytes,
            }
        )  # fmt: skip  # one line per group of fields
    say("whoever holds a key can check one message against its digest, and nothing else: give it to an auditor only")


def check(
    where: Annotated[Path, typer.Argument(metavar="LEDGER", help="The worker's ledger, or a folder that holds it.")],
    number: Annotated[int, typer.Argument(metavar="ENTRY", min=0, help="The entry's number.")],
    *,
    entry_key: Annotated[str, typer.Option(metavar="HEX", help="The entry's key, from `fedpriv audit open`.")],
    header: Annotated[Path, typer.Option(metavar="FILE", help="The header of the message as it was kept.")],
    payload: Annotated[Path | None, typer.Option(metavar="FILE", help="Its payload, if it had one.")] = None,
    key: OwnersKey = None,
    as_json: AsJson = False,
) -> None:
    """Prove that a kept message is the one that an entry records; exit code 3 if it is another."""
    secret = _key(entry_key)
    (folder, *others) = find_ledgers(where)
    if others:
        raise UsageError(f"{where} holds {len(others) + 1} ledgers; name the ledger, as in {quote(str(folder))}")
    verify_ledger(folder, key=key)
    entry = _entry(folder, number)
    found = _digest(secret, header, payload)
    if not hmac.compare_digest(found, entry.digest):
        raise VerificationFailed(
            f"this message is not the one of entry {number} of {entry.worker!r}, or the key is not that entry's: its "
            f"digest is {found}, on record is {entry.digest}"
        )
    if as_json:
        print_json({"worker": entry.worker, "entry": number, "digest": found, "kind": entry.draft.kind, "ok": True})
        return
    what = f"{entry.draft.kind}, {entry.draft.bytes:,} bytes on the wire, to {entry.draft.peer}"
    console().print(printable(f"{entry.worker}: entry {number}: ok: this is the message on record: {what}"))


def _secret(state: Path) -> tuple[Path, bytes]:
    for folder in (state, state / STATE):
        secret = read_bounded(folder / SECRET, SECRET_BYTES)
        if secret is not None and len(secret) == SECRET_BYTES:
            return folder / LEDGER, secret
    raise UsageError(
        f"{state} has no {SECRET}: entries are opened by their owner, in the worker's state folder; a bare ledger "
        "cannot open any"
    )


def _key(text: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != SECRET_BYTES:
        raise UsageError("--entry-key is 64 hex digits, as `fedpriv audit open` prints them")
    return key


def _entry(folder: Path, number: int) -> Entry:
    for entry in read_entries(folder):
        if entry.seq == number:
            return entry
    raise UsageError(f"{folder} has no entry {number}")


def _digest(key: bytes, header: Path, payload: Path | None) -> str:
    head = read_bounded(header, MAXIMUM_HEADER_BYTES)
    if head is None or len(head) > MAXIMUM_HEADER_BYTES:
        raise UsageError(f"{header} is no header: there is no such file, or it is larger than any header")
    chunks: list[bytes] = []
    size = 0
    for chunk in _chunks(payload):
        chunks += chunk_digests([memoryview(chunk)])
        size += len(chunk)
    return message_digest(key, head, chunks, size).hex()


def _chunks(payload: Path | None) -> Iterator[bytes]:
    if payload is None:
        return
    try:
        with payload.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
    except FileNotFoundError as error:
        raise UsageError(f"{payload} is no payload: there is no such file") from error
    except OSError as error:
        raise StorageFailed(f"cannot read {payload}: {error.strerror}") from error
