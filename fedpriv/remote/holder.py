"""What every worker offers to whoever writes torch against it, wherever it runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from fedpriv.ids import DatasetName, PeerName, WorkerName
from fedpriv.remote.connection import Connection
from fedpriv.remote.dataset import RemoteDataset, opened
from fedpriv.remote.pointer import RemoteTensor, sent
from fedpriv.remote.values import Values
from fedpriv.transport.runtime import runtime
from fedpriv.wire.messages import Announcement, Reply, Request
from fedpriv.wire.values import HeldObject

US = PeerName("me")
"""Our own name where no certificate says it."""


class Holder(ABC):
    """A worker that holds values for us; a subclass says how it is reached."""

    name: WorkerName
    """The worker's name, as its certificate says it."""
    _values: Values | None = None

    @abstractmethod
    async def reach(self, name: PeerName) -> Connection:
        """Return an open connection as `name`."""

    @abstractmethod
    def announced(self) -> Announcement:
        """Return what the worker announces."""

    @property
    def values(self) -> Values:
        """Our session of values with this worker, made when it is first used, and anew after its link was lost."""
        if self._values is None or self._values.line.lost:
            self._values = Values(self, US)
        return self._values

    def ask(self, request: Request) -> Reply:
        """Return the answer to a request that is about no value; raise `WorkerRefused` or `PeerLost`."""
        return runtime.run(self._asked(request))

    async def _asked(self, request: Request) -> Reply:
        connection = await self.reach(US)
        try:
            return await connection.ask(request)
        finally:
            await self.let_go(connection)

    async def let_go(self, connection: Connection) -> None:
        """End the use of a connection that `reach` gave."""
        await connection.close()

    def send(self, tensor: Tensor, *, tags: Sequence[str] = (), description: str = "") -> RemoteTensor:
        """Return a pointer to a copy of `tensor` at this worker; only its own elements travel."""
        pointer = sent(self.values, tensor, tags, description)
        if tensor.requires_grad and tensor.is_leaf:
            pointer.requires_grad_()
        return pointer

    def dataset(self, name: str) -> RemoteDataset:
        """Return the data set `name`; raise `UsageError` naming those that there are."""
        return opened(self, DatasetName(name))

    def datasets(self) -> list[str]:
        """Return the names of the data sets."""
        return [each.name for each in self.announced().datasets]

    def objects(self) -> tuple[HeldObject, ...]:
        """Return what the worker holds for us: only our own, never anybody else's."""
        return self.values.objects()
