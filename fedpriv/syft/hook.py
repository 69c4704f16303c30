"""The names that a program of 0.2 expects on torch's tensors and modules, and nothing else.

They are added and replace nothing: whatever an object, or a kind of tensor or module of its own, calls by one of them
goes first. torch itself computes, prints and saves as it did.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from types import CodeType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from fedpriv.errors import UsageError
from fedpriv.syft import datasets, moving, registry, sending
from fedpriv.syft.pointer import PointerTensor
from fedpriv.syft.traits import traits_of
from fedpriv.syft.workers import LOCAL, LocalWorker


class _Method:
    """A method that gives way to whatever the object itself has under its name."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self._name = name
        self._function = function
        self.__doc__ = function.__doc__

    def __get__(self, instance: Any, owner: type) -> Any:  # noqa: ANN401  a method
        if instance is None:
            return self._function
        own = _own(instance, self._name, sys._getframe(1).f_code)  # noqa: SLF001  Python's way to know who asks
        return MethodType(self._function, instance) if own is None else own


class _Attribute:
    """A value that gives way to whatever the object itself has under its name."""

    def __init__(self, name: str, function: Callable[[Any], Any]) -> None:
        self._name = name
        self._function = function

    def __get__(self, instance: Any, owner: type) -> Any:  # noqa: ANN401  a value
        if instance is None:
            return self
        own = _own(instance, self._name, sys._getframe(1).f_code)  # noqa: SLF001  Python's way to know who asks
        return self._function(instance) if own is None else own


_REGISTERING = {
    each.__code__ for each in (nn.Module.register_parameter, nn.Module.register_buffer, nn.Module.add_module)
}


def _own(instance: Any, name: str, asking: CodeType) -> Any:  # noqa: ANN401  any object
    """Return the parameter, buffer or module that a module has under `name`, or None.

    torch asks whether a name is free before it registers something under it: ours are.
    """
    if isinstance(instance, nn.Module):
        if asking in _REGISTERING:
            raise AttributeError(name)
        for held in ("_parameters", "_buffers", "_modules"):
            found = instance.__dict__.get(held, {}).get(name)
            if found is not None:
                return found
    return None


def _owner(_: Tensor) -> LocalWorker:
    worker = registry.KNOWN[LOCAL]
    assert isinstance(worker, LocalWorker)
    return worker


_METHODS: Mapping[type, Mapping[str, Callable[..., Any]]] = {
    Tensor: {
        "send": sending.send,
        "send_": sending.send_,
        "get": sending.get,
        "get_": sending.get_,
        "move": sending.moved,
        "copy": sending.copy,
        "remote_get": sending.remote_get,
        "create_pointer": sending.create_pointer,
        "combine": sending.combine,
        "tag": sending.tag,
        "describe": sending.describe,
        "private_tensor": sending.private_tensor,
        "allow": sending.allow,
    },
    nn.Module: {
        "send": moving.send_model,
        "get": moving.get_model,
        "move": moving.move_model,
        "copy": moving.copy_model,
    },
    Dataset: {"federate": datasets.federate},
}
_ATTRIBUTES: Mapping[type, Mapping[str, Callable[[Any], Any]]] = {
    Tensor: {
        "id": lambda tensor: traits_of(tensor).id,
        "tags": lambda tensor: set(sending.described(tensor).tags),
        "description": lambda tensor: sending.described(tensor).description,
        "owner": _owner,
        "is_wrapper": lambda tensor: isinstance(tensor, PointerTensor),
    },
    nn.Module: {"location": moving.location_of},
}


class TorchHook:
    """Adds the names to torch, once; `local_worker` is this process."""

    def __init__(
        self,
        module: ModuleType = torch,
        is_client: bool = True,  # noqa: FBT001, FBT002  the order that programs use
        *,
        verbose: bool = False,  # noqa: ARG002  it says nothing anyway
        local_worker: object = None,  # noqa: ARG002  as programs call it
    ) -> None:
        if module is not torch:
            raise UsageError("a TorchHook takes torch itself: TorchHook(torch)")
        self.torch = torch
        for kind, methods in _METHODS.items():
            for name, function in methods.items():
                if name not in vars(kind):
                    setattr(kind, name, _Method(name, function))
        for kind, attributes in _ATTRIBUTES.items():
            for name, read in attributes.items():
                if name not in vars(kind):
                    setattr(kind, name, _Attribute(name, read))
        moving.take_batch_sizes()
        self.local_worker = LocalWorker(self, is_client=is_client)
