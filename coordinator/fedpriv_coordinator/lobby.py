"""Where workers that dial out arrive: a listener that admits the expected ones, and the wait for all of them."""

from __future__ import annotations

from collections.abc import Callable

from fedpriv.clock import Clock
from fedpriv.errors import FedprivError, PeerLost
from fedpriv.remote.connection import Connection
from fedpriv.transport.credentials import CredentialsSource
from fedpriv.transport.hello import Side
from fedpriv.transport.link import OpenLink, RawLink
from fedpriv.transport.listen import Listener
from fedpriv.transport.runtime import runtime
from fedpriv_coordinator.evidence import Evidence
from fedpriv_coordinator.membership import Membership, NotAdmitted, turn_away
from fedpriv_coordinator.witness import LedgerRefused

POLL_SECONDS = 1.0


class Lobby:
    """A port on which the workers of one federation attach; what is refused is said through `note`."""

    def __init__(
        self,
        address: str,
        credentials: CredentialsSource,
        members: Membership,
        note: Callable[[str], None],
        evidence: Evidence,
    ) -> None:
        """Listen at once; raise `UsageError` for a port in use."""
        self._credentials = credentials
        self._members = members
        self._note = note
        self._evidence = evidence
        self._turned_away: set[str] = set()
        """What was said of workers that cannot take part: they dial again and again."""
        self._listener = Listener(address, credentials, self._admit)
        runtime.run(self._listener.start())
        note(f"listening on {self.address}, waiting for {', '.join(members.expected)}")

    @property
    def address(self) -> str:
        """Host and port, the real one where the system picked it."""
        return self._listener.address

    def wait(self, seconds: float, clock: Clock, meanwhile: Callable[[], None]) -> None:
        """Wait until every worker that may take part is connected, calling `meanwhile` once a second.

        Raise `PeerLost` when that takes longer than `seconds`, or when none may.
        """
        deadline = clock.monotonic() + seconds
        while True:
            left = deadline - clock.monotonic()
            try:
                return runtime.run(self._members.wait_for_all(min(left, POLL_SECONDS), in_all=seconds))
            except PeerLost:
                if left <= POLL_SECONDS or self._members.nobody_may_come:
                    raise
            meanwhile()

    async def close(self) -> None:
        """Stop listening."""
        await self._listener.close()

    async def _admit(self, raw: RawLink) -> None:
        """Take in a worker that dialled, and return when its link is over."""
        try:
            connection = await Connection.open(OpenLink(raw), Side.LISTENER, self._credentials)
        except FedprivError as error:
            self._note(f"refused a link: {error}")
            return
        try:
            self._members.check(connection.name)
            await self._evidence.meet(connection)
            await self._members.join(connection)
        except NotAdmitted as refusal:
            self._note_once(f"refused a link: {refusal}")
            await turn_away(connection, refusal.parting)
            return
        except LedgerRefused as refusal:
            self._note(str(refusal))
            await self._members.shut_out(connection, str(refusal))
            return
        except FedprivError as error:
            self._note(f"refused a link: {error}")
            await connection.close()
            return
        self._note(f"worker {connection.name} is connected")
        await connection.ended()

    def _note_once(self, text: str) -> None:
        """Say what was not said before; names are those of certificates of our own authority, so there are few."""
        if text not in self._turned_away:
            self._turned_away.add(text)
            self._note(text)
