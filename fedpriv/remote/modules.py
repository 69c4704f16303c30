"""Modules that move: parameters and buffers go to a worker and come back, in place.

A parameter stays the same Python object wherever its values are, so an optimiser that was made before goes on working;
the state that it keeps of a parameter follows it with the next step, where that state is the caller's own. Nothing of
torch is replaced: the hook is torch's own.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from fedpriv.errors import UsageError
from fedpriv.remote.pointer import RemoteTensor, sent


class Sends(Protocol):
    """A worker, or whatever else gives a pointer for a tensor: it may wait, and it must copy."""

    def send(self, tensor: Tensor) -> RemoteTensor:
        """Return a pointer to a copy of `tensor`."""
        ...


def swap(old: Tensor, new: Tensor) -> None:
    """Make each of two tensors the other, in place; raise `UsageError` while a graph needs one of them."""
    exchange: Callable[[Tensor, Tensor], None] = torch.utils.swap_tensors
    try:
        exchange(old, new)
    except RuntimeError:
        gc.collect()  # a graph in a cycle is still alive
        try:
            exchange(old, new)
        except RuntimeError:
            raise UsageError(
                "a result of the module is still alive and needs its weights where they are; call backward() on it, or "
                "del it, before the module moves"
            ) from None


def send_module(module: nn.Module, worker: Sends, *, exchange: Callable[[Tensor, Tensor], None] = swap) -> nn.Module:
    """Move every parameter and buffer of `module` to `worker`, in place, and return it.

    Gradients go along; tied, frozen and recurrent weights stay what they are. Raise `ReleaseDenied` for values that
    derive from the data of another worker's owner. `exchange` makes each of two tensors the other.
    """
    if not isinstance(module, nn.Module) or not callable(getattr(worker, "send", None)):
        raise UsageError(f"send_module takes a module and a worker, not {type(module).__name__}, {worker!r}")
    _follow_parameters()
    for each in module.modules():
        if isinstance(each, nn.RNNBase) and _begin_stepwise not in each._forward_pre_hooks.values():  # noqa: SLF001
            each.register_forward_pre_hook(_begin_stepwise)
            each.register_forward_hook(_end_stepwise, always_call=True)
    return move_module(module, lambda tensor: worker.send(_here(tensor)), exchange)


def get_module(module: nn.Module, *, exchange: Callable[[Tensor, Tensor], None] = swap) -> nn.Module:
    """Bring every parameter and buffer of `module` back, in place, and return it; raise as `RemoteTensor.get` does."""
    return move_module(module, _here, exchange)


def _here(tensor: Tensor) -> Tensor:
    return RemoteTensor.get(tensor) if isinstance(tensor, RemoteTensor) else tensor.detach()


def move_module(
    module: nn.Module, move: Callable[[Tensor], Tensor], exchange: Callable[[Tensor, Tensor], None]
) -> nn.Module:
    """Put what `move` gives in place of every parameter and buffer, all of them or none, and return the module."""
    held = list(tensors_of(module))
    new = {id(each): _copy(each, move) for each in held}  # all of them before any is replaced
    recurrent = [each for each in module.modules() if isinstance(each, nn.RNNBase)]
    for layer in recurrent:
        layer._flat_weights, layer._flat_weight_refs = [], []  # noqa: SLF001  torch keeps weak references there
    try:
        for each in held:
            exchange(each, new[id(each)])
    finally:
        for layer in recurrent:
            layer._init_flat_weights()  # noqa: SLF001  as torch does after it moved a module
    return module


def tensors_of(module: nn.Module) -> Iterator[Tensor]:
    """Yield each parameter and buffer once."""
    yield from module.parameters()
    yield from module.buffers()


def _copy(tensor: Tensor, move: Callable[[Tensor], Tensor]) -> Tensor:
    with torch.no_grad():
        moved = move(tensor).detach()
    if isinstance(tensor, nn.Parameter):
        moved = nn.Parameter(moved, requires_grad=tensor.requires_grad)
        if tensor.grad is not None:
            moved.grad = move(tensor.grad).detach()
    return moved


_stepwise: list[AbstractContextManager[None]] = []


def _begin_stepwise(layer: nn.Module, _: object) -> None:
    """Have torch take a recurrent layer step by step while its weights are elsewhere: its fused kernel is for here."""
    there = isinstance(next(layer.parameters()), RemoteTensor)
    _stepwise.append(torch.backends.mkldnn.flags(enabled=False, allow_tf32=None) if there else nullcontext())
    _stepwise[-1].__enter__()


def is_stepwise() -> bool:
    """Return whether a recurrent layer is being taken step by step."""
    return bool(_stepwise)


def _end_stepwise(*_: object) -> None:
    """Let torch have its fused kernels back."""
    _stepwise.pop().__exit__(None, None, None)


_following: list[Any] = []


def _follow_parameters() -> None:
    """Have the state of every optimiser follow its parameters, from now on."""
    if not _following:
        _following.append(register_optimizer_step_pre_hook(_follow))


def _follow(optimizer: Optimizer, _: object, __: object) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state.get(parameter)
            if state:
                for key, value in state.items():
                    if isinstance(value, Tensor) and value.shape == parameter.shape and value.dim():
                        state[key] = _beside(value, parameter)


def _beside(state: Tensor, parameter: Tensor) -> Tensor:
    """Return `state` where `parameter` is."""
    if not isinstance(parameter, RemoteTensor):
        return _here(state) if isinstance(state, RemoteTensor) else state
    values = parameter._handle.values  # noqa: SLF001  of this package
    if isinstance(state, RemoteTensor) and state._handle.values is values:  # noqa: SLF001  as above
        return state
    return sent(values, _here(state))
