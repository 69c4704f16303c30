"""Publishing the ledger now and then, and having others hold what was published.

Whatever is recorded is published within a second or so, however often a peer asks, and before anybody cosigns. A
peer that holds more than this ledger has proves that the state was rolled back: from then on nothing leaves. A
peer's key is the one that it showed first. Only `begin` waits for the network: for the witnesses that the owner
configured by address, before anything leaves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from fedpriv.errors import FedprivError, StorageFailed, UsageError, VerificationFailed
from fedpriv.ids import WorkerName
from fedpriv.ledger.checkpoint import Algorithm, open_checkpoint, parse_verifier_key, witness_name_of
from fedpriv.policy.decision import Recipient
from fedpriv.wire.messages import AskCheckpoint, Checkpoint, Cosigned
from fedpriv_worker.config import HttpWitness
from fedpriv_worker.journal import Journal
from fedpriv_worker.witnessing import Witnesses

log = logging.getLogger("fedpriv.worker")

PUBLISH_SECONDS = 1.0
"""The least time between two checkpoints of a ledger on a disk, closing aside."""


class Publisher:
    """The one that publishes a worker's ledger; all methods run on the loop's thread."""

    def __init__(self, journal: Journal, witnesses: Sequence[HttpWitness] = ()) -> None:
        self._journal = journal
        self._witnesses = Witnesses(journal, witnesses)
        self._publishing = asyncio.Lock()
        self._published = -PUBLISH_SECONDS
        self._next: asyncio.Task[None] | None = None
        self._under_way: set[asyncio.Task[None]] = set()
        self.begun = False
        """Whether the ledger was published and every witness heard: nothing leaves before."""

    async def begin(self) -> None:
        """Publish, and let every witness speak before anything leaves; raise `RolledBack` if one holds more than we."""
        await self.soon()
        await self._witnesses.heard()
        self.begun = True

    def soon(self) -> asyncio.Task[None]:
        """Publish as soon as that is due, once for all who ask before; return the task that does it."""
        if self._next is None or self._next.done():
            self._next = asyncio.create_task(self._publish())
            self._under_way.add(self._next)
            self._next.add_done_callback(self._ended)
        return self._next

    async def show(self, request: AskCheckpoint) -> Checkpoint:
        """Return the checkpoint with its consistency with what the asker holds; raise `StorageFailed` if it cannot be.

        What the asker holds may show that this ledger lost entries: then nothing more leaves, now or later.
        """
        await self.soon()
        return await asyncio.to_thread(self._shown, request)

    async def keep(self, cosigned: Cosigned, peer: Recipient) -> None:
        """Keep a peer's cosignature; one that is not good is logged and dropped."""
        try:
            await asyncio.to_thread(self._kept, cosigned, peer)
        except (VerificationFailed, UsageError) as error:
            log.warning("the cosignature of %s is not kept: %s", peer.name, error)

    async def close(self) -> None:
        """Stop waiting for the next checkpoint and for witnesses; the journal publishes when it closes.

        One that is being published is let end first.
        """
        await self._witnesses.close()
        if self._next is not None:
            self._next.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Take what a publication raised, for which nobody may have waited: when a process ends, no thread is left."""
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the ledger's checkpoint is not published: %s", type(error).__name__)

    async def _publish(self) -> None:
        loop = asyncio.get_running_loop()
        async with self._publishing:
            if self._journal.durable:
                await asyncio.sleep(max(0.0, self._published + PUBLISH_SECONDS - loop.time()))
            self._published = loop.time()
            self._next = None  # whoever asks from here on may have entries that this one misses
            try:
                await asyncio.to_thread(self._journal.publish)
            except FedprivError as error:
                log.error("the ledger's checkpoint is not published: %s", error)  # noqa: TRY400 - no traceback
            else:
                self._witnesses.soon()

    def _shown(self, request: AskCheckpoint) -> Checkpoint:
        held = 0
        if request.held:
            held = self._size_of(request.held)
        note, proof = self._journal.publication.consistency(held)
        return Checkpoint(request.request, note, proof, self._journal.vkey)

    def _size_of(self, held: bytes) -> int:
        """Return how many entries the asker's checkpoint has; raise `StorageFailed` if we do not have them."""
        try:
            self._journal.publication.rolled_back(held)
        except VerificationFailed as error:
            self._journal.refuse(str(error), for_good=True)
            raise StorageFailed(f"nothing leaves any more: {error}") from error
        return open_checkpoint(held, parse_verifier_key(self._journal.vkey)).size

    def _kept(self, cosigned: Cosigned, peer: Recipient) -> None:
        name = parse_verifier_key(cosigned.vkey, Algorithm.COSIGNATURE).name
        expected = witness_name_of(WorkerName(peer.name))
        if name != expected:
            raise UsageError(f"it is by {name!r}, and {peer.name!r} signs as {expected!r}")
        pin = f"witness-key/{name}"
        known = self._journal.rows.recall(pin)
        if known not in (None, cosigned.vkey):
            raise UsageError(f"{name!r} signed with {known} before and shows {cosigned.vkey} now")
        self._journal.publication.cosign(cosigned.signature, cosigned.vkey)
        if known is None:
            self._journal.rows.remember(pin, cosigned.vkey)
