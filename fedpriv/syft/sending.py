"""What a tensor does once a hook is made: it is sent, in place or not, copied, moved and called.

Only a tensor's own elements travel. A tensor that is sent under an id which its worker already holds for us replaces
what is there; a worker has one set of ids for each peer, so that nobody replaces another's.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fedpriv.errors import UsageError
from fedpriv.remote.handle import Handle
from fedpriv.remote.pointer import RemoteTensor, pointer_to, sent
from fedpriv.syft import registry
from fedpriv.syft.chains import MultiPointerTensor, PointerChain, combine_pointers
from fedpriv.syft.exceptions import InvalidTensorForRemoteGet, ObjectNotFoundError, SendNotPermittedError
from fedpriv.syft.pointer import PointerTensor, handle_of, read, take_away
from fedpriv.syft.swapping import exchange
from fedpriv.syft.traits import Traits, give, known_traits, traits_of

if TYPE_CHECKING:
    from fedpriv.syft.workers import BaseWorker


def put(worker: BaseWorker, tensor: Tensor, traits: Traits, *, kept: bool = False) -> PointerTensor:
    """Return a pointer to a copy of `tensor`, and of its gradient, that `worker` holds under the id of `traits`."""
    time.sleep(worker.message_pending_time)
    fresh = sent(worker.holder.values, tensor, tuple(sorted(traits.tags)), traits.description)
    store = worker.site.store
    handle = _replaced(store.shared(traits.id), fresh)
    store.call(handle, traits)
    store.keep(handle, kept=kept)
    pointer = pointer_to(handle, PointerTensor).requires_grad_(tensor.requires_grad)
    assert isinstance(pointer, PointerTensor)
    if tensor.is_leaf and tensor.grad is not None:
        pointer.grad = pointer_to(handle_of(sent(worker.holder.values, tensor.grad)), PointerTensor)
    return pointer


def _replaced(old: Handle | None, fresh: RemoteTensor) -> Handle:
    """Return what stands for a value that takes the place of `old`, so that pointers to that one see the new."""
    new = handle_of(fresh)
    if old is None:
        return new
    if old.shape is new.shape and old.memory.label.is_public:
        with torch.no_grad():
            pointer_to(old, RemoteTensor).copy_(fresh)
        return old
    old.free()
    return new


# --- methods of tensors ---


def send(
    tensor: Tensor,
    *locations: BaseWorker | str,
    inplace: bool = False,
    user: str | None = None,
    garbage_collect_data: bool = True,
    local_autograd: bool = True,  # noqa: ARG001  autograd is always here
    preinitialize_grad: bool = False,  # noqa: ARG001  a gradient needs no place before it is there
    no_wrap: bool = False,  # noqa: ARG001  a pointer has no wrapper
) -> Any:  # noqa: ANN401  what it is now
    """Return a pointer to a copy of the tensor at a worker, or one pointer for several workers.

    Sending a pointer gives a pointer to that pointer. Raise `SendNotPermittedError` where the tensor is not for `user`.
    """
    workers = [registry.worker(each) for each in locations]
    if not workers:
        raise UsageError("send() needs a worker; give one, as in x.send(bob)")
    if inplace:
        return send_(tensor, *workers, user=user, garbage_collect_data=garbage_collect_data)
    made = [_sent_to(tensor, each, user, kept=not garbage_collect_data) for each in workers]
    return made[0] if len(made) == 1 else combine_pointers(*made)


def _sent_to(tensor: Tensor, worker: BaseWorker, user: str | None, *, kept: bool) -> PointerTensor | PointerChain:
    if isinstance(tensor, PointerTensor):
        return PointerChain(tensor, worker)
    traits = traits_of(tensor)
    if traits.users is not None and user not in traits.users:
        raise SendNotPermittedError(
            f"the tensor is for {', '.join(sorted(traits.users)) or 'nobody'}, not for {user!r}"
        )
    return put(worker, tensor, traits, kept=kept)


def send_(tensor: Tensor, *locations: BaseWorker | str, user: str | None = None, **options: Any) -> Tensor:  # noqa: ANN401
    """Make the tensor itself a pointer to its copy at a worker, and return it; its id stays."""
    traits = traits_of(tensor)
    made = send(tensor, *locations, user=user, **options)
    if not isinstance(made, PointerTensor):
        raise UsageError("send_() takes one worker and a tensor that is here; use send() for others")
    exchange(tensor, made)
    give(tensor, replace(traits, tags=frozenset(), description=""))
    return tensor


def get(tensor: Tensor, *_: object, **__: object) -> Tensor:
    """Raise `InvalidTensorForRemoteGet`: a pointer has a `get` of its own."""
    raise InvalidTensorForRemoteGet(
        f"a tensor of shape {tuple(tensor.shape)} is here already; only a pointer has get()"
    )


def get_(tensor: Tensor, *, user: str | None = None, **_: object) -> Tensor:
    """Make the pointer itself the value that it points to, and return it; its id stays."""
    if not isinstance(tensor, PointerTensor):
        return get(tensor)
    number = traits_of(tensor).id
    value = read(tensor, user)
    traits = known_traits(value) or Traits(number)
    exchange(tensor, value)
    assert isinstance(value, PointerTensor)  # it is what the other was
    take_away(value)
    give(tensor, replace(traits, id=number))
    return tensor


def moved(tensor: Tensor, location: BaseWorker | str, **options: Any) -> Any:  # noqa: ANN401  what `send` returns
    """Return the tensor at another worker, under the same id; it is at the one before no more."""
    worker = registry.worker(location)
    if not isinstance(tensor, PointerTensor):
        return send(tensor, worker, **options)
    if tensor.location == worker:
        return tensor
    value = tensor.get(**options)
    return value if worker.is_client_worker else put(worker, value, traits_of(value))


def copy(tensor: Tensor) -> Tensor:
    """Return another tensor of the same values, where this one is."""
    with torch.no_grad():
        return tensor.detach().clone().requires_grad_(tensor.requires_grad)


def remote_get(tensor: Tensor) -> Tensor:
    """Raise `InvalidTensorForRemoteGet`: only a pointer to a pointer can be collapsed."""
    raise InvalidTensorForRemoteGet(
        f"{type(tensor).__name__} points to no other pointer; remote_get() collapses a chain"
    )


def create_pointer(
    tensor: Tensor, location: BaseWorker | str = "me", id_at_location: int | None = None
) -> PointerTensor:
    """Return another pointer to what a pointer points to, or to what `location` holds under the id of a tensor.

    A tensor of this process is held by its own worker, as a copy, from then on.
    """
    if isinstance(tensor, PointerTensor):
        return _another(tensor.location, tensor.id_at_location)
    worker, traits = registry.worker(location), traits_of(tensor)
    number = traits.id if id_at_location is None else id_at_location
    if worker.is_client_worker and id_at_location is None:
        return put(worker, tensor, traits)
    return _another(worker, number)


def _another(worker: BaseWorker, number: int) -> PointerTensor:
    handle = worker.site.store.shared(number)
    if handle is None:
        raise ObjectNotFoundError(f"{worker.id} holds nothing under id {number}; send the tensor first")
    return pointer_to(handle, PointerTensor)


def combine(tensor: Tensor, *others: Tensor) -> MultiPointerTensor:
    """Return one pointer for several."""
    return combine_pointers(tensor, *others)


# --- what a tensor is called ---


def described(tensor: Tensor) -> Traits:
    """Return how a tensor is called, or the value that a pointer points to."""
    if isinstance(tensor, PointerTensor):
        return tensor.location.site.store.traits(handle_of(tensor))
    return traits_of(tensor)


def call(tensor: Tensor, traits: Traits) -> Tensor:
    """Call a tensor, or the value that a pointer points to, by `traits`; return the tensor."""
    if isinstance(tensor, PointerTensor):
        tensor.location.site.store.call(handle_of(tensor), traits)
    else:
        give(tensor, traits)
    return tensor


def tag(tensor: Tensor, *tags: str) -> Tensor:
    """Add tags; return the tensor."""
    traits = described(tensor)
    return call(tensor, replace(traits, tags=traits.tags | set(tags)))


def describe(tensor: Tensor, description: str) -> Tensor:
    """Say what the tensor is; return it."""
    return call(tensor, replace(described(tensor), description=description))


def private_tensor(tensor: Tensor, *, allowed_users: Iterable[str], **_: object) -> Tensor:
    """Return the tensor, which from now on this process sends and gets for `allowed_users` alone.

    It is a courtesy between users of one process, not a wall: what a worker's owner does not let out, the worker keeps.
    """
    return call(tensor, replace(described(tensor), users=frozenset(allowed_users)))


def allow(tensor: Tensor, user: str) -> bool:
    """Return whether `user` may have the tensor."""
    users = described(tensor).users
    return users is None or user in users
