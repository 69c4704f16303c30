"""Publishing the ledger now and then, and having others hold what was published.

Whatever is recorded is published within a second or so, however often a peer asks, and before anybody cosigns. A
witness that holds more than this ledger has proves that the state was rolled back: from then on nothing leaves. A
witness's key is the one that it showed first. Nothing here waits for the network but for witnesses that the owner
configured by address, and never longer than a deadline.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from fedpriv.errors import FedprivError, PeerLost, StorageFailed, UsageError, VerificationFailed
from fedpriv.ids import WorkerName
from fedpriv.ledger.checkpoint import Algorithm, open_checkpoint, parse_verifier_key, witness_name_of
from fedpriv.policy.decision import Recipient
from fedpriv.transport.witness import Behind, add_checkpoint
from fedpriv.wire.messages import AskCheckpoint, Checkpoint, Cosigned
from fedpriv_worker.config import HttpWitness
from fedpriv_worker.journal import Journal

log = logging.getLogger("fedpriv.worker")

PUBLISH_SECONDS = 1.0
"""The least time between two checkpoints of a ledger on a disk, closing aside."""
WITNESS_SECONDS = 10.0


class Publisher:
    """The one that publishes a worker's ledger; all methods run on the loop's thread."""

    def __init__(self, journal: Journal, witnesses: Sequence[HttpWitness] = ()) -> None:
        self._journal = journal
        self._witnesses = tuple(witnesses)
        self._published = -PUBLISH_SECONDS
        self._next: asyncio.Task[None] | None = None

    def soon(self) -> asyncio.Task[None]:
        """Publish as soon as that is due, once for all who ask before; return the task that does it."""
        if self._next is None or self._next.done():
            self._next = asyncio.create_task(self._publish())
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
        """Stop waiting for the next checkpoint; the journal publishes when it closes."""
        if self._next is not None:
            self._next.cancel()
            await asyncio.gather(self._next, return_exceptions=True)

    async def _publish(self) -> None:
        loop = asyncio.get_running_loop()
        if self._journal.durable:
            await asyncio.sleep(max(0.0, self._published + PUBLISH_SECONDS - loop.time()))
        self._published = loop.time()
        self._next = None  # whoever asks from here on may have entries that this one misses
        try:
            await asyncio.to_thread(self._journal.publish)
            for witness in self._witnesses:
                await asyncio.to_thread(self._witness, witness)
        except FedprivError as error:
            log.error("the ledger's checkpoint is not published: %s", error)  # noqa: TRY400 - no traceback

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

    def _witness(self, witness: HttpWitness) -> None:
        """Have a configured witness cosign; go on whatever it answers, unless it holds more than we have."""
        memory = f"witness-size/{witness.vkey}"
        old = int(self._journal.rows.recall(memory) or 0)
        try:
            for line in self._asked(witness, old):
                self._journal.publication.cosign(line, witness.vkey)
        except VerificationFailed as error:
            self._journal.refuse(str(error))  # the owner trusts this witness, so nothing leaves until it is explained
            log.error("nothing more leaves: %s", error)  # noqa: TRY400 - no traceback
        except (PeerLost, UsageError) as error:
            log.warning("the ledger goes on without a witness: %s", error)
        else:
            self._journal.rows.remember(memory, str(self._journal.publication.publish().size))

    def _asked(self, witness: HttpWitness, old: int) -> tuple[bytes, ...]:
        """Return the lines of `witness`, which may hold other than the `old` entries that it had when we last asked."""
        for _ in range(2):
            note, proof = self._journal.publication.consistency(old)
            answer = add_checkpoint(witness.url, old, proof, note, WITNESS_SECONDS, plain_http=witness.plain_http)
            if not isinstance(answer, Behind):
                return answer
            old = answer.size
        raise PeerLost(f"the witness at {witness.url} changes what it holds faster than we can ask")
