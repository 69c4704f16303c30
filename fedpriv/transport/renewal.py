"""Keeping credentials fresh while a process runs: a new certificate before the old one expires, and who is revoked.

A certificate is renewed when a third of its life is left, with a new key; new connections use it at once, and no
connection ends. The list of who is revoked is asked for again and again. A registrar that cannot be reached costs a log
line, and a loud one when the certificate is about to expire. Pauses are drawn, so that many workers do not ask in step.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec

from fedpriv.clock import Clock, SystemClock, in_words
from fedpriv.errors import FedprivError
from fedpriv.transport.dial import drawn_pause
from fedpriv.transport.joining import ask_revoked, renew
from fedpriv.transport.revocation import keep_revoked
from fedpriv.transport.rotation import CredentialFiles, replace_pair
from fedpriv.transport.runtime import runtime

log = logging.getLogger("fedpriv.transport")

CHECK_SECONDS = 3600.0
LEFT = 1 / 3
"""The share of a certificate's life that is left when it is renewed."""


@dataclass(frozen=True, slots=True)
class Renewal:
    """Which files are kept fresh, and who is asked."""

    files: CredentialFiles
    registrar: str
    clock: Clock

    def is_due(self) -> bool:
        """Return whether the certificate in use has less than a third of its life left."""
        return self._left() < LEFT

    def refresh(self) -> bool:
        """Renew the certificate if that is due, ask who is revoked; return whether anything changed. Blocks."""
        own, paths = self.files.current(), self.files.paths
        pem, changed = ask_revoked(self.registrar, own), False
        if pem:
            changed = keep_revoked(paths.revoked, pem, own.authorities)
        if self.is_due():
            key = ec.generate_private_key(ec.SECP256R1())
            handed = renew(self.registrar, own, key, self.clock)
            replace_pair(paths, handed.chain, key)
            changed = True
        self.files.current()
        return changed

    def attempt(self) -> bool:
        """Do the same, and log what goes wrong instead of raising it."""
        try:
            return self.refresh()
        except FedprivError as error:
            due = "; the certificate in use has little time left" if self.is_due() else ""
            log.log(logging.ERROR if due else logging.WARNING, "credentials were not renewed: %s%s", error, due)
            return False

    def _left(self) -> float:
        leaf = self.files.current().chain[0]
        life = (leaf.not_valid_after_utc - leaf.not_valid_before_utc).total_seconds()
        return (leaf.not_valid_after_utc.timestamp() - self.clock.now()) / life


async def keep_fresh(
    renewal: Renewal, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep, every: float = CHECK_SECONDS
) -> None:
    """Refresh now and from then on, for ever, after pauses of half to all of `every` seconds."""
    while True:
        if await asyncio.to_thread(renewal.attempt):
            leaf = renewal.files.current().chain[0]
            left = leaf.not_valid_after_utc.timestamp() - renewal.clock.now()
            log.info("credentials were refreshed; the certificate holds for another %s", in_words(left))
        await sleep(every / 2 + drawn_pause(every / 2))


@contextmanager
def kept_fresh(files: CredentialFiles, registrar: str | None) -> Iterator[None]:
    """Keep `files` fresh on the runtime's thread for as long as this lasts; without a registrar do nothing."""
    if registrar is None:
        yield
        return
    keeping = runtime.start(keep_fresh(Renewal(files, registrar, SystemClock())))
    try:
        yield
    finally:
        keeping.cancel()
