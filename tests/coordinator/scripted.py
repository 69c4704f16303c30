"""A worker's end of a link, played by hand, with a ledger that it can cut short, rewrite and sign anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fedpriv.entropy import SeededEntropy
from fedpriv.errors import PeerLost
from fedpriv.ids import WorkerName
from fedpriv.ledger.checkpoint import Checkpoint as LedgerCheckpoint
from fedpriv.ledger.checkpoint import SigningKey, open_checkpoint, origin_of, sign_checkpoint
from fedpriv.ledger.merkle import Tree, leaf_hash, prove_consistency, root_at
from fedpriv.remote.connection import Connection
from fedpriv.sealed import Sealed
from fedpriv.transport.credentials import Credentials
from fedpriv.transport.hello import Side, greet
from fedpriv.transport.link import OpenLink, SealedLink
from fedpriv.transport.memory import memory_pair
from fedpriv.wire.codec import decode, encode
from fedpriv.wire.messages import (
    Announcement,
    AskCheckpoint,
    Checkpoint,
    Cosigned,
    ErrorCode,
    Failure,
    Goodbye,
    Message,
    Role,
)

WORKER = Credentials.throwaway("bob", Role.WORKER)
COORDINATOR = Credentials.throwaway("coordinator-1", Role.COORDINATOR)


class Scripted:
    """A worker whose ledger has as many entries as it is told, and who answers what it is asked about it."""

    def __init__(self, name: str = "bob") -> None:
        self.key = SigningKey(origin_of(WorkerName(name)), SeededEntropy(b"bob").random_bytes(32))
        self.entries = [bytes([at]) for at in range(5)]
        self.refuses = False
        self.held: list[bytes] = []
        self.cosigned: list[Cosigned] = []
        self.heard: list[Message] = []

    @property
    def note(self) -> bytes:
        tree = self._tree()
        return sign_checkpoint(LedgerCheckpoint(self.key.name, tree.size, root_at(tree.size, tree.node)), self.key)

    def answer(self, message: Message) -> Message | None:
        self.heard.append(message)
        match message:
            case AskCheckpoint(request, _) if self.refuses:
                return Failure(request, ErrorCode.BAD_REQUEST)
            case AskCheckpoint(request, held):
                self.held.append(held)
                return Checkpoint(request, self.note, self._proof(held), str(self.key.verifier))
            case Cosigned():
                self.cosigned.append(message)
        return None

    async def serve(self, link: SealedLink) -> None:
        await greet(Side.LISTENER, link, WORKER, seal)
        await link.send(seal(Announcement("2.13", ())))
        try:
            while (envelope := await link.receive()) is not None:
                message = decode(envelope)
                if (reply := self.answer(message)) is not None:
                    await link.send(seal(reply))
                if isinstance(message, Goodbye):
                    return
        except PeerLost:
            return

    def _tree(self) -> Tree:
        return Tree(map(leaf_hash, self.entries))

    def _proof(self, held: bytes) -> tuple[bytes, ...]:
        old = open_checkpoint(held, self.key.verifier).size if held else 0
        tree = self._tree()
        return tuple(prove_consistency(old, tree.size, tree.node)) if old <= tree.size else ()


def seal(message: Message) -> Sealed:
    return Sealed(encode(message))


@asynccontextmanager
async def connected(worker: Scripted) -> AsyncIterator[Connection]:
    """Yield a connection to `worker`; everything it said was answered when this is left."""
    near, far = memory_pair()
    serving = asyncio.create_task(worker.serve(SealedLink(far)))
    connection = await Connection.open(OpenLink(near), Side.DIALER, COORDINATOR)
    yield connection
    await connection.close()
    await asyncio.wait_for(serving, 20)
