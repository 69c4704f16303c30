"""Workers that this process can open a connection to, wherever they run."""

from __future__ import annotations

from typing import Protocol

from fedpriv.ids import PeerName, WorkerName
from fedpriv.remote.connection import Connection


class Reachable(Protocol):
    """A worker that can be reached; every call of `reach` opens a new connection, on the loop's thread."""

    @property
    def name(self) -> WorkerName:
        """The worker's name, as its certificate says it."""
        ...

    async def reach(self, name: PeerName) -> Connection:
        """Return an open connection as `name`, handshake done; raise `PeerLost` if there is no way."""
        ...
