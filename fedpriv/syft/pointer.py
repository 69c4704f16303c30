"""Pointers as 0.2 knew them: a `fedpriv.RemoteTensor` that knows its worker and its id there, and whose `get` takes.

Everything else, arithmetic, autograd and what may leave, is what it is in `fedpriv.remote`. Two places that meet in
one operation are an error here, whatever their size.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn, Self

import torch
from torch import Tensor

from fedpriv.errors import ReleaseDenied, UsageError, WorkerRefused
from fedpriv.labels import PUBLIC
from fedpriv.plans.calls import Layout
from fedpriv.remote.handle import Handle, Memory
from fedpriv.remote.modules import is_stepwise
from fedpriv.remote.pointer import RemoteTensor, dispatch, pointer_to, taking_apart, with_local
from fedpriv.remote.recipes import Shape
from fedpriv.remote.values import Values
from fedpriv.syft import registry
from fedpriv.syft.exceptions import (
    GetNotPermittedError,
    ObjectNotFoundError,
    TensorsNotCollocatedException,
    ValueIsElsewhere,
)
from fedpriv.syft.store import PRIVATE
from fedpriv.syft.traits import Traits, give, new_id, traits_of
from fedpriv.wire.messages import ErrorCode

if TYPE_CHECKING:
    from fedpriv.syft.workers import BaseWorker

_TAKES_ALONG = frozenset({"index", "index_put", "index_put_", "index_select", "gather", "embedding", "take"})
"""Operations whose positions may be here and what they are positions in there."""
_NOTHING = Layout.dense("float32", ())


class Gone(Handle):
    """Stands where there is no value, or none any more: whatever uses it raises `ObjectNotFoundError`."""

    __slots__ = ("_worker",)

    def __init__(self, number: int, shape: Shape, worker: BaseWorker) -> None:
        self.id = number
        self.shape = shape
        self.memory = Memory(PUBLIC)
        self.keep = True
        self._worker = worker

    @property
    def values(self) -> Values:  # type: ignore[override]  # what a handle has, this one has not
        """Raise `ObjectNotFoundError`."""
        raise ObjectNotFoundError(f"{self._worker.id} holds nothing under id {self.id}; it was taken away by get()")

    @property
    def location(self) -> BaseWorker:
        """Where the value would be."""
        return self._worker


class PointerTensor(RemoteTensor):
    """A tensor at a worker, under an id of that worker's."""

    def __new__(
        cls,
        id: int | None = None,  # noqa: A002  the name that programs use
        location: BaseWorker | None = None,
        owner: BaseWorker | None = None,  # noqa: ARG004  every pointer of this process is its own
        id_at_location: int | None = None,
        *,
        garbage_collect_data: bool = True,
    ) -> Self:
        """Return a pointer called `id` to what `location` holds under `id_at_location`, the same id unless it is given.

        It may point to nothing: using it raises `ObjectNotFoundError` then.
        """
        if location is None:
            raise UsageError("a PointerTensor points to a worker; give location=")
        number = new_id() if id is None else id
        there = number if id_at_location is None else id_at_location
        handle = location.site.store.shared(there) or Gone(there, Shape.of(_NOTHING), location)
        made = pointer_to(handle, cls)
        give(made, Traits(number))
        if not garbage_collect_data:
            made.gc = False
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch calls it with the overload first
        cls,
        func: Any,  # noqa: ANN401  torch's hook
        types: Any,  # noqa: ANN401  torch's hook
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401  whatever the operation returns
        """Ask the worker for one operation; called by torch."""
        try:
            result = dispatch(func, args, kwargs or {}, _mixed)
        except ObjectNotFoundError:
            raise
        except UsageError as error:
            if len({each.worker for each in _pointers((args, kwargs)) if isinstance(each, RemoteTensor)}) > 1:
                raise TensorsNotCollocatedException(str(error)) from None
            raise
        if PRIVATE:
            _pass_on_users(_pointers((args, kwargs)), _pointers(result))
        return result

    @property
    def location(self) -> BaseWorker:
        """The worker that holds the value."""
        handle = self._handle
        return handle.location if isinstance(handle, Gone) else registry.holding(handle.values)

    @property
    def id_at_location(self) -> int:
        """The id under which its worker holds the value."""
        handle = self._handle
        return handle.id if isinstance(handle, Gone) else self.location.site.store.traits(handle).id

    @property
    def child(self) -> Self:
        """The pointer itself: there is nothing around it."""
        return self

    @property
    def gc(self) -> bool:
        """Whether the value goes when nothing points to it any more."""
        return not self.location.site.store.is_kept(self._handle)

    @gc.setter
    def gc(self, value: bool) -> None:
        self.location.site.store.keep(self._handle, kept=not value)

    garbage_collection = garbage_collect_data = gc

    @property
    def disable_gc(self) -> Self:
        """The pointer itself, whose value stays from now on."""
        self.gc = False
        return self

    def get(self, *, user: str | None = None, reason: str = "", deregister_ptr: bool = True) -> Tensor:  # noqa: ARG002
        """Return the value and take it away from its worker.

        Raise `GetNotPermittedError` where it derives from an owner's data or is not for `user`, `ObjectNotFoundError`
        where it is not there any more. `reason` and `deregister_ptr` are taken as 0.2 took them, and change nothing.
        """
        value = read(self, user)
        take_away(self)
        return value

    def move(self, worker: BaseWorker | str, *, user: str | None = None) -> Any:  # noqa: ANN401  a pointer, or a tensor
        """Return a pointer to the value at another worker, which is the value itself where that is this process."""
        from fedpriv.syft.sending import moved  # noqa: PLC0415  it makes pointers of this kind

        return moved(self, registry.worker(worker), user=user)

    def item(self) -> NoReturn:  # it has none
        """Raise `ValueIsElsewhere`."""
        raise ValueIsElsewhere(f"{self!r} has no value here for item(), bool() or a number; use get(), then item()")

    __bool__ = __float__ = __int__ = __index__ = __complex__ = item

    def __repr__(  # type: ignore[override]  # torch leaves its own untyped
        self,
        *,
        tensor_contents: Any = None,  # noqa: ANN401  torch's signature
    ) -> str:
        traits = traits_of(self)
        return f"(Wrapper)>[PointerTensor | me:{traits.id} -> {self.location.id}:{self.id_at_location}]"


def _mixed(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:  # noqa: ANN401  torch's hook
    """Carry out an operation with tensors of this process among its operands, where 0.2 would have."""
    packet = str(func).split(".")[1]
    ours = [each for each in _pointers((args, kwargs)) if not isinstance(each, RemoteTensor) and each.dim()]
    if ours and packet not in _TAKES_ALONG and not _is_torchs_own():
        where = next(each.worker for each in _pointers((args, kwargs)) if isinstance(each, RemoteTensor))
        raise TensorsNotCollocatedException(
            f"{packet} has an operand of shape {tuple(ours[0].shape)} here and another on {where}; send the one here, "
            "or get() the other"
        )
    return with_local(func, args, kwargs)


def _pass_on_users(operands: Iterator[Tensor], results: Iterator[Tensor]) -> None:
    """Let what is computed from values that not everybody may have be for those alone who may have them all."""
    allowed: frozenset[str] | None = None
    for each in operands:
        if isinstance(each, PointerTensor) and handle_of(each) in PRIVATE:
            users = each.location.site.store.traits(handle_of(each)).users
            allowed = users if allowed is None else allowed & (users or frozenset())
    for each in results:
        if allowed is not None and isinstance(each, PointerTensor):
            store = each.location.site.store
            store.call(handle_of(each), replace(store.traits(handle_of(each)), users=allowed))


def _is_torchs_own() -> bool:
    """Return whether it is torch that mixes places: within an operation, a recurrent layer or a backward pass."""
    return taking_apart() or is_stepwise() or torch._C._current_graph_task_id() >= 0  # noqa: SLF001  torch has no public way


def _pointers(value: Any) -> Iterator[Tensor]:  # noqa: ANN401  arguments of an operation
    """Yield every tensor among `value`, wherever it is."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _pointers(each)
    elif isinstance(value, Mapping):
        yield from _pointers(list(value.values()))


def handle_of(pointer: Tensor) -> Handle:
    """Return what stands here for the value of a pointer."""
    assert isinstance(pointer, RemoteTensor)
    return pointer._handle  # noqa: SLF001  fedpriv's own kind of pointer


def read(pointer: PointerTensor, user: str | None) -> Tensor:
    """Return the value of a pointer, with its gradient and all that it is called; raise as its `get` does."""
    permitted(pointer, user)
    time.sleep(pointer.location.message_pending_time)
    value = fetched(pointer)
    if pointer.is_leaf:
        value.requires_grad_(pointer.requires_grad)
        if pointer.grad is not None:
            value.grad = fetched(pointer.grad)
    traits = pointer.location.site.store.known(handle_of(pointer))
    if traits is not None:
        give(value, traits)
    return value


def take_away(pointer: PointerTensor) -> None:
    """Have the worker forget the value of a pointer, which points to nothing from now on."""
    handle, location = handle_of(pointer), pointer.location
    number = pointer.id_at_location
    location.site.store.remove(handle)
    pointer._handle = Gone(number, handle.shape, location)  # noqa: SLF001  ours


def permitted(pointer: PointerTensor, user: str | None) -> None:
    """Raise `GetNotPermittedError` unless `user` may have the value.

    It is kept by this process, for whoever keeps to it; what a worker's owner does not let out, the worker keeps.
    """
    traits = pointer.location.site.store.known(handle_of(pointer))
    if traits is not None and traits.users is not None and user not in traits.users:
        raise GetNotPermittedError(
            f"{pointer!r} is for {', '.join(sorted(traits.users)) or 'nobody'}, not for {user!r}"
        )


def fetched(pointer: Tensor) -> Tensor:
    """Return a copy of the value of a pointer; raise what 0.2 raised."""
    assert isinstance(pointer, RemoteTensor)
    try:
        return RemoteTensor.get(pointer)
    except ReleaseDenied as denial:
        raise GetNotPermittedError(str(denial)) from None
    except WorkerRefused as refusal:
        if refusal.code != ErrorCode.BAD_REQUEST.name:
            raise
        raise ObjectNotFoundError(f"{pointer.worker} holds no value of {pointer!r}; it was taken away") from None
