"""Asking the witnesses that the owner configured by address to cosign what was published.

One call at a time, in a thread of its own: a witness that says nothing holds up its next call and nothing else. What a
witness answers is kept if it is by the key that the owner configured; lines by other keys are ignored, as C2SP asks of
clients. One that holds more than this ledger, or another ledger, shows that the state was rolled back: from then on
nothing leaves, and a restart does not change that unless the answer came unencrypted, as anybody's could.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from fedpriv.errors import FedprivError, PeerLost, RolledBack, VerificationFailed
from fedpriv.ledger.checkpoint import Algorithm, open_checkpoint, parse_signature, parse_verifier_key
from fedpriv.ledger.cosignature import read_cosignature
from fedpriv.transport.witness import Behind, add_checkpoint
from fedpriv_worker.config import HttpWitness
from fedpriv_worker.journal import Journal

log = logging.getLogger("fedpriv.worker")

WITNESS_SECONDS = 10.0
"""How long a witness may take to be reached, and again to answer."""


class Witnesses:
    """The configured witnesses of one ledger; all methods without underscore run on the loop's thread."""

    def __init__(self, journal: Journal, witnesses: Sequence[HttpWitness]) -> None:
        self._journal = journal
        self._witnesses = tuple(witnesses)
        self._asking: asyncio.Task[None] | None = None
        self._due = False
        self._closed = False
        self._keeping = threading.Lock()
        self.rolled_back: RolledBack | None = None
        """What a witness showed: this state has forgotten something."""

    def soon(self) -> asyncio.Task[None]:
        """Ask every witness, after those that are being asked; return the task that does it."""
        self._due = not self._closed
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        return self._asking

    async def heard(self) -> None:
        """Wait until every witness was asked and has answered or had its time; raise `RolledBack` if one shows that."""
        await asyncio.wait({self._asking or self.soon()}, timeout=2 * WITNESS_SECONDS * len(self._witnesses))
        if self.rolled_back is not None:
            raise self.rolled_back

    async def close(self) -> None:
        """Ask nobody any more; what a witness still answers is not kept."""
        with self._keeping:
            self._closed = True
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _ask(self) -> None:
        while self._due:
            self._due = False
            for witness in self._witnesses:
                await _in_its_own_thread(partial(self._witnessed, witness))

    def _witnessed(self, witness: HttpWitness) -> None:
        """Have a witness cosign; go on whatever it answers, unless it shows that this state has forgotten."""
        try:
            self._cosigned(witness)
        except RolledBack as error:
            self._refuse(error, for_good=not witness.plain_http)
        except FedprivError as error:
            log.warning("the ledger goes on without a witness: %s", error)

    def _cosigned(self, witness: HttpWitness) -> None:
        memory = f"witness-size/{witness.vkey}"
        note, lines = self._asked(witness, int(self._journal.rows.recall(memory) or 0))
        key = parse_verifier_key(witness.vkey, Algorithm.COSIGNATURE)
        own = [line for line in lines if parse_signature(line.decode()).is_by(key)]
        if not own:
            raise VerificationFailed(
                f"the witness at {witness.url} answers without a line by the key {witness.vkey}; if it has a new one, "
                "put that into worker.toml"
            )
        for line in own:
            read_cosignature(line, note, key)
        with self._keeping:
            if self._closed:
                return
            self._journal.rows.remember(memory, str(open_checkpoint(note, parse_verifier_key(self._journal.vkey)).size))
            with suppress(VerificationFailed):  # a newer checkpoint is out already, for which it is asked again
                for line in own:
                    self._journal.publication.cosign(line, witness.vkey)

    def _asked(self, witness: HttpWitness, old: int) -> tuple[bytes, tuple[bytes, ...]]:
        """Return our checkpoint and the lines of `witness`, which may hold other than the `old` entries it had."""
        for _ in range(2):
            note, proof = self._journal.publication.consistency(old)
            answer = add_checkpoint(witness.url, old, proof, note, WITNESS_SECONDS, plain_http=witness.plain_http)
            if not isinstance(answer, Behind):
                return note, answer
            old = answer.size
        raise PeerLost(f"the witness at {witness.url} changes what it holds faster than we can ask")

    def _refuse(self, error: RolledBack, *, for_good: bool) -> None:
        self.rolled_back = error
        try:
            self._journal.refuse(str(error), for_good=for_good)
        except FedprivError as failure:
            log.warning("that the state was rolled back is not remembered: %s", failure)
        log.error("nothing more leaves: %s", error)


async def _in_its_own_thread(work: Callable[[], None]) -> None:
    """Do `work` in a thread that nothing waits for at the end: neither the loop's pool nor the process."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def run() -> None:
        try:
            work()
        finally:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run, name="fedpriv-witness", daemon=True).start()
    await done.wait()
