"""Ledgers for tests: kept like a worker's or a coordinator's, or forged with the key in hand."""

from __future__ import annotations

from fedpriv.ids import WorkerName
from fedpriv.ledger.checkpoint import Checkpoint, SigningKey, sign_checkpoint
from fedpriv.ledger.cosignature import cosign
from fedpriv.ledger.entries import Draft, Entry, encode_entry
from fedpriv.ledger.log import Log
from fedpriv.storage.database import Database
from fedpriv.storage.publication import Publication
from fedpriv.storage.rows import SCHEMA, Row, Rows
from fedpriv.storage.tiles import TileFolder

DRAFT = Draft(
    peer="coordinator-1", method="attach", kind="update", bytes=100, labels=("notes/bob",), policy="plain-update"
)
BOB = WorkerName("bob")
KEY = SigningKey("fedpriv.ledger/bob", bytes(32))
WITNESS = SigningKey("fedpriv.witness/hub", bytes(range(1, 33)))
VKEY = str(WITNESS.cosigner)


class Ledger:
    """A ledger as a worker or a coordinator keeps it: rows in a database, published beside it."""

    def __init__(self, state=None, *, key=KEY, keeper=BOB):
        self.keeper, self.vkey = keeper, str(key.verifier)
        database = (
            Database.in_memory(schema=SCHEMA)
            if state is None
            else Database.open(state / "journal.sqlite", schema=SCHEMA)
        )
        self.rows = Rows(database)
        self.publication = Publication(self.rows, key, None if state is None else TileFolder(state / "ledger"))
        self.publish, self.export = self.publication.publish, self.publication.export
        if state is not None:
            self.publication.recover()

    def append(self, count=1):
        first = self.rows.size
        if count:
            self.rows.append(
                [Row(seq, "update", 100, entry(seq, worker=self.keeper)) for seq in range(first, first + count)]
            )
        return self

    def cosign(self, key, time=1_767_225_600):
        self.publication.cosign(cosign(self.rows.published(), key, time), str(key.cosigner))

    def close(self):
        self.publish()
        self.rows.close()


def in_memory(entries):
    return Ledger().append(entries)


def on_disk(state, entries=(), **how):
    state.mkdir(parents=True, exist_ok=True)
    made = Ledger(state, **how)
    for count in entries:
        made.append(count).publish()
    return made


def forged(folder, contents, *, size=None, root=None, origin=KEY.name):
    """Write a ledger of `contents` that `KEY` signed, as an owner's administrator could who holds the key."""
    files, log = TileFolder(folder, durable=False), Log()
    files.create(str(KEY.verifier))
    files.extend(log, contents, [])
    files.publish(sign_checkpoint(Checkpoint(origin, log.size if size is None else size, root or log.root()), KEY))
    return folder


def entry(seq, *, worker=BOB):
    return encode_entry(Entry(DRAFT, worker, seq, 1_767_225_600_000, "00" * 32))


def all_files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())
