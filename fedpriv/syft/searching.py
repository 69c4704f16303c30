"""What a worker finds by tag, by id or by a word of the description: everything that has all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

from torch import Tensor

from fedpriv.remote.pointer import pointer_to
from fedpriv.syft.datasets import PointerDataset
from fedpriv.syft.loading import TENSOR, VECTOR
from fedpriv.syft.pointer import PointerTensor, handle_of
from fedpriv.syft.traits import Traits, new_id

if TYPE_CHECKING:
    from fedpriv.syft.workers import BaseWorker

Found: TypeAlias = PointerTensor | PointerDataset
Query: TypeAlias = Sequence[str | int | Sequence[str | int]]


def search(worker: BaseWorker, query: Query) -> list[Found]:
    """Return a pointer to every value and data set that `worker` holds for us, and to the data sets that it announces.

    Features and target of an announced one also have the tags "#data" and "#target".
    """
    wanted = {str(word) for words in query for word in ([words] if isinstance(words, str | int) else words)}
    _open(worker)
    parts = {id(handle_of(part)) for each in worker.site.datasets.values() for part in (each.data, each.targets)}
    found: list[Found] = []
    for handle, traits in worker.site.store:
        if _has_all(traits, wanted) and id(handle) not in parts:
            worker.site.store.shared(traits.id)
            found.append(pointer_to(handle, PointerTensor))
    found += [each.create_pointer() for each in worker.site.datasets.values() if _has_all(each.traits, wanted)]
    return found


def _has_all(traits: Traits, wanted: set[str]) -> bool:
    return all(word in traits.tags or word == str(traits.id) or word in traits.description for word in wanted)


def _open(worker: BaseWorker) -> None:
    """Open every data set that `worker` announces with its row count, once."""
    for schema in worker.holder.announced().datasets:
        if schema.rows is not None and schema.name not in worker.site.opened:
            rows = worker.holder.dataset(schema.name)
            worker.site.opened.add(schema.name)
            for part, name in _parts(rows.features, rows.target, schema.name):
                handle = handle_of(part)
                worker.site.store.call(handle, Traits(new_id(), frozenset({*schema.tags, *name})))
                worker.site.store.keep(handle, kept=True)


def _parts(features: Tensor, target: Tensor, name: str) -> Iterator[tuple[Tensor, tuple[str, ...]]]:
    if name.startswith(TENSOR):
        yield features, ()
    elif name.startswith(VECTOR):
        yield features.squeeze(1), ()
    else:
        yield features, ("#data",)
        yield target, ("#target",)
