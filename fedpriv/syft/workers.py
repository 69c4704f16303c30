"""Workers as 0.2 knew them: in this process, or behind a socket, each a worker of `fedpriv` that is reached as ever.

Two workers of one id and kind are one. What a worker itself loaded leaves by its owner's rules; `Policy.PERMISSIVE`,
for workers in this process alone, makes it the caller's own instead, as 0.2 did.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias
from weakref import WeakValueDictionary

from torch import Tensor

from fedpriv.errors import UsageError
from fedpriv.remote.worker import RemoteWorker, connect
from fedpriv.simulation.virtual import VirtualWorker as InProcess
from fedpriv.syft import loading, registry
from fedpriv.syft.exceptions import ObjectNotFoundError
from fedpriv.syft.factories import Remote
from fedpriv.syft.objects import ObjectStore
from fedpriv.syft.searching import Found, search
from fedpriv.syft.store import Store
from fedpriv.syft.traits import new_id
from fedpriv.transport.credentials import Credentials
from fedpriv_worker.datasets import Dataset

if TYPE_CHECKING:
    from fedpriv.syft.datasets import BaseDataset
    from fedpriv.syft.hook import TorchHook
    from fedpriv.syft.plans import Plan

LOCAL = "me"
Reached: TypeAlias = InProcess | RemoteWorker


class Policy(Enum):
    """Who may have what a worker of this process loaded by itself."""

    PERMISSIVE = "permissive"
    """Whoever asks: there is no owner but the program that made the worker."""
    OWNERS_RULES = "owner's rules"
    """Whoever its rules name; without a rule, nobody. This is how every worker on another host decides."""


@dataclass(eq=False)
class Site:
    """What all workers of one id share: how it is reached, and what it holds for us."""

    reach: Callable[[], Reached]
    store: Store = field(default_factory=Store)
    plans: dict[int, Plan] = field(default_factory=dict)
    datasets: WeakValueDictionary[int, BaseDataset] = field(default_factory=WeakValueDictionary)
    opened: set[str] = field(default_factory=set)
    """Announced data sets whose rows have ids."""
    loaded: list[object] = field(default_factory=list)
    """What the worker loaded by itself, which stays."""
    reached: Reached | None = None


class BaseWorker:
    """A worker: its id, what it holds for us, and what it can be asked."""

    is_client_worker = False
    message_pending_time = 0.0
    """How many seconds everything that is sent there waits, to see how a program bears a slow network."""

    def __init__(self, worker_id: object, reach: Callable[[], Reached]) -> None:
        self.id = str(worker_id)
        known = registry.KNOWN.get(self.id)
        if known is not None and type(known) is not type(self):
            raise RuntimeError(
                f"worker {self.id!r} is a {type(known).__name__} here; another kind of worker needs another id"
            )
        self.site: Site = Site(reach) if known is None else known.site
        registry.KNOWN.setdefault(self.id, self)

    @property
    def holder(self) -> Reached:
        """The worker behind this one, reached when it is first needed."""
        if self.site.reached is None:
            self.site.reached = self.site.reach()
        return self.site.reached

    @property
    def object_store(self) -> ObjectStore:
        """What it holds for us."""
        return ObjectStore(self)

    @property
    def remote(self) -> Remote:
        """Makes tensors there: `bob.remote.torch.zeros(3)`."""
        return Remote(self)

    def search(self, *query: str | int | Sequence[str | int]) -> list[Found]:
        """Return a pointer to everything that has every word of `query` as tag, as id or in its description."""
        return search(self, query)

    def clear_objects(self) -> BaseWorker:
        """Let everything go that it holds for us; return the worker."""
        self.site.loaded.clear()
        self.site.opened.clear()
        self.site.store.clear()
        for each in self.holder.objects():
            self.holder.values.free(each.id)
        return self

    def tensors_count(self) -> int:
        """Return how many values it holds for us."""
        return len(self.holder.objects())

    def registration_enabled(self) -> bool:
        """Return whether what it makes stays with it, which is so for every worker but our own."""
        return not self.is_client_worker

    def add_workers(self, workers: Sequence[BaseWorker]) -> BaseWorker:
        """Return the worker: every worker of this process knows every other one."""
        for each in workers:
            registry.KNOWN.setdefault(each.id, each)
        return self

    def get_worker(self, worker: BaseWorker | str) -> BaseWorker:
        """Return the worker of an id; raise `WorkerNotFoundException`."""
        return registry.worker(worker)

    def fetch_plan(self, plan_id: int) -> Plan:
        """Return a copy of the plan that was sent there under an id; raise `ObjectNotFoundError`."""
        if plan_id not in self.site.plans:
            raise ObjectNotFoundError(f"{self.id} has no plan {plan_id}; send it there first")
        return self.site.plans[plan_id].copied()

    def close(self) -> None:
        """End what is held there, and forget the worker."""
        registry.KNOWN.pop(self.id, None)
        reached, self.site.reached = self.site.reached, None
        if reached is not None:
            reached.close()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BaseWorker) and self.site is other.site

    def __hash__(self) -> int:
        return hash(self.site)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} id:{self.id}>"


class VirtualWorker(BaseWorker):
    """A worker in this process, with tensors or data sets that it loaded by itself and what its owner says of them."""

    def __init__(
        self,
        hook: TorchHook | None = None,  # noqa: ARG002  there is one hook for all of torch
        id: object = None,  # noqa: A002  the name that programs use
        data: Sequence[Tensor | BaseDataset] = (),
        *,
        datasets: Sequence[Dataset] = (),
        policy: Policy = Policy.PERMISSIVE,
        is_client_worker: bool = False,
        verbose: bool = False,  # noqa: ARG002  it says nothing anyway
    ) -> None:
        guarded = [] if policy is Policy.PERMISSIVE else loading.guarded(data)
        super().__init__(new_id() if id is None else id, lambda: InProcess(_named(self.id), [*datasets, *guarded]))
        self.is_client_worker = is_client_worker
        if policy is Policy.PERMISSIVE:
            self.load_data(data)

    def load_data(self, data: Sequence[Tensor | BaseDataset]) -> VirtualWorker:
        """Have the worker load tensors and data sets that everybody may have; return it."""
        loading.load(self, data)
        return self


class LocalWorker(VirtualWorker):
    """This process itself."""

    def __init__(self, hook: TorchHook, *, is_client: bool = True) -> None:
        super().__init__(hook, LOCAL, is_client_worker=is_client)

    def request_search(self, query: str | Sequence[str | int], location: BaseWorker | str) -> list[Found]:
        """Return what `location` finds."""
        return registry.worker(location).search(query)


class WebsocketClientWorker(BaseWorker):
    """A worker on another host that listens, reached with mutual TLS; what it loaded leaves by its owner's rules."""

    def __init__(
        self,
        hook: TorchHook | None,  # noqa: ARG002  there is one hook for all of torch
        host: str,
        port: int,
        id: object,  # noqa: A002  the name that programs use
        *,
        credentials: Credentials,
        verbose: bool = False,  # noqa: ARG002  it says nothing anyway
    ) -> None:
        super().__init__(id, lambda: _connected(f"{host}:{port}", str(id), credentials))
        self.holder  # noqa: B018  a worker that is not there is found here


def _connected(address: str, worker_id: str, credentials: Credentials) -> Reached:
    reached = connect(address, credentials=credentials)
    if reached.name != _named(worker_id):
        reached.close()
        raise UsageError(f"the worker at {address} proves to be {reached.name!r}, not {worker_id!r}; give its own id")
    return reached


def _named(worker_id: str) -> str:
    """Return the name that certificates and ledgers have for an id."""
    return re.sub(r"[^a-z0-9._-]", "-", worker_id.lower()).strip("._-") or "worker"
