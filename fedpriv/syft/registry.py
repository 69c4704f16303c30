"""The workers that this process knows, by id: two workers of one id and kind are one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedpriv.remote.values import Values
from fedpriv.syft.exceptions import WorkerNotFoundException

if TYPE_CHECKING:
    from fedpriv.syft.workers import BaseWorker

KNOWN: dict[str, BaseWorker] = {}


def worker(location: BaseWorker | str) -> BaseWorker:
    """Return the worker that is meant; raise `WorkerNotFoundException` for an id that nobody has."""
    if not isinstance(location, str):
        return location
    if location not in KNOWN:
        raise WorkerNotFoundException(f"no worker {location!r} is known here; there are {', '.join(KNOWN) or 'none'}")
    return KNOWN[location]


def holding(values: Values) -> BaseWorker:
    """Return the worker whose values these are; raise `WorkerNotFoundException` for one that was closed."""
    for each in KNOWN.values():
        if each.site.reached is values.worker:
            return each
    raise WorkerNotFoundException(f"worker {values.worker.name!r} is not known here any more; it was closed")
