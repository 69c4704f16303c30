"""What a worker holds for us, as programs of 0.2 look at it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch import Tensor

from fedpriv.errors import ReleaseDenied
from fedpriv.remote.pointer import RemoteTensor, pointer_to
from fedpriv.syft.exceptions import ObjectNotFoundError
from fedpriv.syft.pointer import PointerTensor, fetched

if TYPE_CHECKING:
    from fedpriv.syft.workers import BaseWorker


class ObjectStore:
    """What has an id at one worker; it is asked for nothing but values."""

    def __init__(self, worker: BaseWorker) -> None:
        self._worker = worker

    def __len__(self) -> int:
        return sum(1 for _ in self._worker.site.store)

    def __iter__(self) -> Iterator[int]:
        return (traits.id for _, traits in self._worker.site.store)

    def __contains__(self, number: int) -> bool:
        return self._worker.site.store.find(number) is not None

    def get_obj(self, number: int) -> Tensor:
        """Return a copy of what has an id, or a pointer where it may not leave; raise `ObjectNotFoundError`."""
        handle = self._worker.site.store.find(number)
        if handle is None:
            raise ObjectNotFoundError(f"{self._worker.id} holds nothing under id {number}")
        try:
            return fetched(pointer_to(handle, RemoteTensor))
        except ReleaseDenied:
            return pointer_to(handle, PointerTensor)

    def find_by_tag(self, tag: str) -> list[PointerTensor]:
        """Return a pointer to everything that has a tag."""
        store = self._worker.site.store
        found = [store.shared(traits.id) for _, traits in store if tag in traits.tags]
        return [pointer_to(each, PointerTensor) for each in found if each is not None]

    def find_by_id(self, number: int) -> PointerTensor | None:
        """Return a pointer to what has an id, or None."""
        handle = self._worker.site.store.shared(number)
        return None if handle is None else pointer_to(handle, PointerTensor)

    @property
    def _objects(self) -> dict[int, Tensor]:
        """What it holds, by id: the name under which programs print it."""
        return {number: self.get_obj(number) for number in self}

    def __repr__(self) -> str:
        return f"<ObjectStore of {self._worker.id}: {len(self)} objects>"
