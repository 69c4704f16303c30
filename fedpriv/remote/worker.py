"""A worker on another host that listens, reached by dialling in."""

from __future__ import annotations

from fedpriv.ids import PeerName, WorkerName
from fedpriv.remote.connection import Connection
from fedpriv.remote.holder import Holder
from fedpriv.transport.credentials import CredentialsSource
from fedpriv.transport.dial import dial
from fedpriv.transport.hello import Side
from fedpriv.transport.link import OpenLink
from fedpriv.transport.runtime import runtime
from fedpriv.wire.messages import Announcement


class RemoteWorker(Holder):
    """A worker whose identity the handshake proved; dials again when its link was lost."""

    def __init__(self, address: str, credentials: CredentialsSource, connection: Connection) -> None:
        self.address = address
        self._credentials = credentials
        self._connection = connection
        self.name: WorkerName = connection.name

    def announced(self) -> Announcement:
        """Return what the worker announced when it was last reached."""
        return self._connection.announcement

    async def reach(self, name: PeerName) -> Connection:  # noqa: ARG002 - the certificate says who we are
        """Return the open connection, or a new one; called on the runtime's thread."""
        if not self._connection.is_open:
            self._connection = await _open(self.address, self._credentials, str(self.name))
        return self._connection

    async def let_go(self, connection: Connection) -> None:
        """Keep the connection: everything that is asked of this worker shares it."""

    def close(self) -> None:
        """Close the connection."""
        runtime.run(self._connection.close())

    def __repr__(self) -> str:
        return f"<RemoteWorker {self.name} at {self.address}>"


def connect(address: str, *, credentials: CredentialsSource) -> RemoteWorker:
    """Return the worker that listens at "host:port"; raise `PeerLost` or `CredentialsError` saying what to mend."""
    connection = runtime.run(_open(address, credentials, None))
    return RemoteWorker(address, credentials, connection)


async def _open(address: str, credentials: CredentialsSource, name: str | None) -> Connection:
    raw = await dial(address, credentials)
    return await Connection.open(OpenLink(raw), Side.DIALER, credentials, name=name)
