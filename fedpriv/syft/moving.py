"""Models that move in place, on top of `fedpriv.send_module` and `fedpriv.get_module`."""

from __future__ import annotations

import copy as copying
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from fedpriv.errors import ReleaseDenied, UsageError
from fedpriv.remote.modules import get_module, send_module
from fedpriv.remote.pointer import RemoteTensor
from fedpriv.syft import registry
from fedpriv.syft.exceptions import GetNotPermittedError
from fedpriv.syft.pointer import PointerTensor
from fedpriv.syft.sending import call, put
from fedpriv.syft.swapping import exchange
from fedpriv.syft.traits import Traits, give, known_traits, new_id

if TYPE_CHECKING:
    from fedpriv.syft.workers import BaseWorker


class _Sender:
    """Gives pointers of our kind at one worker."""

    def __init__(self, worker: BaseWorker) -> None:
        self._worker = worker

    def send(self, tensor: Tensor) -> RemoteTensor:
        """Return a pointer to a copy of `tensor`."""
        return put(self._worker, tensor.detach(), Traits(new_id()))


def send_model(module: nn.Module, *locations: BaseWorker | str, **_: object) -> nn.Module:
    """Move every parameter and buffer to a worker, in place, and return the model; an optimiser follows."""
    if len(locations) != 1:
        raise UsageError(f"a model is at one worker; {len(locations)} are given: send a copy() to each")
    sender = _Sender(registry.worker(locations[0]))
    with _Ids(module):
        try:
            return send_module(module, sender, exchange=exchange)
        except ReleaseDenied as denial:
            raise GetNotPermittedError(str(denial)) from None


def get_model(module: nn.Module, **_: object) -> nn.Module:
    """Bring every parameter and buffer back, in place, and return the model."""
    with _Ids(module):
        try:
            return get_module(module, exchange=exchange)
        except ReleaseDenied as denial:
            raise GetNotPermittedError(str(denial)) from None


def move_model(module: nn.Module, location: BaseWorker | str) -> nn.Module:
    """Move the model to another worker, or here where that is this process."""
    worker = registry.worker(location)
    return get_model(module) if worker.is_client_worker else send_model(module, worker)


def copy_model(module: nn.Module) -> nn.Module:
    """Return another model of the same values, where this one is."""
    return copying.deepcopy(module)


def location_of(module: nn.Module) -> BaseWorker | None:
    """Return where the model is, None for here."""
    first = next(_tensors(module), None)
    return first.location if isinstance(first, PointerTensor) else None


class _Ids:
    """Has every parameter and buffer that was given an id keep it while the model moves, and have it at the worker."""

    def __init__(self, module: nn.Module) -> None:
        known = ((each, known_traits(each)) for each in _tensors(module))
        self._known = [(each, traits) for each, traits in known if traits is not None]

    def __enter__(self) -> None:
        """Do nothing: the ids are known already."""

    def __exit__(self, *_: object) -> None:
        for tensor, traits in self._known:
            give(tensor, traits)
            call(tensor, traits)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


_following: list[Any] = []


def take_batch_sizes() -> None:
    """Have the optimisers of models that are at a worker take a batch size for `step`, as 0.2 had them; once."""
    if not _following:
        _following.append(register_optimizer_step_pre_hook(_without_batch_size))


def _without_batch_size(
    optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Leave a number out that stands where torch has a closure."""
    if len(args) < 2 or not isinstance(args[1], int) or isinstance(args[1], bool):
        return None
    there = any(isinstance(each, RemoteTensor) for group in optimizer.param_groups for each in group["params"])
    return ((args[0], *args[2:]), kwargs) if there else None
