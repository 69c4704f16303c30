"""Sessions of values and the links that they are reached by: one that was cut waits a while for the next.

Public methods run on the loop's thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from fedpriv.errors import WireError
from fedpriv.ids import DatasetName, PeerName
from fedpriv.policy.requests import Recipient
from fedpriv_worker.pointing import Pointing

LEASE_SECONDS = 600.0
"""How long a session's values outlive its last link."""
MAXIMUM_SESSIONS = 8
"""Sessions of values of one peer, those that wait for a link included."""


class Leases:
    """Every session of values at one worker, by its peer and the mark that the peer chose."""

    def __init__(self, make: Callable[[Recipient, bytes], Pointing]) -> None:
        self._make = make
        self._held: dict[tuple[PeerName, bytes], Pointing] = {}

    def attach(self, recipient: Recipient, mark: bytes) -> Pointing:
        """Return what `recipient` holds under `mark`, nothing in a new session; nobody reaches another's.

        Raise `WireError` where as many others are under way as a peer may have.
        """
        key = (recipient.name, mark)
        if key not in self._held:
            own = [other for other in self._held if other[0] == recipient.name]
            left = [other for other in own if not self._held[other].links]
            if len(own) >= MAXIMUM_SESSIONS and not left:
                raise WireError(f"{recipient.name} has {len(own)} sessions of values under way; end one of them")
            for old in left[: max(0, len(own) - MAXIMUM_SESSIONS + 1)]:
                del self._held[old]  # nobody is attached to it; the one that was used last stays longest
            made = self._make(recipient, mark)
            made.elsewhere = partial(self._elsewhere, made)
            made.turn = next((other.turn for (name, _), other in self._held.items() if name == key[0]), made.turn)
            self._held[key] = made
        pointing = self._held[key] = self._held.pop(key)
        pointing.links, pointing.attached = pointing.links + 1, pointing.attached + 1
        return pointing

    def detach(self, pointing: Pointing) -> None:
        """Note that a link ended; what is left is freed unless another one comes within the lease."""
        pointing.links -= 1
        if not pointing.links:
            asyncio.get_running_loop().call_later(LEASE_SECONDS, self._expire, pointing, pointing.attached)

    def bar(self, peer: PeerName, datasets: frozenset[DatasetName]) -> None:
        """Take the right to `datasets` away in every session of `peer`."""
        for (name, _), pointing in self._held.items():
            if name == peer:
                pointing.bar(datasets)

    def _elsewhere(self, pointing: Pointing) -> int:
        """Return the bytes that other sessions of the same peer hold; called on any thread."""
        peer = pointing.recipient.name
        return sum(
            each.nbytes for (name, _), each in tuple(self._held.items()) if name == peer and each is not pointing
        )

    def _expire(self, pointing: Pointing, attached: int) -> None:
        if not pointing.links and pointing.attached == attached:
            self._held.pop((pointing.recipient.name, pointing.mark), None)
